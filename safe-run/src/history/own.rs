//! Our own history table, `safe_run.migrations`: what was applied, when, by whom, and from which bytes.

use common::{
    Error, Result,
    postgres::{Client, Row, Type, client::null_column},
};

use super::{Outcome, Recorded};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};
use sql::version::Version;

/// Makes the table.
const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS safe_run;
CREATE TABLE safe_run.migrations (
  version text PRIMARY KEY,
  description text NOT NULL,
  file_name text NOT NULL,
  checksum text NOT NULL,
  checksum_normalized text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  applied_by text NOT NULL DEFAULT CURRENT_USER,
  execution_ms bigint NOT NULL,
  run text NOT NULL
);
COMMENT ON TABLE safe_run.migrations IS 'Migrations that safe-run has applied. Checksums are SHA-256 of the file.'";

/// The statement that makes the table.
pub async fn create_sql(client: &Client) -> Result<String> {
    // IF NOT EXISTS would send a NOTICE that nobody needs.
    let row = client
        .query_one("SELECT pg_catalog.to_regnamespace('safe_run') IS NOT NULL", &[])
        .await
        .map_err(|source| Error::postgres("could not look for the schema safe_run", source))?;
    let exists: bool = row.get(0);
    Ok(if exists {
        CREATE.replacen("CREATE SCHEMA IF NOT EXISTS safe_run;", "", 1)
    } else {
        CREATE.to_owned()
    })
}

const READ: &str = "
SELECT version, description, checksum, checksum_normalized, applied_at::text
FROM safe_run.migrations ORDER BY applied_at, version";

const RECORD: &str = "
INSERT INTO safe_run.migrations (version, description, file_name, checksum, checksum_normalized, execution_ms, run)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Reads the history.
pub async fn read(client: &Client) -> Result<Recorded> {
    let failed = |source| Error::postgres("could not read safe_run.migrations", source);
    let rows = client.query(READ, &[]).await.map_err(failed)?;
    if let Some(column) = rows.iter().find_map(|row| null_column(row, &[])) {
        return Err(Error::refused(format!(
            "safe_run.migrations has a row whose {column} is NULL, which this program never writes: correct the row by hand"
        )));
    }
    Ok(Recorded { rows: rows.iter().map(applied).collect::<Result<_>>()?, dirty: None })
}

fn applied(row: &Row) -> Result<AppliedMigration> {
    let text: String = row.get(0);
    let version = Version::parse(&text).ok_or_else(|| {
        Error::refused(format!("safe_run.migrations has a version \"{}\"", common::ident::printable(&text)))
            .with_hint("Correct the row by hand: a version is made of digits and dots.")
    })?;
    Ok(AppliedMigration {
        kind: RowKind::Migration,
        version,
        description: row.get(1),
        checksum: Some(row.get(2)),
        checksum_normalized: Some(row.get(3)),
        applied_at: row.get(4),
    })
}

/// Records one migration as applied.
pub async fn record(client: &Client, file: &MigrationFile, outcome: &Outcome<'_>) -> Result<()> {
    let milliseconds = i64::try_from(outcome.took().as_millis()).unwrap_or(i64::MAX);
    client
        // With its types, so that it takes one way to the server and back instead of three.
        .execute_typed(
            RECORD,
            &[
                (&file.version.as_str(), Type::TEXT),
                (&file.description, Type::TEXT),
                (&file.name(), Type::TEXT),
                (&file.checksum, Type::TEXT),
                (&file.checksum_normalized, Type::TEXT),
                (&milliseconds, Type::INT8),
                (&outcome.run(), Type::TEXT),
            ],
        )
        .await
        .map_err(|source| super::not_recorded(file, source))?;
    Ok(())
}

/// Records the file as it is now.
pub async fn repair(client: &Client, file: &MigrationFile, recorded: &str) -> Result<u64> {
    let sql = "UPDATE safe_run.migrations SET checksum = $1, checksum_normalized = $2, file_name = $3, description = $4
               WHERE version = $5";
    client
        .execute(
            sql,
            &[&file.checksum, &file.checksum_normalized, &file.name(), &file.description, &recorded],
        )
        .await
        .map_err(|source| super::not_recorded(file, source))
}
