//! Numbers: exact or refused.

use std::ops::RangeInclusive;

use super::Scratch;
use crate::{
    canonical::CanonicalRow,
    decimal::Decimal,
    value::{Cell, Rule},
};

/// Digits that tell every double from every other.
const DOUBLE_DIGITS: usize = 17;
/// Digits before and after the point that an unlimited `numeric` holds.
const NUMERIC_DIGITS: (i64, i32) = (131_072, 16_383);

/// A double as PostgreSQL writes one: the shortest digits that are read back as it.
pub(super) fn shown(value: f64, buffer: &mut zmij::Buffer) -> &str {
    match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        value if value.is_nan() => "NaN",
        value => buffer.format_finite(value),
    }
}

fn is_negative_zero(value: f64) -> bool {
    value == 0.0 && value.is_sign_negative()
}

pub(super) fn integer(
    cell: Cell<'_>,
    range: RangeInclusive<i64>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
) -> Result<(), Rule> {
    let value = match cell {
        Cell::Integer(value) => value,
        Cell::Real(value) => integral(value)?,
        Cell::Text(text) => parse_integer(text)?,
        _ => return Err(Rule::StorageClass),
    };
    if !range.contains(&value) {
        return Err(Rule::Range);
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    canonical.integer(value);
    Ok(())
}

/// 2^63: the first double that is too big.
const TOO_BIG: f64 = 9_223_372_036_854_775_808.0;

fn integral(value: f64) -> Result<i64, Rule> {
    if !value.is_finite() {
        Err(Rule::NotFinite)
    } else if is_negative_zero(value) {
        Err(Rule::NegativeZero)
    } else if value.fract() != 0.0 {
        Err(Rule::NotExact)
    } else if (-TOO_BIG..TOO_BIG).contains(&value) {
        // Exact: a whole number within the range.
        #[allow(clippy::cast_possible_truncation)]
        Ok(value as i64)
    } else {
        Err(Rule::Range)
    }
}

fn parse_integer(text: &[u8]) -> Result<i64, Rule> {
    let text = text.trim_ascii();
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Rule::Form);
    }
    std::str::from_utf8(text).map_err(|_| Rule::Form)?.parse().map_err(|_| Rule::Range)
}

pub(super) fn float8(
    cell: Cell<'_>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let value = double(cell, scratch)?;
    out.extend_from_slice(shown(value, &mut zmij::Buffer::new()).as_bytes());
    canonical.float8(value);
    Ok(())
}

/// The double that a value is, with every digit.
fn double(cell: Cell<'_>, scratch: &mut Scratch) -> Result<f64, Rule> {
    match cell {
        Cell::Real(value) => Ok(value),
        Cell::Integer(value) => exact_double(value).ok_or(Rule::NotExact),
        Cell::Text(text) => parse_double(text, scratch),
        _ => Err(Rule::StorageClass),
    }
}

fn exact_double(value: i64) -> Option<f64> {
    let double = value as f64;
    // The highest integers round up to 2^63, which is none of them.
    #[allow(clippy::cast_possible_truncation)]
    let is_exact = double < TOO_BIG && double as i64 == value;
    is_exact.then_some(double)
}

/// A text is a double if that double, written with as many digits, is the text: no digit is lost.
fn parse_double(text: &[u8], scratch: &mut Scratch) -> Result<f64, Rule> {
    let text = text.trim_ascii();
    if let Some(special) = special(text) {
        return Ok(special);
    }
    if !scratch.decimal.read(text) {
        return Err(Rule::Form);
    }
    let value: f64 = std::str::from_utf8(text).map_err(|_| Rule::Form)?.parse().map_err(|_| Rule::Form)?;
    if !value.is_finite() {
        return Err(Rule::Range);
    }
    let (said, digits) = (&scratch.decimal, scratch.decimal.digits.len());
    if said.is_zero() {
        return Ok(value);
    }
    if digits > DOUBLE_DIGITS {
        return Err(Rule::NotExact);
    }
    let written = format!("{value:.*e}", digits - 1);
    if scratch.other.read(written.as_bytes()) && scratch.other == *said {
        Ok(value)
    } else {
        Err(Rule::NotExact)
    }
}

/// The words for what is no number, as PostgreSQL reads them.
pub(crate) fn special(text: &[u8]) -> Option<f64> {
    let (is_negative, word) = match text {
        [b'-', word @ ..] => (true, word),
        [b'+', word @ ..] => (false, word),
        word => (false, word),
    };
    if word.eq_ignore_ascii_case(b"infinity") || word.eq_ignore_ascii_case(b"inf") {
        Some(if is_negative { f64::NEG_INFINITY } else { f64::INFINITY })
    } else if text.eq_ignore_ascii_case(b"nan") {
        Some(f64::NAN)
    } else {
        None
    }
}

/// A double fits if it is a float4, or if its shortest digits are those that PostgreSQL writes for one: then it was meant as one.
pub(super) fn float4(
    cell: Cell<'_>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let value = double(cell, scratch)?;
    #[allow(clippy::cast_possible_truncation)]
    let single = value as f32;
    if value.is_finite() {
        if !single.is_finite() || (single == 0.0 && value != 0.0) {
            return Err(Rule::Range);
        }
        if f64::from(single) != value {
            let read = scratch.decimal.read_f64(value) && scratch.other.read_f32(single);
            if !read || scratch.decimal != scratch.other {
                return Err(Rule::NotExact);
            }
        }
    }
    let mut buffer = zmij::Buffer::new();
    let text = if single.is_finite() { buffer.format_finite(single) } else { shown(value, &mut buffer) };
    out.extend_from_slice(text.as_bytes());
    canonical.float4(single);
    Ok(())
}

pub(super) fn numeric(
    cell: Cell<'_>,
    limit: Option<(u16, i16)>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let decimal = &mut scratch.decimal;
    let infinite = match cell {
        Cell::Integer(value) => {
            decimal.read_i64(value);
            None
        }
        Cell::Real(value) if decimal.read_f64(value) => None,
        Cell::Real(value) => Some(value),
        Cell::Text(text) => match special(text.trim_ascii()) {
            Some(value) => Some(value),
            None if decimal.read(text) => None,
            None => return Err(Rule::Form),
        },
        _ => return Err(Rule::StorageClass),
    };
    if let Some(value) = infinite {
        // `numeric(p,s)` has NaN, and no infinity.
        if limit.is_some() && !value.is_nan() {
            return Err(Rule::NotFinite);
        }
        let name = shown(value, &mut zmij::Buffer::new()).to_owned();
        out.extend_from_slice(name.as_bytes());
        canonical.numeric_special(name.as_bytes());
        return Ok(());
    }
    if decimal.is_zero() && decimal.is_negative {
        return Err(Rule::NegativeZero);
    }
    check_numeric(decimal, limit)?;
    match cell {
        // Zeros at the end are kept where the column has no scale of its own.
        Cell::Text(text) if limit.is_none() => out.extend_from_slice(text.trim_ascii()),
        _ => write_decimal(decimal, out),
    }
    canonical.numeric(decimal);
    Ok(())
}

fn check_numeric(decimal: &Decimal, limit: Option<(u16, i16)>) -> Result<(), Rule> {
    let (whole, scale) = match limit {
        None => NUMERIC_DIGITS,
        Some((precision, scale)) => (i64::from(precision) - i64::from(scale), i32::from(scale)),
    };
    if decimal.is_zero() {
        Ok(())
    } else if decimal.exponent < -scale {
        Err(if limit.is_some() { Rule::Scale } else { Rule::Range })
    } else if decimal.whole_digits() > whole {
        Err(Rule::Range)
    } else {
        Ok(())
    }
}

/// Digits and an exponent: `12345e-2`, which `numeric` reads exactly.
fn write_decimal(decimal: &Decimal, out: &mut Vec<u8>) {
    if decimal.is_negative {
        out.push(b'-');
    }
    if decimal.is_zero() {
        out.push(b'0');
        return;
    }
    out.extend_from_slice(&decimal.digits);
    if decimal.exponent != 0 {
        out.push(b'e');
        out.extend_from_slice(itoa::Buffer::new().format(decimal.exponent).as_bytes());
    }
}
