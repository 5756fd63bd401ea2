//! What an import says of what it found: into the report, and as the errors that end it. Pure.

use common::Error;

use super::{
    choices::ColumnName,
    load::Loaded,
    plan::{Plan, Problem, TablePlan},
};
use crate::report::import::{BadValueReport, ImportReport, ImportedTable};

/// Bad values that a report holds.
const REPORTED: usize = 100;

/// Everything that a person has to decide, as one refusal.
pub(super) fn undecided(problems: &[Problem]) -> Error {
    /// Decisions that are told at once.
    const TOLD: usize = 20;
    let mut what: Vec<&str> = problems.iter().take(TOLD).map(|problem| problem.what.as_str()).collect();
    let more = format!("and {} more", problems.len().saturating_sub(TOLD));
    if problems.len() > TOLD {
        what.push(&more);
    }
    let ways: Vec<String> =
        problems.iter().take(TOLD).map(|problem| format!("{}.", problem.way_out)).collect();
    Error::refused(what.join("; ")).with_hint(format!("Decide with: {}", ways.join(" ")))
}

/// Puts what became of a table into the report.
pub(super) fn note_table(report: &mut ImportReport, table: &TablePlan, loaded: &Loaded, seconds: f64) {
    report.tables.push(ImportedTable {
        source: common::ident::printable(&table.source_name),
        table: table.target.name.short(),
        columns: table.columns.len() as u64,
        rows: loaded.rows,
        loaded: loaded.sent.rows,
        bad_rows: loaded.bad_rows,
        orphans: loaded.orphans_aside,
        hash: format!("{:032x}", loaded.sent.sum),
        verified: false,
        seconds,
    });
    report.nulled += loaded.orphans_nulled;
    let room = REPORTED.saturating_sub(report.bad_values.len());
    report.bad_values.extend(loaded.examples.iter().take(room).map(|bad| BadValueReport {
        table: common::ident::printable(&table.source_name),
        key: bad.key.clone(),
        column: common::ident::printable(&bad.column),
        value: bad.value.clone(),
        rule: bad.rule.clone(),
        reason: bad.why.clone(),
    }));
}

/// The error of an import that found values which their columns can't hold.
pub(super) fn bad_values(plan: &Plan, tables: &[Loaded]) -> Error {
    let total: u64 = tables.iter().map(|table| table.bad_rows).sum();
    let mut counts = Vec::new();
    let mut rules: Vec<&str> = Vec::new();
    for (table, loaded) in plan.tables.iter().zip(tables) {
        for ((column, rule), count) in &loaded.bad_counts {
            let column = ColumnName { table: table.source_name.clone(), column: column.clone() };
            counts.push(format!("{column} ({count}, {rule})"));
            rules.push(rule);
        }
    }
    let first = plan.tables.iter().zip(tables).find_map(|(table, loaded)| {
        let bad = loaded.examples.first()?;
        Some(format!("{} row {}, column {}: {}", table.source_name, bad.key, bad.column, bad.why))
    });
    let mut hints = Vec::new();
    if rules.iter().any(|rule| ["zone-missing", "zone-unwanted", "local-time"].contains(rule)) {
        hints.push("--timezone says in which time zone local times are.");
    }
    if rules.contains(&"epoch-unit") {
        hints.push("--epoch TABLE.COLUMN=seconds (or milliseconds, …) says what numbers mean as dates.");
    }
    hints.push("Correct these rows in SQLite, or import the others with --bad-values quarantine.");
    let rows = common::format::plural(total, "row has a value", "rows have values");
    Error::failed(format!(
        "{rows} that PostgreSQL can't hold unchanged: {}; the first: {}",
        counts.join(", "),
        first.unwrap_or_default()
    ))
    .with_hint(hints.join(" "))
}
