//! Tables beside the live ones, in the same schema, under other names, with sequences, indexes and constraints of their own.
//!
//! Scratch database → other names → definitions → one transaction in the live database: tables, rows, comparison, indexes
//! and constraints, sequences → COMMIT. No live table is locked or read.

use std::collections::BTreeMap;

use common::{
    Error, Ident, Progress, QualifiedName, Result, interrupt,
    postgres::{ConnectionSettings, Session, tools::Tool},
    repository::verify::VerifiedSnapshot,
    snapshot::{manifest::TableData, readme::setval, toc::Kind},
};

use super::{
    aside,
    plan::FreeNames,
    scratch::{self, Definitions, Renamed},
    select::not_in_archive,
    transaction::LiveTransaction,
};
use crate::{
    broken_rules::Rule,
    lent_paths::{self, LentPaths},
};

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
    /// Rules that came back NOT VALID, one sentence each.
    pub differs: Vec<String>,
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
    let mut remedies = Remedies::default();
    let differs = loop {
        let filled = fill(sides.live, snapshot, &renamed, owners, &definitions, &remedies, progress).await;
        let error = match filled {
            Ok(differs) => break differs,
            Err(error) => error,
        };
        interrupt::check()?;
        // Nothing is left of it, and with the search path of the database it may work.
        if remedies.paths.is_none() && lent_paths::may_be_a_name(&error) {
            remedies.paths = Some(LentPaths::new(sides.live, &snapshot.snapshot().manifest, progress));
        } else if !take_off(sides, &renamed, &mut remedies.aside, &error).await? {
            return Err(lent_paths::hint(aside::hint(error)));
        }
    };
    Ok(Made { renamed, objects: definitions.made, differs })
}

/// What is done otherwise than at first, because that failed.
#[derive(Default)]
struct Remedies {
    paths: Option<LentPaths>,
    /// Rules that rows break.
    aside: Vec<Rule>,
}

/// Adds the rule that `error` speaks of to those that come back NOT VALID, if it is of these tables, or of a domain that comes with
/// them; whether there was one.
async fn take_off(
    sides: &Sides<'_>,
    renamed: &Renamed,
    aside: &mut Vec<Rule>,
    error: &Error,
) -> Result<bool> {
    let tables: Vec<&QualifiedName> = renamed.names.values().collect();
    let found = aside::broken_by(sides.scratch, error, &tables).await?;
    let live = sides.live.connect().await?;
    for rule in &found {
        let is_made = match rule.is_domain() {
            true => is_missing(&live, rule.on()).await?,
            false => tables.contains(&rule.on()),
        };
        if !is_made {
            return Ok(false);
        }
    }
    live.close().await?;
    Ok(aside::add(aside, found))
}

async fn is_missing(live: &Session, domain: &QualifiedName) -> Result<bool> {
    let sql = "SELECT pg_catalog.to_regtype($1) IS NULL";
    let row = live
        .query_one(sql, &[&domain.to_string()])
        .await
        .map_err(|source| Error::postgres(format!("could not look for {}", domain.short()), source))?;
    Ok(row.get(0))
}

async fn fill(
    live: &ConnectionSettings,
    snapshot: &VerifiedSnapshot,
    renamed: &Renamed,
    owners: &BTreeMap<QualifiedName, String>,
    definitions: &Definitions,
    remedies: &Remedies,
    progress: &Progress,
) -> Result<Vec<String>> {
    let mut transaction = LiveTransaction::begin(live).await?;
    match fill_within(&mut transaction, snapshot, renamed, owners, definitions, remedies, progress).await {
        Ok(differs) => transaction.commit(live).await.map(|()| differs),
        Err(error) => Err(transaction.because(live, error).await),
    }
}

async fn fill_within(
    transaction: &mut LiveTransaction,
    snapshot: &VerifiedSnapshot,
    renamed: &Renamed,
    owners: &BTreeMap<QualifiedName, String>,
    definitions: &Definitions,
    remedies: &Remedies,
    progress: &Progress,
) -> Result<Vec<String>> {
    let stored = snapshot.snapshot();
    let manifest = &stored.manifest;
    let new_name = |old: &QualifiedName| -> Result<QualifiedName> {
        renamed.names.get(old).cloned().ok_or_else(|| not_in_archive(old))
    };
    let tables: Vec<(&TableData, QualifiedName)> =
        manifest.tables.iter().map(|data| Ok((data, new_name(&data.table.name)?))).collect::<Result<_>>()?;
    if let Some(paths) = &remedies.paths {
        transaction.lend(paths).await?;
    }
    transaction.run("could not make the tables", &definitions.before).await?;
    aside::drop(transaction, &remedies.aside).await?;
    progress.phase("loading rows", Some(manifest.raw_bytes()));
    for (data, target) in &tables {
        let through = data.table.load_into.as_ref().map(&new_name).transpose()?;
        transaction.load(stored, data, target, through.as_ref(), progress).await?;
    }
    progress.done();
    common::fault::point("parts.loaded");
    let differs = aside::put_back(transaction, &remedies.aside).await?;
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
        give(transaction, &new_name(old)?, owner).await?;
    }
    Ok(differs)
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
