//! What a pass looks at, and how.

use std::{collections::HashSet, sync::Arc};

use common::Progress;

use crate::{
    carried::Carried,
    catalogue::{CheckKind, Level},
    model::{Known, RuleKey},
};

/// What to run, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How much is looked at.
    pub level: Level,
    /// Only these checks; empty means all.
    pub only: Vec<CheckKind>,
    /// Not these.
    pub skip: Vec<CheckKind>,
    /// Tables that the run has proven untouched (see [`super::untouched::touched_tables`]); ignored at `deep`.
    pub untouched: HashSet<u32>,
    /// Tables that this transaction made and filled: PostgreSQL has looked at every row for NOT NULL as it came, and for each key,
    /// index and constraint when it was made, after the last row. They are not read again for these; ignored at `deep`.
    pub made: HashSet<u32>,
    /// The rules that were there before (`before.rules`): any other rule is looked at on untouched tables too.
    pub known_rules: HashSet<RuleKey>,
    /// PostgreSQL's own workers for one query on a large table; 0 leaves the server's setting.
    pub parallel_workers: u32,
    /// What the pass before the migration knew, for what is looked at only where it changed.
    pub known: Option<Known>,
    /// A pass with writers at work: it remembers its questions, for [`Options::carried`].
    pub is_first: bool,
    /// What a pass with writers at work answered: what still holds is not asked again.
    pub carried: Option<Arc<Carried>>,
    /// Functions are left to [`super::add_functions`]: PostgreSQL locks the tables that a body writes to as a writer does, and a
    /// fence of the same run would keep these sessions waiting.
    pub functions_later: bool,
    /// Who is told how far it has come.
    pub progress: Option<Progress>,
}

impl Options {
    /// Whether PostgreSQL itself has just made sure of a rule on `tables`.
    pub(super) fn was_just_made(&self, tables: &[u32]) -> bool {
        self.level < Level::Deep && !tables.is_empty() && tables.iter().all(|table| self.made.contains(table))
    }

    /// Whether `kind` runs at all.
    pub fn wants(&self, kind: CheckKind) -> bool {
        (self.only.is_empty() || self.only.contains(&kind))
            && !self.skip.contains(&kind)
            && self.level >= kind.entry().level
    }

    /// Whether a rule on `tables` may be passed over because nothing that it depends on has changed.
    pub(super) fn passes_over(&self, key: &RuleKey, tables: &[u32]) -> bool {
        self.level < Level::Deep
            && tables.iter().all(|table| self.untouched.contains(table))
            && self.known_rules.contains(key)
    }
}
