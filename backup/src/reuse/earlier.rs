//! Which earlier snapshot there is to build on, and what the server says has changed since.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::{
    Result,
    catalog::Table,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::ExportedSnapshot,
        wal_summary::{self, Point, or_why_not},
    },
    repository::{Repository, StoredSnapshot, verifications::Proof},
    snapshot::{
        Codec, SnapshotId,
        copy_sql::{Cut, PIECE_BLOCKS},
        manifest::{Chunk, Manifest},
        wal_base::{Lsn, WalBase},
    },
};

use super::{Reuse, ReusePolicy};

/// PostgreSQL's usual size of a block; only an estimate depends on it.
const BLOCK_BYTES: u64 = 8192;

/// Snapshots that are looked at to find one to build on: a manifest may be of megabytes, and tables are locked meanwhile.
const LOOK_AT: usize = 50;

/// The log is not asked about fewer blocks than these at once.
const FINEST_BLOCKS: u64 = 8;

#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) snapshot: StoredSnapshot,
    /// Oid to index.
    pub(super) tables: HashMap<u32, usize>,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// What the new snapshot is: whose chunks fit.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The database's name.
    pub database: &'a str,
    /// Compression.
    pub codec: Codec,
    /// Sizes of chunks and pieces.
    pub cut: Cut,
    /// What may be taken over.
    pub policy: ReusePolicy,
}

/// What is known of an earlier snapshot before the catalog has been read.
pub struct Begun<'a> {
    reuse: Reuse,
    target: Target<'a>,
    /// What to ask the server about, or why not.
    base: std::result::Result<WalBase, String>,
}

/// A session in which what changed can be asked for, or why not.
type Settled = std::result::Result<Session, String>;

/// Looks for an earlier snapshot.
///
/// `reader` has joined the snapshot. The repository's lock is held, so that the earlier snapshot stays.
pub async fn begin<'a>(
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    repository: &Repository,
    target: Target<'a>,
) -> Result<Begun<'a>> {
    let mut reuse = Reuse { cut: target.cut, ..Reuse::default() };
    let unavailable = wal_summary::unavailable(reader).await?;
    if unavailable.is_none() {
        reuse.identity = Some(wal_summary::identity(reader).await?);
        // After the snapshot: whatever it sees was written to the log before this.
        reuse.position = Some(wal_summary::position(reader).await?);
        reuse.from =
            wal_summary::latest_safe(exported.points(), wal_summary::oldest_in_progress(reader).await?);
    }
    if target.policy.full {
        return Ok(Begun { reuse, target, base: Err("--full was given".to_owned()) });
    }
    let full_every = chrono::Duration::from_std(target.policy.full_every).unwrap_or(chrono::Duration::MAX);
    let not_before = exported.taken_at().checked_sub_signed(full_every).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let before = exported.points().iter().map(Point::lsn).max();
    let (earlier, base) = earlier(repository, target, reuse.identity.as_ref(), before)?;
    reuse.earlier = earlier.map(|snapshot| Earlier {
        tables: snapshot
            .manifest
            .tables
            .iter()
            .enumerate()
            .map(|(index, table)| (table.table.oid, index))
            .collect(),
        snapshot,
        not_before,
        not_after: exported.taken_at(),
    });
    Ok(Begun { reuse, target, base: unavailable.map_or(base, Err) })
}

impl Begun<'_> {
    /// Has everything that the snapshot sees in the summaries of the log. That takes a CHECKPOINT and so its time, and needs nothing of
    /// the catalog: it can be done while that is read. Nothing where it is not certain yet that the log is asked at all.
    pub async fn settle(&self, settings: &ConnectionSettings) -> Result<Option<Settled>> {
        if self.base.is_err() || self.target.policy.from_bytes > 0 {
            return Ok(None);
        }
        settled(settings).await.map(Some)
    }

    /// Asks the server what changed since the earlier snapshot.
    pub async fn prepare(
        self,
        settings: &ConnectionSettings,
        reader: &Session,
        tables: &[Table],
        settled_early: Option<Settled>,
    ) -> Result<Reuse> {
        let Self { mut reuse, target, base } = self;
        // As fine as the smallest piece, but for a few pages: there may be a line for each that changed.
        let smallest = tables.iter().map(|table| target.cut.piece_of(table)).min();
        reuse.log_blocks = smallest.unwrap_or(PIECE_BLOCKS).max(FINEST_BLOCKS).min(target.cut.piece_blocks);
        let Some(position) = reuse.position else {
            reuse.why_not = base.err();
            return Ok(reuse);
        };
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        reuse.forms = wal_summary::forms(reader, &oids).await?;
        let bytes: u64 = tables.iter().map(|table| table.all_blocks().saturating_mul(BLOCK_BYTES)).sum();
        let base = if !target.policy.full && bytes < target.policy.from_bytes {
            Err("so small a database is read faster than the server tells what changed".to_owned())
        } else {
            base
        };
        let asked = match base {
            Ok(base) => {
                let settled = match settled_early {
                    Some(settled) => settled,
                    None => settled(settings).await?,
                };
                match settled {
                    Ok(session) => {
                        reuse.settled = true;
                        let asked = wal_summary::changes(&session, &base, position, reuse.log_blocks).await;
                        let asked = or_why_not(asked)?;
                        session.close().await?;
                        // What held for the earlier snapshot's base holds for this one's: transactions only end.
                        asked.inspect(|_| reuse.from = reuse.from.max(Some(base.from)))
                    }
                    Err(why) => Err(why),
                }
            }
            Err(why) => Err(why),
        };
        match asked {
            Ok(changes) => reuse.changes = Some(changes),
            Err(why) => reuse.why_not = Some(why),
        }
        Ok(reuse)
    }
}

async fn settled(settings: &ConnectionSettings) -> Result<Settled> {
    let session = settings.connect().await?;
    match or_why_not(async { Ok(wal_summary::settle(&session).await?.map_or(Ok(()), Err)) }.await)? {
        Ok(()) => Ok(Ok(session)),
        Err(why) => {
            session.close().await?;
            Ok(Err(why))
        }
    }
}

/// The newest snapshot of the same database whose chunks may fit, and its base if the server's log can be compared with it,
/// or why not. One that can be compared with goes first, and the whole before a part.
///
/// `before` is the end of the log at a moment before the new snapshot was taken. A snapshot is *earlier* only if the log was
/// shorter when it had been taken already: one that somebody else took and published after ours was taken is not.
fn earlier(
    repository: &Repository,
    target: Target<'_>,
    identity: Option<&(String, i64, u32)>,
    before: Option<Lsn>,
) -> Result<(Option<StoredSnapshot>, std::result::Result<WalBase, String>)> {
    let none = "there is no earlier snapshot of this database to build on".to_owned();
    let fits =
        |manifest: &Manifest| manifest.database.name == target.database && manifest.codec == target.codec;
    let comparable = |snapshot: &StoredSnapshot| {
        let (manifest, id) = (&snapshot.manifest, &snapshot.manifest.id);
        // Whoever wrote its manifest may have claimed any server and any place in its log.
        if !repository.is_made_here(snapshot) {
            return Err(format!(
                "{id} was not made in this repository, so what it says of the log is not trusted"
            ));
        }
        let Some(base) = manifest.wal_base.clone() else {
            return Err(format!("{id} was taken without what a later snapshot can build on"));
        };
        let own = identity.is_some_and(|(system, timeline, oid)| {
            (&base.system_identifier, base.timeline, base.database_oid) == (system, *timeline, *oid)
        });
        match before {
            _ if !own => Err(format!("{id} is of another server, timeline or database of this name")),
            Some(before) if base.to < before => Ok(base),
            Some(_) => Err(format!(
                "{id} was taken at the same time, or the server was put back to an earlier state"
            )),
            None => Err("the server was not asked for its place in the log before the snapshot".to_owned()),
        }
    };
    let standings = repository.verifications()?;
    let failed = |id: &SnapshotId| {
        standings.get(id).is_some_and(|standing| matches!(standing.proof(), Proof::Failed(_)))
    };
    // What to take, best first: whole and comparable, in part and comparable, any.
    let mut found: [Option<(StoredSnapshot, std::result::Result<WalBase, String>)>; 3] = [None, None, None];
    let mut ids = repository.ids()?;
    ids.retain(|id| id.may_be_of(target.database) && !failed(id));
    for id in ids.iter().rev().take(LOOK_AT) {
        // Ids tell the second only: all of the same second are looked at.
        if found[0].as_ref().is_some_and(|(best, _)| id.taken_at() < best.manifest.id.taken_at()) {
            break;
        }
        // One that can't be read is nothing to build on; `backup list` tells.
        let Ok(snapshot) = repository.read_trusted(id) else { continue };
        if !fits(&snapshot.manifest) {
            continue;
        }
        let base = comparable(&snapshot);
        let place = match &base {
            Ok(_) if !snapshot.manifest.is_partial() => 0,
            Ok(_) => 1,
            Err(_) => 2,
        };
        let is_newer =
            |(other, _): &(StoredSnapshot, _)| other.manifest.taken_at < snapshot.manifest.taken_at;
        if found[place].as_ref().is_none_or(is_newer) {
            found[place] = Some((snapshot, base));
        }
    }
    Ok(match found.into_iter().flatten().next() {
        Some((snapshot, base)) => (Some(snapshot), base),
        None => (None, Err(none)),
    })
}

impl Earlier {
    /// Whether all of its rows were read lately enough for it to be taken over. Never later than now: clocks may be wrong.
    pub(super) fn is_young(&self, chunk: &Chunk) -> bool {
        let read = self.reader_of(chunk).taken_at();
        read >= self.not_before && read <= self.not_after
    }

    /// The snapshot for which all of its rows were read.
    pub(super) fn reader_of(&self, chunk: &Chunk) -> SnapshotId {
        chunk.read_in.clone().unwrap_or_else(|| self.writer_of(chunk))
    }

    pub(super) fn writer_of(&self, chunk: &Chunk) -> SnapshotId {
        chunk.stored_in.clone().unwrap_or_else(|| self.snapshot.manifest.id.clone())
    }
}
