//! The scheduler's clock. In a debug build, which is what the tests run, `SAFE_RUN_CLOCK_SPEED` makes it run faster, so that
//! a day passes in seconds; a release build knows only the real one.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Says what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: DateTime<Utc>,
    speed: u32,
}

impl Clock {
    /// The clock of this process.
    pub fn of_process() -> Self {
        Self { started: Utc::now(), speed: speed() }
    }

    /// Now. A jump of the system's clock is followed.
    pub fn now(&self) -> DateTime<Utc> {
        let now = Utc::now();
        if self.speed == 1 {
            return now;
        }
        self.started + (now - self.started) * i32::try_from(self.speed).unwrap_or(i32::MAX)
    }

    /// How long `time` on this clock really is.
    pub fn real(&self, time: Duration) -> Duration {
        time / self.speed
    }
}

#[cfg(debug_assertions)]
fn speed() -> u32 {
    std::env::var("SAFE_RUN_CLOCK_SPEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

#[cfg(not(debug_assertions))]
fn speed() -> u32 {
    1
}
