//! Settings that a session knows only when something has brought them: nobody but a superuser may store one that it does not know.

use super::Session;
use crate::{Error, Result, catalog::DatabaseSetting};

/// Makes the settings of PL/pgSQL known to the session, which knows them from its first use on. Where the language is gone, or may not be
/// used, they stay unknown.
///
/// # Errors
/// The transaction is aborted, or the connection is gone.
pub async fn know_plpgsql(session: &Session) -> Result<()> {
    const MAY: &str = "SELECT FROM pg_catalog.pg_language WHERE lanname = 'plpgsql' AND pg_catalog.has_language_privilege(oid, 'USAGE')";
    let failed = |source| Error::postgres("could not look for PL/pgSQL", source);
    if session.query_opt(MAY, &[]).await.map_err(failed)?.is_some() {
        session.batch_execute("DO LANGUAGE plpgsql 'BEGIN END'").await.map_err(failed)?;
    }
    Ok(())
}

/// Makes these settings known to the session, as far as a language that every new database has brings them.
///
/// # Errors
/// As [`know_plpgsql`].
pub async fn know(session: &Session, settings: &[DatabaseSetting]) -> Result<()> {
    match settings.iter().any(|setting| setting.name.starts_with("plpgsql.")) {
        true => know_plpgsql(session).await,
        false => Ok(()),
    }
}
