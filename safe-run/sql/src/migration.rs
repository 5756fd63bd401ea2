//! Migration files: which there are, which are pending, and what their authors wrote into them for us.
//!
//! [`load`] and [`original`] touch the disk; everything else turns values into values. It must never
//! run the way down: sections that another tool would only run to undo a migration are not part of its statements.
//! It must never apply a file whose history does not fit: an edited, missing or late migration is refused by name.

mod annotation;
mod create;
mod load;
mod past;
mod plan;
mod transactions;
mod way_down;

use std::path::PathBuf;

use common::{Error, ErrorKind, Result, digest::sha256_hex};

pub use annotation::{AllowLoss, Annotations, ExpectedRows, lost_grants, lost_labels};
pub use create::{NewFile, new_files};
pub use load::{load, signs};
pub use past::original;
pub use plan::{AppliedMigration, Drift, DriftKind, MigrationPlan, RowKind, classify_drift, plan};
pub use transactions::{TransactionChoice, TransactionPlan, decide, uses_new_labels};
pub(crate) use way_down::unknown_way_down;

use crate::{
    layout::{Format, Layout, RecordedName, flyway},
    section::{self, Sections},
    statement::{self, ParseProblem, Statement, StatementKind, TransactionClass, TransactionVerb},
    version::Version,
};

/// A migration as its file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationFile {
    /// From the file's name.
    pub version: Version,
    /// From the file's name, with spaces for underscores.
    pub description: String,
    /// Where it was read.
    pub path: PathBuf,
    /// Its path below the folder of migrations, with `/`.
    pub script: String,
    /// Whose layout it follows.
    pub layout: Layout,
    /// It may come late: refinery's U files, and repeatable ones.
    pub any_order: bool,
    /// Why it can't run here. It does not matter once it is applied.
    pub problem: Option<Problem>,
    /// What the history records of its content; empty when that tool records nothing.
    pub checksum: String,
    /// SHA-256 over the tokens that mean something: equal when only comments, white space or line ends differ.
    pub checksum_normalized: String,
    /// The whole file as it is.
    pub sql: String,
    /// What to run, in order. The way down is not in it.
    pub statements: Vec<Statement>,
    /// Why it can't run in a transaction: the marker or the statement, with its line.
    pub no_transaction: Option<String>,
    /// Where its own plain `BEGIN; … COMMIT;` end a transaction in the middle of it: before which statement, and the line of
    /// the COMMIT. They are not among the statements.
    pub own_commits: Vec<(usize, u32)>,
    /// What its author allows and expects.
    pub annotations: Annotations,
    /// Things a person should know before it runs, with their lines.
    pub warnings: Vec<String>,
}

/// What stands in the way of running a file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file and the line, and what is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// It is a mistake in our own annotations.
    pub is_usage: bool,
    /// A comment that may begin a way down: a person can say that it does not.
    pub is_section: bool,
}

impl Problem {
    /// As the error that refuses the file.
    pub fn error(&self) -> Error {
        let error = if self.is_usage { Error::usage(&*self.message) } else { Error::refused(&*self.message) };
        error.with_hint(&*self.hint)
    }
}

/// Where a migration was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub path: PathBuf,
    pub script: String,
    pub version: Version,
    pub description: String,
    pub any_order: bool,
    pub foreign: Option<&'static str>,
}

/// What a file says once it is read.
#[derive(Debug, Default)]
struct Content {
    statements: Vec<Statement>,
    no_transaction: Option<String>,
    annotations: Annotations,
    warnings: Vec<String>,
    /// A comment that may begin a way down.
    doubt: Option<Problem>,
}

impl Content {
    /// `whole`: a person says that the file has no way down.
    fn read(
        path: &std::path::Path,
        layout: Layout,
        sql: &str,
        whole: bool,
    ) -> std::result::Result<Self, Problem> {
        let at = |problem: ParseProblem, column: bool, is_usage: bool| Problem {
            message: if column {
                format!("{}:{}:{}: {}", path.display(), problem.line, problem.column, problem.message)
            } else {
                format!("{}:{}: {}", path.display(), problem.line, problem.message)
            },
            hint: problem.hint,
            is_usage,
            is_section: false,
        };
        let whole = whole || section::says_whole(sql);
        let sections = match layout.sections(sql) {
            Ok(found) if whole => {
                Sections { up: std::iter::once(0..sql.len()).collect(), has_sections: false, ..found }
            }
            Err(_) if whole => section::everything(sql),
            found => found.map_err(|problem| at(problem, false, false))?,
        };
        let statements =
            statement::split_ranges(sql, &sections.up).map_err(|problem| at(problem, true, false))?;
        let (annotations, marker) =
            annotation::read(sql, &sections, &statements).map_err(|problem| at(problem, false, true))?;
        let alone = || {
            statements.iter().find_map(|statement| match &statement.class.transaction {
                TransactionClass::MustRunAlone { reason } => {
                    Some(format!("line {}: {reason}", statement.line))
                }
                _ => None,
            })
        };
        let no_transaction = sections.no_transaction.clone().or(marker).or_else(alone);
        let doubt = unknown_way_down(sql, &sections, &statements).filter(|_| !whole);
        let doubt = doubt.map(|problem| Problem { is_section: true, ..at(problem, false, false) });
        let mut warnings = sections.warnings;
        if statements.is_empty() {
            warnings.push("it has no statement: nothing of it runs, and it counts as applied".to_owned());
        }
        for statement in &statements {
            warnings.extend(
                statement.class.warnings.iter().map(|text| format!("line {}: {text}", statement.line)),
            );
        }
        Ok(Self { statements, no_transaction, annotations, warnings, doubt })
    }
}

impl MigrationFile {
    /// Reads a file of our own layout. Errors name `path` and the line.
    pub fn parse(path: PathBuf, version: Version, description: String, sql: String) -> Result<Self> {
        let script = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let found = Found { path, script, version, description, any_order: false, foreign: None };
        let file = Self::read(found, sql, Layout::OWN);
        match &file.problem {
            Some(problem) => Err(problem.error()),
            None => Ok(file),
        }
    }

    /// Reads a file's text. What can't be run is told by [`MigrationFile::problem`].
    pub(crate) fn read(found: Found, sql: String, layout: Layout) -> Self {
        let Found { path, script, version, description, any_order, foreign } = found;
        let content = match foreign {
            None => Content::read(&path, layout, &sql, false),
            Some(why) => Err(Problem {
                message: format!("{}:1: {why}", path.display()),
                hint: format!(
                    "Run it with that tool under protection, `safe-run -- COMMAND`; safe-run takes {}'s SQL files only.",
                    layout.format
                ),
                is_usage: false,
                is_section: false,
            }),
        };
        let (content, problem) = match content {
            Ok(mut content) => {
                let doubt = content.doubt.take();
                (content, doubt)
            }
            Err(problem) => (Content::default(), Some(problem)),
        };
        let recorded = RecordedName { version: &version, description: &description };
        let checksum_normalized = normalized(&sql, &content.statements);
        let mut file = Self {
            checksum: if foreign.is_some() { None } else { layout.checksum(&recorded, &sql) }
                .unwrap_or_default(),
            checksum_normalized,
            any_order: any_order || version.is_repeatable(),
            script,
            layout,
            problem,
            version,
            description,
            path,
            statements: content.statements,
            no_transaction: content.no_transaction,
            own_commits: Vec::new(),
            annotations: content.annotations,
            warnings: content.warnings,
            sql,
        };
        file.take_off_transactions();
        file
    }

    /// Reads it again as a file that goes up from its first line to its last, whatever its comments look like.
    pub fn as_whole(&mut self) {
        match Content::read(&self.path, self.layout, &self.sql, true) {
            Ok(content) => {
                self.checksum_normalized = normalized(&self.sql, &content.statements);
                self.statements = content.statements;
                self.no_transaction = content.no_transaction;
                self.annotations = content.annotations;
                self.warnings = content.warnings;
                self.problem = None;
                self.own_commits.clear();
                self.take_off_transactions();
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// Takes the file's own plain BEGIN and COMMIT off where it runs in transactions of ours, and remembers where one of
    /// its transactions ends before the file does. What has options is left: such a file runs by itself.
    fn take_off_transactions(&mut self) {
        use TransactionVerb as Verb;
        if self.no_transaction.is_some() {
            return;
        }
        let verb = |statement: &Statement| match statement.class.kind {
            StatementKind::TransactionControl(
                verb @ (Verb::Begin | Verb::Commit | Verb::Rollback | Verb::Prepared),
            ) => Some(verb),
            _ => None,
        };
        // With options (ISOLATION LEVEL …) or AND CHAIN it is more than a begin or an end.
        let plain =
            |statement: &Statement| statement::significant_text(&statement.text, 80).split(' ').count() <= 2;
        let (mut open, mut options) = (false, None);
        for statement in &self.statements {
            match verb(statement) {
                Some(Verb::Begin) => open = true,
                // A COMMIT without a BEGIN of its own is refused where the file is to run.
                Some(Verb::Commit) if !open => return,
                Some(Verb::Commit) => open = false,
                Some(_) => return,
                None => continue,
            }
            if !plain(statement) {
                options.get_or_insert_with(|| {
                    format!(
                        "line {}: `{}` begins or ends a transaction of its own",
                        statement.line,
                        statement.summary(40)
                    )
                });
            }
        }
        if options.is_some() {
            self.no_transaction = options;
            return;
        }
        // A transaction that is never ended is refused where the file is to run.
        if open {
            return;
        }
        let mut kept = Vec::with_capacity(self.statements.len());
        for statement in self.statements.drain(..) {
            match verb(&statement) {
                None => kept.push(statement),
                Some(Verb::Commit) if !kept.is_empty() => self.own_commits.push((kept.len(), statement.line)),
                Some(_) => {}
            }
        }
        let all = kept.len();
        self.own_commits.retain(|(place, _)| *place < all);
        self.own_commits.dedup_by_key(|(place, _)| *place);
        self.statements = kept;
    }

    /// The checksum that its history would record for another text.
    pub fn checksum_of(&self, sql: &str) -> Option<String> {
        self.layout.checksum(&RecordedName { version: &self.version, description: &self.description }, sql)
    }

    /// [`Self::checksum_normalized`] of another text.
    pub fn normalized_of(&self, sql: &str) -> Option<String> {
        let content = Content::read(&self.path, self.layout, sql, false).ok()?;
        Some(normalized(sql, &content.statements))
    }

    /// What the file beside it says.
    pub(crate) fn apply_metadata(&mut self, path: &std::path::Path, text: Option<&str>) {
        let found = text.map(|text| crate::layout::metadata(self.layout.format, text)).unwrap_or_default();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if found.no_transaction && self.no_transaction.is_none() {
            let key = match self.layout.format {
                Format::Diesel => "run_in_transaction",
                _ => "executeInTransaction",
            };
            // What steers its own transactions has to be there again.
            if let Ok(content) = Content::read(&self.path, self.layout, &self.sql, false) {
                self.statements = content.statements;
                self.own_commits.clear();
            }
            self.no_transaction = Some(format!("{name}: {key}=false"));
        }
        if self.layout.format != Format::Flyway || self.problem.is_some() {
            return;
        }
        let placeholder = || {
            let problem = flyway::placeholder(&self.sql).filter(|_| !found.keeps_placeholders)?;
            Some((format!("{}:{}: {}", self.path.display(), problem.line, problem.message), problem.hint))
        };
        let config = found.problem.clone().map(|problem| {
            let hint = "Run this file with `safe-run -- flyway migrate`.".to_owned();
            (format!("{}: {problem}", path.display()), hint)
        });
        self.problem = config.or_else(placeholder).map(|(message, hint)| Problem {
            message,
            hint,
            is_usage: false,
            is_section: false,
        });
    }

    /// The file's name for messages: without its directory, but with its own folder where it has one.
    pub fn name(&self) -> String {
        self.script.clone()
    }

    /// The statements to run inside transactions of ours, one up to each of [`Self::own_commits`] and one behind the last.
    ///
    /// Refuses a BEGIN, COMMIT or ROLLBACK that was left, because it would end the transaction that protects the run.
    /// Savepoints are left as they are.
    pub fn statements_without_wrapper(&self) -> Result<&[Statement]> {
        use TransactionVerb as Verb;
        let kind_is =
            |statement: &Statement, verb| statement.class.kind == StatementKind::TransactionControl(verb);
        // What a ROLLBACK takes back would be recorded as applied; a COMMIT is stray where nothing was begun.
        let mut open = None;
        let mut stray = None;
        for statement in &self.statements {
            let ends = kind_is(statement, Verb::Rollback) || kind_is(statement, Verb::Prepared);
            if kind_is(statement, Verb::Begin) {
                open = Some(statement);
            } else if ends || kind_is(statement, Verb::Commit) && open.take().is_none() {
                stray = Some(statement);
                break;
            }
        }
        let offending = stray.or(open);
        match offending {
            None => Ok(&self.statements),
            Some(statement) => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{}:{}: `{}` {}",
                    self.path.display(),
                    statement.line,
                    statement.summary(40),
                    if kind_is(statement, Verb::Begin) {
                        "begins a transaction that the file never ends"
                    } else {
                        "would end the transaction that protects the run"
                    }
                ),
            )
            .with_hint(
                "Remove it: safe-run opens and ends the transaction itself. If the file needs its own transactions, \
                 put `-- safe-run: no-transaction` at its top.",
            )),
        }
    }
}

/// SHA-256 over the significant tokens and the COPY data of what runs.
fn normalized(sql: &str, statements: &[Statement]) -> String {
    let mut kept = String::with_capacity(sql.len());
    for statement in statements {
        for token in crate::token::tokens(&statement.text, 0).map_while(std::result::Result::ok) {
            if token.is_significant() {
                kept.push_str(token.text(&statement.text));
                kept.push('\0');
            }
        }
        if let Some(data) = &statement.copy_data {
            kept.extend(sql[data.clone()].chars().filter(|&c| c != '\r'));
        }
        kept.push_str(";\0");
    }
    sha256_hex(kept.as_bytes())
}

#[cfg(test)]
mod tests;
