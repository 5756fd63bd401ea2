//! Whether the server's table of locks can have room for a lock on everything that a database holds: found out before a command begins,
//! because it is full for everybody at once, and what ends half-way then may be another's transaction.
//!
//! The server promises `max_locks_per_transaction` for each session that it may have, and has some room beyond it that no query tells. What
//! lies between is tried, as `pg_dump` does; it ends with the server's own error if there is no room.

use super::Session;
use crate::{
    error::{Error, Result},
    format,
};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRoom {
    /// Locks that the server promises to all sessions together.
    pub promised: u64,
    /// `max_locks_per_transaction`.
    pub each: u64,
    /// Tables, views and sequences.
    pub objects: u64,
    /// Locks that are needed at the same time.
    pub needed: u64,
    /// Whether it may have room for them.
    pub may_be_enough: bool,
}

impl LockRoom {
    /// The value of `max_locks_per_transaction` that would do, with room for others.
    pub fn wanted(&self) -> u64 {
        (self.each * self.needed / self.promised.max(1) + 1) * 2
    }

    /// The statement that makes room.
    pub fn remedy(&self) -> String {
        format!("ALTER SYSTEM SET max_locks_per_transaction = {}", self.wanted())
    }

    /// Refuses what needs more locks than the server can have.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Refused`], naming the setting.
    pub fn require(&self) -> Result<()> {
        if self.may_be_enough {
            return Ok(());
        }
        let needs = format!(
            "{} have to be locked at the same time, and the server has room for about {} \
             (max_locks_per_transaction = {})",
            format::plural(self.objects, "table, view or sequence", "tables, views and sequences"),
            format::plural(self.promised, "lock", "locks"),
            self.each,
        );
        Err(Error::refused(needs).with_hint(format!("Run `{}` and restart the server.", self.remedy())))
    }
}

/// Catalogs that are read meanwhile, with their indexes.
const CATALOGS: u64 = 100;

/// How many times more than it promises a server may have, and how many at least. Of a small one, the most that was seen is three times as many.
const BEYOND: u64 = 4;
const SMALLEST: u64 = 2_000;

/// Looks whether everything that the session's database holds can be locked at the same time.
///
/// # Errors
/// What the server says if it can't be asked.
pub async fn find(session: &Session) -> Result<LockRoom> {
    let row = session
        .query_one(ROOM, &[])
        .await
        .map_err(|source| Error::postgres("could not read the size of the table of locks", source))?;
    let number = |index: usize| row.get::<_, i64>(index).unsigned_abs();
    let (promised, each, objects) = (number(0), number(1), number(2));
    let needed = objects + number(3) + CATALOGS;
    let may_be_enough = needed <= SMALLEST.max(promised * BEYOND);
    Ok(LockRoom { promised, each, objects, needed, may_be_enough })
}

/// Tables are locked by who holds the state, views and sequences by pg_dump, and indexes of tables that are read by page ranges.
const ROOM: &str = "
    SELECT pg_catalog.current_setting('max_locks_per_transaction')::int8
        * (pg_catalog.current_setting('max_connections')::int8 + pg_catalog.current_setting('max_prepared_transactions')::int8
           + pg_catalog.current_setting('max_worker_processes')::int8 + pg_catalog.current_setting('max_wal_senders')::int8
           + COALESCE(pg_catalog.current_setting('autovacuum_worker_slots', true),
                      pg_catalog.current_setting('autovacuum_max_workers'))::int8),
      pg_catalog.current_setting('max_locks_per_transaction')::int8,
      (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
         AND n.nspname NOT IN ('pg_catalog', 'information_schema')),
      (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relpages > 1
         AND n.nspname NOT IN ('pg_catalog', 'information_schema'))";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_setting_that_is_too_small_is_refused_with_the_value_that_would_do() {
        let room = LockRoom { promised: 410, each: 10, objects: 3_000, needed: 3_100, may_be_enough: false };
        let error = room.require().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("max_locks_per_transaction = 10"), "{error}");
        assert!(
            error.hint().unwrap().contains("max_locks_per_transaction = 152` and restart"),
            "{:?}",
            error.hint()
        );
        assert!(LockRoom { may_be_enough: true, ..room }.require().is_ok());
    }
}
