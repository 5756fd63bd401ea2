//! What the three tools share.
//!
//! Layering, enforced by review and by the crates that may be named where:
//! `cli ─► repository, postgres ─► snapshot, catalog ─► error, ident`. Drivers and codecs appear only in this crate.

pub mod digest;
pub mod error;
pub mod ident;
pub mod postgres;

pub use error::{Error, ErrorKind, Result};
pub use ident::{Ident, QualifiedName};
