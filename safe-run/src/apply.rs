//! Runs the statements of migration files, one message each, and says exactly which one failed.

use std::time::{Duration, Instant};

use common::{
    Error, Progress, Result, interrupt,
    postgres::{Session, SimpleQueryMessage, copy},
};
use serde::{Deserialize, Serialize};

use crate::{
    history,
    migration::MigrationFile,
    statement::{Statement, StatementKind, TransactionVerb},
    statement_facts::{TableFootprint, Watch},
};

/// Longest piece of a statement that is shown, in characters.
const SUMMARY_CHARS: usize = 70;

/// Longest statement that is kept whole in a report, in characters: the file itself has the rest.
const TEXT_CHARS: usize = 10_000;

/// With more files than this, they are counted on one line instead of told one by one.
const FILES_TOLD: usize = 10;

/// What happened to one statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatementReport {
    /// Line in the file.
    pub line: u32,
    /// Its beginning.
    pub summary: String,
    /// All of it, secrets masked; empty when the beginning is all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Rows that the server reported.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
    /// Locks that it took and tables that it wrote anew.
    #[serde(flatten)]
    pub footprint: TableFootprint,
    /// What a person should know about it, effects included that a ROLLBACK does not undo.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl StatementReport {
    fn new(statement: &Statement, rows: u64, took: Duration) -> Self {
        let summary = statement.summary(SUMMARY_CHARS);
        let text = shortened(&statement.text, TEXT_CHARS);
        Self {
            line: statement.line,
            text: if text == summary { String::new() } else { text },
            summary,
            rows,
            seconds: took.as_secs_f64(),
            footprint: TableFootprint::default(),
            warnings: statement
                .class
                .warnings
                .iter()
                .chain(&statement.class.outside_transaction)
                .cloned()
                .collect(),
        }
    }
}

/// The text with its secrets masked; of a long one the beginning, and how much more there is.
fn shortened(text: &str, max: usize) -> String {
    let masked = crate::masking::sql_beginning(text, max);
    match text.chars().count().checked_sub(max) {
        Some(more) if more > 0 => format!("{masked} … ({more} more characters)"),
        _ => masked,
    }
}

/// What happened to one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// Its version.
    pub version: String,
    /// The file's name.
    pub file: String,
    /// When it began, counted from the beginning of the run.
    #[serde(default)]
    pub started_seconds: f64,
    /// How long it took.
    pub seconds: f64,
    /// Whether all of it ran.
    pub complete: bool,
    /// Its statements, up to the one that failed.
    pub statements: Vec<StatementReport>,
    /// The statement that failed.
    #[serde(default)]
    pub failed: Option<StatementReport>,
    /// Statements that were to run.
    #[serde(default)]
    pub statements_planned: usize,
    /// Locks and rewrites that are known for the file as a whole only.
    #[serde(flatten)]
    pub footprint: TableFootprint,
}

/// Runs the files in order in the transaction that is open in `session`, each with its history row.
///
/// `reports` grows as they run, so that after a failure it says how far it came.
pub async fn in_transaction(
    session: &Session,
    files: &[&MigrationFile],
    run: &str,
    lock_timeout: Duration,
    reports: &mut Vec<MigrationReport>,
    progress: &Progress,
    watch: &mut Watch,
) -> Result<()> {
    history::ensure(session).await?;
    let teller = Teller::begin(files.len(), progress);
    // A DDL statement that waits for a lock makes everybody behind it wait too.
    let limit = format!("SET LOCAL lock_timeout = {}", lock_timeout.as_millis());
    session.reset_settings().await?;
    execute(session, "set lock_timeout", &limit).await?;
    for file in files {
        let statements = file.statements_without_wrapper()?;
        let took = run_file(session, file, statements, reports, &teller, Some(&mut *watch)).await?;
        // Sent together and done in this order: with many small files the way to the server and back is what takes time.
        let ((), (), footprint, ()) = tokio::try_join!(
            biased;
            session.reset_settings(),
            execute(session, "set lock_timeout", &limit),
            watch.after_file(session),
            history::record(session, file, took, run),
        )?;
        note_footprint(reports, footprint);
    }
    execute(session, "check deferred constraints", "SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(|error| error.with_hint("A deferred constraint does not hold at the end of the migrations."))
}

/// Runs the files in order, each statement by itself where its file says so, else a file per transaction.
pub async fn one_by_one(
    session: &Session,
    files: &[&MigrationFile],
    run: &str,
    lock_timeout: Duration,
    reports: &mut Vec<MigrationReport>,
    progress: &Progress,
    watch: &mut Watch,
) -> Result<()> {
    history::ensure(session).await?;
    let teller = Teller::begin(files.len(), progress);
    for file in files {
        session.reset_settings().await?;
        if file.no_transaction.is_some() {
            // What a statement locked by itself is free again when it could be asked for.
            let took = run_file(session, file, &file.statements, reports, &teller, None).await?;
            session.reset_settings().await?;
            history::record(session, file, took, run).await?;
            continue;
        }
        execute(session, "begin", "BEGIN").await?;
        execute(
            session,
            "set lock_timeout",
            &format!("SET LOCAL lock_timeout = {}", lock_timeout.as_millis()),
        )
        .await?;
        watch.begin();
        let statements = file.statements_without_wrapper()?;
        let took = run_file(session, file, statements, reports, &teller, Some(&mut *watch)).await?;
        session.reset_settings().await?;
        note_footprint(reports, watch.after_file(session).await?);
        history::record(session, file, took, run).await?;
        execute(session, "commit", "COMMIT").await.map_err(|error| error.context(file.name()))?;
    }
    Ok(())
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

fn note_footprint(reports: &mut [MigrationReport], footprint: TableFootprint) {
    if let Some(report) = reports.last_mut() {
        report.footprint = footprint;
    }
}

/// Tells how far it came: a line for each file, or one that counts them where there are many.
struct Teller<'a> {
    progress: &'a Progress,
    files: usize,
    began: Instant,
}

impl<'a> Teller<'a> {
    fn begin(files: usize, progress: &'a Progress) -> Self {
        let teller = Self { progress, files, began: Instant::now() };
        if teller.counts() {
            progress.phase(format!("{files} migrations"), None);
        }
        teller
    }

    fn counts(&self) -> bool {
        self.files > FILES_TOLD
    }

    fn file(&self, number: usize, name: String) {
        if self.counts() {
            self.progress.step(format!("{number} of {}: {name}", self.files));
        } else {
            self.progress.phase(name, None);
        }
    }

    fn file_done(&self) {
        if !self.counts() {
            self.progress.done();
        }
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        if self.counts() {
            self.progress.done();
        }
    }
}

async fn run_file(
    session: &Session,
    file: &MigrationFile,
    statements: &[Statement],
    reports: &mut Vec<MigrationReport>,
    teller: &Teller<'_>,
    mut watch: Option<&mut Watch>,
) -> Result<Duration> {
    teller.file(reports.len() + 1, file.name());
    let started = Instant::now();
    let mut report = MigrationReport {
        version: file.version.as_str().to_owned(),
        file: file.name(),
        started_seconds: teller.began.elapsed().as_secs_f64(),
        seconds: 0.0,
        complete: false,
        statements: Vec::new(),
        failed: None,
        statements_planned: statements.len(),
        footprint: TableFootprint::default(),
    };
    let mut failure = None;
    for statement in statements {
        if let Err(error) = interrupt::check() {
            failure = Some(error);
            break;
        }
        let began = Instant::now();
        let ran = run_statement(session, file, statement).await;
        let mut told = StatementReport::new(statement, ran.as_ref().copied().unwrap_or(0), began.elapsed());
        if let Err(error) = ran {
            report.failed = Some(told);
            failure = Some(error);
            break;
        }
        let footprint = match &mut watch {
            Some(watch) => watch.after(session, statement).await,
            None => Ok(TableFootprint::default()),
        };
        match footprint {
            Ok(footprint) => told.footprint = footprint,
            Err(error) => failure = Some(error),
        }
        report.statements.push(told);
        if failure.is_some() {
            break;
        }
    }
    let took = started.elapsed();
    report.seconds = took.as_secs_f64();
    report.complete = failure.is_none();
    reports.push(report);
    teller.file_done();
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
