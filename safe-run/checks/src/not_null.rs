//! NOT NULL columns: a rule of the table's one scan for each. The heap is asked, because the planner believes the catalog.

use common::{error::Result, ident::Ident};

use crate::{
    catalogue::CheckKind,
    model::{RuleKey, Severity},
    rule::{Repair, Rule},
    session::{CheckSession, TextRow, flag, number, text},
};

/// NOT NULL columns: table, column, and whether nulls are legitimate (18: the constraint is NOT VALID), and whether it
/// has a default.
const NOT_NULLS: &str = r"
SELECT a.attrelid, a.attname,
  EXISTS (SELECT FROM pg_constraint c WHERE c.contype = 'n' AND c.conrelid = a.attrelid
            AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated),
  a.atthasdef AND a.attgenerated = ''
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
WHERE t.relkind = 'r' AND a.attnotnull AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// A rule for every column, with its table.
pub(super) async fn rules(session: &CheckSession<'_>) -> Result<Vec<(u32, Rule)>> {
    let rows = session.catalog(CheckKind::NotNull, NOT_NULLS).await?;
    Ok(rows.iter().map(|row| (number(row, 0), rule(row))).collect())
}

fn rule(row: &TextRow) -> Rule {
    let column = text(row, 1);
    Rule {
        key: RuleKey {
            check: CheckKind::NotNull,
            object_oid: number(row, 0),
            rule_oid: 0,
            rule: column.clone(),
        },
        definition: "NOT NULL".to_owned(),
        severity: if flag(row, 2) { Severity::Note } else { Severity::Failure },
        // Not IS NULL: in a WHERE the planner of 17 and later believes attnotnull and answers false without looking,
        // and a composite value of nothing but nulls IS NULL without violating NOT NULL.
        violated: format!("pg_catalog.num_nulls({}) > 0", Ident::new(column.as_str())),
        label: column,
        volatile: false,
        repair: if flag(row, 3) { Repair::Default } else { Repair::Aside },
    }
}
