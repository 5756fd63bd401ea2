//! Everything that talks to a server or runs its client tools.

pub mod as_owner;
pub mod beside_rows;
pub mod client;
pub mod connect;
mod connect_error;
pub mod connection_string;
pub mod copy;
pub mod database;
pub mod database_copy;
mod driver_url;
pub mod environment;
pub mod exported_snapshot;
pub mod expressions;
pub mod extension_objects;
pub mod introspect;
pub mod known_fixes;
pub mod known_settings;
pub mod lend;
pub mod lock_room;
pub mod login;
pub mod lsn_columns;
pub mod names;
pub mod names_as_bytes;
pub mod obstacles;
mod other_engine;
pub mod own_objects;
pub mod passfile;
mod pooler;
pub mod regdatabase;
mod resolve;
pub mod role_passwords;
pub mod round_trip;
pub mod rule_code;
pub mod scratch;
pub mod secret;
pub mod service;
pub mod session;
pub mod session_room;
pub mod settings;
pub mod shared_text;
pub mod sql;
pub mod tap;
pub mod tls;
pub mod tools;
pub mod trust;
pub mod wal_summary;
pub mod who_asks;
mod wire;

pub use client::Client;
pub use connect::{CancelHandle, ConnectionSettings, Environment, Secret, Session, SessionProfile};
pub use other_engine::refuse as refuse_other_engine;
pub use resolve::others_may_read;
pub use tokio_postgres::{
    Error as DriverError, Row, SimpleQueryMessage, SimpleQueryRow,
    error::{DbError, ErrorPosition},
    types::ToSql,
    types::Type,
};
