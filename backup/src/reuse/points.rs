//! Positions in the log, read before a snapshot is taken.

use std::time::Duration;

use common::{
    Result,
    postgres::{
        Session,
        wal_summary::{self, Point, or_why_not},
    },
};

/// How long to wait for the transactions that were in progress when a position in the log was read.
const POINT_WAIT: Duration = Duration::from_millis(500);

/// Reads positions in the log before a snapshot is taken: the first one at once, and one that is as late as it can be
/// while every transaction that was in progress at it has ended. Empty where the server does not tell what changed.
///
/// `session` is outside of a transaction.
pub async fn points(session: &Session) -> Result<Vec<Point>> {
    let asked = async {
        if let Some(why) = wal_summary::unavailable(session).await? {
            return Ok(Err(why));
        }
        Ok(Ok(wal_summary::point(session).await?))
    };
    // Why not is asked again, and told, when the snapshot is there.
    Ok(or_why_not(asked.await)?.into_iter().collect())
}

/// Adds a later position, and waits a moment for the transactions that are in progress at it.
pub async fn later_point(session: &Session, points: &mut Vec<Point>) -> Result<()> {
    if points.is_empty() {
        return Ok(());
    }
    let point = wal_summary::point(session).await?;
    let deadline = std::time::Instant::now() + POINT_WAIT;
    while wal_summary::latest_safe(&[point], wal_summary::oldest_in_progress(session).await?).is_none()
        && std::time::Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    points.push(point);
    Ok(())
}
