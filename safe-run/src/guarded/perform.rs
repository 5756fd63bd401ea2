//! Runs the job behind its fence, and looks at what it left behind.

use std::{sync::Arc, time::Instant};

use common::{
    Error, ErrorKind, Result, fault, interrupt,
    postgres::{Session, SessionProfile, exported_snapshot::ExportedSnapshot},
};

use super::{Job, Prepared};
use crate::{
    apply,
    attempts::Waiting,
    command,
    fence::Fence,
    lower_fence::own_pids,
    own_writes::OwnWrites,
    report::CommandReport,
    run::{
        Baseline, Context, RunLog, Stage, announced, announced_by_command, check_options, check_parallel,
        judge,
    },
    statement_facts::Watch,
    verify,
    version_tables::{self, VersionTable},
};
use checks;

/// Runs the job and checks what it left behind.
pub(super) async fn perform(
    context: &Context,
    control: &Session,
    standing: Option<&Fence>,
    job: Job<'_>,
    prepared: &Prepared,
    log: &mut RunLog,
) -> Result<(), (Stage, Error)> {
    let migration = |error| (Stage::Migration, error);
    let validation = |error| (Stage::Validation, error);
    fault::point("safe-run.applying");
    let settings = context.connection.with_application_name(&format!("safe-run/{}", context.run));
    // The one setting that lets a session through the fence.
    let through = settings.with_option("default_transaction_read_only", "off");
    match job {
        Job::Files(files, plan) => {
            let notices = context.progress.clone();
            // What is in between may refuse it; then it comes right after.
            let session = if settings.takes_options() { &through } else { &settings };
            let session = session
                .connect_as(
                    SessionProfile::Migration,
                    Some(Arc::new(move |notice| notices.note(format!("{notice}")))),
                )
                .await
                .map_err(migration)?;
            if !settings.takes_options() {
                let set = session.batch_execute("SET default_transaction_read_only = off").await;
                set.map_err(|source| migration(Error::postgres("could not pass the fence", source)))?;
            }
            let mut trace = apply::Trace { ours: OwnWrites::of(&mut log.journal), ..apply::Trace::default() };
            let mut watch = Watch::new(&prepared.baseline.results.tables, false);
            watch.prepare(&session).await.map_err(migration)?;
            let wait = context.options.lock_wait;
            let waiting =
                Waiting { migrator: &session, observer: control, wait, progress: &context.progress };
            let applying = context.applying(&session, &log.report.run);
            let began = applying.began;
            let applied = apply::as_planned(&waiting, applying, files, plan, &mut trace, &mut watch).await;
            let apply::Trace { reports, committed, notes, ours: _ } = trace;
            if applied.is_err() {
                log.outside = apply::effects_outside(files, &reports);
            }
            log.applied(reports, began);
            log.report.notes.extend(notes);
            let stage = if committed { Stage::Migration } else { Stage::Uncommitted };
            applied.map_err(|error| (stage, error))?;
            session.close().await.map_err(migration)?;
        }
        Job::Command(words, stdout_is_ours) => {
            let versions = version_tables::read(&context.control).await;
            let began = Instant::now();
            if let Some(mut ours) = OwnWrites::of(&mut log.journal) {
                ours.unknown_from(&context.control).await.map_err(migration)?;
            }
            // Not every driver takes `options`: where nothing is read-only the command gets none of ours.
            let is_fenced = matches!(standing, Some(Fence::ReadOnly { .. }));
            let anyway = log.read_only_anyway;
            let given = if is_fenced || anyway { &through } else { &settings };
            let finished = command::run(words, given, control, &own_pids(context), stdout_is_ours)
                .await
                .map_err(|error| (Stage::Migration, error));
            let finished = match finished {
                Ok(finished) => finished,
                Err((stage, error)) => {
                    if error.kind() == ErrorKind::Usage {
                        // It was never started.
                        log.report.command = Some(CommandReport {
                            command: command::describe(words),
                            exit_code: None,
                            seconds: 0.0,
                            sessions: 0,
                            replaced: false,
                            version_tables: Vec::new(),
                        });
                    }
                    return Err((stage, error));
                }
            };
            log.report.command = Some(CommandReport {
                command: command::describe(words),
                exit_code: finished.status.code(),
                seconds: finished.took.as_secs_f64(),
                sessions: finished.sessions,
                replaced: finished.replaced,
                version_tables: Vec::new(),
            });
            log.timed("command", began);
            if let Some(mut ours) = OwnWrites::of(&mut log.journal) {
                for xid in &finished.xids {
                    ours.seen(*xid).map_err(migration)?;
                }
                if !finished.lasts {
                    ours.unknown_to(&context.control).await.map_err(migration)?;
                }
            }
            if !finished.replaced {
                note_versions(context, log, versions).await;
            }
            interrupt::check().map_err(migration)?;
            judge_command(&finished, &context.connection)
                .map_err(|error| explain_read_only(is_fenced && !anyway, log, &finished, error))
                .map_err(migration)?;
            let swallowed = swallowed(is_fenced && !anyway, &finished);
            log.may_be_refused = swallowed.is_some();
            log.report.notes.extend(swallowed.or_else(|| wrote_nothing(&finished)));
            if finished.replaced {
                return Err(validation(Error::failed(format!(
                    "the command dropped, remade or renamed the database \"{}\"",
                    context.connection.database()
                ))));
            }
        }
    }
    fault::point("safe-run.applied");
    let began = Instant::now();
    // A check that a signal cancelled has found nothing: the signal is the reason.
    let (after, verified) = check_after(context, &settings, &prepared.baseline)
        .await
        .map_err(interrupt::explain)
        .map_err(validation)?;
    log.timed("checks after", began);
    let announced = match job {
        Job::Files(files, _) => announced(&context.options, files, &prepared.baseline),
        Job::Command(..) => announced_by_command(&context.options),
    };
    judge(log, &context.options, &prepared.baseline, &after, &announced, verified).map_err(validation)?;
    interrupt::check().map_err(migration)
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

fn judge_command(
    finished: &command::Finished,
    connection: &common::postgres::ConnectionSettings,
) -> Result<()> {
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

/// Whether new sessions are read-only by a setting that is not our fence's: asked of a session from before the fence.
pub(super) async fn is_read_only_anyway(control: &Session) -> Result<bool> {
    let sql =
        "SELECT reset_val = 'on' FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'";
    let row = control.query_one(sql, &[]).await;
    Ok(row.map_err(|source| Error::postgres("could not read the session's settings", source))?.get(0))
}

/// A command that failed before it had recorded anything may have been kept out by our own fence: `by_fence` if nothing but that makes
/// sessions read-only.
fn explain_read_only(by_fence: bool, log: &RunLog, finished: &command::Finished, error: Error) -> Error {
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
fn wrote_nothing(finished: &command::Finished) -> Option<String> {
    (finished.rows_written == 0 && !finished.replaced && !finished.lasts).then(|| {
        "the server counted no row written, of tables or of the catalog, while the command ran".to_owned()
    })
}

/// What to think of a command that succeeded and changed nothing, although transactions were rolled back while it ran: it may
/// have swallowed a refusal of our own fence.
fn swallowed(by_fence: bool, finished: &command::Finished) -> Option<String> {
    (by_fence && wrote_nothing(finished).is_some() && finished.rolled_back > 0).then(|| {
        format!(
            "{} rolled back while the command ran, and the server counted no row written: if it was told that its transaction is read-only, had not \
             asked for that and went on, it was the fence, and what it meant to do is not done. Run it with --fence exclusive then",
            common::format::plural(finished.rolled_back, "transaction was", "transactions were")
        )
    })
}

/// The checks afterwards, on one exported snapshot of what was committed.
async fn check_after(
    context: &Context,
    settings: &common::postgres::ConnectionSettings,
    before: &Baseline,
) -> Result<(checks::CheckResults, Vec<checks::Finding>)> {
    context.progress.phase("checking", None);
    let holder = settings.connect().await?;
    holder
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|source| Error::postgres("could not begin the checks", source))?;
    let exported = ExportedSnapshot::export(&holder).await?;
    let mut options = check_options(&context.options);
    options.known = Some(before.results.known());
    options.progress = Some(context.progress.clone());
    let results = check_parallel(context, &exported, &options).await;
    drop(exported);
    context.progress.done();
    let results = results?;
    holder.close().await?;
    if context.options.verify.is_empty() {
        return Ok((results, Vec::new()));
    }
    let session = settings.connect_as(SessionProfile::Migration, None).await?;
    let verified = verify::run_all(&session, &context.options.verify, &context.progress).await?;
    session.close().await?;
    Ok((results, verified))
}
