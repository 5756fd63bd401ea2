//! Which chunks of an earlier snapshot a new one takes over, as links to the same files, without reading their rows again.
//!
//! A chunk is taken over only when all of this holds: the table has the same form (file node, columns, types, server
//! version), the chunk has the same blocks, the server's WAL summaries cover the time since the earlier snapshot's base
//! without a gap and name none of these blocks, and its rows were read less than `--full-every` ago. Where anything is
//! in doubt, the rows are read; the reason is told (docs/exactness.md, E6 and E7).
//!
//! Where only some blocks of a chunk changed, the same holds for each of its pieces: a new file is made of the stored bytes
//! of those that did not, and of the rows of the others.

mod base;
mod earlier;
mod points;
mod tell;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{
    Result,
    catalog::Table,
    postgres::wal_summary::Form,
    repository::PartialSnapshot,
    snapshot::{
        SnapshotId,
        codec::{StoredChunk, file_digest},
        copy_sql::{BlockRange, Cut, copy_out_statement, has_page_ranges, piece_ranges},
        manifest::{Chunk, TableData},
        wal_base::{Changes, Lsn},
    },
};

use earlier::Earlier;
pub use earlier::{Begun, Target, begin};
pub use points::{later_point, points};
pub use tell::tell;

/// How old a file may be that is still linked to: a bit that flipped in it must not live on for ever.
pub const FULL_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

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

    /// The earlier snapshot that chunks come from.
    pub fn earlier_id(&self) -> Option<&SnapshotId> {
        self.earlier.as_ref().map(|earlier| &earlier.snapshot.manifest.id)
    }
}
