//! What the migration's SQL, its annotations and the flags let us expect of the pass afterwards.

use super::{Baseline, RunOptions};
use checks::{Accepted, Expectation, LossLimits};
use sql::{
    expectation::{self, RowExpectation},
    migration::MigrationFile,
    statement::TableName,
};

/// What the migration's SQL and the flags let us expect of the pass afterwards.
pub struct Announced {
    /// Of each table's rows, by oid.
    pub rows: Box<dyn Fn(u32) -> Expectation>,
    /// Losses that are allowed.
    pub limits: LossLimits,
    /// What may change of owners, grants and enum labels.
    pub accepted: Accepted,
}

/// What files announce.
pub fn announced(options: &RunOptions, files: &[&MigrationFile], baseline: &Baseline) -> Announced {
    Announced {
        rows: Box::new(expectations(files, baseline)),
        limits: loss_limits(options, files),
        accepted: accepted(options, files),
    }
}

/// A command's SQL can't be seen: it may have done anything.
pub fn announced_by_command(options: &RunOptions) -> Announced {
    Announced {
        rows: Box::new(|_| Expectation::Unknown { why: "an external command".to_owned() }),
        limits: loss_limits(options, &[]),
        accepted: Accepted { privileges: true, ..accepted(options, &[]) },
    }
}

/// What the flags and the files say.
fn accepted(options: &RunOptions, files: &[&MigrationFile]) -> Accepted {
    let annotations = || files.iter().map(|file| &file.annotations);
    let written = options.lost_labels.iter().cloned();
    let granted = options.lost_grants.iter().cloned();
    Accepted {
        privileges: announces_privileges(files),
        lost_labels: written.chain(annotations().flat_map(|file| file.lost_labels.iter().cloned())).collect(),
        lost_grants: granted.chain(annotations().flat_map(|file| file.lost_grants.iter().cloned())).collect(),
    }
}

/// Whether a word of the files changes privileges; also inside of DO blocks and strings, which run as well.
fn announces_privileges(files: &[&MigrationFile]) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    files.iter().flat_map(|file| &file.statements).any(|statement| {
        statement.text.split(|c| !is_word(c)).any(|word| {
            ["grant", "revoke", "owner", "owned", "privileges"]
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known))
        })
    })
}

/// What the pending files let us expect of each table, with their annotations.
fn expectations(files: &[&MigrationFile], baseline: &Baseline) -> impl Fn(u32) -> Expectation + use<> {
    let classes = files.iter().flat_map(|file| &file.statements).map(|statement| &statement.class);
    let facts = &baseline.facts;
    let mut expected: std::collections::BTreeMap<u32, Expectation> = expectation::expectations(
        classes,
        facts,
        |name| expectation::by_name(facts, name),
        |name| baseline.functions.may_write(name),
    )
    .into_iter()
    .map(|(oid, expectation)| (oid, mirror(expectation)))
    .collect();
    for rows in files.iter().flat_map(|file| &file.annotations.rows) {
        for oid in expectation::by_name(facts, &rows.table) {
            expected.insert(oid, Expectation::Between(*rows.change.start(), *rows.change.end()));
        }
    }
    move |oid| expected.get(&oid).cloned().unwrap_or(Expectation::Equal)
}

fn mirror(expectation: RowExpectation) -> Expectation {
    match expectation {
        RowExpectation::Equal => Expectation::Equal,
        RowExpectation::Updated => Expectation::Updated,
        RowExpectation::NotFewer => Expectation::NotFewer,
        RowExpectation::FewerAllowed => Expectation::FewerAllowed,
        RowExpectation::MustAcknowledge { why } => Expectation::MustAcknowledge { why },
        RowExpectation::Unknown { why } => Expectation::Unknown { why },
    }
}

/// Losses that the flags and the files' annotations allow.
pub fn loss_limits(options: &RunOptions, files: &[&MigrationFile]) -> LossLimits {
    let written = |name: &TableName| match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    };
    let annotated = files.iter().flat_map(|file| &file.annotations.allow_loss).map(|allowed| {
        (written(&allowed.table), allowed.at_most.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)))
    });
    LossLimits {
        max_loss: options.max_loss,
        allow_loss: annotated.chain(options.allow_loss.iter().cloned()).collect(),
    }
}
