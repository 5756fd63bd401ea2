//! Files with passwords in them, and who else may read them.

use std::path::{Path, PathBuf};

use crate::{
    ident::shell_word,
    postgres::{environment::Environment, passfile::Passfile},
};

/// A sentence about a file with a password in it, if its group or others may read it.
pub fn others_may_read(what: &str, path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mode = file.permissions().mode() & 0o7777;
    (mode & 0o044 != 0).then(|| {
        format!(
            "{what} {} holds a password, and others may read it (mode {mode:04o}): run `chmod go-rw {}`",
            path.display(),
            shell_word(&path.display().to_string())
        )
    })
}

/// Reads the password file if it may be used; a file that others can read is ignored, as libpq does, with a warning.
pub(super) fn read_passfile(named: Option<&str>, env: &Environment, warnings: &mut Vec<String>) -> Passfile {
    use std::os::unix::fs::PermissionsExt;
    let Some(path) = named.map(PathBuf::from).or_else(|| env.home().map(|home| home.join(".pgpass"))) else {
        return Passfile::default();
    };
    let mut ignore = |why: String| {
        warnings.push(format!("the password file {} is ignored: {why}", path.display()));
        Passfile::default()
    };
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Passfile::default(),
        Err(error) => ignore(error.to_string()),
        Ok(metadata) if !metadata.is_file() => ignore("it is not a plain file".to_owned()),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            ignore("others may read or write it; its permissions must be u=rw (0600) or less".to_owned())
        }
        Ok(_) => match std::fs::read(&path) {
            Ok(bytes) => Passfile::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) => ignore(error.to_string()),
        },
    }
}
