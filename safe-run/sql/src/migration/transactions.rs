//! Which transactions the pending files run in, decided before anything runs. Pure.
//!
//! One transaction for everything is the best undo there is, so that is what `auto` wants; what stands in its way is
//! named by file, line and statement. A file that steers its own transactions must leave none open: what follows would
//! be part of it, and would be gone at the end of the session.

use std::collections::{BTreeMap, BTreeSet};

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
    /// A label is used that was added to a type of the same transaction: the server allows that outside of savepoints only.
    pub outside_savepoints: bool,
}

/// Decides.
///
/// # Errors
/// Refused: a file that can't be read as SQL, or another language's migration; `all` where something can't run in one transaction; a COMMIT in a file that runs in a transaction of ours; a
/// transaction that a file begins and leaves open, or in which it says what can't run there.
pub fn decide(
    pending: &[&MigrationFile],
    choice: TransactionChoice,
    labels: &enums::Labels,
) -> Result<TransactionPlan> {
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
    obstacles.extend(pending.iter().filter_map(|file| {
        let (_, line) = file.own_commits.first()?;
        Some(format!("{}:{line}: a COMMIT ends a transaction of the file's own", file.name()))
    }));
    let together = early_uses(pending, labels, true)?;
    obstacles.extend(together.why);
    let apart = !obstacles.is_empty() || (choice == TransactionChoice::File && pending.len() > 1);
    match choice {
        TransactionChoice::All if !obstacles.is_empty() => Err(Error::refused(format!(
            "not everything can run in one transaction:\n{}",
            obstacles.join("\n")
        ))
        .with_hint("Use --tx auto: what can't share a transaction then runs by itself, and the undo restores the snapshot.")),
        // One transaction per file is one transaction where there is one file.
        _ if !apart => Ok(TransactionPlan {
            one: true,
            outside_savepoints: together.in_new_type,
            ..TransactionPlan::default()
        }),
        _ => {
            if obstacles.is_empty() {
                obstacles.push("each file in its own transaction, as told (--tx file)".to_owned());
            }
            let mut commits = early_uses(pending, labels, false)?.commits;
            for (place, file) in pending.iter().enumerate().filter(|(_, file)| !file.own_commits.is_empty()) {
                let of_file = commits.entry(place).or_default();
                of_file.extend(file.own_commits.iter().map(|(place, _)| *place));
                of_file.sort_unstable();
                of_file.dedup();
            }
            Ok(TransactionPlan { one: false, why: obstacles, commits, outside_savepoints: false })
        }
    }
}

/// The enums that get a label which something later reads like, each with the names that it had before.
pub fn uses_new_labels(pending: &[&MigrationFile]) -> BTreeMap<TableName, BTreeSet<TableName>> {
    let mut added: Vec<enums::NewValue> = Vec::new();
    let mut used = BTreeSet::new();
    let labels = enums::Labels::unknown(0);
    for file in pending {
        for statement in &file.statements {
            let uses = added.iter().filter(|new| enums::uses_value(statement, &file.sql, new, &labels));
            used.extend(uses.map(|new| new.enum_type.clone()));
            added.extend(enums::added_value(&statement.text));
        }
    }
    let all: Vec<&Statement> = pending.iter().flat_map(|file| &file.statements).collect();
    used.into_iter().map(|name| (name.clone(), enums::earlier_names(&name, &all))).collect()
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

/// Uses of enum values that need a commit first.
#[derive(Debug, Default)]
struct EarlyUses {
    /// As sentences.
    why: Vec<String>,
    /// Where within a file to commit.
    commits: BTreeMap<usize, Vec<usize>>,
    /// One needs none, because its type is of the same transaction.
    in_new_type: bool,
}

/// Finds them; `together`: all files are one transaction, as far as they can be.
fn early_uses(pending: &[&MigrationFile], labels: &enums::Labels, together: bool) -> Result<EarlyUses> {
    let mut labels = labels.clone();
    // Types that were made since the last commit.
    let mut made: Vec<TableName> = Vec::new();
    // Values that were added since the last commit: with file and line, and whether the type is as new.
    let mut added: Vec<(enums::NewValue, usize, String, bool)> = Vec::new();
    let mut found = EarlyUses::default();
    for (place, file) in pending.iter().enumerate() {
        if !together || file.no_transaction.is_some() {
            made.clear();
            added.clear();
        }
        if file.no_transaction.is_some() {
            file.statements.iter().for_each(|statement| labels.follow(statement));
            continue;
        }
        for (index, statement) in file.statements_without_wrapper()?.iter().enumerate() {
            if file.own_commits.iter().any(|(commit, _)| *commit == index) {
                made.clear();
                added.clear();
            }
            labels.follow(statement);
            made.extend(enums::created_enum(&statement.text));
            made.extend(enums::new_name(&statement.text, &made));
            let (at_once, used): (Vec<_>, Vec<_>) = added
                .iter()
                .filter(|(new, ..)| enums::uses_value(statement, &file.sql, new, &labels))
                .partition(|(.., is_new)| *is_new && labels.usable_in_new_types());
            found.in_new_type |= !at_once.is_empty();
            if let Some((new, by, place_added, _)) = used.last() {
                found.why.push(format!(
                    "{}: needs the value '{}' of {}, which {place_added} adds: it can be used only after a commit",
                    located(file, statement),
                    new.value,
                    new.enum_type
                ));
                if *by == place {
                    refuse_savepoints(file, statement)?;
                    found.commits.entry(place).or_default().push(index);
                }
                // Everything before is committed then.
                added.clear();
                made.clear();
            }
            let new = enums::added_value(&statement.text).map(|new| {
                let is_new = made.iter().any(|made| made.can_be(&new.enum_type));
                (new, place, format!("{}:{}", file.name(), statement.line), is_new)
            });
            added.extend(new);
        }
    }
    Ok(found)
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
    use crate::version::Version;

    fn file(number: u32, sql: &str) -> MigrationFile {
        let name = format!("{number:04}_x.sql");
        let version = Version::parse(&format!("{number:04}")).unwrap();
        MigrationFile::parse(name.into(), version, "x".to_owned(), sql.to_owned()).unwrap()
    }

    fn decided(files: &[&str], choice: TransactionChoice) -> Result<TransactionPlan> {
        let files: Vec<MigrationFile> =
            files.iter().enumerate().map(|(at, sql)| file(at as u32 + 1, sql)).collect();
        decide(&files.iter().collect::<Vec<_>>(), choice, &enums::Labels::unknown(180_000))
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
