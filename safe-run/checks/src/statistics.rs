//! Columns that had the planner's statistics and have none now: `ALTER COLUMN … TYPE` and a table made again drop them.
//!
//! Never fails a run: the run analyzes those columns after it has committed, and says so. Without that the next
//! queries may be planned as if the table were empty.

use common::{
    error::Result,
    ident::{Ident, QualifiedName, printable},
};
use serde::{Deserialize, Serialize};

use crate::{
    catalogue::CheckKind,
    model::{CheckResults, Finding, RuleKey, Severity},
    session::{CheckSession, flag, number, text},
    states::Statistics,
};

/// Columns with statistics, by table. The view shows only what the role may read.
const WITH_STATISTICS: &str = r"
SELECT c.oid, json_agg(DISTINCT s.attname)
FROM pg_stats s JOIN pg_namespace n ON n.nspname = s.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'p', 'm')
  AND c.relpersistence <> 't'
GROUP BY c.oid";

/// The same of the table behind the view, for whoever may read that: the view asks for the right to each column of the
/// database, PostgreSQL's own included.
const WITH_STATISTICS_OF_ALL: &str = r"
SELECT c.oid, json_agg(DISTINCT a.attname)
FROM pg_statistic s JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum AND NOT a.attisdropped
JOIN pg_class c ON c.oid = s.starelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'p', 'm')
  AND c.relpersistence <> 't'
GROUP BY c.oid";

const MAY_READ_ALL: &str = "SELECT has_table_privilege('pg_catalog.pg_statistic', 'SELECT')";

/// Columns to analyze once the run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostStatistics {
    /// The table.
    pub table: QualifiedName,
    /// Its columns.
    pub columns: Vec<String>,
}

impl LostStatistics {
    /// The statement that gathers them again.
    pub fn analyze_sql(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| Ident::new(column.as_str()).to_string()).collect();
        format!("ANALYZE {} ({})", self.table, columns.join(", "))
    }
}

/// Reads them; `None` if the server refuses.
pub(super) async fn read(session: &CheckSession<'_>) -> Result<Option<Statistics>> {
    let may = session.catalog(CheckKind::Statistics, MAY_READ_ALL).await?;
    let all = may.first().is_some_and(|row| flag(row, 0));
    let query = if all { WITH_STATISTICS_OF_ALL } else { WITH_STATISTICS };
    let Some(rows) = session.state(CheckKind::Statistics, query).await? else { return Ok(None) };
    Ok(Some(
        rows.iter()
            .map(|row| (number(row, 0), serde_json::from_str(&text(row, 1)).unwrap_or_default()))
            .collect(),
    ))
}

/// The columns that lost them. A table that was made again under its name counts.
pub(super) fn lost(before: &CheckResults, after: &CheckResults) -> Vec<(u32, LostStatistics)> {
    let (Some(then), Some(now)) = (&before.states.statistics, &after.states.statistics) else {
        return Vec::new();
    };
    let mut lost = Vec::new();
    for (oid, facts) in &after.tables {
        let old = then.get(oid).or_else(|| {
            let old = before.tables.iter().find(|(old, known)| {
                known.name == facts.name
                    && !after.tables.contains_key(old)
                    && !before.tables.contains_key(oid)
            });
            old.and_then(|(old, _)| then.get(old))
        });
        let Some(old) = old else { continue };
        let known = now.get(oid);
        let columns: Vec<String> = facts
            .columns
            .values()
            .filter(|column| old.contains(*column) && known.is_none_or(|known| !known.contains(*column)))
            .cloned()
            .collect();
        if !columns.is_empty() {
            lost.push((*oid, LostStatistics { table: facts.name.clone(), columns }));
        }
    }
    lost
}

/// The notes about them.
pub(super) fn notes(lost: &[(u32, LostStatistics)]) -> Vec<Finding> {
    lost.iter()
        .map(|(oid, lost)| {
            let table = lost.table.short();
            let columns = printable(&lost.columns.join(", "));
            let noun = if lost.columns.len() == 1 { "column" } else { "columns" };
            let detail = format!("{noun} {columns} of {table} lost the planner's statistics");
            let key = RuleKey {
                check: CheckKind::Statistics,
                object_oid: *oid,
                rule_oid: 0,
                rule: "statistics".to_owned(),
            };
            let mut note = Finding::state(key, table, "lost", detail);
            note.severity = Severity::Note;
            note.repair_sql = Some(format!("{};", lost.analyze_sql()));
            note
        })
        .collect()
}
