//! The history table, of our own layout and of every adopted tool's: found, read and written exactly as that tool would,
//! so that it keeps working afterwards.
//!
//! One file per tool has its SQL. Rows are written in the transaction of the migration where there is one. What must
//! never happen: a history that exists is overlooked, or a row says more than what was done.

mod dbmate;
mod diesel;
mod flyway;
mod golang_migrate;
mod goose;
mod lock;
mod own;
mod prisma;
mod refinery;
mod sqlx;
mod standing;

use std::time::Duration;

use common::{
    Error, Ident, QualifiedName, Result,
    ident::printable,
    postgres::{Client, DriverError, Row, Session, SimpleQueryMessage, client::null_column, own_objects},
};

use sql::layout::{
    Format, Layout,
    detect::{self, Seen, Signs},
    settings::Settings,
};
use sql::migration::{AppliedMigration, MigrationFile};
use sql::version::Version;

/// What a history holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// What is applied.
    pub rows: Vec<AppliedMigration>,
    /// A migration that failed half-way and that nobody has cleared up.
    pub dirty: Option<Dirty>,
}

/// A failed migration, as the history tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty {
    /// Its version, as the history has it.
    pub version: String,
    /// The way out, as a sentence.
    pub hint: String,
}

impl Recorded {
    /// Refuses to go on from a failed migration.
    pub fn refuse_dirty(&self, history: &History) -> Result<()> {
        let Some(dirty) = &self.dirty else { return Ok(()) };
        Err(Error::refused(format!(
            "{} says that migration {} failed half-way",
            history.table.short(),
            printable(&dirty.version)
        ))
        .with_hint(&*dirty.hint)
        .with_database_state("Nothing was changed now."))
    }
}

/// How a migration came to be applied.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It ran.
    Ran {
        /// For how long.
        took: Duration,
        /// In which run.
        run: &'a str,
    },
    /// Somebody says so.
    Marked {
        /// In which run.
        run: &'a str,
    },
}

impl Outcome<'_> {
    fn took(&self) -> Duration {
        match self {
            Self::Ran { took, .. } => *took,
            Self::Marked { .. } => Duration::ZERO,
        }
    }

    fn run(&self) -> &str {
        match self {
            Self::Ran { run, .. } | Self::Marked { run } => run,
        }
    }
}

/// A database's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Whose it is.
    pub layout: Layout,
    /// The table; it need not exist yet.
    pub table: QualifiedName,
    /// Schemas that its tool makes before it looks for the table.
    pub create_schemas: Vec<String>,
}

/// Tables whose name is that of a history.
const SEEN: &str = "
SELECT n.nspname::text, c.relname::text,
       pg_catalog.array_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, NULL) ORDER BY a.attnum)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND (c.relname = ANY ($1) OR (n.nspname = 'safe_run' AND c.relname = 'migrations'))
  AND n.nspname NOT LIKE 'pg\\_%'
GROUP BY 1, 2 ORDER BY 1, 2";

/// The schemas in which the migrations' own session would look, in order.
const PATH: &str = "BEGIN READ ONLY; SET LOCAL search_path TO DEFAULT;
SELECT s FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) AS s; COMMIT";

/// What `ar_internal_metadata` tells: the `schema_migrations` beside it is Rails'.
const RAILS: &str = "ar_internal_metadata";

impl History {
    /// Our own.
    pub fn own() -> Self {
        Self {
            layout: Layout::OWN,
            table: QualifiedName::new("safe_run", "migrations"),
            create_schemas: Vec::new(),
        }
    }

    /// Finds out whose history the database has, or will have. Changes nothing.
    ///
    /// # Errors
    /// Refused when it is not certain; see [`detect::decide`].
    pub async fn find(
        session: &Session,
        wanted: Option<Format>,
        signs: &Signs,
        settings: &Settings,
    ) -> Result<Self> {
        let path = search_path(session).await?;
        let mut names: Vec<&str> = Format::ALL
            .iter()
            .filter(|format| **format != Format::SafeRun)
            .map(|format| format.table())
            .collect();
        names.push(RAILS);
        names.extend(settings.renamed.iter().map(|renamed| renamed.table.name.as_str()));
        let rows = session
            .query(SEEN, &[&names])
            .await
            .map_err(|source| Error::postgres("could not look for migration histories", source))?;
        let place = |schema: &str| path.iter().position(|on_path| on_path == schema);
        let mut seen: Vec<Seen> = rows
            .iter()
            .map(|row| {
                let (schema, name): (String, String) = (row.get(0), row.get(1));
                let is_named = settings.renamed.iter().any(|renamed| {
                    renamed.table.name == name && renamed.table.schema.as_deref() == Some(&*schema)
                });
                Seen {
                    on_path: is_named || place(&schema).is_some() || schema == "safe_run",
                    columns: row.get(2),
                    table: QualifiedName::new(schema, name),
                }
            })
            .collect();
        seen.sort_by_key(|seen| place(seen.table.schema.as_str()).unwrap_or(usize::MAX));
        let rails = seen.iter().any(|seen| seen.table.name.as_str() == RAILS);
        let decision = detect::decide(wanted, &seen, rails, signs, settings)?;
        let table = match (decision.table, decision.layout.format) {
            (Some(table), _) => table,
            (None, Format::SafeRun) => Self::own().table,
            (None, format) => {
                let renamed = settings.table(format).map(|renamed| &renamed.table);
                let name = renamed.map_or(format.table(), |table| table.name.as_str());
                if let Some(schema) = renamed.and_then(|table| table.schema.as_deref()) {
                    return Ok(Self::made(decision.layout, QualifiedName::new(schema, name), settings));
                }
                let schema = path.first().ok_or_else(|| {
                    Error::refused("search_path names no schema that exists, so the history has no place")
                        .with_hint(
                            "Make the schema, or name another one: options=-csearch_path=public in the URL.",
                        )
                })?;
                QualifiedName::new(&**schema, name)
            }
        };
        Ok(Self::made(decision.layout, table, settings))
    }

    fn made(layout: Layout, table: QualifiedName, settings: &Settings) -> Self {
        let create_schemas =
            if layout.format == Format::Sqlx { settings.create_schemas.clone() } else { Vec::new() };
        Self { layout, table, create_schemas }
    }

    /// Whether the table is there. Refused where it is not one that may be used; see [`standing`].
    async fn exists(&self, client: &Client) -> Result<bool> {
        standing::look(client, &self.table, self.layout.format == Format::SafeRun).await
    }

    /// The rows of a query on the history, in which only the columns `nullable` may be NULL: its owner may have taken a NOT NULL away.
    async fn rows(&self, client: &Client, sql: &str, nullable: &[usize]) -> Result<Vec<Row>> {
        let rows = client.query(sql, &[]).await.map_err(|source| self.failed("read", source))?;
        match rows.iter().find_map(|row| null_column(row, nullable)) {
            None => Ok(rows),
            Some(column) => Err(bad_row(self, &format!("a row whose {column} is NULL"))),
        }
    }

    fn failed(&self, doing: &str, source: DriverError) -> Error {
        Error::postgres(format!("could not {doing} {}", self.table.short()), source)
    }

    /// Makes the history table if it is not there: in the migration's own transaction, so that a first run that fails
    /// leaves nothing behind.
    pub async fn ensure(&self, client: &Client) -> Result<()> {
        if self.exists(client).await? {
            return Ok(());
        }
        for schema in &self.create_schemas {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", Ident::new(schema.as_str()));
            own_objects::make(client, &sql)
                .await
                .map_err(|source| self.failed("make the schema of", source))?;
        }
        let table = &self.table;
        let sql = match self.layout.format {
            Format::SafeRun => own::create_sql(client).await?,
            Format::Sqlx => sqlx::create_sql(table),
            Format::GolangMigrate => golang_migrate::create_sql(table),
            Format::Dbmate => dbmate::create_sql(table),
            Format::Goose => goose::create_sql(table),
            Format::Flyway => flyway::create_sql(table),
            Format::Refinery => refinery::create_sql(table, self.layout.wide_versions),
            Format::Diesel => diesel::create_sql(table),
            Format::Prisma => prisma::create_sql(table),
        };
        own_objects::make(client, &sql).await.map_err(|source| self.failed("make", source))
    }

    /// Reads the history; a database without the table has none.
    pub async fn read(&self, client: &Client) -> Result<Recorded> {
        if !self.exists(client).await? {
            return Ok(Recorded::default());
        }
        match self.layout.format {
            Format::SafeRun => own::read(client).await,
            Format::Sqlx => sqlx::read(self, client).await,
            Format::GolangMigrate => golang_migrate::read(self, client).await,
            Format::Dbmate => dbmate::read(self, client).await,
            Format::Goose => goose::read(self, client).await,
            Format::Flyway => flyway::read(self, client).await,
            Format::Refinery => refinery::read(self, client).await,
            Format::Diesel => diesel::read(self, client).await,
            Format::Prisma => prisma::read(self, client).await,
        }
    }

    /// Says that a file outside of a transaction begins, where the tool says so: a crash leaves it dirty.
    pub async fn begin(&self, client: &Client, file: &MigrationFile) -> Result<()> {
        match self.layout.format {
            Format::GolangMigrate => golang_migrate::set(self, client, file, true).await,
            Format::Prisma => prisma::begin(self, client, file).await,
            _ => Ok(()),
        }
    }

    /// Says that a file outside of a transaction failed, where the tool says so.
    pub async fn fail(&self, client: &Client, file: &MigrationFile, took: Duration, why: &str) -> Result<()> {
        match self.layout.format {
            Format::Flyway => flyway::record(self, client, file, took, false).await,
            Format::Prisma => prisma::fail(self, client, file, why).await,
            _ => Ok(()),
        }
    }

    /// Records one migration as applied.
    pub async fn record(&self, client: &Client, file: &MigrationFile, outcome: &Outcome<'_>) -> Result<()> {
        match self.layout.format {
            Format::SafeRun => own::record(client, file, outcome).await,
            Format::Sqlx => sqlx::record(self, client, file, outcome.took()).await,
            Format::GolangMigrate => golang_migrate::set(self, client, file, false).await,
            Format::Dbmate => dbmate::record(self, client, file).await,
            Format::Goose => goose::record(self, client, file).await,
            Format::Flyway => flyway::record(self, client, file, outcome.took(), true).await,
            Format::Refinery => refinery::record(self, client, file).await,
            Format::Diesel => diesel::record(self, client, file).await,
            Format::Prisma => {
                prisma::record(self, client, file, matches!(outcome, Outcome::Marked { .. })).await
            }
        }
    }

    /// Records everything up to `version` at once, where the tool has a row for that. `false`: it has none.
    pub async fn baseline(&self, client: &Client, version: &Version) -> Result<bool> {
        match self.layout.format {
            Format::Flyway => flyway::baseline(self, client, version).await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// Takes the file's failed row away, so that it can be recorded as applied.
    pub async fn clear(&self, client: &Client, file: &MigrationFile) -> Result<()> {
        match self.layout.format {
            Format::Sqlx => sqlx::clear(self, client, Some(file)).await.map(|_| ()),
            Format::Flyway => flyway::clear(self, client, Some(file)).await.map(|_| ()),
            Format::Prisma => prisma::clear(self, client, Some(file)).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Takes every failed row away, as the tool's own repair does; the result is how many there were.
    pub async fn clear_all(&self, client: &Client) -> Result<u64> {
        match self.layout.format {
            Format::Sqlx => sqlx::clear(self, client, None).await,
            Format::Flyway => flyway::clear(self, client, None).await,
            Format::Prisma => prisma::clear(self, client, None).await,
            _ => Ok(0),
        }
    }

    /// Records the file as it is now; `recorded` is its version as the history has it.
    pub async fn repair(&self, client: &Client, file: &MigrationFile, recorded: &str) -> Result<u64> {
        match self.layout.format {
            Format::SafeRun => own::repair(client, file, recorded).await,
            Format::Sqlx => sqlx::repair(self, client, file).await,
            Format::Flyway => flyway::repair(self, client, file, recorded).await,
            Format::Refinery => refinery::repair(self, client, file).await,
            Format::Prisma => prisma::repair(self, client, file).await,
            Format::GolangMigrate | Format::Dbmate | Format::Goose | Format::Diesel => Ok(0),
        }
    }
}

/// The schemas of the migrations' own `search_path`, in order. The session may have another one.
async fn search_path(session: &Session) -> Result<Vec<String>> {
    let messages = session
        .simple_query(PATH)
        .await
        .map_err(|source| Error::postgres("could not read the search_path", source))?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .collect())
}

fn not_recorded(file: &MigrationFile, source: DriverError) -> Error {
    Error::postgres(format!("could not record {} as applied", file.name()), source)
}

fn bad_version(history: &History, text: &str) -> Error {
    bad_row(history, &format!("a version \"{}\"", printable(text)))
}

fn bad_row(history: &History, what: &str) -> Error {
    Error::refused(format!("{} has {what}", history.table.short()))
        .with_hint(format!("{} could not have written it: correct the row by hand.", history.layout.format))
}

/// A bigint of the file's version, which its name was checked to fit.
fn number(file: &MigrationFile) -> Result<i64> {
    file.version
        .as_str()
        .parse()
        .map_err(|_| Error::refused(format!("version {} does not fit a bigint", file.version)))
}
