-- Many small tables; :n is their number.
SET synchronous_commit = off;
SELECT format('CREATE TABLE t%s (id int PRIMARY KEY, name text, at timestamptz DEFAULT now());
  INSERT INTO t%s SELECT i, md5(i::text) FROM generate_series(1, 50) i', i, i) FROM generate_series(1, :n) i \gexec
VACUUM (FREEZE, ANALYZE);
