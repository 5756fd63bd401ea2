//! Migrations, and imports, in one transaction: fence, snapshot and baseline, apply, check, COMMIT. Every failure before the
//! COMMIT is a ROLLBACK: nothing lost, nothing to restore, milliseconds whatever the size.

mod end;
mod prepare;
mod work;

use std::{sync::Arc, time::Instant};

use common::{
    Error, Result, fault, interrupt,
    postgres::{Session, SessionProfile, names::Schemas},
};

use crate::{
    journal::{Mode, Step},
    report::Report,
    run::{Baseline, Context, FenceChoice, RunLog, check_names, check_options, judge},
    sequences, verify,
};
use checks::{self, untouched};
pub use end::fate;
use end::{commit, failed_before, roll_back};
use prepare::prepare;
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
    let found = &*known.insert(prepare(context, migrator, log).await.map_err(&before)?);
    fault::point("safe-run.snapshot");

    interrupt::check().map_err(&before)?;
    remember_sequences(log, found).map_err(&before)?;
    let counters = untouched::write_counters(migrator).await.map_err(&before)?;
    log.journal.write(Step::Applying).map_err(&before)?;
    fault::point("safe-run.applying");
    let fenced = context.options.fence != FenceChoice::None;
    work.apply(context, migrator, log, found, fenced).await.map_err(at(Stage::Migration))?;
    fault::point("safe-run.applied");

    validate(context, work, migrator, log, (found, counters.as_ref()))
        .await
        .map_err(at(Stage::Validation))?;
    interrupt::check().map_err(at(Stage::Migration))
}

/// Whether what the work made of the database may stand.
async fn validate(
    context: &Context,
    work: &Work<'_>,
    migrator: &Session,
    log: &mut RunLog,
    (found, counters): (&Baseline, Option<&untouched::WriteCounters>),
) -> Result<()> {
    let options = &context.options;
    let began = Instant::now();
    // A check that a signal cancelled has found nothing: the signal is the reason.
    let after = check_after(context, migrator, (work, found), counters).await.map_err(interrupt::explain)?;
    let verified =
        verify::run_all(migrator, &options.verify, &context.progress).await.map_err(interrupt::explain)?;
    log.timed("checks after", began);
    work.verify(context, migrator, log).await.map_err(interrupt::explain)?;
    let announced = work.announced(options, found);
    judge(log, options, found, &after, &announced, verified)
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
