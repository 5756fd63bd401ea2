//! Violations on the page, the failing ones first: the sentence, sample keys, SQL that would repair it. Pure.

use common::html::text;

use super::{SHOWN, heading};
use crate::report::Report;
use checks::{Finding, RowFinding, SENTENCE_KEYS, Severity, Skipped};

/// What the checks found.
pub fn section(report: &Report) -> String {
    let mut out = String::new();
    let mut group = |title: &str, class: &str, tag: &str, items: Vec<String>, open: bool| {
        if items.is_empty() {
            return;
        }
        let count = items.len();
        let shown: String = items
            .into_iter()
            .take(SHOWN)
            .map(|item| {
                format!("<li class=\"finding{class}\"><span class=\"tag\">{tag}</span> {item}</li>\n")
            })
            .collect();
        let more = match count.saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("<p class=\"keys\">and {more} more, in the JSON report</p>\n"),
        };
        let list = format!("<ul>\n{shown}</ul>\n{more}");
        if open {
            out.push_str(&format!("<h3>{title}</h3>\n{list}"));
        } else {
            out.push_str(&format!(
                "<details><summary><b>{title}</b> ({count})</summary>\n{list}</details>\n"
            ));
        }
    };
    let (mut failing, mut losses, mut shown_only) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(found) = &report.findings {
        failing.extend(found.failing().map(finding));
        if !found.fails() {
            shown_only.extend(found.new.iter().map(finding));
        }
    }
    if let Some(rows) = &report.rows {
        losses.extend(rows.failing().map(row_finding));
        let notes = rows.changes.iter().filter(|change| change.severity == Severity::Note);
        let notes: Vec<String> = notes.map(row_finding).collect();
        group("Why it failed", " bad", "Violation:", std::mem::take(&mut failing), true);
        group("Rows that may not go", " bad", "Loss:", std::mem::take(&mut losses), true);
        group("Rows that came or went as expected", "", "Rows:", notes, notes_are_few(rows.changes.len()));
    }
    group("Why it failed", " bad", "Violation:", failing, true);
    group("New, and not failing", " warn", "New:", shown_only, true);
    if let Some(found) = &report.findings {
        let as_before =
            if found.fail_on == checks::FailOn::Any { Vec::new() } else { all(&found.pre_existing) };
        group("There before", " warn", "Before:", as_before, false);
        group("Resolved by this run", " good", "Resolved:", all(&found.resolved), false);
        group("Advice", "", "Advice:", all(&found.notes), false);
    }
    if out.is_empty() {
        return match &report.findings {
            Some(_) => {
                let phrase = report.checks_phrase();
                let (first, rest) = phrase.split_at(1);
                format!(
                    "<section>\n{}<p>{}{}.</p>\n</section>\n",
                    heading("Checks"),
                    first.to_uppercase(),
                    text(rest)
                )
            }
            None => String::new(),
        };
    }
    format!("<section>\n{}{out}</section>\n", heading("Checks"))
}

fn notes_are_few(count: usize) -> bool {
    count <= 5
}

fn all(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(finding).collect()
}

fn row_finding(change: &RowFinding) -> String {
    text(&change.detail)
}

fn finding(finding: &Finding) -> String {
    /// Longest key on the page, in characters: a key may be a document.
    const KEY_CHARS: usize = 120;
    let mut out = text(&finding.detail);
    if finding.sample_keys.len() > SENTENCE_KEYS {
        let keys: Vec<String> = finding
            .sample_keys
            .iter()
            .map(|key| {
                let mut shown: String = key.chars().take(KEY_CHARS).collect();
                if shown.len() < key.len() {
                    shown.push('…');
                }
                format!("<code>{}</code>", text(&shown))
            })
            .collect();
        out.push_str(&format!("<p class=\"keys\">Keys, for example: {}</p>", keys.join(" ")));
    }
    if let Some(repair) = &finding.repair_sql {
        out.push_str(&format!(
            "<details><summary>SQL that would repair it (not run)</summary><pre class=\"sql\"><code>{}</code></pre></details>",
            text(repair)
        ));
    }
    out
}

/// What is missing, what differs, and what could not be checked.
pub fn unchecked(report: &Report) -> String {
    let skipped = report.skipped.iter().map(Skipped::phrase);
    let not_checked: Vec<String> = report.account.not_checked.iter().cloned().chain(skipped).collect();
    let account = &report.account;
    [("Missing", &account.missing), ("Differs", &account.differs), ("Not checked", &not_checked)]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(title, list)| format!("<section>\n{}{}</section>\n", heading(title), super::sentences(list)))
        .collect()
}
