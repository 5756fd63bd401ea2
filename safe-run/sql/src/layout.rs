//! How each migration tool lays out its files: names and their order, the part that goes up, what must not run in a
//! transaction, checksums, and the keys of its locks. Pure; `history` is the half that speaks to the database.
//!
//! Everything here is read off the tools themselves, and compared with them (`docs/adopted-layouts.md` says which and
//! how). It must never be cleverer than the tool: what the tool would not see, we must not see either, and what it would
//! do differently is refused by file and line.

pub mod dbmate;
pub mod detect;
pub mod diesel;
pub mod flyway;
pub mod golang_migrate;
pub mod goose;
pub mod prisma;
pub mod refinery;
pub mod settings;
pub mod sqlx;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    section::{Sections, find as sections},
    statement::ParseProblem,
    version::{FileName, Version},
};

/// A migration tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our own: `<version>_<name>.sql`, history in `safe_run.migrations`.
    SafeRun,
    /// sqlx.
    Sqlx,
    /// golang-migrate.
    GolangMigrate,
    /// dbmate.
    Dbmate,
    /// goose.
    Goose,
    /// Flyway.
    Flyway,
    /// refinery.
    Refinery,
    /// diesel.
    Diesel,
    /// Prisma.
    Prisma,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SafeRun,
        Self::Sqlx,
        Self::GolangMigrate,
        Self::Dbmate,
        Self::Goose,
        Self::Flyway,
        Self::Refinery,
        Self::Diesel,
        Self::Prisma,
    ];

    /// The word after `--format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SafeRun => "safe-run",
            Self::Sqlx => "sqlx",
            Self::GolangMigrate => "golang-migrate",
            Self::Dbmate => "dbmate",
            Self::Goose => "goose",
            Self::Flyway => "flyway",
            Self::Refinery => "refinery",
            Self::Diesel => "diesel",
            Self::Prisma => "prisma",
        }
    }

    /// The history table's name, without its schema.
    pub fn table(self) -> &'static str {
        match self {
            Self::SafeRun => "migrations",
            Self::Sqlx => sqlx::TABLE,
            Self::GolangMigrate => golang_migrate::TABLE,
            Self::Dbmate => dbmate::TABLE,
            Self::Goose => goose::TABLE,
            Self::Flyway => flyway::TABLE,
            Self::Refinery => refinery::TABLE,
            Self::Diesel => diesel::TABLE,
            Self::Prisma => prisma::TABLE,
        }
    }

    /// Whether its history records checksums.
    pub fn has_checksums(self) -> bool {
        matches!(self, Self::SafeRun | Self::Sqlx | Self::Flyway | Self::Refinery | Self::Prisma)
    }

    /// Whether it has one folder for each migration.
    pub fn has_folders(self) -> bool {
        matches!(self, Self::Diesel | Self::Prisma)
    }

    /// Whether it looks into folders below the one that it was given.
    pub fn is_recursive(self) -> bool {
        matches!(self, Self::Flyway | Self::Refinery)
    }

    /// Whether files run in the order of their names, as text, and not of their versions.
    pub fn orders_by_name(self) -> bool {
        matches!(self, Self::Dbmate)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A format, and what varies within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The tool.
    pub format: Format,
    /// refinery was built with `int8-versions`: the width of the version is part of its checksum.
    pub wide_versions: bool,
    /// sqlx was told to leave these characters out of its checksums.
    pub ignored: settings::IgnoredChars,
}

impl Layout {
    /// Our own.
    pub const OWN: Self = Self::of(Format::SafeRun);

    /// A format as it is by default.
    pub const fn of(format: Format) -> Self {
        Self { format, wide_versions: false, ignored: settings::IgnoredChars::NONE }
    }

    /// Reads the name of a file, or of a folder where a migration is one.
    pub(crate) fn file_name(self, name: &str) -> FileName {
        match self.format {
            Format::SafeRun => FileName::parse(name),
            Format::Sqlx => sqlx::file_name(name),
            Format::GolangMigrate => golang_migrate::file_name(name),
            Format::Dbmate => dbmate::file_name(name),
            Format::Goose => goose::file_name(name),
            Format::Flyway => flyway::file_name(name),
            Format::Refinery => refinery::file_name(name, self.wide_versions),
            Format::Diesel => diesel::folder_name(name),
            Format::Prisma => prisma::folder_name(name),
        }
    }

    /// The version that a history row, or a person, wrote as `text`.
    pub fn version(self, text: &str) -> Option<Version> {
        match self.format {
            Format::SafeRun | Format::Flyway => Version::parse(text),
            Format::Sqlx | Format::GolangMigrate | Format::Goose | Format::Refinery => {
                (!text.contains(['.', '_'])).then(|| Version::parse(text)).flatten()
            }
            Format::Dbmate | Format::Diesel | Format::Prisma => {
                (!text.is_empty()).then(|| Version::text(text))
            }
        }
    }

    /// The parts of a file that run.
    pub(crate) fn sections(self, sql: &str) -> Result<Sections, ParseProblem> {
        match self.format {
            Format::SafeRun => sections(sql),
            Format::Dbmate => dbmate::sections(sql),
            Format::Goose => goose::sections(sql),
            Format::Sqlx => {
                let marker = sqlx::runs_without_transaction(sql);
                whole(self.format, sql, marker.then(|| "line 1: `-- no-transaction`".to_owned()))
            }
            _ => whole(self.format, sql, None),
        }
    }

    /// What the history records as the checksum of a file; `None` when the tool records none.
    pub fn checksum(self, name: &RecordedName<'_>, sql: &str) -> Option<String> {
        match self.format {
            Format::SafeRun | Format::Prisma => Some(common::digest::sha256_hex(sql.as_bytes())),
            Format::Sqlx => Some(common::digest::sha384_hex(self.ignored.strip(sql).as_bytes())),
            Format::Flyway => Some(flyway::checksum(sql).to_string()),
            Format::Refinery => refinery::checksum(name.description, name.version, self.wide_versions, sql)
                .map(|sum| sum.to_string()),
            Format::GolangMigrate | Format::Dbmate | Format::Goose | Format::Diesel => None,
        }
    }

    /// What the files beside a migration's own say: why it can't run in a transaction, or why it can't run here.
    pub(crate) fn metadata_file(self, path: &Path) -> Option<std::path::PathBuf> {
        match self.format {
            Format::Diesel => Some(path.with_file_name("metadata.toml")),
            Format::SafeRun | Format::Flyway => {
                let mut name = path.as_os_str().to_owned();
                name.push(".conf");
                Some(name.into())
            }
            _ => None,
        }
    }
}

/// What some checksums cover beside the text.
#[derive(Debug, Clone, Copy)]
pub struct RecordedName<'a> {
    /// The version.
    pub version: &'a Version,
    /// The description, as it is recorded.
    pub description: &'a str,
}

/// What the file beside a migration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Metadata {
    /// It must not run in a transaction.
    pub no_transaction: bool,
    /// Placeholders are left as they are.
    pub keeps_placeholders: bool,
    /// Why it can't be run here.
    pub problem: Option<String>,
}

/// Reads it.
pub(crate) fn metadata(format: Format, text: &str) -> Metadata {
    match format {
        Format::Diesel => diesel::metadata(text),
        _ => flyway::script_config(text),
    }
}

/// The whole file runs. Another tool's marker of a way down would not stop this tool: nobody should run it by accident.
fn whole(format: Format, sql: &str, no_transaction: Option<String>) -> Result<Sections, ParseProblem> {
    let found = sections(sql)?;
    if found.has_sections && (found.up.len() != 1 || found.up[0].end != sql.len()) {
        let end = found.up.first().map_or(0, |up| up.end);
        let line = sql[..end].matches('\n').count() as u32 + 1;
        let text = sql[end..].lines().next().unwrap_or_default().trim();
        return Err(ParseProblem {
            line,
            column: 1,
            message: format!("`{text}` begins a way down, but {format} knows no such marker and would run it"),
            hint: "Move the way down out of the file, or name the tool that the file was written for with --format. If it is \
                   an ordinary comment, and all of the file goes up: --whole-file VERSION."
                .to_owned(),
        });
    }
    Ok(Sections {
        up: std::iter::once(0..sql.len()).collect(),
        no_transaction,
        warnings: found.warnings,
        has_sections: false,
    })
}

/// A version that has to fit the tool's integer.
fn integer<T: std::str::FromStr>(digits: &str) -> Option<Version> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (all_digits && digits.parse::<T>().is_ok()).then(|| Version::parse(digits)).flatten()
}

#[cfg(test)]
mod tests;
