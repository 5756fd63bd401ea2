//! What the server says, in our kinds and with what to do.

use common::{Error, ErrorKind, postgres::Session};

use crate::schema;

/// A missing right is refused, in our kinds.
pub(crate) fn explain_rights(error: Error) -> Error {
    match error.sqlstate() {
        // Insufficient privilege. Row-level security that would hide rows comes as the same.
        Some("42501") => error.with_kind(ErrorKind::Refused).with_hint(
            "Run `backup check`: it prints every GRANT that is missing, and BYPASSRLS where row-level security hides rows.",
        ),
        _ => error,
    }
}

/// What the server says, in our kinds: a missing right is refused, and a lock that can't be had is busy.
pub(crate) fn explain(error: Error) -> Error {
    let error = explain_rights(error);
    match error.sqlstate() {
        // Lock not available.
        Some("55P03") if error.kind() == ErrorKind::Failed => {
            schema::gave_way(error.with_kind(ErrorKind::Busy))
        }
        _ => error,
    }
}

/// On a standby, replay may cancel what reads: whichever session or program noticed first, that is the reason.
///
/// The holder of the snapshot has every lock and the oldest view, so a conflict ends it as well, with a SQLSTATE that
/// pg_dump's text or a worker that came too late to join does not have.
pub(super) async fn explain_conflict(error: Error, holder: Session) -> Error {
    /// How long the server may take to end the holder after another session of ours.
    const GRACE: std::time::Duration = std::time::Duration::from_secs(2);
    /// `serialization_failure` in a transaction that only reads: a conflict with recovery, never anything else.
    const CONFLICT: Option<&str> = Some("40001");
    // pg_dump gives no SQLSTATE; this is the C locale's text.
    let cancelled = error.sqlstate() == CONFLICT
        || error.message().contains("due to conflict with recovery")
        || match holder.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await {
            Ok(row) if !row.get::<_, bool>(0) => false,
            _ => {
                let deadline = std::time::Instant::now() + GRACE;
                while !holder.is_closed() && std::time::Instant::now() < deadline {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                holder.is_closed() && holder.close().await.is_err_and(|error| error.sqlstate() == CONFLICT)
            }
        };
    if !cancelled {
        return error;
    }
    Error::busy(format!("the standby cancelled the backup because of a conflict with recovery ({error})"))
        .with_hint(
            "Raise max_standby_streaming_delay on the standby (-1 waits for ever) or set hot_standby_feedback = on \
             there, or back up from the primary; then run the command again.",
        )
        .with_source(error)
}
