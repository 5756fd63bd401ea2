//! SQLite files: imported, exported, compared.

mod diff;
mod export;
mod import;
mod import_decisions;
mod import_frameworks;
