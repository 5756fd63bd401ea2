//! Where a SQLite file is: a path, or the URLs that drivers take.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use crate::error::{ReadError, Result};

/// The place of a SQLite file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(PathBuf);

impl Location {
    /// A path as it stands.
    pub fn of_path(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Reads a path, or a URL: `sqlite:///relative.db` and `sqlite:////absolute.db` as SQLAlchemy, Rails and Django's helpers
    /// read them, `sqlite+aiosqlite://…` and the like, `sqlite://name.db` and `sqlite:name.db` as sqlx, `jdbc:sqlite:name.db`,
    /// `file:name.db` as SQLite itself and Prisma. What stands behind `?` are settings of the driver, and has no meaning here.
    ///
    /// # Errors
    /// [`ReadError::Location`]: a database in memory, a URL of something else, or no path at all. Of a URL only the scheme is told: it may hold
    /// a password.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = split_scheme(text) else {
            return if text.is_empty() || text == ":memory:" {
                Err(nowhere(text))
            } else if let Some(scheme) = other_scheme(text) {
                Err(ReadError::Location(format!("a URL of {scheme}:// names no SQLite file")))
            } else {
                Ok(Self(text.into()))
            };
        };
        let (path, query) = match rest.split_once(['?', '#']) {
            Some((path, query)) => (path, query),
            None => (rest, ""),
        };
        let path = match (scheme, path.strip_prefix("//")) {
            // `file:///x` and `file://localhost/x` name an absolute path; three slashes are one.
            (Scheme::File, Some(after)) => match after.strip_prefix("localhost") {
                Some(absolute) if absolute.starts_with('/') => absolute,
                _ => after,
            },
            // SQLAlchemy: the third slash ends the empty host, and what follows is the path.
            (Scheme::Sqlite, Some(after)) => after.strip_prefix('/').unwrap_or(after),
            (_, None) => path,
        };
        let path = percent_decode_str(path).collect::<Vec<u8>>();
        if path.is_empty() || path == b":memory:" || query.split('&').any(|part| part == "mode=memory") {
            return Err(nowhere(text));
        }
        if path.contains(&0) {
            return Err(ReadError::Location("a path can't hold the byte 0".to_owned()));
        }
        Ok(Self(PathBuf::from(OsString::from_vec(path))))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn nowhere(text: &str) -> ReadError {
    ReadError::Location(if text.is_empty() {
        "no SQLite file was named".to_owned()
    } else {
        format!("{} names a database in memory, and no file", common::ident::printable(text))
    })
}

#[derive(Clone, Copy)]
enum Scheme {
    Sqlite,
    File,
}

fn split_scheme(text: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let lower = scheme.to_ascii_lowercase();
    if lower == "jdbc" {
        return split_scheme(rest);
    }
    let base = lower.split('+').next().unwrap_or_default();
    match base {
        "sqlite" | "sqlite3" => Some((Scheme::Sqlite, rest)),
        "file" => Some((Scheme::File, rest)),
        _ => None,
    }
}

/// The scheme of any other URL, such as `postgresql`. A path may have a colon, but none has `://` behind a single word.
fn other_scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':'))
    };
    is_word(scheme).then_some(scheme)
}

/// Whether this is a URL of a SQLite database, whoever it was meant for: `sqlite:`, `sqlite3:`, `sqlite+driver:`, `jdbc:sqlite:`.
pub fn names_sqlite(text: &str) -> bool {
    matches!(split_scheme(text.trim()), Some((Scheme::Sqlite, _)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_name_the_file_that_their_drivers_open() {
        for (text, path) in [
            ("app.db", "app.db"),
            ("/srv/app.sqlite3", "/srv/app.sqlite3"),
            ("a b?.db", "a b?.db"),
            ("sqlite:///app.db", "app.db"),
            ("sqlite:////srv/app.db", "/srv/app.db"),
            ("sqlite+aiosqlite:///./app.db", "./app.db"),
            ("sqlite+pysqlite:////srv/app.db?timeout=5", "/srv/app.db"),
            ("sqlite://app.db", "app.db"),
            ("sqlite:app.db", "app.db"),
            ("sqlite3:/srv/app.db", "/srv/app.db"),
            ("SQLite:///app.db", "app.db"),
            ("jdbc:sqlite:app.db", "app.db"),
            ("file:app.db", "app.db"),
            ("file:./dev.db?connection_limit=1", "./dev.db"),
            ("file:///srv/app.db", "/srv/app.db"),
            ("file://localhost/srv/app.db", "/srv/app.db"),
            ("file:/srv/a%20b.db", "/srv/a b.db"),
            ("C:app.db", "C:app.db"),
        ] {
            assert_eq!(Location::parse(text).unwrap().path(), Path::new(path), "{text}");
        }
    }

    #[test]
    fn a_database_in_memory_is_no_file() {
        for text in [
            "",
            ":memory:",
            "sqlite://",
            "sqlite:///:memory:",
            "sqlite::memory:",
            "file:x?mode=memory&cache=shared",
        ] {
            assert!(matches!(Location::parse(text), Err(ReadError::Location(_))), "{text}");
        }
    }

    #[test]
    fn a_url_of_something_else_is_no_path_and_its_password_is_not_told() {
        for (text, scheme) in [
            ("postgresql://app:hidden@h/shop", "postgresql"),
            ("mysql+pymysql://app:hidden@h/shop", "mysql+pymysql"),
            ("jdbc:postgresql://h/shop?password=hidden", "jdbc:postgresql"),
        ] {
            let Err(ReadError::Location(why)) = Location::parse(text) else { panic!("{text} is a path") };
            assert_eq!(why, format!("a URL of {scheme}:// names no SQLite file"));
        }
        assert_eq!(Location::parse("./a://b").unwrap().path(), Path::new("./a://b"));
    }

    #[test]
    fn a_sqlite_url_is_known_wherever_it_is_given() {
        assert!(names_sqlite("sqlite+aiosqlite:///x.db") && names_sqlite("jdbc:sqlite:x"));
        assert!(
            !names_sqlite("postgresql://h/sqlite") && !names_sqlite("app.sqlite") && !names_sqlite("file:x")
        );
    }
}
