//! A field of COPY text as the value that SQLite stores. The way back is [`crate::encode`], by the rule of the column's type.

use super::types::{Form, SqliteType};
use crate::{
    copy,
    dates::{self, DAY, DAY_2000, Moment, Parts},
    decimal::Decimal,
    encode::special,
    target::Target,
};

/// A value as SQLite stores it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stored<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    decimal: Decimal,
    other: Decimal,
}

/// The value of a field without backslashes. `None`: it is no value of its type, which no server writes.
pub(crate) fn stored<'a>(
    field: &'a [u8],
    column: &SqliteType,
    buffers: &'a mut Buffers,
) -> Option<Stored<'a>> {
    Some(match column.form {
        Form::Bool => match field {
            b"t" | b"true" => Stored::Integer(1),
            b"f" | b"false" => Stored::Integer(0),
            _ => return None,
        },
        Form::Integer => Stored::Integer(utf8(field)?.parse().ok()?),
        Form::Double | Form::Single => match special(field) {
            Some(value) if value.is_nan() => Stored::Text(b"NaN"),
            Some(value) => Stored::Real(value),
            None => Stored::Real(utf8(field)?.parse().ok()?),
        },
        Form::Decimal | Form::WideDecimal => decimal(field, &column.target, buffers)?,
        Form::Bytes => {
            if !copy::unhex(field.strip_prefix(b"\\x")?, &mut buffers.bytes) {
                return None;
            }
            Stored::Blob(&buffers.bytes)
        }
        Form::TimestampTz => instant(field, buffers)?,
        Form::Text
        | Form::Padded
        | Form::Label
        | Form::Date
        | Form::Time
        | Form::Timestamp
        | Form::Uuid
        | Form::Other => Stored::Text(field),
    })
}

fn utf8(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// The most digits of which a double is looked for.
const DOUBLE_DIGITS: usize = 17;

/// An integer or a double with exactly these digits, or the digits as text.
fn decimal<'a>(field: &'a [u8], target: &Target, buffers: &mut Buffers) -> Option<Stored<'a>> {
    if special(field).is_some() {
        return Some(Stored::Text(field));
    }
    let Buffers { decimal, other, .. } = buffers;
    if !decimal.read(field) {
        return None;
    }
    // Without a scale of the column's, zeros at the end are the value's own.
    let has_own_zeros = *target == Target::Numeric(None) && field.contains(&b'.') && field.ends_with(b"0");
    if has_own_zeros {
        return Some(Stored::Text(field));
    }
    if let Ok(value) = decimal.scaled(0) {
        return Some(Stored::Integer(value));
    }
    if decimal.digits.len() > DOUBLE_DIGITS {
        return Some(Stored::Text(field));
    }
    let value: f64 = utf8(field)?.parse().ok()?;
    Some(if other.read_f64(value) && other == decimal { Stored::Real(value) } else { Stored::Text(field) })
}

/// `2024-01-02 03:04:05.6+00` → `2024-01-02 03:04:05.6+00:00`: the form that most libraries read.
fn instant<'a>(field: &'a [u8], buffers: &'a mut Buffers) -> Option<Stored<'a>> {
    let bytes = &mut buffers.bytes;
    bytes.clear();
    let (plain, mut is_bc) = match field.strip_suffix(b" BC") {
        Some(plain) => (plain, true),
        None => (field, false),
    };
    if let Some(local) = plain.strip_suffix(b"+00") {
        bytes.extend_from_slice(local);
    } else {
        // A constant in a definition may have another offset.
        let micros = match dates::parse(field).ok()? {
            Moment::Infinite { .. } => return Some(Stored::Text(field)),
            Moment::At(Parts { day: Some(day), time: Some(time), offset: Some(offset) }) => {
                dates::micros_of(day, time).ok()? - i64::from(offset) * 1_000_000
            }
            Moment::At(_) => return None,
        };
        dates::write_timestamp(micros, false, bytes);
        is_bc = micros.div_euclid(DAY) + DAY_2000 < dates::day_of(1, 1, 1)?;
        if is_bc {
            bytes.truncate(bytes.len() - b" BC".len());
        }
    }
    bytes.extend_from_slice(b"+00:00");
    if is_bc {
        bytes.extend_from_slice(b" BC");
    }
    Some(Stored::Text(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(field: &str, target: Target) -> String {
        let mut buffers = Buffers::default();
        format!("{:?}", stored(field.as_bytes(), &SqliteType::new(target), &mut buffers))
    }

    fn text(text: &str) -> String {
        format!("{:?}", Some(Stored::Text(text.as_bytes())))
    }

    #[test]
    fn decimals_are_numbers_where_a_number_has_their_digits() {
        let (free, wide) = (Target::Numeric(None), Target::Numeric(Some((30, 2))));
        assert_eq!(value("10.10", wide.clone()), "Some(Real(10.1))");
        assert_eq!(value("10.10", free.clone()), text("10.10"));
        assert_eq!(value("10.00", wide.clone()), "Some(Integer(10))");
        assert_eq!(value("-7", free.clone()), "Some(Integer(-7))");
        assert_eq!(value("0.1", free.clone()), "Some(Real(0.1))");
        assert_eq!(value("12345678901234567.89", wide), text("12345678901234567.89"));
        assert_eq!(value("9223372036854775807", free.clone()), "Some(Integer(9223372036854775807))");
        assert_eq!(value("9223372036854775809", free.clone()), text("9223372036854775809"));
        assert_eq!(value("NaN", free.clone()), text("NaN"));
        assert_eq!(value("x", free), "None");
    }

    #[test]
    fn instants_are_in_utc_with_minutes() {
        let zone = || Target::TimestampTz(6);
        for (field, stored) in [
            ("2024-01-02 03:04:05.6+00", "2024-01-02 03:04:05.6+00:00"),
            ("0044-03-15 00:00:00+00 BC", "0044-03-15 00:00:00+00:00 BC"),
            ("2024-01-02 03:04:05+02", "2024-01-02 01:04:05+00:00"),
            ("0001-01-01 00:30:00+01", "0001-12-31 23:30:00+00:00 BC"),
            ("-infinity", "-infinity"),
        ] {
            assert_eq!(value(field, zone()), text(stored), "{field}");
        }
    }

    #[test]
    fn what_is_no_number_of_sqlite_is_text() {
        assert_eq!(value("NaN", Target::Float8), text("NaN"));
        assert_eq!(value("-Infinity", Target::Float8), "Some(Real(-inf))");
        assert_eq!(value("-0", Target::Float8), "Some(Real(-0.0))");
        assert_eq!(value("0.1", Target::Float4), "Some(Real(0.1))");
        assert_eq!(value("\\x00ff", Target::Bytea), "Some(Blob([0, 255]))");
    }
}
