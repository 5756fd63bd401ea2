//! Fences that outlive their run (`--hold-fence`): finds them, says so, and lifts them.

use std::path::Path;

use common::{
    Error, ErrorKind, Result,
    postgres::{ConnectionSettings, Session, database},
    repository::Repository,
};

use crate::{
    exclusive::{self, Hidden},
    fence,
    journal::{self, Journal, PastRun, Step},
};

/// Settings that lead to the database of these runs, which may have another name just now.
pub async fn entrance(settings: &ConnectionSettings, runs: &[PastRun]) -> Result<ConnectionSettings> {
    let hidden: Vec<Hidden> = runs.iter().filter_map(PastRun::hidden).collect();
    if hidden.is_empty() {
        return Ok(settings.clone());
    }
    let control = fence::control(settings).await?;
    for names in &hidden {
        if database::exists(&control, &names.hidden).await? {
            return Ok(settings.with_database(&names.hidden));
        }
    }
    for names in &hidden {
        exclusive::refuse_lost(&control, names).await?;
    }
    Ok(settings.clone())
}

/// Lifts the fences of these finished runs, given oldest first; their ids. The newest goes first: it stands on those below it,
/// and what it found is what the ones before it had set. `live` has the name that applications use.
pub async fn release(live: &ConnectionSettings, session: &Session, held: &[PastRun]) -> Result<Vec<String>> {
    let _guard = common::interrupt::begin_undo().await;
    let control = fence::control(live).await?;
    let mut released = Vec::new();
    for past in held.iter().rev() {
        common::fault::point("safe-run.releasing");
        if let Some(names) = past.hidden() {
            exclusive::lift(live, &control, &names).await?;
        } else {
            let previous = past.steps.iter().find_map(|step| match step {
                Step::Fencing { previous } => Some(previous.clone()),
                _ => None,
            });
            fence::lift(&control, live.database(), previous.flatten().as_deref(), &[session.backend_pid()])
                .await?;
        }
        common::fault::point("safe-run.released");
        Journal::reopen(past)?.write(Step::FenceLifted)?;
        released.push(past.run.clone());
    }
    Ok(released)
}

/// The ids of finished runs whose fence still stands on the database; none where there is no repository.
pub fn held_fences(repository: &Path, database: &str) -> Result<Vec<String>> {
    match Repository::open(repository) {
        Ok(repository) => Ok(journal::held(&repository, database)?.into_iter().map(|run| run.run).collect()),
        Err(error) if error.kind() == ErrorKind::NoSuchSnapshot => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The ids of runs on the database that were stopped and wait for a person's decision; none where there is no repository.
pub fn undecided(repository: &Path, database: &str) -> Result<Vec<String>> {
    let runs = match Repository::open(repository) {
        Ok(repository) => journal::with_slot(&repository, database)?,
        Err(error) if error.kind() == ErrorKind::NoSuchSnapshot => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(runs.into_iter().filter(PastRun::is_undecided).map(|run| run.run).collect())
}

/// A database that accepts no connection may be closed by a run of ours: says by which, and what to do.
pub fn explain_closed(error: Error, repository: &Path, database: &str) -> Error {
    if error.sqlstate() != Some("55000") {
        return error;
    }
    let busy = |error: Error| {
        error.with_kind(ErrorKind::Busy).with_hint(
            "If a safe-run with --fence exclusive works on it, wait for its end; if that was killed, run `safe-run recover` \
             with its repository.",
        )
    };
    let Ok(repository) = Repository::open(repository) else { return busy(error) };
    let held = journal::held(&repository, database).unwrap_or_default();
    let unfinished = journal::unfinished(&repository, database).unwrap_or_default();
    let is_hiding = |run: &&PastRun| run.hidden().is_some();
    if let Some(run) = held.iter().find(is_hiding) {
        return Error::refused(format!(
            "run {} holds the database \"{database}\" closed (--hold-fence)",
            run.run
        ))
        .with_hint("Run `safe-run release` to open it.");
    }
    let Some(run) = unfinished.iter().find(is_hiding) else { return busy(error) };
    // Only who is alive holds the run's lock.
    if repository.lock_named(&crate::run_lock(database)).is_err() {
        return Error::busy(format!(
            "another safe-run works on the database \"{database}\" and has closed it: run {} ({})",
            run.run,
            run.what()
        ))
        .with_hint("Wait until it has finished, then run the command again.");
    }
    Error::refused(format!(
        "run {} ({}) on \"{database}\" did not finish, and the database is closed",
        run.run,
        run.what()
    ))
    .with_hint("Run `safe-run recover`: it says what happened, finishes the undo and opens the database.")
}
