//! The control of a database: the advisory lock that keeps two runs apart, and what is refused before a run has it.

use common::{
    Error, Result,
    postgres::{ConnectionSettings, Session, connect, database},
    repository::Repository,
};

use crate::journal;

/// Key of the advisory lock that keeps two runs on one database apart: "safe_run" in ASCII.
const ADVISORY_KEY: i64 = 0x7361_6665_5f72_756e;

/// How often, and how far apart, the advisory lock is tried: two seconds in all. The server takes a moment to end the
/// session of a run that was killed just now.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Connects, refuses what can't be protected, and takes the advisory lock on an idle session that keeps it.
///
/// # Errors
/// Busy when another run holds the lock, naming it; refused for poolers and old servers.
pub async fn take_control(settings: &ConnectionSettings) -> Result<Session> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let last = attempt == LOCK_ATTEMPTS;
        match try_control(settings, LOCK_ATTEMPTS - attempt).await {
            // The fence of the run that has the lock ends the sessions of who waits for it.
            Err(error) if !last && was_ended(&error) => {}
            result => return result,
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// The connection was lost, or somebody ended the session.
fn was_ended(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("57P01" | "08006"))
}

/// One session that tries to get the lock, `further` times more.
async fn try_control(settings: &ConnectionSettings, further: u32) -> Result<Session> {
    let session = settings.connect().await?;
    backup::check_server(&session).await?;
    connect::refuse_pooler(&session).await?;
    let session = without_login_triggers(session).await?;
    refuse_standby(&session).await?;
    let failed = |source| Error::postgres("could not take the advisory lock", source);
    for _ in 0..=further {
        let row = session
            .query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&ADVISORY_KEY])
            .await
            .map_err(failed)?;
        if row.get(0) {
            return Ok(session);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let holder = session
        .query_opt(
            "SELECT a.pid, a.application_name, COALESCE(a.client_addr::text, 'local') FROM pg_catalog.pg_locks l
             JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1 AND l.objid = $2
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            &[&((ADVISORY_KEY >> 32) as u32), &((ADVISORY_KEY & 0xffff_ffff) as u32)],
        )
        .await
        .map_err(failed)?;
    let who = holder.map_or(String::new(), |row| {
        let (pid, name, address): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        format!(" (pid {pid}, {}, from {address})", common::ident::printable(&name))
    });
    Err(Error::busy(format!("another safe-run works on the database \"{}\"{who}", settings.database()))
        .with_hint("Wait until it has finished, then run the command again.")
        .with_database_state(format!("The database \"{}\" was not changed.", settings.database())))
}

/// A login event trigger that writes would let every further session of ours wait behind our own fence. A superuser's sessions
/// need not fire it.
async fn without_login_triggers(session: Session) -> Result<Session> {
    if session.server_major() < 17 {
        return Ok(session);
    }
    let row = session
        .query_one(
            "SELECT dathasloginevt AND pg_catalog.current_setting('is_superuser') = 'on'
             FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look for login event triggers", source))?;
    if !row.get::<_, bool>(0) {
        return Ok(session);
    }
    let settings = session.settings().without_event_triggers();
    session.close().await?;
    settings.connect().await
}

/// A standby can't be written to: said before a fence or a command finds out.
async fn refuse_standby(session: &Session) -> Result<()> {
    if !database::is_standby(session).await? {
        return Ok(());
    }
    let settings = session.settings();
    Err(Error::refused(format!("{} is a hot standby, which can't be written to", settings.host_label()))
        .with_hint(
            "Run it on the primary (with several hosts in the URL, target_session_attrs=primary finds it).",
        )
        .with_database_state(format!("The database \"{}\" was not changed.", settings.database())))
}

/// Refuses to go on while an earlier run on this database was not finished.
pub fn refuse_unfinished(repository: &Repository, database: &str) -> Result<()> {
    let undecided =
        journal::with_slot(repository, database)?.into_iter().find(journal::PastRun::is_undecided);
    if let Some(run) = undecided {
        return Err(Error::refused(format!(
            "run {} ({}) on \"{database}\" failed, and waits for your decision",
            run.run,
            run.what()
        ))
        .with_hint(
            "Run `safe-run recover --undo` to go back to its snapshot, with what others wrote since saved for a replay, or \
             `safe-run recover --keep` to go on from the database as it is.",
        )
        .with_database_state("Nothing was changed now."));
    }
    let unfinished = journal::unfinished(repository, database)?;
    let Some(first) = unfinished.first() else { return Ok(()) };
    Err(Error::refused(format!("run {} ({}) on \"{database}\" did not finish", first.run, first.what()))
        .with_hint(
            "Run `safe-run recover`: it says what happened and finishes the undo. `safe-run recover --keep` leaves the database \
             as it is and lifts the fence.",
        )
        .with_database_state("Nothing was changed now."))
}
