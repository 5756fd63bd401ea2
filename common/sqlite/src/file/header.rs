//! The first 100 bytes of a SQLite file.

use std::{fs::File, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use super::beside;
use crate::error::{ReadError, Result};

/// The highest file format that ours reads (2: WAL).
const FILE_FORMAT: u8 = 2;
/// How text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, as nearly always.
    Utf8,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
}

/// The highest schema format that ours reads.
const SCHEMA_FORMAT: u32 = 4;
/// How much of the file is looked at.
const HEAD_BYTES: usize = 4096;

/// What the header of a database file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Size of a page in bytes.
    pub page_bytes: u32,
    /// Whether the last writer kept a write-ahead log.
    pub is_wal: bool,
    /// How text is stored.
    pub encoding: Encoding,
    /// `PRAGMA user_version`, which some migration tools use.
    pub user_version: i32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// The version of SQLite that wrote it last, such as 3046001.
    pub written_by: u32,
}

/// Opens the file, and nothing else in its place: a FIFO would wait for a writer for ever.
pub(super) fn open(path: &Path) -> Result<File> {
    let unreadable = |e| ReadError::Unreadable(path.to_owned(), e);
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(ReadError::NotPlain(path.to_owned()));
    }
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_file() {
        Ok(file)
    } else {
        Err(ReadError::NotPlain(path.to_owned()))
    }
}

impl Header {
    pub(super) fn read(path: &Path, file: &File) -> Result<Self> {
        let unreadable = |e| ReadError::Unreadable(path.to_owned(), e);
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(unreadable)?;
        let has_wal = std::fs::metadata(beside(path, "-wal")).is_ok_and(|wal| wal.len() > 0);
        parse(path, &head, bytes, has_wal)
    }
}

fn parse(path: &Path, head: &[u8], has_bytes: u64, has_wal: bool) -> Result<Header> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let path_buf = || path.to_owned();
    let no_database = |why: &str| ReadError::NoDatabase(path.to_owned(), why.to_owned());
    if head.is_empty() {
        return Err(no_database("it is empty"));
    }
    if !head.starts_with(MAGIC) {
        if MAGIC.starts_with(head) {
            return Err(ReadError::Truncated { path: path_buf(), has_bytes, needs_bytes: 512 });
        }
        return Err(what_else(path, head, has_bytes));
    }
    if head.len() < 100 {
        return Err(ReadError::Truncated { path: path_buf(), has_bytes, needs_bytes: 512 });
    }
    let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let page_bytes = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65536,
        size => u32::from(size),
    };
    if page_bytes < 512 || !page_bytes.is_power_of_two() {
        return Err(ReadError::Damaged(
            path_buf(),
            format!("its header has a page size of {page_bytes} bytes"),
        ));
    }
    if head[19] > FILE_FORMAT {
        return Err(ReadError::NewerFormat(path_buf(), format!("file format {}", head[19])));
    }
    if u32_at(44) > SCHEMA_FORMAT {
        return Err(ReadError::NewerFormat(path_buf(), format!("schema format {}", u32_at(44))));
    }
    // The number of pages counts only where the same writer set both; with a WAL the file may be behind it.
    let pages = u64::from(u32_at(28));
    let needs_bytes = pages * u64::from(page_bytes);
    let is_pages_valid = pages > 0 && u32_at(24) == u32_at(92);
    if !has_wal
        && ((is_pages_valid && has_bytes < needs_bytes) || !has_bytes.is_multiple_of(u64::from(page_bytes)))
    {
        let needs_bytes = needs_bytes.max(has_bytes.next_multiple_of(u64::from(page_bytes)));
        return Err(ReadError::Truncated { path: path_buf(), has_bytes, needs_bytes });
    }
    let encoding = match u32_at(56) {
        // 0: nothing was ever written.
        0 | 1 => Encoding::Utf8,
        2 => Encoding::Utf16Le,
        3 => Encoding::Utf16Be,
        other => {
            return Err(ReadError::Damaged(path_buf(), format!("its header has the text encoding {other}")));
        }
    };
    Ok(Header {
        page_bytes,
        is_wal: head[18] == 2 || head[19] == 2,
        encoding,
        user_version: u32_at(60).cast_signed(),
        application_id: u32_at(68),
        written_by: u32_at(96),
    })
}

/// Says what a file is that does not begin like a database.
fn what_else(path: &Path, head: &[u8], has_bytes: u64) -> ReadError {
    let known: [(&[u8], &str); 9] = [
        (b"\x1f\x8b", "it is compressed by gzip"),
        (b"\x28\xb5\x2f\xfd", "it is compressed by zstd"),
        (b"BZh", "it is compressed by bzip2"),
        (b"\xfd7zXZ", "it is compressed by xz"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"PGDMP", "it is an archive of pg_dump"),
        (b"** This file contains an SQLite 2.1", "it was written by SQLite 2"),
        (b"PRAGMA foreign_keys", "it is SQL text, as sqlite3's .dump writes it"),
        (b"version https://git-lfs", "it is a pointer of Git LFS, and not the file itself"),
    ];
    for (magic, why) in known {
        if head.starts_with(magic) {
            return ReadError::NoDatabase(path.to_owned(), why.to_owned());
        }
    }
    if head.get(257..262) == Some(b"ustar") {
        let why = "it is a tar archive (`backup import` reads what `backup export` wrote)";
        return ReadError::NoDatabase(path.to_owned(), why.to_owned());
    }
    if has_bytes.is_multiple_of(512) && head.len() >= 512 && bits_per_byte(head) > 7.0 {
        return ReadError::Encrypted(path.to_owned());
    }
    ReadError::NoDatabase(path.to_owned(), "it does not begin like one".to_owned())
}

/// The entropy: 8 where all bytes are as frequent. A page of 512 random bytes has about 7.6.
fn bits_per_byte(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum()
}
