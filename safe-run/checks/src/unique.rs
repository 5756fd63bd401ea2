//! UNIQUE and primary keys by the heap's truth: no index is asked, because a corrupt one agrees with itself.
//!
//! The repair is shown, never run.

use common::{
    error::Result,
    ident::{QualifiedName, printable, with_suffix},
    postgres::who_asks::{Rights, Standings},
};

use crate::{
    catalogue::CheckKind,
    model::{RuleKey, Severity},
    outcome::Outcome,
    question::{HEAP_ONLY, Question},
    session::{Answer, CheckSession, number, text},
    violations::{self, Subject},
};

/// Unique indexes that have a heap: table (oid, schema, name), index oid, name, definition, the key columns as a
/// select list `… AS k1, … AS k2`, their aliases, a key as text, and the WHERE clause.
///
/// The collation is the index's, not the column's. Columns are numbered by alias: an index on the constant 1 would
/// otherwise read as GROUP BY 1. The server is asked to print a key only where it is an expression: that takes longer than
/// all the rest.
const UNIQUE_INDEXES: &str = r"
SELECT i.indrelid, n.nspname, c.relname, i.indexrelid, x.relname, pg_get_indexdef(i.indexrelid), k.list, k.aliases,
  CASE WHEN i.indnkeyatts > 1 THEN format('ROW(%s)::text', k.aliases)
    WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attnum = 1 AND a.atttypid < 16384) THEN 'k1::text'
    ELSE 'pg_catalog.format(''%s'', k1)' END,
  concat_ws(' AND ', '(' || pg_get_expr(i.indpred, i.indrelid) || ')',
    CASE WHEN NOT COALESCE((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false) THEN k.not_null END)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
 SELECT string_agg(format('%s AS k%s', e.key, e.k), ', ' ORDER BY e.k) AS list,
  string_agg('k' || e.k, ', ' ORDER BY e.k) AS aliases,
  string_agg(format('(%s) IS NOT NULL', e.key), ' AND ' ORDER BY e.k) AS not_null
 FROM (SELECT s.k, CASE WHEN a.attname IS NULL THEN pg_get_indexdef(i.indexrelid, s.k, true) ELSE quote_ident(a.attname) END
         || COALESCE((
         SELECT format(' COLLATE %I.%I', cn.nspname, co.collname)
         FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
         WHERE co.oid = i.indcollation[s.k - 1]), '') AS key
       FROM generate_series(1, i.indnkeyatts) AS s(k)
       LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[s.k - 1]) e) k
WHERE i.indisunique AND NOT i.indisexclusion AND i.indislive AND c.relkind IN ('r', 'm') AND c.relispopulated
  AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY n.nspname, c.relname, x.relname";

/// One unique index of one heap.
#[derive(Debug)]
pub(super) struct UniqueIndex {
    pub key: RuleKey,
    pub definition: String,
    table: QualifiedName,
    grouped: String,
    /// Selects the keys of some rows and how many have each: what stands before and after their places.
    keyed: (String, String),
    /// Selects the `ctid` of each row but the first of its key.
    surplus: String,
    index: QualifiedName,
    pub rights: Rights,
}

/// Every unique index.
pub(super) async fn list(session: &CheckSession<'_>, standings: &Standings) -> Result<Vec<UniqueIndex>> {
    let rows = session.catalog(CheckKind::Unique, UNIQUE_INDEXES).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = QualifiedName::new(text(row, 1), text(row, 2));
            let (keys, aliases, key_text, filter) = (text(row, 6), text(row, 7), text(row, 8), text(row, 9));
            let filter = if filter.is_empty() { String::new() } else { format!(" WHERE {filter}") };
            UniqueIndex {
                key: RuleKey {
                    check: CheckKind::Unique,
                    object_oid: number(row, 0),
                    rule_oid: number(row, 3),
                    rule: text(row, 4),
                },
                definition: text(row, 5),
                grouped: format!(
                    "SELECT {key_text} AS k, count(*) - 1 AS n FROM (SELECT {keys} FROM ONLY {table}{filter}) q \
                     GROUP BY {aliases} HAVING count(*) > 1"
                ),
                keyed: (
                    format!(
                        "SELECT {key_text}, count(*) FROM (SELECT {keys} FROM ONLY {table}{} ctid = ANY (",
                        if filter.is_empty() { " WHERE".to_owned() } else { format!("{filter} AND") }
                    ),
                    format!(")) q GROUP BY {aliases}"),
                ),
                surplus: format!(
                    "SELECT c FROM (SELECT c, pg_catalog.row_number() OVER (PARTITION BY {aliases} ORDER BY c) AS n \
                     FROM (SELECT ctid AS c, {keys} FROM ONLY {table}{filter}) q) q WHERE n > 1"
                ),
                index: QualifiedName::new(text(row, 1), text(row, 4)),
                rights: standings.of(number(row, 0)),
                table,
            }
        })
        .collect())
}

impl UniqueIndex {
    /// Groups the whole heap by the key, and counts the keys that are there twice: planned in a third of the time that
    /// their list takes.
    pub fn question(&self) -> Question {
        Question::of_heap(&self.rights, format!("SELECT pg_catalog.count(*) FROM ({}) q", self.grouped))
    }

    /// Counts the rows that are one too many, only if there are any.
    pub async fn go_on(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        count: Answer,
        out: &mut Outcome,
    ) -> Result<()> {
        let grouped = Question::of_heap(&self.rights, self.grouped.clone());
        let fetched = violations::fetch_if_any(session, size_bytes, count, grouped).await?;
        violations::settle(out, &self.key, &self.table, fetched, || Subject {
            key: &self.key,
            object: self.table.short(),
            severity: Severity::Failure,
            definition: &self.definition,
            one: "duplicate row",
            many: "duplicate rows",
            place: format!("in {} under unique index {}", self.table.short(), printable(&self.key.rule)),
            repair_sql: Some(self.repair_sql()),
        });
        Ok(())
    }

    /// The keys of the rows at `places`, and how many have each.
    pub fn keys_among(&self, places: &str) -> String {
        format!("{}{places}{}", self.keyed.0, self.keyed.1)
    }

    /// Moves all but the first row of each key aside, and builds the index again. The index must not be asked for it.
    fn repair_sql(&self) -> String {
        let (table, surplus) = (&self.table, &self.surplus);
        let aside = QualifiedName::new(
            table.schema.clone(),
            with_suffix(table.name.as_str(), "_duplicates").as_str(),
        );
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ;\n{HEAP_ONLY}\n\
             CREATE TABLE {aside} AS SELECT * FROM ONLY {table} WHERE ctid IN ({surplus});\n\
             DELETE FROM ONLY {table} WHERE ctid IN ({surplus});\n\
             REINDEX INDEX {};\nCOMMIT;",
            self.index
        )
    }
}
