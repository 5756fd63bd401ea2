//! How a file can be read without writing anything, and the connection for it.

use std::{
    fs::File,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::Arc,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use rustix::fs::{FlockOperation, fcntl_lock};

use super::{Header, LOCK_WAIT, Reader, beside, reader::failure};
use crate::error::{ReadError, Result};

/// What stays as it is in the path of a `file:` URL.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// The way in which a file is read; the table stands in `file.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// SQLite's own locks, in the rollback journal or in a WAL that others use.
    Locked,
    /// A WAL that others may use, where its `-shm` can only be read.
    LockedReadOnlyShm,
    /// A WAL that nobody uses.
    PrivateWal,
    /// A WAL database without a WAL.
    Immutable,
}

impl Access {
    pub(super) fn decide(path: &Path, file: &File, header: &Header) -> Result<Self> {
        if !header.is_wal {
            return Ok(Self::Locked);
        }
        let shm = beside(path, "-shm");
        if shm.exists() {
            match File::options().read(true).write(true).open(&shm) {
                // Every connection holds a shared lock on a byte of this file: nobody has one if all of it can be had.
                Ok(file) => match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {}
                    Err(_) => return Ok(Self::Locked),
                },
                Err(_) if has_locks(&shm) => return Ok(Self::LockedReadOnlyShm),
                Err(_) => {}
            }
        }
        // A connection in exclusive locking mode has no `-shm`, but holds the file itself.
        if fcntl_lock(file, FlockOperation::NonBlockingLockShared).is_err() {
            return Err(ReadError::Locked(path.to_owned()));
        }
        fcntl_lock(file, FlockOperation::Unlock)
            .map_err(|e| ReadError::Unreadable(path.to_owned(), e.into()))?;
        let has_wal = std::fs::metadata(beside(path, "-wal")).is_ok_and(|wal| wal.len() > 0);
        Ok(if has_wal { Self::PrivateWal } else { Self::Immutable })
    }

    /// Whether SQLite's locks promise that one state is read.
    pub(super) fn is_locked(self) -> bool {
        matches!(self, Self::Locked | Self::LockedReadOnlyShm)
    }

    /// A connection, not yet in a transaction.
    pub(super) fn connect(self, path: &Path, handle: &Arc<File>) -> Result<Reader> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let options = match self {
            Self::Locked => "",
            Self::LockedReadOnlyShm => "&readonly_shm=1",
            Self::PrivateWal => "&vfs=unix-none",
            Self::Immutable => "&immutable=1",
        };
        let encoded = percent_encode(path.as_os_str().as_bytes(), IN_PATH);
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(format!("file:{encoded}?mode=ro{options}"), flags)?;
            // Without this the last connection to a WAL would write it back and delete it.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.busy_timeout(LOCK_WAIT)?;
            if self == Self::PrivateWal {
                // Before the first read: the index of the WAL is then in our memory.
                connection.query_row("pragma locking_mode = exclusive", [], |_| Ok(()))?;
            }
            // Kilobytes: the keys of a foreign key's table are looked up in it.
            connection
                .execute_batch("pragma query_only = on; pragma cache_size = -20480; pragma mmap_size = 0")?;
            Ok(connection)
        };
        open()
            .map(|connection| Reader::new(connection, handle.clone()))
            .map_err(|e| failure(path, "open the file", e))
    }
}

/// Whether a process holds a lock on a file that we may not write to, and so can't try to lock. Each line of Linux's list has the
/// inode of its file, as `08:01:1234`. Where there is no list, nobody is known to be there: then the files have to stay what they are.
fn has_locks(path: &Path) -> bool {
    let (Ok(metadata), Ok(locks)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/locks")) else {
        return false;
    };
    let ending = format!(":{}", metadata.ino());
    locks.lines().any(|line| line.split_whitespace().any(|word| word.ends_with(&ending)))
}
