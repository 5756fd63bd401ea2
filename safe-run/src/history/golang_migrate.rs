//! golang-migrate's `schema_migrations`: one row, the newest version and whether it failed half-way.

use common::{QualifiedName, Result, postgres::Client};

use super::{Dirty, History, Recorded, bad_version, not_recorded, number};
use sql::migration::{AppliedMigration, MigrationFile, RowKind};

pub(super) fn create_sql(table: &QualifiedName) -> String {
    format!("CREATE TABLE {table} (version bigint not null primary key, dirty boolean not null)")
}

pub(super) async fn read(history: &History, client: &Client) -> Result<Recorded> {
    let sql = format!("SELECT version::text, dirty::bool FROM {} LIMIT 1", history.table);
    let rows = history.rows(client, &sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(Recorded::default()) };
    let (text, dirty): (String, bool) = (row.get(0), row.get(1));
    let dirty = dirty.then(|| Dirty {
        hint: format!(
            "Look what of it is there. If all of it: `safe-run stamp {text}`. If none of it: `safe-run stamp` with the version \
             before it, and it runs again. (`migrate force` does the same.)"
        ),
        version: text.clone(),
    });
    // golang-migrate writes -1 for "nothing yet".
    let rows = if text.starts_with('-') {
        Vec::new()
    } else {
        vec![AppliedMigration {
            kind: RowKind::UpTo,
            version: history.layout.version(&text).ok_or_else(|| bad_version(history, &text))?,
            description: String::new(),
            checksum: None,
            checksum_normalized: None,
            applied_at: String::new(),
        }]
    };
    Ok(Recorded { rows, dirty })
}

/// Makes the one row say this file. With DELETE and not TRUNCATE, which readers of the table would have to wait for.
pub(super) async fn set(history: &History, client: &Client, file: &MigrationFile, dirty: bool) -> Result<()> {
    let table = &history.table;
    let sql = format!(
        "DELETE FROM {table}; INSERT INTO {table} (version, dirty) VALUES ({}, {dirty})",
        number(file)?
    );
    client.batch_execute(&sql).await.map_err(|source| not_recorded(file, source))
}
