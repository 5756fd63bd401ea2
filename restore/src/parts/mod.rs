//! Brings single tables back: beside the live ones, into a database of their own, or as the content of the live ones.
//!
//! Only the chunks of these tables are read and verified, with the manifest and the schema archive. Whatever is done to
//! the live database is one transaction of one session: it is there as a whole or not at all, also after kill -9.

mod aside;
pub mod beside;
mod dry_run;
pub mod plan;
pub mod replace;
pub mod rights;
pub mod run;
pub mod scratch;
pub mod select;
pub mod transaction;
