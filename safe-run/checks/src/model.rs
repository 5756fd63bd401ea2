//! What the checks speak in: kinds, findings, results.
//!
//! Values only. A finding names tables, columns and keys, never whole rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use common::ident::{QualifiedName, printable};
use serde::{Deserialize, Serialize};

use crate::{
    catalogue::{CheckKind, Level},
    states::{ColumnTypes, States},
};

/// Keys that a person is shown for one finding.
pub const SHOWN_KEYS: usize = 20;

/// Keys within a finding's sentence: it has to stay a sentence.
pub const SENTENCE_KEYS: usize = 8;

/// Distinct keys that are fetched for one finding, so that the keys of the baseline can be subtracted.
pub const FETCHED_KEYS: i64 = 1000;

/// [`Skipped::object`] of a check whose rules could not even be listed.
pub const WHOLE_CHECK: &str = "every table";

/// What one rule is, so that it can be followed from before the migration to after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    /// The check that looks at the rule.
    pub check: CheckKind,
    /// Oid of the table (or sequence, or event trigger) that has the rule.
    pub object_oid: u32,
    /// Oid of the constraint, index or trigger; 0 for a rule without one, such as `attnotnull`.
    pub rule_oid: u32,
    /// Name of the constraint, index, trigger or column.
    pub rule: String,
}

/// Whether a finding can fail a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Shown, never failing: the rule is not enforced by PostgreSQL either, or it is advice.
    Note,
    /// Fails the run if it is new.
    Failure,
}

/// One violated rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule of which object.
    #[serde(flatten)]
    pub key: RuleKey,
    /// The table as a person writes it.
    pub object: String,
    /// Whether it can fail a run.
    pub severity: Severity,
    /// The rule as SQL, to tell a rule that was made again from one that was changed.
    pub definition: String,
    /// Violating rows; 1 for a state, such as an invalid index.
    pub count: i64,
    /// Order-independent hash of the violating keys; empty where rows have no key, so that only the count is compared.
    pub key_hash: String,
    /// Up to [`SHOWN_KEYS`] violating keys.
    pub sample_keys: Vec<String>,
    /// The sentence for a person.
    pub detail: String,
    /// SQL that would repair it; shown, never run.
    pub repair_sql: Option<String>,
    /// How the sentence is made, so that it can be made again for the new keys alone.
    #[serde(skip)]
    pub(super) wording: Wording,
    /// Up to [`FETCHED_KEYS`] distinct keys and how many rows have each.
    #[serde(skip)]
    pub(super) keys: BTreeMap<String, i64>,
}

/// The parts of a finding's sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Wording {
    /// A state: the sentence is complete.
    #[default]
    State,
    /// `{count} [new] {one|many} {place} [(keys …)]`.
    Rows { one: &'static str, many: &'static str, place: String },
}

impl Finding {
    /// What a file of `--verify` found.
    pub fn of_verify(file: String, detail: String, severity: Severity, rows: Vec<String>) -> Self {
        let key = RuleKey { check: CheckKind::Verify, object_oid: 0, rule_oid: 0, rule: file.clone() };
        let mut finding = Self::state(key, file, "", detail);
        finding.severity = severity;
        finding.sample_keys = rows;
        finding
    }

    /// What a person should know of the looking itself.
    pub fn of_looking(check: CheckKind, object: &str, detail: String) -> Self {
        let key = RuleKey { check, object_oid: 0, rule_oid: 0, rule: object.to_owned() };
        let mut finding = Self::state(key, object.to_owned(), "", detail);
        finding.severity = Severity::Note;
        finding
    }

    /// A violated rule about a state: a switch that is off, an index that is invalid.
    pub fn state(key: RuleKey, object: String, state: &str, detail: String) -> Self {
        Self {
            key,
            object,
            severity: Severity::Failure,
            definition: String::new(),
            count: 1,
            key_hash: state.to_owned(),
            sample_keys: Vec::new(),
            detail,
            repair_sql: None,
            wording: Wording::State,
            keys: BTreeMap::new(),
        }
    }
}

/// A check, or one rule of it, that could not run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// The check.
    pub check: CheckKind,
    /// The table as a person writes it, with the rule where there is one.
    pub object: String,
    /// Why, lower case, no full stop.
    pub why: String,
    /// `false` for a table that was proven untouched: that is no reason for `--strict` to fail. Nor is, in a run, what could not be
    /// checked before it, of a table that it did not touch.
    pub counts_for_strict: bool,
}

impl Skipped {
    /// Not read again because a proof says what reading would say.
    pub fn is_proven(&self) -> bool {
        self.check == CheckKind::Rows && !self.counts_for_strict
    }

    /// `structure of orders (orders_pkey): canceled`.
    pub fn phrase(&self) -> String {
        format!("{} of {}: {}", self.check, self.object, self.why)
    }
}

/// A table as the catalog has it; partitioned tables included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableFacts {
    /// Schema and name.
    pub name: QualifiedName,
    /// Top of the partition tree, for partitions.
    pub root: Option<u32>,
    /// `r`, `p` or `m` as in `pg_class.relkind`.
    pub kind: char,
    /// The file that holds the rows; 0 for a partitioned table. Changes with TRUNCATE and rewrites.
    pub relfilenode: u32,
    /// Size of the heap in bytes.
    pub size_bytes: i64,
    /// `relrowsecurity`.
    pub row_security: bool,
    /// `relforcerowsecurity`.
    pub force_row_security: bool,
    /// Names of its policies.
    pub policies: BTreeSet<String>,
    /// Its columns by number.
    pub columns: BTreeMap<i16, String>,
    /// Whether it takes the rows that no other partition wants.
    pub is_default_partition: bool,
}

/// The exact number of rows of one leaf table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableRows {
    /// Schema and name.
    pub name: QualifiedName,
    /// Exact count.
    pub rows: i64,
    /// Top of the partition tree, for partitions.
    pub root: Option<u32>,
}

/// Where a sequence stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SequenceState {
    /// Oid.
    pub oid: u32,
    /// Schema and name.
    pub name: QualifiedName,
    /// `last_value` of the sequence.
    pub last_value: i64,
    /// `is_called` of the sequence.
    pub is_called: bool,
    /// INCREMENT BY.
    pub increment: i64,
    /// MINVALUE.
    pub min_value: i64,
    /// MAXVALUE.
    pub max_value: i64,
    /// CYCLE.
    pub cycles: bool,
}

impl SequenceState {
    /// The value that the next `nextval` gives, whether or not the sequence has room for it.
    pub fn next_value(&self) -> i128 {
        if self.is_called {
            i128::from(self.last_value) + i128::from(self.increment)
        } else {
            i128::from(self.last_value)
        }
    }
}

/// What is known of a rule after a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuleState {
    /// Whether this pass looked at it: `false` for untouched tables and failed queries.
    pub ran: bool,
    /// The rule as SQL.
    pub definition: String,
}

/// Everything one pass over the database found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CheckResults {
    /// The level of the pass.
    pub level: Level,
    /// Violated rules.
    pub findings: Vec<Finding>,
    /// What could not run.
    pub skipped: Vec<Skipped>,
    /// Rows per leaf table oid. A table that is missing here and in `untouched` was not counted.
    pub rows: BTreeMap<u32, TableRows>,
    /// Every sequence that could be read.
    pub sequences: BTreeMap<u32, SequenceState>,
    /// Every table by oid.
    pub tables: BTreeMap<u32, TableFacts>,
    /// Every rule that was there, looked at or not.
    #[serde(skip)]
    pub rules: BTreeMap<RuleKey, RuleState>,
    /// What can only be compared with another pass.
    #[serde(skip)]
    pub states: States,
    /// Tables whose content was not read because they were proven untouched.
    pub untouched: BTreeSet<u32>,
    /// Rules whose answer was taken over from a pass before the fence.
    #[serde(skip)]
    pub carried_rules: BTreeSet<RuleKey>,
    /// Rules whose answer was taken over, but for the rows that changed since, which were looked at.
    #[serde(skip)]
    pub changed_rules: BTreeSet<RuleKey>,
    /// Tables whose number of rows was taken over from a pass before the fence.
    #[serde(skip)]
    pub carried_rows: BTreeSet<u32>,
    /// What was asked, as one word for each rule; see [`Options::is_first`].
    #[serde(skip)]
    pub(super) questions: BTreeMap<RuleKey, String>,
    /// Time per check, summed over the sessions.
    pub took: BTreeMap<CheckKind, Duration>,
}

/// What a later pass takes from an earlier one; see [`CheckResults::known`].
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub(super) index_files: BTreeMap<u32, u32>,
    pub(super) content: BTreeMap<u32, ColumnTypes>,
}

impl CheckResults {
    /// The checks that looked at something: at a rule, at rows, or at the catalog. A rule of a table that the run provably did not
    /// touch counts: it was looked at before.
    pub fn checked(&self) -> BTreeSet<CheckKind> {
        let rules =
            self.rules.iter().filter(|(key, state)| state.ran || self.untouched.contains(&key.object_oid));
        let whole = |kind: &CheckKind| {
            self.skipped.iter().any(|skipped| skipped.check == *kind && skipped.object == WHOLE_CHECK)
        };
        // A catalog without any of ours says nothing.
        let is_empty = self.is_empty();
        let catalog =
            self.took.keys().copied().filter(|kind| kind.reads_the_catalog() && !whole(kind) && !is_empty);
        let rows = (!self.rows.is_empty()).then_some(CheckKind::Rows);
        let content = (!self.states.content.is_empty()).then_some(CheckKind::Content);
        rules.map(|(key, _)| key.check).chain(catalog).chain(rows).chain(content).collect()
    }

    /// Whether the database has nothing that a check looks at.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
            && self.sequences.is_empty()
            && self.rules.is_empty()
            && self.findings.is_empty()
    }

    /// What the pass `before` could not check, and this one did not look at again, because the run has not touched the table. It was
    /// not made worse, and it was not checked either.
    pub fn never_checked(&self, before: &Self) -> Vec<Skipped> {
        let is_passed_over = |skipped: &Skipped| {
            let mut untouched = self.tables.iter().filter(|(oid, _)| self.untouched.contains(oid));
            untouched.any(|(oid, facts)| {
                let name = facts.name.short();
                let rest = skipped.object.strip_prefix(&name);
                let ran = self.rules.iter().any(|(key, state)| {
                    state.ran
                        && (key.check, key.object_oid) == (skipped.check, *oid)
                        && rest == Some(format!(" ({})", printable(&key.rule)).as_str())
                });
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" (")) && !ran
            })
        };
        let is_said = |skipped: &Skipped| {
            self.skipped.iter().any(|now| (now.check, &now.object) == (skipped.check, &skipped.object))
        };
        let unknown = before.skipped.iter().filter(|skipped| skipped.counts_for_strict);
        unknown.filter(|skipped| is_passed_over(skipped) && !is_said(skipped)).cloned().collect()
    }

    /// How many things could not be checked, of those that should have been.
    pub fn unchecked(&self) -> usize {
        self.skipped.iter().filter(|skipped| skipped.counts_for_strict).count()
    }

    /// What the pass after the migration has to know of this one.
    pub fn known(&self) -> Known {
        let content =
            self.states.content.iter().map(|(oid, content)| (*oid, content.columns.clone())).collect();
        Known { index_files: self.states.index_files.clone(), content }
    }
}
