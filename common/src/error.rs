//! The one error type: what failed, what to do next, what happened to the database.
//!
//! A message is lower case, without a full stop, and names the object. A hint is a full sentence with the next
//! action. Callers branch on [`ErrorKind`] or on the SQLSTATE, never on the text.

use std::{borrow::Cow, fmt};

/// What kind of failure it is; decides the exit code and whether a retry makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operation failed; the database was not changed. Exit code 1.
    Failed,
    /// The command line, a settings file or an environment variable is wrong. Exit code 2.
    Usage,
    /// A precondition does not hold; refused before anything was changed. Exit code 3.
    Refused,
    /// A lock, a fence or the server could not be had now; try again. Exit code 4.
    Busy,
    /// The snapshot named on the command line does not exist. Exit code 5.
    NoSuchSnapshot,
    /// A snapshot is damaged, or could not be verified. Exit code 6.
    Damaged,
    /// A migration failed and was rolled back. Exit code 10.
    MigrationRolledBack,
    /// The checks failed and the migration was rolled back. Exit code 11.
    ValidationRolledBack,
    /// A migration failed and the snapshot was restored. Exit code 12.
    MigrationRestored,
    /// The checks failed and the snapshot was restored. Exit code 13.
    ValidationRestored,
    /// Stopped for a person to decide. Exit code 14.
    Stopped,
    /// The undo failed, or the state is unknown. Exit code 20.
    Unknown,
    /// `status` found pending migrations. Exit code 30.
    Pending,
    /// `check` found violations. Exit code 31.
    Violations,
    /// `plan --deny-warnings` has warnings. Exit code 32.
    Warnings,
    /// SIGINT; cleaned up. Exit code 130.
    Interrupted,
    /// SIGTERM; cleaned up. Exit code 143.
    Terminated,
}

impl ErrorKind {
    /// The process exit code that the command-line contract documents for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Busy => 4,
            Self::NoSuchSnapshot => 5,
            Self::Damaged => 6,
            Self::MigrationRolledBack => 10,
            Self::ValidationRolledBack => 11,
            Self::MigrationRestored => 12,
            Self::ValidationRestored => 13,
            Self::Stopped => 14,
            Self::Unknown => 20,
            Self::Pending => 30,
            Self::Violations => 31,
            Self::Warnings => 32,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// Why a file was not opened: it is something else in the place of a file, such as a FIFO, whose reader may wait for ever.
/// Travels within an [`std::io::Error`], and becomes [`ErrorKind::Damaged`] by [`Error::io`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPlain(pub &'static str);

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}, and no plain file", self.0)
    }
}

impl std::error::Error for NotPlain {}

/// Why something failed, where a caller goes on by it: what a sentence says is for people alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It made room for somebody who waits for an exclusive lock.
    GaveWay,
    /// A name came to mean another object than before.
    NameChanged,
    /// Another scheduler holds the database.
    AnotherScheduler,
}

/// A failure as a person will read it.
///
/// Boxed so that `Result<T>` stays one word wide on the success path.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    database: Option<String>,
    sqlstate: Option<String>,
    cause: Option<Cause>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything in this workspace that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where the server ended the session, or nobody says who did.
const LOST: &str = "Look into the server's log for the reason, then run the command again.";

/// What a person gave in the wrong place may be a URL with a password in it.
fn masked(text: String) -> String {
    match crate::masking::message(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(masked) => masked,
    }
}

impl Error {
    /// An error of `kind`; `message` is lower case, without a full stop, and names the object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: masked(message.into()),
            hint: None,
            database: None,
            sqlstate: None,
            cause: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// [`ErrorKind::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// [`ErrorKind::Busy`].
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message)
    }

    /// [`ErrorKind::Damaged`].
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// A file operation on `path` that failed: `doing` is what was tried ("write", "read", "create"). Damaged where something
    /// else lies in the place of a file, [`ErrorKind::Failed`] otherwise.
    pub fn io(doing: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<NotPlain>()) {
            return Self::damaged(format!("could not {doing} {}: {source}", path.display()))
                .with_hint("Nothing of ours makes such a thing. Find out who put it there, and remove it.")
                .with_source(source);
        }
        let hint = match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Some("Run as a user who may do that, or choose another place (for the repository: --repo).")
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Some(
                "Free some space or choose another disk (for the repository: --repo), then run the command again.",
            ),
            std::io::ErrorKind::ReadOnlyFilesystem => Some(
                "The file system is mounted read-only. Choose another place (for the repository: --repo).",
            ),
            _ => None,
        };
        let mut error = Self::failed(format!("could not {doing} {}: {source}", path.display()));
        if let Some(hint) = hint {
            error = error.with_hint(hint);
        }
        error.with_source(source)
    }

    /// A statement that the server refused, or a connection that broke: `doing` is what was tried.
    ///
    /// The server's own message, detail and hint are kept, but for a detail that is a whole row; a lost connection is named as
    /// one.
    pub fn postgres(doing: impl fmt::Display, source: tokio_postgres::Error) -> Self {
        // A server quotes what it was sent, and code of the database says what it likes.
        let masked = crate::masking::text;
        let (message, hint, sqlstate) = match source.as_db_error() {
            Some(db) => {
                let mut message = format!("{doing}: {}", masked(db.message()));
                // Not-null and check violations have the failing row there: rows are not for logs.
                let is_row = ["23502", "23514"].contains(&db.code().code());
                if let Some(detail) = db.detail().filter(|_| !is_row) {
                    message.push_str(&format!(" ({})", masked(detail.trim_end_matches('.'))));
                }
                let hint = match db.code().code() {
                    // admin_shutdown, crash_shutdown: the session is gone, and the server gives no hint.
                    "57P01" | "57P02" => Some(LOST.to_owned()),
                    _ => db.hint().map(masked),
                };
                (message, hint, Some(db.code().code().to_owned()))
            }
            None if source.is_closed() => (
                format!("{doing}: the connection to the server was lost"),
                Some(LOST.to_owned()),
                Some("08006".to_owned()),
            ),
            None if is_no_utf_8(&source) => return Self::no_utf_8(&doing).with_source(source),
            None => {
                let mut message = format!("{doing}: {source}");
                let mut cause = std::error::Error::source(&source);
                while let Some(inner) = cause {
                    let text = inner.to_string();
                    if !message.contains(&text) {
                        message.push_str(&format!(": {text}"));
                    }
                    cause = inner.source();
                }
                (message, None, None)
            }
        };
        let mut error = Self::failed(message);
        error.0.hint = hint;
        error.0.sqlstate = sqlstate;
        error.with_source(source)
    }

    /// A text in an answer that is in another encoding than the session's.
    fn no_utf_8(doing: &impl fmt::Display) -> Self {
        Self::failed(format!(
            "{doing}: a text that the server sent is no UTF-8"
        ))
        .with_sqlstate("22021")
        .with_hint(
            "The server keeps names of roles, databases and tablespaces, comments on databases and settings of roles for all databases, \
             in the encoding of the one in which they were made: write them in ASCII there.",
        )
    }

    /// The same error with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds where in the server it happened, such as `PL/pgSQL function app.total() line 3`.
    #[must_use]
    pub fn with_place(mut self, place: &str) -> Self {
        self.0.message.push_str(&format!(", in {}", crate::masking::text(place)));
        self
    }

    /// Adds the next action, a full sentence. Replaces an earlier hint.
    #[must_use]
    #[track_caller]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        crate::fault::hint(std::panic::Location::caller().file(), &hint);
        self.0.hint = Some(crate::masking::urls(&hint).into_owned());
        self
    }

    /// Adds what happened to the database, a full sentence such as `The database "shop" was not changed.`
    #[must_use]
    pub fn with_database_state(mut self, state: impl Into<String>) -> Self {
        self.0.database = Some(state.into());
        self
    }

    /// Adds the SQLSTATE of the server's refusal, where the message was written anew.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: &str) -> Self {
        self.0.sqlstate = Some(sqlstate.to_owned());
        self
    }

    /// Adds what a caller goes on by.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// Adds the error that led to it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `prefix: ` before the message.
    #[must_use]
    pub fn context(mut self, prefix: impl fmt::Display) -> Self {
        self.0.message = masked(format!("{prefix}: {}", self.0.message));
        self
    }

    /// Puts `suffix` behind the message.
    #[must_use]
    pub fn suffix(mut self, suffix: &str) -> Self {
        self.0.message.push_str(suffix);
        self
    }

    /// The kind, for branching.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it failed for that reason.
    pub fn is_caused_by(&self, cause: Cause) -> bool {
        self.0.cause == Some(cause)
    }

    /// The message, without hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The next action, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What happened to the database, if it was recorded.
    pub fn database_state(&self) -> Option<&str> {
        self.0.database.as_deref()
    }

    /// The five-character SQLSTATE, when the server gave one (or `08006` for a lost connection).
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Whether the same command may succeed later without anybody changing anything.
    ///
    /// Lock not available, deadlock, serialization failure, server starting or out of connections.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Busy)
            || matches!(self.sqlstate(), Some("55P03" | "40P01" | "40001" | "57P03" | "53300"))
    }
}

/// Whether the driver could not read a text (`postgres::Client`).
fn is_no_utf_8(source: &tokio_postgres::Error) -> bool {
    std::error::Error::source(source).is_some_and(|cause| cause.is::<std::str::Utf8Error>())
}

impl fmt::Display for Error {
    /// One line: the message alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_names_the_path_and_the_next_action() {
        let error = Error::io(
            "write",
            std::path::Path::new("/backups/x"),
            std::io::Error::from(std::io::ErrorKind::StorageFull),
        );
        assert!(error.message().starts_with("could not write /backups/x: "));
        assert!(error.hint().is_some_and(|hint| hint.contains("Free some space")));
        assert_eq!(error.kind().exit_code(), 1);
    }

    #[test]
    fn what_may_not_be_written_names_the_path_and_the_next_action() {
        let told = |kind: std::io::ErrorKind| {
            let error = Error::io("write", std::path::Path::new("/x/y"), kind.into());
            assert!(error.message().starts_with("could not write /x/y: "), "{error}");
            error.hint().map(str::to_owned)
        };
        assert_eq!(
            told(std::io::ErrorKind::PermissionDenied).as_deref(),
            Some("Run as a user who may do that, or choose another place (for the repository: --repo).")
        );
        assert_eq!(
            told(std::io::ErrorKind::ReadOnlyFilesystem).as_deref(),
            Some("The file system is mounted read-only. Choose another place (for the repository: --repo).")
        );
        assert_eq!(
            told(std::io::ErrorKind::QuotaExceeded).as_deref(),
            Some(
                "Free some space or choose another disk (for the repository: --repo), then run the command again."
            )
        );
        assert_eq!(told(std::io::ErrorKind::NotFound), None);
    }

    #[test]
    fn context_goes_before_the_message_and_keeps_the_rest() {
        let error = Error::refused("b").with_hint("Do c.").context("a");
        assert_eq!(error.to_string(), "a: b");
        assert_eq!(error.hint(), Some("Do c."));
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}
