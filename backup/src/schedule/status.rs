//! What there is to see: gathered from the repositories each time somebody asks, so that a restart forgets nothing. Only
//! what runs now and what comes next is the process's own.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use common::{
    Result,
    repository::{
        Repository,
        alarms::Alarm,
        attempts::{Attempt, AttemptOutcome, Work},
        free_space,
        verifications::{How, Standing, Verification},
    },
    snapshot::manifest::Kind,
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
    /// The newest snapshot that a verification found good.
    pub fn last_success(&self) -> Option<&Snap> {
        self.snapshots.iter().rfind(|snap| snap.standing.is_good())
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

/// Looks into the repositories. Reads files: not for a thread that has other work.
pub fn gather(live: Vec<Live>, at: DateTime<Utc>) -> Status {
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
        if let Err(error) = look(&mut status) {
            status.problem = Some(error.to_string());
        }
        status
    });
    Status { at, jobs: jobs.collect() }
}

fn look(status: &mut JobStatus) -> Result<()> {
    let database = status.live.database.clone();
    let repository = Repository::open(&status.live.repo)?;
    status.free_bytes = free_space(repository.root()).ok();
    status.attempts = repository.attempts(&status.live.name)?;
    let surplus = status.attempts.len().saturating_sub(ATTEMPTS);
    status.attempts.drain(..surplus);
    status.alarms = repository.alarms()?;
    status.alarms.retain(|alarm| alarm.holds(&database));
    let (pins, mut standings) = (repository.pins()?, repository.verifications()?);
    for entry in repository.list()? {
        let Ok(snapshot) = entry.snapshot else {
            status.damaged += 1;
            continue;
        };
        let manifest = snapshot.manifest;
        if manifest.database.name != database {
            continue;
        }
        status.snapshots.push(Snap {
            id: manifest.id.to_string(),
            taken_at: manifest.taken_at,
            kind: manifest.kind,
            seconds: manifest.took().as_secs_f64(),
            rows: manifest.rows(),
            tables: manifest.tables.len() as u64,
            raw_bytes: manifest.raw_bytes(),
            stored_bytes: manifest.stored_bytes(),
            standing: standings.remove(&manifest.id).unwrap_or_default(),
            is_pinned: pins.contains_key(&manifest.id),
        });
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
