//! Faults of PostgreSQL itself that matter to backups, and the minor releases that mend them. Pure.
//!
//! Source: the release notes of PostgreSQL's minor releases. Those of 2026-11-12 were seen for 15.20 only; for the other
//! majors the number is counted from the releases of 2026-08-13 (14.24, 15.19, 16.15, 17.11, 18.6), which all majors have
//! one after the other. What is not known to be mended counts as not mended: that costs time, the opposite costs rows.

/// A fault that a minor release mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    /// "Fix snapshot export and import to work properly on a snapshot taken during recovery": whoever imports such a
    /// snapshot takes open transactions with more than 64 subtransactions for aborted, and marks their rows so for good.
    StandbySnapshots,
    /// B-trees on `bpchar` without a length, indexes with `gist_trgm_ops`, GIN indexes after heavy vacuums, and TOAST indexes
    /// after REINDEX CONCURRENTLY may be wrong where they were made before; the notes say to REINDEX them.
    WrongIndexes,
    /// Servers mark the columns of tables with an option `pg_attver`, which clients of the same day and later leave out of dumps.
    ColumnMarks,
    /// A parallel pg_restore could make a foreign key before the index that it needs was attached to its partitioned one.
    EarlyForeignKeys,
}

impl Fix {
    /// Every fault that is known.
    pub const ALL: [Self; 4] =
        [Self::StandbySnapshots, Self::WrongIndexes, Self::ColumnMarks, Self::EarlyForeignKeys];

    /// The first minor release of `major` that has it; none where none is known.
    fn first_minor(major: i32) -> Option<i32> {
        // All of them came on the same day.
        match major {
            14 => Some(25),
            15 => Some(20),
            16 => Some(16),
            17 => Some(12),
            18 => Some(7),
            19 => Some(1),
            20.. => Some(0),
            _ => None,
        }
    }

    /// Whether a server of this `server_version_num` (150020 for 15.20) is known to have it.
    pub fn is_in(self, version_num: i32) -> bool {
        Self::first_minor(version_num / 10_000).is_some_and(|first| version_num % 10_000 >= first)
    }

    /// The release to upgrade to, such as `17.12`.
    pub fn release(self, version_num: i32) -> Option<String> {
        let major = version_num / 10_000;
        Self::first_minor(major).map(|minor| format!("{major}.{minor}"))
    }

    /// The last release of a major version that gets no more, if this is one; by the date of the notes above.
    pub fn last_of_its_major(version_num: i32) -> Option<&'static str> {
        // 14's support ended with the releases of 2026-11-12; what is older ended before.
        (version_num < 150_000).then_some("14.25")
    }

    /// What an upgrade mends, for a person; nothing where it mends nothing by itself.
    pub fn mends(self) -> Option<&'static str> {
        Some(match self {
            Self::ColumnMarks => return None,
            Self::StandbySnapshots => {
                "on a hot standby, sessions that share a snapshot can make rows of open transactions vanish for good; until \
                 then one session alone reads a standby"
            }
            Self::WrongIndexes => {
                "B-trees on bpchar without a length, gist_trgm_ops, GIN after heavy vacuums and TOAST indexes after REINDEX \
                 CONCURRENTLY may be wrong"
            }
            Self::EarlyForeignKeys => {
                "a parallel pg_restore may make foreign keys of partitioned tables too early"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_that_are_known_to_be_mended_count_as_mended() {
        for fix in Fix::ALL {
            for (version, is_in) in [
                (140_024, false),
                (140_025, true),
                (150_018, false),
                (150_019, false),
                (150_020, true),
                (160_015, false),
                (170_010, false),
                (170_012, true),
                (180_006, false),
                (180_007, true),
                (190_000, false),
                (130_023, false),
                (0, false),
            ] {
                assert_eq!(fix.is_in(version), is_in, "{fix:?} {version}");
            }
            assert_eq!(fix.release(180_006).as_deref(), Some("18.7"));
        }
    }
}
