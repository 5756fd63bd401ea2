//! Snapshots from before migrations: kept whatever the rules say, but of runs that changed nothing only the newest.

use serde_json::Value;
use tests::{Outcome, ProtectedRun, cluster::ends};

fn backup(run: &ProtectedRun, arguments: &[&str]) -> Outcome {
    let mut command = tests::binaries::command("backup");
    Outcome::of(command.args(arguments).current_dir(run.folder()).env("DATABASE_URL", run.database.url()))
}

/// The snapshots in the order in which they were taken, and whether each stays.
fn decisions(run: &ProtectedRun) -> Vec<(bool, Value)> {
    let arguments = ["prune", "--keep-last", "1", "--keep-min", "1", "--dry-run", "--json"];
    let document: Value = serde_json::from_str(&backup(run, &arguments).expect(0).stdout).unwrap();
    let mut rows = document["decisions"].as_array().unwrap().clone();
    rows.sort_by_key(|row| row["id"].as_str().unwrap().to_owned());
    rows.into_iter().map(|row| (row["keep"].as_bool().unwrap(), row)).collect()
}

#[test]
fn of_runs_that_changed_nothing_prune_keeps_the_newest_snapshot_alone() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let asks = ["--snapshot", "file", "--", "psql", "-Xqc", "SELECT 1"];
        for _ in 0..3 {
            run.run(&asks).exits(0);
        }
        // One row more, and a column more: other states.
        run.run(&["--snapshot", "file", "--", "psql", "-Xqc", "INSERT INTO audit VALUES (1, 'x')"]).exits(0);
        run.run(&["--snapshot", "file", "--", "psql", "-Xqc", "COMMENT ON TABLE audit IS 'new'"]).exits(0);
        run.run(&asks).exits(0);
        let found = decisions(&run);
        let kept: Vec<bool> = found.iter().map(|(keep, _)| *keep).collect();
        // The first three and the one before the INSERT hold one state; then each holds its own.
        assert_eq!(kept, [false, false, false, true, true, true], "{major}: {found:?}");
        for (_, row) in &found[..3] {
            assert_eq!(row["same_as"], found[3].1["id"], "{row}");
        }
        let told = backup(&run, &["prune", "--keep-last", "1", "--keep-min", "1"]).expect(0);
        assert_eq!(told.stdout.matches("with the same state as ").count(), 3, "{}", told.stdout);
        assert!(decisions(&run).iter().all(|(keep, _)| *keep));
        // The floor is above the rule.
        run.run(&asks).exits(0);
        let floor = ["prune", "--keep-last", "1", "--keep-min", "9"];
        let told = backup(&run, &floor).expect(0);
        assert!(!told.stdout.contains("deleted"), "{}", told.stdout);
    }
}

#[test]
fn days_of_prune_are_those_of_the_time_zone_that_is_named() {
    let run = ProtectedRun::shop(18);
    backup(&run, &["create"]).expect(0);
    let prune = ["prune", "--keep-daily", "1", "--dry-run", "--timezone"];
    // Two zones of which one has another day than the other at any time.
    let day = |zone: &str| {
        let told = backup(&run, &[&prune[..], &[zone]].concat()).expect(0).stdout;
        told.split("daily ").nth(1).unwrap()[..10].to_owned()
    };
    assert_ne!(day("Pacific/Kiritimati"), day("Pacific/Pago_Pago"));
    backup(&run, &[&prune[..], &["Mars/Olympus"]].concat()).expect(2);
}
