//! Making the file: nobody else has it yet, so nothing is journalled, and it is made durable once, at the end.

use std::path::Path;

use common::{Error, Result, ident::printable, interrupt};
use rusqlite::{
    Connection, InterruptHandle, OpenFlags, Statement, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    ExportPlan, Untranslated,
    convert::{Buffers, Stored, stored},
    design::TableDesign,
    rows::Batch,
    types::Form,
};
use crate::{copy, hash::Fingerprint, sql::quoted, target::Target};

/// Memory for pages that were written, in KiB.
const CACHE_KIB: i64 = 64 * 1024;

/// A file that is being made.
pub struct Writer {
    connection: Connection,
}

/// How the rows of a table went in.
#[derive(Debug)]
pub enum Filled {
    /// All of them, with this fingerprint of the snapshot's own.
    All(Fingerprint),
    /// A column holds values that its declared type would refuse or change: the table is made again, and the column takes any.
    NeedsAny(usize),
}

/// An error of SQLite's, with what was tried.
fn failed(doing: &str, error: rusqlite::Error) -> Error {
    if let Err(interrupted) = interrupt::check() {
        return interrupted;
    }
    Error::failed(format!("could not {doing}: {error}")).with_source(error)
}

impl Writer {
    /// Opens an empty file of ours.
    pub fn new(path: &Path) -> Result<Self> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
                 PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; PRAGMA cache_size = -{CACHE_KIB}; BEGIN"
            ))?;
            Ok(connection)
        };
        Ok(Self { connection: open().map_err(|error| failed("make the file", error))? })
    }

    /// Ends what is being done, from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    fn run(&self, what: &str, sql: &str) -> Result<()> {
        interrupt::check()?;
        self.connection.execute_batch(sql).map_err(|error| failed(what, error))
    }

    /// Makes a table without rows.
    pub fn create(&self, design: &TableDesign) -> Result<()> {
        self.run(&format!("make the table {}", printable(&design.name)), &design.create())
    }

    /// Takes a table away again that is to be made otherwise.
    pub fn drop_table(&self, design: &TableDesign) -> Result<()> {
        self.run(
            &format!("make the table {} again", printable(&design.name)),
            &format!("DROP TABLE {}", quoted(&design.name)),
        )
    }

    /// Puts the rows in. `next` gives them, batch after batch.
    pub fn fill(
        &self,
        design: &TableDesign,
        mut next: impl FnMut() -> Result<Option<Batch>>,
    ) -> Result<Filled> {
        let what = format!("write the rows of {}", printable(&design.name));
        let mut row = RowWriter { design, buffers: Buffers::default(), field: Vec::new() };
        let mut all = Fingerprint::default();
        let mut statement: Option<(std::sync::Arc<[usize]>, Statement<'_>)> = None;
        while let Some(batch) = next()? {
            interrupt::check()?;
            all.merge(batch.fingerprint);
            let statement = match &mut statement {
                Some((columns, statement)) if *columns == batch.columns => statement,
                other => {
                    let prepared = self
                        .connection
                        .prepare(&insert(design, &batch.columns))
                        .map_err(|error| failed(&what, error))?;
                    &mut other.insert((batch.columns.clone(), prepared)).1
                }
            };
            for line in batch.lines.split_inclusive(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                match row.bind(line, &batch.columns, statement) {
                    Ok(()) => {}
                    Err(Bad::NeedsAny(column)) => return Ok(Filled::NeedsAny(column)),
                    Err(Bad::Value(column)) => return Err(no_value(design, column)),
                    Err(Bad::Sqlite(error)) => return Err(failed(&what, error)),
                }
                statement.raw_execute().map_err(|error| failed(&what, error))?;
            }
        }
        Ok(Filled::All(all))
    }

    /// Takes away the checks that rows do not meet though PostgreSQL says that they do: their translation means something else. Whether
    /// there was one.
    pub fn drop_wrong_checks(
        &self,
        design: &mut TableDesign,
        untranslated: &mut Vec<Untranslated>,
    ) -> Result<bool> {
        let mut wrong = Vec::new();
        for (at, check) in design.checks.iter().enumerate().filter(|(_, check)| check.is_valid) {
            let sql =
                format!("SELECT 1 FROM {} WHERE NOT ({}) LIMIT 1", quoted(&design.name), check.condition);
            let found = self.connection.prepare(&sql).and_then(|mut statement| statement.exists([]));
            if found
                .map_err(|error| failed(&format!("check the rows of {}", printable(&design.name)), error))?
            {
                wrong.push(at);
            }
        }
        for at in wrong.iter().rev() {
            let check = design.checks.remove(*at);
            untranslated.push(Untranslated {
                what: format!("constraint {} of {}", printable(&check.name), design.source.short()),
                sql: check.sql,
                reason: "rows that meet it in PostgreSQL do not meet its translation".to_owned(),
            });
        }
        Ok(!wrong.is_empty())
    }

    /// Indexes, views, and the counters of keys.
    pub fn finish(self, plan: &mut ExportPlan, on_step: &dyn Fn(&str)) -> Result<()> {
        let refused = self.refused_indexes(plan);
        plan.indexes.retain(|index| !refused.contains(&index.name));
        for index in &plan.indexes {
            on_step(&index.name);
            self.run(&format!("make the index {}", printable(&index.name)), &index.sql)?;
        }
        self.make_views(plan)?;
        for design in &plan.tables {
            if let Some(counter) = design.counter {
                self.count_from(design, counter)
                    .map_err(|error| failed("set the counter of a key", error))?;
            }
        }
        self.orphans(plan)?;
        self.run("end the transaction", "COMMIT")?;
        self.connection.close().map_err(|(_, error)| failed("close the file", error))
    }

    /// Views are looked at by SQLite only when they are read: one that it can't read is told, and not made.
    fn make_views(&self, plan: &mut ExportPlan) -> Result<()> {
        let mut kept = Vec::new();
        for view in std::mem::take(&mut plan.views) {
            let what = format!("make the view {}", printable(&view.name));
            self.run(&what, &view.sql)?;
            match self.connection.prepare(&format!("SELECT * FROM {}", quoted(&view.name))) {
                Ok(_) => kept.push(view),
                Err(error) => {
                    self.run(&what, &format!("DROP VIEW {}", quoted(&view.name)))?;
                    plan.untranslated.push(Untranslated {
                        what: format!("view {}", printable(&view.name)),
                        sql: view.original,
                        reason: format!("SQLite can't read it: {error}"),
                    });
                }
            }
        }
        plan.views = kept;
        Ok(())
    }

    /// Indexes whose statement SQLite refuses before it reads a row.
    fn refused_indexes(&self, plan: &mut ExportPlan) -> Vec<String> {
        let mut refused = Vec::new();
        for index in &plan.indexes {
            if let Err(error) = self.connection.prepare(&index.sql) {
                plan.untranslated.push(Untranslated {
                    what: format!("index {}", printable(&index.name)),
                    sql: index.sql.clone(),
                    reason: format!("SQLite refuses it: {error}"),
                });
                refused.push(index.name.clone());
            }
        }
        refused
    }

    fn count_from(&self, design: &TableDesign, counter: i64) -> rusqlite::Result<()> {
        let updated = self.connection.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1",
            (&design.name, counter),
        )?;
        if updated == 0 {
            self.connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                (&design.name, counter),
            )?;
        }
        Ok(())
    }

    /// Rows that lead nowhere by their foreign keys: PostgreSQL has such only where a key was not validated.
    fn orphans(&self, plan: &mut ExportPlan) -> Result<()> {
        let failed = |error| failed("look for rows that lead nowhere", error);
        for design in plan.tables.iter().filter(|design| !design.foreign_keys.is_empty()) {
            let sql = format!(
                "SELECT count(*) FROM pragma_foreign_key_check({})",
                super::literals::text(&design.name)
            );
            let count: i64 = self.connection.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
            if count > 0 {
                let rows = common::format::plural(count.unsigned_abs(), "row leads", "rows lead");
                plan.notes.push(format!("{rows} nowhere by foreign keys of {}", design.source.short()));
            }
        }
        Ok(())
    }
}

fn no_value(design: &TableDesign, column: usize) -> Error {
    let column = design.columns.get(column).map_or("", |column| column.source.as_str());
    Error::failed(format!(
        "a value of {}.{} is none of its type; this is a defect, please report it with the type of the column",
        design.source.short(),
        printable(column)
    ))
}

fn insert(design: &TableDesign, columns: &[usize]) -> String {
    if columns.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", quoted(&design.name));
    }
    let places: Vec<String> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", quoted(&design.name), design.list(columns), places.join(", "))
}

enum Bad {
    NeedsAny(usize),
    Value(usize),
    Sqlite(rusqlite::Error),
}

struct RowWriter<'a> {
    design: &'a TableDesign,
    buffers: Buffers,
    field: Vec<u8>,
}

impl RowWriter<'_> {
    /// Binds the fields of a line.
    fn bind(&mut self, line: &[u8], columns: &[usize], statement: &mut Statement<'_>) -> Result<(), Bad> {
        let mut start = 0;
        for (place, at) in columns.iter().enumerate() {
            let rest = line.get(start..).ok_or(Bad::Value(*at))?;
            let end = memchr::memchr(b'\t', rest).unwrap_or(rest.len());
            let field = &rest[..end];
            start += end + 1;
            let column = &self.design.columns[*at];
            let value = if field == b"\\N" {
                Stored::Null
            } else if memchr::memchr(b'\\', field).is_some() {
                copy::unescape(field, &mut self.field);
                stored(&self.field, &column.stored, &mut self.buffers).ok_or(Bad::Value(*at))?
            } else {
                stored(field, &column.stored, &mut self.buffers).ok_or(Bad::Value(*at))?
            };
            if !column.is_any && is_changed(value, column.stored.form, self.design.is_strict) {
                return Err(Bad::NeedsAny(*at));
            }
            statement.raw_bind_parameter(place + 1, value).map_err(Bad::Sqlite)?;
        }
        Ok(())
    }
}

/// Whether a column of REAL would refuse the value, or change it: it keeps no sign of a zero, and in a STRICT table no NaN as text.
fn is_changed(value: Stored<'_>, form: Form, is_strict: bool) -> bool {
    matches!(form, Form::Double | Form::Single)
        && match value {
            Stored::Real(value) => value == 0.0 && value.is_sign_negative(),
            Stored::Text(_) => is_strict,
            _ => false,
        }
}

impl ToSql for Stored<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Stored::Null => ValueRef::Null,
            Stored::Integer(value) => ValueRef::Integer(value),
            Stored::Real(value) => ValueRef::Real(value),
            Stored::Text(bytes) => ValueRef::Text(bytes),
            Stored::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl TableDesign {
    /// Makes a column one of ANY.
    pub fn widen(&mut self, column: usize) {
        if let Some(column) = self.columns.get_mut(column) {
            column.is_any = true;
        }
    }

    /// Takes the values of a column as nothing but text: the import does not know a form that some of them have. Whether that is another
    /// way than before.
    pub fn take_as_text(&mut self, column: usize) -> Option<String> {
        let column = self.columns.get_mut(column)?;
        if matches!(column.stored.target, Target::Other(_)) {
            return None;
        }
        column.stored.target = Target::Other(column.stored.target.to_string());
        Some(column.source.clone())
    }
}
