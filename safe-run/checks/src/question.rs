//! What is asked of the server, before it is asked.

use common::postgres::who_asks::Rights;

/// Statements that forbid every index, so that the heap answers and not an index that may be corrupt.
pub(super) const HEAP_ONLY: &str = "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off;";

/// What a session of the database itself has, for a query in which rows pass their rules: a day that a CHECK makes of a time is the day
/// in the time zone in which the row was written. Texts for messages and comparisons keep ours.
pub(super) const OF_RULES: &str = "SET LOCAL timezone TO DEFAULT; SET LOCAL datestyle TO DEFAULT;";

/// What a piece of work asks first; what else it asks depends on the answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// Statements, each with its semicolon, that hold for this query alone.
    pub settings: String,
    /// One statement.
    pub sql: String,
    /// Its `search_path`, if it has one of its own.
    pub path: Option<String>,
    /// Who asks.
    pub rights: Rights,
}

impl Question {
    /// A query under the session's own settings, with its rights.
    pub fn plain(sql: String) -> Self {
        Self { sql, ..Self::default() }
    }

    /// A query under the session's own settings.
    pub fn of(rights: &Rights, sql: String) -> Self {
        Self { sql, rights: rights.clone(), ..Self::default() }
    }

    /// A query in which rows pass rules of their table.
    pub fn of_rules(rights: &Rights, sql: String) -> Self {
        Self { settings: OF_RULES.to_owned(), ..Self::of(rights, sql) }
    }

    /// The same, which no index may answer.
    pub fn of_heap(rights: &Rights, sql: String) -> Self {
        Self { settings: format!("{OF_RULES} {HEAP_ONLY}"), ..Self::of(rights, sql) }
    }
}
