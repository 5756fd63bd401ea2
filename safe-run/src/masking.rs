//! Takes passwords out of what is shown and stored: words of command lines and SQL. Pure.
//!
//! In doubt it masks too much: a report that hides a harmless word is a nuisance, one that shows a password is a leak.

use common::ident::printable;

use crate::statement::token::{TokenKind, tokens};

/// What stands in a secret's place.
const MASK: &str = "***";

/// How deep dollar-quoted bodies are looked into: a body in a body in a body.
const DEPTH: u32 = 4;

/// The words of a command for people: passwords masked, control characters escaped.
pub fn words<'a>(words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Vec<String> {
    let mut value_is_secret = false;
    let mut masked = Vec::new();
    for word in words {
        let text = printable(&word.to_string_lossy());
        let is_option = text.starts_with('-');
        masked.push(if value_is_secret && !is_option { MASK.to_owned() } else { connection(&text) });
        value_is_secret =
            is_option && !text.contains('=') && names_secret(text.trim_end()) && !text.starts_with("--no-");
    }
    masked
}

/// One word, or one literal, that may be a URL or a `key=value` connection string.
pub fn connection(text: &str) -> String {
    let mut masked = key_values(text);
    if let Some(scheme) = masked.find("://") {
        let after = scheme + 3;
        if let Some(at) = masked[after..].rfind('@')
            && let Some(colon) = masked[after..after + at].find(':')
        {
            masked.replace_range(after + colon + 1..after + at, MASK);
        }
    }
    masked
}

/// Masks the value of each `…password=…`, `passwd=` and `pwd=`.
fn key_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (key, value) = rest.split_at(equals + 1);
        out.push_str(key);
        let name = key[..equals].trim_end();
        let name = &name[name.rfind(|c: char| !is_key(c)).map_or(0, |at| at + char_len(name, at))..];
        rest = value;
        if names_secret(name) {
            let blank = value.len() - value.trim_start().len();
            out.push_str(&value[..blank]);
            out.push_str(MASK);
            rest = &value[blank + value_length(&value[blank..])..];
        }
    }
    out + rest
}

fn char_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

fn is_key(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

fn names_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    ["password", "passwd", "pwd", "passphrase", "secret"].iter().any(|end| lower.ends_with(end))
}

/// Length of a libpq value: quoted with backslash escapes, or up to a blank or `&`.
fn value_length(value: &str) -> usize {
    if value.starts_with('\'') {
        let mut escaped = false;
        for (at, c) in value.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => return at + 1,
                _ => {}
            }
        }
        return value.len();
    }
    value.find(|c: char| c.is_whitespace() || c == '&').unwrap_or(value.len())
}

/// The beginning of a long SQL text, passwords masked: at most `max` characters of it are looked at.
pub fn sql_beginning(text: &str, max: usize) -> String {
    let end = text.char_indices().nth(max).map_or(text.len(), |(end, _)| end);
    sql(&text[..end])
}

/// SQL with its passwords masked: the literal after PASSWORD, and connection strings within literals, comments and bodies.
pub fn sql(text: &str) -> String {
    sql_within(text, DEPTH)
}

fn sql_within(text: &str, depth: u32) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_secret = false;
    for token in tokens(text, 0) {
        let token = match token {
            Ok(token) => token,
            // A literal that never ends: all the rest is in it.
            Err(unterminated) => {
                let rest = &text[unterminated.start..];
                out.push_str(&match rest.strip_prefix('$').and_then(|rest| rest.find('$')) {
                    _ if is_secret => quoted(MASK),
                    Some(end) if depth > 0 => {
                        let (tag, inner) = rest.split_at(end + 2);
                        format!("{tag}{}", sql_within(inner, depth - 1))
                    }
                    _ => connection(rest),
                });
                break;
            }
        };
        let piece = token.text(text);
        match token.kind {
            TokenKind::Str | TokenKind::DollarStr if is_secret => out.push_str(&quoted(MASK)),
            TokenKind::Str => out.push_str(&literal(piece)),
            TokenKind::LineComment | TokenKind::BlockComment => out.push_str(&connection(piece)),
            TokenKind::DollarStr => out.push_str(&body(piece, depth)),
            _ => out.push_str(piece),
        }
        let passes_on = [':', '='].iter().any(|&symbol| token.is_symbol(symbol));
        if token.is_significant() && !passes_on {
            let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdent);
            is_secret = is_name && names_secret(piece.trim_matches('"'));
        }
    }
    out
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// A string literal whose value may be a connection string, within which a quote is written twice.
fn literal(piece: &str) -> String {
    let Some(open) = piece.find('\'').filter(|open| piece.len() > open + 1) else { return piece.to_owned() };
    let value = piece[open + 1..piece.len() - 1].replace("''", "'");
    let masked = connection(&value);
    if masked == value {
        return piece.to_owned();
    }
    format!("{}'{}'", &piece[..open], masked.replace('\'', "''"))
}

/// A dollar-quoted string: mostly the body of a function.
fn body(piece: &str, depth: u32) -> String {
    let tag = piece[1..].find('$').map_or(piece.len(), |end| end + 2);
    match piece.get(tag..piece.len().saturating_sub(tag)) {
        Some(inner) if depth > 0 => {
            let inner = connection_if_it_is_one(&sql_within(inner, depth - 1));
            format!("{}{inner}{}", &piece[..tag], &piece[..tag])
        }
        _ => connection(piece),
    }
}

/// `$$host=db password=x$$` is no SQL: nothing in it is a literal.
fn connection_if_it_is_one(text: &str) -> String {
    let is_code = text.contains(';') || text.contains('\n');
    if is_code { text.to_owned() } else { connection(text) }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn passwords_in_words_are_masked() {
        for (word, masked) in [
            ("postgresql://app:s3cret@db/shop", "postgresql://app:***@db/shop"),
            ("--url=postgres://app:p@ss@db/shop", "--url=postgres://app:***@db/shop"),
            ("host=db password=s3cret dbname=x", "host=db password=*** dbname=x"),
            ("host=db password = 's3 \\'cret' dbname=x", "host=db password = *** dbname=x"),
            ("password=s3cret sslpassword=s3cret", "password=*** sslpassword=***"),
            (
                "postgresql://db/shop?password=s3cret&sslmode=require",
                "postgresql://db/shop?password=***&sslmode=require",
            ),
            ("--password=s3cret", "--password=***"),
            ("PGPASSWORD=s3cret", "PGPASSWORD=***"),
            ("postgresql://db/shop", "postgresql://db/shop"),
            ("upgrade", "upgrade"),
            ("a==b", "a==b"),
        ] {
            assert_eq!(connection(word), masked);
        }
        let command: Vec<OsString> =
            ["tool", "--password", "s3cret", "-x", "--no-password", "-w"].map(OsString::from).to_vec();
        let masked = words(command.iter().map(OsString::as_os_str));
        assert_eq!(masked, ["tool", "--password", "***", "-x", "--no-password", "-w"]);
    }

    #[test]
    fn passwords_in_sql_are_masked() {
        for (text, masked) in [
            ("ALTER ROLE app PASSWORD 's3cret' LOGIN", "ALTER ROLE app PASSWORD '***' LOGIN"),
            (
                "CREATE ROLE a ENCRYPTED PASSWORD /* x */ E's3\\'cret'",
                "CREATE ROLE a ENCRYPTED PASSWORD /* x */ '***'",
            ),
            (
                "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', \"password\" 's3cret')",
                "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', \"password\" '***')",
            ),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=a password=s3cret' PUBLICATION p",
                "CREATE SUBSCRIPTION s CONNECTION 'host=a password=***' PUBLICATION p",
            ),
            ("SELECT dblink('password=''s3 cret'' host=a')", "SELECT dblink('password=*** host=a')"),
            (
                "SELECT dblink_connect('postgresql://a:s3cret@b/c')",
                "SELECT dblink_connect('postgresql://a:***@b/c')",
            ),
            (
                "DO $x$ BEGIN ALTER ROLE a PASSWORD 's3cret'; END $x$",
                "DO $x$ BEGIN ALTER ROLE a PASSWORD '***'; END $x$",
            ),
            ("SELECT dblink($$host=a password=s3cret$$)", "SELECT dblink($$host=a password=***$$)"),
            (
                "UPDATE users SET password = 's3cret', name = 'b'",
                "UPDATE users SET password = '***', name = 'b'",
            ),
            ("SELECT 1 -- postgresql://a:s3cret@b/c", "SELECT 1 -- postgresql://a:***@b/c"),
            ("ALTER ROLE app PASSWORD 's3cr", "ALTER ROLE app PASSWORD '***'"),
            (
                "DO $x$ BEGIN ALTER ROLE a PASSWORD 's3cret'; EN",
                "DO $x$ BEGIN ALTER ROLE a PASSWORD '***'; EN",
            ),
            (
                "SELECT 'it''s', password FROM t WHERE a = 'b=c'",
                "SELECT 'it''s', password FROM t WHERE a = 'b=c'",
            ),
        ] {
            assert_eq!(sql(text), masked);
        }
    }

    proptest::proptest! {
        #[test]
        fn masking_never_panics(text in "([a-z ='\"$@:/-]|password|://|é){0,60}") {
            let _ = (sql(&text), connection(&text));
        }

        #[test]
        fn the_password_of_a_role_is_never_shown(password in "[a-zA-Z0-9]{8,20}", before in "[ \n]{1,3}", dollar: bool) {
            let literal = if dollar { format!("$q${password}$q$") } else { format!("'{password}'") };
            let text = format!("ALTER ROLE app WITH{before}Password{before}{literal}");
            proptest::prop_assert!(!sql(&text).contains(&password));
        }
    }
}
