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
