//! Runs the statements of migration files, one message each, and says exactly which one failed.

use std::time::{Duration, Instant};

use common::{
    Error, Progress, Result, interrupt,
    postgres::{Session, SimpleQueryMessage, copy},
};
use serde::{Deserialize, Serialize};

use crate::{
    history::{History, Outcome},
    migration::MigrationFile,
    statement::{Statement, StatementKind, TransactionVerb},
};

/// Longest piece of a statement that is shown, in characters.
const SUMMARY_CHARS: usize = 70;

/// What happened to one statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatementReport {
    /// Line in the file.
    pub line: u32,
    /// Its beginning.
    pub summary: String,
    /// Rows that the server reported.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What happened to one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// Its version.
    pub version: String,
    /// The file's name.
    pub file: String,
    /// How long it took.
    pub seconds: f64,
    /// Whether all of it ran.
    pub complete: bool,
    /// Its statements, up to the one that failed.
    pub statements: Vec<StatementReport>,
}

/// What applying files needs beside them.
#[derive(Debug, Clone, Copy)]
pub struct Applying<'a> {
    /// The session that runs them.
    pub session: &'a Session,
    /// Where they are recorded.
    pub history: &'a History,
    /// The run.
    pub run: &'a str,
    /// How long one statement waits for a lock.
    pub lock_timeout: Duration,
    /// Where to tell.
    pub progress: &'a Progress,
}

/// Runs the files in order in the transaction that is open in the session, each with its history row.
///
/// `reports` grows as they run, so that after a failure it says how far it came.
pub async fn in_transaction(
    applying: Applying<'_>,
    files: &[&MigrationFile],
    reports: &mut Vec<MigrationReport>,
) -> Result<()> {
    let session = applying.session;
    applying.history.ensure(session).await?;
    for file in files {
        session.reset_settings().await?;
        applying.set_lock_timeout().await?;
        applying.apply(file, file.statements_without_wrapper()?, reports).await?;
    }
    execute(session, "check deferred constraints", "SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(|error| error.with_hint("A deferred constraint does not hold at the end of the migrations."))
}

/// Runs the files in order, each statement by itself where its file says so, else a file per transaction.
pub async fn one_by_one(
    applying: Applying<'_>,
    files: &[&MigrationFile],
    reports: &mut Vec<MigrationReport>,
) -> Result<()> {
    let Applying { session, history, progress, .. } = applying;
    history.ensure(session).await?;
    for file in files {
        session.reset_settings().await?;
        if file.no_transaction.is_none() {
            execute(session, "begin", "BEGIN").await?;
            applying.set_lock_timeout().await?;
            applying.apply(file, file.statements_without_wrapper()?, reports).await?;
            execute(session, "commit", "COMMIT").await.map_err(|error| error.context(file.name()))?;
            continue;
        }
        history.begin(session, file).await?;
        let began = Instant::now();
        if let Err(error) = applying.apply(file, &file.statements, reports).await {
            // The undo takes it back; where there is none, the tool sees what happened.
            let noted = async {
                session.reset_settings().await?;
                history.fail(session, file, began.elapsed(), error.message()).await
            };
            if let Err(second) = noted.await {
                progress.warn(format!("the failure of {} could not be recorded: {second}", file.name()));
            }
            return Err(error);
        }
    }
    Ok(())
}

impl Applying<'_> {
    /// A DDL statement that waits for a lock makes everybody behind it wait too.
    async fn set_lock_timeout(&self) -> Result<()> {
        let sql = format!("SET LOCAL lock_timeout = {}", self.lock_timeout.as_millis());
        execute(self.session, "set lock_timeout", &sql).await
    }

    /// Runs one file and records it.
    async fn apply(
        &self,
        file: &MigrationFile,
        statements: &[Statement],
        reports: &mut Vec<MigrationReport>,
    ) -> Result<()> {
        let took = run_file(self.session, file, statements, reports, self.progress).await?;
        self.session.reset_settings().await?;
        self.history.record(self.session, file, &Outcome::Ran { took, run: self.run }).await
    }
}

/// What the statements that were begun did outside of their transaction, as sentences: a ROLLBACK does not undo it.
///
/// `setval` is left out: sequences are looked at and put back.
pub fn effects_outside(files: &[&MigrationFile], reports: &[MigrationReport]) -> Vec<String> {
    let mut effects = Vec::new();
    for (file, report) in files.iter().zip(reports) {
        let begun = report.statements.len() + usize::from(!report.complete);
        let statements = file.statements_without_wrapper().unwrap_or(&file.statements);
        for statement in statements.iter().take(begun) {
            let outside =
                statement.class.outside_transaction.iter().filter(|text| !text.starts_with("setval"));
            effects.extend(outside.map(|text| {
                format!("{}:{}: {text}; a ROLLBACK does not undo that", file.name(), statement.line)
            }));
        }
    }
    effects
}

async fn execute(session: &Session, what: &str, sql: &str) -> Result<()> {
    let refused = |source| with_sqlstate(Error::postgres(format!("could not {what}"), source));
    session.batch_execute(sql).await.map_err(refused)
}

async fn run_file(
    session: &Session,
    file: &MigrationFile,
    statements: &[Statement],
    reports: &mut Vec<MigrationReport>,
    progress: &Progress,
) -> Result<Duration> {
    progress.phase(file.name(), None);
    let started = Instant::now();
    let mut report = MigrationReport {
        version: file.version.as_str().to_owned(),
        file: file.name(),
        seconds: 0.0,
        complete: false,
        statements: Vec::new(),
    };
    let mut failure = None;
    for statement in statements {
        if let Err(error) = interrupt::check() {
            failure = Some(error);
            break;
        }
        let began = Instant::now();
        match run_statement(session, file, statement).await {
            Ok(rows) => report.statements.push(StatementReport {
                line: statement.line,
                summary: statement.summary(SUMMARY_CHARS),
                rows,
                seconds: began.elapsed().as_secs_f64(),
            }),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let took = started.elapsed();
    report.seconds = took.as_secs_f64();
    report.complete = failure.is_none();
    reports.push(report);
    progress.done();
    failure.map_or(Ok(took), Err)
}

async fn run_statement(session: &Session, file: &MigrationFile, statement: &Statement) -> Result<u64> {
    // A savepoint's own verbs are the file's business; BEGIN and COMMIT were refused before.
    debug_assert!(
        file.no_transaction.is_some()
            || statement.class.kind != StatementKind::TransactionControl(TransactionVerb::Commit)
    );
    let located = |source: common::postgres::DriverError| locate(file, statement, source);
    if let Some(range) = &statement.copy_data {
        let data = file.sql.as_bytes().get(range.clone()).unwrap_or_default();
        return copy::in_from_memory(session, &statement.text, data).await.map_err(|error| {
            error.context(format!(
                "{}:{}: `{}`",
                file.name(),
                statement.line,
                statement.summary(SUMMARY_CHARS)
            ))
        });
    }
    let messages = session.simple_query(&statement.text).await.map_err(located)?;
    Ok(messages
        .iter()
        .map(|message| match message {
            SimpleQueryMessage::CommandComplete(rows) => *rows,
            _ => 0,
        })
        .sum())
}

/// The server's error with file, line, statement and SQLSTATE.
fn locate(file: &MigrationFile, statement: &Statement, source: common::postgres::DriverError) -> Error {
    let line = match source.as_db_error().and_then(|error| error.position()) {
        Some(common::postgres::ErrorPosition::Original(position)) => statement.line_of_position(*position),
        _ => statement.line,
    };
    let summary = common::ident::printable(&statement.summary(SUMMARY_CHARS));
    let error = Error::postgres(format!("{}:{line}: `{summary}`", file.name()), source);
    let hint = error.sqlstate().and_then(hint_for);
    let error = with_sqlstate(error);
    match hint {
        Some(hint) if error.hint().is_none() => error.with_hint(hint),
        _ => error,
    }
}

fn with_sqlstate(error: Error) -> Error {
    match error.sqlstate().map(str::to_owned) {
        Some(code) => error.suffix(&format!(" [SQLSTATE {code}]")),
        None => error,
    }
}

/// What to do about the errors that people meet in migrations, where the server itself gives no hint.
fn hint_for(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "25001" => Some(
            "This statement can't run in a transaction. Put `-- safe-run: no-transaction` at the file's top.",
        ),
        "55P04" => Some(
            "A new enum value can be used only after a commit. Put ADD VALUE into a migration of its own.",
        ),
        "55P03" => Some("Another session holds a lock on the table. Try again, or raise --lock-timeout."),
        "42501" => Some("Run the migrations as a role that may do this."),
        _ => None,
    }
}
