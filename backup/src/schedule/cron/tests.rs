//! Known crontab behaviour as a table, daylight saving in zones that do it differently, and properties.

use chrono::Timelike;
use proptest::prelude::*;

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&format!("{text}:00Z")).unwrap().to_utc()
}

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, parse_zone(zone).unwrap()).unwrap()
}

/// The next runs after a time, all in UTC.
fn runs(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text, zone);
    let mut at = utc(after);
    (0..count)
        .map(|_| {
            at = schedule.next_after(at).unwrap();
            at.format("%Y-%m-%dT%H:%M").to_string()
        })
        .collect()
}

/// 2026-01-01 is a Thursday.
#[test]
fn expressions_mean_what_they_mean_in_a_crontab() {
    let from = "2026-01-01T00:00";
    for (expression, expected) in [
        ("0 3 * * *", ["2026-01-01T03:00", "2026-01-02T03:00", "2026-01-03T03:00"]),
        ("* * * * *", ["2026-01-01T00:01", "2026-01-01T00:02", "2026-01-01T00:03"]),
        ("*/15 * * * *", ["2026-01-01T00:15", "2026-01-01T00:30", "2026-01-01T00:45"]),
        ("*/40 * * * *", ["2026-01-01T00:40", "2026-01-01T01:00", "2026-01-01T01:40"]),
        ("7-59/20 4,2 * * *", ["2026-01-01T02:07", "2026-01-01T02:27", "2026-01-01T02:47"]),
        ("0 0 * * 0", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * SUN", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * 5-7", ["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-04T00:00"]),
        ("0 0 * * mon-Wed", ["2026-01-05T00:00", "2026-01-06T00:00", "2026-01-07T00:00"]),
        // 1 to 7 would be Monday to Sunday, and never Sunday to Saturday.
        ("0 0 * * 1", ["2026-01-05T00:00", "2026-01-12T00:00", "2026-01-19T00:00"]),
        // Both days restricted: either is enough.
        ("30 4 1,15 * 5", ["2026-01-01T04:30", "2026-01-02T04:30", "2026-01-09T04:30"]),
        ("0 0 13 * fri", ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00"]),
        // A field that begins with a star is not restricted, and then both have to hold.
        ("0 0 */2 * mon", ["2026-01-05T00:00", "2026-01-19T00:00", "2026-02-09T00:00"]),
        ("0 0 1-7 * */7", ["2026-01-04T00:00", "2026-02-01T00:00", "2026-03-01T00:00"]),
        // The same set without a star is restricted.
        ("0 0 1-31/2 * mon", ["2026-01-03T00:00", "2026-01-05T00:00", "2026-01-07T00:00"]),
        ("0 12 31 * *", ["2026-01-31T12:00", "2026-03-31T12:00", "2026-05-31T12:00"]),
        ("0 0 29 feb *", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
        ("5 4 * JAN,jul *", ["2026-01-01T04:05", "2026-01-02T04:05", "2026-01-03T04:05"]),
        ("@hourly", ["2026-01-01T01:00", "2026-01-01T02:00", "2026-01-01T03:00"]),
        ("@daily", ["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-04T00:00"]),
        ("@midnight", ["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-04T00:00"]),
        ("@weekly", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("@monthly", ["2026-02-01T00:00", "2026-03-01T00:00", "2026-04-01T00:00"]),
        ("@yearly", ["2027-01-01T00:00", "2028-01-01T00:00", "2029-01-01T00:00"]),
        ("@Annually", ["2027-01-01T00:00", "2028-01-01T00:00", "2029-01-01T00:00"]),
        ("CRON_TZ=Asia/Tokyo 0 3 * * *", ["2026-01-01T18:00", "2026-01-02T18:00", "2026-01-03T18:00"]),
    ] {
        assert_eq!(runs(expression, "UTC", from, 3), expected, "{expression}");
    }
}

#[test]
fn what_is_no_crontab_is_refused_with_the_field_that_is_wrong() {
    for (expression, text) in [
        ("", "0 fields"),
        ("0 3 * *", "4 fields"),
        ("0 0 3 * * *", "seconds"),
        ("60 * * * *", "minute: 60"),
        ("* 24 * * *", "hour: 24"),
        ("* * 0 * *", "day of month: 0"),
        ("* * * 13 *", "month: 13"),
        ("* * * * 8", "day of week: 8"),
        ("*/0 * * * *", "minute: \"0\" is not a step"),
        ("5/10 * * * *", "5-59/10"),
        ("* 22-2 * * *", "22-23,0-2"),
        ("* * * * fri-sun", "5-7,0-0"),
        ("* * L * *", "\"L\""),
        ("* * ? * *", "\"?\""),
        ("* * * * mon#1", "\"mon#1\""),
        ("+5 * * * *", "\"+5\""),
        ("1,,2 * * * *", "\"\""),
        ("*-5 * * * *", "\"*\""),
        ("0 0 * jan-xyz *", "\"xyz\""),
        ("@reboot", "@reboot"),
        ("@fortnightly", "@fortnightly"),
        ("0 0 30 2 *", "no date"),
        ("0 0 31 4,6,9,11 *", "no date"),
        ("CRON_TZ=Europe/Nowhere 0 3 * * *", "Europe/Nowhere"),
    ] {
        let error = Schedule::parse(expression, Tz::UTC).unwrap_err();
        assert!(error.message().contains(text), "{expression}: {error}");
        assert_eq!(error.kind(), common::ErrorKind::Usage);
        assert!(error.hint().is_some());
    }
}

/// Both have to hold where a field begins with a star; 2100 is no leap year.
#[test]
fn the_rarest_dates_are_found() {
    assert_eq!(runs("0 0 29 2 */7", "UTC", "2073-01-01T00:00", 2), ["2088-02-29T00:00", "2128-02-29T00:00"]);
}

#[test]
fn a_time_in_a_gap_runs_once_at_its_end() {
    // Berlin, 2026-03-29: 02:00 CET becomes 03:00 CEST, which is 01:00 UTC.
    for expression in ["30 2 * * *", "0 2 * * *", "10,20,30 2 * * *"] {
        let runs = runs(expression, "Europe/Berlin", "2026-03-28T12:00", 2);
        assert_eq!(runs[0], "2026-03-29T01:00", "{expression}");
        assert!(runs[1].starts_with("2026-03-30T00:"), "{expression}: {runs:?}");
    }
    // The end of the gap is also a time of the expression: once.
    assert_eq!(
        runs("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", 2),
        ["2026-03-29T01:00", "2026-03-30T00:00"]
    );
    // New York, 2026-03-08: 02:00 EST becomes 03:00 EDT, 07:00 UTC.
    assert_eq!(runs("30 2 * * *", "America/New_York", "2026-03-08T00:00", 1), ["2026-03-08T07:00"]);
    // Lord Howe changes by half an hour: 02:00 becomes 02:30.
    assert_eq!(runs("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", 1), ["2026-10-03T15:30"]);
    // Samoa left out a whole day.
    assert_eq!(runs("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00", 1), ["2011-12-30T10:00"]);
}

#[test]
fn a_time_that_comes_twice_runs_once() {
    // Berlin, 2026-10-25: 03:00 CEST becomes 02:00 CET at 01:00 UTC.
    assert_eq!(
        runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2),
        ["2026-10-25T00:30", "2026-10-26T01:30"]
    );
    assert_eq!(
        runs("30 1 * * *", "America/New_York", "2026-10-31T12:00", 2),
        ["2026-11-01T05:30", "2026-11-02T06:30"]
    );
    // Havana's repeated hour begins at midnight.
    assert_eq!(
        runs("15 0 * * *", "America/Havana", "2026-10-31T12:00", 2),
        ["2026-11-01T04:15", "2026-11-02T05:15"]
    );
}

#[test]
fn an_interval_follows_the_clock_through_both_changes() {
    for day in ["2026-03-29", "2026-10-25"] {
        let schedule = schedule("*/10 * * * *", "Europe/Berlin");
        let mut at = utc(&format!("{day}T00:00"));
        for _ in 0..18 {
            let next = schedule.next_after(at).unwrap();
            assert_eq!((next - at).num_minutes(), 10, "after {at}");
            at = next;
        }
    }
    let hourly = runs("@hourly", "Europe/Berlin", "2026-10-24T23:00", 3);
    assert_eq!(hourly, ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]);
}

#[test]
fn every_night_of_a_year_has_exactly_one_run_in_every_zone() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"] {
        for time in ["30 2", "0 2", "59 1", "0 3"] {
            let schedule = schedule(&format!("{time} * * *"), zone);
            let zone = schedule.zone();
            let mut at = utc("2026-01-01T00:00");
            let mut dates = Vec::new();
            while dates.len() < 365 {
                at = schedule.next_after(at).unwrap();
                dates.push(at.with_timezone(&zone).date_naive());
            }
            for pair in dates.windows(2) {
                assert_eq!(pair[1], pair[0].succ_opt().unwrap(), "{time} in {zone}");
            }
        }
    }
}

#[test]
fn missed_runs_are_counted_and_the_last_one_is_named() {
    let nightly = schedule("0 3 * * *", "UTC");
    assert_eq!(nightly.due_between(utc("2026-01-01T03:00"), utc("2026-01-02T02:59")), None);
    assert_eq!(
        nightly.due_between(utc("2026-01-01T03:00"), utc("2026-01-05T12:00")),
        Some((utc("2026-01-05T03:00"), 4))
    );
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,40}") {
        let _ = Schedule::parse(&text, Tz::UTC);
    }

    #[test]
    fn expressions_of_the_right_shape_never_panic(
        text in "[0-9*/,-]{1,6} [0-9*/,-]{1,6} [0-9*/,-]{1,6} [0-9a-z*/,-]{1,6} [0-9a-z*/,-]{1,6}",
    ) {
        let _ = Schedule::parse(&text, Tz::UTC);
    }

    /// Against the crate `cron`, where the two mean the same: it wants seconds, counts Sunday as 1, and needs both day fields
    /// to hold, so one of them is open here.
    #[test]
    fn the_crate_cron_agrees_where_it_means_the_same(
        start in 1_767_225_600i64..1_800_000_000, minutes in prop::collection::btree_set(0u32..60, 1..4),
        hours in prop::collection::btree_set(0u32..24, 1..4), days in prop::collection::btree_set(1u32..32, 1..4),
        months in prop::collection::btree_set(prop::sample::select(vec![1u32, 3, 5, 7, 8, 10, 12]), 1..4),
        weekdays in prop::collection::btree_set(0u32..7, 1..4), by_weekday: bool,
    ) {
        let list = |set: &std::collections::BTreeSet<u32>, add: u32| {
            set.iter().map(|n| (n + add).to_string()).collect::<Vec<_>>().join(",")
        };
        let (minute, hour, month) = (list(&minutes, 0), list(&hours, 0), list(&months, 0));
        let (ours, theirs) = if by_weekday {
            (format!("* {month} {}", list(&weekdays, 0)), format!("* {month} {}", list(&weekdays, 1)))
        } else {
            (format!("{} {month} *", list(&days, 0)), format!("{} {month} *", list(&days, 0)))
        };
        let ours = Schedule::parse(&format!("{minute} {hour} {ours}"), Tz::UTC).unwrap();
        let theirs: cron::Schedule = format!("0 {minute} {hour} {theirs}").parse().unwrap();
        let mut at = DateTime::from_timestamp(start, 0).unwrap();
        for expected in theirs.after(&at).take(5).collect::<Vec<_>>() {
            at = ours.next_after(at).unwrap();
            prop_assert_eq!(at, expected);
        }
    }

    /// Against a second way to the answer: minute by minute, with the fields as lists.
    #[test]
    fn the_next_run_is_the_first_minute_that_matches(
        start in 1_767_225_600i64..1_800_000_000, minute in 0u32..60, hour in 0u32..24, day in 1u32..29, weekday in 0u32..8,
    ) {
        let start = DateTime::from_timestamp(start, 0).unwrap();
        let schedule = Schedule::parse(&format!("{minute} {hour} {day} * {weekday}"), Tz::UTC).unwrap();
        let mut at = start.with_second(0).unwrap() + chrono::Duration::minutes(1);
        while !(at.minute() == minute && at.hour() == hour
            && (at.day() == day || at.weekday().num_days_from_sunday() == weekday % 7))
        {
            at += chrono::Duration::minutes(1);
        }
        prop_assert_eq!(schedule.next_after(start), Some(at));
    }

    #[test]
    fn runs_only_go_forward_in_every_zone(start in 1_767_225_600i64..1_900_000_000, index in 0usize..596) {
        let zone = chrono_tz::TZ_VARIANTS[index % chrono_tz::TZ_VARIANTS.len()];
        for text in ["30 2 * * *", "*/20 * * * *", "0 0 * * *"] {
            let schedule = Schedule::parse(text, zone).unwrap();
            let mut at = DateTime::from_timestamp(start, 0).unwrap();
            for _ in 0..5 {
                let next = schedule.next_after(at).unwrap();
                prop_assert!(next > at);
                at = next;
            }
        }
    }
}
