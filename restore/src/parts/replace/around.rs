//! What is around the tables: foreign keys that point here, triggers and rules that would act, sequences.

use common::{Error, Ident, QualifiedName, Result, ident::literal, postgres::Session};

use crate::parts::{
    scratch::{self, regclass},
    transaction::LiveTransaction,
};

/// Foreign keys that point to the tables `$1`, or to what lies below them: the topmost of each.
const INCOMING: &str = "
WITH RECURSIVE target(oid) AS (
  SELECT t FROM pg_catalog.unnest($1::oid[]) t
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN target ON target.oid = i.inhparent
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition)
SELECT n.nspname, c.relname, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.obj_description(k.oid, 'pg_constraint'),
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled <> 'O') AS is_silenced
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid IN (SELECT oid FROM target) ORDER BY 1, 2, 3";

/// User triggers and rules of the tables `$1` and of what lies below them, that would act: statements that silence each and
/// that give it its state back.
const ACTING: &str = "
WITH RECURSIVE target(oid) AS (
  SELECT t FROM pg_catalog.unnest($1::oid[]) t
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN target ON target.oid = i.inhparent
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition),
named AS (SELECT target.oid, pg_catalog.format('ALTER TABLE ONLY %I.%I ', n.nspname, c.relname) AS alter_table
  FROM target JOIN pg_catalog.pg_class c ON c.oid = target.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
SELECT alter_table || 'DISABLE TRIGGER ' || pg_catalog.quote_ident(t.tgname),
       alter_table || CASE t.tgenabled WHEN 'R' THEN 'ENABLE REPLICA TRIGGER ' WHEN 'A' THEN 'ENABLE ALWAYS TRIGGER '
                      ELSE 'ENABLE TRIGGER ' END || pg_catalog.quote_ident(t.tgname)
FROM named JOIN pg_catalog.pg_trigger t ON t.tgrelid = named.oid WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL
SELECT alter_table || 'DISABLE RULE ' || pg_catalog.quote_ident(r.rulename),
       alter_table || CASE r.ev_enabled WHEN 'R' THEN 'ENABLE REPLICA RULE ' WHEN 'A' THEN 'ENABLE ALWAYS RULE '
                      ELSE 'ENABLE RULE ' END || pg_catalog.quote_ident(r.rulename)
FROM named JOIN pg_catalog.pg_rewrite r ON r.ev_class = named.oid WHERE r.ev_enabled <> 'D'";

/// Sequences that columns of the tables `$1` draw from: schema and name, increment, table and column.
const SEQUENCES: &str = "
SELECT DISTINCT sn.nspname, s.relname, q.seqincrement, tn.nspname, t.relname, a.attname::text
FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
JOIN (SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS number FROM pg_catalog.pg_depend d
       WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      UNION SELECT d.refobjid, f.adrelid, f.adnum FROM pg_catalog.pg_depend d
       JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
       WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) u ON u.sequence = s.oid
JOIN pg_catalog.pg_class t ON t.oid = u.relation JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = u.relation AND a.attnum = u.number
WHERE s.relkind = 'S' AND u.relation = ANY ($1) AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype,
      'int8'::pg_catalog.regtype)";

pub(super) struct ForeignKey {
    pub(super) table: QualifiedName,
    pub(super) what: String,
    pub(super) drop: String,
    pub(super) add: String,
}

pub(super) async fn incoming(session: &Session, oids: &[u32]) -> Result<Vec<ForeignKey>> {
    let rows = session
        .query(INCOMING, &[&oids])
        .await
        .map_err(|source| Error::postgres("could not read the foreign keys", source))?;
    rows.iter()
        .map(|row| {
            let table = scratch::name(row, 0);
            let name = Ident::new(row.get::<_, String>(2));
            let what =
                format!("the foreign key {} of {}", common::ident::printable(name.as_str()), table.short());
            if row.get("is_silenced") {
                return Err(Error::refused(format!(
                    "{what} has triggers that are disabled, and it would come back enabled"
                ))
                .with_hint("Enable them, or restore beside the live table."));
            }
            let definition: String = row.get(3);
            let mut add = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}");
            if let Some(comment) = row.get::<_, Option<String>>(4) {
                add.push_str(&format!("; COMMENT ON CONSTRAINT {name} ON {table} IS {}", literal(&comment)));
            }
            Ok(ForeignKey { drop: format!("ALTER TABLE {table} DROP CONSTRAINT {name}"), add, table, what })
        })
        .collect()
}

pub(super) async fn acting(session: &Session, oids: &[u32]) -> Result<Vec<(String, String)>> {
    let rows = session
        .query(ACTING, &[&oids])
        .await
        .map_err(|source| Error::postgres("could not read the triggers", source))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Moves each sequence past the rows that are there now, and never back: others may have drawn from it.
pub(super) async fn advance_sequences(transaction: &LiveTransaction, oids: &[u32]) -> Result<()> {
    let session = transaction.session();
    let failed = |source| Error::postgres("could not move a sequence past the rows", source);
    for row in session.query(SEQUENCES, &[&oids]).await.map_err(failed)? {
        let (sequence, increment, table) =
            (scratch::name(&row, 0), row.get::<_, i64>(2), scratch::name(&row, 3));
        let column = Ident::new(row.get::<_, String>(5));
        let (end, ahead) = if increment > 0 { ("max", ">") } else { ("min", "<") };
        let statement = format!(
            "SELECT pg_catalog.setval({}, e.value, true) FROM (SELECT pg_catalog.{end}({column})::pg_catalog.int8 AS value \
             FROM {table}) e, {sequence} s WHERE e.value {ahead} s.last_value OR (e.value = s.last_value AND NOT s.is_called)",
            regclass(&sequence)
        );
        session.query(&statement, &[]).await.map_err(failed)?;
    }
    Ok(())
}
