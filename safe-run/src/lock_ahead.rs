//! Takes the locks that the statements will need before the first of them runs, in one order for everybody.
//!
//! So a lock that can't be had is found out before any work is done, two runs can't deadlock with each other, and no
//! statement holds one table while it waits for the next: all waits together are one `lock_timeout`. What is not known
//! here is taken by the statement itself. It must never lock a table that the statements do not lock.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::{Error, Ident, Result, postgres::Session};

use sql::statement::{Effect, Statement, StatementKind, TableName, Target, locks::LockMode};

/// The tables behind names, as the session's search_path resolves them; of an index its table. Only what LOCK TABLE takes,
/// and only where the role may lock it: a migration may change its role first.
const RESOLVE: &str = "
SELECT wanted.number, t.oid, n.nspname::pg_catalog.text, t.relname::pg_catalog.text
FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY wanted (name, number)
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(wanted.name)
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) COALESCE(i.indrelid, c.oid)
  AND t.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[])
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.relnamespace
WHERE pg_catalog.has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND t.relpersistence OPERATOR(pg_catalog.<>) 't'";

/// What the statements lock, by name, each with its strongest mode. Pure.
///
/// Unqualified names are left out as soon as a statement changes the search_path: they could mean another table.
pub fn wanted<'s>(statements: impl IntoIterator<Item = &'s Statement>) -> BTreeMap<TableName, LockMode> {
    let mut found: BTreeMap<TableName, LockMode> = BTreeMap::new();
    let mut path_moves = false;
    let mut made: Vec<TableName> = Vec::new();
    for statement in statements {
        let class = &statement.class;
        let text = statement.text.to_ascii_lowercase();
        path_moves |= class.kind == StatementKind::Set && text.contains("search_path")
            || text.contains("set_config")
            || class.kind == StatementKind::Set && (text.contains("role") || text.contains("authorization"));
        let written = class.effects.iter().filter(|effect| {
            matches!(effect.effect, Effect::Insert | Effect::Update | Effect::Delete)
                || class.kind == StatementKind::Merge
        });
        let written = written.filter_map(|effect| match &effect.target {
            Target::Table(table) => Some((table.clone(), LockMode::RowExclusive)),
            Target::Schema(_) | Target::Everything => None,
        });
        let named = class.locks.iter().map(|lock| (lock.table.clone(), lock.mode));
        for (table, mode) in written.chain(named) {
            // A name that this run gives away means something else by now.
            if made.contains(&table) {
                continue;
            }
            let strongest = found.entry(table).or_insert(mode);
            *strongest = (*strongest).max(mode);
        }
        made.extend(class.creates.iter().cloned());
        made.extend(class.renames.iter().map(|(_, new)| new.clone()));
    }
    found.retain(|table, _| !path_moves || table.schema.is_some());
    found
}

/// Locks the tables of `wanted` that need more than `held`, by ascending oid, within `limit` for all of them. Returns the
/// tables behind the names.
///
/// # Errors
/// 55P03 with the table's name.
pub async fn take(
    session: &Session,
    wanted: &BTreeMap<TableName, LockMode>,
    held: Option<LockMode>,
    limit: Duration,
) -> Result<BTreeMap<TableName, u32>> {
    let stronger: Vec<(&TableName, LockMode)> =
        wanted.iter().map(|(table, mode)| (table, *mode)).filter(|(_, mode)| Some(*mode) > held).collect();
    if stronger.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<String> = stronger.iter().map(|(table, _)| written(table)).collect();
    let rows = session
        .query(RESOLVE, &[&names])
        .await
        .map_err(|source| Error::postgres("could not look up the tables to lock", source))?;
    let mut tables: BTreeMap<u32, (String, LockMode)> = BTreeMap::new();
    let mut resolved = BTreeMap::new();
    for row in &rows {
        let (number, oid, schema, table): (i64, u32, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        let Some((named, mode)) = stronger.get(index) else { continue };
        resolved.insert((*named).clone(), oid);
        let name = format!("{}.{}", Ident::new(schema), Ident::new(table));
        let entry = tables.entry(oid).or_insert((name, *mode));
        entry.1 = entry.1.max(*mode);
    }
    let started = Instant::now();
    for (name, mode) in tables.values() {
        // Who waits for a table keeps the tables that it has: the time for all is the time of one.
        let left = limit.saturating_sub(started.elapsed()).as_millis().max(1);
        let sql = format!("SET LOCAL lock_timeout = {left}; LOCK TABLE {name} IN {} MODE", mode.sql());
        session
            .batch_execute(&sql)
            .await
            .map_err(|source| Error::postgres(format!("could not lock {name} ({})", mode.sql()), source))?;
    }
    Ok(resolved)
}

/// As `to_regclass` reads it.
pub fn written(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", Ident::new(schema.as_str()), Ident::new(table.name.as_str())),
        None => Ident::new(table.name.as_str()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sql: &str) -> Vec<String> {
        let statements = sql::statement::split(sql).unwrap();
        wanted(&statements)
            .iter()
            .map(|(table, mode)| format!("{table} {}", mode.sql().to_lowercase()))
            .collect()
    }

    #[test]
    fn each_table_is_wanted_once_with_its_strongest_mode() {
        assert_eq!(
            named(
                "update a set i = 1; alter table a add c int; insert into s.b select * from c; create index on a (i)"
            ),
            ["a access exclusive", "s.b row exclusive"]
        );
    }

    #[test]
    fn names_that_mean_something_new_are_left_to_the_statements() {
        assert_eq!(
            named("create table n as select 1; truncate n; alter table o rename to p; drop table p"),
            ["o access exclusive"]
        );
        assert_eq!(named("set search_path = x; drop table a, s.b"), ["s.b access exclusive"]);
    }
}
