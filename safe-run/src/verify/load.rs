//! Reads the folders of `--verify`. The only I/O of `verify` but for the server's.

use std::path::{Path, PathBuf};

use common::{Error, Result};

use sql::statement::{self, Statement, StatementKind, TransactionVerb};

/// Functions that only a TAP file calls: pgTAP's beginning and end.
const TAP_FUNCTIONS: [&str; 4] = ["plan", "no_plan", "finish", "runtests"];

/// psql's own commands that a pgTAP file begins with and that change nothing but psql.
const PSQL_COMMANDS: [&str; 5] = ["\\set", "\\unset", "\\pset", "\\echo", "\\timing"];

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFile {
    /// Folder and file, as a person knows them.
    pub name: String,
    /// The comment in its first line.
    pub promise: Option<String>,
    /// What runs.
    pub statements: Vec<Statement>,
    /// It calls pgTAP: it may write, and what it returns are test results.
    pub is_tap: bool,
    /// `-- safe-run: note`: what it finds is shown and fails nothing.
    pub only_notes: bool,
}

/// Reads every `.sql` file of the folders, by name; sub-folders are not read.
///
/// # Errors
/// Usage: a folder that is missing or has no `.sql` file; a file that cannot be read or split; a statement that has no
/// place in it. Each names the file and the line.
pub fn load(dirs: &[PathBuf]) -> Result<Vec<VerifyFile>> {
    let mut files = Vec::new();
    for dir in dirs {
        let shown = dir.display();
        let entries = std::fs::read_dir(dir).map_err(|source| {
            Error::usage(format!("could not read the folder {shown} of --verify: {source}"))
                .with_hint("Name a folder that holds .sql files.")
        })?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(|source| Error::usage(format!("could not read the folder {shown}: {source}")))?
                .path();
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
                && path.is_file()
            {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(Error::usage(format!("the folder {shown} of --verify has no .sql file"))
                .with_hint("Nothing would be verified: name another folder, or leave --verify away."));
        }
        paths.sort();
        for path in paths {
            let sql = read(&path)?;
            files.push(parse(&path.display().to_string(), &sql)?);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    let bytes = common::input::read_plain(path)
        .map_err(|source| Error::usage(format!("{}: {source}", path.display())))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::usage(format!("{} is not UTF-8", path.display())).with_hint("Save it as UTF-8.")
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

fn parse(name: &str, sql: &str) -> Result<VerifyFile> {
    let sql = without_psql_settings(sql);
    let wrong = |line: u32, message: String, hint: &str| {
        Err(Error::usage(format!("{name}:{line}: {message}")).with_hint(hint))
    };
    let statements = match statement::split(&sql) {
        Ok(statements) => statements,
        Err(problem) => return wrong(problem.line, problem.message, &problem.hint),
    };
    let mut only_notes = false;
    for (index, line) in sql.lines().enumerate() {
        let Some(directive) = line.trim().strip_prefix("-- safe-run:") else { continue };
        match directive.trim() {
            "note" => only_notes = true,
            other => {
                let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
                return wrong(line, format!("unknown directive `{other}`"), "Known is `-- safe-run: note`.");
            }
        }
    }
    let is_tap = statements
        .iter()
        .flat_map(|statement| &statement.class.functions)
        .any(|function| TAP_FUNCTIONS.contains(&function.name.as_str()));
    let mut kept = Vec::new();
    for statement in statements {
        match &statement.class.kind {
            // pgTAP files begin and roll back by themselves; here the transaction is the migration's.
            StatementKind::TransactionControl(TransactionVerb::Begin | TransactionVerb::Rollback)
                if is_tap => {}
            StatementKind::TransactionControl(
                TransactionVerb::Savepoint | TransactionVerb::Release | TransactionVerb::RollbackTo,
            ) if is_tap => kept.push(statement),
            StatementKind::TransactionControl(_) => {
                return wrong(
                    statement.line,
                    format!("`{}` would end the migration's own transaction", statement.summary(40)),
                    "Remove it: every file is rolled back by itself.",
                );
            }
            _ if statement.copy_data.is_some() => {
                return wrong(
                    statement.line,
                    "COPY … FROM STDIN has no place in a file of --verify".to_owned(),
                    "Use INSERT … VALUES.",
                );
            }
            StatementKind::Set => kept.push(statement),
            _ if is_tap || statement.is_query() => kept.push(statement),
            _ => {
                return wrong(
                    statement.line,
                    format!("`{}` is no query", statement.summary(40)),
                    "A file of --verify holds queries that return violations, or pgTAP tests.",
                );
            }
        }
    }
    if kept.iter().all(|statement| statement.class.kind == StatementKind::Set) {
        return wrong(1, "there is no query in it".to_owned(), "Nothing would be verified: remove the file.");
    }
    let promise = sql
        .lines()
        .next()
        .and_then(|line| line.trim().strip_prefix("--"))
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty() && !text.starts_with("safe-run:"));
    Ok(VerifyFile { name: name.to_owned(), promise, statements: kept, is_tap, only_notes })
}

/// The text with psql's settings blanked, so that lines keep their numbers.
fn without_psql_settings(sql: &str) -> String {
    let blank = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        if PSQL_COMMANDS.contains(&word) { String::new() } else { line.to_owned() }
    };
    sql.split('\n').map(blank).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_queries_or_tap_and_nothing_that_ends_the_transaction() {
        let file = parse(
            "a.sql",
            "-- no order without items\nSELECT 1;\nWITH x AS (SELECT 2) TABLE x; (SELECT 1) UNION (SELECT 2)",
        )
        .unwrap();
        assert_eq!(
            (file.promise.as_deref(), file.is_tap, file.only_notes),
            (Some("no order without items"), false, false)
        );
        assert_eq!(file.statements.len(), 3);
        let tap = parse(
            "t.sql",
            "\\set QUIET 1\nBEGIN;\nSELECT plan(1);\nCREATE TEMP TABLE t (i int);\nSELECT ok(true);\nSELECT * FROM finish();\nROLLBACK;",
        )
        .unwrap();
        assert!(tap.is_tap);
        assert_eq!(tap.statements.iter().map(|statement| statement.line).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert!(parse("n.sql", "-- safe-run: note\nSELECT 1").unwrap().only_notes);
        for (sql, told) in [
            ("SELECT 1;\nDELETE FROM t", "w.sql:2: `DELETE FROM t` is no query"),
            ("SELECT 1;\n\nCOMMIT", "w.sql:3: `COMMIT` would end"),
            ("SELECT plan(1); COMMIT", "w.sql:1: `COMMIT` would end"),
            ("-- nothing", "w.sql:1: there is no query in it"),
            ("SELECT 'open", "w.sql:1: "),
            ("SELECT 1\n-- safe-run: allow", "w.sql:2: unknown directive"),
        ] {
            let error = parse("w.sql", sql).unwrap_err();
            assert!(error.message().starts_with(told), "{error} for {sql}");
        }
    }
}
