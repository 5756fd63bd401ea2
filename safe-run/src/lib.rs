//! x
pub mod migration;
pub mod statement;
