//! How a run ends whose database stays: it stands, nothing was changed, or the server has rolled it back. The fence is lifted on
//! every path, or held as the run was told.

use std::time::Instant;

use common::{Error, ErrorKind, Result, fault, format::plural, interrupt, postgres::Session};

use crate::{
    clone,
    fence::Fence,
    journal::Step,
    lower_fence::{lift, lift_or_hold},
    report::{Report, UndoReport, Verdict},
    run::{Baseline, Context, RunLog, analyze_what_lost_statistics},
    sequences, writes,
};

pub(super) async fn keep(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
) -> Result<Report> {
    let guard = interrupt::begin_undo().await;
    log.note_step(Step::Stands);
    let lifted = lift_or_hold(context, &mut log, control, standing).await;
    drop(guard);
    let mut kept = None;
    if lifted.is_ok() {
        fault::point("safe-run.stands");
        writes::end(&mut log, control).await;
        kept = clone::drop_or_keep(&mut log, control, &context.progress).await;
        analyze_what_lost_statistics(&context.control, &mut log, &context.progress).await;
    }
    let report = &mut log.report;
    let checks = report.checks_phrase();
    report.headline = match &report.command {
        Some(command) if log.may_be_refused => format!(
            "`{}` ended with success on \"{}\", but nothing was written, and it may have been refused (see the note)",
            command.command, report.database
        ),
        Some(command) => {
            format!("`{}` succeeded on \"{}\", {checks}", command.command, report.database)
        }
        None => format!(
            "{} applied to \"{}\", {checks}",
            plural(report.migrations.len() as u64, "migration", "migrations"),
            report.database
        ),
    };
    report.state = match (&report.snapshot, &kept) {
        (Some(id), _) => format!("the state before is kept as snapshot {id}"),
        (None, Some(name)) => format!("the state before is kept as database \"{name}\""),
        (None, None) if context.options.snapshot.has_clone() => {
            "the clone of the state before was dropped".to_owned()
        }
        (None, None) => "no snapshot was taken".to_owned(),
    };
    if let Err(error) = lifted {
        log.fail(&error);
        log.report.headline = format!("the changes stand, but the fence could not be lifted: {error}");
        log.report.state = error.database_state().unwrap_or_default().to_owned();
        log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    Ok(log.finish(Verdict::Committed, 0))
}

pub(super) fn failed_before(mut log: RunLog, error: &Error) -> Result<Report> {
    log.fail(error);
    log.report.state = format!("database \"{}\" unchanged", log.report.database);
    // A usage error is of a command that could not even be started.
    let ran = log.report.command.is_some() && error.kind() != ErrorKind::Usage;
    let verdict = if ran { Verdict::NotConnected } else { Verdict::Failed };
    Ok(log.finish(verdict, error.kind().exit_code()))
}

/// Nothing was changed: only the fence has to go.
pub(super) async fn abandon(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    error: Error,
) -> Result<Report> {
    let _guard = interrupt::begin_undo().await;
    let error = interrupt::explain(error);
    match lift(context, &mut log, control, standing).await {
        Ok(()) => {
            clone::drop_unneeded(&mut log, control, &context.progress).await;
            writes::end(&mut log, control).await;
            failed_before(log, &error)
        }
        Err(second) => {
            log.fail(&error);
            log.report.undo = Some(UndoReport {
                how: "lift the fence",
                seconds: 0.0,
                failed_database_kept_as: None,
                error: Some((&second).into()),
            });
            log.report.state = format!(
                "database \"{}\" unchanged, but {}",
                log.report.database,
                second.database_state().unwrap_or("its fence still stands")
            );
            log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
            Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))
        }
    }
}

/// The first transaction failed and the server has rolled it back: only sequences may stand elsewhere.
pub(super) async fn rolled_back(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    baseline: &Baseline,
    error: Error,
) -> Result<Report> {
    let _guard = interrupt::begin_undo().await;
    let began = Instant::now();
    let error = interrupt::explain(error);
    fault::point("safe-run.rolled-back");
    let put_back = async {
        // The session's own settings let it through the fence.
        let session = context.connection.connect().await?;
        let found = sequences::put_back(&session, &baseline.sequences).await?;
        session.close().await?;
        // What could not have its locks shall be tried again.
        if error.is_retryable() {
            lift(context, &mut log, control, standing).await?;
        } else {
            lift_or_hold(context, &mut log, control, standing).await?;
        }
        Ok::<_, Error>(found)
    };
    let found = put_back.await;
    log.fail(&error);
    let undo_error = found.as_ref().err().map(Into::into);
    log.report.undo = Some(UndoReport {
        how: "rollback",
        seconds: began.elapsed().as_secs_f64(),
        failed_database_kept_as: None,
        error: undo_error,
    });
    let Ok(found) = found else {
        log.report.state = format!(
            "database \"{}\": tables are as before, but sequences or the fence may not be",
            log.report.database
        );
        log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    };
    clone::drop_unneeded(&mut log, control, &context.progress).await;
    writes::end(&mut log, control).await;
    log.report.notes.extend(found.restored.into_iter().chain(found.ahead));
    let outside = std::mem::take(&mut log.outside);
    log.report.notes.extend(outside);
    let mut state = vec![format!("database \"{}\" unchanged", log.report.database)];
    state.extend(log.report.snapshot.as_ref().map(|id| format!("snapshot {id} kept")));
    log.report.state = state.join(" · ");
    let code = match error.kind() {
        kind @ (ErrorKind::Interrupted | ErrorKind::Terminated) => kind,
        _ if error.is_retryable() => ErrorKind::Busy,
        _ => ErrorKind::MigrationRolledBack,
    };
    Ok(log.finish(Verdict::RolledBack, code.exit_code()))
}
