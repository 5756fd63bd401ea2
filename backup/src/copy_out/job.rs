//! Chunks to be made, and who takes them.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use common::{
    catalog::Table,
    repository::PartialSnapshot,
    snapshot::{Codec, copy_sql::BlockRange, manifest::DATA_DIR},
};

use crate::{plan::Piece, reuse::InPart};

/// What is left of a table in its last chunk is small up to so many blocks.
const SMALL_BLOCKS: u64 = 64;

/// A chunk to be made.
pub(super) struct Job {
    pub(super) source: Source,
    pub(super) is_small: bool,
    pub(super) path: PathBuf,
    pub(super) chunk: ChunkName,
}

/// Where its rows come from.
pub(super) enum Source {
    /// A page range of the table of this number, and what of it need not be read.
    Pages(usize, BlockRange, Option<InPart>),
    /// One statement.
    Statement(String),
}

#[derive(Debug, Clone)]
pub(super) struct ChunkName {
    pub(super) path: String,
    pub(super) first_block: u64,
    pub(super) end_block: Option<u64>,
}

pub(super) fn table_job(table: &Table, piece: &Piece, partial: &PartialSnapshot, codec: Codec) -> Job {
    let path = format!("{DATA_DIR}/{}.{}{}", table.oid, piece.range.first, codec.extension());
    Job {
        source: Source::Pages(piece.table, piece.range, None),
        is_small: piece.range.end.is_none() && table.all_blocks() <= piece.range.first + SMALL_BLOCKS,
        path: partial.dir().join(&path),
        chunk: ChunkName { path, first_block: piece.range.first, end_block: piece.range.end },
    }
}

/// Jobs that have not begun. A connection takes one large one, or several small ones that are neighbours, at once: with all
/// their statements in one round trip, thousands of small tables do not wait for each other.
pub(super) struct Queue {
    pub(super) jobs: Vec<Job>,
    pub(super) next: Mutex<usize>,
    pub(super) workers: usize,
}

impl Queue {
    /// Small jobs that are taken at once, at most: their files are open until all are written.
    const MOST: usize = 64;

    /// The numbers of the next ones; none when there is nothing left.
    pub(super) fn take(&self) -> Range<usize> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let left = &self.jobs[*next..];
        // Towards the end fewer, so that nobody works alone for long.
        let most = (left.len() / (2 * self.workers)).clamp(1, Self::MOST);
        let small = left.iter().take(most).take_while(|job| job.is_small).count();
        let taken = *next..*next + small.max(1).min(left.len());
        *next = taken.end;
        taken
    }
}
