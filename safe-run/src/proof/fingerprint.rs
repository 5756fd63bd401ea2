//! What a trial of the undo depends on, as one number: if it is the same, the trial would end in the same way.
//!
//! Rows of the catalog count by the transaction that wrote them, and where that changes without a change of meaning (ANALYZE,
//! TRUNCATE, REFRESH, our own fence) by their content. Other roles' temporary objects do not count.

use std::collections::HashSet;

use common::{
    Error, Result,
    postgres::{Session, copy},
};

/// What a trial looks at, as a number: one that looked at less is no proof any more.
const LOOKS: u32 = 2;

/// Catalogs whose rows count by oid and writer.
const BY_WRITER: [&str; 33] = [
    "pg_proc",
    "pg_namespace",
    "pg_rewrite",
    "pg_trigger",
    "pg_policy",
    "pg_operator",
    "pg_opclass",
    "pg_opfamily",
    "pg_amop",
    "pg_amproc",
    "pg_am",
    "pg_language",
    "pg_cast",
    "pg_conversion",
    "pg_collation",
    "pg_extension",
    "pg_event_trigger",
    "pg_publication",
    "pg_publication_rel",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_transform",
    "pg_statistic_ext",
    "pg_default_acl",
    "pg_attrdef",
    "pg_init_privs",
    "pg_constraint",
    "pg_type",
    "pg_tablespace",
];

/// Catalogs without oids, or with rows of temporary tables: an expression for what counts of each row, and a condition.
const BY_CONTENT: [(&str, &str, &str); 16] = [
    (
        "pg_class",
        "ROW(oid, relname, relnamespace, relowner, relam, reltablespace, relkind, relpersistence, relispopulated, relrowsecurity, \
         relforcerowsecurity, relreplident, relispartition, relacl::text, reloptions, relpartbound::text)::text",
        "relpersistence <> 't'",
    ),
    (
        "pg_attribute",
        "ROW(attrelid, attnum, xmin)::text",
        "NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = attrelid AND (c.relpersistence = 't' OR c.relkind = 't'))",
    ),
    (
        "pg_index",
        "ROW(indexrelid, xmin)::text",
        "NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = indexrelid AND c.relpersistence = 't')",
    ),
    ("pg_depend", "ROW(classid, objid, objsubid, refclassid, refobjid)::text", "deptype IN ('e', 'x')"),
    (
        "pg_description",
        "ROW(classoid, objoid, objsubid, description)::text",
        "EXISTS (SELECT FROM pg_catalog.pg_depend m WHERE m.deptype = 'e' AND m.classid = pg_description.classoid AND m.objid = pg_description.objoid)",
    ),
    ("pg_inherits", "ROW(inhrelid, inhparent, inhseqno)::text", "true"),
    ("pg_partitioned_table", "ROW(partrelid, xmin)::text", "true"),
    ("pg_enum", "ROW(oid, xmin)::text", "true"),
    ("pg_range", "ROW(rngtypid, xmin)::text", "true"),
    ("pg_seclabel", "ROW(objoid, classoid, objsubid, provider, label)::text", "true"),
    ("pg_user_mappings", "ROW(umid, srvname, umuser)::text", "true"),
    ("pg_available_extension_versions", "ROW(name, version, superuser, trusted)::text", "true"),
    (
        "pg_roles",
        "ROW(oid, rolname, rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolbypassrls)::text",
        "oid IN (SELECT oid FROM involved)",
    ),
    ("pg_auth_members", "ROW(roleid, member, grantor, xmin)::text", "member IN (SELECT oid FROM involved)"),
    (
        "pg_db_role_setting",
        "ROW(setrole, setconfig)::text",
        "setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())",
    ),
    (
        "pg_database",
        "ROW(oid, datdba, encoding, datcollate, datctype, dattablespace, datacl::text)::text",
        "datname = pg_catalog.current_database()",
    ),
];

/// The roles that a restore of this database can have to do with: who asks, superusers and PostgreSQL's own; who owns something here,
/// has a right to it, gave one, or has settings here; and every role that one of these is a member of. What other roles are, and who
/// their members are, changes nothing here.
const INVOLVED: &str = "
WITH RECURSIVE here AS MATERIALIZED (
  SELECT d.oid, d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
 involved(oid) AS (
  (SELECT s.refobjid FROM pg_catalog.pg_shdepend s, here WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
     AND (s.dbid = here.oid OR s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid = here.oid)
   UNION SELECT here.datdba FROM here
   UNION SELECT s.setrole FROM pg_catalog.pg_db_role_setting s, here WHERE s.setdatabase = here.oid
   UNION SELECT r.oid FROM pg_catalog.pg_roles r
     WHERE r.rolsuper OR r.oid < 16384 OR r.rolname IN (current_user, session_user)
   UNION SELECT a.grantee FROM pg_catalog.pg_init_privs p, pg_catalog.aclexplode(p.initprivs) a
   UNION SELECT a.grantor FROM pg_catalog.pg_init_privs p, pg_catalog.aclexplode(p.initprivs) a)
  UNION SELECT m.roleid FROM involved JOIN pg_catalog.pg_auth_members m ON m.member = involved.oid)
";

/// Where the rest is told: who asks, on which server, since when it runs with which libraries.
const AROUND: &str = "pg_catalog.concat_ws('|', current_user, pg_catalog.version(), pg_catalog.pg_postmaster_start_time(),
    (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.concat(l.lomowner, l.lomacl), ',' ORDER BY pg_catalog.concat(l.lomowner, l.lomacl))
     FROM pg_catalog.pg_largeobject_metadata l))";

/// Types and constraints of temporary tables come and go with others' sessions.
const NOT_TEMPORARY: [(&str, &str); 4] = [
    (
        "pg_type",
        "typnamespace NOT IN (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'pg\\_%temp%')",
    ),
    (
        "pg_constraint",
        "connamespace NOT IN (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'pg\\_%temp%')",
    ),
    ("pg_namespace", "nspname NOT LIKE 'pg\\_%temp%'"),
    (
        "pg_attrdef",
        "NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = adrelid AND c.relpersistence = 't')",
    ),
];

/// The fingerprint, as hexadecimal digits.
pub async fn read(session: &Session) -> Result<String> {
    let sum = |name: &str, row: &str, condition: &str| {
        format!(
            "SELECT pg_catalog.concat('{name}', ':', pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended({row}, 0)))
             FROM pg_catalog.{name} WHERE {condition}"
        )
    };
    let mut parts: Vec<String> = BY_WRITER
        .iter()
        .map(|name| {
            let condition =
                NOT_TEMPORARY.iter().find(|(of, _)| of == name).map_or("true", |(_, condition)| condition);
            sum(
                name,
                if *name == "pg_init_privs" { "xmin::text" } else { "oid::text || xmin::text" },
                condition,
            )
        })
        .collect();
    parts.extend(BY_CONTENT.iter().map(|(name, row, condition)| sum(name, row, condition)));
    if session.server_major() >= 15 {
        parts.push(sum("pg_publication_namespace", "oid::text || xmin::text", "true"));
        parts.push(sum("pg_parameter_acl", "oid::text || xmin::text", "true"));
    }
    parts.push(format!("SELECT {AROUND}"));
    let statement = format!("{INVOLVED}{}", parts.join(" UNION ALL "));
    let rows = session
        .query(&statement, &[])
        .await
        .map_err(|source| Error::postgres("could not read the catalog's fingerprint", source))?;
    let mut text = format!("{} {LOOKS}\n", env!("CARGO_PKG_VERSION"));
    // Where the catalog is large, workers share the parts, and who is first is chance.
    let mut parts: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    parts.sort_unstable();
    for part in parts {
        text.push_str(part);
        text.push('\n');
    }
    Ok(common::digest::sha256_hex(text.as_bytes()))
}

/// A fingerprint of a catalog and of the rows of these tables, by a hash of each table's rows; none where they can't be read in a
/// moment. Plain COPY plans nothing and runs no code of the tables' owners.
pub async fn with_rows(session: &Session, catalog: &str, rows_of: &HashSet<u32>) -> Result<Option<String>> {
    if rows_of.is_empty() {
        return Ok(Some(catalog.to_owned()));
    }
    let failed = |source| Error::postgres("could not read the rows for a fingerprint", source);
    session.batch_execute("SET lock_timeout = '2s'").await.map_err(failed)?;
    let oids: Vec<u32> = rows_of.iter().copied().collect();
    let tables = session
        .query(
            "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1) ORDER BY 1",
            &[&oids],
        )
        .await
        .map_err(failed)?;
    let statements: Vec<String> =
        tables.iter().map(|row| format!("COPY {} TO STDOUT", row.get::<_, String>(1))).collect();
    let hashes = match copy::hash_each(session, &statements).await {
        Ok(hashes) => hashes,
        // Locked, or not for this role to read: the trial says so if that is in its way.
        Err(error) if error.sqlstate().is_some() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = format!("{catalog}\n");
    for (row, (rows, hash)) in tables.iter().zip(hashes) {
        text.push_str(&format!("{} {rows} {hash:?}\n", row.get::<_, u32>(0)));
    }
    Ok(Some(common::digest::sha256_hex(text.as_bytes())))
}
