//! Why a SQLite file could not be read.

use std::{fmt, path::PathBuf};

use common::error::Error;

/// The result of reading a SQLite file.
pub type Result<T, E = ReadError> = std::result::Result<T, E>;

/// A line of COPY text that is no row of these types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The column, counted from 0.
    pub column: usize,
    /// The field as a message shows it.
    pub field: String,
    /// The type that it should have.
    pub target: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (field, target) = (&self.field, &self.target);
        write!(f, "column {} of what the server gave back is {field}, which is no {target}", self.column + 1)
    }
}

/// Why a SQLite file could not be read. The file was not changed in any of these cases.
#[derive(Debug)]
pub enum ReadError {
    /// What was given is no path or URL of a SQLite file; the text says why.
    Location(String),
    /// There is no such file.
    NotThere(PathBuf),
    /// A folder, a FIFO, a device.
    NotPlain(PathBuf),
    /// The operating system refuses to read it.
    Unreadable(PathBuf, std::io::Error),
    /// No SQLite database; the text says what it is instead, as far as that can be told.
    NoDatabase(PathBuf, String),
    /// Bytes without any order: encrypted, as by SQLCipher, or compressed.
    Encrypted(PathBuf),
    /// Shorter than its own header says.
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        has_bytes: u64,
        /// What the header says, in bytes.
        needs_bytes: u64,
    },
    /// Written by a SQLite whose format ours does not know.
    NewerFormat(PathBuf, String),
    /// A rollback journal has to be played back by a writer first.
    HotJournal(PathBuf),
    /// Somebody is writing, and did not end within the time that we wait.
    Locked(PathBuf),
    /// The file was changed by somebody while it was read without locks.
    Changed(PathBuf),
    /// A page, a record or the schema is malformed.
    Damaged(PathBuf, String),
    /// SQLite refused a statement: what was tried, and its answer.
    Sqlite(String, rusqlite::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(why) => f.write_str(why),
            Self::NotThere(path) => write!(f, "there is no file {}", path.display()),
            Self::NotPlain(path) => write!(f, "{} is no plain file", path.display()),
            Self::Unreadable(path, source) => write!(f, "could not read {}: {source}", path.display()),
            Self::NoDatabase(path, why) => write!(f, "{} is no SQLite database: {why}", path.display()),
            Self::Encrypted(path) => {
                write!(f, "{} is no readable SQLite database: its bytes look encrypted", path.display())
            }
            Self::Truncated { path, has_bytes, needs_bytes } => write!(
                f,
                "{} is truncated: it has {has_bytes} bytes, and its header says {needs_bytes}",
                path.display()
            ),
            Self::NewerFormat(path, what) => {
                write!(f, "{} was written in a newer format than this program reads: {what}", path.display())
            }
            Self::HotJournal(path) => {
                write!(
                    f,
                    "{} was left in the middle of a transaction: its rollback journal has to be played back first",
                    path.display()
                )
            }
            Self::Locked(path) => write!(f, "{} is locked by a program that writes to it", path.display()),
            Self::Changed(path) => write!(f, "{} was changed while it was read", path.display()),
            Self::Damaged(path, what) => write!(f, "{} is damaged: {what}", path.display()),
            Self::Sqlite(doing, source) => write!(f, "could not {doing}: {source}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, source) => Some(source),
            Self::Sqlite(_, source) => Some(source),
            _ => None,
        }
    }
}

impl ReadError {
    /// The next action, a full sentence.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Location(_) => "Give the path of the file, or a URL such as sqlite:///folder/app.db.",
            Self::NotThere(_) => {
                "Check the path. A relative one begins in the folder where the command runs."
            }
            Self::NotPlain(_) => "Give the path of a database file.",
            Self::Unreadable(_, why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                "Run as a user who may read the file."
            }
            Self::Unreadable(..) => {
                "The operating system says why. Copy the file to another place, and name the copy."
            }
            Self::NoDatabase(..) => {
                "Check the path: the first 16 bytes of a SQLite database are \"SQLite format 3\"."
            }
            Self::Encrypted(_) => {
                "Decrypt it with the program that made it first: in SQLCipher's shell, sqlcipher_export() into a plain database."
            }
            Self::Truncated { .. } => {
                "Copy the file again, with the application stopped or by sqlite3's .backup. To read what is left, try sqlite3's .recover into a new file."
            }
            Self::NewerFormat(..) => {
                "Run sqlite3 of a matching version, and write the database anew with its .dump."
            }
            Self::HotJournal(_) => {
                "Open the database once with the application, or with sqlite3, and read from it: that plays the journal back. Then run this command again."
            }
            Self::Locked(_) => "Stop the application or wait for it, then run this command again.",
            Self::Changed(_) => "Stop what writes to it, then run this command again.",
            Self::Damaged(..) => {
                "Check it with sqlite3's PRAGMA integrity_check. sqlite3's .recover writes what is readable into a new file."
            }
            Self::Sqlite(..) => return None,
        })
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        let mut made = match &error {
            ReadError::Location(_) | ReadError::NotThere(_) => Self::usage(message),
            ReadError::Locked(_) | ReadError::Changed(_) => Self::busy(message),
            ReadError::Unreadable(..) | ReadError::Sqlite(..) => Self::failed(message),
            _ => Self::refused(message),
        };
        if let Some(hint) = error.hint() {
            made = made.with_hint(hint);
        }
        made.with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind as Io;

    use super::*;

    /// Exit codes and hints of every kind, as a person gets them; `tests/opening.rs` has the files that lead to them.
    #[test]
    fn every_reason_has_its_code_and_its_next_step() {
        let file = || PathBuf::from("app.db");
        let why = || "why".to_owned();
        let table = [
            (
                ReadError::Location(why()),
                2,
                "Give the path of the file, or a URL such as sqlite:///folder/app.db.",
            ),
            (
                ReadError::NotThere(file()),
                2,
                "Check the path. A relative one begins in the folder where the command runs.",
            ),
            (ReadError::NotPlain(file()), 3, "Give the path of a database file."),
            (
                ReadError::Unreadable(file(), Io::PermissionDenied.into()),
                1,
                "Run as a user who may read the file.",
            ),
            (
                ReadError::Unreadable(file(), Io::TimedOut.into()),
                1,
                "The operating system says why. Copy the file to another place, and name the copy.",
            ),
            (
                ReadError::NoDatabase(file(), why()),
                3,
                "Check the path: the first 16 bytes of a SQLite database are \"SQLite format 3\".",
            ),
            (
                ReadError::Encrypted(file()),
                3,
                "Decrypt it with the program that made it first: in SQLCipher's shell, sqlcipher_export() into a plain database.",
            ),
            (
                ReadError::Truncated { path: file(), has_bytes: 1, needs_bytes: 2 },
                3,
                "Copy the file again, with the application stopped or by sqlite3's .backup. To read what is left, try sqlite3's \
                 .recover into a new file.",
            ),
            (
                ReadError::NewerFormat(file(), why()),
                3,
                "Run sqlite3 of a matching version, and write the database anew with its .dump.",
            ),
            (
                ReadError::HotJournal(file()),
                3,
                "Open the database once with the application, or with sqlite3, and read from it: that plays the journal back. \
                 Then run this command again.",
            ),
            (
                ReadError::Locked(file()),
                4,
                "Stop the application or wait for it, then run this command again.",
            ),
            (ReadError::Changed(file()), 4, "Stop what writes to it, then run this command again."),
            (
                ReadError::Damaged(file(), why()),
                3,
                "Check it with sqlite3's PRAGMA integrity_check. sqlite3's .recover writes what is readable into a new file.",
            ),
        ];
        for (error, code, hint) in table {
            let told = Error::from(error);
            assert_eq!((told.kind().exit_code(), told.hint()), (code, Some(hint)), "{told}");
        }
    }
}
