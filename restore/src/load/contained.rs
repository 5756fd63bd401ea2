//! Rows whose own rules would run somebody's code with our rights. COPY FROM evaluates CHECK constraints, those of domains,
//! generated columns and the keys of partitioned tables as whoever loads, who is mostly a superuser; the owner of the table has
//! written them.
//!
//! Such a table is loaded in two steps: COPY into a temporary table without rules, of types whose input is PostgreSQL's or an
//! extension's own, and from there an INSERT that the owner of the table runs, through [`AsOwner`], with no way back to our
//! rights. A session does that for one chunk and is closed then. What arrives is compared with the snapshot like any other row.
//!
//! Only tables of roles that are not ours (see `common::postgres::trust`), and of those only where a rule calls what is not
//! known to be harmless: `CHECK (price > 0)` and `CHECK (made <= now())` are loaded as ever.

use std::collections::HashMap;

use common::{
    Error, Ident, Progress, QualifiedName, Result,
    catalog::Table,
    postgres::{
        ConnectionSettings, Session, SimpleQueryMessage,
        as_owner::{self, AsOwner, OWN_PATH},
        expressions, trust,
    },
    repository::StoredSnapshot,
    snapshot::{
        copy_sql::copy_in_statement,
        manifest::{Chunk, TableData},
    },
};

use crate::{copy_in, rule_settings};

/// The columns of tables of others with a rule that calls code. One row for each column that COPY names: schema, table, oid and
/// name of the role that inserts, column, type in the temporary table, the type to give back, where that is another, and schema and name of
/// the table that is inserted into.
///
/// That role is the table's owner, and that table the table itself. A partition whose tree belongs to another role, and where code is called by
/// nothing but that role's keys and what that role's CHECK constraints above hand down, gets its rows from that role,
/// through the highest such table: who owns the partition has not written them.
///
/// The functions are read from the trees of the rules ([`common::postgres::expressions`]). Of PostgreSQL's own all count that are not
/// immutable, but for those that are known to be harmless; and what compares or converts values by what their types say. A GiST
/// index asks a range's own function where to put it.
fn tables() -> String {
    format!(
        r"
WITH RECURSIVE trusted AS MATERIALIZED ({trusted}),
others AS MATERIALIZED (
  SELECT c.oid AS rel, n.nspname, c.relname, c.relowner FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relowner NOT IN (SELECT oid FROM trusted)),
-- `key`: the table above whose key it is, or which hands it down, if that belongs to yet another role.
items(rel, key, tree, type) AS (
  SELECT o.rel, 0::pg_catalog.oid, NULL::text, a.atttypid FROM others o JOIN pg_catalog.pg_attribute a ON a.attrelid = o.rel
   WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
  UNION ALL SELECT o.rel, COALESCE((
      SELECT CASE WHEN c.relowner IN (SELECT oid FROM trusted UNION ALL SELECT o.relowner) THEN 0::pg_catalog.oid ELSE c.oid END
      FROM pg_catalog.pg_partition_ancestors(o.rel) WITH ORDINALITY a(rel, height) JOIN pg_catalog.pg_class c ON c.oid = a.rel
      JOIN pg_catalog.pg_constraint h ON h.conrelid = a.rel AND h.contype = 'c' AND h.conname = k.conname
      WHERE k.coninhcount > 0 AND a.rel <> o.rel ORDER BY a.height DESC LIMIT 1), 0), k.conbin::text, 0
    FROM others o JOIN pg_catalog.pg_constraint k ON k.conrelid = o.rel AND k.contype = 'c'
  UNION ALL SELECT o.rel, 0, f.adbin::text, 0 FROM others o JOIN pg_catalog.pg_attrdef f ON f.adrelid = o.rel
    JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> ''
  UNION ALL SELECT o.rel, CASE WHEN c.relowner IN (SELECT oid FROM trusted UNION ALL SELECT o.relowner) THEN 0 ELSE c.oid END,
      p.partexprs::text, 0
    FROM others o, pg_catalog.pg_partition_ancestors(o.rel) r
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = r JOIN pg_catalog.pg_class c ON c.oid = r WHERE p.partexprs IS NOT NULL
  UNION SELECT i.rel, i.key, n.tree, n.type FROM items i, LATERAL {with_it} n(tree, type, origin)),
called(rel, key, kind, oid) AS (
  SELECT DISTINCT i.rel, i.key, m[1], m[2]::pg_catalog.oid FROM items i,
         pg_catalog.regexp_matches(i.tree, ':(funcid|opfuncid|opno) (\d+)', 'g') m),
functions(rel, key, oid) AS (
  SELECT rel, key, oid FROM called WHERE kind <> 'opno'
  UNION SELECT c.rel, c.key, o.oprcode::pg_catalog.oid FROM called c JOIN pg_catalog.pg_operator o ON c.kind = 'opno' AND o.oid = c.oid
  UNION SELECT i.rel, i.key, r.rngsubdiff::pg_catalog.oid FROM items i JOIN pg_catalog.pg_range r ON i.type IN (r.rngtypid, r.rngmultitypid)
    WHERE EXISTS (SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
                  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'gist' WHERE x.indrelid = i.rel)),
code(rel, key) AS (
  SELECT f.rel, f.key FROM functions f JOIN pg_catalog.pg_proc p ON p.oid = f.oid
   WHERE p.provolatile <> 'i' AND NOT (p.oid < 16384 AND p.proname IN ({harmless}))
      OR p.oid >= 16384 AND p.proowner NOT IN (SELECT oid FROM trusted)
  UNION SELECT i.rel, i.key FROM items i WHERE i.tree ~ '{by_type}'),
-- The one role whose keys, and what it hands down, alone call code.
keyed(rel, owner) AS (
  SELECT k.rel, pg_catalog.min(c.relowner::bigint)::pg_catalog.oid FROM code k LEFT JOIN pg_catalog.pg_class c ON c.oid = k.key
  GROUP BY k.rel HAVING pg_catalog.bool_and(k.key <> 0) AND pg_catalog.count(DISTINCT c.relowner) = 1),
inserted(rel, owner, nspname, relname) AS (
  SELECT o.rel, COALESCE(k.owner, o.relowner), COALESCE(t.nspname, o.nspname), COALESCE(t.relname, o.relname)
  FROM others o LEFT JOIN keyed k ON k.rel = o.rel LEFT JOIN LATERAL (
    SELECT n.nspname, c.relname FROM pg_catalog.pg_partition_ancestors(o.rel) WITH ORDINALITY a(rel, height)
    JOIN code d ON d.rel = o.rel AND d.key = a.rel JOIN pg_catalog.pg_class c ON c.oid = a.rel
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY a.height DESC LIMIT 1) t ON k.rel IS NOT NULL
  WHERE o.rel IN (SELECT rel FROM code)),
columns AS (
  SELECT o.*, a.attname, a.attnum, a.atttypid, a.atttypmod FROM others o
  JOIN pg_catalog.pg_attribute a ON a.attrelid = o.rel AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
bases(rel, attnum, typ, typmod) AS (
  SELECT rel, attnum, atttypid, atttypmod FROM columns
  UNION ALL
  SELECT b.rel, b.attnum, t.typbasetype, CASE WHEN b.typmod = -1 THEN t.typtypmod ELSE b.typmod END
  FROM bases b JOIN pg_catalog.pg_type t ON t.oid = b.typ AND t.typtype = 'd')
SELECT c.nspname::text, c.relname::text, s.owner, pg_catalog.pg_get_userbyid(s.owner)::text, c.attname::text,
       -- The text of a row, of a range that the user made, or of a list of these or of domains, is read by the owner. From a type from
       -- which nobody makes a cast: one from text would be taken for the reading of it.
       CASE WHEN (t.oid < 16384 OR t.typtype IN ('b', 'e')) AND COALESCE(e.oid < 16384 OR e.typtype IN ('b', 'e'), true)
            THEN pg_catalog.format_type(b.typ, b.typmod) ELSE 'pg_catalog.bpchar' END,
       pg_catalog.format_type(c.atttypid, c.atttypmod), s.nspname::text, s.relname::text
FROM columns c JOIN inserted s ON s.rel = c.rel JOIN bases b ON b.rel = c.rel AND b.attnum = c.attnum
JOIN pg_catalog.pg_type t ON t.oid = b.typ AND t.typtype <> 'd'
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typelem <> 0
ORDER BY c.rel, c.attnum",
        trusted = trust::TRUSTED_ROLES,
        with_it = expressions::EVALUATED_WITH_IT,
        harmless = expressions::HARMLESS_STABLE,
        by_type = expressions::BY_TYPE_NODES,
    )
}

/// How the rows of one table get in.
#[derive(Debug, Clone)]
pub struct Contained {
    /// The role that inserts the rows.
    owner: u32,
    owner_name: String,
    /// Where: the table, or one above it.
    target: QualifiedName,
    /// Column, type in the temporary table, type of the table.
    columns: Vec<(String, String, String)>,
}

/// The tables whose rules would run somebody else's code, by their names.
///
/// # Errors
/// The catalog can't be read.
pub async fn find(session: &Session) -> Result<HashMap<QualifiedName, Contained>> {
    let rows = session
        .query(&tables(), &[])
        .await
        .map_err(|source| Error::postgres("could not look for rules that call code", source))?;
    let mut tables: HashMap<QualifiedName, Contained> = HashMap::new();
    for row in &rows {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let table = tables.entry(name).or_insert_with(|| Contained {
            owner: row.get(2),
            owner_name: row.get(3),
            target: QualifiedName::new(row.get::<_, String>(7), row.get::<_, String>(8)),
            columns: Vec::new(),
        });
        table.columns.push((row.get(4), row.get(5), row.get(6)));
    }
    Ok(tables)
}

impl Contained {
    /// Loads one chunk.
    pub async fn load(
        &self,
        settings: &ConnectionSettings,
        snapshot: &StoredSnapshot,
        data: &TableData,
        chunk: &Chunk,
        progress: &Progress,
    ) -> Result<()> {
        let manifest = &snapshot.manifest;
        let short = data.table.name.short();
        let failed = |source| Error::postgres(format!("could not load the table {short}"), source);
        let session = settings.connect().await?;
        session.batch_execute(crate::sessions::STATEMENT).await.map_err(failed)?;
        session.batch_execute(&self.temporary_sql()).await.map_err(failed)?;
        let temporary =
            Table { name: QualifiedName::new("pg_temp", TEMPORARY), load_into: None, ..data.table.clone() };
        let statement = copy_in_statement(&temporary, &manifest.database.encoding);
        let work = copy_in::load_chunk(snapshot, chunk, statement, short.clone());
        copy_in::perform(&session, &work, manifest.codec, progress).await?;
        // In messages of their own: nothing may be prepared where code of somebody else has been.
        let owner = AsOwner::of(self.owner);
        session.batch_execute(&rule_settings::begin()).await.map_err(failed)?;
        session.batch_execute(&owner.create_sql()).await.map_err(failed)?;
        let answer = session
            .simple_query(&owner.run_sql(&self.insert_sql(&data.table), OWN_PATH))
            .await
            .map_err(|source| of_owner(failed(source)))?;
        let rows = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).and_then(|rows| rows.parse::<u64>().ok()),
            _ => None,
        });
        if rows != Some(chunk.content.rows) {
            return Err(Error::failed(format!(
                "{short}: the server took {rows:?} rows instead of {}",
                chunk.content.rows
            )));
        }
        as_owner::commit(&session).await.map_err(|error| error.context(short))?;
        session.close().await
    }

    fn temporary_sql(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, kind, _)| format!("{} {kind}", Ident::new(name.as_str())))
            .collect();
        format!(
            "CREATE TEMPORARY TABLE {TEMPORARY} ({}); GRANT SELECT ON pg_temp.{TEMPORARY} TO {}",
            columns.join(", "),
            Ident::new(self.owner_name.as_str())
        )
    }

    fn insert_sql(&self, table: &Table) -> String {
        let names: Vec<String> = table.columns.iter().map(ToString::to_string).collect();
        let values: Vec<String> = table
            .columns
            .iter()
            .map(|column| {
                let known = self.columns.iter().find(|(name, ..)| name == column.as_str());
                match known {
                    Some((_, kind, wanted)) if kind != wanted => format!("CAST({column} AS {wanted})"),
                    _ => column.to_string(),
                }
            })
            .collect();
        let target = table.load_into.as_ref().unwrap_or(&self.target);
        format!(
            "INSERT INTO {target} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.{TEMPORARY}",
            names.join(", "),
            values.join(", ")
        )
    }
}

/// Says who lacks a right: the rows come from its owner, and not from whoever restores.
fn of_owner(error: Error) -> Error {
    // insufficient_privilege
    if error.sqlstate() != Some("42501") {
        return error;
    }
    error.with_hint(
        "The rows of a table whose rules call code are inserted by the table's owner, who may not do this. Give the owner the right where \
         the snapshot comes from (GRANT EXECUTE ON FUNCTION …, GRANT USAGE ON SCHEMA … or TYPE …) and take a new snapshot, or restore \
         with --no-owner.",
    )
}

/// The temporary table.
const TEMPORARY: &str = "safe_run_rows";
