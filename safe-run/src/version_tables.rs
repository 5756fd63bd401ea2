//! The history tables of the migration tools that we know, before and after a command: which migrations it added is what a
//! person wants to read about `safe-run -- alembic upgrade head`.
//!
//! For the report alone: nothing is decided by it, and a table that can't be read is left out. It is read by COPY
//! (`history_tables.rs`), so that nobody's code runs for it.

use std::{collections::BTreeSet, fmt};

#[cfg(test)]
use common::migration_tools::TOOLS;
use common::{
    Result,
    format::plural,
    ident::{QualifiedName, printable},
    migration_tools::Known,
    postgres::Session,
};
use serde::{Deserialize, Serialize};

use crate::history_tables::{self, Candidate};

/// Most versions that are read of one table; a longer history is cut, and then only its length is compared.
const MAX_VERSIONS: usize = 50_000;

/// One history table, before and after a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionTable {
    /// The tool.
    pub tool: String,
    /// The table as a person writes it.
    pub table: String,
    /// Rows before; `None` when the table was not there.
    pub before: Option<usize>,
    /// Rows after; `None` when the table is gone.
    pub after: Option<usize>,
    /// The newest version before; `None` when the table was empty or not there.
    #[serde(default)]
    pub newest_before: Option<String>,
    /// The newest version after; `None` when the table is empty or gone.
    #[serde(default)]
    pub newest_after: Option<String>,
    /// Versions that are there now and were not.
    pub added: Vec<String>,
    /// Versions that were there and are gone.
    pub removed: Vec<String>,
}

impl VersionTable {
    /// Whether it is as it was.
    pub fn is_unchanged(&self) -> bool {
        let moved = self.before != self.after || self.newest_before != self.newest_after;
        !moved && self.added.is_empty() && self.removed.is_empty()
    }

    fn at(rows: Option<usize>, newest: Option<&String>) -> String {
        match rows {
            None => "not there".to_owned(),
            Some(rows) => {
                let newest = newest.map_or("empty".to_owned(), |newest| printable(newest));
                format!("{newest} ({})", plural(rows as u64, "row", "rows"))
            }
        }
    }

    /// The line of a run whose command was undone: where the history stands again.
    pub fn told_as_undone(&self) -> String {
        let old = Self::at(self.before, self.newest_before.as_ref());
        if self.is_unchanged() {
            return self.to_string();
        }
        let again = if self.before.is_none() { format!("{old} again") } else { format!("back at {old}") };
        let new = Self::at(self.after, self.newest_after.as_ref());
        format!("{} is {again}; the command had left it at {new}", self.table)
    }
}

impl fmt::Display for VersionTable {
    /// Where the history stood and stands, as one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let old = Self::at(self.before, self.newest_before.as_ref());
        let new = Self::at(self.after, self.newest_after.as_ref());
        if self.is_unchanged() {
            write!(f, "{} is unchanged at {new}", self.table)
        } else {
            write!(f, "{}: {old} → {new}", self.table)
        }
    }
}

/// A history table as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    tool: &'static str,
    table: String,
    rows: usize,
    newest: Option<String>,
    versions: BTreeSet<String>,
}

pub use common::migration_tools::tool_of;

/// Whether a table is the history of a tool that we know.
pub fn is_history(table: &str, has_column: impl Fn(&str) -> bool) -> bool {
    tool_of(table, has_column).is_some()
}

/// Reads the histories that are there. The session is left as it was found.
///
/// # Errors
/// The connection's own.
pub async fn read(session: &Session) -> Result<Vec<History>> {
    let found = history_tables::candidates(session).await?;
    let known: Vec<(&Candidate, &Known, Vec<String>)> = found
        .iter()
        .filter_map(|candidate| {
            let tool = candidate.tool?;
            let read = tool.read(&candidate.plain)?;
            Some((candidate, tool, read))
        })
        .collect();
    let wanted: Vec<(&QualifiedName, &[String])> =
        known.iter().map(|(candidate, _, read)| (&candidate.table, read.as_slice())).collect();
    let contents = history_tables::contents(session, &wanted).await?;
    let mut histories: Vec<History> = known
        .iter()
        .zip(contents)
        .filter_map(|((candidate, tool, read), text)| {
            let rows = history_tables::rows(&text?, read.len());
            Some(tool.holds(candidate.table.short(), &rows))
        })
        .collect();
    histories.sort_by(|one, other| one.table.cmp(&other.table));
    Ok(histories)
}

/// What is read of a tool's table.
trait Reading {
    /// The columns to read: those of the version, then what tells the newest. `None` where one has a type of the database's own.
    fn read(&self, plain: &[String]) -> Option<Vec<String>>;
    /// `rows`: the columns of [`Self::read`]. Pure.
    fn holds(&self, table: String, rows: &[Vec<Option<String>>]) -> History;
}

impl Reading for Known {
    fn read(&self, plain: &[String]) -> Option<Vec<String>> {
        // COPY takes no column twice.
        let order = Some(&self.order).filter(|order| !self.shown.contains(order));
        let wanted = self.shown.iter().chain(order);
        wanted.map(|name| plain.iter().find(|column| column == name).cloned()).collect()
    }

    fn holds(&self, table: String, rows: &[Vec<Option<String>>]) -> History {
        let version = |row: &Vec<Option<String>>| {
            let parts: Vec<&str> =
                row.iter().take(self.shown.len()).filter_map(|part| part.as_deref()).collect();
            (!parts.is_empty()).then(|| parts.join(self.between))
        };
        let place = |row: &&Vec<Option<String>>| {
            let at = self.shown.iter().position(|column| *column == self.order);
            let value = row.get(at.unwrap_or(self.shown.len())).cloned().flatten();
            (value.as_ref().map(|value| value.parse::<i128>().ok()), value)
        };
        History {
            tool: self.tool,
            table,
            rows: rows.len(),
            newest: rows.iter().max_by_key(place).and_then(version),
            versions: rows.iter().take(MAX_VERSIONS).filter_map(version).collect(),
        }
    }
}

/// What became of each table. Pure.
pub fn compare(before: &[History], after: &[History]) -> Vec<VersionTable> {
    let tables: BTreeSet<&str> = before.iter().chain(after).map(|history| history.table.as_str()).collect();
    let nothing = BTreeSet::new();
    tables
        .into_iter()
        .map(|table| {
            let find = |list: &[History]| list.iter().find(|history| history.table == table).cloned();
            let (then, now) = (find(before), find(after));
            let cut = then.iter().chain(&now).any(|history| history.rows > MAX_VERSIONS);
            let versions = |history: &Option<History>| {
                history.as_ref().filter(|_| !cut).map_or(nothing.clone(), |history| history.versions.clone())
            };
            let (old, new) = (versions(&then), versions(&now));
            VersionTable {
                tool: now.as_ref().or(then.as_ref()).map_or("", |history| history.tool).to_owned(),
                table: table.to_owned(),
                before: then.as_ref().map(|history| history.rows),
                after: now.as_ref().map(|history| history.rows),
                newest_before: then.and_then(|history| history.newest),
                newest_after: now.and_then(|history| history.newest),
                added: new.difference(&old).cloned().collect(),
                removed: old.difference(&new).cloned().collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(table: &str, versions: &[&str]) -> History {
        let versions: BTreeSet<String> = versions.iter().map(|&version| version.to_owned()).collect();
        let newest = versions.last().cloned();
        History { tool: "Alembic", table: table.to_owned(), rows: versions.len(), newest, versions }
    }

    #[test]
    fn no_column_is_read_twice_and_the_newest_row_is_told_as_its_tool_writes_it() {
        let tool = |name: &str| TOOLS.iter().find(|known| known.tool == name).unwrap();
        for known in &TOOLS {
            let columns: Vec<String> = known.columns.iter().map(|name| (*name).to_owned()).collect();
            let read =
                known.read(&columns).unwrap_or_else(|| panic!("{} is known by other columns", known.tool));
            let unique: BTreeSet<&String> = read.iter().collect();
            assert_eq!(unique.len(), read.len(), "{}: {read:?}", known.tool);
        }
        let rows = |rows: &[&[&str]]| -> Vec<Vec<Option<String>>> {
            let value = |value: &&str| (!value.is_empty()).then(|| (*value).to_owned());
            rows.iter().map(|row| row.iter().map(value).collect()).collect()
        };
        let alembic = tool("Alembic").holds("a".to_owned(), &rows(&[&["a1"]]));
        assert_eq!((alembic.rows, alembic.newest.as_deref()), (1, Some("a1")));
        // By the number of the row, and not by its text.
        let django = rows(&[&["shop", "0002_b", "10"], &["shop", "0001_a", "9"]]);
        assert_eq!(tool("Django").holds("d".to_owned(), &django).newest.as_deref(), Some("shop.0002_b"));
        // A repeatable one of Flyway has no version.
        let flyway = rows(&[&["1", "one", "1"], &["", "views", "2"]]);
        let told = tool("Flyway").holds("f".to_owned(), &flyway);
        assert_eq!(told.newest.as_deref(), Some("views"));
        assert_eq!(told.versions.into_iter().collect::<Vec<_>>(), ["1 one", "views"]);
    }

    #[test]
    fn added_and_removed_versions_are_told_and_so_are_new_tables() {
        let told = compare(&[history("a", &["1", "2"])], &[history("a", &["2", "3"]), history("b", &["x"])]);
        assert_eq!(told[0].added, ["3"]);
        assert_eq!(told[0].removed, ["1"]);
        assert_eq!((told[0].before, told[0].after), (Some(2), Some(2)));
        assert_eq!((told[1].before, told[1].after, told[1].added.len()), (None, Some(1), 1));
    }

    #[test]
    fn what_moved_and_what_did_not_are_told_apart() {
        let before =
            [history("a", &["1", "2"]), history("b", &["x"]), history("e", &[]), history("gone", &["1"])];
        let after =
            [history("a", &["1", "3"]), history("b", &["x"]), history("e", &[]), history("new", &["1"])];
        let told: Vec<String> = compare(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a: 2 (2 rows) → 3 (2 rows)",
                "b is unchanged at x (1 row)",
                "e is unchanged at empty (0 rows)",
                "gone: 1 (1 row) → not there",
                "new: not there → 1 (1 row)",
            ]
        );
    }

    #[test]
    fn what_was_undone_is_told_as_it_is_again() {
        let after = [history("a", &["1", "3"]), history("b", &["x"]), history("new", &["1"])];
        let before = [history("a", &["1", "2"]), history("b", &["x"])];
        let told: Vec<String> = compare(&before, &after).iter().map(VersionTable::told_as_undone).collect();
        assert_eq!(
            told,
            [
                "a is back at 2 (2 rows); the command had left it at 3 (2 rows)",
                "b is unchanged at x (1 row)",
                "new is not there again; the command had left it at 1 (1 row)",
            ]
        );
    }

    #[test]
    fn a_history_that_was_cut_names_no_versions() {
        let mut long = history("a", &["1"]);
        long.rows = MAX_VERSIONS + 1;
        let told = compare(&[history("a", &["2"])], &[long]);
        assert!(told[0].added.is_empty() && told[0].removed.is_empty());
    }
}
