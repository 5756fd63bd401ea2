//! Values of type regdatabase (PostgreSQL 19 and later) hold the oid of a database and show its name. An undo gives the name to
//! another database: the stored values stay with the replaced one, under the name that it has then.

use super::Client;
use crate::{Error, Result};

/// Columns of tables whose values hold such an oid, also within arrays, domains and composite types.
const COLUMNS: &str = "
WITH RECURSIVE holds(oid) AS (
  SELECT pg_catalog.to_regtype('pg_catalog.regdatabase')::oid
  UNION
  SELECT t.oid FROM holds h CROSS JOIN LATERAL (
    SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typelem = h.oid OR t.typbasetype = h.oid
    UNION ALL
    SELECT c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    WHERE a.atttypid = h.oid AND NOT a.attisdropped AND c.reltype <> 0) t)
SELECT pg_catalog.format('%I.%I.%I', n.nspname, c.relname, a.attname)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (SELECT oid FROM holds)
ORDER BY 1";

/// What an undo changes in them, one sentence for each column: `live` is the name that another database gets, `kept_as` the one
/// that the replaced database has then. The session is in either of the two.
///
/// # Errors
/// The catalog can't be read.
pub async fn after_swap(client: &Client, live: &str, kept_as: &str) -> Result<Vec<String>> {
    let rows = client
        .query(COLUMNS, &[])
        .await
        .map_err(|source| Error::postgres("could not look for columns that name databases", source))?;
    let sentence = |row: &super::Row| {
        format!(
            "column {} has the type regdatabase: its values that named the database \"{live}\" name \"{kept_as}\" now, because \
             they hold the oid of that database",
            row.get::<_, String>(0)
        )
    };
    Ok(rows.iter().map(sentence).collect())
}
