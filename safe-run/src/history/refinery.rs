//! refinery's `refinery_schema_history`. Times and checksums are text.

use common::{QualifiedName, Result, postgres::Client};

use super::{History, Recorded, bad_version, not_recorded, number};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};

pub(super) fn create_sql(table: &QualifiedName, wide: bool) -> String {
    let width = if wide { "int8" } else { "int4" };
    format!(
        "CREATE TABLE {table} (version {width} PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255),
         checksum VARCHAR(255))"
    )
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!(
        "SELECT version::text, COALESCE(name, '')::text, checksum::text, COALESCE(applied_on, '')::text FROM {}
         ORDER BY version",
        history.table
    );
    let mut recorded = Recorded::default();
    for row in history.rows(client, &sql, &[2]).await? {
        let text: String = row.get(0);
        recorded.rows.push(AppliedMigration {
            kind: RowKind::Migration,
            version: history.layout.version(&text).ok_or_else(|| bad_version(history, &text))?,
            description: row.get(1),
            checksum: row.get(2),
            checksum_normalized: None,
            applied_at: row.get(3),
        });
    }
    Ok(recorded)
}

pub(super) async fn record(history: &History, client: &Client, file: &MigrationFile) -> Result<()> {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    let sql = format!(
        "INSERT INTO {} (version, name, applied_on, checksum) VALUES ($1::pg_catalog.int8, $2, $3, $4)",
        history.table
    );
    client
        .execute(&sql, &[&number(file)?, &file.description, &now, &file.checksum])
        .await
        .map_err(|source| not_recorded(file, source))?;
    Ok(())
}

pub(super) async fn repair(history: &History, client: &Client, file: &MigrationFile) -> Result<u64> {
    let sql = format!("UPDATE {} SET name = $2, checksum = $3 WHERE version = $1::int8", history.table);
    client
        .execute(&sql, &[&number(file)?, &file.description, &file.checksum])
        .await
        .map_err(|source| not_recorded(file, source))
}
