//! What happened to the files of a run and to their statements.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::statement_facts::TableFootprint;
use sql::{migration::MigrationFile, statement::Statement};

/// Longest piece of a statement that is shown, in characters.
pub const SUMMARY_CHARS: usize = 70;

/// Longest statement that is kept whole in a report, in characters: the file itself has the rest.
const TEXT_CHARS: usize = 10_000;

/// What happened to one statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatementReport {
    /// Line in the file.
    pub line: u32,
    /// Its beginning.
    pub summary: String,
    /// All of it, secrets masked; empty when the beginning is all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Rows that the server reported.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
    /// Locks that it took and tables that it wrote anew.
    #[serde(flatten)]
    pub footprint: TableFootprint,
    /// What a person should know about it, effects included that a ROLLBACK does not undo.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl StatementReport {
    /// What ran, before anything is known of its locks.
    pub fn new(statement: &Statement, rows: u64, took: Duration) -> Self {
        let summary = statement.summary(SUMMARY_CHARS);
        let text = shortened(&statement.text, TEXT_CHARS);
        Self {
            line: statement.line,
            text: if text == summary { String::new() } else { text },
            summary,
            rows,
            seconds: took.as_secs_f64(),
            footprint: TableFootprint::default(),
            warnings: statement
                .class
                .warnings
                .iter()
                .chain(&statement.class.outside_transaction)
                .cloned()
                .collect(),
        }
    }
}

/// The text with its secrets masked; of a long one the beginning, and how much more there is.
fn shortened(text: &str, max: usize) -> String {
    let masked = sql::masking::sql_beginning(text, max);
    match text.chars().count().checked_sub(max) {
        Some(more) if more > 0 => format!("{masked} … ({more} more characters)"),
        _ => masked,
    }
}

/// What happened to one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// Its version.
    pub version: String,
    /// The file's name.
    pub file: String,
    /// When it began, counted from the beginning of the run.
    #[serde(default)]
    pub started_seconds: f64,
    /// How long it took.
    pub seconds: f64,
    /// Whether all of it ran.
    pub complete: bool,
    /// Its statements, up to the one that failed.
    pub statements: Vec<StatementReport>,
    /// The statement that failed.
    #[serde(default)]
    pub failed: Option<StatementReport>,
    /// Statements that were to run.
    #[serde(default)]
    pub statements_planned: usize,
    /// Locks and rewrites that are known for the file as a whole only.
    #[serde(flatten)]
    pub footprint: TableFootprint,
}

impl MigrationReport {
    /// A file that begins; `since`: when the first one did.
    pub fn begun(file: &MigrationFile, since: Instant) -> Self {
        let statements = match file.no_transaction {
            Some(_) => &file.statements,
            None => file.statements_without_wrapper().unwrap_or(&file.statements),
        };
        Self {
            version: file.version.as_str().to_owned(),
            file: file.name(),
            started_seconds: since.elapsed().as_secs_f64(),
            seconds: 0.0,
            complete: false,
            statements: Vec::new(),
            failed: None,
            statements_planned: statements.len(),
            footprint: TableFootprint::default(),
        }
    }
}
