//! A team's own checks: a folder of SQL files that run after the migration and before its COMMIT.
//!
//! A file is one of two things. *Queries that must return no rows*: what they return are the violations. Or *TAP*, as
//! pgTAP writes it: a `not ok`, a plan that was not kept, or no plan at all is a failure. Queries run read-only; a TAP
//! file may create and fill what it needs. Everything is rolled back to where it began. A file that cannot run fails the
//! run: an assertion that was not made proves nothing.

mod load;
mod tap;

use common::{
    Error, Progress, Result,
    ident::printable,
    postgres::{Client, DriverError, ErrorPosition, SimpleQueryMessage, SimpleQueryRow},
};

use checks::{Finding, Severity};
use sql::statement::Statement;

pub use load::{VerifyFile, load};

/// Rows of one query that are shown.
const SHOWN_ROWS: usize = 20;

/// Rows within the sentence.
const SENTENCE_ROWS: usize = 5;

/// Longest value that is shown of a row, in characters.
const ROW_CHARS: usize = 80;

/// Lines of TAP that are read: more than any suite has, and not enough to fill the memory.
const TAP_ROWS: usize = 100_000;

/// What the query of an assertion is wrapped in: a cursor, so that a wrong query cannot fill our memory.
const CURSOR: &str = "DECLARE safe_run_verify NO SCROLL CURSOR FOR ";

/// Runs every file on `session`, in its transaction if it has one, and leaves it as it was.
///
/// # Errors
/// The connection was lost, or somebody cancelled: nothing is known then.
pub async fn run_all(session: &Client, files: &[VerifyFile], progress: &Progress) -> Result<Vec<Finding>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    progress.phase("verifying", None);
    let owns_transaction = match session.batch_execute("SAVEPOINT safe_run_verify").await {
        Ok(()) => false,
        Err(source) => {
            let error = Error::postgres("could not begin the files of --verify", source);
            // no_active_sql_transaction
            if error.sqlstate() != Some("25P01") {
                return Err(error);
            }
            execute(session, "BEGIN; SAVEPOINT safe_run_verify").await?;
            true
        }
    };
    let mut findings = Vec::new();
    let mut done = Ok(());
    for file in files {
        done = run_file(session, file, &mut findings).await;
        if done.is_err() {
            break;
        }
    }
    let closed = if owns_transaction {
        execute(session, "ROLLBACK").await
    } else {
        execute(session, "ROLLBACK TO SAVEPOINT safe_run_verify; RELEASE SAVEPOINT safe_run_verify").await
    };
    progress.done();
    done?;
    closed?;
    Ok(findings)
}

async fn execute(session: &Client, sql: &str) -> Result<()> {
    session
        .batch_execute(sql)
        .await
        .map_err(|source| Error::postgres("could not run the files of --verify", source))
}

/// One file in a savepoint of its own.
async fn run_file(session: &Client, file: &VerifyFile, findings: &mut Vec<Finding>) -> Result<()> {
    let read_only = if file.is_tap { "" } else { "SET LOCAL transaction_read_only = on" };
    execute(session, &format!("SAVEPOINT safe_run_verify_file; {read_only}")).await?;
    let mut tap = Vec::new();
    let mut refused = None;
    for statement in &file.statements {
        let ran = if file.is_tap {
            tap_lines(session, statement, &mut tap).await
        } else {
            assertion(session, file, statement, &mut tap, findings).await
        };
        if let Err((source, prefix)) = ran {
            refused = Some((locate(file, statement, source, prefix), statement.line));
            break;
        }
    }
    // The savepoint is there whatever happened, unless the connection is not.
    match &refused {
        Some((error, _)) if lost_or_cancelled(error) => {}
        _ => {
            execute(
                session,
                "ROLLBACK TO SAVEPOINT safe_run_verify_file; RELEASE SAVEPOINT safe_run_verify_file",
            )
            .await?;
        }
    }
    if file.is_tap || !tap.is_empty() {
        let mut failures = tap::failures(&tap);
        if refused.is_some() {
            // The plan was not kept because of the error, which is told.
            failures.retain(|failure| failure.test.is_some());
        }
        findings.extend(failures.into_iter().map(|failure| file.finding(0, &failure.told(), Vec::new())));
    }
    match refused {
        Some((error, _)) if lost_or_cancelled(&error) => Err(error),
        Some((error, line)) => {
            findings.push(file.finding(line, error.message(), Vec::new()));
            Ok(())
        }
        None => Ok(()),
    }
}

/// The error, and how many characters stood before the statement's own text.
type Refused = (DriverError, usize);

async fn tap_lines(session: &Client, statement: &Statement, lines: &mut Vec<String>) -> Result<(), Refused> {
    let messages = session.run_text(&statement.text).await.map_err(|source| (source, 0))?;
    add_lines(messages.iter().filter_map(row), lines)
}

/// The first column of `rows`. A line that can't be read is an error: it may be a failure.
fn add_lines<'r>(
    rows: impl Iterator<Item = &'r SimpleQueryRow>,
    lines: &mut Vec<String>,
) -> Result<(), Refused> {
    for row in rows.filter(|row| !row.is_empty()) {
        lines.extend(row.try_get(0).map_err(|source| (source, 0))?.map(str::to_owned));
    }
    Ok(())
}

/// A query that must return nothing, or TAP.
async fn assertion(
    session: &Client,
    file: &VerifyFile,
    statement: &Statement,
    tap: &mut Vec<String>,
    findings: &mut Vec<Finding>,
) -> Result<(), Refused> {
    let plain = |source| (source, 0);
    if !statement.is_query() {
        return session.batch_execute(&statement.text).await.map_err(plain);
    }
    let declare = format!("{CURSOR}{}", statement.text);
    session.batch_execute(&declare).await.map_err(|source| (source, CURSOR.chars().count()))?;
    let first = format!("FETCH FORWARD {SHOWN_ROWS} FROM safe_run_verify");
    let messages = session.run_text(&first).await.map_err(plain)?;
    let rows: Vec<&SimpleQueryRow> = messages.iter().filter_map(row).collect();
    let looks_like_tap = rows
        .first()
        .is_some_and(|row| row.len() == 1 && matches!(row.try_get(0), Ok(Some(text)) if tap::is_tap(text)));
    if looks_like_tap {
        let more = format!("FETCH FORWARD {TAP_ROWS} FROM safe_run_verify; CLOSE safe_run_verify");
        let more = session.run_text(&more).await.map_err(plain)?;
        return add_lines(rows.into_iter().chain(more.iter().filter_map(row)), tap);
    }
    let rest = session.simple_query("MOVE FORWARD ALL IN safe_run_verify; CLOSE safe_run_verify").await;
    let rest: u64 = rest
        .map_err(plain)?
        .iter()
        .map(|message| match message {
            SimpleQueryMessage::CommandComplete(moved) => *moved,
            _ => 0,
        })
        .sum();
    if rows.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = rows.iter().map(|row| told(row)).collect();
    let count = rows.len() as u64 + rest;
    let listed = shown[..shown.len().min(SENTENCE_ROWS)].join(", ");
    let more = if count > SENTENCE_ROWS as u64 { ", …" } else { "" };
    let noun = common::format::plural(count, "row", "rows");
    let promise = file.promise.as_ref().map_or(String::new(), |text| format!("{text}: "));
    let detail = format!("{promise}{noun} where none may be: {listed}{more}");
    findings.push(file.finding(statement.line, &detail, shown));
    Ok(())
}

fn row(message: &SimpleQueryMessage) -> Option<&SimpleQueryRow> {
    match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }
}

/// `(id 17, status open)`.
fn told(row: &SimpleQueryRow) -> String {
    let values: Vec<String> = row
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let value = row.try_get(index).map_or("(no UTF-8)", |value| value.unwrap_or("NULL"));
            let value = match value.char_indices().nth(ROW_CHARS) {
                Some((end, _)) => format!("{}…", &value[..end]),
                None => value.to_owned(),
            };
            if column.name() == "?column?" { value } else { format!("{} {value}", column.name()) }
        })
        .collect();
    printable(&format!("({})", values.join(", ")))
}

fn lost_or_cancelled(error: &Error) -> bool {
    error.sqlstate().is_none_or(|code| code.starts_with("57") || code.starts_with("08"))
}

/// The server's error with the line in the file.
fn locate(file: &VerifyFile, statement: &Statement, source: DriverError, prefix: usize) -> Error {
    let line = match source.as_db_error().and_then(|error| error.position()) {
        Some(ErrorPosition::Original(position)) => {
            let prefix = u32::try_from(prefix).unwrap_or(0);
            statement.line_of_position(position.saturating_sub(prefix))
        }
        _ => statement.line,
    };
    Error::postgres(format!("could not run line {line} of {}", printable(&file.name)), source)
}

impl VerifyFile {
    fn finding(&self, line: u32, detail: &str, rows: Vec<String>) -> Finding {
        let place = if line == 0 { self.name.clone() } else { format!("{}:{line}", self.name) };
        let severity = if self.only_notes { Severity::Note } else { Severity::Failure };
        Finding::of_verify(printable(&self.name), format!("{}: {detail}", printable(&place)), severity, rows)
    }
}
