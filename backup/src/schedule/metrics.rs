//! The metrics as text, in the format that Prometheus and node_exporter's textfile collector read. Pure.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use common::repository::attempts::{AttemptOutcome, Work};

use super::status::{JobStatus, Status};

struct Page(String);

impl Page {
    /// One metric: a value for each job that has one.
    fn gauge(&mut self, status: &Status, name: &str, help: &str, value: impl Fn(&JobStatus) -> Option<f64>) {
        self.labelled(status, name, help, |job| {
            value(job).map(|value| (String::new(), value)).into_iter().collect()
        });
    }

    /// Like `gauge`, with values for each kind of work that a job has.
    fn by_work(
        &mut self,
        status: &Status,
        name: &str,
        help: &str,
        value: impl Fn(&JobStatus, Work) -> Option<f64>,
    ) {
        self.labelled(status, name, help, |job| {
            let works = job.live.works.iter().map(|live| live.work);
            works
                .filter_map(|work| value(job, work).map(|value| (format!(",work=\"{work}\""), value)))
                .collect()
        });
    }

    fn labelled(
        &mut self,
        status: &Status,
        name: &str,
        help: &str,
        values: impl Fn(&JobStatus) -> Vec<(String, f64)>,
    ) {
        let name = format!("safe_run_backup_{name}");
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for job in &status.jobs {
            for (labels, value) in values(job) {
                let (job, database) = (escape(&job.live.name), escape(&job.live.database));
                let _ =
                    writeln!(self.0, "{name}{{job_name=\"{job}\",database=\"{database}\"{labels}}} {value}");
            }
        }
    }
}

/// Renders all of it.
pub fn render(status: &Status) -> String {
    let mut page = Page(String::new());
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        page.0,
        "# HELP safe_run_backup_build_info The version of the scheduler.\n# TYPE safe_run_backup_build_info gauge\n\
         safe_run_backup_build_info{{version=\"{version}\"}} 1"
    );
    let p = &mut page;
    p.gauge(status, "repository_up", "Whether the repository can be read.", |job| {
        Some(truth(job.problem.is_none()))
    });
    p.gauge(
        status,
        "last_success_timestamp_seconds",
        "When the newest snapshot that was verified was taken.",
        |job| job.last_success().map(|snap| seconds(snap.taken_at)),
    );
    p.by_work(status, "last_attempt_timestamp_seconds", "When the last attempt ended.", |job, work| {
        job.last_attempt(work).map(|attempt| seconds(attempt.finished))
    });
    p.by_work(status, "last_attempt_success", "Whether the last attempt succeeded.", |job, work| {
        job.last_attempt(work).map(|attempt| truth(attempt.outcome == AttemptOutcome::Ok))
    });
    p.by_work(status, "last_attempt_duration_seconds", "How long the last attempt took.", |job, work| {
        job.last_attempt(work).map(|attempt| attempt.seconds)
    });
    p.by_work(status, "consecutive_failures", "Attempts that failed since the last success.", |job, work| {
        Some(number(job.failures(work) as u64))
    });
    p.by_work(status, "next_run_timestamp_seconds", "When the next run begins.", |job, work| {
        job.live.works.iter().find(|live| live.work == work)?.next.map(seconds)
    });
    p.by_work(status, "running", "Whether a run is going on.", |job, work| {
        let live = job.live.works.iter().find(|live| live.work == work)?;
        Some(truth(live.running_since.is_some()))
    });
    p.gauge(status, "snapshots", "Snapshots of the database.", |job| {
        job.problem.is_none().then(|| number(job.snapshots.len() as u64))
    });
    p.gauge(status, "snapshots_verified", "Snapshots whose last verification succeeded.", |job| {
        let good = job.snapshots.iter().filter(|snap| snap.standing.is_good()).count();
        job.problem.is_none().then(|| number(good as u64))
    });
    p.gauge(
        status,
        "snapshots_damaged",
        "Snapshots whose last verification failed, and unreadable ones.",
        |job| {
            let bad = job.snapshots.iter().filter(|snap| snap.standing.is_bad()).count() as u64;
            job.problem.is_none().then(|| number(bad + job.damaged))
        },
    );
    p.gauge(status, "stored_bytes", "Size on disk of all snapshots of the database.", |job| {
        let all = job.snapshots.iter().fold(0u64, |sum, snap| sum.saturating_add(snap.stored_bytes));
        job.problem.is_none().then(|| number(all))
    });
    p.gauge(status, "free_bytes", "Room left where the repository lies.", |job| job.free_bytes.map(number));
    p.gauge(status, "latest_rows", "Rows of the newest snapshot.", |job| {
        job.newest().map(|snap| number(snap.rows))
    });
    p.gauge(status, "latest_tables", "Tables of the newest snapshot.", |job| {
        job.newest().map(|snap| number(snap.tables))
    });
    p.gauge(status, "latest_raw_bytes", "Size of the newest snapshot before compression.", |job| {
        job.newest().map(|snap| number(snap.raw_bytes))
    });
    p.gauge(status, "latest_stored_bytes", "Size on disk of the newest snapshot.", |job| {
        job.newest().map(|snap| number(snap.stored_bytes))
    });
    p.gauge(status, "latest_duration_seconds", "How long the newest snapshot took.", |job| {
        job.newest().map(|snap| snap.seconds)
    });
    p.gauge(
        status,
        "last_verified_timestamp_seconds",
        "When a snapshot was last read and found good.",
        |job| job.last_verified().map(seconds),
    );
    p.gauge(
        status,
        "last_drill_timestamp_seconds",
        "When a snapshot was last restored and found equal.",
        |job| job.last_drill().map(|line| seconds(line.at)),
    );
    p.gauge(status, "last_drill_duration_seconds", "How long that restore took.", |job| {
        job.last_drill().map(|line| line.seconds)
    });
    p.gauge(status, "alarms", "Open alarms: snapshots strangely unlike their predecessors.", |job| {
        Some(number(job.alarms.len() as u64))
    });
    p.gauge(status, "prune_held", "Whether an open alarm holds pruning.", |job| Some(truth(job.is_held())));
    page.0
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
