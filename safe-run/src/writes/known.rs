//! The tables as they are in the snapshot: what a change is written for. Read behind the snapshot and kept in the run's
//! folder, because a recovery may need it long after the migration has changed them.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use common::{
    Error, Ident, QualifiedName, Result,
    catalog::Sequence,
    files::{sync_dir, write_private_file},
    postgres::{Session, introspect},
};
use serde::{Deserialize, Serialize};

use crate::version_tables;

/// The file in the run's folder.
const FILE: &str = "tables-before.json";

/// How a changed row is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// By the columns of a unique index; without any, not at all.
    Key,
    /// By all of its columns (REPLICA IDENTITY FULL).
    Full,
}

/// A table, or a partitioned one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTable {
    /// Its name.
    pub name: QualifiedName,
    /// `r`, `p` or `m`.
    pub kind: String,
    /// The server writes nothing about its rows into the log.
    pub is_unlogged: bool,
    /// It is the history of a migration tool, or ours: only migrations write to it.
    #[serde(default)]
    pub is_history: bool,
    /// How its rows are found.
    pub identity: Identity,
    /// Its columns.
    pub columns: Vec<KnownColumn>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownColumn {
    /// Its name.
    pub name: Ident,
    /// The server computes it.
    #[serde(default)]
    pub is_generated: bool,
    /// GENERATED ALWAYS AS IDENTITY.
    #[serde(default)]
    pub is_always_identity: bool,
    /// It belongs to what a row is found by.
    #[serde(default)]
    pub is_key: bool,
    /// The equality of its index, ready for SQL; none where the index has none that can be named.
    #[serde(default)]
    pub equals: Option<String>,
}

/// Everything that is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Known {
    /// The tables.
    pub tables: Vec<KnownTable>,
    /// Where the sequences stood.
    pub sequences: Vec<Sequence>,
}

/// Tables whose rows are a person's.
const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u', c.relreplident = 'f'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY 2, 3";

/// Their columns, and the equality of the index that is the replica identity. A key that is checked at the end of a
/// transaction is none.
const COLUMNS: &str = "
SELECT a.attrelid, a.attname::text, a.attgenerated <> '', a.attidentity = 'a', k.attnum IS NOT NULL,
       k.schema, k.operator
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
LEFT JOIN LATERAL (
  SELECT i.indkey[place] AS attnum, pn.nspname::text AS schema, o.oprname::text AS operator
  FROM pg_catalog.pg_index i
  CROSS JOIN pg_catalog.generate_series(0, i.indnkeyatts - 1) place
  JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[place]
  LEFT JOIN pg_catalog.pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
  LEFT JOIN pg_catalog.pg_amop ao ON am.oid IS NOT NULL AND ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
    AND ao.amopmethod = am.oid AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
  LEFT JOIN pg_catalog.pg_operator o ON o.oid = ao.amopopr
  LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = o.oprnamespace
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
    AND ((c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident))
    AND i.indkey[place] = a.attnum
  LIMIT 1
) k ON true
WHERE c.oid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

impl Known {
    /// Reads it, in the transaction whose snapshot is the state before.
    pub async fn read(session: &Session, history: &QualifiedName) -> Result<Self> {
        let failed = |source| Error::postgres("could not read the tables' columns", source);
        let rows = session.query(TABLES, &[]).await.map_err(failed)?;
        let mut tables: BTreeMap<u32, KnownTable> = rows
            .iter()
            .map(|row| {
                let table = KnownTable {
                    name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
                    kind: row.get(3),
                    is_unlogged: row.get(4),
                    is_history: false,
                    identity: if row.get(5) { Identity::Full } else { Identity::Key },
                    columns: Vec::new(),
                };
                (row.get(0), table)
            })
            .collect();
        let oids: Vec<u32> = tables.keys().copied().collect();
        for row in session.query(COLUMNS, &[&oids]).await.map_err(failed)? {
            let (schema, operator): (Option<String>, Option<String>) = (row.get(5), row.get(6));
            let column = KnownColumn {
                name: Ident::new(row.get::<_, String>(1)),
                is_generated: row.get(2),
                is_always_identity: row.get(3),
                is_key: row.get(4),
                // An operator's name has no letters and needs no quotes.
                equals: schema
                    .zip(operator)
                    .map(|(schema, name)| format!("OPERATOR({}.{name})", Ident::new(schema))),
            };
            if let Some(table) = tables.get_mut(&row.get::<_, u32>(0)) {
                table.columns.push(column);
            }
        }
        for table in tables.values_mut() {
            table.is_history = table.name == *history
                || table.name.schema.as_str() == "safe_run"
                || version_tables::is_history(table.name.name.as_str(), |name| table.column(name).is_some());
        }
        Ok(Self { tables: tables.into_values().collect(), sequences: introspect::sequences(session).await? })
    }

    /// By name.
    pub fn by_name(&self) -> HashMap<&QualifiedName, &KnownTable> {
        self.tables.iter().map(|table| (&table.name, table)).collect()
    }

    /// Tables of which nothing is in the log.
    pub fn unlogged(&self) -> impl Iterator<Item = &KnownTable> {
        self.tables.iter().filter(|table| table.is_unlogged)
    }

    /// Stores it in the run's folder.
    pub fn store(&self, dir: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|source| Error::failed(format!("could not encode {FILE}: {source}")))?;
        write_private_file(&dir.join(FILE), &bytes)?;
        sync_dir(dir)
    }

    /// Reads it back.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let bytes = common::files::read_plain(&path, common::files::MOST_FACTS)
            .map_err(|source| Error::io("read", &path, source))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| Error::damaged(format!("{} can't be read: {source}", path.display())))
    }
}

impl KnownTable {
    /// A column.
    pub fn column(&self, name: &str) -> Option<&KnownColumn> {
        self.columns.iter().find(|column| column.name.as_str() == name)
    }

    /// What its rows are found by; empty if by nothing.
    pub fn key(&self) -> impl Iterator<Item = &KnownColumn> {
        self.columns.iter().filter(|column| column.is_key)
    }
}
