//! The tables that are there to receive rows, as the catalog describes them: what each column takes, what it has by itself,
//! what refers to what.

use std::collections::BTreeMap;

use common::{
    Error, QualifiedName, Result,
    postgres::{Client, Row},
};

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    /// Its `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// Its schema is on the session's search_path.
    pub visible: bool,
    /// The role owns it, or may act as its owner.
    pub owned: bool,
    /// Its rows are those of its partitions.
    pub partitioned: bool,
    /// Its columns, in order.
    pub columns: Vec<TargetColumn>,
    /// Triggers of the user that fire in an ordinary session: name, and `pg_trigger.tgenabled`.
    pub triggers: Vec<(String, char)>,
}

impl TargetTable {
    /// Its name in a statement that means its own rows, and not those of tables that inherit from it.
    pub fn own_rows(&self) -> String {
        if self.partitioned { self.name.to_string() } else { format!("ONLY {}", self.name) }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetColumn {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub takes: TargetType,
    /// NULL is refused, by the column or by its domain.
    pub not_null: bool,
    /// There is a value where none is given: a default of the column or its domain, or an identity.
    pub has_default: bool,
    /// The server computes it.
    pub generated: bool,
    /// The sequence that gives its values: of an identity, of a serial, or named by the default.
    pub sequence: Option<TargetSequence>,
}

/// A type, with what is needed to know which values it takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetType {
    /// As a person writes it: `character varying(20)`.
    pub shown: String,
    /// The same; of a domain its base type.
    pub base: String,
    /// The labels of an enum, or of an array of enums, in order.
    pub labels: Option<Vec<String>>,
}

/// A sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSequence {
    /// Its name.
    pub name: QualifiedName,
    /// What is added each time.
    pub increment: i64,
    /// Its bounds.
    pub min: i64,
    /// Its bounds.
    pub max: i64,
    /// The role may alter it.
    pub owned: bool,
}

/// A foreign key between two tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetForeignKey {
    /// Its name.
    pub name: String,
    /// The table that has it.
    pub table: u32,
    /// Its columns.
    pub columns: Vec<String>,
    /// The table that it refers to.
    pub references: u32,
    /// The columns there.
    pub referenced: Vec<String>,
    /// It can be checked at the end.
    pub deferrable: bool,
}

/// Everything that may receive rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Ordinary and partitioned tables; no partitions, none of extensions, none of ours.
    pub tables: Vec<TargetTable>,
    /// Their foreign keys.
    pub foreign_keys: Vec<TargetForeignKey>,
}

impl Target {
    /// The table with this oid.
    pub fn table(&self, oid: u32) -> Option<&TargetTable> {
        self.tables.iter().find(|table| table.oid == oid)
    }
}

const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, n.nspname = ANY (pg_catalog.current_schemas(false)),
       pg_catalog.pg_has_role(c.relowner, 'USAGE'), c.relkind = 'p'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'safe_run') AND n.nspname NOT LIKE 'pg\\_toast%'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2, 3";

/// Of a domain the innermost type with the outermost modifier. Of the sequences the one that the default uses, which may be another
/// than the one that the column owns.
const COLUMNS: &str = "
WITH RECURSIVE resolved AS (
  SELECT a.attrelid, a.attnum, a.atttypid AS type, a.atttypmod AS modifier, a.attnotnull AS not_null, a.atthasdef AS has_default
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT r.attrelid, r.attnum, t.typbasetype, CASE WHEN r.modifier = -1 THEN t.typtypmod ELSE r.modifier END,
         r.not_null OR t.typnotnull, r.has_default OR t.typdefault IS NOT NULL
  FROM resolved r JOIN pg_catalog.pg_type t ON t.oid = r.type AND t.typtype = 'd'
)
SELECT a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.format_type(t.oid, r.modifier),
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
             WHERE e.enumtypid = CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE t.oid END ORDER BY e.enumsortorder),
       r.not_null, r.has_default OR a.attidentity <> '', a.attgenerated <> '',
       COALESCE(
         (SELECT d.refobjid FROM pg_catalog.pg_attrdef f
          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
          JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
          WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum ORDER BY 1 LIMIT 1),
         (SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i') ORDER BY 1 LIMIT 1))
FROM resolved r
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.attrelid AND a.attnum = r.attnum
JOIN pg_catalog.pg_type t ON t.oid = r.type AND t.typtype <> 'd'
ORDER BY a.attrelid, a.attnum";

const SEQUENCES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, s.seqincrement, s.seqmin, s.seqmax, pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1)";

/// Of a key of a partitioned table only the one that a person made.
const FOREIGN_KEYS: &str = "
SELECT conname::text, conrelid, confrelid, condeferrable,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(conkey) WITH ORDINALITY k (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.number ORDER BY k.place),
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(confkey) WITH ORDINALITY k (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = confrelid AND a.attnum = k.number ORDER BY k.place)
FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND conparentid = 0 AND conrelid = ANY ($1) ORDER BY conrelid, conname";

const TRIGGERS: &str = "
SELECT tgrelid, tgname::text, tgenabled::text FROM pg_catalog.pg_trigger
WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgrelid = ANY ($1) ORDER BY tgrelid, tgname";

/// Reads it. The session's search_path says which tables a plain name means.
///
/// # Errors
/// The catalog can't be read.
pub async fn read(client: &Client, search_path: &str) -> Result<Target> {
    let failed = |source| Error::postgres("could not read the tables of the database", source);
    let set = format!(
        "SELECT pg_catalog.set_config('search_path', {}, false)",
        common::ident::literal(search_path)
    );
    client.batch_execute(&set).await.map_err(failed)?;
    let tables = client.query(TABLES, &[]).await.map_err(failed)?;
    client.batch_execute("SELECT pg_catalog.set_config('search_path', '', false)").await.map_err(failed)?;
    let oids: Vec<u32> = tables.iter().map(|row| row.get(0)).collect();
    let columns = client.query(COLUMNS, &[&oids]).await.map_err(failed)?;
    let wanted: Vec<u32> = columns.iter().filter_map(|row| row.get::<_, Option<u32>>(8)).collect();
    let sequences = client.query(SEQUENCES, &[&wanted]).await.map_err(failed)?;
    let sequences: BTreeMap<u32, TargetSequence> =
        sequences.iter().map(|row| (row.get(0), sequence(row))).collect();
    let mut by_table: BTreeMap<u32, Vec<TargetColumn>> = BTreeMap::new();
    for row in &columns {
        by_table.entry(row.get(0)).or_default().push(column(row, &sequences));
    }
    let mut triggers: BTreeMap<u32, Vec<(String, char)>> = BTreeMap::new();
    for row in client.query(TRIGGERS, &[&oids]).await.map_err(failed)? {
        let enabled: String = row.get(2);
        triggers.entry(row.get(0)).or_default().push((row.get(1), enabled.chars().next().unwrap_or('O')));
    }
    let table = |row: &Row| {
        let oid: u32 = row.get(0);
        TargetTable {
            oid,
            name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            visible: row.get(3),
            owned: row.get(4),
            partitioned: row.get(5),
            columns: by_table.remove(&oid).unwrap_or_default(),
            triggers: triggers.remove(&oid).unwrap_or_default(),
        }
    };
    let tables = tables.iter().map(table).collect();
    let keys = client.query(FOREIGN_KEYS, &[&oids]).await.map_err(failed)?;
    let foreign_keys = keys
        .iter()
        .map(|row| TargetForeignKey {
            name: row.get(0),
            table: row.get(1),
            columns: row.get(4),
            references: row.get(2),
            referenced: row.get(5),
            deferrable: row.get(3),
        })
        .collect();
    Ok(Target { tables, foreign_keys })
}

/// The search_path that the role has in this database: that of a session which sets none.
///
/// # Errors
/// The catalog can't be read.
pub async fn search_path(client: &Client) -> Result<String> {
    let row = client
        .query_one("SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'", &[])
        .await
        .map_err(|source| Error::postgres("could not read the search_path", source))?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
}

/// The schema in which a table without a schema in its name is made.
///
/// # Errors
/// No schema of the search_path is there.
pub async fn first_schema(client: &Client, search_path: &str) -> Result<String> {
    let failed = |source| Error::postgres("could not read the schemas of the database", source);
    let path = common::ident::literal(search_path);
    client
        .batch_execute(&format!("SELECT pg_catalog.set_config('search_path', {path}, false)"))
        .await
        .map_err(failed)?;
    let row = client.query_one("SELECT pg_catalog.current_schema()::text", &[]).await.map_err(failed)?;
    client.batch_execute("SELECT pg_catalog.set_config('search_path', '', false)").await.map_err(failed)?;
    row.get::<_, Option<String>>(0).ok_or_else(|| {
        Error::refused(format!(
            "no schema of the search_path ({search_path}) is there, in which tables could be made"
        ))
        .with_hint("Create the schema, or set the role's search_path.")
    })
}

fn sequence(row: &Row) -> TargetSequence {
    TargetSequence {
        name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        increment: row.get(3),
        min: row.get(4),
        max: row.get(5),
        owned: row.get(6),
    }
}

fn column(row: &Row, sequences: &BTreeMap<u32, TargetSequence>) -> TargetColumn {
    let labels: Vec<String> = row.get(4);
    TargetColumn {
        name: row.get(1),
        takes: TargetType {
            shown: row.get(2),
            base: row.get(3),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
        },
        not_null: row.get(5),
        has_default: row.get(6),
        generated: row.get(7),
        sequence: row.get::<_, Option<u32>>(8).and_then(|oid| sequences.get(&oid)).cloned(),
    }
}
