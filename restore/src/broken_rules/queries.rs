//! The catalog queries about rules that rows break.

/// Whether to read the definition of the constraint `k` calls nobody's code: each constant is of a type of PostgreSQL's own, an enum, or
/// a base type, whose input function no role but a superuser makes. Of an array, a range, a composite type or a domain it could.
macro_rules! is_plain {
    () => {
        "NOT EXISTS (SELECT FROM pg_catalog.regexp_matches(k.conbin::text, ':consttype ([0-9]+)', 'g') m
          JOIN pg_catalog.pg_type t ON t.oid = m[1]::pg_catalog.oid
          WHERE t.oid >= 16384 AND NOT (t.typtype IN ('b', 'e') AND t.typelem = 0))"
    };
}

/// A table's constraint with this name, and those that it is inherited from: where each stands by itself, the topmost first. No row
/// where `$3` is no CHECK constraint of the table, or the table is neither `$4`, whose rows are loaded, nor of its partition tree:
/// a function can raise what it likes, with the name of somebody else's constraint.
pub const OF_TABLE: &str = concat!(
    "
WITH RECURSIVE up(rel, height) AS (
  SELECT c.oid, 0 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2 AND c.oid IN (SELECT $4::text::pg_catalog.regclass::pg_catalog.oid UNION ALL
     SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.pg_partition_root($4::text::pg_catalog.regclass)))
  UNION ALL
  SELECT i.inhparent, up.height + 1 FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.rel
    JOIN pg_catalog.pg_constraint k ON k.conrelid = i.inhparent AND k.conname = $3 AND k.contype = 'c' AND NOT k.connoinherit)
SELECT n.nspname::text, c.relname::text, k.oid, pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.obj_description(k.oid, 'pg_constraint'), ",
    is_plain!(),
    "
FROM (SELECT rel, pg_catalog.max(height) AS height FROM up GROUP BY rel) u JOIN pg_catalog.pg_class c ON c.oid = u.rel
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.conname = $3 AND k.contype = 'c' AND k.conislocal
ORDER BY u.height DESC, 1, 2"
);

/// The same for a domain, and those that it is made of. No row where no value of the table `$4` is of it, nor a rule of the table
/// speaks of it.
pub const OF_DOMAIN: &str = concat!(
    "
WITH RECURSIVE held(typ) AS (
  SELECT a.atttypid FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = $4::text::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
  UNION SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND (
     d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid IN (SELECT k.oid FROM pg_catalog.pg_constraint k
       WHERE k.conrelid = $4::text::pg_catalog.regclass)
     OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid IN (SELECT f.oid FROM pg_catalog.pg_attrdef f
       WHERE f.adrelid = $4::text::pg_catalog.regclass))
  UNION SELECT n.typ FROM held JOIN pg_catalog.pg_type t ON t.oid = held.typ, LATERAL ",
    common::types_within!(),
    " n(typ)),
base(typ, depth) AS (
  SELECT t.oid, 0 FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
   WHERE n.nspname = $1 AND t.typname = $2 AND t.oid IN (SELECT typ FROM held)
  UNION ALL SELECT t.typbasetype, base.depth + 1 FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typ AND t.typtype = 'd')
SELECT n.nspname::text, t.typname::text, k.oid, pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.obj_description(k.oid, 'pg_constraint'), ",
    is_plain!(),
    "
FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typ JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
JOIN pg_catalog.pg_constraint k ON k.contypid = t.oid AND k.conname = $3 AND k.contype = 'c' ORDER BY base.depth LIMIT 1"
);

/// Whether something inherits from the table `$1` and does not belong to the role `$2`.
pub const HAS_HEIRS_OF_OTHERS: &str = "
WITH RECURSIVE heirs(oid) AS (
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1::text::pg_catalog.regclass
  UNION SELECT i.inhrelid FROM heirs JOIN pg_catalog.pg_inherits i ON i.inhparent = heirs.oid)
SELECT EXISTS (SELECT FROM heirs JOIN pg_catalog.pg_class c ON c.oid = heirs.oid WHERE c.relowner <> $2)";

/// The tables `$1` and all that inherits from them, each before what it inherits from.
pub const LEAVES_FIRST: &str = "
WITH RECURSIVE heirs(oid, depth) AS (
  SELECT t::pg_catalog.regclass::pg_catalog.oid, 0 FROM pg_catalog.unnest($1::text[]) t
  UNION ALL SELECT i.inhrelid, heirs.depth + 1 FROM heirs JOIN pg_catalog.pg_inherits i ON i.inhparent = heirs.oid)
SELECT n.nspname::text, c.relname::text
FROM (SELECT oid, pg_catalog.max(depth) AS depth FROM heirs GROUP BY oid) h JOIN pg_catalog.pg_class c ON c.oid = h.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY h.depth DESC, c.oid";

/// A row where the table `$HEIR` inherits from the table `$TABLE`; both are literals.
pub const INHERITS: &str = "
WITH RECURSIVE above(oid) AS (
  SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = $HEIR::pg_catalog.regclass
  UNION SELECT i.inhparent FROM above JOIN pg_catalog.pg_inherits i ON i.inhrelid = above.oid)
SELECT 1 FROM above WHERE oid = $TABLE::pg_catalog.regclass";
