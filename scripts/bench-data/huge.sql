-- Rows of megabytes; :n is the number of rows, each of some 8 MB.
SET synchronous_commit = off;
CREATE TABLE files (id int PRIMARY KEY, content bytea NOT NULL);
ALTER TABLE files ALTER content SET STORAGE EXTERNAL;
INSERT INTO files SELECT i,
  (SELECT string_agg(sha256((i * 1000000 + j)::text::bytea), '') FROM generate_series(1, 131072) j)
  FROM generate_series(1, :n) i;
VACUUM (FREEZE, ANALYZE);
