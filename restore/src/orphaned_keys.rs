//! Foreign keys that rows of the snapshot violate. They come back NOT VALID, as PostgreSQL calls one that holds for new rows alone: that
//! is a difference, and is named like any other.

use std::sync::{Mutex, PoisonError};

use common::ident::printable;

/// The foreign keys of one restored database that came back NOT VALID.
#[derive(Debug, Default)]
pub struct OrphanedKeys(Mutex<Vec<String>>);

impl OrphanedKeys {
    /// One more: `entry` of the archive, and what the server said.
    pub fn add(&self, entry: Option<&str>, message: &str) {
        let what = entry.unwrap_or("a foreign key");
        let line = printable(&format!("{what}: it came back NOT VALID, because rows break it ({message})"));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// All of them, one sentence each.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
