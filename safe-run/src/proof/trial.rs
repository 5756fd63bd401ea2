//! The trial: every definition, with the rows that pass code, goes through a real backup and a real restore, by this role, into a
//! scratch database that nobody else uses. What it runs is what the undo runs.
//!
//! It reads with writers at work, and holds nobody up for longer than a backup does. The scratch database is dropped on every
//! path, and what a killed run left is dropped by the next one; the rows lie in the repository's trash meanwhile, mode 0700.

use std::time::{Duration, Instant};

use common::{
    Error, ErrorKind, Ident, Progress, Result,
    catalog::DatabaseState,
    fault,
    format::{duration, plural},
    ident::{literal, printable},
    interrupt,
    postgres::{
        Session, introspect, known_settings,
        scratch::{ScratchKind, closed_limit},
    },
    repository::{Repository, proofs::KnownLoss},
    snapshot::{manifest::Kind, readme::database_statements},
};
use restore::{Choices, RestoreOptions, RestoreReport, Target};

use super::{ByFile, Impossible, rules::Rules};
use crate::run::Context;

/// The scratch databases of trials.
const SCRATCH: ScratchKind = ScratchKind {
    word: "trial",
    marker: "safe-run: scratch database of a trial of the undo; the next run drops it if this one was killed",
    swept_by: "The next run of safe-run",
    patience: Duration::from_secs(60),
};

/// Drops what killed runs left. What can't be dropped is said, and stops nothing.
pub async fn sweep(context: &Context, control: &Session) {
    let dead = match SCRATCH.leftovers(control).await {
        Ok(dead) => dead,
        Err(error) => return context.progress.warn(error.to_string()),
    };
    for name in dead {
        match SCRATCH.drop(&context.connection, &name).await {
            Ok(()) => {
                context.progress.note(format!("dropped \"{name}\", which a killed run had left behind"));
            }
            Err(error) => context.progress.warn(error.to_string()),
        }
    }
}

/// Tries whether a snapshot can be the undo.
pub async fn by_file(
    context: &Context,
    control: &Session,
    rules: &Rules,
) -> Result<std::result::Result<ByFile, Impossible>> {
    let began = Instant::now();
    context.progress.phase("trying the undo in a scratch database", None);
    let restored = round_trip(context, control, rules).await;
    context.progress.done();
    let (error, is_stored) = match restored {
        Ok(Ok((report, differs))) => {
            return Ok(Ok(succeeded(context, rules, (&report, &differs), began)));
        }
        Ok(Err(error)) => (error, true),
        Err(error) => (error, false),
    };
    // Somebody else's lock, or a signal: says nothing about the undo.
    if error.is_retryable()
        || matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Terminated | ErrorKind::Busy)
    {
        return Err(error);
    }
    interrupt::check()?;
    Ok(Err(Impossible { is_stored, ..Impossible::of(&error) }))
}

/// Says what was done.
fn succeeded(
    context: &Context,
    rules: &Rules,
    (report, differs): (&RestoreReport, &[String]),
    began: Instant,
) -> ByFile {
    let lacks = lacks(report, differs);
    let what = match rules.rows.len() as u64 {
        0 => "every definition".to_owned(),
        _ if rules.is_all => "every definition and every row".to_owned(),
        tables => format!("every definition, and the rows of {}", plural(tables, "table", "tables")),
    };
    let mut how = format!(
        "the undo is proved: {what} came back in a scratch database as \"{}\" ({})",
        context.connection.user(),
        duration(began.elapsed())
    );
    how.push_str(&rules.left_out());
    let of = |lost: &restore::LostRows| KnownLoss {
        table: lost.table.clone(),
        rows: lost.rows,
        line: lost.line.clone(),
    };
    let loses = report.lost_rows.iter().map(of).chain(rules.untried.iter().cloned()).collect();
    ByFile { how, lacks, loses, moved: None }
}

/// What the undo would leave otherwise than it was. Rows of extensions are not among it: the snapshot of a part says nothing of them.
/// Of what is decided by rows, what was seen in those that were tried. `differs` is what a snapshot says beforehand: what the trial
/// does not find has come back.
fn lacks(report: &RestoreReport, differs: &[String]) -> Vec<String> {
    let is_found = |line: &&String| report.differences.contains(&printable(line));
    let differences = differs.iter().filter(is_found).chain(&report.by_rows).cloned().collect();
    let of_all_rows = RestoreReport { differences, ..report.clone() };
    let account = of_all_rows.account();
    [account.missing, account.differs].concat()
}

/// Backup and restore, as the run and its undo would do them. The inner result is the restore's, with
/// what the definitions are known to differ by afterwards.
async fn round_trip(
    context: &Context,
    control: &Session,
    rules: &Rules,
) -> Result<Result<(RestoreReport, Vec<String>)>> {
    let _nobody_sweeps = context.repository.lock_shared()?;
    let dir = context.repository.scratch_dir()?;
    let repository = Repository::open_or_create(&dir.path().join("repository"))?;
    let quiet = Progress::none();
    let create = backup::CreateOptions {
        kind: Kind::PreMigration,
        jobs: context.options.jobs,
        lock_wait: context.options.lock_wait,
        rows_of: Some(rules.rows.clone()),
        reuse: backup::reuse::ReusePolicy { from_bytes: u64::MAX, ..backup::reuse::ReusePolicy::default() },
        skip_space_check: true,
        ..backup::CreateOptions::default()
    };
    let snapshot = backup::create(&context.connection, &repository, &create, &quiet).await?;
    let differs = snapshot.manifest.differs.clone().unwrap_or_default();
    let name = SCRATCH.name(context.connection.database());
    let alive = SCRATCH.hold(&context.connection, &name).await?;
    let restored = async {
        let choices = Choices { marker: Some(SCRATCH.marker.to_owned()), ..Choices::undo() };
        let options = RestoreOptions { jobs: context.options.jobs, choices };
        let target = Target::Into(name.clone());
        let plan = restore::prepare(&context.connection, control, &snapshot, &target, &options).await?;
        let verified = restore::verified(snapshot, options.jobs, &quiet).await?;
        restore::execute(&context.connection, control, &verified, plan, &options, &quiet).await
    };
    let restored = restored.await;
    let _whole = interrupt::begin_undo().await;
    // A restore that failed has dropped its database itself.
    let dropped = match &restored {
        Ok(_) => SCRATCH.drop(&context.connection, &name).await,
        Err(_) => Ok(()),
    };
    alive.close().await?;
    Ok(restored.and_then(|report| dropped.map(|()| (report, differs))))
}

/// Tries what a clone gets that no copy carries: owner, grants, settings and labels of the database itself.
///
/// # Errors
/// Refused where the role, or the server, can't give all of it.
pub async fn of_database_state(context: &Context, control: &Session) -> Result<()> {
    let live = context.connection.database();
    let state = introspect::database_state_of(control, live).await?;
    if is_superuser(control).await? && state.security_labels.is_empty() {
        return Ok(());
    }
    let name = SCRATCH.name(live);
    let alive = SCRATCH.hold(&context.connection, &name).await?;
    let tried = async {
        let scratch = Ident::new(&*name);
        let failed = |source| {
            Error::postgres("could not give a copy what belongs to the database itself", source)
                .with_kind(ErrorKind::Refused)
        };
        let create = format!(
            "CREATE DATABASE {scratch} TEMPLATE template0 ALLOW_CONNECTIONS false CONNECTION LIMIT {}",
            closed_limit(&name)
        );
        control.batch_execute(&create).await.map_err(failed)?;
        fault::point("safe-run.trial-made");
        let mark = format!("COMMENT ON DATABASE {scratch} IS {}", literal(SCRATCH.marker));
        control.batch_execute(&mark).await.map_err(failed)?;
        // A template could not be dropped.
        let comment = Some(SCRATCH.marker.to_owned());
        let marked = DatabaseState { comment, is_template: false, ..state.clone() };
        known_settings::know(control, &marked.settings).await?;
        control.batch_execute(&database_statements(&marked, &name).join("; ")).await.map_err(failed)?;
        let found = introspect::database_state_of(control, &name).await?;
        crate::database_clone::refuse_other_rights(&state, &found)
    };
    let tried = tried.await;
    let _whole = interrupt::begin_undo().await;
    let dropped = SCRATCH.drop(&context.connection, &name).await;
    alive.close().await?;
    tried.and(dropped)
}

pub(super) async fn is_superuser(session: &Session) -> Result<bool> {
    let row = session
        .query_one("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
        .map_err(|source| Error::postgres("could not look up the role", source))?;
    Ok(row.get(0))
}
