//! Commands, and statements that can't run in a transaction: fence, snapshot and baseline, run, check; and when something
//! fails, the snapshot is restored beside the database and takes its name.

mod end;
mod perform;
mod undo;

use std::{ffi::OsString, time::Instant};

use common::{
    Result,
    catalog::DatabaseState,
    fault, interrupt,
    postgres::{
        Session,
        exported_snapshot::{ExportedSnapshot, LockMode, lock_all_tables},
        introspect,
    },
    repository::StoredSnapshot,
};
use restore::{Choices, RestoreOptions, RestorePlan, Target};

use end::{abandon, failed_before, keep, rolled_back};
use perform::perform;
use undo::undo;

use crate::{
    clone, command,
    exclusive::{self, Hidden},
    fence::{self, Fence},
    journal::{self, Mode, Step},
    lower_fence::own_pids,
    others,
    precopy::{self, Precopy},
    proof,
    report::Report,
    run::{Baseline, Context, FenceChoice, OnFailure, RunLog, Stage, baseline, describe_files, look_beside},
    writes,
};
use checks::CheckResults;
use sql::migration::{MigrationFile, TransactionPlan};

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
    undo: Undo,
}

/// What brings the database back if the run fails.
#[derive(Debug)]
enum Undo {
    /// The snapshot, by itself; with what the run's own checks had left out of rows that no restore has a place for.
    ByFile(Option<Box<CheckResults>>),
    /// A clone, or a person who looks first, or nothing.
    Other,
}

/// Runs the job; the report says what happened. The undo was settled before ([`crate::proof::settle`]).
///
/// # Errors
/// Only what prevents a report. Everything else is in the report.
pub async fn run(context: &Context, job: Job<'_>) -> Result<Report> {
    let report = run_fenced(context, job).await?;
    proof::look_for_workers(context, report).await
}

async fn run_fenced(context: &Context, job: Job<'_>) -> Result<Report> {
    let mut log = RunLog::begin(context, Mode::Restore, job.describe(), job.files().len())?;
    log.report.protection.extend(context.proof.lines.iter().cloned());
    fault::point("safe-run.begun");
    let control = match fence::control(&context.connection).await {
        Ok(control) => control,
        Err(error) => return failed_before(log, &error),
    };
    log.read_only_anyway = match perform::is_read_only_anyway(&context.control).await {
        Ok(anyway) => anyway,
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
    let state = raised.state.clone();
    let prepared = prepare(context, &control, &mut log, state, standing.as_ref(), first.as_mut()).await;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    if let Some(first) = first {
        let snapshot = prepared.snapshot.as_ref().map(|(snapshot, _)| snapshot);
        first.end(context, &mut log, snapshot, &prepared.baseline);
    }
    let instead = match clone_instead(context, &control, &mut log, &raised.state, &prepared).await {
        Ok(instead) => instead,
        Err(error) => return abandon(context, log, &control, standing, error).await,
    };
    let context = instead.as_ref().unwrap_or(context);
    if let Err(error) = ready(&mut log) {
        return abandon(context, log, &control, standing, error).await;
    }
    match perform(context, &control, standing.as_ref(), job, &prepared, &mut log).await {
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

/// Rows that a restore could not bring back, found by the checks: then the snapshot is no undo, and the clone is, where it may be.
///
/// # Errors
/// Neither can be the undo. Nothing was changed.
async fn clone_instead(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    state: &DatabaseState,
    prepared: &Prepared,
) -> Result<Option<Context>> {
    let found = &prepared.baseline.results;
    if let Undo::ByFile(rest) = &prepared.undo
        && let Some(why) = proof::place::missing(context, found, rest.as_deref()).await?
    {
        proof::by_clone_instead(context, control, &why).await?;
        let line =
            format!("the undo is a clone, made now, because a restore of the snapshot would fail: {why}");
        context.progress.note(line.clone());
        log.report.protection.push(line);
        return clone::make_now(context, control, log, state).await.map(Some);
    }
    if let Undo::ByFile(rest) = &prepared.undo {
        log.report.protection.extend(proof::place::not_looked_at(found, rest.as_deref()));
    }
    let is_left_to_a_person = context.options.on_failure == Some(OnFailure::Stop);
    if log.clone.is_none() && prepared.snapshot.is_some() && !is_left_to_a_person {
        log.report.notes.extend(proof::place::broken_rules(found));
    }
    Ok(None)
}

/// From here on the database is changed.
fn ready(log: &mut RunLog) -> Result<()> {
    fault::point("safe-run.snapshot");
    interrupt::check()?;
    log.journal.write(Step::Applying)
}

async fn precopy_if_it_pays(context: &Context, log: &mut RunLog) -> Result<Option<Precopy>> {
    let Some(why) = precopy::pays(context, &context.control).await? else { return Ok(None) };
    let what = if context.options.snapshot.has_file() { "snapshot and checks" } else { "checks" };
    log.report.protection.push(format!("{what} once before and once behind the fence: {why}"));
    let mut first = precopy::take(context, log).await?;
    // The fence ends every session, and a copy of the database wants none.
    first.let_go().await?;
    Ok(Some(first))
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
        proof: context.proof.clone(),
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
    first: Option<&mut Precopy>,
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
    writes::snapshot_taken(context, log, &holder, &exported).await?;
    let snapshot = async {
        if options.snapshot.has_file() {
            context.snapshot(&exported, Some(unfenced_state)).await.map(Some)
        } else {
            Ok(None)
        }
    };
    let on_failure = options.on_failure;
    let is_by_file = log.clone.is_none()
        && options.snapshot.has_file()
        && (on_failure == Some(OnFailure::Undo) || on_failure.is_none() && standing.is_some());
    let found = async {
        let carried = match first {
            Some(first) => Some(first.carried(context, &exported).await?),
            None => None,
        };
        let baseline = baseline(context, &exported, carried, false).await?;
        let undo = match is_by_file {
            true => Undo::ByFile(proof::place::look_at_the_rest(context, &exported).await?.map(Box::new)),
            false => Undo::Other,
        };
        Ok((baseline, undo))
    };
    let both = look_beside(&context.progress, found, snapshot).await;
    let (((baseline, undo), checks_began, checks_took), (snapshot, began, took)) = both?;
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
            let restore = restore_options(context, journal::open_slot(log.journal.steps()));
            let planned =
                restore::prepare(&context.connection, control, &snapshot, &Target::Replace, &restore);
            match planned.await {
                Ok(mut plan) => {
                    match standing {
                        Some(Fence::Exclusive { names, .. }) => plan.kept_as = Some(names.kept_as()),
                        Some(Fence::ReadOnly { .. }) => plan.read_only = options.hold_fence,
                        None => {}
                    }
                    Some((snapshot, plan))
                }
                // The clone is the undo; the snapshot is a copy for another server or another role.
                Err(error) if log.clone.is_some() && context.proof.snapshot_is_spare => {
                    context.progress.note(format!("the snapshot could not be restored here: {error}"));
                    None
                }
                Err(error) => return Err(error.context("an undo would not be possible")),
            }
        }
    };
    Ok(Prepared { snapshot, baseline, undo })
}

fn restore_options(context: &Context, own_slot: Option<&str>) -> RestoreOptions {
    let choices = Choices { own_slot: own_slot.map(str::to_owned), ..Choices::undo() };
    RestoreOptions { jobs: context.options.jobs, choices }
}
