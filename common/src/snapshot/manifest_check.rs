//! What a manifest may say. Pure.
//!
//! A snapshot may come from anybody, and its hash proves only that it was written as a whole. So it is looked at like any
//! other input before anything is done with it: names are quoted wherever they are used, words of closed lists are types
//! (`catalog::word`), and the rest is here: numbers that a server can have and whose sums fit, dates, paths, nothing twice.
//! What is written is looked at too: a snapshot that nobody could read would be none.

use std::{collections::HashSet, hash::Hash};

use chrono::Datelike;

use super::{
    Manifest,
    manifest::{Chunk, DATA_DIR, LARGE_OBJECTS_DIR, MANIFEST_FILE},
};
use crate::{
    catalog::{LocaleProvider, Table},
    ident::printable,
};

/// Blocks of the largest relation: block numbers have 32 bits.
const MOST_BLOCKS: u64 = 1 << 32;
/// Sums of bytes and of rows stay far below what a u64 holds, so that no later sum of a few of them overflows.
const LARGEST_SUM: u64 = 1 << 60;
/// Longest word of an ACL, such as `REFERENCES`.
const LONGEST_PRIVILEGE: usize = 32;

/// Encodings that a server can have. A database has one of them for its whole life.
const ENCODINGS: [&str; 35] = [
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1250",
    "WIN1251",
    "WIN1252",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1256",
    "WIN1257",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "KOI8U",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
];

/// What is wrong with a manifest, with the field that has it; nothing if it is one that a backup could have written.
pub(super) fn problem(manifest: &Manifest) -> Option<String> {
    paths(manifest).or_else(|| numbers(manifest)).or_else(|| words(manifest)).or_else(|| twice(manifest))
}

/// Whether the JSON text holds U+0000: no text of PostgreSQL does, and what reads it as the end of a text would see
/// another one.
pub(super) fn holds_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        // An even number of backslashes before it are escaped ones, and this one begins an escape.
        json[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0
    })
}

fn paths(manifest: &Manifest) -> Option<String> {
    if let Some(path) = manifest.paths().find(|path| !is_safe_path(path)) {
        return Some(format!("names a file outside of the snapshot: {}", printable(path)));
    }
    if let Some(path) = manifest.paths().find(|path| !is_place(path)) {
        return Some(format!("names a file where none belongs: {path}"));
    }
    doubled(manifest.paths()).map(|path| format!("names {path} twice"))
}

/// Only relative paths of plain names below the snapshot: a manifest from elsewhere must not reach other files.
pub(super) fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && path != MANIFEST_FILE
        && path.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        })
}

/// Chunks lie in their two folders, everything else beside them.
fn is_place(path: &str) -> bool {
    match path.split_once('/') {
        Some((dir, name)) => [DATA_DIR, LARGE_OBJECTS_DIR].contains(&dir) && !name.contains('/'),
        None => ![DATA_DIR, LARGE_OBJECTS_DIR].contains(&path),
    }
}

fn numbers(manifest: &Manifest) -> Option<String> {
    let sum =
        |of: fn(&Chunk) -> u64| manifest.chunks().try_fold(0_u64, |sum, chunk| sum.checked_add(of(chunk)));
    let sums = [
        ("rows", sum(|chunk| chunk.content.rows)),
        ("raw_bytes", sum(|chunk| chunk.content.raw_bytes)),
        ("stored_bytes", manifest.stored_bytes_checked()),
    ];
    if let Some((field, _)) = sums.iter().find(|(_, sum)| sum.is_none_or(|sum| sum > LARGEST_SUM)) {
        return Some(format!("has a sum of {field} that no database can have"));
    }
    // A row is at least its line end.
    if manifest.chunks().any(|chunk| chunk.content.rows > chunk.content.raw_bytes) {
        return Some("has a chunk with more rows than bytes (rows, raw_bytes)".to_owned());
    }
    if manifest.chunks().any(|chunk| {
        chunk.first_block >= MOST_BLOCKS
            || chunk.end_block.is_some_and(|end| end > MOST_BLOCKS || end <= chunk.first_block)
    }) {
        return Some("has a chunk of blocks that no table can have (first_block, end_block)".to_owned());
    }
    // What lies out of line has an index, and several of both where a table was rewritten; the sum must fit, no more.
    let is_too_large = |table: &Table| table.blocks > MOST_BLOCKS || table.toast_blocks > MOST_BLOCKS << 8;
    if let Some(data) = manifest.tables.iter().find(|data| is_too_large(&data.table)) {
        return Some(format!(
            "has a table of a size that none can have: {} (blocks)",
            data.table.name.short()
        ));
    }
    if let Some(data) = manifest.tables.iter().find(|data| data.chunks.is_empty()) {
        return Some(format!("has a table without chunks: {} (tables.chunks)", data.table.name.short()));
    }
    let hashes = manifest
        .chunks()
        .map(|chunk| &chunk.content.sha256)
        .chain(manifest.files.iter().map(|file| &file.sha256));
    if let Some(hash) = hashes.into_iter().find(|hash| !is_sha256(hash)) {
        return Some(format!("has \"{}\" where a SHA-256 belongs (sha256)", printable(hash)));
    }
    // Four digits of a year: what is computed with it stays a date.
    let years = [manifest.taken_at.year(), manifest.finished_at.year()];
    if years.iter().any(|year| !(2000..=9000).contains(year)) {
        return Some("was taken in a year that can't be (taken_at, finished_at)".to_owned());
    }
    let majors = [manifest.server.version_num / 10_000, i32::try_from(manifest.pg_dump_major).unwrap_or(-1)];
    if majors.iter().any(|major| !(9..1000).contains(major)) {
        return Some(
            "has a version of PostgreSQL that can't be (server.version_num, pg_dump_major)".to_owned(),
        );
    }
    let limits = manifest.roles.iter().map(|role| role.connection_limit);
    if limits.chain([manifest.database.connection_limit]).any(|limit| limit < -1) {
        return Some("has a negative number of connections (connection_limit)".to_owned());
    }
    None
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn words(manifest: &Manifest) -> Option<String> {
    let database = &manifest.database;
    if !ENCODINGS.contains(&&*database.encoding) {
        let encoding = printable(&database.encoding);
        return Some(format!("has an encoding that no server has: \"{encoding}\" (database.encoding)"));
    }
    // Compared and shown, never in SQL; a server may have privileges that this version does not know.
    let is_privilege = |word: &str| {
        (1..=LONGEST_PRIVILEGE).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b' ' | b'_'))
    };
    if let Some(grant) = manifest
        .grants
        .iter()
        .chain(manifest.revoked.iter().flatten())
        .chain(manifest.builtin_rights.iter().flat_map(|rights| rights.granted.iter().chain(&rights.revoked)))
        .find(|grant| !is_privilege(&grant.privilege))
    {
        let word = printable(&grant.privilege);
        return Some(format!("has a privilege that can be none: \"{word}\" (grants.privilege)"));
    }
    let mut providers =
        manifest.collations.iter().map(|collation| LocaleProvider::parse(&collation.provider));
    if let Some(problem) = providers.find_map(Result::err) {
        return Some(format!("has a collation of which {problem}"));
    }
    let settings = database.settings.iter().map(|setting| &setting.name);
    let of_roles = manifest.roles.iter().flat_map(|role| role.settings.iter().map(|(name, _)| name));
    if let Some(name) = settings.chain(of_roles).find(|name| !is_parameter(name)) {
        return Some(format!("has a parameter that can be none: \"{}\" (settings.name)", printable(name)));
    }
    let names = [&database.name, &database.owner, &database.tablespace];
    let labels = database.security_labels.iter().map(|(provider, _)| provider);
    let extensions = manifest.extensions.iter().map(|extension| &extension.name);
    let roles = manifest
        .roles
        .iter()
        .flat_map(|role| std::iter::once(&role.name).chain(role.member_of.iter().map(|(group, _)| group)));
    if names.into_iter().chain(labels).chain(extensions).chain(roles).any(String::is_empty) {
        return Some("has an empty name (database, security_labels, extensions, roles)".to_owned());
    }
    None
}

/// A parameter's name as servers have them: plain in their own, nearly anything in those of extensions up to PostgreSQL
/// 14. What counts is that each part can be quoted.
fn is_parameter(name: &str) -> bool {
    name.split('.').all(|part| !part.is_empty()) && !name.chars().any(char::is_control)
}

fn twice(manifest: &Manifest) -> Option<String> {
    let tables = manifest.tables.iter().map(|data| &data.table.name);
    let partitioned = manifest.partitioned.iter().map(|table| &table.name);
    let views = manifest.materialized_views.iter().map(|view| &view.name);
    let sequences = manifest.sequences.iter().chain(&manifest.extension_sequences);
    let sequences = sequences.map(|sequence| &sequence.name);
    if let Some(name) = doubled(tables.chain(partitioned).chain(views).chain(sequences)) {
        return Some(format!("names {} twice", name.short()));
    }
    let oids = manifest.tables.iter().map(|data| data.table.oid);
    if let Some(oid) = doubled(oids.chain(manifest.partitioned.iter().map(|table| table.oid))) {
        return Some(format!("has two tables with the oid {oid}"));
    }
    doubled(manifest.roles.iter().map(|role| &role.name))
        .map(|name| format!("names the role \"{}\" twice", printable(name)))
}

fn doubled<T: Eq + Hash + Copy>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items.into_iter().find(|item| !seen.insert(*item))
}

#[cfg(test)]
mod tests;
