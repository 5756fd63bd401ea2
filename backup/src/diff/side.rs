//! What A and B name: a snapshot, a live database or a SQLite file; and how they are opened.

use std::path::Path;

use common::{
    Error, Progress, QualifiedName, Result,
    ident::printable,
    postgres::{ConnectionSettings, Environment, refuse_other_engine, tools},
    repository::{Repository, RepositoryLock, StoredSnapshot},
};
use sqlite::{
    choices::{Map, written},
    file::names_sqlite,
    schema::Schema,
};

use super::{
    Question,
    compare::Side,
    file::File,
    live::{Live, Wanted},
    state::State,
    stored::Snapshot,
};

/// A side by its name.
#[derive(Debug, Clone)]
pub enum Named {
    /// A snapshot, as a person names it; after the first round by its id.
    Snapshot(String),
    /// A live database.
    Live(Box<ConnectionSettings>),
    /// A SQLite file.
    File(String),
}

/// How files of SQLite are called.
const ENDINGS: [&str; 5] = ["sqlite", "sqlite3", "db", "db3", "s3db"];

impl Named {
    /// Decides what is named. Opens nothing.
    ///
    /// # Errors
    /// A database of another system, a connection string that can't be read.
    pub fn read(text: &str) -> Result<Self> {
        if text == "latest" || text.starts_with("latest:") {
            return Ok(Self::Snapshot(text.to_owned()));
        }
        let path = Path::new(text);
        let is_called_so = path
            .extension()
            .and_then(|ending| ending.to_str())
            .is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)));
        let is_string = text.contains("://") || (text.contains('=') && !path.is_file());
        if names_sqlite(text) || text.starts_with("file:") || (is_called_so && !is_string) {
            return Ok(Self::File(text.to_owned()));
        }
        if !is_string && text.contains(['/', '.']) && path.is_file() {
            return Ok(Self::File(text.to_owned()));
        }
        if is_string {
            refuse_other_engine(text)?;
            let settings = ConnectionSettings::resolve(Some(text), &Environment::from_process())?;
            return Ok(Self::Live(Box::new(settings.with_application_name("backup diff"))));
        }
        refuse_other_engine(text)?;
        Ok(Self::Snapshot(text.to_owned()))
    }
}

impl Question<'_> {
    /// Refuses flags that mean nothing here.
    pub(super) fn check(&self, sides: &[Named; 2]) -> Result<()> {
        let args = self.args;
        let has_file = sides.iter().any(|side| matches!(side, Named::File(_)));
        let flags = [
            ("--map", args.map.is_empty()),
            ("--skip-table", args.skip_table.is_empty()),
            ("--skip-column", args.skip_column.is_empty()),
            ("--epoch", args.epoch.is_empty()),
            ("--timezone", args.timezone.is_none()),
            ("--null-empty-strings", !args.null_empty_strings),
        ];
        match flags.iter().find(|(_, is_absent)| !is_absent) {
            Some((flag, _)) if !has_file => {
                Err(Error::usage(format!("{flag} is about a SQLite file, and neither A nor B is one")))
            }
            _ => self.check_two_files(sides),
        }
    }

    /// Two files are compared as they are stored: what values mean for PostgreSQL has no part in it.
    fn check_two_files(&self, sides: &[Named; 2]) -> Result<()> {
        let args = self.args;
        let flags = [
            ("--map", args.map.is_empty()),
            ("--skip-column", args.skip_column.is_empty()),
            ("--epoch", args.epoch.is_empty()),
            ("--timezone", args.timezone.is_none()),
            ("--null-empty-strings", !args.null_empty_strings),
        ];
        let are_files = sides.iter().all(|side| matches!(side, Named::File(_)));
        match flags.iter().find(|(_, is_absent)| !is_absent) {
            Some((flag, _)) if are_files => Err(Error::usage(format!(
                "{flag} has no meaning between two SQLite files, whose values are compared as they are stored"
            ))),
            _ => Ok(()),
        }
    }

    /// Rows that are told of a table. Of two snapshots in two encodings none: their bytes say nothing of each other.
    pub(super) fn first(&self, a: &Side, b: &Side) -> usize {
        match (a, b) {
            (Side::Snapshot(a), Side::Snapshot(b)) if a.state.encoding != b.state.encoding => 0,
            _ => self.args.first,
        }
    }

    /// Every pattern has to mean something on one side at least, and so have the names of SQLite's tables and columns.
    pub(super) fn check_names(&self, sides: [&Side; 2]) -> Result<()> {
        for (pattern, text) in self.patterns.iter().zip(&self.args.tables) {
            let is_there = |side: &&Side| match side {
                Side::Snapshot(side) => side.state.has(pattern),
                Side::Live(side) => side.state.has(pattern),
                Side::File(side) => {
                    let name =
                        |table: &sqlite::schema::Table| QualifiedName::new("public", table.name.as_str());
                    side.schema.tables.iter().any(|table| pattern.matches_table(&name(table)))
                }
            };
            if !sides.iter().any(is_there) {
                return Err(Error::refused(format!("no table of either side matches --table {}", printable(text))).with_hint(
                    "Upper case, dots and blanks need double quotes within the pattern, as in psql; `*` matches any table.",
                ));
            }
        }
        let schemas: Vec<&Schema> = sides
            .iter()
            .filter_map(|side| if let Side::File(file) = side { Some(&file.schema) } else { None })
            .collect();
        let unknown = |what: String| Error::usage(format!("the file has no {what}, which a flag names"));
        let choices = &self.choices;
        let tables = choices
            .maps
            .iter()
            .filter_map(|map| if let Map::Table(name, ..) = map { Some(name) } else { None });
        for table in choices.skip_tables.iter().chain(tables) {
            if !schemas.iter().any(|schema| schema.table(table).is_some()) {
                return Err(unknown(format!("table {}", written(table))));
            }
        }
        let columns = choices
            .maps
            .iter()
            .filter_map(|map| if let Map::Column(name, _) = map { Some(name) } else { None });
        let columns = columns.chain(choices.meanings.epochs.iter().filter_map(|(name, _)| name.as_ref()));
        for name in columns.chain(&choices.skip_columns) {
            let has = |schema: &&Schema| {
                schema.table(&name.table).and_then(|table| table.column(&name.column)).is_some()
            };
            if !schemas.iter().any(has) {
                return Err(unknown(format!("column {name}")));
            }
        }
        Ok(())
    }
}

/// Opens both sides, and keeps snapshots from being deleted as long as the lock lives.
///
/// # Errors
/// One of them can't be read.
pub(super) async fn open(
    question: &Question<'_>,
    sides: &[Named; 2],
    progress: &Progress,
) -> Result<([Side; 2], Option<RepositoryLock>)> {
    let names_snapshot = sides.iter().any(|side| matches!(side, Named::Snapshot(_)));
    let lock = match names_snapshot {
        true => Repository::open(&question.settings.repo)?.lock_reading()?,
        false => None,
    };
    let mut found: Vec<Option<StoredSnapshot>> = Vec::new();
    for side in sides {
        found.push(match side {
            Named::Snapshot(wanted) => Some(crate::manage::find(question.settings, wanted)?),
            _ => None,
        });
    }
    // One program for both: two versions of it may print the same object in two ways.
    let need = found.iter().flatten().map(|snapshot| snapshot.manifest.pg_dump_major).max();
    let pg_restore = match need {
        Some(need) => Some(tools::choose("pg_restore", &tools::installed("pg_restore").await, need)?),
        None => None,
    };
    let names_file = sides.iter().any(|side| matches!(side, Named::File(_)));
    let mut opened = Vec::new();
    for (side, snapshot) in sides.iter().zip(found) {
        opened.push(match (side, snapshot, &pg_restore) {
            (Named::Snapshot(_), Some(snapshot), Some(pg_restore)) => {
                let mut side = Snapshot::open(snapshot, pg_restore).await?;
                restrict(&mut side.state, question);
                Side::Snapshot(side)
            }
            (Named::Live(settings), ..) => {
                let (patterns, wait) = (&question.patterns, question.wait);
                let wanted = Wanted { patterns, wait, wants_schema: !names_file };
                Side::Live(
                    Live::open(settings, wanted, progress).await.map_err(crate::create::explain_rights)?,
                )
            }
            (Named::File(file), ..) => Side::File(File::open(file)?),
            (Named::Snapshot(wanted), ..) => {
                return Err(Error::failed(format!("snapshot {wanted} was not opened")));
            }
        });
    }
    for side in &opened {
        if let (Side::Snapshot(snapshot), true) = (side, names_file)
            && !["UTF8", "SQL_ASCII"].contains(&snapshot.state.encoding.as_str())
        {
            return Err(Error::refused(format!(
                "snapshot {} has the encoding {}, and text of SQLite is UTF-8",
                snapshot.state.label, snapshot.state.encoding
            ))
            .with_hint(
                "Compare the file with the live database, or with one that the snapshot was restored into.",
            ));
        }
    }
    if let [Side::Snapshot(a), Side::Snapshot(b)] = opened.as_slice()
        && a.state.encoding != b.state.encoding
        && !question.patterns.is_empty()
    {
        return Err(Error::refused(format!(
            "the snapshots have the encodings {} and {}, and equal bytes are not equal text",
            a.state.encoding, b.state.encoding
        ))
        .with_hint("Restore one of them, and compare the database with the other snapshot: the server converts its text."));
    }
    let opened: [Side; 2] = opened.try_into().map_err(|_| Error::failed("two sides were to be opened"))?;
    Ok((opened, lock))
}

fn restrict(state: &mut State, question: &Question<'_>) {
    if !question.patterns.is_empty() {
        state.restrict(&question.patterns);
    }
}
