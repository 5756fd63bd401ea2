//! The flags of `safe-run`. The doc comments are the help texts. Parsing touches nothing.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use common::{Error, Result, cli::args::parse_duration};

use crate::run::{FenceChoice, OnFailure, SnapshotChoice, SnapshotWhen};
use checks::{CheckKind, FailOn, Level};
use sql::layout::Format;
use sql::migration::{TransactionChoice, lost_grants, lost_labels};
use sql::statement::TableName;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Migrations")]
pub struct MigrationArgs {
    /// Folder of migration files; may be repeated [default: ./migrations]
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// Whose layout and history it is [default: auto: by the history in the database, then by the files]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<FormatChoice>,
    /// This table is not the history of these files, whatever stands in it; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub ignore_history: Vec<String>,
    /// The history's table, where its tool was given another name for it than its own [default: as the tool's settings
    /// beside the folder say]
    #[arg(long, value_name = "TABLE")]
    pub history_table: Option<String>,
    /// All of this migration goes up: a comment in it that reads like the start of a way down is an ordinary one; may be
    /// repeated
    #[arg(long, value_name = "VERSION")]
    pub whole_file: Vec<String>,
    /// Apply only up to this version
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Apply this version although a newer one is applied already; may be repeated
    #[arg(long, value_name = "VERSION")]
    pub allow_out_of_order: Vec<String>,
    /// Which transactions the files run in: auto is one for all where that is possible, otherwise one per file; all
    /// refuses where it is not possible; file gives each file its own, and a later failure restores the snapshot
    /// [default: auto]
    #[arg(long, value_enum, value_name = "auto|all|file", hide_possible_values = true)]
    pub tx: Option<TransactionChoice>,
}

impl MigrationArgs {
    /// These, and what stood before the command's word where they say nothing.
    pub fn over(self, before: &Self) -> Self {
        Self {
            dir: if self.dir.is_empty() { before.dir.clone() } else { self.dir },
            format: self.format.or(before.format),
            to: self.to.or_else(|| before.to.clone()),
            allow_out_of_order: [self.allow_out_of_order, before.allow_out_of_order.clone()].concat(),
            tx: self.tx.or(before.tx),
            ignore_history: [self.ignore_history, before.ignore_history.clone()].concat(),
            whole_file: [self.whole_file, before.whole_file.clone()].concat(),
            history_table: self.history_table.or_else(|| before.history_table.clone()),
        }
    }
}

/// Where migrations are, without which of them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Migrations")]
pub struct FolderArgs {
    /// Folder of migration files; may be repeated [default: ./migrations]
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// Whose layout and history it is [default: auto: by the history in the database, then by the files]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<FormatChoice>,
    /// The history's table, where its tool was given another name for it than its own [default: as the tool's settings
    /// beside the folder say]
    #[arg(long, value_name = "TABLE")]
    pub history_table: Option<String>,
}

impl From<FolderArgs> for MigrationArgs {
    fn from(folder: FolderArgs) -> Self {
        Self {
            dir: folder.dir,
            format: folder.format,
            history_table: folder.history_table,
            ..Self::default()
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub migrations: MigrationArgs,
    /// Exit with 32 where there are warnings
    #[arg(long, help_heading = "Warnings")]
    pub deny_warnings: bool,
    /// How warnings are written; --json is the whole plan as a document
    #[arg(long, value_name = "AS", value_enum, default_value = "text", help_heading = "Warnings")]
    pub output: PlanOutput,
}

/// `plan --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PlanOutput {
    /// The plan, for a person
    Text,
    /// Only warnings, as annotations of GitHub Actions
    Github,
    /// Only warnings, as SARIF 2.1.0
    Sarif,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatChoice {
    /// By the history in the database, then by the files
    Auto,
    /// `<version>_<name>.sql`, history in safe_run.migrations
    SafeRun,
    Sqlx,
    GolangMigrate,
    Dbmate,
    Goose,
    Flyway,
    Refinery,
    Diesel,
    Prisma,
}

impl FormatChoice {
    /// The format; `None` for auto.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::SafeRun => Some(Format::SafeRun),
            Self::Sqlx => Some(Format::Sqlx),
            Self::GolangMigrate => Some(Format::GolangMigrate),
            Self::Dbmate => Some(Format::Dbmate),
            Self::Goose => Some(Format::Goose),
            Self::Flyway => Some(Format::Flyway),
            Self::Refinery => Some(Format::Refinery),
            Self::Diesel => Some(Format::Diesel),
            Self::Prisma => Some(Format::Prisma),
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        self.format().map_or("auto", Format::name)
    }

    /// Reads the setting of the file.
    pub fn parse(text: &str) -> Result<Self> {
        <Self as clap::ValueEnum>::from_str(text, false).map_err(|_| {
            let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
            Error::usage(format!("\"{text}\" is not a format"))
                .with_hint(format!("The formats are auto, {}.", names.join(", ")))
        })
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Protection")]
pub struct ProtectionArgs {
    /// How other writers are kept out
    #[arg(long, value_enum, default_value = "auto")]
    pub fence: FenceChoice,
    /// Keep the fence after the run, whether it succeeds or is undone, until `safe-run release`
    #[arg(long)]
    pub hold_fence: bool,
    /// What the undo goes back to
    #[arg(long, value_enum, default_value = "auto")]
    pub snapshot: SnapshotChoice,
    /// Go on although background workers of extensions are connected to the database, which a clone and --fence exclusive
    /// end; many come back only with the server
    #[arg(long)]
    pub end_workers: bool,
    /// With --snapshot clone or both: keep the clone after a success
    #[arg(long)]
    pub keep_clone: bool,
    /// When the snapshot is taken
    #[arg(long, value_enum, default_value = "auto")]
    pub snapshot_when: SnapshotWhen,
    /// Only take the snapshot; run nothing
    #[arg(long)]
    pub snapshot_only: bool,
    /// What happens on failure [default: undo; stop when no fence stood]
    #[arg(long, value_enum)]
    pub on_failure: Option<OnFailure>,
    /// Begin although the repository seems to have too little room for the snapshot, or the server for the clone; an undo
    /// never asks
    #[arg(long)]
    pub skip_space_check: bool,
    /// How long one attempt waits for locks [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub lock_timeout: Option<Duration>,
    /// Further attempts to get the locks [default: 30]
    #[arg(long, value_name = "N")]
    pub lock_retries: Option<u32>,
    /// Connections for snapshot, checks and restore [default: one per processor, at most 8]
    #[arg(short, long)]
    pub jobs: Option<usize>,
    /// Compression of the snapshot: zstd[:1-19], gzip[:1-9] or none [default: zstd:1]
    #[arg(long)]
    pub compress: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct ReportArgs {
    /// Write the report as a page for a browser, whatever becomes of the run
    #[arg(long, value_name = "FILE", conflicts_with = "snapshot_only")]
    pub report: Option<PathBuf>,
    /// Write the report as JSON (docs/safe-run-report.schema.json), whatever becomes of the run
    #[arg(long, value_name = "FILE", conflicts_with = "snapshot_only")]
    pub report_json: Option<PathBuf>,
    /// Afterwards, keep only the newest N runs on this database; the snapshots of those that are kept are pinned
    /// [default: all are kept, and none is pinned]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_runs: Option<u32>,
}

/// What a look at the database checks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Validation")]
pub struct CheckArgs {
    /// How much is checked: fast, standard or deep
    #[arg(long, default_value = "standard", value_parser = parse_level)]
    pub level: Level,
    /// Only this check; may be repeated
    #[arg(long, value_name = "CHECK")]
    pub only: Vec<CheckKind>,
    /// Not this check; may be repeated
    #[arg(long, value_name = "CHECK")]
    pub skip: Vec<CheckKind>,
    /// A check that could not run is a failure
    #[arg(long)]
    pub strict: bool,
    /// Folder of SQL files that must return no rows, or TAP; run before the commit; may be repeated
    #[arg(long, value_name = "DIR")]
    pub verify: Vec<PathBuf>,
}

/// What a run checks, before and after.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Validation")]
pub struct ValidationArgs {
    #[command(flatten)]
    pub look: CheckArgs,
    /// Which violations fail the run: new, any or none
    #[arg(long, default_value = "new", value_parser = parse_fail_on)]
    pub fail_on: FailOn,
    /// Rows of this table may be lost, at most N of them; may be repeated
    #[arg(long, value_name = "TABLE[=N]", value_parser = parse_allow_loss)]
    pub allow_loss: Vec<(String, Option<i64>)>,
    /// This enum type may lose labels, or these of them; may be repeated
    #[arg(long, value_name = "TYPE[=LABEL,…]", value_parser = lost_labels)]
    pub allow_lost_labels: Vec<(TableName, Vec<String>)>,
    /// This object may lose grants; may be repeated
    #[arg(long, value_name = "NAME", value_parser = lost_grants)]
    pub allow_lost_grants: Vec<TableName>,
    /// Share of a table's rows that a DELETE may remove [default: 10%]
    #[arg(long, value_name = "SHARE")]
    pub max_loss: Option<String>,
}

fn parse_level(text: &str) -> Result<Level> {
    match text {
        "fast" => Ok(Level::Fast),
        "standard" => Ok(Level::Standard),
        "deep" => Ok(Level::Deep),
        _ => Err(Error::usage("the levels are fast, standard and deep")),
    }
}

fn parse_fail_on(text: &str) -> Result<FailOn> {
    match text {
        "new" => Ok(FailOn::New),
        "any" => Ok(FailOn::Any),
        "none" => Ok(FailOn::None),
        _ => Err(Error::usage("use new, any or none")),
    }
}

fn parse_allow_loss(text: &str) -> Result<(String, Option<i64>)> {
    match text.rsplit_once('=') {
        None => Ok((text.to_owned(), None)),
        Some((table, rows)) => match rows.parse::<i64>() {
            Ok(rows) if rows >= 0 => Ok((table.to_owned(), Some(rows))),
            _ => Err(Error::usage(format!("\"{rows}\" is not a number of rows"))),
        },
    }
}
