//! What a restore of tables will do, as a value that a dry run prints. Pure.

use common::{
    Ident, QualifiedName, Result, format,
    ident::{MAX_IDENT_BYTES, printable, with_suffix},
    snapshot::{Manifest, toc::Choice},
};
use serde::Serialize;

use super::select::{Selection, left_out};

/// Where the tables shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Into the live database, under other names.
    Beside,
    /// Into a new database.
    Into,
    /// Into the live tables.
    Replace,
}

/// One table of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTable {
    /// Its name in the snapshot.
    pub table: String,
    /// The table that holds its rows afterwards.
    pub becomes: String,
    /// The table that keeps what was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Stored bytes that are read for it.
    pub stored_bytes: u64,
}

/// Something that comes along, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Along {
    /// What it is.
    pub object: String,
    /// Who needs it.
    pub needed_by: String,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartPlan {
    /// The snapshot.
    pub snapshot: String,
    /// Where the tables go.
    pub mode: Mode,
    /// The database that gets them.
    pub database: String,
    /// The tables, by name.
    pub tables: Vec<PlannedTable>,
    /// Rows of all.
    pub rows: u64,
    /// Stored bytes that are read and verified, with the schema archive and its companions.
    pub bytes_to_read: u64,
    /// What comes along.
    pub along: Vec<Along>,
    /// What is left out.
    pub left_out: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Makes the plan. `names` gives each table's new name, and the name for what was there.
pub fn plan(
    manifest: &Manifest,
    part: &Manifest,
    selection: &Selection,
    choice: &Choice,
    mode: Mode,
    database: &str,
    names: impl Fn(&QualifiedName) -> (QualifiedName, Option<QualifiedName>),
) -> PartPlan {
    let tables = selection
        .units
        .iter()
        .map(|unit| {
            let data = Selection::data(manifest, unit);
            let chunks = || data.iter().flat_map(|data| &data.chunks);
            let (becomes, kept_as) = names(&unit.name);
            PlannedTable {
                table: unit.name.short(),
                becomes: becomes.short(),
                kept_as: kept_as.map(|name| name.short()),
                rows: data.iter().map(|data| data.rows()).fold(0, u64::saturating_add),
                stored_bytes: chunks().map(|chunk| chunk.content.stored_bytes).fold(0, u64::saturating_add),
            }
        })
        .collect();
    let mut along: Vec<Along> = Vec::new();
    for (object, needed_by) in &choice.along {
        along.push(Along { object: object.clone(), needed_by: needed_by.clone() });
    }
    along.sort_by(|a, b| (&a.object, &a.needed_by).cmp(&(&b.object, &b.needed_by)));
    along.dedup();
    let mut left: Vec<String> = choice.left_out.iter().map(|(what, why)| left_out(what, why)).collect();
    left.sort();
    let mut notes = Vec::new();
    if manifest.large_objects.is_some() {
        notes.push(
            "large objects do not belong to a table and are not restored: a column that holds their oids refers to those of \
             the live database"
                .to_owned(),
        );
    }
    if mode == Mode::Replace {
        notes.push(
            "views, grants, policies, triggers and foreign keys of the live table stay as they are"
                .to_owned(),
        );
        left.clear();
        along.clear();
    }
    PartPlan {
        snapshot: manifest.id.to_string(),
        mode,
        database: database.to_owned(),
        tables,
        rows: part.rows(),
        bytes_to_read: part.stored_bytes(),
        along,
        left_out: left,
        notes,
    }
}

impl PartPlan {
    /// As a person reads it.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "Snapshot {}: {}, {}, {} to read\n",
            self.snapshot,
            format::plural(self.tables.len() as u64, "table", "tables"),
            format::plural(self.rows, "row", "rows"),
            format::bytes(self.bytes_to_read),
        );
        let database = printable(&self.database);
        for table in &self.tables {
            let rows = format::plural(table.rows, "row", "rows");
            text.push_str(&match (self.mode, &table.kept_as) {
                (Mode::Beside, _) => {
                    format!("  {} ({rows}) becomes {} in \"{database}\"\n", table.table, table.becomes)
                }
                (Mode::Into, _) => format!("  {} ({rows}) in the new database \"{database}\"\n", table.table),
                (Mode::Replace, Some(kept)) => format!(
                    "  {} in \"{database}\" gets these {rows}; what it holds now is kept as {kept}\n",
                    table.table
                ),
                (Mode::Replace, None) => {
                    format!(
                        "  {} in \"{database}\" gets these {rows}; what it holds now is dropped\n",
                        table.table
                    )
                }
            });
        }
        for along in &self.along {
            text.push_str(&format!("  with {} (needed by {})\n", along.object, along.needed_by));
        }
        for left in &self.left_out {
            text.push_str(&format!("  left out: {left}\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        text
    }
}

/// Gives names that nothing has yet.
#[derive(Debug, Default)]
pub struct FreeNames {
    taken: std::collections::HashSet<QualifiedName>,
}

impl FreeNames {
    /// Names that are taken.
    pub fn new(taken: impl IntoIterator<Item = QualifiedName>) -> Self {
        Self { taken: taken.into_iter().collect() }
    }

    /// Takes a name that was given out already.
    pub fn reserve(&mut self, name: &QualifiedName) {
        self.taken.insert(name.clone());
    }

    /// `name` with a suffix, shortened to fit; a number comes before the suffix where the name would be taken: two long
    /// names may become the same.
    pub fn take(&mut self, name: &QualifiedName, suffix: &str) -> Result<QualifiedName> {
        for number in 1..10_000u32 {
            let suffix = if number == 1 { suffix.to_owned() } else { format!("_{number}{suffix}") };
            let made = with_suffix(name.name.as_str(), &suffix);
            debug_assert!(made.len() <= MAX_IDENT_BYTES);
            let made = QualifiedName::new(name.schema.clone(), Ident::new(made));
            if self.taken.insert(made.clone()) {
                return Ok(made);
            }
        }
        Err(common::Error::failed(format!("there is no free name for {}", name.short())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_that_differ_at_their_end_only_do_not_become_the_same() {
        let long = "x".repeat(62);
        let mut names = FreeNames::default();
        let a =
            names.take(&QualifiedName::new("s", format!("{long}a")), "_restored_20261121_034149").unwrap();
        let b =
            names.take(&QualifiedName::new("s", format!("{long}b")), "_restored_20261121_034149").unwrap();
        assert_ne!(a, b);
        for name in [a, b] {
            let text = name.name.as_str();
            assert!(text.len() <= MAX_IDENT_BYTES && text.ends_with("_restored_20261121_034149"), "{text}");
        }
    }
}
