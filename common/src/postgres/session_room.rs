//! Whether the sessions that a command needs at the same time can be had: found out before it begins, because a limit that is met
//! half-way ends a run behind its fence, or an undo.
//!
//! A server is asked for its limits and who is there. Of a pooler, whose limits no query tells, that many sessions are opened at once.

use std::time::Duration;

use super::Session;
use crate::{
    error::{Error, ErrorKind, Result},
    ident::{Ident, printable},
};

/// What a command needs beside the sessions that it has, all at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Whatever `--jobs` says.
    pub fixed: usize,
    /// For each job.
    pub per_job: usize,
    /// Jobs that are wanted.
    pub jobs: usize,
    /// Whether they come to the session's database, whose own limit holds then.
    pub same_database: bool,
}

impl Need {
    fn sessions(self, jobs: usize) -> usize {
        self.fixed + self.per_job * jobs
    }

    /// For how many jobs there is room, if for any.
    fn jobs_for(self, free: usize) -> Option<usize> {
        (1..=self.jobs.max(1)).rev().find(|jobs| self.sessions(*jobs) <= free)
    }
}

/// For how many jobs there is room.
#[derive(Debug)]
pub struct Room {
    /// As many as are wanted, or fewer; at least one.
    pub jobs: usize,
    /// Why it is fewer, a sentence for a person.
    pub said: Option<String>,
}

/// How long a limit may be met: a session that was just closed has its place for a moment longer.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// How long a pooler may take to give a session. PgBouncer lets clients wait for two minutes by itself.
const POOLER_LIMIT: Duration = Duration::from_secs(10);

/// Finds out for how many jobs there is room, and refuses to begin where there is none for a single one.
///
/// # Errors
/// [`ErrorKind::Busy`], naming the limit; what the server says if it can't be asked.
pub async fn find(session: &Session, need: Need) -> Result<Room> {
    // Every pooler makes the number of a cancel key up.
    if session.settings().is_pooled() || session.key_pid() != session.backend_pid() {
        return try_pooler(session, need).await;
    }
    let started = std::time::Instant::now();
    loop {
        let limits = limits(session, need.same_database).await?;
        let Some(limit) = limits.into_iter().min_by_key(Limit::free) else {
            return Ok(Room { jobs: need.jobs, said: None });
        };
        let jobs = need.jobs_for(limit.free());
        if jobs == Some(need.jobs.max(1)) {
            return Ok(Room { jobs: need.jobs, said: None });
        }
        if started.elapsed() >= PATIENCE {
            return match jobs {
                Some(jobs) => Ok(fewer(need, jobs, limit.free(), &limit.says())),
                None => Err(limit.refuse(session, need)),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn fewer(need: Need, jobs: usize, free: usize, why: &str) -> Room {
    let said = format!(
        "{jobs} of {} jobs at the same time, because only {free} more connections can be had: {why}",
        need.jobs
    );
    Room { jobs, said: Some(said) }
}

fn needed(need: Need, place: &str) -> String {
    match need.sessions(1) {
        1 => format!("1 more connection to {place} is needed"),
        further => format!("{further} more connections to {place} are needed at the same time"),
    }
}

/// One of the limits that hold for the session's role.
#[derive(Debug)]
struct Limit {
    /// `the role "x" may have`
    whose: String,
    /// What changes it.
    raise: String,
    allowed: i64,
    taken: i64,
}

impl Limit {
    fn free(&self) -> usize {
        usize::try_from(self.allowed - self.taken).unwrap_or(0)
    }

    fn says(&self) -> String {
        let taken = match self.taken {
            1 => "1 is".to_owned(),
            taken => format!("{taken} are"),
        };
        format!("{} {}, and {taken} taken", self.whose, self.allowed)
    }

    fn refuse(&self, session: &Session, need: Need) -> Error {
        Error::busy(format!(
            "{}, and {} can be had: {}",
            needed(need, &session.settings().host_label()),
            self.free(),
            self.says()
        ))
        .with_sqlstate("53300")
        .with_hint(format!("Close idle sessions, or {}.", self.raise))
    }
}

async fn limits(session: &Session, same_database: bool) -> Result<Vec<Limit>> {
    // Of others' sessions an ordinary role sees no kind. Workers of the server have no user; those of extensions count as sessions then.
    let row = session
        .query_one(
            "WITH there AS (
               SELECT datname, usename FROM pg_catalog.pg_stat_activity
               WHERE usesysid IS NOT NULL AND COALESCE(backend_type, 'client backend') = 'client backend')
             SELECT r.rolsuper, r.rolconnlimit::int8, d.datconnlimit::int8, d.datname::text,
               (SELECT pg_catalog.count(*) FROM there WHERE usename = r.rolname),
               (SELECT pg_catalog.count(*) FROM there WHERE datname = d.datname),
               (SELECT pg_catalog.count(*) FROM there),
               pg_catalog.current_setting('max_connections')::int8,
               pg_catalog.current_setting('superuser_reserved_connections')::int8,
               COALESCE(pg_catalog.current_setting('reserved_connections', true), '0')::int8,
               EXISTS (SELECT FROM pg_catalog.pg_roles p
                 WHERE p.rolname = 'pg_use_reserved_connections' AND pg_catalog.pg_has_role(r.oid, p.oid, 'USAGE')),
               r.rolname::text
             FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
             WHERE r.rolname = session_user AND d.datname = pg_catalog.current_database()",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not ask for the limits of connections", source))?;
    let is_superuser: bool = row.get(0);
    let number = |index: usize| row.get::<_, i64>(index);
    let (database, role): (&str, &str) = (row.get(3), row.get(11));
    // As the server counts: the last places are for superusers, those before them for a predefined role.
    let reserved = match (is_superuser, row.get(10)) {
        (true, _) => 0,
        (false, true) => number(8),
        (false, false) => number(8) + number(9),
    };
    let mut limits = vec![Limit {
        whose: "of its connections (max_connections, less those reserved for superusers) this role may have"
            .to_owned(),
        raise: "raise max_connections, which takes a restart".to_owned(),
        allowed: (number(7) - reserved).max(0),
        taken: number(6),
    }];
    // Superusers have no limits of their own.
    if !is_superuser && number(1) >= 0 {
        limits.push(Limit {
            whose: format!("the CONNECTION LIMIT of the role \"{}\" is", printable(role)),
            raise: format!("raise it with ALTER ROLE {} CONNECTION LIMIT", quoted(role)),
            allowed: number(1),
            taken: number(4),
        });
    }
    if same_database && !is_superuser && number(2) >= 0 {
        limits.push(Limit {
            whose: format!("the CONNECTION LIMIT of the database \"{}\" is", printable(database)),
            raise: format!("raise it with ALTER DATABASE {} CONNECTION LIMIT", quoted(database)),
            allowed: number(2),
            taken: number(5),
        });
    }
    Ok(limits)
}

fn quoted(name: &str) -> String {
    printable(&Ident::from(name).to_string())
}

/// Opens that many sessions at once, and closes them again.
async fn try_pooler(session: &Session, need: Need) -> Result<Room> {
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..need.sessions(need.jobs.max(1)) {
        let settings = session.settings().clone();
        tries.spawn(async move { tokio::time::timeout(POOLER_LIMIT, settings.connect()).await });
    }
    let (mut had, mut says, mut failed) = (Vec::new(), None, None);
    while let Some(tried) = tries.join_next().await {
        match tried.map_err(|source| Error::failed(format!("a trial connection died: {source}")))? {
            Ok(Ok(opened)) => had.push(opened),
            Ok(Err(error)) if error.kind() == ErrorKind::Busy => says = Some(error),
            Ok(Err(error)) => failed = Some(error),
            Err(_) => {}
        }
    }
    let count = had.len();
    for opened in had {
        // It did nothing; closing ends it.
        let _ = opened.close().await;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    const GIVES: &str = "what answers there, a connection pooler, gives no more";
    match need.jobs_for(count) {
        Some(jobs) if jobs == need.jobs.max(1) => Ok(Room { jobs: need.jobs, said: None }),
        Some(jobs) => Ok(fewer(need, jobs, count, GIVES)),
        None => {
            let needed = needed(need, &session.settings().host_label());
            let says = says.map(|error| format!(" ({error})")).unwrap_or_default();
            Err(Error::busy(format!("{needed}, and {count} can be had: {GIVES}{says}")).with_hint(
                "Use the direct URL of the database, or raise the limits of the pooler (PgBouncer: default_pool_size, \
                 max_db_connections, max_user_connections, max_client_conn) or those of the server behind it.",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_jobs_as_there_is_room_for_and_never_none() {
        let need = Need { fixed: 2, per_job: 2, jobs: 4, same_database: true };
        let found: Vec<_> = [3, 4, 5, 6, 9, 10, 99].into_iter().map(|free| need.jobs_for(free)).collect();
        assert_eq!(found, [None, Some(1), Some(1), Some(2), Some(3), Some(4), Some(4)]);
        assert_eq!(Need { jobs: 0, ..need }.jobs_for(4), Some(1));
    }
}
