//! Crashes: wherever the process dies, the next run refuses, and `safe-run recover` brings the database to the state
//! before or to the whole migration, never between. `safe_run_crash_points.rs` kills at every point; here is what it does not
//! look at.

use std::os::unix::process::ExitStatusExt;

use tests::protected_run::kill;
use tests::{Cluster, Fingerprint, Options, ProtectedRun, until};

/// What has to hold in the end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Before,
    Migrated,
}

const RESTORED: [&str; 3] = [
    "-c",
    // In several transactions, so that half of it stands when the process dies.
    "psql -Xqc 'DROP TABLE order_items' -c 'UPDATE orders SET total = 0' -c 'ALTER TABLE users ADD nick text'; exit $STATUS",
    "sh",
];

fn shop(major: u32) -> ProtectedRun<'static> {
    let run = ProtectedRun::shop(major);
    run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\nUPDATE orders SET status = 'new';\n")
        .migration(
            "0002_b.sql",
            "SELECT setval('tickets', 7);\nSELECT setval('tickets', 900);\nCREATE TABLE made (i int);\n",
        );
    run
}

/// `recover` ends it in the promised state, and a second one has nothing to do.
#[track_caller]
fn recovers(run: &ProtectedRun, before: &Fingerprint, end: End) {
    let id = run.runs().pop().unwrap();
    run.run(&["--lock-retries", "0"]).exits(3).says(&id).says("safe-run recover");
    run.run(&["recover"]).exits(0).says(&id);
    is_at(run, before, end);
    run.run(&["recover"]).exits(0).says("Nothing to recover");
    is_at(run, before, end);
}

#[track_caller]
fn is_at(run: &ProtectedRun, before: &Fingerprint, end: End) {
    match end {
        // The migration moves a sequence ahead, which is said and left.
        End::Before => {
            let ahead = ["sequence \"public.tickets\""];
            before.clone().without(&ahead).assert_same(&run.fingerprint().without(&ahead));
        }
        End::Migrated => assert_eq!(
            run.database.psql("SELECT count(*) FROM orders WHERE status = 'new'; SELECT count(*) FROM made; SELECT version FROM safe_run.migrations"),
            "100\n0\n0001\n0002"
        ),
    }
    run.assert_open();
}

macro_rules! in_a_transaction {
    ($($name:ident: $point:literal => $end:ident;)+) => { $(
        #[test]
        fn $name() {
            for major in tests::cluster::ends() {
                let run = shop(major);
                let before = run.fingerprint();
                run.crash($point, &[]);
                recovers(&run, &before, End::$end);
                if End::$end == End::Before {
                    run.run(&[]).exits(0).verdict("COMMITTED");
                    is_at(&run, &before, End::Migrated);
                }
            }
        }
    )+ };
}

in_a_transaction! {
    killed_after_the_last_migration: "safe-run.applied" => Before;
    killed_after_the_commit: "safe-run.after-commit" => Migrated;
}

/// Told to hold the fence, the recovery does so too, unless nothing had been done yet.
fn held(point: &str) {
    let run = shop(18);
    let before = run.fingerprint();
    let mut command =
        run.command(&[&["--fence", "exclusive", "--hold-fence", "--", "sh"], &RESTORED[..]].concat());
    command.env("STATUS", "1").env("SAFE_RUN_FAULT", point);
    let outcome = tests::Running::start(command).outcome();
    assert_eq!(outcome.status.signal(), Some(9), "{point} was not reached: {outcome}");
    run.run(&["recover"]).exits(0);
    if run.database.try_psql("SELECT 1").is_err() {
        run.run(&["release"]).exits(0).says("RELEASED");
    }
    is_at(&run, &before, End::Before);
    let leftovers: Vec<String> = run
        .others()
        .into_iter()
        .filter(|name| name.contains("_closed_") || name.contains("_hidden_"))
        .collect();
    assert_eq!(leftovers, Vec::<String>::new(), "after {point}");
}

macro_rules! with_a_held_fence {
    ($($name:ident: $point:literal;)+) => { $(
        #[test]
        fn $name() {
            held($point);
        }
    )+ };
}

with_a_held_fence! {
    killed_before_the_database_is_hidden: "safe-run.hiding";
    killed_when_the_empty_database_is_made: "safe-run.placeholder";
    killed_in_the_swap_that_hides: "restore.before-swap-commit";
    killed_after_the_swap_that_hides: "restore.after-swap-commit";
    killed_in_the_snapshot_of_the_hidden_database: "backup.copied";
    killed_before_the_command_on_the_hidden_database: "safe-run.applying";
    killed_when_the_undo_of_the_hidden_database_is_loaded: "restore.loaded";
    killed_after_the_undo_of_the_hidden_database: "safe-run.undone";
}

#[test]
fn killed_after_a_command_that_succeeded_but_before_its_checks_is_undone() {
    let run = shop(18);
    let before = run.fingerprint();
    let mut command = run.command(&["--", "psql", "-Xqc", "UPDATE orders SET total = 0"]);
    command.env("SAFE_RUN_FAULT", "safe-run.applied");
    assert_eq!(tests::Running::start(command).outcome().status.signal(), Some(9));
    recovers(&run, &before, End::Before);
}

#[test]
fn killed_while_a_long_statement_runs_on_the_server() {
    // Also with a name that does not fit into an application name beside the run's id.
    let database = Cluster::shared(18).fresh_database("a_very_long_name_of_a_database_that_people_do_have");
    let run = ProtectedRun::on(database);
    run.database.psql("CREATE TABLE t AS SELECT 1 AS i");
    run.migration("0001_a.sql", "DROP TABLE t;\nSELECT pg_sleep(600);\n");
    let before = run.fingerprint();
    let running = run.start(&["--allow-loss", "t"]);
    let name = run.database.name();
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND query = 'SELECT pg_sleep(600)'"
    );
    until("the migration sleeps", || run.database.cluster().psql(&sleeping) == "1");
    running.signal("KILL");
    assert_eq!(running.outcome().status.signal(), Some(9));
    // The server has not noticed yet.
    assert_eq!(run.database.cluster().psql(&sleeping), "1");
    run.run(&["recover"]).exits(0).says("rolled");
    run.assert_unchanged(&before);
    assert_eq!(run.database.cluster().psql(&sleeping), "0");
}

#[test]
fn killed_while_a_command_works_its_sessions_are_ended_before_the_undo() {
    let run = shop(18);
    let before = run.fingerprint();
    let running = run.start(&[
        "--",
        "sh",
        "-c",
        "echo $$ > pid; psql -Xqc 'DROP TABLE order_items' -c 'SELECT pg_sleep(600)'",
    ]);
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query = 'SELECT pg_sleep(600)'",
        run.database.name()
    );
    until("the command sleeps", || run.database.cluster().psql(&sleeping) == "1");
    running.signal("KILL");
    // The command outlives us, as it does when only safe-run is killed.
    let pid = std::fs::read_to_string(run.folder().join("pid")).unwrap();
    recovers(&run, &before, End::Before);
    assert_eq!(run.database.cluster().psql(&sleeping), "0");
    let _ = std::process::Command::new("sh").args(["-c", "kill -- -$0 2>/dev/null", pid.trim()]).status();
    drop(running);
}

#[test]
fn the_server_restarts_in_the_middle_of_a_migration() {
    let cluster = Cluster::start(18, &Options::new().durable());
    let run = ProtectedRun::shop_on(&cluster);
    run.migration("0001_a.sql", "DROP TABLE audit;\nSELECT pg_sleep(600);\n");
    let before = run.fingerprint();
    let running = run.start(&[]);
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    until("the migration sleeps", || cluster.psql(sleeping) == "1");
    // A backend that is killed makes the server restart, as after a crash.
    let pid = cluster.psql("SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'");
    kill("KILL", &pid);
    let outcome = running.outcome();
    assert!([4, 10].contains(&outcome.status.code().unwrap()), "{outcome}");
    let outcome = outcome.says("0001_a.sql:2").says("unchanged");
    // PostgreSQL itself lets sequences skip up to 32 values when it restarts after a crash.
    before.without(&["sequence "]).assert_same(&run.fingerprint().without(&["sequence "]));
    run.assert_open();
    drop(outcome);
    run.run(&["status"]).exits(30);
}

#[test]
fn recover_has_nothing_to_do_where_nothing_was_run() {
    let run = ProtectedRun::shop(18);
    run.migration("0001_a.sql", "SELECT 1;\n");
    run.run(&[]).exits(0);
    run.run(&["recover"]).exits(0).says("Nothing to recover");
}

/// A run whose undo is impossible: how it came to that, and what its fence is.
struct DeadEnd {
    what: &'static str,
    /// Arguments before the command.
    arguments: &'static [&'static str],
    /// What the command does beside its change, in a shell.
    does: &'static str,
    /// Where the process dies; nowhere, and it fails and can't undo.
    dies_at: Option<&'static str>,
    /// What is done to the run's folders afterwards, in a shell.
    after: &'static str,
}

const DAMAGE: &str = "for f in snapshots/snapshots/*/data/*; do echo broken > $f; done";
const GONE: &str = "rm -rf snapshots/snapshots/*";
const MANIFEST: &str = "for f in snapshots/snapshots/*/manifest.json; do echo broken > $f; done";
const JOURNAL: &str =
    "for f in snapshots/runs/*/journal.jsonl; do sed -i 's/.*\"applying\".*/garbage/' $f; done";
const CLONE: &str = "psql -Xqd postgres -tAc \"select datname from pg_database where starts_with(datname, '$SHOP') and datname <> '$SHOP' \
                     and datname not like '%hidden%' and datname not like '%closed%'\" | while read n; do psql -Xqd postgres -c \"DROP DATABASE \\\"$n\\\"\"; done";

const DEAD_ENDS: [DeadEnd; 11] = [
    DeadEnd { what: "a damaged snapshot", arguments: &[], does: DAMAGE, dies_at: None, after: "" },
    DeadEnd { what: "a snapshot that is gone", arguments: &[], does: GONE, dies_at: None, after: "" },
    DeadEnd {
        what: "a damaged snapshot behind an exclusive fence",
        arguments: &["--fence", "exclusive"],
        does: DAMAGE,
        dies_at: None,
        after: "",
    },
    DeadEnd {
        what: "a damaged snapshot and a fence that was to be held",
        arguments: &["--hold-fence"],
        does: DAMAGE,
        dies_at: None,
        after: "",
    },
    DeadEnd {
        what: "a clone that is gone",
        arguments: &["--snapshot", "clone"],
        does: CLONE,
        dies_at: None,
        after: "",
    },
    DeadEnd {
        what: "a clone that is gone and a damaged snapshot, behind an exclusive fence",
        arguments: &["--snapshot", "both", "--fence", "exclusive"],
        does: "",
        dies_at: Some("safe-run.applied"),
        after: "DAMAGE; CLONE",
    },
    DeadEnd {
        what: "killed, and the manifest is damaged",
        arguments: &[],
        does: "",
        dies_at: Some("safe-run.applied"),
        after: MANIFEST,
    },
    DeadEnd {
        what: "killed in the undo, and the snapshot is damaged",
        arguments: &[],
        does: "",
        dies_at: Some("restore.loaded"),
        after: DAMAGE,
    },
    DeadEnd {
        what: "killed before the swap of a hidden database, and the snapshot is gone",
        arguments: &["--fence", "exclusive"],
        does: "",
        dies_at: Some("safe-run.undoing"),
        after: GONE,
    },
    DeadEnd {
        what: "killed, and the journal has a line that can't be read",
        arguments: &[],
        does: "",
        dies_at: Some("safe-run.applied"),
        after: JOURNAL,
    },
    DeadEnd {
        what: "killed, and the snapshot is damaged, without a fence",
        arguments: &["--fence", "none", "--on-failure", "undo"],
        does: "",
        dies_at: Some("safe-run.applied"),
        after: GONE,
    },
];

/// However impossible the undo: `recover` says what state the database is in, and `recover --keep` opens and settles it.
fn there_is_a_way_out(major: u32, case: &DeadEnd) {
    let run = shop(major);
    let name = run.database.name();
    let resolve =
        |script: &str| script.replace("DAMAGE", DAMAGE).replace("CLONE", CLONE).replace("$SHOP", name);
    // Reached by a command that succeeds; the others in the undo of one that does not.
    let code = i32::from(case.dies_at != Some("safe-run.applied"));
    let script = format!("psql -Xqc 'DELETE FROM order_items'; {}\nexit {code}", resolve(case.does));
    let mut command = run.command(&[case.arguments, &["--", "sh", "-c", &script]].concat());
    if let Some(point) = case.dies_at {
        command.env("SAFE_RUN_FAULT", point);
    }
    let outcome = tests::Running::start(command).outcome();
    match case.dies_at {
        None => drop(outcome.exits(20).says("safe-run recover --keep")),
        Some(point) => assert_eq!(outcome.status.signal(), Some(9), "{}: {point}: {outcome}", case.what),
    }
    let after = std::process::Command::new("sh")
        .args(["-c", &resolve(case.after)])
        .current_dir(run.folder())
        .envs([("PGHOST", run.database.cluster().socket_dir().to_string_lossy().into_owned())])
        .envs([("PGPORT", run.database.cluster().port().to_string()), ("PGUSER", "postgres".to_owned())])
        .env("PATH", path_with_psql())
        .status();
    assert!(after.unwrap().success(), "{}", case.what);
    run.run(&["status"]).exits(20).says("did not finish").says("safe-run recover --keep");
    run.run(&["--lock-retries", "0"]).exits(3).says("safe-run recover --keep");
    run.run(&["release"]).exits(3).says("safe-run recover --keep");
    let refused = run.run(&["recover"]).exits(20).says("holds what the failed run left behind");
    drop(refused.says("safe-run recover --keep").never_says("was not changed").never_says("unchanged"));
    run.run(&["recover", "--undo"]).exits(20);
    run.run(&["recover", "--keep"]).exits(0).says("STOPPED").says("is left as the run left it");
    run.assert_open();
    assert_eq!(run.database.psql("SELECT count(*) FROM order_items; SELECT count(*) FROM orders"), "0\n100");
    let left: Vec<String> = run
        .others()
        .into_iter()
        .filter(|name| name.contains("_closed_") || name.contains("_hidden_"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "{}", case.what);
    run.run(&["recover"]).exits(0).says("Nothing to recover");
    run.run(&["status"]).exits(30);
    run.run(&[]).exits(0).verdict("COMMITTED");
}

fn path_with_psql() -> std::ffi::OsString {
    let psql = std::path::PathBuf::from(tests::psql::tool("psql").get_program());
    let mut path = psql.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

macro_rules! dead_ends {
    ($($name:ident: $major:literal, $cases:expr;)+) => { $(
        #[test]
        fn $name() {
            for case in &DEAD_ENDS[$cases] {
                eprintln!("{}", case.what);
                there_is_a_way_out($major, case);
            }
        }
    )+ };
}

dead_ends! {
    there_is_a_way_out_of_every_undo_that_failed_postgresql_14: 14, 0..5;
    there_is_a_way_out_of_every_undo_that_failed_postgresql_18: 18, 0..5;
    there_is_a_way_out_of_every_run_that_was_killed_postgresql_14: 14, 5..11;
    there_is_a_way_out_of_every_run_that_was_killed_postgresql_18: 18, 5..11;
}

#[test]
fn a_half_done_database_becomes_no_snapshot_in_silence() {
    let run = shop(18);
    let backup = |arguments: &[&str]| {
        let mut command = tests::binaries::command("backup");
        command.args(arguments).current_dir(run.folder()).env("DATABASE_URL", run.database.url());
        tests::Running::start(command).outcome()
    };
    // One that dies before it changes anything is in nobody's way.
    run.crash("safe-run.fenced", &["--", "psql", "-Xqc", "DELETE FROM order_items"]);
    drop(backup(&["create"]).exits(0));
    run.run(&["recover"]).exits(0);
    run.crash("safe-run.applied", &["--", "psql", "-Xqc", "DELETE FROM order_items"]);
    let id = run.runs().pop().unwrap();
    run.run(&["status"]).exits(20).says(&id);
    run.run(&["status", "--dir", "nowhere"]).exits(20).says(&id);
    drop(backup(&["create"]).exits(3).says(&id).says("safe-run recover").says("--despite-unfinished-run"));
    run.run(&["check", "--skip", "rows"]).says(&id).says("what is checked here may be half");
    // Another repository knows nothing of the run: the fence tells.
    let elsewhere = ["create", "--repo", "nightly"];
    drop(backup(&elsewhere).exits(0).says("behind the read-only fence of a run"));
    let half =
        backup(&["create", "--despite-unfinished-run"]).exits(0).says("may hold half of what that run did");
    let snapshot = half.stdout.trim().to_owned();
    drop(backup(&["list", "--verbose"]).exits(0).says(&format!("unfinished-run={id}")));
    let mut restore = tests::binaries::command("restore");
    restore.args(["latest", "--dry-run"]).current_dir(run.folder()).env("DATABASE_URL", run.database.url());
    let dry = tests::Running::start(restore).outcome().exits(0);
    drop(dry.says(&snapshot).says("may hold half of what that run did"));
    run.run(&["recover"]).exits(0);
    drop(backup(&["create"]).exits(0).never_says("half of what"));
    drop(backup(&elsewhere).exits(0).never_says("fence"));
    run.run(&["status"]).exits(30);
}

#[test]
fn without_its_repository_a_fence_is_named_with_the_sql_that_lifts_it() {
    for fence in ["read-only", "exclusive"] {
        let run = shop(18);
        run.crash("safe-run.applied", &["--fence", fence, "--", "psql", "-Xqc", "DELETE FROM order_items"]);
        std::fs::rename(run.folder().join("snapshots"), run.folder().join("elsewhere")).unwrap();
        let told = match fence {
            "read-only" => "RESET default_transaction_read_only",
            _ => "RENAME TO",
        };
        run.run(&["recover"]).exits(5).says("--repo").says(told);
        run.run(&["recover", "--repo", "elsewhere"]).exits(0);
        run.assert_open();
    }
}
