//! What the sessions of a restore are set to. Only what any role may set, and only for these sessions.

/// For every session, as `-c name=value`.
///
/// A crash of the server loses the last commits, and the new database with them: what was restored is flushed before that
/// is called done. Rows that were just written are in memory, so that reading by an index costs no more than reading in
/// order, and that to ask for pages ahead, from other processes even since PostgreSQL 18, costs more than to read them: what a
/// disk holds of a table is read from its start to its end, which the operating system sees for itself.
pub const SESSION: &str =
    "-c synchronous_commit=off -c random_page_cost=1.1 -c jit=off -c effective_io_concurrency=0";

/// The same for a session of our own, as far as that has a use for it.
pub const STATEMENT: &str = "SET synchronous_commit = off; SET effective_io_concurrency = 0";
