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
    /// Things a person should know before it runs, with their lines.
    pub warnings: Vec<String>,
    /// Whether the file has the sections of another tool.
    pub has_sections: bool,
}

/// All of the file, whatever its comments say.
pub(crate) fn everything(sql: &str) -> Sections {
    let up = std::iter::once(0..sql.len()).collect();
    Sections { up, no_transaction: None, warnings: Vec::new(), has_sections: false }
}

/// Whether the file says `-- safe-run: whole-file`.
pub(crate) fn says_whole(sql: &str) -> bool {
    let is_it = |line: &str| {
        comment(line.trim_start_matches('\u{feff}').trim())
            .is_some_and(|text| text == "safe-run: whole-file" || text == "safe-run:whole-file")
    };
    sql.lines().any(is_it)
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
            None => {}
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
        // Play's comments begin with `#`.
        let before: String = sql[..start]
            .split_inclusive('\n')
            .map(|line| if line.trim_start().starts_with('#') { "\n" } else { line })
            .collect();
        refuse_statements_before(&before, number)?;
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
    // Play: anything between the mark of a comment and `!Ups`.
    let evolution = line.strip_prefix("--").or_else(|| line.strip_prefix('#')).map(str::trim_end);
    if evolution.is_some_and(|text| text.ends_with("!Ups")) {
        return Some(Direction::Up);
    }
    if evolution.is_some_and(|text| text.ends_with("!Downs")) {
        return Some(Direction::Down);
    }
    let text = comment(line)?;
    // node-pg-migrate takes more dashes too.
    let bare = text.trim_start_matches(['-', ' ']);
    let begins =
        |marker: &str| bare.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    // Words of plain English: node-pg-migrate would take `-- Up migration of the users` too, others mean nothing by it.
    let says = |marker: &str| {
        bare.strip_prefix(marker).is_some_and(|rest| !rest.contains(|c: char| c.is_alphanumeric()))
    };
    const UP: [&str; 6] = ["migrate:up", "+goose up", "+migrate up", "+micrate up", "rambler up", "==== up"];
    const DOWN: [&str; 6] =
        ["migrate:down", "+goose down", "+migrate down", "+micrate down", "rambler down", "==== down"];
    if UP.iter().any(|marker| begins(marker)) || says("up migration") {
        Some(Direction::Up)
    } else if DOWN.iter().any(|marker| begins(marker)) || says("down migration") || divides(line) {
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
