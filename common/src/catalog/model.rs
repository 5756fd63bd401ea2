//! The part of PostgreSQL's catalog that the tools decide on. Objects that only pg_dump needs to know are not here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lsn_text::LsnFields;
use super::word::{DatabasePrivilege, LocaleProvider, PlacedKind, RoleAttribute};
use crate::{Ident, QualifiedName};

/// A relation that stores rows of its own and is copied: a plain table, a leaf partition, an inheritance child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// `pg_class.oid` at the source.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// Columns to copy, in order; generated columns are left out.
    pub columns: Vec<Ident>,
    /// Size of the main fork in blocks of 8 KiB; decides the page ranges.
    pub blocks: u64,
    /// Size of what is stored out of line, in the same blocks: rows of such a table are few in a page and long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub toast_blocks: u64,
    /// Whether page ranges can be read: only the heap access method promises that.
    pub is_heap: bool,
    /// Unlogged tables have no rows on a standby.
    pub is_unlogged: bool,
    /// The table that rows are loaded through, when a row may belong to another partition on the target: a hash
    /// partition whose key hashes by oid (enums) moves its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_into: Option<QualifiedName>,
    /// For an extension's configuration table: the condition that selects the rows that are the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_filter: Option<String>,
    /// Whether queries on it may be planned, which page ranges are; if not, it is read whole by plain COPY. Decided by
    /// [`crate::postgres::trust`] for one role at one server, and never stored.
    #[serde(skip)]
    pub may_plan: bool,
    /// Fields that this server writes in another form than the snapshot's. Decided by [`crate::postgres::lsn_columns`], and never stored.
    #[serde(skip)]
    pub lsn_fields: LsnFields,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Table {
    /// Blocks of the table and of what it stores out of line.
    pub fn all_blocks(&self) -> u64 {
        self.blocks.saturating_add(self.toast_blocks)
    }

    /// Whether it belongs to an extension, and only some of its rows are the user's.
    pub fn is_filtered(&self) -> bool {
        self.extension_filter.as_ref().is_some_and(|filter| !filter.is_empty())
    }
}

/// A partitioned table: it has no rows of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionedTable {
    /// `pg_class.oid` at the source.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
}

/// A sequence and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// `pg_class.oid` at the source.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// `last_value`.
    pub last_value: i64,
    /// `is_called`: whether the next value is one step further.
    pub is_called: bool,
    /// The step; negative ones count down.
    pub increment: i64,
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// `extversion`.
    pub version: String,
}

/// A materialized view, in an order in which all can be refreshed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterializedView {
    /// Its name.
    pub name: QualifiedName,
    /// Whether it held rows; one that did not stays "not populated".
    pub is_populated: bool,
}

/// Large objects: how many, and the bytes they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjectTotals {
    /// `count(*)` of `pg_largeobject_metadata`.
    pub count: u64,
}

/// State that belongs to the database itself and that `pg_dump` leaves to `--create`: captured always, applied to a
/// restored database before it takes the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseState {
    /// Its name.
    pub name: String,
    /// Server encoding, such as `UTF8` or `SQL_ASCII`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: LocaleProvider,
    /// The locale of an `icu` or `builtin` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Custom ICU collation rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// The recorded collation version; differs from the target's when the C library or ICU was updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    /// The owner.
    pub owner: String,
    /// The default tablespace.
    pub tablespace: String,
    /// `datconnlimit`; -1 is none.
    pub connection_limit: i32,
    /// `COMMENT ON DATABASE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// `datacl` taken apart; `None` when it is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<Grant>>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    #[serde(default)]
    pub settings: Vec<DatabaseSetting>,
    /// Security labels: (provider, label).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_labels: Vec<(String, String)>,
    /// `datistemplate`: whoever may create databases can copy it, and nobody can drop it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_template: bool,
}

/// One privilege on the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who gave it.
    pub grantor: String,
    /// Who has it; `None` is PUBLIC.
    pub grantee: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: DatabasePrivilege,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

/// One configuration parameter bound to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    /// The role it holds for; `None` is every role.
    pub role: Option<String>,
    /// The parameter.
    pub name: String,
    /// Its value as stored.
    pub value: String,
}

/// A role that the schema names, without its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its attributes as keywords of CREATE ROLE, such as `LOGIN` and `NOSUPERUSER`.
    pub attributes: Vec<RoleAttribute>,
    /// `CONNECTION LIMIT`; -1 is none.
    pub connection_limit: i32,
    /// `VALID UNTIL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Roles that it is a member of, and whether it may admit others.
    #[serde(default)]
    pub member_of: Vec<(String, bool)>,
    /// `ALTER ROLE … SET` in all databases: name and value.
    #[serde(default)]
    pub settings: Vec<(String, String)>,
    /// `COMMENT ON ROLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// How privileges on what PostgreSQL itself brought (functions and views of pg_catalog, languages) differ from those that initdb gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltinRights {
    /// Held beyond, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<ObjectGrant>,
    /// Taken away, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<ObjectGrant>,
}

/// One privilege on an object for somebody other than its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectGrant {
    /// The object as PostgreSQL identifies it, such as `table app.orders` or `function app.total(integer)`.
    pub object: String,
    /// Who has it; `None` is PUBLIC.
    pub grantee: Option<String>,
    /// `SELECT`, `EXECUTE`, `USAGE` …
    pub privilege: String,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

/// A relation that lies in another tablespace than the database's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedRelation {
    /// `table`, `index` or `materialized view`.
    pub kind: PlacedKind,
    /// Its name.
    pub name: QualifiedName,
    /// The tablespace.
    pub tablespace: String,
}

/// A collation that something in the database names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCollation {
    /// Its name; what the server itself has lies in `pg_catalog`.
    pub name: QualifiedName,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// Its locale, for libc LC_COLLATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// LC_CTYPE of a libc collation, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    /// How many objects name it.
    pub count: u64,
    /// The first few of them.
    pub objects: Vec<String>,
}

/// Everything the tools read from a database before they decide.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Database-level state.
    pub database: DatabaseState,
    /// Size of the whole database on disk, bytes.
    pub database_bytes: u64,
    /// What lies in another tablespace than the database's own.
    pub placed: Vec<PlacedRelation>,
    /// Tables whose rows are copied, largest first.
    pub tables: Vec<Table>,
    /// Partitioned tables.
    pub partitioned: Vec<PartitionedTable>,
    /// Which table is a partition or an heir of which: child and parent.
    pub inherits: Vec<(u32, u32)>,
    /// Extensions, by name.
    pub extensions: Vec<Extension>,
    /// Materialized views in refresh order.
    pub materialized_views: Vec<MaterializedView>,
    /// Large objects.
    pub large_objects: LargeObjectTotals,
    /// Roles that own or may use something in the database, by name.
    pub roles: Vec<Role>,
    /// Privileges on objects. pg_dump restores them; a restore is compared with them, because a server only warns where a
    /// role may not give what it should give.
    pub grants: Vec<ObjectGrant>,
    /// Rights that everybody has on an object of its kind and that were taken away.
    pub revoked: Vec<ObjectGrant>,
    /// Privileges on what PostgreSQL itself brought, where somebody has changed them.
    pub builtin_rights: BuiltinRights,
    /// The schema public, which every new database has, is gone.
    pub lacks_public: bool,
    /// Who owns what, by role.
    pub owners: BTreeMap<String, Vec<String>>,
    /// Collations that something names.
    pub collations: Vec<NamedCollation>,
    /// What a logical snapshot does not bring back, one sentence each.
    pub not_kept: Vec<String>,
    /// Those of them by which a restored database certainly differs.
    pub differs: Vec<String>,
}
