//! What comes after the rows: sequences, views, statistics, and the disk.

use std::collections::HashSet;

use common::{
    Error, Progress, QualifiedName, Result,
    postgres::{ConnectionSettings, Session},
    repository::StoredSnapshot,
    snapshot::readme::setval,
};

use crate::{
    copy_in,
    lent_paths::{self, LentPaths},
    missing::MissingObject,
    rule_settings,
};

pub(super) async fn set_sequences(session: &Session, snapshot: &StoredSnapshot) -> Result<()> {
    for sequence in &snapshot.manifest.sequences {
        session.query_one(&setval(sequence), &[]).await.map_err(|source| {
            Error::postgres(format!("could not set the sequence {}", sequence.name.short()), source)
        })?;
    }
    Ok(())
}

/// Refreshes in the recorded order; one that fails is tried again after the others, because a function that it calls
/// may read another view, and such dependencies are recorded nowhere.
pub(super) async fn refresh_views(
    session: &Session,
    snapshot: &StoredSnapshot,
    paths: &LentPaths,
    keep_going: bool,
    missing: &mut Vec<MissingObject>,
) -> Result<()> {
    let mut waiting: Vec<_> =
        snapshot.manifest.materialized_views.iter().filter(|view| view.is_populated).collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let were_lent = paths.are_lent();
        let mut failed = Vec::new();
        let mut last = None;
        for view in waiting {
            // In one message, and so in one transaction.
            let statement =
                format!("{}; REFRESH MATERIALIZED VIEW {}", rule_settings::OF_ITS_SESSIONS, view.name);
            if let Err(source) = session.batch_execute(&statement).await {
                let what = format!("could not fill the materialized view {}", view.name.short());
                // Where it happened: which function it is that the hint speaks of.
                let place = source.as_db_error().and_then(|error| error.where_()).map(str::to_owned);
                let error = Error::postgres(what, source);
                last = Some(match place.as_deref().and_then(|place| place.lines().next_back()) {
                    Some(place) => error.with_place(place),
                    None => error,
                });
                failed.push(view);
            }
        }
        if let (Some(error), true) = (last, failed.len() == before) {
            if lent_paths::may_be_a_name(&error) && paths.lend(were_lent).await? {
                waiting = failed;
                continue;
            }
            if keep_going {
                missing.extend(failed.iter().map(|view| MissingObject {
                    object: format!("content of the materialized view {}", view.name.short()),
                    reason: error.to_string(),
                    definition: Some(format!("REFRESH MATERIALIZED VIEW {}", view.name)),
                }));
                return Ok(());
            }
            return Err(lent_paths::hint(error));
        }
        waiting = failed;
    }
    Ok(())
}

/// Of a tree with a foreign table, ANALYZE of the whole would ask another server, which may be gone.
const OVER_FOREIGN_TABLES: &str = "
WITH RECURSIVE over_foreign(oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind = 'f'
  UNION SELECT i.inhparent FROM over_foreign f JOIN pg_catalog.pg_inherits i ON i.inhrelid = f.oid)";

pub(super) async fn analyze(
    session: &Session,
    settings: &ConnectionSettings,
    jobs: usize,
    snapshot: &StoredSnapshot,
    analyzed: &HashSet<QualifiedName>,
    progress: &Progress,
) -> Result<()> {
    let rows = session
        .query(
            &format!(
                "{OVER_FOREIGN_TABLES}
             SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname), n.nspname::text, c.relname::text
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND n.nspname NOT LIKE 'pg\\_toast%' AND (c.relkind <> 'm' OR c.relispopulated)
               AND c.oid NOT IN (SELECT oid FROM over_foreign)
             UNION ALL SELECT 'ANALYZE pg_catalog.pg_class, pg_catalog.pg_attribute', '', ''"
            ),
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not list the tables to analyze", source))?;
    let work = rows
        .iter()
        .filter(|row| {
            let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
            !analyzed.contains(&name)
        })
        .map(|row| copy_in::Work::Run { statement: row.get(0), what: "could not analyze a table".to_owned() })
        .collect();
    copy_in::run(settings, jobs, work, snapshot.manifest.codec, progress).await?;
    // Partitioned tables and inheritance parents have statistics of their own, from all their children; after the
    // children, so that no two sessions analyze one table at once.
    let parents = session
        .query(
            &format!(
                "{OVER_FOREIGN_TABLES}
             SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND NOT c.relispartition
               AND c.oid NOT IN (SELECT oid FROM over_foreign)"
            ),
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not list the tables to analyze", source))?;
    for row in &parents {
        session
            .batch_execute(row.get(0))
            .await
            .map_err(|source| Error::postgres("could not analyze a partitioned table", source))?;
    }
    Ok(())
}

/// Makes durable what was committed until now: sessions that loaded rows and built indexes did not wait for the disk. The
/// log is written in its order, so a commit that waits makes all before it durable as well.
pub(super) async fn flush(session: &Session) -> Result<()> {
    session
        .batch_execute(
            "SET synchronous_commit = on; SELECT pg_catalog.pg_logical_emit_message(true, 'safe-run', 'restored')",
        )
        .await
        .map_err(|source| Error::postgres("could not make the restored rows durable", source))
}
