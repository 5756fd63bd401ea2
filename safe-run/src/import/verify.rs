//! Whether PostgreSQL holds what was read: the rows of every table are read back in the same transaction and hashed from what
//! the server gives, independently of what was sent.

use common::{
    Error, Progress, Result,
    postgres::{Session, tap::RowSink},
};
use sqlite::{
    binary::{BinaryRows, Found},
    error::Unreadable,
    hash::{Fingerprint, ServerRows},
};

use super::plan::TablePlan;

/// Bytes between two progress events.
const REPORT_BYTES: usize = 1024 * 1024;

/// What a table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// All of its values.
    pub all: Fingerprint,
    /// Those that can be compared in any case.
    pub comparable: Fingerprint,
}

/// What a table holds now.
///
/// # Errors
/// It can't be read, or the server gives what is no value of its column's type.
pub async fn read_back(session: &Session, plan: &TablePlan, progress: &Progress) -> Result<Held> {
    let name = plan.target.name.short();
    let targets = plan.columns.iter().map(|column| column.rule.target.clone()).collect();
    let rows = if plan.is_binary() {
        Rows::Binary(BinaryRows::new(targets))
    } else {
        Rows::Text(ServerRows::new(targets), plan.comparable())
    };
    let how = if plan.is_binary() { " (FORMAT binary)" } else { "" };
    let sink = Hashing {
        buffer: Vec::new(),
        rows,
        found: Held::default(),
        table: name.clone(),
        told: 0,
        progress: progress.clone(),
    };
    // A query reaches the partitions of a table too, which COPY by name does not.
    let statement =
        format!("COPY (SELECT {} FROM {}) TO STDOUT{how}", plan.column_list(), plan.target.own_rows());
    let (sink, sent) = session.copy_out(&statement, sink, &format!("could not read {name} back")).await?;
    if sent != [sink.found.all.rows] {
        return Err(Error::failed(format!(
            "{} rows of {name} were read back, and the server sent {sent:?}",
            sink.found.all.rows
        )));
    }
    Ok(sink.found)
}

/// Whether a table holds what it should. Gives what a person should know of that comparison.
///
/// # Errors
/// It holds something else.
pub fn compare(plan: &TablePlan, expected: Held, found: Held) -> Result<Option<String>> {
    let name = plan.target.name.short();
    if found == expected {
        return Ok(None);
    }
    if found.all.rows != expected.all.rows {
        return Err(Error::failed(format!(
            "{name} holds {} rows, and {} were loaded",
            found.all.rows, expected.all.rows
        )));
    }
    if plan.comparable().is_none() || found.comparable != expected.comparable {
        return Err(Error::failed(format!(
            "{name} holds as many rows as were loaded, but not the same values"
        )));
    }
    let other = plan.columns.iter().filter(|column| !column.rule.target.has_canonical_form());
    let columns: Vec<String> = other
        .map(|column| {
            format!("{} ({})", common::ident::printable(&column.target.name), column.target.takes.shown)
        })
        .collect();
    Ok(Some(format!(
        "{name}: PostgreSQL spells values of some types its own way: of {} only the number of rows was compared",
        columns.join(", ")
    )))
}

/// What makes hashes of the stream.
enum Rows {
    /// With the places of the columns that can be compared in any case, if these are not all.
    Text(ServerRows, Option<Vec<usize>>),
    /// Every type with a binary form can be compared.
    Binary(BinaryRows),
}

struct Hashing {
    buffer: Vec<u8>,
    rows: Rows,
    found: Held,
    table: String,
    told: usize,
    progress: Progress,
}

impl Hashing {
    /// Takes the whole rows out of the buffer, which is cut anywhere.
    fn take_rows(&mut self) -> std::result::Result<(), Unreadable> {
        let found = &mut self.found;
        let taken = match &mut self.rows {
            Rows::Text(rows, comparable) => {
                let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
                for line in self.buffer[..end].split(|byte| *byte == b'\n') {
                    let hash = rows.hash_line(line)?;
                    found.all.add(hash);
                    found.comparable.add(comparable.as_ref().map_or(hash, |columns| rows.hash_of(columns)));
                }
                end + 1
            }
            Rows::Binary(rows) => {
                let mut at = 0;
                loop {
                    match rows.next(&self.buffer[at..])? {
                        Found::Row(hash, bytes) => {
                            found.all.add(hash);
                            found.comparable.add(hash);
                            at += bytes;
                        }
                        Found::End(bytes) => at += bytes,
                        Found::More => break at,
                    }
                }
            }
        };
        self.buffer.drain(..taken);
        Ok(())
    }
}

impl RowSink for Hashing {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn added(&mut self) -> Result<()> {
        self.told += self.buffer.len();
        if self.told >= REPORT_BYTES {
            self.progress.advance(std::mem::take(&mut self.told) as u64, 0);
        }
        self.take_rows().map_err(|unreadable| {
            Error::failed(format!(
                "{} gives {} back in column {}, which is no {}",
                self.table,
                unreadable.field,
                unreadable.column + 1,
                unreadable.target
            ))
        })
    }

    fn end(&mut self) -> Result<()> {
        let is_whole = self.buffer.is_empty()
            && match &self.rows {
                Rows::Text(..) => true,
                Rows::Binary(rows) => rows.has_ended(),
            };
        if is_whole {
            return Ok(());
        }
        Err(Error::failed(format!("what the server sent of {} ends within a row", self.table)))
    }
}
