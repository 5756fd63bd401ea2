//! Sequences that will hand out values that are taken.
//!
//! Looks at sequences that a column owns (serial, identity) or whose default calls them. `max()` of the column is a
//! query of its own and not part of the table's scan: a column can only collide where it is unique, and there an
//! index answers in microseconds, on untouched tables too (setval leaves no trace in the table).

use common::{
    error::Result,
    ident::{QualifiedName, printable},
    postgres::who_asks::{Rights, Standings},
};

use crate::{
    catalogue::CheckKind,
    model::{Finding, RuleKey, SequenceState, Severity, Skipped},
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, TextRow, flag, number, text},
    violations::thousands,
};

/// Every sequence with every column that it feeds, one row for each pair (or one without a column): sequence (oid,
/// schema, name), increment, min, max, cycle, table (oid, schema, name), column, whether the column is unique, the
/// table's source for FROM, and the largest and smallest value of the column's type.
///
/// A column is unique if an index says so alone; on a partitioned table together with nothing but the partition key,
/// because no stricter index can exist there. A partition's copy of a default is left out: its root stands for it.
const SEQUENCES: &str = r"
WITH pairs AS (
  SELECT d.objid AS sequence, d.refobjid AS tab, d.refobjsubid AS col
  FROM pg_depend d
  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
    AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
  UNION
  SELECT d.refobjid, ad.adrelid, ad.adnum
  FROM pg_depend d JOIN pg_attrdef ad ON ad.oid = d.objid
  WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass)
SELECT s.seqrelid, sn.nspname, sc.relname, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
  t.oid, tn.nspname, t.relname, a.attname,
  EXISTS (
    SELECT FROM pg_index i LEFT JOIN pg_partitioned_table pt ON pt.partrelid = t.oid
    WHERE i.indrelid = t.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
      AND a.attnum = ANY (i.indkey::int2[]) AND (
        i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
        OR NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
                       WHERE k.n <= i.indnkeyatts AND k.attnum <> a.attnum
                         AND NOT COALESCE(k.attnum = ANY (pt.partattrs::int2[]), false)))),
  CASE WHEN t.oid IS NOT NULL
    THEN CASE t.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', tn.nspname, t.relname) END,
  CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END,
  CASE a.atttypid WHEN 'int2'::regtype THEN -32768 WHEN 'int4'::regtype THEN -2147483648
                  ELSE -9223372036854775808 END
FROM pg_sequence s
JOIN pg_class sc ON sc.oid = s.seqrelid JOIN pg_namespace sn ON sn.oid = sc.relnamespace
LEFT JOIN pairs p ON p.sequence = s.seqrelid AND NOT EXISTS (
  SELECT FROM pg_class leaf JOIN pairs up ON up.sequence = p.sequence
  WHERE leaf.oid = p.tab AND leaf.relispartition AND up.tab <> p.tab
    AND up.tab IN (SELECT relid FROM pg_partition_ancestors(leaf.oid)))
LEFT JOIN pg_class t ON t.oid = p.tab AND t.relkind IN ('r', 'p')
LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = p.col AND NOT a.attisdropped
  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
WHERE sc.relpersistence <> 't'
ORDER BY sn.nspname, sc.relname, tn.nspname, t.relname, a.attname";

/// Share of its range below which a sequence is worth a note.
const LOW_SHARE: f64 = 0.2;

/// One sequence and the columns that it feeds.
#[derive(Debug)]
pub(super) struct Sequence {
    pub key: RuleKey,
    state: SequenceState,
    columns: Vec<Column>,
    rights: Rights,
}

#[derive(Debug)]
struct Column {
    table: QualifiedName,
    name: String,
    unique: bool,
    source: String,
    type_max: i64,
    type_min: i64,
    rights: Rights,
}

/// Every sequence.
pub(super) async fn list(session: &CheckSession<'_>, standings: &Standings) -> Result<Vec<Sequence>> {
    let mut sequences: Vec<Sequence> = Vec::new();
    for row in session.catalog(CheckKind::Sequences, SEQUENCES).await? {
        let oid: u32 = number(&row, 0);
        if sequences.last().is_none_or(|last| last.state.oid != oid) {
            sequences.push(Sequence {
                key: RuleKey {
                    check: CheckKind::Sequences,
                    object_oid: oid,
                    rule_oid: oid,
                    rule: text(&row, 2),
                },
                state: SequenceState {
                    oid,
                    name: QualifiedName::new(text(&row, 1), text(&row, 2)),
                    last_value: 0,
                    is_called: false,
                    increment: number(&row, 3),
                    min_value: number(&row, 4),
                    max_value: number(&row, 5),
                    cycles: flag(&row, 6),
                },
                columns: Vec::new(),
                rights: standings.of(oid),
            });
        }
        if let (Some(sequence), Some(column)) = (sequences.last_mut(), column(&row, standings)) {
            sequence.columns.push(column);
        }
    }
    Ok(sequences)
}

fn column(row: &TextRow, standings: &Standings) -> Option<Column> {
    row.get(10)?.as_ref()?;
    Some(Column {
        table: QualifiedName::new(text(row, 8), text(row, 9)),
        name: text(row, 10),
        unique: flag(row, 11),
        source: text(row, 12),
        type_max: number(row, 13),
        type_min: number(row, 14),
        rights: standings.of(number(row, 7)),
    })
}

impl Sequence {
    /// Where the sequence stands.
    pub fn question(&self) -> Question {
        let SequenceState { name, oid, .. } = &self.state;
        Question::of(
            &self.rights,
            format!("SELECT last_value, is_called FROM {name} WHERE tableoid OPERATOR(pg_catalog.=) {oid}"),
        )
    }

    /// Compares where it stands with its columns.
    pub async fn go_on(&self, session: &CheckSession<'_>, position: Answer, out: &mut Outcome) -> Result<()> {
        let mut state = self.state.clone();
        match position {
            Ok(rows) => {
                let Some(row) = rows.first() else {
                    out.skipped.push(self.skipped("its name means another sequence by now".to_owned()));
                    return Ok(());
                };
                state.last_value = number(row, 0);
                state.is_called = flag(row, 1);
            }
            Err(refused) => {
                out.skipped.push(self.skipped(refused.message));
                return Ok(());
            }
        }
        out.sequences.insert(state.oid, state.clone());
        out.ran.push(self.key.clone());
        if state.cycles {
            return Ok(());
        }
        for column in &self.columns {
            if column.unique {
                self.compare_with(session, &state, column, out).await?;
            }
            if let Some(note) = self.running_out(&state, column) {
                out.findings.push(note);
            }
        }
        Ok(())
    }

    async fn compare_with(
        &self,
        session: &CheckSession<'_>,
        state: &SequenceState,
        column: &Column,
        out: &mut Outcome,
    ) -> Result<()> {
        let (function, name) = (
            if state.increment > 0 { "max" } else { "min" },
            common::ident::Ident::new(column.name.as_str()),
        );
        let sql = format!("SELECT trunc({function}({name})::numeric) FROM {}", column.source);
        let furthest = match session.ask(0, &Question::of(&column.rights, sql)).await? {
            Ok(rows) => rows.first().map(|row| text(row, 0)).unwrap_or_default(),
            Err(refused) => {
                out.skipped.push(self.skipped(refused.message));
                return Ok(());
            }
        };
        // Empty: no row, or none that a sequence could reach.
        let Ok(furthest) = furthest.parse::<i128>() else { return Ok(()) };
        let next = state.next_value();
        let taken = if state.increment > 0 { next <= furthest } else { next >= furthest };
        let reachable = (i128::from(state.min_value)..=i128::from(state.max_value)).contains(&furthest);
        if !taken || !reachable {
            return Ok(());
        }
        let place = format!("{}.{}", column.table.short(), printable(&column.name));
        let detail = format!(
            "sequence {} will give {next} next, but {place} already has {furthest}",
            state.name.short()
        );
        let key = RuleKey { rule: format!("{}.{}", column.table, column.name), ..self.key.clone() };
        // No hash of the position: inserts move it, and a sequence that was behind before is still the same violation.
        let mut finding = Finding::state(key, column.table.short(), "behind", detail);
        finding.repair_sql = Some(format!(
            "SELECT setval({}, (SELECT {function}({name}) FROM {})::bigint);",
            common::ident::literal(&state.name.to_string()),
            column.source
        ));
        out.findings.push(finding);
        Ok(())
    }

    fn running_out(&self, state: &SequenceState, column: &Column) -> Option<Finding> {
        let next = state.next_value();
        let (left, range) = if state.increment > 0 {
            let end = i128::from(state.max_value.min(column.type_max));
            (end - next + 1, end - i128::from(state.min_value.max(0)))
        } else {
            let end = i128::from(state.min_value.max(column.type_min));
            (next - end + 1, i128::from(state.max_value.min(0)) - end)
        };
        #[expect(clippy::cast_precision_loss, reason = "a share for a person")]
        let share = if range > 0 { left.max(0) as f64 / range as f64 } else { 1.0 };
        if share >= LOW_SHARE {
            return None;
        }
        let detail = format!(
            "sequence {} has {} values left ({:.1} %) for {}.{}",
            state.name.short(),
            thousands(i64::try_from(left.max(0)).unwrap_or(i64::MAX)),
            share * 100.0,
            column.table.short(),
            printable(&column.name)
        );
        let key = RuleKey { rule: format!("{}.{}", column.table, column.name), ..self.key.clone() };
        let mut finding = Finding::state(key, column.table.short(), "low", detail);
        finding.severity = Severity::Note;
        Some(finding)
    }

    fn skipped(&self, why: String) -> Skipped {
        Skipped { check: CheckKind::Sequences, object: self.state.name.short(), why, counts_for_strict: true }
    }
}
