//! Is there room in the repository for one more snapshot? An estimate, from the size of the tables and from how well the
//! snapshot before it was compressed; without one, the least that it could come to.

use common::{
    Error, Result,
    files::free_space,
    format,
    repository::Repository,
    snapshot::{Codec, Manifest},
};

/// PostgreSQL's block in every stock build.
pub const BLOCK_BYTES: u64 = 8192;

/// What a snapshot of tables of `table_bytes` will take, in bytes.
pub fn estimate(table_bytes: u64, codec: Codec, predecessor: Option<&Manifest>) -> u64 {
    let before = predecessor.map(|manifest| {
        let blocks: u64 = manifest.tables.iter().map(|table| table.table.all_blocks()).sum();
        (u128::from(blocks) * u128::from(BLOCK_BYTES), u128::from(manifest.stored_bytes()))
    });
    match before {
        Some((bytes, stored)) if bytes > 0 => {
            u64::try_from(u128::from(table_bytes) * stored / bytes).unwrap_or(u64::MAX)
        }
        // COPY text of small rows is a fraction of their pages, and repetitive text is compressed to a fraction of that.
        _ if codec == Codec::None => table_bytes / 4,
        _ => table_bytes / 20,
    }
}

/// The newest snapshot of this database with this codec.
pub fn predecessor(repository: &Repository, database: &str, codec: Codec) -> Result<Option<Manifest>> {
    let same = |manifest: &Manifest| {
        manifest.database.name == database
            && std::mem::discriminant(&manifest.codec) == std::mem::discriminant(&codec)
    };
    let manifests = repository.list()?.into_iter().filter_map(|entry| Some(entry.snapshot.ok()?.manifest));
    Ok(manifests.filter(same).max_by_key(|manifest| manifest.taken_at))
}

/// Refuses a snapshot for which there is clearly no room.
pub fn check(repository: &Repository, database: &str, table_blocks: u64, codec: Codec) -> Result<()> {
    let predecessor = predecessor(repository, database, codec)?;
    let needed = estimate(table_blocks.saturating_mul(BLOCK_BYTES), codec, predecessor.as_ref());
    let free = free_space(repository.root())?;
    if free >= needed {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the snapshot will take about {}, and the repository {} has {} free",
        format::bytes(needed),
        repository.root().display(),
        format::bytes(free)
    ))
    .with_hint(
        "Free some space (`backup prune`), choose another disk with --repo, or try all the same with \
         --skip-space-check.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_predecessor_only_the_least_is_asked_for() {
        assert_eq!(estimate(1000, Codec::None, None), 250);
        assert_eq!(estimate(1000, Codec::default(), None), 50);
    }
}
