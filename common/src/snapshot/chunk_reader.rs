//! Reads a chunk's file back, and checks it as it streams. A frame that ends early, a wrong length, a wrong hash or a wrong
//! row count is an error, never an end of data.
//!
//! The file may come from anybody: no more of it is read than the manifest says, decoding ends with the first byte of text
//! that the manifest does not know of, and what is held in memory depends on neither.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use sha2::Digest;

use super::codec::{
    BUFFER_BYTES, Codec, Hashing, RowCounter, StoredChunk, damaged, drain, hex, missing_or_unreadable,
};
use crate::{Error, Result, files::open_plain, interrupt};

/// Largest window of zstd, as a power of two: 8 MiB, that of level 19. A decoder holds it in memory.
const LARGEST_WINDOW_LOG: u32 = 23;

/// More bytes than the text of any row has: PostgreSQL builds it in one piece of memory, which is shorter than 1 GiB. Who looks at whole
/// rows holds one, so a longer one ends the reading, whatever the manifest says.
const LONGEST_ROW_BYTES: u64 = 1 << 30;

type Source = Hashing<io::Take<File>>;

enum Decoder {
    Zstd(Box<zstd::stream::read::Decoder<'static, io::BufReader<Source>>>),
    Gzip(Box<GzDecoder<Source>>),
    None(Source),
}

/// Reads one chunk back and checks it against what was written. Only [`ChunkReader::finish`] makes the data trustworthy.
pub struct ChunkReader {
    path: PathBuf,
    expected: StoredChunk,
    decoder: Decoder,
    counter: RowCounter,
    raw_bytes: u64,
    /// Of the row that has begun.
    row_bytes: u64,
}

impl ChunkReader {
    /// Opens the file of a chunk that must be as `expected`; `codec`'s level does not matter.
    ///
    /// # Errors
    /// Damaged when it is missing, no plain file, or of another length.
    pub fn open(path: &Path, codec: Codec, expected: &StoredChunk) -> Result<Self> {
        let file = open_plain(path).map_err(|source| missing_or_unreadable(path, source))?;
        let length = file.metadata().map_err(|source| Error::io("look at", path, source))?.len();
        if length != expected.stored_bytes {
            return Err(damaged(path, &format!("{length} bytes instead of {}", expected.stored_bytes)));
        }
        // A file that grows is read no further.
        let source = Hashing::new(file.take(length));
        let decoder = match codec {
            Codec::Zstd(_) => {
                let failed = |source| Error::io("read", path, source);
                let buffered = io::BufReader::with_capacity(BUFFER_BYTES, source);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).map_err(failed)?;
                decoder.window_log_max(LARGEST_WINDOW_LOG).map_err(failed)?;
                Decoder::Zstd(Box::new(decoder))
            }
            Codec::Gzip(_) => Decoder::Gzip(Box::new(GzDecoder::new(source))),
            Codec::None => Decoder::None(source),
        };
        let (path, expected) = (path.to_owned(), expected.clone());
        Ok(Self { path, expected, decoder, counter: RowCounter::default(), raw_bytes: 0, row_bytes: 0 })
    }

    /// The next piece of COPY text, at most 256 KiB; `None` at the end of the last frame.
    ///
    /// # Errors
    /// Damaged as soon as that is known; interrupted when a signal came in.
    pub fn read(&mut self) -> Result<Option<bytes::Bytes>> {
        interrupt::check()?;
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
        self.raw_bytes += filled as u64;
        if self.raw_bytes > self.expected.raw_bytes {
            let problem =
                format!("it holds more than the {} bytes of text of the manifest", self.expected.raw_bytes);
            return Err(damaged(&self.path, &problem));
        }
        let ended = memchr::memchr(b'\n', &buffer);
        if self.row_bytes + ended.unwrap_or(filled) as u64 >= LONGEST_ROW_BYTES {
            return Err(damaged(&self.path, "it holds a row that is longer than PostgreSQL writes any"));
        }
        self.row_bytes = match memchr::memrchr(b'\n', &buffer) {
            Some(end) => (filled - end - 1) as u64,
            None => self.row_bytes + filled as u64,
        };
        self.counter.feed(&buffer);
        Ok(Some(bytes::Bytes::from(buffer)))
    }

    /// Compares lengths, rows and hashes with what is expected; bytes after the last frame's end are damage too.
    pub fn finish(self) -> Result<()> {
        let Self { path, expected, decoder, counter, raw_bytes, row_bytes: _ } = self;
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
