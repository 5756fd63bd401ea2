//! A rule that each row of a table has to pass, as the scan of the table asks it.

use common::ident::QualifiedName;

use crate::model::{RuleKey, Severity};

/// Rules per query: PostgreSQL allows 1,664 result columns, and a query that long takes longer to plan than a scan.
pub(super) const RULES_PER_SCAN: usize = 200;

/// One rule of the scan.
#[derive(Debug)]
pub(super) struct Rule {
    pub key: RuleKey,
    pub definition: String,
    pub severity: Severity,
    /// The column, or the constraint's name.
    pub label: String,
    /// True for a violating row.
    pub violated: String,
    pub volatile: bool,
    pub repair: Repair,
}

/// How rows that violate a rule can be repaired. Shown, never run.
#[derive(Debug)]
pub(super) enum Repair {
    /// Moved into a table beside it.
    Aside,
    /// The column has a default.
    Default,
    /// Deleted here and inserted into the root of the partition tree: root, columns.
    Reinsert(QualifiedName, String),
}
