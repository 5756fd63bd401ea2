//! What happened, as a value. Pure: `report/text.rs`, `report/html.rs` and `report/document.rs` turn it into what is shown
//! and stored, and read it back, so that a report can be made again from the run's folder.
//!
//! The verdict comes first: what happened, what state the database is in, what to do next. A report never holds a secret:
//! URLs and statements come in masked.

pub mod document;
pub mod follow_up;
pub mod html;
pub mod import;
pub mod migrations;
pub mod recovered;
pub mod tables;
pub mod targets;
mod text;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use common::{Account, Error, format, masking, repository::StoredSnapshot};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{journal::Mode, version_tables::VersionTable};
use checks::{CheckKind, Comparison, RowComparison, Skipped};
use migrations::MigrationReport;

/// What a person can do about a run whose end is not known; the second always works.
pub const WAYS_OUT: [&str; 2] = [
    "safe-run recover",
    "or leave the database as it is: safe-run recover --keep lifts the fence and settles the run, whatever the snapshot can do",
];

/// The outcome in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The command ran, and never came to this database.
    NotConnected,
    /// The undo failed, or nobody knows.
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 8] = [
        Self::UpToDate,
        Self::Committed,
        Self::RolledBack,
        Self::Restored,
        Self::Stopped,
        Self::Failed,
        Self::NotConnected,
        Self::Unknown,
    ];

    /// The same verdict among those of all tools.
    pub fn common(self) -> common::Verdict {
        match self {
            Self::UpToDate => common::Verdict::UpToDate,
            Self::Committed => common::Verdict::Committed,
            Self::RolledBack => common::Verdict::RolledBack,
            Self::Restored => common::Verdict::Restored,
            Self::Stopped => common::Verdict::Stopped,
            Self::Failed => common::Verdict::NotRun,
            Self::NotConnected => common::Verdict::NotConnected,
            Self::Unknown => common::Verdict::UnknownState,
        }
    }

    /// How it looks. RESTORED is what was asked of `restore`; of a run, it says that the run failed.
    pub fn tone(self) -> common::verdict::Tone {
        match self {
            Self::Restored => common::verdict::Tone::Warning,
            verdict => verdict.common().tone(),
        }
    }

    /// The word that a person sees.
    pub fn word(self) -> &'static str {
        self.common().word()
    }

    /// Whether all is well.
    pub fn is_good(self) -> bool {
        matches!(self, Self::UpToDate | Self::Committed)
    }
}

/// A step with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// When it began, counted from the beginning of the run.
    pub started_seconds: f64,
    /// How long it took.
    pub seconds: f64,
}

/// The external command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The history tables of the tools that we know, before and after it.
    #[serde(default)]
    pub version_tables: Vec<VersionTable>,
}

/// The snapshot of the state before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// SHA-256 of its `manifest.json`, which holds the SHA-256 of every other file of it.
    pub sha256: String,
    /// The state that it holds is the state at this moment.
    pub taken_at: DateTime<Utc>,
    /// Tables in it.
    pub tables: u64,
    /// Rows in it.
    pub rows: u64,
    /// Bytes on disk.
    pub stored_bytes: u64,
}

impl SnapshotReport {
    /// What the manifest says.
    pub fn of(snapshot: &StoredSnapshot) -> common::Result<Self> {
        let manifest = &snapshot.manifest;
        Ok(Self {
            sha256: common::digest::sha256_hex(&manifest.to_bytes()?),
            taken_at: manifest.taken_at,
            tables: manifest.tables.len() as u64,
            rows: manifest.rows(),
            stored_bytes: manifest.stored_bytes(),
        })
    }
}

/// An error, as a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            // A server quotes what it was sent.
            message: masking::text(error.message()),
            hint: error.hint().map(masking::text),
            sqlstate: error.sqlstate().map(str::to_owned),
        }
    }
}

/// What was undone, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoReport {
    /// `rollback`, `restore`, `clone` or `lift the fence`.
    #[serde(deserialize_with = "way_of_undo")]
    pub how: WayOfUndo,
    /// How long it took.
    pub seconds: f64,
    /// The name under which the failed database is kept.
    pub failed_database_kept_as: Option<String>,
    /// Why the undo itself failed.
    pub error: Option<ErrorReport>,
}

/// A word of a fixed set.
pub type WayOfUndo = &'static str;

fn way_of_undo<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WayOfUndo, D::Error> {
    let word = String::deserialize(deserializer)?;
    let known = ["rollback", "restore", "clone", "lift the fence"];
    Ok(known.into_iter().find(|way| *way == word).unwrap_or("undo"))
}

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run's id; empty when nothing was pending, or when it was refused before it became a run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Version of the tool.
    pub tool_version: String,
    /// Version of the server, such as `18.4`; empty when it was not reached.
    #[serde(default)]
    pub server_version: String,
    /// The database.
    pub database: String,
    /// Where it is.
    pub host: String,
    /// The role that the run connected as.
    #[serde(default)]
    pub user: String,
    /// The database as a URL, without its password.
    #[serde(default)]
    pub database_url: String,
    /// The folder of the snapshots.
    #[serde(default)]
    pub repository: String,
    /// The command line that repeats the run, secrets masked.
    #[serde(default)]
    pub invocation: String,
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
    /// Offset of the local time where it ran, east of Greenwich.
    #[serde(default)]
    pub utc_offset_seconds: i32,
    /// How long it took.
    pub seconds: f64,
    /// How long the fence stood: the longest time that a writer may have waited for it. `None` without a fence.
    #[serde(default)]
    pub fence_seconds: Option<f64>,
    /// It still stands, and holds until `safe-run release`: [`Report::fence_seconds`] is how long it had stood then.
    #[serde(default)]
    pub fence_held: bool,
    /// The snapshot's id.
    pub snapshot: Option<String>,
    /// What is in the snapshot.
    #[serde(default)]
    pub snapshot_facts: Option<SnapshotReport>,
    /// Migrations that were applied before this run, when that is known.
    #[serde(default)]
    pub applied: Option<usize>,
    /// Migrations that were to run.
    pub pending: usize,
    /// Migrations that ran, the last one maybe in part.
    pub migrations: Vec<MigrationReport>,
    /// The external command.
    pub command: Option<CommandReport>,
    /// What was imported from a SQLite file.
    #[serde(default)]
    pub import: Option<import::ImportReport>,
    /// Steps with their times.
    pub phases: Vec<Phase>,
    /// What the checks found.
    pub findings: Option<Comparison>,
    /// What could not be checked.
    pub skipped: Vec<Skipped>,
    /// The checks that looked at something.
    #[serde(default)]
    pub checked: Vec<CheckKind>,
    /// Tables whose number of rows changed.
    pub rows: Option<RowComparison>,
    /// The number of rows of every table, before and after; the changed ones first.
    #[serde(default)]
    pub tables: Vec<tables::TableRows>,
    /// What of the database is not as it was before, after an undo.
    #[serde(default)]
    pub account: Account,
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
    /// A report that says nothing yet.
    pub fn new(database: String, mode: Mode, started_at: DateTime<Utc>) -> Self {
        Self {
            run: String::new(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            server_version: String::new(),
            database,
            host: String::new(),
            user: String::new(),
            database_url: String::new(),
            repository: String::new(),
            invocation: String::new(),
            verdict: Verdict::Failed,
            exit_code: 1,
            headline: String::new(),
            state: String::new(),
            mode,
            protection: Vec::new(),
            started_at,
            utc_offset_seconds: 0,
            seconds: 0.0,
            fence_seconds: None,
            fence_held: false,
            snapshot: None,
            snapshot_facts: None,
            applied: None,
            pending: 0,
            migrations: Vec::new(),
            command: None,
            import: None,
            phases: Vec::new(),
            findings: None,
            skipped: Vec::new(),
            checked: Vec::new(),
            rows: None,
            tables: Vec::new(),
            account: Account::default(),
            notes: Vec::new(),
            error: None,
            undo: None,
            next: Vec::new(),
        }
    }

    /// What the checks of a run that stands have to say: with `--fail-on none` there can be violations all the same, and what
    /// could not be checked did not pass.
    pub fn checks_phrase(&self) -> String {
        let new = self.findings.as_ref().map_or(0, |findings| findings.new.len());
        let skipped: Vec<&Skipped> =
            self.skipped.iter().filter(|skipped| skipped.counts_for_strict).collect();
        let kinds: BTreeSet<CheckKind> = skipped.iter().map(|skipped| skipped.check).collect();
        let kinds: Vec<&str> = kinds.into_iter().map(CheckKind::as_str).collect();
        let could_not = format!(
            "{} ({})",
            format::plural(skipped.len() as u64, "thing could not be checked", "things could not be checked"),
            kinds.join(", ")
        );
        match (new, skipped.len()) {
            (0, 0) if self.checked.is_empty() => {
                "nothing was checked: no check had anything to look at".to_owned()
            }
            (0, 0) if self.skipped.iter().all(Skipped::is_proven) => "every check passed".to_owned(),
            (0, 0) => "every check that can run here passed".to_owned(),
            (0, _) if self.checked.is_empty() => format!("nothing was checked: {could_not}"),
            (0, _) => format!("every check that ran passed, but {could_not}"),
            (count, unchecked) => {
                let found = format::plural(count as u64, "new violation was", "new violations were");
                let rest = if unchecked == 0 { String::new() } else { format!(", and {could_not}") };
                format!("{found} found (--fail-on none){rest}")
            }
        }
    }

    /// Every failing finding, as sentences.
    pub fn failures(&self) -> Vec<String> {
        let findings =
            self.findings.iter().flat_map(Comparison::failing).map(|finding| finding.detail.clone());
        let rows = self.rows.iter().flat_map(RowComparison::failing).map(|change| change.detail.clone());
        findings.chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checks::Finding;

    fn report(new: usize, unchecked: usize, unasked: usize, checked: &[CheckKind]) -> Report {
        let mut report = Report::new("shop".to_owned(), Mode::Transaction, DateTime::UNIX_EPOCH);
        let key =
            checks::RuleKey { check: CheckKind::Triggers, object_oid: 1, rule_oid: 1, rule: "t".to_owned() };
        let finding = Finding::state(key, "t".to_owned(), "off", "trigger t of t is disabled".to_owned());
        report.findings = Some(Comparison { new: vec![finding; new], ..Comparison::default() });
        report.checked = checked.to_vec();
        let skipped = |counts_for_strict| Skipped {
            check: CheckKind::Structure,
            object: "2 indexes and tables".to_owned(),
            why: "the server does not have the extension amcheck".to_owned(),
            counts_for_strict,
        };
        report.skipped = vec![skipped(true); unchecked];
        report.skipped.extend(vec![skipped(false); unasked]);
        report
    }

    /// Every sentence about the checks of a run that stands, with the case that leads to it.
    #[test]
    fn no_sentence_about_the_checks_says_more_than_was_looked_at() {
        let all = [CheckKind::ForeignKeys, CheckKind::Rows];
        let cases = [
            ("all ran", report(0, 0, 0, &all)),
            ("what this server can't look at was left out", report(0, 0, 1, &all)),
            ("one could not", report(0, 1, 0, &all)),
            ("two could not", report(0, 2, 1, &all)),
            ("nothing to look at", report(0, 0, 0, &[])),
            ("the only one could not", report(0, 1, 0, &[])),
            ("--fail-on none", report(1, 0, 0, &all)),
            ("--fail-on none, and one could not", report(2, 1, 0, &all)),
        ];
        let said: Vec<String> =
            cases.iter().map(|(case, report)| format!("{case}: {}", report.checks_phrase())).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        all ran: every check passed
        what this server can't look at was left out: every check that can run here passed
        one could not: every check that ran passed, but 1 thing could not be checked (structure)
        two could not: every check that ran passed, but 2 things could not be checked (structure)
        nothing to look at: nothing was checked: no check had anything to look at
        the only one could not: nothing was checked: 1 thing could not be checked (structure)
        --fail-on none: 1 new violation was found (--fail-on none)
        --fail-on none, and one could not: 2 new violations were found (--fail-on none), and 1 thing could not be checked (structure)
        ");
    }

    /// What was not checked stands right below the verdict.
    #[test]
    fn what_was_not_checked_is_part_of_the_verdict() {
        let mut report = report(0, 1, 1, &[CheckKind::ForeignKeys]);
        report.headline = "`psql` succeeded".to_owned();
        report.notes = vec!["something else".to_owned()];
        insta::assert_snapshot!(report.text(false, |_, word| word.to_owned()), @r"
        NOT RUN  `psql` succeeded
                 not checked: structure of 2 indexes and tables: the server does not have the extension amcheck
                 note: something else
        ");
    }
}
