//! Roles of a snapshot that the server has not: which they are, and how they are made.

use std::collections::HashSet;

use common::{
    Error, Result,
    files::read_plain_text,
    ident::printable,
    postgres::{Secret, Session, role_passwords},
    repository::StoredSnapshot,
    snapshot::{manifest::GLOBALS_FILE, readme},
};

use crate::{plan::RestorePlan, role_map};

/// Plans to make the roles that are gone since the plan was made: roles belong to the server, and the command of a run may have dropped
/// or renamed one.
///
/// # Errors
/// The server can't be asked.
pub async fn plan_gone_roles(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    plan: &mut RestorePlan,
) -> Result<()> {
    let there: HashSet<String> = maintenance
        .query("SELECT rolname::text FROM pg_catalog.pg_roles", &[])
        .await
        .map_err(|source| Error::postgres("could not list the roles", source))?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let roles = snapshot.manifest.roles.iter().map(|role| role.name.clone());
    plan.create_roles = roles.filter(|role| !there.contains(role)).collect();
    Ok(())
}

/// Makes the roles that the plan lists. They stay, whatever becomes of the restore.
pub async fn create(maintenance: &Session, snapshot: &StoredSnapshot, plan: &RestorePlan) -> Result<()> {
    let manifest = &snapshot.manifest;
    let missing: Vec<_> =
        manifest.roles.iter().filter(|role| plan.create_roles.contains(&role.name)).collect();
    let memberships = missing.iter().flat_map(|role| {
        let mut role = (*role).clone();
        for (group, _) in &mut role.member_of {
            *group = role_map::mapped(&plan.map_roles, group).to_owned();
        }
        readme::membership_statements(&role)
    });
    let statements = missing.iter().flat_map(|role| readme::role_statements(role)).chain(memberships);
    for statement in statements {
        maintenance.batch_execute(&statement).await.map_err(|source| {
            Error::postgres("could not make the missing roles", source)
                .with_hint(
                    "Make them by hand (globals.sql in the snapshot has the statements), or use --no-owner.",
                )
                .with_database_state("No database was changed.")
        })?;
    }
    if manifest.role_passwords && !missing.is_empty() {
        set_passwords(maintenance, snapshot, missing.iter().map(|role| role.name.as_str())).await?;
    }
    Ok(())
}

/// The server's own words may hold the password.
fn password_not_set(role: &str, code: &str) -> Error {
    Error::failed(format!("could not set the password of the role \"{}\" ({code})", printable(role)))
        .with_hint("Set it by hand: globals.sql in the snapshot has the statement.")
        .with_database_state("No database was changed; the missing roles were made.")
}

/// Gives roles that were just made the passwords of the snapshot. The statements are in no message of ours; where the role
/// may say so, the server does not log them either.
async fn set_passwords(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    roles: impl Iterator<Item = &str>,
) -> Result<()> {
    let path = snapshot.path(GLOBALS_FILE);
    let globals = Secret::new(read_plain_text(&path).map_err(|source| Error::io("read", &path, source))?);
    let logging =
        ["log_statement = 'none'", "log_min_duration_statement = -1", "log_min_error_statement = 'panic'"];
    for setting in logging {
        // Only a superuser may.
        let _ = maintenance.batch_execute(&format!("SET {setting}")).await;
    }
    for role in roles {
        let Some(statement) = role_passwords::find(&globals, role).map_err(|error| {
            error.with_database_state("No database was changed; the missing roles were made.")
        })?
        else {
            continue;
        };
        maintenance.batch_execute(statement.expose()).await.map_err(|source| {
            let code = source.code().map_or("connection lost", |code| code.code()).to_owned();
            password_not_set(role, &code)
        })?;
    }
    for setting in logging {
        let name = setting.split(' ').next().unwrap_or_default();
        let _ = maintenance.batch_execute(&format!("RESET {name}")).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_the_server_does_not_take_is_told_without_it() {
        let error = password_not_set("app", "22023");
        assert_eq!(error.message(), "could not set the password of the role \"app\" (22023)");
        assert_eq!(error.hint(), Some("Set it by hand: globals.sql in the snapshot has the statement."));
    }
}
