//! Deleting snapshots. A snapshot vanishes by one rename into `trash/`, and only then are its files removed: a crash in
//! between leaves nothing that looks like a snapshot, and the next run sweeps the rest (docs/exactness.md, E16).
//!
//! With a grace time the folder stays in `trash/`, beside a file `<id>.until` that says how long; until then
//! [`Repository::undelete`] takes it back.

use std::{fs, path::Path};

use chrono::{DateTime, Utc};

use super::{ExclusiveLock, Repository, SNAPSHOTS, TRASH, pins::Pin};
use crate::{
    Error, Result,
    files::{create_private_dir, read_plain_text, replace_private_file, sync_dir},
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
    pub fn remove(&self, alone: &ExclusiveLock, ids: &[SnapshotId]) -> Result<Vec<String>> {
        self.remove_at(alone, ids, None)
    }

    /// Like [`Repository::remove`]; with a time, the snapshots lie in the trash until then and can be taken back.
    pub fn remove_at(
        &self,
        _alone: &ExclusiveLock,
        ids: &[SnapshotId],
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<String>> {
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
            // Before the folder: a sweep must never find it without its time.
            if let Some(until) = until {
                replace_private_file(&until_file(&trash, id.as_str()), until.to_rfc3339().as_bytes())?;
            }
            fs::rename(&from, &to).map_err(|source| Error::io("delete", &from, source))?;
            sync_dir(&snapshots)?;
            sync_dir(&trash)?;
            crate::fault::point("backup.after-trash");
            if until.is_some() {
                continue;
            }
            // The snapshot is gone; files that stay behind are the next sweep's.
            if let Err(source) = fs::remove_dir_all(&to) {
                left.push(format!("{}: {source}", to.display()));
            }
        }
        Ok(left)
    }

    /// Empties the trash of what has no time, or whose time has come. Returns the names.
    pub(super) fn empty_trash(&self, now: DateTime<Utc>) -> Result<Vec<String>> {
        let trash = self.root().join(TRASH);
        let mut emptied = Vec::new();
        // Read to its end first: a folder's file goes with it.
        let mut names = Vec::new();
        for entry in fs::read_dir(&trash).map_err(|source| Error::io("read", &trash, source))? {
            let entry = entry.map_err(|source| Error::io("read", &trash, source))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        for name in names {
            let path = trash.join(&name);
            match name.strip_suffix(UNTIL) {
                Some(id) if trash.join(id).exists() => {}
                _ if !path.is_dir() => remove_file(&path)?,
                _ if kept_until(&trash, &name).is_some_and(|until| until > now) => {}
                _ => {
                    fs::remove_dir_all(&path).map_err(|source| Error::io("remove", &path, source))?;
                    remove_file(&until_file(&trash, &name))?;
                    emptied.push(name);
                }
            }
        }
        Ok(emptied)
    }

    /// What lies in the trash and can still be taken back, with the time at which it goes.
    pub fn trash(&self) -> Result<Vec<(SnapshotId, DateTime<Utc>)>> {
        let trash = self.root().join(TRASH);
        let mut found = Vec::new();
        for entry in fs::read_dir(&trash).map_err(|source| Error::io("read", &trash, source))? {
            let name = entry.map_err(|source| Error::io("read", &trash, source))?.file_name();
            let Some(id) = name.to_str().and_then(|name| SnapshotId::parse(name).ok()) else { continue };
            found.extend(kept_until(&trash, id.as_str()).map(|until| (id, until)));
        }
        found.sort();
        Ok(found)
    }

    /// Takes a snapshot back out of the trash.
    pub fn undelete(&self, _alone: &ExclusiveLock, id: &SnapshotId) -> Result<()> {
        let (snapshots, trash) = (self.root().join(SNAPSHOTS), self.root().join(TRASH));
        let (from, to) = (trash.join(id.as_str()), snapshots.join(id.as_str()));
        fs::rename(&from, &to).map_err(|source| Error::io("take back", &from, source))?;
        sync_dir(&snapshots)?;
        sync_dir(&trash)?;
        remove_file(&until_file(&trash, id.as_str()))
    }
}

/// Removes a file; one that is not there is gone already.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, source))
        }
        _ => Ok(()),
    }
}

/// Ending of the file that says until when a folder stays in the trash.
const UNTIL: &str = ".until";

fn until_file(trash: &Path, id: &str) -> std::path::PathBuf {
    trash.join(format!("{id}{UNTIL}"))
}

fn kept_until(trash: &Path, id: &str) -> Option<DateTime<Utc>> {
    let text = read_plain_text(&until_file(trash, id)).ok()?;
    DateTime::parse_from_rfc3339(text.trim()).ok().map(|at| at.to_utc())
}
