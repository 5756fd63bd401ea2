//! Writes a chunk's file: counts and hashes its rows, compresses, and hashes what is stored.
//!
//! The rows come in *pieces*: the rows of a few neighbouring blocks, in the order of the blocks. With zstd each piece is
//! compressed by itself, in frames of its own, and the file ends with a frame that decoders skip and that says where each
//! piece lies ([`super::pieces`]). So a later snapshot can take over the pieces that did not change, as they are stored.
//!
//! All of it is readable by the stock tools: `zstd -d` and `gzip -d` take one frame after another.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use sha2::Digest;

use super::{
    codec::{BUFFER_BYTES, Codec, Hashing, RowCounter, RowHash, StoredChunk, UnsyncedChunk, hex},
    cost::{Spent, timed},
    pieces::{Piece, PieceIndex},
};
use crate::{Error, Result};

/// Bytes of rows that are hashed and compressed at once, in one frame. A frame that lies in one piece is compressed faster
/// than a stream, and bounds the memory that a piece of long rows takes.
const FRAME_BYTES: usize = 256 * 1024;

/// What compresses, and the memory that it needs: kept from one chunk to the next, because making it anew costs more than
/// compressing a small table.
pub struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    rows: Vec<u8>,
    frame: Vec<u8>,
    stored: Vec<u8>,
}

impl Compressor {
    /// For chunks of one codec.
    ///
    /// # Errors
    /// No memory.
    pub fn new(codec: Codec) -> Result<Self> {
        let zstd = match codec {
            Codec::Zstd(level) => {
                let failed = |source: io::Error| {
                    Error::failed(format!("could not prepare compression: {source}")).with_source(source)
                };
                let mut zstd = zstd::bulk::Compressor::new(level).map_err(failed)?;
                zstd.include_checksum(true).map_err(failed)?;
                Some(zstd)
            }
            Codec::Gzip(_) | Codec::None => None,
        };
        Ok(Self { codec, zstd, rows: Vec::new(), frame: Vec::new(), stored: Vec::new() })
    }
}

type Sink = io::BufWriter<Hashing<File>>;

enum Encoder {
    Frames(Hashing<File>),
    Gzip(Box<GzEncoder<Sink>>),
    None(Sink),
}

/// A chunk that was written.
pub struct Finished {
    /// What it must look like from now on.
    pub stored: StoredChunk,
    /// Its file.
    pub unsynced: UnsyncedChunk,
    /// Where the time went.
    pub spent: Spent,
    /// For the next chunk.
    pub compressor: Compressor,
}

/// Writes one chunk.
pub struct ChunkWriter {
    path: PathBuf,
    compressor: Compressor,
    encoder: Encoder,
    counter: RowCounter,
    rows: u64,
    raw_bytes: u64,
    /// Bytes of frames, written or about to be.
    framed_bytes: u64,
    row_hash: RowHash,
    index: PieceIndex,
    /// `raw_bytes` and `framed_bytes` when the piece began.
    piece_began: (u64, u64),
    hashing_rows: Duration,
    encoding: Duration,
}

impl ChunkWriter {
    /// Creates the file, mode 0600; it must not exist yet. Its pieces hold the rows of `piece_blocks` blocks each.
    pub fn create(path: &Path, piece_blocks: u64, mut compressor: Compressor) -> Result<Self> {
        let file = Hashing::new(crate::files::create_private_file(path)?);
        let buffered = |file| io::BufWriter::with_capacity(BUFFER_BYTES, file);
        let encoder = match compressor.codec {
            Codec::Zstd(_) => Encoder::Frames(file),
            Codec::Gzip(level) => {
                Encoder::Gzip(Box::new(GzEncoder::new(buffered(file), Compression::new(level))))
            }
            Codec::None => Encoder::None(buffered(file)),
        };
        compressor.rows.clear();
        compressor.stored.clear();
        Ok(Self {
            path: path.to_owned(),
            compressor,
            encoder,
            counter: RowCounter::default(),
            rows: 0,
            raw_bytes: 0,
            framed_bytes: 0,
            row_hash: RowHash::default(),
            index: PieceIndex { piece_blocks, pieces: Vec::new() },
            piece_began: (0, 0),
            hashing_rows: Duration::ZERO,
            encoding: Duration::ZERO,
        })
    }

    /// Bytes of COPY text so far, without what is still in the buffer.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Where the next COPY text is put; [`ChunkWriter::added`] has to be called then.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.compressor.rows
    }

    /// Takes what was put into the buffer, if it is much.
    pub fn added(&mut self) -> Result<()> {
        if self.compressor.rows.len() < FRAME_BYTES { Ok(()) } else { self.write_frame() }
    }

    fn write_frame(&mut self) -> Result<()> {
        let Compressor { zstd, rows, frame, stored, .. } = &mut self.compressor;
        self.raw_bytes += rows.len() as u64;
        timed(&mut self.hashing_rows, || self.counter.feed(rows));
        let written = timed(&mut self.encoding, || match (&mut self.encoder, zstd) {
            (Encoder::Frames(file), Some(zstd)) => {
                frame.clear();
                frame.reserve(zstd::zstd_safe::compress_bound(rows.len()));
                zstd.compress_to_buffer(rows.as_slice(), frame)?;
                self.framed_bytes += frame.len() as u64;
                stored.extend_from_slice(frame);
                write_if_much(file, stored)
            }
            (Encoder::Gzip(encoder), _) => encoder.write_all(rows),
            (Encoder::None(sink), _) => sink.write_all(rows),
            (Encoder::Frames(_), None) => unreachable!("frames are zstd's"),
        });
        rows.clear();
        written.map_err(|source| Error::io("write", &self.path, source))
    }

    /// All rows of a piece are there; what comes next belongs to the following blocks. Gives the number of its rows.
    ///
    /// # Errors
    /// Also when the last row has no end.
    pub fn end_piece(&mut self) -> Result<u64> {
        if !self.compressor.rows.is_empty() {
            self.write_frame()?;
        }
        let counter = std::mem::take(&mut self.counter);
        let (rows, row_hash) = counter.finish().map_err(|source| Error::io("write", &self.path, source))?;
        let (raw_before, framed_before) = self.piece_began;
        self.count(Piece {
            stored_bytes: self.framed_bytes - framed_before,
            raw_bytes: self.raw_bytes - raw_before,
            rows,
            row_hash,
        });
        Ok(rows)
    }

    fn count(&mut self, piece: Piece) {
        self.rows += piece.rows;
        self.row_hash.merge(piece.row_hash);
        self.index.pieces.push(piece);
        self.piece_began = (self.raw_bytes, self.framed_bytes);
    }

    /// Puts pieces of another chunk of the same codec here, as they are stored there: call it between two pieces, with all
    /// their bytes in one or more calls, and then [`ChunkWriter::kept`] for each of them.
    ///
    /// # Errors
    /// Chunks of other codecs than zstd are not made of pieces.
    pub fn keep_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Encoder::Frames(file) = &mut self.encoder else {
            return Err(Error::failed("only chunks that zstd compressed have pieces"));
        };
        self.compressor.stored.extend_from_slice(bytes);
        let written = timed(&mut self.encoding, || write_if_much(file, &mut self.compressor.stored));
        written.map_err(|source| Error::io("write", &self.path, source))
    }

    /// Counts a piece whose bytes came through [`ChunkWriter::keep_bytes`].
    pub fn kept(&mut self, piece: Piece) {
        self.raw_bytes += piece.raw_bytes;
        self.framed_bytes += piece.stored_bytes;
        self.count(piece);
    }

    /// Ends the last piece and the file. It is durable only when it is synced as well.
    pub fn finish(mut self) -> Result<Finished> {
        if !self.compressor.rows.is_empty() || self.index.pieces.is_empty() {
            self.end_piece()?;
        }
        let (path, mut encoding) = (self.path, self.encoding);
        let (index, compressor) = (&self.index, &mut self.compressor);
        let is_empty = self.framed_bytes == 0;
        let hashing = timed(&mut encoding, || match self.encoder {
            Encoder::Frames(mut file) => {
                if let (true, Some(zstd)) = (is_empty, &mut compressor.zstd) {
                    // No rows: a file without any frame is none that a decoder takes.
                    compressor.stored.extend_from_slice(&zstd.compress(&[])?);
                }
                if index.pieces.len() > 1 {
                    compressor.stored.extend_from_slice(&index.to_frame());
                }
                file.write_all(&compressor.stored)?;
                compressor.stored.clear();
                Ok(file)
            }
            Encoder::Gzip(encoder) => encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error),
            Encoder::None(sink) => sink.into_inner().map_err(io::IntoInnerError::into_error),
        })
        .map_err(|source| Error::io("write", &path, source))?;
        let spent = Spent {
            row_hashes: self.hashing_rows,
            sha256: hashing.hashing,
            // The encoder passes its output on to the hash and the file.
            compression: encoding.saturating_sub(hashing.hashing + hashing.writing),
            writing: hashing.writing,
        };
        let stored = StoredChunk {
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            stored_bytes: hashing.bytes,
            sha256: hex(&hashing.hash.finalize()),
            row_hash: self.row_hash,
        };
        let unsynced = UnsyncedChunk { path, file: hashing.inner };
        Ok(Finished { stored, unsynced, spent, compressor: self.compressor })
    }
}

/// Single frames are small: several go to the file at once.
fn write_if_much(file: &mut Hashing<File>, stored: &mut Vec<u8>) -> io::Result<()> {
    if stored.len() < BUFFER_BYTES {
        return Ok(());
    }
    file.write_all(stored)?;
    stored.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::chunk_reader::ChunkReader;

    fn store(dir: &Path, codec: Codec, pieces: &[Vec<u8>]) -> (PathBuf, StoredChunk) {
        let path = dir.join(format!("chunk{}", codec.extension()));
        let mut writer = ChunkWriter::create(&path, 1, Compressor::new(codec).unwrap()).unwrap();
        for piece in pieces {
            writer.buffer().extend_from_slice(piece);
            writer.added().unwrap();
            if piece.ends_with(b"\n") {
                writer.end_piece().unwrap();
            }
        }
        let finished = writer.finish().unwrap();
        finished.unsynced.sync().unwrap();
        (path, finished.stored)
    }

    fn load(path: &Path, codec: Codec, expected: &StoredChunk) -> Result<Vec<u8>> {
        let mut reader = ChunkReader::open(path, codec, expected)?;
        let mut out = Vec::new();
        while let Some(piece) = reader.read()? {
            out.extend_from_slice(&piece);
        }
        reader.finish()?;
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
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_found() {
        for codec in CODECS {
            let dir = tempfile::tempdir().unwrap();
            let (path, stored) = store(dir.path(), codec, &[b"1\tone\n".to_vec(), b"2\ttwo\n".to_vec()]);
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
    fn no_more_is_decoded_than_the_manifest_says() {
        let dir = tempfile::tempdir().unwrap();
        let row = [vec![b'0'; 8 << 20], b"\n".to_vec()].concat();
        for codec in CODECS {
            let (path, stored) = store(dir.path(), codec, std::slice::from_ref(&row));
            assert_eq!(load(&path, codec, &stored).unwrap(), row, "a long row is right all the same");
            for raw_bytes in [0, 1, 100_000, stored.raw_bytes - 1] {
                let less = StoredChunk { raw_bytes, ..stored.clone() };
                let mut reader = ChunkReader::open(&path, codec, &less).unwrap();
                let mut given = 0;
                let error = loop {
                    match reader.read() {
                        Ok(Some(piece)) => given += piece.len() as u64,
                        Ok(None) => panic!("{codec}: not found"),
                        Err(error) => break error,
                    }
                };
                assert!(
                    given <= raw_bytes && error.kind() == crate::ErrorKind::Damaged,
                    "{codec}: {given} {error}"
                );
            }
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_window_that_no_writer_of_ours_uses_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chunk");
        let (_, stored) = store(dir.path(), Codec::Zstd(19), &[b"1\n".repeat(5 << 20)]);
        let written = dir.path().join("chunk.copy.zst");
        load(&written, Codec::Zstd(1), &stored).unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        std::io::Write::write_all(&mut encoder, &b"1\n".repeat(5 << 20)).unwrap();
        let bytes = encoder.finish().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let other = StoredChunk { stored_bytes: bytes.len() as u64, ..stored };
        assert_eq!(load(&path, Codec::Zstd(1), &other).unwrap_err().kind(), crate::ErrorKind::Damaged);
    }

    #[test]
    fn a_stream_that_ends_inside_a_row_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let compressor = Compressor::new(Codec::None).unwrap();
        let mut writer = ChunkWriter::create(&dir.path().join("c"), 1, compressor).unwrap();
        writer.buffer().extend_from_slice(b"1\tone\n2\ttw");
        assert!(writer.finish().is_err());
    }
}
