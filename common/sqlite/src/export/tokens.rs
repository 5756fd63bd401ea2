//! PostgreSQL's SQL, as pg_dump writes it, cut into tokens.

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word without quotes, as it stands: a keyword or a name in lower case.
    Word(String),
    /// A name that stood in double quotes.
    Quoted(String),
    /// A string.
    Text(String),
    /// Digits.
    Number(String),
    /// An operator, or a mark such as `(` and `::`.
    Mark(String),
}

impl Token {
    /// Whether it is this keyword.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }

    /// Whether it is this mark.
    pub fn is_mark(&self, mark: &str) -> bool {
        matches!(self, Self::Mark(text) if text == mark)
    }

    /// The name that it is, if it can be one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

/// A token, and where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub token: Token,
    pub start: usize,
    pub end: usize,
}

/// Cuts a text into tokens. What is no token of PostgreSQL's is an error, with the place.
pub(super) fn tokens(sql: &str) -> Result<Vec<Placed>, String> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        let token = match byte {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'"' => Token::Quoted(quoted(sql, &mut at, '"')?),
            b'\'' => Token::Text(quoted(sql, &mut at, '\'')?),
            b'E' | b'e' if bytes.get(at + 1) == Some(&b'\'') => {
                at += 1;
                Token::Text(escaped(sql, &mut at)?)
            }
            b'$' if dollar(sql, at).is_some() => {
                let tag = dollar(sql, at).unwrap_or_default();
                let body = at + tag.len();
                let end = sql[body..].find(tag).ok_or("a string without an end")? + body;
                at = end + tag.len();
                Token::Text(sql[body..end].to_owned())
            }
            byte if byte.is_ascii_digit() => {
                at = number_end(bytes, at);
                Token::Number(sql[start..at].to_owned())
            }
            byte if is_in_name(*byte) => {
                while bytes
                    .get(at)
                    .is_some_and(|byte| is_in_name(*byte) || byte.is_ascii_digit() || *byte == b'$')
                {
                    at += 1;
                }
                Token::Word(sql[start..at].to_owned())
            }
            b':' if bytes.get(at + 1) == Some(&b':') => {
                at += 2;
                Token::Mark("::".to_owned())
            }
            byte if b"(),;[].:".contains(byte) => {
                at += 1;
                Token::Mark(char::from(*byte).to_string())
            }
            byte if OPERATOR.contains(byte) => {
                while bytes.get(at).is_some_and(|byte| OPERATOR.contains(byte)) {
                    at += 1;
                }
                Token::Mark(sql[start..at].to_owned())
            }
            _ => return Err(format!("a character that is unknown at byte {start}")),
        };
        found.push(Placed { token, start, end: at });
    }
    check_depth(&found)?;
    Ok(found)
}

/// How deep brackets and CASE may be nested: translating needs stack for each level.
const DEPTH: usize = 60;

fn check_depth(found: &[Placed]) -> Result<(), String> {
    let (mut depth, mut prefixes) = (0_usize, 0_usize);
    for Placed { token, .. } in found {
        let opens = ["(", "["].iter().any(|mark| token.is_mark(mark)) || token.is_word("CASE");
        let closes = [")", "]"].iter().any(|mark| token.is_mark(mark)) || token.is_word("END");
        let is_prefix = token.is_word("NOT") || token.is_mark("-");
        depth = (depth + usize::from(opens)).saturating_sub(usize::from(closes));
        prefixes = if is_prefix { prefixes + 1 } else { 0 };
        if depth > DEPTH || prefixes > DEPTH {
            return Err(format!("it is nested deeper than {DEPTH} levels"));
        }
    }
    Ok(())
}

const OPERATOR: &[u8] = b"+-*/<>=~!@#%^&|`?";

fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn number_end(bytes: &[u8], mut at: usize) -> usize {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    at = digits(at);
    if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at = digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if bytes.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
            at = digits(at + 1 + sign);
        }
    }
    at
}

/// `$tag$`, if that stands here.
fn dollar(sql: &str, at: usize) -> Option<&str> {
    let rest = &sql[at..];
    let end = rest[1..].find('$')? + 2;
    let tag = &rest[..end];
    tag[1..end - 1].bytes().all(|byte| is_in_name(byte) || byte.is_ascii_digit()).then_some(tag)
}

fn quoted(sql: &str, at: &mut usize, quote: char) -> Result<String, String> {
    let mut text = String::new();
    let mut chars = sql[*at + 1..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            chars.next();
            text.push(quote);
        } else {
            *at += offset + 2;
            return Ok(text);
        }
    }
    Err("a string or a name without an end".to_owned())
}

/// A string with backslashes, of which PostgreSQL itself writes only doubled ones.
fn escaped(sql: &str, at: &mut usize) -> Result<String, String> {
    let mut text = String::new();
    let mut chars = sql[*at + 1..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, '\\')) => text.push('\\'),
                Some((_, '\'')) => text.push('\''),
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                _ => return Err("an escape in a string that is unknown".to_owned()),
            },
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
                text.push('\'');
            }
            '\'' => {
                *at += offset + 2;
                return Ok(text);
            }
            c => text.push(c),
        }
    }
    Err("a string without an end".to_owned())
}

/// Tokens, read from the first to the last.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    pub sql: &'a str,
    all: &'a [Placed],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(sql: &'a str, all: &'a [Placed]) -> Self {
        Self { sql, all, at: 0 }
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.ahead(0)
    }

    pub fn ahead(&self, count: usize) -> Option<&'a Token> {
        self.all.get(self.at + count).map(|placed| &placed.token)
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.all.len()
    }

    /// Takes a mark, if it is next.
    pub fn mark(&mut self, mark: &str) -> bool {
        let is_next = self.peek().is_some_and(|token| token.is_mark(mark));
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes words, if all of them are next.
    pub fn words(&mut self, words: &[&str]) -> bool {
        let are_next = words
            .iter()
            .enumerate()
            .all(|(at, word)| self.ahead(at).is_some_and(|token| token.is_word(word)));
        if are_next {
            self.at += words.len();
        }
        are_next
    }

    pub fn expect_mark(&mut self, mark: &str) -> Result<(), String> {
        if self.mark(mark) { Ok(()) } else { Err(format!("`{mark}` is missing")) }
    }

    /// A name.
    pub fn name(&mut self) -> Result<String, String> {
        let name = self.peek().and_then(Token::name).ok_or("a name is missing")?;
        self.at += 1;
        Ok(name.to_owned())
    }

    /// `schema.name`, or `name` alone with an empty schema.
    pub fn qualified(&mut self) -> Result<(String, String), String> {
        let first = self.name()?;
        if self.mark(".") { Ok((first, self.name()?)) } else { Ok((String::new(), first)) }
    }

    /// The tokens between the bracket that is next and the one that closes it.
    pub fn bracket(&mut self) -> Result<Self, String> {
        self.expect_mark("(")?;
        let start = self.at;
        let mut depth = 1;
        while let Some(token) = self.next() {
            if token.is_mark("(") || token.is_mark("[") {
                depth += 1;
            } else if token.is_mark(")") || token.is_mark("]") {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(Self { sql: self.sql, all: &self.all[start..self.at - 1], at: 0 });
            }
        }
        Err("a bracket is not closed".to_owned())
    }

    /// The tokens up to one outside of brackets for which `is_end` is true, or to the end.
    pub fn until(&mut self, is_end: impl Fn(&Self) -> bool) -> Self {
        let start = self.at;
        let mut depth = 0_i32;
        while let Some(token) = self.peek() {
            if depth == 0 && is_end(self) {
                break;
            }
            if token.is_mark("(") || token.is_mark("[") {
                depth += 1;
            } else if token.is_mark(")") || token.is_mark("]") {
                depth -= 1;
            }
            self.at += 1;
        }
        Self { sql: self.sql, all: &self.all[start..self.at], at: 0 }
    }

    /// The parts between commas outside of brackets.
    pub fn list(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while !self.is_at_end() {
            parts.push(self.until(|rest| rest.peek().is_some_and(|token| token.is_mark(","))));
            self.mark(",");
        }
        parts
    }

    /// The text of all that is left.
    pub fn text(&self) -> &'a str {
        match (self.all.get(self.at), self.all.last()) {
            (Some(first), Some(last)) => &self.sql[first.start..last.end],
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_dump_writes_is_cut() {
        let sql = r#"CHECK ((("a""b")::text = ANY (ARRAY['it''s', E'\\x'])) AND (n > '-1'::integer) AND 1.5e3 <> $$q$$)"#;
        let all = tokens(sql).unwrap();
        let texts: Vec<&Token> = all
            .iter()
            .map(|placed| &placed.token)
            .filter(|token| matches!(token, Token::Text(_) | Token::Quoted(_) | Token::Number(_)))
            .collect();
        let text = |text: &str| Token::Text(text.to_owned());
        assert_eq!(
            texts,
            [
                &Token::Quoted("a\"b".into()),
                &text("it's"),
                &text("\\x"),
                &text("-1"),
                &Token::Number("1.5e3".into()),
                &text("q")
            ]
        );
        let mut rest = Tokens::new(sql, &all);
        assert!(rest.words(&["CHECK"]));
        assert_eq!(rest.bracket().unwrap().text(), &sql[7..sql.len() - 1]);
        assert!(rest.is_at_end());
        for broken in ["'a", "\"a", "E'\\", "$x$ $y$", "\u{1}"] {
            assert!(tokens(broken).is_err(), "{broken}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(sql in "[\\PC'\"$E\\\\(),.:]{0,60}") {
            if let Ok(all) = tokens(&sql) {
                let mut rest = Tokens::new(&sql, &all);
                let _ = rest.bracket();
                rest.list();
            }
        }
    }
}
