//! CHECK constraints that rows of the snapshot break, where single tables come back: taken off in the transaction that brings the
//! rows, and made again in it, NOT VALID. Only those of the tables that are restored: a rule that others share stays as it is, and
//! the restore fails.

use common::{Error, QualifiedName, Result, postgres::Session};

use super::transaction::LiveTransaction;
use crate::broken_rules::{self, Holds, Rule};

/// The rules that `error` speaks of, as a database says that has these tables; none where it speaks of none.
pub async fn broken_by(session: &Session, error: &Error, tables: &[&QualifiedName]) -> Result<Vec<Rule>> {
    let mut found = Vec::new();
    let named = broken_rules::table_of(error);
    let candidates: Vec<&QualifiedName> = match &named {
        Some(table) => vec![table],
        // A domain's: of which table, the error does not say.
        None => tables.to_vec(),
    };
    for table in candidates {
        let Some(rules) = broken_rules::broken_by(session, error, table).await? else { break };
        found = rules;
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Adds rules to those that are taken off; whether there was a new one among them.
pub fn add(aside: &mut Vec<Rule>, found: Vec<Rule>) -> bool {
    let before = aside.len();
    for rule in found {
        if !aside.contains(&rule) {
            aside.push(rule);
        }
    }
    aside.len() > before
}

/// Takes them off.
pub async fn drop(transaction: &LiveTransaction, aside: &[Rule]) -> Result<()> {
    for rule in aside {
        transaction.run("could not take off a constraint that rows break", &rule.drop_sql()).await?;
    }
    Ok(())
}

/// Makes them again: heirs before those that they inherit from.
pub async fn put_back(transaction: &LiveTransaction, aside: &[Rule]) -> Result<()> {
    for rule in aside.iter().rev() {
        let add = rule.add_sql(Holds::ForNewRows);
        transaction.run("could not make a constraint again that rows break", &add).await?;
    }
    Ok(())
}

/// What is said of them afterwards.
pub fn lines(aside: &[Rule]) -> Vec<String> {
    aside.iter().filter_map(|rule| rule.line(broken_rules::BROKEN)).collect()
}

/// What to do about a rule that could not be taken off.
pub fn hint(error: Error) -> Error {
    match error.sqlstate() {
        Some("23514") if error.hint().is_none() => error.with_hint(
            "Rows of the snapshot break this rule, and others share it. Restore them into a database of their own: with --into \
             NAME the rule comes back NOT VALID.",
        ),
        _ => error,
    }
}
