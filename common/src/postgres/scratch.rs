//! Databases that a program makes to try something, and drops again: known by their name and their comment, with somebody alive
//! behind them or not. What a killed program left is dropped by the next one.
//!
//! A comment can't be given with the making. So a database is made closed, with a connection limit that only its maker could know
//! ([`closed_limit`]), and gets its comment and is opened in the next transaction: in between it is known by those two.

use chrono::Utc;

use super::{ConnectionSettings, Row, Session, database, shared_text};
use crate::{Error, Result, digest, ident::with_suffix};

/// The connection limit of a database of this name while it is made and closed: the one mark that CREATE DATABASE itself can set.
/// Nobody gives such a limit to a database of his own: it has at least 17 bits, and depends on the name.
pub fn closed_limit(name: &str) -> i32 {
    let hash = digest::sha256(format!("safe-run makes {name}").as_bytes());
    let bits = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    i32::try_from(bits >> 1 | 1 << 16).unwrap_or(i32::MAX)
}

/// The comment of a database that a restore makes, until it is complete, with its grants and settings.
pub const HALF_MADE: &str = "safe-run: half-made by a restore, which is still at work or was killed";

/// How the comments begin that say that a database is ours while it is made, tried, cloned or hidden.
const MARKS: [&str; 4] = [
    "safe-run: half-made by a restore",
    "safe-run: scratch database of ",
    "safe-run/",
    "Empty. Stands in for a database while safe-run/",
];

/// Whether a comment is a mark of ours, and says of no other database what it says of the one that bears it: a snapshot of that must not
/// give it to what is restored from it.
pub fn is_mark(comment: &str) -> bool {
    MARKS.iter().any(|mark| comment.starts_with(mark))
}

/// The name in the first column, as [`shared_text::bytes`] gives it, if we made the database: the second column is NULL where its comment
/// says so, and else its connection limit.
pub fn marked(row: &Row) -> Option<String> {
    let (name, limit) = (shared_text::name(row, 0)?, row.get::<_, Option<i32>>(1));
    limit.is_none_or(|limit| limit == closed_limit(&name)).then_some(name)
}

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
                    "SELECT {}, CASE WHEN pg_catalog.shobj_description(oid, 'pg_database') IS NULL THEN datconnlimit END
                     FROM pg_catalog.pg_database
                     WHERE datname ~ $2 AND (pg_catalog.shobj_description(oid, 'pg_database') = $1
                       OR NOT datallowconn AND pg_catalog.shobj_description(oid, 'pg_database') IS NULL) ORDER BY 1",
                    shared_text::bytes("datname")
                ),
                &[&self.marker, &format!("_{}_[0-9]{{8}}_[0-9]{{6}}$", self.word)],
            )
            .await
            .map_err(failed)?;
        let mut dead = Vec::new();
        // Ours have names that we can write.
        for name in rows.iter().filter_map(marked) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_of_people_are_no_marks() {
        for mark in [
            HALF_MADE,
            "safe-run: scratch database of a backup drill; the next drill drops it if this one was killed",
            "safe-run/20260101T000000Z-shop-aaaaaa: a clone of \"shop\" as it was before that run; `safe-run recover` uses or drops it",
            "Empty. Stands in for a database while safe-run/20260101T000000Z-shop-aaaaaa works on it; `safe-run recover` ends that.",
        ] {
            assert!(is_mark(mark), "{mark}");
        }
        for comment in [
            "",
            "the shop",
            "safe-run",
            "safe-run: used for migrations",
            "half-made by a restore",
            " safe-run/x",
        ] {
            assert!(!is_mark(comment), "{comment}");
        }
    }

    #[test]
    fn the_limit_of_a_closed_database_is_its_names_own_and_nobodys_choice() {
        assert_eq!(closed_limit("shop_drill_20260101_000000"), closed_limit("shop_drill_20260101_000000"));
        assert_ne!(closed_limit("shop_drill_20260101_000000"), closed_limit("shop_drill_20260101_000001"));
        for n in 0..10_000 {
            assert!(closed_limit(&format!("shop_{n}")) >= 1 << 16);
        }
    }
}
