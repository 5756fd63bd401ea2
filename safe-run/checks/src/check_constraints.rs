//! CHECK constraints: a rule of the table's one scan for each.
//!
//! NULL passes, as in PostgreSQL. An expression that is not immutable is marked, because its answer may change by itself.

use common::error::Result;

use crate::{
    catalogue::CheckKind,
    model::{RuleKey, Severity},
    rule::{Repair, Rule},
    session::{CheckSession, TextRow, flag, number, text},
};

/// CHECK constraints of tables and partitions: table, constraint, name, expression, enforced, definition, and whether
/// it calls something that is not immutable.
///
/// `pg_get_expr` names columns without their table, so the scan must have no other table and no alias.
const CHECKS: &str = r"
SELECT c.conrelid, c.oid, c.conname, pg_get_expr(c.conbin, c.conrelid),
  COALESCE((to_jsonb(c)->>'conenforced')::boolean, true), pg_get_constraintdef(c.oid),
  EXISTS (SELECT FROM pg_depend d JOIN pg_proc p ON p.oid = d.refobjid
          WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.provolatile <> 'i')
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
WHERE c.contype = 'c' AND c.conrelid <> 0 AND t.relkind = 'r'
ORDER BY c.conrelid, c.conname";

/// A rule for every constraint, with its table.
pub(super) async fn rules(session: &CheckSession<'_>) -> Result<Vec<(u32, Rule)>> {
    let rows = session.catalog(CheckKind::Check, CHECKS).await?;
    Ok(rows.iter().map(|row| (number(row, 0), rule(row))).collect())
}

fn rule(row: &TextRow) -> Rule {
    Rule {
        key: RuleKey {
            check: CheckKind::Check,
            object_oid: number(row, 0),
            rule_oid: number(row, 1),
            rule: text(row, 2),
        },
        definition: text(row, 5),
        severity: if flag(row, 4) { Severity::Failure } else { Severity::Note },
        label: text(row, 2),
        violated: format!("NOT ({})", text(row, 3)),
        volatile: flag(row, 6),
        repair: Repair::Aside,
    }
}
