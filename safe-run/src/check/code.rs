//! Views and functions that no longer compile.
//!
//! A view is planned and not run (EXPLAIN where a foreign table is below it, so that no other server is asked, else
//! LIMIT 0). SQL functions go through PostgreSQL's own validator; PL/pgSQL's looks at the syntax alone, so
//! plpgsql_check is asked where it is installed. What did not compile before is told apart by the baseline.

use common::error::Result;
use common::ident::{QualifiedName, printable};

use super::Outcome;
use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey, Skipped};
use super::session::{Answer, CheckSession, TextRow, flag, number, text};
use super::work::Question;

/// Views: oid, schema, name, and whether a foreign table is somewhere below.
const VIEWS: &str = r"
WITH RECURSIVE uses AS (
  SELECT DISTINCT r.ev_class AS view, d.refobjid AS used
  FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
  WHERE r.rulename = '_RETURN'),
 foreign_below AS (
  SELECT u.view FROM uses u JOIN pg_class c ON c.oid = u.used WHERE c.relkind = 'f'
  UNION SELECT u.view FROM uses u JOIN foreign_below f ON f.view = u.used)
SELECT c.oid, n.nspname, c.relname, c.oid IN (SELECT view FROM foreign_below)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY n.nspname, c.relname";

/// SQL and PL/pgSQL functions: oid, schema, name, arguments, language, its own search_path, and the tables of its
/// triggers (0 if it is a trigger function without one).
const FUNCTIONS: &str = r"
SELECT p.oid, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), l.lanname,
  (SELECT substr(c.setting, length('search_path=') + 1) FROM unnest(p.proconfig) c(setting)
   WHERE c.setting LIKE 'search\_path=%'),
  CASE WHEN p.prorettype = 'pg_catalog.trigger'::regtype
    THEN COALESCE((SELECT json_agg(DISTINCT t.tgrelid::bigint) FROM pg_trigger t WHERE t.tgfoid = p.oid), '[]')
    ELSE '[0]' END
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND p.prokind <> 'a'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_temp%'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
ORDER BY n.nspname, p.proname, p.oid";

/// The schema of plpgsql_check, where it is installed.
const PLPGSQL_CHECK: &str = r"
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'plpgsql_check'";

/// One view or function.
#[derive(Debug)]
pub(super) struct Code {
    pub key: RuleKey,
    label: String,
    /// What is run to try it.
    sql: String,
    /// Settings for it, each with its semicolon.
    settings: Option<String>,
    /// Each row of the answer is a problem.
    rows_are_problems: bool,
}

/// Every view and function.
pub(super) async fn list(session: &CheckSession<'_>) -> Result<Vec<Code>> {
    let mut code: Vec<Code> = session.catalog(CheckKind::Code, VIEWS).await?.iter().map(view).collect();
    let checker = session.catalog(CheckKind::Code, PLPGSQL_CHECK).await?;
    let checker = checker.first().map(|row| text(row, 0));
    for row in session.catalog(CheckKind::Code, FUNCTIONS).await? {
        code.extend(function(&row, checker.as_deref()));
    }
    Ok(code)
}

fn view(row: &TextRow) -> Code {
    let name = QualifiedName::new(text(row, 1), text(row, 2));
    let explain = if flag(row, 3) { "EXPLAIN " } else { "" };
    Code {
        key: key(number(row, 0), text(row, 2)),
        label: format!("view {}", name.short()),
        sql: format!("{explain}SELECT * FROM {name} LIMIT 0"),
        settings: Some(String::new()),
        rows_are_problems: false,
    }
}

fn function(row: &TextRow, checker: Option<&str>) -> Vec<Code> {
    let oid: u32 = number(row, 0);
    let name = QualifiedName::new(text(row, 1), text(row, 2));
    let label = format!("function {}({})", name.short(), printable(&text(row, 3)));
    let path = row.get(5).cloned().flatten();
    // A path of its own stands in the catalog as SET wants it.
    let settings = path
        .map(|path| format!("{ON} SET LOCAL search_path = {};", if path == "\"\"" { "''" } else { &path }));
    let validator = if text(row, 4) == "sql" { "fmgr_sql_validator" } else { "plpgsql_validator" };
    // plpgsql_validator lives where the language was made, which is pg_catalog since 9.0.
    let mut code = vec![Code {
        key: key(oid, text(row, 2)),
        label: label.clone(),
        sql: format!("SELECT pg_catalog.{validator}({oid})"),
        settings: settings.clone(),
        rows_are_problems: false,
    }];
    let tables: Vec<i64> = serde_json::from_str(&text(row, 6)).unwrap_or_default();
    if let (Some(schema), "plpgsql") = (checker, text(row, 4).as_str()) {
        for table in tables {
            code.push(Code {
                key: RuleKey { rule: format!("{} by plpgsql_check {table}", text(row, 2)), ..key(oid, String::new()) },
                label: label.clone(),
                sql: format!(
                    "SELECT concat_ws(' ', 'line ' || lineno || ':', message) FROM {schema}.plpgsql_check_function_tb({oid}, \
                     {table}::pg_catalog.regclass, performance_warnings := false, other_warnings := false, \
                     extra_warnings := false) WHERE level = 'error'"
                ),
                settings: settings.clone(),
                rows_are_problems: true,
            });
        }
    }
    code
}

/// Without it the validators believe every body.
const ON: &str = "SET LOCAL check_function_bodies = on;";

impl Code {
    /// Tries it.
    pub fn question(&self, session: &CheckSession<'_>) -> Question {
        let settings = self.settings.clone().unwrap_or_else(|| format!("{ON}{}", session.own_search_path()));
        Question { settings, sql: self.sql.clone() }
    }

    /// Reads what became of it.
    pub fn read(&self, answer: Answer, out: &mut Outcome) {
        let problems: Vec<String> = match answer {
            Ok(rows) if self.rows_are_problems => rows.iter().map(|row| text(row, 0)).collect(),
            Ok(_) => Vec::new(),
            // Insufficient privilege, resources, object in use or not there for this session.
            Err(refused)
                if refused.sqlstate == "42501"
                    || refused.sqlstate.starts_with("53")
                    || refused.sqlstate.starts_with("55") && refused.sqlstate != "55000" =>
            {
                out.skipped.push(Skipped {
                    check: CheckKind::Code,
                    object: self.label.clone(),
                    why: refused.message,
                    counts_for_strict: true,
                });
                return;
            }
            Err(refused) => vec![refused.message],
        };
        out.ran.push(self.key.clone());
        if let Some(first) = problems.first() {
            let more = match problems.len() {
                1 => String::new(),
                many => format!(" (and {} more)", many - 1),
            };
            let detail = format!("{} does not compile: {}{more}", self.label, printable(first));
            let state = problems.join("\n");
            let mut finding = Finding::state(self.key.clone(), self.label.clone(), &state, detail);
            finding.count = i64::try_from(problems.len()).unwrap_or(i64::MAX);
            out.findings.push(finding);
        }
    }
}

fn key(oid: u32, rule: String) -> RuleKey {
    RuleKey { check: CheckKind::Code, object_oid: oid, rule_oid: oid, rule }
}
