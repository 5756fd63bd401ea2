//! What is legal and worth a second look. Notes only, and after a run only those that the run brought.

use common::error::Result;
use common::ident::{Ident, QualifiedName, printable};

use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey, Severity};
use super::session::{CheckSession, number, text};

/// Foreign keys whose columns lead no index: table (oid, schema, name), constraint (oid, name), columns.
const WITHOUT_INDEX: &str = r"
SELECT c.conrelid, n.nspname, t.relname, c.oid, c.conname,
  (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.i)
   FROM unnest(c.conkey) WITH ORDINALITY k(attnum, i)
   JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum)
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE c.contype = 'f' AND c.conparentid = 0 AND t.relpersistence <> 't'
  AND NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = c.conrelid AND i.indpred IS NULL
      AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)
ORDER BY n.nspname, t.relname, c.conname";

/// Constraints that nobody has proven: table (oid, schema, name), constraint (oid, name).
const NOT_VALID: &str = r"
SELECT c.conrelid, n.nspname, t.relname, c.oid, c.conname
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE NOT c.convalidated AND c.conparentid = 0 AND c.contype IN ('c', 'f', 'n')
  AND COALESCE((to_jsonb(c)->>'conenforced')::boolean, true)
ORDER BY n.nspname, t.relname, c.conname";

/// Tables that a crash empties: oid, schema, name.
const UNLOGGED: &str = r"
SELECT c.oid, n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'p', 'm') ORDER BY n.nspname, c.relname";

/// Indexes that are the same as an older one: table (oid, schema, name), index (oid, schema, name), the older one.
///
/// The pairs come first, by themselves: as one join of nine catalogs it took eight times as long to plan as to run. Tables
/// of PostgreSQL's own (oids below 16384) are left out before their definitions are printed.
const DUPLICATES: &str = r"
WITH pairs AS MATERIALIZED (
  SELECT i.indrelid, i.indexrelid, o.indexrelid AS older
  FROM pg_index i JOIN pg_index o ON o.indrelid = i.indrelid AND o.indexrelid < i.indexrelid
  WHERE i.indrelid >= 16384 AND i.indkey = o.indkey AND i.indclass = o.indclass AND i.indcollation = o.indcollation
    AND i.indoption = o.indoption AND i.indnkeyatts = o.indnkeyatts
    AND (NOT i.indisunique OR o.indisunique) AND NOT i.indisexclusion AND NOT o.indisexclusion
    AND pg_get_expr(i.indpred, i.indrelid) IS NOT DISTINCT FROM pg_get_expr(o.indpred, o.indrelid)
    AND pg_get_expr(i.indexprs, i.indrelid) IS NOT DISTINCT FROM pg_get_expr(o.indexprs, o.indrelid))
SELECT p.indrelid, n.nspname, t.relname, p.indexrelid, xn.nspname, x.relname, min(ox.relname::text)
FROM pairs p JOIN pg_class x ON x.oid = p.indexrelid JOIN pg_class ox ON ox.oid = p.older AND ox.relam = x.relam
JOIN pg_class t ON t.oid = p.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_namespace xn ON xn.oid = x.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = p.indexrelid AND c.contype IN ('p', 'u', 'x'))
GROUP BY p.indrelid, n.nspname, t.relname, p.indexrelid, xn.nspname, x.relname
ORDER BY n.nspname, t.relname, x.relname";

/// Prepared transactions that nobody has ended: name, owner, whole minutes.
const PREPARED: &str = r"
SELECT gid, owner, (extract(epoch FROM now() - prepared) / 60)::bigint
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";

/// Every note.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let mut notes = Vec::new();
    for row in session.catalog(CheckKind::Advice, WITHOUT_INDEX).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let columns = text(&row, 5);
        let detail = format!(
            "foreign key {} of {} ({}) has no index: every DELETE and key UPDATE on the other side scans the table",
            printable(&text(&row, 4)),
            table.short(),
            printable(&columns)
        );
        let repair = format!("CREATE INDEX CONCURRENTLY ON {table} ({columns});");
        notes.push(note(
            number(&row, 0),
            number(&row, 3),
            &text(&row, 4),
            &table,
            "no index",
            detail,
            repair,
        ));
    }
    for row in session.catalog(CheckKind::Advice, NOT_VALID).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let name = text(&row, 4);
        let detail = format!(
            "constraint {} of {} is NOT VALID: old rows were never checked against it",
            printable(&name),
            table.short()
        );
        let repair = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {};", Ident::new(name.as_str()));
        notes.push(note(number(&row, 0), number(&row, 3), &name, &table, "not valid", detail, repair));
    }
    for row in session.catalog(CheckKind::Advice, UNLOGGED).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let detail =
            format!("{} is UNLOGGED: a crash of the server empties it, and no standby has it", table.short());
        let repair = format!("ALTER TABLE {table} SET LOGGED;");
        notes.push(note(number(&row, 0), 0, "unlogged", &table, "unlogged", detail, repair));
    }
    for row in session.catalog(CheckKind::Advice, DUPLICATES).await? {
        let table = QualifiedName::new(text(&row, 1), text(&row, 2));
        let index = QualifiedName::new(text(&row, 4), text(&row, 5));
        let detail = format!(
            "index {} of {} is the same as {}: it costs every write and helps no query",
            index.short(),
            table.short(),
            printable(&text(&row, 6))
        );
        let repair = format!("DROP INDEX CONCURRENTLY {index};");
        notes.push(note(
            number(&row, 0),
            number(&row, 3),
            &text(&row, 5),
            &table,
            "duplicate",
            detail,
            repair,
        ));
    }
    for row in session.catalog(CheckKind::Advice, PREPARED).await? {
        let gid = text(&row, 0);
        let detail = format!(
            "prepared transaction {} of role {} waits since {} min: it keeps its locks and holds vacuum back",
            printable(&gid),
            printable(&text(&row, 1)),
            number::<i64>(&row, 2)
        );
        let key =
            RuleKey { check: CheckKind::Advice, object_oid: 0, rule_oid: 0, rule: format!("prepared {gid}") };
        let mut finding = Finding::state(key, printable(&gid), "prepared", detail);
        finding.severity = Severity::Note;
        let literal = common::ident::literal(&gid);
        finding.repair_sql = Some(format!("ROLLBACK PREPARED {literal}; -- or COMMIT PREPARED {literal}"));
        notes.push(finding);
    }
    Ok(notes)
}

fn note(
    table_oid: u32,
    rule_oid: u32,
    rule: &str,
    table: &QualifiedName,
    state: &str,
    detail: String,
    repair: String,
) -> Finding {
    // The kind of note is part of the rule: a foreign key can be both NOT VALID and without an index.
    let key = RuleKey {
        check: CheckKind::Advice,
        object_oid: table_oid,
        rule_oid,
        rule: format!("{state} {rule}"),
    };
    let mut finding = Finding::state(key, table.short(), state, detail);
    finding.severity = Severity::Note;
    finding.repair_sql = Some(repair);
    finding
}
