//! What the columns of a table really hold, in one pass: from this the types of a new schema are chosen.

use crate::{
    error::Result,
    file::Reader,
    rows::{RowQuery, RowidRange},
    schema::Table,
    target::EpochUnit,
};

/// What the rows of a table hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableScan {
    /// How many rows.
    pub rows: u64,
    /// One for each column of the table, in its order.
    pub columns: Vec<ColumnScan>,
}

/// What one column holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ColumnScan {
    /// NULLs.
    pub nulls: u64,
    /// Integers.
    pub integers: u64,
    /// Reals.
    pub reals: u64,
    /// Texts.
    pub texts: u64,
    /// Blobs.
    pub blobs: u64,
    /// The lowest and the highest integer.
    pub integer_range: Option<(i64, i64)>,
    /// The lowest and the highest real, without NaN (SQLite has none).
    pub real_range: Option<(f64, f64)>,
    /// Infinite reals.
    pub infinite: u64,
    /// Characters of the longest valid text.
    pub longest_text: u64,
    /// Texts that are empty.
    pub empty_texts: u64,
    /// Texts that are no valid UTF-8 (or UTF-16).
    pub invalid_texts: u64,
    /// Texts with the byte 0.
    pub texts_with_zero_byte: u64,
    /// How many of the texts that are not empty could be read as each of these.
    pub forms: TextForms,
    /// Blobs of 16 bytes.
    pub blobs_of_16: u64,
}

/// How many texts have a form. One text may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextForms {
    /// `YYYY-MM-DD`
    pub dates: u64,
    /// A date and a time of day, without an offset.
    pub timestamps: u64,
    /// A date and a time of day with an offset from UTC.
    pub timestamps_with_offset: u64,
    /// A time of day.
    pub times: u64,
    /// 32 hexadecimal digits, with or without hyphens.
    pub uuids: u64,
    /// A JSON object or array. No more is looked for once a text was none.
    pub json: u64,
    /// A decimal number.
    pub decimals: u64,
    /// `t`, `f`, `true`, `false`, `yes`, `no`, `on`, `off`, in any case.
    pub booleans: u64,
}

/// Reads a table, or a range of its rows, once. Parts can be put together by [`TableScan::merge`].
pub fn scan(reader: &Reader, table: &Table, range: Option<RowidRange>) -> Result<TableScan> {
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let query = RowQuery::new(table, &columns, range, reader.encoding());
    let mut scan = TableScan { rows: 0, columns: vec![ColumnScan::default(); columns.len()] };
    scan.rows = reader.rows(&query, |row| {
        for (at, column) in scan.columns.iter_mut().enumerate() {
            column.take(crate::rows::Cells::cell(row, at));
        }
        Ok::<_, crate::ReadError>(())
    })?;
    Ok(scan)
}

impl ColumnScan {
    /// The unit of the column's integers as dates, where their size leaves only one: all of them lie between 1980 and 2100 in it.
    /// The years of the units do not overlap.
    pub fn epoch_unit(&self) -> Option<EpochUnit> {
        /// 1980-01-01 and 2100-01-01 in seconds.
        const YEARS: (i64, i64) = (315_532_800, 4_102_444_800);
        let (lowest, highest) = self.integer_range?;
        [
            (EpochUnit::Seconds, 1),
            (EpochUnit::Milliseconds, 1_000),
            (EpochUnit::Microseconds, 1_000_000),
            (EpochUnit::Nanoseconds, 1_000_000_000),
        ]
        .into_iter()
        .find(|(_, factor)| lowest >= YEARS.0 * factor && highest <= YEARS.1.saturating_mul(*factor))
        .map(|(unit, _)| unit)
    }
}

impl TableScan {
    /// Puts the rows of another range of the same table to these.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
    }
}

impl ColumnScan {
    fn take(&mut self, cell: crate::value::Cell<'_>) {
        if cell == crate::value::Cell::Null {
            self.nulls += 1;
        }
    }
}
