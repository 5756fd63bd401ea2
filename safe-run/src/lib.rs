//! x

pub mod expectation;
pub mod migration;
pub mod statement;
