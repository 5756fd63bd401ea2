//! Runs pg_restore over the schema archive, section by section. No error is ever ignored: each is either one of the
//! settings that an older server does not know, or a statement that has another form here (a foreign key that old
//! orphans violate, restored NOT VALID, and said; a word that only newer servers know), or it fails the restore with the
//! object's name.

use std::{io::Write as _, path::Path};

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
pub struct ArchiveOptions<'a> {
    /// Parallel connections of pg_restore.
    pub jobs: usize,
    /// Leave owners and grants out.
    pub no_owner: bool,
    /// The entries to restore, in the archive's order; without them, all.
    pub entries: Option<&'a [u32]>,
}

/// Which entries of a section, and on how many connections.
#[derive(Debug, Clone, Copy)]
struct Pass<'a> {
    section: Section,
    /// A list as `pg_restore --list` prints it; without one, all.
    list: Option<&'a Path>,
    jobs: usize,
}

/// Restores one section into the database that `settings` name.
///
/// pg_restore's parallel jobs know which tables an entry names, but not the partitions and heirs that it reaches. So
/// two entries deadlock (a trigger on a partitioned table and a foreign key on its leaf), or two partitions' indexes
/// are attached at once, neither sees the other, and the parent's index stays invalid for ever. In a database with
/// inheritance only the building of indexes is parallel, which takes the time, and the rest comes one by one.
pub async fn restore(
    pg_restore: &Tool,
    settings: &ConnectionSettings,
    session: &Session,
    archive: &Path,
    section: Section,
    options: ArchiveOptions<'_>,
    progress: &Progress,
) -> Result<()> {
    let chosen = options.entries.map(list_of).transpose()?;
    let chosen = chosen.as_ref().map(tempfile::NamedTempFile::path);
    let run = async |list: Option<&Path>, jobs: usize| {
        let pass = Pass { section, list, jobs };
        restore_pass(pg_restore, settings, session, archive, pass, options, progress).await
    };
    let jobs = options.jobs.max(1);
    if section == Section::PreData {
        return run(chosen, 1).await;
    }
    if jobs == 1 || !has_inheritance(session).await? {
        return run(chosen, jobs).await;
    }
    let listed = tools::output(list_command(pg_restore, archive, chosen), "pg_restore").await?;
    let (indexes, others) = split_list(&listed);
    for (entries, jobs) in [(indexes, jobs), (others, 1)] {
        let list = list_file(&entries)?;
        run(Some(list.path()), jobs).await?;
    }
    Ok(())
}

async fn has_inheritance(session: &Session) -> Result<bool> {
    let row = session
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits)", &[])
        .await
        .map_err(|source| Error::postgres("could not look for partitioned tables", source))?;
    Ok(row.get(0))
}

fn list_command(pg_restore: &Tool, archive: &Path, chosen: Option<&Path>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(&pg_restore.path);
    if let Some(chosen) = chosen {
        command.arg("--use-list").arg(chosen);
    }
    command.args(["--list", "--section=post-data"]).arg(archive).env("LC_ALL", "C").kill_on_drop(true);
    command
}

/// Takes a list apart: what builds an index (an index, a primary key, a unique or exclusion constraint), and the rest.
///
/// A line is `3456; 2606 16401 CONSTRAINT schema name owner`. An index in a schema named ATTACH is taken for the
/// attaching of one: it is built later, in its order, and that is all.
fn split_list(listed: &str) -> (String, String) {
    let builds_index = |line: &str| {
        let entry = line.splitn(4, ' ').nth(3).unwrap_or_default();
        entry.starts_with("CONSTRAINT ")
            || (entry.starts_with("INDEX ") && !entry.starts_with("INDEX ATTACH "))
    };
    let (mut indexes, mut others) = (String::new(), String::new());
    for line in listed.lines().filter(|line| !line.starts_with(';')) {
        let part = if builds_index(line) { &mut indexes } else { &mut others };
        part.push_str(line);
        part.push('\n');
    }
    (indexes, others)
}

/// A list of entries by their numbers, which are all that pg_restore reads of a line.
pub fn list_of(entries: &[u32]) -> Result<tempfile::NamedTempFile> {
    list_file(&entries.iter().map(|entry| format!("{entry};\n")).collect::<String>())
}

fn list_file(entries: &str) -> Result<tempfile::NamedTempFile> {
    let failed =
        |source| Error::failed(format!("could not write a temporary file: {source}")).with_source(source);
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(entries.as_bytes()).map_err(failed)?;
    Ok(file)
}

async fn restore_pass(
    pg_restore: &Tool,
    settings: &ConnectionSettings,
    session: &Session,
    archive: &Path,
    pass: Pass<'_>,
    options: ArchiveOptions<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut command = tools::command(&pg_restore.path, settings);
    command.arg("--no-password").arg(format!("--dbname=dbname={}", conninfo_value(settings.database())));
    command.arg(match pass.section {
        Section::PreData => "--section=pre-data",
        Section::PostData => "--section=post-data",
    });
    if pass.jobs > 1 {
        command.arg(format!("--jobs={}", pass.jobs));
    }
    if let Some(list) = pass.list {
        command.arg("--use-list").arg(list);
    }
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
    let mut rewritten = false;
    for error in &errors {
        if tools::is_known_setting_error(error) {
            continue;
        }
        if let Some(statement) = without_logged(error)
            && session.batch_execute(&statement).await.is_ok()
        {
            rewritten = true;
            continue;
        }
        // Comments and grants of what was missing until now.
        if rewritten
            && let Some(statement) = &error.statement
            && session.batch_execute(statement).await.is_ok()
        {
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

/// The identity column of an unlogged table, as servers before 15 understand it.
///
/// Their sequences are always logged. pg_dump 15 and later says so where the table is not, in a word that these servers
/// do not know.
fn without_logged(error: &RestoreError) -> Option<String> {
    const LOGGED: &str = "\n    LOGGED\n";
    let statement = error.statement.as_deref()?;
    let is_refused = error.message.starts_with("syntax error at or near \"LOGGED\"");
    let is_identity = statement.starts_with("ALTER TABLE ") && statement.contains(" ADD GENERATED ");
    // The last one: names come before it, numbers after.
    let (before, after) = statement.rsplit_once(LOGGED)?;
    (is_refused && is_identity).then(|| format!("{before}\n{after}"))
}

fn describe(error: &RestoreError) -> String {
    // Parallel jobs name the statement only.
    let statement = || error.statement.as_deref().unwrap_or("archive").replace('\n', " ");
    let entry = error.entry.clone().unwrap_or_else(statement);
    common::ident::printable(&format!("{entry}: {}", error.message.replace('\n', " ")))
}

fn first_line(text: &str) -> String {
    common::ident::printable(text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_builds_an_index_is_built_in_parallel() {
        let listed = "; Archive created at 2026-11-21\n\
            1; 1259 11 INDEX app events_body postgres\n\
            2; 2606 12 CONSTRAINT app a a_pkey postgres\n\
            3; 0 0 INDEX ATTACH app events_1_body postgres\n\
            4; 2606 13 FK CONSTRAINT app b b_a_fk postgres\n\
            5; 2606 14 CHECK CONSTRAINT app b positive postgres\n\
            6; 2620 15 TRIGGER app b INDEX postgres\n";
        let (indexes, others) = split_list(listed);
        assert_eq!(indexes.lines().filter_map(|line| line.split(';').next()).collect::<String>(), "12");
        assert_eq!(others.lines().filter_map(|line| line.split(';').next()).collect::<String>(), "3456");
    }
}
