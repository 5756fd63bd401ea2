//! The file of an earlier snapshot whose pieces go into a new one as they are stored.
//!
//! Its whole SHA-256 is computed on the way and compared at the end: a flipped bit must not get a new hash that calls it
//! right. Until [`EarlierFile::problem`] has found none, nothing that was taken from it may be published (docs/exactness.md, E7).

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha2::Digest;

use super::{
    chunk_writer::ChunkWriter,
    codec::{BUFFER_BYTES, Hashing, StoredChunk, hex},
    pieces::PieceIndex,
};
use crate::{Result, files::open_plain};

/// An open file, read from its beginning to its end.
pub struct EarlierFile {
    file: Hashing<File>,
    content: StoredChunk,
    buffer: Vec<u8>,
    problem: Option<io::Error>,
}

impl EarlierFile {
    /// Opens the file of a chunk, if it has an index of its pieces.
    pub fn open(path: &Path, content: &StoredChunk) -> io::Result<Option<(Self, PieceIndex)>> {
        let file = open_plain(path)?;
        if file.metadata()?.len() != content.stored_bytes {
            return Ok(None);
        }
        let Some(index) = PieceIndex::read(&file, content)? else { return Ok(None) };
        let buffer = vec![0; BUFFER_BYTES];
        let content = content.clone();
        Ok(Some((Self { file: Hashing::new(file), content, buffer, problem: None }, index)))
    }

    /// Goes over the next bytes, and hands them to `writer` if there is one. What can't be read is told at the end.
    pub fn pass(&mut self, bytes: u64, mut writer: Option<&mut ChunkWriter>) -> Result<()> {
        let mut left = bytes;
        while left > 0 && self.problem.is_none() {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            match self.file.read(&mut self.buffer[..most]) {
                Ok(0) => self.problem = Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    let data = &self.buffer[..read];
                    left -= read as u64;
                    if let Some(writer) = writer.as_deref_mut() {
                        writer.keep_bytes(data)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.problem = Some(error),
            }
        }
        Ok(())
    }

    /// Goes over the rest. Why the file is not what it was, or nothing if it is.
    pub fn problem(mut self) -> Result<Option<String>> {
        self.pass(self.content.stored_bytes.saturating_sub(self.file.bytes), None)?;
        Ok(match self.problem {
            Some(problem) => Some(problem.to_string()),
            None if hex(&self.file.hash.finalize()) != self.content.sha256 => {
                Some("its SHA-256 differs from the manifest's".to_owned())
            }
            None => None,
        })
    }
}
