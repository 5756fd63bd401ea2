//! A password is never seen: not in what is printed, not in what is stored, not in a process list.

use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::binaries::command;
use tests::{Cluster, Options, Outcome};

/// Letters only, so that no encoding changes them.
const PASSWORD: &str = "correcthorsebatterystaple";

/// The command lines of all processes, and the names of the programs among them.
fn command_lines() -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .collect()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn a_password_is_in_no_output_in_no_file_and_in_no_command_line() {
    let cluster = Cluster::start(18, &Options::new().scram());
    cluster.psql(&format!("CREATE ROLE someone LOGIN SUPERUSER PASSWORD '{PASSWORD}'"));
    let database = cluster.fresh_database("secret");
    database.psql("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    let with_password = cluster.tcp_url(&format!("someone:{PASSWORD}"), "127.0.0.1", database.name());
    let without = cluster.tcp_url("someone", "127.0.0.1", database.name());
    let (stop, seen) = (AtomicBool::new(false), Mutex::new(Vec::<String>::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let lines = command_lines();
                seen.lock().unwrap().extend(lines.into_iter().filter(|line| {
                    line.contains(PASSWORD) || line.contains("pg_dump ") || line.contains("pg_restore ")
                }));
            }
        });
        let into = format!("{}copy", database.name());
        let commands: [&[&str]; 11] = [
            &["backup", "check"],
            &["backup", "create", "-v"],
            &["backup", "create", "--json"],
            &["backup", "create", "--show-config"],
            &["backup", "list"],
            &["backup", "show", "latest", "--json"],
            &["restore", "latest", "--dry-run"],
            &["restore", "latest", "--into", &into],
            &["restore", "latest", "--replace", "-y", "--json"],
            &["restore", "latest", "--into", &into],
            &["restore", "no-such-snapshot", "--json"],
        ];
        // The URL in the environment (on the command line it is the user's own doing), and PGPASSWORD.
        for (url, password) in [(&with_password, None), (&without, Some(PASSWORD))] {
            for arguments in commands {
                let mut command = command(arguments[0]);
                command.args(&arguments[1..]).arg("--repo").arg(&repo).env("DATABASE_URL", url);
                command.current_dir(folder.path()).stdin(Stdio::null());
                command.envs(password.map(|password| ("PGPASSWORD", password)));
                let outcome = Outcome::of(&mut command);
                assert!(outcome.code == 0 || arguments[0] == "restore", "{arguments:?}: {outcome:?}");
                let said = format!("{}{}", outcome.stdout, outcome.stderr);
                assert!(!said.contains(PASSWORD), "{arguments:?}: {said}");
            }
            cluster.psql(&format!("DROP DATABASE \"{into}\""));
        }
        stop.store(true, Ordering::SeqCst);
    });
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().any(|line| line.contains("pg_dump ")), "the process list was never read in time");
    assert!(seen.iter().any(|line| line.contains("pg_restore ")), "the process list was never read in time");
    assert!(!seen.iter().any(|line| line.contains(PASSWORD)), "{seen:?}");
    let files = files_below(folder.path());
    assert!(files.iter().any(|path| path.ends_with("README.txt")), "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(PASSWORD), "{}", file.display());
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o077, 0, "{} can be read by others", file.display());
    }
}
