//! Finds the text that a file had when it was applied, in the history of git: a checksum alone can't say whether a change
//! matters.

use std::{path::Path, process::Command};

/// Most commits that are looked at.
const MAX_COMMITS: &str = "200";

/// The first text of the file, newest commit first, that `is_it` accepts. `None` when there is no git, no repository, or
/// no such text.
pub fn original(path: &Path, is_it: impl Fn(&str) -> bool) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name()?.to_str()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    let commits = git(&["log", "--format=%H", "-n", MAX_COMMITS, "--", name])?;
    String::from_utf8(commits).ok()?.lines().find_map(|commit| {
        let text = String::from_utf8(git(&["show", &format!("{commit}:./{name}")])?).ok()?;
        is_it(&text).then_some(text)
    })
}
