//! UNIQUE and primary keys by the heap's truth: no index is asked, because a corrupt one agrees with itself.
//!
//! EXCLUDE constraints and temporal keys are joined with themselves, which is quadratic in the worst case: small
//! tables only, unless the level is `deep`.

use common::error::Result;
use common::ident::{Ident, QualifiedName, printable};

use super::Outcome;
use super::model::{CheckKind, Finding, RuleKey, Severity, Skipped};
use super::session::{CheckSession, HEAP_ONLY, number, text};
use super::violations::{self, Subject};

/// Heap size up to which a self-join is done below `deep`: about ten thousand rows, a second at the worst.
pub(super) const SELF_JOIN_BYTES: i64 = 1 << 20;

/// Unique indexes that have a heap: table (oid, schema, name), index oid, name, definition, the key columns as a
/// select list `… AS k1, … AS k2`, their aliases, a key as text, and the WHERE clause.
///
/// The collation is the index's, not the column's. Columns are numbered by alias: an index on the constant 1 would
/// otherwise read as GROUP BY 1.
const UNIQUE_INDEXES: &str = r"
SELECT i.indrelid, n.nspname, c.relname, i.indexrelid, x.relname, pg_get_indexdef(i.indexrelid), k.list, k.aliases,
  CASE WHEN i.indnkeyatts = 1 THEN 'k1::text' ELSE format('ROW(%s)::text', k.aliases) END,
  concat_ws(' AND ', '(' || pg_get_expr(i.indpred, i.indrelid) || ')',
    CASE WHEN NOT COALESCE((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false) THEN k.not_null END)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
 SELECT string_agg(format('%s AS k%s', e.key, e.k), ', ' ORDER BY e.k) AS list,
  string_agg('k' || e.k, ', ' ORDER BY e.k) AS aliases,
  string_agg(format('(%s) IS NOT NULL', e.key), ' AND ' ORDER BY e.k) AS not_null
 FROM (SELECT s.k, pg_get_indexdef(i.indexrelid, s.k, true) || COALESCE((
         SELECT format(' COLLATE %I.%I', cn.nspname, co.collname)
         FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
         WHERE co.oid = i.indcollation[s.k - 1]), '') AS key
       FROM generate_series(1, i.indnkeyatts) AS s(k)) e) k
WHERE i.indisunique AND NOT i.indisexclusion AND i.indislive AND c.relkind IN ('r', 'm') AND c.relispopulated
  AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY n.nspname, c.relname, x.relname";

/// EXCLUDE constraints and keys WITHOUT OVERLAPS (18): table (oid, schema, name), constraint oid, name, definition,
/// and the query that selects one row (as `k`) for each pair of rows in conflict.
///
/// A row cannot conflict with itself, and each pair is seen once: `a.ctid < b.ctid`.
const EXCLUSIONS: &str = r"
SELECT co.conrelid, n.nspname, c.relname, co.oid, co.conname, pg_get_constraintdef(co.oid),
  format('SELECT ROW(%s)::text AS k FROM (SELECT ctid AS safe_run_ctid, %s FROM ONLY %I.%I%s) a'
         ' JOIN (SELECT ctid AS safe_run_ctid, %s FROM ONLY %I.%I%s) b ON a.safe_run_ctid < b.safe_run_ctid AND %s',
    k.keys, k.list, n.nspname, c.relname, p.predicate, k.list, n.nspname, c.relname, p.predicate, k.conflict)
FROM pg_constraint co JOIN pg_index i ON i.indexrelid = co.conindid
JOIN pg_class c ON c.oid = co.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT COALESCE(' WHERE ' || pg_get_expr(i.indpred, i.indrelid), '') AS predicate) p
CROSS JOIN LATERAL (
 SELECT string_agg(format('a.k%s', e.k), ', ' ORDER BY e.k) AS keys,
  string_agg(format('%s AS k%s', e.key, e.k), ', ' ORDER BY e.k) AS list,
  string_agg(format('a.k%s OPERATOR(%I.%s) b.k%s', e.k, e.nspname, e.oprname, e.k), ' AND ' ORDER BY e.k) AS conflict
 FROM (SELECT s.k, o.oprname, opn.nspname, pg_get_indexdef(i.indexrelid, s.k::int, true) || COALESCE((
         SELECT format(' COLLATE %I.%I', cn.nspname, cl.collname)
         FROM pg_collation cl JOIN pg_namespace cn ON cn.oid = cl.collnamespace
         WHERE cl.oid = i.indcollation[s.k - 1]), '') AS key
       FROM unnest(co.conexclop) WITH ORDINALITY AS s(op, k)
       JOIN pg_operator o ON o.oid = s.op JOIN pg_namespace opn ON opn.oid = o.oprnamespace) e) k
WHERE co.conexclop IS NOT NULL AND c.relkind = 'r' AND c.relpersistence <> 't'
ORDER BY n.nspname, c.relname, co.conname";

/// Collations that sort differently from when the indexes that use them were built: schema, name, version then, now.
const CHANGED_COLLATIONS: &str = r"
SELECT n.nspname, c.collname, c.collversion, pg_collation_actual_version(c.oid)
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion <> pg_collation_actual_version(c.oid)
  AND EXISTS (SELECT FROM pg_index i WHERE c.oid = ANY (i.indcollation::oid[]))
ORDER BY n.nspname, c.collname";

/// The same for the database's own collation. 14 has no such function.
const CHANGED_DATABASE_COLLATION: &str = r"
SELECT d.datname, to_jsonb(d)->>'datcollversion', pg_database_collation_actual_version(d.oid)
FROM pg_database d
WHERE d.datname = current_database()
  AND to_jsonb(d)->>'datcollversion' <> pg_database_collation_actual_version(d.oid)";

/// Notes about collations that changed under their indexes: the commonest way to duplicate rows in a unique index.
pub(super) async fn changed_collations(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let mut notes = Vec::new();
    for row in session.catalog(CheckKind::Unique, CHANGED_COLLATIONS).await? {
        let name = QualifiedName::new(text(&row, 0), text(&row, 1));
        notes.push(changed_collation("collation", &name.short(), &text(&row, 2), &text(&row, 3)));
    }
    if let Ok(rows) = session.query(CHANGED_DATABASE_COLLATION).await? {
        for row in rows {
            let name = Ident::new(text(&row, 0)).to_string();
            notes.push(changed_collation(
                "collation of database",
                &printable(&name),
                &text(&row, 1),
                &text(&row, 2),
            ));
        }
    }
    Ok(notes)
}

fn changed_collation(what: &str, name: &str, then: &str, now: &str) -> Finding {
    let key =
        RuleKey { check: CheckKind::Unique, object_oid: 0, rule_oid: 0, rule: format!("{what} {name}") };
    let detail = format!(
        "{what} {name} was version {then} when its indexes were built and is {now} now: \
         text in them may be in the wrong order, so REINDEX them"
    );
    let mut note = Finding::state(key, name.to_owned(), "collation", detail);
    note.severity = Severity::Note;
    note
}

/// One unique index of one heap.
#[derive(Debug)]
pub(super) struct UniqueIndex {
    pub key: RuleKey,
    pub definition: String,
    table: QualifiedName,
    grouped: String,
}

/// Every unique index.
pub(super) async fn list(session: &CheckSession<'_>) -> Result<Vec<UniqueIndex>> {
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
                table,
            }
        })
        .collect())
}

impl UniqueIndex {
    /// Groups the whole heap by the key; counts the rows that are one too many.
    pub async fn run(&self, session: &CheckSession<'_>, size_bytes: i64, out: &mut Outcome) -> Result<()> {
        match violations::fetch(session, HEAP_ONLY, size_bytes, &self.grouped).await? {
            Ok(found) => {
                out.ran.push(self.key.clone());
                if found.count > 0 {
                    let subject = Subject {
                        key: &self.key,
                        object: self.table.short(),
                        severity: Severity::Failure,
                        definition: &self.definition,
                        one: "duplicate row",
                        many: "duplicate rows",
                        place: format!(
                            "in {} under unique index {}",
                            self.table.short(),
                            printable(&self.key.rule)
                        ),
                        repair_sql: None,
                    };
                    out.findings.push(violations::finding(subject, found));
                }
            }
            Err(refused) => out.skipped.push(skipped(&self.key, &self.table, refused.message)),
        }
        Ok(())
    }
}

/// One EXCLUDE constraint or temporal key.
#[derive(Debug)]
pub(super) struct Exclusion {
    pub key: RuleKey,
    pub definition: String,
    table: QualifiedName,
    conflicts: String,
}

/// Every EXCLUDE constraint and temporal key.
pub(super) async fn list_exclusions(session: &CheckSession<'_>) -> Result<Vec<Exclusion>> {
    let rows = session.catalog(CheckKind::Exclude, EXCLUSIONS).await?;
    Ok(rows
        .iter()
        .map(|row| Exclusion {
            key: RuleKey {
                check: CheckKind::Exclude,
                object_oid: number(row, 0),
                rule_oid: number(row, 3),
                rule: text(row, 4),
            },
            definition: text(row, 5),
            table: QualifiedName::new(text(row, 1), text(row, 2)),
            conflicts: text(row, 6),
        })
        .collect())
}

impl Exclusion {
    /// Joins the heap with itself.
    pub async fn run(&self, session: &CheckSession<'_>, size_bytes: i64, out: &mut Outcome) -> Result<()> {
        let grouped = format!("SELECT k, count(*) AS n FROM ({}) q GROUP BY k", self.conflicts);
        match violations::fetch(session, HEAP_ONLY, size_bytes, &grouped).await? {
            Ok(found) => {
                out.ran.push(self.key.clone());
                if found.count > 0 {
                    let subject = Subject {
                        key: &self.key,
                        object: self.table.short(),
                        severity: Severity::Failure,
                        definition: &self.definition,
                        one: "pair of rows in conflict",
                        many: "pairs of rows in conflict",
                        place: format!("in {} under {}", self.table.short(), printable(&self.key.rule)),
                        repair_sql: None,
                    };
                    out.findings.push(violations::finding(subject, found));
                }
            }
            Err(refused) => out.skipped.push(skipped(&self.key, &self.table, refused.message)),
        }
        Ok(())
    }

    /// The constraint was passed over because of the table's size.
    pub fn too_large(&self) -> Skipped {
        let why = format!(
            "the table is larger than {} kB, and every pair of rows would be compared: use --level deep",
            SELF_JOIN_BYTES >> 10
        );
        skipped(&self.key, &self.table, why)
    }
}

fn skipped(key: &RuleKey, table: &QualifiedName, why: String) -> Skipped {
    Skipped {
        check: key.check,
        object: format!("{} ({})", table.short(), printable(&key.rule)),
        why,
        counts_for_strict: true,
    }
}
