//! `backup drill`: proves a snapshot by restoring it into a scratch database, and measures how long that takes.
//!
//! `backup` and `restore` never import each other, and a drill has to rehearse what a person will run in an emergency: so
//! it runs the `restore` program that lies beside this one, with the same repository and a new name for the database. The
//! comparison of rows and content is restore's own. The scratch database is dropped on every path.

use std::{path::PathBuf, process::Stdio, time::Instant};

use common::{
    Error, ErrorKind, Result,
    cli::{Output, Settings, SharedArgs, config::CommandFlags, format, output::Tone, process},
    ident::printable,
    interrupt::{self, ChildGuard},
    postgres::{
        ConnectionSettings, Environment, database, scratch::ScratchKind, settings::VARIABLES_TO_CLEAR,
    },
    repository::{Repository, StoredSnapshot, verifications::How},
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

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
    id: &'a str,
    ok: bool,
    scratch_database: &'a str,
    tables: u64,
    rows: u64,
    restore_seconds: f64,
    #[serde(flatten)]
    found: Found,
}

/// What of the restored database is not as in the snapshot, as `restore` says it: its report has the same names.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Found {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing: Vec<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing_grants: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extra_grants: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_owners: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
}

/// Runs `backup drill`. The caller holds the repository's lock for all of it: the child's own comes later.
pub async fn run(
    args: &DrillArgs,
    shared: &SharedArgs,
    settings: &Settings,
    snapshot: StoredSnapshot,
    output: &Output,
) -> Result<u8> {
    let manifest = &snapshot.manifest;
    let connection = connection(args, shared, settings)?;
    let repository = Repository::open(&settings.repo)?;
    process::wait_for_server(&connection.with_database("postgres"), shared.wait, output).await?;
    let rehearsal = Rehearsal {
        jobs: args.jobs.or(settings.jobs),
        no_owner: args.no_owner,
        quiet: shared.quiet,
        verbose: shared.verbose,
    };
    let rehearsed = rehearse(&connection, &repository, &snapshot, &rehearsal, output).await?;
    let Rehearsed { scratch, seconds, found } = rehearsed;
    let drill = Drill {
        id: manifest.id.as_str(),
        ok: true,
        scratch_database: &scratch,
        tables: manifest.tables.len() as u64,
        rows: manifest.rows(),
        restore_seconds: seconds,
        found,
    };
    if output.is_json() {
        output.document(&drill)?;
        return Ok(0);
    }
    output.say(&format!(
        "{} {}: {} and {} restored, compared and equal; a restore of this snapshot takes {}",
        output.paint(Tone::Good, "DRILL OK"),
        drill.id,
        format::plural(drill.tables, "table", "tables"),
        format::plural(drill.rows, "row", "rows"),
        format::duration(std::time::Duration::from_secs_f64(seconds)),
    ));
    Ok(0)
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

/// What a drill did.
#[derive(Debug)]
pub struct Rehearsed {
    /// The name that the scratch database had.
    pub scratch: String,
    /// How long the restore took.
    pub seconds: f64,
    /// What is not as in the snapshot; only where a document is wanted, otherwise `restore` has said it.
    pub found: Found,
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
    let restore = restore_program()?;
    drop_leftovers(connection, output).await?;
    let scratch = SCRATCH.name(&manifest.database.name);
    refuse_existing(connection, &scratch).await?;
    let _running = SCRATCH.hold(connection, &scratch).await?;
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
    command.args(output.is_json().then_some("--json"));
    command.args((rehearsal.quiet && !output.is_json()).then_some("--quiet"));
    command.args(rehearsal.verbose.then_some("--verbose"));
    let started = Instant::now();
    let code = wait(command).await;
    let seconds = started.elapsed().as_secs_f64();
    common::fault::point("drill.restored");
    let dropped = drop_scratch(connection, &scratch).await;
    let (code, told) = match (code, dropped) {
        (Ok(ended), Ok(())) => ended,
        (Err(error), Ok(())) => return Err(error),
        (Ok((0, _)), Err(error)) => return Err(error),
        // Both: the first failure is the reason, the second must not be lost.
        (Ok(ended), Err(error)) => {
            output.warn(&error.to_string());
            ended
        }
        (Err(first), Err(second)) => {
            output.warn(&second.to_string());
            return Err(first);
        }
    };
    // Other codes say something about the server or its roles, not about the snapshot.
    let says_something = [0, ErrorKind::Failed.exit_code(), ErrorKind::Damaged.exit_code()].contains(&code);
    if says_something && interrupt::received().is_none() {
        manage::record(repository, &manifest.id, How::Restored, seconds, code == 0, output);
    }
    if code != 0 {
        return Err(Error::new(kind(code), format!("the drill of {} failed: see above", manifest.id))
            .with_database_state("The scratch database was dropped; no other database was changed."));
    }
    let found = if output.is_json() {
        serde_json::from_slice(&told).map_err(|source| {
            Error::failed(format!("the report of restore can't be read: {source}")).with_source(source)
        })?
    } else {
        Found::default()
    };
    Ok(Rehearsed { scratch, seconds, found })
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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("restore"));
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
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// The exit code, and what the program wrote to its standard output.
async fn wait(mut command: tokio::process::Command) -> Result<(u8, Vec<u8>)> {
    let failed = |source: std::io::Error| {
        Error::failed(format!("could not run restore: {source}")).with_source(source)
    };
    let mut child = command.spawn().map_err(failed)?;
    let _guard = child.id().and_then(ChildGuard::register_id);
    let mut told = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut told).await.map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok((code.unwrap_or(ErrorKind::Failed.exit_code()), told))
}

async fn refuse_existing(connection: &ConnectionSettings, scratch: &str) -> Result<()> {
    let session = database::connect_maintenance(connection, &[scratch]).await?;
    let exists = database::exists(&session, scratch).await?;
    session.close().await?;
    if exists {
        return Err(Error::refused(format!("a database \"{}\" exists already", printable(scratch)))
            .with_hint("Wait a second, then run the command again."));
    }
    Ok(())
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
