use chrono::DateTime;
use common::QualifiedName;
use proptest::prelude::*;

use super::*;
use crate::{
    report::migrations::{MigrationReport, StatementReport},
    report::{
        CommandReport, ErrorReport, Phase, SnapshotReport, UndoReport, document,
        tables::{TableChange, TableRows},
    },
    statement_facts::{LockTaken, TableFootprint},
    version_tables::VersionTable,
};
use checks::{CheckKind, Comparison, FailOn, LostStatistics, RowComparison, RowFinding, Severity, Skipped};

/// A report that has something in every field, with `said` wherever text from outside can stand.
fn full(said: &str) -> Report {
    let said = || said.to_owned();
    let mut report = Report::new(said(), Mode::Transaction, DateTime::UNIX_EPOCH);
    report.run = said();
    report.tool_version = said();
    report.server_version = said();
    report.host = said();
    report.user = said();
    report.database_url = said();
    report.repository = said();
    report.invocation = said();
    report.headline = said();
    report.state = said();
    report.protection = vec![said()];
    report.utc_offset_seconds = 5400;
    report.seconds = 12.5;
    report.fence_seconds = Some(10.0);
    report.snapshot = Some(said());
    report.snapshot_facts = Some(SnapshotReport {
        sha256: said(),
        taken_at: DateTime::UNIX_EPOCH,
        tables: 1,
        rows: 2,
        stored_bytes: 3,
    });
    report.pending = 2;
    let footprint =
        TableFootprint { locks: vec![LockTaken { table: said(), mode: said() }], rewritten: vec![said()] };
    let statement = StatementReport {
        line: 1,
        summary: said(),
        text: format!("-{}", said()),
        rows: 1,
        seconds: 0.001,
        footprint: footprint.clone(),
        warnings: vec![said()],
    };
    report.migrations = vec![
        MigrationReport {
            version: said(),
            file: said(),
            started_seconds: 1.0,
            seconds: 2.0,
            complete: false,
            statements: vec![statement.clone()],
            failed: Some(statement),
            statements_planned: 3,
            footprint,
        };
        2
    ];
    report.command = Some(CommandReport {
        command: said(),
        exit_code: Some(1),
        seconds: 1.0,
        sessions: 1,
        replaced: false,
        version_tables: vec![VersionTable {
            tool: said(),
            table: said(),
            before: Some(1),
            after: None,
            newest_before: Some(said()),
            newest_after: None,
            added: vec![said()],
            removed: vec![said()],
        }],
    });
    report.phases = ["fence", "migrations", &said()]
        .map(|name| Phase { name: name.to_owned(), started_seconds: 0.5, seconds: 1.0 })
        .to_vec();
    let finding: serde_json::Value = serde_json::json!({
        "check": CheckKind::ForeignKeys, "object_oid": 1, "rule_oid": 1, "rule": said(), "object": said(),
        "severity": Severity::Failure, "definition": said(), "count": 1, "key_hash": "", "detail": said(),
        "sample_keys": vec![said(); 10], "repair_sql": said(),
    });
    let findings = || vec![serde_json::from_value(finding.clone()).unwrap()];
    report.findings = Some(Comparison {
        new: findings(),
        pre_existing: findings(),
        resolved: findings(),
        notes: findings(),
        lost_statistics: vec![LostStatistics {
            table: QualifiedName::new(said(), said()),
            columns: vec![said()],
        }],
        fail_on: FailOn::New,
    });
    report.checked = vec![CheckKind::Rows];
    report.skipped =
        vec![Skipped { check: CheckKind::Rows, object: said(), why: said(), counts_for_strict: true }];
    let change =
        |severity| RowFinding { oid: 1, table: said(), before: 2, after: 1, severity, detail: said() };
    report.rows = Some(RowComparison {
        changes: vec![change(Severity::Failure), change(Severity::Note)],
        not_compared: vec![said()],
        rows_before: 2,
        rows_after: 1,
        tables: 1,
    });
    report.tables = vec![TableRows {
        table: said(),
        renamed_from: Some(said()),
        before: Some(2),
        after: Some(1),
        change: TableChange::Fewer,
    }];
    report.notes = vec![said()];
    report.account =
        common::Account { missing: vec![said()], not_checked: vec![said()], differs: vec![said()] };
    let error = || ErrorReport { message: said(), hint: Some(said()), sqlstate: Some(said()) };
    report.error = Some(error());
    report.undo = Some(UndoReport {
        how: "restore",
        seconds: 1.0,
        failed_database_kept_as: Some(said()),
        error: Some(error()),
    });
    report.verdict = Verdict::Stopped;
    report.next = vec![said()];
    report
}

/// Every tag of the page, with its attributes, in order.
fn tags(page: &str) -> Vec<&str> {
    page.match_indices('<')
        .map(|(start, _)| &page[start..start + page[start..].find('>').expect("each tag is closed") + 1])
        .filter(|tag| !tag.starts_with("<span>") && *tag != "</span>")
        .collect()
}

proptest! {
    #[test]
    fn text_from_outside_adds_no_markup_and_no_character_that_can_not_be_seen(
        said in r#"([ -~]|[\x00-\x1f\x7f]|\PC|[\u{80}-\u{9f}\u{200b}-\u{2069}\u{feff}]|</?script>|<!--|-->|<\?|]]>|&lt;|"|'|</style>){1,40}"#
    ) {
        let page = page(&full(&said));
        let harmless = super::page(&full("x"));
        prop_assert!(tags(&page) == tags(&harmless), "the markup depends on {said:?}");
        let unseen = |c: char| (c.is_control() && c != '\n' && c != '\t') || ('\u{200b}'..='\u{200f}').contains(&c)
            || ('\u{2028}'..='\u{202e}').contains(&c) || ('\u{2060}'..='\u{206f}').contains(&c);
        prop_assert!(!page.contains(unseen));
    }

    #[test]
    fn a_report_reads_back_as_it_was_written(said in "\\PC{0,20}") {
        let report = full(&said);
        let read = document::from_json(&document::to_json(&report).unwrap()).unwrap();
        prop_assert!(page(&read) == page(&report));
    }
}

#[test]
fn the_page_allows_nothing_but_its_own_style() {
    let page = page(&full("x"));
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let policy = format!("style-src 'sha256-{}'", base64(&common::digest::sha256(style.as_bytes())));
    assert!(page.contains("default-src 'none'") && page.contains(&policy));
    for forbidden in
        ["<script", "<link", "<img", "<iframe", "style=", "src=", "href=", "url(", "@import", "http"]
    {
        let found = page.replace("http-equiv", "").find(forbidden);
        assert!(found.is_none(), "{forbidden} is in the page");
    }
}

#[test]
fn base64_is_the_usual_one() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}

#[test]
fn every_verdict_has_its_word_first_as_on_the_terminal() {
    for verdict in Verdict::ALL {
        let mut report = full("x");
        report.verdict = verdict;
        let body = page(&report).split_once("<main>").unwrap().1.to_owned();
        assert!(body.find(verdict.word()).unwrap() < body.find("Took").unwrap());
        let spoken = report.text(true, |_, word| word.to_owned());
        assert!(spoken.starts_with(verdict.word()));
    }
}

#[test]
fn long_lists_are_cut_and_say_so() {
    let mut report = full("x");
    report.tables = vec![report.tables[0].clone(); 1000];
    report.notes = vec!["a note".to_owned(); 1000];
    report.migrations = vec![report.migrations[0].clone(); 200];
    report.migrations[0].statements = vec![report.migrations[0].statements[0].clone(); 5000];
    report.findings.as_mut().unwrap().new = vec![report.findings.as_ref().unwrap().new[0].clone(); 1000];
    let page = page(&report);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    for said in ["775 more tables", "and 800 more", "4,700 statements more", "the slowest of 200 files"] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn a_run_without_checks_claims_nothing_about_them() {
    let report = Report::new("d".to_owned(), Mode::Transaction, DateTime::UNIX_EPOCH);
    assert!(!page(&report).contains("Every check passed"));
}
