//! Compression methods, row hashes, and what is known of a chunk's file. [`super::chunk_writer`] writes one,
//! [`super::chunk_reader`] reads it back.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::cost::timed;
use crate::{Error, Result, files::open_plain};

/// Unit of file writes and reads, in bytes. Large enough to make system calls cheap, small enough for many jobs.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// A compression method with its level, as `--compress` takes it: `zstd:1`, `gzip:6`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard, levels 1 to 19.
    Zstd(i32),
    /// Gzip through zlib-rs, levels 1 to 9.
    Gzip(u32),
    /// Stored as it is.
    None,
}

impl Default for Codec {
    /// zstd level 1: faster than the server can format rows, and within a few per cent of level 3's size.
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl Codec {
    /// The ending of a chunk's file name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd(_) => ".copy.zst",
            Self::Gzip(_) => ".copy.gz",
            Self::None => ".copy",
        }
    }

    /// The stock command that writes the plain bytes of a file to stdout.
    pub fn stock_decoder(self) -> &'static str {
        match self {
            Self::Zstd(_) => "zstd -dcq",
            Self::Gzip(_) => "gzip -dc",
            Self::None => "cat",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => {
                let parsed = level.parse::<u32>().map_err(|_| invalid_codec(text))?;
                (name, Some(parsed))
            }
            None => (text, None),
        };
        match (name, level) {
            ("zstd", None) => Ok(Self::Zstd(1)),
            ("zstd", Some(level @ 1..=19)) => Ok(Self::Zstd(level.cast_signed())),
            ("gzip", None) => Ok(Self::Gzip(6)),
            ("gzip", Some(level @ 1..=9)) => Ok(Self::Gzip(level)),
            ("none", None) => Ok(Self::None),
            _ => Err(invalid_codec(text)),
        }
    }
}

fn invalid_codec(text: &str) -> Error {
    Error::usage(format!("unknown compression \"{text}\""))
        .with_hint("Use zstd, zstd:1 to zstd:19, gzip, gzip:1 to gzip:9, or none.")
}

impl Serialize for Codec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Codec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An order-independent hash of rows: the sum, modulo 2^128, of XXH3-128 over each row's COPY text without its line end.
///
/// A sum and not an exclusive or: with the latter two equal rows cancel each other. It finds accidents, not forgery;
/// SHA-256 over the stored bytes is what an attacker would have to beat (docs/exactness.md, E8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowHash(u128);

impl RowHash {
    /// Adds one row.
    pub fn add_row(&mut self, row: &[u8]) {
        self.0 = self.0.wrapping_add(xxh3_128(row));
    }

    /// The number behind it.
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// The hash with this number.
    pub(super) fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Adds the rows of another hash.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for RowHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 32 {
            return Err(serde::de::Error::custom("a row hash has 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Counts and hashes the rows of a COPY text stream, however the stream is cut into pieces.
///
/// In COPY text a line feed ends a row and stands nowhere else: inside values it is written as `\n`.
#[derive(Default)]
pub struct RowCounter {
    /// The row that has begun, unless nothing of it has come yet. Only its hash: a row may be as long as a value of 1 GB.
    begun: Option<Box<Xxh3>>,
    rows: u64,
    hash: RowHash,
}

impl RowCounter {
    /// Takes the next piece of the stream.
    pub fn feed(&mut self, mut data: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', data) {
            let (row, rest) = data.split_at(end);
            match self.begun.take() {
                None => self.hash.add_row(row),
                Some(mut begun) => {
                    begun.update(row);
                    self.hash.merge(RowHash(begun.digest128()));
                }
            }
            self.rows += 1;
            data = &rest[1..];
        }
        if !data.is_empty() {
            self.begun.get_or_insert_with(Box::default).update(data);
        }
    }

    /// Rows and hash; an unfinished last row is an error.
    pub fn finish(self) -> io::Result<(u64, RowHash)> {
        if self.begun.is_none() {
            Ok((self.rows, self.hash))
        } else {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last row has no end"))
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Passes bytes on, counting and hashing them.
pub(super) struct Hashing<T> {
    pub(super) inner: T,
    pub(super) hash: Sha256,
    pub(super) bytes: u64,
    pub(super) hashing: Duration,
    pub(super) writing: Duration,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0, hashing: Duration::ZERO, writing: Duration::ZERO }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = timed(&mut self.writing, || self.inner.write(data))?;
        timed(&mut self.hashing, || self.hash.update(&data[..written]));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// What was written for one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    /// Rows in it.
    pub rows: u64,
    /// Bytes of COPY text.
    pub raw_bytes: u64,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Order-independent hash of its rows.
    pub row_hash: RowHash,
}

/// A chunk's file with all its bytes written, which a power cut may still take. Nothing may name it before
/// [`UnsyncedChunk::sync`] has succeeded.
#[must_use = "the file is not durable yet"]
pub struct UnsyncedChunk {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl UnsyncedChunk {
    /// Makes the file durable; blocks.
    pub fn sync(self) -> Result<()> {
        self.file.sync_all().map_err(|source| Error::io("sync", &self.path, source))
    }
}

/// Reads to the end, or until a signal comes in.
pub(super) fn drain(reader: &mut impl Read, path: &Path) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        crate::interrupt::check()?;
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::io("read", path, source)),
        }
    }
}

/// Length and SHA-256 of a file, without decoding it.
pub fn file_digest(path: &Path) -> Result<(u64, String)> {
    let file = open_plain(path).map_err(|source| missing_or_unreadable(path, source))?;
    let mut hashing = Hashing::new(file);
    drain(&mut hashing, path)?;
    Ok((hashing.bytes, hex(&hashing.hash.finalize())))
}

pub(super) fn missing_or_unreadable(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        damaged(path, "the file is missing")
    } else {
        Error::io("read", path, source)
    }
}

pub(super) fn damaged(path: &Path, problem: &str) -> Error {
    Error::damaged(format!("{} is damaged: {problem}", path.display()))
        .with_hint("Run `backup verify` to list every damaged file, or restore an older snapshot.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_hash_ignores_order_and_nothing_else(mut rows in prop::collection::vec("[a-z]{0,5}", 1..30)) {
            let hash = |rows: &[String]| {
                let mut hash = RowHash::default();
                rows.iter().for_each(|row| hash.add_row(row.as_bytes()));
                hash
            };
            let before = hash(&rows);
            rows.reverse();
            prop_assert_eq!(before, hash(&rows));
            rows[0].push('x');
            prop_assert_ne!(before, hash(&rows));
        }
    }

    proptest! {
        #[test]
        fn a_row_hash_is_the_same_however_the_rows_come(rows in prop::collection::vec("[a-z]{0,600}", 0..20), cut in 1_usize..700) {
            let text: Vec<u8> = rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
            let mut whole = RowHash::default();
            rows.iter().for_each(|row| whole.add_row(row.as_bytes()));
            let mut counter = RowCounter::default();
            text.chunks(cut).for_each(|piece| counter.feed(piece));
            prop_assert_eq!(counter.finish().unwrap(), (rows.len() as u64, whole));
        }
    }

    #[test]
    fn codecs_are_named_as_on_the_command_line() {
        for text in ["zstd:1", "zstd:19", "gzip:9", "none"] {
            assert_eq!(text.parse::<Codec>().unwrap().to_string(), text);
        }
        for text in ["lz4", "zstd:0", "zstd:20", "gzip:x", "none:1", ""] {
            assert!(text.parse::<Codec>().is_err(), "{text}");
        }
    }
}
