//! `--keep-runs N`: which runs are forgotten, and whose snapshots stay pinned. A run that has not finished is never
//! forgotten, nor one whose fence still stands.
//!
//! The pin of a kept run carries the run's id as its note, so that a person's own pin is never taken away. A snapshot that
//! is released is not deleted: `backup prune` decides about it.

use chrono::Utc;
use common::{
    Result,
    repository::{Repository, pins::Pin},
    snapshot::SnapshotId,
};

use crate::{
    journal::{self, PastRun, Step},
    report::Report,
    writes,
};

/// Pins the snapshots of the newest `keep` runs on the database and forgets the finished runs before them.
///
/// Returns what went wrong, as sentences: the outcome of the run that has just ended is what it is.
pub fn keep_runs(repository: &Repository, database: &str, report: &Report, keep: u32) -> Vec<String> {
    let runs = match journal::past_runs(repository) {
        Ok(runs) => runs,
        Err(error) => return vec![format!("older runs could not be tidied: {error}")],
    };
    let here: Vec<&PastRun> = runs.iter().filter(|run| run.database() == Some(database)).collect();
    // `release` finds the fence that a run holds in its journal.
    // Nor is one forgotten whose replication slot is still there, or that saved what others wrote.
    let over = |run: &&PastRun| {
        run.finished().is_some()
            && !run.holds_fence()
            && journal::open_slot(&run.steps).is_none()
            && !run.dir.join(writes::FILE).exists()
    };
    let finished: Vec<&PastRun> = here.iter().copied().filter(over).collect();
    let old = finished.len().saturating_sub(keep as usize);
    let forgotten: Vec<&PastRun> =
        finished.into_iter().take(old).filter(|run| run.run != report.run).collect();
    let is_forgotten = |run: &PastRun| forgotten.iter().any(|old| old.run == run.run);
    let mut problems = Vec::new();
    for run in here.iter().filter(|run| !is_forgotten(run)) {
        if let Err(error) = pin(repository, run) {
            problems.push(format!("the snapshot of run {} could not be pinned: {error}", run.run));
        }
    }
    for run in forgotten {
        if let Err(error) = forget(repository, run) {
            problems.push(format!("run {} could not be tidied away: {error}", run.run));
        }
    }
    problems
}

fn snapshots(run: &PastRun) -> impl Iterator<Item = SnapshotId> {
    run.steps.iter().filter_map(|step| match step {
        Step::SnapshotTaken { id } => SnapshotId::parse(id).ok(),
        _ => None,
    })
}

fn note(run: &PastRun) -> String {
    format!("safe-run {}", run.run)
}

fn pin(repository: &Repository, run: &PastRun) -> Result<()> {
    let pins = repository.pins()?;
    for id in snapshots(run) {
        if !pins.contains_key(&id) && repository.list()?.iter().any(|listed| listed.id == id) {
            repository.pin(&id, &Pin { at: Some(Utc::now()), note: Some(note(run)) })?;
        }
    }
    Ok(())
}

/// The pin goes first: if this is cut short, the run is still there and the next one tidies it.
fn forget(repository: &Repository, run: &PastRun) -> Result<()> {
    let pins = repository.pins()?;
    for id in snapshots(run) {
        if pins.get(&id).and_then(|pin| pin.note.as_deref()) == Some(note(run).as_str()) {
            repository.unpin(&id)?;
        }
    }
    repository.remove_run(&SnapshotId::parse(&run.run)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, Mode};

    #[test]
    fn a_run_whose_fence_still_stands_is_never_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&folder.path().join("snapshots")).unwrap();
        let began = |second: u32, steps: &[Step]| {
            let at = chrono::DateTime::from_timestamp(i64::from(second), 0).unwrap();
            let run = SnapshotId::new(at, "shop", u64::from(second));
            let what = String::new();
            let first = Step::Begun { database: "shop".to_owned(), mode: Mode::Restore, what };
            let mut journal = Journal::begin(&repository, &run, first).unwrap();
            for step in steps {
                journal.write(step.clone()).unwrap();
            }
            run.to_string()
        };
        let finished = || Step::Finished { exit_code: 0, verdict: "COMMITTED".to_owned() };
        let hiding = || Step::Hiding { hidden: "h".to_owned(), placeholder: "p".to_owned() };
        let held = began(1, &[Step::HoldFence, hiding(), finished()]);
        let released = began(2, &[Step::HoldFence, hiding(), finished(), Step::FenceLifted]);
        let old = began(3, &[finished()]);
        let last = began(4, &[finished()]);
        let mut report = Report::new("shop".to_owned(), Mode::Restore, Utc::now());
        report.run.clone_from(&last);
        assert_eq!(keep_runs(&repository, "shop", &report, 1), Vec::<String>::new());
        let kept: Vec<String> =
            journal::past_runs(&repository).unwrap().into_iter().map(|run| run.run).collect();
        assert!(!kept.contains(&released) && !kept.contains(&old), "{kept:?}");
        assert_eq!(kept, [held, last]);
    }
}
