//! What the columns of a table really hold, in one pass: from this the types of a new schema are chosen.

use crate::{
    dates::{self, Moment, Parts},
    decimal::Decimal,
    encode::{boolean_word, parse_uuid},
    error::Result,
    file::Reader,
    json,
    rows::{Cells, RowQuery, RowidRange},
    schema::Table,
    target::EpochUnit,
    value::Cell,
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
    /// How many of the texts that are not empty have each of these forms. A form that one of them did not have is not looked for
    /// again: only a number equal to that of all such texts says something.
    pub forms: TextForms,
    /// Digits after the point of the finest decimal number, as text or as a real in its shortest form.
    pub decimal_places: u64,
    /// Digits before the point of the largest.
    pub whole_digits: u64,
    /// Reals that are no whole numbers.
    pub fractions: u64,
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
    let mut decimal = Decimal::default();
    scan.rows = reader.rows(&query, |row| {
        for (at, column) in scan.columns.iter_mut().enumerate() {
            column.take(row.cell(at), &mut decimal);
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
        if self.columns.is_empty() {
            self.columns.clone_from(&other.columns);
            return;
        }
        for (column, other) in self.columns.iter_mut().zip(&other.columns) {
            column.merge(other);
        }
    }
}

fn widen<T: PartialOrd + Copy>(range: &mut Option<(T, T)>, low: T, high: T) {
    *range = Some(match *range {
        None => (low, high),
        Some((lowest, highest)) => {
            (if low < lowest { low } else { lowest }, if high > highest { high } else { highest })
        }
    });
}

impl ColumnScan {
    /// Texts that are not empty.
    pub fn filled_texts(&self) -> u64 {
        self.texts - self.empty_texts
    }

    /// Values that are not NULL.
    pub fn values(&self) -> u64 {
        self.integers + self.reals + self.texts + self.blobs
    }

    fn take(&mut self, cell: Cell<'_>, decimal: &mut Decimal) {
        match cell {
            Cell::Null => self.nulls += 1,
            Cell::Integer(value) => {
                self.integers += 1;
                widen(&mut self.integer_range, value, value);
            }
            Cell::Real(value) => {
                self.reals += 1;
                widen(&mut self.real_range, value, value);
                if value.is_infinite() {
                    self.infinite += 1;
                }
                if value.fract() != 0.0 {
                    self.fractions += 1;
                }
                if decimal.read_f64(value) {
                    self.take_decimal(decimal);
                }
            }
            Cell::Blob(bytes) => {
                self.blobs += 1;
                self.blobs_of_16 += u64::from(bytes.len() == 16);
            }
            Cell::BrokenText(_) => {
                self.texts += 1;
                self.invalid_texts += 1;
            }
            Cell::Text(bytes) => self.take_text(bytes, decimal),
        }
    }

    fn take_decimal(&mut self, decimal: &Decimal) {
        self.decimal_places = self.decimal_places.max(u64::from(decimal.exponent.min(0).unsigned_abs()));
        self.whole_digits = self.whole_digits.max(u64::try_from(decimal.whole_digits()).unwrap_or(0));
    }

    fn take_text(&mut self, bytes: &[u8], decimal: &mut Decimal) {
        let before = self.filled_texts();
        self.texts += 1;
        if bytes.is_empty() {
            self.empty_texts += 1;
            return;
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.invalid_texts += 1;
            return;
        };
        if memchr::memchr(0, bytes).is_some() {
            self.texts_with_zero_byte += 1;
        }
        if bytes.len() as u64 > self.longest_text {
            self.longest_text = self.longest_text.max(text.chars().count() as u64);
        }
        let forms = &mut self.forms;
        // Only what all texts before were is worth looking for.
        let count = |form: &mut u64, has: &dyn Fn() -> bool| *form += u64::from(*form == before && has());
        if [forms.dates, forms.timestamps, forms.timestamps_with_offset, forms.times].contains(&before) {
            match dates::parse(bytes) {
                Ok(Moment::At(Parts { day: Some(_), time: None, .. })) => forms.dates += 1,
                Ok(Moment::At(Parts { day: Some(_), offset: None, .. })) => forms.timestamps += 1,
                Ok(Moment::At(Parts { day: Some(_), .. })) => forms.timestamps_with_offset += 1,
                Ok(Moment::At(_)) => forms.times += 1,
                _ => {}
            }
        }
        count(&mut forms.uuids, &|| parse_uuid(bytes, &mut Vec::new()).is_some());
        count(&mut forms.json, &|| {
            matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) && json::check(text).is_ok()
        });
        count(&mut forms.booleans, &|| boolean_word(bytes).is_some());
        if forms.decimals == before && decimal.read(bytes) {
            forms.decimals += 1;
            self.take_decimal(decimal);
        }
    }

    fn merge(&mut self, other: &Self) {
        // A form counts only if every text of both had it; a part that had no text has nothing to say.
        let both = [self.filled_texts(), other.filled_texts()];
        let forms = |one: u64, two: u64| if one == both[0] && two == both[1] { one + two } else { 0 };
        let dates_of = |scan: &Self| {
            let forms = scan.forms;
            forms.dates + forms.timestamps + forms.timestamps_with_offset + forms.times
        };
        let (mine, others) = (self.forms, other.forms);
        self.forms = TextForms {
            uuids: forms(mine.uuids, others.uuids),
            json: forms(mine.json, others.json),
            decimals: forms(mine.decimals, others.decimals),
            booleans: forms(mine.booleans, others.booleans),
            ..TextForms::default()
        };
        if dates_of(self) == 0 || dates_of(self) <= both[0] {
            self.forms.dates = mine.dates + others.dates;
            self.forms.timestamps = mine.timestamps + others.timestamps;
            self.forms.timestamps_with_offset = mine.timestamps_with_offset + others.timestamps_with_offset;
            self.forms.times = mine.times + others.times;
        }
        for (to, from) in [
            (&mut self.nulls, other.nulls),
            (&mut self.integers, other.integers),
            (&mut self.reals, other.reals),
            (&mut self.texts, other.texts),
            (&mut self.blobs, other.blobs),
            (&mut self.infinite, other.infinite),
            (&mut self.fractions, other.fractions),
            (&mut self.empty_texts, other.empty_texts),
            (&mut self.invalid_texts, other.invalid_texts),
            (&mut self.texts_with_zero_byte, other.texts_with_zero_byte),
            (&mut self.blobs_of_16, other.blobs_of_16),
        ] {
            *to += from;
        }
        for (to, from) in [
            (&mut self.longest_text, other.longest_text),
            (&mut self.decimal_places, other.decimal_places),
            (&mut self.whole_digits, other.whole_digits),
        ] {
            *to = (*to).max(from);
        }
        if let Some((low, high)) = other.integer_range {
            widen(&mut self.integer_range, low, high);
        }
        if let Some((low, high)) = other.real_range {
            widen(&mut self.real_range, low, high);
        }
    }
}
