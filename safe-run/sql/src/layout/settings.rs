//! What a tool's own settings beside the folder say about its history: another table, schemas to make, characters that its
//! checksums leave out. Such a setting that is passed over makes a tool's history invisible, and all of it runs again.
//!
//! Pure but for [`Settings::read`]. Plain values are read and nothing is evaluated; what can't be followed is refused by name.

use std::path::{Path, PathBuf};

use common::{Error, Result, ident::printable};

use super::Format;
use crate::statement::{TableName, names};

/// How many folders above the migrations are looked into: `crates/db/migrations` belongs to the project at the top.
const MAX_ABOVE: usize = 3;

/// Characters that sqlx's `ignored-chars` can name. A person lists white space and marks; it is no place for an alphabet.
const MAX_IGNORED: usize = 16;

/// The characters that a checksum leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IgnoredChars {
    chars: [char; MAX_IGNORED],
    count: usize,
}

impl IgnoredChars {
    /// None.
    pub const NONE: Self = Self { chars: ['\0'; MAX_IGNORED], count: 0 };

    fn add(&mut self, c: char) -> bool {
        if self.chars[..self.count].contains(&c) {
            return true;
        }
        let Some(place) = self.chars.get_mut(self.count) else { return false };
        *place = c;
        self.count += 1;
        true
    }

    /// The text without them.
    pub fn strip(self, text: &str) -> std::borrow::Cow<'_, str> {
        let ignored = &self.chars[..self.count];
        if ignored.is_empty() { text.into() } else { text.replace(ignored, "").into() }
    }
}

/// A table that a tool's settings name for its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Whose it is.
    pub format: Format,
    /// The table, and its schema if that was written.
    pub table: TableName,
    /// Where that stands: `sqlx.toml: table-name`.
    pub source: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Tables of other names, the one that holds first.
    pub renamed: Vec<Renamed>,
    /// Schemas that sqlx makes before it looks for its history.
    pub create_schemas: Vec<String>,
    /// What sqlx's checksums leave out.
    pub ignored: IgnoredChars,
    /// The project uses sqlx: it has an `sqlx.toml`, or a `Cargo.toml` that needs it.
    pub is_sqlx: bool,
    /// Settings that can't be followed, each with its place.
    pub unfollowed: Vec<(Format, String)>,
}

impl Settings {
    /// Looks beside and above the folders, and at the tools' variables and parameters of the URL.
    ///
    /// # Errors
    /// Usage: a settings file that can't be read as what it is.
    pub fn read<'e>(
        dirs: &[PathBuf],
        variable: impl Fn(&str) -> Option<&'e str>,
        parameters: &[(String, String)],
    ) -> Result<Self> {
        let mut settings = Self::default();
        let parameter =
            |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if let Some(table) = parameter("x-migrations-table") {
            let is_quoted = parameter("x-migrations-table-quoted")
                .is_some_and(|value| matches!(value, "1" | "t" | "true"));
            let table = if is_quoted {
                names::parse(table)
            } else {
                TableName { schema: None, name: table.to_owned() }
            };
            settings.rename(Format::GolangMigrate, table, "x-migrations-table in the database URL");
        }
        for (name, format) in VARIABLES {
            if let Some(table) = variable(name) {
                settings.rename(format, names::parse(table), name);
            }
        }
        let mut seen: Vec<PathBuf> = Vec::new();
        for folder in dirs.iter().flat_map(|dir| around(dir)) {
            if seen.contains(&folder) {
                continue;
            }
            let file =
                |name: &str| String::from_utf8(common::input::read_plain(&folder.join(name)).ok()?).ok();
            let shown = |name: &str| folder.join(name).display().to_string();
            if let Some(text) = file("sqlx.toml") {
                settings.add_sqlx(&text, &shown("sqlx.toml"))?;
            }
            if let Some(text) = file("Cargo.toml") {
                settings.is_sqlx |= needs_sqlx(&text);
            }
            for name in ["flyway.toml", "conf/flyway.toml"] {
                if let Some(text) = file(name) {
                    settings.add_flyway_toml(&text, &shown(name))?;
                }
            }
            for name in ["flyway.conf", "conf/flyway.conf"] {
                if let Some(text) = file(name) {
                    settings.add_flyway(&assignments(&text), &shown(name));
                }
            }
            if let Some(text) = file(".env") {
                for (key, value) in assignments(&text) {
                    if let Some((name, format)) = VARIABLES.iter().find(|(name, _)| *name == key) {
                        settings.rename(*format, names::parse(&value), &format!("{}: {name}", shown(".env")));
                    }
                }
            }
            seen.push(folder);
        }
        Ok(settings)
    }

    /// The first holds: what is nearer to the folder, and variables before files.
    fn rename(&mut self, format: Format, table: TableName, source: &str) {
        if !table.name.is_empty() && table.name != format.table() || table.schema.is_some() {
            self.renamed.push(Renamed { format, table, source: source.to_owned() });
        }
    }

    /// What a person says counts before all that was found: for the format, or for any.
    pub fn given(&mut self, format: Option<Format>, table: &str) {
        let table = names::parse(table);
        let all = Format::ALL.into_iter().filter(|known| *known != Format::SafeRun);
        let renamed = all
            .filter(|known| format.is_none_or(|format| format == *known))
            .map(|format| Renamed { format, table: table.clone(), source: "--history-table".to_owned() });
        self.renamed.splice(0..0, renamed);
    }

    /// The table that holds for a format.
    pub fn table(&self, format: Format) -> Option<&Renamed> {
        self.renamed.iter().find(|renamed| renamed.format == format)
    }

    fn add_sqlx(&mut self, text: &str, shown: &str) -> Result<()> {
        let wrong = |what: String| {
            Error::usage(format!("{shown}: {what}"))
                .with_hint("sqlx would not take it either: correct the file.")
        };
        let table: toml::Table =
            text.parse().map_err(|source: toml::de::Error| wrong(source.message().to_owned()))?;
        self.is_sqlx = true;
        let Some(migrate) = table.get("migrate").and_then(toml::Value::as_table) else { return Ok(()) };
        if let Some(name) = migrate.get("table-name") {
            let name = name.as_str().ok_or_else(|| wrong("table-name is no text".to_owned()))?;
            self.rename(Format::Sqlx, names::parse(name), &format!("{shown}: table-name"));
        }
        let strings = |key: &str| -> Result<Vec<String>> {
            let Some(list) = migrate.get(key) else { return Ok(Vec::new()) };
            list.as_array()
                .and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect())
                .ok_or_else(|| wrong(format!("{key} is no list of texts")))
        };
        if self.create_schemas.is_empty() {
            self.create_schemas = strings("create-schemas")?;
        }
        if self.ignored.count == 0 {
            for text in strings("ignored-chars")? {
                let mut chars = text.chars();
                let (Some(c), None) = (chars.next(), chars.next()) else {
                    return Err(wrong(format!(
                        "\"{}\" in ignored-chars is not one character",
                        printable(&text)
                    )));
                };
                if !self.ignored.add(c) {
                    return Err(Error::usage(format!(
                        "{shown}: ignored-chars names more than {MAX_IGNORED} characters, which is not supported"
                    ))
                    .with_hint("Let sqlx itself migrate: `safe-run -- sqlx migrate run`."));
                }
            }
        }
        Ok(())
    }

    fn add_flyway_toml(&mut self, text: &str, shown: &str) -> Result<()> {
        let table: toml::Table = text.parse().map_err(|source: toml::de::Error| {
            Error::usage(format!("{shown}: {}", source.message())).with_hint("Correct the file.")
        })?;
        let flyway = table.get("flyway").and_then(toml::Value::as_table);
        let values = flyway.into_iter().flatten().map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("flyway.{key}"), text)
        });
        self.add_flyway(&values.collect::<Vec<_>>(), shown);
        Ok(())
    }

    fn add_flyway(&mut self, values: &[(String, String)], shown: &str) {
        let value = |name: &str| values.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let schema = value("flyway.defaultSchema").or_else(|| value("flyway.schemas")?.split(',').next());
        let schema = schema.map(|schema| schema.trim().to_owned()).filter(|schema| !schema.is_empty());
        let name = value("flyway.table").unwrap_or(Format::Flyway.table());
        let table = TableName { schema, name: name.to_owned() };
        self.rename(Format::Flyway, table, &format!("{shown}: flyway.table"));
        const NAMING: [(&str, &str); 5] = [
            ("flyway.sqlMigrationPrefix", "V"),
            ("flyway.repeatableSqlMigrationPrefix", "R"),
            ("flyway.sqlMigrationSeparator", "__"),
            ("flyway.sqlMigrationSuffixes", ".sql"),
            ("flyway.encoding", "UTF-8"),
        ];
        for (key, default) in NAMING {
            if value(key).is_some_and(|value| !value.eq_ignore_ascii_case(default)) {
                self.unfollowed.push((Format::Flyway, format!("{shown}: {key}")));
            }
        }
    }
}

/// The tools' own variables.
const VARIABLES: [(&str, Format); 3] = [
    ("DBMATE_MIGRATIONS_TABLE", Format::Dbmate),
    ("GOOSE_TABLE", Format::Goose),
    ("FLYWAY_TABLE", Format::Flyway),
];

/// The folder, those above it up to the project's top, and the one in which we run.
fn around(dir: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let mut folders = Vec::new();
    for folder in absolute.ancestors().take(MAX_ABOVE + 1) {
        folders.push(folder.to_owned());
        if folder.join(".git").exists() {
            break;
        }
    }
    folders.extend(std::env::current_dir());
    folders
}

/// `KEY=VALUE` lines, comments left out, quotes taken off.
fn assignments(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let (key, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            let value = value.trim();
            let quoted =
                ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.split(*quote).next());
            let plain = || value.split(" #").next().unwrap_or_default().trim();
            (!key.starts_with('#')).then(|| (key.trim().to_owned(), quoted.unwrap_or_else(plain).to_owned()))
        })
        .collect()
}

/// Whether a `Cargo.toml` names sqlx among its dependencies.
fn needs_sqlx(text: &str) -> bool {
    let Ok(table) = text.parse::<toml::Table>() else { return false };
    let has = |table: &toml::Table| {
        table.get("dependencies").and_then(toml::Value::as_table).is_some_and(|all| all.contains_key("sqlx"))
    };
    has(&table) || table.get("workspace").and_then(toml::Value::as_table).is_some_and(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        files: &[(&str, &str)],
        variables: &[(&str, &'static str)],
        parameters: &[(&str, &str)],
    ) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let migrations = dir.path().join("migrations");
        std::fs::create_dir_all(&migrations).unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let parameters: Vec<(String, String)> =
            parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        Settings::read(&[migrations], variable, &parameters)
    }

    fn table(settings: &Settings, format: Format) -> Option<String> {
        settings.table(format).map(|renamed| renamed.table.to_string())
    }

    #[test]
    fn a_table_of_another_name_is_found_where_its_tool_says_it() {
        let sqlx =
            "[migrate]\ntable-name = 'Audit.\"_Log\"'\ncreate-schemas = ['audit']\nignored-chars = ['\\r']\n";
        let sqlx = sqlx.replace("'\\r'", "\"\\r\"");
        let found = read(&[("sqlx.toml", &sqlx)], &[], &[]).unwrap();
        assert_eq!(table(&found, Format::Sqlx).as_deref(), Some("audit._Log"));
        assert_eq!((found.create_schemas.as_slice(), found.is_sqlx), (&["audit".to_owned()][..], true));
        assert_eq!(found.ignored.strip("a\r\nb"), "a\nb");
        let found = read(&[(".env", "X=1\nexport GOOSE_TABLE=\"app.goose\" # x\n")], &[], &[]).unwrap();
        assert_eq!(table(&found, Format::Goose).as_deref(), Some("app.goose"));
        let found = read(&[(".env", "GOOSE_TABLE=a")], &[("GOOSE_TABLE", "b")], &[]).unwrap();
        assert_eq!(table(&found, Format::Goose).as_deref(), Some("b"));
        let found = read(&[("flyway.conf", "flyway.table=Versions\n")], &[], &[]).unwrap();
        assert_eq!(table(&found, Format::Flyway).as_deref(), Some("Versions"));
        let found =
            read(&[("flyway.toml", "[flyway]\ntable = 'v'\nsqlMigrationPrefix = 'X'")], &[], &[]).unwrap();
        assert_eq!(table(&found, Format::Flyway).as_deref(), Some("v"));
        assert!(found.unfollowed[0].1.contains("sqlMigrationPrefix"), "{found:?}");
        let quoted = [("x-migrations-table", "\"app\".\"m\""), ("x-migrations-table-quoted", "1")];
        assert_eq!(table(&read(&[], &[], &quoted).unwrap(), Format::GolangMigrate).as_deref(), Some("app.m"));
        let plain = read(&[], &[], &[("x-migrations-table", "Mig")]).unwrap();
        assert_eq!(table(&plain, Format::GolangMigrate).as_deref(), Some("Mig"));
        assert_eq!(
            read(&[("sqlx.toml", "[migrate]\ntable-name = '_sqlx_migrations'")], &[], &[]).unwrap().renamed,
            []
        );
    }

    #[test]
    fn what_can_not_be_read_is_refused_by_its_name() {
        for text in ["[migrate", "[migrate]\ntable-name = 1", "[migrate]\nignored-chars = ['ab']"] {
            let error = read(&[("sqlx.toml", text)], &[], &[]).unwrap_err();
            assert!(error.message().contains("sqlx.toml: "), "{error}");
        }
    }

    #[test]
    fn a_project_with_sqlx_is_known_by_its_dependencies() {
        for text in ["[dependencies]\nsqlx = '0.9'", "[workspace.dependencies.sqlx]\nversion = '0.9'"] {
            assert!(read(&[("Cargo.toml", text)], &[], &[]).unwrap().is_sqlx, "{text}");
        }
        assert!(!read(&[("Cargo.toml", "[dependencies]\ntokio = '1'")], &[], &[]).unwrap().is_sqlx);
    }
}
