//! Adopted histories that do not fit: drift, failed migrations, late files, other runners; and the commands that mend them.

use tests::{Ended, ProtectedRun, until};

fn empty() -> ProtectedRun<'static> {
    ProtectedRun::on(tests::Cluster::shared(18).fresh_database("states"))
}

/// Ends with the code, says all of this, has a hint, and changes nothing.
#[track_caller]
fn refuses(run: &ProtectedRun, arguments: &[&str], code: i32, says: &[&str]) {
    let before = run.fingerprint();
    let mut outcome: Ended = run.run(arguments).exits(code).says("hint: ");
    for text in says {
        outcome = outcome.says(text);
    }
    run.assert_unchanged(&before);
}

const SQLX: &str = "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
    installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL,
    execution_time bigint NOT NULL);";
const MIGRATE: &str =
    "CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL);";

#[test]
fn drift_is_told_apart_and_repaired() {
    let run = empty();
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n").migration("2_b.sql", "CREATE TABLE b (i int);\n");
    run.run(&["--format", "sqlx"]).exits(0);
    let checksums = "SELECT string_agg(checksum::text, ' ' ORDER BY version) FROM _sqlx_migrations";
    let first = run.database.psql(checksums);

    run.migration("1_a.sql", "CREATE TABLE a (i int);\r\n").migration("3_c.sql", "CREATE TABLE c (i int);\n");
    run.run(&[])
        .exits(0)
        .verdict("COMMITTED")
        .says("1_a.sql was edited after it was applied: only line ends differ");
    run.run(&["repair", "--dry-run"]).exits(0).says("1_a.sql").says("Nothing was changed");
    refuses(&run, &["repair"], 3, &["--yes"]);
    run.run(&["repair", "--yes"]).exits(0).verdict("COMMITTED").says("1 checksum");
    run.run(&["status"]).exits(0).never_says("edited");
    run.run(&["repair", "--yes"]).exits(0).says("Nothing to repair");
    assert_ne!(run.database.psql(checksums), first);

    run.migration("2_b.sql", "CREATE TABLE b (i bigint);\n");
    refuses(&run, &[], 3, &["2_b.sql", "edited after it was applied", "safe-run repair --accept"]);
    refuses(&run, &["status"], 3, &["2_b.sql"]);
    refuses(&run, &["repair", "--yes"], 3, &["2_b.sql", "--accept 2"]);
    run.run(&["repair", "--accept", "2", "--yes"]).exits(0);
    run.run(&["status"]).exits(0);
    run.run(&["history"]).exits(0).says("its checksum is recorded as it is now");
}

#[test]
fn a_change_of_comments_is_told_with_the_text_that_git_kept() {
    let run = empty();
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
    let git = "git init -q . && git add migrations && git -c user.name=a -c user.email=a@b commit -qm a";
    let status = std::process::Command::new("sh").args(["-c", git]).current_dir(run.folder()).status();
    assert!(status.unwrap().success());
    run.run(&["--format", "sqlx"]).exits(0);
    run.migration("1_a.sql", "-- why\nCREATE TABLE a\n  (i int);\n");
    run.run(&["status"]).exits(0).says("only comments or white space differ");
}

#[test]
fn failed_migrations_are_refused_with_a_way_out() {
    let run = empty();
    run.migration("1_a.up.sql", "SELECT 1;\n").migration("2_b.up.sql", "CREATE TABLE b (i int);\n");
    run.database.psql(&format!("{MIGRATE} INSERT INTO schema_migrations VALUES (2, true)"));
    refuses(&run, &[], 3, &["schema_migrations", "migration 2 failed half-way", "safe-run stamp 2"]);
    refuses(&run, &["status"], 3, &["failed half-way"]);
    refuses(&run, &["repair", "--yes"], 3, &["failed half-way"]);
    run.run(&["stamp", "1", "--yes"]).exits(0).verdict("COMMITTED");
    assert_eq!(run.database.psql("SELECT version, dirty FROM schema_migrations"), "1|f");
    run.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    assert_eq!(run.database.psql("SELECT version, dirty FROM schema_migrations"), "2|f");

    let run = empty();
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
    run.database
        .psql(&format!("{SQLX} INSERT INTO _sqlx_migrations VALUES (1, 'a', now(), false, '\\x00', -1)"));
    refuses(&run, &[], 3, &["failed half-way", "safe-run repair"]);
    run.run(&["repair", "--yes"]).exits(0);
    run.run(&[]).exits(0).verdict("COMMITTED");
}

#[test]
fn a_file_outside_of_a_transaction_that_fails_is_left_as_the_tool_would_leave_it() {
    let run = ProtectedRun::shop(18);
    run.migration("1_a.up.sql", "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id);\n");
    run.run(&["--format", "golang-migrate", "--on-failure", "stop"])
        .exits(14)
        .verdict("STOPPED")
        .says("23505");
    assert_eq!(run.database.psql("SELECT version, dirty FROM schema_migrations"), "1|t");
    // With the undo, nothing is left.
    let run = ProtectedRun::shop(18);
    run.migration("1_a.up.sql", "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id);\n");
    let before = run.fingerprint();
    run.run(&["--format", "golang-migrate"]).exits(12).verdict("RESTORED");
    run.assert_unchanged(&before);
}

#[test]
fn late_files_are_refused_and_allowed_per_version_and_to_stops() {
    let run = empty();
    run.migration("00002_b.sql", "-- +goose Up\nCREATE TABLE b (i int);\n");
    run.run(&[]).exits(0).verdict("COMMITTED");
    run.migration("00001_a.sql", "-- +goose Up\nCREATE TABLE a (i int);\n")
        .migration("00003_c.sql", "-- +goose Up\nCREATE TABLE c (i int);\n");
    refuses(&run, &[], 3, &["00001_a.sql", "--allow-out-of-order 00001"]);
    run.run(&["--allow-out-of-order", "1", "--to", "2"]).exits(0).says("1 migration");
    run.run(&["status"]).exits(30).says("00003");
    assert_eq!(
        run.database.psql("SELECT string_agg(version_id::text, ' ' ORDER BY id) FROM goose_db_version"),
        "0 2 1"
    );
    refuses(&run, &["--to", "9"], 2, &["no migration has version 9"]);
}

#[test]
fn flyway_repeats_what_changed_skips_what_is_below_the_baseline_and_fills_in_nothing() {
    let run = empty();
    run.database.psql("CREATE TABLE a (i int)");
    run.migration("V1__a.sql", "CREATE TABLE a (i int);\n")
        .migration("V1.1__b.sql", "CREATE TABLE b (i int);\n")
        .migration("R__v.sql", "CREATE OR REPLACE VIEW v AS SELECT 1 AS one;\n");
    run.run(&["baseline", "1", "--yes"]).exits(0).verdict("COMMITTED");
    refuses(&run, &["baseline", "1", "--yes"], 3, &["is not empty", "safe-run stamp"]);
    run.run(&[]).exits(0).says("2 migrations");
    run.migration("R__v.sql", "CREATE OR REPLACE VIEW v AS SELECT 2 AS one;\n");
    run.run(&["status"]).exits(30);
    run.run(&[]).exits(0).says("1 migration");
    assert_eq!(run.database.psql("SELECT one FROM v"), "2");
    let rows = "SELECT string_agg(concat(installed_rank, ' ', type, ' ', version, ' ', script), '; ' ORDER BY installed_rank)
                FROM flyway_schema_history";
    assert_eq!(
        run.database.psql(rows),
        "1 BASELINE 1 << Flyway Baseline >>; 2 SQL 1.1 V1.1__b.sql; 3 SQL  R__v.sql; 4 SQL  R__v.sql"
    );
    run.migration("V2__c.sql", "SELECT 1;\nINSERT INTO b VALUES ('${number}');\n");
    refuses(&run, &[], 3, &["V2__c.sql:2", "placeholder"]);
    // What is applied already may hold anything.
    run.run(&["stamp", "2", "--yes"]).exits(0);
    run.run(&[]).exits(0).verdict("UP TO DATE");
}

#[test]
fn other_languages_are_refused_by_file_while_they_are_pending() {
    let run = empty();
    run.migration("00001_a.sql", "-- +goose Up\nSELECT 1;\n").migration("00002_b.go", "package main\n");
    refuses(&run, &[], 3, &["00002_b.go:1", "Go function"]);
    run.run(&["--to", "1"]).exits(0).verdict("COMMITTED");
    run.run(&["stamp", "2", "--yes"]).exits(0);
    run.run(&[]).exits(0).verdict("UP TO DATE");
}

#[test]
fn a_baseline_marks_every_file_up_to_a_version() {
    for (format, names, row) in [
        ("sqlx", ["1_a.sql", "2_b.sql"], "SELECT count(*) FROM _sqlx_migrations WHERE success"),
        ("safe-run", ["1_a.sql", "2_b.sql"], "SELECT count(*) FROM safe_run.migrations"),
        ("golang-migrate", ["1_a.up.sql", "2_b.up.sql"], "SELECT version - 1 FROM schema_migrations"),
    ] {
        let run = empty();
        run.migration(names[0], "CREATE TABLE a (i int);\n").migration(names[1], "CREATE TABLE b (i int);\n");
        let before = run.fingerprint();
        run.run(&["baseline", "2", "--format", format, "-n"]).exits(0).says("Nothing was changed");
        run.assert_unchanged(&before);
        refuses(&run, &["baseline", "7", "--format", format, "--yes"], 2, &["no migration has version 7"]);
        run.run(&["baseline", "2", "--format", format, "--yes"]).exits(0).verdict("COMMITTED");
        assert_eq!(run.database.psql(row), if format == "golang-migrate" { "1" } else { "2" }, "{format}");
        run.run(&[]).exits(0).verdict("UP TO DATE");
    }
}

#[test]
fn a_mark_that_is_killed_is_recovered_to_what_became_of_it() {
    for (point, verdict, rows) in
        [("safe-run.before-commit", "NOT RUN", "f"), ("safe-run.after-commit", "COMMITTED", "t")]
    {
        let run = empty();
        run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
        run.crash(point, &["stamp", "1", "--yes", "--format", "sqlx"]);
        refuses(&run, &["--format", "sqlx"], 3, &["did not finish", "safe-run recover"]);
        run.run(&["recover"]).exits(0).says(verdict);
        assert_eq!(run.database.psql("SELECT to_regclass('_sqlx_migrations') IS NOT NULL"), rows, "{point}");
    }
}

#[test]
fn the_tools_own_lock_keeps_us_out_and_ours_keeps_the_tool_out() {
    let run = empty();
    run.migration("1_a.sql", "SELECT pg_sleep(3);\n");
    // 0x3d32ad9e times the CRC-32 of the database's name, as sqlx has it.
    let key = crc32(run.database.name()) as i64 * 0x3d32_ad9e;
    let mut tool = run.database.session();
    tool.run(&format!("SELECT pg_advisory_lock({key})"));
    let brief = ["--format", "sqlx", "--lock-timeout", "200ms", "--lock-retries", "1"];
    refuses(&run, &brief, 4, &["sqlx works on the database", "pid"]);
    tool.run(&format!("SELECT pg_advisory_unlock({key})"));
    let running = run.start(&["--format", "sqlx"]);
    until("the lock is held", || {
        tool.run(&format!("SELECT pg_try_advisory_lock({key})")) == "f" || {
            tool.run(&format!("SELECT pg_advisory_unlock({key})"));
            false
        }
    });
    running.outcome().exits(0).verdict("COMMITTED");
}

/// CRC-32, bit by bit.
fn crc32(text: &str) -> u32 {
    !text.bytes().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn what_is_ambiguous_or_hidden_is_refused_with_the_flag_to_give() {
    let run = empty();
    run.migration("1_a.up.sql", "SELECT 1;\n");
    refuses(
        &run,
        &[],
        3,
        &["sqlx or golang-migrate", "1 .up.sql files", "--format sqlx or --format golang-migrate"],
    );
    run.database.psql(&format!("CREATE SCHEMA app; SET search_path = app; {MIGRATE}"));
    refuses(&run, &[], 3, &["app.schema_migrations", "search_path"]);
    run.database.psql(&format!("{SQLX} {MIGRATE}"));
    refuses(&run, &[], 3, &["several histories", "--format sqlx"]);
}

#[test]
fn a_commands_own_history_is_told_before_and_after() {
    let run = ProtectedRun::shop(14);
    run.database.psql("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY); INSERT INTO alembic_version VALUES ('a1')");
    run.run(&["--", "psql", "-Xqc", "UPDATE alembic_version SET version_num = 'c3'"])
        .exits(0)
        .says("alembic_version: a1 (1 row) → c3 (1 row)");
    run.run(&["--", "psql", "-Xqc", "SELECT 1"]).exits(0).says("alembic_version is unchanged at c3 (1 row)");
}
