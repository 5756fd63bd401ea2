//! DEFAULT: a constant as the column's type holds it, or the clock.

use common::ident::literal;
use sqlite3_parser::{
    Bump,
    ast::{Expr, Literal, UnaryOperator},
};

use crate::{
    canonical::CanonicalRow,
    copy,
    encode::{Scratch, convert},
    sql,
    target::{ColumnRule, Target},
    value::Cell,
};

/// The expression in PostgreSQL's SQL; `None` if it is NULL.
///
/// # Errors
/// Why it has no translation.
pub(super) fn translate(text: &str, rule: &ColumnRule) -> Result<Option<String>, String> {
    let bump = Bump::new();
    let expression = inner(sql::expression(&bump, text)?);
    if let Some(clock) = clock(expression) {
        return of_clock(clock, &rule.target).map(Some);
    }
    match value(expression)? {
        Value::Null => Ok(None),
        Value::Integer(value) => constant(Cell::Integer(value), rule).map(Some),
        Value::Real(value) => constant(Cell::Real(value), rule).map(Some),
        Value::Text(text) => constant(Cell::Text(text.as_bytes()), rule).map(Some),
        Value::Blob(bytes) => constant(Cell::Blob(&bytes), rule).map(Some),
    }
}

enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

fn inner<'a, 'b>(expression: &'a Expr<'b>) -> &'a Expr<'b> {
    match expression {
        Expr::Parenthesized(list) => match list.as_slice() {
            [only] => inner(only),
            _ => expression,
        },
        _ => expression,
    }
}

fn value(expression: &Expr<'_>) -> Result<Value, String> {
    let computed = || Err("it is computed, and only constants and the clock are translated".to_owned());
    match expression {
        Expr::Literal(Literal::Null) => Ok(Value::Null),
        Expr::Literal(Literal::String(text)) => Ok(Value::Text(sql::unquoted(text))),
        Expr::Literal(Literal::Blob(digits)) => {
            let mut bytes = Vec::new();
            if copy::unhex(digits.as_bytes(), &mut bytes) { Ok(Value::Blob(bytes)) } else { computed() }
        }
        Expr::Literal(Literal::Numeric(text)) => number(text, false),
        Expr::Unary(UnaryOperator::Negative, number_of) => match inner(number_of) {
            Expr::Literal(Literal::Numeric(text)) => number(text, true),
            _ => computed(),
        },
        Expr::Unary(UnaryOperator::Positive, number_of) => value(inner(number_of)),
        // A word without quotes: true and false are 1 and 0, any other is a string, as one in double quotes is.
        Expr::Id(sqlite3_parser::ast::Id(word)) | Expr::Name(sqlite3_parser::ast::Name(word)) => {
            word_value(word)
        }
        Expr::Literal(Literal::Keyword(word)) => word_value(word),
        _ => computed(),
    }
}

fn word_value(word: &str) -> Result<Value, String> {
    Ok(match word {
        _ if word.eq_ignore_ascii_case("true") => Value::Integer(1),
        _ if word.eq_ignore_ascii_case("false") => Value::Integer(0),
        _ => Value::Text(sql::unquoted(word)),
    })
}

fn number(text: &str, is_negative: bool) -> Result<Value, String> {
    let digits = text.replace('_', "");
    let signed = if is_negative { format!("-{digits}") } else { digits.clone() };
    if let Some(hex) = digits.to_ascii_lowercase().strip_prefix("0x") {
        let value = u64::from_str_radix(hex, 16).map_err(|_| "a number is too big".to_owned())?.cast_signed();
        return Ok(Value::Integer(if is_negative { value.wrapping_neg() } else { value }));
    }
    if let Ok(value) = signed.parse() {
        return Ok(Value::Integer(value));
    }
    signed.parse().map(Value::Real).map_err(|_| "it is no number".to_owned())
}

/// The constant as a string that the type reads: by the rule that its values follow.
fn constant(cell: Cell<'_>, rule: &ColumnRule) -> Result<String, String> {
    let (mut field, mut plain) = (Vec::new(), Vec::new());
    convert(cell, rule, &mut field, &mut CanonicalRow::default(), &mut Scratch::default())
        .map_err(|broken| format!("{cell} does not fit {}: {broken}", rule.target))?;
    if field == b"\\N" {
        return Ok("NULL".to_owned());
    }
    copy::unescape(&field, &mut plain);
    let text = String::from_utf8(plain).map_err(|_| "it is no text".to_owned())?;
    Ok(match rule.target {
        Target::Bool if text == "t" => "true".to_owned(),
        Target::Bool => "false".to_owned(),
        Target::Int2 | Target::Int4 | Target::Int8 => text,
        _ => literal(&text).trim_start().to_owned(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    Date,
    Time,
    Timestamp,
    Seconds,
}

fn clock(expression: &Expr<'_>) -> Option<Clock> {
    match expression {
        Expr::Literal(Literal::CurrentDate) => Some(Clock::Date),
        Expr::Literal(Literal::CurrentTime) => Some(Clock::Time),
        Expr::Literal(Literal::CurrentTimestamp) => Some(Clock::Timestamp),
        Expr::FunctionCall { name, args, filter_over: None, .. } => {
            let texts: Vec<String> = args
                .unwrap_or_default()
                .iter()
                .map(|argument| match argument {
                    Expr::Literal(Literal::String(text)) => Some(sql::unquoted(text)),
                    _ => None,
                })
                .collect::<Option<_>>()?;
            // Formats tell %m, the month, from %M, the minute; of `now` the case means nothing.
            let texts: Vec<&str> = texts
                .iter()
                .map(|text| if text.eq_ignore_ascii_case("now") { "now" } else { text.as_str() })
                .collect();
            match (sql::unquoted(name.0).to_ascii_lowercase().as_str(), texts.as_slice()) {
                ("datetime", ["now"] | []) => Some(Clock::Timestamp),
                ("date", ["now"] | []) => Some(Clock::Date),
                ("time", ["now"] | []) => Some(Clock::Time),
                ("unixepoch", ["now"] | []) | ("strftime", ["%s", "now"]) => Some(Clock::Seconds),
                ("strftime", ["%Y-%m-%d %H:%M:%S" | "%Y-%m-%d %H:%M:%f", "now"]) => Some(Clock::Timestamp),
                _ => None,
            }
        }
        _ => None,
    }
}

/// SQLite's clock is that of UTC, with whole seconds as text.
fn of_clock(clock: Clock, target: &Target) -> Result<String, String> {
    let utc = "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')";
    Ok(match (clock, target) {
        (Clock::Timestamp, Target::Timestamp(_)) => utc.to_owned(),
        (Clock::Timestamp, Target::TimestampTz(_)) => "CURRENT_TIMESTAMP".to_owned(),
        (Clock::Timestamp | Clock::Date, Target::Date) => format!("{utc}::date"),
        (Clock::Date, Target::Timestamp(_)) => format!("{utc}::date"),
        (Clock::Time, Target::Time(_)) => format!("{utc}::time(0)"),
        (Clock::Seconds, Target::Int4 | Target::Int8) => {
            "floor(extract(epoch FROM CURRENT_TIMESTAMP))::bigint".to_owned()
        }
        (Clock::Seconds, Target::TimestampTz(_)) => "CURRENT_TIMESTAMP".to_owned(),
        (Clock::Timestamp, Target::Text | Target::Varchar(_)) => {
            format!("to_char({utc}, 'YYYY-MM-DD HH24:MI:SS')")
        }
        (Clock::Date, Target::Text | Target::Varchar(_)) => format!("to_char({utc}, 'YYYY-MM-DD')"),
        (Clock::Time, Target::Text | Target::Varchar(_)) => format!("to_char({utc}, 'HH24:MI:SS')"),
        _ => return Err(format!("the clock does not fit {target}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_take_the_form_of_the_type() {
        for (text, target, sql) in [
            ("0", Target::Bool, Some("false")),
            ("TRUE", Target::Bool, Some("true")),
            ("'t'", Target::Bool, Some("true")),
            ("(-1)", Target::Int8, Some("-1")),
            ("0x10", Target::Int8, Some("16")),
            ("'it''s'", Target::Text, Some("'it''s'")),
            ("\"x\"", Target::Text, Some("'x'")),
            ("1.50", Target::Numeric(Some((5, 2))), Some("'15e-1'")),
            ("x'00ff'", Target::Bytea, Some("E'\\\\x00ff'")),
            ("NULL", Target::Text, None),
            ("current_timestamp", Target::Timestamp(6), Some("(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')")),
            ("(datetime('now'))", Target::TimestampTz(6), Some("CURRENT_TIMESTAMP")),
            (
                "(strftime('%s','now'))",
                Target::Int8,
                Some("floor(extract(epoch FROM CURRENT_TIMESTAMP))::bigint"),
            ),
        ] {
            let outcome = translate(text, &ColumnRule::new(target));
            assert_eq!(outcome, Ok(sql.map(str::to_owned)), "{text}");
        }
        for (text, target) in [
            ("'abc'", Target::Int8),
            ("2", Target::Bool),
            ("(lower(hex(randomblob(16))))", Target::Text),
            ("(datetime('now', '+1 day'))", Target::Timestamp(6)),
            ("(strftime('%S','now'))", Target::Int8),
            ("(strftime('%Y-%M-%d %H:%m:%S','now'))", Target::Timestamp(6)),
        ] {
            assert!(translate(text, &ColumnRule::new(target)).is_err(), "{text}");
        }
    }
}
