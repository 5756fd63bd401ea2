//! What a migration's text says, before any server is asked.
//!
//! [`statement`] reads SQL: where a statement ends, what it names, which locks it takes. [`layout`] and [`migration`] read the folders of
//! migration tools. [`lint`] names what is dangerous in them. [`expectation`] tells which rows a text itself takes away or writes. [`masking`] hides secrets in what is shown.
//! Nothing here opens a connection or waits: the crate has no tokio.

pub mod expectation;
pub mod layout;
pub mod lint;
pub mod masking;
pub mod migration;
mod section;
pub mod statement;
mod token;
pub mod version;
