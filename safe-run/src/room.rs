//! Room for a run's sessions, found out before anything begins: behind a fence, or in an undo, it is too late to find that a limit is met.

use common::{
    Error, Result,
    postgres::session_room::{self, Need},
};

use crate::run::{Context, SnapshotChoice};

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
/// Busy where there is no room for a single one. The database was not changed.
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
    let room = session_room::find(&context.control, need).await.map_err(|error: Error| {
        let database = context.connection.database();
        error.with_database_state(format!("The database \"{database}\" was not changed."))
    })?;
    if let Some(said) = room.said {
        context.progress.note(said);
    }
    context.options.jobs = room.jobs;
    Ok(())
}
