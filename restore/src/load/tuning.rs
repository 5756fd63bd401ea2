//! What the sessions of a restore are set to. Only what any role may set, and only for these sessions.
//!
//! What it must never do: take so much of the server's memory that others suffer. A server that is configured for more
//! keeps its own setting.

use std::path::Path;

use common::{
    Error, Result,
    postgres::{Session, settings::Place},
};

/// No index gets faster from more, kB.
const MOST_KB: u64 = 512 * 1024;

/// Settings for the sessions that build indexes and check foreign keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// `maintenance_work_mem`.
    maintenance_work_mem_kb: u64,
}

impl Tuning {
    /// Asks the server, for so many sessions at once.
    pub async fn look(session: &Session, jobs: usize) -> Result<Self> {
        let row = session
            .query_one(
                "SELECT (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'),
                        (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'shared_buffers')
                        * pg_catalog.current_setting('block_size')::bigint / 1024",
                &[],
            )
            .await
            .map_err(|source| Error::postgres("could not read the server's memory settings", source))?;
        let (own, shared): (i64, i64) = (row.get(0), row.get(1));
        let is_here =
            session.settings().servers().iter().all(|server| matches!(server.place, Place::Socket(_)));
        let available = if is_here { available_kb(Path::new("/proc/meminfo")) } else { None };
        Ok(Self {
            maintenance_work_mem_kb: affordable(own.unsigned_abs(), shared.unsigned_abs(), available, jobs),
        })
    }

    /// As `-c name=value`; `is_last` when nothing else is left to do, so that one build may use all processors.
    ///
    /// A crash of the server loses the last commits, and the new database with them: what was restored is flushed before
    /// that is called done. Rows that were just written are in memory, so that reading by an index costs no more than
    /// reading in order.
    pub fn options(self, is_last: bool) -> String {
        let parallel = if is_last { "" } else { " -c max_parallel_maintenance_workers=0" };
        format!(
            "-c synchronous_commit=off -c maintenance_work_mem={}kB -c random_page_cost=1.1 -c jit=off{parallel}",
            self.maintenance_work_mem_kb
        )
    }
}

/// An eighth of the memory that is free, where that can be seen, else a quarter of what the server's administrator gave
/// to shared buffers, for all sessions together; never less than the server's own setting.
fn affordable(own_kb: u64, shared_kb: u64, available_kb: Option<u64>, jobs: usize) -> u64 {
    let for_all = available_kb.map_or(shared_kb / 4, |available| available / 8);
    own_kb.max((for_all / jobs.max(1) as u64).min(MOST_KB))
}

fn available_kb(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_only_where_there_is_plenty() {
        const MB: u64 = 1024;
        // The defaults of a server that can't be looked at: its own setting.
        assert_eq!(affordable(64 * MB, 128 * MB, None, 4), 64 * MB);
        assert_eq!(affordable(64 * MB, 8192 * MB, None, 4), 512 * MB);
        assert_eq!(affordable(64 * MB, 2048 * MB, None, 2), 256 * MB);
        // On this machine, what is free counts.
        assert_eq!(affordable(64 * MB, 8192 * MB, Some(1024 * MB), 4), 64 * MB);
        assert_eq!(affordable(64 * MB, 128 * MB, Some(16384 * MB), 8), 256 * MB);
        // An administrator who gave more knows better.
        assert_eq!(affordable(2048 * MB, 128 * MB, Some(4096 * MB), 8), 2048 * MB);
    }

    #[test]
    fn only_the_last_build_has_the_servers_parallel_workers() {
        let tuning = Tuning { maintenance_work_mem_kb: 65536 };
        assert!(tuning.options(false).contains("max_parallel_maintenance_workers=0"));
        assert!(!tuning.options(true).contains("max_parallel"));
    }
}
