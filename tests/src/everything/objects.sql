-- What is not a table: views, functions, triggers, rights, large objects, search, settings.

CREATE VIEW app.a_view WITH (security_barrier) AS SELECT id, c_length FROM app.generated, app.a LIMIT 5;
CREATE RECURSIVE VIEW app.numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 10;
CREATE VIEW app.checked AS SELECT * FROM app.a WHERE id > 0 WITH LOCAL CHECK OPTION;
CREATE MATERIALIZED VIEW app.totals AS SELECT kind, count(*) AS n FROM app.events GROUP BY kind;
CREATE UNIQUE INDEX totals_kind ON app.totals (kind);
-- By its name it is dumped before the one that it reads.
CREATE MATERIALIZED VIEW app.a_total_of_totals AS SELECT sum(n) AS n FROM app.totals;
CREATE MATERIALIZED VIEW app.not_populated AS SELECT * FROM app.totals WITH NO DATA;
-- Older than the table's content: refreshing it would be a change that a restore must know about.
CREATE MATERIALIZED VIEW app.stale AS SELECT count(*) AS n FROM app.duplicates;

CREATE FUNCTION app.body_is_string(i int DEFAULT 1, OUT o text, VARIADIC v int[] DEFAULT '{}') LANGUAGE plpgsql STABLE PARALLEL SAFE COST 7 SET search_path = app, pg_temp
    AS $body$ BEGIN o := $a$;\.
$a$ || i::text; END $body$;
CREATE FUNCTION app.body_is_parsed(t text) RETURNS int LANGUAGE sql IMMUTABLE RETURN length(t) + 1;
CREATE FUNCTION app.rows_of() RETURNS TABLE (x int, y text) LANGUAGE sql ROWS 3 BEGIN ATOMIC SELECT id, 'y'::text FROM app.a; END;
CREATE FUNCTION app.security() RETURNS void LANGUAGE sql SECURITY DEFINER LEAKPROOF STRICT AS '';
CREATE PROCEDURE app.procedure(INOUT i int) LANGUAGE plpgsql AS $$ BEGIN COMMIT; i := i + 1; END $$;
CREATE FUNCTION app.product_step(numeric, numeric) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 * $2';
CREATE AGGREGATE app.product (numeric) (sfunc = app.product_step, stype = numeric, initcond = '1', parallel = safe);
CREATE TABLE app.uses_function (t text, n int GENERATED ALWAYS AS (app.body_is_parsed(t)) STORED, CHECK (app.body_is_parsed(t) > 0));
INSERT INTO app.uses_function VALUES ('four');
CREATE INDEX uses_function_index ON app.uses_function (app.body_is_parsed(t));

CREATE FUNCTION app.same_length(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length($1) = length($2)';
CREATE OPERATOR app.=#= (leftarg = text, rightarg = text, function = app.same_length, commutator = OPERATOR(app.=#=));
CREATE FUNCTION app.mood_number(types.mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT CASE $1 WHEN 'sad' THEN 0 ELSE 1 END $$;
CREATE CAST (types.mood AS int) WITH FUNCTION app.mood_number(types.mood) AS ASSIGNMENT;
CREATE OPERATOR FAMILY app.family USING btree;
CREATE OPERATOR CLASS app.class FOR TYPE int USING btree FAMILY app.family AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
CREATE COLLATION app.posix (locale = 'POSIX');
CREATE TABLE app.collated (t text COLLATE app.posix PRIMARY KEY);
INSERT INTO app.collated VALUES ('a'), ('B'), ('ä');
CREATE TEXT SEARCH DICTIONARY app.dictionary (TEMPLATE = simple, STOPWORDS = english, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION app.search (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION app.search ALTER MAPPING FOR asciiword WITH app.dictionary, english_stem;
CREATE CONVERSION app.conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;

-- Triggers: each would change or refuse rows if a restore let it fire.
CREATE TABLE app.audited (id int PRIMARY KEY, t text, changes int DEFAULT 0);
CREATE TABLE app.audit (n int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION app.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO app.audit (what) VALUES (TG_OP || ' ' || TG_NAME || ' ' || coalesce(TG_ARGV[0], '')); RETURN NEW; END $$;
CREATE FUNCTION app.count_changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.changes := coalesce(NEW.changes, 0) + 1; RETURN NEW; END $$;
CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused by trigger %', TG_NAME; END $$;
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OF t OR DELETE ON app.audited FOR EACH ROW EXECUTE FUNCTION app.audit(E'it''s \\ an argument');
CREATE TRIGGER before_row BEFORE INSERT ON app.audited FOR EACH ROW WHEN (NEW.id <> 77) EXECUTE FUNCTION app.count_changes();
CREATE TRIGGER statement AFTER UPDATE ON app.audited REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION app.audit();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON app.audited DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.audit();
INSERT INTO app.audited (id, t) VALUES (1, 'x'), (2, 'y');
CREATE TRIGGER refuse_all BEFORE INSERT ON app.audited FOR EACH STATEMENT EXECUTE FUNCTION app.refuse();
CREATE TRIGGER off BEFORE DELETE ON app.audited FOR EACH ROW EXECUTE FUNCTION app.refuse();
CREATE TRIGGER always AFTER DELETE ON app.audited FOR EACH ROW EXECUTE FUNCTION app.audit();
CREATE TRIGGER on_replica AFTER DELETE ON app.audited FOR EACH ROW EXECUTE FUNCTION app.audit();
ALTER TABLE app.audited DISABLE TRIGGER off, ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER on_replica;
CREATE TRIGGER on_partitions AFTER INSERT ON app.events FOR EACH ROW EXECUTE FUNCTION app.audit();
ALTER TABLE app.events_default DISABLE TRIGGER on_partitions;
CREATE FUNCTION app.instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER on_view INSTEAD OF INSERT ON app.a_view FOR EACH ROW EXECUTE FUNCTION app.instead();
CREATE RULE no_delete AS ON DELETE TO app.dropped_columns DO INSTEAD NOTHING;
CREATE RULE log_update AS ON UPDATE TO app.dropped_columns WHERE NEW.a <> OLD.a DO ALSO INSERT INTO app.audit (what) VALUES ('rule');
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;

-- Row security: a backup by the table's owner, without row_security=off, would silently hold half of the rows.
CREATE TABLE app.secured (id int PRIMARY KEY, owner name DEFAULT current_user);
INSERT INTO app.secured VALUES (1, 'safe_run_test_reader'), (2, 'somebody');
ALTER TABLE app.secured OWNER TO safe_run_test_owner;
ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY only_own ON app.secured FOR SELECT TO safe_run_test_reader, safe_run_test_owner USING (owner = current_user);
CREATE POLICY restrictive ON app.secured AS RESTRICTIVE FOR INSERT WITH CHECK (id > 0);

-- Rights.
GRANT USAGE ON SCHEMA app TO safe_run_test_reader WITH GRANT OPTION;
GRANT SELECT, UPDATE (b_id), REFERENCES (id) ON app.a TO safe_run_test_reader, "safe_run_test_o'dd ""role""";
GRANT ALL ON app.b TO PUBLIC;
REVOKE ALL ON app.a_view FROM postgres;
REVOKE EXECUTE ON FUNCTION app.security() FROM PUBLIC;
GRANT USAGE ON SEQUENCE app.never_called TO safe_run_test_reader;
REVOKE USAGE ON TYPE types.mood FROM PUBLIC;
GRANT USAGE ON LANGUAGE sql TO safe_run_test_reader;
GRANT SELECT ON pg_catalog.pg_authid TO safe_run_test_reader;
ALTER TABLE app.audited OWNER TO safe_run_test_owner;
ALTER FUNCTION app.security() OWNER TO safe_run_test_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE safe_run_test_owner IN SCHEMA app GRANT SELECT ON TABLES TO safe_run_test_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE safe_run_test_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Comments.
COMMENT ON SCHEMA app IS E'It''s\n-- a comment; \\. 😀';
COMMENT ON TABLE app.a IS 'table';
COMMENT ON COLUMN app.a.id IS E'column\r\n';
COMMENT ON CONSTRAINT old_fk ON app.old_rows IS 'constraint';
COMMENT ON INDEX app.indexed_gist IS 'index';
COMMENT ON FUNCTION app.body_is_parsed(text) IS 'function';
COMMENT ON TRIGGER off ON app.audited IS 'trigger';
COMMENT ON POLICY only_own ON app.secured IS 'policy';
COMMENT ON TYPE types.mood IS 'type';
COMMENT ON DOMAIN types.positive IS 'domain';
COMMENT ON CAST (types.mood AS int) IS 'cast';
COMMENT ON MATERIALIZED VIEW app.totals IS 'materialized view';
COMMENT ON SEQUENCE app.never_called IS 'sequence';
COMMENT ON RULE no_delete ON app.dropped_columns IS 'rule';
COMMENT ON STATISTICS app.some_statistics IS 'statistics';
COMMENT ON EXTENSION plpgsql IS 'a comment of one''s own on an extension';

-- Large objects: several pages, empty, with holes.
SELECT lo_from_bytea(900001, decode(repeat('00ff5c2e0a', 5000), 'hex')), lo_from_bytea(900002, ''), lo_create(4294967294);
SELECT lo_put(4294967294, 100000, 'after a hole');
ALTER LARGE OBJECT 900001 OWNER TO safe_run_test_owner;
COMMENT ON LARGE OBJECT 900001 IS E'large\nobject';
GRANT SELECT ON LARGE OBJECT 900002 TO safe_run_test_reader;
CREATE TABLE app.files (id int, content oid);
INSERT INTO app.files VALUES (1, 900001), (2, 4294967294), (3, 12345);

-- Elsewhere.
CREATE FOREIGN DATA WRAPPER without_handler OPTIONS (o 'it''s');
CREATE SERVER nowhere TYPE 't' VERSION '1' FOREIGN DATA WRAPPER without_handler OPTIONS (host 'h');
CREATE USER MAPPING FOR safe_run_test_reader SERVER nowhere OPTIONS (user 'u', password 'not a secret');
CREATE FOREIGN TABLE app.foreign_table (id int OPTIONS (c 'x') NOT NULL, t text DEFAULT 'd', CHECK (id > 0)) SERVER nowhere OPTIONS (t 'y');
GRANT USAGE ON FOREIGN SERVER nowhere TO safe_run_test_reader;
CREATE PUBLICATION of_some_tables FOR TABLE app.a, ONLY app.parent WITH (publish = 'insert');
CREATE PUBLICATION of_all_tables FOR ALL TABLES WITH (publish = 'insert, truncate', publish_via_partition_root = true);
--@since 15
CREATE PUBLICATION of_rows FOR TABLE app.b (id) WHERE (id > 1) WITH (publish = 'insert');
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA types WITH (publish = 'insert');
CREATE VIEW app.invoker WITH (security_invoker) AS SELECT * FROM app.secured;
--@end
--@since 16
-- pg_dump 16 and newer writes options for it that an older server, from which it was dumped, refuses.
CREATE SUBSCRIPTION unconnected CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
--@end

-- The materialized view that must not be refreshed by a restore, now that its table has changed.
INSERT INTO app.duplicates VALUES (2, 'later');

-- The database's own settings. Those that change how values print are here to trip whoever relies on defaults.
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET DateStyle = ''SQL, DMY''', current_database());
    EXECUTE format('ALTER DATABASE %I SET search_path = app, "Odd ""schema"" %%s", public', current_database());
    EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database());
    EXECUTE format('ALTER DATABASE %I SET bytea_output = escape', current_database());
    EXECUTE format('ALTER DATABASE %I SET IntervalStyle = iso_8601', current_database());
    EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Kathmandu''', current_database());
    EXECUTE format('ALTER DATABASE %I SET row_security = off', current_database());
    EXECUTE format('ALTER DATABASE %I SET app.custom = %L', current_database(), E'it''s = a "value"');
    EXECUTE format('ALTER ROLE safe_run_test_reader IN DATABASE %I SET work_mem = ''7MB''', current_database());
    EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 150', current_database());
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), E'the database''s\ncomment');
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO safe_run_test_reader WITH GRANT OPTION', current_database());
    EXECUTE format('ALTER DATABASE %I OWNER TO safe_run_test_owner', current_database());
END $$;
CREATE EVENT TRIGGER on_ddl_command_end ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION app.on_ddl();
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION app.on_ddl();
ALTER EVENT TRIGGER on_drop DISABLE;
