//! The tables that are copied: who guards them, and by which statements a page range of one is read.

use std::{path::Path, sync::Arc};

use common::{
    Progress, Result,
    catalog::Table,
    postgres::copy::{OutChunk, Step},
    snapshot::{
        copy_sql::{BlockRange, Cut, copy_out_statement, has_page_ranges, piece_ranges},
        earlier_file::EarlierFile,
    },
};

use crate::{Guards, planning_guard::PlanningGuard, reuse::InPart};

/// The tables that jobs name by number.
pub(super) struct Tables {
    pub(super) tables: Vec<Table>,
    pub(super) encoding: String,
    pub(super) cut: Cut,
    pub(super) guards: Guards,
}

impl Tables {
    pub(super) fn guard(&self, table: usize) -> Option<&Arc<PlanningGuard>> {
        self.guards.get(&self.tables[table].oid)
    }

    /// The numbers of the tables that have to be read whole after all.
    pub(super) fn refused(&self) -> Vec<usize> {
        (0..self.tables.len())
            .filter(|table| self.guard(*table).is_some_and(|guard| guard.is_refused()))
            .collect()
    }

    /// Has these tables read whole, and says so.
    pub(super) fn read_whole(&mut self, refused: &[usize], progress: &Progress) {
        for table in refused {
            let table = &mut self.tables[*table];
            table.may_plan = false;
            self.guards.remove(&table.oid);
            progress.note(format!(
                "{} is read whole, by one connection: another session has a lock on it that keeps us from seeing to it that no \
                 code of others gets into a query",
                table.name.short()
            ));
        }
    }

    /// What has to be done for a page range. `in_part` is what of an earlier chunk may go on being used.
    pub(super) fn out_chunk(
        &self,
        path: &Path,
        number: usize,
        range: BlockRange,
        in_part: Option<&InPart>,
    ) -> Result<OutChunk> {
        let table = &self.tables[number];
        let piece_blocks = self.cut.piece_of(table);
        // What is read whole has no order of blocks that could be relied on.
        let is_whole = range == BlockRange::ALL && !has_page_ranges(table);
        let pieces = if is_whole { vec![range] } else { piece_ranges(range, table.blocks, piece_blocks) };
        let read = |piece: BlockRange, replaces| {
            copy_out_statement(table, piece, &self.encoding)
                .map(|statement| Step::Read { statement, replaces })
        };
        let opened = match in_part {
            // What can't be read is read from the server; damage is told by `backup verify`.
            Some(in_part) => EarlierFile::open(&in_part.path, &in_part.content).unwrap_or(None),
            None => None,
        };
        let Some((in_part, (earlier, index))) = in_part.zip(opened) else {
            let steps = pieces.into_iter().map(|piece| read(piece, 0)).collect::<Result<_>>()?;
            return Ok(OutChunk { path: path.to_owned(), piece_blocks, steps, earlier: None });
        };
        // The earlier file's pieces, as the blocks that they hold.
        let earlier_end = |n: usize| {
            let is_last = n + 1 == index.pieces.len();
            if is_last { in_part.end_block } else { Some(range.first + (n as u64 + 1) * index.piece_blocks) }
        };
        let steps = pieces.into_iter().zip(&in_part.is_same).enumerate().map(|(n, (piece, is_same))| {
            let stored = index.pieces.get(n);
            match stored {
                Some(stored)
                    if *is_same && index.piece_blocks == piece_blocks && earlier_end(n) == piece.end =>
                {
                    Ok(Step::Keep(*stored))
                }
                stored => read(piece, stored.map_or(0, |stored| stored.stored_bytes)),
            }
        });
        let steps = steps.collect::<Result<_>>()?;
        Ok(OutChunk { path: path.to_owned(), piece_blocks, steps, earlier: Some(earlier) })
    }
}
