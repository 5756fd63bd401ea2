//! `--map-role OLD=NEW`: what belonged to OLD, or was granted to OLD, is NEW's in the restored database.
//!
//! The archive names OLD, and SQL is never rewritten. So OLD has to exist while the archive is read: where the server has
//! no such role, one is made that can't log in, and dropped at the end. Then everything that names OLD in the new database
//! is altered, object by object: REASSIGN OWNED and DROP OWNED would reach other databases as well, where an OLD of the
//! server's own may own something.
//!
//! What must come out is computed before: owners, privileges, default privileges, policies and user mappings as they are,
//! with the names replaced. All is done in one transaction and compared with that; any difference fails the restore.

mod rights;
mod sql;
mod statements;

use std::collections::{BTreeSet, HashSet};

use common::{
    Error, Ident, Result,
    catalog::{DatabaseState, ObjectGrant},
    ident::{literal, printable},
    interrupt,
    postgres::Session,
    snapshot::Manifest,
};
use serde::Serialize;

use crate::{
    facts::TargetFacts,
    role_map::{
        rights::{DefaultFor, Privilege, Rights},
        statements::{
            Entries, Step, default_privilege_statements, owner_statements, policy_statements,
            privilege_statements, user_mapping_statements,
        },
    },
};

pub use statements::alterable;

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

#[cfg(test)]
mod tests;
