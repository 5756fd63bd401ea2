//! Flags that mean nothing where they stand are refused: one that is silently passed over protects less than its author
//! believes. Pure.

use common::{Error, Result, postgres::ConnectionSettings};

use super::{Cli, Command};
use crate::run::{FenceChoice, SnapshotChoice, SnapshotWhen};
use checks::{FailOn, Level};

/// Refuses a command behind the read-only fence where it could not be told how to get through.
pub(super) fn command_without_options(connection: &ConnectionSettings, fence: FenceChoice) -> Result<()> {
    if connection.takes_options() || matches!(fence, FenceChoice::None | FenceChoice::Exclusive) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{} is a connection pooler that takes no startup options, and a command gets through the read-only fence by one",
        connection.host_label()
    ))
    .with_hint(
        "Use the direct URL of the database, or run it with --fence exclusive, which needs none.",
    )
    .with_database_state(format!("The database \"{}\" was not changed, and the command was not run.", connection.database())))
}

/// What a flag is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Where migrations are.
    Folder,
    /// Which of them, in which transactions.
    Migrations,
    Protection,
    /// How long to wait for locks.
    Locks,
    Validation,
    Report,
    KeepRuns,
}

/// Refuses the first flag before the command's word that the command has no use for.
pub(super) fn useless_flags(cli: &Cli) -> Result<()> {
    use Group::{Folder, KeepRuns, Locks, Migrations, Protection, Report, Validation};
    let (name, allowed): (&str, &[Group]) = match &cli.command {
        None if cli.external.is_empty() => return Ok(()),
        None => {
            let found = given(cli).into_iter().find(|(group, _)| matches!(group, Folder | Migrations));
            return found.map_or(Ok(()), |(_, flag)| {
                Err(Error::usage(format!("{flag} is about migration files, and what runs is a command"))
                    .with_hint("Leave the flag away, or leave `-- COMMAND` away to run the files."))
            });
        }
        Some(Command::Man | Command::Completions { .. }) => return Ok(()),
        Some(Command::Status(_)) => ("status", &[Folder, Migrations]),
        // What the same command line would do without the word.
        Some(Command::Plan(_)) => ("plan", &[Folder, Migrations, Protection, Locks, Validation, KeepRuns]),
        Some(Command::Import(_)) => ("import", &[]),
        Some(Command::Check { .. }) => ("check", &[]),
        Some(Command::History) => ("history", &[]),
        Some(Command::Report { .. }) => ("report", &[]),
        Some(Command::Recover { .. }) => ("recover", &[]),
        Some(Command::Release) => ("release", &[]),
        Some(Command::Baseline { .. }) => ("baseline", &[Folder, Locks, Report]),
        Some(Command::Stamp { .. }) => ("stamp", &[Folder, Locks, Report]),
        Some(Command::Repair { .. }) => ("repair", &[Folder, Locks, Report]),
        Some(Command::New { .. }) => ("new", &[Folder]),
    };
    if let Some((group, flag)) = given(cli).into_iter().find(|(group, _)| !allowed.contains(group)) {
        let hint = match (name, group) {
            ("import", Protection | Locks | Validation | Report | KeepRuns) => {
                format!("Give it after the word: safe-run import {flag} …")
            }
            ("check", Validation) if !RUN_ONLY.contains(&flag) => {
                format!("Give it after the word: safe-run check {flag} …")
            }
            ("report", Report) => {
                "`safe-run report RUN --html FILE` writes the page, `--json` the document.".to_owned()
            }
            ("plan", Report) => {
                "A plan is no run and has no report; `--json` prints it as a document.".to_owned()
            }
            _ => "It is for runs: leave it away.".to_owned(),
        };
        return Err(Error::usage(format!("{flag} means nothing to `safe-run {name}`")).with_hint(hint));
    }
    let dry_run = match &cli.command {
        Some(Command::Baseline { mark, .. } | Command::Stamp { mark, .. } | Command::Repair { mark, .. }) => {
            mark.dry_run
        }
        _ => false,
    };
    match given(cli).into_iter().find(|(group, _)| *group == Report) {
        Some((_, flag)) if dry_run => Err(Error::usage(format!("a dry run has no report for {flag}"))
            .with_hint("Leave one of the two away; `--json` prints what would be recorded.")),
        _ => Ok(()),
    }
}

/// Flags of validation that compare two states.
const RUN_ONLY: [&str; 5] =
    ["--fail-on", "--allow-loss", "--allow-lost-labels", "--allow-lost-grants", "--max-loss"];

/// The flags before the command's word that say something else than their default. `--jobs` and `--compress` are settings
/// that fit everywhere.
fn given(cli: &Cli) -> Vec<(Group, &'static str)> {
    let (migrations, protection, reports) = (&cli.migrations, &cli.protection, &cli.reports);
    let (validation, look) = (&cli.checks, &cli.checks.look);
    [
        (Group::Folder, "--dir", !migrations.dir.is_empty()),
        (Group::Folder, "--format", migrations.format.is_some()),
        (Group::Folder, "--history-table", migrations.history_table.is_some()),
        (Group::Migrations, "--ignore-history", !migrations.ignore_history.is_empty()),
        (Group::Migrations, "--whole-file", !migrations.whole_file.is_empty()),
        (Group::Migrations, "--to", migrations.to.is_some()),
        (Group::Migrations, "--allow-out-of-order", !migrations.allow_out_of_order.is_empty()),
        (Group::Migrations, "--tx", migrations.tx.is_some()),
        (Group::Protection, "--fence", protection.fence != FenceChoice::Auto),
        (Group::Protection, "--hold-fence", protection.hold_fence),
        (Group::Protection, "--snapshot", protection.snapshot != SnapshotChoice::Auto),
        (Group::Protection, "--end-workers", protection.end_workers),
        (Group::Protection, "--keep-clone", protection.keep_clone),
        (Group::Protection, "--snapshot-when", protection.snapshot_when != SnapshotWhen::Auto),
        (Group::Protection, "--snapshot-only", protection.snapshot_only),
        (Group::Protection, "--on-failure", protection.on_failure.is_some()),
        (Group::Protection, "--skip-space-check", protection.skip_space_check),
        (Group::Locks, "--lock-timeout", protection.lock_timeout.is_some()),
        (Group::Locks, "--lock-retries", protection.lock_retries.is_some()),
        (Group::Validation, "--level", look.level != Level::Standard),
        (Group::Validation, "--only", !look.only.is_empty()),
        (Group::Validation, "--skip", !look.skip.is_empty()),
        (Group::Validation, "--strict", look.strict),
        (Group::Validation, "--verify", !look.verify.is_empty()),
        (Group::Validation, "--fail-on", validation.fail_on != FailOn::New),
        (Group::Validation, "--allow-loss", !validation.allow_loss.is_empty()),
        (Group::Validation, "--allow-lost-labels", !validation.allow_lost_labels.is_empty()),
        (Group::Validation, "--allow-lost-grants", !validation.allow_lost_grants.is_empty()),
        (Group::Validation, "--max-loss", validation.max_loss.is_some()),
        (Group::Report, "--report", reports.report.is_some()),
        (Group::Report, "--report-json", reports.report_json.is_some()),
        (Group::KeepRuns, "--keep-runs", reports.keep_runs.is_some()),
    ]
    .into_iter()
    .filter_map(|(group, flag, is_given)| is_given.then_some((group, flag)))
    .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn refused(words: &str) -> Option<String> {
        let cli = Cli::try_parse_from(std::iter::once("safe-run").chain(words.split(' '))).expect(words);
        useless_flags(&cli).err().map(|error| error.message().to_owned())
    }

    #[test]
    fn what_means_nothing_is_refused_and_what_means_something_is_not() {
        for words in [
            "--dir m --tx all --fence exclusive",
            "--fence exclusive -- true",
            "--dir m --to 3 status",
            "--snapshot clone --fence read-only --allow-loss t --level deep plan",
            "check --level deep --strict",
            "--jobs 3 check",
            "--jobs 3 recover",
            "--report r.html --lock-timeout 1s --dir m baseline 3",
            "--dir m new a",
            "import a.db --allow-loss t --fence none --report r.html --keep-runs 3",
        ] {
            assert_eq!(refused(words), None, "{words}");
        }
        for (words, flag) in [
            ("--tx all -- true", "--tx is about migration files, and what runs is a command"),
            ("--dir m -- true", "--dir is about migration files, and what runs is a command"),
            ("--fence exclusive status", "--fence means nothing to `safe-run status`"),
            ("--report r.html plan", "--report means nothing to `safe-run plan`"),
            ("--level deep check", "--level means nothing to `safe-run check`"),
            ("--allow-loss t check", "--allow-loss means nothing to `safe-run check`"),
            ("--hold-fence recover", "--hold-fence means nothing to `safe-run recover`"),
            ("--report-json r report", "--report-json means nothing to `safe-run report`"),
            ("--keep-runs 3 baseline 1", "--keep-runs means nothing to `safe-run baseline`"),
            ("--report r.html stamp 1 --dry-run", "a dry run has no report for --report"),
            ("--allow-loss t import a.db", "--allow-loss means nothing to `safe-run import`"),
            ("--to 3 new a", "--to means nothing to `safe-run new`"),
        ] {
            assert_eq!(refused(words).as_deref(), Some(flag), "{words}");
        }
        for flag in RUN_ONLY {
            let words = ["safe-run", "check", flag, "x"];
            assert!(Cli::try_parse_from(words).is_err_and(|error| error.use_stderr()), "{flag}");
        }
    }
}
