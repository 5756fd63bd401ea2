//! One consistent view of the database for many sessions.
//!
//! The invariant: the transaction that exported a snapshot outlives every session that joins it. [`ExportedSnapshot`]
//! borrows the holder's session, so the holder can't end its transaction, or do anything else, while one exists.
//!
//! On a hot standby that has the fault of [`Fix::StandbySnapshots`] nobody may import a snapshot: rows of open transactions
//! would be marked dead for good. Then [`join`] refuses, and the holder reads everything itself.
//!
//! The order of steps is the safety argument. Every table is locked *before* the snapshot is taken: a TRUNCATE or a
//! rewrite that commits between the two would make the table read as empty. After the snapshot the tables are listed
//! again; if one appeared that is not locked, everything starts over (docs/exactness.md, E1).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};

use super::{
    ConnectionSettings, Session,
    introspect::{Relation, relations},
    known_fixes::Fix,
    names, shared_text, sql,
    wal_summary::Point,
};
use crate::{Error, Progress, QualifiedName, Result, format::plural, interrupt, random};

/// How long a lock may be waited for.
///
/// A lock wait of ours queues everybody else's behind us, so each wait is short and there are several.
#[derive(Debug, Clone, Copy)]
pub struct LockWait {
    /// `lock_timeout` of one attempt.
    pub timeout: Duration,
    /// Attempts after the first one.
    pub retries: u32,
}

impl Default for LockWait {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2), retries: 30 }
    }
}

impl LockWait {
    /// Longest pause between two attempts, for budgets.
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// Between 100 ms and 1 s, different for every process, so that two waiting tools do not meet again and again.
    pub fn pause(&self, attempt: u32) -> Result<Duration> {
        let base = 100 * u64::from(attempt.min(5));
        Ok(Duration::from_millis(base + random::bits()? % 500))
    }

    /// How long all attempts together may take before nobody begins another one.
    pub fn budget(&self) -> Duration {
        (self.timeout + Self::LONGEST_PAUSE) * self.retries.saturating_add(1)
    }
}

/// Table lock modes that the tools take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Keeps the table from being truncated, rewritten or dropped; nothing else waits.
    AccessShare,
    /// Keeps every writer out; readers go on.
    Exclusive,
}

impl LockMode {
    fn sql(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::Exclusive => "EXCLUSIVE",
        }
    }

    /// Lock modes of others that conflict with it.
    fn conflicts(self) -> &'static [&'static str] {
        match self {
            Self::AccessShare => &["AccessExclusiveLock"],
            Self::Exclusive => &[
                "RowShareLock",
                "RowExclusiveLock",
                "ShareUpdateExclusiveLock",
                "ShareLock",
                "ShareRowExclusiveLock",
                "ExclusiveLock",
                "AccessExclusiveLock",
            ],
        }
    }
}

/// A snapshot that other sessions can join for as long as this value borrows its holder.
#[derive(Debug)]
pub struct ExportedSnapshot<'holder> {
    id: String,
    taken_at: DateTime<Utc>,
    points: Vec<Point>,
    in_recovery: bool,
    may_be_imported: bool,
    holder: &'holder Session,
}

impl<'holder> ExportedSnapshot<'holder> {
    /// Exports the snapshot of the transaction that is open in `holder`.
    pub async fn export(holder: &'holder Session) -> Result<Self> {
        let failed = |source| Error::postgres("could not export a snapshot", source);
        let row = holder
            .query_one(
                "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(), pg_catalog.pg_is_in_recovery()",
                &[],
            )
            .await
            .map_err(failed)?;
        let id: String = row.get(0);
        let in_recovery: bool = row.get(2);
        let may_be_imported = !in_recovery
            || Fix::StandbySnapshots.is_in(holder.server_version_num())
            || lists_everything(holder, &id).await.map_err(failed)?;
        Ok(Self { id, taken_at: row.get(1), points: Vec::new(), in_recovery, may_be_imported, holder })
    }

    /// The session that holds it, where no other one may read it.
    pub fn only_session(&self) -> Option<&'holder Session> {
        (!self.may_be_imported).then_some(self.holder)
    }

    /// Adds positions in the log that were read before the snapshot was taken.
    pub fn with_points(mut self, points: Vec<Point>) -> Self {
        self.points = points;
        self
    }

    /// Positions in the log that were read before the snapshot was taken.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Its id, as `pg_dump --snapshot` takes it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes sure that the holder, and with it every lock, was there to the end.
    ///
    /// Sessions that joined read on without it, but nothing keeps a table from being truncated or rewritten any more, and
    /// then it reads as empty.
    ///
    /// # Errors
    /// The holder's session was ended: what was read must not be trusted.
    pub async fn check_held(&self) -> Result<()> {
        check_held(self.holder).await
    }

    /// Makes sure that its holder has a lock on each of `tables`. `observer` is any session on the same database.
    ///
    /// A table that another session made, or put in the place of another under its name, after the tables were listed and
    /// before the snapshot was taken is in the snapshot, and could be emptied or renamed before it is read.
    ///
    /// # Errors
    /// Busy, naming one that is not locked: see [`crate::Cause::NameChanged`].
    pub async fn check_locked<'t>(
        &self,
        observer: &Session,
        tables: impl Iterator<Item = (u32, &'t QualifiedName)>,
    ) -> Result<()> {
        let locked = locked_by(observer, self.holder.backend_pid(), None).await?;
        let mut tables = tables;
        match tables.find(|(oid, _)| !locked.contains(oid)) {
            None => Ok(()),
            Some((_, name)) => Err(names::changed(format!(
                "{} was made, or got its name, while the tables were being locked",
                name.short()
            ))),
        }
    }

    /// The tables that its holder keeps every writer away from, and everybody who would make an index or statistics.
    ///
    /// # Errors
    /// The locks can't be read.
    pub async fn fenced(&self, observer: &Session) -> Result<HashSet<u32>> {
        locked_by(observer, self.holder.backend_pid(), Some("ExclusiveLock")).await
    }

    /// When it was taken, by the server's clock.
    pub fn taken_at(&self) -> DateTime<Utc> {
        self.taken_at
    }
}

/// As [`ExportedSnapshot::check_held`], for who keeps the holder without it.
pub async fn check_held(holder: &Session) -> Result<()> {
    holder.simple_query("SELECT 1").await.map(drop).map_err(|source| {
        Error::postgres("the session that held the tables' locks was ended", source)
            .with_hint("Look into the server's log for who ended it, then run the command again.")
    })
}

/// How long a session that joined a snapshot waits for a table lock.
///
/// The holder has the table already, but whoever waits for ACCESS EXCLUSIVE stands before us in the queue, and behind
/// the holder, which waits for us: a deadlock that no server can see. Longer than the lock_timeout of a careful
/// migration, after which we get our turn; short, since the application queues behind that migration as well.
pub const JOINED_LOCK_WAIT: Duration = Duration::from_secs(10);

/// Whether the server wrote every transaction that is under way into the file of a snapshot that was exported during recovery.
///
/// A file that says it has not (`sof:1`) is what importers of [`Fix::StandbySnapshots`] misread. Only superusers may look.
async fn lists_everything(holder: &Session, id: &str) -> Result<bool, tokio_postgres::Error> {
    let may_look = holder
        .query_one(
            "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_read_file(pg_catalog.text)', 'EXECUTE')
                AND (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)",
            &[],
        )
        .await?;
    if may_look.get::<_, Option<bool>>(0) != Some(true) {
        return Ok(false);
    }
    let file = holder
        .query_one("SELECT pg_catalog.pg_read_file('pg_snapshots/' || $1::pg_catalog.text)", &[&id])
        .await?;
    Ok(file.get::<_, &str>(0).lines().any(|line| line == "sof:0"))
}

/// Opens a session that reads the state of an exported snapshot. The caller keeps the [`ExportedSnapshot`] until the
/// session is gone.
///
/// # Errors
/// [`crate::ErrorKind::Refused`] where [`ExportedSnapshot::only_session`] must read alone.
pub async fn join(settings: &ConnectionSettings, exported: &ExportedSnapshot<'_>) -> Result<Session> {
    join_with(settings, exported, "READ ONLY").await
}

/// Like [`join`], for checks: the transaction is not read-only, because the functions that ask as the owner of a table
/// (`as_owner`) have to be made in it. The checks make it so for their own time. A standby has none that is not, and no such
/// functions: what only an owner may be asked is named as not checked there.
///
/// # Errors
/// As [`join`].
pub async fn join_for_checks(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
) -> Result<Session> {
    join_with(settings, exported, if exported.in_recovery { "READ ONLY" } else { "READ WRITE" }).await
}

async fn join_with(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    access: &str,
) -> Result<Session> {
    if exported.only_session().is_some() {
        return Err(Error::refused("on this standby no second session may read a snapshot"));
    }
    let session = settings.connect().await?;
    session
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ {access}; SET TRANSACTION SNAPSHOT {}; SET LOCAL lock_timeout = {}",
            crate::ident::literal(&exported.id),
            JOINED_LOCK_WAIT.as_millis()
        ))
        .await
        .map_err(|source| Error::postgres("could not join the exported snapshot", source))?;
    Ok(session)
}

/// Begins a transaction in `holder` with `begin`, locks every user table in `mode`, and makes sure that none appeared
/// meanwhile. `observer` is another session on the same database: it names who is in the way.
///
/// Returns the locked relations. On failure no transaction is left open.
///
/// # Errors
/// [`crate::ErrorKind::Busy`] when the locks can't be had within `wait`, naming the sessions that hold them.
pub async fn lock_all_tables(
    holder: &Session,
    observer: &Session,
    begin: &str,
    mode: LockMode,
    wait: LockWait,
    progress: &Progress,
) -> Result<Vec<Relation>> {
    let all = async |observer: &Session| relations(observer).await;
    lock_tables(holder, observer, begin, mode, wait, all, progress).await
}

/// Like [`lock_all_tables`], for the tables that `list` finds.
///
/// # Errors
/// As [`lock_all_tables`]; and whatever `list` refuses.
pub async fn lock_tables(
    holder: &Session,
    observer: &Session,
    begin: &str,
    mode: LockMode,
    wait: LockWait,
    list: impl AsyncFn(&Session) -> Result<Vec<Relation>>,
    progress: &Progress,
) -> Result<Vec<Relation>> {
    let mut attempt = 0;
    loop {
        interrupt::check()?;
        let wanted = list(observer).await?;
        let error = match try_lock(holder, observer, begin, mode, wait, &wanted, &list).await {
            Ok(Some(locked)) => return Ok(locked),
            Ok(None) => Error::busy("tables are being created faster than they can be locked"),
            Err(error) => error,
        };
        rollback(holder).await;
        // A table that was dropped between the listing and the lock is not an error: list again.
        let retry = error.is_retryable() || matches!(error.sqlstate(), Some("42P01" | "3F000"));
        if !retry {
            return Err(error);
        }
        // Each attempt fills the server's table of locks for everybody.
        let is_full = error.sqlstate() == Some("53200");
        if attempt == wait.retries || is_full && attempt == ATTEMPTS_AT_A_FULL_TABLE {
            let held = holders(observer, mode, &wanted, holder.backend_pid()).await.unwrap_or_default();
            return Err(busy(&error, attempt + 1, &held));
        }
        attempt += 1;
        if attempt == 1 {
            let held = holders(observer, mode, &wanted, holder.backend_pid()).await.unwrap_or_default();
            if let Some(first) = held.first() {
                progress.warn(format!("waiting for a lock: {first}"));
            }
        }
        tokio::time::sleep(wait.pause(attempt)?).await;
    }
}

/// Locks `wanted`, and then whatever appeared meanwhile, until the list is the same before and after: a table that is
/// locked can't be dropped or made again, so this comes to rest also where others make tables all the time.
///
/// Returns what is locked, or nothing if tables appeared in every round.
async fn try_lock(
    holder: &Session,
    observer: &Session,
    begin: &str,
    mode: LockMode,
    wait: LockWait,
    wanted: &[Relation],
    list: &impl AsyncFn(&Session) -> Result<Vec<Relation>>,
) -> Result<Option<Vec<Relation>>> {
    /// Tables per statement: a statement of bounded length.
    const BATCH: usize = 500;
    /// The second round locks what was made during the first; more are needed only where new names appear.
    const ROUNDS: usize = 5;
    let failed = |source| {
        let error = Error::postgres("could not lock the tables", source);
        match (error.sqlstate(), mode) {
            (Some("42501"), LockMode::AccessShare) => {
                error.with_kind(crate::ErrorKind::Refused).with_hint("`backup check` prints the exact GRANTs that are missing.")
            }
            (Some("42501"), LockMode::Exclusive) => error.with_kind(crate::ErrorKind::Refused).with_hint(
                "The fence needs to be owner of every table, or to hold UPDATE, DELETE or TRUNCATE on it. Run as the owner, or go without a fence: --fence none.",
            ),
            // Too few locks in the server's shared memory; its own hint names the setting.
            (Some("53200"), _) => error.with_kind(crate::ErrorKind::Busy),
            _ => error,
        }
    };
    /// A busy machine may need some time for many tables that nobody else has.
    const SHORTEST_LIMIT_MS: u128 = 1000;
    let timeout = wait.timeout.as_millis();
    holder.batch_execute(&format!("{begin}; SET LOCAL lock_timeout = {timeout}")).await.map_err(failed)?;
    if mode == LockMode::Exclusive {
        // Who waits for one table keeps the others, and their writers wait as well: not longer than one wait for all.
        let limit = format!("SET LOCAL statement_timeout = {}", timeout.max(SHORTEST_LIMIT_MS));
        holder.batch_execute(&limit).await.map_err(failed)?;
    }
    let mut wanted = wanted.to_vec();
    for _ in 0..ROUNDS {
        for batch in wanted.chunks(BATCH) {
            let names: Vec<String> = batch.iter().map(|relation| format!("ONLY {}", relation.name)).collect();
            holder
                .batch_execute(&format!("LOCK TABLE {} IN {} MODE", names.join(", "), mode.sql()))
                .await
                .map_err(|source| took_too_long(failed(source)))?;
        }
        // Whether the list is still the same is asked in a session of its own: a query here would take the snapshot of
        // a REPEATABLE READ transaction.
        let now = list(observer).await?;
        // Locked by their names, which may have meant other tables at that moment.
        let locked = locked_by(observer, holder.backend_pid(), None).await?;
        if now == wanted && wanted.iter().all(|relation| locked.contains(&relation.oid)) {
            let unlimited = match mode {
                LockMode::AccessShare => "SET LOCAL lock_timeout = 0",
                LockMode::Exclusive => "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout TO DEFAULT",
            };
            holder.batch_execute(unlimited).await.map_err(failed)?;
            return Ok(Some(wanted));
        }
        wanted = now;
    }
    Ok(None)
}

/// The relations of this database that the session with this process id has locked, in this mode or in whatever mode.
async fn locked_by(observer: &Session, pid: i32, mode: Option<&str>) -> Result<HashSet<u32>> {
    let rows = observer
        .query(sql::LOCKED_BY, &[&pid, &mode])
        .await
        .map_err(|source| Error::postgres("could not read pg_locks", source))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The limit for all waits of a LOCK TABLE is a statement_timeout, which looks like a cancelled query.
fn took_too_long(error: Error) -> Error {
    if error.sqlstate() == Some("57014") && interrupt::received().is_none() {
        return error.with_kind(crate::ErrorKind::Busy);
    }
    error
}

async fn rollback(holder: &Session) {
    // A connection that is gone has rolled back by itself; the next statement reports it.
    let _ = holder.batch_execute("ROLLBACK").await;
}

/// For whom a vacuum keeps waiting that must not be ended.
pub const WAIT_FOR_THE_VACUUM: &str = "Wait for the vacuum, which the database needs and which PostgreSQL would start again: \
    pg_stat_progress_vacuum shows how far it is. Then run the command again.";

/// Where nobody was seen in the way any more.
pub const NOBODY_IN_THE_WAY: &str = "Nobody was seen in the way: whoever held the lock may be gone by now. Run the command again, or raise \
    --lock-timeout and --lock-retries.";

/// Whether one of those who are in the way is a vacuum that keeps the server from running out of transaction ids.
pub fn prevents_wraparound(in_the_way: &[String]) -> bool {
    in_the_way
        .iter()
        .any(|line| line.contains("query: autovacuum: ") && line.contains("(to prevent wraparound)"))
}

/// How often what finds no room in the server's table of locks is tried again: others may have let go.
const ATTEMPTS_AT_A_FULL_TABLE: u32 = 2;

fn busy(error: &Error, attempts: u32, held: &[String]) -> Error {
    let who = if held.is_empty() { String::new() } else { format!("; in the way: {}", held.join("; ")) };
    let hint = if prevents_wraparound(held) {
        WAIT_FOR_THE_VACUUM
    } else if error.sqlstate() == Some("53200") {
        "The server's table of locks was full. Run the command again when fewer sessions hold locks (pg_locks), or raise max_locks_per_transaction and restart the server."
    } else if held.is_empty() {
        NOBODY_IN_THE_WAY
    } else {
        "Let the named sessions finish or end them with pg_terminate_backend(pid), or raise --lock-timeout and --lock-retries."
    };
    let times = plural(u64::from(attempts), "attempt", "attempts");
    Error::busy(format!("could not lock the tables in {times} ({error}){who}")).with_hint(hint)
}

async fn holders(
    observer: &Session,
    mode: LockMode,
    wanted: &[Relation],
    own_pid: i32,
) -> Result<Vec<String>> {
    let oids: Vec<u32> = wanted.iter().map(|relation| relation.oid).collect();
    let rows = observer
        .query(&sql::lock_holders(), &[&oids, &mode.conflicts(), &vec![own_pid]])
        .await
        .map_err(|source| Error::postgres("could not read pg_locks", source))?;
    let mut by_pid: HashMap<i32, String> = HashMap::new();
    for row in &rows {
        let (user, application): (String, String) =
            (shared_text::shown(row, "usename"), row.get("application_name"));
        let (relation, mode): (String, String) = (row.get("relation"), row.get("mode"));
        let age = row.get::<_, Option<i64>>("xact_seconds").map_or(String::new(), |s| format!(" for {s} s"));
        let query: String = shared_text::shown(row, "query").chars().take(200).collect();
        let who = match row.get::<_, String>("backend_type").as_str() {
            "client backend" => format!("user {user}, application \"{application}\""),
            worker => worker.to_owned(),
        };
        by_pid.entry(row.get("pid")).or_insert_with_key(|pid| {
            crate::ident::printable(&format!("pid {pid}, {who}, {mode} on {relation}{age}, query: {query}"))
        });
    }
    let mut lines: Vec<String> = by_pid.into_values().collect();
    lines.sort();
    Ok(lines)
}
