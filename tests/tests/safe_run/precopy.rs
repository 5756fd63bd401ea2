//! `--snapshot-when precopy`: what the first checks answered with writers at work is taken over where it still holds, and the
//! verdict is the one of a run that reads everything behind the fence.

use std::path::PathBuf;

use serde_json::Value;
use tests::{Cluster, Ended, Options, ProtectedRun, Running, until};

fn telling(major: u32) -> Cluster {
    Cluster::start(major, &Options::new().conf("summarize_wal = on").conf("autovacuum = off"))
}

const OLD_ORPHANS: &str = "SET session_replication_role = replica; DELETE FROM users WHERE id IN (3, 4)";

/// What others do between the first look and the fence: orphans of a table that is not read again otherwise, and new rows.
const MEANWHILE: &str = "SET session_replication_role = replica; DELETE FROM orders WHERE id IN (17, 18);
    SET session_replication_role = origin; INSERT INTO audit SELECT i, 'x' FROM generate_series(1, 50) i; DELETE FROM audit WHERE id = 7;
    ALTER TABLE audit DISABLE TRIGGER ALL";

/// A migration whose new orphan fails the checks, so that the report holds old and new findings and the database stays.
const BREAKS: &str = "SET LOCAL session_replication_role = replica; INSERT INTO order_items (order_id, sku) VALUES (9999, 'none')";

/// Runs with a first look, and does `meanwhile` between it and the fence.
fn run_interrupted(run: &ProtectedRun, arguments: &[&str], meanwhile: impl FnOnce()) -> Ended {
    let wait: PathBuf = run.file("wait", "");
    let mut command = run.command(arguments);
    command.env("SAFE_RUN_FAULT_WAIT", format!("safe-run.precopied={}", wait.display()));
    let running = Running::start(command);
    let reached = wait.with_file_name("wait.reached");
    until("the first look is over", || reached.exists());
    meanwhile();
    std::fs::remove_file(&wait).unwrap();
    let ended = running.outcome();
    std::fs::remove_file(reached).unwrap();
    ended
}

fn report(run: &ProtectedRun) -> Value {
    serde_json::from_str(&std::fs::read_to_string(run.folder().join("report.json")).unwrap()).unwrap()
}

/// Everything in the report that the pass before the migration decides.
fn judged(report: &Value) -> [Value; 4] {
    ["findings", "rows", "tables", "skipped"].map(|name| report[name].clone())
}

#[test]
fn a_run_with_a_first_look_judges_as_one_that_reads_everything_behind_the_fence() {
    for major in tests::cluster::majors().into_iter().filter(|major| *major >= 17) {
        let cluster = telling(major);
        let run = ProtectedRun::shop_on(&cluster);
        run.database.psql(&format!("{OLD_ORPHANS}; VACUUM (FREEZE)"));
        run.migration("0001_breaks.sql", BREAKS);
        let precopy = ["--snapshot-when", "precopy", "--report-json", "report.json", "--verbose"];
        let ended = run_interrupted(&run, &precopy, || drop(run.database.psql(MEANWHILE))).exits(11);
        // Keys of orders: to users and from order_items; of the four tables two changed.
        ended
            .says("checks before the migration, after first ones before the fence: took over 0 of 2 foreign-keys")
            .says("4 of 4 row counts (5 of the rules by a look at the changed rows alone); read again: order_items, orders")
            .says("first checks, with writers at work: ").says("and writers had waited ");
        let found = judged(&report(&run));
        // One new orphan of six: those that others left meanwhile are old.
        assert_eq!(found[0]["new"][0]["sample_keys"], serde_json::json!(["9999"]), "{}", found[0]);
        assert_eq!(found[0]["pre_existing"].as_array().unwrap().len(), 1);
        run.run(&["--snapshot-when", "fenced", "--report-json", "report.json"]).exits(11);
        assert_eq!(found, judged(&report(&run)));

        // Nothing changed (what was rolled back, the first reader would prune: a change): everything is taken over, and with it the old orphans.
        run.database.psql("VACUUM");
        let ended = run.run(&precopy).exits(11);
        ended.says("took over 2 of 2 foreign-keys, 1 of 1 check, ").says("4 of 4 row counts\n");
        assert_eq!(found, judged(&report(&run)));
        run.database.psql("VACUUM");
        let ended = run
            .run(&["--snapshot-when", "precopy", "--snapshot", "none", "--report-json", "report.json"])
            .exits(11);
        ended.says("took over 2 of 2 foreign-keys").says("; writers had waited ");
        assert_eq!(found, judged(&report(&run)));
    }
}

#[test]
fn a_command_behind_the_read_only_fence_is_judged_alike() {
    for major in tests::cluster::majors().into_iter().filter(|major| *major >= 17) {
        let cluster = telling(major);
        let run = ProtectedRun::shop_on(&cluster);
        run.database.psql(&format!("{OLD_ORPHANS}; VACUUM (FREEZE)"));
        let command = format!(
            "psql -Xq -v ON_ERROR_STOP=1 -c '{}'",
            BREAKS.replace("LOCAL ", "").replace('\'', "'\\''")
        );
        let when = |when: &'static str| {
            ["--snapshot-when", when, "--report-json", "report.json", "--", "sh", "-c", &command]
        };
        let words = when("precopy");
        let ended = run_interrupted(&run, &words, || drop(run.database.psql(MEANWHILE))).exits(13);
        ended
            .says("took over 0 of 2 foreign-keys")
            .says("2 of 4 row counts; read again: audit, order_items, orders");
        let found = judged(&report(&run));
        assert_eq!(found[0]["new"][0]["sample_keys"], serde_json::json!(["9999"]), "{}", found[0]);
        run.run(&when("fenced")).exits(13);
        let again = judged(&report(&run));
        // Restored databases have other oids; everything that a person sees is the same.
        let texts = |of: &[Value; 4]| -> Vec<String> {
            ["new", "pre_existing", "fixed"]
                .iter()
                .flat_map(|list| of[0][list].as_array().into_iter().flatten())
                .map(|finding| format!("{} {} {}", finding["detail"], finding["count"], finding["key_hash"]))
                .collect()
        };
        assert_eq!(texts(&found), texts(&again));
        let rows = |of: &[Value; 4]| -> Vec<Value> {
            let changes = of[1]["changes"].as_array().unwrap();
            ["rows_before", "rows_after", "tables"]
                .map(|name| of[1][name].clone())
                .into_iter()
                .chain(changes.iter().map(|change| change["detail"].clone()))
                .collect()
        };
        assert_eq!((rows(&found), &found[3]), (rows(&again), &again[3]));
        // The first to read what was restored just now marks the rows as committed: with checksums that is a change. Nobody
        // marks them before the log is on disk.
        run.database.psql("CHECKPOINT");
        run.database.psql("VACUUM");
        // With a clone there is no snapshot to take before, and none is left.
        let words = ["--snapshot", "clone", "--snapshot-when", "precopy", "--", "sh", "-c", &command];
        run.run(&words).exits(13).says("took over 2 of 2 foreign-keys").says("; writers had waited ");
        let kept = std::fs::read_dir(run.folder().join("snapshots/snapshots")).unwrap().count();
        assert_eq!(kept, 2, "those of the two runs before");
    }
}

#[test]
fn where_the_server_does_not_tell_all_checks_are_run_behind_the_fence_and_the_report_says_why() {
    for (major, why) in [
        (14, "PostgreSQL 14 does not tell what changed (17 and later do)"),
        (16, "PostgreSQL 16 does not tell what changed (17 and later do)"),
        (18, "summarize_wal is off on the server, which is what tells what changed"),
    ] {
        let run = ProtectedRun::shop(major);
        run.migration("0001_note.sql", "ALTER TABLE orders ADD COLUMN extra text");
        let ended = run.run(&["--snapshot-when", "precopy", "--verbose"]).exits(0);
        let ended =
            ended.says(&format!("protection: checks before the migration: all behind the fence: {why}"));
        assert!(!ended.stderr.contains("took over"), "{ended}");
    }
}

#[test]
fn auto_takes_a_first_look_where_the_checks_would_keep_writers_waiting() {
    let cluster = telling(18);
    let run = ProtectedRun::shop_on(&cluster);
    run.migration("0001_breaks.sql", BREAKS);
    let start = |bytes: u64, arguments: &[&str]| {
        // What an earlier run rolled back, the first reader would prune: a change.
        run.database.psql("VACUUM");
        let mut command = run.command(&[&["--verbose"], arguments].concat());
        command.env("SAFE_RUN_FAULT_NUMBER", format!("safe-run.database-bytes={bytes}"));
        Running::start(command).outcome()
    };
    let of_size = |bytes: u64, arguments: &[&str]| start(bytes, arguments).exits(11);
    let looked = |ended: &Ended| ended.to_string().contains("with writers at work");
    of_size(900_000_000, &[])
        .says("and checks once before and once behind the fence: otherwise writers would wait about 13 s, 9 s for the snapshot and 4 s for the checks")
        .says("took over 2 of 2 foreign-keys");
    assert!(!looked(&of_size(600_000_000, &[])));
    assert!(!looked(&of_size(2_000_000_000, &["--snapshot", "none"])));
    of_size(3_000_000_000, &["--snapshot", "none"])
        .says("checks once before and once behind the fence: otherwise writers would wait about 15 s for the checks")
        .says("took over 2 of 2 foreign-keys");
    // The catalog alone is read at once.
    assert!(!looked(&start(3_000_000_000, &["--snapshot", "none", "--level", "fast"]).exits(0)));
    let run = ProtectedRun::shop(16);
    run.migration("0001_breaks.sql", BREAKS);
    let mut command = run.command(&["--verbose"]);
    command.env("SAFE_RUN_FAULT_NUMBER", "safe-run.database-bytes=3000000000");
    assert!(!looked(&Running::start(command).outcome().exits(11)));
}
