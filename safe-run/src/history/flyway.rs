//! Flyway's `flyway_schema_history`: one row for everything that ever happened, in the order of `installed_rank`.

use std::time::Duration;

use common::{QualifiedName, Result, ident::Ident, postgres::Client};

use super::{Dirty, History, Recorded, bad_version, not_recorded};
use sql::layout::flyway::{BASELINE, recorded_description, recorded_version};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};
use sql::version::Version;

pub(super) fn create_sql(table: &QualifiedName) -> String {
    let name = |suffix: &str| Ident::new(format!("{}{suffix}", table.name.as_str()));
    format!(
        "CREATE TABLE {table} (\"installed_rank\" INT NOT NULL, \"version\" VARCHAR(50), \"description\" VARCHAR(200) NOT NULL,
         \"type\" VARCHAR(20) NOT NULL, \"script\" VARCHAR(1000) NOT NULL, \"checksum\" INTEGER,
         \"installed_by\" VARCHAR(100) NOT NULL, \"installed_on\" TIMESTAMP NOT NULL DEFAULT now(),
         \"execution_time\" INTEGER NOT NULL, \"success\" BOOLEAN NOT NULL);
         ALTER TABLE {table} ADD CONSTRAINT {} PRIMARY KEY (\"installed_rank\");
         CREATE INDEX {} ON {table} (\"success\")",
        name("_pk"),
        name("_s_idx"),
    )
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!(
        "SELECT version::text, description::text, type::text, checksum::text, installed_on::text, success::bool
         FROM {} ORDER BY installed_rank",
        history.table
    );
    let mut recorded = Recorded::default();
    for row in history.rows(client, &sql, &[0, 3]).await? {
        let (text, description, kind): (Option<String>, String, String) =
            (row.get(0), row.get(1), row.get(2));
        if kind == "SCHEMA" {
            continue;
        }
        let version = match &text {
            Some(text) => history.layout.version(text).ok_or_else(|| bad_version(history, text))?,
            None => Version::repeatable(&description),
        };
        if !row.get::<_, bool>(5) {
            recorded.dirty.get_or_insert(Dirty {
                version: text.unwrap_or_else(|| description.clone()),
                hint: "Put what it left behind back as it was; then `safe-run repair` takes its row away, as Flyway's repair \
                       does, and it runs again."
                    .to_owned(),
            });
            continue;
        }
        // The newest row holds: an undone or deleted migration is pending again, a repeatable one has its last checksum.
        recorded.rows.retain(|earlier| earlier.version != version || earlier.kind == RowKind::Baseline);
        let kind = match kind.as_str() {
            "DELETE" => continue,
            kind if kind.starts_with("UNDO") => continue,
            "SQL" => RowKind::Migration,
            "BASELINE" => RowKind::Baseline,
            _ => RowKind::Foreign,
        };
        recorded.rows.push(AppliedMigration {
            kind,
            version,
            description,
            checksum: row.get(3),
            checksum_normalized: None,
            applied_at: row.get(4),
        });
    }
    Ok(recorded)
}

/// One row after the last one.
struct NewRow<'a> {
    version: Option<String>,
    description: &'a str,
    kind: &'a str,
    script: &'a str,
    checksum: Option<i32>,
    took: Duration,
    success: bool,
}

async fn insert(
    history: &History,
    client: &Client,
    row: &NewRow<'_>,
) -> Result<(), common::postgres::DriverError> {
    let table = &history.table;
    let sql = format!(
        "INSERT INTO {table} (\"installed_rank\", \"version\", \"description\", \"type\", \"script\", \"checksum\",
           \"installed_by\", \"installed_on\", \"execution_time\", \"success\")
         SELECT COALESCE(pg_catalog.max(\"installed_rank\"), 0) OPERATOR(pg_catalog.+) 1, $1, $2, $3, $4, $5, CURRENT_USER,
           pg_catalog.clock_timestamp(), $6, $7 FROM {table}"
    );
    let milliseconds = i32::try_from(row.took.as_millis()).unwrap_or(i32::MAX);
    client
        .execute(
            &sql,
            &[
                &row.version,
                &row.description,
                &row.kind,
                &row.script,
                &row.checksum,
                &milliseconds,
                &row.success,
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn record(
    history: &History,
    client: &Client,
    file: &MigrationFile,
    took: Duration,
    success: bool,
) -> Result<()> {
    let row = NewRow {
        version: recorded_version(&file.version),
        description: &recorded_description(&file.description),
        kind: "SQL",
        script: &file.script,
        checksum: file.checksum.parse().ok(),
        took,
        success,
    };
    insert(history, client, &row).await.map_err(|source| not_recorded(file, source))
}

pub(super) async fn baseline(history: &History, client: &Client, version: &Version) -> Result<()> {
    let row = NewRow {
        version: recorded_version(version),
        description: BASELINE,
        kind: "BASELINE",
        script: BASELINE,
        checksum: None,
        took: Duration::ZERO,
        success: true,
    };
    insert(history, client, &row).await.map_err(|source| history.failed("write the baseline into", source))
}

pub(super) async fn clear(history: &History, client: &Client, file: Option<&MigrationFile>) -> Result<u64> {
    let (version, description) = match file {
        Some(file) => (recorded_version(&file.version), Some(recorded_description(&file.description))),
        None => (None, None),
    };
    let sql = format!(
        "DELETE FROM {} WHERE NOT success AND ($2::text IS NULL OR version = $1 OR (version IS NULL AND description = $2))",
        history.table
    );
    client.execute(&sql, &[&version, &description]).await.map_err(|source| history.failed("repair", source))
}

pub(super) async fn repair(
    history: &History,
    client: &Client,
    file: &MigrationFile,
    recorded: &str,
) -> Result<u64> {
    let sql = format!(
        "UPDATE {} SET description = $1, type = 'SQL', checksum = $2 WHERE version = $3 AND type = 'SQL'",
        history.table
    );
    let checksum: Option<i32> = file.checksum.parse().ok();
    client
        .execute(&sql, &[&recorded_description(&file.description), &checksum, &recorded])
        .await
        .map_err(|source| not_recorded(file, source))
}
