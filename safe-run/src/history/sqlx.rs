//! sqlx's `_sqlx_migrations`. A row with `success = false` is what it calls dirty.

use std::time::Duration;

use common::{Error, QualifiedName, Result, postgres::Client};

use super::{Dirty, History, Recorded, bad_version, not_recorded, number};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};

pub(super) fn create_sql(table: &QualifiedName) -> String {
    format!(
        "CREATE TABLE {table} (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL,
         execution_time BIGINT NOT NULL)"
    )
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!(
        "SELECT version::text, description::text, pg_catalog.encode(checksum, 'hex'), installed_on::text, success::bool
         FROM {} ORDER BY version",
        history.table
    );
    let mut recorded = Recorded::default();
    for row in history.rows(client, &sql, &[2]).await? {
        let text: String = row.get(0);
        if !row.get::<_, bool>(4) {
            recorded.dirty.get_or_insert(Dirty {
                hint: format!(
                    "Look what of it is there. If all of it: `safe-run stamp {text}`. If none of it: `safe-run repair` takes \
                     its row away, and it runs again."
                ),
                version: text,
            });
            continue;
        }
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

fn checksum(file: &MigrationFile) -> Result<Vec<u8>> {
    let digits = file.checksum.as_bytes().chunks(2);
    digits
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| Error::failed(format!("the checksum of {} is not hexadecimal", file.name())))
}

pub(super) async fn record(
    history: &History,
    client: &Client,
    file: &MigrationFile,
    took: Duration,
) -> Result<()> {
    let nanoseconds = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
    let sql = format!(
        "INSERT INTO {} (version, description, installed_on, success, checksum, execution_time)
         VALUES ($1, $2, pg_catalog.clock_timestamp(), TRUE, $3, $4)",
        history.table
    );
    client
        .execute(&sql, &[&number(file)?, &file.description, &checksum(file)?, &nanoseconds])
        .await
        .map_err(|source| not_recorded(file, source))?;
    Ok(())
}

pub(super) async fn clear(history: &History, client: &Client, file: Option<&MigrationFile>) -> Result<u64> {
    let version = file.map(number).transpose()?;
    let sql = format!("DELETE FROM {} WHERE NOT success AND version = COALESCE($1, version)", history.table);
    client.execute(&sql, &[&version]).await.map_err(|source| history.failed("repair", source))
}

pub(super) async fn repair(history: &History, client: &Client, file: &MigrationFile) -> Result<u64> {
    let sql = format!("UPDATE {} SET checksum = $2 WHERE version = $1", history.table);
    client
        .execute(&sql, &[&number(file)?, &checksum(file)?])
        .await
        .map_err(|source| not_recorded(file, source))
}
