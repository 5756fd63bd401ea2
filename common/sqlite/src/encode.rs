//! Rows of SQLite as lines of COPY text, and the hash of their values on the way.

mod number;
mod time;
mod value;

use crate::{
    binary,
    canonical::{CanonicalRow, RowHash},
    decimal::Decimal,
    rows::Cells,
    target::ColumnRule,
    value::BadValue,
};

pub(crate) use number::special;
pub(crate) use value::{boolean_word, convert, parse_uuid};

/// A value that its column can't hold.
#[derive(Debug, Clone, PartialEq)]
pub struct BadCell {
    /// The column, counted from 0 in the encoder's order.
    pub column: usize,
    /// What is wrong.
    pub bad: BadValue,
}

/// Buffers that are used again for each value.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub decimal: Decimal,
    pub other: Decimal,
    pub bytes: Vec<u8>,
}

/// Writes rows as COPY text (tab, `\N`, backslashes), each with its line feed. It keeps buffers of its own, so that common values cost
/// no allocation: one encoder for each thread.
#[derive(Debug)]
pub struct RowEncoder {
    rules: Vec<ColumnRule>,
    canonical: CanonicalRow,
    scratch: Scratch,
    /// COPY text of one value, where nobody wants it.
    text: Vec<u8>,
}

impl RowEncoder {
    /// For rows whose columns have these rules, in this order.
    pub fn new(rules: Vec<ColumnRule>) -> Self {
        Self { rules, canonical: CanonicalRow::default(), scratch: Scratch::default(), text: Vec::new() }
    }

    /// Appends a row to `out`. After an error `out` is as it was.
    ///
    /// # Errors
    /// The first value that its column can't hold exactly.
    pub fn encode(&mut self, cells: &(impl Cells + ?Sized), out: &mut Vec<u8>) -> Result<RowHash, BadCell> {
        let start = out.len();
        self.canonical.clear();
        for (column, rule) in self.rules.iter().enumerate() {
            if column > 0 {
                out.push(b'\t');
            }
            let cell = cells.cell(column);
            if let Err(broken) = convert(cell, rule, out, &mut self.canonical, &mut self.scratch) {
                out.truncate(start);
                let bad = BadValue::new(broken, cell, rule);
                return Err(BadCell { column, bad });
            }
            self.canonical.end_column();
        }
        out.push(b'\n');
        Ok(self.canonical.hash())
    }

    /// The hash of a row, whatever it holds: a value that its column can't hold counts by its storage class and bytes, and is equal
    /// to no value that the column can hold. Gives these values too.
    pub fn hash_any(&mut self, cells: &(impl Cells + ?Sized)) -> (RowHash, Vec<BadCell>) {
        let mut found = Vec::new();
        self.text.clear();
        self.canonical.clear();
        for (column, rule) in self.rules.iter().enumerate() {
            let cell = cells.cell(column);
            self.text.clear();
            if let Err(broken) = convert(cell, rule, &mut self.text, &mut self.canonical, &mut self.scratch) {
                self.canonical.unfit(cell.storage_class(), &cell.bytes());
                found.push(BadCell { column, bad: BadValue::new(broken, cell, rule) });
            }
            self.canonical.end_column();
        }
        (self.canonical.hash(), found)
    }

    /// The hash of a row by the storage classes and bytes of its first `columns` values alone, without any rule.
    pub fn hash_as_stored(&mut self, cells: &(impl Cells + ?Sized), columns: usize) -> RowHash {
        self.canonical.clear();
        for column in 0..columns {
            let cell = cells.cell(column);
            self.canonical.unfit(cell.storage_class(), &cell.bytes());
            self.canonical.end_column();
        }
        self.canonical.hash()
    }

    /// The same in the binary format, for columns whose types all have a form in it ([`binary::has_binary_form`]).
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_binary(
        &mut self,
        cells: &(impl Cells + ?Sized),
        out: &mut Vec<u8>,
    ) -> Result<RowHash, BadCell> {
        let start = out.len();
        self.canonical.clear();
        // A table has 1,600 columns at most.
        out.extend_from_slice(&i16::try_from(self.rules.len()).unwrap_or(i16::MAX).to_be_bytes());
        for (column, rule) in self.rules.iter().enumerate() {
            self.text.clear();
            let cell = cells.cell(column);
            if let Err(broken) = convert(cell, rule, &mut self.text, &mut self.canonical, &mut self.scratch) {
                out.truncate(start);
                return Err(BadCell { column, bad: BadValue::new(broken, cell, rule) });
            }
            self.canonical.end_column();
            binary::put(self.canonical.value(column), &rule.target, out);
        }
        Ok(self.canonical.hash())
    }

    /// The hash of some columns of the row that was encoded last: what its key is found by on the other side.
    pub fn hash_of(&self, columns: &[usize]) -> RowHash {
        self.canonical.hash_of(columns)
    }

    /// One value of the row that was encoded last, in canonical form: to tell which column differs.
    pub fn canonical(&self, column: usize) -> &[u8] {
        self.canonical.column(column)
    }

    /// Every value of a row that its column can't hold, where [`Self::encode`] ends at the first.
    pub fn bad_cells(&mut self, cells: &(impl Cells + ?Sized)) -> Vec<BadCell> {
        let mut found = Vec::new();
        let mut out = Vec::new();
        for (column, rule) in self.rules.iter().enumerate() {
            let cell = cells.cell(column);
            out.clear();
            self.canonical.clear();
            if let Err(broken) = convert(cell, rule, &mut out, &mut self.canonical, &mut self.scratch) {
                let bad = BadValue::new(broken, cell, rule);
                found.push(BadCell { column, bad });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hash::ServerRows, target::Target, value::Cell};

    fn cell<'a>((kind, number, text): &'a (u8, i64, String)) -> Cell<'a> {
        match kind % 5 {
            0 => Cell::Null,
            1 => Cell::Integer(*number),
            #[allow(clippy::cast_precision_loss)]
            2 => Cell::Real(*number as f64 / 4.0),
            3 => Cell::Text(text.as_bytes()),
            _ => Cell::Blob(text.as_bytes()),
        }
    }

    proptest::proptest! {
        /// A row that fits has the hash that it has anyway; one that does not has another hash than whatever the server could hold.
        #[test]
        fn a_row_has_a_hash_whatever_it_holds(
            values in proptest::collection::vec((0_u8..5, -300_i64..300, "[0-9tx]{0,3}"), 3),
        ) {
            let targets = [Target::Int2, Target::Varchar(2), Target::Bool];
            let mut encoder = RowEncoder::new(targets.iter().cloned().map(ColumnRule::new).collect());
            let cells: Vec<Cell<'_>> = values.iter().map(cell).collect();
            let mut text = Vec::new();
            let encoded = encoder.encode(&cells[..], &mut text);
            let (any, unfit) = encoder.hash_any(&cells[..]);
            match encoded {
                Ok(hash) => {
                    proptest::prop_assert!(unfit.is_empty());
                    proptest::prop_assert_eq!(any, hash);
                    proptest::prop_assert_eq!(ServerRows::new(targets.to_vec()).hash_line(&text), Ok(hash));
                }
                Err(bad) => {
                    proptest::prop_assert_eq!(&unfit[0], &bad);
                    for bad in &unfit {
                        proptest::prop_assert_eq!(encoder.canonical(bad.column)[0], 255);
                    }
                }
            }
        }

        #[test]
        fn as_they_are_stored_values_are_equal_by_class_and_bytes(
            a in proptest::collection::vec((0_u8..5, -2_i64..2, "[0-9]{0,1}"), 2),
            b in proptest::collection::vec((0_u8..5, -2_i64..2, "[0-9]{0,1}"), 2),
        ) {
            let mut encoder = RowEncoder::new(Vec::new());
            let of = |values: &'_ [(u8, i64, String)]| values.iter().map(|value| {
                let cell = cell(value);
                (cell.storage_class(), cell.bytes().to_vec())
            }).collect::<Vec<_>>();
            let one: Vec<Cell<'_>> = a.iter().map(cell).collect();
            let two: Vec<Cell<'_>> = b.iter().map(cell).collect();
            let equal = encoder.hash_as_stored(&one[..], 2) == encoder.hash_as_stored(&two[..], 2);
            proptest::prop_assert_eq!(equal, of(&a) == of(&b));
        }
    }
}
