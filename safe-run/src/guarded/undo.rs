//! The undo of what was committed: the clone or the snapshot takes the place of the failed database, or a person decides.

use std::{collections::BTreeSet, time::Instant};

use common::{
    Error, ErrorKind, Result, fault, interrupt,
    postgres::{ConnectionSettings, Session},
    repository::StoredSnapshot,
};
use restore::{RestorePlan, RestoreReport};

use super::{Prepared, restore_options};
use crate::{
    clone,
    fence::Fence,
    journal::{self, Step},
    large_objects,
    lower_fence::{lift_or_hold, settle_fence},
    others,
    report::{Report, UndoReport, Verdict},
    run::{Context, OnFailure, RunLog, Stage},
    writes,
};

/// Restores the snapshot beside the failed database and swaps their names.
pub(super) async fn undo(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    mut standing: Option<Fence>,
    prepared: Prepared,
    reached: Option<&BTreeSet<u32>>,
    (stage, error): (Stage, Error),
) -> Result<Report> {
    // From here on signals wait: half an undo is the worst of all states.
    let _guard = interrupt::begin_undo().await;
    let error = if stage == Stage::Validation { error } else { interrupt::explain(error) };
    log.fail(&error);
    let fenced = standing.is_some();
    // Behind the exclusive fence nobody writes, and the names that are used here are gone when it is lifted.
    let is_read_only = matches!(standing, Some(Fence::ReadOnly { .. }));
    // Without a fence others may have written since the snapshot: a person has to decide what is lost.
    let wanted = context.options.on_failure.unwrap_or(if fenced { OnFailure::Undo } else { OnFailure::Stop });
    if wanted == OnFailure::Undo && log.clone.is_some() {
        let is_last = prepared.snapshot.is_none();
        match clone::undo(context, log, control, &mut standing, (stage, &error), is_last).await? {
            clone::Undone::Yes(report) => return Ok(*report),
            clone::Undone::No(unchanged) => log = *unchanged,
        }
    }
    let (snapshot, plan) = match prepared.snapshot {
        Some(prepared) if wanted == OnFailure::Undo => prepared,
        other => {
            let snapshot = other.as_ref().map(|(snapshot, _)| snapshot);
            return stop(context, log, control, standing, snapshot, reached, fenced).await;
        }
    };
    let before = snapshot.clone();
    let began = Instant::now();
    context.progress.note(format!("undoing: {}", error.message()));
    let restored = Box::pin(restore_snapshot(context, &mut log, control, snapshot, plan)).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut undo = UndoReport { how: "restore", seconds, failed_database_kept_as: None, error: None };
    let restored = match restored {
        Ok(restored) => restored,
        Err(second) => return Ok(not_restored(log, standing.as_ref(), undo, &second)),
    };
    log.timed("undo: snapshot restored and swapped in", began);
    log.note_step(Step::Undone);
    let kept_as = restored.replaced_as.clone();
    describe(context, &mut log, restored);
    undo.failed_database_kept_as.clone_from(&kept_as);
    if let Some(error) = settle_fence(context, &mut log, control, standing, kept_as.as_deref()).await {
        log.report.notes.push(format!("the fence could not be lifted: {error}"));
        log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
        undo.error = Some((&error).into());
        log.report.undo = Some(undo);
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    if let Some(kept_as) = &kept_as {
        if !fenced {
            save_what_others_wrote(context, &mut log, control, kept_as, &before, reached).await;
        }
        if is_read_only {
            look_for_large_objects(context, &mut log, kept_as).await;
        }
        let name = common::Ident::new(&**kept_as);
        log.report.notes.push(format!("the failed state is kept as database \"{kept_as}\""));
        log.report.next.push(format!("when it is no longer needed: DROP DATABASE {name}"));
    }
    log.report.undo = Some(undo);
    // A clone that could not be used has no purpose any more.
    clone::drop_unneeded(&mut log, control, &context.progress).await;
    Ok(log.finish(Verdict::Restored, stage.exit_code_undone(&error)))
}

/// The undo failed as well: the database holds what the failed run left behind, and the snapshot is kept.
fn not_restored(mut log: RunLog, standing: Option<&Fence>, mut undo: UndoReport, second: &Error) -> Report {
    undo.error = Some(second.into());
    log.report.undo = Some(undo);
    log.report.state = format!(
        "database \"{}\" holds what the failed run left behind{}; snapshot {} is kept",
        log.report.database,
        standing.map_or(String::new(), |fence| format!(", and {}", fence.state())),
        log.report.snapshot.clone().unwrap_or_default()
    );
    log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
    log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code())
}

/// What the database is now, and what that does not vouch for.
fn describe(context: &Context, log: &mut RunLog, mut restored: RestoreReport) {
    restored.differences.extend(context.proof.differs.iter().cloned());
    restored.account_for_made_roles();
    log.report.state = format!(
        "database \"{}\" {} · restored from snapshot {} and compared row by row",
        log.report.database,
        restored.as_before(),
        log.report.snapshot.clone().unwrap_or_default()
    );
    log.report.account = restored.account();
}

/// Where no fence stood: its sessions were ended by the swap, so what is there now is all that was ever written.
async fn save_what_others_wrote(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    kept_as: &str,
    before: &StoredSnapshot,
    reached: Option<&BTreeSet<u32>>,
) {
    let (told, next) = writes::settle(&context.connection, control, kept_as, &mut log.journal).await;
    let is_saved = !next.is_empty();
    log.report.notes.extend(told);
    log.report.next.extend(next);
    let lost = if is_saved {
        format!("those rows are in \"{kept_as}\" and in the file")
    } else {
        format!("those rows are in \"{kept_as}\" only")
    };
    let settings = context.connection.with_database(kept_as);
    tell_differences(context, log, &settings, before, reached, &lost).await;
}

/// Before PostgreSQL 16 the read-only fence does not keep others from writing large objects.
async fn look_for_large_objects(context: &Context, log: &mut RunLog, kept_as: &str) {
    let failed = context.connection.with_database(kept_as);
    match large_objects::after_undo(&context.connection, &failed).await {
        Ok(told) => log.report.notes.extend(told),
        Err(error) => log.report.notes.push(format!(
            "large objects that others wrote behind the fence could not be looked for: {error}"
        )),
    }
}

/// Restores and swaps.
async fn restore_snapshot(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    snapshot: StoredSnapshot,
    mut plan: RestorePlan,
) -> Result<RestoreReport> {
    restore::stage::renew_names(control, &mut plan).await?;
    restore::plan_gone_roles(control, &snapshot, &mut plan).await?;
    // On a full disk the undo goes on without its line: a recovery would begin the same undo again.
    log.note_step(Step::Undoing {
        snapshot: snapshot.manifest.id.to_string(),
        staged: plan.staged.clone(),
        kept_as: plan.kept_as.clone().unwrap_or_default(),
    });
    fault::point("safe-run.undoing");
    let options = restore_options(context, journal::open_slot(log.journal.steps()));
    let verified = restore::verified(snapshot, options.jobs, &context.progress).await?;
    let report =
        restore::execute(&context.connection, control, &verified, plan, &options, &context.progress).await?;
    fault::point("safe-run.undone");
    Ok(report)
}

/// Says which tables are not as in the snapshot; a comparison that fails is said as well.
async fn tell_differences(
    context: &Context,
    log: &mut RunLog,
    settings: &ConnectionSettings,
    snapshot: &StoredSnapshot,
    reached: Option<&BTreeSet<u32>>,
    lost: &str,
) {
    match others::compare(settings, snapshot, reached, &context.progress).await {
        Ok(differences) => log.report.notes.extend(differences.sentences(lost)),
        Err(error) => {
            log.report
                .notes
                .push(format!("what others wrote since the snapshot could not be found out: {error}"));
        }
    }
}

/// Keeps the failed state for a person.
async fn stop(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: Option<Fence>,
    snapshot: Option<&StoredSnapshot>,
    reached: Option<&BTreeSet<u32>>,
    fenced: bool,
) -> Result<Report> {
    let lifted = lift_or_hold(context, &mut log, control, standing).await;
    let database = log.report.database.clone();
    log.report.state = match (&log.report.snapshot, fenced) {
        (Some(id), _) => format!(
            "database \"{database}\" holds what the failed run left behind · snapshot {id} holds the state before"
        ),
        (None, _) => {
            format!("database \"{database}\" holds what the failed run left behind · there is no snapshot")
        }
    };
    if let (Some(snapshot), Some(id)) = (snapshot, log.report.snapshot.clone()) {
        if !fenced {
            log.report.notes.push(
                "no fence stood: rows that others wrote since the snapshot would be missing after a restore"
                    .to_owned(),
            );
            let lost = format!("a restore of {id} goes without it");
            tell_differences(context, &mut log, &context.connection, snapshot, reached, &lost).await;
        }
        let waits = writes::preview(&context.connection, control, &mut log).await;
        if !fenced {
            let then = if waits { ", then `safe-run recover --keep`" } else { "" };
            log.report.next.push(format!(
                "keep what others wrote: leave \"{database}\" as it is and repair it by hand or with a further migration{then}"
            ));
        }
        log.report.next.push(format!("look at the state before, beside the live database: restore {id}"));
        log.report.next.push(if waits {
            format!(
                "go back to it: safe-run recover --undo (\"{database}\" as it is then is kept under another name, and what \
                 others wrote up to that moment is saved for a replay)"
            )
        } else {
            format!(
                "go back to it: restore {id} --replace (\"{database}\" as it is now is kept under another name)"
            )
        });
    } else {
        writes::end(&mut log, control).await;
    }
    clone::leave(&mut log);
    if let Err(error) = lifted {
        log.report.notes.push(format!("the fence could not be lifted: {error}"));
        log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    Ok(log.finish(Verdict::Stopped, ErrorKind::Stopped.exit_code()))
}
