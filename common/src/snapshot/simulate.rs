//! What keep rules would leave if backups went on at their present pace. Pure: nothing is read, nothing is deleted.
//!
//! Every backup to come is followed by a prune, as a schedule does it; so a rule that deletes today what another rule would
//! have wanted next month shows here. Snapshots of before migrations come at no pace and are not made up.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};

use super::{
    SnapshotId,
    keep::{Candidate, Decision, KeepPolicy, Soundness, plan},
    manifest::Kind,
};

/// How many of the newest intervals the pace is taken from: enough that one missed night does not show.
const INTERVALS: usize = 14;
/// Most backups that are made up for one database; a year of backups every hour has 8,766.
pub const MOST_BACKUPS: u64 = 10_000;

/// What would be at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// The end.
    pub at: DateTime<Utc>,
    /// For each database, and each part of one that is backed up alone, the time between two backups; `None` where there are not two to tell it from.
    pub pace: BTreeMap<String, Option<Duration>>,
    /// What is there at the end, each with its reasons: by database, newest first.
    pub survivors: Vec<Survivor>,
    /// What is there today and would be deleted on the way, in the order of deletion.
    pub deleted: Vec<Deleted>,
}

/// A snapshot that is there at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The decision at the end.
    pub decision: Decision,
    /// Whether it is there today.
    pub exists: bool,
}

/// A snapshot of today that is gone at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Its id.
    pub id: SnapshotId,
    /// Its database.
    pub database: String,
    /// The prune that deletes it.
    pub at: DateTime<Utc>,
}

/// Plays backups and prunes from `now` on for `time`.
///
/// # Errors
/// The name of a database whose pace would need more than [`MOST_BACKUPS`] backups.
pub fn simulate(
    policy: &KeepPolicy,
    candidates: &[Candidate],
    now: DateTime<Utc>,
    time: Duration,
) -> Result<Simulation, String> {
    // Snapshots of a part of a database have a pace of their own, as they have a group of their own when it is pruned.
    let mut groups: BTreeMap<(&str, Option<&str>), Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry((&candidate.database, candidate.part.as_deref())).or_default().push(candidate.clone());
    }
    // Farther than any calendar is the calendar's end.
    let end = chrono::Duration::from_std(time)
        .ok()
        .and_then(|time| now.checked_add_signed(time))
        .unwrap_or(DateTime::<Utc>::MAX_UTC);
    let mut simulation =
        Simulation { at: end, pace: BTreeMap::new(), survivors: Vec::new(), deleted: Vec::new() };
    for ((database, part), group) in groups {
        let pace = pace(&group, now);
        let name = part.map_or_else(|| database.to_owned(), |part| format!("{database} ({part})"));
        if pace.is_some_and(|pace| time.as_nanos() / pace.as_nanos() > u128::from(MOST_BACKUPS)) {
            return Err(name);
        }
        simulation.pace.insert(name, pace);
        play(policy, (database, part), group, pace, now, &mut simulation);
    }
    simulation.deleted.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    Ok(simulation)
}

/// Plays one database's backups and prunes, and adds what comes of them.
fn play(
    policy: &KeepPolicy,
    (database, part): (&str, Option<&str>),
    mut group: Vec<Candidate>,
    pace: Option<Duration>,
    now: DateTime<Utc>,
    simulation: &mut Simulation,
) {
    let end = simulation.at;
    let today: Vec<SnapshotId> = group.iter().map(|candidate| candidate.id.clone()).collect();
    let mut due = due(&group, pace, now);
    let mut clock = now;
    let mut number = 0;
    loop {
        let decisions = plan(policy, &group, clock);
        for decision in decisions.iter().filter(|decision| !decision.is_kept()) {
            group.retain(|candidate| candidate.id != decision.id);
            if today.contains(&decision.id) {
                let (id, database) = (decision.id.clone(), decision.database.clone());
                simulation.deleted.push(Deleted { id, database, at: clock });
            }
        }
        if clock == end {
            let kept = decisions.into_iter().filter(Decision::is_kept);
            let survivors = kept.map(|decision| Survivor { exists: today.contains(&decision.id), decision });
            simulation.survivors.extend(survivors);
            return;
        }
        match (due, pace) {
            (Some(next), Some(pace)) if next <= end => {
                clock = next;
                due = later(next, pace);
                number += 1;
                group.push(Candidate {
                    // The number only tells it from the others of its second.
                    id: SnapshotId::new(next, database, number),
                    database: database.to_owned(),
                    part: part.map(str::to_owned),
                    taken_at: next,
                    kind: Kind::Scheduled,
                    tags: BTreeMap::new(),
                    soundness: Soundness::Unverified,
                    protection: None,
                    state: None,
                });
            }
            _ => clock = end,
        }
    }
}

/// When the backups were taken that are of the pace, oldest first.
fn regular(group: &[Candidate], now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let counts = |candidate: &&Candidate| candidate.kind != Kind::PreMigration && candidate.taken_at <= now;
    let mut times: Vec<DateTime<Utc>> = group.iter().filter(counts).map(|one| one.taken_at).collect();
    times.sort_unstable();
    times
}

/// The median of the newest intervals, in whole seconds: two backups within one second are one.
fn pace(group: &[Candidate], now: DateTime<Utc>) -> Option<Duration> {
    let times = regular(group, now);
    let mut intervals: Vec<u64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).num_seconds().unsigned_abs())
        .filter(|seconds| *seconds > 0)
        .collect();
    let newest = intervals.len().saturating_sub(INTERVALS);
    let intervals = intervals.get_mut(newest..)?;
    intervals.sort_unstable();
    intervals.get(intervals.len() / 2).map(|seconds| Duration::from_secs(*seconds))
}

/// When the next backup is due; one that is late comes at once.
fn due(group: &[Candidate], pace: Option<Duration>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let newest = *regular(group, now).last()?;
    later(newest, pace?).map(|next| next.max(now))
}

fn later(time: DateTime<Utc>, by: Duration) -> Option<DateTime<Utc>> {
    time.checked_add_signed(chrono::Duration::from_std(by).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::keep::Reason;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(hours: i64) -> DateTime<Utc> {
        // 2026-11-18 03:00 UTC
        DateTime::from_timestamp(1_794_970_800 + hours * 3600, 0).unwrap()
    }

    fn candidate(number: u64, taken_at: DateTime<Utc>, kind: Kind) -> Candidate {
        Candidate {
            id: SnapshotId::new(taken_at, "shop", number),
            part: None,
            database: "shop".into(),
            taken_at,
            kind,
            tags: BTreeMap::new(),
            soundness: Soundness::Unverified,
            protection: None,
            state: None,
        }
    }

    fn daily(count: i64) -> Vec<Candidate> {
        (0..count).map(|n| candidate(n.unsigned_abs(), at(-24 * n), Kind::Scheduled)).collect()
    }

    fn policy() -> KeepPolicy {
        KeepPolicy { daily: 7, weekly: 5, monthly: 3, min: 3, ..KeepPolicy::default() }
    }

    #[test]
    fn daily_backups_of_ninety_days_leave_what_the_rules_promise() {
        let found = simulate(&policy(), &daily(10), at(1), 90 * DAY).unwrap();
        assert_eq!(found.pace["shop"], Some(DAY));
        let lines: Vec<String> = found
            .survivors
            .iter()
            .map(|one| format!("{} {}", one.decision.taken_at.format("%m-%d"), one.decision.describe()))
            .collect();
        assert_eq!(
            lines,
            [
                "02-16 daily 2027-02-16, weekly 2027-W07, monthly 2027-02",
                "02-15 daily 2027-02-15",
                "02-14 daily 2027-02-14, weekly 2027-W06",
                "02-13 daily 2027-02-13",
                "02-12 daily 2027-02-12",
                "02-11 daily 2027-02-11",
                "02-10 daily 2027-02-10",
                "02-07 weekly 2027-W05",
                "01-31 weekly 2027-W04, monthly 2027-01",
                "01-24 weekly 2027-W03",
                "12-31 monthly 2026-12",
            ]
        );
        assert!(found.survivors.iter().all(|one| !one.exists));
        assert_eq!(found.deleted.len(), 10, "all of today's are gone by then");
        assert!(found.deleted.is_sorted_by_key(|one| one.at));
    }

    #[test]
    fn what_no_rule_may_delete_survives_and_makes_no_pace() {
        let mut all = daily(3);
        all[2].protection = Some("pinned".into());
        all.push(candidate(9, at(-30), Kind::PreMigration));
        let found = simulate(&policy(), &all, at(1), 200 * DAY).unwrap();
        let old: Vec<&Survivor> = found.survivors.iter().filter(|one| one.exists).collect();
        assert_eq!(old.len(), 2);
        assert_eq!(old[0].decision.reasons, [Reason::PreMigration]);
        assert_eq!(old[1].decision.reasons, [Reason::Protected("pinned".into())]);
    }

    #[test]
    fn where_backups_have_no_pace_time_alone_deletes_nothing_more_than_a_prune_today() {
        let one = daily(1);
        let found = simulate(&policy(), &one, at(1), 900 * DAY).unwrap();
        assert_eq!(found.pace["shop"], None);
        assert_eq!(found.survivors.len(), 1);
        assert!(found.survivors[0].exists && found.deleted.is_empty());
        assert!(simulate(&policy(), &[], at(1), DAY).unwrap().survivors.is_empty());
    }

    #[test]
    fn one_missed_night_does_not_change_the_pace_and_a_late_backup_comes_at_once() {
        let mut all = daily(10);
        all.remove(4);
        assert_eq!(pace(&all, at(1)), Some(DAY));
        assert_eq!(due(&all, Some(DAY), at(100)), Some(at(100)));
    }

    #[test]
    fn a_pace_that_would_take_for_ever_is_refused_by_name() {
        let all: Vec<Candidate> = (0i64..3)
            .map(|n| candidate(n.unsigned_abs(), at(0) - chrono::Duration::seconds(n), Kind::Manual))
            .collect();
        assert_eq!(simulate(&policy(), &all, at(1), 90 * DAY).unwrap_err(), "shop");
        assert!(simulate(&policy(), &daily(3), at(1), Duration::MAX).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost_or_made_up_of_today(
            hours in prop::collection::btree_set(1i64..2000, 0..25), days in 0u32..60, last in 0u32..4, daily in 0u32..4, min in 0u32..4,
        ) {
            let all: Vec<Candidate> = hours.iter().zip(0..).map(|(h, n)| candidate(n, at(-h), Kind::Manual)).collect();
            let policy = KeepPolicy { last, daily, min, ..KeepPolicy::default() };
            // An hour's pace for two months is within the bound.
            let found = simulate(&policy, &all, at(0), days * DAY).unwrap();
            let survived = found.survivors.iter().filter(|one| one.exists).count();
            prop_assert_eq!(survived + found.deleted.len(), all.len());
            prop_assert!(found.survivors.iter().all(|one| one.decision.is_kept() && one.decision.taken_at <= found.at));
            prop_assert!(found.survivors.len() >= all.len().min(min as usize));
            // A time of nothing is a prune today.
            if days == 0 {
                let now = plan(&policy, &all, at(0));
                let kept: Vec<_> = now.iter().filter(|one| one.is_kept()).map(|one| &one.id).collect();
                prop_assert!(kept.len() <= found.survivors.len());
                prop_assert!(found.deleted.iter().all(|gone| !kept.contains(&&gone.id)));
            }
        }
    }
}
