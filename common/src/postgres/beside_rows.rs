//! What belongs to a database's content beside the rows that a snapshot stores: rows in tables of extensions that pg_dump does
//! not write, sequences of extensions, and the values of generated columns. It is read when a snapshot is taken and again
//! when it was restored, so that "equal" is said of nothing that was not compared.

use std::collections::{BTreeMap, HashSet};

use super::{Client, ConnectionSettings, Session, copy, trust};
use crate::{
    Error, Ident, Progress, QualifiedName, Result,
    catalog::Sequence,
    snapshot::manifest::{Counted, ExtensionTable, GeneratedColumns},
};

/// Tables of extensions of which pg_dump writes no rows, or only those that the extension's condition names.
const EXTENSION_TABLES: &str = "
SELECT n.nspname::text, c.relname::text, e.extname::text, c.oid, EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE c.oid = ANY (x.extconfig))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension x, ROWS FROM (pg_catalog.unnest(x.extconfig), pg_catalog.unnest(x.extcondition)) f(oid, condition)
                  WHERE f.oid = c.oid AND COALESCE(f.condition, '') = '')
ORDER BY 1, 2";

/// Sequences of extensions that no extension has as its configuration, and that the role may read.
const EXTENSION_SEQUENCES: &str = "
SELECT c.oid, n.nspname, c.relname, s.seqincrement
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
WHERE c.relpersistence <> 't' AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT') END
  AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE c.oid = ANY (x.extconfig))
ORDER BY c.oid";

/// Stored generated columns whose expression uses a function or operator that PostgreSQL did not bring: table, columns, and
/// what they use.
const GENERATED: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, a.attname::text,
       ARRAY(SELECT DISTINCT pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0) FROM pg_catalog.pg_depend d
             WHERE (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                    -- Until 14 it is the column that depends.
                    OR d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = a.attnum)
               AND d.refobjid >= 16384
               AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
             ORDER BY 1) AS uses
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence <> 't'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE a.attgenerated = 's' AND NOT a.attisdropped
  AND EXISTS (SELECT FROM pg_catalog.pg_depend d
              WHERE (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                     OR d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = a.attnum)
              AND d.refobjid >= 16384
              AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))
ORDER BY c.oid, a.attnum";

/// How long a statement waits for a lock on a table of an extension, which nobody has locked for us.
const PATIENCE: &str = "SET lock_timeout = '5s'";

/// Reads the rows of tables of extensions that pg_dump does not write. Their own session: a table that can't be read must not
/// end the transaction of the snapshot. With `only`, of these tables (`pg_class.oid`): the others have no count.
///
/// # Errors
/// The catalog can't be read. A table that can't be has no count.
pub async fn extension_tables(
    settings: &ConnectionSettings,
    reader: &Client,
    only: Option<&HashSet<u32>>,
    progress: &Progress,
) -> Result<Vec<ExtensionTable>> {
    let failed = |source| Error::postgres("could not list the tables of extensions", source);
    let rows = reader.query(EXTENSION_TABLES, &[]).await.map_err(failed)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let session = settings.connect().await?;
    session.batch_execute(PATIENCE).await.map_err(failed)?;
    let mut tables = Vec::new();
    for row in &rows {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let of = |found| ExtensionTable {
            name: name.clone(),
            extension: row.get(2),
            is_partly_written: row.get(4),
            found,
        };
        if only.is_some_and(|only| !only.contains(&row.get(3))) {
            tables.push(of(None));
            continue;
        }
        // No query: nothing of whoever could add to the table is planned.
        let counted = copy::hash_rows(&session, &format!("COPY {name} TO STDOUT"), progress).await;
        let found = match counted {
            Ok((rows, row_hash)) => Some(Counted { rows, row_hash }),
            Err(error) if error.sqlstate().is_some() => None,
            Err(error) => return Err(error),
        };
        tables.push(of(found));
    }
    session.close().await?;
    Ok(tables)
}

/// Tables of extensions of which pg_dump writes no rows and that are not empty, by the catalog alone.
///
/// # Errors
/// The catalog can't be read.
pub async fn unwritten_tables(session: &Client) -> Result<Vec<QualifiedName>> {
    let statement = format!(
        "SELECT x.schema, x.name FROM ({EXTENSION_TABLES}) x(schema, name, extension, oid, is_partly_written)
         WHERE NOT x.is_partly_written AND pg_catalog.pg_relation_size(x.oid) > 0"
    );
    let rows = session
        .query(&statement, &[])
        .await
        .map_err(|source| Error::postgres("could not list the tables of extensions", source))?;
    Ok(rows.iter().map(|row| QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Where the sequences of extensions stand that are no configuration.
pub async fn extension_sequences(reader: &Client) -> Result<Vec<Sequence>> {
    let failed = |source| Error::postgres("could not read the sequences of extensions", source);
    let mut sequences = Vec::new();
    for row in &reader.query(EXTENSION_SEQUENCES, &[]).await.map_err(failed)? {
        let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        let statement = format!("SELECT last_value, is_called FROM {name}");
        let value = reader.query_one(&statement, &[]).await.map_err(failed)?;
        sequences.push(Sequence {
            oid: row.get(0),
            name,
            last_value: value.get(0),
            is_called: value.get(1),
            increment: row.get(3),
        });
    }
    Ok(sequences)
}

/// Reads the values of generated columns that code of this database computes, as the state of `session` has them; with `only`, of
/// these tables (`pg_class.oid`).
///
/// A table whose reading could run code of somebody whom this role does not trust is not read: it has no count.
pub async fn generated(
    session: &Session,
    only: Option<&HashSet<u32>>,
    progress: &Progress,
) -> Result<Vec<GeneratedColumns>> {
    let failed = |source| Error::postgres("could not list the generated columns", source);
    let mut tables: BTreeMap<u32, GeneratedColumns> = BTreeMap::new();
    for row in &session.query(GENERATED, &[]).await.map_err(failed)? {
        if only.is_some_and(|only| !only.contains(&row.get(0))) {
            continue;
        }
        let table = tables.entry(row.get(0)).or_insert_with(|| GeneratedColumns {
            table: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            columns: Vec::new(),
            made_by: Vec::new(),
            found: None,
        });
        table.columns.push(row.get(3));
        table.made_by.extend(row.get::<_, Vec<String>>(4));
    }
    let oids: Vec<u32> = tables.keys().copied().collect();
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    for standing in trust::standings(session, Some(&oids)).await? {
        let Some(table) = tables.get_mut(&standing.oid).filter(|_| standing.may_be_planned()) else {
            continue;
        };
        let columns: Vec<String> = table.columns.iter().map(|name| Ident::new(&**name).to_string()).collect();
        let statement = format!("COPY (SELECT {} FROM ONLY {}) TO STDOUT", columns.join(", "), table.table);
        let (rows, row_hash) = copy::hash_rows(session, &statement, progress).await?;
        table.found = Some(Counted { rows, row_hash });
    }
    let mut tables: Vec<GeneratedColumns> = tables.into_values().collect();
    for table in &mut tables {
        table.made_by.sort();
        table.made_by.dedup();
    }
    Ok(tables)
}
