//! What lists show beside a snapshot's manifest: its pin and its verifications.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{
    Result, format,
    repository::{
        Repository,
        pins::Pin,
        verifications::{Proof, Standing, Verification},
    },
    snapshot::SnapshotId,
};

/// Facts about snapshots that are not in their manifests.
#[derive(Debug, Default)]
pub struct Facts {
    pins: BTreeMap<SnapshotId, Pin>,
    verifications: BTreeMap<SnapshotId, Standing>,
}

impl Facts {
    /// Reads pins and the verification log.
    pub fn read(repository: &Repository) -> Result<Self> {
        Ok(Self { pins: repository.pins()?, verifications: repository.verifications()? })
    }

    /// The pin.
    pub fn pin(&self, id: &SnapshotId) -> Option<&Pin> {
        self.pins.get(id)
    }

    /// What the verification log says.
    pub fn standing(&self, id: &SnapshotId) -> Standing {
        self.verifications.get(id).cloned().unwrap_or_default()
    }

    /// The cell VERIFIED, with the age: `never`, `files 3 min` (`backup verify`), `restored 2 d` (`backup drill`), `FAILED 1 h`.
    pub fn verified_cell(&self, id: &SnapshotId, now: DateTime<Utc>) -> String {
        let age = |line: &Verification| format::age((now - line.at).to_std().unwrap_or_default());
        match self.standing(id).proof() {
            Proof::Never => "never".to_owned(),
            Proof::Good(line) => format!("{} {}", line.how, age(line)),
            Proof::Failed(line) => format!("FAILED {}", age(line)),
        }
    }

    /// The cell PIN.
    pub fn pin_cell(&self, id: &SnapshotId) -> &'static str {
        if self.pins.contains_key(id) { "pinned" } else { "-" }
    }
}
