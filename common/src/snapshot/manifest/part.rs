//! What makes a snapshot one of a part of its database.

use serde::{Deserialize, Serialize};

use crate::QualifiedName;

/// The patterns that chose a part of the database, as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// `--schema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// `--table`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// `--exclude-schema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_schemas: Vec<String>,
    /// `--exclude-table`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// `--exclude-table-data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_table_data: Vec<String>,
}

impl Filters {
    /// Whether there is none: then the whole database is meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something is named that shall come, and not only what shall not.
    pub fn choose(&self) -> bool {
        !(self.schemas.is_empty() && self.tables.is_empty())
    }
}

impl std::fmt::Display for Filters {
    /// As on the command line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = [
            ("--schema", &self.schemas),
            ("--table", &self.tables),
            ("--exclude-schema", &self.exclude_schemas),
            ("--exclude-table", &self.exclude_tables),
            ("--exclude-table-data", &self.exclude_table_data),
        ];
        let words: Vec<String> = flags
            .iter()
            .flat_map(|(flag, patterns)| patterns.iter().map(move |pattern| (flag, pattern)))
            .map(|(flag, pattern)| {
                format!("{flag} {}", crate::ident::shell_word(&crate::ident::printable(pattern)))
            })
            .collect();
        f.write_str(&words.join(" "))
    }
}

/// What makes a snapshot one of a part of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// What was asked for.
    pub filters: Filters,
    /// The entries of the archive that belong to it, in the archive's order.
    pub entries: Vec<u32>,
    /// What is not in it, one phrase each; objects that need what was left out say so.
    pub left_out: Vec<String>,
    /// Tables whose definition is in it and whose rows are not.
    pub without_rows: Vec<QualifiedName>,
}
