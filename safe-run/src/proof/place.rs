//! Rows that a restore has no place for, found by the checks behind the fence, before anything runs: whatever the run was told to check.

use common::{
    Error, Result,
    format::plural,
    postgres::{Session, exported_snapshot::ExportedSnapshot},
};

use crate::run::{Context, check_options, check_parallel};
use checks::{
    self, CheckKind, CheckResults, Finding, Level, Severity, Skipped, exclude::is_too_large, exclude_build,
};

/// The checks that find such rows.
const KINDS: [CheckKind; 6] = [
    CheckKind::Check,
    CheckKind::NotNull,
    CheckKind::Domains,
    CheckKind::Unique,
    CheckKind::Exclude,
    CheckKind::Partitions,
];

/// What the run's own checks leave out, by their level or by `--only` and `--skip`, is looked at here: by several sessions on the
/// exported snapshot.
///
/// # Errors
/// A pass could not run at all.
pub(crate) async fn look_at_the_rest(
    context: &Context,
    exported: &ExportedSnapshot<'_>,
) -> Result<Option<CheckResults>> {
    let own = check_options(&context.options);
    let is_left = |kind: &CheckKind| own.level < Level::Standard || !own.wants(*kind);
    let only: Vec<CheckKind> = KINDS.into_iter().filter(is_left).collect();
    if only.is_empty() {
        return Ok(None);
    }
    let options = checks::Options { level: Level::Standard, only, ..checks::Options::default() };
    check_parallel(context, exported, &options).await.map(Some)
}

/// What rows no restore has a place for, by what the checks found, and by EXCLUDE constraints of tables that were too large for them.
///
/// # Errors
/// The catalog can't be read.
pub(crate) async fn missing(
    context: &Context,
    found: &CheckResults,
    rest: Option<&CheckResults>,
) -> Result<Option<String>> {
    for found in std::iter::once(found).chain(rest) {
        if let Some(why) = row_without_a_place(&context.control, found).await? {
            return Ok(Some(why));
        }
    }
    // A join of all rows has seen them.
    let own = check_options(&context.options);
    let is_seen = !found.skipped.iter().any(|skipped| skipped.check == CheckKind::Exclude);
    if own.level == Level::Deep && own.wants(CheckKind::Exclude) && is_seen {
        return Ok(None);
    }
    let looks_at_space = !context.options.skip_space_check;
    exclude_build::conflict(&context.connection, looks_at_space, &context.progress).await
}

/// What a person should know where the snapshot is the undo: tables of which nobody looked whether a restore has a place for their
/// rows. The run's own checks name those that they could not look at; `rest` is what they had left out.
pub(crate) fn not_looked_at(found: &CheckResults, rest: Option<&CheckResults>) -> Option<String> {
    let skipped: Vec<&Skipped> = std::iter::once(found)
        .chain(rest)
        .flat_map(|found| &found.skipped)
        .filter(|skipped| KINDS.contains(&skipped.check) && skipped.counts_for_strict)
        // Of a large table the index was built above, in place of that check.
        .filter(|skipped| skipped.check != CheckKind::Exclude || !is_too_large(skipped))
        .collect();
    let first = skipped.first()?;
    let more = match skipped.len() {
        1 => String::new(),
        many => format!(", nor of {}", plural(many as u64 - 1, "other rule", "other rules")),
    };
    Some(format!(
        "nobody looked whether a restore of the snapshot has a place for the rows of {}{more}: {}",
        first.object, first.why
    ))
}

/// What was found of rows that a restore has no place for: a NULL where a table's column or a domain has none, rows that are there
/// twice under a unique index, conflict in an EXCLUDE, or lie outside of their partition's bound, or of which a rule's function
/// raises an error. A rule of that kind can't be NOT VALID.
async fn row_without_a_place(session: &Session, found: &CheckResults) -> Result<Option<String>> {
    let suspects: Vec<&Finding> = found.findings.iter().filter(|finding| has_no_place(finding)).collect();
    if suspects.is_empty() {
        return Ok(None);
    }
    // No archive makes an index that is not valid, and a materialized view is filled anew.
    let indexes: Vec<u32> = suspects
        .iter()
        .filter(|finding| matches!(finding.key.check, CheckKind::Unique))
        .map(|finding| finding.key.rule_oid)
        .collect();
    let rows = session
        .query(
            "SELECT i.indexrelid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
             WHERE i.indexrelid = ANY ($1) AND (NOT i.indisvalid OR c.relkind <> 'r')",
            &[&indexes],
        )
        .await
        .map_err(|source| Error::postgres("could not look for indexes that are not valid", source))?;
    let not_made: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let is_made = |finding: &&&Finding| {
        finding.key.check != CheckKind::Unique || !not_made.contains(&finding.key.rule_oid)
    };
    Ok(suspects.iter().find(is_made).map(|finding| finding.detail.clone()))
}

fn has_no_place(finding: &Finding) -> bool {
    // A rule that could not be evaluated has the SQLSTATE in place of keys.
    let raises = |state: &str| {
        state.len() == 5
            && state != "23514"
            && ["22", "23", "P0"].iter().any(|class| state.starts_with(class))
    };
    let is_state = finding.sample_keys.is_empty() && finding.count == 1;
    let is_broken = match finding.key.check {
        CheckKind::NotNull | CheckKind::Unique | CheckKind::Exclude => true,
        CheckKind::Partitions => finding.key.rule == "bound",
        CheckKind::Check | CheckKind::Domains => {
            finding.definition == "NOT NULL" || (is_state && raises(&finding.key_hash))
        }
        _ => false,
    };
    is_broken && finding.severity == Severity::Failure && !finding.definition.ends_with(" NOT VALID")
}

/// What a person should know where the snapshot is the only undo and rows break rules: those rules come back NOT VALID.
pub(crate) fn broken_rules(found: &CheckResults) -> Option<String> {
    let breaks = |finding: &&Finding| {
        matches!(finding.key.check, CheckKind::Check | CheckKind::Domains)
            && finding.severity == Severity::Failure
            && !finding.definition.ends_with(" NOT VALID")
            && !has_no_place(finding)
    };
    let finding = found.findings.iter().find(breaks)?;
    Some(format!("an undo by the snapshot would bring this rule back NOT VALID: {}", finding.detail))
}
