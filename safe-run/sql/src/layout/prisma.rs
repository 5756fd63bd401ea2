//! Prisma: `<time>_<name>/migration.sql`, in the order of the folders' names; SHA-256 of the bytes.

use crate::version::{FileName, Version};

/// The history table.
pub const TABLE: &str = "_prisma_migrations";

/// The file in each folder.
pub const FILE: &str = "migration.sql";

/// The lock that Prisma waits for, ten seconds at most.
pub const LOCK_KEY: i64 = 72_707_369;

/// Reads a folder's name: all of it is the version.
pub(crate) fn folder_name(name: &str) -> FileName {
    if name.starts_with('.') {
        return FileName::Ignored;
    }
    let description = name.split_once('_').map_or("", |(_, rest)| rest).replace('_', " ");
    FileName::Migration { version: Version::text(name), description }
}
