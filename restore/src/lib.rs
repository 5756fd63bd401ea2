//! Brings a snapshot back. The flow on one screen:
//!
//! open → verify → `VerifiedSnapshot` → preflight → `RestorePlan` → new database from template0 → pre-data → parallel COPY
//! in → post-data → sequences, views, ANALYZE → rows and content against the manifest → `ValidatedDatabase` → both renames
//! in one transaction.
//!
//! Until that commit the live database is untouched, and after it the replaced one still exists under another name.

pub mod archive;
pub mod broken_rules;
pub mod bundle;
pub mod cli;
pub mod collation;
mod collisions;
mod column_marks;
pub mod compare;
pub mod contents;
pub mod copy_in;
pub mod differences;
mod encoding;
pub mod event_triggers;
pub mod extension_tables;
pub mod extensions;
pub mod facts;
mod function_settings;
mod gate;
pub mod grants;
mod left_behind;
pub mod lent_paths;
mod lent_tables;
pub mod load;
pub mod maintain;
pub mod missing;
mod missing_roles;
mod orphaned_keys;
pub mod owned;
pub mod owners;
pub mod parts;
mod passes;
pub mod plan;
pub mod preflight;
mod report;
mod restore_errors;
pub mod role_map;
mod rule_settings;
pub mod sequences_ahead;
mod sessions;
pub mod stage;
pub mod tablespaces;
mod whole;

pub use differences::LostRows;
pub use facts::Choices;
pub use missing_roles::plan_gone_roles;
pub use plan::{RestoreOptions, RestorePlan, Target};
pub use report::RestoreReport;
pub use whole::{execute, prepare, verified};
