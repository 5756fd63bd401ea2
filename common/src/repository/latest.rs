//! Which snapshot `latest` means: the one that this repository published last.
//!
//! Dates alone do not tell: a clock may have been wrong. So each publishing writes a line into `published.jsonl` *before* the
//! rename, and a snapshot counts as later than all that were published before it, whatever its date. What came from elsewhere,
//! or before there was such a file, stands where its date puts it.
//!
//! What it must never do: skip a snapshot in silence because it is damaged, or take one whose date is wrong.

use std::{collections::HashMap, io::Write, path::Path};

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::{Listed, Repository, StoredSnapshot};
use crate::{
    Error, ErrorKind, Result,
    files::{open_to_append, read_plain_text},
    ident::printable,
    snapshot::SnapshotId,
};

/// The file with the order of publishing, below the repository's folder.
pub(super) const PUBLISHED: &str = "published.jsonl";

/// How far the clocks of a server and of the machine that looks may be apart.
const CLOCKS_DIFFER: Duration = Duration::minutes(10);

#[derive(Serialize, Deserialize)]
struct Line {
    id: SnapshotId,
}

/// Writes that `id` is published next. To be called before it is: a line without a snapshot means nothing.
pub(super) fn note(root: &Path, id: &SnapshotId) -> Result<()> {
    let path = root.join(PUBLISHED);
    let failed = |source| Error::io("write", &path, source);
    let mut line = serde_json::to_vec(&Line { id: id.clone() })
        .map_err(|source| Error::failed(format!("could not encode the order of publishing: {source}")))?;
    line.push(b'\n');
    let mut file = open_to_append(&path).map_err(failed)?;
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(failed)
}

/// The place of each id in the order of publishing; a line that can't be read has none.
fn order(root: &Path) -> Result<HashMap<SnapshotId, usize>> {
    let path = root.join(PUBLISHED);
    let text = match read_plain_text(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(source) => return Err(Error::io("read", &path, source)),
    };
    let lines = text.lines().enumerate();
    Ok(lines.filter_map(|(place, line)| Some((serde_json::from_str::<Line>(line).ok()?.id, place))).collect())
}

/// What is known of a snapshot whose manifest may be damaged.
struct Candidate {
    entry: Listed,
    /// Its own date; of a damaged one, its id's.
    taken_at: DateTime<Utc>,
    published: Option<usize>,
    /// What it is sorted by: not before what was published before it.
    counts_from: DateTime<Utc>,
}

/// Sorts the oldest first.
fn sort(entries: Vec<Listed>, order: &HashMap<SnapshotId, usize>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = entries
        .into_iter()
        .map(|entry| {
            let taken_at = match &entry.snapshot {
                Ok(snapshot) => snapshot.manifest.taken_at,
                Err(_) => entry.id.taken_at(),
            };
            let published = order.get(&entry.id).copied();
            Candidate { entry, taken_at, published, counts_from: taken_at }
        })
        .collect();
    candidates.sort_by_key(|candidate| (candidate.published, candidate.taken_at));
    let mut last = None;
    for candidate in candidates.iter_mut().filter(|candidate| candidate.published.is_some()) {
        candidate.counts_from = last.map_or(candidate.taken_at, |last| candidate.taken_at.max(last));
        last = Some(candidate.counts_from);
    }
    candidates.sort_by_key(|candidate| (candidate.counts_from, candidate.published, candidate.taken_at));
    candidates
}

impl Repository {
    /// The snapshot that `latest` means, among those of `database` and with the tag, if these are given.
    ///
    /// Of a whole database; one that holds a part only where there are no others.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchSnapshot`] where there is none; [`ErrorKind::Damaged`] where the manifest of the newest can't be used,
    /// whatever came before it; [`ErrorKind::Refused`] where its date is in the future; [`ErrorKind::Usage`] where several
    /// databases are meant. All name what there is instead.
    pub(super) fn latest(
        &self,
        wanted: &str,
        database: Option<&str>,
        tag: Option<(&str, &str)>,
        now: DateTime<Utc>,
    ) -> Result<StoredSnapshot> {
        let listed = self.list()?;
        let all = listed.len();
        let is_wanted = |found: &StoredSnapshot| {
            let has_tag = |(key, value)| found.manifest.tags.get(key).is_some_and(|have| have == value);
            database.is_none_or(|name| found.manifest.database.name == name) && tag.is_none_or(has_tag)
        };
        let (usable, damaged): (Vec<Listed>, Vec<Listed>) =
            listed.into_iter().partition(|entry| entry.snapshot.is_ok());
        let mut usable: Vec<Listed> =
            usable.into_iter().filter(|entry| entry.snapshot.as_ref().is_ok_and(is_wanted)).collect();
        let is_partial =
            |entry: &Listed| entry.snapshot.as_ref().is_ok_and(|found| found.manifest.is_partial());
        // What holds only a part is never taken for the whole because it happens to be newer.
        if !usable.iter().all(is_partial) {
            usable.retain(|entry| !is_partial(entry));
        }
        let mut names: Vec<&str> = usable
            .iter()
            .filter_map(|entry| entry.snapshot.as_ref().ok())
            .map(|found| found.manifest.database.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > 1 {
            return Err(Error::usage(format!(
                "\"{wanted}\" is ambiguous: the repository holds snapshots of {}",
                names.join(", ")
            ))
            .with_hint("Name the snapshot by its id, or the database with --database-url."));
        }
        // Nobody knows what a damaged one held: it counts wherever it could be meant.
        let name = database.or(names.first().copied());
        let damaged: Vec<Listed> =
            damaged.into_iter().filter(|entry| name.is_none_or(|name| entry.id.may_be_of(name))).collect();
        let mut candidates = sort(usable.into_iter().chain(damaged).collect(), &order(self.root())?);
        let Some(newest) = candidates.pop() else { return Err(self.holds_none(database, all)) };
        let before = candidates
            .iter()
            .rev()
            .find(|candidate| candidate.entry.snapshot.is_ok() && candidate.taken_at <= now + CLOCKS_DIFFER);
        let instead = match before {
            Some(before) => {
                format!("the newest of those before it is {}: name it by its id to use it", before.entry.id)
            }
            None => "there is no other one".to_owned(),
        };
        let id = newest.entry.id;
        let snapshot = newest.entry.snapshot.map_err(|error| {
            Error::damaged(format!("the newest snapshot, {id}, can't be used: {}", error.message()))
                .with_hint(format!(
                    "Run `backup verify {id}`. What was not damaged stays readable by hand; {instead}."
                ))
        })?;
        if newest.taken_at > now + CLOCKS_DIFFER {
            return Err(Error::refused(format!(
                "the newest snapshot, {id}, is dated in the future ({}): a clock was wrong, here or on the server",
                newest.taken_at.format("%Y-%m-%d %H:%M:%S UTC")
            ))
            .with_hint(format!("Name it by its id if it is the one; {instead}.")));
        }
        Ok(snapshot)
    }

    /// There is no such snapshot: says of how many others.
    fn holds_none(&self, database: Option<&str>, all: usize) -> Error {
        let message = match (database, all) {
            (Some(name), 1..) => {
                format!(
                    "the repository holds no such snapshot of the database \"{}\", and {all} in all",
                    printable(name)
                )
            }
            _ => "the repository holds no such snapshot".to_owned(),
        };
        Error::new(ErrorKind::NoSuchSnapshot, message)
            .with_hint(format!("Run `backup list --repo {}` to see what there is.", self.root().display()))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn listed(second: u32, name: &str) -> Listed {
        let at = Utc.with_ymd_and_hms(2026, 11, 21, 3, 0, second).unwrap();
        Listed { id: SnapshotId::new(at, name, u64::from(second)), snapshot: Err(Error::damaged("x")) }
    }

    #[test]
    fn what_was_published_later_counts_as_later_whatever_its_date() {
        let ids =
            |seconds: &[u32]| seconds.iter().map(|second| listed(*second, "shop").id).collect::<Vec<_>>();
        let sorted = |published: &[u32], all: &[u32]| {
            let order = ids(published).into_iter().enumerate().map(|(place, id)| (id, place)).collect();
            let entries = all.iter().map(|second| listed(*second, "shop")).collect();
            sort(entries, &order).into_iter().map(|candidate| candidate.entry.id).collect::<Vec<_>>()
        };
        // No file: by date.
        assert_eq!(sorted(&[], &[20, 10, 30]), ids(&[10, 20, 30]));
        // The clock was ahead for one of them, and right again afterwards.
        assert_eq!(sorted(&[10, 50, 20, 30], &[10, 20, 30, 50]), ids(&[10, 50, 20, 30]));
        // The clock was behind.
        assert_eq!(sorted(&[20, 30, 5], &[5, 20, 30]), ids(&[20, 30, 5]));
        // What came from elsewhere stands where its date puts it.
        assert_eq!(sorted(&[10, 30], &[10, 20, 30]), ids(&[10, 20, 30]));
        assert_eq!(sorted(&[10, 30], &[10, 40, 30]), ids(&[10, 30, 40]));
        // What was deleted leaves its line.
        assert_eq!(sorted(&[10, 15, 30, 20], &[10, 20]), ids(&[10, 20]));
    }
}
