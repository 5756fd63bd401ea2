//! How an import is done: what the flags say, put together. Pure.

use sqlite::{
    choices::{self, Meanings},
    target::{ColumnRule, Target},
};

use super::choices::{BadValues, ColumnName, Existing, Map, Orphans};

/// How an import is done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportOptions {
    /// `--map`.
    pub maps: Vec<Map>,
    /// `--type`.
    pub types: Vec<(ColumnName, String)>,
    /// `--skip-table`.
    pub skip_tables: Vec<String>,
    /// `--skip-column`.
    pub skip_columns: Vec<ColumnName>,
    /// `--epoch`, `--timezone`, `--null-empty-strings`.
    pub meanings: Meanings,
    /// `--force-recreate` or `--append`.
    pub existing: Existing,
    /// `--bad-values`.
    pub bad_values: BadValues,
    /// `--orphans`.
    pub orphans: Orphans,
    /// `--fire-triggers`.
    pub fire_triggers: bool,
    /// `--run-owners-code`.
    pub run_owners_code: bool,
}

impl ImportOptions {
    /// The table that `--map` gives for one of SQLite, with its schema if that was given.
    pub fn map_of_table(&self, table: &str) -> Option<(Option<&str>, &str)> {
        choices::map_of_table(&self.maps, table)
    }

    /// The column that `--map` gives for one of SQLite.
    pub fn map_of_column(&self, name: &ColumnName) -> Option<&str> {
        choices::map_of_column(&self.maps, name)
    }

    /// How the values of a column are converted.
    pub fn rule(&self, name: &ColumnName, target: Target, nullable: bool) -> ColumnRule {
        self.meanings.rule(name, target, nullable)
    }
}
