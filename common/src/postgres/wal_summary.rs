//! What PostgreSQL 17 and later tell of changed blocks (`summarize_wal`). Where anything is missing the answer is a reason
//! to read everything, never an error: what is in doubt is read.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;

use super::{Client, ToSql, sql};
use crate::{
    Error, Result, interrupt,
    snapshot::wal_base::{Anchor, Changes, Lsn, Summary, WalBase, covering},
};

/// A position in the log, and a transaction id that was given out at a later moment.
///
/// A transaction with a later id wrote nothing before the position. The order of the two reads matters: the other way
/// round, or in one statement, a transaction could begin between them and write before the position.
///
/// The id is one that was drawn for this. What a snapshot calls its xmax is *not* the next id: it is the one after the
/// latest that has ended, and transactions with this id and later ones may have been writing for hours (docs/exactness.md, E5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    lsn: Lsn,
    xid: u64,
}

impl Point {
    /// The position.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// How long the summarizer may take to get as far as a checkpoint; it reads some 300 MB of log in a second.
const SUMMARIZER_WAIT: Duration = Duration::from_secs(60);

fn failed(source: tokio_postgres::Error) -> Error {
    Error::postgres("could not read what changed since the last snapshot", source)
}

/// An answer of the server that it gives no answer: a reason to read everything, and no error.
pub fn or_why_not<T>(
    result: Result<std::result::Result<T, String>>,
) -> Result<std::result::Result<T, String>> {
    match result {
        Err(error) if error.sqlstate().is_some() => Ok(Err(error.to_string())),
        other => other,
    }
}

/// Why this server can't tell what changed, if it can't.
pub async fn unavailable(client: &Client) -> Result<Option<String>> {
    let row = client.query_one(sql::WAL_SUMMARY_SUPPORT, &[]).await.map_err(failed)?;
    let version: i32 = row.get("version");
    Ok(if version < 170_000 {
        Some(format!("PostgreSQL {} does not tell what changed (17 and later do)", version / 10_000))
    } else if row.get("in_recovery") {
        Some("a standby does not tell what changed".to_owned())
    } else if row.get::<_, Option<String>>("summarize_wal").as_deref() != Some("on") {
        Some("summarize_wal is off on the server, which is what tells what changed".to_owned())
    } else if !row.get::<_, bool>("may_checkpoint") {
        Some("the role may not run CHECKPOINT, which is needed to learn what changed (GRANT pg_checkpoint TO role)".to_owned())
    } else {
        None
    })
}

/// Reads a point. In two statements, and outside of a transaction: see [`Point`].
pub async fn point(client: &Client) -> Result<Point> {
    let lsn = position(client).await?;
    let row = client.query_one(sql::DRAW_XID, &[]).await.map_err(failed)?;
    Ok(Point { lsn, xid: row.get::<_, i64>(0).unsigned_abs() })
}

/// The end of the log.
pub async fn position(client: &Client) -> Result<Lsn> {
    let row = client.query_one(sql::WAL_POSITION, &[]).await.map_err(failed)?;
    Ok(Lsn(row.get::<_, i64>(0).unsigned_abs()))
}

/// The oldest transaction that is in progress for the snapshot of the session's transaction.
pub async fn oldest_in_progress(client: &Client) -> Result<u64> {
    let row = client.query_one(sql::OLDEST_XID, &[]).await.map_err(failed)?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// The latest position that every transaction in progress began after.
pub fn latest_safe(points: &[Point], oldest_in_progress: u64) -> Option<Lsn> {
    points.iter().filter(|point| point.xid < oldest_in_progress).map(|point| point.lsn).max()
}

/// The cluster, its timeline and the database: what a base must have been taken from.
pub async fn identity(client: &Client) -> Result<(String, i64, u32)> {
    let row = client.query_one(sql::CLUSTER_IDENTITY, &[]).await.map_err(failed)?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

/// Runs a CHECKPOINT and waits until the summaries reach it. After it everything before it is durable.
///
/// Returns why not, where the summarizer does not get there.
pub async fn settle(client: &Client) -> Result<Option<String>> {
    client.batch_execute("CHECKPOINT").await.map_err(failed)?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        interrupt::check()?;
        let row = client.query_one(sql::SUMMARIZER_STATE, &[]).await.map_err(failed)?;
        if row.get::<_, bool>("reached") {
            return Ok(None);
        }
        if row.get::<_, Option<i32>>("pid").is_none() {
            return Ok(Some("the server's WAL summarizer does not run".to_owned()));
        }
        if started.elapsed() > SUMMARIZER_WAIT {
            return Ok(Some(format!(
                "the server's WAL summarizer did not get to the last checkpoint within {} s",
                SUMMARIZER_WAIT.as_secs()
            )));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

async fn available(client: &Client) -> Result<Vec<Summary>> {
    let rows = client.query(sql::WAL_SUMMARIES, &[]).await.map_err(failed)?;
    Ok(rows
        .iter()
        .map(|row| Summary {
            timeline: row.get(0),
            start: Lsn(row.get::<_, i64>(1).unsigned_abs()),
            end: Lsn(row.get::<_, i64>(2).unsigned_abs()),
        })
        .collect())
}

/// The summary that holds `to`. Call it after [`settle`].
pub async fn anchor(client: &Client, timeline: i64, to: Lsn) -> Result<Option<Anchor>> {
    let holds = |summary: &&Summary| summary.timeline == timeline && summary.start <= to && to <= summary.end;
    let Some(summary) = available(client).await?.iter().find(holds).copied() else { return Ok(None) };
    let content = content(client, timeline, summary.start, summary.end).await?;
    Ok(Some(Anchor { start: summary.start, end: summary.end, content }))
}

async fn content(client: &Client, timeline: i64, start: Lsn, end: Lsn) -> Result<String> {
    let row = client
        .query_one(sql::WAL_SUMMARY_HASH, &[&timeline, &start.to_string(), &end.to_string()])
        .await
        .map_err(failed)?;
    Ok(row.get(0))
}

/// What changed between `base` and `to`, by pieces of `piece_blocks`; or why that can't be told. Call it after [`settle`]
/// (docs/exactness.md, E6).
pub async fn changes(
    client: &Client,
    base: &WalBase,
    to: Lsn,
    piece_blocks: u64,
) -> Result<std::result::Result<Changes, String>> {
    let available = available(client).await?;
    let anchor = &base.anchor;
    let is_there = available
        .iter()
        .any(|one| (one.timeline, one.start, one.end) == (base.timeline, anchor.start, anchor.end));
    if base.to > to
        || !is_there
        || content(client, base.timeline, anchor.start, anchor.end).await? != anchor.content
    {
        return Ok(Err(
            "the server no longer has the log of the last snapshot (summaries are kept for wal_summary_keep_time), \
             or was put back to an earlier state"
                .to_owned(),
        ));
    }
    let summaries = match covering(&available, base.timeline, base.from, to) {
        Ok(summaries) => summaries,
        Err(why) => return Ok(Err(why)),
    };
    let timelines: Vec<i64> = summaries.iter().map(|summary| summary.timeline).collect();
    let starts: Vec<String> = summaries.iter().map(|summary| summary.start.to_string()).collect();
    let ends: Vec<String> = summaries.iter().map(|summary| summary.end.to_string()).collect();
    let blocks = i64::try_from(piece_blocks).unwrap_or(i64::MAX);
    let parameters: [&(dyn ToSql + Sync); 5] = [&timelines, &starts, &ends, &base.database_oid, &blocks];
    // There may be a line for each piece of the database: they are not kept.
    let rows = client.query_raw(sql::CHANGED_BLOCKS, parameters).await.map_err(failed)?;
    let mut rows = std::pin::pin!(rows);
    let mut changes = Changes::default();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        changes.add(row.get(0), row.get(1), row.get::<_, i64>(2).unsigned_abs());
    }
    Ok(Ok(changes))
}

/// Where a table's rows lie, and what their COPY text depends on beside its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// `pg_relation_filenode`.
    pub filenode: u32,
    /// A hash of all that; nothing for a table whose text may change without a changed block.
    pub fingerprint: Option<String>,
}

/// The forms of tables, by oid.
pub async fn forms(client: &Client, tables: &[u32]) -> Result<HashMap<u32, Form>> {
    let rows = client.query(sql::TABLE_FORMS, &[&tables]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), Form { filenode: row.get(1), fingerprint: row.get(2) })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_safe_only_if_every_transaction_in_progress_began_after_it() {
        let points = [Point { lsn: Lsn(100), xid: 9 }, Point { lsn: Lsn(200), xid: 19 }];
        assert_eq!(latest_safe(&points, 9), None);
        assert_eq!(latest_safe(&points, 10), Some(Lsn(100)));
        assert_eq!(latest_safe(&points, 19), Some(Lsn(100)));
        assert_eq!(latest_safe(&points, 20), Some(Lsn(200)));
    }
}
