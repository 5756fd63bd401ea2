//! golang-migrate: `<version>_<name>.up.sql` and `.down.sql`; one row with the newest version and whether it is dirty.

use super::integer;
use crate::version::FileName;

/// The history table.
pub const TABLE: &str = "schema_migrations";

/// Its locks, with the database's name as the command line and as the library spell it.
pub fn lock_keys(database: &str, schema: &str, table: &str) -> [i64; 2] {
    [format!("/{database}"), database.to_owned()].map(|database| {
        let sum = common::digest::crc32([format!("{schema}\0{table}\0{database}").as_bytes()]);
        i64::from(sum.wrapping_mul(1_486_364_155))
    })
}

/// Reads a file's name: anything else than `<digits>_<name>.up.<ending>` is left out, as golang-migrate does.
pub(crate) fn file_name(name: &str) -> FileName {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    let Some(rest) = name[digits..].strip_prefix('_').filter(|_| digits > 0) else {
        return FileName::Ignored;
    };
    // The first pattern that matches from the right, as its greedy regular expression does.
    let up = rest.rfind(".up.").map(|at| (at, true));
    let down = rest.rfind(".down.").map(|at| (at, false));
    match up.into_iter().chain(down).max() {
        // PostgreSQL's versions are bigint.
        Some((at, true)) => match integer::<i64>(&name[..digits]) {
            Some(version) => FileName::Migration { version, description: rest[..at].replace('_', " ") },
            None => FileName::Wrong("its version does not fit a bigint"),
        },
        _ => FileName::Ignored,
    }
}
