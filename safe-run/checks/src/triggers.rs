//! What guards the data and is switched off: triggers, rules, event triggers, row level security.
//!
//! A disabled *internal* trigger means a foreign key that claims to hold and is not enforced. What was off before the
//! migration is told apart by the baseline, so this looks at one state only.

use common::error::Result;
use common::ident::{Ident, QualifiedName, printable};

use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey, Severity};
use super::session::{CheckSession, flag, number, text};

/// Triggers that do not fire in an ordinary session: table (oid, schema, name), trigger oid, name, state, internal,
/// and the constraint that an internal one enforces.
///
/// A partition's copy is left out when the copied trigger is off too: one finding, not one for each partition.
const TRIGGERS: &str = r"
SELECT t.tgrelid, n.nspname, c.relname, t.oid, t.tgname, t.tgenabled::text, t.tgisinternal, co.oid, co.conname
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_constraint co ON co.oid = t.tgconstraint
WHERE t.tgenabled IN ('D', 'R') AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_trigger p WHERE p.oid = t.tgparentid AND p.tgenabled = t.tgenabled)
ORDER BY n.nspname, c.relname, t.tgname";

/// Rules that do not act: table (oid, schema, name), rule oid, name, state.
const RULES: &str = r"
SELECT r.ev_class, n.nspname, c.relname, r.oid, r.rulename, r.ev_enabled::text
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_enabled IN ('D', 'R')
ORDER BY n.nspname, c.relname, r.rulename";

/// Event triggers that do not fire: oid, name, state.
const EVENT_TRIGGERS: &str = "SELECT oid, evtname, evtenabled::text FROM pg_event_trigger WHERE evtenabled IN ('D', 'R') ORDER BY evtname";

/// Tables that have policies and do not apply them: oid, schema, name, number of policies.
const POLICIES_NOT_APPLIED: &str = r"
SELECT c.oid, n.nspname, c.relname, count(*)
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT c.relrowsecurity
GROUP BY c.oid, n.nspname, c.relname ORDER BY n.nspname, c.relname";

/// Everything that is switched off.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.catalog(CheckKind::Triggers, TRIGGERS).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let (trigger, state) = (text(&row, 4), text(&row, 5));
        let (constraint_oid, constraint): (u32, _) = (number(&row, 7), text(&row, 8));
        // Up to 14 a partition's copy of a user's trigger is marked internal as well; it enforces no constraint.
        let internal = flag(&row, 6) && constraint_oid != 0;
        let off = off(&state);
        // The two or four triggers of one constraint on one table are one finding.
        let key = if internal {
            key(number(&row, 0), constraint_oid, constraint.clone())
        } else {
            key(number(&row, 0), number(&row, 3), trigger.clone())
        };
        let detail = if internal {
            format!(
                "constraint {} is not enforced on {}: its internal trigger {off}",
                printable(&constraint),
                table.short()
            )
        } else {
            format!("trigger {} of {} {off}", printable(&trigger), table.short())
        };
        if findings.iter().any(|known: &Finding| known.key == key) {
            continue;
        }
        let mut finding = Finding::state(key, table.short(), &state, detail);
        finding.repair_sql = Some(if internal {
            format!("ALTER TABLE {table} ENABLE TRIGGER ALL;")
        } else {
            format!("ALTER TABLE {table} ENABLE TRIGGER {};", Ident::new(trigger))
        });
        findings.push(finding);
    }
    for row in session.catalog(CheckKind::Triggers, RULES).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let (rule, state) = (text(&row, 4), text(&row, 5));
        let detail = format!("rule {} of {} {}", printable(&rule), table.short(), off(&state));
        let mut finding = Finding::state(
            key(number(&row, 0), number(&row, 3), rule.clone()),
            table.short(),
            &state,
            detail,
        );
        finding.repair_sql = Some(format!("ALTER TABLE {table} ENABLE RULE {};", Ident::new(rule)));
        findings.push(finding);
    }
    for row in session.catalog(CheckKind::Triggers, EVENT_TRIGGERS).await? {
        let (name, state) = (text(&row, 1), text(&row, 2));
        let detail = format!("event trigger {} {}", printable(&name), off(&state));
        let mut finding = Finding::state(
            key(number(&row, 0), number(&row, 0), name.clone()),
            printable(&name),
            &state,
            detail,
        );
        finding.repair_sql = Some(format!("ALTER EVENT TRIGGER {} ENABLE;", Ident::new(name)));
        findings.push(finding);
    }
    for row in session.catalog(CheckKind::Triggers, POLICIES_NOT_APPLIED).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let policies: i64 = number(&row, 3);
        let noun = if policies == 1 { "policy is" } else { "policies are" };
        let detail =
            format!("row level security of {} is off: its {policies} {noun} not applied", table.short());
        let mut finding = Finding::state(
            key(number(&row, 0), 0, "row level security".to_owned()),
            table.short(),
            "",
            detail,
        );
        finding.severity = Severity::Failure;
        finding.repair_sql = Some(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"));
        findings.push(finding);
    }
    Ok(findings)
}

fn key(object_oid: u32, rule_oid: u32, rule: String) -> RuleKey {
    RuleKey { check: CheckKind::Triggers, object_oid, rule_oid, rule }
}

fn off(state: &str) -> &'static str {
    if state == "R" { "fires only on replicas" } else { "is disabled" }
}
