//! The content of every table, as one hash: at `deep` a table that nothing in the migration was seen to reach must hold
//! the same values afterwards.
//!
//! The hash is over the columns that were there before, as text, and does not depend on the order of the rows. A table
//! whose old columns were dropped or changed their type is not compared.

use std::collections::BTreeMap;

use common::{
    error::Result,
    ident::QualifiedName,
    postgres::who_asks::{Rights, Standings},
};

use crate::{
    catalogue::CheckKind,
    compare_rows::Expectation,
    model::{CheckResults, Finding, RuleKey, Severity, Skipped},
    options::Options,
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, number, text},
    states::{ColumnTypes, Content},
};

/// Columns of every heap: oid, schema, name, `{number: [quoted name, type]}`.
const COLUMNS: &str = r"
SELECT c.oid, n.nspname, c.relname,
  COALESCE((SELECT json_object_agg(a.attnum, json_build_array(quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)))
            FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'safe_run')
ORDER BY c.oid";

/// One table to hash.
#[derive(Debug)]
pub(super) struct Hash {
    pub key: RuleKey,
    name: QualifiedName,
    columns: ColumnTypes,
    row: String,
    rights: Rights,
}

/// Every table that can be compared.
pub(super) async fn list(
    session: &CheckSession<'_>,
    standings: &Standings,
    options: &Options,
) -> Result<Vec<Hash>> {
    let mut hashes = Vec::new();
    for row in session.catalog(CheckKind::Content, COLUMNS).await? {
        let oid: u32 = number(&row, 0);
        let mut columns: BTreeMap<i16, (String, String)> =
            serde_json::from_str(&text(&row, 3)).unwrap_or_default();
        if let Some(known) = &options.known {
            let Some(before) = known.content.get(&oid) else { continue };
            columns.retain(|number, _| before.contains_key(number));
            let now: ColumnTypes =
                columns.iter().map(|(number, (_, kind))| (*number, kind.clone())).collect();
            if now != *before {
                continue;
            }
        }
        let names: Vec<&str> = columns.values().map(|(name, _)| name.as_str()).collect();
        hashes.push(Hash {
            key: RuleKey {
                check: CheckKind::Content,
                object_oid: oid,
                rule_oid: 0,
                rule: "content".to_owned(),
            },
            name: QualifiedName::new(text(&row, 1), text(&row, 2)),
            row: format!("ROW({})::text", names.join(", ")),
            rights: standings.of(oid),
            columns: columns.into_iter().map(|(number, (_, kind))| (number, kind)).collect(),
        });
    }
    Ok(hashes)
}

impl Hash {
    /// Hashes it: the sum and the xor, because xor alone cancels pairs.
    pub fn question(&self) -> Question {
        let sql = format!(
            "SELECT count(*) || ':' || COALESCE(sum(h::numeric), 0) % 18446744073709551616 || ':' || COALESCE(bit_xor(h), 0) \
             FROM (SELECT hashtextextended({} COLLATE \"C\", 0) AS h FROM ONLY {}) q",
            self.row, self.name
        );
        Question::of(&self.rights, sql)
    }

    /// Keeps the hash.
    pub fn read(&self, answer: Answer, out: &mut Outcome) {
        match answer {
            Ok(rows) => {
                let hash = rows.first().map(|row| text(row, 0)).unwrap_or_default();
                out.ran.push(self.key.clone());
                out.content.insert(self.key.object_oid, Content { columns: self.columns.clone(), hash });
            }
            Err(refused) => out.skipped.push(Skipped {
                check: CheckKind::Content,
                object: self.name.short(),
                why: refused.message,
                counts_for_strict: true,
            }),
        }
    }
}

/// Tables that hold other values although nothing was seen to reach them; a note where what ran could not be seen.
pub fn compare_content(
    before: &CheckResults,
    after: &CheckResults,
    expectation: impl Fn(u32) -> Expectation,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (oid, then) in &before.states.content {
        let Some(now) = after.states.content.get(oid) else { continue };
        let Some(facts) = after.tables.get(oid) else { continue };
        if then == now {
            continue;
        }
        // Rows that came or went are the business of the row counts.
        let rewritten = before.tables.get(oid).is_some_and(|then| then.relfilenode != facts.relfilenode);
        let (severity, why) = match expectation(*oid) {
            Expectation::Equal if rewritten => (Severity::Note, " (it was rewritten)".to_owned()),
            Expectation::Equal => {
                (Severity::Failure, ", and nothing in the migration was seen to reach it".to_owned())
            }
            Expectation::Unknown { why } => (Severity::Note, format!(" ({why})")),
            _ => continue,
        };
        let table = facts.name.short();
        let key =
            RuleKey { check: CheckKind::Content, object_oid: *oid, rule_oid: 0, rule: "content".to_owned() };
        let detail = format!("{table} holds other values than before{why}");
        let mut finding = Finding::state(key, table, "content", detail);
        finding.severity = severity;
        findings.push(finding);
    }
    findings
}
