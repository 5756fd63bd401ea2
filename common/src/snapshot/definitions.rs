//! What pg_dump's SQL says of tables: columns with their types, primary keys, labels of enums, base types of domains. Pure.
//!
//! The manifest names columns, and nothing of their types. The text is only read, never run, so that one that was made up costs no
//! more than a wrong comparison. It is taken apart into words, quoted names, strings and signs; what is not understood is skipped.

use std::collections::BTreeMap;

use crate::QualifiedName;

/// A column as `CREATE TABLE` defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as `format_type` writes it with an empty search_path.
    pub type_name: String,
    /// NULL is refused.
    pub not_null: bool,
    /// The server computes it.
    pub generated: bool,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDefinition {
    /// Its columns, those that it inherits first.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in order; none where it has none.
    pub key: Vec<String>,
}

/// A column's type with the domains taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseType {
    /// The type.
    pub name: String,
    /// The labels of an enum, or of an array of enums.
    pub labels: Option<Vec<String>>,
    /// A domain refuses NULL.
    pub not_null: bool,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions {
    /// Tables, by name.
    pub tables: BTreeMap<QualifiedName, TableDefinition>,
    enums: BTreeMap<String, Vec<String>>,
    /// The type below, and whether NULL is refused.
    domains: BTreeMap<String, (String, bool)>,
}

impl Definitions {
    /// Reads what `pg_dump --schema-only` or `pg_restore --file=-` prints.
    pub fn read(text: &str) -> Self {
        let mut found = Self::default();
        let tokens = tokens(text);
        for statement in tokens.split(|token| token.kind == Kind::Sign(';')) {
            found.statement(&mut Reader { text, tokens: statement, at: 0 });
        }
        found
    }

    /// Takes in an enum that the text does not have.
    pub fn add_enum(&mut self, name: String, labels: Vec<String>) {
        self.enums.insert(name, labels);
    }

    /// Takes in a domain that the text does not have: its name, the type below, whether it refuses NULL.
    pub fn add_domain(&mut self, name: String, below: String, not_null: bool) {
        self.domains.insert(name, (below, not_null));
    }

    /// What is below the domains of a type.
    pub fn base_of(&self, type_name: &str) -> BaseType {
        /// Domains over domains; a text that was made up could have a circle.
        const DEEPEST: usize = 32;
        let (mut name, mut not_null) = (type_name.to_owned(), false);
        for _ in 0..DEEPEST {
            let Some((below, refuses)) = self.domains.get(&name) else { break };
            not_null |= refuses;
            name = below.clone();
        }
        let labels = self.enums.get(name.trim_end_matches("[]")).cloned();
        BaseType { name, labels, not_null }
    }

    fn statement(&mut self, reader: &mut Reader<'_, '_>) -> Option<()> {
        if reader.word("CREATE") {
            while reader.word("UNLOGGED") || reader.word("FOREIGN") {}
            if reader.word("TABLE") {
                let name = reader.qualified()?;
                let table = self.table(reader)?;
                self.tables.insert(name, table);
            } else if reader.word("TYPE") {
                let name = reader.type_text(&["AS"])?;
                if reader.word("AS") && reader.word("ENUM") && reader.sign('(') {
                    let mut labels = Vec::new();
                    while let Some(label) = reader.string() {
                        labels.push(label);
                        reader.sign(',');
                    }
                    self.enums.insert(name, labels);
                }
            } else if reader.word("DOMAIN") {
                let name = reader.type_text(&["AS"])?;
                if reader.word("AS") {
                    let below = reader.type_text(&AFTER_TYPE)?;
                    let not_null = reader.refuses_null();
                    self.domains.insert(name, (below, not_null));
                }
            }
        } else if reader.word("ALTER") && reader.word("TABLE") {
            reader.word("ONLY");
            let name = reader.qualified()?;
            let is_key = reader.word("ADD")
                && reader.word("CONSTRAINT")
                && reader.name().is_some()
                && reader.word("PRIMARY")
                && reader.word("KEY");
            if is_key && reader.sign('(') {
                let key = reader.names();
                self.tables.entry(name).or_default().key = key;
            }
        }
        Some(())
    }

    /// What follows the name of a table.
    fn table(&self, reader: &mut Reader<'_, '_>) -> Option<TableDefinition> {
        let mut table = TableDefinition::default();
        let mut refused: Vec<String> = Vec::new();
        if reader.sign('(') {
            while !reader.sign(')') {
                let mut item = reader.item()?;
                if item.word("CONSTRAINT") {
                    item.name()?;
                    if item.word("NOT") && item.word("NULL") {
                        refused.extend(item.name());
                    } else if item.word("PRIMARY") && item.word("KEY") && item.sign('(') {
                        table.key = item.names();
                    }
                } else if let Some(name) = item.name() {
                    let Some(type_name) = item.type_text(&AFTER_TYPE) else { continue };
                    let generated = item.is_computed();
                    let not_null = item.refuses_null();
                    table.columns.push(Column { name, type_name, not_null, generated });
                }
                reader.sign(',');
            }
        }
        if reader.word("INHERITS") && reader.sign('(') {
            let mut inherited: Vec<Column> = Vec::new();
            while let Some(parent) = reader.qualified() {
                for column in self.tables.get(&parent).map_or(&[][..], |parent| &parent.columns) {
                    if inherited.iter().all(|there| there.name != column.name) {
                        inherited.push(column.clone());
                    }
                }
                reader.sign(',');
            }
            // A column that is written again is the same one, with something of its own.
            let own = table.columns.into_iter().filter(|own| {
                let there = inherited.iter_mut().find(|there| there.name == own.name);
                there.map(|there| there.clone_from(own)).is_none()
            });
            let own: Vec<Column> = own.collect();
            inherited.extend(own);
            table.columns = inherited;
        }
        for column in &mut table.columns {
            column.not_null |= refused.contains(&column.name);
        }
        Some(table)
    }
}

/// What may follow a type.
const AFTER_TYPE: [&str; 12] = [
    "COLLATE",
    "DEFAULT",
    "NOT",
    "NULL",
    "GENERATED",
    "CONSTRAINT",
    "COMPRESSION",
    "STORAGE",
    "OPTIONS",
    "CHECK",
    "PRIMARY",
    "UNIQUE",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    String,
    Sign(char),
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b' ' | b'\n' | b'\r' | b'\t' => {
                at += 1;
                continue;
            }
            b'-' if bytes[at..].starts_with(b"--") => {
                at = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
                continue;
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                at = text[at..].find("*/").map_or(bytes.len(), |end| at + end + 2);
                continue;
            }
            b'"' => {
                at = quoted_end(bytes, at, b'"', false);
                Kind::Quoted
            }
            b'\'' => {
                // `E'…'`: a backslash takes the next character with it.
                let escapes = start > 0 && matches!(bytes[start - 1], b'E' | b'e');
                at = quoted_end(bytes, at, b'\'', escapes);
                Kind::String
            }
            b'$' => match dollar_end(text, at) {
                Some(end) => {
                    at = end;
                    Kind::String
                }
                None => {
                    at += 1;
                    Kind::Sign('$')
                }
            },
            byte if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => {
                let is_part =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80;
                at += bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                Kind::Word
            }
            byte => {
                at += 1;
                Kind::Sign(char::from(byte))
            }
        };
        found.push(Token { kind, start, end: at });
    }
    found
}

/// The place after the quote that ends what begins at `at`; a doubled one stands for itself.
fn quoted_end(bytes: &[u8], at: usize, quote: u8, escapes: bool) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        if escapes && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    bytes.len()
}

fn dollar_end(text: &str, at: usize) -> Option<usize> {
    let tag_end = at + 1 + text[at + 1..].find('$')?;
    let tag = &text[at..=tag_end];
    let is_tag = tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_tag {
        return None;
    }
    Some(text[tag_end + 1..].find(tag).map_or(text.len(), |end| tag_end + 1 + end + tag.len()))
}

/// One statement, or a piece of it.
struct Reader<'t, 's> {
    text: &'t str,
    tokens: &'s [Token],
    at: usize,
}

impl<'t, 's> Reader<'t, 's> {
    fn slice(&self, token: Token) -> &'t str {
        // A backslash at the very end of a text that was cut may have been taken for two bytes.
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    fn next(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    /// Goes on if the next token is this word.
    fn word(&mut self, word: &str) -> bool {
        let is_it = self.next().is_some_and(|token| token.kind == Kind::Word && self.slice(token) == word);
        self.at += usize::from(is_it);
        is_it
    }

    fn sign(&mut self, sign: char) -> bool {
        let is_it = self.next().is_some_and(|token| token.kind == Kind::Sign(sign));
        self.at += usize::from(is_it);
        is_it
    }

    fn string(&mut self) -> Option<String> {
        let token = self.next().filter(|token| token.kind == Kind::String)?;
        self.at += 1;
        let text = self.slice(token);
        Some(text.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'"))
    }

    fn name(&mut self) -> Option<String> {
        let token = self.next()?;
        let name = match token.kind {
            Kind::Word => self.slice(token).to_owned(),
            Kind::Quoted => self.slice(token).strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\""),
            _ => return None,
        };
        self.at += 1;
        Some(name)
    }

    fn qualified(&mut self) -> Option<QualifiedName> {
        let schema = self.name()?;
        if !self.sign('.') {
            return None;
        }
        Some(QualifiedName::new(schema, self.name()?))
    }

    /// Names up to the closing bracket.
    fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            self.sign(',');
        }
        names
    }

    /// What stands before the next comma or the closing bracket of this level.
    fn item(&mut self) -> Option<Reader<'t, 's>> {
        let start = self.at;
        let mut depth = 0;
        loop {
            match self.next()?.kind {
                Kind::Sign('(') => depth += 1,
                Kind::Sign(')') if depth == 0 => break,
                Kind::Sign(')') => depth -= 1,
                Kind::Sign(',') if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        Some(Reader { text: self.text, tokens: &self.tokens[start..self.at], at: 0 })
    }

    /// A type as it is written, up to one of these words.
    fn type_text(&mut self, ends: &[&str]) -> Option<String> {
        let first = self.next()?;
        let mut last = None;
        while let Some(token) = self.next() {
            if token.kind == Kind::Word && ends.contains(&self.slice(token)) {
                break;
            }
            last = Some(token);
            self.at += 1;
        }
        Some(self.text.get(first.start..last?.end)?.to_owned())
    }

    /// Whether `NOT NULL` stands in what is left, outside of brackets.
    fn refuses_null(&self) -> bool {
        let mut depth = 0;
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        rest.windows(2).any(|pair| {
            match pair[0].kind {
                Kind::Sign('(') => depth += 1,
                Kind::Sign(')') => depth -= 1,
                _ => {}
            }
            depth == 0
                && pair.iter().all(|token| token.kind == Kind::Word)
                && (self.slice(pair[0]), self.slice(pair[1])) == ("NOT", "NULL")
        })
    }

    /// Whether `GENERATED ALWAYS AS (` stands in what is left.
    fn is_computed(&self) -> bool {
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        rest.windows(4).any(|window| {
            let words: Vec<&str> = window[..3].iter().map(|token| self.slice(*token)).collect();
            words == ["GENERATED", "ALWAYS", "AS"] && window[3].kind == Kind::Sign('(')
        })
    }
}

#[cfg(test)]
mod tests;
