//! Where each piece of a chunk lies in its file: the last frame of a file that zstd compressed in several pieces.
//!
//! Decoders skip it (a *skippable frame*, RFC 8878, section 3.1.2). Little-endian: `0x184D2A5E`, length of what follows
//! (u32), then for each piece its stored bytes, bytes of COPY text and rows (u64 each) and its row hash (u128), then the
//! blocks of a piece (u64), the number of pieces (u32) and `SRpi`. The file's SHA-256 covers it like every other byte.
//!
//! Piece `n` holds the rows of the blocks from `first_block + n * piece_blocks` on; the last one of an open-ended chunk is
//! open-ended as well. An index that contradicts the manifest is no index: then nothing is taken over.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::codec::{RowHash, StoredChunk};

const MAGIC: [u8; 4] = 0x184D_2A5E_u32.to_le_bytes();
const HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 40;
const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: &[u8] = b"SRpi";

/// More pieces than any chunk has, whatever the options: an index from elsewhere must not fill the memory.
const MOST_PIECES: usize = 1 << 20;

/// One piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of its frames.
    pub stored_bytes: u64,
    /// Bytes of COPY text.
    pub raw_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Order-independent hash of its rows.
    pub row_hash: RowHash,
}

/// All pieces of a chunk, in the order of their blocks and of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceIndex {
    /// Blocks of each piece but the last.
    pub piece_blocks: u64,
    /// The pieces.
    pub pieces: Vec<Piece>,
}

impl PieceIndex {
    /// The frame that decoders skip.
    pub fn to_frame(&self) -> Vec<u8> {
        let content = self.pieces.len() * ENTRY_BYTES + TRAILER_BYTES;
        let mut frame = Vec::with_capacity(HEADER_BYTES + content);
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&u32::try_from(content).unwrap_or(u32::MAX).to_le_bytes());
        for piece in &self.pieces {
            for number in [piece.stored_bytes, piece.raw_bytes, piece.rows] {
                frame.extend_from_slice(&number.to_le_bytes());
            }
            frame.extend_from_slice(&piece.row_hash.to_bits().to_le_bytes());
        }
        frame.extend_from_slice(&self.piece_blocks.to_le_bytes());
        frame.extend_from_slice(&u32::try_from(self.pieces.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend_from_slice(TRAILER_MAGIC);
        frame
    }

    /// Reads the index at the end of a chunk's file; nothing where there is none that agrees with what is known of the
    /// chunk. It is to be trusted only when the file's SHA-256 has been compared.
    pub fn read(file: &File, content: &StoredChunk) -> io::Result<Option<Self>> {
        let Some(before_trailer) = content.stored_bytes.checked_sub(TRAILER_BYTES as u64) else {
            return Ok(None);
        };
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, before_trailer)?;
        let (piece_blocks, rest) = trailer.split_at(8);
        let (count, magic) = rest.split_at(4);
        let count = count.try_into().map_or(0, u32::from_le_bytes) as usize;
        if magic != TRAILER_MAGIC || count > MOST_PIECES {
            return Ok(None);
        }
        let length = HEADER_BYTES + count * ENTRY_BYTES;
        let Some(begins) = before_trailer.checked_sub(length as u64) else { return Ok(None) };
        let mut frame = vec![0; length];
        file.read_exact_at(&mut frame, begins)?;
        let index = Self {
            piece_blocks: piece_blocks.try_into().map_or(0, u64::from_le_bytes),
            pieces: frame[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).map(piece).collect(),
        };
        // Byte for byte what would be written for it.
        let is_whole = index.to_frame() == [frame.as_slice(), &trailer].concat();
        Ok((is_whole && index.piece_blocks > 0 && index.fits(begins, content)).then_some(index))
    }

    fn fits(&self, frames_bytes: u64, content: &StoredChunk) -> bool {
        let sum = |of: fn(&Piece) -> u64| {
            self.pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(of(piece)))
        };
        let mut hash = RowHash::default();
        self.pieces.iter().for_each(|piece| hash.merge(piece.row_hash));
        // A chunk without rows has one frame that belongs to no piece.
        let stored = sum(|piece| piece.stored_bytes);
        (stored == Some(frames_bytes) || stored == Some(0))
            && sum(|piece| piece.raw_bytes) == Some(content.raw_bytes)
            && sum(|piece| piece.rows) == Some(content.rows)
            && hash == content.row_hash
    }
}

fn piece(entry: &[u8]) -> Piece {
    let number = |at: usize| entry[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    Piece {
        stored_bytes: number(0),
        raw_bytes: number(8),
        rows: number(16),
        row_hash: RowHash::from_bits(entry[24..].try_into().map_or(0, u128::from_le_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn example(rows: &[u64]) -> (PieceIndex, StoredChunk) {
        let mut content = StoredChunk {
            rows: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            sha256: String::new(),
            row_hash: RowHash::default(),
        };
        let pieces = rows.iter().map(|rows| {
            let piece = Piece {
                stored_bytes: rows * 5,
                raw_bytes: rows * 20,
                rows: *rows,
                row_hash: RowHash::from_bits(u128::from(*rows) << 70),
            };
            content.rows += piece.rows;
            content.raw_bytes += piece.raw_bytes;
            content.stored_bytes += piece.stored_bytes;
            content.row_hash.merge(piece.row_hash);
            piece
        });
        let index = PieceIndex { piece_blocks: 16, pieces: pieces.collect() };
        content.stored_bytes += index.to_frame().len() as u64;
        (index, content)
    }

    fn file_of(index: &PieceIndex, content: &StoredChunk) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let frames = content.stored_bytes as usize - index.to_frame().len();
        file.write_all(&[vec![7; frames], index.to_frame()].concat()).unwrap();
        file
    }

    proptest! {
        #[test]
        fn an_index_reads_back(rows in prop::collection::vec(0_u64..1000, 1..40)) {
            let (index, content) = example(&rows);
            prop_assert_eq!(PieceIndex::read(&file_of(&index, &content), &content).unwrap(), Some(index));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), is_marked in any::<bool>()) {
            if is_marked {
                bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
                bytes.extend(TRAILER_MAGIC);
            }
            let (_, mut content) = example(&[1]);
            content.stored_bytes = bytes.len() as u64;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            prop_assert_eq!(PieceIndex::read(&file, &content).unwrap(), None);
        }
    }

    #[test]
    fn an_index_that_contradicts_the_manifest_is_none() {
        let (index, content) = example(&[3, 0, 9]);
        let file = file_of(&index, &content);
        for change in [
            |content: &mut StoredChunk| content.rows += 1,
            |content: &mut StoredChunk| content.raw_bytes -= 1,
            |content: &mut StoredChunk| content.row_hash.add_row(b"x"),
        ] {
            let mut other = content.clone();
            change(&mut other);
            assert_eq!(PieceIndex::read(&file, &other).unwrap(), None);
        }
    }
}
