//! Reading the finished file by the rules of the import, as any SQLite file.

use std::path::Path;

use common::{Error, Result, interrupt};

use super::design::TableDesign;
use crate::{
    encode::RowEncoder,
    file::{Encoding, Location, SqliteFile},
    hash::Fingerprint,
    rows::RowQuery,
    schema::Schema,
    target::ColumnRule,
};

/// Bytes after which the progress is told.
const STEP_BYTES: usize = 1 << 20;

/// The fingerprint of each table's rows as they stand in the file, in the order of the designs. `on_bytes` is told how much was read.
pub fn read_back(path: &Path, designs: &[TableDesign], on_bytes: &dyn Fn(u64)) -> Result<Vec<Fingerprint>> {
    let file = SqliteFile::open(&Location::of_path(path)).map_err(Error::from)?;
    let mut readers = file.readers(1).map_err(Error::from)?;
    let reader = readers.pop().ok_or_else(|| Error::failed("the file has no reader"))?;
    let schema = Schema::read(&reader).map_err(Error::from)?;
    let missing = |design: &TableDesign| Error::failed(format!("the file has no table {}", design.name));
    let mut found = Vec::new();
    for design in designs {
        let table = schema.table(&design.name).ok_or_else(|| missing(design))?;
        let columns: Option<Vec<usize>> =
            design.loaded().map(|(_, column)| table.column(&column.name)).collect();
        let columns = columns.ok_or_else(|| missing(design))?;
        let rules =
            design.loaded().map(|(_, column)| ColumnRule::new(column.stored.target.clone())).collect();
        let query = RowQuery::new(table, &columns, None, Encoding::Utf8);
        let mut encoder = RowEncoder::new(rules);
        let mut fingerprint = Fingerprint::default();
        let mut out = Vec::new();
        reader.rows::<Error>(&query, |row| {
            let hash = encoder.encode(row, &mut out).map_err(|bad| {
                let column = design.loaded().nth(bad.column).map_or("", |(_, column)| column.source.as_str());
                let place = format!("{}.{}", design.source.short(), common::ident::printable(column));
                Error::failed(format!("a value of {place} can't be read back: {}", bad.bad))
            })?;
            fingerprint.add(hash);
            if out.len() >= STEP_BYTES {
                on_bytes(out.len() as u64);
                out.clear();
                interrupt::check()?;
            }
            Ok(())
        })?;
        on_bytes(out.len() as u64);
        found.push(fingerprint);
    }
    Ok(found)
}
