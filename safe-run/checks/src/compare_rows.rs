//! Row counts before and after, against what the migration lets us expect. Pure.
//!
//! Tables are followed by oid: a rename is not a loss. Partitions that were attached or detached are counted together
//! with the tree that they joined or left. A table that was dropped while a new one took its name is compared with
//! the new one; dropped with nothing in its place, it lost all its rows. A gain is never a failure.

use std::collections::{BTreeMap, BTreeSet};

use common::ident::QualifiedName;
use serde::{Deserialize, Serialize};

use super::model::{CheckResults, Severity};
use super::violations::thousands;

/// What the migration's SQL lets us expect of a table's rows; from the safest to the least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing reaches the table.
    Equal,
    /// Values are changed, and no row comes or goes.
    Updated,
    /// Rows are only added.
    NotFewer,
    /// The migration's annotation gives the change, from and to.
    Between(i64, i64),
    /// Rows are deleted: up to the limit.
    FewerAllowed,
    /// Something reaches the table that cannot be read: any loss has to be acknowledged.
    Unknown {
        /// What it is.
        why: String,
    },
    /// TRUNCATE or DROP: the loss has to be acknowledged.
    MustAcknowledge {
        /// What it is.
        why: String,
    },
}

impl Expectation {
    /// Of several tables that are counted together, the one with the higher rank speaks.
    fn rank(&self) -> u8 {
        match self {
            Self::Equal => 0,
            Self::Updated => 1,
            Self::NotFewer => 2,
            Self::FewerAllowed => 3,
            Self::Unknown { .. } => 4,
            Self::MustAcknowledge { .. } => 5,
            Self::Between(..) => 6,
        }
    }
}

/// Which losses a person has allowed.
#[derive(Debug, Clone)]
pub struct LossLimits {
    /// `--max-loss`, a share of the rows before: 0.1 is 10 %.
    pub max_loss: f64,
    /// `--allow-loss T[=N]`: a table as a person writes it, and how many rows; `None` is any number.
    pub allow_loss: BTreeMap<String, Option<i64>>,
}

impl Default for LossLimits {
    fn default() -> Self {
        Self { max_loss: 0.1, allow_loss: BTreeMap::new() }
    }
}

impl LossLimits {
    /// Whether so many rows of one of these tables may be lost.
    pub fn allows(&self, names: &[QualifiedName], lost: i64) -> bool {
        names.iter().any(|name| {
            let plain = format!("{}.{}", name.schema.as_str(), name.name.as_str());
            [name.short(), name.to_string(), plain]
                .iter()
                .filter_map(|written| self.allow_loss.get(written))
                .any(|limit| limit.is_none_or(|limit| lost <= limit))
        })
    }
}

/// The change of one table, or of one partition tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowFinding {
    /// Oid of the table, or of the top of the partition tree.
    pub oid: u32,
    /// The table as a person writes it, by its name before the migration.
    pub table: String,
    /// Rows before.
    pub before: i64,
    /// Rows after.
    pub after: i64,
    /// Whether it fails the run.
    pub severity: Severity,
    /// `order_items lost 1,204 of 5,000 rows (24.1 %)`, and why that fails.
    pub detail: String,
}

/// Every table whose number of rows changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowComparison {
    /// Losses and gains, by table.
    pub changes: Vec<RowFinding>,
    /// Tables that were counted before and could not be counted after: nothing is known about their loss.
    pub not_compared: Vec<String>,
    /// Rows before, of the tables that were compared.
    pub rows_before: i64,
    /// Rows after, of the same tables.
    pub rows_after: i64,
    /// Tables that were compared (a partition tree is one).
    pub tables: usize,
}

impl RowComparison {
    /// The losses that fail the run.
    pub fn failing(&self) -> impl Iterator<Item = &RowFinding> {
        self.changes.iter().filter(|change| change.severity == Severity::Failure)
    }
}

/// Tables that are counted together.
#[derive(Debug, Default)]
struct Group {
    members: BTreeSet<u32>,
    before: i64,
    after: i64,
    not_compared: bool,
    replaced: bool,
    gone: bool,
}

/// Compares the row counts of two passes.
///
/// `expectation` is asked by oid, for every table of a tree and for its root.
pub fn compare_rows(
    before: &CheckResults,
    after: &CheckResults,
    expectation: impl Fn(u32) -> Expectation,
    limits: &LossLimits,
) -> RowComparison {
    let mut comparison = RowComparison::default();
    for (oid, group) in groups(before, after) {
        let Some(name) = before.tables.get(&oid).or_else(|| after.tables.get(&oid)).map(|facts| &facts.name)
        else {
            continue;
        };
        if group.not_compared {
            comparison.not_compared.push(name.short());
            continue;
        }
        comparison.tables += 1;
        comparison.rows_before += group.before;
        comparison.rows_after += group.after;
        let expected = group.members.iter().map(|member| expectation(*member)).max_by_key(Expectation::rank);
        let names: Vec<QualifiedName> = group
            .members
            .iter()
            .flat_map(|member| [before.tables.get(member), after.tables.get(member)])
            .flatten()
            .map(|facts| facts.name.clone())
            .collect();
        let change = judge(name, &group, &expected.unwrap_or(Expectation::Equal), &names, limits);
        comparison.changes.extend(change.map(|(severity, detail)| RowFinding {
            oid,
            table: name.short(),
            before: group.before,
            after: group.after,
            severity,
            detail,
        }));
    }
    comparison.changes.sort_by(|a, b| (b.severity, &a.table).cmp(&(a.severity, &b.table)));
    comparison
}

/// Severity and sentence of a change; `None` if nothing changed, or as annotated.
fn judge(
    name: &QualifiedName,
    group: &Group,
    expected: &Expectation,
    names: &[QualifiedName],
    limits: &LossLimits,
) -> Option<(Severity, String)> {
    let change = group.after - group.before;
    let mut detail = sentence(name, group);
    if let Expectation::Between(from, to) = expected {
        if (*from..=*to).contains(&change) || limits.allows(names, -change) && change < 0 {
            return (change != 0).then_some((Severity::Note, detail));
        }
        let (from, to) = (thousands(*from), thousands(*to));
        detail.push_str(&format!(": the migration announces a change of {from} to {to}"));
        return Some((Severity::Failure, detail));
    }
    if change >= 0 {
        return (change > 0).then_some((Severity::Note, detail));
    }
    let lost = -change;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = lost as f64 / group.before.max(1) as f64;
    if limits.allows(names, lost) || (*expected == Expectation::FewerAllowed && share <= limits.max_loss) {
        return Some((Severity::Note, detail));
    }
    detail.push_str(&match expected {
        Expectation::Equal | Expectation::Updated => {
            ", and nothing in the migration was seen to delete from it".to_owned()
        }
        Expectation::NotFewer => ", and the migration only seems to add to it".to_owned(),
        Expectation::FewerAllowed => {
            format!(", more than the {:.1} % that --max-loss allows", limits.max_loss * 100.0)
        }
        Expectation::Unknown { why } | Expectation::MustAcknowledge { why } => {
            format!(
                " ({why}): allow it with --allow-loss {}={lost}",
                common::ident::shell_word(&name.short())
            )
        }
        Expectation::Between(..) => String::new(),
    });
    Some((Severity::Failure, detail))
}

fn sentence(name: &QualifiedName, group: &Group) -> String {
    let table = name.short();
    if group.after > group.before {
        let gained = group.after - group.before;
        let noun = if gained == 1 { "row" } else { "rows" };
        return format!("{table} gained {} {noun} ({} now)", thousands(gained), thousands(group.after));
    }
    let lost = group.before - group.after;
    #[expect(clippy::cast_precision_loss, reason = "a share for a person")]
    let share = lost as f64 * 100.0 / group.before.max(1) as f64;
    let mut out = if group.gone {
        format!("{table} is gone with all its {} rows", thousands(group.before))
    } else {
        format!("{table} lost {} of {} rows ({share:.1} %)", thousands(lost), thousands(group.before))
    };
    if group.replaced {
        out.push_str(", replaced by a new table of that name");
    }
    out
}

/// The tables that are counted together, by the oid that speaks for them.
fn groups(before: &CheckResults, after: &CheckResults) -> BTreeMap<u32, Group> {
    let mut parent: BTreeMap<u32, u32> = BTreeMap::new();
    for tables in [&before.tables, &after.tables] {
        for (oid, facts) in tables.iter().filter(|(_, facts)| facts.kind != 'm') {
            parent.entry(*oid).or_insert(*oid);
            if let Some(root) = facts.root {
                parent.entry(root).or_insert(root);
                join(&mut parent, *oid, root);
            }
        }
    }
    let mut replaced = BTreeSet::new();
    for (old, facts) in before.tables.iter().filter(|(old, _)| !after.tables.contains_key(old)) {
        let successor = after
            .tables
            .iter()
            .find(|(new, now)| now.name == facts.name && !before.tables.contains_key(new) && now.kind != 'm');
        if let (Some((new, _)), true) = (successor, facts.kind != 'm') {
            join(&mut parent, *new, *old);
            replaced.insert(*old);
        }
    }
    let mut by_top: BTreeMap<u32, Group> = BTreeMap::new();
    for oid in parent.keys() {
        let group = by_top.entry(top(&parent, *oid)).or_default();
        group.members.insert(*oid);
        group.replaced |= replaced.contains(oid);
        let then = before.rows.get(oid);
        group.before += then.map_or(0, |rows| rows.rows);
        match after.rows.get(oid) {
            Some(now) => group.after += now.rows,
            // Untouched: as many as before. Still there, but not counted: nothing is known.
            None if after.untouched.contains(oid) => group.after += then.map_or(0, |rows| rows.rows),
            None => group.not_compared |= then.is_some() && after.tables.contains_key(oid),
        }
        // Counted after only, though it was there before: it would look like a gain and hide a loss.
        group.not_compared |= then.is_none()
            && after.rows.contains_key(oid)
            && before.tables.get(oid).is_some_and(|facts| facts.kind != 'p');
    }
    by_top
        .into_iter()
        .filter(|(_, group)| {
            // A table that the run created has no rows to lose.
            group.members.iter().any(|oid| before.tables.contains_key(oid))
        })
        .map(|(_, mut group)| {
            group.gone = group.members.iter().all(|oid| !after.tables.contains_key(oid));
            (speaker(&group, before, after), group)
        })
        .collect()
}

/// The root of the tree speaks for its partitions; else the table that was there before.
fn speaker(group: &Group, before: &CheckResults, after: &CheckResults) -> u32 {
    let is_root = |results: &CheckResults, oid: &u32| {
        results.tables.get(oid).is_some_and(|facts| facts.kind == 'p' && facts.root.is_none())
    };
    group
        .members
        .iter()
        .find(|oid| is_root(before, oid))
        .or_else(|| group.members.iter().find(|oid| is_root(after, oid)))
        .or_else(|| group.members.iter().find(|oid| before.tables.contains_key(oid)))
        .or_else(|| group.members.first())
        .copied()
        .unwrap_or_default()
}

fn top(parent: &BTreeMap<u32, u32>, mut oid: u32) -> u32 {
    while let Some(next) = parent.get(&oid).copied().filter(|next| *next != oid) {
        oid = next;
    }
    oid
}

fn join(parent: &mut BTreeMap<u32, u32>, a: u32, b: u32) {
    let (a, b) = (top(parent, a), top(parent, b));
    if a != b {
        parent.insert(a, b);
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{TableFacts, TableRows};
    use super::*;

    fn pass(tables: &[(u32, &str, i64)]) -> CheckResults {
        let mut results = CheckResults::default();
        for (oid, name, rows) in tables {
            let name = QualifiedName::new("public", *name);
            let facts = TableFacts {
                name: name.clone(),
                root: None,
                kind: 'r',
                relfilenode: *oid,
                size_bytes: 0,
                row_security: false,
                force_row_security: false,
                policies: BTreeSet::new(),
                columns: BTreeMap::new(),
                is_default_partition: false,
            };
            results.tables.insert(*oid, facts);
            results.rows.insert(*oid, TableRows { name, rows: *rows, root: None });
        }
        results
    }

    /// Severity and sentence of the only change, if there is one.
    fn judged(
        before: i64,
        after: i64,
        expected: &Expectation,
        limits: &LossLimits,
    ) -> Option<(Severity, String)> {
        let (before, after) = (pass(&[(1, "order_items", before)]), pass(&[(1, "order_items", after)]));
        let comparison = compare_rows(&before, &after, |_| expected.clone(), limits);
        comparison.changes.into_iter().next().map(|change| (change.severity, change.detail))
    }

    #[test]
    fn a_loss_fails_by_what_was_expected() {
        let limits = LossLimits::default();
        let unknown = Expectation::Unknown { why: "DO block".into() };
        let truncated = Expectation::MustAcknowledge { why: "TRUNCATE".into() };
        for (after, expected, severity) in [
            (4999, Expectation::Equal, Severity::Failure),
            (4999, Expectation::NotFewer, Severity::Failure),
            (4500, Expectation::FewerAllowed, Severity::Note),
            (4499, Expectation::FewerAllowed, Severity::Failure),
            (4999, unknown.clone(), Severity::Failure),
            (4999, truncated, Severity::Failure),
            (4999, Expectation::Between(-10, 0), Severity::Note),
            (4989, Expectation::Between(-10, 0), Severity::Failure),
            (5001, Expectation::Between(-10, 0), Severity::Failure),
            (5001, Expectation::Equal, Severity::Note),
        ] {
            let found = judged(5000, after, &expected, &limits).map(|(severity, _)| severity);
            assert_eq!(found, Some(severity), "{after} {expected:?}");
        }
        assert_eq!(judged(5000, 5000, &unknown, &limits), None);
        let told =
            "order_items lost 1,204 of 5,000 rows (24.1 %), more than the 10.0 % that --max-loss allows";
        assert_eq!(
            judged(5000, 3796, &Expectation::FewerAllowed, &limits),
            Some((Severity::Failure, told.to_owned()))
        );
    }

    #[test]
    fn a_loss_is_allowed_by_name_and_up_to_its_number() {
        let severity = |name: &str, limit| {
            let limits =
                LossLimits { allow_loss: [(name.to_owned(), limit)].into(), ..LossLimits::default() };
            judged(10, 5, &Expectation::Equal, &limits).map(|(severity, _)| severity)
        };
        assert_eq!(severity("order_items", None), Some(Severity::Note));
        assert_eq!(severity("public.order_items", Some(5)), Some(Severity::Note));
        assert_eq!(severity("order_items", Some(4)), Some(Severity::Failure));
        assert_eq!(severity("orders", None), Some(Severity::Failure));
    }

    #[test]
    fn a_table_that_was_not_counted_again_is_said_and_an_untouched_one_is_as_before() {
        let before = pass(&[(1, "a", 10)]);
        let mut after = pass(&[(1, "a", 10)]);
        after.rows.clear();
        let compare = |after: &CheckResults| {
            compare_rows(&before, after, |_| Expectation::Equal, &LossLimits::default())
        };
        assert_eq!(compare(&after).not_compared, ["a"]);
        after.untouched.insert(1);
        assert_eq!((compare(&after).not_compared.len(), compare(&after).rows_after), (0, 10));
    }
}
