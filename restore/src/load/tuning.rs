//! What a session of a restore is set to for one step: an index, an ANALYZE.

use common::{Error, QualifiedName, Result, postgres::Session};

use super::script::Method;

/// Up to this many bytes of COPY text a table is likely to be in memory when it is analyzed.
const IN_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// What comes before an ANALYZE: pages of its sample that lie in memory are not worth asking for ahead, and took half of its
/// CPU time; those on a disk are.
pub fn before_analyze(text_bytes: u64) -> &'static str {
    if text_bytes <= IN_MEMORY_BYTES {
        "SET maintenance_io_concurrency = 0"
    } else {
        "RESET maintenance_io_concurrency"
    }
}

/// A table, as far as the memory for its indexes depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Its rows.
    pub rows: u64,
    /// The bytes of their COPY text.
    pub text_bytes: u64,
}

/// Kilobytes with which an index is built fastest, where that is less than the `server_kb` of `maintenance_work_mem`. It is never
/// more: how much memory there is, only those know who run the server.
///
/// Less than 64 MB also means no parallel workers, of which PostgreSQL wants 32 MB for each process. So this is for a server
/// whose processors all have work: then they only add what it costs to divide the work and to merge it again. Measured on two
/// processors (PostgreSQL 18), a b-tree over 7 million rows cost 2.4 CPU seconds with 16 MB, 2.9 with the default 64 MB
/// and a worker, 3.8 with 256 MB; GIN over 7 million keys 8.5 with 32 MB, 10 with 64 MB and 16 with 512 MB.
pub fn build_memory_kb(method: Method, table: Size, server_kb: u64) -> Option<u64> {
    let best = match method {
        Method::BTree => sort_memory(table).max(MIN_SORT_BYTES),
        Method::Gin => (table.text_bytes / GIN_FILLS).max(MIN_GIN_BYTES),
        // Not measured, or made faster by more.
        Method::Tree | Method::Vector | Method::Other => return None,
    };
    let best_kb = best.div_ceil(1024);
    (best_kb < server_kb).then_some(best_kb)
}

/// A sort in pieces that stay in the processor's caches is faster than one in memory. Below this nothing is won any more.
const MIN_SORT_BYTES: u64 = 16 * 1024 * 1024;

/// What PostgreSQL needs for each piece that it merges: 32 blocks to read ahead, and two for the rest.
const MERGE_BYTES: u64 = 34 * 8192;

/// What a row takes in a sort beside its key: the array's element, the tuple's head, the allocator's.
const SORT_BYTES_PER_ROW: u64 = 64;

/// The least memory with which all pieces of a sort are merged at once: there are (bytes / memory) pieces, and place for
/// (memory / `MERGE_BYTES`). With less, everything would be written and read once more. Taken for the whole rows, of which a
/// key is a part.
fn sort_memory(table: Size) -> u64 {
    let bytes = table.rows.saturating_mul(SORT_BYTES_PER_ROW).saturating_add(table.text_bytes);
    bytes.saturating_mul(MERGE_BYTES).isqrt()
}

/// The tree of keys is walked for every key of every row, and is fast while the caches hold it.
const MIN_GIN_BYTES: u64 = 32 * 1024 * 1024;

/// How often the tree may be filled with what the rows hold, at most: each time it is emptied, that changes pages all over the
/// index, which must not be read and written much more often than that.
const GIN_FILLS: u64 = 8;

/// The server's own `maintenance_work_mem` for this session.
pub async fn maintenance_memory_kb(session: &Session) -> Result<u64> {
    let row = session
        .query_one(
            "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not read maintenance_work_mem", source))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024;
    /// 7 million short rows.
    const LONG: Size = Size { rows: 7_200_000, text_bytes: 206_000_000 };

    #[test]
    fn an_index_gets_what_stays_in_the_caches() {
        for server in [64 * MB, 512 * MB, 4096 * MB] {
            assert_eq!(build_memory_kb(Method::BTree, LONG, server), Some(16 * MB));
            assert_eq!(build_memory_kb(Method::Gin, LONG, server), Some(32 * MB));
            for method in [Method::Tree, Method::Vector, Method::Other] {
                assert_eq!(build_memory_kb(method, LONG, server), None);
            }
        }
    }

    #[test]
    fn it_never_gets_more_than_the_server_gives() {
        let huge = Size { rows: u64::MAX, text_bytes: u64::MAX };
        for (size, server) in [(LONG, MB), (LONG, 16 * MB), (huge, 64 * MB), (huge, 4096 * MB)] {
            assert_eq!(build_memory_kb(Method::BTree, size, server), None, "{size:?} {server}");
            assert_eq!(build_memory_kb(Method::Gin, size, server), None, "{size:?} {server}");
        }
    }

    #[test]
    fn whatever_the_size_one_merge_is_enough() {
        for rows in [1, 1000, 1_000_000, 100_000_000, 10_000_000_000] {
            let table = Size { rows, text_bytes: rows * 50 };
            let memory = build_memory_kb(Method::BTree, table, u64::MAX).unwrap() * 1024;
            let pieces = (rows * (SORT_BYTES_PER_ROW + 50)).div_ceil(memory);
            assert!(
                pieces <= (memory / MERGE_BYTES).max(6) + 1,
                "{rows} rows: {pieces} pieces, {memory} bytes"
            );
        }
    }
}
