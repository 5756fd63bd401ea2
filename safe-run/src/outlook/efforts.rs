//! What statements make the server do with all rows of a table: write them anew, read them, build an index over them.
//!
//! The words say what is asked for ([`sql::statement::changes`]), the catalog whether it costs that much ([`super::facts`]). In doubt
//! nothing is said.

mod alter;

use std::collections::BTreeSet;

use serde::Serialize;
use sql::statement::{
    TableName,
    changes::{self, Change, Source, Task, Using},
};

use super::{
    facts::{Catalog, Index, Wanted},
    known::{Known, Table},
    pace::Estimate,
};

/// What the server does with the rows of a table that is there before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effort {
    /// The table as a person writes it.
    pub table: String,
    /// What is done.
    pub what: What,
    /// Why, as a phrase.
    pub why: String,
    /// How many indexes are built.
    pub indexes: usize,
    /// Rows of the table and its partitions, as the last ANALYZE and the statistics know them.
    pub rows: Option<u64>,
    /// Bytes of their heaps, as the last ANALYZE knew them.
    pub bytes: u64,
    /// How long it may take; nothing where the table is small or its rows are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

/// What is done with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// All are written anew, and all indexes with them.
    Rewrite,
    /// All are read.
    Scan,
    /// All are read, and each is looked up in another table.
    Lookup,
    /// They are read, and an index is built.
    Index,
}

/// Adds what a task needs to be judged.
pub fn want(task: &Task, wanted: &mut Wanted) {
    let Task::Alter { changes, .. } = task else { return };
    for change in changes {
        match change {
            Change::AddColumn(column) => {
                wanted.types.insert(column.of.clone());
                if let Source::Default(expression) = &column.source {
                    wanted.functions.extend(changes::called(expression));
                }
            }
            Change::ColumnType { to, using, .. } => {
                wanted.types.insert(to.clone());
                if let Some(Using::Cast(types)) = using {
                    wanted.types.extend(types.iter().cloned());
                }
            }
            _ => {}
        }
    }
}

/// The tables of a task: itself, and a partition that is attached.
pub fn tables(task: &Task) -> Vec<&TableName> {
    match task {
        Task::Alter { table, changes, .. } => {
            let attached = changes.iter().filter_map(|change| match change {
                Change::Attach { partition, .. } => Some(partition),
                _ => None,
            });
            std::iter::once(table).chain(attached).collect()
        }
        Task::CreateIndex { table, .. } | Task::ReindexTable(table) | Task::NewPartition(table) => {
            vec![table]
        }
        Task::Rewrite(tables) | Task::DropIndexes(tables) => tables.iter().collect(),
        Task::ReindexIndex(index) => vec![index],
        Task::Refresh { view, .. } => vec![view],
    }
}

/// Collects what one statement does.
struct Efforts<'k> {
    known: &'k Known,
    found: Vec<Effort>,
}

impl Efforts<'_> {
    fn add(&mut self, table: &Table, what: What, why: String, indexes: usize) {
        let same = |found: &&mut Effort| found.table == table.name.short() && found.what == what;
        if what == What::Rewrite
            && let Some(found) = self.found.iter_mut().find(same)
        {
            found.why = format!("{}; {why}", found.why);
            return;
        }
        let (rows, bytes) = (table.rows, table.bytes);
        self.found.push(Effort {
            table: table.name.short(),
            what,
            why,
            indexes,
            rows,
            bytes,
            estimate: None,
        });
    }

    /// Rows that are written anew anyway are looked at on the way.
    fn settle(&mut self) {
        let rewritten: BTreeSet<String> = self
            .found
            .iter()
            .filter(|effort| effort.what == What::Rewrite)
            .map(|effort| effort.table.clone())
            .collect();
        self.found.retain(|effort| !matches!(effort.what, What::Scan) || !rewritten.contains(&effort.table));
        self.found.sort_by(|a, b| (a.what, &a.table).cmp(&(b.what, &b.table)));
    }
}

/// What a task does, and what the catalog is after it. `before` is the table that a name meant before the run.
pub fn judge<'k>(
    task: &Task,
    known: &'k Known,
    catalog: &mut Catalog,
    before: impl Fn(&TableName) -> Option<&'k Table>,
) -> Vec<Effort> {
    let mut efforts = Efforts { known, found: Vec::new() };
    match task {
        Task::Alter { table: name, changes, is_only } => {
            if let Some(table) = before(name)
                && let Some(mut facts) = catalog.tables.remove(&table.oid)
            {
                for change in changes {
                    efforts.change(table, &mut facts, catalog, change, &before);
                }
                if *is_only && facts.partitioned.is_some() {
                    efforts.found.retain(|effort| effort.what != What::Index);
                }
                catalog.tables.insert(table.oid, facts);
            }
        }
        Task::CreateIndex { table, name, if_missing, is_concurrent, is_only } => {
            if let Some(table) = before(table)
                && let Some(facts) = catalog.tables.get_mut(&table.oid)
            {
                let is_there = facts.indexes.iter().any(|index| Some(&index.name) == name.as_ref());
                let is_empty = *is_only && facts.partitioned.is_some();
                if !(*if_missing && is_there || is_empty) {
                    let how =
                        if *is_concurrent { "the rows are read twice, beside running work" } else { "" };
                    efforts.add(table, What::Index, how.to_owned(), 1);
                    facts.indexes.extend(name.clone().map(|name| Index { name, ..unclear_index() }));
                }
            }
        }
        Task::DropIndexes(names) => {
            for name in names {
                if let Some(facts) = before(name).and_then(|table| catalog.tables.get_mut(&table.oid)) {
                    facts.indexes.retain(|index| index.name != name.name);
                }
            }
        }
        Task::ReindexTable(name) => {
            if let Some(table) = before(name) {
                let count = catalog.tables.get(&table.oid).map_or(0, |facts| facts.indexes.len());
                if count > 0 {
                    efforts.add(table, What::Index, String::new(), count);
                }
            }
        }
        Task::ReindexIndex(name) => {
            if let Some(table) = before(name) {
                efforts.add(table, What::Index, String::new(), 1);
            }
        }
        Task::Rewrite(names) => {
            for table in names.iter().filter_map(before) {
                let count = catalog.tables.get(&table.oid).map_or(0, |facts| facts.indexes.len());
                efforts.add(table, What::Rewrite, String::new(), count);
            }
        }
        Task::Refresh { view, is_concurrent } => {
            if let Some(table) = before(view) {
                let count = catalog.tables.get(&table.oid).map_or(0, |facts| facts.indexes.len());
                match is_concurrent {
                    true => efforts.add(
                        table,
                        What::Scan,
                        "its rows are compared with those of its query".to_owned(),
                        0,
                    ),
                    false => efforts.add(table, What::Rewrite, "its query runs again".to_owned(), count),
                }
            }
        }
        Task::NewPartition(name) => {
            if let Some(table) = before(name) {
                efforts.default_partition(table, catalog);
            }
        }
    }
    efforts.settle();
    efforts.found
}

/// One of which only the name is known.
fn unclear_index() -> Index {
    Index {
        name: String::new(),
        of: Vec::new(),
        columns: Vec::new(),
        is_plain: false,
        is_unique: false,
        method: String::new(),
    }
}
