//! The end of a fence: it is lifted, or held as the run was told.

use common::{Error, Result, fault, postgres::Session};

use crate::{
    fence::Fence,
    journal::Step,
    run::{Context, RunLog},
};

/// Takes the fence away.
///
/// # Errors
/// It still stands; the error says so.
pub async fn lift(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    standing: Option<Fence>,
) -> Result<()> {
    if let Some(fence) = standing {
        let state = fence.state();
        fence.lift(control, &own_pids(context)).await.map_err(|error| error.with_database_state(state))?;
        fault::point("safe-run.fence-lifted");
        log.fence_is_down();
        log.note_step(Step::FenceLifted);
    }
    Ok(())
}

/// The end of a run that did something: the fence goes, or stays as it was told to.
pub async fn lift_or_hold(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    standing: Option<Fence>,
) -> Result<()> {
    match standing {
        Some(fence) if context.options.hold_fence => {
            hold(log, &fence);
            Ok(())
        }
        standing => lift(context, log, control, standing).await,
    }
}

fn hold(log: &mut RunLog, fence: &Fence) {
    log.report.fence_held = true;
    log.report.notes.push(format!("the fence is held (--hold-fence): {}", fence.state()));
    log.report.next.push("open the database: safe-run release".to_owned());
}

/// After an undo: takes the fence away, or leaves it as it was told to. The error means that people can't work.
pub async fn settle_fence(
    context: &Context,
    log: &mut RunLog,
    control: &Session,
    standing: Option<Fence>,
    failed: Option<&str>,
) -> Option<Error> {
    let fence = standing?;
    if context.options.hold_fence {
        hold(log, &fence);
        return None;
    }
    let is_exclusive = matches!(fence, Fence::Exclusive { .. });
    match fence.lift_after_undo(control, failed).await {
        Ok(()) => {
            fault::point("safe-run.fence-lifted");
            log.note_step(Step::FenceLifted);
            None
        }
        Err(error) if is_exclusive => Some(error),
        Err(error) => {
            let failed = failed.unwrap_or_default();
            log.report.notes.push(format!("database \"{failed}\" is still read-only: {error}"));
            None
        }
    }
}

/// The sessions of ours that the fence lets be.
pub fn own_pids(context: &Context) -> Vec<i32> {
    vec![context.control.backend_pid()]
}
