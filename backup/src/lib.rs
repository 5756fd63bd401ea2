//! Takes snapshots ([`create`]), and what is done with them: listing, verifying, comparing, pruning, exporting, and all of it on a schedule.

pub mod admission;
pub mod beside;
pub mod check;
pub mod cli;
pub mod copy_out;
mod create;
pub mod diff;
pub mod drill;
pub mod half_done;
mod left_fence;
pub mod manage;
pub mod orphans;
pub mod part;
pub mod plan;
pub mod planning_guard;
pub mod prune;
mod restorable;
pub mod reuse;
pub mod schedule;
mod schema;
pub mod space;
mod to_sqlite;
mod too_large;
pub mod transfer;
mod zone;

pub use admission::Guards;
pub use common::cli::config::default_jobs;
pub use create::{CreateOptions, OLDEST_SERVER, check_server, create, create_from};
