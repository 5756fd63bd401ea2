//! Deleting snapshots. A snapshot vanishes by one rename into `trash/`, and only then are its files removed: a crash in
//! between leaves nothing that looks like a snapshot, and the next run sweeps the rest.

use std::fs;

use super::{ExclusiveLock, Repository, SNAPSHOTS, TRASH, create_private_dir, pins::Pin, sync_dir};
use crate::{
    Error, Result,
    ident::printable,
    snapshot::{Manifest, SnapshotId},
};

/// Why a snapshot may not be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Somebody pinned it.
    Pinned(Pin),
    /// A run of `safe-run` has not finished and may have to restore it.
    Run(String),
}

impl std::fmt::Display for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pinned(pin) => {
                f.write_str("pinned")?;
                if let Some(at) = pin.at {
                    write!(f, " since {}", at.format("%Y-%m-%d %H:%M:%SZ"))?;
                }
                if let Some(note) = &pin.note {
                    write!(f, " (\"{}\")", printable(note))?;
                }
                Ok(())
            }
            Self::Run(run) => write!(f, "needed by the run {run}, which has not finished"),
        }
    }
}

impl Protection {
    /// The next action of a person who wants the snapshot gone all the same.
    fn hint(&self, id: &SnapshotId) -> String {
        match self {
            Self::Pinned(_) => format!("Run `backup unpin {id}` first."),
            Self::Run(_) => "Run `safe-run recover` first.".to_owned(),
        }
    }
}

/// What protects snapshots, read once for many questions.
#[derive(Debug)]
pub struct Protections {
    pins: std::collections::BTreeMap<SnapshotId, Pin>,
    runs: Vec<super::runs::UnfinishedRun>,
}

impl Protections {
    /// Why the snapshot may not be deleted; `manifest` is `None` when it can't be read.
    pub fn of(&self, id: &SnapshotId, manifest: Option<&Manifest>) -> Option<Protection> {
        if let Some(pin) = self.pins.get(id) {
            return Some(Protection::Pinned(pin.clone()));
        }
        let run = self.runs.iter().find(|run| run.needs(id, manifest))?;
        Some(Protection::Run(run.run.clone()))
    }
}

impl Repository {
    /// Reads pins and journals.
    pub fn protections(&self) -> Result<Protections> {
        Ok(Protections { pins: self.pins()?, runs: self.unfinished_runs()? })
    }

    /// Deletes snapshots: all of them, or none when one is protected. Returns what is left to be swept, if anything.
    ///
    /// # Errors
    /// Refused for a protected one. An error in the middle leaves the rest of the snapshots untouched; each one is there as
    /// a whole or gone.
    pub fn remove(&self, _alone: &ExclusiveLock, ids: &[SnapshotId]) -> Result<Vec<String>> {
        let protections = self.protections()?;
        let listed = self.list()?;
        for id in ids {
            let Some(entry) = listed.iter().find(|entry| entry.id == *id) else {
                return Err(Error::new(crate::ErrorKind::NoSuchSnapshot, format!("no snapshot {id}")));
            };
            let manifest = entry.snapshot.as_ref().ok().map(|snapshot| &snapshot.manifest);
            if let Some(protection) = protections.of(id, manifest) {
                return Err(Error::refused(format!("snapshot {id} is {protection}"))
                    .with_hint(protection.hint(id))
                    .with_database_state("No snapshot was deleted."));
            }
        }
        let (snapshots, trash) = (self.root().join(SNAPSHOTS), self.root().join(TRASH));
        create_private_dir(&trash)?;
        let mut left = Vec::new();
        for id in ids {
            let (from, to) = (snapshots.join(id.as_str()), trash.join(id.as_str()));
            if to.exists() {
                fs::remove_dir_all(&to).map_err(|source| Error::io("remove", &to, source))?;
            }
            fs::rename(&from, &to).map_err(|source| Error::io("delete", &from, source))?;
            sync_dir(&snapshots)?;
            sync_dir(&trash)?;
            crate::fault::point("backup.after-trash");
            // The snapshot is gone; files that stay behind are the next sweep's.
            if let Err(source) = fs::remove_dir_all(&to) {
                left.push(format!("{}: {source}", to.display()));
            }
        }
        Ok(left)
    }
}
