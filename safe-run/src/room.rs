//! Room for a run's sessions and locks, found out before anything begins: behind a fence, or in an undo, it is too late to find that a limit is
//! met.

use common::{
    Error, Progress, Result,
    postgres::{
        Session, lock_room,
        session_room::{self, Need},
    },
};

use crate::run::{Context, FenceChoice, SnapshotChoice};

/// How the run will work, as far as its sessions go by it.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// In one transaction.
    OneTransaction,
    /// Behind a fence, with an undo by snapshot or clone.
    Guarded,
}

/// Sets the jobs to what there is room for.
///
/// # Errors
/// Busy where there is no room for a single one; refused where the server has fewer locks than tables. The database was not changed.
pub async fn make(context: &mut Context, way: Way) -> Result<()> {
    let jobs = context.options.jobs;
    let (fixed, per_job) = match (way, context.options.snapshot) {
        // Who migrates and who looks; who copies and who checks.
        (Way::OneTransaction, _) => (2, 2),
        // The session that sets fences, the holder, and the command; who checks.
        (Way::Guarded, SnapshotChoice::Clone | SnapshotChoice::None) => (3, 1),
        // And who copies.
        (Way::Guarded, _) => (4, 2),
    };
    let need = Need { fixed, per_job, jobs, same_database: true };
    let database = context.connection.database();
    let unchanged =
        |error: Error| error.with_database_state(format!("The database \"{database}\" was not changed."));
    let room = session_room::find(&context.control, need).await.map_err(unchanged)?;
    // The fence locks every table, the state before does, or who holds the state for checks.
    let locks_all =
        context.options.fence != FenceChoice::None || context.options.snapshot != SnapshotChoice::None;
    if locks_all {
        lock_room::find(&context.control).await.and_then(|locks| locks.require()).map_err(unchanged)?;
    }
    if let Some(said) = room.said {
        context.progress.note(said);
    }
    context.options.jobs = room.jobs;
    Ok(())
}

/// For how many jobs of a restore beside `control` there is room.
///
/// # Errors
/// Busy where there is room for none.
pub async fn for_restore(control: &Session, jobs: usize, progress: &Progress) -> Result<usize> {
    // A session of ours or pg_restore's own, and who loads.
    let need = Need { fixed: 1, per_job: 1, jobs, same_database: false };
    let room = session_room::find(control, need).await?;
    if let Some(said) = room.said {
        progress.note(said);
    }
    Ok(room.jobs)
}
