//! dbmate: `<digits>….sql` with the sections `-- migrate:up` and `-- migrate:down`; files run in the order of their names.

use crate::{
    section::Sections,
    statement::ParseProblem,
    version::{FileName, Version},
};

/// The history table.
pub const TABLE: &str = "schema_migrations";

/// Reads a file's name; the version is the digits as text.
pub(crate) fn file_name(name: &str) -> FileName {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    match name[digits..].strip_suffix(".sql") {
        Some(rest) if digits > 0 => FileName::Migration {
            version: Version::text(&name[..digits]),
            description: rest.trim_start_matches(['_', '-']).replace('_', " "),
        },
        _ => FileName::Ignored,
    }
}

/// What follows `-- migrate:up` in a line that is that marker. dbmate wants the dashes in the first column.
fn marker<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let rest = line.strip_prefix("--")?.trim_start().strip_prefix(word)?;
    (rest.trim().is_empty() || rest.starts_with(char::is_whitespace)).then_some(rest.trim())
}

/// Finds the ways up; a file may have several pairs.
pub(crate) fn sections(sql: &str) -> Result<Sections, ParseProblem> {
    let problem = |line: usize, message: String, hint: &str| ParseProblem {
        line: line as u32 + 1,
        column: 1,
        message,
        hint: hint.to_owned(),
    };
    let mut found =
        Sections { up: Vec::new(), no_transaction: None, warnings: Vec::new(), has_sections: true };
    let mut up_from = None;
    let (mut has_up, mut has_down) = (false, false);
    let mut at = 0;
    for (index, line) in sql.split_inclusive('\n').enumerate() {
        if let Some(options) = marker(line, "migrate:up") {
            if let Some(start) = up_from.take() {
                found.up.push(start..at);
            }
            if options.split_whitespace().any(|option| option == "transaction:false") {
                found.no_transaction.get_or_insert(format!("line {}: `{}`", index + 1, line.trim()));
            }
            has_up = true;
            up_from = Some(at + line.len());
        } else if marker(line, "migrate:down").is_some() {
            has_down = true;
            match up_from.take() {
                Some(start) => found.up.push(start..at),
                None => {
                    return Err(problem(
                        index,
                        "`-- migrate:down` without a `-- migrate:up` before it".to_owned(),
                        "dbmate refuses such a file too: put the way up above the way down.",
                    ));
                }
            }
        } else if !has_up && !line.trim().is_empty() && !line.trim_start().starts_with("--") {
            return Err(problem(
                index,
                format!("`{}` stands before `-- migrate:up`", line.trim()),
                "dbmate refuses such a file too: move it below the marker.",
            ));
        }
        at += line.len();
    }
    if let Some(start) = up_from {
        found.up.push(start..sql.len());
    }
    if !has_up {
        return Err(problem(
            0,
            "no line begins with `-- migrate:up`".to_owned(),
            "dbmate refuses such a file too. If another tool wrote it, name that tool with --format.",
        ));
    }
    if !has_down {
        found
            .warnings
            .push("no line begins with `-- migrate:down`: dbmate itself refuses such a file".to_owned());
    }
    Ok(found)
}
