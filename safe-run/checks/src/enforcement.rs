//! Constraints that were enforced before a run and are not any more (`ALTER CONSTRAINT … NOT ENFORCED`; foreign keys since
//! PostgreSQL 18, CHECKs since 19), in comparison with the state before. One that was made so is no finding.
//!
//! What violates such a constraint counts as if it were still enforced: it was, when the run began.

use common::{
    error::Result,
    ident::{Ident, QualifiedName, printable},
};

use crate::{
    catalogue::CheckKind,
    model::{Finding, RuleKey},
    session::{CheckSession, flag, number, text},
    states::{Constraint, Constraints},
};

/// Constraints of tables that can be either: oid, table (oid, schema, name), name, enforced, foreign key. A partition's copy
/// follows its parent's.
const CONSTRAINTS: &str = r"
SELECT c.oid, c.conrelid, n.nspname, t.relname, c.conname, (to_jsonb(c)->>'conenforced')::boolean, c.contype = 'f'
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE current_setting('server_version_num')::int >= 180000 AND c.contype IN ('c', 'f') AND c.conparentid = 0
  AND (c.contype = 'f' OR c.conislocal) AND t.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY n.nspname, t.relname, c.conname";

/// Reads them; `None` if the server refuses.
pub(super) async fn read(session: &CheckSession<'_>) -> Result<Option<Constraints>> {
    let Some(rows) = session.state(CheckKind::Triggers, CONSTRAINTS).await? else { return Ok(None) };
    let constraint = |row| Constraint {
        oid: number(row, 0),
        table: QualifiedName::new(text(row, 2), text(row, 3)),
        enforced: flag(row, 5),
        foreign_key: flag(row, 6),
    };
    Ok(Some(rows.iter().map(|row| ((number(row, 1), text(row, 4)), constraint(row))).collect()))
}

/// Whether the finding's constraint was enforced before.
pub(super) fn was_enforced(finding: &Finding, before: Option<&Constraints>) -> bool {
    let Some(before) = before else { return false };
    let key = &finding.key;
    if !matches!(key.check, CheckKind::ForeignKeys | CheckKind::Check) {
        return false;
    }
    then(before, key.object_oid, &key.rule, key.rule_oid).is_some_and(|constraint| constraint.enforced)
}

/// The constraint as it was: by its name, or by its oid where it was renamed.
fn then<'a>(before: &'a Constraints, table: u32, name: &str, oid: u32) -> Option<&'a Constraint> {
    before.get(&(table, name.to_owned())).or_else(|| before.values().find(|constraint| constraint.oid == oid))
}

/// What is not enforced any more.
pub(super) fn compare(before: &Constraints, after: &Constraints) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((table, name), now) in after.iter().filter(|(_, now)| !now.enforced) {
        if !then(before, *table, name, now.oid).is_some_and(|then| then.enforced) {
            continue;
        }
        let kind = if now.foreign_key { "foreign key" } else { "CHECK" };
        let detail = format!(
            "{kind} {} of {} was enforced before and is NOT ENFORCED now: rows that violate it are accepted",
            printable(name),
            now.table.short()
        );
        let key = RuleKey {
            check: CheckKind::Triggers,
            object_oid: *table,
            rule_oid: now.oid,
            rule: format!("enforcement of {name}"),
        };
        let mut finding = Finding::state(key, now.table.short(), "not enforced", detail);
        finding.repair_sql = Some(format!(
            "ALTER TABLE {} ALTER CONSTRAINT {} ENFORCED;",
            now.table,
            Ident::new(name.as_str())
        ));
        findings.push(finding);
    }
    findings
}
