//! Dates and times as text: read in the forms that frameworks write and that PostgreSQL writes, written in PostgreSQL's.

use crate::value::Rule;

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;
/// 4714-11-24 BC, PostgreSQL's first day.
pub(crate) const FIRST_DAY: i64 = -2_440_588;
/// 5874897-12-31, its last day.
pub(crate) const LAST_DAY: i64 = 2_145_042_905;
/// 2000-01-01
pub(crate) const DAY_2000: i64 = 10_957;
/// The day after the last one of a timestamp, 294277-01-01.
const TIMESTAMP_END: i64 = 106_762_940;

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Later (or, if negative, earlier) than everything.
    Infinite {
        /// Whether it is the earlier one.
        is_negative: bool,
    },
    /// Parts of a date and time.
    At(Parts),
}

/// A date, a time of day, an offset: whatever was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Parts {
    /// Days since 1970-01-01.
    pub day: Option<i64>,
    /// Microseconds since midnight.
    pub time: Option<i64>,
    /// Seconds east of UTC.
    pub offset: Option<i32>,
}

/// Days since 1970-01-01 of a day in the Gregorian calendar, year 0 being 1 BC; `None` if there is no such day.
pub(crate) fn day_of(year: i64, month: u32, day: u32) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of them; an era has 400 years.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The year (0 being 1 BC), month and day.
pub(crate) fn date_of(day: i64) -> (i64, u32, u32) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(0), u32::try_from(day).unwrap_or(0))
}

/// Reads `YYYY-MM-DD`, `HH:MM[:SS[.fraction]]`, both with a blank or `T` between, and an offset behind (`Z`, `UTC`, `+HH`, `+HHMM`,
/// `+HH:MM`, `+HH:MM:SS`, with or without a blank); years of more than four digits; ` BC` at the end; `infinity`, `-infinity`.
///
/// # Errors
/// [`Rule::Form`], [`Rule::NoSuchDate`], [`Rule::Scale`] for a fraction finer than microseconds.
pub(crate) fn parse(text: &[u8]) -> Result<Moment, Rule> {
    let text = text.trim_ascii();
    match text {
        b"infinity" => return Ok(Moment::Infinite { is_negative: false }),
        b"-infinity" => return Ok(Moment::Infinite { is_negative: true }),
        _ => {}
    }
    let (text, is_bc) = match text.strip_suffix(b" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut rest = Rest(text);
    let digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut parts = Parts::default();
    if digits >= 4 {
        let year = rest.number(4, 7)?;
        rest.expect(b'-')?;
        let month = rest.number(2, 2)?;
        rest.expect(b'-')?;
        let day = rest.number(2, 2)?;
        let year = if is_bc { 1 - i64::from(year) } else { i64::from(year) };
        if year == 0 && !is_bc {
            return Err(Rule::NoSuchDate);
        }
        parts.day = Some(day_of(year, month, day).ok_or(Rule::NoSuchDate)?);
        if rest.0.is_empty() {
            return Ok(Moment::At(parts));
        }
        match rest.0 {
            [b'T' | b't' | b' ', ..] => rest.0 = &rest.0[1..],
            _ => return Err(Rule::Form),
        }
    } else if is_bc {
        return Err(Rule::Form);
    }
    let time = rest.time()?;
    // The end of a day is a time of day; together with a date it would be another one.
    if time == DAY && parts.day.is_some() {
        return Err(Rule::NoSuchDate);
    }
    parts.time = Some(time);
    parts.offset = rest.offset()?;
    Ok(Moment::At(parts))
}

/// What is left of a text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self, least: usize, most: usize) -> Result<u32, Rule> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return Err(Rule::Form);
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    }

    fn expect(&mut self, byte: u8) -> Result<(), Rule> {
        if self.take(byte) { Ok(()) } else { Err(Rule::Form) }
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn time(&mut self) -> Result<i64, Rule> {
        let hour = self.number(2, 2)?;
        self.expect(b':')?;
        let minute = self.number(2, 2)?;
        let (mut second, mut micros) = (0, 0);
        if self.take(b':') {
            second = self.number(2, 2)?;
            if self.take(b'.') || self.take(b',') {
                micros = self.fraction()?;
            }
        }
        let is_end = (hour, minute, second, micros) == (24, 0, 0, 0);
        if (hour > 23 && !is_end) || minute > 59 || second > 59 {
            return Err(Rule::NoSuchDate);
        }
        Ok((i64::from(hour * 3600 + minute * 60 + second)) * 1_000_000 + micros)
    }

    fn fraction(&mut self) -> Result<i64, Rule> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        if digits.is_empty() {
            return Err(Rule::Form);
        }
        let (kept, beyond) = digits.split_at(count.min(6));
        if beyond.iter().any(|digit| *digit != b'0') {
            return Err(Rule::Scale);
        }
        let value = kept.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Ok((kept.len()..6).fold(value, |value, _| value * 10))
    }

    fn offset(&mut self) -> Result<Option<i32>, Rule> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.take(b' ');
        if matches!(self.0, b"Z" | b"z" | b"UTC" | b"GMT") {
            return Ok(Some(0));
        }
        let sign = match self.0 {
            [b'+', rest @ ..] => {
                self.0 = rest;
                1
            }
            [b'-', rest @ ..] => {
                self.0 = rest;
                -1
            }
            _ => return Err(Rule::Form),
        };
        let hours = self.number(2, 2)?;
        let (mut minutes, mut seconds) = (0, 0);
        if self.take(b':') {
            minutes = self.number(2, 2)?;
            if self.take(b':') {
                seconds = self.number(2, 2)?;
            }
        } else if !self.0.is_empty() {
            minutes = self.number(2, 2)?;
        }
        if !self.0.is_empty() {
            return Err(Rule::Form);
        }
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(Rule::NoSuchDate);
        }
        let total = i32::try_from(hours * 3600 + minutes * 60 + seconds).map_err(|_| Rule::NoSuchDate)?;
        Ok(Some(sign * total))
    }
}

/// Microseconds since 2000-01-01 00:00, where PostgreSQL counts from, of a day and a time of day. (From 1970 the last years of its range
/// would not fit 64 bits.)
pub(crate) fn micros_of(day: i64, time: i64) -> Result<i64, Rule> {
    if (FIRST_DAY..TIMESTAMP_END).contains(&day) {
        Ok((day - DAY_2000) * DAY + time)
    } else {
        Err(Rule::Range)
    }
}

/// Whether PostgreSQL's timestamps reach there.
pub(crate) fn in_timestamp_range(micros: i64) -> bool {
    (FIRST_DAY..TIMESTAMP_END).contains(&(micros.div_euclid(DAY) + DAY_2000))
}

fn two(value: u32, out: &mut Vec<u8>) {
    let value = u8::try_from(value % 100).unwrap_or(0);
    out.extend_from_slice(&[b'0' + value / 10, b'0' + value % 10]);
}

/// Writes the date without ` BC`, and says whether that has to follow at the very end.
fn put_date(day: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = date_of(day);
    let is_bc = year <= 0;
    let shown = if is_bc { 1 - year } else { year };
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(shown).as_bytes();
    out.extend(std::iter::repeat_n(b'0', 4_usize.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(day, out);
    is_bc
}

/// `YYYY-MM-DD[ BC]`
pub(crate) fn write_date(day: i64, out: &mut Vec<u8>) {
    if put_date(day, out) {
        out.extend_from_slice(b" BC");
    }
}

/// `HH:MM:SS[.ffffff]`
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = u32::try_from(micros / 1_000_000).unwrap_or(0);
    two(seconds / 3600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    write_fraction(micros % 1_000_000, out);
}

fn write_fraction(mut micros: i64, out: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    let mut digits = [b'0'; 7];
    digits[0] = b'.';
    let mut last = 0;
    for at in (1..7).rev() {
        let digit = u8::try_from(micros % 10).unwrap_or(0);
        digits[at] = b'0' + digit;
        micros /= 10;
        if digit != 0 && last == 0 {
            last = at;
        }
    }
    out.extend_from_slice(&digits[..=last]);
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff][+00][ BC]` of microseconds since 2000.
pub(crate) fn write_timestamp(micros: i64, has_zone: bool, out: &mut Vec<u8>) {
    let is_bc = put_date(micros.div_euclid(DAY) + DAY_2000, out);
    out.push(b' ');
    write_time(micros.rem_euclid(DAY), out);
    if has_zone {
        out.extend_from_slice(b"+00");
    }
    if is_bc {
        out.extend_from_slice(b" BC");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Option<i64>, Option<i64>, Option<i32>);

    fn at(text: &str) -> Result<Read, Rule> {
        match parse(text.as_bytes())? {
            Moment::At(parts) => Ok((parts.day, parts.time, parts.offset)),
            Moment::Infinite { .. } => Err(Rule::NotFinite),
        }
    }

    #[test]
    fn the_forms_of_frameworks_are_read() {
        let noon = Some(43_200_000_000);
        for (text, day, time, offset) in [
            ("1970-01-02", Some(1), None, None),
            ("1970-01-02 12:00", Some(1), noon, None),
            ("1970-01-02T12:00:00.000000", Some(1), noon, None),
            ("1970-01-02 12:00:00.000 +00:00", Some(1), noon, Some(0)),
            ("1970-01-02T12:00:00Z", Some(1), noon, Some(0)),
            ("1970-01-02 12:00:00 UTC", Some(1), noon, Some(0)),
            ("1970-01-02 12:00:00+0530", Some(1), noon, Some(19_800)),
            ("1970-01-02 12:00:00-08", Some(1), noon, Some(-28_800)),
            ("1970-01-02 12:00:00+00:53:28", Some(1), noon, Some(3_208)),
            ("12:00:00", None, noon, None),
            ("12:00", None, noon, None),
            ("24:00:00", None, Some(DAY), None),
            ("0001-01-01 BC", Some(-719_528), None, None),
            ("10000-01-01", Some(2_932_897), None, None),
        ] {
            assert_eq!(at(text), Ok((day, time, offset)), "{text}");
        }
        assert_eq!(at("1970-01-01 00:00:00.1234560"), Ok((Some(0), Some(123_456), None)));
    }

    #[test]
    fn what_is_no_date_is_said() {
        for (text, rule) in [
            ("2023-02-29", Rule::NoSuchDate),
            ("1900-02-29", Rule::NoSuchDate),
            ("2023-13-01", Rule::NoSuchDate),
            ("0000-01-01", Rule::NoSuchDate),
            ("2023-01-01 24:00:00", Rule::NoSuchDate),
            ("24:00:00.000001", Rule::NoSuchDate),
            ("2023-01-01 23:59:60", Rule::NoSuchDate),
            ("2023-01-01 00:00:00.1234567", Rule::Scale),
            ("2023-1-1", Rule::Form),
            ("23-01-01", Rule::Form),
            ("20230101", Rule::Form),
            ("2023-01-01x", Rule::Form),
            ("2023-01-01 ", Rule::Form),
            ("now", Rule::Form),
            ("", Rule::Form),
            ("2023-01-01 00:00:00 Europe/Berlin", Rule::Form),
            ("2023-01-01 00:00:00+1", Rule::Form),
        ] {
            // White space around a date means nothing to PostgreSQL either.
            let expected = if text == "2023-01-01 " { Ok((Some(19_358), None, None)) } else { Err(rule) };
            assert_eq!(at(text), expected, "{text}");
        }
    }

    #[test]
    fn the_first_and_the_last_day_of_postgresql_are_in_range() {
        assert_eq!(day_of(-4713, 11, 24), Some(FIRST_DAY));
        assert_eq!(day_of(5_874_897, 12, 31), Some(LAST_DAY));
        assert_eq!(day_of(294_277, 1, 1), Some(TIMESTAMP_END));
    }

    proptest::proptest! {
        #[test]
        fn a_day_comes_back(day in FIRST_DAY..=LAST_DAY) {
            let (year, month, of_month) = date_of(day);
            proptest::prop_assert_eq!(day_of(year, month, of_month), Some(day));
            let mut text = Vec::new();
            write_date(day, &mut text);
            proptest::prop_assert_eq!(parse(&text), Ok(Moment::At(Parts { day: Some(day), ..Parts::default() })));
        }

        #[test]
        fn a_timestamp_comes_back(micros in (FIRST_DAY - DAY_2000) * DAY..(TIMESTAMP_END - DAY_2000) * DAY) {
            let mut text = Vec::new();
            write_timestamp(micros, true, &mut text);
            let Ok(Moment::At(parts)) = parse(&text) else { panic!("{text:?}") };
            proptest::prop_assert_eq!(micros_of(parts.day.unwrap(), parts.time.unwrap()), Ok(micros));
            proptest::prop_assert_eq!(parts.offset, Some(0));
        }

        #[test]
        fn chrono_agrees_about_days(year in -200_000_i32..200_000, month in 0_u32..14, day in 0_u32..33) {
            let other = chrono::NaiveDate::from_ymd_opt(year, month, day)
                .map(|date| (date - chrono::NaiveDate::default()).num_days());
            proptest::prop_assert_eq!(day_of(i64::from(year), month, day), other);
        }

        #[test]
        fn nothing_panics(text in "[-+ 0-9:.TZBCUinfty]{0,40}|\\PC{0,20}|[0-9]{1,8}-[0-9]{1,3}-[0-9]{1,3}[T ]?[0-9:.+-]{0,20}") {
            let _ = parse(text.as_bytes());
        }
    }
}
