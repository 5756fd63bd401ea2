//! Reads the histories of other tools, with nothing of the database's own code: plain tables are copied out, with no condition and no
//! plan, in columns of built-in types. What can't be read is left out, and decides nothing.
//!
//! COPY evaluates no view, policy, index or rule, and the output functions of built-in types are PostgreSQL's. A table that becomes a
//! view meanwhile is refused by the server.

use std::collections::BTreeMap;

use common::{
    Error, Result,
    ident::{Ident, QualifiedName},
    postgres::{Session, copy},
};
use futures_util::future::join_all;

use common::migration_tools::{Known, TOOLS};

/// Most tables that are looked into. Histories come first, then narrow tables.
const MAX_TABLES: i64 = 100;

/// Largest table that is looked into without being known as a history, in bytes.
const MAX_BYTES: i64 = 1 << 20;

/// Largest history, in bytes of rows: statements and scripts beside the versions lie out of line, mostly.
const MAX_HISTORY_BYTES: i64 = 256 << 20;

/// Longest that the look may wait for a lock, and take.
const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10s'";

/// What a history is called, by those who gave it a name of their own.
const HISTORY_NAMES: &str = "migration|schema_?(version|history|change|patch|info)|(db|database)_?(version|history|change|patch)|\
                             evolution|flyway|goose|sqlx|sqitch|liquibase|refinery|dbmate";

/// Plain tables that we may read, the likely ones first: schema, name, columns of words and numbers in order, of types of
/// PostgreSQL's own, in all,
/// size (-1: not known to the catalog), whether the name is like a history's.
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text, a.words, a.plain, a.names, c.size, c.named
FROM (
  SELECT c.oid, c.relname, c.relnamespace, c.relnatts,
         CASE WHEN c.relpages = 0 THEN -1
              ELSE c.relpages::int8 * pg_catalog.current_setting('block_size')::int8 END AS size,
         (c.relname = ANY ($1) OR c.relname::text ~* $2) AS named
  FROM pg_catalog.pg_class c
  WHERE c.relkind = 'r' AND c.relpersistence <> 't'
) c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) AS names,
         pg_catalog.array_agg(a.attname::text ORDER BY a.attnum)
           FILTER (WHERE a.atttypid IN (19, 20, 21, 23, 25, 1042, 1043, 1700)) AS words,
         pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.atttypid < 16384) AS plain
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) a
WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'safe_run')
  AND (c.named OR c.relnatts <= 20 AND c.size <= $3) AND a.words IS NOT NULL
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  AND NOT pg_catalog.row_security_active(c.oid)
ORDER BY c.named DESC, c.relnatts, c.size, 1, 2 LIMIT $4";

/// A table to look into.
pub(crate) struct Candidate {
    pub table: QualifiedName,
    /// All of its columns.
    pub columns: Vec<String>,
    /// Those of words and numbers.
    pub words: Vec<String>,
    /// Those of types of PostgreSQL's own.
    pub plain: Vec<String>,
    size: i64,
    /// Whose it is, where its name or its columns tell.
    pub tool: Option<&'static Known>,
    /// It is called like a history.
    pub named: bool,
}

fn failed(source: common::postgres::DriverError) -> Error {
    Error::postgres("could not look for the histories of other tools", source)
}

/// The tables to look into.
///
/// # Errors
/// The connection's own.
pub(crate) async fn candidates(session: &Session) -> Result<Vec<Candidate>> {
    let names: Vec<&str> = TOOLS.iter().map(|known| known.table).collect();
    let rows =
        session.query(TABLES, &[&names, &HISTORY_NAMES, &MAX_BYTES, &MAX_TABLES]).await.map_err(failed)?;
    let candidate = |row: &common::postgres::Row| {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let columns: Vec<String> = row.get(4);
        let has = |wanted: &&str| columns.iter().any(|column| column == wanted);
        let fits = |known: &&Known| known.columns.iter().all(&has);
        // Two columns alone stand in many tables, and no tool's table is wide.
        let by_columns = |known: &&Known| {
            let tells = known.columns.len() > 2 || known.columns.len() == columns.len();
            known.by_columns && columns.len() <= 16 && tells && fits(known)
        };
        let named = TOOLS.iter().filter(|known| known.table == name).find(fits);
        let tool = named.or_else(|| TOOLS.iter().find(by_columns));
        Candidate {
            table: QualifiedName::new(schema, name),
            columns,
            words: row.get(2),
            plain: row.get(3),
            size: row.get(5),
            tool,
            named: row.get(6),
        }
    };
    small(session, rows.iter().map(candidate).collect()).await
}

/// Those that are not too large. A table that was never analyzed has no size in the catalog.
async fn small(session: &Session, candidates: Vec<Candidate>) -> Result<Vec<Candidate>> {
    let limit = |candidate: &Candidate| {
        if candidate.tool.is_some() || candidate.named { MAX_HISTORY_BYTES } else { MAX_BYTES }
    };
    let unknown: Vec<String> = candidates
        .iter()
        .filter(|candidate| candidate.size < 0)
        .map(|candidate| candidate.table.to_string())
        .collect();
    let mut sizes = BTreeMap::new();
    if !unknown.is_empty() {
        // Whoever has the table locked for long is changing it: it is left out then.
        let asked = async {
            session.batch_execute(&format!("BEGIN READ ONLY; {LIMITS}")).await?;
            session
                .query(
                    "SELECT name, pg_catalog.pg_relation_size(pg_catalog.to_regclass(name)) FROM pg_catalog.unnest($1::text[]) name",
                    &[&unknown],
                )
                .await
        };
        let asked = asked.await;
        session.batch_execute("ROLLBACK").await.map_err(failed)?;
        for row in asked.unwrap_or_default() {
            sizes.insert(row.get::<_, String>(0), row.get::<_, Option<i64>>(1).unwrap_or(i64::MAX));
        }
    }
    Ok(candidates
        .into_iter()
        .filter(|candidate| {
            let size = match candidate.size {
                size if size >= 0 => size,
                _ => sizes.get(&candidate.table.to_string()).copied().unwrap_or(i64::MAX),
            };
            size <= limit(candidate)
        })
        .collect())
}

/// What stands in these columns of the tables, as COPY writes it; `None` for one that could not be read.
///
/// # Errors
/// The connection's own.
pub(crate) async fn contents(
    session: &Session,
    wanted: &[(&QualifiedName, &[String])],
) -> Result<Vec<Option<String>>> {
    let copies: Vec<String> = wanted
        .iter()
        .map(|(table, columns)| {
            let columns: Vec<String> =
                columns.iter().map(|column| Ident::new(column.as_str()).to_string()).collect();
            format!("COPY {table} ({}) TO STDOUT", columns.join(", "))
        })
        .collect();
    let begin = format!("BEGIN READ ONLY; {LIMITS}");
    session.batch_execute(&begin).await.map_err(failed)?;
    // Sent behind each other: the way to the server counts, and not the few rows.
    let together = join_all(copies.iter().map(|sql| copy::out_to_memory(session, sql))).await;
    session.batch_execute("ROLLBACK").await.map_err(failed)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut contents = Vec::with_capacity(copies.len());
    for (sql, read) in copies.iter().zip(together) {
        contents.push(match read {
            Ok(bytes) => Some(text(bytes)),
            // The first that can't be read makes the server refuse all that follow.
            Err(_) => {
                session.batch_execute(&begin).await.map_err(failed)?;
                let alone = copy::out_to_memory(session, sql).await;
                session.batch_execute("ROLLBACK").await.map_err(failed)?;
                alone.ok().map(text)
            }
        });
    }
    Ok(contents)
}

/// The rows of a COPY; NULL is `None`. What stands in a version or a name needs no other escape than the backslash.
pub(crate) fn rows(text: &str, columns: usize) -> Vec<Vec<Option<String>>> {
    text.lines()
        .map(|line| {
            let fields = line.split('\t').map(|field| (field != "\\N").then(|| field.replace("\\\\", "\\")));
            fields.take(columns).collect()
        })
        .collect()
}
