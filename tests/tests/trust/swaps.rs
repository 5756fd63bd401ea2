//! Schemas that are swapped while something is restored, tried or undone: one state, or an error that names the schema.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use tests::{ProtectedRun, Snapshots};

use crate::reading_is_safe::{TWINS, beside};

/// What tables named `t` (or `t_restored_…`) and `u` hold, by the oid of the table: rows, and of whom. Nobody swaps meanwhile.
fn tables(run: &ProtectedRun<'_>) -> Vec<(String, u64, String)> {
    let named =
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('a', 'b', 'c') AND c.relkind = 'r' ORDER BY 1";
    let of = |name: &str| {
        let counted = format!("SELECT count(*) || ' ' || string_agg(DISTINCT whose, '+') FROM {name}");
        let said = run.database.psql(&counted);
        let (rows, whose) = said.split_once(' ').unwrap_or_else(|| panic!("{name}: {said}"));
        (name.to_owned(), rows.parse().unwrap(), whose.to_owned())
    };
    run.database.psql(named).lines().map(of).collect()
}

#[test]
fn restores_drills_and_undoes_beside_swaps_give_one_state_or_name_the_schema() {
    // More of them in a long run by hand.
    let wanted = std::env::var("SAFE_RUN_TEST_SWAPS").map_or(30, |text| text.parse::<u64>().unwrap());
    let major = 18;
    let run = ProtectedRun::shop(major);
    run.database.psql(TWINS);
    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &[]);
    let url = run.database.url();
    let (swaps, turn) = (AtomicU64::new(0), Mutex::new(()));
    let work = |n: u64| {
        let count = 1 + n * 7919 % 12;
        let swap = "BEGIN; ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b; COMMIT;";
        let pause = format!("SELECT pg_sleep({}.0 / 1000);", n * 104_729 % 23);
        let burst = format!(
            "SET default_transaction_read_only = off; {}",
            format!("{swap}{pause}").repeat(count as usize)
        );
        let held = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // An undo gives the name to another database, and ends who is connected.
        if run.database.try_psql(&burst).is_ok() {
            swaps.fetch_add(count, Ordering::SeqCst);
        }
        drop(held);
        std::thread::sleep(Duration::from_millis(1 + n * 31 * 97 % 4000));
    };
    let commands: [(&str, &[&str]); 4] = [
        ("restore", &["latest", "--table", "a.t"]),
        ("restore", &["latest", "--table", "a.t", "--replace", "-y", "--drop-replaced"]),
        ("backup", &["drill", "latest"]),
        ("safe-run", &[]),
    ];
    let mut done = [0_u32; 4];
    beside(work, || {
        let mut n = 0;
        let enough = |done: &[u32; 4]| done[0] + done[1] > 0 && done[3] > 0;
        // Where the swaps are in the way every time, nothing is shown, and that is a failure and no wait for ever.
        while swaps.load(Ordering::SeqCst) < wanted || (!enough(&done) && n < 60) {
            let (program, arguments) = commands[n % 4];
            let (code, said) = if program == "safe-run" {
                let fails = [
                    "--",
                    "psql",
                    "-X",
                    "-v",
                    "ON_ERROR_STOP=1",
                    &url,
                    "-c",
                    "DELETE FROM a.u",
                    "-c",
                    "SELECT 1/0",
                ];
                let ended = run.run(&[&["--snapshot", "file", "--on-failure", "undo"][..], &fails].concat());
                (ended.status.code().unwrap(), ended.to_string())
            } else {
                let outcome = snapshots.run(program, &url, arguments);
                (outcome.code, format!("{outcome:?}"))
            };
            let at = format!("{program} {arguments:?} on {major}: {said}");
            let (is_done, may_fail) = match program {
                "safe-run" => (code == 12, [4, 11].contains(&code)),
                _ => (code == 0, code == 4 && program == "restore"),
            };
            assert!(is_done || may_fail && (said.contains("schema") || said.contains("lock")), "{at}");
            done[n % 4] += u32::from(is_done);
            n += 1;
            let _held = turn.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, rows, whose) in tables(&run) {
                let (first, second) = if name.ends_with(".u") { (3000, 3500) } else { (4000, 4500) };
                let want = if whose == "first" { first } else { second };
                assert!(
                    rows == want && ["first", "second"].contains(&whose.as_str()),
                    "{name} has {rows} of {whose}; {at}"
                );
                let schema = name.split('.').next().unwrap();
                if name.contains("_restored_") {
                    assert_eq!(whose, "first", "{at}");
                    run.database.psql(&format!("DROP TABLE {name}"));
                } else if name.ends_with(".u") && whose == "second" {
                    // The two are told apart again.
                    run.database.psql(&format!("TRUNCATE {schema}.t; INSERT INTO {schema}.t SELECT i, 'second' FROM generate_series(1, 4500) i"));
                }
            }
        }
    });
    assert!(done[0] + done[1] > 0 && done[3] > 0, "nothing got through in 60 rounds: {done:?}");
    println!("{} swaps on PostgreSQL {major}, done: {done:?}", swaps.load(Ordering::SeqCst));
}
