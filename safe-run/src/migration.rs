//! Migration files: which there are, which are pending, and what their authors wrote into them for us.
//!
//! [`load`] is the only function here that touches the disk; everything else turns values into values. It must never
//! run the way down: sections that another tool would only run to undo a migration are not part of its statements.
//! It must never apply a file whose history does not fit: an edited, missing or late migration is refused by name.

mod annotation;
mod load;
mod plan;
mod section;
mod transactions;
mod version;

use std::path::PathBuf;

use common::{Error, ErrorKind, Result, digest::sha256_hex};

pub use annotation::{AllowLoss, Annotations, ExpectedRows};
pub use load::load;
pub use plan::{AppliedMigration, Drift, DriftKind, MigrationPlan, classify_drift, plan};
pub use transactions::{TransactionChoice, TransactionPlan, decide};
pub use version::Version;

use crate::statement::{self, Statement, StatementKind, TransactionClass, TransactionVerb};

/// A migration as its file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationFile {
    /// From the file's name.
    pub version: Version,
    /// From the file's name, with spaces for underscores.
    pub description: String,
    /// Where it was read.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, hexadecimal.
    pub checksum: String,
    /// SHA-256 over the tokens that mean something: equal when only comments, white space or line ends differ.
    pub checksum_normalized: String,
    /// The whole file as it is.
    pub sql: String,
    /// What to run, in order. The way down is not in it.
    pub statements: Vec<Statement>,
    /// Why it can't run in a transaction: the marker or the statement, with its line.
    pub no_transaction: Option<String>,
    /// What its author allows and expects.
    pub annotations: Annotations,
    /// Things a person should know before it runs, with their lines.
    pub warnings: Vec<String>,
}

impl MigrationFile {
    /// Reads a file's text. Errors name `path` and the line.
    pub fn parse(path: PathBuf, version: Version, description: String, sql: String) -> Result<Self> {
        let at = |line: u32, message: &str| format!("{}:{line}: {message}", path.display());
        let sections = section::find(&sql)
            .map_err(|problem| Error::refused(at(problem.line, &problem.message)).with_hint(problem.hint))?;
        let statements = statement::split_ranges(&sql, &sections.up).map_err(|problem| {
            let place = format!("{}:{}:{}", path.display(), problem.line, problem.column);
            Error::refused(format!("{place}: {}", problem.message)).with_hint(problem.hint)
        })?;
        let (annotations, marker) = annotation::read(&sql, &sections, &statements)
            .map_err(|problem| Error::usage(at(problem.line, &problem.message)).with_hint(problem.hint))?;
        let alone = || {
            statements.iter().find_map(|statement| match &statement.class.transaction {
                TransactionClass::MustRunAlone { reason } => {
                    Some(format!("line {}: {reason}", statement.line))
                }
                _ => None,
            })
        };
        let no_transaction = sections.no_transaction.clone().or(marker).or_else(alone);
        let mut warnings = sections.warnings;
        for statement in &statements {
            warnings.extend(
                statement.class.warnings.iter().map(|text| format!("line {}: {text}", statement.line)),
            );
        }
        Ok(Self {
            checksum: sha256_hex(sql.as_bytes()),
            checksum_normalized: normalized(&sql, &statements),
            version,
            description,
            path,
            statements,
            no_transaction,
            annotations,
            warnings,
            sql,
        })
    }

    /// The file's name without its directory, for messages.
    pub fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// The statements to run inside a transaction of ours: a plain `BEGIN; … COMMIT;` around the whole file is taken off.
    ///
    /// Refuses any other BEGIN, COMMIT or ROLLBACK, because it would end the transaction that protects the run.
    /// Savepoints are left as they are.
    pub fn statements_without_wrapper(&self) -> Result<&[Statement]> {
        use TransactionVerb as Verb;
        let kind_is =
            |statement: &Statement, verb| statement.class.kind == StatementKind::TransactionControl(verb);
        // With options (ISOLATION LEVEL …) or AND CHAIN it is more than a wrapper.
        let plain =
            |statement: &Statement| statement::significant_text(&statement.text, 80).split(' ').count() <= 2;
        let inner = match self.statements.as_slice() {
            [first, inner @ .., last]
                if kind_is(first, Verb::Begin)
                    && kind_is(last, Verb::Commit)
                    && plain(first)
                    && plain(last) =>
            {
                inner
            }
            all => all,
        };
        let offending = inner.iter().find(|statement| {
            [Verb::Begin, Verb::Commit, Verb::Rollback, Verb::Prepared]
                .iter()
                .any(|&verb| kind_is(statement, verb))
        });
        match offending {
            None => Ok(inner),
            Some(statement) => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{}:{}: `{}` would end the transaction that protects the run",
                    self.path.display(),
                    statement.line,
                    statement.summary(40)
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
        for token in statement::token::tokens(&statement.text, 0).map_while(std::result::Result::ok) {
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
