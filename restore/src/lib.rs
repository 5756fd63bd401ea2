//! Brings a snapshot back. The flow on one screen:
//!
//! open → verify → `VerifiedSnapshot` → preflight → `RestorePlan` → new database from template0 → pre-data → parallel COPY
//! in → post-data → sequences, views, ANALYZE → rows and content against the manifest → `ValidatedDatabase` → both renames
//! in one transaction.
//!
//! Until that commit the live database is untouched, and after it the replaced one still exists under another name.

pub mod archive;
pub mod broken_rules;
pub mod bundle;
pub mod cli;
pub mod collation;
mod collisions;
mod column_marks;
pub mod compare;
pub mod copy_in;
pub mod differences;
mod encoding;
pub mod event_triggers;
pub mod extension_tables;
pub mod extensions;
pub mod facts;
mod gate;
pub mod grants;
mod left_behind;
pub mod lent_paths;
mod lent_tables;
pub mod load;
pub mod maintain;
mod make_owned;
pub mod missing;
pub mod owned;
pub mod owners;
pub mod parts;
mod passes;
pub mod plan;
pub mod preflight;
pub mod role_map;
mod rule_settings;
pub mod sequences_ahead;
pub mod stage;
pub mod tablespaces;

use std::collections::HashSet;

use chrono::Utc;
use common::{
    Account, Error, ErrorKind, Progress, Result, Verdict,
    files::read_plain_text,
    ident::printable,
    postgres::{
        ConnectionSettings, Secret, Session,
        database::{self, SwapNames},
        role_passwords, tools,
    },
    repository::{
        StoredSnapshot,
        verify::{Depth, VerifiedSnapshot, verify},
    },
    snapshot::{Manifest, manifest::GLOBALS_FILE, readme},
};
use serde::Serialize;

pub use differences::LostRows;
pub use facts::Choices;
use load::Spent;
use missing::MissingObject;
pub use plan::{RestorePlan, Target};
use stage::{FillOptions, Found, StagedDatabase, ValidatedDatabase};

/// How to restore.
#[derive(Debug, Clone)]
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
    /// Grants that could not be taken back: somebody may do more than in the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_grants: Vec<String>,
    /// Objects that belong to another role than in the snapshot, as phrases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_owners: Vec<String>,
    /// Objects of the snapshot that the database lacks. It has then not taken the place of another, unless that was wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingObject>,
    /// What else is not as in the snapshot, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// What of the differences the rows decided: of a trial with some of the rows, what is known for certain.
    #[serde(skip)]
    pub by_rows: Vec<String>,
    /// Those of the differences that are rows which the snapshot does not hold.
    #[serde(skip)]
    pub lost_rows: Vec<LostRows>,
    /// What could not be compared with the snapshot, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// Under which name the replaced database still exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_as: Option<String>,
    /// How long it took, seconds.
    pub seconds: f64,
    /// What the connections did for how long, all of them together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Spent>,
}

impl RestoreReport {
    /// How it ended, in a word.
    pub fn verdict(&self) -> Verdict {
        if self.missing.is_empty() { Verdict::Restored } else { Verdict::RestoredWithMissing }
    }

    /// Everything that the verdict does not vouch for, one sentence each. What is said of the database goes by this: nothing
    /// that is here may be left out of a verdict.
    pub fn account(&self) -> Account {
        let sentence = |head: &'static str| move |phrase: &String| format!("{head} {phrase}");
        let differs = self
            .missing_grants
            .iter()
            .map(sentence("the role may not grant"))
            .chain(self.extra_grants.iter().map(sentence("the role may not take back")))
            .chain(self.other_owners.iter().cloned())
            .chain(self.differences.iter().cloned());
        Account {
            missing: self.missing.iter().map(MissingObject::line).collect(),
            not_checked: self.not_checked.clone(),
            differs: differs.collect(),
        }
    }

    /// For an undo: says of the roles that were gone and had to be made that they are not all that they were.
    pub fn account_for_made_roles(&mut self) {
        self.differences.extend(self.plan.create_roles.iter().map(|role| {
            format!(
                "the role \"{}\" was gone and was made again, without its password and its members",
                printable(role)
            )
        }));
    }

    /// The verdict on a live database, as a sentence's end: `is as it was before`.
    pub fn as_before(&self) -> String {
        let account = self.account();
        match account.is_whole() {
            true => "is as it was before".to_owned(),
            false => format!("has its rows of before{}", account.but()),
        }
    }
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
    create_roles(maintenance, snapshot.snapshot(), &plan).await?;
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
                put_in_place(settings, maintenance, validated, plan, options, progress)
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

/// Makes the roles that the plan lists. They stay, whatever becomes of the restore.
/// Plans to make the roles that are gone since the plan was made: roles belong to the server, and the command of a run may have dropped
/// or renamed one.
///
/// # Errors
/// The server can't be asked.
pub async fn plan_gone_roles(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    plan: &mut RestorePlan,
) -> Result<()> {
    let there: HashSet<String> = maintenance
        .query("SELECT rolname::text FROM pg_catalog.pg_roles", &[])
        .await
        .map_err(|source| Error::postgres("could not list the roles", source))?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let roles = snapshot.manifest.roles.iter().map(|role| role.name.clone());
    plan.create_roles = roles.filter(|role| !there.contains(role)).collect();
    Ok(())
}

async fn create_roles(maintenance: &Session, snapshot: &StoredSnapshot, plan: &RestorePlan) -> Result<()> {
    let manifest = &snapshot.manifest;
    let missing: Vec<_> =
        manifest.roles.iter().filter(|role| plan.create_roles.contains(&role.name)).collect();
    let memberships = missing.iter().flat_map(|role| {
        let mut role = (*role).clone();
        for (group, _) in &mut role.member_of {
            *group = role_map::mapped(&plan.map_roles, group).to_owned();
        }
        readme::membership_statements(&role)
    });
    let statements = missing.iter().flat_map(|role| readme::role_statements(role)).chain(memberships);
    for statement in statements {
        maintenance.batch_execute(&statement).await.map_err(|source| {
            Error::postgres("could not make the missing roles", source)
                .with_hint(
                    "Make them by hand (globals.sql in the snapshot has the statements), or use --no-owner.",
                )
                .with_database_state("No database was changed.")
        })?;
    }
    if manifest.role_passwords && !missing.is_empty() {
        set_passwords(maintenance, snapshot, missing.iter().map(|role| role.name.as_str())).await?;
    }
    Ok(())
}

/// The server's own words may hold the password.
fn password_not_set(role: &str, code: &str) -> Error {
    Error::failed(format!("could not set the password of the role \"{}\" ({code})", printable(role)))
        .with_hint("Set it by hand: globals.sql in the snapshot has the statement.")
        .with_database_state("No database was changed; the missing roles were made.")
}

/// Gives roles that were just made the passwords of the snapshot. The statements are in no message of ours; where the role
/// may say so, the server does not log them either.
async fn set_passwords(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    roles: impl Iterator<Item = &str>,
) -> Result<()> {
    let path = snapshot.path(GLOBALS_FILE);
    let globals = Secret::new(read_plain_text(&path).map_err(|source| Error::io("read", &path, source))?);
    let logging =
        ["log_statement = 'none'", "log_min_duration_statement = -1", "log_min_error_statement = 'panic'"];
    for setting in logging {
        // Only a superuser may.
        let _ = maintenance.batch_execute(&format!("SET {setting}")).await;
    }
    for role in roles {
        let Some(statement) = role_passwords::find(&globals, role).map_err(|error| {
            error.with_database_state("No database was changed; the missing roles were made.")
        })?
        else {
            continue;
        };
        maintenance.batch_execute(statement.expose()).await.map_err(|source| {
            let code = source.code().map_or("connection lost", |code| code.code()).to_owned();
            password_not_set(role, &code)
        })?;
    }
    for setting in logging {
        let name = setting.split(' ').next().unwrap_or_default();
        let _ = maintenance.batch_execute(&format!("RESET {name}")).await;
    }
    Ok(())
}

/// Swaps the names if the plan says so; whether another database had the name before.
async fn put_in_place(
    settings: &ConnectionSettings,
    maintenance: &Session,
    validated: ValidatedDatabase,
    plan: &RestorePlan,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<bool> {
    let (Some(live), Some(kept_as)) = (&plan.replaces, &plan.kept_as) else { return Ok(false) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_the_server_does_not_take_is_told_without_it() {
        let error = password_not_set("app", "22023");
        assert_eq!(error.message(), "could not set the password of the role \"app\" (22023)");
        assert_eq!(error.hint(), Some("Set it by hand: globals.sql in the snapshot has the statement."));
    }
}
