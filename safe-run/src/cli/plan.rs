//! `safe-run plan`: what a run would do, statement by statement, and what is dangerous in it.

mod annotations;

use common::{ErrorKind, Result, cli::output::Tone, format, postgres::ConnectionSettings};
use serde::Serialize;

use super::{
    Invocation,
    args::{PlanArgs, PlanOutput},
};
use crate::{
    clone,
    outlook::{self, Blocked, Effort, Outlook, PlannedLock, What},
    run::loss_limits,
};
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
    /// Where it was read.
    #[serde(skip)]
    path: String,
    no_transaction: Option<String>,
    /// About the file as a whole; those of a statement stand there.
    warnings: Vec<String>,
    statements: Vec<PlannedStatement>,
}

impl PlannedFile {
    fn new(file: &MigrationFile, outlooks: Vec<Outlook>) -> Self {
        let statements = file.statements.iter().zip(outlooks);
        Self {
            version: file.version.as_str().to_owned(),
            file: file.name(),
            path: file.path.display().to_string(),
            no_transaction: file.no_transaction.clone(),
            warnings: file.warnings.iter().filter(|text| !text.starts_with("line ")).cloned().collect(),
            statements: statements
                .map(|(statement, outlook)| PlannedStatement::new(statement, outlook))
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
    #[serde(flatten)]
    outlook: Outlook,
}

impl PlannedStatement {
    fn new(statement: &Statement, outlook: Outlook) -> Self {
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
        let planned: Vec<PlannedFile> = plan
            .pending
            .iter()
            .zip(outlooks)
            .map(|(file, outlooks)| PlannedFile::new(file, outlooks))
            .collect();
        self.refuse_clone_usage()?;
        let how = self.how(&transactions);
        let warnings: usize = planned
            .iter()
            .flat_map(|file| &file.statements)
            .map(|statement| statement.outlook.warnings())
            .sum();
        let code = match args.deny_warnings && warnings > 0 {
            true => ErrorKind::Warnings.exit_code(),
            false => 0,
        };
        if self.output.is_json() {
            self.output.document(&serde_json::json!({
                "pending": planned, "in_one_transaction": transactions.one, "how": how,
                "why_not_in_one_transaction": transactions.why,
            }))?;
            return Ok(code);
        }
        match args.output {
            PlanOutput::Text => {}
            PlanOutput::Github => {
                self.output.data(&annotations::github(&planned))?;
                return Ok(code);
            }
            PlanOutput::Sarif => {
                self.output.exactly(&annotations::sarif(&planned))?;
                return Ok(code);
            }
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
            "\n{}: {how}\n",
            format::plural(planned.len() as u64, "migration", "migrations")
        ));
        let mut locks =
            planned.iter().flat_map(|file| &file.statements).flat_map(|statement| &statement.outlook.locks);
        if locks.any(|lock| lock_as_text(lock).is_some()) {
            text.push_str("A lock is held until the COMMIT, and the checks come before it. Rows and sizes are those of the last ANALYZE.\n");
        }
        if warnings > 0 {
            text.push_str(&format!(
                "{}: https://squawkhq.com/docs/RULE explains a rule, `-- squawk-ignore RULE` before a statement silences it there\n",
                format::plural(warnings as u64, "warning", "warnings")
            ));
        }
        text.push_str("Nothing was changed.\n");
        self.output.data(&text)?;
        Ok(code)
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
        let told = |statement: &&PlannedStatement| !brief || statement.is_told();
        for statement in file.statements.iter().filter(told) {
            text.push_str(&format!("  {:>4}  {}\n", statement.line, statement.summary));
            let outlook = &statement.outlook;
            let lines = outlook.locks.iter().filter_map(lock_as_text);
            let lines =
                lines.chain(outlook.efforts.iter().map(|effort| effort_as_text(effort, &outlook.locks)));
            for line in lines.chain(unknown_as_text(outlook)) {
                text.push_str(&format::wrapped("        ", "          ", &line));
            }
            for warning in statement.warnings.iter().cloned().chain(warnings_as_text(&statement.outlook)) {
                text.push_str(&format::wrapped(&format!("        {mark} "), "          ", &warning));
            }
        }
        text
    }
}

/// Who waits for it; nothing where plain reading and writing goes on.
fn lock_as_text(lock: &PlannedLock) -> Option<String> {
    let who = match lock.blocks {
        Blocked::ReadsAndWrites => "nobody reads or writes",
        Blocked::Writes => "nobody writes to",
        Blocked::Schema => return None,
    };
    let (table, size) = (common::ident::printable(&lock.table), size_as_text(lock.rows, lock.bytes));
    Some(format!("{who} {table} meanwhile ({}; {size})", lock.mode))
}

/// What happens to its rows; how many they are stands in the line of the lock.
fn effort_as_text(effort: &Effort, locks: &[PlannedLock]) -> String {
    let table = common::ident::printable(&effort.table);
    let indexes = format::plural(effort.indexes as u64, "index", "indexes");
    let what = match effort.what {
        What::Rewrite if effort.indexes > 0 => {
            format!("all rows of {table} are written anew, with {indexes}")
        }
        What::Rewrite => format!("all rows of {table} are written anew"),
        What::Scan | What::Lookup => format!("all rows of {table} are read"),
        What::Index if effort.indexes == 1 => format!("an index is built over {table}"),
        What::Index => format!("{indexes} are built over {table}"),
    };
    let why = match effort.why.as_str() {
        "" => String::new(),
        why => format!(": {}", common::ident::printable(why)),
    };
    let is_told = locks.iter().any(|lock| lock.table == effort.table && lock_as_text(lock).is_some());
    let rows =
        if is_told { String::new() } else { format!(" ({})", size_as_text(effort.rows, effort.bytes)) };
    format!("{what}{why}{rows}")
}

fn size_as_text(rows: Option<u64>, bytes: u64) -> String {
    let size = if bytes > 0 { format!(", {}", format::bytes(bytes)) } else { String::new() };
    format!("{}{size}", rows_as_text(rows))
}

fn rows_as_text(rows: Option<u64>) -> String {
    match rows {
        Some(rows) => format!("about {}", format::plural(rows, "row", "rows")),
        None => "never analyzed".to_owned(),
    }
}

fn unknown_as_text(outlook: &Outlook) -> Option<String> {
    outlook.unknown.as_ref().map(|what| format!("{what}: what it locks or loses can't be told from its text"))
}

fn warnings_as_text(outlook: &Outlook) -> Vec<String> {
    let losses = outlook.losses.iter().map(|loss| {
        format!(
            "{} loses all its rows ({}): unless they come back, the run is undone; {} lets them go",
            common::ident::printable(&loss.table),
            rows_as_text(loss.rows),
            loss.flag
        )
    });
    let findings = outlook.findings.iter().map(|finding| {
        let help = finding.help.as_ref().map(|help| format!(" {help}")).unwrap_or_default();
        format!("{}: {}{help}", finding.rule, finding.message)
    });
    losses.chain(findings).collect()
}
