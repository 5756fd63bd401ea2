//! Every fixed query of the shared library, each with what it answers. They run with an empty `search_path`, on
//! PostgreSQL 14 to 18; columns that only some majors have are read through `to_jsonb`.

/// Database-level state of a database, the current one if `$1` is NULL: one row.
pub const DATABASE_STATE: &str = "
SELECT d.datname, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding,
       d.datcollate::text AS collate, d.datctype::text AS ctype,
       CASE pg_catalog.to_jsonb(d)->>'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END AS provider,
       COALESCE(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale') AS locale,
       pg_catalog.to_jsonb(d)->>'daticurules' AS icu_rules,
       pg_catalog.to_jsonb(d)->>'datcollversion' AS collation_version,
       pg_catalog.pg_get_userbyid(d.datdba) AS owner, t.spcname AS tablespace, d.datconnlimit,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment, d.datacl IS NOT NULL AS has_acl
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
           ELSE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' END"
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

/// Which table is a partition or an heir of which.
pub const INHERITS: &str = "
SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' ORDER BY 1, i.inhseqno";

/// Everything that a pattern for tables can name, with the table that owns a sequence (or 0), but for what belongs to extensions and is no configuration table.
pub const CANDIDATES: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind::text,
       COALESCE((SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE c.relkind = 'S' AND d.objid = c.oid
                 AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass LIMIT 1), 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
  AND CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
           THEN c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig))
           ELSE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' END
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

/// Sequences whose state is the user's, without their values.
pub const SEQUENCES: &str = "
SELECT c.oid, n.nspname, c.relname, s.seqincrement
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
  AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   AND d.objid = c.oid AND d.deptype = 'e')
       OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
ORDER BY c.oid";

/// Installed extensions.
pub const EXTENSIONS: &str = "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY extname";

/// Materialized views.
pub const MATERIALIZED_VIEWS: &str = "
SELECT c.oid, n.nspname, c.relname, c.relispopulated
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.oid";

/// Which views and materialized views read which relations.
pub const VIEW_DEPENDENCIES: &str = "
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind IN ('v', 'm')";

/// Roles that own something in the current database, hold a grant there, or are named by a policy or a default
/// privilege. Dependencies on the bootstrap superuser are not recorded, so owners are asked for as well.
///
/// One row for each: name, attributes, connection limit, valid until, memberships in these roles or predefined ones as
/// two arrays, settings in all databases, comment.
pub const ROLES: &str = "
SELECT r.rolname::text,
       ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
             CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
             CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
             CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
             CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
             CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
             CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END] AS attributes,
       r.rolconnlimit, r.rolvaliduntil::text,
       ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY g.rolname) AS member_of,
       ARRAY(SELECT m.admin_option FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY g.rolname) AS may_admit,
       COALESCE((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0),
                '{}') AS settings,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
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
  UNION SELECT lomowner FROM pg_catalog.pg_largeobject_metadata)
ORDER BY 1";

/// Privileges on the user's objects that somebody other than the owner holds. Large objects and the database itself have
/// their own; what initdb made is left out, but for the schema public.
pub const OBJECT_GRANTS: &str = "
SELECT DISTINCT i.type || ' ' || i.identity AS object, g.rolname::text AS grantee, a.privilege_type, a.is_grantable,
       o.class, o.object AS oid
FROM (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, oid AS object, 0 AS sub, relacl AS acl, relowner AS owner
        FROM pg_catalog.pg_class
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, t.attnum, t.attacl, c.relowner
        FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid WHERE NOT t.attisdropped
      UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 0, nspacl, nspowner FROM pg_catalog.pg_namespace
      UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 0, proacl, proowner FROM pg_catalog.pg_proc
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 0, typacl, typowner FROM pg_catalog.pg_type
      UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 0, lanacl, lanowner FROM pg_catalog.pg_language
      UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, 0, fdwacl, fdwowner
        FROM pg_catalog.pg_foreign_data_wrapper
      UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, 0, srvacl, srvowner
        FROM pg_catalog.pg_foreign_server) o,
     pg_catalog.aclexplode(o.acl) a LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee,
     pg_catalog.pg_identify_object(o.class, o.object, o.sub) i
WHERE o.acl IS NOT NULL AND a.grantee <> o.owner
  AND (o.object >= 16384 OR (o.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass
       AND o.object = 'public'::pg_catalog.regnamespace))
ORDER BY 1, 2, 3, 4";

/// Counts of what a logical snapshot can't hold as it is: one row.
pub const HARD_TO_KEEP: &str = "
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'f' AND n.nspname <> 'information_schema') AS foreign_tables,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relkind = 'm' AND c.relispopulated) AS populated_views,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
         WHERE d.datname = pg_catalog.current_database()) AS subscriptions,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots s WHERE s.database = pg_catalog.current_database()) AS slots,
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
pub const LOCK_HOLDERS: &str = "
SELECT DISTINCT a.pid, COALESCE(a.usename::text, '?') AS usename, COALESCE(a.application_name, '') AS application_name,
       a.state, pg_catalog.date_part('epoch', pg_catalog.now() - a.xact_start)::bigint AS xact_seconds,
       pg_catalog.left(a.query, 200) AS query, l.relation::pg_catalog.regclass::text AS relation, l.mode
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid()
  AND NOT (a.pid = ANY ($3)) AND l.mode = ANY ($2)";

/// The sessions in the databases `$1` but for this one and those with the process ids `$2`, and whether the role may end
/// each. With `$3` only clients' sessions, otherwise all that a rename has to wait for.
///
/// A role that may not look into another's session sees NULL as its `backend_type`: it counts as a client if it has a
/// user, as the server's own processes have not. PostgreSQL ends workers together with whom they work for.
pub const SESSIONS: &str = "
SELECT a.pid, a.usename::text AS usename, COALESCE(a.application_name, '') AS application_name,
       me.rolsuper OR (NOT COALESCE(r.rolsuper, true) AND (pg_catalog.pg_has_role(r.oid, 'USAGE')
           OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))) AS may_end,
       COALESCE(r.rolsuper, true) AS is_superuser
FROM (SELECT *, COALESCE(backend_type, CASE WHEN usesysid IS NULL THEN '' ELSE 'client backend' END) AS kind
      FROM pg_catalog.pg_stat_activity) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
JOIN pg_catalog.pg_roles me ON me.rolname = current_user
WHERE a.datname = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid() AND NOT (a.pid = ANY ($2))
  AND CASE WHEN $3 THEN a.kind = 'client backend' ELSE a.kind NOT IN ('autovacuum worker', 'parallel worker') END
ORDER BY a.pid";
