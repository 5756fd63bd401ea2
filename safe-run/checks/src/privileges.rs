//! Owners and grants that changed in comparison with the state before.
//!
//! A change that the SQL announces (GRANT, REVOKE, OWNER) is shown; one that it does not announce fails. An object that
//! was dropped and made again keeps neither its owner nor its grants: whoever lost one by that is a failure in any case,
//! because it is the commonest way to lock an application out. What an owner may do with its own objects is left out.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    error::Result,
    ident::{Ident, QualifiedName, printable},
};

use crate::{
    accepted::Accepted,
    catalogue::CheckKind,
    model::{Finding, RuleKey, Severity, TableFacts},
    session::{CheckSession, number, text},
    states::{Grant, Object, ObjectKey, Privileges},
};

/// Every object with an owner and grants: catalog, oid, column number, kind, schema, name, arguments or column, what
/// stands after ON in a GRANT, owner, and the grants to others as `[[privilege, grantee, grantable], …]`.
///
/// No ACL means the built-in one. Default privileges are followed by what they are for, because their oid changes.
const OBJECTS: &str = r#"
WITH objects AS (
  SELECT 'relation' AS class, c.oid, 0 AS sub,
    CASE WHEN c.relispartition THEN 'partition' WHEN c.relkind = 'v' THEN 'view' WHEN c.relkind = 'm' THEN 'materialized view'
         WHEN c.relkind = 'S' THEN 'sequence' WHEN c.relkind = 'f' THEN 'foreign table' ELSE 'table' END AS kind,
    n.nspname, c.relname AS name, '' AS more,
    format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS target,
    c.relowner AS owner,
    COALESCE(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
  UNION ALL
  SELECT 'column', a.attrelid, a.attnum, 'column', n.nspname, c.relname, a.attname, format('TABLE %I.%I', n.nspname, c.relname),
    c.relowner, a.attacl
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND c.relpersistence <> 't'
  UNION ALL
  SELECT 'schema', n.oid, 0, 'schema', n.nspname, n.nspname, '', format('SCHEMA %I', n.nspname), n.nspowner,
    COALESCE(n.nspacl, acldefault('n', n.nspowner))
  FROM pg_namespace n WHERE n.nspname NOT LIKE 'pg\_temp%' AND n.nspname NOT LIKE 'pg\_toast%'
  UNION ALL
  SELECT 'routine', p.oid, 0, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, n.nspname, p.proname,
    oidvectortypes(p.proargtypes), 'ROUTINE ' || p.oid::regprocedure::text, p.proowner, COALESCE(p.proacl, acldefault('f', p.proowner))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  UNION ALL
  SELECT 'type', t.oid, 0, 'type', n.nspname, t.typname, '', format('TYPE %I.%I', n.nspname, t.typname), t.typowner,
    COALESCE(t.typacl, acldefault('T', t.typowner))
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
  WHERE t.typtype IN ('d', 'e', 'r', 'c', 'b') AND t.typcategory <> 'A' AND COALESCE(c.relkind = 'c', true)
  UNION ALL
  SELECT 'default', 0, 0, 'default privileges', COALESCE(n.nspname, ''), d.defaclrole::regrole::text, d.defaclobjtype::text, '',
    d.defaclrole, d.defaclacl
  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
  UNION ALL
  SELECT 'database', d.oid, 0, 'database', '', d.datname, '', format('DATABASE %I', d.datname), d.datdba,
    COALESCE(d.datacl, acldefault('d', d.datdba))
  FROM pg_database d WHERE d.datname = current_database()
  UNION ALL
  SELECT 'server', s.oid, 0, 'foreign server', '', s.srvname, '', format('FOREIGN SERVER %I', s.srvname), s.srvowner,
    COALESCE(s.srvacl, acldefault('S', s.srvowner))
  FROM pg_foreign_server s)
SELECT o.class, o.oid, o.sub, o.kind, o.nspname, o.name, o.more, o.target, pg_get_userbyid(o.owner),
  COALESCE((SELECT json_agg(json_build_array(e.privilege_type,
                CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END, e.is_grantable))
            FROM aclexplode(o.acl) e WHERE e.grantee <> o.owner), '[]')
FROM objects o
WHERE o.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"#;

/// Share of a schema's tables that has to have a grant before a new table without it is worth a note.
const SIBLING_SHARE: f64 = 0.8;

/// Fewest tables in a schema from which anything follows.
const FEWEST_SIBLINGS: usize = 3;

/// Reads them; `None` if the server refuses.
pub(super) async fn read(session: &CheckSession<'_>) -> Result<Option<Privileges>> {
    let Some(rows) = session.state(CheckKind::Privileges, OBJECTS).await? else { return Ok(None) };
    Ok(Some(
        rows.iter()
            .map(|row| {
                let class = text(row, 0);
                let (kind, schema, name, more) = (text(row, 3), text(row, 4), text(row, 5), text(row, 6));
                let default_for =
                    if class == "default" { format!("{schema} {name} {more}") } else { String::new() };
                let grants: Vec<(String, String, bool)> =
                    serde_json::from_str(&text(row, 9)).unwrap_or_default();
                let grants = grants
                    .into_iter()
                    .map(|(privilege, grantee, grantable)| Grant { grantee, privilege, grantable })
                    .collect();
                let key = ObjectKey { class, oid: number(row, 1), sub: number(row, 2), default_for };
                (key, Object { kind, schema, name, more, target: text(row, 7), owner: text(row, 8), grants })
            })
            .collect(),
    ))
}

impl Object {
    /// `view app.v`, `column email of table users`, `default privileges of role app for tables in schema shop`.
    fn label(&self) -> String {
        let name = QualifiedName::new(self.schema.as_str(), self.name.as_str()).short();
        match self.kind.as_str() {
            "column" => format!("column {} of {name}", printable(&self.more)),
            "function" | "procedure" => format!("{} {name}({})", self.kind, printable(&self.more)),
            "schema" | "database" | "foreign server" => format!("{} {}", self.kind, printable(&self.name)),
            "default privileges" => {
                let of = match self.more.as_str() {
                    "r" => "tables",
                    "S" => "sequences",
                    "f" => "functions",
                    "T" => "types",
                    "n" => "schemas",
                    _ => "objects",
                };
                let place = match self.schema.as_str() {
                    "" => String::new(),
                    schema => format!(" in schema {}", printable(schema)),
                };
                format!("default privileges of role {} for {of}{place}", printable(&self.name))
            }
            kind => format!("{kind} {name}"),
        }
    }

    /// What a person types to give `grants`; `None` for default privileges, whose syntax is their own.
    fn grant_sql<'a>(&self, grants: impl IntoIterator<Item = &'a Grant>) -> Option<String> {
        if self.target.is_empty() {
            return None;
        }
        let column = if self.kind == "column" {
            format!(" ({})", Ident::new(self.more.as_str()))
        } else {
            String::new()
        };
        let lines: Vec<String> = grants
            .into_iter()
            .map(|grant| {
                let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
                format!("GRANT {}{column} ON {} TO {}{option};", grant.privilege, self.target, grant.grantee)
            })
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// `SELECT, INSERT to app; SELECT to reader`.
fn told<'a>(grants: impl IntoIterator<Item = &'a Grant>) -> String {
    let mut by_role: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for grant in grants {
        let option = if grant.grantable { " with grant option" } else { "" };
        by_role.entry(&grant.grantee).or_default().push(format!("{}{option}", grant.privilege));
    }
    let parts: Vec<String> = by_role
        .into_iter()
        .map(|(role, privileges)| format!("{} to {}", privileges.join(", "), printable(role)))
        .collect();
    parts.join("; ")
}

/// What changed.
pub(super) fn compare(
    before: &Privileges,
    after: &Privileges,
    tables_after: &BTreeMap<u32, TableFacts>,
    accepted: &Accepted,
) -> Vec<Finding> {
    let by_name: BTreeMap<_, _> = after.iter().map(|(key, object)| (identity(key, object), key)).collect();
    let mut findings = Vec::new();
    for (key, then) in before {
        let (now_key, now, remade) = match after.get(key) {
            Some(now) => (key, Some(now), false),
            None => match by_name.get(&identity(key, then)) {
                Some(now_key) => (*now_key, after.get(*now_key), true),
                None => (key, None, false),
            },
        };
        match now {
            Some(now) => {
                let remade = remade && key.class != "default";
                findings.extend(changed(now_key, then, now, remade, accepted));
            }
            None if key.class == "column" => {
                // A column without any grant has no row: it is there if its table has it.
                let table = match tables_after.get(&key.oid) {
                    Some(facts) => facts.columns.contains_key(&key.sub).then_some((key.oid, facts, false)),
                    None => tables_after
                        .iter()
                        .find(|(_, facts)| {
                            facts.name.schema.as_str() == then.schema
                                && facts.name.name.as_str() == then.name
                                && facts.columns.values().any(|column| *column == then.more)
                        })
                        .map(|(oid, facts)| (*oid, facts, true)),
                };
                if let Some((oid, _, remade)) = table {
                    let now = Object { grants: BTreeSet::new(), ..then.clone() };
                    let key = ObjectKey { oid, ..key.clone() };
                    findings.extend(changed(&key, then, &now, remade, accepted));
                }
            }
            None if key.class == "default" => {
                let now = Object { grants: BTreeSet::new(), ..then.clone() };
                findings.extend(changed(key, then, &now, false, accepted));
            }
            None => {}
        }
    }
    findings.extend(new_tables(before, after));
    findings
}

/// What an object is called, whatever its oid. A view that becomes a table is the same to whoever reads it.
fn identity<'a>(key: &'a ObjectKey, object: &'a Object) -> (&'a str, &'a str, &'a str, &'a str) {
    (&key.class, &object.schema, &object.name, &object.more)
}

fn changed(key: &ObjectKey, then: &Object, now: &Object, remade: bool, accepted: &Accepted) -> Vec<Finding> {
    let announced = accepted.privileges;
    let mut findings = Vec::new();
    let label = now.label();
    let rule = |what: &str| RuleKey {
        check: CheckKind::Privileges,
        object_oid: key.oid,
        rule_oid: 0,
        rule: format!("{what} of {label}"),
    };
    let lost: Vec<&Grant> = then.grants.difference(&now.grants).collect();
    let gained: Vec<&Grant> = now.grants.difference(&then.grants).collect();
    let unsaid = if remade || announced { "" } else { ", and nothing in the migration was seen to do that" };
    let severity = if announced && !remade { Severity::Note } else { Severity::Failure };
    if then.owner != now.owner {
        let how = if remade { "was dropped and made again, and now" } else { "now" };
        let (was, is) = (printable(&then.owner), printable(&now.owner));
        let detail = format!("{label} {how} belongs to {is} and no longer to {was}{unsaid}");
        let mut finding = Finding::state(rule("owner"), label.clone(), &now.owner, detail);
        finding.severity = severity;
        if !now.target.is_empty() && now.kind != "column" {
            finding.repair_sql =
                Some(format!("ALTER {} OWNER TO {};", alter_target(now), Ident::new(then.owner.as_str())));
        }
        if now.kind != "column" {
            findings.push(finding);
        }
    }
    if !lost.is_empty() {
        let grants = told(lost.iter().copied());
        let detail = if remade {
            format!("{label} was dropped and made again without its grants: {grants}")
        } else {
            format!("{label} lost grants: {grants}{unsaid}")
        };
        let mut finding = Finding::state(rule("grants"), label.clone(), &grants, detail);
        let name = QualifiedName::new(now.schema.as_str(), now.name.as_str());
        finding.severity = if accepted.grants(&name) { Severity::Note } else { severity };
        finding.repair_sql = now.grant_sql(lost.iter().copied());
        findings.push(finding);
    }
    if !gained.is_empty() {
        let grants = told(gained.iter().copied());
        let detail = format!("{label} has new grants: {grants}{unsaid}");
        let mut finding = Finding::state(rule("new grants"), label.clone(), &grants, detail);
        // A table that was made again has the default privileges of today: more than before locks nobody out.
        finding.severity = if remade { Severity::Note } else { severity };
        findings.push(finding);
    }
    findings
}

/// ALTER wants the exact kind, where GRANT takes TABLE for all of them.
fn alter_target(object: &Object) -> String {
    let kind = match object.kind.as_str() {
        "view" => "VIEW",
        "materialized view" => "MATERIALIZED VIEW",
        "foreign table" => "FOREIGN TABLE",
        _ => return object.target.clone(),
    };
    object.target.replacen("TABLE", kind, 1)
}

/// New tables that lack what nearly all tables of their schema grant.
fn new_tables(before: &Privileges, after: &Privileges) -> Vec<Finding> {
    let names: BTreeSet<_> = before.iter().map(|(key, object)| identity(key, object)).collect();
    let is_table = |object: &Object| matches!(object.kind.as_str(), "table" | "view" | "materialized view");
    let mut notes = Vec::new();
    for (key, new) in after {
        if !is_table(new) || before.contains_key(key) || names.contains(&identity(key, new)) {
            continue;
        }
        let siblings: Vec<&Object> = after
            .iter()
            .filter(|(other, object)| {
                before.contains_key(*other) && object.kind == new.kind && object.schema == new.schema
            })
            .map(|(_, object)| object)
            .collect();
        if siblings.len() < FEWEST_SIBLINGS {
            continue;
        }
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for object in &siblings {
            let distinct: BTreeSet<(&str, &str)> = object
                .grants
                .iter()
                .map(|grant| (grant.grantee.as_str(), grant.privilege.as_str()))
                .collect();
            distinct.into_iter().for_each(|grant| *counts.entry(grant).or_default() += 1);
        }
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let usual = |count: usize| count as f64 >= siblings.len() as f64 * SIBLING_SHARE;
        let missing: Vec<Grant> = counts
            .into_iter()
            .filter(|(_, count)| usual(*count))
            .map(|((grantee, privilege), _)| Grant {
                grantee: grantee.to_owned(),
                privilege: privilege.to_owned(),
                grantable: false,
            })
            .filter(|grant| {
                grant.grantee != Ident::new(new.owner.as_str()).to_string()
                    && grant.grantee != new.owner
                    && !new
                        .grants
                        .iter()
                        .any(|has| has.grantee == grant.grantee && has.privilege == grant.privilege)
            })
            .collect();
        if missing.is_empty() {
            continue;
        }
        let label = new.label();
        let detail = format!(
            "new {label} lacks grants that nearly every {} of its schema has: {}",
            new.kind,
            told(&missing)
        );
        let rule = RuleKey {
            check: CheckKind::Privileges,
            object_oid: key.oid,
            rule_oid: 0,
            rule: format!("siblings' grants of {label}"),
        };
        let mut note = Finding::state(rule, label, "missing", detail);
        note.severity = Severity::Note;
        note.repair_sql = new.grant_sql(&missing);
        notes.push(note);
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(oid: u32) -> ObjectKey {
        ObjectKey { class: "relation".into(), oid, sub: 0, default_for: String::new() }
    }

    fn view(owner: &str, grants: &[(&str, &str)]) -> Object {
        Object {
            kind: "view".into(),
            schema: "public".into(),
            name: "v".into(),
            more: String::new(),
            target: "TABLE public.v".into(),
            owner: owner.into(),
            grants: grants
                .iter()
                .map(|(privilege, grantee)| Grant {
                    grantee: (*grantee).into(),
                    privilege: (*privilege).into(),
                    grantable: false,
                })
                .collect(),
        }
    }

    fn compared(then: (u32, Object), now: (u32, Object), announced: bool) -> Vec<(Severity, String)> {
        let before = [(key(then.0), then.1)].into();
        let after = [(key(now.0), now.1)].into();
        let accepted = Accepted { privileges: announced, ..Accepted::default() };
        compare(&before, &after, &BTreeMap::new(), &accepted)
            .into_iter()
            .map(|finding| (finding.severity, finding.detail))
            .collect()
    }

    #[test]
    fn a_view_made_again_without_its_grants_fails_and_one_with_them_does_not() {
        let with = view("app", &[("SELECT", "reader"), ("INSERT", "writer")]);
        assert_eq!(compared((1, with.clone()), (2, with.clone()), false), []);
        let found = compared((1, with), (2, view("other", &[("INSERT", "writer")])), true);
        assert_eq!(
            found,
            [
                (
                    Severity::Failure,
                    "view v was dropped and made again, and now belongs to other and no longer to app".into()
                ),
                (
                    Severity::Failure,
                    "view v was dropped and made again without its grants: SELECT to reader".into()
                ),
            ]
        );
    }

    #[test]
    fn a_change_fails_unless_the_sql_announces_it() {
        let (then, now) = (view("app", &[("SELECT", "reader")]), view("app", &[("SELECT", "PUBLIC")]));
        let announced = compared((1, then.clone()), (1, now.clone()), true);
        assert!(announced.iter().all(|(severity, _)| *severity == Severity::Note));
        let found = compared((1, then), (1, now), false);
        let unsaid = "and nothing in the migration was seen to do that";
        assert_eq!(
            found,
            [
                (Severity::Failure, format!("view v lost grants: SELECT to reader, {unsaid}")),
                (Severity::Failure, format!("view v has new grants: SELECT to PUBLIC, {unsaid}")),
            ]
        );
    }
}
