//! SIGINT and SIGTERM at every stage: the documented exit code, the database as it was, and nothing left on the server.

use std::path::Path;
use std::time::{Duration, Instant};

use tests::{Cluster, Fingerprint, ProtectedRun, Running, until};

/// Each signal with the exit code that is promised for it.
const SIGNALS: [(&str, i32); 2] = [("INT", 130), ("TERM", 143)];

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

/// Waits until a statement that begins like this runs in the database.
#[track_caller]
fn until_running(run: &ProtectedRun, statement: &str) {
    let name = run.database.name();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND state = 'active' AND query LIKE '{statement}%'"
    );
    until(statement, || run.database.cluster().psql(&sql) != "0");
}

/// Sends the signal; it ends soon, with the code, and the database is as before.
#[track_caller]
fn ends(run: &ProtectedRun, running: Running, before: &Fingerprint, (signal, code): (&str, i32)) {
    let sent = Instant::now();
    running.signal(signal);
    let outcome = running.outcome().exits(code).never_says("UNKNOWN");
    assert!(sent.elapsed() < Duration::from_secs(60), "{:?} after SIG{signal}: {outcome}", sent.elapsed());
    run.assert_unchanged(before);
    run.run(&["recover"]).says("Nothing to recover");
}

#[test]
fn while_it_waits_for_locks() {
    for signal in SIGNALS {
        let run = run();
        run.migration("0001_a.sql", "DROP TABLE audit;\n");
        let before = run.fingerprint();
        let mut other = run.database.session();
        other.run("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE");
        let running = run.start(&["--lock-timeout", "60s"]);
        until_running(&run, "LOCK TABLE");
        ends(&run, running, &before, signal);
        other.run("COMMIT");
    }
}

#[test]
fn while_a_statement_of_the_migration_waits_for_a_lock() {
    for (sql, waits) in [
        // Known beforehand, and locked before the first statement.
        ("ALTER TABLE orders ADD status text;\n", "SET LOCAL lock_timeout"),
        ("DO $$ BEGIN EXECUTE 'ALTER TABLE orders ADD status text'; END $$;\n", "DO $$"),
    ] {
        let run = run();
        run.migration("0001_a.sql", sql);
        let before = run.fingerprint();
        // A reader is no obstacle to the fence, but to the ALTER TABLE.
        let mut reader = run.database.session();
        reader.run("BEGIN; SELECT FROM orders LIMIT 1");
        let running = run.start(&["--lock-timeout", "60s"]);
        until_running(&run, waits);
        ends(&run, running, &before, SIGNALS[0]);
    }
}

/// A client tool that says that it runs and then does not end.
fn stuck(run: &ProtectedRun, tool: &str) -> std::path::PathBuf {
    run.with_tool(tool, &format!("echo $$ > {tool}.pid\nexec sleep 600"))
}

#[track_caller]
fn is_gone(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let proc = Path::new("/proc").join(pid.trim());
    until("the tool is gone", || !proc.exists());
}

#[test]
fn in_the_snapshot() {
    for signal in SIGNALS {
        for arguments in [&[][..], &["--", "psql", "-c", "DROP TABLE audit"]] {
            let run = run();
            run.migration("0001_a.sql", "DROP TABLE audit;\n");
            let before = run.fingerprint();
            let mut command = run.command(arguments);
            command.env("SAFE_RUN_PG_BIN", stuck(&run, "pg_dump"));
            let running = Running::start(command);
            let pid = run.folder().join("pg_dump.pid");
            until("pg_dump runs", || std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
            ends(&run, running, &before, signal);
            is_gone(&pid);
        }
    }
}

#[test]
fn in_a_long_statement_of_a_migration() {
    for signal in SIGNALS {
        for major in tests::cluster::ends() {
            let run = ProtectedRun::shop_on(Cluster::shared(major));
            run.migration(
                "0001_a.sql",
                "DROP TABLE audit;\nSELECT setval('tickets', 3);\nSELECT pg_sleep(600);\n",
            );
            let before = run.fingerprint();
            let running = run.start(&[]);
            until_running(&run, "SELECT pg_sleep");
            ends(&run, running, &before, signal);
        }
    }
}

#[test]
fn in_a_long_statement_outside_of_a_transaction() {
    let run = run();
    run.migration("0001_a.sql", "-- safe-run: no-transaction\nDROP TABLE audit;\nSELECT pg_sleep(600);\n");
    let before = run.fingerprint();
    let running = run.start(&[]);
    until_running(&run, "SELECT pg_sleep");
    ends(&run, running, &before, SIGNALS[0]);
}

#[test]
fn in_the_checks() {
    for signal in SIGNALS {
        for in_a_transaction in [true, false] {
            let run = run();
            // The check of this constraint takes long as soon as the migration has put the brake on.
            run.database.psql(
                "CREATE TABLE brake (on_ bool);
                 CREATE FUNCTION slow(i int) RETURNS bool LANGUAGE plpgsql AS
                 'BEGIN IF EXISTS (SELECT FROM public.brake WHERE on_) THEN PERFORM pg_sleep(600); END IF; RETURN true; END';
                 ALTER TABLE audit ADD CHECK (slow(id)); INSERT INTO audit VALUES (1, 'x')",
            );
            let marker = if in_a_transaction { "" } else { "-- safe-run: no-transaction\n" };
            let sql = format!("{marker}UPDATE audit SET at = 'y';\nINSERT INTO brake VALUES (true);\n");
            run.migration("0001_a.sql", &sql);
            let before = run.fingerprint();
            let running = run.start(&["--level", "deep"]);
            let name = run.database.name();
            let sleeping = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'"
            );
            until("the checks sleep", || run.database.cluster().psql(&sleeping) != "0");
            ends(&run, running, &before, signal);
        }
    }
}

#[test]
fn while_a_command_works_which_gets_the_signal_too() {
    for (signal, code) in SIGNALS {
        let run = run();
        let before = run.fingerprint();
        let script = format!(
            "trap 'echo told > told; exit 9' {signal}; psql -Xqc 'DROP TABLE audit'; touch ready; while :; do sleep 0.05; done"
        );
        let running = run.start(&["--", "sh", "-c", &script]);
        until("the command has begun", || run.folder().join("ready").exists());
        ends(&run, running, &before, (signal, code));
        assert!(run.folder().join("told").exists(), "the command was not told");
    }
}

#[test]
fn while_a_statement_of_a_command_runs() {
    let run = run();
    let before = run.fingerprint();
    let running = run.start(&["--", "psql", "-Xqc", "DROP TABLE audit", "-c", "SELECT pg_sleep(600)"]);
    until_running(&run, "SELECT pg_sleep");
    ends(&run, running, &before, SIGNALS[0]);
}

#[test]
fn the_undo_goes_on_whatever_comes() {
    for (signal, _) in SIGNALS {
        for whole_group in [false, true] {
            let run = run();
            let before = run.fingerprint();
            let slow = "touch undoing\nwhile [ ! -e go ]; do sleep 0.02; done\nexec \"$REAL\" \"$@\"";
            let mut command = run.command(&["--", "sh", "-c", "psql -Xqc 'DROP TABLE audit'; exit 1"]);
            command.env("SAFE_RUN_PG_BIN", run.with_tool("pg_restore", slow));
            let running = Running::start(command);
            until("the undo runs", || run.folder().join("undoing").exists());
            if whole_group {
                running.signal_group(signal);
            } else {
                running.signal(signal);
            }
            // A second one changes nothing either.
            running.signal(signal);
            run.file("go", "");
            running.outcome().exits(12).says("RESTORED").says("An undo is running");
            run.assert_unchanged(&before);
        }
    }
}
