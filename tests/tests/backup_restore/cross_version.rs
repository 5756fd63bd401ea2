//! Snapshots cross to newer majors, and never to older ones.
//!
//! The control is PostgreSQL's own way: what `pg_dump | psql` of the same database into the newer major gives. So a
//! difference that the versions themselves make is on both sides, and one of ours is not.

use std::io::Write;
use std::process::{Command, Stdio};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Outcome, Snapshots, fixtures, psql};

/// Copies a database with `pg_dump` and `psql` alone, settings of the database included.
fn copy_with_stock_tools(from: &str, to: &str) {
    let mut dump = psql::tool("pg_dump");
    dump.args(["--no-password", "-d", from]);
    let output = dump.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // psql as pg_dump's text needs it: it sets what an older server may not know, and that alone may fail.
    let mut load: Command = psql::tool("psql");
    load.args(["-X", "-q", "-d", to]).env("PGOPTIONS", "-c client_min_messages=warning");
    let mut child = load.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&output.stdout).unwrap());
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let errors = said.lines().filter(|line| line.contains("ERROR:") && !line.contains("transaction_timeout"));
    assert_eq!(errors.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// What a copy by pg_dump does not bring: owner, grants, settings and comment of the database itself, which are ours to
/// restore and are compared with the source instead.
const OF_THE_DATABASE: [&str; 2] = ["database", "database setting "];

/// Restores a snapshot of `source` on the server `newer` and compares it with the control; returns what restore said.
fn crosses(source: &Database, newer: &'static Cluster) {
    let snapshots = Snapshots::new();
    let before = fingerprint(source);
    // The same client on both sides: an older pg_dump writes GRANT ALL, which on a newer server grants more.
    let program = |name: &str, url: &str, arguments: &[&str]| {
        let newest = psql::tool("pg_dump");
        let tools = std::path::Path::new(newest.get_program()).parent().unwrap();
        Outcome::of(snapshots.command(name, url, arguments).env("SAFE_RUN_PG_BIN", tools)).expect(0)
    };
    let id = program("backup", &source.url(), &["create"]).stdout.trim().to_owned();
    // Owns the names that begin with its own, and drops them at the end.
    let control = newer.fresh_database("control");
    copy_with_stock_tools(&source.url(), &control.url());
    let copy = format!("{}copy", control.name());
    program("restore", &newer.url("postgres"), &[id.as_str(), "--into", &copy]);
    let restored = fingerprint_without(&newer.url(&copy), &[]);

    // Everything but the database itself is as with pg_dump: a stale view is fresh in both.
    let expected = fingerprint(&control).without(&OF_THE_DATABASE);
    assert!(expected.count("table ") > 3, "the control is not empty");
    expected.assert_same(&restored.clone().without(&OF_THE_DATABASE));
    // The database itself, and every row, are as in the source.
    let only = |fingerprint: &tests::Fingerprint, kinds: &[&str]| -> Vec<(String, String)> {
        let parts = kinds.iter().flat_map(|kind| fingerprint.parts(kind));
        parts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let kinds = ["database", "table ", "sequence ", "large object "];
    assert_eq!(only(&before, &kinds), only(&restored, &kinds));
    // Written to by nobody, and left as it was.
    before.assert_same(&fingerprint(source));
}

fn everything(major: u32, newer: &Cluster) -> Database<'static> {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("cross");
    fixtures::load_everything(&database);
    // A server that was built without libxml takes no XML from anybody.
    if psql::try_run(&newer.url("postgres"), "SELECT '<a/>'::xml").is_err() {
        database.psql("UPDATE types.documents SET x = NULL");
    }
    database
}

fn with_the_roles_of_the_fixture(major: u32) -> &'static Cluster {
    // Roles belong to the server; the fixture makes them where it is loaded.
    let cluster = Cluster::shared(major);
    fixtures::load_everything(&cluster.fresh_database("roles"));
    cluster
}

#[test]
fn a_database_with_everything_crosses_from_14_to_18() {
    let newer = with_the_roles_of_the_fixture(18);
    crosses(&everything(14, newer), newer);
}

#[test]
fn a_database_with_everything_crosses_from_15_to_18() {
    let newer = with_the_roles_of_the_fixture(18);
    crosses(&everything(15, newer), newer);
}

#[test]
fn a_database_with_everything_crosses_from_14_to_15() {
    let newer = with_the_roles_of_the_fixture(15);
    crosses(&everything(14, newer), newer);
}

#[test]
fn a_shop_with_a_stale_view_crosses_to_newer_majors() {
    for (old, new) in [(14, 18), (15, 18), (14, 15)] {
        let database = Cluster::shared(old).fresh_database("shop");
        fixtures::load_shop(&database, 0.01);
        database.psql(
            "CREATE MATERIALIZED VIEW late AS SELECT count(*) AS n FROM orders;
             DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 5)",
        );
        assert_eq!(database.psql("SELECT n - (SELECT count(*) FROM orders) FROM late"), "5", "it is stale");
        crosses(&database, Cluster::shared(new));
    }
}

#[test]
fn a_newer_snapshot_is_refused_by_an_older_server_and_nothing_is_made() {
    let database = Cluster::shared(18).fresh_database("newer");
    fixtures::load_shop(&database, 0.001);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let older = Cluster::shared(15);
    let live = older.fresh_database("older");
    live.psql("CREATE TABLE kept AS SELECT 1 AS one");
    let before = fingerprint(&live);
    let into = format!("{}copy", live.name());
    for target in [
        &[id.as_str(), "--into", &into][..],
        &[id.as_str(), "--replace", "--yes"],
        &[id.as_str(), "--into", &into, "--dry-run"],
    ] {
        snapshots.run("restore", &live.url(), target).fails(
            3,
            &[
                "the snapshot is from PostgreSQL 18 and the server is PostgreSQL 15",
                "No database was changed.",
            ],
        );
    }
    assert_eq!(live.family(), [live.name()]);
    assert_eq!(
        older.psql(&format!(
            "SELECT count(*) FROM pg_database WHERE starts_with(datname, '{}')",
            database.name()
        )),
        "0"
    );
    before.assert_same(&fingerprint(&live));
}
