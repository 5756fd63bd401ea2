-- Wide text, most of it stored out of line; :n is the number of rows, each of some 20 kB.
SET synchronous_commit = off;
CREATE TABLE documents (id int PRIMARY KEY, title text NOT NULL, body text NOT NULL);
INSERT INTO documents SELECT i, 'document ' || i,
  (SELECT string_agg(md5((i * 1000 + j)::text) || ' lorem ipsum dolor sit amet ', '') FROM generate_series(1, 330) j)
  FROM generate_series(1, :n) i;
VACUUM (FREEZE, ANALYZE);
