//! The report: a page and a JSON document that tell the truth about every kind of end, and never a secret.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tests::{Ended, ProtectedRun};

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

/// Reads a report, holds it against the published schema, and returns it.
#[track_caller]
fn valid(text: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/safe-run-report.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let report: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let problems = tests::json_schema::problems(&schema, &report);
    assert!(problems.is_empty(), "{problems:#?}");
    report
}

const BOTH: [&str; 4] = ["--report", "run.html", "--report-json", "run.json"];

/// Runs with both reports, and returns the valid JSON and the page.
#[track_caller]
fn reported(run: &ProtectedRun, arguments: &[&str], code: i32, verdict: &str) -> (Value, String) {
    let ended = run.run(&[&BOTH[..], arguments].concat()).exits(code);
    let read = |name: &str| {
        std::fs::read_to_string(run.folder().join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}: {ended}"))
    };
    let (report, page) = (valid(&read("run.json")), read("run.html"));
    assert_eq!((&report["verdict"], &report["exit_code"]), (&verdict.into(), &code.into()), "{ended}");
    // The first word on the page is the one on the terminal.
    let word = ended.headline().split("  ").next().unwrap_or_default();
    let heading = page.split("</h1>").next().unwrap().rsplit('>').next().unwrap();
    assert!(word.is_empty() || heading == word, "{heading} is not {word}");
    if let Some(id) = report["run"].as_str() {
        let again = run.run(&["report", id, "--html", "-"]).exits(0);
        assert_eq!(again.stdout, page, "made again, the page is another one");
        assert_eq!(valid(&run.run(&["report", id, "--json"]).exits(0).stdout), report);
    }
    std::fs::remove_file(run.folder().join("run.html")).unwrap();
    std::fs::remove_file(run.folder().join("run.json")).unwrap();
    (report, page)
}

fn psql(sql: &str) -> [&str; 6] {
    ["--", "psql", "-Xqt", "-v", "ON_ERROR_STOP=1", sql]
}

tests::on_every_major! {
    fn locks_and_rewrites_are_those_of_the_statement(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.migration(
            "0001_a.sql",
            "ALTER TABLE orders ADD status text;\nUPDATE orders SET status = 'x' WHERE id <= 7;\n\
             ALTER TABLE order_items ALTER order_id TYPE numeric;\nCREATE TABLE fresh (i int REFERENCES users);\n",
        )
        .migration("0002_b.sql", "SET statement_timeout = '1min';\nCREATE INDEX ON audit (id);\nDO 'BEGIN END';\n")
        .migration("0003_c.sql", "SAVEPOINT a;\nTRUNCATE order_items;\nROLLBACK TO a;\nALTER TABLE users RENAME name TO label;\n");
        // A type change drops and remakes the foreign key, which numeric can't have.
        run.database.psql("ALTER TABLE order_items DROP CONSTRAINT order_items_order_id_fkey");
        let (report, _) = reported(&run, &[], 0, "committed");
        let told = |file: usize, statement: usize| {
            let statement = &report["migrations"][file]["statements"][statement];
            format!("{} {} {}", statement["locks"], statement["rewritten"], statement["rows"])
        };
        let lock = |table: &str, mode: &str| format!(r#"{{"mode":"{mode}","table":"{table}"}}"#);
        // What was locked before the first statement stands at the one that needs it.
        assert_eq!(told(0, 0), format!("[{}] [] 0", lock("orders", "ACCESS EXCLUSIVE")));
        assert_eq!(told(0, 1), "[] [] 7");
        assert_eq!(told(0, 2), format!(r#"[{}] ["order_items"] 0"#, lock("order_items", "ACCESS EXCLUSIVE")));
        assert_eq!(told(0, 3), format!("[{}] [] 0", lock("users", "SHARE ROW EXCLUSIVE")));
        // Behind a setting of the file's own nothing is asked before its end.
        assert_eq!(told(1, 1), "[] [] 0");
        assert_eq!(report["migrations"][1]["locks"].to_string(), format!("[{}]", lock("audit", "SHARE")));
        assert_eq!(told(2, 3), format!("[{}] [] 0", lock("users", "ACCESS EXCLUSIVE")));
    }

    fn nothing_behind_a_failed_statement_runs_although_it_could_be_sent_ahead(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        // ROLLBACK TO would end the failure, and what follows would run and could not be taken back.
        run.migration(
            "0001_a.sql",
            "CREATE TABLE a (i int UNIQUE);\nSAVEPOINT s;\nINSERT INTO a VALUES (1);\nINSERT INTO a VALUES (1);\n\
             INSERT INTO a VALUES (2);\nROLLBACK TO s;\nSELECT setval('tickets', 900);\nINSERT INTO a VALUES (3);\n",
        );
        let before = run.fingerprint();
        let (report, _) = reported(&run, &[], 10, "rolled-back");
        run.assert_unchanged(&before);
        let file = &report["migrations"][0];
        assert_eq!((&file["failed"]["line"], &file["complete"]), (&4.into(), &false.into()));
        let ran: Vec<i64> =
            file["statements"].as_array().unwrap().iter().map(|told| told["line"].as_i64().unwrap()).collect();
        assert_eq!(ran, [1, 2, 3]);
        assert_eq!(run.database.psql("SELECT last_value FROM tickets"), "500");
        assert!(report["error"].to_string().contains("23505"), "{}", report["error"]);
        // Without the failure each has its own rows and its time.
        run.migration("0001_a.sql", "CREATE TABLE a (i int);\nINSERT INTO a VALUES (1), (2);\nDELETE FROM a WHERE i = 1;\n");
        let (report, _) = reported(&run, &[], 0, "committed");
        let statements = report["migrations"][0]["statements"].as_array().unwrap();
        assert_eq!(statements.iter().map(|told| told["rows"].as_i64().unwrap()).collect::<Vec<_>>(), [0, 2, 1]);
        let sum: f64 = statements.iter().map(|told| told["seconds"].as_f64().unwrap()).sum();
        assert!(sum <= report["migrations"][0]["seconds"].as_f64().unwrap(), "{report}");
    }

    fn what_the_names_in_a_statement_do_not_tell_is_told_all_the_same(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        run.database.psql(
            "CREATE FUNCTION locks() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN LOCK TABLE order_items IN SHARE MODE; RETURN NEW; END';
             CREATE TRIGGER locks BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION locks();
             CREATE TABLE alone (id int);
             CREATE FUNCTION found() RETURNS text LANGUAGE plpgsql AS
               'BEGIN LOCK TABLE alone IN SHARE ROW EXCLUSIVE MODE; RETURN ''x''; END';
             ALTER TABLE audit ALTER at SET DEFAULT found();
             CREATE TABLE one (id int); CREATE TABLE two (id int); CREATE TABLE other (id int)",
        );
        run.migration(
            "0001_a.sql",
            "ALTER TABLE one ADD a int, ADD b int NOT NULL DEFAULT 7;\nCREATE INDEX ON one (a);\n\
             ALTER TABLE one ADD c timestamptz DEFAULT clock_timestamp();\n\
             ALTER TABLE one ADD d timestamptz DEFAULT clock_timestamp();\nUPDATE one SET a = 1;\n\
             ALTER TABLE one ADD UNIQUE (b);\n",
        )
        .migration("0002_b.sql", "UPDATE users SET name = 'x' WHERE id = 1;\nALTER TABLE two ADD a int;\n")
        // A name may mean another table than at the beginning.
        .migration(
            "0003_c.sql",
            "ALTER TABLE two RENAME TO three;\nALTER TABLE other RENAME TO two;\n\
             ALTER TABLE two ADD a timestamptz DEFAULT clock_timestamp();\n",
        )
        .migration("0004_d.sql", "INSERT INTO audit (id) VALUES (1);\nALTER TABLE one ADD e int;\n");
        let (report, _) = reported(&run, &[], 0, "committed");
        let told = |file: usize, statement: usize| {
            let statement = &report["migrations"][file]["statements"][statement];
            format!("{} {}", statement["locks"], statement["rewritten"])
        };
        let lock = |table: &str, mode: &str| format!(r#"{{"mode":"{mode}","table":"{table}"}}"#);
        assert_eq!(told(0, 0), format!("[{}] []", lock("one", "ACCESS EXCLUSIVE")));
        assert_eq!(told(0, 1), "[] []");
        assert_eq!(told(0, 2), r#"[] ["one"]"#);
        assert_eq!(told(0, 3), r#"[] ["one"]"#);
        assert_eq!(told(0, 5), "[] []");
        // What a trigger locks is told by the statement after which all locks were looked at.
        assert_eq!(
            told(1, 1),
            format!("[{},{}] []", lock("order_items", "SHARE"), lock("two", "ACCESS EXCLUSIVE"))
        );
        assert_eq!(told(2, 2), r#"[] ["other"]"#);
        // Nobody sees the function behind the default.
        assert_eq!(told(3, 1), "[] []");
        assert_eq!(report["migrations"][3]["locks"].to_string(), format!("[{}]", lock("alone", "SHARE ROW EXCLUSIVE")));
        assert_eq!(report["migrations"][2]["locks"].to_string(), "[]");
    }
}

#[test]
fn every_verdict_has_a_page_and_a_json_that_fits_the_published_schema() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop_on(tests::Cluster::shared(major));
        run.migration(
            "0001_a.sql",
            "CREATE TABLE a (i int);\nINSERT INTO a VALUES (1), (2);\nDELETE FROM users WHERE id = 1;\n",
        );
        let (report, page) = reported(&run, &["--max-loss", "50%"], 0, "committed");
        assert!(report["fence_seconds"].as_f64().unwrap() > 0.0);
        let told = report["tables"].as_array().unwrap();
        let rows: BTreeMap<&str, (&Value, &Value)> =
            told.iter().map(|t| (t["table"].as_str().unwrap(), (&t["before"], &t["after"]))).collect();
        for (table, before) in
            [("users", Some(20)), ("orders", Some(100)), ("order_items", Some(300)), ("a", None)]
        {
            let after: i64 = run.database.psql(&format!("SELECT count(*) FROM {table}")).parse().unwrap();
            assert_eq!(rows[table], (&Value::from(before), &Value::from(after)), "{table}");
        }
        assert!(
            told.iter().position(|t| t["table"] == "users") < told.iter().position(|t| t["table"] == "audit")
        );
        let manifest = run
            .folder()
            .join("snapshots/snapshots")
            .join(report["snapshot"].as_str().unwrap())
            .join("manifest.json");
        let sum = std::process::Command::new("sha256sum").arg(manifest).output().unwrap();
        assert!(
            String::from_utf8(sum.stdout)
                .unwrap()
                .starts_with(report["snapshot_facts"]["sha256"].as_str().unwrap())
        );
        assert!(page.contains("--replace") && page.contains(report["snapshot"].as_str().unwrap()));

        let (report, _) = reported(&run, &[], 0, "up-to-date");
        assert_eq!((&report["applied"], &report["run"]), (&1.into(), &Value::Null));

        run.migration("0002_b.sql", "SET session_replication_role = replica;\nUPDATE order_items SET order_id = 4711 WHERE id <= 3;\n");
        let (report, page) = reported(&run, &[], 11, "rolled-back");
        assert_eq!(report["findings"]["new"][0]["sample_keys"], serde_json::json!(["4711"]));
        assert!(page.contains("SQL that would repair it") && page.contains("4711"));

        run.migration("0002_b.sql", "CREATE TABLE b (i int);\n\nSELECT 1 / 0;\nSELECT 2;\n");
        let (report, page) = reported(&run, &[], 10, "rolled-back");
        let file = &report["migrations"][0];
        assert_eq!(
            (&file["complete"], &file["failed"]["line"], &file["statements_planned"]),
            (&false.into(), &3.into(), &3.into())
        );
        assert!(page.contains("failed in line 3"));

        run.database.psql(
            "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('a1')",
        );
        let sql = "-cUPDATE alembic_version SET version_num = 'b2'; DELETE FROM order_items";
        let (report, _) = reported(&run, &psql(sql), 13, "restored");
        let version = &report["command"]["version_tables"][0];
        assert_eq!(
            (&version["tool"], &version["added"][0], &version["removed"][0]),
            (&"Alembic".into(), &"b2".into(), &"a1".into())
        );
        assert_eq!((&version["newest_before"], &version["newest_after"]), (&"a1".into(), &"b2".into()));
        assert_eq!(report["undo"]["how"], "restore");

        let (report, page) = reported(
            &run,
            &[&["--fence", "none"][..], &psql("-cDELETE FROM order_items")].concat(),
            14,
            "stopped",
        );
        assert_eq!(report["fence_seconds"], Value::Null);
        assert!(page.contains("--replace"));
        // Where the server decodes writes, it waits for a decision.
        run.run(&["recover", "--keep"]).exits(0);

        let (report, _) = reported(&run, &["--", "true"], 1, "not-connected");
        assert_eq!(report["command"]["sessions"], 0);
    }
}

#[test]
fn a_report_that_does_not_fit_the_schema_is_noticed() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
    let good = valid(&run.run(&["--json"]).exits(0).stdout);
    for (place, wrong) in [
        ("/verdict", Value::from("fine")),
        ("/exit_code", Value::from(-1)),
        ("/snapshot_facts/sha256", Value::from("abc")),
        ("/migrations/0/statements/0/line", Value::from("1")),
        ("/schema", Value::from(2)),
    ] {
        let mut report = good.clone();
        *report.pointer_mut(place).unwrap() = wrong;
        assert!(std::panic::catch_unwind(|| valid(&report.to_string())).is_err(), "{place}");
    }
    let mut report = good;
    report["migrations"][0]["surprise"] = Value::from(1);
    assert!(std::panic::catch_unwind(|| valid(&report.to_string())).is_err());
}

#[test]
fn a_run_that_is_refused_before_it_begins_has_a_report_too() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\nCOMMIT;\n");
    let (report, page) = reported(&run, &[], 3, "failed");
    assert!(page.contains("0001_a.sql:2") && report["error"]["hint"].is_string());
    let unreachable = ["-d", "postgresql://postgres:correcthorse@127.0.0.1:1/shop"];
    let (report, page) = reported(&run, &unreachable, 4, "failed");
    assert!(!page.contains("correcthorse") && !report.to_string().contains("correcthorse"));
}

#[test]
fn a_report_that_can_not_be_written_is_found_out_before_anything_runs() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
    let before = run.fingerprint();
    run.file("kept.html", "of another page");
    std::fs::create_dir(run.folder().join("real")).unwrap();
    for (target, link) in [("kept.html", "link.html"), ("nothing.html", "dangling.html"), ("real", "way")] {
        std::os::unix::fs::symlink(target, run.folder().join(link)).unwrap();
    }
    // Only the superuser of the machine can make a link that belongs to another user.
    if std::os::unix::fs::lchown(run.folder().join("way"), Some(65_534), None).is_ok() {
        run.run(&["--report", "way/run.html"])
            .exits(2)
            .says("way on the way is a link of the user with id 65534");
    }
    for arguments in [
        &["--report", "link.html"][..],
        &["--report-json", "dangling.html"],
        &["--report", "nowhere/run.html"],
        &["--report", "."],
        &["--report-json", "/dev/null"],
        &["--report", "same", "--report-json", "./same"],
    ] {
        run.run(arguments).exits(2).says("error: ").says("hint: ").says("--report");
    }
    run.assert_unchanged(&before);
    assert_eq!(std::fs::read_to_string(run.folder().join("kept.html")).unwrap(), "of another page");
    assert!(!run.folder().join("nothing.html").exists() && !run.folder().join("real/run.html").exists());
    assert!(!run.folder().join("snapshots").exists(), "a repository was made");
}

#[test]
fn the_report_of_an_undo_that_failed_says_so_and_recover_settles_it() {
    let run = run();
    let tools = run.with_tool("pg_restore", "exit 1");
    let before = run.fingerprint();
    let mut command = run.command(&[&BOTH[..], &psql("-cDELETE FROM order_items")].concat());
    command.env("SAFE_RUN_PG_BIN", tools);
    tests::Running::start(command).outcome().exits(20);
    let read = |name: &str| std::fs::read_to_string(run.folder().join(name)).unwrap();
    let report = valid(&read("run.json"));
    assert_eq!(report["verdict"], "unknown");
    assert!(report["undo"]["error"]["message"].is_string());
    let page = read("run.html");
    assert!(page.contains("The undo failed:") && page.contains("<span>recover</span>"));
    run.run(&["recover"]).exits(0);
    let settled = valid(&run.run(&["report", "--json"]).exits(0).stdout);
    assert_eq!((&settled["verdict"], &settled["undo"]["error"]), (&"restored".into(), &Value::Null));
    run.run(&["report"]).exits(0).verdict("RESTORED").says("the undo had failed at first");
    run.assert_unchanged(&before);
}

#[test]
fn a_killed_run_has_a_report_once_it_is_recovered() {
    let run = run();
    run.migration("0001_a.sql", "CREATE TABLE a (i int);\n");
    run.crash("safe-run.applied", &BOTH);
    assert!(!run.folder().join("run.html").exists());
    run.run(&["report"]).exits(1).says("recover");
    run.run(&["recover"]).exits(0);
    let report = valid(&run.run(&["report", "--json"]).exits(0).stdout);
    assert_eq!(report["verdict"], "rolled-back");
    assert!(report["notes"].to_string().contains("0001_a.sql"));
}

#[test]
fn no_secret_of_url_command_or_sql_is_in_a_report() {
    const SECRET: &str = "correcthorsebatterystaple";
    let run = run();
    let role = format!("{}_role", run.database.name());
    run.migration(
        "0001_a.sql",
        &format!(
            "CREATE ROLE {role} PASSWORD '{SECRET}';\nDO $$ BEGIN EXECUTE 'SELECT 1'; END $$;\n\
                  -- postgresql://app:{SECRET}@db/shop\nSELECT 'host=db password={SECRET}', 1 / 0;\n"
        ),
    );
    let url = run.database.url().replacen("postgres@", &format!("postgres:{SECRET}@"), 1);
    assert!(url.contains(SECRET), "{url}");
    let look = |ended: &Ended| {
        let mut told = vec![ended.stdout.clone(), ended.stderr.clone()];
        for name in ["run.json", "run.html"] {
            told.push(std::fs::read_to_string(run.folder().join(name)).unwrap());
        }
        for id in run.runs() {
            for entry in std::fs::read_dir(run.folder().join("snapshots/runs").join(id)).unwrap() {
                told.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
            }
        }
        for text in told {
            assert!(!text.contains(SECRET), "{text}");
        }
    };
    look(&run.run(&[&BOTH[..], &["-d", &url, "-v"]].concat()).exits(10));
    run.run(&["plan"]).exits(0).never_says(SECRET);
    let by_psql = format!("host=db password={SECRET}");
    let command = [
        "-d",
        &url,
        "--",
        "sh",
        "-c",
        "psql -Xqc 'SELECT 1' >&2; exit 1",
        "sh",
        &by_psql,
        "--password",
        SECRET,
    ];
    look(&run.run(&[&BOTH[..], &command].concat()).exits(12));
}

#[test]
fn old_runs_are_tidied_and_the_snapshots_of_kept_ones_stay_pinned() {
    let run = run();
    let backup = |arguments: &[&str]| {
        let mut command = tests::binaries::command("backup");
        command.args(arguments).current_dir(run.folder()).env("DATABASE_URL", run.database.url());
        tests::Outcome::of(&mut command)
    };
    let mut snapshots = Vec::new();
    for number in 1..=4 {
        run.migration(&format!("000{number}_a.sql"), &format!("CREATE TABLE t{number} (i int);\n"));
        let told = run.run(&["--json", "--keep-runs", "2"]).exits(0);
        snapshots.push(valid(&told.stdout)["snapshot"].as_str().unwrap().to_owned());
        if number == 1 {
            // A person's pin is not the run's.
            backup(&["unpin", &snapshots[0]]).expect(0);
            backup(&["pin", &snapshots[0], "--note", "audit"]).expect(0);
        }
    }
    assert_eq!(run.runs().len(), 2);
    let refused = |id: &str| backup(&["delete", id, "-y"]).code != 0;
    assert_eq!(snapshots.iter().map(|id| refused(id)).collect::<Vec<_>>(), [true, false, true, true]);
    // A run that did not finish is never forgotten, however many follow.
    run.migration("0005_a.sql", "CREATE TABLE t5 (i int);\n");
    run.crash("safe-run.applied", &[]);
    run.run(&["recover"]).exits(0);
    run.run(&["--keep-runs", "1"]).exits(0);
    assert_eq!(run.runs().len(), 1);
    run.run(&["--keep-runs", "0"]).exits(2);
}

#[test]
fn two_hundred_migrations_are_no_flood() {
    let run = run();
    for number in 1..=200 {
        run.migration(&format!("{number:04}_a.sql"), &format!("CREATE TABLE t{number} (i int);\n"));
    }
    let lines = |ended: &Ended| ended.stdout.lines().count() + ended.stderr.lines().count();
    let status = run.run(&["status"]).exits(30).says("200 pending").says("0001").says("and 175 more");
    assert!(lines(&status) < 40, "{status}");
    let plan = run.run(&["plan"]).exits(0).says("200 migrations").never_says("CREATE TABLE t7 ");
    assert!(lines(&plan) < 220, "{plan}");
    let (report, page) = reported(&run, &[], 0, "committed");
    assert_eq!(report["migrations"].as_array().unwrap().len(), 200);
    assert!(page.contains("the slowest of 200 files"));
    assert_eq!(run.database.psql("SELECT count(*) FROM safe_run.migrations"), "200");
    let status = run
        .run(&["status"])
        .exits(0)
        .says("190 applied migrations before these")
        .says("0200")
        .never_says("0100");
    assert!(lines(&status) < 20, "{status}");
    run.run(&["status", "-v"]).exits(0).says("0100");
    let again = run.run(&["history"]).exits(0).says("0001_a.sql … 0200_a.sql (200 files)");
    assert!(lines(&again) < 5, "{again}");
}

#[test]
fn what_changes_the_history_alone_has_a_report_too() {
    let run = run();
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n").migration("2_b.sql", "CREATE TABLE b (i int);\n");
    let (report, page) = reported(&run, &["baseline", "1", "--yes"], 0, "committed");
    assert_eq!(report["migrations"], serde_json::json!([]));
    assert!(page.contains("everything up to 1 is applied"), "{page}");
    let (report, _) = reported(&run, &["stamp", "1", "--yes"], 3, "failed");
    assert_eq!(report["state"], "Nothing was changed.");
    reported(&run, &["stamp", "2", "--yes"], 0, "committed");
    run.run(&[&BOTH[..], &["repair", "--yes"]].concat()).exits(0).says("Nothing to repair");
    let report = valid(&std::fs::read_to_string(run.folder().join("run.json")).unwrap());
    assert_eq!(report["verdict"], "up-to-date");
    std::fs::remove_file(run.folder().join("run.json")).unwrap();
    run.run(&[&BOTH[..], &["stamp", "2", "--dry-run"]].concat()).exits(2).says("a dry run has no report");
    assert!(!run.folder().join("run.json").exists());
}

#[test]
fn a_flag_that_means_nothing_is_refused_and_not_passed_over() {
    let run = run();
    let before = run.fingerprint();
    for (arguments, says) in [
        (&["--fence", "exclusive", "recover"][..], "--fence means nothing to `safe-run recover`"),
        (&["--level", "deep", "check"], "safe-run check --level"),
        (&["check", "--allow-loss", "orders"], "--allow-loss"),
        (&["--report", "r.html", "plan"], "has no report"),
        (&["--tx", "all", "--", "psql", "-Xqc", "DROP TABLE audit"], "--tx is about migration files"),
    ] {
        run.run(arguments).exits(2).says(says);
    }
    run.assert_unchanged(&before);
    assert_eq!(run.runs(), Vec::<String>::new());
}

#[test]
fn a_report_says_that_the_fence_is_held_and_which_locks_it_has() {
    let run = run();
    let held = [&["--hold-fence"][..], &psql("-cUPDATE orders SET note = 'held'")].concat();
    let (report, page) = reported(&run, &held, 0, "committed");
    assert_eq!(report["fence_held"], true);
    assert!(page.contains("until <code>safe-run release</code>"), "{page}");
    run.run(&["release"]).exits(0);
    // Killed and recovered, it is held as well.
    run.crash("safe-run.undoing", &[&held[..6], &["-cSELECT 1 / 0"]].concat());
    run.run(&["recover"]).exits(0).says("the fence is held");
    let report = valid(&run.run(&["report", "--json"]).exits(0).stdout);
    assert_eq!(
        (&report["fence_held"], &report["next"][0]),
        (&true.into(), &"open the database: safe-run release".into())
    );
    run.run(&["release"]).exits(0);
    run.migration("1_a.sql", "CREATE INDEX ON orders (note);\n");
    let (report, page) = reported(&run, &[], 0, "committed");
    assert_eq!(report["fence_held"], false);
    assert!(page.contains("The fence held an EXCLUSIVE lock on every table from the start"), "{page}");
    run.assert_open();
}
