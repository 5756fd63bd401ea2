//! x
pub mod statement;
