//! How the rows of one side become hashes, and what is shown of one. Pure.
//!
//! Between two sides of PostgreSQL a value is its COPY text: equal is what the servers write alike. Against SQLite a value is its
//! canonical form by the type of PostgreSQL's column (docs/sqlite-values.md).

use common::{Error, Result};
use sqlite::{
    copy::unescaped,
    encode::RowEncoder,
    hash::ServerRows,
    rows::Cells,
    target::{ColumnRule, Target},
    value::Cell,
};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::hashes::Hashes;

/// A value of a row that is going to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What a person reads; nothing for NULL.
    pub text: Option<String>,
    /// What is compared: equal on both sides where the values are.
    pub form: Vec<u8>,
    /// Why no value of PostgreSQL's column can be equal to it.
    pub unfit: Option<String>,
}

/// A row that is passing by.
pub trait Passing {
    /// Its compared values, in the order of the compared columns.
    fn values(&self) -> Vec<Value>;
}

/// Who looks at rows. `true` means that no further row is wanted, which not every side can heed.
pub trait Taker: Send + 'static {
    /// Takes a row.
    ///
    /// # Errors
    /// Whatever ends the comparison.
    fn take(&mut self, hashes: Hashes, row: &dyn Passing) -> Result<bool>;
}

/// What is compared of a row of COPY text, by places in it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Where the compared columns stand; nothing where they are all, in order.
    pub columns: Option<Vec<usize>>,
    /// Of the compared columns those of the key, by their places among them; none where rows have no key.
    pub key: Vec<usize>,
    /// The types by which values get their canonical form, of all columns of the text; nothing where the text itself is compared.
    pub types: Option<Vec<Target>>,
}

/// Cuts COPY text into rows and hashes them. One for each thread.
#[derive(Debug)]
pub struct TextRows {
    shape: Shape,
    values: Option<ServerRows>,
    /// What has come of a row that is not whole yet.
    begun: Vec<u8>,
    fields: Vec<(usize, usize)>,
    /// Rows so far.
    pub rows: u64,
    /// No further row is wanted.
    pub enough: bool,
}

impl TextRows {
    /// For rows of this shape.
    pub fn new(shape: Shape) -> Self {
        let values = shape.types.clone().map(ServerRows::new);
        Self { shape, values, begun: Vec::new(), fields: Vec::new(), rows: 0, enough: false }
    }

    /// Takes the next piece of a stream, cut anywhere.
    ///
    /// # Errors
    /// What the taker fails with; a field that is no value of its type.
    pub fn feed(&mut self, mut piece: &[u8], taker: &mut dyn Taker) -> Result<()> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end);
            if self.begun.is_empty() {
                self.line(line, taker)?;
            } else {
                self.begun.extend_from_slice(line);
                let line = std::mem::take(&mut self.begun);
                self.line(&line, taker)?;
                self.begun = line;
                self.begun.clear();
            }
            piece = &rest[1..];
        }
        self.begun.extend_from_slice(piece);
        Ok(())
    }

    /// The stream is at its end.
    ///
    /// # Errors
    /// In the middle of a row.
    pub fn end(&self) -> Result<()> {
        if self.begun.is_empty() { Ok(()) } else { Err(Error::failed("the last row of a table has no end")) }
    }

    fn line(&mut self, line: &[u8], taker: &mut dyn Taker) -> Result<()> {
        self.rows += 1;
        if self.enough {
            return Ok(());
        }
        let hashes = match &mut self.values {
            Some(values) => {
                let whole = values
                    .hash_line(line)
                    .map_err(|unreadable| Error::failed(format!("a row can't be read: {unreadable}")))?;
                let columns = &self.shape.columns;
                let row = columns.as_ref().map_or(whole, |columns| values.hash_of(columns));
                let place = |at: &usize| columns.as_ref().map_or(*at, |columns| columns[*at]);
                let key: Vec<usize> = self.shape.key.iter().map(place).collect();
                Hashes { key: if key.is_empty() { row.0 } else { values.hash_of(&key).0 }, row: row.0 }
            }
            None => self.plain(line),
        };
        if self.values.is_some() {
            self.cut(line);
        }
        let passing = Line { line, rows: self };
        if taker.take(hashes, &passing)? {
            self.enough = true;
        }
        Ok(())
    }

    fn cut(&mut self, line: &[u8]) {
        self.fields.clear();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\t', line).chain([line.len()]) {
            self.fields.push((start, end));
            start = end + 1;
        }
    }

    fn plain(&mut self, line: &[u8]) -> Hashes {
        let is_whole = self.shape.columns.is_none();
        if is_whole && self.shape.key.is_empty() {
            self.fields.clear();
            let row = xxh3_128(line);
            return Hashes { key: row, row };
        }
        self.cut(line);
        let row = if is_whole { xxh3_128(line) } else { self.hash_of(line, 0..self.compared()) };
        let key = match self.shape.key.as_slice() {
            [] => row,
            key => self.hash_of(line, key.iter().copied()),
        };
        Hashes { key, row }
    }

    /// How many columns are compared.
    fn compared(&self) -> usize {
        self.shape.columns.as_ref().map_or(self.fields.len(), Vec::len)
    }

    fn field<'l>(&self, line: &'l [u8], compared: usize) -> &'l [u8] {
        let place = self.shape.columns.as_ref().map_or(compared, |columns| columns[compared]);
        self.fields.get(place).map_or(&[], |(start, end)| &line[*start..*end])
    }

    /// The fields as a line of their own would have them: a tab stands in no field.
    fn hash_of(&self, line: &[u8], compared: impl Iterator<Item = usize>) -> u128 {
        let mut hasher = Xxh3::new();
        for (number, at) in compared.enumerate() {
            if number > 0 {
                hasher.update(b"\t");
            }
            hasher.update(self.field(line, at));
        }
        hasher.digest128()
    }
}

struct Line<'a> {
    line: &'a [u8],
    rows: &'a TextRows,
}

impl Passing for Line<'_> {
    fn values(&self) -> Vec<Value> {
        let mut rows = TextRows::new(Shape { types: None, ..self.rows.shape.clone() });
        rows.cut(self.line);
        let value = |at: usize| {
            let field = rows.field(self.line, at);
            let text = (field != b"\\N").then(|| String::from_utf8_lossy(&unescaped(field)).into_owned());
            let place = self.rows.shape.columns.as_ref().map_or(at, |columns| columns[at]);
            let form = match &self.rows.values {
                Some(values) => values.canonical(place).to_vec(),
                None => field.to_vec(),
            };
            Value { text, form, unfit: None }
        };
        (0..rows.compared()).map(value).collect()
    }
}

/// Hashes rows of SQLite. One for each thread.
#[derive(Debug)]
pub struct SqliteRows {
    encoder: RowEncoder,
    has_rules: bool,
    columns: usize,
    /// Places of the key; none where rows have no key.
    key: Vec<usize>,
    unfit: Vec<(usize, String)>,
}

impl SqliteRows {
    /// For rows with so many compared columns, by these rules in this order; without rules by their storage classes and bytes.
    pub fn new(columns: usize, rules: Option<Vec<ColumnRule>>, key: Vec<usize>) -> Self {
        let has_rules = rules.is_some();
        let encoder = RowEncoder::new(rules.unwrap_or_default());
        Self { encoder, has_rules, columns, key, unfit: Vec::new() }
    }

    /// Hands a row on.
    ///
    /// # Errors
    /// What the taker fails with.
    pub fn row(&mut self, cells: &(impl Cells + ?Sized), taker: &mut dyn Taker) -> Result<bool> {
        self.unfit.clear();
        let row = if self.has_rules {
            let (row, unfit) = self.encoder.hash_any(cells);
            self.unfit.extend(unfit.into_iter().map(|bad| (bad.column, bad.bad.rule.to_string())));
            row
        } else {
            self.encoder.hash_as_stored(cells, self.columns)
        };
        let key = if self.key.is_empty() { row } else { self.encoder.hash_of(&self.key) };
        let cell = |at: usize| cells.cell(at);
        let passing = CellRow { cells: &cell, rows: self };
        taker.take(Hashes { key: key.0, row: row.0 }, &passing)
    }
}

struct CellRow<'a> {
    cells: &'a dyn Fn(usize) -> Cell<'a>,
    rows: &'a SqliteRows,
}

impl Passing for CellRow<'_> {
    fn values(&self) -> Vec<Value> {
        let value = |at: usize| Value {
            text: shown((self.cells)(at)),
            form: self.rows.encoder.canonical(at).to_vec(),
            unfit: self.rows.unfit.iter().find(|(column, _)| *column == at).map(|(_, why)| why.clone()),
        };
        (0..self.rows.columns).map(value).collect()
    }
}

/// The whole value as a person writes it.
pub fn shown(cell: Cell<'_>) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Cell::Integer(value) => Some(value.to_string()),
        Cell::Real(value) => Some(format!("{value:?}")),
        Cell::BrokenText(bytes) | Cell::Blob(bytes) => Some(format!("x'{}'", common::digest::hex(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct All(Vec<(Hashes, Vec<Option<String>>)>);

    impl Taker for All {
        fn take(&mut self, hashes: Hashes, row: &dyn Passing) -> Result<bool> {
            self.0.push((hashes, row.values().into_iter().map(|value| value.text).collect()));
            Ok(false)
        }
    }

    fn read(shape: Shape, text: &str, step: usize) -> Vec<(Hashes, Vec<Option<String>>)> {
        let (mut rows, mut all) = (TextRows::new(shape), All(Vec::new()));
        for piece in text.as_bytes().chunks(step) {
            rows.feed(piece, &mut all).unwrap();
        }
        rows.end().unwrap();
        all.0
    }

    #[test]
    fn a_row_is_the_same_however_its_columns_stand_and_wherever_the_stream_is_cut() {
        let whole = Shape { columns: None, key: vec![0], types: None };
        let turned = Shape { columns: Some(vec![2, 0]), key: vec![0], types: None };
        for step in 1..9 {
            let one = read(whole.clone(), "1\tx\\ty\n2\t\\N\n", step);
            assert_eq!(one, read(turned.clone(), "x\\ty\t\\N\t1\n\\N\tz\t2\n", step));
            assert_eq!(one[0].1, [Some("1".to_owned()), Some("x\ty".to_owned())]);
            assert_eq!(one[1].1, [Some("2".to_owned()), None]);
            // Of all columns in order it is the hash that a manifest has.
            assert_eq!(one[0].0.row, xxh3_128(b"1\tx\\ty"));
        }
    }

    #[test]
    fn a_table_without_columns_has_rows_all_the_same() {
        let shape = Shape { columns: None, key: vec![], types: None };
        assert_eq!(read(shape, "\n\n", 1).len(), 2);
    }
}
