//! Whose code an import would run with the rights of whoever imports, and the refusal of it: the rules of `restore --table`
//! ([`restore::parts::rights`]), and what only new rows call, which are defaults and triggers.

use common::{
    Error, QualifiedName, Result,
    ident::printable,
    postgres::{Session, trust::TRUSTED_ROLES},
};
use restore::parts::rights::{Code, of_tables};

use super::{choices::Existing, options::ImportOptions, plan::Plan};

/// What PostgreSQL and its own extensions give anew for each row, and nothing else.
const GIVES_VALUES: &str = "'nextval', 'random', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'uuidv4', 'uuidv7', 'gen_random_bytes', \
     'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4'";

/// Stable functions of PostgreSQL that tell every role the same, or nothing that is secret: the others whose names begin with `pg_`, and
/// `current_setting`, tell a superuser what the owner of the table may not read.
const TELLS_NOTHING: &str = "'pg_backend_pid', 'pg_client_encoding', 'pg_typeof', 'pg_get_userbyid', 'pg_trigger_depth', 'pg_my_temp_schema'";

/// Of the tables `$1`, their partitions, and what is truncated with them: what calls code, whose the table is, and the name of the table.
/// `$2`: their triggers fire; those of a partition alone always do. `$3` and `$4`: table and name of each column that gets its values from
/// the file, and so no default. `$5`: the tables are emptied, and with them the tables that inherit from them.
fn called() -> String {
    format!(
        r"
WITH RECURSIVE trusted AS MATERIALIZED ({TRUSTED_ROLES}),
target(oid, is_named, gets_rows) AS (
  SELECT u.oid, true, true FROM pg_catalog.unnest($1::pg_catalog.oid[]) u(oid)
  UNION SELECT i.inhrelid, false, p.relkind = 'p' AND target.gets_rows FROM pg_catalog.pg_inherits i JOIN target ON target.oid = i.inhparent
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND (p.relkind = 'p' OR $5)),
tables AS (
  SELECT t.*, c.relname, n.nspname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS is_ours
  FROM target t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
-- The defaults, and the CHECKs of the domains to which they convert.
items(rel, what, tree, type) AS (
  SELECT t.oid, pg_catalog.format('the default of %s', a.attname), COALESCE(f.adbin, y.typdefaultbin)::text, 0::pg_catalog.oid
  FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  WHERE t.is_named AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.oid[]), pg_catalog.unnest($4::text[])) s(rel, name)
                                   WHERE s.rel = t.oid AND s.name = a.attname)
  UNION SELECT i.rel, i.what, n.tree, n.type FROM items i, LATERAL (
    SELECT NULL::text, m[1]::pg_catalog.oid FROM pg_catalog.regexp_matches(i.tree, ':resulttype (\d+)', 'g') m
    UNION ALL SELECT k.conbin::text, 0::pg_catalog.oid FROM pg_catalog.pg_constraint k
      WHERE i.type <> 0 AND k.contypid = i.type AND k.contype = 'c'
    UNION ALL SELECT NULL, y.typbasetype FROM pg_catalog.pg_type y WHERE i.type <> 0 AND y.oid = i.type AND y.typtype = 'd') n(tree, type)),
functions(rel, what, function) AS (
  SELECT i.rel, i.what, m[1]::pg_catalog.oid FROM items i, pg_catalog.regexp_matches(i.tree, ':[a-z]*funcid (\d+)', 'g') m
  UNION SELECT i.rel, i.what, o.oprcode::pg_catalog.oid FROM items i, pg_catalog.regexp_matches(i.tree, ':opno (\d+)', 'g') m
    JOIN pg_catalog.pg_operator o ON o.oid = m[1]::pg_catalog.oid
  -- COPY fires what a table has for INSERT, and of a partition what it has for each row. 1: for each row, 4: INSERT, 32: TRUNCATE.
  UNION SELECT t.oid, pg_catalog.format('the trigger %s', g.tgname), g.tgfoid FROM tables t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid
    WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND ($2 OR NOT t.is_named AND g.tgparentid = 0)
      AND (g.tgtype & 4 <> 0 AND t.gets_rows AND (t.is_named OR g.tgtype & 1 <> 0) OR g.tgtype & 32 <> 0 AND $5)),
bad(rel, what, does) AS (
  SELECT f.rel, f.what, pg_catalog.format('calls %s', p.oid::pg_catalog.regprocedure)
  FROM functions f JOIN tables t ON t.oid = f.rel JOIN pg_catalog.pg_proc p ON p.oid = f.function
  WHERE p.oid >= 16384 AND p.proowner NOT IN (SELECT oid FROM trusted)
     OR NOT t.is_ours AND (p.provolatile = 'v' AND p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype AND p.proname NOT IN ({GIVES_VALUES})
                           OR p.oid < 16384 AND p.provolatile = 's' AND p.proname NOT IN ({TELLS_NOTHING})
                              AND (pg_catalog.starts_with(p.proname::text, 'pg_') OR p.proname = 'current_setting')
                           OR p.oid < 16384 AND pg_catalog.strpos(p.proname::text, '_to_xml') > 0)
  -- What compares or converts rows calls what their types say.
  UNION ALL SELECT i.rel, i.what, 'compares or converts rows' FROM items i JOIN tables t ON t.oid = i.rel
    WHERE NOT t.is_ours AND i.tree ~ '\{{(ROWCOMPAREEXPR|CONVERTROWTYPEEXPR) ')
SELECT DISTINCT ON (t.oid) t.nspname::text, t.relname::text, b.what, b.does,
       CASE WHEN t.is_ours THEN NULL ELSE pg_catalog.pg_get_userbyid(t.relowner)::text END
FROM tables t JOIN bad b ON b.rel = t.oid
ORDER BY t.oid, b.what, b.does"
    )
}

/// Refuses an import that would run code of a role that is not trusted, unless that was asked for.
///
/// # Errors
/// Refused, with every table and what it would run; or the catalog can't be read.
pub async fn refuse(session: &Session, plan: &Plan, options: &ImportOptions) -> Result<()> {
    if options.run_owners_code {
        return Ok(());
    }
    let empties = options.existing == Existing::Recreate;
    let names: Vec<&QualifiedName> = plan.tables.iter().map(|table| &table.target.name).collect();
    let oids: Vec<u32> = plan.tables.iter().map(|table| table.target.oid).collect();
    let mut code: Code = of_tables(session, &names).await?;
    let given = |table: &super::plan::TablePlan| {
        let oid = table.target.oid;
        table.columns.iter().map(move |column| (oid, column.target.name.clone())).collect::<Vec<_>>()
    };
    let (tables, columns): (Vec<u32>, Vec<String>) = plan.tables.iter().flat_map(given).unzip();
    let rows = session
        .query(&called(), &[&oids, &options.fire_triggers, &tables, &columns, &empties])
        .await
        .map_err(|source| Error::postgres("could not look for code that new rows would call", source))?;
    for row in &rows {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let (what, does, owner): (String, String, Option<String>) = (row.get(2), row.get(3), row.get(4));
        let owner = owner.map(|owner| format!(" (the table belongs to \"{owner}\")")).unwrap_or_default();
        code.entry(name.short()).or_insert_with(|| printable(&format!("{what} {does}{owner}")));
    }
    if code.is_empty() {
        return Ok(());
    }
    let tables: Vec<String> = code.iter().map(|(table, what)| format!("{table}: {what}")).collect();
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
