//! Prisma's `_prisma_migrations`. A row is written before a migration and finished after it; a failed one stays open until
//! somebody resolves it.

use common::{QualifiedName, Result, postgres::Client};

use super::{Dirty, History, Recorded, not_recorded};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};
use sql::version::Version;

pub(super) fn create_sql(table: &QualifiedName) -> String {
    format!(
        "CREATE TABLE {table} (id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, finished_at TIMESTAMPTZ,
         migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,
         started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0)"
    )
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!(
        "SELECT migration_name::text, checksum::text, started_at::text, finished_at IS NULL FROM {}
         WHERE rolled_back_at IS NULL ORDER BY started_at",
        history.table
    );
    let mut recorded = Recorded::default();
    for row in history.rows(client, &sql, &[]).await? {
        let name: String = row.get(0);
        if row.get(3) {
            recorded.dirty.get_or_insert(Dirty {
                hint: format!(
                    "Look what of it is there. If all of it: `safe-run stamp {name}`. If none of it: `safe-run repair` marks it \
                     as rolled back, and it runs again. (`prisma migrate resolve` does the same.)"
                ),
                version: name,
            });
            continue;
        }
        let version = Version::text(&name);
        recorded.rows.retain(|earlier| earlier.version != version);
        recorded.rows.push(AppliedMigration {
            kind: RowKind::Migration,
            version,
            description: String::new(),
            checksum: row.get(1),
            checksum_normalized: None,
            applied_at: row.get(2),
        });
    }
    Ok(recorded)
}

pub(super) async fn begin(history: &History, client: &Client, file: &MigrationFile) -> Result<()> {
    let sql = format!(
        "INSERT INTO {} (id, checksum, started_at, migration_name)
         VALUES (pg_catalog.gen_random_uuid()::text, $1, pg_catalog.clock_timestamp(), $2)",
        history.table
    );
    client
        .execute(&sql, &[&file.checksum, &file.version.as_str()])
        .await
        .map_err(|source| not_recorded(file, source))?;
    Ok(())
}

pub(super) async fn fail(history: &History, client: &Client, file: &MigrationFile, why: &str) -> Result<()> {
    let sql = format!(
        "UPDATE {} SET logs = $1 WHERE migration_name = $2 AND finished_at IS NULL AND rolled_back_at IS NULL",
        history.table
    );
    client
        .execute(&sql, &[&why, &file.version.as_str()])
        .await
        .map_err(|source| not_recorded(file, source))?;
    Ok(())
}

/// Finishes the row that [`begin`] wrote, or writes a finished one. One that somebody marked has no steps and empty logs,
/// as after `prisma migrate resolve --applied`.
pub(super) async fn record(
    history: &History,
    client: &Client,
    file: &MigrationFile,
    marked: bool,
) -> Result<()> {
    let table = &history.table;
    if !marked {
        let sql = format!(
            "UPDATE {table} SET finished_at = pg_catalog.clock_timestamp(), applied_steps_count = applied_steps_count OPERATOR(pg_catalog.+) 1
             WHERE migration_name OPERATOR(pg_catalog.=) $1 AND finished_at IS NULL AND rolled_back_at IS NULL"
        );
        let finished = client
            .execute(&sql, &[&file.version.as_str()])
            .await
            .map_err(|source| not_recorded(file, source))?;
        if finished > 0 {
            return Ok(());
        }
    }
    let logs = marked.then_some("");
    let steps = i32::from(!marked);
    let sql = format!(
        "INSERT INTO {table} (id, checksum, logs, started_at, finished_at, migration_name, applied_steps_count)
         SELECT pg_catalog.gen_random_uuid()::pg_catalog.text, $1, $2, now, now, $3, $4 FROM pg_catalog.clock_timestamp() AS now"
    );
    client
        .execute(&sql, &[&file.checksum, &logs, &file.version.as_str(), &steps])
        .await
        .map_err(|source| not_recorded(file, source))?;
    Ok(())
}

pub(super) async fn clear(history: &History, client: &Client, file: Option<&MigrationFile>) -> Result<u64> {
    let name = file.map(|file| file.version.as_str());
    let sql = format!(
        "UPDATE {} SET rolled_back_at = pg_catalog.clock_timestamp()
         WHERE finished_at IS NULL AND rolled_back_at IS NULL AND migration_name = COALESCE($1, migration_name)",
        history.table
    );
    client.execute(&sql, &[&name]).await.map_err(|source| history.failed("repair", source))
}

pub(super) async fn repair(history: &History, client: &Client, file: &MigrationFile) -> Result<u64> {
    let sql = format!(
        "UPDATE {} SET checksum = $1 WHERE migration_name = $2 AND rolled_back_at IS NULL",
        history.table
    );
    client
        .execute(&sql, &[&file.checksum, &file.version.as_str()])
        .await
        .map_err(|source| not_recorded(file, source))
}
