//! The lexer: cuts SQL into tokens exactly where PostgreSQL's own scanner does.
//!
//! Everything that looks at SQL text before the parser does so through these tokens, so that a word in a comment, a
//! string or a dollar-quoted body is never taken for SQL. Tokens cover the input without gaps. It must never guess where
//! an unterminated string or comment ends: that is an error, because every split after it would be wrong.
//!
//! Our own instead of the parser's: it has to stop and resume around COPY data, to report where an unterminated literal
//! began, and to join `E'…'` literals that continue on the next line in their escape mode.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// White space, and a byte order mark at the very start.
    Space,
    /// `-- …` to the end of the line, without the line break.
    LineComment,
    /// `/* … */`, nested.
    BlockComment,
    /// An unquoted identifier or a key word.
    Word,
    /// `"…"` and `U&"…"`.
    QuotedIdent,
    /// Every string form with single quotes.
    Str,
    /// `$tag$…$tag$`.
    DollarStr,
    /// A numeric constant, and `$1`.
    Number,
    /// Any other single character.
    Symbol(char),
}

/// A token and where it stands, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub range: Range<usize>,
}

impl Token {
    /// Neither white space nor a comment.
    pub fn is_significant(&self) -> bool {
        !matches!(self.kind, TokenKind::Space | TokenKind::LineComment | TokenKind::BlockComment)
    }

    /// The token's text within `sql`.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        &sql[self.range.clone()]
    }

    /// Whether it is the unquoted word `word`, in any case.
    pub fn is_word(&self, sql: &str, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// Whether it is the symbol `symbol`.
    pub fn is_symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }
}

/// A literal or comment that never ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unterminated {
    /// What it is, with its article: "a string".
    pub what: &'static str,
    /// Where it began, in bytes.
    pub start: usize,
}

const BOM: char = '\u{feff}';

/// The token that begins at byte `start`; `None` at the end of the input.
pub(crate) fn next_token(sql: &str, start: usize) -> Result<Option<Token>, Unterminated> {
    let rest = &sql[start..];
    let bytes = rest.as_bytes();
    let Some(first) = rest.chars().next() else { return Ok(None) };
    let fail = |what| Unterminated { what, start };
    let (kind, len) = match first {
        BOM if start == 0 => (TokenKind::Space, BOM.len_utf8()),
        c if is_space(c) => (TokenKind::Space, span(bytes, |b| is_space(char::from(b)))),
        '-' if bytes.get(1) == Some(&b'-') => {
            (TokenKind::LineComment, span(bytes, |b| b != b'\n' && b != b'\r'))
        }
        '/' if bytes.get(1) == Some(&b'*') => {
            (TokenKind::BlockComment, block_comment(bytes).ok_or_else(|| fail("a block comment"))?)
        }
        '\'' => (TokenKind::Str, string(bytes, 0, false).ok_or_else(|| fail("a string"))?),
        '"' => (TokenKind::QuotedIdent, quoted(bytes, 0).ok_or_else(|| fail("a quoted identifier"))?),
        'e' | 'E' if bytes.get(1) == Some(&b'\'') => {
            (TokenKind::Str, string(bytes, 1, true).ok_or_else(|| fail("an escape string"))?)
        }
        'b' | 'B' | 'x' | 'X' | 'n' | 'N' if bytes.get(1) == Some(&b'\'') => {
            (TokenKind::Str, string(bytes, 1, false).ok_or_else(|| fail("a string"))?)
        }
        'u' | 'U' if bytes.get(1) == Some(&b'&') && bytes.get(2) == Some(&b'\'') => {
            (TokenKind::Str, string(bytes, 2, false).ok_or_else(|| fail("a string"))?)
        }
        'u' | 'U' if bytes.get(1) == Some(&b'&') && bytes.get(2) == Some(&b'"') => {
            (TokenKind::QuotedIdent, quoted(bytes, 2).ok_or_else(|| fail("a quoted identifier"))?)
        }
        '$' => match dollar_tag(bytes) {
            Some(tag) => {
                let body = &rest[tag..];
                let end = body.find(&rest[..tag]).ok_or_else(|| fail("a dollar-quoted string"))?;
                (TokenKind::DollarStr, tag + end + tag)
            }
            None if bytes.get(1).is_some_and(u8::is_ascii_digit) => {
                (TokenKind::Number, 1 + span(&bytes[1..], |b| b.is_ascii_digit()))
            }
            None => (TokenKind::Symbol('$'), 1),
        },
        c if c.is_ascii_digit() => {
            (TokenKind::Number, span(bytes, |b| b == b'.' || b == b'_' || b.is_ascii_alphanumeric()))
        }
        c if is_word_start(c) => (TokenKind::Word, span(bytes, is_word_byte)),
        c => (TokenKind::Symbol(c), c.len_utf8()),
    };
    Ok(Some(Token { kind, range: start..start + len }))
}

/// All tokens from byte `start` on.
pub(crate) fn tokens(sql: &str, start: usize) -> impl Iterator<Item = Result<Token, Unterminated>> + '_ {
    let mut at = start;
    std::iter::from_fn(move || match next_token(sql, at) {
        Ok(Some(token)) => {
            at = token.range.end;
            Some(Ok(token))
        }
        Ok(None) => None,
        Err(unterminated) => {
            at = sql.len();
            Some(Err(unterminated))
        }
    })
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || !b.is_ascii()
}

fn span(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&b| !belongs(b)).unwrap_or(bytes.len())
}

fn block_comment(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            (b'*', b'/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// The length of a string whose opening quote is at `open`, with its continuations on later lines.
fn string(bytes: &[u8], open: usize, backslash_escapes: bool) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match bytes.get(at)? {
            b'\\' if backslash_escapes => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => {
                at += 1;
                // Only the escape form needs this: elsewhere the next literal is read in the same mode anyway.
                match backslash_escapes.then(|| continuation(&bytes[at..])).flatten() {
                    Some(gap) => at += gap + 1,
                    None => return Some(at),
                }
            }
            _ => at += 1,
        }
    }
}

/// The distance to a quote that continues the string: white space with a line break in it, and line comments.
fn continuation(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut line_break = false;
    loop {
        match bytes.get(at)? {
            b'\n' | b'\r' => {
                line_break = true;
                at += 1;
            }
            &b if is_space(char::from(b)) => at += 1,
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at += span(&bytes[at..], |b| b != b'\n' && b != b'\r');
            }
            b'\'' if line_break => return Some(at),
            _ => return None,
        }
    }
}

fn quoted(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match bytes.get(at)? {
            b'"' if bytes.get(at + 1) == Some(&b'"') => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The length of a `$tag$` opening.
fn dollar_tag(bytes: &[u8]) -> Option<usize> {
    let tag = span(&bytes[1..], |b| is_word_byte(b) && b != b'$');
    let starts_well = tag == 0 || !bytes[1].is_ascii_digit();
    (starts_well && bytes.get(1 + tag) == Some(&b'$')).then_some(tag + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sql: &str) -> Vec<(TokenKind, &str)> {
        tokens(sql, 0)
            .map(|token| token.expect("terminated"))
            .filter(Token::is_significant)
            .map(|token| (token.kind, &sql[token.range]))
            .collect()
    }

    #[test]
    fn every_literal_form_is_one_token() {
        for sql in [
            "'a''b;'",
            r"E'a\';b'",
            "E'a'\n -- c\n 'b\\';'",
            "U&'d\\0061t'",
            "b'1;0'",
            "$$a;b$$",
            "$a$ $b$ ; $b$ $$ $a$",
            "$é$;$é$",
            "\"a;\"\"b\"",
            "U&\"d;\"",
            "N'x;'",
        ] {
            assert_eq!(kinds(sql).len(), 1, "{sql}");
        }
    }

    #[test]
    fn a_backslash_does_not_escape_in_a_plain_string() {
        assert_eq!(kinds(r"'a\' ;").len(), 2);
    }

    #[test]
    fn a_dollar_within_a_word_opens_nothing() {
        assert_eq!(
            kinds("a$b$c;d$$e"),
            [(TokenKind::Word, "a$b$c"), (TokenKind::Symbol(';'), ";"), (TokenKind::Word, "d$$e"),]
        );
    }

    #[test]
    fn unterminated_literals_are_errors_that_name_their_start() {
        for (sql, start) in
            [("a 'b", 2), ("/* /* */", 0), ("x $a$ $b$", 2), ("\"", 0), ("E'\\", 0), ("E'\\'", 0)]
        {
            let error = tokens(sql, 0).find_map(Result::err).expect(sql);
            assert_eq!(error.start, start, "{sql}");
        }
    }
}
