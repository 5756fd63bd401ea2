//! A copy of the database on its own server, made behind the fence: with it an undo is a swap of names, at any size.
//!
//! The copy is made by files, while nobody can be connected to the database, and accepts no connection from its first
//! moment on. So it is the state behind the fence, and nobody can have changed it; that, and what belongs to the database
//! itself (owner, grants, settings, labels), is looked at before it is used. Rows are not read again. A database is never
//! taken for a clone, and never dropped, for its name alone: it has to bear the run's mark (docs/exactness.md, E15).

mod make;
mod recover;
mod undo;

use common::{Error, Progress, Result, postgres::Session};

pub use make::{make, make_now, refuse_obstacles};
pub use recover::{recover_by, recover_leftover, took_its_place};
pub use undo::Undone;
pub(crate) use undo::undo;

use crate::{
    database_clone::drop_in_time,
    run::{FenceChoice, RunLog, SnapshotChoice},
};

/// What the undo is, for a plan.
pub fn undo_phrase(choice: SnapshotChoice) -> &'static str {
    match choice {
        SnapshotChoice::Clone => "a swap with the database's clone",
        SnapshotChoice::Both => "a swap with the database's clone, or else a restore of the snapshot",
        SnapshotChoice::File => "a restore of the snapshot",
        SnapshotChoice::Auto => "a restore of the snapshot, or where that can't be, a swap with a clone",
        SnapshotChoice::None => "left to a person: there is no snapshot",
    }
}

/// Refuses flags that contradict each other.
pub fn refuse_usage(choice: SnapshotChoice, fence: FenceChoice, keep: bool) -> Result<()> {
    if keep && !choice.has_clone() {
        return Err(Error::usage("--keep-clone needs a clone").with_hint("Add --snapshot clone or both."));
    }
    if choice.has_clone() && matches!(fence, FenceChoice::None | FenceChoice::Lock) {
        return Err(Error::usage("a clone needs a fence that ends all sessions")
            .with_hint("Use --fence read-only or --fence exclusive with it, or leave --fence away."));
    }
    Ok(())
}

/// After a run that stands: the clone goes, or stays as it was told to; then its name.
pub async fn drop_or_keep(log: &mut RunLog, control: &Session, progress: &Progress) -> Option<String> {
    match log.clone.take() {
        Some(clone) if clone.keep => {
            log.report.notes.push(format!("the clone \"{}\" is kept (--keep-clone), closed", clone.name));
            log.report.next.extend(clone.by_hand());
            Some(clone.name)
        }
        clone => {
            log.clone = clone;
            drop_unneeded(log, control, progress).await;
            None
        }
    }
}

/// Nobody needs the clone any more. A clone that stays is no failure of the run, and said.
pub async fn drop_unneeded(log: &mut RunLog, control: &Session, progress: &Progress) {
    let Some(clone) = log.clone.take() else { return };
    let why = match drop_in_time(control, &clone, progress).await {
        Ok(None) => return,
        Ok(Some(why)) => why,
        Err(error) => error.to_string(),
    };
    log.report.notes.push(format!("the clone \"{}\" was not dropped: {why}", clone.name));
    log.report.next.push(clone.by_hand()[1].clone());
}

/// The run stops for a person, who may want the clone.
pub fn leave(log: &mut RunLog) {
    let Some(clone) = log.clone.take() else { return };
    let report = &mut log.report;
    report.state = match &report.snapshot {
        Some(_) => format!("{} · so does the closed database \"{}\"", report.state, clone.name),
        None => format!(
            "database \"{}\" holds what the failed run left behind · the closed database \"{}\" holds the state before",
            report.database, clone.name
        ),
    };
    report.next.extend(clone.by_hand());
}
