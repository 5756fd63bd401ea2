//! Finds the built programs, which other packages of the workspace make; builds nothing itself.

use std::path::PathBuf;
use std::process::Command;

/// The path of `backup`, `restore` or `safe-run`, built with the same profile as the running test.
///
/// # Panics
/// When it is not built: cargo builds other packages' binaries only for the whole workspace.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the running test has a path");
    // target/<profile>/deps/<test>, or target/<profile>/<test> for an example
    test.ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} near {}: run `cargo build --workspace` first", test.display()))
}

/// A [`Command`] for one of our programs, without the variables of the person who runs the tests that would
/// change what it does; the client tools of every version that has some come first on its PATH.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("PG")
            // Hints and kills are traced through all programs that tests start (tests/tests/trust/hints, scripts/evidence).
            || (text.starts_with("SAFE_RUN_") && text != "SAFE_RUN_HINT_TRACE" && text != "SAFE_RUN_KILL_TRACE")
            || text == "DATABASE_URL"
            || text == "NO_COLOR"
        {
            command.env_remove(&variable);
        }
    }
    let mut path = crate::servers::servers().tool_folders();
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    command.env("PATH", std::env::join_paths(path).expect("no folder on PATH has a colon"));
    command
}
