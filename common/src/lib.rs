//! What the three tools share.
//!
//! Layering, kept by review and by the crates that may be named where:
//! `cli ─► repository, postgres ─► snapshot, catalog ─► error, ident`. Drivers and codecs appear only in this crate.
//!
//! Vocabulary: a *snapshot* is a stored backup; an *exported snapshot* is PostgreSQL's MVCC snapshot that several
//! sessions share. A *chunk* is one file of rows, a page range of one table. *Verified*, *staged* and *validated* are
//! proofs of completed steps.

pub mod catalog;
pub mod cli;
pub mod digest;
pub mod error;
pub mod fault;
pub mod files;
pub mod format;
pub mod html;
pub mod http;
pub mod ident;
pub mod input;
pub mod interrupt;
pub mod masking;
pub mod migration_tools;
pub mod postgres;
pub mod progress;
pub mod random;
pub mod repository;
pub mod server_space;
pub mod snapshot;
pub mod verdict;

pub use error::{Cause, Error, ErrorKind, Result};
pub use ident::{Ident, QualifiedName};
pub use progress::{Event, Progress};
pub use verdict::{Account, Remark, Verdict};
