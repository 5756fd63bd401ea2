//! Views and functions that no longer compile.
//!
//! A view is planned and not run (EXPLAIN where a foreign table is below it, so that no other server is asked, else
//! LIMIT 0). SQL functions go through PostgreSQL's own validator; PL/pgSQL's looks at the syntax alone, so
//! plpgsql_check is asked where it is installed. What did not compile before is told apart by the baseline.
//!
//! Names in a function's body resolve when it runs, so each is tried with a `search_path` that it will have: its own, else
//! that of new sessions of this role, else one that the database or another role is set to. One that compiles with any of
//! them is no finding. Planning a view runs what is constant in it: as its owner, or not at all; and where it is planned with
//! our rights, with no path that leads into a schema in which somebody else could put a function of a fitting name.

use std::sync::Arc;

use common::{
    error::Result,
    ident::{QualifiedName, printable},
    postgres::{
        shared_text,
        trust::TRUSTED_ROLES,
        who_asks::{Rights, Standings},
    },
};

use crate::{
    catalogue::CheckKind,
    model::{Finding, RuleKey, Skipped},
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, RefusedQuery, TextRow, flag, number, text},
};

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
/// triggers (0 if it is a trigger function without one), and its owner's oid (0: trusted) and name.
fn functions_sql() -> String {
    format!(
        r"WITH trusted AS MATERIALIZED ({TRUSTED_ROLES})
SELECT p.oid, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), l.lanname,
  (SELECT substr(c.setting, length('search_path=') + 1) FROM unnest(p.proconfig) c(setting)
   WHERE c.setting LIKE 'search\_path=%'),
  CASE WHEN p.prorettype = 'pg_catalog.trigger'::regtype
    THEN COALESCE((SELECT json_agg(DISTINCT t.tgrelid::bigint) FROM pg_trigger t WHERE t.tgfoid = p.oid), '[]')
    ELSE '[0]' END,
  CASE WHEN p.proowner NOT IN (SELECT oid FROM trusted) THEN p.proowner::bigint ELSE 0 END, pg_get_userbyid(p.proowner)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND p.prokind <> 'a'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_temp%'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
ORDER BY n.nspname, p.proname, p.oid"
    )
}

/// The schema of plpgsql_check, where it is installed, and nobody has put a function of the same name beside its own.
const PLPGSQL_CHECK: &str = r"
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'plpgsql_check' AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid
  AND p.proname = 'plpgsql_check_function_tb' AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.refobjid = e.oid AND d.deptype = 'e'))";

/// Every `search_path` that sessions of this database may begin with by a setting of the database or of a role, as the bytes of
/// `search_path=…` in hexadecimal: a role that sets its own does so in any database's encoding.
fn paths() -> String {
    format!(
        r"SELECT DISTINCT encode({}, 'hex')
FROM pg_db_role_setting s, unnest(s.setconfig) c(setting)
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
  AND c.setting LIKE 'search\_path=%'
ORDER BY 1 LIMIT 20",
        shared_text::bytes("c.setting")
    )
}

/// The path that such a setting gives; `None` if it is no UTF-8, and so names no schema of this database.
fn path_of(hex: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok()?.strip_prefix("search_path=").map(str::to_owned)
}

/// One view or function.
#[derive(Debug)]
pub(super) struct Code {
    pub key: RuleKey,
    label: String,
    /// What is run to try it.
    sql: String,
    /// Its own `search_path`.
    own_path: Option<String>,
    /// Other settings for it, each with its semicolon.
    settings: &'static str,
    /// Paths to try after the session's own.
    other_paths: Arc<[String]>,
    /// No path but the empty one may be used: why.
    no_path: Option<String>,
    rights: Rights,
    /// Each row of the answer is a problem.
    rows_are_problems: bool,
}

/// Every view.
pub(super) async fn views(session: &CheckSession<'_>, standings: &Standings) -> Result<Vec<Code>> {
    let paths = paths_of_sessions(session).await?;
    let session_path = session.own_search_path();
    let views = session.catalog(CheckKind::Code, VIEWS).await?;
    Ok(views.iter().map(|row| view(row, &paths, standings, &session_path)).collect())
}

/// Every function.
pub(super) async fn functions(session: &CheckSession<'_>, standings: &Standings) -> Result<Vec<Code>> {
    let rows = session.catalog(CheckKind::Code, &functions_sql()).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let paths = paths_of_sessions(session).await?;
    let checker = session.catalog(CheckKind::Code, PLPGSQL_CHECK).await?;
    let checker = checker.first().map(|row| text(row, 0));
    let mut code = Vec::with_capacity(rows.len());
    for row in rows {
        let (owner, name): (u32, String) = (number(&row, 7), text(&row, 8));
        let rights = if owner == 0 { Rights::Session } else { standings.of_owner(owner, &name) };
        let checker = checker.as_deref().map(|schema| (schema, standings.of_body(owner, &name)));
        code.extend(function(&row, rights, checker, &paths));
    }
    Ok(code)
}

async fn paths_of_sessions(session: &CheckSession<'_>) -> Result<Arc<[String]>> {
    let paths = session.catalog(CheckKind::Code, &paths()).await?;
    Ok(paths.iter().filter_map(|row| path_of(&text(row, 0))).collect())
}

fn view(row: &TextRow, paths: &Arc<[String]>, standings: &Standings, session_path: &str) -> Code {
    let rights = standings.of(number(row, 0));
    let is_open = |path: &str| rights == Rights::Session && standings.path_is_open(path);
    let no_path = is_open(session_path).then(|| {
        "its functions look names up in a schema in which other roles may make things, whose code would run with the rights of \
         this session"
            .to_owned()
    });
    let paths = match paths.iter().any(|path| is_open(path)) {
        true => paths.iter().filter(|path| !is_open(path)).cloned().collect(),
        false => Arc::clone(paths),
    };
    let name = QualifiedName::new(text(row, 1), text(row, 2));
    let explain = if flag(row, 3) { "EXPLAIN " } else { "" };
    Code {
        key: key(number(row, 0), text(row, 2)),
        label: format!("view {}", name.short()),
        sql: format!("{explain}SELECT * FROM {name} LIMIT 0"),
        own_path: None,
        settings: "",
        other_paths: paths,
        no_path,
        rights,
        rows_are_problems: false,
    }
}

/// What is tried of a function, as whom; `checker` is the schema of plpgsql_check, and who may ask it.
fn function(
    row: &TextRow,
    rights: Rights,
    checker: Option<(&str, Rights)>,
    paths: &Arc<[String]>,
) -> Vec<Code> {
    let oid: u32 = number(row, 0);
    let name = QualifiedName::new(text(row, 1), text(row, 2));
    let label = format!("function {}({})", name.short(), printable(&text(row, 3)));
    let own_path = row.get(5).cloned().flatten();
    let validator = if text(row, 4) == "sql" { "fmgr_sql_validator" } else { "plpgsql_validator" };
    // plpgsql_validator lives where the language was made, which is pg_catalog since 9.0.
    let mut code = vec![Code {
        key: key(oid, text(row, 2)),
        label: label.clone(),
        sql: format!("SELECT pg_catalog.{validator}({oid})"),
        own_path: own_path.clone(),
        settings: ON,
        other_paths: Arc::clone(paths),
        no_path: None,
        rights,
        rows_are_problems: false,
    }];
    let tables: Vec<i64> = serde_json::from_str(&text(row, 6)).unwrap_or_default();
    if let (Some((schema, rights)), "plpgsql") = (checker, text(row, 4).as_str()) {
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
                no_path: None,
                rights: rights.clone(),
                rows_are_problems: true,
            });
        }
    }
    code
}

/// Without the first one the validators believe every body. Analysing a body locks its tables as running it does: whoever keeps one
/// locked is waited for, but not once for each function for as long as other questions wait.
const ON: &str = "SET LOCAL check_function_bodies = on; SET LOCAL lock_timeout = '1s';";

impl Code {
    /// Tries it.
    pub fn question(&self, session: &CheckSession<'_>) -> Question {
        let path = match (&self.own_path, &self.no_path) {
            (Some(path), _) => path.clone(),
            (None, Some(_)) => String::new(),
            (None, None) => session.own_search_path(),
        };
        self.with_path(path)
    }

    fn with_path(&self, path: String) -> Question {
        Question {
            settings: self.settings.to_owned(),
            path: Some(path),
            ..Question::of(&self.rights, self.sql.clone())
        }
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
                let answer = session.ask(0, &self.with_path(path.clone())).await?;
                if self.problems(answer).is_ok_and(|problems| problems.is_empty()) {
                    out.ran.push(self.key.clone());
                    return Ok(());
                }
            }
        }
        match &self.no_path {
            Some(why) if !problems.is_empty() => out.skipped.push(Skipped {
                check: CheckKind::Code,
                object: self.label.clone(),
                why: why.clone(),
                counts_for_strict: true,
            }),
            _ => self.report(&problems, out),
        }
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
