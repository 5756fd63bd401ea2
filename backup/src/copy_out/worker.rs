//! Connections that take jobs until there are none.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Instant,
};

use common::{
    Error, Progress, Result, interrupt,
    postgres::{
        ConnectionSettings, Session,
        copy::{self, OutChunk, Step, Written},
        exported_snapshot::{ExportedSnapshot, join},
        trust::ONLY_TABLES,
    },
    snapshot::{
        Codec,
        codec::{StoredChunk, UnsyncedChunk},
        cost::CostMeter,
        manifest::Chunk,
    },
};
use tokio::task::{JoinHandle, JoinSet};

use super::{
    CopyOptions,
    job::{Job, Queue, Source},
    tables::Tables,
};
use crate::{planning_guard::PlanningGuard, too_large};

/// Files that one connection has waiting to become durable, at most: the disk takes many at once in little more time than
/// one, and each of them only holds a descriptor.
const SYNCING: usize = 16;

/// A piece of a chunk is as much as PostgreSQL reads at once. From 18 on, each statement would begin to hand such reads to other
/// processes anew, one block first, which cost more than a third of its time; what comes next, the operating system reads ahead.
const NO_READING_AHEAD: &str = "SET effective_io_concurrency = 0";

/// Runs the jobs on up to `options.jobs` sessions that join the snapshot; chunks come back with the numbers of their jobs, in
/// order, and what was wrong with files of an earlier snapshot. There is none for a job whose table was refused by its guard.
///
/// Every worker has ended, or its connection is gone, when this returns: the borrow of `exported` covers them all.
pub(super) async fn run(
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
