//! The tables that statements name, as the catalog knows them.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, QualifiedName, Result,
    postgres::{Row, Session, SessionProfile},
};
use sql::statement::{TableName, locks::Removed};

/// A table that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// Rows of it and its partitions or children, as the last ANALYZE and the statistics know them; nothing if neither does.
    pub rows: Option<u64>,
    /// Bytes of their heaps, as the last ANALYZE knew them.
    pub bytes: u64,
    /// It is no view and no foreign table.
    pub has_rows_of_its_own: bool,
    /// It has a valid CHECK, which may prove the bounds of a partition.
    pub may_prove_bounds: bool,
}

/// A foreign key.
#[derive(Debug)]
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// The table that has it.
    pub from: Table,
    /// The table that it refers to.
    pub to: Table,
    /// Columns of `from` and of `to`.
    pub columns: [Vec<String>; 2],
}

/// The tables of one look.
#[derive(Debug, Default)]
pub struct Known {
    by_name: BTreeMap<TableName, Table>,
    all: Vec<Table>,
    keys: Vec<ForeignKey>,
    defaults: BTreeMap<u32, Table>,
}

/// All foreign keys but those that partitions have from their tables.
const KEYS: &str = "
SELECT k.conname::text, f.nspname::text, a.relname::text, t.nspname::text, b.relname::text,
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey)),
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = k.confrelid AND attnum = ANY (k.confkey)),
       GREATEST(a.reltuples, pg_catalog.pg_stat_get_live_tuples(a.oid))::bigint, a.relpages * pg_catalog.current_setting('block_size')::bigint,
       GREATEST(b.reltuples, pg_catalog.pg_stat_get_live_tuples(b.oid))::bigint, b.relpages * pg_catalog.current_setting('block_size')::bigint, a.oid, b.oid
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class a ON a.oid = k.conrelid JOIN pg_catalog.pg_namespace f ON f.oid = a.relnamespace
JOIN pg_catalog.pg_class b ON b.oid = k.confrelid JOIN pg_catalog.pg_namespace t ON t.oid = b.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY 2, 3, 1";

/// Each asked name, by number, and the table that it means; all tables with NULL. Nothing is opened or locked: sizes are the catalog's.
const TABLES: &str = "
WITH RECURSIVE found AS (
  SELECT DISTINCT ON (a.number) a.number, COALESCE(i.indrelid, c.oid) AS oid
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY a(schema, name, number)
  JOIN pg_catalog.pg_class c ON c.relname = a.name
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  WHERE CASE WHEN a.schema IS NULL THEN n.nspname = ANY ($3::pg_catalog.text[]) ELSE n.nspname = a.schema END
  ORDER BY a.number, pg_catalog.array_position($3::pg_catalog.text[], n.nspname::pg_catalog.text)),
wanted AS (
  SELECT number, oid, false AS is_default FROM found
  UNION ALL SELECT NULL, p.partdefid, true FROM found f JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = f.oid AND p.partdefid <> 0
  UNION ALL SELECT NULL, c.oid, false FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY ($4::pg_catalog.text[])),
tree AS (
  SELECT w.number, w.oid AS top, w.oid, w.is_default FROM wanted w
  UNION SELECT t.number, t.top, i.inhrelid, t.is_default FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid)
SELECT t.number, n.nspname::text, c.relname::text, c.relkind IN ('r', 'p') AS is_table,
       s.rows, s.pages * pg_catalog.current_setting('block_size')::bigint AS bytes, c.oid,
       EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated), t.is_default
FROM (SELECT t.number, t.top, t.is_default,
             CASE WHEN pg_catalog.bool_and(m.relkind = 'p' OR m.reltuples >= 0 OR pg_catalog.pg_stat_get_live_tuples(m.oid) > 0)
               THEN pg_catalog.sum(CASE WHEN m.relkind <> 'p' THEN GREATEST(m.reltuples::bigint, pg_catalog.pg_stat_get_live_tuples(m.oid)) ELSE 0 END)::bigint
             END AS rows,
             pg_catalog.sum(m.relpages)::bigint AS pages
      FROM tree t JOIN pg_catalog.pg_class m ON m.oid = t.oid GROUP BY 1, 2, 3) s
JOIN tree t ON t.top = s.top AND t.oid = s.top AND t.number IS NOT DISTINCT FROM s.number AND t.is_default = s.is_default
JOIN pg_catalog.pg_class c ON c.oid = s.top JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY 2, 3";

impl Known {
    /// Reads the tables of these names, and all of these schemas. A name without a schema is looked for along `path`.
    pub async fn read(
        session: &Session,
        path: &[String],
        names: BTreeSet<TableName>,
        schemas: &[&str],
    ) -> Result<Self> {
        let names: Vec<TableName> = names.into_iter().collect();
        let asked_schemas: Vec<Option<&str>> = names.iter().map(|name| name.schema.as_deref()).collect();
        let asked_names: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
        let rows = session
            .query(TABLES, &[&asked_schemas, &asked_names, &path, &schemas])
            .await
            .map_err(|source| Error::postgres("could not look for the tables of the migrations", source))?;
        let keys = session.query(KEYS, &[]).await;
        let keys = keys.map_err(|source| Error::postgres("could not look for foreign keys", source))?;
        let mut known = Self { keys: keys.iter().map(key).collect(), ..Self::default() };
        for row in &rows {
            let rows: Option<i64> = row.get(4);
            let table = Table {
                oid: row.get(6),
                may_prove_bounds: row.get(7),
                name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
                rows: rows.map(i64::unsigned_abs),
                bytes: row.get::<_, i64>(5).unsigned_abs(),
                has_rows_of_its_own: row.get(3),
            };
            match row.get::<_, Option<i64>>(0).and_then(|number| usize::try_from(number - 1).ok()) {
                Some(number) => drop(known.by_name.insert(names[number].clone(), table)),
                None if row.get(8) => drop(known.defaults.insert(table.oid, table)),
                None => known.all.push(table),
            }
        }
        Ok(known)
    }

    /// The table that a name means.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.by_name.get(name)
    }

    /// The tables at the other ends of the foreign keys that go with `removed` of this table: they are locked as it is.
    pub fn other_ends(&self, table: &Table, removed: &Removed) -> impl Iterator<Item = &Table> {
        self.keys.iter().flat_map(move |key| {
            let (from, to) = (key.from.name == table.name, key.to.name == table.name);
            let [mine, theirs] = &key.columns;
            let goes = |is_here: bool, columns: &[String]| {
                is_here
                    && match removed {
                        Removed::Table => true,
                        Removed::Constraint(name) => from && key.name == *name,
                        Removed::Column(name) => columns.contains(name),
                    }
            };
            let far = goes(from, mine).then_some(&key.to);
            let near = goes(to, theirs).then_some(&key.from);
            far.into_iter().chain(near)
        })
    }

    /// The foreign keys of which a column is a part, at either end.
    pub fn keys_of(&self, table: &Table, column: &str) -> impl Iterator<Item = &ForeignKey> {
        let is = move |end: &Table, columns: &[String]| {
            end.oid == table.oid && columns.iter().any(|name| name == column)
        };
        self.keys.iter().filter(move |key| is(&key.from, &key.columns[0]) || is(&key.to, &key.columns[1]))
    }

    /// The default partition of a table that was asked for.
    pub fn default_partition(&self, oid: u32) -> Option<&Table> {
        self.defaults.get(&oid)
    }

    /// Those of a schema.
    pub fn of_schema(&self, schema: &str) -> impl Iterator<Item = &Table> {
        self.all.iter().filter(move |table| table.name.schema.as_str() == schema)
    }
}

fn key(row: &Row) -> ForeignKey {
    let end = |at: usize, facts: usize, oid: usize| Table {
        oid: row.get(oid),
        may_prove_bounds: false,
        name: QualifiedName::new(row.get::<_, String>(at), row.get::<_, String>(at + 1)),
        rows: u64::try_from(row.get::<_, i64>(facts)).ok(),
        bytes: row.get::<_, i64>(facts + 1).unsigned_abs(),
        has_rows_of_its_own: true,
    };
    ForeignKey { name: row.get(0), from: end(1, 7, 11), to: end(3, 9, 12), columns: [row.get(5), row.get(6)] }
}

/// How the sessions of migrations see the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The schemas in which they look for names, in their order.
    pub path: Vec<String>,
    /// Their time zone is UTC.
    pub is_utc: bool,
}

/// What a session of migrations sees.
///
/// # Errors
/// The server can't be asked.
pub async fn sight(session: &Session) -> Result<Sight> {
    const ASKED: &str = "SELECT pg_catalog.current_schemas(true)::pg_catalog.text[],
        pg_catalog.lower(pg_catalog.current_setting('TimeZone')) = ANY ('{utc,gmt,etc/utc,etc/gmt,uct,zulu,universal,greenwich,gmt0}')";
    let failed = |source| Error::postgres("could not read the search path of the migrations", source);
    let theirs = session.settings().connect_as(SessionProfile::Migration, None).await?;
    let row = theirs.query_one(ASKED, &[]).await.map_err(failed)?;
    let sight = Sight { path: row.get(0), is_utc: row.get(1) };
    theirs.close().await?;
    Ok(sight)
}
