//! What one session found.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    catalogue::CheckKind,
    model::{CheckResults, Finding, RuleKey, SequenceState, Skipped, TableRows},
    states::Content,
};

/// What one session found; merged into [`CheckResults`].
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub findings: Vec<Finding>,
    pub skipped: Vec<Skipped>,
    pub rows: BTreeMap<u32, TableRows>,
    pub sequences: BTreeMap<u32, SequenceState>,
    pub content: BTreeMap<u32, Content>,
    pub ran: Vec<RuleKey>,
    pub took: BTreeMap<CheckKind, Duration>,
    /// Rules, and numbers of rows, that were answered from changed rows alone.
    pub by_changed_rows: Vec<RuleKey>,
    pub rows_by_changed: Vec<u32>,
}

/// Takes what one session found into what the pass found.
pub(super) fn merge(results: &mut CheckResults, outcome: Outcome) {
    results.findings.extend(outcome.findings);
    results.skipped.extend(outcome.skipped);
    results.rows.extend(outcome.rows);
    results.sequences.extend(outcome.sequences);
    results.states.content.extend(outcome.content);
    results.changed_rules.extend(outcome.by_changed_rows);
    results.carried_rows.extend(outcome.rows_by_changed);
    for key in outcome.ran {
        if let Some(state) = results.rules.get_mut(&key) {
            state.ran = true;
        }
    }
    for (check, took) in outcome.took {
        *results.took.entry(check).or_default() += took;
    }
}
