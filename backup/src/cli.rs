//! The `backup` command line.

mod copies;
mod create;
mod list;
mod show;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use common::{
    Error, Result,
    cli::{Output, Settings, SharedArgs, config::CommandFlags, process},
    postgres::Environment,
    repository::Repository,
};

use crate::{check, diff, drill, manage, prune, schedule, transfer};
use create::{CreateArgs, create};
use list::{ListArgs, list};
use show::{ShowArgs, show};
use verify::{VerifyArgs, verify_all};

/// Make, list and verify snapshots of PostgreSQL databases.
///
/// A snapshot is one consistent, compressed state of a whole database, in a folder that holds everything needed to
/// restore it: with `restore`, or with pg_restore and psql alone.
#[derive(Debug, Parser)]
#[command(
    name = "backup",
    version,
    long_version = common::cli::version::long(),
    max_term_width = 100,
    after_help = "Examples:\n  \
        backup create -d postgresql://app@db.example.com/shop     take a snapshot\n  \
        backup create --table 'app.*' --exclude-table-data app.log   a part: PARTIAL in the list\n  \
        backup list                                               what there is\n  \
        backup show latest                                        one snapshot in detail\n  \
        backup verify --all                                       is every byte still right?\n  \
        backup diff latest postgresql://app@db.example.com/shop   what changed since, by key and column\n  \
        backup drill                                              restore the latest, compare it, drop it again\n  \
        backup prune --keep-daily 7 --keep-weekly 4 --dry-run     what would go, and why the rest stays\n  \
        backup schedule --cron \"0 3 * * *\" --keep-daily 7       every night, verified, pruned, watched\n  \
        backup export latest -o - | ssh host backup import -      carry a snapshot elsewhere\n  \
        backup copy --all --to s3://bucket/shop                   what survives this machine\n  \
        backup check -d postgresql://app@db.example.com/shop      can this role back up this database?\n\n\
        Exit codes: 0 done · 1 failed, database unchanged · 2 usage · 3 refused · 4 busy, try again · 5 no such snapshot · \
        6 damaged · 130/143 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    shared: SharedArgs,
    /// Print the manual page and exit, as `backup man` does (in roff: `… --man | man -l -`)
    #[arg(long, exclusive = true)]
    man: bool,
    /// Print a completion script for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<common::cli::completions::Shell>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take a snapshot of the whole database
    Create(CreateArgs),
    /// List the snapshots; --verbose for every column
    List(ListArgs),
    /// Show one snapshot: tables, rows, sizes, and what it can't bring back
    Show(ShowArgs),
    /// Compare two of snapshots, live databases and SQLite files: schema, rows by key and column, sequences, settings
    ///
    /// Each side is read in one state and never changed; two snapshots need no server. The exit code is 0 where nothing differs
    /// and 1 where something does.
    Diff(Box<diff::DiffArgs>),
    /// Check every file of snapshots against their manifests; needs no server
    Verify(VerifyArgs),
    /// Restore a snapshot into a scratch database, compare every row, drop it, and record how long it took
    Drill(drill::DrillArgs),
    /// Keep snapshots: neither delete nor prune removes them until they are unpinned
    Pin(manage::PinArgs),
    /// Take pins away
    Unpin(manage::UnpinArgs),
    /// Delete snapshots for good; asks first, and refuses pinned ones
    Delete(manage::DeleteArgs),
    /// Delete what the keep rules do not keep, with a reason for every snapshot
    ///
    /// Pinned, damaged and future-dated snapshots, those from before migrations, and those that an unfinished run needs are
    /// always kept.
    Prune(prune::PruneArgs),
    /// Back up on a schedule: verify, prune, raise the alarm, drill, and show how it goes
    ///
    /// One process that is started and forgotten. Jobs come from the flags, or from `[[job]]` in safe-run.toml. A snapshot that
    /// was verified prunes by the keep rules; one that is strangely unlike its predecessor holds all pruning until somebody
    /// has looked.
    Schedule(Box<schedule::cli::ScheduleArgs>),
    /// Say that an alarm is none: who, when and why is kept; without an id, list the alarms
    Acknowledge(manage::AcknowledgeArgs),
    /// Take snapshots back out of the trash; without an id, list what is there
    Undelete(manage::UndeleteArgs),
    /// Write a snapshot as one tar file or stream, or as a SQLite database; needs no server
    Export(transfer::ExportArgs),
    /// Take in a snapshot that `backup export` wrote; every byte is compared with its manifest
    Import(transfer::ImportArgs),
    /// Copy snapshots to object storage or another folder; what is there already is not sent again
    ///
    /// A copy is published when every byte of it is there: what ends before, by whatever cause, is never listed, and the next run
    /// goes on where it stopped. list, show, verify, delete and restore take the same URL as --repo.
    Copy(copies::CopyArgs),
    /// Delete what no snapshot of a copy repository names any more: noted by one run, deleted by one that comes later
    Collect(copies::CollectArgs),
    /// Check whether this role, on this machine, can back up the database, restore it, replace it, and undo commands
    Check {
        /// Exit with 3 unless this is possible too; may be repeated [default: backup]
        #[arg(long, value_name = "ABILITY", value_enum)]
        can: Vec<check::Ability>,
    },
    /// Print the manual page (in roff: `… man | man -l -`)
    Man,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: common::cli::completions::Shell,
    },
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
    let flags = match &cli.command {
        Some(Command::Create(args)) => args.flags(),
        Some(Command::Diff(args)) => CommandFlags {
            lock_timeout: args.lock_timeout,
            lock_retries: args.lock_retries,
            ..CommandFlags::default()
        },
        _ => CommandFlags::default(),
    };
    let settings = Settings::load(&cli.shared, flags, Environment::from_process())?;
    settings.apply_trust();
    settings.warnings.iter().for_each(|warning| output.warn(warning));
    if cli.shared.show_config {
        output.data(&settings.show()?)?;
        return Ok(0);
    }
    if copies::is_for(&settings)
        && let Some(command) = &cli.command
        && !matches!(command, Command::Man | Command::Completions { .. })
    {
        return store::interruptible(Box::pin(copies::run(command, &settings, output))).await;
    }
    match &cli.command {
        None => Err(Error::usage("no command given")
            .with_hint("Run `backup --help`; the first command is `backup create`.")),
        Some(Command::Create(args)) => create(args, &cli.shared, &settings, output).await,
        Some(Command::List(args)) => list(args, &settings, output),
        Some(Command::Show(args)) => show(args, &settings, output),
        Some(Command::Verify(args)) => verify_all(args, &settings, output),
        Some(Command::Drill(args)) => drill::run(args, &cli.shared, &settings, output).await,
        Some(Command::Pin(args)) => manage::pin(args, &settings, output),
        Some(Command::Unpin(args)) => manage::unpin(args, &settings, output),
        Some(Command::Delete(args)) => manage::delete(args, &settings, output),
        Some(Command::Diff(args)) => Box::pin(diff::run(args, &settings, output)).await,
        Some(Command::Prune(args)) => prune::run(args, &settings, output),
        Some(Command::Schedule(args)) => schedule::cli::run(args, &cli.shared, output).await,
        Some(Command::Acknowledge(args)) => manage::acknowledge(args, &settings, output),
        Some(Command::Undelete(args)) => manage::undelete(args, &settings, output),
        // Who reads a snapshot holds the lock from before it looks for it: nobody deletes it in between.
        Some(Command::Export(args)) => {
            let _lock = Repository::open(&settings.repo)?.lock_reading()?;
            let snapshot = manage::find(&settings, &args.snapshot)?;
            transfer::export(args.clone(), snapshot, output).await
        }
        Some(Command::Import(args)) => transfer::import(args.clone(), &settings, output).await,
        Some(Command::Copy(args)) => copies::copy(args, &settings, output).await,
        Some(Command::Collect(_)) => Err(copies::no_url()),
        Some(Command::Check { can }) => check::run(can, &cli.shared, &settings, output).await,
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
