//! A repository: the folder that holds snapshots, and who may change it when.
//!
//! A snapshot is written below `partial/`, every file is fsynced, the manifest comes last, and one rename publishes it.
//! So a folder below `snapshots/` is always whole, and what a crash leaves below `partial/` is swept by the next run.
//!
//! Locking: a writer holds the repository's lock shared, and its own partial folder's lock exclusively; who deletes or
//! sweeps holds the repository's lock exclusively. Operating-system file locks end with their process.

pub mod alarms;
pub mod attempts;
pub mod import;
mod latest;
mod origin;
pub mod output_file;
mod owner;
pub mod partial;
pub mod pins;
pub mod proofs;
pub mod remove;
pub mod runs;
pub mod sharing;
pub mod verifications;
pub mod verify;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use owner::trust_any;
pub use partial::PartialSnapshot;

use alarms::ALARMS;
use attempts::SCHEDULE;
use latest::PUBLISHED;
use origin::MADE;
use pins::PINS;
use proofs::PROOFS;
use verifications::VERIFICATIONS_FILE;

use crate::{
    Error, ErrorKind, Result,
    files::{self, create_private_dir},
    snapshot::{
        Manifest, SnapshotId,
        manifest::{DATA_DIR, LARGE_OBJECTS_DIR, MANIFEST_FILE, MAX_MANIFEST_BYTES},
    },
};

/// Version of the folder layout.
const LAYOUT: u32 = 1;
const REPOSITORY_FILE: &str = "repository.json";
/// Largest [`REPOSITORY_FILE`], in bytes: it holds a number and an id.
const MOST_REPOSITORY_FILE: u64 = 64 << 10;
const SNAPSHOTS: &str = "snapshots";
const PARTIAL: &str = "partial";
const TRASH: &str = "trash";
const LOCKS: &str = "locks";
const RUNS: &str = "runs";
/// Every folder of a repository.
const FOLDERS: [&str; 10] = [PROOFS, SNAPSHOTS, PARTIAL, TRASH, LOCKS, RUNS, PINS, ALARMS, SCHEDULE, MADE];
/// Name of the lock of the repository itself.
const REPOSITORY_LOCK: &str = "repository";

/// How often, and how far apart, a shared lock is tried: five seconds in all.
const SHARED_LOCK_ATTEMPTS: u32 = 50;
const SHARED_LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
struct RepositoryFile {
    layout: u32,
    id: String,
}

/// An opened repository.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

/// A snapshot's folder together with its manifest, which matched its own checksum.
#[derive(Debug, Clone)]
pub struct StoredSnapshot {
    /// Its folder.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

/// One folder below `snapshots/`: readable or not, it is listed.
#[derive(Debug)]
pub struct Listed {
    /// The folder's name.
    pub id: SnapshotId,
    /// The snapshot, or why its manifest can't be used.
    pub snapshot: Result<StoredSnapshot>,
}

/// Keeps the repository's lock until it is dropped.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: File,
}

/// The repository's lock, held alone: nobody writes, reads or deletes snapshots meanwhile.
#[derive(Debug)]
pub struct ExclusiveLock {
    _lock: RepositoryLock,
}

impl Repository {
    /// Opens a repository that must exist.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchSnapshot`] when there is none: a reader asked for something that is not there. Refused for one that
    /// belongs to somebody else or that others may write in. Usage for a URL, of which a folder would be made else.
    pub fn open(root: &Path) -> Result<Self> {
        if root.to_string_lossy().contains("://") {
            return Err(Error::usage(format!("a repository is a folder, and {} is a URL", root.display()))
                .with_hint(
                    "Give the path of a folder with --repo: snapshots are made there. `backup copy ID --to URL` copies them on.",
                ));
        }
        let path = root.join(REPOSITORY_FILE);
        match files::read_plain(&path, MOST_REPOSITORY_FILE) {
            Ok(bytes) => {
                let file: RepositoryFile = serde_json::from_slice(&bytes).map_err(|source| {
                    Error::damaged(format!("{} can't be read: {source}", path.display()))
                        .with_hint("Put back the file from a copy; the snapshots beside it may be whole.")
                })?;
                if file.layout != LAYOUT {
                    return Err(Error::refused(format!(
                        "the repository {} has layout {}, and this version of the tool knows layout {LAYOUT}",
                        root.display(),
                        file.layout
                    ))
                    .with_hint("Use a newer version of the tool."));
                }
                let root = fs::canonicalize(root).map_err(|source| Error::io("open", root, source))?;
                owner::check(&root, &FOLDERS)?;
                Ok(Self { root })
            }
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::NoSuchSnapshot,
                format!("there is no repository at {}", root.display()),
            )
            .with_hint("Run `backup create` to take a first snapshot, or name the repository with --repo.")),
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }

    /// Opens a repository, or makes it with mode 0700.
    ///
    /// # Errors
    /// Refuses a folder that is not empty and not a repository, so that a wrong `--repo` does no harm.
    pub fn open_or_create(root: &Path) -> Result<Self> {
        match Self::open(root) {
            Err(error) if error.kind() == ErrorKind::NoSuchSnapshot => {}
            other => return other,
        }
        create_private_dir(root)?;
        let mut entries = fs::read_dir(root).map_err(|source| Error::io("read", root, source))?;
        if entries.any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name()))) {
            return Err(Error::refused(format!(
                "{} holds other files and is not a repository",
                root.display()
            ))
            .with_hint("Name an empty or new folder with --repo."));
        }
        // Before anything is made in it. A folder that is ours, and empty, becomes one that others can't write in.
        owner::close(root)?;
        owner::check(root, &FOLDERS)?;
        for dir in [SNAPSHOTS, PARTIAL, TRASH, LOCKS, RUNS] {
            create_private_dir(&root.join(dir))?;
        }
        let file = RepositoryFile { layout: LAYOUT, id: crate::random::hex_id()? };
        let bytes = serde_json::to_vec(&file)
            .map_err(|source| Error::failed(format!("could not encode {REPOSITORY_FILE}: {source}")))?;
        files::replace_private_file(&root.join(REPOSITORY_FILE), &bytes)?;
        Self::open(root)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder for a snapshot that is only tried, and for nobody to list. It goes with the value; what a crash leaves is swept.
    /// The caller holds the repository's lock shared, so that nobody sweeps meanwhile.
    pub fn scratch_dir(&self) -> Result<tempfile::TempDir> {
        let trash = self.root.join(TRASH);
        create_private_dir(&trash)?;
        tempfile::Builder::new()
            .prefix("trial-")
            .tempdir_in(&trash)
            .map_err(|source| Error::io("create a folder in", &trash, source))
    }

    /// Where `safe-run` keeps what it did.
    pub fn runs_dir(&self) -> PathBuf {
        self.root.join(RUNS)
    }

    /// Takes the repository's lock shared: snapshots may be written and read, nothing may be deleted.
    pub fn lock_shared(&self) -> Result<RepositoryLock> {
        self.share(self.lock_file(REPOSITORY_LOCK)?)
    }

    fn share(&self, file: File) -> Result<RepositoryLock> {
        // Sweeping and deleting take moments: worth waiting for, not worth failing for.
        for _ in 0..SHARED_LOCK_ATTEMPTS {
            match file.try_lock_shared() {
                Ok(()) => return Ok(RepositoryLock { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(SHARED_LOCK_PAUSE),
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", &self.root, source)),
            }
        }
        Err(self.busy("deletes snapshots in"))
    }

    /// Keeps snapshots from being deleted while they are read.
    ///
    /// Where this process may not write, another one may: the lock's file is then opened for reading. A copy on read-only
    /// media that never had one has nobody who could delete: no lock then.
    ///
    /// # Errors
    /// Busy while another process deletes.
    pub fn lock_reading(&self) -> Result<Option<RepositoryLock>> {
        let path = self.root.join(LOCKS).join(format!("{REPOSITORY_LOCK}.lock"));
        match self.lock_file(REPOSITORY_LOCK).or_else(|_| files::open_plain(&path)) {
            Ok(file) => match self.share(file) {
                Err(error) if error.kind() != ErrorKind::Busy => Ok(None),
                other => other.map(Some),
            },
            Err(_) => Ok(None),
        }
    }

    /// Takes the repository's lock alone: for deleting.
    pub fn lock_exclusive(&self) -> Result<ExclusiveLock> {
        let file = self.lock_file(REPOSITORY_LOCK)?;
        match file.try_lock() {
            Ok(()) => Ok(ExclusiveLock { _lock: RepositoryLock { _file: file } }),
            Err(TryLockError::WouldBlock) => Err(self.busy("uses")),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &self.root, source)),
        }
    }

    /// Takes a lock of the given name alone, such as the one that keeps two runs of `safe-run` apart.
    pub fn lock_named(&self, name: &str) -> Result<RepositoryLock> {
        let file = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(RepositoryLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(self.busy("runs with")),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &self.root, source)),
        }
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let dir = self.root.join(LOCKS);
        create_private_dir(&dir)?;
        let path = dir.join(format!("{name}.lock"));
        files::open_lock_file(&path)
    }

    fn busy(&self, doing: &str) -> Error {
        Error::busy(format!("another process {doing} the repository {}", self.root.display()))
            .with_hint("Wait until it has finished, then run the command again.")
    }

    /// All snapshots, oldest first; folders whose manifest can't be used are listed with the reason.
    pub fn list(&self) -> Result<Vec<Listed>> {
        Ok(self.ids()?.into_iter().map(|id| Listed { snapshot: self.read_manifest(&id), id }).collect())
    }

    /// The ids of all snapshots, oldest first, without a look at their manifests.
    pub fn ids(&self) -> Result<Vec<SnapshotId>> {
        let dir = self.root.join(SNAPSHOTS);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|source| Error::io("read", &dir, source))? {
            let name = entry.map_err(|source| Error::io("read", &dir, source))?.file_name();
            ids.extend(name.to_str().and_then(|name| SnapshotId::parse(name).ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// The snapshot in the folder `id`.
    pub fn read_manifest(&self, id: &SnapshotId) -> Result<StoredSnapshot> {
        let snapshot = StoredSnapshot::open(&self.snapshot_dir(id))?;
        if snapshot.manifest.id == *id {
            Ok(snapshot)
        } else {
            Err(Error::damaged(format!("folder {id} holds the snapshot {}", snapshot.manifest.id)))
        }
    }

    /// As [`Self::read_manifest`], for rows that are to be used.
    ///
    /// # Errors
    /// Refused, too, for a snapshot that belongs to another user, or that others may write in.
    pub fn read_trusted(&self, id: &SnapshotId) -> Result<StoredSnapshot> {
        owner::check_snapshot(&self.root, &self.snapshot_dir(id), MANIFEST_FILE)?;
        self.read_manifest(id)
    }

    /// The folder of a snapshot.
    pub fn snapshot_dir(&self, id: &SnapshotId) -> PathBuf {
        self.root.join(SNAPSHOTS).join(id.as_str())
    }

    /// Finds a snapshot by id, unique prefix, given name, `latest` or `latest:tag=value`.
    ///
    /// `latest` is the one of a whole database that was published last; a partial snapshot only where there are no others. With
    /// `database`, `latest` means that database's; without it, the repository must hold one database only.
    ///
    /// # Errors
    /// `latest` is never another one because the newest is damaged or dated in the future: that is an error that names both. Refused for one
    /// that belongs to another user, or that others may write in.
    pub fn find(&self, wanted: &str, database: Option<&str>) -> Result<StoredSnapshot> {
        let found = self.find_entry(wanted, database)?;
        owner::check_snapshot(&self.root, &self.snapshot_dir(&found.id), MANIFEST_FILE)
            .map_err(|error| error.context(&found.id))?;
        found.snapshot.map_err(|error| error.context(found.id))
    }

    /// Like [`Repository::find`], also for a snapshot whose manifest can't be used: it can still be deleted.
    pub fn find_entry(&self, wanted: &str, database: Option<&str>) -> Result<Listed> {
        let none = |message: String| {
            let error = Error::new(ErrorKind::NoSuchSnapshot, message);
            if is_nearly_latest(wanted) {
                return error.with_hint("Did you mean `latest`?");
            }
            error.with_hint(format!("Run `backup list --repo {}` to see what there is.", self.root.display()))
        };
        if let Some(filter) = wanted.strip_prefix("latest") {
            let tag = match filter.strip_prefix(':') {
                None if filter.is_empty() => None,
                Some(tag) => Some(tag.split_once('=').ok_or_else(|| {
                    Error::usage(format!("\"{wanted}\" is not of the form latest:tag=value"))
                })?),
                None => return Err(none(format!("no snapshot \"{wanted}\""))),
            };
            let latest = self.latest(wanted, database, tag, chrono::Utc::now())?;
            return Ok(Listed { id: latest.manifest.id.clone(), snapshot: Ok(latest) });
        }
        let mut matches: Vec<Listed> = self
            .list()?
            .into_iter()
            .filter(|entry| entry.id.as_str().starts_with(wanted) && !wanted.is_empty())
            .collect();
        if matches.len() > 1 {
            let ids: Vec<&str> = matches.iter().map(|entry| entry.id.as_str()).collect();
            return Err(Error::usage(format!(
                "\"{wanted}\" is the start of several ids: {}",
                ids.join(", ")
            ))
            .with_hint("Give more characters of the id."));
        }
        matches.pop().ok_or_else(|| none(format!("no snapshot \"{}\"", crate::ident::printable(wanted))))
    }

    /// Begins a new snapshot: makes its partial folder and holds its lock.
    pub fn begin(&self, id: SnapshotId) -> Result<PartialSnapshot> {
        PartialSnapshot::create(self.lock_shared()?, &self.root.join(PARTIAL), &self.root.join(SNAPSHOTS), id)
    }

    /// Removes what crashed runs left below `partial/`, and what lay in `trash/` for its time. Returns the names of what was
    /// swept.
    ///
    /// Does nothing while another process uses the repository: its partial folder is not ours to judge.
    pub fn sweep(&self) -> Result<Vec<String>> {
        let Ok(_lock) = self.lock_exclusive() else { return Ok(Vec::new()) };
        let mut swept = Vec::new();
        let dir = self.root.join(PARTIAL);
        for entry in fs::read_dir(&dir).map_err(|source| Error::io("read", &dir, source))? {
            let path = entry.map_err(|source| Error::io("read", &dir, source))?.path();
            fs::remove_dir_all(&path).map_err(|source| Error::io("remove", &path, source))?;
            swept.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        swept.extend(self.empty_trash(chrono::Utc::now())?);
        self.sweep_marks();
        Ok(swept)
    }
}

impl StoredSnapshot {
    /// Reads a snapshot's folder.
    pub fn open(dir: &Path) -> Result<Self> {
        // A folder that is a link holds what its owner puts there, and a copy of the repository would lack it.
        for folder in [dir.to_owned(), dir.join(DATA_DIR), dir.join(LARGE_OBJECTS_DIR)] {
            if fs::symlink_metadata(&folder).is_ok_and(|kind| !kind.is_dir()) {
                return Err(Error::damaged(format!(
                    "{} is a link or a file, and no folder",
                    folder.display()
                ))
                .with_hint("Nothing of ours makes such a thing. Find out who put it there, and remove it."));
            }
        }
        let path = dir.join(MANIFEST_FILE);
        let bytes = files::read_plain(&path, MAX_MANIFEST_BYTES).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::damaged(format!("{} has no manifest.json", dir.display()))
                .with_hint(
                    "It can't be restored with this tool; its README.txt says how to read its files by hand.",
                ),
            _ => Error::io("read", &path, source),
        })?;
        Ok(Self { dir: dir.to_owned(), manifest: Manifest::from_bytes(&bytes)? })
    }

    /// The path of one of its files.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    FOLDERS.iter().chain(&[VERIFICATIONS_FILE, PUBLISHED, REPOSITORY_FILE]).any(|ours| name == *ours)
        || name.to_string_lossy().starts_with(".repository.json.")
}

/// Whether a word that names no snapshot is `latest`, mistyped.
fn is_nearly_latest(word: &str) -> bool {
    let word = word.split(':').next().unwrap_or(word).to_ascii_lowercase();
    word != "latest" && strsim::osa_distance(&word, "latest") <= 2
}
