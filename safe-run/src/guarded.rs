//! Commands, and statements that can't run in a transaction: fence, snapshot and baseline, run, check; and when something
//! fails, the snapshot is restored beside the database and takes its name.

use std::{collections::BTreeSet, ffi::OsString, sync::Arc, time::Instant};

use common::{
    Error, ErrorKind, Result,
    catalog::DatabaseState,
    cli::format::plural,
    fault, interrupt,
    postgres::{
        ConnectionSettings, Session, SessionProfile,
        exported_snapshot::{ExportedSnapshot, LockMode, lock_all_tables},
        introspect,
    },
    repository::StoredSnapshot,
};
use restore::{Choices, RestoreOptions, RestorePlan, RestoreReport, Target};

use crate::{
    apply,
    attempts::Waiting,
    check, clone, command,
    exclusive::{self, Hidden},
    fence::{self, Fence},
    journal::{Mode, Step},
    migration::{MigrationFile, TransactionPlan},
    others,
    precopy::{self, Precopy},
    report::{CommandReport, Report, UndoReport, Verdict},
    run::{
        Baseline, Context, FenceChoice, OnFailure, RunLog, analyze_what_lost_statistics, announced,
        announced_by_command, baseline, check_options, check_parallel, describe_files, judge, with_time,
    },
    sequences,
    statement_facts::Watch,
    verify,
    version_tables::{self, VersionTable},
    writes::{self, OwnWrites},
};

/// What is run under protection.
#[derive(Debug, Clone, Copy)]
pub enum Job<'a> {
    /// Migration files, and the transactions that they run in.
    Files(&'a [&'a MigrationFile], &'a TransactionPlan),
    /// An external command. The flag: its stdout goes to stderr.
    Command(&'a [OsString], bool),
}

impl Job<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Files(files, _) => describe_files(files),
            Self::Command(words, _) => command::describe(words),
        }
    }

    fn files(&self) -> &[&MigrationFile] {
        match self {
            Self::Files(files, _) => files,
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
pub(crate) enum Stage {
    /// Nothing was committed: the server has rolled everything back.
    Uncommitted,
    Migration,
    Validation,
}

impl Stage {
    /// The exit code of a run that failed here and was undone.
    pub(crate) fn exit_code_undone(self, error: &Error) -> u8 {
        match (self, error.kind()) {
            (_, kind @ (ErrorKind::Interrupted | ErrorKind::Terminated)) => kind.exit_code(),
            (Self::Migration | Self::Uncommitted, _) => ErrorKind::MigrationRestored.exit_code(),
            (Self::Validation, _) => ErrorKind::ValidationRestored.exit_code(),
        }
    }
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
    let mut first = match precopy_if_it_pays(context, &mut log).await {
        Ok(first) => first,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    first.iter_mut().for_each(Precopy::fence_begins);
    let raised = match raise_fence(context, &control, &mut log, &mut standing).await {
        Ok(raised) => raised,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    fault::point("safe-run.fenced");
    // Behind the exclusive fence everything happens under the other name.
    let context = raised.behind.as_ref().unwrap_or(context);
    // The copy needs every session gone, ours too: from there on there is another one.
    let cloned = match clone::make(context, &control, &mut log, &raised.state).await {
        Ok(cloned) => cloned,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    let context = cloned.as_ref().unwrap_or(context);
    let prepared = match prepare(context, &control, &mut log, raised.state, standing.as_ref()).await {
        Ok(prepared) => prepared,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    if let Some(first) = first {
        first.end(context, &mut log, prepared.snapshot.as_ref().map(|(snapshot, _)| snapshot));
    }
    match perform(context, &control, job, &prepared, &mut log).await {
        Ok(()) => keep(context, log, &control, standing).await,
        Err((_, error)) if never_seen(&log) => abandon(context, log, &control, standing, error).await,
        Err((Stage::Uncommitted, error)) => {
            rolled_back(context, log, &control, standing, &prepared.baseline, error).await
        }
        Err((stage, error)) => {
            let reached = match job {
                Job::Files(files, _) => {
                    others::reached(files, &prepared.baseline.facts, &prepared.baseline.functions)
                }
                Job::Command(..) => None,
            };
            undo(context, log, &control, standing, prepared, reached.as_ref(), (stage, error)).await
        }
    }
}

async fn precopy_if_it_pays(context: &Context, log: &mut RunLog) -> Result<Option<Precopy>> {
    if !precopy::pays(context, &context.control).await? {
        return Ok(None);
    }
    Ok(Some(precopy::take(context, log).await?))
}

/// A command that never came to the server has changed nothing there.
fn never_seen(log: &RunLog) -> bool {
    log.report.command.as_ref().is_some_and(|command| command.sessions == 0 && !command.replaced)
}

/// The database behind its fence.
struct Raised {
    /// What belongs to the database itself, as it was without the fence.
    state: DatabaseState,
    /// Where to work, if the database has another name now.
    behind: Option<Context>,
}

async fn raise_fence(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    standing: &mut Option<Fence>,
) -> Result<Raised> {
    let options = &context.options;
    let database = context.connection.database();
    clone::refuse_obstacles(context, control).await?;
    let state = introspect::database_state(&context.control).await?;
    if options.fence == FenceChoice::None {
        log.report.protection.push("no fence: others may write while it runs".to_owned());
        return Ok(Raised { state, behind: None });
    }
    if options.hold_fence {
        log.journal.write(Step::HoldFence)?;
    }
    if options.fence == FenceChoice::Exclusive {
        let behind = hide(context, control, log, standing).await?;
        return Ok(Raised { state, behind: Some(behind) });
    }
    let previous = fence::current(&context.control).await?;
    log.journal.write(Step::Fencing { previous: previous.clone() })?;
    fault::point("safe-run.fencing");
    let began = Instant::now();
    *standing = Some(fence::set(control, database, previous, &own_pids(context)).await?);
    log.timed("fence: database read-only, other sessions ended", began);
    log.fence_is_up();
    log.report.protection.push(
        "fence read-only: sessions were ended, new ones are read-only unless they say otherwise".to_owned(),
    );
    Ok(Raised { state, behind: None })
}

/// Gives the database another name and goes on under it.
async fn hide(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    standing: &mut Option<Fence>,
) -> Result<Context> {
    let database = context.connection.database();
    exclusive::refuse_obstacles(control, database, &own_pids(context)).await?;
    let names = Hidden::new(database)?;
    let (hidden, placeholder) = (names.hidden.clone(), names.placeholder.clone());
    log.journal.write(Step::Hiding { hidden: hidden.clone(), placeholder })?;
    fault::point("safe-run.hiding");
    let began = Instant::now();
    exclusive::set(&context.connection, control, &names, &log.report.run).await?;
    *standing = Some(Fence::Exclusive { settings: Box::new(context.connection.clone()), names });
    fault::point("safe-run.hidden");
    let connection = context.connection.with_database(&hidden);
    // Our session has ended with all others; the lock is the database's, whatever it is called.
    let control = crate::take_control(&connection).await?;
    log.timed("fence: database renamed, sessions ended", began);
    log.fence_is_up();
    log.report.protection.push(format!(
        "fence exclusive: the database is called \"{hidden}\" for the time of the run, and \"{database}\" accepts no connection"
    ));
    Ok(Context {
        connection,
        control,
        repository: context.repository.clone(),
        options: context.options.clone(),
        progress: context.progress.clone(),
        run: context.run.clone(),
        // Its tool's lock ended with our session; nobody else can connect here.
        history: context.history.clone(),
        invocation: context.invocation.clone(),
    })
}

/// Snapshot, baseline, and the plan of the undo: an undo that could not work is found out now.
async fn prepare(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    unfenced_state: DatabaseState,
    standing: Option<&Fence>,
) -> Result<Prepared> {
    let options = &context.options;
    // Before the snapshot: nothing may fall between.
    writes::make_slot(context, log).await?;
    let holder = context.connection.connect().await?;
    let points = backup::reuse::points(&context.control).await?;
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
    let exported = ExportedSnapshot::export(&holder).await?.with_points(points);
    writes::snapshot_taken(log, &holder, &exported).await?;
    let snapshot = async {
        if options.snapshot.has_file() {
            context.snapshot(&exported, Some(unfenced_state)).await.map(Some)
        } else {
            Ok(None)
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
            if log.clone.is_none() {
                log.report.protection.push("no snapshot: there is no undo".to_owned());
            }
            None
        }
        Some(snapshot) => {
            log.took_snapshot(&snapshot)?;
            let mut plan = restore::prepare(
                &context.connection,
                control,
                &snapshot,
                &Target::Replace,
                &restore_options(context, writes::open_slot(log.journal.steps())),
            )
            .await
            .map_err(|error| error.context("an undo would not be possible"))?;
            match standing {
                Some(Fence::Exclusive { names, .. }) => plan.kept_as = Some(names.kept_as()),
                Some(Fence::ReadOnly { .. }) => plan.read_only = options.hold_fence,
                None => {}
            }
            Some((snapshot, plan))
        }
    };
    fault::point("safe-run.snapshot");
    interrupt::check()?;
    log.journal.write(Step::Applying)?;
    Ok(Prepared { snapshot, baseline })
}

fn restore_options(context: &Context, own_slot: Option<&str>) -> RestoreOptions {
    let choices = Choices { own_slot: own_slot.map(str::to_owned), ..Choices::undo() };
    RestoreOptions { jobs: context.options.jobs, choices }
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
        Job::Files(files, plan) => {
            let notices = context.progress.clone();
            let session = settings
                .connect_as(
                    SessionProfile::Migration,
                    Some(Arc::new(move |notice| notices.note(format!("{notice}")))),
                )
                .await
                .map_err(migration)?;
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
                .map_err(|error| explain_read_only(context, log, error))
                .map_err(migration)?;
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
            "It works on another database: let it read DATABASE_URL or PGHOST, PGPORT, PGDATABASE and PGUSER, which \
             safe-run sets for it.",
        ));
    }
    failure.map_or(Ok(()), |failure| Err(Error::failed(failure)))
}

/// A command that failed before it had recorded anything may have been kept out by our own fence.
fn explain_read_only(context: &Context, log: &RunLog, error: Error) -> Error {
    let read_only = !matches!(context.options.fence, FenceChoice::None | FenceChoice::Exclusive);
    let tables = log.report.command.iter().flat_map(|command| &command.version_tables);
    if !read_only || error.hint().is_some() || !tables.clone().all(VersionTable::is_unchanged) {
        return error;
    }
    error.with_hint(
        "If it was told that its transaction is read-only, that was the fence: its driver or its own settings leave out the \
         `options` of DATABASE_URL and PGOPTIONS. Run it with --fence exclusive.",
    )
}

/// The checks afterwards, on one exported snapshot of what was committed.
async fn check_after(
    context: &Context,
    settings: &common::postgres::ConnectionSettings,
    before: &Baseline,
) -> Result<(check::CheckResults, Vec<check::Finding>)> {
    context.progress.phase("checking", None);
    let holder = settings.connect().await?;
    holder
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|source| Error::postgres("could not begin the checks", source))?;
    let exported = ExportedSnapshot::export(&holder).await?;
    let mut options = check_options(&context.options);
    options.known = Some(before.results.known());
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

async fn lift(context: &Context, log: &mut RunLog, control: &Session, standing: Option<Fence>) -> Result<()> {
    if let Some(fence) = standing {
        let state = fence.state();
        fence.lift(control, &own_pids(context)).await.map_err(|error| error.with_database_state(state))?;
        fault::point("safe-run.fence-lifted");
        log.fence_is_down();
        log.note_step(Step::FenceLifted);
    }
    Ok(())
}

/// The end of a run that did something: the fence goes, or stays as it was told to.
async fn lift_or_hold(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    standing: Option<Fence>,
) -> Result<()> {
    match standing {
        Some(fence) if context.options.hold_fence => {
            hold(log, &fence);
            Ok(())
        }
        standing => lift(context, log, control, standing).await,
    }
}

fn hold(log: &mut RunLog, fence: &Fence) {
    log.report.fence_held = true;
    log.report.notes.push(format!("the fence is held (--hold-fence): {}", fence.state()));
    log.report.next.push("open the database: safe-run release".to_owned());
}

async fn keep(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
) -> Result<Report> {
    let guard = interrupt::begin_undo();
    log.note_step(Step::Stands);
    let lifted = lift_or_hold(context, &mut log, control, standing).await;
    drop(guard);
    let mut kept = None;
    if lifted.is_ok() {
        fault::point("safe-run.stands");
        writes::end(&mut log, control).await;
        kept = clone::drop_or_keep(&mut log, control).await;
        analyze_what_lost_statistics(&context.control, &mut log, &context.progress).await;
    }
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
    report.state = match (&report.snapshot, &kept) {
        (Some(id), _) => format!("the state before is kept as snapshot {id}"),
        (None, Some(name)) => format!("the state before is kept as database \"{name}\""),
        (None, None) if context.options.snapshot.has_clone() => {
            "the clone of the state before was dropped".to_owned()
        }
        (None, None) => "no snapshot was taken".to_owned(),
    };
    if let Err(error) = lifted {
        log.fail(&error);
        log.report.headline = format!("the changes stand, but the fence could not be lifted: {error}");
        log.report.state = error.database_state().unwrap_or_default().to_owned();
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
        Ok(()) => {
            clone::drop_unneeded(&mut log, control).await;
            writes::end(&mut log, control).await;
            failed_before(log, &error)
        }
        Err(second) => {
            log.fail(&error);
            log.report.undo = Some(UndoReport {
                how: "lift the fence",
                seconds: 0.0,
                failed_database_kept_as: None,
                error: Some((&second).into()),
            });
            log.report.state = format!(
                "database \"{}\" unchanged, but {}",
                log.report.database,
                second.database_state().unwrap_or("its fence still stands")
            );
            log.report.next.push("safe-run recover".to_owned());
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

/// The first transaction failed and the server has rolled it back: only sequences may stand elsewhere.
async fn rolled_back(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    baseline: &Baseline,
    error: Error,
) -> Result<Report> {
    let _guard = interrupt::begin_undo();
    let began = Instant::now();
    let error = interrupt::explain(error);
    fault::point("safe-run.rolled-back");
    let put_back = async {
        let settings = context.connection.with_option("default_transaction_read_only", "off");
        let session = settings.connect().await?;
        let found = sequences::put_back(&session, &baseline.sequences).await?;
        session.close().await?;
        // What could not have its locks shall be tried again.
        if error.is_retryable() {
            lift(context, &mut log, control, standing).await?;
        } else {
            lift_or_hold(context, &mut log, control, standing).await?;
        }
        Ok::<_, Error>(found)
    };
    let found = put_back.await;
    log.fail(&error);
    let undo_error = found.as_ref().err().map(Into::into);
    log.report.undo = Some(UndoReport {
        how: "rollback",
        seconds: began.elapsed().as_secs_f64(),
        failed_database_kept_as: None,
        error: undo_error,
    });
    let Ok(found) = found else {
        log.report.state = format!(
            "database \"{}\": tables are as before, but sequences or the fence may not be",
            log.report.database
        );
        log.report.next.push("safe-run recover".to_owned());
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    };
    clone::drop_unneeded(&mut log, control).await;
    writes::end(&mut log, control).await;
    log.report.notes.extend(found.restored.into_iter().chain(found.ahead));
    let outside = std::mem::take(&mut log.outside);
    log.report.notes.extend(outside);
    let mut state = vec![format!("database \"{}\" unchanged", log.report.database)];
    state.extend(log.report.snapshot.as_ref().map(|id| format!("snapshot {id} kept")));
    log.report.state = state.join(" · ");
    let code = match error.kind() {
        kind @ (ErrorKind::Interrupted | ErrorKind::Terminated) => kind,
        _ if error.is_retryable() => ErrorKind::Busy,
        _ => ErrorKind::MigrationRolledBack,
    };
    Ok(log.finish(Verdict::RolledBack, code.exit_code()))
}

/// Restores the snapshot beside the failed database and swaps their names.
async fn undo(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    mut standing: Option<Fence>,
    prepared: Prepared,
    reached: Option<&BTreeSet<u32>>,
    (stage, error): (Stage, Error),
) -> Result<Report> {
    // From here on signals wait: half an undo is the worst of all states.
    let _guard = interrupt::begin_undo();
    let error = if stage == Stage::Validation { error } else { interrupt::explain(error) };
    log.fail(&error);
    let fenced = standing.is_some();
    // Without a fence others may have written since the snapshot: a person has to decide what is lost.
    let wanted = context.options.on_failure.unwrap_or(if fenced { OnFailure::Undo } else { OnFailure::Stop });
    if wanted == OnFailure::Undo && log.clone.is_some() {
        let is_last = prepared.snapshot.is_none();
        match clone::undo(context, log, control, &mut standing, (stage, &error), is_last).await? {
            clone::Undone::Yes(report) => return Ok(*report),
            clone::Undone::No(unchanged) => log = *unchanged,
        }
    }
    let (snapshot, plan) = match prepared.snapshot {
        Some(prepared) if wanted == OnFailure::Undo => prepared,
        other => {
            let snapshot = other.as_ref().map(|(snapshot, _)| snapshot);
            return stop(context, log, control, standing, snapshot, reached, fenced).await;
        }
    };
    let before = snapshot.clone();
    let began = Instant::now();
    context.progress.note(format!("undoing: {}", error.message()));
    let restored = restore_snapshot(context, &mut log, control, snapshot, plan).await;
    let seconds = began.elapsed().as_secs_f64();
    match restored {
        Ok(restored) => {
            log.timed("undo: snapshot restored and swapped in", began);
            log.note_step(Step::Undone);
            let database = log.report.database.clone();
            let lacks = restored.missing_grants.len() + restored.missing.len();
            let as_before = if lacks == 0 {
                "is as it was before".to_owned()
            } else {
                format!(
                    "has its rows of before, but lacks {}",
                    plural(lacks as u64, "grant or object", "grants or objects")
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
            log.report
                .notes
                .extend(restored.missing.iter().map(|object| format!("NOT as before: {}", object.line())));
            let kept_as = restored.replaced_as;
            if let Some(error) = settle_fence(context, &mut log, control, standing, kept_as.as_deref()).await
            {
                log.report.notes.push(format!("the fence could not be lifted: {error}"));
                log.report.next.push("safe-run recover".to_owned());
                log.report.undo = Some(UndoReport {
                    how: "restore",
                    seconds,
                    failed_database_kept_as: kept_as,
                    error: Some((&error).into()),
                });
                return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
            }
            if let (false, Some(kept_as)) = (fenced, &kept_as) {
                // Its sessions were ended by the swap: what is there now is all that was ever written.
                let (told, next) =
                    writes::settle(&context.connection, control, kept_as, &mut log.journal).await;
                let is_saved = !next.is_empty();
                log.report.notes.extend(told);
                log.report.next.extend(next);
                let lost = if is_saved {
                    format!("those rows are in \"{kept_as}\" and in the file")
                } else {
                    format!("those rows are in \"{kept_as}\" only")
                };
                let settings = context.connection.with_database(kept_as);
                tell_differences(context, &mut log, &settings, &before, reached, &lost).await;
            }
            if let Some(kept_as) = &kept_as {
                let name = common::Ident::new(&**kept_as);
                log.report.notes.push(format!("the failed state is kept as database \"{kept_as}\""));
                log.report.next.push(format!("when it is no longer needed: DROP DATABASE {name}"));
            }
            log.report.undo =
                Some(UndoReport { how: "restore", seconds, failed_database_kept_as: kept_as, error: None });
            // A clone that could not be used has no purpose any more.
            clone::drop_unneeded(&mut log, control).await;
            Ok(log.finish(Verdict::Restored, stage.exit_code_undone(&error)))
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
                standing.as_ref().map_or(String::new(), |fence| format!(", and {}", fence.state())),
                log.report.snapshot.clone().unwrap_or_default()
            );
            log.report.next.push("safe-run recover".to_owned());
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

/// After an undo: takes the fence away, or leaves it as it was told to. The error means that people can't work.
pub(crate) async fn settle_fence(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    standing: Option<Fence>,
    failed: Option<&str>,
) -> Option<Error> {
    let fence = standing?;
    if context.options.hold_fence {
        hold(log, &fence);
        return None;
    }
    let is_exclusive = matches!(fence, Fence::Exclusive { .. });
    match fence.lift_after_undo(control, failed).await {
        Ok(()) => {
            fault::point("safe-run.fence-lifted");
            log.note_step(Step::FenceLifted);
            None
        }
        Err(error) if is_exclusive => Some(error),
        Err(error) => {
            let failed = failed.unwrap_or_default();
            log.report.notes.push(format!("database \"{failed}\" is still read-only: {error}"));
            None
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
    let options = restore_options(context, None);
    let verified = restore::verified(snapshot, options.jobs, &context.progress).await?;
    let report =
        restore::execute(&context.connection, control, &verified, plan, &options, &context.progress).await?;
    fault::point("safe-run.undone");
    Ok(report)
}

/// Says which tables are not as in the snapshot; a comparison that fails is said as well.
async fn tell_differences(
    context: &Context,
    log: &mut RunLog,
    settings: &ConnectionSettings,
    snapshot: &StoredSnapshot,
    reached: Option<&BTreeSet<u32>>,
    lost: &str,
) {
    match others::compare(settings, snapshot, reached, &context.progress).await {
        Ok(differences) => log.report.notes.extend(differences.sentences(lost)),
        Err(error) => {
            log.report
                .notes
                .push(format!("what others wrote since the snapshot could not be found out: {error}"));
        }
    }
}

/// Keeps the failed state for a person.
async fn stop(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    snapshot: Option<&StoredSnapshot>,
    reached: Option<&BTreeSet<u32>>,
    fenced: bool,
) -> Result<Report> {
    let lifted = lift_or_hold(context, &mut log, control, standing).await;
    let database = log.report.database.clone();
    log.report.state = match (&log.report.snapshot, fenced) {
        (Some(id), _) => format!(
            "database \"{database}\" holds what the failed run left behind · snapshot {id} holds the state before"
        ),
        (None, _) => {
            format!("database \"{database}\" holds what the failed run left behind · there is no snapshot")
        }
    };
    if let (Some(snapshot), Some(id)) = (snapshot, log.report.snapshot.clone()) {
        if !fenced {
            log.report.notes.push(
                "no fence stood: rows that others wrote since the snapshot would be missing after a restore"
                    .to_owned(),
            );
            let lost = format!("a restore of {id} goes without it");
            tell_differences(context, &mut log, &context.connection, snapshot, reached, &lost).await;
        }
        let waits = writes::preview(&context.connection, control, &mut log).await;
        if !fenced {
            let then = if waits { ", then `safe-run recover --keep`" } else { "" };
            log.report.next.push(format!(
                "keep what others wrote: leave \"{database}\" as it is and repair it by hand or with a further migration{then}"
            ));
        }
        log.report.next.push(format!("look at the state before, beside the live database: restore {id}"));
        log.report.next.push(if waits {
            format!(
                "go back to it: safe-run recover --undo (\"{database}\" as it is then is kept under another name, and what \
                 others wrote up to that moment is saved for a replay)"
            )
        } else {
            format!(
                "go back to it: restore {id} --replace (\"{database}\" as it is now is kept under another name)"
            )
        });
    } else {
        writes::end(&mut log, control).await;
    }
    clone::leave(&mut log);
    if let Err(error) = lifted {
        log.report.notes.push(format!("the fence could not be lifted: {error}"));
        log.report.next.push("safe-run recover".to_owned());
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    Ok(log.finish(Verdict::Stopped, ErrorKind::Stopped.exit_code()))
}
