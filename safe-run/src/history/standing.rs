//! Whether a history table may be used: reading it and writing a row must run nobody's code but ours.
//!
//! Triggers, rules, defaults, CHECKs, generated columns, policies and expressions of indexes run with the rights of whoever
//! writes, and that is the role that migrates. Who has CREATE on the database can make the schema `safe_run` before we do.
//! So our own table must belong to a trusted role (`common::postgres::trust`), its schema too. A table of another tool mostly
//! belongs to the role that runs the tool: one of a role that is not trusted is used only if it has no such code at all.
//! What a trusted owner made is his to make; what of it calls somebody else's code is not run either.

use common::{
    Error, QualifiedName, Result,
    ident::{literal, printable},
    postgres::{Client, trust::TRUSTED_ROLES},
};

/// What stands against using the table `$table` (a name literal each for schema and table); `$own`: it is ours by its name. One
/// row for each, or none; a first row says whether the table is there.
///
/// The session has the search_path of the migrations: every comparison is of two values of one type of PostgreSQL's own, so
/// that no operator of anybody else fits better. Defaults of an owner that is not trusted: constants, the time, a sequence.
fn problems(table: &QualifiedName, own: bool) -> String {
    let (schema, name) = (literal(table.schema.as_str()), literal(table.name.as_str()));
    format!(
        r"WITH trusted AS MATERIALIZED ({TRUSTED_ROLES}),
 s AS (SELECT n.oid, n.nspowner, n.nspowner IN (SELECT oid FROM trusted) AS is_trusted FROM pg_catalog.pg_namespace n
   WHERE n.nspname = {schema}::pg_catalog.name),
 t AS (SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, c.relowner IN (SELECT oid FROM trusted) AS is_trusted
   FROM pg_catalog.pg_class c WHERE c.relnamespace IN (SELECT oid FROM s) AND c.relname = {name}::pg_catalog.name),
 parts(class, oid, what) AS (
   SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, x.oid, pg_catalog.format('index %I', x.relname)
     FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
     WHERE t.is_trusted OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
   UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, o.oid, pg_catalog.format('constraint %I', o.conname)
     FROM t JOIN pg_catalog.pg_constraint o ON o.conrelid = t.oid WHERE o.contype IN ('c', 'x')
   UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid, d.oid, pg_catalog.format(
       CASE a.attgenerated WHEN '' THEN 'default of %I' ELSE 'generated column %I' END, a.attname)
     FROM t JOIN pg_catalog.pg_attrdef d ON d.adrelid = t.oid
     JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE t.is_trusted OR a.attgenerated <> '' OR pg_catalog.pg_get_expr(d.adbin, d.adrelid)
       !~ '^(now\(\)|CURRENT_(TIMESTAMP|DATE|USER)|(pg_catalog\.)?clock_timestamp\(\)|nextval\(''[^'']+''::regclass\)|true|false|NULL::[a-z ]+|-?[0-9.]+|''[^'']*''::[a-z ]+(\([0-9]+\))?)$'::pg_catalog.text
   UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass::pg_catalog.oid, e.oid, pg_catalog.format('statistics %I', e.stxname)
     FROM t JOIN pg_catalog.pg_statistic_ext e ON e.stxrelid = t.oid WHERE e.stxexprs IS NOT NULL
   UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid, r.oid, pg_catalog.format('rule %I', r.rulename)
     FROM t JOIN pg_catalog.pg_rewrite r ON r.ev_class = t.oid WHERE t.relkind = 'r'
   UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid, p.oid, pg_catalog.format('policy %I', p.polname)
     FROM t JOIN pg_catalog.pg_policy p ON p.polrelid = t.oid WHERE t.relrowsecurity
   UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid, g.oid, pg_catalog.format('trigger %I', g.tgname)
     FROM t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal),
 uses(what, object) AS (
   SELECT p.what, CASE d.refclassid
     WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid THEN (SELECT pg_catalog.format('function %s', o.oid::pg_catalog.regprocedure)
       FROM pg_catalog.pg_proc o WHERE o.oid = d.refobjid AND o.proowner NOT IN (SELECT oid FROM trusted))
     WHEN 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid THEN (SELECT pg_catalog.format('operator %s', o.oid::pg_catalog.regoperator)
       FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc f ON f.oid = o.oprcode::pg_catalog.oid
       WHERE o.oid = d.refobjid AND (o.oprowner NOT IN (SELECT oid FROM trusted) OR f.proowner NOT IN (SELECT oid FROM trusted)))
     WHEN 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid THEN (SELECT pg_catalog.format('type %s', o.oid::pg_catalog.regtype)
       FROM pg_catalog.pg_type o WHERE o.oid = d.refobjid AND o.typowner NOT IN (SELECT oid FROM trusted))
     WHEN 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid THEN (SELECT pg_catalog.format('relation %s', o.oid::pg_catalog.regclass)
       FROM pg_catalog.pg_class o WHERE o.oid = d.refobjid AND o.relkind <> 'S' AND o.relowner NOT IN (SELECT oid FROM trusted))
     END
   FROM t, parts p JOIN pg_catalog.pg_depend d ON d.classid = p.class AND d.objid = p.oid AND d.refobjid >= 16384::pg_catalog.oid
   WHERE t.is_trusted)
SELECT NULL::pg_catalog.text, EXISTS (SELECT FROM t)
UNION ALL SELECT pg_catalog.format('it is a %s and not a table', CASE t.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
    WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' WHEN 'S' THEN 'sequence' ELSE 'relation of another kind' END), true FROM t WHERE t.relkind <> 'r'
UNION ALL SELECT pg_catalog.format('schema %I belongs to %s', {schema}::pg_catalog.text, pg_catalog.pg_get_userbyid(s.nspowner)), true
  FROM s WHERE {own} AND NOT s.is_trusted
UNION ALL SELECT pg_catalog.format('it belongs to %s', pg_catalog.pg_get_userbyid(t.relowner)), true FROM t WHERE {own} AND NOT t.is_trusted
UNION ALL SELECT pg_catalog.format('it has %s', p.what), true FROM t, parts p WHERE NOT t.is_trusted
UNION ALL SELECT pg_catalog.format('its %s uses %s of another role', u.what, u.object), true FROM uses u WHERE u.object IS NOT NULL
UNION ALL SELECT pg_catalog.format('its column %I has type %s, which belongs to %s', a.attname, a.atttypid::pg_catalog.regtype,
    pg_catalog.pg_get_userbyid(y.typowner)), true
  FROM t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0::pg_catalog.int2 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type y ON y.oid = a.atttypid WHERE y.typowner NOT IN (SELECT oid FROM trusted)
UNION ALL SELECT pg_catalog.format('it and %s inherit from each other', r.oid::pg_catalog.regclass), true
  FROM t JOIN pg_catalog.pg_inherits h ON h.inhrelid = t.oid OR h.inhparent = t.oid
  JOIN pg_catalog.pg_class r ON r.oid IN (h.inhrelid, h.inhparent) AND r.oid <> t.oid
  WHERE NOT t.is_trusted OR r.relowner NOT IN (SELECT oid FROM trusted)
UNION ALL SELECT pg_catalog.format('it has no column %s of type %s', w.name, w.kind), true
  FROM t, (VALUES ('version', 'text'), ('description', 'text'), ('file_name', 'text'), ('checksum', 'text'), ('checksum_normalized', 'text'),
    ('applied_at', 'timestamp with time zone'), ('applied_by', 'text'), ('execution_ms', 'bigint'), ('run', 'text')) w(name, kind)
  WHERE {own} AND t.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.oid
    AND a.attname = w.name::pg_catalog.name AND NOT a.attisdropped AND pg_catalog.format_type(a.atttypid, NULL) = w.kind)"
    )
}

/// Whether the table is there.
///
/// # Errors
/// Refused where reading it, or writing into it, would run somebody else's code with the rights of this session.
pub async fn look(client: &Client, table: &QualifiedName, own: bool) -> Result<bool> {
    let failed = |source| Error::postgres(format!("could not look who made {}", table.short()), source);
    let rows = client.query(&problems(table, own), &[]).await.map_err(failed)?;
    let mut is_there = false;
    let mut against: Vec<String> = Vec::new();
    for row in &rows {
        match row.get::<_, Option<String>>(0) {
            None => is_there = row.get(1),
            Some(problem) => against.push(printable(&problem)),
        }
    }
    if against.is_empty() {
        return Ok(is_there);
    }
    let who = "another role made it so, and its code would run with the rights of the role that migrates";
    let hint = if own {
        format!(
            "Look at what is there: {who}. Then drop it (DROP SCHEMA safe_run CASCADE forgets which migrations are applied), or make \
             it yours: ALTER SCHEMA safe_run OWNER TO CURRENT_USER; ALTER TABLE safe_run.migrations OWNER TO CURRENT_USER. Or \
             migrate as the role that it belongs to."
        )
    } else {
        format!(
            "Look at what is there: {who}. Take it away, or migrate as the role that the table belongs to."
        )
    };
    Err(Error::refused(format!(
        "{} can't be used as the history of migrations: {}",
        table.short(),
        against.join("; ")
    ))
    .with_hint(hint))
}
