//! Partitions that are not what their tree says: rows in the wrong one, a DETACH CONCURRENTLY that was not finished, an
//! index that only the siblings have, a default partition that takes rows nobody made a partition for.
//!
//! The rows are a rule of the table's one scan (`table_scan.rs`); the rest is the catalog.

use std::collections::BTreeMap;

use common::{
    error::Result,
    ident::{QualifiedName, printable},
    postgres::who_asks::Standings,
};

use crate::{
    catalogue::CheckKind,
    model::{CheckResults, Finding, RuleKey, Severity, Skipped, TableFacts},
    question::Question,
    rule::{Repair, Rule},
    session::{CheckSession, TextRow, number, text},
    violations::thousands,
};

/// Partitions that are being detached: partition (oid, schema, name), parent (schema, name).
const DETACHING: &str = r"
SELECT c.oid, n.nspname, c.relname, pn.nspname, p.relname
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE i.inhdetachpending ORDER BY n.nspname, c.relname";

/// Indexes that at least 80 % of the siblings have, and at least two of them: partition (oid, schema, name), the
/// index's columns and kind, and an example on a sibling.
///
/// Columns are compared as they are written, because their numbers differ between partitions.
const WITHOUT_SIBLINGS_INDEX: &str = r"
WITH leaves AS (
  SELECT i.inhparent AS parent, c.oid, n.nspname, c.relname, count(*) OVER (PARTITION BY i.inhparent) AS siblings
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relispartition AND c.relkind = 'r'),
 indexes AS (
  SELECT l.parent, l.oid,
    format('%s%s (%s)%s', CASE WHEN i.indisunique THEN 'unique ' ELSE '' END, am.amname,
      (SELECT string_agg(pg_get_indexdef(i.indexrelid, k, true), ', ' ORDER BY k)
       FROM generate_series(1, i.indnatts) k), ' WHERE ' || pg_get_expr(i.indpred, i.indrelid)) AS shape,
    x.relname AS index
  FROM leaves l JOIN pg_index i ON i.indrelid = l.oid AND i.indisvalid
  JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am am ON am.oid = x.relam),
 usual AS (
  SELECT parent, shape, count(DISTINCT oid) AS having, min(index::text) AS example FROM indexes GROUP BY parent, shape)
SELECT l.oid, l.nspname, l.relname, u.shape, u.example
FROM leaves l JOIN usual u ON u.parent = l.parent
WHERE u.having >= 2 AND u.having >= (l.siblings - 1) * 0.8
  AND NOT EXISTS (SELECT FROM indexes x WHERE x.oid = l.oid AND x.shape = u.shape)
ORDER BY l.nspname, l.relname, u.shape";

/// The constraint of every partition of `$leaves` that has rows: oid, expression, root (schema, name), and the columns that an
/// INSERT can name.
///
/// To say what a partition's constraint is, the server evaluates what is constant in the keys of its tree.
fn constraints(leaves: &[u32]) -> String {
    let leaves: Vec<String> = leaves.iter().map(u32::to_string).collect();
    format!(
        r"
SELECT c.oid, pg_get_partition_constraintdef(c.oid), rn.nspname, r.relname,
  (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
FROM pg_class c CROSS JOIN LATERAL (SELECT pg_partition_root(c.oid) AS oid) root
JOIN pg_class r ON r.oid = root.oid JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE c.oid = ANY ('{{{}}}') AND c.relispartition AND c.relkind = 'r' AND pg_get_partition_constraintdef(c.oid) IS NOT NULL
ORDER BY c.oid",
        leaves.join(",")
    )
}

/// A rule for every leaf: its rows satisfy its bound and those above it; and the leaves that could not be asked about.
pub(super) async fn rules(
    session: &CheckSession<'_>,
    standings: &Standings,
    tables: &BTreeMap<u32, TableFacts>,
) -> Result<(Vec<(u32, Rule)>, Vec<Skipped>)> {
    let leaves = tables.iter().filter(|(_, facts)| facts.root.is_some() && facts.kind == 'r');
    let (mut rules, mut skipped) = (Vec::new(), Vec::new());
    for (rights, leaves) in standings.grouped(leaves.map(|(oid, _)| *oid)) {
        match session.ask(0, &Question::of(&rights, constraints(&leaves))).await? {
            Ok(rows) => rules.extend(rows.iter().map(|row| (number(row, 0), rule(row)))),
            Err(refused) => {
                skipped.extend(leaves.iter().filter_map(|leaf| tables.get(leaf)).map(|facts| Skipped {
                    check: CheckKind::Partitions,
                    object: facts.name.short(),
                    why: refused.message.clone(),
                    counts_for_strict: true,
                }));
            }
        }
    }
    Ok((rules, skipped))
}

fn rule(row: &TextRow) -> Rule {
    let expression = text(row, 1);
    Rule {
        key: key(number(row, 0), "bound"),
        severity: Severity::Failure,
        label: "bound".to_owned(),
        violated: format!("NOT ({expression})"),
        definition: expression,
        volatile: false,
        repair: Repair::Reinsert(QualifiedName::new(text(row, 2), text(row, 3)), text(row, 4)),
    }
}

/// What the catalog alone shows.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.catalog(CheckKind::Partitions, DETACHING).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let parent = QualifiedName::new(text(&row, 3), text(&row, 4));
        let detail = format!(
            "partition {} is half detached from {}: queries no longer see its rows there, and it is not free either",
            table.short(),
            parent.short()
        );
        let mut finding = Finding::state(key(number(&row, 0), "detach"), table.short(), "pending", detail);
        finding.repair_sql = Some(format!("ALTER TABLE {parent} DETACH PARTITION {table} FINALIZE;"));
        findings.push(finding);
    }
    for row in session.catalog(CheckKind::Partitions, WITHOUT_SIBLINGS_INDEX).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let shape = text(&row, 3);
        let detail = format!(
            "partition {} has no index {}, which its siblings have (such as {})",
            table.short(),
            printable(&shape),
            printable(&text(&row, 4))
        );
        let mut note = Finding::state(key(number(&row, 0), &shape), table.short(), "no index", detail);
        note.severity = Severity::Note;
        findings.push(note);
    }
    Ok(findings)
}

/// Default partitions that have more rows than before.
pub(super) fn grown_defaults(before: &CheckResults, after: &CheckResults) -> Vec<Finding> {
    let by_oid: &BTreeMap<u32, _> = &after.rows;
    by_oid
        .iter()
        .filter_map(|(oid, now)| {
            let facts = after.tables.get(oid).filter(|facts| facts.is_default_partition)?;
            let grown = now.rows - before.rows.get(oid)?.rows;
            let noun = if grown == 1 { "row" } else { "rows" };
            (grown > 0).then(|| {
                let table = facts.name.short();
                let detail = format!(
                    "default partition {table} grew by {} {noun}: no partition was made for them",
                    thousands(grown)
                );
                let mut note = Finding::state(key(*oid, "default"), table, "grown", detail);
                note.severity = Severity::Note;
                note
            })
        })
        .collect()
}

fn key(object_oid: u32, rule: &str) -> RuleKey {
    RuleKey { check: CheckKind::Partitions, object_oid, rule_oid: 0, rule: rule.to_owned() }
}
