//! Flyway: `V<version>__<name>.sql` once, `R__<name>.sql` whenever its checksum changed, `<file>.conf` beside it; CRC-32
//! over the lines without their ends.

use super::Metadata;
use crate::{
    statement::ParseProblem,
    version::{FileName, Version},
};

/// The history table.
pub const TABLE: &str = "flyway_schema_history";

/// Description and script of the row that a baseline is.
pub const BASELINE: &str = "<< Flyway Baseline >>";

/// "Flyway" in ASCII: what its lock keys begin with.
const LOCK_MAGIC: i64 = 0x466c_7977_6179;

/// The lock that Flyway tries to get, 50 times with a second between.
pub fn lock_key(schema: &str, table: &str) -> i64 {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    LOCK_MAGIC + i64::from(java_hash(&format!("{}.{}", quoted(schema), quoted(table))))
}

/// Java's `String.hashCode`.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// CRC-32 over each line's bytes without its end, the byte order mark left out.
pub fn checksum(sql: &str) -> i32 {
    let text = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    // Line ends are \n, \r and \r\n; empty pieces add nothing.
    common::digest::crc32(text.split(['\n', '\r']).map(str::as_bytes)).cast_signed()
}

/// Reads a file's name: case-sensitive prefixes, any case of `.sql`.
pub(crate) fn file_name(name: &str) -> FileName {
    let (stem, kind) = match name.len().checked_sub(4).and_then(|end| name.split_at_checked(end)) {
        Some((stem, ending)) if ending.eq_ignore_ascii_case(".sql") => (stem, "sql"),
        _ => match name.rsplit_once('.') {
            Some((stem, extension @ ("java" | "kt" | "class" | "sh" | "bash" | "py" | "ps1"))) => {
                (stem, extension)
            }
            _ => return FileName::Ignored,
        },
    };
    let Some((head, rest)) = stem.split_once("__") else {
        // Flyway runs it too: the name after the separator may be empty.
        return match stem.strip_prefix('V').and_then(version) {
            Some(version) if kind == "sql" => FileName::Migration { version, description: String::new() },
            _ => FileName::Ignored,
        };
    };
    let description = rest.replace('_', " ");
    let why = match kind {
        "sql" => None,
        "java" | "kt" | "class" => Some("a Java class, which only Flyway can run"),
        _ => Some("a script, which only Flyway can run"),
    };
    let found = match (head, head.chars().next()) {
        ("R", _) => Some(Version::repeatable(&description)),
        (_, Some('B')) if head[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            return FileName::Wrong(
                "baseline migrations (B…) are not supported: run it with `safe-run -- flyway migrate`",
            );
        }
        (_, Some('V')) => match version(&head[1..]) {
            Some(version) => Some(version),
            None => return FileName::Wrong("its version is not a number"),
        },
        _ => None,
    };
    match (found, why) {
        (Some(version), None) => FileName::Migration { version, description },
        (Some(version), Some(why)) => FileName::Foreign { version, description, why },
        (None, _) => FileName::Ignored,
    }
}

/// `1.2`, `1_2`, `20261121`: as Flyway reads it.
fn version(text: &str) -> Option<Version> {
    Version::parse(text)
}

/// The version as Flyway records it.
pub fn recorded_version(version: &Version) -> Option<String> {
    (!version.is_repeatable()).then(|| version.as_str().replace('_', "."))
}

/// At most 200 UTF-16 units, as the column has it.
pub fn recorded_description(text: &str) -> String {
    let units: Vec<u16> = text.encode_utf16().collect();
    if units.len() <= 200 { text.to_owned() } else { String::from_utf16_lossy(&units[..197]) + "..." }
}

/// `<file>.conf`.
pub(crate) fn script_config(text: &str) -> Metadata {
    let mut metadata = Metadata::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key.strip_prefix("flyway.").unwrap_or(key) {
            "executeInTransaction" => metadata.no_transaction = value.eq_ignore_ascii_case("false"),
            "placeholderReplacement" => metadata.keeps_placeholders = value.eq_ignore_ascii_case("false"),
            "encoding" if value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8") => {}
            key @ ("encoding" | "shouldExecute") => {
                metadata.problem =
                    Some(format!("`{key}={value}` in its .conf file is Flyway's to interpret"));
            }
            _ => {}
        }
    }
    metadata
}

/// The first `${…}`: Flyway fills them in, in strings and comments too, from settings that we do not have.
pub(crate) fn placeholder(sql: &str) -> Option<ParseProblem> {
    let at = sql.match_indices("${").map(|(at, _)| at).find(|&at| sql[at..].contains('}'))?;
    let line = sql[..at].matches('\n').count() as u32 + 1;
    let end = sql[at..].find('}').map_or(sql.len(), |length| at + length + 1);
    let shown: String = sql[at..end].chars().take(40).collect();
    Some(ParseProblem {
        line,
        column: 1,
        message: format!("`{shown}` is a placeholder, which Flyway fills in and safe-run does not"),
        hint: "Write the value itself; run this file with `safe-run -- flyway migrate`; or, if it is no placeholder, put \
               `placeholderReplacement=false` into the file's .conf."
            .to_owned(),
    })
}
