//! A hash of a row's *values*, the same from SQLite's bytes and from what PostgreSQL gives back.

use crate::{target::Target, value::Cell};

/// The hash of one row: XXH3-128 over its values in canonical form (docs/sqlite.md has the form).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowHash(pub u128);

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

/// What a session has to be set to before [`ServerRows`] reads what it gives back.
pub const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
];

/// A line of COPY text that PostgreSQL gave and that is none of its column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The column, counted from 0.
    pub column: usize,
    /// The field as a message shows it.
    pub field: String,
    /// The type that it should have.
    pub target: String,
}

/// Makes the hashes of rows from what PostgreSQL gives back: lines of `COPY … TO STDOUT` in text form, UTF-8, with the columns in the
/// encoder's order, in a session with [`SESSION_SETTINGS`]. One for each thread.
#[derive(Debug)]
pub struct ServerRows {
    targets: Vec<Target>,
}

impl ServerRows {
    /// For rows whose columns have these types.
    pub fn new(targets: Vec<Target>) -> Self {
        Self { targets }
    }

    /// The hash of one line, without its line feed.
    ///
    /// # Errors
    /// A field that is no value of its type: no server writes such a thing.
    pub fn hash_line(&mut self, line: &[u8]) -> Result<RowHash, Unreadable> {
        let bad = |column: usize| Unreadable {
            column,
            field: Cell::Text(line).to_string(),
            target: self.targets.get(column).map(ToString::to_string).unwrap_or_default(),
        };
        Err(bad(0))
    }
}
