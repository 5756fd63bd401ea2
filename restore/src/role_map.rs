//! `--map-role OLD=NEW`: what belonged to OLD, or was granted to OLD, is NEW's in the restored database.
//!
//! The archive names OLD, and SQL is never rewritten. So OLD has to exist while the archive is read: where the server has
//! no such role, one is made that can't log in, and dropped at the end. Then everything that names OLD in the new database
//! is altered, object by object: REASSIGN OWNED and DROP OWNED would reach other databases as well, where an OLD of the
//! server's own may own something.
//!
//! What must come out is computed before: owners, privileges, default privileges, policies and user mappings as they are,
//! with the names replaced. All is done in one transaction and compared with that; any difference fails the restore.

mod sql;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use common::{
    Error, Ident, Result,
    catalog::{DatabaseState, ObjectGrant},
    ident::{literal, printable},
    interrupt,
    postgres::{Row, Session, ToSql},
    snapshot::Manifest,
};
use serde::Serialize;

use crate::facts::TargetFacts;

/// The comment by which a role that a restore made is known again, should the restore have been killed.
pub const TEMPORARY_ROLE_COMMENT: &str =
    "safe-run: made by restore --map-role for the time of a restore; may be dropped";

/// One mapping that will be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleMapping {
    /// The role that the snapshot names.
    pub from: String,
    /// The role that takes its place.
    pub to: String,
    /// Whether OLD is made for the time of the restore, and dropped afterwards.
    pub is_temporary: bool,
}

/// The name that stands for `role` in the restored database.
pub fn mapped<'a>(mappings: &'a [RoleMapping], role: &'a str) -> &'a str {
    mappings.iter().find(|mapping| mapping.from == role).map_or(role, |mapping| &mapping.to)
}

/// Decides which roles have to be made. What can't be mapped goes to `reasons`.
pub fn plan(
    wanted: &[(String, String)],
    manifest: &Manifest,
    facts: &TargetFacts,
    reasons: &mut Vec<String>,
) -> Vec<RoleMapping> {
    let mut mappings: Vec<RoleMapping> = Vec::new();
    for (from, to) in wanted {
        let (old, new) = (printable(from), printable(to));
        // One pass over the objects: with a role on both sides, the order would decide what comes out.
        if wanted.iter().any(|(other, _)| other == to) {
            reasons.push(format!("--map-role names the role \"{new}\" as an old and as a new one"));
        }
        if wanted.iter().filter(|(other, _)| other == from).count() > 1 {
            reasons.push(format!("--map-role names the role \"{old}\" twice"));
        }
        if !manifest.roles.iter().any(|role| role.name == *from) {
            reasons.push(format!("the snapshot names no role \"{old}\" that could be mapped"));
        }
        if !facts.roles.contains(to) {
            reasons
                .push(format!("the server has no role \"{new}\", which shall take the place of \"{old}\""));
        }
        let is_temporary = !facts.roles.contains(from) || facts.temporary_roles.contains(from);
        if !facts.is_superuser {
            if facts.roles.contains(to) && !facts.member_of.contains(to) {
                reasons.push(format!("the restoring role is no member of \"{new}\" and may give it nothing"));
            }
            if is_temporary && !facts.may_create_roles {
                reasons.push(format!(
                    "the role \"{old}\" has to be made for the time of the restore, which needs CREATEROLE"
                ));
            } else if !is_temporary && !facts.member_of.contains(from) {
                reasons.push(format!("the restoring role is no member of \"{old}\""));
            }
        }
        mappings.push(RoleMapping { from: from.clone(), to: to.clone(), is_temporary });
    }
    reasons.dedup();
    mappings
}

/// The state of the database itself with the roles mapped.
pub fn mapped_state(mappings: &[RoleMapping], state: &DatabaseState) -> DatabaseState {
    let mut state = state.clone();
    let replace = |role: &mut String| *role = mapped(mappings, role).to_owned();
    replace(&mut state.owner);
    for grant in state.acl.iter_mut().flatten() {
        replace(&mut grant.grantor);
        grant.grantee.iter_mut().for_each(replace);
    }
    for setting in &mut state.settings {
        setting.role.iter_mut().for_each(replace);
    }
    state
}

/// A snapshot's grants with the roles mapped.
pub fn mapped_grants(mappings: &[RoleMapping], grants: &[ObjectGrant]) -> Vec<ObjectGrant> {
    let mut grants = grants.to_vec();
    for role in grants.iter_mut().filter_map(|grant| grant.grantee.as_mut()) {
        *role = mapped(mappings, role).to_owned();
    }
    grants
}

/// Makes the roles that the archive names and the server has not. They can't log in and have no rights.
pub async fn make_temporary_roles(maintenance: &Session, mappings: &[RoleMapping]) -> Result<()> {
    let failed = |role: &str, source| {
        let what = format!("could not make the role \"{}\" for the time of the restore", printable(role));
        let error = Error::postgres(what, source).with_database_state("No database was changed.");
        match error.sqlstate() {
            Some("42501") => error.with_hint(
                "--map-role needs a superuser, or CREATEROLE where the old role does not exist on the server.",
            ),
            _ => error,
        }
    };
    for mapping in mappings.iter().filter(|mapping| mapping.is_temporary) {
        let role = Ident::new(&*mapping.from);
        // Two restores at once may want the same one.
        let create = maintenance.batch_execute(&format!("CREATE ROLE {role} NOLOGIN")).await;
        match create {
            Ok(()) => {}
            Err(source) if source.code().is_some_and(|code| code.code() == "42710") => {}
            Err(source) => return Err(failed(&mapping.from, source)),
        }
        let mut statements = vec![format!("COMMENT ON ROLE {role} IS {}", literal(TEMPORARY_ROLE_COMMENT))];
        // A role that is no superuser may not give objects to a role that it is no member of.
        let is_member = "SELECT pg_catalog.pg_has_role(current_user, $1::text::name, 'USAGE')";
        let row = maintenance
            .query_one(is_member, &[&mapping.from])
            .await
            .map_err(|source| failed(&mapping.from, source))?;
        if !row.get::<_, bool>(0) {
            statements.push(format!("GRANT {role} TO CURRENT_USER"));
        }
        for statement in statements {
            maintenance.batch_execute(&statement).await.map_err(|source| failed(&mapping.from, source))?;
        }
    }
    Ok(())
}

/// Drops them again; what could not be dropped comes back as sentences. PostgreSQL drops no role that anything depends on.
pub async fn drop_temporary_roles(maintenance: &Session, mappings: &[RoleMapping]) -> Vec<String> {
    let _undo = interrupt::begin_undo().await;
    let mut left = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.is_temporary) {
        let statement = format!("DROP ROLE IF EXISTS {}", Ident::new(&*mapping.from));
        let mut result = maintenance.batch_execute(&statement).await;
        // A cancel request of a signal may come as late as this, once.
        if result.as_ref().is_err_and(|source| source.code().is_some_and(|code| code.code() == "57014")) {
            result = maintenance.batch_execute(&statement).await;
        }
        if let Err(source) = result {
            let error = Error::postgres("it could not be dropped", source);
            left.push(format!(
                "the role \"{}\", made for the time of the restore, is still there: {error}",
                printable(&mapping.from)
            ));
        }
    }
    left
}

/// Who has what: everything in a database that names a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rights {
    /// Object → owner.
    owners: BTreeMap<Object, String>,
    /// Privilege → whether it may be passed on.
    privileges: BTreeMap<Privilege, bool>,
    /// Default privileges, by role, schema and kind.
    defaults: BTreeMap<DefaultFor, BTreeMap<(Option<String>, String), bool>>,
    /// Policy (relation, name) → roles.
    policies: BTreeMap<(String, String), BTreeSet<Option<String>>>,
    /// User mapping (server, role) → options.
    user_mappings: BTreeMap<(String, Option<String>), Options>,
}

/// Options of a user mapping: names and values.
type Options = Vec<(String, String)>;

/// An object, or a column of it.
type Granted<'a> = (&'a Object, Option<&'a (String, String)>);

/// The privileges on one object or column, each with whether it may be passed on.
type Held<'a> = Vec<(&'a Privilege, bool)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    /// Schemas come first: an owner needs rights on the schema before it can own what is in it.
    is_inside: bool,
    kind: String,
    identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Privilege {
    object: Object,
    /// Relation and column, where the object is a column.
    column: Option<(String, String)>,
    owner: String,
    /// What PostgreSQL or an extension made stays its owner's, and what the owner gave or has there stays so too.
    keeps_owner: bool,
    grantor: String,
    grantee: Option<String>,
    privilege: String,
}

impl Privilege {
    /// The name that takes the place of a role in it.
    fn name_after<'a>(&self, mappings: &'a [RoleMapping], role: &'a str) -> &'a str {
        if self.keeps_owner && role == self.owner { role } else { mapped(mappings, role) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DefaultFor {
    role: String,
    schema: Option<String>,
    kind: String,
}

impl Rights {
    async fn read(session: &Session) -> Result<Self> {
        let query = async |statement: &str| -> Result<Vec<Row>> {
            let none: [&(dyn ToSql + Sync); 0] = [];
            session
                .query(statement, &none)
                .await
                .map_err(|source| Error::postgres("could not read who owns what in the new database", source))
        };
        let object = |row: &Row| {
            let kind: String = row.get("type");
            Object { is_inside: kind != "schema", kind, identity: row.get("identity") }
        };
        let mut rights = Self::default();
        for row in &query(sql::OWNERS).await? {
            rights.owners.insert(object(row), row.get("owner"));
        }
        for row in &query(sql::PRIVILEGES).await? {
            let relation: Option<String> = row.get("relation");
            let privilege = Privilege {
                object: object(row),
                column: relation.zip(row.get("attribute")),
                owner: row.get("owner"),
                keeps_owner: row.get("keeps_owner"),
                grantor: row.get("grantor"),
                grantee: row.get("grantee"),
                privilege: row.get("privilege_type"),
            };
            *rights.privileges.entry(privilege).or_default() |= row.get::<_, bool>("is_grantable");
        }
        for row in &query(sql::DEFAULT_PRIVILEGES).await? {
            let key = DefaultFor { role: row.get("role"), schema: row.get("schema"), kind: row.get("kind") };
            let entries = rights.defaults.entry(key).or_default();
            if let Some(privilege) = row.get::<_, Option<String>>("privilege_type") {
                *entries.entry((row.get("grantee"), privilege)).or_default() |=
                    row.get::<_, bool>("is_grantable");
            }
        }
        for row in &query(sql::POLICIES).await? {
            let roles: Vec<Option<String>> = row.get("roles");
            rights.policies.insert((row.get("relation"), row.get("name")), roles.into_iter().collect());
        }
        for row in &query(sql::USER_MAPPINGS).await? {
            let names: Vec<String> = row.get("names");
            let values: Vec<String> = row.get("values");
            rights
                .user_mappings
                .insert((row.get("server"), row.get("role")), names.into_iter().zip(values).collect());
        }
        Ok(rights)
    }

    /// The same with every name replaced. Two roles that become one have what either had.
    ///
    /// # Errors
    /// Refused where that has no meaning: default privileges and user mappings that both roles have, and differ.
    fn mapped(&self, mappings: &[RoleMapping]) -> Result<Self> {
        let name = |role: &String| mapped(mappings, role).to_owned();
        let conflict = |what: String| {
            Error::refused(format!(
                "both the mapped role and the one that takes its place have {what}, and they differ"
            ))
            .with_hint(
                "Map the role to one that the snapshot does not name, and merge the two by hand afterwards.",
            )
        };
        let mut out = Self::default();
        for (object, owner) in &self.owners {
            out.owners.insert(object.clone(), name(owner));
        }
        for (privilege, is_grantable) in &self.privileges {
            let mut privilege = privilege.clone();
            let name = |role: &String| privilege.name_after(mappings, role).to_owned();
            privilege = Privilege {
                owner: name(&privilege.owner),
                grantor: name(&privilege.grantor),
                grantee: privilege.grantee.as_ref().map(name),
                ..privilege
            };
            *out.privileges.entry(privilege).or_default() |= is_grantable;
        }
        for (key, entries) in &self.defaults {
            let mut changed = BTreeMap::new();
            for ((grantee, privilege), is_grantable) in entries {
                *changed.entry((grantee.as_ref().map(name), privilege.clone())).or_default() |= is_grantable;
            }
            let key = DefaultFor { role: name(&key.role), ..key.clone() };
            if out.defaults.get(&key).is_some_and(|other| *other != changed) {
                return Err(conflict(format!("default privileges for {}", kind_of_objects(&key.kind))));
            }
            out.defaults.insert(key, changed);
        }
        for (policy, roles) in &self.policies {
            let roles = roles.iter().map(|role| role.as_ref().map(name)).collect();
            out.policies.insert(policy.clone(), roles);
        }
        for ((server, role), options) in &self.user_mappings {
            let key = (server.clone(), role.as_ref().map(name));
            if out.user_mappings.get(&key).is_some_and(|other| other != options) {
                return Err(conflict(format!("a user mapping for the server \"{}\"", printable(server))));
            }
            out.user_mappings.insert(key, options.clone());
        }
        Ok(out)
    }

    /// What is only here, as a person reads it.
    fn beyond(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (object, owner) in &self.owners {
            if other.owners.get(object) != Some(owner) {
                lines.push(format!("{} {} of {owner}", object.kind, object.identity));
            }
        }
        for (privilege, is_grantable) in &self.privileges {
            if other.privileges.get(privilege) != Some(is_grantable) {
                let grantee = privilege.grantee.as_deref().unwrap_or("PUBLIC");
                lines.push(format!(
                    "{} on {} {} to {grantee} by {}",
                    privilege.privilege, privilege.object.kind, privilege.object.identity, privilege.grantor
                ));
            }
        }
        for (key, entries) in &self.defaults {
            if other.defaults.get(key) != Some(entries) {
                lines.push(format!("default privileges of {} for {}", key.role, kind_of_objects(&key.kind)));
            }
        }
        for (policy, roles) in &self.policies {
            if other.policies.get(policy) != Some(roles) {
                lines.push(format!("policy {} on {}", policy.1, policy.0));
            }
        }
        for (key, options) in &self.user_mappings {
            if other.user_mappings.get(key) != Some(options) {
                lines.push(format!("user mapping of {} for {}", key.1.as_deref().unwrap_or("PUBLIC"), key.0));
            }
        }
        lines.iter().map(|line| printable(line)).collect()
    }
}

/// Carries the mappings out in the database of `session`, and proves that exactly they were.
///
/// # Errors
/// The server's refusal, with the object; refused for what has no meaning under the new names. Nothing was changed then.
pub async fn apply(session: &Session, mappings: &[RoleMapping]) -> Result<()> {
    if mappings.is_empty() {
        return Ok(());
    }
    let failed = |source| Error::postgres("could not map the roles", source);
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let before = Rights::read(session).await?;
    let wanted = before.mapped(mappings)?;
    for statement in owner_statements(&before, mappings)? {
        run(session, &statement).await?;
    }
    // Giving an object away has taken the owner's own privileges along.
    let owned = Rights::read(session).await?;
    for statement in privilege_statements(&owned, mappings)? {
        run(session, &statement).await?;
    }
    apply_default_privileges(session, &before, &wanted).await?;
    for statement in
        policy_statements(&before, &wanted).into_iter().chain(user_mapping_statements(&before, mappings))
    {
        run(session, &statement).await?;
    }
    let after = Rights::read(session).await?;
    let differences: Vec<String> = wanted
        .beyond(&after)
        .into_iter()
        .map(|line| format!("missing: {line}"))
        .chain(after.beyond(&wanted).into_iter().map(|line| format!("left: {line}")))
        .collect();
    if !differences.is_empty() {
        return Err(not_exact(&differences));
    }
    session.batch_execute("COMMIT").await.map_err(failed)
}

fn not_exact(differences: &[String]) -> Error {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = differences.iter().take(SHOWN).map(String::as_str).collect();
    Error::refused(format!(
        "the roles could not be mapped exactly, {} differences: {}",
        differences.len(),
        shown.join("; ")
    ))
    .with_hint("Restore without --map-role for these roles, and change the named objects by hand.")
}

/// Gives the event triggers of mapped roles to those that take their place; they are made after everything else was mapped.
pub async fn apply_to_event_triggers(session: &Session, mappings: &[RoleMapping]) -> Result<()> {
    if mappings.is_empty() {
        return Ok(());
    }
    let mut before = Rights::read(session).await?;
    before.owners.retain(|object, _| object.kind == "event trigger");
    for statement in owner_statements(&before, mappings)? {
        run(session, &statement).await?;
    }
    Ok(())
}

/// Which objects have privileges of their own, and who owns each, named as grants name them.
pub async fn owned(session: &Session) -> Result<HashSet<(String, String)>> {
    let rights = Rights::read(session).await?;
    let object = |privilege: &Privilege| format!("{} {}", privilege.object.kind, privilege.object.identity);
    Ok(rights.privileges.keys().map(|privilege| (object(privilege), privilege.owner.clone())).collect())
}

/// One step. `what` names the object; the statement itself may hold a user mapping's password.
struct Step {
    sql: String,
    what: String,
}

async fn run(session: &Session, step: &Step) -> Result<()> {
    session.batch_execute(&step.sql).await.map_err(|source| {
        explain(Error::postgres(format!("could not map the roles of {}", printable(&step.what)), source))
    })
}

fn explain(error: Error) -> Error {
    match error.sqlstate() {
        Some("42501") => error.with_hint(
            "Restore as a superuser, or as a member of both roles; the new role needs CREATE on the schemas.",
        ),
        _ => error,
    }
}

/// The word of `ALTER … OWNER TO` for a kind of object as PostgreSQL identifies it; none where there is no such statement.
fn keyword(kind: &str) -> Option<&'static str> {
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

fn owner_statements(before: &Rights, mappings: &[RoleMapping]) -> Result<Vec<Step>> {
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
fn privilege_statements(rights: &Rights, mappings: &[RoleMapping]) -> Result<Vec<Step>> {
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
fn kind_of_objects(kind: &str) -> &'static str {
    match kind {
        "r" => "TABLES",
        "S" => "SEQUENCES",
        "f" => "ROUTINES",
        "T" => "TYPES",
        "n" => "SCHEMAS",
        _ => "LARGE OBJECTS",
    }
}

type Entries = BTreeMap<(Option<String>, String), bool>;

async fn apply_default_privileges(session: &Session, before: &Rights, wanted: &Rights) -> Result<()> {
    let keys: BTreeSet<&DefaultFor> = before.defaults.keys().chain(wanted.defaults.keys()).collect();
    for key in keys {
        let (have, want) = (before.defaults.get(key), wanted.defaults.get(key));
        if have == want {
            continue;
        }
        // A row for all schemas replaces PostgreSQL's own default, one for a schema comes on top of it.
        let default = if key.schema.is_none() { hard_wired(session, key).await? } else { Entries::new() };
        for sql in default_privilege_statements(key, have.unwrap_or(&default), want.unwrap_or(&default)) {
            let what = format!("default privileges of {}", key.role);
            run(session, &Step { sql, what }).await?;
        }
    }
    Ok(())
}

async fn hard_wired(session: &Session, key: &DefaultFor) -> Result<Entries> {
    let rows = session
        .query(sql::HARD_WIRED, &[&key.role, &key.kind])
        .await
        .map_err(|source| Error::postgres("could not read the default privileges", source))?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}

fn default_privilege_statements(key: &DefaultFor, have: &Entries, want: &Entries) -> Vec<String> {
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

fn policy_statements(before: &Rights, wanted: &Rights) -> Vec<Step> {
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

fn user_mapping_statements(before: &Rights, mappings: &[RoleMapping]) -> Vec<Step> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_may_not_give_objects_away_is_told_which_one_may() {
        let error = |state: &str| explain(Error::failed("could not map").with_sqlstate(state));
        assert!(error("42501").hint().unwrap().starts_with("Restore as a superuser, or as a member of both"));
        assert_eq!(error("42704").hint(), None);
    }

    #[test]
    fn an_objects_kind_gives_the_word_that_alters_its_owner() {
        for (object, expected) in [
            ("table app.orders", Some(("TABLE", "app.orders"))),
            ("materialized view app.\"table x\"", Some(("MATERIALIZED VIEW", "app.\"table x\""))),
            ("operator class app.c USING btree", Some(("OPERATOR CLASS", "app.c USING btree"))),
            ("operator app.+(integer,integer)", Some(("OPERATOR", "app.+(integer,integer)"))),
            ("aggregate app.a(integer)", Some(("ROUTINE", "app.a(integer)"))),
            ("foreign-data wrapper w", Some(("FOREIGN DATA WRAPPER", "w"))),
            ("extension hstore", None),
            ("large object 7", None),
        ] {
            assert_eq!(alterable(object), expected, "{object}");
        }
        assert_eq!(keyword("large object"), Some("LARGE OBJECT"));
    }

    fn mapping(from: &str, to: &str) -> RoleMapping {
        RoleMapping { from: from.into(), to: to.into(), is_temporary: false }
    }

    fn grant(grantor: &str, grantee: &str, privilege: &str) -> Privilege {
        Privilege {
            object: Object { is_inside: true, kind: "table".into(), identity: "app.t".into() },
            column: None,
            owner: "owner".into(),
            keeps_owner: false,
            grantor: grantor.into(),
            grantee: Some(grantee.into()),
            privilege: privilege.into(),
        }
    }

    #[test]
    fn grants_that_rest_on_others_come_after_them_and_in_their_givers_name() {
        let mut rights = Rights::default();
        rights.privileges.insert(grant("owner", "old", "SELECT"), true);
        rights.privileges.insert(grant("old", "aaron", "SELECT"), false);
        let steps = privilege_statements(&rights, &[mapping("old", "new")]).unwrap();
        let sql: Vec<&str> = steps.iter().map(|step| &*step.sql).collect();
        assert_eq!(
            sql,
            [
                "GRANT SELECT ON TABLE app.t TO \"new\" WITH GRANT OPTION",
                "SET LOCAL ROLE \"new\"; GRANT SELECT ON TABLE app.t TO \"aaron\"; RESET ROLE",
                "REVOKE SELECT ON TABLE app.t FROM \"old\" CASCADE",
            ]
        );
    }

    #[test]
    fn what_can_not_be_mapped_is_named_with_the_way_around_it() {
        // A grant whose giver has it from nobody.
        let mut rights = Rights::default();
        rights.privileges.insert(grant("old", "aaron", "SELECT"), false);
        let circle = privilege_statements(&rights, &[mapping("old", "new")]).map(drop).unwrap_err();
        assert_eq!(circle.message(), "the grants on table app.t rest on each other");
        assert_eq!(
            circle.hint(),
            Some("Restore without --map-role for these roles, and change its grants by hand.")
        );
        // A kind of object that no statement is known for.
        let object = Object { is_inside: true, kind: "parcel".into(), identity: "app.p".into() };
        let mut rights = Rights::default();
        rights.owners.insert(object, "old".into());
        let unknown = owner_statements(&rights, &[mapping("old", "new")]).map(drop).unwrap_err();
        assert_eq!(unknown.message(), "the owner of the parcel app.p can't be mapped");
        assert_eq!(unknown.hint(), Some("Restore without --map-role for its owner, and change it by hand."));
        let left = not_exact(&["left: x".to_owned()]);
        assert_eq!(left.message(), "the roles could not be mapped exactly, 1 differences: left: x");
        assert_eq!(
            left.hint(),
            Some("Restore without --map-role for these roles, and change the named objects by hand.")
        );
    }

    #[test]
    fn default_privileges_that_both_roles_have_must_be_the_same() {
        let key = |role: &str| DefaultFor { role: role.into(), schema: None, kind: "r".into() };
        let entry = |grantee: &str| Entries::from([((Some(grantee.into()), "SELECT".into()), false)]);
        let mut rights = Rights::default();
        rights.defaults.insert(key("old"), entry("x"));
        rights.defaults.insert(key("new"), entry("y"));
        assert!(
            rights.mapped(&[mapping("old", "new")]).unwrap_err().message().contains("default privileges")
        );
        rights.defaults.insert(key("new"), entry("x"));
        assert_eq!(rights.mapped(&[mapping("old", "new")]).unwrap().defaults.len(), 1);
    }
}
