//! The verdict of the checks: what was before, what is now, and what was announced.

use std::time::Instant;

use common::{Error, Progress, Result, postgres::Session};

use super::{Announced, Baseline, RunLog, RunOptions, check_options};
use crate::report::tables;
use checks::{self, CheckKind, CheckResults};

/// Compares the two passes and puts the result into the report.
///
/// # Errors
/// The first failing finding, as the error that the run ends with.
pub fn judge(
    log: &mut RunLog,
    options: &RunOptions,
    baseline: &Baseline,
    after: &CheckResults,
    announced: &Announced,
    verified: Vec<checks::Finding>,
) -> Result<()> {
    let before = &baseline.results;
    let mut comparison = checks::compare_announced(before, after, options.fail_on, &announced.accepted);
    comparison.add(checks::compare_content(before, after, &announced.rows));
    comparison.add(verified);
    let rows = check_options(options)
        .wants(CheckKind::Rows)
        .then(|| checks::compare_rows(before, after, &announced.rows, &announced.limits))
        // The history grows with every run: no news.
        .map(|mut rows| {
            rows.changes.retain(|change| change.table != log.history_table);
            rows
        });
    let report = &mut log.report;
    report.skipped = after.skipped.clone();
    report.skipped.extend(after.never_checked(before));
    report.skipped.sort();
    let verified_files = (!options.verify.is_empty()).then_some(CheckKind::Verify);
    report.checked = after.checked().into_iter().chain(verified_files).collect();
    report.tables = tables::compare(&baseline.results, after, &log.history_table);
    if let Some(rows) = &rows {
        for table in &rows.not_compared {
            report.notes.push(format!("the rows of {table} could not be counted afterwards"));
        }
    }
    report.findings = Some(comparison);
    // The sums are those of the tables, one by one.
    report.rows = rows.map(|rows| {
        let totals = tables::totals(&report.tables);
        checks::RowComparison {
            tables: totals.tables,
            rows_before: totals.before,
            rows_after: totals.after,
            ..rows
        }
    });
    let skipped = after.skipped.iter().find(|skipped| skipped.counts_for_strict);
    if let (true, Some(skipped)) = (options.strict, skipped) {
        return Err(Error::failed(format!(
            "{} of {} could not be checked: {}",
            skipped.check, skipped.object, skipped.why
        )));
    }
    if options.strict && report.checked.is_empty() {
        return Err(Error::failed("no check had anything to look at, and --strict was given").with_hint(
            "Choose checks that look at what the run changed (--only, --level), or leave --strict away.",
        ));
    }
    let Some(first) = report.failures().into_iter().next() else { return Ok(()) };
    let error = Error::failed(first);
    let failing = report.findings.iter().flat_map(|findings| findings.failing());
    Err(match failing.filter_map(checks::how_to_accept).next() {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

/// Gathers the planner's statistics again that the run took away, once it stands. Never fails the run.
pub async fn analyze_what_lost_statistics(session: &Session, log: &mut RunLog, progress: &Progress) {
    let lost = log.report.findings.as_ref().map_or_else(Vec::new, |found| found.lost_statistics.clone());
    if lost.is_empty() {
        return;
    }
    let began = Instant::now();
    progress.phase("analyzing", None);
    for lost in &lost {
        let statement = lost.analyze_sql();
        let table = lost.table.short();
        log.report.notes.push(match session.batch_execute(&statement).await {
            Ok(()) => format!(
                "{} of {table} had lost the planner's statistics: analyzed",
                common::format::plural(lost.columns.len() as u64, "column", "columns")
            ),
            Err(source) => {
                let error = Error::postgres("could not analyze", source);
                format!("{table} lost planner's statistics, and {error}; run: {statement};")
            }
        });
    }
    progress.done();
    log.timed("analyze", began);
}
