//! The report of a run that was killed, or whose outcome was unknown, once `recover` has settled it. Pure.

use common::{ErrorKind, postgres::ConnectionSettings};
use serde::Serialize;

use super::{Report, Verdict};
use crate::journal::{Mode, PastRun, Step};

/// What was done about one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The run.
    pub run: String,
    /// What had happened to it, and what was done now.
    pub what: Vec<String>,
    /// The exit code that the run is closed with.
    pub exit_code: u8,
    /// Its verdict's word.
    pub verdict: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
}

/// The report as it stands now: what the run itself had still written, if anything, and what was done since.
pub fn report(
    earlier: Option<Report>,
    past: &PastRun,
    settings: &ConnectionSettings,
    recovered: &Recovered,
) -> Report {
    let mut report = earlier.unwrap_or_else(|| from_journal(past, settings));
    let word = &recovered.verdict;
    report.verdict =
        Verdict::ALL.into_iter().find(|verdict| verdict.word() == *word).unwrap_or(Verdict::Unknown);
    report.exit_code = recovered.exit_code;
    if let Some(error) = report.undo.as_mut().and_then(|undo| undo.error.take()) {
        report.notes.push(format!("the undo had failed at first: {}", error.message));
    }
    if report.headline.is_empty() {
        report.headline = "the run was killed, and `safe-run recover` has settled it".to_owned();
    } else {
        report.headline =
            format!("settled by `safe-run recover`; the run had ended with: {}", report.headline);
    }
    report.state = recovered.what.join(" · ");
    report.next.clone_from(&recovered.next);
    report.fence_held = past.holds_fence() && recovered.exit_code != ErrorKind::Failed.exit_code();
    if report.fence_held {
        report.next.push("open the database: safe-run release".to_owned());
    }
    report
}

/// What the journal alone can tell.
fn from_journal(past: &PastRun, settings: &ConnectionSettings) -> Report {
    let mode = past.steps.iter().find_map(|step| match step {
        Step::Begun { mode, .. } => Some(*mode),
        _ => None,
    });
    let database = past.database().unwrap_or_default().to_owned();
    let mut report =
        Report::new(database, mode.unwrap_or(Mode::Transaction), past.began_at.unwrap_or_default());
    report.run.clone_from(&past.run);
    // It may have been reached through another database.
    let settings = settings.with_database(&report.database);
    report.host = settings.host_label();
    report.user = settings.user().to_owned();
    report.database_url = settings.without_application_name().redacted_url();
    // <repository>/runs/<run>
    let repository = past.dir.parent().and_then(std::path::Path::parent);
    report.repository = repository.map(|dir| dir.display().to_string()).unwrap_or_default();
    report.snapshot = past.steps.iter().find_map(|step| match step {
        Step::SnapshotTaken { id } => Some(id.clone()),
        _ => None,
    });
    report.notes.push(format!("it ran: {}", past.what()));
    report.notes.push("what the killed run had measured is lost with it".to_owned());
    report
}
