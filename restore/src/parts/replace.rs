//! The content of live tables becomes the snapshot's, in one transaction; the tables stay the same, and with them views,
//! grants, triggers, policies, and foreign keys in both directions.
//!
//! Rows are loaded into temporary tables and compared there, before any lock. Then: lock → look at the columns again →
//! keep what is there → foreign keys that point here away → TRUNCATE, INSERT … SELECT with user triggers and rules silent →
//! compare → foreign keys again, which makes PostgreSQL check every row → sequences never behind the rows → COMMIT.

mod around;
mod columns;

use std::time::Duration;

use common::{
    Error, ErrorKind, Ident, Progress, QualifiedName, Result,
    ident::literal,
    interrupt,
    postgres::{ConnectionSettings, Session, copy},
    repository::verify::VerifiedSnapshot,
    snapshot::RowHash,
};

use super::{
    aside, rights,
    scratch::{self, regclass},
    select::{Selection, Unit},
    transaction::{LiveTransaction, differs},
};
use crate::{
    broken_rules::Rule,
    lent_paths::{self, LentPaths},
};

use around::{acting, advance_sequences, incoming};
pub use columns::{check_columns, no_such_table, not_as_in_the_snapshot};

/// How the live tables are replaced.
#[derive(Debug, Clone)]
pub struct ReplaceOptions {
    /// For each unit, the table that keeps what was there.
    pub kept_as: Vec<Option<QualifiedName>>,
    /// How long one attempt waits for the locks.
    pub lock_timeout: Duration,
    /// Attempts after the first.
    pub lock_retries: u32,
    /// Whether code of others may run with the rights of this role.
    pub run_owners_code: bool,
}

/// Replaces the content of the live tables.
///
/// Gives the rules of the tables that came back NOT VALID, one sentence each with the reason.
///
/// # Errors
/// The live tables are as they were.
pub async fn replace(
    live: &ConnectionSettings,
    scratch: &Session,
    snapshot: &VerifiedSnapshot,
    selection: &Selection,
    options: &ReplaceOptions,
    progress: &Progress,
) -> Result<Vec<String>> {
    let mut remedies = Remedies::default();
    loop {
        let replaced = replace_once(live, scratch, snapshot, selection, options, &remedies, progress).await;
        let error = match replaced {
            Ok(differs) => return Ok(differs),
            Err(error) => error,
        };
        interrupt::check()?;
        // Nothing is left of it, and with the search path of the database it may work.
        if remedies.paths.is_none() && lent_paths::may_be_a_name(&error) {
            remedies.paths = Some(LentPaths::new(live, &snapshot.snapshot().manifest, progress));
        } else if !take_off(live, &selection.units, &mut remedies.aside, &error).await? {
            return Err(lent_paths::hint(aside::hint(error)));
        }
    }
}

/// What is done otherwise than at first, because that failed.
#[derive(Default)]
struct Remedies {
    paths: Option<LentPaths>,
    /// Rules that rows break.
    aside: Vec<Rule>,
}

/// Adds the rule that `error` speaks of to those that come back NOT VALID, if nothing but these tables has it; whether there was
/// one.
async fn take_off(
    live: &ConnectionSettings,
    units: &[Unit],
    aside: &mut Vec<Rule>,
    error: &Error,
) -> Result<bool> {
    let session = live.connect().await?;
    let names: Vec<&QualifiedName> = units.iter().map(|unit| &unit.name).collect();
    let found = aside::broken_by(&session, error, &names).await?;
    for rule in &found {
        if is_shared(&session, rule, &names).await? {
            return Ok(false);
        }
    }
    session.close().await?;
    Ok(aside::add(aside, found))
}

/// Whether something else than these tables has the rule. Of a tree, the topmost has it: all below comes with it.
async fn is_shared(session: &Session, rule: &Rule, names: &[&QualifiedName]) -> Result<bool> {
    Ok(rule.is_domain()
        || !names.contains(&rule.on())
        || heirs(session, rule.on()).await?.iter().any(|heir| !names.contains(&heir)))
}

/// What inherits from a table and is no partition.
async fn heirs(session: &Session, table: &QualifiedName) -> Result<Vec<QualifiedName>> {
    let rows = session
        .query(
            "WITH RECURSIVE heirs(oid) AS (SELECT $1::text::pg_catalog.regclass::pg_catalog.oid
               UNION SELECT i.inhrelid FROM heirs JOIN pg_catalog.pg_inherits i ON i.inhparent = heirs.oid)
             SELECT n.nspname::text, c.relname::text FROM heirs JOIN pg_catalog.pg_class c ON c.oid = heirs.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT c.relispartition AND c.oid <> $1::text::pg_catalog.regclass",
            &[&table.to_string()],
        )
        .await
        .map_err(|source| Error::postgres(format!("could not look for heirs of {}", table.short()), source))?;
    Ok(rows.iter().map(|row| scratch::name(row, 0)).collect())
}

async fn replace_once(
    live: &ConnectionSettings,
    scratch: &Session,
    snapshot: &VerifiedSnapshot,
    selection: &Selection,
    options: &ReplaceOptions,
    remedies: &Remedies,
    progress: &Progress,
) -> Result<Vec<String>> {
    let mut transaction = LiveTransaction::begin(live).await?;
    let units = &selection.units;
    match replace_within(&mut transaction, scratch, snapshot, units, options, remedies, progress).await {
        Ok(differs) => transaction.commit(live).await.map(|()| differs),
        Err(error) => Err(transaction.because(live, error).await),
    }
}

async fn replace_within(
    transaction: &mut LiveTransaction,
    scratch: &Session,
    snapshot: &VerifiedSnapshot,
    units: &[Unit],
    options: &ReplaceOptions,
    remedies: &Remedies,
    progress: &Progress,
) -> Result<Vec<String>> {
    if let Some(paths) = &remedies.paths {
        transaction.lend(paths).await?;
    }
    check_columns(scratch, transaction.session(), units).await?;
    let staged = stage(transaction, scratch, snapshot, units, progress).await?;
    common::fault::point("parts.loaded");
    progress.phase("replacing the content", None);
    lock(transaction, units, options).await?;
    // What was true before the lock need not be true now.
    check_columns(scratch, transaction.session(), units).await?;
    let names: Vec<&QualifiedName> = units.iter().map(|unit| &unit.name).collect();
    for rule in &remedies.aside {
        let session = transaction.session();
        if !rule.is_as_read(session).await? || is_shared(session, rule, &names).await? {
            return Err(Error::busy(format!(
                "{} was changed by somebody else while the rows were loaded. Nothing was changed here",
                rule.label()
            )));
        }
    }
    if !options.run_owners_code {
        rights::refuse(&rights::of_live(transaction.session(), units).await?)?;
    }
    let oids = oids(transaction.session(), units).await?;
    keep(transaction, units, options).await?;
    let incoming = incoming(transaction.session(), &oids).await?;
    for key in &incoming {
        transaction.run("could not take a foreign key away", &key.drop).await?;
    }
    let acting = acting(transaction.session(), &oids).await?;
    for (silence, _) in &acting {
        transaction.run("could not keep a trigger from firing", silence).await?;
    }
    aside::drop(transaction, &remedies.aside).await?;
    exchange(transaction, units, &staged, progress).await?;
    let differs = aside::put_back(transaction, &remedies.aside).await?;
    for (_, give_back) in &acting {
        transaction.run("could not give a trigger its state back", give_back).await?;
    }
    for key in &incoming {
        transaction.run(&format!("could not put back {}", key.what), &key.add).await.map_err(orphans)?;
    }
    transaction
        .run("a deferred constraint is violated", "SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(orphans)?;
    advance_sequences(transaction, &oids).await?;
    progress.done();
    Ok(differs)
}

/// Rows of other tables that would have no partner any more, or the other way round.
fn orphans(error: Error) -> Error {
    if error.sqlstate() == Some("23503") {
        error.with_hint(
            "Rows of one table refer to rows that the other does not have in this state. Restore both tables together \
             (--table A --table B), or restore beside the live one and take over what fits.",
        )
    } else {
        error
    }
}

/// A temporary table with the rows of one table of the snapshot.
#[derive(Debug)]
struct Staged {
    unit: usize,
    name: QualifiedName,
    columns: Vec<Ident>,
}

async fn stage(
    transaction: &LiveTransaction,
    scratch: &Session,
    snapshot: &VerifiedSnapshot,
    units: &[Unit],
    progress: &Progress,
) -> Result<Vec<Staged>> {
    let stored = snapshot.snapshot();
    let manifest = &stored.manifest;
    let mut staged = Vec::new();
    let mut tables = Vec::new();
    progress.phase("loading rows", Some(manifest.raw_bytes()));
    for (index, unit) in units.iter().enumerate() {
        for data in Selection::data(manifest, unit) {
            let name = QualifiedName::new("pg_temp", format!("safe_run_part_{}", tables.len()));
            let columns = scratch::columns(scratch, &data.table.name).await?.unwrap_or_default();
            let stored_columns: Vec<String> = columns
                .iter()
                .filter(|column| !column.is_generated)
                .map(|column| format!("{} {}", Ident::new(&*column.name), column.kind))
                .collect();
            let statement =
                format!("CREATE TEMPORARY TABLE {name} ({}) ON COMMIT DROP", stored_columns.join(", "));
            transaction.run("could not make a temporary table", &statement).await?;
            transaction.load(stored, data, &name, None, progress).await?;
            staged.push(Staged { unit: index, name: name.clone(), columns: data.table.columns.clone() });
            // Each leaf by itself: here every row lies where it lay.
            tables.push((data, name));
        }
    }
    progress.done();
    progress.phase("comparing every row with the snapshot", Some(manifest.raw_bytes()));
    transaction.compare(stored, &tables, progress).await?;
    progress.done();
    Ok(staged)
}

/// Says who may replace content, where keys of other tables and triggers are in the way.
fn not_owned(error: Error) -> Error {
    error.with_kind(ErrorKind::Refused).with_hint(
        "Replacing content needs the owner of the tables and of those that refer to them, or a superuser.",
    )
}

/// Refuses what only an owner may do of what replacing these tables' content takes, and keys that would not come back as they are.
///
/// # Errors
/// Refused, with the tables; the catalog can't be read.
pub async fn refuse_not_owned(live: &Session, units: &[Unit]) -> Result<()> {
    // As in the run, a schema that the role may not use is a refusal.
    let refused_by_rights = |error: Error| match error.sqlstate() {
        Some("42501") => error.with_kind(ErrorKind::Refused),
        _ => error,
    };
    let oids = oids(live, units).await.map_err(refused_by_rights)?;
    let mut tables: Vec<String> =
        incoming(live, &oids).await?.iter().map(|key| key.table.to_string()).collect();
    if !acting(live, &oids).await?.is_empty() {
        tables.extend(units.iter().map(|unit| unit.name.to_string()));
    }
    let rows = live
        .query(
            "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.unnest($1::text[]) t(name)
             JOIN pg_catalog.pg_class c ON c.oid = t.name::pg_catalog.regclass
             WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') GROUP BY c.oid ORDER BY 1",
            &[&tables],
        )
        .await
        .map_err(|source| {
            refused_by_rights(Error::postgres("could not look up the tables' owners", source))
        })?;
    let foreign: Vec<String> = rows.iter().map(|row| common::ident::printable(row.get(0))).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(not_owned(Error::refused(format!("the role does not own {}", foreign.join(", ")))))
}

/// Locks the tables and those whose foreign keys point to them, all at once, with pauses between short attempts.
async fn lock(transaction: &LiveTransaction, units: &[Unit], options: &ReplaceOptions) -> Result<()> {
    let session = transaction.session();
    for attempt in 0.. {
        interrupt::check()?;
        let oids = oids(session, units).await?;
        let mut names: Vec<String> = units
            .iter()
            .map(
                |unit| {
                    if unit.is_partitioned { unit.name.to_string() } else { format!("ONLY {}", unit.name) }
                },
            )
            .collect();
        for key in incoming(session, &oids).await? {
            names.push(key.table.to_string());
        }
        names.sort();
        names.dedup();
        let statement = format!(
            "SAVEPOINT before_lock; SET LOCAL lock_timeout = {}; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; \
             SET LOCAL lock_timeout = 0; RELEASE SAVEPOINT before_lock",
            options.lock_timeout.as_millis(),
            names.join(", ")
        );
        let error = match transaction.run("could not lock the tables", &statement).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.sqlstate() == Some("42501") {
            return Err(not_owned(error));
        }
        if !error.is_retryable() || session.is_closed() {
            return Err(error);
        }
        if attempt == options.lock_retries {
            return Err(Error::busy(format!(
                "could not lock the tables in {} attempts ({error})",
                attempt + 1
            ))
            .with_hint("Let the sessions that use the tables finish, or try again in a quiet moment.")
            .with_source(error));
        }
        transaction.run("could not go back before the lock", "ROLLBACK TO SAVEPOINT before_lock").await?;
        tokio::time::sleep(Duration::from_millis(100 * u64::from(attempt.min(9) + 1))).await;
    }
    Ok(())
}

async fn oids(session: &Session, units: &[Unit]) -> Result<Vec<u32>> {
    let mut oids = Vec::new();
    for unit in units {
        let row =
            session
                .query_one(&format!("SELECT {}::pg_catalog.oid", regclass(&unit.name)), &[])
                .await
                .map_err(|source| Error::postgres(format!("could not find {}", unit.name.short()), source))?;
        oids.push(row.get(0));
    }
    Ok(oids)
}

async fn keep(transaction: &LiveTransaction, units: &[Unit], options: &ReplaceOptions) -> Result<()> {
    for (unit, kept) in units.iter().zip(&options.kept_as) {
        let Some(kept) = kept else { continue };
        let only = if unit.is_partitioned { "" } else { "ONLY " };
        let what = format!("could not keep the content of {}", unit.name.short());
        // Without grants and without what makes values: a copy of the rows, for whoever made it.
        let statement = format!(
            "CREATE TABLE {kept} (LIKE {} INCLUDING COMMENTS); INSERT INTO {kept} SELECT * FROM {only}{}",
            unit.name, unit.name
        );
        transaction.run(&what, &statement).await?;
        let note = format!("The content of {} before a restore.", unit.name);
        transaction.run(&what, &format!("COMMENT ON TABLE {kept} IS {}", literal(&note))).await?;
    }
    Ok(())
}

/// The leaves below a partitioned table: schema, name, whether it is foreign.
const LEAVES: &str = "
SELECT n.nspname::text, c.relname::text, c.relkind = 'f' FROM pg_catalog.pg_partition_tree($1::text::pg_catalog.regclass) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE t.isleaf";

/// Empties the tables, fills them, and compares what they hold then with the temporary tables.
async fn exchange(
    transaction: &LiveTransaction,
    units: &[Unit],
    staged: &[Staged],
    progress: &Progress,
) -> Result<()> {
    let targets: Vec<String> = units
        .iter()
        .map(|unit| if unit.is_partitioned { unit.name.to_string() } else { format!("ONLY {}", unit.name) })
        .collect();
    transaction.run("could not empty the tables", &format!("TRUNCATE {}", targets.join(", "))).await?;
    let list = |columns: &[Ident]| columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    for part in staged {
        let Some(unit) = units.get(part.unit) else { continue };
        let columns = list(&part.columns);
        let statement = if part.columns.is_empty() {
            format!("INSERT INTO {} SELECT FROM {}", unit.name, part.name)
        } else {
            format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {}",
                unit.name, part.name
            )
        };
        transaction
            .run(&format!("could not fill {}", unit.name.short()), &statement)
            .await
            .map_err(orphans)?;
    }
    transaction
        .run("a deferred constraint is violated", "SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(orphans)?;
    for (index, unit) in units.iter().enumerate() {
        let parts: Vec<&Staged> = staged.iter().filter(|part| part.unit == index).collect();
        let Some(first) = parts.first() else { continue };
        let columns = list(&first.columns);
        let sources: Vec<String> =
            parts.iter().map(|part| format!("SELECT {columns} FROM {}", part.name)).collect();
        let want = format!("COPY ({}) TO STDOUT", sources.join(" UNION ALL "));
        let want = copy::hash_rows(transaction.session(), &want, progress).await?;
        let have = read_back(transaction.session(), unit, &columns, progress).await?;
        if want != have {
            return Err(differs(&unit.name, want.0, have.0));
        }
    }
    Ok(())
}

/// Counts and hashes what a table of the live database holds, or all leaves of a partitioned one: by plain COPY, which runs nothing
/// that belongs to its owner.
async fn read_back(
    session: &Session,
    unit: &Unit,
    columns: &str,
    progress: &Progress,
) -> Result<(u64, RowHash)> {
    let names = if unit.is_partitioned {
        let rows = session.query(LEAVES, &[&unit.name.to_string()]).await.map_err(|source| {
            Error::postgres(format!("could not list the partitions of {}", unit.name.short()), source)
        })?;
        rows.iter().map(|row| (scratch::name(row, 0), row.get(2))).collect()
    } else {
        vec![(unit.name.clone(), false)]
    };
    let (mut all, mut hash) = (0, RowHash::default());
    for (name, is_foreign) in names {
        let statement = match (is_foreign, columns) {
            // COPY takes no foreign table, and other servers have their own rows.
            (true, _) => format!("COPY (SELECT {columns} FROM {name}) TO STDOUT"),
            (false, "") => format!("COPY {name} TO STDOUT"),
            (false, _) => format!("COPY {name} ({columns}) TO STDOUT"),
        };
        let (rows, of_rows) = copy::hash_rows(session, &statement, progress).await?;
        all += rows;
        hash.merge(of_rows);
    }
    Ok((all, hash))
}
