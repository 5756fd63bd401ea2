//! Whose a repository is. Who may write in it decides what a restore brings back, and what a run's undo does: so it has to
//! be ours or the superuser's of this machine, writable by nobody else, and its own folders no links to other places. A
//! person may say otherwise (`--trust-repo`).

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{Error, Result, ident::shell_word};

/// Said once for the process, by its command line or its settings.
static TRUSTED: AtomicBool = AtomicBool::new(false);

/// Takes any repository from now on, whoever owns it and whoever may write in it; links are followed by nothing all the same.
pub fn trust_any() {
    TRUSTED.store(true, Ordering::SeqCst);
}

/// Write access of the group and of others.
const WRITE_OF_OTHERS: u32 = 0o022;
/// What is looked at, in messages.
const FOLDER: &str = "the repository's folder";

/// Looks at the repository's folder and at those of `folders` that are there.
///
/// # Errors
/// Refused for what belongs to somebody else or may be written by others, unless the person said that it is trusted; always
/// for a link in the place of one of the repository's own folders.
pub(super) fn check(root: &Path, folders: &[&str]) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let of = |path: &Path| fs::metadata(path).map_err(|source| Error::io("look at", path, source));
    judge(FOLDER, root, of(root)?.uid(), of(root)?.mode(), us)?;
    for name in folders {
        let path = root.join(name);
        let Ok(folder) = fs::symlink_metadata(&path) else { continue };
        if !folder.is_dir() {
            return Err(Error::refused(format!(
                "{} is not a folder of the repository: it is a link or a file",
                path.display()
            ))
            .with_hint("Nothing of ours makes such a thing. Find out who put it there, and remove it."));
        }
        judge(FOLDER, &path, folder.uid(), folder.mode(), us)?;
    }
    Ok(())
}

/// Looks at the folder of one snapshot and at its manifest, which says what every other file has to be.
///
/// # Errors
/// As [`check`]; what is not there, or is no plain file, is told by whoever reads it.
pub(super) fn check_snapshot(root: &Path, dir: &Path, manifest: &str) -> Result<()> {
    /// What lets others through a folder.
    const THROUGH: u32 = 0o011;
    let us = rustix::process::geteuid().as_raw();
    // Whatever its mode is, nobody else gets there.
    let is_closed = fs::metadata(root).is_ok_and(|root| root.mode() & THROUGH == 0);
    let mode_of = |mode: u32| if is_closed { mode & !WRITE_OF_OTHERS } else { mode };
    for (what, path) in [("the snapshot's folder", dir), ("the snapshot's manifest", &dir.join(manifest))] {
        let Ok(there) = fs::symlink_metadata(path) else { continue };
        if !there.is_symlink() {
            judge(what, path, there.uid(), mode_of(there.mode()), us)?;
        }
    }
    Ok(())
}

/// Takes write access to a folder of ours from others.
pub(super) fn close(root: &Path) -> Result<()> {
    let folder = fs::metadata(root).map_err(|source| Error::io("look at", root, source))?;
    if folder.uid() == rustix::process::geteuid().as_raw() && folder.mode() & WRITE_OF_OTHERS != 0 {
        let mode = fs::Permissions::from_mode(folder.mode() & 0o7777 & !WRITE_OF_OTHERS);
        fs::set_permissions(root, mode).map_err(|source| Error::io("close to others", root, source))?;
    }
    Ok(())
}

fn judge(what: &str, path: &Path, owner: u32, mode: u32, us: u32) -> Result<()> {
    if TRUSTED.load(Ordering::SeqCst) {
        return Ok(());
    }
    let word = shell_word(&path.display().to_string());
    if owner != us && owner != 0 {
        return Err(Error::refused(format!(
            "{what} {} belongs to the user with id {owner}, and this program runs as {us}",
            path.display()
        ))
        .with_hint(format!(
            "Its owner decides what a restore brings back. Run as that user, or take the folder over (`chown -R {us} {word}`); \
             --trust-repo takes it as it is."
        )));
    }
    if mode & WRITE_OF_OTHERS != 0 {
        return Err(Error::refused(format!(
            "{what} {} may be written by others (mode {:04o})",
            path.display(),
            mode & 0o7777
        ))
        .with_hint(format!(
            "Whoever may write in it decides what a restore brings back. Run `chmod go-w {word}`; --trust-repo takes it as it is."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_ours_or_roots_and_writable_by_nobody_else() {
        let judge = |owner, mode, us| judge(FOLDER, Path::new("/backups/it's"), owner, mode, us);
        for (owner, mode, us) in
            [(1000, 0o700, 1000), (0, 0o755, 1000), (0, 0o40_750, 0), (1000, 0o2755, 1000)]
        {
            assert!(judge(owner, mode, us).is_ok(), "{owner} {mode:o} {us}");
        }
        for (owner, mode, us, hint) in [
            (1000, 0o700, 0, "chown -R 0 '/backups/it'\\''s'"),
            (1001, 0o700, 1000, "chown -R 1000"),
            (1000, 0o770, 1000, "chmod go-w '/backups/it'\\''s'"),
            (1000, 0o702, 1000, "chmod go-w"),
            (0, 0o1777, 1000, "chmod go-w"),
        ] {
            let error = judge(owner, mode, us).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Refused);
            assert!(
                error.hint().is_some_and(|text| text.contains(hint) && text.contains("--trust-repo")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_only_we_can_reach_is_taken_with_any_mode() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("s");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("m"), "x").unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chmod(&dir.join("m"), 0o664);
        for (mode, is_taken) in [(0o700, true), (0o740, true), (0o750, false), (0o755, false)] {
            chmod(root.path(), mode);
            assert_eq!(check_snapshot(root.path(), &dir, "m").is_ok(), is_taken, "{mode:o}");
        }
    }
}
