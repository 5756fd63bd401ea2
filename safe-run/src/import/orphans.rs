//! Foreign keys of the file that lead nowhere, found before anything is loaded: SQLite enforces them only where a connection
//! asked for it.

use std::collections::BTreeMap;

use common::{Error, Result, format::plural};
use sqlite::{
    file::Reader,
    orphans,
    schema::{ForeignKey, Schema},
};

use super::{
    choices::written,
    load::OrphanRows,
    plan::{ColumnPlan, Plan},
    readers::share_out,
    target::TargetForeignKey,
};

/// Keys that are named in a message.
const NAMED: usize = 5;

/// A foreign key, as a question to the file.
#[derive(Debug)]
pub struct Key {
    /// The table's number in the schema.
    source: usize,
    key: ForeignKey,
    /// The table that it leads to, as the file has it.
    parent: String,
}

/// The orphans of one foreign key.
#[derive(Debug)]
pub struct Found {
    /// The table's number in the schema.
    pub source: usize,
    /// `orders.user_id -> users`.
    pub name: String,
    /// How many.
    pub count: u64,
    /// The first keys, with the value that leads nowhere.
    pub examples: Vec<(String, String)>,
    columns: Vec<usize>,
    rowids: Vec<i64>,
    identities: Vec<Vec<u8>>,
}

/// The foreign keys that PostgreSQL has between tables that are filled.
pub fn keys_of_target(schema: &Schema, plan: &Plan, keys: &[TargetForeignKey]) -> Vec<Key> {
    let planned: BTreeMap<u32, &super::TablePlan> =
        plan.tables.iter().map(|table| (table.target.oid, table)).collect();
    let key = |key: &TargetForeignKey| {
        let (table, parent) = (planned.get(&key.table)?, planned.get(&key.references)?);
        let source = |of: &super::TablePlan, name: &String| {
            of.columns.iter().find(|column| column.target.name == *name).map(|column| column.source)
        };
        let columns = key.columns.iter().map(|name| source(table, name)).collect::<Option<Vec<usize>>>()?;
        let there = key.referenced.iter().map(|name| source(parent, name)).collect::<Option<Vec<usize>>>()?;
        let parent_table = &schema.tables[parent.source];
        Some(Key {
            source: table.source,
            parent: parent_table.name.clone(),
            key: ForeignKey {
                id: 0,
                name: Some(key.name.clone()),
                columns,
                parent: parent_table.name.clone(),
                parent_columns: there.iter().map(|at| parent_table.columns[*at].name.clone()).collect(),
                on_update: "NO ACTION".to_owned(),
                on_delete: "NO ACTION".to_owned(),
                is_deferred: false,
            },
        })
    };
    keys.iter().filter_map(key).collect()
}

/// The foreign keys that the file declares itself, of the tables that are taken over.
pub fn keys_of_file(schema: &Schema, plan: &Plan) -> Vec<Key> {
    let tables = plan.tables.iter().map(|table| table.source);
    tables
        .flat_map(|source| schema.tables[source].foreign_keys.iter().map(move |key| (source, key)))
        .map(|(source, key)| Key { source, parent: key.parent.clone(), key: key.clone() })
        // A key that can lead nowhere at all is not made, and said by the translation.
        .filter(|key| leads_somewhere(schema, &key.key))
        .collect()
}

/// Whether the file has the table and the columns that a key names.
fn leads_somewhere(schema: &Schema, key: &ForeignKey) -> bool {
    schema.table(&key.parent).is_some_and(|parent| match key.parent_columns.as_slice() {
        [] => parent.primary_key.len() == key.columns.len(),
        named => named.iter().all(|name| parent.column(name).is_some()),
    })
}

/// Looks for orphans. `keeps`: which rows they are has to be known afterwards.
///
/// # Errors
/// The file can't be read.
pub fn find(readers: &mut [Reader], schema: &Schema, keys: &[Key], keeps: bool) -> Result<Vec<Found>> {
    let found = share_out(readers, keys.iter().collect(), |reader, key| of_key(reader, schema, key, keeps))?;
    Ok(found.into_iter().filter(|found| found.count > 0).collect())
}

fn of_key(reader: &Reader, schema: &Schema, Key { source, key, parent }: &Key, keeps: bool) -> Result<Found> {
    let table = &schema.tables[*source];
    let columns: Vec<String> = key.columns.iter().map(|at| written(&table.columns[*at].name)).collect();
    let mut found = Found {
        source: *source,
        name: format!("{}.{} -> {}", written(&table.name), columns.join(","), written(parent)),
        count: 0,
        examples: Vec::new(),
        columns: key.columns.clone(),
        rowids: Vec::new(),
        identities: Vec::new(),
    };
    found.count = orphans::each(reader, schema, table, key, |orphan| {
        if found.examples.len() < NAMED {
            found.examples.push((orphan.key.0.clone(), orphan.value.clone()));
        }
        match orphan.rowid {
            _ if !keeps => {}
            Some(rowid) => found.rowids.push(rowid),
            None => found.identities.push(orphan.identity.clone()),
        }
        Ok(())
    })?;
    Ok(found)
}

impl Found {
    /// `3 orphans in orders.user_id -> users (keys 17, 18, 44)`.
    pub fn sentence(&self) -> String {
        let keys: Vec<String> =
            self.examples.iter().map(|(key, value)| format!("{key} with {value}")).collect();
        let more = if self.count as usize > keys.len() { ", …" } else { "" };
        format!(
            "{} in {} (keys {}{more})",
            plural(self.count, "orphan", "orphans"),
            self.name,
            keys.join(", ")
        )
    }

    /// Adds them to the rows of their table; columns by their place in `planned`.
    pub fn put_into(&self, rows: &mut OrphanRows, planned: &[ColumnPlan]) {
        let places =
            || self.columns.iter().filter_map(|column| planned.iter().position(|p| p.source == *column));
        for rowid in &self.rowids {
            rows.by_rowid.entry(*rowid).or_default().extend(places());
        }
        for identity in &self.identities {
            rows.by_key.entry(identity.clone()).or_default().extend(places());
        }
    }
}

/// Refuses to leave out single rows of a table in which nothing tells one row from another.
///
/// # Errors
/// Refused, with the table.
pub fn refuse_nameless(schema: &Schema, plan: &Plan, found: &[Found], is_quarantined: bool) -> Result<()> {
    let nameless = plan.tables.iter().map(|table| table.source).find(|source| {
        !schema.tables[*source].tells_rows_apart()
            && (is_quarantined || found.iter().any(|found| found.source == *source))
    });
    let Some(source) = nameless else { return Ok(()) };
    let name = written(&schema.tables[source].name);
    Err(Error::refused(format!(
        "nothing tells the rows of {name} apart: its columns take every name of SQLite's rowid, so that no single row of it can be \
         left out"
    ))
    .with_hint(format!(
        "Correct its rows in SQLite and leave --orphans and --bad-values quarantine away, or leave it out: --skip-table {name}."
    )))
}

/// Refuses orphans that nobody decided about.
///
/// # Errors
/// Refused, with every foreign key and the flags that would do.
pub fn refuse(found: &[Found]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = found.iter().map(Found::sentence).collect();
    Err(Error::refused(format!("the file has rows whose foreign keys lead nowhere: {}", named.join("; "))).with_hint(
        "Correct them in SQLite (`PRAGMA foreign_key_check` lists them), or decide: --orphans skip puts these rows into quarantine, \
         --orphans null imports them with NULL.",
    ))
}
