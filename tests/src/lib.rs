//! What the tests stand on: real throw-away servers, nasty databases, and an oracle that is not ours.
//!
//! - [`cluster`]: servers of every supported major version, one fresh database per test
//! - [`psql`]: PostgreSQL's own client tools, run as processes; held-open sessions for locks and transactions
//! - [`oracle`]: is this database the same as that one? By `pg_dump` and row hashes
//! - [`fixtures`]: a database with everything in it, and a realistic one
//! - [`random_schema`]: databases that a seed makes, with odd names, types, constraints and rows
//! - [`binaries`]: finds the built `backup`, `restore` and `safe-run`
//! - [`json_schema`]: does this document fit that schema?
//! - [`outcome`]: runs them as a user does, and holds what they said and how they ended
//! - [`protected_run`]: `safe-run` in a folder of its own, and what the oracle says about its database
//!
//! Nothing here may use the code under test, nor a PostgreSQL driver: an oracle that shares a bug with the
//! tool that it judges is blind to it. A missing server is a failure, never a skip.

pub mod binaries;
pub mod cluster;
pub mod fixtures;
pub mod json_schema;
pub mod oracle;
pub mod outcome;
pub mod protected_run;
pub mod psql;
pub mod random_schema;
mod servers;

pub use cluster::{Cluster, Database, Options};
pub use oracle::Fingerprint;
pub use outcome::{Outcome, Snapshots};
pub use protected_run::{Ended, ProtectedRun, Running, until};
pub use psql::Session;

/// Runs one test body on every supported major version, as separate tests `name::postgresql_14` and so on.
///
/// ```ignore
/// tests::on_every_major! {
///     fn renames_commit_together(cluster: &Cluster) { … }
/// }
/// ```
#[macro_export]
macro_rules! on_every_major {
    ($($(#[$meta:meta])* fn $name:ident($cluster:ident: &Cluster) $body:block)+) => { $(
        $(#[$meta])*
        mod $name {
            use super::*;
            fn body($cluster: &$crate::Cluster) $body
            #[test] fn postgresql_14() { body($crate::Cluster::shared(14)); }
            #[test] fn postgresql_15() { body($crate::Cluster::shared(15)); }
            #[test] fn postgresql_16() { body($crate::Cluster::shared(16)); }
            #[test] fn postgresql_17() { body($crate::Cluster::shared(17)); }
            #[test] fn postgresql_18() { body($crate::Cluster::shared(18)); }
        }
    )+ };
}
