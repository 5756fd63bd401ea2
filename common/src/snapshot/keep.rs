//! Which snapshots `backup prune` keeps, and why. Pure: the time and the facts come in, a decision with its reasons for
//! every snapshot comes out. Flags and meaning are restic's, per database.
//!
//! A snapshot of a part of a database stands in a group of its own, with those of the same part: it neither takes a whole
//! one's place in a rule nor counts for the floor of whole ones.
//!
//! What no rule may do, whatever the flags say:
//! - delete a snapshot that is pinned, needed by an unfinished run, damaged (a person should look), dated in the future (a
//!   clock was wrong), or from before a migration (unless asked to);
//! - leave fewer good snapshots of a database than the floor, of those that can be had. Verified ones count first.
//!
//! Of snapshots from before migrations that hold the same state one after another, only the newest is kept for that: runs that
//! changed nothing do not pile up.
//!
//! Buckets are hours, days, ISO weeks, months and years in the policy's time zone. `within` counts from the newest snapshot and not from
//! today: when backups stop, the old ones stay.

use std::{collections::BTreeMap, fmt, time::Duration};

use chrono::{DateTime, Datelike, Timelike, Utc};
use chrono_tz::Tz;

use super::{SnapshotId, manifest::Kind};

/// What to keep. Without any rule nothing is decided: see [`KeepPolicy::has_rules`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeepPolicy {
    /// The newest N.
    pub last: u32,
    /// The newest of each of the last N hours that have one.
    pub hourly: u32,
    /// The newest of each of the last N days that have one.
    pub daily: u32,
    /// The newest of each of the last N ISO weeks that have one.
    pub weekly: u32,
    /// The newest of each of the last N months that have one.
    pub monthly: u32,
    /// The newest of each of the last N years that have one.
    pub yearly: u32,
    /// All that are at most this much older than the newest.
    pub within: Option<Duration>,
    /// All with one of these tags.
    pub tags: Vec<(String, String)>,
    /// The floor: good snapshots of a database that stay, whatever the rules say.
    pub min: u32,
    /// Whether the rules also decide on snapshots from before migrations.
    pub include_pre_migration: bool,
    /// Where hours, days, weeks, months and years begin; UTC if nobody said so.
    pub zone: Option<Tz>,
}

impl KeepPolicy {
    /// Whether anything says what to keep; the floor alone does not.
    pub fn has_rules(&self) -> bool {
        [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly].iter().any(|n| *n > 0)
            || self.within.is_some()
            || !self.tags.is_empty()
    }
}

/// What is known about a snapshot's soundness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    /// Nobody has looked.
    Unverified,
    /// Its last verification succeeded.
    Verified,
    /// Its last verification failed, or its manifest can't be read.
    Damaged,
}

/// A snapshot to decide on.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: SnapshotId,
    /// Rules hold for each database on its own.
    pub database: String,
    /// The filters of a partial snapshot: it counts among those of the same part only, never for the whole database.
    pub part: Option<String>,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Why it was taken.
    pub kind: Kind,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What verifications say.
    pub soundness: Soundness,
    /// Why it may not be deleted at all: a pin, or a run that needs it.
    pub protection: Option<String>,
    /// What it holds, where somebody looked: two of the same state are as good as one.
    pub state: Option<String>,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A pin or an unfinished run.
    Protected(String),
    /// Not to be trusted, and not to be deleted unseen.
    Damaged,
    /// Newer than now.
    Future,
    /// From before a migration.
    PreMigration,
    /// The n-th newest.
    Last(u32),
    /// The newest of a period: the rule's name and the period, such as `daily` and `2026-11-21`.
    Period(&'static str, String),
    /// Recent enough.
    Within,
    /// Has the tag.
    Tag(String, String),
    /// One of the last good ones.
    Floor(u32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protected(why) => f.write_str(why),
            Self::Damaged => f.write_str("damaged: look at it, then delete it by hand"),
            Self::Future => f.write_str("dated in the future"),
            Self::PreMigration => f.write_str("from before a migration"),
            Self::Last(number) => write!(f, "last {number}"),
            Self::Period(rule, period) => write!(f, "{rule} {period}"),
            Self::Within => f.write_str("within"),
            Self::Tag(key, value) => write!(f, "tag {key}={value}"),
            Self::Floor(min) => write!(f, "floor of {min} good snapshots"),
        }
    }
}

/// What to do with a snapshot: it is kept if and only if there is a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its database.
    pub database: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Why it stays; empty means that it goes.
    pub reasons: Vec<Reason>,
    /// A newer one that holds the same state, and stays.
    pub same_as: Option<SnapshotId>,
}

impl Decision {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// All reasons in one line.
    pub fn describe(&self) -> String {
        if self.reasons.is_empty() {
            return match &self.same_as {
                Some(newer) => {
                    format!("from before a migration, with the same state as {newer}, which stays")
                }
                None => "no rule keeps it".to_owned(),
            };
        }
        self.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Decides on every candidate: by database, newest first.
pub fn plan(policy: &KeepPolicy, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Decision> {
    let mut databases: BTreeMap<(&str, Option<&str>), Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        databases.entry((&candidate.database, candidate.part.as_deref())).or_default().push(candidate);
    }
    databases.into_values().flat_map(|group| plan_database(policy, group, now)).collect()
}

fn plan_database(policy: &KeepPolicy, mut group: Vec<&Candidate>, now: DateTime<Utc>) -> Vec<Decision> {
    group.sort_by(|a, b| (b.taken_at, &b.id).cmp(&(a.taken_at, &a.id)));
    let same_as = repeated(policy, &group, now);
    let mut reasons: Vec<Vec<Reason>> = group
        .iter()
        .zip(&same_as)
        .map(|(candidate, same_as)| exemptions(policy, candidate, same_as.is_some(), now))
        .collect();
    // What rules count: a damaged one must not take a good one's place, nor one of a wrong clock a real one's. Pinned ones
    // are ordinary snapshots besides.
    let counted: Vec<usize> = (0..group.len())
        .filter(|&index| same_as[index].is_none())
        .filter(|&index| reasons[index].iter().all(|reason| matches!(reason, Reason::Protected(_))))
        .collect();
    apply_rules(policy, &group, &counted, &mut reasons);
    apply_floor(policy, &group, &mut reasons);
    let decide =
        |((candidate, reasons), same_as): ((&Candidate, Vec<Reason>), Option<SnapshotId>)| Decision {
            id: candidate.id.clone(),
            database: candidate.database.clone(),
            taken_at: candidate.taken_at,
            reasons,
            same_as,
        };
    group.into_iter().zip(reasons).zip(same_as).map(decide).collect()
}

/// Of each that is from before a migration, newest first: the newer one before a migration whose state is the same, with none of
/// another state between them. A damaged one, or one of a wrong clock, stands for no other, nor does one that was not verified stand
/// for one that was. What a tag of the policy keeps stays.
fn repeated(policy: &KeepPolicy, group: &[&Candidate], now: DateTime<Utc>) -> Vec<Option<SnapshotId>> {
    let mut newer: Option<&Candidate> = None;
    let mut same_as = vec![None; group.len()];
    for (index, candidate) in group.iter().enumerate() {
        let counts = candidate.kind == Kind::PreMigration
            && candidate.soundness != Soundness::Damaged
            && candidate.taken_at <= now;
        if policy.include_pre_migration || !counts {
            continue;
        }
        let is_named = policy.tags.iter().any(|(key, value)| candidate.tags.get(key) == Some(value));
        let stands_for = |newer: &&Candidate| {
            newer.state.is_some()
                && newer.state == candidate.state
                && (newer.soundness == Soundness::Verified || candidate.soundness != Soundness::Verified)
        };
        match newer.filter(stands_for) {
            Some(newer) if !is_named => same_as[index] = Some(newer.id.clone()),
            _ => newer = Some(candidate),
        }
    }
    same_as
}

fn exemptions(
    policy: &KeepPolicy,
    candidate: &Candidate,
    is_repeated: bool,
    now: DateTime<Utc>,
) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = candidate.protection.clone().map(Reason::Protected).into_iter().collect();
    if candidate.soundness == Soundness::Damaged {
        reasons.push(Reason::Damaged);
    }
    if candidate.taken_at > now {
        reasons.push(Reason::Future);
    }
    if candidate.kind == Kind::PreMigration && !policy.include_pre_migration && !is_repeated {
        reasons.push(Reason::PreMigration);
    }
    reasons
}

/// A rule's name, how many periods it keeps, and the period of a time.
type PeriodRule = (&'static str, u32, fn(DateTime<Tz>) -> String);

fn apply_rules(policy: &KeepPolicy, group: &[&Candidate], counted: &[usize], reasons: &mut [Vec<Reason>]) {
    for (number, &index) in (1..=policy.last).zip(counted) {
        reasons[index].push(Reason::Last(number));
    }
    let periods: [PeriodRule; 5] = [
        ("hourly", policy.hourly, |at| format!("{} {:02}h", at.date_naive(), at.hour())),
        ("daily", policy.daily, |at| at.date_naive().to_string()),
        ("weekly", policy.weekly, |at| format!("{}-W{:02}", at.iso_week().year(), at.iso_week().week())),
        ("monthly", policy.monthly, |at| format!("{}-{:02}", at.year(), at.month())),
        ("yearly", policy.yearly, |at| at.year().to_string()),
    ];
    let zone = policy.zone.unwrap_or(Tz::UTC);
    for (rule, limit, period_of) in periods {
        let mut seen = 0;
        let mut last = None;
        for &index in counted {
            let period = period_of(group[index].taken_at.with_timezone(&zone));
            if last.as_ref() == Some(&period) {
                continue;
            }
            if seen == limit {
                break;
            }
            seen += 1;
            reasons[index].push(Reason::Period(rule, period.clone()));
            last = Some(period);
        }
    }
    let newest = counted.first().map(|&index| group[index].taken_at);
    let limit = policy.within.and_then(|within| chrono::Duration::from_std(within).ok());
    for &index in counted {
        let is_within = match (policy.within, limit, newest) {
            (Some(_), Some(limit), Some(newest)) => newest - group[index].taken_at <= limit,
            // Longer than any calendar: everything is within.
            (Some(_), None, _) => true,
            _ => false,
        };
        if is_within {
            reasons[index].push(Reason::Within);
        }
        for (key, value) in &policy.tags {
            if group[index].tags.get(key) == Some(value) {
                reasons[index].push(Reason::Tag(key.clone(), value.clone()));
            }
        }
    }
}

/// Keeps the newest verified ones until the floor is reached, then, where verified ones are too few, the newest others.
fn apply_floor(policy: &KeepPolicy, group: &[&Candidate], reasons: &mut [Vec<Reason>]) {
    let counts = |index: usize, reasons: &[Vec<Reason>]| {
        group[index].soundness != Soundness::Damaged && !reasons[index].contains(&Reason::Future)
    };
    let floors: [&dyn Fn(usize) -> bool; 2] =
        [&|index| group[index].soundness == Soundness::Verified, &|_| true];
    for belongs in floors {
        let mut kept = (0..group.len())
            .filter(|&index| counts(index, reasons) && belongs(index) && !reasons[index].is_empty())
            .count();
        for index in 0..group.len() {
            if kept >= policy.min as usize {
                break;
            }
            if counts(index, reasons) && belongs(index) && reasons[index].is_empty() {
                reasons[index].push(Reason::Floor(policy.min));
                kept += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
