//! Values that their column's domain forbids: a rule of the table's one scan for each constraint of each domain.
//!
//! A domain's rules hold when a value is written; what was written before, or past them, nobody looks at again.

use common::{error::Result, ident::Ident};

use crate::{
    catalogue::CheckKind,
    model::{RuleKey, Severity},
    rule::{Repair, Rule},
    session::{CheckSession, TextRow, flag, number, text},
};

/// Columns whose type is a domain, an array of one, or holds one deeper down.
///
/// A domain's expression is deparsed with the unquoted word VALUE, which PostgreSQL reads as a column name: it is
/// evaluated in a subquery with one column `value` of the domain's base type, on every major and without a round trip
/// through text. What lies deeper (composites, domains over arrays of domains) goes through text.
///
/// Columns: table, column, kind (`d` domain, `a` array of a domain, `x` deeper), type, constraint oid, constraint name
/// (`NOT NULL` for a domain that forbids nulls), expression, type to cast the column to, definition, and whether the server
/// can say if a text is a value of a type.
const DOMAINS: &str = r"
WITH RECURSIVE
 columns AS (
  SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, t.typtype, e.oid AS element, e.typtype AS element_type
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
  WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    AND COALESCE(e.typtype, t.typtype) IN ('d', 'c')),
 chain AS (
  SELECT DISTINCT c.atttypid AS start, c.atttypid AS link FROM columns c WHERE c.typtype = 'd'
  UNION SELECT DISTINCT c.element, c.element FROM columns c WHERE c.element_type = 'd'
  UNION SELECT chain.start, t.typbasetype FROM chain JOIN pg_type t ON t.oid = chain.link WHERE t.typtype = 'd'),
 rules AS (
  SELECT chain.start, con.oid, con.conname::text AS name, pg_get_expr(con.conbin, 0) AS expression,
    pg_get_constraintdef(con.oid) AS definition
  FROM chain JOIN pg_constraint con ON con.contypid = chain.link AND con.contype = 'c'
  UNION ALL
  SELECT chain.start, t.oid, 'NOT NULL', 'pg_catalog.num_nulls(VALUE) = 0', 'NOT NULL'
  FROM chain JOIN pg_type t ON t.oid = chain.link WHERE t.typtype = 'd' AND t.typnotnull),
 base AS (
  SELECT chain.start, format_type(t.oid, NULL) AS type FROM chain JOIN pg_type t ON t.oid = chain.link WHERE t.typtype <> 'd'),
 inside AS (
  SELECT DISTINCT t.oid AS start, t.oid AS link, 0 AS depth FROM columns c
  JOIN pg_type t ON t.oid = c.atttypid OR t.oid = c.element
  UNION
  SELECT inside.start, next.oid, inside.depth + 1
  FROM inside JOIN pg_type t ON t.oid = inside.link
  CROSS JOIN LATERAL (
    SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
    UNION SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0
    UNION SELECT f.atttypid FROM pg_attribute f
          WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped) next
  WHERE inside.depth < 16)
SELECT c.attrelid, c.attname, CASE WHEN c.typtype = 'd' THEN 'd' ELSE 'a' END,
  format_type(c.atttypid, c.atttypmod), r.oid, r.name, r.expression, b.type, r.definition, true
FROM columns c
JOIN rules r ON r.start = CASE WHEN c.typtype = 'd' THEN c.atttypid ELSE c.element END
JOIN base b ON b.start = r.start
UNION ALL
SELECT c.attrelid, c.attname, 'x', format_type(c.atttypid, c.atttypmod), c.atttypid, 'type', NULL, NULL, '',
  current_setting('server_version_num')::int >= 160000
FROM columns c
WHERE EXISTS (
  SELECT FROM inside i JOIN pg_type t ON t.oid = i.link
  WHERE i.start IN (c.atttypid, c.element) AND t.typtype = 'd'
    AND NOT EXISTS (SELECT FROM chain WHERE chain.link = t.oid AND chain.start IN (c.atttypid, c.element)))
ORDER BY 1, 2, 3, 6";

/// A rule for every domain constraint of every column, with its table.
pub(super) async fn rules(session: &CheckSession<'_>) -> Result<Vec<(u32, Rule)>> {
    let rows = session.catalog(CheckKind::Domains, DOMAINS).await?;
    Ok(rows.iter().map(|row| (number(row, 0), rule(row))).collect())
}

fn rule(row: &TextRow) -> Rule {
    let column = text(row, 1);
    let quoted = Ident::new(column.as_str());
    let (kind, type_name, expression, base) = (text(row, 2), text(row, 3), text(row, 6), text(row, 7));
    let violated = match kind.as_str() {
        "d" => format!("(SELECT NOT ({expression}) FROM (SELECT {quoted}::{base} AS value) safe_run_domain)"),
        "a" => format!(
            // Not in FROM, where an element of a row type would be spread into its columns.
            "EXISTS (SELECT FROM (SELECT pg_catalog.unnest({quoted})::{base} AS value) safe_run_domain WHERE NOT ({expression}))"
        ),
        _ if flag(row, 9) => format!(
            "NOT pg_catalog.pg_input_is_valid({quoted}::text, {})",
            common::ident::literal(&type_name)
        ),
        // 14 and 15 can only be made to read the value again: a violation raises, and the scan says which rule it was.
        _ => format!("pg_catalog.num_nulls({quoted}::text::{type_name}) < 0"),
    };
    Rule {
        key: RuleKey {
            check: CheckKind::Domains,
            object_oid: number(row, 0),
            rule_oid: number(row, 4),
            rule: format!("{column}: {}", text(row, 5)),
        },
        definition: text(row, 8),
        severity: Severity::Failure,
        label: format!("{column} ({type_name})"),
        violated,
        volatile: false,
        repair: Repair::Aside,
    }
}
