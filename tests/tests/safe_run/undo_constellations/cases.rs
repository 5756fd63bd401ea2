//! What stands in the databases.

use super::{Case, case};

/// One object, setting or right of somebody else in the database of an owner who is no superuser.
pub const OF_OTHERS: [Case; 36] = [
    case("publication for all tables", "CREATE PUBLICATION p FOR ALL TABLES"),
    Case { name: "publication of a schema", from: 15, sql: "CREATE PUBLICATION p FOR TABLES IN SCHEMA public" },
    case(
        "event trigger",
        "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e()",
    ),
    case("setting of a superuser", "ALTER DATABASE \"$DATABASE\" SET log_min_duration_statement = 100"),
    case("setting of a library", "ALTER DATABASE \"$DATABASE\" SET nobody.knows = 'x'"),
    case("setting of another role", "ALTER ROLE $OTHER IN DATABASE \"$DATABASE\" SET work_mem = '5MB'"),
    case("setting of a function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET log_min_messages = error AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO $OWNER"),
    case("table of another role", "CREATE TABLE theirs (i int); ALTER TABLE theirs OWNER TO $OTHER; GRANT SELECT ON theirs TO $OWNER"),
    case("table of a superuser", "CREATE TABLE theirs (i int); GRANT SELECT ON theirs TO $OWNER"),
    case("table that can't be read", "CREATE TABLE theirs (i int)"),
    case("view of a superuser", "CREATE VIEW w AS SELECT 1 AS one"),
    case("materialized view of a superuser", "CREATE MATERIALIZED VIEW w AS SELECT 1 AS one"),
    case("function of a superuser", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    case("security definer", "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"),
    case("procedure of a superuser", "CREATE PROCEDURE f() LANGUAGE sql AS 'SELECT 1'"),
    case("aggregate of a superuser", "CREATE AGGREGATE a (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')"),
    case("function in internal", "CREATE FUNCTION f(int) RETURNS int LANGUAGE internal AS 'int4abs'; ALTER FUNCTION f(int) OWNER TO $OWNER"),
    case("leakproof function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO $OWNER"),
    case("extension that is not trusted", "CREATE EXTENSION pageinspect"),
    case("foreign-data wrapper", "CREATE FOREIGN DATA WRAPPER w; ALTER FOREIGN DATA WRAPPER w OWNER TO postgres"),
    case("server of a wrapper", "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; ALTER SERVER s OWNER TO $OWNER"),
    case(
        "operator class",
        "CREATE OPERATOR CLASS c FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
         ALTER OPERATOR CLASS c USING hash OWNER TO $OWNER",
    ),
    case("operator family", "CREATE OPERATOR FAMILY c USING btree; ALTER OPERATOR FAMILY c USING btree OWNER TO $OWNER"),
    case(
        "operator",
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    ),
    case(
        "base type",
        "CREATE TYPE b; CREATE FUNCTION b_in(cstring) RETURNS b LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
         CREATE FUNCTION b_out(b) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
         CREATE TYPE b (INPUT = b_in, OUTPUT = b_out, LIKE = int4)",
    ),
    case("cast", "CREATE CAST (date AS oid) WITHOUT FUNCTION"),
    case("text search template", "CREATE TEXT SEARCH TEMPLATE x (LEXIZE = dsimple_lexize, INIT = dsimple_init)"),
    case("text search dictionary", "CREATE TEXT SEARCH DICTIONARY x (TEMPLATE = simple)"),
    case("access method", "CREATE ACCESS METHOD h TYPE TABLE HANDLER heap_tableam_handler"),
    case("language", "CREATE LANGUAGE l HANDLER plpgsql_call_handler"),
    case("default privileges of another role", "ALTER DEFAULT PRIVILEGES FOR ROLE $OTHER GRANT SELECT ON TABLES TO PUBLIC"),
    case(
        "grant that another role gave",
        "GRANT SELECT ON t TO $OTHER WITH GRANT OPTION; SET ROLE $OTHER; GRANT SELECT ON t TO PUBLIC; RESET ROLE",
    ),
    case("large object of another role", "SELECT lo_from_bytea(4711, 'theirs'); ALTER LARGE OBJECT 4711 OWNER TO $OTHER"),
    case("schema and enum of a superuser", "CREATE SCHEMA s; CREATE TYPE s.e AS ENUM ('a')"),
    case("domain, range, composite", "CREATE DOMAIN d AS int; CREATE TYPE r AS RANGE (SUBTYPE = int); CREATE TYPE c AS (i int)"),
    case("collation, conversion, sequence", "CREATE COLLATION c (LOCALE = 'C'); CREATE CONVERSION k FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; CREATE SEQUENCE q"),
];

/// Rows that broke their own rules since they were written, and code that says something else now.
pub const BROKEN_SINCE: [Case; 21] = [
    case(
        "a time that has passed",
        "SET ROLE $OWNER; CREATE TABLE late (id int PRIMARY KEY, until timestamptz CHECK (until > now()));
         INSERT INTO late VALUES (1, clock_timestamp() + interval '50 ms'); SELECT pg_sleep(0.1)",
    ),
    case(
        "a domain whose time has passed",
        "SET ROLE $OWNER; CREATE DOMAIN soon AS timestamptz CHECK (VALUE > now()); CREATE TABLE late (until soon);
         INSERT INTO late VALUES (clock_timestamp() + interval '50 ms'); SELECT pg_sleep(0.1)",
    ),
    case(
        "a CHECK that reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int); INSERT INTO zz VALUES (1);
         CREATE FUNCTION known(i int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.zz WHERE id = i)';
         CREATE TABLE aa (id int CHECK (known(id))); INSERT INTO aa VALUES (1); DELETE FROM zz",
    ),
    case(
        "a CHECK that passes or not by the order in which tables are loaded",
        "SET ROLE $OWNER; CREATE TABLE lim (n int); INSERT INTO lim VALUES (5);
         CREATE FUNCTION below(i int) RETURNS bool LANGUAGE sql AS 'SELECT $1 <= (SELECT max(n) FROM public.lim)';
         CREATE TABLE aa (id int CHECK (below(id))); INSERT INTO aa VALUES (1), (5);
         INSERT INTO aa SELECT 1 FROM generate_series(1, 200); UPDATE lim SET n = 2",
    ),
    case(
        "a CHECK function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 0';
         CREATE TABLE aa (id int CHECK (ok(id))); INSERT INTO aa VALUES (1);
         CREATE OR REPLACE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 1'",
    ),
    case(
        "a unique index over a function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION key(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i';
         CREATE TABLE aa (id int); CREATE UNIQUE INDEX ON aa (key(id)); INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION key(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    ),
    case(
        "an index function that fails now",
        "SET ROLE $OWNER; CREATE FUNCTION key(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i; END';
         CREATE TABLE aa (id int); CREATE INDEX ON aa (key(id)) WHERE id > 0; INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION key(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i / 0; END'",
    ),
    case(
        "an exclusion over a function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION span(i int) RETURNS int4range LANGUAGE sql IMMUTABLE AS 'SELECT int4range(i, i + 1)';
         CREATE TABLE aa (id int, EXCLUDE USING gist (span(id) WITH &&)); INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION span(i int) RETURNS int4range LANGUAGE sql IMMUTABLE AS 'SELECT int4range(0, 9)'",
    ),
    case(
        "a partition key that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION part(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i % 2';
         CREATE TABLE aa (id int) PARTITION BY LIST (part(id)); CREATE TABLE aa0 PARTITION OF aa FOR VALUES IN (0);
         INSERT INTO aa VALUES (2); CREATE OR REPLACE FUNCTION part(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7'",
    ),
    case(
        "a materialized view whose query fails now",
        "SET ROLE $OWNER; CREATE TABLE aa (x int); INSERT INTO aa VALUES (1); CREATE MATERIALIZED VIEW m AS SELECT 1 / x AS y FROM aa;
         INSERT INTO aa VALUES (0)",
    ),
    case(
        "functions found by the database's search_path",
        "CREATE SCHEMA ext AUTHORIZATION $OWNER; ALTER DATABASE \"$DATABASE\" SET search_path = public, ext; SET ROLE $OWNER;
         SET search_path = public, ext;
         CREATE FUNCTION ext.norm(s text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(s)';
         CREATE FUNCTION slug(s text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN norm(s); END';
         CREATE TABLE aa (n text CHECK (slug(n) <> ''), s text GENERATED ALWAYS AS (slug(n)) STORED);
         CREATE INDEX ON aa (slug(n)); INSERT INTO aa VALUES ('A')",
    ),
    case(
        "a view that is filled by such a function",
        "CREATE SCHEMA ext AUTHORIZATION $OWNER; SET ROLE $OWNER; SET search_path = public, ext;
         CREATE FUNCTION ext.norm(s text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(s)';
         CREATE FUNCTION slug(s text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN s; END';
         CREATE MATERIALIZED VIEW m AS SELECT slug(v) FROM t;
         CREATE OR REPLACE FUNCTION slug(s text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN norm(s); END'",
    ),
    case(
        "a generated column over a function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * i';
         CREATE TABLE aa (id int, g int GENERATED ALWAYS AS (twice(id)) STORED); INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 3 * i'",
    ),
    case(
        "a CHECK that says IMMUTABLE and reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int); INSERT INTO zz SELECT generate_series(1, 50000);
         CREATE FUNCTION known(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT EXISTS (SELECT FROM public.zz WHERE id = i)';
         CREATE TABLE aa (id int CHECK (known(id))); INSERT INTO aa VALUES (1), (50000)",
    ),
    case(
        "a CHECK that says IMMUTABLE and passes by the order in which tables are loaded",
        "SET ROLE $OWNER; CREATE TABLE lim (n int); INSERT INTO lim SELECT 5 FROM generate_series(1, 50000);
         CREATE FUNCTION limit_now() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT max(n) FROM public.lim); END';
         CREATE FUNCTION below(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 <= public.limit_now()';
         CREATE TABLE aa (id int CHECK (below(id))); INSERT INTO aa VALUES (1), (5); UPDATE lim SET n = 2",
    ),
    case(
        "an index that says IMMUTABLE and reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int, name text); INSERT INTO zz VALUES (1, 'one'), (2, 'two');
         CREATE FUNCTION called(i int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT name FROM public.zz WHERE id = i';
         CREATE TABLE aa (id int); INSERT INTO aa VALUES (1), (2); CREATE UNIQUE INDEX ON aa (called(id));
         UPDATE zz SET name = 'same'",
    ),
    case(
        "a generated column that says IMMUTABLE and reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int, name text); INSERT INTO zz SELECT i, 'n' || i FROM generate_series(1, 9999) i;
         CREATE FUNCTION called(i int) RETURNS text LANGUAGE plpgsql IMMUTABLE
           AS 'BEGIN RETURN (SELECT name FROM public.zz WHERE id = i); END';
         CREATE TABLE aa (id int, g text GENERATED ALWAYS AS (called(id)) STORED); INSERT INTO aa VALUES (1), (9999);
         UPDATE zz SET name = 'now ' || id WHERE id = 1",
    ),
    case(
        "an exclusion that says IMMUTABLE and reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int, n int); INSERT INTO zz VALUES (1, 1), (2, 5);
         CREATE FUNCTION span(i int) RETURNS int4range LANGUAGE sql IMMUTABLE AS 'SELECT int4range(n, n + 1) FROM public.zz WHERE id = i';
         CREATE TABLE aa (id int, EXCLUDE USING gist (span(id) WITH &&)); INSERT INTO aa VALUES (1), (2); UPDATE zz SET n = 1",
    ),
    case(
        "a partition key that says IMMUTABLE and reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int, n int); INSERT INTO zz VALUES (1, 0), (2, 1);
         CREATE FUNCTION part(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n FROM public.zz WHERE id = i';
         CREATE TABLE aa (id int) PARTITION BY LIST (part(id)); CREATE TABLE aa0 PARTITION OF aa FOR VALUES IN (0);
         CREATE TABLE aa1 PARTITION OF aa FOR VALUES IN (1); INSERT INTO aa VALUES (1), (2); UPDATE zz SET n = 3 WHERE id = 2",
    ),
    case(
        "a domain that says IMMUTABLE and asks for the time",
        "SET ROLE $OWNER; CREATE FUNCTION ahead(t timestamptz) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN t > now(); END';
         CREATE DOMAIN soon AS timestamptz CHECK (ahead(VALUE)); CREATE TABLE late (until soon[]);
         INSERT INTO late VALUES (ARRAY[clock_timestamp() + interval '50 ms']::soon[]); SELECT pg_sleep(0.1)",
    ),
    case(
        "a CHECK of a partitioned table whose time has passed",
        "SET ROLE $OWNER; CREATE TABLE late (id int, until timestamptz, CONSTRAINT ahead CHECK (until > now())) PARTITION BY LIST (id);
         CREATE TABLE late_1 PARTITION OF late FOR VALUES IN (1); CREATE TABLE late_2 PARTITION OF late FOR VALUES IN (2);
         COMMENT ON CONSTRAINT ahead ON late IS 'not yet'; INSERT INTO late VALUES (1, clock_timestamp() + interval '50 ms');
         SELECT pg_sleep(0.1)",
    ),
];

/// What the owner makes by himself: all of it in one database.
pub const OWN: &str = "
SET ROLE $OWNER; CREATE EXTENSION btree_gist; CREATE EXTENSION hstore; CREATE EXTENSION pg_trgm;
CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b positive);
CREATE TYPE span AS RANGE (SUBTYPE = int); CREATE COLLATION mine (LOCALE = 'C'); CREATE SEQUENCE q START 7;
CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, p positive, q pair, s span);
CREATE TABLE child (extra text COLLATE mine) INHERITS (parent);
CREATE TABLE many (at date, n int DEFAULT nextval('q')) PARTITION BY RANGE (at);
CREATE TABLE many_1 PARTITION OF many FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); INSERT INTO many VALUES ('2020-02-02');
CREATE TABLE refers (id int REFERENCES t DEFERRABLE, n text NOT NULL, l int GENERATED ALWAYS AS (length(n)) STORED, EXCLUDE USING gist (id WITH =));
INSERT INTO refers (id, n) VALUES (1, 'one'); INSERT INTO parent (m, p, q, s) VALUES ('good', 1, '(1,2)', '[1,5)');
CREATE INDEX ON refers (lower(n)) WHERE n <> ''; CREATE STATISTICS st ON id, n FROM refers; ANALYZE refers;
CREATE VIEW w AS SELECT * FROM refers; CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t; CREATE RULE r AS ON INSERT TO w DO INSTEAD NOTHING;
ALTER TABLE refers ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON refers USING (true);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'; CREATE OPERATOR @+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = plus);
CREATE AGGREGATE total (int) (SFUNC = plus, STYPE = int, INITCOND = '0');
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql AS 'SELECT ROW($1, $1)::pair'; CREATE CAST (int AS pair) WITH FUNCTION to_pair(int);
CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION conf (COPY = simple);
CREATE PUBLICATION p FOR TABLE t; SELECT lo_from_bytea(99, 'mine'); COMMENT ON TABLE t IS 'rows';
GRANT SELECT ON t TO $OTHER; GRANT USAGE ON SCHEMA public TO $OTHER WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO $OTHER;
ALTER DATABASE \"$DATABASE\" SET work_mem = '9MB'; ALTER ROLE $OWNER IN DATABASE \"$DATABASE\" SET work_mem = '8MB';
ALTER DATABASE \"$DATABASE\" CONNECTION LIMIT 50; COMMENT ON DATABASE \"$DATABASE\" IS 'mine'; REVOKE TEMPORARY ON DATABASE \"$DATABASE\" FROM PUBLIC";
