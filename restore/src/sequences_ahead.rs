//! Sequences of a database that takes the place of another go on from where the other's stood: rows that were written there
//! after the snapshot, and are saved for a replay, must not find their keys taken by new ones.
//!
//! A sequence is only ever moved ahead. A gap does no harm.

use std::collections::HashMap;

use common::{
    Error, Result,
    catalog::Sequence,
    ident::literal,
    postgres::{ConnectionSettings, introspect},
};

/// Steps that are left free for values that are drawn between the look and the swap.
pub const MARGIN: i64 = 1000;

/// Where a sequence may stand.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    min: i64,
    max: i64,
    cycles: bool,
}

/// Moves the sequences of `to` to where those of `from` with the same names stand, and those that have moved up to `margin`
/// steps further. How many were moved.
pub async fn carry(from: &ConnectionSettings, to: &ConnectionSettings, margin: i64) -> Result<usize> {
    let failed = |source| Error::postgres("could not move the sequences ahead", source);
    let source = from.connect().await?;
    let stood = introspect::sequences(&source).await?;
    source.close().await?;
    let target = to.connect().await?;
    let now = introspect::sequences(&target).await?;
    let rows = target
        .query("SELECT seqrelid, seqmin, seqmax, seqcycle FROM pg_catalog.pg_sequence", &[])
        .await
        .map_err(failed)?;
    let bounds: HashMap<u32, Bounds> = rows
        .iter()
        .map(|row| (row.get(0), Bounds { min: row.get(1), max: row.get(2), cycles: row.get(3) }))
        .collect();
    let mut statements = Vec::new();
    for sequence in &now {
        let before = stood.iter().find(|before| before.name == sequence.name);
        let (Some(before), Some(bounds)) = (before, bounds.get(&sequence.oid)) else { continue };
        if let Some(value) = ahead(before, sequence, *bounds, margin) {
            let comparison = if sequence.increment < 0 { ">" } else { "<" };
            statements.push(format!(
                "SELECT pg_catalog.setval({}::pg_catalog.regclass, {value}, true) FROM {} WHERE last_value {comparison} {value} \
                 OR (last_value = {value} AND NOT is_called)",
                literal(&sequence.name.to_string()),
                sequence.name,
            ));
        }
    }
    if !statements.is_empty() {
        target.batch_execute(&statements.join("; ")).await.map_err(failed)?;
    }
    target.close().await?;
    Ok(statements.len())
}

/// The value that counts as drawn; `None` where nothing is to be done.
fn ahead(stood: &Sequence, now: &Sequence, bounds: Bounds, margin: i64) -> Option<i64> {
    let is_same = (stood.last_value, stood.is_called) == (now.last_value, now.is_called);
    if is_same || !stood.is_called || stood.increment.signum() != now.increment.signum() {
        return None;
    }
    let step = i128::from(now.increment);
    let last = i128::from(stood.last_value);
    let end = i128::from(if now.increment < 0 { bounds.min } else { bounds.max });
    if bounds.cycles {
        return Some(stood.last_value);
    }
    // One that is almost used up keeps half of what is left.
    let steps = i128::from(margin).min((end - last) / step / 2).max(0);
    i64::try_from(last + steps * step).ok()
}

#[cfg(test)]
mod tests {
    use common::QualifiedName;

    use super::*;

    fn at(last_value: i64, is_called: bool, increment: i64) -> Sequence {
        Sequence { oid: 1, name: QualifiedName::new("s", "q"), last_value, is_called, increment }
    }

    #[test]
    fn a_sequence_that_has_moved_goes_further_and_never_to_its_end() {
        let wide = Bounds { min: i64::MIN, max: i64::MAX, cycles: false };
        let small = Bounds { min: -100, max: 100, cycles: false };
        for (stood, now, bounds, wanted) in [
            (at(5, true, 1), at(5, true, 1), wide, None),
            (at(1, false, 1), at(5, true, 1), wide, None),
            (at(9, true, 1), at(5, true, 1), wide, Some(1009)),
            (at(9, true, 10), at(5, true, 10), wide, Some(10_009)),
            (at(-9, true, -1), at(-5, true, -1), wide, Some(-1009)),
            (at(90, true, 1), at(5, true, 1), small, Some(95)),
            (at(100, true, 1), at(5, true, 1), small, Some(100)),
            (at(-90, true, -1), at(-5, true, -1), small, Some(-95)),
            (at(9, true, 1), at(5, true, 1), Bounds { cycles: true, ..small }, Some(9)),
            (at(i64::MAX - 1, true, 1), at(5, true, 1), wide, Some(i64::MAX - 1)),
        ] {
            assert_eq!(ahead(&stood, &now, bounds, MARGIN), wanted, "{stood:?}");
        }
    }
}
