//! Where other tools' own histories stand, before and after a command: one line of the report. It only reads.

use std::collections::BTreeMap;

use common::{Error, Ident, QualifiedName, Result, postgres::Client};

/// A table in which a migration tool keeps its versions.
struct Known {
    table: &'static str,
    /// Only in this schema; any if `None`.
    schema: Option<&'static str>,
    /// What names a row.
    label: &'static str,
    /// What tells the newest row.
    order: &'static str,
    /// A column that other tables of the name do not have.
    column: &'static str,
}

const fn known(table: &'static str, label: &'static str, order: &'static str, column: &'static str) -> Known {
    Known { table, schema: None, label, order, column }
}

const KNOWN: [Known; 17] = [
    known("alembic_version", "version_num", "version_num", "version_num"),
    known("django_migrations", "app || '.' || name", "id", "app"),
    known("schema_migrations", "version", "version", "version"),
    known("databasechangelog", "id", "orderexecuted", "orderexecuted"),
    Known { schema: Some("sqitch"), ..known("changes", "change", "committed_at", "change_id") },
    Known { schema: Some("drizzle"), ..known("__drizzle_migrations", "hash", "created_at", "hash") },
    known("knex_migrations", "name", "id", "batch"),
    known("pgmigrations", "name", "id", "run_on"),
    known("_prisma_migrations", "migration_name", "started_at", "migration_name"),
    known("_sqlx_migrations", "version", "version", "checksum"),
    known("goose_db_version", "version_id", "id", "version_id"),
    known("flyway_schema_history", "script", "installed_rank", "script"),
    known("refinery_schema_history", "version", "version", "applied_on"),
    known("__diesel_schema_migrations", "version", "version", "run_on"),
    known("atlas_schema_revisions", "version", "version", "operator_version"),
    known("schema_version", "version", "version", "version"),
    Known {
        schema: Some("graphile_migrate"),
        ..known("migrations", "filename", "filename", "previous_hash")
    },
];

const FIND: &str = "
SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND c.relname = $1 AND n.nspname NOT LIKE 'pg\\_%' AND ($3::text IS NULL OR n.nspname = $3)
ORDER BY 1";

/// Each history that is there: how many rows it has, and the newest.
pub type Positions = BTreeMap<String, (i64, Option<String>)>;

/// Reads them.
pub async fn read(client: &Client) -> Result<Positions> {
    let mut found = Positions::new();
    for known in &KNOWN {
        let failed = |source| Error::postgres(format!("could not read {}", known.table), source);
        let schemas =
            client.query(FIND, &[&known.table, &known.column, &known.schema]).await.map_err(failed)?;
        for schema in schemas {
            let table = QualifiedName::new(Ident::new(schema.get::<_, String>(0)), known.table);
            let sql = format!(
                "SELECT pg_catalog.count(*), (SELECT ({})::text FROM {table} ORDER BY {} DESC LIMIT 1) FROM {table}",
                known.label, known.order
            );
            let row = client.query_one(&sql, &[]).await.map_err(failed)?;
            found.insert(table.short(), (row.get(0), row.get(1)));
        }
    }
    Ok(found)
}

/// What changed, as sentences.
pub fn describe(before: &Positions, after: &Positions) -> Vec<String> {
    let at = |position: Option<&(i64, Option<String>)>| match position {
        None => "not there".to_owned(),
        Some((rows, newest)) => {
            let newest = newest.as_deref().map_or("empty".to_owned(), common::ident::printable);
            format!("{newest} ({})", common::cli::format::plural(rows.unsigned_abs(), "row", "rows"))
        }
    };
    let mut tables: Vec<&String> = before.keys().chain(after.keys()).collect();
    tables.sort();
    tables.dedup();
    tables
        .into_iter()
        .map(|table| match (before.get(table), after.get(table)) {
            (old, new) if old == new => format!("{table} is unchanged at {}", at(new)),
            (old, new) => format!("{table}: {} → {}", at(old), at(new)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_and_what_did_not_are_told_apart() {
        let positions = |list: &[(&str, i64, &str)]| -> Positions {
            list.iter()
                .map(|(table, rows, newest)| ((*table).to_owned(), (*rows, Some((*newest).to_owned()))))
                .collect()
        };
        let before = positions(&[("alembic_version", 1, "a1"), ("knex_migrations", 2, "b")]);
        let after =
            positions(&[("alembic_version", 1, "c3"), ("knex_migrations", 2, "b"), ("pgmigrations", 1, "d")]);
        assert_eq!(
            describe(&before, &after),
            [
                "alembic_version: a1 (1 row) → c3 (1 row)",
                "knex_migrations is unchanged at b (2 rows)",
                "pgmigrations: not there → d (1 row)",
            ]
        );
    }
}
