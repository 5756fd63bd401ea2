//! CHECK constraints, of tables and domains, that rows of the snapshot break: the time has passed, a function or another table says
//! something else now. PostgreSQL keeps such rows where they are, and takes them nowhere else.
//!
//! Such a constraint is taken off while the rows are loaded and comes back NOT VALID, as PostgreSQL calls one that holds for new rows
//! alone, with its definition and comment. That is a difference and is named. Nothing else is mended like this: a row that breaks a
//! unique index, a partition's bound or a NOT NULL has no place in a database that has them.

use std::collections::HashSet;

use common::{
    Error, Ident, Progress, QualifiedName, Result,
    ident::{literal, printable},
    postgres::{
        ConnectionSettings, DriverError, Session,
        as_owner::{self, AsOwner},
        trust,
    },
};
use tokio::sync::Mutex;

/// A table's constraint with this name, and those that it is inherited from: where each stands by itself, the topmost first. No row
/// where `$3` is no CHECK constraint of the table, or the table is neither `$4`, whose rows are loaded, nor of its partition tree:
/// a function can raise what it likes, with the name of somebody else's constraint.
const OF_TABLE: &str = "
WITH RECURSIVE up(rel, height) AS (
  SELECT c.oid, 0 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2 AND c.oid IN (SELECT $4::text::pg_catalog.regclass::pg_catalog.oid UNION ALL
     SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.pg_partition_root($4::text::pg_catalog.regclass)))
  UNION ALL
  SELECT i.inhparent, up.height + 1 FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.rel
    JOIN pg_catalog.pg_constraint k ON k.conrelid = i.inhparent AND k.conname = $3 AND k.contype = 'c' AND NOT k.connoinherit)
SELECT n.nspname::text, c.relname::text, k.oid, pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.obj_description(k.oid, 'pg_constraint')
FROM (SELECT rel, pg_catalog.max(height) AS height FROM up GROUP BY rel) u JOIN pg_catalog.pg_class c ON c.oid = u.rel
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.conname = $3 AND k.contype = 'c' AND k.conislocal
ORDER BY u.height DESC, 1, 2";

/// The same for a domain, and those that it is made of.
const OF_DOMAIN: &str = "
WITH RECURSIVE base(typ, depth) AS (
  SELECT t.oid, 0 FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
   WHERE n.nspname = $1 AND t.typname = $2
  UNION ALL SELECT t.typbasetype, base.depth + 1 FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typ AND t.typtype = 'd')
SELECT n.nspname::text, t.typname::text, k.oid, pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.obj_description(k.oid, 'pg_constraint')
FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typ JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
JOIN pg_catalog.pg_constraint k ON k.contypid = t.oid AND k.conname = $3 AND k.contype = 'c' ORDER BY base.depth LIMIT 1";

/// The constraints of one database that is being made, which its rows break.
#[derive(Debug)]
pub struct BrokenRules {
    settings: ConnectionSettings,
    progress: Progress,
    aside: Mutex<Vec<Rule>>,
}

/// One that was taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    is_domain: bool,
    on: QualifiedName,
    name: Ident,
    definition: String,
    comment: Option<String>,
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
                    self.progress.warn(format!("rows break {}", rule.label()));
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
        let failed = |source| Error::postgres("could not look for the constraint that rows break", source);
        let (schema, on, constraint) = (&violation.schema, &violation.on, &violation.constraint);
        let rows = match violation.is_domain {
            true => session.query(OF_DOMAIN, &[schema, on, constraint]).await,
            false => session.query(OF_TABLE, &[schema, on, constraint, &table.to_string()]).await,
        };
        let rows = rows.map_err(failed)?;
        let rules: Vec<Rule> = rows
            .iter()
            .map(|row| Rule {
                is_domain: violation.is_domain,
                on: QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
                name: Ident::new(violation.constraint.as_str()),
                definition: row.get(3),
                comment: row.get(4),
            })
            .collect();
        let drop: Vec<String> = rules.iter().map(Rule::drop_sql).collect();
        match session.batch_execute(&drop.join("; ")).await {
            Ok(()) => Ok(Some(rules)),
            // 42501: somebody else's.
            Err(source) if source.code().is_some_and(|code| code.code() == "42501") => Ok(None),
            Err(source) => Err(Error::postgres("could not take off a constraint that rows break", source)),
        }
    }

    /// Puts them back, and says of each that it is not as it was.
    ///
    /// # Errors
    /// One could not be made: the database is not as the snapshot says.
    pub async fn put_back(&self, session: &Session) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        // The last that was taken off first: heirs before those that they inherit from.
        for rule in self.aside.lock().await.drain(..).rev() {
            let label = rule.label();
            let failed = |error: Error| error.context(format!("could not make {label} again"));
            match rule.others(session).await.map_err(failed)? {
                Some(owner) => self.add_as(owner, &rule).await.map_err(failed)?,
                None => session
                    .batch_execute(&rule.add_sql())
                    .await
                    .map_err(|source| Error::postgres(format!("could not make {label} again"), source))?,
            }
            lines.push(format!("{}: it came back NOT VALID, because rows break it", rule.label()));
        }
        lines.reverse();
        Ok(lines)
    }
}

impl BrokenRules {
    /// Makes it as its owner: to read the values of its definition can call his code.
    async fn add_as(&self, owner: u32, rule: &Rule) -> Result<()> {
        const CLOSED: &str = "SELECT n.nspname::pg_catalog.text, pg_catalog.pg_get_userbyid($1::pg_catalog.oid)::pg_catalog.text
            FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND NOT pg_catalog.has_schema_privilege($1::pg_catalog.oid, n.oid, 'USAGE')";
        let failed = |source| Error::postgres("the server does not take it", source);
        let session = self.settings.connect().await?;
        session.batch_execute(crate::load::STATEMENT).await.map_err(failed)?;
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
        session.batch_execute(&format!("BEGIN; {lend}{}", owner.create_sql())).await.map_err(failed)?;
        // From here on only text statements: nothing may be prepared where code of somebody else has been.
        session.simple_query(&owner.run_sql(&rule.add_sql(), "")).await.map_err(failed)?;
        session.batch_execute(&take_back).await.map_err(failed)?;
        as_owner::commit(&session).await?;
        session.close().await
    }
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

    fn kind(&self) -> &'static str {
        if self.is_domain { "DOMAIN" } else { "TABLE" }
    }

    fn label(&self) -> String {
        let of = if self.is_domain { "the domain" } else { "the table" };
        printable(&format!("the CHECK constraint {} of {of} {}", self.name.as_str(), self.on.short()))
    }

    fn drop_sql(&self) -> String {
        format!("ALTER {} {} DROP CONSTRAINT {}", self.kind(), self.on, self.name)
    }

    fn add_sql(&self) -> String {
        let (kind, on, name) = (self.kind(), &self.on, &self.name);
        let mut sql = format!("ALTER {kind} {on} ADD CONSTRAINT {name} {} NOT VALID", self.definition);
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
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(server) = cause.downcast_ref::<DriverError>().and_then(DriverError::as_db_error) {
            let constraint = server.constraint()?.to_owned();
            let schema = server.schema()?.to_owned();
            let (is_domain, on) = match (server.datatype(), server.table()) {
                (Some(domain), _) => (true, domain),
                (None, table) => (false, table?),
            };
            return Some(Violation { is_domain, schema, on: on.to_owned(), constraint });
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
            is_domain: false,
            on: QualifiedName::new("app", "Late"),
            name: Ident::new("until check"),
            definition: "CHECK ((until > now()))".to_owned(),
            comment: Some("it's late".to_owned()),
        };
        assert_eq!(rule.drop_sql(), r#"ALTER TABLE "app"."Late" DROP CONSTRAINT "until check""#);
        assert_eq!(
            rule.add_sql(),
            "ALTER TABLE \"app\".\"Late\" ADD CONSTRAINT \"until check\" CHECK ((until > now())) NOT VALID; \
             COMMENT ON CONSTRAINT \"until check\" ON \"app\".\"Late\" IS 'it''s late'"
        );
        let domain = Rule { is_domain: true, ..rule };
        assert!(domain.add_sql().starts_with("ALTER DOMAIN "), "{}", domain.add_sql());
        assert!(domain.add_sql().contains(" ON DOMAIN "), "{}", domain.add_sql());
    }
}
