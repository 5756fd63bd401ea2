//! What the catalog knows of tables that decides whether a change goes through their rows. It follows the statements: what one of them
//! changes, the next one finds changed.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, Result,
    postgres::{Row, Session},
};
use sql::statement::{TableName, changes::TypeName};

use super::types::{Cast, Type, Types};

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its type's oid; nothing where a statement made it one that is not known.
    pub of: Option<u32>,
    /// The modifier of its type, -1 without.
    pub modifier: i32,
    /// No row has NULL there.
    pub is_not_null: bool,
    /// Its collation is another one than its type's.
    pub is_collated: bool,
    /// GENERATED ALWAYS AS … STORED.
    pub is_stored: bool,
}

/// A constraint but a foreign key.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// As the catalog names the sort: `c`, `n`, `f`, `p`, `u`, `x`.
    pub kind: char,
    /// Its columns.
    pub columns: Vec<String>,
    /// The rows that were there are known to hold it.
    pub is_valid: bool,
    /// Columns of which a CHECK says that they are not NULL.
    pub not_null: BTreeSet<String>,
}

/// An index.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its columns, without expressions.
    pub columns: Vec<String>,
    /// All columns that it is made of, also those in expressions and its predicate.
    pub of: Vec<String>,
    /// It has neither an expression nor a predicate.
    pub is_plain: bool,
    /// It keeps values unique.
    pub is_unique: bool,
    /// Its access method.
    pub method: String,
}

/// One table.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// As the catalog names the sort: `r`, `p`, `m` and so on.
    pub kind: char,
    /// Not UNLOGGED.
    pub is_logged: bool,
    /// Its access method; nothing for a partitioned table.
    pub method: String,
    /// Its tablespace.
    pub tablespace: String,
    /// Its columns by name.
    pub columns: BTreeMap<String, Column>,
    /// Its constraints.
    pub constraints: Vec<Known>,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// It is partitioned: by what (`l`, `r`, `h`), by which columns, the oid of the default partition, how many there are.
    pub partitioned: Option<Partitioned>,
}

/// How a table is partitioned.
#[derive(Debug, Clone)]
pub struct Partitioned {
    /// `l`, `r` or `h`.
    pub by: char,
    /// Columns of the key, without expressions.
    pub columns: Vec<String>,
    /// The default partition's oid.
    pub default: Option<u32>,
    /// How many partitions there are.
    pub count: i64,
}

impl Facts {
    /// Whether valid constraints prove that the column has no NULL.
    pub fn is_proved_not_null(&self, column: &str) -> bool {
        self.columns.get(column).is_some_and(|known| known.is_not_null)
            || self.constraints.iter().any(|known| known.is_valid && known.not_null.contains(column))
    }
}

impl Facts {
    /// A column gets another name.
    pub fn rename(&mut self, old: &str, new: &str) {
        if let Some(column) = self.columns.remove(old) {
            self.columns.insert(new.to_owned(), column);
        }
        let renamed = |name: &mut String| {
            if name == old {
                new.clone_into(name);
            }
        };
        for known in &mut self.constraints {
            known.columns.iter_mut().for_each(renamed);
            if known.not_null.remove(old) {
                known.not_null.insert(new.to_owned());
            }
        }
        self.indexes
            .iter_mut()
            .flat_map(|index| index.columns.iter_mut().chain(&mut index.of))
            .for_each(renamed);
    }
}

/// All of the tables that statements name, and of the types.
#[derive(Debug, Default)]
pub struct Catalog {
    /// By oid.
    pub tables: BTreeMap<u32, Facts>,
    /// The types and casts.
    pub types: Types,
    /// What each type name means.
    names: BTreeMap<TypeName, u32>,
    /// Whether all functions that a name can mean are volatile, or none.
    volatile: BTreeMap<TableName, (bool, bool)>,
    /// `default_table_access_method`.
    pub default_method: String,
}

const TABLES: &str = "
SELECT c.oid, c.relkind::text, c.relpersistence <> 'u', COALESCE(a.amname, '')::text,
       COALESCE(s.spcname, d.spcname)::text, p.partstrat::text, p.partdefid,
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum = ANY (p.partattrs)),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits WHERE inhparent = c.oid),
       pg_catalog.current_setting('default_table_access_method')
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
JOIN pg_catalog.pg_database b ON b.datname = pg_catalog.current_database() JOIN pg_catalog.pg_tablespace d ON d.oid = b.dattablespace
LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid WHERE c.oid = ANY ($1)";

const COLUMNS: &str = "
SELECT a.attrelid, a.attname::text, a.atttypid, a.atttypmod,
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                                    AND NOT k.convalidated AND a.attnum = ANY (k.conkey)),
       a.attcollation <> t.typcollation, a.attgenerated = 's'
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped";

/// `attname IS NOT NULL` is how the server itself writes it.
const CONSTRAINTS: &str = "
SELECT k.conrelid, k.conname::text, k.contype::text,
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey)),
       k.convalidated, CASE WHEN k.contype = 'c' THEN pg_catalog.pg_get_constraintdef(k.oid) ELSE '' END
FROM pg_catalog.pg_constraint k WHERE k.conrelid = ANY ($1)";

const INDEXES: &str = "
SELECT i.indrelid, c.relname::text,
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = i.indrelid AND attnum = ANY (i.indkey::int2[])
             ORDER BY pg_catalog.array_position(i.indkey::int2[], attnum)),
       i.indexprs IS NULL AND i.indpred IS NULL, i.indisunique, a.amname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam
WHERE i.indrelid = ANY ($1) AND i.indislive";

const TYPE_NAMES: &str = "
SELECT DISTINCT ON (a.number) a.number, t.oid
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY a(schema, name, number)
JOIN pg_catalog.pg_type t ON t.typname = a.name JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE CASE WHEN a.schema IS NULL THEN n.nspname = ANY ($3::pg_catalog.text[]) ELSE n.nspname = a.schema END
ORDER BY a.number, pg_catalog.array_position($3::pg_catalog.text[], n.nspname::pg_catalog.text)";

const TYPES: &str = "
WITH RECURSIVE asked AS (
  SELECT pg_catalog.unnest($1::pg_catalog.oid[]) AS oid
  UNION SELECT o.oid FROM asked a JOIN pg_catalog.pg_type t ON t.oid = a.oid,
    LATERAL (VALUES (t.typbasetype), (t.typelem), (t.typarray)) o(oid) WHERE o.oid <> 0)
SELECT t.oid, pg_catalog.format_type(t.oid, NULL), t.typbasetype, t.typtypmod,
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0::pg_catalog.oid END, t.typarray, t.typcategory::text,
       t.typnotnull OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contypid = t.oid)
FROM asked JOIN pg_catalog.pg_type t USING (oid)";

const CASTS: &str = "SELECT castsource, casttarget, castmethod::text FROM pg_catalog.pg_cast";

const FUNCTIONS: &str = "
SELECT a.number, pg_catalog.bool_or(p.provolatile = 'v'), pg_catalog.bool_and(p.provolatile = 'v')
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY a(schema, name, number)
JOIN pg_catalog.pg_proc p ON p.proname = a.name JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE CASE WHEN a.schema IS NULL THEN n.nspname = ANY ($3::pg_catalog.text[]) ELSE n.nspname = a.schema END GROUP BY 1";

/// What is to be read.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Tables by oid.
    pub tables: BTreeSet<u32>,
    /// Names of types.
    pub types: BTreeSet<TypeName>,
    /// Names of functions.
    pub functions: BTreeSet<TableName>,
}

impl Catalog {
    /// Reads all of it.
    pub async fn read(session: &Session, path: &[String], wanted: &Wanted) -> Result<Self> {
        let mut catalog = Self::default();
        if wanted.tables.is_empty() {
            return Ok(catalog);
        }
        let failed =
            |source| Error::postgres("could not look at the columns of the migrations' tables", source);
        let oids: Vec<u32> = wanted.tables.iter().copied().collect();
        for row in session.query(TABLES, &[&oids]).await.map_err(failed)? {
            catalog.default_method = row.get(9);
            catalog.tables.insert(row.get(0), table(&row));
        }
        for row in session.query(COLUMNS, &[&oids]).await.map_err(failed)? {
            let column = Column {
                of: Some(row.get(2)),
                modifier: row.get(3),
                is_not_null: row.get(4),
                is_collated: row.get(5),
                is_stored: row.get(6),
            };
            if let Some(table) = catalog.tables.get_mut(&row.get(0)) {
                table.columns.insert(row.get(1), column);
            }
        }
        for row in session.query(CONSTRAINTS, &[&oids]).await.map_err(failed)? {
            if let Some(table) = catalog.tables.get_mut(&row.get(0)) {
                table.constraints.push(constraint(&row));
            }
        }
        for row in session.query(INDEXES, &[&oids]).await.map_err(failed)? {
            let index = Index {
                name: row.get(1),
                of: row.get::<_, Vec<String>>(2).into_iter().chain(row.get::<_, Vec<String>>(6)).collect(),
                columns: row.get(2),
                is_plain: row.get(3),
                is_unique: row.get(4),
                method: row.get(5),
            };
            if let Some(table) = catalog.tables.get_mut(&row.get(0)) {
                table.indexes.push(index);
            }
        }
        catalog.read_types(session, path, wanted).await?;
        catalog.read_functions(session, path, wanted).await?;
        Ok(catalog)
    }

    async fn read_types(&mut self, session: &Session, path: &[String], wanted: &Wanted) -> Result<()> {
        let failed = |source| Error::postgres("could not look for the types of the migrations", source);
        let names: Vec<&TypeName> = wanted.types.iter().collect();
        let schemas: Vec<Option<&str>> = names.iter().map(|of| of.name.schema.as_deref()).collect();
        let plain: Vec<&str> = names.iter().map(|of| of.name.name.as_str()).collect();
        for row in session.query(TYPE_NAMES, &[&schemas, &plain, &path]).await.map_err(failed)? {
            if let Some(name) = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|at| names.get(at)) {
                self.names.insert((*name).clone(), row.get(1));
            }
        }
        let columns = self.tables.values().flat_map(|table| table.columns.values());
        let asked: BTreeSet<u32> =
            columns.filter_map(|column| column.of).chain(self.names.values().copied()).collect();
        let asked: Vec<u32> = asked.into_iter().collect();
        for row in session.query(TYPES, &[&asked]).await.map_err(failed)? {
            let some = |oid: u32| (oid != 0).then_some(oid);
            let of = Type {
                name: row.get(1),
                base: some(row.get(2)).map(|base| (base, row.get(3))),
                element: some(row.get(4)),
                array: some(row.get(5)),
                is_string: letter(&row, 6) == 'S',
                is_constrained: row.get(7),
            };
            self.types.all.insert(row.get(0), of);
        }
        for row in session.query(CASTS, &[]).await.map_err(failed)? {
            let how = match letter(&row, 2) {
                'b' => Cast::Relabelled,
                _ => Cast::Computed,
            };
            self.types.casts.insert((row.get(0), row.get(1)), how);
        }
        Ok(())
    }

    async fn read_functions(&mut self, session: &Session, path: &[String], wanted: &Wanted) -> Result<()> {
        let failed = |source| Error::postgres("could not look for the functions of defaults", source);
        let names: Vec<&TableName> = wanted.functions.iter().collect();
        let schemas: Vec<Option<&str>> = names.iter().map(|name| name.schema.as_deref()).collect();
        let plain: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
        for row in session.query(FUNCTIONS, &[&schemas, &plain, &path]).await.map_err(failed)? {
            if let Some(name) = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|at| names.get(at)) {
                self.volatile.insert((*name).clone(), (row.get(1), row.get(2)));
            }
        }
        Ok(())
    }

    /// The type that a name means: its oid, and its modifier where that is known.
    pub fn type_of(&self, name: &TypeName) -> Option<(u32, Option<i32>)> {
        let oid = *self.names.get(name)?;
        let modifier = super::types::modifier(oid, &name.modifiers);
        match name.is_array {
            true => Some((self.types.all.get(&oid)?.array?, modifier)),
            false => Some((oid, modifier)),
        }
    }

    /// Whether an expression that calls these is volatile; nothing where it can't be told.
    pub fn is_volatile(&self, called: &[TableName]) -> Option<bool> {
        let each: Vec<Option<(bool, bool)>> =
            called.iter().map(|name| self.volatile.get(name).copied()).collect();
        if each.iter().flatten().any(|(_, all)| *all) {
            return Some(true);
        }
        // What is no function by its name is a word of SQL (COALESCE) or a type.
        each.iter().flatten().all(|(any, _)| !any).then_some(false)
    }
}

fn letter(row: &Row, at: usize) -> char {
    row.get::<_, Option<&str>>(at).and_then(|text| text.chars().next()).unwrap_or(' ')
}

fn table(row: &Row) -> Facts {
    let partitioned = row.get::<_, Option<&str>>(5).map(|by| Partitioned {
        by: by.chars().next().unwrap_or(' '),
        columns: row.get(7),
        default: row.get::<_, Option<u32>>(6).filter(|oid| *oid != 0),
        count: row.get(8),
    });
    Facts {
        kind: letter(row, 1),
        is_logged: row.get(2),
        method: row.get(3),
        tablespace: row.get(4),
        partitioned,
        ..Facts::default()
    }
}

fn constraint(row: &Row) -> Known {
    let columns: Vec<String> = row.get(3);
    let text: &str = row.get(5);
    let not_null = columns.iter().filter(|column| says_not_null(text, column)).cloned().collect();
    Known { name: row.get(1), kind: letter(row, 2), columns, is_valid: row.get(4), not_null }
}

/// Whether a CHECK says that a column is not NULL: its expression is that, or that AND something.
pub fn says_not_null(check: &str, column: &str) -> bool {
    let lower = check.to_ascii_lowercase();
    if lower.contains(" or ") || lower.contains("not (") || lower.contains("case ") {
        return false;
    }
    let plain = column.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let quoted = common::Ident::new(column).to_string();
    let part = |name: &str| {
        let wanted = format!("{name} is not null");
        lower.match_indices(&wanted).any(|(at, _)| {
            let before = lower[..at].chars().next_back().unwrap_or('(');
            before == '(' || before.is_whitespace()
        })
    };
    part(&quoted.to_ascii_lowercase()) || plain && part(column)
}
