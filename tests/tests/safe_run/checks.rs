//! The checks as a run uses them: what they undo, what they allow, what is done after the commit, and `--verify`.

use tests::{Cluster, ProtectedRun};

use tests::cluster::ends;

#[test]
fn a_view_made_again_without_its_grants_is_undone_and_one_with_them_stands() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "DO $$ BEGIN CREATE ROLE safe_run_checks_reader; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
            CREATE VIEW totals AS SELECT sum(total) FROM orders; GRANT SELECT ON totals TO safe_run_checks_reader",
        );
        let before = run.fingerprint();
        run.migration(
            "1_view.sql",
            "DROP VIEW totals;\nCREATE VIEW totals AS SELECT sum(total), count(*) FROM orders;",
        );
        run.run(&[]).exits(11).verdict("ROLLED BACK").says(
            "view totals was dropped and made again without its grants: SELECT to safe_run_checks_reader",
        );
        run.assert_unchanged(&before);
        run.migration(
            "1_view.sql",
            "DROP VIEW totals; CREATE VIEW totals AS SELECT sum(total), count(*) FROM orders;
             DO $$ BEGIN EXECUTE 'GRANT SELECT ON totals TO safe_run_checks_reader'; END $$;
             REVOKE SELECT ON orders FROM safe_run_checks_reader; GRANT SELECT ON orders TO safe_run_checks_reader",
        );
        run.run(&["--verbose"])
            .exits(0)
            .says("advice: table orders has new grants: SELECT to safe_run_checks_reader");
        run.migration("2_hidden.sql", "CREATE FUNCTION sneak() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''GR''||''ANT SELECT ON users TO safe_run_checks_reader''; END'; SELECT sneak()");
        run.run(&[]).exits(11).says("table users has new grants");
        run.run(&["--skip", "privileges"]).exits(0);
    }
}

#[test]
fn what_lost_its_statistics_is_analyzed_after_the_commit_in_a_transaction_and_outside() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql("ANALYZE");
        let statistics = "SELECT count(*) FROM pg_stats WHERE tablename IN ('orders', 'users') AND attname IN ('total', 'id', 'name')";
        assert_eq!(run.database.psql(statistics).trim(), "4");
        run.migration("1_type.sql", "ALTER TABLE orders ALTER total TYPE numeric(12, 2)").migration(
            "1_type.sql",
            "ALTER TABLE orders ALTER total TYPE float8; ALTER TABLE orders ALTER total TYPE numeric(12, 2)",
        );
        run.run(&[]).exits(0).says("note: 1 column of orders had lost the planner's statistics: analyzed");
        assert_eq!(run.database.psql(statistics).trim(), "4");
        run.migration("2_outside.sql", "-- safe-run: no-transaction\nALTER TABLE users ALTER id TYPE bigint;\nALTER TABLE users ALTER name TYPE varchar(100);");
        run.run(&[]).exits(0).says("2 columns of users had lost the planner's statistics: analyzed");
        assert_eq!(run.database.psql(statistics).trim(), "4");
    }
}

#[test]
fn a_command_that_breaks_a_function_or_an_enum_is_undone() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "CREATE FUNCTION spent() RETURNS numeric LANGUAGE sql AS 'SELECT sum(total) FROM orders';
            CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE diary (m mood)",
        );
        let before = run.fingerprint();
        let psql = |sql: &str| run.run(&["--", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        psql("ALTER TABLE orders RENAME total TO sum")
            .exits(13)
            .verdict("RESTORED")
            .says("function spent() does not compile: column \"total\" does not exist");
        psql("ALTER TABLE diary ALTER m TYPE text; DROP TYPE mood; CREATE TYPE mood AS ENUM ('glad', 'sad'); ALTER TABLE diary ALTER m TYPE mood USING m::mood")
            .exits(13)
            .says("enum mood sorts differently");
        // A command's SQL cannot be seen: what it grants is shown and stands.
        psql("GRANT SELECT ON orders TO PUBLIC").exits(0);
        run.database.psql("REVOKE SELECT ON orders FROM PUBLIC");
        before.assert_same(&run.fingerprint());
    }
}

#[test]
fn files_of_verify_undo_a_run_whose_rows_they_do_not_want() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.file(
            "verify/1_totals.sql",
            "-- every order costs something\nSELECT id, total, note\nFROM orders\nWHERE total = 0;\nVALUES (1) LIMIT 0;",
        );
        run.file("verify/2_advice.sql", "-- safe-run: note\nSELECT count(*) AS users FROM users");
        let before = run.fingerprint();
        run.migration("1_sale.sql", "UPDATE orders SET total = 0 WHERE id IN (3, 4)");
        let verify = ["--verify", "verify"];
        run.run(&verify)
            .exits(11)
            .verdict("ROLLED BACK")
            .says("verify/1_totals.sql:2: every order costs something: 2 rows where none may be: (id 3, total 0.00, note order 3)");
        run.assert_unchanged(&before);
        // Behind the read-only fence, for a command, too.
        run.run(&[
            "--verify",
            "verify",
            "--",
            "psql",
            "-X",
            "-c",
            "UPDATE orders SET total = 0 WHERE id = 3",
        ])
        .exits(13)
        .says("verify/1_totals.sql:2: every order costs something: 1 row where none may be");
        before.assert_same(&run.fingerprint());
        // An assertion that cannot be made proves nothing, and one that writes is refused.
        run.file("verify/1_totals.sql", "SELECT 1 WHERE false;\nSELECT id\nFROM orders\nWHERE amount = 0");
        run.run(&verify).exits(11).says("verify/1_totals.sql:2: could not run line 4 of verify/1_totals.sql: column \"amount\" does not exist");
        run.file("verify/1_totals.sql", "SELECT setval('tickets', 1)");
        run.run(&verify).exits(11).says("cannot execute setval() in a read-only transaction");
        run.file("verify/1_totals.sql", "SELECT i FROM generate_series(1, 3000000) i");
        run.run(&verify).exits(11).says("3,000,000 rows where none may be: (i 1), (i 2)");
        run.file("verify/1_totals.sql", "DELETE FROM orders");
        run.run(&verify).exits(2).says("verify/1_totals.sql:1: `DELETE FROM orders` is no query");
        run.run(&["--verify", "nowhere"]).exits(2).says("nowhere");
        run.assert_unchanged(&before);
        // With the check command, and all well.
        run.file("verify/1_totals.sql", "SELECT id FROM orders WHERE total < 0");
        run.run(&["check", "--verify", "verify"])
            .exits(0)
            .says("note: verify/2_advice.sql:2: 1 row where none may be: (users 20)");
        run.run(&verify).exits(0).verdict("COMMITTED");
        run.file("verify/1_totals.sql", "SELECT id FROM orders WHERE total = 0");
        run.run(&["check", "--verify", "verify"]).exits(31).says("2 rows where none may be");
        run.run(&["check", "--verify", "verify", "--skip", "verify"]).exits(0);
    }
}

/// Any query may answer in TAP; what it needs does not have to be pgTAP.
#[test]
fn tap_is_understood_whoever_writes_it() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.migration("1_a.sql", "CREATE TABLE a (id int)");
        let tap =
            run.file("tap/t.sql", "VALUES ('1..2'), ('ok 1 - fine'), ('not ok 2 - wrong'), ('# have: 1')");
        run.run(&["--verify", "tap"]).exits(11).says("tap/t.sql: test 2 failed: wrong (have: 1)");
        std::fs::write(&tap, "VALUES ('1..2'), ('ok 1 - fine')").unwrap();
        run.run(&["--verify", "tap"]).exits(11).says("tap/t.sql: 2 tests were planned, and 1 ran");
        std::fs::write(&tap, "VALUES ('1..1'), ('ok 1 - fine')").unwrap();
        run.run(&["--verify", "tap"]).exits(0);
    }
}

/// pgTAP comes from the distribution; where it is not, the test above stands for the format.
#[test]
fn pgtap_itself_runs_inside_the_transaction_and_leaves_nothing() {
    let run = ProtectedRun::shop(15);
    if let Err(error) = run.database.try_psql("CREATE SCHEMA tap; CREATE EXTENSION pgtap SCHEMA tap") {
        assert!(
            error.contains("is not available") || error.contains("could not open extension control file"),
            "{error}"
        );
        eprintln!("pgTAP is not on this machine");
        return;
    }
    run.database.psql(&format!("ALTER DATABASE \"{}\" SET search_path = public, tap", run.database.name()));
    let before = run.fingerprint();
    run.migration("1_a.sql", "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)");
    run.file(
        "tap/a.sql",
        "\\set ECHO none\n\\unset ON_ERROR_STOP\nBEGIN;\nSELECT plan(4);\nSELECT has_table('a');\nSELECT col_is_pk('a', 'id');\n\
         INSERT INTO a VALUES (2);\nSELECT throws_ok('INSERT INTO a VALUES (2)', '23505');\n\
         SELECT results_eq('SELECT id FROM a ORDER BY id', ARRAY[1, 3], 'the rows');\nSELECT * FROM finish();\nROLLBACK;\n",
    );
    run.run(&["--verify", "tap"]).exits(11).verdict("ROLLED BACK").says(
        "tap/a.sql: test 4 failed: the rows (Results differ beginning at row 2:; have: (2); want: (3))",
    );
    run.assert_unchanged(&before);
    run.file(
        "tap/a.sql",
        "BEGIN; SELECT * FROM no_plan(); SELECT is((SELECT count(*)::int FROM a), 1); SELECT nope(); SELECT * FROM finish(); ROLLBACK;",
    );
    run.run(&["--verify", "tap"]).exits(11).says("function nope() does not exist");
    run.file(
        "tap/a.sql",
        "BEGIN; SELECT * FROM no_plan(); INSERT INTO a VALUES (2); SELECT is((SELECT count(*)::int FROM a), 2); SELECT * FROM finish(); ROLLBACK;",
    );
    run.run(&["--verify", "tap"]).exits(0);
    assert_eq!(run.database.psql("TABLE a").trim(), "1");
    run.run(&["check", "--verify", "tap"]).exits(0);
    assert_eq!(run.database.psql("TABLE a").trim(), "1");
}

#[test]
fn rows_may_only_go_where_the_sql_or_an_annotation_says_so() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "CREATE TABLE log (at int, what text) PARTITION BY RANGE (at);
            CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (100);
            CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (100) TO (200);
            INSERT INTO log SELECT i, 'x' FROM generate_series(1, 150) i",
        );
        let before = run.fingerprint();
        // 3 of 100 orders take 9 of 300 items with them: by ON DELETE CASCADE, and below 10 %.
        run.migration("1_a.sql", "DELETE FROM orders WHERE id <= 30");
        run.run(&[])
            .exits(11)
            .says("orders lost 30 of 100 rows (30.0 %), more than the 10.0 %")
            .says("order_items lost 90 of 300");
        run.assert_unchanged(&before);
        run.migration("1_a.sql", "-- safe-run: rows orders = -40..-30\n-- safe-run: rows order_items = -90\nDELETE FROM orders WHERE id <= 30");
        run.run(&[]).exits(0);
        run.migration("2_a.sql", "-- safe-run: rows orders = -12..-10\nDELETE FROM orders WHERE id <= 33");
        run.run(&[]).exits(11).says("the migration announces a change of -12 to -10");
        run.migration("2_a.sql", "DELETE FROM orders WHERE id <= 33");
        run.run(&[])
            .exits(0)
            .says("rows: orders lost 3 of 70 rows")
            .says("rows: order_items lost 9 of 210 rows");
        // A partition that leaves its tree takes no row away; one that is dropped does.
        run.migration("3_a.sql", "ALTER TABLE log DETACH PARTITION log_1; CREATE TABLE log_3 PARTITION OF log FOR VALUES FROM (200) TO (300)");
        run.run(&[]).exits(0);
        run.migration("4_a.sql", "ALTER TABLE log ATTACH PARTITION log_1 FOR VALUES FROM (0) TO (100)");
        run.run(&[]).exits(0);
        run.migration("5_a.sql", "ALTER TABLE log DETACH PARTITION log_1; DROP TABLE log_1");
        run.run(&[]).exits(11).says("log lost 99 of 150 rows").says("--allow-loss log=99");
        run.run(&["--allow-loss", "log=99"]).exits(0);
        if major >= 15 {
            let merge = "MERGE INTO audit a USING (VALUES (1)) v (id) ON a.id = v.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'x')";
            run.migration("6_a.sql", merge);
            run.run(&[]).exits(0).says("rows: audit gained 1 row");
            run.migration("7_a.sql", merge);
            run.run(&[]).exits(11).says("audit lost 1 of 1 rows").says("allow it with --allow-loss audit=1");
            run.run(&["--allow-loss", "audit=1"]).exits(0);
        }
    }
}

#[test]
fn new_indexes_are_looked_at_with_an_amcheck_that_does_not_stay_and_strict_wants_it() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.migration("1_a.sql", "CREATE INDEX ON orders (user_id); UPDATE order_items SET sku = sku || '!'");
        let done = run.run(&["--strict", "--verbose", "--json"]).exits(0);
        let report: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert!(
            report["skipped"].as_array().unwrap().iter().all(|skipped| skipped["counts_for_strict"] == false),
            "{report}"
        );
        assert_eq!(
            run.database.psql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'").trim(),
            "0"
        );
        assert_eq!(
            run.database.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'safe_run_amcheck'").trim(),
            "0"
        );
        // Outside of a transaction, behind the read-only fence.
        run.migration("2_b.sql", "-- safe-run: no-transaction\nCREATE INDEX CONCURRENTLY ON orders (total)");
        run.run(&["--strict"]).exits(0).verdict("COMMITTED").never_says("not checked");
        // Everything at deep, from the check command.
        run.run(&["check", "--level", "deep"]).exits(0).verdict("CLEAN").says("at level deep");
        assert_eq!(
            run.database.psql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'").trim(),
            "0"
        );
        // A deep run: unreached tables are compared value by value.
        run.migration("3_a.sql", "UPDATE orders SET note = 'x'");
        run.run(&["--level", "deep"]).exits(0);
    }
}

#[test]
fn the_check_command_lists_its_catalogue_and_says_what_it_could_not_look_at() {
    let run = ProtectedRun::shop(18);
    let listed = run.run(&["check", "--list", "--json"]).exits(0);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let listed = listed["checks"].as_array().expect("a list").clone();
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md");
    let docs = std::fs::read_to_string(docs).expect("docs/checks.md");
    for entry in &listed {
        let text = |key: &str| entry[key].as_str().expect("a string").to_owned();
        let effect = if entry["fails"] == true { "fails" } else { "notes" };
        let row = format!(
            "| `{}` | {} | {effect} | {} | {} |",
            text("check"),
            text("level"),
            text("finds"),
            text("costs")
        );
        assert!(docs.contains(&row), "docs/checks.md has no row:\n{row}");
        run.run(&["check", "--only", &text("check")]).exits(0);
    }
    let catalogue = docs.split("\n## ").find(|part| part.starts_with("The catalogue")).expect("the section");
    assert_eq!(
        catalogue.matches("\n| `").count(),
        listed.len(),
        "docs/checks.md has a row for a check that is not there"
    );
    run.run(&["check", "--list"]).exits(0).says("replica-identity").says("from level standard  fails a run");
    run.run(&["check", "--only", "nothing"]).exits(2).says("check --list");
    let cluster = Cluster::shared(18);
    run.database.psql(
        "DO $$ BEGIN CREATE ROLE safe_run_checks_plain LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
        GRANT SELECT ON users TO safe_run_checks_plain; ALTER TABLE order_items DISABLE TRIGGER ALL",
    );
    let mut plain = run.command(&["check", "--skip", "triggers"]);
    plain.env("DATABASE_URL", cluster.url_as("safe_run_checks_plain", run.database.name()));
    tests::Running::start(plain)
        .outcome()
        .exits(0)
        .verdict("CLEAN SO FAR")
        .says("not checked: rows of orders: permission denied");
    let mut strict = run.command(&["check", "--skip", "triggers", "--strict"]);
    strict.env("DATABASE_URL", cluster.url_as("safe_run_checks_plain", run.database.name()));
    tests::Running::start(strict).outcome().exits(31).verdict("NOT CHECKED");
    run.run(&["check"]).exits(31).verdict("VIOLATIONS").says("--verbose shows SQL");
}

#[test]
fn grants_and_labels_that_are_meant_to_go_may_go() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "DO $$ BEGIN CREATE ROLE safe_run_checks_reader; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
            CREATE VIEW totals AS SELECT sum(total) FROM orders; GRANT SELECT ON totals TO safe_run_checks_reader;
            CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); ALTER TABLE users ADD feels mood DEFAULT 'glad'",
        );
        let before = run.fingerprint();
        let sql = "DROP VIEW totals;\nCREATE VIEW totals AS SELECT sum(total), count(*) FROM orders;
            ALTER TYPE mood RENAME TO old_mood; CREATE TYPE mood AS ENUM ('sad', 'glad');
            ALTER TABLE users ALTER feels DROP DEFAULT;
            ALTER TABLE users ALTER feels TYPE mood USING feels::text::mood; DROP TYPE old_mood;\n";
        let run_with = |annotations: &str| {
            run.migration("1_view.sql", &format!("{annotations}{sql}"));
            run.run(&["--verbose"])
        };
        // No row has a label that the columns' conversion did not know: that alone fails nothing.
        run_with("")
            .exits(11)
            .says("without its grants")
            .says("hint: If that is meant, say so with `--allow-lost-grants NAME`");
        run_with("-- safe-run: allow-lost-labels mood = ok\n")
            .exits(11)
            .says("totals was dropped and made again without its grants");
        run.assert_unchanged(&before);
        run.migration("1_view.sql", sql);
        run.run(&["--verbose", "--allow-lost-grants", "public.totals"])
            .exits(0)
            .verdict("COMMITTED")
            .says("advice: enum mood lost label 'ok'; it was made again, and no row can have it any more")
            .says("advice: view totals was dropped and made again without its grants");
        // Torn out of the catalog, rows may have it still. Each allows what it names and nothing else.
        let torn = "DELETE FROM pg_enum WHERE enumlabel = 'sad';\n";
        run.migration("2_torn.sql", torn);
        run.run(&[]).exits(11).says("enum mood lost label 'sad'").says("--allow-lost-labels NAME");
        run.run(&["--allow-lost-labels", "mood=glad"]).exits(11);
        run.run(&["--allow-lost-labels", "mood = sad"]).exits(0).verdict("COMMITTED");
    }
}

/// "CLEAN" and "every check passed" are said of what was looked at, and of nothing else.
#[test]
fn no_verdict_is_good_where_nothing_was_looked_at() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        for checks in ["structure", "privileges", "enums", "statistics", "content"] {
            run.run(&["check", "--only", checks])
                .exits(0)
                .verdict("NOTHING CHECKED")
                .says("structure looks at what a run made");
            run.run(&["check", "--only", checks, "--strict"]).exits(31).verdict("NOTHING CHECKED");
        }
        let told = run.run(&["check", "--only", "structure", "--json"]).exits(0);
        let document: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(document["checked"], serde_json::json!([]));
        run.run(&["check", "--only", "structure", "--level", "deep"]).exits(0).verdict("CLEAN");
        run.run(&["check", "--only", "triggers", "--strict"]).exits(0).verdict("CLEAN");

        // A database without anything, and one without tables.
        let empty = ProtectedRun::on(Cluster::shared(major).fresh_database("empty"));
        let nothing = "the database has no table, view, function or sequence";
        empty.run(&["check"]).exits(0).verdict("NOTHING CHECKED").says(nothing);
        empty.run(&["check", "--strict"]).exits(31).verdict("NOTHING CHECKED").says(nothing);
        empty.database.psql("CREATE VIEW v AS SELECT 1");
        empty.run(&["check"]).exits(0).verdict("CLEAN").says("what there is without tables checked");

        // No index is made or written through.
        let command = ["--", "psql", "-X", "-q", "-c", "COMMENT ON TABLE users IS 'u'"];
        let with = |flags: &[&'static str]| run.run(&[flags, &command[..]].concat());
        with(&["--only", "structure", "--strict"]).exits(13).says("no check had anything to look at");
        with(&["--only", "structure"]).exits(0).verdict("COMMITTED").says("nothing was checked");

        // A role that may not make amcheck: the index is not looked at, which is said with the verdict.
        let owner = format!("{}_owner", run.database.name());
        run.database.psql(&format!("CREATE ROLE \"{owner}\" LOGIN IN ROLE postgres"));
        run.migration("2_index.sql", "CREATE INDEX by_total ON orders (total);\n");
        let mut command = run.command(&["--verbose"]);
        command.env("DATABASE_URL", run.database.cluster().url_as(&owner, run.database.name()));
        let outcome = tests::Running::start(command).outcome();
        let sql = "only a superuser can create amcheck: ";
        let outcome = outcome.exits(0).verdict("COMMITTED").says("not checked: structure of ").says(sql);
        let outcome = outcome
            .says("every check that ran passed, but 1 thing could not be checked (structure)")
            .says("checked: foreign-keys")
            .never_says("session_replication_role");
        // The SQL is what helps: with it, the same role's next index is looked at.
        let line =
            outcome.stdout.lines().find_map(|line| line.split_once(sql)).expect("the line").1.to_owned();
        run.database.psql(&line);
        run.migration("3_index.sql", "CREATE INDEX by_user ON orders (user_id);\n");
        let mut command = run.command(&["--strict"]);
        command.env("DATABASE_URL", run.database.cluster().url_as(&owner, run.database.name()));
        let again = tests::Running::start(command).outcome();
        run.database.psql(&format!(
            "REASSIGN OWNED BY \"{owner}\" TO postgres; DROP OWNED BY \"{owner}\"; DROP ROLE \"{owner}\""
        ));
        drop(again.exits(0).says("every check passed"));
    }
}

/// A fix mends no index that was made before it. What the release notes name is named with the SQL, and nothing else.
#[test]
fn indexes_that_a_fixed_fault_may_have_left_wrong_are_named_where_the_server_is_new_enough() {
    let run = ProtectedRun::on(Cluster::shared(18).fresh_database("wrong"));
    run.database.psql(
        "CREATE EXTENSION pg_trgm; CREATE TABLE t (b bpchar, c char(5), v varchar, w text[], x text);
         CREATE INDEX by_bpchar ON t (b); CREATE INDEX by_char ON t (c); CREATE INDEX by_text ON t (v, x);
         CREATE INDEX by_gin ON t USING gin (w); CREATE INDEX by_trigram ON t USING gist (x gist_trgm_ops);
         CREATE INDEX by_hash ON t USING hash (b); INSERT INTO t VALUES ('a', 'a', 'a', '{a}', 'a');
         DO $$ BEGIN FOR i IN 1..200 LOOP PERFORM lo_create(0); END LOOP; END $$",
    );
    run.database.psql("REINDEX TABLE CONCURRENTLY t");
    let check = |version: &str| {
        let mut command = run.command(&["check", "--verbose"]);
        command.env("SAFE_RUN_FAULT_NUMBER", format!("safe-run.server_version={version}"));
        tests::Running::start(command).outcome().exits(0)
    };
    let fixed = check("180007");
    for index in ["by_bpchar", "by_gin", "by_trigram"] {
        let sql = format!("REINDEX INDEX CONCURRENTLY \"public\".\"{index}\";");
        assert!(fixed.to_string().contains(&sql), "{index}: {fixed}");
    }
    let fixed = fixed
        .says("a B-tree on bpchar without a length")
        .says("a TOAST index that REINDEX CONCURRENTLY made");
    let fixed =
        fixed.says("it may be wrong").never_says("by_char").never_says("by_text").never_says("by_hash");
    assert_eq!(fixed.to_string().matches("it may be wrong").count(), 4, "{fixed}");
    // One that has the fault makes such indexes still: an upgrade comes first.
    drop(check("180006").never_says("it may be wrong"));
}

#[test]
fn a_rule_that_is_made_not_valid_over_rows_that_break_it_stands_and_the_rows_are_told() {
    for major in ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("not_valid"));
        run.database.psql(
            "CREATE TABLE p (id int PRIMARY KEY); CREATE DOMAIN d AS int; CREATE TABLE t (id int PRIMARY KEY, n int, pid int, d d);
             INSERT INTO t VALUES (1, -1, 7, -4), (2, 5, NULL, 4)",
        );
        run.migration(
            "1_rules.sql",
            "ALTER TABLE t ADD CONSTRAINT pos CHECK (n > 0) NOT VALID; ALTER TABLE t ADD FOREIGN KEY (pid) REFERENCES p NOT VALID;
             ALTER DOMAIN d ADD CONSTRAINT big CHECK (VALUE > 0) NOT VALID;",
        );
        run.run(&[])
            .exits(0)
            .verdict("COMMITTED")
            .says("note: 1 orphan in t.pid -> p.id (key 7), which the new rule accepts: it is NOT VALID")
            .says("note: 1 row violates CHECK pos of t (key 1), which the new rule accepts: it is NOT VALID");
        // NOT VALID hides nothing of a rule that was there.
        run.migration(
            "2_hidden.sql",
            "ALTER TABLE t DROP CONSTRAINT pos; INSERT INTO t VALUES (3, -3); ALTER TABLE t ADD CONSTRAINT pos2 CHECK (n > 0) NOT VALID;",
        );
        run.run(&[]).exits(11).says("violate CHECK pos2 of t (keys 1, 3)");
    }
}

/// Before 17 nothing keeps an event trigger that fires always from firing where the checks make something.
#[test]
fn a_check_says_what_event_triggers_may_have_moved_by_it() {
    for (major, is_told) in [(14, true), (18, false)] {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("moved"));
        run.database.psql(
            "CREATE TABLE booked (at int4range, EXCLUDE USING gist (at WITH &&)); CREATE SEQUENCE made;
             CREATE FUNCTION count_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.made'); END $$;
             CREATE EVENT TRIGGER count_ddl ON ddl_command_end EXECUTE FUNCTION count_ddl();
             ALTER EVENT TRIGGER count_ddl ENABLE ALWAYS",
        );
        let words =
            "this check may have moved numbers of sequences from which event triggers draw (count_ddl";
        let (text, json) = (run.run(&["check"]).exits(0), run.run(&["check", "--json"]).exits(0));
        assert_eq!((text.stdout.contains(words), json.stdout.contains(words)), (is_told, is_told), "{major}");
    }
}
