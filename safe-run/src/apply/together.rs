//! Statements of one file in one transaction, sent without waiting for each where that changes nothing.
//!
//! A server that has the next statement already does not wait for the way to us and back. Once one fails the server
//! refuses all that follow, as it would have if they had come later; so what is known of a failure is the same: which
//! statement failed, and that none behind it ran. What must never be sent ahead:
//!
//! - what ends the refusing, or moves savepoints: the failure has to be seen first;
//! - what has effects outside of the transaction, or runs code that is not visible here: when the connection breaks nobody
//!   knows how far the server came, and the report says which of these were begun;
//! - what is there to give rows: they would be held for all statements at once;
//! - anything behind a statement after which the server has to be asked what that locked.

use std::time::{Duration, Instant};

use common::{
    Result, interrupt,
    postgres::{Session, SimpleQueryMessage},
};
use futures_util::future::join_all;

use super::{Applying, MigrationReport, StatementReport, run_statement};
use crate::statement_facts::{Question, Watch};
use sql::migration::MigrationFile;
use sql::statement::{Class, Statement, StatementKind};

/// Most statements that are sent together. What is interrupted ends with the one that runs, and all behind it are refused.
const TOGETHER: usize = 16;

/// Longest text of a statement that is sent ahead, in bytes: for a long one the way back and forth counts for nothing.
const LONGEST: usize = 64 << 10;

/// Runs the statements in order, and reports each.
pub(super) async fn run_statements(
    Applying { session, progress, .. }: Applying<'_>,
    file: &MigrationFile,
    statements: &[Statement],
    report: &mut MigrationReport,
    watch: &mut Watch,
) -> Result<()> {
    let mut rest = statements;
    while !rest.is_empty() {
        interrupt::check()?;
        let mut group: Vec<(&Statement, Question<'_>)> = Vec::new();
        while let Some((next, behind)) = rest.split_first() {
            let goes_with = group.last().is_none_or(|(last, question)| {
                group.len() < TOGETHER && question.is_idle() && may_wait(last) && may_wait(next)
            });
            if !goes_with {
                break;
            }
            group.push((next, watch.question(next)));
            rest = behind;
        }
        if let Some((first, _)) = group.first() {
            progress.step(told_at(first, file));
        }
        run_group(session, file, group, report, watch).await?;
    }
    Ok(())
}

/// Where a person finds the statement, and what it is, for the time that it runs.
pub(super) fn told_at(statement: &Statement, file: &MigrationFile) -> String {
    /// Of a line on a terminal, which is cut to what fits.
    const CHARS: usize = 60;
    format!("{}:{}: {}", file.name(), statement.line, statement.summary(CHARS))
}

/// Sends the statements, the question of the last one behind them.
async fn run_group(
    session: &Session,
    file: &MigrationFile,
    group: Vec<(&Statement, Question<'_>)>,
    report: &mut MigrationReport,
    watch: &mut Watch,
) -> Result<()> {
    let mut before = Instant::now();
    // Polled in order the first time, which is the order in which they are sent.
    let ran = join_all(group.iter().map(async |(statement, question)| {
        tokio::join!(
            biased;
            async { (run_statement(session, file, statement).await, Instant::now()) },
            question.ask(session),
        )
    }));
    for ((statement, question), ((ran, ended), answer)) in group.iter().zip(ran.await) {
        let took = ended.saturating_duration_since(before);
        before = ended;
        one(session, statement, (ran, took), (question, answer), report, watch).await?;
    }
    Ok(())
}

/// Reports one statement that was sent. What the question says after a failure is nothing.
async fn one(
    session: &Session,
    statement: &Statement,
    (ran, took): (Result<u64>, Duration),
    (question, answer): (&Question<'_>, Result<Vec<SimpleQueryMessage>>),
    report: &mut MigrationReport,
    watch: &mut Watch,
) -> Result<()> {
    let rows = ran.as_ref().copied().unwrap_or(0);
    let told = StatementReport::new(statement, rows, took);
    if let Err(error) = ran {
        report.failed = Some(told);
        return Err(error);
    }
    // It has run, whatever becomes of the question.
    report.statements.push(told);
    let footprint = watch.after(session, statement, question, answer).await?;
    if let Some(told) = report.statements.last_mut() {
        told.footprint = footprint;
    }
    Ok(())
}

/// Whether others may stand in the queue with it.
fn may_wait(statement: &Statement) -> bool {
    let Class { kind, runs_code, outside_transaction, unread, .. } = &statement.class;
    let plain = matches!(
        kind,
        StatementKind::Ddl | StatementKind::Insert | StatementKind::Update | StatementKind::Delete
    );
    plain
        && runs_code.is_none()
        && unread.is_none()
        && outside_transaction.is_empty()
        && !statement.class.calls_functions()
        && statement.copy_data.is_none()
        && statement.text.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_stand_in_the_queue_is_sent_ahead() {
        let waits = |sql: &str| {
            let statements = sql::statement::split(sql).unwrap();
            statements.iter().all(may_wait)
        };
        for sql in [
            "create table a (i int)",
            "insert into a values (1)",
            "update a set i = 2 where i = 1",
            "delete from a",
        ] {
            assert!(waits(sql), "{sql}");
        }
        for sql in [
            "savepoint a",
            "rollback to a",
            "release a",
            "do 'begin end'",
            "call p()",
            "select 1",
            "set search_path = a",
            "insert into a select dblink_exec('x', 'y')",
            "insert into a values (setval('s', 1))",
            "insert into a values (f())",
            "copy a from program 'x'",
            "execute p",
        ] {
            assert!(!waits(sql), "{sql}");
        }
    }
}
