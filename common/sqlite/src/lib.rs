//! SQLite files: what they really hold, and how that becomes rows and a schema of PostgreSQL without one changed value.
//!
//! Nothing here speaks to a server, and nothing ever writes to the file that is read. The way of a table:
//!
//! 1. [`file::Location::parse`] takes a path or a URL; [`file::SqliteFile::open`] looks at the header and decides how the file
//!    can be read without writing anything; [`file::SqliteFile::readers`] opens connections that all see one state.
//! 2. [`schema::Schema::read`] says what is there; [`scan::scan`] what its columns really hold; [`orphans`] which
//!    foreign keys lead nowhere.
//! 3. [`ddl::translate`] makes the schema; or the caller has one, and describes its columns by [`target::Target::parse`].
//! 4. [`encode::RowEncoder`] writes a row as a line of COPY text and gives the hash of its *values*, or says which value
//!    the column can't hold and why ([`value::BadValue`]); [`encode::RowEncoder::encode_binary`] the same for the binary format.
//! 5. [`hash::ServerRows`], or [`binary::BinaryRows`], makes the same hash of what PostgreSQL gives back.
//!
//! The rules stand in docs/sqlite-values.md.

mod array;
pub mod binary;
mod binary_json;
pub mod canonical;
pub mod choices;
pub mod copy;
mod dates;
pub mod ddl;
mod decimal;
pub mod encode;
pub mod error;
pub mod export;
pub mod file;
pub mod hash;
mod interval;
mod json;
pub mod orphans;
pub mod partner;
pub mod rows;
pub mod scan;
pub mod schema;
mod sql;
pub mod target;
pub mod value;

pub use error::{ReadError, Result};
