//! The catalog queries behind the list of obstacles.

/// Tables that the role may not read, and tables whose row-level security would hide rows from it.
pub const UNREADABLE: &str = "
SELECT n.nspname, c.relname,
       NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') AS no_select,
       NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS no_usage,
       pg_catalog.row_security_active(c.oid) AS hides_rows, c.relkind = 'S' AS is_sequence
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
  AND (NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') OR NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       OR pg_catalog.row_security_active(c.oid))
ORDER BY 1, 2";

/// How many large objects there are, and whether the role may read them.
pub const LARGE_OBJECTS: &str = "
SELECT pg_catalog.count(*), pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')
FROM pg_catalog.pg_largeobject_metadata";

/// Extensions: whether the server still has their files, and whether only a superuser may make the version that there is.
/// plpgsql is in every new database.
pub const EXTENSION_OBSTACLES: &str = "
SELECT e.extname::text AS name, pg_catalog.count(v.name) > 0 AS available,
       COALESCE(pg_catalog.bool_or(v.superuser AND NOT v.trusted)
                  FILTER (WHERE v.version = e.extversion OR NOT has.version), false) AS superuser
FROM pg_catalog.pg_extension e
LEFT JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.extname
LEFT JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions o
            WHERE o.name = e.extname AND o.version = e.extversion) AS version) has ON true
WHERE e.extname <> 'plpgsql' GROUP BY e.extname ORDER BY 1";

/// Objects that only a superuser may make, for whatever owner: kind, object, why, what helps, and whether it belongs to the
/// database itself, which a copy by the server does not carry. Members of extensions come with these.
pub const SUPERUSER_OBJECTS: &str = "
SELECT i.type AS kind, i.identity AS object, o.why, NULL::text AS helps, false AS of_database
FROM (SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass::oid AS class, oid AS object,
             'only a superuser may make an event trigger' AS why FROM pg_catalog.pg_event_trigger
      UNION ALL SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, oid, 'only a superuser may publish all tables'
        FROM pg_catalog.pg_publication WHERE puballtables
      UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 'only a superuser may make a language'
        FROM pg_catalog.pg_language
      UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid,
          'only a superuser may make a foreign-data wrapper' FROM pg_catalog.pg_foreign_data_wrapper
      UNION ALL SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, oid, 'only a superuser may make an access method' FROM pg_catalog.pg_am
      UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, 'only a superuser may make an operator class'
        FROM pg_catalog.pg_opclass
      UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, f.oid, 'only a superuser may make an operator family'
        FROM pg_catalog.pg_opfamily f WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_opclass c WHERE c.opcfamily = f.oid)
      UNION ALL SELECT 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, oid, 'only a superuser may make a text search parser'
        FROM pg_catalog.pg_ts_parser
      UNION ALL SELECT 'pg_catalog.pg_ts_template'::pg_catalog.regclass, oid, 'only a superuser may make a text search template'
        FROM pg_catalog.pg_ts_template
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 'only a superuser may make a base type'
        FROM pg_catalog.pg_type t WHERE t.typtype = 'b' AND t.typisdefined
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
      UNION ALL SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, oid, 'only a superuser may make a cast without a function'
        FROM pg_catalog.pg_cast WHERE castmethod = 'b'
      UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid,
          CASE WHEN NOT l.lanpltrusted THEN pg_catalog.format('only a superuser may make a function in the language %s', l.lanname)
               WHEN p.proleakproof THEN 'only a superuser may make a LEAKPROOF function'
               ELSE 'only a superuser may give a function a support function' END
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE p.prokind <> 'a' AND (NOT l.lanpltrusted OR p.proleakproof OR p.prosupport <> 0)) o,
     pg_catalog.pg_identify_object(o.class, o.object, 0) i
WHERE o.object >= 16384 AND i.identity IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.object AND d.deptype = 'e')
ORDER BY 1, 2";

/// Publications of whole schemas; for 15 and later.
pub const PUBLISHED_SCHEMAS: &str = "
SELECT DISTINCT 'publication' AS kind, pg_catalog.quote_ident(p.pubname) AS object,
       'only a superuser may publish all tables of a schema' AS why, NULL::text AS helps, false AS of_database
FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_namespace n ON n.pnpubid = p.oid ORDER BY 2";

/// What others gave, or keep to themselves: default privileges of other roles, grants that neither the owner nor the role gave,
/// large objects, tablespaces.
pub const OTHERS_RIGHTS: &str = "
SELECT 'default privileges' AS kind, pg_catalog.format('of the role %I', pg_catalog.pg_get_userbyid(d.defaclrole)) AS object,
       'only that role, or a member of it, may set them' AS why,
       -- A superuser's membership is nothing to give away.
       CASE WHEN NOT r.rolsuper THEN pg_catalog.format('GRANT %I TO %I;', r.rolname, current_user) END AS helps, false AS of_database
FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles r ON r.oid = d.defaclrole
WHERE NOT pg_catalog.pg_has_role(d.defaclrole, 'MEMBER') GROUP BY d.defaclrole, r.rolname, r.rolsuper
UNION ALL
SELECT 'grant', pg_catalog.format('%s on %s %s to %s', a.privilege_type, i.type, i.identity,
         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END),
       pg_catalog.format('the role %I gave it, and only a superuser may act as that role', pg_catalog.pg_get_userbyid(a.grantor)),
       NULL, false
FROM (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, c.oid AS object, c.relowner AS owner, c.relacl AS acl FROM pg_catalog.pg_class c
        WHERE c.relacl IS NOT NULL
      UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, nspowner, nspacl FROM pg_catalog.pg_namespace WHERE nspacl IS NOT NULL
      UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, proowner, proacl FROM pg_catalog.pg_proc WHERE proacl IS NOT NULL
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typowner, typacl FROM pg_catalog.pg_type WHERE typacl IS NOT NULL) o,
     pg_catalog.aclexplode(o.acl) a, pg_catalog.pg_identify_object(o.class, o.object, 0) i
WHERE o.object >= 16384 AND i.identity IS NOT NULL AND a.grantor <> o.owner
UNION ALL
SELECT 'grant', pg_catalog.format('%s on the database to %s', a.privilege_type,
         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END),
       pg_catalog.format('the role %I gave it, and only a superuser may act as that role', pg_catalog.pg_get_userbyid(a.grantor)),
       NULL, true
FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
WHERE d.datname = pg_catalog.current_database() AND a.grantor <> d.datdba
UNION ALL
SELECT 'tablespace', pg_catalog.quote_ident(t.spcname), 'the role may not create anything in it',
       pg_catalog.format('GRANT CREATE ON TABLESPACE %I TO %I;', t.spcname, current_user),
       pg_catalog.bool_or(u.of_database)
FROM (SELECT reltablespace AS oid, false AS of_database FROM pg_catalog.pg_class WHERE reltablespace <> 0
      UNION SELECT dattablespace, true FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) u
JOIN pg_catalog.pg_tablespace t ON t.oid = u.oid
WHERE t.spcname NOT IN ('pg_default', 'pg_global') AND NOT pg_catalog.has_tablespace_privilege(t.oid, 'CREATE') GROUP BY t.spcname
ORDER BY 1, 2";

/// Settings of the database, and of functions, that the role may not make.
///
/// A parameter with a point in its name that the session does not know belongs to a library that is not loaded: only a superuser may set
/// it. One without is PostgreSQL's own; `pg_settings` does not show `role` and some others, which everybody may set.
pub fn superuser_settings(major: u32) -> String {
    // From 15 on the right to set a parameter can be granted.
    // Before, a role can have it for itself in every database: that belongs to the server, and no restore has to make it.
    let (may, help) = match major {
        15.. => (
            "pg_catalog.has_parameter_privilege(s.name, 'SET')",
            "pg_catalog.format('GRANT SET ON PARAMETER %I TO %I;  -- or: ', s.name, current_user)",
        ),
        _ => (
            "false",
            "CASE WHEN s.of_database THEN pg_catalog.format('ALTER ROLE %I SET %I TO %L; ', CASE s.role WHEN 0 THEN current_user
               ELSE pg_catalog.pg_get_userbyid(s.role) END, s.name, pg_catalog.substr(s.item, pg_catalog.strpos(s.item, '=') + 1)) END",
        ),
    };
    format!(
        "WITH settings(kind, object, item, role, of_database, reset) AS (
           SELECT 'setting', CASE d.setrole WHEN 0 THEN 'of the database' ELSE pg_catalog.format('of the role %I in the database',
                    pg_catalog.pg_get_userbyid(d.setrole)) END, pg_catalog.unnest(d.setconfig), d.setrole, true,
                  CASE d.setrole WHEN 0 THEN pg_catalog.format('ALTER DATABASE %I RESET', pg_catalog.current_database())
                    ELSE pg_catalog.format('ALTER ROLE %I IN DATABASE %I RESET', pg_catalog.pg_get_userbyid(d.setrole),
                           pg_catalog.current_database()) END
             FROM pg_catalog.pg_db_role_setting d JOIN pg_catalog.pg_database b ON b.oid = d.setdatabase
             WHERE b.datname = pg_catalog.current_database()
           UNION ALL SELECT 'setting', pg_catalog.format('of the function %s', p.oid::pg_catalog.regprocedure), pg_catalog.unnest(p.proconfig),
                  0::oid, false, pg_catalog.format('ALTER ROUTINE %s RESET', p.oid::pg_catalog.regprocedure)
             FROM pg_catalog.pg_proc p WHERE p.proconfig IS NOT NULL AND p.oid >= 16384
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                                 AND d.objid = p.oid AND d.deptype = 'e')),
         named AS (SELECT n.*, pg_catalog.split_part(n.item, '=', 1) AS name FROM settings n)
         SELECT s.kind, pg_catalog.format('%s %s', s.name, s.object) AS object, CASE WHEN s.role <> 0 AND NOT may_role.it
                  THEN 'only that role, or one that may create and administer roles, may set it' ELSE 'only a superuser may set it' END AS why,
                COALESCE({help}, '') || pg_catalog.format('%s %I;', s.reset, s.name) AS helps, s.of_database
         FROM named s LEFT JOIN pg_catalog.pg_settings g ON g.name = s.name
         CROSS JOIN LATERAL (SELECT s.role = 0 OR pg_catalog.pg_get_userbyid(s.role) = current_user
                OR (SELECT r.rolcreaterole FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) AS it) may_role
         WHERE NOT may_role.it OR ((g.name IS NULL AND pg_catalog.strpos(s.name, '.') > 0 OR g.context IN ('superuser', 'superuser-backend')) AND NOT {may})
         ORDER BY 1, 2"
    )
}
