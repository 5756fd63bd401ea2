//! Statements that work in several transactions of their own, such as CREATE INDEX CONCURRENTLY: how long they may wait,
//! and what they leave behind when they fail.
//!
//! They wait for everybody's transactions but keep nobody waiting, so no `lock_timeout` ends them: it would leave an
//! invalid index behind each time. A build that failed leaves an invalid index, which slows every write and is never
//! used. It must only be dropped when this very statement made it.

use std::{collections::HashSet, time::Duration};

use common::{Error, Ident, QualifiedName, Result, postgres::Session};

use sql::statement::{self, Statement};

/// Longest wait of dropping what a failed build left behind, in seconds. It keeps nobody else waiting.
const DROP_LIMIT: &str = "30s";

/// Invalid indexes that nobody is building just now.
const INVALID: &str = "
SELECT i.indexrelid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE NOT i.indisvalid AND c.relkind OPERATOR(pg_catalog.=) 'i' AND n.nspname OPERATOR(pg_catalog.!~) '^pg_toast'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p
                  WHERE p.index_relid OPERATOR(pg_catalog.=) i.indexrelid AND p.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())
ORDER BY 1";

/// Whether the statement waits without keeping anybody else waiting.
fn waits_quietly(statement: &Statement) -> bool {
    let words = words(statement);
    match words.first().map(String::as_str) {
        Some("vacuum") => !words.iter().any(|word| word == "full"),
        // REPACK CONCURRENTLY takes an exclusive lock at its end, and everybody waits behind its wait for that.
        Some("create" | "drop" | "reindex" | "alter") => words.iter().any(|word| word == "concurrently"),
        _ => false,
    }
}

fn builds_an_index(statement: &Statement) -> bool {
    let words = words(statement);
    words.iter().any(|word| word == "concurrently")
        && matches!(words.first().map(String::as_str), Some("create" | "reindex"))
}

fn words(statement: &Statement) -> Vec<String> {
    let text = statement::significant_text(&statement.text, usize::MAX);
    text.to_lowercase().split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
}

/// Runs the statement with the waits that suit it; after a failed build drops the invalid indexes that it made.
pub async fn guarded<T>(
    session: &Session,
    statement: &Statement,
    lock_timeout: Duration,
    notes: &mut Vec<String>,
    run: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    if !waits_quietly(statement) {
        return run().await;
    }
    let before = if builds_an_index(statement) { Some(indexes(session).await?) } else { None };
    let waits = only_if_ours(session, lock_timeout, "0").await?;
    let result = run().await;
    if let (Err(error), Some(before)) = (&result, &before)
        && error.sqlstate().is_some_and(|code| !code.starts_with("08") && !code.starts_with("57P"))
    {
        match drop_new_invalid(session, before).await {
            Ok(dropped) => notes.extend(dropped),
            Err(second) => notes
                .push(format!("an invalid index may be left behind: it could not be looked for ({second})")),
        }
    }
    if waits && result.is_ok() {
        set_lock_timeout(session, &format!("{}ms", lock_timeout.as_millis())).await?;
    } else if waits {
        // The statement's own error is what counts; a session that is gone has no settings either.
        let _ = set_lock_timeout(session, &format!("{}ms", lock_timeout.as_millis())).await;
    }
    result
}

/// Changes `lock_timeout` unless the file has set it to something else; whether it did.
async fn only_if_ours(session: &Session, ours: Duration, value: &str) -> Result<bool> {
    let current: i64 = session
        .query_one("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'lock_timeout'", &[])
        .await
        .map_err(|source| Error::postgres("could not read lock_timeout", source))?
        .get(0);
    if u128::from(current.unsigned_abs()) != ours.as_millis() {
        return Ok(false);
    }
    set_lock_timeout(session, value).await.map(|()| true)
}

async fn set_lock_timeout(session: &Session, value: &str) -> Result<()> {
    session
        .batch_execute(&format!("SET lock_timeout = '{value}'"))
        .await
        .map_err(|source| Error::postgres("could not set lock_timeout", source))
}

async fn indexes(session: &Session) -> Result<HashSet<u32>> {
    let rows = session
        .query("SELECT indexrelid FROM pg_catalog.pg_index", &[])
        .await
        .map_err(|source| Error::postgres("could not list the indexes", source))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Drops the invalid indexes that are not in `before`; what was done, as sentences.
async fn drop_new_invalid(session: &Session, before: &HashSet<u32>) -> Result<Vec<String>> {
    let rows = session
        .query(INVALID, &[])
        .await
        .map_err(|source| Error::postgres("could not list invalid indexes", source))?;
    let mut said = Vec::new();
    for row in rows.iter().filter(|row| !before.contains(&row.get::<_, u32>(0))) {
        let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        let sql = format!(
            "DROP INDEX CONCURRENTLY IF EXISTS {}.{}",
            Ident::new(row.get::<_, String>(1)),
            Ident::new(row.get::<_, String>(2))
        );
        set_lock_timeout(session, DROP_LIMIT).await?;
        said.push(match session.batch_execute(&sql).await {
            Ok(()) => {
                format!("the invalid index {} that the failed build left behind was dropped", name.short())
            }
            Err(source) => format!(
                "the failed build left the invalid index {} behind ({}); drop it with `{sql}`",
                name.short(),
                Error::postgres("it could not be dropped", source)
            ),
        });
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_nobody_waiting_may_wait() {
        let quiet = |sql: &str| waits_quietly(&statement::split(sql).unwrap()[0]);
        for sql in [
            "create unique index concurrently i on t (a)",
            "reindex (verbose) index concurrently i",
            "reindex (concurrently) table t",
            "drop index concurrently i",
            "alter table t detach partition p concurrently",
            "vacuum analyze t",
        ] {
            assert!(quiet(sql), "{sql}");
        }
        for sql in [
            "vacuum full t",
            "cluster t",
            "alter table t add c int",
            "reindex table t",
            "repack (concurrently) t",
        ] {
            assert!(!quiet(sql), "{sql}");
        }
    }
}
