//! The number of rows of every table, before and after. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use checks::CheckResults;

/// One leaf table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// The table as a person writes it, by its name after the migration, or before it where it is gone.
    pub table: String,
    /// Its name before, where that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// Rows before; `None` for a table that the migration made, and for one that was not counted.
    pub before: Option<i64>,
    /// Rows after; `None` for a table that is gone, and for one that was not counted.
    pub after: Option<i64>,
    /// What became of the table.
    pub change: TableChange,
}

/// What became of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableChange {
    /// Dropped.
    Gone,
    /// Fewer rows than before.
    Fewer,
    /// More rows than before.
    More,
    /// Made by the migration.
    New,
    /// Counted on one side alone: nothing is known.
    NotCounted,
    /// As many rows as before; they may have been changed.
    Same,
    /// Proven untouched, so it was not counted again.
    Untouched,
}

/// Compares two passes, table by table; the changed ones come first, then the larger ones. The table of the history grows
/// with every run: no news.
pub fn compare(before: &CheckResults, after: &CheckResults, history: &str) -> Vec<TableRows> {
    let leaves = |results: &CheckResults| -> BTreeMap<u32, String> {
        let counted = results.tables.iter().filter(|(_, facts)| facts.kind == 'r');
        counted.map(|(oid, facts)| (*oid, facts.name.short())).collect()
    };
    let (names_before, names_after) = (leaves(before), leaves(after));
    let every: BTreeSet<u32> = names_before.keys().chain(names_after.keys()).copied().collect();
    let mut tables: Vec<TableRows> = every
        .into_iter()
        .map(|oid| {
            let (then, now) = (names_before.get(&oid), names_after.get(&oid));
            let rows_before = before.rows.get(&oid).map(|rows| rows.rows);
            let untouched = after.untouched.contains(&oid);
            let rows_after = if untouched { rows_before } else { after.rows.get(&oid).map(|rows| rows.rows) };
            let change = match (then, now, rows_before, rows_after) {
                (Some(_), None, ..) => TableChange::Gone,
                (None, ..) => TableChange::New,
                (.., Some(a), Some(b)) if b < a => TableChange::Fewer,
                (.., Some(a), Some(b)) if b > a => TableChange::More,
                _ if untouched => TableChange::Untouched,
                (.., Some(_), Some(_)) => TableChange::Same,
                _ => TableChange::NotCounted,
            };
            TableRows {
                table: now.or(then).cloned().unwrap_or_default(),
                renamed_from: then.filter(|then| now.is_some_and(|now| now != *then)).cloned(),
                before: rows_before,
                after: rows_after,
                change,
            }
        })
        .filter(|table| table.table != history)
        .collect();
    // What did not change, or can't be told, is ordered by size alone.
    let rank = |change: TableChange| change.min(TableChange::NotCounted);
    tables.sort_by(|a, b| {
        let size = |table: &TableRows| table.before.max(table.after);
        (rank(a.change), size(b), &a.table).cmp(&(rank(b.change), size(a), &b.table))
    });
    tables
}

/// What was counted, all tables together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tables whose rows are known on both sides; one that was made or dropped counts, it had or has none.
    pub tables: usize,
    /// Their rows before.
    pub before: i64,
    /// Their rows after.
    pub after: i64,
    /// Those whose number of rows is another now, or that are new or gone.
    pub changed: usize,
}

/// Adds up the tables of [`compare`]. Every sum that is printed comes from here, so that it is the sum of the lines.
pub fn totals(tables: &[TableRows]) -> Totals {
    let counted = tables.iter().filter(|table| table.change != TableChange::NotCounted);
    counted.fold(Totals::default(), |sum, table| Totals {
        tables: sum.tables + 1,
        before: sum.before + table.before.unwrap_or(0),
        after: sum.after + table.after.unwrap_or(0),
        changed: sum.changed + usize::from(table.change < TableChange::NotCounted),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet as Set;

    use common::ident::QualifiedName;

    use super::*;
    use checks::{TableFacts, TableRows as Counted};

    /// Tables by oid, name and number of rows.
    fn results(tables: &[(u32, &str, Option<i64>)]) -> CheckResults {
        let mut results = CheckResults::default();
        for (oid, name, rows) in tables {
            let name = QualifiedName::new("public", *name);
            if let Some(rows) = rows {
                results.rows.insert(*oid, Counted { name: name.clone(), rows: *rows, root: None });
            }
            let facts = TableFacts {
                name,
                root: None,
                kind: 'r',
                relfilenode: 1,
                size_bytes: 0,
                row_security: false,
                force_row_security: false,
                policies: Set::new(),
                columns: BTreeMap::new(),
                is_default_partition: false,
            };
            results.tables.insert(*oid, facts);
        }
        results
    }

    #[test]
    fn changed_tables_come_first_and_the_larger_before_the_smaller() {
        let before = results(&[
            (1, "same", Some(9)),
            (2, "shrunk", Some(5)),
            (3, "grown", Some(5)),
            (4, "gone", Some(1)),
            (5, "huge", Some(1000)),
            (6, "old_name", Some(2)),
            (7, "unreadable", Some(3)),
        ]);
        let mut after = results(&[
            (1, "same", Some(9)),
            (2, "shrunk", Some(4)),
            (3, "grown", Some(6)),
            (5, "huge", None),
            (6, "new_name", Some(2)),
            (7, "unreadable", None),
            (8, "made", Some(1)),
        ]);
        after.untouched.insert(5);
        let told = compare(&before, &after, "safe_run.migrations");
        let words: Vec<String> = told
            .iter()
            .map(|t| format!("{} {:?} {:?}->{:?}", t.table, t.change, t.before, t.after))
            .collect();
        assert_eq!(
            words,
            [
                "gone Gone Some(1)->None",
                "shrunk Fewer Some(5)->Some(4)",
                "grown More Some(5)->Some(6)",
                "made New None->Some(1)",
                "huge Untouched Some(1000)->Some(1000)",
                "same Same Some(9)->Some(9)",
                "unreadable NotCounted Some(3)->None",
                "new_name Same Some(2)->Some(2)",
            ]
        );
        assert_eq!(told[7].renamed_from.as_deref(), Some("old_name"));
        // The table that could not be counted is in none of the sums.
        assert_eq!(totals(&told), Totals { tables: 7, before: 1022, after: 1022, changed: 4 });
    }
}
