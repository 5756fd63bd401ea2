//! Versions, and the file names that carry them.

use std::{cmp::Ordering, fmt};

/// Most digits in one part of a version: what fits an integer of 128 bits.
const MAX_DIGITS: usize = 38;

/// A migration's version: numbers, ordered as numbers. `1`, `001` and `1.0` are the same version.
///
/// Some tools compare theirs as text instead, and a repeatable migration has a name in its place and comes last.
#[derive(Debug, Clone)]
pub struct Version {
    text: String,
    key: Key,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Numbers(Vec<u128>),
    Text(String),
    Repeatable(String),
}

impl Version {
    /// Reads `42`, `20261121034149`, `1.2.3` (or `1_2_3`). `None` for anything else and for more than 38 digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        for part in text.split(['.', '_']) {
            if part.is_empty() || part.len() > MAX_DIGITS || !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            parts.push(part.parse().ok()?);
        }
        while parts.len() > 1 && parts.last() == Some(&0) {
            parts.pop();
        }
        Some(Self { text: text.to_owned(), key: Key::Numbers(parts) })
    }

    /// A version that is compared as text.
    pub fn text(text: &str) -> Self {
        Self { text: text.to_owned(), key: Key::Text(text.to_owned()) }
    }

    /// The place of a migration that runs whenever it changed.
    pub fn repeatable(description: &str) -> Self {
        Self { text: format!("R {description}"), key: Key::Repeatable(description.to_owned()) }
    }

    /// Whether it stands for a repeatable migration.
    pub fn is_repeatable(&self) -> bool {
        matches!(self.key, Key::Repeatable(_))
    }

    /// As it was written, leading zeros included.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Version {}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::hash::Hash for Version {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a name in a migrations directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileName {
    /// Not a migration to apply: another ending, a hidden file, the way down.
    Ignored,
    /// A migration.
    Migration { version: Version, description: String },
    /// A migration that may come late.
    AnyOrder { version: Version, description: String },
    /// A migration that only its own tool can run, and why, as a phrase.
    Foreign { version: Version, description: String, why: &'static str },
    /// A `.sql` file that says neither, with the reason as a phrase.
    Wrong(&'static str),
}

impl FileName {
    /// Reads a file's name, without its directory.
    pub fn parse(name: &str) -> Self {
        let stem = match name.len().checked_sub(4) {
            Some(end) if name.is_char_boundary(end) && name[end..].eq_ignore_ascii_case(".sql") => {
                &name[..end]
            }
            _ => return Self::Ignored,
        };
        if name.starts_with('.') {
            return Self::Ignored;
        }
        let lower = stem.to_ascii_lowercase();
        // With a dot it is an ending; `0005_scale_down.sql` is a name.
        const DOWN: [&str; 4] = [".down", ".undo", ".rollback", ".revert"];
        if DOWN.iter().any(|end| lower.ends_with(end)) {
            return Self::Ignored;
        }
        let stem = if lower.ends_with(".up") { &stem[..stem.len() - 3] } else { stem };
        if let Some((prefix, description)) = stem.split_once("__") {
            let mut letters = prefix.chars();
            match letters.next() {
                Some('R' | 'r') if prefix.len() == 1 => {
                    return Self::Wrong("repeatable migrations (R__) are not supported yet");
                }
                Some('V' | 'v') => return Self::versioned(letters.as_str(), description),
                Some('U' | 'u') if Version::parse(letters.as_str()).is_some() => return Self::Ignored,
                _ => {}
            }
        }
        let end = stem.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(stem.len());
        match stem[end..].chars().next() {
            None | Some('_' | '-' | ' ') => Self::versioned(
                stem[..end].trim_end_matches('.'),
                stem[end..].trim_start_matches(['_', '-', ' ']),
            ),
            Some(_) => Self::Wrong("its name does not begin with a version"),
        }
    }

    fn versioned(version: &str, description: &str) -> Self {
        if version.is_empty() {
            return Self::Wrong("its name does not begin with a version");
        }
        match Version::parse(version) {
            Some(version) => Self::Migration { version, description: description.replace('_', " ") },
            None if version.len() > MAX_DIGITS => Self::Wrong("its version has more than 38 digits"),
            None => Self::Wrong("its version is not a number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text: &str| Version::parse(text).expect(text);
        assert!(
            version("9") < version("10") && version("1.9") < version("1.10") && version("1.2") > version("1")
        );
        assert_eq!(version("1"), version("001"));
        assert_eq!(version("1.0"), version("1"));
        assert!(version("20261121034149") < version(&"9".repeat(38)));
        for wrong in ["", "1..2", "a", "-1", "1a", &"1".repeat(39)] {
            assert!(Version::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn names_of_every_plain_layout_are_read() {
        let cases = [
            ("0001_create_users.sql", "0001", "create users"),
            ("1-init.sql", "1", "init"),
            ("20261121034149_add.up.sql", "20261121034149", "add"),
            ("V1__init.sql", "1", "init"),
            ("V1_2__add_x.sql", "1_2", "add x"),
            ("V1.2.3__x.SQL", "1.2.3", "x"),
            ("1.2.3_x.sql", "1.2.3", "x"),
            ("7.sql", "7", ""),
        ];
        for (name, version, description) in cases {
            let expected = FileName::Migration {
                version: Version::parse(version).expect(version),
                description: description.to_owned(),
            };
            assert_eq!(FileName::parse(name), expected, "{name}");
        }
        for name in
            ["1_x.down.sql", "U1__x.sql", ".1_x.sql", "README.md", "1_x.sql.bak", "1_x.txt", "sql", "é.s"]
        {
            assert_eq!(FileName::parse(name), FileName::Ignored, "{name}");
        }
        for name in ["schema.sql", "seed.sql", "R__views.sql", "Vx__a.sql", "1x.sql", "_1.sql", ".up.sql.sql"]
        {
            let parsed = FileName::parse(name);
            assert!(matches!(parsed, FileName::Wrong(_)) || name.starts_with('.'), "{name}: {parsed:?}");
        }
    }
}
