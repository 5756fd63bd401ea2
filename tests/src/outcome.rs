//! Runs the real programs as a user does, and holds what they said and how they ended.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binaries::command;
use crate::cluster::Database;

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; for a program that a signal killed, the signal's negative number.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command without a terminal and without input, to its end.
    pub fn of(command: &mut Command) -> Outcome {
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let status = output.status;
        Outcome {
            code: status.code().unwrap_or_else(|| -status.signal().expect("it ended")),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics with everything that was said unless the program ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert!(
            self.code == code,
            "exit code {} instead of {code}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics with everything that was said unless each of these texts is on stderr.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Outcome {
        for text in texts {
            assert!(self.stderr.contains(text), "not said: {text}\nstderr: {}", self.stderr);
        }
        self
    }

    /// The code, and then each line of an error: message, hint, what happened to the database.
    ///
    /// Panics unless there are at least a message and a hint: an error without a next step is half an error.
    #[track_caller]
    pub fn fails(self, code: i32, texts: &[&str]) -> Outcome {
        let outcome = self.expect(code).says(texts);
        let has = |start: &str| outcome.stderr.lines().any(|line| line.starts_with(start));
        assert!(has("error: ") && has("hint: "), "no message and hint:\n{}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        outcome
    }
}

/// In the environment of `restore`: every table counts as a large one, whose indexes are built while others load.
pub const ALL_LARGE: (&str, &str) = ("SAFE_RUN_FAULT_NUMBER", "restore.large_bytes=0");

/// A repository in a folder of its own, removed with the value.
pub struct Snapshots {
    folder: tempfile::TempDir,
}

impl Default for Snapshots {
    fn default() -> Self {
        Snapshots::new()
    }
}

impl Snapshots {
    /// An empty folder: the first backup makes the repository.
    pub fn new() -> Snapshots {
        Snapshots { folder: tempfile::tempdir().expect("the folder for temporary files is writable") }
    }

    /// The repository's folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// A program with this repository and this database.
    pub fn command(&self, program: &str, url: &str, arguments: &[&str]) -> Command {
        let mut command = command(program);
        command.args(arguments).arg("--repo").arg(self.path()).args(["-d", url]);
        command.current_dir(self.folder.path());
        command
    }

    /// Runs a program with this repository and this database.
    pub fn run(&self, program: &str, url: &str, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(program, url, arguments))
    }

    /// Runs a program with this repository, naming no database.
    pub fn run_offline(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = command(program);
        command.args(arguments).arg("--repo").arg(self.path()).current_dir(self.folder.path());
        Outcome::of(&mut command)
    }

    /// Takes a snapshot and returns its id; panics if that fails.
    #[track_caller]
    pub fn create(&self, database: &Database, arguments: &[&str]) -> String {
        let arguments = [&["create"], arguments].concat();
        self.run("backup", &database.url(), &arguments).expect(0).stdout.trim().to_owned()
    }

    /// Restores the latest snapshot of `database` into a new database `<its name>copy<n>`, dropped with it, and
    /// returns the URL.
    #[track_caller]
    pub fn restore_copy(&self, database: &Database, arguments: &[&str]) -> String {
        self.restore_copy_with(database, arguments, &[])
    }

    /// The same, with variables in the environment.
    #[track_caller]
    pub fn restore_copy_with(
        &self,
        database: &Database,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> String {
        let name = format!("{}copy{}", database.name(), database.family().len());
        let arguments = [&["latest", "--into", &name], arguments].concat();
        let mut command = self.command("restore", &database.url(), &arguments);
        Outcome::of(command.envs(environment.iter().copied())).expect(0);
        database.cluster().url(&name)
    }

    /// The folder of a snapshot.
    pub fn folder_of(&self, id: &str) -> PathBuf {
        self.path().join("snapshots").join(id)
    }

    /// The ids below `snapshots/`, sorted.
    pub fn ids(&self) -> Vec<String> {
        names_in(&self.path().join("snapshots"))
    }

    /// What is below `partial/` and `trash/`: leftovers.
    pub fn leftovers(&self) -> Vec<String> {
        ["partial", "trash"].iter().flat_map(|folder| names_in(&self.path().join(folder))).collect()
    }

    /// The bytes of a snapshot's manifest, as text.
    pub fn manifest(&self, id: &str) -> String {
        let path = self.folder_of(id).join("manifest.json");
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The files of rows of a snapshot, sorted by path.
    pub fn chunks(&self, id: &str) -> Vec<PathBuf> {
        let folder = self.folder_of(id).join("data");
        names_in(&folder).into_iter().map(|name| folder.join(name)).collect()
    }
}

/// The names in a folder, sorted; none where there is no folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the folder is readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
