//! Whether a snapshot's files are exactly what was written. Needs no server.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    StoredSnapshot,
    sharing::{FileId, linked, other_holders},
};
use crate::{
    Error, Result, interrupt,
    snapshot::{
        chunk_reader::ChunkReader,
        codec::{StoredChunk, file_digest},
        manifest::{Chunk, FileEntry, MANIFEST_FILE},
    },
};

/// How far a verification goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Length and SHA-256 of every file: finds every change of the stored bytes.
    Hashes,
    /// Also decodes every chunk and compares its text length, rows and row hash: finds an encoder that lied.
    Content,
}

/// A snapshot all of whose files matched the manifest when they were read. The only way to make one is [`verify`].
#[derive(Debug)]
pub struct VerifiedSnapshot {
    snapshot: StoredSnapshot,
}

impl VerifiedSnapshot {
    /// The snapshot.
    pub fn snapshot(&self) -> &StoredSnapshot {
        &self.snapshot
    }
}

/// Files that were found whole, and as what: one that several snapshots share is read once for all of them.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<FileId, StoredChunk>>);

impl Seen {
    fn is_whole(&self, path: &Path, expected: &StoredChunk) -> bool {
        let seen = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        linked(path).is_some_and(|file| seen.get(&file) == Some(expected))
    }

    fn remember(&self, path: &Path, content: &StoredChunk) {
        if let Some(file) = linked(path) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(file, content.clone());
        }
    }
}

enum Item<'a> {
    Chunk(&'a Chunk),
    File(&'a FileEntry),
}

/// Checks every file with up to `jobs` threads; `progress` is told the stored bytes of each file that is done.
///
/// # Errors
/// One error of kind `Damaged` that lists every damaged, missing or unexpected file (the first ten by name); interrupted when
/// a signal came in.
pub fn verify(
    snapshot: StoredSnapshot,
    depth: Depth,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifiedSnapshot> {
    verify_one_of(snapshot, depth, jobs, &Seen::default(), progress)
}

/// Like [`verify`], as one of several snapshots that are verified to the same depth.
///
/// # Errors
/// As [`verify`].
pub fn verify_one_of(
    snapshot: StoredSnapshot,
    depth: Depth,
    jobs: usize,
    seen: &Seen,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifiedSnapshot> {
    let unexpected = unexpected_files(&snapshot)?;
    check_files(snapshot, depth, jobs, unexpected, seen, progress)
}

/// Like [`verify`], for a manifest that names only a part of the folder's files: the others are neither read nor judged.
///
/// # Errors
/// As [`verify`], about the files that the manifest names.
pub fn verify_part(
    snapshot: StoredSnapshot,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifiedSnapshot> {
    check_files(snapshot, Depth::Hashes, jobs, Vec::new(), &Seen::default(), progress)
}

fn check_files(
    snapshot: StoredSnapshot,
    depth: Depth,
    jobs: usize,
    unexpected: Vec<String>,
    seen: &Seen,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifiedSnapshot> {
    let manifest = &snapshot.manifest;
    let items: Vec<Item<'_>> =
        manifest.chunks().map(Item::Chunk).chain(manifest.files.iter().map(Item::File)).collect();
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(unexpected);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if interrupt::check().is_err() {
                        return;
                    }
                    let (result, bytes) = match item {
                        Item::Chunk(chunk) => {
                            (check_shared(&snapshot, chunk, depth, seen), chunk.content.stored_bytes)
                        }
                        Item::File(file) => (check_file(&snapshot, file), file.bytes),
                    };
                    progress(bytes);
                    if let Err(error) = result {
                        problems
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push(error.to_string());
                    }
                }
            });
        }
    });
    // What was not read to its end says nothing about the snapshot.
    interrupt::check()?;
    let mut problems = problems.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if problems.is_empty() {
        return Ok(VerifiedSnapshot { snapshot });
    }
    problems.sort();
    let count = problems.len();
    let mut message =
        format!("snapshot {} is damaged in {count} place{}", manifest.id, if count == 1 { "" } else { "s" });
    for problem in problems.iter().take(10) {
        message.push_str("\n  ");
        message.push_str(problem);
    }
    if count > 10 {
        message.push_str(&format!("\n  and {} more", count - 10));
    }
    Err(Error::damaged(message).with_hint(
        "Restore an older snapshot (`backup list` shows them), and look for a failing disk where the repository lies.",
    ))
}

fn check_shared(snapshot: &StoredSnapshot, chunk: &Chunk, depth: Depth, seen: &Seen) -> Result<()> {
    let path = snapshot.path(&chunk.path);
    if seen.is_whole(&path, &chunk.content) {
        return Ok(());
    }
    match check_chunk(snapshot, chunk, depth) {
        Ok(()) => {
            seen.remember(&path, &chunk.content);
            Ok(())
        }
        // One file, several snapshots: all of them are damaged.
        Err(error) => match other_holders(snapshot, &chunk.path).as_slice() {
            [] => Err(error),
            others => {
                let others: Vec<&str> = others.iter().map(|id| id.as_str()).collect();
                Err(Error::damaged(format!("{error}; the same file is in {}", others.join(", "))))
            }
        },
    }
}

fn check_chunk(snapshot: &StoredSnapshot, chunk: &Chunk, depth: Depth) -> Result<()> {
    let path = snapshot.path(&chunk.path);
    if depth == Depth::Hashes {
        return compare_digest(&path, chunk.content.stored_bytes, &chunk.content.sha256);
    }
    let mut reader = ChunkReader::open(&path, snapshot.manifest.codec, &chunk.content)?;
    while reader.read()?.is_some() {}
    reader.finish()
}

fn check_file(snapshot: &StoredSnapshot, file: &FileEntry) -> Result<()> {
    compare_digest(&snapshot.path(&file.path), file.bytes, &file.sha256)
}

fn compare_digest(path: &Path, bytes: u64, sha256: &str) -> Result<()> {
    // A length that is wrong already is not read: the file may be any size.
    let length = std::fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len());
    let (found_bytes, found_sha256) = match length {
        Some(length) if length != bytes => (length, String::new()),
        _ => file_digest(path)?,
    };
    if found_bytes != bytes {
        return Err(Error::damaged(format!("{} has {found_bytes} bytes instead of {bytes}", path.display())));
    }
    if found_sha256 != sha256 {
        return Err(Error::damaged(format!("checksum mismatch in {}", path.display())));
    }
    Ok(())
}

/// Files that the manifest does not name: they are not part of the snapshot, and somebody should know. And links: a snapshot
/// is complete in its folder.
fn unexpected_files(snapshot: &StoredSnapshot) -> Result<Vec<String>> {
    let known: HashSet<&str> = snapshot.manifest.paths().chain([MANIFEST_FILE]).collect();
    let mut unexpected = Vec::new();
    let mut dirs = vec![String::new()];
    while let Some(relative) = dirs.pop() {
        let dir = snapshot.dir.join(&relative);
        for entry in fs::read_dir(&dir).map_err(|source| Error::io("read", &dir, source))? {
            let entry = entry.map_err(|source| Error::io("read", &dir, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if relative.is_empty() { name } else { format!("{relative}/{name}") };
            let kind = entry.file_type().map_err(|source| Error::io("look at", &entry.path(), source))?;
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_symlink() {
                // What it leads to may be whole today, and is not in a copy of the folder.
                unexpected.push(format!(
                    "{} is a link, and the snapshot's file is elsewhere",
                    entry.path().display()
                ));
            } else if !kind.is_file() {
                unexpected.push(format!("{} is no plain file", entry.path().display()));
            } else if !known.contains(path.as_str()) {
                unexpected.push(format!("{} is not part of the snapshot", entry.path().display()));
            }
        }
    }
    Ok(unexpected)
}
