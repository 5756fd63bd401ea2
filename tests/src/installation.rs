//! A private copy of a PostgreSQL installation, with extensions that the real one has not. Nothing is written into the real
//! one: the server finds its share folder relative to its own program, so the programs are copied and the rest is symbolic links.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Makes the copy below `dir` and returns its folder of programs.
pub(crate) fn with_extensions(
    bin: &Path,
    sharedir: &Path,
    dir: &Path,
    files: &[(String, String)],
) -> PathBuf {
    let (bin, sharedir) = (bin.canonicalize().unwrap(), sharedir.canonicalize().unwrap());
    let base: PathBuf =
        bin.components().zip(sharedir.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let root = dir.join("installation");
    let of = |folder: &Path| root.join(folder.strip_prefix(&base).expect("the base is of both"));
    let (new_bin, new_share) = (of(&bin), of(&sharedir));
    make_folder(&new_bin);
    link_all(&bin, &new_bin);
    // Where a program lies is asked of the real file. A copy and no hard link: the server's folder changes owners.
    for program in ["postgres", "initdb"] {
        let to = new_bin.join(program);
        fs::remove_file(&to).expect("it was just linked");
        fs::copy(bin.join(program), &to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    }
    link_all(&sharedir, &new_share);
    fs::remove_file(new_share.join("extension")).expect("it was just linked");
    link_all(&sharedir.join("extension"), &new_share.join("extension"));
    let libraries = bin.parent().expect("not the root").join("lib");
    let new_libraries = new_bin.parent().expect("not the root").join("lib");
    if libraries.is_dir() && !new_libraries.exists() {
        symlink(&libraries, &new_libraries).unwrap();
    }
    write_extensions(&new_share, files);
    new_bin
}

/// The same for packages of Debian that were unpacked below `root`: the folder of programs, and what LD_LIBRARY_PATH has to be for
/// the libraries that they need. `bin` is Debian's, `/usr/lib/postgresql/<major>/bin`.
pub(crate) fn with_unpacked(bin: &Path, root: &Path, dir: &Path) -> (PathBuf, std::ffi::OsString) {
    let bin = bin.canonicalize().unwrap();
    let major = bin.parent().and_then(Path::file_name).expect("it is Debian's").to_owned();
    let usr = dir.join("installation/usr");
    let at = |base: &Path, kind: &str| base.join(kind).join("postgresql").join(&major);
    let (own, theirs) = (Path::new("/usr"), root.join("usr"));
    let new_bin = at(&usr, "lib").join("bin");
    link_all(&bin, &new_bin);
    for program in ["postgres", "initdb"] {
        let to = new_bin.join(program);
        fs::remove_file(&to).expect("it was just linked");
        fs::copy(bin.join(program), &to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    }
    link_both(&at(own, "lib").join("lib"), &at(&theirs, "lib").join("lib"), &at(&usr, "lib").join("lib"));
    link_both(&at(own, "share"), &at(&theirs, "share"), &at(&usr, "share"));
    // Some lie in folders of their own, from which Debian links them once they are installed.
    let mut folders = vec![theirs.join("lib")];
    for at in 0.. {
        let Some(folder) = folders.get(at).cloned() else { break };
        let below = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        folders.extend(
            below.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir() && !path.is_symlink()),
        );
    }
    (new_bin, std::env::join_paths(folders).expect("no folder has a colon"))
}

/// Links what is in either folder; a folder that both have is made, with what is in either.
fn link_both(one: &Path, other: &Path, to: &Path) {
    link_all(one, to);
    for entry in fs::read_dir(other).unwrap_or_else(|e| panic!("{}: {e}", other.display())) {
        let entry = entry.unwrap();
        let (from, to) = (one.join(entry.file_name()), to.join(entry.file_name()));
        if from.is_dir() && entry.path().is_dir() {
            fs::remove_file(&to).expect("it was just linked");
            link_both(&from, &entry.path(), &to);
        } else if !to.exists() {
            symlink(entry.path(), to).unwrap();
        }
    }
}

/// Writes the files into the folder `extension` below `share`, which `extension_control_path` may name from 18 on.
pub(crate) fn write_extensions(share: &Path, files: &[(String, String)]) {
    let folder = share.join("extension");
    make_folder(&folder);
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

fn make_folder(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn link_all(from: &Path, to: &Path) {
    make_folder(to);
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.unwrap();
        symlink(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
