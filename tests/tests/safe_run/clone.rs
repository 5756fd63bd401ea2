//! The clone: an undo that is a swap of names, in every way that it can be needed, in the way, or interrupted.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::oracle::fingerprint_without;
use tests::{Cluster, Fingerprint, Options, ProtectedRun, Running, psql, until};

/// In several transactions. Nothing of the shop is left, nor of what belongs to the database itself.
const WRECKS: &str = "psql -Xq -v ON_ERROR_STOP=1 -c 'DROP SCHEMA public CASCADE' -c 'SELECT lo_unlink(900001)' \
    -c \"ALTER DATABASE \\\"$PGDATABASE\\\" SET work_mem = '1MB'\" -c \"ALTER DATABASE \\\"$PGDATABASE\\\" CONNECTION LIMIT 3\" \
    -c \"COMMENT ON DATABASE \\\"$PGDATABASE\\\" IS 'wrecked'\" -c \"GRANT ALL ON DATABASE \\\"$PGDATABASE\\\" TO PUBLIC\" > wrecked || exit 9; exit $STATUS";

/// The shop, with an owner of its own and settings of all kinds.
fn shop(cluster: &Cluster) -> ProtectedRun<'_> {
    let run = ProtectedRun::shop_on(cluster);
    let name = run.database.name();
    let role = format!("owner_of_{name}");
    cluster.psql(&format!(
        "CREATE ROLE {role}; ALTER DATABASE {name} OWNER TO {role}; GRANT CREATE ON DATABASE {name} TO pg_monitor;
         ALTER ROLE postgres IN DATABASE {name} SET search_path = public, pg_catalog;
         ALTER DATABASE {name} SET app.words = 'it''s, \"so\"'"
    ));
    run
}

/// What is left of [`shop`] on the server.
fn drop_role(cluster: &Cluster, run: ProtectedRun<'_>) {
    let role = format!("owner_of_{}", run.database.name());
    drop(run);
    cluster.psql(&format!("DROP ROLE {role}"));
}

fn command(run: &ProtectedRun<'_>, flags: &[&str], script: &str, status: &str) -> std::process::Command {
    let mut command = run.command(&[flags, &["--", "sh", "-c", script]].concat());
    command.env("STATUS", status);
    command
}

fn clones(run: &ProtectedRun<'_>) -> Vec<String> {
    run.others().into_iter().filter(|name| !name.contains("_replaced_")).collect()
}

/// Somebody holds a lock on the clone, as a server that never answers would keep its DROP waiting.
#[test]
fn the_end_of_a_clone_waits_for_a_time_and_says_for_what() {
    let run = ProtectedRun::shop(18);
    let script = r#"clone=$(psql -XAtd postgres -c "SELECT datname FROM pg_database WHERE datname LIKE '$PGDATABASE%clone%'")
        (echo "BEGIN; COMMENT ON DATABASE \"$clone\" IS 'held'; SELECT pg_sleep(9)" | psql -Xq -d postgres >/dev/null 2>&1 &)
        psql -Xqc 'CREATE TABLE done ()'; sleep 1"#;
    let mut command = command(&run, &["--snapshot", "clone"], script, "0");
    command.env("SAFE_RUN_FAULT_NUMBER", "safe-run.drop-patience=2");
    let ended = Running::start(command).outcome().exits(0).says("to drop the clone").says("was not dropped");
    drop(ended.says("the server was at it for 2 s"));
    run.assert_open();
    assert_eq!(run.database.psql("SELECT count(*) FROM done"), "0");
    assert_eq!(clones(&run).len(), 1, "the clone is left, and named");
}

#[test]
fn what_wrecks_everything_is_undone_by_the_clone() {
    let (clone, both) = (&["--snapshot", "clone"][..], &["--snapshot", "both", "--fence", "exclusive"][..]);
    for (major, flags) in [(14, clone), (14, both), (15, clone), (18, both), (18, clone)] {
        let run = shop(Cluster::shared(major));
        let before = run.fingerprint();
        let outcome =
            Running::start(command(&run, flags, WRECKS, "7")).outcome().exits(12).verdict("RESTORED");
        let outcome =
            outcome.says("its clone, made behind the fence").says("the failed state is kept as database");
        drop(outcome.never_says("differs: ").says("is as it was before"));
        run.assert_unchanged(&before);
        assert_eq!(clones(&run), Vec::<String>::new());
        let kept = run.others().pop().expect("the failed database is kept");
        let tables = "SELECT count(*) FROM pg_namespace WHERE nspname = 'public'";
        assert_eq!(psql::run(&run.database.cluster().url(&kept), tables), "0");
        drop_role(Cluster::shared(major), run);
    }
}

#[test]
fn who_works_on_the_database_as_a_whole_is_waited_for_and_then_nothing_was_changed() {
    let run = ProtectedRun::shop(18);
    let before = run.fingerprint();
    let mut other = psql::Session::open(&run.database.cluster().url("postgres"));
    other.run(&format!("BEGIN; COMMENT ON DATABASE {} IS 'the shop'", run.database.name()));
    let outcome = run.run(&["--snapshot", "clone", "--", "true"]).exits(4).verdict("NOT RUN");
    drop(outcome.says("could not copy the database").says("hint: ").says("unchanged"));
    other.run("ROLLBACK");
    run.assert_unchanged(&before);
    assert_eq!(run.others(), Vec::<String>::new());
    run.run(&["recover"]).exits(0).says("Nothing to recover");
}

#[test]
fn the_clone_goes_after_a_success_or_stays_as_it_was_told_to() {
    for major in tests::cluster::ends() {
        let run = shop(Cluster::shared(major));
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
        run.run(&["--snapshot", "clone"])
            .exits(0)
            .verdict("COMMITTED")
            .says("the clone of the state before was dropped");
        assert_eq!(run.others(), Vec::<String>::new());
        // One transaction, and another, whose result the checks refuse.
        let before = run.fingerprint();
        run.migration("0002_b.sql", "DELETE FROM order_items;\n");
        run.run(&["--snapshot", "clone"]).exits(13).verdict("RESTORED").says("order_items");
        run.assert_unchanged(&before);
        run.migration("0002_b.sql", "CREATE TABLE b (i int);\nSELECT 1 / 0;\n");
        run.run(&["--snapshot", "clone"]).exits(10).verdict("ROLLED BACK");
        run.assert_unchanged(&before);
        assert_eq!(clones(&run), Vec::<String>::new());
        run.migration("0002_b.sql", "CREATE TABLE b (i int);\n");
        run.run(&["--snapshot", "clone", "plan"]).says("a swap with the database's clone");
        run.run(&["--snapshot", "clone", "--keep-clone"]).exits(0).says("is kept").says("DROP DATABASE");
        let kept = clones(&run).pop().expect("the clone is kept");
        let cluster = run.database.cluster();
        assert!(psql::try_run(&cluster.url(&kept), "SELECT 1").is_err(), "the clone is open");
        cluster.psql(&format!("ALTER DATABASE {kept} ALLOW_CONNECTIONS true CONNECTION LIMIT -1"));
        let itself = ["database"];
        before
            .clone()
            .without(&itself)
            .assert_same(&fingerprint_without(&cluster.url(&kept), &[]).without(&itself));
        drop_role(Cluster::shared(major), run);
    }
}

#[test]
fn no_row_that_a_writer_was_told_is_stored_is_lost_by_the_clone() {
    for (major, fence) in [(14, "read-only"), (18, "read-only"), (18, "exclusive")] {
        let run = ProtectedRun::shop(major);
        run.database.psql("CREATE TABLE told (i int)");
        let done = AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut told = 0u32;
                        while !done.load(Ordering::Relaxed) {
                            // They come back at once, in a session of its own or for as long as they may.
                            let Ok(url) = std::panic::catch_unwind(|| run.database.url()) else { continue };
                            told += u32::from(psql::try_run(&url, "INSERT INTO told VALUES (1)").is_ok());
                        }
                        told
                    })
                })
                .collect();
            until("the writers write", || run.database.psql("SELECT count(*) FROM told") != "0");
            let outcome =
                Running::start(command(&run, &["--snapshot", "clone", "--fence", fence], WRECKS, "7"))
                    .outcome();
            done.store(true, Ordering::Relaxed);
            let told: u32 = writers.into_iter().map(|writer| writer.join().expect("it does not panic")).sum();
            drop(outcome.exits(12).verdict("RESTORED"));
            told
        });
        assert_eq!(run.database.psql("SELECT count(*) FROM told"), told.to_string(), "{major} {fence}");
        assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "300");
    }
}

/// Wherever it dies, `recover` brings back the state before, or the result, and leaves no clone.
#[track_caller]
fn recovers(run: &ProtectedRun<'_>, before: &Fingerprint) {
    let id = run.runs().pop().unwrap();
    run.run(&["--lock-retries", "0", "--", "true"]).exits(3).says(&id).says("safe-run recover");
    run.run(&["recover"]).exits(0).says(&id);
    run.assert_unchanged(before);
    assert_eq!(clones(run), Vec::<String>::new());
    run.run(&["recover"]).exits(0).says("Nothing to recover");
}

fn dies(run: &ProtectedRun<'_>, point: &str, flags: &[&str], status: &str) {
    let mut command = command(run, flags, WRECKS, status);
    command.env("SAFE_RUN_FAULT", point);
    let outcome = Running::start(command).outcome();
    assert_eq!(outcome.status.signal(), Some(9), "{point} was not reached: {outcome}");
}

#[test]
fn killed_in_the_swap_with_the_clone_and_in_its_recovery() {
    for (major, point) in [(14, "restore.before-swap-commit"), (18, "restore.after-swap-commit")] {
        let run = shop(Cluster::shared(major));
        let before = run.fingerprint();
        dies(&run, point, &["--snapshot", "both"], "7");
        recovers(&run, &before);
        dies(&run, "safe-run.undoing-by-clone", &["--snapshot", "clone"], "7");
        for point in ["safe-run.recovering", point, "safe-run.recovered"] {
            run.crash(point, &["recover"]);
        }
        recovers(&run, &before);
        drop_role(Cluster::shared(major), run);
    }
}

#[test]
fn killed_when_the_changes_stand_the_clone_goes_or_stays() {
    for keep in [false, true] {
        let run = ProtectedRun::shop(18);
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
        let flags: &[&str] =
            if keep { &["--snapshot", "clone", "--keep-clone"] } else { &["--snapshot", "clone"] };
        run.crash("safe-run.stands", flags);
        assert_eq!(clones(&run).len(), 1);
        if !keep {
            run.crash("safe-run.clone-dropped", &["recover"]);
        }
        run.run(&["recover"]).exits(0).says("COMMITTED");
        assert_eq!(clones(&run).len(), usize::from(keep));
        assert_eq!(run.database.psql("SELECT version FROM safe_run.migrations"), "0001");
        run.assert_open();
    }
}

#[test]
fn a_signal_or_a_kill_while_the_server_copies_changes_nothing() {
    // Who holds pg_database stops CREATE DATABASE behind its lock on the source: the server is this test's alone.
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &Options::new());
        let run = ProtectedRun::shop_on(&cluster);
        let before = run.fingerprint();
        for signal in ["INT", "KILL"] {
            let mut holder = psql::Session::open(&cluster.url("postgres"));
            let running =
                Running::start(command(&run, &["--snapshot", "clone", "--fence", "read-only"], WRECKS, "7"));
            // Fences write to another table; the lock must only be there when the copy begins.
            holder.run("BEGIN; LOCK TABLE pg_database IN SHARE MODE");
            until("the server is asked to copy", || {
                cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'CREATE DATABASE%' AND wait_event_type = 'Lock'") == "1"
            });
            running.signal(signal);
            let outcome = running.outcome();
            holder.run("COMMIT");
            if signal == "INT" {
                outcome.exits(130).says("interrupted");
                run.run(&["recover"]).says("Nothing to recover");
            } else {
                assert_eq!(outcome.status.signal(), Some(9), "{outcome}");
                run.run(&["recover"]).exits(0).says("NOT RUN");
            }
            run.assert_unchanged(&before);
            assert_eq!(run.others(), Vec::<String>::new(), "after SIG{signal}");
        }
    }
}

#[test]
fn a_clone_that_somebody_opened_is_not_trusted() {
    let opens = format!(
        "psql -Xqd postgres -c \"ALTER DATABASE $(psql -XAtc \"SELECT datname FROM pg_database WHERE datname LIKE '%_clone_%' AND starts_with(datname, current_database())\") ALLOW_CONNECTIONS true\"; {WRECKS}"
    );
    let run = ProtectedRun::shop(18);
    let before = run.fingerprint();
    let flags = ["--snapshot", "both"];
    let outcome = Running::start(command(&run, &flags, &opens, "7")).outcome().exits(12).verdict("RESTORED");
    drop(outcome.says("somebody has opened it").says("restored from snapshot"));
    run.assert_unchanged(&before);
    assert_eq!(clones(&run).len(), 1, "not ours to drop any more");
    let run = ProtectedRun::shop(14);
    let outcome = Running::start(command(&run, &["--snapshot", "clone"], &opens, "7")).outcome().exits(20);
    drop(outcome.says("somebody has opened it").says("safe-run recover"));
    run.run(&["recover"]).exits(20).says("somebody has opened it").says("hint: ");
    // Opened and looked at, it may be closed again.
    let clone = clones(&run).pop().unwrap();
    let cluster = run.database.cluster();
    cluster.psql(&format!("ALTER DATABASE {clone} ALLOW_CONNECTIONS false"));
    let mark = cluster.psql(&format!(
        "SELECT quote_literal(shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname = '{clone}'"
    ));
    cluster.psql(&format!("COMMENT ON DATABASE {clone} IS NULL"));
    run.run(&["recover"]).exits(20).says("somebody took its comment away").says("hint: Look into it by hand");
    cluster.psql(&format!("COMMENT ON DATABASE {clone} IS {mark}"));
    run.run(&["recover"]).exits(0).says("RESTORED");
    assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "300");
    run.assert_open();
}

#[test]
fn what_can_not_be_cloned_is_refused_before_anything_is_changed() {
    let cluster =
        Cluster::start(18, &Options::new().conf("wal_level = logical\nmax_prepared_transactions = 2"));
    let run = ProtectedRun::shop_on(&cluster);
    let before = run.fingerprint();
    let name = run.database.name().to_owned();
    let mut other = run.database.session();
    let refuses = |says: &str| {
        run.run(&["--snapshot", "clone", "--", "psql", "-c", "SELECT 1"])
            .exits(3)
            .says(says)
            .says("--snapshot file");
        assert_eq!(run.others(), Vec::<String>::new());
        run.run(&["recover"]).exits(0).says("Nothing to recover");
    };
    run.database.psql("SELECT pg_create_logical_replication_slot('feed', 'test_decoding')");
    refuses("replication slot feed");
    run.database.psql("SELECT pg_drop_replication_slot('feed'); BEGIN; UPDATE users SET name = name; PREPARE TRANSACTION 'queue'");
    refuses("prepared transaction queue");
    run.database.psql(&format!("ROLLBACK PREPARED 'queue'; ALTER DATABASE {name} IS_TEMPLATE true"));
    refuses("template");
    run.database.psql(&format!(
        "ALTER DATABASE {name} IS_TEMPLATE false; CREATE ROLE weak LOGIN; ALTER DATABASE {name} OWNER TO weak"
    ));
    let mut weak = run.command(&["--snapshot", "clone", "--", "psql", "-c", "SELECT 1"]);
    weak.env("DATABASE_URL", cluster.url_as("weak", &name));
    Running::start(weak).outcome().exits(3).says("CREATEDB");
    // Nobody's session was ended in vain.
    assert_eq!(other.run("SELECT 1"), "1");
    run.database.psql(&format!("ALTER DATABASE {name} OWNER TO postgres"));
    run.assert_unchanged(&before);
    for flags in [
        &["--snapshot", "clone", "--fence", "none", "--", "true"][..],
        &["--snapshot", "both", "--fence", "lock"],
        &["--keep-clone", "--", "true"],
        &["--snapshot", "clone", "--snapshot-only"],
    ] {
        run.run(flags).exits(2).says("hint: ");
    }
}

#[test]
fn a_clone_in_other_tablespaces_is_whole() {
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &Options::new());
        for name in ["home", "aside"] {
            let folder = cluster.data_dir().parent().unwrap().join(format!("space {name}"));
            std::fs::create_dir(&folder).unwrap();
            let data = std::fs::metadata(cluster.data_dir()).unwrap();
            use std::os::unix::fs::{MetadataExt, chown};
            chown(&folder, Some(data.uid()), Some(data.gid())).unwrap();
            cluster.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()));
        }
        let run =
            ProtectedRun::on(cluster.fresh_database_with("placed", "TEMPLATE template0 TABLESPACE home"));
        run.database.psql(
            "CREATE TABLE here (i int); INSERT INTO here SELECT generate_series(1, 1000);
             CREATE TABLE there (i int PRIMARY KEY USING INDEX TABLESPACE pg_default) TABLESPACE aside;
             INSERT INTO there SELECT generate_series(1, 5000); CREATE UNLOGGED TABLE light AS SELECT 7 AS i",
        );
        let before = run.fingerprint();
        let script = "psql -Xqc 'DROP TABLE here, light' -c 'TRUNCATE there'; exit 1";
        Running::start(command(&run, &["--snapshot", "clone"], script, "1"))
            .outcome()
            .exits(12)
            .verdict("RESTORED");
        run.assert_unchanged(&before);
        let aside = "SELECT count(*) FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE spcname = 'aside' AND relname = 'there'";
        assert_eq!(run.database.psql(aside), "1");
    }
}

#[test]
fn a_clone_that_takes_long_to_go_is_said_and_waited_for() {
    let run = ProtectedRun::shop(18);
    let cluster = run.database.cluster();
    let running = run.start(&["--snapshot", "clone", "--", "psql", "-Xqc", "SELECT pg_sleep(3)"]);
    let list = format!(
        "SELECT datname FROM pg_database WHERE starts_with(datname, '{}_clone_') AND NOT datallowconn",
        run.database.name()
    );
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query = 'SELECT pg_sleep(3)'",
        run.database.name()
    );
    until("the command sleeps", || cluster.psql(&sleeping) == "1");
    let clone = cluster.psql(&list);
    // Whoever describes a database keeps it from being dropped.
    let mut session = tests::Session::open(&cluster.url("postgres"));
    session.run(&format!("BEGIN; COMMENT ON DATABASE \"{clone}\" IS 'looked at'"));
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP DATABASE%{clone}%'"
    );
    until("the clone is being dropped", || cluster.psql(&waiting) == "1");
    std::thread::sleep(std::time::Duration::from_secs(6));
    session.run("ROLLBACK");
    running.outcome().exits(0).says("waiting for").says(&format!("to drop the clone \"{clone}\""));
    assert_eq!(cluster.psql(&list), "");
    run.assert_open();
}

/// Asking about a key that the run made begins no savepoint where there is no transaction.
#[test]
fn checks_behind_a_clone_leave_no_error_in_the_servers_log() {
    let cluster = Cluster::start(18, &Options::new());
    let run = ProtectedRun::shop_on(&cluster);
    let sql = "ALTER TABLE audit ADD CONSTRAINT one UNIQUE (id); CREATE INDEX ON orders (note)";
    run.run(&["--snapshot", "clone", "--", "psql", "-Xqc", sql]).exits(0).verdict("COMMITTED");
    let errors: Vec<String> =
        cluster.log().lines().filter(|line| line.contains("ERROR: ")).map(str::to_owned).collect();
    assert_eq!(errors, Vec::<String>::new());
}
