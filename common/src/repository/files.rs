//! Files that nobody else may read, and that are still there after a power cut.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use crate::{Error, Result};

/// Makes a folder and its parents with mode 0700; one that exists already is fine.
pub fn create_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::io("create the folder", path, source))
}

/// Makes a new file with mode 0600; one that exists already is an error.
pub fn create_private_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::io("create", path, source))
}

/// Writes a new file with mode 0600 and makes its content durable.
pub fn write_private_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = create_private_file(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| Error::io("write", path, source))
}

/// Replaces a file in one step: a reader sees the old content or the new, never a part.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .tempfile_in(dir)
        .map_err(|source| Error::io("write in", dir, source))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(|source| Error::io("write", path, source))?;
    file.persist(path).map_err(|error| Error::io("replace", path, error.error))?;
    sync_dir(dir)
}

/// Like [`replace_private_file`], for a file that other users may read.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Not the file's own name in front: whoever reads `*.prom` must not see a part.
    let mut file = tempfile::Builder::new()
        .prefix(".incomplete-")
        .tempfile_in(dir)
        .map_err(|source| Error::io("write in", dir, source))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)))
        .and_then(|()| file.as_file().sync_all())
        .map_err(|source| Error::io("write", path, source))?;
    file.persist(path).map(drop).map_err(|error| Error::io("replace", path, error.error))
}

/// Makes a file with mode 0600 that has its name only once all of it is written and durable.
///
/// # Errors
/// Refused when the file exists already, unless `replace` is set.
pub fn write_new_file<T>(path: &Path, replace: bool, write: impl FnOnce(&File) -> Result<T>) -> Result<T> {
    let exists = || {
        Error::refused(format!("{} exists already", path.display()))
            .with_hint("Name another file, or give --force to replace it.")
    };
    if !replace && path.exists() {
        return Err(exists());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".incomplete-")
        .tempfile_in(dir)
        .map_err(|source| Error::io("write in", dir, source))?;
    let written = write(file.as_file())?;
    file.as_file().sync_all().map_err(|source| Error::io("write", path, source))?;
    let named = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    named.map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(),
        _ => Error::io("write", path, error.error),
    })?;
    sync_dir(dir)?;
    Ok(written)
}

/// A file without a name, for what is put together before it gets one: it is gone with the process.
pub fn nameless_file(dir: &Path) -> Result<File> {
    tempfile::tempfile_in(dir).map_err(|source| Error::io("write in", dir, source))
}

/// Makes the entries of a folder durable: without it a new name may be gone after a power cut.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|source| Error::io("sync", path, source))
}

/// Opens or makes a file that exists only to be locked.
pub fn open_lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::io("open", path, source))
}

/// Bytes that an ordinary user may still write on the file system of `path`.
pub fn free_space(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(|source| Error::io("look at", path, source.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether this process may make files in the folder `path`.
pub fn check_writable(path: &Path) -> Result<()> {
    tempfile::tempfile_in(path).map(drop).map_err(|source| Error::io("write in", path, source))
}
