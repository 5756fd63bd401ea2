//! Whose code an import would run with the rights of whoever imports, and the refusal of it: the rules of `restore --table`
//! ([`restore::parts::rights`]), and what only new rows call, which are defaults and triggers.
//!
//! The rule is closed. In a default of a table of a role that is not trusted stands what is immutable, and a short list beside it; whatever
//! else it calls is named.

use std::collections::BTreeMap;

use common::{
    Error, QualifiedName, Result,
    ident::printable,
    postgres::{
        Session,
        expressions::{CONVERTS_ANY, EVALUATED_WITH_IT, HARMLESS_STABLE, HAS_PLAIN_TYPES},
        trust::TRUSTED_ROLES,
    },
};
use restore::parts::rights::{Code, of_tables};

use super::{choices::Existing, options::ImportOptions, plan::Plan};

/// Volatile functions of PostgreSQL that give a value anew for each row, and nothing else.
const GIVES_VALUES: &str =
    "'random', 'random_normal', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'uuidv4', 'uuidv7'";

/// The same of its extensions.
const EXTENSIONS_GIVE: &str =
    "'gen_random_bytes', 'gen_random_uuid', 'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4'";

/// Trigger functions of PostgreSQL that only look at the row and their arguments.
const HARMLESS_TRIGGERS: &str =
    "'tsvector_update_trigger', 'tsvector_update_trigger_column', 'suppress_redundant_updates_trigger'";

/// Kinds of nodes that call nothing but the functions and types that they name; the names before and since PostgreSQL 16.
const KNOWN_NODES: &str = "'CONST', 'FUNCEXPR', 'NAMEDARGEXPR', 'OPEXPR', 'DISTINCTEXPR', 'NULLIFEXPR', 'SCALARARRAYOPEXPR', 'BOOLEXPR', \
     'RELABELTYPE', 'COERCEVIAIO', 'ARRAYCOERCEEXPR', 'COLLATE', 'COLLATEEXPR', 'CASE', 'CASEEXPR', 'WHEN', 'CASEWHEN', 'CASETESTEXPR', \
     'ARRAY', 'ARRAYEXPR', 'ROW', 'ROWEXPR', 'COALESCE', 'COALESCEEXPR', 'SQLVALUEFUNCTION', 'NULLTEST', 'BOOLEANTEST', 'COERCETODOMAIN', \
     'COERCETODOMAINVALUE', 'SUBSCRIPTINGREF', 'FIELDSELECT', 'NEXTVALUEEXPR'";

/// Those that call what the type of a value says: harmless over PostgreSQL's own types.
const NODES_OF_PLAIN_TYPES: &str = "'MINMAX', 'MINMAXEXPR', 'ROWCOMPARE', 'ROWCOMPAREEXPR', 'XMLEXPR', 'XML', 'JSONCONSTRUCTOREXPR', \
     'JSONRETURNING', 'JSONFORMAT', 'JSONVALUEEXPR', 'JSONISPREDICATE'";

/// Of the tables `$1` and their partitions: what calls code, whose the table is, and the name of the table.
/// `$2`: their triggers fire; those of a partition alone always do. `$3` and `$4`: table and name of each column that gets its values from
/// the file, and so no default. `$5`: the tables are emptied.
fn called() -> String {
    // `nextval` of a constant sequence, among all calls of it.
    let of_constant = r":funcid 1574 [^{}]*:args \(\{CONST :consttype 2205 ";
    format!(
        r"
WITH RECURSIVE trusted AS MATERIALIZED ({TRUSTED_ROLES}),
target(oid) AS (
  SELECT u.oid FROM pg_catalog.unnest($1::pg_catalog.oid[]) u(oid)
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN target ON target.oid = i.inhparent
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'),
tables AS (
  SELECT t.*, t.oid = ANY ($1) AS is_named, c.relname, n.nspname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS is_ours
  FROM target t
  JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
-- The defaults, and what is evaluated with them: the CHECKs of domains to which they convert.
items(rel, what, class, object, tree, type) AS (
  SELECT t.oid, pg_catalog.format('the default of %s', a.attname),
         CASE WHEN f.oid IS NULL THEN 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
              ELSE 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid END,
         COALESCE(f.oid, y.oid), COALESCE(f.adbin, y.typdefaultbin)::text, 0::pg_catalog.oid
  FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  WHERE t.is_named AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.oid[]), pg_catalog.unnest($4::text[])) s(rel, name)
                                   WHERE s.rel = t.oid AND s.name = a.attname)
  UNION SELECT i.rel, i.what, CASE WHEN n.origin <> 0 THEN 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid ELSE 0::pg_catalog.oid END, n.origin, n.tree, n.type
  FROM items i, LATERAL {EVALUATED_WITH_IT} n(tree, type, origin)),
trees AS (
  SELECT i.*, t.is_ours, t.relowner, {HAS_PLAIN_TYPES} AS is_plain FROM items i JOIN tables t ON t.oid = i.rel WHERE i.tree IS NOT NULL),
-- `is_fine`: where it is PostgreSQL's own, although it is not immutable.
functions(rel, what, function, is_fine) AS (
  SELECT i.rel, i.what, p.oid,
         p.oid < 16384 AND (p.proname IN ({GIVES_VALUES}) OR p.proname IN ({HARMLESS_STABLE}) OR p.proname IN ({CONVERTS_ANY}) AND i.is_plain
           -- Of sequences that the owner of the table may use himself.
           OR p.oid = 'pg_catalog.nextval(pg_catalog.regclass)'::pg_catalog.regprocedure
              AND (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(i.tree, ':funcid 1574 ', 'g'))
                = (SELECT pg_catalog.count(*) FROM pg_catalog.regexp_matches(i.tree, '{of_constant}', 'g'))
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                WHERE d.classid = i.class AND d.objid = i.object AND CASE WHEN s.relkind = 'S'
                  THEN NOT pg_catalog.has_sequence_privilege(i.relowner, s.oid, 'USAGE, UPDATE') END))
         OR p.oid >= 16384 AND p.proname IN ({EXTENSIONS_GIVE}) AND EXISTS (SELECT FROM pg_catalog.pg_depend d
              WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
  FROM trees i, LATERAL (
    SELECT m[1]::pg_catalog.oid FROM pg_catalog.regexp_matches(i.tree, ':[a-z]*funcid (\d+)', 'g') m
    UNION SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.regexp_matches(i.tree, ':opno (\d+)', 'g') m
      JOIN pg_catalog.pg_operator o ON o.oid = m[1]::pg_catalog.oid) c(oid)
  JOIN pg_catalog.pg_proc p ON p.oid = c.oid
  -- COPY fires what a table has for INSERT, and of a partition what it has for each row. 1: for each row, 4: INSERT, 32: TRUNCATE. Whoever
  -- made the trigger chose the arguments; a function that takes none was written for every table.
  UNION SELECT t.oid, pg_catalog.format('the trigger %s', g.tgname), g.tgfoid,
      g.tgfoid < 16384 AND p.proname IN ({HARMLESS_TRIGGERS})
      OR g.tgfoid >= 16384 AND g.tgnargs = 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
           WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = g.tgfoid AND d.deptype = 'e')
    FROM tables t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
    WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND ($2 OR NOT t.is_named AND g.tgparentid = 0)
      AND (g.tgtype & 4 <> 0 AND (t.is_named OR g.tgtype & 1 <> 0) OR g.tgtype & 32 <> 0 AND $5)),
bad(rel, what, does) AS (
  SELECT f.rel, f.what, pg_catalog.format('calls %s', p.oid::pg_catalog.regprocedure)
  FROM functions f JOIN tables t ON t.oid = f.rel JOIN pg_catalog.pg_proc p ON p.oid = f.function
  WHERE p.oid >= 16384 AND p.proowner NOT IN (SELECT oid FROM trusted)
     OR NOT t.is_ours AND NOT f.is_fine AND p.provolatile <> 'i'
  UNION ALL SELECT i.rel, i.what, pg_catalog.format('may call anything (%s)', m[1]) FROM trees i, pg_catalog.regexp_matches(i.tree, '\{{([A-Z_0-9]+)', 'g') m
    WHERE NOT i.is_ours AND m[1] NOT IN ({KNOWN_NODES}) AND NOT (i.is_plain AND m[1] IN ({NODES_OF_PLAIN_TYPES})))
SELECT DISTINCT ON (t.oid) t.nspname::text, t.relname::text, b.what, b.does,
       CASE WHEN t.is_ours THEN NULL ELSE pg_catalog.pg_get_userbyid(t.relowner)::text END
FROM tables t JOIN bad b ON b.rel = t.oid
ORDER BY t.oid, b.what, b.does"
    )
}

/// The partitions below the tables `$1` that are none of them, with the lowest of these above each: schema and name of both.
const BELOW: &str = "
WITH RECURSIVE below(oid, top, height) AS (
  SELECT i.inhrelid, i.inhparent, 1 FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p' WHERE i.inhparent = ANY ($1::pg_catalog.oid[])
  UNION SELECT i.inhrelid, b.top, b.height + 1 FROM pg_catalog.pg_inherits i JOIN below b ON b.oid = i.inhparent)
SELECT DISTINCT ON (c.oid) n.nspname::text, c.relname::text, tn.nspname::text, t.relname::text
FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = b.top JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
WHERE c.oid <> ALL ($1) ORDER BY c.oid, b.height";

/// What is done to the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// They are read, and get rows.
    Filled,
    /// They are emptied first.
    EmptiedAndFilled,
}

impl Use {
    /// `existing` is what the options say, and `has_rows` whether any of the tables has one.
    pub fn with(existing: Existing, has_rows: bool) -> Self {
        if existing == Existing::Recreate && has_rows { Self::EmptiedAndFilled } else { Self::Filled }
    }
}

/// Refuses an import that would run code of a role that is not trusted, unless that was asked for.
///
/// # Errors
/// Refused, with every table and what it would run; or the catalog can't be read.
pub async fn refuse(session: &Session, plan: &Plan, options: &ImportOptions, used: Use) -> Result<()> {
    if options.run_owners_code {
        return Ok(());
    }
    let empties = used == Use::EmptiedAndFilled;
    let names: Vec<&QualifiedName> = plan.tables.iter().map(|table| &table.target.name).collect();
    let oids: Vec<u32> = plan.tables.iter().map(|table| table.target.oid).collect();
    let failed = |source| Error::postgres("could not look for code that new rows would call", source);
    let mut code: Code = of_tables(session, &names).await?;
    let given = |table: &super::plan::TablePlan| {
        let oid = table.target.oid;
        table.columns.iter().map(move |column| (oid, column.target.name.clone())).collect::<Vec<_>>()
    };
    let (tables, columns): (Vec<u32>, Vec<String>) = plan.tables.iter().flat_map(given).unzip();
    let rows = session
        .query(&called(), &[&oids, &options.fire_triggers, &tables, &columns, &empties])
        .await
        .map_err(failed)?;
    for row in &rows {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let (what, does, owner): (String, String, Option<String>) = (row.get(2), row.get(3), row.get(4));
        let owner = owner.map(|owner| format!(" (the table belongs to \"{owner}\")")).unwrap_or_default();
        code.entry(name.short()).or_insert_with(|| printable(&format!("{what} {does}{owner}")));
    }
    if code.is_empty() {
        return Ok(());
    }
    let below = session.query(BELOW, &[&oids]).await.map_err(failed)?;
    let below: BTreeMap<String, String> = below.iter().map(place).collect();
    let shown = |table: &String| below.get(table).map(|place| format!(" ({place})")).unwrap_or_default();
    let tables: Vec<String> =
        code.iter().map(|(table, what)| format!("{table}{}: {what}", shown(table))).collect();
    Err(Error::refused(format!(
        "importing into these tables would run code of others with the rights of this role: {}",
        tables.join("; ")
    ))
    .with_hint(
        "Import as the role that owns the tables (--database-url with that role), or leave them out (--skip-table with the file's name of \
         the table, or of the one of which they are a part). --run-owners-code runs it with the rights of this role.",
    )
    .with_database_state("The database was not changed."))
}

/// The name of a partition, and of what it is one.
fn place(row: &common::postgres::Row) -> (String, String) {
    let name =
        |column| QualifiedName::new(row.get::<_, String>(column), row.get::<_, String>(column + 1)).short();
    (name(0), format!("a partition of {}", name(2)))
}

/// Refuses to put rows aside in a schema of somebody else, who could put another table under the name.
///
/// # Errors
/// Refused, with whose the schema is; or the catalog can't be read.
pub async fn refuse_others_schema(session: &Session) -> Result<()> {
    let asked = format!(
        "SELECT pg_catalog.pg_get_userbyid(n.nspowner)::text FROM pg_catalog.pg_namespace n
         WHERE n.nspname = 'safe_run' AND n.nspowner NOT IN ({TRUSTED_ROLES})"
    );
    let row = session
        .query_opt(&asked, &[])
        .await
        .map_err(|source| Error::postgres("could not look whose the schema safe_run is", source))?;
    let Some(row) = row else { return Ok(()) };
    let owner: String = row.get(0);
    Err(Error::refused(format!(
        "rows that are not taken over would be put aside in the schema safe_run, which belongs to {}",
        printable(&owner)
    ))
    .with_hint(
        "Look at what is there; then its owner or a superuser drops the schema, or makes it this role's (ALTER SCHEMA safe_run OWNER TO …).",
    )
    .with_database_state("The database was not changed."))
}
