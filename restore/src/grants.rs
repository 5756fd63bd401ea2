//! Who may do what after a restore, compared with the snapshot in both directions: rights that are missing and rights that
//! somebody has and had not. A server only warns when a role gives what it does not hold, pg_restore does not pass that on,
//! and what an extension's script gives depends on its version. So the difference is read from the catalog, taken away by
//! statements of our own, and what is left is said.

use std::collections::{BTreeMap, HashSet};

use common::{
    Error, Ident, Result,
    catalog::{BuiltinRights, ObjectGrant},
    format::plural,
    ident::printable,
    postgres::{
        Session,
        introspect::{self, ObjectRights},
        sql,
    },
    snapshot::Manifest,
};

use crate::{plan::RestorePlan, role_map};

/// Rights that differ from the snapshot's, as phrases such as `SELECT on table app.orders to reader`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The snapshot has them.
    pub missing: Vec<String>,
    /// The snapshot has them not.
    pub extra: Vec<String>,
}

/// Every privilege on an object that a server of ours knows: no other word of a snapshot goes into a statement.
const PRIVILEGES: [&str; 11] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REFERENCES",
    "TRIGGER",
    "MAINTAIN",
    "EXECUTE",
    "USAGE",
    "CREATE",
];

/// Makes the rights those of the snapshot where this role may, and gives back what differs all the same.
///
/// # Errors
/// Refused when something differs and the plan wants all rights as they were.
pub async fn settle(session: &Session, manifest: &Manifest, plan: &RestorePlan) -> Result<Differences> {
    if plan.no_owner {
        return Ok(Differences::default());
    }
    let wanted = Wanted::of(session, manifest, plan).await?;
    let found = wanted.differ(session).await?;
    if found.objects.is_empty() && found.builtin.is_empty() {
        return Ok(Differences::default());
    }
    for differ in [&found.objects, &found.builtin] {
        mend(session, &differ.missing, &differ.extra).await?;
    }
    let Found { objects, builtin } = wanted.differ(session).await?;
    let mut differences = objects.phrases();
    if plan.grants_must_match && !objects.is_empty() {
        return Err(refusal(&differences));
    }
    // A server may bring others than another one of its major, and nobody could help it: they are told.
    let builtin = builtin.phrases();
    differences.missing.extend(builtin.missing);
    differences.extra.extend(builtin.extra);
    Ok(differences)
}

/// Rights that the database lacks, and that it has too much.
#[derive(Debug, Default)]
struct Differ {
    missing: Vec<ObjectGrant>,
    extra: Vec<ObjectGrant>,
}

impl Differ {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty()
    }

    fn phrases(&self) -> Differences {
        Differences {
            missing: self.missing.iter().map(|grant| phrase(grant, "to")).collect(),
            extra: self.extra.iter().map(|grant| phrase(grant, "stays with")).collect(),
        }
    }
}

/// [`Differ`], of the database's own objects and of what PostgreSQL brought.
struct Found {
    objects: Differ,
    builtin: Differ,
}

fn phrase(grant: &ObjectGrant, to: &str) -> String {
    let option = if grant.grantable { " with the right to pass it on" } else { "" };
    let grantee = grant.grantee.as_deref().unwrap_or("PUBLIC");
    printable(&format!("{} on {} {to} {grantee}{option}", grant.privilege, grant.object))
}

fn refusal(differences: &Differences) -> Error {
    const SHOWN: usize = 10;
    let Differences { missing, extra } = differences;
    let mut sentences = Vec::new();
    for (list, what) in [(missing, "could not be restored"), (extra, "could not be taken back")] {
        if !list.is_empty() {
            let more = list.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let shown: Vec<&str> = list.iter().take(SHOWN).map(String::as_str).collect();
            let count = plural(list.len() as u64, "grant", "grants");
            sentences.push(format!("{count} {what}: {}{more}", shown.join("; ")));
        }
    }
    Error::refused(sentences.join(", and ")).with_hint(
        "Restore as a superuser or as the role that gave them, or leave owners and grants out with --no-owner.",
    )
}

/// What the snapshot says.
struct Wanted {
    granted: Vec<ObjectGrant>,
    /// Nothing in a snapshot of an earlier version, and where only some objects are restored: then it is not known what
    /// nobody has.
    revoked: Option<Vec<ObjectGrant>>,
    /// Objects with owners that are mapped ones now. What was granted to the role that is the owner now is not a grant to
    /// somebody else any more.
    owned: HashSet<(String, String)>,
    /// Extensions that are here in another version: what their scripts give on objects that the snapshot does not name is theirs.
    other_versions: HashSet<String>,
    /// Rights on what PostgreSQL itself brought. Another major version brings other rights: nothing is known of those.
    builtin: Option<BuiltinRights>,
}

impl Wanted {
    async fn of(session: &Session, manifest: &Manifest, plan: &RestorePlan) -> Result<Self> {
        let owned = if plan.map_roles.is_empty() { HashSet::new() } else { role_map::owned(session).await? };
        let granted = role_map::mapped_grants(&plan.map_roles, &manifest.grants);
        let revoked = manifest.revoked.clone().filter(|_| manifest.partial.is_none());
        let rows = session
            .query(sql::EXTENSIONS, &[])
            .await
            .map_err(|source| Error::postgres("could not list the extensions", source))?;
        let is_other = |name: &str, version: &str| {
            !manifest.extensions.iter().any(|known| known.name == name && known.version == version)
        };
        let other_versions =
            rows.iter().filter(|row| is_other(row.get(0), row.get(1))).map(|row| row.get(0)).collect();
        let is_same_major = manifest.server.major() == session.server_major();
        let builtin = manifest.builtin_rights.as_ref().filter(|_| is_same_major);
        let mut builtin = builtin.map(|rights| BuiltinRights {
            granted: role_map::mapped_grants(&plan.map_roles, &rights.granted),
            revoked: role_map::mapped_grants(&plan.map_roles, &rights.revoked),
        });
        if let (Some(rights), false) = (&mut builtin, plan.map_roles.is_empty()) {
            // A role that became the owner of all of it has them anyway.
            let row = session.query_one("SELECT pg_catalog.pg_get_userbyid(10)::text", &[]).await.map_err(
                |source| Error::postgres("could not look up who owns what PostgreSQL brought", source),
            )?;
            let owner: String = row.get(0);
            rights.granted.retain(|grant| grant.grantee.as_deref() != Some(&*owner));
        }
        Ok(Self { granted, revoked, owned, other_versions, builtin })
    }

    /// What the database lacks now, and what it has too much. pg_dump does not write all rights on what PostgreSQL itself brought (those on
    /// the language SQL), and a server only warns a role that may neither give nor take them.
    async fn differ(&self, session: &Session) -> Result<Found> {
        let (missing, extra) = self.compare(&introspect::object_rights(session).await?);
        let mut found = Found { objects: Differ { missing, extra }, builtin: Differ::default() };
        if let Some(wanted) = &self.builtin {
            let have = introspect::builtin_rights(session).await?;
            let beyond = |these: &[ObjectGrant], those: &[ObjectGrant]| -> Vec<ObjectGrant> {
                these.iter().filter(|grant| !those.contains(grant)).cloned().collect()
            };
            found.builtin.missing.extend(beyond(&wanted.granted, &have.granted));
            found.builtin.missing.extend(beyond(&have.revoked, &wanted.revoked));
            found.builtin.extra.extend(beyond(&have.granted, &wanted.granted));
            found.builtin.extra.extend(beyond(&wanted.revoked, &have.revoked));
        }
        Ok(found)
    }

    /// What is missing and what is too much.
    fn compare(&self, have: &ObjectRights) -> (Vec<ObjectGrant>, Vec<ObjectGrant>) {
        let has: HashSet<&ObjectGrant> = have.granted.iter().collect();
        let lacks: HashSet<&ObjectGrant> = have.revoked.iter().collect();
        let is_owners = |grant: &ObjectGrant| {
            let owner = grant.grantee.clone().map(|role| (grant.object.clone(), role));
            owner.is_some_and(|owner| self.owned.contains(&owner))
        };
        let granted: HashSet<&ObjectGrant> = self.granted.iter().collect();
        let given = self.granted.iter().filter(|grant| {
            !is_owners(grant) && !has.contains(grant) && (lacks.contains(grant) || !is_default(grant))
        });
        let mut missing: Vec<ObjectGrant> = given.cloned().collect();
        let Some(revoked) = &self.revoked else { return (missing, Vec::new()) };
        let taken: HashSet<&ObjectGrant> = revoked.iter().collect();
        missing.extend(have.revoked.iter().filter(|grant| !taken.contains(grant)).cloned());
        missing.sort();
        missing.dedup();
        let named: HashSet<&str> =
            self.granted.iter().chain(revoked).map(|grant| grant.object.as_str()).collect();
        let is_known = |grant: &ObjectGrant| {
            let extension = have.extensions.get(&grant.object);
            named.contains(grant.object.as_str())
                || extension.is_none_or(|extension| !self.other_versions.contains(extension))
        };
        let beyond = have.granted.iter().filter(|grant| !granted.contains(grant) && is_known(grant));
        let kept = revoked.iter().filter(|grant| !lacks.contains(grant));
        (missing, beyond.chain(kept).cloned().collect())
    }
}

/// Whether everybody has this right on an object of its kind unless it is taken away: rights to call functions and to use
/// types and languages.
fn is_default(grant: &ObjectGrant) -> bool {
    let kind = grant.object.split(' ').next().unwrap_or_default();
    let is_everybodys = match &*grant.privilege {
        "EXECUTE" => ["function", "procedure", "aggregate"].contains(&kind),
        "USAGE" => ["type", "domain", "language"].contains(&kind),
        _ => false,
    };
    is_everybodys && grant.grantee.is_none() && !grant.grantable
}

/// Gives and takes one by one. What the server refuses stays different, and is found by the comparison that follows.
async fn mend(session: &Session, missing: &[ObjectGrant], extra: &[ObjectGrant]) -> Result<()> {
    let objects: Vec<&str> = missing.iter().chain(extra).map(|grant| grant.object.as_str()).collect();
    let rows = session
        .query(sql::GRANT_TARGETS, &[&objects])
        .await
        .map_err(|source| Error::postgres("could not look for the objects of grants", source))?;
    let targets: BTreeMap<String, (String, Option<String>)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let takes = extra.iter().map(|grant| (grant, false));
    for (grant, gives) in takes.chain(missing.iter().map(|grant| (grant, true))) {
        let known = PRIVILEGES.contains(&&*grant.privilege);
        let Some((target, column)) = targets.get(&grant.object).filter(|_| known) else { continue };
        let column = column.as_ref().map_or(String::new(), |name| format!(" ({})", Ident::new(&**name)));
        let role = grant.grantee.as_ref().map_or("PUBLIC".to_owned(), |role| Ident::new(&**role).to_string());
        let privilege = &grant.privilege;
        let statement = if gives {
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            format!("GRANT {privilege}{column} ON {target} TO {role}{option}")
        } else {
            // What others passed on goes with it.
            format!("REVOKE {privilege}{column} ON {target} FROM {role} CASCADE")
        };
        if let Err(source) = session.batch_execute(&statement).await
            && source.code().is_none()
        {
            return Err(Error::postgres("could not set a grant right", source));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(object: &str, grantee: Option<&str>, privilege: &str) -> ObjectGrant {
        ObjectGrant {
            object: object.to_owned(),
            grantee: grantee.map(str::to_owned),
            privilege: privilege.to_owned(),
            grantable: false,
        }
    }

    fn wanted(granted: Vec<ObjectGrant>, revoked: Option<Vec<ObjectGrant>>) -> Wanted {
        Wanted { granted, revoked, owned: HashSet::new(), other_versions: HashSet::new(), builtin: None }
    }

    #[test]
    fn a_right_that_everybody_has_is_missing_only_where_it_was_taken_away() {
        let call = grant("function app.f()", None, "EXECUTE");
        // As an earlier version wrote it down.
        let wanted = wanted(vec![call.clone()], None);
        assert_eq!(wanted.compare(&ObjectRights::default()), (vec![], vec![]));
        let taken = ObjectRights { revoked: vec![call.clone()], ..ObjectRights::default() };
        assert_eq!(wanted.compare(&taken), (vec![call], vec![]));
    }

    #[test]
    fn rights_that_nobody_had_are_too_much() {
        let (read, call) =
            (grant("table app.t", Some("r"), "SELECT"), grant("function app.f()", None, "EXECUTE"));
        let wanted = wanted(vec![], Some(vec![call.clone()]));
        let have = ObjectRights { granted: vec![read.clone()], ..ObjectRights::default() };
        assert_eq!(wanted.compare(&have), (vec![], vec![read, call]));
    }
}
