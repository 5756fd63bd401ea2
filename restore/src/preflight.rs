//! Finds out what the plan needs to know about the target server. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, Result,
    catalog::DatabaseSetting,
    ident::{literal, printable},
    postgres::{Session, database, scratch, shared_text},
    server_space,
};

use crate::{facts::TargetFacts, plan::Target, role_map::TEMPORARY_ROLE_COMMENT};

/// Extensions that need a superuser and are not trusted, unless the role is one. Those of template0 are there already.
const SUPERUSER_EXTENSIONS: &str = "
SELECT v.name::text AS name FROM pg_catalog.pg_available_extension_versions v
WHERE v.name <> 'plpgsql' AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
GROUP BY v.name HAVING pg_catalog.bool_and(v.superuser AND NOT v.trusted)";

/// Roles that the connected role is a member of.
const MEMBER_OF: &str =
    "SELECT rolname::text AS name FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(oid, 'MEMBER')";

/// What only a server with ICU has.
const ICU_COLLATIONS: &str =
    "SELECT collname::text AS name FROM pg_catalog.pg_collation WHERE collprovider = 'i' LIMIT 1";

/// Tablespaces that the connected role may use.
const USABLE_TABLESPACES: &str = "SELECT spcname::text AS name FROM pg_catalog.pg_tablespace
WHERE pg_catalog.has_tablespace_privilege(oid, 'CREATE')";

/// Roles by their comment, which follows.
const TEMPORARY_ROLES: &str = "SELECT rolname::text AS name FROM pg_catalog.pg_roles
WHERE pg_catalog.shobj_description(oid, 'pg_authid')";

/// Which of these settings, of the database or of a role in it, the server does not have. One with a point in its name is
/// accepted whatever it is called.
pub async fn unknown_settings(maintenance: &Session, settings: &[DatabaseSetting]) -> Result<Vec<String>> {
    let names: Vec<&str> =
        settings.iter().map(|setting| setting.name.as_str()).filter(|name| !name.contains('.')).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = maintenance
        .query(
            "SELECT DISTINCT n FROM pg_catalog.unnest($1::pg_catalog.text[]) n
             WHERE pg_catalog.current_setting(n, true) IS NULL ORDER BY 1",
            &[&names],
        )
        .await
        .map_err(|source| Error::postgres("could not look for settings", source))?;
    Ok(rows.iter().map(|row| printable(row.get(0))).collect())
}

/// Asks the server; `live` is the database that `Target::Replace` would replace.
///
/// `tablespace` is where the new database would lie.
pub async fn facts(
    maintenance: &Session,
    live: &str,
    target: &Target,
    tablespace: &str,
) -> Result<TargetFacts> {
    let failed = |source| Error::postgres("could not look at the target server", source);
    // What has a name that is no UTF-8 was made in a database of another encoding: no snapshot means it.
    let names = async |statement: &str| -> Result<BTreeSet<String>> {
        let asked = format!("SELECT {} FROM ({statement}) n", shared_text::bytes("n.name"));
        let rows = maintenance.query(&asked, &[]).await.map_err(failed)?;
        Ok(rows.iter().filter_map(|row| shared_text::name(row, 0)).collect())
    };
    let mut extensions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let rows = maintenance
        .query("SELECT name::text, version FROM pg_catalog.pg_available_extension_versions", &[])
        .await
        .map_err(failed)?;
    for row in &rows {
        extensions.entry(row.get(0)).or_default().insert(row.get(1));
    }
    let rights = maintenance
        .query_one("SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
        .map_err(failed)?;
    let (obstacles, prepared, lasting_sessions) = if *target == Target::Replace {
        (
            database::swap_obstacles(maintenance, live).await?,
            database::prepared_transactions(maintenance, live).await?,
            database::sessions_in_the_way(maintenance, live, &[]).await?,
        )
    } else {
        Default::default()
    };
    Ok(TargetFacts {
        major: maintenance.server_major(),
        is_standby: database::is_standby(maintenance).await?,
        roles: names("SELECT rolname::text AS name FROM pg_catalog.pg_roles").await?,
        databases: names("SELECT datname::text AS name FROM pg_catalog.pg_database").await?,
        half_made: half_made(maintenance).await?,
        tablespaces: names("SELECT spcname::text AS name FROM pg_catalog.pg_tablespace").await?,
        has_icu: !names(ICU_COLLATIONS).await?.is_empty(),
        usable_tablespaces: names(USABLE_TABLESPACES).await?,
        space: server_space::look(maintenance, tablespace).await,
        extensions,
        missing_collations: Vec::new(),
        unknown_settings: Vec::new(),
        superuser_extensions: names(SUPERUSER_EXTENSIONS).await?,
        is_superuser: rights.get(0),
        may_create_databases: rights.get(1),
        role: maintenance.settings().user().to_owned(),
        may_create_roles: rights.get(2),
        member_of: names(MEMBER_OF).await?,
        temporary_roles: names(&format!("{TEMPORARY_ROLES} = {}", literal(TEMPORARY_ROLE_COMMENT))).await?,
        obstacles,
        prepared,
        lasting_sessions,
    })
}

/// What restores that were killed have left: nobody is connected to it. For moments, neither is a restore that is still at work: before
/// its first connection, and after its last.
async fn half_made(maintenance: &Session) -> Result<BTreeSet<String>> {
    let asked = format!(
        "SELECT {}, CASE WHEN c.comment IS NULL THEN d.datconnlimit END FROM pg_catalog.pg_database d,
           LATERAL (SELECT pg_catalog.shobj_description(d.oid, 'pg_database') AS comment) c
         WHERE (c.comment = $1 OR NOT d.datallowconn AND c.comment IS NULL)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid)",
        shared_text::bytes("d.datname")
    );
    let rows = maintenance
        .query(&asked, &[&scratch::HALF_MADE])
        .await
        .map_err(|source| Error::postgres("could not look for databases that are half-made", source))?;
    Ok(rows.iter().filter_map(scratch::marked).collect())
}
