//! Whether the new database is complete, and who may connect to it: its mark while it is made, and the state of the database itself, which
//! comes last.

use common::{
    Error, Result,
    postgres::{Session, database::FENCED, known_settings, scratch},
    repository::StoredSnapshot,
    snapshot::readme::{database_statements, setting_statement},
};

use crate::{plan::RestorePlan, role_map, rule_settings};

/// Whether the limit of connections does not hold for this session's user.
pub async fn is_superuser(session: &Session) -> Result<bool> {
    let row = session
        .query_one("SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = session_user", &[])
        .await
        .map_err(|source| Error::postgres("could not ask for the rights of this role", source))?;
    Ok(row.get(0))
}

/// Whether who logged in has the rights of the role that he acts as.
pub async fn has_owners_rights(maintenance: &Session) -> Result<bool> {
    let row = maintenance
        .query_one("SELECT pg_catalog.pg_has_role(session_user, current_user, 'USAGE')", &[])
        .await
        .map_err(|source| Error::postgres("could not ask for the rights of this role", source))?;
    Ok(row.get(0))
}

/// Gives everybody what everybody has in a new database. Where the snapshot says otherwise, that comes right after.
pub async fn open(maintenance: &Session, name: &str) -> Result<()> {
    let name_sql = common::Ident::new(name);
    let mut statement = format!("GRANT CONNECT ON DATABASE {name_sql} TO PUBLIC");
    if !has_owners_rights(maintenance).await? {
        statement.push_str(&format!("; REVOKE CONNECT ON DATABASE {name_sql} FROM SESSION_USER"));
    }
    maintenance.batch_execute(&statement).await.map_err(|source| {
        Error::postgres(format!("could not open the database \"{name}\" to its users"), source)
    })
}

/// Owner, grants, settings and limits of the database itself, read-only if the plan says so; the settings that were left out, one
/// sentence each. It keeps its mark: [`complete`] comes after it.
pub async fn apply_database_state(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    name: &str,
    plan: &RestorePlan,
) -> Result<Vec<String>> {
    let no_owner = plan.no_owner;
    let mut state = role_map::mapped_state(&plan.map_roles, &snapshot.manifest.database);
    state.comment = None;
    // A template could not be dropped if something failed.
    state.is_template = false;
    if no_owner {
        state.acl = None;
        state.settings.retain(|setting| setting.role.is_none());
    }
    let settings = std::mem::take(&mut state.settings);
    let failed =
        |source| Error::postgres(format!("could not give the database \"{name}\" its settings"), source);
    maintenance.batch_execute(&rule_settings::take_back(name)).await.map_err(failed)?;
    // The owner is the first statement.
    for statement in database_statements(&state, name).into_iter().skip(usize::from(no_owner)) {
        maintenance.batch_execute(&statement).await.map_err(failed)?;
    }
    known_settings::know(maintenance, &settings).await?;
    let mut left_out = Vec::new();
    for setting in &settings {
        let Err(source) = maintenance.batch_execute(&setting_statement(setting, name)).await else {
            continue;
        };
        let is_refused = source.code().is_some();
        let what = match &setting.role {
            Some(role) => format!("setting {} = {} of the role {role}", setting.name, setting.value),
            None => format!("setting {} = {}", setting.name, setting.value),
        };
        let what = common::ident::printable(&what);
        let error = Error::postgres(format!("the server does not accept the {what}"), source);
        if !(is_refused && plan.skip_settings) {
            return Err(match is_refused {
                true => error
                    .with_hint("--skip-settings leaves out what the server does not accept, and names it."),
                false => error,
            });
        }
        left_out.push(format!("{what} of the database was left out: {}", error.message()));
    }
    if plan.read_only {
        let fence = format!(
            "ALTER DATABASE {} SET default_transaction_read_only TO '{FENCED}'",
            common::Ident::new(name)
        );
        maintenance.batch_execute(&fence).await.map_err(|source| {
            Error::postgres(format!("could not make the database \"{name}\" read-only"), source)
        })?;
    }
    Ok(left_out)
}

/// Gives it its own comment in place of the mark: it lacks nothing now. A mark that the snapshot's database bore was of that one.
pub async fn complete(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    name: &str,
    plan: &RestorePlan,
) -> Result<()> {
    common::fault::point("restore.before-complete");
    let own = snapshot.manifest.database.comment.as_ref().filter(|comment| !scratch::is_mark(comment));
    let comment = plan.marker.as_ref().or(own);
    let comment = comment.map_or_else(|| "NULL".to_owned(), |comment| common::ident::literal(comment));
    let statement = format!("COMMENT ON DATABASE {} IS {comment}", common::Ident::new(name));
    maintenance.batch_execute(&statement).await.map_err(|source| {
        Error::postgres(format!("could not give the database \"{name}\" its comment"), source)
    })
}
