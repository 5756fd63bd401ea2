//! Whether a snapshot is strangely unlike the one before it. Pure: the shapes of two come in, sentences come out.
//!
//! A backup that succeeds every night of a database that somebody has emptied replaces, night by night, the last good
//! snapshots. So a table that is gone, or has lost most of its rows, or a snapshot that is far smaller, holds all pruning
//! until a person has looked.

use std::collections::{HashMap, HashSet};

use common::{
    QualifiedName, format,
    repository::StoredSnapshot,
    snapshot::{Manifest, manifest::Kind},
};

/// Most findings that are listed one by one.
const LISTED: usize = 20;

/// Below this size a snapshot is too small for its size to say anything.
const SMALL_BYTES: u64 = 100_000;

/// What is compared of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// Its name.
    pub name: QualifiedName,
    /// A table that was renamed keeps it.
    pub oid: u32,
    /// Its rows.
    pub rows: u64,
}

/// What is compared of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its tables.
    pub tables: Vec<TableShape>,
    /// The size of its data.
    pub raw_bytes: u64,
}

impl From<&Manifest> for Shape {
    fn from(manifest: &Manifest) -> Self {
        let tables = manifest.tables.iter().map(|table| TableShape {
            name: table.table.name.clone(),
            oid: table.table.oid,
            rows: table.rows(),
        });
        Self { tables: tables.collect(), raw_bytes: manifest.raw_bytes() }
    }
}

/// When to raise the alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Share of a table's rows whose loss is strange.
    pub rows: f64,
    /// Share of the snapshot's size whose loss is strange.
    pub size: f64,
    /// Tables that had fewer rows than this are not looked at for lost rows.
    pub min_rows: u64,
    /// Tables that are not looked at: names with `*`, with or without a schema.
    pub ignore: Vec<String>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { rows: 0.5, size: 0.5, min_rows: 100, ignore: Vec::new() }
    }
}

/// The snapshot to compare with: the newest earlier whole one of the same database, and of the scheduler's own where there is one.
pub fn predecessor<'a>(
    snapshots: impl Iterator<Item = &'a StoredSnapshot> + Clone,
    current: &Manifest,
) -> Option<&'a StoredSnapshot> {
    let earlier = snapshots.filter(|snapshot| {
        let manifest = &snapshot.manifest;
        !manifest.is_partial()
            && manifest.database.name == current.database.name
            && manifest.id != current.id
            && manifest.taken_at < current.taken_at
    });
    let newest = |only: Option<Kind>| {
        earlier
            .clone()
            .filter(|snapshot| only.is_none_or(|kind| snapshot.manifest.kind == kind))
            .max_by_key(|snapshot| snapshot.manifest.taken_at)
    };
    newest(Some(Kind::Scheduled)).or_else(|| newest(None))
}

/// What is strange about `current` after `previous`; empty when nothing is.
pub fn findings(previous: &Shape, current: &Shape, thresholds: &Thresholds) -> Vec<String> {
    let by_name: HashMap<&QualifiedName, &TableShape> =
        current.tables.iter().map(|table| (&table.name, table)).collect();
    let by_oid: HashMap<u32, &TableShape> = current.tables.iter().map(|table| (table.oid, table)).collect();
    let had_name: HashSet<&QualifiedName> = previous.tables.iter().map(|table| &table.name).collect();
    let mut findings = Vec::new();
    for before in &previous.tables {
        let name = before.name.short();
        if thresholds.ignore.iter().any(|pattern| is_match(pattern, &before.name)) {
            continue;
        }
        let renamed = || by_oid.get(&before.oid).filter(|now| !had_name.contains(&now.name));
        let Some(now) = by_name.get(&before.name).or_else(renamed) else {
            findings
                .push(format!("table {name} is gone; it had {}", format::plural(before.rows, "row", "rows")));
            continue;
        };
        if before.rows >= thresholds.min_rows.max(1) && lost(before.rows, now.rows) > thresholds.rows {
            let has = format::plural(now.rows, "row", "rows");
            findings.push(format!("table {name} has {has} instead of {}", format::count(before.rows)));
        }
    }
    let (had, has) = (previous.raw_bytes, current.raw_bytes);
    if had >= SMALL_BYTES && lost(had, has) > thresholds.size {
        findings.push(format!("the data is {} instead of {}", format::bytes(has), format::bytes(had)));
    }
    if findings.len() > LISTED {
        let more = findings.len() - LISTED;
        findings.truncate(LISTED);
        findings.push(format!("and {more} more"));
    }
    findings
}

#[expect(clippy::cast_precision_loss, reason = "a share of two numbers")]
fn lost(had: u64, has: u64) -> f64 {
    if has >= had { 0.0 } else { (had - has) as f64 / had as f64 }
}

fn is_match(pattern: &str, name: &QualifiedName) -> bool {
    let (table, schema) = (name.name.as_str(), name.schema.as_str());
    if pattern.contains('.') { glob(pattern, &format!("{schema}.{table}")) } else { glob(pattern, table) }
}

/// `*` stands for any text, everything else for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(index) => rest = &rest[index + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(tables: &[(&str, u32, u64)], raw_bytes: u64) -> Shape {
        let tables = tables.iter().map(|&(name, oid, rows)| {
            let (schema, name) = name.split_once('.').unwrap_or(("public", name));
            TableShape { name: QualifiedName::new(schema, name), oid, rows }
        });
        Shape { tables: tables.collect(), raw_bytes }
    }

    #[test]
    fn what_a_person_would_want_to_be_woken_for() {
        let usual = Thresholds::default();
        let ignoring = Thresholds { ignore: vec!["queue_*".into(), "log.*".into()], ..Thresholds::default() };
        type Case<'a> = (&'a [(&'a str, u32, u64)], &'a [(&'a str, u32, u64)], &'a [&'a str]);
        let cases: &[Case] = &[
            (&[("a", 1, 900)], &[("a", 1, 450)], &[]),
            (&[("a", 1, 900)], &[("a", 1, 449)], &["table a has 449 rows instead of 900"]),
            (&[("a", 1, 900)], &[("a", 1, 5000)], &[]),
            (&[("a", 1, 900)], &[("a", 1, 0)], &["table a has 0 rows instead of 900"]),
            // A table of a few rows goes up and down.
            (&[("a", 1, 99)], &[("a", 1, 0)], &[]),
            // But it does not go away.
            (&[("a", 1, 0), ("b", 2, 5)], &[("b", 2, 5)], &["table a is gone; it had 0 rows"]),
            (&[("a", 1, 900)], &[("b", 1, 900)], &[]),
            (&[("a", 1, 900)], &[("b", 1, 3)], &["table a has 3 rows instead of 900"]),
            // After a restore every oid is another; a table of the old oid that was there before is no renamed one.
            (&[("a", 1, 900), ("b", 2, 900)], &[("b", 1, 900)], &["table a is gone; it had 900 rows"]),
            (&[("a", 1, 900)], &[("A", 9, 900)], &["table a is gone; it had 900 rows"]),
        ];
        for (before, after, expected) in cases {
            let found = findings(&shape(before, 0), &shape(after, 0), &usual);
            assert_eq!(found, *expected, "{before:?} -> {after:?}");
        }
        let before = shape(&[("queue_a", 1, 900), ("log.x", 2, 900), ("logs", 3, 900)], 0);
        assert_eq!(findings(&before, &shape(&[], 0), &ignoring), ["table logs is gone; it had 900 rows"]);
        assert_eq!(
            findings(&shape(&[], 1_000_000), &shape(&[], 400_000), &usual),
            ["the data is 400 kB instead of 1.00 MB"]
        );
        assert!(findings(&shape(&[], 90_000), &shape(&[], 0), &usual).is_empty());
        let many: Vec<(String, u32, u64)> = (0..50).map(|n| (format!("t{n}"), n, 1)).collect();
        let many: Vec<(&str, u32, u64)> =
            many.iter().map(|(name, oid, rows)| (name.as_str(), *oid, *rows)).collect();
        assert_eq!(findings(&shape(&many, 0), &shape(&[], 0), &usual).last().unwrap(), "and 30 more");
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "aXbYc", true),
            ("*", "", true),
            ("abc", "abc", true),
            ("ab", "abc", false),
            ("a*a", "a", false),
            ("*b", "abc", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
