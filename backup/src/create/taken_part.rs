//! The part of the database that a partial snapshot takes.

use std::collections::HashSet;

use common::{
    Result,
    catalog::Catalog,
    postgres::{Session, introspect},
    snapshot::{
        manifest::{FileEntry, Filters, Partial},
        toc::{self, Kind},
    },
};

use crate::part;

/// The part of the database that a snapshot holds.
pub(super) struct Part {
    pub(super) schema: FileEntry,
    pub(super) facts: Partial,
    pub(super) sequences: HashSet<u32>,
}

/// Decides what belongs to the part, and reduces the catalog to it.
pub(super) async fn take_part(
    reader: &Session,
    scope: &part::Scope,
    schema: FileEntry,
    entries: &[toc::Entry],
    filters: &Filters,
    catalog: &mut Catalog,
) -> Result<Part> {
    let choice = scope.choose(reader, entries, filters).await?;
    let facts = scope.apply(filters, entries, &choice, catalog);
    let chosen: Vec<&toc::Entry> =
        entries.iter().filter(|entry| choice.entries.contains(&entry.id)).collect();
    let objects = chosen.iter().map(|entry| entry.object).collect();
    let rights = introspect::object_rights_of(reader, Some(&objects)).await?;
    (catalog.grants, catalog.revoked) = (rights.granted, rights.revoked);
    let sequences = chosen.iter().filter(|entry| entry.kind == Kind::Sequence);
    let mut sequences: HashSet<u32> = sequences.map(|entry| entry.object.1).collect();
    sequences.extend(scope.sequences_of_extensions(entries));
    Ok(Part { schema, facts, sequences })
}
