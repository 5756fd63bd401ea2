//! A schema of PostgreSQL from SQLite's own: in stages, so that rows are loaded into bare tables, and with a list of what has no
//! translation.

use std::collections::BTreeMap;

mod defaults;
mod expression;
mod keys;
mod kind;
mod names;
mod tables;
mod types;
mod views;

use common::ident::Ident;

use crate::{
    scan::TableScan,
    schema::Schema,
    target::{ColumnRule, EpochUnit},
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
    let mut made = Translation::default();
    let designs = tables::design(schema, scans, options, &mut made);
    for design in &designs {
        tables::create(design, options, &mut made);
    }
    for design in &designs {
        keys::keys(design, options, &mut made);
        keys::indexes(design, options, &mut made);
        keys::checks(design, options, &mut made);
        keys::foreign_keys(design, &designs, schema, options, &mut made);
        keys::sequence(design, options, &mut made);
    }
    for view in &schema.views {
        views::create(view, &designs, options, &mut made);
    }
    left_out(schema, &mut made);
    made.statements.sort_by_key(|statement| statement.stage);
    made.tables = designs.into_iter().map(|design| design.plan).collect();
    made
}

fn left_out(schema: &Schema, made: &mut Translation) {
    let mut put = |what: String, sql: &str, reason: &str| {
        made.untranslated.push(Untranslated { what, sql: sql.to_owned(), reason: reason.to_owned() });
    };
    for left in &schema.left_out {
        put(format!("table {}", left.name), &left.sql, &left.reason);
    }
    for trigger in &schema.triggers {
        put(
            format!("trigger {} of {}", trigger.name, trigger.table),
            &trigger.sql,
            "PostgreSQL's triggers call a function, which has to be written",
        );
    }
}

impl Translation {
    /// Everything as a file of SQL that can be read, edited and run: the stages in their order, and what has no translation as comments.
    pub fn to_sql(&self) -> String {
        let mut sql = String::new();
        let mut stage = None;
        for statement in &self.statements {
            if stage != Some(statement.stage) {
                stage = Some(statement.stage);
                sql.push_str(&format!("\n-- {}\n", statement.stage));
            }
            sql.push_str(&statement.sql);
            sql.push_str(";\n");
        }
        if !self.notes.is_empty() {
            sql.push_str("\n-- What is other than it was\n");
            self.notes.iter().for_each(|note| comment(note, &mut sql));
        }
        if !self.untranslated.is_empty() {
            sql.push_str(&format!("\n-- Not translated: {}\n", self.untranslated.len()));
        }
        for missing in &self.untranslated {
            sql.push('\n');
            comment(&format!("{}: {}", missing.what, missing.reason), &mut sql);
            comment(&missing.sql, &mut sql);
        }
        sql
    }
}

/// Every line as a comment, with nothing that a terminal would obey.
pub(crate) fn comment(text: &str, sql: &mut String) {
    for line in text.split(['\n', '\r']) {
        sql.push_str(&format!("-- {}\n", common::ident::printable(line)));
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tables => "Tables",
            Self::Keys => "After the rows: keys",
            Self::Indexes => "Indexes",
            Self::Checks => "CHECK constraints",
            Self::ForeignKeys => "Foreign keys",
            Self::Sequences => "Sequences",
            Self::Views => "Views",
        })
    }
}
