//! What an import would do, for a dry run: a value, as lines and as a document. Pure but for the look at the rows.

use common::{Error, Progress, Result, format::count};
use serde::Serialize;

use super::{
    Import, ImportOptions, Source, Way, around,
    aside::Quarantine,
    choices::{BadValues, Existing, Orphans},
    make, orphans,
    plan::TablePlan,
    tell::note_table,
};
use crate::report::import::ImportReport;

/// What a dry run found.
#[derive(Debug, Serialize)]
pub struct Looked {
    /// The file, the tables with their rows, and bad values.
    pub import: ImportReport,
    /// Each table's columns: `id bigint <- id`.
    pub columns: Vec<Vec<String>>,
    /// Orphans, by foreign key.
    pub orphans: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Tables of PostgreSQL that nothing is imported into.
    pub not_in_file: Vec<String>,
    /// What would be refused.
    pub refusals: Vec<String>,
    /// The statements that would make the schema.
    pub statements: Vec<String>,
    /// Parts of the file's schema without a translation.
    pub untranslated: Vec<String>,
}

impl Looked {
    /// One document.
    pub fn document(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self)
            .map_err(|source| Error::failed(format!("could not encode the plan: {source}")))
    }

    /// Lines for a person.
    pub fn text(&self, verbose: bool) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        match self.refusals.len() {
            0 => line("DRY RUN  nothing speaks against this import; nothing was changed"),
            found => line(&format!(
                "DRY RUN  {} against this import; nothing was changed",
                if found == 1 { "1 thing speaks" } else { "several things speak" }
            )),
        }
        for refusal in &self.refusals {
            line(&format!("would be refused: {refusal}"));
        }
        for told in self.import.lines(false) {
            line(&told);
        }
        for (table, columns) in self.import.tables.iter().zip(&self.columns) {
            let bad =
                if table.bad_rows > 0 { format!(", {} bad", count(table.bad_rows)) } else { String::new() };
            line(&format!("{} → {}: {} rows{bad}", table.source, table.table, count(table.rows)));
            for column in columns {
                line(&format!("    {column}"));
            }
        }
        for orphans in &self.orphans {
            line(&format!("orphans: {orphans}"));
        }
        for note in &self.notes {
            line(&format!("note: {note}"));
        }
        for part in &self.untranslated {
            line(&format!("not translated: {part}"));
        }
        for table in &self.not_in_file {
            line(&format!("stays as it is: table {table}, which the file does not have"));
        }
        if verbose {
            for statement in &self.statements {
                line(&format!("{statement};"));
            }
        }
        out
    }
}

impl Import {
    /// The schema that would be made in an empty database, as a script.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn schema_script(source: &Source, options: &ImportOptions) -> Result<String> {
        Ok(make::translate(source, options, "public")?.script(&source.name()))
    }

    /// Reads every row and converts every value, without a word to the server.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn look(&self, progress: &Progress) -> Result<Looked> {
        let mut import = self.report();
        let mut nowhere = Quarantine::nowhere();
        progress.phase("reading the file", Some(self.source.digest.file_bytes));
        for table in &self.plan().tables {
            progress.step(table.target.name.short());
            let began = std::time::Instant::now();
            let loaded = self.table(None, table, &mut nowhere, progress).await?;
            note_table(&mut import, table, &loaded, began.elapsed().as_secs_f64());
        }
        progress.done();
        self.source.file.unchanged()?;
        let mut refusals = Vec::new();
        let mut refuse = |result: Result<()>| {
            refusals.extend(result.err().map(|error| match error.hint() {
                Some(hint) => format!("{error}. {hint}"),
                None => error.to_string(),
            }));
        };
        refuse(around::refuse_existing(self.plan(), &self.existing, self.options.existing, &self.limits));
        if self.options.orphans == Orphans::Fail {
            refuse(orphans::refuse(&self.orphans));
        }
        let bad: u64 = import.tables.iter().map(|table| table.bad_rows).sum();
        if bad > 0 && self.options.bad_values == BadValues::Stop {
            refusals.push(format!(
                "{} have values that PostgreSQL can't hold unchanged",
                around::plural_rows(bad.cast_signed())
            ));
        }
        let mut notes = self.plan().notes.clone();
        if self.options.existing == Existing::Append {
            notes.push(
                "rows are added: keys that are there already, and orphans, are found by PostgreSQL"
                    .to_owned(),
            );
        }
        let (statements, untranslated) = match &self.way {
            Way::Into(_) => (Vec::new(), Vec::new()),
            Way::Make(made) => (
                made.translation.statements.iter().map(|statement| statement.sql.clone()).collect(),
                made.translation
                    .untranslated
                    .iter()
                    .map(|part| format!("{}: {}", part.what, part.reason))
                    .collect(),
            ),
        };
        Ok(Looked {
            import,
            columns: self.plan().tables.iter().map(columns).collect(),
            orphans: self.orphans.iter().map(orphans::Found::sentence).collect(),
            notes,
            not_in_file: self.plan().not_in_file.iter().map(common::QualifiedName::short).collect(),
            refusals,
            statements,
            untranslated,
        })
    }
}

fn columns(table: &TablePlan) -> Vec<String> {
    table
        .columns
        .iter()
        .map(|column| {
            let (name, from) = (
                common::ident::printable(&column.target.name),
                common::ident::printable(&column.source_name),
            );
            let from = if from == name { String::new() } else { format!(" <- {from}") };
            format!("{name} {}{from}", column.target.takes.shown)
        })
        .collect()
}
