//! Whose code a restore of single tables would run with the rights of whoever restores, and the refusal of it.
//!
//! A restore of the whole snapshot lets the owner of a table run what it calls ([`crate::archive`], `crate::load`), in a database
//! that nobody else can connect to. Here everything is one transaction in the live database, of one session, in which code of
//! somebody else must not have run: it could leave things behind for what comes after it. So it is refused before anything.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, QualifiedName, Result,
    ident::printable,
    postgres::{
        Session,
        trust::{self, Role},
        who_asks::{Rights, Standings},
    },
    snapshot::{
        Manifest,
        toc::{Entry, Kind},
    },
};

use super::select::Unit;
use crate::{load::contained, owned};

/// What a table would run, by the table.
pub type Code = BTreeMap<String, String>;

/// Tables beside the live ones: what the entries of the archive say that come with them. `exclusions` as [`owned::find`] has them.
pub fn of_entries(entries: &[Entry], roles: &[Role], exclusions: &BTreeSet<u32>) -> Code {
    owned::tables_with_code(entries, roles, exclusions)
        .into_iter()
        .map(|found| {
            let owner = found.owner.map_or_else(String::new, |owner| belongs_to(&owner));
            (found.table, format!("{}{owner}", found.calls))
        })
        .collect()
}

/// The roles of other sessions that own the tables of a part, by table.
pub fn owners(entries: &[Entry], part: &Manifest, roles: &[Role]) -> BTreeMap<QualifiedName, String> {
    let tables = part.tables.iter().map(|data| (data.table.oid, &data.table.name));
    let tables = tables.chain(part.partitioned.iter().map(|table| (table.oid, &table.name)));
    let names: BTreeMap<u32, &QualifiedName> = tables.collect();
    let of = |entry: &Entry| {
        let name = names.get(&entry.object.1).filter(|_| entry.kind == Kind::Table)?;
        Some(((*name).clone(), owned::untrusted_owner(entry, roles)?.name.clone()))
    };
    entries.iter().filter_map(of).collect()
}

/// The tables with these names, what lies below them, and whether the table is one of those: the others have foreign keys to
/// them, which are made again.
const TABLES: &str = "
WITH RECURSIVE target(oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) u(schema, name) ON u.schema = n.nspname AND u.name = c.relname
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN target ON target.oid = i.inhparent)
SELECT oid, true FROM target
UNION SELECT k.conrelid, false FROM pg_catalog.pg_constraint k
  WHERE k.contype = 'f' AND k.confrelid IN (SELECT oid FROM target) AND k.conrelid NOT IN (SELECT oid FROM target)";

/// Tables in place: what the live ones have now.
///
/// # Errors
/// The catalog can't be read.
pub async fn of_live(session: &Session, units: &[Unit]) -> Result<Code> {
    let names: Vec<&QualifiedName> = units.iter().map(|unit| &unit.name).collect();
    of_named(session, &names, true).await
}

/// What new rows of these tables would run, but for defaults and triggers.
///
/// # Errors
/// The catalog can't be read.
pub async fn of_tables(session: &Session, names: &[&QualifiedName]) -> Result<Code> {
    of_named(session, names, false).await
}

/// `with_keys`: also what the tables with foreign keys to them have.
async fn of_named(session: &Session, names: &[&QualifiedName], with_keys: bool) -> Result<Code> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let rows = session.query(TABLES, &[&schemas, &names]).await.map_err(|source| {
        Error::postgres("could not look for the tables and the foreign keys to them", source)
    })?;
    let is_named: BTreeMap<u32, bool> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .filter(|(_, is_named)| with_keys || *is_named)
        .collect();
    let oids: Vec<u32> = is_named.keys().copied().collect();
    let called: BTreeSet<QualifiedName> = contained::find(session).await?.into_keys().collect();
    let others = Standings::read(session, BTreeSet::new()).await?;
    let mut code = Code::new();
    for standing in trust::standings(session, Some(&oids)).await? {
        let is_named = is_named.get(&standing.oid) == Some(&true);
        let found = if standing.has_our_owner {
            // What is trusted in it may run, of whatever kind it is.
            match (others.of(standing.oid), &standing.code) {
                (Rights::Nobody(_), Some(object)) => Some(printable(object)),
                (Rights::Nobody(why), None) if is_named => Some(why),
                _ => None,
            }
        } else {
            let rules =
                || (is_named && called.contains(&standing.name)).then(|| "what its rules call".to_owned());
            let found = standing.code.as_deref().map(printable).or_else(rules);
            found.map(|found| found + &belongs_to(&standing.owner))
        };
        if let Some(found) = found {
            code.insert(standing.name.short(), found);
        }
    }
    Ok(code)
}

fn belongs_to(owner: &str) -> String {
    format!(" (the table belongs to \"{}\")", printable(owner))
}

/// Refuses, if there is any.
///
/// # Errors
/// Refused, with every table and what it would run.
pub fn refuse(code: &Code) -> Result<()> {
    if code.is_empty() {
        return Ok(());
    }
    let tables: Vec<String> = code.iter().map(|(table, what)| format!("{table}: {what}")).collect();
    Err(Error::refused(format!(
        "restoring these tables would run code of others with the rights of this role: {}",
        tables.join("; ")
    ))
    .with_hint(
        "Restore them as the role that owns them (--database-url with that role, which needs CREATEDB), or into a database of their own \
         (--into NAME), where each owner's code runs as the owner. --run-owners-code runs it with the rights of this role.",
    )
    .with_database_state("No database was changed."))
}
