//! Rows that refer to a row that does not exist.
//!
//! The semantics are those of PostgreSQL's own check when a constraint is added. It is the only thing that finds
//! orphans under a *validated* constraint: rows written under `session_replication_role=replica` or with the internal
//! triggers disabled. The repair is shown, never run.

use common::error::Result;
use common::ident::{QualifiedName, printable, with_suffix};

use super::Outcome;
use super::catalogue::CheckKind;
use super::model::{RuleKey, Severity, Skipped};
use super::session::{CheckSession, flag, number, text};
use super::violations::{self, Subject};

/// Every foreign key that has rows of its own to look at: the top one of a partition tree, not its copies.
///
/// Columns: constraint, table, referenced table (oids), name, enforced, validated, definition, schema and name of
/// both tables, columns of both as a person writes them, key as text, `FROM … WHERE …` that selects the orphans.
///
/// As in `ri_triggers.c`: `ONLY` except for a partitioned table, the operator of the constraint with its operands
/// cast to the operator's own types (polymorphic ones left alone), and the referenced column's collation. MATCH FULL
/// finds partly null keys too. A temporal key (18) must be covered by the union of the referenced ranges.
const FOREIGN_KEYS: &str = r"
SELECT c.oid, c.conrelid, c.confrelid, c.conname,
  COALESCE((to_jsonb(c)->>'conenforced')::boolean, true), c.convalidated, pg_get_constraintdef(c.oid),
  fn.nspname, fr.relname, pn.nspname, pr.relname, x.fk_names, x.pk_names, x.key,
  format('FROM %s fk WHERE (%s) AND %s', f.source, x.not_null,
    CASE WHEN t.temporal
      THEN format('NOT COALESCE((SELECT pg_catalog.range_agg(pk.%1$I) OPERATOR(pg_catalog.@>) fk.%2$I FROM %3$s pk WHERE %4$s'
                  ' AND pk.%1$I OPERATOR(pg_catalog.&&) fk.%2$I), false)', x.pk_period, x.fk_period, p.source, x.joined)
      ELSE format('NOT EXISTS (SELECT FROM %s pk WHERE %s)', p.source, x.joined) END)
FROM pg_constraint c
JOIN pg_class fr ON fr.oid = c.conrelid  JOIN pg_namespace fn ON fn.oid = fr.relnamespace
JOIN pg_class pr ON pr.oid = c.confrelid JOIN pg_namespace pn ON pn.oid = pr.relnamespace
CROSS JOIN LATERAL (SELECT COALESCE((to_jsonb(c)->>'conperiod')::boolean, false) AS temporal) t
CROSS JOIN LATERAL (SELECT CASE fr.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', fn.nspname, fr.relname) AS source) f
CROSS JOIN LATERAL (SELECT CASE pr.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', pn.nspname, pr.relname) AS source) p
CROSS JOIN LATERAL (
 SELECT string_agg(quote_ident(fa.attname), ', ' ORDER BY k.i) AS fk_names,
  string_agg(quote_ident(pa.attname), ', ' ORDER BY k.i) AS pk_names,
  CASE WHEN count(*) = 1 THEN min(format('fk.%I::text', fa.attname))
       ELSE format('ROW(%s)::text', string_agg(format('fk.%I', fa.attname), ', ' ORDER BY k.i)) END AS key,
  string_agg(format('fk.%I IS NOT NULL', fa.attname),
             CASE c.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY k.i) AS not_null,
  min(fa.attname::text) FILTER (WHERE k.i = cardinality(c.conkey)) AS fk_period,
  min(pa.attname::text) FILTER (WHERE k.i = cardinality(c.conkey)) AS pk_period,
  string_agg(format('pk.%I%s OPERATOR(%I.%s) fk.%I%s%s', pa.attname,
    CASE WHEN lt.typtype = 'p' OR o.oprleft = pa.atttypid THEN '' ELSE '::' || format_type(o.oprleft, NULL) END,
    opn.nspname, o.oprname, fa.attname,
    CASE WHEN rt.typtype = 'p' OR o.oprright = fa.atttypid THEN '' ELSE '::' || format_type(o.oprright, NULL) END,
    CASE WHEN pa.attcollation <> fa.attcollation AND pa.attcollation <> 0 THEN ' COLLATE ' ||
      (SELECT format('%I.%I', cn.nspname, co.collname) FROM pg_collation co
         JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = pa.attcollation)
    ELSE '' END), ' AND ' ORDER BY k.i) FILTER (WHERE NOT (t.temporal AND k.i = cardinality(c.conkey))) AS joined
 FROM unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY k(fk, pk, op, i)
 JOIN pg_attribute fa ON fa.attrelid = c.conrelid  AND fa.attnum = k.fk
 JOIN pg_attribute pa ON pa.attrelid = c.confrelid AND pa.attnum = k.pk
 JOIN pg_operator o ON o.oid = k.op JOIN pg_namespace opn ON opn.oid = o.oprnamespace
 JOIN pg_type lt ON lt.oid = o.oprleft JOIN pg_type rt ON rt.oid = o.oprright) x
WHERE c.contype = 'f' AND c.conparentid = 0
ORDER BY fn.nspname, fr.relname, c.conname";

/// One foreign key.
#[derive(Debug)]
pub(super) struct ForeignKey {
    pub key: RuleKey,
    pub definition: String,
    pub table: u32,
    pub referenced: u32,
    enforced: bool,
    table_name: QualifiedName,
    referenced_name: QualifiedName,
    columns: String,
    referenced_columns: String,
    key_sql: String,
    orphans_sql: String,
}

/// Every foreign key of the database.
pub(super) async fn list(session: &CheckSession<'_>) -> Result<Vec<ForeignKey>> {
    let rows = session.catalog(CheckKind::ForeignKeys, FOREIGN_KEYS).await?;
    Ok(rows
        .iter()
        .map(|row| ForeignKey {
            key: RuleKey {
                check: CheckKind::ForeignKeys,
                object_oid: number(row, 1),
                rule_oid: number(row, 0),
                rule: text(row, 3),
            },
            definition: text(row, 6),
            table: number(row, 1),
            referenced: number(row, 2),
            enforced: flag(row, 4),
            table_name: QualifiedName::new(text(row, 7), text(row, 8)),
            referenced_name: QualifiedName::new(text(row, 9), text(row, 10)),
            columns: text(row, 11),
            referenced_columns: text(row, 12),
            key_sql: text(row, 13),
            orphans_sql: text(row, 14),
        })
        .collect())
}

impl ForeignKey {
    /// Counts the orphans, and only if there are any fetches their keys.
    pub async fn run(&self, session: &CheckSession<'_>, size_bytes: i64, out: &mut Outcome) -> Result<()> {
        let from = &self.orphans_sql;
        let count = session.query_with("", size_bytes, &format!("SELECT count(*) {from}")).await?;
        let refused = match count {
            Ok(rows) if rows.first().is_some_and(|row| text(row, 0) == "0") => {
                out.ran.push(self.key.clone());
                return Ok(());
            }
            Ok(_) => {
                let grouped = format!("SELECT {} AS k, count(*) AS n {from} GROUP BY 1", self.key_sql);
                match violations::fetch(session, "", size_bytes, &grouped).await? {
                    Ok(found) => {
                        out.ran.push(self.key.clone());
                        out.findings.push(violations::finding(self.subject(), found));
                        return Ok(());
                    }
                    Err(refused) => refused,
                }
            }
            Err(refused) => refused,
        };
        out.skipped.push(Skipped {
            check: CheckKind::ForeignKeys,
            object: format!("{} ({})", self.table_name.short(), printable(&self.key.rule)),
            why: refused.message,
            counts_for_strict: true,
        });
        Ok(())
    }

    fn subject(&self) -> Subject<'_> {
        let side = |table: &QualifiedName, columns: &str| {
            if self.key_sql.starts_with("ROW(") {
                format!("{}.({})", table.short(), printable(columns))
            } else {
                format!("{}.{}", table.short(), printable(columns))
            }
        };
        let mut place = format!(
            "in {} -> {}",
            side(&self.table_name, &self.columns),
            side(&self.referenced_name, &self.referenced_columns)
        );
        if !self.enforced {
            place.push_str(", a constraint that is NOT ENFORCED");
        }
        Subject {
            key: &self.key,
            object: self.table_name.short(),
            severity: if self.enforced { Severity::Failure } else { Severity::Note },
            definition: &self.definition,
            one: "orphan",
            many: "orphans",
            place,
            repair_sql: Some(self.repair_sql()),
        }
    }

    /// Moves the orphans aside. Both statements select the same rows only in one transaction at one snapshot.
    fn repair_sql(&self) -> String {
        let aside = QualifiedName::new(
            self.table_name.schema.clone(),
            with_suffix(self.table_name.name.as_str(), "_orphans").as_str(),
        );
        let from = &self.orphans_sql;
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ;\n\
             CREATE TABLE {aside} AS SELECT fk.* {from};\n\
             DELETE {from};\n\
             COMMIT;"
        )
    }
}
