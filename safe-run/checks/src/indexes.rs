//! Indexes that exist but do not work.
//!
//! `CREATE INDEX CONCURRENTLY IF NOT EXISTS` "succeeds" on the invalid shell that an earlier failure left behind: only
//! the catalog tells. Indexes that another session builds right now are left alone.

use common::error::Result;
use common::ident::{QualifiedName, printable};

use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey, Severity};
use super::session::{CheckSession, flag, number, text};

/// Invalid indexes: table (oid, schema, name), index (oid, schema, name), valid, ready, live, unique, kind of index,
/// and whether it is what an interrupted REINDEX CONCURRENTLY leaves.
const INVALID_INDEXES: &str = r"
SELECT t.oid, tn.nspname, t.relname, i.indexrelid, xn.nspname, x.relname,
  i.indisvalid, i.indisready, i.indislive, i.indisunique, x.relkind::text, x.relname ~ '_cc(new|old)\d*$'
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace
JOIN pg_class t ON t.oid = i.indrelid   JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
  AND t.relpersistence <> 't' AND tn.nspname <> 'pg_catalog'
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
ORDER BY tn.nspname, t.relname, x.relname";

/// Every index that does not work.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let rows = session.catalog(CheckKind::Indexes, INVALID_INDEXES).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = QualifiedName::new(text(row, 1), text(row, 2));
            let index = QualifiedName::new(text(row, 4), text(row, 5));
            let (unique, partitioned, leftover) = (flag(row, 9), text(row, 10) == "I", flag(row, 11));
            let key = RuleKey {
                check: CheckKind::Indexes,
                object_oid: number(row, 0),
                rule_oid: number(row, 3),
                rule: text(row, 5),
            };
            let kind = if unique { "unique index" } else { "index" };
            let detail = if partitioned {
                format!(
                    "{kind} {} of {} is not complete: not every partition has its part",
                    index.short(),
                    table.short()
                )
            } else if leftover {
                format!(
                    "{kind} {} of {} is invalid: left behind by an interrupted REINDEX CONCURRENTLY",
                    index.short(),
                    table.short()
                )
            } else if unique {
                format!(
                    "unique index {} of {} is invalid: it proves nothing about its rows",
                    index.short(),
                    table.short()
                )
            } else {
                format!("index {} of {} is invalid: no query uses it", index.short(), table.short())
            };
            let state = format!("{}{}{}", text(row, 6), text(row, 7), text(row, 8));
            let mut finding = Finding::state(key, table.short(), &state, printable(&detail));
            if partitioned {
                finding.severity = Severity::Note;
            } else {
                finding.repair_sql = Some(if leftover {
                    format!("DROP INDEX CONCURRENTLY {index};")
                } else {
                    format!("REINDEX INDEX CONCURRENTLY {index};")
                });
            }
            finding
        })
        .collect())
}
