-- A column, filled, then required: the usual three steps.
ALTER TABLE users ADD COLUMN language text;
UPDATE users SET language = CASE country WHEN 'DE' THEN 'de' WHEN 'FR' THEN 'fr' WHEN 'JP' THEN 'ja' WHEN 'BR' THEN 'pt' ELSE 'en' END;
ALTER TABLE users ALTER COLUMN language SET NOT NULL;
