//! Bad input and busy servers: a clear message, a next step, the promised exit code, and nothing changed. And the
//! commands that only look.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use tests::{Cluster, Ended, ProtectedRun, Running, fixtures, until};

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

/// Ends with the code, says all of this, has a hint, and changes nothing.
#[track_caller]
fn refuses(run: &ProtectedRun, arguments: &[&str], code: i32, says: &[&str]) {
    let before = run.fingerprint();
    let mut outcome = run.run(arguments).exits(code).says("hint: ");
    for text in says {
        outcome = outcome.says(text);
    }
    run.assert_unchanged(&before);
}

fn json(outcome: &Ended) -> Value {
    let value: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
    assert_eq!(value["schema"], 1, "{outcome}");
    value
}

#[test]
fn a_missing_or_empty_directory_is_a_usage_error() {
    let run = run();
    refuses(&run, &["--dir", "nowhere"], 2, &["nowhere", "does not exist", "--dir"]);
    refuses(&run, &[], 2, &["no migrations in", "safe-run new"]);
    run.file("a-file", "");
    refuses(&run, &["--dir", "a-file"], 2, &["a-file", "not a directory"]);
}

#[test]
fn an_unreadable_file_is_a_usage_error() {
    let run = run();
    run.migration("0001_secret.sql", "SELECT 1;\n");
    let folder = run.folder().to_owned();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(
        folder.join("migrations/0001_secret.sql"),
        std::fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    let mut command = run.command(&[]);
    if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
        // Root can read everything, and the build may lie where only root can read.
        let copy = folder.join("safe-run");
        std::fs::copy(tests::binaries::binary("safe-run"), &copy).unwrap();
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).current_dir(&folder);
        command.env("DATABASE_URL", run.database.url());
    }
    let before = run.fingerprint();
    Running::start(command).outcome().exits(2).says("0001_secret.sql").says("hint: Make the file readable");
    run.assert_unchanged(&before);
}

#[test]
fn names_and_versions_that_do_not_fit_are_refused() {
    let run = run();
    run.migration("cleanup.sql", "SELECT 1;\n");
    refuses(&run, &[], 2, &["cleanup.sql", "0001_create_users.sql"]);
    std::fs::remove_file(run.folder().join("migrations/cleanup.sql")).unwrap();
    run.migration("0007_a.sql", "SELECT 1;\n").migration("7_b.sql", "SELECT 1;\n");
    refuses(&run, &[], 3, &["two migrations with version", "0007_a.sql", "7_b.sql"]);
}

#[test]
fn what_can_not_be_read_with_certainty_is_refused_by_line() {
    for (sql, says) in [
        ("SELECT 1;\n\\i other.sql\n", &["0001_a.sql:2", "\\i"][..]),
        ("SELECT 1;\n\nDELETE FROM {{ table }};\n", &["0001_a.sql:3"]),
        ("SELECT 1;\nDELETE FROM ${table};\n", &["0001_a.sql:2"]),
        ("SELECT 1;\nSELECT 'open;\n", &["0001_a.sql:2"]),
    ] {
        let run = run();
        run.migration("0001_a.sql", sql);
        refuses(&run, &[], 3, says);
    }
    let run = run();
    run.migration("0001_a.sql", "-- safe-run: alow-loss orders\nDELETE FROM orders;\n");
    refuses(&run, &[], 2, &["0001_a.sql:1", "alow-loss"]);
}

#[test]
fn an_edited_migration_is_refused_unless_only_its_comments_changed() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
    run.run(&[]).exits(0);
    run.migration("0001_a.sql", "-- why\nCREATE TABLE a\n  (i int);\n")
        .migration("0002_b.sql", "CREATE TABLE b (i int);\n");
    run.run(&[]).exits(0).verdict("COMMITTED").says("warning: 0001_a.sql was edited");
    run.migration("0001_a.sql", "CREATE TABLE a (i bigint);\n")
        .migration("0003_c.sql", "CREATE TABLE c (i int);\n");
    refuses(&run, &[], 3, &["0001_a.sql"]);
    refuses(&run, &["status"], 3, &["0001_a.sql"]);
}

#[test]
fn a_deleted_migration_is_refused() {
    let run = run();
    run.migration("0001_a.sql", "SELECT 1;\n").migration("0002_b.sql", "SELECT 1;\n");
    run.run(&[]).exits(0);
    std::fs::remove_file(run.folder().join("migrations/0002_b.sql")).unwrap();
    refuses(&run, &[], 3, &["0002"]);
}

#[test]
fn a_late_migration_is_refused_unless_it_is_allowed() {
    let run = run();
    run.migration("0002_b.sql", "SELECT 1;\n");
    run.run(&[]).exits(0);
    run.migration("0001_a.sql", "CREATE TABLE late (i int);\n");
    refuses(&run, &[], 3, &["0001_a.sql", "--allow-out-of-order"]);
    run.run(&["--allow-out-of-order", "0001"]).exits(0);
    assert_eq!(run.database.psql("SELECT count(*) FROM late"), "0");
}

#[test]
fn only_migrations_up_to_a_version_are_applied() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n")
        .migration("0002_b.sql", "CREATE TABLE b (i int);\n");
    run.run(&["--to", "0001"]).exits(0).says("1 migration");
    assert_eq!(run.database.psql("SELECT version FROM safe_run.migrations"), "0001");
    run.run(&["status"]).exits(30);
}

#[test]
fn without_pg_dump_nothing_is_changed() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
    let empty = run.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let before = run.fingerprint();
    for arguments in [&[][..], &["--snapshot", "file", "--", "psql", "-c", "DROP TABLE audit"]] {
        let mut command = run.command(arguments);
        command.env("SAFE_RUN_PG_BIN", &empty);
        Running::start(command).outcome().exits(3).says("pg_dump is not installed").says("hint: ");
        run.assert_unchanged(&before);
    }
}

#[test]
fn a_second_run_at_the_same_time_is_busy_and_names_the_first() {
    let run = run();
    run.migration("0001_a.sql", "SELECT pg_sleep(600);\n");
    let before = run.fingerprint();
    let first = run.start(&[]);
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query = 'SELECT pg_sleep(600)'",
        run.database.name()
    );
    until("the first sleeps", || run.database.cluster().psql(&sleeping) == "1");
    let id = run.runs()[0].clone();
    for arguments in [&[][..], &["--repo", "elsewhere"], &["--", "psql", "-c", "SELECT 1"], &["recover"]] {
        run.run(arguments).exits(4).says("hint: ");
    }
    run.run(&["--repo", "elsewhere"]).exits(4).says(&format!("safe-run/{id}")).says("pid ");
    first.signal("INT");
    first.outcome().exits(130);
    run.assert_unchanged(&before);
}

#[test]
fn a_lock_of_another_session_is_named_with_pid_user_application_and_query() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop_on(Cluster::shared(major));
        run.migration("0001_a.sql", "DROP TABLE audit;\n");
        let before = run.fingerprint();
        let mut other = run.database.session();
        other.run("SET application_name = 'nightly import'; BEGIN; UPDATE orders SET note = 'in the way'");
        let pid = format!("pid {}", other.backend_pid());
        for arguments in [&[][..], &["--jobs", "1"]] {
            let arguments = [&["--lock-timeout", "200ms", "--lock-retries", "1"][..], arguments].concat();
            let outcome = run.run(&arguments).exits(4).verdict("NOT RUN");
            outcome.says(&pid).says("user postgres").says("nightly import").says("orders").says("hint: ");
        }
        other.run("ROLLBACK");
        run.assert_unchanged(&before);
        run.run(&["--allow-loss", "audit"]).exits(0);
    }
}

#[test]
fn a_statement_that_waits_too_long_for_a_lock_is_busy() {
    let run = run();
    run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n");
    let before = run.fingerprint();
    // A reader passes the fence.
    let mut reader = run.database.session();
    reader.run("BEGIN; SELECT FROM orders LIMIT 1");
    run.run(&["--lock-timeout", "200ms", "--lock-retries", "0"])
        .exits(4)
        .verdict("ROLLED BACK")
        .says("55P03");
    run.assert_unchanged(&before);
}

#[test]
fn a_server_that_can_not_be_reached_is_busy_and_an_unknown_database_is_not() {
    let run = run();
    run.migration("0001_a.sql", "SELECT 1;\n");
    let unreachable = "postgresql://postgres@127.0.0.1:1/shop";
    run.run(&["-d", unreachable]).exits(4).says("127.0.0.1:1").says("hint: ");
    let outcome = run.run(&["-d", &run.database.cluster().url("no_such_database")]).says("no_such_database");
    assert!([2, 3].contains(&outcome.status.code().unwrap()), "{outcome}");
}

#[test]
fn plan_lists_statements_with_warnings_and_changes_nothing() {
    for major in tests::cluster::majors() {
        let run = ProtectedRun::shop_on(Cluster::shared(major));
        run.migration(
            "0001_a.sql",
            "ALTER TABLE orders DISABLE TRIGGER ALL;\nSELECT setval('tickets', 1);\n",
        )
        .migration("0002_b.sql", "CREATE INDEX CONCURRENTLY by_user ON orders (user_id);\n");
        let before = run.fingerprint();
        let outcome =
            run.run(&["plan"]).exits(0).says("0001_a.sql").says("ALTER TABLE orders DISABLE TRIGGER ALL");
        let outcome =
            outcome.says("! ").says("setval").says("2 migrations").says("a restore of the snapshot");
        drop(outcome.says("Nothing was changed."));
        let plan = json(&run.run(&["plan", "--json"]).exits(0));
        assert_eq!(plan["pending"][1]["statements"][0]["transaction"], "no");
        assert_eq!(plan["in_one_transaction"], false);
        run.assert_unchanged(&before);
        assert!(!run.folder().join("snapshots").exists(), "plan made a repository");
        run.migration("0003_c.sql", "SELECT 1;\nROLLBACK;\n");
        refuses(&run, &["plan"], 3, &["0003_c.sql:2"]);
    }
}

#[test]
fn check_tells_violations_and_changes_nothing() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop_on(Cluster::shared(major));
        let before = run.fingerprint();
        run.run(&["check"]).exits(0).verdict("CLEAN");
        json(&run.run(&["check", "--json"]).exits(0));
        run.assert_unchanged(&before);
        run.database.psql("SET session_replication_role = replica; DELETE FROM orders WHERE id = 7");
        let before = run.fingerprint();
        run.run(&["check"]).exits(31).verdict("VIOLATIONS").says("order_items.order_id").says("7");
        let results = json(&run.run(&["check", "--json"]).exits(31));
        assert_eq!(results["findings"][0]["count"], 3);
        run.run(&["check", "--skip", "foreign-keys"]).exits(0);
        run.run(&["check", "--level", "fast"]).exits(0);
        run.run(&["check", "--only", "nonsense"]).exits(2).says("foreign-keys");
        run.assert_unchanged(&before);
    }
    let everything = ProtectedRun::on(Cluster::shared(18).fresh_database("all"));
    fixtures::load_everything(&everything.database);
    let before = everything.fingerprint();
    everything.run(&["check", "--level", "deep"]).exits(31).says("old_rows");
    everything.assert_unchanged(&before);
}

#[test]
fn history_and_reports_tell_every_run() {
    let run = run();
    // The wrong folder must not look like a quiet history, nor like nothing to recover.
    run.run(&["history"]).exits(5).says("no repository at snapshots");
    run.run(&["recover"]).exits(5).says("no repository at snapshots");
    run.migration("0001_a.sql", "SELECT 1 / 0;\n");
    run.run(&[]).exits(10);
    run.migration("0001_a.sql", "SELECT 1;\n");
    let told = json(&run.run(&["--json"]).exits(0));
    assert_eq!(told["verdict"], "committed");
    let history = json(&run.run(&["history", "--json"]).exits(0));
    let codes: Vec<i64> =
        history["runs"].as_array().unwrap().iter().map(|run| run["exit_code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [10, 0]);
    run.run(&["history"]).exits(0).says("ROLLED BACK").says("COMMITTED");
    run.run(&["report"]).exits(0).verdict("COMMITTED");
    let first = history["runs"][0]["run"].as_str().unwrap();
    run.run(&["report", first]).exits(0).verdict("ROLLED BACK").says("22012");
    let report = json(&run.run(&["report", "--json", first]).exits(0));
    assert_eq!(report["error"]["sqlstate"], "22012");
    assert_eq!(report["undo"]["how"], "rollback");
    let phases: Vec<&str> =
        report["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert!(phases.iter().any(|phase| phase.contains("migrations")), "{phases:?}");
    run.run(&["report", "20991231"]).exits(5).says("hint: ");
}

#[test]
fn json_is_one_document_whatever_happens() {
    let run = run();
    run.migration("0001_a.sql", "UPDATE orders SET missing = 1;\n");
    let report = json(&run.run(&["--json"]).exits(10));
    assert_eq!((&report["verdict"], &report["exit_code"]), (&"rolled-back".into(), &10.into()));
    run.migration("0001_a.sql", "SELECT 1;\n");
    json(&run.run(&["--json"]).exits(0));
    let nothing = json(&run.run(&["--json"]).exits(0));
    assert_eq!(nothing["verdict"], "up-to-date");
    json(&run.run(&["status", "--json"]).exits(0));
    json(&run.run(&["recover", "--json"]).exits(0));
    let outcome = run.run(&["--json", "--dir", "nowhere"]).exits(2);
    let error: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &2.into()));
    // What never became a run has a report all the same, with the verdict NOT RUN.
    let refused = |report: Value, code: i32| {
        assert_eq!((&report["verdict"], &report["exit_code"]), (&"failed".into(), &code.into()), "{report}");
        assert!(report["error"]["message"].is_string() && report["state"].is_string(), "{report}");
    };
    refused(json(&outcome), 2);
    run.migration("0002_b.sql", "SELECT 1;\nROLLBACK;\n");
    refused(json(&run.run(&["--json"]).exits(3)), 3);
    refused(json(&run.run(&["--json", "--", "no-such-program"]).exits(2)), 2);
    // Everything else has the error as its document.
    for (arguments, code) in [
        (&["plan", "--json"][..], 3),
        (&["report", "20991231", "--json"], 5),
        (&["--json", "--nonsense"], 2),
        (&["--json", "--level", "much"], 2),
        (&["status", "--json", "--fence", "none"], 2),
    ] {
        let error = json(&run.run(arguments).exits(code));
        assert_eq!(error["error"]["exit_code"], code, "{arguments:?}: {error}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    // Somebody else's `--json` is none of ours.
    assert_eq!(run.run(&["--nonsense", "--", "tool", "--json"]).exits(2).stdout, "");
}

#[test]
fn new_makes_a_file_that_is_then_pending() {
    let run = run();
    let outcome = run.run(&["new", "Add orders' status"]).exits(0);
    let path = run.folder().join(outcome.stdout.trim());
    assert!(path.is_file(), "{outcome}");
    assert!(
        outcome.stdout.starts_with("migrations/2") && outcome.stdout.ends_with("_add_orders__status.sql\n"),
        "{outcome}"
    );
    run.run(&["status"]).exits(30).says("pending");
    run.run(&["new", "???"]).exits(2);
    // In another tool's folder it is that tool's, and runs.
    for (there, text, made) in [
        ("0007_a.sql", "-- migrate:up\n-- migrate:down\n", vec!["0008_b.sql"]),
        ("00007_a.sql", "-- +goose Up\n", vec!["00008_b.sql"]),
        ("7_a.up.sql", "SELECT 1;\n", vec!["8_b.up.sql", "8_b.down.sql"]),
        ("sub/V7__a.sql", "SELECT 1;\n", vec!["V8__b.sql"]),
        ("2024-01-01-000000_a/up.sql", "SELECT 1;\n", vec!["_b/up.sql", "_b/down.sql"]),
        ("20240101000000_a/migration.sql", "SELECT 1;\n", vec!["_b/migration.sql"]),
    ] {
        let folder = format!("of_{}", made[0].len() + there.len());
        run.file(&format!("{folder}/{there}"), text);
        let outcome = run.run(&["new", "b", "--dir", &folder]).exits(0);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines.len(), made.len(), "{outcome}");
        for (line, end) in lines.iter().zip(made) {
            assert!(line.ends_with(end) && run.folder().join(line).is_file(), "{end}: {outcome}");
        }
        std::fs::remove_dir_all(run.folder().join(folder)).unwrap();
    }
    run.file("both/1_a.sql", "SELECT 1;\n");
    run.file("both/V1__a.sql", "SELECT 1;\n");
    run.run(&["new", "b", "--dir", "both"]).exits(2).says("files of several tools").says("--format");
    run.run(&["new", "b", "--dir", "both", "--format", "flyway"]).exits(0).says("both/V2__b.sql");
}

#[test]
fn settings_are_shown_with_their_sources_and_without_secrets() {
    let run = run();
    run.file("safe-run.toml", "repo = \"elsewhere\"\nmax-loss = \"25%\"\n");
    let outcome =
        run.run(&["--show-config", "-d", "postgresql://app:s3cret@db.example/shop", "--jobs", "3"]).exits(0);
    outcome.never_says("s3cret").says("db.example").says("elsewhere").says("25").says("safe-run.toml");
}

#[test]
fn help_has_examples() {
    let run = run();
    run.run(&["--help"])
        .exits(0)
        .says("Examples:")
        .says("safe-run -- alembic upgrade head")
        .says("Exit codes:");
    for command in ["status", "plan", "check", "history", "report", "recover", "new"] {
        let outcome = run.run(&[command, "--help"]).exits(0);
        assert!(outcome.stdout.contains("Usage: safe-run"), "{outcome}");
    }
    run.run(&["--no-such-flag"]).exits(2).says("--no-such-flag");
    run.run(&["--version"]).exits(0).says("safe-run 0.");
}
