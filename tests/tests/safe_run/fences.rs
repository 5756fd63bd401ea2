//! The exclusive fence and fences that are held: who can get in, who can't, and that each of them goes.

use tests::{Cluster, ProtectedRun, Running, psql, until};

fn run() -> ProtectedRun<'static> {
    ProtectedRun::shop(18)
}

/// A command that writes, says that it is there, and waits for `go`.
const WAITS: &str = "psql -Xqc 'DELETE FROM order_items' -c 'UPDATE orders SET total = 0'; env > environment; touch ready; while [ ! -e go ]; do sleep 0.05; done; exit $STATUS";

fn start(run: &ProtectedRun, flags: &[&str], status: &str) -> Running {
    let mut command = run.command(&[flags, &["--", "sh", "-c", WAITS]].concat());
    command.env("STATUS", status);
    let running = Running::start(command);
    until("the command has begun", || run.folder().join("ready").exists());
    running
}

fn go(run: &ProtectedRun) {
    run.file("go", "");
    std::fs::remove_file(run.folder().join("ready")).unwrap();
}

/// Cleared for the next command.
fn stop(run: &ProtectedRun) {
    std::fs::remove_file(run.folder().join("go")).unwrap();
}

tests::on_every_major! {
    fn behind_the_exclusive_fence_nobody_else_connects_and_the_command_does(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        let name = run.database.name().to_owned();
        let mut early = run.database.session();
        let before = run.fingerprint();
        let running = start(&run, &["--fence", "exclusive"], "1");
        // Not even a superuser, and nobody who says that it wants to write.
        for url in [run.database.url(), format!("{}&options=-c%20default_transaction_read_only%3Doff", run.database.url())] {
            let refused = psql::try_run(&url, "DELETE FROM users").unwrap_err();
            assert!(refused.contains("not currently accepting connections"), "{refused}");
        }
        let ended = early.try_run("DELETE FROM users").unwrap_err();
        assert!(ended.contains("57P01") || ended.contains("psql ended"), "{ended}");
        let environment = std::fs::read_to_string(run.folder().join("environment")).unwrap();
        let given = environment.lines().find_map(|line| line.strip_prefix("PGDATABASE=")).unwrap();
        assert!(given.starts_with(&format!("{name}_hidden_")), "{given}");
        assert!(environment.contains(&format!("/{given}?")), "not in DATABASE_URL: {environment}");
        // Not every driver takes it, and nothing is read-only here.
        assert!(!environment.contains("options="), "{environment}");
        assert!(!environment.contains("PGOPTIONS"), "{environment}");
        // A second run, with the same repository or another one.
        run.run(&["--fence", "none", "--", "true"]).exits(4).says("hint: ");
        run.run(&["--repo", "elsewhere", "--", "true"]).exits(4).says("--fence exclusive");
        go(&run);
        let outcome = running.outcome().exits(12).verdict("RESTORED").says(&format!("\"{name}\" is as it was before"));
        before.assert_same(&run.fingerprint());
        run.assert_open();
        let others = run.others();
        assert!(others.len() == 1 && others[0].starts_with(&format!("{name}_replaced_")), "{others:?} {outcome}");
        assert_eq!(psql::run(&cluster.url(&others[0]), "SELECT count(*) FROM order_items"), "0");
        stop(&run);

        let running = start(&run, &["--fence", "exclusive", "--allow-loss", "order_items"], "0");
        go(&run);
        running.outcome().exits(0).verdict("COMMITTED");
        assert_eq!(run.database.psql("SELECT sum(total) FROM orders"), "0.00");
        assert_eq!(run.others(), others);
        run.assert_open();
        // The snapshot has the name that people know.
        let snapshot = std::fs::read_dir(run.folder().join("snapshots/snapshots")).unwrap().next().unwrap().unwrap();
        let manifest = std::fs::read_to_string(snapshot.path().join("manifest.json")).unwrap();
        assert!(!manifest.contains("_hidden_"), "the snapshot knows the hidden name");
    }
}

#[test]
fn a_command_that_never_connects_gives_the_name_back() {
    let run = run();
    let before = run.fingerprint();
    run.run(&["--fence", "exclusive", "--", "true"])
        .exits(1)
        .verdict("NOT CONNECTED")
        .says("never connected");
    run.assert_unchanged(&before);
    assert_eq!(run.others(), Vec::<String>::new());
    // By the name that it always had, it finds a closed door.
    let url = run.database.url();
    run.run(&["--fence", "exclusive", "--", "psql", "-X", "-d", &url, "-c", "SELECT 1"]).exits(1);
    run.assert_unchanged(&before);
}

#[test]
fn files_run_behind_the_exclusive_and_the_read_only_fence() {
    for fence in ["exclusive", "read-only"] {
        let run = ProtectedRun::shop(14);
        run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n").migration(
            "0002_b.sql",
            "CREATE INDEX CONCURRENTLY by_user ON orders (user_id);\nSELECT 1 / 0;\n",
        );
        let before = run.fingerprint();
        run.run(&["--fence", fence]).exits(12).verdict("RESTORED").says("0002_b.sql:2");
        run.assert_unchanged(&before);
        run.migration("0002_b.sql", "CREATE TABLE b (i int);\nDELETE FROM orders;\n");
        run.run(&["--fence", fence]).exits(13).verdict("RESTORED").says("orders");
        run.assert_unchanged(&before);
        run.migration("0002_b.sql", "CREATE TABLE b (i int);\n");
        run.run(&["--fence", fence]).exits(0).verdict("COMMITTED");
        assert_eq!(run.database.psql("SELECT version FROM safe_run.migrations ORDER BY 1"), "0001\n0002");
        run.assert_open();
    }
}

#[test]
fn what_a_rename_would_leave_behind_is_refused() {
    let cluster =
        Cluster::start(18, &tests::Options::new().conf("wal_level = logical\nmax_prepared_transactions = 2"));
    let run = ProtectedRun::shop_on(&cluster);
    let refuses = |says: &str| {
        let before = run.fingerprint();
        run.run(&["--fence", "exclusive", "--", "psql", "-c", "SELECT 1"]).exits(3).says(says).says("hint: ");
        run.assert_unchanged(&before);
        assert_eq!(run.others(), Vec::<String>::new());
        run.run(&["recover"]).exits(0).says("Nothing to recover");
    };
    run.database.psql("SELECT pg_create_logical_replication_slot('feed', 'test_decoding')");
    refuses("replication slot feed");
    run.database.psql("SELECT pg_drop_replication_slot('feed')");
    run.database.psql("BEGIN; UPDATE users SET name = name; PREPARE TRANSACTION 'queue'");
    refuses("prepared transaction queue");
    run.database.psql("ROLLBACK PREPARED 'queue'");
    run.run(&["--fence", "exclusive", "--", "psql", "-Xc", "SELECT 1"]).exits(0);
}

#[test]
fn a_database_that_somebody_made_under_the_live_name_is_never_renamed_away() {
    let run = run();
    let name = run.database.name().to_owned();
    let running = start(&run, &["--fence", "exclusive"], "1");
    let cluster = run.database.cluster();
    cluster.psql(&format!("DROP DATABASE {name}; CREATE DATABASE {name}"));
    cluster_psql(&run, "CREATE TABLE theirs AS SELECT 1 AS i");
    go(&run);
    running.outcome().exits(20).says("somebody has made or opened").says("safe-run recover");
    assert_eq!(run.database.psql("SELECT i FROM theirs"), "1");
    run.run(&["recover"]).exits(20).says("somebody has made or opened").says("hint: ");
    cluster.psql(&format!("ALTER DATABASE {name} RENAME TO {name}_theirs"));
    run.run(&["recover"]).exits(0).says("RESTORED");
    assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "300");
    run.assert_open();
}

fn cluster_psql(run: &ProtectedRun, sql: &str) {
    psql::run(&run.database.url(), sql);
}

#[test]
fn a_held_fence_stays_after_success_and_undo_until_release() {
    for (fence, status) in [("read-only", "0"), ("read-only", "1"), ("exclusive", "0"), ("exclusive", "1")] {
        let run = ProtectedRun::shop(if status == "0" { 14 } else { 18 });
        let before = run.fingerprint();
        let running = start(&run, &["--fence", fence, "--hold-fence", "--allow-loss", "order_items"], status);
        go(&run);
        let code = if status == "0" { 0 } else { 12 };
        running.outcome().exits(code).says("the fence is held").says("safe-run release");
        let refused = run.database.try_psql("INSERT INTO users (name) VALUES ('late')").unwrap_err();
        let expected = if fence == "read-only" {
            "read-only transaction"
        } else {
            "not currently accepting connections"
        };
        assert!(refused.contains(expected), "{fence}: {refused}");
        run.migration("0001_a.sql", "SELECT 1;\n");
        let id = run.runs()[0].clone();
        if fence == "read-only" {
            run.run(&["status"]).exits(30).says(&id).says("safe-run release");
        } else {
            run.run(&["status"]).exits(3).says(&id).says("safe-run release");
            run.run(&[]).exits(3).says(&id).says("safe-run release");
        }
        // Nothing is unfinished: recover leaves it standing.
        run.run(&["recover"]).exits(0).says("Nothing to recover");
        assert!(run.database.try_psql("INSERT INTO users (name) VALUES ('late')").is_err());
        run.run(&["release"]).exits(0).says("RELEASED").says(&id);
        run.run(&["release"]).exits(0).says("Nothing to release");
        if status == "1" {
            run.assert_unchanged(&before);
        }
        run.assert_open();
        run.run(&["status"]).exits(30).never_says("release");
    }
    let run = run();
    for fence in ["none", "lock"] {
        run.migration("0001_a.sql", "SELECT 1;\n");
        run.run(&["--fence", fence, "--hold-fence"]).exits(2).says("--hold-fence");
    }
}

/// A client that reads neither PGOPTIONS nor `options` in the URL, as some drivers do.
const DEAF: &str = "url=$(printf '%s' \"$DATABASE_URL\" | sed 's/options=[^&]*//'); PGOPTIONS= psql -Xq -v ON_ERROR_STOP=1 -d \"$url\" -c \"DELETE FROM audit\" -c 'ALTER TABLE users ADD nick text'";

#[test]
fn a_driver_that_ignores_options_is_stopped_by_the_read_only_fence_and_not_by_the_exclusive_one() {
    let run = run();
    let before = run.fingerprint();
    let outcome = run.run(&["--", "sh", "-c", DEAF]).exits(12).verdict("RESTORED");
    drop(outcome.says("read-only transaction"));
    run.assert_unchanged(&before);
    run.run(&["--fence", "exclusive", "--", "sh", "-c", DEAF]).exits(0).verdict("COMMITTED");
    assert_eq!(run.database.psql("SELECT count(nick) FROM users"), "0");
    run.assert_open();
}

#[test]
fn who_says_that_he_wants_to_write_passes_the_read_only_fence_and_his_rows_are_in_the_failed_database() {
    let run = run();
    let running = start(&run, &[], "1");
    run.database.psql("SET default_transaction_read_only = off; INSERT INTO users (name) VALUES ('through')");
    go(&run);
    let outcome = running.outcome().exits(12).verdict("RESTORED");
    let kept = run.others().pop().unwrap();
    let outcome = outcome.says(&format!("the failed state is kept as database \"{kept}\""));
    assert_eq!(run.database.psql("SELECT count(*) FROM users WHERE name = 'through'"), "0", "{outcome}");
    let there =
        psql::run(&run.database.cluster().url(&kept), "SELECT count(*) FROM users WHERE name = 'through'");
    assert_eq!(there, "1");
}

#[test]
fn a_command_that_was_never_seen_leaves_no_held_fence() {
    let run = run();
    run.run(&["--hold-fence", "--", "true"]).exits(1).verdict("NOT CONNECTED");
    run.assert_open();
    run.run(&["release"]).exits(0).says("Nothing to release");
}

#[test]
fn fences_that_stand_on_each_other_are_released_to_the_last() {
    let run = run();
    let before = run.fingerprint();
    for fence in ["read-only", "read-only", "exclusive"] {
        let change = ["--", "psql", "-Xqc", "UPDATE orders SET note = 'held'"];
        run.run(&[&["--hold-fence", "--fence", fence][..], &change].concat())
            .exits(0)
            .says("the fence is held");
    }
    // Killed in the middle, it goes on where it was.
    run.crash("safe-run.releasing#2", &["release"]);
    let outcome = run.run(&["release"]).exits(0).says("RELEASED");
    assert_eq!(outcome.stdout.matches("RELEASED").count(), 2, "{outcome}");
    run.run(&["release"]).exits(0).says("Nothing to release");
    run.assert_open();
    let parts = |of: &tests::Fingerprint| {
        of.parts("database").map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(parts(&before), parts(&run.fingerprint()));
    assert_eq!(run.others(), Vec::<String>::new());
}

#[test]
fn a_hidden_database_that_somebody_took_away_is_never_said_to_be_back() {
    let run = run();
    let before = run.fingerprint();
    let cluster = run.database.cluster();
    let aside = format!("{}_aside", run.database.name());
    let exclusive = ["--fence", "exclusive", "--hold-fence", "--", "psql", "-Xqc", "SELECT 1"];
    for finish in ["recover", "release"] {
        if finish == "recover" {
            run.crash("safe-run.applying", &exclusive);
        } else {
            run.run(&exclusive).exits(0);
        }
        let hidden = run.others().into_iter().find(|name| name.contains("_hidden_")).unwrap();
        until("nobody is connected", || {
            cluster.psql(&format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{hidden}'")) == "0"
        });
        cluster.psql(&format!("ALTER DATABASE {hidden} RENAME TO {aside}"));
        run.run(&[finish]).exits(20).says("is gone").says(&hidden).says("hint: ");
        cluster.psql(&format!("ALTER DATABASE {aside} RENAME TO {hidden}"));
        run.run(&[finish]).exits(0);
        run.run(&["release"]).exits(0);
        run.assert_unchanged(&before);
    }
    let left = run.others();
    assert!(left.iter().all(|name| name.contains("_replaced_")), "{left:?}");
}

/// Its own setting is no fence, neither for a backup nor for a run; it is there again after each.
fn a_database_that_is_read_only_on_purpose(major: u32) {
    let run = ProtectedRun::shop(major);
    let name = run.database.name().to_owned();
    for value in ["on", "true"] {
        run.database
            .cluster()
            .psql(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {value}"));
        let kept = |name: &str| {
            let setting = run.database.cluster().psql(&format!(
                "SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
                 WHERE setrole = 0 AND datname = '{name}'"
            ));
            assert!(setting.contains(&format!("default_transaction_read_only={value}")), "{name}: {setting}");
        };
        let by = |program: &str, arguments: &[&str]| {
            let mut command = tests::binaries::command(program);
            command.args(arguments).current_dir(run.folder()).env("DATABASE_URL", run.database.url());
            Running::start(command).outcome()
        };
        let before = run.fingerprint();
        for repository in ["snapshots", "nightly"] {
            drop(
                by("backup", &["create", "--repo", repository])
                    .exits(0)
                    .never_says("fence")
                    .never_says("safe-run"),
            );
        }
        drop(by("backup", &["check"]).exits(0).never_says("read-only"));
        drop(by("backup", &["drill"]).exits(0));
        run.run(&["check"]).exits(0).verdict("CLEAN").never_says("unfinished");
        run.run(&["recover"]).exits(0).says("Nothing to recover");
        before.assert_same(&run.fingerprint());

        let copy = format!("{name}_copy");
        drop(by("restore", &["latest", "--into", &copy]).exits(0));
        kept(&copy);
        run.database.cluster().psql(&format!("DROP DATABASE \"{copy}\""));
        drop(by("restore", &["latest", "--replace", "--drop-replaced", "--yes"]).exits(0));
        drop(
            by("restore", &["latest", "--table", "audit", "--replace", "--drop-replaced", "--yes"]).exits(0),
        );
        kept(&name);
        before.assert_same(&run.fingerprint());

        let destroys =
            ["psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DELETE FROM order_items", "-c", "SELECT 1 / 0"];
        for flags in [&["--fence", "read-only"][..], &["--fence", "exclusive"], &["--snapshot", "clone"]] {
            // Its sessions are let through, whatever keeps others from writing.
            run.run(&[flags, &["--"], &destroys].concat()).exits(12).verdict("RESTORED");
            kept(&name);
            before.assert_same(&run.fingerprint());
        }
        run.migration("0001_a.sql", "ALTER TABLE orders ADD status text;\n");
        run.migration("0002_b.sql", "SELECT 1 / 0;\n");
        run.run(&[]).exits(10).verdict("ROLLED BACK");
        run.run(&["--fence", "read-only"]).exits(10).verdict("ROLLED BACK");
        kept(&name);
        before.assert_same(&run.fingerprint());
        run.migration("0002_b.sql", "CREATE INDEX CONCURRENTLY ON orders (status);\n");
        run.run(&[]).exits(0).verdict("COMMITTED");
        kept(&name);
        let refused = run.database.try_psql("DELETE FROM order_items").unwrap_err();
        assert!(refused.contains("read-only transaction"), "{refused}");
        run.database.psql("SET default_transaction_read_only = off; DROP SCHEMA safe_run CASCADE; ALTER TABLE orders DROP status");
        for other in run.others() {
            run.database.cluster().psql(&format!("DROP DATABASE \"{other}\""));
        }
    }
}

#[test]
fn a_database_that_is_read_only_on_purpose_is_not_taken_for_a_fenced_one_postgresql_14() {
    a_database_that_is_read_only_on_purpose(14);
}

#[test]
fn a_database_that_is_read_only_on_purpose_is_not_taken_for_a_fenced_one_postgresql_18() {
    a_database_that_is_read_only_on_purpose(18);
}
