//! What workers do in their sessions: load chunks, read rows back, run statements.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{
    Error, Progress, Result,
    catalog::LsnFields,
    interrupt,
    postgres::{ConnectionSettings, Session, copy},
    repository::StoredSnapshot,
    snapshot::{
        Codec, RowHash,
        codec::StoredChunk,
        copy_sql::copy_in_statement,
        manifest::{Chunk, DATA_DIR, LargeObjects},
        readme::large_object_statements,
    },
};
use tokio::task::JoinSet;

use crate::broken_rules;

/// One thing that a worker does in its session.
#[derive(Debug, Clone)]
pub enum Work {
    /// Load a chunk.
    Load {
        /// COPY … FROM STDIN.
        statement: String,
        /// The chunk's file.
        path: PathBuf,
        /// What it must hold.
        expected: StoredChunk,
        /// The table, for messages.
        table: String,
        /// Whether its rows are a table's, and not those of large objects.
        is_table: bool,
    },
    /// Count and hash rows.
    ReadBack {
        /// COPY … TO STDOUT.
        statement: String,
        /// What is compared in the snapshot's form.
        lsn_fields: LsnFields,
        /// The table, for messages.
        table: String,
    },
    /// Ask for one number of rows; below zero, more than there can be.
    Count {
        /// The query.
        statement: String,
        /// The table, for messages.
        table: String,
    },
    /// Run a statement.
    Run {
        /// The statement.
        statement: String,
        /// What it does, for messages.
        what: String,
    },
}

/// Does all of `work` on up to `jobs` sessions; the results of reading back come in the order of `work`.
pub async fn run(
    settings: &ConnectionSettings,
    jobs: usize,
    work: Vec<Work>,
    codec: Codec,
    progress: &Progress,
) -> Result<Vec<(u64, RowHash)>> {
    let count = work.len();
    let work = Arc::new(work);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..jobs.clamp(1, count.max(1)) {
        let session = settings.connect().await?;
        // Losing the last commits in a crash loses nothing: the staged database is dropped then. The swap's own commit
        // is synchronous and makes everything before it durable.
        session
            .batch_execute(crate::sessions::STATEMENT)
            .await
            .map_err(|source| Error::postgres("could not prepare the session", source))?;
        let (work, next, progress) = (work.clone(), next.clone(), progress.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                interrupt::check()?;
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = work.get(index) else { break };
                done.push((index, perform(&session, item, codec, &progress).await?));
            }
            session.close().await?;
            Ok::<_, Error>(done)
        });
    }
    let mut results = Vec::with_capacity(count);
    while let Some(worker) = workers.join_next().await {
        results.extend(worker.map_err(|source| Error::failed(format!("a worker died: {source}")))??);
    }
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

const READS_OTHER_TABLES: &str = "The rows were in a table with this constraint: its function probably reads other tables, or \
                                  the search_path. Make it NOT VALID or a trigger and take a new snapshot, or load this one by \
                                  hand as its README.txt says, and drop the constraint before the rows are loaded.";

pub(crate) async fn perform(
    session: &Session,
    work: &Work,
    codec: Codec,
    progress: &Progress,
) -> Result<(u64, RowHash)> {
    match work {
        Work::Load { statement, path, expected, table, is_table } => {
            let rows = copy::in_from_file(session, statement, path, codec, expected, progress)
                .await
                .map_err(|error| explain(error.context(table)))?;
            if *is_table {
                progress.advance(0, rows);
            }
            if rows == expected.rows {
                Ok((rows, expected.row_hash))
            } else {
                Err(Error::failed(format!(
                    "{table}: the server took {rows} rows instead of {}",
                    expected.rows
                )))
            }
        }
        Work::ReadBack { statement, lsn_fields, table } => {
            copy::hash_rows_of(session, statement, lsn_fields, progress)
                .await
                .map_err(|error| error.context(table))
        }
        Work::Count { statement, table } => {
            let row = session
                .query_one(statement, &[])
                .await
                .map_err(|source| Error::postgres(format!("could not count the rows of {table}"), source))?;
            Ok((u64::try_from(row.get::<_, i64>(0)).unwrap_or(u64::MAX), RowHash::default()))
        }
        Work::Run { statement, what } => {
            session.batch_execute(statement).await.map_err(|source| Error::postgres(what, source))?;
            Ok((0, RowHash::default()))
        }
    }
}

/// A check violation of rows that were in a table with this rule.
fn explain(error: Error) -> Error {
    match error.sqlstate() {
        Some("23514") if broken_rules::is_of_a_bound(&error) => error.with_hint(broken_rules::NO_PARTITION),
        Some("23514") => error.with_hint(READS_OTHER_TABLES),
        _ => error,
    }
}

/// The work of loading every table.
pub fn load_tables(snapshot: &StoredSnapshot) -> Vec<Work> {
    let encoding = &snapshot.manifest.database.encoding;
    snapshot
        .manifest
        .tables
        .iter()
        .flat_map(|table| {
            let statement = copy_in_statement(&table.table, encoding);
            table
                .chunks
                .iter()
                .filter(|chunk| chunk.content.rows > 0)
                .map(move |chunk| load_chunk(snapshot, chunk, statement.clone(), table.table.name.short()))
        })
        .collect()
}

pub(crate) fn load_chunk(snapshot: &StoredSnapshot, chunk: &Chunk, statement: String, table: String) -> Work {
    let is_table = chunk.path.starts_with(DATA_DIR);
    Work::Load {
        statement,
        path: snapshot.path(&chunk.path),
        expected: chunk.content.clone(),
        table,
        is_table,
    }
}

/// A name for a schema of our own that the user's definitions have not: a restore by hand that was given up leaves one.
const FREE_SCHEMA: &str = "
SELECT 'safe_run_restore' || CASE WHEN n > 0 THEN n::pg_catalog.text ELSE '' END AS name FROM pg_catalog.generate_series(0, 1000000) n
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace s
                  WHERE s.nspname = 'safe_run_restore' || CASE WHEN n > 0 THEN n::pg_catalog.text ELSE '' END)
ORDER BY n LIMIT 1";

/// Loads the large objects through two unlogged tables in a schema of our own, which is gone at the end.
pub async fn load_large_objects(
    settings: &ConnectionSettings,
    session: &Session,
    snapshot: &StoredSnapshot,
    objects: &LargeObjects,
    jobs: usize,
    no_owner: bool,
    progress: &Progress,
) -> Result<()> {
    let failed = |source| Error::postgres("could not restore the large objects", source);
    let schema: String = session.query_one(FREE_SCHEMA, &[]).await.map_err(failed)?.get(0);
    session
        .batch_execute(&format!(
            "CREATE SCHEMA {schema};
             CREATE UNLOGGED TABLE {schema}.objects (oid oid, owner text, acl text, comment text);
             CREATE UNLOGGED TABLE {schema}.pages (loid oid, pageno int, data bytea)",
        ))
        .await
        .map_err(failed)?;
    let mut work = vec![load_chunk(
        snapshot,
        &objects.metadata,
        format!("COPY {schema}.objects FROM STDIN"),
        "large objects".to_owned(),
    )];
    work.extend(objects.pages.iter().map(|chunk| {
        load_chunk(
            snapshot,
            chunk,
            format!("COPY {schema}.pages FROM STDIN"),
            "pages of large objects".to_owned(),
        )
    }));
    run(settings, jobs, work, snapshot.manifest.codec, progress).await?;
    let [create, fill, describe] =
        large_object_statements(&format!("{schema}.objects"), &format!("{schema}.pages"));
    let describe = if no_owner { String::new() } else { describe };
    session
        .batch_execute(&format!("BEGIN; {create}; {fill}; {describe}; DROP SCHEMA {schema} CASCADE; COMMIT"))
        .await
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_break_their_own_rule_are_told_with_the_ways_out() {
        let told = |state: &str| explain(Error::failed("t: could not copy rows in").with_sqlstate(state));
        assert_eq!(told("23514").hint(), Some(READS_OTHER_TABLES));
        assert_eq!(told("23505").hint(), None);
    }
}
