//! In which order tables are loaded: what is referred to comes first, so that PostgreSQL checks every foreign key as it does
//! for any other row. Where tables refer to each other in a circle, some keys are checked at the end instead. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{plan::Plan, target::TargetForeignKey};

/// Puts the tables in order, and says which keys have to wait.
///
/// A key that leads to its own table is checked at the end of the statement that loads it, and needs nothing.
pub fn sort(plan: &mut Plan, keys: &[TargetForeignKey]) {
    let planned: BTreeSet<u32> = plan.tables.iter().map(|table| table.target.oid).collect();
    let between = |key: &&TargetForeignKey| {
        key.table != key.references && planned.contains(&key.table) && planned.contains(&key.references)
    };
    let keys: Vec<&TargetForeignKey> = keys.iter().filter(between).collect();
    let mut needs: BTreeMap<u32, BTreeSet<u32>> = planned.iter().map(|oid| (*oid, BTreeSet::new())).collect();
    for key in &keys {
        needs.entry(key.table).or_default().insert(key.references);
    }
    // Within what is free, the order of the file.
    let mut left: Vec<u32> = plan.tables.iter().map(|table| table.target.oid).collect();
    let mut order: Vec<u32> = Vec::new();
    while !left.is_empty() {
        let missing = |oid: &u32| needs[oid].iter().filter(|needed| !order.contains(needed)).count();
        let Some(place) = (0..left.len()).min_by_key(|place| missing(&left[*place])) else { break };
        order.push(left.remove(place));
    }
    let at = |oid: u32| order.iter().position(|there| *there == oid).unwrap_or(usize::MAX);
    plan.checked_late =
        keys.iter().filter(|key| at(key.references) > at(key.table)).map(|key| (*key).clone()).collect();
    plan.tables.sort_by_key(|table| at(table.target.oid));
}
