//! Settings become jobs: the command line over `[[job]]` over `[schedule.defaults]`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono_tz::Tz;
use common::{
    Error, Result,
    cli::{
        Config, Output, Settings, SharedArgs,
        args::{parse_duration, parse_tag},
        config::{CommandFlags, parse_percentage},
        jobs::JobFile,
    },
    ident::printable,
    postgres::{ConnectionSettings, Environment, exported_snapshot::LockWait},
    repository::{attempts::is_job_name, verify::Depth},
    snapshot::{keep::KeepPolicy, manifest::Kind},
};

use super::{
    alarm::Thresholds,
    cron::Schedule,
    hooks::{Hooks, SecretSource, check_command},
    plan::{Rhythm, jitter},
};
use crate::{CreateOptions, zone::parse_zone};

/// How long deleted snapshots lie in the trash, unless somebody says otherwise.
const TRASH_GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long a command may take, unless somebody says otherwise.
const HOOK_LIMIT: Duration = Duration::from_secs(300);
/// Further attempts after a failure.
const RETRIES: u32 = 3;

/// Where the connection of a job comes from; resolved anew for each run, because passwords change.
#[derive(Debug, Clone)]
struct Connection {
    shared: SharedArgs,
    config: Config,
    path: PathBuf,
    environment: Environment,
    url: Option<SecretSource>,
    drill_url: Option<SecretSource>,
    /// Where goes what the commands that print secrets say beside them.
    output: Output,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub name: String,
    connection: Connection,
    /// The database, as it is named in the connection.
    pub database: String,
    /// The repository.
    pub repo: PathBuf,
    /// How snapshots are made.
    pub create: CreateOptions,
    /// When to back up.
    pub backup: Option<Rhythm>,
    /// When to drill.
    pub drill: Option<Rhythm>,
    /// How snapshots are verified.
    pub verify: Depth,
    /// What to keep; without rules nothing is pruned.
    pub policy: KeepPolicy,
    /// How long deleted snapshots lie in the trash.
    pub grace: Duration,
    /// When to raise the alarm.
    pub thresholds: Thresholds,
    /// Whether drills leave owners and grants out.
    pub drill_no_owner: bool,
    /// Connections that load in a drill.
    pub jobs: Option<usize>,
    /// Who is told.
    pub hooks: Hooks,
    /// The time zone, for people.
    pub zone: Tz,
}

impl Job {
    /// The connection, with its secret read anew.
    pub async fn connection(&self) -> Result<ConnectionSettings> {
        let settings = self.connection.settings(self.connection.url.as_ref()).await?;
        Ok(settings.connection()?.with_application_name("backup schedule"))
    }

    /// The server of drills.
    pub async fn drill_connection(&self) -> Result<ConnectionSettings> {
        let source = self.connection.drill_url.as_ref().or(self.connection.url.as_ref());
        self.connection.settings(source).await?.connection()
    }
}

impl Connection {
    async fn settings(&self, url: Option<&SecretSource>) -> Result<Settings> {
        let mut shared = self.shared.clone();
        if let Some(source) = url {
            shared.database_url = Some(source.read(&self.output).await?.expose().to_owned());
        }
        self.resolve(&shared, CommandFlags::default())
    }

    fn resolve(&self, shared: &SharedArgs, flags: CommandFlags) -> Result<Settings> {
        Settings::resolve(shared, flags, &self.config, &self.path, self.environment.clone())
    }
}

/// Makes the jobs. `flags` is what the command line says about jobs.
///
/// # Errors
/// Usage, naming the job and the setting.
pub async fn resolve(
    shared: &SharedArgs,
    flags: &JobFile,
    config: &Config,
    path: &Path,
    environment: &Environment,
    output: &Output,
) -> Result<Vec<Job>> {
    let mut config = config.clone();
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    config.schedule.relative_to(&folder);
    let mut files = std::mem::take(&mut config.job);
    if (flags.cron.is_some() || flags.drill.is_some()) && !files.is_empty() {
        return Err(Error::usage(format!("--cron is given, and {} has jobs of its own", path.display()))
            .with_hint("Leave --cron out to run the jobs of the file, or name another file with --config."));
    }
    let is_from_file = !files.is_empty();
    if !is_from_file {
        // One job, of the flags and the defaults.
        files.push(JobFile::default());
    }
    let mut jobs: Vec<Job> = Vec::new();
    for (index, mut file) in files.into_iter().enumerate() {
        file.relative_to(&folder);
        let label = file.name.clone().unwrap_or_else(|| format!("number {}", index + 1));
        let has_own_database = file.database_url.is_some()
            || file.database_url_file.is_some()
            || file.database_url_command.is_some();
        let merged = flags.clone().or(&file).or(&config.schedule.defaults);
        let job = resolve_one(shared, merged, has_own_database, &config, path, environment, output)
            .await
            .map_err(|error| {
                if is_from_file { error.context(format!("job {}", printable(&label))) } else { error }
            })?;
        if jobs.iter().any(|other| other.name == job.name) {
            return Err(Error::usage(format!("two jobs are named {}", job.name))
                .with_hint("Give each [[job]] a name of its own."));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

async fn resolve_one(
    shared: &SharedArgs,
    file: JobFile,
    has_own_database: bool,
    config: &Config,
    path: &Path,
    environment: &Environment,
    output: &Output,
) -> Result<Job> {
    let mut shared = shared.clone();
    if has_own_database {
        if shared.database_url.is_some() {
            return Err(Error::usage("--database-url is given, and the job names a database of its own")
                .with_hint("Leave one of them out."));
        }
        shared.database_url = file.database_url;
    }
    shared.repo = shared.repo.or(file.repo);
    let drill_url = SecretSource::choose("drill-server", file.drill_server_file, None)?;
    let url = SecretSource::choose("database-url", file.database_url_file, file.database_url_command)?;
    if has_own_database && url.is_some() && shared.database_url.is_some() {
        return Err(Error::usage("database-url is set twice")
            .with_hint("Keep one of database-url, -file and -command."));
    }
    let connection = Connection {
        shared,
        config: config.clone(),
        path: path.to_owned(),
        environment: environment.clone(),
        url,
        drill_url,
        output: output.clone(),
    };
    let settings = connection.settings(connection.url.as_ref()).await?;
    let database = settings.connection()?.database().to_owned();
    let flags = CommandFlags { jobs: file.jobs, compress: file.compress, ..CommandFlags::default() };
    let settings = connection.resolve(&connection.shared, flags)?;
    let name = match file.name {
        Some(name) if is_job_name(&name) => name,
        Some(name) => {
            return Err(Error::usage(format!("\"{}\" can't be a job's name", printable(&name)))
                .with_hint("Use letters, digits, dots, dashes and underscores, at most 64."));
        }
        None => database
            .chars()
            .take(64)
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
            .collect(),
    };
    let zone = match file.timezone.as_deref().or(environment.get("CRON_TZ")) {
        Some(name) => parse_zone(name)?,
        None => Tz::UTC,
    };
    let time =
        |text: Option<String>, default: Duration| text.map_or(Ok(default), |text| parse_duration(&text));
    let most = chrono::Duration::from_std(time(file.jitter, Duration::ZERO)?)
        .ok()
        .filter(|most| *most <= chrono::Duration::days(7))
        .ok_or_else(|| Error::usage("the jitter is longer than a week"))?;
    let delay = jitter(&name, most);
    let rhythm = |text: Option<String>| -> Result<Option<Rhythm>> {
        let Some(text) = text else { return Ok(None) };
        let schedule = Schedule::parse(&text, zone)?;
        let (catch_up, retries) = (file.catch_up.unwrap_or(true), file.retries.unwrap_or(RETRIES));
        Ok(Some(Rhythm { schedule, delay, catch_up, retries }))
    };
    let tags = file.keep_tag.unwrap_or_default().iter().map(|tag| parse_tag(tag)).collect::<Result<_>>()?;
    let mut policy = KeepPolicy {
        last: file.keep_last.unwrap_or(0),
        hourly: file.keep_hourly.unwrap_or(0),
        daily: file.keep_daily.unwrap_or(0),
        weekly: file.keep_weekly.unwrap_or(0),
        monthly: file.keep_monthly.unwrap_or(0),
        yearly: file.keep_yearly.unwrap_or(0),
        within: file.keep_within.map(|text| parse_duration(&text)).transpose()?,
        tags,
        min: file.keep_min.unwrap_or(3),
        include_pre_migration: file.include_pre_migration.unwrap_or(false),
        zone: None,
    };
    let usual = Thresholds::default();
    let share = |text: Option<String>, default: f64| text.map_or(Ok(default), |text| parse_percentage(&text));
    let thresholds = Thresholds {
        rows: share(file.alarm_rows, usual.rows)?,
        size: share(file.alarm_size, usual.size)?,
        min_rows: file.alarm_min_rows.unwrap_or(usual.min_rows),
        ignore: file.alarm_ignore.unwrap_or_default(),
    };
    for (name, argv) in [("before", &file.before), ("after", &file.after), ("on-error", &file.on_error)] {
        if let Some(argv) = argv {
            check_command(name, argv)?;
        }
    }
    let hooks = Hooks {
        before: file.before,
        after: file.after,
        on_error: file.on_error,
        limit: time(file.hook_timeout, HOOK_LIMIT)?,
        ping: SecretSource::choose("ping-url", file.ping_url_file, file.ping_url_command)?,
        webhook: SecretSource::choose("webhook-url", file.webhook_url_file, file.webhook_url_command)?,
    };
    let (backup, drill) = (rhythm(file.cron)?, rhythm(file.drill)?);
    // An expression may have a zone of its own.
    let zone = backup.as_ref().or(drill.as_ref()).map_or(zone, |rhythm| rhythm.schedule.zone());
    // A night's backup belongs to the day that it is for people there.
    policy.zone = Some(zone);
    Ok(Job {
        database,
        repo: std::path::absolute(&settings.repo).unwrap_or_else(|_| settings.repo.clone()),
        create: CreateOptions {
            kind: Kind::Scheduled,
            tags: file.tags.unwrap_or_default(),
            jobs: settings.jobs.unwrap_or_else(crate::default_jobs),
            codec: settings.codec,
            lock_wait: LockWait { timeout: settings.lock_timeout, retries: settings.lock_retries },
            ..CreateOptions::default()
        },
        backup,
        drill,
        verify: match file.verify.as_deref() {
            None | Some("content") => Depth::Content,
            Some("hashes") => Depth::Hashes,
            Some(other) => {
                return Err(Error::usage(format!("\"{}\" is not a way to verify", printable(other)))
                    .with_hint("Use content (every row is decoded and hashed) or hashes (every byte as it is stored)."));
            }
        },
        policy,
        grace: time(file.trash_grace, TRASH_GRACE)?,
        thresholds,
        drill_no_owner: file.drill_no_owner.unwrap_or(false),
        jobs: settings.jobs,
        hooks,
        zone,
        name,
        connection,
    })
}
