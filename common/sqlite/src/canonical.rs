//! The canonical form of values, over which rows are hashed: one form for one value, whatever its spelling. docs/sqlite-values.md has the
//! same table for people.
//!
//! Each value begins with a byte for its kind, and its length is known from what follows, so that no two rows have one form.

use crate::decimal::Decimal;

const NULL: u8 = 0;
const BOOL: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT8: u8 = 3;
const FLOAT4: u8 = 4;
const NUMERIC: u8 = 5;
const TEXT: u8 = 6;
const BYTES: u8 = 7;
const DATE: u8 = 8;
const TIME: u8 = 9;
const TIMESTAMP: u8 = 10;
const INTERVAL: u8 = 11;
const UUID: u8 = 12;
const JSONB: u8 = 13;
const ARRAY: u8 = 14;
/// What no value of PostgreSQL's column can be equal to.
const UNFIT: u8 = 255;

/// The hash of one row: XXH3-128 over its values in canonical form (docs/sqlite-values.md has the form).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowHash(pub u128);

/// A value in canonical form, taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float8(f64),
    Float4(f32),
    /// Text, bytes, the bytes of a uuid.
    Bytes(&'a [u8]),
    /// Days since 1970-01-01; the ends of the range are the infinities.
    Date(i64),
    /// Of a time of day, or since 2000-01-01 00:00.
    Micros(i64),
    /// Months, days, microseconds.
    Interval(i32, i32, i64),
}

/// The values of one row in canonical form.
#[derive(Debug, Default)]
pub(crate) struct CanonicalRow {
    bytes: Vec<u8>,
    /// Where each column's value ends.
    ends: Vec<usize>,
}

impl CanonicalRow {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The value of one column is complete.
    pub fn end_column(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Takes a value that its column can't hold, in the place of what may have been put down of it: its storage class and its bytes.
    pub fn unfit(&mut self, class: &str, bytes: &[u8]) {
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.bytes.push(UNFIT);
        self.sized(class.as_bytes());
        self.sized(bytes);
    }

    /// The form of one column's value.
    pub fn column(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        &self.bytes[start..self.ends[column]]
    }

    /// One column's value taken apart, of a type with a binary form.
    pub fn value(&self, column: usize) -> Value<'_> {
        let (tag, rest) = self.column(column).split_first().unwrap_or((&NULL, &[]));
        let eight = || rest.first_chunk::<8>().copied().unwrap_or_default();
        let four =
            |at: usize| rest.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        match *tag {
            BOOL => Value::Bool(rest == [1]),
            INTEGER => Value::Integer(i64::from_le_bytes(eight())),
            FLOAT8 => Value::Float8(f64::from_bits(u64::from_le_bytes(eight()))),
            FLOAT4 => Value::Float4(f32::from_bits(u32::from_le_bytes(four(0)))),
            TEXT | BYTES => Value::Bytes(rest.get(8..).unwrap_or_default()),
            DATE => Value::Date(i64::from_le_bytes(eight())),
            TIME | TIMESTAMP => Value::Micros(i64::from_le_bytes(eight())),
            INTERVAL => Value::Interval(
                i32::from_le_bytes(four(0)),
                i32::from_le_bytes(four(4)),
                i64::from_le_bytes(
                    rest.get(8..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default(),
                ),
            ),
            UUID => Value::Bytes(rest),
            _ => Value::Null,
        }
    }

    pub fn hash(&self) -> RowHash {
        RowHash(xxhash_rust::xxh3::xxh3_128(&self.bytes))
    }

    /// The hash of some columns alone, in this order: a row's key.
    pub fn hash_of(&self, columns: &[usize]) -> RowHash {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        columns.iter().for_each(|column| hasher.update(self.column(*column)));
        RowHash(hasher.digest128())
    }

    pub fn null(&mut self) {
        self.bytes.push(NULL);
    }

    pub fn bool(&mut self, value: bool) {
        self.bytes.extend_from_slice(&[BOOL, u8::from(value)]);
    }

    fn tagged<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&bytes);
    }

    /// `smallint`, `integer`, `bigint`.
    pub fn integer(&mut self, value: i64) {
        self.tagged(INTEGER, value.to_le_bytes());
    }

    /// The bits; one form of NaN.
    pub fn float8(&mut self, value: f64) {
        let value = if value.is_nan() { f64::NAN } else { value };
        self.tagged(FLOAT8, value.to_bits().to_le_bytes());
    }

    pub fn float4(&mut self, value: f32) {
        let value = if value.is_nan() { f32::NAN } else { value };
        self.tagged(FLOAT4, value.to_bits().to_le_bytes());
    }

    /// Sign, exponent, digits: without zeros at either end.
    pub fn numeric(&mut self, value: &Decimal) {
        self.bytes.extend_from_slice(&[NUMERIC, u8::from(value.is_negative)]);
        self.bytes.extend_from_slice(&value.exponent.to_le_bytes());
        self.sized(&value.digits);
    }

    /// NaN and the infinities of `numeric`, by name.
    pub fn numeric_special(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(&[NUMERIC, 2]);
        self.sized(name);
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    pub fn text(&mut self, bytes: &[u8]) {
        self.bytes.push(TEXT);
        self.sized(bytes);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.push(BYTES);
        self.sized(bytes);
    }

    /// Days since 1970-01-01; the infinities are the ends of the range.
    pub fn date(&mut self, days: i64) {
        self.tagged(DATE, days.to_le_bytes());
    }

    /// Microseconds since midnight.
    pub fn time(&mut self, micros: i64) {
        self.tagged(TIME, micros.to_le_bytes());
    }

    /// Microseconds since 2000-01-01 00:00, in UTC where the type has a zone.
    pub fn timestamp(&mut self, micros: i64) {
        self.tagged(TIMESTAMP, micros.to_le_bytes());
    }

    pub fn interval(&mut self, months: i32, days: i32, micros: i64) {
        self.tagged(INTERVAL, months.to_le_bytes());
        self.bytes.extend_from_slice(&days.to_le_bytes());
        self.bytes.extend_from_slice(&micros.to_le_bytes());
    }

    pub fn uuid(&mut self, value: [u8; 16]) {
        self.tagged(UUID, value);
    }

    /// The text of [`crate::json::canonical`].
    pub fn jsonb(&mut self, text: &[u8]) {
        self.bytes.push(JSONB);
        self.sized(text);
    }

    /// The elements follow.
    pub fn array(&mut self, elements: usize) {
        self.tagged(ARRAY, (elements as u64).to_le_bytes());
    }
}
