//! What a role mapping reads in the new database, on PostgreSQL 14 to 19, with an empty `search_path`.
//!
//! `pg_identify_object` has NULL for what is gone since the statement began, as the temporary tables of a session that ends.

pub use common::postgres::sql::OWNERS;

/// Every privilege on every object of the database that was ever granted or revoked, owners' own included. `relation` and
/// `attribute` are set for a column; `keeps_owner` for what PostgreSQL or an extension made, which is not given away. Left
/// out: temporary schemas of other sessions and what lies in them. They go by themselves, with sessions of ours that have just ended.
pub const PRIVILEGES: &str = "
SELECT i.type, i.identity, w.identity AS relation, t.attname::text AS attribute,
       pg_catalog.pg_get_userbyid(o.owner)::text AS owner, pg_catalog.pg_get_userbyid(a.grantor)::text AS grantor,
       CASE a.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee,
       a.privilege_type, a.is_grantable,
       o.class <> 'pg_catalog.pg_largeobject'::pg_catalog.regclass
       AND (o.object < 16384 AND i.identity <> 'public' OR EXISTS (SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = o.class AND d.objid = o.object AND d.deptype = 'e')) AS keeps_owner
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
        FROM pg_catalog.pg_foreign_server
      UNION ALL SELECT 'pg_catalog.pg_largeobject'::pg_catalog.regclass, oid, 0, lomacl, lomowner
        FROM pg_catalog.pg_largeobject_metadata) o
CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.class, o.object, o.sub) i
LEFT JOIN pg_catalog.pg_attribute t ON o.sub <> 0 AND t.attrelid = o.object AND t.attnum = o.sub
LEFT JOIN LATERAL pg_catalog.pg_identify_object(o.class, o.object, 0) w ON o.sub <> 0
WHERE o.acl IS NOT NULL AND i.identity IS NOT NULL AND (i.schema IS NULL AND i.type <> 'schema' OR i.identity !~ '^pg_temp_') ORDER BY i.type <> 'schema', 1, 2, 6, 7, 8";

/// Default privileges: for which role, in which schema (NULL: all), for what, and each entry. A row whose entries are all
/// taken away has none, and comes once with a NULL privilege. `hard_wired`: of PostgreSQL's own default, which a row for
/// all schemas replaces.
pub const DEFAULT_PRIVILEGES: &str = "
SELECT pg_catalog.pg_get_userbyid(d.defaclrole)::text AS role, n.nspname::text AS schema, d.defaclobjtype::text AS kind,
       CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee,
       a.privilege_type, COALESCE(a.is_grantable, false) AS is_grantable
FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
LEFT JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a ON true
ORDER BY 1, 2, 3, 4, 5";

/// PostgreSQL's own default privileges of role `$1` for objects of kind `$2`, as `pg_default_acl` names kinds.
pub const HARD_WIRED: &str = "
SELECT CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee, a.privilege_type, a.is_grantable
FROM pg_catalog.aclexplode(pg_catalog.acldefault(CASE $2 WHEN 'S' THEN 's' ELSE $2 END::text::\"char\",
     (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text))) a";

/// Policies and the roles that they are for; PUBLIC is NULL.
pub const POLICIES: &str = "
SELECT p.polname::text AS name, i.identity AS relation,
       ARRAY(SELECT CASE r WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(r)::text END
             FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY u(r, n) ORDER BY u.n) AS roles
FROM pg_catalog.pg_policy p,
     pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, p.polrelid, 0) i
WHERE i.identity IS NOT NULL ORDER BY 2, 1";

/// User mappings of foreign servers: role (NULL: PUBLIC), server, and the options as names and values.
pub const USER_MAPPINGS: &str = "
SELECT CASE m.umuser WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(m.umuser)::text END AS role, m.srvname::text AS server,
       ARRAY(SELECT pg_catalog.split_part(o, '=', 1) FROM pg_catalog.unnest(m.umoptions) o) AS names,
       ARRAY(SELECT pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1) FROM pg_catalog.unnest(m.umoptions) o) AS values
FROM pg_catalog.pg_user_mappings m ORDER BY 2, 1";
