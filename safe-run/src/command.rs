//! Runs an external command under protection: its environment names the protected database, its output passes through,
//! signals reach its process group, and it has to be seen on the server.

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

use sql::masking;

/// How often the server is asked for the command's sessions.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long PostgreSQL 14's statistics collector may be behind.
const COLLECTOR_DELAY: Duration = Duration::from_millis(600);

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
    let known = settled_sessions(observer, settings, own).await?;
    let before = counted(observer, settings.database()).await?;
    let identity = database_oid(observer, settings.database()).await?;
    let mut command = tokio::process::Command::new(program);
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
    let started = Instant::now();
    let mut child = command.spawn().map_err(|source| not_started(program, &source))?;
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    let guard = pid.map(ChildGuard::register);
    let mut seen = BTreeSet::new();
    let mut xids = BTreeSet::new();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = tokio::time::sleep(LOOK_EVERY) => {
                // A server that does not answer now is found out by what comes next.
                if let Ok(found) = sessions(observer, settings, own).await {
                    seen.extend(found.into_iter().filter(|found| !known.contains(found)));
                }
                xids.extend(transactions(observer, settings, own).await.unwrap_or_default());
            }
        }
    };
    let status =
        status.map_err(|source| Error::failed(format!("could not wait for the command: {source}")))?;
    drop(guard);
    if let Some(pid) = pid {
        // Children that it left behind must not write while we check, or undo. None is the normal case.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let took = started.elapsed();
    let replaced = database_oid(observer, settings.database()).await? != identity;
    let mut total = seen.iter().map(|found| found.pid).collect::<BTreeSet<_>>().len() as u64;
    if total == 0 && !replaced {
        // Too quick to be seen: the server counts sessions, and tells a moment later.
        for _ in 0..30 {
            total = counted(observer, settings.database()).await?.sessions.saturating_sub(before.sessions);
            // A pooler may have given it a session that was there before, and keeps it.
            let kept = sessions(observer, settings, own).await?;
            total += kept.iter().filter(|found| !known.contains(found)).count() as u64;
            if total > 0 {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    // The server ends a session a moment after its client.
    let mut lasts = false;
    for pause in [Duration::ZERO, LOOK_EVERY, LOOK_EVERY * 3] {
        tokio::time::sleep(pause).await;
        let there = sessions(observer, settings, own).await?;
        let is_new = |found: &&Seen| !known.iter().any(|known| known.pid == found.pid);
        lasts = there.iter().any(|found| is_new(&found));
        if !lasts {
            break;
        }
    }
    // Behind a pooler a session goes on, and is counted later.
    lasts |= settings.is_pooled();
    if observer.server_major() < 15 {
        tokio::time::sleep(COLLECTOR_DELAY).await;
    }
    let after = counted(observer, settings.database()).await?;
    Ok(Finished {
        status,
        took,
        sessions: total,
        replaced,
        xids,
        rolled_back: after.rolled_back.saturating_sub(before.rolled_back),
        rows_written: after.rows_written.saturating_sub(before.rows_written),
        lasts,
    })
}

/// The transactions of sessions that bear the run's name, which only the command was given.
async fn transactions(observer: &Session, settings: &ConnectionSettings, own: &[i32]) -> Result<Vec<u32>> {
    let rows = observer
        .query(
            "SELECT backend_xid::text FROM pg_catalog.pg_stat_activity
             WHERE datname = $1 AND backend_type = 'client backend' AND NOT (pid = ANY ($2))
               AND $3 <> '' AND application_name = $3 AND backend_xid IS NOT NULL",
            &[&settings.database(), &own, &settings.application_name().unwrap_or_default()],
        )
        .await
        .map_err(|source| Error::postgres("could not look for the command's transactions", source))?;
    Ok(rows.iter().filter_map(|row| row.get::<_, String>(0).parse().ok()).collect())
}

/// A session on the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    pid: i32,
    /// When it was last used, behind a pooler that hands sessions on; empty elsewhere, where a session has one client.
    used: String,
}

/// Sessions of the database that are neither ours nor a worker's.
async fn sessions(observer: &Session, settings: &ConnectionSettings, own: &[i32]) -> Result<Vec<Seen>> {
    let is_handed_on = settings.is_pooled();
    let rows = observer
        .query(
            "SELECT pid, CASE WHEN $5 THEN COALESCE(state_change::text, '') ELSE '' END FROM pg_catalog.pg_stat_activity
             WHERE datname = $1 AND backend_type = 'client backend' AND NOT (pid = ANY ($2))
               AND ($3 = '' OR application_name = $3 OR usename = $4)",
            &[
                &settings.database(),
                &own,
                &settings.application_name().unwrap_or_default(),
                &settings.user(),
                &is_handed_on,
            ],
        )
        .await
        .map_err(|source| Error::postgres("could not look for the command's sessions", source))?;
    Ok(rows.iter().map(|row| Seen { pid: row.get(0), used: row.get(1) }).collect())
}

/// The sessions that are there before the command, once our own workers have gone and are counted: a session ends, and
/// its server counts it, a moment after its client has closed it.
async fn settled_sessions(
    observer: &Session,
    settings: &ConnectionSettings,
    own: &[i32],
) -> Result<Vec<Seen>> {
    let mut found = sessions(observer, settings, own).await?;
    for _ in 0..20 {
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        found = sessions(observer, settings, own).await?;
    }
    if observer.server_major() < 15 {
        tokio::time::sleep(COLLECTOR_DELAY).await;
    }
    Ok(found)
}

/// What the name stands for.
async fn database_oid(observer: &Session, database: &str) -> Result<Option<u32>> {
    let row = observer
        .query_opt("SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", &[&database])
        .await
        .map_err(|source| Error::postgres("could not look up the database", source))?;
    Ok(row.map(|row| row.get(0)))
}

/// What a database's statistics have counted.
struct Counted {
    sessions: u64,
    rolled_back: u64,
    rows_written: u64,
}

async fn counted(observer: &Session, database: &str) -> Result<Counted> {
    let row = observer
        .query_opt(
            "SELECT sessions, xact_rollback, tup_inserted + tup_updated + tup_deleted
             FROM pg_catalog.pg_stat_database WHERE datname = $1",
            &[&database],
        )
        .await
        .map_err(|source| Error::postgres("could not read pg_stat_database", source))?;
    let number = |at: usize| row.as_ref().map_or(0, |row| row.get::<_, i64>(at).unsigned_abs());
    Ok(Counted { sessions: number(0), rolled_back: number(1), rows_written: number(2) })
}
