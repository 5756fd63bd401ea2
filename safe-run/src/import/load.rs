//! The rows of one table: read from the file and encoded in several threads, sent to the server by one COPY.
//!
//! Blocks wait in a bounded channel, so that memory does not grow with the table. What can't be sent is counted, and either
//! kept as an example (nothing is imported then) or set aside whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    Error, Progress, Result, interrupt,
    postgres::{Session, copy::CopyIn},
};
use sqlite::{
    ReadError,
    encode::RowEncoder,
    file::Reader,
    hash::Fingerprint,
    rows::{Cells, Row, RowQuery, RowidRange},
    schema::Table,
    value::Cell,
};
use tokio::sync::mpsc;

use super::{aside::SetAside, plan::TablePlan};

/// Bytes of COPY text that go to the server at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks that may wait between the readers and the server.
const QUEUE: usize = 4;

/// Ranges of rowids for each reader: so that none has nothing to do while another has half of the table.
const RANGES_PER_READER: usize = 8;

/// Bad values that are kept of one table as examples.
const EXAMPLES: usize = 20;

/// A value that its column can't hold, or a row that can't stand as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadRow {
    /// What names the row.
    pub key: String,
    /// The column's name in SQLite.
    pub column: String,
    /// The value as a message shows it.
    pub value: String,
    /// The rule that it breaks, as one word.
    pub rule: String,
    /// The rule as a person reads it.
    pub why: String,
}

/// Which rows of a table have a foreign key that leads nowhere: by rowid, or by key where there is none.
#[derive(Debug, Clone, Default)]
pub struct OrphanRows {
    /// By rowid: the columns that have to become NULL.
    pub by_rowid: BTreeMap<i64, BTreeSet<usize>>,
    /// By key.
    pub by_key: BTreeMap<String, BTreeSet<usize>>,
}

impl OrphanRows {
    fn of(&self, row: &Row<'_>) -> Option<&BTreeSet<usize>> {
        if self.by_rowid.is_empty() && self.by_key.is_empty() {
            return None;
        }
        match row.rowid() {
            Some(rowid) => self.by_rowid.get(&rowid),
            None => self.by_key.get(&row.key().0),
        }
    }
}

/// What to do with one table.
#[derive(Debug)]
pub struct Job {
    /// As the file has it.
    pub table: Table,
    /// What goes where.
    pub plan: TablePlan,
    /// Rows whose foreign key leads nowhere.
    pub orphans: OrphanRows,
    /// Their key becomes NULL; otherwise they are set aside.
    pub null_orphans: bool,
    /// Rows that can't be sent are set aside; otherwise nothing is sent any more after the first.
    pub sets_aside: bool,
}

/// What became of the rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows in the file.
    pub rows: u64,
    /// The rows that were sent: how many, and the sum of their hashes.
    pub sent: Fingerprint,
    /// Rows that can't be sent.
    pub bad_rows: u64,
    /// How many for each column and rule.
    pub bad_counts: BTreeMap<(String, String), u64>,
    /// Some of them.
    pub examples: Vec<BadRow>,
    /// Rows that were set aside because their foreign key leads nowhere.
    pub orphans_aside: u64,
    /// Rows whose foreign key became NULL.
    pub orphans_nulled: u64,
}

impl Loaded {
    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sent.merge(other.sent);
        self.bad_rows += other.bad_rows;
        for (what, count) in other.bad_counts {
            *self.bad_counts.entry(what).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.examples.sort();
        self.examples.truncate(EXAMPLES);
        self.orphans_aside += other.orphans_aside;
        self.orphans_nulled += other.orphans_nulled;
    }
}

/// What a reader hands over.
enum Message {
    Rows { text: Vec<u8>, rows: u64 },
    Aside(SetAside),
}

/// What the threads of one table share.
struct Shared {
    job: Job,
    ranges: Mutex<VecDeque<Option<RowidRange>>>,
    /// Nothing is sent any more.
    silent: AtomicBool,
}

/// Sends the rows of a table into the transaction that is open in `session`; without one they are only looked at. Gives the
/// readers back.
///
/// # Errors
/// What the file or the server refuses; a signal.
pub async fn load(
    session: Option<&Session>,
    readers: Vec<Reader>,
    job: Job,
    mut on_aside: impl FnMut(SetAside) -> Result<()>,
    progress: &Progress,
) -> Result<(Vec<Reader>, Loaded)> {
    let statement = copy_statement(&job.plan);
    let name = job.plan.target.name.short();
    let ranges = match readers.first() {
        Some(first) if readers.len() > 1 => first
            .rowid_ranges(&job.table, readers.len() * RANGES_PER_READER)?
            .map_or_else(|| vec![None], |ranges| ranges.into_iter().map(Some).collect()),
        _ => vec![None],
    };
    let shared = Arc::new(Shared {
        job,
        ranges: Mutex::new(ranges.into()),
        silent: AtomicBool::new(session.is_none()),
    });
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let workers: Vec<_> = readers
        .into_iter()
        .map(|reader| {
            let (shared, sender) = (shared.clone(), sender.clone());
            tokio::task::spawn_blocking(move || Worker::new(&shared, &sender).run(reader))
        })
        .collect();
    drop(sender);
    let failed = |error: Error| error.context(format!("could not load {name}"));
    let mut copying = match session {
        Some(session) => Some(CopyIn::begin(session, &statement).await.map_err(failed)?),
        None => None,
    };
    let mut sent = 0;
    while let Some(message) = receiver.recv().await {
        interrupt::check()?;
        match message {
            Message::Aside(aside) => on_aside(aside)?,
            Message::Rows { text, rows } => {
                sent += rows;
                progress.advance(text.len() as u64, rows);
                if let Some(copying) = copying.as_mut().filter(|_| !text.is_empty()) {
                    copying.send(text).await.map_err(failed)?;
                }
            }
        }
    }
    let (mut readers, mut loaded) = (Vec::new(), Loaded::default());
    for worker in workers {
        let (reader, part) =
            worker.await.map_err(|source| Error::failed(format!("the reader of {name} died: {source}")))?;
        readers.push(reader);
        loaded.merge(part?);
    }
    // With a bad row the transaction is going to be rolled back, and what was sent counts for nothing.
    let is_whole = loaded.bad_rows == 0 || shared.job.sets_aside;
    match copying {
        Some(copying) if is_whole => {
            let arrived = copying.finish().await.map_err(failed)?;
            if arrived != sent || sent != loaded.sent.rows {
                return Err(Error::failed(format!(
                    "{} rows of {name} were read, {sent} were sent, and the server says that it got {arrived}",
                    loaded.sent.rows
                )));
            }
        }
        Some(copying) => copying.give_up(),
        None => {}
    }
    Ok((readers, loaded))
}

/// `COPY "s"."t" ("a", "b") FROM STDIN`.
fn copy_statement(plan: &TablePlan) -> String {
    format!("COPY {} ({}) FROM STDIN", plan.target.name, plan.column_list())
}

/// Why reading ends early.
enum Stopped {
    /// The file can't be read.
    Read(ReadError),
    /// Nobody takes the rows any more, and who does not says why.
    Unwanted,
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// One thread.
struct Worker<'a> {
    shared: &'a Shared,
    sender: &'a mpsc::Sender<Message>,
    encoder: RowEncoder,
    block: Vec<u8>,
    rows: u64,
    loaded: Loaded,
    nulls: HashSet<usize>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, sender: &'a mpsc::Sender<Message>) -> Self {
        let rules = shared.job.plan.columns.iter().map(|column| column.rule.clone()).collect();
        Self {
            shared,
            sender,
            encoder: RowEncoder::new(rules),
            block: Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4),
            rows: 0,
            loaded: Loaded::default(),
            nulls: HashSet::new(),
        }
    }

    fn run(mut self, reader: Reader) -> (Reader, Result<Loaded>) {
        let columns: Vec<usize> = self.shared.job.plan.columns.iter().map(|column| column.source).collect();
        loop {
            let next = self.shared.ranges.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(range) = next else { break };
            let query = RowQuery::new(&self.shared.job.table, &columns, range, reader.encoding());
            match reader.rows(&query, |row| self.row(row)) {
                Ok(rows) => self.loaded.rows += rows,
                Err(Stopped::Unwanted) => break,
                Err(Stopped::Read(error)) => return (reader, Err(error.into())),
            }
        }
        // Whoever does not take it says why.
        let _ = self.hand_over();
        (reader, Ok(self.loaded))
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), Stopped> {
        let job = &self.shared.job;
        self.nulls.clear();
        if let Some(columns) = job.orphans.of(row) {
            if !job.null_orphans {
                self.loaded.orphans_aside += 1;
                let column =
                    columns.iter().filter_map(|at| job.plan.columns.get(*at)).map(|c| c.source_name.clone());
                let bad = BadRow {
                    key: row.key().0,
                    column: column.collect::<Vec<_>>().join(", "),
                    value: columns.first().map(|at| row.cell(*at).to_string()).unwrap_or_default(),
                    rule: "orphan".to_owned(),
                    why: "the row that it refers to does not exist".to_owned(),
                };
                return self.set_aside(row, bad);
            }
            self.nulls.extend(columns);
            self.loaded.orphans_nulled += 1;
        }
        let masked = Masked { row, nulls: &self.nulls };
        let missing = job
            .plan
            .columns
            .iter()
            .enumerate()
            .find(|(at, column)| column.target.not_null && matches!(masked.cell(*at), Cell::Null));
        let bad = match missing {
            Some((at, column)) => Some((
                at,
                "not-null".to_owned(),
                format!("NULL does not fit {} NOT NULL", column.target.takes.shown),
            )),
            None => match self.encoder.encode(&masked, &mut self.block) {
                Ok(hash) => {
                    self.loaded.sent.add(hash);
                    self.rows += 1;
                    None
                }
                Err(bad) => Some((bad.column, bad.bad.rule.name().to_owned(), bad.bad.to_string())),
            },
        };
        if let Some((at, rule, why)) = bad {
            let column =
                job.plan.columns.get(at).map(|column| column.source_name.clone()).unwrap_or_default();
            let bad = BadRow { key: row.key().0, column, value: masked.cell(at).to_string(), rule, why };
            self.loaded.bad_rows += 1;
            *self.loaded.bad_counts.entry((bad.column.clone(), bad.rule.clone())).or_default() += 1;
            if self.loaded.examples.len() < EXAMPLES {
                self.loaded.examples.push(bad.clone());
            }
            if !job.sets_aside {
                self.shared.silent.store(true, Ordering::Relaxed);
                return Ok(());
            }
            return self.set_aside(row, bad);
        }
        if self.block.len() >= BLOCK_BYTES { self.hand_over() } else { Ok(()) }
    }

    /// Hands the block over. Where nothing is sent any more it is only emptied: the rest is read for its bad values.
    fn hand_over(&mut self) -> Result<(), Stopped> {
        let rows = std::mem::take(&mut self.rows);
        if self.block.is_empty() {
            return Ok(());
        }
        let text = if self.shared.silent.load(Ordering::Relaxed) {
            self.block.clear();
            Vec::new()
        } else {
            std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4))
        };
        self.sender.blocking_send(Message::Rows { text, rows }).map_err(|_| Stopped::Unwanted)
    }

    fn set_aside(&self, row: &Row<'_>, bad: BadRow) -> Result<(), Stopped> {
        let job = &self.shared.job;
        let cells = job
            .plan
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| (column.source_name.as_str(), row.cell(at)));
        let aside = SetAside::new(&job.plan.source_name, bad, cells);
        self.sender.blocking_send(Message::Aside(aside)).map_err(|_| Stopped::Unwanted)
    }
}

/// A row with some of its values taken for NULL.
struct Masked<'a> {
    row: &'a Row<'a>,
    nulls: &'a HashSet<usize>,
}

impl Cells for Masked<'_> {
    fn cell(&self, column: usize) -> Cell<'_> {
        if !self.nulls.is_empty() && self.nulls.contains(&column) {
            Cell::Null
        } else {
            self.row.cell(column)
        }
    }
}
