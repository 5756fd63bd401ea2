//! Indexes that a fault of earlier minor releases may have left wrong, on a server that has it mended: a fix mends no index
//! that was made before. Notes only, with the SQL; a restore builds them anew, a clone carries them along.
//!
//! Source: the release notes of 2026-11-12 (`common::postgres::known_fixes`). When an index was made, nobody knows; of a TOAST
//! index it shows that REINDEX CONCURRENTLY made it, because its oid is far from its table's.

use common::{
    error::Result,
    fault,
    ident::{QualifiedName, printable},
    postgres::known_fixes::Fix,
};

use super::{
    catalogue::CheckKind,
    model::{Finding, RuleKey, Severity},
    session::{CheckSession, number, text},
};

const VERSION: &str = "SELECT current_setting('server_version_num')::int";

/// Table (oid, schema, name), index (oid, schema, name), why.
const MAYBE_WRONG: &str = r"
SELECT i.indrelid, n.nspname, t.relname, i.indexrelid, xn.nspname, x.relname,
  CASE
    WHEN t.relkind = 't' THEN 'a TOAST index that REINDEX CONCURRENTLY made'
    WHEN am.amname = 'gin' THEN 'a GIN index, which a vacuum of many rows may have damaged'
    WHEN bool_or(opc.opcname = 'gist_trgm_ops') THEN 'an index with gist_trgm_ops'
    ELSE 'a B-tree on bpchar without a length'
  END
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace JOIN pg_am am ON am.oid = x.relam
JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
CROSS JOIN LATERAL unnest(i.indclass::oid[]) WITH ORDINALITY k(opclass, position)
JOIN pg_opclass opc ON opc.oid = k.opclass
JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum = k.position
WHERE i.indrelid >= 16384 AND x.relkind = 'i' AND x.relpersistence <> 't' AND n.nspname <> 'information_schema'
  AND (am.amname = 'gin' OR opc.opcname = 'gist_trgm_ops'
       OR am.amname = 'btree' AND a.atttypid = 'bpchar'::regtype AND a.atttypmod = -1
       OR t.relkind = 't' AND i.indexrelid::bigint NOT BETWEEN i.indrelid::bigint AND i.indrelid::bigint + 100)
GROUP BY i.indrelid, n.nspname, t.relname, t.relkind, i.indexrelid, xn.nspname, x.relname, am.amname
ORDER BY n.nspname, t.relname, x.relname";

/// One note for each such index.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let version = session.catalog(CheckKind::Advice, VERSION).await?;
    let number_of = |row| {
        fault::number("safe-run.server_version")
            .and_then(|it| i32::try_from(it).ok())
            .unwrap_or_else(|| number(row, 0))
    };
    if !version.first().is_some_and(|row| Fix::WrongIndexes.is_in(number_of(row))) {
        return Ok(Vec::new());
    }
    let rows = session.catalog(CheckKind::Advice, MAYBE_WRONG).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = QualifiedName::new(text(row, 1), text(row, 2));
            let index = QualifiedName::new(text(row, 4), text(row, 5));
            let detail = format!(
                "index {} of {} is {}: if a minor release from before November 2026 made it, it may be wrong",
                index.short(),
                table.short(),
                text(row, 6)
            );
            let key = RuleKey {
                check: CheckKind::Advice,
                object_oid: number(row, 0),
                rule_oid: number(row, 3),
                rule: format!("made before a fix {}", text(row, 5)),
            };
            let mut finding = Finding::state(key, table.short(), "made before a fix", printable(&detail));
            finding.severity = Severity::Note;
            finding.repair_sql = Some(format!("REINDEX INDEX CONCURRENTLY {index};"));
            finding
        })
        .collect())
}
