//! Whose code counts as ours, and what a statement of ours could run that is somebody else's. Decided by the catalog, here
//! and nowhere else.
//!
//! PostgreSQL runs a function with the rights of whoever's statement evaluates it, unless it says SECURITY DEFINER. So a
//! backup that a superuser runs must not evaluate what the owner of a table wrote. `COPY table TO STDOUT` evaluates
//! nothing. A query on a table does, before it reads a row: the planner computes what is constant in the predicates and
//! expressions of its indexes, valid or not yet, and of its extended statistics, and in CHECK constraints where
//! `constraint_exclusion` is on, which it is not in our sessions.
//!
//! A role is *trusted* if it is a superuser or the session's own: the session user, or the current user of a session whose
//! own user is no superuser (RESET ROLE would make one of it). A table is *ours* if its owner and its schema's owner are
//! trusted: who owns the schema can rename it, and put another table in the place of the name.

use super::Client;
use crate::{Error, QualifiedName, Result};

/// The session's own roles and superusers, as a condition on the alias `$role` of `pg_roles`.
macro_rules! is_trusted {
    ($role:literal) => {
        concat!(
            "(",
            $role,
            ".rolsuper OR ",
            $role,
            ".rolname = session_user OR ",
            $role,
            ".rolname = current_user AND NOT COALESCE((SELECT u.rolsuper FROM pg_catalog.pg_roles u \
             WHERE u.rolname = session_user), true))"
        )
    };
}

/// A query for the oids of all trusted roles, for `role IN (…)`; `pg_database_owner` stands for the database's owner.
macro_rules! trusted_roles {
    () => {
        concat!(
            "SELECT r.oid FROM pg_catalog.pg_roles r WHERE ",
            is_trusted!("r"),
            " OR r.rolname = 'pg_database_owner' AND EXISTS (SELECT FROM pg_catalog.pg_database d
             JOIN pg_catalog.pg_roles o ON o.oid = d.datdba
             WHERE d.datname = pg_catalog.current_database() AND ",
            is_trusted!("o"),
            ")"
        )
    };
}

/// A query that gives the oids of all roles that are trusted in the session that runs it: `owner IN (` this `)`.
pub const TRUSTED_ROLES: &str = trusted_roles!();

/// Of every table among `$1`, or all if it is NULL: oid, schema, name, owner, the schema's owner, whether each of the two is
/// trusted, and one object whose code planning a query on the table could run and that is not ours, or NULL.
///
/// What an expression uses stands in `pg_depend`, but for what PostgreSQL brought (oids below 16384). Of a table that is
/// not ours everything else counts as code, since its owner chose what to call it with; of one that is, what somebody else
/// owns, down to what it uses in turn. Domains have rules, ranges have functions, and composite types may contain
/// either: they always count. Enums and base types, which only a superuser can make, are no code by themselves.
const TABLES: &str = concat!(
    "WITH RECURSIVE trusted AS MATERIALIZED (",
    trusted_roles!(),
    "), planned(rel, class, object) AS (
  SELECT i.indrelid, 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, i.indexrelid FROM pg_catalog.pg_index i
   WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
  UNION ALL
  SELECT s.stxrelid, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid FROM pg_catalog.pg_statistic_ext s
   WHERE s.stxexprs IS NOT NULL
  UNION ALL
  SELECT f.adrelid, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, f.oid FROM pg_catalog.pg_attrdef f
   JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum WHERE a.attgenerated = 'v'
), used(rel, class, object) AS (
  SELECT p.rel, p.class, p.object FROM planned p WHERE $1::pg_catalog.oid[] IS NULL OR p.rel = ANY ($1)
  UNION
  SELECT u.rel, d.refclassid, d.refobjid
  FROM used u JOIN pg_catalog.pg_depend d ON d.classid = u.class AND d.objid = u.object
  WHERE d.refobjid >= 16384 AND d.refclassid IN (
    'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
    'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass,
    'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass)
), code(rel, class, object, is_ours) AS (
  SELECT u.rel, u.class, u.object, COALESCE(p.proowner IN (SELECT oid FROM trusted), o.oprowner IN (SELECT oid FROM trusted),
         c.opcowner IN (SELECT oid FROM trusted), f.opfowner IN (SELECT oid FROM trusted), t.oid IS NULL)
  FROM used u
  LEFT JOIN pg_catalog.pg_proc p ON u.class = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = u.object
  LEFT JOIN pg_catalog.pg_operator o ON u.class = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = u.object
  LEFT JOIN pg_catalog.pg_opclass c ON u.class = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND c.oid = u.object
  LEFT JOIN pg_catalog.pg_opfamily f ON u.class = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND f.oid = u.object
  LEFT JOIN pg_catalog.pg_type t ON u.class = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = u.object
  WHERE u.class NOT IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass,
                        'pg_catalog.pg_attrdef'::pg_catalog.regclass)
    AND (t.oid IS NULL OR t.typtype NOT IN ('b', 'e', 'p'))
), tables AS (
  SELECT c.oid, n.nspname, c.relname, c.relowner, n.nspowner, c.relowner IN (SELECT oid FROM trusted) AS has_our_owner,
         n.nspowner IN (SELECT oid FROM trusted) AS is_in_our_schema
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND ($1::pg_catalog.oid[] IS NULL OR c.oid = ANY ($1)))
SELECT t.oid, t.nspname, t.relname, pg_catalog.pg_get_userbyid(t.relowner) AS owner,
       pg_catalog.pg_get_userbyid(t.nspowner) AS schema_owner, t.has_our_owner, t.is_in_our_schema,
       (SELECT pg_catalog.pg_describe_object(k.class, k.object, 0) FROM code k
        WHERE k.rel = t.oid AND NOT (k.is_ours AND t.has_our_owner AND t.is_in_our_schema)
        ORDER BY k.class, k.object LIMIT 1) AS code
FROM tables t"
);

/// What the catalog says about one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// Who owns it.
    pub owner: String,
    /// Who owns its schema.
    pub schema_owner: String,
    /// Whether its owner is trusted.
    pub has_our_owner: bool,
    /// Whether its schema's owner is trusted: nobody else can put another table under its name.
    pub is_in_our_schema: bool,
    /// An object that is not ours and whose code planning a query on the table could run, as PostgreSQL describes it.
    pub code: Option<String>,
}

impl Standing {
    /// Whether a query on it may be planned at any time: nobody but us can add code to it or take its name.
    pub fn may_be_planned(&self) -> bool {
        self.is_ours() && self.code.is_none()
    }

    /// Whether its owner and its schema's owner are trusted.
    pub fn is_ours(&self) -> bool {
        self.has_our_owner && self.is_in_our_schema
    }
}

/// How the tables with the oids `tables`, or all of them, stand to the role of this session, as the catalog is for it.
///
/// A moment later their owners may have changed it, unless something keeps them from it.
///
/// # Errors
/// The catalog can't be read.
pub async fn standings(client: &Client, tables: Option<&[u32]>) -> Result<Vec<Standing>> {
    let rows = client.query(TABLES, &[&tables]).await.map_err(|source| {
        Error::postgres("could not read from the catalog whose code belongs to tables", source)
    })?;
    Ok(rows
        .iter()
        .map(|row| Standing {
            oid: row.get("oid"),
            name: QualifiedName::new(row.get::<_, String>("nspname"), row.get::<_, String>("relname")),
            owner: row.get("owner"),
            schema_owner: row.get("schema_owner"),
            has_our_owner: row.get("has_our_owner"),
            is_in_our_schema: row.get("is_in_our_schema"),
            code: row.get("code"),
        })
        .collect())
}
