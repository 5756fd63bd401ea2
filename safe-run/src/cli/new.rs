//! `safe-run new`: makes the files of a new migration as the folder's own tool would. Asks no server, and overwrites nothing.

use std::path::{Path, PathBuf};

use common::{Error, Result};

use super::{Invocation, args::FormatChoice};
use sql::layout::Format;
use sql::migration::{self, new_files};

impl Invocation<'_> {
    pub(super) fn new_migration(&self, title: &str) -> Result<u8> {
        let dir = self.settings.dirs.first().cloned().unwrap_or_else(|| PathBuf::from("migrations"));
        let wanted = match self.settings.format.as_deref() {
            Some(text) => FormatChoice::parse(text)?.format(),
            None => None,
        };
        let there: Vec<PathBuf> = self.settings.dirs.iter().filter(|dir| dir.exists()).cloned().collect();
        let format = match wanted {
            Some(format) => format,
            None => migration::signs(&there)?.format_of_new()?,
        };
        let mut entries = Vec::new();
        for dir in &there {
            names_below(dir, format, &mut entries)?;
        }
        let files = new_files(format, &entries, title, chrono::Utc::now())?;
        for file in &files {
            let path = dir.join(&file.path);
            let parent = path.parent().unwrap_or(&dir);
            std::fs::create_dir_all(parent)
                .map_err(|source| Error::io("create the folder", parent, source))?;
            let mut made =
                std::fs::File::create_new(&path).map_err(|source| Error::io("create", &path, source))?;
            std::io::Write::write_all(&mut made, file.text.as_bytes())
                .map_err(|source| Error::io("write", &path, source))?;
            self.output.data(&format!("{}\n", path.display()))?;
        }
        Ok(0)
    }
}

/// The names that carry versions: of the folder, and of those below it where the tool looks there.
fn names_below(dir: &Path, format: Format, names: &mut Vec<String>) -> Result<()> {
    let failed = |source| Error::io("read the folder", dir, source);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        match (is_dir, format.has_folders()) {
            (true, false) if format.is_recursive() => names_below(&entry.path(), format, names)?,
            (is_dir, has_folders) if is_dir == has_folders => {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
            _ => {}
        }
    }
    Ok(())
}
