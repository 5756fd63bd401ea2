//! Reads the schema: what PRAGMAs tell from them, the rest from the statements that made the tables.

use std::collections::HashSet;

use rusqlite::Connection;

use super::{
    Affinity, Column, ForeignKey, Generated, Index, IndexPart, LeftOut, Schema, Table, Trigger, Unique, View,
    declared::{Declared, index_parts},
};
use crate::{
    error::{ReadError, Result},
    file::Reader,
    sql,
};

/// Reads the schema of the main database as `reader` sees it.
///
/// # Errors
/// [`ReadError::Sqlite`] where SQLite itself can't read it, [`ReadError::Damaged`] where it is malformed.
pub fn read(reader: &Reader) -> Result<Schema> {
    let connection = reader.connection();
    let failed = |error| reader.failure("read the schema", error);
    let entries = entries(connection).map_err(failed)?;
    let kinds = kinds(connection).map_err(failed)?;
    let mut schema = Schema {
        encoding: reader.encoding(),
        user_version: connection.query_row("pragma user_version", [], |row| row.get(0)).map_err(failed)?,
        tables: Vec::new(),
        views: Vec::new(),
        triggers: Vec::new(),
        left_out: Vec::new(),
    };
    for entry in &entries {
        let (name, sql) = (entry.name.clone(), entry.sql.clone());
        match entry.kind.as_str() {
            "table" if entry.name.to_ascii_lowercase().starts_with("sqlite_") => {}
            "table" => match kinds.iter().find(|kind| kind.name == entry.name) {
                Some(kind) if kind.kind == "virtual" => {
                    schema.left_out.push(LeftOut {
                        name,
                        reason: virtual_reason(&sql),
                        is_virtual: true,
                        sql,
                    });
                }
                Some(kind) if kind.kind == "shadow" => {
                    let reason = "a shadow table, in which a virtual table keeps its content".to_owned();
                    schema.left_out.push(LeftOut { name, reason, is_virtual: false, sql });
                }
                Some(kind) => schema.tables.push(table(connection, entry, kind, &entries).map_err(failed)?),
                None => {
                    return Err(ReadError::Sqlite(
                        format!("read the table {}", common::ident::printable(&entry.name)),
                        rusqlite::Error::QueryReturnedNoRows,
                    ));
                }
            },
            "view" => schema.views.push(View { name, sql }),
            "trigger" => schema.triggers.push(Trigger { name, table: entry.table.clone(), sql }),
            _ => {}
        }
    }
    leave_out_orphaned_shadows(&mut schema, &modules(connection).map_err(failed)?);
    Ok(schema)
}

/// One row of `sqlite_schema`.
struct Entry {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

fn entries(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let sql = "select type, name, tbl_name, coalesce(sql, '') from main.sqlite_schema order by rowid";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Entry { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    rows.collect()
}

/// What `PRAGMA table_list` says of a table.
struct Kind {
    name: String,
    kind: String,
    is_without_rowid: bool,
    is_strict: bool,
}

fn kinds(connection: &Connection) -> rusqlite::Result<Vec<Kind>> {
    let mut statement =
        connection.prepare("select name, type, wr, strict from pragma_table_list where schema = 'main'")?;
    let rows = statement.query_map([], |row| {
        Ok(Kind {
            name: row.get(0)?,
            kind: row.get(1)?,
            is_without_rowid: row.get(2)?,
            is_strict: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// The modules of virtual tables that SQLite knows, in small letters.
fn modules(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare("select lower(name) from pragma_module_list")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn virtual_reason(sql: &str) -> String {
    format!("a virtual table of the module {}", common::ident::printable(&module_of(sql)))
}

/// The module that a CREATE VIRTUAL TABLE names.
fn module_of(sql: &str) -> String {
    sql.to_ascii_lowercase()
        .find(" using ")
        .map(|at| sql[at + 7..].trim_start())
        .and_then(|rest| rest.split(|c: char| c == '(' || c.is_whitespace()).next())
        .unwrap_or_default()
        .to_owned()
}

/// SQLite knows a shadow table only if it knows the module. Of any other module they are known by their endings, which are those
/// of FTS and R*Tree.
fn leave_out_orphaned_shadows(schema: &mut Schema, known: &HashSet<String>) {
    const ENDINGS: [&str; 13] = [
        "_content",
        "_data",
        "_idx",
        "_docsize",
        "_config",
        "_segments",
        "_segdir",
        "_stat",
        "_node",
        "_rowid",
        "_parent",
        "_chunks",
        "_info",
    ];
    let virtual_names: Vec<String> = schema
        .left_out
        .iter()
        .filter(|left| left.is_virtual)
        .filter(|left| !known.contains(&sql::unquoted(&module_of(&left.sql)).to_ascii_lowercase()))
        .map(|left| left.name.to_ascii_lowercase())
        .collect();
    let is_shadow = |name: &str| {
        let lower = name.to_ascii_lowercase();
        ENDINGS.iter().any(|ending| {
            lower.strip_suffix(ending).is_some_and(|base| virtual_names.iter().any(|name| name == base))
        })
    };
    let (shadows, tables) =
        std::mem::take(&mut schema.tables).into_iter().partition(|table| is_shadow(&table.name));
    schema.tables = tables;
    let shadows: Vec<Table> = shadows;
    schema.left_out.extend(shadows.into_iter().map(|table| LeftOut {
        reason: "named like a shadow table, in which a virtual table keeps its content".to_owned(),
        is_virtual: false,
        name: table.name,
        sql: table.sql,
    }));
}

fn table(connection: &Connection, entry: &Entry, kind: &Kind, entries: &[Entry]) -> rusqlite::Result<Table> {
    let declared = Declared::parse(&entry.sql);
    let (columns, primary_key) = columns(connection, entry, kind, &declared)?;
    let number = |name: &str| columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    let mut made = Table {
        name: entry.name.clone(),
        is_strict: kind.is_strict,
        is_without_rowid: kind.is_without_rowid,
        rowid_column: None,
        rowid_name: ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|name| number(name).is_none())
            .filter(|_| !kind.is_without_rowid),
        autoincrement: None,
        uniques: Vec::new(),
        checks: declared.checks.clone(),
        foreign_keys: foreign_keys(connection, entry, &declared, &number)?,
        indexes: Vec::new(),
        sql: entry.sql.clone(),
        unparsed: declared.unparsed.clone(),
        primary_key,
        columns,
    };
    indexes(connection, &mut made, &declared, entries)?;
    let has_key_index = connection
        .prepare("select 1 from pragma_index_list(?1, 'main') where origin = 'pk'")?
        .exists([&entry.name])?;
    // INTEGER PRIMARY KEY has no index of its own; any other key has one.
    if let [only] = made.primary_key[..]
        && !kind.is_without_rowid
        && !has_key_index
    {
        made.rowid_column = Some(only);
        made.columns[only].is_not_null = true;
    }
    if declared.is_autoincrement && made.rowid_column.is_some() {
        let counter = "select max(seq) from main.sqlite_sequence where name = ?1 collate nocase and typeof(seq) = 'integer'";
        made.autoincrement = Some(
            connection.query_row(counter, [&entry.name], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0),
        );
    }
    Ok(made)
}

fn columns(
    connection: &Connection,
    entry: &Entry,
    kind: &Kind,
    declared: &Declared,
) -> rusqlite::Result<(Vec<Column>, Vec<usize>)> {
    let sql = "select name, type, \"notnull\", dflt_value, pk, hidden from pragma_table_xinfo(?1, 'main') order by cid";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([&entry.name])?;
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (name, declared_type): (String, String) = (row.get(0)?, row.get(1)?);
        let hidden: i64 = row.get(5)?;
        if hidden == 1 {
            continue;
        }
        let position: i64 = row.get(4)?;
        if position > 0 {
            key.push((position, columns.len()));
        }
        let said = declared.column(&name);
        let generated = (hidden > 1).then(|| Generated {
            expression: said.and_then(|said| said.generated.clone()).unwrap_or_default(),
            is_stored: hidden == 3,
        });
        let is_any = kind.is_strict && declared_type.eq_ignore_ascii_case("any");
        columns.push(Column {
            affinity: if is_any { Affinity::Blob } else { Affinity::of(&declared_type) },
            is_not_null: row.get(2)?,
            default: row.get(3)?,
            collation: said.and_then(|said| said.collation.clone()).filter(|name| !is_binary(name)),
            generated,
            name,
            declared_type,
        });
    }
    key.sort_unstable();
    Ok((columns, key.into_iter().map(|(_, column)| column).collect()))
}

fn is_binary(collation: &str) -> bool {
    collation.eq_ignore_ascii_case("binary")
}

fn foreign_keys(
    connection: &Connection,
    entry: &Entry,
    declared: &Declared,
    number: &dyn Fn(&str) -> Option<usize>,
) -> rusqlite::Result<Vec<ForeignKey>> {
    let sql = "select id, \"table\", \"from\", \"to\", on_update, on_delete from pragma_foreign_key_list(?1, 'main') \
               order by id, seq";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([&entry.name])?;
    let mut keys: Vec<ForeignKey> = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, from, to): (i64, String, Option<String>) = (row.get(0)?, row.get(2)?, row.get(3)?);
        if keys.last().is_none_or(|key| key.id != id) {
            keys.push(ForeignKey {
                id,
                name: None,
                columns: Vec::new(),
                parent: row.get(1)?,
                parent_columns: Vec::new(),
                on_update: row.get(4)?,
                on_delete: row.get(5)?,
                is_deferred: false,
            });
        }
        if let Some(key) = keys.last_mut() {
            key.columns.extend(number(&from));
            key.parent_columns.extend(to);
        }
    }
    // SQLite numbers them from the last declared to the first.
    keys.reverse();
    for (key, said) in keys.iter_mut().zip(&declared.foreign_keys) {
        key.name.clone_from(&said.name);
        key.is_deferred = said.is_deferred;
    }
    Ok(keys)
}

fn indexes(
    connection: &Connection,
    table: &mut Table,
    declared: &Declared,
    entries: &[Entry],
) -> rusqlite::Result<()> {
    let sql = "select name, \"unique\", origin from pragma_index_list(?1, 'main') order by seq desc";
    let mut statement = connection.prepare(sql)?;
    let listed: Vec<(String, bool, String)> = statement
        .query_map([&table.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut seen = HashSet::new();
    for (name, is_unique, origin) in listed {
        let parts = index_columns(connection, &name)?;
        match origin.as_str() {
            "u" => {
                let columns: Vec<usize> = parts.iter().filter_map(|part| part.column).collect();
                let collations: Vec<Option<String>> =
                    parts.iter().map(|part| part.collation.clone()).collect();
                if seen.insert((columns.clone(), collations.clone())) {
                    let name = declared.unique_name(table, &columns);
                    table.uniques.push(Unique { name, columns, collations });
                }
            }
            "c" => {
                let sql = entries.iter().find(|e| e.kind == "index" && e.name == name).map_or("", |e| &e.sql);
                let (parts, predicate) = index_parts(sql, parts);
                table.indexes.push(Index { name, is_unique, parts, predicate, sql: sql.to_owned() });
            }
            _ => {}
        }
    }
    Ok(())
}

fn index_columns(connection: &Connection, index: &str) -> rusqlite::Result<Vec<IndexPart>> {
    let mut statement = connection.prepare(
        "select cid, coll, \"desc\" from pragma_index_xinfo(?1, 'main') where key = 1 order by seqno",
    )?;
    let rows = statement.query_map([index], |row| {
        let collation: Option<String> = row.get(1)?;
        Ok(IndexPart {
            expression: None,
            column: usize::try_from(row.get::<_, i64>(0)?).ok(),
            collation: collation.filter(|name| !is_binary(name)),
            is_descending: row.get(2)?,
        })
    })?;
    rows.collect()
}
