//! Copies of snapshots on object storage, or in any folder: the only crate that names `object_store`.
//!
//! # What is asked of a store
//!
//! A put is whole or not there at all; what was put is seen by the next get, head and list; nothing else. No rename, no append,
//! no lock. A put that must not replace anything is asked for where it helps, but nothing rests on it, because some servers
//! answer "done" and replace all the same: ids of snapshots are unique, and two records of one snapshot, by whomever written,
//! both name objects that are there. So a put that is repeated, late or overtaken does no harm.
//!
//! # Layout
//!
//! ```text
//! repository.json                      layout version, id
//! objects/<2 hex>/<sha-256>-<number>   content of one file; never changed, and no key is used twice
//! snapshots/<id>.json                  record: every file of the snapshot with size, SHA-256 and object; put last
//! leases/<random>                      a copy is running: older than its first look at the objects
//! condemned/<random>.json              objects that nothing named: never referenced again from then on
//! ```
//!
//! # Why nothing that is named is ever deleted
//!
//! A copy puts its lease, then reads what is condemned, then lists the objects. It references only what it listed and was not
//! condemned, sends everything else, puts its record, and only then takes its lease away. A collector condemns objects that no
//! record names; a later one deletes those of them that are condemned for longer than the grace period. Before that it looks
//! at the leases, and then at the records: a copy that began before the object was condemned still has its lease, and then
//! nothing is deleted, or it has put its record, and then the object is named. A copy that began later does not reference it.
//! A condemned list goes only after all its objects, and a key never comes back: so a collector that slept for days over its plan
//! does no harm either.
//! Killed at any step, each leaves at most objects that nothing names, and a lease that counts for a day.
//! Times are the store's own (`Last-Modified`): no clock of ours is compared with another.

pub mod collect;
mod layout;
mod place;
mod read;
mod send;
mod storage;

pub use layout::{Record, StoredFile};
pub use place::{Place, is_url};
pub use read::{Fetched, ListedRecord};
pub use send::Sent;
pub use storage::interruptible;

use common::{Error, ErrorKind, Result};
use layout::{LAYOUT, REPOSITORY_KEY, RepositoryFile};
use storage::Storage;

/// Largest record or list, in bytes: 200 bytes for each file of a snapshot.
pub(crate) const MOST_RECORD: u64 = 256 << 20;

const MAKE_IT: &str =
    "Make it with `backup copy ID --to URL`; look at the bucket and the prefix if it should be there.";

/// An opened copy repository.
pub struct Copies {
    pub(crate) storage: Storage,
    pub(crate) id: String,
    pub(crate) shown: String,
}

impl Copies {
    /// Opens a copy repository that must exist.
    ///
    /// # Errors
    /// No such snapshot where there is none; refused for a newer layout.
    pub async fn open(url: &str) -> Result<Self> {
        let place = Place::parse(url)?;
        let storage = Storage::open(&place, false).map_err(|error| match error.kind() {
            ErrorKind::NoSuchSnapshot => error.with_hint(MAKE_IT),
            _ => error,
        })?;
        Self::with(storage, &place).await?.ok_or_else(|| {
            Error::new(ErrorKind::NoSuchSnapshot, format!("there is no copy repository at {place}"))
                .with_hint(MAKE_IT)
        })
    }

    /// Opens a copy repository, or makes it.
    ///
    /// # Errors
    /// Those of [`Self::open`] but the first.
    pub async fn open_or_create(url: &str) -> Result<Self> {
        let place = Place::parse(url)?;
        let storage = Storage::open(&place, true)?;
        if let Some(found) = Self::with(storage.clone(), &place).await? {
            return Ok(found);
        }
        let file = RepositoryFile { layout: LAYOUT, id: common::random::hex_id()? };
        storage.put_new(REPOSITORY_KEY, layout::encode(&file)?).await?;
        // Two first copies at once: what is there now is what both go by.
        Self::with(storage, &place).await?.ok_or_else(|| {
            Error::failed(format!("{place} does not keep what is put there: {REPOSITORY_KEY} is missing"))
        })
    }

    async fn with(storage: Storage, place: &Place) -> Result<Option<Self>> {
        let Some(bytes) = storage.get(REPOSITORY_KEY, MOST_RECORD).await? else { return Ok(None) };
        let file: RepositoryFile = serde_json::from_slice(&bytes).map_err(|source| {
            Error::damaged(format!("{REPOSITORY_KEY} of {place} can't be read: {source}"))
        })?;
        if file.layout != LAYOUT {
            return Err(Error::refused(format!(
                "the copy repository {place} has layout {}, and this version of the tool knows layout {LAYOUT}",
                file.layout
            ))
            .with_hint("Use a newer version of the tool."));
        }
        Ok(Some(Self { storage, id: file.id, shown: place.to_string() }))
    }

    /// Where it lies, without any secret.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}
