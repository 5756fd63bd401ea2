//! A hash of a row's *values*, the same from SQLite's bytes and from what PostgreSQL gives back.
//!
//! [`crate::encode::RowEncoder`] makes it of SQLite's values by the rules of the columns. [`ServerRows`] makes it of COPY text by
//! the types alone: what was sent has no part in it.

use crate::{
    array::{self, Element},
    canonical::{CanonicalRow, RowHash},
    copy,
    dates::{self, Moment, Parts},
    decimal::Decimal,
    encode::{parse_uuid, special},
    error::Unreadable,
    interval::Interval,
    json,
    target::Target,
    value::Cell,
};

/// Rows counted, and the sum of their hashes modulo 2^128: independent of their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// How many rows.
    pub rows: u64,
    /// The sum of their hashes.
    pub sum: u128,
}

impl Fingerprint {
    /// Takes one row in.
    pub fn add(&mut self, row: RowHash) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row.0);
    }

    /// Takes the rows of another part in.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// What a session has to be set to before [`ServerRows`] reads what it gives back. The client's encoding has to be UTF-8.
pub const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
];

/// Makes the hashes of rows from what PostgreSQL gives back: lines of `COPY … TO STDOUT` in text form, UTF-8, with the columns in the
/// encoder's order, in a session with [`SESSION_SETTINGS`]. One for each thread.
#[derive(Debug)]
pub struct ServerRows {
    targets: Vec<Target>,
    canonical: CanonicalRow,
    field: Vec<u8>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    decimal: Decimal,
    bytes: Vec<u8>,
}

impl ServerRows {
    /// For rows whose columns have these types.
    pub fn new(targets: Vec<Target>) -> Self {
        Self { targets, canonical: CanonicalRow::default(), field: Vec::new(), scratch: Scratch::default() }
    }

    /// The hash of one line, with or without its line feed.
    ///
    /// # Errors
    /// A field that is no value of its type, or another number of fields: no server writes such a thing.
    pub fn hash_line(&mut self, line: &[u8]) -> Result<RowHash, Unreadable> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.canonical.clear();
        let mut start = 0;
        for column in 0..self.targets.len() {
            // A table without columns gives empty lines.
            if start > line.len() {
                return Err(self.unreadable(column, b"missing"));
            }
            let end = memchr::memchr(b'\t', &line[start..]).map_or(line.len(), |at| start + at);
            let field = &line[start..end];
            if !self.take(column, field) {
                return Err(self.unreadable(column, field));
            }
            start = end + 1;
        }
        if start <= line.len() && !self.targets.is_empty() {
            return Err(self.unreadable(self.targets.len(), &line[start..]));
        }
        Ok(self.canonical.hash())
    }

    /// The hash of some columns of the last row.
    pub fn hash_of(&self, columns: &[usize]) -> RowHash {
        self.canonical.hash_of(columns)
    }

    /// One value of the last row in canonical form.
    pub fn canonical(&self, column: usize) -> &[u8] {
        self.canonical.column(column)
    }

    fn take(&mut self, column: usize, field: &[u8]) -> bool {
        let target = &self.targets[column];
        let is_taken = if field == b"\\N" {
            self.canonical.null();
            true
        } else if memchr::memchr(b'\\', field).is_some() {
            copy::unescape(field, &mut self.field);
            take_value(&self.field, target, &mut self.canonical, &mut self.scratch).is_some()
        } else {
            take_value(field, target, &mut self.canonical, &mut self.scratch).is_some()
        };
        self.canonical.end_column();
        is_taken
    }

    fn unreadable(&self, column: usize, field: &[u8]) -> Unreadable {
        let target = self.targets.get(column).map_or_else(|| "column".to_owned(), ToString::to_string);
        Unreadable { column, field: Cell::Text(field).to_string(), target }
    }
}

/// Puts down a value of a type as PostgreSQL writes it. `None`: it is none.
fn take_value(field: &[u8], target: &Target, row: &mut CanonicalRow, scratch: &mut Scratch) -> Option<()> {
    match target {
        Target::Text | Target::Varchar(_) | Target::Enum(_) | Target::Json | Target::Other(_) => {
            row.text(field);
        }
        Target::Char(_) => {
            let blanks = field.iter().rev().take_while(|byte| **byte == b' ').count();
            row.text(&field[..field.len() - blanks]);
        }
        Target::Bool => row.bool(match field {
            b"t" => true,
            b"f" => false,
            _ => return None,
        }),
        Target::Int2 | Target::Int4 | Target::Int8 => row.integer(utf8(field)?.parse().ok()?),
        Target::Float8 => row.float8(special(field).map_or_else(|| utf8(field)?.parse().ok(), Some)?),
        Target::Float4 => {
            let text = match special(field) {
                Some(value) if value.is_nan() => "NaN",
                Some(value) if value > 0.0 => "inf",
                Some(_) => "-inf",
                None => utf8(field)?,
            };
            row.float4(text.parse().ok()?);
        }
        Target::Numeric(_) => match special(field) {
            Some(_) => row.numeric_special(field),
            None if scratch.decimal.read(field) => row.numeric(&scratch.decimal),
            None => return None,
        },
        Target::Bytea => {
            if !copy::unhex(field.strip_prefix(b"\\x")?, &mut scratch.bytes) {
                return None;
            }
            row.bytes(&scratch.bytes);
        }
        Target::Date | Target::Time(_) | Target::Timestamp(_) | Target::TimestampTz(_) => {
            take_moment(field, target, row)?;
        }
        Target::Interval => {
            let interval = Interval::parse(field).ok()?;
            row.interval(interval.months, interval.days, interval.micros);
        }
        Target::Uuid => row.uuid(parse_uuid(field, &mut scratch.bytes)?),
        Target::Jsonb => {
            let mut form = Vec::with_capacity(field.len());
            json::canonical(utf8(field)?, &mut form).ok()?;
            row.jsonb(&form);
        }
        Target::Array(element) => take_elements(&array::parse(field).ok()?, element, row, scratch)?,
    }
    Some(())
}

fn take_elements(
    elements: &[Element],
    target: &Target,
    row: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Option<()> {
    row.array(elements.len());
    for element in elements {
        match element {
            Element::Null => row.null(),
            Element::Text(text) => take_value(text, target, row, scratch)?,
            Element::Array(inner) => take_elements(inner, target, row, scratch)?,
        }
    }
    Some(())
}

fn utf8(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

fn take_moment(field: &[u8], target: &Target, row: &mut CanonicalRow) -> Option<()> {
    match (dates::parse(field).ok()?, target) {
        (Moment::Infinite { is_negative }, Target::Date) => {
            row.date(if is_negative { i64::MIN } else { i64::MAX });
        }
        (Moment::Infinite { is_negative }, Target::Timestamp(_) | Target::TimestampTz(_)) => {
            row.timestamp(if is_negative { i64::MIN } else { i64::MAX });
        }
        (Moment::At(Parts { day: Some(day), time: None, offset: None }), Target::Date) => row.date(day),
        (Moment::At(Parts { day: None, time: Some(time), offset: None }), Target::Time(_)) => row.time(time),
        (Moment::At(Parts { day: Some(day), time: Some(time), offset: None }), Target::Timestamp(_)) => {
            row.timestamp(dates::micros_of(day, time).ok()?);
        }
        (
            Moment::At(Parts { day: Some(day), time: Some(time), offset: Some(offset) }),
            Target::TimestampTz(_),
        ) => {
            row.timestamp(dates::micros_of(day, time).ok()? - i64::from(offset) * 1_000_000);
        }
        _ => return None,
    }
    Some(())
}
