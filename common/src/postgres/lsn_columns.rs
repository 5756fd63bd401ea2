//! Which columns hold positions in the log, whose text PostgreSQL 19 changed: [`crate::catalog::LsnFields`].

use std::collections::{HashMap, HashSet};

use super::Session;
use crate::{
    catalog::{LsnFields, LsnForm, Table},
    error::{Error, Result},
};

/// Columns of `pg_lsn`, of domains over it and of arrays of either. What holds one within a row type or a range is compared as it is.
const COLUMNS: &str = "
    WITH RECURSIVE positions(oid) AS (
      SELECT 'pg_catalog.pg_lsn'::pg_catalog.regtype::oid
      UNION
      SELECT t.oid FROM pg_catalog.pg_type t JOIN positions p
        ON t.typtype = 'd' AND t.typbasetype = p.oid OR t.typcategory = 'A' AND t.typelem = p.oid)
    SELECT w.name, a.attname::text
    FROM pg_catalog.unnest($1::text[]) w(name) JOIN pg_catalog.pg_attribute a ON a.attrelid = pg_catalog.to_regclass(w.name)::oid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (SELECT oid FROM positions)";

/// Marks in the tables of a snapshot, as they stand in the session's database, what is to be compared in the snapshot's form.
///
/// # Errors
/// The catalog can't be read.
pub async fn mark<'t>(
    session: &Session,
    snapshot_major: u32,
    tables: impl Iterator<Item = &'t mut Table>,
) -> Result<()> {
    let form = LsnForm::of(snapshot_major);
    if form == LsnForm::of(session.server_major()) {
        return Ok(());
    }
    let tables: Vec<&mut Table> = tables.collect();
    // By name, as the statements find them: a temporary table has no other.
    let names: Vec<String> = tables.iter().map(|table| table.name.to_string()).collect();
    let rows = session.query(COLUMNS, &[&names]).await.map_err(|source| {
        Error::postgres("could not read which columns hold positions in the log", source)
    })?;
    let mut columns: HashMap<String, HashSet<String>> = HashMap::new();
    for row in rows {
        columns.entry(row.get(0)).or_default().insert(row.get(1));
    }
    for (table, name) in tables.into_iter().zip(&names) {
        if let Some(columns) = columns.get(name) {
            let fields =
                table.columns.iter().enumerate().filter(|(_, column)| columns.contains(column.as_str()));
            table.lsn_fields = LsnFields::new(fields.map(|(number, _)| number).collect(), form);
        }
    }
    Ok(())
}
