//! Counts violating rows, hashes their keys whatever their order, and fetches some of the keys.

use std::collections::BTreeMap;

use common::{
    error::Result,
    ident::{QualifiedName, printable},
};

use crate::{
    model::{FETCHED_KEYS, Finding, RuleKey, SENTENCE_KEYS, SHOWN_KEYS, Severity, Skipped, Wording},
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, RefusedQuery, number, text},
};

/// The violating keys of one rule.
#[derive(Debug, Default)]
pub(super) struct Violations {
    /// Violating rows.
    pub count: i64,
    /// Sum and xor of the keys' hashes: xor alone cancels pairs.
    pub hash: String,
    /// The first [`FETCHED_KEYS`] distinct keys and how many rows have each.
    pub keys: BTreeMap<String, i64>,
}

/// Fetches the violations of `grouped`, whose SQL is a SELECT of `k` (a key as text) and `n` (its violating rows), one row per key.
pub(super) async fn fetch(
    session: &CheckSession<'_>,
    size_bytes: i64,
    grouped: Question,
) -> Result<Result<Violations, RefusedQuery>> {
    // Shorter keys first, so that numbers come in their order.
    let sql = format!(
        "WITH g AS MATERIALIZED ({})
SELECT NULL AS k, COALESCE(sum(n), 0)::text AS n,
  (COALESCE(sum(h::numeric * n), 0) % 18446744073709551616)::text || ':' || COALESCE(bit_xor(h), 0)::text AS hash
FROM (SELECT n, hashtextextended(COALESCE(k, '') COLLATE \"C\", 0) AS h FROM g) q
UNION ALL
(SELECT k, n::text, NULL FROM g ORDER BY length(k), k COLLATE \"C\" LIMIT {FETCHED_KEYS})",
        grouped.sql
    );
    let rows = match session.ask(size_bytes, &Question { sql, ..grouped }).await? {
        Ok(rows) => rows,
        Err(refused) => return Ok(Err(refused)),
    };
    let mut violations = Violations::default();
    for row in &rows {
        if row.get(2).is_some_and(Option::is_some) {
            violations.count = number(row, 1);
            violations.hash = text(row, 2);
        } else {
            violations.keys.insert(text(row, 0), number(row, 1));
        }
    }
    Ok(Ok(violations))
}

/// Fetches the violations of `grouped` where `count`, the answer to how many keys it has, is not 0.
pub(super) async fn fetch_if_any(
    session: &CheckSession<'_>,
    size_bytes: i64,
    count: Answer,
    grouped: Question,
) -> Result<Result<Violations, RefusedQuery>> {
    match count {
        Ok(rows) if rows.first().is_some_and(|row| text(row, 0) == "0") => Ok(Ok(Violations::default())),
        Ok(_) => fetch(session, size_bytes, grouped).await,
        Err(refused) => Ok(Err(refused)),
    }
}

/// What is needed besides the violations to make a finding.
pub(super) struct Subject<'a> {
    pub key: &'a RuleKey,
    pub object: String,
    pub severity: Severity,
    pub definition: &'a str,
    pub one: &'static str,
    pub many: &'static str,
    pub place: String,
    pub repair_sql: Option<String>,
}

/// What could not be looked at of the rules of a table.
pub(super) fn skipped(key: &RuleKey, table: &QualifiedName, why: String) -> Skipped {
    Skipped {
        check: key.check,
        object: format!("{} ({})", table.short(), printable(&key.rule)),
        why,
        counts_for_strict: true,
    }
}

/// Puts what was fetched about the rule `key` of `table` into `out`. `subject` is for violations alone.
pub(super) fn settle<'a>(
    out: &mut Outcome,
    key: &RuleKey,
    table: &QualifiedName,
    fetched: Result<Violations, RefusedQuery>,
    subject: impl FnOnce() -> Subject<'a>,
) {
    match fetched {
        Ok(found) => {
            out.ran.push(key.clone());
            if found.count > 0 {
                out.findings.push(finding(subject(), found));
            }
        }
        Err(refused) => out.skipped.push(skipped(key, table, refused.message)),
    }
}

/// Makes the finding of `violations`.
pub(super) fn finding(subject: Subject<'_>, violations: Violations) -> Finding {
    let wording = Wording::Rows { one: subject.one, many: subject.many, place: subject.place };
    let shown = sorted_keys(&violations.keys);
    Finding {
        key: subject.key.clone(),
        object: subject.object,
        severity: subject.severity,
        definition: subject.definition.to_owned(),
        count: violations.count,
        key_hash: violations.hash,
        detail: sentence(&wording, violations.count, "", &shown, violations.keys.len()),
        sample_keys: shown.into_iter().take(SHOWN_KEYS).collect(),
        repair_sql: subject.repair_sql,
        wording,
        keys: violations.keys,
    }
}

/// The keys in the order in which a person reads them: numbers by value.
pub(super) fn sorted_keys(keys: &BTreeMap<String, i64>) -> Vec<String> {
    let mut sorted: Vec<_> = keys.keys().cloned().collect();
    sorted.sort_by_key(|key| (key.parse::<i128>().unwrap_or(i128::MAX), key.chars().count()));
    sorted
}

/// `3 new orphans in order_items.order_id -> orders.id (keys 17, 18, 44)`.
///
/// `distinct` is the number of keys that are known; when it is more than are shown, the list ends in an ellipsis.
pub(super) fn sentence(
    wording: &Wording,
    count: i64,
    qualifier: &str,
    keys: &[String],
    distinct: usize,
) -> String {
    /// Keys longer than this many characters are cut: a key may be a document.
    const KEY_CHARS: usize = 60;
    let Wording::Rows { one, many, place } = wording else { return String::new() };
    let noun = if count == 1 { one } else { many };
    let mut out = format!("{} {qualifier}{noun} {place}", thousands(count));
    if !keys.is_empty() {
        let shown: Vec<String> = keys
            .iter()
            .take(SENTENCE_KEYS)
            .map(|key| match key.char_indices().nth(KEY_CHARS) {
                Some((end, _)) => printable(&format!("{}…", &key[..end])),
                None => printable(key),
            })
            .collect();
        let label = if distinct == 1 { "key" } else { "keys" };
        let more = if distinct > shown.len() { ", …" } else { "" };
        out.push_str(&format!(" ({label} {}{more})", shown.join(", ")));
    }
    out
}

/// `1,204`.
pub(super) fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    if number < 0 {
        out.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1204), "1,204");
        assert_eq!(thousands(-1234567), "-1,234,567");
    }

    #[test]
    fn a_sentence_names_the_keys_and_escapes_them() {
        let wording = Wording::Rows { one: "orphan", many: "orphans", place: "in a.b -> c.d".into() };
        assert_eq!(
            sentence(&wording, 2, "new ", &["17".into(), "a\nb".into()], 2),
            "2 new orphans in a.b -> c.d (keys 17, a\\nb)"
        );
        assert_eq!(sentence(&wording, 1, "", &["17".into()], 1), "1 orphan in a.b -> c.d (key 17)");
    }
}
