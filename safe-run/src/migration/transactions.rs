//! Which transactions the pending files run in, decided before anything runs. Pure.
//!
//! One transaction for everything is the best undo there is, so that is what `auto` wants; what stands in its way is
//! named by file, line and statement. A file that steers its own transactions must leave none open: what follows would
//! be part of it, and would be gone at the end of the session.

use std::collections::BTreeMap;

use common::{Error, Result};

use super::MigrationFile;
use crate::statement::{Statement, StatementKind, TableName, TransactionClass, TransactionVerb, enums};

/// What was asked for with `--tx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TransactionChoice {
    /// One transaction for all files if all can run in one; otherwise a transaction per file.
    Auto,
    /// One transaction for all files, or nothing.
    All,
    /// Each file in a transaction of its own; after a failure the snapshot is restored.
    File,
}

/// How the files are going to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionPlan {
    /// All in one transaction.
    pub one: bool,
    /// Why not all in one, each as `file:line: statement: reason`; or that it was asked for.
    pub why: Vec<String>,
    /// Statements before which a file's transaction has to be committed: file by its place, statement by its place in
    /// [`MigrationFile::statements_without_wrapper`].
    pub commits: BTreeMap<usize, Vec<usize>>,
}

/// Decides.
///
/// # Errors
/// Refused: a file that can't be read as SQL, or another language's migration; `all` where something can't run in one transaction; a COMMIT in a file that runs in a transaction of ours; a
/// transaction that a file begins and leaves open, or in which it says what can't run there.
pub fn decide(pending: &[&MigrationFile], choice: TransactionChoice) -> Result<TransactionPlan> {
    if let Some(problem) = pending.iter().find_map(|file| file.problem.as_ref()) {
        return Err(problem.error());
    }
    for file in pending {
        match file.no_transaction {
            Some(_) => check_own_transactions(file)?,
            None => drop(file.statements_without_wrapper()?),
        }
    }
    let mut obstacles: Vec<String> = pending.iter().filter_map(|file| must_run_alone(file)).collect();
    let (uses, commits) = early_uses(pending)?;
    obstacles.extend(uses);
    match choice {
        TransactionChoice::All if !obstacles.is_empty() => Err(Error::refused(format!(
            "not everything can run in one transaction:\n{}",
            obstacles.join("\n")
        ))
        .with_hint("Use --tx auto: what can't share a transaction then runs by itself, and the undo restores the snapshot.")),
        TransactionChoice::All => Ok(TransactionPlan { one: true, ..TransactionPlan::default() }),
        // One transaction per file is one transaction where there is one file.
        _ if obstacles.is_empty() && (choice == TransactionChoice::Auto || pending.len() < 2) => {
            Ok(TransactionPlan { one: true, ..TransactionPlan::default() })
        }
        TransactionChoice::File if obstacles.is_empty() => Ok(TransactionPlan {
            one: false,
            why: vec!["each file in its own transaction, as told (--tx file)".to_owned()],
            commits,
        }),
        _ => Ok(TransactionPlan { one: false, why: obstacles, commits }),
    }
}

fn located(file: &MigrationFile, statement: &Statement) -> String {
    format!("{}:{}: `{}`", file.name(), statement.line, statement.summary(60))
}

/// Why the file can't run in a transaction.
fn must_run_alone(file: &MigrationFile) -> Option<String> {
    let why = file.no_transaction.as_ref()?;
    let alone = file.statements.iter().find_map(|statement| match &statement.class.transaction {
        TransactionClass::MustRunAlone { reason } => Some(format!("{}: {reason}", located(file, statement))),
        _ => None,
    });
    // A marker is given as `line 3: …`.
    let marker = || format!("{}:{}", file.name(), why.strip_prefix("line ").unwrap_or(why));
    Some(alone.unwrap_or_else(marker))
}

type Commits = BTreeMap<usize, Vec<usize>>;

/// Uses of enum values that need a commit first: as sentences, and where within a file to commit.
fn early_uses(pending: &[&MigrationFile]) -> Result<(Vec<String>, Commits)> {
    let mut made: Vec<TableName> = Vec::new();
    // Values that were added since the last commit, if every file had its own transaction: with file and line.
    let mut added: Vec<(enums::NewValue, usize, String)> = Vec::new();
    let (mut uses, mut commits) = (Vec::new(), Commits::new());
    for (place, file) in pending.iter().enumerate() {
        if file.no_transaction.is_some() {
            continue;
        }
        for (index, statement) in file.statements_without_wrapper()?.iter().enumerate() {
            made.extend(enums::created_enum(&statement.text));
            let used =
                added.iter().rposition(|(new, ..)| enums::uses_value(statement, &file.sql, &new.value));
            if let Some(used) = used {
                let (new, by, place_added) = &added[used];
                uses.push(format!(
                    "{}: needs the value '{}' of {}, which {place_added} adds: it can be used only after a commit",
                    located(file, statement),
                    new.value,
                    new.enum_type
                ));
                if *by == place {
                    refuse_savepoints(file, statement)?;
                    commits.entry(place).or_default().push(index);
                }
                // Everything before is committed then.
                added.clear();
            }
            let new = enums::added_value(&statement.text).filter(|new| !made.contains(&new.enum_type));
            added.extend(new.map(|new| (new, place, format!("{}:{}", file.name(), statement.line))));
        }
    }
    Ok((uses, commits))
}

/// A commit between a savepoint and its release would fail in the middle.
fn refuse_savepoints(file: &MigrationFile, at: &Statement) -> Result<()> {
    let savepoint = file.statements.iter().find(|statement| {
        statement.class.kind == StatementKind::TransactionControl(TransactionVerb::Savepoint)
    });
    match savepoint {
        None => Ok(()),
        Some(savepoint) => Err(Error::refused(format!(
            "{} needs a commit before it, which the savepoint in line {} does not allow",
            located(file, at),
            savepoint.line
        ))
        .with_hint("Move the ALTER TYPE … ADD VALUE into a migration of its own.")),
    }
}

/// What a file without a transaction of ours does with transactions of its own.
fn check_own_transactions(file: &MigrationFile) -> Result<()> {
    use TransactionVerb as Verb;
    let mut open: Option<&Statement> = None;
    for statement in &file.statements {
        match (statement.class.kind, open) {
            (StatementKind::TransactionControl(Verb::Begin), None) => open = Some(statement),
            (StatementKind::TransactionControl(Verb::Commit | Verb::Rollback), Some(_)) => {
                // COMMIT AND CHAIN begins the next one.
                let text = statement.summary(80).to_ascii_lowercase();
                let chains = text.ends_with("and chain") && !text.ends_with("no chain");
                open = chains.then_some(statement);
            }
            (StatementKind::TransactionControl(Verb::Prepared), _)
                if statement.text.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("prepare")) =>
            {
                return Err(Error::refused(format!(
                    "{} leaves a prepared transaction behind, which nothing here would finish",
                    located(file, statement)
                ))
                .with_hint("Commit it in the file in the ordinary way."));
            }
            (_, Some(begin)) => {
                if let TransactionClass::MustRunAlone { reason } = &statement.class.transaction {
                    return Err(Error::refused(format!(
                        "{}: {reason}, and line {} has begun one",
                        located(file, statement),
                        begin.line
                    ))
                    .with_hint("Put it before the BEGIN or after the COMMIT."));
                }
            }
            _ => {}
        }
    }
    match open {
        None => Ok(()),
        Some(begin) => Err(Error::refused(format!(
            "{} begins a transaction that the file never ends",
            located(file, begin)
        ))
        .with_hint("Add the COMMIT: what the file does would be rolled back when the session ends.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Version;

    fn file(number: u32, sql: &str) -> MigrationFile {
        let name = format!("{number:04}_x.sql");
        let version = Version::parse(&format!("{number:04}")).unwrap();
        MigrationFile::parse(name.into(), version, "x".to_owned(), sql.to_owned()).unwrap()
    }

    fn decided(files: &[&str], choice: TransactionChoice) -> Result<TransactionPlan> {
        let files: Vec<MigrationFile> =
            files.iter().enumerate().map(|(at, sql)| file(at as u32 + 1, sql)).collect();
        decide(&files.iter().collect::<Vec<_>>(), choice)
    }

    #[test]
    fn what_can_share_a_transaction_does() {
        let plan = decided(&["create table a (i int)", "begin; select 1; commit;"], TransactionChoice::Auto);
        assert_eq!(plan.unwrap(), TransactionPlan { one: true, ..TransactionPlan::default() });
        assert!(decided(&["select 1", "select 2"], TransactionChoice::All).unwrap().one);
        assert!(decided(&["select 1"], TransactionChoice::File).unwrap().one);
        let plan = decided(&["select 1", "select 2"], TransactionChoice::File).unwrap();
        assert!(!plan.one && plan.why[0].contains("--tx file"), "{plan:?}");
    }

    #[test]
    fn what_stands_in_the_way_is_named_by_file_line_and_statement() {
        let files = ["create table a (i int)", "-- x\ncreate index concurrently i on a (i)"];
        let plan = decided(&files, TransactionChoice::Auto).unwrap();
        assert!(!plan.one);
        assert!(
            plan.why[0].starts_with("0002_x.sql:2: `create index concurrently i on a (i)`: "),
            "{plan:?}"
        );
        let error = decided(&files, TransactionChoice::All).unwrap_err();
        assert!(error.message().contains("0002_x.sql:2: `create index"), "{error}");
        let marked = decided(&["select 1", "-- safe-run: no-transaction\nselect 2"], TransactionChoice::Auto);
        assert!(marked.unwrap().why[0].starts_with("0002_x.sql:1: "));
    }

    #[test]
    fn a_value_is_committed_before_it_is_used_and_not_more_often_than_needed() {
        let add = "alter type mood add value 'ok';";
        let within = format!(
            "begin; {add} alter type mood add value 'so'; insert into t values ('ok'); update t set m = 'so'; commit;"
        );
        let plan = decided(&[&within], TransactionChoice::Auto).unwrap();
        assert!(!plan.one);
        assert_eq!(plan.commits, BTreeMap::from([(0, vec![2])]));
        let across = decided(&[add, "insert into t values ('ok')"], TransactionChoice::Auto).unwrap();
        assert!(!across.one && across.commits.is_empty());
        assert!(across.why[0].contains("'ok' of mood, which 0001_x.sql:1 adds"), "{across:?}");
        assert!(decided(&[&within], TransactionChoice::All).unwrap_err().message().contains("0001_x.sql:1"));
        for harmless in
            ["create type mood as enum ('x'); alter type mood add value 'ok'; select 'ok'::mood", add]
        {
            assert!(decided(&[harmless], TransactionChoice::Auto).unwrap().one, "{harmless}");
        }
        let savepoint = format!("savepoint a; {add} select 'ok'; release a");
        assert!(decided(&[&savepoint], TransactionChoice::Auto).is_err());
    }

    #[test]
    fn a_file_ends_the_transactions_that_it_begins() {
        let marker = "-- safe-run: no-transaction\n";
        for (sql, line) in [
            ("begin;\nselect 1;\n", "0001_x.sql:2"),
            ("begin; select 1;\ncommit and chain;\nselect 2;", "0001_x.sql:3"),
            ("begin;\nvacuum;\ncommit;", "0001_x.sql:3"),
            ("begin;\nprepare transaction 'x';", "0001_x.sql:3"),
        ] {
            let error = decided(&[&format!("{marker}{sql}")], TransactionChoice::Auto).unwrap_err();
            assert!(error.message().starts_with(line), "{error}");
        }
        for sql in
            ["begin; select 1; commit; vacuum;", "begin; select 1; rollback;", "start transaction; end;"]
        {
            assert!(decided(&[&format!("{marker}{sql}")], TransactionChoice::Auto).is_ok(), "{sql}");
        }
    }
}
