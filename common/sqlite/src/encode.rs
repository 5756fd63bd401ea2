//! Rows of SQLite as lines of COPY text, and the hash of their values on the way.

use crate::{
    hash::RowHash,
    rows::Cells,
    target::ColumnRule,
    value::{BadValue, Rule},
};

/// A value that its column can't hold.
#[derive(Debug, Clone, PartialEq)]
pub struct BadCell {
    /// The column, counted from 0 in the encoder's order.
    pub column: usize,
    /// What is wrong.
    pub bad: BadValue,
}

/// Writes rows as COPY text (tab, `\N`, backslashes), each with its line feed. It keeps buffers of its own, so that no value costs
/// an allocation: one encoder for each thread.
#[derive(Debug)]
pub struct RowEncoder {
    rules: Vec<ColumnRule>,
    /// The values of a row in canonical form.
    canonical: Vec<u8>,
}

impl RowEncoder {
    /// For rows whose columns have these rules, in this order.
    pub fn new(rules: Vec<ColumnRule>) -> Self {
        Self { rules, canonical: Vec::new() }
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
            if let Err(broken) = convert(cell, rule, out, &mut self.canonical) {
                out.truncate(start);
                let bad = BadValue {
                    rule: broken,
                    value: cell.to_string(),
                    storage_class: cell.storage_class(),
                    target: rule.target.to_string(),
                };
                return Err(BadCell { column, bad });
            }
        }
        out.push(b'\n');
        Ok(RowHash(xxhash_rust::xxh3::xxh3_128(&self.canonical)))
    }
}

/// Writes one value as a field of COPY text, and its canonical form.
fn convert(
    cell: crate::value::Cell<'_>,
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut Vec<u8>,
) -> Result<(), Rule> {
    use crate::{target::Target, value::Cell};
    match (cell, &rule.target) {
        (Cell::Null, _) => {
            out.extend_from_slice(b"\\N");
            canonical.push(0);
        }
        (Cell::Integer(value), Target::Int8) => {
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            canonical.push(1);
            canonical.extend_from_slice(&value.to_le_bytes());
        }
        _ => return Err(Rule::StorageClass),
    }
    Ok(())
}
