//! Runs an external command under protection: its environment names the protected database, its output passes through,
//! signals reach its process group, and it has to be seen on the server.

mod sessions;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::IsTerminal,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use common::{
    Error, Result,
    interrupt::ChildGuard,
    postgres::{ConnectionSettings, Session, settings::VARIABLES_TO_CLEAR},
};
use tokio::process::{Child, Command};

use sessions::{LOOK_EVERY, Lookout, Seen};
use sql::masking;

/// What the command did.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// How long it took.
    pub took: Duration,
    /// Sessions of the database that began while it ran; zero means that it worked somewhere else.
    pub sessions: u64,
    /// The name stands for another database than before, or for none: the command dropped, remade or renamed it.
    pub replaced: bool,
    /// Transactions that its sessions were seen in; the lower half of their ids. Short ones are not seen.
    pub xids: BTreeSet<u32>,
    /// Transactions on the database that were rolled back while it ran.
    pub rolled_back: u64,
    /// Rows written while it ran, those of the catalog among them: zero means that nothing was changed.
    pub rows_written: u64,
    /// Sessions that began while it ran are still there: one of them may be the command's, and go on writing.
    pub lasts: bool,
}

/// The words of a command for people, with everything that looks like a password masked.
pub fn describe(words: &[OsString]) -> String {
    masking::words(words.iter().map(OsString::as_os_str)).join(" ")
}

/// Refuses a program that is not there, before anything is asked of a server.
///
/// # Errors
/// Usage, as the shell's 127 and 126 are.
pub fn refuse_missing(program: &OsStr) -> Result<()> {
    let is_executable = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let name = common::ident::printable(&program.to_string_lossy());
    let path = Path::new(program);
    // As execvp does: a name with a slash is a path, any other is looked for.
    if program.as_encoded_bytes().contains(&b'/') {
        return match is_executable(path) {
            true => refuse_missing_interpreter(path, &name),
            false if path.exists() => Err(Error::usage(format!("{name} is not executable"))
                .with_hint("Make it executable (chmod +x), or name the program that reads it.")),
            false => Err(Error::usage(format!("there is no {name}")).with_hint("Check the path after `--`.")),
        };
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) =
        std::env::split_paths(&search).map(|dir| dir.join(path)).find(|path| is_executable(path))
    {
        return refuse_missing_interpreter(&found, &name);
    }
    Err(Error::usage(format!("there is no program {name} on PATH"))
        .with_hint("Check the name after `--`, and PATH; a file in this folder is ./NAME."))
}

/// A script whose first line names a program that is not there can't be started either.
fn refuse_missing_interpreter(script: &Path, name: &str) -> Result<()> {
    use std::{io::Read, os::unix::ffi::OsStrExt};
    // The kernel reads no more of the line.
    let mut first = Vec::new();
    let read = std::fs::File::open(script).and_then(|file| file.take(256).read_to_end(&mut first));
    // What may be run and not read is nothing to look into.
    let (Ok(_), Some(line)) = (read, first.strip_prefix(b"#!")) else { return Ok(()) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_start();
    let interpreter = line.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    if interpreter.as_os_str().is_empty() || interpreter.exists() {
        return Ok(());
    }
    let interpreter = common::ident::printable(&interpreter.to_string_lossy());
    Err(Error::usage(format!("{name} is to be run by {interpreter}, which is not there")))
}

/// The system did not run what is there.
fn not_started(program: &OsStr, source: &std::io::Error) -> Error {
    let name = common::ident::printable(&program.to_string_lossy());
    let hint = match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOEXEC) => {
            "A script needs a first line that names what runs it, such as #!/bin/sh; or name that before it: `-- sh FILE`."
        }
        _ => {
            "The operating system says why: the file may be gone, be for another kind of machine, or name an interpreter that is not there."
        }
    };
    Error::usage(format!("could not start {name}: {source}")).with_hint(hint)
}

/// Runs the command to its end. `observer` is a session on the maintenance database.
///
/// `own` are the process ids of our own sessions on the database. With `stdout_is_ours` (`--json`), what the command
/// prints goes to stderr.
pub async fn run(
    words: &[OsString],
    settings: &ConnectionSettings,
    observer: &Session,
    own: &[i32],
    stdout_is_ours: bool,
) -> Result<Finished> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| Error::usage("no command was given after --"))?;
    let lookout = Lookout { observer, settings, own };
    let known = lookout.settled_sessions().await?;
    let before = lookout.counted().await?;
    let identity = lookout.database_oid().await?;
    let mut process = command(program, arguments, settings, stdout_is_ours);
    let started = Instant::now();
    let mut child = process.spawn().map_err(|source| not_started(program, &source))?;
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    let guard = pid.map(ChildGuard::register);
    let (status, sighted) = watch(&mut child, &lookout, &known).await;
    let status =
        status.map_err(|source| Error::failed(format!("could not wait for the command: {source}")))?;
    drop(guard);
    if let Some(pid) = pid {
        // Children that it left behind must not write while we check, or undo. None is the normal case.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let took = started.elapsed();
    let replaced = lookout.database_oid().await? != identity;
    let mut total = sighted.sessions.iter().map(|found| found.pid).collect::<BTreeSet<_>>().len() as u64;
    if total == 0 && !replaced {
        total = lookout.late_sessions(&known, &before).await?;
    }
    let lasts = lookout.lasts(&known).await?;
    lookout.wait_for_collector().await;
    let after = lookout.counted().await?;
    Ok(Finished {
        status,
        took,
        sessions: total,
        replaced,
        xids: sighted.xids,
        rolled_back: after.rolled_back.saturating_sub(before.rolled_back),
        rows_written: after.rows_written.saturating_sub(before.rows_written),
        lasts,
    })
}

/// The command as it is started: its environment names the database.
fn command(
    program: &OsStr,
    arguments: &[OsString],
    settings: &ConnectionSettings,
    stdout_is_ours: bool,
) -> Command {
    let mut command = Command::new(program);
    for name in VARIABLES_TO_CLEAR {
        command.env_remove(name);
    }
    for (name, value) in settings.child_environment() {
        command.env(name, value.expose());
    }
    command.env("DATABASE_URL", settings.url_for_child().expose());
    command.args(arguments).process_group(0).kill_on_drop(true);
    // In a process group of its own the command can't read from the terminal.
    command.stdin(if std::io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() });
    if stdout_is_ours {
        command.stdout(std::io::stderr());
    }
    command
}

/// What was seen on the server while the command ran.
#[derive(Default)]
struct Sighted {
    sessions: BTreeSet<Seen>,
    xids: BTreeSet<u32>,
}

/// Looks at the server again and again until the command has ended.
async fn watch(
    child: &mut Child,
    lookout: &Lookout<'_>,
    known: &[Seen],
) -> (std::io::Result<ExitStatus>, Sighted) {
    let mut sighted = Sighted::default();
    loop {
        tokio::select! {
            status = child.wait() => return (status, sighted),
            () = tokio::time::sleep(LOOK_EVERY) => {
                // A server that does not answer now is found out by what comes next.
                if let Ok(found) = lookout.sessions().await {
                    sighted.sessions.extend(found.into_iter().filter(|found| !known.contains(found)));
                }
                sighted.xids.extend(lookout.transactions().await.unwrap_or_default());
            }
        }
    }
}
