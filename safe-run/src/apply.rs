//! Runs the statements of migration files, one message each, and says exactly which one failed.

mod hint;
mod together;

use std::time::{Duration, Instant};

use common::{
    Error, ErrorKind, Progress, Result, fault, interrupt,
    postgres::{Session, SimpleQueryMessage, copy},
};

use crate::{
    attempts::{Failed, Waiting, until_locked},
    concurrently,
    history::{History, Outcome},
    lock_ahead,
    own_writes::OwnWrites,
    report::migrations::{MigrationReport, SUMMARY_CHARS, StatementReport},
    statement_facts::{TableFootprint, Watch},
    teller::Teller,
};
use sql::{
    migration::{MigrationFile, TransactionPlan},
    statement::{Statement, StatementKind, TransactionVerb, locks::LockMode},
};
use together::run_statements;

/// What running files left behind, also when it failed.
#[derive(Debug, Default)]
pub struct Trace<'j> {
    /// The files, up to the one that failed.
    pub reports: Vec<MigrationReport>,
    /// Something may have been committed: a ROLLBACK is no undo any more.
    pub committed: bool,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Where transactions are written down as the run's own, if others may write meanwhile and that is saved.
    pub ours: Option<OwnWrites<'j>>,
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
    /// When the first file began, or its first attempt.
    pub began: Instant,
}

impl Applying<'_> {
    /// Records that a file ran, without the settings that it made.
    async fn record(&self, file: &MigrationFile, took: Duration) -> Result<()> {
        self.session.reset_settings().await?;
        self.session.only_catalog_names().await?;
        self.history.ensure(self.session).await?;
        self.history.record(self.session, file, &Outcome::Ran { took, run: self.run }).await?;
        self.session.own_names().await
    }

    /// Says that a file begins which a crash may leave half done, where its tool says so. Nothing of it has run.
    async fn begin(&self, file: &MigrationFile) -> Result<()> {
        self.session.only_catalog_names().await?;
        self.history.ensure(self.session).await?;
        self.history.begin(self.session, file).await?;
        self.session.own_names().await
    }

    /// Says that such a file failed. The undo takes it back; where there is none, the tool sees what happened.
    /// `in_transaction`: one is open, or was when it failed.
    async fn fail(&self, file: &MigrationFile, took: Duration, error: &Error, in_transaction: bool) {
        let noted = async {
            if in_transaction {
                execute(self.session, "roll back", "ROLLBACK").await?;
            }
            self.session.reset_settings().await?;
            self.session.only_catalog_names().await?;
            self.history.fail(self.session, file, took, error.message()).await
        };
        if let Err(second) = noted.await {
            self.progress.warn(format!("the failure of {} could not be recorded: {second}", file.name()));
        }
    }
}

/// Runs the files in order in the transaction that is open in the session, each with its history row. The locks that they
/// need beyond `held` are taken first.
///
/// `reports` grows as they run, so that after a failure it says how far it came.
pub async fn in_transaction(
    applying: Applying<'_>,
    files: &[&MigrationFile],
    held: Option<LockMode>,
    reports: &mut Vec<MigrationReport>,
    watch: &mut Watch,
) -> Result<()> {
    let Applying { session, history, lock_timeout, run, .. } = applying;
    watch.begin();
    session.reset_settings().await?;
    let statements = files.iter().flat_map(|file| &file.statements);
    let ahead = lock_ahead::take(session, &lock_ahead::wanted(statements), held, lock_timeout)
        .await
        .map_err(with_sqlstate)?;
    watch.took_ahead(session, ahead).await?;
    // Behind the locks: who waits there must not hold a lock on the history.
    session.only_catalog_names().await?;
    history.ensure(session).await?;
    let teller = Teller::begin(files.len(), applying.progress);
    // A DDL statement that waits for a lock makes everybody behind it wait too.
    let limit = format!("SET LOCAL lock_timeout = {}", lock_timeout.as_millis());
    session.reset_settings().await?;
    execute(session, "set lock_timeout", &limit).await?;
    for (place, file) in files.iter().enumerate() {
        let statements = file.statements_without_wrapper()?;
        let took = run_file(applying, file, statements, reports, &teller, watch).await?;
        let outcome = Outcome::Ran { took, run };
        // Sent together and done in this order: with many small files the way to the server and back is what takes time. The search_path is
        // the migrations' here: what records a file names no operator and no type without its schema.
        let ((), (), footprint, ()) = tokio::try_join!(
            biased;
            session.reset_settings(),
            execute(session, "set lock_timeout", &limit),
            watch.after_file(session, place + 1 == files.len()),
            history.record(session, file, &outcome),
        )?;
        if let Some(report) = reports.last_mut() {
            report.footprint = footprint;
        }
    }
    execute(session, "check deferred constraints", "SET CONSTRAINTS ALL IMMEDIATE").await.map_err(|error| {
        match error.sqlstate() {
            // Integrity constraint violation.
            Some(code) if code.starts_with("23") => {
                error.with_hint("A deferred constraint does not hold at the end of the migrations: correct the rows, or what the files do to them.")
            }
            _ => error,
        }
    })
}

/// Runs the files in order as `plan` says: all in one transaction, a file per transaction, or each statement by itself
/// where its file says so. What could not have its locks is tried again.
pub async fn as_planned(
    waiting: &Waiting<'_>,
    applying: Applying<'_>,
    files: &[&MigrationFile],
    plan: &TransactionPlan,
    trace: &mut Trace<'_>,
    watch: &mut Watch,
) -> Result<()> {
    let session = applying.session;
    if plan.one {
        let (reports, ours) = (&mut trace.reports, &mut trace.ours);
        until_locked(waiting, "ROLLBACK", async || {
            reports.clear();
            let applied = async {
                execute(session, "begin", "BEGIN").await?;
                in_transaction(applying, files, None, reports, watch).await?;
                if let Some(ours) = ours.as_mut() {
                    ours.in_transaction(session).await?;
                }
                fault::point("safe-run.before-file-commit");
                execute(session, "commit", "COMMIT").await
            };
            let result = applied.await;
            result.map_err(|error| Failed { error, repeatable: effects_outside(files, reports).is_empty() })
        })
        .await
        .inspect_err(|error| trace.committed = is_lost(error))?;
        trace.committed = true;
        return Ok(());
    }
    let teller = Teller::begin(files.len(), applying.progress);
    for (place, file) in files.iter().enumerate() {
        session.reset_settings().await?;
        trace.reports.push(MigrationReport::begun(file, applying.began));
        teller.file(place + 1, file.name());
        let commits = plan.commits.get(&place).map_or(&[][..], Vec::as_slice);
        let result = if file.no_transaction.is_some() {
            // What a statement locked by itself is free again when it could be asked for.
            alone(waiting, applying, file, trace).await
        } else {
            in_pieces(waiting, applying, file, commits, trace, watch).await
        };
        teller.file_done();
        result?;
        fault::point("safe-run.file-committed");
    }
    Ok(())
}

/// One file in a transaction of its own, or in several where `commits` says so.
async fn in_pieces(
    waiting: &Waiting<'_>,
    applying: Applying<'_>,
    file: &MigrationFile,
    commits: &[usize],
    trace: &mut Trace<'_>,
    watch: &mut Watch,
) -> Result<()> {
    let Applying { session, lock_timeout: timeout, .. } = applying;
    let statements = file.statements_without_wrapper()?;
    let started = Instant::now();
    let mut from = 0;
    for to in commits.iter().copied().chain(std::iter::once(statements.len())) {
        let (piece, last) = (statements.get(from..to).unwrap_or_default(), to == statements.len());
        let report = trace.reports.last_mut().expect("the file's report was begun");
        let ours = &mut trace.ours;
        let kept = report.statements.len();
        let result = until_locked(waiting, "ROLLBACK", async || {
            report.statements.truncate(kept);
            report.failed = None;
            let mut footprint = TableFootprint::default();
            let applied = async {
                execute(session, "begin", "BEGIN").await?;
                if from == 0 {
                    watch.begin();
                } else {
                    watch.go_on();
                }
                let ahead = lock_ahead::take(session, &lock_ahead::wanted(piece), None, timeout)
                    .await
                    .map_err(with_sqlstate)?;
                watch.took_ahead(session, ahead).await?;
                limit_lock_waits(session, "SET LOCAL", timeout).await?;
                if from == 0 && !last {
                    // From the first commit on, a crash leaves the file half done.
                    applying.begin(file).await?;
                }
                run_statements(applying, file, piece, report, watch).await?;
                if last {
                    session.reset_settings().await?;
                    footprint = watch.after_file(session, true).await?;
                    applying.record(file, started.elapsed()).await?;
                }
                if let Some(ours) = ours.as_mut() {
                    ours.in_transaction(session).await?;
                }
                fault::point("safe-run.before-file-commit");
                execute(session, "commit", "COMMIT").await.map_err(|error| error.context(file.name()))
            };
            let result = applied.await;
            report.footprint = footprint;
            report.seconds = started.elapsed().as_secs_f64();
            let done = report.statements.len() - kept;
            let begun = piece.iter().take(done + 1);
            let repeatable =
                begun.flat_map(|statement| &statement.class.outside_transaction).all(|text| is_setval(text));
            result.map_err(|error| Failed { error, repeatable })
        })
        .await;
        if let Err(error) = result {
            trace.committed |= is_lost(&error);
            if from > 0 {
                // What is recorded now has transactions of its own.
                if let Some(ours) = trace.ours.as_mut() {
                    ours.unknown_from(waiting.observer).await?;
                }
                applying.fail(file, started.elapsed(), &error, true).await;
                if let (Some(ours), false) = (trace.ours.as_mut(), is_lost(&error)) {
                    ours.unknown_to(waiting.observer).await?;
                }
            }
            return Err(error);
        }
        trace.committed = true;
        from = to;
    }
    if let Some(report) = trace.reports.last_mut() {
        report.complete = true;
    }
    Ok(())
}

/// One file whose statements are sent one by one, outside of any transaction of ours.
async fn alone(
    waiting: &Waiting<'_>,
    applying: Applying<'_>,
    file: &MigrationFile,
    trace: &mut Trace<'_>,
) -> Result<()> {
    let started = Instant::now();
    interrupt::check()?;
    // What the history says of the beginning is committed.
    trace.committed = true;
    if let Some(ours) = trace.ours.as_mut() {
        ours.unknown_from(waiting.observer).await?;
    }
    applying.begin(file).await?;
    let mut in_block = false;
    let ran = async {
        one_by_one(waiting, applying, file, trace, started, &mut in_block).await?;
        applying.record(file, started.elapsed()).await
    };
    let ran = ran.await;
    if let Err(error) = &ran {
        applying.fail(file, started.elapsed(), error, in_block).await;
    }
    // With the connection lost, the server may go on with the statement: what is ours has no end then.
    if let (Some(ours), false) = (trace.ours.as_mut(), ran.as_ref().is_err_and(is_lost)) {
        let ended = ours.unknown_to(waiting.observer).await;
        ran.and(ended)?;
    } else {
        ran?;
    }
    if let Some(report) = trace.reports.last_mut() {
        report.complete = true;
    }
    Ok(())
}

/// Sends the statements. `in_block`: the file has begun a transaction that is still open.
async fn one_by_one(
    waiting: &Waiting<'_>,
    applying: Applying<'_>,
    file: &MigrationFile,
    trace: &mut Trace<'_>,
    started: Instant,
    in_block: &mut bool,
) -> Result<()> {
    let session = applying.session;
    limit_lock_waits(session, "SET", applying.lock_timeout).await?;
    for statement in &file.statements {
        interrupt::check()?;
        let began = Instant::now();
        // CALL and DO may have committed a part before they failed, and a block of the file's own is gone.
        let repeatable = !*in_block
            && statement.class.runs_code.is_none()
            && statement.class.outside_transaction.iter().all(|text| is_setval(text));
        let notes = &mut trace.notes;
        let mut rows = 0;
        applying.progress.step(together::told_at(statement, file));
        let result = until_locked(waiting, "SELECT 1", async || {
            let applied =
                concurrently::guarded(session, statement, waiting.wait.timeout, notes, async || {
                    run_statement(session, file, statement).await
                });
            match applied.await {
                Ok(found) => {
                    rows = found;
                    Ok(())
                }
                Err(error) => Err(Failed { error, repeatable }),
            }
        })
        .await;
        let report = trace.reports.last_mut().expect("the file's report was begun");
        report.seconds = started.elapsed().as_secs_f64();
        let told = StatementReport::new(statement, rows, began.elapsed());
        if let Err(error) = result {
            report.failed = Some(told);
            return Err(error);
        }
        report.statements.push(told);
        match statement.class.kind {
            StatementKind::TransactionControl(TransactionVerb::Begin) => *in_block = true,
            StatementKind::TransactionControl(TransactionVerb::Commit | TransactionVerb::Rollback) => {
                *in_block = false;
            }
            _ => {}
        }
        fault::point("safe-run.statement-done");
    }
    Ok(())
}

/// The connection broke: nobody knows whether a COMMIT went through.
fn is_lost(error: &Error) -> bool {
    error.sqlstate().is_none_or(|code| code.starts_with("08") || code.starts_with("57P"))
        && !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Terminated | ErrorKind::Refused)
}

/// A DDL statement that waits for a lock makes everybody behind it wait too.
async fn limit_lock_waits(session: &Session, set: &str, timeout: Duration) -> Result<()> {
    execute(session, "set lock_timeout", &format!("{set} lock_timeout = {}", timeout.as_millis())).await
}

fn is_setval(text: &str) -> bool {
    text.starts_with("setval")
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
            let outside = statement.class.outside_transaction.iter().filter(|text| !is_setval(text));
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
    applying: Applying<'_>,
    file: &MigrationFile,
    statements: &[Statement],
    reports: &mut Vec<MigrationReport>,
    teller: &Teller<'_>,
    watch: &mut Watch,
) -> Result<Duration> {
    teller.file(reports.len() + 1, file.name());
    let started = Instant::now();
    let mut report = MigrationReport::begun(file, applying.began);
    let result = run_statements(applying, file, statements, &mut report, watch).await;
    let took = started.elapsed();
    report.seconds = took.as_secs_f64();
    report.complete = result.is_ok();
    reports.push(report);
    teller.file_done();
    result.map(|()| took)
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
    let messages = session.run_text(&statement.text).await.map_err(located)?;
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
    let hint = error.sqlstate().and_then(|code| hint::hint_for(code, file.layout.format));
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
