//! Two passes → what the migration made worse. Pure.
//!
//! A violation that was there before, and is not worse now, never fails a run. A rule that the run created has no
//! baseline, so any violation of it is new.

use std::collections::{BTreeMap, BTreeSet};

use common::ident::literal;
use serde::{Deserialize, Serialize};

use super::accepted::Accepted;
use super::catalogue::CheckKind;
use super::model::{
    CheckResults, Finding, RuleKey, RuleState, SHOWN_KEYS, SequenceState, Severity, WHOLE_CHECK, Wording,
};
use super::violations::{sentence, sorted_keys};
use super::{
    enforcement, enums, partitions, privileges,
    statistics::{self, LostStatistics},
};

/// Which findings fail a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailOn {
    /// What this run made worse.
    #[default]
    New,
    /// What was there before, too.
    Any,
    /// Nothing: findings are shown.
    None,
}

/// What two passes say together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Worse than before; the sentence names the new keys alone where they can be told.
    pub new: Vec<Finding>,
    /// As before, or partly resolved.
    pub pre_existing: Vec<Finding>,
    /// Gone, as they were before.
    pub resolved: Vec<Finding>,
    /// Never failing: advice, and rules that PostgreSQL does not enforce either.
    pub notes: Vec<Finding>,
    /// Columns that the run analyzes once it stands.
    pub lost_statistics: Vec<LostStatistics>,
    /// What fails the run.
    pub fail_on: FailOn,
}

impl Comparison {
    /// Adds findings that are about this run alone: failures are new, the others notes.
    pub fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            if finding.severity == Severity::Note {
                self.notes.push(finding);
            } else {
                self.new.push(finding);
            }
        }
    }

    /// The findings that fail the run.
    pub fn failing(&self) -> impl Iterator<Item = &Finding> {
        let (new, pre_existing): (&[Finding], &[Finding]) = match self.fail_on {
            FailOn::New => (&self.new, &[]),
            FailOn::Any => (&self.new, &self.pre_existing),
            FailOn::None => (&[], &[]),
        };
        new.iter().chain(pre_existing)
    }

    /// Whether the run has to be undone.
    pub fn fails(&self) -> bool {
        self.failing().next().is_some()
    }
}

/// Compares the pass after a migration with the one before it. Nothing in its SQL announces a change of privileges.
pub fn compare(before: &CheckResults, after: &CheckResults, fail_on: FailOn) -> Comparison {
    compare_announced(before, after, fail_on, &Accepted::default())
}

/// [`compare()`], where the migration may announce changes of owners, grants and labels.
pub fn compare_announced(
    before: &CheckResults,
    after: &CheckResults,
    fail_on: FailOn,
    accepted: &Accepted,
) -> Comparison {
    let mut comparison = Comparison { fail_on, ..Comparison::default() };
    let mut matched: BTreeSet<usize> = BTreeSet::new();
    let mut behind: BTreeSet<u32> = BTreeSet::new();

    for finding in &after.findings {
        let baseline = baseline_of(finding, before);
        matched.extend(baseline);
        let mut finding = finding.clone();
        if enforcement::was_enforced(&finding, before.states.constraints.as_ref()) {
            finding.severity = Severity::Failure;
        }
        if is_new_and_not_valid(&finding, before) {
            finding.severity = Severity::Note;
            finding.detail.push_str(", which the new rule accepts: it is NOT VALID");
        }
        let finding = &finding;
        if finding.severity == Severity::Note {
            // Advice that was as good before is no news.
            if baseline.is_none() || !matches!(finding.key.check, CheckKind::Advice | CheckKind::Partitions) {
                comparison.notes.push(finding.clone());
            }
            continue;
        }
        match worse(finding, baseline.and_then(|index| before.findings.get(index)), before) {
            Some(new) => {
                if new.key.check == CheckKind::Sequences {
                    behind.insert(new.key.object_oid);
                }
                comparison.new.push(new);
            }
            None => comparison.pre_existing.push(finding.clone()),
        }
    }
    for (index, finding) in before.findings.iter().enumerate() {
        if matched.contains(&index) || finding.severity == Severity::Note {
            continue;
        }
        // Not looked at again (untouched, or the query failed): it is still there as far as anybody knows.
        if still_unknown(&finding.key, after) {
            comparison.pre_existing.push(finding.clone());
        } else {
            comparison.resolved.push(finding.clone());
        }
    }
    for (oid, now) in &after.sequences {
        if let (Some(then), false) = (before.sequences.get(oid), behind.contains(oid)) {
            comparison.new.extend(moved_backwards(then, now));
        }
    }
    comparison.notes.extend(row_security_notes(before, after));
    comparison.add(partitions::grown_defaults(before, after));
    if let (Some(then), Some(now)) = (&before.states.enums, &after.states.enums) {
        comparison.add(enums::compare(then, now, accepted));
    }
    if let (Some(then), Some(now)) = (&before.states.constraints, &after.states.constraints) {
        comparison.add(enforcement::compare(then, now));
    }
    if let (Some(then), Some(now)) = (&before.states.privileges, &after.states.privileges) {
        comparison.add(privileges::compare(then, now, &after.tables, accepted));
    }
    let lost = statistics::lost(before, after);
    comparison.notes.extend(statistics::notes(&lost));
    comparison.lost_statistics = lost.into_iter().map(|(_, lost)| lost).collect();
    comparison
}

/// The finding of `before` about the same rule: same oid, or made again with the same name and definition.
fn baseline_of(finding: &Finding, before: &CheckResults) -> Option<usize> {
    let same = |known: &Finding| known.key == finding.key;
    let renamed = |known: &Finding| is_same_rule_renamed(&known.key, &finding.key);
    let remade = |known: &Finding| {
        is_same_rule_remade(&known.key, &known.definition, &finding.key, &finding.definition)
    };
    let findings = &before.findings;
    findings
        .iter()
        .position(same)
        .or_else(|| findings.iter().position(renamed))
        .or_else(|| findings.iter().position(remade))
}

/// Constraints, indexes and triggers keep their oid when they are renamed. Domains and sequences share one oid
/// between several columns, so there the name counts.
fn is_same_rule_renamed(then: &RuleKey, now: &RuleKey) -> bool {
    then.check == now.check
        && then.object_oid == now.object_oid
        && then.rule_oid == now.rule_oid
        && now.rule_oid != 0
        && !matches!(now.check, CheckKind::Domains | CheckKind::Sequences | CheckKind::Advice)
}

/// ALTER COLUMN TYPE drops constraints and makes them again under their name.
fn is_same_rule_remade(then: &RuleKey, old: &str, now: &RuleKey, new: &str) -> bool {
    then.check == now.check && then.object_oid == now.object_oid && then.rule == now.rule && old == new
}

/// Whether the run made the rule NOT VALID, which is how one is made over rows that break it. One that was there before, by its name or
/// by what it says, is none: its rows held, and NOT VALID hides those that do not any more.
fn is_new_and_not_valid(finding: &Finding, before: &CheckResults) -> bool {
    let Some(says) = finding.definition.strip_suffix(" NOT VALID") else { return false };
    let key = &finding.key;
    !before.rules.iter().any(|(then, state)| {
        (then.check, then.object_oid) == (key.check, key.object_oid)
            && (then.rule == key.rule
                || is_same_rule_renamed(then, key)
                || state.definition.strip_suffix(" NOT VALID").unwrap_or(&state.definition) == says)
    })
}

/// What was known of the rule before: `None` if this run created it.
fn rule_before<'a>(finding: &Finding, before: &'a CheckResults) -> Option<&'a RuleState> {
    before.rules.get(&finding.key).or_else(|| {
        before
            .rules
            .iter()
            .find(|(key, state)| {
                is_same_rule_renamed(key, &finding.key)
                    || is_same_rule_remade(key, &state.definition, &finding.key, &finding.definition)
            })
            .map(|(_, state)| state)
    })
}

/// The finding as a new one, if it is worse than `then`.
fn worse(now: &Finding, then: Option<&Finding>, before: &CheckResults) -> Option<Finding> {
    let Some(then) = then else {
        let mut new = now.clone();
        match rule_before(now, before) {
            Some(RuleState { ran: true, .. }) => retell(&mut new, now.count, "", &now.keys.clone()),
            Some(_) => new.detail.push_str("; there is no baseline, because this was not checked before"),
            None => {}
        }
        return Some(new);
    };
    if std::mem::discriminant(&now.wording) != std::mem::discriminant(&then.wording) {
        return Some(now.clone());
    }
    let other_keys = !now.key_hash.is_empty() && !then.key_hash.is_empty() && now.key_hash != then.key_hash;
    if now.count < then.count || (now.count == then.count && !other_keys) {
        return None;
    }
    let mut new = now.clone();
    let (count, exact, keys) = new_keys(now, then);
    retell(&mut new, count, if exact { "" } else { "at least " }, &keys);
    Some(new)
}

/// How many violations are new, whether that is exact, and the keys that are new.
fn new_keys(now: &Finding, then: &Finding) -> (i64, bool, BTreeMap<String, i64>) {
    let complete = |finding: &Finding| finding.keys.values().sum::<i64>() == finding.count;
    let at_least = (now.count - then.count).max(1);
    if !complete(then) {
        // A key that was not fetched before may be old: none can be called new.
        return (at_least, now.key_hash.is_empty(), BTreeMap::new());
    }
    let fresh: BTreeMap<String, i64> = now
        .keys
        .iter()
        .map(|(key, rows)| (key.clone(), rows - then.keys.get(key).copied().unwrap_or(0)))
        .filter(|(_, rows)| *rows > 0)
        .collect();
    let known: i64 = fresh.values().sum();
    (known.max(at_least), complete(now), fresh)
}

/// Makes the sentence again for `count` new violations with `keys`.
fn retell(finding: &mut Finding, count: i64, how_sure: &str, keys: &BTreeMap<String, i64>) {
    if finding.wording == Wording::State {
        return;
    }
    let sorted = sorted_keys(keys);
    finding.detail =
        format!("{how_sure}{}", sentence(&finding.wording, count, "new ", &sorted, sorted.len()));
    finding.sample_keys = sorted.into_iter().take(SHOWN_KEYS).collect();
}

/// Whether the rule is still there and this pass did not look at it.
fn still_unknown(key: &RuleKey, after: &CheckResults) -> bool {
    let not_listed =
        after.skipped.iter().any(|skipped| skipped.check == key.check && skipped.object == WHOLE_CHECK);
    let rules = &after.rules;
    not_listed
        || rules
            .iter()
            .find(|(now, _)| *now == key || is_same_rule_renamed(key, now))
            .is_some_and(|(_, state)| !state.ran)
}

/// A sequence whose next value was handed out before. `setval` is not undone by a ROLLBACK either.
fn moved_backwards(then: &SequenceState, now: &SequenceState) -> Option<Finding> {
    let (was, is) = (then.next_value(), now.next_value());
    let backwards = if now.increment > 0 { is < was } else { is > was };
    // A sequence that was never used has nothing to repeat, and one that turned round cannot be compared.
    if !backwards
        || now.cycles
        || then.cycles
        || (then.increment > 0) != (now.increment > 0)
        || !then.is_called
    {
        return None;
    }
    let key = RuleKey {
        check: CheckKind::Sequences,
        object_oid: now.oid,
        rule_oid: now.oid,
        rule: now.name.name.as_str().to_owned(),
    };
    let detail =
        format!("sequence {} moved backwards: its next value was {was} and is {is} now", now.name.short());
    let mut finding = Finding::state(key, now.name.short(), "backwards", detail);
    finding.repair_sql =
        Some(format!("SELECT setval({}, {});", literal(&now.name.to_string()), then.last_value));
    Some(finding)
}

/// Row level security that the run loosened in a way that one state alone does not show.
fn row_security_notes(before: &CheckResults, after: &CheckResults) -> Vec<Finding> {
    let mut notes = Vec::new();
    for (oid, now) in &after.tables {
        let Some(then) = before.tables.get(oid) else { continue };
        let table = now.name.short();
        let mut note = |rule: &str, detail: String| {
            let key =
                RuleKey { check: CheckKind::Triggers, object_oid: *oid, rule_oid: 0, rule: rule.to_owned() };
            let mut finding = Finding::state(key, table.clone(), "", detail);
            finding.severity = Severity::Note;
            notes.push(finding);
        };
        if then.row_security && !now.row_security && now.policies.is_empty() {
            note("row level security", format!("row level security of {table} was switched off"));
        }
        if then.force_row_security && !now.force_row_security {
            note(
                "force row level security",
                format!("row level security of {table} no longer binds its owner"),
            );
        }
        for policy in then.policies.difference(&now.policies) {
            let policy = common::ident::printable(policy);
            note("policy", format!("policy {policy} of {table} is gone"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphans(keys: &[(&str, i64)], hash: &str) -> Finding {
        let keys: BTreeMap<String, i64> = keys.iter().map(|(key, rows)| ((*key).to_owned(), *rows)).collect();
        let mut finding = Finding::state(key(7), "items".into(), hash, String::new());
        finding.count = keys.values().sum();
        finding.wording =
            Wording::Rows { one: "orphan", many: "orphans", place: "in items.order_id -> orders.id".into() };
        finding.keys = keys;
        finding.definition = "FOREIGN KEY".into();
        finding
    }

    fn key(rule_oid: u32) -> RuleKey {
        RuleKey { check: CheckKind::ForeignKeys, object_oid: 1, rule_oid, rule: "fk".into() }
    }

    fn pass(findings: Vec<Finding>) -> CheckResults {
        let rules = [(key(7), RuleState { ran: true, definition: "FOREIGN KEY".into() })].into();
        CheckResults { findings, rules, ..CheckResults::default() }
    }

    #[test]
    fn the_same_violations_are_pre_existing() {
        let pass = pass(vec![orphans(&[("17", 2)], "a")]);
        let comparison = compare(&pass, &pass, FailOn::New);
        assert_eq!((comparison.new.len(), comparison.pre_existing.len()), (0, 1));
        assert!(!comparison.fails());
        assert!(compare(&pass, &pass, FailOn::Any).fails());
    }

    #[test]
    fn more_violations_are_new_and_only_the_new_keys_are_named() {
        let before = pass(vec![orphans(&[("17", 1), ("18", 1)], "a")]);
        let after = pass(vec![orphans(&[("17", 2), ("18", 1), ("44", 2)], "b")]);
        let comparison = compare(&before, &after, FailOn::New);
        assert_eq!(comparison.new[0].detail, "3 new orphans in items.order_id -> orders.id (keys 17, 44)");
        assert!(comparison.fails() && !compare(&before, &after, FailOn::None).fails());
    }

    #[test]
    fn the_same_count_of_other_keys_is_new() {
        let before = pass(vec![orphans(&[("17", 1), ("18", 1)], "a")]);
        let after = pass(vec![orphans(&[("17", 1), ("19", 1)], "b")]);
        let detail = &compare(&before, &after, FailOn::New).new[0].detail;
        assert_eq!(detail, "1 new orphan in items.order_id -> orders.id (key 19)");
    }

    #[test]
    fn fewer_violations_are_pre_existing_and_none_are_resolved() {
        let before = pass(vec![orphans(&[("17", 1), ("18", 1)], "a")]);
        assert_eq!(
            compare(&before, &pass(vec![orphans(&[("17", 1)], "b")]), FailOn::New).pre_existing.len(),
            1
        );
        assert_eq!(compare(&before, &pass(vec![]), FailOn::New).resolved.len(), 1);
    }

    #[test]
    fn what_was_not_looked_at_again_is_not_resolved() {
        let before = pass(vec![orphans(&[("17", 1)], "a")]);
        let mut after = pass(vec![]);
        after.rules.insert(key(7), RuleState { ran: false, definition: "FOREIGN KEY".into() });
        let comparison = compare(&before, &after, FailOn::New);
        assert_eq!((comparison.resolved.len(), comparison.pre_existing.len()), (0, 1));
    }

    #[test]
    fn a_rule_made_again_keeps_its_baseline_and_a_changed_one_does_not() {
        let before = pass(vec![orphans(&[("17", 1)], "a")]);
        let mut remade = orphans(&[("17", 1)], "a");
        remade.key.rule_oid = 8;
        assert!(compare(&before, &pass(vec![remade.clone()]), FailOn::New).new.is_empty());
        remade.definition = "FOREIGN KEY to another table".into();
        assert_eq!(compare(&before, &pass(vec![remade]), FailOn::New).new.len(), 1);
    }

    #[test]
    fn rows_under_a_new_rule_that_is_not_valid_are_noted_and_not_under_an_old_one_that_was_made_so() {
        let mut finding = orphans(&[("17", 1)], "a");
        finding.key = RuleKey { rule: "new".into(), ..key(8) };
        for (definition, notes) in [
            ("FOREIGN KEY to another table NOT VALID", 1),
            ("FOREIGN KEY NOT VALID", 0),
            ("FOREIGN KEY to another table", 0),
        ] {
            finding.definition = definition.into();
            let comparison = compare(&pass(vec![]), &pass(vec![finding.clone()]), FailOn::New);
            assert_eq!((comparison.notes.len(), comparison.new.len()), (notes, 1 - notes), "{definition}");
        }
        finding.key = key(8);
        finding.definition = "FOREIGN KEY to another table NOT VALID".into();
        assert!(compare(&pass(vec![]), &pass(vec![finding]), FailOn::New).fails());
    }

    #[test]
    fn more_keys_than_were_fetched_say_at_least() {
        let mut then = orphans(&[("17", 1)], "a");
        then.count = 5000;
        let mut now = orphans(&[("17", 1)], "b");
        now.count = 5003;
        let detail = compare(&pass(vec![then]), &pass(vec![now]), FailOn::New).new[0].detail.clone();
        assert_eq!(detail, "at least 3 new orphans in items.order_id -> orders.id");
    }
}
