//! The command line that the three tools share: the same words, flags, environment and exit codes.

pub mod args;
pub mod completions;
pub mod config;
pub mod facts;
pub mod jobs;
pub mod output;
pub mod process;
pub mod version;

pub use args::SharedArgs;
pub use config::{Config, Settings};
pub use output::Output;
