//! Which snapshots were made in this repository, by a backup of ours: the others may be somebody else's, and whoever restores
//! one should know that. Copied folders are others too, for nothing tells a copy of ours from one of somebody else's.
//!
//! `made/<id>` names the manifest's inode, which a copy does not have. It decides what is said, and whether a backup believes the
//! snapshot which rows have not changed since.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{Repository, SNAPSHOTS, StoredSnapshot, TRASH};
use crate::{
    Result,
    files::{create_private_dir, read_plain, replace_private_file},
    snapshot::{SnapshotId, manifest::MANIFEST_FILE},
};

pub(super) const MADE: &str = "made";

/// Longest mark, in bytes: a number.
const MOST_MARK: u64 = 32;

fn mark(manifest: &Path) -> Option<String> {
    fs::symlink_metadata(manifest).ok().map(|file| file.ino().to_string())
}

/// Notes that the snapshot was made here. Where that fails, it is taken for one from elsewhere.
pub(super) fn record(snapshot: &StoredSnapshot) -> Result<()> {
    let root = snapshot.dir.parent().and_then(Path::parent);
    let (Some(root), Some(mark)) = (root, mark(&snapshot.path(MANIFEST_FILE))) else { return Ok(()) };
    create_private_dir(&root.join(MADE))?;
    replace_private_file(&root.join(MADE).join(snapshot.manifest.id.as_str()), mark.as_bytes())
}

impl Repository {
    /// Whether a backup of ours made this snapshot in this place.
    pub fn is_made_here(&self, snapshot: &StoredSnapshot) -> bool {
        let path = self.root().join(MADE).join(snapshot.manifest.id.as_str());
        let noted = read_plain(&path, MOST_MARK).ok();
        noted.is_some_and(|noted| Some(noted) == mark(&snapshot.path(MANIFEST_FILE)).map(String::into_bytes))
    }

    /// Removes the notes about snapshots that are gone.
    pub(super) fn sweep_marks(&self) {
        let Ok(entries) = fs::read_dir(self.root().join(MADE)) else { return };
        for entry in entries.filter_map(std::result::Result::ok) {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| SnapshotId::parse(name).ok()) else { continue };
            if [SNAPSHOTS, TRASH].iter().all(|dir| !self.root().join(dir).join(id.as_str()).exists()) {
                // A note too many does no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
