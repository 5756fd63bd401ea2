//! Looking with amcheck where it is not installed: it is created inside the checks' savepoint, or in a transaction of its own, which is
//! always rolled back.

use common::{
    error::{Error, Result},
    ident::printable,
    postgres::{Client, SimpleQueryMessage},
};

use crate::{
    catalogue::CheckKind,
    job::Job,
    model::Skipped,
    outcome::Outcome,
    session::{CheckSession, RefusedQuery},
    structure,
    violations::thousands,
    work::Queue,
};

const AVAILABLE: &str =
    "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name OPERATOR(pg_catalog.=) 'amcheck'";

/// Creates amcheck where nothing else can be, and where a rollback takes it away. Event triggers of the user do not fire:
/// they might write elsewhere.
const CREATE: &str = "SET LOCAL session_replication_role = replica;
CREATE SCHEMA safe_run_amcheck; CREATE EXTENSION amcheck SCHEMA safe_run_amcheck;
SET LOCAL session_replication_role = origin;";

/// Event triggers that would fire for it all the same: before PostgreSQL 17 nothing keeps those that are ENABLE ALWAYS or REPLICA from
/// it. A rollback takes back what they write, but no numbers of sequences.
const FIRING: &str = "
SELECT pg_catalog.string_agg(pg_catalog.quote_ident(e.evtname), ', ' ORDER BY e.evtname) FROM pg_catalog.pg_event_trigger e
WHERE pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 170000
  AND e.evtenabled OPERATOR(pg_catalog.=) ANY (ARRAY['A', 'R']::pg_catalog.\"char\"[])
  AND e.evtevent OPERATOR(pg_catalog.=) ANY (ARRAY['ddl_command_start', 'ddl_command_end']::pg_catalog.name[])";

/// The role that a grant would be given to.
const ROLE: &str = "SELECT pg_catalog.quote_ident(current_user)";

/// The server refuses a statement to this role.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Why there is no amcheck for a role that is no superuser, with the SQL that gives it one, on one line.
fn needs_superuser(role: &str) -> String {
    format!(
        "only a superuser can create amcheck: CREATE SCHEMA amcheck; CREATE EXTENSION amcheck SCHEMA amcheck; GRANT USAGE ON \
         SCHEMA amcheck TO {role}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA amcheck TO {role}"
    )
}

/// Creates amcheck in a savepoint or a transaction of its own on `client`, looks at `targets`, and takes it back.
pub(super) async fn run_with_created(
    client: &Client,
    owns_transaction: bool,
    targets: &[structure::Target],
    out: &mut Outcome,
) -> Result<()> {
    let skip_all = |out: &mut Outcome, why: String| {
        out.skipped.push(Skipped {
            check: CheckKind::Structure,
            object: match targets.len() {
                1 => "1 index or table".to_owned(),
                many => format!("{} indexes and tables", thousands(i64::try_from(many).unwrap_or(i64::MAX))),
            },
            why,
            counts_for_strict: true,
        });
    };
    if let Some(triggers) = asked(client, FIRING).await? {
        skip_all(
            out,
            format!(
                "the extension amcheck is not installed, and event triggers would fire if it were created for the time of the check: {}; \
                 install it (CREATE EXTENSION amcheck), or go without with --skip structure",
                printable(&triggers)
            ),
        );
        return Ok(());
    }
    let session = match CheckSession::open_with(client, 0, Some((AVAILABLE, CREATE)), owns_transaction)
        .await?
    {
        Ok(session) => session,
        Err(refused) => {
            let why = match refused {
                None => "the server does not have the extension amcheck".to_owned(),
                // What is refused first is a setting of ours; a role that may not set it may not create the extension either.
                Some(RefusedQuery { sqlstate, .. }) if sqlstate == INSUFFICIENT_PRIVILEGE => {
                    let role = asked(client, ROLE).await.ok().flatten();
                    needs_superuser(role.as_deref().unwrap_or("PUBLIC"))
                }
                Some(RefusedQuery { message, .. }) => format!(
                    "the extension amcheck is not installed, and could not be created for the time of the check: {message}; \
                     install it (CREATE EXTENSION amcheck), or go without with --skip structure"
                ),
            };
            skip_all(out, why);
            return Ok(());
        }
    };
    let checked = async {
        let amcheck = structure::installed(&session).await?.unwrap_or_default();
        let jobs = targets.iter().map(|target| Job::of_structure(target.clone(), &amcheck)).collect();
        Queue::new(jobs, 1, None).drain(&session, None, out).await
    }
    .await;
    let closed = session.close().await;
    checked?;
    closed
}

/// The first value of a query's first row.
async fn asked(client: &Client, sql: &str) -> Result<Option<String>> {
    let failed = |source| Error::postgres("could not prepare amcheck", source);
    let answer = client.simple_query(sql).await.map_err(failed)?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
