//! Reads every row and every large object of an exported snapshot into chunk files, on several connections.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use common::{
    Error, Progress, Result,
    catalog::{DatabaseState, Table},
    files::create_private_dir,
    interrupt,
    postgres::{
        ConnectionSettings, Session,
        copy::{self, OutChunk, Step, Written},
        exported_snapshot::{ExportedSnapshot, join},
        trust::ONLY_TABLES,
    },
    repository::PartialSnapshot,
    snapshot::{
        Codec,
        codec::{StoredChunk, UnsyncedChunk},
        copy_sql::{BlockRange, Cut, copy_out_statement, has_page_ranges, piece_ranges},
        cost::CostMeter,
        earlier_file::EarlierFile,
        manifest::{Chunk, DATA_DIR, LARGE_OBJECTS_DIR, LargeObjects, Reading, TableData},
    },
};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    Guards,
    plan::{Piece, pieces},
    planning_guard::PlanningGuard,
    reuse::{self, InPart, Reuse, Unchanged},
    too_large,
};

/// Files that one connection has waiting to become durable, at most: the disk takes many at once in little more time than
/// one, and each of them only holds a descriptor.
const SYNCING: usize = 16;

/// A piece of a chunk is as much as PostgreSQL reads at once. From 18 on, each statement would begin to hand such reads to other
/// processes anew, one block first, which cost more than a third of its time; what comes next, the operating system reads ahead.
const NO_READING_AHEAD: &str = "SET effective_io_concurrency = 0";

/// What is left of a table in its last chunk is small up to so many blocks.
const SMALL_BLOCKS: u64 = 64;

/// Large objects per chunk: bounds the work that is lost or done alone, not the size.
const OBJECTS_PER_CHUNK: i64 = 20_000;

/// A chunk to be made.
struct Job {
    source: Source,
    is_small: bool,
    path: PathBuf,
    chunk: ChunkName,
}

/// Where its rows come from.
enum Source {
    /// A page range of the table of this number, and what of it need not be read.
    Pages(usize, BlockRange, Option<InPart>),
    /// One statement.
    Statement(String),
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
#[expect(clippy::too_many_arguments, reason = "one step of the flow in lib.rs, with all that it reads from")]
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

fn table_job(table: &Table, piece: &Piece, partial: &PartialSnapshot, codec: Codec) -> Job {
    let path = format!("{DATA_DIR}/{}.{}{}", table.oid, piece.range.first, codec.extension());
    Job {
        source: Source::Pages(piece.table, piece.range, None),
        is_small: piece.range.end.is_none() && table.all_blocks() <= piece.range.first + SMALL_BLOCKS,
        path: partial.dir().join(&path),
        chunk: ChunkName { path, first_block: piece.range.first, end_block: piece.range.end },
    }
}

/// The tables that jobs name by number.
struct Tables {
    tables: Vec<Table>,
    encoding: String,
    cut: Cut,
    guards: Guards,
}

impl Tables {
    fn guard(&self, table: usize) -> Option<&Arc<PlanningGuard>> {
        self.guards.get(&self.tables[table].oid)
    }

    /// The numbers of the tables that have to be read whole after all.
    fn refused(&self) -> Vec<usize> {
        (0..self.tables.len())
            .filter(|table| self.guard(*table).is_some_and(|guard| guard.is_refused()))
            .collect()
    }

    /// Has these tables read whole, and says so.
    fn read_whole(&mut self, refused: &[usize], progress: &Progress) {
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
    fn out_chunk(
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

/// Who the large objects are.
pub(crate) const LARGE_OBJECTS: &str = "COPY (SELECT oid, pg_catalog.pg_get_userbyid(lomowner), lomacl::pg_catalog.text, \
     pg_catalog.obj_description(oid, 'pg_largeobject') FROM pg_catalog.pg_largeobject_metadata ORDER BY oid) TO STDOUT";

/// Makes sure that the role may read their content.
pub(crate) async fn may_read_large_objects(reader: &Session, count: u64) -> Result<()> {
    let failed = |source| Error::postgres("could not read the large objects", source);
    let may_read: bool = reader
        .query_one("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')", &[])
        .await
        .map_err(failed)?
        .get(0);
    if !may_read {
        return Err(Error::refused(format!("the role may not read the database's {count} large objects"))
            .with_hint(format!(
                "Run `GRANT SELECT ON pg_catalog.pg_largeobject TO {}` in this database as a superuser.",
                common::ident::printable(&common::Ident::new(reader.settings().user()).to_string())
            )));
    }
    Ok(())
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
    may_read_large_objects(reader, count).await?;
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
            source: Source::Statement(statement),
            is_small: false,
            path: partial.dir().join(&path),
            chunk: ChunkName { path, first_block: 0, end_block: None },
        }
    };
    let mut jobs = vec![job("objects".to_owned(), LARGE_OBJECTS.to_owned())];
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
    let (chunks, _) = run(settings, exported, jobs, None, options, progress).await?;
    let mut chunks: Vec<Chunk> = chunks.into_iter().map(|(_, chunk)| chunk).collect();
    let metadata = chunks.remove(0);
    if metadata.content.rows != count {
        return Err(Error::failed(format!(
            "read {} large objects instead of {count}",
            metadata.content.rows
        )));
    }
    Ok(Some(LargeObjects { count, metadata, pages: chunks }))
}

/// Jobs that have not begun. A connection takes one large one, or several small ones that are neighbours, at once: with all
/// their statements in one round trip, thousands of small tables do not wait for each other.
struct Queue {
    jobs: Vec<Job>,
    next: Mutex<usize>,
    workers: usize,
}

impl Queue {
    /// Small jobs that are taken at once, at most: their files are open until all are written.
    const MOST: usize = 64;

    /// The numbers of the next ones; none when there is nothing left.
    fn take(&self) -> Range<usize> {
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

/// Runs the jobs on up to `options.jobs` sessions that join the snapshot; chunks come back with the numbers of their jobs, in
/// order, and what was wrong with files of an earlier snapshot. There is none for a job whose table was refused by its guard.
///
/// Every worker has ended, or its connection is gone, when this returns: the borrow of `exported` covers them all.
async fn run(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    jobs: Vec<Job>,
    tables: Option<Arc<Tables>>,
    options: CopyOptions,
    progress: &Progress,
) -> Result<(Vec<(usize, Chunk)>, Vec<String>)> {
    let count = jobs.len();
    let queue = Arc::new(Queue { jobs, next: Mutex::new(0), workers: options.jobs.min(count).max(1) });
    let worker =
        Worker { queue, tables, codec: options.codec, meter: options.meter, progress: progress.clone() };
    let mut all = Vec::with_capacity(count);
    let mut damaged = Vec::new();
    let mut workers = JoinSet::new();
    match exported.only_session() {
        Some(session) if count > 0 => (all, damaged) = worker.clone().run(session).await?,
        Some(_) => {}
        None => {
            for _ in 0..options.jobs.min(count) {
                let (session, worker) = (join(settings, exported).await?, worker.clone());
                workers.spawn(async move {
                    let done = worker.run(&session).await?;
                    session.close().await.map(|()| done)
                });
            }
        }
    }
    drop(worker);
    // The first failure drops the set, which ends the other workers.
    while let Some(worker) = workers.join_next().await {
        let (chunks, problems) =
            worker.map_err(|source| Error::failed(format!("a copy worker died: {source}")))??;
        all.extend(chunks);
        damaged.extend(problems);
    }
    all.sort_by_key(|(index, _)| *index);
    Ok((all, damaged))
}

/// One connection that takes jobs until there are none.
#[derive(Clone)]
struct Worker {
    queue: Arc<Queue>,
    tables: Option<Arc<Tables>>,
    codec: Codec,
    meter: Arc<CostMeter>,
    progress: Progress,
}

impl Worker {
    /// Chunks by the numbers of their jobs, and what was wrong with files of an earlier snapshot.
    async fn run(self, session: &Session) -> Result<(Vec<(usize, Chunk)>, Vec<String>)> {
        let (mut done, mut damaged) = (Vec::new(), Vec::new());
        let mut compressor = None;
        let mut syncing = Syncing::new(&self.meter);
        session
            .batch_execute(&format!("{NO_READING_AHEAD}; {ONLY_TABLES}"))
            .await
            .map_err(|source| Error::postgres("could not prepare a copying session", source))?;
        loop {
            interrupt::check()?;
            let mut numbers: Vec<usize> = self.queue.take().collect();
            if numbers.is_empty() {
                break;
            }
            let mut may_be_in_part = true;
            let guards = self.enter(&mut numbers).await?;
            while !numbers.is_empty() {
                let chunks = numbers
                    .iter()
                    .map(|number| self.out_chunk(*number, may_be_in_part))
                    .collect::<Result<Vec<_>>>()?;
                let are_in_part: Vec<bool> = chunks.iter().map(|chunk| chunk.earlier.is_some()).collect();
                let (codec, progress, meter) = (self.codec, &self.progress, &self.meter);
                let written = copy::out_to_files(session, chunks, &mut compressor, codec, progress, meter)
                    .await
                    .map_err(|error| too_large::explain(error, self.tables_of(&numbers)))?;
                let mut again = Vec::new();
                for ((number, is_in_part), written) in numbers.into_iter().zip(are_in_part).zip(written) {
                    let job = &self.queue.jobs[number];
                    match written {
                        Written::Chunk(content, unsynced) => {
                            syncing.begin(unsynced).await?;
                            done.push((number, self.chunk(job, content, is_in_part)));
                        }
                        Written::EarlierDamaged(problem) => {
                            if let Source::Pages(_, _, Some(in_part)) = &job.source {
                                damaged.push(format!(
                                    "{}: {problem}, run `backup verify`",
                                    in_part.path.display()
                                ));
                            }
                            again.push(number);
                        }
                    }
                }
                numbers = again;
                may_be_in_part = false;
            }
            for guard in guards {
                guard.leave().await?;
            }
        }
        syncing.finish().await?;
        Ok((done, damaged))
    }

    /// Comes into the guards of the jobs' tables, and takes out the jobs of those that refuse. In the order of their oids, so that
    /// no two connections wait for each other.
    async fn enter(&self, numbers: &mut Vec<usize>) -> Result<Vec<Arc<PlanningGuard>>> {
        let Some(tables) = self.tables.as_ref().filter(|tables| !tables.guards.is_empty()) else {
            return Ok(Vec::new());
        };
        let guard_of = |number: &usize| match self.queue.jobs[*number].source {
            Source::Pages(table, ..) => tables.guard(table).map(|guard| (tables.tables[table].oid, guard)),
            Source::Statement(_) => None,
        };
        let guards: BTreeMap<u32, &Arc<PlanningGuard>> = numbers.iter().filter_map(guard_of).collect();
        let mut entered = Vec::with_capacity(guards.len());
        for guard in guards.into_values() {
            if guard.enter().await? {
                entered.push(guard.clone());
            }
        }
        numbers.retain(|number| guard_of(number).is_none_or(|(_, guard)| !guard.is_refused()));
        Ok(entered)
    }

    /// The tables that these jobs read.
    fn tables_of(&self, numbers: &[usize]) -> Vec<String> {
        let name = |number: &usize| match (&self.queue.jobs[*number].source, &self.tables) {
            (Source::Pages(table, ..), Some(tables)) => Some(tables.tables[*table].name.short()),
            _ => None,
        };
        numbers.iter().filter_map(name).collect()
    }

    fn out_chunk(&self, number: usize, may_be_in_part: bool) -> Result<OutChunk> {
        let job = &self.queue.jobs[number];
        match (&job.source, &self.tables) {
            (Source::Pages(table, range, in_part), Some(tables)) => {
                let in_part = in_part.as_ref().filter(|_| may_be_in_part);
                tables.out_chunk(&job.path, *table, *range, in_part)
            }
            (Source::Statement(statement), _) => Ok(OutChunk {
                path: job.path.clone(),
                piece_blocks: 1,
                steps: vec![Step::Read { statement: statement.clone(), replaces: 0 }],
                earlier: None,
            }),
            (Source::Pages(..), None) => Err(Error::failed("a page range of no table was to be read")),
        }
    }

    fn chunk(&self, job: &Job, content: StoredChunk, is_in_part: bool) -> Chunk {
        let name = job.chunk.clone();
        let read_in = match &job.source {
            Source::Pages(_, _, Some(in_part)) if is_in_part => Some(in_part.read_in.clone()),
            _ => None,
        };
        if matches!(job.source, Source::Pages(..)) {
            self.progress.advance(0, content.rows);
        }
        Chunk {
            path: name.path,
            first_block: name.first_block,
            end_block: name.end_block,
            content,
            stored_in: None,
            read_in,
        }
    }
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
