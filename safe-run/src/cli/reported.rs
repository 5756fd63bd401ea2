//! What is printed and written of a run, also of one that never began.

use chrono::{DateTime, Utc};
use common::{Error, ErrorKind, Result, interrupt};

use super::{Invocation, invocation};
use crate::{
    journal::Mode,
    report::{Report, Verdict, document, targets::Targets},
    run::local_offset,
};

impl Invocation<'_> {
    /// Runs, prints the outcome, and writes the reports that were asked for, also about what was refused. A run without a
    /// report of its own has said itself that there was nothing to do.
    pub(super) async fn reported(&self, run: impl Future<Output = Result<Option<Report>>>) -> Result<u8> {
        let wanted = self.cli.reports();
        let targets = Targets::check(wanted.report.as_deref(), wanted.report_json.as_deref())?;
        let began_at = Utc::now();
        let outcome = run.await.map_err(interrupt::explain).map_err(unchanged);
        let report = match &outcome {
            Ok(Some(report)) => {
                self.print(report)?;
                report.clone()
            }
            Ok(None) => {
                let mut report = self.blank_report(began_at);
                report.verdict = Verdict::UpToDate;
                report.exit_code = 0;
                report.headline = "there was nothing to do; nothing was changed".to_owned();
                report
            }
            Err(error) => {
                let report = self.refusal(error, began_at);
                if self.output.is_json() {
                    self.print(&report)?;
                }
                report
            }
        };
        for error in targets.write(&report) {
            self.output.warn(&format!("the report could not be written: {error}"));
        }
        outcome.map(|_| report.exit_code)
    }

    /// A report on what never became a run.
    fn blank_report(&self, began_at: DateTime<Utc>) -> Report {
        let mode = if self.cli.external.is_empty() { Mode::Transaction } else { Mode::Restore };
        let connection = self.settings.connection().ok();
        let database = connection.as_ref().map_or(String::new(), |found| found.database().to_owned());
        let mut report = Report::new(database, mode, began_at);
        if let Some(connection) = connection {
            report.host = connection.host_label();
            report.user = connection.user().to_owned();
            report.database_url = connection.redacted_url();
        }
        report.utc_offset_seconds = local_offset(began_at);
        report.seconds = (Utc::now() - began_at).as_seconds_f64();
        report.repository = self.settings.repo.display().to_string();
        report.invocation = invocation();
        report
    }

    /// The report of what was refused before it became a run.
    pub(super) fn refusal(&self, error: &Error, began_at: DateTime<Utc>) -> Report {
        let mut report = self.blank_report(began_at);
        report.error = Some(error.into());
        report.headline = error.message().to_owned();
        report.exit_code = error.kind().exit_code();
        let state = if error.kind() == ErrorKind::Unknown {
            report.verdict = Verdict::Unknown;
            "nobody knows what state the database is in"
        } else {
            "nothing was changed"
        };
        report.state = error.database_state().unwrap_or(state).to_owned();
        report
    }

    fn print(&self, report: &Report) -> Result<()> {
        self.print_with(report, self.output.is_verbose())
    }

    pub(super) fn print_with(&self, report: &Report, verbose: bool) -> Result<()> {
        if self.output.is_json() {
            return self.output.exactly(&document::to_json(report)?);
        }
        let text = report.text(verbose, |verdict, word| self.output.paint(verdict.tone(), word));
        self.output.data(&text)
    }
}

/// What ends before it became a run has changed nothing.
fn unchanged(error: Error) -> Error {
    match (error.database_state(), error.kind()) {
        (None, kind) if kind != ErrorKind::Unknown => error.with_database_state("Nothing was changed."),
        _ => error,
    }
}
