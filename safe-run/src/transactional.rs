//! Migrations, and imports, in one transaction: fence, snapshot and baseline, apply, check, COMMIT. Every failure before the
//! COMMIT is a ROLLBACK: nothing lost, nothing to restore, milliseconds whatever the size.

mod end;
mod work;

use std::{sync::Arc, time::Instant};

use common::{
    Error, Result, fault, interrupt,
    postgres::{
        Session, SessionProfile,
        exported_snapshot::{ExportedSnapshot, LockMode as FenceMode, lock_all_tables},
        names::Schemas,
    },
};

use crate::{
    journal::{Mode, Step},
    precopy::{self, Precopy},
    report::Report,
    run::{
        Baseline, Context, FenceChoice, RunLog, SnapshotChoice, SnapshotWhen, baseline, check_names,
        check_options, judge, look_beside,
    },
    sequences, verify,
};
use checks::{self, untouched};
pub use end::fate;
use end::{commit, failed_before, roll_back};
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
