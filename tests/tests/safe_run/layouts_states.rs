//! Adopted histories that do not fit: drift, failed migrations, late files; and the commands that mend them.

use tests::{Ended, ProtectedRun};

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
    // A file that is committed in pieces is half done from its first commit on; its settings hold in every piece.
    for (end, code, left) in [("SELECT 1 / 0;\n", 14, "1|t"), ("", 0, "1|f")] {
        let run = ProtectedRun::shop(18);
        run.database.psql("CREATE TYPE mood AS ENUM ('x'); CREATE SCHEMA s; CREATE TABLE s.moods (m mood)");
        let sql = "SET search_path = s, public;\nALTER TYPE mood ADD VALUE 'ok';\nINSERT INTO moods VALUES ('ok');\n";
        run.migration("1_a.up.sql", &format!("{sql}{end}"));
        let ended = run.run(&["--format", "golang-migrate", "--on-failure", "stop"]).exits(code);
        let state = "SELECT version, dirty FROM schema_migrations; SELECT count(*) FROM s.moods";
        let rows = i32::from(code == 0);
        assert_eq!(run.database.psql(state), format!("{left}\n{rows}"), "{ended}");
    }
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

/// A file of each format that records checksums, and where.
const WITH_CHECKSUMS: [(&str, &str, &str); 5] = [
    ("sqlx", "1_a.sql", "SELECT checksum::text FROM _sqlx_migrations"),
    ("flyway", "V1__a.sql", "SELECT checksum::text FROM flyway_schema_history"),
    ("refinery", "V1__a.sql", "SELECT checksum FROM refinery_schema_history"),
    ("prisma", "1_a/migration.sql", "SELECT checksum FROM _prisma_migrations"),
    ("safe-run", "1_a.sql", "SELECT checksum FROM safe_run.migrations"),
];

#[test]
fn an_edited_file_is_refused_in_every_format_and_accepted_as_if_it_had_run_so() {
    for (format, name, checksum) in WITH_CHECKSUMS {
        let run = empty();
        let write = |run: &ProtectedRun, sql: &str| run.file(&format!("migrations/{name}"), sql);
        write(&run, "CREATE TABLE a (i int);\nCREATE TABLE b ();\n");
        run.run(&["--format", format]).exits(0).verdict("COMMITTED");
        let applied = run.database.psql(checksum);
        // Flyway's own checksum does not see line ends.
        write(&run, "CREATE TABLE a (i int);\r\nCREATE TABLE b ();\r\n");
        let edited = run.run(&["status"]).exits(0);
        if format == "flyway" {
            edited.never_says("edited")
        } else {
            edited.says("only line ends differ")
        };

        let now = "CREATE TABLE a (i bigint);\nCREATE TABLE b ();\n";
        write(&run, now);
        refuses(&run, &[], 3, &[name, "edited after it was applied", "safe-run repair --accept"]);
        let version = if format == "prisma" { "1_a" } else { "1" };
        run.run(&["repair", "--accept", version, "--yes"]).exits(0).verdict("COMMITTED");
        run.run(&[]).exits(0).verdict("UP TO DATE").never_says("edited");
        // The checksum is the one of a database to which the file was applied as it is now.
        let fresh = empty();
        write(&fresh, now);
        fresh.run(&["--format", format]).exits(0);
        assert_ne!(run.database.psql(checksum), applied, "{format}");
        assert_eq!(run.database.psql(checksum), fresh.database.psql(checksum), "{format}");
    }
    // The others record no checksum: nobody can tell.
    for (format, name) in [("diesel", "1_a/up.sql"), ("goose", "1_a.sql")] {
        let run = empty();
        run.file(&format!("migrations/{name}"), "-- +goose Up\nSELECT 1;\n");
        run.run(&["--format", format]).exits(0);
        run.file(&format!("migrations/{name}"), "-- +goose Up\nSELECT 2;\n");
        run.run(&["status"]).exits(0).never_says("edited");
    }
}

#[test]
fn failures_outside_of_a_transaction_are_recorded_as_flyway_and_prisma_do_and_cleared() {
    for (format, name, failed) in [
        (
            "flyway",
            "V1__a.sql",
            "SELECT concat(installed_rank, version, type, script, success) FROM flyway_schema_history",
        ),
        (
            "prisma",
            "1_a/migration.sql",
            "SELECT concat(finished_at, applied_steps_count, rolled_back_at, logs LIKE '%23505%') FROM _prisma_migrations",
        ),
    ] {
        let run = ProtectedRun::shop(18);
        let file = format!("migrations/{name}");
        run.file(&file, "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (user_id);\n");
        run.run(&["--format", format, "--on-failure", "stop"]).exits(14).verdict("STOPPED").says("23505");
        let expected = if format == "flyway" { "11SQLV1__a.sqlf" } else { "0t" };
        assert_eq!(run.database.psql(failed), expected, "{format}");
        refuses(&run, &[], 3, &["failed half-way", "safe-run repair"]);
        run.run(&["repair", "--yes"]).exits(0).verdict("COMMITTED");
        run.file(&file, "CREATE INDEX CONCURRENTLY once ON orders (user_id);\n");
        run.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
        run.run(&[]).exits(0).verdict("UP TO DATE");
    }
}

#[test]
fn refinery_with_wide_versions_has_a_bigint_and_a_checksum_of_its_own() {
    let run = empty();
    let sql = "CREATE TABLE a (i int);\n";
    run.migration("V20240101120000__a.sql", sql).migration("U20240102120000__b.sql", "SELECT 1;\n");
    run.run(&["--format", "refinery"]).exits(0).verdict("COMMITTED");
    // As refinery_cli 0.10.0 writes them, built with int8-versions.
    let rows = "SELECT version, name, checksum, pg_typeof(version) FROM refinery_schema_history ORDER BY 1";
    assert_eq!(
        run.database.psql(rows),
        "20240101120000|a|13035715536433465990|bigint\n20240102120000|b|9393488822698063545|bigint"
    );
    run.run(&["status"]).exits(0).never_says("edited");
    run.migration("V20240103120000__c.sql", "CREATE TABLE c (i int);\n");
    run.run(&[]).exits(0).verdict("COMMITTED");

    // A history made by a refinery without them has no room: nothing is applied, and nobody says otherwise.
    let run = empty();
    run.migration("V1__a.sql", sql);
    run.run(&["--format", "refinery"]).exits(0);
    run.migration("V20240101120000__b.sql", "CREATE TABLE b (i int);\n");
    refuses(&run, &[], 2, &["V20240101120000__b.sql", "int4", "int8-versions"]);
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

#[test]
fn sqlx_settings_name_its_table_its_schemas_and_what_its_checksums_leave_out() {
    for major in [14, 18] {
        let run = ProtectedRun::on(tests::Cluster::shared(major).fresh_database("sqlx_toml"));
        run.file(
            "sqlx.toml",
            "[migrate]\ncreate-schemas = [\"audit\"]\ntable-name = \"audit._ran\"\nignored-chars = [\"\\r\", \" \", \"\\uFEFF\"]\n",
        );
        run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
        // The settings alone tell whose the files are.
        run.run(&[]).exits(0).verdict("COMMITTED");
        run.run(&["status"]).exits(0).says("(sqlx, audit._ran)");
        assert_eq!(
            run.database.psql(
                "SELECT to_regclass('_sqlx_migrations') IS NULL AND to_regnamespace('safe_run') IS NULL"
            ),
            "t"
        );
        // As sqlx computes it: over the text without these characters.
        let expected =
            "SELECT checksum = sha384(convert_to(E'CREATETABLEa(iint);\\n', 'UTF8')) FROM audit._ran";
        assert_eq!(run.database.psql(expected), "t");
        // What sqlx takes as unchanged is unchanged.
        run.migration("1_a.sql", "\u{feff}CREATE  TABLE a (i int);\r\n");
        run.run(&["status"]).exits(0).never_says("edited");
        run.migration("1_a.sql", "CREATE TABLE a (i  int );\n-- why\n");
        run.run(&["status"]).exits(3).says("edited after it was applied");
        run.run(&["--yes", "repair", "--accept", "1"]).exits(0);
        let accepted =
            "SELECT checksum = sha384(convert_to(E'CREATETABLEa(iint);\\n--why\\n', 'UTF8')) FROM audit._ran";
        assert_eq!(run.database.psql(accepted), "t");
        run.run(&["status"]).exits(0);
        // Without the settings the history is not to be seen, and is found by its columns all the same.
        std::fs::remove_file(run.folder().join("sqlx.toml")).unwrap();
        for words in [&[][..], &["--format", "sqlx"]] {
            run.run(words)
                .exits(3)
                .says("stands in audit._ran, the history of sqlx")
                .says("--format sqlx --history-table audit._ran");
        }
        run.run(&["--format", "sqlx", "--history-table", "audit._ran", "status"]).exits(3).says("edited");
    }
}

#[test]
fn a_history_of_another_name_is_found_where_its_tool_is_told_it() {
    let goose = "CREATE TABLE \"Steps\" (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, version_id bigint NOT NULL,
        is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now()); INSERT INTO \"Steps\" (version_id, is_applied)
        VALUES (0, true), (1, true)";
    let run = empty();
    run.database.psql(goose);
    run.migration("1_a.sql", "-- +goose Up\nCREATE TABLE a (i int);\n")
        .migration("2_b.sql", "-- +goose Up\nCREATE TABLE b (i int);\n");
    run.run(&[]).exits(3).says("1 of these migrations stands in \"Steps\", the history of goose");
    let mut command = run.command(&[]);
    command.env("GOOSE_TABLE", "\"Steps\"");
    tests::Running::start(command).outcome().exits(0).verdict("COMMITTED").says("1 migration");
    run.file(".env", "GOOSE_TABLE='\"Steps\"'\n");
    run.run(&["status"]).exits(0).says("(goose, \"Steps\")");

    let run = empty();
    run.database.psql("CREATE TABLE ran (version bigint not null primary key, dirty boolean not null); INSERT INTO ran VALUES (1, false)");
    run.migration("1_a.up.sql", "CREATE TABLE a (i int);\n")
        .migration("2_b.up.sql", "CREATE TABLE b (i int);\n");
    run.run(&["--format", "golang-migrate"])
        .exits(3)
        .says("1 of these migrations stands in ran, the history of golang-migrate");
    let mut command = run.command(&[]);
    command.env("DATABASE_URL", format!("{}&x-migrations-table=ran", run.database.url()));
    tests::Running::start(command).outcome().exits(0).verdict("COMMITTED").says("1 migration");
    assert_eq!(run.database.psql("SELECT version, dirty FROM ran"), "2|f");

    let run = empty();
    run.file("flyway.toml", "[flyway]\ntable = \"changes\"\n");
    run.migration("V1__a.sql", "CREATE TABLE a (i int);\n")
        .migration("V2.1__b.sql", "CREATE TABLE b (i int);\n");
    run.run(&[]).exits(0).verdict("COMMITTED");
    assert_eq!(run.database.psql("SELECT count(*) FROM changes"), "2");
    run.file("flyway.toml", "[flyway]\ntable = \"changes\"\nsqlMigrationPrefix = \"X\"\n");
    run.run(&["status"]).exits(3).says("flyway.sqlMigrationPrefix").says("safe-run -- COMMAND");
}

#[test]
fn a_project_that_needs_sqlx_gets_the_history_that_its_program_reads() {
    let run = empty();
    run.file("Cargo.toml", "[package]\nname = 'shop'\n[dependencies]\nsqlx = { version = '0.9' }\n");
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
    run.run(&[]).exits(0).verdict("COMMITTED");
    assert_eq!(run.database.psql("SELECT version FROM _sqlx_migrations"), "1");
}

/// The owner of a history may have taken a NOT NULL away.
#[test]
fn a_null_in_a_history_is_named_and_no_crash() {
    let run = empty();
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
    run.run(&["--format", "sqlx"]).exits(0);
    run.database
        .psql("ALTER TABLE _sqlx_migrations ALTER description DROP NOT NULL; UPDATE _sqlx_migrations SET description = NULL");
    for words in [&["status"][..], &["plan"], &[]] {
        run.run(&[&["--format", "sqlx"], words].concat())
            .exits(3)
            .says("_sqlx_migrations has a row whose description is NULL");
    }
    let run = empty();
    run.migration("1_a.up.sql", "CREATE TABLE a (i int);\n");
    run.database.psql("CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean); INSERT INTO schema_migrations VALUES (1, NULL)");
    run.run(&["--format", "golang-migrate", "status"]).exits(3).says("a row whose dirty is NULL");
    // goose before 3 made a time that may be NULL.
    let run = empty();
    run.migration("1_a.sql", "-- +goose Up\nCREATE TABLE a (i int);\n");
    run.database.psql(
        "CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp NULL);
         INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (1, true)",
    );
    run.run(&["--format", "goose", "status"]).exits(0).says("1 migration applied");
    let run = empty();
    run.migration("1_a.sql", "CREATE TABLE a (i int);\n");
    run.run(&[]).exits(0);
    run.database.psql("ALTER TABLE safe_run.migrations ALTER checksum DROP NOT NULL; UPDATE safe_run.migrations SET checksum = NULL");
    run.run(&["status"]).exits(3).says("a row whose checksum is NULL");
}
