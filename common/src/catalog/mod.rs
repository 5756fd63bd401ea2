//! What a database holds, as plain values. Nothing here talks to a server.

mod lsn_text;
pub mod model;
pub mod word;

pub use lsn_text::{LsnFields, LsnForm};
pub use model::*;
pub use word::{DatabasePrivilege, LocaleProvider, PlacedKind, RoleAttribute};
