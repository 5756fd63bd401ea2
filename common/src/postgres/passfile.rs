//! `.pgpass`: which line gives the password for a connection. Pure: the caller reads the file.
//!
//! Source of the rules: "The Password File" in libpq's documentation, and `passwordFromFile` in libpq where the text is
//! silent (a password ends at an unescaped colon).

use std::fmt;

use super::secret::Secret;

/// The lines of a password file that can match something.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Passfile {
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// Host, port, database, user; `None` is `*`.
    fields: [Option<String>; 4],
    password: Secret,
}

impl Passfile {
    /// Reads the text of a password file; comments and lines with too few fields are skipped, as libpq does.
    pub fn parse(text: &str) -> Self {
        let entries = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut rest = line.strip_suffix('\r').unwrap_or(line);
                let mut fields = [None, None, None, None];
                for field in &mut fields {
                    let (value, after) = take_field(rest);
                    // Only a bare star is a wildcard: `\*` is the name of a host called "*".
                    *field = if rest.starts_with("*:") { None } else { Some(value) };
                    rest = after?;
                }
                let (password, _) = take_field(rest);
                Some(Entry { fields, password: Secret::new(password) })
            })
            .collect();
        Self { entries }
    }

    /// The password of the first line that matches. `hosts` are the names under which the server may be listed (a
    /// socket is listed as `localhost`, or by its directory).
    pub fn find(&self, hosts: &[&str], port: u16, database: &str, user: &str) -> Option<&Secret> {
        let port = port.to_string();
        let matches =
            |field: &Option<String>, value: &str| field.as_deref().is_none_or(|field| field == value);
        self.entries
            .iter()
            .find(|entry| {
                let [entry_host, entry_port, entry_database, entry_user] = &entry.fields;
                hosts.iter().any(|host| matches(entry_host, host))
                    && matches(entry_port, &port)
                    && matches(entry_database, database)
                    && matches(entry_user, user)
            })
            .map(|entry| &entry.password)
            // libpq treats an empty password as none.
            .filter(|password| !password.expose().is_empty())
    }
}

impl fmt::Debug for Passfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passfile({} entries)", self.entries.len())
    }
}

/// The text up to the next unescaped colon, unescaped, and what follows that colon.
fn take_field(text: &str) -> (String, Option<&str>) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ':' => return (value, Some(&text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    (value, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn password(file: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        Passfile::parse(file).find(&[host], port, database, user).map(|found| found.expose().to_owned())
    }

    #[test]
    fn the_first_matching_line_wins() {
        let file = "# comment\nshort:1\ndb:5432:shop:ann:one\n*:*:*:ann:two\n*:*:*:*:three\n";
        assert_eq!(password(file, "db", 5432, "shop", "ann").as_deref(), Some("one"));
        assert_eq!(password(file, "db", 5433, "shop", "ann").as_deref(), Some("two"));
        assert_eq!(password(file, "other", 1, "x", "bob").as_deref(), Some("three"));
        assert_eq!(password("db:5432:shop:ann:one", "db", 5432, "shop", "bob"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let file = "\\:\\:1:5432:a\\\\b:ann:pa\\:ss\\\\word\n\\*:*:*:*:star";
        assert_eq!(password(file, "::1", 5432, "a\\b", "ann").as_deref(), Some("pa:ss\\word"));
        assert_eq!(password(file, "x", 5432, "x", "x"), None);
        assert_eq!(password(file, "*", 5432, "x", "x").as_deref(), Some("star"));
    }

    #[test]
    fn a_socket_matches_localhost_or_its_directory() {
        let file = Passfile::parse("localhost:5432:*:*:one");
        assert!(file.find(&["localhost", "/tmp"], 5432, "a", "b").is_some());
        let file = Passfile::parse("/tmp:5432:*:*:one");
        assert!(file.find(&["localhost", "/tmp"], 5432, "a", "b").is_some());
    }

    #[test]
    fn windows_line_ends_are_not_part_of_the_password() {
        assert_eq!(password("*:*:*:*:secret\r\n", "x", 1, "x", "x").as_deref(), Some("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let _ = Passfile::parse(&text).find(&["a"], 1, "b", "c");
        }

        #[test]
        fn escaped_fields_come_back(host in "[^\\r\\n#*][^\\r\\n]{0,8}", secret in "[^\\r\\n]{1,12}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let file = format!("{}:*:*:*:{}", escape(&host), escape(&secret));
            // `lines` also ends at other terminators only for \n; the pattern excludes it.
            prop_assert_eq!(password(&file, &host, 1, "d", "u"), Some(secret));
        }
    }
}
