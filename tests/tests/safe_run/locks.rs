//! Locks without an outage: others are never kept waiting for longer than one lock_timeout, what can't be had is tried
//! again, and whoever is in the way is named.

use std::sync::atomic::{AtomicBool, Ordering};

use tests::{Cluster, ProtectedRun, until};

const PATIENT: [&str; 4] = ["--lock-timeout", "300ms", "--lock-retries", "60"];

/// Waits until our migration waits for a lock.
#[track_caller]
fn until_waiting(run: &ProtectedRun) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE 'safe-run/%' AND wait_event_type = 'Lock'",
        run.database.name()
    );
    until("it waits for a lock", || run.database.cluster().psql(&sql) != "0");
}

tests::on_every_major! {
    fn a_migration_waits_for_an_idle_reader_and_the_application_goes_on(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_a.sql", "UPDATE users SET name = name;\nALTER TABLE orders ADD status text;\n");
        let mut idle = run.database.session();
        idle.run("SET application_name = 'report'; BEGIN; SELECT count(*) FROM orders");
        let pid = idle.backend_pid();
        let running = run.start(&PATIENT);
        until_waiting(&run);
        // Readers queue behind the ALTER TABLE for one lock_timeout at most, again and again.
        let mut reader = run.database.session();
        for _ in 0..6 {
            assert_eq!(reader.run("SET statement_timeout = '5s'; SELECT count(*) FROM orders"), "100");
        }
        idle.run("COMMIT");
        let outcome = running.outcome().exits(0).verdict("COMMITTED").says("trying again");
        drop(outcome.says(&format!("waiting for a lock: pid {pid}, user postgres, application \"report\", idle in transaction")));
        assert_eq!(run.database.psql("SELECT count(*) FROM orders WHERE status IS NULL"), "100");
        run.assert_open();
    }

    fn it_gives_up_with_everybody_named_and_nothing_changed(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_a.sql", "SELECT setval('tickets', 9);\nUPDATE users SET name = 'x';\nDROP INDEX orders_by_total;\n");
        run.database.psql("CREATE INDEX orders_by_total ON orders (total)");
        let before = run.fingerprint();
        let mut idle = run.database.session();
        idle.run("SET application_name = 'report'; BEGIN; SELECT count(*) FROM orders");
        let pid = idle.backend_pid();
        let mut long = run.database.session();
        long.send("SELECT count(*), pg_sleep(60) FROM orders WHERE id = 1 GROUP BY id");
        let outcome = run.run(&["--lock-timeout", "500ms", "--lock-retries", "2"]).exits(4).verdict("ROLLED BACK");
        let outcome = outcome.says("55P03").says("gave up after 3 attempts").says(&format!("pid {pid}")).says("report");
        drop(outcome.says("pg_sleep(60)").says("hint: ").says("unchanged"));
        // Ended, or the fingerprint's own sessions would see it.
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*), pg_sleep(60)%'";
        run.database.cluster().psql(end);
        drop(long);
        idle.run("COMMIT");
        run.assert_unchanged(&before);
        run.run(&["recover"]).exits(0).says("Nothing to recover");
    }
}

#[test]
fn tables_are_locked_before_the_first_statement_and_in_one_order() {
    let run = ProtectedRun::shop(18);
    // Written in the other order than by oid; the slow statement would hold its lock while the next one waits.
    run.migration(
        "0001_a.sql",
        "INSERT INTO audit VALUES (1, 'x');\nALTER TABLE order_items ADD a int;\nALTER TABLE users ADD b int;\n",
    );
    let mut idle = run.database.session();
    idle.run("BEGIN; SELECT count(*) FROM order_items");
    let running = run.start(&PATIENT);
    until_waiting(&run);
    let locks = format!(
        "SELECT string_agg(DISTINCT l.relation::regclass::text, ' ' ORDER BY l.relation::regclass::text) FROM pg_locks l
         JOIN pg_stat_activity a USING (pid) WHERE a.datname = '{}' AND application_name LIKE 'safe-run/%'
         AND l.mode = 'AccessExclusiveLock' AND l.relation IN ('users'::regclass, 'order_items'::regclass)",
        run.database.name()
    );
    // users has the smaller oid, and is had while order_items is waited for.
    until("both are asked for", || run.database.psql(&locks) == "order_items users");
    assert_eq!(run.database.psql("SELECT count(*) FROM audit"), "0");
    idle.run("COMMIT");
    running.outcome().exits(0);
}

#[test]
fn a_deadlock_is_tried_again() {
    let run = ProtectedRun::shop(18);
    run.database.psql("CREATE FUNCTION later() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'LOCK TABLE users IN ACCESS EXCLUSIVE MODE'; END $$");
    // What runs inside of a function is not known beforehand.
    run.migration(
        "0001_a.sql",
        "ALTER TABLE orders ADD status text;\nSELECT pg_sleep(1);\nSELECT later();\n",
    );
    let running = run.start(&["--fence", "none", "--lock-timeout", "20s"]);
    let sleeps = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query = 'SELECT pg_sleep(1)'",
        run.database.name()
    );
    until("the migration sleeps", || run.database.cluster().psql(&sleeps) == "1");
    let mut other = run.database.session();
    // The server ends whoever looks first: we, because the other one looks late.
    other.run("SET deadlock_timeout = '30s'; BEGIN; SELECT count(*) FROM users");
    other.send("SELECT count(*) FROM orders; COMMIT");
    let outcome = running.outcome().exits(0).verdict("COMMITTED").says("40P01").says("trying again");
    drop(outcome);
    assert_eq!(other.receive().unwrap(), "100");
}

#[test]
fn readers_beside_a_waiting_migration_never_queue_for_longer_than_one_timeout() {
    let run = ProtectedRun::shop(18);
    run.migration(
        "0001_a.sql",
        "ALTER TABLE users ADD a int;\nALTER TABLE orders ADD b int;\nALTER TABLE order_items ADD c int;\n",
    );
    let mut idle = run.database.session();
    idle.run("BEGIN; SELECT count(*) FROM order_items");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = ["users", "orders", "order_items"]
            .map(|table| {
                let (run, stop) = (&run, &stop);
                scope.spawn(move || {
                    let mut session = run.database.session();
                    // The server itself says so if a read waits longer than ours: three times as long on a busy machine.
                    session.run("SET lock_timeout = '3s'");
                    let mut reads = 0;
                    while !stop.load(Ordering::SeqCst) {
                        session.run(&format!("SELECT count(*) FROM {table}"));
                        reads += 1;
                    }
                    reads
                })
            })
            .into_iter()
            .collect();
        let outcome = run.run(&["--lock-timeout", "1s", "--lock-retries", "3"]);
        // Before anything can fail: the readers would go on for ever.
        stop.store(true, Ordering::SeqCst);
        // After 4 attempts, or fewer where they took all the time there is for them.
        let outcome = outcome.exits(4).says("gave up after ");
        for reader in readers {
            let reads = reader.join().unwrap();
            assert!(reads > 3, "{reads} reads: {outcome}");
        }
    });
    idle.run("COMMIT");
    run.assert_open();
}

#[test]
fn a_file_of_its_own_transaction_and_a_statement_by_itself_are_tried_again() {
    for sql in [
        "ALTER TABLE orders ADD status text;\n",
        "-- safe-run: no-transaction\nALTER TABLE orders ADD status text;\n",
    ] {
        let run = ProtectedRun::shop(14);
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\n").migration("0002_b.sql", sql);
        let mut idle = run.database.session();
        idle.run("BEGIN; SELECT count(*) FROM orders");
        let running = run.start(&[&PATIENT[..], &["--fence", "none", "--tx", "file"]].concat());
        until_waiting(&run);
        let mut reader = run.database.session();
        for _ in 0..3 {
            assert_eq!(reader.run("SELECT count(*) FROM orders"), "100");
        }
        idle.run("COMMIT");
        running.outcome().exits(0).verdict("COMMITTED").says("trying again").says("waiting for a lock: pid ");
        assert_eq!(run.database.psql("SELECT version FROM safe_run.migrations ORDER BY 1"), "0001\n0002");
    }
}

#[test]
fn a_prepared_transaction_in_the_way_is_named() {
    let cluster = Cluster::start(18, &tests::Options::new().conf("max_prepared_transactions = 3"));
    let run = ProtectedRun::shop_on(&cluster);
    run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n");
    run.database.psql("BEGIN; SELECT count(*) FROM orders; PREPARE TRANSACTION 'from the queue'");
    let before = run.fingerprint();
    let outcome = run.run(&["--lock-timeout", "500ms", "--lock-retries", "1"]).exits(4);
    outcome.says("a prepared transaction (from the queue)").says("gave up after 2 attempts");
    run.assert_unchanged(&before);
    run.database.psql("ROLLBACK PREPARED 'from the queue'");
    run.run(&[]).exits(0);
}

#[test]
fn a_vacuum_that_prevents_wraparound_is_named_and_never_ended() {
    for major in tests::cluster::ends() {
        let settings = "autovacuum = on\nautovacuum_freeze_max_age = 100000\nautovacuum_naptime = 1s\nautovacuum_max_workers = 3\ndeadlock_timeout = 200ms";
        let cluster = Cluster::start(major, &tests::Options::new().conf(settings));
        let run = ProtectedRun::shop_on(&cluster);
        // Forced all the same, and one page each tenth of a second: it works on this table until the test is over.
        run.database.psql(
            "ALTER TABLE audit SET (autovacuum_enabled = off, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
             INSERT INTO audit SELECT i, repeat('x', 500) FROM generate_series(1, 8000) i",
        );
        run.database
            .psql("DO $$ BEGIN FOR i IN 1..110000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$");
        let vacuum = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%public.audit%(to prevent wraparound)'";
        until("the vacuum has begun", || !cluster.psql(vacuum).is_empty());
        let pid = cluster.psql(vacuum);
        run.migration("0001_a.sql", "ALTER TABLE audit ADD status text;\n");
        // In the way of the fence's locks, and, without one, of the statement's own.
        for (fence, gave_up) in [("lock", "in 2 attempts"), ("none", "gave up after 2 attempts")] {
            let patience = ["--fence", fence, "--lock-timeout", "700ms", "--lock-retries", "1"];
            let outcome = run.run(&patience).exits(4).says(gave_up).says("Wait for the vacuum");
            drop(outcome.says(&format!("pid {pid}, autovacuum worker")).says("(to prevent wraparound)"));
        }
        // deadlock_timeout has passed twice: the server would have ended any other autovacuum for us.
        assert_eq!(cluster.psql(vacuum), pid, "{major}: the vacuum was ended");
        assert_eq!(run.database.psql("SELECT count(*) FROM audit"), "8000");
    }
}

#[test]
fn what_a_rollback_does_not_undo_is_not_done_twice() {
    let run = ProtectedRun::shop(18);
    let file = run.file("made-by-the-server", "");
    let _ = std::fs::remove_file(&file);
    let target = format!("/tmp/sr.program.{}", std::process::id());
    let _ = std::fs::remove_file(&target);
    run.migration("0001_a.sql", &format!("COPY (SELECT 1) TO PROGRAM 'cat >> {target}';\nSELECT later();\n"));
    run.database.psql("CREATE FUNCTION later() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'LOCK TABLE users IN ACCESS EXCLUSIVE MODE'; END $$");
    let before = run.fingerprint();
    let mut idle = run.database.session();
    idle.run("BEGIN; SELECT count(*) FROM users");
    run.run(&PATIENT).exits(4).says("not tried again").says("runs a program on the server");
    idle.run("COMMIT");
    run.assert_unchanged(&before);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "1\n");
    std::fs::remove_file(&target).unwrap();
}

#[test]
fn functions_that_write_are_tried_behind_the_runs_own_fence_and_wait_for_nothing() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "CREATE FUNCTION remember(text) RETURNS void LANGUAGE sql AS $$ INSERT INTO audit (at) VALUES ($1) $$;
             CREATE FUNCTION latest() RETURNS bigint LANGUAGE sql AS $$ SELECT id FROM orders ORDER BY id DESC LIMIT 1 FOR UPDATE $$;
             CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
        );
        // Broken before: no finding of this run.
        run.database.psql(
            "SET check_function_bodies = off; CREATE OR REPLACE FUNCTION broken() RETURNS int LANGUAGE sql AS $$ SELECT nothing $$",
        );
        run.migration("0001_a.sql", "CREATE TABLE extra (id int);");
        run.run(&[]).exits(0).verdict("COMMITTED");
        run.migration("0002_b.sql", "ALTER TABLE audit DROP COLUMN at;");
        run.run(&[]).exits(11).says("function remember(text) does not compile");
        let waited = |line: &str| line.contains(run.database.name()) && line.contains("lock timeout");
        let log = run.database.cluster().log();
        assert_eq!(log.lines().find(|line| waited(line)), None);
    }
}
