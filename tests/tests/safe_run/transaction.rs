//! Migrations in one transaction: what is good commits, and what is not leaves nothing behind.

use tests::oracle::fingerprint;
use tests::{ProtectedRun, fixtures, psql, until};

fn good(run: &ProtectedRun) {
    run.migration("0001_status.sql", "ALTER TABLE orders ADD status text NOT NULL DEFAULT 'new';\n")
        .migration(
            "0002_coupons.sql",
            "BEGIN;\nCREATE TABLE coupons (code text PRIMARY KEY, order_id bigint REFERENCES orders);\n\
             COPY coupons (code, order_id) FROM stdin;\nspring\t1\nsum;mer\t2\n\\.\nCOMMIT;\n",
        )
        .migration("0003_paid.sql", "UPDATE orders SET status = 'paid' WHERE id <= 50;\n");
}

/// What the files do, by psql alone, one file after the other.
fn by_psql(run: &ProtectedRun, database: &tests::Database) {
    let entries = std::fs::read_dir(run.folder().join("migrations")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        psql::run_file(&database.url(), &file);
    }
}

tests::on_every_major! {
    fn good_migrations_commit_and_a_second_run_has_nothing_to_do(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        good(&run);
        run.run(&["status"]).exits(30).says("0003");
        run.run(&[]).exits(0).verdict("COMMITTED").says("3 migrations applied");
        run.assert_open();
        let history = "SELECT version, file_name, length(checksum), run FROM safe_run.migrations ORDER BY 1";
        let id = run.runs()[0].clone();
        assert_eq!(
            run.database.psql(history),
            format!("0001|0001_status.sql|64|{id}\n0002|0002_coupons.sql|64|{id}\n0003|0003_paid.sql|64|{id}")
        );
        // The same as psql makes of the same files.
        let other = ProtectedRun::shop_on(cluster);
        by_psql(&run, &other.database);
        other.fingerprint().assert_same(&run.fingerprint_without_history());

        run.run(&["status"]).exits(0);
        let before = run.fingerprint();
        run.run(&[]).exits(0).verdict("UP TO DATE");
        run.assert_unchanged(&before);
    }

    fn failing_sql_in_the_second_file_rolls_everything_back_and_says_where(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n")
            .migration("0002_b.sql", "CREATE TABLE b (i int);\n\nUPDATE orders\n   SET missing = 1;\n")
            .migration("0003_c.sql", "CREATE TABLE c (i int);\n");
        let before = run.fingerprint();
        run.run(&[]).exits(10).verdict("ROLLED BACK").says("0002_b.sql:4: `UPDATE orders SET missing = 1`").says("42703")
            .says("unchanged").says("1 of 3 migrations had run");
        run.assert_unchanged(&before);
        run.run(&["status"]).exits(30);
    }

    fn a_cascade_that_empties_a_child_beyond_the_limit_rolls_back(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_old_users.sql", "DELETE FROM users WHERE id <= 15;\n");
        let before = run.fingerprint();
        let outcome = run.run(&[]).exits(11).verdict("ROLLED BACK").says("orders").says("order_items").says("users");
        // 15 of 20 users have 75 of 100 orders, which have 225 of 300 items.
        let outcome = outcome.says("75").says("225");
        drop(outcome);
        run.assert_unchanged(&before);
        run.run(&["--max-loss", "80%"]).exits(0).verdict("COMMITTED");
        assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "75");
    }

    fn orphans_behind_disabled_triggers_roll_back_and_name_table_constraint_keys_and_count(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration(
            "0001_move.sql",
            "ALTER TABLE order_items DISABLE TRIGGER ALL;\nUPDATE order_items SET order_id = 4711 + id WHERE id <= 3;\n\
             ALTER TABLE order_items ENABLE TRIGGER ALL;\n",
        );
        let before = run.fingerprint();
        run.run(&[]).exits(11).verdict("ROLLED BACK").says("3 new").says("order_items").says("order_id").says("orders.id")
            .says("4712").says("4713").says("4714");
        run.assert_unchanged(&before);
    }

    fn orphans_through_session_replication_role_roll_back(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_move.sql", "SET session_replication_role = replica;\nDELETE FROM orders WHERE id = 100;\n");
        let before = run.fingerprint();
        run.run(&[]).exits(11).says("3 new").says("order_items.order_id").says("(key 100)");
        run.assert_unchanged(&before);
    }

    fn a_sequence_reset_below_its_column_rolls_back_and_stands_where_it_stood(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_reset.sql", "SELECT setval('orders_id_seq', 5);\n");
        let before = run.fingerprint();
        run.run(&[]).exits(11).says("orders_id_seq").says("put back from 5 to 100");
        run.assert_unchanged(&before);
    }

    fn a_failing_migration_that_moved_sequences_puts_back_what_went_backwards_and_says_what_went_ahead(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration(
            "0001_sequences.sql",
            "SELECT setval('tickets', 3);\nSELECT setval('order_items_id_seq', 7000);\nALTER SEQUENCE orders_id_seq RESTART;\n\
             CREATE SEQUENCE made_here;\nSELECT nextval('made_here');\nSELECT 1 / 0;\n",
        );
        let before = run.fingerprint();
        run.run(&[]).exits(10).says("22012").says("tickets was put back from 3 to 500")
            .says("order_items_id_seq went from 300 to 7000").never_says("orders_id_seq");
        let ahead = ["sequence \"public.order_items_id_seq\""];
        before.without(&ahead).assert_same(&run.fingerprint().without(&ahead));
        run.assert_open();
    }

    fn restarted_identities_roll_back(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_t.sql", "TRUNCATE users, orders, order_items RESTART IDENTITY;\nSELECT 1 / 0;\n");
        let before = run.fingerprint();
        run.run(&[]).exits(10).never_says("put back");
        run.assert_unchanged(&before);
    }

    fn the_snapshot_behind_the_fence_is_the_state_before(cluster: &Cluster) {
        let run = ProtectedRun::on(cluster.fresh_database("fenced"));
        fixtures::load_shop(&run.database, 0.004);
        let before = run.fingerprint();
        run.migration("0001_a.sql", "UPDATE orders SET status = status; DROP TABLE events CASCADE;\n");
        run.run(&["--snapshot-when", "fenced"]).exits(11).says("events");
        run.assert_unchanged(&before);
        run.run(&["--allow-loss", "events"]).exits(0);
        let mut restore = tests::binaries::command("restore");
        let beside = format!("{}_beside", run.database.name());
        restore.args(["latest", "--into", &beside, "-d", &run.database.url()]).current_dir(run.folder());
        let output = restore.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        before.assert_same(&tests::oracle::fingerprint_without(&cluster.url(&beside), &[]));
    }
}

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

#[test]
fn a_trigger_left_disabled_rolls_back() {
    let run = run();
    run.database.psql(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER noted BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note()",
    );
    run.migration("0001_t.sql", "ALTER TABLE users DISABLE TRIGGER noted;\n");
    let before = run.fingerprint();
    run.run(&[]).exits(11).says("noted").says("users");
    run.assert_unchanged(&before);
}

#[test]
fn an_unacknowledged_truncate_or_drop_rolls_back_and_passes_when_it_is_meant() {
    for (sql, table) in [("TRUNCATE audit", "audit"), ("DROP TABLE order_items", "order_items")] {
        let run = run();
        run.database.psql("INSERT INTO audit VALUES (1, 'x')");
        run.migration("0001_t.sql", &format!("{sql};\n"));
        let before = run.fingerprint();
        run.run(&[]).exits(11).says(table).says(sql).says("--allow-loss");
        run.assert_unchanged(&before);
        run.run(&["--allow-loss", table]).exits(0);

        let annotated = self::run();
        annotated.database.psql("INSERT INTO audit VALUES (1, 'x')");
        annotated.migration("0001_t.sql", &format!("-- safe-run: allow-loss {table}\n{sql};\n"));
        annotated.run(&[]).exits(0).verdict("COMMITTED");
    }
}

#[test]
fn an_allowance_of_rows_is_a_limit() {
    let run = run();
    run.migration("0001_t.sql", "DELETE FROM order_items WHERE id <= 60;\n");
    let before = run.fingerprint();
    run.run(&["--allow-loss", "order_items=59"]).exits(11).says("60");
    run.assert_unchanged(&before);
    run.run(&["--allow-loss", "order_items=60"]).exits(0);
}

#[test]
fn a_deferred_constraint_that_does_not_hold_at_the_end_rolls_back() {
    let run = run();
    run.database.psql(
        "ALTER TABLE orders ADD CONSTRAINT owner FOREIGN KEY (user_id) REFERENCES users DEFERRABLE INITIALLY DEFERRED",
    );
    run.database.psql("ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey");
    run.migration("0001_t.sql", "INSERT INTO orders (id, user_id, total) VALUES (900, 999, 1);\n");
    let before = run.fingerprint();
    run.run(&[]).exits(10).says("owner").says("999").says("23503");
    run.assert_unchanged(&before);
}

#[test]
fn settings_and_roles_of_one_file_do_not_reach_the_next() {
    let run = run();
    run.migration(
        "0001_a.sql",
        "CREATE SCHEMA other;\nSET search_path = other;\nSET ROLE pg_monitor;\nSET statement_timeout = 1;\n",
    )
    .migration(
        "0002_b.sql",
        "CREATE TABLE here AS SELECT current_user::text AS who, current_setting('statement_timeout') AS timeout;\n",
    );
    run.run(&[]).exits(0);
    assert_eq!(run.database.psql("SELECT * FROM public.here"), "postgres|0");
}

#[test]
fn a_stray_commit_is_refused_before_anything_runs() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n")
        .migration("0002_b.sql", "CREATE TABLE b (i int);\nCOMMIT;\nCREATE TABLE c (i int);\n");
    let before = run.fingerprint();
    run.run(&[]).exits(3).says("0002_b.sql:2").says("COMMIT").says("no-transaction");
    run.assert_unchanged(&before);
    assert_eq!(run.runs(), Vec::<String>::new(), "a run began");
}

#[test]
fn a_commit_hidden_in_a_procedure_can_not_end_the_transaction() {
    let run = run();
    run.database.psql("CREATE PROCEDURE sneaky() LANGUAGE plpgsql AS 'BEGIN DELETE FROM users; COMMIT; END'");
    run.migration("0001_a.sql", "CALL sneaky();\n");
    let before = run.fingerprint();
    run.run(&[]).exits(10).says("2D000");
    run.assert_unchanged(&before);
}

#[test]
fn violations_that_were_there_are_shown_and_only_a_new_one_fails() {
    let run = run();
    run.database.psql(
        "SET session_replication_role = replica; UPDATE order_items SET order_id = 5000 + id WHERE id <= 2;
         UPDATE audit SET at = at; INSERT INTO audit VALUES (1, 'x'), (1, 'y');",
    );
    assert!(run.database.try_psql("CREATE UNIQUE INDEX CONCURRENTLY once ON audit (id)").is_err());
    run.migration("0001_a.sql", "UPDATE order_items SET sku = sku || '!';\n");
    run.run(&[]).exits(0).says("there before").says("order_items.order_id").says("once");

    run.migration(
        "0002_b.sql",
        "SET session_replication_role = replica;\nUPDATE order_items SET order_id = 7777 WHERE id = 9;\n",
    );
    let before = run.fingerprint();
    let outcome = run.run(&[]).exits(11);
    assert!(outcome.headline().contains("1 new") && outcome.headline().contains("7777"), "{outcome}");
    assert!(!outcome.headline().contains("5001"), "{outcome}");
    run.assert_unchanged(&before);

    run.run(&["--fail-on", "none"]).exits(0).says("7777");
    run.migration("0003_c.sql", "UPDATE order_items SET sku = sku || '?';\n");
    let before = run.fingerprint();
    run.run(&["--fail-on", "any"]).exits(11);
    run.assert_unchanged(&before);
}

#[test]
fn checks_can_be_chosen() {
    let orphan =
        "SET session_replication_role = replica;\nUPDATE order_items SET order_id = 7777 WHERE id = 9;\n";
    for (arguments, code) in [
        (&["--skip", "foreign-keys"][..], 0),
        (&["--only", "foreign-keys"], 11),
        (&["--only", "indexes", "--only", "rows"], 0),
        (&["--level", "fast"], 0),
        (&["--level", "deep"], 11),
        (&["--strict"], 11),
    ] {
        let run = run();
        run.migration("0001_a.sql", orphan);
        let before = run.fingerprint();
        run.run(arguments).exits(code);
        if code != 0 {
            run.assert_unchanged(&before);
        }
    }
}

#[test]
fn the_snapshot_and_the_fence_can_be_chosen() {
    for (arguments, snapshots) in [
        (&["--snapshot-when", "before"][..], 1),
        (&["--snapshot", "none"], 0),
        (&["--fence", "none"], 1),
        (&["--fence", "none", "--snapshot-when", "before"], 1),
        (&["--snapshot-when", "fenced", "--jobs", "1", "--compress", "gzip"], 1),
    ] {
        let run = run();
        run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\nSELECT 1 / 0;\n");
        let before = run.fingerprint();
        run.run(arguments).exits(10).says("22012");
        run.assert_unchanged(&before);
        run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n");
        run.run(arguments).exits(0).verdict("COMMITTED");
        let stored = std::fs::read_dir(run.folder().join("snapshots/snapshots")).map_or(0, Iterator::count);
        assert_eq!(stored, 2 * snapshots, "{arguments:?}");
    }
}

#[test]
fn snapshot_only_takes_a_snapshot_and_runs_nothing() {
    let run = run();
    good(&run);
    let before = run.fingerprint();
    let outcome = run.run(&["--snapshot-only"]).exits(0);
    assert!(
        run.folder().join("snapshots/snapshots").join(outcome.stdout.trim()).join("manifest.json").exists()
    );
    run.assert_unchanged(&before);
    run.run(&["status"]).exits(30);
}

#[test]
fn writers_wait_behind_the_fence_and_readers_do_not() {
    let run = run();
    run.migration("0001_a.sql", "SELECT pg_sleep(60);\n");
    let before = run.fingerprint();
    let running = run.start(&[]);
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'SELECT pg_sleep%'",
        run.database.name()
    );
    until("the migration sleeps", || run.database.cluster().psql(&sleeping) == "1");
    assert_eq!(run.database.psql("SELECT count(*) FROM users"), "20");
    let mut writer = run.database.session();
    let refused =
        writer.try_run("SET lock_timeout = '100ms'; INSERT INTO users (name) VALUES ('late')").unwrap_err();
    assert!(refused.contains("55P03"), "{refused}");
    running.signal("TERM");
    running.outcome().exits(143);
    // The sequence gave a value to the writer: not our doing.
    before.without(&["sequence "]).assert_same(&fingerprint(&run.database).without(&["sequence "]));
}
