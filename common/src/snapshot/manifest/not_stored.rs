//! What a snapshot does not store, as it was: a restore compares with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{QualifiedName, snapshot::codec::RowHash};

/// Rows that were read and not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How many.
    pub rows: u64,
    /// Their hash.
    pub row_hash: RowHash,
}

/// A table of an extension whose rows pg_dump does not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionTable {
    /// Its name.
    pub name: QualifiedName,
    /// The extension.
    pub extension: String,
    /// pg_dump writes those of its rows that the extension's own condition names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partly_written: bool,
    /// What was in it; nothing where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Counted>,
}

/// What an extension owned, as it was defined. pg_dump writes none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionObjects {
    /// How many objects.
    pub count: u64,
    /// Hash of all of them.
    pub hash: String,
    /// Each as PostgreSQL describes it, with the hash of its definition; empty where there were many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, String>,
}

/// Stored generated columns of a table whose values code of the database computes. No snapshot stores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedColumns {
    /// The table.
    pub table: QualifiedName,
    /// Its columns.
    pub columns: Vec<String>,
    /// The functions and operators, as PostgreSQL describes them.
    pub made_by: Vec<String>,
    /// Their values, one row of these columns for each of the table; nothing where reading them could have run code of
    /// somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Counted>,
}
