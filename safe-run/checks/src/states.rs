//! States of a database that are only wrong in comparison with an earlier one. The file of each check reads and compares its own.

use std::collections::{BTreeMap, BTreeSet};

use common::ident::QualifiedName;

/// What is only wrong in comparison with an earlier state. `None`: not read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct States {
    pub(super) privileges: Option<Privileges>,
    pub(super) enums: Option<Enums>,
    pub(super) constraints: Option<Constraints>,
    pub(super) statistics: Option<Statistics>,
    /// Content of each table that was read at `deep`.
    pub(super) content: BTreeMap<u32, Content>,
    /// The file of every index, to tell a rebuilt one.
    pub(super) index_files: BTreeMap<u32, u32>,
}

/// The types of the columns that a hash is over, by their numbers.
pub(super) type ColumnTypes = BTreeMap<i16, String>;

/// What a table held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub columns: ColumnTypes,
    pub hash: String,
}

/// Every enum type by oid.
pub(super) type Enums = BTreeMap<u32, EnumType>;

/// One enum type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EnumType {
    pub name: QualifiedName,
    /// Oid and text, in order.
    pub labels: Vec<(u32, String)>,
}

/// Every constraint by its table's oid and its name, which stays when it is made again.
pub(super) type Constraints = BTreeMap<(u32, String), Constraint>;

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constraint {
    pub oid: u32,
    pub table: QualifiedName,
    pub enforced: bool,
    pub foreign_key: bool,
}

/// Every object by its key.
pub(super) type Privileges = BTreeMap<ObjectKey, Object>;

/// Catalog, oid and column number; default privileges by role, schema and kind of object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectKey {
    pub class: String,
    pub oid: u32,
    pub sub: i16,
    pub default_for: String,
}

/// Owner and grants of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub kind: String,
    pub schema: String,
    pub name: String,
    pub more: String,
    pub target: String,
    pub owner: String,
    pub grants: BTreeSet<Grant>,
}

/// One privilege of one role, quoted for SQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub grantee: String,
    pub privilege: String,
    pub grantable: bool,
}

/// Names of the columns that have statistics, by table.
pub(super) type Statistics = BTreeMap<u32, BTreeSet<String>>;
