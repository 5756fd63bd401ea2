//! A snapshot that is being written. Dropped without [`PartialSnapshot::publish`], it removes itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{RepositoryLock, StoredSnapshot};
use crate::{
    Error, Result,
    files::{create_new_private_dir, create_private_dir, open_plain, sync_dir, write_private_file},
    snapshot::{
        Manifest, SnapshotId,
        codec::file_digest,
        manifest::{DATA_DIR, FileEntry, LARGE_OBJECTS_DIR, MANIFEST_FILE},
    },
};

/// A folder below `partial/`, locked by this process.
#[derive(Debug)]
pub struct PartialSnapshot {
    id: SnapshotId,
    dir: PathBuf,
    target: PathBuf,
    published: bool,
    _lock: RepositoryLock,
}

impl PartialSnapshot {
    pub(super) fn create(
        lock: RepositoryLock,
        partial: &Path,
        snapshots: &Path,
        id: SnapshotId,
    ) -> Result<Self> {
        let dir = partial.join(id.as_str());
        create_private_dir(partial)?;
        create_private_dir(snapshots)?;
        if fs::symlink_metadata(&dir).is_ok() || snapshots.join(id.as_str()).exists() {
            return Err(Error::failed(format!("snapshot {id} exists already")));
        }
        create_new_private_dir(&dir)?;
        let target = snapshots.join(id.as_str());
        let made = Self { id, dir, target, published: false, _lock: lock };
        create_private_dir(&made.dir.join(DATA_DIR))?;
        Ok(made)
    }

    /// Its id.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }

    /// The folder that files are written into.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a small file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<FileEntry> {
        write_private_file(&self.dir.join(name), bytes)?;
        self.entry(name)
    }

    /// Makes a file durable that another program wrote, sets its mode to 0600, and takes its length and hash.
    pub fn adopt(&self, name: &str) -> Result<FileEntry> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .and_then(|()| open_plain(&path)?.sync_all())
            .map_err(|source| Error::io("sync", &path, source))?;
        self.entry(name)
    }

    fn entry(&self, name: &str) -> Result<FileEntry> {
        let (bytes, sha256) = file_digest(&self.dir.join(name))?;
        Ok(FileEntry { path: name.to_owned(), bytes, sha256 })
    }

    /// Writes the manifest, makes everything durable, and gives the snapshot its place, in that order.
    pub fn publish(self, manifest: Manifest) -> Result<StoredSnapshot> {
        let bytes = manifest.to_bytes()?;
        // What is imported was published elsewhere.
        if let Some(root) = self.target.parent().and_then(Path::parent) {
            super::latest::note(root, &manifest.id)?;
        }
        let snapshot = self.publish_bytes(manifest, &bytes)?;
        // Without the note a restore says one sentence more.
        let _ = super::origin::record(&snapshot);
        Ok(snapshot)
    }

    /// Like [`PartialSnapshot::publish`], with the manifest's bytes as they came from elsewhere.
    pub(super) fn publish_bytes(mut self, manifest: Manifest, bytes: &[u8]) -> Result<StoredSnapshot> {
        for dir in [DATA_DIR, LARGE_OBJECTS_DIR] {
            let path = self.dir.join(dir);
            if path.exists() {
                sync_dir(&path)?;
            }
        }
        crate::fault::point("backup.before-manifest");
        write_private_file(&self.dir.join(MANIFEST_FILE), bytes)?;
        sync_dir(&self.dir)?;
        crate::fault::point("backup.before-rename");
        fs::rename(&self.dir, &self.target).map_err(|source| Error::io("publish", &self.target, source))?;
        self.published = true;
        crate::fault::point("backup.after-rename");
        if let Some(parent) = self.target.parent() {
            sync_dir(parent)?;
        }
        Ok(StoredSnapshot { dir: self.target.clone(), manifest })
    }
}

impl Drop for PartialSnapshot {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed now is swept by the next run; there is nobody left to tell.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
