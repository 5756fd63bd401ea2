//! The SQLite file that is imported, and the readers of its one state.

use std::sync::{Mutex, PoisonError};

use common::{Error, Result};
use sqlite::{
    file::{Digest, Location, Reader, SqliteFile},
    schema::Schema,
};

/// Readers of the file at once: two encode as fast as one COPY takes.
const MOST_READERS: usize = 4;

/// A file that is open, in one state.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub file: SqliteFile,
    /// Its bytes.
    pub digest: Digest,
    /// What is in it.
    pub schema: Schema,
    pub(super) readers: Mutex<Vec<Reader>>,
}

impl Source {
    /// Opens a file by its path, or by a URL of some driver.
    ///
    /// # Errors
    /// Everything that keeps it from being read; it is never changed.
    pub fn open(text: &str, jobs: usize) -> Result<Self> {
        let file = SqliteFile::open(&Location::parse(text)?)?;
        let readers = file.readers(jobs.clamp(1, MOST_READERS))?;
        let first = readers.first().ok_or_else(|| Error::failed("the file could not be opened"))?;
        let schema = Schema::read(first)?;
        let digest = file.digest()?;
        Ok(Self { file, digest, schema, readers: Mutex::new(readers) })
    }

    /// Lends the readers, which all see the same state.
    pub(super) fn readers(&self) -> Vec<Reader> {
        std::mem::take(&mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn give_back(&self, readers: Vec<Reader>) {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
    }

    /// Does something with all of the readers.
    pub(super) fn with_readers<T>(&self, work: impl FnOnce(&mut [Reader]) -> Result<T>) -> Result<T> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut readers)
    }

    pub(super) fn name(&self) -> String {
        common::ident::printable(&self.file.path().display().to_string())
    }
}
