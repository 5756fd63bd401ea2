//! Snapshot ids: `20261121T034149Z-shop-7f3k9q`. They sort by time, and any unique prefix names one. The first two of the
//! last six characters are the part of the second, in steps of 1/784 s, so that ids of one second sort by time too.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, Timelike as _, Utc};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Characters of the tail, in the order of ASCII: no vowels, no look-alikes, so that an id never spells anything and reads
/// well aloud.
const ALPHABET: &[u8; 29] = b"23456789bcdfghjkmnpqrstvwxyz_";
const TAIL_CHARS: usize = 6;
/// The tail is a number of six digits in this base: the underscore is left out.
const BASE: u64 = 28;
/// Tails that one step of 1/784 s has.
const RANDOM: u64 = BASE.pow(4);
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// Longest database part; ids are folder names and have to stay readable in a table.
const MAX_DATABASE_CHARS: usize = 24;

/// The name of a snapshot and of its folder. Only `[a-z0-9_-]`, `T` and `Z`: safe as a file name everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// Makes an id; `random` decides the last four characters.
    pub fn new(at: DateTime<Utc>, database: &str, random: u64) -> Self {
        let mut slug: String = database
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' })
            .take(MAX_DATABASE_CHARS)
            .collect();
        if slug.is_empty() {
            slug.push('_');
        }
        // A leap second has more nanoseconds than the others; it sorts as the end of its second.
        let nanos = u64::from(at.nanosecond().min(999_999_999));
        let mut rest = nanos * BASE.pow(2) / 1_000_000_000 * RANDOM + random % RANDOM;
        let mut tail = [0; TAIL_CHARS];
        for digit in tail.iter_mut().rev() {
            *digit = ALPHABET[(rest % BASE) as usize];
            rest /= BASE;
        }
        let tail = String::from_utf8_lossy(&tail);
        Self(format!("{}-{slug}-{tail}", at.format(TIME_FORMAT)))
    }

    /// Reads an id back; anything that could not have come from [`SnapshotId::new`] is refused.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::usage(format!("\"{}\" is not a snapshot id", crate::ident::printable(text)));
        let (time, rest) = text.split_once('-').ok_or_else(invalid)?;
        let (slug, tail) = rest.rsplit_once('-').ok_or_else(invalid)?;
        let slug_ok = !slug.is_empty()
            && slug.len() <= MAX_DATABASE_CHARS
            && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let tail_ok = tail.len() == TAIL_CHARS && tail.bytes().all(|b| b != b'_' && ALPHABET.contains(&b));
        if time.len() == 16 && NaiveDateTime::parse_from_str(time, TIME_FORMAT).is_ok() && slug_ok && tail_ok
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid())
        }
    }

    /// When the snapshot was taken, to the second.
    pub fn taken_at(&self) -> DateTime<Utc> {
        let time = self.0.split('-').next().unwrap_or_default();
        NaiveDateTime::parse_from_str(time, TIME_FORMAT).map_or(DateTime::UNIX_EPOCH, |time| time.and_utc())
    }

    /// Whether a snapshot of the database `name` could have this id. Several names may have the same letters here.
    pub fn may_be_of(&self, name: &str) -> bool {
        let slug = |id: &Self| id.0.split('-').nth(1).map(str::to_owned);
        slug(self) == slug(&Self::new(DateTime::UNIX_EPOCH, name, 0))
    }

    /// The id as text; also the name of its folder.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SnapshotId {
    /// Ids from files become paths: only well-formed ones are taken.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_sort_by_time_and_name_the_database() {
        let early = Utc.with_ymd_and_hms(2026, 11, 21, 3, 41, 49).unwrap();
        let a = SnapshotId::new(early, "Shop/../x", u64::MAX);
        let b = SnapshotId::new(early + chrono::Duration::seconds(1), "a", 0);
        assert!(a < b);
        assert!(a.as_str().starts_with("20261121T034149Z-shop____x-"));
        assert_eq!(a.taken_at(), early);
    }

    #[test]
    fn ids_of_one_database_and_one_second_sort_by_the_part_of_the_second() {
        let second = Utc.with_ymd_and_hms(2026, 11, 21, 3, 41, 49).unwrap();
        let at = |millis| SnapshotId::new(second + chrono::Duration::milliseconds(millis), "shop", 0).0;
        assert_eq!(
            (at(0), at(999)),
            ("20261121T034149Z-shop-222222".into(), "20261121T034149Z-shop-zz2222".into())
        );
        let made: Vec<_> = (0..500).map(|number| at(number * 2)).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn anything_that_could_leave_the_folder_is_refused() {
        for bad in [
            "",
            "latest",
            "20261121T034149Z-shop",
            "20261121T034149Z-..-7f3k9q",
            "20261121T034149Z-a/b-7f3k9q",
        ] {
            assert!(SnapshotId::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_made_id_reads_back(seconds in 0i64..4_000_000_000, database in ".{0,80}", random: u64) {
            let id = SnapshotId::new(DateTime::from_timestamp(seconds, 0).unwrap(), &database, random);
            prop_assert_eq!(SnapshotId::parse(id.as_str()).unwrap(), id);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            let _ = SnapshotId::parse(&text);
        }
    }
}
