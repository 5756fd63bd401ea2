//! crontab(5) expressions: when they are due. Pure: no clock, no environment.
//!
//! The semantics are Vixie cron's, of which every cron of a Linux distribution descends:
//! - five fields, names of months and days (any case), ranges, lists, steps after `*` or a range; 0 and 7 are Sunday;
//! - when day of month *and* day of week are restricted, either is enough; a field that begins with `*` does not count as
//!   restricted, even with a step (`*/2`), and then both have to hold;
//! - daylight saving: an expression with fixed hours and minutes runs once at the end of a gap that swallows its time, and
//!   only the first time when its time comes twice. One whose hour or minute begins with `*` follows the clock on the wall,
//!   so that "every ten minutes" stays every ten minutes.
//!
//! What other schedulers added (seconds, `L`, `W`, `#`, `?`) is refused: it would mean something else in a crontab.

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, TimeZone, Timelike, Utc};
use chrono_tz::{GapInfo, Tz};
use common::{Error, Result, ident::printable};

use crate::zone::parse_zone;

/// How far a search for the next run goes. The rarest date that exists is a 29 February on a given day of the week:
/// every 28 years, and 40 across a century without a leap day.
const SEARCH_YEARS: i32 = 41;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A parsed expression with its time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    zone: Tz,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    days_are_open: bool,
    weekdays_are_open: bool,
    follows_the_wall_clock: bool,
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", low: 0, high: 59, names: &[] },
    Field { name: "hour", low: 0, high: 23, names: &[] },
    Field { name: "day of month", low: 1, high: 31, names: &[] },
    Field { name: "month", low: 1, high: 12, names: &MONTHS },
    Field { name: "day of week", low: 0, high: 7, names: &DAYS },
];

impl Schedule {
    /// Reads an expression: five fields or `@daily` and its like, with `CRON_TZ=Zone` in front if it shall not run in `zone`.
    ///
    /// # Errors
    /// Usage, naming the field; also for an expression that no date ever matches.
    pub fn parse(text: &str, zone: Tz) -> Result<Self> {
        let invalid = |problem: String| {
            Error::usage(format!("the cron expression \"{}\": {problem}", printable(text)))
                .with_hint("Write five fields as in a crontab: minute hour day-of-month month day-of-week, such as \"0 3 * * *\".")
        };
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        let mut zone = zone;
        if let Some(name) = words.first().and_then(|word| word.strip_prefix("CRON_TZ=")) {
            zone = parse_zone(name.trim_matches(['"', '\'']))?;
            words.remove(0);
        }
        if let [word] = words[..]
            && word.starts_with('@')
        {
            words = match word.to_ascii_lowercase().as_str() {
                "@yearly" | "@annually" => vec!["0", "0", "1", "1", "*"],
                "@monthly" => vec!["0", "0", "1", "*", "*"],
                "@weekly" => vec!["0", "0", "*", "*", "0"],
                "@daily" | "@midnight" => vec!["0", "0", "*", "*", "*"],
                "@hourly" => vec!["0", "*", "*", "*", "*"],
                "@reboot" => {
                    return Err(invalid("@reboot has no time".to_owned()).with_hint(
                        "A run that was missed while the machine was off is caught up without it.",
                    ));
                }
                _ => return Err(invalid(format!("{word} is not known"))),
            };
        }
        let [minute, hour, day, month, weekday] = words[..] else {
            return Err(match words.len() {
                6 => invalid("it has six fields; seconds are not part of a crontab".to_owned()),
                found if found > 7 => {
                    Error::usage(format!("the cron expression has {found} fields and not five"))
                        .with_hint("Put it in quotes: the shell takes a * for the names of files.")
                }
                found => invalid(format!("it has {found} fields and not five")),
            });
        };
        let mut sets = [0u64; 5];
        for ((set, field), word) in sets.iter_mut().zip(&FIELDS).zip([minute, hour, day, month, weekday]) {
            *set = field.parse(word).map_err(|problem| invalid(format!("{}: {problem}", field.name)))?;
        }
        let [minutes, hours, days, months, mut weekdays] = sets;
        // Both 0 and 7 are Sunday.
        weekdays |= (weekdays >> 7) & 1;
        let schedule = Self {
            text: words.join(" "),
            zone,
            minutes,
            hours,
            days,
            months,
            weekdays,
            days_are_open: day.starts_with('*'),
            weekdays_are_open: weekday.starts_with('*'),
            follows_the_wall_clock: minute.starts_with('*') || hour.starts_with('*'),
        };
        match schedule.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(invalid("no date ever matches it".to_owned())),
        }
    }

    /// The five fields.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The time zone.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first instant after `after` at which it is due.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // A day early: at the end of a gap, the instant may have another date than the time that it stands for.
        let mut date = after.with_timezone(&self.zone).date_naive().checked_sub_days(Days::new(1))?;
        let last_year = date.year() + SEARCH_YEARS;
        while date.year() <= last_year {
            if self.matches(date)
                && let Some(found) = self.instants(date).into_iter().find(|instant| *instant > after)
            {
                return Some(found);
            }
            date = date.succ_opt()?;
        }
        None
    }

    /// The last instant in (`after`, `until`] at which it is due, and how many there are. Those of more than a year ago are
    /// not counted.
    pub fn due_between(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<(DateTime<Utc>, u64)> {
        let after = after.max(until - chrono::Duration::days(366));
        let day_of = |at: DateTime<Utc>| at.with_timezone(&self.zone).date_naive();
        let mut date = day_of(after).checked_sub_days(Days::new(1))?;
        let (mut last, mut count) = (None, 0);
        while date <= day_of(until) {
            if self.matches(date) {
                for at in self.instants(date).into_iter().filter(|at| *at > after && *at <= until) {
                    // The end of a gap may stand for times of two days.
                    if last != Some(at) {
                        count += 1;
                    }
                    last = last.max(Some(at));
                }
            }
            date = date.succ_opt()?;
        }
        last.map(|last| (last, count))
    }

    fn matches(&self, date: NaiveDate) -> bool {
        let has = |set: u64, number: u32| set & (1 << number) != 0;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().num_days_from_sunday());
        let by_day =
            if self.days_are_open || self.weekdays_are_open { day && weekday } else { day || weekday };
        by_day && has(self.months, date.month())
    }

    /// The instants that the times of a local date stand for, in order.
    fn instants(&self, date: NaiveDate) -> Vec<DateTime<Utc>> {
        let mut instants = Vec::new();
        for hour in (0..24).filter(|hour| self.hours & (1 << hour) != 0) {
            for minute in (0..60).filter(|minute| self.minutes & (1 << minute) != 0) {
                let Some(local) = date.and_hms_opt(hour, minute, 0) else { continue };
                match self.zone.from_local_datetime(&local) {
                    MappedLocalTime::Single(at) => instants.push(at.to_utc()),
                    MappedLocalTime::Ambiguous(first, second) => {
                        instants.push(first.to_utc());
                        if self.follows_the_wall_clock {
                            instants.push(second.to_utc());
                        }
                    }
                    MappedLocalTime::None => {
                        let end = GapInfo::new(&local, &self.zone).and_then(|gap| gap.end);
                        if let (false, Some(end)) = (self.follows_the_wall_clock, end) {
                            instants.push(end.to_utc());
                        }
                    }
                }
            }
        }
        instants.sort_unstable();
        instants.dedup();
        instants
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.zone)
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (part, None),
            };
            let (first, last) = if range == "*" {
                (self.low, if self.names.len() == 7 { 6 } else { self.high })
            } else if let Some((first, last)) = range.split_once('-') {
                (self.number(first)?, self.number(last)?)
            } else {
                let number = self.number(range)?;
                if step.is_some() {
                    return Err(format!(
                        "a step needs a range: {number}-{}/{}",
                        self.high,
                        step.unwrap_or("2")
                    ));
                }
                (number, number)
            };
            if first > last {
                let wrapped = format!("{first}-{},{}-{last}", self.high, self.low);
                return Err(format!("the range {range} ends before it begins; write it as {wrapped}"));
            }
            let step: u32 = match step {
                None => 1,
                Some(step) => plain_number(step)
                    .filter(|step| *step > 0)
                    .ok_or_else(|| format!("\"{}\" is not a step", printable(step)))?,
            };
            for number in (first..=last).step_by(step as usize) {
                set |= 1 << number;
            }
        }
        Ok(set)
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(index) = self.names.iter().position(|name| *name == lower) {
            return Ok(u32::try_from(index).unwrap_or(0) + self.low);
        }
        let number = plain_number(text).ok_or_else(|| format!("\"{}\" is not a value", printable(text)))?;
        if (self.low..=self.high).contains(&number) {
            Ok(number)
        } else {
            Err(format!("{number} is not between {} and {}", self.low, self.high))
        }
    }
}

/// Digits only: `parse` alone would take `+5`.
fn plain_number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `2026-03-29 03:00 CEST`, for people.
pub fn local_time(at: DateTime<Utc>, zone: Tz) -> String {
    let local = at.with_timezone(&zone);
    let seconds = if local.second() == 0 { "" } else { ":%S" };
    local.format(&format!("%a %Y-%m-%d %H:%M{seconds} %Z")).to_string()
}

#[cfg(test)]
mod tests;
