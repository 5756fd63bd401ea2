//! Published tables without a usable replica identity: the publication is accepted, and the next UPDATE or DELETE of
//! such a table fails.

use common::error::Result;
use common::ident::{QualifiedName, printable};

use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey};
use super::session::{CheckSession, flag, number, text};

/// Tables whose UPDATE or DELETE is published and will be refused: table (oid, schema, name), publications, whether
/// UPDATE and DELETE are published.
///
/// As in `CheckCmdReplicaIdentity`: partitions count and not their root, a deferrable or invalid key is not usable.
const WITHOUT_IDENTITY: &str = r"
SELECT l.oid, ln.nspname, l.relname, string_agg(DISTINCT p.pubname, ', '), bool_or(p.pubupdate), bool_or(p.pubdelete)
FROM pg_publication p
JOIN pg_publication_tables pt ON pt.pubname = p.pubname
JOIN pg_namespace n ON n.nspname = pt.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = pt.tablename
CROSS JOIN LATERAL (SELECT c.oid UNION SELECT t.relid::oid FROM pg_partition_tree(c.oid) t WHERE t.isleaf) x(oid)
JOIN pg_class l ON l.oid = x.oid JOIN pg_namespace ln ON ln.oid = l.relnamespace
WHERE (p.pubupdate OR p.pubdelete) AND l.relkind = 'r' AND l.relpersistence = 'p' AND l.relreplident <> 'f'
  AND NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = l.oid AND i.indisvalid AND i.indimmediate
      AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
GROUP BY l.oid, ln.nspname, l.relname ORDER BY ln.nspname, l.relname";

/// Every such table.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let rows = session.catalog(CheckKind::ReplicaIdentity, WITHOUT_IDENTITY).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = QualifiedName::new(text(row, 1), text(row, 2));
            let verbs = match (flag(row, 4), flag(row, 5)) {
                (true, true) => "UPDATE and DELETE",
                (true, false) => "UPDATE",
                _ => "DELETE",
            };
            let detail = format!(
                "{} is published ({}) without a usable replica identity: its {verbs} will fail",
                table.short(),
                printable(&text(row, 3))
            );
            let key = RuleKey {
                check: CheckKind::ReplicaIdentity,
                object_oid: number(row, 0),
                rule_oid: 0,
                rule: "replica identity".to_owned(),
            };
            let mut finding = Finding::state(key, table.short(), verbs, detail);
            finding.repair_sql =
                Some(format!("ALTER TABLE {table} REPLICA IDENTITY FULL; -- or give it a primary key"));
            finding
        })
        .collect())
}
