//! `safe-run plan`: what a run would do, statement by statement.

use common::{Result, cli::output::Tone, format, postgres::ConnectionSettings};
use serde::Serialize;

use super::Invocation;
use crate::clone;
use sql::{
    migration::{self, MigrationFile, TransactionPlan},
    statement::{Statement, TransactionClass},
};

/// With more pending files than this, `plan` shows statements only where there is something to say about them.
const FILES_IN_FULL: usize = 20;

#[derive(Serialize)]
struct PlannedFile {
    version: String,
    file: String,
    no_transaction: Option<String>,
    /// About the file as a whole; those of a statement stand there.
    warnings: Vec<String>,
    statements: Vec<PlannedStatement>,
}

impl From<&MigrationFile> for PlannedFile {
    fn from(file: &MigrationFile) -> Self {
        Self {
            version: file.version.as_str().to_owned(),
            file: file.name(),
            no_transaction: file.no_transaction.clone(),
            warnings: file.warnings.iter().filter(|text| !text.starts_with("line ")).cloned().collect(),
            statements: file.statements.iter().map(PlannedStatement::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct PlannedStatement {
    line: u32,
    summary: String,
    transaction: &'static str,
    warnings: Vec<String>,
}

impl From<&Statement> for PlannedStatement {
    fn from(statement: &Statement) -> Self {
        let class = &statement.class;
        Self {
            line: statement.line,
            summary: statement.summary(90),
            transaction: match &class.transaction {
                TransactionClass::Transactional => "yes",
                TransactionClass::MustRunAlone { .. } => "no",
                TransactionClass::Unknown { .. } => "unknown",
            },
            warnings: class.warnings.iter().chain(&class.outside_transaction).cloned().collect(),
        }
    }
}

impl Invocation<'_> {
    /// Where to connect to. A folder that is not there is said before the server is asked.
    async fn connection_to_folders(&self, purpose: &str) -> Result<ConnectionSettings> {
        migration::signs(&self.settings.dirs)?;
        self.connection(purpose).await
    }

    pub(super) async fn plan(&self) -> Result<u8> {
        let connection = self.connection_to_folders("safe-run plan").await?;
        let (session, state) = self.read_only_state(&connection).await?;
        let plan = self.plan_of(&state)?;
        self.refuse_applied_elsewhere(&session, &state, &plan).await?;
        let transactions = self.transactions(&session, &plan).await?;
        let planned: Vec<PlannedFile> = plan.pending.iter().map(|file| PlannedFile::from(*file)).collect();
        self.refuse_clone_usage()?;
        let how = self.how(&transactions);
        if self.output.is_json() {
            self.output.document(&serde_json::json!({
                "pending": planned, "in_one_transaction": transactions.one, "how": how,
                "why_not_in_one_transaction": transactions.why,
            }))?;
            return Ok(0);
        }
        if planned.is_empty() {
            self.output.data("Nothing is pending.\n")?;
            return Ok(0);
        }
        let brief = planned.len() > FILES_IN_FULL && !self.output.is_verbose();
        let mut text: String = planned.iter().map(|file| self.file_as_text(file, brief)).collect();
        if brief {
            text.push_str(
                "\nOf so many files, only statements with a warning are shown; --verbose shows all.\n",
            );
        }
        text.push_str(&format!(
            "\n{}: {how}\nNothing was changed.\n",
            format::plural(planned.len() as u64, "migration", "migrations")
        ));
        self.output.data(&text)?;
        Ok(0)
    }

    /// In which transactions it would run, and what the undo would be.
    fn how(&self, transactions: &TransactionPlan) -> String {
        let choice = self.cli.protection().snapshot;
        match (transactions.one, choice.has_clone()) {
            (true, false) => "all in one transaction; the undo is a ROLLBACK".to_owned(),
            (true, true) => format!(
                "all in one transaction, and after its COMMIT the undo is {}",
                clone::undo_phrase(choice)
            ),
            (false, _) => format!(
                "not in one transaction ({}); the undo is {}",
                transactions.why.join("; "),
                clone::undo_phrase(choice)
            ),
        }
    }

    /// A file with its statements; a brief one has only those that a warning is about.
    fn file_as_text(&self, file: &PlannedFile, brief: bool) -> String {
        let mark = self.output.paint(Tone::Warning, "!");
        let name = self.output.paint(Tone::Strong, &file.file);
        let mut text = if brief {
            let count = format::plural(file.statements.len() as u64, "statement", "statements");
            format!("{name}  {count}\n")
        } else {
            format!("{name}\n")
        };
        for warning in &file.warnings {
            text.push_str(&format!("  {mark} {warning}\n"));
        }
        let told = |statement: &&PlannedStatement| !brief || !statement.warnings.is_empty();
        for statement in file.statements.iter().filter(told) {
            text.push_str(&format!("  {:>4}  {}\n", statement.line, statement.summary));
            for warning in &statement.warnings {
                text.push_str(&format!("        {mark} {warning}\n"));
            }
        }
        text
    }
}
