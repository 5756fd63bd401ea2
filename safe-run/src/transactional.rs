//! Migrations, and imports, in one transaction: fence, snapshot and baseline, apply, check, COMMIT. Every failure before the
//! COMMIT is a ROLLBACK: nothing lost, nothing to restore, milliseconds whatever the size.

mod work;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    Error, ErrorKind, Result, fault, interrupt,
    postgres::{
        Session, SessionProfile,
        exported_snapshot::{ExportedSnapshot, LockMode as FenceMode, lock_all_tables},
        names::Schemas,
    },
};

use crate::{
    journal::{Mode, Step},
    precopy::{self, Precopy},
    report::{Report, UndoReport, Verdict},
    run::{
        Baseline, Context, FenceChoice, RunLog, SnapshotChoice, SnapshotWhen, analyze_what_lost_statistics,
        baseline, check_names, check_options, judge, look_beside,
    },
    sequences, verify,
};
use checks::{self, untouched};
pub use work::Work;

/// How far a run came before it failed; decides the exit code and what there is to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Migration,
    Validation,
}

struct Failure {
    stage: Stage,
    error: Error,
}

fn at(stage: Stage) -> impl Fn(Error) -> Failure {
    move |error| Failure { stage, error }
}

/// Does the work; the report says what happened.
///
/// # Errors
/// Only what prevents a report: the journal can't be written. Everything else is in the report.
pub async fn run(context: &Context, work: &Work<'_>) -> Result<Report> {
    let mut log = RunLog::begin(context, Mode::Transaction, work.what(), work.pending())?;
    work.begun(&mut log.report);
    fault::point("safe-run.begun");
    let notices = context.progress.clone();
    let connected = context
        .connection
        .connect_as(
            SessionProfile::Migration,
            Some(Arc::new(move |notice| notices.note(format!("{notice}")))),
        )
        .await;
    let migrator = match connected {
        Ok(migrator) => migrator,
        Err(error) => return failed_before(log, &error),
    };
    let mut known = None;
    match protected(context, work, &migrator, &mut log, &mut known).await {
        Ok(()) => commit((context, work), log, migrator, known.as_ref()).await,
        Err(failure) => roll_back((context, work), log, migrator, known.as_ref(), failure).await,
    }
}

/// Everything up to the COMMIT. `known` is what was found before the migration, once it was found.
async fn protected(
    context: &Context,
    work: &Work<'_>,
    migrator: &Session,
    log: &mut RunLog,
    known: &mut Option<Baseline>,
) -> Result<(), Failure> {
    let before = at(Stage::Before);
    let options = &context.options;
    let observer = context.connection.connect().await.map_err(&before)?;
    let first = precopy::pays(context, &observer).await.map_err(&before)?;
    let looks_first = first.is_some();
    let when = choose_when(context, &observer, log, first).await.map_err(&before)?;
    if when == Some(SnapshotWhen::Before) {
        let create = context.backup_options(None);
        let taken = backup::create(&context.connection, &context.repository, &create, &context.progress);
        let snapshot = log.phase("snapshot before the fence", taken).await.map_err(&before)?;
        log.took_snapshot(&snapshot).map_err(&before)?;
    }
    let mut first =
        if looks_first { Some(precopy::take(context, log).await.map_err(&before)?) } else { None };
    let points = backup::reuse::points(&observer).await.map_err(&before)?;

    let fenced = options.fence != FenceChoice::None;
    if fenced {
        let locked = lock_all_tables(
            migrator,
            &observer,
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            FenceMode::Exclusive,
            options.lock_wait,
            &context.progress,
        );
        first.iter_mut().for_each(Precopy::fence_begins);
        log.phase("fence: EXCLUSIVE locks on all tables", locked).await.map_err(&before)?;
        log.fence_is_up();
        log.report
            .protection
            .push("fence lock: reads go on, writes wait for the end of the migration".to_owned());
    } else {
        let begun = migrator.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await;
        begun.map_err(|source| before(Error::postgres("could not begin the transaction", source)))?;
        log.report.protection.push("no fence: others may write while the migration runs".to_owned());
    }
    fault::point("safe-run.fenced");
    let takes_snapshot = matches!(when, Some(SnapshotWhen::Fenced | SnapshotWhen::Precopy));
    let holder = if takes_snapshot && !fenced {
        Some(unfenced_holder(context, &observer).await.map_err(&before)?)
    } else {
        None
    };
    observer.close().await.map_err(&before)?;

    // The workers have to be gone before the migration begins: their locks would be in its way.
    let exported = ExportedSnapshot::export(holder.as_ref().unwrap_or(migrator)).await.map_err(&before)?;
    let exported = exported.with_points(points);
    let snapshot =
        async { if takes_snapshot { context.snapshot(&exported, None).await.map(Some) } else { Ok(None) } };
    let found = async {
        let carried = match first.as_mut() {
            Some(first) => Some(first.carried(context, &exported).await?),
            None => None,
        };
        baseline(context, &exported, carried, fenced).await
    };
    let both = look_beside(&context.progress, found, snapshot).await;
    let ((mut found, checks_began, mut checks_took), (snapshot, began, took)) = both.map_err(&before)?;
    drop(exported);
    if fenced {
        let began = Instant::now();
        let options = check_options(options);
        checks::add_functions(migrator, &options, &mut found.results).await.map_err(&before)?;
        checks_took += began.elapsed();
    }
    if let Some(holder) = holder {
        holder.close().await.map_err(&before)?;
    }
    if let Some(snapshot) = &snapshot {
        log.took("snapshot", began, took);
        log.took_snapshot(snapshot).map_err(&before)?;
    }
    log.took("checks before", checks_began, checks_took);
    if let Some(first) = first {
        first.end(context, log, snapshot.as_ref(), &found);
    }
    let found = &*known.insert(found);
    fault::point("safe-run.snapshot");

    interrupt::check().map_err(&before)?;
    remember_sequences(log, found).map_err(&before)?;
    let counters = untouched::write_counters(migrator).await.map_err(&before)?;
    log.journal.write(Step::Applying).map_err(&before)?;
    fault::point("safe-run.applying");
    work.apply(context, migrator, log, found, fenced).await.map_err(at(Stage::Migration))?;
    fault::point("safe-run.applied");

    let began = Instant::now();
    let after = check_after(context, migrator, (work, found), counters.as_ref())
        .await
        // A check that a signal cancelled has found nothing: the signal is the reason.
        .map_err(interrupt::explain)
        .map_err(at(Stage::Validation))?;
    let verified = verify::run_all(migrator, &options.verify, &context.progress)
        .await
        .map_err(interrupt::explain)
        .map_err(at(Stage::Validation))?;
    log.timed("checks after", began);
    work.verify(context, migrator, log).await.map_err(interrupt::explain).map_err(at(Stage::Validation))?;
    let announced = work.announced(options, found);
    judge(log, options, found, &after, &announced, verified).map_err(at(Stage::Validation))?;
    interrupt::check().map_err(at(Stage::Migration))
}

/// A session that has every table locked as a backup does, where no fence has: else one that is truncated while it is copied would
/// read as empty. It has to be gone before the migration begins.
async fn unfenced_holder(context: &Context, observer: &Session) -> Result<Session> {
    let holder = context.connection.connect().await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let (wait, progress) = (context.options.lock_wait, &context.progress);
    lock_all_tables(&holder, observer, begin, FenceMode::AccessShare, wait, progress).await?;
    Ok(holder)
}

/// What a ROLLBACK does not undo has to be known after a crash too.
fn remember_sequences(log: &RunLog, baseline: &Baseline) -> Result<()> {
    let bytes = serde_json::to_vec(&baseline.sequences)
        .map_err(|source| Error::failed(format!("could not encode the sequences: {source}")))?;
    common::files::write_private_file(&log.journal.dir().join(sequences::SEQUENCES_FILE), &bytes)
}

/// The checks inside the migration's own transaction: nobody else can see what it did.
async fn check_after(
    context: &Context,
    migrator: &Session,
    (work, before): (&Work<'_>, &Baseline),
    counters: Option<&untouched::WriteCounters>,
) -> Result<checks::CheckResults> {
    migrator.reset_settings().await?;
    let mut options = check_options(&context.options);
    options.made = work.made();
    options.known_rules = before.results.rules.keys().cloned().collect();
    options.known = Some(before.results.known());
    options.progress = Some(context.progress.clone());
    options.parallel_workers = u32::try_from(context.options.jobs).unwrap_or(1);
    if let Some(counters) = counters
        && let Some(touched) = untouched::touched_tables(migrator, counters, &before.results.tables).await?
    {
        options.untouched = untouched::untouched(&before.results.tables, &touched);
    }
    context.progress.phase("checking", None);
    let results = check_under_same_names(context, migrator, &options).await;
    context.progress.done();
    results
}

/// One pass during which no schema got another name, as everybody else sees them: the migration's own names are nobody's
/// to change before its COMMIT.
async fn check_under_same_names(
    context: &Context,
    migrator: &Session,
    options: &checks::Options,
) -> Result<checks::CheckResults> {
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        let before = Schemas::seen_by(&context.control).await?;
        let results = checks::run(migrator, options).await?;
        let after = Schemas::seen_by(&context.control).await?;
        match check_names(&before, &after, &results) {
            Ok(()) => return Ok(results),
            Err(error) if attempt < ATTEMPTS => {
                attempt += 1;
                context.progress.warn(format!("{error}: the checks begin again"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether and when to take the snapshot; the reason goes into the report. `looks_first`: why there is a first look before
/// the fence, if there is one.
async fn choose_when(
    context: &Context,
    observer: &Session,
    log: &mut RunLog,
    looks_first: Option<String>,
) -> Result<Option<SnapshotWhen>> {
    if context.options.snapshot == SnapshotChoice::None {
        log.report.protection.push("no snapshot: a ROLLBACK is the only undo".to_owned());
        if let Some(why) = looks_first {
            log.report.protection.push(format!("checks once before and once behind the fence: {why}"));
        }
        return Ok(None);
    }
    let expected = precopy::expected(&context.options, observer).await?.snapshot;
    let (when, why) = match (context.options.snapshot_when, looks_first) {
        (_, Some(why)) => (SnapshotWhen::Precopy, why),
        (SnapshotWhen::Before, None) => (SnapshotWhen::Before, "as told".to_owned()),
        (SnapshotWhen::Fenced, None) => (SnapshotWhen::Fenced, "as told".to_owned()),
        (SnapshotWhen::Auto | SnapshotWhen::Precopy, None) if expected <= precopy::FENCED_LIMIT => {
            (SnapshotWhen::Fenced, format!("it takes about {} s", expected.as_secs().max(1)))
        }
        (SnapshotWhen::Auto | SnapshotWhen::Precopy, None) => (
            SnapshotWhen::Before,
            format!(
                "behind the fence, writers would wait about {} s, and a ROLLBACK is exact without it",
                expected.as_secs()
            ),
        ),
    };
    let place = match when {
        SnapshotWhen::Fenced => "behind",
        SnapshotWhen::Precopy => "and checks once before and once behind",
        SnapshotWhen::Before | SnapshotWhen::Auto => "before",
    };
    log.report.protection.push(format!("snapshot {place} the fence: {why}"));
    Ok(Some(when))
}

async fn commit(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    migrator: Session,
    baseline: Option<&Baseline>,
) -> Result<Report> {
    let xid = match migrator.assigned_xid().await {
        Ok(xid) => xid,
        Err(error) => {
            let failure = Failure { stage: Stage::Migration, error };
            return roll_back((context, work), log, migrator, baseline, failure).await;
        }
    };
    if let Err(error) = log.journal.write(Step::Committing { xid: xid.clone() }) {
        let failure = Failure { stage: Stage::Migration, error };
        return roll_back((context, work), log, migrator, baseline, failure).await;
    }
    fault::point("safe-run.before-commit");
    let began = Instant::now();
    let committed = migrator.batch_execute("COMMIT").await;
    log.timed("commit", began);
    log.fence_is_down();
    if let Err(source) = committed {
        let error = Error::postgres("could not commit", source);
        let refused =
            error.sqlstate().is_some_and(|code| !code.starts_with("08") && !code.starts_with("57P"));
        return if refused {
            let failure = Failure { stage: Stage::Migration, error };
            roll_back((context, work), log, migrator, baseline, failure).await
        } else {
            settle_lost_commit((context, work), log, baseline, xid, error).await
        };
    }
    fault::point("safe-run.after-commit");
    stands((context, work), log, migrator).await
}

async fn stands(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    migrator: Session,
) -> Result<Report> {
    log.note_step(Step::Stands);
    analyze_what_lost_statistics(&migrator, &mut log, &context.progress).await;
    work.after_commit(context, &migrator, &mut log).await;
    migrator.close().await.unwrap_or_else(|error| context.progress.warn(error.to_string()));
    describe_success(work, &mut log);
    Ok(log.finish(Verdict::Committed, 0))
}

fn describe_success(work: &Work<'_>, log: &mut RunLog) {
    let report = &mut log.report;
    report.headline = work.succeeded(report);
    report.state = match &report.snapshot {
        Some(id) => format!("the state before is kept as snapshot {id}"),
        None => "no snapshot was taken".to_owned(),
    };
}

/// What became of a transaction, by its id.
pub async fn fate(session: &Session, xid: &str) -> Result<Option<String>> {
    let row = session
        .query_one(
            &format!(
                "SELECT pg_catalog.pg_xact_status({}::pg_catalog.text::pg_catalog.xid8)",
                common::ident::literal(xid)
            ),
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not ask for the transaction's fate", source))?;
    Ok(row.get(0))
}

/// Longest time to wait for a server that has gone: after a crash it replays its log first.
const LONGEST_RESTART: Duration = Duration::from_secs(180);

async fn connect_again(context: &Context) -> Result<Session> {
    context.progress.phase("waiting for the server to come back", None);
    let session = context.connection.connect_waiting(LONGEST_RESTART, |_| {}).await;
    context.progress.done();
    session
}

/// The connection broke during COMMIT: the server knows whether it committed.
async fn settle_lost_commit(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    baseline: Option<&Baseline>,
    xid: Option<String>,
    error: Error,
) -> Result<Report> {
    let asked = async {
        let session = connect_again(context).await?;
        match &xid {
            Some(xid) => fate(&session, xid).await.map(|fate| (session, fate)),
            None => Ok((session, Some("aborted".to_owned()))),
        }
    };
    log.report.notes.push(format!("the connection broke while the commit was on its way: {error}"));
    match asked.await {
        Ok((session, Some(fate))) if fate == "committed" => stands((context, work), log, session).await,
        Ok((session, Some(fate))) if fate == "aborted" => {
            let failure = Failure { stage: Stage::Migration, error };
            roll_back((context, work), log, session, baseline, failure).await
        }
        _ => {
            log.fail(&error);
            log.report.headline =
                "the connection broke during COMMIT, and its outcome could not be read".to_owned();
            log.report.state = format!("database \"{}\" holds {}", log.report.database, work.all_or_none());
            log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

fn failed_before(mut log: RunLog, error: &Error) -> Result<Report> {
    log.fail(error);
    log.report.state = format!("database \"{}\" unchanged", log.report.database);
    Ok(log.finish(Verdict::Failed, error.kind().exit_code()))
}

async fn roll_back(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    migrator: Session,
    baseline: Option<&Baseline>,
    failure: Failure,
) -> Result<Report> {
    let guard = interrupt::begin_undo().await;
    let began = Instant::now();
    let Failure { stage, error } = failure;
    let error = if stage == Stage::Validation { error } else { interrupt::explain(error) };
    // A connection that is gone has rolled back, or will as soon as the server notices.
    let rolled_back = migrator.batch_execute("ROLLBACK").await;
    fault::point("safe-run.rolled-back");
    log.fence_is_down();
    let mut notes = Vec::new();
    if stage != Stage::Before {
        let put_back = async {
            let own;
            let session = match &rolled_back {
                Ok(()) => &migrator,
                Err(_) => {
                    own = connect_again(context).await?;
                    &own
                }
            };
            match baseline {
                Some(baseline) => {
                    if rolled_back.is_ok() {
                        session.reset_settings().await?;
                        session.only_catalog_names().await?;
                    }
                    sequences::put_back(session, &baseline.sequences).await
                }
                None => Ok(sequences::PutBack::default()),
            }
        };
        match put_back.await {
            Ok(found) => notes.extend(found.restored.into_iter().chain(found.ahead)),
            Err(second) => {
                log.fail(&error);
                log.report.undo = Some(UndoReport {
                    how: "rollback",
                    seconds: began.elapsed().as_secs_f64(),
                    failed_database_kept_as: None,
                    error: Some((&second).into()),
                });
                log.report.state = format!(
                    "database \"{}\": tables are as before, but sequences could not be looked at",
                    log.report.database
                );
                log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
                return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
            }
        }
    }
    drop(guard);
    if stage != Stage::Before {
        log.timed("undo: ROLLBACK", began);
    }
    log.fail(&error);
    log.report.notes.extend(notes);
    let outside = std::mem::take(&mut log.outside);
    log.report.notes.extend(outside);
    log.report.undo = Some(UndoReport {
        how: "rollback",
        seconds: began.elapsed().as_secs_f64(),
        failed_database_kept_as: None,
        error: None,
    });
    let mut state = vec![format!("database \"{}\" unchanged", log.report.database)];
    if stage != Stage::Before {
        state.push(work.had_run(&log.report));
    }
    if let Some(id) = &log.report.snapshot {
        state.push(format!("snapshot {id} kept"));
    }
    log.report.state = state.join(" · ");
    let (verdict, code) = match (stage, error.kind()) {
        (_, kind @ (ErrorKind::Interrupted | ErrorKind::Terminated)) => {
            (Verdict::RolledBack, kind.exit_code())
        }
        (Stage::Before, kind) => (Verdict::Failed, kind.exit_code()),
        (Stage::Migration, _) if error.is_retryable() => (Verdict::RolledBack, ErrorKind::Busy.exit_code()),
        (Stage::Migration, _) => (Verdict::RolledBack, ErrorKind::MigrationRolledBack.exit_code()),
        (Stage::Validation, _) => (Verdict::RolledBack, ErrorKind::ValidationRolledBack.exit_code()),
    };
    Ok(log.finish(verdict, code))
}
