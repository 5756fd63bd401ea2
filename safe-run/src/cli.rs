//! The `safe-run` command line: what was asked for, and the runs that change something. What only looks is in `look.rs`.

mod args;
mod check;
mod import;
mod look;
mod mark;
mod new;
mod refuse;
mod state;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use args::{CheckArgs, FolderArgs, MigrationArgs, ProtectionArgs, ReportArgs, ValidationArgs};
use chrono::{DateTime, Utc};
use clap::{Parser, Subcommand};
use common::{
    Error, ErrorKind, Result,
    cli::{Output, Settings, SharedArgs, config::CommandFlags, output::Tone, process},
    format, interrupt,
    postgres::{ConnectionSettings, Environment, Session, exported_snapshot::LockWait},
    repository::Repository,
};

use import::ImportArgs;
use mark::MarkArgs;
use state::State;

use crate::{
    clone, command, enum_users,
    guarded::{self, Job},
    history::History,
    journal::Mode,
    proof,
    recover::{self, Decision},
    release,
    report::{Report, Verdict, document, follow_up, targets::Targets},
    room::{self, Way},
    run::{Context, FenceChoice, OnFailure, Proof, RunOptions, SnapshotChoice, local_offset},
    tidy,
    transactional::{self, Work},
    verify::{self, VerifyFile},
};
use sql::migration::{self, MigrationPlan, TransactionChoice, TransactionPlan};

/// Run migrations that undo themselves when something fails.
///
/// Without a command: applies the pending files of ./migrations (or --dir) in one transaction, checks foreign keys,
/// constraints, indexes, sequences and the rows of every table against the state before, and commits only if all is well.
/// With `-- COMMAND`: runs any migration tool under the same protection; what it broke is undone by restoring the snapshot
/// that was taken before.
#[derive(Debug, Parser)]
#[command(
    name = "safe-run",
    version,
    max_term_width = 100,
    subcommand_negates_reqs = true,
    override_usage = "safe-run [OPTIONS]\n       safe-run [OPTIONS] -- COMMAND [ARGS]...\n       safe-run <status|plan|import|check|history|report|recover|release|baseline|stamp|repair|new> [OPTIONS]",
    after_help = "Examples:\n  \
        safe-run -d postgresql://app@db/shop                 apply ./migrations\n  \
        safe-run plan                                        what would be done; changes nothing\n  \
        safe-run -- alembic upgrade head                     any tool, under protection\n  \
        safe-run import app.sqlite3 --dry-run                a SQLite file's rows, under protection\n  \
        safe-run --allow-loss orders=500 -- ./cleanup.sh     500 rows of orders may go\n  \
        safe-run --snapshot-only                             only take the snapshot\n  \
        safe-run --report run.html                           and a page that tells what happened\n\n\
        Exit codes: 0 done · 1 failed, database unchanged · 2 usage · 3 refused · 4 busy, try again · 10 migration / 11 validation \
        failed and rolled back · 12 / 13 the same, snapshot restored · 14 stopped for a person · 20 unknown: safe-run recover · \
        30 migrations pending · 31 violations · 130/143 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    shared: SharedArgs,
    #[command(flatten)]
    migrations: MigrationArgs,
    #[command(flatten)]
    protection: ProtectionArgs,
    #[command(flatten)]
    checks: ValidationArgs,
    #[command(flatten)]
    reports: ReportArgs,
    /// Print the manual page and exit, as `safe-run man` does (in roff: `… --man | man -l -`)
    #[arg(long, exclusive = true)]
    man: bool,
    /// Print a completion script for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<common::cli::completions::Shell>,
    #[command(subcommand)]
    command: Option<Command>,
    /// A command to run under protection
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "snapshot_only")]
    external: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List applied and pending migrations; exit code 30 when some are pending
    Status(MigrationArgs),
    /// Say what a run would do, statement by statement; changes nothing
    Plan(MigrationArgs),
    /// Import the rows of a SQLite file, without one changed value, under the protection of a run
    ///
    /// Into tables that are there (made by alembic, Django, Prisma, …), or into an empty database, whose schema is made from
    /// SQLite's. Everything is one transaction; every row is read back and compared before the COMMIT. docs/sqlite.md has the rules.
    Import(Box<ImportArgs>),
    /// Check the database now; exit code 31 when something is violated
    Check {
        /// List every check: level, what it finds, what it costs
        #[arg(long)]
        list: bool,
        #[command(flatten)]
        checks: CheckArgs,
    },
    /// List the runs and how they ended
    History,
    /// Show the report of a run, or make it again as a page
    Report {
        /// The run's id, or a unique start of it; the last one if left out
        run: Option<String>,
        /// Write it as a page for a browser; - is stdout
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Finish the undo of a run that was killed, or decide about one that no fence protected
    Recover {
        /// Where others may have written since the snapshot: restore it all the same. Where wal_level is logical, what they
        /// wrote is saved as a file that can be replayed; the database as it is now is kept under another name
        #[arg(long, conflicts_with = "keep")]
        undo: bool,
        /// Leave the database as it is: lift every fence, drop the replication slot that holds what others write, and settle
        /// the run, whatever its snapshot can do
        #[arg(long)]
        keep: bool,
    },
    /// Lift the fence that a run with --hold-fence left standing
    Release,
    /// Record migrations up to VERSION as applied without running them; only while the history is empty
    Baseline {
        /// The newest version that the database has already
        version: String,
        #[command(flatten)]
        mark: MarkArgs,
    },
    /// Record single migrations as applied without running them
    Stamp {
        /// Their versions
        #[arg(required = true)]
        versions: Vec<String>,
        #[command(flatten)]
        mark: MarkArgs,
    },
    /// Record edited files as they are now, and take failed migrations out of the history
    Repair {
        /// Also a file whose SQL changed: this version is right as it is now; may be repeated
        #[arg(long, value_name = "VERSION")]
        accept: Vec<String>,
        #[command(flatten)]
        mark: MarkArgs,
    },
    /// Make an empty migration with the next version, named as the folder's own tool would name it
    New {
        /// What it does, such as add_orders_status
        name: String,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Print the manual page (in roff: `… man | man -l -`)
    Man,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: common::cli::completions::Shell,
    },
}

impl Cli {
    /// The flags of protection: an import has its own behind its word.
    fn protection(&self) -> &ProtectionArgs {
        match &self.command {
            Some(Command::Import(args)) => &args.protection,
            _ => &self.protection,
        }
    }

    /// The flags of validation.
    fn checks(&self) -> &ValidationArgs {
        match &self.command {
            Some(Command::Import(args)) => &args.checks,
            _ => &self.checks,
        }
    }

    /// The flags of the report.
    fn reports(&self) -> &ReportArgs {
        match &self.command {
            Some(Command::Import(args)) => &args.reports,
            _ => &self.reports,
        }
    }
}

/// Parses the command line, runs it, and returns the exit code.
pub fn main() -> ExitCode {
    process::main(|cli: &Cli| &cli.shared, run)
}

async fn run(cli: &Cli, output: &Output) -> Result<u8> {
    if cli.man {
        output.data(&common::cli::completions::manual::<Cli>()?)?;
        return Ok(0);
    }
    if let Some(shell) = cli.completions {
        output.data(&common::cli::completions::script::<Cli>(shell))?;
        return Ok(0);
    }
    refuse::useless_flags(cli)?;
    let of_command = match &cli.command {
        Some(Command::Status(args) | Command::Plan(args)) => args.clone(),
        Some(Command::New { folder, .. }) => folder.clone().into(),
        Some(Command::Baseline { mark, .. } | Command::Stamp { mark, .. } | Command::Repair { mark, .. }) => {
            mark.folder.clone().into()
        }
        _ => MigrationArgs::default(),
    };
    let migrations = MigrationArgs {
        dir: if of_command.dir.is_empty() { cli.migrations.dir.clone() } else { of_command.dir },
        format: of_command.format.or(cli.migrations.format),
        to: of_command.to.or_else(|| cli.migrations.to.clone()),
        allow_out_of_order: [of_command.allow_out_of_order, cli.migrations.allow_out_of_order.clone()]
            .concat(),
        tx: of_command.tx.or(cli.migrations.tx),
        ignore_history: [of_command.ignore_history, cli.migrations.ignore_history.clone()].concat(),
        whole_file: [of_command.whole_file, cli.migrations.whole_file.clone()].concat(),
        history_table: of_command.history_table.or_else(|| cli.migrations.history_table.clone()),
    };
    let flags = CommandFlags {
        jobs: cli.protection().jobs,
        compress: cli.protection().compress.clone(),
        dirs: migrations.dir.clone(),
        format: migrations.format.map(|choice| choice.name().to_owned()),
        ignore_history: migrations.ignore_history.clone(),
        lock_timeout: cli.protection().lock_timeout,
        lock_retries: cli.protection().lock_retries,
        max_loss: cli.checks().max_loss.clone(),
    };
    let settings = Settings::load(&cli.shared, flags, Environment::from_process())?;
    settings.apply_trust();
    settings.warnings.iter().for_each(|warning| output.warn(warning));
    if cli.shared.show_config {
        output.data(&settings.show()?)?;
        return Ok(0);
    }
    let command = Invocation { cli, settings: &settings, migrations: &migrations, output };
    // The file's word for the format is refused before anybody is asked anything, like every other of its words.
    command.wanted()?;
    match &cli.command {
        None if cli.protection().snapshot_only => command.snapshot_only().await,
        None => command.protected_run().await,
        Some(Command::Status(_)) => command.status().await,
        Some(Command::Plan(_)) => command.plan().await,
        Some(Command::Import(args)) => command.import(args).await,
        Some(Command::Check { list: true, .. }) => command.list_checks(),
        Some(Command::Check { checks, .. }) => command.check(checks).await,
        Some(Command::History) => command.history(),
        Some(Command::Report { run, html }) => command.report(run.as_deref(), html.as_deref()),
        Some(Command::Recover { undo, keep }) => {
            command
                .recover(match (undo, keep) {
                    (true, _) => Decision::Undo,
                    (_, true) => Decision::Keep,
                    _ => Decision::Open,
                })
                .await
        }
        Some(Command::Release) => command.release().await,
        Some(Command::Baseline { version, mark }) => command.baseline(version, mark).await,
        Some(Command::Stamp { versions, mark }) => command.stamp(versions, mark).await,
        Some(Command::Repair { accept, mark }) => command.repair(accept, mark).await,
        Some(Command::New { name, .. }) => command.new_migration(name),
        Some(Command::Man) => {
            output.data(&common::cli::completions::manual::<Cli>()?)?;
            Ok(0)
        }
        Some(Command::Completions { shell }) => {
            output.data(&common::cli::completions::script::<Cli>(*shell))?;
            Ok(0)
        }
    }
}

/// One invocation: flags and settings, resolved once.
struct Invocation<'a> {
    cli: &'a Cli,
    settings: &'a Settings,
    migrations: &'a MigrationArgs,
    output: &'a Output,
}

impl Invocation<'_> {
    async fn connection(&self, purpose: &str) -> Result<ConnectionSettings> {
        let connection = self.settings.connection()?.with_application_name(purpose);
        for warning in connection.warnings() {
            self.output.warn(warning);
        }
        process::wait_for_server(&connection, self.cli.shared.wait, self.output).await?;
        Ok(connection)
    }

    fn run_options(&self, verify: Vec<VerifyFile>) -> RunOptions {
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

    /// Everything that is needed before the first effect. The application name carries the run, so that `recover` finds
    /// what a killed run left on the server.
    async fn context(&self) -> Result<(Context, common::repository::RepositoryLock)> {
        // Files are read, and refused, before anything is asked of the server.
        let verify = verify::load(&self.cli.checks().look.verify)?;
        let named = self.connection("safe-run").await?;
        let run = Context::new_run(named.database())?;
        let named = named.with_application_name(&format!("safe-run/{run}"));
        let control = match crate::take_control(&named).await {
            Ok(control) => control,
            Err(error) => return Err(release::explain_closed(error, &self.settings.repo, named.database())),
        };
        let connection = control.settings().clone();
        if !self.cli.external.is_empty() {
            refuse::command_without_options(&connection, self.cli.protection().fence)?;
        }
        let repository = Repository::open_or_create(&self.settings.repo)?;
        // Two runs of different databases may share a repository; two of one may not.
        let lock = repository.lock_named(&crate::run_lock(connection.database()))?;
        crate::refuse_unfinished(&repository, connection.database())?;
        repository.sweep()?;
        let context = Context {
            connection,
            control,
            repository,
            options: self.run_options(verify),
            progress: self.output.progress(),
            run,
            proof: Proof::default(),
            history: History::own(),
            invocation: invocation(),
        };
        Ok((context, lock))
    }

    async fn protected_run(&self) -> Result<u8> {
        self.reported(async { self.run_and_report().await.map(Some) }).await
    }

    /// Runs, prints the outcome, and writes the reports that were asked for, also about what was refused. A run without a
    /// report of its own has said itself that there was nothing to do.
    async fn reported(&self, run: impl Future<Output = Result<Option<Report>>>) -> Result<u8> {
        let wanted = self.cli.reports();
        let targets = Targets::check(wanted.report.as_deref(), wanted.report_json.as_deref())?;
        let began_at = Utc::now();
        let outcome = run.await.map_err(interrupt::explain).map_err(unchanged);
        let report = match &outcome {
            Ok(Some(report)) => {
                self.print(report)?;
                report.clone()
            }
            Ok(None) => {
                let mut report = self.blank_report(began_at);
                report.verdict = Verdict::UpToDate;
                report.exit_code = 0;
                report.headline = "there was nothing to do; nothing was changed".to_owned();
                report
            }
            Err(error) => {
                let report = self.refusal(error, began_at);
                if self.output.is_json() {
                    self.print(&report)?;
                }
                report
            }
        };
        for error in targets.write(&report) {
            self.output.warn(&format!("the report could not be written: {error}"));
        }
        outcome.map(|_| report.exit_code)
    }

    /// A report on what never became a run.
    fn blank_report(&self, began_at: DateTime<Utc>) -> Report {
        let mode = if self.cli.external.is_empty() { Mode::Transaction } else { Mode::Restore };
        let connection = self.settings.connection().ok();
        let database = connection.as_ref().map_or(String::new(), |found| found.database().to_owned());
        let mut report = Report::new(database, mode, began_at);
        if let Some(connection) = connection {
            report.host = connection.host_label();
            report.user = connection.user().to_owned();
            report.database_url = connection.redacted_url();
        }
        report.utc_offset_seconds = local_offset(began_at);
        report.seconds = (Utc::now() - began_at).as_seconds_f64();
        report.repository = self.settings.repo.display().to_string();
        report.invocation = invocation();
        report
    }

    /// The report of what was refused before it became a run.
    fn refusal(&self, error: &Error, began_at: DateTime<Utc>) -> Report {
        let mut report = self.blank_report(began_at);
        report.error = Some(error.into());
        report.headline = error.message().to_owned();
        report.exit_code = error.kind().exit_code();
        let state = if error.kind() == ErrorKind::Unknown {
            report.verdict = Verdict::Unknown;
            "nobody knows what state the database is in"
        } else {
            "nothing was changed"
        };
        report.state = error.database_state().unwrap_or(state).to_owned();
        report
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
    fn keep_runs(&self, context: &Context, report: &Report) {
        let Some(keep) = self.cli.reports().keep_runs else { return };
        for problem in tidy::keep_runs(&context.repository, context.connection.database(), report, keep) {
            self.output.warn(&problem);
        }
    }

    /// The transactions that the pending files run in. The server is asked only where a file may use an enum label before
    /// it can.
    async fn transactions(&self, session: &Session, plan: &MigrationPlan<'_>) -> Result<TransactionPlan> {
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
    fn refuse_clone_usage(&self) -> Result<()> {
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
    async fn take_history(&self, context: &mut Context) -> Result<State> {
        let history = self.find_history(&context.control).await?;
        let wait = context.options.lock_wait;
        history.lock(&context.control, wait.timeout.saturating_mul(wait.retries.saturating_add(1))).await?;
        context.history = history.clone();
        self.state(&context.control, history).await
    }

    fn print(&self, report: &Report) -> Result<()> {
        self.print_with(report, self.output.is_verbose())
    }

    fn print_with(&self, report: &Report, verbose: bool) -> Result<()> {
        if self.output.is_json() {
            return self.output.exactly(&document::to_json(report)?);
        }
        let text = report.text(verbose, |verdict, word| self.output.paint(verdict.tone(), word));
        self.output.data(&text)
    }

    async fn snapshot_only(&self) -> Result<u8> {
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

    async fn recover(&self, decision: Decision) -> Result<u8> {
        let connection = self.connection("safe-run recover").await?;
        let live = connection.database().to_owned();
        let repository = match Repository::open(&self.settings.repo) {
            Ok(repository) => repository,
            Err(error) => return Err(release::without_repository(&connection, error).await),
        };
        let _lock = repository.lock_named(&crate::run_lock(&live))?;
        let unfinished = crate::journal::unfinished(&repository, &live)?;
        let with_slot = crate::journal::with_slot(&repository, &live)?;
        let held = crate::journal::held(&repository, &live)?;
        let connection = release::entrance(&connection, &[unfinished.clone(), held.clone()].concat()).await?;
        // The killed run's own session is gone with it; whoever holds the lock now is another run.
        let control = crate::take_control(&connection).await?;
        let connection = control.settings().clone();
        let jobs = self.settings.jobs.unwrap_or_else(backup::default_jobs);
        let options = recover::Options { decision, jobs };
        let runs = [unfinished, with_slot.clone()].concat();
        let done =
            recover::recover(&connection, &runs, &repository, options, &self.output.progress()).await?;
        let undecided: Vec<&str> = with_slot
            .iter()
            .filter(|run| run.is_undecided() && done.iter().all(|done| done.run != run.run))
            .map(|run| run.run.as_str())
            .collect();
        repository.sweep()?;
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"recovered": done, "undecided": undecided}))?;
            return Ok(0);
        }
        for run in &undecided {
            self.output.data(&format!(
                "{}  run {run} waits for your decision, and its replication slot fills the server's disk\n         \
                 safe-run recover --undo: back to its snapshot; what others wrote since is saved for a replay\n         \
                 safe-run recover --keep: the database stays as it is\n",
                self.output.verdict(common::Verdict::Stopped),
            ))?;
        }
        if done.is_empty() && undecided.is_empty() {
            self.output.data("Nothing to recover: every run on this database has finished.\n")?;
            if held.is_empty()
                && let Some(fence) = release::fence_of_nobody(&connection).await
            {
                self.output.warn(&fence);
            }
            for run in &held {
                self.output
                    .warn(&format!("the fence of run {} still stands: `safe-run release` lifts it", run.run));
            }
        }
        for run in &done {
            let mut text = format!("{}  run {}\n", self.output.paint(Tone::Good, &run.verdict), run.run);
            for line in &run.what {
                text.push_str(&format!("{}{line}\n", " ".repeat(run.verdict.len() + 2)));
            }
            for line in &run.next {
                text.push_str(&format!("{}next: {line}\n", " ".repeat(run.verdict.len() + 2)));
            }
            self.output.data(&text)?;
        }
        Ok(0)
    }

    async fn release(&self) -> Result<u8> {
        let connection = self.connection("safe-run release").await?;
        let repository = Repository::open(&self.settings.repo)?;
        let _lock = repository.lock_named(&crate::run_lock(connection.database()))?;
        crate::refuse_unfinished(&repository, connection.database())?;
        let held = crate::journal::held(&repository, connection.database())?;
        let entrance = release::entrance(&connection, &held).await?;
        let control = crate::take_control(&entrance).await?;
        let released = release::release(&connection, &control, &held).await?;
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"released": released}))?;
            return Ok(0);
        }
        if released.is_empty() {
            self.output.data("Nothing to release: no run on this database holds a fence.\n")?;
        }
        for run in &released {
            self.output.data(&format!(
                "{}  the fence of run {run} is lifted; everybody can write to \"{}\" again\n",
                self.output.verdict(common::Verdict::Released),
                connection.database()
            ))?;
        }
        Ok(0)
    }
}

/// This command line, for repeating it.
fn invocation() -> String {
    let words: Vec<OsString> = std::env::args_os().collect();
    follow_up::invocation(words.iter().map(OsString::as_os_str))
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

/// What ends before it became a run has changed nothing.
fn unchanged(error: Error) -> Error {
    match (error.database_state(), error.kind()) {
        (None, kind) if kind != ErrorKind::Unknown => error.with_database_state("Nothing was changed."),
        _ => error,
    }
}
