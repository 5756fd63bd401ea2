//! What a restore will do, decided before anything is touched. Pure: facts about the target come in, a plan or a list of
//! reasons to refuse comes out.

use chrono::{DateTime, Utc};
use common::{
    Error, Ident, Result,
    catalog::PlacedRelation,
    ident::{printable, with_suffix},
    server_space,
    snapshot::Manifest,
};
use serde::Serialize;

use crate::{
    collation,
    facts::{Choices, TargetFacts},
    role_map::{self, RoleMapping},
    tablespaces,
};

/// Where the snapshot shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A new database with a name made from the snapshot's and the time.
    Beside,
    /// A new database of this name.
    Into(String),
    /// In the place of the database that the settings name.
    Replace,
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Connections.
    pub jobs: usize,
    /// What a person decided.
    pub choices: Choices,
}

/// What will be done. A dry run prints it; an execution takes nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    /// The snapshot.
    pub snapshot: String,
    /// The database that is made and filled.
    pub staged: String,
    /// The live database whose name it takes at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The name under which the live database is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
    /// Whether the replaced database is dropped afterwards.
    pub drop_replaced: bool,
    /// Whether new sessions of the restored database begin read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Whether owners and grants are left out.
    pub no_owner: bool,
    /// Whether grants that can't be given fail the restore.
    pub grants_must_match: bool,
    /// Whether objects that the server does not understand are named and left out.
    pub force: bool,
    /// Whether settings that the server does not accept are named and left out.
    pub skip_settings: bool,
    /// Whether a database that lacks objects may take the place of the live one.
    pub accept_missing_objects: bool,
    /// Whether pg_restore puts everything into the default tablespace.
    pub no_tablespaces: bool,
    /// The database's own tablespace.
    pub tablespace: String,
    /// What is moved to other tablespaces afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placed: Vec<PlacedRelation>,
    /// Bytes that it takes on the server's disk.
    pub needed_bytes: u64,
    /// What is needed and what there is, as a sentence.
    pub space: String,
    /// Roles that are made first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_roles: Vec<String>,
    /// A comment that the new database gets in place of the snapshot's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Whether they get the passwords that the snapshot holds.
    pub role_passwords: bool,
    /// Roles that others take the place of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub map_roles: Vec<RoleMapping>,
    /// Tables.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY text.
    pub raw_bytes: u64,
    /// What will not be as it was, one sentence each.
    pub notes: Vec<String>,
}

/// The time in names of databases: sortable, and fine as an unquoted identifier's ending.
pub fn time_suffix(now: DateTime<Utc>) -> String {
    now.format("%Y%m%d_%H%M%S").to_string()
}

/// Whether `name` is what a restore of `live` would have called its database at some time.
fn is_made_by_a_restore(name: &str, live: &str) -> bool {
    /// Of [`time_suffix`].
    const LENGTH: usize = "20261121_034149".len();
    let time = name.len().checked_sub(LENGTH).and_then(|start| name.get(start..));
    time.is_some_and(|time| {
        time.bytes().all(|b| b.is_ascii_digit() || b == b'_')
            && with_suffix(live, &format!("_restored_{time}")) == name
    })
}

/// A suffix under which no database of ours exists yet: two restores may begin in one second.
fn free_suffix(origin: &str, live: &str, facts: &TargetFacts, now: DateTime<Utc>) -> String {
    let time = time_suffix(now);
    let is_free = |suffix: &str| {
        [origin, live].iter().all(|name| {
            ["restored", "replaced"]
                .iter()
                .all(|kind| !facts.databases.contains(&with_suffix(name, &format!("_{kind}_{suffix}"))))
        })
    };
    let numbered = (2..).map(|number| format!("{time}_{number}"));
    std::iter::once(time.clone()).chain(numbered).find(|suffix| is_free(suffix)).unwrap_or(time)
}

/// Decides what to do.
///
/// # Errors
/// [`common::ErrorKind::Refused`] with every reason at once, so that a person fixes them in one go.
pub fn plan(
    manifest: &Manifest,
    live: &str,
    target: &Target,
    facts: &TargetFacts,
    choices: &Choices,
    now: DateTime<Utc>,
) -> Result<RestorePlan> {
    let suffix = free_suffix(&manifest.database.name, live, facts, now);
    let (staged, replaces) = match target {
        Target::Beside => (with_suffix(&manifest.database.name, &format!("_restored_{suffix}")), None),
        Target::Into(name) => (name.clone(), None),
        Target::Replace => (with_suffix(live, &format!("_restored_{suffix}")), Some(live.to_owned())),
    };
    let kept_as = replaces.as_ref().map(|live| with_suffix(live, &format!("_replaced_{suffix}")));
    let mut reasons = Vec::new();
    if facts.is_standby {
        reasons.push(
            "the server is a hot standby, which can't be written to: restore on the primary".to_owned(),
        );
    }
    for name in std::iter::once(&staged).chain(&kept_as) {
        if facts.databases.contains(name) {
            let drop = printable(&Ident::new(&**name).to_string());
            reasons.push(match facts.half_made.contains(name) {
                true => format!(
                    "a database \"{}\" exists already, half-made by a restore that is still at work or was killed (only if it was killed: DROP DATABASE {drop})",
                    printable(name)
                ),
                false => format!("a database \"{}\" exists already", printable(name)),
            });
        }
    }
    if staged.len() > common::ident::MAX_IDENT_BYTES {
        reasons.push(format!("\"{}\" is longer than PostgreSQL's 63 bytes", printable(&staged)));
    }
    if !facts.is_superuser && !facts.may_create_databases {
        let role = printable(&Ident::new(&*facts.role).to_string());
        reasons.push(format!("the role may not create databases (ALTER ROLE {role} CREATEDB)"));
    }
    let is_older = facts.major < manifest.server.major();
    if is_older && !choices.force {
        reasons.push(format!(
            "the snapshot is from PostgreSQL {} and the server is PostgreSQL {} (--force restores what the older one \
             understands, and names every object that it does not)",
            manifest.server.major(),
            facts.major
        ));
    }
    let map_roles = role_map::plan(&choices.map_roles, manifest, facts, &mut reasons);
    let missing: Vec<&str> = manifest
        .roles
        .iter()
        .map(|role| role.name.as_str())
        .filter(|role| !choices.no_owner && !facts.roles.contains(*role))
        .filter(|role| !map_roles.iter().any(|mapping| mapping.from == *role))
        .collect();
    if !missing.is_empty() && !choices.create_roles {
        let names: Vec<String> = missing.iter().map(|role| format!("\"{}\"", printable(role))).collect();
        reasons.push(format!(
            "the server has no role {} (--create-roles makes them without passwords, --map-role OLD=NEW gives \
             what is theirs to others, --no-owner does without)",
            names.join(", ")
        ));
    }
    for extension in &manifest.extensions {
        if !facts.extensions.contains_key(&extension.name) {
            reasons.push(format!("the extension {} is not installed on the server", extension.name));
        } else if facts.superuser_extensions.contains(&extension.name) {
            reasons.push(format!("only a superuser may make the extension {}", extension.name));
        }
    }
    collation::check(manifest, facts, &mut reasons);
    reasons.extend(facts.missing_collations.iter().cloned());
    tablespaces::check(manifest, facts, choices, &mut reasons);
    if !facts.unknown_settings.is_empty() && !choices.skip_settings {
        reasons.push(format!(
            "the database has settings that the server does not know: {} (--skip-settings leaves them out, and names them)",
            facts.unknown_settings.join(", ")
        ));
    }
    let needed_bytes = server_space::needed(manifest);
    let (space, is_too_little) = server_space::compare(needed_bytes, &facts.space);
    if is_too_little && !choices.skip_space_check {
        reasons.push(format!("the restore {space} (--skip-space-check tries all the same)"));
    }
    let own_slot = choices.own_slot.as_ref().map(|slot| format!("replication slot {slot}"));
    let obstacles: Vec<&str> = facts
        .obstacles
        .iter()
        .filter(|obstacle| own_slot.as_ref() != Some(obstacle))
        .map(String::as_str)
        .collect();
    if replaces.is_some() && !choices.accept_slot_loss && !obstacles.is_empty() {
        let of_a_run = if obstacles.iter().any(|obstacle| obstacle.starts_with("replication slot safe_run_"))
        {
            "; the slot safe_run_… holds what was written since a run of safe-run that waits for your decision: `safe-run \
             recover --undo` restores its snapshot and saves those writes"
        } else {
            ""
        };
        reasons.push(format!(
            "the live database has {}, which would stay behind with it (--accept-slot-loss){of_a_run}",
            obstacles.join(", ")
        ));
    }
    if !facts.lasting_sessions.is_empty() {
        reasons.push(format!(
            "sessions are connected to the live database and the role may not end them: {} ({})",
            facts.lasting_sessions.join(", "),
            common::postgres::database::WHO_MAY_END_SESSIONS
        ));
    }
    if !facts.prepared.is_empty() {
        reasons.push(format!(
            "the live database has prepared transactions, and PostgreSQL renames none that has: {} (COMMIT PREPARED or \
             ROLLBACK PREPARED them)",
            facts.prepared.join(", ")
        ));
    }
    if !reasons.is_empty() {
        return Err(Error::refused(format!("the snapshot can't be restored here: {}", reasons.join("; ")))
            .with_hint("Remove the named reasons, then run the command again.")
            .with_database_state("No database was changed."));
    }
    let mut notes = manifest.not_kept.clone();
    notes.extend(facts.unknown_settings.iter().map(|setting| {
        format!("the server does not know the setting {setting} of the database: it is left out")
    }));
    if choices.force && !is_older {
        notes.push(format!(
            "--force changes nothing: the server is PostgreSQL {}, which is not older than the snapshot's {}",
            facts.major,
            manifest.server.major()
        ));
    }
    if is_older {
        notes.push(format!(
            "the server is PostgreSQL {}, older than the snapshot's {}: what it does not understand will be missing, and named",
            facts.major,
            manifest.server.major()
        ));
    }
    for name in facts.databases.iter().filter(|name| is_made_by_a_restore(name, live)) {
        let what = match facts.half_made.contains(name) {
            true => "is half-made, by a restore that is still at work or was killed; only if it was killed: ",
            false => "was made by an earlier restore, perhaps one that was killed; if nobody needs it: ",
        };
        let drop = printable(&Ident::new(&**name).to_string());
        notes.push(format!("\"{}\" {what}DROP DATABASE {drop}", printable(name)));
    }
    for extension in &manifest.extensions {
        let available = facts.extensions.get(&extension.name);
        if available.is_some_and(|versions| !versions.contains(&extension.version)) {
            notes.push(format!(
                "extension {} was {}; the server has only {}",
                extension.name,
                extension.version,
                available
                    .map(|versions| versions.iter().cloned().collect::<Vec<_>>().join(", "))
                    .unwrap_or_default()
            ));
        }
    }
    Ok(RestorePlan {
        snapshot: manifest.id.to_string(),
        staged,
        replaces,
        kept_as,
        drop_replaced: choices.drop_replaced,
        read_only: choices.read_only,
        no_owner: choices.no_owner,
        // Another major version has other defaults for what nobody ever granted.
        grants_must_match: !choices.accept_missing_grants && facts.major == manifest.server.major(),
        create_roles: missing.into_iter().map(str::to_owned).collect(),
        role_passwords: manifest.role_passwords,
        marker: choices.marker.clone(),
        map_roles,
        force: is_older && choices.force,
        skip_settings: choices.skip_settings,
        accept_missing_objects: choices.accept_missing_objects,
        no_tablespaces: choices.no_tablespaces || !choices.map_tablespaces.is_empty(),
        tablespace: tablespaces::mapped(choices, &manifest.database.tablespace).to_owned(),
        placed: tablespaces::moves(manifest, choices),
        needed_bytes,
        space,
        tables: manifest.tables.len(),
        rows: manifest.rows(),
        raw_bytes: manifest.raw_bytes(),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_restore_gives_are_taken_for_its_own() {
        assert!(is_made_by_a_restore("shop_restored_20261121_034149", "shop"));
        let long = "x".repeat(63);
        assert!(is_made_by_a_restore(&with_suffix(&long, "_restored_20261121_034149"), &long));
        for other in
            ["shop", "shop_restored_", "shop_replaced_20261121_034149", "shop2_restored_20261121_034149", "ü"]
        {
            assert!(!is_made_by_a_restore(other, "shop"), "{other}");
        }
    }
}
