//! Rows that refer to a row that does not exist, found when a snapshot is taken and not only when it is restored.
//!
//! PostgreSQL itself looks only at rows that are written; what a session with its triggers off left behind stands under a
//! *validated* key until a restore makes that key anew. The joins cost about what VALIDATE CONSTRAINT costs, so they run
//! only where somebody asks for them.

use std::collections::HashSet;

use common::{
    Error, Progress, QualifiedName, Result, format,
    ident::printable,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::{ExportedSnapshot, join},
        sql, trust,
    },
};

/// Of the tables with the oids `tables`, those on which joins may be planned: with every partition and heir of theirs, they are
/// ours. `inherits` has children and parents.
pub async fn plannable(
    reader: &Session,
    tables: &HashSet<u32>,
    inherits: &[(u32, u32)],
) -> Result<HashSet<u32>> {
    let oids: Vec<u32> = tables.iter().copied().collect();
    let standings = trust::standings(reader, Some(&oids)).await?;
    let ours = standings.iter().filter(|standing| standing.may_be_planned()).map(|standing| standing.oid);
    let mut plannable: HashSet<u32> = ours.collect();
    loop {
        let left_out = inherits.iter().filter(|(child, _)| !plannable.contains(child));
        let parents: Vec<u32> = left_out.map(|(_, parent)| *parent).collect();
        let before = plannable.len();
        plannable.retain(|table| !parents.contains(table));
        if plannable.len() == before {
            return Ok(plannable);
        }
    }
}

/// One sentence for each foreign key between `tables` that rows of the snapshot violate. Joins are planned, so only those between
/// `plannable` tables are looked at; the others are named.
pub async fn find(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    tables: &HashSet<u32>,
    plannable: &HashSet<u32>,
    progress: &Progress,
) -> Result<Vec<String>> {
    let failed = |source| Error::postgres("could not check the foreign keys", source);
    let joined = match exported.only_session() {
        None => Some(join(settings, exported).await?),
        Some(_) => None,
    };
    let Some(session) = joined.as_ref().or(exported.only_session()) else { return Ok(Vec::new()) };
    session.batch_execute(trust::ONLY_TABLES).await.map_err(failed)?;
    let mut found = Vec::new();
    let mut not_looked_at = Vec::new();
    for key in session.query(sql::FOREIGN_KEYS, &[]).await.map_err(failed)? {
        common::interrupt::check()?;
        let (is_enforced, is_valid): (bool, bool) = (key.get(4), key.get(5));
        let is_here = tables.contains(&key.get::<_, u32>(1)) && tables.contains(&key.get::<_, u32>(2));
        // What is not enforced, or was never validated, comes back as it is, whatever its rows hold.
        if !(is_here && is_enforced && is_valid) {
            continue;
        }
        if !(plannable.contains(&key.get::<_, u32>(1)) && plannable.contains(&key.get::<_, u32>(2))) {
            let table = QualifiedName::new(key.get::<_, String>(7), key.get::<_, String>(8)).short();
            not_looked_at.push(format!("{} of {table}", printable(&key.get::<_, String>(3))));
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
    if !not_looked_at.is_empty() {
        progress.warn(format!(
            "{} not looked at, because the joins could run code of the tables' owners with the rights of this role ({}): run \
             the backup as the role that owns them",
            format::plural(not_looked_at.len() as u64, "foreign key was", "foreign keys were"),
            not_looked_at.join(", ")
        ));
    }
    Ok(found)
}
