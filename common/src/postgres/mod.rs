//! Everything that talks to a server or runs its client tools.

pub mod connect;
pub mod copy;
pub mod database;
pub mod exported_snapshot;
pub mod introspect;
pub mod sql;
pub mod tools;

pub use connect::{
    CHILD_ENVIRONMENT_REMOVED, CancelHandle, ConnectionSettings, Environment, Secret, Session, SessionProfile,
};
pub use tokio_postgres::{Client, Row, SimpleQueryMessage, types::ToSql};
