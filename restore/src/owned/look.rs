//! Looks into an archive for what owners have to make.

use std::{collections::BTreeSet, path::Path};

use common::{
    Result,
    postgres::{Session, tools::Tool, trust},
    snapshot::{
        Manifest,
        toc::{self, Entry},
    },
};

use super::{Known, Owned};
use crate::{contents, encoding, gate};

/// What the owners of the archive's objects have to make, or nothing where no role that is not trusted owns anything. From then on the
/// session takes pg_database_owner for what it was when the snapshot was taken.
///
/// # Errors
/// The archive or the catalog can't be read.
pub async fn find(
    session: &Session,
    pg_restore: &Tool,
    archive: &Path,
    manifest: &Manifest,
    chosen: Option<&[u32]>,
) -> Result<Owned> {
    let roles = trust::roles(session).await?;
    // The database's owner is not the snapshot's yet, for whom pg_database_owner stands.
    let owner = &manifest.database.owner;
    let roles = match roles.iter().any(|role| role.is_trusted && role.name == *owner) {
        true => roles,
        false => {
            trust::doubt_database_owner(session).await?;
            trust::roles(session).await?
        }
    };
    let is_trusted = |name: &String| roles.iter().any(|role| role.is_trusted && role.name == *name);
    // Snapshots of earlier versions do not say who owns what.
    if !manifest.owners.is_empty() && manifest.owners.keys().all(is_trusted) {
        return Ok(Owned::default());
    }
    let mut entries =
        toc::parse(&encoding::exact(session, contents::printed_contents(pg_restore, archive).await?).await?);
    if let Some(chosen) = chosen {
        entries.retain(|entry| chosen.contains(&entry.id));
    }
    if !super::may_matter(&entries, &roles) {
        return Ok(Owned::default());
    }
    let post_data = contents::post_data_entries(pg_restore, archive).await?;
    let exclusions = exclusions(pg_restore, archive, &entries, &post_data).await?;
    let partitioned = manifest.partitioned.iter().map(|table| table.oid).collect();
    let may_lend = gate::is_superuser(session).await?;
    let known = Known { post_data: &post_data, partitioned: &partitioned, exclusions: &exclusions, may_lend };
    let mut owned = super::find(&entries, &roles, known);
    let tables = manifest.tables.iter().map(|data| (data.table.oid, &data.table.name));
    let trees = manifest.partitioned.iter().map(|table| (table.oid, &table.name));
    owned.names = tables.chain(trees).map(|(oid, name)| (oid, name.clone())).collect();
    Ok(owned)
}

/// Constraints that may be exclusion constraints, as their statements say. Nothing that a definition holds can hide the word.
///
/// # Errors
/// The archive can't be read.
pub async fn exclusions(
    pg_restore: &Tool,
    archive: &Path,
    entries: &[Entry],
    post_data: &BTreeSet<u32>,
) -> Result<BTreeSet<u32>> {
    let is_key = |entry: &&Entry| post_data.contains(&entry.id) && entry.text.starts_with("CONSTRAINT ");
    let mut waiting = vec![entries.iter().filter(is_key).map(|entry| entry.id).collect::<Vec<u32>>()];
    let mut found = BTreeSet::new();
    while let Some(ids) = waiting.pop() {
        if ids.is_empty() || !contents::script(pg_restore, archive, &ids).await?.contains(" EXCLUDE ") {
            continue;
        }
        if let [id] = ids.as_slice() {
            found.insert(*id);
        } else {
            let (one, other) = ids.split_at(ids.len() / 2);
            waiting.extend([one.to_vec(), other.to_vec()]);
        }
    }
    Ok(found)
}
