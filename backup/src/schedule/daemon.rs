//! The loop: looks at the time, starts what is due, takes in what ended, and answers signals. It never waits for a run: it
//! goes on beside them, and tells systemd so.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use common::{
    Error, Result,
    cli::Output,
    files::replace_file,
    interrupt,
    repository::{
        Repository,
        attempts::{Attempt, AttemptOutcome, Work},
    },
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    clock::Clock,
    cron::local_time,
    job::Job,
    metrics,
    notify::Notifier,
    plan::{self, Last, Next, Rhythm},
    run::{self, Ended, Order, stamp},
    status::{self, Cache, Live, LiveWork},
};

/// How often the loop looks at the time, at least.
const TICK: Duration = Duration::from_secs(1);
/// How long to leave a database alone that another scheduler is at.
const ELSEWHERE: chrono::Duration = chrono::Duration::seconds(30);
/// How often the metrics file is written when nothing happens.
const METRICS_PAUSE: Duration = Duration::from_secs(60);
/// How long runs may take to clean up after a signal.
const CLEAN_UP: Duration = Duration::from_secs(120);

/// What the scheduler is told besides its jobs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Jobs that may run at the same time.
    pub parallel: usize,
    /// Where to write metrics.
    pub metrics_file: Option<PathBuf>,
}

/// What is shared with whoever asks.
pub type Shared = Arc<Mutex<Vec<Live>>>;

type Key = (String, Work);

/// What is known of one kind of work of one job.
#[derive(Debug, Default)]
struct Track {
    last: Option<Last>,
    running: Option<(DateTime<Utc>, DateTime<Utc>)>,
    next: Option<DateTime<Utc>>,
    not_before: Option<DateTime<Utc>>,
    /// The slot that another scheduler was said to be at.
    elsewhere: Option<DateTime<Utc>>,
    is_looked_at: bool,
}

struct Daemon<'a> {
    jobs: Vec<Arc<Job>>,
    tracks: HashMap<Key, Track>,
    runs: JoinSet<(Key, Ended)>,
    names: HashMap<tokio::task::Id, Key>,
    places: Arc<Semaphore>,
    clock: Clock,
    started: DateTime<Utc>,
    output: &'a Output,
    shared: Shared,
}

/// Runs until a signal comes in.
///
/// `reload` makes the jobs anew, for SIGHUP; when it fails, the old ones stay.
///
/// # Errors
/// Always ends with one: interrupted or terminated, after every run has cleaned up.
pub async fn run<R>(
    jobs: Vec<Job>,
    options: &Options,
    shared: Shared,
    clock: Clock,
    notifier: &Notifier,
    output: &Output,
    reload: R,
) -> Result<u8>
where
    R: AsyncFn() -> Result<Vec<Job>>,
{
    use tokio::signal::unix::{SignalKind, signal};
    let no_signal =
        |source| Error::failed(format!("could not listen for signals: {source}")).with_source(source);
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signal)?;
    let mut daemon = Daemon {
        jobs: Vec::new(),
        tracks: HashMap::new(),
        runs: JoinSet::new(),
        names: HashMap::new(),
        places: Arc::new(Semaphore::new(options.parallel.max(1))),
        clock,
        started: clock.now(),
        output,
        shared,
    };
    daemon.take_jobs(jobs);
    notifier.tell("READY=1");
    let mut metrics = MetricsFile::new(options.metrics_file.clone());
    let mut watchdog = Instant::now();
    let mut before = clock.now();
    loop {
        if let Some(signal) = interrupt::received() {
            notifier.tell("STOPPING=1\nSTATUS=Cleaning up");
            daemon.clean_up(notifier).await;
            return Err(interrupt::error(signal));
        }
        let now = clock.now();
        // A clock that was set back, or a machine that woke up: nothing that was planned holds.
        let has_jumped = now < before || now - before > chrono::Duration::minutes(2);
        before = now;
        let wake = daemon.look(now, has_jumped);
        daemon.publish();
        metrics.write_if_due(&daemon).await;
        if let Some(pause) = notifier.watchdog()
            && watchdog.elapsed() >= pause / 2
        {
            notifier.tell(&format!("WATCHDOG=1\nSTATUS={}", daemon.summary()));
            watchdog = Instant::now();
        }
        let until_next = wake.map_or(TICK, |at| {
            clock.real((at - clock.now()).to_std().unwrap_or_default()).clamp(Duration::from_millis(5), TICK)
        });
        let pause = notifier.watchdog().map_or(until_next, |pause| until_next.min(pause / 2));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = run::interrupted() => {}
            Some(ended) = daemon.runs.join_next_with_id() => {
                daemon.take_in(ended);
                metrics.is_due = true;
            }
            _ = hangup.recv() => {
                notifier.reloading();
                match reload().await {
                    Ok(jobs) => {
                        daemon.take_jobs(jobs);
                        output.say(&format!("{} the settings were read again", stamp(clock.now())));
                    }
                    Err(error) => {
                        output.warn("the new settings can't be used; the old ones hold");
                        output.error(&error);
                    }
                }
                notifier.tell("READY=1");
            }
        }
    }
}

impl Daemon<'_> {
    /// Replaces the jobs. What is known of those that stay is kept; what runs goes on.
    fn take_jobs(&mut self, jobs: Vec<Job>) {
        self.jobs = jobs.into_iter().map(Arc::new).collect();
        let mut tracks = HashMap::new();
        for job in &self.jobs {
            for (work, rhythm) in works(job) {
                let key = (job.name.clone(), work);
                let mut track = self.tracks.remove(&key).unwrap_or_default();
                if track.running.is_none() {
                    track.last = read_last(job, work, rhythm);
                }
                track.next = None;
                track.is_looked_at = false;
                tracks.insert(key, track);
            }
        }
        // Jobs that are gone but still run have to be taken in when they end.
        let leaving =
            std::mem::take(&mut self.tracks).into_iter().filter(|(_, track)| track.running.is_some());
        tracks.extend(leaving);
        self.tracks = tracks;
        self.publish();
        for job in &self.jobs {
            for (work, rhythm) in works(job) {
                let next = plan::next(rhythm, self.last(&job.name, work), self.started, self.clock.now());
                let when = match next {
                    Next::Now { .. } => "now: a run was missed".to_owned(),
                    Next::At(at) => local_time(at, rhythm.schedule.zone()),
                    Next::Never => "never".to_owned(),
                };
                self.output.say(&format!(
                    "{} {}: {work} of \"{}\" into {}, {}; next {when}",
                    stamp(self.clock.now()),
                    job.name,
                    common::ident::printable(&job.database),
                    job.repo.display(),
                    rhythm.schedule,
                ));
            }
        }
    }

    fn last(&self, job: &str, work: Work) -> Option<Last> {
        self.tracks.get(&(job.to_owned(), work)).and_then(|track| track.last)
    }

    /// Starts what is due, and says when to look again.
    fn look(&mut self, now: DateTime<Utc>, is_anew: bool) -> Option<DateTime<Utc>> {
        let mut wake: Option<DateTime<Utc>> = None;
        let jobs = self.jobs.clone();
        for job in &jobs {
            let busy = [Work::Backup, Work::Drill].iter().any(|work| self.is_running(&job.name, *work));
            let mut starts = busy;
            for (work, rhythm) in works(job) {
                let key = (job.name.clone(), work);
                let started = self.started;
                let Some(track) = self.tracks.get_mut(&key) else { continue };
                if track.not_before.is_some_and(|at| at > now && at - now <= ELSEWHERE) {
                    wake = earliest(wake, track.not_before);
                    continue;
                }
                let is_due = track.next.is_some_and(|next| next <= now) || is_anew || !track.is_looked_at;
                if !is_due {
                    wake = earliest(wake, track.next);
                    continue;
                }
                track.is_looked_at = true;
                let next = plan::next(rhythm, track.last, started, now);
                track.next = match next {
                    Next::At(at) => Some(at),
                    _ => None,
                };
                if let Next::Now { slot, number, missed } = next {
                    if let Some((running, _)) = track.running {
                        // Its own last one is still going. When that has ended, this time has passed.
                        track.last = Some(Last { slot, finished: now, number, may_be_retried: false });
                        track.is_looked_at = false;
                        self.skip(job, work, rhythm, running, slot);
                    } else if starts {
                        // The other kind of work goes first; this one's turn is next.
                        track.is_looked_at = false;
                    } else {
                        starts = true;
                        self.start(job, Order { work, slot: Some(slot), number, missed }, now);
                    }
                }
                if let Some(track) = self.tracks.get(&key) {
                    wake = earliest(wake, track.next);
                }
            }
        }
        wake
    }

    fn is_running(&self, job: &str, work: Work) -> bool {
        self.tracks.get(&(job.to_owned(), work)).is_some_and(|track| track.running.is_some())
    }

    fn start(&mut self, job: &Arc<Job>, order: Order, now: DateTime<Utc>) {
        let key = (job.name.clone(), order.work);
        if let Some(track) = self.tracks.get_mut(&key) {
            let slot = order.slot.unwrap_or(now);
            track.running = Some((slot, now));
            // From now on this slot is the past, also should its line not get into the repository.
            track.last = Some(Last { slot, finished: now, number: order.number, may_be_retried: false });
            track.is_looked_at = false;
        }
        let (job, clock, output) = (Arc::clone(job), self.clock, self.output.clone());
        let (places, task_key) = (Arc::clone(&self.places), key.clone());
        // A thread of its own: the future of a backup borrows in ways that keep it from moving between threads.
        let runtime = tokio::runtime::Handle::current();
        let task = self.runs.spawn_blocking(move || {
            runtime.block_on(async move {
                let _place = places.acquire_owned().await;
                let ended = run::run(&job, order, clock, &output).await;
                (task_key, ended)
            })
        });
        self.names.insert(task.id(), key);
    }

    fn skip(&self, job: &Job, work: Work, rhythm: &Rhythm, running: DateTime<Utc>, slot: DateTime<Utc>) {
        let now = self.clock.now();
        let problem =
            format!("skipped: the run of {} is still going or waiting", local_time(running, job.zone));
        self.output.warn(&format!(
            "{} {}: the {work} of {} was {problem}",
            stamp(now),
            job.name,
            local_time(slot, job.zone)
        ));
        let attempt = Attempt {
            database: job.database.clone(),
            work,
            slot,
            cron: rhythm.schedule.to_string(),
            started: now,
            finished: now,
            seconds: 0.0,
            outcome: AttemptOutcome::Skipped,
            snapshot: None,
            problem: Some(problem),
            hint: None,
            number: 1,
            may_be_retried: false,
            missed: 0,
            deleted: 0,
            warnings: Vec::new(),
        };
        let recorded = Repository::open_or_create(&job.repo)
            .and_then(|repository| repository.record_attempt(&job.name, &attempt));
        if let Err(error) = recorded {
            self.output.warn(&format!("{}: the attempt is not in the log: {error}", job.name));
        }
    }

    fn take_in(&mut self, ended: Result<(tokio::task::Id, (Key, Ended)), tokio::task::JoinError>) {
        let now = self.clock.now();
        let (key, ended) = match ended {
            Ok((id, (key, ended))) => {
                self.names.remove(&id);
                (key, Some(ended))
            }
            Err(error) => {
                let Some(key) = self.names.remove(&error.id()) else { return };
                self.output
                    .warn(&format!("{}: the {} broke off by a fault of this program: {error}", key.0, key.1));
                (key, None)
            }
        };
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let running = track.running.take();
        track.is_looked_at = false;
        match ended {
            // A slot that was skipped meanwhile is later.
            Some(Ended::Attempted(attempt, _)) if track.last.is_none_or(|last| last.slot <= attempt.slot) => {
                track.last = Some(last_of(&attempt));
            }
            Some(Ended::BusyElsewhere) => {
                // Looked at again in a while: the other one may die before it is done.
                if let (Some((slot, _)), Some(last)) = (running, track.last)
                    && last.slot == slot
                {
                    track.last = Some(Last { slot: slot - chrono::Duration::seconds(1), ..last });
                }
                track.not_before = Some(now + ELSEWHERE);
                let slot = running.map(|(slot, _)| slot);
                if track.elsewhere != slot {
                    track.elsewhere = slot;
                    let pause = ELSEWHERE.num_seconds();
                    self.output.say(&format!(
                        "{} {}: another scheduler is at it; looking again every {pause} s",
                        stamp(now),
                        key.0
                    ));
                }
            }
            Some(Ended::DoneElsewhere) => {
                self.output.say(&format!("{} {}: another scheduler has done it", stamp(now), key.0));
            }
            Some(Ended::Attempted(..)) | None => {}
        }
        let is_known = self.jobs.iter().any(|job| job.name == key.0);
        if !is_known {
            self.tracks.remove(&key);
        }
    }

    /// Waits for every run to clean up after a signal.
    async fn clean_up(&mut self, notifier: &Notifier) {
        let deadline = Instant::now() + CLEAN_UP;
        while !self.runs.is_empty() && Instant::now() < deadline {
            notifier.tell("WATCHDOG=1");
            tokio::select! {
                _ = self.runs.join_next() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Makes what only this process knows visible to whoever asks.
    fn publish(&self) {
        let live = self.jobs.iter().map(|job| {
            let works = works(job).map(|(work, rhythm)| {
                let track = self.tracks.get(&(job.name.clone(), work));
                LiveWork {
                    work,
                    cron: rhythm.schedule.to_string(),
                    next: track.and_then(|track| track.next),
                    running_since: track.and_then(|track| track.running).map(|(_, since)| since),
                }
            });
            Live {
                name: job.name.clone(),
                database: job.database.clone(),
                repo: job.repo.clone(),
                zone: job.zone,
                works: works.collect(),
                prunes: job.policy.has_rules(),
            }
        });
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = live.collect();
    }

    fn summary(&self) -> String {
        let running = self.tracks.values().filter(|track| track.running.is_some()).count();
        let next = self.tracks.values().filter_map(|track| track.next).min();
        let next = next.map_or("no next run".to_owned(), |at| format!("next run at {}", stamp(at)));
        if running > 0 { format!("{running} running, {next}") } else { next }
    }
}

/// The metrics as a file, replaced in one step.
struct MetricsFile {
    path: Option<PathBuf>,
    cache: Arc<Cache>,
    written: Option<Instant>,
    is_due: bool,
    has_failed: bool,
}

impl MetricsFile {
    fn new(path: Option<PathBuf>) -> Self {
        Self { path, cache: Arc::default(), written: None, is_due: true, has_failed: false }
    }

    async fn write_if_due(&mut self, daemon: &Daemon<'_>) {
        let Some(path) = self.path.clone() else { return };
        if !self.is_due && self.written.is_some_and(|at| at.elapsed() < METRICS_PAUSE) {
            return;
        }
        self.is_due = false;
        self.written = Some(Instant::now());
        let live = daemon.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = daemon.clock.now();
        let cache = Arc::clone(&self.cache);
        let written = tokio::task::spawn_blocking(move || write_metrics(&path, live, now, &cache)).await;
        match written.unwrap_or_else(|error| Err(Error::failed(error.to_string()))) {
            Ok(()) => self.has_failed = false,
            // Once, and not every minute.
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                daemon.output.warn(&format!("the metrics can't be written: {error}"));
            }
            Err(_) => {}
        }
    }
}

/// Writes the metrics into a file that node_exporter, another user, can read.
pub fn write_metrics(path: &Path, live: Vec<Live>, now: DateTime<Utc>, cache: &Cache) -> Result<()> {
    replace_file(path, metrics::render(&status::gather(live, now, cache)).as_bytes(), 0o644)
}

/// The kinds of work that a job has a schedule for.
pub fn works(job: &Job) -> impl Iterator<Item = (Work, &Rhythm)> {
    let backup = job.backup.as_ref().map(|rhythm| (Work::Backup, rhythm));
    backup.into_iter().chain(job.drill.as_ref().map(|rhythm| (Work::Drill, rhythm)))
}

/// The last attempt at a slot of this very schedule.
pub fn read_last(job: &Job, work: Work, rhythm: &Rhythm) -> Option<Last> {
    let attempts = Repository::open(&job.repo).and_then(|repository| repository.attempts(&job.name)).ok()?;
    let cron = rhythm.schedule.to_string();
    attempts.iter().rfind(|attempt| attempt.work == work && attempt.cron == cron).map(last_of)
}

fn last_of(attempt: &Attempt) -> Last {
    Last {
        slot: attempt.slot,
        finished: attempt.finished,
        number: attempt.number,
        may_be_retried: attempt.may_be_retried && attempt.outcome == AttemptOutcome::Failed,
    }
}

fn earliest(a: Option<DateTime<Utc>>, b: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
