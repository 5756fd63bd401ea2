//! Where PostgreSQL's programs are on this machine. Reads what `scripts/setup` found; never searches by
//! itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The folders with PostgreSQL's programs.
pub(crate) struct Servers {
    /// Major version to its `bin` folder.
    pub bins: BTreeMap<u32, PathBuf>,
    /// The folder of the newest released `psql`, `pg_dump` and `pg_restore`.
    pub tools: PathBuf,
}

/// Servers of later majors are tested where they can be had.
pub(crate) const LAST_RELEASED: u32 = 18;

const HOW: &str = "run `scripts/setup`, which finds or gets PostgreSQL 14 to 19";

/// `SAFE_RUN_TEST_PG`, else the file that `scripts/setup` wrote; read once.
pub(crate) fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let text =
            std::env::var("SAFE_RUN_TEST_PG").map(|list| list.replace(':', "\n")).unwrap_or_else(|_| {
                let file = cache().join("servers");
                std::fs::read_to_string(&file)
                    .unwrap_or_else(|e| panic!("cannot read {}: {e}; {HOW}", file.display()))
            });
        let mut bins = BTreeMap::new();
        let mut tools = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, folder) = line.split_once('=').unwrap_or_else(|| panic!("not MAJOR=FOLDER: {line}"));
            match key {
                "tools" => tools = Some(PathBuf::from(folder)),
                major => {
                    let major = major.parse().unwrap_or_else(|_| panic!("not a major version: {line}"));
                    bins.insert(major, PathBuf::from(folder));
                }
            }
        }
        // The newest server may come with its tools.
        let tools = tools
            .or_else(|| bins.values().rev().find(|bin| bin.join("pg_dump").exists()).cloned())
            .unwrap_or_else(|| panic!("no psql and pg_dump; {HOW}"));
        Servers { bins, tools }
    })
}

impl Servers {
    /// The folders with client tools: the released ones first, then each server's own, newest first.
    pub fn tool_folders(&self) -> Vec<PathBuf> {
        let own = self.bins.values().rev().filter(|bin| bin.join("pg_dump").exists() && **bin != self.tools);
        std::iter::once(&self.tools).chain(own).cloned().collect()
    }

    /// The newest client tools, which read every server that there is.
    pub fn newest_tools(&self) -> PathBuf {
        let (major, newest) = self.bins.iter().next_back().expect("there is a server");
        if *major > LAST_RELEASED && newest.join("pg_dump").exists() {
            newest.clone()
        } else {
            self.tools.clone()
        }
    }

    /// The `bin` folder of a major version. A missing one fails the test, with what to do.
    pub fn bin(&self, major: u32) -> PathBuf {
        let bin = self.bins.get(&major).unwrap_or_else(|| panic!("no PostgreSQL {major}; {HOW}")).clone();
        assert!(bin.join("postgres").exists(), "PostgreSQL {major} is gone from {}; {HOW}", bin.display());
        bin
    }
}

/// The same rule as `setup_cache` in `scripts/setup`.
pub(crate) fn cache() -> PathBuf {
    let base = match std::env::var_os("SAFE_RUN_CACHE") {
        Some(folder) => PathBuf::from(folder),
        // Root's own folder, which the servers' user can't read, is never the cache.
        None if is_root() => PathBuf::from("/var/cache/safe-run"),
        None => std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"))
            .join("safe-run"),
    };
    base.join("postgresql")
}

fn is_root() -> bool {
    let output = std::process::Command::new("id").arg("-u").output().expect("`id` is on every Unix");
    output.stdout.trim_ascii() == b"0"
}
