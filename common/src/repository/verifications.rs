//! The verification log: which snapshot was found good or bad, when, and how. `verify` and `drill` append to it.
//!
//! `verifications.jsonl` grows by one line per verification, each written by a single `write` to a file opened for
//! appending: lines of processes that write at the same time never mix. A line that a crash cut off says nothing, and
//! spoils neither the one before nor the one after.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Seek, SeekFrom, Write},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{ExclusiveLock, Repository};
use crate::{
    Error, Result,
    files::{MOST_FACTS, open_to_append, read_plain, replace_private_file},
    snapshot::SnapshotId,
};

/// The log's file name below the repository.
pub(super) const VERIFICATIONS_FILE: &str = "verifications.jsonl";

/// Lines after which those about deleted snapshots are dropped, and restores that stay all the same.
const MOST_LINES: usize = 2000;
const KEPT_RESTORES: usize = 200;

/// How a snapshot was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Every file's length, hash, frame and row count.
    Hash,
    /// Restored into a database, and every row compared.
    Restored,
}

/// `files` and not the JSON's `hash`: rows have hashes too, which only a restore compares.
impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hash => "files",
            Self::Restored => "restored",
        })
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The snapshot.
    pub id: SnapshotId,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How.
    pub how: How,
    /// How long it took: for a restore, the time that a person would wait.
    pub seconds: f64,
    /// Whether the snapshot was good.
    pub ok: bool,
}

/// What the log says about one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Standing {
    /// The last verification of all.
    pub last: Option<Verification>,
    /// The last restore that succeeded.
    pub last_restored: Option<Verification>,
    /// The last check of the files that succeeded.
    pub last_hash: Option<Verification>,
}

impl Standing {
    /// Takes a later line in.
    fn add(&mut self, line: Verification) {
        if line.ok {
            match line.how {
                How::Hash => self.last_hash = Some(line.clone()),
                How::Restored => self.last_restored = Some(line.clone()),
            }
        }
        self.last = Some(line);
    }

    /// The last verification succeeded.
    pub fn is_good(&self) -> bool {
        self.last.as_ref().is_some_and(|line| line.ok)
    }

    /// The last verification failed.
    pub fn is_bad(&self) -> bool {
        self.last.as_ref().is_some_and(|line| !line.ok)
    }

    /// The strongest proof there is; a failure after it takes its place.
    pub fn proof(&self) -> Proof<'_> {
        match (&self.last, self.last_restored.as_ref().or(self.last_hash.as_ref())) {
            (Some(last), _) if !last.ok => Proof::Failed(last),
            (_, Some(proof)) => Proof::Good(proof),
            _ => Proof::Never,
        }
    }
}

/// What is known about a snapshot's soundness.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Proof<'a> {
    /// Nobody has looked.
    Never,
    /// It was good.
    Good(&'a Verification),
    /// It was bad when it was last looked at.
    Failed(&'a Verification),
}

impl Repository {
    /// Appends to the log and makes the line durable.
    pub fn record_verification(&self, line: &Verification) -> Result<()> {
        let path = self.root().join(VERIFICATIONS_FILE);
        let failed = |source| Error::io("write", &path, source);
        let mut text = serde_json::to_string(line)
            .map_err(|source| Error::failed(format!("could not encode the verification: {source}")))?;
        text.push('\n');
        let mut file = open_to_append(&path).map_err(failed)?;
        // A line that a crash cut off must not swallow this one.
        if file.seek(SeekFrom::End(0)).map_err(failed)? > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != *b"\n" {
                text.insert(0, '\n');
            }
        }
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)
    }

    /// What the log says about every snapshot that it names.
    pub fn verifications(&self) -> Result<BTreeMap<SnapshotId, Standing>> {
        Ok(standings(&self.verification_log()?))
    }

    /// Every line of the log, oldest first.
    pub fn verification_log(&self) -> Result<Vec<Verification>> {
        let path = self.root().join(VERIFICATIONS_FILE);
        let bytes = match read_plain(&path, MOST_FACTS) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Drops lines about snapshots that are gone once the log has grown long; the newest restores stay, for their trend.
    ///
    /// Alone in the repository: who verifies holds its lock shared, so no line is written meanwhile.
    pub fn shorten_verifications(&self, _alone: &ExclusiveLock) -> Result<()> {
        let lines = self.verification_log()?;
        if lines.len() <= MOST_LINES {
            return Ok(());
        }
        let there: BTreeSet<SnapshotId> = self
            .list()?
            .into_iter()
            .map(|entry| entry.id)
            .chain(self.trash()?.into_iter().map(|(id, _)| id))
            .collect();
        let restores = lines.iter().filter(|line| line.how == How::Restored).count();
        let mut old_restores = restores.saturating_sub(KEPT_RESTORES);
        let mut text = Vec::new();
        for line in lines {
            let is_trend = line.how == How::Restored && {
                let is_old = old_restores > 0;
                old_restores = old_restores.saturating_sub(1);
                !is_old
            };
            if is_trend || there.contains(&line.id) {
                serde_json::to_writer(&mut text, &line).map_err(|source| {
                    Error::failed(format!("could not encode the verification: {source}"))
                })?;
                text.push(b'\n');
            }
        }
        replace_private_file(&self.root().join(VERIFICATIONS_FILE), &text)
    }
}

fn standings(lines: &[Verification]) -> BTreeMap<SnapshotId, Standing> {
    let mut standings: BTreeMap<SnapshotId, Standing> = BTreeMap::new();
    for line in lines {
        standings.entry(line.id.clone()).or_default().add(line.clone());
    }
    standings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(how: How, ok: bool) -> Verification {
        let at = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        Verification { id: SnapshotId::new(at, "shop", 7), at, how, seconds: 1.5, ok }
    }

    #[test]
    fn the_strongest_proof_is_shown_and_a_later_failure_takes_its_place() {
        let (hash, restored) = (line(How::Hash, true), line(How::Restored, true));
        let mut standing = Standing::default();
        assert_eq!(standing.proof(), Proof::Never);
        standing.add(hash.clone());
        assert_eq!(standing.proof(), Proof::Good(&hash));
        standing.add(restored.clone());
        standing.add(hash.clone());
        assert_eq!(standing.proof(), Proof::Good(&restored));
        assert!(standing.is_good());
        let failed = line(How::Hash, false);
        standing.add(failed.clone());
        assert_eq!(standing.proof(), Proof::Failed(&failed));
        assert!(standing.is_bad());
        standing.add(hash);
        assert!(standing.is_good());
    }

    #[test]
    fn a_line_that_was_cut_off_anywhere_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("r")).unwrap();
        let path = repository.root().join(VERIFICATIONS_FILE);
        let whole = serde_json::to_string(&line(How::Hash, true)).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, format!("{whole}\n{}", &whole[..cut])).unwrap();
            repository.record_verification(&line(How::Restored, true)).unwrap();
            let standings = repository.verifications().unwrap();
            let standing = &standings[&line(How::Hash, true).id];
            assert!(standing.last_hash.is_some() && standing.last_restored.is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn lines_of_writers_at_the_same_time_never_mix() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("r")).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let repository = &repository;
                scope.spawn(move || {
                    for number in 0..20 {
                        let mut line = line(How::Hash, true);
                        line.id = SnapshotId::new(line.at, "shop", writer * 100 + number);
                        repository.record_verification(&line).unwrap();
                    }
                });
            }
        });
        assert_eq!(repository.verifications().unwrap().len(), 80);
    }
}
