//! diesel: `<version>_<name>/up.sql`, `down.sql` and `metadata.toml`; no checksums.

use super::Metadata;
use crate::version::{FileName, Version};

/// The history table.
pub const TABLE: &str = "__diesel_schema_migrations";

/// The file that goes up.
pub const FILE: &str = "up.sql";

/// Reads a folder's name: the version is what stands before the first `_`, without dashes, compared as text.
pub(crate) fn folder_name(name: &str) -> FileName {
    if name.starts_with('.') {
        return FileName::Ignored;
    }
    let (head, rest) = name.split_once('_').unwrap_or((name, ""));
    let version = head.replace('-', "");
    if version.is_empty() {
        return FileName::Wrong("its name does not begin with a version");
    }
    if version.len() > 50 {
        return FileName::Wrong("its version has more than 50 characters");
    }
    FileName::Migration { version: Version::text(&version), description: rest.replace('_', " ") }
}

/// `metadata.toml`. A file that diesel can't read counts for nothing; one that leaves the key out says false.
pub(crate) fn metadata(text: &str) -> Metadata {
    let no_transaction = match text.parse::<toml::Table>() {
        Err(_) => false,
        Ok(table) => match table.get("run_in_transaction") {
            None => true,
            Some(value) => value.as_bool() == Some(false),
        },
    };
    Metadata { no_transaction, ..Metadata::default() }
}
