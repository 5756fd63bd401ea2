//! `backup check`: can this role back up this database from this machine? Changes nothing and shows no secret.

use common::{
    Error, Result,
    cli::{Output, Settings, SharedArgs, format, output::Tone, process},
    postgres::{ConnectionSettings, Session, connect, database, known_fixes::Fix, tools},
    repository,
};
use serde::Serialize;

use crate::{drill, space};

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Item {
    what: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fix: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    database: String,
    host: String,
    user: String,
    ok: bool,
    checks: Vec<Item>,
}

/// Tables that the role may not read, and tables whose row-level security would hide rows from it.
const UNREADABLE: &str = "
SELECT n.nspname, c.relname,
       NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') AS no_select,
       NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS no_usage,
       pg_catalog.row_security_active(c.oid) AS hides_rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
  AND (NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') OR NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       OR pg_catalog.row_security_active(c.oid))
ORDER BY 1, 2";

/// Runs every check and prints the result. Exit code 0 when a backup would work, 3 when it would not, 4 when the server
/// can't be reached.
pub async fn run(shared: &SharedArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let connection = settings.connection()?.with_application_name("backup check");
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    process::wait_for_server(&connection, shared.wait, output).await?;
    let session = connection.connect().await?;
    let mut checks = vec![server(&session).await];
    checks.extend(releases(session.server_version_num()));
    checks.push(client_tools(&session).await);
    checks.push(rights(&session, connection.user()).await?);
    checks.push(large_objects(&session, connection.user()).await?);
    checks.push(repository_folder(settings, &session).await);
    checks.extend(scratch_databases(session.settings()).await);
    session.close().await?;
    let report = Report {
        database: connection.database().to_owned(),
        host: connection.host_label(),
        user: connection.user().to_owned(),
        ok: checks.iter().all(|check| check.ok),
        checks,
    };
    if output.is_json() {
        output.document(&report)?;
    } else {
        output.data(&render(&report, output))?;
    }
    Ok(if report.ok { 0 } else { common::ErrorKind::Refused.exit_code() })
}

fn render(report: &Report, output: &Output) -> String {
    let mut text = format!(
        "{}  database \"{}\" on {} as \"{}\"\n",
        if report.ok { output.paint(Tone::Good, "READY") } else { output.paint(Tone::Bad, "NOT READY") },
        report.database,
        report.host,
        report.user
    );
    for check in &report.checks {
        let word = if check.ok { output.paint(Tone::Good, "ok") } else { output.paint(Tone::Bad, "no") };
        text.push_str(&format!("  {word}  {:<13} {}\n", check.what, check.found));
        for fix in &check.fix {
            text.push_str(&format!("                    {fix}\n"));
        }
    }
    text
}

fn item(what: &'static str, result: Result<String>) -> Item {
    match result {
        Ok(found) => Item { what, ok: true, found, fix: Vec::new() },
        Err(error) => Item {
            what,
            ok: false,
            found: error.message().to_owned(),
            fix: error.hint().map(str::to_owned).into_iter().collect(),
        },
    }
}

async fn server(session: &Session) -> Item {
    let looked = async {
        crate::check_server(session).await?;
        connect::refuse_pooler(session).await?;
        let row = session
            .query_one(
                "SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
                        pg_catalog.pg_database_size(pg_catalog.current_database())",
                &[],
            )
            .await
            .map_err(|source| Error::postgres("could not ask the server", source))?;
        let (version, standby, size): (String, bool, i64) = (row.get(0), row.get(1), row.get(2));
        let role = if standby { "hot standby" } else { "primary" };
        Ok(format!("PostgreSQL {version}, {role}, {} on disk", format::bytes(size.unsigned_abs())))
    };
    item("server", looked.await)
}

/// What a newer minor release would mend, and whether there will be any more. It stops no backup.
fn releases(version_num: i32) -> Option<Item> {
    let mut said: Vec<String> = Fix::ALL
        .into_iter()
        .filter(|fix| !fix.is_in(version_num))
        .filter_map(|fix| Some(format!("{} mends: {}", fix.release(version_num)?, fix.mends()?)))
        .collect();
    if let Some(last) = Fix::last_of_its_major(version_num) {
        said.push(format!("PostgreSQL {} has had its last release ({last})", version_num / 10_000));
    }
    let first = (!said.is_empty()).then(|| said.remove(0))?;
    Some(Item { what: "releases", ok: true, found: first, fix: said })
}

async fn client_tools(session: &Session) -> Item {
    let (dump, restore) = (tools::installed("pg_dump").await, tools::installed("pg_restore").await);
    let chosen = tools::choose_pg_dump(&dump, session.server_version_num()).and_then(|dump| {
        let restore = tools::choose("pg_restore", &restore, dump.major)?;
        Ok(format!("pg_dump {} ({}), pg_restore {}", dump.version, dump.path.display(), restore.version))
    });
    item("client tools", chosen)
}

async fn rights(session: &Session, user: &str) -> Result<Item> {
    let rows = session
        .query(UNREADABLE, &[])
        .await
        .map_err(|source| Error::postgres("could not read the role's privileges", source))?;
    if rows.is_empty() {
        return Ok(item("rights", Ok("every table and sequence can be read".to_owned())));
    }
    let role = common::Ident::new(user);
    let mut fix = Vec::new();
    let (mut unreadable, mut hidden) = (0, 0);
    for row in &rows {
        let name = common::QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        if row.get("no_usage") {
            let grant = format!("GRANT USAGE ON SCHEMA {} TO {role};", name.schema);
            if !fix.contains(&grant) {
                fix.push(grant);
            }
        }
        if row.get("no_select") {
            unreadable += 1;
            fix.push(format!("GRANT SELECT ON {name} TO {role};"));
        }
        if row.get("hides_rows") {
            hidden += 1;
        }
    }
    let total = fix.len();
    if total > 6 {
        // One predefined role says the same in one line.
        fix = vec![format!(
            "GRANT pg_read_all_data TO {role};  -- {total} single grants would be needed otherwise"
        )];
    }
    if hidden > 0 {
        fix.push(format!("ALTER ROLE {role} BYPASSRLS;"));
    }
    let found =
        format!("{unreadable} tables or sequences can't be read; row-level security hides rows of {hidden}");
    Ok(Item { what: "rights", ok: false, found, fix })
}

async fn large_objects(session: &Session, user: &str) -> Result<Item> {
    let row = session
        .query_one(
            "SELECT pg_catalog.count(*), pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')
             FROM pg_catalog.pg_largeobject_metadata",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not count the large objects", source))?;
    let (count, readable): (i64, bool) = (row.get(0), row.get(1));
    Ok(if count == 0 || readable {
        item("large objects", Ok(format::count(count.unsigned_abs())))
    } else {
        Item {
            what: "large objects",
            ok: false,
            found: format!("{count}, which the role may not read"),
            fix: vec![format!("GRANT SELECT ON pg_catalog.pg_largeobject TO {};", common::Ident::new(user))],
        }
    })
}

/// What killed drills left on the server. It stops no backup, and `backup drill` drops it.
async fn scratch_databases(connection: &ConnectionSettings) -> Option<Item> {
    // From where drills say that they are alive: advisory locks belong to one database.
    let session = database::connect_maintenance(connection, &[]).await.ok()?;
    let names = drill::leftovers(&session).await.ok().filter(|names| !names.is_empty())?;
    let names: Vec<String> = names.iter().map(|name| common::ident::printable(name)).collect();
    Some(item(
        "leftovers",
        Ok(format!("killed drills left {}; the next `backup drill` drops them", names.join(", "))),
    ))
}

async fn repository_folder(settings: &Settings, session: &Session) -> Item {
    let estimate = estimate(settings, session).await;
    let path = &settings.repo;
    let existing = path.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let folder = match existing {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => std::path::Path::new("."),
    };
    let found = repository::free_space(folder).and_then(|free| {
        repository::check_writable(folder)?;
        let state = if path.exists() { "exists" } else { "is made at the first use" };
        let estimate = estimate?;
        let found = format!(
            "{} {state}, {} free; a snapshot will take about {}",
            path.display(),
            format::bytes(free),
            format::bytes(estimate)
        );
        if free < estimate {
            return Err(
                Error::refused(found).with_hint("Free some space, or choose another disk with --repo.")
            );
        }
        Ok(found)
    });
    item("repository", found)
}

/// Bytes that a snapshot will take.
async fn estimate(settings: &Settings, session: &Session) -> Result<u64> {
    // The size on disk takes no lock; unreadable tables count as well.
    let row = session
        .query_one(
            "SELECT pg_catalog.current_database()::text, COALESCE(pg_catalog.sum(c.relpages), 0)::bigint
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not read the sizes of the tables", source))?;
    let (database, pages): (String, i64) = (row.get(0), row.get(1));
    let predecessor = match repository::Repository::open(&settings.repo) {
        Ok(repository) => space::predecessor(&repository, &database, settings.codec)?,
        Err(_) => None,
    };
    Ok(space::estimate(pages.unsigned_abs() * space::BLOCK_BYTES, settings.codec, predecessor.as_ref()))
}
