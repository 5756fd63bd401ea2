//! Damaged index and heap pages, by PostgreSQL's own amcheck.
//!
//! At `standard` the indexes that a run made, rebuilt or changed; at `deep` every index, and every heap. Where amcheck
//! is not installed but may be, it is created in a schema of its own inside the checks' savepoint (or a transaction of
//! its own), which is always rolled back: it never stays behind. An index that was damaged before, and not looked at
//! then, is a failure all the same: a migration that writes through it makes things worse.

use common::{
    error::Result,
    ident::{QualifiedName, literal, printable},
};

use crate::{
    catalogue::{CheckKind, Level},
    model::{CheckResults, Finding, RuleKey, Skipped},
    options::Options,
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, flag, number, text},
    violations::thousands,
};

/// Valid indexes with a file of their own that amcheck understands: table (oid, schema, name), index (oid, schema,
/// name), file, access method, unique, size in bytes as it was last noted: it only says what to look at first, and measuring
/// asks the file system for each index.
const INDEXES: &str = r"
SELECT t.oid, tn.nspname, t.relname, x.oid, xn.nspname, x.relname, COALESCE(pg_relation_filenode(x.oid), 0), am.amname,
  i.indisunique, x.relpages::bigint * current_setting('block_size')::bigint
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace
JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace JOIN pg_am am ON am.oid = x.relam
WHERE x.relkind = 'i' AND i.indisvalid AND i.indisready AND i.indislive AND t.relpersistence <> 't'
  AND tn.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY tn.nspname, t.relname, x.relname";

/// amcheck's functions as they are installed: name, arguments, schema (quoted), whether this role may call them, the grant that
/// would let it, and whether it may use the schema. An upgraded server may still have an older version of the extension, so the
/// server's version says nothing.
const FUNCTIONS: &str = r"
SELECT p.proname, p.pronargs, quote_ident(n.nspname), has_function_privilege(p.oid, 'EXECUTE'),
  'GRANT EXECUTE ON FUNCTION ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '('
    || pg_get_function_identity_arguments(p.oid) || ') TO ' || quote_ident(current_user),
  has_schema_privilege(n.oid, 'USAGE'),
  'GRANT USAGE ON SCHEMA ' || quote_ident(n.nspname) || ' TO ' || quote_ident(current_user)
FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid
  AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::regclass
JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE e.extname = 'amcheck' AND p.proname IN ('bt_index_check', 'gin_index_check', 'verify_heapam')";

/// What amcheck offers here.
#[derive(Debug, Clone, Default)]
pub(super) struct Amcheck {
    schema: String,
    /// Arguments of `bt_index_check`'s longest form; 0: not there.
    btree_arguments: u32,
    gin: bool,
    heap: bool,
    /// What would let this role call it; empty where it may.
    grants: Vec<String>,
}

/// One index or heap to look at.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub key: RuleKey,
    pub size_bytes: i64,
    table: QualifiedName,
    /// `None`: the heap itself.
    index: Option<Index>,
}

#[derive(Debug, Clone)]
struct Index {
    name: QualifiedName,
    method: String,
    unique: bool,
}

/// What there is to look at, and with what.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub targets: Vec<Target>,
    /// `None`: not installed.
    pub amcheck: Option<Amcheck>,
}

/// Lists the targets and remembers every index's file.
pub(super) async fn plan(
    session: &CheckSession<'_>,
    results: &mut CheckResults,
    options: &Options,
) -> Result<Plan> {
    let mut plan = Plan::default();
    for row in session.catalog(CheckKind::Structure, INDEXES).await? {
        let (table_oid, oid, file): (u32, u32, u32) = (number(&row, 0), number(&row, 3), number(&row, 6));
        results.states.index_files.insert(oid, file);
        let method = text(&row, 7);
        // hash, gist, spgist and brin have no checker; gin has one since 18.
        if !matches!(method.as_str(), "btree" | "gin") {
            continue;
        }
        let wanted = match &options.known {
            _ if options.level >= Level::Deep => true,
            _ if options.was_just_made(&[table_oid]) => false,
            // Nothing to compare with: `check`, and the pass before a migration.
            None => false,
            Some(known) => {
                known.index_files.get(&oid) != Some(&file)
                    || (!options.untouched.is_empty() && !options.untouched.contains(&table_oid))
            }
        };
        if wanted {
            plan.targets.push(Target {
                key: RuleKey {
                    check: CheckKind::Structure,
                    object_oid: table_oid,
                    rule_oid: oid,
                    rule: text(&row, 5),
                },
                size_bytes: number(&row, 9),
                table: QualifiedName::new(text(&row, 1), text(&row, 2)),
                index: Some(Index {
                    name: QualifiedName::new(text(&row, 4), text(&row, 5)),
                    method,
                    unique: flag(&row, 8),
                }),
            });
        }
    }
    if options.level >= Level::Deep {
        plan.targets.extend(results.tables.iter().filter(|(_, facts)| facts.kind != 'p').map(
            |(oid, facts)| Target {
                key: RuleKey {
                    check: CheckKind::Structure,
                    object_oid: *oid,
                    rule_oid: *oid,
                    rule: facts.name.name.as_str().to_owned(),
                },
                size_bytes: facts.size_bytes,
                table: facts.name.clone(),
                index: None,
            },
        ));
    }
    if !plan.targets.is_empty() {
        plan.amcheck = installed(session).await?;
    }
    Ok(plan)
}

pub(super) async fn installed(session: &CheckSession<'_>) -> Result<Option<Amcheck>> {
    let rows = session.catalog(CheckKind::Structure, FUNCTIONS).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mut amcheck = Amcheck { schema: text(first, 2), ..Amcheck::default() };
    if !flag(first, 5) {
        amcheck.grants.push(text(first, 6));
    }
    for row in &rows {
        match text(row, 0).as_str() {
            "bt_index_check" => amcheck.btree_arguments = amcheck.btree_arguments.max(number(row, 1)),
            "gin_index_check" => amcheck.gin = true,
            _ => amcheck.heap = true,
        }
        if !flag(row, 3) {
            amcheck.grants.push(text(row, 4));
        }
    }
    Ok(Some(amcheck))
}

impl Target {
    /// How to look at it; the reason where amcheck can't.
    pub fn question(&self, amcheck: &Amcheck) -> Result<Question, Skipped> {
        if !amcheck.grants.is_empty() {
            return Err(
                self.skipped(format!("this role may not call amcheck: {}", amcheck.grants.join("; ")))
            );
        }
        self.sql(amcheck)
            .map(Question::plain)
            .map_err(|why| Skipped { counts_for_strict: false, ..self.skipped(why) })
    }

    /// Reads what amcheck found.
    pub fn read(&self, answer: Answer, out: &mut Outcome) {
        match answer {
            Ok(rows) => {
                out.ran.push(self.key.clone());
                if let (true, Some(first)) = (self.index.is_none(), rows.first()) {
                    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
                    out.findings.push(self.damaged(&text(first, 0), &text(first, 0), count));
                }
            }
            // Data and index corruption, and files that are gone or short.
            Err(refused) if refused.sqlstate.starts_with("XX") || refused.sqlstate.starts_with("58") => {
                out.ran.push(self.key.clone());
                out.findings.push(self.damaged(&refused.message, &refused.sqlstate, 1));
            }
            Err(refused) => out.skipped.push(self.skipped(refused.message)),
        }
    }

    fn sql(&self, amcheck: &Amcheck) -> Result<String, String> {
        let schema = &amcheck.schema;
        let regclass = |name: &QualifiedName| format!("{}::pg_catalog.regclass", literal(&name.to_string()));
        match &self.index {
            None if amcheck.heap => Ok(format!(
                // Every argument, with its type: a function of the same name that somebody put beside it would fit less.
                "SELECT concat_ws(' ', 'block ' || blkno, 'item ' || offnum, 'column ' || attnum) || ': ' || msg \
                 FROM {schema}.verify_heapam({}, false, true, 'none'::pg_catalog.text, NULL::pg_catalog.int8, \
                 NULL::pg_catalog.int8) LIMIT 1000",
                regclass(&self.table)
            )),
            None => Err("this version of amcheck cannot look at tables".to_owned()),
            Some(index) if index.method == "gin" && amcheck.gin => {
                Ok(format!("SELECT {schema}.gin_index_check({})", regclass(&index.name)))
            }
            Some(index) if index.method == "gin" => {
                Err("a GIN index: only amcheck of PostgreSQL 18 can look at it".to_owned())
            }
            Some(index) => {
                // Whether every row has its entry; from 17 on also whether a unique index has none twice.
                let unique = if amcheck.btree_arguments > 2 {
                    if index.unique { ", true" } else { ", false" }
                } else {
                    ""
                };
                Ok(format!("SELECT {schema}.bt_index_check({}, true{unique})", regclass(&index.name)))
            }
        }
    }

    fn damaged(&self, what: &str, state: &str, count: i64) -> Finding {
        let more = if count > 1 { format!(" (and {} more)", thousands(count - 1)) } else { String::new() };
        let what = printable(what);
        let (detail, repair) = match &self.index {
            None => (format!("table {} is damaged: {what}{more}", self.table.short()), None),
            Some(index) => (
                format!("index {} of {} is damaged: {what}{more}", index.name.short(), self.table.short()),
                Some(format!("REINDEX INDEX CONCURRENTLY {};", index.name)),
            ),
        };
        let mut finding = Finding::state(self.key.clone(), self.table.short(), state, detail);
        finding.count = count;
        finding.repair_sql = repair;
        finding
    }

    fn skipped(&self, why: String) -> Skipped {
        let object = match &self.index {
            None => self.table.short(),
            Some(index) => format!("{} ({})", self.table.short(), printable(index.name.name.as_str())),
        };
        Skipped { check: CheckKind::Structure, object, why, counts_for_strict: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_bt_index_check_follows_what_is_installed() {
        let target = |method: &str| Target {
            key: RuleKey { check: CheckKind::Structure, object_oid: 1, rule_oid: 2, rule: "i".into() },
            size_bytes: 0,
            table: QualifiedName::new("public", "t"),
            index: Some(Index {
                name: QualifiedName::new("public", "o'i"),
                method: method.into(),
                unique: true,
            }),
        };
        let old =
            Amcheck { schema: "public".into(), btree_arguments: 2, heap: true, grants: vec![], gin: false };
        let new = Amcheck { btree_arguments: 3, gin: true, ..old.clone() };
        assert_eq!(
            target("btree").sql(&old).unwrap(),
            r#"SELECT public.bt_index_check('"public"."o''i"'::pg_catalog.regclass, true)"#
        );
        assert!(target("btree").sql(&new).unwrap().ends_with("true, true)"));
        assert!(target("gin").sql(&old).is_err() && target("gin").sql(&new).is_ok());
    }
}
