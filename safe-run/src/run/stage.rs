//! How far a run came, for its exit code.

use common::{Error, ErrorKind};

/// How far a run outside of a transaction came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was committed: the server has rolled everything back.
    Uncommitted,
    /// A migration, or the command.
    Migration,
    /// The checks afterwards.
    Validation,
}

impl Stage {
    /// The exit code of a run that failed here and was undone.
    pub fn exit_code_undone(self, error: &Error) -> u8 {
        match (self, error.kind()) {
            (_, kind @ (ErrorKind::Interrupted | ErrorKind::Terminated)) => kind.exit_code(),
            (Self::Migration | Self::Uncommitted, _) => ErrorKind::MigrationRestored.exit_code(),
            (Self::Validation, _) => ErrorKind::ValidationRestored.exit_code(),
        }
    }
}
