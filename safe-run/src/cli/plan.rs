//! `safe-run plan`: what a run would do, statement by statement, and what is dangerous in it.

mod annotations;
mod text;
mod undo;

use common::{ErrorKind, Result, postgres::ConnectionSettings};
use serde::Serialize;

use super::{
    Invocation,
    args::{PlanArgs, PlanOutput},
};
use crate::{
    outlook::{self, Outlook},
    run::loss_limits,
};
use sql::{
    migration::{self, MigrationFile, TransactionPlan},
    statement::{Statement, TransactionClass},
};
use undo::PlannedUndo;

/// What a run would do.
struct Planned {
    files: Vec<PlannedFile>,
    transactions: TransactionPlan,
    undo: PlannedUndo,
}

impl Planned {
    fn statements(&self) -> impl Iterator<Item = &PlannedStatement> {
        self.files.iter().flat_map(|file| &file.statements)
    }

    fn warnings(&self) -> usize {
        self.statements().map(|statement| statement.outlook.warnings()).sum()
    }

    fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "pending": self.files, "in_one_transaction": self.transactions.one, "how": self.undo.how, "undo": self.undo,
            "why_not_in_one_transaction": self.transactions.why,
        })
    }
}

#[derive(Serialize)]
struct PlannedFile {
    version: String,
    file: String,
    /// Where it was read.
    #[serde(skip)]
    path: String,
    no_transaction: Option<String>,
    /// About the file as a whole; those of a statement stand there.
    warnings: Vec<String>,
    statements: Vec<PlannedStatement>,
}

impl PlannedFile {
    fn new(file: &MigrationFile, outlooks: Vec<Outlook>, transactions: &TransactionPlan) -> Self {
        let statements = file.statements.iter().zip(outlooks);
        Self {
            version: file.version.as_str().to_owned(),
            file: file.name(),
            path: file.path.display().to_string(),
            no_transaction: file.no_transaction.clone(),
            warnings: file.warnings.iter().filter(|text| !text.starts_with("line ")).cloned().collect(),
            statements: statements
                .map(|(statement, outlook)| PlannedStatement::new(statement, outlook, transactions))
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct PlannedStatement {
    line: u32,
    summary: String,
    transaction: &'static str,
    warnings: Vec<String>,
    /// Why it makes the undo dearer, as a phrase.
    dearer_undo: Option<String>,
    #[serde(flatten)]
    outlook: Outlook,
}

impl PlannedStatement {
    fn new(statement: &Statement, outlook: Outlook, transactions: &TransactionPlan) -> Self {
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
            dearer_undo: undo::obstacle(&class.transaction, transactions),
            outlook,
        }
    }

    /// It has something to say in a brief list.
    fn is_told(&self) -> bool {
        !self.warnings.is_empty() || self.outlook.warnings() > 0
    }
}

impl Invocation<'_> {
    /// Where to connect to. A folder that is not there is said before the server is asked.
    async fn connection_to_folders(&self, purpose: &str) -> Result<ConnectionSettings> {
        migration::signs(&self.settings.dirs)?;
        self.connection(purpose).await
    }

    pub(super) async fn plan(&self, args: &PlanArgs) -> Result<u8> {
        let connection = self.connection_to_folders("safe-run plan").await?;
        let (session, state) = self.read_only_state(&connection).await?;
        let plan = self.plan_of(&state)?;
        self.refuse_applied_elsewhere(&session, &state, &plan).await?;
        let transactions = self.transactions(&session, &plan).await?;
        let limits = loss_limits(&self.run_options(Vec::new()), &plan.pending);
        let sight = outlook::sight(&session).await?;
        let allows = |table: &outlook::Table| {
            let rows = table.rows.map_or(0, |rows| i64::try_from(rows).unwrap_or(i64::MAX));
            limits.allows(std::slice::from_ref(&table.name), rows)
        };
        let outlooks = outlook::look(&session, &sight, &plan.pending, allows).await?;
        let files = plan.pending.iter().zip(outlooks);
        let files = files.map(|(file, outlooks)| PlannedFile::new(file, outlooks, &transactions)).collect();
        self.refuse_clone_usage()?;
        let undo = self.planned_undo(&transactions, &plan.pending, session.settings().database());
        self.tell(args, &Planned { files, transactions, undo })
    }

    /// Writes the plan as asked for, and says with which code to exit.
    fn tell(&self, args: &PlanArgs, plan: &Planned) -> Result<u8> {
        let code = match args.deny_warnings && plan.warnings() > 0 {
            true => ErrorKind::Warnings.exit_code(),
            false => 0,
        };
        if self.output.is_json() {
            self.output.document(&plan.document())?;
            return Ok(code);
        }
        match args.output {
            PlanOutput::Text => self.output.data(&self.plan_as_text(plan))?,
            PlanOutput::Github => self.output.data(&annotations::github(&plan.files))?,
            PlanOutput::Sarif => self.output.exactly(&annotations::sarif(&plan.files))?,
        }
        Ok(code)
    }
}
