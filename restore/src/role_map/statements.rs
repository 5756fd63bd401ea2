//! The statements that make the old names the new ones, in their order.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, Ident, Result,
    ident::{literal, printable},
};

use super::{
    RoleMapping,
    rights::{DefaultFor, Granted, Held, Privilege, Rights},
};

/// One step. `what` names the object; the statement itself may hold a user mapping's password.
pub(super) struct Step {
    pub(super) sql: String,
    pub(super) what: String,
}

/// The word of `ALTER … OWNER TO` for a kind of object as PostgreSQL identifies it; none where there is no such statement.
pub(super) fn keyword(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "function" | "procedure" | "aggregate" => "ROUTINE",
        "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
        "statistics object" => "STATISTICS",
        "large object" => "LARGE OBJECT",
        _ => *KINDS.iter().find(|known| known.eq_ignore_ascii_case(kind))?,
    })
}

/// Kinds of objects whose name is also their statement's, longer ones before those that they begin with.
const KINDS: [&str; 20] = [
    "MATERIALIZED VIEW",
    "FOREIGN TABLE",
    "TABLE",
    "VIEW",
    "SEQUENCE",
    "SCHEMA",
    "TYPE",
    "DOMAIN",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "OPERATOR",
    "COLLATION",
    "CONVERSION",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "LANGUAGE",
    "SERVER",
    "EVENT TRIGGER",
    "PUBLICATION",
    "SUBSCRIPTION",
];

/// The word of `ALTER … OWNER TO` and the identity of an object such as `table app.orders`.
pub fn alterable(object: &str) -> Option<(&'static str, &str)> {
    let others = ["function", "procedure", "aggregate", "foreign-data wrapper", "statistics object"];
    let kinds = KINDS.iter().copied().chain(others);
    kinds
        .filter_map(|kind| {
            let head = object.get(..kind.len())?;
            let rest = object.get(kind.len()..)?.strip_prefix(' ')?;
            head.eq_ignore_ascii_case(kind).then_some((keyword(head)?, rest))
        })
        .next()
}

pub(super) fn owner_statements(before: &Rights, mappings: &[RoleMapping]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (object, owner) in &before.owners {
        let Some(mapping) = mappings.iter().find(|mapping| mapping.from == *owner) else { continue };
        let Some(keyword) = keyword(&object.kind) else {
            return Err(Error::refused(format!(
                "the owner of the {} {} can't be mapped",
                object.kind,
                printable(&object.identity)
            ))
            .with_hint("Restore without --map-role for its owner, and change it by hand."));
        };
        let what = format!("{} {}", object.kind, object.identity);
        let to = Ident::new(&*mapping.to);
        steps.push(Step { sql: format!("ALTER {keyword} {} OWNER TO {to}", object.identity), what });
    }
    Ok(steps)
}

/// `ON TABLE x` and the like, with the column list that goes with the privilege.
fn grant_target(privilege: &Privilege) -> (String, String) {
    if let Some((relation, column)) = &privilege.column {
        return (format!(" ({})", Ident::new(&**column)), format!("TABLE {relation}"));
    }
    let keyword = match &*privilege.object.kind {
        "function" | "procedure" | "aggregate" => "ROUTINE",
        "sequence" => "SEQUENCE",
        "schema" => "SCHEMA",
        "type" | "domain" => "TYPE",
        "language" => "LANGUAGE",
        "large object" => "LARGE OBJECT",
        "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
        "server" => "FOREIGN SERVER",
        // Tables, views, foreign tables.
        _ => "TABLE",
    };
    (String::new(), format!("{keyword} {}", privilege.object.identity))
}

fn role_name(role: Option<&str>) -> String {
    role.map_or_else(|| "PUBLIC".to_owned(), |role| Ident::new(role).to_string())
}

/// Gives again, under the new names, whatever names an old role, and then takes the old away.
///
/// A grant is made by who made it: the owner's come from the owner whoever runs the statement; for others the role is
/// changed for the statement. Grants that rest on others come after them.
pub(super) fn privilege_statements(rights: &Rights, mappings: &[RoleMapping]) -> Result<Vec<Step>> {
    let is_old = |entry: &Privilege, role: &str| entry.name_after(mappings, role) != role;
    let as_grantor = |sql: String, grantor: &str, owner: &str| {
        if grantor == owner {
            sql
        } else {
            format!("SET LOCAL ROLE {}; {sql}; RESET ROLE", Ident::new(grantor))
        }
    };
    let mut by_object: BTreeMap<Granted<'_>, Held<'_>> = BTreeMap::new();
    for (privilege, is_grantable) in &rights.privileges {
        by_object
            .entry((&privilege.object, privilege.column.as_ref()))
            .or_default()
            .push((privilege, *is_grantable));
    }
    let mut steps = Vec::new();
    for ((object, _), entries) in by_object {
        let is_to_old = |entry: &Privilege| entry.grantee.as_deref().is_some_and(|role| is_old(entry, role));
        let names_old = |entry: &Privilege| is_old(entry, &entry.grantor) || is_to_old(entry);
        if !entries.iter().any(|(entry, _)| names_old(entry)) {
            continue;
        }
        let what = format!("{} {}", object.kind, object.identity);
        // Who may pass what on, under the new names.
        let mut holds: BTreeSet<(String, String)> = entries
            .iter()
            .filter(|(entry, is_grantable)| *is_grantable && !names_old(entry))
            .filter_map(|(entry, _)| Some((entry.grantee.clone()?, entry.privilege.clone())))
            .collect();
        let mut waiting: Vec<_> = entries.iter().filter(|(entry, _)| names_old(entry)).collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|(entry, is_grantable)| {
                let grantor = entry.name_after(mappings, &entry.grantor).to_owned();
                if grantor != entry.owner && !holds.contains(&(grantor.clone(), entry.privilege.clone())) {
                    return true;
                }
                let grantee = entry.grantee.as_deref().map(|role| entry.name_after(mappings, role));
                let (columns, target) = grant_target(entry);
                let option = if *is_grantable { " WITH GRANT OPTION" } else { "" };
                let sql = format!(
                    "GRANT {}{columns} ON {target} TO {}{option}",
                    entry.privilege,
                    role_name(grantee)
                );
                steps.push(Step { sql: as_grantor(sql, &grantor, &entry.owner), what: what.clone() });
                if let (Some(grantee), true) = (grantee, *is_grantable) {
                    holds.insert((grantee.to_owned(), entry.privilege.clone()));
                }
                false
            });
            if waiting.len() == before {
                return Err(Error::refused(format!("the grants on {} rest on each other", printable(&what)))
                    .with_hint(
                        "Restore without --map-role for these roles, and change its grants by hand.",
                    ));
            }
        }
        // What the old roles gave goes with what they held.
        for (entry, _) in entries.iter().filter(|(entry, _)| is_to_old(entry)) {
            if is_old(entry, &entry.grantor) {
                continue;
            }
            let (columns, target) = grant_target(entry);
            let grantee = role_name(entry.grantee.as_deref());
            let sql = format!("REVOKE {}{columns} ON {target} FROM {grantee} CASCADE", entry.privilege);
            steps.push(Step { sql: as_grantor(sql, &entry.grantor, &entry.owner), what: what.clone() });
        }
    }
    Ok(steps)
}

/// The plural that ALTER DEFAULT PRIVILEGES takes.
pub(super) fn kind_of_objects(kind: &str) -> &'static str {
    match kind {
        "r" => "TABLES",
        "S" => "SEQUENCES",
        "f" => "ROUTINES",
        "T" => "TYPES",
        "n" => "SCHEMAS",
        _ => "LARGE OBJECTS",
    }
}

pub(super) type Entries = BTreeMap<(Option<String>, String), bool>;

pub(super) fn default_privilege_statements(key: &DefaultFor, have: &Entries, want: &Entries) -> Vec<String> {
    let schema =
        key.schema.as_ref().map_or(String::new(), |schema| format!(" IN SCHEMA {}", Ident::new(&**schema)));
    let prefix = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{schema}", Ident::new(&*key.role));
    let objects = kind_of_objects(&key.kind);
    let grantees: BTreeSet<&Option<String>> = have.keys().map(|(grantee, _)| grantee).collect();
    let revokes = grantees
        .into_iter()
        .map(|grantee| format!("{prefix} REVOKE ALL ON {objects} FROM {}", role_name(grantee.as_deref())));
    let grants = want.iter().map(|((grantee, privilege), is_grantable)| {
        let option = if *is_grantable { " WITH GRANT OPTION" } else { "" };
        format!("{prefix} GRANT {privilege} ON {objects} TO {}{option}", role_name(grantee.as_deref()))
    });
    revokes.chain(grants).collect()
}

pub(super) fn policy_statements(before: &Rights, wanted: &Rights) -> Vec<Step> {
    before
        .policies
        .iter()
        .filter_map(|(policy, roles)| Some((policy, roles, wanted.policies.get(policy)?)))
        .filter(|(_, roles, wanted)| roles != wanted)
        .map(|((relation, name), _, wanted)| {
            let roles: Vec<String> = wanted.iter().map(|role| role_name(role.as_deref())).collect();
            Step {
                sql: format!("ALTER POLICY {} ON {relation} TO {}", Ident::new(&**name), roles.join(", ")),
                what: format!("policy {name} on {relation}"),
            }
        })
        .collect()
}

pub(super) fn user_mapping_statements(before: &Rights, mappings: &[RoleMapping]) -> Vec<Step> {
    let mut steps = Vec::new();
    for ((server, role), options) in &before.user_mappings {
        let Some(mapping) =
            role.as_ref().and_then(|role| mappings.iter().find(|mapping| mapping.from == *role))
        else {
            continue;
        };
        let (name, to, from) = (Ident::new(&**server), Ident::new(&*mapping.to), Ident::new(&*mapping.from));
        let pairs: Vec<String> = options
            .iter()
            .map(|(option, value)| format!("{} {}", Ident::new(&**option), literal(value)))
            .collect();
        let options =
            if pairs.is_empty() { String::new() } else { format!(" OPTIONS ({})", pairs.join(", ")) };
        steps.push(Step {
            sql: format!(
                "CREATE USER MAPPING IF NOT EXISTS FOR {to} SERVER {name}{options}; DROP USER MAPPING FOR {from} SERVER {name}"
            ),
            what: format!("user mapping for {server}"),
        });
    }
    steps
}
