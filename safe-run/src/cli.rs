//! The `safe-run` command line: what was asked for. `protected.rs` has the runs that change something; `status.rs`,
//! `plan.rs`, `check.rs` and `look.rs` have what only looks.

mod args;
mod check;
mod import;
mod look;
mod mark;
mod new;
mod plan;
mod protected;
mod refuse;
mod reported;
mod settle;
mod state;
mod status;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use args::{CheckArgs, FolderArgs, MigrationArgs, PlanArgs, ProtectionArgs, ReportArgs, ValidationArgs};
use clap::{Parser, Subcommand};
use common::{
    Result,
    cli::{Output, Settings, SharedArgs, config::CommandFlags, process},
    postgres::{ConnectionSettings, Environment},
    repository::Repository,
};

use import::ImportArgs;
use mark::MarkArgs;

use crate::{
    history::History,
    recover::Decision,
    release,
    report::follow_up,
    run::{Context, Proof},
    verify,
};

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
    long_version = common::cli::version::long(),
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
        30 migrations pending · 31 violations · 32 warnings of plan · 130/143 interrupted"
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
    /// Say what a run would do, statement by statement, who would wait for it, and what is dangerous in it; changes nothing
    ///
    /// Rules are squawk's, by its names: https://squawkhq.com/docs/RULE explains each, and a line `-- squawk-ignore RULE` before a statement
    /// silences it there. Rows and sizes are those that the last ANALYZE and the statistics know.
    Plan(PlanArgs),
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
    /// The flags of migrations, those behind the command's word first.
    fn migrations(&self) -> MigrationArgs {
        let of_command = match &self.command {
            Some(Command::Status(args) | Command::Plan(PlanArgs { migrations: args, .. })) => args.clone(),
            Some(Command::New { folder, .. }) => folder.clone().into(),
            Some(
                Command::Baseline { mark, .. } | Command::Stamp { mark, .. } | Command::Repair { mark, .. },
            ) => mark.folder.clone().into(),
            _ => MigrationArgs::default(),
        };
        of_command.over(&self.migrations)
    }

    /// The flags that a configuration file may stand in for.
    fn flags(&self, migrations: &MigrationArgs) -> CommandFlags {
        CommandFlags {
            jobs: self.protection().jobs,
            compress: self.protection().compress.clone(),
            dirs: migrations.dir.clone(),
            format: migrations.format.map(|choice| choice.name().to_owned()),
            ignore_history: migrations.ignore_history.clone(),
            lock_timeout: self.protection().lock_timeout,
            lock_retries: self.protection().lock_retries,
            max_loss: self.checks().max_loss.clone(),
        }
    }

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
    let migrations = cli.migrations();
    let flags = cli.flags(&migrations);
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
    command.carry_out().await
}

/// One invocation: flags and settings, resolved once.
struct Invocation<'a> {
    cli: &'a Cli,
    settings: &'a Settings,
    migrations: &'a MigrationArgs,
    output: &'a Output,
}

impl Invocation<'_> {
    async fn carry_out(&self) -> Result<u8> {
        match &self.cli.command {
            None if self.cli.protection().snapshot_only => self.snapshot_only().await,
            None => self.protected_run().await,
            Some(Command::Status(_)) => self.status().await,
            Some(Command::Plan(args)) => self.plan(args).await,
            Some(Command::Import(args)) => self.import(args).await,
            Some(Command::Check { list: true, .. }) => self.list_checks(),
            Some(Command::Check { checks, .. }) => self.check(checks).await,
            Some(Command::History) => self.history(),
            Some(Command::Report { run, html }) => self.report(run.as_deref(), html.as_deref()),
            Some(Command::Recover { undo, keep }) => {
                self.recover(match (undo, keep) {
                    (true, _) => Decision::Undo,
                    (_, true) => Decision::Keep,
                    _ => Decision::Open,
                })
                .await
            }
            Some(Command::Release) => self.release().await,
            Some(Command::Baseline { version, mark }) => self.baseline(version, mark).await,
            Some(Command::Stamp { versions, mark }) => self.stamp(versions, mark).await,
            Some(Command::Repair { accept, mark }) => self.repair(accept, mark).await,
            Some(Command::New { name, .. }) => self.new_migration(name),
            Some(Command::Man) => {
                self.output.data(&common::cli::completions::manual::<Cli>()?)?;
                Ok(0)
            }
            Some(Command::Completions { shell }) => {
                self.output.data(&common::cli::completions::script::<Cli>(*shell))?;
                Ok(0)
            }
        }
    }

    async fn connection(&self, purpose: &str) -> Result<ConnectionSettings> {
        let connection = self.settings.connection()?.with_application_name(purpose);
        for warning in connection.warnings() {
            self.output.warn(warning);
        }
        process::wait_for_server(&connection, self.cli.shared.wait, self.output).await?;
        Ok(connection)
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
}

/// This command line, for repeating it.
fn invocation() -> String {
    let words: Vec<OsString> = std::env::args_os().collect();
    follow_up::invocation(words.iter().map(OsString::as_os_str))
}
