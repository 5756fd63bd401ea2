//! What `--version` says: the version of the workspace, what it was built from, and the servers that it is tested with.

use std::sync::LazyLock;

/// The majors of PostgreSQL that every test runs against or that are named where they are left out.
const SERVERS: &str = "PostgreSQL 14 to 19";

/// What `scripts/release` says of the build: the commit and its day. Cargo builds anew what reads it when it changes; no
/// build script looks for a repository, so a build from a tarball needs none.
const BUILD: Option<&str> = option_env!("SAFE_RUN_BUILD");

/// The answer to `--version`, after the program's name. `-V` gives the first line.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| text(BUILD));
    &TEXT
}

fn text(build: Option<&str>) -> String {
    let build = build.unwrap_or("built from source, commit not known");
    format!("{}\n{build}\n{SERVERS}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_tells_what_was_built_and_for_which_servers() {
        let lines = text(Some("commit 0123abcd of 2026-12-01"));
        assert_eq!(
            lines,
            concat!(env!("CARGO_PKG_VERSION"), "\ncommit 0123abcd of 2026-12-01\nPostgreSQL 14 to 19")
        );
        assert!(text(None).contains("not known"));
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&format!("{SERVERS},")), "README.md names the same majors");
    }
}
