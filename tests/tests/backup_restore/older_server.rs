//! `restore --force` on a server that is older than the snapshot: what it does not understand is named, one by one, the
//! rest is equal, the exit code is not 0, and no live database is touched.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Snapshots, psql};

/// Half of it is what 14 does not know.
const MIXED: &str = r#"
CREATE SCHEMA app;
CREATE TABLE app.plain (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, note text);
INSERT INTO app.plain (n, note) SELECT i, 'note ' || i FROM generate_series(1, 500) i;
CREATE INDEX plain_n ON app.plain (n); CREATE VIEW app.sums AS SELECT sum(n) FROM app.plain;
CREATE TABLE app.child (i int REFERENCES app.plain, s serial); INSERT INTO app.child SELECT i FROM generate_series(1, 50) i;
CREATE TABLE app.virtual (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) VIRTUAL);
INSERT INTO app.virtual SELECT generate_series(1, 30);
CREATE TABLE app.of_virtual (a int CONSTRAINT to_virtual REFERENCES app.virtual);
ALTER TABLE app.plain ADD CONSTRAINT one_null UNIQUE NULLS NOT DISTINCT (note, n);
ALTER TABLE app.plain ADD CONSTRAINT not_checked CHECK (n > 1000) NOT ENFORCED;
CREATE VIEW app.invoker WITH (security_invoker = true) AS SELECT 1 AS one;
CREATE FUNCTION app.merges() RETURNS void LANGUAGE sql BEGIN ATOMIC
  MERGE INTO app.plain USING app.child ON plain.id = child.i WHEN MATCHED THEN UPDATE SET n = 1; END;
CREATE MATERIALIZED VIEW app.fine AS SELECT count(*) AS c FROM app.plain;
CREATE MATERIALIZED VIEW app.lost AS SELECT count(*) AS c FROM app.virtual;
CREATE TABLE app.ranges (r int4range, m int4multirange); INSERT INTO app.ranges VALUES ('[1,5)', '{[1,2),[4,9)}');
SELECT lo_from_bytea(99, 'large');
"#;

/// Everything that has to be named, as a part of one line.
const LOST: [&str; 9] = [
    "TABLE app virtual",
    "rows of app.virtual: the table could not be made as it was, and its 30 rows are not restored",
    "CONSTRAINT app virtual virtual_pkey",
    "FK CONSTRAINT app of_virtual to_virtual",
    "CONSTRAINT app plain one_null",
    "VIEW app invoker",
    "FUNCTION app merges()",
    "MATERIALIZED VIEW app lost",
    "CHECK CONSTRAINT app plain not_checked",
];

fn restored_with_missing(target: u32) {
    let source = Cluster::shared(18);
    let database = source.fresh_database("newer");
    database.psql(MIXED);
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let older = Cluster::shared(target);
    let live = older.fresh_database("older");
    live.psql("CREATE TABLE kept AS SELECT 1 AS one");
    let untouched = fingerprint(&live);
    let copy = format!("{}copy", live.name());
    let run =
        |arguments: &[&str]| snapshots.run("restore", &live.url(), &[&[id.as_str()], arguments].concat());

    run(&["--into", &copy]).fails(3, &["--force", "No database was changed."]);
    let planned = run(&["--into", &copy, "--force", "--dry-run"]).expect(0);
    assert!(planned.stdout.contains("older than the snapshot's 18"), "{}", planned.stdout);
    assert_eq!(live.family(), [live.name()]);

    for jobs in ["1", "4"] {
        let outcome =
            run(&["--into", &copy, "--force", "--jobs", jobs]).expect(1).says(&["RESTORED WITH", "MISSING"]);
        let named: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("missing: ")).collect();
        for lost in LOST {
            assert!(named.iter().any(|line| line.contains(lost)), "not named: {lost}\n{}", outcome.stderr);
        }
        // Each once, and nothing else: owners and the like of what is missing do not count.
        assert_eq!(named.len(), LOST.len(), "{}", outcome.stderr);
        let url = older.url(&copy);
        // Whatever is not named is there, and equal.
        let restored = fingerprint_without(&url, &[]);
        for (key, value) in before.parts("").filter(|(key, _)| {
            !key.contains("virtual")
                && !key.contains("app.lost")
                && !key.contains("database")
                && !key.contains("app.plain\\\"")
        }) {
            let found = restored.parts(key).next();
            assert_eq!(found, Some((key, value)), "{key}");
        }
        let objects = "SELECT string_agg(c.relname || ' ' || c.relkind, ',' ORDER BY c.relname) FROM pg_class c \
                       WHERE relnamespace = 'app'::regnamespace";
        let names = psql::run(&url, objects);
        for there in [
            "plain r",
            "plain_n i",
            "plain_pkey i",
            "sums v",
            "child r",
            "child_s_seq S",
            "of_virtual r",
            "fine m",
            "ranges r",
        ] {
            assert!(names.split(',').any(|name| name == there), "{there}: {names}");
        }
        let key = "SELECT count(*) FROM pg_constraint WHERE conname = 'child_i_fkey' AND convalidated";
        assert_eq!(psql::run(&url, key), "1");
        older.psql(&format!("DROP DATABASE {copy}"));
    }

    // A live database is not replaced by one that lacks something.
    let outcome = run(&["--replace", "--yes", "--force"])
        .expect(1)
        .says(&["did not take the place of", "was not changed"]);
    untouched.assert_same(&fingerprint(&live));
    let staged =
        live.family().into_iter().find(|name| name.contains("_restored_")).expect("it is kept for a person");
    assert!(outcome.stderr.contains(&staged) && outcome.stdout.contains(&staged), "{}", outcome.stderr);
    let json = run(&["--into", &copy, "--force", "--json"]).expect(1);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("one document");
    assert!(report["missing"].as_array().expect("a list").len() == LOST.len(), "{report}");
}

#[test]
fn every_object_that_14_does_not_understand_is_named_and_the_rest_is_equal() {
    restored_with_missing(14);
}

/// From 17 on a partition has the identity of its table: nothing fails on 16, and nothing says that it is gone.
#[test]
fn what_an_older_server_drops_without_a_word_is_named() {
    let database = Cluster::shared(18).fresh_database("newer");
    database.psql(&format!(
        "CREATE TABLE t (i int GENERATED ALWAYS AS IDENTITY, k int) PARTITION BY LIST (k);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1); INSERT INTO t (k) VALUES (1);
         CREATE TABLE endless (i interval); INSERT INTO endless VALUES ('infinity'), ('1 day');
         CREATE TABLE other (i int); INSERT INTO other VALUES (1);
         ALTER DATABASE {} SET transaction_timeout = '1h'",
        database.name()
    ));
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let older = Cluster::shared(16);
    let live = older.fresh_database("older");
    let into = format!("{}copy", live.name());
    let run = |flags: &[&str]| {
        snapshots.run("restore", &live.url(), &[&[&id, "--into", &into, "--force"], flags].concat())
    };
    run(&[]).fails(3, &["does not know: transaction_timeout (--skip-settings"]);
    let planned = run(&["--skip-settings", "--dry-run"]).expect(0).stdout;
    assert!(planned.contains("does not know the setting transaction_timeout"), "{planned}");
    run(&["--skip-settings"]).expect(1).says(&[
        "missing: identity of the column public.t_1.i: PostgreSQL 16 gives a partition none",
        "setting transaction_timeout = 1h of the database was left out",
        "missing: rows of endless: the server does not take them, and the table is empty: 2 rows",
        "invalid input syntax for type interval",
    ]);
    let rows =
        "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM endless), (SELECT count(*) FROM other)";
    assert_eq!(psql::run(&older.url(&into), rows), "1|0|1");
    // Towards a server that is not older the flag has nothing to do, and says so.
    let same = snapshots.run("restore", &database.url(), &[&id, "--force", "--dry-run"]).expect(0).stdout;
    assert!(same.contains("--force changes nothing"), "{same}");
}

#[test]
fn a_snapshot_that_the_older_server_understands_replaces_with_force() {
    let database = Cluster::shared(18).fresh_database("newer");
    database.psql("CREATE TABLE t (i int PRIMARY KEY, s text); INSERT INTO t SELECT i, 's' FROM generate_series(1, 50) i");
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let live = Cluster::shared(14).fresh_database("older");
    live.psql("CREATE TABLE kept AS SELECT 1 AS one");
    snapshots
        .run("restore", &live.url(), &[&id, "--replace", "--yes", "--force"])
        .expect(0)
        .says(&["RESTORED"]);
    assert_eq!(live.psql("SELECT count(*), min(s) FROM t"), "50|s");
}
