//! Background workers of extensions that are connected to the database. A clone, and every swap of names, ends them, and many
//! come back only with the server: they are told by kind before, and looked for afterwards.

use std::time::Duration;

use common::{Error, Result, format::plural, ident::printable, postgres::Session};

use crate::run::Worker;

/// Workers that the server itself starts again, or whose work is another obstacle (replication).
const OF_THE_SERVER: [&str; 8] = [
    "client backend",
    "parallel worker",
    "autovacuum worker",
    "walsender",
    "logical replication worker",
    "logical replication apply worker",
    "logical replication parallel worker",
    "logical replication tablesync worker",
];

/// The workers in a database, by kind.
pub(super) async fn connected(control: &Session, database: &str) -> Result<Vec<Worker>> {
    let rows = control
        .query(
            "SELECT backend_type, pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
             WHERE datname = $1 AND backend_type IS NOT NULL AND NOT (backend_type = ANY ($2)) GROUP BY 1 ORDER BY 1",
            &[&database, &OF_THE_SERVER.as_slice()],
        )
        .await
        .map_err(|source| Error::postgres("could not look for background workers", source))?;
    Ok(rows.iter().map(|row| Worker { kind: printable(row.get(0)), count: row.get(1) }).collect())
}

/// A worker that does not answer the server, which from 15 on waits for the answer of every process before it drops a database:
/// whoever drops one waits for ever. Nothing where there is none that is known.
///
/// Source: pglogical's issues 399 and 418; it answers from 2.4.4 on.
pub(super) async fn without_answer(control: &Session) -> Result<Option<String>> {
    if control.server_major() < 15 {
        return Ok(None);
    }
    let row = control
        .query_opt(
            "SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'pglogical supervisor' AND EXISTS (
               SELECT FROM pg_catalog.pg_available_extensions e WHERE e.name = 'pglogical' AND e.default_version ~ '^[0-9.]+$'
                 AND pg_catalog.string_to_array(e.default_version, '.')::int[] < ARRAY[2, 4, 4]) LIMIT 1",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look for background workers", source))?;
    Ok(row.map(|row| {
        format!(
            "no database can be dropped on this server, a scratch database neither: it waits for the answer of the worker \
             \"pglogical supervisor\" (pid {}), which before pglogical 2.4.4 never comes",
            row.get::<_, i32>(0)
        )
    }))
}

/// Refuses to end workers unasked.
pub(super) fn refuse(workers: &[Worker], may_end: bool) -> Result<()> {
    if workers.is_empty() || may_end {
        return Ok(());
    }
    Err(Error::refused(format!(
        "background workers are connected to the database, and the run would end them: {}",
        names(workers)
    ))
    .with_hint(
        "Many do not come back before the server is restarted. Add --end-workers to go on all the same; --fence read-only with \
         --snapshot file leaves them alone as long as nothing has to be undone.",
    ))
}

fn names(workers: &[Worker]) -> String {
    let names: Vec<String> =
        workers.iter().map(|worker| format!("{} ({})", worker.kind, worker.count)).collect();
    names.join(", ")
}

/// Nobody could look.
pub(super) fn not_known(error: &Error) -> String {
    format!("whether the background workers came back is not known: {error}")
}

/// Those that were there before the run and are not any more, as a sentence.
pub(crate) async fn gone(control: &Session, database: &str, before: &[Worker]) -> Option<String> {
    /// How long a worker that does come back is given.
    const GRACE: Duration = Duration::from_secs(5);
    if before.is_empty() {
        return None;
    }
    let deadline = std::time::Instant::now() + GRACE;
    loop {
        let now = match connected(control, database).await {
            Ok(now) => now,
            Err(error) => {
                return Some(not_known(&error));
            }
        };
        let missing: Vec<Worker> = before
            .iter()
            .filter(|worker| {
                !now.iter().any(|there| there.kind == worker.kind && there.count >= worker.count)
            })
            .cloned()
            .collect();
        if missing.is_empty() {
            return None;
        }
        if std::time::Instant::now() >= deadline {
            let count = missing.iter().map(|worker| worker.count.unsigned_abs()).sum();
            return Some(format!(
                "{} did not come back: {}; a restart of the server starts what is started with it",
                plural(count, "background worker", "background workers"),
                names(&missing)
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_ended_only_when_somebody_says_so() {
        let workers = [Worker { kind: "pg_cron launcher".to_owned(), count: 1 }];
        assert!(refuse(&[], false).is_ok() && refuse(&workers, true).is_ok());
        let error = refuse(&workers, false).expect_err("nobody said so");
        assert!(error.message().contains("pg_cron launcher"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("Add --end-workers to go on all the same")));
    }
}
