//! What was imported: the file, its tables, and what could not be taken over. Pure.

use common::{format, html::text};

use super::{SHOWN, heading, seconds};
use crate::report::{Report, import::ImportReport};

/// The section; empty for other runs.
pub fn section(report: &Report) -> String {
    let Some(import) = &report.import else { return String::new() };
    let wal = import
        .wal_sha256
        .as_ref()
        .map_or(String::new(), |wal| format!(" · with its -wal, SHA-256 <code>{}</code>", text(wal)));
    let rows: String = import
        .tables
        .iter()
        .map(|table| {
            let state = if table.verified {
                "<span class=\"pill good\">read back, equal</span>"
            } else if table.bad_rows > 0 {
                "<span class=\"pill bad\">bad values</span>"
            } else {
                "not compared"
            };
            format!(
                "<tr><td class=\"mono\">{}</td><td class=\"mono\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td>{state}<small><code>{}</code></small></td><td class=\"number\">{}</td></tr>\n",
                text(&table.source),
                text(&table.table),
                format::count(table.rows),
                format::count(table.loaded),
                text(&table.hash),
                seconds(table.seconds)
            )
        })
        .collect();
    format!(
        "<section>\n{}<p><span class=\"mono\">{}</span> · {} · SHA-256 <code>{}</code>{wal}</p>\n<table>\n\
         <caption class=\"unseen\">Imported tables</caption>\n<thead><tr><th scope=\"col\">SQLite</th><th scope=\"col\">PostgreSQL</th>\
         <th scope=\"col\" class=\"number\">Rows in the file</th><th scope=\"col\" class=\"number\">Loaded</th>\
         <th scope=\"col\">Values and their hash</th><th scope=\"col\" class=\"number\">Time</th></tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table>\n{}</section>\n",
        heading("Import"),
        text(&import.file),
        format::bytes(import.file_bytes),
        text(&import.sha256),
        below(import)
    )
}

fn below(import: &ImportReport) -> String {
    let mut lines: Vec<String> =
        import.left_alone.iter().map(|left| format!("not imported: {left}")).collect();
    lines.extend(import.bad_values.iter().map(|bad| format!("bad value: {}", bad.sentence())));
    if let (Some(table), Some(file)) = (&import.quarantine_table, &import.quarantine_file) {
        let rows = format::plural(import.quarantined, "row", "rows");
        lines.push(format!("quarantine: {rows}, in table {table} and in {file}"));
    }
    if lines.is_empty() {
        return String::new();
    }
    let items: String = lines.iter().take(SHOWN).map(|line| format!("<li>{}</li>\n", text(line))).collect();
    format!("<ul>\n{items}</ul>\n")
}
