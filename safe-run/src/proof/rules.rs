//! Tables whose rows have to pass code when they are restored: what held when a row was written may not hold now.

use std::collections::{HashMap, HashSet};

use common::{
    Error, QualifiedName, Result,
    format::plural,
    ident::printable,
    postgres::{Row, Session, rule_code},
    repository::proofs::KnownLoss,
};

/// Rows of this many bytes in all are restored in a trial; then those of the smallest tables.
const MOST_BYTES: i64 = 32 << 20;

/// What a trial has to look at.
#[derive(Debug, Default)]
pub struct Rules {
    /// Nothing of the user's runs in a restore, by the word of the catalog, and the role may make everything.
    pub is_plain: bool,
    /// Tables whose rows pass code.
    pub rows: HashSet<u32>,
    /// Names of tables whose rows are too many for a trial.
    pub too_large: Vec<String>,
    /// Tables of extensions of which no snapshot holds every row, and that are too large to be compared in a trial.
    pub untried: Vec<KnownLoss>,
    /// The rows of every table are in `rows`.
    pub is_all: bool,
    /// Tables with rows of which no trial can say that an undo takes them, each with the reason.
    pub uncertain: Vec<Uncertain>,
}

/// A table with rows that an undo by a snapshot might not take, or might take otherwise.
#[derive(Debug)]
pub struct Uncertain {
    name: String,
    why: String,
}

impl Rules {
    /// The end of a sentence about a trial: whose rows it was without.
    pub fn left_out(&self) -> String {
        let tables = plural(self.too_large.len() as u64, "table", "tables");
        self.too_large.first().map_or(String::new(), |name| {
            printable(&format!("; the rows of {tables} were too many for a trial, {name} first"))
        })
    }

    /// What an undo by a snapshot can't have because of them.
    pub fn uncertain(&self) -> Option<String> {
        let first = self.uncertain.first()?;
        let more = match self.uncertain.len() {
            1 => String::new(),
            n => format!(" (and of {})", plural(n as u64 - 1, "other table", "other tables")),
        };
        Some(printable(&format!(
            "the certainty that the rows of {}{more} pass their own rules as they did: {}",
            first.name, first.why
        )))
    }
}

/// Tables whose own rules run code that may say something else now than when the row was written: CHECK, domains, generated
/// columns, indexes, partition keys, statistics; and what materialized views read. With them those with values that are not taken
/// back unseen, though no code runs: of a domain that is NOT NULL, and names of objects, such as `regclass`.
///
/// What a recursion begins with is taken from `pg_class` and `pg_type`, whose sizes the planner knows: PostgreSQL 19 makes room for as
/// many rows as it expects at once, and once expected gigabytes of them.
///
/// An expression is trusted if it calls only what is immutable and comes with PostgreSQL or with an extension. `pg_depend` would
/// not do: it knows nothing of what PostgreSQL brings, `now()` included.
const TABLES: &str = r"
WITH RECURSIVE
 trees(relation, type, tree) AS (
  SELECT conrelid, contypid, conbin::text FROM pg_catalog.pg_constraint WHERE contype = 'c' AND convalidated
  UNION ALL SELECT d.adrelid, 0, d.adbin::text FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a
    ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated <> ''
  UNION ALL SELECT indrelid, 0, pg_catalog.concat(indexprs::text, indpred::text) FROM pg_catalog.pg_index
    WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
  UNION ALL SELECT partrelid, 0, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL
  UNION ALL SELECT stxrelid, 0, stxexprs::text FROM pg_catalog.pg_statistic_ext WHERE stxexprs IS NOT NULL),
 own(class, oid) AS (
  SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
 fickle(oid) AS (
  SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.provolatile <> 'i' OR p.oid >= 16384
    AND NOT EXISTS (SELECT FROM own WHERE own.class = 'pg_catalog.pg_proc'::pg_catalog.regclass AND own.oid = p.oid)),
 code(relation, type) AS (
  SELECT DISTINCT t.relation, t.type FROM trees t WHERE (t.relation >= 16384 OR t.type >= 16384) AND (
    EXISTS (SELECT FROM pg_catalog.regexp_matches(t.tree, '\{([A-Z_0-9]+)', 'g') m
            WHERE m[1] IN ('SQLVALUEFUNCTION', 'COERCEVIAIO', 'NEXTVALUEEXPR', 'XMLEXPR'))
    OR EXISTS (SELECT FROM pg_catalog.regexp_matches(t.tree, ':[a-z]*funcid ([0-9]+)', 'g') m JOIN fickle f ON f.oid = m[1]::oid)
    OR EXISTS (SELECT FROM pg_catalog.regexp_matches(t.tree, ':opno ([0-9]+)', 'g') m
               JOIN pg_catalog.pg_operator o ON o.oid = m[1]::oid JOIN fickle f ON f.oid = o.oprcode))),
 -- What a value of a type can be part of: for each, the types that hold it.
 parts(part, whole) AS MATERIALIZED (
  SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typbasetype <> 0
  UNION ALL SELECT typelem, oid FROM pg_catalog.pg_type WHERE typelem <> 0
  UNION ALL SELECT rngsubtype, rngtypid FROM pg_catalog.pg_range UNION ALL SELECT rngtypid, rngmultitypid FROM pg_catalog.pg_range
  UNION ALL SELECT DISTINCT a.atttypid, c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c
      ON c.oid = a.attrelid AND c.reltype <> 0 WHERE a.attnum > 0 AND a.attrelid >= 16384),
 -- Types whose values are looked at when they are read: by code; for NULL; for a name that has to be there.
 types(oid, calls) AS (
  SELECT t.oid, true FROM pg_catalog.pg_type t WHERE t.oid IN (SELECT type FROM code)
  UNION SELECT r.rngtypid, true FROM pg_catalog.pg_range r WHERE r.rngcanonical::oid IN (SELECT oid FROM fickle)
   OR r.rngsubopc >= 16384 AND NOT EXISTS (
      SELECT FROM own WHERE own.class = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND own.oid = r.rngsubopc)
  UNION SELECT t.oid, false FROM pg_catalog.pg_type t WHERE t.typtype = 'd' AND t.typnotnull
   OR t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typname IN ('regproc', 'regprocedure', 'regoper', 'regoperator',
      'regclass', 'regconfig', 'regdictionary', 'regcollation', 'regdatabase')
  UNION SELECT parts.whole, types.calls FROM types JOIN parts ON parts.part = types.oid),
 held(relation, calls) AS MATERIALIZED (
  SELECT a.attrelid, pg_catalog.bool_or(types.calls) FROM pg_catalog.pg_attribute a JOIN types ON types.oid = a.atttypid
   WHERE a.attnum > 0 AND a.attrelid >= 16384 AND NOT a.attisdropped GROUP BY 1),
 reads(oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind = 'm' AND c.relispopulated
  UNION SELECT d.refobjid FROM reads JOIN pg_catalog.pg_rewrite r ON r.ev_class = reads.oid
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass),
 tops(oid) AS MATERIALIZED (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid IN (SELECT relation FROM code)
   OR c.oid IN (SELECT relation FROM held)
   OR c.oid IN (SELECT oid FROM reads)
   OR c.oid IN (SELECT i.indrelid FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indclass::oid[]) u WHERE u >= 16384
    AND NOT EXISTS (SELECT FROM own WHERE own.class = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND own.oid = u))),
 wanted(oid) AS (
  SELECT oid FROM tops UNION SELECT i.inhrelid FROM wanted JOIN pg_catalog.pg_inherits i ON i.inhparent = wanted.oid),
 bound(oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid IN (
    SELECT t.relation FROM trees t WHERE t.relation >= 16384 AND (
      EXISTS (SELECT FROM pg_catalog.regexp_matches(t.tree, ':[a-z]*funcid ([0-9]+)', 'g') m
              JOIN fickle f ON f.oid = m[1]::oid AND f.oid >= 16384)
      OR EXISTS (SELECT FROM pg_catalog.regexp_matches(t.tree, ':opno ([0-9]+)', 'g') m
                 JOIN pg_catalog.pg_operator o ON o.oid = m[1]::oid
                 JOIN fickle f ON f.oid = o.oprcode AND f.oid >= 16384)))
   OR c.oid IN (SELECT relation FROM held WHERE calls)
  UNION SELECT i.inhrelid FROM bound JOIN pg_catalog.pg_inherits i ON i.inhparent = bound.oid)
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, z.rows + z.long AS bytes,
       EXISTS (SELECT FROM wanted WHERE wanted.oid = c.oid) AS is_wanted,
       EXISTS (SELECT FROM bound WHERE bound.oid = c.oid) AS is_bound, z.rows > 0 AS has_rows, n.nspname::text, c.relname::text,
       COALESCE(c.reltuples, 0)::bigint AS tuples,
       EXISTS (SELECT FROM own WHERE own.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND own.oid = c.oid)
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension x, ROWS FROM (pg_catalog.unnest(x.extconfig), pg_catalog.unnest(x.extcondition)) f(oid, condition)
                         WHERE f.oid = c.oid AND COALESCE(f.condition, '') = '') AS is_beside
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, LATERAL (
  SELECT pg_catalog.pg_relation_size(c.oid) AS rows, CASE c.reltoastrelid WHEN 0 THEN 0
    ELSE pg_catalog.pg_relation_size(c.reltoastrelid) END AS long OFFSET 0) z
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY bytes, c.oid";

/// Whether nothing of the user's can run in a restore, or be refused to a superuser.
const PLAIN: &str = "
SELECT r.rolsuper
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname <> 'plpgsql')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid >= 16384)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oid >= 16384)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('m', 'f'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_seclabel)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_shseclabel)
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

/// Reads the catalog.
pub async fn read(session: &Session) -> Result<Rules> {
    let failed = |source| Error::postgres("could not look for rules that run code", source);
    let is_plain: bool = session.query_one(PLAIN, &[]).await.map_err(failed)?.get(0);
    let tables = session.query(TABLES, &[]).await.map_err(failed)?;
    let is = |what: &'static str| move |row: &&Row| row.get::<_, bool>(what);
    let mut rules = Rules { is_plain, ..Rules::default() };
    if !tables.iter().any(|row| is("is_wanted")(&row)) {
        of_extensions(&mut rules, tables.iter().filter(is("is_beside")));
        return Ok(rules);
    }
    let all: i64 = tables.iter().map(|row| row.get::<_, i64>("bytes")).sum();
    // A function may read what it likes: a small database is tried with every row.
    let is_all = all <= MOST_BYTES;
    rules = Rules { is_all, ..Rules::default() };
    let with_rows: HashMap<u32, String> = tables
        .iter()
        .filter(|row| row.get("has_rows"))
        .map(|row| (row.get("oid"), row.get("name")))
        .collect();
    for code in rule_code::find(session).await? {
        if let (Some(name), Some(why)) = (with_rows.get(&code.oid), code.unsteady) {
            rules.uncertain.push(Uncertain { name: name.clone(), why });
        }
    }
    let mut bytes = 0;
    for row in tables.iter().filter(|row| is_all || is("is_wanted")(row)) {
        bytes += row.get::<_, i64>("bytes");
        if bytes <= MOST_BYTES {
            rules.rows.insert(row.get("oid"));
        } else {
            rules.too_large.push(row.get("name"));
            // Rows that break a CHECK come back all the same; where a function raises instead, they do not.
            if row.get("is_bound") {
                let why = "they are too many for a trial of what its rules call".to_owned();
                rules.uncertain.push(Uncertain { name: row.get("name"), why });
            }
        }
    }
    of_extensions(&mut rules, tables.iter().filter(is("is_beside")));
    Ok(rules)
}

/// Rows that pg_dump does not write: a trial tells which of them CREATE EXTENSION makes again.
fn of_extensions<'r>(rules: &mut Rules, tables: impl Iterator<Item = &'r Row>) {
    let mut bytes = 0;
    for row in tables {
        bytes += row.get::<_, i64>("bytes");
        if bytes <= MOST_BYTES || rules.rows.contains(&row.get("oid")) {
            rules.rows.insert(row.get("oid"));
        } else {
            let table = QualifiedName::new(row.get::<_, String>("nspname"), row.get::<_, String>("relname"));
            let line = format!(
                "table {} of an extension, whose rows pg_dump does not write and which are too many for a trial of what CREATE EXTENSION makes",
                table.short()
            );
            let rows = row.get::<_, i64>("tuples").max(1).unsigned_abs();
            rules.untried.push(KnownLoss { table, rows, line: printable(&line) });
        }
    }
}
