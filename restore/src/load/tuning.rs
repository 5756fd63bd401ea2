//! What the sessions of a restore are set to. Only what any role may set, and only for these sessions.
//!
//! Not `maintenance_work_mem` and not the number of parallel workers: measured on 7 million rows (PostgreSQL 18), a b-tree
//! cost the server 2.8 CPU seconds with the default 64 MB and 4.4 with 512 MB, a GIN index 12.3 and 16.3, and 10.3 with
//! the default two workers. Sorting and merging in pieces that fit into the processor's cache is faster.

use common::{Error, QualifiedName, Result, postgres::Session};

/// For every session, as `-c name=value`.
///
/// A crash of the server loses the last commits, and the new database with them: what was restored is flushed before that
/// is called done. Rows that were just written are in memory, so that reading by an index costs no more than reading in
/// order.
pub const SESSION: &str = "-c synchronous_commit=off -c random_page_cost=1.1 -c jit=off";

/// Whether PostgreSQL can check a foreign key of this column by walking along two indexes side by side, without a look at
/// the tables: then it should. It prefers a hash table, which took 2.3 CPU seconds where the walk took 0.6.
pub async fn indexes_are_enough(
    session: &Session,
    table: &QualifiedName,
    column: &str,
    other: &QualifiedName,
) -> Result<bool> {
    let row = session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i
                            JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                            JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'btree'
                            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                            WHERE i.indrelid = $1::text::regclass AND a.attname = $2::text::name AND i.indisvalid
                              AND i.indpred IS NULL)
                    AND (SELECT pg_catalog.bool_and(relallvisible >= relpages * 0.95) FROM pg_catalog.pg_class
                         WHERE oid IN ($1::text::regclass, $3::text::regclass))",
            &[&table.to_string(), &column, &other.to_string()],
        )
        .await
        .map_err(|source| Error::postgres(format!("could not look at the indexes of {}", table.short()), source))?;
    Ok(row.get(0))
}
