//! What happened, as a value and as text. Pure. The verdict comes first: what happened, what state the database is in,
//! what to do next.

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{Error, cli::format};
use serde::Serialize;

use crate::{
    apply::MigrationReport,
    check::{Comparison, Finding, RowComparison, Severity, Skipped},
    journal::Mode,
};

/// The outcome in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing was pending.
    UpToDate,
    /// The migrations, or the command, ran, the checks passed, and the result stands.
    Committed,
    /// The transaction was rolled back.
    RolledBack,
    /// The snapshot was restored.
    Restored,
    /// It failed, and the failed state was kept for a person to decide.
    Stopped,
    /// It failed before anything was changed.
    Failed,
    /// The undo failed, or nobody knows.
    Unknown,
}

impl Verdict {
    /// The word that a person sees.
    pub fn word(self) -> &'static str {
        match self {
            Self::UpToDate => "UP TO DATE",
            Self::Committed => "COMMITTED",
            Self::RolledBack => "ROLLED BACK",
            Self::Restored => "RESTORED",
            Self::Stopped => "STOPPED",
            Self::Failed => "NOT RUN",
            Self::Unknown => "UNKNOWN STATE",
        }
    }

    /// Whether all is well.
    pub fn is_good(self) -> bool {
        matches!(self, Self::UpToDate | Self::Committed)
    }
}

/// A step with its time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// The external command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandReport {
    /// Its words, passwords masked.
    pub command: String,
    /// Its exit code; `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// How long it took.
    pub seconds: f64,
    /// Sessions of the database that were seen to begin while it ran.
    pub sessions: u64,
    /// It dropped, remade or renamed the database.
    pub replaced: bool,
}

/// An error, as a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The message.
    pub message: String,
    /// The next action.
    pub hint: Option<String>,
    /// The SQLSTATE.
    pub sqlstate: Option<String>,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self {
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
            sqlstate: error.sqlstate().map(str::to_owned),
        }
    }
}

/// What was undone, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndoReport {
    /// `rollback`, `restore` or `clone`.
    pub how: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// The name under which the failed database is kept.
    pub failed_database_kept_as: Option<String>,
    /// Why the undo itself failed.
    pub error: Option<ErrorReport>,
}

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The run's id.
    pub run: String,
    /// Version of the tool.
    pub tool_version: &'static str,
    /// The database.
    pub database: String,
    /// Where it is.
    pub host: String,
    /// The outcome.
    pub verdict: Verdict,
    /// The process's exit code.
    pub exit_code: u8,
    /// The sentence beside the verdict.
    pub headline: String,
    /// What state the database is in.
    pub state: String,
    /// How it was protected.
    pub mode: Mode,
    /// Which fence stood, which snapshot was taken when, and why.
    pub protection: Vec<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub seconds: f64,
    /// The snapshot.
    pub snapshot: Option<String>,
    /// Migrations that were to run.
    pub pending: usize,
    /// Migrations that ran, the last one maybe in part.
    pub migrations: Vec<MigrationReport>,
    /// The external command.
    pub command: Option<CommandReport>,
    /// Steps with their times.
    pub phases: Vec<Phase>,
    /// What the checks found.
    pub findings: Option<Comparison>,
    /// What could not be checked.
    pub skipped: Vec<Skipped>,
    /// Tables whose number of rows changed.
    pub rows: Option<RowComparison>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Why it failed.
    pub error: Option<ErrorReport>,
    /// How it was undone.
    pub undo: Option<UndoReport>,
    /// Commands to go on with.
    pub next: Vec<String>,
}

impl Report {
    /// The whole report as lines for a person; `paint` colours the verdict.
    pub fn text(&self, verbose: bool, paint: impl Fn(Verdict, &str) -> String) -> String {
        let word = self.verdict.word();
        let indent = " ".repeat(word.len() + 2);
        let mut out = format!(
            "{}  {}\n",
            paint(self.verdict, word),
            self.headline.replace('\n', &format!("\n{indent}"))
        );
        if !self.state.is_empty() {
            out.push_str(&format!("{indent}{}\n", self.state));
        }
        let mut line = |text: &str| out.push_str(&format!("{indent}{text}\n"));
        for detail in self.more_failures() {
            line(&detail);
        }
        if let Some(hint) = self.error.as_ref().and_then(|error| error.hint.as_ref()) {
            line(&format!("hint: {hint}"));
        }
        if let Some(error) = self.undo.as_ref().and_then(|undo| undo.error.as_ref()) {
            line(&format!("the undo failed: {}", error.message));
            if let Some(hint) = &error.hint {
                line(&format!("hint: {hint}"));
            }
        }
        for change in
            self.rows.iter().flat_map(|rows| &rows.changes).filter(|change| change.severity == Severity::Note)
        {
            line(&format!("rows: {}", change.detail));
        }
        self.findings_text(verbose, &mut line);
        for note in &self.notes {
            line(&format!("note: {note}"));
        }
        if verbose {
            self.details(&mut line);
        }
        for next in &self.next {
            line(&format!("next: {next}"));
        }
        out
    }

    /// Failing findings beyond the first, which is the headline.
    fn more_failures(&self) -> Vec<String> {
        const SHOWN: usize = 10;
        let all = self.failures();
        let mut lines: Vec<String> = all.iter().skip(1).take(SHOWN).cloned().collect();
        if all.len() > SHOWN + 1 {
            lines.push(format!(
                "and {} more; `safe-run report {}` lists all",
                all.len() - SHOWN - 1,
                self.run
            ));
        }
        lines
    }

    /// What the checks of a run that stands have to say: with `--fail-on none` there can be violations all the same.
    pub fn checks_phrase(&self) -> String {
        match self.findings.as_ref().map_or(0, |findings| findings.new.len()) {
            0 => "every check passed".to_owned(),
            count => format!(
                "{} found (--fail-on none)",
                format::plural(count as u64, "new violation was", "new violations were")
            ),
        }
    }

    /// Every failing finding, as sentences.
    pub fn failures(&self) -> Vec<String> {
        let findings =
            self.findings.iter().flat_map(Comparison::failing).map(|finding| finding.detail.clone());
        let rows = self.rows.iter().flat_map(RowComparison::failing).map(|change| change.detail.clone());
        findings.chain(rows).collect()
    }

    fn findings_text(&self, verbose: bool, line: &mut impl FnMut(&str)) {
        let Some(findings) = &self.findings else { return };
        let list = |title: &str, list: &[Finding], line: &mut dyn FnMut(&str)| {
            const SHOWN: usize = 3;
            let shown = if verbose { list.len() } else { SHOWN };
            for finding in list.iter().take(shown) {
                line(&format!("{title}: {}", finding.detail));
            }
            if list.len() > shown {
                line(&format!("{title}: and {} more (--verbose shows all)", list.len() - shown));
            }
        };
        if !findings.fails() {
            list("new", &findings.new, line);
        }
        list("there before", &findings.pre_existing, line);
        list("resolved", &findings.resolved, line);
        if verbose {
            list("advice", &findings.notes, line);
            for finding in findings.new.iter().chain(&findings.pre_existing) {
                if let Some(repair) = &finding.repair_sql {
                    line(&format!("repair (not run): {}", repair.replace('\n', " ")));
                }
            }
        }
        for skipped in self.skipped.iter().filter(|skipped| verbose || skipped.counts_for_strict) {
            line(&format!("not checked: {} of {}: {}", skipped.check, skipped.object, skipped.why));
        }
    }

    fn details(&self, line: &mut impl FnMut(&str)) {
        for text in &self.protection {
            line(&format!("protection: {text}"));
        }
        for migration in &self.migrations {
            let seconds = format::duration(Duration::from_secs_f64(migration.seconds));
            line(&format!(
                "{}  {}{seconds}",
                migration.file,
                if migration.complete { "" } else { "stopped after " }
            ));
            for statement in &migration.statements {
                let seconds = format::duration(Duration::from_secs_f64(statement.seconds));
                line(&format!(
                    "  line {}: {} ({seconds}, {} rows)",
                    statement.line, statement.summary, statement.rows
                ));
            }
        }
        for phase in &self.phases {
            line(&format!("{}: {}", phase.name, format::duration(Duration::from_secs_f64(phase.seconds))));
        }
    }
}
