//! Everything that talks to a server or runs its client tools.

pub mod connect;

pub use tokio_postgres::{Client, Row, SimpleQueryMessage, types::ToSql};
