//! External commands, and statements that can't run in a transaction: what fails or destroys is undone by a restore.

use std::process::Command;

use tests::protected_run::kill;
use tests::{Ended, ProtectedRun, Running, fixtures, psql, until};

const PSQL: [&str; 4] = ["psql", "-Xqt", "-v", "ON_ERROR_STOP=1"];

/// `safe-run FLAGS… -- psql -c SQL`.
fn psql_under_protection(run: &ProtectedRun, flags: &[&str], sql: &str) -> Running {
    let mut arguments = flags.to_vec();
    arguments.push("--");
    arguments.extend(PSQL);
    arguments.extend(["-c", sql]);
    run.start(&arguments)
}

/// The failed state, under the name that the report gives.
fn failed_state(run: &ProtectedRun, outcome: &Ended) -> String {
    let others = run.others();
    assert_eq!(others.len(), 1, "{others:?}");
    assert!(outcome.stdout.contains(&others[0]), "{} is not named in: {outcome}", others[0]);
    run.database.cluster().url(&others[0])
}

tests::on_every_major! {
    fn a_command_that_succeeds_stands(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        psql_under_protection(&run, &[], "INSERT INTO users (name) VALUES ('new')").outcome().exits(0).verdict("COMMITTED");
        assert_eq!(run.database.psql("SELECT count(*) FROM users"), "21");
        assert_eq!(run.others(), Vec::<String>::new());
        run.assert_open();
    }

    fn a_command_that_fails_is_undone_and_its_state_is_kept_beside(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        let before = run.fingerprint();
        let sql = "DROP TABLE order_items; UPDATE orders SET total = 0; DO $$ BEGIN PERFORM setval('tickets', 1), lo_unlink(900001); END $$; SELECT 1 / 0";
        // One -c is one transaction; a file is not.
        let file = run.file("change.sql", &sql.replace("; SELECT", ";\nSELECT"));
        let outcome = run.run(&["--", "psql", "-Xqt", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()]);
        let outcome = outcome.exits(12).verdict("RESTORED").says("exit code 3").says("compared row by row");
        run.assert_unchanged(&before);
        assert_eq!(psql::run(&failed_state(&run, &outcome), "SELECT sum(total) FROM orders"), "0.00");
    }

    fn a_command_that_destroys_data_and_says_nothing_is_undone(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        let before = run.fingerprint();
        let outcome = psql_under_protection(&run, &[], "DELETE FROM orders WHERE id > 40").outcome();
        let outcome = outcome.exits(13).verdict("RESTORED").says("orders").says("60").says("--allow-loss");
        run.assert_unchanged(&before);
        assert_eq!(psql::run(&failed_state(&run, &outcome), "SELECT count(*) FROM orders"), "40");
    }

    fn a_failing_unique_index_built_concurrently_is_undone(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n")
            .migration("0002_b.sql", "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id);\n");
        let before = run.fingerprint();
        let outcome = run.run(&[]).exits(12).verdict("RESTORED").says("0002_b.sql:1").says("23505");
        run.assert_unchanged(&before);
        let invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid";
        assert!(outcome.stdout.contains("the invalid index once"), "{outcome}");
        assert_eq!(psql::run(&failed_state(&run, &outcome), invalid), "");
    }
}

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

#[test]
fn an_index_built_concurrently_commits() {
    let run = run();
    run.migration("0001_a.sql", "CREATE INDEX CONCURRENTLY by_user ON orders (user_id);\n")
        .migration("0002_b.sql", "ALTER TABLE orders ADD status text;\n");
    run.run(&[]).exits(0).verdict("COMMITTED").says("2 migrations");
    assert_eq!(run.database.psql("SELECT version FROM safe_run.migrations ORDER BY 1"), "0001\n0002");
    run.assert_open();
    run.run(&[]).exits(0).verdict("UP TO DATE");
}

#[test]
fn a_stray_commit_beside_a_file_without_a_transaction_is_refused_before_anything_runs() {
    let run = run();
    run.migration("0001_a.sql", "CREATE INDEX CONCURRENTLY by_user ON orders (user_id);\n")
        .migration("0002_b.sql", "CREATE TABLE b (i int);\nCOMMIT;\nCREATE TABLE c (i int);\n");
    let before = run.fingerprint();
    run.run(&[]).exits(3).says("0002_b.sql:2");
    run.assert_unchanged(&before);
    assert_eq!(run.runs(), Vec::<String>::new());
}

#[test]
fn an_index_left_invalid_by_a_command_that_says_nothing_is_undone() {
    let run = run();
    let before = run.fingerprint();
    run.run(&[
        "--",
        "sh",
        "-c",
        "psql -Xqc 'CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id)'; exit 0",
    ])
    .exits(13)
    .says("once")
    .says("invalid");
    run.assert_unchanged(&before);
}

#[test]
fn a_database_with_everything_in_it_comes_back() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(tests::Cluster::shared(major).fresh_database("all"));
        fixtures::load_everything(&run.database);
        // What a swap would leave behind is refused before anything runs.
        if major >= 18 {
            run.run(&["--", "psql", "-c", "SELECT 1"]).exits(3).says("subscription unconnected");
            run.database.psql("DROP SUBSCRIPTION unconnected");
        }
        let before = run.fingerprint();
        let file = run.file("x.sql", "DROP SCHEMA app CASCADE;\n\nSELECT 1 / 0;\n");
        let outcome =
            run.run(&["--", "psql", "-Xqt", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()]).exits(12);
        // A restored index is whole, and a materialized view is made anew: said when the snapshot is taken.
        let known = ["invalid index", "materialized view \"app.stale\""];
        let diff = before.without(&known).diff(&run.fingerprint().without(&known));
        assert!(diff.is_empty(), "PostgreSQL {major}:\n{diff}\n{outcome}");
        run.assert_open();
    }
}

#[test]
fn a_killed_psql_is_undone() {
    let run = run();
    let before = run.fingerprint();
    let running = run.start(&["--", "sh", "-c", "echo $$ > pid; exec psql -Xqtc 'DELETE FROM audit' -c 'DROP TABLE order_items' -c 'SELECT pg_sleep(60)'"]);
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query = 'SELECT pg_sleep(60)'",
        run.database.name()
    );
    until("the command sleeps", || run.database.cluster().psql(&sleeping) == "1");
    kill("KILL", std::fs::read_to_string(run.folder().join("pid")).unwrap().trim());
    running.outcome().exits(12).verdict("RESTORED").says("signal 9");
    run.assert_unchanged(&before);
    assert_eq!(run.database.cluster().psql(&sleeping), "0");
}

#[test]
fn a_command_on_another_database_or_on_none_is_a_failure() {
    let run = run();
    let other = run.database.cluster().fresh_database("other");
    let before = run.fingerprint();
    run.run(&["--", "true"])
        .exits(1)
        .verdict("NOT CONNECTED")
        .says("never connected")
        .says("neither checked nor undone");
    let url = other.url();
    run.run(&["--", "psql", "-X", "-q", "-d", &url, "-c", "SELECT 1"]).exits(1).says("another database");
    run.assert_unchanged(&before);
    assert_eq!(run.others(), Vec::<String>::new());
}

#[test]
fn a_command_that_does_not_exist_is_a_usage_error() {
    let run = run();
    let before = run.fingerprint();
    run.run(&["--", "no-such-migration-tool", "up"]).exits(2).says("no-such-migration-tool").says("PATH");
    run.assert_unchanged(&before);
}

#[test]
fn output_passes_through_and_json_has_stdout_for_itself() {
    let run = run();
    let script = "psql -X -Atc 'SELECT 41 + 1'; echo problem >&2";
    let outcome = run.run(&["--", "sh", "-c", script]).exits(0);
    assert!(outcome.stdout.starts_with("42\n"), "{outcome}");
    assert!(outcome.stderr.contains("problem\n"), "{outcome}");
    let outcome = run.run(&["--json", "--", "sh", "-c", script]).exits(0);
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&document["schema"], &document["exit_code"]), (&1.into(), &0.into()), "{outcome}");
    assert_eq!(document["command"]["exit_code"], 0);
    assert!(outcome.stderr.contains("42\n"), "{outcome}");
}

#[test]
fn the_command_finds_the_database_in_its_environment() {
    let run = run();
    let name = run.database.name().to_owned();
    let mut command = run.command(&["--", "sh", "-c", "env; psql -X -Atc 'SELECT current_database()'; psql -X -Atd \"$DATABASE_URL\" -c 'SHOW application_name'"]);
    command.env("PGSERVICE", "").env("PGTZ", "Europe/Berlin");
    let outcome = Running::start(command).outcome().exits(0);
    let id = &run.runs()[0];
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for expected in [
        format!("PGDATABASE={name}"),
        format!("PGAPPNAME=safe-run/{id}"),
        "PGUSER=postgres".to_owned(),
        name,
        format!("safe-run/{id}"),
    ] {
        assert!(lines.contains(&expected.as_str()), "{expected} is not in {outcome}");
    }
    for prefix in ["DATABASE_URL=postgresql://", "PGHOST=/", "PGPORT=5432"] {
        assert!(lines.iter().any(|line| line.starts_with(prefix)), "{prefix} is not in {outcome}");
    }
}

#[test]
fn a_password_is_never_an_argument_and_never_shown() {
    let cluster = tests::Cluster::start(18, &tests::Options::new().scram());
    let run = ProtectedRun::shop_on(&cluster);
    cluster.psql("ALTER ROLE postgres PASSWORD 'hunter22'");
    let before = run.fingerprint();
    let url = cluster.tcp_url("postgres:hunter22", "127.0.0.1", run.database.name());
    // Every process that safe-run starts is its child, or the command's.
    let tool = run.with_tool("pg_dump", "echo \"$0 $*\" >> arguments\nexec \"$REAL\" \"$@\"");
    let script = "psql -Xqc 'DROP TABLE audit'; ps -eo args > ps || cat /proc/[0-9]*/cmdline > ps; exit 1";
    let mut command = run.command(&["-v", "--", "sh", "-c", script]);
    command.env("DATABASE_URL", &url).env("SAFE_RUN_PG_BIN", &tool);
    Running::start(command).outcome().exits(12).never_says("hunter22");
    run.assert_unchanged(&before);
    for file in ["ps", "arguments"] {
        let text = std::fs::read(run.folder().join(file)).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("hunter22"), "a password in {file}");
    }
    let found = Command::new("grep").args(["-rl", "hunter22"]).arg(run.folder()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "a password in a file");
}

#[test]
fn other_sessions_can_not_write_while_the_command_runs_and_can_again_afterwards() {
    let run = run();
    let mut early = run.database.session();
    let before = run.fingerprint();
    let running = run.start(&[
        "--",
        "sh",
        "-c",
        "psql -Xqc 'DELETE FROM order_items'; touch ready; while [ ! -e go ]; do sleep 0.05; done; exit 1",
    ]);
    until("the command has begun", || run.folder().join("ready").exists());
    let refused = run.database.try_psql("INSERT INTO users (name) VALUES ('late')").unwrap_err();
    assert!(refused.contains("read-only transaction"), "{refused}");
    let ended = early.try_run("INSERT INTO users (name) VALUES ('early')").unwrap_err();
    assert!(ended.contains("57P01") || ended.contains("psql ended"), "{ended}");
    run.file("go", "");
    running.outcome().exits(12);
    before.assert_same(&run.fingerprint());
    run.assert_open();
    run.database.psql("INSERT INTO users (name) VALUES ('again')");
}

#[test]
fn a_fence_that_stood_before_is_put_back_as_it_was() {
    let run = run();
    run.database
        .psql(&format!("ALTER DATABASE \"{}\" SET default_transaction_read_only = off", run.database.name()));
    let before = run.fingerprint();
    run.run(&["--", "sh", "-c", "psql -Xqc 'DROP TABLE audit'; exit 7"]).exits(12);
    run.assert_unchanged(&before);
    psql_under_protection(&run, &[], "UPDATE users SET name = name").outcome().exits(0);
    run.assert_unchanged(&before);
}

#[test]
fn without_a_fence_a_failure_stops_for_a_person() {
    let run = run();
    run.run(&[
        "--fence",
        "none",
        "--",
        "sh",
        "-c",
        "psql -Xqc 'DELETE FROM audit; DROP TABLE order_items'; exit 5",
    ])
    .exits(14)
    .verdict("STOPPED")
    .says("exit code 5")
    .says("holds what the failed run left behind")
    .says("holds the state before")
    .says("restore 2");
    assert!(run.database.try_psql("SELECT FROM order_items").is_err());
    run.assert_open();
    // Told to undo, it does.
    let before = run.fingerprint();
    run.run(&[
        "--fence",
        "none",
        "--on-failure",
        "undo",
        "--",
        "sh",
        "-c",
        "psql -Xqc 'DROP TABLE orders'; exit 5",
    ])
    .exits(12);
    run.assert_unchanged(&before);
}

#[test]
fn told_to_stop_it_keeps_the_failed_state_and_lifts_the_fence() {
    let run = run();
    run.run(&["--on-failure", "stop", "--", "sh", "-c", "psql -Xqc 'DROP TABLE order_items'; exit 5"])
        .exits(14);
    assert!(run.database.try_psql("SELECT FROM order_items").is_err());
    run.assert_open();
    run.run(&["--snapshot", "none", "--", "psql", "-c", "SELECT 1"]).exits(2).says("--on-failure stop");
    run.run(&["--snapshot", "none", "--on-failure", "stop", "--", "psql", "-X", "-c", "SELECT 1"]).exits(0);
    run.assert_open();
}

#[test]
fn a_loss_that_is_meant_stands() {
    let run = run();
    psql_under_protection(
        &run,
        &["--allow-loss", "order_items=60"],
        "DELETE FROM order_items WHERE id <= 60",
    )
    .outcome()
    .exits(0);
    let before = run.fingerprint();
    let outcome = psql_under_protection(
        &run,
        &["--allow-loss", "order_items=60"],
        "DELETE FROM order_items WHERE id <= 121",
    )
    .outcome();
    outcome.exits(13).says("61");
    run.assert_unchanged(&before);
}

#[test]
fn the_run_log_has_its_steps_with_times() {
    let run = run();
    run.run(&["--", "sh", "-c", "psql -Xqc 'DROP TABLE audit'; exit 1"]).exits(12);
    let report: serde_json::Value =
        serde_json::from_str(&run.run(&["report", "--json"]).exits(0).stdout).unwrap();
    let phases: Vec<&str> =
        report["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    for expected in ["fence", "snapshot", "command", "undo"] {
        assert!(phases.iter().any(|phase| phase.contains(expected)), "no {expected} in {phases:?}");
    }
    assert!(report["phases"].as_array().unwrap().iter().all(|phase| phase["seconds"].as_f64().is_some()));
    assert_eq!(report["schema"], 1);
    run.run(&["report"]).exits(0).verdict("RESTORED").says("undo");
    run.run(&["history"]).exits(0).says("RESTORED").says(" 12 ");
}

#[test]
fn a_command_that_swallows_the_refusal_of_the_fence_is_not_called_a_success_of_every_check() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        // Options of its own take the place of ours, and its errors are ignored.
        let script = "PGOPTIONS='-c statement_timeout=60s' psql -Xqc 'CREATE TABLE never_made ()'; exit 0";
        run.run(&["--", "sh", "-c", script])
            .exits(0)
            .says("nothing was written, and it may have been refused")
            .says("--fence exclusive")
            .never_says("every check passed");
        // With a clone every session is opened behind the fence, ours too.
        run.run(&["--snapshot", "clone", "--", "sh", "-c", script])
            .exits(0)
            .says("nothing was written, and it may have been refused");
        // A handler swallows it within the transaction, which then commits nothing.
        let handled = "PGOPTIONS= psql -Xqc 'DO $$ BEGIN CREATE TABLE never_made (); EXCEPTION WHEN OTHERS THEN NULL; END $$'";
        run.run(&["--", "sh", "-c", handled]).exits(0).says("note: the server counted no row written");
        // Who reads, or whose writes arrive, is not told that.
        run.run(&["--", "psql", "-Xqc", "SELECT 1"])
            .exits(0)
            .says("every check passed")
            .never_says("--fence exclusive");
        let both = "psql -Xqc 'CREATE TABLE made ()'; psql -Xqc 'SELECT 1/0'; exit 0";
        run.run(&["--", "sh", "-c", both])
            .exits(0)
            .says("every check passed")
            .never_says("no row written")
            .never_says("--fence exclusive");
        // A failure that has nothing to do with the fence does not name it.
        run.run(&["--", "sh", "-c", "psql -Xqc 'CREATE TABLE other ()'; exit 3"])
            .exits(12)
            .never_says("transaction is read-only");
    }
}
