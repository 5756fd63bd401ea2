//! One connection to a SQLite file, in one transaction.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, ErrorCode, InterruptHandle, ffi};

use crate::{
    error::{ReadError, Result},
    file::Encoding,
};

/// A connection that sees one state of the file for as long as it lives. It can be sent to another thread.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    encoding: Encoding,
    /// Dropped after the connection, and closed after the last one.
    _handle: Arc<File>,
}

impl Reader {
    pub(super) fn new(connection: Connection, handle: Arc<File>) -> Self {
        let path = connection.path().map(PathBuf::from).unwrap_or_default();
        Self { connection, path, encoding: Encoding::Utf8, _handle: handle }
    }

    /// Begins the transaction and reads the schema, so that the state is fixed.
    pub(super) fn begin(&mut self, path: &Path) -> Result<()> {
        let begin = || -> rusqlite::Result<String> {
            self.connection.execute_batch("begin")?;
            self.connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
            self.connection.query_row("pragma encoding", [], |row| row.get(0))
        };
        let encoding = begin().map_err(|e| failure(path, "read the schema", e))?;
        path.clone_into(&mut self.path);
        self.encoding = match encoding.as_str() {
            "UTF-16le" => Encoding::Utf16Le,
            "UTF-16be" => Encoding::Utf16Be,
            _ => Encoding::Utf8,
        };
        Ok(())
    }

    /// Changes whenever another connection has committed.
    pub(super) fn data_version(&self, path: &Path) -> Result<i64> {
        self.connection
            .query_row("pragma data_version", [], |row| row.get(0))
            .map_err(|e| failure(path, "read the data version", e))
    }

    /// How text is stored in the file.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Ends what this connection is doing, from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// An error of SQLite's as ours: `doing` is what was tried.
    pub(crate) fn failure(&self, doing: &str, error: rusqlite::Error) -> ReadError {
        failure(&self.path, doing, error)
    }
}

/// Sorts SQLite's errors by their code, never by their text.
pub(super) fn failure(path: &Path, doing: &str, error: rusqlite::Error) -> ReadError {
    let rusqlite::Error::SqliteFailure(code, ref message) = error else {
        return ReadError::Sqlite(doing.to_owned(), error);
    };
    let what = || message.clone().unwrap_or_else(|| code.to_string());
    match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ReadError::Locked(path.to_owned()),
        ErrorCode::DatabaseCorrupt => ReadError::Damaged(path.to_owned(), what()),
        ErrorCode::NotADatabase => ReadError::NoDatabase(path.to_owned(), what()),
        ErrorCode::ReadOnly if code.extended_code == ffi::SQLITE_READONLY_ROLLBACK => {
            ReadError::HotJournal(path.to_owned())
        }
        // A file shorter than its pages: SQLite reads beyond its end.
        ErrorCode::SystemIoFailure if code.extended_code == ffi::SQLITE_IOERR_SHORT_READ => {
            ReadError::Damaged(path.to_owned(), what())
        }
        _ => ReadError::Sqlite(doing.to_owned(), error),
    }
}
