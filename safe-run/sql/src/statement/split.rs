//! Cuts a file into statements at its top-level semicolons.
//!
//! Top level is what psql means by it: outside literals, comments, parentheses (`CREATE RULE … DO (a; b)`) and
//! `BEGIN ATOMIC … END` bodies. What psql would interpret itself is refused here with its line, because sending it to
//! the server would fail half-way or, worse, run something else.

use std::ops::Range;

use super::{ParseProblem, Statement, head, tree};
use crate::token::{Token, TokenKind, Unterminated, next_token, tokens};

/// Splits a whole file. See [`split_ranges`].
pub fn split(sql: &str) -> Result<Vec<Statement>, ParseProblem> {
    let whole = 0..sql.len();
    split_ranges(sql, std::slice::from_ref(&whole))
}

/// Splits the given byte ranges of a file, each on its own; lines and byte ranges stay those of the whole file.
///
/// A statement ends at a top-level semicolon or at the end of its range. Empty statements are left out.
pub fn split_ranges(sql: &str, ranges: &[Range<usize>]) -> Result<Vec<Statement>, ParseProblem> {
    if let Some(at) = sql.find('\0') {
        return Err(problem(
            sql,
            at,
            "a NUL byte, which PostgreSQL cannot store or read".to_owned(),
            "Remove it; if the whole file looks like this, save it again as UTF-8 instead of UTF-16.",
        ));
    }
    let mut statements = Vec::new();
    let mut lines = Lines::new(sql);
    for range in ranges {
        split_one(sql, range.clone(), &mut lines, &mut statements)?;
    }
    Ok(statements)
}

fn split_one(
    sql: &str,
    range: Range<usize>,
    lines: &mut Lines<'_>,
    statements: &mut Vec<Statement>,
) -> Result<(), ParseProblem> {
    let part = &sql[..range.end];
    let mut at = range.start;
    let mut open = Open::default();
    while let Some(token) = next_token(part, at).map_err(|error| unterminated(sql, &error))? {
        at = token.range.end;
        if !token.is_significant() {
            continue;
        }
        refuse_foreign_syntax(part, &token, &open)?;
        if token.is_symbol(';') && open.is_top_level() {
            if let Some(data_end) = finish(part, at, &std::mem::take(&mut open), lines, statements)? {
                at = data_end;
            }
            continue;
        }
        open.push(part, token);
    }
    let end = part.len();
    finish(part, end, &open, lines, statements)?;
    Ok(())
}

/// The statement being read.
#[derive(Default)]
struct Open {
    tokens: Vec<Token>,
    /// One entry per open parenthesis or bracket.
    nesting: Vec<Nesting>,
    /// BEGIN ATOMIC and CASE that are open in a function body.
    body_depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nesting {
    Paren,
    /// A parenthesis in which `:` and braces are SQL: `JSON_OBJECT('a': 1)`, `GRAPH_TABLE (g MATCH (a:person))`.
    ColonParen,
    Bracket,
}

impl Open {
    fn is_top_level(&self) -> bool {
        self.body_depth == 0 && !self.nesting.iter().any(|nesting| *nesting != Nesting::Bracket)
    }

    fn push(&mut self, sql: &str, token: Token) {
        match token.kind {
            TokenKind::Symbol('(') => self.nesting.push(self.parenthesis(sql)),
            TokenKind::Symbol('[') => self.nesting.push(Nesting::Bracket),
            TokenKind::Symbol(closing @ (')' | ']')) => {
                let matches = |nesting: &Nesting| (*nesting == Nesting::Bracket) == (closing == ']');
                if self.nesting.last().is_some_and(matches) {
                    self.nesting.pop();
                }
            }
            TokenKind::Word if self.nesting.is_empty() && self.creates_routine(sql) => {
                let after_begin = self.tokens.last().is_some_and(|last| last.is_word(sql, "begin"));
                if self.body_depth == 0 {
                    self.body_depth = usize::from(after_begin && token.is_word(sql, "atomic"));
                } else if token.is_word(sql, "case") {
                    self.body_depth += 1;
                } else if token.is_word(sql, "end") {
                    self.body_depth -= 1;
                }
            }
            _ => {}
        }
        self.tokens.push(token);
    }

    fn parenthesis(&self, sql: &str) -> Nesting {
        const COLON_CALLS: [&str; 4] = ["json_object", "json_objectagg", "json", "graph_table"];
        let inside = self.nesting.last() == Some(&Nesting::ColonParen);
        let called =
            self.tokens.last().is_some_and(|last| COLON_CALLS.iter().any(|name| last.is_word(sql, name)));
        if inside || called { Nesting::ColonParen } else { Nesting::Paren }
    }

    /// CREATE [OR REPLACE] FUNCTION | PROCEDURE.
    fn creates_routine(&self, sql: &str) -> bool {
        let word = |at: usize, word: &str| self.tokens.get(at).is_some_and(|token| token.is_word(sql, word));
        let at = if word(1, "or") && word(2, "replace") { 3 } else { 1 };
        word(0, "create") && (word(at, "function") || word(at, "procedure"))
    }
}

/// psql's own syntax and template variables: the server knows neither.
fn refuse_foreign_syntax(sql: &str, token: &Token, open: &Open) -> Result<(), ParseProblem> {
    let TokenKind::Symbol(symbol) = token.kind else { return Ok(()) };
    let start = token.range.start;
    let rest = &sql[start..];
    match symbol {
        '\\' => {
            let command: String = rest.chars().take_while(|c| !c.is_whitespace()).take(40).collect();
            let hint = match command.as_str() {
                "\\restrict" | "\\unrestrict" => {
                    "pg_dump writes this line for psql only: delete it, or run the file with `safe-run -- psql -f FILE`."
                }
                "\\." => "It ends the data of a `COPY … FROM STDIN;`, but no such statement comes before it.",
                _ => "Write it as plain SQL, or run the file with `safe-run -- psql -f FILE`.",
            };
            Err(problem(sql, start, format!("`{command}` is a command of psql, not SQL"), hint))
        }
        // `GRAPH_TABLE (g MATCH (a)-[b]->{1,3}(c) …)` is the only SQL with braces.
        '{' | '}' if open.nesting.contains(&Nesting::ColonParen) => Ok(()),
        '{' | '}' => Err(template(sql, start)),
        '$' => Err(template(sql, start)),
        ':' => {
            let colon_before = sql[..start].ends_with(':');
            let cast = rest[1..].starts_with(':') || (colon_before && !sql[..start].ends_with("::"));
            let variable = rest[1..]
                .starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '\'' | '"'))
                && !rest[1..].starts_with(|c: char| c.is_ascii_digit());
            let colon_is_sql = matches!(open.nesting.last(), Some(Nesting::Bracket | Nesting::ColonParen));
            if cast || colon_is_sql || !variable {
                return Ok(());
            }
            let name: String = rest.chars().take_while(|c| !c.is_whitespace()).take(40).collect();
            Err(problem(
                sql,
                start,
                format!("`{name}` looks like a variable of psql"),
                "Write the value itself, or run the file with `safe-run -- psql -v name=value -f FILE`.",
            ))
        }
        _ => Ok(()),
    }
}

fn template(sql: &str, start: usize) -> ParseProblem {
    let shown: String = sql[start..].chars().take_while(|c| *c != '\n' && *c != '\r').take(40).collect();
    problem(
        sql,
        start,
        format!("`{}` looks like a template variable that was not filled in", shown.trim_end()),
        "Run the template tool first, or write the value itself: safe-run sends files as they are.",
    )
}

/// Ends the open statement at the semicolon before `end`; the result is where its COPY data ends, if it has any.
fn finish(
    sql: &str,
    end: usize,
    open: &Open,
    lines: &mut Lines<'_>,
    statements: &mut Vec<Statement>,
) -> Result<Option<usize>, ParseProblem> {
    let (Some(first), Some(last)) = (open.tokens.first(), open.tokens.last()) else { return Ok(None) };
    let byte_range = first.range.start..last.range.end;
    let words = head::Words::new(sql, &open.tokens);
    if words.turns_off_standard_strings() {
        return Err(problem(
            sql,
            byte_range.start,
            "standard_conforming_strings is turned off, so that a backslash could hide the end of a string"
                .to_owned(),
            "Remove the setting and write strings with backslashes as E'…'.",
        ));
    }
    let (copy_data, resume) = if words.is_copy_from_stdin() {
        let (data, resume) = copy_block(sql, byte_range.start, end)?;
        (Some(data), Some(resume))
    } else {
        (None, None)
    };
    let text = sql[byte_range.clone()].to_owned();
    let class = tree::classify(&text, &words);
    let (line, column) = lines.locate(byte_range.start);
    statements.push(Statement { text, line, column, byte_range, copy_data, class });
    Ok(resume)
}

/// The data after a COPY statement whose semicolon ends at `end`, and where SQL goes on.
fn copy_block(sql: &str, start: usize, end: usize) -> Result<(Range<usize>, usize), ParseProblem> {
    let line_rest = sql[end..].find('\n').map_or(&sql[end..], |at| &sql[end..end + at]);
    let begin = end + line_rest.len() + usize::from(end + line_rest.len() < sql.len());
    let trailing = tokens(sql, end).take_while(|token| match token {
        Ok(token) => token.range.start < begin,
        Err(_) => false,
    });
    if trailing.flatten().any(|token| token.is_significant()) || line_rest.contains("/*") {
        return Err(problem(
            sql,
            end,
            "more text on the line of COPY … FROM STDIN".to_owned(),
            "Put the data on the lines after the semicolon, and the next statement after the line `\\.`.",
        ));
    }
    let mut at = begin;
    while at < sql.len() {
        let line_end = sql[at..].find('\n').map_or(sql.len(), |len| at + len + 1);
        if sql[at..line_end].trim_end_matches(['\n', '\r']) == "\\." {
            return Ok((begin..at, line_end));
        }
        at = line_end;
    }
    Err(problem(
        sql,
        start,
        "COPY … FROM STDIN without its data, or without the line `\\.` that ends it".to_owned(),
        "Put the data on the lines after the semicolon and end it with a line that holds only `\\.`; or use INSERT.",
    ))
}

/// The first significant tokens of `text`, joined by single spaces, at most `max` characters.
pub fn significant_text(text: &str, max: usize) -> String {
    let mut line = String::new();
    let mut end = 0;
    for token in tokens(text, 0).map_while(Result::ok).filter(Token::is_significant) {
        if !line.is_empty() && token.range.start > end {
            line.push(' ');
        }
        end = token.range.end;
        line.extend(token.text(text).chars().map(|c| if c.is_control() { ' ' } else { c }));
        if line.chars().count() > max {
            line = line.chars().take(max.saturating_sub(1)).collect();
            line.push('…');
            break;
        }
    }
    line
}

/// Line and column of ascending byte positions, in one pass over the file.
struct Lines<'a> {
    sql: &'a str,
    line: u32,
    line_start: usize,
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(sql: &'a str) -> Self {
        Self { sql, line: 1, line_start: 0, at: 0 }
    }

    fn locate(&mut self, position: usize) -> (u32, u32) {
        for (offset, _) in self.sql[self.at..position].match_indices('\n') {
            self.line += 1;
            self.line_start = self.at + offset + 1;
        }
        self.at = position;
        let column = self.sql[self.line_start..position].trim_start_matches('\u{feff}').chars().count();
        (self.line, column as u32 + 1)
    }
}

fn unterminated(sql: &str, error: &Unterminated) -> ParseProblem {
    problem(
        sql,
        error.start,
        format!("{} begins here and never ends", error.what),
        "Close it: everything up to the end of the file is taken for its content.",
    )
}

fn problem(sql: &str, at: usize, message: String, hint: &str) -> ParseProblem {
    let (line, column) = Lines::new(sql).locate(at);
    ParseProblem { line, column, message, hint: hint.to_owned() }
}
