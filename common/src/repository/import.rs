//! Snapshots that come in as a tar stream: into the repository for good, or into a folder for one restore.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Repository, SNAPSHOTS, StoredSnapshot};
use crate::{
    Error, Result,
    files::{create_private_dir, free_space, sync_dir, write_private_file},
    snapshot::{
        Manifest,
        bundle::{Incoming, Tick},
        manifest::{DATA_DIR, LARGE_OBJECTS_DIR, MANIFEST_FILE},
    },
};

/// Begins the name of a folder for one restore.
const UNPACKED_PREFIX: &str = ".restore-unpacked-";
/// A folder younger than this may not be locked yet by the process that made it.
const SWEEP_AFTER: Duration = Duration::from_secs(60);

impl Repository {
    /// Takes a snapshot in from a tar stream: unpacked below `partial/`, compared with its manifest, then published.
    ///
    /// # Errors
    /// Refused when a snapshot of this id is there already; damaged or refused for a stream that is not exactly an exported
    /// snapshot. Nothing is left behind.
    pub fn import<R: Read>(&self, incoming: Incoming<R>, tick: Tick<'_>) -> Result<StoredSnapshot> {
        let id = incoming.manifest().id.clone();
        if self.root().join(SNAPSHOTS).join(id.as_str()).exists() {
            return Err(Error::refused(format!("snapshot {id} is in the repository already"))
                .with_hint(format!("Run `backup verify {id}` to see whether it is whole.")));
        }
        check_space(self.root(), incoming.manifest())?;
        let partial = self.begin(id)?;
        let (manifest, bytes) = incoming.unpack(partial.dir(), tick)?;
        partial.publish_bytes(manifest, &bytes)
    }
}

/// A snapshot in a private folder of its own, which is removed with this value.
#[derive(Debug)]
pub struct UnpackedSnapshot {
    folder: tempfile::TempDir,
    snapshot: StoredSnapshot,
    // Tells a later run that this folder is in use; ends with this process.
    _lock: File,
}

impl UnpackedSnapshot {
    /// Unpacks into a new folder below `parent`, after clearing away what killed processes left there.
    pub fn unpack<R: Read>(incoming: Incoming<R>, parent: &Path, tick: Tick<'_>) -> Result<Self> {
        let spool = Spool::begin(parent, incoming.manifest().clone())?;
        let (_, bytes) = incoming.unpack(spool.dir(), tick)?;
        spool.finish(&bytes)
    }

    /// The snapshot, for as long as this value lives.
    pub fn snapshot(&self) -> &StoredSnapshot {
        &self.snapshot
    }

    /// Removes the folder.
    pub fn remove(self) -> Result<()> {
        let path = self.folder.path().to_owned();
        self.folder.close().map_err(|source| Error::io("remove", &path, source))
    }
}

/// A folder that becomes an [`UnpackedSnapshot`] once every file is in it; it is removed if it does not.
#[derive(Debug)]
pub struct Spool {
    folder: tempfile::TempDir,
    dir: PathBuf,
    manifest: Manifest,
    lock: File,
}

impl Spool {
    /// Makes a folder below `parent` for the files of this snapshot, after clearing away what killed processes left there.
    ///
    /// # Errors
    /// Refused where there is no room.
    pub fn begin(parent: &Path, manifest: Manifest) -> Result<Self> {
        sweep_unpacked(parent);
        check_space(parent, &manifest)?;
        let folder = tempfile::Builder::new()
            .prefix(UNPACKED_PREFIX)
            .tempdir_in(parent)
            .map_err(|source| Error::io("write in", parent, source))?;
        let lock = File::open(folder.path())
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| Error::io("lock", folder.path(), source))?;
        let dir = folder.path().join(manifest.id.as_str());
        create_private_dir(&dir)?;
        Ok(Self { folder, dir, manifest, lock })
    }

    /// Where the files go.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folders that files of the snapshot lie in.
    pub fn make_folders(&self) -> Result<()> {
        for folder in [DATA_DIR, LARGE_OBJECTS_DIR] {
            create_private_dir(&self.dir.join(folder))?;
        }
        Ok(())
    }

    /// Writes the manifest, last, as exactly these bytes.
    pub fn finish(self, bytes: &[u8]) -> Result<UnpackedSnapshot> {
        let Self { folder, dir, manifest, lock } = self;
        write_private_file(&dir.join(MANIFEST_FILE), bytes)?;
        sync_dir(&dir)?;
        Ok(UnpackedSnapshot { folder, snapshot: StoredSnapshot { dir, manifest }, _lock: lock })
    }
}

fn check_space(path: &Path, manifest: &Manifest) -> Result<()> {
    let (need, have) = (manifest.stored_bytes_checked(), free_space(path)?);
    if need.is_none_or(|need| need > have) {
        return Err(Error::refused(format!(
            "the snapshot needs {} bytes, and {} has {have} left",
            need.map_or("more than 2^64".to_owned(), |need| need.to_string()),
            path.display()
        ))
        .with_hint("Free some space, then run the command again."));
    }
    Ok(())
}

/// Removes the folders of processes that were killed: nobody holds their locks.
fn sweep_unpacked(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let stale = |path: &Path| {
        let file = File::open(path).ok()?;
        let made = file.metadata().ok()?.modified().ok()?;
        let is_old = made.elapsed().is_ok_and(|age| age > SWEEP_AFTER);
        (is_old && file.try_lock().is_ok()).then_some(file)
    };
    for entry in entries.filter_map(std::result::Result::ok) {
        let path: PathBuf = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(UNPACKED_PREFIX)
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_ours && let Some(_lock) = stale(&path) {
            // Somebody else's folder can't be removed, and is not ours to remove.
            let _ = fs::remove_dir_all(&path);
        }
    }
}
