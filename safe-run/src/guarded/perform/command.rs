//! An external command: run, found on the server, and judged by how it ended and by what the server counted.

use std::{ffi::OsString, time::Instant};

use common::{Error, ErrorKind, Result, interrupt, postgres::ConnectionSettings};

use super::Place;
use crate::{
    command::{self, Finished},
    lower_fence::own_pids,
    own_writes::OwnWrites,
    report::CommandReport,
    run::{Context, RunLog, Stage},
    version_tables::{self, VersionTable},
};

/// Runs the command; the log has what it did. `is_fenced`: our fence makes sessions read-only.
pub(super) async fn run(
    place: &Place<'_>,
    words: &[OsString],
    stdout_is_ours: bool,
    is_fenced: bool,
    log: &mut RunLog,
) -> Result<(), (Stage, Error)> {
    let migration = |error| (Stage::Migration, error);
    let context = place.context;
    let versions = version_tables::read(&context.control).await;
    let began = Instant::now();
    if let Some(mut ours) = OwnWrites::of(&mut log.journal) {
        ours.unknown_from(&context.control).await.map_err(migration)?;
    }
    // Not every driver takes `options`: where nothing is read-only the command gets none of ours.
    let given = if is_fenced || log.read_only_anyway { &place.through } else { &place.settings };
    let by_fence = is_fenced && !log.read_only_anyway;
    let finished = command::run(words, given, place.control, &own_pids(context), stdout_is_ours)
        .await
        .map_err(|error| {
            if error.kind() == ErrorKind::Usage {
                log.report.command = Some(report_of(words, None));
            }
            migration(error)
        })?;
    log.report.command = Some(report_of(words, Some(&finished)));
    log.timed("command", began);
    note_transactions(context, log, &finished).await.map_err(migration)?;
    if !finished.replaced {
        note_versions(context, log, versions).await;
    }
    interrupt::check().map_err(migration)?;
    judge_command(&finished, &context.connection)
        .map_err(|error| explain_read_only(by_fence, log, &finished, error))
        .map_err(migration)?;
    let swallowed = swallowed(by_fence, &finished);
    log.may_be_refused = swallowed.is_some();
    log.report.notes.extend(swallowed.or_else(|| wrote_nothing(&finished)));
    if finished.replaced {
        let error = Error::failed(format!(
            "the command dropped, remade or renamed the database \"{}\"",
            context.connection.database()
        ));
        return Err((Stage::Validation, error));
    }
    Ok(())
}

/// What the report says of the command; without `finished` it was never started.
fn report_of(words: &[OsString], finished: Option<&Finished>) -> CommandReport {
    CommandReport {
        command: command::describe(words),
        exit_code: finished.and_then(|finished| finished.status.code()),
        seconds: finished.map_or(0.0, |finished| finished.took.as_secs_f64()),
        sessions: finished.map_or(0, |finished| finished.sessions),
        replaced: finished.is_some_and(|finished| finished.replaced),
        version_tables: Vec::new(),
    }
}

/// Which transactions were the command's, for the journal.
async fn note_transactions(context: &Context, log: &mut RunLog, finished: &Finished) -> Result<()> {
    let Some(mut ours) = OwnWrites::of(&mut log.journal) else { return Ok(()) };
    for xid in &finished.xids {
        ours.seen(*xid)?;
    }
    if !finished.lasts {
        ours.unknown_to(&context.control).await?;
    }
    Ok(())
}

/// Which migrations the command added, by its own history table. For the report alone: a failure is a note.
async fn note_versions(context: &Context, log: &mut RunLog, before: Result<Vec<version_tables::History>>) {
    let both = async { Ok((before?, version_tables::read(&context.control).await?)) };
    match both.await {
        Ok((before, after)) => {
            if let Some(command) = &mut log.report.command {
                command.version_tables = version_tables::compare(&before, &after);
            }
        }
        Err::<_, Error>(error) => {
            log.report.notes.push(format!("the migration tool's own history is not shown: {error}"));
        }
    }
}

fn judge_command(finished: &Finished, connection: &ConnectionSettings) -> Result<()> {
    use std::os::unix::process::ExitStatusExt;
    let failure = match (finished.status.code(), finished.status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("the command failed with exit code {code}")),
        (None, Some(signal)) => Some(format!("the command was ended by signal {signal}")),
        (None, None) => Some("the command failed".to_owned()),
    };
    if finished.sessions == 0 && !finished.replaced {
        let how = failure.map_or("the command".to_owned(), |failure| format!("{failure}, and"));
        return Err(Error::failed(format!(
            "{how} never connected to the database \"{}\" on {}",
            connection.database(),
            connection.host_label()
        ))
        .with_hint(
            "If it works on another database, what it did there is neither checked nor undone. Let it read DATABASE_URL or PGHOST, \
             PGPORT, PGDATABASE and PGUSER, which safe-run sets for it.",
        ));
    }
    failure.map_or(Ok(()), |failure| Err(Error::failed(failure)))
}

/// A command that failed before it had recorded anything may have been kept out by our own fence: `by_fence` if nothing but that makes
/// sessions read-only.
fn explain_read_only(by_fence: bool, log: &RunLog, finished: &Finished, error: Error) -> Error {
    // Whoever wrote had come through the fence, and a refusal rolls its transaction back.
    let read_only = by_fence && finished.rows_written == 0 && finished.rolled_back > 0;
    let tables = log.report.command.iter().flat_map(|command| &command.version_tables);
    if !read_only || error.hint().is_some() || !tables.clone().all(VersionTable::is_unchanged) {
        return error;
    }
    error.with_hint(
        "Only if the server refused it as read-only, which it had not asked for: its driver or its settings leave out the `options` of \
         DATABASE_URL and PGOPTIONS; run it with --fence exclusive.",
    )
}

/// That a command which succeeded wrote no row: a refusal that a block with an exception handler swallows rolls no transaction back.
fn wrote_nothing(finished: &Finished) -> Option<String> {
    (finished.rows_written == 0 && !finished.replaced && !finished.lasts).then(|| {
        "the server counted no row written, of tables or of the catalog, while the command ran".to_owned()
    })
}

/// What to think of a command that succeeded and changed nothing, although transactions were rolled back while it ran: it may
/// have swallowed a refusal of our own fence.
fn swallowed(by_fence: bool, finished: &Finished) -> Option<String> {
    (by_fence && wrote_nothing(finished).is_some() && finished.rolled_back > 0).then(|| {
        format!(
            "{} rolled back while the command ran, and the server counted no row written: if it was told that its transaction is read-only, had not \
             asked for that and went on, it was the fence, and what it meant to do is not done. Run it with --fence exclusive then",
            common::format::plural(finished.rolled_back, "transaction was", "transactions were")
        )
    })
}
