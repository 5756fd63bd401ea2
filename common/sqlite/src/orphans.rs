//! Foreign keys that lead nowhere: SQLite enforces them only where a connection asked for it.

use crate::{
    error::Result,
    file::Reader,
    rows::{Row, RowKey, RowQuery},
    schema::{ForeignKey, Schema, Table},
    sql::quoted,
};

/// A row whose foreign key leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What names the row.
    pub key: RowKey,
    /// What tells it from any other row of its table.
    pub identity: Vec<u8>,
    /// Its rowid, if the table has one.
    pub rowid: Option<i64>,
    /// The value of the foreign key as a message shows it.
    pub value: String,
}

/// Why a foreign key can't lead anywhere: then every row that has a value in it is an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoParent {
    /// The file has no such table, or it is a view or a virtual table.
    Table(String),
    /// The table has no such columns: what was named, or that its primary key has another number of columns.
    Columns(String),
}

/// The table and its columns that a foreign key leads to.
///
/// # Errors
/// Why it leads nowhere.
pub fn parent<'a>(
    schema: &'a Schema,
    key: &ForeignKey,
) -> std::result::Result<(&'a Table, Vec<usize>), NoParent> {
    let Some(table) = schema.table(&key.parent) else { return Err(NoParent::Table(key.parent.clone())) };
    if key.parent_columns.is_empty() {
        return if table.primary_key.len() == key.columns.len() {
            Ok((table, table.primary_key.clone()))
        } else {
            let why = format!(
                "its primary key has {} columns, and not {}",
                table.primary_key.len(),
                key.columns.len()
            );
            Err(NoParent::Columns(why))
        };
    }
    let columns = key
        .parent_columns
        .iter()
        .map(|name| table.column(name).ok_or_else(|| NoParent::Columns(format!("it has no column {name}"))))
        .collect::<std::result::Result<Vec<usize>, NoParent>>()?;
    Ok((table, columns))
}

/// Calls `on_orphan` for each orphan of one foreign key of `table`, and says how many there were. A key with a NULL in it is none.
/// Text is compared byte by byte, as PostgreSQL will, whatever the collation.
///
/// Memory does not grow with the number of orphans. Where no index serves the key there, SQLite makes one for the time.
pub fn each(
    reader: &Reader,
    schema: &Schema,
    table: &Table,
    key: &ForeignKey,
    mut on_orphan: impl FnMut(&Orphan) -> Result<()>,
) -> Result<u64> {
    let query = query(reader, schema, table, key);
    reader.rows(&query, |row| on_orphan(&orphan(row, key)))
}

fn orphan(row: &Row<'_>, key: &ForeignKey) -> Orphan {
    let values: Vec<String> =
        (0..key.columns.len()).map(|at| crate::rows::Cells::cell(row, at).to_string()).collect();
    let value = match values.as_slice() {
        [only] => only.clone(),
        _ => format!("({})", values.join(", ")),
    };
    Orphan { key: row.key(), identity: row.identity(), rowid: row.rowid(), value }
}

fn query(reader: &Reader, schema: &Schema, table: &Table, key: &ForeignKey) -> RowQuery {
    let mut query = RowQuery::new(table, &key.columns, None, reader.encoding());
    let child = |at: &usize| format!("child.{}", quoted(&table.columns[*at].name));
    let mut conditions: Vec<String> =
        key.columns.iter().map(|at| format!("{} is not null", child(at))).collect();
    if let Ok((parent, columns)) = parent(schema, key) {
        // The first comparison is SQLite's own, by the collation and affinity of the parent: an index serves it. The second
        // tells what only SQLite takes for equal.
        let pairs = columns.iter().zip(&key.columns).flat_map(|(theirs, ours)| {
            let theirs = format!("parent.{}", quoted(&parent.columns[*theirs].name));
            [format!("{theirs} = {}", child(ours)), format!("{theirs} = {} collate binary", child(ours))]
        });
        let pairs: Vec<String> = pairs.collect();
        conditions.push(format!(
            "not exists (select 1 from main.{} as parent where {})",
            quoted(&parent.name),
            pairs.join(" and ")
        ));
    }
    query.restrict("child", &conditions.join(" and "));
    query
}
