//! Which transactions the files run in: what can share one does, what can't is said before anything runs, and what was
//! begun is whole or gone.

use tests::{ProtectedRun, until};

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

const CONCURRENT: &str = "CREATE INDEX CONCURRENTLY by_user ON orders (user_id);\n";

#[test]
fn all_refuses_what_can_not_run_in_one_transaction_by_file_line_and_statement() {
    for (sql, says) in [
        (
            format!("-- why\n{CONCURRENT}"),
            "0002_b.sql:2: `CREATE INDEX CONCURRENTLY by_user ON orders (user_id)`",
        ),
        ("VACUUM orders;\n".to_owned(), "0002_b.sql:1: `VACUUM orders`"),
        ("SELECT 1;\nALTER SYSTEM SET work_mem = '5MB';\n".to_owned(), "0002_b.sql:2: `ALTER SYSTEM"),
        ("-- safe-run: no-transaction\nSELECT 1;\n".to_owned(), "0002_b.sql:1"),
        (
            "ALTER TYPE mood ADD VALUE 'ok';\nINSERT INTO audit (at) VALUES ('ok');\n".to_owned(),
            "0002_b.sql:2: `INSERT",
        ),
    ] {
        let run = run();
        run.database.psql("CREATE TYPE mood AS ENUM ('meh')");
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\n").migration("0002_b.sql", &sql);
        let before = run.fingerprint();
        run.run(&["--tx", "all"]).exits(3).says(says).says("hint: ").says("--tx auto");
        run.run(&["plan", "--tx", "all"]).exits(3).says(says);
        run.assert_unchanged(&before);
        assert_eq!(run.runs(), Vec::<String>::new(), "a run began");
    }
}

tests::on_every_major! {
    fn a_new_enum_value_is_committed_before_it_is_used(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.database.psql("CREATE TYPE mood AS ENUM ('meh'); CREATE TABLE moods (m mood)");
        run.migration(
            "0001_a.sql",
            "BEGIN;\nALTER TYPE mood ADD VALUE 'ok';\nSET LOCAL lock_timeout = 0;\nINSERT INTO moods VALUES ('ok');\nCOMMIT;\n",
        );
        run.run(&["plan"]).exits(0).says("0001_a.sql:4").says("'ok' of mood").says("0001_a.sql:2");
        run.run(&[]).exits(0).verdict("COMMITTED").says("not in one transaction: 0001_a.sql:4");
        assert_eq!(run.database.psql("SELECT * FROM moods"), "ok");
        // Across files, and undone by the snapshot when the second one fails.
        run.migration("0002_b.sql", "ALTER TYPE mood ADD VALUE 'so';\n")
            .migration("0003_c.sql", "INSERT INTO moods VALUES ('so');\nSELECT 1 / 0;\n");
        let before = run.fingerprint();
        run.run(&[]).exits(12).verdict("RESTORED").says("0003_c.sql:2").says("22012");
        run.assert_unchanged(&before);
        run.migration("0003_c.sql", "INSERT INTO moods VALUES ('so');\n");
        run.run(&[]).exits(0).verdict("COMMITTED");
        assert_eq!(run.database.psql("SELECT * FROM moods ORDER BY m"), "ok\nso");
    }

    fn a_file_per_transaction_is_undone_by_the_snapshot_and_the_first_one_by_a_rollback(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\nSELECT setval('tickets', 3);\n")
            .migration("0002_b.sql", "UPDATE orders SET missing = 1;\n");
        let before = run.fingerprint();
        let outcome = run.run(&["--tx", "file"]).exits(12).verdict("RESTORED").says("0002_b.sql:1").says("42703");
        drop(outcome.says("undone by a restore of the snapshot"));
        run.assert_unchanged(&before);
        // Nothing was committed yet: no restore is needed, and nothing is left behind, not even our own schema.
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\nSELECT setval('tickets', 3);\nSELECT 1 / 0;\n");
        let kept = run.others();
        run.run(&["--tx", "file"]).exits(10).verdict("ROLLED BACK").says("0001_a.sql:3").says("tickets was put back");
        run.assert_unchanged(&before);
        assert_eq!(run.others(), kept, "a database was restored");
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\n").migration("0002_b.sql", "CREATE TABLE b (i int);\n");
        run.run(&["--tx", "file"]).exits(0).verdict("COMMITTED").says("2 migrations");
        assert_eq!(run.database.psql("SELECT version FROM safe_run.migrations ORDER BY 1"), "0001\n0002");
        run.assert_open();
    }
}

#[test]
fn a_failed_concurrent_build_leaves_no_invalid_index_behind() {
    for (major, sql) in [
        (14, "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id);\n"),
        (18, "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id);\n"),
        (
            18,
            "-- safe-run: no-transaction\nDROP INDEX doubled;\nINSERT INTO users (name, email) SELECT name, email FROM users WHERE id = 1;\nCREATE UNIQUE INDEX CONCURRENTLY doubled ON users (email);\n",
        ),
    ] {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE UNIQUE INDEX doubled ON users (email)",
        );
        // One that was there before is nobody's to drop.
        assert!(
            run.database.try_psql("CREATE UNIQUE INDEX CONCURRENTLY before ON orders (user_id)").is_err()
        );
        run.migration("0001_a.sql", sql);
        run.run(&["--on-failure", "stop"])
            .exits(14)
            .verdict("STOPPED")
            .says("23505")
            .says("that the failed build left behind was dropped");
        let invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid";
        assert_eq!(run.database.psql(invalid), "before");
        run.assert_open();
    }
}

#[test]
fn a_file_that_leaves_its_transaction_open_is_refused_before_anything_runs() {
    for (sql, says) in [
        ("BEGIN;\nCREATE TABLE a (i int);\n", &["0001_a.sql:2", "never ends", "COMMIT"][..]),
        ("BEGIN;\nVACUUM orders;\nCOMMIT;\n", &["0001_a.sql:3", "VACUUM"]),
        ("SELECT 1;\nBEGIN;\nPREPARE TRANSACTION 'x';\n", &["0001_a.sql:4", "prepared transaction"]),
    ] {
        let run = run();
        run.migration("0001_a.sql", &format!("-- safe-run: no-transaction\n{sql}"));
        let before = run.fingerprint();
        let mut outcome = run.run(&[]).exits(3).says("hint: ");
        for text in says {
            outcome = outcome.says(text);
        }
        run.run(&["plan"]).exits(3).says(says[0]);
        run.assert_unchanged(&before);
    }
    // Whole transactions of its own are the file's business.
    let run = run();
    run.migration(
        "0001_a.sql",
        "BEGIN;\nCREATE TABLE a (i int);\nCOMMIT;\nCREATE INDEX CONCURRENTLY on_a ON a (i);\nBEGIN;\nINSERT INTO a VALUES (1);\nROLLBACK;\n",
    );
    run.run(&[]).exits(0).verdict("COMMITTED");
    assert_eq!(
        run.database.psql("SELECT count(*) FROM a; SELECT version FROM safe_run.migrations"),
        "0\n0001"
    );
}

#[test]
fn a_concurrent_build_waits_for_a_long_transaction_and_names_it_and_nobody_queues() {
    let run = run();
    run.migration("0001_a.sql", CONCURRENT);
    let mut long = run.database.session();
    long.run("SET application_name = 'nightly report'; BEGIN; LOCK TABLE audit IN ACCESS SHARE MODE; INSERT INTO orders (user_id, total) VALUES (1, 1)");
    let pid = long.backend_pid();
    // Without a fence, or the session would be ended.
    let running = run.start(&["--fence", "none", "--lock-timeout", "300ms"]);
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'",
        run.database.name()
    );
    until("the build waits", || run.database.cluster().psql(&waits) == "1");
    // Longer than the lock_timeout, and the application goes on.
    let mut writer = run.database.session();
    for _ in 0..4 {
        writer.run("SET lock_timeout = '200ms'; UPDATE users SET name = name; SELECT pg_sleep(0.2)");
    }
    assert_eq!(run.database.cluster().psql(&waits), "1");
    long.run("COMMIT");
    running.outcome().exits(0).says(&format!("waiting for a lock: pid {pid}")).says("nightly report");
    assert_eq!(
        run.database.psql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_user'::regclass"),
        "t"
    );
}
