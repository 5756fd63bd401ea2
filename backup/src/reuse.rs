//! Which chunks of an earlier snapshot a new one takes over, as links to the same files, without reading their rows again.
//!
//! A chunk is taken over only when all of this holds: the table has the same form (file node, columns, types, server
//! version), the chunk has the same blocks, the server's WAL summaries cover the time since the earlier snapshot's base
//! without a gap and name none of these blocks, and the file was written less than `--full-every` ago. Where anything is
//! in doubt, the rows are read; the reason is told.

use std::{collections::HashMap, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use common::{
    Progress, Result,
    catalog::Table,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::ExportedSnapshot,
        wal_summary::{self, Form, Point},
    },
    repository::{PartialSnapshot, Repository, StoredSnapshot},
    snapshot::{
        Codec, SnapshotId,
        copy_sql::{BlockRange, copy_out_statement},
        manifest::{Chunk, Manifest, TableData},
        wal_base::{Changes, Lsn, WalBase},
    },
};

/// How old a file may be that is still linked to: a bit that flipped in it must not live on for ever.
pub const FULL_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long to wait for the transactions that were in progress when a position in the log was read.
const POINT_WAIT: Duration = Duration::from_millis(500);

/// What may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReusePolicy {
    /// Read every row, link nothing.
    pub full: bool,
    /// Age from which on a file is not linked to any more.
    pub full_every: Duration,
}

impl Default for ReusePolicy {
    fn default() -> Self {
        Self { full: false, full_every: FULL_EVERY }
    }
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
    chunk_blocks: u64,
}

#[derive(Debug)]
struct Earlier {
    snapshot: StoredSnapshot,
    /// Oid to index.
    tables: HashMap<u32, usize>,
    not_before: DateTime<Utc>,
}

/// Reads positions in the log before a snapshot is taken: the first one at once, and one that is as late as it can be
/// while every transaction that was in progress at it has ended. Empty where the server does not tell what changed.
pub async fn points(session: &Session) -> Result<Vec<Point>> {
    if wal_summary::unavailable(session).await?.is_some() {
        return Ok(Vec::new());
    }
    Ok(vec![wal_summary::point(session).await?])
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
    /// Blocks per chunk.
    pub chunk_blocks: u64,
    /// What may be taken over.
    pub policy: ReusePolicy,
}

/// Looks for an earlier snapshot, and asks the server what changed since.
///
/// `reader` has joined the snapshot. The repository's lock is held, so that the earlier snapshot stays.
pub async fn prepare(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    repository: &Repository,
    tables: &[Table],
    target: Target<'_>,
) -> Result<Reuse> {
    let mut reuse = Reuse { chunk_blocks: target.chunk_blocks, ..Reuse::default() };
    if target.policy.full {
        reuse.why_not = Some("--full was given".to_owned());
    }
    let unavailable = wal_summary::unavailable(reader).await?;
    if unavailable.is_none() {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        reuse.forms = wal_summary::forms(reader, &oids).await?;
        reuse.identity = Some(wal_summary::identity(reader).await?);
        // After the snapshot: whatever it sees was written to the log before this.
        reuse.position = Some(wal_summary::position(reader).await?);
        reuse.from =
            wal_summary::latest_safe(exported.points(), wal_summary::oldest_in_progress(reader).await?);
    }
    if reuse.why_not.is_some() {
        return Ok(reuse);
    }
    let full_every = chrono::Duration::from_std(target.policy.full_every).unwrap_or(chrono::Duration::MAX);
    let not_before = exported.taken_at().checked_sub_signed(full_every).unwrap_or(DateTime::<Utc>::MIN_UTC);
    reuse.earlier = earlier(repository, target, reuse.identity.as_ref())?.map(|snapshot| {
        let tables = &snapshot.manifest.tables;
        Earlier {
            tables: tables.iter().enumerate().map(|(index, table)| (table.table.oid, index)).collect(),
            snapshot,
            not_before,
        }
    });
    if unavailable.is_some() {
        reuse.why_not = unavailable;
        return Ok(reuse);
    }
    let Some(base) = reuse.earlier.as_ref().and_then(|earlier| earlier.snapshot.manifest.wal_base.clone())
    else {
        reuse.why_not = Some("there is no earlier snapshot of this database to build on".to_owned());
        return Ok(reuse);
    };
    let Some(position) = reuse.position else { return Ok(reuse) };
    let session = settings.connect().await?;
    let asked = async {
        if let Some(why) = wal_summary::settle(&session).await? {
            return Ok(Err(why));
        }
        reuse.settled = true;
        wal_summary::changes(&session, &base, position, target.chunk_blocks).await
    };
    match asked.await {
        Ok(Ok(changes)) => reuse.changes = Some(changes),
        Ok(Err(why)) => reuse.why_not = Some(why),
        // A summary that was removed while it was read, for example: the rows are still there to be read.
        Err(error) if error.sqlstate().is_some() => reuse.why_not = Some(error.to_string()),
        Err(error) => return Err(error),
    }
    // What held for the earlier snapshot's base holds for this one's: transactions only end.
    if reuse.changes.is_some() {
        reuse.from = reuse.from.max(Some(base.from));
    }
    session.close().await?;
    Ok(reuse)
}

/// The newest snapshot of the same database whose chunks may fit; one that the server's log can be compared with goes first.
fn earlier(
    repository: &Repository,
    target: Target<'_>,
    identity: Option<&(String, i64, u32)>,
) -> Result<Option<StoredSnapshot>> {
    let fits =
        |manifest: &Manifest| manifest.database.name == target.database && manifest.codec == target.codec;
    let same = |base: &WalBase| {
        identity.is_some_and(|(system, timeline, oid)| {
            (&base.system_identifier, base.timeline, base.database_oid) == (system, *timeline, *oid)
        })
    };
    let mut found: Vec<StoredSnapshot> = repository
        .list()?
        .into_iter()
        .filter_map(|entry| entry.snapshot.ok())
        .filter(|snapshot| fits(&snapshot.manifest))
        .collect();
    // Not by id: ids of one second have no order.
    found.sort_by_key(|snapshot| snapshot.manifest.taken_at);
    let comparable = found.iter().rposition(|snapshot| snapshot.manifest.wal_base.as_ref().is_some_and(same));
    let newest = comparable.or(found.len().checked_sub(1));
    Ok(newest.map(|index| found.swap_remove(index)))
}

impl Reuse {
    /// The form of a table, as the manifest keeps it.
    pub fn form(&self, table: &Table, encoding: &str) -> Option<String> {
        let fingerprint = self.forms.get(&table.oid)?.fingerprint.as_ref()?;
        // The filter of an extension's table may read anything.
        if table.extension_filter.is_some() || table.is_unlogged {
            return None;
        }
        let text = format!("{fingerprint}\n{}", copy_out_statement(table, BlockRange::ALL, encoding));
        Some(common::digest::sha256_hex(text.as_bytes()))
    }

    fn earlier_chunk(&self, oid: u32, range: BlockRange) -> Option<(&StoredSnapshot, &TableData, &Chunk)> {
        let earlier = self.earlier.as_ref()?;
        let snapshot = &earlier.snapshot;
        let table = &snapshot.manifest.tables[*earlier.tables.get(&oid)?];
        let chunk = table
            .chunks
            .iter()
            .find(|chunk| (chunk.first_block, chunk.end_block) == (range.first, range.end))?;
        let written_by = chunk.stored_in.as_ref().unwrap_or(&snapshot.manifest.id);
        (written_by.taken_at() >= earlier.not_before).then_some((snapshot, table, chunk))
    }

    /// The chunk of the earlier snapshot that holds exactly the rows of this range, if that is certain.
    pub fn unchanged(&self, table: &Table, form: Option<&str>, range: BlockRange) -> Option<&Chunk> {
        let changes = self.changes.as_ref()?;
        let filenode = self.forms.get(&table.oid)?.filenode;
        let (_, earlier, chunk) = self.earlier_chunk(table.oid, range)?;
        let same_form = form.is_some() && earlier.form.as_deref() == form;
        (same_form && !changes.reach(filenode, range, self.chunk_blocks)).then_some(chunk)
    }

    /// Makes a chunk's file of the earlier snapshot part of the new one. Returns nothing if that can't be: then it is read.
    pub fn link(&self, chunk: &Chunk, partial: &PartialSnapshot, path: &str) -> Option<Chunk> {
        let snapshot = &self.earlier.as_ref()?.snapshot;
        let source = snapshot.path(&chunk.path);
        let is_whole = std::fs::symlink_metadata(&source)
            .is_ok_and(|file| file.is_file() && file.len() == chunk.content.stored_bytes);
        if !is_whole || std::fs::hard_link(&source, partial.dir().join(path)).is_err() {
            return None;
        }
        Some(Chunk {
            path: path.to_owned(),
            stored_in: Some(chunk.stored_in.clone().unwrap_or_else(|| snapshot.manifest.id.clone())),
            ..chunk.clone()
        })
    }

    /// A chunk that was read and turned out to be what the earlier snapshot has: its file is linked to, the new one removed.
    pub fn share(&self, oid: u32, chunk: Chunk, partial: &PartialSnapshot) -> Result<Chunk> {
        let range = BlockRange { first: chunk.first_block, end: chunk.end_block };
        let Some((snapshot, _, earlier)) = self.earlier_chunk(oid, range) else { return Ok(chunk) };
        if earlier.content != chunk.content {
            return Ok(chunk);
        }
        let own: &Path = &partial.dir().join(&chunk.path);
        let link = own.with_extension("link");
        if std::fs::hard_link(snapshot.path(&earlier.path), &link).is_err() {
            return Ok(chunk);
        }
        // In one step: there is always a file of that name.
        std::fs::rename(&link, own).map_err(|source| common::Error::io("replace", own, source))?;
        let stored_in = earlier.stored_in.clone().unwrap_or_else(|| snapshot.manifest.id.clone());
        Ok(Chunk { stored_in: Some(stored_in), ..chunk })
    }

    /// What a later snapshot can build on. Call it when all rows have been read.
    pub async fn base(&self, settings: &ConnectionSettings) -> Result<Option<WalBase>> {
        let (Some((system_identifier, timeline, database_oid)), Some(from), Some(to)) =
            (&self.identity, self.from, self.position)
        else {
            return Ok(None);
        };
        let session = settings.connect().await?;
        // After it, all that the snapshot has seen is durable: a crash can't take back a commit that is in it.
        let settled = self.settled || wal_summary::settle(&session).await?.is_none();
        let anchor = if settled { wal_summary::anchor(&session, *timeline, to).await? } else { None };
        session.close().await?;
        Ok(anchor.map(|anchor| WalBase {
            system_identifier: system_identifier.clone(),
            timeline: *timeline,
            database_oid: *database_oid,
            from,
            to,
            anchor,
        }))
    }

    /// The earlier snapshot that chunks come from.
    pub fn earlier_id(&self) -> Option<&SnapshotId> {
        self.earlier.as_ref().map(|earlier| &earlier.snapshot.manifest.id)
    }
}

/// Tells what was taken over, and why not; `read` of all `chunks` were read.
pub fn tell(reuse: &Reuse, read: u64, chunks: u64, progress: &Progress) {
    let number = common::cli::format::count;
    match (&reuse.why_not, reuse.earlier_id()) {
        (None, Some(earlier)) => progress.note(format!(
            "read {} of {} chunks, reused {} of {earlier}",
            number(read),
            number(chunks),
            number(chunks - read),
        )),
        (Some(why), _) => progress.note(format!("read all {} chunks: {why}", number(chunks))),
        (None, None) => {}
    }
}
