//! Names and contents of the small objects. *Pure.*

use common::{Error, Result, digest::sha256_hex, snapshot::SnapshotId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

pub(crate) const LAYOUT: u32 = 1;
pub(crate) const REPOSITORY_KEY: &str = "repository.json";
pub(crate) const OBJECTS: &str = "objects";
pub(crate) const SNAPSHOTS: &str = "snapshots";
pub(crate) const LEASES: &str = "leases";
pub(crate) const CONDEMNED: &str = "condemned";

#[derive(Serialize, Deserialize)]
pub(crate) struct RepositoryFile {
    pub layout: u32,
    pub id: String,
}

/// One snapshot of a copy repository: what it is, and where each of its files lies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Of which repository.
    pub repository: String,
    /// The snapshot's id.
    pub id: String,
    /// Its database.
    pub database: String,
    /// Its server's version.
    pub server_version: String,
    /// Tables with rows.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Every file of the snapshot, the manifest first.
    pub files: Vec<StoredFile>,
}

/// One file of a snapshot, and the object that holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its path in the snapshot.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Key of the object.
    pub object: String,
}

impl Record {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    record: Box<RawValue>,
}

/// A small object as bytes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::failed(format!("could not encode a record: {source}")))
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::damaged(format!("{key} can't be read: {source}")))
}

/// A record with its own checksum.
pub(crate) fn seal(record: &Record) -> Result<Vec<u8>> {
    let failed = |source| Error::failed(format!("could not encode a record: {source}"));
    let record = serde_json::value::to_raw_value(record).map_err(failed)?;
    encode(&Sealed { sha256: sha256_hex(record.get().as_bytes()), record })
}

pub(crate) const COPY_AGAIN: &str =
    "Copy the snapshot again from where it was made, after `backup delete --repo URL` of this one.";

/// Reads a record, and compares it with its checksum, its name and its repository.
pub(crate) fn unseal(repository: &str, id: &SnapshotId, bytes: &[u8]) -> Result<Record> {
    read(repository, id, bytes).map_err(|error| error.with_hint(COPY_AGAIN))
}

fn read(repository: &str, id: &SnapshotId, bytes: &[u8]) -> Result<Record> {
    let key = record_key(id.as_str());
    let sealed: Sealed = decode(&key, bytes)?;
    if sha256_hex(sealed.record.get().as_bytes()) != sealed.sha256 {
        return Err(Error::damaged(format!("checksum mismatch in {key}")));
    }
    let record: Record = decode(&key, sealed.record.get().as_bytes())?;
    if record.repository != repository {
        return Err(Error::damaged(format!(
            "{key} is a record of another repository: it was put there by somebody"
        )));
    }
    if record.id != id.as_str() {
        return Err(Error::damaged(format!("{key} is the record of another snapshot")));
    }
    if let Some(file) =
        record.files.iter().find(|file| sha256_of_key(&file.object) != Some(file.sha256.as_str()))
    {
        return Err(Error::damaged(format!(
            "{key} names an object that is not the content of {}",
            common::ident::printable(&file.path)
        )));
    }
    Ok(record)
}

pub(crate) fn record_key(id: &str) -> String {
    format!("{SNAPSHOTS}/{id}.json")
}

/// The id of a record's key.
pub(crate) fn id_of_key(key: &str) -> Option<SnapshotId> {
    SnapshotId::parse(key.strip_prefix(SNAPSHOTS)?.strip_prefix('/')?.strip_suffix(".json")?).ok()
}

/// A new key for an object. No key is ever used twice: what a collector decided to delete, however long ago, stays unnamed.
pub(crate) fn object_key(sha256: &str, number: u64) -> String {
    let folder = sha256.get(..2).unwrap_or("00");
    format!("{OBJECTS}/{folder}/{sha256}-{number:016x}")
}

/// The SHA-256 that a key of an object says, where it is one.
pub(crate) fn sha256_of_key(key: &str) -> Option<&str> {
    let (folder, name) = key.strip_prefix(OBJECTS)?.strip_prefix('/')?.split_once('/')?;
    let (sha256, again) = name.split_at_checked(64)?;
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_number = again.strip_prefix('-').is_some_and(|number| number.len() == 16 && is_hex(number));
    (is_hex(sha256) && is_number && folder == &sha256[..2]).then_some(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "20261121T034149Z-shop-7f3k9q";

    fn record() -> Record {
        let sha256 = sha256_hex(b"content");
        let object = object_key(&sha256, 7);
        let file = StoredFile { path: "manifest.json".to_owned(), bytes: 7, sha256, object };
        Record {
            repository: "r".to_owned(),
            id: ID.to_owned(),
            database: "shop".to_owned(),
            server_version: "18.1".to_owned(),
            tables: 1,
            rows: 2,
            files: vec![file],
        }
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let id = SnapshotId::parse(ID).unwrap();
        let bytes = seal(&record()).unwrap();
        assert!(unseal("r", &id, &bytes).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(unseal("r", &id, &flipped).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_of_elsewhere_or_of_a_wrong_object_is_named() {
        let id = SnapshotId::parse(ID).unwrap();
        let other = unseal("other", &id, &seal(&record()).unwrap()).unwrap_err();
        assert!(other.message().contains("another repository"), "{other}");
        for object in ["objects/00/x", "repository.json", "objects/../objects/ab/cd"] {
            let mut wrong = record();
            wrong.files[0].object = object.to_owned();
            assert!(unseal("r", &id, &seal(&wrong).unwrap()).is_err(), "{object}");
        }
    }
}
