//! From where in the server's write-ahead log a snapshot's unchanged blocks can be told from changed ones. Pure.
//!
//! The rule that makes it exact: every transaction that was in progress when the snapshot was taken wrote all it ever wrote
//! after [`WalBase::from`]. So the rows of a block that the log does not name after it were written by transactions that had
//! ended before the snapshot, and are the same for every later one (docs/exactness.md, E5 and E6).

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::copy_sql::BlockRange;

/// A position in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |half: &str| u32::from_str_radix(half, 16).map(u64::from);
        match text.split_once('/').map(|(high, low)| (parse(high), parse(low))) {
            Some((Ok(high), Ok(low))) => Ok(Self(high << 32 | low)),
            _ => Err(format!("\"{text}\" is not a position in the write-ahead log")),
        }
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One file of the server's WAL summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Its timeline.
    pub timeline: i64,
    /// Its first position.
    pub start: Lsn,
    /// The position after its last one.
    pub end: Lsn,
}

/// What a later snapshot needs to know to take over this one's chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalBase {
    /// `system_identifier` of the cluster.
    pub system_identifier: String,
    /// The timeline that was written to.
    pub timeline: i64,
    /// `pg_database.oid`.
    pub database_oid: u32,
    /// Every transaction that was in progress at the snapshot began after this position.
    pub from: Lsn,
    /// A position after the snapshot, up to which everything was durable when the snapshot was published.
    pub to: Lsn,
    /// The WAL summary that holds `to`: it must still be there, the same, or the server was put back to an earlier state.
    pub anchor: Anchor,
}

/// A WAL summary and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its first position.
    pub start: Lsn,
    /// The position after its last one.
    pub end: Lsn,
    /// Number of its lines, and a hash of them that does not depend on their order.
    pub content: String,
}

/// The summaries that together cover `from` to `to` without a gap, or why there are none.
pub fn covering(available: &[Summary], timeline: i64, from: Lsn, to: Lsn) -> Result<Vec<Summary>, String> {
    let mut own: Vec<Summary> = available
        .iter()
        .filter(|summary| summary.timeline == timeline && summary.end > from && summary.start < to)
        .copied()
        .collect();
    own.sort_by_key(|summary| (summary.start, summary.end));
    let mut reached = from;
    for summary in &own {
        if summary.start > reached {
            return Err(format!("the server's WAL summaries have a gap from {reached} to {}", summary.start));
        }
        reached = reached.max(summary.end);
    }
    if reached < to {
        return Err(format!("the server's WAL summaries end at {reached}, before {to}"));
    }
    Ok(own)
}

/// A set of small numbers, a bit each: a log may name every piece of a large table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, number: u64) {
        // A table has fewer than 2^32 blocks.
        let Ok(word) = usize::try_from(number.min(u64::from(u32::MAX)) / 64) else { return };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    /// How many numbers there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let bits = |(place, word): (u64, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| place * 64 + bit)
        };
        (0..).zip(&self.0).flat_map(bits)
    }

    /// Whether a number of the range is in the set.
    fn has_any(&self, first: u64, end: Option<u64>) -> bool {
        let limit = self.0.len() as u64 * 64;
        let end = end.unwrap_or(limit).min(limit);
        let mut at = first;
        while at < end {
            let (word, bit) = (self.0[usize::try_from(at / 64).unwrap_or(0)], at % 64);
            let next = at - bit + 64;
            let mask = if next <= end { u64::MAX } else { u64::MAX >> (next - end) };
            if word & mask & (u64::MAX << bit) != 0 {
                return true;
            }
            at = next;
        }
        false
    }
}

/// What the log says of one relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pieces with a changed block, by their number.
    pub pieces: Bits,
    /// The relation was made, truncated or extended anew from this block on.
    pub limit_block: Option<u64>,
}

/// What the log says of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// By `pg_relation_filenode`.
    pub relations: BTreeMap<u32, Touched>,
    /// The database as a whole was made anew.
    pub everything: bool,
}

impl Changes {
    /// Adds one line of a summary; `number` is a piece's number, or the block of a limit.
    pub fn add(&mut self, filenode: u32, is_limit: bool, number: u64) {
        if filenode == 0 {
            self.everything = true;
            return;
        }
        let touched = self.relations.entry(filenode).or_default();
        if is_limit {
            touched.limit_block = Some(touched.limit_block.map_or(number, |block| block.min(number)));
        } else {
            touched.pieces.insert(number);
        }
    }

    /// Whether a block of the range may have changed; the log was asked by pieces of `piece_blocks`, of which the range may
    /// be a part.
    pub fn reach(&self, filenode: u32, range: BlockRange, piece_blocks: u64) -> bool {
        if self.everything {
            return true;
        }
        let Some(touched) = self.relations.get(&filenode) else { return false };
        let end = range.end.map(|end| end.div_ceil(piece_blocks));
        let in_range = touched.pieces.has_any(range.first / piece_blocks, end);
        in_range || touched.limit_block.is_some_and(|block| range.end.is_none_or(|end| block < end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(start: u64, end: u64) -> Summary {
        Summary { timeline: 1, start: Lsn(start), end: Lsn(end) }
    }

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        assert_eq!(Lsn(0x1_0358_D7A0).to_string(), "1/358D7A0");
        assert_eq!("1/358D7A0".parse(), Ok(Lsn(0x1_0358_D7A0)));
        for bad in ["", "1", "1/", "x/1", "1/1/1", "1/100000000"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_unbroken_row_of_summaries_covers() {
        let row = [summary(10, 20), summary(20, 30), summary(30, 40)];
        assert_eq!(covering(&row, 1, Lsn(12), Lsn(28)).unwrap().len(), 2);
        assert_eq!(covering(&row, 1, Lsn(10), Lsn(40)).unwrap().len(), 3);
        assert!(covering(&row, 1, Lsn(9), Lsn(40)).is_err(), "begins too late");
        assert!(covering(&row, 1, Lsn(10), Lsn(41)).is_err(), "ends too early");
        assert!(covering(&[row[0], row[2]], 1, Lsn(12), Lsn(35)).is_err(), "a gap");
        assert!(covering(&row, 2, Lsn(12), Lsn(28)).is_err(), "another timeline");
        assert!(covering(&[], 1, Lsn(12), Lsn(12)).is_ok(), "nothing was written");
    }

    #[test]
    fn a_change_reaches_the_range_that_holds_its_block_and_the_open_end() {
        let mut changes = Changes::default();
        changes.add(5, false, 2);
        let range =
            |first: u64, end: Option<u64>| BlockRange { first: first * 10, end: end.map(|end| end * 10) };
        assert!(!changes.reach(5, range(0, Some(1)), 10));
        assert!(changes.reach(5, range(2, Some(3)), 10));
        assert!(!changes.reach(5, range(3, None), 10));
        assert!(changes.reach(5, range(1, None), 10));
        assert!(!changes.reach(6, range(0, None), 10), "another relation");
        // Nobody knows which block of the piece from 20 to 29 it was.
        for (first, end, reached) in [
            (20, Some(21), true),
            (29, Some(30), true),
            (15, Some(21), true),
            (16, Some(20), false),
            (30, Some(31), false),
        ] {
            assert_eq!(changes.reach(5, BlockRange { first, end }, 10), reached, "{first}");
        }
    }

    proptest::proptest! {
        #[test]
        fn bits_are_a_set(numbers in proptest::collection::btree_set(0_u64..400, 0..40), first in 0_u64..420, length in 0_u64..200) {
            let mut bits = Bits::default();
            numbers.iter().for_each(|number| bits.insert(*number));
            proptest::prop_assert_eq!(bits.has_any(first, Some(first + length)), numbers.range(first..first + length).next().is_some());
            proptest::prop_assert_eq!(bits.iter().collect::<Vec<_>>(), numbers.iter().copied().collect::<Vec<_>>());
            proptest::prop_assert_eq!(bits.count(), numbers.len());
            proptest::prop_assert_eq!(bits.has_any(first, None), numbers.range(first..).next().is_some());
        }
    }

    #[test]
    fn a_limit_reaches_everything_from_its_block_on() {
        let mut changes = Changes::default();
        changes.add(5, true, 30);
        changes.add(5, true, 15);
        let range = |first: u64, end: Option<u64>| BlockRange { first, end };
        assert!(!changes.reach(5, range(0, Some(10)), 10));
        assert!(changes.reach(5, range(10, Some(20)), 10));
        assert!(changes.reach(5, range(20, Some(30)), 10));
        assert!(changes.reach(5, range(0, None), 10));
        changes.add(0, true, 0);
        assert!(changes.reach(6, range(0, Some(10)), 10), "the database was made anew");
    }
}
