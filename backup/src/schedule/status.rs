//! What there is to see: gathered from the repositories each time somebody asks, so that a restart forgets nothing. Only
//! what runs now and what comes next is the process's own.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use chrono::{DateTime, Utc};
use common::{
    Result,
    files::free_space,
    repository::{
        Repository, StoredSnapshot,
        alarms::Alarm,
        attempts::{Attempt, AttemptOutcome, Work},
        verifications::{How, Standing, Verification},
    },
    snapshot::manifest::{Kind, MANIFEST_FILE},
};

/// Attempts that are shown.
const ATTEMPTS: usize = 200;

/// What only the process knows of a job.
#[derive(Debug, Clone)]
pub struct Live {
    /// The job.
    pub name: String,
    /// Its database.
    pub database: String,
    /// Its repository.
    pub repo: PathBuf,
    /// The time zone for people.
    pub zone: chrono_tz::Tz,
    /// The schedules and the next runs.
    pub works: Vec<LiveWork>,
    /// Whether anything prunes.
    pub prunes: bool,
}

/// One kind of work of a job.
#[derive(Debug, Clone)]
pub struct LiveWork {
    /// Which.
    pub work: Work,
    /// The expression.
    pub cron: String,
    /// When it begins next.
    pub next: Option<DateTime<Utc>>,
    /// Since when it runs.
    pub running_since: Option<DateTime<Utc>>,
}

/// A snapshot in numbers.
#[derive(Debug, Clone)]
pub struct Snap {
    /// Its id.
    pub id: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Why.
    pub kind: Kind,
    /// Whether it holds only a part of its database: then it is no backup of it.
    pub is_partial: bool,
    /// How long it took.
    pub seconds: f64,
    /// Its rows.
    pub rows: u64,
    /// Its tables.
    pub tables: u64,
    /// Its size as text.
    pub raw_bytes: u64,
    /// Its size on disk.
    pub stored_bytes: u64,
    /// What verifications found.
    pub standing: Standing,
    /// Whether it is pinned.
    pub is_pinned: bool,
}

/// All about a job.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// What the process knows.
    pub live: Live,
    /// Why the repository can't be read.
    pub problem: Option<String>,
    /// The database's snapshots, oldest first.
    pub snapshots: Vec<Snap>,
    /// Snapshots whose manifests can't be read, of any database.
    pub damaged: u64,
    /// The last attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Open alarms.
    pub alarms: Vec<Alarm>,
    /// Restores of snapshots of this database, oldest first.
    pub restores: Vec<Verification>,
    /// Room left where the repository lies.
    pub free_bytes: Option<u64>,
}

/// What there is to see.
#[derive(Debug, Clone)]
pub struct Status {
    /// When it was gathered.
    pub at: DateTime<Utc>,
    /// The jobs.
    pub jobs: Vec<JobStatus>,
}

impl JobStatus {
    /// The newest whole snapshot that a verification found good.
    pub fn last_success(&self) -> Option<&Snap> {
        self.snapshots.iter().rfind(|snap| snap.standing.is_good() && !snap.is_partial)
    }

    /// The newest whole snapshot.
    pub fn newest(&self) -> Option<&Snap> {
        self.snapshots.iter().rfind(|snap| !snap.is_partial)
    }

    /// The last attempt of a kind that was not skipped.
    pub fn last_attempt(&self, work: Work) -> Option<&Attempt> {
        self.attempts
            .iter()
            .rfind(|attempt| attempt.work == work && attempt.outcome != AttemptOutcome::Skipped)
    }

    /// Failures since the last success.
    pub fn failures(&self, work: Work) -> usize {
        let attempts = self.attempts.iter().rev().filter(|attempt| attempt.work == work);
        attempts
            .filter(|attempt| attempt.outcome != AttemptOutcome::Skipped)
            .take_while(|attempt| attempt.outcome == AttemptOutcome::Failed)
            .count()
    }

    /// The last restore that succeeded.
    pub fn last_drill(&self) -> Option<&Verification> {
        self.restores.iter().rfind(|line| line.ok)
    }

    /// The last time that a snapshot of the database was read and found good.
    pub fn last_verified(&self) -> Option<DateTime<Utc>> {
        let good =
            self.snapshots.iter().filter_map(|snap| snap.standing.last.as_ref().filter(|line| line.ok));
        good.map(|line| line.at).max()
    }

    /// Whether pruning is held.
    pub fn is_held(&self) -> bool {
        !self.alarms.is_empty()
    }
}

/// What manifests say, kept for as long as their files are the same: a repository of a large database has manifests of many
/// megabytes, and somebody asks every few seconds.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<PathBuf, Cached>>);

#[derive(Debug, Clone)]
struct Cached {
    length: u64,
    modified: SystemTime,
    database: String,
    snap: Snap,
}

impl Cache {
    /// A snapshot in numbers with its database, or `None` when its manifest can't be used.
    fn read(&self, dir: &Path) -> Option<(String, Snap)> {
        let metadata = std::fs::metadata(dir.join(MANIFEST_FILE)).ok()?;
        let (length, modified) = (metadata.len(), metadata.modified().ok()?);
        let found = self.lock().get(dir).cloned();
        if let Some(cached) = found.filter(|cached| cached.length == length && cached.modified == modified) {
            return Some((cached.database, cached.snap));
        }
        let manifest = StoredSnapshot::open(dir).ok()?.manifest;
        if Some(manifest.id.as_str()) != dir.file_name().and_then(|name| name.to_str()) {
            return None;
        }
        let snap = Snap {
            id: manifest.id.to_string(),
            taken_at: manifest.taken_at,
            kind: manifest.kind,
            is_partial: manifest.is_partial(),
            seconds: manifest.took().as_secs_f64(),
            rows: manifest.rows(),
            tables: manifest.tables.len() as u64,
            raw_bytes: manifest.raw_bytes(),
            stored_bytes: manifest.stored_bytes(),
            standing: Standing::default(),
            is_pinned: false,
        };
        let database = manifest.database.name;
        let cached = Cached { length, modified, database: database.clone(), snap: snap.clone() };
        self.lock().insert(dir.to_owned(), cached);
        Some((database, snap))
    }

    /// Forgets what is gone.
    fn retain(&self, is_there: impl Fn(&Path) -> bool) {
        self.lock().retain(|dir, _| is_there(dir));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Cached>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks into the repositories. Reads files: not for a thread that has other work.
pub fn gather(live: Vec<Live>, at: DateTime<Utc>, cache: &Cache) -> Status {
    cache.retain(|dir| dir.exists());
    let jobs = live.into_iter().map(|live| {
        let mut status = JobStatus {
            live,
            problem: None,
            snapshots: Vec::new(),
            damaged: 0,
            attempts: Vec::new(),
            alarms: Vec::new(),
            restores: Vec::new(),
            free_bytes: None,
        };
        if let Err(error) = look(&mut status, cache) {
            status.problem = Some(error.to_string());
        }
        status
    });
    Status { at, jobs: jobs.collect() }
}

fn look(status: &mut JobStatus, cache: &Cache) -> Result<()> {
    let database = status.live.database.clone();
    let repository = Repository::open(&status.live.repo)?;
    status.free_bytes = free_space(repository.root()).ok();
    status.attempts = repository.attempts(&status.live.name)?;
    let surplus = status.attempts.len().saturating_sub(ATTEMPTS);
    status.attempts.drain(..surplus);
    status.alarms = repository.alarms()?;
    status.alarms.retain(|alarm| alarm.holds(&database));
    let (pins, mut standings) = (repository.pins()?, repository.verifications()?);
    for id in repository.ids()? {
        let Some((name, snap)) = cache.read(&repository.snapshot_dir(&id)) else {
            status.damaged += 1;
            continue;
        };
        if name == database {
            let standing = standings.remove(&id).unwrap_or_default();
            status.snapshots.push(Snap { standing, is_pinned: pins.contains_key(&id), ..snap });
        }
    }
    status.snapshots.sort_by_key(|snap| snap.taken_at);
    // Snapshots come and go; the trend of a job's own drills is in its attempts too, which name the database.
    let drilled: std::collections::BTreeSet<_> = status
        .attempts
        .iter()
        .filter(|attempt| attempt.work == Work::Drill)
        .filter_map(|attempt| attempt.snapshot.clone())
        .collect();
    let ids: std::collections::BTreeSet<&str> =
        status.snapshots.iter().map(|snap| snap.id.as_str()).collect();
    status.restores = repository.verification_log()?;
    status.restores.retain(|line| {
        line.how == How::Restored && (ids.contains(line.id.as_str()) || drilled.contains(&line.id))
    });
    Ok(())
}
