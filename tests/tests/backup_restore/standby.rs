//! A hot standby: a backup from it is as good as one from the primary, a conflict with replay is said with what to do,
//! and whatever has to write is refused at once.

use std::time::{Duration, Instant};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Options, Outcome, Running, Snapshots, fixtures, psql, until};

/// Comes back fresh, and that is announced; a test of its own looks at it.
const STALE: &str = "materialized view \"app.stale\"";

/// A primary and its standby, both of this test alone; the standby ends first.
struct Pair {
    standby: Cluster,
    primary: Cluster,
}

impl Pair {
    fn start(major: u32, standby_settings: &[&str]) -> Pair {
        let options = standby_settings.iter().fold(Options::new(), |options, line| options.conf(line));
        Pair::start_with(major, options)
    }

    fn start_with(major: u32, standby_options: Options) -> Pair {
        let primary =
            Cluster::start(major, &Options::new().conf("autovacuum = off").conf("synchronous_commit = on"));
        let options = standby_options.standby_of(&primary);
        Pair { standby: Cluster::start(major, &options), primary }
    }

    /// Waits until the standby shows everything that the primary has committed.
    fn catch_up(&self) {
        let marker = format!("marker_{}", self.primary.psql("SELECT pg_current_xact_id()"));
        self.primary.psql(&format!("CREATE TABLE {marker} ()"));
        let replayed = format!("SELECT to_regclass('{marker}') IS NOT NULL");
        until("the standby catches up", || self.standby.psql(&replayed) == "t");
    }

    /// A table whose rows are more than a connection's buffers hold, so that a stopped reader stops its COPY.
    fn wide(&self) -> Database<'_> {
        let database = self.primary.fresh_database("wide");
        database.psql(
            "CREATE TABLE wide (i int PRIMARY KEY, t text); CREATE TABLE other AS SELECT 1 AS one;
             INSERT INTO wide SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 50000) i",
        );
        self.catch_up();
        database
    }

    /// Starts a backup of `database` from the standby and stops it in the middle of the rows of `wide`.
    fn stopped_backup(&self, snapshots: &Snapshots, database: &Database, role: &str) -> Running {
        let url = self.standby.url_as(role, database.name());
        // Compression takes seconds, so that it is stopped in time.
        let arguments = ["create", "--jobs", "1", "--compress", "gzip:9"];
        let mut session = tests::Session::open(&self.standby.url("postgres"));
        let backup = Running::start(snapshots.command("backup", &url, &arguments));
        let copying =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%wide%' AND state = 'active'";
        until("the rows are being copied", || session.run(copying) == "1");
        backup.signal("STOP");
        assert_eq!(session.run(copying), "1", "stopped too late");
        backup
    }
}

/// How many numbers each logged sequence of `other` is ahead of the same one of `url`.
fn sequences_ahead(url: &str, other: &str) -> Vec<(String, i64)> {
    let list =
        "SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), increment_by
                FROM pg_sequences WHERE sequencename NOT LIKE 'unlogged%' ORDER BY 1";
    let read = |url: &str| -> Vec<(String, i64, i64)> {
        let parse = |line: &str| {
            let mut fields = line.rsplitn(3, '|');
            let (increment, last) = (fields.next().unwrap(), fields.next().unwrap());
            (fields.next().unwrap().to_owned(), last.parse().unwrap(), increment.parse().unwrap())
        };
        psql::run(url, list).lines().map(parse).collect()
    };
    let (here, there) = (read(url), read(other));
    assert!(here.len() > 3 && here.len() == there.len());
    here.into_iter()
        .zip(there)
        .map(|(a, b)| {
            assert_eq!(a.0, b.0);
            (a.0, (b.1 - a.1) / a.2)
        })
        .collect()
}

fn backup_of_the_standby_equals_the_primary(major: u32) {
    let pair = Pair::start(major, &[]);
    let database = pair.primary.fresh_database("all");
    fixtures::load_everything(&database);
    database.psql(
        "CREATE UNLOGGED TABLE app.unlogged_too (id serial PRIMARY KEY); INSERT INTO app.unlogged_too DEFAULT VALUES",
    );
    // Neither the rows nor the sequence of an unlogged table are on a standby, and the others may be ahead there.
    let absent = [STALE, "table \"app.unlogged", "sequence "];
    let before = fingerprint(&database).without(&absent);
    assert_eq!(database.psql("SELECT count(*) FROM app.unlogged"), "1");
    pair.catch_up();

    let snapshots = Snapshots::new();
    let standby_url = pair.standby.url(database.name());
    let checked = snapshots.run("backup", &standby_url, &["check"]).expect(0);
    assert!(checked.stdout.contains("hot standby"), "{}", checked.stdout);
    assert_eq!(
        checked.stdout.contains("PostgreSQL 14 has had its last release"),
        major == 14,
        "{}",
        checked.stdout
    );
    let announced = "a standby has no rows of them";
    let created = snapshots.run("backup", &standby_url, &["create"]).expect(0).says(&[
        "2 unlogged tables",
        announced,
        "a standby may show each up to 32 numbers ahead",
    ]);
    let manifest = snapshots.manifest(created.stdout.trim());
    assert!(manifest.replace(' ', "").contains("\"in_recovery\":true") && manifest.contains(announced));
    snapshots.run_offline("backup", &["verify", "latest"]).expect(0);

    let copy = format!("{}copy", database.name());
    snapshots.run("restore", &database.url(), &["latest", "--into", &copy]).expect(0).says(&[announced]);
    let url = pair.primary.url(&copy);
    before.assert_same(&fingerprint_without(&url, &[]).without(&absent));
    for (name, ahead) in sequences_ahead(&database.url(), &url) {
        assert!((0..=32).contains(&ahead), "{name} is {ahead} numbers ahead");
    }
    let rows = "SELECT (SELECT count(*) FROM app.unlogged), (SELECT count(*) FROM app.unlogged_too)";
    assert_eq!(psql::run(&url, rows), "0|0");
    // They are there to be written to; 14 has no unlogged sequences, and so keeps that one.
    let next = psql::run(&url, "INSERT INTO app.unlogged_too DEFAULT VALUES RETURNING id");
    assert_eq!(next == "1", major > 14, "{next}");
}

#[test]
fn a_backup_from_a_standby_equals_the_primary_postgresql_14() {
    backup_of_the_standby_equals_the_primary(14);
}

#[test]
fn a_backup_from_a_standby_equals_the_primary_postgresql_18() {
    backup_of_the_standby_equals_the_primary(18);
}

fn a_conflict_is_said_with_what_to_do(major: u32, role: &str) {
    let pair = Pair::start(major, &["max_standby_streaming_delay = 0"]);
    if role != "postgres" {
        // Who is no superuser reads alone, in one session.
        pair.primary.psql(&format!("CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data"));
    }
    for change in [
        "DELETE FROM wide WHERE i % 2 = 0; VACUUM wide",
        "DROP TABLE wide",
        "TRUNCATE wide",
        "ALTER TABLE wide ALTER i TYPE bigint",
        // Of a table that is not being read just now: only the session that holds the locks is in the way.
        "DROP TABLE other",
    ] {
        let database = pair.wide();
        let snapshots = Snapshots::new();
        let backup = pair.stopped_backup(&snapshots, &database, role);
        let conflicts = || pair.standby.log().matches("conflict with recovery").count();
        let earlier = conflicts();
        database.psql(change);
        // A session that is blocked sends nothing to the log before it may go on: then the time has to do.
        let patience = Instant::now() + Duration::from_secs(3);
        while conflicts() == earlier && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
        backup.signal("CONT");
        backup
            .outcome()
            .exits(4)
            .says("error: ")
            .says("conflict with recovery")
            .says("hint: ")
            .says("max_standby_streaming_delay")
            .says("hot_standby_feedback")
            .never_says("panicked");
        assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty(), "{change}");
    }
}

#[test]
fn a_conflict_with_replay_is_said_with_what_to_do_postgresql_14() {
    a_conflict_is_said_with_what_to_do(14, "reader");
}

#[test]
fn a_conflict_with_replay_is_said_with_what_to_do_postgresql_18() {
    a_conflict_is_said_with_what_to_do(18, "postgres");
}

#[test]
fn where_replay_waits_for_the_backup_it_is_complete_and_of_one_moment() {
    let pair = Pair::start(18, &["max_standby_streaming_delay = -1"]);
    // A DROP would queue its exclusive lock before sessions of ours that come later: that is exit 4, try again.
    let database = pair.wide();
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let backup = pair.stopped_backup(&snapshots, &database, "postgres");
    database.psql("DELETE FROM wide WHERE i % 2 = 0; VACUUM wide");
    std::thread::sleep(Duration::from_millis(300));
    backup.signal("CONT");
    backup.outcome().exits(0);
    before.assert_same(&fingerprint_without(&snapshots.restore_copy(&database, &[]), &[]));
}

#[test]
fn with_feedback_a_vacuum_on_the_primary_does_not_cancel_the_backup() {
    let settings =
        ["max_standby_streaming_delay = 0", "hot_standby_feedback = on", "wal_receiver_status_interval = 1s"];
    let pair = Pair::start(18, &settings);
    let database = pair.wide();
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let backup = pair.stopped_backup(&snapshots, &database, "postgres");
    // The hint names this setting: it has to be true. Feedback is sent once a second.
    let told = "SELECT backend_xmin IS NOT NULL FROM pg_stat_replication";
    until("the primary knows of the snapshot", || pair.primary.psql(told) == "t");
    std::thread::sleep(Duration::from_millis(1500));
    database.psql("DELETE FROM wide WHERE i % 2 = 0; VACUUM (TRUNCATE off) wide");
    pair.catch_up();
    backup.signal("CONT");
    backup.outcome().exits(0);
    before.assert_same(&fingerprint_without(&snapshots.restore_copy(&database, &[]), &[]));
}

#[test]
fn what_has_to_write_is_refused_on_a_standby_before_anything() {
    let pair = Pair::start(18, &[]);
    let database = pair.wide();
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let url = pair.standby.url(database.name());
    for target in [&["latest", "--into", "elsewhere"][..], &["latest", "--replace", "--yes"]] {
        snapshots
            .run("restore", &url, target)
            .fails(3, &["hot standby", "primary", "No database was changed."]);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("migrations")).unwrap();
    std::fs::write(folder.path().join("migrations/1_x.sql"), "CREATE TABLE x ()").unwrap();
    for arguments in [&[][..], &["--", "touch", "was-run"]] {
        let mut command = tests::binaries::command("safe-run");
        command.args(arguments).current_dir(folder.path()).env("DATABASE_URL", &url);
        Outcome::of(&mut command).fails(3, &["hot standby", "primary", "was not changed"]);
    }
    let names = tests::outcome::names_in(folder.path());
    assert_eq!(names, ["migrations"], "nothing is made and no command is run");
    // Looking is allowed.
    let mut check = tests::binaries::command("safe-run");
    check.arg("check").current_dir(folder.path()).env("DATABASE_URL", &url);
    Outcome::of(&mut check).expect(0);
    before.assert_same(&fingerprint(&database));
    assert_eq!(database.family(), [database.name()]);
}

/// One of our backups of a standby must not tell the standby's rows to be dead: sessions that import a snapshot with
/// overflowed subtransactions did that, before the minor releases of November 2026.
fn a_backup_leaves_the_rows_of_open_subtransactions(major: u32, role: &str, encoding: &str) {
    let waits = Options::new().conf("max_standby_streaming_delay = -1");
    // The build of 18 that can be had has no TLS.
    let is_encrypted = major < 18;
    let pair = Pair::start_with(major, if is_encrypted { waits.tls() } else { waits.tcp() });
    if role != "postgres" {
        pair.primary.psql(&format!("CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data"));
    }
    let options = format!("TEMPLATE template0 ENCODING '{encoding}'");
    let database = pair.primary.fresh_database_with("nested", &options);
    database.psql(
        "CREATE TABLE kept (i int PRIMARY KEY, t text); CREATE TABLE other (i int REFERENCES kept);
         CREATE TABLE \"häuser\" (\"größe\" text); INSERT INTO \"häuser\" VALUES ('weiß');
         CREATE VIEW both_tables AS SELECT kept.i, t FROM kept JOIN other USING (i);
         INSERT INTO kept SELECT i, repeat('x', 100) FROM generate_series(1, 300) i; INSERT INTO other VALUES (1)",
    );
    database.psql(&format!("GRANT SELECT ON pg_largeobject TO {role}; SELECT lo_from_bytea(7001, 'object')"));
    // Its rows, and the deletion of others, are visible to nobody while the backup reads.
    let mut open = tests::Session::open(&database.url());
    open.run("BEGIN; INSERT INTO kept VALUES (1001, 'before')");
    for i in 0..200 {
        open.run(&format!(
            "SAVEPOINT s{i}; INSERT INTO kept VALUES ({}, 'nested'); DELETE FROM kept WHERE i = {}",
            2001 + i,
            100 + i
        ));
    }
    // What commits later ends the log up to here, and is in the snapshot.
    database.psql("INSERT INTO kept VALUES (5001, 'after')");
    pair.catch_up();

    let snapshots = Snapshots::new();
    // Encrypted: what is lent to pg_dump goes through the same connection.
    let mode = if is_encrypted { "require" } else { "disable" };
    let url = format!("{}?sslmode={mode}", pair.standby.tcp_url(role, "127.0.0.1", database.name()));
    snapshots.run("backup", &url, &["create", "--table", "kept"]).expect(0).says(&["one session"]);
    snapshots.run("backup", &url, &["create", "--jobs", "4", "--check-foreign-keys"]).expect(0);
    let mut check = tests::binaries::command("safe-run");
    check.args(["check", "--level", "deep"]).env("DATABASE_URL", &url);
    Outcome::of(&mut check).expect(0);
    let before = snapshots.restore_copy(&database, &[]);
    assert_eq!(psql::run(&before, "SELECT count(*), max(i) FROM kept"), "301|5001");
    assert_eq!(psql::run(&before, "SELECT count(*) FROM both_tables"), "1");
    assert_eq!(psql::run(&before, "SELECT convert_from(lo_get(7001), 'UTF8')"), "object");

    open.run("COMMIT");
    pair.catch_up();
    let rows = "SELECT count(*), sum(i), count(*) FILTER (WHERE t = 'nested') FROM kept";
    let of_primary = database.psql(rows);
    assert!(of_primary.starts_with("302|") && of_primary.ends_with("|200"), "{of_primary}");
    assert_eq!(psql::run(&pair.standby.url(database.name()), rows), of_primary, "the standby's rows");
    let next = snapshots.run("backup", &url, &["create"]).expect(0);
    assert!(!next.stdout.trim().is_empty());
    let after = snapshots.restore_copy(&database, &[]);
    fingerprint(&database).assert_same(&fingerprint_without(&after, &[]));
}

#[test]
fn rows_of_open_subtransactions_survive_a_backup_of_the_standby_postgresql_14() {
    a_backup_leaves_the_rows_of_open_subtransactions(14, "postgres", "UTF8");
}

#[test]
fn rows_of_open_subtransactions_survive_a_backup_of_the_standby_postgresql_17() {
    a_backup_leaves_the_rows_of_open_subtransactions(17, "reader", "LATIN1");
}

#[test]
fn rows_of_open_subtransactions_survive_a_backup_of_the_standby_postgresql_18() {
    a_backup_leaves_the_rows_of_open_subtransactions(18, "postgres", "UTF8");
}
