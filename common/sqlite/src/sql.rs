//! SQLite's SQL, parsed by the crate `sqlite3-parser` (a port of SQLite's own grammar). No other file names the parser but those
//! that translate its trees.

use std::fmt;

use sqlite3_parser::{
    Bump, FallibleIterator,
    ast::{Cmd, Expr, OneSelect, ResultColumn, Stmt, fmt::ToTokens},
    lexer::sql::Parser,
};

/// Longest statement that is parsed, in bytes. SQLite's own limit is 1,000,000,000; a schema has no use for that.
const LONGEST: usize = 1_000_000;

/// Parses one statement.
pub(crate) fn statement<'a>(bump: &'a Bump, sql: &'a str) -> Result<Stmt<'a>, String> {
    if sql.len() > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let mut parser = Parser::new(bump, sql.as_bytes());
    match (parser.next(), parser.next()) {
        (Ok(Some(Cmd::Stmt(statement))), Ok(None)) => Ok(statement),
        (Ok(_), Ok(_)) => Err("it is no single statement".to_owned()),
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    }
}

/// Parses an expression, as `select EXPRESSION`.
pub(crate) fn expression<'a>(bump: &'a Bump, text: &str) -> Result<&'a Expr<'a>, String> {
    let sql = bump.alloc_str(&format!("SELECT {text}"));
    let Stmt::Select(select) = statement(bump, sql)? else {
        return Err("it is no expression".to_owned());
    };
    match &select.body.select {
        OneSelect::Select { columns: [ResultColumn::Expr(expression, None)], from: None, .. } => {
            Ok(expression)
        }
        _ => Err("it is no single expression".to_owned()),
    }
}

/// A tree as SQL text.
pub(crate) struct Shown<'a, T>(pub &'a T);

impl<T: ToTokens> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_fmt(f)
    }
}

/// A name without its quotes, whichever of SQLite's four kinds they are.
pub(crate) fn unquoted(name: &str) -> String {
    let inner = |quote: char| {
        let inner = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
        let (twice, once) = (format!("{quote}{quote}"), quote.to_string());
        inner.replace(&twice, &once)
    };
    match name.as_bytes() {
        [b'[', .., b']'] => name[1..name.len() - 1].to_owned(),
        [b'"', .., b'"'] => inner('"'),
        [b'`', .., b'`'] => inner('`'),
        [b'\'', .., b'\''] => inner('\''),
        _ => name.to_owned(),
    }
}

/// A name as SQL of SQLite.
pub(crate) fn quoted(name: &str) -> String {
    // PostgreSQL's quoting is the standard's, and SQLite's too.
    common::ident::Ident::new(name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_quotes_of_all_four_kinds() {
        for (quoted, name) in [
            ("a", "a"),
            ("\"a\"\"b\"", "a\"b"),
            ("[a]", "a"),
            ("`a``b`", "a`b"),
            ("'it''s'", "it's"),
            ("\"\"", ""),
        ] {
            assert_eq!(unquoted(quoted), name);
        }
    }

    #[test]
    fn an_expression_is_one_and_nothing_else() {
        let bump = Bump::new();
        assert!(expression(&bump, "a > 1 and length(b) <= 3").is_ok());
        for text in ["1, 2", "a from t", "a as b", "", "a; drop table t", "(", "*"] {
            assert!(expression(&bump, text).is_err(), "{text}");
        }
    }
}
