//! CHECK constraints that rows of the snapshot break, where single tables come back: taken off in the transaction that brings the
//! rows, and made again in it, NOT VALID. Only those of the tables that are restored: a rule that others share stays as it is, and
//! the restore fails.

use common::{Error, QualifiedName, Result, postgres::Session};

use super::transaction::LiveTransaction;
use crate::broken_rules::{self, Holds, Left, Looks, Rule};

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

/// Makes them again, heirs before those that they inherit from, and says of each that is not as it was what the server's own look at
/// all rows found. An error's words alone are nobody's proof.
pub async fn put_back(transaction: &LiveTransaction, aside: &[Rule]) -> Result<Vec<String>> {
    let (mut lines, mut left) = (Vec::new(), Left::default());
    for rule in aside.iter().rev() {
        let why = match rule.was_valid() {
            true => look(transaction, rule, left.looks(transaction.session(), rule).await?).await?,
            false => Some(String::new()),
        };
        if let Some(why) = why {
            transaction.run(UNMADE, &rule.add_sql(Holds::ForNewRows)).await?;
            lines.extend(rule.line(&why));
            left.add(rule.clone(), why);
        }
    }
    lines.reverse();
    Ok(lines)
}

const UNMADE: &str = "could not make a constraint again that rows break";

/// Makes a rule for all rows. Where that can't be, it is not made, and this is why.
async fn look(transaction: &LiveTransaction, rule: &Rule, mut looks: Looks) -> Result<Option<String>> {
    let all = rule.add_sql(Holds::ForAllRows);
    loop {
        transaction.run(UNMADE, "SAVEPOINT before_look").await?;
        let Err(error) = transaction.run(UNMADE, &all).await else {
            transaction.run(UNMADE, "RELEASE SAVEPOINT before_look").await?;
            return Ok(None);
        };
        let why = looks.after(rule, error)?;
        let back = "ROLLBACK TO SAVEPOINT before_look; RELEASE SAVEPOINT before_look";
        transaction.run(UNMADE, back).await?;
        if why.is_some() {
            return Ok(why);
        }
    }
}

/// What to do about a rule that could not be taken off.
pub fn hint(error: Error) -> Error {
    match error.sqlstate() {
        Some("23514") if error.hint().is_some() => error,
        Some("23514") if broken_rules::is_of_a_bound(&error) => error.with_hint(broken_rules::NO_PARTITION),
        Some("23514") => error.with_hint(
            "Rows of the snapshot break this rule, which can't be taken off here: others may use it too. Restore them into a database of \
             their own: with --into NAME the rule comes back NOT VALID.",
        ),
        _ => error,
    }
}
