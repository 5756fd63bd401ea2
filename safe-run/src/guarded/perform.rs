//! Runs the job behind its fence, and looks at what it left behind.

mod command;
mod files;

use std::time::Instant;

use common::{
    Error, Result, fault, interrupt,
    postgres::{ConnectionSettings, Session, SessionProfile, exported_snapshot::ExportedSnapshot},
};

use super::{Job, Prepared};
use crate::{
    fence::Fence,
    run::{
        Baseline, Context, RunLog, Stage, announced, announced_by_command, check_options, check_parallel,
        judge,
    },
    verify,
};
use checks;

/// Where a job runs.
struct Place<'a> {
    context: &'a Context,
    /// A session on the maintenance database.
    control: &'a Session,
    /// The database, for sessions that bear the run's name.
    settings: ConnectionSettings,
    /// The same with the one setting that lets a session through the fence.
    through: ConnectionSettings,
}

/// Runs the job and checks what it left behind.
pub(super) async fn perform(
    context: &Context,
    control: &Session,
    standing: Option<&Fence>,
    job: Job<'_>,
    prepared: &Prepared,
    log: &mut RunLog,
) -> Result<(), (Stage, Error)> {
    let validation = |error| (Stage::Validation, error);
    fault::point("safe-run.applying");
    let settings = context.connection.with_application_name(&format!("safe-run/{}", context.run));
    let through = settings.with_option("default_transaction_read_only", "off");
    let place = Place { context, control, settings, through };
    match job {
        Job::Files(files, plan) => files::run(&place, files, plan, prepared, log).await?,
        Job::Command(words, stdout_is_ours) => {
            let is_fenced = matches!(standing, Some(Fence::ReadOnly { .. }));
            command::run(&place, words, stdout_is_ours, is_fenced, log).await?;
        }
    }
    fault::point("safe-run.applied");
    let began = Instant::now();
    // A check that a signal cancelled has found nothing: the signal is the reason.
    let (after, verified) = check_after(context, &place.settings, &prepared.baseline)
        .await
        .map_err(interrupt::explain)
        .map_err(validation)?;
    log.timed("checks after", began);
    let announced = match job {
        Job::Files(files, _) => announced(&context.options, files, &prepared.baseline),
        Job::Command(..) => announced_by_command(&context.options),
    };
    judge(log, &context.options, &prepared.baseline, &after, &announced, verified).map_err(validation)?;
    interrupt::check().map_err(|error| (Stage::Migration, error))
}

/// Whether new sessions are read-only by a setting that is not our fence's: asked of a session from before the fence.
pub(super) async fn is_read_only_anyway(control: &Session) -> Result<bool> {
    let sql =
        "SELECT reset_val = 'on' FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'";
    let row = control.query_one(sql, &[]).await;
    Ok(row.map_err(|source| Error::postgres("could not read the session's settings", source))?.get(0))
}

/// The checks afterwards, on one exported snapshot of what was committed.
async fn check_after(
    context: &Context,
    settings: &ConnectionSettings,
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
