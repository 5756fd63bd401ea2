//! Names of tables and schemas as a person writes them for psql and pg_dump. Pure.
//!
//! `*` is any text and `?` any character; letters fold to lower case; double quotes take everything literally, `""` is a
//! quote; a dot outside of quotes separates schema and table. Two things differ from pg_dump, both on purpose: a name
//! without a schema is looked for in all schemas and not in a search path that depends on who asks (a plain name that is
//! in several schemas is refused), and other regular expressions are refused instead of guessed.

use std::collections::BTreeSet;

use crate::{Error, QualifiedName, Result, ident::printable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Any,
}

/// One part of a pattern: what a schema's or a table's name has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part(Vec<Token>);

impl Part {
    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Where the last `*` was, and how much of the name it takes so far.
        let (mut at, mut pos, mut star) = (0, 0, None);
        while pos < name.len() {
            match self.0.get(at) {
                Some(Token::Any) => {
                    star = Some((at, pos));
                    at += 1;
                }
                Some(Token::One) => (at, pos) = (at + 1, pos + 1),
                Some(Token::Char(c)) if *c == name[pos] => (at, pos) = (at + 1, pos + 1),
                _ => {
                    let Some((star_at, star_pos)) = star else { return false };
                    star = Some((star_at, star_pos + 1));
                    (at, pos) = (star_at + 1, star_pos + 1);
                }
            }
        }
        self.0[at..].iter().all(|token| *token == Token::Any)
    }

    fn is_plain(&self) -> bool {
        self.0.iter().all(|token| matches!(token, Token::Char(_)))
    }

    fn text(&self) -> String {
        self.0.iter().filter_map(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect()
    }
}

/// A pattern of `--table` or `--schema`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    schema: Option<Part>,
    name: Part,
}

impl Pattern {
    /// Reads a pattern for tables: `table` or `schema.table`.
    pub fn table(text: &str) -> Result<Self> {
        let mut parts = split(text)?;
        let name = parts.pop();
        let schema = parts.pop();
        match name {
            Some(name) if parts.is_empty() => Ok(Self { text: text.to_owned(), schema, name }),
            _ => Err(Error::usage(format!("\"{}\" has too many dots", printable(text)))
                .with_hint("Write schema.table; a dot that belongs to a name goes into double quotes.")),
        }
    }

    /// Reads a pattern for schemas.
    pub fn schema(text: &str) -> Result<Self> {
        let mut parts = split(text)?;
        match (parts.pop(), parts.is_empty()) {
            (Some(name), true) => Ok(Self { text: text.to_owned(), schema: None, name }),
            _ => Err(Error::usage(format!("\"{}\" is not the name of a schema", printable(text)))
                .with_hint("A dot that belongs to a name goes into double quotes.")),
        }
    }

    /// Whether a table is meant.
    pub fn matches_table(&self, table: &QualifiedName) -> bool {
        self.name.matches(table.name.as_str())
            && self.schema.as_ref().is_none_or(|schema| schema.matches(table.schema.as_str()))
    }

    /// Whether a schema is meant.
    pub fn matches_schema(&self, schema: &str) -> bool {
        self.name.matches(schema)
    }

    /// The tables that are meant.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Refused`] when there is none, with names that look alike, and for a plain name that several schemas
    /// have.
    pub fn find<'a>(&self, tables: &[&'a QualifiedName]) -> Result<Vec<&'a QualifiedName>> {
        let found: Vec<&QualifiedName> =
            tables.iter().copied().filter(|table| self.matches_table(table)).collect();
        if found.is_empty() {
            let names: Vec<String> = tables.iter().map(|table| table.short()).collect();
            return Err(self.nothing("table", &names));
        }
        if self.schema.is_none() && self.name.is_plain() && found.len() > 1 {
            let names: Vec<String> = found.iter().map(|table| printable(&table.to_string())).collect();
            return Err(Error::refused(format!(
                "\"{}\" is in several schemas: {}",
                printable(&self.text),
                names.join(", ")
            ))
            .with_hint("Write the schema too, such as --table schema.table."));
        }
        Ok(found)
    }

    /// The schemas that are meant.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Refused`] when there is none, with names that look alike.
    pub fn find_schemas<'a>(&self, schemas: &BTreeSet<&'a str>) -> Result<Vec<&'a str>> {
        let found: Vec<&str> = schemas.iter().copied().filter(|schema| self.matches_schema(schema)).collect();
        if found.is_empty() {
            let names: Vec<String> = schemas.iter().map(|schema| printable(schema)).collect();
            return Err(self.nothing("schema", &names));
        }
        Ok(found)
    }

    fn nothing(&self, what: &str, names: &[String]) -> Error {
        let wanted = self.name.text();
        let mut near: Vec<(usize, &String)> = names
            .iter()
            .filter_map(|name| {
                let bare = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
                let bare = bare.to_lowercase();
                let far = strsim::osa_distance(&bare, &wanted.to_lowercase());
                let close = far <= 1 + wanted.chars().count() / 3;
                let inside = wanted.chars().count() > 2 && bare.contains(&wanted.to_lowercase());
                (close || inside).then_some((far, name))
            })
            .collect();
        near.sort();
        let hint = if near.is_empty() {
            format!(
                "Upper case, dots and blanks need double quotes within the pattern, as in psql; `*` matches any {what}."
            )
        } else {
            let near: Vec<&str> = near.iter().take(5).map(|(_, name)| name.as_str()).collect();
            format!("Did you mean {}?", near.join(", "))
        };
        Error::refused(format!("no {what} matches \"{}\"", printable(&self.text))).with_hint(hint)
    }
}

fn split(text: &str) -> Result<Vec<Part>> {
    let mut parts = vec![Part(Vec::new())];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.last_mut().map(|part| &mut part.0);
        let Some(last) = last else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push(Token::Char('"'));
            }
            '"' => quoted = !quoted,
            c if quoted => last.push(Token::Char(c)),
            '*' => last.push(Token::Any),
            '?' => last.push(Token::One),
            '.' => parts.push(Part(Vec::new())),
            '[' | ']' | '(' | ')' | '{' | '}' | '|' | '+' | '^' | '\\' => {
                return Err(Error::usage(format!("\"{}\" has the character {c}", printable(text)))
                    .with_hint(
                        "Patterns know * and ?; every other special character goes into double quotes.",
                    ));
            }
            c => c.to_lowercase().for_each(|c| last.push(Token::Char(c))),
        }
    }
    if quoted || parts.iter().any(|part| part.0.is_empty()) {
        return Err(Error::usage(format!("\"{}\" is not the name of a table or schema", printable(text)))
            .with_hint("Write table, schema.table, or names in double quotes, as in psql."));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, schema: &str, name: &str) -> bool {
        Pattern::table(pattern).unwrap().matches_table(&QualifiedName::new(schema, name))
    }

    #[test]
    fn patterns_mean_what_they_mean_in_psql() {
        for (pattern, schema, name) in [
            ("orders", "app", "orders"),
            ("ORDERS", "app", "orders"),
            ("app.orders", "app", "orders"),
            ("app.*", "app", "orders"),
            ("*.o?d*s", "app", "orders"),
            ("\"Orders\"", "app", "Orders"),
            ("\"a\"\"b\"", "app", "a\"b"),
            ("\"a.b\".\"*\"", "a.b", "*"),
            ("a\"B\"c", "x", "aBc"),
            ("x$1", "x", "x$1"),
            ("*a*b*", "x", "xaxbx"),
        ] {
            assert!(matches(pattern, schema, name), "{pattern}");
        }
        for (pattern, schema, name) in [
            ("Orders", "app", "Orders"),
            ("\"*\"", "app", "orders"),
            ("app.orders", "other", "orders"),
            ("order", "app", "orders"),
            ("o?", "app", "orders"),
            ("*a*b", "x", "xaxbx"),
        ] {
            assert!(!matches(pattern, schema, name), "{pattern}");
        }
        for bad in ["", "a.b.c", "\"a", "a.", ".a", "a|b", "[ab]"] {
            assert!(Pattern::table(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_without_a_match_names_what_looks_alike() {
        let names = [QualifiedName::new("app", "orders"), QualifiedName::new("app", "users")];
        let error = Pattern::table("ordres").unwrap().find(&names.iter().collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error.hint(), Some("Did you mean app.orders?"));
    }

    #[test]
    fn a_plain_name_in_two_schemas_is_not_guessed() {
        let names = [QualifiedName::new("a", "orders"), QualifiedName::new("b", "orders")];
        let names: Vec<_> = names.iter().collect();
        assert!(Pattern::table("orders").unwrap().find(&names).is_err());
        assert_eq!(Pattern::table("order*").unwrap().find(&names).unwrap().len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_name_matches_itself_alone(name in ".{1,12}", other in ".{1,12}") {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            proptest::prop_assert!(matches(&quoted, "s", &name));
            proptest::prop_assert_eq!(matches(&quoted, "s", &other), name == other);
        }

        #[test]
        fn no_pattern_makes_the_reader_panic(text in ".{0,20}", name in ".{0,12}") {
            if let Ok(pattern) = Pattern::table(&text) {
                let _ = pattern.matches_table(&QualifiedName::new("s", name));
            }
        }
    }
}
