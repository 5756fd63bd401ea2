//! What a person decides about an import: the flags, read. Pure. What they say of the file itself is in [`sqlite::choices`].

pub use sqlite::choices::{ColumnName, Map, column, epoch, map, table, time_zone, typed, written};

/// What happens to tables that hold rows already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// They are refused.
    #[default]
    Refuse,
    /// They are emptied, in the transaction of the import.
    Recreate,
    /// The rows are added.
    Append,
}

/// `--bad-values`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BadValues {
    /// Nothing is imported; all of them are listed
    #[default]
    Stop,
    /// Their rows go into safe_run.quarantine and into a file beside the report; the others are imported
    Quarantine,
}

/// `--orphans`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Orphans {
    /// Nothing is imported; all of them are listed
    #[default]
    Fail,
    /// Their rows go into safe_run.quarantine and into a file beside the report
    Skip,
    /// Their foreign key becomes NULL
    Null,
}
