//! Which tables of a snapshot are meant, and the manifest of just these. Pure.
//!
//! What it must never do: take a table for another because names look alike, or bring a table back without rows that
//! the database had.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use common::{
    Error, QualifiedName, Result,
    ident::printable,
    snapshot::{
        Manifest,
        manifest::{PARTIAL_FORMAT, Partial, TableData},
        pattern::Pattern,
        toc::{self, Choice, Entry, Kind, Others, Wish},
    },
};

/// One table as a person named it: a plain one, or a partitioned one with its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `pg_class.oid` at the source.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// Whether it is the root of partitions.
    pub is_partitioned: bool,
    /// Oids of the tables that hold its rows: itself, or its leaves.
    pub leaves: Vec<u32>,
}

/// The tables that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Plain tables, leaves alone and roots, by name.
    pub units: Vec<Unit>,
    /// Oids of all of them, with what lies below.
    pub relations: HashSet<u32>,
    /// Schemas that were named as a whole.
    pub schemas: BTreeSet<String>,
}

impl Selection {
    /// Finds the tables that patterns mean. A root brings its partitions, a parent its heirs.
    ///
    /// # Errors
    /// Refused for a pattern without a match, with names that look alike, and for tables whose rows are not in the snapshot.
    pub fn find(manifest: &Manifest, tables: &[String], schemas: &[String]) -> Result<Self> {
        let names: BTreeMap<u32, &QualifiedName> = manifest
            .tables
            .iter()
            .filter(|data| data.table.extension_filter.is_none())
            .map(|data| (data.table.oid, &data.table.name))
            .chain(manifest.partitioned.iter().map(|table| (table.oid, &table.name)))
            .collect();
        let without_rows = manifest.partial.iter().flat_map(|partial| &partial.without_rows);
        let all: Vec<&QualifiedName> = names.values().copied().chain(without_rows.clone()).collect();
        let mut wanted: BTreeSet<&QualifiedName> = BTreeSet::new();
        for pattern in tables {
            wanted.extend(Pattern::table(pattern)?.find(&all)?);
        }
        let all_schemas: BTreeSet<&str> = all.iter().map(|name| name.schema.as_str()).collect();
        let mut whole_schemas = BTreeSet::new();
        for pattern in schemas {
            whole_schemas.extend(Pattern::schema(pattern)?.find_schemas(&all_schemas)?);
        }
        wanted.extend(all.iter().filter(|name| whole_schemas.contains(name.schema.as_str())));
        let empty: Vec<String> =
            without_rows.filter(|name| wanted.contains(name)).map(QualifiedName::short).collect();
        if !empty.is_empty() {
            return Err(Error::refused(format!(
                "the snapshot {} holds no rows of {}: they were left out when it was taken",
                manifest.id,
                empty.join(", ")
            ))
            .with_hint("Choose another snapshot: `backup list` marks partial ones.")
            .with_database_state("No database was changed."));
        }
        let mut relations: HashSet<u32> =
            names.iter().filter(|(_, name)| wanted.contains(*name)).map(|(oid, _)| *oid).collect();
        loop {
            let below: Vec<u32> = manifest
                .inherits
                .iter()
                .filter(|(child, parent)| {
                    relations.contains(parent) && !relations.contains(child) && names.contains_key(child)
                })
                .map(|(child, _)| *child)
                .collect();
            if below.is_empty() {
                break;
            }
            relations.extend(below);
        }
        let units = units(manifest, &names, &relations);
        let schemas = whole_schemas.into_iter().map(str::to_owned).collect();
        Ok(Self { units, relations, schemas })
    }

    /// The tables that hold the rows of a unit.
    pub fn data<'a>(manifest: &'a Manifest, unit: &Unit) -> Vec<&'a TableData> {
        manifest.tables.iter().filter(|data| unit.leaves.contains(&data.table.oid)).collect()
    }
}

fn units(manifest: &Manifest, names: &BTreeMap<u32, &QualifiedName>, relations: &HashSet<u32>) -> Vec<Unit> {
    let is_partitioned = |oid: u32| manifest.partitioned.iter().any(|table| table.oid == oid);
    let is_below_a_root = |oid: u32| {
        manifest
            .inherits
            .iter()
            .any(|(child, parent)| *child == oid && relations.contains(parent) && is_partitioned(*parent))
    };
    let leaves = |oid: u32| {
        let (mut found, mut waiting) = (Vec::new(), vec![oid]);
        while let Some(oid) = waiting.pop() {
            if is_partitioned(oid) {
                waiting.extend(
                    manifest.inherits.iter().filter(|(_, parent)| *parent == oid).map(|(child, _)| *child),
                );
            } else {
                found.push(oid);
            }
        }
        found
    };
    let mut units: Vec<Unit> = names
        .iter()
        .filter(|(oid, _)| relations.contains(oid) && !is_below_a_root(**oid))
        .map(|(oid, name)| Unit {
            oid: *oid,
            name: (*name).clone(),
            is_partitioned: is_partitioned(*oid),
            leaves: leaves(*oid),
        })
        .collect();
    units.sort_by(|a, b| a.name.cmp(&b.name));
    units
}

/// The manifest has it, and the archive of the schema does not: they are not of one snapshot.
pub fn not_in_archive(table: &QualifiedName) -> Error {
    Error::damaged(format!("the archive has no table {}", table.short()))
        .with_hint("Run `backup verify`, and restore another snapshot.")
}

/// Chooses the entries of the archive.
///
/// # Errors
/// Refused when a table needs another one that was not named, such as the parent that it inherits from.
pub fn choose(
    manifest: &Manifest,
    entries: &[Entry],
    selection: &Selection,
    without: &[Kind],
    others: bool,
) -> Result<Choice> {
    // What a partial snapshot does not hold is not there, whatever its archive says.
    let known: Option<HashSet<u32>> =
        manifest.partial.as_ref().map(|partial| partial.entries.iter().copied().collect());
    let entries: Vec<Entry> = entries
        .iter()
        .filter(|entry| known.as_ref().is_none_or(|known| known.contains(&entry.id)))
        .cloned()
        .collect();
    let schemas = manifest.tables.iter().map(|data| &data.table.name);
    let schemas = schemas.chain(manifest.partitioned.iter().map(|table| &table.name));
    let wish = Wish {
        relations: selection.relations.clone(),
        others: Others::Schemas(if others { selection.schemas.clone() } else { BTreeSet::new() }),
        by_schema: true,
        refused: HashSet::new(),
        without: without.iter().copied().collect(),
        schemas: schemas.map(|name| name.schema.as_str().to_owned()).collect(),
        excluded_schemas: BTreeSet::new(),
    };
    let choice = toc::choose(&entries, &wish);
    if !choice.impossible.is_empty() {
        let reasons: Vec<String> =
            choice.impossible.iter().map(|(table, needs)| format!("{table} needs {needs}")).collect();
        return Err(Error::refused(format!("a part can't be restored alone: {}", reasons.join("; ")))
            .with_hint("Name the other table as well.")
            .with_database_state("No database was changed."));
    }
    let found: HashSet<u32> = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Table && choice.entries.contains(&entry.id))
        .map(|entry| entry.object.1)
        .collect();
    if let Some(unit) = selection.units.iter().find(|unit| !found.contains(&unit.oid)) {
        return Err(not_in_archive(&unit.name));
    }
    Ok(choice)
}

/// The manifest of the chosen part: what it does not name is neither read nor verified.
pub fn narrow(manifest: &Manifest, entries: &[Entry], selection: &Selection, choice: &Choice) -> Manifest {
    let chosen: Vec<&Entry> = entries.iter().filter(|entry| choice.entries.contains(&entry.id)).collect();
    let has = |kind: Kind, oid: u32| chosen.iter().any(|entry| entry.kind == kind && entry.object.1 == oid);
    let mut part = manifest.clone();
    part.format = PARTIAL_FORMAT;
    part.tables.retain(|data| selection.relations.contains(&data.table.oid));
    part.partitioned.retain(|table| selection.relations.contains(&table.oid));
    part.sequences.retain(|sequence| has(Kind::Sequence, sequence.oid));
    part.large_objects = None;
    part.materialized_views.retain(|view| {
        let text = format!("MATERIALIZED VIEW {} {} ", view.name.schema.as_str(), view.name.name.as_str());
        chosen.iter().any(|entry| entry.kind == Kind::MaterializedView && entry.text.starts_with(&text))
    });
    part.extensions.retain(|extension| {
        let text = format!("EXTENSION - {} ", extension.name);
        chosen.iter().any(|entry| entry.kind == Kind::Extension && entry.text.starts_with(&text))
    });
    let grantable: HashSet<String> = part
        .tables
        .iter()
        .map(|data| &data.table.name)
        .chain(part.partitioned.iter().map(|table| &table.name))
        .map(|name| format!("table {}", identity(name)))
        .collect();
    part.grants.retain(|grant| grantable.contains(&grant.object));
    part.revoked = None;
    part.builtin_rights = None;
    part.differs = Some(Vec::new());
    part.extension_tables = Some(Vec::new());
    part.extension_objects = Some(BTreeMap::new());
    part.extension_sequences = Vec::new();
    // Of the whole database's size, what these tables take: the rows' text is near enough for a look at the disk.
    part.database_bytes = None;
    part.not_kept = Vec::new();
    // A new database of some tables is not the old one: its owner and settings are the whole database's.
    let left_out = choice.left_out.iter().map(|(what, why)| left_out(what, why)).collect();
    let entries = entries.iter().map(|entry| entry.id).filter(|id| choice.entries.contains(id)).collect();
    let filters = manifest.partial.as_ref().map(|partial| partial.filters.clone()).unwrap_or_default();
    part.partial = Some(Partial { filters, entries, left_out, without_rows: Vec::new() });
    part
}

/// One phrase about something that does not come.
pub fn left_out(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_owned() } else { format!("{what} (needs {why})") }
}

/// A name as PostgreSQL identifies it, for names that need no quotes; others are not looked for.
fn identity(name: &QualifiedName) -> String {
    let part = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
    };
    printable(&format!("{}.{}", part(name.schema.as_str()), part(name.name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_the_archive_lacks_is_damage() {
        let error = not_in_archive(&QualifiedName::new("app", "t"));
        assert_eq!(error.message(), "the archive has no table app.t");
        assert_eq!(error.kind(), common::ErrorKind::Damaged);
        assert_eq!(error.hint(), Some("Run `backup verify`, and restore another snapshot."));
    }
}
