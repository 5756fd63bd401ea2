//! A file that a person named to be written: by `-o`, `--report` and the like. Looked at before anything runs, because what can't be
//! written at the end of long work is a bad surprise; it is written in one step, by a file that takes its name.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result, files::check_writable};

/// Links within one path that are followed, as the kernel does.
const MOST_LINKS: usize = 40;

/// The file `path`, where it is, if it can be written by replacing it. `flag` names it in messages.
///
/// Links in its own place are not followed, nor are those on the way that belong to another user (but for the superuser of the machine):
/// who may write in a folder on the way could have made one that leads into a folder of ours.
///
/// # Errors
/// Usage: no such folder, not writable, no file, such a link.
pub fn settle(flag: &str, path: &Path) -> Result<PathBuf> {
    let us = rustix::process::geteuid().as_raw();
    settle_where(flag, path, |owner| owner == us || owner == 0)
}

fn settle_where(flag: &str, path: &Path, is_trusted: impl Fn(u32) -> bool) -> Result<PathBuf> {
    let refused = |why: String| {
        Error::usage(format!("{flag} {}: {why}", path.display())).with_hint("Name another file.")
    };
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_symlink() => {
            return Err(refused("it is a link, and where it leads is not written".to_owned()));
        }
        // A device such as /dev/null must not be replaced by a file.
        Ok(there) if !there.is_file() => return Err(refused("it is not a file".to_owned())),
        Ok(_) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(refused(source.to_string())),
    }
    let named = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"));
    let Some(name) = named else { return Err(refused("it names no file".to_owned())) };
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of_folder = |source: io::Error| refused(format!("its folder: {source}"));
    if let Some((link, owner)) = link_of_others(folder, is_trusted).map_err(of_folder)? {
        return Err(refused(format!(
            "{} on the way is a link of the user with id {owner}, and is not followed",
            link.display()
        )));
    }
    let folder = fs::canonicalize(folder).map_err(of_folder)?;
    check_writable(&folder).map_err(|error| refused(error.message().to_owned()))?;
    Ok(folder.join(name))
}

/// The first link on the way to `folder` whose owner is not trusted, and that owner; also within what links lead to.
fn link_of_others(folder: &Path, is_trusted: impl Fn(u32) -> bool) -> io::Result<Option<(PathBuf, u32)>> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut at, mut waiting, mut links) = (PathBuf::new(), parts(folder), 0);
    while let Some(next) = waiting.pop() {
        // The root begins anew; what lies behind holds no link.
        let path = at.join(next);
        let there = fs::symlink_metadata(&path)?;
        if !there.is_symlink() {
            at = path;
            continue;
        }
        if !is_trusted(there.uid()) {
            return Ok(Some((path, there.uid())));
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other("links lead in a circle"));
        }
        waiting.extend(parts(&fs::read_link(&path)?));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_can_not_be_replaced_by_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        let missing = in_dir("missing/run.html");
        for path in [PathBuf::from("/dev/null"), dir.path().to_owned(), missing, in_dir("x/")] {
            let error = settle("-o", &path).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{}", path.display());
        }
        assert_eq!(
            settle("-o", &in_dir("./run")).unwrap(),
            fs::canonicalize(dir.path()).unwrap().join("run")
        );
    }

    #[test]
    fn a_link_in_its_place_is_never_followed_and_one_on_the_way_only_if_nobody_else_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        fs::create_dir_all(in_dir("real/inner")).unwrap();
        symlink(in_dir("real/file"), in_dir("dangling")).unwrap();
        symlink("real", in_dir("way")).unwrap();
        // Seen only within what another link leads to.
        symlink("way/inner", in_dir("second")).unwrap();
        symlink("circle", in_dir("circle")).unwrap();
        let ours = |path: &str| settle_where("--report", &in_dir(path), |_| true);
        let others = |path: &str| settle_where("--report", &in_dir(path), |_| false);
        let says = |result: Result<PathBuf>, word: &str| {
            let error = result.unwrap_err();
            assert!(error.kind() == crate::ErrorKind::Usage && error.message().contains(word), "{error}");
        };
        says(ours("dangling"), "it is a link");
        says(ours("circle/file"), "circle");
        let real = fs::canonicalize(in_dir("real")).unwrap();
        assert_eq!(ours("way/file").unwrap(), real.join("file"));
        assert_eq!(ours("second/../file").unwrap(), real.join("file"));
        assert_eq!(others("real/inner/../file").unwrap(), real.join("file"));
        says(others("way/file"), "a link of the user with id");
        let of_ours = |owner| owner == fs::symlink_metadata(in_dir("way")).unwrap().uid();
        assert!(settle_where("-o", &in_dir("second/file"), of_ours).is_ok());
        says(others("second/file"), "second on the way");
    }
}
