//! What an archive holds, as pg_restore lists and prints it. Nothing is restored here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
};

use common::{
    Error, Result,
    postgres::tools::{self, Tool},
    repository::StoredSnapshot,
    snapshot::{
        manifest::SCHEMA_FILE,
        toc::{self, Entry},
    },
};

use crate::missing;

/// The part of the archive to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Schemas, types, functions, tables: everything that rows need.
    PreData,
    /// Indexes, constraints, triggers, rules, policies: everything that needs rows.
    PostData,
    /// Event triggers, which would see all that comes after them: nothing does.
    EventTriggers,
}

impl Section {
    /// The option that names it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::PreData => "--section=pre-data",
            Self::PostData | Self::EventTriggers => "--section=post-data",
        }
    }
}

/// The archive of a snapshot.
pub fn archive(snapshot: &StoredSnapshot) -> PathBuf {
    snapshot.path(SCHEMA_FILE)
}

/// Reads the table of contents of the snapshot's archive, which was verified or is not trusted with more than names.
pub async fn contents(pg_restore: &Tool, archive: &Path) -> Result<Vec<Entry>> {
    Ok(toc::parse(&String::from_utf8_lossy(&printed_contents(pg_restore, archive).await?)))
}

/// The same as pg_restore prints it, in the encoding of the snapshot's database.
pub async fn printed_contents(pg_restore: &Tool, archive: &Path) -> Result<Vec<u8>> {
    let mut command = tools::offline_command(&pg_restore.path);
    command.args(["--list", "--verbose"]).arg(archive);
    let (finished, text) = tools::capture(command, "pg_restore").await?;
    if !finished.success {
        return Err(Error::damaged(format!(
            "the schema archive {} can't be read: {}",
            archive.display(),
            finished.stderr.trim()
        ))
        .with_hint("Run `backup verify` to list every damaged file, or restore an older snapshot."));
    }
    Ok(text)
}

/// The entries of a section: number, and what the archive's list says of each.
pub async fn entries(pg_restore: &Tool, archive: &Path, section: Section) -> Result<BTreeMap<u32, String>> {
    let listed = tools::output(list_command(pg_restore, archive, section), "pg_restore").await?;
    Ok(missing::entries(&listed))
}

/// The numbers of the entries in the post-data section.
pub async fn post_data_entries(pg_restore: &Tool, archive: &Path) -> Result<BTreeSet<u32>> {
    Ok(entries(pg_restore, archive, Section::PostData).await?.into_keys().collect())
}

/// The statements of some entries, as pg_restore would print them.
pub async fn script(pg_restore: &Tool, archive: &Path, entries: &[u32]) -> Result<String> {
    let list = list_of(entries)?;
    let mut command = tools::offline_command(&pg_restore.path);
    command.args(["--file", "-", "--use-list"]).arg(list.path()).arg(archive);
    tools::output(command, "pg_restore").await
}

/// The statements of the post-data section, as pg_restore would print them.
pub async fn post_data_script(pg_restore: &Tool, archive: &Path) -> Result<String> {
    let mut command = tools::offline_command(&pg_restore.path);
    command.arg(Section::PostData.flag()).args(["--file", "-"]).arg(archive);
    tools::output(command, "pg_restore").await
}

/// pg_restore's text without what psql alone understands, and without the setting that an older server does not know.
///
/// Only whole lines of pg_restore's own go: the one that begins the restricted mode, whose token is random, its
/// counterpart with the same token, and the setting in the head.
pub fn for_the_server(text: &str, major: u32) -> String {
    let mut token = None;
    let mut in_head = true;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        if in_head && token.is_none() && bare.starts_with("\\restrict ") {
            token = bare.strip_prefix("\\restrict ").map(str::to_owned);
            continue;
        }
        if token.as_ref().is_some_and(|token| bare.strip_prefix("\\unrestrict ") == Some(token)) {
            continue;
        }
        if in_head && major < 17 && bare == "SET transaction_timeout = 0;" {
            continue;
        }
        // The entries begin; names and bodies may hold any text from here on.
        in_head &= !bare.starts_with("-- Name: ");
        out.push_str(line);
    }
    out
}

/// pg_restore that lists a section.
pub fn list_command(pg_restore: &Tool, archive: &Path, section: Section) -> tokio::process::Command {
    // In a process group of its own: a Ctrl-C during an undo must not end it.
    let mut command = tools::offline_command(&pg_restore.path);
    command.arg("--list").arg(section.flag()).arg(archive);
    command
}

/// A list of entries by their numbers, which are all that pg_restore reads of a line.
pub fn list_of(entries: &[u32]) -> Result<tempfile::NamedTempFile> {
    list_file(&entries.iter().map(|entry| format!("{entry};\n")).collect::<String>())
}

/// A list of entries for pg_restore.
pub fn list_file(entries: &str) -> Result<tempfile::NamedTempFile> {
    let failed =
        |source| Error::failed(format!("could not write a temporary file: {source}")).with_source(source);
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(entries.as_bytes()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_pg_restore_itself_are_taken_away() {
        let text = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET transaction_timeout = 0;\nSET x = 1;\n\
                    --\n-- Name: f(); Type: FUNCTION\n--\n\\restrict def\n\\unrestrict def\nSET transaction_timeout = 0;\n\
                    \\unrestrict abc\n";
        let kept = for_the_server(text, 14);
        assert!(!kept.contains("abc"));
        assert!(kept.contains("\\restrict def\n\\unrestrict def\nSET transaction_timeout = 0;\n"), "{kept}");
        assert_eq!(kept.matches("transaction_timeout").count(), 1);
        assert_eq!(for_the_server(text, 17).matches("transaction_timeout").count(), 2);
    }
}
