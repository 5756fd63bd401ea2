//! diesel's `__diesel_schema_migrations`: versions and times.

use common::{QualifiedName, Result, postgres::Client};

use super::{History, Recorded, not_recorded};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};
use sql::version::Version;

pub(super) fn create_sql(table: &QualifiedName) -> String {
    format!(
        "CREATE TABLE {table} (version VARCHAR(50) PRIMARY KEY NOT NULL,
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!("SELECT version::text, run_on::text FROM {} ORDER BY version", history.table);
    let rows = history.rows(client, &sql, &[]).await?;
    let rows = rows
        .iter()
        .map(|row| AppliedMigration {
            kind: RowKind::Migration,
            version: Version::text(row.get(0)),
            description: String::new(),
            checksum: None,
            checksum_normalized: None,
            applied_at: row.get(1),
        })
        .collect();
    Ok(Recorded { rows, dirty: None })
}

pub(super) async fn record(history: &History, client: &Client, file: &MigrationFile) -> Result<()> {
    let sql =
        format!("INSERT INTO {} (version, run_on) VALUES ($1, pg_catalog.clock_timestamp())", history.table);
    client.execute(&sql, &[&file.version.as_str()]).await.map_err(|source| not_recorded(file, source))?;
    Ok(())
}
