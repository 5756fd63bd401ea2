//! The harness itself: a test that stands on a blind oracle or on an empty fixture proves nothing.

use std::time::Instant;

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Options, fixtures, on_every_major, psql};

on_every_major! {
    fn the_oracle_sees_everything_the_same_twice(cluster: &Cluster) {
        let database = cluster.fresh_database("everything");
        fixtures::load_everything(&database);
        let first = fingerprint(&database);
        first.assert_same(&fingerprint(&database));
        assert!(first.count("table ") >= 46, "{}", first.count("table "));
        assert!(first.count("sequence ") >= 10, "{}", first.count("sequence "));
        assert_eq!(first.count("large object "), 3);
        assert_eq!(first.count("database setting "), 9);
        assert_eq!(first.count("invalid index "), 1);
        assert!(first.schema().lines().count() > 2000);
    }

    fn the_oracle_finds_a_copy_by_pg_dump_and_pg_restore_equal(cluster: &Cluster) {
        let original = cluster.fresh_database("original");
        fixtures::load_everything(&original);
        let copy = cluster.fresh_database("copy");
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut dump = psql::tool("pg_dump");
        dump.args(["-Fc", "-d", &original.url(), "-f"]).arg(file.path());
        psql::succeed(dump);
        let mut restore = psql::tool("pg_restore");
        restore.args(["-f", "-"]).arg(file.path());
        // pg_restore 17 and newer sets a parameter that older servers don't know, and stops there.
        copy.psql(&psql::succeed(restore).replacen("SET transaction_timeout = 0;\n", "", 1));

        // What pg_dump leaves to others: the database's own properties, and the state of a materialized view.
        let known = ["database", "materialized view \"app.stale\""];
        let (before, after) = (fingerprint(&original).without(&known), fingerprint(&copy).without(&known));
        before.assert_same(&after);
    }

    fn the_oracle_sees_every_small_change(cluster: &Cluster) {
        let database = cluster.fresh_database("changes");
        fixtures::load_everything(&database);
        let mut before = fingerprint(&database);
        for (change, expected) in CHANGES {
            database.psql(&change.replace("$DATABASE", database.name()));
            let after = fingerprint(&database);
            let diff = before.diff(&after);
            assert!(diff.contains(expected), "{change}: expected {expected} in:\n{diff}");
            assert!(diff.lines().count() < 40, "{change}: more than itself differs:\n{diff}");
            before = after;
        }
    }
}

/// A change, and what the diff must name.
const CHANGES: [(&str, &str); 14] = [
    ("UPDATE types.strings SET t = t || ' ' WHERE id = 4", r#"table "types.strings""#),
    ("INSERT INTO app.duplicates VALUES (1, 'same')", r#"table "app.duplicates""#),
    ("INSERT INTO app.no_columns DEFAULT VALUES", r#"table "app.no_columns""#),
    ("UPDATE types.numbers SET d = 0 WHERE id = 4 AND d = 0", r#"table "types.numbers""#),
    ("DROP INDEX app.indexed_hash", "- CREATE INDEX indexed_hash"),
    ("SELECT nextval('app.never_called')", r#"sequence "app.never_called""#),
    ("SELECT setval('app.set_not_called', 77, true)", r#"sequence "app.set_not_called""#),
    ("SELECT lo_put(900001, 20000, 'x')", "large object 900001"),
    ("SELECT lo_unlink(900002)", "large object 900002"),
    ("REFRESH MATERIALIZED VIEW app.stale", r#"materialized view "app.stale""#),
    ("ALTER TABLE app.audited DISABLE TRIGGER after_row", "DISABLE TRIGGER after_row"),
    ("ALTER DATABASE \"$DATABASE\" SET work_mem = '9MB'", "database setting work_mem"),
    ("COMMENT ON DATABASE \"$DATABASE\" IS 'new'", "database:"),
    ("REVOKE SELECT ON app.a FROM safe_run_test_reader", "GRANT SELECT"),
];

#[test]
fn the_shop_loads_in_seconds_on_every_major_version() {
    for major in tests::cluster::majors() {
        let cluster = Cluster::shared(major);
        let database = cluster.fresh_database("shop");
        let start = Instant::now();
        fixtures::load_shop(&database, 0.02);
        assert!(start.elapsed().as_secs() < 20, "{:?} for 10,000 rows", start.elapsed());
        let rows: u64 = database
            .psql("SELECT count(*) + (SELECT count(*) FROM order_items) + (SELECT count(*) FROM events) FROM orders")
            .parse()
            .unwrap();
        assert!(rows > 5_000, "{rows} rows");
        fingerprint(&database).assert_same(&fingerprint(&database));
    }
}

#[test]
fn only_the_demos_bad_migration_orphans_rows_and_none_of_its_statements_fails() {
    for (folder, orphans_expected) in [("migrations-good", false), ("migrations-orphans", true)] {
        let database = Cluster::shared(18).fresh_database("demo");
        fixtures::load_shop(&database, 0.02);
        let entries = std::fs::read_dir(fixtures::demo_migrations(folder)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 3);
        for file in files {
            psql::run_file(&database.url(), &file);
        }
        let orphans = database.psql(
            "SELECT count(*) FROM orders o WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = o.user_id)",
        );
        assert_eq!(orphans != "0", orphans_expected, "{folder}: {orphans} orphans");
    }
}

#[test]
fn the_oracle_leaves_out_only_the_schemas_that_it_is_told() {
    let database = Cluster::shared(18).fresh_database("without");
    database.psql("CREATE SCHEMA safe_run; CREATE TABLE t (i int)");
    let before = fingerprint_without(&database.url(), &["safe_run"]);
    database.psql("CREATE TABLE safe_run.runs AS SELECT 1; CREATE SEQUENCE safe_run.s");
    before.assert_same(&fingerprint_without(&database.url(), &["safe_run"]));
    assert_ne!(fingerprint(&database), before);
}

#[test]
fn a_private_server_takes_passwords_and_ends_with_its_value() {
    let cluster = Cluster::start(15, &Options::new().scram().conf("wal_level = logical"));
    assert_eq!(cluster.psql("SHOW wal_level"), "logical");
    cluster.psql("CREATE ROLE someone LOGIN PASSWORD 'secret'");
    assert_eq!(psql::run(&cluster.tcp_url("someone:secret", "127.0.0.1", "postgres"), "SELECT 1"), "1");
    let error =
        psql::try_run(&cluster.tcp_url("someone:wrong", "127.0.0.1", "postgres"), "SELECT 1").unwrap_err();
    assert!(error.contains("password authentication failed"), "{error}");
    let folder = cluster.socket_dir().to_owned();
    drop(cluster);
    assert!(!folder.exists(), "{} is still there", folder.display());
}

#[test]
fn a_private_server_has_tls_with_a_name_to_verify() {
    let cluster = Cluster::start(15, &Options::new().tls());
    cluster.psql("SELECT 1");
    // psql from the wheel has no TLS; Debian's server tells that its side works.
    assert_eq!(cluster.psql("SHOW ssl"), "on");
    assert!(std::fs::read_to_string(cluster.ca_file()).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn a_session_lasts_over_calls_and_over_errors() {
    let database = Cluster::shared(18).fresh_database("session");
    let mut session = database.session();
    session.run("BEGIN; CREATE TABLE t (i int)");
    assert_eq!(session.run("INSERT INTO t VALUES (1), (2) RETURNING i"), "1\n2");
    assert!(database.try_psql("SELECT * FROM t").unwrap_err().contains("does not exist"));
    assert!(session.try_run("SELECT 1 / 0").unwrap_err().contains("22012"));
    session.run("ROLLBACK");
    assert_eq!(session.run("SELECT 'still here'"), "still here");
}
