//! `backup show`.

use chrono::Utc;
use common::{
    Result,
    cli::{Output, Settings, output::Tone},
    format,
    repository::Repository,
    snapshot::{
        Manifest,
        manifest::{Partial, Reading},
    },
};

use crate::manage::{self, Facts};

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// An id, a unique start of one, latest, or latest:tag=value
    pub(super) snapshot: String,
}

/// How much was read for a snapshot, in one line.
fn reading_text(reading: &Reading) -> String {
    let mut text =
        format!("{} of {} chunks", format::count(reading.chunks_read), format::count(reading.chunks));
    if reading.chunks_in_part > 0 {
        text.push_str(&format!(", {} of them in part", format::count(reading.chunks_in_part)));
    }
    if let (Some(earlier), 1..) = (&reading.earlier, reading.chunks_shared) {
        let (shared, bytes) = (format::count(reading.chunks_shared), format::bytes(reading.bytes_shared));
        text.push_str(&format!("; {shared} shared with {earlier} ({bytes})"));
    }
    if let Some(why) = &reading.why_all {
        text.push_str(&format!("; all, because {}", common::ident::printable(why)));
    }
    text
}

/// What a partial snapshot holds, in one line.
pub(super) fn part_text(manifest: &Manifest, partial: &Partial) -> String {
    let mut text = partial.filters.to_string();
    text.push_str(&format!(
        ": {} with rows",
        format::plural(manifest.tables.len() as u64, "table", "tables")
    ));
    if !partial.without_rows.is_empty() {
        text.push_str(&format!(", {} without", partial.without_rows.len()));
    }
    text.push_str(&format!(
        "; left out: {}",
        format::plural(partial.left_out.len() as u64, "object", "objects")
    ));
    text
}

pub(super) fn show(args: &ShowArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let snapshot = manage::find(settings, &args.snapshot)?;
    let manifest = &snapshot.manifest;
    if output.is_json() {
        output.document(manifest)?;
        return Ok(0);
    }
    let mut text = format!(
        "{}\n  database   {} (owner {}, {}, {})\n  server     PostgreSQL {}\n  taken      {} in {}\n  \
         kind       {}\n  stored     {} as {} ({})\n  path       {}\n",
        output.paint(Tone::Strong, manifest.id.as_str()),
        common::ident::printable(&manifest.database.name),
        common::ident::printable(&manifest.database.owner),
        manifest.database.encoding,
        manifest.database.collate,
        manifest.server.version,
        manifest.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
        format::duration(manifest.took()),
        manifest.kind_cell(),
        format::bytes(manifest.raw_bytes()),
        format::bytes(manifest.stored_bytes()),
        manifest.codec,
        snapshot.dir.display(),
    );
    if let Some(cost) = &manifest.cost {
        text.push_str(&format!("  time       {cost}, of all connections\n"));
    }
    let facts = Facts::read(&Repository::open(&settings.repo)?)?;
    text.push_str(&format!("  verified   {}\n", facts.verified_cell(&manifest.id, Utc::now())));
    if let Some(pin) = facts.pin(&manifest.id) {
        text.push_str(&format!(
            "  pinned     {}\n",
            pin.note.as_deref().map_or("yes".to_owned(), common::ident::printable)
        ));
    }
    if let Some(reading) = &manifest.reading {
        text.push_str(&format!("  read       {}\n", reading_text(reading)));
    }
    if manifest.role_passwords {
        text.push_str("  secret     holds password hashes of roles (globals.sql)\n");
    }
    if let Some(name) = &manifest.name {
        text.push_str(&format!("  name       {name}\n"));
    }
    for (key, value) in &manifest.tags {
        text.push_str(&format!("  tag        {key}={value}\n"));
    }
    if let Some(partial) = &manifest.partial {
        text.push_str(&format!("  PARTIAL    only {}\n", part_text(manifest, partial)));
    }
    if let Some(objects) = &manifest.large_objects {
        text.push_str(&format!("  large objects  {}\n", format::count(objects.count)));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = manifest
        .tables
        .iter()
        .map(|table| {
            let sum = |of: fn(&common::snapshot::codec::StoredChunk) -> u64| {
                table.chunks.iter().map(|chunk| of(&chunk.content)).sum::<u64>()
            };
            vec![
                table.table.name.short(),
                format::count(table.rows()),
                format::bytes(sum(|content| content.raw_bytes)),
                format::bytes(sum(|content| content.stored_bytes)),
                table.chunks.len().to_string(),
            ]
        })
        .collect();
    text.push_str(&format::table(
        &["TABLE", "ROWS", "SIZE", "STORED", "CHUNKS"],
        &[false, true, true, true, true],
        &rows,
    ));
    if let Some(partial) = &manifest.partial {
        for name in &partial.without_rows {
            text.push_str(&format!(
                "\n{}: its definition only, its rows are not in the snapshot",
                name.short()
            ));
        }
        text.push_str("\nNot in this snapshot:\n");
        for line in &partial.left_out {
            text.push_str(&format!("  - {line}\n"));
        }
    }
    if !manifest.not_kept.is_empty() {
        text.push_str("\nWhat it can't bring back as it was:\n");
        for line in &manifest.not_kept {
            text.push_str(&format!("  - {line}\n"));
        }
    }
    output.data(&text)?;
    Ok(0)
}
