//! Which settings hold: flag > environment > file > default, decided in one function, each with its origin.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    args::{SharedArgs, parse_duration},
    jobs::{JobFile, ScheduleFile},
};
use crate::{
    Error, Result,
    postgres::{ConnectionSettings, Environment, others_may_read, refuse_other_engine},
    snapshot::Codec,
};

/// The settings file that is read when it is there.
pub const DEFAULT_FILE: &str = "safe-run.toml";
const DEFAULT_REPO: &str = "snapshots";
const DEFAULT_DIR: &str = "migrations";

/// `safe-run.toml`. Unknown keys are refused: a misspelt setting that is silently ignored is not a setting.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The database. Better kept in DATABASE_URL or a service file when it holds a password.
    pub database_url: Option<String>,
    /// The repository, relative to the file.
    pub repo: Option<PathBuf>,
    /// Whether a repository of somebody else is taken.
    pub trust_repo: Option<bool>,
    /// Connections.
    pub jobs: Option<usize>,
    /// Compression.
    pub compress: Option<String>,
    /// Folders of migrations, relative to the file.
    pub dir: Option<Vec<PathBuf>>,
    /// Whose layout the migrations follow.
    pub format: Option<String>,
    /// Tables that are not the history of the migrations, whatever stands in them.
    pub ignore_history: Option<Vec<String>>,
    /// How long one attempt waits for locks.
    pub lock_timeout: Option<String>,
    /// Attempts after the first.
    pub lock_retries: Option<u32>,
    /// Loss of rows by a DELETE that is accepted, such as `10%`.
    pub max_loss: Option<String>,
    /// Settings of `backup schedule`.
    #[serde(default)]
    pub schedule: ScheduleFile,
    /// Jobs of `backup schedule`.
    #[serde(default)]
    pub job: Vec<JobFile>,
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment(&'static str),
    /// The settings file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The settings that hold.
#[derive(Debug, Clone)]
pub struct Settings {
    database_url: Option<(String, Origin)>,
    environment: Environment,
    /// The repository.
    pub repo: PathBuf,
    /// What a person should know about where the settings come from, such as a password that others can read.
    pub warnings: Vec<String>,
    /// Whether it is taken whoever it belongs to; who opens it calls [`Settings::apply_trust`] before.
    pub trust_repo: bool,
    /// Folders of migrations.
    pub dirs: Vec<PathBuf>,
    /// Whose layout they follow, when somebody said so.
    pub format: Option<String>,
    /// Tables that are not the history of the migrations, whatever stands in them.
    pub ignore_history: Vec<String>,
    /// Connections, when somebody said how many.
    pub jobs: Option<usize>,
    /// Compression.
    pub codec: Codec,
    /// How long one attempt waits for locks.
    pub lock_timeout: Duration,
    /// Attempts after the first.
    pub lock_retries: u32,
    /// Loss of rows by a DELETE that is accepted, as a fraction.
    pub max_loss: f64,
    origins: BTreeMap<&'static str, Origin>,
}

/// What a command's own flags say; `None` where they say nothing.
#[derive(Debug, Clone, Default)]
pub struct CommandFlags {
    /// `--jobs`.
    pub jobs: Option<usize>,
    /// `--compress`.
    pub compress: Option<String>,
    /// `--dir`.
    pub dirs: Vec<PathBuf>,
    /// `--format`.
    pub format: Option<String>,
    /// `--ignore-history`.
    pub ignore_history: Vec<String>,
    /// `--lock-timeout`.
    pub lock_timeout: Option<Duration>,
    /// `--lock-retries`.
    pub lock_retries: Option<u32>,
    /// `--max-loss`.
    pub max_loss: Option<String>,
}

impl Config {
    /// Reads the settings file, if there is one. The path is where it is or would be.
    pub fn load(shared: &SharedArgs) -> Result<(Self, PathBuf)> {
        match &shared.config {
            Some(path) => Ok((read(path)?, path.clone())),
            None => match std::fs::exists(DEFAULT_FILE) {
                Ok(true) => Ok((read(Path::new(DEFAULT_FILE))?, PathBuf::from(DEFAULT_FILE))),
                _ => Ok((Self::default(), PathBuf::from(DEFAULT_FILE))),
            },
        }
    }
}

impl Settings {
    /// Reads the settings file, if there is one, and decides.
    pub fn load(shared: &SharedArgs, flags: CommandFlags, environment: Environment) -> Result<Self> {
        let (file, path) = Config::load(shared)?;
        Self::resolve(shared, flags, &file, &path, environment)
    }

    /// Decides on a settings file that was read before.
    pub fn resolve(
        shared: &SharedArgs,
        flags: CommandFlags,
        file: &Config,
        path: &Path,
        environment: Environment,
    ) -> Result<Self> {
        let mut origins = BTreeMap::new();
        let folder = path.parent().unwrap_or(Path::new(""));
        let from_file = || Origin::File(path.to_owned());
        let mut choose = |name: &'static str, flag: bool, variable: Option<&'static str>, file: bool| {
            let origin = match (flag, variable, file) {
                (true, ..) => Origin::Flag,
                (false, Some(variable), _) => Origin::Environment(variable),
                (false, None, true) => from_file(),
                _ => Origin::Default,
            };
            origins.insert(name, origin.clone());
            origin
        };
        let variable = environment.get("DATABASE_URL").filter(|value| !value.is_empty());
        let origin = choose(
            "database-url",
            shared.database_url.is_some(),
            variable.as_ref().map(|_| "DATABASE_URL"),
            file.database_url.is_some(),
        );
        let database_url = shared
            .database_url
            .clone()
            .or(variable.map(str::to_owned))
            .or_else(|| file.database_url.clone())
            .map(|value| (value, origin));
        // Also where nothing would be asked of it: whoever gives one expects that it is worked on.
        shared.database_url.as_deref().map_or(Ok(()), refuse_other_engine)?;

        let variable = environment.get("SAFE_RUN_REPO").filter(|value| !value.is_empty());
        choose(
            "repo",
            shared.repo.is_some(),
            variable.as_ref().map(|_| "SAFE_RUN_REPO"),
            file.repo.is_some(),
        );
        let repo = shared
            .repo
            .clone()
            .or(variable.map(PathBuf::from))
            .or_else(|| file.repo.as_ref().map(|repo| folder.join(repo)))
            .unwrap_or_else(|| PathBuf::from(DEFAULT_REPO));

        let variable = environment.get("SAFE_RUN_TRUST_REPO").filter(|value| !value.is_empty());
        choose(
            "trust-repo",
            shared.trust_repo,
            variable.as_ref().map(|_| "SAFE_RUN_TRUST_REPO"),
            file.trust_repo.is_some(),
        );
        let from_environment =
            variable.map(|value| parse_switch("SAFE_RUN_TRUST_REPO", value)).transpose()?;
        let trust_repo = shared.trust_repo || from_environment.or(file.trust_repo).unwrap_or(false);

        choose("dir", !flags.dirs.is_empty(), None, file.dir.is_some());
        let dirs = if flags.dirs.is_empty() {
            file.dir.as_ref().map_or_else(
                || vec![PathBuf::from(DEFAULT_DIR)],
                |dirs| dirs.iter().map(|dir| folder.join(dir)).collect(),
            )
        } else {
            flags.dirs
        };
        choose("format", flags.format.is_some(), None, file.format.is_some());
        let ignored = !flags.ignore_history.is_empty();
        choose("ignore-history", ignored, None, file.ignore_history.is_some());
        choose("jobs", flags.jobs.is_some(), None, file.jobs.is_some());
        choose("compress", flags.compress.is_some(), None, file.compress.is_some());
        choose("lock-timeout", flags.lock_timeout.is_some(), None, file.lock_timeout.is_some());
        choose("lock-retries", flags.lock_retries.is_some(), None, file.lock_retries.is_some());
        choose("max-loss", flags.max_loss.is_some(), None, file.max_loss.is_some());
        let compress = flags.compress.or_else(|| file.compress.clone());
        let file_timeout = file.lock_timeout.as_deref().map(parse_duration).transpose()?;
        let max_loss = flags.max_loss.or_else(|| file.max_loss.clone());
        let jobs = flags.jobs.or(file.jobs);
        if jobs == Some(0) {
            return Err(Error::usage("--jobs must be at least 1"));
        }
        Ok(Self {
            database_url,
            environment,
            repo,
            trust_repo,
            warnings: readable_by_others(file, path).into_iter().collect(),
            dirs,
            format: flags.format.or_else(|| file.format.clone()),
            ignore_history: if ignored {
                flags.ignore_history
            } else {
                file.ignore_history.clone().unwrap_or_default()
            },
            jobs,
            codec: compress.map_or(Ok(Codec::default()), |text| text.parse())?,
            // A DDL statement that waits blocks everybody behind it: 2 s is what a busy application survives.
            lock_timeout: flags.lock_timeout.or(file_timeout).unwrap_or(Duration::from_secs(2)),
            lock_retries: flags.lock_retries.or(file.lock_retries).unwrap_or(30),
            max_loss: max_loss.map_or(Ok(0.10), |text| parse_percentage(&text))?,
            origins,
        })
    }

    /// A variable of the environment, if it is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name)
    }

    /// Lets this process take any repository, if a person said so.
    pub fn apply_trust(&self) {
        if self.trust_repo {
            crate::repository::trust_any();
        }
    }

    /// The connection, with every default filled in.
    pub fn connection(&self) -> Result<ConnectionSettings> {
        ConnectionSettings::resolve(
            self.database_url.as_ref().map(|(value, _)| value.as_str()),
            &self.environment,
        )
    }

    /// Whether anything at all names a database; without it, `latest` is not narrowed down to one.
    pub fn names_database(&self) -> bool {
        self.database_url.is_some()
            || ["PGDATABASE", "PGSERVICE"].iter().any(|name| self.environment.get(name).is_some())
    }

    /// The settings as lines of `name = value  # origin`; the database without its password.
    pub fn show(&self) -> Result<String> {
        let origin = |name: &str| self.origins.get(name).map(ToString::to_string).unwrap_or_default();
        let dirs: Vec<String> =
            self.dirs.iter().map(|dir| format!("{:?}", dir.display().to_string())).collect();
        let ignored: Vec<String> = self.ignore_history.iter().map(|table| format!("{table:?}")).collect();
        let lines = [
            ("database-url", format!("{:?}", self.connection()?.redacted_url())),
            ("repo", format!("{:?}", self.repo.display().to_string())),
            ("trust-repo", self.trust_repo.to_string()),
            ("dir", format!("[{}]", dirs.join(", "))),
            ("format", format!("{:?}", self.format.as_deref().unwrap_or("auto"))),
            ("ignore-history", format!("[{}]", ignored.join(", "))),
            ("jobs", self.jobs.map_or("one per processor".to_owned(), |jobs| jobs.to_string())),
            ("compress", format!("\"{}\"", self.codec)),
            ("lock-timeout", format!("\"{}ms\"", self.lock_timeout.as_millis())),
            ("lock-retries", self.lock_retries.to_string()),
            ("max-loss", format!("\"{}%\"", self.max_loss * 100.0)),
        ];
        Ok(lines.iter().map(|(name, value)| format!("{name} = {value}  # {}\n", origin(name))).collect())
    }
}

/// A sentence about a settings file with a password that others can read.
fn readable_by_others(file: &Config, path: &Path) -> Option<String> {
    let of_jobs = file.job.iter().filter_map(|job| job.database_url.as_ref());
    let has_password = file.database_url.iter().chain(of_jobs).any(|url| holds_password(url));
    has_password.then(|| others_may_read("the settings file", path)).flatten()
}

/// Whether a URL or a key=value string has a password in it: then masking changes it.
fn holds_password(url: &str) -> bool {
    crate::masking::connection(url) != *url
}

fn read(path: &Path) -> Result<Config> {
    let text = crate::input::read_text(path).map_err(|source| {
        Error::usage(format!("could not read the settings file {}: {source}", path.display()))
    })?;
    toml::from_str(&text).map_err(|source| {
        // The parser's full text quotes the offending line, which may hold a password: only its message is shown.
        let line = source.span().map_or(String::new(), |span| {
            format!(" (line {})", text[..span.start].matches('\n').count() + 1)
        });
        Error::usage(format!("the settings file {}{line}: {}", path.display(), source.message()))
    })
}

/// Reads an environment variable that says yes or no.
fn parse_switch(name: &str, text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Error::usage(format!("{name} is neither 1 nor 0: \"{}\"", crate::ident::printable(text)))),
    }
}

/// Reads `10%` or `0.1` as a fraction between 0 and 1.
pub fn parse_percentage(text: &str) -> Result<f64> {
    let invalid = || Error::usage(format!("\"{text}\" is not a share")).with_hint("Write it as 10% or 0.1.");
    let (number, divisor) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|_| invalid())? / divisor;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(invalid()) }
}

/// One connection per processor of this machine, at most 8: more only take memory from the server.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 8)
}
