//! The rows of one table: read from the file and encoded in several threads, sent to the server by one COPY.
//!
//! Blocks wait in a bounded channel, so that memory does not grow with the table. What can't be sent is counted, and either
//! kept as an example (nothing is imported then) or set aside whole.

mod worker;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error as _,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use common::{
    Error, Progress, Result, interrupt,
    postgres::{DriverError, Session, copy::CopyIn},
};
use sqlite::{
    binary,
    file::Reader,
    hash::Fingerprint,
    rows::{Row, RowKey, RowidRange},
    schema::Table,
};
use tokio::sync::mpsc;

use super::{aside::SetAside, plan::TablePlan};
use worker::Worker;

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
    /// By what tells a row from any other of its table.
    pub by_key: BTreeMap<Vec<u8>, BTreeSet<usize>>,
}

impl OrphanRows {
    fn of(&self, row: &Row<'_>) -> Option<&BTreeSet<usize>> {
        if self.by_rowid.is_empty() && self.by_key.is_empty() {
            return None;
        }
        match row.rowid() {
            Some(rowid) => self.by_rowid.get(&rowid),
            None => self.by_key.get(&row.identity()),
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
    /// The table was made by the same transaction, and not in a savepoint before this one: its rows are written as VACUUM
    /// FREEZE leaves them, so that reading them back and building indexes has no hint bits to set.
    pub freezes: bool,
    /// Rows that the server has refused, by what tells them from others, with its reason: they count as bad.
    pub refused: BTreeMap<Vec<u8>, String>,
}

impl Job {
    fn copy_statement(&self) -> String {
        let how = match (self.plan.is_binary(), self.freezes) {
            (true, true) => " WITH (FORMAT binary, FREEZE)",
            (true, false) => " WITH (FORMAT binary)",
            (false, true) => " WITH (FREEZE)",
            (false, false) => "",
        };
        format!("COPY {} ({}) FROM STDIN{how}", self.plan.target.name, self.plan.column_list())
    }
}

/// How the load of a table ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every row was sent, or set aside, or counted as bad.
    Loaded(Loaded),
    /// The server refused a row; the transaction is aborted.
    Refused {
        /// What it said, with the row where that is known.
        error: Error,
        /// What tells the row from any other, where it is known.
        row: Option<Vec<u8>>,
    },
}

/// What became of the rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows in the file.
    pub rows: u64,
    /// The rows that were sent: how many, and the sum of their hashes.
    pub sent: Fingerprint,
    /// The same without the columns whose values PostgreSQL spells its own way.
    pub comparable: Fingerprint,
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
        self.comparable.merge(other.comparable);
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
    Rows { text: Vec<u8>, sent: Block },
    Aside(SetAside),
}

/// Which rows a block has.
#[derive(Clone, Copy)]
struct Block {
    range: Option<RowidRange>,
    /// Rows of that range that were sent before.
    before: u64,
    rows: u64,
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
/// The file can't be read, rows got lost on the way, a signal.
pub async fn load(
    session: Option<&Session>,
    readers: Vec<Reader>,
    job: Job,
    on_aside: impl FnMut(SetAside) -> Result<()>,
    progress: &Progress,
) -> Result<(Vec<Reader>, Outcome)> {
    let is_binary = job.plan.is_binary();
    let name = job.plan.target.name.short();
    let mut copying = match session {
        Some(session) => match CopyIn::begin(session, &job.copy_statement()).await {
            Ok(copying) => Some(copying),
            Err(error) => return Ok((readers, refused(error, &name, None))),
        },
        None => None,
    };
    let mut failure = None;
    if let Some(copying) = copying.as_mut().filter(|_| is_binary) {
        failure = copying.send(binary::HEADER.to_vec()).await.err();
    }
    let ranges = ranges(&readers, &job.table)?;
    let silent = AtomicBool::new(session.is_none());
    let shared = Arc::new(Shared { job, ranges: Mutex::new(ranges), silent });
    let (sender, receiver) = mpsc::channel(QUEUE);
    let begin = |reader| {
        let (shared, sender) = (shared.clone(), sender.clone());
        tokio::task::spawn_blocking(move || Worker::new(&shared, &sender).run(reader))
    };
    let workers: Vec<_> = readers.into_iter().map(begin).collect();
    drop(sender);
    let (blocks, refusal) = pass_on(receiver, copying.as_mut(), on_aside, progress).await?;
    let failure = refusal.or(failure);
    let (mut readers, mut loaded) = (Vec::new(), Loaded::default());
    for worker in workers {
        let (reader, part) =
            worker.await.map_err(|source| Error::failed(format!("the reader of {name} died: {source}")))?;
        readers.push(reader);
        loaded.merge(part?);
    }
    // With a bad row the transaction is going to be rolled back, and what was sent counts for nothing.
    let is_whole = loaded.bad_rows == 0 || shared.job.sets_aside;
    let ended = match (failure, copying) {
        (Some(error), _) => Err(error),
        (None, Some(copying)) if is_whole => finish(copying, is_binary).await,
        (None, copying) => {
            if let Some(copying) = copying {
                copying.give_up();
            }
            return Ok((readers, Outcome::Loaded(loaded)));
        }
    };
    let arrived = match ended {
        Ok(arrived) => arrived,
        Err(error) => {
            let key = match (line_of(&error, shared.job.plan.target.name.name.as_str()), readers.first()) {
                (Some(line), Some(reader)) => worker::key_of(reader, &shared.job, &blocks, line)?,
                _ => None,
            };
            return Ok((readers, refused(error, &name, key)));
        }
    };
    let sent: u64 = blocks.iter().map(|block| block.rows).sum();
    if arrived != sent || sent != loaded.sent.rows {
        return Err(Error::failed(format!(
            "{} rows of {name} were read, {sent} were sent, and the server says that it got {arrived}",
            loaded.sent.rows
        )));
    }
    Ok((readers, Outcome::Loaded(loaded)))
}

/// Hands on what the readers made of the rows, until they have ended or the server refuses something: the blocks that were
/// handed to it, the refused one among them, and its refusal.
async fn pass_on(
    mut receiver: mpsc::Receiver<Message>,
    mut copying: Option<&mut CopyIn>,
    mut on_aside: impl FnMut(SetAside) -> Result<()>,
    progress: &Progress,
) -> Result<(Vec<Block>, Option<Error>)> {
    let mut blocks: Vec<Block> = Vec::new();
    while let Some(message) = receiver.recv().await {
        interrupt::check()?;
        match message {
            Message::Aside(aside) => on_aside(aside)?,
            Message::Rows { text, sent } => {
                progress.advance(text.len() as u64, sent.rows);
                blocks.push(sent);
                let copying = copying.as_mut().filter(|_| !text.is_empty());
                if let Some(copying) = copying
                    && let Err(error) = copying.send(text).await
                {
                    return Ok((blocks, Some(error)));
                }
            }
        }
    }
    Ok((blocks, None))
}

/// Ends the COPY of all rows. Returns the server's count of them.
async fn finish(mut copying: CopyIn, is_binary: bool) -> Result<u64> {
    if is_binary {
        copying.send(binary::TRAILER.to_vec()).await?;
    }
    copying.finish().await
}

/// Where several threads read, each takes one range after the other.
pub(super) fn ranges(readers: &[Reader], table: &Table) -> Result<VecDeque<Option<RowidRange>>> {
    let whole = || VecDeque::from([None]);
    let Some(first) = readers.first().filter(|_| readers.len() > 1) else { return Ok(whole()) };
    let found = first.rowid_ranges(table, readers.len() * RANGES_PER_READER)?;
    Ok(found.map_or_else(whole, |ranges| ranges.into_iter().map(Some).collect()))
}

fn refused(error: Error, table: &str, row: Option<(Vec<u8>, RowKey)>) -> Outcome {
    let shown =
        row.as_ref().map_or(String::new(), |(_, key)| format!(", row {}", common::ident::printable(&key.0)));
    let row = row.map(|(identity, _)| identity);
    Outcome::Refused { error: error.context(format!("could not load {table}{shown}")), row }
}

/// The line of a COPY that the server refused, counted from 1. Its words are in the server's language; the number is not.
fn line_of(error: &Error, table: &str) -> Option<u64> {
    let context = error.source()?.downcast_ref::<DriverError>()?.as_db_error()?.where_()?.to_owned();
    let after = context
        .lines()
        .find_map(|line| line.strip_prefix("COPY ")?.strip_prefix(table).map(str::to_owned))?;
    let digits: String =
        after.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
