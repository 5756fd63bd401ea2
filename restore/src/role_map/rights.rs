//! Who owns what and who may do what in a database, and how it shall be under the new names.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, Result,
    ident::printable,
    postgres::{Row, Session, ToSql},
};

use super::{RoleMapping, mapped, statements::kind_of_objects};

/// Who has what: everything in a database that names a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// Object → owner.
    pub(super) owners: BTreeMap<Object, String>,
    /// Privilege → whether it may be passed on.
    pub(super) privileges: BTreeMap<Privilege, bool>,
    /// Default privileges, by role, schema and kind.
    pub(super) defaults: BTreeMap<DefaultFor, BTreeMap<(Option<String>, String), bool>>,
    /// Policy (relation, name) → roles.
    pub(super) policies: BTreeMap<(String, String), BTreeSet<Option<String>>>,
    /// User mapping (server, role) → options.
    pub(super) user_mappings: BTreeMap<(String, Option<String>), Options>,
}

/// Options of a user mapping: names and values.
type Options = Vec<(String, String)>;

/// An object, or a column of it.
pub(super) type Granted<'a> = (&'a Object, Option<&'a (String, String)>);

/// The privileges on one object or column, each with whether it may be passed on.
pub(super) type Held<'a> = Vec<(&'a Privilege, bool)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// Schemas come first: an owner needs rights on the schema before it can own what is in it.
    pub(super) is_inside: bool,
    pub(super) kind: String,
    pub(super) identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Privilege {
    pub(super) object: Object,
    /// Relation and column, where the object is a column.
    pub(super) column: Option<(String, String)>,
    pub(super) owner: String,
    /// What PostgreSQL or an extension made stays its owner's, and what the owner gave or has there stays so too.
    pub(super) keeps_owner: bool,
    pub(super) grantor: String,
    pub(super) grantee: Option<String>,
    pub(super) privilege: String,
}

impl Privilege {
    /// The name that takes the place of a role in it.
    pub(super) fn name_after<'a>(&self, mappings: &'a [RoleMapping], role: &'a str) -> &'a str {
        if self.keeps_owner && role == self.owner { role } else { mapped(mappings, role) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefaultFor {
    pub(super) role: String,
    pub(super) schema: Option<String>,
    pub(super) kind: String,
}

impl Rights {
    pub(super) async fn read(session: &Session) -> Result<Self> {
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
        for row in &query(crate::role_map::sql::OWNERS).await? {
            rights.owners.insert(object(row), row.get("owner"));
        }
        for row in &query(crate::role_map::sql::PRIVILEGES).await? {
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
        for row in &query(crate::role_map::sql::DEFAULT_PRIVILEGES).await? {
            let key = DefaultFor { role: row.get("role"), schema: row.get("schema"), kind: row.get("kind") };
            let entries = rights.defaults.entry(key).or_default();
            if let Some(privilege) = row.get::<_, Option<String>>("privilege_type") {
                *entries.entry((row.get("grantee"), privilege)).or_default() |=
                    row.get::<_, bool>("is_grantable");
            }
        }
        for row in &query(crate::role_map::sql::POLICIES).await? {
            let roles: Vec<Option<String>> = row.get("roles");
            rights.policies.insert((row.get("relation"), row.get("name")), roles.into_iter().collect());
        }
        for row in &query(crate::role_map::sql::USER_MAPPINGS).await? {
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
    pub(super) fn mapped(&self, mappings: &[RoleMapping]) -> Result<Self> {
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
    pub(super) fn beyond(&self, other: &Self) -> Vec<String> {
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
