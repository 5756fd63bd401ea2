//! The only code that quotes: SQL identifiers, SQL literals, `key=value` connection strings, shell words.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// A bare name as PostgreSQL stores it, unquoted. Its `Display` is always quoted, so that it can go into SQL as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(String);

impl Ident {
    /// Takes the name as it stands in the catalog.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name without quotes, for messages and comparisons.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl From<&str> for Ident {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Ident {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// A schema-qualified name. `Display` is `"schema"."name"`, ready for SQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualifiedName {
    /// The schema.
    pub schema: Ident,
    /// The name within the schema.
    pub name: Ident,
}

impl QualifiedName {
    /// Both parts as they stand in the catalog.
    pub fn new(schema: impl Into<Ident>, name: impl Into<Ident>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// The name as a person writes it: quotes and schema only where they are needed.
    ///
    /// `public` is left out. Control characters are escaped, so that a name cannot forge lines of output.
    pub fn short(&self) -> String {
        let part = |ident: &Ident| {
            let text = ident.as_str();
            let plain = text.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if plain { text.to_owned() } else { printable(&ident.to_string()) }
        };
        if self.schema.as_str() == "public" {
            part(&self.name)
        } else {
            format!("{}.{}", part(&self.schema), part(&self.name))
        }
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Replaces control characters, and those that show nothing or turn other text around, by their escapes, so that text from
/// a database cannot move the cursor, forge lines or look like another one.
pub fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() || is_invisible(c)).into_owned()
}

/// The same for a text of several lines: line feeds and tabs stay. What is written for a person goes through this at the end,
/// wherever it comes from.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| (c.is_control() && !matches!(c, '\n' | '\t')) || is_invisible(c))
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Characters that show nothing, and change how other text is shown: directions of writing, separators of lines, joiners,
/// tags, fillers, and what is no character at all.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// A string literal that is right whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// One value of a libpq `key=value` connection string.
pub fn conninfo_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// One word for a POSIX shell.
pub fn shell_word(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, '-' | '_' | '.' | '/' | ':' | '=' | ',' | '@' | '%' | '+')
        });
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Longest identifier that PostgreSQL keeps, in bytes (NAMEDATALEN - 1).
pub const MAX_IDENT_BYTES: usize = 63;

/// `name` + `suffix`, with `name` shortened at a character border so that the whole fits an identifier.
pub fn with_suffix(name: &str, suffix: &str) -> String {
    let room = MAX_IDENT_BYTES.saturating_sub(suffix.len());
    let mut end = name.len().min(room);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_always_quoted_and_quotes_doubled() {
        assert_eq!(QualifiedName::new("a", "b\"c").to_string(), r#""a"."b""c""#);
    }

    #[test]
    fn short_names_are_plain_where_sql_allows_it() {
        assert_eq!(QualifiedName::new("public", "orders").short(), "orders");
        assert_eq!(QualifiedName::new("shop", "Orders").short(), "shop.\"Orders\"");
        assert_eq!(QualifiedName::new("public", "a\nb").short(), "\"a\\nb\"");
    }

    #[test]
    fn what_can_not_be_seen_is_shown_as_an_escape() {
        let hidden =
            "\u{1b}[2J\u{7}\u{9b}1m\u{85}\r\u{202e}\u{2066}\u{200e}\u{61c}\u{200b}\u{2028}\u{feff}\u{7f}";
        let shown = "\\u{1b}[2J\\u{7}\\u{9b}1m\\u{85}\\r\\u{202e}\\u{2066}\\u{200e}\\u{61c}\\u{200b}\\u{2028}\\u{feff}\\u{7f}";
        assert_eq!(visible(hidden), shown);
        assert_eq!(printable(hidden), shown);
        assert_eq!(visible("a\n\tb"), "a\n\tb");
        assert_eq!(printable("a\n\tb"), "a\\n\\tb");
        let seen = "größe 数据库 база 🐘 e\u{301}";
        assert_eq!(visible(seen), seen);
    }

    proptest::proptest! {
        #[test]
        fn nothing_hidden_is_ever_left(text in "\\PC{0,20}|.{0,20}|[\u{0}-\u{9f}\u{2000}-\u{206f}]{0,20}") {
            let is_hidden = |c: char| c.is_control() || is_invisible(c);
            proptest::prop_assert!(!printable(&text).chars().any(is_hidden));
            proptest::prop_assert!(!visible(&text).chars().any(|c| is_hidden(c) && c != '\n' && c != '\t'));
        }
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b'"), r" E'a\\b'''");
    }

    #[test]
    fn a_suffix_never_splits_a_character_and_always_fits() {
        let name = "ü".repeat(31);
        let made = with_suffix(&name, "_replaced");
        assert!(made.len() <= MAX_IDENT_BYTES && made.ends_with("ü_replaced"));
    }

    #[test]
    fn shell_words_are_quoted_only_when_needed() {
        assert_eq!(shell_word("data/1.0.copy.zst"), "data/1.0.copy.zst");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
