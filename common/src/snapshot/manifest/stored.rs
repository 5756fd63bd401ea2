//! What a snapshot stores, file by file.

use serde::{Deserialize, Serialize};

use super::sum;
use crate::{
    catalog::Table,
    snapshot::{
        SnapshotId,
        codec::{RowHash, StoredChunk},
    },
};

/// A table with its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableData {
    /// What the catalog said.
    #[serde(flatten)]
    pub table: Table,
    /// Its page ranges, in order. Never empty: an empty table has one chunk without rows.
    pub chunks: Vec<Chunk>,
    /// Hash of all that the rows' text depends on beside their blocks; a later snapshot takes over chunks only where it is
    /// the same. Nothing where that can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

impl TableData {
    /// Exact number of rows in the snapshot.
    pub fn rows(&self) -> u64 {
        sum(self.chunks.iter().map(|chunk| chunk.content.rows))
    }

    /// Order-independent hash of all its rows.
    pub fn row_hash(&self) -> RowHash {
        self.chunks.iter().fold(RowHash::default(), |mut all, chunk| {
            all.merge(chunk.content.row_hash);
            all
        })
    }
}

/// One file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Path within the snapshot, always `data/<n>.<first block><extension>` or below `large-objects/`.
    pub path: String,
    /// First block of the page range.
    pub first_block: u64,
    /// The block after its last one; `None` for the last range, which is open-ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_block: Option<u64>,
    /// What the file must contain.
    #[serde(flatten, with = "stored_chunk")]
    pub content: StoredChunk,
    /// The snapshot that wrote the file, where this one only links to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_in: Option<SnapshotId>,
    /// The snapshot for which all of its rows were read, where later ones read only some of its pieces anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_in: Option<SnapshotId>,
}

mod stored_chunk {
    //! Serde for [`StoredChunk`], which belongs to the codec and knows nothing of manifests.
    use super::{Deserialize, RowHash, Serialize, StoredChunk};

    #[derive(Serialize, Deserialize)]
    struct Fields {
        rows: u64,
        raw_bytes: u64,
        stored_bytes: u64,
        sha256: String,
        row_hash: RowHash,
    }

    pub fn serialize<S: serde::Serializer>(chunk: &StoredChunk, serializer: S) -> Result<S::Ok, S::Error> {
        Fields {
            rows: chunk.rows,
            raw_bytes: chunk.raw_bytes,
            stored_bytes: chunk.stored_bytes,
            sha256: chunk.sha256.clone(),
            row_hash: chunk.row_hash,
        }
        .serialize(serializer)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<StoredChunk, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        Ok(StoredChunk {
            rows: fields.rows,
            raw_bytes: fields.raw_bytes,
            stored_bytes: fields.stored_bytes,
            sha256: fields.sha256,
            row_hash: fields.row_hash,
        })
    }
}

/// The large objects: who they are, and their pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many there are.
    pub count: u64,
    /// COPY text with the columns oid, owner, acl (as text, `\N` for the default), comment.
    pub metadata: Chunk,
    /// COPY text with the columns loid, pageno, data.
    pub pages: Vec<Chunk>,
}

/// A file that is neither a chunk nor the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path within the snapshot.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}
