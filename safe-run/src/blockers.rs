//! Who is in the way: asks the server, while a session of ours waits for a lock, whom it waits for.
//!
//! Asked from another session, because the one that waits can't. It must never end or disturb anybody: a person decides.

use std::time::Duration;

use common::{
    Error, Progress, Result,
    ident::printable,
    postgres::{
        Row, Session,
        exported_snapshot::{NOBODY_IN_THE_WAY, WAIT_FOR_THE_VACUUM, prevents_wraparound},
        shared_text,
    },
};

/// How often the server is asked, within these limits: a few times in each wait, however short.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Whom a session waits for. `$1` its process id. A prepared transaction has the process id 0.
fn blockers() -> String {
    format!(
        "SELECT b.pid, {user}, COALESCE(a.application_name, ''), COALESCE(a.state, a.backend_type, ''),
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start)::bigint, {query}, {prepared},
       COALESCE(a.backend_type, 'client backend')
FROM (SELECT DISTINCT pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) pid) b
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
LEFT JOIN LATERAL (
  SELECT pg_catalog.string_agg(p.gid, ', ') AS names FROM pg_catalog.pg_prepared_xacts p
  JOIN pg_catalog.pg_stat_activity w ON w.datname = p.database AND w.pid = $1 WHERE b.pid = 0) x ON true ORDER BY 1",
        user = shared_text::bytes("COALESCE(a.usename::text, '?')"),
        query = shared_text::bytes("a.query"),
        prepared = shared_text::bytes("x.names"),
    )
}

/// Whether it waits for a lock at all: cheap, where [`blockers`] stops the lock manager for a moment.
const WAITS: &str =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";

/// Those who were in the way of one session, each once.
#[derive(Debug, Default)]
pub struct Blockers {
    /// As a person reads them, without their age: that is how they are told apart.
    known: Vec<String>,
    /// With their age when they were seen last.
    lines: Vec<String>,
}

impl Blockers {
    /// Everybody who was seen, for the end of a message: `; in the way: pid 7, …`. Empty when nobody was.
    pub fn suffix(&self) -> String {
        match self.lines.as_slice() {
            [] => String::new(),
            lines => format!("; in the way: {}", lines.join("; ")),
        }
    }

    /// What to do about them.
    pub fn hint(&self) -> &'static str {
        if prevents_wraparound(&self.lines) {
            WAIT_FOR_THE_VACUUM
        } else if self.lines.is_empty() {
            NOBODY_IN_THE_WAY
        } else {
            "Let the named sessions finish or end them with pg_terminate_backend(pid), then run the command again; or raise \
             --lock-timeout and --lock-retries."
        }
    }

    /// Forgets whom it saw: the next attempt has others in the way, or the same ones again.
    pub fn clear_ages(&mut self) {
        self.lines.clear();
    }

    async fn look(&mut self, observer: &Session, pid: i32, progress: &Progress) -> Result<()> {
        let failed = |source| Error::postgres("could not ask who is in the way", source);
        if !observer.query_one(WAITS, &[&pid]).await.map_err(failed)?.get::<_, bool>(0) {
            return Ok(());
        }
        let rows = observer.query(&blockers(), &[&pid]).await.map_err(failed)?;
        let seen: Vec<(String, String)> = rows.iter().map(describe).collect();
        if !seen.is_empty() {
            self.lines = seen.iter().map(|(_, line)| line.clone()).collect();
        }
        for (who, line) in seen {
            if !self.known.contains(&who) {
                progress.warn(format!("waiting for a lock: {line}"));
                self.known.push(who);
            }
        }
        Ok(())
    }
}

/// Who it is, and the whole line with the age.
fn describe(row: &Row) -> (String, String) {
    let pid: i32 = row.get(0);
    if pid == 0 {
        let names = Some(shared_text::shown(row, 6)).filter(|names| !names.is_empty());
        let who = format!(
            "a prepared transaction ({})",
            names.unwrap_or_else(|| "see pg_prepared_xacts".to_owned())
        );
        return (who.clone(), printable(&who));
    }
    let (user, application, state): (String, String, String) =
        (shared_text::shown(row, 1), row.get(2), row.get(3));
    let age = row.get::<_, Option<i64>>(4).map_or(String::new(), |seconds| format!(" for {seconds} s"));
    let query = sql::statement::significant_text(&shared_text::shown(row, 5), 120);
    let kind: String = row.get(7);
    let who = if kind == "client backend" {
        format!("pid {pid}, user {user}, application \"{application}\"")
    } else {
        format!("pid {pid}, {kind}")
    };
    (who.clone(), printable(&format!("{who}, {state}{age}, query: {query}")))
}

/// Does `work` and meanwhile tells who keeps the session with this process id waiting; one wait of it lasts `wait`.
pub async fn watched<T>(
    observer: &Session,
    pid: i32,
    wait: Duration,
    progress: &Progress,
    seen: &mut Blockers,
    work: impl Future<Output = T>,
) -> T {
    let every = (wait / 4).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    let looking = async {
        loop {
            tokio::time::sleep(every).await;
            // Whoever can't be named now is named in the next look, or the work itself says what is wrong.
            if seen.look(observer, pid, progress).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        () = looking => unreachable!("the watch has no end of its own"),
    }
}
