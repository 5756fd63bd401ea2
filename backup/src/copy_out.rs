//! Reads every row and every large object of an exported snapshot into chunk files, on several connections.

mod job;
mod large_objects;
mod tables;
mod worker;

use std::sync::Arc;

use common::{
    Error, Progress, Result,
    catalog::{DatabaseState, Table},
    postgres::{ConnectionSettings, exported_snapshot::ExportedSnapshot},
    repository::PartialSnapshot,
    snapshot::{
        Codec,
        copy_sql::{BlockRange, Cut},
        cost::CostMeter,
        manifest::{Chunk, Reading, TableData},
    },
};

use crate::{
    Guards,
    plan::{Piece, pieces},
    reuse::{self, Reuse, Unchanged},
};
use job::{Source, table_job};
pub use large_objects::large_objects;
pub(crate) use large_objects::{LARGE_OBJECTS, may_read_large_objects};
use tables::Tables;
use worker::run;

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Connections.
    pub jobs: usize,
    /// Compression.
    pub codec: Codec,
    /// Sizes of chunks and pieces.
    pub cut: Cut,
    /// Where the time goes.
    pub meter: Arc<CostMeter>,
}

/// What else the rows of tables may come from than a query, and what lets there be one.
pub struct Ways<'r> {
    /// For tables that are not ours; without one, a table is read as it was admitted.
    pub guards: Guards,
    /// The earlier snapshot.
    pub reuse: &'r Reuse,
}

/// A chunk of a table, by the table's number.
struct Made {
    table: usize,
    chunk: Chunk,
    is_read: bool,
}

/// Copies every table; returns them with their chunks, in the given order, and how much was read for that.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of the flow in create.rs, with all that it reads from"
)]
pub async fn tables(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    partial: &PartialSnapshot,
    database: &DatabaseState,
    tables: Vec<Table>,
    ways: Ways<'_>,
    options: CopyOptions,
    progress: &Progress,
) -> Result<(Vec<TableData>, Reading)> {
    let Ways { guards, reuse } = ways;
    let plan = pieces(&tables, options.cut.chunk_blocks);
    let forms: Vec<Option<String>> =
        tables.iter().map(|table| reuse.form(table, &database.encoding)).collect();
    let (mut jobs, mut pieces_read) = (Vec::new(), Vec::new());
    let (mut not_linked, mut too_old) = (Vec::new(), 0);
    let mut made: Vec<Made> = Vec::with_capacity(plan.len());
    for piece in &plan {
        let table = &tables[piece.table];
        let mut job = table_job(table, piece, partial, options.codec);
        let chunk = match reuse.unchanged(table, forms[piece.table].as_deref(), piece.range) {
            Unchanged::Stored(chunk) => match reuse.link(chunk, partial, &job.chunk.path) {
                Ok(chunk) => Some(chunk),
                Err(problem) => {
                    not_linked.push(problem);
                    None
                }
            },
            Unchanged::TooOld => {
                too_old += 1;
                None
            }
            Unchanged::No => None,
        };
        if chunk.is_none() {
            let in_part = reuse.in_part(table, forms[piece.table].as_deref(), piece.range);
            job.source = Source::Pages(piece.table, piece.range, in_part);
            jobs.push(job);
            pieces_read.push(piece.table);
        }
        made.extend(chunk.map(|chunk| Made { table: piece.table, chunk, is_read: false }));
    }
    let encoding = database.encoding.clone();
    let mut tables = Arc::new(Tables { tables, encoding, cut: options.cut, guards });
    let (read, damaged) =
        run(settings, exported, jobs, Some(tables.clone()), options.clone(), progress).await?;
    not_linked.extend(damaged);
    let number = |(job, chunk): (usize, Chunk)| Made { table: pieces_read[job], chunk, is_read: true };
    made.extend(read.into_iter().map(number));
    let refused: Vec<usize> = tables.refused();
    if !refused.is_empty() {
        made = discard(made, &refused, partial)?;
        let all = Arc::get_mut(&mut tables).ok_or_else(|| Error::failed("a copy worker is still at work"))?;
        all.read_whole(&refused, progress);
        let whole = |table: &usize| Piece { table: *table, range: BlockRange::ALL };
        let whole: Vec<Piece> = refused.iter().map(whole).collect();
        let jobs = whole
            .iter()
            .map(|piece| table_job(&tables.tables[piece.table], piece, partial, options.codec))
            .collect();
        let (read, _) = run(settings, exported, jobs, Some(tables.clone()), options, progress).await?;
        let number = |(job, chunk): (usize, Chunk)| Made { table: refused[job], chunk, is_read: true };
        made.extend(read.into_iter().map(number));
    }
    let tables = Arc::into_inner(tables).map(|tables| tables.tables);
    let tables = tables.ok_or_else(|| Error::failed("a copy worker is still at work"))?;
    let chunks = made.len() as u64;
    let chunks_read = made.iter().filter(|made| made.is_read).count() as u64;
    let chunks_in_part =
        made.iter().filter(|made| made.is_read && made.chunk.read_in.is_some()).count() as u64;
    let mut data: Vec<TableData> = tables
        .into_iter()
        .zip(forms)
        .map(|(table, form)| TableData { table, chunks: Vec::new(), form })
        .collect();
    for Made { table, chunk, is_read } in made {
        let table = &mut data[table];
        let chunk = if is_read { reuse.share(table.table.oid, chunk, partial)? } else { chunk };
        table.chunks.push(chunk);
    }
    for table in &mut data {
        table.chunks.sort_by_key(|chunk| chunk.first_block);
        // The ranges that were read are the table: each begins where the one before it ended.
        let ends = table.chunks.iter().map(|chunk| chunk.end_block);
        let begins = table.chunks.iter().skip(1).map(|chunk| Some(chunk.first_block)).chain([None]);
        if table.chunks.first().is_none_or(|first| first.first_block != 0) || !ends.eq(begins) {
            return Err(Error::failed(format!("a chunk of {} is missing", table.table.name.short())));
        }
    }
    let shared = || data.iter().flat_map(|table| &table.chunks).filter(|chunk| chunk.stored_in.is_some());
    let reading = Reading {
        chunks,
        chunks_read,
        chunks_in_part,
        chunks_shared: shared().count() as u64,
        bytes_shared: shared().map(|chunk| chunk.content.stored_bytes).sum(),
        earlier: reuse.earlier_id().cloned(),
        why_all: reuse.why_not.clone(),
    };
    reuse::tell(&reading, &not_linked, too_old, progress);
    Ok((data, reading))
}

/// Takes away what was made of these tables, with the files.
fn discard(made: Vec<Made>, tables: &[usize], partial: &PartialSnapshot) -> Result<Vec<Made>> {
    let (out, kept): (Vec<Made>, Vec<Made>) = made.into_iter().partition(|made| tables.contains(&made.table));
    for Made { chunk, .. } in out {
        let path = partial.dir().join(&chunk.path);
        std::fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
    }
    Ok(kept)
}
