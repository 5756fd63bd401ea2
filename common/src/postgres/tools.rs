//! PostgreSQL's own client programs: finds the right pg_dump and pg_restore, runs them without a password in sight, and
//! takes every line of their error output seriously.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::{ConnectionSettings, known_fixes::Fix, session, settings::VARIABLES_TO_CLEAR};
use crate::{
    Error, Result,
    interrupt::{self, ChildGuard},
};

/// Folders of distributions and installers, beside `PATH`. `*` stands for a version.
const FOLDERS: [&str; 8] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/lib/postgresql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// A client program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its file.
    pub path: PathBuf,
    /// Its major version.
    pub major: u32,
    /// Its version as servers give theirs: 150018 for 15.18.
    pub version_num: i32,
    /// What `--version` printed, without the program's name.
    pub version: String,
}

/// Every installed program `name` that answers `--version`.
///
/// `SAFE_RUN_PG_BIN`, a list of folders like `PATH`, comes first and replaces the search when it is set.
pub async fn installed(name: &str) -> Vec<Tool> {
    let folders: Vec<PathBuf> = match std::env::var_os("SAFE_RUN_PG_BIN") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => {
            let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default();
            folders.extend(FOLDERS.iter().flat_map(|pattern| expand(pattern)));
            folders
        }
    };
    let mut tools: Vec<Tool> = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        // Debian's /usr/bin/pg_dump is a wrapper that picks a version by its own rules: only real programs are asked.
        let Ok(real) = std::fs::canonicalize(&path) else { continue };
        if real.file_name() != Some(OsStr::new(name)) || tools.iter().any(|tool| tool.path == real) {
            continue;
        }
        // In a process group of its own: a Ctrl-C during an undo must not make it look as if nothing were installed.
        let mut command = tokio::process::Command::new(&real);
        command.arg("--version").stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let Ok(output) = command.output().await else { continue };
        if let Some((major, version)) = parse_version(&String::from_utf8_lossy(&output.stdout)) {
            let version_num = session::version_num(&version);
            tools.push(Tool { path: real, major, version_num, version });
        }
    }
    tools
}

fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (dir, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| PathBuf::from(format!("{}{after}", entry.path().display())))
        .collect();
    found.sort();
    found
}

/// Reads `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL)")?.1.trim();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

/// Chooses the client for a server of major version `server`: that major's own, else the next newer one; of several the newest
/// minor release.
///
/// An older client is never used: it does not know what the server may hold.
///
/// # Errors
/// [`crate::ErrorKind::Refused`], naming the package to install.
pub fn choose(name: &str, tools: &[Tool], server: u32) -> Result<Tool> {
    let best = tools
        .iter()
        .filter(|tool| tool.major >= server)
        .min_by_key(|tool| (tool.major, std::cmp::Reverse(tool.version_num)));
    best.cloned().ok_or_else(|| {
        let newest = tools.iter().max_by_key(|tool| tool.major);
        let message = match newest {
            None => format!("{name} is not installed"),
            Some(tool) => format!(
                "{name} {} ({}) is older than the server's PostgreSQL {server}",
                tool.version,
                tool.path.display()
            ),
        };
        Error::refused(message).with_hint(format!(
            "Install PostgreSQL {server}'s client programs (Debian and Ubuntu: apt install postgresql-client-{server}; \
             Red Hat: dnf install postgresql{server}; macOS: brew install postgresql@{server}), or name their folder in \
             SAFE_RUN_PG_BIN."
        ))
    })
}

/// Chooses the pg_dump for a server of this `server_version_num`, as [`choose`] does, but for one thing: where the server marks its
/// columns ([`Fix::ColumnMarks`]), a client that knows the marks comes before one of the server's own major that does not.
///
/// # Errors
/// As [`choose`].
pub fn choose_pg_dump(tools: &[Tool], server_version_num: i32) -> Result<Tool> {
    let major = u32::try_from(server_version_num / 10_000).unwrap_or(0);
    if !Fix::ColumnMarks.is_in(server_version_num) {
        return choose("pg_dump", tools, major);
    }
    let knowing: Vec<Tool> =
        tools.iter().filter(|tool| Fix::ColumnMarks.is_in(tool.version_num)).cloned().collect();
    choose("pg_dump", &knowing, major).or_else(|_| choose("pg_dump", tools, major))
}

/// What a person should know about a pg_dump that is older than the server's minor release; nothing where it does not matter.
pub fn older_minor(pg_dump: &Tool, server_version_num: i32) -> Option<String> {
    let is_older = Fix::ColumnMarks.is_in(server_version_num) && !Fix::ColumnMarks.is_in(pg_dump.version_num);
    is_older.then(|| {
        format!(
            "pg_dump {} is of an earlier day than the server's minor release {}.{} and writes its marks of columns (pg_attver) as \
             options, which pg_restore fails on elsewhere; `restore` leaves them out",
            pg_dump.version,
            server_version_num / 10_000,
            server_version_num % 10_000
        )
    })
}

/// What a role or a database may be set to and the programs do not set back, or too late: their first statements run
/// before. `transaction_timeout` is not here: an older server refuses a connection that names it.
const CHILD_OPTIONS: &str = "-c quote_all_identifiers=off -c transform_null_equals=off -c statement_timeout=0 \
                             -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
                             -c default_transaction_read_only=off -c constraint_exclusion=off \
                             -c standard_conforming_strings=on";

/// A command line with the connection in its environment and everything else of libpq's removed from it.
///
/// The child leads a process group of its own: Ctrl-C reaches it through us, once, and it dies with us.
pub fn command(tool: &Path, settings: &ConnectionSettings) -> tokio::process::Command {
    command_with(tool, settings, "")
}

/// Like [`command`], with further settings for the program's sessions, as `-c name=value`.
pub fn command_with(tool: &Path, settings: &ConnectionSettings, more: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(tool);
    for name in VARIABLES_TO_CLEAR {
        command.env_remove(name);
    }
    let mut options = String::new();
    for (name, value) in settings.child_environment() {
        command.env(name, value.expose());
        if name == "PGOPTIONS" {
            options = value.expose().to_owned();
        }
    }
    let silent = if settings.has_no_event_triggers() { "-c event_triggers=off" } else { "" };
    if settings.takes_options() {
        // After the user's own, so that it wins.
        command.env("PGOPTIONS", format!("{options} {CHILD_OPTIONS} {silent} {more}"));
    }
    // Messages are matched in two places, by the text of the C locale.
    command.env("LC_ALL", "C").stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command
}

/// A command line for a client program that connects to nothing.
pub fn offline_command(tool: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(tool);
    for name in VARIABLES_TO_CLEAR {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command
}

/// What a client program did.
#[derive(Debug)]
pub struct Finished {
    /// Whether it exited with 0.
    pub success: bool,
    /// Its whole error output.
    pub stderr: String,
}

/// Runs a program again where there was no place for its session: one of ours that was just closed has its for a moment longer.
/// Nothing was made, or tried, then.
///
/// # Errors
/// Of running it. What it said at last is the caller's to judge.
pub async fn run_with_a_place(name: &str, run: impl AsyncFn() -> Result<Finished>) -> Result<Finished> {
    const PAUSES_MS: [u64; 4] = [50, 150, 400, 1_000];
    for pause in PAUSES_MS {
        let finished = run().await?;
        if finished.success || no_place(name, &finished.stderr).is_none() {
            return Ok(finished);
        }
        interrupt::check()?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    run().await
}

/// Where a program's session had no place on the server: that, and what to do. Programs give no SQLSTATE; these are the C locale's texts.
pub fn no_place(name: &str, stderr: &str) -> Option<Error> {
    const FULL: [&str; 3] = [
        "FATAL:  too many connections for",
        "FATAL:  sorry, too many clients",
        "FATAL:  remaining connection slots",
    ];
    FULL.iter().any(|text| stderr.contains(text)).then(|| {
        Error::busy(format!("there was no place for {name}'s connection:\n{}", stderr.trim())).with_hint(
            "Raise the role's or the database's CONNECTION LIMIT or the server's max_connections, or use fewer --jobs; \
             then run the command again.",
        )
    })
}

/// Runs a command to its end and collects its error output.
pub async fn run(mut command: tokio::process::Command, name: &str) -> Result<Finished> {
    command.stdout(Stdio::null());
    Ok(finish(command, name).await?.0)
}

/// Like [`run`], and collects the standard output too: only for what fits in memory.
pub async fn capture(mut command: tokio::process::Command, name: &str) -> Result<(Finished, Vec<u8>)> {
    command.stdout(Stdio::piped());
    finish(command, name).await
}

async fn finish(mut command: tokio::process::Command, name: &str) -> Result<(Finished, Vec<u8>)> {
    let child = command
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::failed(format!("could not start {name}: {source}")).with_source(source))?;
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    let _guard = pid.map(ChildGuard::register);
    let output = child
        .wait_with_output()
        .await
        .map_err(|source| Error::failed(format!("could not run {name}: {source}")).with_source(source))?;
    let finished = Finished {
        success: output.status.success(),
        stderr: super::login::without_told(&String::from_utf8_lossy(&output.stderr)),
    };
    Ok((finished, output.stdout))
}

/// Runs a command to its end and returns its output.
pub async fn output(mut command: tokio::process::Command, name: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| Error::failed(format!("could not run {name}: {source}")).with_source(source))?;
    if !output.status.success() {
        let says = String::from_utf8_lossy(&output.stderr);
        return Err(Error::failed(format!("{name} failed: {}", says.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(major: u32) -> Tool {
        tool_of(major, 1)
    }

    fn tool_of(major: u32, minor: i32) -> Tool {
        Tool {
            path: PathBuf::from(format!("/pg/{major}.{minor}/pg_dump")),
            major,
            version_num: i32::try_from(major).unwrap() * 10_000 + minor,
            version: format!("{major}.{minor}"),
        }
    }

    #[test]
    fn a_program_that_found_no_place_on_the_server_is_busy_and_no_other_is() {
        let said = |reason: &str| {
            format!("pg_dump: error: connection to server at \"db\" failed: FATAL:  {reason}\n")
        };
        for full in [
            "too many connections for role \"app\"",
            "too many connections for database \"shop\"",
            "sorry, too many clients already",
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        ] {
            let error = no_place("pg_dump", &said(full)).unwrap();
            assert_eq!(error.kind(), crate::ErrorKind::Busy);
            assert!(error.to_string().contains(full) && error.hint().unwrap().contains("CONNECTION LIMIT"));
        }
        assert!(no_place("pg_dump", &said("password authentication failed for user \"app\"")).is_none());
    }

    #[test]
    fn the_minor_release_of_pg_dump_counts_where_the_server_marks_its_columns() {
        let tools = [tool_of(15, 18), tool_of(15, 19), tool_of(18, 6), tool_of(18, 7), tool_of(17, 12)];
        let chosen = |tools: &[Tool], server| choose_pg_dump(tools, server).unwrap().version_num;
        assert_eq!(chosen(&tools, 150_017), 150_019);
        assert_eq!(chosen(&tools, 150_020), 170_012);
        assert_eq!(chosen(&[tools.as_slice(), &[tool_of(15, 21)]].concat(), 150_020), 150_021);
        let old = chosen(&tools[..3], 150_020);
        assert_eq!(old, 150_019);
        assert!(older_minor(&tools[1], 150_020).is_some_and(|said| said.contains("15.20")));
        assert_eq!(older_minor(&tools[1], 150_019), None);
        assert_eq!(older_minor(&tools[3], 150_020), None);
        assert!(choose_pg_dump(&tools[..2], 180_007).is_err());
    }

    #[test]
    fn the_servers_own_major_is_preferred_and_an_older_client_refused() {
        let tools = [tool(18), tool(15), tool(16)];
        assert_eq!(choose("pg_dump", &tools, 14).unwrap().major, 15);
        assert_eq!(choose("pg_dump", &tools, 16).unwrap().major, 16);
        assert_eq!(choose("pg_dump", &tools, 17).unwrap().major, 18);
        let error = choose("pg_dump", &tools[1..2], 18).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Refused);
        assert!(
            error.message().contains("older than the server")
                && error.hint().is_some_and(|h| h.contains("postgresql-client-18"))
        );
        assert!(choose("pg_dump", &[], 14).unwrap_err().message().contains("is not installed"));
    }

    #[test]
    fn versions_are_read_from_releases_and_betas() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").unwrap().0, 15);
        assert_eq!(parse_version("pg_dump (PostgreSQL) 19beta1").unwrap().0, 19);
        assert!(parse_version("pg_dump of something else").is_none());
    }

    proptest::proptest! {
        #[test]
        fn reading_a_version_never_panics(text in ".{0,60}") {
            let _ = parse_version(&text);
        }
    }
}
