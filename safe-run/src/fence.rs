//! Keeps other writers out while a command, or statements outside of a transaction, change the database.
//!
//! `exclusive` is in [`crate::exclusive`]. `read-only`: new sessions of the database begin their transactions read-only, and the sessions that are there are
//! ended. The command's own sessions are told otherwise through `options`. It does not stop who says
//! `SET default_transaction_read_only = off`, and it does not stop a driver of the command that ignores `options` from being
//! stopped itself.

use std::time::Duration;

use common::{
    Error, ErrorKind, Ident, Result, fault,
    ident::literal,
    postgres::{
        ConnectionSettings, Session,
        database::{self, connect_maintenance},
    },
};

use crate::exclusive::{self, Hidden};

/// The parameter that the fence sets.
const PARAMETER: &str = "default_transaction_read_only";

/// A fence that stands. Lift it on every path; dropped without, it stays, and `safe-run recover` lifts it.
#[derive(Debug)]
#[must_use = "a fence that is not lifted stays"]
pub enum Fence {
    /// New sessions are read-only.
    ReadOnly {
        /// The database.
        database: String,
        /// The parameter's value before.
        previous: Option<String>,
    },
    /// The database has another name.
    Exclusive {
        /// How to reach the server.
        settings: Box<ConnectionSettings>,
        /// The names.
        names: Hidden,
    },
}

/// The parameter's value for the database, if it is set there.
pub async fn current(session: &Session) -> Result<Option<String>> {
    let state = common::postgres::introspect::database_state(session).await?;
    Ok(state
        .settings
        .into_iter()
        .find(|setting| setting.role.is_none() && setting.name == PARAMETER)
        .map(|setting| setting.value))
}

/// Sets the fence and ends every session of the database but those of `own`.
pub async fn set(control: &Session, database: &str, previous: Option<String>, own: &[i32]) -> Result<Fence> {
    // Before anything is changed, and nobody is ended in vain.
    refuse_lasting_sessions(control, database, own).await?;
    alter(control, database, Some(database::FENCED)).await?;
    fault::point("safe-run.read-only");
    let fence = Fence::ReadOnly { database: database.to_owned(), previous };
    // A session that read its settings just before the change may appear just after it: look twice (docs/exactness.md, E13).
    for pause in [Duration::from_millis(100), Duration::ZERO] {
        if let Err(error) = end_other_sessions(control, database, own).await {
            let lifted = fence.lift(control, own).await;
            return Err(match lifted {
                Ok(()) => error,
                Err(second) => {
                    error.context(format!("the fence could not be lifted again either ({second})"))
                }
            });
        }
        tokio::time::sleep(pause).await;
    }
    Ok(fence)
}

impl Fence {
    /// Takes the fence away and ends the sessions that began behind it: they would stay read-only, or hold the name.
    pub async fn lift(self, control: &Session, own: &[i32]) -> Result<()> {
        match self {
            Self::ReadOnly { database, previous } => lift(control, &database, previous.as_deref(), own).await,
            Self::Exclusive { settings, names } => exclusive::lift(&settings, control, &names).await,
        }
    }

    /// After an undo: the restored database took the name of the failed one, which is now called `failed`.
    pub async fn lift_after_undo(self, control: &Session, failed: Option<&str>) -> Result<()> {
        match (self, failed) {
            // The restored database never had it.
            (Self::ReadOnly { previous, .. }, Some(failed)) => {
                lift(control, failed, previous.as_deref(), &[]).await
            }
            (Self::ReadOnly { .. }, None) => Ok(()),
            (exclusive @ Self::Exclusive { .. }, _) => exclusive.lift(control, &[]).await,
        }
    }

    /// What it keeps others from, for a report.
    pub fn state(&self) -> String {
        match self {
            Self::ReadOnly { database, .. } => {
                format!("database \"{database}\" is still read-only for new sessions")
            }
            Self::Exclusive { names, .. } => {
                format!("the database is still called \"{}\", and \"{}\" is closed", names.hidden, names.live)
            }
        }
    }
}

/// Takes a fence away that `previous` stood before.
pub async fn lift(control: &Session, database: &str, previous: Option<&str>, own: &[i32]) -> Result<()> {
    alter(control, database, previous).await.map_err(|error| match error.sqlstate() {
        Some("55P03") => error.with_hint(
            "Somebody else's transaction has changed the database's settings and is still open: end it (pg_stat_activity, \
             backend_xid). Then run `safe-run recover`, which lifts the fence.",
        ),
        _ => error,
    })?;
    fault::point("safe-run.writable");
    database::end_client_sessions(control, database, own).await
}

/// A session for setting and lifting, on the maintenance database: the fence does not reach it.
pub async fn control(settings: &ConnectionSettings) -> Result<Session> {
    let control = connect_maintenance(settings, &[settings.database()]).await?;
    let patience = fault::number("safe-run.patience").unwrap_or(LOCK_PATIENCE.as_secs());
    control.batch_execute(&format!("SET lock_timeout = '{patience}s'")).await.map_err(|source| {
        Error::postgres("could not prepare the session that sets and lifts fences", source)
    })?;
    Ok(control)
}

/// How long a change of the database itself waits for somebody else's. Such a change takes moments; who is not through after this
/// long has left a transaction open.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How often, and after what pause, a change is tried again where the server's table of locks is full.
const FULL_ATTEMPTS: u32 = 50;
const FULL_PAUSE: Duration = Duration::from_millis(200);

async fn alter(control: &Session, database: &str, value: Option<&str>) -> Result<()> {
    let name = Ident::new(database);
    let change = match value {
        Some(value) => format!("ALTER DATABASE {name} SET {PARAMETER} TO {}", literal(value)),
        None => format!("ALTER DATABASE {name} RESET {PARAMETER}"),
    };
    let mut attempts = FULL_ATTEMPTS;
    let changed = loop {
        let changed = control.batch_execute(&change).await;
        // out_of_memory: a session of ours that has just ended, or somebody else's statement, still has the last places for locks.
        let is_full =
            matches!(&changed, Err(source) if source.code().is_some_and(|code| code.code() == "53200"));
        if !is_full || attempts == 0 {
            break changed;
        }
        attempts -= 1;
        tokio::time::sleep(FULL_PAUSE).await;
    };
    changed.map_err(|source| {
        let what = format!("could not change the settings of the database \"{database}\"");
        let error = Error::postgres(what, source);
        match error.sqlstate() {
            // lock_not_available
            Some("55P03") => error.with_kind(ErrorKind::Busy).with_hint(
                "Somebody else's transaction has changed them and is still open: end it (pg_stat_activity, backend_xid), then run \
                 the command again.",
            ),
            Some("42501") => error.with_hint(
                "The fence needs the database's owner or a superuser; --fence none goes without it, but not with --snapshot clone.",
            ),
            _ => error,
        }
    })
}

/// Ends who may be ended, and fails naming those who stay: they began before the fence and could write behind it.
async fn end_other_sessions(control: &Session, database: &str, own: &[i32]) -> Result<()> {
    database::end_client_sessions(control, database, own).await?;
    refuse_lasting_sessions(control, database, own).await
}

/// Refuses while there are sessions that the role may not end.
async fn refuse_lasting_sessions(control: &Session, database: &str, own: &[i32]) -> Result<()> {
    let lasting = database::sessions_in_the_way(control, database, own).await?;
    if lasting.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "other sessions are connected to the database and the role may not end them: {}",
        lasting.join(", ")
    ))
    .with_hint(format!(
        "Let them end, or grant what is missing ({}); --fence none goes without a fence, but not with --snapshot clone.",
        database::WHO_MAY_END_SESSIONS
    )))
}
