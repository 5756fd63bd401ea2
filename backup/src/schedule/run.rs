//! One run of one job, and its line in the repository.
//!
//! The order is the safety argument: lock → is the slot still ours? → the command before → snapshot → verification → alarm →
//! pruning, which only a verified snapshot without an open alarm reaches → the line in the repository → who is told. A
//! process that dies anywhere in between has written no line for the slot, and the next one does it again.

use std::time::Instant;

use chrono::{DateTime, Utc};
use common::{
    Cause, Error, ErrorKind, Event, Progress, Result,
    cli::Output,
    format, interrupt,
    postgres::{ConnectionSettings, Session},
    repository::{
        Repository, StoredSnapshot,
        alarms::Alarm,
        attempts::{Attempt, AttemptOutcome, Work},
        verifications::How,
        verify::{self, Depth},
    },
    snapshot::SnapshotId,
};

use super::{
    alarm::{self, Shape},
    clock::Clock,
    hooks::{Happened, Notice},
    job::Job,
    plan::gives_up,
};
use crate::{
    drill::{self, Rehearsal},
    half_done, manage, prune,
};

/// Key of the advisory lock that keeps two schedulers on one database apart: "backup_s" in ASCII.
const ADVISORY_KEY: i64 = 0x6261_636b_7570_5f73;

/// How often, and how far apart, it is tried: one second in all. The server takes a moment to end the session of a scheduler
/// that was killed.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Backup or drill.
    pub work: Work,
    /// For this slot; `None` for a run that nobody scheduled.
    pub slot: Option<DateTime<Utc>>,
    /// Which attempt at it.
    pub number: u32,
    /// Slots that passed unused before it.
    pub missed: u64,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// With this line, which is in the repository unless it could not be written, and with the error of a failure.
    Attempted(Box<Attempt>, Option<Error>),
    /// Another scheduler has done it.
    DoneElsewhere,
    /// Another scheduler is at it.
    BusyElsewhere,
}

/// What a run that succeeded made.
#[derive(Default)]
struct Made {
    snapshot: Option<SnapshotId>,
    /// What is said of it.
    summary: String,
    /// Findings of open alarms.
    alarm: Vec<String>,
    deleted: u64,
    warnings: Vec<String>,
}

/// Runs a job.
pub async fn run(job: &Job, order: Order, clock: Clock, output: &Output) -> Ended {
    let (started, begun) = (clock.now(), Instant::now());
    let slot = order.slot.unwrap_or(started);
    let repository = match Repository::open_or_create(&job.repo) {
        Ok(repository) => repository,
        Err(error) => {
            let result = Err(error);
            return end(
                job,
                order,
                None,
                Times { slot, started, finished: clock.now(), begun },
                result,
                output,
            )
            .await;
        }
    };
    let _lock = match repository.lock_named(&format!("schedule-{}-{}", job.name, order.work)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::Busy => return Ended::BusyElsewhere,
        Err(error) => {
            let times = Times { slot, started, finished: clock.now(), begun };
            return end(job, order, Some(&repository), times, Err(error), output).await;
        }
    };
    if order.slot.is_some() && is_done(&repository, job, order) {
        return Ended::DoneElsewhere;
    }
    let result = attempt(job, order, slot, &repository, output).await;
    if result.as_ref().is_err_and(|error| error.is_caused_by(Cause::AnotherScheduler)) {
        return Ended::BusyElsewhere;
    }
    let times = Times { slot, started, finished: clock.now(), begun };
    end(job, order, Some(&repository), times, result, output).await
}

/// Whether another process has a line for this slot that makes ours needless.
fn is_done(repository: &Repository, job: &Job, order: Order) -> bool {
    let Some(slot) = order.slot else { return false };
    let attempts = repository.attempts(&job.name).unwrap_or_default();
    attempts.iter().any(|attempt| {
        attempt.work == order.work
            && attempt.slot == slot
            && (attempt.outcome == AttemptOutcome::Ok || attempt.number >= order.number)
    })
}

async fn attempt(
    job: &Job,
    order: Order,
    slot: DateTime<Utc>,
    repository: &Repository,
    output: &Output,
) -> Result<Made> {
    match order.work {
        Work::Backup => {
            let connection = job.connection().await?;
            let held = hold(&connection, &job.database).await?;
            let start = notice(job, order.work, slot, Happened::Start);
            job.hooks.before(&start, output).await?;
            let (made, problems) =
                tokio::join!(backup(job, &connection, repository, output), job.hooks.tell(&start, output));
            for problem in problems {
                output.warn(&format!("{}: {problem}", job.name));
            }
            // Whatever became of it, the lock is not needed any more; it ends with the session in any case.
            let _ = held.query_one("SELECT pg_catalog.pg_advisory_unlock($1)", &[&ADVISORY_KEY]).await;
            let _ = held.close().await;
            made
        }
        Work::Drill => {
            let start = notice(job, order.work, slot, Happened::Start);
            job.hooks.before(&start, output).await?;
            rehearse(job, repository, output).await
        }
    }
}

/// An idle session that holds the advisory lock of the database.
async fn hold(connection: &ConnectionSettings, database: &str) -> Result<Session> {
    let session = connection.connect().await?;
    for _ in 0..LOCK_ATTEMPTS {
        let row = session
            .query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&ADVISORY_KEY])
            .await
            .map_err(|source| Error::postgres("could not take the scheduler's lock", source))?;
        if row.get(0) {
            return Ok(session);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let busy = format!("another scheduler backs up \"{}\"", common::ident::printable(database));
    Err(Error::busy(busy).with_cause(Cause::AnotherScheduler))
}

async fn backup(
    job: &Job,
    connection: &ConnectionSettings,
    repository: &Repository,
    output: &Output,
) -> Result<Made> {
    let progress = warnings_only(&job.name, output);
    let mut options = job.create.clone();
    half_done::mark(repository, connection.database(), false, &mut options)?;
    for note in &options.notes {
        progress.warn(note.clone());
    }
    let snapshot = crate::create(connection, repository, &options, &progress).await?;
    let manifest = &snapshot.manifest;
    let mut made = Made {
        snapshot: Some(manifest.id.clone()),
        summary: format!(
            "{}, {}, {} stored as {} in {}",
            format::plural(manifest.tables.len() as u64, "table", "tables"),
            format::plural(manifest.rows(), "row", "rows"),
            format::bytes(manifest.raw_bytes()),
            format::bytes(manifest.stored_bytes()),
            format::duration(manifest.took())
        ),
        ..Made::default()
    };
    common::fault::wait("schedule.before-verification");
    verify_snapshot(&snapshot, repository, job.verify, output).await?;
    made.alarm = look_for_alarm(job, &snapshot, repository)?;
    if !made.alarm.is_empty() {
        made.warnings.push("pruning is held".to_owned());
    } else if job.policy.has_rules() {
        let database = &manifest.database.name;
        match prune::prune_database(repository, database, &job.policy, job.grace, Utc::now()) {
            Ok(pruned) => {
                made.deleted = pruned.deleted.len() as u64;
                made.warnings.extend(pruned.left.into_iter().map(|left| format!("not removed yet: {left}")));
            }
            // The snapshot is good all the same; the next run prunes.
            Err(error) => made.warnings.push(format!("nothing was pruned: {error}")),
        }
    }
    Ok(made)
}

/// Reads the snapshot back, and records what was found.
async fn verify_snapshot(
    snapshot: &StoredSnapshot,
    repository: &Repository,
    depth: Depth,
    output: &Output,
) -> Result<()> {
    let begun = Instant::now();
    let (to_verify, jobs) = (snapshot.clone(), crate::default_jobs());
    let reading = repository.lock_reading()?;
    let verifying = tokio::task::spawn_blocking(move || verify::verify(to_verify, depth, jobs, &|_| {}));
    let verified = tokio::select! {
        verified = verifying => verified.map_err(|error| Error::failed(format!("the verification broke off: {error}")))?,
        // The thread goes on reading until the process ends, which is soon.
        signal = interrupted() => return Err(interrupt::error(signal)),
    };
    let is_damaged = verified.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged);
    if verified.is_ok() || is_damaged {
        let seconds = begun.elapsed().as_secs_f64();
        manage::record(repository, &snapshot.manifest.id, How::Hash, seconds, verified.is_ok(), output);
    }
    // Held until the line is written: who shortens the log has the repository alone.
    drop(reading);
    verified.map(drop)
}

/// Waits until a signal came in.
pub async fn interrupted() -> interrupt::Signal {
    loop {
        if let Some(signal) = interrupt::received() {
            return signal;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Compares with the predecessor, raises the alarm if there is reason to, and says what open alarms of the database found.
fn look_for_alarm(job: &Job, snapshot: &StoredSnapshot, repository: &Repository) -> Result<Vec<String>> {
    let current = &snapshot.manifest;
    let listed: Vec<StoredSnapshot> =
        repository.list()?.into_iter().filter_map(|entry| entry.snapshot.ok()).collect();
    if let Some(previous) = alarm::predecessor(listed.iter(), current) {
        let findings =
            alarm::findings(&Shape::from(&previous.manifest), &Shape::from(current), &job.thresholds);
        if !findings.is_empty() {
            repository.write_alarm(&Alarm {
                id: current.id.clone(),
                database: Some(current.database.name.clone()),
                predecessor: Some(previous.manifest.id.clone()),
                at: Some(current.taken_at),
                findings,
                acknowledged: None,
            })?;
        }
    }
    let open = repository.alarms()?.into_iter().filter(|alarm| alarm.holds(&current.database.name));
    Ok(open.map(|alarm| format!("{}: {}", alarm.id, alarm.findings.join("; "))).collect())
}

async fn rehearse(job: &Job, repository: &Repository, output: &Output) -> Result<Made> {
    let connection = job.drill_connection().await?;
    // From before the choice to the end: nobody may delete it meanwhile.
    let _reading = repository.lock_reading()?;
    let snapshot = repository.find("latest", Some(&job.database))?;
    let rehearsal = Rehearsal { jobs: job.jobs, no_owner: job.drill_no_owner, quiet: true, verbose: false };
    let drill::Rehearsed { seconds, account, .. } =
        drill::rehearse(&connection, repository, &snapshot, &rehearsal, output).await?;
    let time = |seconds| format::duration(std::time::Duration::from_secs_f64(seconds));
    let mut made = Made {
        snapshot: Some(snapshot.manifest.id.clone()),
        summary: format!("restored, compared and equal{} in {}", account.but(), time(seconds)),
        warnings: account.lines(),
        ..Made::default()
    };
    let attempts = repository.attempts(&job.name)?;
    let earlier = attempts.iter().filter(|attempt| {
        attempt.work == Work::Drill
            && attempt.outcome == AttemptOutcome::Ok
            && attempt.database == job.database
    });
    if let Some(usual) = usual(&earlier.map(|attempt| attempt.seconds).collect::<Vec<_>>()) {
        made.summary.push_str(&format!(" (usually {})", time(usual)));
        if seconds > SLOWER * usual && seconds - usual > SLOWER_SECONDS {
            made.warnings.push(format!("the restore took {} instead of {}", time(seconds), time(usual)));
        }
    }
    Ok(made)
}

/// Drills that the usual time is taken from, and how much slower one is worth a word.
const RECENT_DRILLS: usize = 9;
const SLOWER: f64 = 2.0;
const SLOWER_SECONDS: f64 = 60.0;

/// The median of the last few, when there are at least three.
fn usual(seconds: &[f64]) -> Option<f64> {
    let mut recent = seconds[seconds.len().saturating_sub(RECENT_DRILLS)..].to_vec();
    recent.sort_by(f64::total_cmp);
    (recent.len() >= 3).then(|| recent[recent.len() / 2])
}

fn warnings_only(job: &str, output: &Output) -> Progress {
    let (job, output) = (job.to_owned(), output.clone());
    Progress::new(move |event| {
        if let Event::Warning(text) = event {
            output.warn(&format!("{job}: {text}"));
        }
    })
}

fn notice(job: &Job, work: Work, slot: DateTime<Utc>, event: Happened) -> Notice {
    Notice {
        schema: common::cli::output::JSON_SCHEMA,
        event,
        work: work.to_string(),
        job: job.name.clone(),
        database: job.database.clone(),
        repository: job.repo.display().to_string(),
        slot,
        snapshot: None,
        seconds: None,
        problem: None,
        hint: None,
        deleted: 0,
        warnings: Vec::new(),
    }
}

struct Times {
    slot: DateTime<Utc>,
    started: DateTime<Utc>,
    finished: DateTime<Utc>,
    begun: Instant,
}

/// Writes the line, says how it went, and tells whoever wants to know.
async fn end(
    job: &Job,
    order: Order,
    repository: Option<&Repository>,
    times: Times,
    result: Result<Made>,
    output: &Output,
) -> Ended {
    let (made, error) = match result {
        Ok(made) => (made, None),
        Err(error) => (Made::default(), Some(interrupt::explain(error))),
    };
    let rhythm = match order.work {
        Work::Backup => job.backup.as_ref(),
        Work::Drill => job.drill.as_ref(),
    };
    let may_be_retried = error.as_ref().is_some_and(|error| match error.kind() {
        ErrorKind::Failed | ErrorKind::Busy => true,
        // Another snapshot may be whole; another restore of a damaged one is not.
        ErrorKind::Damaged => order.work == Work::Backup,
        _ => false,
    });
    let scheduled = rhythm.filter(|_| order.slot.is_some());
    let attempt = Attempt {
        database: job.database.clone(),
        work: order.work,
        slot: times.slot,
        // A run that nobody scheduled is no slot of any schedule.
        cron: scheduled.map_or_else(String::new, |rhythm| rhythm.schedule.to_string()),
        started: times.started,
        finished: times.finished,
        seconds: times.begun.elapsed().as_secs_f64(),
        outcome: if error.is_none() { AttemptOutcome::Ok } else { AttemptOutcome::Failed },
        snapshot: made.snapshot.clone(),
        problem: error.as_ref().map(|error| error.message().to_owned()),
        hint: error.as_ref().and_then(|error| error.hint().map(str::to_owned)),
        number: order.number,
        may_be_retried,
        missed: order.missed,
        deleted: made.deleted,
        warnings: made.warnings.clone(),
    };
    // A run that a signal ended leaves its slot to the next process.
    if interrupt::received().is_none()
        && let Some(repository) = repository
        && let Err(error) = repository.record_attempt(&job.name, &attempt)
    {
        output.warn(&format!("{}: the attempt is not in the log: {error}", job.name));
    }
    say(job, order, &attempt, &made, error.as_ref(), output);
    let gives_up = scheduled.is_none_or(|rhythm| gives_up(rhythm, order.number, may_be_retried));
    if interrupt::received().is_none() && (error.is_none() || gives_up) {
        let event = match (&error, made.alarm.is_empty()) {
            (Some(_), _) => Happened::Failure,
            (None, false) => Happened::Alarm,
            (None, true) => Happened::Success,
        };
        let told = Notice {
            snapshot: attempt.snapshot.as_ref().map(ToString::to_string),
            seconds: Some(attempt.seconds),
            problem: attempt
                .problem
                .clone()
                .or_else(|| (!made.alarm.is_empty()).then(|| made.alarm.join("; "))),
            hint: attempt.hint.clone().or_else(|| (!made.alarm.is_empty()).then(|| ALARM_HINT.to_owned())),
            deleted: made.deleted,
            warnings: made.warnings.clone(),
            ..notice(job, order.work, times.slot, event)
        };
        for problem in job.hooks.tell(&told, output).await {
            output.warn(&format!("{}: {problem}", job.name));
        }
    }
    let error = error.or_else(|| {
        (!made.alarm.is_empty()).then(|| {
            Error::new(ErrorKind::Stopped, format!("alarm: {}", made.alarm.join("; ")))
                .with_hint(ALARM_HINT)
                .with_database_state("The snapshot was made and verified; nothing was pruned.")
        })
    });
    Ended::Attempted(Box::new(attempt), error)
}

/// What to do about an alarm.
pub const ALARM_HINT: &str =
    "Look at the database and at `backup diff`; if all is well: backup acknowledge ID --why TEXT.";

fn say(job: &Job, order: Order, attempt: &Attempt, made: &Made, error: Option<&Error>, output: &Output) {
    let mut text = format!("{} {}: {}", stamp(attempt.finished), job.name, order.work);
    match (error, &attempt.snapshot) {
        (Some(_), _) if interrupt::received().is_some() => {
            text.push_str(" stopped; the next start catches it up");
        }
        (Some(error), _) => text.push_str(&format!(" FAILED: {error}")),
        (None, Some(id)) => text.push_str(&format!(" ok: {id}, {}", made.summary)),
        (None, None) => text.push_str(" ok"),
    }
    if attempt.deleted > 0 {
        text.push_str(&format!("; {} pruned", attempt.deleted));
    }
    if attempt.missed > 0 {
        let missed = format::plural(attempt.missed, "run was", "runs were");
        text.push_str(&format!("; {missed} missed before it"));
    }
    for warning in &attempt.warnings {
        text.push_str(&format!("; {warning}"));
    }
    if let (Some(hint), None) = (&attempt.hint, interrupt::received()) {
        text.push_str(&format!("\nhint: {hint}"));
    }
    for finding in &made.alarm {
        text.push_str(&format!("\nALARM {finding}\nhint: {ALARM_HINT}"));
    }
    let value = serde_json::json!({
        "event": "attempt", "schema": common::cli::output::JSON_SCHEMA, "job": job.name, "attempt": attempt, "alarm": made.alarm,
    });
    output.event(&text, &value);
}

/// A time as the log shows it.
pub fn stamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}
