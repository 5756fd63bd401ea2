//! Migrations that undo themselves. The flow on one screen:
//!
//! preflight → advisory lock → journal → fence → baseline checks ‖ snapshot → apply → `SET CONSTRAINTS ALL IMMEDIATE` →
//! checks → COMMIT → report. A failure before the COMMIT is a ROLLBACK ([`transactional`]). Statements that can't run in a
//! transaction, and external commands, are undone by restoring the snapshot beside the database and swapping names
//! ([`guarded`]). What was killed half-way is finished by [`recover`].

pub mod apply;
pub mod attempts;
pub mod blockers;
pub mod cli;
pub mod clone;
pub mod command;
pub mod concurrently;
mod control;
pub mod database_clone;
pub mod enum_users;
pub mod exclusive;
pub mod facts;
pub mod fence;
pub mod foreign;
pub mod guarded;
pub mod history;
mod history_tables;
pub mod import;
pub mod journal;
pub mod large_objects;
pub mod lock_ahead;
mod lower_fence;
pub mod mark;
pub mod others;
pub mod outlook;
pub mod own_writes;
pub mod precopy;
pub mod proof;
pub mod recover;
pub mod release;
pub mod report;
pub mod room;
pub mod run;
pub mod sequences;
pub mod statement_facts;
mod teller;
pub mod tidy;
pub mod transactional;
pub mod verify;
pub mod version_tables;
pub mod writes;

pub use common::repository::runs::run_lock;
pub use control::{refuse_unfinished, take_control};
