//! Reads `-- safe-run: …` comments.
//!
//! ```text
//! -- safe-run: no-transaction
//! -- safe-run: rows orders = -1200..-1000
//! -- safe-run: allow-loss orders
//! -- safe-run: allow-loss orders = 500
//! -- safe-run: allow-lost-labels mood
//! -- safe-run: allow-lost-labels mood = ok, 'in between'
//! -- safe-run: allow-lost-grants totals
//! -- safe-run: whole-file
//! ```
//!
//! An unknown directive is an error: a misspelt one would otherwise silently protect less than its author believes.

use std::ops::{Range, RangeInclusive};

use crate::section::Sections;
use crate::statement::{ParseProblem, Statement, TableName, names};
use crate::token::{Token, TokenKind, tokens};

/// What a file's author allows and expects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Expected changes of row counts.
    pub rows: Vec<ExpectedRows>,
    /// Losses that are meant.
    pub allow_loss: Vec<AllowLoss>,
    /// `allow-lost-labels TYPE [= LABEL, …]`: enum labels that may go; any of them if none is listed.
    pub lost_labels: Vec<(TableName, Vec<String>)>,
    /// `allow-lost-grants NAME`: an object that may lose grants.
    pub lost_grants: Vec<TableName>,
    /// `whole-file`: no comment of it begins a way down.
    pub whole_file: bool,
}

/// `rows TABLE = MIN..MAX`: by how much the table's row count changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRows {
    /// The table as written.
    pub table: TableName,
    /// Allowed change, negative for fewer rows.
    pub change: RangeInclusive<i64>,
    /// Its line in the file.
    pub line: u32,
}

/// `allow-loss TABLE [= N]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowLoss {
    /// The table as written.
    pub table: TableName,
    /// Most rows that may be lost; `None`: all of them.
    pub at_most: Option<u64>,
    /// Its line in the file.
    pub line: u32,
}

/// The annotations of the way up, and our own no-transaction marker with its line.
pub(crate) fn read(
    sql: &str,
    sections: &Sections,
    statements: &[Statement],
) -> Result<(Annotations, Option<String>), ParseProblem> {
    let mut annotations = Annotations::default();
    let mut no_transaction = None;
    for part in outside_copy_data(sql, sections, statements) {
        for token in tokens(&sql[..part.end], part.start).map_while(Result::ok) {
            if token.kind != TokenKind::LineComment {
                continue;
            }
            let Some(directive) = directive(token.text(sql)) else { continue };
            let line = sql[..token.range.start].matches('\n').count() as u32 + 1;
            match parse(directive, line).map_err(|message| wrong(line, message))? {
                Parsed::NoTransaction => {
                    no_transaction.get_or_insert(format!("line {line}: `{}`", token.text(sql).trim()));
                }
                Parsed::Rows(rows) => annotations.rows.push(rows),
                Parsed::AllowLoss(loss) => annotations.allow_loss.push(loss),
                Parsed::LostLabels(name, labels) => annotations.lost_labels.push((name, labels)),
                Parsed::LostGrants(name) => annotations.lost_grants.push(name),
                Parsed::WholeFile => annotations.whole_file = true,
            }
        }
    }
    Ok((annotations, no_transaction))
}

/// The parts of the file that are SQL: data of a COPY must not be read as comments. The head of a file with sections
/// counts, so that a directive can stand above the first marker.
pub(super) fn outside_copy_data(
    sql: &str,
    sections: &Sections,
    statements: &[Statement],
) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let head = sections.up.first().filter(|_| sections.has_sections).map(|first| 0..first.start);
    for range in head.into_iter().chain(sections.up.iter().cloned()) {
        let mut start = range.start;
        let inside = statements.iter().filter_map(|statement| statement.copy_data.clone());
        for data in inside.filter(|data| range.contains(&data.start)) {
            parts.push(start..data.start);
            // Past the line `\.` that ends the data.
            start = sql[data.end..].find('\n').map_or(range.end, |at| data.end + at + 1);
        }
        parts.push(start..range.end);
    }
    parts
}

/// What follows `-- safe-run:`.
fn directive(comment: &str) -> Option<&str> {
    let text = comment.trim_start_matches('-').trim_start();
    let prefix = text.get(..9)?;
    prefix.eq_ignore_ascii_case("safe-run:").then(|| text[9..].trim())
}

enum Parsed {
    NoTransaction,
    Rows(ExpectedRows),
    AllowLoss(AllowLoss),
    LostLabels(TableName, Vec<String>),
    LostGrants(TableName),
    WholeFile,
}

fn parse(directive: &str, line: u32) -> Result<Parsed, String> {
    let (word, rest) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
    match word.to_ascii_lowercase().as_str() {
        "no-transaction" if rest.trim().is_empty() => Ok(Parsed::NoTransaction),
        "whole-file" if rest.trim().is_empty() => Ok(Parsed::WholeFile),
        "rows" => {
            let (table, value) = table_and_value(rest)?;
            let value = value.ok_or("`rows` without a number")?;
            let change = change(value).ok_or_else(|| format!("`{value}` is no number of rows"))?;
            Ok(Parsed::Rows(ExpectedRows { table, change, line }))
        }
        "allow-loss" => {
            let (table, value) = table_and_value(rest)?;
            let number = |value: &str| value.parse().map_err(|_| format!("`{value}` is no number of rows"));
            Ok(Parsed::AllowLoss(AllowLoss { table, at_most: value.map(number).transpose()?, line }))
        }
        "allow-lost-labels" => lost_labels(rest).map(|(name, labels)| Parsed::LostLabels(name, labels)),
        "allow-lost-grants" => match table_and_value(rest)? {
            (name, None) => Ok(Parsed::LostGrants(name)),
            (_, Some(value)) => Err(format!("`allow-lost-grants` takes a name alone, without `= {value}`")),
        },
        _ => Err(format!("unknown directive `-- safe-run: {directive}`")),
    }
}

/// `TYPE` or `TYPE = LABEL, …`, as a flag gives it.
pub fn lost_labels(text: &str) -> Result<(TableName, Vec<String>), String> {
    let (name, value) = table_and_value(text)?;
    Ok((name, value.map(labels).transpose()?.unwrap_or_default()))
}

/// A name alone, as a flag gives it.
pub fn lost_grants(text: &str) -> Result<TableName, String> {
    match table_and_value(text)? {
        (name, None) => Ok(name),
        (_, Some(value)) => Err(format!("`= {value}` means nothing here")),
    }
}

fn table_and_value(text: &str) -> Result<(TableName, Option<&str>), String> {
    let equals = tokens(text, 0)
        .map_while(Result::ok)
        .find(|token| token.is_symbol('='))
        .map(|token| token.range.start);
    let (name, value) = match equals {
        Some(at) => (&text[..at], Some(text[at + 1..].trim())),
        None => (text, None),
    };
    let parts: Vec<Token> = tokens(name, 0).map_while(Result::ok).filter(Token::is_significant).collect();
    let alternate = parts.iter().enumerate().all(|(at, token)| match token.kind {
        TokenKind::Word | TokenKind::QuotedIdent => at % 2 == 0,
        TokenKind::Symbol('.') => at % 2 == 1,
        _ => false,
    });
    if parts.len().is_multiple_of(2) || !alternate {
        return Err(format!("`{}` is no table name", name.trim()));
    }
    Ok((names::parse(name), value))
}

/// `ok, 'in between'`: words and strings, at least one.
fn labels(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{text}` is no list of labels");
    let mut labels = Vec::new();
    let mut wanted = true;
    for token in tokens(text, 0) {
        let token = token.map_err(|_| wrong())?;
        let written = token.text(text);
        match token.kind {
            TokenKind::Space => {}
            TokenKind::Symbol(',') if !wanted => wanted = true,
            TokenKind::Word if wanted => {
                labels.push(written.to_owned());
                wanted = false;
            }
            TokenKind::Str if wanted && written.starts_with('\'') && written.len() > 1 => {
                labels.push(written[1..written.len() - 1].replace("''", "'"));
                wanted = false;
            }
            _ => return Err(wrong()),
        }
    }
    if wanted { Err(wrong()) } else { Ok(labels) }
}

/// `-5`, `+3`, `-1200..-1000`.
fn change(text: &str) -> Option<RangeInclusive<i64>> {
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let (low, high) = match text.split_once("..") {
        Some((low, high)) => (number(low)?, number(high.trim_start_matches('='))?),
        None => (number(text)?, number(text)?),
    };
    (low <= high).then_some(low..=high)
}

fn wrong(line: u32, message: String) -> ParseProblem {
    ParseProblem {
        line,
        column: 1,
        message,
        hint: "Known are `-- safe-run: no-transaction`, `-- safe-run: rows TABLE = MIN..MAX`, `-- safe-run: allow-loss \
               TABLE`, `-- safe-run: allow-loss TABLE = N`, `-- safe-run: allow-lost-labels TYPE = LABEL, …`, \
               `-- safe-run: allow-lost-grants NAME` and `-- safe-run: whole-file`."
            .to_owned(),
    }
}
