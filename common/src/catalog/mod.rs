//! What a database holds, as plain values. Nothing here talks to a server.

pub mod model;
pub mod word;

pub use model::*;
pub use word::{DatabasePrivilege, LocaleProvider, PlacedKind, RoleAttribute};
