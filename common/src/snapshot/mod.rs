//! A stored backup: its id, its manifest, and the encoding of its files. Nothing here talks to a server.

pub mod archive;
pub mod bundle;
pub mod chunk_reader;
pub mod chunk_writer;
pub mod codec;
pub mod copy_sql;
pub mod cost;
pub mod definitions;
pub mod earlier_file;
pub mod id;
pub mod keep;
pub mod manifest;
mod manifest_check;
pub mod pattern;
pub mod pieces;
pub mod readme;
pub mod simulate;
mod state;
pub mod toc;
pub mod wal_base;

pub use codec::{Codec, RowHash};
pub use id::SnapshotId;
pub use manifest::Manifest;
pub use state::state_of;
