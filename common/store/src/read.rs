//! What a copy repository holds, whether it is whole, and a snapshot back out of it.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    path::Path,
};

use common::{
    Error, ErrorKind, Progress, Result,
    digest::hex,
    files,
    repository::import::{Spool, UnpackedSnapshot},
    snapshot::{
        Manifest, SnapshotId, bundle,
        manifest::{MANIFEST_FILE, MAX_MANIFEST_BYTES},
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::{
    Copies, MOST_RECORD, Record, StoredFile,
    layout::{self, SNAPSHOTS, record_key},
};

/// Objects that are read at once.
const AT_ONCE: usize = 4;

/// One record of a list: readable or not.
#[derive(Debug)]
pub struct ListedRecord {
    /// The id in its name.
    pub id: SnapshotId,
    /// The record, or why it can't be used.
    pub record: Result<Record>,
}

/// A snapshot that was fetched into a folder of its own, which goes with it.
pub type Fetched = UnpackedSnapshot;

impl Copies {
    /// All snapshots, oldest first.
    pub async fn list(&self) -> Result<Vec<ListedRecord>> {
        let mut ids: Vec<SnapshotId> = self
            .storage
            .list(SNAPSHOTS)
            .await?
            .iter()
            .filter_map(|entry| layout::id_of_key(&entry.key))
            .collect();
        ids.sort();
        let records: Vec<Option<ListedRecord>> =
            stream::iter(ids).map(|id| self.listed(id)).buffered(AT_ONCE).try_collect().await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// Nothing where it was deleted since the list.
    async fn listed(&self, id: SnapshotId) -> Result<Option<ListedRecord>> {
        let read = self.storage.get(&record_key(id.as_str()), MOST_RECORD).await;
        let record = match read {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => layout::unseal(&self.id, &id, &bytes),
            Err(error) if error.kind() == ErrorKind::Damaged => Err(error),
            Err(error) => return Err(error),
        };
        Ok(Some(ListedRecord { id, record }))
    }

    /// Finds a snapshot by id, unique start of one, or `latest`: the newest by its id, of `database` if one is named.
    ///
    /// # Errors
    /// No such snapshot; usage where the words mean several.
    pub async fn find(&self, wanted: &str, database: Option<&str>) -> Result<ListedRecord> {
        let none = |text: String| {
            Error::new(ErrorKind::NoSuchSnapshot, text)
                .with_hint("Run `backup list --repo URL` to see what there is.")
        };
        let mut listed = self.list().await?;
        if wanted == "latest" {
            if let Some(name) = database {
                listed.retain(|one| {
                    one.id.may_be_of(name)
                        && one.record.as_ref().map_or(true, |record| record.database == name)
                });
            }
            let databases: HashSet<&str> =
                listed.iter().filter_map(|one| Some(one.record.as_ref().ok()?.database.as_str())).collect();
            if databases.len() > 1 {
                return Err(Error::usage(format!("{} holds snapshots of several databases", self.shown()))
                    .with_hint("Give the id of a snapshot; `backup list --repo URL` shows them."));
            }
            return listed.pop().ok_or_else(|| none(format!("there is no snapshot at {}", self.shown())));
        }
        listed.retain(|one| !wanted.is_empty() && one.id.as_str().starts_with(wanted));
        if listed.len() > 1 {
            let ids: Vec<&str> = listed.iter().map(|one| one.id.as_str()).collect();
            return Err(Error::usage(format!(
                "\"{wanted}\" is the start of several ids: {}",
                ids.join(", ")
            ))
            .with_hint("Give more characters of the id."));
        }
        listed.pop().ok_or_else(|| {
            none(format!("no snapshot \"{}\" at {}", common::ident::printable(wanted), self.shown()))
        })
    }

    /// The manifest of a snapshot, which names exactly the files that the record names.
    ///
    /// # Errors
    /// Damaged for anything else.
    pub async fn manifest(&self, record: &Record) -> Result<(Manifest, Vec<u8>)> {
        let wrong = |what: &str| {
            Error::damaged(format!("the record of {} {what}", record.id)).with_hint(layout::COPY_AGAIN)
        };
        let Some(first) = record.files.iter().find(|file| file.path == MANIFEST_FILE) else {
            return Err(wrong("names no manifest"));
        };
        let bytes = self.storage.get(&first.object, MAX_MANIFEST_BYTES).await?.ok_or_else(|| gone(first))?;
        if bytes.len() as u64 != first.bytes || common::digest::sha256_hex(&bytes) != first.sha256 {
            return Err(mismatch(first));
        }
        let manifest = Manifest::from_bytes(&bytes)?;
        if manifest.id.as_str() != record.id {
            return Err(wrong("names the manifest of another snapshot"));
        }
        let named: HashMap<&str, (u64, &str)> = record
            .files
            .iter()
            .filter(|file| file.path != MANIFEST_FILE)
            .map(|file| (file.path.as_str(), (file.bytes, file.sha256.as_str())))
            .collect();
        let expected: Vec<(String, u64, String)> = bundle::files(&manifest).collect();
        let is_same = named.len() == expected.len()
            && record.files.len() == expected.len() + 1
            && expected
                .iter()
                .all(|(path, bytes, sha256)| named.get(path.as_str()) == Some(&(*bytes, sha256.as_str())));
        if is_same { Ok((manifest, bytes)) } else { Err(wrong("does not name the files of its manifest")) }
    }

    /// Reads every stored byte of a snapshot. `seen` are objects that were read before, and whole.
    ///
    /// # Errors
    /// Damaged, with the first object that is missing or not its content; the others are in the text behind it.
    pub async fn verify(
        &self,
        record: &Record,
        seen: &mut HashSet<String>,
        progress: &Progress,
    ) -> Result<()> {
        self.manifest(record).await?;
        let mut wanted: HashMap<&str, &StoredFile> = HashMap::new();
        for file in record.files.iter().filter(|file| !seen.contains(&file.object)) {
            wanted.insert(&file.object, file);
        }
        let mut wanted: Vec<&StoredFile> = wanted.into_values().collect();
        wanted.sort_by(|a, b| a.path.cmp(&b.path));
        progress.phase(format!("verifying {}", record.id), Some(wanted.iter().map(|file| file.bytes).sum()));
        let mut reading = stream::iter(wanted)
            .map(|file| async move { (file, self.check_object(file, |_| Ok(())).await) })
            .buffered(AT_ONCE);
        let mut damaged = Vec::new();
        while let Some((file, result)) = reading.next().await {
            progress.advance(file.bytes, 0);
            match result {
                Ok(()) => _ = seen.insert(file.object.clone()),
                Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(error.message().to_owned()),
                Err(error) => return Err(error),
            }
        }
        progress.done();
        if damaged.is_empty() {
            return Ok(());
        }
        Err(Error::damaged(damaged.join("; ")).with_hint(layout::COPY_AGAIN))
    }

    async fn check_object(&self, file: &StoredFile, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        let read = self.storage.read(&file.object, |part| {
            hash.update(part);
            bytes += part.len() as u64;
            // What is longer than it may be does not fill the disk.
            if bytes > file.bytes { Err(mismatch(file)) } else { take(part) }
        });
        read.await?.ok_or_else(|| gone(file))?;
        if bytes == file.bytes && hex(&hash.finalize()) == file.sha256 { Ok(()) } else { Err(mismatch(file)) }
    }

    /// Fetches a snapshot into a new folder below `parent`, comparing every file with its checksum.
    ///
    /// # Errors
    /// Refused where there is no room; damaged for what is not what the record and the manifest say. Nothing is left behind.
    pub async fn fetch(&self, record: &Record, parent: &Path, progress: &Progress) -> Result<Fetched> {
        let (manifest, bytes) = self.manifest(record).await?;
        let spool = Spool::begin(parent, manifest)?;
        spool.make_folders()?;
        progress.phase(format!("fetching {}", record.id), Some(record.bytes()));
        let files: Vec<&StoredFile> = record.files.iter().filter(|file| file.path != MANIFEST_FILE).collect();
        let dir = spool.dir().to_owned();
        let mut fetching = stream::iter(files)
            .map(|file| {
                let target = dir.join(&file.path);
                async move {
                    let mut out = files::create_private_file(&target)?;
                    let write = |part: &[u8]| {
                        out.write_all(part).map_err(|source| Error::io("write", &target, source))
                    };
                    self.check_object(file, write).await?;
                    Ok::<u64, Error>(file.bytes)
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some(bytes) = fetching.try_next().await? {
            progress.advance(bytes, 0);
        }
        drop(fetching);
        progress.done();
        spool.finish(&bytes)
    }

    /// Deletes the record of a snapshot. Its objects stay until a collector finds that nothing names them.
    pub async fn forget(&self, id: &SnapshotId) -> Result<()> {
        self.storage.delete(&record_key(id.as_str())).await
    }
}

fn gone(file: &StoredFile) -> Error {
    Error::damaged(format!("{} is missing ({})", file.object, common::ident::printable(&file.path)))
}

fn mismatch(file: &StoredFile) -> Error {
    Error::damaged(format!("checksum mismatch in {} ({})", file.object, common::ident::printable(&file.path)))
}
