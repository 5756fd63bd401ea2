//! Data that comes from a file or from stdin.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use crate::{Error, ErrorKind, Result, interrupt};

/// How long a read of a silent pipe may go without looking for a signal.
const PATIENCE: Duration = Duration::from_millis(200);

/// Opens a file; `-` is stdin.
///
/// # Errors
/// Usage when stdin is a terminal; no such snapshot when the file is not there.
pub fn open(path: &Path) -> Result<Input> {
    if path == Path::new("-") {
        refuse_keyboard(io::stdin().is_terminal())?;
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let stdin = stdin.map_err(|source| Error::failed(format!("could not read stdin: {source}")))?;
        return Ok(Input { file: File::from(stdin) });
    }
    open_at_once(path).map_err(|source| {
        let kind = source.kind();
        let error = Error::io("read", path, source);
        if kind == io::ErrorKind::NotFound { error.with_kind(ErrorKind::NoSuchSnapshot) } else { error }
    })
}

/// Opens a file or a FIFO without waiting for somebody at the other end.
fn open_at_once(path: &Path) -> io::Result<Input> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).map(|file| Input { file })
}

/// Longest text that a person names as a file of settings, in bytes.
const MOST_TEXT: u64 = 16 << 20;

/// Reads a text that a person wrote, such as a settings file; it may be a FIFO (`<(command)`), and a signal ends the wait.
///
/// # Errors
/// Whatever the file system says, more than 16 MiB, or no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|source| io::Error::new(io::ErrorKind::InvalidData, source.utf8_error()))
}

/// [`read_text`] of what may be no text.
///
/// # Errors
/// Whatever the file system says, or more than 16 MiB.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_at_once(path)?.take(MOST_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_TEXT {
        return Err(io::Error::other(format!("it is longer than {MOST_TEXT} bytes")));
    }
    Ok(bytes)
}

/// Reads a file of any length that was found in a folder. A link to a file is one; a FIFO would be waited for, and a device has no end.
///
/// # Errors
/// Whatever the file system says, and for what is no plain file, which is not opened.
pub fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    std::fs::read(path)
}

fn refuse_keyboard(is_terminal: bool) -> Result<()> {
    if !is_terminal {
        return Ok(());
    }
    Err(Error::usage("an archive can't be typed in")
        .with_hint("Redirect a file or a pipe to stdin, or name a file."))
}

/// A file or a pipe whose reads end when a signal comes in: a pipe that stays silent must not keep the process, nor what
/// it has to clean up.
#[derive(Debug)]
pub struct Input {
    file: File,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let patience = Timespec::try_from(PATIENCE).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        loop {
            if interrupt::check().is_err() {
                return Err(io::Error::other("interrupted"));
            }
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, Some(&patience)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => match self.file.read(buffer) {
                    // Somebody else took it, or there was nothing after all.
                    Err(source) if source.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                },
                Err(source) => return Err(source.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_types_an_archive_in() {
        let error = refuse_keyboard(true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.hint().unwrap().starts_with("Redirect a file or a pipe to stdin"));
        refuse_keyboard(false).unwrap();
    }
}
