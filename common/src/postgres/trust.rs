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

use std::collections::{BTreeMap, HashMap};

use super::{Client, Row, shared_text};
use crate::{Error, QualifiedName, Result, catalog::Table, ident::printable};

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
            " OR r.rolname = 'pg_database_owner' AND pg_catalog.current_setting('safe_run.doubts_database_owner', true) \
             IS DISTINCT FROM 'on' AND EXISTS (SELECT FROM pg_catalog.pg_database d
             JOIN pg_catalog.pg_roles o ON o.oid = d.datdba
             WHERE d.datname = pg_catalog.current_database() AND ",
            is_trusted!("o"),
            ")"
        )
    };
}
pub(super) use {is_trusted, trusted_roles};

/// A query that gives the oids of all roles that are trusted in the session that runs it: `owner IN (` this `)`.
pub const TRUSTED_ROLES: &str = trusted_roles!();

/// A role of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Whether it is trusted.
    pub is_trusted: bool,
}

/// From now on `pg_database_owner` is not trusted in this session: the database is made for somebody who is not, and belongs to whoever
/// restores only until it is complete. Who sets that himself is trusted less, and never more.
///
/// # Errors
/// The connection's own.
pub async fn doubt_database_owner(client: &Client) -> Result<()> {
    client
        .batch_execute("SET safe_run.doubts_database_owner = 'on'")
        .await
        .map_err(|source| Error::postgres("could not prepare the session", source))
}

/// All roles whose names a snapshot can hold, as they stand to the role of this session.
///
/// # Errors
/// The catalog can't be read.
pub async fn roles(client: &Client) -> Result<Vec<Role>> {
    let asked = format!(
        "SELECT a.oid, {}, a.oid IN ({TRUSTED_ROLES}) FROM pg_catalog.pg_roles a",
        shared_text::bytes("a.rolname")
    );
    let rows = client
        .query(&asked, &[])
        .await
        .map_err(|source| Error::postgres("could not list the roles of the server", source))?;
    let role =
        |row: &Row| Some(Role { oid: row.get(0), name: shared_text::name(row, 1)?, is_trusted: row.get(2) });
    Ok(rows.iter().filter_map(role).collect())
}

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
  UNION ALL
  SELECT k.partrelid, 'pg_catalog.pg_class'::pg_catalog.regclass, k.partrelid FROM pg_catalog.pg_partitioned_table k
   WHERE k.partexprs IS NOT NULL
), used(rel, class, object) AS (
  SELECT p.rel, p.class, p.object FROM planned p WHERE $1::pg_catalog.oid[] IS NULL OR p.rel = ANY ($1)
  UNION
  SELECT u.rel, d.refclassid, d.refobjid
  FROM used u JOIN pg_catalog.pg_depend d ON d.classid = u.class AND d.objid = u.object AND d.objsubid = 0
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
  SELECT c.oid, n.oid AS schema, n.nspname, c.relname, c.relowner, n.nspowner, c.relowner IN (SELECT oid FROM trusted) AS has_our_owner,
         n.nspowner IN (SELECT oid FROM trusted) AS is_in_our_schema
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND ($1::pg_catalog.oid[] IS NULL OR c.oid = ANY ($1)))
SELECT t.oid, t.schema, t.nspname, t.relname, pg_catalog.pg_get_userbyid(t.relowner) AS owner,
       pg_catalog.pg_get_userbyid(t.nspowner) AS schema_owner, t.has_our_owner, t.is_in_our_schema,
       (SELECT COALESCE(pg_catalog.pg_describe_object(k.class, k.object, 0), 'something that is being dropped') FROM code k
        WHERE k.rel = t.oid AND NOT (k.is_ours AND t.has_our_owner AND t.is_in_our_schema)
        ORDER BY k.class, k.object LIMIT 1) AS code
FROM tables t"
);

/// What the catalog says about one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The oid of its schema.
    pub schema: u32,
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

    /// Whether this table may be read by queries: `others` says who could change that meanwhile.
    fn lets_in(&self, table: &Table, others: Others) -> bool {
        // The condition of an extension's table is run, and not only planned, on columns that its owner may give other types.
        // Its name is all that the owner of the schema has in hand.
        let is_ours = match &table.extension_filter {
            Some(_) => self.has_our_owner,
            None => self.is_ours(),
        };
        self.code.is_none() && (is_ours || others == Others::AreKeptOut)
    }

    /// Whose the table is, for a sentence: the first of its owner and its schema's owner that is not trusted.
    fn whose(&self) -> &str {
        if self.has_our_owner { &self.schema_owner } else { &self.owner }
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
            schema: row.get("schema"),
            name: QualifiedName::new(row.get::<_, String>("nspname"), row.get::<_, String>("relname")),
            owner: row.get("owner"),
            schema_owner: row.get("schema_owner"),
            has_our_owner: row.get("has_our_owner"),
            is_in_our_schema: row.get("is_in_our_schema"),
            code: row.get("code"),
        })
        .collect())
}

/// Whether owners of tables can do anything while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They may add an index, or rename a schema, at any moment.
    MayInterfere,
    /// Nobody can connect to the database but superusers, and who has the rights of this role.
    AreKeptOut,
}

/// Statements for a session that reads tables and nothing else: a view in a table's place is refused, as for pg_dump, where
/// the server can (minor releases since August 2024).
pub const ONLY_TABLES: &str = "SELECT pg_catalog.set_config(name, 'view, foreign-table', false) FROM pg_catalog.pg_settings \
                               WHERE name = 'restrict_nonsystem_relation_kind'";

/// Decides for each of `tables`, found by their oids, whether queries on it may be planned, which page ranges are: the
/// rest is read whole, by plain COPY.
///
/// Gives what the catalog says of the rest.
///
/// # Errors
/// The catalog can't be read.
pub async fn admit_by_oid(client: &Client, tables: &mut [Table], others: Others) -> Result<Vec<Standing>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let found: HashMap<u32, Standing> =
        standings(client, Some(&oids)).await?.into_iter().map(|standing| (standing.oid, standing)).collect();
    Ok(admit(tables.iter_mut(), |table| found.get(&table.oid), others))
}

/// As [`admit_by_oid`], for tables of another database, found by their names here.
///
/// # Errors
/// As [`admit_by_oid`].
pub async fn admit_by_name<'t>(
    client: &Client,
    tables: impl Iterator<Item = &'t mut Table>,
    others: Others,
) -> Result<Vec<Standing>> {
    let found: BTreeMap<QualifiedName, Standing> = standings(client, None)
        .await?
        .into_iter()
        .map(|standing| (standing.name.clone(), standing))
        .collect();
    Ok(admit(tables, |table| found.get(&table.name), others))
}

fn admit<'t, 's>(
    tables: impl Iterator<Item = &'t mut Table>,
    find: impl Fn(&Table) -> Option<&'s Standing>,
    others: Others,
) -> Vec<Standing> {
    let mut whole = Vec::new();
    for table in tables {
        let standing = find(table);
        table.may_plan = standing.is_some_and(|standing| standing.lets_in(table, others));
        whole.extend(standing.filter(|_| !table.may_plan).cloned());
    }
    whole
}

/// The tables that are read whole and why, in one line; nothing if there are none. `large` says for which it matters.
pub fn read_whole(whole: &[Standing], large: impl Fn(&Standing) -> bool) -> Option<String> {
    /// Names in the line, before the rest is only counted.
    const NAMED: usize = 5;
    let large: Vec<&Standing> = whole.iter().filter(|standing| large(standing)).collect();
    if large.is_empty() {
        return None;
    }
    let why = |standing: &&Standing| match &standing.code {
        Some(code) => format!("{}: its indexes or statistics use {code}", standing.name.short()),
        None => format!("{} of the role \"{}\"", standing.name.short(), standing.whose()),
    };
    let mut named: Vec<String> = large.iter().take(NAMED).map(why).collect();
    if large.len() > NAMED {
        named.push(format!("{} more", large.len() - NAMED));
    }
    let tables =
        if large.len() == 1 { "1 table is".to_owned() } else { format!("{} tables are", large.len()) };
    Some(printable(&format!(
        "{tables} read whole, by one connection each, because a query on a page range could run code of others with the rights of \
         this role ({}); as the role that owns them, page ranges are read",
        named.join(", "),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::LsnFields;
    use crate::snapshot::copy_sql::{BlockRange, copy_out_statement};

    fn standing(has_our_owner: bool, is_in_our_schema: bool, code: Option<&str>) -> Standing {
        Standing {
            oid: 7,
            schema: 8,
            name: QualifiedName::new("s", "t"),
            owner: "low".to_owned(),
            schema_owner: "other".to_owned(),
            has_our_owner,
            is_in_our_schema,
            code: code.map(str::to_owned),
        }
    }

    fn table(filter: Option<&str>) -> Table {
        Table {
            oid: 7,
            name: QualifiedName::new("s", "t"),
            columns: Vec::new(),
            blocks: 0,
            toast_blocks: 0,
            is_heap: true,
            is_unlogged: false,
            load_into: None,
            extension_filter: filter.map(str::to_owned),
            may_plan: false,
            lsn_fields: LsnFields::default(),
        }
    }

    #[test]
    fn a_query_is_planned_only_where_nobody_elses_code_can_be_or_get_into_it() {
        let may = |standing: &Standing, others| {
            let mut table = [table(None)];
            let whole = admit(table.iter_mut(), |_| Some(standing), others);
            assert_eq!(whole.is_empty(), table[0].may_plan);
            table[0].may_plan
        };
        for (owner, schema, code, free, kept_out) in [
            (true, true, None, true, true),
            (true, false, None, false, true),
            (false, true, None, false, true),
            (false, false, None, false, true),
            (true, true, Some("function f()"), false, false),
            (false, true, Some("function f()"), false, false),
        ] {
            let standing = standing(owner, schema, code);
            assert_eq!(may(&standing, Others::MayInterfere), free, "{standing:?}");
            assert_eq!(may(&standing, Others::AreKeptOut), kept_out, "{standing:?}");
        }
        let mut unknown = [table(None)];
        admit(unknown.iter_mut(), |_| None, Others::AreKeptOut);
        assert!(!unknown[0].may_plan, "a table that is not there is not planned either");
    }

    #[test]
    fn the_condition_of_an_extensions_table_is_run_only_if_its_owner_is_trusted() {
        let read = |standing: &Standing, filter| {
            let mut table = [table(Some(filter))];
            admit(table.iter_mut(), |_| Some(standing), Others::MayInterfere);
            copy_out_statement(&table[0], BlockRange::ALL, "UTF8")
        };
        assert!(read(&standing(true, false, None), "WHERE i > 3").unwrap().contains("WHERE i > 3"));
        let refused = read(&standing(false, true, None), "WHERE i > 3").unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Refused, "{refused}");
        assert!(read(&standing(false, true, None), "").unwrap().starts_with("COPY \"s\".\"t\" TO"));
    }
}
