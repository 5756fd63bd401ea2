//! EXCLUDE constraints and keys WITHOUT OVERLAPS by the heap's truth.
//!
//! Every pair of rows is joined, which is quadratic in the worst case: small tables only, unless the level is `deep`.

use common::{
    error::Result,
    ident::{QualifiedName, printable},
    postgres::who_asks::{Rights, Standings},
};

use crate::{
    catalogue::CheckKind,
    model::{RuleKey, Severity, Skipped},
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, number, text},
    violations::{self, Subject},
};

/// Heap size up to which a self-join is done below `deep`: about ten thousand rows, a second at the worst.
pub(super) const SELF_JOIN_BYTES: i64 = 1 << 20;

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

/// One EXCLUDE constraint or temporal key.
#[derive(Debug)]
pub(super) struct Exclusion {
    pub key: RuleKey,
    pub definition: String,
    table: QualifiedName,
    conflicts: String,
    rights: Rights,
}

/// Every EXCLUDE constraint and temporal key.
pub(super) async fn list(session: &CheckSession<'_>, standings: &Standings) -> Result<Vec<Exclusion>> {
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
            rights: standings.of(number(row, 0)),
        })
        .collect())
}

impl Exclusion {
    /// Joins the heap with itself, and counts the pairs.
    pub fn question(&self) -> Question {
        self.ask(format!("SELECT pg_catalog.count(*) FROM ({}) q", self.conflicts))
    }

    fn ask(&self, sql: String) -> Question {
        Question::of_heap(&self.rights, sql)
    }

    /// Fetches their keys, only if there are any.
    pub async fn go_on(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        count: Answer,
        out: &mut Outcome,
    ) -> Result<()> {
        let grouped = format!("SELECT k, count(*) AS n FROM ({}) q GROUP BY k", self.conflicts);
        let fetched = violations::fetch_if_any(session, size_bytes, count, self.ask(grouped)).await?;
        violations::settle(out, &self.key, &self.table, fetched, || Subject {
            key: &self.key,
            object: self.table.short(),
            severity: Severity::Failure,
            definition: &self.definition,
            one: "pair of rows in conflict",
            many: "pairs of rows in conflict",
            place: format!("in {} under {}", self.table.short(), printable(&self.key.rule)),
            repair_sql: None,
        });
        Ok(())
    }

    /// The constraint was passed over because of the table's size.
    pub fn too_large(&self) -> Skipped {
        violations::skipped(&self.key, &self.table, why_too_large())
    }
}

fn why_too_large() -> String {
    format!(
        "the table is larger than {} kB, and every pair of rows would be compared: use --level deep",
        SELF_JOIN_BYTES >> 10
    )
}

/// Whether it was left out for its size alone.
pub fn is_too_large(skipped: &Skipped) -> bool {
    skipped.why == why_too_large()
}
