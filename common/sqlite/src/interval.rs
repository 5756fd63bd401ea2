//! Intervals: months, days and microseconds, which PostgreSQL keeps apart.

use crate::{dates::DAY, decimal::Decimal, value::Rule};

/// An interval of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl Interval {
    /// `infinity` of PostgreSQL 17 and later, as it keeps it.
    const INFINITY: Self = Self { months: i32::MAX, days: i32::MAX, micros: i64::MAX };
    /// `-infinity`
    const MINUS_INFINITY: Self = Self { months: i32::MIN, days: i32::MIN, micros: i64::MIN };

    /// Whole days and the rest, both with the same sign: what a `timedelta` becomes.
    pub fn of_micros(micros: i64) -> Result<Self, Rule> {
        let days = i32::try_from(micros / DAY).map_err(|_| Rule::Range)?;
        Ok(Self { months: 0, days, micros: micros % DAY })
    }

    /// Reads `1 year 2 mons 3 days 04:05:06.7` as PostgreSQL writes it, `1 day, 2:03:04` as Python does, `P1Y2M3DT4H5M6.7S`.
    pub fn parse(text: &[u8]) -> Result<Self, Rule> {
        let text = std::str::from_utf8(text.trim_ascii()).map_err(|_| Rule::Form)?;
        match (text, text.strip_prefix('P')) {
            ("infinity", _) => Ok(Self::INFINITY),
            ("-infinity", _) => Ok(Self::MINUS_INFINITY),
            (_, Some(iso)) => parse_iso(iso),
            (_, None) => parse_words(text),
        }
    }

    /// As PostgreSQL reads it in every `intervalstyle`.
    pub fn write(self, out: &mut Vec<u8>) {
        if [Self::INFINITY, Self::MINUS_INFINITY].contains(&self) {
            out.extend_from_slice(if self.micros < 0 { b"-infinity" } else { b"infinity" });
            return;
        }
        let mut number = itoa::Buffer::new();
        if self.months != 0 {
            out.extend_from_slice(number.format(self.months).as_bytes());
            out.extend_from_slice(b" mons ");
        }
        if self.days != 0 {
            out.extend_from_slice(number.format(self.days).as_bytes());
            out.extend_from_slice(b" days ");
        }
        // Without a sign of its own the time would take that of the days before it.
        out.push(if self.micros < 0 { b'-' } else { b'+' });
        let micros = self.micros.unsigned_abs();
        let seconds = micros / 1_000_000;
        out.extend_from_slice(number.format(seconds / 3600).as_bytes());
        for part in [seconds / 60 % 60, seconds % 60] {
            out.push(b':');
            if part < 10 {
                out.push(b'0');
            }
            out.extend_from_slice(number.format(part).as_bytes());
        }
        if !micros.is_multiple_of(1_000_000) {
            let digits = number.format(micros % 1_000_000).as_bytes();
            out.push(b'.');
            out.extend(std::iter::repeat_n(b'0', 6 - digits.len()));
            out.extend_from_slice(digits);
        }
    }

    fn add(&mut self, number: &Decimal, unit: &str) -> Result<(), Rule> {
        let scaled = |factor: i64, scale: i32| -> Result<i64, Rule> {
            let value =
                number.scaled(scale).map_err(|rounds| if rounds { Rule::Scale } else { Rule::Range })?;
            value.checked_mul(factor).ok_or(Rule::Range)
        };
        let put = |field: &mut i32, value: i64| -> Result<(), Rule> {
            *field = i32::try_from(i64::from(*field) + value).map_err(|_| Rule::Range)?;
            Ok(())
        };
        match unit {
            "year" | "years" | "Y" => put(&mut self.months, scaled(12, 0)?),
            "mon" | "mons" | "month" | "months" | "M" => put(&mut self.months, scaled(1, 0)?),
            "week" | "weeks" | "W" => put(&mut self.days, scaled(7, 0)?),
            "day" | "days" | "D" => put(&mut self.days, scaled(1, 0)?),
            "hour" | "hours" | "h" => self.add_micros(scaled(3600, 6)?),
            "min" | "mins" | "minute" | "minutes" | "m" => self.add_micros(scaled(60, 6)?),
            "sec" | "secs" | "second" | "seconds" | "s" => self.add_micros(scaled(1, 6)?),
            _ => Err(Rule::Form),
        }
    }

    fn add_micros(&mut self, micros: i64) -> Result<(), Rule> {
        self.micros = self.micros.checked_add(micros).ok_or(Rule::Range)?;
        Ok(())
    }
}

fn parse_words(text: &str) -> Result<Interval, Rule> {
    let mut interval = Interval::default();
    let mut words = text.split([' ', ',']).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err(Rule::Form);
    }
    while let Some(word) = words.next() {
        if word.contains(':') {
            interval.add_micros(clock(word)?)?;
            continue;
        }
        let number = Decimal::parse(word.as_bytes()).ok_or(Rule::Form)?;
        let unit = words.next().ok_or(Rule::Form)?;
        // `m` and the like of ISO are no words.
        if unit.len() < 2 {
            return Err(Rule::Form);
        }
        interval.add(&number, unit)?;
    }
    Ok(interval)
}

fn clock(word: &str) -> Result<i64, Rule> {
    let (is_negative, clock) = match word.as_bytes() {
        [b'-', ..] => (true, &word[1..]),
        [b'+', ..] => (false, &word[1..]),
        _ => (false, word),
    };
    let mut parts = clock.split(':');
    let (hours, minutes, seconds) = (parts.next(), parts.next(), parts.next());
    if parts.next().is_some() {
        return Err(Rule::Form);
    }
    let whole = |part: Option<&str>| -> Result<i64, Rule> {
        let part = part.filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        part.ok_or(Rule::Form)?.parse().map_err(|_| Rule::Range)
    };
    let (hours, minutes) = (whole(hours)?, whole(minutes)?);
    let seconds = match seconds {
        None => 0,
        Some(text) if text.as_bytes().first().is_some_and(u8::is_ascii_digit) => {
            Decimal::parse(text.as_bytes())
                .ok_or(Rule::Form)?
                .scaled(6)
                .map_err(|rounds| if rounds { Rule::Scale } else { Rule::Range })?
        }
        Some(_) => return Err(Rule::Form),
    };
    if minutes > 59 || seconds >= 60_000_000 {
        return Err(Rule::NoSuchDate);
    }
    let micros = hours
        .checked_mul(60)
        .and_then(|total| total.checked_add(minutes))
        .and_then(|total| total.checked_mul(60_000_000))
        .and_then(|total| total.checked_add(seconds))
        .ok_or(Rule::Range)?;
    Ok(if is_negative { -micros } else { micros })
}

fn parse_iso(iso: &str) -> Result<Interval, Rule> {
    let mut interval = Interval::default();
    let mut rest = iso;
    let mut is_time = false;
    let mut any = false;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T').filter(|_| !is_time) {
            (is_time, rest) = (true, after);
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or(Rule::Form)?;
        let number = Decimal::parse(&rest.as_bytes()[..end]).ok_or(Rule::Form)?;
        let letter = &rest[end..=end];
        let lower = letter.to_ascii_lowercase();
        let unit = match (is_time, letter) {
            (true, "H" | "M" | "S") => lower.as_str(),
            (false, "Y" | "M" | "W" | "D") => letter,
            _ => return Err(Rule::Form),
        };
        interval.add(&number, unit)?;
        any = true;
        rest = &rest[end + 1..];
    }
    if any { Ok(interval) } else { Err(Rule::Form) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings_are_read() {
        let full = Interval { months: 14, days: 3, micros: 14_706_700_000 };
        for text in ["1 year 2 mons 3 days 04:05:06.7", "P1Y2M3DT4H5M6.7S", "14 mons 3 days +4:05:06.700000"]
        {
            assert_eq!(Interval::parse(text.as_bytes()), Ok(full), "{text}");
        }
        let python = Interval { months: 0, days: -1, micros: 86_399_000_000 };
        assert_eq!(Interval::parse(b"-1 day, 23:59:59"), Ok(python));
        let minus = Interval { months: 0, days: 1, micros: -7_200_000_000 };
        assert_eq!(Interval::parse(b"1 day -02:00:00"), Ok(minus));
        for text in
            ["", "P", "PT", "1", "1 m", "x days", "1:2:3:4", "1::2", "P1H", "1 day 25:61:00", "0.1 mons"]
        {
            assert!(Interval::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_interval_comes_back(months: i32, days: i32, micros in -7_000_000_000_000_000_i64..7_000_000_000_000_000) {
            let interval = Interval { months, days, micros };
            let mut text = Vec::new();
            interval.write(&mut text);
            proptest::prop_assert_eq!(Interval::parse(&text), Ok(interval));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,30}|P?[0-9YMWDTHS.+-]{0,20}|[0-9:. a-z,+-]{0,30}") {
            let _ = Interval::parse(text.as_bytes());
        }
    }
}
