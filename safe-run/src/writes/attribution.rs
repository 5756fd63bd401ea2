//! Whose a transaction is, as far as that can be known. Pure: the journal's steps are all it knows.
//!
//! A transaction that the snapshot saw is in the snapshot. Transactions of our own session are written down before they
//! commit. What ran beside a command, or beside a statement outside of a transaction of ours, may be its own or another's:
//! that is unknown, and never guessed. Every other transaction is certainly another's.

use std::collections::BTreeSet;

use crate::journal::Step;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The run's own.
    Ours,
    /// The command's, or that of a statement outside of a transaction, or another's.
    Unknown,
    /// Certainly another's.
    Others,
}

/// What the journal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    xmin: u64,
    xmax: u64,
    in_progress: BTreeSet<u64>,
    ours: BTreeSet<u32>,
    unknown: Vec<(u64, Option<u64>)>,
}

impl Attribution {
    /// Reads the steps; `None` if the run had not come so far that anything was saved.
    pub fn of(steps: &[Step]) -> Option<Self> {
        let mut found: Option<Self> = None;
        for step in steps {
            match (step, found.as_mut()) {
                (Step::SavingSince { snapshot }, _) => found = Self::since(snapshot),
                (Step::OwnTransaction { xid }, Some(found)) => {
                    found.ours.insert(low(*xid));
                }
                (Step::UnknownFrom { xid }, Some(found)) => found.unknown.push((*xid, None)),
                (Step::UnknownTo { xid }, Some(found)) => {
                    if let Some((_, to @ None)) = found.unknown.last_mut() {
                        *to = Some(*xid);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The text of a `pg_snapshot`: `xmin:xmax:xip,…`.
    fn since(snapshot: &str) -> Option<Self> {
        let mut parts = snapshot.split(':');
        let mut number = || parts.next()?.parse().ok();
        let (xmin, xmax) = (number()?, number()?);
        let in_progress = parts.next()?.split(',').filter(|xid| !xid.is_empty());
        let in_progress = in_progress.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { xmin, xmax, in_progress, ours: BTreeSet::new(), unknown: Vec::new() })
    }

    /// Whose the transaction is; `None` if the snapshot has it.
    pub fn whose(&self, xid: u32) -> Option<Whose> {
        let full = self.full(xid);
        let is_in_snapshot = full < self.xmin || (full < self.xmax && !self.in_progress.contains(&full));
        if is_in_snapshot {
            return None;
        }
        let is_between = |&(from, to): &(u64, Option<u64>)| full >= from && to.is_none_or(|to| full < to);
        Some(if self.ours.contains(&xid) {
            Whose::Ours
        } else if self.unknown.iter().any(is_between) {
            Whose::Unknown
        } else {
            Whose::Others
        })
    }

    /// The whole id: the log holds its lower half, which is less than half a turn away from the snapshot's.
    fn full(&self, xid: u32) -> u64 {
        let ahead = xid.wrapping_sub(low(self.xmax)).cast_signed();
        self.xmax.saturating_add_signed(i64::from(ahead))
    }
}

/// The half of an id that the log holds.
fn low(xid: u64) -> u32 {
    (xid & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_snapshot_saw_is_left_out_and_the_rest_has_an_owner() {
        let since = Step::SavingSince { snapshot: "100:110:100,105".to_owned() };
        let steps = [
            since,
            Step::OwnTransaction { xid: 112 },
            Step::UnknownFrom { xid: 115 },
            Step::UnknownTo { xid: 118 },
            Step::UnknownFrom { xid: 120 },
        ];
        let found = Attribution::of(&steps).unwrap();
        for (xid, whose) in [
            (99, None),
            (101, None),
            (109, None),
            (100, Some(Whose::Others)),
            (105, Some(Whose::Others)),
            (110, Some(Whose::Others)),
            (112, Some(Whose::Ours)),
            (115, Some(Whose::Unknown)),
            (117, Some(Whose::Unknown)),
            (118, Some(Whose::Others)),
            (4000, Some(Whose::Unknown)),
        ] {
            assert_eq!(found.whose(xid), whose, "{xid}");
        }
        assert_eq!(Attribution::of(&[Step::Applying]), None);
        let none = Step::SavingSince { snapshot: "7:7:".to_owned() };
        assert_eq!(Attribution::of(&[none]).unwrap().whose(7), Some(Whose::Others));
    }

    #[test]
    fn ids_go_on_after_they_have_turned() {
        let turn = 1u64 << 32;
        let snapshot = format!("{}:{}:", 3 * turn - 2, 3 * turn - 1);
        let steps = [Step::SavingSince { snapshot }, Step::OwnTransaction { xid: 3 * turn + 5 }];
        let found = Attribution::of(&steps).unwrap();
        assert_eq!(found.whose(u32::MAX - 2), None);
        assert_eq!(found.whose(u32::MAX), Some(Whose::Others));
        assert_eq!(found.whose(4), Some(Whose::Others));
        assert_eq!(found.whose(5), Some(Whose::Ours));
    }
}
