//! kill -9, SIGINT and SIGTERM at every step: what is listed is whole, the live database is in one of its two states and
//! never between, and what was left behind is swept or named.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Outcome, Snapshots, fixtures};

fn shop<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    fixtures::load_shop(&database, 0.004);
    database
}

fn killed_at(snapshots: &Snapshots, program: &str, database: &Database, point: &str, arguments: &[&str]) {
    let mut command = snapshots.command(program, &database.url(), arguments);
    // -9: the signal KILL.
    Outcome::of(command.env("SAFE_RUN_FAULT", point)).expect(-9);
    wait_until("sessions of the killed program are gone", || our_sessions(database) == 0);
}

fn our_sessions(database: &Database) -> u32 {
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, '$NAME') AND pid <> pg_backend_pid() \
                AND (starts_with(application_name, 'backup') OR starts_with(application_name, 'restore') \
                OR starts_with(application_name, 'pg_'))";
    database.cluster().psql(&ours.replace("$NAME", database.name())).parse().unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_backup_that_is_killed_at_any_point_leaves_only_whole_snapshots() {
    let database = shop(Cluster::shared(18), "kill");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let mut whole = vec![snapshots.create(&database, &[])];
    for (point, published) in [
        ("backup.begun", false),
        ("backup.copied", false),
        ("backup.before-manifest", false),
        ("backup.before-rename", false),
        ("backup.after-rename", true),
    ] {
        killed_at(&snapshots, "backup", &database, point, &["create"]);
        let new = snapshots.ids().len() - whole.len();
        assert_eq!(new, usize::from(published), "{point}");
        assert_eq!(snapshots.leftovers().len(), usize::from(!published), "{point}");
        let listed = snapshots.run_offline("backup", &["list"]).expect(0);
        assert_eq!(listed.stdout.lines().count(), 1 + snapshots.ids().len(), "{point}: {}", listed.stdout);
        snapshots.run_offline("backup", &["verify", "--all"]).expect(0);
        // The next one sweeps.
        snapshots.create(&database, &[]);
        assert_eq!(snapshots.leftovers(), Vec::<String>::new(), "{point}");
        whole = snapshots.ids();
    }
    before.assert_same(&fingerprint(&database));
    let url = snapshots.restore_copy(&database, &[]);
    before.assert_same(&fingerprint_without(&url, &[]));
}

#[test]
fn a_restore_that_is_killed_at_any_point_leaves_the_live_database_in_one_of_its_two_states() {
    let database = shop(Cluster::shared(18), "killr");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    for (point, swapped) in [
        ("restore.made", false),
        ("restore.created", false),
        ("restore.loaded", false),
        ("restore.before-complete", false),
        ("restore.before-swap-commit", false),
        ("restore.after-swap-commit", true),
    ] {
        database.psql("DELETE FROM order_items");
        let changed = fingerprint(&database);
        killed_at(&snapshots, "restore", &database, point, &["latest", "--replace", "-y"]);
        wait_until("the live name can be connected to", || database.try_psql("SELECT 1").is_ok());
        if swapped { &before } else { &changed }.assert_same(&fingerprint(&database));
        // What it left is one database whose name says what it is.
        let left: Vec<String> =
            database.family().into_iter().filter(|name| name != database.name()).collect();
        let kind = if swapped { "_replaced_" } else { "_restored_" };
        assert!(left.len() == 1 && left[0].contains(kind), "{point}: {left:?}");
        // Names hold the second: the next restore is in another one.
        let second = database.cluster().psql("SELECT date_trunc('second', now())");
        wait_until("the next second", || {
            database.cluster().psql("SELECT date_trunc('second', now())") != second
        });
        let again = snapshots
            .run("restore", &database.url(), &["latest", "--replace", "-y", "--drop-replaced"])
            .expect(0);
        if !swapped {
            // Before the swap it is complete.
            let what = match point {
                "restore.before-swap-commit" => "was made by an earlier restore",
                _ => {
                    "is half-made, by a restore that is still at work or was killed; only if it was killed: DROP DATABASE"
                }
            };
            let named = format!("\"{}\" {what}", left[0]);
            assert!(again.stderr.contains(&named), "{point}: not named: {left:?}\n{}", again.stderr);
        }
        before.assert_same(&fingerprint(&database));
        database.cluster().psql(&format!("DROP DATABASE \"{}\"", left[0]));
        assert_eq!(database.family(), [database.name()], "{point}");
    }
}

/// A database that is not complete never looks as if it were.
#[test]
fn what_a_killed_restore_into_a_name_left_says_that_it_is_half_made() {
    for major in tests::cluster::ends() {
        let database = shop(Cluster::shared(major), "killi");
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let into = format!("{}_into", database.name());
        let arguments = ["latest", "--into", &into];
        let comment = || {
            let of = "SELECT COALESCE(shobj_description(oid, 'pg_database'), 'none') FROM pg_database WHERE datname";
            database.cluster().psql(&format!("{of} = '{into}'"))
        };
        for point in ["restore.made", "restore.created", "restore.loaded", "restore.before-complete"] {
            killed_at(&snapshots, "restore", &database, point, &arguments);
            let refused = snapshots.run("restore", &database.url(), &arguments);
            let said = "half-made by a restore that is still at work or was killed (only if it was killed: DROP DATABASE";
            refused.fails(3, &[&format!("\"{into}\" exists already, {said} \"{into}\")")]);
            if point == "restore.loaded" {
                let of_half = Snapshots::new();
                let url = database.cluster().url(&into);
                let made = of_half.run("backup", &url, &["create"]).expect(0);
                assert!(made.stderr.contains("does not keep the comment"), "{}", made.stderr);
                of_half.run("restore", &url, &["latest", "--replace", "-y", "--drop-replaced"]).expect(0);
                assert_eq!(comment(), "none", "the mark is not the restored database's");
            }
            database.cluster().psql(&format!("DROP DATABASE {into}"));
        }
        snapshots.run("restore", &database.url(), &arguments).expect(0);
        assert_eq!(comment(), "none");
        let open =
            format!("SELECT datconnlimit || datallowconn::text FROM pg_database WHERE datname = '{into}'");
        assert_eq!(database.cluster().psql(&open), "-1true");
        let refused = snapshots.run("restore", &database.url(), &arguments).expect(3);
        assert!(!refused.stderr.contains("half-made"), "{}", refused.stderr);
    }
}

struct Running {
    child: Child,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    fn signal(self, name: &str) -> Outcome {
        Outcome::of(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()])).expect(0);
        let output = self.child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

#[test]
fn a_signal_during_a_backup_ends_it_in_order_and_leaves_nothing() {
    let database = Cluster::shared(18).fresh_database("sigb");
    fixtures::load_shop(&database, 0.2);
    let before = fingerprint(&database);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let snapshots = Snapshots::new();
        // Slow enough to be caught in the middle: one session, and the most work for each byte.
        let arguments = ["create", "--jobs", "1", "--compress", "zstd:19"];
        let running = Running::start(snapshots.command("backup", &database.url(), &arguments));
        wait_until("a chunk is being written", || {
            snapshots.leftovers().first().is_some_and(|partial| {
                let data = snapshots.path().join("partial").join(partial).join("data");
                tests::outcome::names_in(&data).len() > 1
            })
        });
        let outcome = running.signal(signal).expect(code);
        assert!(outcome.stderr.contains("Stopping"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("was not changed"), "{}", outcome.stderr);
        assert_eq!(snapshots.ids(), Vec::<String>::new());
        assert_eq!(snapshots.leftovers(), Vec::<String>::new());
        wait_until("no session of ours is left", || our_sessions(&database) == 0);
    }
    before.assert_same(&fingerprint(&database));
}

#[test]
fn a_signal_during_a_restore_ends_it_in_order_and_drops_the_staged_database() {
    let database = Cluster::shared(18).fresh_database("sigr");
    fixtures::load_shop(&database, 0.2);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    database.psql("DELETE FROM order_items");
    let before = fingerprint(&database);
    for (signal, code, phase) in [
        ("INT", 130, "COPY %"),
        ("TERM", 143, "COPY %"),
        ("INT", 130, "ALTER TABLE %"),
        ("TERM", 143, "CREATE INDEX %"),
    ] {
        let command =
            snapshots.command("restore", &database.url(), &["latest", "--replace", "-y", "--jobs", "1"]);
        let mut running = Running::start(command);
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, '{}') AND datname <> '{}' AND query LIKE '{phase}'",
            database.name(),
            database.name()
        );
        wait_until(phase, || {
            assert!(running_still(&mut running), "it ended before {phase} was seen");
            database.cluster().psql(&query) != "0"
        });
        running.signal(signal).expect(code).says(&["Stopping", "was not changed"]);
        assert_eq!(database.family(), [database.name()], "{signal} during {phase}");
        wait_until("no session of ours is left", || our_sessions(&database) == 0);
        before.assert_same(&fingerprint(&database));
    }
}

fn running_still(running: &mut Running) -> bool {
    running.child.try_wait().unwrap().is_none()
}

#[test]
fn a_backup_whose_locks_are_lost_is_not_published() {
    let database = Cluster::shared(18).fresh_database("unheld");
    database.psql(
        "CREATE TABLE wide (i int, t text);
         INSERT INTO wide SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 50000) i",
    );
    let snapshots = Snapshots::new();
    let arguments = ["create", "--jobs", "1", "--compress", "gzip:9"];
    let mut session = database.session();
    let backup = tests::Running::start(snapshots.command("backup", &database.url(), &arguments));
    let copying = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%wide%' AND state = 'active'
                   AND datname = current_database()";
    tests::until("the rows are being copied", || session.run(copying) == "1");
    backup.signal("STOP");
    // The workers read on in the same snapshot, but a TRUNCATE would now empty what they have not read.
    let end_holder = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                      WHERE datname = current_database() AND query LIKE '%pg_export_snapshot%' AND state LIKE 'idle%'";
    assert_eq!(session.run(end_holder), "1");
    backup.signal("CONT");
    backup.outcome().exits(1).says("error: ").says("hint: ").never_says("panicked");
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
}
