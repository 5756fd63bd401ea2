//! Migration tools of others, as PyPI and npm have them. Reads what `scripts/setup-tools` found; never searches by itself.
//!
//! A test that needs one is called `real_<tool>_…`: by these names `scripts/test` leaves out, and says that it leaves out, what
//! could not be had.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::servers::cache;

/// The folder under this key; a missing one fails the test, with what to do.
fn folder(key: &str) -> PathBuf {
    let found = cache().parent().expect("it is a folder in the cache").join("tools/found");
    let how = "run `scripts/setup-tools`, which gets the migration tools of others";
    let text = std::fs::read_to_string(&found)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}; {how}", found.display()));
    let folder = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let folder = PathBuf::from(folder.unwrap_or_else(|| panic!("{text}\n{how}")));
    assert!(folder.is_dir(), "{} is gone; {how}", folder.display());
    folder
}

/// The folder for PYTHONPATH that has alembic, Django and their drivers, and sqlx as `bin/sqlx`.
pub fn python() -> PathBuf {
    folder("python")
}

/// The folder with unpacked extensions for Debian's PostgreSQL 15: pg_cron, periods, pgq, postgis, pg_partman and pglogical. A test
/// that needs it is called `real_extension_…`.
pub fn extensions() -> PathBuf {
    folder("extensions")
}

/// The folder `node_modules` that has dbmate and Prisma.
pub fn node_modules() -> PathBuf {
    folder("node").join("node_modules")
}

/// Sqitch, as Debian has it, run by the system's perl.
pub fn sqitch() -> Command {
    let root = folder("sqitch");
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    // Modules in C lie in a folder that is named for perl's version.
    let versions = std::fs::read_dir(libraries.join("perl5")).into_iter().flatten();
    let mut modules = vec![root.join("usr/share/perl5")];
    modules.extend(versions.map(|entry| entry.expect("it is readable").path()));
    let mut command = Command::new("perl");
    command.arg("-CAS").arg(root.join("usr/bin/sqitch"));
    command.env("PERL5LIB", std::env::join_paths(modules).expect("no folder has a colon"));
    command.env("LD_LIBRARY_PATH", libraries);
    command.env("SQITCH_FULLNAME", "somebody").env("SQITCH_EMAIL", "somebody@example.org");
    command
}

/// Prisma, for the files in `dir/migrations`. It works without the engine that it would download: with the one for JavaScript
/// and a driver adapter. Only whether there is a connection it asks of the other one, and a script says yes.
pub fn prisma(dir: &Path, url: &str) -> Command {
    let fixtures = fixtures().join("prisma");
    for name in ["prisma.config.mjs", "schema.prisma", "engine"] {
        std::fs::copy(fixtures.join(name), dir.join(name)).expect("the folder is ours");
    }
    let modules = dir.join("node_modules");
    if !modules.exists() {
        std::os::unix::fs::symlink(node_modules(), &modules).expect("the folder is ours");
    }
    let mut command = Command::new(modules.join(".bin/prisma"));
    // With paths of one's own it downloads nothing.
    for variable in ["PRISMA_SCHEMA_ENGINE_BINARY", "PRISMA_QUERY_ENGINE_LIBRARY"] {
        command.env(variable, dir.join("engine"));
    }
    command.env("CHECKPOINT_DISABLE", "1").env("DATABASE_URL", url).current_dir(dir);
    command
}

/// The projects of these tools that tests copy.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tools")
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is ours");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the folder is ours");
        }
    }
}
