//! Reads migration directories.

use std::{
    collections::HashMap,
    io::ErrorKind as Io,
    path::{Path, PathBuf},
};

use common::{Error, Result};

use super::{Found, MigrationFile};
use crate::{
    layout::{Format, Layout, detect::Signs, diesel, prisma},
    version::{FileName, Version},
};

/// Reads every migration of the given directories, in the order in which the tool runs them.
///
/// # Errors
///
/// Usage: a directory that is missing, not a directory or without migrations; a `.sql` file without a version in its
/// name; a file that can't be read or is not UTF-8; in our own layout, an unknown `-- safe-run:` directive. Refused: two
/// files with one version; in our own layout, SQL that can't be split. Each names the file, and the line where there is
/// one. In another tool's layout such a file only matters while it is pending: [`super::decide`].
pub fn load(dirs: &[PathBuf], layout: Layout) -> Result<Vec<MigrationFile>> {
    let mut found: Vec<Found> = Vec::new();
    for (index, dir) in dirs.iter().enumerate() {
        if !dirs[..index].contains(dir) {
            found.extend(list(dir, layout)?);
        }
    }
    if layout.format.orders_by_name() {
        found.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
    } else {
        found.sort_by(|a, b| (&a.version, &a.path).cmp(&(&b.version, &b.path)));
    }
    let mut versions: HashMap<Version, PathBuf> = HashMap::new();
    for found in &found {
        if let Some(other) = versions.insert(found.version.clone(), found.path.clone()) {
            return Err(Error::refused(format!(
                "two migrations with version {}: {} and {}",
                found.version,
                other.display(),
                found.path.display()
            ))
            .with_hint("Give one of them a version of its own, or remove it."));
        }
    }
    found
        .into_iter()
        .map(|found| {
            let path = found.path.clone();
            let sql = if found.foreign.is_some() { String::new() } else { read(&path)? };
            let mut migration = MigrationFile::read(found, sql, layout);
            if let Some(beside) = layout.metadata_file(&path) {
                let text = if beside.is_file() { Some(read(&beside)?) } else { None };
                migration.apply_metadata(&beside, text.as_deref());
            }
            match &migration.problem {
                // A doubt is none about what is applied already.
                Some(problem) if layout.format == Format::SafeRun && !problem.is_section => {
                    Err(problem.error())
                }
                _ => Ok(migration),
            }
        })
        .collect()
}

/// Looks at the directories without reading them as any tool's.
///
/// # Errors
/// Usage, as for [`load`]: a directory that is missing or can't be read.
pub fn signs(dirs: &[PathBuf]) -> Result<Signs> {
    let mut signs = Signs::default();
    for dir in dirs {
        look(dir, 0, &mut signs)?;
    }
    Ok(signs)
}

/// How deep folders are looked into for Flyway's and refinery's files.
const MAX_DEPTH: usize = 8;

fn look(dir: &Path, depth: usize, signs: &mut Signs) -> Result<()> {
    for (path, name) in entries(dir)? {
        if path.is_dir() {
            if !name.starts_with('.') {
                let (up, migration) = (path.join(diesel::FILE).exists(), path.join(prisma::FILE).exists());
                if up || migration {
                    signs.add_folder(up, migration);
                } else if depth < MAX_DEPTH {
                    let mut below = Signs::default();
                    look(&path, depth + 1, &mut below)?;
                    signs.add_below(&below);
                }
            }
        } else {
            // What is not UTF-8 is named later, by the reader of the layout that it is.
            let bytes = if name.to_ascii_lowercase().ends_with(".sql") { bytes(&path)? } else { Vec::new() };
            signs.add_file(&name, &String::from_utf8_lossy(&bytes));
        }
    }
    Ok(())
}

fn no_directory(dir: &Path, error: std::io::Error) -> Error {
    let shown = dir.display();
    match error.kind() {
        Io::NotFound => Error::usage(format!("migrations directory {shown} does not exist")).with_hint(
            "Name the right one with --dir, or create the first migration with `safe-run new NAME`.",
        ),
        Io::NotADirectory => Error::usage(format!("{shown} is not a directory"))
            .with_hint("Name the directory that holds the migrations with --dir."),
        Io::PermissionDenied => Error::usage(format!("could not read directory {shown}: {error}"))
            .with_hint("Make it readable for this user, or name another one with --dir."),
        _ => Error::usage(format!("could not read directory {shown}: {error}"))
            .with_hint("Name the directory that holds the migrations with --dir."),
    }
    .with_source(error)
}

/// The entries of a directory by name.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let shown = dir.display();
    let entries = std::fs::read_dir(dir).map_err(|error| no_directory(dir, error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| Error::usage(format!("could not read directory {shown}: {error}")))?;
        found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
    }
    found.sort();
    Ok(found)
}

/// The migrations of one directory.
fn list(dir: &Path, layout: Layout) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    list_into(dir, dir, layout, 0, &mut found)?;
    if found.is_empty() {
        let hint = match layout.format {
            Format::SafeRun => {
                "Create the first one with `safe-run new NAME`, or name another directory with --dir."
                    .to_owned()
            }
            format => format!(
                "No file in it has a name as {format} wants it: name another directory with --dir, or the right tool with --format."
            ),
        };
        return Err(Error::usage(format!("no migrations in {}", dir.display())).with_hint(hint));
    }
    Ok(found)
}

fn list_into(root: &Path, dir: &Path, layout: Layout, depth: usize, found: &mut Vec<Found>) -> Result<()> {
    for (path, name) in entries(dir)? {
        let is_dir = path.is_dir();
        let path = match (is_dir, layout.format) {
            (true, format) if format.has_folders() => {
                let file = if format == Format::Diesel { diesel::FILE } else { prisma::FILE };
                let inner = path.join(file);
                if !inner.is_file() {
                    refuse_incomplete(&path, &name, layout, file)?;
                    continue;
                }
                inner
            }
            (true, format) if format.is_recursive() && depth < MAX_DEPTH => {
                list_into(root, &path, layout, depth + 1, found)?;
                continue;
            }
            (false, format) if !format.has_folders() => path,
            _ => continue,
        };
        let script = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join("/");
        let make = |version, description, any_order, foreign| Found {
            path: path.clone(),
            script: script.clone(),
            version,
            description,
            any_order,
            foreign,
        };
        match layout.file_name(&name) {
            FileName::Ignored => {}
            FileName::Migration { version, description } => {
                found.push(make(version, description, false, None));
            }
            FileName::AnyOrder { version, description } => {
                found.push(make(version, description, true, None));
            }
            FileName::Foreign { version, description, why } => {
                found.push(make(version, description, false, Some(why)));
            }
            FileName::Wrong(reason) => {
                let hint = if layout.format == Format::SafeRun {
                    "Call it <version>_<name>.sql, for example 0001_create_users.sql, or move it out of the directory."
                } else {
                    "Its own tool would not take it either: rename it, or move it out of the directory."
                };
                return Err(
                    Error::usage(format!("{} is no migration: {reason}", path.display())).with_hint(hint)
                );
            }
        }
    }
    Ok(())
}

/// A folder without the file that goes up: the tool refuses it too, unless it is empty or hidden.
fn refuse_incomplete(path: &Path, name: &str, layout: Layout, file: &str) -> Result<()> {
    let empty = entries(path)?.is_empty();
    if name.starts_with('.') || (empty && layout.format == Format::Diesel) {
        return Ok(());
    }
    Err(Error::usage(format!("{} has no {file}", path.display()))
        .with_hint("Its own tool would not take it either: complete it, or move it out of the directory."))
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    common::input::read_plain(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        Io::PermissionDenied => "Make the file readable for this user.",
        Io::NotFound => "It is a link to a file that is not there: put that back, or remove the link.",
        _ => "Look what lies there, and put the file back from a copy.",
    };
    Error::usage(format!("could not read migration {}: {error}", path.display()))
        .with_hint(hint)
        .with_source(error)
}

fn read(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::usage(format!("{}:{line}: not valid UTF-8 (byte {at})", path.display()))
            .with_hint("Save the file as UTF-8.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_is_told_with_what_to_do_about_it() {
        let told = |make: fn(&Path, std::io::Error) -> Error, kind: Io| {
            let error = make(Path::new("m/1_a.sql"), kind.into());
            assert_eq!(error.kind(), common::ErrorKind::Usage);
            error.hint().map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(told(unreadable, Io::PermissionDenied), "Make the file readable for this user.");
        assert_eq!(told(unreadable, Io::Other), "Look what lies there, and put the file back from a copy.");
        assert_eq!(
            told(no_directory, Io::PermissionDenied),
            "Make it readable for this user, or name another one with --dir."
        );
    }
}
