//! The end of the transaction: COMMIT, the fate of one that nobody heard of, ROLLBACK.

use std::time::{Duration, Instant};

use common::{Error, ErrorKind, Result, fault, interrupt, postgres::Session};

use super::{Failure, Stage, work::Work};
use crate::{
    journal::Step,
    report::{Report, UndoReport, Verdict},
    run::{Baseline, Context, RunLog, analyze_what_lost_statistics},
    sequences,
};

pub(super) async fn commit(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    migrator: Session,
    baseline: Option<&Baseline>,
) -> Result<Report> {
    let xid = match migrator.assigned_xid().await {
        Ok(xid) => xid,
        Err(error) => {
            let failure = Failure { stage: Stage::Migration, error };
            return roll_back((context, work), log, migrator, baseline, failure).await;
        }
    };
    if let Err(error) = log.journal.write(Step::Committing { xid: xid.clone() }) {
        let failure = Failure { stage: Stage::Migration, error };
        return roll_back((context, work), log, migrator, baseline, failure).await;
    }
    fault::point("safe-run.before-commit");
    let began = Instant::now();
    let committed = migrator.batch_execute("COMMIT").await;
    log.timed("commit", began);
    log.fence_is_down();
    if let Err(source) = committed {
        let error = Error::postgres("could not commit", source);
        let refused =
            error.sqlstate().is_some_and(|code| !code.starts_with("08") && !code.starts_with("57P"));
        return if refused {
            let failure = Failure { stage: Stage::Migration, error };
            roll_back((context, work), log, migrator, baseline, failure).await
        } else {
            settle_lost_commit((context, work), log, baseline, xid, error).await
        };
    }
    fault::point("safe-run.after-commit");
    stands((context, work), log, migrator).await
}

pub(super) async fn stands(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    migrator: Session,
) -> Result<Report> {
    log.note_step(Step::Stands);
    analyze_what_lost_statistics(&migrator, &mut log, &context.progress).await;
    work.after_commit(context, &migrator, &mut log).await;
    migrator.close().await.unwrap_or_else(|error| context.progress.warn(error.to_string()));
    describe_success(work, &mut log);
    Ok(log.finish(Verdict::Committed, 0))
}

fn describe_success(work: &Work<'_>, log: &mut RunLog) {
    let report = &mut log.report;
    report.headline = work.succeeded(report);
    report.state = match &report.snapshot {
        Some(id) => format!("the state before is kept as snapshot {id}"),
        None => "no snapshot was taken".to_owned(),
    };
}

/// What became of a transaction, by its id.
pub async fn fate(session: &Session, xid: &str) -> Result<Option<String>> {
    let row = session
        .query_one(
            &format!(
                "SELECT pg_catalog.pg_xact_status({}::pg_catalog.text::pg_catalog.xid8)",
                common::ident::literal(xid)
            ),
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not ask for the transaction's fate", source))?;
    Ok(row.get(0))
}

/// Longest time to wait for a server that has gone: after a crash it replays its log first.
const LONGEST_RESTART: Duration = Duration::from_secs(180);

async fn connect_again(context: &Context) -> Result<Session> {
    context.progress.phase("waiting for the server to come back", None);
    let session = context.connection.connect_waiting(LONGEST_RESTART, |_| {}).await;
    context.progress.done();
    session
}

/// The connection broke during COMMIT: the server knows whether it committed.
async fn settle_lost_commit(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    baseline: Option<&Baseline>,
    xid: Option<String>,
    error: Error,
) -> Result<Report> {
    let asked = async {
        let session = connect_again(context).await?;
        match &xid {
            Some(xid) => fate(&session, xid).await.map(|fate| (session, fate)),
            None => Ok((session, Some("aborted".to_owned()))),
        }
    };
    log.report.notes.push(format!("the connection broke while the commit was on its way: {error}"));
    match asked.await {
        Ok((session, Some(fate))) if fate == "committed" => stands((context, work), log, session).await,
        Ok((session, Some(fate))) if fate == "aborted" => {
            let failure = Failure { stage: Stage::Migration, error };
            roll_back((context, work), log, session, baseline, failure).await
        }
        _ => {
            log.fail(&error);
            log.report.headline =
                "the connection broke during COMMIT, and its outcome could not be read".to_owned();
            log.report.state = format!("database \"{}\" holds {}", log.report.database, work.all_or_none());
            log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

pub(super) fn failed_before(mut log: RunLog, error: &Error) -> Result<Report> {
    log.fail(error);
    log.report.state = format!("database \"{}\" unchanged", log.report.database);
    Ok(log.finish(Verdict::Failed, error.kind().exit_code()))
}

pub(super) async fn roll_back(
    (context, work): (&Context, &Work<'_>),
    mut log: RunLog,
    migrator: Session,
    baseline: Option<&Baseline>,
    failure: Failure,
) -> Result<Report> {
    let guard = interrupt::begin_undo().await;
    let began = Instant::now();
    let Failure { stage, error } = failure;
    let error = if stage == Stage::Validation { error } else { interrupt::explain(error) };
    // A connection that is gone has rolled back, or will as soon as the server notices.
    let rolled_back = migrator.batch_execute("ROLLBACK").await;
    fault::point("safe-run.rolled-back");
    log.fence_is_down();
    let mut notes = Vec::new();
    if stage != Stage::Before {
        match put_sequences_back(context, &migrator, baseline, rolled_back.is_ok()).await {
            Ok(found) => notes.extend(found.restored.into_iter().chain(found.ahead)),
            Err(second) => {
                log.fail(&error);
                log.report.undo = Some(undo_report(began, Some(&second)));
                log.report.state = format!(
                    "database \"{}\": tables are as before, but sequences could not be looked at",
                    log.report.database
                );
                log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
                return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
            }
        }
    }
    drop(guard);
    if stage != Stage::Before {
        log.timed("undo: ROLLBACK", began);
    }
    log.fail(&error);
    log.report.notes.extend(notes);
    let outside = std::mem::take(&mut log.outside);
    log.report.notes.extend(outside);
    log.report.undo = Some(undo_report(began, None));
    let mut state = vec![format!("database \"{}\" unchanged", log.report.database)];
    if stage != Stage::Before {
        state.push(work.had_run(&log.report));
    }
    if let Some(id) = &log.report.snapshot {
        state.push(format!("snapshot {id} kept"));
    }
    log.report.state = state.join(" · ");
    let (verdict, code) = outcome(stage, &error);
    Ok(log.finish(verdict, code))
}

/// A ROLLBACK leaves sequences as the migration left them. Where the connection is gone, another one does it.
async fn put_sequences_back(
    context: &Context,
    migrator: &Session,
    baseline: Option<&Baseline>,
    is_usable: bool,
) -> Result<sequences::PutBack> {
    let own;
    let session = if is_usable {
        migrator
    } else {
        own = connect_again(context).await?;
        &own
    };
    let Some(baseline) = baseline else { return Ok(sequences::PutBack::default()) };
    if is_usable {
        session.reset_settings().await?;
        session.only_catalog_names().await?;
    }
    sequences::put_back(session, &baseline.sequences).await
}

fn undo_report(began: Instant, error: Option<&Error>) -> UndoReport {
    UndoReport {
        how: "rollback",
        seconds: began.elapsed().as_secs_f64(),
        failed_database_kept_as: None,
        error: error.map(Into::into),
    }
}

fn outcome(stage: Stage, error: &Error) -> (Verdict, u8) {
    match (stage, error.kind()) {
        (_, kind @ (ErrorKind::Interrupted | ErrorKind::Terminated)) => {
            (Verdict::RolledBack, kind.exit_code())
        }
        (Stage::Before, kind) => (Verdict::Failed, kind.exit_code()),
        (Stage::Migration, _) if error.is_retryable() => (Verdict::RolledBack, ErrorKind::Busy.exit_code()),
        (Stage::Migration, _) => (Verdict::RolledBack, ErrorKind::MigrationRolledBack.exit_code()),
        (Stage::Validation, _) => (Verdict::RolledBack, ErrorKind::ValidationRolledBack.exit_code()),
    }
}
