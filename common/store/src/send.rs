//! One snapshot into a copy repository: what is there already is referenced, the rest is sent, the record comes last.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use common::{
    Error, Progress, Result, fault,
    repository::StoredSnapshot,
    snapshot::{
        bundle,
        manifest::{MANIFEST_FILE, MAX_MANIFEST_BYTES},
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    Copies, MOST_RECORD, Record, StoredFile,
    collect::{Condemned, LEASE_LIFE},
    interruptible,
    layout::{self, CONDEMNED, LEASES, OBJECTS, record_key},
};

/// Objects that are sent at once.
const AT_ONCE: usize = 4;
/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(300);

/// What a copy did.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// The record was there: nothing was to do.
    pub was_there: bool,
    /// Files that were sent.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files whose content was there.
    pub files_there: u64,
    /// Their bytes.
    pub bytes_there: u64,
}

/// A copy is running. What ends without taking it away leaves it: it counts for [`LEASE_LIFE`].
struct Lease {
    key: String,
    renewed: Instant,
    // A machine that sleeps stops the other clock.
    renewed_at: SystemTime,
}

impl Lease {
    /// # Errors
    /// Failed after half of a lease's life without a renewal: a collector may soon take this copy for dead.
    async fn renew(&mut self, copies: &Copies) -> Result<()> {
        if self.renewed.elapsed() < RENEW && self.renewed_at.elapsed().is_ok_and(|time| time < RENEW) {
            return Ok(());
        }
        self.check()?;
        self.write(copies).await
    }

    async fn write(&mut self, copies: &Copies) -> Result<()> {
        let (now, at) = (Instant::now(), SystemTime::now());
        copies.storage.put(&self.key, b"a copy is running\n".to_vec()).await?;
        (self.renewed, self.renewed_at) = (now, at);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let asleep = self.renewed_at.elapsed().unwrap_or(LEASE_LIFE);
        if self.renewed.elapsed().max(asleep) > LEASE_LIFE / 2 {
            let text = "the copy stood still for so long that its lease may have ended: copy again, what was sent is there";
            return Err(Error::failed(text));
        }
        Ok(())
    }
}

impl Copies {
    /// Copies a snapshot. What an earlier copy of it, or of another snapshot, has sent is not sent again.
    ///
    /// # Errors
    /// Damaged where a file is not what the manifest says, and where the store does not show what it was given: no record is put then.
    pub async fn send(&self, snapshot: &StoredSnapshot, progress: &Progress) -> Result<Sent> {
        let manifest = &snapshot.manifest;
        let record_key = record_key(manifest.id.as_str());
        if let Some(bytes) = self.storage.get(&record_key, MOST_RECORD).await? {
            layout::unseal(&self.id, &manifest.id, &bytes)?;
            return Ok(Sent { was_there: true, ..Sent::default() });
        }
        let now = (Instant::now(), SystemTime::now());
        let key = format!("{LEASES}/{}", common::random::hex_id()?);
        let mut lease = Lease { key, renewed: now.0, renewed_at: now.1 };
        lease.write(self).await?;
        fault::point("copy:leased");
        let result = interruptible(self.send_files(snapshot, &mut lease, progress)).await;
        if result.is_ok() {
            fault::point("copy:published");
        }
        // The record is there, or nothing of this copy is named. A lease too many only keeps a collector waiting.
        let _ = self.storage.delete(&lease.key).await;
        result
    }

    async fn send_files(
        &self,
        snapshot: &StoredSnapshot,
        lease: &mut Lease,
        progress: &Progress,
    ) -> Result<Sent> {
        let manifest = &snapshot.manifest;
        // In this order (see the crate's own text): what is condemned, then what is there.
        let condemned: HashSet<String> =
            self.condemned().await?.into_iter().flat_map(|one| one.keys).collect();
        let there: HashMap<String, (String, u64)> = self
            .storage
            .list(OBJECTS)
            .await?
            .into_iter()
            .filter(|entry| !condemned.contains(&entry.key))
            .filter_map(|entry| {
                Some((layout::sha256_of_key(&entry.key)?.to_owned(), (entry.key, entry.bytes)))
            })
            .collect();
        let mut sent = Sent::default();
        let mut by_content: HashMap<String, String> = HashMap::new();
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for (path, bytes, sha256) in files_of(snapshot)? {
            let object = match (by_content.get(&sha256), there.get(&sha256)) {
                (Some(object), _) => object.clone(),
                (None, Some((object, size))) if *size == bytes => object.clone(),
                (None, _) => {
                    let object = layout::object_key(&sha256, common::random::bits()?);
                    missing.push((object.clone(), path.clone(), bytes, sha256.clone()));
                    object
                }
            };
            by_content.insert(sha256.clone(), object.clone());
            files.push(StoredFile { path, bytes, sha256, object });
        }
        sent.files = missing.len() as u64;
        sent.bytes = missing.iter().map(|(_, _, bytes, _)| bytes).sum();
        sent.files_there = files.len() as u64 - sent.files;
        sent.bytes_there = files.iter().map(|file| file.bytes).sum::<u64>().saturating_sub(sent.bytes);
        progress.phase(format!("copying {}", manifest.id), Some(sent.bytes));
        let mut sending = stream::iter(missing)
            .map(|(object, path, bytes, sha256)| async move {
                self.storage.send(&object, &snapshot.path(&path), bytes, &sha256).await?;
                Ok::<u64, Error>(bytes)
            })
            .buffer_unordered(AT_ONCE);
        while let Some(bytes) = sending.try_next().await? {
            common::interrupt::check()?;
            progress.advance(bytes, 0);
            fault::point("copy:object");
            lease.renew(self).await?;
        }
        drop(sending);
        progress.done();
        self.check_there(&files).await?;
        fault::point("copy:sent");
        lease.check()?;
        let record = Record {
            repository: self.id.clone(),
            id: manifest.id.to_string(),
            database: manifest.database.name.clone(),
            server_version: manifest.server.version.clone(),
            tables: manifest.tables.len() as u64,
            rows: manifest.rows(),
            files,
        };
        self.storage.put_new(&record_key(&record.id), layout::seal(&record)?).await?;
        Ok(sent)
    }

    /// Every object of a snapshot is there with its size, before a record says so.
    async fn check_there(&self, files: &[StoredFile]) -> Result<()> {
        let listed = self.storage.list(OBJECTS).await?;
        let sizes: HashMap<&str, u64> =
            listed.iter().map(|entry| (entry.key.as_str(), entry.bytes)).collect();
        for file in files {
            // A list may lag behind; the object itself does not.
            let size = match sizes.get(file.object.as_str()) {
                Some(size) => Some(*size),
                None => self.storage.size(&file.object).await?,
            };
            if size != Some(file.bytes) {
                return Err(Error::failed(format!(
                    "the store took {} and does not have it whole: copy again, and use another store if this stays",
                    file.object
                )));
            }
        }
        Ok(())
    }

    pub(crate) async fn condemned(&self) -> Result<Vec<Condemned>> {
        let mut all = Vec::new();
        for entry in self.storage.list(CONDEMNED).await? {
            // Gone since the list: another collector was done with it, and its objects are gone or named.
            let Some(bytes) = self.storage.get(&entry.key, MOST_RECORD).await? else { continue };
            let keys: Vec<String> = layout::decode(&entry.key, &bytes)?;
            all.push(Condemned { key: entry.key, at: entry.modified, keys });
        }
        Ok(all)
    }
}

/// Every file of a snapshot with size and SHA-256, the manifest first.
fn files_of(snapshot: &StoredSnapshot) -> Result<Vec<(String, u64, String)>> {
    let path = snapshot.path(MANIFEST_FILE);
    let bytes = common::files::read_plain(&path, MAX_MANIFEST_BYTES)
        .map_err(|source| Error::io("read", &path, source))?;
    let manifest = (MANIFEST_FILE.to_owned(), bytes.len() as u64, common::digest::sha256_hex(&bytes));
    Ok(std::iter::once(manifest).chain(bundle::files(&snapshot.manifest)).collect())
}
