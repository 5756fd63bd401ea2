//! Which snapshots runs of `safe-run` still need: those of runs that have not finished, as their journals tell. `safe-run
//! recover` may have to restore them, so nobody may delete them.
//!
//! Only what protection needs is read from the journals, and doubt protects: a line that can't be read ends no run.

use std::fs;

use serde_json::Value;

use super::{Repository, TRASH};
use crate::{
    Error, Result,
    files::{MOST_FACTS, create_private_dir, read_plain, sync_dir},
    snapshot::{Manifest, SnapshotId, manifest::Kind},
};

/// The journal's file name within a run's folder.
const JOURNAL_FILE: &str = "journal.jsonl";

/// A run that has begun and not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// Its id.
    pub run: String,
    database: Option<String>,
    snapshots: Vec<String>,
    has_begun_to_change: bool,
    waits_for_a_person: bool,
}

/// What a run that has not finished means for the state of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is at work.
    AtWork,
    /// It died, or its undo failed: the database may hold half of what it did.
    LeftBehind,
    /// It failed, and a person has not decided yet: the database holds what it left, and goes on being used.
    Undecided,
}

impl UnfinishedRun {
    /// Whether this run may still restore the snapshot.
    ///
    /// Between publishing a snapshot and writing its id into the journal a run can die: a pre-migration snapshot of the
    /// same database that is not older than the run counts as the run's own.
    pub fn needs(&self, id: &SnapshotId, manifest: Option<&Manifest>) -> bool {
        self.snapshots.iter().any(|snapshot| snapshot == id.as_str())
            || manifest.is_some_and(|manifest| {
                manifest.kind == Kind::PreMigration
                    && self.database.as_deref().is_none_or(|name| name == manifest.database.name)
                    // Both ids begin with a time of 16 characters, in seconds.
                    && id.as_str().get(..16) >= self.run.get(..16)
            })
    }
}

/// The name of the lock that a run holds while it works on `database`, whose name can hold anything.
pub fn run_lock(database: &str) -> String {
    format!("run-{}", &crate::digest::sha256_hex(database.as_bytes())[..16])
}

impl Repository {
    /// The runs on `database` that have not finished and had begun to change it, with what that means now.
    pub fn runs_that_changed(&self, database: &str) -> Result<Vec<(String, Standing)>> {
        let is_here = |run: &UnfinishedRun| run.database.as_deref().is_none_or(|name| name == database);
        let runs = self.unfinished_runs()?.into_iter().filter(|run| is_here(run) && run.has_begun_to_change);
        let runs: Vec<UnfinishedRun> = runs.collect();
        // Only who is alive holds the run's lock.
        let is_at_work = !runs.is_empty() && self.lock_named(&run_lock(database)).is_err();
        let standing = |run: &UnfinishedRun| match run.waits_for_a_person {
            true => Standing::Undecided,
            false if is_at_work => Standing::AtWork,
            false => Standing::LeftBehind,
        };
        Ok(runs.into_iter().map(|run| (run.run.clone(), standing(&run))).collect())
    }

    /// Every run of `safe-run` that has not finished.
    pub fn unfinished_runs(&self) -> Result<Vec<UnfinishedRun>> {
        let dir = self.runs_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::io("read", &dir, source)),
        };
        let mut unfinished = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("read", &dir, source))?;
            let run = entry.file_name().to_string_lossy().into_owned();
            if SnapshotId::parse(&run).is_err() {
                continue;
            }
            let path = entry.path().join(JOURNAL_FILE);
            let text = match read_plain(&path, MOST_FACTS) {
                Ok(text) => text,
                // Killed before its first line: nothing happened.
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::io("read", &path, source)),
            };
            unfinished.extend(parse(run, &text));
        }
        unfinished.sort_by(|a, b| a.run.cmp(&b.run));
        Ok(unfinished)
    }

    /// Removes the folder of a run: by one rename into the trash, so that what a crash leaves does not look like a run.
    pub fn remove_run(&self, run: &SnapshotId) -> Result<()> {
        let _lock = self.lock_shared()?;
        let trash = self.root().join(TRASH);
        create_private_dir(&trash)?;
        let (from, to) = (self.runs_dir().join(run.as_str()), trash.join(format!("run-{run}")));
        if to.exists() {
            fs::remove_dir_all(&to).map_err(|source| Error::io("remove", &to, source))?;
        }
        fs::rename(&from, &to).map_err(|source| Error::io("remove", &from, source))?;
        sync_dir(&self.runs_dir())?;
        fs::remove_dir_all(&to).map_err(|source| Error::io("remove", &to, source))
    }
}

fn parse(run: String, journal: &[u8]) -> Option<UnfinishedRun> {
    let mut found = UnfinishedRun { run, ..UnfinishedRun::default() };
    // A run that was stopped for a person's decision may still be undone, as long as its replication slot is there, and is
    // unfinished again once that has begun.
    let (mut is_finished, mut is_undecided) = (false, false);
    for line in journal.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { continue };
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        match line.get("step").and_then(Value::as_str) {
            Some("finished") => is_finished = true,
            Some("making-slot") => is_undecided = true,
            Some("slot-dropped") => is_undecided = false,
            Some("begun") => found.database = text("database"),
            Some("applying") => found.has_begun_to_change = true,
            Some("snapshot-taken") => found.snapshots.extend(text("id")),
            Some("undoing") => {
                is_finished = false;
                found.snapshots.extend(text("snapshot"));
            }
            _ => {}
        }
    }
    found.waits_for_a_person = is_finished && is_undecided;
    (!is_finished || is_undecided).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20261121T034149Z-shop-7f3k9q";
    const SNAPSHOT: &str = "20261121T034150Z-shop-7f3k9r";

    fn needs(journal: &str) -> bool {
        let id = SnapshotId::parse(SNAPSHOT).unwrap();
        parse(RUN.to_owned(), journal.as_bytes()).is_some_and(|run| run.needs(&id, None))
    }

    #[test]
    fn a_run_needs_its_snapshot_until_it_has_finished() {
        let taken = format!("{{\"at\":\"x\",\"step\":\"snapshot-taken\",\"id\":\"{SNAPSHOT}\"}}\n");
        assert!(needs(&taken));
        assert!(needs(&format!("{taken}{{\"step\":\"fini")), "a line that was cut off ends no run");
        assert!(needs(&format!("{{\"step\":\"undoing\",\"snapshot\":\"{SNAPSHOT}\"}}\n")));
        assert!(!needs(&format!("{taken}{{\"step\":\"finished\",\"exit_code\":0}}\n")));
        assert!(!needs("{\"step\":\"begun\",\"database\":\"shop\"}\n"));
        let undecided = format!("{{\"step\":\"making-slot\"}}\n{taken}{{\"step\":\"finished\"}}\n");
        assert!(needs(&undecided), "a person may still decide for the undo");
        let begun = format!("{{\"step\":\"undoing\",\"snapshot\":\"{SNAPSHOT}\"}}\n");
        assert!(needs(&format!("{taken}{{\"step\":\"finished\"}}\n{begun}")), "an undo that was begun later");
        assert!(!needs(&format!("{undecided}{{\"step\":\"slot-dropped\"}}\n")));
        assert!(!needs(&format!(
            "{undecided}{begun}{{\"step\":\"finished\"}}\n{{\"step\":\"slot-dropped\"}}\n"
        )));
    }
}
