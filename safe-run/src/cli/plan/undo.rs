//! What the undo of a planned run is, what it costs others, and what would make it cheaper.

use std::time::Duration;

use common::{format, ident::shell_word, repository::Repository};
use serde::Serialize;
use sql::{
    migration::{MigrationFile, TransactionPlan},
    statement::TransactionClass,
};

use crate::{
    cli::Invocation,
    clone,
    journal::{self, Mode},
    report::document,
    run::FenceChoice,
};

/// As many earlier runs are looked at.
const EARLIER_RUNS: usize = 5;

/// The undo of a run, as the plan's document has it.
#[derive(Debug, Serialize)]
pub(super) struct PlannedUndo {
    /// In which transactions it would run, and what the undo would be.
    pub(super) how: String,
    /// What keeps others from writing: `lock`, `read-only`, `exclusive`, `none`.
    fence: &'static str,
    /// Sessions of others are ended before the run changes anything.
    ends_sessions: bool,
    /// How long the fences of the last runs of that kind on this database stood, in seconds.
    earlier_fence_seconds: Vec<f64>,
    /// Up to this version, all can run in one transaction.
    rolls_back_to: Option<String>,
}

impl Invocation<'_> {
    pub(super) fn planned_undo(
        &self,
        transactions: &TransactionPlan,
        pending: &[&MigrationFile],
        database: &str,
    ) -> PlannedUndo {
        let protection = self.cli.protection();
        let is_restored = !transactions.one || protection.snapshot.has_clone();
        let fence = match protection.fence {
            FenceChoice::Auto if is_restored => FenceChoice::ReadOnly,
            FenceChoice::Auto => FenceChoice::Lock,
            other => other,
        };
        let word = match fence {
            FenceChoice::ReadOnly => "read-only",
            FenceChoice::Exclusive => "exclusive",
            FenceChoice::None => "none",
            FenceChoice::Auto | FenceChoice::Lock => "lock",
        };
        let before = pending.iter().take_while(|file| file.no_transaction.is_none()).last();
        let rolls_back_to = before.filter(|_| !transactions.one).map(|file| file.version.as_str().to_owned());
        PlannedUndo {
            how: self.how(transactions),
            fence: word,
            ends_sessions: matches!(fence, FenceChoice::ReadOnly | FenceChoice::Exclusive),
            earlier_fence_seconds: match is_restored && !pending.is_empty() {
                true => self.earlier_fences(database),
                false => Vec::new(),
            },
            rolls_back_to,
        }
    }

    /// In which transactions it would run, and what the undo would be.
    fn how(&self, transactions: &TransactionPlan) -> String {
        let choice = self.cli.protection().snapshot;
        match (transactions.one, choice.has_clone()) {
            (true, false) => "all in one transaction; the undo is a ROLLBACK".to_owned(),
            (true, true) => format!(
                "all in one transaction, and after its COMMIT the undo is {}",
                clone::undo_phrase(choice)
            ),
            (false, _) => format!(
                "not in one transaction ({}); the undo is {}",
                transactions.why.join("; "),
                clone::undo_phrase(choice)
            ),
        }
    }

    /// What the repository knows of earlier runs. Where it is not there, or can't be read, nothing is known.
    fn earlier_fences(&self, database: &str) -> Vec<f64> {
        let runs =
            Repository::open(&self.settings.repo).and_then(|repository| journal::past_runs(&repository));
        let runs = runs.unwrap_or_default();
        let here =
            runs.iter().rev().filter(|run| run.database() == Some(database) && run.finished().is_some());
        let reports = here.filter_map(|run| document::load(&run.dir).ok().flatten());
        let stood = reports.filter(|report| report.mode == Mode::Restore && !report.fence_held);
        stood.filter_map(|report| report.fence_seconds).take(EARLIER_RUNS).collect()
    }
}

impl PlannedUndo {
    /// What it costs others, and what would cost less.
    pub(super) fn as_text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.fence {
            "read-only" => lines.push(
                "Before anything is changed, all other sessions of the database are ended. Until the checks are through, they can connect again and read, and what they write fails."
                    .to_owned(),
            ),
            "exclusive" => lines.push(
                "Before anything is changed, all other sessions of the database are ended. Until the checks are through, nobody else can connect."
                    .to_owned(),
            ),
            _ => {}
        }
        let stood = &self.earlier_fence_seconds;
        if let (Some(least), Some(most)) =
            (stood.iter().copied().reduce(f64::min), stood.iter().copied().reduce(f64::max))
        {
            let text = |seconds: f64| format::duration(Duration::from_secs_f64(seconds.max(0.0)));
            lines.push(match stood.len() {
                1 => format!("The last run of that kind here kept writers out for {}.", text(most)),
                count => format!(
                    "The last {count} runs of that kind here kept writers out for {} to {}.",
                    text(least),
                    text(most)
                ),
            });
        }
        if let Some(version) = &self.rolls_back_to {
            lines.push(format!(
                "`safe-run --to {}` applies what comes before it in one transaction, which a ROLLBACK undoes.",
                shell_word(version)
            ));
        }
        lines
    }
}

/// Why the undo can't be a ROLLBACK, of one statement.
pub(super) fn obstacle(class: &TransactionClass, transactions: &TransactionPlan) -> Option<String> {
    match class {
        TransactionClass::MustRunAlone { .. } if !transactions.one => Some(
            "can't run in a transaction, so a ROLLBACK does not undo it, and the run needs a fence"
                .to_owned(),
        ),
        _ => None,
    }
}
