//! Each file with its statements: what ran, how long, how many rows, which locks. Pure.

use common::{format, html::text};

use super::{heading, seconds};
use crate::{
    journal::Mode,
    report::Report,
    report::migrations::{MigrationReport, StatementReport},
    statement_facts::TableFootprint,
};

/// Most files that are open when the page is opened.
const OPEN: usize = 5;

/// Most statements of one file on the page; the JSON has all.
const STATEMENTS: usize = 300;

/// The files that ran.
pub fn section(report: &Report) -> String {
    if report.migrations.is_empty() {
        return String::new();
    }
    let few = report.migrations.len() <= OPEN;
    let files: String = report.migrations.iter().map(|file| migration(file, few || !file.complete)).collect();
    let not_reached = report.pending.saturating_sub(report.migrations.len());
    let rest = if not_reached > 0 {
        format!(
            "<p class=\"keys\">{} did not run.</p>\n",
            format::plural(not_reached as u64, "further migration", "further migrations")
        )
    } else {
        String::new()
    };
    let class = if few { "" } else { " class=\"many\"" };
    let held = match (report.mode, report.fence_seconds) {
        (Mode::Transaction, Some(_)) => {
            "<p class=\"keys\">The fence held an EXCLUSIVE lock on every table from the start; below are the locks beyond it.</p>\n"
        }
        _ => "",
    };
    format!("<section>\n{}{held}<div{class}>\n{files}</div>\n{rest}</section>\n", heading("Migrations"))
}

fn migration(file: &MigrationReport, open: bool) -> String {
    let ran = file.statements.len();
    let rows: u64 = file.statements.iter().map(|statement| statement.rows).sum();
    let what = match &file.failed {
        Some(failed) => format!("<span class=\"pill bad\">failed in line {}</span>", failed.line),
        None if !file.complete => "<span class=\"pill bad\">stopped</span>".to_owned(),
        None => format!(
            "{}, {}",
            format::plural(ran as u64, "statement", "statements"),
            format::plural(rows, "row", "rows")
        ),
    };
    let statements: String = file
        .statements
        .iter()
        .take(STATEMENTS)
        .map(|told| statement(told, false))
        .chain(file.failed.iter().map(|told| statement(told, true)))
        .collect();
    let mut below = String::new();
    if ran > STATEMENTS {
        below.push_str(&format!(
            "<p class=\"keys\">{} more, in the JSON report</p>",
            format::plural((ran - STATEMENTS) as u64, "statement", "statements")
        ));
    }
    let reached = ran + usize::from(file.failed.is_some());
    if !file.complete && file.statements_planned > reached {
        below.push_str(&format!(
            "<p class=\"keys\">{} did not run.</p>",
            format::plural(
                (file.statements_planned - reached) as u64,
                "further statement",
                "further statements"
            )
        ));
    }
    if !file.footprint.is_empty() {
        below.push_str(&format!("<p class=\"keys\">Within this file: {}</p>", footprint(&file.footprint)));
    }
    format!(
        "<details class=\"migration\"{}>\n<summary><span class=\"file\">{}</span><span class=\"what dim\">{what}</span>\
         <span class=\"took\">{}</span></summary>\n<div><table>\n<caption class=\"unseen\">Statements</caption>\n<thead><tr>\
         <th scope=\"col\" class=\"number\">Line</th><th scope=\"col\">Statement</th><th scope=\"col\" class=\"number\">Rows</th>\
         <th scope=\"col\" class=\"number\">Time</th></tr></thead>\n<tbody>\n{statements}</tbody>\n</table>{below}</div>\n</details>\n",
        if open { " open" } else { "" },
        text(&file.file),
        seconds(file.seconds)
    )
}

fn statement(told: &StatementReport, failed: bool) -> String {
    let sql = if told.text.is_empty() {
        format!("<code>{}</code>", text(&told.summary))
    } else {
        format!(
            "<details><summary><code>{}</code></summary><pre><code>{}</code></pre></details>",
            text(&told.summary),
            text(&told.text)
        )
    };
    let mut below = String::new();
    if failed {
        below.push_str("<small><span class=\"pill bad\">failed here</span></small>");
    }
    if !told.footprint.is_empty() {
        below.push_str(&format!("<small>{}</small>", footprint(&told.footprint)));
    }
    for warning in &told.warnings {
        below.push_str(&format!("<small><span class=\"pill warn\">note</span> {}</small>", text(warning)));
    }
    format!(
        "<tr{}><td class=\"number\">{}</td><td>{sql}{below}</td><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td></tr>\n",
        if failed { " class=\"failed\"" } else { "" },
        told.line,
        if failed { "–".to_owned() } else { format::count(told.rows) },
        seconds(told.seconds)
    )
}

fn footprint(footprint: &TableFootprint) -> String {
    let mut parts: Vec<String> = footprint
        .locks
        .iter()
        .map(|lock| format!("{} on <span class=\"mono\">{}</span>", text(&lock.mode), text(&lock.table)))
        .collect();
    if !parts.is_empty() {
        parts[0].insert_str(0, "lock ");
    }
    if !footprint.rewritten.is_empty() {
        let tables: Vec<String> = footprint
            .rewritten
            .iter()
            .map(|table| format!("<span class=\"mono\">{}</span>", text(table)))
            .collect();
        parts.push(format!("<span class=\"pill warn\">rewritten</span> {}", tables.join(", ")));
    }
    parts.join(" · ")
}
