//! refinery: `V<n>__<name>.sql` in order, `U<n>__<name>.sql` in any order; SipHash-1-3 over name, version and SQL.

use super::integer;
use crate::version::{FileName, Version};

/// The history table.
pub const TABLE: &str = "refinery_schema_history";

/// Reads a file's name, as refinery's regular expression does: `[U|V]<n>__<word characters>.sql`. Only a refinery built with
/// `int8-versions` is `wide`.
pub(crate) fn file_name(name: &str, wide: bool) -> FileName {
    let Some((stem, extension)) = name.rsplit_once('.') else { return FileName::Ignored };
    let Some((head, description)) = stem.split_once("__") else { return FileName::Ignored };
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let Some(number) = head.strip_prefix(['V', 'U']) else { return FileName::Ignored };
    if !matches!(extension, "sql" | "rs") || description.is_empty() || !description.chars().all(word) {
        return FileName::Ignored;
    }
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return FileName::Ignored;
    }
    let Some(version) = integer::<i64>(number) else {
        return FileName::Wrong("refinery wants a whole number as the version");
    };
    if !wide && is_wide(&version) {
        return FileName::Wrong(
            "its version does not fit the int4 of refinery's history: only a refinery built with int8-versions takes it",
        );
    }
    let description = description.to_owned();
    match (extension, head.starts_with('U')) {
        ("rs", _) => FileName::Foreign {
            version,
            description,
            why: "a Rust function, which only your own binary can run",
        },
        (_, true) => FileName::AnyOrder { version, description },
        _ => FileName::Migration { version, description },
    }
}

/// Whether a version needs refinery's `int8-versions`.
pub fn is_wide(version: &Version) -> bool {
    version.as_str().parse::<i32>().is_err()
}

/// What refinery records: Rust's `Hash` of the three, through SipHash-1-3 with the key zero.
pub fn checksum(name: &str, version: &Version, wide: bool, sql: &str) -> Option<u64> {
    let number: i64 = version.as_str().parse().ok()?;
    let bytes = number.to_le_bytes();
    let version = if wide { &bytes[..] } else { &bytes[..4] };
    // A string is followed by 0xff, so that ("a", "b") and ("ab", "") differ.
    let end: &[u8] = &[0xff];
    Some(common::digest::siphash13([name.as_bytes(), end, version, sql.as_bytes(), end]))
}
