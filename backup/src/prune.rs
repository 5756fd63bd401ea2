//! `backup prune`: deletes what the keep rules do not keep. The decisions are `common::snapshot::keep`'s; here the facts are
//! gathered, the decisions shown, and carried out through the trash.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    Error, Result,
    cli::{
        Output, Settings,
        args::{parse_duration, parse_tag},
        output::Tone,
    },
    digest::sha256_hex,
    files::read_plain,
    format,
    ident::printable,
    repository::{Repository, StoredSnapshot},
    snapshot::{
        SnapshotId,
        keep::{self, Candidate, Decision, KeepPolicy, Soundness},
        manifest::{Kind, MAX_SCHEMA_BYTES, SCHEMA_FILE},
        simulate::{self, MOST_BACKUPS},
        state_of,
    },
};
use serde::Serialize;

use crate::{
    manage::{self, Facts},
    zone::parse_zone,
};

/// The floor, unless somebody says otherwise.
pub const KEEP_MIN: u32 = 3;

/// The keep rules, with restic's names and meaning; each database on its own.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Retention")]
pub struct KeepArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_last: u32,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_hourly: u32,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_daily: u32,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_weekly: u32,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_monthly: u32,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_yearly: u32,
    /// Keep all that are at most this much older than the newest, such as 14d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    keep_within: Option<Duration>,
    /// Keep all with this tag; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    keep_tag: Vec<(String, String)>,
    /// Never leave fewer good snapshots of a database than this, verified ones first, whatever the rules say
    #[arg(long, value_name = "N", default_value_t = KEEP_MIN)]
    keep_min: u32,
    /// Let the rules decide on snapshots from before migrations too [default: they are kept; of several one after another that hold
    /// the same state, the newest]
    #[arg(long)]
    include_pre_migration: bool,
}

impl KeepArgs {
    /// The policy that the flags say.
    pub fn policy(&self) -> KeepPolicy {
        KeepPolicy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
            tags: self.keep_tag.clone(),
            min: self.keep_min,
            include_pre_migration: self.include_pre_migration,
            zone: None,
        }
    }
}

/// Arguments of `backup prune`.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    keep: KeepArgs,
    /// Only snapshots of this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Where days, weeks and the like begin, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
    timezone: Option<Tz>,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave what is deleted in the trash for this long: `backup undelete` takes it back [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    trash_grace: Option<Duration>,
    /// Say what there would be if backups went on at their present pace for this long, each followed by this prune, and
    /// delete nothing
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "dry_run")]
    simulate: Option<Duration>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    database: String,
    time: DateTime<Utc>,
    keep: bool,
    reasons: Vec<String>,
    /// A newer one from before a migration that holds the same state, and stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    same_as: Option<String>,
}

#[derive(Serialize)]
struct Document {
    dry_run: bool,
    /// What deleting gives back: a file that a snapshot which stays shares is still there.
    freed_bytes: u64,
    decisions: Vec<Row>,
    damaged: Vec<String>,
}

/// Runs `backup prune`.
pub fn run(args: &PruneArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let policy = KeepPolicy { zone: args.timezone, ..args.keep.policy() };
    if !policy.has_rules() {
        return Err(Error::usage("no rule says what to keep")
            .with_hint("Give at least one, such as --keep-daily 7; try it with --dry-run first."));
    }
    let repository = Repository::open(&settings.repo)?;
    if let Some(time) = args.simulate {
        let (candidates, damaged) = candidates(&repository, args.database.as_deref())?;
        return simulated(&policy, &candidates, &damaged, time, output);
    }
    // Held from the look to the last rename: a deletion in between could break the floor.
    let alone = if args.dry_run {
        None
    } else {
        repository.sweep()?;
        Some(repository.lock_exclusive()?)
    };
    let now = Utc::now();
    let (candidates, damaged) = candidates(&repository, args.database.as_deref())?;
    let decisions = keep::plan(&policy, &candidates, now);
    let doomed: Vec<SnapshotId> =
        decisions.iter().filter(|decision| !decision.is_kept()).map(|decision| decision.id.clone()).collect();
    let freed_bytes = manage::freed(&repository, &doomed)?;
    if let Some(alone) = alone {
        let until = args.trash_grace.map_or(Ok(None), |grace| trash_until(grace, now).map(Some))?;
        for left in repository.remove_at(&alone, &doomed, until)? {
            output.warn(&format!("not removed yet, the next run sweeps it: {left}"));
        }
    }
    if output.is_json() {
        let decisions = decisions.iter().map(row).collect();
        let damaged = damaged.iter().map(ToString::to_string).collect();
        output.document(&Document { dry_run: args.dry_run, freed_bytes, decisions, damaged })?;
        return Ok(0);
    }
    if let (Some(database), true) = (&args.database, decisions.is_empty()) {
        let others = repository.list()?;
        if !others.is_empty() {
            output.say(&manage::none_of(database, &repository, &others));
            return Ok(0);
        }
    }
    output.data(&table(&decisions, args.dry_run))?;
    for id in damaged {
        output.warn(&format!("{id} is damaged and stays: look at it, then run `backup delete {id}`"));
    }
    let count = format::plural(doomed.len() as u64, "snapshot", "snapshots");
    let kept = decisions.len() - doomed.len();
    let word = if args.dry_run { "WOULD DELETE" } else { "DELETED" };
    let freed = format::bytes(freed_bytes);
    output.say(&format!("{} {count} ({freed}), {kept} kept", output.paint(Tone::Strong, word)));
    Ok(0)
}

/// What pruning did.
#[derive(Debug)]
pub struct Pruned {
    /// All decisions.
    pub decisions: Vec<Decision>,
    /// What was deleted.
    pub deleted: Vec<SnapshotId>,
    /// What could not be cleared away at once.
    pub left: Vec<String>,
}

/// Prunes the snapshots of one database: they lie in the trash for `grace` before they are gone.
///
/// # Errors
/// Busy while anybody else uses the repository.
pub fn prune_database(
    repository: &Repository,
    database: &str,
    policy: &KeepPolicy,
    grace: Duration,
    now: DateTime<Utc>,
) -> Result<Pruned> {
    repository.sweep()?;
    let alone = repository.lock_exclusive()?;
    let (candidates, _) = candidates(repository, Some(database))?;
    let decisions = keep::plan(policy, &candidates, now);
    let deleted: Vec<SnapshotId> =
        decisions.iter().filter(|decision| !decision.is_kept()).map(|decision| decision.id.clone()).collect();
    let until = if grace.is_zero() { None } else { Some(trash_until(grace, now)?) };
    let left = repository.remove_at(&alone, &deleted, until)?;
    repository.shorten_verifications(&alone)?;
    Ok(Pruned { decisions, deleted, left })
}

fn trash_until(grace: Duration, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    chrono::Duration::from_std(grace)
        .ok()
        .and_then(|grace| now.checked_add_signed(grace))
        .ok_or_else(|| Error::usage("--trash-grace is longer than any calendar"))
}

#[derive(Serialize)]
struct SimulatedRow {
    /// `null` for a backup that is still to come.
    id: Option<String>,
    database: String,
    time: DateTime<Utc>,
    keep: bool,
    /// When a prune would delete it.
    deleted_at: Option<DateTime<Utc>>,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct SimulatedDocument {
    simulated_until: DateTime<Utc>,
    /// Seconds between two backups of each database; `null` where there are not two to tell it from.
    pace_seconds: BTreeMap<String, Option<u64>>,
    snapshots: Vec<SimulatedRow>,
    damaged: Vec<String>,
}

/// `backup prune --simulate`.
fn simulated(
    policy: &KeepPolicy,
    candidates: &[Candidate],
    damaged: &[SnapshotId],
    time: Duration,
    output: &Output,
) -> Result<u8> {
    let now = Utc::now();
    let found = simulate::simulate(policy, candidates, now, time).map_err(|database| {
        let name = printable(&database);
        Error::usage(format!(
            "\"{name}\" is backed up too often for so long a time: over {MOST_BACKUPS} backups"
        ))
        .with_hint("Give a shorter time, such as --simulate 30d.")
    })?;
    let taken_at = |id: &SnapshotId| candidates.iter().find(|one| one.id == *id).map(|one| one.taken_at);
    let kept = found.survivors.iter().map(|survivor| {
        let Row { id, database, time, keep, reasons, .. } = row(&survivor.decision);
        SimulatedRow { id: survivor.exists.then_some(id), database, time, keep, deleted_at: None, reasons }
    });
    let deleted = found.deleted.iter().map(|gone| SimulatedRow {
        id: Some(gone.id.to_string()),
        database: gone.database.clone(),
        time: taken_at(&gone.id).unwrap_or(gone.at),
        keep: false,
        deleted_at: Some(gone.at),
        reasons: Vec::new(),
    });
    let mut snapshots: Vec<SimulatedRow> = kept.chain(deleted).collect();
    snapshots.sort_by(|a, b| (&a.database, b.time, &b.id).cmp(&(&b.database, a.time, &a.id)));
    if output.is_json() {
        let seconds =
            |(name, pace): (&String, &Option<Duration>)| (name.clone(), pace.map(|pace| pace.as_secs()));
        output.document(&SimulatedDocument {
            simulated_until: found.at,
            pace_seconds: found.pace.iter().map(seconds).collect(),
            snapshots,
            damaged: damaged.iter().map(ToString::to_string).collect(),
        })?;
        return Ok(0);
    }
    output.data(&simulated_table(&snapshots))?;
    for (database, pace) in &found.pace {
        let name = printable(database);
        output.say(&match pace {
            Some(pace) => format!("\"{name}\": a backup every {}", format::duration(*pace)),
            None => format!("\"{name}\": no two backups tell a pace, so none are added"),
        });
    }
    for id in damaged {
        output.warn(&format!("{id} is damaged and stays: look at it, then run `backup delete {id}`"));
    }
    let total = found.survivors.len() as u64;
    let today = found.survivors.iter().filter(|survivor| survivor.exists).count();
    output.say(&format!(
        "{} {} on {}, {today} of them there today; nothing was deleted",
        output.paint(Tone::Strong, "WOULD KEEP"),
        format::plural(total, "snapshot", "snapshots"),
        found.at.format("%Y-%m-%d"),
    ));
    Ok(0)
}

fn simulated_table(snapshots: &[SimulatedRow]) -> String {
    let rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|row| {
            let reason = match row.deleted_at {
                Some(at) => format!("no rule keeps it from {} on", at.format("%Y-%m-%d %H:%M:%SZ")),
                None => row.reasons.join(", "),
            };
            vec![
                if row.keep { "keep" } else { "delete" }.to_owned(),
                row.id.clone().unwrap_or_else(|| "(to come)".to_owned()),
                row.time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
                printable(&row.database),
                printable(&reason),
            ]
        })
        .collect();
    format::table(&["", "ID", "TIME", "DATABASE", "REASON"], &[false; 5], &rows)
}

/// Every snapshot that can be decided on, and the ids of those whose manifests can't be read.
fn candidates(repository: &Repository, database: Option<&str>) -> Result<(Vec<Candidate>, Vec<SnapshotId>)> {
    let facts = Facts::read(repository)?;
    let protections = repository.protections()?;
    let alarms = repository.alarms()?;
    let (mut candidates, mut damaged) = (Vec::new(), Vec::new());
    for entry in repository.list()? {
        let Ok(snapshot) = entry.snapshot else {
            damaged.push(entry.id);
            continue;
        };
        if database.is_some_and(|name| name != snapshot.manifest.database.name) {
            continue;
        }
        let state = state(&snapshot);
        let manifest = snapshot.manifest;
        let standing = facts.standing(&entry.id);
        candidates.push(Candidate {
            protection: protections.of(&entry.id, Some(&manifest)).map(|why| why.to_string()).or_else(|| {
                let alarm = alarms.iter().find(|alarm| alarm.holds(&manifest.database.name))?;
                Some(format!("held by the alarm of {}: look, then `backup acknowledge` it", alarm.id))
            }),
            id: entry.id,
            database: manifest.database.name,
            part: manifest.partial.map(|partial| partial.filters.to_string()),
            taken_at: manifest.taken_at,
            kind: manifest.kind,
            tags: manifest.tags,
            state,
            soundness: if standing.is_bad() {
                Soundness::Damaged
            } else if standing.is_good() {
                Soundness::Verified
            } else {
                Soundness::Unverified
            },
        });
    }
    Ok((candidates, damaged))
}

/// What a snapshot from before a migration holds: only of those is it asked. One whose archive can't be read, or is not the one
/// that was written, is like no other.
fn state(snapshot: &StoredSnapshot) -> Option<String> {
    let manifest = &snapshot.manifest;
    let entry = manifest.files.iter().find(|file| file.path == SCHEMA_FILE)?;
    if manifest.kind != Kind::PreMigration {
        return None;
    }
    let archive = read_plain(&snapshot.path(SCHEMA_FILE), entry.bytes.min(MAX_SCHEMA_BYTES)).ok()?;
    (sha256_hex(&archive) == entry.sha256).then(|| state_of(manifest, &archive)).flatten()
}

fn row(decision: &Decision) -> Row {
    Row {
        id: decision.id.to_string(),
        database: decision.database.clone(),
        time: decision.taken_at,
        keep: decision.is_kept(),
        reasons: decision.reasons.iter().map(ToString::to_string).collect(),
        same_as: decision.same_as.as_ref().map(ToString::to_string),
    }
}

fn table(decisions: &[Decision], is_dry_run: bool) -> String {
    let rows: Vec<Vec<String>> = decisions
        .iter()
        .map(|decision| {
            let verb = match (decision.is_kept(), is_dry_run) {
                (true, _) => "keep",
                (false, true) => "delete",
                (false, false) => "deleted",
            };
            vec![
                verb.to_owned(),
                decision.id.to_string(),
                decision.taken_at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
                printable(&decision.database),
                printable(&decision.describe()),
            ]
        })
        .collect();
    format::table(&["", "ID", "TIME", "DATABASE", "REASON"], &[false; 5], &rows)
}
