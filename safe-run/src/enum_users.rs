//! What in the database has to do with an enum: by these names a statement can use one of its labels.

use std::collections::{BTreeMap, BTreeSet};

use common::{Error, Result, postgres::Session};

use sql::statement::{TableName, enums::Labels};

/// Names of what depends on the enums of this name, however far, and of functions and triggers that speak of those.
const USERS: &str = "
WITH RECURSIVE users(classid, objid) AS (
  SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::oid, t.oid
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  WHERE t.typtype = 'e' AND t.typname = $1::text AND ($2::text IS NULL OR n.nspname = $2)
  UNION
  SELECT CASE WHEN r.oid IS NOT NULL OR a.oid IS NOT NULL OR c.oid IS NOT NULL
              THEN 'pg_catalog.pg_class'::pg_catalog.regclass::oid ELSE d.classid END,
         COALESCE(r.ev_class, a.adrelid, c.conrelid, d.objid)
  FROM users u
  JOIN pg_catalog.pg_depend d ON d.refclassid = u.classid AND d.refobjid = u.objid
  LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
  LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid
  LEFT JOIN pg_catalog.pg_constraint c
    ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = d.objid AND c.conrelid <> 0
), named AS (
  SELECT relname::text AS name FROM users JOIN pg_catalog.pg_class k ON k.oid = objid
  WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  UNION SELECT typname::text FROM users JOIN pg_catalog.pg_type t ON t.oid = objid
  WHERE classid = 'pg_catalog.pg_type'::pg_catalog.regclass
  UNION SELECT proname::text FROM users JOIN pg_catalog.pg_proc p ON p.oid = objid
  WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
), speaking AS (
  SELECT p.oid, p.proname::text AS name FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND EXISTS (
    SELECT FROM named WHERE pg_catalog.strpos(pg_catalog.lower(p.prosrc), pg_catalog.lower(named.name)) > 0)
)
SELECT name FROM named
UNION SELECT name FROM speaking
UNION SELECT k.relname::text FROM speaking s JOIN pg_catalog.pg_trigger t ON t.tgfoid = s.oid
      JOIN pg_catalog.pg_class k ON k.oid = t.tgrelid";

/// Asks for the users of each of these enums, which may not be there yet, or under one of the names that they had before.
pub async fn labels(session: &Session, types: &BTreeMap<TableName, BTreeSet<TableName>>) -> Result<Labels> {
    let mut labels = Labels::unknown(session.server_version_num());
    for (name, earlier) in types {
        let mut users = BTreeSet::new();
        for name in [name].into_iter().chain(earlier) {
            let rows = session.query(USERS, &[&name.name, &name.schema]).await.map_err(|source| {
                Error::postgres(format!("could not look for the users of the enum {name}"), source)
            })?;
            users.insert(name.name.clone());
            users.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        labels.add(name.clone(), users);
    }
    Ok(labels)
}
