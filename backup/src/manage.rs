//! `backup pin`, `unpin` and `delete`, and the log of verifications.

use chrono::{DateTime, Utc};
use common::{
    Error, ErrorKind, Result,
    cli::{Output, Settings, output::Tone},
    format,
    postgres::ConnectionSettings,
    repository::{
        ExclusiveLock, Listed, Repository, StoredSnapshot,
        alarms::{Acknowledgement, Alarm},
        pins::Pin,
        sharing::Sharing,
        verifications::{How, Verification},
    },
    snapshot::SnapshotId,
};
use serde::Serialize;

pub use common::cli::facts::Facts;

/// That there is no snapshot of a database, and which others there are.
pub(crate) fn none_of(database: &str, repository: &Repository, others: &[Listed]) -> String {
    let mut names: Vec<String> = others
        .iter()
        .filter_map(|entry| entry.snapshot.as_ref().ok())
        .map(|found| common::ident::printable(&found.manifest.database.name))
        .collect();
    names.sort();
    names.dedup();
    let of =
        if names.is_empty() { "which can't be read".to_owned() } else { format!("of {}", names.join(", ")) };
    format!(
        "No snapshot of the database \"{}\" in {}; there are {} {of}.",
        common::ident::printable(database),
        repository.root().display(),
        others.len()
    )
}

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
    pub(crate) snapshots: Vec<String>,
}

/// Arguments of `backup acknowledge`.
#[derive(Debug, clap::Args)]
pub struct AcknowledgeArgs {
    /// The id of the snapshot that raised the alarm, or a unique start of it
    #[arg(value_name = "SNAPSHOT", requires = "why")]
    snapshot: Option<String>,
    /// Say why it is no loss, or what was done
    #[arg(long, value_name = "TEXT", requires = "snapshot")]
    why: Option<String>,
    /// Say who looked [default: the user]
    #[arg(long, value_name = "NAME", requires = "snapshot")]
    who: Option<String>,
}

/// Arguments of `backup undelete`.
#[derive(Debug, clap::Args)]
pub struct UndeleteArgs {
    /// Ids or unique starts of ids
    #[arg(value_name = "SNAPSHOT")]
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

/// Runs `backup acknowledge`.
pub fn acknowledge(args: &AcknowledgeArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    let (Some(wanted), Some(why)) = (&args.snapshot, &args.why) else {
        return list_alarms(&repository.alarms()?, output);
    };
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let who = args.who.clone().or_else(|| environment("SUDO_USER")).or_else(|| environment("USER"));
    let acknowledgement = Acknowledgement {
        who: who.unwrap_or_else(|| "unknown".to_owned()),
        at: Utc::now(),
        why: why.clone(),
    };
    let alarm = repository.acknowledge(wanted, acknowledgement)?;
    if output.is_json() {
        output.document(&alarm)?;
    } else {
        output.say(&format!("{} {}", output.paint(Tone::Good, "ACKNOWLEDGED"), alarm.id));
        let database = alarm.database.as_deref().unwrap_or_default();
        let left = repository.alarms()?.iter().filter(|alarm| alarm.holds(database)).count();
        let database = common::ident::printable(database);
        output.say(&match left {
            0 => format!("             the next verified snapshot of \"{database}\" prunes again"),
            left => format!(
                "             {} of \"{database}\" still open",
                format::plural(left as u64, "alarm is", "alarms are")
            ),
        });
    }
    Ok(0)
}

fn list_alarms(alarms: &[Alarm], output: &Output) -> Result<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        alarms: &'a [Alarm],
    }
    if output.is_json() {
        output.document(&Document { alarms })?;
        return Ok(0);
    }
    if alarms.is_empty() {
        output.say("No alarm was ever raised.");
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = alarms
        .iter()
        .map(|alarm| {
            let state = alarm.acknowledged.as_ref().map_or("OPEN".to_owned(), |said| {
                format!("{} {}: {}", said.at.format("%Y-%m-%d %H:%MZ"), said.who, said.why)
            });
            vec![
                alarm.id.to_string(),
                alarm.database.as_deref().map_or("-".to_owned(), common::ident::printable),
                common::ident::printable(&alarm.findings.join("; ")),
                common::ident::printable(&state),
            ]
        })
        .collect();
    output.data(&format::table(&["SNAPSHOT", "DATABASE", "FOUND", "ACKNOWLEDGED"], &[false; 4], &rows))?;
    Ok(0)
}

/// Runs `backup undelete`.
pub fn undelete(args: &UndeleteArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    let trash = repository.trash()?;
    if args.snapshots.is_empty() {
        #[derive(Serialize)]
        struct Row {
            id: String,
            until: DateTime<Utc>,
        }
        #[derive(Serialize)]
        struct Document {
            trash: Vec<Row>,
        }
        if output.is_json() {
            let trash = trash.into_iter().map(|(id, until)| Row { id: id.to_string(), until }).collect();
            output.document(&Document { trash })?;
        } else if trash.is_empty() {
            output.say("The trash is empty.");
        } else {
            let rows: Vec<Vec<String>> = trash
                .iter()
                .map(|(id, until)| vec![id.to_string(), until.format("%Y-%m-%d %H:%M:%SZ").to_string()])
                .collect();
            output.data(&format::table(&["ID", "GONE AFTER"], &[false; 2], &rows))?;
        }
        return Ok(0);
    }
    let alone = repository.lock_exclusive()?;
    let mut ids = Vec::new();
    for wanted in &args.snapshots {
        let mut found = trash.iter().filter(|(id, _)| id.as_str().starts_with(wanted.as_str()));
        match (found.next(), found.next()) {
            (Some((id, _)), None) => ids.push(id.clone()),
            (found, _) => {
                let wanted = common::ident::printable(wanted);
                let message = if found.is_some() {
                    format!("\"{wanted}\" is the start of several ids in the trash")
                } else {
                    format!("no snapshot \"{wanted}\" is in the trash")
                };
                return Err(Error::new(ErrorKind::NoSuchSnapshot, message)
                    .with_hint("Run `backup undelete` without an id to see what is there."));
            }
        }
    }
    for id in &ids {
        repository.undelete(&alone, id)?;
    }
    report("undeleted", "UNDELETED", &ids, output)
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

/// The snapshot that a person names, and that is whole.
pub(crate) fn find(settings: &Settings, wanted: &str) -> Result<StoredSnapshot> {
    let entry = find_entry(settings, wanted)?;
    entry.snapshot.map_err(|error| error.context(entry.id))
}

/// As [`find`], a damaged one too.
pub(crate) fn find_entry(settings: &Settings, wanted: &str) -> Result<Listed> {
    let repository = Repository::open(&settings.repo)?;
    let database = if settings.names_database() { Some(settings.connection()?) } else { None };
    repository.find_entry(wanted, database.as_ref().map(ConnectionSettings::database))
}
