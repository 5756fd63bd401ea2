//! Who is told of a run: commands (argument lists, no shell), a URL in the manner of healthchecks.io, and a webhook.
//!
//! Nothing here decides whether a backup succeeded; only the command `before` can stop a run. Secrets come from files or
//! commands, and no message shows them.

use std::{path::PathBuf, process::Stdio, time::Duration};

use chrono::{DateTime, Utc};
use common::{
    Error, Result,
    cli::Output,
    http::{self, Method},
    interrupt::ChildGuard,
    postgres::Secret,
};
use serde::Serialize;
use tokio::process::Command;

use super::printed::Printed;

/// How long a ping or a webhook may take, and how often it is tried.
const SEND_LIMIT: Duration = Duration::from_secs(10);
const SEND_ATTEMPTS: u32 = 3;
const SEND_PAUSE: Duration = Duration::from_secs(2);

/// How long a command that prints a secret may take.
const SECRET_LIMIT: Duration = Duration::from_secs(60);

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a command prints.
    Command(Vec<String>),
}

impl SecretSource {
    /// Of a pair of settings, of which at most one may be given.
    pub fn choose(name: &str, file: Option<PathBuf>, command: Option<Vec<String>>) -> Result<Option<Self>> {
        match (file, command) {
            (Some(_), Some(_)) => Err(Error::usage(format!("both {name}-file and {name}-command are set"))
                .with_hint("Keep one of them.")),
            (Some(file), None) => Ok(Some(Self::File(file))),
            (None, Some(command)) => {
                check_command(&format!("{name}-command"), &command)?;
                Ok(Some(Self::Command(command)))
            }
            (None, None) => Ok(None),
        }
    }

    /// Reads it anew, so that a rotated secret is the one that holds. What its command prints on stderr comes into `output`.
    pub async fn read(&self, output: &Output) -> Result<Secret> {
        let (text, from) = match self {
            Self::File(path) => {
                let text =
                    common::input::read_text(path).map_err(|source| Error::io("read", path, source))?;
                (text, path.display().to_string())
            }
            Self::Command(argv) => {
                let mut command = command(argv);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let failed = |problem: String| Error::failed(format!("the command {}: {problem}", argv[0]));
                let mut child = command.spawn().map_err(|source| failed(source.to_string()))?;
                let _guard = child.id().and_then(ChildGuard::register_id);
                // Its standard output is the secret.
                let secret = child.stdout.take();
                let printed = Printed::of(&mut child, output);
                child.stdout = secret;
                let ended = tokio::time::timeout(SECRET_LIMIT, child.wait_with_output())
                    .await
                    .map_err(|_| failed(format!("no end within {} s", SECRET_LIMIT.as_secs())))?
                    .map_err(|source| failed(source.to_string()))?;
                printed.end().await;
                if !ended.status.success() {
                    return Err(failed(ended.status.to_string())
                        .with_hint("Run it by hand: its first line of output is used."));
                }
                (String::from_utf8_lossy(&ended.stdout).into_owned(), argv[0].clone())
            }
        };
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(Secret::new(line)),
            _ => Err(Error::usage(format!("the first line of {from} is empty"))
                .with_hint("Write the secret into its first line.")),
        }
    }
}

/// Refuses an empty argument list.
pub fn check_command(name: &str, argv: &[String]) -> Result<()> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::usage(format!("{name} names no program"))
            .with_hint("Write it as a list of words, such as [\"/usr/local/bin/notify\", \"backup\"]; no shell is involved."));
    }
    Ok(())
}

fn command(argv: &[String]) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).process_group(0).kill_on_drop(true);
    command
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Before a run; its failure stops the run.
    pub before: Option<Vec<String>>,
    /// After a success.
    pub after: Option<Vec<String>>,
    /// After a failure that is not tried again, and while an alarm is open.
    pub on_error: Option<Vec<String>>,
    /// How long a command may take.
    pub limit: Duration,
    /// The URL that is told of start, success and failure.
    pub ping: Option<SecretSource>,
    /// The URL that gets a document.
    pub webhook: Option<SecretSource>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// A run begins.
    Start,
    /// It succeeded.
    Success,
    /// It failed, and is not tried again before its next time.
    Failure,
    /// It succeeded, and an alarm is open.
    Alarm,
}

/// What is told. Names, counts and messages; never rows or secrets.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// Version of this document.
    pub schema: u32,
    /// What happened.
    pub event: Happened,
    /// `backup` or `drill`.
    pub work: String,
    /// The job.
    pub job: String,
    /// The database.
    pub database: String,
    /// The repository.
    pub repository: String,
    /// The slot of the schedule.
    pub slot: DateTime<Utc>,
    /// The snapshot that was made or restored.
    pub snapshot: Option<String>,
    /// How long the run took.
    pub seconds: Option<f64>,
    /// Why it failed, or what the alarm found.
    pub problem: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Snapshots that pruning deleted.
    pub deleted: u64,
    /// What else should be known.
    pub warnings: Vec<String>,
}

impl Notice {
    /// One line for a person.
    pub fn line(&self) -> String {
        let mut line = format!("{} of \"{}\"", self.work, common::ident::printable(&self.database));
        match self.event {
            Happened::Start => line.push_str(" begins"),
            Happened::Success => line.push_str(" succeeded"),
            Happened::Failure => line.push_str(" FAILED"),
            Happened::Alarm => line.push_str(" succeeded, ALARM"),
        }
        if let Some(id) = &self.snapshot {
            line.push_str(&format!(" ({id})"));
        }
        if let Some(problem) = &self.problem {
            line.push_str(&format!(": {problem}"));
        }
        line
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let event = match self.event {
            Happened::Start => "before",
            Happened::Success => "success",
            Happened::Failure => "failure",
            Happened::Alarm => "alarm",
        };
        vec![
            ("BACKUP_EVENT", event.to_owned()),
            ("BACKUP_WORK", self.work.clone()),
            ("BACKUP_JOB", self.job.clone()),
            ("BACKUP_DATABASE", self.database.clone()),
            ("BACKUP_REPO", self.repository.clone()),
            ("BACKUP_SNAPSHOT", self.snapshot.clone().unwrap_or_default()),
            ("BACKUP_SECONDS", self.seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default()),
            ("BACKUP_PROBLEM", self.problem.clone().unwrap_or_default()),
            ("BACKUP_HINT", self.hint.clone().unwrap_or_default()),
        ]
    }
}

impl Hooks {
    /// The command before a run.
    ///
    /// # Errors
    /// It could not be run, or failed: then the run must not begin.
    pub async fn before(&self, notice: &Notice, output: &Output) -> Result<()> {
        match &self.before {
            Some(argv) => run(argv, notice, self.limit, output)
                .await
                .map_err(|error| error.context("the command before the run")),
            None => Ok(()),
        }
    }

    /// Tells everybody; returns what could not be told.
    pub async fn tell(&self, notice: &Notice, output: &Output) -> Vec<Error> {
        let mut problems = Vec::new();
        let argv = match notice.event {
            Happened::Start => &None,
            Happened::Success => &self.after,
            Happened::Failure | Happened::Alarm => &self.on_error,
        };
        if let Some(argv) = argv
            && let Err(error) = run(argv, notice, self.limit, output).await
        {
            problems.push(error.context("the command after the run"));
        }
        // A drill that succeeded says nothing about last night's backup, which is what the URL stands for.
        let is_for_ping = notice.work == "backup" || notice.event == Happened::Failure;
        if let (Some(source), true) = (&self.ping, is_for_ping) {
            let pinged = async {
                let url = source.read(output).await?;
                let url = ping_url(&url, notice.event);
                let method = Method::Post { content_type: "text/plain; charset=utf-8", body: notice.line() };
                send(&url, method).await
            };
            problems.extend(pinged.await.err().map(|error| error.context("the ping")));
        }
        if let (Some(source), true) = (&self.webhook, notice.event != Happened::Start) {
            let told = async {
                let url = source.read(output).await?;
                let body = serde_json::to_string(notice)
                    .map_err(|source| Error::failed(format!("could not encode the document: {source}")))?;
                send(&url, Method::Post { content_type: "application/json", body }).await
            };
            problems.extend(told.await.err().map(|error| error.context("the webhook")));
        }
        problems
    }
}

/// `…/start`, the URL itself, `…/fail`, before the query if there is one.
fn ping_url(url: &Secret, event: Happened) -> Secret {
    let suffix = match event {
        Happened::Start => "/start",
        Happened::Success => return url.clone(),
        Happened::Failure | Happened::Alarm => "/fail",
    };
    let text = url.expose();
    let (path, query) = text.find('?').map_or((text, ""), |index| text.split_at(index));
    Secret::new(format!("{}{suffix}{query}", path.trim_end_matches('/')))
}

async fn send(url: &Secret, method: Method) -> Result<()> {
    let mut attempt = 1;
    loop {
        match http::send(url, method.clone(), SEND_LIMIT).await {
            Err(error) if attempt < SEND_ATTEMPTS && error.kind() == common::ErrorKind::Failed => {
                if common::interrupt::received().is_some() {
                    return Err(error);
                }
                tokio::time::sleep(SEND_PAUSE).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn run(argv: &[String], notice: &Notice, limit: Duration, output: &Output) -> Result<()> {
    let failed = |problem: String| {
        Error::failed(format!("{}: {problem}", argv[0])).with_hint(
            "Run it by hand with the variables BACKUP_*; what it prints is in the scheduler's log.",
        )
    };
    let mut command = command(argv);
    command.envs(notice.variables()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| failed(source.to_string()))?;
    let id = child.id();
    let _guard = id.and_then(ChildGuard::register_id);
    let printed = Printed::of(&mut child, output);
    let ended = match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string())),
        Ok(Err(source)) => Err(failed(source.to_string())),
        Err(_) => {
            // The group: a script's own children would live on.
            if let Some(id) = id {
                common::interrupt::kill_group(id);
            }
            let _ = child.wait().await;
            Err(failed(format!("ended after {} s", limit.as_secs())))
        }
    };
    printed.end().await;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_goes_where_healthchecks_expects_it() {
        for (url, start, fail) in [
            (
                "https://hc.example/ping/u",
                "https://hc.example/ping/u/start",
                "https://hc.example/ping/u/fail",
            ),
            ("https://hc.example/u/", "https://hc.example/u/start", "https://hc.example/u/fail"),
            (
                "https://hc.example/u?create=1",
                "https://hc.example/u/start?create=1",
                "https://hc.example/u/fail?create=1",
            ),
        ] {
            let url = Secret::new(url);
            assert_eq!(ping_url(&url, Happened::Start).expose(), start);
            assert_eq!(ping_url(&url, Happened::Success), url);
            assert_eq!(ping_url(&url, Happened::Failure).expose(), fail);
            assert_eq!(ping_url(&url, Happened::Alarm).expose(), fail);
        }
    }
}
