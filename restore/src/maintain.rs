//! `GRANT ALL` of a server before 17 did not mean MAINTAIN; on 17 and newer it does. pg_dump writes ALL, so what came along
//! is taken back: nobody gets a right by a restore that nobody gave.

use std::collections::HashSet;

use common::{
    Error, Ident, Result,
    postgres::{Session, introspect},
    snapshot::Manifest,
};

/// First major version with the privilege.
const FIRST: u32 = 17;

/// Default privileges that hold MAINTAIN for somebody else than the role that they are of.
const DEFAULTS: &str = "
SELECT pg_catalog.pg_get_userbyid(d.defaclrole)::text, n.nspname::text,
       CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee)::text END
FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace,
     pg_catalog.aclexplode(d.defaclacl) a
WHERE a.privilege_type = 'MAINTAIN' AND a.grantee <> d.defaclrole";

/// Takes back what the snapshot does not hold; how many grants that were.
pub async fn take_back(session: &Session, manifest: &Manifest) -> Result<u64> {
    if session.server_major() < FIRST || manifest.server.major() >= FIRST {
        return Ok(0);
    }
    let failed = |source| Error::postgres("could not take a MAINTAIN privilege back", source);
    let role = |role: Option<&str>| role.map_or("PUBLIC".to_owned(), |role| Ident::new(role).to_string());
    let held: HashSet<_> = manifest.grants.iter().collect();
    let mut taken = 0;
    for grant in introspect::object_rights(session).await?.granted {
        if grant.privilege != "MAINTAIN" || held.contains(&grant) {
            continue;
        }
        // `table app.orders`, `materialized view app.totals`: GRANT says TABLE to all of them.
        let name = ["table ", "view ", "materialized view ", "foreign table "]
            .iter()
            .find_map(|kind| grant.object.strip_prefix(kind));
        let Some(name) = name else { continue };
        let grantee = role(grant.grantee.as_deref());
        // What others passed on goes with it.
        let statement = format!("REVOKE MAINTAIN ON TABLE {name} FROM {grantee} CASCADE");
        session.batch_execute(&statement).await.map_err(failed)?;
        taken += 1;
    }
    for row in &session.query(DEFAULTS, &[]).await.map_err(failed)? {
        let (owner, schema): (String, Option<String>) = (row.get(0), row.get(1));
        let schema = schema.map_or(String::new(), |schema| format!(" IN SCHEMA {}", Ident::new(schema)));
        let statement = format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {}{schema} REVOKE MAINTAIN ON TABLES FROM {}",
            Ident::new(owner),
            role(row.get::<_, Option<String>>(2).as_deref())
        );
        session.batch_execute(&statement).await.map_err(failed)?;
        taken += 1;
    }
    Ok(taken)
}
