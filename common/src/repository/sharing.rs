//! Which snapshots share files: one that reads only what changed holds hard links to the files of an earlier one.
//!
//! The manifests say where to look; what counts is the file system's word. An imported snapshot still names the one that
//! wrote a file, and has a file of its own.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::StoredSnapshot;
use crate::snapshot::SnapshotId;

/// A file's identity: device and inode.
pub type FileId = (u64, u64);

/// The identity of a file that has more than one name.
pub fn linked(path: &Path) -> Option<FileId> {
    let file = fs::symlink_metadata(path).ok()?;
    (file.is_file() && file.nlink() > 1).then(|| (file.dev(), file.ino()))
}

#[derive(Debug)]
struct Shared {
    bytes: u64,
    links: u64,
    holders: BTreeSet<SnapshotId>,
}

/// The files that snapshots share.
#[derive(Debug, Default)]
pub struct Sharing {
    files: HashMap<FileId, Shared>,
    stored: HashMap<SnapshotId, u64>,
}

impl Sharing {
    /// Looks at the files that the manifests call shared.
    pub fn read<'a>(snapshots: impl Iterator<Item = &'a StoredSnapshot> + Clone) -> Self {
        let origins: HashSet<(&SnapshotId, &str)> = snapshots
            .clone()
            .flat_map(|snapshot| snapshot.manifest.chunks())
            .filter_map(|chunk| chunk.stored_in.as_ref().map(|writer| (writer, chunk.path.as_str())))
            .collect();
        let mut sharing = Self::default();
        for snapshot in snapshots {
            let id = &snapshot.manifest.id;
            sharing.stored.insert(id.clone(), snapshot.manifest.stored_bytes());
            for chunk in snapshot.manifest.chunks() {
                if chunk.stored_in.is_none() && !origins.contains(&(id, chunk.path.as_str())) {
                    continue;
                }
                let Ok(file) = fs::symlink_metadata(snapshot.path(&chunk.path)) else { continue };
                if file.nlink() < 2 {
                    continue;
                }
                let holders = BTreeSet::new();
                let shared = Shared { bytes: file.len(), links: file.nlink(), holders };
                let entry = sharing.files.entry((file.dev(), file.ino())).or_insert(shared);
                entry.holders.insert(id.clone());
            }
        }
        sharing
    }

    /// Bytes of a snapshot's files that are another one's as well: they stay when it is deleted.
    pub fn shared_bytes(&self, id: &SnapshotId) -> u64 {
        self.files
            .values()
            .filter(|file| file.links > 1 && file.holders.contains(id))
            .map(|file| file.bytes)
            .sum()
    }

    /// Bytes that are free again when these snapshots, and no others, are deleted.
    pub fn freed_by(&self, doomed: &[SnapshotId]) -> u64 {
        let all: u64 = doomed.iter().filter_map(|id| self.stored.get(id)).sum();
        let held = |file: &Shared| doomed.iter().filter(|id| file.holders.contains(id)).count() as u64;
        let not_freed: u64 = self
            .files
            .values()
            .map(|file| match held(file) {
                // Counted once for each of them, and there once.
                all if all == file.links => (all - 1) * file.bytes,
                some => some * file.bytes,
            })
            .sum();
        all.saturating_sub(not_freed)
    }
}

/// The other snapshots beside this one that hold the same file under the same name.
pub fn other_holders(snapshot: &StoredSnapshot, path: &str) -> Vec<SnapshotId> {
    let (Some(file), Some(folder)) = (linked(&snapshot.path(path)), snapshot.dir.parent()) else {
        return Vec::new();
    };
    let mut holders: Vec<SnapshotId> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.path() != snapshot.dir && linked(&entry.path().join(path)) == Some(file))
        .filter_map(|entry| SnapshotId::parse(entry.file_name().to_str()?).ok())
        .collect();
    holders.sort();
    holders
}
