//! Files that nobody else may read, and that are still there after a power cut.

use std::{
    fs::{DirBuilder, File, FileType, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use crate::{Error, Result, error::NotPlain};

/// Largest file of facts that is read into memory, in bytes: years of lines. What is larger is not ours.
pub const MOST_FACTS: u64 = 256 << 20;

/// Makes a folder and its parents with mode 0700; one that exists already is fine.
pub fn create_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::io("create the folder", path, source))
}

/// Makes a new folder with mode 0700; one that exists already, or a link there, is an error.
pub fn create_new_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(|source| Error::io("create the folder", path, source))
}

/// Opens a plain file for reading.
///
/// # Errors
/// [`NotPlain`] for a link, a FIFO, a socket, a device or a folder, which are not opened: some wait for ever for somebody
/// at the other end, and a device does whatever opening means to it.
pub fn open_plain(path: &Path) -> io::Result<File> {
    open_as(path, OpenOptions::new().read(true))
}

/// Opens a plain file with these options, and never what a link leads to. It may be made if it is not there.
fn open_as(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match std::fs::symlink_metadata(path) {
        Ok(there) => expect_plain(there.file_type())?,
        // Made, where the options say so.
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(source),
    }
    // Another thing may lie there a moment later: it is not waited for, and looked at once more when it is open.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path).map_err(|source| match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => not_plain("a link"),
        _ => source,
    })?;
    expect_plain(file.metadata()?.file_type())?;
    Ok(file)
}

fn expect_plain(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(not_plain(match kind {
        kind if kind.is_symlink() => "a link",
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }))
}

fn not_plain(what: &'static str) -> io::Error {
    io::Error::other(NotPlain(what))
}

/// Reads a plain file of at most `most` bytes into memory.
///
/// # Errors
/// As [`open_plain`], and for a longer file, which is not read.
pub fn read_plain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_plain(path)?;
    let too_long = || io::Error::other(format!("it is longer than {most} bytes"));
    if file.metadata()?.len() > most {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    // It may be growing.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_long()) } else { Ok(bytes) }
}

/// [`read_plain`] of facts, as text.
pub fn read_plain_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_plain(path, MOST_FACTS)?)
        .map_err(|source| io::Error::new(io::ErrorKind::InvalidData, source))
}

/// Opens or makes a file with mode 0600 to append to it and to read it; never what a link leads to.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    open_as(path, OpenOptions::new().read(true).append(true).create(true).mode(0o600))
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
    // A link is replaced itself; a device such as /dev/null must not be.
    if let Ok(there) = std::fs::symlink_metadata(path)
        && !there.is_symlink()
    {
        expect_plain(there.file_type()).map_err(|source| Error::io("replace", path, source))?;
    }
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

/// Opens or makes a file that exists only to be locked; never what a link leads to.
pub fn open_lock_file(path: &Path) -> Result<File> {
    open_as(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))
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

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn only_plain_files_are_opened_and_nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        std::fs::write(in_dir("plain"), "four").unwrap();
        assert_eq!(read_plain(&in_dir("plain"), 4).unwrap(), b"four");
        assert!(read_plain(&in_dir("plain"), 3).is_err());
        assert_eq!(read_plain(&in_dir("missing"), 3).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::create_dir(in_dir("folder")).unwrap();
        symlink(in_dir("plain"), in_dir("link")).unwrap();
        symlink(in_dir("nowhere"), in_dir("dangling")).unwrap();
        symlink("/dev/zero", in_dir("device")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, in_dir("fifo"), rustix::fs::Mode::RUSR).unwrap();
        let _socket = UnixListener::bind(in_dir("socket")).unwrap();
        for (name, what) in [
            ("folder", "a folder"),
            ("link", "a link"),
            ("dangling", "a link"),
            ("device", "a link"),
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
        ] {
            for result in [open_plain(&in_dir(name)), open_to_append(&in_dir(name))] {
                let error = Error::io("read", &in_dir(name), result.unwrap_err());
                assert!(error.message().ends_with(&format!("it is {what}, and no plain file")), "{error}");
                assert_eq!(error.kind(), crate::ErrorKind::Damaged);
            }
            assert!(open_lock_file(&in_dir(name)).is_err());
        }
        assert!(open_plain(Path::new("/dev/zero")).is_err());
        assert!(!in_dir("nowhere").exists(), "nothing was made through a link");
        open_to_append(&in_dir("new")).unwrap();
    }
}
