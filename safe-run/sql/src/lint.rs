//! Which statements of a migration keep others waiting, fail on rows that are there, or break the code that runs.
//!
//! The rules are squawk's, by its names: what they say and how they are silenced in a file (`-- squawk-ignore RULE`) is on its pages.
//! Of its rules those are asked that tell of a danger while the migration runs or right after it. Left out is taste (`prefer-…`), what
//! safe-run sees to itself (transactions, timeouts, statements that must stand alone), and what squawk leaves out unless it is asked.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use squawk_linter::{Linter, Rule, Violation};
use squawk_syntax::SourceFile;

use crate::statement::Statement;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concern {
    /// Others wait while rows are read, checked or written anew. Nobody waits for a table that is not there yet.
    Waiting,
    /// It fails on rows that are there, or takes the rows of more than its table.
    Rows,
    /// Code that runs, and knows the schema as it was, stops working.
    Code,
}

/// The rules that are asked.
const RULES: [(Rule, Concern); 26] = [
    (Rule::AddingFieldWithDefault, Concern::Waiting),
    (Rule::AddingForeignKeyConstraint, Concern::Waiting),
    (Rule::AddingNotNullableField, Concern::Waiting),
    (Rule::AddingSerialPrimaryKeyField, Concern::Waiting),
    (Rule::BanAlterDomainWithAddConstraint, Concern::Waiting),
    (Rule::ChangingColumnType, Concern::Waiting),
    (Rule::ConstraintMissingNotValid, Concern::Waiting),
    (Rule::DisallowedUniqueConstraint, Concern::Waiting),
    (Rule::RequireConcurrentIndexCreation, Concern::Waiting),
    (Rule::RequireConcurrentIndexDeletion, Concern::Waiting),
    (Rule::RequireConcurrentPartitionDetach, Concern::Waiting),
    (Rule::RequireConcurrentReindex, Concern::Waiting),
    (Rule::AddingRequiredField, Concern::Rows),
    (Rule::BanTruncateCascade, Concern::Rows),
    (Rule::BanDropColumn, Concern::Code),
    (Rule::BanDropDomain, Concern::Code),
    (Rule::BanDropFunction, Concern::Code),
    (Rule::BanDropSchema, Concern::Code),
    (Rule::BanDropSequence, Concern::Code),
    (Rule::BanDropTable, Concern::Code),
    (Rule::BanDropType, Concern::Code),
    (Rule::BanDropView, Concern::Code),
    (Rule::BanSetSchema, Concern::Code),
    (Rule::RenamingColumn, Concern::Code),
    (Rule::RenamingObject, Concern::Code),
    (Rule::RenamingTable, Concern::Code),
];

/// A rule that a statement breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule, as squawk calls it.
    pub rule: String,
    /// What it is about.
    pub concern: Concern,
    /// The statement: its number in the file's list.
    pub statement: usize,
    /// Line in the file, from 1.
    pub line: u32,
    /// What happens.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

/// Looks at a whole file, which tells what it makes itself; `statements` are those of it that run. What our parser could not read is not
/// looked at, and nothing is found where squawk panics: the server is the judge of syntax.
pub fn lint(text: &str, statements: &[Statement], major: u32, in_transaction: bool) -> Vec<Finding> {
    let text = of_what_runs(text, statements);
    let asked = AssertUnwindSafe(|| {
        let mut linter = Linter::from(RULES.map(|(rule, _)| rule));
        if let Ok(version) = format!("{major}.0").parse() {
            linter.settings.pg_version = version;
        }
        linter.settings.assume_in_transaction = in_transaction;
        linter.lint(&SourceFile::parse(&text), &text)
    });
    let violations = catch_unwind(asked).unwrap_or_default();
    let mut found: Vec<Finding> =
        violations.into_iter().filter_map(|violation| finding(&violation, &text, statements)).collect();
    found.sort_by(|a, b| (a.statement, a.line, &a.rule).cmp(&(b.statement, b.line, &b.rule)));
    found.dedup();
    found
}

/// The file with blanks for all but its statements that were read and the lines of comment between them, each at its place: ways down, data
/// of COPY and what is nested too deep for a parser go.
fn of_what_runs(text: &str, statements: &[Statement]) -> String {
    let blank = |byte: u8| if byte == b'\n' { b'\n' } else { b' ' };
    let mut kept: Vec<u8> = text.bytes().map(blank).collect();
    let mut keep = |range: Range<usize>| kept[range.clone()].copy_from_slice(&text.as_bytes()[range]);
    let mut from = 0;
    for statement in statements {
        let range = statement.byte_range.clone();
        let gap = text.get(from..range.start).unwrap_or_default();
        for line in gap.split_inclusive('\n') {
            if line.trim_start().starts_with("--") && (from == 0 || text.as_bytes()[from - 1] == b'\n') {
                keep(from..from + line.len());
            }
            from += line.len();
        }
        if statement.class.unread.is_none() {
            keep(range.clone());
        }
        from = statement.copy_data.as_ref().map_or(range.end, |data| data.end.max(range.end));
    }
    for end in statements.iter().map(|statement| statement.byte_range.end) {
        match kept.get_mut(end) {
            Some(byte) => *byte = b';',
            None => kept.push(b';'),
        }
    }
    // What was kept are whole tokens and lines.
    String::from_utf8_lossy(&kept).into_owned()
}

/// One that is about a statement that runs: a way down is not looked at.
fn finding(violation: &Violation, text: &str, statements: &[Statement]) -> Option<Finding> {
    let at = usize::from(violation.text_range.start());
    let (_, concern) = RULES.iter().find(|(rule, _)| *rule == violation.code)?;
    let statement = statements.iter().position(|statement| statement.byte_range.contains(&at))?;
    let line = text.get(..at)?.matches('\n').count() + 1;
    Some(Finding {
        rule: violation.code.to_string(),
        concern: *concern,
        statement,
        line: u32::try_from(line).ok()?,
        message: one_line(&violation.message),
        help: violation.help.as_deref().map(one_line),
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement;

    fn rules(sql: &str) -> Vec<String> {
        let statements = statement::split(sql).unwrap();
        lint(sql, &statements, 18, true)
            .into_iter()
            .map(|found| format!("{}:{} {}", found.line, found.statement, found.rule))
            .collect()
    }

    #[test]
    fn what_keeps_others_waiting_fails_on_rows_or_breaks_code_is_found_by_squawks_names() {
        for (sql, expected) in [
            ("CREATE INDEX i ON t (a);", &["1:0 require-concurrent-index-creation"][..]),
            ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0);", &["1:0 constraint-missing-not-valid"]),
            ("ALTER TABLE t ALTER COLUMN a TYPE bigint;", &["1:0 changing-column-type"]),
            ("ALTER TABLE t\n  ALTER COLUMN a SET NOT NULL;", &["2:0 adding-not-nullable-field"]),
            ("ALTER TABLE t ADD COLUMN a int NOT NULL;", &["1:0 adding-required-field"]),
            (
                "ALTER TABLE t ADD COLUMN a timestamptz DEFAULT clock_timestamp();",
                &["1:0 adding-field-with-default"],
            ),
            ("ALTER TABLE t ADD COLUMN a int DEFAULT 5;", &[]),
            ("SELECT 1;\n\nDROP TABLE t;", &["3:1 ban-drop-table"]),
            ("ALTER TABLE t RENAME COLUMN a TO b;", &["1:0 renaming-column"]),
            // What the file makes itself keeps nobody waiting.
            ("CREATE TABLE t (a int); CREATE INDEX i ON t (a);", &[]),
            // Taste, timeouts, and what safe-run runs alone by itself.
            ("CREATE TABLE t (a varchar(5), b int, c timestamp);", &[]),
            ("CREATE INDEX CONCURRENTLY i ON t (a);", &[]),
            ("-- squawk-ignore ban-drop-table\nDROP TABLE t;", &[]),
        ] {
            assert_eq!(rules(sql), expected, "{sql}");
        }
    }

    #[test]
    fn the_page_names_every_rule() {
        let page = include_str!("../../../docs/plan.md");
        for (rule, _) in RULES {
            assert!(page.contains(&format!("`{rule}`")), "docs/plan.md does not name {rule}");
        }
    }

    #[test]
    fn what_does_not_run_is_not_looked_at() {
        let sql = "DROP TABLE a;\n-- down\nDROP TABLE b;";
        let statements = statement::split(sql).unwrap();
        let found = lint(sql, &statements[..1], 18, true);
        assert_eq!(found.iter().map(|found| found.line).collect::<Vec<_>>(), [1]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_ends_it(text in "(alter table|create index|\\$\\$|'|\\(|\\)|;|add|column| |x|,|--|/\\*){0,30}") {
            if let Ok(statements) = statement::split(&text) {
                lint(&text, &statements, 14, false);
            }
        }
    }
}
