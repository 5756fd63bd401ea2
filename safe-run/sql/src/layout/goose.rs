//! goose: `<version>_<name>.sql` with the annotations `-- +goose Up`, `Down`, `StatementBegin`, `StatementEnd` and
//! `NO TRANSACTION`. Its grammar is strict, and so is this: what goose refuses is refused here by its line.

use std::ops::Range;

use super::integer;
use crate::{section::Sections, statement::ParseProblem, version::FileName};

/// The history table.
pub const TABLE: &str = "goose_db_version";

/// The lock that goose's library takes when it is told to; the command line takes none.
pub const LOCK_KEY: i64 = 4_097_083_626;

/// Reads a file's name. goose refuses a `.sql` file without a version, and runs Go functions of `.go` files.
pub(crate) fn file_name(name: &str) -> FileName {
    let Some((stem, extension)) = name.rsplit_once('.') else { return FileName::Ignored };
    if extension != "sql" && extension != "go" {
        return FileName::Ignored;
    }
    let version = stem.split_once('_').and_then(|(digits, rest)| {
        let version = integer::<i64>(digits)?;
        digits.bytes().any(|b| b != b'0').then(|| (version, rest.replace('_', " ")))
    });
    match (version, extension) {
        (Some((version, description)), "sql") => FileName::Migration { version, description },
        (Some(_), _) if stem.ends_with("_test") => FileName::Ignored,
        (Some((version, description)), _) => FileName::Foreign {
            version,
            description,
            why: "a Go function, which only your own goose binary can run",
        },
        (None, "sql") => FileName::Wrong("goose wants a number greater than zero before the first `_`"),
        (None, _) => FileName::Ignored,
    }
}

/// Whether a statement ends with the line, as goose sees it: words that begin with `--` end the line.
fn ends_with_semicolon(line: &str) -> bool {
    let words = line.split_whitespace().take_while(|word| !word.starts_with("--"));
    words.last().is_some_and(|word| word.ends_with(';'))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Up,
    UpStatement,
    Down,
    DownStatement,
}

/// Finds the way up.
pub(crate) fn sections(sql: &str) -> Result<Sections, ParseProblem> {
    let mut reading = Reading {
        found: Sections { up: Vec::new(), no_transaction: None, warnings: Vec::new(), has_sections: true },
        state: State::Start,
        up_from: 0,
        unended: None,
    };
    let mut at = 0;
    for (index, text) in sql.split_inclusive('\n').enumerate() {
        let line = Line {
            number: index as u32 + 1,
            text: text.trim(),
            is_indented: text.starts_with([' ', '\t']),
            bytes: at..at + text.len(),
        };
        at = line.bytes.end;
        if line.is_annotation() {
            reading.annotation(&line)?;
        } else if !line.text.is_empty() && !line.text.starts_with("--") {
            reading.statement(&line)?;
        }
    }
    reading.end(sql.len())
}

/// A line of the file.
struct Line<'a> {
    number: u32,
    /// Without the space around it.
    text: &'a str,
    is_indented: bool,
    bytes: Range<usize>,
}

impl Line<'_> {
    fn is_annotation(&self) -> bool {
        self.text.starts_with("--") && self.text.contains("+goose")
    }
}

/// How far a file was read.
struct Reading {
    found: Sections,
    state: State,
    up_from: usize,
    /// The line since which goose has seen no statement end: neither a semicolon at the end of a line nor a StatementEnd.
    unended: Option<u32>,
}

impl Reading {
    fn annotation(&mut self, line: &Line<'_>) -> Result<(), ParseProblem> {
        let text = line.text;
        if line.is_indented {
            return Err(refused(line.number, format!("`{text}` does not begin in the first column")));
        }
        let command = text.replace("--", "").replacen("+goose", "", 1).trim().to_ascii_lowercase();
        self.state = match (command.as_str(), self.state) {
            ("up", State::Start) => {
                self.up_from = line.bytes.end;
                State::Up
            }
            ("down", State::Up) => {
                self.found.up.push(self.up_from..line.bytes.start);
                State::Down
            }
            ("statementbegin", State::Up) => State::UpStatement,
            ("statementbegin", State::Down) => State::DownStatement,
            ("statementend", State::UpStatement) => {
                self.unended = None;
                State::Up
            }
            ("statementend", State::DownStatement) => State::Down,
            ("no transaction", state) => {
                self.found.no_transaction.get_or_insert(format!("line {}: `{text}`", line.number));
                state
            }
            ("envsub off", state) => state,
            ("envsub on", state @ (State::Down | State::DownStatement)) => state,
            ("envsub on", _) => {
                return Err(ParseProblem {
                    line: line.number,
                    column: 1,
                    message: "goose would fill in environment variables here, safe-run does not".to_owned(),
                    hint: "Write the values themselves, or run the file with `safe-run -- goose … up`."
                        .to_owned(),
                });
            }
            _ => return Err(refused(line.number, format!("`{text}` is not expected here"))),
        };
        Ok(())
    }

    /// A line that is neither empty nor a comment.
    fn statement(&mut self, line: &Line<'_>) -> Result<(), ParseProblem> {
        match self.state {
            State::Start => {
                let message = format!("`{}` stands before `-- +goose Up`", line.text);
                return Err(refused(line.number, message));
            }
            State::Up if ends_with_semicolon(line.text) => self.unended = None,
            State::Up => self.unended = self.unended.or(Some(line.number)),
            State::UpStatement | State::Down | State::DownStatement => {}
        }
        Ok(())
    }

    fn end(mut self, len: usize) -> Result<Sections, ParseProblem> {
        if let (Some(line), State::Up | State::Down) = (self.unended, self.state) {
            return Err(ParseProblem {
                line,
                column: 1,
                message: "goose wants a semicolon at the end of the last statement, which begins here"
                    .to_owned(),
                hint: "Add it: goose refuses such a file too.".to_owned(),
            });
        }
        match self.state {
            State::Up => self.found.up.push(self.up_from..len),
            State::Down => {}
            State::Start => return Err(refused(1, "it has no `-- +goose Up`".to_owned())),
            State::UpStatement | State::DownStatement => {
                return Err(refused(1, "it has no `-- +goose StatementEnd`".to_owned()));
            }
        }
        Ok(self.found)
    }
}

fn refused(line: u32, message: String) -> ParseProblem {
    ParseProblem {
        line,
        column: 1,
        message,
        hint: "goose refuses such a file too. If another tool wrote it, name that tool with --format."
            .to_owned(),
    }
}
