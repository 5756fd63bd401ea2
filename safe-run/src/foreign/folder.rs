//! What lies in the folders of migrations, and what a tool may have recorded of it. Pure but for the walk.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use common::input::read_plain;

/// How deep folders are looked into.
const MAX_DEPTH: usize = 4;

/// Most entries that are looked at: more is no folder of migrations.
const MAX_ENTRIES: usize = 50_000;

/// Largest file whose text is hashed, in bytes.
const MAX_HASHED: u64 = 16 << 20;

/// A file or a folder that some tool may call a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    /// The ending, in lower case; empty for a folder.
    extension: String,
}

/// How a recorded value fits an entry, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Its name, in full or up to the ending; or the hash of its text.
    Name,
    /// Its name, which has no digit in it: a word that may stand anywhere.
    Word,
    /// A number of twelve digits or more: a time.
    Time,
    /// A number of eight to eleven digits: a date, or anything.
    Date,
    /// A small number.
    Number,
}

/// What lies in the folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    entries: Vec<Entry>,
    names: HashMap<String, Vec<usize>>,
    numbers: HashMap<String, Vec<usize>>,
}

impl Folder {
    /// Looks at the folders. What can't be read is left out: the reader of migrations names it.
    pub fn read(dirs: &[PathBuf]) -> Self {
        let mut folder = Self::default();
        for dir in dirs {
            folder.walk(dir, dir, 0);
        }
        folder
    }

    fn walk(&mut self, root: &Path, dir: &Path, depth: usize) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') || name == "node_modules" || self.entries.len() >= MAX_ENTRIES {
                continue;
            }
            let is_folder = path.is_dir();
            let script = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            self.add(path.clone(), &name, &script, is_folder);
            if !is_folder && name.ends_with(".py") {
                self.add_revision(&path);
            }
            if is_folder && depth < MAX_DEPTH {
                self.walk(root, &path, depth + 1);
            }
        }
    }

    /// Adds one; the way down is no migration.
    fn add(&mut self, path: PathBuf, name: &str, script: &str, is_folder: bool) {
        let (stem, extension) = match name.rsplit_once('.') {
            Some((stem, extension)) if !is_folder && !stem.is_empty() => {
                (stem, extension.to_ascii_lowercase())
            }
            _ => (name, String::new()),
        };
        let bare = stem.strip_suffix(".up").unwrap_or(stem);
        let lower = bare.to_ascii_lowercase();
        let goes_down = [".down", ".undo", ".rollback", ".revert"];
        if goes_down.iter().any(|end| lower.ends_with(end)) {
            return;
        }
        let place = self.entries.len();
        let mut names: BTreeSet<&str> = [name, stem, bare, script].into();
        // `<revision>_<what it does>`, as Alembic has it.
        let head = bare.split(['_', '-']).next().unwrap_or_default();
        if head.len() >= 8 && head.contains(|c: char| c.is_ascii_alphabetic()) {
            names.insert(head);
        }
        for name in names.into_iter().filter(|name| name.contains(|c: char| c.is_alphabetic())) {
            self.names.entry(name.to_owned()).or_default().push(place);
        }
        if let Some(number) = number_of(bare) {
            self.numbers.entry(number).or_default().push(place);
        }
        self.entries.push(Entry { path, extension });
    }

    /// Adds the revision that a file of Alembic says it is, which its name need not begin with.
    fn add_revision(&mut self, path: &Path) {
        /// It stands in the first lines.
        const MAX_LENGTH: u64 = 1 << 20;
        if self.entries.last().is_none_or(|entry| entry.path != path)
            || std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_LENGTH)
        {
            return;
        }
        let text = String::from_utf8(read_plain(path).unwrap_or_default()).unwrap_or_default();
        if let Some(revision) = text.lines().find_map(revision_of) {
            self.names.entry(revision).or_default().push(self.entries.len() - 1);
        }
    }

    /// Adds the SHA-256 of the text of every `.sql` file as one of its names: Drizzle records nothing else.
    pub(super) fn add_hashes(&mut self) {
        for (place, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.extension == "sql") {
            if std::fs::metadata(&entry.path).is_ok_and(|file| file.len() > MAX_HASHED) {
                continue;
            }
            if let Ok(text) = read_plain(&entry.path) {
                self.names.entry(common::digest::sha256_hex(&text)).or_default().push(place);
            }
        }
    }

    /// Adds the times of Drizzle's journal as numbers of its files.
    pub(super) fn add_journal(&mut self, text: &str) {
        let Ok(journal) = serde_json::from_str::<serde_json::Value>(text) else { return };
        for entry in journal["entries"].as_array().into_iter().flatten() {
            let (Some(tag), Some(when)) = (entry["tag"].as_str(), entry["when"].as_u64()) else { continue };
            if let Some(places) = self.names.get(tag).cloned() {
                self.numbers.entry(when.to_string()).or_default().extend(places);
            }
        }
    }

    /// The text of Drizzle's journal, where there is one.
    pub(super) fn journal(dirs: &[PathBuf]) -> Option<String> {
        dirs.iter().find_map(|dir| String::from_utf8(read_plain(&dir.join("meta/_journal.json")).ok()?).ok())
    }

    /// What `value` is the record of, and how well it fits.
    pub(super) fn find(&self, value: &str) -> Option<(Fit, &[usize])> {
        let value = value.trim();
        let last = value.rsplit(['/', '\\']).next().unwrap_or(value);
        for name in [value, value.trim_start_matches('/'), last] {
            if let Some(places) = self.names.get(name) {
                let has_digit = name.len() >= 5 && name.contains(|c: char| c.is_ascii_digit());
                return Some((if has_digit { Fit::Name } else { Fit::Word }, places));
            }
        }
        let number = digits(value)?;
        let places = self.numbers.get(&number)?;
        let fit = match number.len() {
            12.. => Fit::Time,
            8..=11 => Fit::Date,
            _ => Fit::Number,
        };
        Some((fit, places))
    }

    /// [`Self::find`] behind the namespace that DbUp puts before a file's name: `Shop.Scripts.001_a.sql`.
    pub(super) fn behind_dots(&self, value: &str) -> Option<(Fit, &[usize])> {
        let mut rests = value.match_indices('.').map(|(at, _)| &value[at + 1..]);
        rests
            .find_map(|rest| self.names.get(rest).filter(|_| rest.contains('.')))
            .map(|places| (Fit::Name, places.as_slice()))
    }

    /// The entries whose number is at most `value`.
    pub(super) fn up_to(&self, value: &str) -> Vec<usize> {
        let Some(limit) = digits(value.trim()) else { return Vec::new() };
        let below = |number: &str| (number.len(), number) <= (limit.len(), limit.as_str());
        self.numbers
            .iter()
            .filter(|(number, _)| below(number))
            .flat_map(|(_, places)| places.clone())
            .collect()
    }

    /// Whether the entry has one of these endings; any, if there are none.
    pub(super) fn has_ending(&self, place: usize, endings: &[&str]) -> bool {
        let extension = &self.entries[place].extension;
        endings.is_empty() || extension.is_empty() || endings.contains(&extension.as_str())
    }

    /// Where the entry lies.
    pub(super) fn path(&self, place: usize) -> &Path {
        &self.entries[place].path
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// `revision = "1f"` and `revision: str = '1f'`.
fn revision_of(line: &str) -> Option<String> {
    let rest = line.strip_prefix("revision")?.trim_start();
    let value = match rest.strip_prefix(':') {
        Some(typed) => typed.split_once('=')?.1,
        None => rest.strip_prefix('=')?,
    };
    let value = value.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let revision = value[1..].split(quote).next()?;
    (!revision.is_empty()).then(|| revision.to_owned())
}

/// A number without its leading zeros; `None` for anything else.
fn digits(text: &str) -> Option<String> {
    let is_number = !text.is_empty() && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| {
        let bare = text.trim_start_matches('0');
        if bare.is_empty() { "0" } else { bare }.to_owned()
    })
}

/// The number that a name begins with, without `V`, `Migration` and the like before it: `2024-01-02-030405_x` has
/// 20240102030405.
fn number_of(name: &str) -> Option<String> {
    const BEFORE: [&str; 6] = ["V", "v", "U", "Version", "Migration", "migration"];
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let rest = if starts(name) {
        name
    } else {
        BEFORE.iter().filter_map(|before| name.strip_prefix(before)).find(|rest| starts(rest))?
    };
    let parts = rest.split('_').next().unwrap_or_default().split('.').next().unwrap_or_default();
    // Dashes belong to the number only between digits: `2024-01-02_x`, and not `1-init`.
    let mut number = String::new();
    for part in parts.split('-') {
        let leading = part.bytes().take_while(u8::is_ascii_digit).count();
        number.push_str(&part[..leading]);
        if leading < part.len() || leading == 0 {
            break;
        }
    }
    digits(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> Folder {
        let mut folder = Folder::default();
        for name in names {
            let last = name.rsplit('/').next().unwrap();
            folder.add((*name).into(), last, name, !last.contains('.'));
        }
        folder
    }

    #[test]
    fn a_record_is_recognised_in_the_forms_in_which_tools_write_it() {
        for (file, value, fit) in [
            ("20240101120000_add.sql", "20240101120000_add.sql", Fit::Name),
            ("20240101120000_add.sql", "20240101120000_add", Fit::Name),
            ("20240101120000_add.sql", "20240101120000", Fit::Time),
            ("20240101120000-add.js", "/20240101120000-add", Fit::Name),
            ("0001_add.up.sql", "0001_add", Fit::Name),
            ("0001_add.sql", "1", Fit::Number),
            ("0001-add.sql", "1", Fit::Number),
            ("20240101_add.sql", "20240101", Fit::Date),
            ("2024-01-02-030405_add", "20240102030405", Fit::Time),
            ("V0007__add.sql", "7", Fit::Number),
            ("Migration20240101120000.ts", "Migration20240101120000", Fit::Name),
            ("Version20240101120000.php", "DoctrineMigrations\\Version20240101120000", Fit::Name),
            ("1700000000000-Init.ts", "1700000000000", Fit::Time),
            ("ae1027a6acf9_add.py", "ae1027a6acf9", Fit::Name),
            ("sub/001_add.sql", "sub/001_add.sql", Fit::Name),
            ("deploy/appschema.sql", "appschema", Fit::Word),
        ] {
            assert_eq!(folder(&[file]).find(value), Some((fit, &[0_usize][..])), "{file} {value}");
        }
        for (file, value) in [
            ("0001_add.sql", "2"),
            ("0001_add.sql", "add"),
            ("0001_add.down.sql", "0001_add.down.sql"),
            ("0001_add.sql", ""),
            ("0001_add.sql", "x0001_add.sql"),
            ("users.sql", "20240101.users.sql"),
            ("001_add.sql", "Shop.Scripts.001_add.sql"),
        ] {
            assert_eq!(folder(&[file]).find(value), None, "{file} {value}");
        }
        let scripts = folder(&["001_add.sql", "001_add.index.sql"]);
        for (value, place) in
            [("Shop.001_add.sql", Some(0)), ("Shop.001_add.index.sql", Some(1)), ("Shop.add.sql", None)]
        {
            assert_eq!(scripts.behind_dots(value).map(|(_, places)| places[0]), place, "{value}");
        }
    }

    #[test]
    fn a_file_of_alembic_says_its_revision() {
        for (line, revision) in [
            ("revision = 'a1'", Some("a1")),
            ("revision: str = \"1f3c\"  # new", Some("1f3c")),
            ("revision: Union[str, None] = '2'", Some("2")),
            ("down_revision = 'a0'", None),
            ("revision = None", None),
            ("revision = ''", None),
            ("    revision = 'a1'", None),
        ] {
            assert_eq!(revision_of(line).as_deref(), revision, "{line}");
        }
    }

    #[test]
    fn one_row_may_stand_for_all_before_it() {
        let folder = folder(&["1_a.sql", "2_b.sql", "10_c.sql"]);
        let mut found = folder.up_to("2");
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
        assert_eq!(folder.up_to("x"), Vec::<usize>::new());
    }

    #[test]
    fn the_journal_of_drizzle_gives_its_files_their_times() {
        let mut folder = folder(&["0000_lazy.sql"]);
        folder.add_journal(r#"{"entries":[{"idx":0,"when":1700000000001,"tag":"0000_lazy"}]}"#);
        assert_eq!(folder.find("1700000000001"), Some((Fit::Time, &[0_usize][..])));
    }
}
