//! The catalogue of checks: what each is called, what it finds, at which level it runs, and what it costs.
//!
//! One row per check: `--only`, `--skip`, `check --list` and docs/checks.md all read it here. Pure.

use std::{fmt, str::FromStr};

use common::error::Error;
use serde::{Deserialize, Serialize};

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The catalog alone: milliseconds.
    Fast,
    /// Scans and joins of every table that was not proven untouched.
    #[default]
    Standard,
    /// Every table, and the checks that cost more than one pass.
    Deep,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Standard => "standard",
            Self::Deep => "deep",
        })
    }
}

/// One kind of check; its `Display` is the word for `--only` and `--skip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// Rows that refer to a row that does not exist.
    ForeignKeys,
    /// CHECK constraints of tables.
    Check,
    /// NOT NULL columns.
    NotNull,
    /// Values that their column's domain forbids.
    Domains,
    /// UNIQUE and primary keys, by the heap and not by the index.
    Unique,
    /// EXCLUDE constraints and temporal keys.
    Exclude,
    /// Rows in the wrong partition, and partitions that are not whole.
    Partitions,
    /// Indexes that PostgreSQL maintains or not, but does not use.
    Indexes,
    /// Damaged index and heap pages, by amcheck.
    Structure,
    /// Sequences that will hand out values that are taken.
    Sequences,
    /// Triggers, rules, event triggers and row level security that are switched off.
    Triggers,
    /// Owners and grants that changed without a word in the SQL.
    Privileges,
    /// Views and functions that no longer compile.
    Code,
    /// Enum labels that are gone or in another order.
    Enums,
    /// Published tables whose UPDATE and DELETE the server will refuse.
    ReplicaIdentity,
    /// Columns that lost the planner's statistics.
    Statistics,
    /// Collations that sort differently from when the indexes were built.
    Collations,
    /// What is legal and worth a second look.
    Advice,
    /// The content of tables that nothing was seen to change.
    Content,
    /// The number of rows of every table.
    Rows,
    /// The team's own SQL, from `--verify`.
    Verify,
}

/// A row of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The word for `--only` and `--skip`.
    pub check: CheckKind,
    /// The lowest level at which it runs.
    pub level: Level,
    /// `false` for a check that only ever notes.
    pub fails: bool,
    /// What it finds, as a phrase.
    pub finds: &'static str,
    /// What it costs, as a phrase.
    pub costs: &'static str,
}

impl CheckKind {
    /// Whether the catalog alone answers it, so that it looks at everything at once.
    pub(super) fn reads_the_catalog(self) -> bool {
        matches!(
            self,
            Self::Indexes
                | Self::Triggers
                | Self::Partitions
                | Self::ReplicaIdentity
                | Self::Collations
                | Self::Advice
        ) || self.compares_states()
    }

    /// Whether one state alone says nothing: such a check has a meaning only after a run.
    pub fn compares_states(self) -> bool {
        matches!(self, Self::Privileges | Self::Enums | Self::Statistics | Self::Content)
    }

    /// Every kind, in the order in which results are shown.
    pub const ALL: [Self; 21] = [
        Self::ForeignKeys,
        Self::Check,
        Self::NotNull,
        Self::Domains,
        Self::Unique,
        Self::Exclude,
        Self::Partitions,
        Self::Indexes,
        Self::Structure,
        Self::Sequences,
        Self::Triggers,
        Self::Privileges,
        Self::Code,
        Self::Enums,
        Self::ReplicaIdentity,
        Self::Statistics,
        Self::Collations,
        Self::Advice,
        Self::Content,
        Self::Rows,
        Self::Verify,
    ];

    /// The word for the command line and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignKeys => "foreign-keys",
            Self::Check => "check",
            Self::NotNull => "not-null",
            Self::Domains => "domains",
            Self::Unique => "unique",
            Self::Exclude => "exclude",
            Self::Partitions => "partitions",
            Self::Indexes => "indexes",
            Self::Structure => "structure",
            Self::Sequences => "sequences",
            Self::Triggers => "triggers",
            Self::Privileges => "privileges",
            Self::Code => "code",
            Self::Enums => "enums",
            Self::ReplicaIdentity => "replica-identity",
            Self::Statistics => "statistics",
            Self::Collations => "collations",
            Self::Advice => "advice",
            Self::Content => "content",
            Self::Rows => "rows",
            Self::Verify => "verify",
        }
    }

    /// Its row of the catalogue.
    #[expect(clippy::too_many_lines, reason = "a table: one row after the other, most of them sentences")]
    pub fn entry(self) -> Entry {
        let (level, fails, finds, costs) = match self {
            Self::ForeignKeys => (
                Level::Standard,
                true,
                "orphans: rows that refer to a row that does not exist, also under a validated key",
                "one join per key of a changed table",
            ),
            Self::Check => (
                Level::Standard,
                true,
                "rows that violate a CHECK constraint, and CHECKs that raise an error",
                "part of the table's one scan",
            ),
            Self::NotNull => {
                (Level::Standard, true, "nulls in NOT NULL columns", "part of the table's one scan")
            }
            Self::Domains => (
                Level::Standard,
                true,
                "values that their domain forbids, also inside of arrays and composites",
                "part of the table's one scan",
            ),
            Self::Unique => (
                Level::Standard,
                true,
                "duplicates under unique indexes and primary keys, by the heap and not by the index",
                "one grouping per unique index of a changed table",
            ),
            Self::Exclude => (
                Level::Standard,
                true,
                "pairs of rows that an EXCLUDE constraint or a key WITHOUT OVERLAPS forbids",
                "a self-join; tables above 1 MB only at deep",
            ),
            Self::Partitions => (
                Level::Fast,
                true,
                "rows in the wrong partition (from standard), a DETACH that was not finished; notes a partition \
                 without an index of its siblings, and a default partition that grew",
                "a look at the catalog; the rows are part of the table's one scan",
            ),
            Self::Indexes => {
                (Level::Fast, true, "indexes that exist and are not valid", "a look at the catalog")
            }
            Self::Structure => (
                Level::Standard,
                true,
                "damaged B-trees and GIN indexes (18): new, rebuilt and changed ones at standard, all at deep; \
                 damaged tables at deep; needs amcheck, installed or allowed to be created and taken back",
                "one read of the index and of its table",
            ),
            Self::Sequences => (
                Level::Standard,
                true,
                "sequences that will hand out taken values, or moved backwards; notes those that run out",
                "one index look-up per sequence",
            ),
            Self::Triggers => (
                Level::Fast,
                true,
                "triggers, rules, event triggers and row level security left switched off, foreign keys and CHECKs that are \
                 not enforced any more",
                "a look at the catalog",
            ),
            Self::Privileges => (
                Level::Fast,
                true,
                "owners and grants that changed without GRANT, REVOKE or OWNER in the SQL, objects made again \
                 without their grants; notes a new table without the grants of its siblings",
                "a look at the catalog",
            ),
            Self::Code => (
                Level::Standard,
                true,
                "views that cannot be planned, SQL and PL/pgSQL functions that do not compile (with plpgsql_check \
                 where it is installed)",
                "one planning per view, one validation per function",
            ),
            Self::Enums => (
                Level::Fast,
                true,
                "enum labels that were torn out, or are in another order",
                "a look at the catalog",
            ),
            Self::ReplicaIdentity => (
                Level::Fast,
                true,
                "published tables without a usable replica identity: their UPDATE and DELETE fail",
                "a look at the catalog",
            ),
            Self::Statistics => (
                Level::Fast,
                false,
                "columns that lost their statistics: a run analyzes them after it has committed",
                "a look at the catalog",
            ),
            Self::Collations => (
                Level::Fast,
                false,
                "collations of the database and of indexes whose version changed under them",
                "a look at the catalog",
            ),
            Self::Advice => (
                Level::Fast,
                false,
                "new foreign keys without an index, constraints newly NOT VALID, tables newly unlogged, duplicate \
                 indexes, prepared transactions",
                "a look at the catalog",
            ),
            Self::Content => (
                Level::Deep,
                true,
                "other values in tables that nothing in the migration was seen to reach",
                "one hash of every row, before and after",
            ),
            Self::Rows => (
                Level::Standard,
                true,
                "rows that were lost beyond what the SQL says",
                "an exact count, part of the table's one scan",
            ),
            Self::Verify => (
                Level::Fast,
                true,
                "rows that the queries of --verify DIR return, and failed TAP tests",
                "whatever the queries cost",
            ),
        };
        Entry { check: self, level, fails, finds, costs }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CheckKind {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
            Error::usage(format!("there is no check called {word:?}")).with_hint(format!(
                "The checks are {}; `safe-run check --list` says what each finds.",
                Self::ALL.map(CheckKind::as_str).join(", ")
            ))
        })
    }
}
