//! Whole databases: the connection from which they are managed, making, dropping, and swapping names.
//!
//! The swap is the moment of truth of a restore. Both renames are in one transaction, so that the live name always
//! means one whole database. `ALTER DATABASE … RENAME` takes an exclusive lock on the database first: sessions that
//! connect meanwhile wait, and find the new database or an error, never the old one under the new name
//! (docs/exactness.md, E15).

use std::time::{Duration, Instant};

use super::{ConnectionSettings, Session, shared_text, sql};
use crate::{Error, ErrorKind, Ident, Result};

/// What a read-only fence of ours sets `default_transaction_read_only` to: `on`, spelled as nobody spells it, so that a database which somebody
/// made read-only on purpose is not taken for one that a run has left. The server takes any beginning of `true`, and keeps what it was given.
pub const FENCED: &str = "tru";

/// Databases to manage others from, in the order in which they are tried.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// Connects to a database from which `avoid` can be renamed or dropped.
pub async fn connect_maintenance(settings: &ConnectionSettings, avoid: &[&str]) -> Result<Session> {
    let mut first = None;
    for name in MAINTENANCE.iter().filter(|name| !avoid.contains(name)) {
        match settings.with_database(name).connect().await {
            Ok(session) => return Ok(session),
            Err(error) if error.sqlstate().is_some() => first = first.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let error = first.unwrap_or_else(|| Error::refused("there is no maintenance database to connect to"));
    let error = error.context("could not connect to the maintenance database");
    // invalid_catalog_name; what else is refused has a hint of its own.
    Err(match error.sqlstate() {
        Some("3D000") | None => error.with_hint(
            "Databases are made, renamed and dropped from another one: run CREATE DATABASE postgres, and let the role connect to it.",
        ),
        _ => error,
    })
}

/// Whether a database exists.
pub async fn exists(session: &Session, name: &str) -> Result<bool> {
    let row = session
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)", &[&name])
        .await
        .map_err(|source| Error::postgres("could not look for the database", source))?;
    Ok(row.get(0))
}

/// Whether the server is a hot standby, where nothing can be written.
pub async fn is_standby(session: &Session) -> Result<bool> {
    let row = session
        .query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])
        .await
        .map_err(|source| Error::postgres("could not ask the server whether it is a standby", source))?;
    Ok(row.get(0))
}

/// Drops a database that this program made or a person gave up, ending the sessions in it, with the subscriptions in it.
pub async fn drop_database(session: &Session, name: &str) -> Result<()> {
    drop_until(session, name, None).await
}

async fn drop_until(session: &Session, name: &str, deadline: Option<Instant>) -> Result<()> {
    match drop_empty_of_subscriptions(session, name, deadline).await {
        // In use: by sessions that may not be ended, or by subscriptions, without which no database can be dropped.
        Err(error) if error.sqlstate() == Some("55006") => {
            if !Box::pin(drop_subscriptions(session, name)).await? {
                return Err(error);
            }
            drop_empty_of_subscriptions(session, name, deadline).await
        }
        result => result,
    }
}

/// Drops the subscriptions of a database, and says whether there were any. Their slots, of which a publisher knows, are left: they
/// belong to the database that this one is a copy of.
async fn drop_subscriptions(session: &Session, name: &str) -> Result<bool> {
    let failed = |source| Error::postgres(format!("could not drop the subscriptions of \"{name}\""), source);
    let session = session.settings().with_database(name).connect().await?;
    let names = subscriptions(&session).await?;
    for name in &names {
        let name = Ident::new(name.as_str());
        let sql = format!(
            "ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}"
        );
        session.batch_execute(&sql).await.map_err(failed)?;
    }
    session.close().await?;
    Ok(!names.is_empty())
}

/// Takes their replication slots from the subscriptions of the connected database, which have just come out of an archive and
/// are disabled: a slot has one reader, and whoever drops a subscription that names it drops it on the publisher.
///
/// # Errors
/// What the server says to a role that may not.
pub async fn detach_subscriptions(session: &Session) -> Result<()> {
    for name in subscriptions(session).await? {
        let sql = format!("ALTER SUBSCRIPTION {} SET (slot_name = NONE)", Ident::new(name.as_str()));
        session.batch_execute(&sql).await.map_err(|source| {
            Error::postgres(
                format!("could not take its replication slot from the subscription \"{name}\""),
                source,
            )
        })?;
    }
    Ok(())
}

async fn subscriptions(session: &Session) -> Result<Vec<String>> {
    let rows = session
        .query(
            "SELECT s.subname::text FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
             WHERE d.datname = pg_catalog.current_database() ORDER BY 1",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look for subscriptions", source))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn drop_empty_of_subscriptions(session: &Session, name: &str, deadline: Option<Instant>) -> Result<()> {
    let statement = format!("DROP DATABASE IF EXISTS {}", Ident::new(name));
    match drop_by(session, name, &format!("{statement} WITH (FORCE)"), deadline).await {
        // FORCE refuses who may not end each process in the database, and an autovacuum worker belongs to no role. Without FORCE
        // the server itself ends those. What is left then are sessions of others, of which the first error speaks.
        Err(error) if error.sqlstate() == Some("42501") => {
            drop_by(session, name, &statement, deadline).await.map_err(|_| error)
        }
        result => result,
    }
}

/// [`drop_database`], which gives up after `patience`: the session is fine for the next statement then.
///
/// # Errors
/// Busy where the server was at it for so long.
pub async fn drop_database_within(session: &Session, name: &str, patience: Duration) -> Result<()> {
    let limit = async |limit: &str| {
        let set = format!("SET statement_timeout = {limit}");
        match session.batch_execute(&set).await {
            // The cancel request of the signal that brought us here may come as late as this.
            Err(source) if source.code().is_some_and(|code| code.code() == "57014") => {
                session.batch_execute(&set).await
            }
            result => result,
        }
        .map_err(|source| Error::postgres("could not prepare a session", source))
    };
    limit(&format!("'{}ms'", patience.as_millis())).await?;
    let dropped = drop_until(session, name, Some(Instant::now() + patience)).await.map_err(|error| match error.sqlstate() {
        Some("57014") => Error::busy(format!(
            "the server was at it for {} s: from 15 on it waits until every process has answered, and workers of some \
             extensions never do",
            patience.as_secs()
        )),
        _ => error,
    });
    if !session.is_closed() {
        limit("0").await?;
    }
    dropped
}

async fn drop_by(session: &Session, name: &str, statement: &str, deadline: Option<Instant>) -> Result<()> {
    // A cancel request that a signal sent for an earlier statement may arrive only now. Cleaning up is not what was to be
    // cancelled, and each request cancels one statement.
    let mut attempts = 5;
    loop {
        attempts -= 1;
        match session.batch_execute(statement).await {
            Ok(()) => return Ok(()),
            Err(source) => {
                let error = Error::postgres(format!("could not drop the database \"{name}\""), source);
                let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if error.sqlstate() != Some("57014") || attempts == 0 || is_late {
                    return Err(error);
                }
            }
        }
    }
}

/// The three names of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapNames {
    /// The name that applications use.
    pub live: String,
    /// The database that shall take it.
    pub staged: String,
    /// The name under which the replaced database is kept.
    pub replaced: String,
}

/// What ties a database to its identity and would be left behind by a swap.
pub async fn swap_obstacles(session: &Session, live: &str) -> Result<Vec<String>> {
    let asked = format!(
        "SELECT {} FROM (
           SELECT 'replication slot ' || slot_name AS what FROM pg_catalog.pg_replication_slots WHERE database = $1
           UNION ALL SELECT 'subscription ' || s.subname FROM pg_catalog.pg_subscription s
             JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = $1) o",
        shared_text::bytes("o.what")
    );
    let rows = session
        .query(&asked, &[&live])
        .await
        .map_err(|source| Error::postgres("could not look for replication slots", source))?;
    Ok(rows.iter().map(|row| crate::ident::printable(&shared_text::shown(row, 0))).collect())
}

/// What the role lacks to make a database and to rename this one, as phrases.
pub async fn lacks_to_swap(session: &Session, live: &str) -> Result<Vec<String>> {
    let row = session
        .query_one(
            "SELECT r.rolsuper OR r.rolcreatedb, r.rolsuper OR pg_catalog.pg_has_role(d.datdba, 'USAGE')
             FROM pg_catalog.pg_database d, pg_catalog.pg_roles r WHERE d.datname = $1 AND r.rolname = current_user",
            &[&live],
        )
        .await
        .map_err(|source| Error::postgres("could not look up what the role may", source))?;
    let (makes, owns): (bool, bool) = (row.get(0), row.get(1));
    let lacks = [(makes, "the role lacks CREATEDB"), (owns, "the role is not the database's owner")];
    Ok(lacks.iter().filter(|(may, _)| !may).map(|(_, what)| (*what).to_owned()).collect())
}

/// Prepared transactions of a database: PostgreSQL renames it only when there is none.
pub async fn prepared_transactions(session: &Session, live: &str) -> Result<Vec<String>> {
    let asked = format!(
        "SELECT {} FROM pg_catalog.pg_prepared_xacts WHERE database = $1 ORDER BY 1",
        shared_text::bytes("gid")
    );
    let rows = session
        .query(&asked, &[&live])
        .await
        .map_err(|source| Error::postgres("could not look for prepared transactions", source))?;
    Ok(rows.iter().map(|row| crate::ident::printable(&shared_text::shown(row, 0))).collect())
}

/// Gives the staged database the live name and keeps the live one under another: both or neither.
///
/// Ends every session in the two databases. `live` need not exist any more: then only the staged one is renamed, and the
/// answer is `false`.
///
/// # Errors
/// Nothing was renamed if this fails before the commit. [`ErrorKind::Unknown`] if the connection broke while the commit was
/// on its way and the outcome can't be read.
pub async fn swap(settings: &ConnectionSettings, names: &SwapNames) -> Result<bool> {
    swap_and(settings, names, &[]).await
}

/// Like [`swap`], with statements about the database under its live name that take effect with the names or not at all.
pub async fn swap_and(settings: &ConnectionSettings, names: &SwapNames, then: &[String]) -> Result<bool> {
    let avoid = [names.live.as_str(), names.staged.as_str()];
    let renamer = connect_maintenance(settings, &avoid).await?;
    let terminator = connect_maintenance(settings, &avoid).await?;
    let live_exists = exists(&renamer, &names.live).await?;
    let work = rename_both(&renamer, names, live_exists, then);
    let mut work = std::pin::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            // While the rename holds its lock nobody new can come in; the sessions that are there are ended until none is left.
            ended = end_sessions(&terminator, names) => ended?,
        }
    };
    settle(&terminator).await;
    result.map_err(explain_swap)?;
    crate::fault::point("restore.before-swap-commit");
    match renamer.batch_execute("COMMIT").await {
        Ok(()) => {
            crate::fault::point("restore.after-swap-commit");
            Ok(live_exists)
        }
        Err(source) => outcome_of_commit(settings, names, source).await.map(|()| live_exists),
    }
}

fn explain_swap(error: Error) -> Error {
    match error.sqlstate() {
        // Object in use.
        Some("55006") => error.with_kind(ErrorKind::Busy).with_hint(format!(
            "Sessions are connected to the database: end them, or run this as a role that may; {WHO_MAY_END_SESSIONS}."
        )),
        _ if error.is_retryable() => error.with_kind(ErrorKind::Busy),
        _ => error,
    }
}

async fn rename_both(renamer: &Session, names: &SwapNames, live_exists: bool, then: &[String]) -> Result<()> {
    let rename =
        |from: &str, to: &str| format!("ALTER DATABASE {} RENAME TO {}", Ident::new(from), Ident::new(to));
    let mut statements = vec!["BEGIN".to_owned(), "SET LOCAL lock_timeout = '10s'".to_owned()];
    if live_exists {
        statements.push(rename(&names.live, &names.replaced));
    }
    statements.push(rename(&names.staged, &names.live));
    statements.extend(then.iter().cloned());
    for statement in statements {
        renamer.batch_execute(&statement).await.map_err(|source| {
            Error::postgres(format!("could not swap the names of \"{}\"", names.live), source)
        })?;
    }
    Ok(())
}

async fn end_sessions(session: &Session, names: &SwapNames) -> Result<()> {
    end_permitted(session, &[&names.live, &names.staged], &[], false).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// Waits until the server has done what the session was last asked. A statement that nobody waits for any more runs on there:
/// one that ends sessions would end the first ones that come to the swapped database.
pub(super) async fn settle(session: &Session) {
    // A connection that is gone ends nobody either.
    let _ = session.simple_query("SELECT 1").await;
}

/// Ends the client sessions in a database but for those of `own`, as far as the role may; who may not be ended stays.
pub async fn end_client_sessions(session: &Session, database: &str, own: &[i32]) -> Result<()> {
    end_permitted(session, &[database], own, true).await
}

/// Ends every session in a database that the role may end, those of background workers too.
pub(super) async fn end_all_sessions(session: &Session, database: &str) -> Result<()> {
    end_permitted(session, &[database], &[], false).await
}

async fn end_permitted(session: &Session, databases: &[&str], own: &[i32], only_clients: bool) -> Result<()> {
    let statement =
        format!("SELECT pg_catalog.pg_terminate_backend(s.pid) FROM ({}) s WHERE s.may_end", sql::sessions());
    session
        .query(&statement, &[&databases, &own, &only_clients])
        .await
        .map_err(|source| Error::postgres("could not end the sessions in the database", source))?;
    Ok(())
}

/// The client sessions in a database that the role may not end, each as a person reads it.
pub async fn sessions_in_the_way(session: &Session, database: &str, own: &[i32]) -> Result<Vec<String>> {
    let statement = format!("SELECT * FROM ({}) s WHERE NOT s.may_end", sql::sessions());
    let rows = session
        .query(&statement, &[&[database].as_slice(), &own, &true])
        .await
        .map_err(|source| Error::postgres("could not look for sessions in the database", source))?;
    Ok(rows
        .iter()
        .map(|row| {
            let (pid, user): (i32, String) = (row.get("pid"), shared_text::shown(row, "usename"));
            let application: String = row.get("application_name");
            let kind = if row.get("is_superuser") { "superuser" } else { "role" };
            crate::ident::printable(&format!(
                "pid {pid} of {kind} \"{user}\" (application \"{application}\")"
            ))
        })
        .collect())
}

/// Who may end which session, for hints.
pub const WHO_MAY_END_SESSIONS: &str = "a superuser's session can only be ended by a superuser, any other by a member of \
    its role or of pg_signal_backend";

/// The connection broke during COMMIT: look which of the two states it is.
async fn outcome_of_commit(
    settings: &ConnectionSettings,
    names: &SwapNames,
    source: tokio_postgres::Error,
) -> Result<()> {
    let error = Error::postgres(format!("could not swap the names of \"{}\"", names.live), source);
    let looked = async {
        let session = connect_maintenance(settings, &[&names.live, &names.staged]).await?;
        exists(&session, &names.staged).await
    };
    match looked.await {
        // The staged name is gone: the commit went through.
        Ok(false) => Ok(()),
        Ok(true) => Err(error),
        Err(second) => Err(error
            .with_kind(ErrorKind::Unknown)
            .context(format!("it is unknown whether the swap was committed ({second})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_that_sessions_are_in_the_way_of_says_who_may_end_them() {
        let swap = |state: &str| explain_swap(Error::failed("could not swap the names").with_sqlstate(state));
        let in_use = swap("55006");
        assert_eq!(in_use.kind(), ErrorKind::Busy);
        assert!(in_use.hint().unwrap().starts_with("Sessions are connected to the database: end them"));
        assert_eq!(swap("55P03").kind(), ErrorKind::Busy);
        assert_eq!((swap("42501").kind(), swap("42501").hint().is_none()), (ErrorKind::Failed, true));
    }
}
