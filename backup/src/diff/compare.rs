//! The rows of one table on two sides.
//!
//! 1. Each side is read once, and its rows are summed up in buckets. Equal buckets: equal tables, and that was all. Of a snapshot whose
//!    columns are the compared ones the manifest has the sum already: where the other side has it too, the files are not read.
//! 2. Where buckets differ, each side is read again, and of the rows in these buckets the hashes are kept and put side by side: which
//!    rows are only on one side, and which keys have another row.
//! 3. The first of them are looked for once more, for their content.
//!
//! Both sides stand still meanwhile: a snapshot always does, a live database in its transaction, a file in the reader's.

use std::collections::{HashMap, HashSet};

use common::{Progress, Result};
use serde::Serialize;

use super::{
    file::{File, Selection},
    hashes::{Buckets, Differing, Group, Hashes, Sorter, join},
    live::Live,
    rows::{Passing, Shape, Taker, Value},
    stored::Snapshot,
};

/// One side. There are two of them in a comparison: their size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum Side {
    /// A snapshot.
    Snapshot(Snapshot),
    /// A live database.
    Live(Live),
    /// A SQLite file.
    File(File),
}

/// What is read of a side for one table.
#[derive(Debug, Clone)]
pub enum Part {
    /// Tables of PostgreSQL, with how each is read, and the client's encoding.
    Text(Vec<(usize, Shape)>, String),
    /// A table of SQLite.
    Cells(Selection),
}

/// One table on both sides.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// What is read of each side.
    pub sides: [Part; 2],
    /// Names of the compared columns.
    pub columns: Vec<String>,
    /// Of these the key, by place.
    pub key: Vec<usize>,
    /// Rows and the sum of their hashes, of sides where the manifest has them in this very form.
    pub known: [Option<(u64, u128)>; 2],
}

/// How much is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Differences that are told with their content.
    pub first: usize,
    /// Differences that are remembered for the next round.
    pub remembered: usize,
}

/// What was found of one table.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Rows on each side; nothing where they were not counted.
    pub rows: [u64; 2],
    /// Whether all compared values are equal.
    pub is_equal: bool,
    /// Rows that only the first side has.
    pub only_a: u64,
    /// Rows that only the second side has.
    pub only_b: u64,
    /// Rows of one key that differ.
    pub differing: u64,
    /// The first differences.
    pub first: Vec<RowDifference>,
    /// What tells each difference from any other, content included; as many as are remembered.
    pub identities: HashSet<u128>,
}

/// Differences that are remembered until the next round: 16 MiB and what a set adds.
pub const REMEMBERED: usize = 500_000;

/// In what a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Both sides have a row with this key, with other values.
    Differs,
    /// Only the first side has it.
    OnlyInA,
    /// Only the second side has it.
    OnlyInB,
}

/// A value on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDifference {
    /// The column.
    pub column: String,
    /// On the first side; null is NULL.
    pub a: Option<String>,
    /// On the second side.
    pub b: Option<String>,
    /// Why PostgreSQL's column can't hold the value of SQLite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowDifference {
    /// In what.
    pub how: How,
    /// The values of its key: column and value. Empty where the table has none.
    pub key: Vec<Named>,
    /// The columns that differ, where both sides have the row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnDifference>,
    /// The whole row, where only one side has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub row: Vec<Named>,
    /// How many rows like it there are more on this side.
    pub times: u64,
    /// It was there in the round before, with the same content on both sides; nothing where there was no round before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    #[serde(skip)]
    identity: u128,
}

/// A column with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The column.
    pub column: String,
    /// Its value; null is NULL.
    pub value: Option<String>,
    /// Why PostgreSQL's column can't hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Side {
    async fn scan<T: Taker>(&self, part: &Part, taker: T, progress: &Progress) -> Result<T> {
        match (self, part) {
            (Self::Snapshot(side), Part::Text(tables, _)) => side.scan(tables, taker, progress).await,
            (Self::Live(side), Part::Text(tables, encoding)) => {
                side.scan(tables, encoding, taker, progress).await
            }
            (Self::File(side), Part::Cells(selection)) => side.scan(selection, taker, progress).await,
            _ => Err(common::Error::failed("a side was asked for rows of another kind")),
        }
    }
}

struct Summing(Buckets);

impl Taker for Summing {
    fn take(&mut self, hashes: Hashes, _: &dyn Passing) -> Result<bool> {
        self.0.add(hashes);
        Ok(false)
    }
}

struct Collecting {
    differing: Differing,
    sorter: Sorter,
}

impl Taker for Collecting {
    fn take(&mut self, hashes: Hashes, _: &dyn Passing) -> Result<bool> {
        if self.differing.has(hashes) {
            self.sorter.push(hashes)?;
        }
        Ok(false)
    }
}

struct Finding {
    wanted: HashSet<Hashes>,
    found: HashMap<Hashes, Vec<Value>>,
}

impl Taker for Finding {
    fn take(&mut self, hashes: Hashes, row: &dyn Passing) -> Result<bool> {
        if self.wanted.remove(&hashes) {
            self.found.insert(hashes, row.values());
        }
        Ok(self.wanted.is_empty())
    }
}

/// Compares the rows of a table.
///
/// # Errors
/// What keeps a side from being read.
pub async fn compare(
    sides: [&Side; 2],
    pair: &Pair,
    depth: Depth,
    before: Option<&HashSet<u128>>,
    progress: &Progress,
) -> Result<Found> {
    progress.step(pair.name.clone());
    let [a, b] = sides;
    let [part_a, part_b] = &pair.sides;
    if let ([Some(known_a), Some(known_b)], true) =
        (pair.known, pair.known[0] == pair.known[1] || depth.first == 0)
    {
        let is_equal = known_a == known_b;
        return Ok(Found { rows: [known_a.0, known_b.0], is_equal, ..Found::default() });
    }
    // What is known of one side is compared with the other before anything is read of it.
    let sum = async |side: &Side, part: &Part| {
        Ok::<_, common::Error>(side.scan(part, Summing(Buckets::default()), progress).await?.0)
    };
    let as_known = |buckets: &Buckets, known: Option<(u64, u128)>| {
        known.is_some_and(|known| known == (buckets.rows(), buckets.sum()))
    };
    let (sums_a, sums_b) = match pair.known {
        [Some(known), None] => {
            let sums = sum(b, part_b).await?;
            if as_known(&sums, Some(known)) {
                return Ok(Found { rows: [known.0; 2], is_equal: true, ..Found::default() });
            }
            (sum(a, part_a).await?, sums)
        }
        [None, Some(known)] => {
            let sums = sum(a, part_a).await?;
            if as_known(&sums, Some(known)) {
                return Ok(Found { rows: [known.0; 2], is_equal: true, ..Found::default() });
            }
            let other = sum(b, part_b).await?;
            (sums, other)
        }
        _ => tokio::try_join!(sum(a, part_a), sum(b, part_b))?,
    };
    let mut found = Found { rows: [sums_a.rows(), sums_b.rows()], ..Found::default() };
    let Some(differing) = sums_a.differing(&sums_b) else {
        found.is_equal = true;
        return Ok(found);
    };
    drop((sums_a, sums_b));
    if depth.first == 0 {
        return Ok(found);
    }
    let collecting = || Collecting { differing: differing.clone(), sorter: Sorter::default() };
    let (rows_a, rows_b) =
        tokio::try_join!(a.scan(part_a, collecting(), progress), b.scan(part_b, collecting(), progress))?;
    let (sorted_a, sorted_b) = (rows_a.sorter.sorted()?, rows_b.sorter.sorted()?);
    let mut wanted: Vec<Wanted> = Vec::new();
    let has_key = !pair.key.is_empty();
    join(sorted_a, sorted_b, |group| {
        common::interrupt::check()?;
        note(&mut found, &mut wanted, group, has_key, depth);
        Ok(())
    })?;
    let of_side = |row: fn(&Wanted) -> Option<u128>| {
        let rows = wanted.iter().filter_map(|one| Some(Hashes { key: one.key, row: row(one)? }));
        Finding { wanted: rows.collect(), found: HashMap::new() }
    };
    let (find_a, find_b) = (of_side(|one| one.a), of_side(|one| one.b));
    let (found_a, found_b) =
        tokio::try_join!(look(a, part_a, find_a, progress), look(b, part_b, find_b, progress))?;
    found.first = wanted.iter().filter_map(|one| told(one, pair, &found_a, &found_b, before)).collect();
    found.first.sort_by_cached_key(|one| (one.key.iter().map(order).collect::<Vec<_>>(), one.how));
    Ok(found)
}

async fn look(
    side: &Side,
    part: &Part,
    finding: Finding,
    progress: &Progress,
) -> Result<HashMap<Hashes, Vec<Value>>> {
    if finding.wanted.is_empty() {
        return Ok(HashMap::new());
    }
    Ok(side.scan(part, finding, progress).await?.found)
}

/// A difference whose content is looked for.
struct Wanted {
    key: u128,
    a: Option<u128>,
    b: Option<u128>,
    times: u64,
    identity: u128,
}

/// Counts the differences of a key, and takes the first of them up.
fn note(found: &mut Found, wanted: &mut Vec<Wanted>, group: &Group, has_key: bool, depth: Depth) {
    let first = depth.first;
    let identity = identity(group);
    if found.identities.len() < depth.remembered {
        found.identities.insert(identity);
    }
    let (in_a, in_b) = (group.a.total, group.b.total);
    let both = if has_key { in_a.min(in_b) } else { 0 };
    found.differing += both;
    found.only_a += in_a - both;
    found.only_b += in_b - both;
    let room = |wanted: &Vec<Wanted>| first.saturating_sub(wanted.len());
    let one = |a, b, times| Wanted { key: group.key, a, b, times, identity };
    if both == 0 {
        for (row, times) in group.a.rows.iter().take(room(wanted)) {
            wanted.push(one(Some(*row), None, *times));
        }
        for (row, times) in group.b.rows.iter().take(room(wanted)) {
            wanted.push(one(None, Some(*row), *times));
        }
        return;
    }
    // A key that is there once on each side, as a rule. Where it is not, rows are put side by side as they come.
    let flat = |rows: &[(u128, u64)]| {
        let each = rows.iter().flat_map(|(row, count)| {
            let count = usize::try_from(*count).unwrap_or(usize::MAX).min(first);
            std::iter::repeat_n(*row, count)
        });
        each.take(first).collect::<Vec<u128>>()
    };
    let (rows_a, rows_b) = (flat(&group.a.rows), flat(&group.b.rows));
    for at in 0..rows_a.len().max(rows_b.len()).min(room(wanted)) {
        wanted.push(one(rows_a.get(at).copied(), rows_b.get(at).copied(), 1));
    }
}

/// What tells these rows of this key from any other.
fn identity(group: &Group) -> u128 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&group.key.to_le_bytes());
    for (side, rows) in [(b"a", &group.a), (b"b", &group.b)] {
        hasher.update(side);
        hasher.update(&rows.sum.to_le_bytes());
        hasher.update(&rows.total.to_le_bytes());
    }
    hasher.digest128()
}

type Rows = HashMap<Hashes, Vec<Value>>;

/// A difference with its content.
fn told(
    wanted: &Wanted,
    pair: &Pair,
    found_a: &Rows,
    found_b: &Rows,
    before: Option<&HashSet<u128>>,
) -> Option<RowDifference> {
    let of = |found: &'_ Rows, row: Option<u128>| found.get(&Hashes { key: wanted.key, row: row? }).cloned();
    let (a, b) = (of(found_a, wanted.a), of(found_b, wanted.b));
    let named = |values: &[Value], at: usize| Named {
        column: pair.columns[at].clone(),
        value: values[at].text.clone(),
        why: values[at].unfit.clone(),
    };
    let key = |values: &[Value]| pair.key.iter().map(|at| named(values, *at)).collect::<Vec<_>>();
    let row = |values: &[Value]| (0..values.len()).map(|at| named(values, at)).collect::<Vec<_>>();
    let settled = before.map(|before| before.contains(&wanted.identity));
    let (times, identity) = (wanted.times, wanted.identity);
    let difference =
        |how, key, columns, row| RowDifference { how, key, columns, row, times, settled, identity };
    Some(match (a, b) {
        (Some(a), Some(b)) => {
            let differs = |at: &usize| a[*at].form != b[*at].form;
            let column = |at: usize| ColumnDifference {
                column: pair.columns[at].clone(),
                a: a[at].text.clone(),
                b: b[at].text.clone(),
                why: a[at].unfit.clone().or_else(|| b[at].unfit.clone()),
            };
            let columns = (0..a.len()).filter(differs).map(column).collect();
            difference(How::Differs, key(&a), columns, Vec::new())
        }
        (Some(a), None) => difference(How::OnlyInA, key(&a), Vec::new(), row(&a)),
        (None, Some(b)) => difference(How::OnlyInB, key(&b), Vec::new(), row(&b)),
        (None, None) => return None,
    })
}

/// Numbers by their value, everything else by its text.
fn order(named: &Named) -> (Option<i128>, Option<String>) {
    let number = named.value.as_ref().and_then(|value| value.parse().ok());
    (number, named.value.clone())
}
