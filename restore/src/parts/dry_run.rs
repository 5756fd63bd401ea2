//! What `restore --table … --dry-run` can tell without making anything: whatever is refused here, the run would refuse too.

use common::{
    Error, Ident, QualifiedName, Result,
    postgres::{ConnectionSettings, Session},
    repository::StoredSnapshot,
};

use super::{
    plan::Mode,
    scratch,
    select::{Selection, Unit},
};
use crate::{RestoreOptions, Target};

/// What only the run itself finds out.
pub const NOT_CHECKED: &str = "types and definitions of the live database: they are compared with a scratch database, which a dry run does not make";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Whether the replaced tables are kept beside the new ones.
    pub keeps: bool,
    /// Whether it is a dry run. Of a live table that is not as in the snapshot, the run itself sees all that differs, in one round.
    pub is_dry: bool,
}

/// Refuses what the run would refuse before it changed anything.
///
/// # Errors
/// The refusal that the run would end with.
pub async fn refuse(
    connection: &ConnectionSettings,
    maintenance: &Session,
    part: &StoredSnapshot,
    target: &Target,
    options: &RestoreOptions,
    (mode, units): (Mode, &[Unit]),
    Asked { keeps, is_dry }: Asked,
) -> Result<()> {
    crate::whole::prepare(connection, maintenance, part, target, options).await?;
    if mode == Mode::Into {
        return Ok(());
    }
    let live = connection.connect().await?;
    let mut problems = Vec::new();
    let mut grants = Vec::new();
    for unit in units {
        // Of a partitioned table the partitions have the rows; of one without any, nothing is known here.
        let wanted = Selection::data(&part.manifest, unit).first().copied().map(|data| &*data.table.columns);
        match mode {
            Mode::Replace => in_place(&live, &unit.name, wanted, &mut problems, &mut grants).await?,
            _ => beside(&live, &unit.name, &mut grants).await?,
        }
    }
    let unchanged = |error: Error| error.with_database_state("No database was changed.");
    if mode == Mode::Replace && problems.is_empty() {
        temporary(&live, &mut grants).await?;
        if keeps {
            for unit in units {
                beside(&live, &unit.name, &mut grants).await?;
            }
        }
        if grants.is_empty() {
            super::replace::refuse_not_owned(&live, units).await.map_err(unchanged)?;
        }
    }
    live.close().await?;
    if is_dry && !problems.is_empty() {
        return Err(unchanged(super::replace::not_as_in_the_snapshot(&problems)));
    }
    if !grants.is_empty() {
        let role = common::ident::printable(connection.user());
        grants.dedup();
        return Err(unchanged(
            Error::refused(format!("\"{role}\" may not do this"))
                .with_hint(format!("Run as the tables' owner, or as a superuser: {}", grants.join(" "))),
        ));
    }
    Ok(())
}

/// The live table has to be there, with the columns that the rows have, and may be emptied and filled.
async fn in_place(
    live: &Session,
    name: &QualifiedName,
    wanted: Option<&[Ident]>,
    problems: &mut Vec<String>,
    grants: &mut Vec<String>,
) -> Result<()> {
    let Some(found) = scratch::columns(live, name).await? else {
        problems.push(super::replace::no_such_table(name));
        return Ok(());
    };
    for column in wanted.unwrap_or_default() {
        if !found.iter().any(|found| found.name == column.as_str()) {
            let column = common::ident::printable(column.as_str());
            problems.push(format!("{}: column {column} is missing", name.short()));
        }
    }
    // A generated one may be in the snapshot too: its rows don't have it, and the run looks into the schema.
    for new in found.iter().filter(|found| !found.is_generated) {
        let Some(wanted) = wanted else { break };
        if !wanted.iter().any(|column| column.as_str() == new.name) {
            let column = common::ident::printable(&new.name);
            problems.push(format!("{}: column {column} {} is new", name.short(), new.kind));
        }
    }
    let row = live
        .query_one(
            &format!(
                "SELECT ARRAY(SELECT p FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'TRUNCATE']) p
                              WHERE NOT pg_catalog.has_table_privilege({table}, p)),
                        pg_catalog.quote_ident(current_user)",
                table = scratch::regclass(name)
            ),
            &[],
        )
        .await
        .map_err(|source| Error::postgres(format!("could not look at {}", name.short()), source))?;
    let lacking: Vec<String> = row.get(0);
    if !lacking.is_empty() {
        grants.push(format!("GRANT {} ON {name} TO {};", lacking.join(", "), row.get::<_, String>(1)));
    }
    Ok(())
}

/// Rows are loaded into temporary tables first.
async fn temporary(live: &Session, grants: &mut Vec<String>) -> Result<()> {
    let row = live
        .query_one(
            "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY'),
                    pg_catalog.quote_ident(pg_catalog.current_database()), pg_catalog.quote_ident(current_user)",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look at the database", source))?;
    if !row.get::<_, bool>(0) {
        let (database, role): (String, String) = (row.get(1), row.get(2));
        grants.push(format!("GRANT TEMPORARY ON DATABASE {database} TO {role};"));
    }
    Ok(())
}

/// A new table is made in the schema of the live one, or the schema is made.
async fn beside(live: &Session, name: &QualifiedName, grants: &mut Vec<String>) -> Result<()> {
    let row = live
        .query_one(
            "SELECT n.oid IS NOT NULL,
                    CASE WHEN n.oid IS NULL
                         THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
                         ELSE pg_catalog.has_schema_privilege(n.oid, 'CREATE') END,
                    pg_catalog.quote_ident(pg_catalog.current_database()), pg_catalog.quote_ident(current_user)
             FROM (SELECT $1::text AS wanted) w LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.wanted",
            &[&name.schema.as_str()],
        )
        .await
        .map_err(|source| Error::postgres("could not look at the schema", source))?;
    let (exists, may): (bool, bool) = (row.get(0), row.get(1));
    let (database, role): (String, String) = (row.get(2), row.get(3));
    if !may {
        let on = if exists { format!("SCHEMA {}", name.schema) } else { format!("DATABASE {database}") };
        grants.push(format!("GRANT CREATE ON {on} TO {role};"));
    }
    Ok(())
}
