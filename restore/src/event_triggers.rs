//! Nothing that a restore does fires an event trigger. Those of the snapshot are made last of all; those that an extension brings
//! when it is made are switched off before anything else, and on again at the end.

use common::{Error, Progress, Result, format::plural, ident::printable, postgres::Session};
use tokio::sync::Mutex;

/// Event triggers of extensions that are on, each with the statements that switch it off and on again. Those for replicas fire as well:
/// where a function is made for an owner, the session is one of a replica, so that the database's own stay silent.
const ENABLED: &str = "
SELECT e.evtname::text, pg_catalog.format('ALTER EVENT TRIGGER %I DISABLE', e.evtname),
       pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE%s', e.evtname, CASE e.evtenabled WHEN 'A' THEN ' ALWAYS' WHEN 'R' THEN ' REPLICA' ELSE '' END)
FROM pg_catalog.pg_event_trigger e WHERE e.evtenabled <> 'D' ORDER BY 1";

/// Event triggers of a database that is in use, which fire for what is made and altered there.
const FIRING: &str = "
SELECT pg_catalog.string_agg(pg_catalog.quote_ident(e.evtname), ', ' ORDER BY e.evtname) FROM pg_catalog.pg_event_trigger e
WHERE e.evtenabled IN ('O', 'A') AND e.evtevent <> 'login'";

/// Which event triggers of the live database fire when tables are made or altered there, as a sentence: what they write stays.
///
/// # Errors
/// The catalog can't be read.
pub async fn firing(live: &Session) -> Result<Option<String>> {
    let failed = |source| Error::postgres("could not look for event triggers", source);
    let row = live.query_one(FIRING, &[]).await.map_err(failed)?;
    Ok(row.get::<_, Option<String>>(0).map(|names| {
        format!(
            "event triggers of the live database fire for what is made and altered here, and what they write stays: {}",
            printable(&names)
        )
    }))
}

/// Event triggers that are switched off for the time of a restore.
#[derive(Debug, Default)]
pub struct Silenced(Mutex<Vec<(String, String)>>);

impl Silenced {
    /// Switches off what there is; whether there was something. Only a superuser may, and nobody else could have made the
    /// extension: it is left as it is where the role may not.
    pub async fn silence(&self, session: &Session, progress: &Progress) -> Result<bool> {
        let failed = |source| Error::postgres("could not switch event triggers off", source);
        let rows = session.query(ENABLED, &[]).await.map_err(failed)?;
        let mut silenced = self.0.lock().await;
        let mut names = Vec::new();
        for row in &rows {
            let (name, off, on): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            match session.batch_execute(&off).await {
                Ok(()) => {
                    names.push(printable(&name));
                    silenced.push((name, on));
                }
                // 42501: not this role's.
                Err(source) if source.code().is_some_and(|code| code.code() == "42501") => {}
                Err(source) => return Err(failed(source)),
            }
        }
        if !names.is_empty() {
            progress.note(format!(
                "{} of extensions {} off until the end of the restore: {}",
                plural(names.len() as u64, "event trigger", "event triggers"),
                if names.len() == 1 { "is" } else { "are" },
                names.join(", ")
            ));
        }
        Ok(!names.is_empty())
    }

    /// Switches on again what was switched off.
    ///
    /// # Errors
    /// The server refuses: the database is not as the extension made it.
    pub async fn restore(&self, session: &Session) -> Result<()> {
        for (name, on) in self.0.lock().await.drain(..) {
            session.batch_execute(&on).await.map_err(|source| {
                Error::postgres(format!("could not switch the event trigger {} on", printable(&name)), source)
            })?;
        }
        Ok(())
    }
}
