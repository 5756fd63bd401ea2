//! The rows of a table, one after the other, without a copy.

use rusqlite::types::ValueRef;

use crate::{
    error::Result,
    file::{Encoding, Reader},
    schema::Table,
    sql::quoted,
    value::Cell,
};

/// Rowids from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowidRange {
    /// The first.
    pub first: i64,
    /// The last.
    pub last: i64,
}

/// Which rows and columns are read.
#[derive(Debug, Clone)]
pub struct RowQuery {
    /// SQL of the SELECT, with `?1` and `?2` where there is a range.
    pub(crate) sql: String,
    pub(crate) columns: usize,
    pub(crate) key_columns: usize,
    pub(crate) range: Option<RowidRange>,
    pub(crate) table: String,
    pub(crate) encoding: Encoding,
}

/// What names a row in a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey(pub String);

/// Whatever has values by number: a row of SQLite, a slice in a test.
pub trait Cells {
    /// The value of a column, counted from 0 in the order of the query.
    fn cell(&self, column: usize) -> Cell<'_>;
}

impl Cells for [Cell<'_>] {
    fn cell(&self, column: usize) -> Cell<'_> {
        self[column]
    }
}

impl RowQuery {
    /// The whole of `table`, or the rows of a range; of each row the columns by number, in this order.
    ///
    /// # Panics
    /// If there is a range and the table has no [`Table::rowid_name`].
    pub fn new(table: &Table, columns: &[usize], range: Option<RowidRange>, encoding: Encoding) -> Self {
        let name = |at: &usize| quoted(&table.columns[*at].name);
        let mut selected: Vec<String> = Vec::new();
        for column in columns.iter().map(name) {
            if encoding == Encoding::Utf8 {
                selected.push(column);
            } else {
                // SQLite turns UTF-16 into UTF-8 without a word about what is invalid in it: its bytes are read instead.
                selected.push(format!("iif(typeof({column}) = 'text', null, {column})"));
                selected.push(format!("iif(typeof({column}) = 'text', cast({column} as blob), null)"));
            }
        }
        let key: Vec<String> = match table.rowid_name {
            Some(rowid) => vec![rowid.to_owned()],
            None => table.primary_key.iter().map(name).collect(),
        };
        let key_columns = key.len();
        selected.extend(key);
        if selected.is_empty() {
            selected.push("null".to_owned());
        }
        let mut sql = format!("select {} from main.{}", selected.join(", "), quoted(&table.name));
        if range.is_some() {
            let rowid = table.rowid_name.expect("only a table with rowids has ranges of them");
            sql.push_str(&format!(" not indexed where {rowid} between ?1 and ?2"));
        } else {
            sql.push_str(" not indexed");
        }
        Self { sql, columns: columns.len(), key_columns, range, table: table.name.clone(), encoding }
    }

    /// Only the rows for which `condition` is true, in which the table is called `alias`. The query must have no range.
    pub(crate) fn restrict(&mut self, alias: &str, condition: &str) {
        debug_assert!(self.range.is_none(), "a condition and a range are not put together");
        let plain = self.sql.strip_suffix(" not indexed").unwrap_or(&self.sql);
        self.sql = format!("{plain} as {alias} not indexed where {condition}");
    }
}

/// One row, valid until the next one is asked for.
pub struct Row<'a> {
    row: &'a rusqlite::Row<'a>,
    query: &'a RowQuery,
    /// Text of a UTF-16 database, turned into UTF-8: one for each column.
    texts: &'a [Utf16Text],
}

/// What became of a value of a UTF-16 database.
#[derive(Default)]
struct Utf16Text {
    state: Utf16State,
    bytes: Vec<u8>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Utf16State {
    #[default]
    NoText,
    Valid,
    Broken,
}

impl Row<'_> {
    /// What names this row in a message: its rowid, or the key of a table without one.
    pub fn key(&self) -> RowKey {
        let first = self.row.as_ref().column_count() - self.query.key_columns;
        let parts: Vec<String> =
            (0..self.query.key_columns).map(|at| plain_cell(self.row, first + at).to_string()).collect();
        RowKey(match parts.as_slice() {
            [] => "without a key".to_owned(),
            [only] => only.clone(),
            _ => format!("({})", parts.join(", ")),
        })
    }

    /// What tells this row from any other of its table, where [`Table::tells_rows_apart`]: every byte of its key.
    pub fn identity(&self) -> Vec<u8> {
        let first = self.row.as_ref().column_count() - self.query.key_columns;
        let mut exact = Vec::new();
        for at in 0..self.query.key_columns {
            let mut put = |tag: u8, bytes: &[u8]| {
                exact.push(tag);
                exact.extend_from_slice(&bytes.len().to_be_bytes());
                exact.extend_from_slice(bytes);
            };
            match plain_cell(self.row, first + at) {
                Cell::Null => put(b'n', &[]),
                Cell::Integer(value) => put(b'i', &value.to_be_bytes()),
                Cell::Real(value) => put(b'r', &value.to_bits().to_be_bytes()),
                Cell::Text(bytes) | Cell::BrokenText(bytes) => put(b't', bytes),
                Cell::Blob(bytes) => put(b'b', bytes),
            }
        }
        exact
    }

    /// The rowid, if the table has one.
    pub fn rowid(&self) -> Option<i64> {
        let last = self.row.as_ref().column_count() - 1;
        match plain_cell(self.row, last) {
            Cell::Integer(rowid) if self.query.key_columns == 1 => Some(rowid),
            _ => None,
        }
    }
}

impl Cells for Row<'_> {
    fn cell(&self, column: usize) -> Cell<'_> {
        if self.query.encoding == Encoding::Utf8 {
            return plain_cell(self.row, column);
        }
        match &self.texts[column] {
            Utf16Text { state: Utf16State::NoText, .. } => plain_cell(self.row, column * 2),
            Utf16Text { state: Utf16State::Valid, bytes } => Cell::Text(bytes),
            Utf16Text { state: Utf16State::Broken, bytes } => Cell::BrokenText(bytes),
        }
    }
}

fn plain_cell<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Cell<'a> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(value)) => Cell::Integer(value),
        Ok(ValueRef::Real(value)) => Cell::Real(value),
        Ok(ValueRef::Text(bytes)) => Cell::Text(bytes),
        Ok(ValueRef::Blob(bytes)) => Cell::Blob(bytes),
        // The only error is a column that the query does not have, and the query is ours.
        Ok(ValueRef::Null) | Err(_) => Cell::Null,
    }
}

impl Reader {
    /// Calls `on_row` for each row of the query, and says how many there were. An error of `on_row` ends it.
    pub fn rows<E: From<crate::ReadError>>(
        &self,
        query: &RowQuery,
        mut on_row: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let failed = |error| {
            self.failure(&format!("read the table {}", common::ident::printable(&query.table)), error)
        };
        let mut statement = self.connection().prepare(&query.sql).map_err(failed)?;
        let mut rows = match query.range {
            Some(range) => statement.query([range.first, range.last]),
            None => statement.query([]),
        }
        .map_err(failed)?;
        let mut texts: Vec<Utf16Text> = Vec::new();
        if query.encoding != Encoding::Utf8 {
            texts.resize_with(query.columns, Utf16Text::default);
        }
        let mut count = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            for (column, text) in texts.iter_mut().enumerate() {
                text.take(plain_cell(row, column * 2 + 1), query.encoding);
            }
            on_row(&Row { row, query, texts: &texts })?;
            count += 1;
        }
        Ok(count)
    }

    /// Cuts the rowids of a table into up to `parts` ranges without a gap, of equal length: a table whose keys have gaps has
    /// ranges with few rows. `None` where it has no rowids, or no rows.
    pub fn rowid_ranges(&self, table: &Table, parts: usize) -> Result<Option<Vec<RowidRange>>> {
        let Some(rowid) = table.rowid_name else { return Ok(None) };
        let failed =
            |error| self.failure(&format!("read the table {}", common::ident::printable(&table.name)), error);
        // Two queries: SQLite finds one end of the rowids at once, but not both.
        let end = |which: &str| {
            let sql = format!("select {which}({rowid}) from main.{} not indexed", quoted(&table.name));
            self.connection().query_row(&sql, [], |row| row.get::<_, Option<i64>>(0)).map_err(failed)
        };
        Ok(match (end("min")?, end("max")?) {
            (Some(first), Some(last)) => Some(split(RowidRange { first, last }, parts)),
            _ => None,
        })
    }
}

fn split(whole: RowidRange, parts: usize) -> Vec<RowidRange> {
    let (first, last) = (i128::from(whole.first), i128::from(whole.last));
    let length = last - first + 1;
    let parts = i128::try_from(parts.max(1)).unwrap_or(1).min(length);
    let border = |part: i128| first + length * part / parts;
    let as_rowid = |value: i128| i64::try_from(value).expect("lies between two rowids");
    (0..parts)
        .map(|part| RowidRange { first: as_rowid(border(part)), last: as_rowid(border(part + 1) - 1) })
        .collect()
}

impl Utf16Text {
    fn take(&mut self, cell: Cell<'_>, encoding: Encoding) {
        self.bytes.clear();
        self.state = Utf16State::NoText;
        let Cell::Blob(bytes) = cell else { return };
        let unit = |pair: &[u8]| match encoding {
            Encoding::Utf16Be => u16::from_be_bytes([pair[0], pair[1]]),
            _ => u16::from_le_bytes([pair[0], pair[1]]),
        };
        self.state = Utf16State::Valid;
        if !bytes.len().is_multiple_of(2) {
            self.state = Utf16State::Broken;
        }
        for char in char::decode_utf16(bytes.chunks_exact(2).map(unit)) {
            match char {
                Ok(char) => self.bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(_) => self.state = Utf16State::Broken,
            }
        }
        if self.state == Utf16State::Broken {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn ranges_cover_every_rowid_once(a: i64, b: i64, parts in 0_usize..70) {
            let whole = RowidRange { first: a.min(b), last: a.max(b) };
            let ranges = split(whole, parts);
            proptest::prop_assert!(ranges.len() <= parts.max(1));
            proptest::prop_assert_eq!(ranges[0].first, whole.first);
            proptest::prop_assert_eq!(ranges[ranges.len() - 1].last, whole.last);
            proptest::prop_assert!(ranges.windows(2).all(|pair| pair[0].last.checked_add(1) == Some(pair[1].first)));
            proptest::prop_assert!(ranges.iter().all(|range| range.first <= range.last));
        }
    }
}
