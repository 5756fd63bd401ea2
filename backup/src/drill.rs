//! `backup drill`: proves a snapshot by restoring it into a scratch database, and measures how long that takes.
//!
//! `backup` and `restore` never import each other, and a drill has to rehearse what a person will run in an emergency: so
//! it runs the `restore` program that lies beside this one, with the same repository and a new name for the database. The
//! comparison of rows and content is restore's own. The scratch database is dropped on every path.

use std::{path::PathBuf, process::Stdio, time::Instant};

use common::{
    Account, Error, ErrorKind, Result, Verdict,
    cli::{Output, Settings, SharedArgs, config::CommandFlags, process},
    format,
    ident::printable,
    interrupt::{self, ChildGuard},
    postgres::{
        ConnectionSettings, Environment, database, login, scratch::ScratchKind, settings::VARIABLES_TO_CLEAR,
    },
    repository::{Repository, StoredSnapshot, verifications::How},
};
use serde::Serialize;

use crate::manage;

/// Arguments of `backup drill`.
#[derive(Debug, clap::Args)]
pub struct DrillArgs {
    /// An id, a unique start of one, latest, or latest:tag=value
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// Restore on this server [default: the server of --database-url]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Connections that load [default: one per processor, at most 8]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// Objects belong to the connected role; leave grants out
    #[arg(long)]
    no_owner: bool,
}

/// What a drill found.
#[derive(Debug, Serialize)]
struct Drill<'a> {
    verdict: Verdict,
    id: &'a str,
    ok: bool,
    scratch_database: &'a str,
    tables: u64,
    rows: u64,
    restore_seconds: f64,
    /// What the verdict does not vouch for.
    account: &'a Account,
}

/// Runs `backup drill`. It holds the repository's lock for all of it, and from before it looks for the snapshot: the child's own comes later.
pub async fn run(args: &DrillArgs, shared: &SharedArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo).map_err(unchanged)?;
    let _lock = repository.lock_reading().map_err(unchanged)?;
    let snapshot = manage::find(settings, &args.snapshot).map_err(unchanged)?;
    let manifest = &snapshot.manifest;
    let connection = connection(args, shared, settings).map_err(unchanged)?;
    process::wait_for_server(&connection.with_database("postgres"), shared.wait, output)
        .await
        .map_err(unchanged)?;
    let rehearsal = Rehearsal {
        jobs: args.jobs.or(settings.jobs),
        no_owner: args.no_owner,
        quiet: shared.quiet,
        verbose: shared.verbose,
    };
    let Rehearsed { scratch, seconds, account } =
        rehearse(&connection, &repository, &snapshot, &rehearsal, output).await?;
    let drill = Drill {
        verdict: Verdict::DrillOk,
        account: &account,
        id: manifest.id.as_str(),
        ok: true,
        scratch_database: &scratch,
        tables: manifest.tables.len() as u64,
        rows: manifest.rows(),
        restore_seconds: seconds,
    };
    if output.is_json() {
        output.document(&drill)?;
        return Ok(0);
    }
    output.say(&format!(
        "{} {}: {} and {} restored, compared and equal{}; a restore of this snapshot takes {}",
        output.verdict(drill.verdict),
        drill.id,
        format::plural(drill.tables, "table", "tables"),
        format::plural(drill.rows, "row", "rows"),
        account.but(),
        format::duration(std::time::Duration::from_secs_f64(seconds)),
    ));
    Ok(0)
}

/// What a rehearsal found.
#[derive(Debug)]
pub struct Rehearsed {
    /// The database that was made and dropped again.
    pub scratch: String,
    /// How long the restore took.
    pub seconds: f64,
    /// What the verdict does not vouch for.
    pub account: Account,
}

/// How to restore in a drill.
#[derive(Debug, Clone, Copy)]
pub struct Rehearsal {
    /// Connections that load.
    pub jobs: Option<usize>,
    /// Leave owners and grants out.
    pub no_owner: bool,
    /// Let `restore` say less.
    pub quiet: bool,
    /// Let it say more.
    pub verbose: bool,
}

/// Restores a snapshot into a scratch database, drops it again, and records what was found. The caller holds the repository's
/// lock for all of it.
pub async fn rehearse(
    connection: &ConnectionSettings,
    repository: &Repository,
    snapshot: &StoredSnapshot,
    rehearsal: &Rehearsal,
    output: &Output,
) -> Result<Rehearsed> {
    let manifest = &snapshot.manifest;
    let connection = &connection.with_application_name("backup drill");
    let restore = restore_program().map_err(unchanged)?;
    drop_leftovers(connection, output).await.map_err(unchanged)?;
    let scratch = SCRATCH.name(&manifest.database.name);
    refuse_existing(connection, &scratch).await.map_err(unchanged)?;
    let _running = SCRATCH.hold(connection, &scratch).await.map_err(unchanged)?;
    output.say(&format!("restoring {} into the scratch database \"{}\"", manifest.id, printable(&scratch)));

    let mut command = child(&restore, connection);
    command
        .arg(manifest.id.as_str())
        .arg("--into")
        .arg(&scratch)
        .arg("--marker")
        .arg(SCRATCH.marker)
        .arg("--repo")
        .arg(repository.root());
    command.args(rehearsal.jobs.map(|jobs| format!("--jobs={jobs}")));
    command.args(rehearsal.no_owner.then_some("--no-owner"));
    command.arg(if output.is_json() { "--json" } else { "--document" });
    command.args((rehearsal.quiet && !output.is_json()).then_some("--quiet"));
    command.args(rehearsal.verbose.then_some("--verbose"));
    let started = Instant::now();
    let ended = wait(command).await;
    let seconds = started.elapsed().as_secs_f64();
    common::fault::point("drill.restored");
    let dropped = drop_scratch(connection, &scratch).await;
    let mut is_dropped = true;
    let (code, told) = match (ended, dropped) {
        (Ok(ended), Ok(())) => ended,
        (Err(error), Ok(())) => return Err(error.with_database_state(DROPPED)),
        (Ok((0, _)), Err(error)) => return Err(still_there(error, &scratch)),
        // Both: the first failure is the reason, the second must not be lost.
        (Ok(ended), Err(error)) => {
            output.warn(&error.to_string());
            is_dropped = false;
            ended
        }
        (Err(first), Err(second)) => {
            output.warn(&second.to_string());
            return Err(still_there(first, &scratch));
        }
    };
    // Other codes say something about the server or its roles, not about the snapshot.
    let says_something = [0, ErrorKind::Failed.exit_code(), ErrorKind::Damaged.exit_code()].contains(&code);
    if says_something && interrupt::received().is_none() {
        manage::record(repository, &manifest.id, How::Restored, seconds, code == 0, output);
    }
    if code != 0 {
        let error = Error::new(kind(code), format!("the drill of {} failed: see above", manifest.id));
        return Err(match is_dropped {
            true => error.with_database_state(DROPPED),
            false => still_there(error, &scratch),
        });
    }
    let account = account(&told).map_err(|error| error.with_database_state(DROPPED))?;
    Ok(Rehearsed { scratch, seconds, account })
}

const DROPPED: &str = "The scratch database was dropped; no other database was changed.";

/// Before the scratch database.
fn unchanged(error: Error) -> Error {
    match error.database_state() {
        Some(_) => error,
        None => error.with_database_state("No database was changed."),
    }
}

fn still_there(error: Error, scratch: &str) -> Error {
    error.with_database_state(format!(
        "The scratch database \"{}\" is still there, and the next `backup drill` tries to drop it; no other database was changed.",
        printable(scratch)
    ))
}

/// What `restore` said in its JSON that its verdict does not vouch for.
fn account(told: &[u8]) -> Result<Account> {
    #[derive(serde::Deserialize)]
    struct Told {
        account: Account,
    }
    let told: Told = serde_json::from_slice(told).map_err(|source| {
        Error::failed(format!("the report of restore could not be read: {source}"))
            .with_hint("Install backup and restore of the same version.")
    })?;
    Ok(told.account)
}

/// The scratch databases of drills.
pub const SCRATCH: ScratchKind = ScratchKind {
    word: "drill",
    marker: "safe-run: scratch database of a backup drill; the next drill drops it if this one was killed",
    swept_by: "The next `backup drill`",
    // A database of terabytes has thousands of files to remove.
    patience: std::time::Duration::from_secs(1800),
};

async fn drop_leftovers(connection: &ConnectionSettings, output: &Output) -> Result<()> {
    let session = database::connect_maintenance(connection, &[]).await?;
    for name in SCRATCH.leftovers(&session).await? {
        match database::drop_database(&session, &name).await {
            Ok(()) => {
                output
                    .say(&format!("dropped \"{}\", which a killed drill had left behind", printable(&name)));
            }
            // Somebody else's, perhaps: this drill goes on.
            Err(error) => output.warn(&error.to_string()),
        }
    }
    session.close().await
}

fn connection(args: &DrillArgs, shared: &SharedArgs, settings: &Settings) -> Result<ConnectionSettings> {
    let Some(url) = &args.server else { return settings.connection() };
    let shared = SharedArgs { database_url: Some(url.clone()), ..shared.clone() };
    Settings::load(&shared, CommandFlags::default(), Environment::from_process())?.connection()
}

/// The `restore` beside this program; else the one on PATH.
fn restore_program() -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("restore"));
    first_program(beside, &std::env::var_os("PATH").unwrap_or_default())
}

fn first_program(beside: Option<PathBuf>, path: &std::ffi::OsStr) -> Result<PathBuf> {
    let on_path = std::env::split_paths(path).map(|dir| dir.join("restore"));
    beside.into_iter().chain(on_path).find(|path| path.is_file()).ok_or_else(|| {
        Error::refused("the program restore is neither beside backup nor on PATH")
            .with_hint("Install restore into the folder of backup: a drill runs it.")
    })
}

/// A command line with the connection in its environment, where no other user reads it.
fn child(program: &PathBuf, connection: &ConnectionSettings) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    for name in VARIABLES_TO_CLEAR {
        command.env_remove(name);
    }
    for (name, value) in connection.child_environment() {
        command.env(name, value.expose());
    }
    // The settings file may name another database, and comes after the environment.
    command.env("DATABASE_URL", connection.url_for_child().expose());
    let (name, told) = login::told();
    command.env(name, told);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// Its exit code, and what it printed for programs.
async fn wait(mut command: tokio::process::Command) -> Result<(u8, Vec<u8>)> {
    let failed = |source: std::io::Error| {
        Error::failed(format!("could not run restore: {source}")).with_source(source)
    };
    let child = command.spawn().map_err(failed)?;
    let _guard = child.id().and_then(ChildGuard::register_id);
    let ended = child.wait_with_output().await.map_err(failed)?;
    let code = ended.status.code().and_then(|code| u8::try_from(code).ok());
    Ok((code.unwrap_or(ErrorKind::Failed.exit_code()), ended.stdout))
}

async fn refuse_existing(connection: &ConnectionSettings, scratch: &str) -> Result<()> {
    let session = database::connect_maintenance(connection, &[scratch]).await?;
    let exists = database::exists(&session, scratch).await?;
    session.close().await?;
    if exists { Err(taken(scratch)) } else { Ok(()) }
}

/// The name ends with the second in which the drill began.
fn taken(scratch: &str) -> Error {
    Error::refused(format!("a database \"{}\" exists already", printable(scratch)))
        .with_hint("Wait a second, then run the command again.")
}

/// Drops the scratch database.
async fn drop_scratch(connection: &ConnectionSettings, scratch: &str) -> Result<()> {
    // Also after Ctrl-C: nobody else knows of this database.
    let _undo = interrupt::begin_undo().await;
    SCRATCH.drop(connection, scratch).await
}

/// What an exit code of `restore` means here.
fn kind(code: u8) -> ErrorKind {
    [
        ErrorKind::Usage,
        ErrorKind::Refused,
        ErrorKind::Busy,
        ErrorKind::NoSuchSnapshot,
        ErrorKind::Damaged,
        ErrorKind::Interrupted,
        ErrorKind::Terminated,
    ]
    .into_iter()
    .find(|kind| kind.exit_code() == code)
    .unwrap_or(ErrorKind::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_is_missing_or_of_another_version_is_told_with_the_next_step() {
        let missing = first_program(None, std::ffi::OsStr::new("/nonexistent")).expect_err("it is not there");
        assert_eq!(missing.hint(), Some("Install restore into the folder of backup: a drill runs it."));
        assert_eq!(missing.kind(), ErrorKind::Refused);
        let other = account(b"{\"schema\": 0}").expect_err("it has no account");
        assert_eq!(other.hint(), Some("Install backup and restore of the same version."));
        assert_eq!(taken("shop_drill_20260101").hint(), Some("Wait a second, then run the command again."));
    }
}
