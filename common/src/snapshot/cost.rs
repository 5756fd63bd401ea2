//! Where the time of copying rows went: measured around pieces of 64 KiB, so that measuring costs nothing itself.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Microseconds of all connections together: with four connections, up to four seconds a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// XXH3-128 of every row: the content hashes.
    pub row_hashes_us: u64,
    /// SHA-256 of every file.
    pub sha256_us: u64,
    /// Compression.
    pub compression_us: u64,
    /// Writing and fsync.
    pub writing_us: u64,
    /// Everything else: waiting for the server and the network, and taking their bytes apart.
    pub waiting_us: u64,
}

impl Cost {
    /// All of it.
    pub fn total_us(&self) -> u64 {
        [self.row_hashes_us, self.sha256_us, self.compression_us, self.writing_us, self.waiting_us]
            .iter()
            .fold(0, |sum, part| sum.saturating_add(*part))
    }
}

impl fmt::Display for Cost {
    /// `row hashes 0.05 s (2 %), …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total_us().max(1);
        let parts = [
            ("server", self.waiting_us),
            ("compression", self.compression_us),
            ("SHA-256", self.sha256_us),
            ("row hashes", self.row_hashes_us),
            ("writing", self.writing_us),
        ];
        for (n, (what, us)) in parts.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let seconds = Duration::from_micros(*us).as_secs_f64();
            let share = u128::from(*us) * 100 / u128::from(total);
            write!(f, "{comma}{what} {seconds:.2} s ({share} %)")?;
        }
        Ok(())
    }
}

/// Adds up what several connections spend. Nanoseconds inside: a piece may take less than a microsecond.
#[derive(Debug, Default)]
pub struct CostMeter {
    row_hashes: AtomicU64,
    sha256: AtomicU64,
    compression: AtomicU64,
    writing: AtomicU64,
    waiting: AtomicU64,
}

/// What one chunk cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Hashing rows.
    pub row_hashes: Duration,
    /// Hashing the file.
    pub sha256: Duration,
    /// Compressing.
    pub compression: Duration,
    /// Writing and syncing.
    pub writing: Duration,
}

impl Spent {
    /// Adds another chunk's.
    pub fn merge(&mut self, other: &Self) {
        self.row_hashes += other.row_hashes;
        self.sha256 += other.sha256;
        self.compression += other.compression;
        self.writing += other.writing;
    }

    /// Everything that is not waiting for the server.
    pub fn total(&self) -> Duration {
        self.row_hashes + self.sha256 + self.compression + self.writing
    }
}

impl CostMeter {
    /// Adds a chunk that took `wall` in all.
    pub fn add(&self, spent: &Spent, wall: Duration) {
        let add = |to: &AtomicU64, time: Duration| {
            to.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed)
        };
        add(&self.row_hashes, spent.row_hashes);
        add(&self.sha256, spent.sha256);
        add(&self.compression, spent.compression);
        add(&self.writing, spent.writing);
        add(&self.waiting, wall.saturating_sub(spent.total()));
    }

    /// Adds what was waited for until files were durable.
    pub fn add_syncing(&self, waited: Duration) {
        self.writing.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was added until now.
    pub fn read(&self) -> Cost {
        let us = |from: &AtomicU64| from.load(Ordering::Relaxed) / 1000;
        Cost {
            row_hashes_us: us(&self.row_hashes),
            sha256_us: us(&self.sha256),
            compression_us: us(&self.compression),
            writing_us: us(&self.writing),
            waiting_us: us(&self.waiting),
        }
    }
}

/// Runs `work` and adds its time to `to`.
pub fn timed<T>(to: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *to += started.elapsed();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_part_accounts_for_is_waiting() {
        let meter = CostMeter::default();
        let spent = Spent {
            row_hashes: Duration::from_millis(20),
            sha256: Duration::from_millis(30),
            compression: Duration::from_millis(40),
            writing: Duration::from_millis(10),
        };
        meter.add(&spent, Duration::from_millis(300));
        meter.add(&spent, Duration::from_millis(50));
        let cost = meter.read();
        assert_eq!(cost.waiting_us, 200_000);
        assert_eq!(cost.total_us(), 400_000);
        let text = "server 0.20 s (50 %), compression 0.08 s (20 %), SHA-256 0.06 s (15 %), row hashes 0.04 s (10 %), \
                    writing 0.02 s (5 %)";
        assert_eq!(cost.to_string(), text);
        assert_eq!(Cost::default().to_string().matches("0.00 s (0 %)").count(), 5);
    }
}
