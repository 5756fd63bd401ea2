//! Which tables the current transaction has not touched: a proof from counters, without reading a row.
//!
//! Valid inside one transaction that holds a fence over the tables, so that nobody else wrote meanwhile. In doubt a
//! table counts as touched.

use std::collections::{BTreeMap, HashSet};

use common::error::{Error, Result};
use common::postgres::Client;

use super::model::{CheckKind, CheckResults, Skipped, TableFacts};

/// Oids of the tables that this transaction wrote rows of. Subtransactions that were rolled back count too.
///
/// The counters are the session's own and live until the transaction ends; they are exact while `track_counts` is on.
const WRITTEN: &str = "SELECT relid::oid FROM pg_catalog.pg_stat_xact_all_tables
WHERE n_tup_ins + n_tup_upd + n_tup_del + n_tup_hot_upd <> 0";

/// The file of every heap. TRUNCATE and rewrites give a new one and are not counted as writes.
const FILES: &str = "SELECT c.oid, COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0)::oid
FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'm')";

/// Of the tables of `before` and those that are new since, the ones that may have been changed.
///
/// `None` means that there is no proof: `track_counts` is off now, so every table has to be read. Whether it was off
/// for a part of the transaction cannot be told; a migration that sets it must not be trusted with this.
pub async fn touched_tables(
    client: &Client,
    before: &BTreeMap<u32, TableFacts>,
) -> Result<Option<HashSet<u32>>> {
    let failed = |error| Error::postgres("could not read which tables were changed", error);
    let tracks: String = client
        .query_one("SELECT pg_catalog.current_setting('track_counts')", &[])
        .await
        .map_err(failed)?
        .get(0);
    if tracks != "on" {
        return Ok(None);
    }
    let mut touched: HashSet<u32> =
        client.query(WRITTEN, &[]).await.map_err(failed)?.iter().map(|row| row.get(0)).collect();
    for row in client.query(FILES, &[]).await.map_err(failed)? {
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
