//! The status page. Pure: what there is to see comes in, HTML comes out. No script and nothing from elsewhere; every name is
//! escaped.

use std::{fmt::Write, time::Duration};

use chrono::{DateTime, Utc};
use common::{
    format,
    html::text as escape,
    ident::printable,
    repository::{
        attempts::{AttemptOutcome, Work},
        verifications::Proof,
    },
};

use super::{
    cron::local_time,
    plot::{Point, plot},
    status::{JobStatus, Snap, Status},
};

/// Rows of the tables, and points of the plots.
const SNAPSHOTS: usize = 30;
const ATTEMPTS: usize = 12;
const POINTS: usize = 400;

/// How the page judges a job, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Failing,
    Alarm,
    NoSnapshot,
    Good,
}

fn verdict(job: &JobStatus) -> Verdict {
    let failed = |work| job.last_attempt(work).is_some_and(|last| last.outcome == AttemptOutcome::Failed);
    if job.problem.is_some() && !job.attempts.is_empty() || failed(Work::Backup) || failed(Work::Drill) {
        Verdict::Failing
    } else if job.is_held() {
        Verdict::Alarm
    } else if job.last_success().is_none() {
        Verdict::NoSnapshot
    } else {
        Verdict::Good
    }
}

/// Renders the page.
pub fn render(status: &Status) -> String {
    let bad = status.jobs.iter().filter(|job| verdict(job) != Verdict::Good).count();
    let title = match bad {
        0 => "Backups: all well".to_owned(),
        bad => format!("Backups: {bad} of {} need a look", status.jobs.len()),
    };
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"60\"><style>{}</style></head><body><main><h1>{title}</h1>\
         <div class=\"dim small\">as of {} UTC</div>\n",
        include_str!("page.css"),
        status.at.format("%Y-%m-%d %H:%M:%S"),
    );
    for job in &status.jobs {
        html.push_str(&section(job, status.at));
    }
    let _ = writeln!(
        html,
        "<footer class=\"dim small\">backup {} · <a href=\"/metrics\">metrics</a> · <a href=\"/health/db\">connections</a>\
         </footer></main></body></html>",
        env!("CARGO_PKG_VERSION")
    );
    html
}

fn section(job: &JobStatus, now: DateTime<Utc>) -> String {
    let (class, word) = match verdict(job) {
        Verdict::Good => ("good", "● good"),
        Verdict::Alarm => ("warn", "▲ alarm: pruning is held"),
        Verdict::NoSnapshot => ("warn", "▲ no verified snapshot yet"),
        Verdict::Failing => ("bad", "■ failing"),
    };
    let database = &job.live.database;
    let mut html = format!(
        "<section><div class=\"head\"><h2>{}</h2>{}<span class=\"badge {class}\">{word}</span></div>\n",
        escape(&job.live.name),
        if *database == job.live.name {
            String::new()
        } else {
            format!("<span class=\"dim\">database {}</span>", escape(&printable(database)))
        },
    );
    html.push_str(&facts(job, now));
    html.push_str(&notes(job));
    html.push_str(&plots(job));
    html.push_str(&snapshots(job, now));
    html.push_str(&attempts(job));
    html.push_str("</section>\n");
    html
}

fn facts(job: &JobStatus, now: DateTime<Utc>) -> String {
    let mut html = "<dl>".to_owned();
    let mut fact = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = write!(html, "<div><dt>{}</dt><dd>{value}</dd></div>", escape(name));
    };
    fact(
        "Last good snapshot",
        match job.last_success() {
            Some(snap) => format!("{} ago", age(snap.taken_at, now)),
            None => "<span class=\"warn\">none</span>".to_owned(),
        },
    );
    for live in &job.live.works {
        let name = if live.work == Work::Backup { "Next backup" } else { "Next drill" };
        let when = match (live.running_since, live.next) {
            (Some(since), _) => format!("running since {}", local_time(since, job.live.zone)),
            (None, Some(next)) => local_time(next, job.live.zone),
            (None, None) => "due".to_owned(),
        };
        fact(name, format!("{}<br><code class=\"dim\">{}</code>", escape(&when), escape(&live.cron)));
    }
    fact(
        "Last drill",
        match job.last_drill() {
            Some(line) => format!("{} ago, restored in {}", age(line.at, now), seconds(line.seconds)),
            None => "<span class=\"warn\">never</span>".to_owned(),
        },
    );
    if let Some(snap) = job.newest() {
        fact(
            "Newest holds",
            format!(
                "{}, {}",
                format::plural(snap.tables, "table", "tables"),
                format::plural(snap.rows, "row", "rows")
            ),
        );
    }
    let stored = job.snapshots.iter().fold(0u64, |sum, snap| sum.saturating_add(snap.stored_bytes));
    let free = job.free_bytes.map_or(String::new(), |free| format!(", {} free", format::bytes(free)));
    fact(
        "Kept",
        format!(
            "{}, {}{free}",
            format::plural(job.snapshots.len() as u64, "snapshot", "snapshots"),
            format::bytes(stored)
        ),
    );
    fact("Repository", format!("<code>{}</code>", escape(&job.live.repo.display().to_string())));
    html.push_str("</dl>");
    html
}

fn notes(job: &JobStatus) -> String {
    let mut html = String::new();
    if let Some(problem) = &job.problem {
        let _ = write!(html, "<div class=\"note\">{}</div>", escape(problem));
    }
    for alarm in &job.alarms {
        let findings: Vec<String> = alarm.findings.iter().map(|finding| escape(finding)).collect();
        let compared = alarm.predecessor.as_ref().map_or(String::new(), |before| {
            format!("<br>Compare: <code>backup diff {before} {}</code>", alarm.id)
        });
        let _ = write!(
            html,
            "<div class=\"note\"><b>{}</b>: {}{compared}<br>If all is well: <code>backup acknowledge {} --why TEXT</code></div>",
            alarm.id,
            findings.join("; "),
            alarm.id
        );
    }
    for work in [Work::Backup, Work::Drill] {
        if let Some(last) = job.last_attempt(work).filter(|last| last.outcome == AttemptOutcome::Failed) {
            let problem = last.problem.as_deref().unwrap_or("");
            let hint = last.hint.as_deref().map_or(String::new(), |hint| format!("<br>{}", escape(hint)));
            let _ = write!(
                html,
                "<div class=\"note\"><b>The last {work} failed</b>: {}{hint}</div>",
                escape(problem)
            );
        }
    }
    if job.damaged > 0 {
        let damaged = format::plural(job.damaged, "snapshot has", "snapshots have");
        let _ = write!(
            html,
            "<div class=\"note\">{damaged} a manifest that can't be read: run <code>backup verify --all</code></div>"
        );
    }
    html
}

fn plots(job: &JobStatus) -> String {
    let whole: Vec<&Snap> = job.snapshots.iter().filter(|snap| !snap.is_partial).collect();
    let recent = &whole[whole.len().saturating_sub(POINTS)..];
    let points = |value: fn(&Snap) -> f64, show: fn(f64) -> String| -> Vec<Point> {
        let point = |snap: &&Snap| Point {
            at: snap.taken_at,
            value: value(snap),
            label: format!("{}: {}", snap.taken_at.format("%Y-%m-%d %H:%M"), show(value(snap))),
            is_bad: snap.standing.is_bad(),
        };
        recent.iter().map(point).collect()
    };
    let restores: Vec<Point> = job
        .restores
        .iter()
        .map(|line| Point {
            at: line.at,
            value: line.seconds,
            label: format!(
                "{}: {}{}",
                line.at.format("%Y-%m-%d %H:%M"),
                seconds(line.seconds),
                if line.ok { "" } else { ", FAILED" }
            ),
            is_bad: !line.ok,
        })
        .collect();
    let all = [
        plot("Size of the data", &points(|snap| real(snap.raw_bytes), size), size),
        plot("Stored", &points(|snap| real(snap.stored_bytes), size), size),
        plot("Time to back up", &points(|snap| snap.seconds, seconds), seconds),
        plot("Time to restore", &restores, seconds),
    ]
    .concat();
    if all.is_empty() { all } else { format!("<div class=\"plots\">{all}</div>") }
}

fn snapshots(job: &JobStatus, now: DateTime<Utc>) -> String {
    if job.snapshots.is_empty() {
        return String::new();
    }
    let mut html = "<h3>Snapshots</h3><div class=\"scroll\"><table><tr><th>Taken<th class=\"n\">Age<th>Verified\
                    <th class=\"n\">Rows<th class=\"n\">Size<th class=\"n\">Stored<th class=\"n\">Took<th>Kind<th>Id</tr>\n"
        .to_owned();
    for snap in job.snapshots.iter().rev().take(SNAPSHOTS) {
        let verified = match snap.standing.proof() {
            Proof::Never => "<span class=\"warn\">never</span>".to_owned(),
            Proof::Good(line) => {
                format!("<span class=\"good\">{}</span> {} ago", line.how, age(line.at, now))
            }
            Proof::Failed(_) => "<span class=\"bad\">FAILED</span>".to_owned(),
        };
        let _ = writeln!(
            html,
            "<tr><td>{}<td class=\"n\">{}<td>{verified}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}\
             <td class=\"n\">{}<td>{}{}<td><code>{}</code></tr>",
            snap.taken_at.format("%Y-%m-%d %H:%M"),
            age(snap.taken_at, now),
            format::count(snap.rows),
            format::bytes(snap.raw_bytes),
            format::bytes(snap.stored_bytes),
            seconds(snap.seconds),
            snap.kind,
            match (snap.is_partial, snap.is_pinned) {
                (true, true) => ", partial, pinned",
                (true, false) => ", partial",
                (false, true) => ", pinned",
                (false, false) => "",
            },
            snap.id
        );
    }
    html.push_str("</table></div>");
    if job.snapshots.len() > SNAPSHOTS {
        let more = job.snapshots.len() - SNAPSHOTS;
        let _ = write!(html, "<div class=\"dim small\">and {more} older: <code>backup list</code></div>");
    }
    html
}

fn attempts(job: &JobStatus) -> String {
    if job.attempts.is_empty() {
        return String::new();
    }
    let mut html =
        "<h3>Last runs</h3><div class=\"scroll\"><table><tr><th>For<th>What<th>Result<th class=\"n\">Took<th></tr>\n"
            .to_owned();
    for attempt in job.attempts.iter().rev().take(ATTEMPTS) {
        let (class, word) = match attempt.outcome {
            AttemptOutcome::Ok => ("good", "ok"),
            AttemptOutcome::Failed => ("bad", "failed"),
            AttemptOutcome::Skipped => ("warn", "skipped"),
        };
        let mut remarks: Vec<String> = attempt.problem.iter().map(|problem| escape(problem)).collect();
        if attempt.number > 1 {
            remarks.push(format!("attempt {}", attempt.number));
        }
        if attempt.missed > 0 {
            remarks.push(format!("{} missed before it", attempt.missed));
        }
        if attempt.deleted > 0 {
            remarks.push(format!("{} pruned", attempt.deleted));
        }
        remarks.extend(attempt.warnings.iter().map(|warning| escape(warning)));
        let took =
            if attempt.outcome == AttemptOutcome::Skipped { String::new() } else { seconds(attempt.seconds) };
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}<td class=\"{class}\">{word}<td class=\"n\">{took}<td class=\"wrap\">{}</tr>",
            escape(&local_time(attempt.slot, job.live.zone)),
            attempt.work,
            remarks.join("; ")
        );
    }
    html.push_str("</table></div>");
    html
}

fn age(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format::duration(Duration::from_secs((now - at).to_std().unwrap_or_default().as_secs()))
}

fn seconds(value: f64) -> String {
    format::duration(Duration::try_from_secs_f64(value).unwrap_or_default())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes for people")]
fn size(value: f64) -> String {
    format::bytes(value as u64)
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn real(value: u64) -> f64 {
    value as f64
}
