//! The restore of a whole database, from the verified snapshot to the swap of the names.

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
    snapshot::{Manifest, readme::template_statement},
};

use crate::{
    collation, missing_roles,
    plan::{self, RestoreOptions, RestorePlan, Target},
    preflight,
    report::RestoreReport,
    role_map, sequences_ahead,
    stage::{FillOptions, Found, StagedDatabase, ValidatedDatabase},
    tablespaces,
};

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
    options: &RestoreOptions,
) -> Result<RestorePlan> {
    refuse_partial(&snapshot.manifest, target)?;
    let facts = {
        let tablespace = tablespaces::mapped(&options.choices, &snapshot.manifest.database.tablespace);
        let mut facts = preflight::facts(maintenance, settings.database(), target, tablespace).await?;
        facts.missing_collations = collation::missing(maintenance, &snapshot.manifest).await?;
        let settings = &snapshot.manifest.database.settings;
        facts.unknown_settings = preflight::unknown_settings(maintenance, settings).await?;
        facts
    };
    plan::plan(&snapshot.manifest, settings.database(), target, &facts, &options.choices, Utc::now())
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
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<RestoreReport> {
    let started = std::time::Instant::now();
    let need = maintenance.server_major().max(snapshot.snapshot().manifest.pg_dump_major);
    let pg_restore = tools::choose("pg_restore", &tools::installed("pg_restore").await, need)?;
    for note in &plan.notes {
        progress.note(note.clone());
    }
    missing_roles::create(maintenance, snapshot.snapshot(), &plan).await?;
    let with_roles = async {
        role_map::make_temporary_roles(maintenance, &plan.map_roles).await?;
        let made = stage_and_swap(settings, maintenance, snapshot, &plan, &pg_restore, options, progress);
        made.await
    };
    let finished = with_roles.await;
    for left in role_map::drop_temporary_roles(maintenance, &plan.map_roles).await {
        progress.warn(left);
    }
    let Done { in_place, replaced, found } = finished?;
    Ok(RestoreReport {
        missing_grants: found.grants.missing,
        extra_grants: found.grants.extra,
        other_owners: found.other_owners,
        missing: found.missing,
        differences: found.differences,
        by_rows: found.by_rows,
        lost_rows: found.lost_rows,
        not_checked: found.not_checked,
        spent: found.spent,
        database: plan.replaces.clone().filter(|_| in_place).unwrap_or_else(|| plan.staged.clone()),
        replaced_as: plan.kept_as.clone().filter(|_| replaced && !plan.drop_replaced),
        plan,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What became of the new database.
struct Done {
    /// Whether it is where the plan wanted it. One that lacks objects never replaces another unasked.
    in_place: bool,
    /// Whether another database had its name before.
    replaced: bool,
    found: Found,
}

/// Makes the new database, fills it and puts it in place.
///
/// # Errors
/// The new database is dropped again.
async fn stage_and_swap(
    settings: &ConnectionSettings,
    maintenance: &Session,
    snapshot: &VerifiedSnapshot,
    plan: &RestorePlan,
    pg_restore: &tools::Tool,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<Done> {
    let staged = StagedDatabase::create(maintenance, settings, snapshot, plan, progress).await?;
    let fill = FillOptions { jobs: options.jobs };
    // On the heap: what it holds between its steps is too much for the stacks that it is moved over.
    let filled = Box::pin(staged.fill(maintenance, snapshot, plan, pg_restore, fill, progress));
    let finished = match filled.await {
        Ok(validated) => {
            let found = validated.found().clone();
            if found.missing.is_empty() || plan.accept_missing_objects {
                let is_template = plan.marker.is_none() && snapshot.snapshot().manifest.database.is_template;
                put_in_place(settings, maintenance, validated, is_template, plan, options, progress)
                    .await
                    .map(|replaced| Done { in_place: true, replaced, found })
            } else {
                Ok(Done { in_place: false, replaced: false, found })
            }
        }
        Err(error) => Err(error),
    };
    match finished {
        Ok(done) => Ok(done),
        Err(error) if error.kind() == ErrorKind::Unknown => Err(error),
        Err(error) => {
            let state = match &plan.replaces {
                Some(live) => format!("The database \"{live}\" was not changed."),
                None => "No existing database was changed.".to_owned(),
            };
            let name = staged.name().to_owned();
            // Cancelled with everything else, the maintenance session is fine for the next statement.
            let state = match staged.discard(maintenance, progress).await {
                Ok(()) => state,
                Err(second) => format!(
                    "{state} The half-restored database \"{name}\" could not be dropped ({second}); drop it by hand."
                ),
            };
            Err(error.with_database_state(state))
        }
    }
}

/// Swaps the names if the plan says so, and makes a template what was one; whether another database had the name before.
async fn put_in_place(
    settings: &ConnectionSettings,
    maintenance: &Session,
    validated: ValidatedDatabase,
    is_template: bool,
    plan: &RestorePlan,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<bool> {
    let (Some(live), Some(kept_as)) = (&plan.replaces, &plan.kept_as) else {
        if is_template {
            let statement = template_statement(validated.name(), true);
            maintenance.batch_execute(&statement).await.map_err(|source| {
                Error::postgres(
                    format!("could not make the database \"{}\" a template", validated.name()),
                    source,
                )
            })?;
        }
        return Ok(false);
    };
    common::interrupt::check()?;
    if options.choices.own_slot.is_some() {
        // What is written there until the swap is saved for a replay.
        let (from, to) = (settings.with_database(live), settings.with_database(validated.name()));
        if let Err(error) = sequences_ahead::carry(&from, &to, sequences_ahead::MARGIN).await {
            progress.warn(format!("new rows may get keys of rows that are saved for a replay: {error}"));
        }
    }
    progress.phase(format!("giving the restored database the name \"{live}\""), None);
    let names =
        SwapNames { live: live.clone(), staged: validated.name().to_owned(), replaced: kept_as.clone() };
    let mut then = Vec::new();
    if is_template {
        then.push(template_statement(live, true));
    }
    // So that the replaced one can be dropped.
    let was = maintenance
        .query_opt("SELECT d.datistemplate FROM pg_catalog.pg_database d WHERE d.datname = $1", &[live])
        .await
        .map_err(|source| Error::postgres("could not look up the database", source))?;
    if was.is_some_and(|row| row.get(0)) {
        then.push(template_statement(kept_as, false));
    }
    let replaced = database::swap_and(settings, &names, &then).await?;
    progress.done();
    if plan.drop_replaced {
        // The restore has succeeded; a replaced database that is still there is not a failure of it.
        if let Err(error) = database::drop_database(maintenance, kept_as).await {
            progress.warn(format!("the replaced database \"{kept_as}\" could not be dropped: {error}"));
        }
    }
    Ok(replaced)
}
