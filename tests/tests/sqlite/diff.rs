//! `backup diff`: two of snapshots, live databases and SQLite files. The oracle is SQL's own EXCEPT ALL over copies of both sides in one
//! database, and what the test itself changed.

// The helpers of tests are tests too; clippy.toml covers only the functions marked as such.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::Value;
use tests::{Cluster, Database, Outcome, Snapshots, psql};

/// One column of each type that the rules know, with a value and another one.
const CELLS: [(&str, &str, &str, &str); 26] = [
    ("c_bool", "boolean", "true", "false"),
    ("c_int2", "smallint", "-3", "4"),
    ("c_int4", "integer", "2147483647", "2147483646"),
    ("c_int8", "bigint", "-9223372036854775808", "-9223372036854775807"),
    ("c_float4", "real", "0.1", "0.2"),
    ("c_float8", "double precision", "1234567.891", "1234567.8910000005"),
    ("c_numeric", "numeric", "12345678901234567890.123456789", "12345678901234567890.123456788"),
    ("c_scaled", "numeric(10,2)", "10.10", "10.11"),
    (
        "c_text",
        "text",
        "'a' || chr(9) || 'b' || chr(10) || chr(27) || '\\'",
        "'a' || chr(9) || 'b' || chr(10) || '\\'",
    ),
    ("c_empty", "text", "''", "NULL"),
    ("c_varchar", "varchar(10)", "'ü€😀'", "'ü€😁'"),
    ("c_char", "char(5)", "'ab'", "'ac'"),
    ("c_bytea", "bytea", "'\\x00ff0a'", "'\\x00ff0b'"),
    ("c_date", "date", "'2024-02-29'", "'infinity'"),
    ("c_time", "time", "'12:34:56.789'", "'12:34:56.78'"),
    ("c_stamp", "timestamp", "'2024-01-02 03:04:05.123456'", "'2024-01-02 03:04:05.123457'"),
    ("c_stamptz", "timestamptz", "'2024-01-02 03:04:05+02'", "'2024-01-02 03:04:05+03'"),
    ("c_interval", "interval", "'1 day 02:03:04'", "'26:03:04'"),
    ("c_uuid", "uuid", "'01234567-89ab-cdef-0123-456789abcdef'", "'01234567-89ab-cdef-0123-456789abcdee'"),
    ("c_json", "json", "'{\"a\": 1}'", "'{\"a\":1}'"),
    ("c_jsonb", "jsonb", "'{\"a\": [1, 2]}'", "'{\"a\": [2, 1]}'"),
    ("c_enum", "mood", "'glad'", "'sad'"),
    ("c_array", "integer[]", "'{1,NULL,3}'", "'{1,2,3}'"),
    ("c_inet", "inet", "'10.0.0.1'", "'10.0.0.2'"),
    ("c_range", "int4range", "'[1,5)'", "'[1,6)'"),
    ("c_domain", "positive", "5", "6"),
];

fn cells_table() -> String {
    let columns: Vec<String> = CELLS.iter().map(|(name, kind, ..)| format!("{name} {kind}")).collect();
    let values: Vec<&str> = CELLS.iter().map(|(_, _, value, _)| *value).collect();
    format!(
        "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
         CREATE TABLE cells (id int PRIMARY KEY, {}); INSERT INTO cells SELECT i, {} FROM generate_series(1, 300) i;",
        columns.join(", "),
        values.join(", ")
    )
}

struct Compared {
    code: i32,
    document: Value,
    text: String,
}

impl Compared {
    fn table(&self, name: &str) -> &Value {
        let tables = self.document["tables"].as_array().unwrap();
        let found = tables.iter().find(|table| table["table"] == name);
        found.unwrap_or_else(|| panic!("no table {name} in {:#}", self.document))
    }

    /// How many rows are only in A, only in B, and differ.
    fn counts(&self, name: &str) -> [u64; 3] {
        let table = self.table(name);
        ["only_in_a", "only_in_b", "differing"].map(|field| table[field].as_u64().unwrap())
    }

    #[track_caller]
    fn equal(&self) {
        assert!(self.code == 0 && self.document["equal"] == true, "{}\n{:#}", self.text, self.document);
        assert_eq!(self.document["schema"], 1);
    }
}

fn compare(repo: &Snapshots, a: &str, b: &str, flags: &[&str]) -> Compared {
    let arguments = [&["diff", a, b], flags].concat();
    let text = repo.run_offline("backup", &arguments);
    let json = repo.run_offline("backup", &[&arguments[..], &["--json"]].concat());
    assert_eq!(text.code, json.code, "{}\n{}", text.stderr, json.stderr);
    assert!(json.code == 0 || json.code == 1, "{}", json.stderr);
    assert!(!text.stdout.chars().any(|c| c.is_control() && c != '\n'), "{}", text.stdout);
    let document = serde_json::from_str(&json.stdout).unwrap_or_else(|e| panic!("{e}: {}", json.stdout));
    Compared { code: json.code, document, text: text.stdout }
}

fn twins<'c>(cluster: &'c Cluster, sql: &str) -> [Database<'c>; 2] {
    let twins = [cluster.fresh_database("diff_a"), cluster.fresh_database("diff_b")];
    twins.iter().for_each(|database| drop(database.psql(sql)));
    twins
}

fn each_changed_cell_is_told(major: u32) {
    let cluster = Cluster::shared(major);
    let [a, b] = twins(cluster, &cells_table());
    let repo = Snapshots::new();
    let snapshot = repo.create(&a, &[]);
    compare(&repo, &a.url(), &b.url(), &[]).equal();
    compare(&repo, &snapshot, &b.url(), &[]).equal();
    for (number, (column, _, value, other)) in CELLS.iter().enumerate() {
        let id = 1 + number * 11;
        b.psql(&format!("UPDATE cells SET {column} = {other} WHERE id = {id}"));
        let texts = a.psql(&format!("SELECT coalesce(({value})::text, 'NULL')"));
        let (one, two) = match number % 2 {
            0 => (a.url(), b.url()),
            _ => (snapshot.clone(), b.url()),
        };
        let found = compare(&repo, &one, &two, &["--table", "cells"]);
        assert_eq!(found.code, 1, "{column}");
        assert_eq!(found.counts("cells"), [0, 0, 1], "{column}");
        let differences = found.table("cells")["differences"].as_array().unwrap();
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!(differences[0]["how"], "differs");
        assert_eq!(differences[0]["key"][0]["column"], "id");
        assert_eq!(differences[0]["key"][0]["value"], id.to_string());
        let columns = differences[0]["columns"].as_array().unwrap();
        assert!(columns.len() == 1 && columns[0]["column"] == *column, "{columns:?}");
        // Where psql shows a value in one line, it is the one that is told.
        if !["c_text", "c_empty", "c_stamptz", "c_bool", "c_char", "c_inet"].contains(column) {
            let shown = a.psql(&format!("SELECT {column}::text FROM cells WHERE id = {id}"));
            assert_eq!(columns[0]["a"], shown, "{column} {texts}");
            assert_eq!(columns[0]["b"], b.psql(&format!("SELECT {column}::text FROM cells WHERE id = {id}")));
        }
        b.psql(&format!("UPDATE cells SET {column} = {value} WHERE id = {id}"));
    }
    compare(&repo, &a.url(), &b.url(), &["--table", "cells"]).equal();
}

#[test]
fn each_changed_cell_is_told_by_key_and_column_on_postgresql_14() {
    each_changed_cell_is_told(14);
}

#[test]
fn each_changed_cell_is_told_by_key_and_column_on_postgresql_18() {
    each_changed_cell_is_told(18);
}

/// Tables whose order in the server is none that a comparison could go by.
const KEYS: &str = "
CREATE COLLATION lazy (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
CREATE TABLE words (word text COLLATE \"en-x-icu\", n int, v text, PRIMARY KEY (word, n));
INSERT INTO words SELECT w, i, 'v' FROM unnest(ARRAY['a', 'B', 'ä', 'Z', 'z', '_', ' ', 'ß']) w, generate_series(1, 40) i;
CREATE TABLE lazy (word text COLLATE lazy PRIMARY KEY, v int);
INSERT INTO lazy VALUES ('one', 1), ('Two', 2), ('three', 3);
CREATE TABLE bag (v text, n int);
INSERT INTO bag SELECT 'same', NULL FROM generate_series(1, 50);
INSERT INTO bag SELECT 'v' || i, i FROM generate_series(1, 50) i;
CREATE TABLE nulls (k int UNIQUE, v text);
INSERT INTO nulls SELECT NULL, 'n' || i FROM generate_series(1, 9) i;
CREATE TABLE numbers (id int PRIMARY KEY, v text);
INSERT INTO numbers SELECT i, 'v' || i FROM generate_series(1, 5000) i;
CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high (v text, id int NOT NULL);
ALTER TABLE parted ATTACH PARTITION parted_high FOR VALUES FROM (100) TO (1000);
INSERT INTO parted SELECT i, 'p' FROM generate_series(1, 200) i;
CREATE TABLE nothing ();
CREATE TABLE empty (i int);";

fn rows_by_every_kind_of_key(major: u32) {
    let cluster = Cluster::shared(major);
    // Not every build of a server has ICU; the oldest here has.
    let has_icu = cluster.psql("SELECT count(*) > 0 FROM pg_collation WHERE collname = 'en-x-icu'") == "t";
    assert!(has_icu || major != 14);
    let keys = match has_icu {
        true => KEYS.to_owned(),
        false => {
            let plain = KEYS.replace(" COLLATE \"en-x-icu\"", "").replace(" COLLATE lazy", "");
            plain.lines().filter(|line| !line.starts_with("CREATE COLLATION")).collect()
        }
    };
    let [a, b] = twins(cluster, &keys);
    let repo = Snapshots::new();
    let before = repo.create(&b, &[]);
    compare(&repo, &a.url(), &before, &[]).equal();
    b.psql(
        "DELETE FROM numbers WHERE id IN (1, 2500, 5000); UPDATE numbers SET v = 'x' WHERE id = 7;
         INSERT INTO numbers VALUES (0, 'new'), (9000, NULL);
         UPDATE words SET v = 'w' WHERE word = 'ä' AND n = 3; DELETE FROM words WHERE word = 'B' AND n = 1;
         UPDATE lazy SET word = 'TWO' WHERE v = 2;
         DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE v = 'same' LIMIT 2); INSERT INTO bag VALUES ('v1', 1);
         UPDATE nulls SET v = 'other' WHERE v = 'n4';
         UPDATE parted SET v = 'q' WHERE id = 150; DELETE FROM parted WHERE id = 5",
    );
    let after = repo.create(&b, &[]);
    for (one, two) in
        [(a.url(), b.url()), (before.clone(), b.url()), (a.url(), after.clone()), (before, after)]
    {
        let found = compare(&repo, &one, &two, &[]);
        assert_eq!(found.code, 1);
        assert_eq!(found.counts("numbers"), [3, 2, 1]);
        let ids: Vec<&str> = found.table("numbers")["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["key"][0]["value"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["0", "1", "7", "2500", "5000", "9000"]);
        assert_eq!(found.counts("words"), [1, 0, 1]);
        // The key is another text, and the server calls both one: told as what it is.
        assert_eq!(found.counts("lazy"), [1, 1, 0]);
        assert_eq!(found.counts("bag"), [2, 1, 0]);
        let same = &found.table("bag")["differences"].as_array().unwrap()[0];
        assert!(found.text.contains("v = 'same', n = NULL  (2 times)"), "{same} {}", found.text);
        assert_eq!(found.counts("nulls"), [1, 1, 0]);
        assert_eq!(found.counts("parted_high"), [0, 0, 1]);
        assert_eq!(found.counts("parted_low"), [1, 0, 0]);
        assert_eq!(found.document["tables"].as_array().unwrap().len(), 7, "{}", found.text);
        assert_eq!(found.document["equal_tables"], 2);
        assert!(found.document["schema_changes"].as_array().unwrap().is_empty(), "{}", found.text);
    }
    // The other way round.
    assert_eq!(compare(&repo, &b.url(), &a.url(), &["-t", "numbers"]).counts("numbers"), [2, 3, 1]);
    let few = compare(&repo, &a.url(), &b.url(), &["-t", "numbers", "--first", "2"]);
    assert_eq!(few.table("numbers")["differences"].as_array().unwrap().len(), 2);
    assert_eq!(few.counts("numbers"), [3, 2, 1]);
    assert!(few.text.contains("… and 4 more"), "{}", few.text);
    let none = compare(&repo, &a.url(), &b.url(), &["-t", "numbers", "--first", "0"]);
    assert!(none.code == 1 && none.table("numbers")["only_in_a"].is_null(), "{}", none.text);
}

#[test]
fn rows_are_found_by_every_kind_of_key_on_postgresql_14() {
    rows_by_every_kind_of_key(14);
}

#[test]
fn rows_are_found_by_every_kind_of_key_on_postgresql_18() {
    rows_by_every_kind_of_key(18);
}

#[test]
fn what_only_one_side_has_is_told_and_the_rest_is_compared() {
    let cluster = Cluster::shared(18);
    let [a, b] = twins(
        cluster,
        "CREATE TABLE t (id int PRIMARY KEY, v text, w text); INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y');
         CREATE TABLE same (i int); CREATE SEQUENCE s",
    );
    b.psql(
        "ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN z int; UPDATE t SET w = 'changed' WHERE id = 2;
         CREATE TABLE fresh (i int); SELECT nextval('s')",
    );
    a.psql("CREATE TABLE gone (i int)");
    let repo = Snapshots::new();
    let found = compare(&repo, &a.url(), &b.url(), &[]);
    assert_eq!(found.code, 1);
    let t = found.table("t");
    assert_eq!((&t["columns_only_in_a"][0], &t["columns_only_in_b"][0]), (&"v".into(), &"z".into()));
    assert_eq!(found.counts("t"), [0, 0, 1]);
    assert_eq!(t["differences"][0]["columns"][0]["b"], "changed");
    assert_eq!(found.table("gone")["change"], "removed");
    assert_eq!(found.table("fresh")["change"], "added");
    assert_eq!(found.document["equal_tables"], 1);
    let changed: Vec<&str> = found.document["schema_changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["object"].as_str().unwrap())
        .collect();
    assert_eq!(changed, ["TABLE public.fresh", "TABLE public.gone", "TABLE public.t"]);
    let values = found.document["values"].as_array().unwrap();
    assert!(values.len() == 1 && values[0]["what"] == "sequence s", "{values:?}");
    // Columns in another order are the same columns.
    a.psql("CREATE TABLE turned (a int, b text); INSERT INTO turned VALUES (1, 'x')");
    b.psql("CREATE TABLE turned (b text, a int); INSERT INTO turned VALUES ('x', 1)");
    let turned = compare(&repo, &a.url(), &b.url(), &["-t", "turned"]);
    assert_eq!(turned.document["equal_tables"], 1, "{}", turned.text);
    assert_eq!(turned.document["schema_changes"].as_array().unwrap().len(), 1);
}

#[test]
fn what_belongs_to_a_chosen_table_is_compared_with_it() {
    let cluster = Cluster::shared(18);
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (i int); CREATE UNIQUE INDEX i ON t (v);
        CREATE STATISTICS s ON id, v FROM t; GRANT SELECT ON t TO PUBLIC; COMMENT ON COLUMN t.v IS 'c'";
    let [a, b] = twins(cluster, setup);
    let repo = Snapshots::new();
    let snapshot = repo.create(&a, &[]);
    compare(&repo, &snapshot, &b.url(), &["-t", "t"]).equal();
    b.psql("CREATE INDEX on_other ON other (i); CREATE VIEW w AS SELECT * FROM t");
    compare(&repo, &snapshot, &b.url(), &["-t", "t"]).equal();
    b.psql("DROP INDEX i; DROP STATISTICS s; REVOKE SELECT ON t FROM PUBLIC; COMMENT ON COLUMN t.v IS NULL");
    let later = repo.create(&b, &[]);
    for (one, two) in [(&snapshot, &b.url()), (&snapshot, &later), (&a.url(), &b.url())] {
        let found = compare(&repo, one, two, &["-t", "t"]);
        let changed: Vec<&str> = found.document["schema_changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["object"].as_str().unwrap())
            .collect();
        assert_eq!(changed, ["ACL public.TABLE t", "COMMENT public.COLUMN t.v", "INDEX public.i"]);
        assert_eq!((found.code, &found.document["equal_tables"]), (1, &1.into()));
    }
}

#[test]
fn a_table_that_is_cut_into_other_partitions_holds_the_same_rows() {
    let cluster = Cluster::shared(18);
    let [a, b] = twins(cluster, "");
    a.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i");
    b.psql(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
         CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i",
    );
    let repo = Snapshots::new();
    let found = compare(&repo, &a.url(), &b.url(), &["-t", "t"]);
    assert_eq!(
        (found.document["equal_tables"].as_u64(), found.code),
        (Some(1), 1),
        "the schema differs alone"
    );
    b.psql("UPDATE t SET v = 'w' WHERE id = 50");
    let snapshot = repo.create(&b, &[]);
    assert_eq!(compare(&repo, &a.url(), &snapshot, &["-t", "t"]).counts("t"), [0, 0, 1]);
}

/// Makes a SQLite file by Python's own library.
fn sqlite(folder: &std::path::Path, name: &str, sql: &str) -> PathBuf {
    let path = folder.join(name);
    let code = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\nc.executescript(sys.argv[2])\nc.commit()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", code]).arg(&path).arg(sql);
    psql::succeed(python);
    path
}

const FILE: &str = "
CREATE TABLE \"Users\" (id INTEGER PRIMARY KEY, name TEXT NOT NULL, active BOOLEAN, paid NUMERIC, ratio REAL, born TEXT, seen INTEGER,
  made TEXT, uid TEXT, doc TEXT, raw BLOB);
INSERT INTO Users VALUES (1, 'a' || char(9) || 'b', 1, 10.1, 0.1, '2024-02-29', 1700000000, '2024-01-02 03:04:05',
  '0123456789abcdef0123456789abcdef', '{\"a\": [1, 2]}', x'00ff'), (2, '', 0, 5, 1e308, NULL, NULL, NULL, NULL, '[]', x''),
  (3, 'ü€😀', NULL, -0.05, 1234567.891, '1999-12-31', 0, '1999-12-31 23:59:59Z', NULL, NULL, NULL);
CREATE TABLE pairs (a TEXT, b INTEGER, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO pairs VALUES ('x', 1, 'one'), ('x', 2, 'two'), ('Y', 1, NULL);
CREATE TABLE bag (v TEXT);
INSERT INTO bag VALUES ('same'), ('same'), (NULL), ('other');
CREATE TABLE alembic_version (version_num TEXT);
INSERT INTO alembic_version VALUES ('ours');";

const TARGET: &str = "
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, active boolean, paid numeric(10,2), ratio double precision, born date,
  seen timestamptz, made timestamptz, uid uuid, doc jsonb, raw bytea);
CREATE TABLE pairs (a text, b int, v varchar(10), PRIMARY KEY (a, b));
CREATE TABLE bag (v text);
CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('theirs');";

const MEANS: [&str; 4] = ["--timezone", "Europe/Berlin", "--epoch", "users.seen=s"];

fn with_sqlite(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("diff_lite");
    database.psql(TARGET);
    let folder = tempfile::tempdir().unwrap();
    let file = sqlite(folder.path(), "app.sqlite3", FILE);
    let name = file.to_str().unwrap();
    let repo = Snapshots::new();
    let import = [&["import", name][..], &MEANS].concat();
    repo.run("safe-run", &database.url(), &import).expect(0);
    let snapshot = repo.create(&database, &[]);
    for side in [database.url(), snapshot.clone()] {
        compare(&repo, name, &side, &MEANS).equal();
        compare(&repo, &side, &format!("sqlite:///{name}"), &MEANS).equal();
    }
    compare(&repo, &snapshot, &database.url(), &[]).equal();
    // Without its meaning a number is no date, and no value of the column can be equal to it.
    let found = compare(&repo, name, &database.url(), &["--timezone", "Europe/Berlin"]);
    assert_eq!(found.counts("users"), [0, 0, 2]);
    assert!(found.text.contains("seen: '1700000000' -> "), "{}", found.text);
    assert!(found.text.contains("(it is a date as a number, and its unit is not known)"), "{}", found.text);
    sqlite(
        folder.path(),
        "app.sqlite3",
        "UPDATE users SET paid = 10.11 WHERE id = 1; UPDATE users SET name = 'u' WHERE id = 3; DELETE FROM pairs WHERE a = 'Y';
         INSERT INTO pairs VALUES ('y', 1, 'far too long for it'); DELETE FROM bag WHERE rowid = 1; ALTER TABLE bag ADD COLUMN more TEXT;
         CREATE TABLE only_here (i INTEGER)",
    );
    database.psql("CREATE TABLE only_there (i int); INSERT INTO only_there VALUES (1)");
    let found = compare(&repo, name, &database.url(), &MEANS);
    assert_eq!(found.code, 1);
    assert_eq!(found.counts("users"), [0, 0, 2]);
    let columns: Vec<&str> = found.table("users")["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["columns"][0]["column"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["paid", "name"]);
    assert_eq!(found.counts("pairs"), [1, 1, 0]);
    assert!(found.text.contains("(it is longer than the column allows)"), "{}", found.text);
    assert_eq!(found.counts("bag"), [0, 1, 0]);
    assert_eq!(found.table("bag")["columns_only_in_a"][0], "more");
    assert_eq!(found.table("only_here")["change"], "removed");
    assert_eq!(found.table("only_there")["change"], "added");
    let against = compare(&repo, &snapshot, name, &MEANS);
    assert_eq!(against.counts("pairs"), [1, 1, 0]);
    let mapped = [
        &MEANS[..],
        &["--skip-column", "bag.more", "--map", "only_here=only_there", "-t", "only_*", "-t", "bag"],
    ]
    .concat();
    let mapped = compare(&repo, name, &database.url(), &mapped);
    assert_eq!((mapped.counts("only_there"), mapped.counts("bag")), ([0, 1, 0], [0, 1, 0]));
}

#[test]
fn a_sqlite_file_is_compared_with_live_databases_and_snapshots_on_postgresql_14() {
    with_sqlite(14);
}

#[test]
fn a_sqlite_file_is_compared_with_live_databases_and_snapshots_on_postgresql_18() {
    with_sqlite(18);
}

#[test]
fn two_sqlite_files_are_compared_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let a = sqlite(folder.path(), "a.db", FILE);
    let b = sqlite(folder.path(), "b.db", FILE);
    let repo = Snapshots::new();
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    compare(&repo, a, b, &[]).equal();
    sqlite(
        folder.path(),
        "b.db",
        "UPDATE users SET ratio = 1 WHERE id = 1; UPDATE users SET doc = CAST(doc AS BLOB) WHERE id = 2",
    );
    assert_eq!(compare(&repo, a, b, &[]).counts("Users"), [0, 0, 2]);
}

#[test]
fn what_is_named_is_found_out_and_what_is_none_of_them_is_refused() {
    let repo = Snapshots::new();
    let database = Cluster::shared(18).fresh_database("diff_named");
    database.psql("CREATE TABLE t (i int)");
    let id = repo.create(&database, &[]);
    let diff = |a: &str, b: &str, flags: &[&str]| -> Outcome {
        repo.run_offline("backup", &[&["diff", a, b], flags].concat())
    };
    diff(&id, "mysql://root@localhost/shop", &[]).fails(2, &["MySQL"]);
    diff(&id, "20200101T000000Z-none-abcdef", &[]).expect(5);
    diff(&id, "no-such-file.sqlite3", &[]).fails(2, &["no-such-file.sqlite3"]);
    diff(&id, "postgresql://localhost:1/x", &[]).expect(4);
    let text = repo.path().join("not.db");
    std::fs::write(&text, "this is no database").unwrap();
    let refused = diff(&id, text.to_str().unwrap(), &[]);
    assert!([2, 3].contains(&refused.code), "{} {}", refused.code, refused.stderr);
    diff(&id, &database.url(), &["--timezone", "UTC"]).expect(2).says(&["--timezone is about a SQLite file"]);
    diff(&id, &database.url(), &["--table", "none"]).fails(
        3,
        &["no table of either side matches --table", "Upper case, dots and blanks need double quotes within"],
    );
    diff(&id, &database.url(), &["--table", "t", "--table", "none"]).fails(3, &["matches --table none"]);
    let lite = sqlite(&repo.path(), "lite.db", "CREATE TABLE t (i INTEGER)");
    let lite = lite.to_str().unwrap();
    diff(lite, &database.url(), &[]).expect(0);
    diff(lite, &database.url(), &["--skip-table", "u"]).expect(2).says(&["the file has no table u"]);
    diff(lite, &database.url(), &["--epoch", "t.j=s"]).expect(2).says(&["the file has no column t.j"]);
    diff(lite, lite, &["--timezone", "UTC"]).expect(2).says(&["no meaning between two SQLite files"]);
    for (flags, hint) in [
        (["--timezone", "Nowhere"], "Use a name such as UTC, Europe/Berlin"),
        (["--epoch", "weeks"], "Write --epoch UNIT or --epoch TABLE.COLUMN=UNIT"),
        (["--map", "a"], "Write --map TABLE=TABLE, --map TABLE=SCHEMA.TABLE"),
        (["--skip-column", "a"], "Write TABLE.COLUMN, as SQLite names them"),
        (["--skip-table", "a.b"], "Write the table's name; one with a dot in it"),
    ] {
        diff(&id, "app.sqlite3", &flags).expect(2).says(&[hint]);
    }
    let latin = Cluster::shared(18)
        .fresh_database_with("diff_latin", "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    latin.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'ü')");
    let old = repo.create(&latin, &[]);
    let file = sqlite(
        &repo.path(),
        "latin.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'ü')",
    );
    let file = file.to_str().unwrap();
    diff(&old, file, &[])
        .fails(3, &["has the encoding LATIN1", "Compare the file with the live database, or with one"]);
    compare(&repo, file, &latin.url(), &[]).equal();
    compare(&repo, &old, &latin.url(), &[]).equal();
    let [utf] = [Cluster::shared(18).fresh_database("diff_utf")];
    utf.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'ü')");
    let new = repo.create(&utf, &[]);
    diff(&old, &new, &["--table", "t"]).fails(
        3,
        &[
            "the encodings LATIN1 and UTF8",
            "Restore one of them, and compare the database with the other snapshot",
        ],
    );
    diff(&old, &new, &[]).expect(1);
    let other = compare(&repo, &latin.url(), &utf.url(), &["--table", "t"]);
    assert!(other.document["tables"].as_array().unwrap().is_empty(), "{}", other.text);
    let socket = database.cluster().socket_dir().display().to_string();
    let keys =
        format!("dbname={} host={socket} port={} user=postgres", database.name(), database.cluster().port());
    diff(&id, &keys, &[]).expect(0);
}

#[test]
fn a_table_that_somebody_has_exclusively_is_not_waited_for_longer_than_told() {
    let database = Cluster::shared(18).fresh_database("diff_locked");
    database.psql("CREATE TABLE t (i int); CREATE TABLE free (i int)");
    let repo = Snapshots::new();
    let id = repo.create(&database, &[]);
    let mut session = database.session();
    session.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    let limits = ["--lock-timeout", "100ms", "--lock-retries", "1"];
    let diff = |more: &[&str]| {
        repo.run_offline("backup", &[&["diff", &id, &database.url()], &limits[..], more].concat())
    };
    diff(&[]).fails(4, &["could not lock the tables", "in the way: pid"]);
    // Only what is compared is locked.
    diff(&["-t", "free"]).expect(0);
    session.run("ROLLBACK");
    diff(&[]).expect(0);
}

#[test]
fn nothing_of_an_owners_is_evaluated_with_our_rights() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("diff_hostile");
    let role = format!("diff_mallory_{}", std::process::id());
    database.psql(&format!(
        "CREATE ROLE {role}; CREATE TABLE caught (who text); GRANT ALL ON caught TO PUBLIC; CREATE SCHEMA hers AUTHORIZATION {role};
         SET ROLE {role};
         CREATE FUNCTION hers.trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
           IF current_user <> '{role}' THEN RAISE EXCEPTION 'caught %', current_user; END IF; RETURN $1; END $$;
         CREATE TABLE hers.t (id int PRIMARY KEY, v int) ; CREATE INDEX ON hers.t ((hers.trap(v))) WHERE hers.trap(1) = 1;
         INSERT INTO hers.t SELECT i, i FROM generate_series(1, 3000) i;
         CREATE STATISTICS hers.s ON (hers.trap(v)), id FROM hers.t;
         ALTER TABLE hers.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON hers.t USING (hers.trap(v) > 0)"
    ));
    let repo = Snapshots::new();
    let id = repo.create(&database, &[]);
    compare(&repo, &id, &database.url(), &[]).equal();
    database.psql(&format!("SET ROLE {role}; UPDATE hers.t SET v = 0 WHERE id = 2000"));
    assert_eq!(compare(&repo, &id, &database.url(), &[]).counts("hers.t"), [0, 0, 1]);
    database.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A generator of numbers that is the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn random_changes(major: u32) {
    let cluster = Cluster::shared(major);
    let setup = "CREATE TABLE keyed (k text, n int, v text, w numeric, PRIMARY KEY (k, n)); CREATE TABLE bag (v text, n int);
        INSERT INTO keyed SELECT chr(97 + i % 26), i, 'v' || i % 7, i / 3.0 FROM generate_series(1, 400) i;
        INSERT INTO bag SELECT CASE WHEN i % 3 > 0 THEN 'v' || i % 3 END, i % 5 FROM generate_series(1, 300) i;";
    let [a, b] = twins(cluster, setup);
    let oracle = cluster.fresh_database("diff_oracle");
    let repo = Snapshots::new();
    for seed in 0..6 {
        let mut random = Random(seed * 7919 + 1);
        let mut changes = String::new();
        for _ in 0..random.below(12) {
            let (i, j) = (random.below(420), random.below(7));
            changes.push_str(&match random.below(7) {
                0 => format!("DELETE FROM keyed WHERE n = {i};"),
                1 => format!("INSERT INTO keyed VALUES ('new', {i}, NULL, {j}) ON CONFLICT DO NOTHING;"),
                2 => format!("UPDATE keyed SET v = 'x{j}' WHERE n % 100 = {};", i % 100),
                3 => format!("UPDATE keyed SET w = w + {j} WHERE n = {i};"),
                4 => format!("INSERT INTO bag VALUES (NULL, {j}), ('v1', {j});"),
                5 => format!(
                    "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE n = {} LIMIT 3);",
                    j % 5
                ),
                _ => format!("UPDATE bag SET n = n + 1 WHERE ctid IN (SELECT ctid FROM bag LIMIT {j});"),
            });
        }
        let which = if random.below(2) == 0 { &a } else { &b };
        which.psql(&format!("SELECT; {changes}"));
        oracle.psql("DROP SCHEMA IF EXISTS a CASCADE; DROP SCHEMA IF EXISTS b CASCADE; CREATE SCHEMA a; CREATE SCHEMA b");
        for (schema, database) in [("a", &a), ("b", &b)] {
            for (table, columns) in [("keyed", "k text, n int, v text, w numeric"), ("bag", "v text, n int")]
            {
                let rows = database.psql(&format!("SELECT coalesce(json_agg(t), '[]') FROM {table} t"));
                let rows = psql::quote_literal(&rows);
                oracle.psql(&format!(
                    "CREATE TABLE {schema}.{table} ({columns});
                     INSERT INTO {schema}.{table} SELECT * FROM json_to_recordset({rows}) AS t({columns})"
                ));
            }
        }
        let count =
            |sql: &str| oracle.psql(&format!("SELECT count(*) FROM ({sql}) x")).parse::<u64>().unwrap();
        let except = |table: &str, one: &str, two: &str| {
            format!("SELECT * FROM {one}.{table} EXCEPT ALL SELECT * FROM {two}.{table}")
        };
        let (bag_a, bag_b) = (count(&except("bag", "a", "b")), count(&except("bag", "b", "a")));
        let keys = |one: &str, two: &str| {
            count(&format!("SELECT k, n FROM {one}.keyed EXCEPT SELECT k, n FROM {two}.keyed"))
        };
        let (only_a, only_b) = (keys("a", "b"), keys("b", "a"));
        let differing = count(&except("keyed", "a", "b")) - only_a;
        let snapshot = repo.create(&b, &[]);
        for side in [b.url(), snapshot] {
            let found = compare(&repo, &a.url(), &side, &["--first", "1000"]);
            let all = [("keyed", [only_a, only_b, differing]), ("bag", [bag_a, bag_b, 0])];
            let expected = usize::from(all[0].1 != [0; 3]) + usize::from(all[1].1 != [0; 3]);
            assert_eq!(
                found.document["tables"].as_array().unwrap().len(),
                expected,
                "seed {seed}: {changes}\n{}",
                found.text
            );
            assert_eq!(found.code, i32::from(expected > 0));
            for (table, counts) in all.iter().filter(|(_, counts)| *counts != [0; 3]) {
                assert_eq!(found.counts(table), *counts, "seed {seed}: {changes}\n{}", found.text);
                let told = found.table(table)["differences"].as_array().unwrap();
                let times: u64 = told.iter().map(|one| one["times"].as_u64().unwrap()).sum();
                assert_eq!(times, counts.iter().sum::<u64>());
            }
        }
    }
}

#[test]
fn random_changes_are_found_as_except_finds_them_on_postgresql_14() {
    random_changes(14);
}

#[test]
fn random_changes_are_found_as_except_finds_them_on_postgresql_18() {
    random_changes(18);
}

#[test]
fn watching_tells_what_stays_different_and_ends_with_the_last_rounds_code() {
    use std::io::{BufRead, BufReader};
    let cluster = Cluster::shared(18);
    let [a, b] = twins(
        cluster,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 50) i",
    );
    b.psql("UPDATE t SET v = 'stays' WHERE id = 3; UPDATE t SET v = 'moves' WHERE id = 4");
    let repo = Snapshots::new();
    let (url_a, url_b) = (a.url(), b.url());
    let watch = |end: &dyn Fn(&mut dyn FnMut() -> Value)| {
        let mut command = tests::binaries::command("backup");
        command.args(["diff", &url_a, &url_b, "--watch", "300ms", "--json", "-q", "--repo"]).arg(repo.path());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        end(&mut || serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
        let kill =
            std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        // What a round that was under way still says.
        lines.for_each(drop);
        child.wait().unwrap().code()
    };
    let code = watch(&|next| {
        let first = next();
        assert_eq!(
            (&first["round"], &first["schema"], &first["tables"][0]["differing"]),
            (&1.into(), &1.into(), &2.into())
        );
        assert!(first["tables"][0]["settled"].is_null(), "{first}");
        b.psql("UPDATE t SET v = 'moved' WHERE id = 4");
        // A round may have begun before the change: the one after it sees the change for the first time.
        let moved = |round: &Value| {
            let told = round["tables"][0]["differences"].as_array().unwrap();
            told.iter().any(|one| one["columns"][0]["b"] == "moved")
        };
        let mut round = next();
        while !moved(&round) {
            round = next();
        }
        let told = round["tables"][0]["differences"].as_array().unwrap();
        assert_eq!(round["tables"][0]["settled"], 1, "{round}");
        assert_eq!((&told[0]["settled"], &told[1]["settled"]), (&true.into(), &false.into()), "{round}");
        assert_eq!(next()["tables"][0]["settled"], 2);
    });
    assert_eq!(code, Some(1));
    b.psql("UPDATE t SET v = 'v'");
    assert_eq!(watch(&|next| assert_eq!(next()["equal"], true)), Some(0));
}
