//! The control of the promise that nothing is lost unannounced: what plain `pg_dump | pg_restore` does not bring back as it
//! was differs on the two sides, by PostgreSQL's own catalog, and `backup create` says so. A case that PostgreSQL learns to
//! keep fails here, and its announcement can go.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Snapshots, psql};

/// A case: what makes it, what the catalog says about it, what `backup create` announces (none: the snapshot keeps it).
struct Case {
    make: &'static str,
    look: &'static str,
    announced: Option<&'static str>,
}

const CASES: [Case; 9] = [
    Case {
        make: "CREATE FUNCTION compare(int, text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
               ALTER OPERATOR FAMILY integer_ops USING btree ADD FUNCTION 1 (int4, text) compare(int, text);",
        look: "SELECT count(*) FROM pg_amproc p JOIN pg_opfamily f ON f.oid = p.amprocfamily WHERE f.opfname = 'integer_ops'",
        announced: Some("1 operator or function added to a built-in operator family"),
    },
    Case {
        // The commutator is made with the operator, and stays behind when that is dropped.
        make: "CREATE FUNCTION same(int, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
               CREATE OPERATOR ## (LEFTARG = int, RIGHTARG = text, FUNCTION = same, COMMUTATOR = ###);
               DROP OPERATOR ## (int, text);",
        look: "SELECT count(*) FROM pg_operator WHERE oprcode = 0",
        announced: Some("1 shell operator: pg_dump does not keep them"),
    },
    Case {
        make: "CREATE TABLE key (id int PRIMARY KEY);
               CREATE TABLE whole (id int, k int, CONSTRAINT whole_fk FOREIGN KEY (k) REFERENCES key) PARTITION BY LIST (id);
               CREATE TABLE part (id int, k int CONSTRAINT own_name REFERENCES key);
               ALTER TABLE whole ATTACH PARTITION part FOR VALUES IN (1);
               CREATE TABLE usual PARTITION OF whole FOR VALUES IN (2);",
        look: "SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND conparentid <> 0",
        announced: Some("1 foreign key of a partition under a name of its own (part.own_name)"),
    },
    Case {
        make: "CREATE TABLE parent (a int, b int); CREATE TABLE child (x int) INHERITS (parent);
               CREATE TABLE unchanged (y int) INHERITS (parent, child); ALTER TABLE parent ADD COLUMN c int;
               DROP TABLE unchanged; INSERT INTO child VALUES (1, 2, 3, 4);",
        look: "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'child'::regclass AND attnum > 0",
        announced: Some("1 inheritance child (child): restored with the columns in another order"),
    },
    Case {
        make: "CREATE DOMAIN seven AS int DEFAULT 7;
               CREATE TABLE defaults (a int, d seven DEFAULT 3) PARTITION BY LIST (a);
               CREATE TABLE defaults1 (a int, d seven); ALTER TABLE defaults ATTACH PARTITION defaults1 FOR VALUES IN (1);",
        look: "SELECT count(*) FROM pg_attrdef WHERE adrelid = 'defaults1'::regclass",
        announced: Some("1 column of a partition or child table without the default of its parent (defaults1.d)"),
    },
    Case {
        make: "CREATE TABLE spelt (a int, t varchar); CREATE INDEX spelt_in ON spelt (a) WHERE t IN ('a', 'b');
               CREATE INDEX spelt_like ON spelt (a) WHERE a > 1 AND a < 5 AND (a <> 3 OR a = 4);",
        look: "SELECT pg_get_indexdef('spelt_in'::regclass)",
        announced: Some("1 index or CHECK constraint (spelt_in): the expression is spelt differently"),
    },
    Case {
        make: "CREATE TABLE between_and (a int, CHECK (a BETWEEN 1 AND 3 AND a <> 2));",
        look: "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'between_and'::regclass AND contype = 'c'",
        announced: Some("1 index or CHECK constraint (between_and.between_and_a_check)"),
    },
    Case {
        make: "CREATE TABLE t (i int); CREATE MATERIALIZED VIEW stale AS SELECT count(*) AS n FROM t; INSERT INTO t VALUES (1);",
        look: "SELECT n FROM stale",
        announced: Some("1 materialized view: filled again from the restored tables, so a stale one comes back fresh"),
    },
    Case {
        // pg_dump gives them to a database of the same name only; a snapshot brings them back under any.
        make: "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''7MB''', current_database()); END $$",
        look: "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = current_database()",
        announced: None,
    },
];

/// Into a new database `<name>copy`, with the stock tools; returns its URL.
fn copied(database: &Database) -> String {
    let cluster = database.cluster();
    let name = format!("{}copy", database.name());
    cluster.psql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
    let url = cluster.url(&name);
    let archive = tempfile::NamedTempFile::new().unwrap();
    let mut dump = psql::tool("pg_dump");
    psql::succeed({
        dump.args(["--format=custom", "--file"]).arg(archive.path()).args(["-d", &database.url()]);
        dump
    });
    let output = psql::tool("pg_restore").args(["-d", &url]).arg(archive.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // A newer client's setting that an older server does not know.
    let errors = said.lines().filter(|line| line.contains("error:") && !line.contains("transaction_timeout"));
    assert_eq!(errors.count(), 0, "{said}");
    url
}

/// What a backup says of the database; how much of it was read is another matter.
fn announcements(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("note: ") && !line.starts_with("note: read ")).collect()
}

fn what_the_stock_tools_change_is_announced(major: u32) {
    let cluster = Cluster::shared(major);
    for case in CASES {
        let database = cluster.fresh_database("control");
        database.psql(case.make);
        let before = database.psql(case.look);
        let copy = copied(&database);
        assert_ne!(psql::run(&copy, case.look), before, "the stock tools keep it: {}", case.make);
        let snapshots = Snapshots::new();
        let created = snapshots.run("backup", &database.url(), &["create"]).expect(0);
        let id = created.stdout.trim().to_owned();
        let notes = announcements(&created.stderr);
        let Some(announced) = case.announced else {
            assert!(notes.is_empty(), "{notes:?}");
            let kept = psql::run(&snapshots.restore_copy(&database, &[]), case.look);
            assert_eq!(kept, before, "{}", case.make);
            continue;
        };
        // This, and nothing that is not so.
        assert!(matches!(notes[..], [one] if one.contains(announced)), "{announced} is not all of {notes:?}");
        assert!(snapshots.manifest(&id).contains(announced), "{announced}");
        // What a person sees again when it is restored; and no row is lost by it.
        let name = format!("{}_r", database.name());
        let restored = snapshots.run("restore", &database.url(), &[&id, "--into", &name]).expect(0);
        assert!(restored.stderr.contains(announced), "{announced}: {}", restored.stderr);
        let rows = |url: &str| {
            fingerprint_without(url, &[]).parts("table ").map(|(k, _)| k.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(rows(&cluster.url(&name)), rows(&database.url()));
    }
}

#[test]
fn what_pg_dump_and_pg_restore_change_is_announced_postgresql_14() {
    what_the_stock_tools_change_is_announced(14);
}

#[test]
fn what_pg_dump_and_pg_restore_change_is_announced_postgresql_18() {
    what_the_stock_tools_change_is_announced(18);
}

#[test]
fn a_plain_database_has_nothing_to_announce() {
    let database = Cluster::shared(18).fresh_database("plain");
    database.psql(
        "CREATE TABLE key (id int PRIMARY KEY, t text CHECK (t IN ('a', 'b')));
         CREATE TABLE p (id int DEFAULT 5 CHECK (id > 0 AND id < 9), k int REFERENCES key) PARTITION BY LIST (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
         CREATE INDEX ON key (id) WHERE t = 'a' OR t IS NULL;",
    );
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let created = snapshots.run("backup", &database.url(), &["create"]).expect(0);
    assert!(announcements(&created.stderr).is_empty(), "{}", created.stderr);
    before.assert_same(&fingerprint_without(&snapshots.restore_copy(&database, &[]), &[]));
}
