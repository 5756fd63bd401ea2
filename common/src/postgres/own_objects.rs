//! What our programs make for themselves in a live database, such as a history table: nothing that the database's own event triggers are
//! for, and whosever function they call would run with the rights of whoever runs us.

use super::{Client, DriverError};

/// Runs statements of ours, in the transaction that is open or in one of their own, in which a superuser fires no event trigger. Before
/// PostgreSQL 17 those that are ENABLE ALWAYS or REPLICA fire all the same. Nobody else may switch them off; they run with his rights.
///
/// # Errors
/// What the server says.
pub async fn make(client: &Client, sql: &str) -> Result<(), DriverError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on', pg_catalog.current_setting('event_triggers', true),
             pg_catalog.current_setting('session_replication_role')",
            &[],
        )
        .await?;
    let (is_superuser, triggers, role): (bool, Option<String>, String) = (row.get(0), row.get(1), row.get(2));
    let (before, after) = match triggers {
        _ if !is_superuser => return client.batch_execute(sql).await,
        Some(triggers) => {
            ("SET LOCAL event_triggers = off".to_owned(), format!("SET LOCAL event_triggers = {triggers}"))
        }
        None => (
            "SET LOCAL session_replication_role = replica".to_owned(),
            format!("SET LOCAL session_replication_role = {role}"),
        ),
    };
    // Several statements in one message are one transaction.
    client.batch_execute(&format!("{before}; {}; {after}", sql.trim_end().trim_end_matches(';'))).await
}
