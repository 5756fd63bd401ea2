//! Values that a statement adds to an enum, and statements that need such a value.
//!
//! `ALTER TYPE … ADD VALUE` may run in a transaction, but the value can't be used there before the commit (55P04). Which
//! literal is of which type only the server knows, so every literal that reads like the value counts as a use: taking
//! one for a use costs a commit in between, and missing one is a failure that the server reports.

use super::{
    Statement, TableName, names,
    token::{Token, TokenKind, tokens},
};

/// A value that a statement adds to an enum that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewValue {
    /// The enum.
    pub enum_type: TableName,
    /// The value.
    pub value: String,
}

/// What `ALTER TYPE … ADD VALUE` adds.
pub fn added_value(text: &str) -> Option<NewValue> {
    let all = significant(text);
    if !starts(&all, text, &["alter", "type"]) {
        return None;
    }
    let add = (2..all.len()).find(|&at| starts(&all[at..], text, &["add", "value"]))?;
    let literal = all[add..].iter().find(|token| is_literal(token))?;
    Some(NewValue { enum_type: name_between(text, &all[2..add])?, value: content(literal.text(text)) })
}

/// The enum that `CREATE TYPE … AS ENUM` makes: its values can be used at once.
pub fn created_enum(text: &str) -> Option<TableName> {
    let all = significant(text);
    if !starts(&all, text, &["create", "type"]) {
        return None;
    }
    let end = (2..all.len()).find(|&at| starts(&all[at..], text, &["as", "enum"]))?;
    name_between(text, &all[2..end])
}

/// Whether the statement has a literal, also in a function's body or in COPY data of `sql`, that reads like `value`.
pub fn uses_value(statement: &Statement, sql: &str, value: &str) -> bool {
    let all = significant(&statement.text);
    // Adding after it, renaming it and talking about it is allowed at once.
    if starts(&all, &statement.text, &["alter", "type"]) || starts(&all, &statement.text, &["comment"]) {
        return false;
    }
    let data = statement.copy_data.clone().and_then(|range| sql.get(range)).unwrap_or_default();
    has_literal(&statement.text, value, 0) || data.split(['\t', ',', '\n', '\r']).any(|field| field == value)
}

fn has_literal(text: &str, value: &str, depth: u32) -> bool {
    /// A literal in a body in a DO block in …: nobody writes more.
    const DEEPEST: u32 = 5;
    tokens(text, 0).map_while(Result::ok).filter(is_literal).any(|token| {
        let inner = content(token.text(text));
        inner == value
            || (depth < DEEPEST && inner.contains(['\'', '$']) && has_literal(&inner, value, depth + 1))
    })
}

fn significant(text: &str) -> Vec<Token> {
    tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect()
}

fn starts(tokens: &[Token], text: &str, words: &[&str]) -> bool {
    words.iter().enumerate().all(|(at, word)| tokens.get(at).is_some_and(|token| token.is_word(text, word)))
}

fn is_literal(token: &Token) -> bool {
    matches!(token.kind, TokenKind::Str | TokenKind::DollarStr)
}

fn name_between(text: &str, tokens: &[Token]) -> Option<TableName> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    Some(names::parse(&text[first.range.start..last.range.end]))
}

/// What a literal means, for all that is not written with backslashes.
fn content(literal: &str) -> String {
    if let Some(rest) = literal.strip_prefix('$') {
        let tag = rest.find('$').map_or(literal.len(), |at| at + 2);
        return literal.get(tag..literal.len().saturating_sub(tag)).unwrap_or_default().to_owned();
    }
    let start = literal.find('\'').map_or(literal.len(), |at| at + 1);
    literal.get(start..literal.len().saturating_sub(1)).unwrap_or_default().replace("''", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_values_and_made_enums_are_read() {
        let added = |text: &str| added_value(text).map(|new| format!("{}: {}", new.enum_type, new.value));
        assert_eq!(
            added("ALTER TYPE s.\"Mood\" ADD VALUE IF NOT EXISTS 'so''so' BEFORE 'ok'").unwrap(),
            "s.Mood: so'so"
        );
        assert_eq!(added("alter type mood add /* x */ value $$fine$$").unwrap(), "mood: fine");
        assert_eq!(added("alter type mood rename value 'a' to 'b'"), None);
        assert_eq!(added("alter type mood add attribute value text"), None);
        assert_eq!(created_enum("create type s.mood as enum ('a')").unwrap().to_string(), "s.mood");
        assert_eq!(created_enum("create type mood as (a int)"), None);
    }

    #[test]
    fn a_use_is_found_in_statements_bodies_and_copy_data_and_not_in_comments() {
        let uses = |sql: &str| uses_value(&super::super::split(sql).unwrap()[0], sql, "so'so");
        for sql in [
            "insert into t values ('so''so')",
            "insert into t values ($$so'so$$)",
            "do $$ begin update t set m = 'so''so'; end $$",
            "create function f() returns mood language sql as 'select ''so''''so''::mood'",
            "copy t (i, m) from stdin;\n1\tso'so\n\\.\n",
        ] {
            assert!(uses(sql), "{sql}");
        }
        for sql in [
            "insert into t values ('so')",
            "select 1 -- 'so''so'",
            "alter type mood add value 'x' after 'so''so'",
            "comment on type mood is 'so''so'",
            "copy t from stdin;\nso'so far\n\\.\n",
        ] {
            assert!(!uses(sql), "{sql}");
        }
    }
}
