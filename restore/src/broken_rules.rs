//! CHECK constraints, of tables and domains, that rows of the snapshot break: the time has passed, a function or another table says
//! something else now. PostgreSQL keeps such rows where they are, and takes them nowhere else.
//!
//! Such a constraint is taken off while the rows are loaded. Where the rows that are there then break it, it comes back NOT VALID, as
//! PostgreSQL calls one that holds for new rows alone, with its definition and comment. That is a difference and is named. Nothing
//! else is mended like this: a row that breaks a unique index, a partition's bound or a NOT NULL has no place in a database that
//! has them.
//!
//! An error is believed as far as it leads here, and no further: a function can raise what it likes, with the name of somebody
//! else's constraint. What is taken off has to be a rule of the table that is loaded, and the server's own look at all rows decides
//! how it comes back. In a tree of tables of several owners there is no such look: no owner may have the tables of another for a
//! moment. The rule comes back NOT VALID, with that reason.

mod looks;
mod queries;

use std::collections::HashSet;

use common::{
    Error, Ident, Progress, QualifiedName, Result,
    ident::{literal, printable},
    postgres::{
        ConnectionSettings, DbError, DriverError, Session,
        as_owner::{self, AsOwner},
        trust,
    },
};
pub use looks::{Left, Looks};
use queries::{HAS_HEIRS_OF_OTHERS, LEAVES_FIRST, OF_DOMAIN, OF_TABLE};
use tokio::sync::Mutex;

use crate::{collisions::Again, rule_settings};

/// The constraints of one database that is being made, which its rows break.
#[derive(Debug)]
pub struct BrokenRules {
    settings: ConnectionSettings,
    progress: Progress,
    aside: Mutex<Vec<Rule>>,
}

/// One that rows break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    oid: u32,
    is_domain: bool,
    on: QualifiedName,
    name: Ident,
    /// Without NOT VALID.
    definition: String,
    /// Whether it held for all rows.
    was_valid: bool,
    comment: Option<String>,
    /// Whether to read the definition calls nobody's code.
    is_plain: bool,
}

/// How a rule came back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Made {
    /// It holds for all rows.
    Valid,
    /// It holds for new rows, and this is why.
    NotValid(String),
}

/// What an error says about the constraint that a row breaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Violation {
    is_domain: bool,
    schema: String,
    on: String,
    constraint: String,
}

/// What one step has met: a constraint that is off and is named again is not what the rows break.
#[derive(Debug, Default)]
pub struct Seen(HashSet<Violation>);

impl BrokenRules {
    /// Nothing is taken off yet.
    pub fn new(settings: &ConnectionSettings, progress: &Progress) -> Self {
        Self { settings: settings.clone(), progress: progress.clone(), aside: Mutex::default() }
    }

    /// Takes off the constraint that `error` speaks of, which came of loading `table`; whether what failed is worth another try.
    ///
    /// # Errors
    /// The catalog can't be read. Where the role may not do it, nothing was done, and the first error counts.
    pub async fn take_off(&self, error: &Error, table: &QualifiedName, seen: &mut Seen) -> Result<bool> {
        let Some(violation) = violation(error) else { return Ok(false) };
        if !seen.0.insert(violation.clone()) {
            return Ok(false);
        }
        // Another connection may have had the same error.
        let mut aside = self.aside.lock().await;
        let session = self.settings.connect().await?;
        let taken = Self::take_off_in(&session, &violation, table).await?;
        session.close().await?;
        match taken {
            // Gone already, or none at all: the name is the error's own.
            Some(rules) if rules.is_empty() => Ok(aside.iter().any(|rule| {
                rule.is_domain == violation.is_domain && rule.name.as_str() == violation.constraint
            })),
            Some(rules) => {
                for rule in &rules {
                    self.progress.warn(format!("taken off until the rows are there: {}", rule.label()));
                }
                aside.extend(rules);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// What was taken off; empty where it was gone already, and none where it can't be.
    async fn take_off_in(
        session: &Session,
        violation: &Violation,
        table: &QualifiedName,
    ) -> Result<Option<Vec<Rule>>> {
        let rules = rules(session, violation, table).await?;
        let drop: Vec<String> = rules.iter().map(Rule::drop_sql).collect();
        let locks = locks(session, &rules).await?;
        let (drop, mut is_locked, mut again) = (drop.join("; "), true, Again::default());
        loop {
            let locks = if is_locked { locks.as_str() } else { "" };
            let Err(source) = session.batch_execute(&format!("BEGIN; {locks}{drop}; COMMIT")).await else {
                return Ok(Some(rules));
            };
            let error = Error::postgres("could not take off a constraint that rows break", source);
            // Where the session is lost, the first error says why.
            let _ = session.batch_execute("ROLLBACK").await;
            match error.sqlstate() {
                // Not the locks of all: an heir can be somebody else's, and the rule not.
                Some("42501") if is_locked => is_locked = false,
                // Somebody else's.
                Some("42501") => return Ok(None),
                _ if again.after(&error).await? => {}
                _ => return Err(error),
            }
        }
    }

    /// Puts them back, and says of each that is not as it was.
    ///
    /// # Errors
    /// One could not be made: the database is not as the snapshot says.
    pub async fn put_back(&self, session: &Session) -> Result<Vec<String>> {
        let (mut lines, mut left) = (Vec::new(), Left::default());
        // The last that was taken off first: heirs before those that they inherit from.
        for rule in self.aside.lock().await.drain(..).rev() {
            let label = rule.label();
            let failed = |error: Error| error.context(format!("could not make {label} again"));
            let looks = left.looks(session, &rule).await.map_err(failed)?;
            let made = match rule.others(session).await.map_err(failed)? {
                Some(owner) if rule.has_heirs_of_others(session, owner).await.map_err(failed)? => {
                    Self::add_unlooked(session, &rule).await
                }
                Some(owner) => self.add_as(owner, &rule, looks).await,
                None => Self::add(session, &rule, looks).await,
            };
            if let Made::NotValid(why) = made.map_err(failed)? {
                lines.extend(rule.line(&why));
                left.add(rule, why);
            }
        }
        lines.reverse();
        Ok(lines)
    }
}

fn unmade(source: DriverError) -> Error {
    Error::postgres("the server does not take it", source)
}

impl BrokenRules {
    async fn add(session: &Session, rule: &Rule, mut looks: Looks) -> Result<Made> {
        loop {
            let all = format!("{}; {}", rule_settings::OF_ITS_SESSIONS, rule.add_sql(Holds::ForAllRows));
            let Err(source) = session.batch_execute(&all).await else {
                return Ok(Made::Valid);
            };
            if let Some(why) = looks.after(rule, unmade(source))? {
                session.batch_execute(&rule.add_sql(Holds::ForNewRows)).await.map_err(unmade)?;
                return Ok(Made::NotValid(why));
            }
        }
    }

    /// Makes one of a tree of tables of several owners, which none of them could, and as none of them: the tables stay whose they
    /// are. Nobody's code runs: the definition calls none, and the server looks at no row.
    async fn add_unlooked(session: &Session, rule: &Rule) -> Result<Made> {
        if !rule.is_plain {
            return Err(Error::failed(
                "its tables belong to several roles, and to read its definition could call code of one of them",
            )
            .with_hint(
                "Rows break it, and only a superuser could make it for all of its tables. Where the snapshot comes from, give \
                 the tables one owner, or repair the rows, and take a new one; to restore this one, use --no-owner as a role \
                 that is no superuser.",
            ));
        }
        session.batch_execute(&rule.add_sql(Holds::ForNewRows)).await.map_err(unmade)?;
        Ok(Made::NotValid(
            "and nobody looked whether rows break it, because its tables belong to several roles".to_owned(),
        ))
    }

    /// Makes it as its owner, whose code its definition and the rows can call.
    async fn add_as(&self, owner: u32, rule: &Rule, mut looks: Looks) -> Result<Made> {
        const CLOSED: &str = "SELECT n.nspname::pg_catalog.text, pg_catalog.pg_get_userbyid($1::pg_catalog.oid)::pg_catalog.text
            FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND NOT pg_catalog.has_schema_privilege($1::pg_catalog.oid, n.oid, 'USAGE')";
        let failed = unmade;
        let session = self.settings.connect().await?;
        session.batch_execute(crate::sessions::STATEMENT).await.map_err(failed)?;
        let closed = session.query(CLOSED, &[&owner]).await.map_err(failed)?;
        let lent = |verb: &str, word: &str| -> String {
            let one = |row: &common::postgres::Row| {
                let (schema, role) =
                    (Ident::new(row.get::<_, String>(0)), Ident::new(row.get::<_, String>(1)));
                format!("{verb} USAGE ON SCHEMA {schema} {word} {role}; ")
            };
            closed.iter().map(one).collect()
        };
        let (lend, take_back) = (lent("GRANT", "TO"), lent("REVOKE", "FROM"));
        let owner = AsOwner::of(owner);
        let begin = format!("{}; {lend}{}; SAVEPOINT made", rule_settings::begin(), owner.create_sql());
        session.batch_execute(&begin).await.map_err(failed)?;
        // From here on only text statements: nothing may be prepared where code of somebody else has been.
        let all = owner.run_sql(&rule.add_sql(Holds::ForAllRows), "");
        let made = loop {
            let Err(source) = session.simple_query(&all).await else { break Made::Valid };
            let why = looks.after(rule, unmade(source))?;
            session.batch_execute("ROLLBACK TO SAVEPOINT made").await.map_err(failed)?;
            if let Some(why) = why {
                let new = owner.run_sql(&rule.add_sql(Holds::ForNewRows), "");
                session.simple_query(&new).await.map_err(failed)?;
                break Made::NotValid(why);
            }
        };
        session.batch_execute(&take_back).await.map_err(failed)?;
        as_owner::commit(&session).await?;
        session.close().await?;
        Ok(made)
    }
}

/// For which rows a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Those that are there and those that come: the server looks at each.
    ForAllRows,
    /// Those that come: NOT VALID.
    ForNewRows,
}

/// The rules that `error` speaks of, which came of loading `table`; none where it is no such error, and an empty list where the
/// table has no such rule.
///
/// # Errors
/// The catalog can't be read.
pub async fn broken_by(session: &Session, error: &Error, table: &QualifiedName) -> Result<Option<Vec<Rule>>> {
    match violation(error) {
        Some(violation) => rules(session, &violation, table).await.map(Some),
        None => Ok(None),
    }
}

/// The name of the table that a row breaks a rule of, by the word of `error`.
#[must_use]
pub fn table_of(error: &Error) -> Option<QualifiedName> {
    violation(error)
        .filter(|violation| !violation.is_domain)
        .map(|violation| QualifiedName::new(violation.schema, violation.on))
}

/// Locks the tables of these rules from the leaves up, which is the order of COPY: it locks a partition, and to read its bound then
/// those above it. ALTER TABLE by itself locks them from the top down.
async fn locks(session: &Session, rules: &[Rule]) -> Result<String> {
    let tables: Vec<String> =
        rules.iter().filter(|rule| !rule.is_domain).map(|rule| rule.on.to_string()).collect();
    let rows = session
        .query(LEAVES_FIRST, &[&tables])
        .await
        .map_err(|source| Error::postgres("could not look for the heirs of a table", source))?;
    let lock = |row: &common::postgres::Row| {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        format!("LOCK TABLE ONLY {name} IN ACCESS EXCLUSIVE MODE; ")
    };
    Ok(rows.iter().map(lock).collect())
}

async fn rules(session: &Session, violation: &Violation, table: &QualifiedName) -> Result<Vec<Rule>> {
    let failed = |source| Error::postgres("could not look for the constraint that rows break", source);
    let (schema, on, constraint) = (&violation.schema, &violation.on, &violation.constraint);
    let statement = if violation.is_domain { OF_DOMAIN } else { OF_TABLE };
    let rows =
        session.query(statement, &[schema, on, constraint, &table.to_string()]).await.map_err(failed)?;
    let rule = |row: &common::postgres::Row| {
        let definition: String = row.get(3);
        let valid = definition.strip_suffix(" NOT VALID");
        Rule {
            oid: row.get(2),
            is_domain: violation.is_domain,
            on: QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
            name: Ident::new(violation.constraint.as_str()),
            was_valid: valid.is_none(),
            definition: valid.unwrap_or(&definition).to_owned(),
            comment: row.get(4),
            is_plain: row.get(5),
        }
    };
    Ok(rows.iter().map(rule).collect())
}

impl Rule {
    /// The owner, where he is not trusted.
    async fn others(&self, session: &Session) -> Result<Option<u32>> {
        let owner = match self.is_domain {
            true => "SELECT typowner FROM pg_catalog.pg_type WHERE oid = $1::text::pg_catalog.regtype",
            false => "SELECT relowner FROM pg_catalog.pg_class WHERE oid = $1::text::pg_catalog.regclass",
        };
        let failed = |source| Error::postgres("could not look for the owner of a constraint", source);
        let owner: u32 = session.query_one(owner, &[&self.on.to_string()]).await.map_err(failed)?.get(0);
        let is_trusted = |role: &trust::Role| role.oid == owner && role.is_trusted;
        Ok((!trust::roles(session).await?.iter().any(is_trusted)).then_some(owner))
    }

    async fn has_heirs_of_others(&self, session: &Session, owner: u32) -> Result<bool> {
        if self.is_domain {
            return Ok(false);
        }
        let failed = |source| Error::postgres("could not look for the heirs of a table", source);
        let row = session.query_one(HAS_HEIRS_OF_OTHERS, &[&self.on.to_string(), &owner]).await;
        Ok(row.map_err(failed)?.get(0))
    }

    /// Whether the table has it still, as it was when it was read.
    ///
    /// # Errors
    /// The catalog can't be read.
    pub async fn is_as_read(&self, session: &Session) -> Result<bool> {
        let violation = Violation {
            is_domain: self.is_domain,
            schema: self.on.schema.as_str().to_owned(),
            on: self.on.name.as_str().to_owned(),
            constraint: self.name.as_str().to_owned(),
        };
        Ok(rules(session, &violation, &self.on).await?.contains(self))
    }

    fn kind(&self) -> &'static str {
        if self.is_domain { "DOMAIN" } else { "TABLE" }
    }

    /// Its name, for a person.
    #[must_use]
    pub fn label(&self) -> String {
        let of = if self.is_domain { "the domain" } else { "the table" };
        printable(&format!("the CHECK constraint {} of {of} {}", self.name.as_str(), self.on.short()))
    }

    /// The domain or the table that it is a rule of.
    #[must_use]
    pub fn on(&self) -> &QualifiedName {
        &self.on
    }

    /// Whether it is a rule of a domain.
    #[must_use]
    pub fn is_domain(&self) -> bool {
        self.is_domain
    }

    /// Whether it held for all rows.
    #[must_use]
    pub fn was_valid(&self) -> bool {
        self.was_valid
    }

    /// What is said where it came back for new rows alone, and why; nothing where that is no news.
    #[must_use]
    pub fn line(&self, why: &str) -> Option<String> {
        let line = || format!("{}: it came back NOT VALID, {why}", self.label());
        self.was_valid.then(line)
    }

    /// Takes it off.
    #[must_use]
    pub fn drop_sql(&self) -> String {
        format!("ALTER {} {} DROP CONSTRAINT {}", self.kind(), self.on, self.name)
    }

    /// Makes it, with its comment.
    #[must_use]
    pub fn add_sql(&self, holds: Holds) -> String {
        let (kind, on, name) = (self.kind(), &self.on, &self.name);
        let not_valid = if holds == Holds::ForNewRows { " NOT VALID" } else { "" };
        let mut sql = format!("ALTER {kind} {on} ADD CONSTRAINT {name} {}{not_valid}", self.definition);
        if let Some(comment) = &self.comment {
            let domain = if self.is_domain { "DOMAIN " } else { "" };
            sql.push_str(&format!("; COMMENT ON CONSTRAINT {name} ON {domain}{on} IS {}", literal(comment)));
        }
        sql
    }
}

/// 23514 with the names that the server gives beside its message.
fn violation(error: &Error) -> Option<Violation> {
    if error.sqlstate() != Some("23514") {
        return None;
    }
    let server = of_server(error)?;
    let constraint = server.constraint()?.to_owned();
    let schema = server.schema()?.to_owned();
    let (is_domain, on) = match (server.datatype(), server.table()) {
        (Some(domain), _) => (true, domain),
        (None, table) => (false, table?),
    };
    Some(Violation { is_domain, schema, on: on.to_owned(), constraint })
}

/// What to do about rows that no partition takes in.
pub const NO_PARTITION: &str = "The bounds of the partitions do not let these rows in: a function of the key was redefined since they were \
                                written, or the bounds are others now. No bound can be NOT VALID. Correct the function or the bounds in the \
                                database and take a new snapshot, or load this one by hand as its README.txt says, into the partitioned table.";

/// Whether a partition's bound kept rows out: the server names the table then, and no constraint. A function that raises the same code by
/// itself names neither.
pub fn is_of_a_bound(error: &Error) -> bool {
    error.sqlstate() == Some("23514")
        && of_server(error).is_some_and(|server| server.constraint().is_none() && server.table().is_some())
}

/// What the server itself said, where it did.
fn of_server(error: &Error) -> Option<&DbError> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(server) = cause.downcast_ref::<DriverError>().and_then(DriverError::as_db_error) {
            return Some(server);
        }
        source = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_comes_back_with_its_definition_and_its_comment() {
        let rule = Rule {
            oid: 1,
            is_domain: false,
            on: QualifiedName::new("app", "Late"),
            name: Ident::new("until check"),
            definition: "CHECK ((until > now()))".to_owned(),
            was_valid: true,
            comment: Some("it's late".to_owned()),
            is_plain: true,
        };
        assert_eq!(rule.drop_sql(), r#"ALTER TABLE "app"."Late" DROP CONSTRAINT "until check""#);
        assert_eq!(
            rule.add_sql(Holds::ForNewRows),
            "ALTER TABLE \"app\".\"Late\" ADD CONSTRAINT \"until check\" CHECK ((until > now())) NOT VALID; \
             COMMENT ON CONSTRAINT \"until check\" ON \"app\".\"Late\" IS 'it''s late'"
        );
        let domain = Rule { is_domain: true, ..rule };
        assert!(domain.add_sql(Holds::ForAllRows).starts_with("ALTER DOMAIN "));
        assert!(domain.add_sql(Holds::ForAllRows).contains(" ON DOMAIN "));
        assert!(!domain.add_sql(Holds::ForAllRows).contains("NOT VALID"));
    }
}
