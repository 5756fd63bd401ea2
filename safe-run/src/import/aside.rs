//! Rows that are not imported, kept whole: one JSON document a line in a file of the run's folder, and a table beside.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use common::{
    Error, QualifiedName, Result,
    digest::hex,
    files::create_private_file,
    postgres::{Session, copy, own_objects},
    snapshot::SnapshotId,
};
use serde_json::{Map, Value, json};
use sqlite::value::Cell;

use super::{load::BadRow, rights};

/// The file's name in the run's folder.
pub const FILE: &str = "quarantine.jsonl";

/// A row that is set aside.
#[derive(Debug, Clone, PartialEq)]
pub struct SetAside {
    table: String,
    bad: BadRow,
    row: Value,
}

impl SetAside {
    /// A row with all of its values: numbers and texts as JSON has them; bytes, and texts that JSON or jsonb can't hold, as
    /// `{"hex": …}`; doubles that JSON can't hold as `{"real": …}`.
    pub fn new<'a>(table: &str, bad: BadRow, cells: impl Iterator<Item = (&'a str, Cell<'a>)>) -> Self {
        let row: Map<String, Value> = cells.map(|(name, cell)| (name.to_owned(), value(cell))).collect();
        Self { table: table.to_owned(), bad, row: Value::Object(row) }
    }

    fn document(&self) -> Value {
        json!({
            "table": self.table, "key": self.bad.key, "column": self.bad.column, "rule": self.bad.rule,
            "reason": self.bad.why, "row": self.row,
        })
    }
}

fn value(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => json!(number),
        Cell::Real(number) if number.is_finite() => json!(number),
        Cell::Real(number) => json!({"real": format!("{number}")}),
        Cell::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => json!(text),
            _ => json!({"hex": hex(bytes), "class": "text"}),
        },
        Cell::BrokenText(bytes) => json!({"hex": hex(bytes), "class": "text"}),
        Cell::Blob(bytes) => json!({"hex": hex(bytes)}),
    }
}

/// A place in the file.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    rows: u64,
    bytes: u64,
}

/// The file in the making. It is made with the first row.
#[derive(Debug)]
pub struct Quarantine {
    /// `None`: rows are only counted.
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    /// Rows in it.
    pub rows: u64,
}

impl Quarantine {
    /// In the folder of a run.
    pub fn new(dir: &Path) -> Self {
        Self { path: Some(dir.join(FILE)), file: None, rows: 0 }
    }

    /// Counts rows, and keeps none.
    pub fn nowhere() -> Self {
        Self { path: None, file: None, rows: 0 }
    }

    /// Writes a row.
    pub fn add(&mut self, aside: &SetAside) -> Result<()> {
        self.rows += 1;
        let Some(path) = &self.path else { return Ok(()) };
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::new(create_private_file(path)?)),
        };
        let written = serde_json::to_writer(&mut *file, &aside.document()).map_err(std::io::Error::other);
        written.and_then(|()| file.write_all(b"\n")).map_err(|source| Error::io("write", path, source))
    }

    /// Where it stands.
    pub fn mark(&mut self) -> Result<Mark> {
        let bytes = match (&mut self.file, &self.path) {
            (Some(file), Some(path)) => {
                file.stream_position().map_err(|source| Error::io("write", path, source))?
            }
            _ => 0,
        };
        Ok(Mark { rows: self.rows, bytes })
    }

    /// Takes back what was written since.
    pub fn rewind(&mut self, mark: Mark) -> Result<()> {
        self.rows = mark.rows;
        let (Some(file), Some(path)) = (&mut self.file, &self.path) else { return Ok(()) };
        let back = file.seek(SeekFrom::Start(mark.bytes)).and_then(|_| file.get_ref().set_len(mark.bytes));
        back.map_err(|source| Error::io("write", path, source))
    }

    /// Makes the file durable, and a table of the same rows in the transaction of `session`. `None` where there are none.
    pub async fn store(
        &mut self,
        session: &Session,
        run: &SnapshotId,
    ) -> Result<Option<(QualifiedName, PathBuf)>> {
        let (Some(file), Some(path)) = (self.file.take().filter(|_| self.rows > 0), self.path.clone()) else {
            return Ok(None);
        };
        let io = |source| Error::io("write", &path, source);
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        let name = QualifiedName::new("safe_run", table_name(run));
        let failed = |source| Error::postgres(format!("could not make the table {}", name.short()), source);
        let row = session
            .query_one("SELECT pg_catalog.to_regnamespace('safe_run') IS NOT NULL", &[])
            .await
            .map_err(failed)?;
        rights::refuse_others_schema(session).await?;
        let schema = if row.get(0) { "" } else { "CREATE SCHEMA safe_run; " };
        let create = format!(
            "{schema}CREATE TABLE {name} (source_table text NOT NULL, source_key text NOT NULL, source_column text NOT NULL, \
             rule text NOT NULL, reason text NOT NULL, source_row jsonb NOT NULL);
             COMMENT ON TABLE {name} IS {}",
            common::ident::literal(&format!("Rows that the import {run} did not take over"))
        );
        own_objects::make(session, &create).await.map_err(failed)?;
        let mut copying = copy::CopyIn::begin(session, &format!("COPY {name} FROM STDIN")).await?;
        let reading = File::open(&path).map_err(|source| Error::io("read", &path, source))?;
        let mut block = Vec::new();
        for line in BufReader::new(reading).lines() {
            let line = line.map_err(|source| Error::io("read", &path, source))?;
            let document: Value = serde_json::from_str(&line).map_err(|source| {
                Error::failed(format!("{} can't be read back: {source}", path.display()))
            })?;
            for (place, field) in ["table", "key", "column", "rule", "reason", "row"].into_iter().enumerate()
            {
                if place > 0 {
                    block.push(b'\t');
                }
                let value = document.get(field).unwrap_or(&Value::Null);
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                push_escaped(&mut block, &text);
            }
            block.push(b'\n');
            if block.len() > 256 * 1024 {
                copying.send(std::mem::take(&mut block)).await?;
            }
        }
        if !block.is_empty() {
            copying.send(block).await?;
        }
        copying.finish().await?;
        Ok(Some((name, path)))
    }
}

/// `quarantine_20261121t034149z_7f3k9q`.
fn table_name(run: &SnapshotId) -> String {
    let id = run.as_str().to_ascii_lowercase();
    let (first, last) = (id.split('-').next().unwrap_or_default(), id.rsplit('-').next().unwrap_or_default());
    format!("quarantine_{first}_{last}")
}

/// A field of COPY text.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // What jsonb and text can't hold stands as hexadecimal digits, and a key shows it escaped.
            byte => out.push(byte),
        }
    }
}
