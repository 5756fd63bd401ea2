//! Everything that talks to a server or runs its client tools.

pub mod connect;
mod connect_error;
pub mod connection_string;
pub mod environment;
pub mod passfile;
mod pooler;
mod resolve;
pub mod secret;
pub mod service;
pub mod session;
pub mod settings;
pub mod tls;

pub use tokio_postgres::{Client, Row, SimpleQueryMessage, types::ToSql};
