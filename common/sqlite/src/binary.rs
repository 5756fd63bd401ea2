//! Rows in PostgreSQL's binary COPY format: the server reads and writes numbers and times without turning them into text, which is most
//! of what COPY costs it.
//!
//! A table goes this way if every column has a type whose binary form is told by its canonical form alone ([`has_binary_form`]); any other
//! goes as text. The format is that of "Binary Format" in PostgreSQL's documentation of COPY, the same since 7.4.

use crate::{
    canonical::{CanonicalRow, RowHash, Value},
    error::Unreadable,
    target::Target,
    value::Cell,
};

/// What a stream begins with: the signature, no flags, no extension.
pub const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands in the place of a row's number of fields after the last row.
pub const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
const DAYS_TO_2000: i64 = 10_957;

/// Whether values of a type can be sent and read back in binary.
pub fn has_binary_form(target: &Target) -> bool {
    match target {
        Target::Bool
        | Target::Int2
        | Target::Int4
        | Target::Int8
        | Target::Float4
        | Target::Float8
        | Target::Text
        | Target::Varchar(_)
        | Target::Enum(_)
        | Target::Bytea
        | Target::Date
        | Target::Time(_)
        | Target::Timestamp(_)
        | Target::TimestampTz(_)
        | Target::Interval
        | Target::Uuid
        | Target::Json => true,
        // Their text has more than the value has: blanks, zeros at the end, blanks between.
        Target::Char(_) | Target::Numeric(_) | Target::Jsonb | Target::Array(_) | Target::Other(_) => false,
    }
}

/// Appends a field of a type with a binary form.
pub(crate) fn put(value: Value<'_>, target: &Target, out: &mut Vec<u8>) {
    // What was checked against the range of its type fits.
    #[allow(clippy::cast_possible_truncation)]
    match value {
        Value::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        Value::Bool(value) => field(&[u8::from(value)], out),
        Value::Integer(value) => match target {
            Target::Int2 => field(&(value as i16).to_be_bytes(), out),
            Target::Int4 => field(&(value as i32).to_be_bytes(), out),
            _ => field(&value.to_be_bytes(), out),
        },
        Value::Float8(value) => field(&value.to_be_bytes(), out),
        Value::Float4(value) => field(&value.to_be_bytes(), out),
        Value::Bytes(bytes) => field(bytes, out),
        Value::Date(days) => field(&days_since_2000(days).to_be_bytes(), out),
        Value::Micros(micros) => field(&micros.to_be_bytes(), out),
        Value::Interval(months, days, micros) => {
            field_of(16, out);
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&months.to_be_bytes());
        }
    }
}

fn days_since_2000(days: i64) -> i32 {
    match days {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        days => i32::try_from(days - DAYS_TO_2000).expect("the years of PostgreSQL's dates were checked"),
    }
}

fn field(bytes: &[u8], out: &mut Vec<u8>) {
    field_of(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn field_of(bytes: usize, out: &mut Vec<u8>) {
    // SQLite's values have 2^31 - 1 bytes at most.
    out.extend_from_slice(&i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes());
}

/// Takes rows out of what `COPY … TO STDOUT (FORMAT binary)` gives, and hashes them. One for each stream.
#[derive(Debug)]
pub struct BinaryRows {
    targets: Vec<Target>,
    canonical: CanonicalRow,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    Ended,
}

/// What was found at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A row, and how many bytes it and what stood before it took.
    Row(RowHash, usize),
    /// The end of the rows, and how many bytes it took.
    End(usize),
    /// The next row is not complete yet.
    More,
}

impl BinaryRows {
    /// For rows whose columns have these types, each with a binary form.
    pub fn new(targets: Vec<Target>) -> Self {
        Self { targets, canonical: CanonicalRow::default(), state: State::Header }
    }

    /// Reads the next row.
    ///
    /// # Errors
    /// Something that is no row of these types: no server sends such a thing.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Found, Unreadable> {
        let mut at = 0;
        if self.state == State::Header {
            let Some(head) = bytes.get(..HEADER.len()) else { return Ok(Found::More) };
            if head != HEADER {
                return Err(unreadable(0, head, "beginning of binary rows"));
            }
            at = HEADER.len();
        }
        let Some(fields) = take::<2>(bytes, &mut at).map(i16::from_be_bytes) else { return Ok(Found::More) };
        if fields == i16::from_be_bytes(TRAILER) {
            self.state = State::Ended;
            return Ok(Found::End(at));
        }
        if self.state == State::Ended || usize::try_from(fields) != Ok(self.targets.len()) {
            return Err(unreadable(0, &fields.to_be_bytes(), "row with that many fields"));
        }
        if !self.is_whole(bytes, at)? {
            return Ok(Found::More);
        }
        self.canonical.clear();
        for (column, target) in self.targets.iter().enumerate() {
            match take_field(bytes, &mut at) {
                None => self.canonical.null(),
                Some(field) if read(field, target, &mut self.canonical).is_some() => {}
                Some(field) => return Err(unreadable(column, field, &target.to_string())),
            }
            self.canonical.end_column();
        }
        self.state = State::Rows;
        Ok(Found::Row(self.canonical.hash(), at))
    }

    /// Whether every field of a row that begins at `at` is there. Only lengths are looked at: a row of many megabytes comes in many
    /// pieces.
    fn is_whole(&self, bytes: &[u8], mut at: usize) -> Result<bool, Unreadable> {
        for column in 0..self.targets.len() {
            let Some(length) = take::<4>(bytes, &mut at).map(i32::from_be_bytes) else { return Ok(false) };
            if length < -1 {
                return Err(unreadable(column, &length.to_be_bytes(), "length of a field"));
            }
            at += usize::try_from(length).unwrap_or(0);
        }
        Ok(at <= bytes.len())
    }

    /// Whether the end of the rows was read.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }
}

fn unreadable(column: usize, field: &[u8], target: &str) -> Unreadable {
    Unreadable { column, field: Cell::Blob(field).to_string(), target: target.to_owned() }
}

/// A field that is known to be whole; `None` is NULL.
fn take_field<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = usize::try_from(take::<4>(bytes, at).map(i32::from_be_bytes)?).ok()?;
    let field = bytes.get(*at..*at + length)?;
    *at += length;
    Some(field)
}

fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> Option<[u8; N]> {
    let taken = bytes.get(*at..*at + N)?.try_into().ok()?;
    *at += N;
    Some(taken)
}

/// Puts down a field as PostgreSQL sends it. `None`: it is no value of the type.
fn read(field: &[u8], target: &Target, row: &mut CanonicalRow) -> Option<()> {
    match target {
        Target::Bool => row.bool(match field {
            [0] => false,
            [1] => true,
            _ => return None,
        }),
        Target::Int2 => row.integer(i64::from(i16::from_be_bytes(field.try_into().ok()?))),
        Target::Int4 => row.integer(i64::from(i32::from_be_bytes(field.try_into().ok()?))),
        Target::Int8 => row.integer(i64::from_be_bytes(field.try_into().ok()?)),
        Target::Float8 => row.float8(f64::from_be_bytes(field.try_into().ok()?)),
        Target::Float4 => row.float4(f32::from_be_bytes(field.try_into().ok()?)),
        Target::Text | Target::Varchar(_) | Target::Enum(_) | Target::Json => row.text(field),
        Target::Bytea => row.bytes(field),
        Target::Date => row.date(match i32::from_be_bytes(field.try_into().ok()?) {
            i32::MIN => i64::MIN,
            i32::MAX => i64::MAX,
            days => i64::from(days) + DAYS_TO_2000,
        }),
        Target::Time(_) => row.time(i64::from_be_bytes(field.try_into().ok()?)),
        Target::Timestamp(_) | Target::TimestampTz(_) => {
            row.timestamp(i64::from_be_bytes(field.try_into().ok()?));
        }
        Target::Interval => {
            let (micros, rest) = field.split_first_chunk::<8>()?;
            let (days, rest) = rest.split_first_chunk::<4>()?;
            row.interval(
                i32::from_be_bytes(rest.try_into().ok()?),
                i32::from_be_bytes(*days),
                i64::from_be_bytes(*micros),
            );
        }
        Target::Uuid => row.uuid(field.try_into().ok()?),
        Target::Char(_) | Target::Numeric(_) | Target::Jsonb | Target::Array(_) | Target::Other(_) => {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encode::RowEncoder, target::ColumnRule};

    fn rules(targets: &[Target]) -> Vec<ColumnRule> {
        targets.iter().cloned().map(ColumnRule::new).collect()
    }

    /// One row of every type with a binary form.
    fn every_type() -> Vec<(Target, Cell<'static>)> {
        vec![
            (Target::Bool, Cell::Integer(1)),
            (Target::Int2, Cell::Integer(-32_768)),
            (Target::Int4, Cell::Integer(2_147_483_647)),
            (Target::Int8, Cell::Integer(i64::MIN)),
            (Target::Float4, Cell::Real(0.5)),
            (Target::Float8, Cell::Real(-0.0)),
            (Target::Text, Cell::Text("a\tü\\".as_bytes())),
            (Target::Varchar(3), Cell::Text(b"")),
            (Target::Enum(vec!["on".to_owned()].into()), Cell::Text(b"on")),
            (Target::Bytea, Cell::Blob(b"\0\xff")),
            (Target::Date, Cell::Text(b"1999-12-31")),
            (Target::Time(6), Cell::Text(b"23:59:59.999999")),
            (Target::Timestamp(6), Cell::Text(b"1969-07-20 20:17:40.5")),
            (Target::TimestampTz(6), Cell::Text(b"2026-12-01 10:00:00+02:00")),
            (Target::Interval, Cell::Text(b"1 day 02:03:04")),
            (Target::Uuid, Cell::Text(b"12345678-1234-1234-1234-1234567890ab")),
            (Target::Json, Cell::Text(b"{\"a\": 1}")),
            (Target::Int4, Cell::Null),
        ]
    }

    #[test]
    fn a_binary_row_has_the_hash_of_its_text_and_is_read_back_at_any_cut() {
        let (targets, cells): (Vec<_>, Vec<_>) = every_type().into_iter().unzip();
        assert!(targets.iter().all(has_binary_form));
        let (mut text, mut stream) = (Vec::new(), HEADER.to_vec());
        let mut encoder = RowEncoder::new(rules(&targets));
        let hash = encoder.encode(&cells[..], &mut text).unwrap();
        for _ in 0..2 {
            assert_eq!(encoder.encode_binary(&cells[..], &mut stream).unwrap(), hash);
        }
        stream.extend(TRAILER);
        for step in [1, 7, stream.len()] {
            let mut rows = BinaryRows::new(targets.clone());
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                loop {
                    match rows.next(&buffer).unwrap() {
                        Found::Row(hash, bytes) => {
                            found.push(hash);
                            buffer.drain(..bytes);
                        }
                        Found::End(bytes) => drop(buffer.drain(..bytes)),
                        Found::More => break,
                    }
                }
            }
            assert_eq!(found, [hash, hash], "pieces of {step} bytes");
            assert!(rows.has_ended() && buffer.is_empty());
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let row = |bytes: &[u8]| BinaryRows::new(vec![Target::Int4]).next(&[&HEADER[..], bytes].concat());
        assert_eq!(row(b"\0\x01\0\0\0\x04\0\0\0"), Ok(Found::More));
        assert!(row(b"\0\x02\0\0\0\x04\0\0\0\0").is_err(), "another number of fields");
        assert!(row(b"\0\x01\0\0\0\x03\0\0\0").is_err(), "an integer of three bytes");
        assert!(row(b"\0\x01\xff\xff\xff\xf0").is_err(), "a negative length");
        assert!(
            BinaryRows::new(vec![Target::Int4]).next(b"COPYPG\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01").is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, with_header: bool) {
            let mut rows = BinaryRows::new(every_type().into_iter().map(|(target, _)| target).collect());
            let stream = if with_header { [&HEADER[..], &bytes].concat() } else { bytes };
            let _ = rows.next(&stream);
        }

        #[test]
        fn numbers_and_times_come_back(integer: i64, real: f64, days in -700_000_i64..2_000_000, micros in 0_i64..86_400_000_000) {
            let targets = [Target::Int8, Target::Float8, Target::Date, Target::Time(6), Target::Timestamp(6)];
            let mut row = CanonicalRow::default();
            row.integer(integer);
            row.end_column();
            row.float8(real);
            row.end_column();
            row.date(days);
            row.end_column();
            row.time(micros);
            row.end_column();
            row.timestamp(micros * 1_000);
            row.end_column();
            let mut stream = HEADER.to_vec();
            stream.extend(5_i16.to_be_bytes());
            for (column, target) in targets.iter().enumerate() {
                put(row.value(column), target, &mut stream);
            }
            let mut rows = BinaryRows::new(targets.to_vec());
            proptest::prop_assert_eq!(rows.next(&stream), Ok(Found::Row(row.hash(), stream.len())));
        }
    }
}
