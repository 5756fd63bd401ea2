//! Tables beside the live ones, in the same schema, under other names, with sequences, indexes and constraints of their own.
//!
//! Scratch database → other names → definitions → one transaction in the live database: tables, rows, comparison, indexes
//! and constraints, sequences → COMMIT. No live table is locked or read.

use std::collections::BTreeMap;

use common::{
    Error, Ident, Progress, QualifiedName, Result,
    postgres::{ConnectionSettings, Session, tools::Tool},
    repository::verify::VerifiedSnapshot,
    snapshot::{manifest::TableData, readme::setval, toc::Kind},
};

use super::{
    plan::FreeNames,
    scratch::{self, Definitions, Renamed},
    transaction::LiveTransaction,
};
use crate::lent_paths::{self, LentPaths};

/// What belongs to the live table alone, and would act on others or be acted on.
pub const WITHOUT: [Kind; 7] = [
    Kind::ForeignKey,
    Kind::Trigger,
    Kind::Rule,
    Kind::Policy,
    Kind::Publication,
    Kind::Acl,
    Kind::SecurityLabel,
];

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// New tables, by old name.
    pub renamed: Renamed,
    /// Types and the like that the live database did not have.
    pub objects: Vec<String>,
}

/// What is needed to take the definitions over.
#[derive(Debug)]
pub struct Sides<'a> {
    /// The live database.
    pub live: &'a ConnectionSettings,
    /// The scratch database.
    pub scratch: &'a Session,
    /// pg_dump for the server.
    pub pg_dump: &'a Tool,
    /// pg_restore for what that writes.
    pub pg_restore: &'a Tool,
}

/// Makes the tables.
///
/// # Errors
/// Nothing is left in the live database.
pub async fn restore(
    sides: &Sides<'_>,
    snapshot: &VerifiedSnapshot,
    fixed: &BTreeMap<QualifiedName, QualifiedName>,
    owners: &BTreeMap<QualifiedName, String>,
    suffix: &str,
    progress: &Progress,
) -> Result<Made> {
    let live = sides.live.connect().await?;
    let mut free = FreeNames::new(scratch::taken(&live).await?);
    for new in fixed.values() {
        free.reserve(new);
    }
    progress.phase("preparing the definitions", None);
    let renamed = scratch::rename(sides.scratch, fixed, &mut free, suffix).await?;
    let settings = sides.scratch.settings().clone();
    let definitions =
        scratch::definitions(&settings, sides.scratch, &live, sides.pg_dump, sides.pg_restore).await?;
    live.close().await?;
    progress.done();
    let filled = match fill(sides.live, snapshot, &renamed, owners, &definitions, None, progress).await {
        // Nothing is left of it, and with the search path of the database it may work.
        Err(error) if lent_paths::may_be_a_name(&error) => {
            let paths = LentPaths::new(sides.live, &snapshot.snapshot().manifest, progress);
            let again = fill(sides.live, snapshot, &renamed, owners, &definitions, Some(&paths), progress);
            again.await.map_err(lent_paths::hint)
        }
        filled => filled,
    };
    filled?;
    Ok(Made { renamed, objects: definitions.made })
}

async fn fill(
    live: &ConnectionSettings,
    snapshot: &VerifiedSnapshot,
    renamed: &Renamed,
    owners: &BTreeMap<QualifiedName, String>,
    definitions: &Definitions,
    lend: Option<&LentPaths>,
    progress: &Progress,
) -> Result<()> {
    let stored = snapshot.snapshot();
    let manifest = &stored.manifest;
    let new_name = |old: &QualifiedName| -> Result<QualifiedName> {
        renamed.names.get(old).cloned().ok_or_else(|| {
            Error::failed(format!("{} did not come out of the schema archive", old.short()))
                .with_hint("Run `backup verify`, and restore another snapshot.")
        })
    };
    let tables: Vec<(&TableData, QualifiedName)> =
        manifest.tables.iter().map(|data| Ok((data, new_name(&data.table.name)?))).collect::<Result<_>>()?;
    let mut transaction = LiveTransaction::begin(live).await?;
    if let Some(paths) = lend {
        transaction.lend(paths).await?;
    }
    transaction.run("could not make the tables", &definitions.before).await?;
    progress.phase("loading rows", Some(manifest.raw_bytes()));
    for (data, target) in &tables {
        let through = data.table.load_into.as_ref().map(&new_name).transpose()?;
        transaction.load(stored, data, target, through.as_ref(), progress).await?;
    }
    progress.done();
    common::fault::point("parts.loaded");
    progress.phase("building indexes and constraints", None);
    transaction.run("could not build the indexes and constraints", &definitions.after).await?;
    for sequence in &manifest.sequences {
        let mut sequence = sequence.clone();
        sequence.name = new_name(&sequence.name)?;
        transaction.session().query_one(&setval(&sequence), &[]).await.map_err(|source| {
            Error::postgres(format!("could not set the sequence {}", sequence.name.short()), source)
        })?;
    }
    progress.done();
    progress.phase("comparing every row with the snapshot", Some(manifest.raw_bytes()));
    transaction.compare(stored, &tables, progress).await?;
    progress.done();
    for (old, owner) in owners {
        give(&transaction, &new_name(old)?, owner).await?;
    }
    transaction.commit(live).await
}

/// Gives a table to the role that owned it. Where this role may not, it keeps the table.
async fn give(transaction: &LiveTransaction, table: &QualifiedName, owner: &str) -> Result<()> {
    let what = format!("could not give {} to its owner", table.short());
    let give = format!("SAVEPOINT before_owner; ALTER TABLE {table} OWNER TO {}", Ident::new(owner));
    match transaction.run(&what, &give).await {
        Err(error) if error.sqlstate() == Some("42501") => {
            transaction.run(&what, "ROLLBACK TO SAVEPOINT before_owner").await
        }
        result => result,
    }
}
