//! Which tables there are, and which heaps hold their rows.

use std::collections::BTreeMap;

use common::error::Result;
use common::ident::QualifiedName;

use super::model::TableFacts;
use super::session::{CheckSession, flag, number, text};

/// Ordinary and partitioned tables and materialized views, without the system's and without temporary ones.
///
/// `reltuples` is never used. `pg_relation_size` of a table that another session drops is NULL, hence the COALESCE.
const TABLES: &str = r"
SELECT c.oid, n.nspname, c.relname, c.relkind::text,
  CASE WHEN c.relispartition THEN NULLIF(pg_partition_root(c.oid)::oid, c.oid) END,
  COALESCE(pg_relation_filenode(c.oid), 0), COALESCE(pg_relation_size(c.oid), 0),
  c.relrowsecurity, c.relforcerowsecurity,
  COALESCE((SELECT json_agg(p.polname) FROM pg_policy p WHERE p.polrelid = c.oid), '[]'),
  COALESCE((SELECT json_object_agg(a.attnum, a.attname) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
  EXISTS (SELECT FROM pg_partitioned_table pt WHERE pt.partdefid = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY n.nspname, c.relname";

/// Every table by oid.
pub(super) async fn list(session: &CheckSession<'_>) -> Result<BTreeMap<u32, TableFacts>> {
    let rows = session.required("the list of tables", TABLES).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let root: u32 = number(row, 4);
            let facts = TableFacts {
                name: QualifiedName::new(text(row, 1), text(row, 2)),
                root: (root != 0).then_some(root),
                kind: text(row, 3).chars().next().unwrap_or('r'),
                relfilenode: number(row, 5),
                size_bytes: number(row, 6),
                row_security: flag(row, 7),
                force_row_security: flag(row, 8),
                policies: serde_json::from_str(&text(row, 9)).unwrap_or_default(),
                columns: serde_json::from_str(&text(row, 10)).unwrap_or_default(),
                is_default_partition: flag(row, 11),
            };
            (number(row, 0), facts)
        })
        .collect())
}

/// The heaps that hold the rows of `table`: itself, or every partition of its tree.
pub(super) fn heaps(tables: &BTreeMap<u32, TableFacts>, table: u32) -> Vec<u32> {
    let Some(facts) = tables.get(&table).filter(|facts| facts.kind == 'p') else { return vec![table] };
    let root = facts.root.unwrap_or(table);
    tables
        .iter()
        .filter(|(_, facts)| facts.kind != 'p' && facts.root == Some(root))
        .map(|(oid, _)| *oid)
        .collect()
}

/// Bytes of `heaps` together.
pub(super) fn size(tables: &BTreeMap<u32, TableFacts>, heaps: &[u32]) -> i64 {
    heaps.iter().filter_map(|heap| tables.get(heap)).map(|facts| facts.size_bytes).sum()
}
