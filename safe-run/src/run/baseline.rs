//! The look at the database before the migration, and the checks on one snapshot by several sessions.

use std::{collections::HashSet, sync::Arc};

use common::{
    Error, Result,
    catalog::Sequence,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::{ExportedSnapshot, join_for_checks},
        introspect,
        names::Schemas,
    },
};

use super::{Context, check_options};
use crate::facts::{self, Functions};
use checks::{self, CheckKind, CheckResults, Level, carried::Carried};
use sql::expectation::Facts;

/// The state before the migration.
#[derive(Debug)]
pub struct Baseline {
    /// What the checks found.
    pub results: CheckResults,
    /// Where there were first checks before the fence: what of them holds, or why nothing does.
    pub carried: Option<std::result::Result<Arc<Carried>, String>>,
    /// Tables, foreign keys, triggers.
    pub facts: Facts,
    /// Which functions can change rows.
    pub functions: Functions,
    /// Where every sequence stood.
    pub sequences: Vec<Sequence>,
}

/// Looks at the database before the migration, with several sessions on one exported snapshot. What was
/// answered before the fence and still holds (`carried`) is not asked again. With `functions_later` the session that holds the locks tries the functions.
pub async fn baseline(
    context: &Context,
    exported: &ExportedSnapshot<'_>,
    carried: Option<std::result::Result<Arc<Carried>, String>>,
    functions_later: bool,
) -> Result<Baseline> {
    let sessions = join_many(context, exported).await?;
    let first = sessions.first().ok_or_else(|| Error::failed("no session for the checks"))?;
    let (facts, functions) = facts::read(first).await?;
    let sequences = introspect::sequences(first).await?;
    let still_holds = carried.as_ref().and_then(|carried| carried.as_ref().ok()).cloned();
    // It tells nobody how far it is: rows are copied meanwhile, and that is the phase.
    let options =
        checks::Options { carried: still_holds, functions_later, ..check_options(&context.options) };
    let results = check_on(&context.connection, &sessions, &options).await?;
    close_all(sessions).await?;
    // Its locks would be in the migration's way.
    if let Some(Ok(carried)) = &carried {
        carried.release().await;
    }
    Ok(Baseline { results, carried, facts, functions, sequences })
}

/// Runs the checks with several sessions on one exported snapshot.
pub async fn check_parallel(
    context: &Context,
    exported: &ExportedSnapshot<'_>,
    options: &checks::Options,
) -> Result<CheckResults> {
    let sessions = join_many(context, exported).await?;
    let results = check_on(&context.connection, &sessions, options).await?;
    close_all(sessions).await?;
    Ok(results)
}

/// Runs the checks on `sessions`, which see one snapshot, with one more session for what has to be created and taken
/// back.
///
/// # Errors
/// Busy if a schema got another name since the snapshot: then a query may have met another table.
pub async fn check_on<'s>(
    connection: &ConnectionSettings,
    sessions: impl IntoIterator<Item = &'s Session>,
    options: &checks::Options,
) -> Result<CheckResults> {
    let clients: Vec<&common::postgres::Client> = sessions.into_iter().map(|session| &**session).collect();
    let first = clients.first().ok_or_else(|| Error::failed("no session for the checks"))?;
    let schemas = Schemas::seen_by(first).await?;
    let results = check_by_names(connection, &clients, options).await?;
    check_names(&schemas, &Schemas::now(connection).await?, &results)?;
    Ok(results)
}

/// Makes sure that the names that a pass looked its tables up by meant the same at its end.
///
/// A schema that only the migration's own transaction sees is nobody else's to rename.
///
/// # Errors
/// Busy, with the schema that got another name.
pub fn check_names(before: &Schemas, after: &Schemas, results: &CheckResults) -> Result<()> {
    let tables = results.tables.values().map(|table| &table.name);
    let names = tables.chain(results.sequences.values().map(|sequence| &sequence.name));
    let used = names.map(|name| name.schema.as_str()).collect::<HashSet<_>>();
    before.check_same(after, &before.names().intersection(&used).copied().collect())
}

/// [`check_on`] without the proof of the names.
async fn check_by_names(
    connection: &ConnectionSettings,
    clients: &[&common::postgres::Client],
    options: &checks::Options,
) -> Result<CheckResults> {
    // Before a run at `standard` there is nothing that would have to be created.
    let creates = options.level >= Level::Deep || options.known.is_some();
    if !creates || !options.wants(CheckKind::Structure) || is_standby(clients).await? {
        return checks::run_parallel(clients, options).await;
    }
    let scratch = connection.connect().await?;
    // What is created must not wait for somebody else's locks behind which others queue.
    scratch
        .batch_execute("SET lock_timeout = '10s'; SET default_transaction_read_only = off")
        .await
        .map_err(|source| Error::postgres("could not prepare a session", source))?;
    let results = checks::run_with_scratch(clients, Some(&scratch), options).await?;
    scratch.close().await?;
    Ok(results)
}

/// Whether the server replays another's log: nothing can be created there, not even for a moment.
async fn is_standby(clients: &[&common::postgres::Client]) -> Result<bool> {
    let Some(client) = clients.first() else { return Ok(false) };
    let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
    row.map(|row| row.get(0)).map_err(|source| Error::postgres("could not ask the server", source))
}

async fn join_many(context: &Context, exported: &ExportedSnapshot<'_>) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for _ in 0..context.options.jobs.max(1) {
        sessions.push(join_for_checks(&context.connection, exported).await?);
    }
    Ok(sessions)
}

async fn close_all(sessions: Vec<Session>) -> Result<()> {
    for session in sessions {
        session.close().await?;
    }
    Ok(())
}
