//! What a job does next: a run now, or a wait. Pure: the schedule, what is known of the past, and the time come in.
//!
//! - A run that was missed (machine asleep, process down) is caught up once, whatever the number of times that passed.
//! - A failed run is tried again a few times, further and further apart, until the next time of the schedule comes.
//! - A clock that was set back, or a past that lies in the future because a clock was wrong, delays nothing: what counts is
//!   never later than now.

use chrono::{DateTime, Duration, Utc};

use super::cron::Schedule;

/// Pauses before the second, third and further attempts at the same slot.
const PAUSES: [i64; 3] = [60, 300, 900];

/// Without catching up, how late a run may still begin.
const LATE: Duration = Duration::minutes(5);

/// When a job's work is due.
#[derive(Debug, Clone)]
pub struct Rhythm {
    /// The slots.
    pub schedule: Schedule,
    /// How much later than its slot a run begins; see [`jitter`].
    pub delay: Duration,
    /// Whether a missed slot is caught up.
    pub catch_up: bool,
    /// Further attempts after a failed one.
    pub retries: u32,
}

/// The last attempt at a slot of this schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// The slot.
    pub slot: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// Which attempt at the slot it was.
    pub number: u32,
    /// Whether it failed in a way that another attempt may mend.
    pub may_be_retried: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Begin.
    Now {
        /// For this slot.
        slot: DateTime<Utc>,
        /// Which attempt at it.
        number: u32,
        /// Slots before this one that passed unused.
        missed: u64,
    },
    /// Wait.
    At(DateTime<Utc>),
    /// The schedule has no further date.
    Never,
}

/// Decides; `started` is when the scheduler began to look, and counts as the past of a job that has none.
pub fn next(rhythm: &Rhythm, last: Option<Last>, started: DateTime<Utc>, now: DateTime<Utc>) -> Next {
    let mut base = last.map_or(started, |last| last.slot).min(now);
    if !rhythm.catch_up {
        base = base.max(now - rhythm.delay - LATE);
    }
    if let Some((slot, count)) = rhythm.schedule.due_between(base, now - rhythm.delay) {
        return Next::Now { slot, number: 1, missed: count - 1 };
    }
    let retry = last.filter(|last| last.may_be_retried && last.number <= rhythm.retries).map(|last| {
        let index = (last.number.max(1) as usize - 1).min(PAUSES.len() - 1);
        (last, last.finished.min(now) + Duration::seconds(PAUSES[index]))
    });
    let upcoming = rhythm.schedule.next_after(base.max(now - rhythm.delay)).map(|slot| slot + rhythm.delay);
    match (retry, upcoming) {
        // After the clock was set back, `finished` no longer moves on with the time: then the pause is over at once.
        (Some((last, at)), _) if at <= now || last.finished > now => {
            Next::Now { slot: last.slot, number: last.number + 1, missed: 0 }
        }
        (Some((_, at)), Some(upcoming)) => Next::At(at.min(upcoming)),
        (Some((_, at)), None) => Next::At(at),
        (None, Some(upcoming)) => Next::At(upcoming),
        (None, None) => Next::Never,
    }
}

/// Whether a failed attempt is the last one at its slot.
pub fn gives_up(rhythm: &Rhythm, number: u32, may_be_retried: bool) -> bool {
    !may_be_retried || number > rhythm.retries
}

/// How much later than the schedule says a job begins: between nothing and `most`, always the same for the same name, so
/// that many jobs with the same expression spread out and each stays predictable.
pub fn jitter(job: &str, most: Duration) -> Duration {
    // FNV-1a: stable across versions and machines, which the standard library's hash is not.
    let hash = job
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let seconds = most.num_seconds().max(0).unsigned_abs();
    // Below `most`, so it fits again.
    Duration::seconds(i64::try_from((hash >> 16) % (seconds + 1)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use common::snapshot::{
        SnapshotId,
        keep::{self, Candidate, KeepPolicy, Soundness},
        manifest::Kind,
    };

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("{text}:00Z")).unwrap().to_utc()
    }

    fn nightly() -> Rhythm {
        rhythm("0 3 * * *", Tz::UTC)
    }

    fn rhythm(text: &str, zone: Tz) -> Rhythm {
        Rhythm {
            schedule: Schedule::parse(text, zone).unwrap(),
            delay: Duration::zero(),
            catch_up: true,
            retries: 3,
        }
    }

    fn done(slot: &str) -> Last {
        Last { slot: at(slot), finished: at(slot) + Duration::minutes(2), number: 1, may_be_retried: false }
    }

    #[test]
    fn a_new_job_waits_for_its_first_time_and_a_known_one_catches_up_once() {
        let rhythm = nightly();
        let (started, now) = (at("2026-01-05T12:00"), at("2026-01-05T12:00"));
        assert_eq!(next(&rhythm, None, started, now), Next::At(at("2026-01-06T03:00")));
        let missed = next(&rhythm, Some(done("2026-01-01T03:00")), started, now);
        assert_eq!(missed, Next::Now { slot: at("2026-01-05T03:00"), number: 1, missed: 3 });
        // Having run for that slot, nothing more is due.
        let after = next(&rhythm, Some(done("2026-01-05T03:00")), started, now);
        assert_eq!(after, Next::At(at("2026-01-06T03:00")));
        let never = Rhythm { catch_up: false, ..nightly() };
        assert_eq!(
            next(&never, Some(done("2026-01-01T03:00")), started, now),
            Next::At(at("2026-01-06T03:00"))
        );
        let punctual = next(&never, Some(done("2026-01-05T03:00")), started, at("2026-01-06T03:00"));
        assert_eq!(punctual, Next::Now { slot: at("2026-01-06T03:00"), number: 1, missed: 0 });
    }

    #[test]
    fn a_failed_run_is_tried_again_until_it_is_given_up_or_the_next_is_due() {
        let rhythm = nightly();
        let started = at("2026-01-05T00:00");
        let failed = |number, finished: &str| Last {
            number,
            may_be_retried: true,
            finished: at(finished),
            ..done("2026-01-05T03:00")
        };
        let look = |last, now: &str| next(&rhythm, Some(last), started, at(now));
        assert_eq!(look(failed(1, "2026-01-05T03:10"), "2026-01-05T03:10"), Next::At(at("2026-01-05T03:11")));
        assert_eq!(
            look(failed(1, "2026-01-05T03:10"), "2026-01-05T03:11"),
            Next::Now { slot: at("2026-01-05T03:00"), number: 2, missed: 0 }
        );
        assert_eq!(look(failed(2, "2026-01-05T03:10"), "2026-01-05T03:11"), Next::At(at("2026-01-05T03:15")));
        assert_eq!(look(failed(4, "2026-01-05T03:10"), "2026-01-05T09:00"), Next::At(at("2026-01-06T03:00")));
        assert_eq!(
            look(failed(2, "2026-01-06T02:59"), "2026-01-06T03:00"),
            Next::Now { slot: at("2026-01-06T03:00"), number: 1, missed: 0 }
        );
    }

    #[test]
    fn a_clock_that_jumps_neither_stops_the_backups_nor_repeats_them_for_ever() {
        let rhythm = nightly();
        // A run was recorded while the clock said 2036.
        let wrong = done("2036-01-05T03:00");
        let now = at("2026-01-05T12:00");
        assert_eq!(next(&rhythm, Some(wrong), now, now), Next::At(at("2026-01-06T03:00")));
        let failed = Last { may_be_retried: true, ..wrong };
        assert!(matches!(next(&rhythm, Some(failed), now, now), Next::Now { number: 2, .. }));
        // A jump ahead over five nights is one run.
        let jumped = next(&rhythm, Some(done("2026-01-05T03:00")), now, at("2026-01-10T12:00"));
        assert_eq!(jumped, Next::Now { slot: at("2026-01-10T03:00"), number: 1, missed: 4 });
    }

    #[test]
    fn jitter_is_stable_within_its_bounds_and_spreads() {
        let most = Duration::minutes(10);
        let delays: Vec<i64> = (0..200).map(|n| jitter(&format!("job-{n}"), most).num_seconds()).collect();
        assert!(delays.iter().all(|delay| (0..=600).contains(delay)));
        assert!(delays.iter().filter(|delay| **delay < 300).count() > 60);
        assert!(delays.iter().filter(|delay| **delay >= 300).count() > 60);
        assert_eq!(jitter("shop", most), jitter("shop", most));
        assert_eq!(jitter("shop", Duration::zero()), Duration::zero());
        let late = Rhythm { delay: Duration::minutes(7), ..nightly() };
        let last = Some(done("2026-01-05T03:00"));
        assert_eq!(
            next(&late, last, at("2026-01-05T04:00"), at("2026-01-06T03:06")),
            Next::At(at("2026-01-06T03:07"))
        );
        assert_eq!(
            next(&late, last, at("2026-01-05T04:00"), at("2026-01-06T03:07")),
            Next::Now { slot: at("2026-01-06T03:00"), number: 1, missed: 0 }
        );
    }

    #[test]
    fn every_minute_works() {
        let rhythm = rhythm("* * * * *", "Europe/Berlin".parse().unwrap());
        let mut now = at("2026-10-24T22:00");
        let mut last = None;
        for _ in 0..(26 * 60) {
            let next = next(&rhythm, last, at("2026-10-24T21:59"), now);
            let Next::Now { slot, missed: 0, .. } = next else { panic!("{now}: {next:?}") };
            assert_eq!(slot, now);
            last = Some(Last { slot, finished: now, number: 1, may_be_retried: false });
            now += Duration::minutes(1);
        }
    }

    struct Night {
        candidates: Vec<Candidate>,
        runs: Vec<DateTime<Utc>>,
    }

    /// A year, looked at every ten minutes, with the loop that the daemon has. `fails` says which nights have no success.
    fn a_year(zone: Tz, policy: &KeepPolicy, fails: impl Fn(u64) -> bool) -> Night {
        let rhythm = rhythm("30 2 * * *", zone);
        let mut night = Night { candidates: Vec::new(), runs: Vec::new() };
        let start = at("2026-01-01T12:00");
        let (mut now, mut last) = (start, None);
        while now < start + Duration::days(365) {
            if let Next::Now { slot, number, .. } = next(&rhythm, last, start, now) {
                let failed = fails(slot.signed_duration_since(start).num_days().unsigned_abs());
                last = Some(Last { slot, finished: now, number, may_be_retried: failed });
                if !failed {
                    night.runs.push(now);
                    night.candidates.push(Candidate {
                        id: SnapshotId::new(now, "shop", night.runs.len() as u64),
                        database: "shop".into(),
                        taken_at: now,
                        kind: Kind::Scheduled,
                        tags: std::collections::BTreeMap::new(),
                        soundness: Soundness::Verified,
                        protection: None,
                        state: None,
                        part: None,
                    });
                    let before = night.candidates.len();
                    let decisions = keep::plan(policy, &night.candidates, now);
                    night.candidates.retain(|candidate| {
                        decisions.iter().any(|decision| decision.id == candidate.id && decision.is_kept())
                    });
                    let floor = before.min(policy.min as usize);
                    assert!(night.candidates.len() >= floor, "below the floor on {now}");
                }
            }
            now += Duration::minutes(10);
        }
        night
    }

    #[test]
    fn a_year_of_nights_in_three_zones_runs_once_a_night_and_keeps_what_the_rules_say() {
        let policy = KeepPolicy { daily: 7, weekly: 5, monthly: 12, min: 3, ..KeepPolicy::default() };
        // The night in which 02:30 does not exist, and the one in which it comes twice, in UTC.
        for (zone, gap, fold) in [
            ("Europe/Berlin", "2026-03-29T01:00", "2026-10-25T00:30"),
            ("America/New_York", "2026-03-08T07:00", "2026-11-01T07:30"),
            ("Australia/Sydney", "2026-10-03T16:00", "2026-04-04T15:30"),
        ] {
            let year = a_year(zone.parse().unwrap(), &policy, |_| false);
            assert_eq!(year.runs.len(), 365, "{zone}");
            assert!(year.runs.contains(&at(gap)) && year.runs.contains(&at(fold)), "{zone}");
            let dates: std::collections::BTreeSet<String> =
                year.candidates.iter().map(|candidate| candidate.taken_at.date_naive().to_string()).collect();
            let newest = year.runs.last().unwrap();
            for days in 0..7 {
                let date = (*newest - Duration::days(days)).date_naive().to_string();
                assert!(dates.contains(&date), "{zone}: daily {date}");
            }
            let months: std::collections::BTreeSet<String> =
                dates.iter().map(|date| date[..7].to_owned()).collect();
            assert_eq!(months.len(), 12, "{zone}: {dates:?}");
            // 7 days, up to 4 more weeks, and up to 11 more months.
            assert!((19..=22).contains(&dates.len()), "{zone}: {dates:?}");
        }
    }

    #[test]
    fn a_week_without_a_success_deletes_nothing_and_the_next_success_keeps_what_is_old() {
        let policy = KeepPolicy { daily: 7, min: 3, ..KeepPolicy::default() };
        let bad = |day: u64| (100..107).contains(&day);
        let year = a_year(Tz::UTC, &policy, bad);
        assert_eq!(year.runs.len(), 365 - 7);
        let before: Vec<_> = year.runs.iter().filter(|run| **run < at("2026-04-11T12:00")).collect();
        let after = *year.runs.iter().find(|run| **run >= at("2026-04-11T12:00")).unwrap();
        assert_eq!((after - **before.last().unwrap()).num_days(), 8);
    }
}
