//! `backup pin`, `unpin` and `delete`, and the log of verifications.

use chrono::Utc;
use common::{
    Result,
    cli::{Output, Settings, format, output::Tone},
    postgres::ConnectionSettings,
    repository::{
        ExclusiveLock, Listed, Repository,
        pins::Pin,
        sharing::Sharing,
        verifications::{How, Verification},
    },
    snapshot::SnapshotId,
};
use serde::Serialize;

pub use common::cli::facts::Facts;

/// Arguments of `backup pin`.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// Ids, unique starts of ids, latest, or latest:tag=value
    #[arg(required = true, value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Say why, for whoever wants to delete it one day
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Arguments of `backup unpin`.
#[derive(Debug, clap::Args)]
pub struct UnpinArgs {
    /// Ids, unique starts of ids, latest, or latest:tag=value
    #[arg(required = true, value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
}

/// Arguments of `backup delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Ids or unique starts of ids
    #[arg(required = true, value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
}

/// Appends to the verification log; a repository that can't be written is no reason to fail a verification.
pub fn record(repository: &Repository, id: &SnapshotId, how: How, seconds: f64, ok: bool, output: &Output) {
    let line = Verification { id: id.clone(), at: Utc::now(), how, seconds, ok };
    if let Err(error) = repository.record_verification(&line) {
        output.warn(&format!("the verification is not in the log: {error}"));
    }
}

fn find_all(repository: &Repository, settings: &Settings, wanted: &[String]) -> Result<Vec<Listed>> {
    let connection = if settings.names_database() { Some(settings.connection()?) } else { None };
    let database = connection.as_ref().map(ConnectionSettings::database);
    let mut found: Vec<Listed> = Vec::new();
    for wanted in wanted {
        let entry = repository.find_entry(wanted, database)?;
        if found.iter().all(|other| other.id != entry.id) {
            found.push(entry);
        }
    }
    Ok(found)
}

#[derive(Serialize)]
struct Changed<'a> {
    done: &'a str,
    snapshots: Vec<&'a str>,
}

fn report(done: &str, word: &str, ids: &[SnapshotId], output: &Output) -> Result<u8> {
    if output.is_json() {
        output.document(&Changed { done, snapshots: ids.iter().map(SnapshotId::as_str).collect() })?;
    } else {
        for id in ids {
            output.say(&format!("{} {id}", output.paint(Tone::Good, word)));
        }
    }
    Ok(0)
}

/// Runs `backup pin`.
pub fn pin(args: &PinArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    let found = find_all(&repository, settings, &args.snapshots)?;
    let pin = Pin { at: Some(Utc::now()), note: args.note.clone() };
    let ids: Vec<SnapshotId> = found.into_iter().map(|entry| entry.id).collect();
    for id in &ids {
        repository.pin(id, &pin)?;
    }
    report("pinned", "PINNED  ", &ids, output)
}

/// Runs `backup unpin`.
pub fn unpin(args: &UnpinArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    let found = find_all(&repository, settings, &args.snapshots)?;
    let ids: Vec<SnapshotId> = found.into_iter().map(|entry| entry.id).collect();
    for id in &ids {
        if !repository.unpin(id)? {
            output.say(&format!("{id} was not pinned"));
        }
    }
    report("unpinned", "UNPINNED", &ids, output)
}

/// Runs `backup delete`.
pub fn delete(args: &DeleteArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    let found = find_all(&repository, settings, &args.snapshots)?;
    for entry in &found {
        let what = match &entry.snapshot {
            Ok(snapshot) => format!(
                "of \"{}\", {}, {}",
                common::ident::printable(&snapshot.manifest.database.name),
                format::plural(snapshot.manifest.rows(), "row", "rows"),
                format::bytes(snapshot.manifest.stored_bytes())
            ),
            Err(_) => "damaged".to_owned(),
        };
        output.say(&format!("{}  {what}", entry.id));
    }
    let ids: Vec<SnapshotId> = found.iter().map(|entry| entry.id.clone()).collect();
    output.say(&format!("frees {}", format::bytes(freed(&repository, &ids)?)));
    // A refusal that needs no question comes before the question; `remove` looks again under its lock.
    let protections = repository.protections()?;
    let is_protected = found.iter().any(|entry| {
        let manifest = entry.snapshot.as_ref().ok().map(|snapshot| &snapshot.manifest);
        protections.of(&entry.id, manifest).is_some()
    });
    if !is_protected {
        let count = format::plural(ids.len() as u64, "snapshot", "snapshots");
        output.confirm_typed(&format!("Delete {count} for good? Type yes to go on:"), "yes")?;
    }
    repository.sweep()?;
    remove(&repository, &repository.lock_exclusive()?, &ids, output)?;
    report("deleted", "DELETED ", &ids, output)
}

/// Bytes that deleting these snapshots gives back: files that others share stay.
pub fn freed(repository: &Repository, ids: &[SnapshotId]) -> Result<u64> {
    if ids.is_empty() {
        return Ok(0);
    }
    let listed = repository.list()?;
    Ok(Sharing::read(listed.iter().filter_map(|entry| entry.snapshot.as_ref().ok())).freed_by(ids))
}

/// Deletes snapshots and says what could not be cleared away at once.
pub fn remove(
    repository: &Repository,
    alone: &ExclusiveLock,
    ids: &[SnapshotId],
    output: &Output,
) -> Result<()> {
    for left in repository.remove(alone, ids)? {
        output.warn(&format!("not removed yet, the next run sweeps it: {left}"));
    }
    Ok(())
}
