//! Dates, times and intervals, from text and from numbers.

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeZone};
use chrono_tz::Tz;

use super::Scratch;
use crate::{
    canonical::CanonicalRow,
    dates::{self, DAY, DAY_2000, FIRST_DAY, LAST_DAY, Moment, Parts},
    decimal::Decimal,
    interval::Interval,
    target::{ColumnRule, EpochUnit},
    value::{Cell, Rule},
};

/// Milliseconds between the beginning of Julian days and 1970-01-01.
const JULIAN_EPOCH_MS: i64 = 210_866_760_000_000;
/// The last millisecond that SQLite's own functions know: 9999-12-31 23:59:59.999.
const JULIAN_LAST_MS: f64 = 464_269_060_799_999.0;

/// Where a value comes from: text, or a number with its unit.
enum Source {
    Text(Moment),
    /// Microseconds since 1970-01-01 00:00 UTC.
    Epoch(i64),
}

fn source(cell: Cell<'_>, rule: &ColumnRule, scratch: &mut Scratch) -> Result<Source, Rule> {
    match cell {
        Cell::Text(text) => dates::parse(text).map(Source::Text),
        Cell::Integer(_) | Cell::Real(_) => {
            epoch_micros(cell, rule.epoch.ok_or(Rule::EpochUnit)?, &mut scratch.decimal).map(Source::Epoch)
        }
        _ => Err(Rule::StorageClass),
    }
}

/// A number as microseconds.
pub(crate) fn epoch_micros(cell: Cell<'_>, unit: EpochUnit, decimal: &mut Decimal) -> Result<i64, Rule> {
    let scale = match unit {
        EpochUnit::Seconds => 6,
        EpochUnit::Milliseconds => 3,
        EpochUnit::Microseconds => 0,
        EpochUnit::Nanoseconds => -3,
        EpochUnit::JulianDay => return julian_micros(cell),
    };
    match cell {
        Cell::Integer(value) => decimal.read_i64(value),
        Cell::Real(value) if decimal.read_f64(value) => {}
        _ => return Err(Rule::NotFinite),
    }
    decimal.scaled(scale).map_err(|rounds| if rounds { Rule::Scale } else { Rule::Range })
}

/// As SQLite's own date functions read it: to the nearest millisecond.
fn julian_micros(cell: Cell<'_>) -> Result<i64, Rule> {
    let days = match cell {
        Cell::Integer(value) if (0..=5_373_484).contains(&value) => value as f64,
        Cell::Real(value) => value,
        _ => return Err(Rule::Range),
    };
    let milliseconds = (days * 86_400_000.0 + 0.5).floor();
    if !(0.0..=JULIAN_LAST_MS).contains(&milliseconds) {
        return Err(Rule::Range);
    }
    // Whole and in range.
    #[allow(clippy::cast_possible_truncation)]
    Ok((milliseconds as i64 - JULIAN_EPOCH_MS) * 1000)
}

/// The instant of a local time in a zone, both in microseconds since 2000.
fn to_utc(local: i64, zone: Tz) -> Result<i64, Rule> {
    if zone == Tz::UTC {
        return Ok(local);
    }
    match zone.from_local_datetime(&naive(local)?) {
        LocalResult::Single(instant) => since_2000(instant.timestamp_micros()),
        _ => Err(Rule::LocalTime),
    }
}

/// The local time of an instant in a zone, if no other instant has the same.
fn to_local(instant: i64, zone: Tz) -> Result<i64, Rule> {
    if zone == Tz::UTC {
        return Ok(instant);
    }
    let local = zone.from_utc_datetime(&naive(instant)?).naive_local().and_utc().timestamp_micros();
    let local = since_2000(local)?;
    if to_utc(local, zone)? == instant { Ok(local) } else { Err(Rule::LocalTime) }
}

fn since_2000(epoch_micros: i64) -> Result<i64, Rule> {
    epoch_micros.checked_sub(DAY_2000 * DAY).ok_or(Rule::Range)
}

fn naive(micros: i64) -> Result<NaiveDateTime, Rule> {
    let epoch_micros = micros.checked_add(DAY_2000 * DAY).ok_or(Rule::Range)?;
    DateTime::from_timestamp_micros(epoch_micros).map(|time| time.naive_utc()).ok_or(Rule::Range)
}

/// Microseconds of a column with or without a zone.
fn micros(parts: Parts, has_zone: bool, zone: Option<Tz>) -> Result<i64, Rule> {
    let day = parts.day.ok_or(Rule::Form)?;
    let wall = dates::micros_of(day, parts.time.unwrap_or(0))?;
    let instant = |offset: i32| wall - i64::from(offset) * 1_000_000;
    match (parts.offset, has_zone) {
        (Some(offset), true) => Ok(instant(offset)),
        (None, true) => to_utc(wall, zone.ok_or(Rule::ZoneMissing)?),
        (None, false) => Ok(wall),
        (Some(0), false) if zone.is_none() => Ok(wall),
        (Some(offset), false) => to_local(instant(offset), zone.ok_or(Rule::ZoneUnwanted)?),
    }
}

fn check_digits(micros: i64, digits: u8) -> Result<(), Rule> {
    let step = 10_i64.pow(u32::from(6_u8.saturating_sub(digits)));
    if micros % step == 0 { Ok(()) } else { Err(Rule::Scale) }
}

fn infinite(is_negative: bool, out: &mut Vec<u8>) -> i64 {
    out.extend_from_slice(if is_negative { b"-infinity" } else { b"infinity" });
    if is_negative { i64::MIN } else { i64::MAX }
}

pub(super) fn timestamp(
    cell: Cell<'_>,
    (digits, has_zone): (u8, bool),
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let micros = match source(cell, rule, scratch)? {
        Source::Text(Moment::Infinite { is_negative }) => {
            canonical.timestamp(infinite(is_negative, out));
            return Ok(());
        }
        Source::Text(Moment::At(parts)) => micros(parts, has_zone, rule.zone)?,
        Source::Epoch(micros) if has_zone => since_2000(micros)?,
        Source::Epoch(micros) => to_local(since_2000(micros)?, rule.zone.unwrap_or(Tz::UTC))?,
    };
    if !dates::in_timestamp_range(micros) {
        return Err(Rule::Range);
    }
    check_digits(micros, digits)?;
    dates::write_timestamp(micros, has_zone, out);
    canonical.timestamp(micros);
    Ok(())
}

pub(super) fn date(
    cell: Cell<'_>,
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let (day, time) = match source(cell, rule, scratch)? {
        Source::Text(Moment::Infinite { is_negative }) => {
            canonical.date(infinite(is_negative, out));
            return Ok(());
        }
        Source::Text(Moment::At(Parts { day, time, offset })) => {
            if offset.is_some_and(|offset| offset != 0) {
                return Err(Rule::ZoneUnwanted);
            }
            (day.ok_or(Rule::Form)?, time.unwrap_or(0))
        }
        Source::Epoch(micros) => (micros.div_euclid(DAY), micros.rem_euclid(DAY)),
    };
    if time != 0 {
        return Err(Rule::PartWouldBeLost);
    }
    if !(FIRST_DAY..=LAST_DAY).contains(&day) {
        return Err(Rule::Range);
    }
    dates::write_date(day, out);
    canonical.date(day);
    Ok(())
}

/// The days that frameworks put before a time of day: 1970-01-01, and 2000-01-01 as Rails does.
const NO_DAY: [i64; 2] = [0, DAY_2000];

pub(super) fn time(
    cell: Cell<'_>,
    digits: u8,
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let time = match source(cell, rule, scratch)? {
        Source::Text(Moment::Infinite { .. }) => return Err(Rule::Form),
        Source::Text(Moment::At(Parts { day, time, offset })) => {
            if day.is_some_and(|day| !NO_DAY.contains(&day)) {
                return Err(Rule::PartWouldBeLost);
            }
            if offset.is_some_and(|offset| offset != 0) {
                return Err(Rule::ZoneUnwanted);
            }
            time.ok_or(Rule::Form)?
        }
        Source::Epoch(micros) if (0..DAY).contains(&micros) => micros,
        Source::Epoch(_) => return Err(Rule::PartWouldBeLost),
    };
    check_digits(time, digits)?;
    dates::write_time(time, out);
    canonical.time(time);
    Ok(())
}

/// From text, from a number with its unit, and from a date and time: 1970-01-01 plus the interval, as SQLAlchemy writes it.
pub(super) fn interval(
    cell: Cell<'_>,
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let interval = match cell {
        Cell::Text(text) => match dates::parse(text) {
            Ok(Moment::At(Parts { day: Some(day), time, offset: None })) => {
                Interval::of_micros(dates::micros_of(day, time.unwrap_or(0))? + DAY_2000 * DAY)?
            }
            _ => Interval::parse(text)?,
        },
        Cell::Integer(_) | Cell::Real(_) => {
            let unit = rule.epoch.filter(|unit| *unit != EpochUnit::JulianDay).ok_or(Rule::EpochUnit)?;
            Interval::of_micros(epoch_micros(cell, unit, &mut scratch.decimal)?)?
        }
        _ => return Err(Rule::StorageClass),
    };
    interval.write(out);
    canonical.interval(interval.months, interval.days, interval.micros);
    Ok(())
}
