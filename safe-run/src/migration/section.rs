//! Finds the part of a file that goes up, and the markers of other tools.
//!
//! dbmate, goose and their like keep the way down in the same file, behind a comment. Running it would undo the
//! migration and lose its data, so it is cut off here. Those tools look for their markers line by line, and so does
//! this; a marker inside a literal then leaves an unterminated literal behind, which the splitter refuses.

use std::ops::Range;

use crate::statement::ParseProblem;

/// The parts of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sections {
    /// What to run, in bytes, ascending. The whole file when it has no sections.
    pub up: Vec<Range<usize>>,
    /// Another tool's marker that the file must not run in a transaction, with its line.
    pub no_transaction: Option<String>,
    /// Comments that look like the start of a way down that we do not know.
    pub warnings: Vec<String>,
    /// Whether the file has the sections of another tool.
    pub has_sections: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Finds the sections of `sql`.
pub(crate) fn find(sql: &str) -> Result<Sections, ParseProblem> {
    let mut sections =
        Sections { up: Vec::new(), no_transaction: None, warnings: Vec::new(), has_sections: false };
    let mut up_from: Option<usize> = None;
    let mut first_up = None;
    let mut at = 0;
    for (index, line) in sql.split_inclusive('\n').enumerate() {
        let number = index as u32 + 1;
        let text = line.trim_start_matches('\u{feff}').trim();
        if sections.no_transaction.is_none() && no_transaction(text, index) {
            sections.no_transaction = Some(format!("line {number}: `{text}`"));
        }
        if text.to_ascii_lowercase().starts_with("-- +goose envsub on") {
            return Err(ParseProblem {
                line: number,
                column: 1,
                message: "goose would fill in environment variables here, safe-run does not".to_owned(),
                hint: "Write the values themselves, or run the file with `safe-run -- goose up`.".to_owned(),
            });
        }
        let direction = direction(text);
        match direction {
            Some(Direction::Up) => {
                if let Some(start) = up_from.take() {
                    sections.up.push(start..at);
                }
                first_up.get_or_insert((at, number));
                up_from = Some(at + line.len());
            }
            Some(Direction::Down) => {
                // Before any way up, only tern and MyBatis mean "above goes up" by it.
                match up_from.take() {
                    Some(start) => sections.up.push(start..at),
                    None if divides(text) && !sections.has_sections => sections.up.push(0..at),
                    None if !sections.has_sections => {
                        return Err(ParseProblem {
                            line: number,
                            column: 1,
                            message: format!("`{text}` comes before any way up"),
                            hint: "Put the marker of the way up before the statements that migrate."
                                .to_owned(),
                        });
                    }
                    None => {}
                }
            }
            None => {
                if looks_like_down(text) {
                    sections.warnings.push(format!(
                        "line {number}: `{text}` looks like the start of a way down; what follows it runs"
                    ));
                }
            }
        }
        sections.has_sections |= direction.is_some();
        at += line.len();
    }
    if let Some(start) = up_from {
        sections.up.push(start..sql.len());
    }
    if !sections.has_sections {
        sections.up.push(0..sql.len());
    }
    if let Some((start, number)) = first_up {
        refuse_statements_before(&sql[..start], number)?;
    }
    Ok(sections)
}

/// Statements before the first marker: the tools differ in what they do with them, so nobody should guess.
fn refuse_statements_before(before: &str, marker_line: u32) -> Result<(), ParseProblem> {
    match crate::statement::split(before)?.first() {
        None => Ok(()),
        Some(statement) => Err(ParseProblem {
            line: statement.line,
            column: statement.column,
            message: format!(
                "`{}` stands before the way up that begins in line {marker_line}",
                statement.summary(40)
            ),
            hint: "Move it below the marker.".to_owned(),
        }),
    }
}

/// The text of a line comment without its dashes, in lower case with single spaces; `None` for any other line.
fn comment(line: &str) -> Option<String> {
    let text = line.strip_prefix("--")?.to_ascii_lowercase();
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn direction(line: &str) -> Option<Direction> {
    let text = comment(line)?;
    let begins =
        |marker: &str| text.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    const UP: [&str; 5] = ["migrate:up", "+goose up", "+migrate up", "rambler up", "up migration"];
    const DOWN: [&str; 5] =
        ["migrate:down", "+goose down", "+migrate down", "rambler down", "down migration"];
    if UP.iter().any(|marker| begins(marker)) {
        Some(Direction::Up)
    } else if DOWN.iter().any(|marker| begins(marker)) || divides(line) {
        Some(Direction::Down)
    } else {
        None
    }
}

/// Markers that end the way up without one that begins it: tern's and MyBatis'.
fn divides(line: &str) -> bool {
    comment(line).is_some_and(|text| {
        text == "-- create above / drop below ----" || text == "//@undo" || text == "@undo"
    })
}

fn looks_like_down(line: &str) -> bool {
    const WORDS: [&str; 7] = ["down", "undo", "rollback", "revert", "migrate down", "downgrade", "!downs"];
    comment(line)
        .is_some_and(|text| WORDS.contains(&text.trim_matches(|c: char| !c.is_alphanumeric() && c != '!')))
}

/// The markers of every tool in `migration-layouts`; ours is read with the other annotations.
fn no_transaction(line: &str, index: usize) -> bool {
    let Some(text) = comment(line) else { return false };
    (index == 0 && text.starts_with("no-transaction"))
        || text == "! no-transaction"
        || text == "-- tern: disable-tx ----"
        || text == "+goose no transaction"
        || text == "atlas:txmode none"
        || (text.starts_with("migrate:up ") && text.split(' ').any(|option| option == "transaction:false"))
        || (text.starts_with("+migrate up ") && text.split(' ').any(|option| option == "notransaction"))
}
