//! Pins: a person's word that a snapshot stays. A fact about a snapshot and not a part of it, so it lies outside of the
//! snapshot's folder, whose manifest never changes.
//!
//! One file `pins/<id>` each. A pin file that can't be read still pins: doubt never deletes.

use std::{collections::BTreeMap, fs, path::PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::{
    Error, Result,
    files::{MOST_FACTS, create_private_dir, read_plain, replace_private_file, sync_dir},
    snapshot::SnapshotId,
};

/// Folder of the pins below the repository.
pub(super) const PINS: &str = "pins";

/// Why and since when a snapshot is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Since when; `None` when the pin's file can't be read.
    pub at: Option<DateTime<Utc>>,
    /// What the person said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Repository {
    /// Pins a snapshot; pinning it again replaces the note.
    pub fn pin(&self, id: &SnapshotId, pin: &Pin) -> Result<()> {
        // Shared: who deletes holds the lock alone and has looked at the pins under it.
        let _lock = self.lock_shared()?;
        create_private_dir(&self.pins_dir())?;
        let bytes = serde_json::to_vec(pin)
            .map_err(|source| Error::failed(format!("could not encode the pin of {id}: {source}")))?;
        replace_private_file(&self.pins_dir().join(id.as_str()), &bytes)
    }

    /// Takes a pin away. Returns whether there was one.
    pub fn unpin(&self, id: &SnapshotId) -> Result<bool> {
        let _lock = self.lock_shared()?;
        let path = self.pins_dir().join(id.as_str());
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.pins_dir()).map(|()| true),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::io("remove", &path, source)),
        }
    }

    /// Every pin.
    pub fn pins(&self) -> Result<BTreeMap<SnapshotId, Pin>> {
        let dir = self.pins_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(Error::io("read", &dir, source)),
        };
        let mut pins = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("read", &dir, source))?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| SnapshotId::parse(name).ok()) else { continue };
            let pin = read_plain(&entry.path(), MOST_FACTS)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            pins.insert(id, pin.unwrap_or_default());
        }
        Ok(pins)
    }

    fn pins_dir(&self) -> PathBuf {
        self.root().join(PINS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_cannot_be_read_still_pins() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("r")).unwrap();
        assert!(repository.pins().unwrap().is_empty(), "a repository without the folder has no pins");
        let id = SnapshotId::new(Utc::now(), "shop", 1);
        repository.pin(&id, &Pin { at: Some(Utc::now()), note: Some("audit".into()) }).unwrap();
        assert_eq!(repository.pins().unwrap()[&id].note.as_deref(), Some("audit"));
        fs::write(repository.pins_dir().join(id.as_str()), b"garb").unwrap();
        assert_eq!(repository.pins().unwrap()[&id], Pin::default());
        assert!(repository.unpin(&id).unwrap());
        assert!(!repository.unpin(&id).unwrap());
        assert!(repository.pins().unwrap().is_empty());
    }
}
