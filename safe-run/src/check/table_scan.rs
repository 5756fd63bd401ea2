//! One scan per table: its rows, CHECK, NOT NULL and domain violations counted together.
//!
//! Only a rule that is violated costs a second scan, which fetches the keys. A rule whose expression raises is counted
//! alone, so that it cannot hide the others.

use std::collections::BTreeMap;

use common::error::Result;
use common::ident::{QualifiedName, printable};

use super::Outcome;
use super::model::{CheckKind, Finding, Options, RuleKey, Severity, Skipped, TableFacts, TableRows};
use super::session::{CheckSession, RefusedQuery, TextRow, flag, number, text};
use super::violations::{self, Subject, Violations};

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

/// NOT NULL columns: table, column, and whether nulls are legitimate (18: the constraint is NOT VALID).
const NOT_NULLS: &str = r"
SELECT a.attrelid, a.attname,
  EXISTS (SELECT FROM pg_constraint c WHERE c.contype = 'n' AND c.conrelid = a.attrelid
            AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated)
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
WHERE t.relkind = 'r' AND a.attnotnull AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// Columns whose type is a domain, an array of one, or holds one deeper down.
///
/// A domain's expression is deparsed with the unquoted word VALUE, which PostgreSQL reads as a column name: it is
/// evaluated in a subquery with one column `value` of the domain's base type, on every major and without a round trip
/// through text. What lies deeper (composites, domains over arrays of domains) needs `pg_input_is_valid` of 16.
///
/// Columns: table, column, kind (`d` domain, `a` array of a domain, `x` deeper), type, constraint oid, constraint name
/// (`NOT NULL` for a domain that forbids nulls), expression, type to cast the column to, definition.
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
  format_type(c.atttypid, c.atttypmod), r.oid, r.name, r.expression, b.type, r.definition
FROM columns c
JOIN rules r ON r.start = CASE WHEN c.typtype = 'd' THEN c.atttypid ELSE c.element END
JOIN base b ON b.start = r.start
UNION ALL
SELECT c.attrelid, c.attname, 'x', format_type(c.atttypid, c.atttypmod), c.atttypid, 'type', NULL, NULL, ''
FROM columns c
WHERE EXISTS (
  SELECT FROM inside i JOIN pg_type t ON t.oid = i.link
  WHERE i.start IN (c.atttypid, c.element) AND t.typtype = 'd'
    AND NOT EXISTS (SELECT FROM chain WHERE chain.link = t.oid AND chain.start IN (c.atttypid, c.element)))
ORDER BY 1, 2, 3, 6";

/// The key of a table's rows: the primary key's columns, as an expression of type text.
const PRIMARY_KEYS: &str = r"
SELECT i.indrelid,
  CASE WHEN count(*) = 1 THEN min(format('%I::text', a.attname))
       ELSE format('ROW(%s)::text', string_agg(format('%I', a.attname), ', ' ORDER BY k.i)) END
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, i)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisprimary AND c.relkind = 'r' AND k.i <= i.indnkeyatts
GROUP BY i.indrelid";

/// Rules per query: PostgreSQL allows 1,664 result columns, and a query that long takes longer to plan than a scan.
const RULES_PER_SCAN: usize = 200;

/// One rule of the scan.
#[derive(Debug)]
pub(super) struct Rule {
    pub key: RuleKey,
    pub definition: String,
    severity: Severity,
    /// The column, or the constraint's name.
    label: String,
    /// True for a violating row.
    violated: String,
    volatile: bool,
}

/// The scan of one heap.
#[derive(Debug)]
pub(super) struct Scan {
    pub table: u32,
    pub rules: Vec<Rule>,
    pub counts_rows: bool,
    name: QualifiedName,
    root: Option<u32>,
    /// The primary key as text; `None` where there is none.
    row_key: Option<String>,
}

/// A scan for every heap, with every rule that is wanted.
pub(super) async fn list(
    session: &CheckSession<'_>,
    tables: &BTreeMap<u32, TableFacts>,
    options: &Options,
) -> Result<Vec<Scan>> {
    let counts_rows = options.wants(CheckKind::Rows);
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    if options.wants(CheckKind::Check) {
        for row in session.catalog(CheckKind::Check, CHECKS).await? {
            rules.entry(number(&row, 0)).or_default().push(check_rule(&row));
        }
    }
    if options.wants(CheckKind::NotNull) {
        for row in session.catalog(CheckKind::NotNull, NOT_NULLS).await? {
            rules.entry(number(&row, 0)).or_default().push(not_null_rule(&row));
        }
    }
    if options.wants(CheckKind::Domains) {
        for row in session.catalog(CheckKind::Domains, DOMAINS).await? {
            rules.entry(number(&row, 0)).or_default().push(domain_rule(&row));
        }
    }
    let mut keys: BTreeMap<u32, String> = BTreeMap::new();
    if !rules.is_empty() {
        for row in session.required("the primary keys", PRIMARY_KEYS).await? {
            keys.insert(number(&row, 0), text(&row, 1));
        }
    }
    Ok(tables
        .iter()
        .filter(|(_, facts)| facts.kind == 'r')
        .map(|(oid, facts)| Scan {
            table: *oid,
            rules: rules.remove(oid).unwrap_or_default(),
            counts_rows,
            name: facts.name.clone(),
            root: facts.root,
            row_key: keys.remove(oid),
        })
        .filter(|scan| scan.counts_rows || !scan.rules.is_empty())
        .collect())
}

fn check_rule(row: &TextRow) -> Rule {
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
    }
}

fn not_null_rule(row: &TextRow) -> Rule {
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
        violated: format!("pg_catalog.num_nulls({}) > 0", common::ident::Ident::new(column.as_str())),
        label: column,
        volatile: false,
    }
}

fn domain_rule(row: &TextRow) -> Rule {
    let column = text(row, 1);
    let quoted = common::ident::Ident::new(column.as_str());
    let (kind, type_name, expression, base) = (text(row, 2), text(row, 3), text(row, 6), text(row, 7));
    let violated = match kind.as_str() {
        "d" => format!("(SELECT NOT ({expression}) FROM (SELECT {quoted}::{base} AS value) safe_run_domain)"),
        "a" => format!(
            "EXISTS (SELECT FROM pg_catalog.unnest({quoted}) AS safe_run_domain(value) WHERE NOT ({expression}))"
        ),
        // 42883 on 14 and 15, which have no such function: reported as skipped.
        _ => format!(
            "NOT pg_catalog.pg_input_is_valid({quoted}::text, {})",
            common::ident::literal(&type_name)
        ),
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
    }
}

impl Scan {
    /// Counts the rows and the violations of every rule.
    pub async fn run(&self, session: &CheckSession<'_>, size_bytes: i64, out: &mut Outcome) -> Result<()> {
        let chunks: Vec<&[Rule]> =
            if self.rules.is_empty() { vec![&[]] } else { self.rules.chunks(RULES_PER_SCAN).collect() };
        for (index, rules) in chunks.into_iter().enumerate() {
            self.scan(session, size_bytes, rules, index == 0, out).await?;
        }
        Ok(())
    }

    async fn scan(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rules: &[Rule],
        records_rows: bool,
        out: &mut Outcome,
    ) -> Result<()> {
        let filters: Vec<String> =
            rules.iter().map(|rule| format!(",\n count(*) FILTER (WHERE {})", rule.violated)).collect();
        let sql = format!("SELECT count(*){} FROM ONLY {}", filters.concat(), self.name);
        match session.query_with("", size_bytes, &sql).await? {
            Ok(rows) => {
                let Some(row) = rows.first() else { return Ok(()) };
                if records_rows {
                    self.record_rows(number(row, 0), out);
                }
                for (index, rule) in rules.iter().enumerate() {
                    out.ran.push(rule.key.clone());
                    if number::<i64>(row, index + 1) > 0 {
                        self.fetch(session, size_bytes, rule, out).await?;
                    }
                }
            }
            Err(refused) => {
                self.scan_one_by_one(session, size_bytes, rules, records_rows, &refused, out).await?;
            }
        }
        Ok(())
    }

    /// After a refusal of the whole scan: the rows alone, then every rule alone.
    async fn scan_one_by_one(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rules: &[Rule],
        records_rows: bool,
        refused: &RefusedQuery,
        out: &mut Outcome,
    ) -> Result<()> {
        let count = format!("SELECT count(*) FROM ONLY {}", self.name);
        match session.query_with("", size_bytes, &count).await? {
            Ok(rows) => {
                if let (true, Some(row)) = (records_rows, rows.first()) {
                    self.record_rows(number(row, 0), out);
                }
            }
            Err(_) => {
                // The table itself cannot be read: one line, not one for every rule.
                out.skipped.push(Skipped {
                    check: if self.counts_rows { CheckKind::Rows } else { CheckKind::Check },
                    object: self.name.short(),
                    why: match rules.len() {
                        0 => refused.message.clone(),
                        many => format!("{} (its {many} rules were not checked either)", refused.message),
                    },
                    counts_for_strict: true,
                });
                return Ok(());
            }
        }
        for rule in rules {
            let sql = format!("SELECT count(*) FILTER (WHERE {}) FROM ONLY {}", rule.violated, self.name);
            match session.query_with("", size_bytes, &sql).await? {
                Ok(rows) => {
                    out.ran.push(rule.key.clone());
                    if rows.first().is_some_and(|row| number::<i64>(row, 0) > 0) {
                        self.fetch(session, size_bytes, rule, out).await?;
                    }
                }
                Err(refused) => self.refused(session, size_bytes, rule, refused, &sql, out).await?,
            }
        }
        Ok(())
    }

    /// A rule that cannot be evaluated: a violation if its own expression raises, else skipped.
    async fn refused(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rule: &Rule,
        refused: RefusedQuery,
        sql: &str,
        out: &mut Outcome,
    ) -> Result<()> {
        // A function in the expression may need the path that the session normally has.
        if let Ok(rows) = session.query_with(&session.own_search_path(), size_bytes, sql).await? {
            out.ran.push(rule.key.clone());
            let count: i64 = rows.first().map_or(0, |row| number(row, 0));
            if count > 0 {
                let found = Violations { count, ..Violations::default() };
                out.findings.push(violations::finding(self.subject(rule), found));
            }
            return Ok(());
        }
        let unable = refused.sqlstate == "42501"
            || rule.key.check == CheckKind::Domains && refused.sqlstate == "42883"
            || refused.sqlstate.starts_with("53")
            || refused.sqlstate.starts_with("55");
        if unable {
            out.skipped.push(Skipped {
                check: rule.key.check,
                object: format!("{} ({})", self.name.short(), printable(&rule.label)),
                why: refused.message,
                counts_for_strict: true,
            });
            return Ok(());
        }
        out.ran.push(rule.key.clone());
        let detail = format!("{} cannot be evaluated: {}", self.place(rule), refused.message);
        let mut finding = Finding::state(rule.key.clone(), self.name.short(), &refused.sqlstate, detail);
        finding.severity = rule.severity;
        finding.definition = rule.definition.clone();
        out.findings.push(finding);
        Ok(())
    }

    fn record_rows(&self, rows: i64, out: &mut Outcome) {
        if self.counts_rows {
            out.rows.insert(self.table, TableRows { name: self.name.clone(), rows, root: self.root });
        }
    }

    /// Fetches the keys of the rows that violate `rule`.
    ///
    /// `IS TRUE` keeps the planner of 17 and later from answering an `IS NULL` inside the expression by `attnotnull`.
    ///
    /// A table without a primary key gives no hash: a hash of the whole row would change with every added column, and
    /// old violations would look new.
    async fn fetch(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rule: &Rule,
        out: &mut Outcome,
    ) -> Result<()> {
        let key = self.row_key.as_deref().unwrap_or("''::text");
        let grouped = format!(
            "SELECT {key} AS k, count(*) AS n FROM ONLY {} WHERE ({}) IS TRUE GROUP BY 1",
            self.name, rule.violated
        );
        match violations::fetch(session, "", size_bytes, &grouped).await? {
            Ok(mut found) => {
                if self.row_key.is_none() {
                    found.hash.clear();
                    found.keys.clear();
                }
                out.findings.push(violations::finding(self.subject(rule), found));
            }
            Err(refused) => out.skipped.push(Skipped {
                check: rule.key.check,
                object: format!("{} ({})", self.name.short(), printable(&rule.label)),
                why: format!("its violations could be counted but not listed: {}", refused.message),
                counts_for_strict: true,
            }),
        }
        Ok(())
    }

    fn subject<'a>(&self, rule: &'a Rule) -> Subject<'a> {
        Subject {
            key: &rule.key,
            object: self.name.short(),
            severity: rule.severity,
            definition: &rule.definition,
            one: "row violates",
            many: "rows violate",
            place: self.place(rule),
            repair_sql: None,
        }
    }

    /// `CHECK total_positive of orders`, `NOT NULL of orders.total`, `the domain of orders.email (email)`.
    fn place(&self, rule: &Rule) -> String {
        let (table, label) = (self.name.short(), printable(&rule.label));
        let mut place = match rule.key.check {
            CheckKind::NotNull => format!("NOT NULL of {table}.{label}"),
            CheckKind::Domains => format!("the domain of {table}.{label}"),
            _ => format!("CHECK {label} of {table}"),
        };
        if rule.severity == Severity::Note {
            place.push_str(", which is not enforced for them");
        }
        if rule.volatile {
            place.push_str(", an expression that is not immutable");
        }
        place
    }
}
