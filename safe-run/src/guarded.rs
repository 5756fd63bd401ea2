//! Commands, and statements that can't run in a transaction: fence, snapshot and baseline, run, check; and when something
//! fails, the snapshot is restored beside the database and takes its name.

use std::{ffi::OsString, sync::Arc, time::Instant};

use common::{
    Error, ErrorKind, Result,
    cli::format::plural,
    fault, interrupt,
    postgres::{
        Session, SessionProfile,
        exported_snapshot::{ExportedSnapshot, LockMode, lock_all_tables},
        introspect,
    },
    repository::StoredSnapshot,
};
use restore::{Choices, RestoreOptions, RestorePlan, RestoreReport, Target};

use crate::{
    apply, check, command,
    fence::{self, Fence},
    journal::{Mode, Step},
    migration::MigrationFile,
    report::{CommandReport, Report, UndoReport, Verdict},
    run::{
        Baseline, Context, FenceChoice, OnFailure, RunLog, SnapshotChoice, baseline, check_options,
        check_parallel, describe_files, expectations, judge, loss_limits, with_time,
    },
    statement_facts::Watch,
    version_tables,
};

/// What is run under protection.
#[derive(Debug, Clone, Copy)]
pub enum Job<'a> {
    /// Migration files of which at least one can't run in a transaction.
    Files(&'a [&'a MigrationFile]),
    /// An external command. The flag: its stdout goes to stderr.
    Command(&'a [OsString], bool),
}

impl Job<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Files(files) => describe_files(files),
            Self::Command(words, _) => command::describe(words),
        }
    }

    fn files(&self) -> &[&MigrationFile] {
        match self {
            Self::Files(files) => files,
            Self::Command(..) => &[],
        }
    }
}

/// Everything that is ready before the first change.
struct Prepared {
    snapshot: Option<(StoredSnapshot, RestorePlan)>,
    baseline: Baseline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Migration,
    Validation,
}

/// Runs the job; the report says what happened.
///
/// # Errors
/// Only what prevents a report. Everything else is in the report.
pub async fn run(context: &Context, job: Job<'_>) -> Result<Report> {
    let mut log = RunLog::begin(context, Mode::Restore, job.describe(), job.files().len())?;
    fault::point("safe-run.begun");
    let control = match fence::control(&context.connection).await {
        Ok(control) => control,
        Err(error) => return failed_before(log, &error),
    };
    let mut standing = None;
    let prepared = match prepare(context, &control, &mut log, &mut standing).await {
        Ok(prepared) => prepared,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    match perform(context, &control, job, &prepared, &mut log).await {
        Ok(()) => keep(context, log, &control, standing).await,
        Err((_, error)) if never_seen(&log) => abandon(context, log, &control, standing, error).await,
        Err((stage, error)) => undo(context, log, &control, standing, prepared, stage, error).await,
    }
}

/// A command that never came to the server has changed nothing there.
fn never_seen(log: &RunLog) -> bool {
    log.report.command.as_ref().is_some_and(|command| command.sessions == 0 && !command.replaced)
}

/// Fence, snapshot, baseline, and the plan of the undo: an undo that could not work is found out now.
async fn prepare(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    standing: &mut Option<Fence>,
) -> Result<Prepared> {
    let options = &context.options;
    let database = context.connection.database();
    let unfenced_state = introspect::database_state(&context.control).await?;
    if options.fence == FenceChoice::None {
        log.report.protection.push("no fence: others may write while it runs".to_owned());
    } else {
        let previous = fence::current(&context.control).await?;
        log.journal.write(Step::Fencing { previous: previous.clone() })?;
        fault::point("safe-run.fencing");
        let began = Instant::now();
        *standing = Some(fence::set(control, database, previous, &own_pids(context)).await?);
        log.timed("fence: database read-only, other sessions ended", began);
        log.fence_is_up();
        log.report.protection.push(
            "fence read-only: sessions were ended, new ones are read-only unless they say otherwise"
                .to_owned(),
        );
    }
    fault::point("safe-run.fenced");

    let holder = context.connection.connect().await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    lock_all_tables(
        &holder,
        &context.control,
        begin,
        LockMode::AccessShare,
        options.lock_wait,
        &context.progress,
    )
    .await?;
    let exported = ExportedSnapshot::export(&holder).await?;
    let snapshot = async {
        if options.snapshot == SnapshotChoice::None {
            Ok(None)
        } else {
            context.snapshot(&exported, Some(unfenced_state)).await.map(Some)
        }
    };
    let both = tokio::try_join!(with_time(baseline(context, &exported)), with_time(snapshot));
    let ((baseline, checks_began, checks_took), (snapshot, began, took)) = both?;
    drop(exported);
    holder.close().await?;
    if snapshot.is_some() {
        log.took("snapshot", began, took);
    }
    log.took("checks before", checks_began, checks_took);
    let snapshot = match snapshot {
        None => {
            log.report.protection.push("no snapshot: there is no undo".to_owned());
            None
        }
        Some(snapshot) => {
            log.took_snapshot(&snapshot)?;
            let plan = restore::prepare(
                &context.connection,
                control,
                &snapshot,
                &Target::Replace,
                restore_options(context),
            )
            .await
            .map_err(|error| error.context("an undo would not be possible"))?;
            Some((snapshot, plan))
        }
    };
    fault::point("safe-run.snapshot");
    interrupt::check()?;
    log.journal.write(Step::Applying)?;
    Ok(Prepared { snapshot, baseline })
}

fn restore_options(context: &Context) -> RestoreOptions {
    RestoreOptions { jobs: context.options.jobs, choices: Choices::undo() }
}

fn own_pids(context: &Context) -> Vec<i32> {
    vec![context.control.backend_pid()]
}

/// Runs the job and checks what it left behind.
async fn perform(
    context: &Context,
    control: &Session,
    job: Job<'_>,
    prepared: &Prepared,
    log: &mut RunLog,
) -> Result<(), (Stage, Error)> {
    let migration = |error| (Stage::Migration, error);
    let validation = |error| (Stage::Validation, error);
    fault::point("safe-run.applying");
    // The one setting that lets it through the fence.
    let settings = context
        .connection
        .with_option("default_transaction_read_only", "off")
        .with_application_name(&format!("safe-run/{}", context.run));
    match job {
        Job::Files(files) => {
            let began = Instant::now();
            let notices = context.progress.clone();
            let session = settings
                .connect_as(
                    SessionProfile::Migration,
                    Some(Arc::new(move |notice| notices.note(format!("{notice}")))),
                )
                .await
                .map_err(migration)?;
            let mut reports = Vec::new();
            let timeout = context.options.lock_wait.timeout;
            let mut watch = Watch::new(&prepared.baseline.results.tables, false);
            watch.prepare(&session).await.map_err(migration)?;
            let (run, progress) = (&log.report.run, &context.progress);
            let applied =
                apply::one_by_one(&session, files, run, timeout, &mut reports, progress, &mut watch).await;
            log.applied(reports, began);
            applied.map_err(migration)?;
            session.close().await.map_err(migration)?;
        }
        Job::Command(words, stdout_is_ours) => {
            let versions = version_tables::read(&context.control).await;
            let began = Instant::now();
            let finished = command::run(words, &settings, control, &own_pids(context), stdout_is_ours)
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
            note_versions(context, log, versions).await;
            interrupt::check().map_err(migration)?;
            judge_command(&finished, &context.connection).map_err(migration)?;
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
    let after = check_after(context, &settings).await.map_err(interrupt::explain).map_err(validation)?;
    log.timed("checks after", began);
    let files = job.files();
    let expected = expectations(files, &prepared.baseline);
    let is_command = matches!(job, Job::Command(..));
    let expected = move |oid| {
        if is_command {
            check::Expectation::Unknown { why: "an external command".to_owned() }
        } else {
            expected(oid)
        }
    };
    judge(
        log,
        &context.options,
        &prepared.baseline,
        &after,
        &expected,
        &loss_limits(&context.options, files),
    )
    .map_err(validation)?;
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
        // The database that the session was on is gone, which the verdict says.
        Err(_) if log.report.command.as_ref().is_some_and(|command| command.replaced) => {}
        Err::<_, Error>(error) => log.report.notes.push(error.message().to_owned()),
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
            "It works on another database: let it read DATABASE_URL or PGHOST, PGPORT, PGDATABASE and PGUSER, which \
             safe-run sets for it.",
        ));
    }
    failure.map_or(Ok(()), |failure| Err(Error::failed(failure)))
}

/// The checks afterwards, on one exported snapshot of what was committed.
async fn check_after(
    context: &Context,
    settings: &common::postgres::ConnectionSettings,
) -> Result<check::CheckResults> {
    context.progress.phase("checking", None);
    let holder = settings.connect().await?;
    holder
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|source| Error::postgres("could not begin the checks", source))?;
    let exported = ExportedSnapshot::export(&holder).await?;
    let results = check_parallel(context, &exported, &check_options(&context.options)).await;
    drop(exported);
    context.progress.done();
    let results = results?;
    holder.close().await?;
    Ok(results)
}

async fn lift(context: &Context, log: &mut RunLog, control: &Session, standing: Option<Fence>) -> Result<()> {
    if let Some(fence) = standing {
        fence.lift(control, &own_pids(context)).await?;
        log.fence_is_down();
        log.note_step(Step::FenceLifted);
    }
    Ok(())
}

async fn keep(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
) -> Result<Report> {
    let guard = interrupt::begin_undo();
    log.note_step(Step::Stands);
    let lifted = lift(context, &mut log, control, standing).await;
    drop(guard);
    let report = &mut log.report;
    let checks = report.checks_phrase();
    report.headline = match &report.command {
        Some(command) => {
            format!("`{}` succeeded on \"{}\", {checks}", command.command, report.database)
        }
        None => format!(
            "{} applied to \"{}\", {checks}",
            plural(report.migrations.len() as u64, "migration", "migrations"),
            report.database
        ),
    };
    report.state = match &report.snapshot {
        Some(id) => format!("the state before is kept as snapshot {id}"),
        None => "no snapshot was taken".to_owned(),
    };
    if let Err(error) = lifted {
        log.fail(&error);
        log.report.headline = format!("the changes stand, but the fence could not be lifted: {error}");
        log.report.state =
            format!("database \"{}\" is still read-only for new sessions", log.report.database);
        log.report.next.push("safe-run recover".to_owned());
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    Ok(log.finish(Verdict::Committed, 0))
}

fn failed_before(mut log: RunLog, error: &Error) -> Result<Report> {
    log.fail(error);
    log.report.state = format!("database \"{}\" unchanged", log.report.database);
    Ok(log.finish(Verdict::Failed, error.kind().exit_code()))
}

/// Nothing was changed: only the fence has to go.
async fn abandon(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    error: Error,
) -> Result<Report> {
    let _guard = interrupt::begin_undo();
    let error = interrupt::explain(error);
    match lift(context, &mut log, control, standing).await {
        Ok(()) => failed_before(log, &error),
        Err(second) => {
            log.fail(&error);
            log.report.undo = Some(UndoReport {
                how: "lift the fence",
                seconds: 0.0,
                failed_database_kept_as: None,
                error: Some((&second).into()),
            });
            log.report.state = format!(
                "database \"{}\" unchanged, but it is still read-only for new sessions",
                log.report.database
            );
            log.report.next.push("safe-run recover".to_owned());
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

/// Restores the snapshot beside the failed database and swaps their names.
async fn undo(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    prepared: Prepared,
    stage: Stage,
    error: Error,
) -> Result<Report> {
    // From here on signals wait: half an undo is the worst of all states.
    let _guard = interrupt::begin_undo();
    let error = if stage == Stage::Validation { error } else { interrupt::explain(error) };
    log.fail(&error);
    let fenced = standing.is_some();
    // Without a fence others may have written since the snapshot: a person has to decide what is lost.
    let wanted = context.options.on_failure.unwrap_or(if fenced { OnFailure::Undo } else { OnFailure::Stop });
    let (snapshot, plan) = match prepared.snapshot {
        Some(prepared) if wanted == OnFailure::Undo => prepared,
        other => return stop(context, log, control, standing, other.is_some(), fenced).await,
    };
    let began = Instant::now();
    context.progress.note(format!("undoing: {}", error.message()));
    let restored = restore_snapshot(context, &mut log, control, snapshot, plan).await;
    let seconds = began.elapsed().as_secs_f64();
    match restored {
        Ok(restored) => {
            log.timed("undo: snapshot restored and swapped in", began);
            log.note_step(Step::Undone);
            let database = log.report.database.clone();
            let as_before = if restored.missing_grants.is_empty() {
                "is as it was before".to_owned()
            } else {
                format!(
                    "has its rows of before, but lacks {}",
                    plural(restored.missing_grants.len() as u64, "grant", "grants")
                )
            };
            log.report.state = format!(
                "database \"{database}\" {as_before} · restored from snapshot {} and compared row by row",
                log.report.snapshot.clone().unwrap_or_default()
            );
            log.report.notes.extend(
                restored.missing_grants.iter().map(|grant| {
                    format!("NOT as before: the role may not grant {grant}; a superuser has to")
                }),
            );
            let kept_as = restored.replaced_as;
            if let (Some(fence), Some(kept_as)) = (standing, &kept_as)
                && let Err(error) = fence.lift_from_renamed(control, kept_as).await
            {
                log.report.notes.push(format!("database \"{kept_as}\" is still read-only: {error}"));
            }
            if let Some(kept_as) = &kept_as {
                let name = common::Ident::new(&**kept_as);
                log.report.notes.push(format!("the failed state is kept as database \"{kept_as}\""));
                log.report.next.push(format!("when it is no longer needed: DROP DATABASE {name}"));
            }
            log.report.undo =
                Some(UndoReport { how: "restore", seconds, failed_database_kept_as: kept_as, error: None });
            let code = match (stage, error.kind()) {
                (_, kind @ (ErrorKind::Interrupted | ErrorKind::Terminated)) => kind.exit_code(),
                (Stage::Migration, _) => ErrorKind::MigrationRestored.exit_code(),
                (Stage::Validation, _) => ErrorKind::ValidationRestored.exit_code(),
            };
            Ok(log.finish(Verdict::Restored, code))
        }
        Err(second) => {
            log.report.undo = Some(UndoReport {
                how: "restore",
                seconds,
                failed_database_kept_as: None,
                error: Some((&second).into()),
            });
            log.report.state = format!(
                "database \"{}\" holds what the failed run left behind{}; snapshot {} is kept",
                log.report.database,
                if fenced { ", and is still read-only for new sessions" } else { "" },
                log.report.snapshot.clone().unwrap_or_default()
            );
            log.report.next.push("safe-run recover".to_owned());
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

/// Restores and swaps.
pub async fn restore_snapshot(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    snapshot: StoredSnapshot,
    plan: RestorePlan,
) -> Result<RestoreReport> {
    // On a full disk the undo goes on without its line: a recovery would begin the same undo again.
    log.note_step(Step::Undoing {
        snapshot: snapshot.manifest.id.to_string(),
        staged: plan.staged.clone(),
        kept_as: plan.kept_as.clone().unwrap_or_default(),
    });
    fault::point("safe-run.undoing");
    let options = restore_options(context);
    let verified = restore::verified(snapshot, options.jobs, &context.progress).await?;
    let report =
        restore::execute(&context.connection, control, &verified, plan, options, &context.progress).await?;
    fault::point("safe-run.undone");
    Ok(report)
}

/// Keeps the failed state for a person.
async fn stop(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    has_snapshot: bool,
    fenced: bool,
) -> Result<Report> {
    let lifted = lift(context, &mut log, control, standing).await;
    let database = log.report.database.clone();
    log.report.state = match (&log.report.snapshot, fenced) {
        (Some(id), _) => format!(
            "database \"{database}\" holds what the failed run left behind · snapshot {id} holds the state before"
        ),
        (None, _) => {
            format!("database \"{database}\" holds what the failed run left behind · there is no snapshot")
        }
    };
    if has_snapshot && let Some(id) = log.report.snapshot.clone() {
        if !fenced {
            log.report.notes.push(
                "no fence stood: rows that others wrote since the snapshot would be missing after a restore"
                    .to_owned(),
            );
        }
        log.report.next.push(format!("look at the state before, beside the live database: restore {id}"));
        log.report.next.push(format!("go back to it: restore {id} --replace"));
    }
    if let Err(error) = lifted {
        log.report.notes.push(format!("the fence could not be lifted: {error}"));
        log.report.next.push("safe-run recover".to_owned());
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    Ok(log.finish(Verdict::Stopped, ErrorKind::Stopped.exit_code()))
}
