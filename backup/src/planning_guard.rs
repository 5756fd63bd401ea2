//! Page ranges of tables that others own, planned only while nobody can add code to the table or take its name.
//!
//! A look at the catalog alone is a race: the owner can create an index between the look and the next statement. So a session of
//! its own keeps the table (SHARE UPDATE EXCLUSIVE, which CREATE INDEX and CREATE STATISTICS wait for) and the schema's row
//! (FOR KEY SHARE, which a rename waits for and a GRANT does not), looks then, in fresh statements, and statements are
//! planned only until it lets go. VACUUM and ANALYZE of the table wait as well, so it lets go when nobody reads the
//! table, and after a second when somebody waits for it (docs/exactness.md, E4).
//!
//! Where that can't be had the table is refused, and what was read of it is not used.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{
    Error, QualifiedName, Result,
    postgres::{
        ConnectionSettings, Session,
        trust::{self, Standing},
    },
};
use tokio::sync::{Mutex, Notify};

/// How long one attempt waits for a lock. Shorter than `deadlock_timeout`, after which an autovacuum would end for our sake.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '200ms'";

/// How long the locks are tried for before the table is read whole.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// How long somebody waits for the guard before no more statements begin under it.
const WINDOW: Duration = Duration::from_secs(1);

/// Keeps one table as it is while statements on it are planned.
#[derive(Debug)]
pub struct PlanningGuard {
    settings: ConnectionSettings,
    table: u32,
    name: QualifiedName,
    schema: u32,
    /// Whether the table has to be locked: not where the snapshot's own session keeps everybody out.
    locks_table: bool,
    state: Mutex<State>,
    left: Notify,
    refused: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// The session that keeps the table, while somebody is inside.
    keeper: Option<Session>,
    since: Instant,
    inside: usize,
}

impl PlanningGuard {
    /// For a table with this standing. Nothing is locked yet.
    pub fn new(settings: &ConnectionSettings, standing: &Standing, locks_table: bool) -> Self {
        Self {
            settings: settings.clone(),
            table: standing.oid,
            name: standing.name.clone(),
            schema: standing.schema,
            locks_table,
            state: Mutex::new(State { keeper: None, since: Instant::now(), inside: 0 }),
            left: Notify::new(),
            refused: AtomicBool::new(false),
        }
    }

    /// Whether the table has to be read whole.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// Comes in; then queries on the table may be planned until [`PlanningGuard::leave`]. False: they may not, now and later.
    ///
    /// # Errors
    /// A connection can't be had or broke.
    pub async fn enter(&self) -> Result<bool> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // From here on nobody who leaves is missed.
            left.as_mut().enable();
            {
                let mut state = self.state.lock().await;
                if self.is_refused() {
                    return Ok(false);
                }
                if state.inside == 0 {
                    state.keeper = self.keep().await?;
                    if state.keeper.is_none() {
                        self.refused.store(true, Ordering::SeqCst);
                        return Ok(false);
                    }
                    state.since = Instant::now();
                } else if state.since.elapsed() >= WINDOW {
                    if self.is_waited_for(&state).await? {
                        drop(state);
                        left.await;
                        continue;
                    }
                    state.since = Instant::now();
                }
                state.inside += 1;
                return Ok(true);
            }
        }
    }

    /// Goes out. The last one lets go of the table.
    ///
    /// # Errors
    /// The session that kept the table was gone: statements may have been planned while nothing kept it.
    pub async fn leave(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.inside -= 1;
        if state.inside == 0
            && let Some(keeper) = state.keeper.take()
        {
            keeper.batch_execute("COMMIT").await.map_err(|source| {
                Error::postgres(
                    format!("the session that kept {} as it is was ended", self.name.short()),
                    source,
                )
            })?;
            keeper.close().await?;
        }
        drop(state);
        self.left.notify_waiters();
        Ok(())
    }

    /// Whether somebody waits for what the keeper has.
    async fn is_waited_for(&self, state: &State) -> Result<bool> {
        let Some(keeper) = &state.keeper else { return Ok(false) };
        let waits = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE NOT l.granted
                     AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(l.pid)))";
        let row = keeper.query_one(waits, &[]).await.map_err(|source| {
            Error::postgres(format!("could not ask who waits for {}", self.name.short()), source)
        })?;
        Ok(row.get(0))
    }

    /// A session that keeps the table, in which there is nothing that planning could run; or nothing.
    async fn keep(&self) -> Result<Option<Session>> {
        let session = self.settings.connect().await?;
        let began = Instant::now();
        loop {
            match self.try_keep(&session).await {
                Ok(true) => return Ok(Some(session)),
                Ok(false) => break,
                // Lock not available.
                Err(error) if error.sqlstate() == Some("55P03") && began.elapsed() < PATIENCE => {}
                // Not for this role, not on this server, not there any more: whatever the server says to it.
                Err(error) if error.sqlstate().is_some_and(|code| !code.starts_with("57")) => break,
                Err(error) => return Err(error),
            }
            session.batch_execute("ROLLBACK").await.map_err(|source| self.failed(source))?;
            tokio::time::sleep(PAUSE).await;
        }
        session.close().await?;
        Ok(None)
    }

    fn failed(&self, source: common::postgres::DriverError) -> Error {
        Error::postgres(format!("could not keep {} as it is", self.name.short()), source)
    }

    async fn try_keep(&self, session: &Session) -> Result<bool> {
        // Each statement has to see what was committed until then.
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {LOCK_TIMEOUT}");
        session.batch_execute(&begin).await.map_err(|source| self.failed(source))?;
        let row = "SELECT FROM pg_catalog.pg_namespace WHERE oid = $1 AND nspname = $2::text::name FOR KEY SHARE NOWAIT";
        let rows = session.query(row, &[&self.schema, &self.name.schema.as_str()]).await;
        if rows.map_err(|source| self.failed(source))?.len() != 1 {
            return Ok(false);
        }
        if self.locks_table {
            let lock = format!("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE", self.name);
            session.batch_execute(&lock).await.map_err(|source| self.failed(source))?;
        }
        let standings = trust::standings(session, Some(&[self.table])).await?;
        Ok(standings.iter().any(|now| now.name == self.name && now.code.is_none()))
    }
}
