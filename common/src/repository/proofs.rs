//! Trials of an undo that succeeded: one file `proofs/<fingerprint>` each. What the fingerprint stands for is the caller's.
//!
//! A proof that can't be read is none: the trial is made again.

use std::{fs, path::PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::{
    Error, QualifiedName, Result,
    files::{create_private_dir, replace_private_file},
};

/// Folder of the proofs below the repository.
pub(super) const PROOFS: &str = "proofs";

/// So many are kept, the newest.
const KEPT: usize = 50;

/// What a trial found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownProof {
    /// When it ended.
    pub at: DateTime<Utc>,
    /// What the database would lack after the undo, as phrases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Rows that it would have lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loses: Vec<KnownLoss>,
}

/// Rows of one table that no snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLoss {
    /// The table.
    pub table: QualifiedName,
    /// How many it has.
    pub rows: u64,
    /// A sentence that names it.
    pub line: String,
}

impl Repository {
    /// The proof with this fingerprint.
    pub fn recall_proof(&self, fingerprint: &str) -> Result<Option<KnownProof>> {
        let path = self.proofs_dir().join(fingerprint);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }

    /// Remembers a proof, and forgets the oldest beyond [`KEPT`].
    pub fn remember_proof(&self, fingerprint: &str, proof: &KnownProof) -> Result<()> {
        let dir = self.proofs_dir();
        create_private_dir(&dir)?;
        let bytes = serde_json::to_vec(proof)
            .map_err(|source| Error::failed(format!("could not encode a proof: {source}")))?;
        replace_private_file(&dir.join(fingerprint), &bytes)?;
        let mut known: Vec<_> = fs::read_dir(&dir)
            .map_err(|source| Error::io("read", &dir, source))?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        known.sort();
        for (_, path) in known.iter().rev().skip(KEPT) {
            fs::remove_file(path).map_err(|source| Error::io("remove", path, source))?;
        }
        Ok(())
    }

    fn proofs_dir(&self) -> PathBuf {
        self.root().join(PROOFS)
    }
}
