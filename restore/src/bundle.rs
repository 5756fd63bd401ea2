//! `restore FILE.tar`: an exported snapshot is unpacked into a private folder, restored, and the folder removed again, on
//! every path. The repository is neither needed nor touched.
//!
//! The folder lies beside the archive, where there was room for as much before; where that can't be written, in TMPDIR.
//! TMPDIR comes second because it is often a small file system in memory.

use std::path::{Path, PathBuf};

use common::{
    Error, Progress, Result,
    files::check_writable,
    input, interrupt,
    repository::import::UnpackedSnapshot,
    snapshot::{Manifest, bundle::Incoming},
};

/// The archive that a SNAPSHOT argument names: anything that ends in `.tar` is one, for no id does.
pub fn archive(wanted: &str) -> Option<PathBuf> {
    wanted.ends_with(".tar").then(|| PathBuf::from(wanted))
}

/// Reads the manifest alone: all that a dry run needs.
pub fn manifest(archive: &Path) -> Result<Manifest> {
    Ok(Incoming::open(input::open(archive)?)?.manifest().clone())
}

/// Unpacks an archive, comparing every file with the manifest on the way.
///
/// # Errors
/// Damaged or refused for anything but exactly what `backup export` wrote; nothing is left behind.
pub async fn unpack(archive: &Path, progress: &Progress) -> Result<UnpackedSnapshot> {
    let incoming = Incoming::open(input::open(archive)?)?;
    let parent = match archive.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => dir.to_owned(),
        None => PathBuf::from("."),
    };
    let parent = if check_writable(&parent).is_ok() { parent } else { std::env::temp_dir() };
    progress.phase(format!("unpacking {}", incoming.manifest().id), Some(incoming.manifest().stored_bytes()));
    let sink = progress.clone();
    // Ends by itself when a signal comes in, and removes what it made: it is waited for.
    let unpacked = tokio::task::spawn_blocking(move || {
        UnpackedSnapshot::unpack(incoming, &parent, &|bytes| {
            sink.advance(bytes, 0);
            interrupt::check()
        })
    })
    .await
    .map_err(|source| Error::failed(format!("unpacking the archive died: {source}")))??;
    progress.done();
    Ok(unpacked)
}
