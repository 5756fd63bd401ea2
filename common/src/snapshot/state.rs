//! Whether two snapshots hold the same state of a database: the same definitions and the same rows. Pure.

use serde::Serialize;

use super::{Manifest, RowHash, manifest::Chunk};
use crate::{
    catalog::{DatabaseState, Sequence},
    digest::sha256_hex,
    ident::QualifiedName,
};

/// What a state is, beside the archive of its definitions.
#[derive(Serialize)]
struct State<'a> {
    archive: String,
    database: &'a DatabaseState,
    tables: Vec<(&'a QualifiedName, u64, RowHash)>,
    sequences: Vec<&'a Sequence>,
    large_objects: Vec<(u64, RowHash)>,
    rest: (&'a [String], &'a std::collections::BTreeMap<String, Vec<String>>),
}

/// A hash of the state; `archive` is the file `schema.dump`. Two that are equal are of the same state. Of one state there may be
/// several: of another pg_dump, or where somebody has made an object anew.
pub fn state_of(manifest: &Manifest, archive: &[u8]) -> Option<String> {
    let content = |chunk: &Chunk| (chunk.content.rows, chunk.content.row_hash);
    let large_objects = manifest.large_objects.as_ref();
    let state = State {
        archive: sha256_hex(&without_time(archive)?),
        database: &manifest.database,
        tables: manifest
            .tables
            .iter()
            .map(|table| (&table.table.name, table.rows(), table.row_hash()))
            .collect(),
        sequences: manifest.sequences.iter().chain(&manifest.extension_sequences).collect(),
        large_objects: large_objects
            .iter()
            .flat_map(|found| {
                std::iter::once(content(&found.metadata)).chain(found.pages.iter().map(content))
            })
            .collect(),
        rest: (&manifest.not_kept, &manifest.owners),
    };
    serde_json::to_vec(&state).ok().map(|bytes| sha256_hex(&bytes))
}

/// An archive of pg_dump without the time at which it was made, which stands in its head: `PGDMP`, the version in three bytes, the
/// sizes of numbers and of offsets, the format, the compression, then the time as seven numbers with a byte of sign each.
fn without_time(archive: &[u8]) -> Option<Vec<u8>> {
    /// From this version on the compression is one byte, and a number before.
    const ONE_BYTE: [u8; 2] = [1, 15];
    if archive.get(..5)? != b"PGDMP" {
        return None;
    }
    let number = 1 + usize::from(*archive.get(8)?);
    let compression = if archive.get(5..7)? >= &ONE_BYTE[..] { 1 } else { number };
    let from = 11 + compression;
    let mut rest = archive.to_vec();
    rest.get_mut(from..from + 7 * number)?.fill(0);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_an_archive_is_left_out() {
        let head = |version: u8, compression: &[u8]| {
            [&b"PGDMP\x01"[..], &[version, 0, 4, 8, 1], compression].concat()
        };
        for head in [head(16, &[1]), head(14, &[0, 255, 255, 255, 255])] {
            let archive = |time: u8, rest: u8| [&head[..], &[time; 35], &[rest; 3]].concat();
            assert_eq!(without_time(&archive(1, 7)), without_time(&archive(2, 7)));
            assert_ne!(without_time(&archive(1, 7)), without_time(&archive(1, 8)));
            assert_eq!(without_time(&archive(1, 7)).map(|rest| rest.len()), Some(head.len() + 38));
            assert_eq!(without_time(&head), None);
        }
        assert_eq!(without_time(b"-- a script"), None);
    }
}
