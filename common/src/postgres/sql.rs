//! Every fixed query of the shared library, each with what it answers. They run with an empty `search_path`, on
//! PostgreSQL 14 to 19; columns that only some majors have are read through `to_jsonb`.

use super::{
    shared_text,
    trust::{is_trusted, trusted_roles},
};

/// Database-level state of a database, the current one if `$1` is NULL: one row.
pub const DATABASE_STATE: &str = "
SELECT d.datname, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding,
       d.datcollate::text AS collate, d.datctype::text AS ctype,
       CASE pg_catalog.to_jsonb(d)->>'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END AS provider,
       COALESCE(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale') AS locale,
       pg_catalog.to_jsonb(d)->>'daticurules' AS icu_rules,
       pg_catalog.to_jsonb(d)->>'datcollversion' AS collation_version,
       pg_catalog.pg_get_userbyid(d.datdba) AS owner, t.spcname AS tablespace, d.datconnlimit, d.datistemplate,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
       -- A list that says what holds without one is none.
       d.datacl IS NOT NULL AND EXISTS (
         (SELECT a.grantee, a.privilege_type, a.is_grantable, 1 FROM pg_catalog.aclexplode(d.datacl) a
          EXCEPT SELECT a.grantee, a.privilege_type, a.is_grantable, 1
            FROM pg_catalog.aclexplode(pg_catalog.acldefault('d', d.datdba)) a)
         UNION ALL (SELECT a.grantee, a.privilege_type, a.is_grantable, 2
            FROM pg_catalog.aclexplode(pg_catalog.acldefault('d', d.datdba)) a
          EXCEPT SELECT a.grantee, a.privilege_type, a.is_grantable, 2 FROM pg_catalog.aclexplode(d.datacl) a)) AS has_acl
FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
WHERE d.datname = COALESCE($1::text, pg_catalog.current_database())";

/// The grants of the same database, in the order in which they were given.
pub const DATABASE_GRANTS: &str = "
SELECT pg_catalog.pg_get_userbyid(a.grantor) AS grantor, CASE a.grantee WHEN 0 THEN NULL
       ELSE pg_catalog.pg_get_userbyid(a.grantee) END AS grantee, a.privilege_type, a.is_grantable
FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
WHERE d.datname = COALESCE($1::text, pg_catalog.current_database())";

/// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET` of the same database.
pub const DATABASE_SETTINGS: &str = "
SELECT CASE s.setrole WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(s.setrole) END AS role,
       pg_catalog.split_part(c, '=', 1) AS name,
       pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) AS value
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
     pg_catalog.unnest(s.setconfig) WITH ORDINALITY u(c, n)
WHERE d.datname = COALESCE($1::text, pg_catalog.current_database()) ORDER BY s.setrole, u.n";

/// Security labels of the same database.
pub const DATABASE_LABELS: &str = "
SELECT l.provider, l.label FROM pg_catalog.pg_shseclabel l JOIN pg_catalog.pg_database d ON d.oid = l.objoid
WHERE l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND d.datname = COALESCE($1::text, pg_catalog.current_database())";

/// Which relations hold or route the user's rows: plain and partitioned tables outside of the system schemas that no
/// extension owns, and the extensions' configuration tables.
macro_rules! where_user_table {
    () => {
        "
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
           THEN EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig))
           ELSE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' END"
    };
}

/// The user's tables. Takes no lock on any of them: asking for its size would wait for who has locked it.
pub const RELATIONS: &str = concat!(
    "SELECT c.oid, n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
    where_user_table!(),
    " ORDER BY c.oid"
);

/// The user's tables with what a copy has to know, and the extensions' filters. They must be locked already; with `$1`, those
/// with these oids, and of the others the size is not asked for.
pub const TABLES: &str = concat!(
    "SELECT c.oid, n.nspname, c.relname, c.relkind::text AS kind, c.relpersistence::text AS persistence,
       COALESCE(am.amname = 'heap', false) AS is_heap,
       CASE WHEN c.relkind = 'r' AND ($1::pg_catalog.oid[] IS NULL OR c.oid = ANY ($1)) THEN pg_catalog.pg_relation_size(c.oid, 'main')
            / pg_catalog.current_setting('block_size')::bigint ELSE 0 END AS blocks,
       CASE WHEN c.relkind = 'r' AND c.reltoastrelid <> 0 AND ($1::pg_catalog.oid[] IS NULL OR c.oid = ANY ($1))
            THEN pg_catalog.pg_relation_size(c.reltoastrelid, 'main') / pg_catalog.current_setting('block_size')::bigint
            ELSE 0 END AS toast_blocks,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
       (SELECT COALESCE(f.filter, '') FROM pg_catalog.pg_extension e, ROWS FROM (pg_catalog.unnest(e.extconfig),
             pg_catalog.unnest(e.extcondition)) f(oid, filter) WHERE f.oid = c.oid LIMIT 1) AS extension_filter,
       c.relispartition
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam",
    where_user_table!(),
    " ORDER BY c.oid"
);

/// Leaf partitions below a hash-partitioned table whose key may hash differently in another database (an enum hashes
/// by oid, and so does whatever contains one; a nondeterministic collation hashes by its library's version), with the
/// root they are to be loaded through and the root's columns: the leaves may have them in another order.
pub const UNSTABLE_HASH_PARTITIONS: &str = "
SELECT leaf.relid::oid AS leaf, rn.nspname, r.relname,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0
             AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns
FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace,
     pg_catalog.pg_partition_tree(r.oid) leaf
WHERE r.relkind = 'p' AND NOT r.relispartition AND leaf.isleaf
  AND EXISTS (SELECT FROM pg_catalog.pg_partition_tree(r.oid) p
              JOIN pg_catalog.pg_partitioned_table pt ON pt.partrelid = p.relid
              WHERE pt.partstrat = 'h' AND (EXISTS (SELECT FROM pg_catalog.unnest(pt.partclass::oid[]) k
                  JOIN pg_catalog.pg_opclass o ON o.oid = k WHERE o.opcname IN
                  ('enum_ops', 'array_ops', 'record_ops', 'range_ops', 'multirange_ops'))
                OR EXISTS (SELECT FROM pg_catalog.unnest(pt.partcollation::oid[]) k
                  JOIN pg_catalog.pg_collation l ON l.oid = k WHERE NOT l.collisdeterministic)))";

/// Relations of this database that the session with the process id `$1` has locked, in the mode `$2` unless it is NULL.
pub const LOCKED_BY: &str = "
SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database
WHERE l.pid = $1 AND l.locktype = 'relation' AND l.granted AND d.datname = pg_catalog.current_database()
  AND ($2::pg_catalog.text IS NULL OR l.mode = $2)";

/// Which table is a partition or an heir of which.
pub const INHERITS: &str = "
SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' ORDER BY 1, i.inhseqno";

/// Everything that a pattern for tables can name, with the table that owns a sequence (or 0), but for what belongs to extensions and is no configuration table or sequence.
pub const CANDIDATES: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind::text,
       COALESCE((SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE c.relkind = 'S' AND d.objid = c.oid
                 AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass LIMIT 1), 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
  AND CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
           THEN c.relkind IN ('r', 'p', 'S') AND EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig))
           ELSE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' END
ORDER BY c.oid";

/// What can't be without the relations `$1`: catalog and oid of each, and the table whose default or CHECK it is (or 0).
/// A partition, and what it has from its parent, can be without it.
pub const DEPENDENTS: &str = "
WITH RECURSIVE lost(class, object) AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, o FROM pg_catalog.unnest($1::pg_catalog.oid[]) o
  UNION
  SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END,
         COALESCE(r.ev_class, d.objid)
  FROM lost JOIN pg_catalog.pg_depend d ON d.refclassid = lost.class AND d.refobjid = lost.object
  LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
    AND r.rulename = '_RETURN'
  WHERE d.deptype IN ('n', 'a', 'i')
    AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (SELECT FROM pg_catalog.pg_inherits i
             JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
             WHERE i.inhrelid = d.objid AND i.inhparent = d.refobjid)))
SELECT lost.class, lost.object,
       COALESCE((SELECT f.adrelid FROM pg_catalog.pg_attrdef f WHERE f.oid = lost.object
                 AND lost.class = 'pg_catalog.pg_attrdef'::pg_catalog.regclass),
                (SELECT k.conrelid FROM pg_catalog.pg_constraint k WHERE k.oid = lost.object AND k.contype = 'c'
                 AND lost.class = 'pg_catalog.pg_constraint'::pg_catalog.regclass), 0)
FROM lost";

/// Sequences whose state is the user's, without their values; whether each is ours, and whether the server tells the state of
/// any by its oid.
pub const SEQUENCES: &str = concat!(
    "SELECT c.oid, n.nspname, c.relname, s.seqincrement,
       c.relowner IN (",
    trusted_roles!(),
    ") AND n.nspowner IN (",
    trusted_roles!(),
    ") AS is_ours, pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 180000 AS tells_all
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
  AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   AND d.objid = c.oid AND d.deptype = 'e') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
       OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
ORDER BY c.oid"
);

/// Where the sequences `$1` stand, from PostgreSQL 18 on: oid, value, whether it was used. Those that the role may not read are
/// left out.
pub const SEQUENCE_DATA: &str = "
SELECT s.oid, d.last_value, d.is_called FROM pg_catalog.unnest($1::pg_catalog.oid[]) s(oid),
  LATERAL pg_catalog.pg_get_sequence_data(s.oid::pg_catalog.regclass) d WHERE d.last_value IS NOT NULL";

/// Where those of the sequences `$1` stand that have been used.
pub const SEQUENCE_LAST_VALUES: &str = "
SELECT v.oid, v.last_value, true FROM (SELECT s.oid, pg_catalog.pg_sequence_last_value(s.oid) AS last_value
  FROM pg_catalog.unnest($1::pg_catalog.oid[]) s(oid)) v WHERE v.last_value IS NOT NULL";

/// Which of the tables `$1` has a foreign key to which other one.
pub const REFERENCES: &str = "
SELECT DISTINCT conrelid, confrelid FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND conrelid <> confrelid AND conrelid = ANY ($1) ORDER BY 1, 2";

/// Installed extensions.
pub const EXTENSIONS: &str = "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY extname";

/// Materialized views.
pub const MATERIALIZED_VIEWS: &str = "
SELECT c.oid, n.nspname, c.relname, c.relispopulated
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.oid";

/// Which views and materialized views read which relations.
pub const VIEW_DEPENDENCIES: &str = "
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind IN ('v', 'm')";

/// The roles that the database uses: owners, who holds privileges, whose settings it has.
macro_rules! roles_in_use {
    () => {
        "
FROM pg_catalog.pg_roles r WHERE r.rolname NOT LIKE 'pg\\_%' AND r.oid IN (
  SELECT d.refobjid FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_database b ON b.datname = pg_catalog.current_database()
   WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
     AND (d.dbid = b.oid OR (d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND d.objid = b.oid))
  UNION SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
  UNION SELECT setrole FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database b ON b.oid = s.setdatabase
   WHERE b.datname = pg_catalog.current_database()
  UNION SELECT c.relowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
  UNION SELECT n.nspowner FROM pg_catalog.pg_namespace n
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'public') AND n.nspname NOT LIKE 'pg\\_%'
  UNION SELECT p.proowner FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
  UNION SELECT lomowner FROM pg_catalog.pg_largeobject_metadata)"
    };
}

/// Roles that own something in the current database, hold a grant there, or are named by a policy or a default
/// privilege. Dependencies on the bootstrap superuser are not recorded, so owners are asked for as well.
///
/// One row for each: name, attributes, connection limit, valid until, memberships as two arrays
/// (the names as bytes), settings in all databases, comment.
pub fn roles() -> String {
    format!(
        "SELECT r.rolname::text,
       ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
             CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
             CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
             CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
             CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
             CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
             CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END] AS attributes,
       r.rolconnlimit, r.rolvaliduntil::text,
       ARRAY(SELECT {group} FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY g.rolname) AS member_of,
       ARRAY(SELECT m.admin_option FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY g.rolname) AS may_admit,
       COALESCE((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0),
                '{{}}') AS settings,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment{from}
ORDER BY 1",
        group = shared_text::bytes("g.rolname"),
        from = roles_in_use!()
    )
}

/// The names of the same roles, as bytes in hexadecimal.
pub fn role_names() -> String {
    format!(
        "SELECT pg_catalog.encode({}, 'hex') {} ORDER BY 1",
        shared_text::bytes("r.rolname"),
        roles_in_use!()
    )
}

/// The privileges of the objects `$of` that differ from `$usual`, the owner's own aside. `is_given`: held beyond it; otherwise a part of
/// it that was taken away.
macro_rules! object_grants {
    ($usual:literal, $of:literal) => {
        concat!(
            "
SELECT DISTINCT i.type || ' ' || i.identity AS object, g.rolname::text AS grantee, a.privilege_type, a.is_grantable,
       a.is_given, o.class, o.object AS oid,
       (SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = o.class AND d.objid = o.object AND d.deptype = 'e'
           AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass) AS extension
FROM (SELECT b.*, ", $usual, " AS usual FROM (
      SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, oid AS object, 0 AS sub, relacl AS acl, relowner AS owner,
             CASE relkind WHEN 'S' THEN 's' ELSE 'r' END AS kind FROM pg_catalog.pg_class
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, t.attnum, t.attacl, c.relowner, 'c'
        FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid WHERE NOT t.attisdropped
      UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 0, nspacl, nspowner, 'n' FROM pg_catalog.pg_namespace
      UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 0, proacl, proowner, 'f' FROM pg_catalog.pg_proc
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 0, typacl, typowner, 'T' FROM pg_catalog.pg_type
      UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 0, lanacl, lanowner, 'l' FROM pg_catalog.pg_language
      UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, 0, fdwacl, fdwowner, 'F'
        FROM pg_catalog.pg_foreign_data_wrapper
      UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, 0, srvacl, srvowner, 'S'
        FROM pg_catalog.pg_foreign_server) b
  LEFT JOIN pg_catalog.pg_init_privs p ON p.objoid = b.object AND p.classoid = b.class AND p.objsubid = b.sub AND p.privtype = 'i'
  WHERE b.acl IS NOT NULL) o
CROSS JOIN LATERAL (
      (SELECT true AS is_given, x.grantee, x.privilege_type, x.is_grantable FROM pg_catalog.aclexplode(o.acl) x
       EXCEPT SELECT true, x.grantee, x.privilege_type, x.is_grantable
         FROM pg_catalog.aclexplode(o.usual) x)
      UNION ALL
      (SELECT false, x.grantee, x.privilege_type, x.is_grantable
         FROM pg_catalog.aclexplode(o.usual) x
       EXCEPT SELECT false, x.grantee, x.privilege_type, x.is_grantable FROM pg_catalog.aclexplode(o.acl) x)) a
LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.class, o.object, o.sub) i
-- The entry of a role that is gone is nobody's grant.
WHERE o.acl IS DISTINCT FROM o.usual AND i.identity IS NOT NULL AND a.grantee <> o.owner AND (a.grantee = 0 OR g.oid IS NOT NULL)
  AND ", $of, "
ORDER BY 1, 2, 3, 4"
        )
    };
}

/// How the privileges on the user's objects differ from those that an object of its kind has when nobody has granted or
/// revoked anything, the owner's own aside. `is_given`: held beyond the default; otherwise a part of the default that was
/// taken away. Large objects and the database itself have their own; what initdb made is left out, but for its schema public, whose
/// oid is 2200 (`PG_PUBLIC_NAMESPACE`) under whatever name it goes now.
///
/// Not the entries as they stand: `GRANT EXECUTE … TO PUBLIC` writes down what holds for every function anyway, and pg_dump
/// rightly does not repeat it.
pub const OBJECT_GRANTS: &str = object_grants!(
    "pg_catalog.acldefault(b.kind::\"char\", b.owner)",
    "(o.object >= 16384 OR (o.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND o.object = 2200))"
);

/// The same of what initdb made, but for the schema public, compared with what initdb gave.
pub const BUILTIN_GRANTS: &str = object_grants!(
    "COALESCE(p.initprivs, pg_catalog.acldefault(b.kind::\"char\", b.owner))",
    "o.object < 16384 AND NOT (o.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND o.object = 2200)"
);

/// Whether the schema public is gone.
pub const LACKS_PUBLIC: &str = "SELECT pg_catalog.to_regnamespace('public') IS NULL";

/// Of the objects `$1`, named as grants name them: the words of GRANT and REVOKE for each, and its column, if it is one.
pub const GRANT_TARGETS: &str = "
SELECT n.object, n.target, n.attribute FROM (
  SELECT i.type || ' ' || i.identity AS object, o.target, o.attribute
  FROM (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, c.oid AS object, 0 AS sub, NULL AS attribute,
               pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, s.nspname, c.relname) AS target
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, t.attnum, t.attname::text,
               pg_catalog.format('TABLE %I.%I', s.nspname, c.relname)
          FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid
          JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
         WHERE NOT t.attisdropped AND t.attnum > 0 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 0, NULL, pg_catalog.format('SCHEMA %I', nspname)
          FROM pg_catalog.pg_namespace
        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 0, NULL,
               'ROUTINE ' || oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc
        UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 0, NULL,
               pg_catalog.format('TYPE %I.%I', s.nspname, t.typname)
          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace s ON s.oid = t.typnamespace
        UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 0, NULL, pg_catalog.format('LANGUAGE %I', lanname)
          FROM pg_catalog.pg_language
        UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, 0, NULL,
               pg_catalog.format('FOREIGN DATA WRAPPER %I', fdwname) FROM pg_catalog.pg_foreign_data_wrapper
        UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, 0, NULL,
               pg_catalog.format('FOREIGN SERVER %I', srvname) FROM pg_catalog.pg_foreign_server) o,
       pg_catalog.pg_identify_object(o.class, o.object, o.sub) i) n
WHERE n.object = ANY ($1)";

/// Every object with an owner that can be altered by itself: type and identity as PostgreSQL names them, and the owner.
///
/// Read from the catalogs and not from `pg_shdepend`, which does not record what the bootstrap superuser owns. Left out:
/// members of extensions, what follows another object (row types, arrays, multiranges, sequences of columns), and what lies in the
/// temporary schema of another session, with which it goes.
pub const OWNERS: &str = "
SELECT i.type, i.identity, pg_catalog.pg_get_userbyid(o.owner)::text AS owner
FROM (SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass::oid AS class, oid AS object, nspowner AS owner, oid = 2200 AS always
        FROM pg_catalog.pg_namespace
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relowner, false FROM pg_catalog.pg_class c
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
           OR c.relkind = 'S' AND c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
              WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i'))
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner, false FROM pg_catalog.pg_type t
        WHERE t.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type b WHERE b.typarray = t.oid)
          AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
      UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, proowner, false FROM pg_catalog.pg_proc
      UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprowner, false FROM pg_catalog.pg_operator
      UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcowner, false FROM pg_catalog.pg_opclass
      UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfowner, false FROM pg_catalog.pg_opfamily
      UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collowner, false FROM pg_catalog.pg_collation
      UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, conowner, false FROM pg_catalog.pg_conversion
      UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgowner, false FROM pg_catalog.pg_ts_config
      UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictowner, false FROM pg_catalog.pg_ts_dict
      UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid, stxowner, false FROM pg_catalog.pg_statistic_ext
      UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, lanowner, false FROM pg_catalog.pg_language
      UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, fdwowner, false
        FROM pg_catalog.pg_foreign_data_wrapper
      UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, srvowner, false FROM pg_catalog.pg_foreign_server
      UNION ALL SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, oid, evtowner, false FROM pg_catalog.pg_event_trigger
      UNION ALL SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, oid, pubowner, false FROM pg_catalog.pg_publication
      UNION ALL SELECT 'pg_catalog.pg_subscription'::pg_catalog.regclass, s.oid, s.subowner, false FROM pg_catalog.pg_subscription s
        JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database()
      UNION ALL SELECT 'pg_catalog.pg_largeobject'::pg_catalog.regclass, oid, lomowner, true FROM pg_catalog.pg_largeobject_metadata) o,
     pg_catalog.pg_identify_object(o.class, o.object, 0) i
WHERE (o.object >= 16384 OR o.always)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.object AND d.deptype = 'e')
  AND (o.class <> 'pg_catalog.pg_namespace'::pg_catalog.regclass OR i.identity !~ '^pg_(toast|temp)')
  AND i.identity IS NOT NULL AND (i.schema IS NULL OR i.identity !~ '^pg_temp_')
ORDER BY i.type <> 'schema', 1, 2";

/// Extensions and their owners. PostgreSQL lets nobody give one away.
pub const EXTENSION_OWNERS: &str = "
SELECT 'extension' AS type, pg_catalog.quote_ident(extname) AS identity, pg_catalog.pg_get_userbyid(extowner)::text AS owner
FROM pg_catalog.pg_extension ORDER BY 2";

/// Collations that columns, indexes, partition keys, types and expressions name, but for the database's own, C and POSIX: with
/// their locales, and what names each. Those that initdb pins have no entry in `pg_depend`, so columns and types are looked at.
pub const COLLATIONS: &str = "
WITH named(coll, class, object, sub) AS (
  SELECT a.attcollation, 'pg_catalog.pg_class'::pg_catalog.regclass::oid, a.attrelid, a.attnum::int
    FROM pg_catalog.pg_attribute a WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid >= 16384
  UNION SELECT k, 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, 0
    FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indcollation::oid[]) k WHERE i.indexrelid >= 16384
  UNION SELECT k, 'pg_catalog.pg_class'::pg_catalog.regclass, p.partrelid, 0
    FROM pg_catalog.pg_partitioned_table p, pg_catalog.unnest(p.partcollation::oid[]) k
  UNION SELECT t.typcollation, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 0
    FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND t.typtype = 'd'
  UNION SELECT r.rngcollation, 'pg_catalog.pg_type'::pg_catalog.regclass, r.rngtypid, 0
    FROM pg_catalog.pg_range r WHERE r.rngtypid >= 16384
  UNION SELECT d.refobjid, d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d
   WHERE d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND d.objid >= 16384
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_type b WHERE b.typarray = d.objid)
  UNION SELECT oid, 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, 0 FROM pg_catalog.pg_collation WHERE oid >= 16384)
SELECT n.nspname, c.collname,
       CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END AS provider,
       COALESCE(pg_catalog.to_jsonb(c)->>'colllocale', pg_catalog.to_jsonb(c)->>'colliculocale', c.collcollate::text) AS locale,
       c.collctype::text AS ctype, pg_catalog.count(*) AS count,
       ARRAY(SELECT i.type || ' ' || i.identity FROM (SELECT * FROM named o WHERE o.coll = c.oid
                AND o.class <> 'pg_catalog.pg_collation'::pg_catalog.regclass ORDER BY o.class, o.object, o.sub LIMIT 5) o,
             pg_catalog.pg_identify_object(o.class, o.object, o.sub) i WHERE i.identity IS NOT NULL) AS objects
FROM named JOIN pg_catalog.pg_collation c ON c.oid = named.coll
JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE c.oid NOT IN (100, 950, 951)
GROUP BY n.nspname, c.oid, c.collname, c.collprovider, c.collctype, c.collcollate, c.* ORDER BY 1, 2";

/// The identity columns of unlogged tables, as statements that make them where `ADD GENERATED` knows no LOGGED, each followed
/// by the comment and the grants of its sequence.
pub const UNLOGGED_IDENTITIES: &str = "
SELECT pg_catalog.unnest(ARRAY[pg_catalog.format(
         'ALTER TABLE %I.%I ALTER COLUMN %I ADD GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I START WITH %s INCREMENT BY %s '
         'MINVALUE %s MAXVALUE %s CACHE %s %s)', tn.nspname, t.relname, a.attname,
         CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, sn.nspname, c.relname, s.seqstart, s.seqincrement,
         s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
         'COMMENT ON SEQUENCE ' || pg_catalog.format('%I.%I', sn.nspname, c.relname) || ' IS '
           || pg_catalog.quote_literal(pg_catalog.obj_description(c.oid, 'pg_class'))]
       || ARRAY(SELECT pg_catalog.format('GRANT %s ON SEQUENCE %I.%I TO %s', x.privilege_type, sn.nspname, c.relname,
                  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END)
                  || CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
                FROM pg_catalog.aclexplode(c.relacl) x WHERE x.grantee <> c.relowner))
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class t ON t.oid = a.attrelid AND t.relpersistence = 'u'
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.oid
  AND d.refobjsubid = a.attnum AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'i'
JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace sn ON sn.oid = c.relnamespace
WHERE a.attidentity <> '' AND NOT a.attisdropped";

/// Counts of what a logical snapshot can't hold as it is: one row.
pub const HARD_TO_KEEP: &str = "
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'f' AND n.nspname <> 'information_schema') AS foreign_tables,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relkind = 'm' AND c.relispopulated) AS populated_views,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
         WHERE d.datname = pg_catalog.current_database()) AS subscriptions,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots s WHERE s.database = pg_catalog.current_database()
          AND s.slot_name !~ '^safe_run_') AS slots,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts x WHERE x.database = pg_catalog.current_database()) AS prepared,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relpersistence = 'u' AND c.relkind = 'r') AS unlogged,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relpersistence = 'p' AND c.relkind = 'S') AS sequences,
       -- Dependencies on built-in objects are not recorded. What belongs to an operator class is written with it, and what an
       -- extension made comes back with that.
       (SELECT pg_catalog.count(*) FROM (
           SELECT 'pg_catalog.pg_amop'::pg_catalog.regclass AS class, oid, amopfamily AS family,
                  'pg_catalog.pg_operator'::pg_catalog.regclass AS of_class, amopopr::oid AS member FROM pg_catalog.pg_amop
           UNION ALL
           SELECT 'pg_catalog.pg_amproc'::pg_catalog.regclass, oid, amprocfamily,
                  'pg_catalog.pg_proc'::pg_catalog.regclass, amproc::oid FROM pg_catalog.pg_amproc) m
         WHERE m.oid >= 16384 AND m.family < 16384
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = m.class AND d.objid = m.oid
                           AND d.refclassid = 'pg_catalog.pg_opclass'::pg_catalog.regclass)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = m.of_class AND d.objid = m.member
                           AND d.deptype = 'e')) AS family_members,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_operator o WHERE o.oprcode = 0 AND o.oid >= 16384
         -- One that is another's commutator or negator is made again together with it.
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_operator u WHERE u.oprcode <> 0 AND o.oid IN (u.oprcom, u.oprnegate))) AS shell_operators,
       pg_catalog.pg_is_in_recovery() AS in_recovery";

/// What somebody made in a schema of which pg_dump writes nothing: `pg_catalog`, `information_schema`, and one that
/// `allow_system_table_mods` let somebody make with a name like theirs.
pub const MADE_IN_SYSTEM_SCHEMAS: &str = "
SELECT pg_catalog.pg_describe_object(o.class, o.oid, 0) FROM (
  SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid AS class, oid, pronamespace AS namespace FROM pg_catalog.pg_proc
  UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid, relnamespace FROM pg_catalog.pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typnamespace FROM pg_catalog.pg_type
    WHERE typtype IN ('b', 'd', 'e', 'r') AND NOT (typelem <> 0 AND typcategory = 'A')
  UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprnamespace FROM pg_catalog.pg_operator
  UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcnamespace FROM pg_catalog.pg_opclass
  UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collnamespace FROM pg_catalog.pg_collation
  UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, connamespace FROM pg_catalog.pg_conversion
  UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgnamespace FROM pg_catalog.pg_ts_config
  UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictnamespace FROM pg_catalog.pg_ts_dict) o
JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace
WHERE o.oid >= 16384 AND (n.nspname = 'information_schema' OR n.nspname LIKE 'pg\\_%' AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%')
  AND pg_catalog.pg_describe_object(o.class, o.oid, 0) IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype IN ('e', 'i'))
ORDER BY 1";

/// Members of extensions that belong to a role which `CREATE EXTENSION` makes no owner, each with that role: pg_dump writes no owner of
/// a member. The extension's own script may have given them away.
pub const GIVEN_AWAY_MEMBERS: &str = "
SELECT pg_catalog.format('%s of %I', pg_catalog.pg_describe_object(d.classid, d.objid, 0), r.rolname)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid
JOIN pg_catalog.pg_shdepend s ON s.classid = d.classid AND s.objid = d.objid AND s.objsubid = 0 AND s.deptype = 'o'
  AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid
WHERE d.deptype = 'e' AND NOT r.rolsuper AND r.oid <> e.extowner
ORDER BY 1";

/// Password hashes of the roles `$1` that have one.
pub const ROLE_PASSWORDS: &str = "
SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
WHERE rolname = ANY ($1::text[]) AND rolpassword IS NOT NULL ORDER BY 1";

/// Relations that lie in another tablespace than the database's own.
pub const PLACED: &str = "
SELECT CASE c.relkind WHEN 'm' THEN 'materialized view' WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' ELSE 'index' END,
       n.nspname::text, c.relname::text, t.spcname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND c.relpersistence <> 't' AND NOT c.relisshared AND c.oid >= 16384
  AND n.nspname NOT LIKE 'pg\\_toast%' ORDER BY 1, 2, 3";

/// Size of the current database on disk.
pub const DATABASE_BYTES: &str = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";
/// Foreign keys of partitions whose name is not the name of the partitioned table's key, as `table.name`. pg_dump writes
/// only the latter.
pub const RENAMED_PARTITION_KEYS: &str = "
WITH RECURSIVE k AS (
  SELECT c.oid, c.conrelid, c.confrelid, c.conname, c.conname AS root FROM pg_catalog.pg_constraint c
   WHERE c.contype = 'f' AND c.conparentid = 0
  UNION ALL
  SELECT c.oid, c.conrelid, c.confrelid, c.conname, k.root FROM k JOIN pg_catalog.pg_constraint c ON c.conparentid = k.oid
   WHERE c.conrelid <> k.conrelid AND c.confrelid = k.confrelid)
SELECT r.relname || '.' || k.conname FROM k JOIN pg_catalog.pg_class r ON r.oid = k.conrelid
WHERE k.conname <> k.root ORDER BY 1";

/// Rules that ask for a column of the system's (`tableoid`, and in policies `xmin`, `ctid` …): in a restored database it has other values. One that
/// looks at the table's name alone (`tableoid::regclass`) means the same there.
pub const ON_SYSTEM_COLUMNS: &str = r"
SELECT pg_catalog.pg_describe_object(r.class, r.oid, 0) FROM (
  SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::oid AS class, oid, conbin::text AS tree FROM pg_catalog.pg_constraint WHERE contype = 'c'
  UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, d.adbin::text FROM pg_catalog.pg_attrdef d
    JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated <> ''
  UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, oid, pg_catalog.concat(polqual::text, polwithcheck::text) FROM pg_catalog.pg_policy
  UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, oid, tgqual::text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL AND NOT tgisinternal
  UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, oid, ev_qual::text FROM pg_catalog.pg_rewrite WHERE ev_type <> '1') r
WHERE r.oid >= 16384 AND (r.tree ~ ':varattno -[1-5]\M' OR r.tree ~ ':varattno -6\M' AND r.tree !~ ':(consttype|resulttype) 2205\M')
ORDER BY 1";

/// Columns of partitions and inheritance children that have no default while their parent's have one, and whose domain has
/// one, as `table.column`. pg_dump writes DEFAULT NULL there.
pub const HIDDEN_DOMAIN_DEFAULTS: &str = "
SELECT DISTINCT c.relname || '.' || a.attname
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f')
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef
JOIN pg_catalog.pg_attribute p ON p.attrelid = i.inhparent AND p.attname = a.attname AND NOT p.attisdropped
                              AND p.atthasdef AND p.attgenerated = ''
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid AND t.typtype = 'd' AND t.typdefault IS NOT NULL
WHERE pg_catalog.pg_get_expr((SELECT d.adbin FROM pg_catalog.pg_attrdef d
                              WHERE d.adrelid = p.attrelid AND d.adnum = p.attnum), p.attrelid) <> 'NULL'
ORDER BY 1";

/// Indexes and CHECK constraints whose expression PostgreSQL reads back from its own spelling as another tree: an AND or OR
/// that begins with one (as BETWEEN makes them) is flattened, and a cast of `ARRAY[…]` (as IN makes it) goes to its elements.
pub const RESPELT_EXPRESSIONS: &str = "
SELECT e.name FROM (
  SELECT c.relname::text AS name, COALESCE(i.indpred::text, '') || COALESCE(i.indexprs::text, '') AS tree, i.indexrelid AS oid
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
   WHERE i.indpred IS NOT NULL OR i.indexprs IS NOT NULL
  UNION ALL
  SELECT COALESCE(r.relname, t.typname) || '.' || c.conname, c.conbin::text, c.oid FROM pg_catalog.pg_constraint c
    LEFT JOIN pg_catalog.pg_class r ON r.oid = c.conrelid LEFT JOIN pg_catalog.pg_type t ON t.oid = c.contypid
   WHERE c.contype = 'c' AND c.conislocal) e
WHERE e.oid >= 16384
  AND e.tree ~ '(:boolop and :args \\(\\{BOOLEXPR :boolop and )|(:boolop or :args \\(\\{BOOLEXPR :boolop or )|(\\{(RELABELTYPE|ARRAYCOERCEEXPR) :arg \\{ARRAY(EXPR)? )'
ORDER BY 1";

/// Tables with inheritance, but for partitions: their columns and parents, in order.
pub const INHERITANCE: &str = "
SELECT c.oid, n.nspname::text, c.relname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))";

/// Number of large objects.
pub const LARGE_OBJECT_COUNT: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata";

/// The server: version number, version, recovery, WAL position (null where the role may not read it).
pub const SERVER: &str = "
SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'),
       pg_catalog.pg_is_in_recovery(),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()::text
            ELSE pg_catalog.pg_current_wal_lsn()::text END";

/// Sessions that hold a lock on one of the relations `$1` which conflicts with reading or writing it.
pub fn lock_holders() -> String {
    format!(
        "SELECT DISTINCT a.pid, {user} AS usename, COALESCE(a.application_name, '') AS application_name,
       a.state, pg_catalog.date_part('epoch', pg_catalog.now() - a.xact_start)::bigint AS xact_seconds,
       {query} AS query, l.relation::pg_catalog.regclass::text AS relation, l.mode,
       COALESCE(a.backend_type, 'client backend') AS backend_type
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid()
  AND NOT (a.pid = ANY ($3)) AND l.mode = ANY ($2)",
        user = shared_text::bytes("COALESCE(a.usename::text, '?')"),
        query = shared_text::bytes("a.query"),
    )
}

/// The sessions in the databases `$1` but for this one and those with the process ids `$2`, and whether the role may end
/// each. With `$3` only clients' sessions, otherwise all that a rename has to wait for.
///
/// A role that may not look into another's session sees NULL as its `backend_type`: it counts as a client if it has a
/// user, as the server's own processes have not. PostgreSQL ends workers together with whom they work for.
pub fn sessions() -> String {
    format!(
        "SELECT a.pid, {user} AS usename, COALESCE(a.application_name, '') AS application_name,
       me.rolsuper OR (NOT COALESCE(r.rolsuper, true) AND (pg_catalog.pg_has_role(r.oid, 'USAGE')
           OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))) AS may_end,
       COALESCE(r.rolsuper, true) AS is_superuser
FROM (SELECT *, COALESCE(backend_type, CASE WHEN usesysid IS NULL THEN '' ELSE 'client backend' END) AS kind
      FROM pg_catalog.pg_stat_activity) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
JOIN pg_catalog.pg_roles me ON me.rolname = current_user
WHERE a.datname = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid() AND NOT (a.pid = ANY ($2))
  AND CASE WHEN $3 THEN a.kind = 'client backend' ELSE a.kind NOT IN ('autovacuum worker', 'parallel worker') END
ORDER BY a.pid",
        // The role may have been dropped meanwhile.
        user = shared_text::bytes("COALESCE(a.usename::text, '?')")
    )
}

/// Whether the server tells which blocks changed, and whether the role may ask: one row.
pub const WAL_SUMMARY_SUPPORT: &str = "
SELECT pg_catalog.current_setting('server_version_num')::int AS version, pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.current_setting('summarize_wal', true) AS summarize_wal,
       COALESCE((SELECT pg_catalog.pg_has_role(r.oid, 'USAGE') FROM pg_catalog.pg_roles r WHERE r.rolname = 'pg_checkpoint'),
                false) AS may_checkpoint";

/// The end of the log, as a number.
pub const WAL_POSITION: &str =
    "SELECT (pg_catalog.pg_current_wal_insert_lsn() OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint";

/// Draws a transaction id: every transaction that is given one after this has a later id. `pg_snapshot_xmax` would not do, see
/// `wal_summary::Point`.
pub const DRAW_XID: &str = "SELECT pg_catalog.pg_current_xact_id()::text::bigint";

/// The oldest transaction in progress.
pub const OLDEST_XID: &str =
    "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint";

/// System identifier, timeline and the database's oid.
pub const CLUSTER_IDENTITY: &str = "
SELECT s.system_identifier::text, c.timeline_id::bigint, d.oid
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database()";

/// Whether the summaries reach the redo position of the last checkpoint, and the summarizer's process.
pub const SUMMARIZER_STATE: &str = "
SELECT s.summarized_lsn >= c.redo_lsn AND s.summarized_tli = c.timeline_id AS reached, s.summarizer_pid AS pid
FROM pg_catalog.pg_get_wal_summarizer_state() s, pg_catalog.pg_control_checkpoint() c";

/// The summaries that are there: timeline, first position, position after the last.
pub const WAL_SUMMARIES: &str = "
SELECT tli, (start_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint,
       (end_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint
FROM pg_catalog.pg_available_wal_summaries()";

/// Number and order-independent hash of the lines of the summary of timeline `$1` from `$2` to `$3`.
pub const WAL_SUMMARY_HASH: &str = "
SELECT pg_catalog.count(*) || ':' || COALESCE(pg_catalog.sum(pg_catalog.hashtextextended(c::text, 0)::numeric), 0)
FROM pg_catalog.pg_wal_summary_contents($1::bigint, $2::text::pg_catalog.pg_lsn, $3::text::pg_catalog.pg_lsn) c";

/// What the summaries (timelines `$1`, first positions `$2`, ends `$3`) say of the main forks of the database `$4`: file node,
/// and either the number of a piece of `$5` blocks with a changed block, or the block of a limit.
pub const CHANGED_BLOCKS: &str = "
SELECT c.relfilenode, c.is_limit_block, CASE WHEN c.is_limit_block THEN c.relblocknumber ELSE c.relblocknumber / $5::bigint END
FROM ROWS FROM (pg_catalog.unnest($1::bigint[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) s(tli, b, e),
     LATERAL pg_catalog.pg_wal_summary_contents(s.tli, s.b::pg_catalog.pg_lsn, s.e::pg_catalog.pg_lsn) c
WHERE c.reldatabase = $4::oid AND c.relforknumber = 0
GROUP BY 1, 2, 3";

/// Where the rows of the tables `$1` lie, and a hash of everything that their COPY text depends on beside their blocks: all
/// columns with their missing values, all types in them with labels and fields, and the server's version. NULL where a type's
/// text depends on something else: the reg* types, aclitem and money, and base types from outside of PostgreSQL. A label has
/// its xmin beside it, since it can be renamed and named back without a lock on any table (docs/exactness.md, E7).
pub const TABLE_FORMS: &str = concat!(
    "
WITH RECURSIVE used(rel, typ) AS (
  SELECT a.attrelid, a.atttypid FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT u.rel, n.typ FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.typ, LATERAL ",
    crate::types_within!(),
    " n(typ)
), types AS (
  SELECT u.rel,
         pg_catalog.bool_and(CASE
           WHEN t.typtype IN ('d', 'e', 'c', 'r', 'm') THEN true
           WHEN t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc THEN true
           ELSE t.typtype = 'b' AND t.oid < 16384 AND t.typname NOT LIKE 'reg%' AND t.typname NOT IN ('aclitem', 'money') END)
           AS stable,
         pg_catalog.string_agg(t.oid || ' ' || t.typtype::text || ' ' || t.typname || ' ' || COALESCE(
           (SELECT pg_catalog.string_agg(e.oid || '=' || e.enumlabel || ' ' || e.xmin, ',' ORDER BY e.oid) FROM pg_catalog.pg_enum e
             WHERE e.enumtypid = t.oid), '') || ' ' || COALESCE(
           (SELECT pg_catalog.string_agg(a.attnum || ':' || a.atttypid || ':' || a.atttypmod || ':' || a.attisdropped, ','
                   ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
             WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0), ''), E'\\n' ORDER BY t.oid) AS text
  FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.typ GROUP BY u.rel
), columns AS (
  SELECT a.attrelid AS rel, pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, pg_catalog.quote_ident(a.attname),
         a.atttypid, a.atttypmod, a.attlen, a.attisdropped, a.atthasmissing, a.attmissingval::text, a.attgenerated), E'\\n'
         ORDER BY a.attnum) AS text
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0 GROUP BY 1
)
SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid) AS filenode,
       CASE WHEN c.relkind = 'r' AND c.relpersistence = 'p' AND am.amname = 'heap' AND COALESCE(types.stable, true)
            THEN pg_catalog.encode(pg_catalog.sha256(pg_catalog.textsend(pg_catalog.concat_ws(E'\\n',
                 pg_catalog.current_setting('server_version_num'), pg_catalog.pg_relation_filenode(c.oid), c.reltablespace,
                 columns.text, types.text))), 'hex') END AS fingerprint
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN types ON types.rel = c.oid LEFT JOIN columns ON columns.rel = c.oid
WHERE c.oid = ANY ($1) AND pg_catalog.pg_relation_filenode(c.oid) IS NOT NULL"
);

/// Every foreign key that has rows of its own to look at: the top one of a partition tree, not its copies.
///
/// Columns: constraint, table, referenced table (oids), name, enforced, validated, definition, schema and name of
/// both tables, columns of both as a person writes them, key as text, `FROM … WHERE …` that selects the orphans.
///
/// As in `ri_triggers.c`: `ONLY` except for a partitioned table, the operator of the constraint with its operands
/// cast to the operator's own types (polymorphic ones left alone), and the referenced column's collation. MATCH FULL
/// finds partly null keys too. A temporal key (18) must be covered by the union of the referenced ranges.
pub const FOREIGN_KEYS: &str = r"
SELECT c.oid, c.conrelid, c.confrelid, c.conname,
  COALESCE((to_jsonb(c)->>'conenforced')::boolean, true), c.convalidated, pg_get_constraintdef(c.oid),
  fn.nspname, fr.relname, pn.nspname, pr.relname, x.fk_names, x.pk_names, x.key,
  format('FROM %s fk WHERE (%s) AND %s', f.source, x.not_null,
    CASE WHEN t.temporal
      THEN format('NOT COALESCE((SELECT pg_catalog.range_agg(pk.%1$I) OPERATOR(pg_catalog.@>) fk.%2$I FROM %3$s pk WHERE %4$s'
                  ' AND pk.%1$I OPERATOR(pg_catalog.&&) fk.%2$I), false)', x.pk_period, x.fk_period, p.source, x.joined)
      ELSE format('NOT EXISTS (SELECT FROM %s pk WHERE %s)', p.source, x.joined) END)
FROM pg_constraint c
JOIN pg_class fr ON fr.oid = c.conrelid  JOIN pg_namespace fn ON fn.oid = fr.relnamespace
JOIN pg_class pr ON pr.oid = c.confrelid JOIN pg_namespace pn ON pn.oid = pr.relnamespace
CROSS JOIN LATERAL (SELECT COALESCE((to_jsonb(c)->>'conperiod')::boolean, false) AS temporal) t
CROSS JOIN LATERAL (SELECT CASE fr.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', fn.nspname, fr.relname) AS source) f
CROSS JOIN LATERAL (SELECT CASE pr.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', pn.nspname, pr.relname) AS source) p
CROSS JOIN LATERAL (
 SELECT string_agg(quote_ident(fa.attname), ', ' ORDER BY k.i) AS fk_names,
  string_agg(quote_ident(pa.attname), ', ' ORDER BY k.i) AS pk_names,
  CASE WHEN count(*) = 1 THEN min(format(CASE WHEN fa.atttypid < 16384 THEN 'fk.%I::text'
         ELSE 'pg_catalog.format(''%%s'', fk.%I)' END, fa.attname))
       ELSE format('ROW(%s)::text', string_agg(format('fk.%I', fa.attname), ', ' ORDER BY k.i)) END AS key,
  string_agg(format('fk.%I IS NOT NULL', fa.attname),
             CASE c.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY k.i) AS not_null,
  min(fa.attname::text) FILTER (WHERE k.i = cardinality(c.conkey)) AS fk_period,
  min(pa.attname::text) FILTER (WHERE k.i = cardinality(c.conkey)) AS pk_period,
  string_agg(format('pk.%I%s OPERATOR(%I.%s) fk.%I%s%s', pa.attname,
    CASE WHEN lt.typtype = 'p' OR o.oprleft = pa.atttypid THEN '' ELSE '::' || format_type(o.oprleft, NULL) END,
    opn.nspname, o.oprname, fa.attname,
    CASE WHEN rt.typtype = 'p' OR o.oprright = fa.atttypid THEN '' ELSE '::' || format_type(o.oprright, NULL) END,
    CASE WHEN pa.attcollation <> fa.attcollation AND pa.attcollation <> 0 THEN ' COLLATE ' ||
      (SELECT format('%I.%I', cn.nspname, co.collname) FROM pg_collation co
         JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = pa.attcollation)
    ELSE '' END), ' AND ' ORDER BY k.i) FILTER (WHERE NOT (t.temporal AND k.i = cardinality(c.conkey))) AS joined
 FROM unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY k(fk, pk, op, i)
 JOIN pg_attribute fa ON fa.attrelid = c.conrelid  AND fa.attnum = k.fk
 JOIN pg_attribute pa ON pa.attrelid = c.confrelid AND pa.attnum = k.pk
 JOIN pg_operator o ON o.oid = k.op JOIN pg_namespace opn ON opn.oid = o.oprnamespace
 JOIN pg_type lt ON lt.oid = o.oprleft JOIN pg_type rt ON rt.oid = o.oprright) x
WHERE c.contype = 'f' AND c.conparentid = 0
ORDER BY fn.nspname, fr.relname, c.conname";
