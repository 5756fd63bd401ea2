//! dbmate's `schema_migrations`: versions, and nothing else.

use common::{QualifiedName, Result, postgres::Client};

use super::{History, Recorded, not_recorded};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};
use sql::version::Version;

pub(super) fn create_sql(table: &QualifiedName) -> String {
    format!("CREATE TABLE {table} (version varchar PRIMARY KEY)")
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!("SELECT version::text FROM {} ORDER BY version", history.table);
    let rows = history.rows(client, &sql, &[]).await?;
    let rows = rows
        .iter()
        .map(|row| AppliedMigration {
            kind: RowKind::Migration,
            version: Version::text(row.get(0)),
            description: String::new(),
            checksum: None,
            checksum_normalized: None,
            applied_at: String::new(),
        })
        .collect();
    Ok(Recorded { rows, dirty: None })
}

pub(super) async fn record(history: &History, client: &Client, file: &MigrationFile) -> Result<()> {
    let sql = format!("INSERT INTO {} (version) VALUES ($1)", history.table);
    client.execute(&sql, &[&file.version.as_str()]).await.map_err(|source| not_recorded(file, source))?;
    Ok(())
}
