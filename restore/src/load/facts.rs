//! What the archive says of the work that is to be done.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use common::{
    Result,
    postgres::tools::Tool,
    snapshot::{Manifest, manifest::TableData, toc::Entry},
};

use super::{
    script::{self, Method},
    tasks,
};
use crate::contents;

/// What is known about the archive before any row is loaded. Reading it takes a while, which other work can fill.
pub async fn archive_facts(pg_restore: &Tool, archive: &Path, manifest: &Manifest) -> Result<ArchiveFacts> {
    let is_large = |data: &TableData| tasks::raw_bytes(data) >= large_bytes();
    let script = async {
        if manifest.tables.iter().any(is_large) {
            contents::post_data_script(pg_restore, archive).await
        } else {
            Ok(String::new())
        }
    };
    let (entries, post_data, script) = tokio::try_join!(
        contents::contents(pg_restore, archive),
        contents::post_data_entries(pg_restore, archive),
        script,
    )?;
    let (methods, one_column) =
        (script::methods(&script, &entries), script::one_column_keys(&script, &entries));
    Ok(ArchiveFacts { entries, post_data, methods, one_column })
}

/// From how many bytes of COPY text on a table is large.
pub(super) fn large_bytes() -> u64 {
    common::fault::number("restore.large_bytes").unwrap_or(tasks::LARGE_BYTES)
}

/// See [`archive_facts`].
#[derive(Debug, Default)]
pub struct ArchiveFacts {
    pub(super) entries: Vec<Entry>,
    pub(super) post_data: std::collections::BTreeSet<u32>,
    pub(super) methods: HashMap<u32, Method>,
    pub(super) one_column: HashMap<u32, String>,
}

impl ArchiveFacts {
    /// Only these entries.
    pub fn only(mut self, chosen: Option<&[u32]>) -> Self {
        if let Some(chosen) = chosen {
            let chosen: HashSet<u32> = chosen.iter().copied().collect();
            self.entries.retain(|entry| chosen.contains(&entry.id));
        }
        self
    }

    /// Whether the archive makes event triggers.
    pub fn has_event_triggers(&self) -> bool {
        self.entries.iter().any(|entry| entry.text.starts_with("EVENT TRIGGER "))
    }

    /// Whether anything that somebody wrote for this database can run while the rest of the archive is restored: such code
    /// could change rows that were compared before.
    pub fn has_code(&self) -> bool {
        const CODE: [&str; 7] = [
            "FUNCTION ",
            "PROCEDURE ",
            "AGGREGATE ",
            "EXTENSION ",
            "EVENT TRIGGER ",
            "PROCEDURAL LANGUAGE ",
            "MATERIALIZED VIEW ",
        ];
        self.entries.iter().any(|entry| CODE.iter().any(|kind| entry.text.starts_with(kind)))
    }
}
