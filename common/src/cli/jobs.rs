//! The scheduler's part of `safe-run.toml`: `[schedule]`, `[schedule.defaults]` and `[[job]]`. Only the shape of the file; what
//! the values mean is decided by `backup`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// `[schedule]`: settings of the process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScheduleFile {
    /// Address of the status page and the metrics, such as `127.0.0.1:9187`.
    pub listen: Option<String>,
    /// File that holds the token which requests must show.
    pub token_file: Option<PathBuf>,
    /// File for node_exporter's textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// Jobs that may run at the same time.
    pub parallel: Option<usize>,
    /// What holds for every job that does not say otherwise.
    #[serde(default)]
    pub defaults: JobFile,
}

macro_rules! job_file {
    ($($(#[$meta:meta])* $field:ident: $type:ty,)+) => {
        /// `[[job]]`, and `[schedule.defaults]`.
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct JobFile {
            $($(#[$meta])* pub $field: Option<$type>,)+
        }

        impl JobFile {
            /// What this says, and where it says nothing, what `other` says.
            #[must_use]
            pub fn or(self, other: &Self) -> Self {
                Self { $($field: self.$field.or_else(|| other.$field.clone()),)+ }
            }
        }
    };
}

job_file! {
    /// Its name: a file name and a label.
    name: String,
    /// When to back up.
    cron: String,
    /// When to restore the latest snapshot into a scratch database.
    drill: String,
    /// Time zone of both.
    timezone: String,
    /// The most that a start is put off, by an amount that depends on the job's name only.
    jitter: String,
    /// Whether a missed run is caught up.
    catch_up: bool,
    /// Further attempts after a failure.
    retries: u32,
    /// The database.
    database_url: String,
    /// File that holds the database's URL.
    database_url_file: PathBuf,
    /// Command that prints the database's URL.
    database_url_command: Vec<String>,
    /// The repository, relative to the file.
    repo: PathBuf,
    /// Connections.
    jobs: usize,
    /// Compression.
    compress: String,
    /// Tags of every snapshot.
    tags: BTreeMap<String, String>,
    /// How snapshots are verified: `content` or `hashes`.
    verify: String,
    /// The newest N.
    keep_last: u32,
    /// Of the last N hours.
    keep_hourly: u32,
    /// Of the last N days.
    keep_daily: u32,
    /// Of the last N weeks.
    keep_weekly: u32,
    /// Of the last N months.
    keep_monthly: u32,
    /// Of the last N years.
    keep_yearly: u32,
    /// All of this age.
    keep_within: String,
    /// All with one of these tags, `key=value`.
    keep_tag: Vec<String>,
    /// The floor.
    keep_min: u32,
    /// Whether the rules decide on snapshots from before migrations.
    include_pre_migration: bool,
    /// How long deleted snapshots lie in the trash.
    trash_grace: String,
    /// Share of a table's rows whose loss raises the alarm.
    alarm_rows: String,
    /// Share of the whole size whose loss raises the alarm.
    alarm_size: String,
    /// Tables with fewer rows than this raise no alarm about their rows.
    alarm_min_rows: u64,
    /// Tables that raise no alarm: names with `*`, with or without a schema.
    alarm_ignore: Vec<String>,
    /// The server of drills.
    drill_server_file: PathBuf,
    /// Drills leave owners and grants out.
    drill_no_owner: bool,
    /// Command before a run; a failure of it stops the run.
    before: Vec<String>,
    /// Command after a run that succeeded.
    after: Vec<String>,
    /// Command after a run that failed.
    on_error: Vec<String>,
    /// How long a command may take.
    hook_timeout: String,
    /// File that holds the URL that is told of start, success and failure.
    ping_url_file: PathBuf,
    /// Command that prints it.
    ping_url_command: Vec<String>,
    /// File that holds the URL that gets a JSON document after each run.
    webhook_url_file: PathBuf,
    /// Command that prints it.
    webhook_url_command: Vec<String>,
}

impl JobFile {
    /// Makes the paths relative to the folder of the settings file.
    pub fn relative_to(&mut self, folder: &Path) {
        for path in [
            &mut self.repo,
            &mut self.database_url_file,
            &mut self.drill_server_file,
            &mut self.ping_url_file,
            &mut self.webhook_url_file,
        ]
        .into_iter()
        .flatten()
        {
            *path = folder.join(&*path);
        }
    }
}

impl ScheduleFile {
    /// Makes the paths relative to the folder of the settings file.
    pub fn relative_to(&mut self, folder: &Path) {
        for path in [&mut self.token_file, &mut self.metrics_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self.defaults.relative_to(folder);
    }
}
