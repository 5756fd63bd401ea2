//! What an import did, as a part of the report. Pure.

use common::format::{count, plural};
use serde::{Deserialize, Serialize};

/// The file, and what became of its tables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The file's path.
    pub file: String,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// SHA-256 of the `-wal` beside it, if that held anything.
    #[serde(default)]
    pub wal_sha256: Option<String>,
    /// The schema was made from the file's own.
    #[serde(default)]
    pub made_schema: bool,
    /// Parts of the file's schema that have no translation.
    #[serde(default)]
    pub untranslated: u64,
    /// The tables, in the order in which they were loaded.
    pub tables: Vec<ImportedTable>,
    /// Tables that were not imported, each with the reason.
    pub left_alone: Vec<String>,
    /// Values that their columns can't hold: some of them.
    pub bad_values: Vec<BadValueReport>,
    /// Rows that were not imported and lie in the quarantine.
    pub quarantined: u64,
    /// The table that holds them.
    #[serde(default)]
    pub quarantine_table: Option<String>,
    /// The file that holds them.
    #[serde(default)]
    pub quarantine_file: Option<String>,
    /// Rows of which a foreign key that led nowhere became NULL.
    #[serde(default)]
    pub nulled: u64,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedTable {
    /// Its name in SQLite.
    pub source: String,
    /// The table that took its rows, as a person writes it.
    pub table: String,
    /// Columns that were loaded.
    pub columns: u64,
    /// Rows in the file.
    pub rows: u64,
    /// Rows that were loaded.
    pub loaded: u64,
    /// Rows that could not be.
    pub bad_rows: u64,
    /// Rows that were left out because a foreign key leads nowhere.
    #[serde(default)]
    pub orphans: u64,
    /// The hash of all loaded rows, computed from what SQLite holds.
    #[serde(default)]
    pub hash: String,
    /// PostgreSQL's rows were read back, and their number and the hash of their values are the same.
    pub verified: bool,
    /// How long the load took.
    pub seconds: f64,
}

/// A value that its column can't hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadValueReport {
    /// The table in SQLite.
    pub table: String,
    /// What names the row.
    pub key: String,
    /// The column in SQLite.
    pub column: String,
    /// The value, shortened.
    pub value: String,
    /// The rule that it breaks, as one word.
    pub rule: String,
    /// The rule as a sentence.
    pub reason: String,
}

impl BadValueReport {
    /// `orders row 17, column total: text '12,50' does not fit numeric(10,2): …`
    pub fn sentence(&self) -> String {
        format!("{} row {}, column {}: {}", self.table, self.key, self.column, self.reason)
    }
}

impl ImportReport {
    /// Rows that were loaded.
    pub fn loaded(&self) -> u64 {
        self.tables.iter().map(|table| table.loaded).sum()
    }

    /// `1,204 rows of 5 tables`.
    pub fn amount(&self) -> String {
        format!(
            "{} of {}",
            plural(self.loaded(), "row", "rows"),
            plural(self.tables.len() as u64, "table", "tables")
        )
    }

    /// How far it came before it was rolled back.
    pub fn had_loaded(&self) -> String {
        format!("{} had been loaded", self.amount())
    }

    /// Lines for a person.
    pub fn lines(&self, verbose: bool) -> Vec<String> {
        /// Values that are shown without --verbose.
        const SHOWN: usize = 10;
        let mut lines =
            vec![format!("file: {} ({} bytes, SHA-256 {})", self.file, count(self.file_bytes), self.sha256)];
        if let Some(wal) = &self.wal_sha256 {
            lines.push(format!("and its -wal, SHA-256 {wal}"));
        }
        if verbose {
            lines.extend(self.tables.iter().map(ImportedTable::line));
        }
        lines.extend(self.left_alone.iter().map(|left| format!("not imported: {left}")));
        let shown = if verbose { self.bad_values.len() } else { SHOWN };
        lines.extend(self.bad_values.iter().take(shown).map(|bad| format!("bad value: {}", bad.sentence())));
        if self.bad_values.len() > shown {
            lines.push(format!(
                "bad value: and {} more (--verbose shows them)",
                self.bad_values.len() - shown
            ));
        }
        if self.quarantined > 0 {
            lines.push(format!(
                "quarantine: {}, in table {} and in {}",
                plural(self.quarantined, "row", "rows"),
                self.quarantine_table.as_deref().unwrap_or("(not made)"),
                self.quarantine_file.as_deref().unwrap_or("(no file)")
            ));
        }
        if self.nulled > 0 {
            lines.push(format!(
                "{} got NULL for a foreign key that led nowhere",
                plural(self.nulled, "row", "rows")
            ));
        }
        lines
    }
}

impl ImportedTable {
    /// `orders → shop.orders: 1,204 rows, verified`.
    pub fn line(&self) -> String {
        let verified = if self.verified { ", read back and equal" } else { "" };
        let bad = if self.bad_rows > 0 { format!(", {} bad", count(self.bad_rows)) } else { String::new() };
        let orphans = if self.orphans > 0 {
            format!(", {} left out as orphans", count(self.orphans))
        } else {
            String::new()
        };
        format!(
            "{} → {}: {} of {}{bad}{orphans}{verified}",
            self.source,
            self.table,
            count(self.loaded),
            plural(self.rows, "row", "rows")
        )
    }
}
