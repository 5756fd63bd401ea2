//! goose: `<version>_<name>.sql` with the annotations `-- +goose Up`, `Down`, `StatementBegin`, `StatementEnd` and
//! `NO TRANSACTION`. Its grammar is strict, and so is this: what goose refuses is refused here by its line.

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
    let mut state = State::Start;
    let mut found =
        Sections { up: Vec::new(), no_transaction: None, warnings: Vec::new(), has_sections: true };
    let mut up_from = 0;
    // Where goose last saw a statement end: behind a semicolon at the end of a line, or a StatementEnd.
    let mut unended: Option<u32> = None;
    let mut at = 0;
    for (index, line) in sql.split_inclusive('\n').enumerate() {
        let text = line.trim();
        let refuse = |message: String| ParseProblem {
            line: index as u32 + 1,
            column: 1,
            message,
            hint: "goose refuses such a file too. If another tool wrote it, name that tool with --format."
                .to_owned(),
        };
        let next = at + line.len();
        if text.starts_with("--") && text.contains("+goose") {
            if line.starts_with([' ', '\t']) {
                return Err(refuse(format!("`{text}` does not begin in the first column")));
            }
            let command = text.replace("--", "").replacen("+goose", "", 1).trim().to_ascii_lowercase();
            state = match (command.as_str(), state) {
                ("up", State::Start) => {
                    up_from = next;
                    State::Up
                }
                ("down", State::Up) => {
                    found.up.push(up_from..at);
                    State::Down
                }
                ("statementbegin", State::Up) => State::UpStatement,
                ("statementbegin", State::Down) => State::DownStatement,
                ("statementend", State::UpStatement) => {
                    unended = None;
                    State::Up
                }
                ("statementend", State::DownStatement) => State::Down,
                ("no transaction", state) => {
                    found.no_transaction.get_or_insert(format!("line {}: `{text}`", index + 1));
                    state
                }
                ("envsub off", state) => state,
                ("envsub on", State::Down | State::DownStatement) => state,
                ("envsub on", _) => {
                    return Err(ParseProblem {
                        line: index as u32 + 1,
                        column: 1,
                        message: "goose would fill in environment variables here, safe-run does not"
                            .to_owned(),
                        hint: "Write the values themselves, or run the file with `safe-run -- goose … up`."
                            .to_owned(),
                    });
                }
                _ => return Err(refuse(format!("`{text}` is not expected here"))),
            };
        } else if state == State::Start && !text.is_empty() && !text.starts_with("--") {
            return Err(refuse(format!("`{text}` stands before `-- +goose Up`")));
        } else if state == State::Up && !text.is_empty() && !text.starts_with("--") {
            unended = match ends_with_semicolon(text) {
                true => None,
                false => unended.or(Some(index as u32 + 1)),
            };
        }
        at = next;
    }
    if let (Some(line), State::Up | State::Down) = (unended, state) {
        return Err(ParseProblem {
            line,
            column: 1,
            message: "goose wants a semicolon at the end of the last statement, which begins here".to_owned(),
            hint: "Add it: goose refuses such a file too.".to_owned(),
        });
    }
    match state {
        State::Up => found.up.push(up_from..sql.len()),
        State::Down => {}
        State::Start | State::UpStatement | State::DownStatement => {
            let missing = if state == State::Start { "Up" } else { "StatementEnd" };
            return Err(ParseProblem {
                line: 1,
                column: 1,
                message: format!("it has no `-- +goose {missing}`"),
                hint:
                    "goose refuses such a file too. If another tool wrote it, name that tool with --format."
                        .to_owned(),
            });
        }
    }
    Ok(found)
}
