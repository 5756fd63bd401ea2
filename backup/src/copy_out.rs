//! Reads every row and every large object of an exported snapshot into chunk files, on several connections.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use common::{
    Error, Progress, Result,
    catalog::{DatabaseState, Table},
    interrupt,
    postgres::{
        ConnectionSettings, Session, copy,
        exported_snapshot::{ExportedSnapshot, join},
    },
    repository::{PartialSnapshot, create_private_dir},
    snapshot::{
        Codec,
        codec::UnsyncedChunk,
        copy_sql::copy_out_statement,
        cost::CostMeter,
        manifest::{Chunk, DATA_DIR, LARGE_OBJECTS_DIR, LargeObjects, Reading, TableData},
    },
};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    plan::{Piece, pieces},
    reuse::{self, Reuse, Unchanged},
};

/// Files that one connection has waiting to become durable, at most: the disk takes many at once in little more time than
/// one, and each of them only holds a descriptor.
const SYNCING: usize = 16;

/// Large objects per chunk: bounds the work that is lost or done alone, not the size.
const OBJECTS_PER_CHUNK: i64 = 20_000;

/// One COPY and the file that it goes to.
struct Job {
    statement: String,
    path: PathBuf,
    chunk: ChunkName,
}

#[derive(Debug, Clone)]
struct ChunkName {
    path: String,
    first_block: u64,
    end_block: Option<u64>,
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Connections.
    pub jobs: usize,
    /// Compression.
    pub codec: Codec,
    /// Blocks per chunk.
    pub chunk_blocks: u64,
    /// Where the time goes.
    pub meter: Arc<CostMeter>,
}

/// Copies every table; returns them with their chunks, in the given order, and how much was read for that.
#[expect(clippy::too_many_arguments, reason = "one step of the flow in lib.rs, with all that it reads from")]
pub async fn tables(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    partial: &PartialSnapshot,
    database: &DatabaseState,
    tables: Vec<Table>,
    options: CopyOptions,
    reuse: &Reuse,
    progress: &Progress,
) -> Result<(Vec<TableData>, Reading)> {
    let plan = pieces(&tables, options.chunk_blocks);
    let forms: Vec<Option<String>> =
        tables.iter().map(|table| reuse.form(table, &database.encoding)).collect();
    let mut jobs = Vec::new();
    let (mut not_linked, mut too_old) = (Vec::new(), 0);
    let mut linked: Vec<Option<Chunk>> = Vec::with_capacity(plan.len());
    for piece in &plan {
        let table = &tables[piece.table];
        let job = table_job(table, piece, partial, database, options.codec);
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
            jobs.push(job);
        }
        linked.push(chunk);
    }
    let chunks_read = jobs.len() as u64;
    let mut chunks = run(settings, exported, jobs, options, progress).await?.into_iter();
    let mut data: Vec<TableData> = tables
        .into_iter()
        .zip(forms)
        .map(|(table, form)| TableData { table, chunks: Vec::new(), form })
        .collect();
    for (piece, linked) in plan.iter().zip(linked) {
        let table = &mut data[piece.table];
        let chunk = match linked {
            Some(chunk) => chunk,
            None => {
                let chunk =
                    chunks.next().ok_or_else(|| Error::failed("a chunk that was to be read is missing"))?;
                reuse.share(table.table.oid, chunk, partial)?
            }
        };
        table.chunks.push(chunk);
    }
    let shared = || data.iter().flat_map(|table| &table.chunks).filter(|chunk| chunk.stored_in.is_some());
    let reading = Reading {
        chunks: plan.len() as u64,
        chunks_read,
        chunks_shared: shared().count() as u64,
        bytes_shared: shared().map(|chunk| chunk.content.stored_bytes).sum(),
        earlier: reuse.earlier_id().cloned(),
        why_all: reuse.why_not.clone(),
    };
    reuse::tell(&reading, &not_linked, too_old, progress);
    Ok((data, reading))
}

fn table_job(
    table: &Table,
    piece: &Piece,
    partial: &PartialSnapshot,
    database: &DatabaseState,
    codec: Codec,
) -> Job {
    let path = format!("{DATA_DIR}/{}.{}{}", table.oid, piece.range.first, codec.extension());
    Job {
        statement: copy_out_statement(table, piece.range, &database.encoding),
        path: partial.dir().join(&path),
        chunk: ChunkName { path, first_block: piece.range.first, end_block: piece.range.end },
    }
}

/// Copies the large objects, if there are any.
pub async fn large_objects(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    partial: &PartialSnapshot,
    count: u64,
    options: CopyOptions,
    progress: &Progress,
) -> Result<Option<LargeObjects>> {
    if count == 0 {
        return Ok(None);
    }
    let failed = |source| Error::postgres("could not read the large objects", source);
    let may_read: bool = reader
        .query_one("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')", &[])
        .await
        .map_err(failed)?
        .get(0);
    if !may_read {
        return Err(Error::refused(format!("the role may not read the database's {count} large objects"))
            .with_hint(
                "Run `GRANT SELECT ON pg_catalog.pg_largeobject TO role` in this database as a superuser.",
            ));
    }
    create_private_dir(&partial.dir().join(LARGE_OBJECTS_DIR))?;
    let borders = reader
        .query(
            "SELECT oid FROM (SELECT oid, pg_catalog.row_number() OVER (ORDER BY oid) AS n
             FROM pg_catalog.pg_largeobject_metadata) o WHERE (n - 1) % $1 = 0 ORDER BY oid",
            &[&OBJECTS_PER_CHUNK],
        )
        .await
        .map_err(failed)?;
    let borders: Vec<u32> = borders.iter().map(|row| row.get(0)).collect();
    let job = |name: String, statement: String| {
        let path = format!("{LARGE_OBJECTS_DIR}/{name}{}", options.codec.extension());
        Job {
            statement,
            path: partial.dir().join(&path),
            chunk: ChunkName { path, first_block: 0, end_block: None },
        }
    };
    let mut jobs = vec![job(
        "objects".to_owned(),
        "COPY (SELECT oid, pg_catalog.pg_get_userbyid(lomowner), lomacl::pg_catalog.text, \
         pg_catalog.obj_description(oid, 'pg_largeobject') FROM pg_catalog.pg_largeobject_metadata ORDER BY oid) TO STDOUT"
            .to_owned(),
    )];
    for (n, first) in borders.iter().enumerate() {
        let end = borders.get(n + 1).map_or(String::new(), |end| format!(" AND loid < {end}"));
        jobs.push(job(
            format!("pages.{first}"),
            format!(
                "COPY (SELECT loid, pageno, data FROM pg_catalog.pg_largeobject WHERE loid >= {first}{end} \
                 ORDER BY loid, pageno) TO STDOUT"
            ),
        ));
    }
    let mut chunks = run(settings, exported, jobs, options, progress).await?;
    let metadata = chunks.remove(0);
    if metadata.content.rows != count {
        return Err(Error::failed(format!(
            "read {} large objects instead of {count}",
            metadata.content.rows
        )));
    }
    Ok(Some(LargeObjects { count, metadata, pages: chunks }))
}

/// Runs the jobs on up to `options.jobs` sessions that join the snapshot; chunks come back in the order of the jobs.
///
/// Every worker has ended, or its connection is gone, when this returns: the borrow of `exported` covers them all.
async fn run(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    jobs: Vec<Job>,
    options: CopyOptions,
    progress: &Progress,
) -> Result<Vec<Chunk>> {
    let count = jobs.len();
    let jobs = Arc::new(jobs);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..options.jobs.min(count) {
        let session = join(settings, exported.id()).await?;
        let (jobs, next, progress) = (jobs.clone(), next.clone(), progress.clone());
        let (codec, meter) = (options.codec, options.meter.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            let mut syncing = Syncing::new(&meter);
            loop {
                interrupt::check()?;
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(index) else { break };
                let (content, unsynced) =
                    copy::out_to_file(&session, &job.statement, &job.path, codec, &progress, &meter).await?;
                syncing.begin(unsynced).await?;
                if job.chunk.path.starts_with(DATA_DIR) {
                    progress.advance(0, content.rows);
                }
                let name = job.chunk.clone();
                done.push((
                    index,
                    Chunk {
                        path: name.path,
                        first_block: name.first_block,
                        end_block: name.end_block,
                        content,
                        stored_in: None,
                    },
                ));
            }
            session.close().await?;
            syncing.finish().await?;
            Ok::<_, Error>(done)
        });
    }
    let mut all = Vec::with_capacity(count);
    // The first failure drops the set, which ends the other workers.
    while let Some(worker) = workers.join_next().await {
        all.extend(worker.map_err(|source| Error::failed(format!("a copy worker died: {source}")))??);
    }
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, chunk)| chunk).collect())
}

/// Files of one connection that are being made durable while it reads on.
///
/// Every file is synced before [`Syncing::finish`] succeeds, and nothing names one before that: the manifest is written
/// when all workers are done.
struct Syncing<'a> {
    under_way: VecDeque<JoinHandle<Result<()>>>,
    meter: &'a CostMeter,
}

impl<'a> Syncing<'a> {
    fn new(meter: &'a CostMeter) -> Self {
        Self { under_way: VecDeque::with_capacity(SYNCING), meter }
    }

    async fn begin(&mut self, file: UnsyncedChunk) -> Result<()> {
        self.under_way.push_back(tokio::task::spawn_blocking(move || file.sync()));
        if self.under_way.len() > SYNCING { self.wait_for_first().await } else { Ok(()) }
    }

    async fn finish(mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.wait_for_first().await?;
        }
        Ok(())
    }

    async fn wait_for_first(&mut self) -> Result<()> {
        let Some(first) = self.under_way.pop_front() else { return Ok(()) };
        let began = Instant::now();
        let synced = first.await;
        self.meter.add_syncing(began.elapsed());
        synced.map_err(|source| Error::failed(format!("the sync of a chunk died: {source}")))?
    }
}
