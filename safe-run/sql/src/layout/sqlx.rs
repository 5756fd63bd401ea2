//! sqlx: `<version>_<name>.sql`, `.up.sql` and `.down.sql`; SHA-384 of the bytes.

use super::integer;
use crate::version::FileName;

/// The history table.
pub const TABLE: &str = "_sqlx_migrations";

/// The lock that sqlx holds while it migrates; it waits for it without end.
pub fn lock_key(database: &str) -> i64 {
    0x3d32_ad9e_i64.wrapping_mul(i64::from(common::digest::crc32([database.as_bytes()])))
}

/// Reads a file's name. sqlx leaves out what is not `<something>_<something>.sql`, and refuses another version than a
/// number; it is case-sensitive, and strips its ending as often as it stands there.
pub(crate) fn file_name(name: &str) -> FileName {
    let Some((version, rest)) = name.split_once('_') else { return FileName::Ignored };
    if !rest.ends_with(".sql") || rest.ends_with(".down.sql") {
        return FileName::Ignored;
    }
    let suffix = if rest.ends_with(".up.sql") { ".up.sql" } else { ".sql" };
    match integer::<i64>(version) {
        Some(version) => {
            FileName::Migration { version, description: rest.trim_end_matches(suffix).replace('_', " ") }
        }
        None => FileName::Wrong("sqlx wants a number before the first `_`"),
    }
}

/// Whether the file opts out of the transaction: sqlx looks at its very first bytes.
pub fn runs_without_transaction(sql: &str) -> bool {
    sql.starts_with("-- no-transaction")
}
