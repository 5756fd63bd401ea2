//! Rows that refer to a row that does not exist, found when a snapshot is taken and not only when it is restored.
//!
//! PostgreSQL itself looks only at rows that are written; what a session with its triggers off left behind stands under a
//! *validated* key until a restore makes that key anew. The joins cost about what VALIDATE CONSTRAINT costs, so they run
//! only where somebody asks for them.

use std::collections::HashSet;

use common::{
    Error, Progress, Result,
    cli::format,
    ident::printable,
    postgres::{
        ConnectionSettings,
        exported_snapshot::{ExportedSnapshot, join},
        sql,
    },
};

/// One sentence for each foreign key between `tables` that rows of the snapshot violate.
pub async fn find(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    tables: &HashSet<u32>,
    progress: &Progress,
) -> Result<Vec<String>> {
    let failed = |source| Error::postgres("could not check the foreign keys", source);
    let joined = match exported.only_session() {
        None => Some(join(settings, exported).await?),
        Some(_) => None,
    };
    let Some(session) = joined.as_ref().or(exported.only_session()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for key in session.query(sql::FOREIGN_KEYS, &[]).await.map_err(failed)? {
        common::interrupt::check()?;
        let (is_enforced, is_valid): (bool, bool) = (key.get(4), key.get(5));
        let is_here = tables.contains(&key.get::<_, u32>(1)) && tables.contains(&key.get::<_, u32>(2));
        // What is not enforced, or was never validated, comes back as it is, whatever its rows hold.
        if !(is_here && is_enforced && is_valid) {
            continue;
        }
        let from: String = key.get(14);
        let orphans: i64 =
            session.query_one(&format!("SELECT count(*) {from}"), &[]).await.map_err(failed)?.get(0);
        if orphans == 0 {
            continue;
        }
        let name =
            |at: usize| printable(&format!("{}.{}", key.get::<_, String>(at), key.get::<_, String>(at + 1)));
        let line = format!(
            "{} of {} in no row of {} (foreign key {}): a restore makes the key NOT VALID, or before PostgreSQL 18 leaves \
             that of a partitioned table out",
            format::plural(orphans.unsigned_abs(), "orphan", "orphans"),
            name(7),
            name(9),
            printable(&key.get::<_, String>(3)),
        );
        progress.warn(line.clone());
        found.push(line);
    }
    if let Some(joined) = joined {
        joined.close().await?;
    }
    Ok(found)
}
