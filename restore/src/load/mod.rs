//! Loads the rows, and does beside that what can be done with each table as soon as it is loaded: reads it back, builds
//! its indexes, analyzes it, checks its foreign keys. All connections have work until the end, and pages are read while
//! they are still in the server's memory.
//!
//! What it must never do: take a table for compared of which not every row was read back; or call an entry of the archive
//! restored that is not. An entry that fails here is no failure yet: pg_restore does it again with the rest of the archive,
//! one by one, and its error counts.

pub mod contained;
mod facts;
mod rows;
mod schedule;
mod script;
mod tasks;
mod tuning;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use common::{
    Error, Progress, QualifiedName, Result,
    cli::config::default_jobs,
    interrupt,
    postgres::{
        ConnectionSettings, Row, Session, copy, lsn_columns, rule_code,
        tools::Tool,
        trust::{self, Others},
    },
    repository::StoredSnapshot,
    snapshot::{RowHash, copy_sql::copy_out_statement, manifest::SCHEMA_FILE},
};
use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    archive::{self, Ahead, ArchiveOptions, Remedies},
    broken_rules::Seen,
    collisions::Again,
    lent_paths,
    load::{facts::large_bytes, rows::transaction_id},
    sessions,
};

use contained::Contained;
pub use facts::{ArchiveFacts, archive_facts};
use schedule::Schedule;
use script::Method;
use tasks::{Facts, Step, Task};
use tuning::Size;

/// How.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Connections.
    pub jobs: usize,
    /// pg_restore, for the entries of the archive.
    pub pg_restore: &'a Tool,
    /// For pg_restore.
    pub archive: ArchiveOptions<'a>,
    /// For a step that fails.
    pub remedies: &'a Arc<Remedies>,
    /// Only load: the database may lack objects, and what it has is looked at afterwards.
    pub only_load: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Entries of the archive.
    pub ahead: Ahead,
    /// Tables that were analyzed.
    pub analyzed: HashSet<QualifiedName>,
    /// The tables that were read back whole, by their numbers in the manifest.
    pub read: HashMap<usize, ReadBack>,
    /// Tables whose rows the server does not take, by their numbers in the manifest, with its reason. They are empty. Only
    /// where what an older server does not understand is left out.
    pub refused: BTreeMap<usize, String>,
    /// Where the time went.
    pub spent: Vec<Spent>,
}

/// What was found in a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Rows.
    pub rows: u64,
    /// Their hash.
    pub hash: RowHash,
    /// A transaction id that was drawn before the first row was read and after the last one was loaded.
    pub before: u32,
}

/// Time that connections spent on one kind of work, all of them together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spent {
    /// The work.
    pub what: &'static str,
    /// How often.
    pub count: usize,
    /// Seconds.
    pub seconds: f64,
}

struct Shared {
    schedule: Mutex<Schedule>,
    changed: Notify,
    tasks: Vec<Task>,
    results: Mutex<Results>,
    snapshot: StoredSnapshot,
    settings: ConnectionSettings,
    pg_restore: Tool,
    methods: HashMap<u32, Method>,
    one_column: HashMap<u32, String>,
    /// The server's `maintenance_work_mem`, where indexes may be built with less: see [`tuning::build_memory_kb`].
    memory_kb: Option<u64>,
    no_owner: bool,
    no_tablespaces: bool,
    remedies: Arc<Remedies>,
    contained: HashMap<QualifiedName, Contained>,
    /// Whether a table whose rows the server does not take is left empty, and named.
    keep_going: bool,
    progress: Progress,
}

#[derive(Default)]
struct Results {
    loaded: Loaded,
    /// For each table, how many of its ranges are still to be read.
    unread: HashMap<usize, usize>,
    spent: BTreeMap<&'static str, (usize, Duration)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loads every table of the snapshot, and does what can be done beside that.
pub async fn load(
    settings: &ConnectionSettings,
    session: &Session,
    snapshot: &StoredSnapshot,
    archive: ArchiveFacts,
    options: LoadOptions<'_>,
    progress: &Progress,
) -> Result<Loaded> {
    let contained = contained::find(session).await?;
    let mut facts = Facts {
        contained: contained.keys().cloned().collect(),
        in_order: rule_code::load_order(&rule_code::find(session).await?),
        large_bytes: large_bytes(),
        jobs: options.jobs,
        reads_back: !options.only_load,
        ..Facts::default()
    };
    if let Some(owned) = options.archive.owned {
        facts.late.clone_from(&owned.late);
    }
    if !options.only_load {
        facts.in_trees = in_trees(session).await?;
        facts.entries = archive.entries;
        facts.post_data = archive.post_data;
        facts.methods = archive.methods.clone();
    }
    let mut snapshot = snapshot.clone();
    let tables = snapshot.manifest.tables.iter_mut().map(|data| &mut data.table);
    // Its users can't connect yet (`StagedDatabase`).
    trust::admit_by_name(session, tables, Others::AreKeptOut).await?;
    let major = snapshot.manifest.server.major();
    let tables = snapshot.manifest.tables.iter_mut().map(|data| &mut data.table);
    lsn_columns::mark(session, major, tables).await?;
    // What a table gets beside its being read is looked at before.
    for table in tasks::that_get_code(&snapshot.manifest.tables, &facts) {
        snapshot.manifest.tables[table].table.may_plan = false;
    }
    let tasks = tasks::tasks(&snapshot.manifest.tables, &facts);
    // With fewer connections than processors some of these are idle, and parallel workers are welcome.
    let memory_kb = if options.jobs >= default_jobs() {
        Some(tuning::maintenance_memory_kb(session).await?)
    } else {
        None
    };
    let mut results = Results::default();
    for task in &tasks {
        if let Step::ReadBack { table, .. } = task.step {
            *results.unread.entry(table).or_default() += 1;
        }
    }
    let workers = options.jobs.clamp(1, tasks.len().max(1));
    let shared = Arc::new(Shared {
        schedule: Mutex::new(Schedule::new(tasks.iter().map(|task| task.shape.clone()).collect())),
        changed: Notify::new(),
        tasks,
        results: Mutex::new(results),
        snapshot,
        settings: settings.clone(),
        pg_restore: options.pg_restore.clone(),
        methods: archive.methods,
        one_column: archive.one_column,
        memory_kb,
        no_owner: options.archive.no_owner,
        no_tablespaces: options.archive.no_tablespaces,
        remedies: options.remedies.clone(),
        contained,
        keep_going: options.archive.keep_going,
        progress: progress.clone(),
    });
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(work(shared.clone()));
    }
    // The first error ends the others: their sessions close, their children are killed.
    while let Some(worker) = running.join_next().await {
        worker.map_err(|source| Error::failed(format!("a worker died: {source}")))??;
    }
    let mut results = std::mem::take(&mut *lock(&shared.results));
    for table in results.loaded.refused.keys() {
        let name = &shared.snapshot.manifest.tables[*table].table.name;
        session.batch_execute(&format!("TRUNCATE TABLE ONLY {name}")).await.map_err(|source| {
            Error::postgres(format!("could not empty the table {}", name.short()), source)
        })?;
    }
    results.loaded.read.retain(|table, _| results.unread.get(table) == Some(&0));
    results.loaded.spent = results
        .spent
        .iter()
        .map(|(what, (count, time))| Spent { what, count: *count, seconds: time.as_secs_f64() })
        .collect();
    Ok(results.loaded)
}

/// Tables that inherit or are inherited from; the latter are parents.
async fn in_trees(session: &Session) -> Result<HashMap<QualifiedName, bool>> {
    let rows = session
        .query(
            "SELECT n.nspname::text, c.relname::text, pg_catalog.bool_or(c.oid = i.inhparent) FROM pg_catalog.pg_inherits i
             JOIN pg_catalog.pg_class c ON c.oid IN (i.inhrelid, i.inhparent)
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace GROUP BY 1, 2",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look for partitioned tables", source))?;
    let name = |row: &Row| QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    Ok(rows.iter().map(|row| (name(row), row.get(2))).collect())
}

async fn work(shared: Arc<Shared>) -> Result<()> {
    let session = shared.settings.connect().await?;
    // Losing the last commits in a crash loses nothing: the staged database is dropped then, and what it holds is flushed
    // before it is called restored.
    session
        .batch_execute(sessions::STATEMENT)
        .await
        .map_err(|source| Error::postgres("could not prepare the session", source))?;
    loop {
        interrupt::check()?;
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        // From here on no change is missed.
        changed.as_mut().enable();
        let next = {
            let mut schedule = lock(&shared.schedule);
            if schedule.is_finished() {
                break;
            }
            schedule.start()
        };
        let Some(task) = next else {
            changed.await;
            continue;
        };
        let started = Instant::now();
        let succeeded = shared.perform(&session, &shared.tasks[task].step).await?;
        {
            let mut results = lock(&shared.results);
            let (count, time) = results.spent.entry(kind(&shared.tasks[task].step)).or_default();
            *count += 1;
            *time += started.elapsed();
        }
        lock(&shared.schedule).finish(task, succeeded);
        shared.changed.notify_waiters();
    }
    session.close().await
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Load { .. } | Step::LoadFrozen { .. } | Step::LoadContained { .. } => "loading rows",
        Step::ReadBack { .. } => "comparing rows",
        Step::Build { .. } => "building indexes and keys",
        Step::ForeignKey { .. } => "checking foreign keys",
        Step::Analyze { .. } => "analyzing",
    }
}

impl Shared {
    /// Whether it succeeded. An entry of the archive may fail and have another chance later, and any step one at once where
    /// functions could be given a search path.
    async fn perform(&self, session: &Session, step: &Step) -> Result<bool> {
        let table = match step {
            Step::Load { table, .. } | Step::LoadFrozen { table } | Step::LoadContained { table } => *table,
            _ => return self.perform_once_or_twice(session, step).await,
        };
        match self.perform_past_broken_rules(session, step).await {
            // 22: a value, 23: a rule, 42: a name.
            Err(error)
                if self.keep_going
                    && ["22", "23", "42"]
                        .iter()
                        .any(|class| error.sqlstate().is_some_and(|state| state.starts_with(class))) =>
            {
                lock(&self.results).loaded.refused.entry(table).or_insert_with(|| error.message().to_owned());
                Ok(true)
            }
            outcome => outcome,
        }
    }

    /// Does it again for as long as there is another constraint to take off that rows break.
    async fn perform_past_broken_rules(&self, session: &Session, step: &Step) -> Result<bool> {
        let (Step::Load { table, .. } | Step::LoadFrozen { table }) = step else {
            // One that is loaded through its owner has its chunks done again one by one.
            return self.perform_once_or_twice(session, step).await;
        };
        let name = &self.snapshot.manifest.tables[*table].table.name;
        let mut seen = Seen::default();
        loop {
            match self.perform_once_or_twice(session, step).await {
                Err(error) if self.remedies.broken_rules.take_off(&error, name, &mut seen).await? => {
                    interrupt::check()?;
                }
                outcome => return outcome,
            }
        }
    }

    async fn perform_once_or_twice(&self, session: &Session, step: &Step) -> Result<bool> {
        let mut again = Again::default();
        loop {
            match self.perform_with_paths(session, step).await {
                Err(error) if again.after(&error).await? => {
                    // The step's transaction, if it had one: where the session is lost, the next error says so.
                    let _ = session.batch_execute("ROLLBACK").await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn perform_with_paths(&self, session: &Session, step: &Step) -> Result<bool> {
        if let Step::LoadContained { table } = step {
            self.load_contained(*table).await?;
            return Ok(true);
        }
        let were_lent = self.remedies.paths.are_lent();
        match self.attempt(session, step).await {
            Err(error) if lent_paths::may_be_a_name(&error) => {
                if self.remedies.paths.lend(were_lent).await? {
                    self.attempt(session, step).await.map_err(lent_paths::hint)
                } else {
                    Err(lent_paths::hint(error))
                }
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, session: &Session, step: &Step) -> Result<bool> {
        match step {
            Step::Load { table, chunk } => self.load_one(session, *table, *chunk).await?,
            Step::LoadFrozen { table } => self.load_frozen(session, *table).await?,
            Step::LoadContained { table } => self.load_contained(*table).await?,
            Step::ReadBack { table, range } => {
                let data = &self.snapshot.manifest.tables[*table].table;
                let before = transaction_id(session).await?;
                let statement = copy_out_statement(data, *range, &self.snapshot.manifest.database.encoding)?;
                let (rows, hash) =
                    copy::hash_rows_of(session, &statement, &data.lsn_fields, &self.progress.again())
                        .await
                        .map_err(|error| error.context(data.name.short()))?;
                let mut results = lock(&self.results);
                let found =
                    results.loaded.read.entry(*table).or_insert(ReadBack { before, ..ReadBack::default() });
                found.rows += rows;
                found.hash.merge(hash);
                // Ids wrap around: the older of two is behind by less than half of the circle.
                if before.wrapping_sub(found.before) > u32::MAX / 2 {
                    found.before = before;
                }
                if let Some(unread) = results.unread.get_mut(table) {
                    *unread -= 1;
                }
            }
            Step::Build { entry, table } => {
                return self.restore_entry(*entry, &self.for_build(*entry, *table)).await;
            }
            Step::ForeignKey { entry, ends } => {
                let settings = match self.one_column.get(entry) {
                    Some(column) if self.indexes_are_enough(session, ends, column).await? => {
                        &format!("{} -c enable_hashjoin=off", sessions::SESSION)
                    }
                    _ => sessions::SESSION,
                };
                return self.restore_entry(*entry, settings).await;
            }
            Step::Analyze { table } => {
                let data = &self.snapshot.manifest.tables[*table];
                let name = &data.table.name;
                let before = tuning::before_analyze(tasks::raw_bytes(data));
                for statement in [before, &format!("ANALYZE {name}")] {
                    session.batch_execute(statement).await.map_err(|source| {
                        Error::postgres(format!("could not analyze the table {}", name.short()), source)
                    })?;
                }
                lock(&self.results).loaded.analyzed.insert(name.clone());
            }
        }
        Ok(true)
    }

    /// What a session is set to that builds an index or a key of this table.
    fn for_build(&self, entry: u32, table: usize) -> String {
        let data = &self.snapshot.manifest.tables[table];
        let size = Size { rows: data.rows(), text_bytes: tasks::raw_bytes(data) };
        let memory = self.memory_kb.and_then(|server_kb| {
            let method = self.methods.get(&entry).copied().unwrap_or(Method::Other);
            tuning::build_memory_kb(method, size, server_kb)
        });
        memory.map_or_else(
            || sessions::SESSION.to_owned(),
            |kb| format!("{} -c maintenance_work_mem={kb}kB", sessions::SESSION),
        )
    }

    async fn restore_entry(&self, entry: u32, settings: &str) -> Result<bool> {
        let options = ArchiveOptions {
            jobs: 1,
            no_owner: self.no_owner,
            entries: None,
            no_tablespaces: self.no_tablespaces,
            keep_going: false,
            session: settings,
            ahead: None,
            owned: None,
            remedies: &self.remedies,
        };
        let archive = self.snapshot.path(SCHEMA_FILE);
        let (settings, progress) = (&self.settings, &self.progress);
        let succeeded =
            archive::restore_one(&self.pg_restore, settings, &archive, entry, options, progress).await?;
        let mut results = lock(&self.results);
        let ahead = &mut results.loaded.ahead;
        let set = if succeeded { &mut ahead.done } else { &mut ahead.failed };
        set.insert(entry);
        Ok(succeeded)
    }

    async fn indexes_are_enough(&self, session: &Session, ends: &[usize], column: &str) -> Result<bool> {
        let name = |end: &usize| &self.snapshot.manifest.tables[*end].table.name;
        let (Some(table), Some(other)) = (ends.first().map(name), ends.last().map(name)) else {
            return Ok(false);
        };
        tuning::indexes_are_enough(session, table, column, other).await
    }
}
