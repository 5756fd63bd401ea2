//! Opening a SQLite file to read one state of it, without ever writing, creating or checkpointing anything.
//!
//! How a file can be read depends on how its last writer kept its journal:
//!
//! | header | beside it | how it is read |
//! |---|---|---|
//! | rollback journal | | SQLite's shared lock: writers wait (or get `database is locked`) until the end |
//! | WAL | a `-shm` that somebody uses | SQLite's own protocol: writers go on, and we see the state of the beginning |
//! | WAL | a `-wal`, and nobody is there | the WAL's index in our own memory, no locks; [`SqliteFile::unchanged`] proves at the end that nobody came |
//! | WAL | no `-wal` | `immutable`, the same proof |
//!
//! A hot rollback journal would have to be played back by a writer: such a file is refused. (Run by root, SQLite gives a WAL the owner of
//! its database, should they differ.)
//!
//! A process loses all its locks on a file as soon as it closes any descriptor of it. So the file is opened once, and stays open for as
//! long as a reader lives; nothing else in the process may open it meanwhile, not even to copy it.

mod access;
mod header;
mod location;
mod reader;

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use header::{Encoding, Header};
pub use location::{Location, names_sqlite};
pub use reader::Reader;
use sha2::{Digest as _, Sha256};

use crate::error::{ReadError, Result};
use access::Access;

/// How long a writer is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often readers are opened again when a writer committed between the first and the last.
const ATTEMPTS: usize = 20;

/// A SQLite file that can be read; nothing is locked yet.
#[derive(Debug)]
pub struct SqliteFile {
    path: PathBuf,
    /// Closed after the last reader: see above.
    handle: Arc<File>,
    header: Header,
    access: Access,
    seen: Seen,
}

/// The SHA-256 of a file's bytes, and of its WAL's where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Of the database file, in hexadecimal digits.
    pub file: String,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// Of the `-wal` beside it, if it holds anything.
    pub wal: Option<String>,
    /// Its size in bytes.
    pub wal_bytes: u64,
}

/// What a change of the files would change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    file: Stamp,
    wal: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Seen {
    fn at(path: &Path) -> Result<Self> {
        let file = std::fs::metadata(path).map_err(|e| ReadError::Unreadable(path.to_owned(), e))?;
        let wal = match std::fs::metadata(beside(path, "-wal")) {
            // An empty WAL holds nothing, and comes and goes with every connection.
            Ok(metadata) => (metadata.size() > 0).then(|| Stamp::of(&metadata)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(ReadError::Unreadable(beside(path, "-wal"), e)),
        };
        Ok(Self { file: Stamp::of(&file), wal })
    }
}

/// The path of a file that SQLite keeps beside a database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl SqliteFile {
    /// Looks at the header and at what lies beside the file, and decides how it can be read. Reads a few pages at most.
    ///
    /// # Errors
    /// All of [`ReadError`] that can be known before a row is read.
    pub fn open(location: &Location) -> Result<Self> {
        let given = location.path();
        let path = match std::fs::canonicalize(given) {
            Ok(path) => path,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(ReadError::NotThere(given.to_owned()));
            }
            Err(e) => return Err(ReadError::Unreadable(given.to_owned(), e)),
        };
        let seen = Seen::at(&path)?;
        let handle = header::open(&path)?;
        let header = Header::read(&path, &handle)?;
        let access = Access::decide(&path, &handle, &header)?;
        let file = Self { path, handle: Arc::new(handle), header, access, seen };
        // The first statement finds a hot journal, a lock, and a damaged or unknown schema.
        file.readers(1)?;
        Ok(file)
    }

    /// The file's own path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens up to `count` connections that see one and the same state for as long as they live: each is in a transaction of its
    /// own, and nobody committed between the first and the last. At least one; fewer than `count` where somebody commits all the time.
    pub fn readers(&self, count: usize) -> Result<Vec<Reader>> {
        for _ in 0..ATTEMPTS {
            let observer =
                if count > 1 { Some(self.access.connect(&self.path, &self.handle)?) } else { None };
            let before = observer.as_ref().map(|o| o.data_version(&self.path)).transpose()?;
            let mut readers = Vec::with_capacity(count.max(1));
            while readers.len() < count.max(1) {
                let mut reader = self.access.connect(&self.path, &self.handle)?;
                match reader.begin(&self.path) {
                    Ok(()) => readers.push(reader),
                    // A writer waits for those that read already to end, and lets no more in.
                    Err(ReadError::Locked(_)) if !readers.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            let after = observer.as_ref().map(|o| o.data_version(&self.path)).transpose();
            if readers.len() == 1 || matches!(after, Ok(after) if after == before) {
                return Ok(readers);
            }
        }
        let mut reader = self.access.connect(&self.path, &self.handle)?;
        reader.begin(&self.path)?;
        Ok(vec![reader])
    }

    /// Proves, once everything has been read, that what was read was one state: where SQLite's locks do not promise it, the
    /// files have to be what they were when this was opened.
    ///
    /// # Errors
    /// [`ReadError::Changed`]: nothing that was read may count.
    pub fn unchanged(&self) -> Result<()> {
        if self.access.is_locked() || Seen::at(&self.path)? == self.seen {
            Ok(())
        } else {
            Err(ReadError::Changed(self.path.clone()))
        }
    }

    /// The SHA-256 of the file as its bytes are now, and of its WAL. While an application writes to it these are the bytes of a
    /// moment, and not what the readers see.
    pub fn digest(&self) -> Result<Digest> {
        let unreadable = |e| ReadError::Unreadable(self.path.clone(), e);
        let mut position = 0;
        let (file, file_bytes) = sha256(|buffer| {
            let read = self.handle.read_at(buffer, position).map_err(unreadable)?;
            position += read as u64;
            Ok(read)
        })?;
        let path = beside(&self.path, "-wal");
        let (wal, wal_bytes) = match File::open(&path) {
            Ok(mut log) => {
                sha256(|buffer| log.read(buffer).map_err(|e| ReadError::Unreadable(path.clone(), e)))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (String::new(), 0),
            Err(e) => return Err(ReadError::Unreadable(path, e)),
        };
        Ok(Digest { file, file_bytes, wal: (wal_bytes > 0).then_some(wal), wal_bytes })
    }
}

/// Hashes what `read` fills its buffer with, until it fills in nothing.
fn sha256(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match read(&mut buffer)? {
            0 => return Ok((common::digest::hex(&hasher.finalize()), bytes)),
            count => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}
