//! Where fewer connections can be had than a command would like: it works with fewer, or ends before it begins anything, naming the limit.

use std::process::Command;

use tests::oracle::fingerprint;
use tests::{Cluster, Database, Outcome, Snapshots, cluster};

/// A database of a role without other rights, with a foreign key, an index and a rule that runs code.
fn small<'c>(cluster: &'c Cluster, role: &str) -> Database<'c> {
    let database = cluster.fresh_database("room");
    cluster.psql(&format!(
        "CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE \"{}\" OWNER TO {role}; ALTER DATABASE \"{}\" SET client_min_messages = warning",
        database.name(),
        database.name()
    ));
    database.psql(&format!(
        "SET ROLE {role};
         CREATE TABLE t (i int PRIMARY KEY, s text CHECK (length(s) > 0));
         INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i; CREATE INDEX ON t (s);
         CREATE TABLE u (i int REFERENCES t); INSERT INTO u SELECT i FROM t;
         CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE v (i int CHECK (f(i) > 0)); INSERT INTO v VALUES (1)"
    ));
    database
}

/// With each limit a command ends with what it does, or with 4 and everything as before. Somewhere it works.
fn at_every_limit(
    database: &Database,
    limit: &dyn Fn(usize),
    before_each: &dyn Fn(),
    done: i32,
    most: usize,
    command: &dyn Fn() -> Command,
) {
    for count in 1..=most {
        limit(usize::MAX);
        before_each();
        let (before, family) = (fingerprint(database), database.family());
        limit(count);
        let outcome = Outcome::of(&mut command());
        limit(usize::MAX);
        if outcome.code == done {
            return;
        }
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code, 4, "limit {count}: {said}");
        assert!(said.contains("CONNECTION LIMIT"), "limit {count}: {said}");
        assert!(said.contains("changed."), "limit {count}: {said}");
        assert!(
            !said.contains("copying") && !said.contains("making tables"),
            "limit {count}, too late: {said}"
        );
        assert_eq!(database.family(), family, "limit {count}");
        before.assert_same(&fingerprint(database));
    }
    panic!("it never works with up to {most} connections: {:?}", command());
}

fn a_limit_is_met_before_anything_begins_or_fewer_jobs_do_it(major: u32) {
    let cluster = Cluster::shared(major);
    let role = format!("room_{major}");
    let database = small(cluster, &role);
    let url = cluster.url_as(&role, database.name());
    let snapshots = Snapshots::new();
    drop(snapshots.run("backup", &url, &["create"]).expect(0));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1_x.sql"), "CREATE TABLE x (i int); ALTER TABLE t ADD y int;")
        .unwrap();
    let dir = folder.path().to_str().unwrap();
    let limit = |count: usize| {
        let count = i64::try_from(count).unwrap_or(-1);
        cluster.psql(&format!("ALTER ROLE {role} CONNECTION LIMIT {count}"));
    };
    let clean = || {
        database.psql("DROP SCHEMA IF EXISTS safe_run CASCADE; DROP TABLE IF EXISTS x; ALTER TABLE t DROP COLUMN IF EXISTS y");
    };
    let copy = format!("{}copy", database.name());
    let fails: &[&str] = &["--", "psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DROP TABLE u", "-c", "SELECT 1/0"];
    let run = ["--dir", dir, "--jobs", "4"];
    let with = |flags: &[&'static str]| [&["--jobs", "4"], flags, fails].concat();
    let cases: Vec<(&str, Vec<&str>, i32)> = vec![
        ("backup", vec!["create", "--jobs", "4"], 0),
        ("restore", vec!["latest", "--into", &copy, "--jobs", "4"], 0),
        ("restore", vec!["latest", "--table", "u", "--replace", "--drop-replaced", "--yes"], 0),
        ("backup", vec!["drill", "latest", "--jobs", "4"], 0),
        ("safe-run", run.to_vec(), 0),
        ("safe-run", [&run[..], &["--fence", "read-only"]].concat(), 0),
        ("safe-run", with(&[]), 12),
        ("safe-run", with(&["--snapshot", "clone"]), 12),
        ("safe-run", with(&["--fence", "exclusive"]), 12),
    ];
    for (program, arguments, done) in cases {
        let make = || {
            let mut command = tests::binaries::command(program);
            // By the environment: what a command of somebody else is given comes last.
            command.args(&arguments).env("SAFE_RUN_REPO", snapshots.path()).env("DATABASE_URL", &url);
            command
        };
        at_every_limit(&database, &limit, &clean, done, 9, &make);
    }
    database.psql(&format!("REASSIGN OWNED BY {role} TO postgres"));
    cluster.psql(&format!("REASSIGN OWNED BY {role} TO postgres"));
}

#[test]
fn a_limit_is_met_before_anything_begins_or_fewer_jobs_do_it_postgresql_14() {
    a_limit_is_met_before_anything_begins_or_fewer_jobs_do_it(14);
}

#[test]
fn a_limit_is_met_before_anything_begins_or_fewer_jobs_do_it_postgresql_18() {
    a_limit_is_met_before_anything_begins_or_fewer_jobs_do_it(18);
}

/// max_connections, and the places in it that are reserved: for superusers, and from 16 on for who may use them.
#[test]
fn what_is_reserved_of_the_servers_connections_counts() {
    for major in cluster::ends() {
        let mut options =
            tests::Options::new().conf("max_connections = 7").conf("superuser_reserved_connections = 2");
        if major >= 16 {
            options = options.conf("reserved_connections = 2");
        }
        let cluster = Cluster::start(major, &options.conf("max_wal_senders = 0"));
        let database = small(&cluster, "ordinary");
        let snapshots = Snapshots::new();
        let url = cluster.url_as("ordinary", database.name());
        // 3 are left, or 5: a backup needs 4.
        let outcome = snapshots.run("backup", &url, &["create", "--jobs", "8"]);
        if major >= 16 {
            drop(outcome.fails(4, &["max_connections", "2 more connections", "was not changed"]));
            cluster.psql("GRANT pg_use_reserved_connections TO ordinary");
            drop(snapshots.run("backup", &url, &["create", "--jobs", "8"]).expect(0).says(&["of 8 jobs"]));
        } else {
            drop(outcome.expect(0).says(&["of 8 jobs"]));
        }
        drop(snapshots.run("backup", &cluster.url(database.name()), &["create", "--jobs", "8"]).expect(0));
        // A limit of the database holds for its owner too.
        cluster.psql(&format!("ALTER DATABASE \"{}\" CONNECTION LIMIT 3", database.name()));
        drop(snapshots.run("backup", &url, &["create"]).fails(4, &["CONNECTION LIMIT of the database"]));
    }
}
