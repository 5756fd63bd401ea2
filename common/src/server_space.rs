//! Is there room on the server for one more database? Known only where the server's disk can be looked at from here; where
//! it can't, that is said, and nothing is refused.

use std::{io::Read as _, path::Path};

use crate::{
    files::free_space,
    format,
    postgres::{Session, settings::Place},
    snapshot::Manifest,
};

/// The room on the disk that the new database would lie on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Space {
    /// Bytes that may still be written, and where.
    Free(u64, String),
    /// Why it is not known.
    Unknown(String),
}

impl Default for Space {
    fn default() -> Self {
        Self::Unknown("nobody looked".to_owned())
    }
}

/// Bytes that a restore takes: the size of the whole database when the snapshot was taken, indexes and bloat included.
pub fn needed(manifest: &Manifest) -> u64 {
    manifest.database_bytes.unwrap_or_else(|| manifest.raw_bytes())
}

/// What is needed and what there is, for a person; and whether it is clearly too little.
pub fn compare(needed: u64, space: &Space) -> (String, bool) {
    match space {
        Space::Free(free, path) => (
            format!(
                "needs about {} of disk space, and {path} has {} free",
                format::bytes(needed),
                format::bytes(*free)
            ),
            *free < needed,
        ),
        Space::Unknown(why) => (
            format!(
                "needs about {} of disk space on the server, whose free space could not be checked: {why}",
                format::bytes(needed)
            ),
            false,
        ),
    }
}

/// Looks at the disk of a tablespace, if the server is on this machine.
pub async fn look(maintenance: &Session, tablespace: &str) -> Space {
    let unknown = |why: &str| Space::Unknown(why.to_owned());
    // What only a superuser or pg_read_all_settings may see is no row for others.
    let row = maintenance
        .query_opt(
            "SELECT s.setting, COALESCE((SELECT NULLIF(pg_catalog.pg_tablespace_location(t.oid), '')
                    FROM pg_catalog.pg_tablespace t WHERE t.spcname = $1::text::name), s.setting),
                    (SELECT system_identifier FROM pg_catalog.pg_control_system())
             FROM pg_catalog.pg_settings s WHERE s.name = 'data_directory'",
            &[&tablespace],
        )
        .await;
    let row = match row {
        Ok(Some(row)) => row,
        Ok(None) => return unknown("the role may not see data_directory (GRANT pg_read_all_settings)"),
        Err(source) => return Space::Unknown(format!("{source}")),
    };
    let (data, location, identifier): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
    let is_socket =
        maintenance.settings().servers().iter().all(|server| matches!(server.place, Place::Socket(_)));
    match control_identifier(Path::new(&data)) {
        Some(found) if found != identifier => return unknown("the server runs on another machine"),
        Some(_) => {}
        // Not readable by this user. A Unix socket is of this machine, unless it reaches into a container.
        None if is_socket => {}
        None => return unknown("the server may run on another machine"),
    }
    match free_space(Path::new(&location)) {
        Ok(free) => Space::Free(free, location),
        Err(error) => Space::Unknown(error.to_string()),
    }
}

/// The system identifier in a data folder's control file: its first eight bytes, in the machine's own order.
fn control_identifier(data: &Path) -> Option<i64> {
    let mut bytes = [0; 8];
    std::fs::File::open(data.join("global/pg_control")).ok()?.read_exact(&mut bytes).ok()?;
    Some(i64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_too_little_is_too_little() {
        assert!(compare(100, &Space::Free(99, "/data".into())).1);
        assert!(!compare(100, &Space::Free(100, "/data".into())).1);
        let (text, refused) = compare(100, &Space::Unknown("it is far away".into()));
        assert!(!refused && text.contains("could not be checked: it is far away"), "{text}");
    }
}
