//! Who owns what after a restore, compared with the snapshot. pg_restore makes objects in the restoring role's name and gives
//! them away; whatever it leaves behind is given away here, and what PostgreSQL lets nobody give away is said.

use std::collections::HashMap;

use common::{
    Error, Ident, Result,
    ident::printable,
    postgres::{Session, introspect},
};

use crate::{plan::RestorePlan, role_map};

/// Which objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All but event triggers.
    Objects,
    /// Those that come last.
    EventTriggers,
}

/// Gives every object to whom the snapshot says. What stays with another role comes back, as phrases.
///
/// # Errors
/// Refused when an object could have been given away and this role may not, unless the plan lets rights be missing.
pub async fn settle(
    session: &Session,
    wanted: &std::collections::BTreeMap<String, Vec<String>>,
    from_major: u32,
    plan: &RestorePlan,
    which: Which,
) -> Result<Vec<String>> {
    if plan.no_owner || wanted.is_empty() {
        return Ok(Vec::new());
    }
    let owner_of: HashMap<&str, &str> = wanted
        .iter()
        .flat_map(|(role, objects)| objects.iter().map(move |object| (object.as_str(), role.as_str())))
        .collect();
    let mut refused = Vec::new();
    let mut stay = Vec::new();
    for (have, objects) in &introspect::owners(session).await? {
        for object in objects {
            let Some(owner) = owner_of.get(object.as_str()) else { continue };
            if object.starts_with("event trigger ") != (which == Which::EventTriggers) {
                continue;
            }
            let owner = role_map::mapped(&plan.map_roles, owner);
            // Another major version made the schema public for another role; who changed that is in the archive.
            let is_default = object == "schema public" && from_major != session.server_major();
            if owner == have || is_default {
                continue;
            }
            let phrase = printable(&format!("{object} belongs to {have} and not to {owner}"));
            let Some((keyword, identity)) = role_map::alterable(object) else {
                stay.push(format!("{phrase}: PostgreSQL lets nobody give it away"));
                continue;
            };
            let statement = format!("ALTER {keyword} {identity} OWNER TO {}", Ident::new(owner));
            if let Err(source) = session.batch_execute(&statement).await {
                if source.code().is_none() {
                    return Err(Error::postgres("could not give an object to its owner", source));
                }
                refused.push(format!("{phrase}: {}", Error::postgres("not changed", source)));
            }
        }
    }
    if !refused.is_empty() && plan.grants_must_match {
        return Err(refusal(refused));
    }
    stay.extend(refused);
    Ok(stay)
}

fn refusal(mut refused: Vec<String>) -> Error {
    const SHOWN: usize = 10;
    let more = refused.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    refused.truncate(SHOWN);
    Error::refused(format!("objects have other owners: {}{more}", refused.join("; "))).with_hint(
        "Restore as a superuser or as a member of the named roles, or leave owners out with --no-owner.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_the_objects_with_other_owners_are_named_and_the_rest_is_counted() {
        let error = refusal((0..12).map(|n| format!("table t{n}")).collect());
        assert!(error.message().ends_with("table t8; table t9; and 2 more"), "{error}");
        assert_eq!(
            error.hint(),
            Some(
                "Restore as a superuser or as a member of the named roles, or leave owners out with --no-owner."
            )
        );
    }
}
