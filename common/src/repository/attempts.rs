//! What a scheduler did and when: one file `schedule/<job>.jsonl` per job, one line per attempt. It says after a restart
//! which runs were missed, and it is what metrics and the status page are computed from.
//!
//! As in the verification log, each line is one `write` to a file opened for appending, and a line that a crash cut off
//! spoils no other. A file that grew long is replaced by its newest lines in one step, by the process that holds the job.

use std::{io::Write, path::PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::{
    Error, Result,
    files::{MOST_FACTS, create_private_dir, open_to_append, read_plain, replace_private_file},
    snapshot::SnapshotId,
};

/// Folder of the attempts below the repository.
pub(super) const SCHEDULE: &str = "schedule";

/// Lines after which a file is cut, and lines that stay: a month of a job that runs every half hour.
const MOST_LINES: usize = 3000;
const KEPT_LINES: usize = 1500;

/// What was to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A snapshot, its verification, and pruning.
    Backup,
    /// A restore into a scratch database.
    Drill,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Drill => "drill",
        })
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptOutcome {
    /// Done, and what was made was verified.
    Ok,
    /// It failed.
    Failed,
    /// It was not begun: the one before was still going, or another scheduler had the database.
    Skipped,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The job's database.
    pub database: String,
    /// What.
    pub work: Work,
    /// The instant that the schedule named.
    pub slot: DateTime<Utc>,
    /// The schedule, to tell a slot of this one from those of an earlier one.
    pub cron: String,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it really took.
    pub seconds: f64,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The snapshot that was made or restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Which attempt at this slot it was, from 1.
    pub number: u32,
    /// Whether another attempt at the same slot may help.
    pub may_be_retried: bool,
    /// Slots that passed unused before this one.
    #[serde(default)]
    pub missed: u64,
    /// Snapshots that pruning deleted afterwards.
    #[serde(default)]
    pub deleted: u64,
    /// What went wrong besides: pruning that had to wait, a hook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Whether a name can be a job's: it becomes a file name and a label.
pub fn is_job_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl Repository {
    /// Appends an attempt to a job's file and makes it durable.
    pub fn record_attempt(&self, job: &str, attempt: &Attempt) -> Result<()> {
        let path = self.attempts_path(job)?;
        create_private_dir(&self.root().join(SCHEDULE))?;
        let mut line = serde_json::to_vec(attempt)
            .map_err(|source| Error::failed(format!("could not encode the attempt: {source}")))?;
        line.push(b'\n');
        let bytes = read(&path)?;
        // After a line that a power cut tore, on one of its own.
        if bytes.last().is_some_and(|last| *last != b'\n') {
            line.insert(0, b'\n');
        }
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        if lines.len() > MOST_LINES {
            let mut kept = lines[lines.len() - KEPT_LINES..].concat();
            kept.extend_from_slice(&line);
            return replace_private_file(&path, &kept);
        }
        open_to_append(&path)
            .and_then(|mut file| {
                file.write_all(&line)?;
                file.sync_data()
            })
            .map_err(|source| Error::io("write", &path, source))
    }

    /// What a job did, oldest first.
    pub fn attempts(&self, job: &str) -> Result<Vec<Attempt>> {
        let bytes = read(&self.attempts_path(job)?)?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    fn attempts_path(&self, job: &str) -> Result<PathBuf> {
        if !is_job_name(job) {
            return Err(Error::usage(format!("\"{}\" is not a job's name", crate::ident::printable(job))));
        }
        Ok(self.root().join(SCHEDULE).join(format!("{job}.jsonl")))
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    match read_plain(path, MOST_FACTS) {
        Ok(bytes) => Ok(bytes),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::io("read", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: i64) -> Attempt {
        let at = DateTime::from_timestamp(1_795_000_000 + number, 0).unwrap();
        Attempt {
            database: "shop".into(),
            work: Work::Backup,
            slot: at,
            cron: "0 3 * * *".into(),
            started: at,
            finished: at,
            seconds: 1.5,
            outcome: AttemptOutcome::Ok,
            snapshot: None,
            problem: None,
            hint: None,
            number: 1,
            may_be_retried: false,
            missed: 0,
            deleted: 0,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_long_history_is_cut_to_its_newest_lines_and_a_torn_line_spoils_none() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("r")).unwrap();
        let path = repository.attempts_path("nightly").unwrap();
        repository.record_attempt("nightly", &attempt(0)).unwrap();
        let line = std::fs::read(&path).unwrap();
        std::fs::write(&path, [line.repeat(MOST_LINES).as_slice(), &line[..line.len() / 2]].concat())
            .unwrap();
        repository.record_attempt("nightly", &attempt(1)).unwrap();
        repository.record_attempt("nightly", &attempt(2)).unwrap();
        let kept = repository.attempts("nightly").unwrap();
        assert!(kept.len() <= KEPT_LINES + 2 && kept.len() >= KEPT_LINES, "{}", kept.len());
        assert_eq!(kept.last(), Some(&attempt(2)));
        assert_eq!(kept[kept.len() - 2], attempt(1));
    }

    #[test]
    fn a_job_cannot_be_named_after_a_file_elsewhere() {
        for name in ["", "../x", ".x", "a/b", "a b", "ä"] {
            assert!(!is_job_name(name), "{name}");
        }
        assert!(is_job_name("shop_2-a.b"));
    }
}
