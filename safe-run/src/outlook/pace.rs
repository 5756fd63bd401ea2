//! How long a statement may go through a table's rows: an estimate, from how fast this server counts.
//!
//! The server counts 200,000 numbers, which takes some 30 ms of one processor, locks nothing and reads no table. Work on rows was measured in
//! multiples of that (see the constants); what a cold disk adds is taken from a slow one. So it is a range, and a wide one. Nothing is
//! said of a table that is small or was never analyzed.

use common::{Error, Result, postgres::Session};
use serde::Serialize;

use super::efforts::{Effort, What};

/// Numbers that are counted.
const COUNTED: f64 = 200_000.0;
/// What was counted once may have been interrupted: the fastest of so many counts.
const TIMES: usize = 3;
/// A table with fewer rows and bytes is done before anybody looks.
const FEW_ROWS: u64 = 100_000;
const FEW_BYTES: u64 = 64_000_000;
/// Bytes per second that a slow disk reads or writes.
const SLOW_DISK: f64 = 50_000_000.0;

/// The least and the most time of a row, in multiples of the time of a counted number; and how often its bytes pass the disk at most.
///
/// Measured on PostgreSQL 18 with rows of 35 and 170 bytes, in memory: 1.2 to 3.5 for a scan, 6 to 11 for rows written anew, 2 to 17 for
/// an index (of values that come in order, and of long texts that do not). Twice the most is the most, half of the least the least.
const SCAN: (f64, f64, f64) = (0.6, 7.0, 1.0);
const REWRITE: (f64, f64, f64) = (3.0, 22.0, 3.0);
const INDEX: (f64, f64, f64) = (1.0, 34.0, 1.0);
const LOOKUP: (f64, f64, f64) = (1.2, 25.0, 2.0);

/// A range of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// It hardly takes less.
    pub from_seconds: f64,
    /// It hardly takes more.
    pub to_seconds: f64,
}

/// How fast a server counts: seconds for a number.
#[derive(Debug, Clone, Copy)]
pub struct Pace(f64);

impl Pace {
    /// Lets the server count, by its own clock.
    pub async fn measure(session: &Session) -> Result<Self> {
        const COUNT: &str = "WITH counted AS MATERIALIZED (SELECT pg_catalog.count(*) AS numbers FROM pg_catalog.generate_series(1, 200000))
            SELECT numbers, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp())::pg_catalog.float8 FROM counted";
        let mut fastest = f64::INFINITY;
        for _ in 0..TIMES {
            let row = session.query_one(COUNT, &[]).await;
            let row =
                row.map_err(|source| Error::postgres("could not see how fast the server counts", source))?;
            fastest = fastest.min(row.get(1));
        }
        Ok(Self(fastest / COUNTED))
    }

    /// How long it takes; nothing for what is small or not known.
    pub fn estimate(self, effort: &Effort) -> Option<Estimate> {
        let rows = effort.rows.filter(|_| is_long(effort))? as f64;
        let bytes = effort.bytes as f64;
        let (least, most, passes) = match effort.what {
            What::Rewrite => REWRITE,
            What::Scan => SCAN,
            What::Lookup => LOOKUP,
            What::Index => (0.0, 0.0, INDEX.2),
        };
        let indexes = effort.indexes as f64;
        let (least, most) = (least + indexes * INDEX.0, most + indexes * INDEX.1);
        Some(Estimate {
            from_seconds: rows * self.0 * least,
            to_seconds: rows * self.0 * most + passes * bytes / SLOW_DISK,
        })
    }
}

/// Whether it is worth an estimate.
pub fn is_long(effort: &Effort) -> bool {
    effort.rows.is_some_and(|rows| rows >= FEW_ROWS || effort.bytes >= FEW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effort(what: What, rows: Option<u64>, bytes: u64, indexes: usize) -> Effort {
        Effort { table: "t".to_owned(), what, why: String::new(), indexes, rows, bytes, estimate: None }
    }

    /// Times of PostgreSQL 18, which counted a number in 0.13 µs, beside the builds of others.
    #[test]
    fn what_was_measured_lies_within_the_estimate() {
        let pace = Pace(0.13e-6);
        for (what, rows, bytes, indexes, seconds) in [
            (What::Scan, 2_000_000, 69_000_000, 0, 0.31),
            (What::Scan, 500_000, 87_000_000, 0, 0.23),
            (What::Rewrite, 2_000_000, 69_000_000, 0, 1.65),
            (What::Rewrite, 500_000, 87_000_000, 2, 1.67),
            (What::Index, 2_000_000, 69_000_000, 1, 0.94),
            (What::Index, 500_000, 87_000_000, 1, 1.12),
            (What::Index, 500_000, 87_000_000, 1, 0.14),
        ] {
            let estimate = pace.estimate(&effort(what, Some(rows), bytes, indexes)).unwrap();
            assert!(
                estimate.from_seconds <= seconds && seconds <= estimate.to_seconds,
                "{what:?} {rows} {seconds}: {estimate:?}"
            );
        }
        assert_eq!(pace.estimate(&effort(What::Scan, None, 1_000_000_000, 0)), None);
        assert_eq!(pace.estimate(&effort(What::Rewrite, Some(1000), 8192, 5)), None);
    }
}
