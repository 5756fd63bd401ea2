//! Histories of other tools that are no plain tables. What stands in a view is the answer of code, perhaps of another role's, and a
//! foreign table's is another server's: neither is read. It is named instead, before anything runs.

use common::{Error, Result, ident::QualifiedName, migration_tools::TOOLS, postgres::Session};

/// What is called like a tool's history and is no plain table: schema, name, what it is, columns. A part of a partitioned table is one
/// of the tables that are read.
const RELATIONS: &str = "
SELECT n.nspname::text, c.relname::text,
       CASE c.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' WHEN 'f' THEN 'a foreign table' ELSE 'a partitioned table' END,
       pg_catalog.array_agg(a.attname::text)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('v', 'm', 'f', 'p') AND c.relname = ANY ($1)
  AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'safe_run')
GROUP BY 1, 2, 3 ORDER BY 1, 2";

/// What is called like the history of a tool for files of SQL, and has its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub name: QualifiedName,
    /// What it is, with its article.
    pub kind: String,
    /// Whose history has that name and these columns.
    pub tool: &'static str,
    /// How that tool is told to migrate.
    pub command: &'static str,
}

/// Looks for them.
///
/// # Errors
/// The connection's own.
pub async fn find(session: &Session) -> Result<Vec<Unreadable>> {
    let names: Vec<&str> = TOOLS.iter().map(|known| known.table).collect();
    let rows = session
        .query(RELATIONS, &[&names])
        .await
        .map_err(|source| Error::postgres("could not look for the histories of other tools", source))?;
    let found = rows.iter().filter_map(|row| {
        let (schema, name, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let columns: Vec<String> = row.get(3);
        let has = |wanted: &&str| columns.iter().any(|column| column == wanted);
        let tool = TOOLS
            .iter()
            .find(|known| known.table == name && known.columns.iter().all(has))
            .filter(|known| known.endings.contains(&"sql"))?;
        Some(Unreadable {
            name: QualifiedName::new(schema, name),
            kind,
            tool: tool.tool,
            command: tool.command,
        })
    });
    Ok(found.collect())
}
