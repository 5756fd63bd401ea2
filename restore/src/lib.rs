//! Brings a snapshot back. The flow on one screen:
//!
//! open → verify → `VerifiedSnapshot` → preflight → `RestorePlan` → new database from template0 → pre-data → parallel COPY
//! in → post-data → sequences, views, ANALYZE → rows and content against the manifest → `ValidatedDatabase` → both renames
//! in one transaction.
//!
//! Until that commit the live database is untouched, and after it the replaced one still exists under another name.

pub mod archive;
pub mod bundle;
pub mod cli;
pub mod copy_in;
pub mod parts;
pub mod plan;
pub mod preflight;
pub mod stage;

use chrono::Utc;
use common::{
    Error, ErrorKind, Progress, Result,
    postgres::{
        ConnectionSettings, Session,
        database::{self, SwapNames},
        tools,
    },
    repository::{
        StoredSnapshot,
        verify::{Depth, VerifiedSnapshot, verify},
    },
    snapshot::{Manifest, readme},
};
use serde::Serialize;

pub use plan::{Choices, RestorePlan, Target};
use stage::{FillOptions, StagedDatabase, ValidatedDatabase};

/// How to restore.
#[derive(Debug, Clone, Copy)]
pub struct RestoreOptions {
    /// Connections.
    pub jobs: usize,
    /// What a person decided.
    pub choices: Choices,
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The plan that was carried out.
    pub plan: RestorePlan,
    /// The database that now holds the snapshot.
    pub database: String,
    /// Grants that could not be given, as phrases: `SELECT on table app.orders to reader`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_grants: Vec<String>,
    /// Under which name the replaced database still exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_as: Option<String>,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Checks every file's length and hash.
pub async fn verified(
    snapshot: StoredSnapshot,
    jobs: usize,
    progress: &Progress,
) -> Result<VerifiedSnapshot> {
    progress.phase("verifying the snapshot", Some(snapshot.manifest.stored_bytes()));
    let sink = progress.clone();
    let verified = tokio::task::spawn_blocking(move || {
        verify(snapshot, Depth::Hashes, jobs, &|bytes| sink.advance(bytes, 0))
    })
    .await
    .map_err(|source| Error::failed(format!("the verification died: {source}")))??;
    progress.done();
    Ok(verified)
}

/// Decides what will be done, without touching anything.
pub async fn prepare(
    settings: &ConnectionSettings,
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    target: &Target,
    options: RestoreOptions,
) -> Result<RestorePlan> {
    refuse_partial(&snapshot.manifest, target)?;
    let facts = preflight::facts(maintenance, settings.database(), target).await?;
    plan::plan(&snapshot.manifest, settings.database(), target, &facts, options.choices, Utc::now())
}

/// A snapshot of a part must never take the place of the whole.
fn refuse_partial(manifest: &Manifest, target: &Target) -> Result<()> {
    match &manifest.partial {
        Some(partial) if *target == Target::Replace => Err(Error::refused(format!(
            "the snapshot {} holds only a part of \"{}\" ({}): it can't take the place of the whole database",
            manifest.id,
            common::ident::printable(&manifest.database.name),
            partial.filters
        ))
        .with_hint(
            "Choose a whole snapshot (`backup list` marks partial ones), restore this one beside the live database, or \
             replace single tables with --table.",
        )
        .with_database_state("No database was changed.")),
        _ => Ok(()),
    }
}

/// Carries a plan out: fills a new database, validates it, and swaps the names if the plan says so.
///
/// # Errors
/// The new database is dropped again, and the live one is as it was. [`ErrorKind::Unknown`] only when the swap's outcome
/// can't be read.
pub async fn execute(
    settings: &ConnectionSettings,
    maintenance: &Session,
    snapshot: &VerifiedSnapshot,
    plan: RestorePlan,
    options: RestoreOptions,
    progress: &Progress,
) -> Result<RestoreReport> {
    let started = std::time::Instant::now();
    let need = maintenance.server_major().max(snapshot.snapshot().manifest.pg_dump_major);
    let pg_restore = tools::choose("pg_restore", &tools::installed("pg_restore").await, need)?;
    for note in &plan.notes {
        progress.note(note.clone());
    }
    create_roles(maintenance, &snapshot.snapshot().manifest, &plan).await?;
    let staged = StagedDatabase::create(maintenance, settings, snapshot, &plan).await?;
    let fill = FillOptions { jobs: options.jobs };
    let finished = match staged.fill(maintenance, snapshot, &plan, &pg_restore, fill, progress).await {
        Ok(validated) => {
            let missing_grants = validated.missing_grants().to_vec();
            put_in_place(settings, maintenance, validated, &plan, progress)
                .await
                .map(|replaced| (replaced, missing_grants))
        }
        Err(error) => Err(error),
    };
    match finished {
        Ok((replaced, missing_grants)) => Ok(RestoreReport {
            missing_grants,
            database: plan.replaces.clone().unwrap_or_else(|| plan.staged.clone()),
            replaced_as: plan.kept_as.clone().filter(|_| replaced && !plan.drop_replaced),
            plan,
            seconds: started.elapsed().as_secs_f64(),
        }),
        Err(error) if error.kind() == ErrorKind::Unknown => Err(error),
        Err(error) => {
            let state = match &plan.replaces {
                Some(live) => format!("The database \"{live}\" was not changed."),
                None => "No existing database was changed.".to_owned(),
            };
            let name = staged.name().to_owned();
            // Cancelled with everything else, the maintenance session is fine for the next statement.
            let state = match staged.discard(maintenance).await {
                Ok(()) => state,
                Err(second) => format!(
                    "{state} The half-restored database \"{name}\" could not be dropped ({second}); drop it by hand."
                ),
            };
            Err(error.with_database_state(state))
        }
    }
}

/// Makes the roles that the plan lists. They stay, whatever becomes of the restore.
async fn create_roles(maintenance: &Session, manifest: &Manifest, plan: &RestorePlan) -> Result<()> {
    let missing: Vec<_> =
        manifest.roles.iter().filter(|role| plan.create_roles.contains(&role.name)).collect();
    let statements = missing
        .iter()
        .flat_map(|role| readme::role_statements(role))
        .chain(missing.iter().flat_map(|role| readme::membership_statements(role)));
    for statement in statements {
        maintenance.batch_execute(&statement).await.map_err(|source| {
            Error::postgres("could not make the missing roles", source)
                .with_hint(
                    "Make them by hand (globals.sql in the snapshot has the statements), or use --no-owner.",
                )
                .with_database_state("No database was changed.")
        })?;
    }
    Ok(())
}

/// Swaps the names if the plan says so; whether another database had the name before.
async fn put_in_place(
    settings: &ConnectionSettings,
    maintenance: &Session,
    validated: ValidatedDatabase,
    plan: &RestorePlan,
    progress: &Progress,
) -> Result<bool> {
    let (Some(live), Some(kept_as)) = (&plan.replaces, &plan.kept_as) else { return Ok(false) };
    common::interrupt::check()?;
    progress.phase(format!("giving the restored database the name \"{live}\""), None);
    let names =
        SwapNames { live: live.clone(), staged: validated.name().to_owned(), replaced: kept_as.clone() };
    let replaced = database::swap(settings, &names).await?;
    progress.done();
    if plan.drop_replaced {
        // The restore has succeeded; a replaced database that is still there is not a failure of it.
        if let Err(error) = database::drop_database(maintenance, kept_as).await {
            progress.warn(format!("the replaced database \"{kept_as}\" could not be dropped: {error}"));
        }
    }
    Ok(replaced)
}
