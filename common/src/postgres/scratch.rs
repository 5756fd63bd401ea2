//! Databases that a program makes to try something, and drops again: known by their name and their comment, with somebody alive
//! behind them or not. What a killed program left is dropped by the next one.

use chrono::Utc;

use super::{ConnectionSettings, Session, database, shared_text};
use crate::{Error, Result, ident::with_suffix};

/// A kind of scratch database.
#[derive(Debug, Clone, Copy)]
pub struct ScratchKind {
    /// The word in its name, and in the key of its lock.
    pub word: &'static str,
    /// Its comment: no database is dropped for its name alone.
    pub marker: &'static str,
    /// What drops those that were left, as the subject of a sentence: `The next … `.
    pub swept_by: &'static str,
    /// How long dropping one may take, all files of it.
    pub patience: std::time::Duration,
}

impl ScratchKind {
    /// A name for a scratch database of `live` made now.
    pub fn name(&self, live: &str) -> String {
        with_suffix(live, &format!("_{}_{}", self.word, Utc::now().format("%Y%m%d_%H%M%S")))
    }

    /// Says on the server that somebody is alive behind it: an advisory lock of the maintenance database that goes with its
    /// session.
    pub async fn hold(&self, connection: &ConnectionSettings, name: &str) -> Result<Session> {
        let session = database::connect_maintenance(connection, &[name]).await?;
        session
            .query_one(&format!("SELECT pg_catalog.pg_advisory_lock({})", self.key()), &[&name])
            .await
            .map_err(|source| Error::postgres("could not mark a scratch database as in use", source))?;
        Ok(session)
    }

    /// Those with nobody alive behind them. `session` is on the maintenance database: advisory locks belong to one database.
    pub async fn leftovers(&self, session: &Session) -> Result<Vec<String>> {
        let failed = |source| Error::postgres("could not look for scratch databases", source);
        let rows = session
            .query(
                &format!(
                    "SELECT {} FROM pg_catalog.pg_database
                     WHERE datname ~ $2 AND pg_catalog.shobj_description(oid, 'pg_database') = $1 ORDER BY 1",
                    shared_text::bytes("datname")
                ),
                &[&self.marker, &format!("_{}_[0-9]{{8}}_[0-9]{{6}}$", self.word)],
            )
            .await
            .map_err(failed)?;
        let mut dead = Vec::new();
        // Ours have names that we can write.
        for name in rows.iter().filter_map(|row| shared_text::name(row, 0)) {
            let is_dead: bool = session
                .query_one(&format!("SELECT pg_catalog.pg_try_advisory_lock({})", self.key()), &[&name])
                .await
                .map_err(failed)?
                .get(0);
            if is_dead {
                session
                    .query_one(&format!("SELECT pg_catalog.pg_advisory_unlock({})", self.key()), &[&name])
                    .await
                    .map_err(failed)?;
                dead.push(name);
            }
        }
        Ok(dead)
    }

    /// Drops it, over a connection of its own: one that was idle for hours may be gone, or cancelled.
    pub async fn drop(&self, connection: &ConnectionSettings, name: &str) -> Result<()> {
        let dropped = async {
            let session = database::connect_maintenance(connection, &[name]).await?;
            database::drop_database_within(&session, name, self.patience).await?;
            session.close().await
        };
        dropped.await.map_err(|error| {
            error
                .context(format!("the scratch database \"{}\" is still there", crate::ident::printable(name)))
                .with_hint(format!(
                    "{} on this server drops it, if it can then; until then it takes space.",
                    self.swept_by
                ))
        })
    }

    fn key(&self) -> String {
        format!("pg_catalog.hashtextextended('safe-run {} ' || $1::text, 0)", self.word)
    }
}
