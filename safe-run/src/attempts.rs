//! Tries again what could not have its locks: short waits with pauses, so that the application never queues behind us for
//! longer than one wait, and an end after which nothing was changed.

use std::time::Instant;

use common::{
    Error, Progress, Result, interrupt,
    postgres::{Session, exported_snapshot::LockWait},
};

use crate::blockers::{Blockers, watched};

/// Why an attempt failed, and whether it may be made again.
#[derive(Debug)]
pub struct Failed {
    /// The reason.
    pub error: Error,
    /// Nothing stays of the attempt once it is rolled back.
    pub repeatable: bool,
}

impl Failed {
    /// For what leaves nothing behind.
    pub fn repeatable(error: Error) -> Self {
        Self { error, repeatable: true }
    }
}

/// Who waits, who watches, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// The session that runs the statements.
    pub migrator: &'a Session,
    /// A session that sees whom the migrator waits for.
    pub observer: &'a Session,
    /// How long and how often.
    pub wait: LockWait,
    /// Where to tell.
    pub progress: &'a Progress,
}

/// Makes attempts until one succeeds, fails for another reason than a lock, or the budget is spent. Between two attempts
/// `restart` takes back what the last one did.
///
/// # Errors
/// The attempt's own. When it gives up, the last one, with everybody who was in the way: its SQLSTATE is that of a lock.
pub async fn until_locked(
    waiting: &Waiting<'_>,
    restart: &str,
    mut attempt: impl AsyncFnMut() -> Result<(), Failed>,
) -> Result<()> {
    let Waiting { migrator, observer, wait, progress } = *waiting;
    let started = Instant::now();
    let mut seen = Blockers::default();
    let mut made = 0;
    loop {
        seen.clear_ages();
        let result =
            watched(observer, migrator.backend_pid(), wait.timeout, progress, &mut seen, attempt()).await;
        let Err(Failed { error, repeatable }) = result else { return Ok(()) };
        made += 1;
        if !is_about_locks(&error) {
            return Err(error);
        }
        if !repeatable {
            return Err(error.suffix(&format!(
                "{}; not tried again, because a ROLLBACK does not undo all of it",
                seen.suffix()
            )));
        }
        if made > wait.retries || started.elapsed() >= wait.budget() {
            return Err(gave_up(error, made, started.elapsed().as_secs(), &seen));
        }
        progress.warn(format!("{error}{}; trying again ({made} of {})", seen.suffix(), wait.retries));
        migrator
            .batch_execute(restart)
            .await
            .map_err(|source| Error::postgres("could not go back to before the first statement", source))?;
        tokio::time::sleep(wait.pause(made)?).await;
        interrupt::check()?;
    }
}

/// Lock not available, deadlock.
pub fn is_about_locks(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01"))
}

fn gave_up(error: Error, attempts: u32, seconds: u64, seen: &Blockers) -> Error {
    let times = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    error.suffix(&format!("{}; gave up after {times} in {seconds} s", seen.suffix())).with_hint(seen.hint())
}
