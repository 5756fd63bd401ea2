//! A SQLite file as a side: one state of it, never written.

use std::sync::{Arc, Mutex, PoisonError};

use common::{Error, Progress, Result, interrupt};
use sqlite::{
    ReadError,
    file::{Location, Reader, SqliteFile},
    rows::RowQuery,
    schema::Schema,
    target::ColumnRule,
};

use super::rows::{SqliteRows, Taker};

/// A file that is being read.
pub struct File {
    /// How it is called in what is told.
    pub label: String,
    /// What is in it.
    pub schema: Schema,
    file: SqliteFile,
    reader: Arc<Mutex<Reader>>,
}

/// What is read of one table.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Its place in the schema.
    pub table: usize,
    /// The compared columns, by their places in the table.
    pub columns: Vec<usize>,
    /// How their values become those of PostgreSQL; nothing where the other side is SQLite too.
    pub rules: Option<Vec<ColumnRule>>,
    /// Of the compared columns those of the key.
    pub key: Vec<usize>,
}

impl File {
    /// Opens it and fixes the state that is read.
    ///
    /// # Errors
    /// Everything that keeps it from being read.
    pub fn open(text: &str) -> Result<Self> {
        let file = SqliteFile::open(&Location::parse(text)?)?;
        let reader = file.readers(1)?.pop().ok_or_else(|| Error::failed("the file could not be opened"))?;
        let schema = Schema::read(&reader)?;
        let label = file.path().display().to_string();
        Ok(Self { label, schema, file, reader: Arc::new(Mutex::new(reader)) })
    }

    /// Hands the rows of a table to `taker`. Where it wants no more, the rest is not read.
    ///
    /// # Errors
    /// The file can't be read; the taker's.
    pub async fn scan<T: Taker>(&self, selection: &Selection, taker: T, progress: &Progress) -> Result<T> {
        let Some(table) = self.schema.tables.get(selection.table).cloned() else { return Ok(taker) };
        let (reader, selection, progress) = (self.reader.clone(), selection.clone(), progress.clone());
        let read = move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let query = RowQuery::new(&table, &selection.columns, None, reader.encoding());
            let (mut taker, mut told) = (taker, 0);
            let mut rows = SqliteRows::new(selection.columns.len(), selection.rules, selection.key);
            let ended = reader.rows(&query, |row| {
                told += 1;
                if told == ROWS_AT_ONCE {
                    interrupt::check().map_err(Stopped::Failed)?;
                    progress.advance(0, std::mem::take(&mut told));
                }
                match rows.row(row, &mut taker) {
                    Ok(false) => Ok(()),
                    Ok(true) => Err(Stopped::Enough),
                    Err(error) => Err(Stopped::Failed(error)),
                }
            });
            match ended {
                Ok(_) | Err(Stopped::Enough) => Ok(taker),
                Err(Stopped::Read(error)) => Err(error.into()),
                Err(Stopped::Failed(error)) => Err(error),
            }
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|source| Error::failed(format!("the reader of the file died: {source}")))?
    }

    /// Makes sure that everything that was read was one state.
    ///
    /// # Errors
    /// It was changed where nothing kept writers out.
    pub fn close(self) -> Result<()> {
        Ok(self.file.unchanged()?)
    }
}

/// Rows between two looks at signals.
const ROWS_AT_ONCE: u64 = 4096;

enum Stopped {
    Read(ReadError),
    Failed(Error),
    Enough,
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}
