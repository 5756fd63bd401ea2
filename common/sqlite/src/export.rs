//! The way back: a snapshot of PostgreSQL as a SQLite database. No server has a part in it.
//!
//! 1. [`plan`] makes the tables of the file from what pg_dump wrote into the snapshot's archive, and lists what has no translation.
//! 2. [`Writer`] makes the file: tables, then the rows of COPY text in the form of [`types`], then indexes and views.
//! 3. [`read_back`] reads every row of the file by the rules of the import, and gives the hashes that have to be those of the snapshot's
//!    own rows ([`Lines`]).
//!
//! docs/sqlite-values.md has the form of each type; a value that was written comes back through `safe-run import` as it was.

mod convert;
mod defaults;
mod design;
mod expression;
mod keys;
mod kind;
mod literals;
mod names;
mod read_back;
mod rows;
mod structure;
mod tokens;
mod types;
mod views;
mod write;

use std::collections::{BTreeSet, HashSet};

use common::{
    QualifiedName,
    snapshot::{Manifest, archive::ArchiveEntry},
};

pub use crate::ddl::Untranslated;
pub use design::TableDesign;
pub use keys::IndexDesign;
pub use read_back::read_back;
pub use rows::{Batch, Encoding, LineError, Lines};
pub use rusqlite::InterruptHandle;
pub use write::{Filled, Writer};

/// What the file will hold.
#[derive(Debug, Default)]
pub struct ExportPlan {
    /// Its tables.
    pub tables: Vec<TableDesign>,
    /// Its indexes.
    pub indexes: Vec<IndexDesign>,
    /// Its views.
    pub views: Vec<ViewDesign>,
    /// What has no translation.
    pub untranslated: Vec<Untranslated>,
    /// What is other than it was, though it was translated, and rows that do not come.
    pub notes: Vec<String>,
    /// Why there can be no such file: a table of the database's own whose definition is not understood.
    pub refused: Option<String>,
}

/// A view of the file.
#[derive(Debug, Clone)]
pub struct ViewDesign {
    /// Its name in SQLite.
    pub name: String,
    /// CREATE VIEW.
    pub sql: String,
    /// PostgreSQL's own statement.
    original: String,
}

/// Plans the file for these tables (or partitioned tables) of a snapshot.
pub fn plan(manifest: &Manifest, entries: &[ArchiveEntry], selected: &BTreeSet<QualifiedName>) -> ExportPlan {
    let chosen: Option<HashSet<u32>> =
        manifest.partial.as_ref().map(|partial| partial.entries.iter().copied().collect());
    let entries: Vec<&ArchiveEntry> = entries
        .iter()
        .filter(|entry| chosen.as_ref().is_none_or(|chosen| chosen.contains(&entry.id)))
        .collect();
    let mut made = design::plan(manifest, structure::read(&entries), selected);
    if let Some(objects) = &manifest.large_objects {
        made.untranslated.push(Untranslated {
            what: common::format::plural(objects.count, "large object", "large objects"),
            sql: String::new(),
            reason: "SQLite has none; `restore` brings them back".to_owned(),
        });
    }
    made
}

impl ExportPlan {
    /// What has no translation as a file that can be read: each object's SQL as a comment, with the reason.
    pub fn untranslated_sql(&self) -> String {
        let mut sql = format!("-- Not translated: {}\n", self.untranslated.len());
        for missing in &self.untranslated {
            sql.push('\n');
            crate::ddl::comment(&format!("{}: {}", missing.what, missing.reason), &mut sql);
            if !missing.sql.is_empty() {
                crate::ddl::comment(&missing.sql, &mut sql);
            }
        }
        sql
    }
}

#[cfg(test)]
mod tests;
