//! What a plan is made from: what was found out about the target server, and what a person decided. Values alone.

use std::collections::{BTreeMap, BTreeSet};

use common::server_space::Space;

/// What was found out about the target server.
#[derive(Debug, Clone, Default)]
pub struct TargetFacts {
    /// Its major version.
    pub major: u32,
    /// Whether it is a hot standby.
    pub is_standby: bool,
    /// Every role.
    pub roles: BTreeSet<String>,
    /// Every database.
    pub databases: BTreeSet<String>,
    /// Those of them that a restore has not completed, and that nobody is connected to.
    pub half_made: BTreeSet<String>,
    /// Every tablespace.
    pub tablespaces: BTreeSet<String>,
    /// Available versions of each extension.
    pub extensions: BTreeMap<String, BTreeSet<String>>,
    /// The connected role.
    pub role: String,
    /// Whether the connected role is a superuser.
    pub is_superuser: bool,
    /// Whether it may create databases.
    pub may_create_databases: bool,
    /// Replication slots and subscriptions of the database to be replaced.
    pub obstacles: Vec<String>,
    /// Its prepared transactions.
    pub prepared: Vec<String>,
    /// Sessions in it that the role may not end.
    pub lasting_sessions: Vec<String>,
    /// Whether it was built with ICU.
    pub has_icu: bool,
    /// Those that the role may use.
    pub usable_tablespaces: BTreeSet<String>,
    /// Room on the disk where the new database would lie.
    pub space: Space,
    /// Extensions of which the role may make no version there is, because that needs a superuser.
    pub superuser_extensions: BTreeSet<String>,
    /// Settings of the snapshot's database that the server does not have.
    pub unknown_settings: Vec<String>,
    /// Collations that the snapshot's objects name and that the server has not, each with the reason, as phrases.
    pub missing_collations: Vec<String>,
    /// Whether it may make roles.
    pub may_create_roles: bool,
    /// Roles whose objects the connected role may give away and take over.
    pub member_of: BTreeSet<String>,
    /// Roles that an earlier restore made for its own time.
    pub temporary_roles: BTreeSet<String>,
}

/// What a person decided about the restore.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Objects belong to the connected role, and no grants are restored.
    pub no_owner: bool,
    /// Roles that are missing are made, without passwords.
    pub create_roles: bool,
    /// Grants that the role may not give are said and do not fail the restore: for an undo, where the alternative is worse.
    pub accept_missing_grants: bool,
    /// A database that lacks objects may take the place of the live one.
    pub accept_missing_objects: bool,
    /// The server may be older than the snapshot: what it does not understand is left out, and named.
    pub force: bool,
    /// Settings of the database that the server does not accept are left out, and named.
    pub skip_settings: bool,
    /// Everything goes to the default tablespace.
    pub no_tablespaces: bool,
    /// Tablespaces of the snapshot, and those that take their place.
    pub map_tablespaces: Vec<(String, String)>,
    /// Begin although the server seems to have too little room.
    pub skip_space_check: bool,
    /// A comment for the new database in place of the snapshot's.
    pub marker: Option<String>,
    /// Slots and the like of the replaced database may stay behind with it.
    pub accept_slot_loss: bool,
    /// This slot belongs to the undo, which reads it after the swap, saves what it holds for a replay, and drops it. The
    /// sequences of the restored database go on from where those of the replaced one stood.
    pub own_slot: Option<String>,
    /// The replaced database is dropped after the swap.
    pub drop_replaced: bool,
    /// `--map-role`: roles of the snapshot, and those that take their place.
    pub map_roles: Vec<(String, String)>,
    /// New sessions of the restored database begin read-only: a fence that shall outlive the undo has no gap then.
    pub read_only: bool,
}

impl Choices {
    /// What an undo wants: nobody can be asked, and a grant that can't be given, or a foreign key that can be neither
    /// validated nor left unchecked, is said and stops nothing.
    pub fn undo() -> Self {
        Self {
            accept_missing_grants: true,
            accept_missing_objects: true,
            // The command may have dropped one, which no proof beforehand can tell.
            create_roles: true,
            skip_settings: true,
            skip_space_check: true,
            ..Self::default()
        }
    }
}
