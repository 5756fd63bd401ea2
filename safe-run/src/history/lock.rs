//! The lock that the adopted tool itself would take: a second runner of that tool waits for us, and we for it.

use std::time::{Duration, Instant};

use common::{
    Error, Result,
    ident::printable,
    interrupt,
    postgres::{Client, Session},
};

use super::History;
use sql::layout::{Format, flyway, golang_migrate, goose, prisma, sqlx};

/// Between two attempts. It is tried and not waited for: a session that waits would be in the way of CREATE INDEX
/// CONCURRENTLY.
const PAUSE: Duration = Duration::from_millis(100);

impl History {
    /// The tool's keys, and how long the tool waits for them.
    fn locks(&self, database: &str) -> (Vec<i64>, Duration) {
        let (schema, table) = (self.table.schema.as_str(), self.table.name.as_str());
        match self.layout.format {
            // sqlx waits without end; here the limit of the run holds.
            Format::Sqlx => (vec![sqlx::lock_key(database)], Duration::MAX),
            Format::GolangMigrate => {
                (golang_migrate::lock_keys(database, schema, table).to_vec(), Duration::from_secs(15))
            }
            Format::Flyway => (vec![flyway::lock_key(schema, table)], Duration::from_secs(50)),
            Format::Goose => (vec![goose::LOCK_KEY], Duration::from_secs(300)),
            Format::Prisma => (vec![prisma::LOCK_KEY], Duration::from_secs(10)),
            Format::SafeRun | Format::Dbmate | Format::Refinery | Format::Diesel => {
                (Vec::new(), Duration::ZERO)
            }
        }
    }

    /// Takes the tool's locks on this idle session, which keeps them to its end. Waits as long as the tool would, and at
    /// most `limit`.
    ///
    /// # Errors
    /// Busy, naming who holds it.
    pub async fn lock(&self, session: &Session, limit: Duration) -> Result<()> {
        let database = session.settings().database();
        let (keys, patience) = self.locks(database);
        let began = Instant::now();
        for key in keys {
            while !try_lock(session, key).await? {
                interrupt::check()?;
                if began.elapsed() > patience.min(limit) {
                    let who = holder(session, key).await?;
                    return Err(Error::busy(format!(
                        "{} works on the database \"{database}\"{who}",
                        self.layout.format
                    ))
                    .with_hint("Wait until it has finished, then run the command again.")
                    .with_database_state(format!("The database \"{database}\" was not changed.")));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

async fn try_lock(client: &Client, key: i64) -> Result<bool> {
    let row = client
        .query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&key])
        .await
        .map_err(|source| Error::postgres("could not take the tool's advisory lock", source))?;
    Ok(row.get(0))
}

async fn holder(client: &Client, key: i64) -> Result<String> {
    let row = client
        .query_opt(
            "SELECT a.pid, a.application_name, COALESCE(a.client_addr::text, 'local') FROM pg_catalog.pg_locks l
             JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted AND l.classid::int8 = ($1::int8 >> 32) & 4294967295
               AND l.objid::int8 = $1::int8 & 4294967295 AND l.objsubid = 1
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            &[&key],
        )
        .await
        .map_err(|source| Error::postgres("could not look who holds the tool's advisory lock", source))?;
    Ok(row.map_or(String::new(), |row| {
        let (pid, name, address): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        format!(" (pid {pid}, \"{}\", from {address})", printable(&name))
    }))
}
