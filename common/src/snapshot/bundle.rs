//! A snapshot as one tar stream, out and in, in bounded memory: files, pipes, stdin and stdout.
//!
//! The manifest is the first entry. So nothing that comes in is written to disk before it is known what it must be: each
//! entry's name and size are compared with the manifest before its first byte is stored, its SHA-256 after the last.
//! Entries are `<id>/<path>`, plain files only; stock tar reads the stream too.
//!
//! A stream from elsewhere is hostile until proven otherwise. The blocks are read here, and from the tar crate come only
//! the fields of a header: no extension (long names, pax, sparse files) is ever interpreted, and a name is only looked up
//! in the manifest's list, never turned into a path.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    path::Path,
};

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::{
    Manifest,
    codec::hex,
    manifest::{DATA_DIR, LARGE_OBJECTS_DIR, MANIFEST_FILE, MAX_MANIFEST_BYTES},
};
use crate::{
    Error, Result,
    files::{open_plain, read_plain},
    ident::printable,
};

/// Tar's unit: headers are one block, contents are padded to whole ones.
const BLOCK: usize = 512;
/// Most bytes of zeros behind the last entry: other tools pad an archive to a record of 10 KiB or a tape's block.
const MAX_PADDING: u64 = 1 << 20;
/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Told how many bytes went by since the last call; an error from it ends the transfer.
pub type Tick<'a> = &'a dyn Fn(u64) -> Result<()>;

/// Writes the snapshot in `dir` as a tar stream, and compares every file with the manifest on the way.
///
/// # Errors
/// Damaged when a file is not what the manifest says: what was written until then is an archive that nobody takes.
pub fn write(dir: &Path, manifest: &Manifest, out: &mut dyn Write, tick: Tick<'_>) -> Result<()> {
    let failed = |source: io::Error| {
        Error::failed(format!("could not write the archive: {source}")).with_source(source)
    };
    let bytes = read_plain(&dir.join(MANIFEST_FILE), MAX_MANIFEST_BYTES)
        .map_err(|source| Error::io("read", &dir.join(MANIFEST_FILE), source))?;
    let mtime = u64::try_from(manifest.finished_at.timestamp()).unwrap_or(0);
    let header = |path: &str, size: u64| header(&format!("{}/{path}", manifest.id), size, mtime);
    out.write_all(header(MANIFEST_FILE, bytes.len() as u64)?.as_bytes()).map_err(failed)?;
    out.write_all(&bytes).and_then(|()| out.write_all(padding(bytes.len() as u64))).map_err(failed)?;
    for (path, expected) in expected_files(manifest) {
        let full = dir.join(path);
        let mut file = open_plain(&full).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::damaged(format!("{} is missing", full.display())),
            _ => Error::io("read", &full, source),
        })?;
        out.write_all(header(path, expected.bytes)?.as_bytes()).map_err(failed)?;
        let (moved, sha256) = transfer(&mut file, out, expected.bytes, tick, |source, is_read| {
            if is_read { Error::io("read", &full, source) } else { failed(source) }
        })?;
        let is_longer = file.read(&mut [0]).map_err(|source| Error::io("read", &full, source))? > 0;
        if moved != expected.bytes || is_longer {
            return Err(Error::damaged(format!(
                "{} does not have the {} bytes of the manifest",
                full.display(),
                expected.bytes
            )));
        }
        if sha256 != expected.sha256 {
            return Err(Error::damaged(format!("checksum mismatch in {}", full.display())));
        }
        out.write_all(padding(expected.bytes)).map_err(failed)?;
    }
    out.write_all(&[0; 2 * BLOCK]).and_then(|()| out.flush()).map_err(failed)
}

fn header(path: &str, size: u64, mtime: u64) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(path).map_err(|source| Error::failed(format!("no tar entry for {path}: {source}")))?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_cksum();
    Ok(header)
}

fn padding(size: u64) -> &'static [u8] {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if rest == 0 { &[] } else { &ZEROS[rest..] }
}

/// What a file must be.
struct Expected<'a> {
    bytes: u64,
    sha256: &'a str,
}

/// Every file but the manifest, in the manifest's order. A manifest that was read names none twice and none elsewhere.
fn expected_files(manifest: &Manifest) -> Vec<(&str, Expected<'_>)> {
    let chunks = manifest.chunks().map(|chunk| {
        let content = &chunk.content;
        (chunk.path.as_str(), Expected { bytes: content.stored_bytes, sha256: &content.sha256 })
    });
    let files = manifest
        .files
        .iter()
        .map(|file| (file.path.as_str(), Expected { bytes: file.bytes, sha256: &file.sha256 }));
    files.chain(chunks).collect()
}

/// Path, size and SHA-256 of every file but the manifest.
pub fn files(manifest: &Manifest) -> impl Iterator<Item = (String, u64, String)> + '_ {
    expected_files(manifest)
        .into_iter()
        .map(|(path, expected)| (path.to_owned(), expected.bytes, expected.sha256.to_owned()))
}

/// A tar stream whose first entry was a good manifest.
pub struct Incoming<R> {
    input: R,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
}

impl<R: Read> Incoming<R> {
    /// Reads the manifest, and nothing behind it.
    ///
    /// # Errors
    /// Damaged for what is no exported snapshot.
    pub fn open(mut input: R) -> Result<Self> {
        let no_export = |problem: String| {
            Error::damaged(problem).with_hint(
                "An archive of `backup export` is an uncompressed tar whose first entry is the manifest. Decompress it \
                 first if it is compressed.",
            )
        };
        let header = next_header(&mut input)
            .map_err(|error| {
                let hint = "An archive of `backup export` is an uncompressed tar, manifest first.";
                error.context("this is no exported snapshot").with_hint(hint)
            })?
            .ok_or_else(|| no_export("the archive is empty".to_owned()))?;
        let folder = header.path.strip_suffix(MANIFEST_FILE).and_then(|path| path.strip_suffix('/'));
        let Some(folder) = folder else {
            return Err(no_export(format!(
                "the archive begins with {} and not with a manifest",
                printable(&header.path)
            )));
        };
        if header.size > MAX_MANIFEST_BYTES {
            return Err(no_export(format!("a manifest of {} bytes is too large", header.size)));
        }
        let mut manifest_bytes = Vec::new();
        (&mut input).take(header.size).read_to_end(&mut manifest_bytes).map_err(unreadable)?;
        if manifest_bytes.len() as u64 != header.size {
            return Err(cut_off(MANIFEST_FILE));
        }
        skip_padding(&mut input, header.size, MANIFEST_FILE)?;
        let manifest = Manifest::from_bytes(&manifest_bytes)?;
        if manifest.id.as_str() != folder {
            return Err(no_export(format!(
                "the archive's folder is {} and its snapshot is {}",
                printable(folder),
                manifest.id
            )));
        }
        Ok(Self { input, manifest, manifest_bytes })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Unpacks every file into `dir`, a private folder that is empty but for `data/`, and makes them durable. The manifest is
    /// returned for the caller to write last, as exactly the bytes that came in.
    ///
    /// # Errors
    /// Damaged or refused for anything that is not exactly what the manifest names; the folder is then the caller's to
    /// remove.
    pub fn unpack(self, dir: &Path, tick: Tick<'_>) -> Result<(Manifest, Vec<u8>)> {
        let Self { mut input, manifest, manifest_bytes } = self;
        let mut expected: HashMap<&str, Expected<'_>> = expected_files(&manifest).into_iter().collect();
        let mut done: HashSet<String> = HashSet::new();
        for folder in [DATA_DIR, LARGE_OBJECTS_DIR] {
            if expected.keys().any(|path| path.split_once('/').is_some_and(|(first, _)| first == folder)) {
                crate::files::create_private_dir(&dir.join(folder))?;
            }
        }
        while let Some(header) = next_header(&mut input)? {
            let path = header
                .path
                .strip_prefix(manifest.id.as_str())
                .and_then(|rest| rest.strip_prefix('/'))
                .unwrap_or(&header.path);
            if path == MANIFEST_FILE || done.contains(path) {
                return Err(refused(format!("the archive holds {} twice", printable(path))));
            }
            // Removed, and joined to a folder, is only a name that the checked manifest gave.
            let Some((path, file)) = expected.remove_entry(path) else {
                return Err(refused(format!(
                    "the archive holds {}, which is not part of the snapshot",
                    printable(&header.path)
                )));
            };
            if header.size != file.bytes {
                return Err(refused(format!(
                    "{path} has {} bytes in the archive, and {} in the manifest",
                    header.size, file.bytes
                )));
            }
            store(&mut input, &dir.join(path), path, &file, tick)?;
            skip_padding(&mut input, file.bytes, path)?;
            done.insert(path.to_owned());
        }
        expect_end(&mut input)?;
        if let Some(first) = expected.keys().min() {
            return Err(Error::damaged(format!(
                "the archive misses {} of the snapshot's files, such as {first}",
                expected.len()
            )));
        }
        Ok((manifest, manifest_bytes))
    }
}

fn store(
    input: &mut impl Read,
    target: &Path,
    path: &str,
    expected: &Expected<'_>,
    tick: Tick<'_>,
) -> Result<()> {
    let mut file = crate::files::create_private_file(target)?;
    let (moved, sha256) = transfer(input, &mut file, expected.bytes, tick, |source, is_read| {
        if is_read { unreadable(source) } else { Error::io("write", target, source) }
    })?;
    if moved != expected.bytes {
        return Err(cut_off(path));
    }
    if sha256 != expected.sha256 {
        return Err(Error::damaged(format!("checksum mismatch in {path} of the archive")));
    }
    file.sync_all().map_err(|source| Error::io("sync", target, source))
}

/// Moves up to `bytes` bytes, hashing them. Returns how many there were, and their SHA-256.
fn transfer<W: Write + ?Sized>(
    input: &mut impl Read,
    out: &mut W,
    bytes: u64,
    tick: Tick<'_>,
    error: impl Fn(io::Error, bool) -> Error,
) -> Result<(u64, String)> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hash = Sha256::new();
    let mut moved = 0;
    while moved < bytes {
        let want = usize::try_from(bytes - moved).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = match input.read(&mut buffer[..want]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(error(source, true)),
        };
        hash.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(|source| error(source, false))?;
        moved += read as u64;
        tick(read as u64)?;
    }
    Ok((moved, hex(&hash.finalize())))
}

struct Entry {
    path: String,
    size: u64,
}

/// The next entry, or `None` at the first block of zeros.
fn next_header(input: &mut impl Read) -> Result<Option<Entry>> {
    let mut block = [0; BLOCK];
    if read_full(input, &mut block)? < BLOCK {
        return Err(Error::damaged("the archive ends without its end mark: it was cut off"));
    }
    if block == [0; BLOCK] {
        return Ok(None);
    }
    let header = Header::from_byte_slice(&block);
    // The checksum's own field, bytes 148 to 155, counts as spaces.
    let sum: u32 = (0..BLOCK)
        .map(|at| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(block[at]) })
        .sum();
    if header.cksum().ok() != Some(sum) {
        return Err(Error::damaged("a header of the archive is damaged"));
    }
    let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(refused(format!(
            "the archive holds a path that leaves its folder: {}",
            printable(&path)
        )));
    }
    if !matches!(header.entry_type(), EntryType::Regular) {
        return Err(refused(format!(
            "the archive holds {}, which is no plain file (type {:?})",
            printable(&path),
            header.entry_type()
        )));
    }
    let size = header.entry_size().map_err(|_| {
        Error::damaged(format!("the size of {} in the archive is no number", printable(&path)))
    })?;
    Ok(Some(Entry { path, size }))
}

/// The rest of the end mark, and nothing but zeros behind it.
fn expect_end(input: &mut impl Read) -> Result<()> {
    let mut block = [0; BLOCK];
    if read_full(input, &mut block)? < BLOCK {
        return Err(Error::damaged("the archive ends within its end mark: it was cut off"));
    }
    let mut seen = 0;
    loop {
        if block.iter().any(|byte| *byte != 0) || seen > MAX_PADDING {
            return Err(refused("there is something behind the end of the archive".to_owned()));
        }
        block = [0; BLOCK];
        let read = read_full(input, &mut block)?;
        if read == 0 {
            return Ok(());
        }
        seen += read as u64;
    }
}

fn skip_padding(input: &mut impl Read, size: u64, path: &str) -> Result<()> {
    let mut buffer = [0; BLOCK];
    let want = padding(size).len();
    if read_full(input, &mut buffer[..want])? < want {
        return Err(cut_off(path));
    }
    if buffer.iter().any(|byte| *byte != 0) {
        return Err(refused(format!("there is something behind the end of {path} in the archive")));
    }
    Ok(())
}

/// Reads until the buffer is full or the input ends.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(unreadable(source)),
        }
    }
    Ok(filled)
}

fn refused(problem: String) -> Error {
    Error::refused(problem).with_hint(
        "`backup export` never writes such an archive: it was changed, or made by another program. Export it again.",
    )
}

fn cut_off(path: &str) -> Error {
    Error::damaged(format!("the archive ends in the middle of {path}: it was cut off"))
}

fn unreadable(source: io::Error) -> Error {
    Error::failed(format!("could not read the archive: {source}")).with_source(source)
}

#[cfg(test)]
mod tests;
