//! The little HTTP that a scheduler needs: telling a monitoring service how a run went, and answering who asks.
//!
//! A URL may hold a secret in its path or query, so no message of ours shows more of it than the host.

pub mod client;
pub mod server;

pub use client::{Method, send};
pub use server::{Reply, Request, Server};
