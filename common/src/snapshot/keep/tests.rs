use chrono::TimeZone;
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_795_000_000;

fn at(hours_ago: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(NOW - hours_ago * 3600, 0).unwrap()
}

fn candidate(number: u64, taken_at: DateTime<Utc>) -> Candidate {
    Candidate {
        id: SnapshotId::new(taken_at, "shop", number),
        database: "shop".into(),
        part: None,
        taken_at,
        kind: Kind::Manual,
        tags: BTreeMap::new(),
        soundness: Soundness::Unverified,
        protection: None,
        state: None,
    }
}

fn hourly(count: i64) -> Vec<Candidate> {
    (0..count).map(|hours| candidate(hours.unsigned_abs(), at(hours))).collect()
}

fn kept(policy: &KeepPolicy, candidates: &[Candidate]) -> Vec<String> {
    plan(policy, candidates, at(0))
        .into_iter()
        .filter(Decision::is_kept)
        .map(|decision| format!("{} {}", decision.taken_at.format("%m-%d %H"), decision.describe()))
        .collect()
}

#[test]
fn each_rule_keeps_the_newest_of_its_periods() {
    // 2026-11-18 11:06:40 UTC, a Wednesday
    let candidates = hourly(24 * 40);
    let policy = |change: fn(&mut KeepPolicy)| {
        let mut policy = KeepPolicy::default();
        change(&mut policy);
        policy
    };
    assert_eq!(kept(&policy(|policy| policy.last = 2), &candidates), ["11-18 11 last 1", "11-18 10 last 2"]);
    assert_eq!(
        kept(&policy(|policy| policy.daily = 3), &candidates),
        ["11-18 11 daily 2026-11-18", "11-17 23 daily 2026-11-17", "11-16 23 daily 2026-11-16"]
    );
    assert_eq!(
        kept(&policy(|policy| policy.weekly = 2), &candidates),
        ["11-18 11 weekly 2026-W47", "11-15 23 weekly 2026-W46"]
    );
    assert_eq!(
        kept(&policy(|policy| (policy.monthly, policy.yearly) = (5, 1)), &candidates),
        ["11-18 11 monthly 2026-11, yearly 2026", "10-31 23 monthly 2026-10"]
    );
    assert_eq!(
        kept(&policy(|policy| policy.within = Some(Duration::from_secs(7200))), &candidates),
        ["11-18 11 within", "11-18 10 within", "11-18 09 within"]
    );
    assert_eq!(kept(&policy(|policy| policy.within = Some(Duration::MAX)), &candidates).len(), 960);
}

#[test]
fn within_counts_from_the_newest_snapshot_when_backups_have_stopped() {
    let old: Vec<Candidate> = hourly(10)
        .into_iter()
        .map(|mut old| {
            old.taken_at -= chrono::Duration::days(400);
            old
        })
        .collect();
    let policy = KeepPolicy { within: Some(Duration::from_secs(3 * 3600)), ..KeepPolicy::default() };
    assert_eq!(kept(&policy, &old).len(), 4);
}

#[test]
fn periods_end_at_midnight_utc_and_iso_weeks_cross_years() {
    let day = |y, m, d, h| candidate(1, Utc.with_ymd_and_hms(y, m, d, h, 0, 0).unwrap());
    let candidates = [day(2025, 12, 31, 23), day(2026, 1, 1, 0), day(2026, 1, 4, 0), day(2026, 1, 5, 0)];
    let policy = KeepPolicy { weekly: 9, ..KeepPolicy::default() };
    assert_eq!(kept(&policy, &candidates), ["01-05 00 weekly 2026-W02", "01-04 00 weekly 2026-W01"]);
}

#[test]
fn exempt_ones_are_kept_and_take_no_place() {
    let mut candidates = hourly(6);
    candidates[0].taken_at = at(-5);
    candidates[1].soundness = Soundness::Damaged;
    candidates[2].kind = Kind::PreMigration;
    candidates[5].protection = Some("pinned".into());
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    assert_eq!(
        kept(&policy, &candidates),
        [
            "11-18 16 dated in the future",
            "11-18 10 damaged: look at it, then delete it by hand",
            "11-18 09 from before a migration",
            "11-18 08 last 1",
            "11-18 06 pinned"
        ]
    );
    let asked = KeepPolicy { include_pre_migration: true, ..policy };
    assert!(kept(&asked, &candidates).contains(&"11-18 09 last 1".to_owned()));
}

#[test]
fn the_floor_prefers_verified_ones() {
    let mut candidates = hourly(6);
    candidates[3].soundness = Soundness::Verified;
    candidates[4].soundness = Soundness::Verified;
    let policy = KeepPolicy { last: 1, min: 2, ..KeepPolicy::default() };
    assert_eq!(
        kept(&policy, &candidates),
        ["11-18 11 last 1", "11-18 08 floor of 2 good snapshots", "11-18 07 floor of 2 good snapshots"]
    );
}

#[test]
fn databases_do_not_count_for_each_other() {
    let mut candidates = hourly(4);
    candidates[3].database = "other".into();
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    assert_eq!(kept(&policy, &candidates), ["11-18 08 last 1", "11-18 11 last 1"]);
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let soundness =
        prop_oneof![Just(Soundness::Unverified), Just(Soundness::Verified), Just(Soundness::Damaged)];
    let kind = prop_oneof![3 => Just(Kind::Manual), 1 => Just(Kind::PreMigration)];
    let tag = prop::option::of(Just("keep"));
    (-20i64..20_000, any::<u64>(), 0..2, soundness, kind, tag, prop::bool::weighted(0.1)).prop_map(
        |(hours, random, database, soundness, kind, tag, is_pinned)| Candidate {
            database: format!("db{database}"),
            part: None,
            soundness,
            kind,
            tags: tag.map(|tag| (tag.to_owned(), "yes".to_owned())).into_iter().collect(),
            protection: is_pinned.then(|| "pinned".to_owned()),
            ..candidate(random, at(hours))
        },
    )
}

fn any_policy() -> impl Strategy<Value = KeepPolicy> {
    let number = || prop_oneof![2 => Just(0u32), 1 => 1u32..8, 1 => Just(u32::MAX)];
    let within = prop::option::of((0u64..1_000_000).prop_map(Duration::from_secs));
    (
        (number(), number(), number(), number(), number(), number()),
        within,
        any::<bool>(),
        0u32..6,
        any::<bool>(),
    )
        .prop_map(|((last, hourly, daily, weekly, monthly, yearly), within, tag, min, include)| {
            KeepPolicy {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within,
                tags: tag.then(|| ("keep".to_owned(), "yes".to_owned())).into_iter().collect(),
                min,
                include_pre_migration: include,
                zone: None,
            }
        })
}

proptest! {
    #[test]
    fn no_rule_breaks_the_promises(
        candidates in prop::collection::vec(any_candidate(), 0..60),
        policy in any_policy(),
        rotation in 0usize..60,
    ) {
        let now = at(0);
        let decisions = plan(&policy, &candidates, now);
        prop_assert_eq!(decisions.len(), candidates.len(), "one decision each");

        let mut rotated = candidates.clone();
        rotated.rotate_left(rotation % candidates.len().max(1));
        let unique: std::collections::BTreeSet<_> = candidates.iter().map(|c| c.id.clone()).collect();
        if unique.len() == candidates.len() {
            prop_assert_eq!(&plan(&policy, &rotated, now), &decisions, "the order of the input does not matter");
            let of = |candidate: &Candidate| decisions.iter().find(|d| d.id == candidate.id).unwrap();
            for candidate in &candidates {
                let is_exempt = candidate.protection.is_some()
                    || candidate.soundness == Soundness::Damaged
                    || candidate.taken_at > now
                    || (candidate.kind == Kind::PreMigration && !policy.include_pre_migration);
                let is_tagged = !policy.tags.is_empty() && !candidate.tags.is_empty();
                prop_assert!(of(candidate).is_kept() || !(is_exempt || is_tagged), "{:?}", candidate);
            }
            for database in ["db0", "db1"] {
                let good: Vec<&Candidate> = candidates
                    .iter()
                    .filter(|c| c.database == database && c.soundness != Soundness::Damaged && c.taken_at <= now)
                    .collect();
                let floor = |all: &[&Candidate]| {
                    let kept = all.iter().filter(|c| of(c).is_kept()).count();
                    kept >= all.len().min(policy.min as usize)
                };
                prop_assert!(floor(&good), "the floor of {database}");
                let verified: Vec<&Candidate> =
                    good.iter().copied().filter(|c| c.soundness == Soundness::Verified).collect();
                prop_assert!(floor(&verified), "the floor of verified ones of {database}");
                let mut newest: Vec<&&Candidate> = good
                    .iter()
                    .filter(|c| c.kind != Kind::PreMigration || policy.include_pre_migration)
                    .collect();
                newest.sort_by(|a, b| (b.taken_at, &b.id).cmp(&(a.taken_at, &a.id)));
                for candidate in newest.iter().take(policy.last as usize) {
                    prop_assert!(of(candidate).is_kept(), "one of the last {}", policy.last);
                }
            }
            // What is kept is kept again: pruning twice is pruning once.
            let left: Vec<Candidate> = candidates.iter().filter(|c| of(c).is_kept()).cloned().collect();
            prop_assert!(plan(&policy, &left, now).iter().all(Decision::is_kept), "a second prune deletes nothing");
        }
    }
}

#[test]
fn days_are_those_of_the_time_zone() {
    // Half past eleven in the evening and half past midnight in Berlin: one day in UTC, two there.
    let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let all = [candidate(1, time("2026-11-10T22:30:00Z")), candidate(2, time("2026-11-10T23:30:00Z"))];
    let count = |zone: Option<Tz>| {
        let policy = KeepPolicy { daily: 7, weekly: 1, monthly: 1, yearly: 1, zone, ..KeepPolicy::default() };
        kept(&policy, &all)
    };
    assert_eq!(count(None).len(), 1);
    let berlin = count(Some(Tz::Europe__Berlin));
    assert_eq!(berlin[1], "11-10 22 daily 2026-11-10");
    assert!(
        berlin[0].starts_with("11-10 23 daily 2026-11-11, weekly 2026-W46, monthly 2026-11"),
        "{berlin:?}"
    );
    // An hour that comes twice is one that has two.
    let night = [candidate(1, time("2026-10-25T00:30:00Z")), candidate(2, time("2026-10-25T01:30:00Z"))];
    let policy = KeepPolicy { daily: 7, zone: Some(Tz::Europe__Berlin), ..KeepPolicy::default() };
    assert_eq!(kept(&policy, &night).len(), 1);
}

#[test]
fn of_runs_that_changed_nothing_the_newest_snapshot_is_kept() {
    let before = |number: u64, hours_ago: i64, state: &str| Candidate {
        kind: Kind::PreMigration,
        state: (!state.is_empty()).then(|| state.to_owned()),
        ..candidate(number, at(hours_ago))
    };
    let mut all = vec![
        before(1, 1, "b"),
        before(2, 2, "b"),
        before(3, 3, "b"),
        before(4, 4, "a"),
        before(5, 5, "a"),
        before(6, 6, "b"),
        before(7, 7, ""),
        before(8, 8, ""),
    ];
    all.push(candidate(9, at(0)));
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    let ids = |policy: &KeepPolicy, all: &[Candidate]| -> Vec<String> {
        let kept = plan(policy, all, at(0)).into_iter().filter(Decision::is_kept);
        kept.map(|decision| decision.taken_at.format("%H").to_string()).collect()
    };
    let hours = |hours: &[i64]| -> Vec<String> {
        hours.iter().map(|hours| at(*hours).format("%H").to_string()).collect()
    };
    assert_eq!(ids(&policy, &all), hours(&[0, 1, 4, 6, 7, 8]));
    let gone = plan(&policy, &all, at(0)).into_iter().find(|decision| decision.id == all[1].id).unwrap();
    assert_eq!(
        gone.describe(),
        format!("from before a migration, with the same state as {}, which stays", all[0].id)
    );
    // A damaged one stands for no other, and what is pinned stays.
    all[0].soundness = Soundness::Damaged;
    all[2].protection = Some("pinned".to_owned());
    assert_eq!(ids(&policy, &all), hours(&[0, 1, 2, 3, 4, 6, 7, 8]));
    // The floor is of good ones, whatever they hold.
    all[0].soundness = Soundness::Unverified;
    all[2].protection = None;
    assert_eq!(ids(&KeepPolicy { min: 9, ..policy }, &all).len(), 9);
}

#[test]
fn a_snapshot_that_a_tag_keeps_or_that_alone_is_verified_goes_for_no_other_of_the_same_state() {
    let before = |number: u64, hours_ago: i64, soundness: Soundness| Candidate {
        kind: Kind::PreMigration,
        state: Some("a".to_owned()),
        soundness,
        ..candidate(number, at(hours_ago))
    };
    let kept_of = |policy: &KeepPolicy, all: &[Candidate]| -> Vec<bool> {
        plan(policy, all, at(0)).iter().map(Decision::is_kept).collect()
    };
    let (verified, other) = (Soundness::Verified, Soundness::Unverified);
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    let newer_is_not = [before(1, 1, other), before(2, 2, verified), before(3, 3, verified)];
    assert_eq!(kept_of(&policy, &newer_is_not), [true, true, false]);
    let mut tagged = [before(1, 1, verified), before(2, 2, verified), before(3, 3, other)];
    tagged[1].tags.insert("release".to_owned(), "9".to_owned());
    assert_eq!(kept_of(&policy, &tagged), [true, false, false]);
    let policy = KeepPolicy { tags: vec![("release".to_owned(), "9".to_owned())], ..policy };
    assert_eq!(kept_of(&policy, &tagged), [true, true, false]);
}
