//! Reads what [`sql::expectation`] needs to know of the catalog before the migration.

use std::collections::{HashMap, HashSet};

use common::{
    Error, Result,
    postgres::{Client, Row},
};

use sql::expectation::{ChildFact, Facts, ForeignKeyFact, TableFact, TriggerFact};
use sql::statement::TableName;

const TABLES: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'";

const CHILDREN: &str = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits";

const FOREIGN_KEYS: &str = "SELECT conrelid, confrelid, confdeltype = 'c', confdeltype IN ('n', 'd') OR confupdtype IN ('c', 'n', 'd') FROM pg_catalog.pg_constraint WHERE contype = 'f'";

/// Triggers by the bits of `tgtype` (4 insert, 8 delete, 16 update, 32 truncate), rules by their event.
const TRIGGERS: &str = "
SELECT tgrelid, tgname::text, tgtype & 4 <> 0, tgtype & 16 <> 0, tgtype & 8 <> 0, tgtype & 32 <> 0
FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT r.ev_class, r.rulename::text, r.ev_type = '3', r.ev_type = '2', r.ev_type = '4', false
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
WHERE c.relkind IN ('r', 'p') AND r.rulename <> '_RETURN'";

/// One event trigger that fires in an ordinary session on a change of the schema, and whose function is no C.
const EVENT_TRIGGER: &str = "
SELECT e.evtname::text FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE e.evtevent <> 'login' AND e.evtenabled IN ('O', 'A') AND l.lanname NOT IN ('c', 'internal') ORDER BY 1 LIMIT 1";

/// Functions by name, and whether one of that name can change rows: volatile, and not written in C, where what
/// PostgreSQL and its extensions ship does not touch the user's tables.
const FUNCTIONS: &str = "
SELECT n.nspname, p.proname, pg_catalog.bool_or(p.provolatile = 'v' AND l.lanname NOT IN ('c', 'internal'))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE n.nspname <> 'information_schema' GROUP BY 1, 2";

/// Which functions can change rows.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    builtin: HashSet<String>,
    user: HashMap<String, HashMap<String, bool>>,
}

impl Functions {
    /// Whether a function that is written as `name` can change rows. In doubt, yes.
    pub fn may_write(&self, name: &TableName) -> bool {
        let user = self.user.get(&name.name);
        match (&name.schema, user) {
            (Some(schema), _) if schema == "pg_catalog" || schema == "information_schema" => false,
            (Some(schema), Some(schemas)) => schemas.get(schema).copied().unwrap_or(true),
            (None, Some(schemas)) => schemas.values().any(|writes| *writes),
            (None, None) => !self.builtin.contains(&name.name),
            (Some(_), None) => true,
        }
    }
}

/// Reads both.
pub async fn read(client: &Client) -> Result<(Facts, Functions)> {
    let rows = async |statement: &str| -> Result<Vec<Row>> {
        client
            .query(statement, &[])
            .await
            .map_err(|source| Error::postgres("could not read the catalog", source))
    };
    let facts = Facts {
        tables: rows(TABLES)
            .await?
            .iter()
            .map(|row| TableFact {
                oid: row.get(0),
                schema: row.get(1),
                name: row.get(2),
                partitioned: row.get(3),
            })
            .collect(),
        children: rows(CHILDREN)
            .await?
            .iter()
            .map(|row| ChildFact { child: row.get(0), parent: row.get(1) })
            .collect(),
        foreign_keys: rows(FOREIGN_KEYS)
            .await?
            .iter()
            .map(|row| ForeignKeyFact {
                referencing: row.get(0),
                referenced: row.get(1),
                on_delete_cascade: row.get(2),
                changes_values: row.get(3),
            })
            .collect(),
        triggers: rows(TRIGGERS)
            .await?
            .iter()
            .map(|row| TriggerFact {
                table: row.get(0),
                name: row.get(1),
                on_insert: row.get(2),
                on_update: row.get(3),
                on_delete: row.get(4),
                on_truncate: row.get(5),
            })
            .collect(),
        event_trigger: rows(EVENT_TRIGGER).await?.first().map(|row| row.get(0)),
    };
    let mut functions = Functions::default();
    for row in rows(FUNCTIONS).await? {
        let (schema, name, writes): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        if schema == "pg_catalog" {
            functions.builtin.insert(name);
        } else {
            functions.user.entry(name).or_default().insert(schema, writes);
        }
    }
    Ok((facts, functions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: Option<&str>, name: &str) -> TableName {
        TableName { schema: schema.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn a_function_that_is_not_known_can_write() {
        let functions = Functions {
            builtin: HashSet::from(["lower".to_owned(), "shadowed".to_owned()]),
            user: HashMap::from([(
                "shadowed".to_owned(),
                HashMap::from([("app".to_owned(), true), ("other".to_owned(), false)]),
            )]),
        };
        assert!(!functions.may_write(&name(None, "lower")));
        assert!(!functions.may_write(&name(Some("pg_catalog"), "anything")));
        assert!(functions.may_write(&name(None, "shadowed")));
        assert!(!functions.may_write(&name(Some("other"), "shadowed")));
        assert!(functions.may_write(&name(None, "made_by_this_migration")));
    }
}
