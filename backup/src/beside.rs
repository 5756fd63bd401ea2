//! What a snapshot says of content that it does not store, so that a restore can compare it.

use std::collections::{BTreeMap, HashSet};

use common::{
    Progress, Result,
    catalog::Sequence,
    format,
    postgres::{ConnectionSettings, Session, beside_rows, extension_objects},
    snapshot::manifest::{ExtensionObjects, ExtensionTable, GeneratedColumns},
};

/// What is read and not stored, of a whole database only.
#[derive(Debug, Default)]
pub struct Beside {
    /// Tables of extensions whose rows pg_dump does not write.
    pub extension_tables: Option<Vec<ExtensionTable>>,
    /// What extensions own.
    pub extension_objects: Option<BTreeMap<String, ExtensionObjects>>,
    /// Sequences of extensions that are no configuration.
    pub extension_sequences: Vec<Sequence>,
    /// Values of generated columns.
    pub generated: Option<Vec<GeneratedColumns>>,
}

impl Beside {
    /// Reads all of it; `reader` is in the snapshot.
    pub async fn read(settings: &ConnectionSettings, reader: &Session, progress: &Progress) -> Result<Self> {
        Ok(Self {
            extension_tables: Some(beside_rows::extension_tables(settings, reader, None, progress).await?),
            extension_objects: Some(extension_objects::read(reader, false).await?),
            extension_sequences: beside_rows::extension_sequences(reader).await?,
            generated: Some(beside_rows::generated(reader, None, progress).await?),
        })
    }

    /// Of a trial's snapshot the same, with the rows of tables that are in it alone; of another part nothing.
    pub async fn of_part(
        settings: &ConnectionSettings,
        reader: &Session,
        rows_of: Option<&HashSet<u32>>,
        progress: &Progress,
    ) -> Result<Self> {
        let Some(rows) = rows_of else { return Ok(Self::default()) };
        let tables = beside_rows::extension_tables(settings, reader, Some(rows), progress).await?;
        Ok(Self {
            extension_tables: Some(tables),
            extension_objects: Some(extension_objects::read(reader, true).await?),
            extension_sequences: beside_rows::extension_sequences(reader).await?,
            generated: Some(beside_rows::generated(reader, Some(rows), progress).await?),
        })
    }

    /// A sentence on rows of extensions that pg_dump does not write. Some of them may come with CREATE EXTENSION: a restore
    /// compares, and says what did not.
    pub fn not_written(&self) -> Option<String> {
        const NAMED: usize = 5;
        let with_rows = |table: &&ExtensionTable| {
            !table.is_partly_written && table.found.is_some_and(|found| found.rows > 0)
        };
        let tables: Vec<&ExtensionTable> = self.extension_tables.iter().flatten().filter(with_rows).collect();
        let names: Vec<String> = tables.iter().take(NAMED).map(|table| table.name.short()).collect();
        let more = tables.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!tables.is_empty()).then(|| {
            format!(
                "{} of extensions that pg_dump does not write ({}{more}): what CREATE EXTENSION does not make is not there \
                 after a restore, which compares and names it",
                format::plural(tables.len() as u64, "table", "tables"),
                names.join(", ")
            )
        })
    }
}
