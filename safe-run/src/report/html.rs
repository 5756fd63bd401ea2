//! A report as one page that needs nothing else: no script, no font, no picture from outside, and a content security policy
//! that would refuse them. Pure.
//!
//! For a person who wants to know in this order: what happened, what state the database is in, what to do next, why.

mod findings;
mod import;
mod migrations;
mod timeline;

use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};
use common::{format, html::text};

use super::{Report, Verdict, follow_up};
use crate::{journal::Mode, version_tables::VersionTable};

const STYLE: &str = include_str!("html/style.css");

/// Longest list of tables, of notes, or of versions on the page; the JSON has all.
const SHOWN: usize = 200;

/// The whole page.
pub fn page(report: &Report) -> String {
    let title = format!("{} · {} · safe-run", report.verdict.word(), report.database);
    let sections = [
        facts(report),
        next(report),
        findings::unchecked(report),
        findings::section(report),
        notes(report),
        timeline::section(report),
        command(report),
        import::section(report),
        rows(report),
        migrations::section(report),
        protection(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{}'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{}{}</main>\n{}</body>\n</html>\n",
        base64(&common::digest::sha256(STYLE.as_bytes())),
        text(&title),
        verdict(report),
        sections.concat(),
        footer(report),
    )
}

/// The style's hash as the content security policy wants it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    out
}

/// `0.4 ms`, `12 ms`, `3.4 s`: tiny migrations differ in fractions of a millisecond.
fn seconds(seconds: f64) -> String {
    if (0.0..0.00995).contains(&seconds) {
        return format!("{:.1} ms", seconds * 1000.0);
    }
    format::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// `1,204`, `−3`.
fn signed(number: i64) -> String {
    let digits = format::count(number.unsigned_abs());
    if number < 0 { format!("\u{2212}{digits}") } else { digits }
}

fn heading(title: &str) -> String {
    format!("<h2>{title}</h2>\n")
}

fn verdict(report: &Report) -> String {
    let (class, icon) = match report.verdict {
        Verdict::Committed | Verdict::UpToDate => ("good", "M4 12.5l5 5L20 6.5"),
        Verdict::RolledBack | Verdict::Restored => ("warn", "M9 5L4 10l5 5M4 10h10a5 5 0 0 1 0 10h-4"),
        Verdict::Stopped => ("warn", "M9 5v14M15 5v14"),
        Verdict::Failed | Verdict::NotConnected => ("bad", "M6 6l12 12M18 6L6 18"),
        Verdict::Unknown => ("bad", "M8 9a4 4 0 1 1 5.5 3.7c-1 .5-1.5 1.2-1.5 2.3M12 19v.5"),
    };
    let mut out = format!(
        "<header class=\"verdict {class}\">\n<h1><svg viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" \
         stroke-width=\"2.5\" stroke-linecap=\"round\" stroke-linejoin=\"round\" aria-hidden=\"true\">\
         <path d=\"{icon}\"/></svg>{}</h1>\n<p class=\"headline\">{}</p>\n",
        report.verdict.word(),
        text(&report.headline)
    );
    if !report.state.is_empty() {
        out.push_str(&format!("<p class=\"state\">{}</p>\n", text(&report.state)));
    }
    if let Some(hint) = report.error.as_ref().and_then(|error| error.hint.as_ref()) {
        out.push_str(&format!("<p class=\"hint\"><b>Hint:</b> {}</p>\n", text(hint)));
    }
    if let Some(error) = report.undo.as_ref().and_then(|undo| undo.error.as_ref()) {
        let hint = error.hint.as_ref().map_or(String::new(), |hint| format!(" {}", text(hint)));
        out.push_str(&format!(
            "<p class=\"undo-failed\"><b>The undo failed:</b> {}.{hint}</p>\n",
            text(&error.message)
        ));
    }
    out + "</header>\n"
}

/// `2026-11-21 09:21:04 UTC`, and the local time where the run ran if that is another one.
fn moment(at: DateTime<Utc>, utc_offset_seconds: i32) -> String {
    let utc = at.format("%Y-%m-%d %H:%M:%S UTC");
    let local = FixedOffset::east_opt(utc_offset_seconds)
        .filter(|_| utc_offset_seconds != 0)
        .map(|offset| at.with_timezone(&offset).format("%Y-%m-%d %H:%M:%S %:z").to_string())
        .map_or(String::new(), |local| format!("<small>{local} local time</small>"));
    format!("<time datetime=\"{}\">{utc}</time>{local}", at.format("%Y-%m-%dT%H:%M:%SZ"))
}

fn facts(report: &Report) -> String {
    let mut facts: Vec<(&str, String)> = Vec::new();
    let at = if report.host.is_empty() { String::new() } else { format!(" on {}", text(&report.host)) };
    let role = if report.user.is_empty() {
        String::new()
    } else {
        format!("<small>as role {}</small>", text(&report.user))
    };
    if !report.database.is_empty() {
        facts.push(("Database", format!("{}{at}{role}", text(&report.database))));
    }
    facts.push(("Began", moment(report.started_at, report.utc_offset_seconds)));
    facts.push(("Took", seconds(report.seconds)));
    match (report.fence_seconds, report.mode) {
        (Some(fence), Mode::Transaction) => facts.push((
            "Writers waited",
            format!("at most {}<small>the fence stood that long</small>", seconds(fence)),
        )),
        (Some(fence), Mode::Restore) if report.fence_held => facts.push((
            "Writers are refused",
            format!(
                "until <code>safe-run release</code><small>the fence is held; it had stood for {} when the run ended</small>",
                seconds(fence)
            ),
        )),
        (Some(fence), Mode::Restore) => facts.push((
            "Writers were refused",
            format!("for {}<small>the fence stood that long</small>", seconds(fence)),
        )),
        // Without phases it was no run, and there is nothing to tell about a fence.
        (None, _) if report.phases.is_empty() => {}
        (None, _) => facts.push(("Writers waited", "not at all<small>no fence stood</small>".to_owned())),
    }
    let snapshot = report.snapshot.as_ref().map(|id| {
        let size = report.snapshot_facts.as_ref().map_or(String::new(), |facts| {
            format!(
                "<small>{}, {}, {} on disk</small><small>SHA-256 of its manifest <code>{}</code></small>",
                format::plural(facts.tables, "table", "tables"),
                format::plural(facts.rows, "row", "rows"),
                format::bytes(facts.stored_bytes),
                text(&facts.sha256)
            )
        });
        format!("<code>{}</code>{size}", text(id))
    });
    if let Some(import) = &report.import {
        facts.push(("Imported", format!("{}<small>from {}</small>", import.amount(), text(&import.file))));
    } else if report.command.is_none() && report.verdict != Verdict::UpToDate {
        let complete = report.migrations.iter().filter(|migration| migration.complete).count();
        facts.push(("Migrations", format!("{complete} of {} ran", report.pending)));
    }
    let rows = super::tables::totals(&report.tables);
    if rows.tables > 0 {
        facts.push((
            "Rows",
            format!(
                "{} before, {} after<small>of {} compared</small>",
                signed(rows.before),
                signed(rows.after),
                format::plural(rows.tables as u64, "table", "tables")
            ),
        ));
    }
    facts.push(("Exit code", report.exit_code.to_string()));
    let versions = if report.server_version.is_empty() {
        String::new()
    } else {
        format!("PostgreSQL {}, ", text(&report.server_version))
    };
    facts.push(("Versions", format!("{versions}safe-run {}", text(&report.tool_version))));
    let mut items: String =
        facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")).collect();
    if let Some(snapshot) = snapshot {
        items.push_str(&format!(
            "<div class=\"wide\"><dt>Snapshot of the state before</dt><dd>{snapshot}</dd></div>\n"
        ));
    }
    format!("<dl class=\"facts\">\n{items}</dl>\n")
}

fn next(report: &Report) -> String {
    let commands = follow_up::follow_ups(report);
    if commands.is_empty() {
        return String::new();
    }
    let items: String = commands
        .iter()
        .map(|step| {
            // Lines break between words only, never within a flag.
            let words: Vec<String> =
                step.command.split(' ').map(|word| format!("<span>{}</span>", text(word))).collect();
            format!("<li>{}<pre><code>{}</code></pre></li>\n", text(&step.purpose), words.join(" "))
        })
        .collect();
    let which = "<small>No password is in these lines: PGPASSWORD or .pgpass can give it.</small>\n";
    format!(
        "<section>\n{}{which}<ol class=\"next\">\n{items}</ol>\n</section>\n",
        heading("What you can do now")
    )
}

/// A list of sentences; a long one is cut.
fn sentences(list: &[String]) -> String {
    let mut items: String =
        list.iter().take(SHOWN).map(|line| format!("<li>{}</li>\n", text(line))).collect();
    if list.len() > SHOWN {
        items.push_str(&format!("<li>and {} more, in the JSON report</li>\n", list.len() - SHOWN));
    }
    format!("<ul class=\"notes\">\n{items}</ul>\n")
}

fn notes(report: &Report) -> String {
    if report.notes.is_empty() {
        return String::new();
    }
    format!("<section>\n{}{}</section>\n", heading("Good to know"), sentences(&report.notes))
}

fn protection(report: &Report) -> String {
    if report.protection.is_empty() {
        return String::new();
    }
    let undo = match report.mode {
        Mode::Transaction => "everything in one transaction: the undo is a ROLLBACK",
        Mode::Restore => "not in one transaction: the undo restores the snapshot",
    };
    let list: Vec<String> =
        std::iter::once(undo.to_owned()).chain(report.protection.iter().cloned()).collect();
    format!("<section>\n{}{}</section>\n", heading("How the database was protected"), sentences(&list))
}

fn command(report: &Report) -> String {
    let Some(command) = &report.command else { return String::new() };
    let ended = match command.exit_code {
        Some(code) => format!("exit code {code}"),
        None => "no exit code".to_owned(),
    };
    let sessions = format::plural(command.sessions, "session", "sessions");
    let tables: String = command.version_tables.iter().map(version_table).collect();
    let table = if tables.is_empty() {
        String::new()
    } else {
        format!(
            "<table>\n<caption class=\"unseen\">History tables before and after the command</caption>\n<thead><tr>\
             <th scope=\"col\">History</th><th scope=\"col\" class=\"number\">Before</th>\
             <th scope=\"col\" class=\"number\">After</th><th scope=\"col\">Changes</th></tr></thead>\n\
             <tbody>\n{tables}</tbody>\n</table>\n"
        )
    };
    format!(
        "<section>\n{}<pre class=\"sql\"><code>{}</code></pre>\n<p class=\"keys\">{ended} after {}, {sessions} on the \
         database</p>\n{table}</section>\n",
        heading("The command"),
        text(&command.command),
        seconds(command.seconds)
    )
}

fn version_table(table: &VersionTable) -> String {
    let count = |rows: Option<usize>| rows.map_or("no table".to_owned(), |rows| format::count(rows as u64));
    let names = |word: &str, versions: &[String]| {
        let shown: Vec<String> =
            versions.iter().take(SHOWN).map(|version| format!("<code>{}</code>", text(version))).collect();
        let more = if versions.len() > SHOWN { ", …" } else { "" };
        if shown.is_empty() { String::new() } else { format!("{word} {}{more}", shown.join(", ")) }
    };
    let changes: Vec<String> = [names("added", &table.added), names("removed", &table.removed)]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    format!(
        "<tr><th scope=\"row\"><span class=\"mono\">{}</span><br><small>{}</small></th><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td><td>{}</td></tr>\n",
        text(&table.table),
        text(&table.tool),
        count(table.before),
        count(table.after),
        if changes.is_empty() { "none".to_owned() } else { changes.join("; ") }
    )
}

fn rows(report: &Report) -> String {
    use super::tables::TableChange as Change;
    if report.tables.is_empty() {
        return String::new();
    }
    let line = |table: &super::tables::TableRows| {
        let count = |rows: Option<i64>| rows.map_or("–".to_owned(), signed);
        let difference = table.after.unwrap_or(0) - table.before.unwrap_or(0);
        let (class, change) = match table.change {
            Change::Gone => ("", format!("<span class=\"loss\">dropped, {}</span>", signed(difference))),
            Change::Fewer => ("", format!("<span class=\"loss\">{}</span>", signed(difference))),
            Change::More => ("", format!("<span class=\"gain\">+{}</span>", signed(difference))),
            Change::New => ("", "<span class=\"gain\">new table</span>".to_owned()),
            Change::NotCounted => ("", "not counted".to_owned()),
            Change::Same => (" class=\"same\"", "same".to_owned()),
            Change::Untouched => (" class=\"same\"", "untouched".to_owned()),
        };
        let renamed = table
            .renamed_from
            .as_ref()
            .map_or(String::new(), |old| format!("<br><small>was {}</small>", text(old)));
        format!(
            "<tr{class}><th scope=\"row\"><span class=\"mono\">{}</span>{renamed}</th><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{change}</td></tr>\n",
            text(&table.table),
            count(table.before),
            count(table.after)
        )
    };
    /// Tables that are seen at once; the rest opens on demand.
    const AT_ONCE: usize = 25;
    let head = "<thead><tr><th scope=\"col\">Table</th><th scope=\"col\" class=\"number\">Before</th>\
                <th scope=\"col\" class=\"number\">After</th><th scope=\"col\" class=\"number\">Change</th></tr></thead>";
    let table = |caption: &str, tables: &[super::tables::TableRows]| {
        let lines: String = tables.iter().map(line).collect();
        format!(
            "<table class=\"rows\">\n<caption class=\"unseen\">{caption}</caption>\n{head}\n<tbody>\n{lines}</tbody>\n</table>\n"
        )
    };
    let (first, rest) = report.tables.split_at(report.tables.len().min(AT_ONCE));
    let mut shown = table("Rows of each table before and after", first);
    let rest = &rest[..rest.len().min(SHOWN)];
    if !rest.is_empty() {
        shown.push_str(&format!(
            "<details><summary>{} more</summary>\n{}</details>\n",
            format::plural(rest.len() as u64, "table", "tables"),
            table("Rows of the other tables before and after", rest)
        ));
    }
    let more = match report.tables.len().saturating_sub(AT_ONCE + SHOWN) {
        0 => String::new(),
        more => format!("<p class=\"keys\">and {more} more tables, in the JSON report</p>\n"),
    };
    let super::tables::Totals { tables: counted, changed, .. } = super::tables::totals(&report.tables);
    let undone = match report.verdict {
        Verdict::RolledBack | Verdict::Restored => " The change was undone.",
        _ => "",
    };
    let summary = format!(
        "<small>The number of rows changed in {changed} of {}.{undone}</small>\n",
        format::plural(counted as u64, "table that was counted", "tables that were counted")
    );
    format!("<section>\n{}{summary}{shown}{more}</section>\n", heading("Rows"))
}

fn footer(report: &Report) -> String {
    let run = if report.run.is_empty() {
        String::new()
    } else {
        format!("Run <code>{}</code> · ", text(&report.run))
    };
    format!("<footer>{run}safe-run {}</footer>\n", text(&report.tool_version))
}

#[cfg(test)]
mod tests;
