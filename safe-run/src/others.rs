//! What others wrote while no fence kept them out: compares every table with the snapshot, by exact rows and content.
//!
//! A table that differs and that the migration provably did not reach was written by others. Of one that it reaches, or
//! when a command ran, nobody can tell from the content; that is said as well. It must never call a table unchanged that
//! it could not read.

use std::collections::BTreeSet;

use common::{
    Error, Progress, Result,
    catalog::Table,
    ident::printable,
    postgres::{
        ConnectionSettings, copy,
        names::Schemas,
        trust::{self, Others},
    },
    repository::StoredSnapshot,
    snapshot::copy_sql::{BlockRange, copy_out_statement},
};

use crate::facts::Functions;
use sql::expectation::{self, Facts, RowExpectation};
use sql::migration::MigrationFile;
use sql::statement::Target;

/// Tables whose content is not the snapshot's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The migration does not reach them: others wrote. As phrases.
    pub by_others: Vec<String>,
    /// The migration or the command may have written, or others.
    pub unknown: Vec<String>,
}

impl Differences {
    /// As sentences. `lost` says where the rows are that a restore does not bring back.
    pub fn sentences(&self, lost: &str) -> Vec<String> {
        let others = self.by_others.iter().map(|table| {
            format!("others wrote since the snapshot, which the migrations do not reach: {table}; {lost}")
        });
        let unknown = self
            .unknown
            .iter()
            .map(|table| format!("changed since the snapshot, by this run or by others: {table}; {lost}"));
        let mut all: Vec<String> = others.chain(unknown).collect();
        if all.is_empty() {
            all.push(
                "every table holds exactly the rows of the snapshot: nobody has written since".to_owned(),
            );
        }
        all
    }
}

/// Which tables the files can change, by oid; `None` means any.
///
/// Everything that a statement names or can call counts, and what hangs on it by a foreign key, a partition or a child.
pub fn reached(files: &[&MigrationFile], facts: &Facts, functions: &Functions) -> Option<BTreeSet<u32>> {
    let classes = || files.iter().flat_map(|file| &file.statements).map(|statement| &statement.class);
    if classes().any(|class| class.unread.is_some() || class.runs_code.is_some()) {
        return None;
    }
    let expected = expectation::expectations(
        classes(),
        facts,
        |name| expectation::by_name(facts, name),
        |name| functions.may_write(name),
    );
    let mut found: BTreeSet<u32> =
        expected.iter().filter(|(_, rows)| **rows != RowExpectation::Equal).map(|(oid, _)| *oid).collect();
    for class in classes() {
        for effect in &class.effects {
            match &effect.target {
                Target::Table(name) => found.extend(expectation::by_name(facts, name)),
                Target::Schema(_) | Target::Everything => return None,
            }
        }
        found.extend(class.locks.iter().flat_map(|lock| expectation::by_name(facts, &lock.table)));
        found.extend(class.renames.iter().flat_map(|(old, _)| expectation::by_name(facts, old)));
    }
    loop {
        let before = found.len();
        let keys = facts
            .foreign_keys
            .iter()
            .filter(|key| found.contains(&key.referenced))
            .map(|key| key.referencing);
        let keys: Vec<u32> = keys.collect();
        found.extend(keys);
        for child in &facts.children {
            if found.contains(&child.child) || found.contains(&child.parent) {
                found.extend([child.child, child.parent]);
            }
        }
        if found.len() == before {
            return Some(found);
        }
    }
}

/// Compares the database that `settings` name with the snapshot.
pub async fn compare(
    settings: &ConnectionSettings,
    snapshot: &StoredSnapshot,
    reached: Option<&BTreeSet<u32>>,
    progress: &Progress,
) -> Result<Differences> {
    let manifest = &snapshot.manifest;
    let session = settings.connect().await?;
    progress.phase("comparing the tables with the snapshot", None);
    let mut found = Differences::default();
    let schemas = Schemas::seen_by(&session).await?;
    let mut tables: Vec<Table> = manifest.tables.iter().map(|data| data.table.clone()).collect();
    trust::admit_by_name(&session, tables.iter_mut(), Others::MayInterfere).await?;
    let prepared = session.batch_execute(trust::ONLY_TABLES).await;
    prepared.map_err(|source| Error::postgres("could not prepare a reading session", source))?;
    for (data, table) in manifest.tables.iter().zip(&tables) {
        let Table { oid, name, .. } = table;
        let statement = match copy_out_statement(table, BlockRange::ALL, &manifest.database.encoding) {
            Ok(statement) => statement,
            Err(refused) => {
                found.unknown.push(format!("{} ({})", name.short(), printable(refused.message())));
                continue;
            }
        };
        let difference = match copy::hash_rows(&session, &statement, progress).await {
            Ok((rows, hash)) if rows == data.rows() && hash == data.row_hash() => continue,
            Ok((rows, _)) if rows == data.rows() => format!("{} ({rows} rows, other content)", name.short()),
            Ok((rows, _)) => format!("{} ({rows} rows, {} in the snapshot)", name.short(), data.rows()),
            // Dropped, renamed, a column gone: the server's word for it, and no telling whose doing.
            Err(error) if error.sqlstate().is_some_and(|code| code.starts_with("42")) => {
                found.unknown.push(format!("{} ({})", name.short(), printable(error.message())));
                continue;
            }
            Err(error) => return Err(error),
        };
        // Our own history is no one else's.
        let is_ours = name.schema.as_str() == "safe_run";
        if is_ours || reached.is_none_or(|reached| reached.contains(oid)) {
            found.unknown.push(difference);
        } else {
            found.by_others.push(difference);
        }
    }
    progress.done();
    // A table that was found equal under a name is the snapshot's only if the name meant it.
    let used = tables.iter().map(|table| table.name.schema.as_str());
    let used = used.filter(|name| schemas.names().contains(name)).collect();
    schemas.check_same(&Schemas::seen_by(&session).await?, &used)?;
    session.close().await?;
    Ok(found)
}
