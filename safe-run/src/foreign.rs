//! Whether the migrations stand in the history of another tool: what that tool has applied must not run again.
//!
//! Tables of the tools that we know are found by their names and by their columns; any other table counts when the names of
//! the files, or numbers that are times, stand in it. Nothing of the database's own code runs for that: plain tables
//! are copied out, with no condition and no plan, in columns of built-in types. What can't be read decides nothing.

mod folder;
mod unreadable;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::{Result, ident::QualifiedName, postgres::Session};

use crate::history_tables::{Candidate, candidates, contents, rows};
use folder::Fit;
pub use folder::Folder;
pub use unreadable::{Unreadable, find as find_unreadable};

/// Columns that hold versions.
const VERSION_COLUMNS: [&str; 10] = [
    "version",
    "version_id",
    "version_num",
    "version_number",
    "schema_version",
    "db_version",
    "revision",
    "migration",
    "migration_id",
    "patch",
];

/// Another tool's history in which migrations of the folders stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The table.
    pub table: QualifiedName,
    /// Whose it is; `None` where only its content tells.
    pub tool: Option<&'static str>,
    /// How that tool is told to migrate.
    pub command: Option<&'static str>,
    /// Its columns: whether it is a history that an adopted tool could have under another name.
    pub columns: Vec<String>,
    /// The files and folders that stand in it.
    pub paths: BTreeSet<PathBuf>,
}

impl Elsewhere {
    /// Whether the file, or the folder that it lies in, stands there.
    pub fn has(&self, path: &Path) -> bool {
        self.paths.contains(path) || path.parent().is_some_and(|folder| self.paths.contains(folder))
    }
}

/// Looks for migrations of `dirs` in tables other than `own`, and in those that are not named in `left_out`, each as
/// `[schema.]table`. The one in which most of them stand comes first.
///
/// # Errors
/// The connection's own. What can't be read, for a lock or a right, is left out.
pub async fn find(
    session: &Session,
    dirs: &[PathBuf],
    own: Option<&QualifiedName>,
    left_out: &[sql::statement::TableName],
) -> Result<Vec<Elsewhere>> {
    let mut folder = Folder::read(dirs);
    if folder.is_empty() {
        return Ok(Vec::new());
    }
    let candidates: Vec<(Candidate, Vec<String>)> = candidates(session)
        .await?
        .into_iter()
        .filter(|candidate| own != Some(&candidate.table))
        .filter(|candidate| !is_left_out(&candidate.table, left_out))
        .map(|candidate| {
            let read = to_read(&candidate);
            (candidate, read)
        })
        .filter(|(_, read)| !read.is_empty())
        .collect();
    let has_hashes =
        |read: &[String]| read.iter().any(|column| matches!(column.as_str(), "hash" | "checksum"));
    if candidates.iter().any(|(_, read)| has_hashes(read)) {
        folder.add_hashes();
    }
    if let Some(journal) = Folder::journal(dirs) {
        folder.add_journal(&journal);
    }
    let wanted: Vec<(&QualifiedName, &[String])> =
        candidates.iter().map(|(candidate, read)| (&candidate.table, read.as_slice())).collect();
    let contents = contents(session, &wanted).await?;
    let mut found: Vec<Elsewhere> = candidates
        .iter()
        .zip(contents)
        .filter_map(|((candidate, read), text)| {
            let rows = rows(&text?, read.len());
            let places = recorded(candidate, read, &rows, &folder);
            (!places.is_empty()).then(|| Elsewhere {
                table: candidate.table.clone(),
                tool: candidate.tool.map(|tool| tool.tool),
                command: candidate.tool.map(|tool| tool.command).filter(|command| !command.is_empty()),
                columns: candidate.columns.clone(),
                paths: places.into_iter().map(|place| folder.path(place).to_owned()).collect(),
            })
        })
        .collect();
    found.sort_by_key(|elsewhere| (std::cmp::Reverse(elsewhere.paths.len()), elsewhere.tool.is_none()));
    Ok(found)
}

/// Whether it is one of those that say nothing of the files.
pub fn is_left_out(table: &QualifiedName, left_out: &[sql::statement::TableName]) -> bool {
    left_out.iter().any(|name| {
        name.name == table.name.as_str()
            && name.schema.as_ref().is_none_or(|schema| *schema == table.schema.as_str())
    })
}

/// The columns in which migrations may stand.
fn to_read(candidate: &Candidate) -> Vec<String> {
    let wanted = |column: &&String| candidate.tool.is_none_or(|tool| tool.names.contains(&column.as_str()));
    candidate.words.iter().filter(wanted).cloned().collect()
}

/// The entries that stand in the table. Pure.
fn recorded(
    candidate: &Candidate,
    read: &[String],
    rows: &[Vec<Option<String>>],
    folder: &Folder,
) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for (at, column) in read.iter().enumerate() {
        let values: Vec<&str> = rows.iter().filter_map(|row| row.get(at)?.as_deref()).collect();
        let has_namespaces = candidate.tool.is_some_and(|tool| tool.has_namespaces);
        let fits: Vec<(Fit, &[usize])> = values
            .iter()
            .filter_map(|value| {
                folder.find(value).or_else(|| has_namespaces.then(|| folder.behind_dots(value)).flatten())
            })
            .collect();
        if let Some(tool) = candidate.tool {
            let places = fits.iter().flat_map(|(_, places)| places.iter().copied());
            let before = values.iter().filter(|_| tool.up_to).flat_map(|value| folder.up_to(value));
            found.extend(places.chain(before).filter(|place| folder.has_ending(*place, tool.endings)));
            continue;
        }
        // Small numbers stand in every table: here only where nothing else stands in a column of versions.
        let is_version = VERSION_COLUMNS.contains(&column.to_ascii_lowercase().as_str());
        let all = is_version && fits.len() == values.len();
        let counts = |fit: Fit| match fit {
            Fit::Name | Fit::Time => true,
            Fit::Date | Fit::Word => candidate.named,
            Fit::Number => candidate.named && all,
        };
        found.extend(
            fits.iter().filter(|(fit, _)| counts(*fit)).flat_map(|(_, places)| places.iter().copied()),
        );
    }
    found
}
