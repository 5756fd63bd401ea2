//! Sessions of one restore that meet: what the server ends for that is done again, since nothing of it is there.

use std::time::Duration;

use common::{Error, Result, interrupt};

/// How often one step is done again. Each time the server has let another session of ours go on.
const MOST: u32 = 8;

/// The pause before the first time, and so much more before each that follows.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a step has been done again.
#[derive(Debug, Default)]
pub struct Again(u32);

impl Again {
    /// Whether to do it once more after `error`; waits before it says so.
    ///
    /// # Errors
    /// Somebody interrupted.
    pub async fn after(&mut self, error: &Error) -> Result<bool> {
        if !is_of_meeting(error.sqlstate()) || self.0 == MOST {
            return Ok(false);
        }
        self.0 += 1;
        tokio::time::sleep(PAUSE * self.0).await;
        interrupt::check()?;
        Ok(true)
    }
}

/// A deadlock, or a serialization failure: for the one that was ended, and for no other reason than the other.
fn is_of_meeting(sqlstate: Option<&str>) -> bool {
    matches!(sqlstate, Some("40P01" | "40001"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadlock_is_tried_again_so_many_times_and_nothing_else_is() {
        let error = |state: &str| Error::failed("x").with_sqlstate(state);
        assert!(!Again::default().after(&error("23514")).await.unwrap());
        let mut again = Again(MOST - 1);
        assert!(again.after(&error("40P01")).await.unwrap());
        assert!(!again.after(&error("40P01")).await.unwrap());
    }
}
