//! Words of closed lists that go into SQL as they are: privileges, attributes, kinds. A snapshot may come from anybody, so
//! they are types that hold nothing else, and reading another word is an error.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident, $what:literal, [$($word:literal),* $(,)?]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub struct $name(&'static str);

        impl $name {
            /// Every word there is.
            pub const ALL: &[&str] = &[$($word),*];

            /// Takes the word as the catalog writes it.
            ///
            /// # Errors
            /// A message that names the word and what it should have been, for any other.
            pub fn parse(text: &str) -> Result<Self, String> {
                let known = Self::ALL.iter().find(|known| **known == text);
                known.map(|known| Self(known)).ok_or_else(|| {
                    format!("\"{}\" is no {}", crate::ident::printable(text), $what)
                })
            }

            /// The word.
            pub fn as_str(self) -> &'static str {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

closed_list!(
    /// A privilege on a database, for GRANT.
    DatabasePrivilege,
    "privilege on a database (database.acl.privilege)",
    ["CONNECT", "CREATE", "TEMPORARY"]
);

closed_list!(
    /// An attribute of a role, for CREATE ROLE.
    RoleAttribute,
    "attribute of a role (roles.attributes)",
    [
        "SUPERUSER",
        "NOSUPERUSER",
        "INHERIT",
        "NOINHERIT",
        "CREATEROLE",
        "NOCREATEROLE",
        "CREATEDB",
        "NOCREATEDB",
        "LOGIN",
        "NOLOGIN",
        "REPLICATION",
        "NOREPLICATION",
        "BYPASSRLS",
        "NOBYPASSRLS",
    ]
);

closed_list!(
    /// Who provides a locale, for CREATE DATABASE.
    LocaleProvider,
    "provider of locales (locale_provider)",
    ["libc", "icu", "builtin"]
);

closed_list!(
    /// What lies in a tablespace of its own, for ALTER … SET TABLESPACE in small letters.
    PlacedKind,
    "kind of relation (placed.kind)",
    ["table", "index", "materialized view"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_the_list_are_read() {
        for word in ["CONNECT", "CREATE", "TEMPORARY"] {
            assert_eq!(DatabasePrivilege::parse(word).unwrap().as_str(), word);
        }
        for word in
            ["", "connect", "CONNECT ", "CONNECT ON DATABASE a TO b; CREATE ROLE c SUPERUSER; GRANT CREATE"]
        {
            assert!(serde_json::from_value::<DatabasePrivilege>(word.into()).is_err(), "{word}");
        }
        assert!(RoleAttribute::parse("NOSUPERUSER PASSWORD 'x'").unwrap_err().contains("roles.attributes"));
        assert!(LocaleProvider::parse("default").is_err());
    }
}
