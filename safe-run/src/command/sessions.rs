//! What the server tells of the command's sessions.

use std::time::Duration;

use common::{
    Error, Result,
    postgres::{ConnectionSettings, Session},
};

/// How often the server is asked for the command's sessions.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long PostgreSQL 14's statistics collector may be behind.
const COLLECTOR_DELAY: Duration = Duration::from_millis(600);

/// Who looks for the command's sessions, and where.
pub(super) struct Lookout<'a> {
    /// A session on the maintenance database.
    pub observer: &'a Session,
    /// The database, as the command was given it.
    pub settings: &'a ConnectionSettings,
    /// The process ids of our own sessions on the database.
    pub own: &'a [i32],
}

/// A session on the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub pid: i32,
    /// When it was last used, behind a pooler that hands sessions on; empty elsewhere, where a session has one client.
    used: String,
}

/// What a database's statistics have counted.
pub(super) struct Counted {
    sessions: u64,
    pub rolled_back: u64,
    pub rows_written: u64,
}

impl Lookout<'_> {
    /// Sessions of the database that are neither ours nor a worker's.
    pub async fn sessions(&self) -> Result<Vec<Seen>> {
        let settings = self.settings;
        let is_handed_on = settings.is_pooled();
        let rows = self
            .observer
            .query(
                "SELECT pid, CASE WHEN $5 THEN COALESCE(state_change::text, '') ELSE '' END FROM pg_catalog.pg_stat_activity
                 WHERE datname = $1 AND backend_type = 'client backend' AND NOT (pid = ANY ($2))
                   AND ($3 = '' OR application_name = $3 OR usename = $4)",
                &[
                    &settings.database(),
                    &self.own,
                    &settings.application_name().unwrap_or_default(),
                    &settings.user(),
                    &is_handed_on,
                ],
            )
            .await
            .map_err(|source| Error::postgres("could not look for the command's sessions", source))?;
        Ok(rows.iter().map(|row| Seen { pid: row.get(0), used: row.get(1) }).collect())
    }

    /// The transactions of sessions that bear the run's name, which only the command was given.
    pub async fn transactions(&self) -> Result<Vec<u32>> {
        let settings = self.settings;
        let rows = self
            .observer
            .query(
                "SELECT backend_xid::text FROM pg_catalog.pg_stat_activity
                 WHERE datname = $1 AND backend_type = 'client backend' AND NOT (pid = ANY ($2))
                   AND $3 <> '' AND application_name = $3 AND backend_xid IS NOT NULL",
                &[&settings.database(), &self.own, &settings.application_name().unwrap_or_default()],
            )
            .await
            .map_err(|source| Error::postgres("could not look for the command's transactions", source))?;
        Ok(rows.iter().filter_map(|row| row.get::<_, String>(0).parse().ok()).collect())
    }

    /// The sessions that are there before the command, once our own workers have gone and are counted: a session ends, and
    /// its server counts it, a moment after its client has closed it.
    pub async fn settled_sessions(&self) -> Result<Vec<Seen>> {
        let mut found = self.sessions().await?;
        for _ in 0..20 {
            if found.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            found = self.sessions().await?;
        }
        self.wait_for_collector().await;
        Ok(found)
    }

    /// How many sessions a command had that was too quick to be seen: the server counts sessions, and tells a moment later.
    pub async fn late_sessions(&self, known: &[Seen], before: &Counted) -> Result<u64> {
        for _ in 0..30 {
            let counted = self.counted().await?.sessions.saturating_sub(before.sessions);
            // A pooler may have given it a session that was there before, and keeps it.
            let kept = self.sessions().await?;
            let total = counted + kept.iter().filter(|found| !known.contains(found)).count() as u64;
            if total > 0 {
                return Ok(total);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(0)
    }

    /// Whether sessions that began while the command ran are still there. The server ends a session a moment after its
    /// client.
    pub async fn lasts(&self, known: &[Seen]) -> Result<bool> {
        let mut lasts = false;
        for pause in [Duration::ZERO, LOOK_EVERY, LOOK_EVERY * 3] {
            tokio::time::sleep(pause).await;
            let there = self.sessions().await?;
            let is_new = |found: &Seen| !known.iter().any(|known| known.pid == found.pid);
            lasts = there.iter().any(is_new);
            if !lasts {
                break;
            }
        }
        // Behind a pooler a session goes on, and is counted later.
        Ok(lasts || self.settings.is_pooled())
    }

    /// Until the statistics have everything that happened before.
    pub async fn wait_for_collector(&self) {
        if self.observer.server_major() < 15 {
            tokio::time::sleep(COLLECTOR_DELAY).await;
        }
    }

    /// What the name stands for.
    pub async fn database_oid(&self) -> Result<Option<u32>> {
        let row = self
            .observer
            .query_opt(
                "SELECT oid FROM pg_catalog.pg_database WHERE datname = $1",
                &[&self.settings.database()],
            )
            .await
            .map_err(|source| Error::postgres("could not look up the database", source))?;
        Ok(row.map(|row| row.get(0)))
    }

    pub async fn counted(&self) -> Result<Counted> {
        let row = self
            .observer
            .query_opt(
                "SELECT sessions, xact_rollback, tup_inserted + tup_updated + tup_deleted
                 FROM pg_catalog.pg_stat_database WHERE datname = $1",
                &[&self.settings.database()],
            )
            .await
            .map_err(|source| Error::postgres("could not read pg_stat_database", source))?;
        let number = |at: usize| row.as_ref().map_or(0, |row| row.get::<_, i64>(at).unsigned_abs());
        Ok(Counted { sessions: number(0), rolled_back: number(1), rows_written: number(2) })
    }
}
