//! A run under protection, from its flags to the flow that carries it out.

use common::{
    Error, Result, format,
    postgres::{Session, exported_snapshot::LockWait},
};

use super::{Invocation, state::State};
use crate::{
    clone, command, enum_users,
    guarded::{self, Job},
    journal::Mode,
    proof,
    report::{Report, Verdict},
    room::{self, Way},
    run::{Context, FenceChoice, OnFailure, RunOptions, SnapshotChoice},
    tidy,
    transactional::{self, Work},
    verify::VerifyFile,
};
use sql::migration::{self, MigrationPlan, TransactionChoice, TransactionPlan};

impl Invocation<'_> {
    pub(super) fn run_options(&self, verify: Vec<VerifyFile>) -> RunOptions {
        let (protection, checks, look) = (self.cli.protection(), self.cli.checks(), &self.cli.checks().look);
        RunOptions {
            jobs: self.settings.jobs.unwrap_or_else(backup::default_jobs),
            codec: self.settings.codec,
            skip_space_check: protection.skip_space_check,
            lock_wait: LockWait { timeout: self.settings.lock_timeout, retries: self.settings.lock_retries },
            fence: protection.fence,
            hold_fence: protection.hold_fence,
            snapshot: protection.snapshot,
            keep_clone: protection.keep_clone,
            end_workers: protection.end_workers,
            snapshot_when: protection.snapshot_when,
            level: look.level,
            only: look.only.clone(),
            skip: look.skip.clone(),
            fail_on: checks.fail_on,
            strict: look.strict,
            allow_loss: checks.allow_loss.clone(),
            lost_labels: checks.allow_lost_labels.clone(),
            lost_grants: checks.allow_lost_grants.clone(),
            max_loss: self.settings.max_loss,
            verify,
            on_failure: protection.on_failure,
        }
    }

    pub(super) async fn protected_run(&self) -> Result<u8> {
        self.reported(async { self.run_and_report().await.map(Some) }).await
    }

    async fn run_and_report(&self) -> Result<Report> {
        let external = &self.cli.external;
        self.refuse_clone_usage()?;
        match external.first() {
            // A folder that is not there is said before the server is asked.
            None => drop(migration::signs(&self.settings.dirs)?),
            Some(program) => command::refuse_missing(program)?,
        }
        let (mut context, _lock) = self.context().await?;
        let report = if external.is_empty() {
            let state = self.take_history(&mut context).await?;
            let options = &context.options;
            let plan = self.plan_of(&state)?;
            self.refuse_applied_elsewhere(&context.control, &state, &plan).await?;
            if plan.pending.is_empty() {
                return Ok(up_to_date(&context, &plan));
            }
            let transactions = self.transactions(&context.control, &plan).await?;
            for file in &plan.pending {
                for warning in &file.warnings {
                    context.progress.warn(format!("{}: {warning}", file.name()));
                }
            }
            let outer_fence = options.hold_fence
                || options.snapshot.has_clone()
                || matches!(options.fence, FenceChoice::ReadOnly | FenceChoice::Exclusive);
            if transactions.one && !outer_fence {
                room::make(&mut context, Way::OneTransaction).await?;
                transactional::run(&context, &Work::Files(&plan.pending, &transactions)).await?
            } else {
                for why in &transactions.why {
                    context.progress.note(format!("not in one transaction: {why}"));
                }
                context.progress.note(format!(
                    "what was committed before a failure is undone by {}",
                    clone::undo_phrase(options.snapshot)
                ));
                self.refuse_fence(
                    options.fence,
                    &[FenceChoice::Lock],
                    "statements outside of one transaction",
                )?;
                self.require_undo(options)?;
                room::make(&mut context, Way::Guarded).await?;
                proof::settle(&mut context).await?;
                guarded::run(&context, Job::Files(&plan.pending, &transactions)).await?
            }
        } else {
            let options = &context.options;
            self.refuse_fence(options.fence, &[FenceChoice::Lock], "a command")?;
            self.require_undo(options)?;
            room::make(&mut context, Way::Guarded).await?;
            proof::settle(&mut context).await?;
            guarded::run(&context, Job::Command(external, self.output.is_json())).await?
        };
        self.keep_runs(&context, &report);
        Ok(report)
    }

    /// Forgets older runs, if that was asked for.
    pub(super) fn keep_runs(&self, context: &Context, report: &Report) {
        let Some(keep) = self.cli.reports().keep_runs else { return };
        for problem in tidy::keep_runs(&context.repository, context.connection.database(), report, keep) {
            self.output.warn(&problem);
        }
    }

    /// The transactions that the pending files run in. The server is asked only where a file may use an enum label before
    /// it can.
    pub(super) async fn transactions(
        &self,
        session: &Session,
        plan: &MigrationPlan<'_>,
    ) -> Result<TransactionPlan> {
        let types = migration::uses_new_labels(&plan.pending);
        let labels = enum_users::labels(session, &types).await?;
        migration::decide(&plan.pending, self.migrations.tx.unwrap_or(TransactionChoice::Auto), &labels)
    }

    fn refuse_fence(&self, chosen: FenceChoice, impossible: &[FenceChoice], what: &str) -> Result<()> {
        if self.cli.protection().hold_fence && matches!(chosen, FenceChoice::None | FenceChoice::Lock) {
            return Err(Error::usage("--hold-fence needs a fence that can outlive the run")
                .with_hint("Use --fence read-only or --fence exclusive with it."));
        }
        if impossible.contains(&chosen) {
            return Err(Error::usage(format!("this fence can't be combined with {what}"))
                .with_hint("Leave --fence away, or use --fence auto."));
        }
        Ok(())
    }

    /// A clone is made behind a fence that ends all sessions, and for the time of a run.
    pub(super) fn refuse_clone_usage(&self) -> Result<()> {
        let protection = self.cli.protection();
        clone::refuse_usage(protection.snapshot, protection.fence, protection.keep_clone)
    }

    /// Without a transaction, the snapshot is the only undo there is.
    fn require_undo(&self, options: &RunOptions) -> Result<()> {
        if options.snapshot == SnapshotChoice::None && options.on_failure != Some(OnFailure::Stop) {
            return Err(Error::usage("--snapshot none leaves no way to undo this")
                .with_hint("Add --on-failure stop if a failure shall be left as it is."));
        }
        Ok(())
    }

    /// Finds the history, takes its tool's lock, and reads it.
    pub(super) async fn take_history(&self, context: &mut Context) -> Result<State> {
        let history = self.find_history(&context.control).await?;
        let wait = context.options.lock_wait;
        history.lock(&context.control, wait.timeout.saturating_mul(wait.retries.saturating_add(1))).await?;
        context.history = history.clone();
        self.state(&context.control, history).await
    }

    pub(super) async fn snapshot_only(&self) -> Result<u8> {
        if self.cli.protection().snapshot.has_clone() {
            return Err(Error::usage(
                "--snapshot-only stores a snapshot in the repository, and makes no clone",
            )
            .with_hint("Leave --snapshot away."));
        }
        let (context, _lock) = self.context().await?;
        let snapshot = backup::create(
            &context.connection,
            &context.repository,
            &context.backup_options(None),
            &context.progress,
        )
        .await?;
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"snapshot": snapshot.manifest.id}))?;
        } else {
            self.output.data(&format!("{}\n", snapshot.manifest.id))?;
        }
        Ok(0)
    }
}

/// The report when nothing is pending: not a run, so it has no id and no folder.
fn up_to_date(context: &Context, plan: &MigrationPlan<'_>) -> Report {
    let mut report = context.report(Mode::Transaction);
    let applied = plan.applied.len();
    report.verdict = Verdict::UpToDate;
    report.exit_code = 0;
    report.applied = Some(applied);
    let what = match applied {
        1 => "the only migration is".to_owned(),
        _ => format!("all {} migrations are", format::count(applied as u64)),
    };
    report.headline = format!("{what} applied to \"{}\"; nothing was changed", report.database);
    report
}
