//! Which chunks of an earlier snapshot a new one takes over, as links to the same files, without reading their rows again.
//!
//! A chunk is taken over only when all of this holds: the table has the same form (file node, columns, types, server
//! version), the chunk has the same blocks, the server's WAL summaries cover the time since the earlier snapshot's base
//! without a gap and name none of these blocks, and its rows were read less than `--full-every` ago. Where anything is
//! in doubt, the rows are read; the reason is told (docs/exactness.md, E6 and E7).
//!
//! Where only some blocks of a chunk changed, the same holds for each of its pieces: a new file is made of the stored bytes
//! of those that did not, and of the rows of the others.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use common::{
    Progress, Result,
    catalog::Table,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::ExportedSnapshot,
        wal_summary::{self, Form, Point, or_why_not},
    },
    repository::{PartialSnapshot, Repository, StoredSnapshot, verifications::Proof},
    snapshot::{
        Codec, SnapshotId,
        codec::{StoredChunk, file_digest},
        copy_sql::{BlockRange, Cut, PIECE_BLOCKS, copy_out_statement, has_page_ranges, piece_ranges},
        manifest::{Chunk, Manifest, Reading, TableData},
        wal_base::{Changes, Lsn, WalBase},
    },
};

/// How old a file may be that is still linked to: a bit that flipped in it must not live on for ever.
pub const FULL_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// PostgreSQL's usual size of a block; only an estimate depends on it.
const BLOCK_BYTES: u64 = 8192;

/// How long to wait for the transactions that were in progress when a position in the log was read.
const POINT_WAIT: Duration = Duration::from_millis(500);

/// Snapshots that are looked at to find one to build on: a manifest may be of megabytes, and tables are locked meanwhile.
const LOOK_AT: usize = 50;

/// The log is not asked about fewer blocks than these at once.
const FINEST_BLOCKS: u64 = 8;

/// What may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReusePolicy {
    /// Read every row, link nothing.
    pub full: bool,
    /// Age from which on a file is not linked to any more.
    pub full_every: Duration,
    /// Tables of fewer bytes in all are read whole: that is faster than the CHECKPOINT that tells what changed.
    pub from_bytes: u64,
}

impl Default for ReusePolicy {
    fn default() -> Self {
        Self { full: false, full_every: FULL_EVERY, from_bytes: 0 }
    }
}

/// Whether a CHECKPOINT may be run at the end, for the sake of later snapshots alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Nobody waits for us.
    Always,
    /// Writers wait: only if one was run already.
    IfKnown,
}

/// What an earlier snapshot offers to the one that is being taken.
#[derive(Debug, Default)]
pub struct Reuse {
    earlier: Option<Earlier>,
    forms: HashMap<u32, Form>,
    /// What the log says since the earlier snapshot; nothing where it can't be asked.
    changes: Option<Changes>,
    /// Why every row is read, when that is so.
    pub why_not: Option<String>,
    identity: Option<(String, i64, u32)>,
    /// The end of the log after the snapshot was taken.
    position: Option<Lsn>,
    settled: bool,
    from: Option<Lsn>,
    cut: Cut,
    /// Blocks that the log is asked about at once.
    log_blocks: u64,
}

#[derive(Debug)]
struct Earlier {
    snapshot: StoredSnapshot,
    /// Oid to index.
    tables: HashMap<u32, usize>,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// What the earlier snapshot has for a range of blocks.
#[derive(Debug)]
pub enum Unchanged<'a> {
    /// Exactly its rows.
    Stored(&'a Chunk),
    /// Exactly its rows, in a file that is too old to be linked to.
    TooOld,
    /// Nothing that is certain.
    No,
}

/// A chunk of the earlier snapshot of which some pieces did not change.
#[derive(Debug, Clone)]
pub struct InPart {
    /// Its file.
    pub path: PathBuf,
    /// What that must hold.
    pub content: StoredChunk,
    /// The block after its last one, if it was not open-ended.
    pub end_block: Option<u64>,
    /// The snapshot for which all its rows were read.
    pub read_in: SnapshotId,
    /// Whether the blocks of each piece of the new chunk are as they were.
    pub is_same: Vec<bool>,
}

/// Where fewer pieces are the same, the chunk is read as a whole: that costs less than to look for them.
const WORTH_KEEPING_ONE_OF: usize = 8;

/// Reads positions in the log before a snapshot is taken: the first one at once, and one that is as late as it can be
/// while every transaction that was in progress at it has ended. Empty where the server does not tell what changed.
///
/// `session` is outside of a transaction.
pub async fn points(session: &Session) -> Result<Vec<Point>> {
    let asked = async {
        if let Some(why) = wal_summary::unavailable(session).await? {
            return Ok(Err(why));
        }
        Ok(Ok(wal_summary::point(session).await?))
    };
    // Why not is asked again, and told, when the snapshot is there.
    Ok(or_why_not(asked.await)?.into_iter().collect())
}

/// Adds a later position, and waits a moment for the transactions that are in progress at it.
pub async fn later_point(session: &Session, points: &mut Vec<Point>) -> Result<()> {
    if points.is_empty() {
        return Ok(());
    }
    let point = wal_summary::point(session).await?;
    let deadline = std::time::Instant::now() + POINT_WAIT;
    while wal_summary::latest_safe(&[point], wal_summary::oldest_in_progress(session).await?).is_none()
        && std::time::Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    points.push(point);
    Ok(())
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

impl Reuse {
    /// The form of a table, as the manifest keeps it.
    pub fn form(&self, table: &Table, encoding: &str) -> Option<String> {
        let fingerprint = self.forms.get(&table.oid)?.fingerprint.as_ref()?;
        // The filter of an extension's table may read anything.
        if table.extension_filter.is_some() || table.is_unlogged {
            return None;
        }
        // However it is read: the rows are the same.
        let table = Table { may_plan: true, ..table.clone() };
        let statement = copy_out_statement(&table, BlockRange::ALL, encoding).ok()?;
        let text = format!("{fingerprint}\n{statement}");
        Some(common::digest::sha256_hex(text.as_bytes()))
    }

    /// The chunk that began with the same block. It may have ended elsewhere.
    fn earlier_chunk(&self, oid: u32, range: BlockRange) -> Option<(&Earlier, &TableData, &Chunk)> {
        let earlier = self.earlier.as_ref()?;
        let table = &earlier.snapshot.manifest.tables[*earlier.tables.get(&oid)?];
        let place = table.chunks.binary_search_by_key(&range.first, |chunk| chunk.first_block).ok()?;
        Some((earlier, table, &table.chunks[place]))
    }

    /// What the earlier snapshot has for this range.
    pub fn unchanged(&self, table: &Table, form: Option<&str>, range: BlockRange) -> Unchanged<'_> {
        let (Some(changes), Some(own)) = (&self.changes, self.forms.get(&table.oid)) else {
            return Unchanged::No;
        };
        let Some((snapshot, earlier, chunk)) = self.earlier_chunk(table.oid, range) else {
            return Unchanged::No;
        };
        let is_same = form.is_some() && earlier.form.as_deref() == form && chunk.end_block == range.end;
        if !is_same || changes.reach(own.filenode, range, self.log_blocks) {
            Unchanged::No
        } else if snapshot.is_young(chunk) {
            Unchanged::Stored(chunk)
        } else {
            Unchanged::TooOld
        }
    }

    /// What of a chunk that changed need not be read, if it is worth while: its pieces that did not change.
    pub fn in_part(&self, table: &Table, form: Option<&str>, range: BlockRange) -> Option<InPart> {
        let (changes, own) = (self.changes.as_ref()?, self.forms.get(&table.oid)?);
        let (snapshot, earlier, chunk) = self.earlier_chunk(table.oid, range)?;
        let is_same_form = form.is_some() && earlier.form.as_deref() == form;
        if !is_same_form || !has_page_ranges(table) || !snapshot.is_young(chunk) {
            return None;
        }
        let pieces = piece_ranges(range, table.blocks, self.cut.piece_of(table));
        let is_same: Vec<bool> =
            pieces.iter().map(|piece| !changes.reach(own.filenode, *piece, self.log_blocks)).collect();
        let same = is_same.iter().filter(|is_same| **is_same).count();
        (same * WORTH_KEEPING_ONE_OF >= pieces.len()).then(|| InPart {
            path: snapshot.snapshot.path(&chunk.path),
            content: chunk.content.clone(),
            end_block: chunk.end_block,
            read_in: snapshot.reader_of(chunk),
            is_same,
        })
    }

    /// Makes a chunk's file of the earlier snapshot part of the new one. The error says why that can't be: then it is read.
    pub fn link(
        &self,
        chunk: &Chunk,
        partial: &PartialSnapshot,
        path: &str,
    ) -> std::result::Result<Chunk, String> {
        let Some(earlier) = &self.earlier else { return Err("there is no earlier snapshot".to_owned()) };
        let source = earlier.snapshot.path(&chunk.path);
        let problem = |problem: &dyn std::fmt::Display| format!("{}: {problem}", source.display());
        let file = std::fs::symlink_metadata(&source).map_err(|error| problem(&error))?;
        if !file.is_file() || file.len() != chunk.content.stored_bytes {
            return Err(problem(&"damaged, run `backup verify`"));
        }
        std::fs::hard_link(&source, partial.dir().join(path)).map_err(|error| problem(&error))?;
        Ok(Chunk { path: path.to_owned(), stored_in: Some(earlier.writer_of(chunk)), ..chunk.clone() })
    }

    /// A chunk that was read and turned out to be what the earlier snapshot has: its file is linked to, the new one removed.
    pub fn share(&self, oid: u32, chunk: Chunk, partial: &PartialSnapshot) -> Result<Chunk> {
        let range = BlockRange { first: chunk.first_block, end: chunk.end_block };
        let Some((snapshot, _, earlier)) = self.earlier_chunk(oid, range) else { return Ok(chunk) };
        let source = snapshot.snapshot.path(&earlier.path);
        // The file here is whole: it gives way only to one that is whole as well.
        let is_whole = || {
            file_digest(&source).is_ok_and(|(bytes, sha256)| {
                (bytes, &sha256) == (chunk.content.stored_bytes, &chunk.content.sha256)
            })
        };
        if earlier.end_block != chunk.end_block
            || earlier.content != chunk.content
            || !snapshot.is_young(earlier)
            || !is_whole()
        {
            return Ok(chunk);
        }
        let own: &Path = &partial.dir().join(&chunk.path);
        let link = own.with_extension("link");
        // Where files can't be linked, there are two of them.
        if std::fs::hard_link(&source, &link).is_err() {
            return Ok(chunk);
        }
        // In one step: there is always a file of that name.
        std::fs::rename(&link, own).map_err(|source| common::Error::io("replace", own, source))?;
        Ok(Chunk { stored_in: Some(snapshot.writer_of(earlier)), ..chunk })
    }

    /// Runs the CHECKPOINT that a later snapshot needs, if nobody has yet: after the place in the log that this one is
    /// known by, and while its rows are read. On a busy server it takes minutes.
    ///
    /// Nothing where there is none to run; the inner error says why the next backup will read everything.
    pub async fn settle(
        &self,
        settings: &ConnectionSettings,
        settle: Settle,
    ) -> Result<std::result::Result<(), String>> {
        if self.settled || settle == Settle::IfKnown || self.position.is_none() || self.from.is_none() {
            return Ok(Ok(()));
        }
        let session = settings.connect().await?;
        let asked = async { Ok(wal_summary::settle(&session).await?.map_or(Ok(()), Err)) };
        let settled = or_why_not(asked.await)?;
        session.close().await?;
        Ok(settled)
    }

    /// What a later snapshot can build on. Call it when all rows have been read, with what [`Reuse::settle`] said, and with a session
    /// that sees the state of now.
    ///
    /// Takes the form from tables where it is another one now: their rows may have been read in either.
    pub async fn base(
        &self,
        session: &Session,
        tables: &mut [TableData],
        settle: Settle,
        settled: std::result::Result<(), String>,
        progress: &Progress,
    ) -> Result<Option<WalBase>> {
        let (Some(identity), Some(to)) = (&self.identity, self.position) else { return Ok(None) };
        if !self.settled && settle == Settle::IfKnown {
            return Ok(None);
        }
        let Some(from) = self.from else {
            progress.note("the next backup will read everything: a transaction that is in progress began before this one");
            return Ok(None);
        };
        let asked = async {
            let oids: Vec<u32> = tables.iter().map(|table| table.table.oid).collect();
            let forms = wal_summary::forms(session, &oids).await?;
            for table in tables.iter_mut() {
                let oid = table.table.oid;
                if forms.get(&oid) != self.forms.get(&oid) {
                    table.form = None;
                }
            }
            // After it, all that the snapshot has seen is durable: a crash can't take back a commit that is in it.
            if let Err(why) = settled {
                return Ok(Err(why));
            }
            let anchor = wal_summary::anchor(session, identity.1, to).await?;
            Ok(anchor.ok_or_else(|| "its place in the log is in no summary".to_owned()))
        };
        let anchor = or_why_not(asked.await)?;
        match anchor {
            Ok(anchor) => Ok(Some(WalBase {
                system_identifier: identity.0.clone(),
                timeline: identity.1,
                database_oid: identity.2,
                from,
                to,
                anchor,
            })),
            Err(why) => {
                progress.note(format!("the next backup will read everything: {why}"));
                Ok(None)
            }
        }
    }

    /// The earlier snapshot that chunks come from.
    pub fn earlier_id(&self) -> Option<&SnapshotId> {
        self.earlier.as_ref().map(|earlier| &earlier.snapshot.manifest.id)
    }
}

impl Earlier {
    /// Whether all of its rows were read lately enough for it to be taken over. Never later than now: clocks may be wrong.
    fn is_young(&self, chunk: &Chunk) -> bool {
        let read = self.reader_of(chunk).taken_at();
        read >= self.not_before && read <= self.not_after
    }

    /// The snapshot for which all of its rows were read.
    fn reader_of(&self, chunk: &Chunk) -> SnapshotId {
        chunk.read_in.clone().unwrap_or_else(|| self.writer_of(chunk))
    }

    fn writer_of(&self, chunk: &Chunk) -> SnapshotId {
        chunk.stored_in.clone().unwrap_or_else(|| self.snapshot.manifest.id.clone())
    }
}

/// Tells what was taken over, and why not. `not_linked` are the reasons why unchanged chunks could not be linked, `too_old`
/// is how many were not.
pub fn tell(reading: &Reading, not_linked: &[String], too_old: u64, progress: &Progress) {
    use common::format::{count, plural};
    let same = |n: u64| match &reading.earlier {
        Some(earlier) if n > 0 => {
            format!("; {} the same as in {earlier}, stored once", plural(n, "is", "are"))
        }
        _ => String::new(),
    };
    let Reading { chunks, chunks_read, chunks_in_part, chunks_shared, .. } = *reading;
    let linked = chunks - chunks_read;
    let in_part = match chunks_in_part {
        0 => String::new(),
        all if all == chunks_read => " (only what had changed in them)".to_owned(),
        some => format!(" (of {} only what had changed)", count(some)),
    };
    match (&reading.why_all, &reading.earlier) {
        (Some(why), _) => {
            progress.note(format!(
                "read all {}: {why}{}",
                plural(chunks, "chunk", "chunks"),
                same(chunks_shared)
            ));
        }
        (None, Some(earlier)) => progress.note(format!(
            "read {} of {} chunks{in_part}, reused {} of {earlier}{}",
            count(chunks_read),
            count(chunks),
            count(linked),
            same(chunks_shared.saturating_sub(linked)),
        )),
        (None, None) => {}
    }
    if too_old > 0 {
        let chunks = plural(too_old, "unchanged chunk was", "unchanged chunks were");
        progress.note(format!("{chunks} stored longer ago than --full-every says, and stored again"));
    }
    if let Some(first) = not_linked.first() {
        let chunks = plural(not_linked.len() as u64, "unchanged chunk was", "unchanged chunks were");
        progress.warn(format!("{chunks} read again: a link to the earlier file can't be made ({first})"));
    }
}
