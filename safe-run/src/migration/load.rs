//! Reads migration directories. The only I/O of `migration`.

use std::{
    collections::BTreeMap,
    io::ErrorKind as Io,
    path::{Path, PathBuf},
};

use common::{Error, Result};

use super::{MigrationFile, Version, version::FileName};

/// Reads every migration of the given directories (not of their sub-directories), ordered by version.
///
/// # Errors
///
/// Usage: a directory that is missing, not a directory or without migrations; a `.sql` file without a version in its
/// name; a file that can't be read or is not UTF-8; an unknown `-- safe-run:` directive. Refused: two files with one
/// version; SQL that can't be split. Each names the file, and the line where there is one.
pub fn load(dirs: &[PathBuf]) -> Result<Vec<MigrationFile>> {
    let mut found: BTreeMap<Version, MigrationFile> = BTreeMap::new();
    for (index, dir) in dirs.iter().enumerate() {
        if dirs[..index].contains(dir) {
            continue;
        }
        for (path, version, description) in list(dir)? {
            if let Some(other) = found.get(&version) {
                return Err(Error::refused(format!(
                    "two migrations with version {version}: {} and {}",
                    other.path.display(),
                    path.display()
                ))
                .with_hint("Give one of them a version of its own, or remove it."));
            }
            let sql = read(&path)?;
            let mut migration = MigrationFile::parse(path, version.clone(), description, sql)?;
            flyway_conf(&mut migration)?;
            found.insert(version, migration);
        }
    }
    Ok(found.into_values().collect())
}

/// The migrations of one directory, by version and then by name.
fn list(dir: &Path) -> Result<Vec<(PathBuf, Version, String)>> {
    let shown = dir.display();
    let entries = std::fs::read_dir(dir).map_err(|error| {
        match error.kind() {
            Io::NotFound => Error::usage(format!("migrations directory {shown} does not exist")).with_hint(
                "Name the right one with --dir, or create the first migration with `safe-run new NAME`.",
            ),
            Io::NotADirectory => Error::usage(format!("{shown} is not a directory"))
                .with_hint("Name the directory that holds the migrations with --dir."),
            _ => Error::usage(format!("could not read directory {shown}: {error}"))
                .with_hint("Make it readable for this user, or name another one with --dir."),
        }
        .with_source(error)
    })?;
    let mut found = Vec::new();
    let mut folders_with_sql = false;
    for entry in entries {
        let entry =
            entry.map_err(|error| Error::usage(format!("could not read directory {shown}: {error}")))?;
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            folders_with_sql |= path.join("up.sql").exists() || path.join("migration.sql").exists();
            continue;
        }
        match FileName::parse(&name.to_string_lossy()) {
            FileName::Ignored => {}
            FileName::Migration { version, description } => found.push((path, version, description)),
            FileName::Wrong(reason) => {
                return Err(Error::usage(format!("{} is no migration: {reason}", path.display())).with_hint(
                    "Call it <version>_<name>.sql, for example 0001_create_users.sql, or move it out of the directory.",
                ));
            }
        }
    }
    if found.is_empty() {
        let hint = if folders_with_sql {
            "It has one folder for each migration, as diesel and Prisma do: run that tool with `safe-run -- COMMAND`."
        } else {
            "Create the first one with `safe-run new NAME`, or name another directory with --dir."
        };
        return Err(Error::usage(format!("no migrations in {shown}")).with_hint(hint));
    }
    found.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| {
        Error::usage(format!("could not read migration {}: {error}", path.display()))
            .with_hint("Make the file readable for this user.")
            .with_source(error)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::usage(format!("{}:{line}: not valid UTF-8 (byte {at})", path.display()))
            .with_hint("Save the file as UTF-8.")
    })
}

/// Flyway keeps its marker beside the file: `<file>.conf` with `executeInTransaction=false`.
fn flyway_conf(migration: &mut MigrationFile) -> Result<()> {
    let mut name = migration.path.as_os_str().to_owned();
    name.push(".conf");
    let path = PathBuf::from(name);
    if migration.no_transaction.is_some() || !path.is_file() {
        return Ok(());
    }
    let text = read(&path)?;
    let says_no = text.lines().any(|line| {
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim().eq_ignore_ascii_case("executeInTransaction")
                && value.trim().eq_ignore_ascii_case("false")
        })
    });
    if says_no {
        migration.no_transaction = Some(format!("{}: executeInTransaction=false", path.display()));
    }
    Ok(())
}
