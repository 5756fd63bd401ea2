//! How to run: what the flags say, and what follows from it.

use std::time::Duration;

use common::{postgres::exported_snapshot::LockWait, snapshot::Codec};

use crate::verify::VerifyFile;
use checks::{CheckKind, FailOn, Level};
use sql::statement::TableName;

/// Which fence to put up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FenceChoice {
    /// `lock` for migrations in one transaction, `read-only` otherwise.
    Auto,
    /// EXCLUSIVE locks on all tables, in the migration's transaction: reads go on, writes wait.
    Lock,
    /// The database is read-only for everybody but the command; other sessions are ended.
    ReadOnly,
    /// The database has another name while it runs, which the command gets: nobody else can connect.
    Exclusive,
    /// Nothing: others may write while it runs.
    None,
}

/// Whether a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SnapshotChoice {
    /// `file` where that is proved to be an undo; where it can't be and the clone can, `both`.
    Auto,
    /// A snapshot in the repository.
    File,
    /// A copy of the database on its server, for the time of the run: the undo is a swap of names, at any size.
    Clone,
    /// A snapshot in the repository and a copy on the server.
    Both,
    /// Nothing is stored: a ROLLBACK is the only undo.
    None,
}

impl SnapshotChoice {
    /// Whether the repository gets a snapshot.
    pub fn has_file(self) -> bool {
        matches!(self, Self::Auto | Self::File | Self::Both)
    }

    /// Whether the server makes a copy.
    pub fn has_clone(self) -> bool {
        matches!(self, Self::Clone | Self::Both)
    }
}

/// When the snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SnapshotWhen {
    /// Behind the fence; precopy where that would take long and the server tells what changed; before, where it does not
    /// and a ROLLBACK is the undo.
    Auto,
    /// Before the fence: writers do not wait for it.
    Before,
    /// Behind the fence: exactly the state before the migration.
    Fenced,
    /// Once before the fence with writers at work, the checks too, and then, behind it, only what changed.
    Precopy,
}

/// What to do when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// Undo everything.
    Undo,
    /// Keep the failed state for a person; a transaction is rolled back all the same.
    Stop,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Connections.
    pub jobs: usize,
    /// Compression of the snapshot.
    pub codec: Codec,
    /// The snapshot, or the clone, begins although there seems to be no room for it.
    pub skip_space_check: bool,
    /// How long to wait for locks.
    pub lock_wait: LockWait,
    /// The fence.
    pub fence: FenceChoice,
    /// The fence stays after the run.
    pub hold_fence: bool,
    /// The snapshot.
    pub snapshot: SnapshotChoice,
    /// The clone stays after a success.
    pub keep_clone: bool,
    /// Background workers of extensions may be ended.
    pub end_workers: bool,
    /// When it is taken.
    pub snapshot_when: SnapshotWhen,
    /// How much is checked.
    pub level: Level,
    /// Only these checks.
    pub only: Vec<CheckKind>,
    /// Not these checks.
    pub skip: Vec<CheckKind>,
    /// Which findings fail the run.
    pub fail_on: FailOn,
    /// A check that could not run fails the run.
    pub strict: bool,
    /// `--allow-loss`.
    pub allow_loss: Vec<(String, Option<i64>)>,
    /// `--allow-lost-labels`: enum types, and which of their labels; any if none is listed.
    pub lost_labels: Vec<(TableName, Vec<String>)>,
    /// `--allow-lost-grants`: objects.
    pub lost_grants: Vec<TableName>,
    /// `--max-loss`, a fraction.
    pub max_loss: f64,
    /// The team's own checks, from `--verify`.
    pub verify: Vec<VerifyFile>,
    /// What to do on failure; `None` is the mode's own default.
    pub on_failure: Option<OnFailure>,
}

/// The options of a pass that looks at everything.
pub fn check_options(options: &RunOptions) -> checks::Options {
    checks::Options {
        level: options.level,
        only: options.only.clone(),
        skip: options.skip.clone(),
        ..checks::Options::default()
    }
}

/// Seconds that a snapshot of this size is expected to take: 100 MB/s is what a small machine does.
pub fn expected_snapshot_time(database_bytes: u64) -> Duration {
    Duration::from_secs(database_bytes / 100_000_000)
}

/// Seconds that the checks of a database of this size are expected to take: two processors do 200 MB/s.
pub fn expected_checks_time(database_bytes: u64) -> Duration {
    Duration::from_secs(database_bytes / 200_000_000)
}
