//! How the bytes of a chunk are stored: compressed and hashed as they stream, and checked as they stream back.
//!
//! Both codecs are readable by the stock tools (`zstd -d`, `gzip -d`). A frame that ends early, a wrong length, a wrong
//! hash or a wrong row count is an error, never an end of data.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use super::cost::{Spent, timed};
use crate::{Error, Result};

/// Unit of file writes and reads, in bytes. Large enough to make system calls cheap, small enough for many jobs.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of rows that are hashed and compressed at once: the server sends single rows, and a call, or a look at the clock,
/// for each would cost more than the work itself.
const BATCH_BYTES: usize = 64 * 1024;

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
/// SHA-256 over the stored bytes is what an attacker would have to beat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowHash(u128);

impl RowHash {
    /// Adds one row.
    pub fn add_row(&mut self, row: &[u8]) {
        self.0 = self.0.wrapping_add(xxh3_128(row));
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
#[derive(Debug, Default)]
pub struct RowCounter {
    carry: Vec<u8>,
    rows: u64,
    hash: RowHash,
}

impl RowCounter {
    /// Takes the next piece of the stream.
    pub fn feed(&mut self, mut data: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', data) {
            let (row, rest) = data.split_at(end);
            if self.carry.is_empty() {
                self.hash.add_row(row);
            } else {
                self.carry.extend_from_slice(row);
                self.hash.add_row(&self.carry);
                self.carry.clear();
            }
            self.rows += 1;
            data = &rest[1..];
        }
        self.carry.extend_from_slice(data);
    }

    /// Rows and hash; an unfinished last row is an error.
    pub fn finish(self) -> io::Result<(u64, RowHash)> {
        if self.carry.is_empty() {
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
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
    hashing: Duration,
    writing: Duration,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
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

type Sink = io::BufWriter<Hashing<File>>;

enum Encoder {
    Zstd(Box<zstd::stream::write::Encoder<'static, Sink>>),
    Gzip(Box<GzEncoder<Sink>>),
    None(Sink),
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
    path: PathBuf,
    file: File,
}

impl UnsyncedChunk {
    /// Makes the file durable; blocks.
    pub fn sync(self) -> Result<()> {
        self.file.sync_all().map_err(|source| Error::io("sync", &self.path, source))
    }
}

/// Writes one chunk: counts rows, compresses and hashes.
pub struct ChunkWriter {
    path: PathBuf,
    encoder: Encoder,
    counter: RowCounter,
    raw_bytes: u64,
    batch: Vec<u8>,
    hashing_rows: Duration,
    encoding: Duration,
}

impl ChunkWriter {
    /// Creates the file, mode 0600; it must not exist yet.
    pub fn create(path: &Path, codec: Codec) -> Result<Self> {
        let file = crate::repository::create_private_file(path)?;
        let sink = io::BufWriter::with_capacity(BUFFER_BYTES, Hashing::new(file));
        let encoder = match codec {
            Codec::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, level)
                    .map_err(|source| Error::io("compress", path, source))?;
                encoder.include_checksum(true).map_err(|source| Error::io("compress", path, source))?;
                Encoder::Zstd(Box::new(encoder))
            }
            Codec::Gzip(level) => Encoder::Gzip(Box::new(GzEncoder::new(sink, Compression::new(level)))),
            Codec::None => Encoder::None(sink),
        };
        Ok(Self {
            path: path.to_owned(),
            encoder,
            counter: RowCounter::default(),
            raw_bytes: 0,
            batch: Vec::with_capacity(2 * BATCH_BYTES),
            hashing_rows: Duration::ZERO,
            encoding: Duration::ZERO,
        })
    }

    /// Takes the next piece of COPY text.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        self.raw_bytes += data.len() as u64;
        if data.len() >= BATCH_BYTES {
            // A row of megabytes is not held twice.
            self.write_batch()?;
            return self.write_piece(data);
        }
        self.batch.extend_from_slice(data);
        if self.batch.len() < BATCH_BYTES { Ok(()) } else { self.write_batch() }
    }

    fn write_batch(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        let written = self.write_piece(&batch);
        batch.clear();
        self.batch = batch;
        written
    }

    fn write_piece(&mut self, data: &[u8]) -> Result<()> {
        timed(&mut self.hashing_rows, || self.counter.feed(data));
        let written = timed(&mut self.encoding, || match &mut self.encoder {
            Encoder::Zstd(encoder) => encoder.write_all(data),
            Encoder::Gzip(encoder) => encoder.write_all(data),
            Encoder::None(sink) => sink.write_all(data),
        });
        written.map_err(|source| Error::io("write", &self.path, source))
    }

    /// Ends the frame and flushes; also says where the time went. The file is durable only when it is synced as well.
    pub fn finish(mut self) -> Result<(StoredChunk, UnsyncedChunk, Spent)> {
        self.write_batch()?;
        let (path, mut encoding) = (self.path, self.encoding);
        let hashing = timed(&mut encoding, || {
            let sink = match self.encoder {
                Encoder::Zstd(encoder) => encoder.finish(),
                Encoder::Gzip(encoder) => encoder.finish(),
                Encoder::None(sink) => Ok(sink),
            }?;
            sink.into_inner().map_err(io::IntoInnerError::into_error)
        })
        .map_err(|source| Error::io("write", &path, source))?;
        let spent = Spent {
            row_hashes: self.hashing_rows,
            sha256: hashing.hashing,
            // The encoder passes its output on to the hash and the file.
            compression: encoding.saturating_sub(hashing.hashing + hashing.writing),
            writing: hashing.writing,
        };
        let (rows, row_hash) = self.counter.finish().map_err(|source| Error::io("write", &path, source))?;
        let stored = StoredChunk {
            rows,
            raw_bytes: self.raw_bytes,
            stored_bytes: hashing.bytes,
            sha256: hex(&hashing.hash.finalize()),
            row_hash,
        };
        Ok((stored, UnsyncedChunk { path, file: hashing.inner }, spent))
    }
}

type Source = Hashing<File>;

enum Decoder {
    Zstd(Box<zstd::stream::read::Decoder<'static, io::BufReader<Source>>>),
    Gzip(Box<GzDecoder<Source>>),
    None(Source),
}

/// Reads one chunk back and checks it against what was written. Only [`ChunkReader::finish`] makes the data trustworthy.
pub struct ChunkReader {
    path: PathBuf,
    decoder: Decoder,
    counter: RowCounter,
    raw_bytes: u64,
}

impl ChunkReader {
    /// Opens the file; `codec`'s level does not matter.
    pub fn open(path: &Path, codec: Codec) -> Result<Self> {
        let file = File::open(path).map_err(|source| missing_or_unreadable(path, source))?;
        let source = Hashing::new(file);
        let decoder = match codec {
            Codec::Zstd(_) => {
                let decoder = zstd::stream::read::Decoder::with_buffer(io::BufReader::with_capacity(
                    BUFFER_BYTES,
                    source,
                ))
                .map_err(|source| Error::io("read", path, source))?
                .single_frame();
                Decoder::Zstd(Box::new(decoder))
            }
            Codec::Gzip(_) => Decoder::Gzip(Box::new(GzDecoder::new(source))),
            Codec::None => Decoder::None(source),
        };
        Ok(Self { path: path.to_owned(), decoder, counter: RowCounter::default(), raw_bytes: 0 })
    }

    /// The next piece of COPY text, at most 256 KiB; `None` at the end of the frame.
    pub fn read(&mut self) -> Result<Option<bytes::Bytes>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut filled = 0;
        while filled < buffer.len() {
            let read = match &mut self.decoder {
                Decoder::Zstd(decoder) => decoder.read(&mut buffer[filled..]),
                Decoder::Gzip(decoder) => decoder.read(&mut buffer[filled..]),
                Decoder::None(source) => source.read(&mut buffer[filled..]),
            };
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(damaged(&self.path, &error.to_string())),
            }
        }
        if filled == 0 {
            return Ok(None);
        }
        buffer.truncate(filled);
        self.counter.feed(&buffer);
        self.raw_bytes += filled as u64;
        Ok(Some(bytes::Bytes::from(buffer)))
    }

    /// Compares lengths, rows and hashes with `expected`; bytes after the frame's end are damage too.
    pub fn finish(self, expected: &StoredChunk) -> Result<()> {
        let Self { path, decoder, counter, raw_bytes } = self;
        // The rest of the file belongs to the hash, whatever the decoder thought of it.
        let mut source = match decoder {
            Decoder::Zstd(decoder) => {
                let mut buffered = decoder.finish();
                drain(&mut buffered, &path)?;
                buffered.into_inner()
            }
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::None(source) => source,
        };
        drain(&mut source, &path)?;
        if source.bytes != expected.stored_bytes {
            let problem = format!("{} bytes instead of {}", source.bytes, expected.stored_bytes);
            return Err(damaged(&path, &problem));
        }
        if hex(&source.hash.finalize()) != expected.sha256 {
            return Err(damaged(&path, "its SHA-256 differs from the manifest's"));
        }
        let (rows, row_hash) = counter.finish().map_err(|error| damaged(&path, &error.to_string()))?;
        if (rows, raw_bytes) != (expected.rows, expected.raw_bytes) {
            let problem = format!(
                "{rows} rows and {raw_bytes} bytes of text instead of {} and {}",
                expected.rows, expected.raw_bytes
            );
            return Err(damaged(&path, &problem));
        }
        if row_hash != expected.row_hash {
            return Err(damaged(&path, "its row hash differs from the manifest's"));
        }
        Ok(())
    }
}

fn drain(reader: &mut impl Read, path: &Path) -> Result<()> {
    io::copy(reader, &mut io::sink()).map_err(|source| Error::io("read", path, source))?;
    Ok(())
}

/// Length and SHA-256 of a file, without decoding it.
pub fn file_digest(path: &Path) -> Result<(u64, String)> {
    let file = File::open(path).map_err(|source| missing_or_unreadable(path, source))?;
    let mut reader = io::BufReader::with_capacity(BUFFER_BYTES, Hashing::new(file));
    drain(&mut reader, path)?;
    let hashing = reader.into_inner();
    Ok((hashing.bytes, hex(&hashing.hash.finalize())))
}

fn missing_or_unreadable(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        damaged(path, "the file is missing")
    } else {
        Error::io("read", path, source)
    }
}

fn damaged(path: &Path, problem: &str) -> Error {
    Error::damaged(format!("{} is damaged: {problem}", path.display()))
        .with_hint("Run `backup verify` to list every damaged file, or restore an older snapshot.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn store(dir: &Path, codec: Codec, pieces: &[Vec<u8>]) -> (PathBuf, StoredChunk) {
        let path = dir.join(format!("chunk{}", codec.extension()));
        let mut writer = ChunkWriter::create(&path, codec).unwrap();
        for piece in pieces {
            writer.write(piece).unwrap();
        }
        let (stored, unsynced, _) = writer.finish().unwrap();
        unsynced.sync().unwrap();
        (path, stored)
    }

    fn load(path: &Path, codec: Codec, expected: &StoredChunk) -> Result<Vec<u8>> {
        let mut reader = ChunkReader::open(path, codec)?;
        let mut out = Vec::new();
        while let Some(piece) = reader.read()? {
            out.extend_from_slice(&piece);
        }
        reader.finish(expected)?;
        Ok(out)
    }

    const CODECS: [Codec; 3] = [Codec::Zstd(1), Codec::Gzip(6), Codec::None];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_was_written_reads_back(rows in prop::collection::vec("[a-z\\\\\t]{0,40}", 0..200), cut in 1usize..50) {
            let text: Vec<u8> = rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
            for codec in CODECS {
                let dir = tempfile::tempdir().unwrap();
                let pieces: Vec<Vec<u8>> = text.chunks(cut).map(<[u8]>::to_vec).collect();
                let (path, stored) = store(dir.path(), codec, &pieces);
                prop_assert_eq!(stored.rows, rows.len() as u64);
                prop_assert_eq!(&load(&path, codec, &stored).unwrap(), &text);
            }
        }

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

    #[test]
    fn every_flipped_byte_and_every_truncation_is_found() {
        for codec in CODECS {
            let dir = tempfile::tempdir().unwrap();
            let (path, stored) = store(dir.path(), codec, &[b"1\tone\n2\ttwo\n".to_vec()]);
            let good = std::fs::read(&path).unwrap();
            for position in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[position] ^= 1 << bit;
                    std::fs::write(&path, &bad).unwrap();
                    assert!(load(&path, codec, &stored).is_err(), "{codec}: flip at {position}.{bit}");
                }
                std::fs::write(&path, &good[..position]).unwrap();
                assert!(load(&path, codec, &stored).is_err(), "{codec}: cut at {position}");
            }
            std::fs::write(&path, [&good[..], b"x"].concat()).unwrap();
            assert!(load(&path, codec, &stored).is_err(), "{codec}: one byte more");
        }
    }

    #[test]
    fn a_stream_that_ends_inside_a_row_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ChunkWriter::create(&dir.path().join("c"), Codec::None).unwrap();
        writer.write(b"1\tone\n2\ttw").unwrap();
        assert!(writer.finish().is_err());
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
