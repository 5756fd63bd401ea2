//! An application writes all the time while migrations succeed, fail, or are killed and recovered. With a fence no
//! acknowledged write is lost and none is invented; without one every table that lost writes is named.

use std::os::unix::process::ExitStatusExt;

use tests::{Application, Cluster, ProtectedRun, Running};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Success,
    Failure,
    Killed,
}

const OUTCOMES: [Outcome; 3] = [Outcome::Success, Outcome::Failure, Outcome::Killed];

/// Runs with the application beside it; the outcome of the run, and what the application has to say.
fn beside_the_application(
    major: u32,
    flags: &[&str],
    outcome: Outcome,
    prepare: impl Fn(&ProtectedRun),
    command: &[&str],
    code: i32,
) -> (tests::Ended, tests::ledger::Ledger) {
    let run = ProtectedRun::shop_on(Cluster::shared(major));
    // On another server than the database.
    let application = Application::start(&run.database, Cluster::shared(if major == 18 { 17 } else { 18 }));
    application.until_it_writes();
    prepare(&run);
    let mut started = run.command(&[flags, command].concat());
    started.env("STATUS", if outcome == Outcome::Failure { "1" } else { "0" });
    if outcome == Outcome::Killed {
        started.env("SAFE_RUN_FAULT", "safe-run.applied");
    }
    let ended = Running::start(started).outcome();
    let ended = if outcome == Outcome::Killed {
        assert_eq!(ended.status.signal(), Some(9), "{ended}");
        run.run(&["recover"]).exits(0)
    } else {
        ended.exits(code)
    };
    // The fence is gone.
    application.until_it_writes();
    run.assert_open();
    let ledger = application.stop();
    assert!(ledger.acknowledged.len() > 10, "the application hardly wrote");
    let others =
        run.others().into_iter().filter(|name| name.contains("_hidden_") || name.contains("_closed_"));
    assert_eq!(others.count(), 0);
    (ended, ledger)
}

fn files(outcome: Outcome) -> impl Fn(&ProtectedRun) {
    move |run| {
        let end = if outcome == Outcome::Failure { "SELECT 1 / 0;\n" } else { "SELECT 1;\n" };
        let sql = "ALTER TABLE writes ADD seen bool DEFAULT true;\nUPDATE writes SET note = 'migrated';\nSELECT pg_sleep(0.3);\n";
        run.migration("0001_a.sql", sql).migration("0002_b.sql", end);
    }
}

/// Changes the rows of the application in several transactions.
const COMMAND: [&str; 4] = [
    "--",
    "sh",
    "-c",
    "psql -Xqc \"UPDATE writes SET note = 'migrated'\" -c 'ALTER TABLE writes ADD seen bool DEFAULT true' -c 'SELECT pg_sleep(0.3)'; exit $STATUS",
];

#[test]
fn with_locks_no_acknowledged_write_is_lost_or_invented() {
    for outcome in OUTCOMES {
        let code = if outcome == Outcome::Failure { 10 } else { 0 };
        let (_, ledger) = beside_the_application(18, &[], outcome, files(outcome), &[], code);
        ledger.assert_exact();
        // Writers waited and were never refused or cut off.
        assert_eq!((ledger.refused, ledger.unknown.len()), (0, 0), "{outcome:?}");
    }
}

#[test]
fn behind_the_read_only_fence_no_acknowledged_write_is_lost_or_invented() {
    for outcome in OUTCOMES {
        let code = if outcome == Outcome::Failure { 12 } else { 0 };
        let (_, ledger) = beside_the_application(14, &[], outcome, |_| {}, &COMMAND, code);
        ledger.assert_exact();
        assert!(ledger.refused + ledger.unknown.len() as u64 > 0, "{outcome:?}: no writer met the fence");
    }
}

#[test]
fn behind_the_exclusive_fence_no_acknowledged_write_is_lost_or_invented() {
    for outcome in OUTCOMES {
        let code = if outcome == Outcome::Failure { 12 } else { 0 };
        let flags = ["--fence", "exclusive"];
        let (_, ledger) = beside_the_application(18, &flags, outcome, |_| {}, &COMMAND, code);
        ledger.assert_exact();
        let (_, ledger) = beside_the_application(
            14,
            &[&flags[..], &["--tx", "file"]].concat(),
            outcome,
            files(outcome),
            &[],
            code,
        );
        ledger.assert_exact();
    }
}

#[test]
fn without_a_fence_nothing_is_undone_unasked_and_every_changed_table_is_named() {
    for outcome in OUTCOMES {
        let code = if outcome == Outcome::Failure { 14 } else { 0 };
        let (ended, ledger) =
            beside_the_application(18, &["--fence", "none"], outcome, |_| {}, &COMMAND, code);
        ledger.assert_exact();
        if outcome != Outcome::Success {
            let ended = ended.says("by this run or by others: writes (").says("restore ").says("--replace");
            drop(ended.says("a restore of ").never_says("others: users"));
        }
        let (_, ledger) = beside_the_application(
            14,
            &["--fence", "none"],
            outcome,
            files(outcome),
            &[],
            if code == 14 { 10 } else { 0 },
        );
        ledger.assert_exact();
    }
}

#[test]
fn an_undo_without_a_fence_that_was_asked_for_names_what_is_lost_and_where_it_is() {
    let run = ProtectedRun::shop(18);
    let application = Application::start(&run.database, Cluster::shared(17));
    application.until_it_writes();
    // Our own table is reached by the files, the application's is not.
    run.migration("0001_a.sql", "ALTER TABLE audit ADD seen bool;\n")
        .migration("0002_b.sql", "SELECT pg_sleep(1);\nSELECT 1 / 0;\n");
    let flags = ["--fence", "none", "--tx", "file"];
    let stopped = run.run(&flags).exits(14).verdict("STOPPED");
    drop(
        stopped
            .says("others wrote since the snapshot, which the migrations do not reach: writes (")
            .never_says("users"),
    );
    run.database.psql("ALTER TABLE audit DROP COLUMN seen; DELETE FROM safe_run.migrations");
    let undone = run.run(&[&flags[..], &["--on-failure", "undo"]].concat()).exits(12).verdict("RESTORED");
    let undone = undone.says("others wrote since the snapshot, which the migrations do not reach: writes (");
    application.until_it_writes();
    let kept = run.others().pop().unwrap();
    let undone = undone.says(&format!("those rows are in \"{kept}\" only"));
    let ledger = application.stop();
    ledger.assert_nothing_invented();
    // Each lost write is where the report says.
    let lost = ledger.lost();
    assert!(!lost.is_empty(), "nothing was lost, so nothing is proven: {undone}");
    let there = tests::psql::run(&run.database.cluster().url(&kept), "SELECT id FROM writes");
    let there: std::collections::BTreeSet<u64> = there.lines().map(|id| id.parse().unwrap()).collect();
    assert!(lost.is_subset(&there), "{lost:?}");
}
