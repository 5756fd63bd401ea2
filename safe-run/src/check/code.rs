//! Views and functions that no longer compile.
//!
//! A view is planned and not run (EXPLAIN where a foreign table is below it, so that no other server is asked, else
//! LIMIT 0). SQL functions go through PostgreSQL's own validator; PL/pgSQL's looks at the syntax alone, so
//! plpgsql_check is asked where it is installed. What did not compile before is told apart by the baseline.
//!
//! Names in a function's body resolve when it runs, so each is tried with a `search_path` that it will have: its own, else
//! that of new sessions of this role, else one that the database or another role is set to. One that compiles with any of
//! them is no finding.

use std::sync::Arc;

use common::error::Result;
use common::ident::{QualifiedName, printable};

use super::Outcome;
use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey, Skipped};
use super::session::{Answer, CheckSession, RefusedQuery, TextRow, flag, number, set_search_path, text};
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

/// Every `search_path` that sessions of this database may begin with by a setting of the database or of a role.
const PATHS: &str = r"
SELECT DISTINCT substr(c.setting, length('search_path=') + 1)
FROM pg_db_role_setting s, unnest(s.setconfig) c(setting)
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
  AND c.setting LIKE 'search\_path=%'
ORDER BY 1 LIMIT 20";

/// One view or function.
#[derive(Debug)]
pub(super) struct Code {
    pub key: RuleKey,
    label: String,
    /// What is run to try it.
    sql: String,
    /// Its own `search_path`, as a setting with its semicolon.
    own_path: Option<String>,
    /// Other settings for it, each with its semicolon.
    settings: &'static str,
    /// Paths to try after the session's own.
    other_paths: Arc<[String]>,
    /// Each row of the answer is a problem.
    rows_are_problems: bool,
}

/// Every view and function.
pub(super) async fn list(session: &CheckSession<'_>) -> Result<Vec<Code>> {
    let paths: Arc<[String]> = session
        .catalog(CheckKind::Code, PATHS)
        .await?
        .iter()
        .map(|row| set_search_path(&text(row, 0)))
        .collect();
    let views = session.catalog(CheckKind::Code, VIEWS).await?;
    let mut code: Vec<Code> = views.iter().map(|row| view(row, &paths)).collect();
    let checker = session.catalog(CheckKind::Code, PLPGSQL_CHECK).await?;
    let checker = checker.first().map(|row| text(row, 0));
    for row in session.catalog(CheckKind::Code, FUNCTIONS).await? {
        code.extend(function(&row, checker.as_deref(), &paths));
    }
    Ok(code)
}

fn view(row: &TextRow, paths: &Arc<[String]>) -> Code {
    let name = QualifiedName::new(text(row, 1), text(row, 2));
    let explain = if flag(row, 3) { "EXPLAIN " } else { "" };
    Code {
        key: key(number(row, 0), text(row, 2)),
        label: format!("view {}", name.short()),
        sql: format!("{explain}SELECT * FROM {name} LIMIT 0"),
        own_path: None,
        settings: "",
        other_paths: Arc::clone(paths),
        rows_are_problems: false,
    }
}

fn function(row: &TextRow, checker: Option<&str>, paths: &Arc<[String]>) -> Vec<Code> {
    let oid: u32 = number(row, 0);
    let name = QualifiedName::new(text(row, 1), text(row, 2));
    let label = format!("function {}({})", name.short(), printable(&text(row, 3)));
    let own_path = row.get(5).cloned().flatten().map(|path| set_search_path(&path));
    let validator = if text(row, 4) == "sql" { "fmgr_sql_validator" } else { "plpgsql_validator" };
    // plpgsql_validator lives where the language was made, which is pg_catalog since 9.0.
    let mut code = vec![Code {
        key: key(oid, text(row, 2)),
        label: label.clone(),
        sql: format!("SELECT pg_catalog.{validator}({oid})"),
        own_path: own_path.clone(),
        settings: ON,
        other_paths: Arc::clone(paths),
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
                own_path: own_path.clone(),
                settings: ON,
                other_paths: Arc::clone(paths),
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
        let path = self.own_path.clone().unwrap_or_else(|| session.own_search_path());
        Question { settings: format!("{}{path}", self.settings), sql: self.sql.clone() }
    }

    /// Reads what became of it; where it does not compile, it is tried with the other paths.
    pub async fn go_on(&self, session: &CheckSession<'_>, answer: Answer, out: &mut Outcome) -> Result<()> {
        let problems = match self.problems(answer) {
            Ok(problems) => problems,
            Err(refused) => {
                out.skipped.push(Skipped {
                    check: CheckKind::Code,
                    object: self.label.clone(),
                    why: refused.message,
                    counts_for_strict: true,
                });
                return Ok(());
            }
        };
        if !problems.is_empty() && self.own_path.is_none() {
            for path in self.other_paths.iter() {
                let answer = session.query_with(&format!("{}{path}", self.settings), 0, &self.sql).await?;
                if self.problems(answer).is_ok_and(|problems| problems.is_empty()) {
                    out.ran.push(self.key.clone());
                    return Ok(());
                }
            }
        }
        self.report(&problems, out);
        Ok(())
    }

    /// What is wrong with it. The error: it could not be tried.
    fn problems(&self, answer: Answer) -> Result<Vec<String>, RefusedQuery> {
        match answer {
            Ok(rows) if self.rows_are_problems => Ok(rows.iter().map(|row| text(row, 0)).collect()),
            Ok(_) => Ok(Vec::new()),
            // Insufficient privilege, resources, object in use or not there for this session.
            Err(refused)
                if refused.sqlstate == "42501"
                    || refused.sqlstate.starts_with("53")
                    || refused.sqlstate.starts_with("55") && refused.sqlstate != "55000" =>
            {
                Err(refused)
            }
            Err(refused) => Ok(vec![refused.message]),
        }
    }

    fn report(&self, problems: &[String], out: &mut Outcome) {
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
