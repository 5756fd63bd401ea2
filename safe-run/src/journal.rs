//! What a run did, written and fsynced before each effect, so that after kill -9 or a power cut `safe-run recover` knows
//! how far it came.
//!
//! One folder per run below the repository's `runs/`: `journal.jsonl` grows a line at a time, `report.json` is written
//! once at the end. A run whose journal has no [`Step::Finished`] did not finish.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use common::{
    Error, ErrorKind, Result,
    files::{create_private_dir, create_private_file, open_to_append, read_plain_text, sync_dir},
    repository::Repository,
    snapshot::SnapshotId,
};
use serde::{Deserialize, Serialize};

use crate::exclusive::Hidden;

const JOURNAL_FILE: &str = "journal.jsonl";
/// The report's file name within the run's folder.
pub const REPORT_FILE: &str = "report.json";
/// The same as text.
pub const REPORT_TEXT_FILE: &str = "report.txt";

/// How a run protects the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything in one transaction: the undo is a ROLLBACK.
    Transaction,
    /// Statements or a command outside of a transaction of ours: the undo is a restore.
    Restore,
}

/// One step. Each is written before the effect that it names, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The run begins; nothing is changed yet.
    Begun {
        /// The database.
        database: String,
        /// How it is protected.
        mode: Mode,
        /// What is going to run, for a person; passwords masked.
        what: String,
    },
    /// The database is about to become read-only for new sessions.
    Fencing {
        /// `default_transaction_read_only` of the database before; `None` when it was not set.
        previous: Option<String>,
    },
    /// The fence shall stay after the run, until `release`.
    HoldFence,
    /// The database is about to get another name, and an empty one stands in for it.
    Hiding {
        /// Its name behind the fence.
        hidden: String,
        /// The name under which the empty database is made.
        placeholder: String,
    },
    /// The server is about to copy the database; what the copy is known by lies in the run's folder.
    Cloning {
        /// The name of the copy.
        clone: String,
    },
    /// The copy is about to take the place of the failed database.
    UndoingByClone {
        /// The copy's oid, by which it is found under either name.
        oid: u32,
        /// The name under which the failed database will be kept.
        kept_as: String,
    },
    /// A replication slot is about to be made that holds what others write.
    MakingSlot {
        /// Its name.
        slot: String,
    },
    /// What others write is held since the snapshot that has these transactions (written after the effect).
    SavingSince {
        /// The text of a `pg_snapshot`.
        snapshot: String,
    },
    /// A transaction of the run itself is about to commit, or was seen.
    OwnTransaction {
        /// Its id.
        xid: u64,
    },
    /// Transactions with this id and above may be the run's without being known.
    UnknownFrom {
        /// The id.
        xid: u64,
    },
    /// Those with this id and above are others' again.
    UnknownTo {
        /// The id.
        xid: u64,
    },
    /// The replication slot is gone, or was never made (written after the effect).
    SlotDropped,
    /// A snapshot was published (written after the effect).
    SnapshotTaken {
        /// Its id.
        id: String,
    },
    /// From here on the database may be changed.
    Applying,
    /// The transaction is about to commit.
    Committing {
        /// Its id, by which its fate can be asked for later.
        xid: Option<String>,
    },
    /// The checks passed and the result stands (written after the effect).
    Stands,
    /// The snapshot is about to be restored.
    Undoing {
        /// The snapshot.
        snapshot: String,
        /// The database that is made for it.
        staged: String,
        /// The name under which the failed database will be kept.
        kept_as: String,
    },
    /// The snapshot was restored and has the live name (written after the effect).
    Undone,
    /// The fence is gone (written after the effect).
    FenceLifted,
    /// The run is over (written after the effect).
    Finished {
        /// The exit code.
        exit_code: u8,
        /// The verdict's word.
        verdict: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    at: DateTime<Utc>,
    #[serde(flatten)]
    step: Step,
}

/// The journal of the run that is going on.
#[derive(Debug)]
pub struct Journal {
    run: String,
    dir: PathBuf,
    file: File,
    steps: Vec<Step>,
}

impl Journal {
    /// Makes the run's folder and writes the first step.
    pub fn begin(repository: &Repository, run: &SnapshotId, first: Step) -> Result<Self> {
        let dir = repository.runs_dir().join(run.as_str());
        create_private_dir(&dir)?;
        let path = dir.join(JOURNAL_FILE);
        let file = create_private_file(&path)?;
        let mut journal = Self { run: run.to_string(), dir: dir.clone(), file, steps: Vec::new() };
        journal.write(first)?;
        sync_dir(&dir)?;
        sync_dir(&repository.runs_dir())?;
        Ok(journal)
    }

    /// Opens the journal of an earlier run to add to it.
    pub fn reopen(past: &PastRun) -> Result<Self> {
        let path = past.dir.join(JOURNAL_FILE);
        let file = open_to_append(&path).map_err(|source| Error::io("open", &path, source))?;
        Ok(Self { run: past.run.clone(), dir: past.dir.clone(), file, steps: past.steps.clone() })
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was written so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Writes a step and makes it durable before it returns.
    pub fn write(&mut self, step: Step) -> Result<()> {
        let path = self.dir.join(JOURNAL_FILE);
        let mut line = serde_json::to_string(&Line { at: Utc::now(), step: step.clone() })
            .map_err(|source| Error::failed(format!("could not encode the journal: {source}")))?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| Error::io("write", &path, source))?;
        self.steps.push(step);
        Ok(())
    }
}

/// A run that was, as its journal tells it.
#[derive(Debug, Clone)]
pub struct PastRun {
    /// Its id.
    pub run: String,
    /// Its folder.
    pub dir: PathBuf,
    /// When it began.
    pub began_at: Option<DateTime<Utc>>,
    /// Its steps, in order. A last line that was cut off by a crash is left out: its effect did not happen.
    pub steps: Vec<Step>,
    /// The first line that can't be read, and why, unless the run was finished after it.
    pub damage: Option<String>,
}

impl PastRun {
    /// The database it ran on.
    pub fn database(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::Begun { database, .. } => Some(database.as_str()),
            _ => None,
        })
    }

    /// What it ran.
    pub fn what(&self) -> &str {
        self.steps
            .iter()
            .find_map(|step| match step {
                Step::Begun { what, .. } => Some(what.as_str()),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// The names that its database had behind an exclusive fence.
    pub fn hidden(&self) -> Option<Hidden> {
        self.steps.iter().find_map(|step| match step {
            Step::Hiding { hidden, placeholder } => Some(Hidden {
                live: self.database().unwrap_or_default().to_owned(),
                hidden: hidden.clone(),
                placeholder: placeholder.clone(),
            }),
            _ => None,
        })
    }

    /// Whether its fence shall stay, or has stayed, until `release`.
    pub fn holds_fence(&self) -> bool {
        let has = |wanted: fn(&Step) -> bool| self.steps.iter().any(wanted);
        has(|step| *step == Step::HoldFence)
            && has(|step| matches!(step, Step::Fencing { .. } | Step::Hiding { .. }))
            && !has(|step| *step == Step::FenceLifted)
    }

    /// Exit code and verdict, once it has finished. One that was stopped for a person is unfinished again when its undo
    /// has begun.
    pub fn finished(&self) -> Option<(u8, &str)> {
        self.steps.iter().fold(None, |finished, step| match step {
            Step::Finished { exit_code, verdict } => Some((*exit_code, verdict.as_str())),
            Step::Undoing { .. } => None,
            _ => finished,
        })
    }

    /// Whether it was stopped for a person, and holds what others write until that person has decided.
    pub fn is_undecided(&self) -> bool {
        let stopped = ErrorKind::Stopped.exit_code();
        self.finished().is_some_and(|(code, _)| code == stopped) && open_slot(&self.steps).is_some()
    }
}

/// The slot that a run has made, or was about to make, and has not dropped.
pub fn open_slot(steps: &[Step]) -> Option<&str> {
    steps.iter().fold(None, |open, step| match step {
        Step::MakingSlot { slot } => Some(slot.as_str()),
        Step::SlotDropped => None,
        _ => open,
    })
}

/// Every run of the repository, oldest first.
pub fn past_runs(repository: &Repository) -> Result<Vec<PastRun>> {
    let dir = repository.runs_dir();
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(|source| Error::io("read", &dir, source))? {
        let entry = entry.map_err(|source| Error::io("read", &dir, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if SnapshotId::parse(&name).is_err() {
            continue;
        }
        let path = entry.path().join(JOURNAL_FILE);
        let text = match read_plain_text(&path) {
            Ok(text) => text,
            // Killed between making the folder and its first line: nothing happened.
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        let Parsed { began_at, steps, damage } = parse(&text);
        if !steps.is_empty() || damage.is_some() {
            runs.push(PastRun { run: name, dir: entry.path(), began_at, steps, damage });
        }
    }
    // By time first: ids of one second have a random order.
    runs.sort_by(|a, b| (a.began_at, &a.run).cmp(&(b.began_at, &b.run)));
    Ok(runs)
}

/// Finished runs on `database` whose fence still stands.
pub fn held(repository: &Repository, database: &str) -> Result<Vec<PastRun>> {
    let runs = past_runs(repository)?.into_iter();
    Ok(runs
        .filter(|run| run.database() == Some(database) && run.finished().is_some() && run.holds_fence())
        .collect())
}

/// Runs on `database` that did not finish, or whose journal can't be read to its end.
pub fn unfinished(repository: &Repository, database: &str) -> Result<Vec<PastRun>> {
    let runs = past_runs(repository)?.into_iter();
    // Of one whose journal does not say where it ran, nobody knows that it was elsewhere.
    let is_here = |run: &PastRun| {
        run.database() == Some(database) || (run.database().is_none() && run.damage.is_some())
    };
    Ok(runs.filter(|run| is_here(run) && (run.finished().is_none() || run.damage.is_some())).collect())
}

/// Finished runs on `database` whose replication slot is still there: a person has to decide, or it could not be dropped.
pub fn with_slot(repository: &Repository, database: &str) -> Result<Vec<PastRun>> {
    let runs = past_runs(repository)?.into_iter();
    Ok(runs
        .filter(|run| {
            run.database() == Some(database) && run.finished().is_some() && open_slot(&run.steps).is_some()
        })
        .collect())
}

struct Parsed {
    began_at: Option<DateTime<Utc>>,
    steps: Vec<Step>,
    damage: Option<String>,
}

fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed { began_at: None, steps: Vec::new(), damage: None };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            break;
        }
        match serde_json::from_str::<Line>(line) {
            Ok(line) => {
                parsed.began_at = parsed.began_at.or(Some(line.at));
                // Whoever finished it had a person's decision for what can't be read.
                if matches!(line.step, Step::Finished { .. }) {
                    parsed.damage = None;
                }
                parsed.steps.push(line.step);
            }
            Err(source) => {
                let what = || format!("line {} of the journal can't be read: {source}", number + 1);
                parsed.damage.get_or_insert_with(what);
            }
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_line_that_was_cut_off_did_not_happen() {
        let whole = serde_json::to_string(&Line { at: Utc::now(), step: Step::Applying }).unwrap();
        let text = format!("{whole}\n{}", &whole[..20]);
        assert_eq!(parse(&text).steps, vec![Step::Applying]);
        assert_eq!(parse(&text).damage, None);
    }

    #[test]
    fn a_damaged_line_is_told_until_the_run_is_finished() {
        let line = |step: Step| serde_json::to_string(&Line { at: Utc::now(), step }).unwrap() + "\n";
        let text = format!("{}garbage\n{}", line(Step::Applying), line(Step::Stands));
        let parsed = parse(&text);
        assert_eq!(parsed.steps, [Step::Applying, Step::Stands]);
        assert!(parsed.damage.is_some_and(|damage| damage.starts_with("line 2 ")));
        let finished = line(Step::Finished { exit_code: 14, verdict: "STOPPED".to_owned() });
        assert_eq!(parse(&format!("{text}{finished}")).damage, None);
        assert!(parse(&format!("{finished}garbage\n")).damage.is_some());
    }

    proptest::proptest! {
        #[test]
        fn a_journal_that_was_cut_anywhere_reads_as_its_whole_lines(cut in 0usize..400) {
            let steps = [Step::Applying, Step::Committing { xid: Some("7".into()) }, Step::Stands];
            let text: String = steps
                .iter()
                .map(|step| serde_json::to_string(&Line { at: DateTime::UNIX_EPOCH, step: step.clone() }).unwrap() + "\n")
                .collect();
            let kept = &text[..cut.min(text.len())];
            let read = parse(kept);
            proptest::prop_assert_eq!(read.damage, None);
            proptest::prop_assert_eq!(&read.steps[..], &steps[..kept.matches('\n').count()]);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn steps_read_back() {
        for step in [
            Step::Begun { database: "d".into(), mode: Mode::Restore, what: "w".into() },
            Step::Fencing { previous: None },
            Step::Finished { exit_code: 12, verdict: "RESTORED".into() },
        ] {
            let text = serde_json::to_string(&Line { at: Utc::now(), step: step.clone() }).unwrap() + "\n";
            assert_eq!(parse(&text).steps, vec![step]);
        }
    }

    #[test]
    fn a_slot_is_open_until_it_was_dropped() {
        let making = Step::MakingSlot { slot: "safe_run_x".to_owned() };
        assert_eq!(open_slot(&[Step::Applying]), None);
        assert_eq!(open_slot(&[making.clone(), Step::Applying]), Some("safe_run_x"));
        assert_eq!(open_slot(&[making, Step::SlotDropped]), None);
    }
}
