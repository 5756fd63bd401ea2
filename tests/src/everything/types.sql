-- Every built-in column type, and types of one's own, with values that break naive dumps.

CREATE SCHEMA types;
CREATE TYPE types.mood AS ENUM ('sad', 'ok', 'very "happy"', 'o''dd, {}', '😀');
ALTER TYPE types.mood ADD VALUE 'between' BEFORE 'ok';
CREATE TYPE types.address AS (street text, zip varchar(10), "odd, ""part""" int[]);
CREATE TYPE types.person AS (name text, home types.address, moods types.mood[]);
CREATE DOMAIN types.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN types.email AS text COLLATE "C" NOT NULL DEFAULT 'a@b' CONSTRAINT has_at CHECK (VALUE LIKE '%@%');
CREATE DOMAIN types.positives AS int[] CHECK (0 < ALL (VALUE));
CREATE DOMAIN types.person_domain AS types.person;
CREATE TYPE types.float_range AS RANGE (subtype = float8, subtype_diff = float8mi,
    multirange_type_name = types.float_multirange);
CREATE TYPE types.to_be_defined;

CREATE TABLE types.numbers (
    id int PRIMARY KEY, s smallint, i integer, b bigint, n numeric, n2 numeric(30, 10), r real, d double precision,
    m money, o oid, flag boolean, big numeric);
INSERT INTO types.numbers VALUES
    (1, 32767, 2147483647, 9223372036854775807, 'NaN', 12345678901234567890.0123456789, 'NaN', 'NaN', 92233720368547758.07, 4294967295, true, 1e-400),
    (2, -32768, -2147483648, -9223372036854775808, 'Infinity', -0.0000000001, 'Infinity', 'Infinity', -92233720368547758.08, 0, false, 10::numeric ^ 300 + 1),
    (3, 0, 0, 0, '-Infinity', 0, '-Infinity', '-Infinity', 0, 1, NULL, 1.0),
    (4, NULL, NULL, NULL, NULL, NULL, '-0', '-0', NULL, NULL, NULL, 1.000),
    (5, 1, 1, 1, 0.10, 0.1, 1.1754944e-38, 5e-324, 0.01, 1, true, 123456789012345678901234567890.123456789),
    (6, 1, 1, 1, 0.1000, 0.1, 3.4028235e+38, 1.7976931348623157e+308, 0.01, 1, true, 0),
    (7, 1, 1, 1, 0, 0.1, 0.1, 0.30000000000000004, 0.01, 1, true, -1e400);

CREATE TABLE types.strings (
    id int PRIMARY KEY, t text, v varchar(50), c char(10), single "char", n name, b bytea, u text COLLATE "POSIX");
INSERT INTO types.strings VALUES
    (1, '', '', '', '', '', '', ''),
    (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (3, E'tab\tnewline\ncarriage\rreturn\\backslash\\', E'\\N', E'\\.', 'x', 'a name', '\x00', E'\\.'),
    (4, E'\\.\n\\.\n', E'\\N\\N', '  lead', '\', E'na\nme', '\xdeadbeef00ff0a0d09085c2e', 'NULL'),
    (5, E'\U0001F600\U0001F469\u200D\U0001F4BB \u00e9 e\u0301 \u202e rtl', E'\b\f\v\001\177', E'\u00fc', '"', '"quoted"', '\x5c2e0a', E'\u2028');
-- Larger than a page, compressible and not: TOAST, both ways.
INSERT INTO types.strings (id, t, b) VALUES
    (6, repeat(E'long\t\\ line\n', 20000), decode(repeat('00ff5c2e0a', 20000), 'hex')),
    (7, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i),
        (SELECT decode(string_agg(md5(i::text), ''), 'hex') FROM generate_series(1, 3000) i));
--@since 15
INSERT INTO types.strings (id, single) VALUES (8, (-1)::"char"); -- 14 would print a byte that it refuses to read
--@end
ALTER TABLE types.strings ALTER COLUMN b SET STORAGE EXTERNAL;
ALTER TABLE types.strings ALTER COLUMN t SET COMPRESSION pglz;

CREATE TABLE types.times (
    id int PRIMARY KEY, d date, t time, tz timetz, ts timestamp, tstz timestamptz, i interval, t3 time(3),
    ts0 timestamptz(0), iy interval year to month);
INSERT INTO types.times VALUES
    (1, 'infinity', '24:00', '24:00+15:59', 'infinity', '-infinity', '-178000000 years', '23:59:59.9996', '2000-01-01', '1 year'),
    (2, '-infinity', '00:00', '00:00-15:59', '-infinity', 'infinity', '178000000 years 11 mons', '0:0', '1970-01-01Z', '-1 mon'),
    (3, '4713-01-01 BC', '12:34:56.789012', '12:34:56.789012+05:30', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999Z', '1 mon -1 day +00:00:00.000001', NULL, NULL, NULL),
    (4, '5874897-12-31', NULL, NULL, '2038-01-19 03:14:07.5', '2024-10-27 02:30:00 Europe/Berlin', '-1 year 2 mons -3 days 04:05:06.7', NULL, NULL, NULL),
    (5, NULL, NULL, NULL, NULL, NULL, '0', NULL, NULL, NULL);

CREATE TABLE types.documents (id int PRIMARY KEY, j json, jb jsonb, x xml, v tsvector, q tsquery, p jsonpath);
INSERT INTO types.documents VALUES
    (1, ' { "b" : 1,"a":1e2, "b":2.0 } ', '{"b": 1, "a": 1e2, "b": 2.0, "deep": [[[null]]], "nul": "\\u0000", "tab\t": "\n"}', NULL,
        'a:1A fat:2B,4C "quoted":3', '!a & (b | c:*A) <2> ''d e''', '$.a[*] ? (@.b > 1)'),
    (2, 'null', 'null', NULL, '', '', '$'),
    (3, '"\ud83d\ude00\\"', '"😀\\"', NULL, E'\'it''''s\':1 \'back\\\\slash\':2', '''it''''s''', 'strict $."k\n\"ey".**{2 to 5}'),
    (4, '[]', '{}', NULL, NULL, NULL, NULL), (5, NULL, NULL, NULL, NULL, NULL, NULL),
    (6, '123456789012345678901234567890.10', '123456789012345678901234567890.10', NULL, NULL, NULL, NULL);
-- Not every server is built with libxml.
DO $$ BEGIN
    UPDATE types.documents SET x = XMLPARSE(CONTENT E'<a b="1">\n<![CDATA[<&\\.]]> text &amp; 😀</a>tail') WHERE id = 1;
EXCEPTION WHEN feature_not_supported THEN NULL; END $$;

CREATE TABLE types.network (
    id int PRIMARY KEY, i inet, c cidr, m macaddr, m8 macaddr8, u uuid, b bit(5), vb bit varying(64), lsn pg_lsn,
    x xid, x8 xid8, cid cid, t tid, ts txid_snapshot, ps pg_snapshot);
INSERT INTO types.network VALUES
    (1, '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
        B'10101', B'', '16/B374D848', '4294967295', '18446744073709551615', '7', '(4294967295,65535)', '10:20:10,14,15', '10:10:'),
    (2, '::ffff:1.2.3.4/128', '2001:db8::/32', NULL, NULL, '00000000-0000-0000-0000-000000000000', B'00000', repeat('10', 32)::varbit,
        '0/0', '0', '0', '0', '(0,1)', NULL, NULL),
    (3, '::/0', '0.0.0.0/0', NULL, NULL, 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE types.shapes (id int PRIMARY KEY, p point, l line, s lseg, b box, pa path, po polygon, c circle);
INSERT INTO types.shapes VALUES
    (1, '(1.5,-2)', '{1,-2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,2),3>'),
    (2, '(NaN,Infinity)', '{0,1,0}', '[(1e308,-1e308),(0,0)]', '(0,0),(0,0)', '((0,0),(1,1),(2,0))', '((0,0))', '<(0,0),0>'),
    (3, '(-0,0.1)', NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE types.ranges (
    id int PRIMARY KEY, i4 int4range, i8 int8range, n numrange, ts tsrange, tz tstzrange, d daterange,
    m4 int4multirange, m8 int8multirange, mn nummultirange, mts tsmultirange, mtz tstzmultirange, md datemultirange,
    f types.float_range, mf types.float_multirange);
INSERT INTO types.ranges VALUES
    (1, 'empty', '[1,10)', '(,1.5]', '[2024-01-01 00:00,infinity]', '(,)', '[2024-01-01,2024-12-31]',
        '{}', '{[1,2),(5,7]}', '{(,-1.0),[NaN,]}', '{[2024-01-01,2024-01-02)}', '{(,)}', '{[2024-01-01,2024-01-03),[2024-02-01,)}',
        '[0.1,NaN]', '{[1,2],(3,Infinity)}'),
    (2, '(,)', '[,5]', 'empty', '(,)', '[2024-10-27 02:30+02,2024-10-27 02:30+01)', '(,)', '{[1,1]}', '{}', '{}', '{}', '{}', '{}', NULL, NULL),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE types.arrays (
    id int PRIMARY KEY, i int[], t text[], m numeric[][], b bytea[], bo box[], moods types.mood[], tz timestamptz[],
    j jsonb[], r int4range[], addresses types.address[], positives types.positives, domains types.positive[]);
INSERT INTO types.arrays VALUES
    (1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'),
    (2, '[-2:0]={1,NULL,3}', ARRAY['', 'NULL', NULL, 'a,b', '{x}', '"q"', E'\\', E'tab\t\n', '😀', ' s '],
        '[2:3][0:1]={{NaN,1.0},{-Infinity,1.00}}', ARRAY['\x00ff'::bytea, ''], '{(1,1),(0,0);(2,2),(1,1)}',
        ARRAY['o''dd, {}', 'very "happy"', NULL]::types.mood[], '{infinity,2024-01-01 00:00+00}', ARRAY['{"a": [1, "x,y"]}'::jsonb, NULL],
        '{"[1,2)",empty}', ARRAY[ROW('a, "b"', NULL, '{1,2}')::types.address, NULL], '{1,2}', '{3,NULL}'),
    (3, '{{{1},{2}},{{3},{4}}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE types.composites (id int PRIMARY KEY, p types.person, d types.person_domain, e types.email, mood types.mood);
INSERT INTO types.composites VALUES
    (1, ROW(E'a\t(b), "c"', ROW(E'\\ street\n', '1', '{1,NULL}'), ARRAY['😀'::types.mood, NULL]), ROW('', ROW('', '', '{}'), '{}'), 'x@y', 'between'),
    (2, ROW(NULL, NULL, NULL), NULL, 'a@', 'sad'), (3, NULL, NULL, DEFAULT, NULL);

-- Types that name other objects: their text depends on the search path and on object names.
CREATE TABLE types.names (
    id int PRIMARY KEY, c regclass, p regproc, pr regprocedure, o regoper, op regoperator, t regtype, n regnamespace,
    ro regrole, cfg regconfig, dict regdictionary, coll regcollation);
INSERT INTO types.names VALUES
    (1, 'types.arrays', 'pg_catalog.now', 'pg_catalog.abs(int)', 'pg_catalog.||/', 'pg_catalog.+(int,int)', 'types.mood',
        'types', 'safe_run_test_owner', 'english', 'simple', '"C"'), (2, '-', '-', '-', '0', '0', '-', '-', '-', '-', '-', '-'), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
