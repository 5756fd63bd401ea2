//! How long a snapshot may be held.

use std::time::Duration;

use common::{Error, Progress, Result};

/// Bounds the time that a snapshot is held, and says from time to time how long it has been.
///
/// # Errors
/// When the time is over: what was under way is dropped, with its sessions, programs and files.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T>>,
    progress: &Progress,
) -> Result<T> {
    /// An hour of dead rows that VACUUM may not remove begins to be worth a word on a busy server.
    const SAY_EVERY: Duration = Duration::from_secs(3600);
    let mut work = std::pin::pin!(work);
    let started = std::time::Instant::now();
    loop {
        let held = started.elapsed();
        let left = limit.map(|limit| limit.saturating_sub(held));
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(left.unwrap_or(SAY_EVERY).min(SAY_EVERY)) => {}
        }
        let held = started.elapsed();
        if let Some(limit) = limit.filter(|limit| held >= *limit) {
            return Err(Error::failed(format!(
                "the backup was not done after {} s, and --max-duration ends it",
                limit.as_secs_f64()
            ))
            .with_hint(
                "Nothing was stored. Allow more time, more --jobs or a faster --compress, or back up from a standby.",
            ));
        }
        progress.warn(format!(
            "the snapshot has been held for {} min: meanwhile VACUUM can't remove dead rows in this database",
            held.as_secs() / 60
        ));
    }
}
