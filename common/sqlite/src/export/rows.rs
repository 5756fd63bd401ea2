//! The snapshot's own rows: lines of COPY text, cut apart and hashed by their values before anything is made of them.

use common::ident::Ident;

use super::design::TableDesign;
use crate::{
    error::Unreadable,
    hash::{Fingerprint, ServerRows},
};

/// Whole lines of COPY text, in UTF-8.
#[derive(Debug)]
pub struct Batch {
    /// Each with its line feed.
    pub lines: Vec<u8>,
    /// The columns of the design that the fields belong to, by number.
    pub columns: std::sync::Arc<[usize]>,
    /// The rows and their hashes.
    pub fingerprint: Fingerprint,
}

/// Why lines could not be taken.
#[derive(Debug)]
pub enum LineError {
    /// The value of a column has a form of its type that the import does not know.
    Unreadable(Unreadable),
    /// A column of the snapshot that the table does not have.
    NoColumn(String),
    /// A line that is not in the database's encoding.
    Encoding,
}

/// The text encoding of a snapshot's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; also what has no encoding of its own, as long as it is UTF-8.
    Utf8,
    /// ISO 8859-1, whose bytes are the first characters of Unicode.
    Latin1,
}

impl Encoding {
    /// By PostgreSQL's name; `None` for what is not read here.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "UTF8" | "SQL_ASCII" => Some(Self::Utf8),
            "LATIN1" => Some(Self::Latin1),
            _ => None,
        }
    }

    /// Bytes as text.
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Latin1 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        }
    }

    fn take(self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => std::str::from_utf8(&bytes).is_ok().then_some(bytes),
            Self::Latin1 if bytes.is_ascii() => Some(bytes),
            Self::Latin1 => self.decode(&bytes).map(String::into_bytes),
        }
    }
}

/// Cuts the text of one table of the snapshot into lines and hashes them.
#[derive(Debug)]
pub struct Lines {
    encoding: Encoding,
    rest: Vec<u8>,
    columns: std::sync::Arc<[usize]>,
    /// The order of the fields in the hash.
    order: Vec<usize>,
    rows: ServerRows,
}

impl Lines {
    /// For a table of the snapshot with these columns, whose rows go into `design`.
    ///
    /// # Errors
    /// [`LineError::NoColumn`]
    pub fn new(design: &TableDesign, columns: &[Ident], encoding: Encoding) -> Result<Self, LineError> {
        let number = |column: &Ident| {
            let found = design.column(column.as_str()).filter(|at| design.columns[*at].generated.is_none());
            found.ok_or_else(|| LineError::NoColumn(column.as_str().to_owned()))
        };
        let columns: Vec<usize> = columns.iter().map(number).collect::<Result<_, _>>()?;
        let targets = columns.iter().map(|at| design.columns[*at].stored.target.clone()).collect();
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|at| columns[*at]);
        Ok(Self {
            encoding,
            rest: Vec::new(),
            columns: columns.into(),
            order,
            rows: ServerRows::new(targets),
        })
    }

    /// Takes a piece of text, and gives the lines that are complete.
    pub fn take(&mut self, piece: &[u8]) -> Result<Option<Batch>, LineError> {
        let Some(end) = memchr::memrchr(b'\n', piece) else {
            self.rest.extend_from_slice(piece);
            return Ok(None);
        };
        let mut lines = std::mem::take(&mut self.rest);
        lines.extend_from_slice(&piece[..=end]);
        self.rest.extend_from_slice(&piece[end + 1..]);
        let lines = self.encoding.take(lines).ok_or(LineError::Encoding)?;
        let mut fingerprint = Fingerprint::default();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.rows.hash_line(line).map_err(|unreadable| {
                let column = self.columns.get(unreadable.column).copied().unwrap_or(usize::MAX);
                LineError::Unreadable(Unreadable { column, ..unreadable })
            })?;
            fingerprint.add(self.rows.hash_of(&self.order));
        }
        Ok(Some(Batch { lines, columns: self.columns.clone(), fingerprint }))
    }
}
