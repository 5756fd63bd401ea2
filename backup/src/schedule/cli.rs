//! `backup schedule`: its flags, `--next`, `--once`, and the scheduler itself.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use common::{
    Error, ErrorKind, Result,
    cli::{Config, Output, SharedArgs, args::parse_tag, jobs::JobFile},
    format, interrupt,
    postgres::Environment,
    repository::attempts::Work,
};
use serde::Serialize;

use super::{
    clock::Clock,
    cron::local_time,
    daemon::{self, Options, Shared, works},
    job::{self, Job},
    notify::Notifier,
    plan::{self, Next},
    run::{self, Ended, Order},
    serve,
    status::{Cache, Live, LiveWork},
};

/// Arguments of `backup schedule`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    backup schedule --cron \"0 3 * * *\" --timezone Europe/Berlin --keep-daily 7 --keep-weekly 5 --drill \"0 5 * * 0\"\n  \
    backup schedule --cron @daily --listen 127.0.0.1:9187      with a status page and metrics\n  \
    backup schedule                                            the jobs of safe-run.toml\n  \
    backup schedule --next 10                                  only say when\n  \
    backup schedule --once                                     every job now, then end: for cron and timers\n\n\
    SIGHUP reads safe-run.toml again; SIGTERM ends it after a run in progress has cleaned up.")]
pub struct ScheduleArgs {
    /// When to back up: five fields as in a crontab, or @daily and its like; CRON_TZ=Zone may stand in front
    #[arg(long, value_name = "EXPR")]
    cron: Option<String>,
    /// When to restore the latest snapshot into a scratch database, compare every row and drop it
    #[arg(long, value_name = "EXPR")]
    drill: Option<String>,
    /// Time zone of the expressions, such as Europe/Berlin [default: CRON_TZ, else UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Begin up to this much later, by an amount that depends on the job's name only [default: 0s]
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// Leave out runs that were missed [default: catch up once]
    #[arg(long)]
    no_catch_up: bool,
    /// Further attempts after a failed run, after 1, 5 and 15 minutes [default: 3]
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Jobs that may run at the same time [default: 1]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Print the next N runs of every job, and end
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", conflicts_with = "once")]
    next: Option<usize>,
    /// Run every job once, now, with verification, alarm and pruning, and end
    #[arg(long)]
    once: bool,
    /// Only this job; may be repeated
    #[arg(long = "job", value_name = "NAME")]
    only: Vec<String>,

    /// Connections that copy [default: one per processor, at most 8]
    #[arg(short, long, help_heading = "Snapshots")]
    jobs: Option<usize>,
    /// Compression: zstd[:1-19], gzip[:1-9] or none [default: zstd:1]
    #[arg(long, help_heading = "Snapshots")]
    compress: Option<String>,
    /// Attach a tag; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag, help_heading = "Snapshots")]
    tags: Vec<(String, String)>,
    /// How each snapshot is verified: content (every row decoded and hashed) or hashes (every byte) [default: content]
    #[arg(long, value_name = "HOW", help_heading = "Snapshots")]
    verify: Option<String>,

    #[command(flatten)]
    keep: crate::prune::KeepArgs,
    /// How long deleted snapshots lie in the trash: `backup undelete` takes them back [default: 1d]
    #[arg(long, value_name = "TIME", help_heading = "Retention")]
    trash_grace: Option<String>,

    /// Raise the alarm when a table loses more than this share of its rows [default: 50%]
    #[arg(long, value_name = "SHARE", help_heading = "Alarm")]
    alarm_rows: Option<String>,
    /// Raise the alarm when the data shrinks by more than this share [default: 50%]
    #[arg(long, value_name = "SHARE", help_heading = "Alarm")]
    alarm_size: Option<String>,
    /// Tables with fewer rows than this may lose any of them [default: 100]
    #[arg(long, value_name = "N", help_heading = "Alarm")]
    alarm_min_rows: Option<u64>,
    /// Leave tables out, such as 'queue_*' or 'log.*'; may be repeated
    #[arg(long, value_name = "PATTERN", help_heading = "Alarm")]
    alarm_ignore: Vec<String>,

    /// File that holds the URL of the server for drills [default: the server of the database]
    #[arg(long, value_name = "FILE", help_heading = "Drills")]
    drill_server_file: Option<PathBuf>,
    /// Objects belong to the connected role; leave grants out
    #[arg(long, help_heading = "Drills")]
    drill_no_owner: bool,

    /// Serve /, /metrics, /health and /health/db here, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDRESS", help_heading = "Seen from outside")]
    listen: Option<String>,
    /// File with the token that requests must show; needed for an address that others can reach
    #[arg(long, value_name = "FILE", help_heading = "Seen from outside")]
    token_file: Option<PathBuf>,
    /// Write the metrics into this file, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE", help_heading = "Seen from outside")]
    metrics_file: Option<PathBuf>,
    /// File with the URL to tell of start, success and failure (healthchecks.io and its like)
    #[arg(long, value_name = "FILE", help_heading = "Seen from outside")]
    ping_url_file: Option<PathBuf>,
    /// File with the URL that gets a JSON document after each run
    #[arg(long, value_name = "FILE", help_heading = "Seen from outside")]
    webhook_url_file: Option<PathBuf>,
}

impl ScheduleArgs {
    /// What the flags say about jobs.
    fn job_flags(&self) -> JobFile {
        let keep = self.keep.policy();
        let some = |number: u32| Some(number).filter(|number| *number > 0);
        let list = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
        let tags: BTreeMap<String, String> = self.tags.iter().cloned().collect();
        JobFile {
            cron: self.cron.clone(),
            drill: self.drill.clone(),
            timezone: self.timezone.clone(),
            jitter: self.jitter.clone(),
            catch_up: self.no_catch_up.then_some(false),
            retries: self.retries,
            jobs: self.jobs,
            compress: self.compress.clone(),
            tags: Some(tags).filter(|tags| !tags.is_empty()),
            verify: self.verify.clone(),
            keep_last: some(keep.last),
            keep_hourly: some(keep.hourly),
            keep_daily: some(keep.daily),
            keep_weekly: some(keep.weekly),
            keep_monthly: some(keep.monthly),
            keep_yearly: some(keep.yearly),
            keep_within: keep.within.map(|within| format!("{}s", within.as_secs())),
            keep_tag: list(
                &keep.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            ),
            keep_min: Some(keep.min).filter(|min| *min != crate::prune::KEEP_MIN),
            include_pre_migration: keep.include_pre_migration.then_some(true),
            trash_grace: self.trash_grace.clone(),
            alarm_rows: self.alarm_rows.clone(),
            alarm_size: self.alarm_size.clone(),
            alarm_min_rows: self.alarm_min_rows,
            alarm_ignore: list(&self.alarm_ignore),
            drill_server_file: self.drill_server_file.clone(),
            drill_no_owner: self.drill_no_owner.then_some(true),
            ping_url_file: self.ping_url_file.clone(),
            webhook_url_file: self.webhook_url_file.clone(),
            ..JobFile::default()
        }
    }

    async fn load(&self, shared: &SharedArgs, output: &Output) -> Result<(Vec<Job>, Config)> {
        let (config, path) = Config::load(shared)?;
        let environment = Environment::from_process();
        let mut jobs = job::resolve(shared, &self.job_flags(), &config, &path, &environment, output).await?;
        for name in &self.only {
            if jobs.iter().all(|job| job.name != *name) {
                let known: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
                return Err(Error::usage(format!("no job is named \"{}\"", common::ident::printable(name)))
                    .with_hint(format!("There are: {}.", known.join(", "))));
            }
        }
        if !self.only.is_empty() {
            jobs.retain(|job| self.only.contains(&job.name));
        }
        let mut config = config;
        config.schedule.relative_to(path.parent().unwrap_or(std::path::Path::new("")));
        Ok((jobs, config))
    }
}

/// Runs `backup schedule`.
pub async fn run(args: &ScheduleArgs, shared: &SharedArgs, output: &Output) -> Result<u8> {
    let (jobs, config) = args.load(shared, output).await?;
    let clock = Clock::of_process();
    let metrics_file = args.metrics_file.clone().or_else(|| config.schedule.metrics_file.clone());
    if args.once {
        let code = once(&jobs, clock, output).await;
        if let Some(path) = &metrics_file {
            daemon::write_metrics(path, live(&jobs, clock.now()), clock.now(), &Cache::default())?;
        }
        return code;
    }
    if let Some(idle) = jobs.iter().find(|job| works(job).next().is_none()) {
        return Err(Error::usage(format!("nothing says when the job {} shall run", idle.name)).with_hint(
            "Give --cron \"0 3 * * *\", or cron = \"0 3 * * *\" in safe-run.toml, or --once for a run now.",
        ));
    }
    if let Some(count) = args.next {
        return next(&jobs, count, clock.now(), output);
    }
    let token_file = args.token_file.clone().or_else(|| config.schedule.token_file.clone());
    let token = token_file.as_deref().map(serve::read_token).transpose()?;
    let notifier = Notifier::from_environment()?;
    let state: Shared = Arc::new(Mutex::new(Vec::new()));
    let current: Arc<Mutex<Vec<Arc<Job>>>> =
        Arc::new(Mutex::new(jobs.iter().cloned().map(Arc::new).collect()));
    let server = match args.listen.as_ref().or(config.schedule.listen.as_ref()) {
        Some(address) => {
            let server = serve::bind(address, token.as_ref()).await?;
            output.say(&format!("status page and metrics: http://{}/", server.address()));
            let served = Arc::clone(&current);
            let jobs = move || served.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Some(tokio::spawn(serve::run(server, token, Arc::clone(&state), jobs, clock)))
        }
        None => None,
    };
    let parallel = args.parallel.or(config.schedule.parallel).unwrap_or(1);
    let options = Options { parallel, metrics_file };
    let reload = async || {
        let (jobs, _) = args.load(shared, output).await?;
        if let Some(idle) = jobs.iter().find(|job| works(job).next().is_none()) {
            return Err(Error::usage(format!("nothing says when the job {} shall run", idle.name)));
        }
        *current.lock().unwrap_or_else(PoisonError::into_inner) =
            jobs.iter().cloned().map(Arc::new).collect();
        Ok(jobs)
    };
    let ended = daemon::run(jobs, &options, state, clock, &notifier, output, reload).await;
    if let Some(server) = server {
        server.abort();
    }
    ended
}

/// Every job now, one after the other. The exit code is that of the first failure.
async fn once(jobs: &[Job], clock: Clock, output: &Output) -> Result<u8> {
    let mut first: Option<Error> = None;
    for job in jobs {
        if let Some(signal) = interrupt::received() {
            return Err(interrupt::error(signal));
        }
        let order = Order { work: Work::Backup, slot: None, number: 1, missed: 0 };
        let error = match run::run(job, order, clock, output).await {
            Ended::Attempted(attempt, error) => {
                if let (Some(id), false) = (&attempt.snapshot, output.is_json()) {
                    output.data(&format!("{id}\n"))?;
                }
                error
            }
            Ended::BusyElsewhere => {
                let database = common::ident::printable(&job.database);
                Some(
                    Error::new(ErrorKind::Busy, format!("another scheduler backs up \"{database}\""))
                        .with_hint("Nothing is wrong if it does so now; `backup list` shows its snapshot when it is done."),
                )
            }
            Ended::DoneElsewhere => None,
        };
        // Each was said when it happened; the first one also ends the process.
        if let (None, Some(error)) = (&first, error) {
            first = Some(error.context(&job.name));
        }
    }
    first.map_or(Ok(0), Err)
}

fn live(jobs: &[Job], now: DateTime<Utc>) -> Vec<Live> {
    let live = jobs.iter().map(|job| Live {
        name: job.name.clone(),
        database: job.database.clone(),
        repo: job.repo.clone(),
        zone: job.zone,
        works: works(job)
            .map(|(work, rhythm)| LiveWork {
                work,
                cron: rhythm.schedule.to_string(),
                next: rhythm.schedule.next_after(now - rhythm.delay).map(|slot| slot + rhythm.delay),
                running_since: None,
            })
            .collect(),
        prunes: job.policy.has_rules(),
    });
    live.collect()
}

#[derive(Serialize)]
struct Run {
    at: DateTime<Utc>,
    local: String,
    job: String,
    database: String,
    work: Work,
    is_catch_up: bool,
}

#[derive(Serialize)]
struct Runs {
    runs: Vec<Run>,
}

/// Prints the coming runs of all jobs in order.
fn next(jobs: &[Job], count: usize, now: DateTime<Utc>, output: &Output) -> Result<u8> {
    let mut runs = Vec::new();
    for job in jobs {
        for (work, rhythm) in works(job) {
            let mut add = |at, is_catch_up| {
                runs.push(Run {
                    at,
                    local: local_time(at, rhythm.schedule.zone()),
                    job: job.name.clone(),
                    database: job.database.clone(),
                    work,
                    is_catch_up,
                });
            };
            let last = daemon::read_last(job, work, rhythm);
            let due = matches!(plan::next(rhythm, last, now, now), Next::Now { number: 1, .. });
            if due {
                add(now, true);
            }
            let mut slot = now - rhythm.delay;
            for _ in 0..count {
                let Some(found) = rhythm.schedule.next_after(slot) else { break };
                slot = found;
                add(slot + rhythm.delay, false);
            }
        }
    }
    runs.sort_by(|a, b| (a.at, &a.job).cmp(&(b.at, &b.job)));
    runs.truncate(count);
    if output.is_json() {
        output.document(&Runs { runs })?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let wait = Duration::from_secs((run.at - now).to_std().unwrap_or_default().as_secs());
            vec![
                run.local.clone(),
                run.at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
                if run.is_catch_up { "now, was missed".to_owned() } else { format::duration(wait) },
                run.job.clone(),
                run.work.to_string(),
            ]
        })
        .collect();
    output.data(&format::table(
        &["LOCAL", "UTC", "IN", "JOB", "WHAT"],
        &[false, false, true, false, false],
        &rows,
    ))?;
    Ok(0)
}
