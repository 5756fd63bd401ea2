//! Rows as hashes: what two sides exchange instead of their content. Pure.
//!
//! A row has a hash of its key and one of all compared values. [`Buckets`] sums rows up by their key's hash, in memory that does not
//! grow with the table: where two buckets are equal, so are their rows. Of the others [`Sorter`] keeps the two hashes of each row, in
//! order, on disk where they are many; [`join`] puts the two sides together.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use common::{Error, Result};

/// One row: the hash of its key, and of all its compared values. Without a key both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hashes {
    /// Of the key.
    pub key: u128,
    /// Of the whole row.
    pub row: u128,
}

/// Number of buckets: 2 MiB of sums for each side, and of ten million rows some 150 in each.
const BUCKETS: usize = 1 << 16;

/// Rows by the hash of their key: how many, and the sum of their hashes modulo 2^128.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    sums: Vec<(u64, u128)>,
    rows: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { sums: vec![(0, 0); BUCKETS], rows: 0 }
    }
}

impl Buckets {
    fn place(key: u128) -> usize {
        // The highest bits: rows are sorted by the whole hash, so that buckets stay together.
        usize::try_from(key >> (128 - BUCKETS.trailing_zeros())).unwrap_or(0)
    }

    /// Takes a row in.
    pub fn add(&mut self, row: Hashes) {
        let (count, sum) = &mut self.sums[Self::place(row.key)];
        *count += 1;
        *sum = sum.wrapping_add(row.row);
        self.rows += 1;
    }

    /// Rows in all of them.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The sum of all rows' hashes.
    pub fn sum(&self) -> u128 {
        self.sums.iter().fold(0, |all, (_, sum)| all.wrapping_add(*sum))
    }

    /// Which buckets have other rows on the other side; nothing where all are equal.
    pub fn differing(&self, other: &Self) -> Option<Differing> {
        let differs: Vec<bool> = self.sums.iter().zip(&other.sums).map(|(one, two)| one != two).collect();
        differs.contains(&true).then_some(Differing(differs.into()))
    }
}

/// The buckets in which rows differ.
#[derive(Debug, Clone)]
pub struct Differing(Arc<[bool]>);

impl Differing {
    /// Whether a row lies in one of them.
    pub fn has(&self, row: Hashes) -> bool {
        self.0[Buckets::place(row.key)]
    }
}

/// Rows of one side that are held in memory until they are sorted and written: 32 MiB.
const ROWS_IN_MEMORY: usize = 1 << 20;
/// Rows of a run that are read back at once.
const ROWS_AT_ONCE: usize = 2048;
/// Bytes of a row on disk.
const ROW_BYTES: usize = 32;

/// Sorts rows by their hashes. More than a million are kept in a file that has no name.
#[derive(Debug)]
pub struct Sorter {
    memory: Vec<Hashes>,
    most: usize,
    file: Option<File>,
    /// Where each sorted run lies in the file: first row and the one after the last.
    runs: Vec<(u64, u64)>,
}

impl Default for Sorter {
    fn default() -> Self {
        Self::with_memory_for(ROWS_IN_MEMORY)
    }
}

// Stands behind map_err, which gives the error away.
#[allow(clippy::needless_pass_by_value)]
fn spilled(source: io::Error) -> Error {
    Error::failed(format!("could not keep the hashes of rows in a temporary file: {source}"))
        .with_hint("Free some space where temporary files lie, or set TMPDIR to another folder.")
}

impl Sorter {
    /// With room for so many rows in memory.
    pub fn with_memory_for(most: usize) -> Self {
        Self { memory: Vec::new(), most: most.max(1), file: None, runs: Vec::new() }
    }

    /// Takes a row in.
    ///
    /// # Errors
    /// The temporary file can't be written.
    pub fn push(&mut self, row: Hashes) -> Result<()> {
        self.memory.push(row);
        if self.memory.len() >= self.most { self.spill().map_err(spilled) } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.memory.sort_unstable();
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        let first = self.runs.last().map_or(0, |run| run.1);
        let mut bytes = Vec::with_capacity(ROWS_AT_ONCE * ROW_BYTES);
        let mut at = first;
        for part in self.memory.chunks(ROWS_AT_ONCE) {
            bytes.clear();
            for row in part {
                bytes.extend_from_slice(&row.key.to_le_bytes());
                bytes.extend_from_slice(&row.row.to_le_bytes());
            }
            file.write_all_at(&bytes, at * ROW_BYTES as u64)?;
            at += part.len() as u64;
        }
        self.runs.push((first, at));
        self.memory.clear();
        Ok(())
    }

    /// All rows in order.
    ///
    /// # Errors
    /// The temporary file can't be written.
    pub fn sorted(mut self) -> Result<Sorted> {
        let Some(file) = self.file.take() else {
            self.memory.sort_unstable();
            let run = Run { file: None, next: 0, end: 0, rows: self.memory, at: 0 };
            return Ok(Sorted { runs: vec![run] });
        };
        self.file = Some(file);
        if !self.memory.is_empty() {
            self.spill().map_err(spilled)?;
        }
        let file = self.file.map(Arc::new);
        let run = |(next, end): &(u64, u64)| Run {
            file: file.clone(),
            next: *next,
            end: *end,
            rows: Vec::new(),
            at: 0,
        };
        Ok(Sorted { runs: self.runs.iter().map(run).collect() })
    }
}

#[derive(Debug)]
struct Run {
    file: Option<Arc<File>>,
    next: u64,
    end: u64,
    rows: Vec<Hashes>,
    at: usize,
}

impl Run {
    fn head(&mut self) -> io::Result<Option<Hashes>> {
        if self.at == self.rows.len() && self.next < self.end {
            let count = usize::try_from(self.end - self.next).unwrap_or(ROWS_AT_ONCE).min(ROWS_AT_ONCE);
            let mut bytes = vec![0; count * ROW_BYTES];
            if let Some(file) = &self.file {
                file.read_exact_at(&mut bytes, self.next * ROW_BYTES as u64)?;
            }
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u128::from_le_bytes);
            let row = |row: &[u8]| Hashes { key: number(&row[..16]), row: number(&row[16..]) };
            self.rows = bytes.chunks_exact(ROW_BYTES).map(row).collect();
            self.next += count as u64;
            self.at = 0;
        }
        Ok(self.rows.get(self.at).copied())
    }
}

/// Rows in the order of their hashes.
#[derive(Debug)]
pub struct Sorted {
    runs: Vec<Run>,
}

impl Sorted {
    /// The next row that is not like the one before, and how often it is there.
    fn next(&mut self) -> Result<Option<(Hashes, u64)>> {
        let mut smallest: Option<Hashes> = None;
        for run in &mut self.runs {
            if let Some(row) = run.head().map_err(spilled)? {
                smallest = Some(smallest.map_or(row, |other| other.min(row)));
            }
        }
        let Some(row) = smallest else { return Ok(None) };
        let mut count = 0;
        for run in &mut self.runs {
            while run.head().map_err(spilled)? == Some(row) {
                run.at += 1;
                count += 1;
            }
        }
        Ok(Some((row, count)))
    }
}

/// Different rows of one key that are kept one by one; of more, their number and the sum of their hashes.
const ROWS_OF_A_KEY: usize = 1 << 14;

/// Rows of one key that one side has and the other has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Their hashes, and how many more of each there are. Only the first of very many.
    pub rows: Vec<(u128, u64)>,
    /// How many there are of all.
    pub total: u64,
    /// What tells all of them from others.
    pub sum: u128,
}

impl Surplus {
    fn add(&mut self, row: u128, count: u64) {
        self.total += count;
        self.sum = self.sum.wrapping_add(row.wrapping_mul(u128::from(count)));
        if self.rows.len() < ROWS_OF_A_KEY {
            self.rows.push((row, count));
        }
    }
}

/// Rows of one key that are not on both sides alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The hash of the key.
    pub key: u128,
    /// What the first side has more.
    pub a: Surplus,
    /// What the second side has more.
    pub b: Surplus,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.a.total == 0 && self.b.total == 0
    }
}

/// Gives each key whose rows differ to `found`.
///
/// # Errors
/// The temporary file can't be read; what `found` fails with.
pub fn join(mut a: Sorted, mut b: Sorted, mut found: impl FnMut(&Group) -> Result<()>) -> Result<()> {
    let (mut next_a, mut next_b) = (a.next()?, b.next()?);
    let mut group = Group::default();
    loop {
        let row = match (next_a, next_b) {
            (Some((one, _)), Some((two, _))) => one.min(two),
            (Some((one, _)), None) | (None, Some((one, _))) => one,
            (None, None) => break,
        };
        if row.key != group.key {
            if !group.is_empty() {
                found(&group)?;
            }
            group = Group { key: row.key, ..Group::default() };
        }
        let take = |next: &mut Option<(Hashes, u64)>, side: &mut Sorted| -> Result<u64> {
            match *next {
                Some((there, count)) if there == row => {
                    *next = side.next()?;
                    Ok(count)
                }
                _ => Ok(0),
            }
        };
        let (in_a, in_b) = (take(&mut next_a, &mut a)?, take(&mut next_b, &mut b)?);
        if in_a > in_b {
            group.a.add(row.row, in_a - in_b);
        } else if in_b > in_a {
            group.b.add(row.row, in_b - in_a);
        }
    }
    if group.is_empty() { Ok(()) } else { found(&group) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sorted(rows: &[(u8, u8)], memory: usize) -> Sorted {
        let mut sorter = Sorter::with_memory_for(memory);
        for (key, row) in rows {
            sorter.push(hashes(*key, *row)).unwrap();
        }
        sorter.sorted().unwrap()
    }

    fn hashes(key: u8, row: u8) -> Hashes {
        // In the highest bits, as hashes are: else all would lie in one bucket.
        Hashes { key: u128::from(key) << 120, row: u128::from(row) }
    }

    #[test]
    fn where_no_temporary_file_can_be_written_another_folder_is_named_as_the_way_out() {
        let error = spilled(io::Error::from(io::ErrorKind::StorageFull));
        assert!(error.message().contains("temporary file"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("or set TMPDIR to another folder")));
    }

    proptest::proptest! {
        #[test]
        fn a_join_finds_exactly_what_counting_finds(
            a in proptest::collection::vec((0_u8..6, 0_u8..4), 0..60),
            b in proptest::collection::vec((0_u8..6, 0_u8..4), 0..60),
            memory in 1_usize..20,
        ) {
            let mut counts: BTreeMap<Hashes, i64> = BTreeMap::new();
            a.iter().for_each(|(key, row)| *counts.entry(hashes(*key, *row)).or_default() += 1);
            b.iter().for_each(|(key, row)| *counts.entry(hashes(*key, *row)).or_default() -= 1);
            counts.retain(|_, count| *count != 0);
            let mut found: BTreeMap<Hashes, i64> = BTreeMap::new();
            join(sorted(&a, memory), sorted(&b, memory), |group| {
                for (side, sign) in [(&group.a, 1), (&group.b, -1)] {
                    for (row, count) in &side.rows {
                        let row = Hashes { key: group.key, row: *row };
                        assert!(found.insert(row, sign * i64::try_from(*count).unwrap()).is_none());
                    }
                }
                Ok(())
            }).unwrap();
            proptest::prop_assert_eq!(found, counts);
        }

        #[test]
        fn buckets_differ_where_rows_do(
            a in proptest::collection::vec((0_u8..6, 0_u8..4), 0..40),
            b in proptest::collection::vec((0_u8..6, 0_u8..4), 0..40),
        ) {
            let fill = |rows: &[(u8, u8)]| {
                let mut buckets = Buckets::default();
                rows.iter().for_each(|(key, row)| buckets.add(hashes(*key, *row)));
                buckets
            };
            let differing = fill(&a).differing(&fill(&b));
            let of = |rows: &[(u8, u8)], key: u8| {
                let mut found: Vec<u8> = rows.iter().filter(|row| row.0 == key).map(|row| row.1).collect();
                found.sort_unstable();
                found
            };
            for key in 0..6 {
                let is_in = differing.as_ref().is_some_and(|differing| differing.has(hashes(key, 0)));
                let (one, two) = (of(&a, key), of(&b, key));
                // The sums of these small numbers may be equal by chance; of hashes they are not.
                let equal_sums = one.len() == two.len()
                    && one.iter().map(|row| u32::from(*row)).sum::<u32>() == two.iter().map(|row| u32::from(*row)).sum::<u32>();
                proptest::prop_assert_eq!(is_in, !equal_sums);
            }
        }
    }
}
