//! Which tables the current transaction has not touched: a proof from counters, without reading a row.
//!
//! Valid inside one transaction that holds a fence over the tables, so that nobody else wrote meanwhile. In doubt a
//! table counts as touched.

use std::collections::{BTreeMap, HashSet};

use common::error::{Error, Result};
use common::postgres::Client;

use super::catalogue::CheckKind;
use super::model::{CheckResults, Skipped, TableFacts};

/// Rows that this session wrote, by table, and has not yet reported to the statistics.
///
/// Reporting happens between transactions and at most once a second, so the counters may still hold rows of the
/// transaction before: only a difference between two readings proves something. Within one transaction nothing is
/// reported, and work of a subtransaction that was rolled back stays counted.
const WRITTEN: &str = "SELECT t.relid, w.rows FROM pg_catalog.pg_stat_xact_all_tables t,
  LATERAL (SELECT t.n_tup_ins OPERATOR(pg_catalog.+) t.n_tup_upd OPERATOR(pg_catalog.+) t.n_tup_del OPERATOR(pg_catalog.+) t.n_tup_hot_upd) w(rows)
WHERE w.rows OPERATOR(pg_catalog.<>) 0";

/// What was tried when one of these queries fails.
const DOING: &str = "could not read which tables were changed";

/// The file of every heap. TRUNCATE and rewrites give a new one and are not counted as writes.
const FILES: &str = "SELECT c.oid, COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0::pg_catalog.oid)
FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::pg_catalog.\"char\"[])";

/// What the session had written when it was asked; see [`write_counters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteCounters(BTreeMap<u32, i64>);

/// Reads the session's counters: once inside the transaction before the migration, for [`touched_tables`] after it.
///
/// `None` means that `track_counts` is off, so there is no proof. Only a superuser can turn it off; a migration that
/// turns it off and on again must not be trusted with this.
pub async fn write_counters(client: &Client) -> Result<Option<WriteCounters>> {
    let tracks: String = client
        .query_one("SELECT pg_catalog.current_setting('track_counts')", &[])
        .await
        .map_err(|error| Error::postgres(DOING, error))?
        .get(0);
    if tracks != "on" {
        return Ok(None);
    }
    let rows = client.query(WRITTEN, &[]).await.map_err(|error| Error::postgres(DOING, error))?;
    Ok(Some(WriteCounters(rows.iter().map(|row| (row.get(0), row.get(1))).collect())))
}

/// The tables that may have been changed since `start` was read and `before` was listed, new ones included.
///
/// `None` means that there is no proof, so every table has to be read.
pub async fn touched_tables(
    client: &Client,
    start: &WriteCounters,
    before: &BTreeMap<u32, TableFacts>,
) -> Result<Option<HashSet<u32>>> {
    let Some(now) = write_counters(client).await? else { return Ok(None) };
    // TRUNCATE can take rows off a counter, so any difference counts, in both directions.
    let differs = |table: &&u32| start.0.get(*table) != now.0.get(*table);
    let mut touched: HashSet<u32> = start.0.keys().chain(now.0.keys()).filter(differs).copied().collect();
    for row in client.query(FILES, &[]).await.map_err(|error| Error::postgres(DOING, error))? {
        let (table, file): (u32, u32) = (row.get(0), row.get(1));
        if before.get(&table).is_none_or(|facts| facts.relfilenode != file) {
            touched.insert(table);
        }
    }
    Ok(Some(touched))
}

/// The tables of `before` that are not in `touched`: what [`super::Options::untouched`] wants.
pub fn untouched(before: &BTreeMap<u32, TableFacts>, touched: &HashSet<u32>) -> HashSet<u32> {
    before
        .iter()
        .filter(|(oid, facts)| facts.kind != 'p' && !touched.contains(oid))
        .map(|(oid, _)| *oid)
        .collect()
}

/// One line that says what was not read.
pub(super) fn skipped(results: &CheckResults) -> Option<Skipped> {
    let untouched = results.untouched.len();
    (untouched > 0).then(|| Skipped {
        check: CheckKind::Rows,
        object: match untouched {
            1 => "1 table".to_owned(),
            many => format!("{many} tables"),
        },
        why: "proven untouched by this run, so their content was not read again".to_owned(),
        counts_for_strict: false,
    })
}
