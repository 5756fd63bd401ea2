-- One large table, as pgbench has it; :n is the number of rows. And a small one beside it.
SET synchronous_commit = off;
CREATE TABLE accounts (aid bigint PRIMARY KEY, bid int NOT NULL, abalance int NOT NULL, filler char(84) NOT NULL);
INSERT INTO accounts SELECT i, i / 100000, (i * 7919::bigint) % 100000, '' FROM generate_series(1, :n) i;
CREATE TABLE tiny (id int PRIMARY KEY, name text);
INSERT INTO tiny SELECT i, 'name ' || i FROM generate_series(1, 100) i;
VACUUM (FREEZE, ANALYZE);
