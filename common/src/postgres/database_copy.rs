//! A copy of a whole database that the server makes itself, file by file.
//!
//! `CREATE DATABASE … TEMPLATE` takes its lock on the source first and then waits for the sessions there to leave; a second
//! connection ends them meanwhile, and new ones wait at the lock until the copy is made. So nobody can write between the
//! first file and the last, and a client that reconnects in a loop can't get between. The copy accepts no connection from
//! its first moment on: what is in it is what was copied (docs/exactness.md, E15).

use std::time::Duration;

use super::{
    ConnectionSettings, Session,
    database::{WHO_MAY_END_SESSIONS, connect_maintenance, end_all_sessions, sessions_in_the_way, settle},
};
use crate::{Error, ErrorKind, Ident, Result, fault, ident::literal};

/// How long the copy waits for a lock that somebody holds who works on the source as a whole, and for who can't be ended.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '10s'";

/// Between two looks at who is still there.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to copy, and what makes the copy known as ours from its first moment on.
#[derive(Debug, Clone, Copy)]
pub struct CopyOrder<'a> {
    /// The database to copy. All of its sessions are ended.
    pub source: &'a str,
    /// The name of the copy, which must be free.
    pub copy: &'a str,
    /// Its connection limit, a number that only its maker knows: the one mark that can be set with the making.
    pub token: i32,
    /// The recorded version of its collation, which is the source's whatever the operating system has by now.
    pub collation_version: Option<&'a str>,
}

/// Makes the copy.
///
/// # Errors
/// Busy when sessions stay that may not be ended, each named. The copy may exist all the same if the connection broke.
pub async fn copy(settings: &ConnectionSettings, order: &CopyOrder<'_>) -> Result<()> {
    let avoid = [order.source, order.copy];
    let maker = connect_maintenance(settings, &avoid).await?;
    let terminator = connect_maintenance(settings, &avoid).await?;
    let failed = |source| Error::postgres("could not prepare the copy of the database", source);
    maker.batch_execute(LOCK_TIMEOUT).await.map_err(failed)?;
    // 18: a file system that can shares the blocks. 22023: this server was built without it.
    let clones = maker.server_major() >= 18
        && match maker.batch_execute("SET file_copy_method = 'clone'").await {
            Ok(()) => true,
            Err(source) if source.code().is_some_and(|code| code.code() == "22023") => false,
            Err(source) => return Err(failed(source)),
        };
    let mut made = attempt(&maker, &terminator, order).await;
    // Some file systems refuse what others do, each with an error of its own: the plain way goes everywhere.
    if clones && made.as_ref().is_err_and(is_of_the_file_system) {
        maker.batch_execute("SET file_copy_method = 'copy'").await.map_err(failed)?;
        made = attempt(&maker, &terminator, order).await;
    }
    let Err(error) = made else {
        fault::point("database.copied");
        return Ok(());
    };
    // 55006: object in use.
    if error.sqlstate() != Some("55006") && !error.is_retryable() {
        return Err(error);
    }
    let lasting = sessions_in_the_way(&terminator, order.source, &[]).await?;
    Err(explain_busy(error, &lasting))
}

/// The source is in use: by these sessions, which the role may not end, or by nobody who is there still.
fn explain_busy(error: Error, lasting: &[String]) -> Error {
    let error = error.with_kind(ErrorKind::Busy);
    if lasting.is_empty() {
        return error
            .with_hint("Somebody works on the database as a whole, or came back too fast: run it again.");
    }
    error
        .context(format!("sessions are in the way that may not be ended: {}", lasting.join(", ")))
        .with_hint(format!("Let them end, or run this as a role that may; {WHO_MAY_END_SESSIONS}."))
}

/// System errors, and those that PostgreSQL has no code for (`XX000`); a full disk is none of them.
fn is_of_the_file_system(error: &Error) -> bool {
    error.sqlstate().is_some_and(|code| code.starts_with("58") || code == "XX000" || code == "0A000")
}

async fn attempt(maker: &Session, terminator: &Session, order: &CopyOrder<'_>) -> Result<()> {
    let statement = statement(order, maker.server_major());
    let work = maker.batch_execute(&statement);
    let mut work = std::pin::pin!(work);
    let mut trouble = None;
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            ended = end_sessions(terminator, order.source), if trouble.is_none() => {
                if let Err(error) = ended {
                    // Whatever it is, the statement has to have ended before anybody cleans up.
                    let _ = maker.cancel_handle().cancel().await;
                    trouble = Some(error);
                }
            }
        }
    };
    settle(terminator).await;
    match (result, trouble) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(error)) => Err(error),
        (Err(source), None) => {
            Err(Error::postgres(format!("could not copy the database \"{}\"", order.source), source))
        }
    }
}

async fn end_sessions(terminator: &Session, source: &str) -> Result<()> {
    end_all_sessions(terminator, source).await?;
    tokio::time::sleep(LOOK_EVERY).await;
    Ok(())
}

/// 14 knows one way only, by file; later ones write every block to the log unless they are told otherwise.
fn statement(order: &CopyOrder<'_>, major: u32) -> String {
    let mut statement = format!(
        "CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false CONNECTION LIMIT {}",
        Ident::new(order.copy),
        Ident::new(order.source),
        order.token
    );
    if major >= 15 {
        statement.push_str(" STRATEGY file_copy");
        if let Some(version) = order.collation_version {
            statement.push_str(&format!(" COLLATION_VERSION {}", literal(version)));
        }
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_sessions_are_in_the_way_of_names_them() {
        let error = explain_busy(Error::failed("no copy"), &["pid 1 of superuser \"a\"".to_owned()]);
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.message().contains("may not be ended: pid 1 of superuser"), "{error}");
        assert!(error.hint().unwrap().starts_with("Let them end, or run this as a role that may"));
        let nobody = explain_busy(Error::failed("no copy"), &[]);
        assert!(nobody.hint().unwrap().ends_with("run it again."));
    }

    #[test]
    fn the_statement_is_closed_marked_and_by_file() {
        let order = CopyOrder { source: "a \"b", copy: "c", token: 7, collation_version: Some("2.36") };
        let base = "CREATE DATABASE \"c\" TEMPLATE \"a \"\"b\" ALLOW_CONNECTIONS false CONNECTION LIMIT 7";
        assert_eq!(statement(&order, 14), base);
        assert_eq!(statement(&order, 18), format!("{base} STRATEGY file_copy COLLATION_VERSION '2.36'"));
    }
}
