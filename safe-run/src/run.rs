//! What every protected run shares: its options, its context, its log, and the look at the database before and after.

mod announced;
mod baseline;
mod context;
mod judge;
mod log;
mod options;
mod proved;
mod stage;

pub use announced::{Announced, announced, announced_by_command, loss_limits};
pub use baseline::{Baseline, baseline, check_names, check_on, check_parallel};
pub use context::{Context, local_offset};
pub use judge::{analyze_what_lost_statistics, judge};
pub use log::{RunLog, Timed, describe_files, look_beside};
pub use options::{
    FenceChoice, OnFailure, RunOptions, SnapshotChoice, SnapshotWhen, check_options, expected_checks_time,
    expected_snapshot_time,
};
pub use proved::{Proof, Worker};
pub use stage::Stage;
