//! Commands and surroundings that get in the way: dropped databases, ended sessions, clients that come back at once,
//! and a role that is no superuser.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::{Cluster, ProtectedRun, Running, psql};

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

/// `psql` on the maintenance database, as tools that recreate databases use it.
fn elsewhere(run: &ProtectedRun, sql: &str) -> String {
    format!("psql -Xqd postgres -c \"{}\"", sql.replace("$DATABASE", run.database.name()))
}

#[test]
fn a_command_that_drops_the_database_is_undone() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        let before = run.fingerprint();
        let script = elsewhere(&run, "DROP DATABASE $DATABASE WITH (FORCE)");
        run.run(&["--", "sh", "-c", &script]).exits(13).says("RESTORED").never_says("never connected");
        run.assert_unchanged(&before);
    }
}

#[test]
fn a_command_that_makes_the_database_anew_is_undone() {
    for ending in ["", "; exit 3"] {
        let run = run();
        let before = run.fingerprint();
        let script = format!(
            "{}; {}; psql -Xqc 'CREATE TABLE fresh (i int)'{ending}",
            elsewhere(&run, "DROP DATABASE $DATABASE WITH (FORCE)"),
            elsewhere(&run, "CREATE DATABASE $DATABASE"),
        );
        let code = if ending.is_empty() { 13 } else { 12 };
        run.run(&["--", "sh", "-c", &script]).exits(code).says("RESTORED");
        run.assert_unchanged(&before);
    }
}

#[test]
fn a_command_that_renames_the_database_away_is_undone() {
    let run = run();
    let before = run.fingerprint();
    let away = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '$DATABASE'";
    let script = format!(
        "{} > /dev/null; {}; exit 1",
        elsewhere(&run, away),
        elsewhere(&run, "ALTER DATABASE $DATABASE RENAME TO $DATABASE_away")
    );
    let ended = run.run(&["--", "sh", "-c", &script]).exits(12).says("RESTORED");
    assert_eq!(run.others(), [format!("{}_away", run.database.name())], "{ended}");
    run.assert_unchanged(&before);
}

#[test]
fn a_command_that_ends_all_sessions_and_lifts_the_fence_is_undone() {
    let run = run();
    let before = run.fingerprint();
    let script = format!(
        "{}; psql -Xqtc 'SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()'; \
         psql -Xqc 'DROP TABLE audit'; exit 1",
        elsewhere(&run, "ALTER DATABASE $DATABASE RESET default_transaction_read_only"),
    );
    run.run(&["--", "sh", "-c", &script]).exits(12).says("RESTORED");
    run.assert_unchanged(&before);
}

#[test]
fn a_command_that_never_connects_is_never_taken_for_one_that_did() {
    // The server counts sessions late: those of our own checks must not be taken for the command's.
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        run.run(&["--", "true"]).exits(1).verdict("NOT CONNECTED");
        run.run(&["--", "sleep", "0.5"]).exits(1).verdict("NOT CONNECTED");
    }
}

#[test]
fn a_failing_command_that_never_connected_changes_nothing() {
    let run = run();
    let before = run.fingerprint();
    run.run(&["--", "sh", "-c", "exit 6"]).exits(1).verdict("NOT CONNECTED").says("exit code 6");
    run.assert_unchanged(&before);
    assert_eq!(run.others(), Vec::<String>::new());
}

#[test]
fn clients_that_come_back_at_once_do_not_stop_the_undo() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        let before = run.fingerprint();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let _ = run.database.try_psql("SELECT count(*) FROM users; SELECT pg_sleep(0.3)");
                    }
                });
            }
            let ended = run.run(&["--", "sh", "-c", "psql -Xqc 'DROP TABLE audit'; exit 1"]);
            stop.store(true, Ordering::Relaxed);
            ended.exits(12);
        });
        run.assert_unchanged(&before);
    }
}

#[test]
fn writers_at_work_lose_nothing_that_was_acknowledged() {
    // Both kinds of undo: what a writer was told is committed is there afterwards.
    for arguments in [&[][..], &["--", "sh", "-c", "psql -Xqc 'DROP TABLE order_items'; sleep 0.3; exit 1"]] {
        let run = run();
        run.database.psql("CREATE TABLE written (i bigserial PRIMARY KEY)");
        run.migration("0001_a.sql", "DROP TABLE order_items;\nSELECT pg_sleep(0.3);\nSELECT 1 / 0;\n");
        let stop = AtomicBool::new(false);
        let acknowledged = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    acknowledged +=
                        u32::from(run.database.try_psql("INSERT INTO written DEFAULT VALUES").is_ok());
                }
                acknowledged
            });
            let ended = run.run(arguments);
            stop.store(true, Ordering::Relaxed);
            assert!([10, 12].contains(&ended.status.code().unwrap()), "{ended}");
            writer.join().unwrap()
        });
        let written: u32 = run.database.psql("SELECT count(*) FROM written").parse().unwrap();
        assert_eq!(written, acknowledged);
        assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "300");
    }
}

/// A role that owns the database, as README says what it needs.
fn owned(major: u32) -> (ProtectedRun<'static>, String) {
    let cluster = Cluster::shared(major);
    let role = format!("owner_{}_{major}", std::process::id());
    cluster.psql(&format!("CREATE ROLE {role} LOGIN CREATEDB; GRANT pg_signal_backend TO {role}"));
    let run =
        ProtectedRun::on(cluster.fresh_database_with("owned", &format!("TEMPLATE template0 OWNER {role}")));
    let url = cluster.url_as(&role, run.database.name());
    psql::run(
        &url,
        "CREATE TABLE parents (id serial PRIMARY KEY, name text);
         CREATE TABLE children (id serial PRIMARY KEY, parent_id int REFERENCES parents);
         INSERT INTO parents (name) SELECT 'p' || i FROM generate_series(1, 50) i;
         INSERT INTO children (parent_id) SELECT i FROM generate_series(1, 50) i",
    );
    (run, role)
}

#[test]
fn an_owner_without_superuser_is_protected_in_both_ways() {
    for major in [14, 15, 18] {
        let (run, role) = owned(major);
        let start = |arguments: &[&str]| {
            let mut command: Command = run.command(arguments);
            command.env("DATABASE_URL", run.database.cluster().url_as(&role, run.database.name()));
            Running::start(command).outcome()
        };
        let before = run.fingerprint();
        run.migration(
            "0001_a.sql",
            "ALTER TABLE parents ADD nick text;\nSELECT setval('parents_id_seq', 1);\nSELECT 1 / 0;\n",
        );
        start(&[]).exits(10);
        run.assert_unchanged(&before);
        start(&["--", "sh", "-c", "psql -Xqc 'DROP TABLE children' -c 'DELETE FROM parents'; exit 1"])
            .exits(12)
            .says("RESTORED");
        run.assert_unchanged(&before);
        run.migration("0001_a.sql", "ALTER TABLE parents ADD nick text;\n");
        start(&[]).exits(0).verdict("COMMITTED");
        start(&["--", "psql", "-Xqc", "UPDATE parents SET nick = name"]).exits(0);
        run.assert_open();
        drop(run);
        Cluster::shared(major).psql(&format!("DROP ROLE {role}"));
    }
}

#[test]
fn a_role_that_may_not_lock_or_fence_is_refused_with_what_it_needs() {
    let cluster = Cluster::shared(18);
    let role = format!("reader_{}", std::process::id());
    let run = run();
    cluster.psql(&format!("CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}"));
    run.migration("0001_a.sql", "CREATE SCHEMA mine;\n");
    let before = run.fingerprint();
    // Whether the undo is possible is looked at before there is a run.
    let command = &["--", "psql", "-Xqc", "SELECT 1"][..];
    for (arguments, says) in [(&[][..], "NOT RUN"), (command, "an undo would not be possible")] {
        let mut command = run.command(arguments);
        command.env("DATABASE_URL", cluster.url_as(&role, run.database.name()));
        let ended = Running::start(command).outcome().says(says).says("hint: ");
        assert!([1, 3].contains(&ended.status.code().unwrap()), "{ended}");
        run.assert_unchanged(&before);
    }
    cluster.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// On 14 the schema public belongs to the bootstrap superuser: only it can give again what it gave.
#[test]
fn a_grant_that_an_undo_may_not_give_again_is_named_and_fails_a_plain_restore() {
    let (run, role) = owned(14);
    let reader = format!("{role}_reader");
    run.database.psql(&format!("CREATE ROLE {reader}; GRANT CREATE ON SCHEMA public TO {reader}"));
    let url = run.database.cluster().url_as(&role, run.database.name());

    let wreck = ["--snapshot", "file", "--", "sh", "-c", "psql -Xqc 'DROP TABLE children'; exit 1"];
    let mut command = run.command(&wreck);
    command.env("DATABASE_URL", &url);
    Running::start(command)
        .outcome()
        .exits(12)
        .says("has its rows of before, but 1 thing differs")
        .says(&format!("differs: the role may not grant CREATE on schema public to {reader}"));

    run.database.psql(&format!("GRANT CREATE ON SCHEMA public TO {reader}"));
    let mut command = run.command(&["--snapshot-only"]);
    command.env("DATABASE_URL", &url);
    Running::start(command).outcome().exits(0);
    let mut restore = tests::binaries::command("restore");
    restore.args(["latest", "--into", &format!("{}_copy", run.database.name())]);
    restore.current_dir(run.folder()).env("DATABASE_URL", &url);
    tests::Outcome::of(&mut restore)
        .expect(3)
        .says(&["1 grant could not be restored: CREATE on schema public", "--no-owner"]);

    // What PostgreSQL itself brought is not the same on every server: rights on that are told, and stop no restore.
    run.database.psql(&format!(
        "REVOKE CREATE ON SCHEMA public FROM {reader}; REVOKE SELECT ON pg_catalog.pg_stats FROM PUBLIC"
    ));
    let mut command = run.command(&["--snapshot-only"]);
    command.env("DATABASE_URL", &url);
    Running::start(command).outcome().exits(0);
    let mut restore = tests::binaries::command("restore");
    restore.args(["latest", "--into", &format!("{}_second", run.database.name())]);
    restore.current_dir(run.folder()).env("DATABASE_URL", &url);
    tests::Outcome::of(&mut restore).expect(0).says(&["differs: ", "SELECT on view pg_catalog.pg_stats"]);

    let cluster = run.database.cluster();
    run.database.psql(&format!("DROP OWNED BY {reader}"));
    for name in run.database.family() {
        psql::run(&cluster.url(&name), &format!("DROP OWNED BY {reader}"));
    }
    drop(run);
    Cluster::shared(14).psql(&format!("DROP ROLE {reader}; DROP ROLE {role}"));
}

/// What a terminal would obey, or what would turn or hide text.
const HOSTILE: &str = "\u{1b}[31m\u{7}\u{9b}2J\u{202e}\u{2066}\u{200b}\u{2028}";

/// Text for people holds line feeds and tabs, and nothing else that can't be seen.
#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    let hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found: Vec<String> =
        text.chars().filter(|c| hidden(*c)).map(|c| c.escape_default().to_string()).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
}

#[test]
fn what_a_terminal_is_told_is_harmless_and_json_is_exact() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        let table = format!("t{HOSTILE}");
        run.database.psql(&format!(
            "CREATE TABLE {0} (id int PRIMARY KEY, o int REFERENCES orders);
             SET session_replication_role = replica; INSERT INTO {0} VALUES (1, 4711)",
            psql::quote_ident(&table)
        ));
        let file = "0001_a\u{1b}[31m\u{7}\u{202e}.sql";
        run.migration(
            file,
            &format!(
                "DO $do$ BEGIN RAISE NOTICE USING MESSAGE = $q$notice{HOSTILE}\nhint: no$q$;
                 RAISE EXCEPTION USING MESSAGE = $q$boom{HOSTILE}\nhint: drop it$q$, DETAIL = $q$d{HOSTILE}$q$, HINT = $q$h{HOSTILE}$q$;
                 END $do$"
            ),
        );
        let outcome = |program: &str, arguments: &[&str]| {
            let mut command = tests::binaries::command(program);
            command.args(arguments).current_dir(run.folder()).env("DATABASE_URL", run.database.url());
            let outcome = tests::Outcome::of(&mut command);
            assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
            outcome
        };
        let harmless = |program: &str, arguments: &[&str]| {
            let outcome = outcome(program, arguments);
            let what = format!("{program} {arguments:?}");
            assert_harmless(&what, &outcome.stdout);
            assert_harmless(&what, &outcome.stderr);
            format!("{}{}", outcome.stdout, outcome.stderr)
        };
        assert!(harmless("safe-run", &["plan"]).contains("0001_a\\u{1b}[31m\\u{7}\\u{202e}.sql"));
        harmless("safe-run", &["status"]);
        let said = harmless("safe-run", &["-v"]);
        assert!(said.contains("boom\\u{1b}[31m") && !said.contains("\nhint: drop it"), "{said}");
        assert!(harmless("safe-run", &["check", "-v"]).contains("t\\u{1b}[31m"));
        for arguments in [
            &["history"][..],
            &["--", "sh", "-c", &format!("psql -Xqc 'select 1'; exit 3; {HOSTILE}")],
            &["report"],
            &["recover"],
            &[HOSTILE],
            &["--only", HOSTILE],
            &["--dir", HOSTILE],
            &["-d", HOSTILE],
        ] {
            harmless("safe-run", arguments);
        }
        let name = format!("n{HOSTILE}");
        for arguments in [
            &[
                "create",
                "--name",
                &name,
                "--tag",
                &format!("k{HOSTILE}=v{HOSTILE}"),
                "--table",
                &psql::quote_ident(&table),
            ][..],
            &["create"],
            &["list"],
            &["show", "latest"],
            &["show", HOSTILE],
            &["verify", HOSTILE],
            &["pin", "latest", "--note", HOSTILE],
            &["check"],
            &["list", "--database", HOSTILE],
            &["-r", HOSTILE, "list"],
        ] {
            harmless("backup", arguments);
        }
        harmless("restore", &["latest", "--dry-run"]);
        harmless("restore", &["latest", "--into", HOSTILE, "--dry-run"]);
        for run_id in run.runs() {
            let folder = run.folder().join("snapshots/runs").join(run_id);
            let text = std::fs::read_to_string(folder.join("report.txt")).unwrap();
            assert_harmless("report.txt", &text);
        }
        // JSON is for programs.
        let ended = outcome("safe-run", &["--json"]);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(
            report["error"]["message"].as_str().unwrap().contains(&format!("boom{HOSTILE}\nhint: drop it")),
            "{report}"
        );
        for line in ended.stderr.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
