//! Fences that outlive their run (`--hold-fence`): finds them, says so, and lifts them.

use std::path::Path;

use common::{
    Error, ErrorKind, Result,
    postgres::{
        ConnectionSettings, Session,
        database::{self, FENCED},
    },
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
                .await
                .map_err(|error| match error.sqlstate() {
                    // Its run is over: recover finds nothing to do.
                    Some("55P03") => error.with_hint(
                        "Somebody else's transaction has changed the database's settings and is still open: end it \
                         (pg_stat_activity, backend_xid), then run `safe-run release` again.",
                    ),
                    _ => error,
                })?;
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

/// The runs on the database that have not finished and are not at work any more; none where there is no repository.
pub fn left_behind(repository: &Path, database: &str) -> Result<Vec<PastRun>> {
    let repository = match Repository::open(repository) {
        Ok(repository) => repository,
        Err(error) if error.kind() == ErrorKind::NoSuchSnapshot => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let unfinished = journal::unfinished(&repository, database)?;
    // Only who is alive holds the run's lock.
    let is_at_work = !unfinished.is_empty() && repository.lock_named(&crate::run_lock(database)).is_err();
    Ok(if is_at_work { Vec::new() } else { unfinished })
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
    .with_hint(
        "Run `safe-run recover`: it says what happened, finishes the undo and opens the database. `safe-run recover --keep` \
         opens it as it is.",
    )
}

/// What stands on the database like a fence of ours, and the SQL that takes it away, for when no repository here knows of a run
/// that set it; nothing where there is none, or it can't be looked for.
pub async fn fence_of_nobody(settings: &ConnectionSettings) -> Option<String> {
    let control = fence::control(settings).await.ok()?;
    let live = settings.database();
    // Earlier versions wrote it as everybody does.
    let read_only = ["on", FENCED].map(|value| format!("default_transaction_read_only={value}"));
    let row = control
        .query_opt(
            "SELECT d.datallowconn, pg_catalog.shobj_description(d.oid, 'pg_database'),
                    EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
                            WHERE s.setdatabase = d.oid AND s.setrole = 0 AND c = ANY ($2))
             FROM pg_catalog.pg_database d WHERE d.datname = $1",
            &[&live, &read_only.as_slice()],
        )
        .await
        .ok()??;
    let (open, comment, read_only): (bool, Option<String>, bool) = (row.get(0), row.get(1), row.get(2));
    let name = common::Ident::new(live);
    if read_only {
        return Some(format!(
            "the database \"{live}\" is set to read-only for new sessions. No run that is known here has done that; if a run of \
             another repository did, name that with --repo, or lift it by hand: ALTER DATABASE {name} RESET \
             default_transaction_read_only;"
        ));
    }
    let stands_in =
        !open && comment.as_deref().is_some_and(|comment| comment.starts_with(exclusive::STANDS_IN));
    stands_in.then(|| {
        format!(
            "\"{live}\" is the empty database that stands in for the real one ({}), which is called \"{live}_hidden_…\" (psql -l \
             lists it). If the repository of that run is gone: DROP DATABASE {name}; then ALTER DATABASE \"…\" RENAME TO {name};",
            common::ident::printable(comment.as_deref().unwrap_or_default())
        )
    })
}

/// Adds to `error`, which says that the repository can't be read, what can be done about the database without it.
pub async fn without_repository(settings: &ConnectionSettings, error: Error) -> Error {
    match fence_of_nobody(settings).await {
        Some(fence) => {
            let hint = format!("Name the repository of the run with --repo. Without it: {fence}");
            error.with_hint(hint).with_database_state("Nothing was changed now.")
        }
        None => error,
    }
}
