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
            "ALTER TYPE mood ADD VALUE 'ok';\nINSERT INTO moods VALUES ('ok');\n".to_owned(),
            "0002_b.sql:2: `INSERT",
        ),
    ] {
        let run = run();
        run.database.psql("CREATE TYPE mood AS ENUM ('meh'); CREATE TABLE moods (m mood)");
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

/// Prisma makes such files for each label that goes; others write them by hand.
const OWN_TRANSACTIONS: &str = "CREATE TABLE before (i int);
-- AlterEnum
BEGIN;
CREATE TYPE \"Mood_new\" AS ENUM ('ok', 'glad');
ALTER TABLE people ALTER COLUMN m TYPE \"Mood_new\" USING (m::text::\"Mood_new\");
ALTER TYPE \"Mood\" RENAME TO \"Mood_old\";
ALTER TYPE \"Mood_new\" RENAME TO \"Mood\";
DROP TYPE \"Mood_old\";
COMMIT;
CREATE TABLE after (m \"Mood\" DEFAULT 'glad');
BEGIN;
INSERT INTO after VALUES ('ok');
COMMIT;
";

#[test]
fn transactions_of_a_files_own_run_unedited_and_are_undone_when_it_fails_behind_them() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "CREATE TYPE \"Mood\" AS ENUM ('sad', 'ok', 'glad'); CREATE TABLE people (m \"Mood\"); INSERT INTO people VALUES ('ok')",
        );
        let before = run.fingerprint();
        run.migration("0001_a.sql", OWN_TRANSACTIONS).migration("0002_b.sql", "SELECT 1 / 0;\n");
        run.run(&[])
            .exits(12)
            .verdict("RESTORED")
            .says("0001_a.sql:9: a COMMIT ends a transaction of the file's own");
        run.assert_unchanged(&before);
        run.run(&["--tx", "all"]).exits(3).says("0001_a.sql:9: a COMMIT");
        std::fs::remove_file(run.folder().join("migrations/0002_b.sql")).unwrap();
        run.run(&[]).exits(0).verdict("COMMITTED");
        assert_eq!(
            run.database.psql(
                "SELECT enum_range(NULL::\"Mood\"); SELECT m FROM people; SELECT m FROM after; SELECT count(*) FROM before"
            ),
            "{ok,glad}\nok\nok\n0"
        );
        // Around the whole file they are nothing that would need a snapshot.
        run.migration("0002_b.sql", "SET work_mem = '5MB';\nBEGIN;\nCREATE TABLE b (i int);\nCOMMIT;\n");
        run.run(&["--tx", "all", "--snapshot", "none"]).exits(0).verdict("COMMITTED");
        // What is taken back, or never ended, would be recorded as applied.
        for loose in [
            "BEGIN;\nDROP TABLE b;\nROLLBACK;\n",
            "CREATE TABLE c (i int);\nCOMMIT;\nBEGIN;\nDROP TABLE b;\n",
        ] {
            run.migration("0003_c.sql", loose);
            run.run(&[]).exits(3).says("0003_c.sql:");
        }
        run.migration("0003_c.sql", "BEGIN ISOLATION LEVEL SERIALIZABLE;\nDROP TABLE b;\nCOMMIT;\n");
        run.run(&[]).exits(0).verdict("COMMITTED").says("0003_c.sql:1: `BEGIN ISOLATION LEVEL SERIALIZABLE`");
    }
}

#[test]
fn a_label_of_a_type_that_is_as_new_is_used_as_the_server_allows() {
    for (major, one) in [(14, false), (18, true)] {
        let run = ProtectedRun::shop(major);
        run.migration("0001_a.sql", "CREATE TYPE mood AS ENUM ('sad');\nCREATE TABLE people (m mood);\n")
            .migration("0002_b.sql", "ALTER TYPE mood ADD VALUE 'ok';\n")
            .migration("0003_c.sql", "INSERT INTO people VALUES ('ok');\n");
        let told = run.run(&["--verbose"]).exits(0).verdict("COMMITTED");
        if one {
            told.never_says("not in one transaction");
        } else {
            told.says("not in one transaction: 0003_c.sql:1");
        }
        assert_eq!(run.database.psql("SELECT m FROM people"), "ok");
        // It is an old type by now, and a failure behind its use is undone all the same.
        let before = run.fingerprint();
        run.migration(
            "0004_d.sql",
            "ALTER TYPE mood ADD VALUE 'glad';\nINSERT INTO people VALUES ('glad');\nSELECT 1 / 0;\n",
        );
        run.run(&[]).exits(12).verdict("RESTORED");
        run.assert_unchanged(&before);
    }
}

#[test]
fn a_file_of_its_own_transaction_commits_a_label_of_a_new_type_before_its_use() {
    let run = ProtectedRun::shop(18);
    run.migration("0001_a.sql", "CREATE TYPE mood AS ENUM ('sad');\n")
        .migration("0002_b.sql", "ALTER TYPE mood ADD VALUE 'ok';\nSELECT 'ok'::mood;\n");
    run.run(&["--tx", "file"]).exits(0).verdict("COMMITTED");
}

#[test]
fn a_text_that_reads_like_a_new_label_needs_no_commit() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE people (m mood); CREATE VIEW happy AS SELECT * FROM people;
             CREATE FUNCTION remember(text) RETURNS void LANGUAGE sql AS $$ INSERT INTO people VALUES ($1::mood) $$",
        );
        run.migration(
            "0001_a.sql",
            "ALTER TYPE mood ADD VALUE 'ok';\nCREATE TABLE log (level text DEFAULT 'ok');\n
             INSERT INTO audit (id, at) VALUES (1, 'ok');\nINSERT INTO log VALUES ('ok');\n",
        );
        run.run(&["--tx", "all"]).exits(0).verdict("COMMITTED");
        // Through a view, a function, and a table that is made beside it.
        for (number, sql) in [
            "SELECT * FROM happy WHERE m = '@';",
            "SELECT remember('@');",
            "CREATE TABLE feelings AS SELECT m FROM people; INSERT INTO feelings VALUES ('@');",
        ]
        .iter()
        .enumerate()
        {
            let label = format!("new {number}");
            let text = format!("ALTER TYPE mood ADD VALUE '{label}';\n{}\n", sql.replace('@', &label));
            run.migration(&format!("000{}_b.sql", number + 2), &text);
            run.run(&[]).exits(0).verdict("COMMITTED").says("not in one transaction");
        }
    }
}

#[test]
fn a_comment_that_reads_like_a_way_down_is_refused_until_a_person_says_what_it_is() {
    let run = run();
    let sql = "CREATE TABLE a (i int);\n-- ROLLBACK\nDROP TABLE order_items;\n";
    run.migration("0001_a.sql", sql);
    let before = run.fingerprint();
    run.run(&[])
        .exits(3)
        .says("0001_a.sql:2: `-- ROLLBACK` reads like the start of a way down")
        .says("--whole-file VERSION");
    run.run(&["plan"]).exits(3).says("0001_a.sql:2");
    run.run(&["status"]).exits(30);
    run.assert_unchanged(&before);
    run.run(&["--whole-file", "0009"]).exits(2).says("no migration has version 0009");
    run.run(&["--whole-file", "0001", "--allow-loss", "order_items"]).exits(0).verdict("COMMITTED");
    assert_eq!(run.database.psql("SELECT to_regclass('order_items') IS NULL"), "t");
    // Applied, it is in nobody's way.
    run.run(&[]).exits(0).verdict("UP TO DATE");
}

#[test]
fn an_empty_migration_is_said_to_be_one() {
    let run = run();
    run.migration("0001_a.sql", "-- Add it here.\n");
    run.run(&["plan"]).exits(0).says("it has no statement: nothing of it runs, and it counts as applied");
    run.run(&[])
        .exits(0)
        .says("0001_a.sql: it has no statement: nothing of it runs, and it counts as applied");
}

#[test]
fn a_mistyped_command_is_told_what_was_meant() {
    let run = run();
    run.run(&["staus"]).exits(2).says("hint: Did you mean `safe-run status`?");
    run.run(&["alembic", "upgrade", "head"]).exits(2).says("goes after `--`: safe-run -- alembic …");
}

/// Its last step needs the table alone, and everybody who comes later waits behind its wait for that.
mod repack {
    use super::*;

    #[test]
    fn postgresql_19_repack_concurrently_waits_no_longer_than_the_lock_timeout() {
        let run = ProtectedRun::shop(19);
        run.migration("0001_a.sql", "REPACK (CONCURRENTLY) orders;\n");
        let mut reader = run.database.session();
        reader.run("BEGIN; SELECT count(*) FROM orders");
        run.run(&["plan"]).exits(0).says("REPACK CONCURRENTLY cannot run in a transaction");
        let failed = run.run(&["--fence", "none", "--lock-timeout", "300ms", "--lock-retries", "1"]);
        assert_ne!(failed.status.code(), Some(0), "{failed}");
        let failed = failed.says("55P03").says("orders");
        drop(failed);
        reader.run("COMMIT");
        assert_eq!(run.database.psql("SELECT count(*) FROM orders"), "100");
    }

    /// Every form that the server takes, and whether it takes it in a transaction.
    const FORMS: [(&str, bool); 22] = [
        ("REPACK", false),
        ("REPACK (VERBOSE)", false),
        ("REPACK USING INDEX", false),
        ("REPACK (VERBOSE) USING INDEX", false),
        ("REPACK orders", true),
        ("REPACK (VERBOSE) public.orders", true),
        ("REPACK orders USING INDEX orders_pkey", true),
        ("REPACK (VERBOSE off) orders USING INDEX", true),
        ("REPACK (ANALYZE) orders", false),
        ("REPACK (ANALYSE, VERBOSE) orders (id, total)", false),
        ("REPACK (ANALYZE off) orders", true),
        ("REPACK (ANALYZE 0, CONCURRENTLY false) orders", true),
        ("REPACK (CONCURRENTLY off) orders USING INDEX orders_pkey", true),
        ("REPACK (CONCURRENTLY) orders", false),
        ("REPACK (CONCURRENTLY 1) orders USING INDEX orders_pkey", false),
        ("REPACK (CONCURRENTLY, ANALYZE, VERBOSE) orders", false),
        ("REPACK parted", false),
        ("REPACK (VERBOSE) parted USING INDEX parted_pkey", false),
        ("REPACK parted_1", true),
        ("REPACK held", true),
        ("REPACK \"analyze\"", true),
        ("REPACK (VERBOSE) \"concurrently\"", true),
    ];

    #[test]
    fn postgresql_19_repack_in_every_form_runs_where_the_server_takes_it_and_changes_nothing() {
        // A server of its own: REPACK of everything locks what all databases share.
        let cluster = tests::Cluster::start(19, &tests::Options::new());
        let run = ProtectedRun::shop_on(&cluster);
        run.database.psql(
            "CREATE TABLE parted (i int PRIMARY KEY) PARTITION BY RANGE (i);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10); INSERT INTO parted VALUES (1);
             CREATE MATERIALIZED VIEW held AS SELECT id FROM orders; CREATE TABLE \"analyze\" (i int); CREATE TABLE \"concurrently\" (i int);
             ALTER TABLE orders CLUSTER ON orders_pkey",
        );
        let before = run.fingerprint();
        let mut psql = vec!["--", "psql", "-Xqv", "ON_ERROR_STOP=1"];
        for (form, in_transaction) in FORMS {
            let taken = run.database.try_psql(&format!("BEGIN;\n{form};\nROLLBACK;"));
            assert_eq!(taken.is_ok(), in_transaction, "{form}: {taken:?}");
            run.migration("0001_a.sql", &format!("{form};\n"));
            let plan = run.run(&["plan"]).exits(0).never_says("could not read");
            let alone = plan.stdout.contains("cannot run in a transaction");
            // Whether a table has partitions is not in the statement.
            assert_eq!(alone, !in_transaction && !form.contains(" parted"), "{form}: {plan}");
            psql.extend(["-c", form]);
        }
        for (at, (form, _)) in FORMS.into_iter().enumerate() {
            let head = if form.contains(" parted") { "-- safe-run: no-transaction\n" } else { "" };
            run.migration(&format!("{:04}_a.sql", at + 1), &format!("{head}{form};\n"));
        }
        run.run(&[]).exits(0).verdict("COMMITTED").says("every check passed");
        run.run(&psql).exits(0).verdict("COMMITTED");
        psql.extend(["-c", "DELETE FROM order_items", "-c", "SELECT 1 / 0"]);
        run.run(&psql).exits(12).verdict("RESTORED");
        run.drop_others();
        // What USING INDEX leaves in the definition of a partition.
        run.database.psql("ALTER TABLE parted_1 SET WITHOUT CLUSTER");
        before.assert_same(&run.fingerprint_without_history());
    }

    #[test]
    fn postgresql_19_repack_of_a_table_that_is_read_is_waited_for_in_short_waits() {
        // A server of its own: REPACK of everything locks what all databases share.
        let cluster = tests::Cluster::start(19, &tests::Options::new());
        let run = ProtectedRun::shop_on(&cluster);
        let mut reader = run.database.session();
        for (at, form) in [
            "REPACK orders",
            "REPACK (VERBOSE) orders USING INDEX orders_pkey",
            "REPACK (ANALYZE) orders",
            "REPACK",
        ]
        .into_iter()
        .enumerate()
        {
            reader.run("BEGIN; SELECT count(*) FROM orders");
            run.migration(&format!("{:04}_a.sql", at + 1), &format!("{form};\n"));
            let flags = ["--fence", "none", "--lock-timeout", "200ms", "--lock-retries", "1"];
            let refused = run.run(&flags).says("orders").says("in the way");
            reader.run("COMMIT");
            // What ran outside of a transaction, and without a fence, waits for a person.
            match refused.status.code() {
                Some(14) => drop(run.run(&["recover", "--keep"]).exits(0)),
                code => assert_eq!(code, Some(4), "{form}: {refused}"),
            }
            run.run(&flags).exits(0).verdict("COMMITTED");
        }
    }

    #[test]
    fn postgresql_19_all_that_repack_can_not_do_in_a_transaction_runs_alone() {
        // A server of its own: REPACK of everything locks what all databases share.
        let cluster = tests::Cluster::start(19, &tests::Options::new());
        let run = ProtectedRun::shop_on(&cluster);
        run.migration("0001_a.sql", "REPACK (VERBOSE) orders USING INDEX orders_pkey;\n").migration(
            "0002_b.sql",
            "CREATE PUBLICATION p FOR ALL TABLES EXCEPT (TABLE audit), ALL SEQUENCES;\n",
        );
        run.run(&["--tx", "all"]).exits(0).verdict("COMMITTED").never_says("could not read it");
        run.migration("0003_c.sql", "REPACK USING INDEX;\n").migration("0004_d.sql", "REPACK;\n");
        run.run(&[])
            .exits(0)
            .verdict("COMMITTED")
            .says("REPACK of more than one table cannot run in a transaction");
    }
}

/// A type, its label and every kind of use in a database that is as new, and the transactions of the files beside it.
#[test]
fn a_new_label_may_stand_wherever_a_constant_may() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(tests::Cluster::shared(major).fresh_database("labels"));
        run.migration(
            "1_a.sql",
            "CREATE TYPE st AS ENUM ('a', 'b');\nCREATE TABLE t (id int PRIMARY KEY, s st DEFAULT 'a', n text);\n",
        );
        run.migration("2_b.sql", "ALTER TYPE st ADD VALUE 'c';\n");
        run.migration(
            "3_c.sql",
            "CREATE INDEX ON t (id) WHERE s = 'c';\nALTER TABLE t ALTER s SET DEFAULT 'c';\n\
             ALTER TABLE t ADD CONSTRAINT k CHECK (s <> 'c' OR n IS NOT NULL);\n\
             CREATE FUNCTION f() RETURNS st LANGUAGE sql AS $$ SELECT 'c'::st $$;\n\
             CREATE TABLE p (s st) PARTITION BY LIST (s); CREATE TABLE p_c PARTITION OF p FOR VALUES IN ('c');\n\
             INSERT INTO t VALUES (1, 'c', 'x');\n",
        );
        run.migration(
            "4_d.sql",
            "BEGIN WORK; INSERT INTO t VALUES (2, 'b', 'c'); END;\n\
             START TRANSACTION; INSERT INTO t VALUES (3, 'b', 'BEGIN; x COMMIT'); COMMIT WORK;\n",
        );
        run.migration(
            "5_e.sql",
            "ALTER TYPE st ADD VALUE IF NOT EXISTS 'd' BEFORE 'a';\nINSERT INTO t VALUES (4, 'd', 'y');\n\
             DO $$ BEGIN PERFORM 'd'::st; END $$;\n",
        );
        run.run(&[]).exits(0).verdict("COMMITTED").says("5 migrations");
        let rows = "SELECT string_agg(s || n, ' ' ORDER BY id) FROM t";
        assert_eq!(run.database.psql(rows), "cx bc bBEGIN; x COMMIT dy", "{major}");
    }
}
