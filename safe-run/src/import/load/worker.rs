//! One thread that reads and encodes.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{PoisonError, atomic::Ordering},
};

use sqlite::{
    ReadError,
    canonical::RowHash,
    encode::RowEncoder,
    file::Reader,
    rows::{Cells, Row, RowKey, RowQuery, RowidRange},
    value::Cell,
};
use tokio::sync::mpsc;

use super::{BLOCK_BYTES, BadRow, Block, EXAMPLES, Job, Loaded, Message, Shared};
use crate::import::aside::SetAside;

/// Why reading ends early.
enum Stopped {
    /// The file can't be read.
    Read(ReadError),
    /// Nobody wants further rows, and who does not knows why.
    Unwanted,
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// What becomes of a row.
enum Fate {
    /// Its text was appended. The hash of all of its values, and of those that can be compared in any case.
    Sent(RowHash, RowHash),
    /// It can't be sent: the column, by its place in the plan, the rule, and the sentence.
    Bad(usize, String, String),
    /// Its foreign key leads nowhere, and it is set aside: the columns, by their places.
    Orphan(BTreeSet<usize>),
}

/// Decides about rows; the same row has the same fate each time.
struct Judge<'a> {
    job: &'a Job,
    encoder: RowEncoder,
    is_binary: bool,
    /// Places of the columns that can be compared in any case, if these are not all.
    comparable: Option<Vec<usize>>,
    /// Columns of the present row that became NULL.
    nulls: HashSet<usize>,
}

impl<'a> Judge<'a> {
    fn new(job: &'a Job) -> Self {
        let rules = job.plan.columns.iter().map(|column| column.rule.clone()).collect();
        Self {
            job,
            encoder: RowEncoder::new(rules),
            is_binary: job.plan.is_binary(),
            comparable: job.plan.comparable(),
            nulls: HashSet::new(),
        }
    }

    fn fate(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Fate {
        let job = self.job;
        self.nulls.clear();
        if let Some(columns) = job.orphans.of(row) {
            if !job.null_orphans {
                return Fate::Orphan(columns.clone());
            }
            self.nulls.extend(columns);
        }
        if let Some(why) = (!job.refused.is_empty()).then(|| job.refused.get(&row.identity())).flatten() {
            return Fate::Bad(0, "refused".to_owned(), why.clone());
        }
        let masked = Masked { row, nulls: &self.nulls };
        let missing = job
            .plan
            .columns
            .iter()
            .enumerate()
            .find(|(at, column)| column.target.not_null && matches!(masked.cell(*at), Cell::Null));
        if let Some((at, column)) = missing {
            let why = format!("NULL does not fit {} NOT NULL", column.target.takes.shown);
            return Fate::Bad(at, "not-null".to_owned(), why);
        }
        let encoded = if self.is_binary {
            self.encoder.encode_binary(&masked, out)
        } else {
            self.encoder.encode(&masked, out)
        };
        match encoded {
            Ok(hash) => Fate::Sent(
                hash,
                self.comparable.as_ref().map_or(hash, |columns| self.encoder.hash_of(columns)),
            ),
            Err(bad) => Fate::Bad(bad.column, bad.bad.rule.name().to_owned(), bad.bad.to_string()),
        }
    }
}

/// What tells the row from others that was sent as line `line`, counted from 1.
pub(super) fn key_of(
    reader: &Reader,
    job: &Job,
    blocks: &[Block],
    line: u64,
) -> common::Result<Option<(Vec<u8>, RowKey)>> {
    let mut left = line;
    let Some(block) = blocks.iter().find(|block| {
        let is_here = left <= block.rows;
        if !is_here {
            left -= block.rows;
        }
        is_here
    }) else {
        return Ok(None);
    };
    let (mut wanted, mut found) = (block.before + left, None);
    let mut judge = Judge::new(job);
    let mut text = Vec::new();
    let ended = reader.rows(&query(reader, job, block.range), |row| {
        text.clear();
        if matches!(judge.fate(row, &mut text), Fate::Sent(..)) {
            wanted -= 1;
            if wanted == 0 {
                found = Some((row.identity(), row.key()));
                return Err(Stopped::Unwanted);
            }
        }
        Ok(())
    });
    match ended {
        Err(Stopped::Read(error)) => Err(error.into()),
        Ok(_) | Err(Stopped::Unwanted) => Ok(found),
    }
}

fn query(reader: &Reader, job: &Job, range: Option<RowidRange>) -> RowQuery {
    let columns: Vec<usize> = job.plan.columns.iter().map(|column| column.source).collect();
    RowQuery::new(&job.table, &columns, range, reader.encoding())
}

/// One thread.
pub(super) struct Worker<'a> {
    shared: &'a Shared,
    sender: &'a mpsc::Sender<Message>,
    judge: Judge<'a>,
    text: Vec<u8>,
    block: Block,
    loaded: Loaded,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared, sender: &'a mpsc::Sender<Message>) -> Self {
        Self {
            shared,
            sender,
            judge: Judge::new(&shared.job),
            text: Vec::new(),
            block: Block { range: None, before: 0, rows: 0 },
            loaded: Loaded::default(),
        }
    }

    /// Reads one range after the other.
    pub(super) fn run(mut self, reader: Reader) -> (Reader, common::Result<Loaded>) {
        loop {
            let next = self.shared.ranges.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(range) = next else { return (reader, Ok(self.loaded)) };
            self.block = Block { range, before: 0, rows: 0 };
            let query = query(&reader, &self.shared.job, range);
            let read = reader.rows(&query, |row| self.row(row));
            let ended = read.and_then(|rows| {
                self.loaded.rows += rows;
                self.hand_over()
            });
            match ended {
                Ok(()) => {}
                Err(Stopped::Unwanted) => return (reader, Ok(self.loaded)),
                Err(Stopped::Read(error)) => return (reader, Err(error.into())),
            }
        }
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), Stopped> {
        match self.judge.fate(row, &mut self.text) {
            Fate::Sent(hash, comparable) => {
                self.loaded.sent.add(hash);
                self.loaded.comparable.add(comparable);
                self.loaded.orphans_nulled += u64::from(!self.judge.nulls.is_empty());
                self.block.rows += 1;
                if self.text.len() >= BLOCK_BYTES { self.hand_over() } else { Ok(()) }
            }
            Fate::Orphan(columns) => {
                self.loaded.orphans_aside += 1;
                let names = columns.iter().filter_map(|at| self.shared.job.plan.columns.get(*at));
                let bad = BadRow {
                    key: row.key().0,
                    column: names.map(|column| column.source_name.clone()).collect::<Vec<_>>().join(", "),
                    value: columns.first().map(|at| row.cell(*at).to_string()).unwrap_or_default(),
                    rule: "orphan".to_owned(),
                    why: "the row that it refers to does not exist".to_owned(),
                };
                self.set_aside(row, bad)
            }
            Fate::Bad(at, rule, why) => {
                let of_row = rule == "refused";
                let column = self.shared.job.plan.columns.get(at).filter(|_| !of_row);
                let bad = BadRow {
                    key: row.key().0,
                    column: column.map(|column| column.source_name.clone()).unwrap_or_default(),
                    value: if of_row { String::new() } else { row.cell(at).to_string() },
                    rule,
                    why,
                };
                self.bad(row, bad)
            }
        }
    }

    fn bad(&mut self, row: &Row<'_>, bad: BadRow) -> Result<(), Stopped> {
        self.loaded.bad_rows += 1;
        *self.loaded.bad_counts.entry((bad.column.clone(), bad.rule.clone())).or_default() += 1;
        if self.loaded.examples.len() < EXAMPLES {
            self.loaded.examples.push(bad.clone());
        }
        if self.shared.job.sets_aside {
            return self.set_aside(row, bad);
        }
        self.shared.silent.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Hands the block over. Where nothing is sent any more only its rows are told: the rest is read for its bad values.
    fn hand_over(&mut self) -> Result<(), Stopped> {
        if self.block.rows == 0 {
            return Ok(());
        }
        let sent = self.block;
        self.block.before += sent.rows;
        self.block.rows = 0;
        let text = if self.shared.silent.load(Ordering::Relaxed) {
            self.text.clear();
            Vec::new()
        } else {
            std::mem::replace(&mut self.text, Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4))
        };
        self.sender.blocking_send(Message::Rows { text, sent }).map_err(|_| Stopped::Unwanted)
    }

    fn set_aside(&self, row: &Row<'_>, bad: BadRow) -> Result<(), Stopped> {
        let plan = &self.shared.job.plan;
        let cells =
            plan.columns.iter().enumerate().map(|(at, column)| (column.source_name.as_str(), row.cell(at)));
        let aside = SetAside::new(&plan.source_name, bad, cells);
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
