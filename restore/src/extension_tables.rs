//! Configuration tables of extensions. They are there with their constraints, triggers and the extension's own rows before
//! the first row of ours is loaded, so they come one after another, each after those that it references: the snapshot has
//! them in that order. Rows that the extension brought and that the snapshot has as well are not doubled.

use std::collections::HashSet;

use common::{
    Error, QualifiedName, Result,
    postgres::Session,
    repository::StoredSnapshot,
    snapshot::{Manifest, manifest::TableData},
};

use crate::copy_in::{self, Work};

mod condition;

/// The conditions of the extensions that the new database has, by table.
const CONDITIONS: &str = "
SELECT n.nspname::text, c.relname::text, COALESCE(f.condition, '')
FROM pg_catalog.pg_extension e, ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) f(oid, condition)
JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// The snapshot's other tables, and what loads those of extensions, for one connection and in this order.
///
/// # Errors
/// Refused for a condition that this server's extension does not have and that could do more than compare.
pub async fn apart(session: &Session, snapshot: &StoredSnapshot) -> Result<(StoredSnapshot, Vec<Work>)> {
    let (mut others, mut theirs) = (snapshot.clone(), snapshot.clone());
    let is_theirs = |data: &TableData| data.table.extension_filter.is_some();
    others.manifest.tables.retain(|data| !is_theirs(data));
    theirs.manifest.tables.retain(is_theirs);
    if theirs.manifest.tables.is_empty() {
        return Ok((others, Vec::new()));
    }
    check_conditions(session, &theirs.manifest).await?;
    let run = |statement: &str, what: &str| Work::Run {
        statement: statement.to_owned(),
        what: format!("could not load the configuration tables of extensions ({what})"),
    };
    let mut work = Vec::new();
    if may_be_a_replica(session).await? {
        // Their triggers did their work when the rows were written, and old orphans were there before.
        work.push(run("SET session_replication_role = 'replica'", "no triggers"));
    }
    work.extend(brought(session, &theirs.manifest).await?.iter().map(|(table, delete)| run(delete, table)));
    work.extend(copy_in::load_tables(&theirs));
    Ok((others, work))
}

/// Conditions are SQL, and of a snapshot that may come from anybody: see [`condition`].
async fn check_conditions(session: &Session, manifest: &Manifest) -> Result<()> {
    let rows = session
        .query(CONDITIONS, &[])
        .await
        .map_err(|source| Error::postgres("could not read the configuration tables of extensions", source))?;
    let known: HashSet<(QualifiedName, String)> = rows
        .iter()
        .map(|row| (QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2)))
        .collect();
    for data in &manifest.tables {
        let Some(filter) = &data.table.extension_filter else { continue };
        let columns: Vec<&str> = data.table.columns.iter().map(common::Ident::as_str).collect();
        if !known.contains(&(data.table.name.clone(), filter.clone()))
            && !condition::only_compares(filter, &columns)
        {
            return Err(Error::refused(format!(
                "the snapshot has a condition for the extension's table {} that this server's extension does not have: {}",
                data.table.name.short(),
                common::ident::printable(filter)
            ))
            .with_hint(
                "Install the version of the extension that the snapshot was taken with. If the snapshot is from somebody \
                 else, the condition may be their code.",
            ));
        }
    }
    Ok(())
}

/// A superuser, and from 15 on whom one has allowed it.
async fn may_be_a_replica(session: &Session) -> Result<bool> {
    let set = "BEGIN; SET LOCAL session_replication_role = 'replica'; ROLLBACK";
    match session.batch_execute(set).await {
        Ok(()) => Ok(true),
        Err(source) => {
            // 42501: not for this role.
            let is_denied = source.code().is_some_and(|code| code.code() == "42501");
            let failed = Error::postgres("could not prepare the session", source);
            session.batch_execute("ROLLBACK").await.map_err(|_| Error::failed("the session was lost"))?;
            if is_denied { Ok(false) } else { Err(failed) }
        }
    }
}

/// Statements that take away what `CREATE EXTENSION` just brought and the snapshot has, tables that reference others first.
async fn brought(session: &Session, manifest: &Manifest) -> Result<Vec<(String, String)>> {
    let mut statements = Vec::new();
    for data in manifest.tables.iter().rev() {
        let (name, short) = (&data.table.name, data.table.name.short());
        let filter = data.table.extension_filter.as_deref().unwrap_or_default();
        let rows = format!("SELECT ctid FROM ONLY {name} {filter}");
        let row = session
            .query_one(&format!("SELECT EXISTS ({rows})"), &[])
            .await
            .map_err(|source| Error::postgres(format!("could not read {short}"), source))?;
        if row.get(0) {
            statements.push((short, format!("DELETE FROM ONLY {name} WHERE ctid IN ({rows})")));
        }
    }
    Ok(statements)
}
