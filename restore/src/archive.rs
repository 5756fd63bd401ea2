//! Runs pg_restore over the schema archive, section by section. No error is ever ignored: each is either one of the
//! settings that an older server does not know, or a foreign key that old orphans violate (restored NOT VALID, and
//! said), or it fails the restore with the object's name.

use std::path::Path;

use common::{
    Error, Progress, Result,
    ident::conninfo_value,
    postgres::{
        ConnectionSettings, Session,
        tools::{self, RestoreError, Tool},
    },
};

/// The part of the archive to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Schemas, types, functions, tables: everything that rows need.
    PreData,
    /// Indexes, constraints, triggers, rules, policies: everything that needs rows.
    PostData,
}

/// How to restore.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveOptions {
    /// Parallel connections of pg_restore.
    pub jobs: usize,
    /// Leave owners and grants out.
    pub no_owner: bool,
}

/// Restores one section into the database that `settings` name.
pub async fn restore(
    pg_restore: &Tool,
    settings: &ConnectionSettings,
    session: &Session,
    archive: &Path,
    section: Section,
    options: ArchiveOptions,
    progress: &Progress,
) -> Result<()> {
    let mut command = tools::command(&pg_restore.path, settings);
    command.arg("--no-password").arg(format!("--dbname=dbname={}", conninfo_value(settings.database())));
    match section {
        Section::PreData => command.arg("--section=pre-data"),
        Section::PostData => {
            command.arg("--section=post-data").arg(format!("--jobs={}", options.jobs.max(1)))
        }
    };
    if options.no_owner {
        command.args(["--no-owner", "--no-privileges"]);
    }
    command.arg(archive);
    let finished = tools::run(command, "pg_restore").await?;
    let (errors, others) = tools::parse_restore_errors(&finished.stderr);
    for line in others.iter().filter(|line| !line.trim().is_empty()) {
        progress.warn(format!("pg_restore says: {line}"));
    }
    let mut fatal = Vec::new();
    for error in &errors {
        if tools::is_known_setting_error(error) {
            continue;
        }
        match not_valid_statement(error) {
            Some(statement) => match session.batch_execute(&statement).await {
                Ok(()) => progress.warn(format!(
                    "{} has old orphans and came back NOT VALID: {}",
                    error.entry.as_deref().unwrap_or("a foreign key"),
                    first_line(&error.message)
                )),
                Err(source) => fatal.push(describe(error) + &format!(" (NOT VALID: {source})")),
            },
            None => fatal.push(describe(error)),
        }
    }
    if !fatal.is_empty() {
        return Err(Error::failed(format!(
            "{} object{} could not be restored:\n  {}",
            fatal.len(),
            if fatal.len() == 1 { "" } else { "s" },
            fatal.join("\n  ")
        ))
        .with_hint(
            "Fix the cause on the server (a missing role, extension or privilege), then restore again.",
        ));
    }
    if !finished.success && errors.is_empty() {
        return Err(Error::failed(format!("pg_restore failed: {}", finished.stderr.trim())));
    }
    Ok(())
}

/// A foreign key that existing rows violate, as a statement that leaves those rows alone.
///
/// Rows that were orphans in the source, where nothing complained, must not make a snapshot unrestorable.
fn not_valid_statement(error: &RestoreError) -> Option<String> {
    let statement = error.statement.as_deref()?.trim_end().strip_suffix(';')?;
    // Not the entry's name: with several jobs that line may belong to another worker's error.
    let is_foreign_key = statement.starts_with("ALTER TABLE ")
        && statement.contains("\n    ADD CONSTRAINT ")
        && statement.contains(" FOREIGN KEY (");
    // pg_restore gives no SQLSTATE; the C locale's text of 23503 is the only sign there is.
    let is_violation = error.message.contains("violates foreign key constraint");
    (is_foreign_key && is_violation).then(|| format!("{statement} NOT VALID"))
}

fn describe(error: &RestoreError) -> String {
    let entry = error.entry.as_deref().unwrap_or("archive");
    common::ident::printable(&format!("{entry}: {}", error.message.replace('\n', " ")))
}

fn first_line(text: &str) -> String {
    common::ident::printable(text.lines().next().unwrap_or_default())
}
