//! What a database holds, as plain values. Nothing here talks to a server.

pub mod model;

pub use model::*;
