//! Decides whose layout it is: by the history table in the database, then by the files. In doubt it refuses, with what
//! was seen and the flag to give: a history that is overlooked would run ten years of migrations again.

use common::{Error, QualifiedName, Result};

use super::{Format, Layout, refinery, settings::Settings};
use crate::version::FileName;

/// What the migration folders look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signs {
    /// `1_name.sql`.
    plain: usize,
    /// `1_name.up.sql`.
    up_files: usize,
    /// `V1__name.sql`.
    v_files: usize,
    /// What only Flyway has: `R__name.sql`, dotted versions, `.conf` files.
    flyway: usize,
    /// What only refinery has: `V1__name.rs`, a U file without its V file.
    refinery: usize,
    /// `-- +goose Up`.
    goose: usize,
    /// `-- migrate:up`.
    dbmate: usize,
    /// Folders with `up.sql`.
    diesel: usize,
    /// Folders with `migration.sql`.
    prisma: usize,
    /// Versions of V files, and of U files.
    versions: (Vec<String>, Vec<String>),
    /// A version of a V or U file that only fits a bigint.
    wide: bool,
}

impl Signs {
    /// Adds a file; `text` is its content when it is a `.sql` file.
    pub fn add_file(&mut self, name: &str, text: &str) {
        let lower = name.to_ascii_lowercase();
        if lower.ends_with(".conf") && lower.contains("__") {
            self.flyway += 1;
            return;
        }
        let stem = lower.strip_suffix(".sql");
        let dotted = |name: &str| name.split_once("__").is_some_and(|(head, _)| head.contains(['.', '_']));
        match refinery::file_name(name, true) {
            FileName::Foreign { .. } => self.refinery += 1,
            FileName::Migration { version, .. } => {
                self.v_files += 1;
                self.wide |= refinery::is_wide(&version);
                self.versions.0.push(version.as_str().to_owned());
            }
            FileName::AnyOrder { version, .. } => {
                self.wide |= refinery::is_wide(&version);
                self.versions.1.push(version.as_str().to_owned());
            }
            _ => match super::flyway::file_name(name) {
                FileName::Foreign { version, .. } if !version.is_repeatable() => self.flyway += 1,
                FileName::Migration { version, .. } if version.is_repeatable() || dotted(name) => {
                    self.flyway += 1;
                }
                FileName::Migration { .. } => self.v_files += 1,
                _ => {
                    let Some(stem) = stem.filter(|stem| stem.starts_with(|c: char| c.is_ascii_digit()))
                    else {
                        return;
                    };
                    if stem.ends_with(".up") {
                        self.up_files += 1;
                    } else if !stem.ends_with(".down") {
                        let begins = |marker: &str| {
                            text.lines().any(|line| {
                                let line = line.trim_start_matches('\u{feff}').trim().to_ascii_lowercase();
                                line.strip_prefix("--")
                                    .is_some_and(|rest| rest.trim_start().starts_with(marker))
                            })
                        };
                        let (goose, dbmate) = (begins("+goose up"), begins("migrate:up"));
                        self.goose += usize::from(goose);
                        self.dbmate += usize::from(dbmate);
                        self.plain += usize::from(!goose && !dbmate);
                    }
                }
            },
        }
    }

    /// Adds a folder, by the files in it.
    pub fn add_folder(&mut self, has_up: bool, has_migration: bool) {
        self.diesel += usize::from(has_up);
        self.prisma += usize::from(has_migration);
    }

    /// Adds what lies in a folder below: only Flyway and refinery look there.
    pub fn add_below(&mut self, below: &Self) {
        self.v_files += below.v_files;
        self.flyway += below.flyway;
        self.refinery += below.refinery;
        self.wide |= below.wide;
        self.versions.0.extend(below.versions.0.iter().cloned());
        self.versions.1.extend(below.versions.1.iter().cloned());
    }

    /// The formats that the files could be.
    pub fn candidates(&self) -> Vec<Format> {
        let mut found = Vec::new();
        let mut add = |holds: bool, formats: &[Format]| {
            if holds {
                found.extend(formats);
            }
        };
        add(self.plain > 0, &[Format::SafeRun]);
        add(self.up_files > 0, &[Format::Sqlx, Format::GolangMigrate]);
        add(self.goose > 0, &[Format::Goose]);
        add(self.dbmate > 0, &[Format::Dbmate]);
        add(self.diesel > 0, &[Format::Diesel]);
        add(self.prisma > 0, &[Format::Prisma]);
        // An undo file of Flyway has its V file; refinery's U files are migrations of their own.
        let alone = self.versions.1.iter().any(|version| !self.versions.0.contains(version));
        let refinery = self.refinery > 0 || alone;
        if self.v_files + self.flyway + self.versions.1.len() + self.refinery > 0 {
            match (self.flyway > 0, refinery) {
                (true, false) => add(true, &[Format::Flyway]),
                (false, true) => add(true, &[Format::Refinery]),
                _ => add(true, &[Format::Flyway, Format::Refinery]),
            }
        }
        found
    }

    /// Whether the tool could have files like these. Its history in the database is another folder's otherwise, and what stands in
    /// it is compared with these files as any foreign history.
    fn could_be(&self, format: Format) -> bool {
        let (has, others) = match format {
            Format::Dbmate => (self.dbmate, self.plain + self.goose),
            Format::Goose => (self.goose, self.plain + self.dbmate),
            Format::GolangMigrate => (self.up_files, self.plain + self.goose + self.dbmate),
            _ => return true,
        };
        has > 0 || others == 0
    }

    /// [`Self::candidates`], where a project's own settings say more than the names of its files.
    fn candidates_with(&self, settings: &Settings) -> Vec<Format> {
        let mut found = self.candidates();
        let is_plain = matches!(found.as_slice(), [Format::SafeRun] | [Format::Sqlx, Format::GolangMigrate]);
        if settings.is_sqlx && is_plain {
            found = vec![Format::Sqlx];
        }
        found
    }

    /// The format that a new file has to have. Where two tools would name it alike, it does not matter whose it is.
    ///
    /// # Errors
    /// Usage: files of several tools.
    pub fn format_of_new(&self) -> Result<Format> {
        match self.candidates().as_slice() {
            [] => Ok(Format::SafeRun),
            [only] => Ok(*only),
            [Format::Sqlx, Format::GolangMigrate] => Ok(Format::GolangMigrate),
            // The one whose versions have to be small.
            [Format::Flyway, Format::Refinery] => Ok(Format::Refinery),
            several => {
                let flags: Vec<String> = several.iter().map(|format| format!("--format {format}")).collect();
                Err(Error::usage(format!("the folder has files of several tools: {}", self.describe()))
                    .with_hint(format!("Say whose the new one is: {}.", flags.join(" or "))))
            }
        }
    }

    /// What was seen, for a person.
    fn describe(&self) -> String {
        let counts = [
            (self.plain, "plain numbered .sql files"),
            (self.up_files, ".up.sql files"),
            (self.v_files + self.versions.1.len(), "V…__….sql and U…__….sql files"),
            (self.flyway, "files as only Flyway has them"),
            (self.refinery, "files as only refinery has them"),
            (self.goose, "files with -- +goose Up"),
            (self.dbmate, "files with -- migrate:up"),
            (self.diesel, "folders with up.sql"),
            (self.prisma, "folders with migration.sql"),
        ];
        let seen: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        seen.join(", ")
    }
}

/// A table of the database that looks like a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is.
    pub table: QualifiedName,
    /// Its columns in order, `name type`.
    pub columns: Vec<String>,
    /// Its schema is on the `search_path` of the migrations: the tool would find it there.
    pub on_path: bool,
}

impl Seen {
    /// Whose history it is, by its columns; `None` for a table of another tool with the same name.
    pub fn format(&self, settings: &Settings) -> Option<Format> {
        let is_meant = |renamed: &&super::settings::Renamed| {
            renamed.table.name == self.table.name.as_str()
                && renamed.table.schema.as_ref().is_none_or(|schema| *schema == self.table.schema.as_str())
        };
        let mut meant = settings.renamed.iter().filter(is_meant).map(|renamed| renamed.format).peekable();
        match meant.peek() {
            Some(_) => meant.find(|format| self.format_if_called(format.table()) == Some(*format)),
            None => self.format_if_called(self.table.name.as_str()),
        }
    }

    /// [`Self::format`], if the table were called so.
    pub fn format_if_called(&self, name: &str) -> Option<Format> {
        let has = |columns: &[&str]| {
            columns
                .iter()
                .all(|wanted| self.columns.iter().any(|column| column.split(' ').next() == Some(wanted)))
        };
        let exactly = |columns: &[&str]| has(columns) && self.columns.len() == columns.len();
        match name {
            "migrations" if self.table.schema.as_str() == "safe_run" => {
                has(&["version", "checksum_normalized"]).then_some(Format::SafeRun)
            }
            super::golang_migrate::TABLE if exactly(&["version", "dirty"]) => Some(Format::GolangMigrate),
            super::dbmate::TABLE
                if exactly(&["version"]) && self.columns[0].starts_with("version character varying") =>
            {
                Some(Format::Dbmate)
            }
            super::sqlx::TABLE => (has(&["version", "success", "checksum"]) && !has(&["installed_rank"]))
                .then_some(Format::Sqlx),
            super::goose::TABLE => has(&["version_id", "is_applied"]).then_some(Format::Goose),
            super::flyway::TABLE => has(&["installed_rank", "script", "success"]).then_some(Format::Flyway),
            refinery::TABLE => has(&["version", "applied_on", "checksum"]).then_some(Format::Refinery),
            super::diesel::TABLE => has(&["version", "run_on"]).then_some(Format::Diesel),
            super::prisma::TABLE => has(&["migration_name", "applied_steps_count"]).then_some(Format::Prisma),
            _ => None,
        }
    }
}

/// The format, and its table if it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The format.
    pub layout: Layout,
    /// Its history table, if it is there.
    pub table: Option<QualifiedName>,
}

/// Decides. `settings` are those of the tools themselves. `rails` says that the database has Rails' `ar_internal_metadata`: its `schema_migrations` is like dbmate's.
///
/// # Errors
/// Refused: several formats are possible, or a history lies where the migrations' `search_path` does not find it.
pub fn decide(
    wanted: Option<Format>,
    seen: &[Seen],
    rails: bool,
    signs: &Signs,
    settings: &Settings,
) -> Result<Decision> {
    let usable: Vec<(Format, &Seen)> = seen
        .iter()
        .filter_map(|seen| seen.format(settings).map(|format| (format, seen)))
        // Its tool would not look there.
        .filter(|(format, seen)| {
            settings.table(*format).is_none_or(|renamed| {
                renamed.table.name == seen.table.name.as_str()
                    && renamed
                        .table
                        .schema
                        .as_ref()
                        .is_none_or(|schema| *schema == seen.table.schema.as_str())
            })
        })
        // Rails has the same table; only files with dbmate's markers, or the flag, make it dbmate's.
        .filter(|(format, _)| {
            *format != Format::Dbmate || !rails || wanted == Some(*format) || signs.dbmate > 0
        })
        .filter(|(format, _)| wanted == Some(*format) || signs.could_be(*format))
        .filter(|(format, _)| wanted.is_none_or(|wanted| *format == wanted))
        .collect();
    let found: Vec<&(Format, &Seen)> = usable.iter().filter(|(_, seen)| seen.on_path).collect();
    let layout = |format, seen: Option<&Seen>| Layout {
        format,
        wide_versions: format == Format::Refinery
            && seen.map_or(signs.wide, |seen| seen.columns.iter().any(|column| column == "version bigint")),
        ignored: if format == Format::Sqlx { settings.ignored } else { super::settings::IgnoredChars::NONE },
    };
    let flags = |formats: &[Format]| {
        formats.iter().map(|format| format!("--format {format}")).collect::<Vec<_>>().join(" or ")
    };
    match found.as_slice() {
        [(format, seen)] => {
            return Ok(Decision { layout: layout(*format, Some(seen)), table: Some(seen.table.clone()) });
        }
        [] => {}
        [(format, seen), ..] if wanted.is_some() => {
            // The first schema of the search_path holds, as for the tool itself.
            return Ok(Decision { layout: layout(*format, Some(seen)), table: Some(seen.table.clone()) });
        }
        several => {
            let mut formats: Vec<Format> = several.iter().map(|(format, _)| *format).collect();
            formats.dedup();
            if let [only] = formats.as_slice() {
                let (_, seen) = several[0];
                return Ok(Decision { layout: layout(*only, Some(seen)), table: Some(seen.table.clone()) });
            }
            let names: Vec<String> = several.iter().map(|(_, seen)| seen.table.short()).collect();
            return Err(Error::refused(format!("the database has several histories: {}", names.join(", ")))
                .with_hint(format!("Say which one to go on with: {}.", flags(&formats))));
        }
    }
    if let Some((format, hidden)) = usable.first() {
        let schema = &hidden.table.schema;
        return Err(Error::refused(format!(
            "{} is a history of {format}, but the schema {schema} is not on the search_path",
            hidden.table.short()
        ))
        .with_hint(format!(
            "If it belongs to these files, add `options=-csearch_path={}` to the database URL; if not, say what the files \
             are with --format.",
            schema.as_str()
        )));
    }
    if let Some(wanted) = wanted {
        return Ok(Decision { layout: layout(wanted, None), table: None });
    }
    match signs.candidates_with(settings).as_slice() {
        [] => Ok(Decision { layout: Layout::OWN, table: None }),
        [only] => Ok(Decision { layout: layout(*only, None), table: None }),
        several => Err(Error::refused(format!(
            "the files could be of {}: {}",
            several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            signs.describe()
        ))
        .with_hint(format!("The database has no history yet that would tell: give {}.", flags(several)))),
    }
}
