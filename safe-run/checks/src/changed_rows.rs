//! Answers from before the fence that hold although some blocks of a table changed: only the rows in these are asked about.
//!
//! A rule that nothing violated at the first pass can only be violated by a row in a changed block, or by what such a block no
//! longer has: every other row was there at the first pass as it is now. The first pass's state is still held, so that what
//! the changed blocks had then can be read. Whatever is not as expected is no answer, and then everything is read again: a
//! violation among the changed rows, a key that the block did not have, a first pass that was not clean (docs/exactness.md, E10).

use std::collections::BTreeMap;

use common::error::Result;

use crate::{
    carried::{Carried, PIECE_BLOCKS, question},
    job::Work,
    model::TableRows,
    outcome::Outcome,
    question::Question,
    session::{CheckSession, TextRow, number, text},
};

/// Every place where these pieces may have a row, as an array of `tid`; 28 bytes are the least that a row and its pointer take.
fn places(pieces: &[u64]) -> String {
    let list: Vec<String> = pieces.iter().map(u64::to_string).collect();
    format!(
        "ARRAY(SELECT pg_catalog.format('(%s,%s)', b, o)::pg_catalog.tid FROM pg_catalog.unnest('{{{}}}'::bigint[]) p \
         CROSS JOIN LATERAL pg_catalog.generate_series(p * {PIECE_BLOCKS}, p * {PIECE_BLOCKS} + {PIECE_BLOCKS} - 1) b \
         CROSS JOIN pg_catalog.generate_series(1, pg_catalog.current_setting('block_size')::int / 28) o)",
        list.join(",")
    )
}

/// Answers from the changed rows alone, if that can be; `false`: everything has to be read.
pub(super) async fn answer(
    work: &Work,
    carried: &Carried,
    session: &CheckSession<'_>,
    out: &mut Outcome,
) -> Result<bool> {
    match work {
        Work::ForeignKey(work) => {
            let asked = question(work, &[work.table, work.referenced]);
            let pieces = (carried.pieces(work.table), carried.pieces(work.referenced));
            let (Some(own), Some(referenced)) = pieces else { return Ok(false) };
            if !carried.was_clean(&work.key, &work.definition, &asked) {
                return Ok(false);
            }
            let orphans = Question::of(&work.rights, work.orphans_among(&places(own)));
            let Ok(orphans) = session.ask(0, &orphans).await? else {
                return Ok(false);
            };
            if orphans.first().is_none_or(|row| text(row, 0) != "0") {
                return Ok(false);
            }
            let referenced = Question::of(&work.rights, work.referenced_among(&places(referenced)));
            let Ok(now) = session.ask(0, &referenced).await? else { return Ok(false) };
            let Some(then) = carried.at_first(&referenced).await else { return Ok(false) };
            // Whatever could be referred to then still can be.
            let now = keys(&now);
            if !keys(&then).keys().all(|key| now.contains_key(key)) {
                return Ok(false);
            }
            out.ran.push(work.key.clone());
            out.by_changed_rows.push(work.key.clone());
        }
        Work::Unique(work) => {
            let asked = question(work, &[]);
            let Some(pieces) = carried.pieces(work.key.object_oid) else { return Ok(false) };
            if !carried.was_clean(&work.key, &work.definition, &asked) {
                return Ok(false);
            }
            let found = Question::of(&work.rights, work.keys_among(&places(pieces)));
            let Ok(now) = session.ask(0, &found).await? else { return Ok(false) };
            let Some(then) = carried.at_first(&found).await else { return Ok(false) };
            // Keys that these blocks had when no row anywhere had the same one, each of them once.
            let then = keys(&then);
            if !keys(&now).iter().all(|(key, rows)| *rows == 1 && then.contains_key(key)) {
                return Ok(false);
            }
            out.ran.push(work.key.clone());
            out.by_changed_rows.push(work.key.clone());
        }
        Work::Scan(work) => {
            let Some(pieces) = carried.pieces(work.table) else { return Ok(false) };
            let is_clean = |rule: &crate::rule::Rule| {
                let asked = question(&(work.context(), rule), &[work.table]);
                carried.was_clean(&rule.key, &rule.definition, &asked)
            };
            let Some(counted) = carried.counted(work.table, &work.no_rows()) else { return Ok(false) };
            if work.rules.len() > crate::rule::RULES_PER_SCAN || !work.rules.iter().all(is_clean) {
                return Ok(false);
            }
            let places = places(pieces);
            let counts = Question::of_rules(&work.rights, work.counts_among(&places));
            let Ok(now) = session.ask(0, &counts).await? else { return Ok(false) };
            let Some(now) = now.first() else { return Ok(false) };
            if (1..=work.rules.len()).any(|index| text(now, index) != "0") {
                return Ok(false);
            }
            let rows = Question::of(&work.rights, work.rows_among(&places));
            let Some(then) = carried.at_first(&rows).await else { return Ok(false) };
            let Some(then) = then.first() else { return Ok(false) };
            if work.counts_rows {
                let rows = counted.rows - number::<i64>(then, 0) + number::<i64>(now, 0);
                out.rows.insert(work.table, TableRows { rows, ..work.no_rows() });
                out.rows_by_changed.push(work.table);
            }
            out.ran.extend(work.rules.iter().map(|rule| rule.key.clone()));
            out.by_changed_rows.extend(work.rules.iter().map(|rule| rule.key.clone()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// How many rows have each key.
fn keys(rows: &[TextRow]) -> BTreeMap<String, i64> {
    let mut keys = BTreeMap::new();
    for row in rows {
        *keys.entry(text(row, 0)).or_default() += number::<i64>(row, 1);
    }
    keys
}
