-- Rows of megabytes; :n is the number of rows, each of some 8 MB, or 16 MB as COPY text. Few on a page, so that several
-- connections read them.
SET synchronous_commit = off;
CREATE TABLE files (id int PRIMARY KEY, content bytea NOT NULL, padding char(2500) NOT NULL DEFAULT '');
ALTER TABLE files ALTER padding SET STORAGE PLAIN;
ALTER TABLE files ALTER content SET STORAGE EXTERNAL;
INSERT INTO files (id, content) SELECT i,
  (SELECT string_agg(sha256((i * 1000000 + j)::text::bytea), '') FROM generate_series(1, 131072) j)
  FROM generate_series(1, :n) i;
VACUUM (FREEZE, ANALYZE);
