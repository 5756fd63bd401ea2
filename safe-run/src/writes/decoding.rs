//! Reads what the plugin `test_decoding` prints, one line per change. Pure. It must never guess: a line that is not
//! understood to its end is an error, and no error says what stands in a row.

use common::{Error, QualifiedName, Result};

/// One line of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A transaction begins; its 32-bit id.
    Begin(u32),
    /// It ends.
    Commit {
        /// Its id.
        xid: u32,
        /// When it was committed, as the server says it.
        at: String,
    },
    /// A row changed.
    Change(Change),
    /// Tables were emptied by one statement.
    Truncate(Vec<QualifiedName>),
    /// A message that somebody wrote into the log: nothing of the database's content.
    Message,
}

/// One changed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table that holds the row: of a partitioned one, the partition.
    pub table: QualifiedName,
    /// What happened to it.
    pub row: Row,
}

/// What happened to a row. Without columns, the log does not hold them: the table has no replica identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A new one.
    Insert(Vec<Field>),
    /// Another content.
    Update {
        /// What it is found by, if that changed or is all of the row. Nulls are left out.
        old: Option<Vec<Field>>,
        /// The new content.
        new: Vec<Field>,
    },
    /// Gone; what it was found by. Nulls are left out.
    Delete(Vec<Field>),
}

/// A column of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// A large value that the UPDATE left as it was, and that is not in the log.
    Unchanged,
    /// The text that the type's output function gives.
    Text(String),
}

/// Reads one line.
pub fn parse(line: &str) -> Result<Line> {
    let mut rest = Rest(line);
    rest.line().ok_or_else(|| {
        Error::damaged(format!(
            "what the server tells of a change can't be read, from byte {} of {} on",
            line.len() - rest.0.len(),
            line.len()
        ))
    })
}

const NO_DATA: &str = " (no-tuple-data)";

/// What has not been read yet.
struct Rest<'l>(&'l str);

impl<'l> Rest<'l> {
    fn eat(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn eats(&mut self, text: &str) -> bool {
        self.eat(text).is_some()
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'l str {
        let (found, rest) = self.0.split_at(self.0.find(ends).unwrap_or(self.0.len()));
        self.0 = rest;
        found
    }

    fn line(&mut self) -> Option<Line> {
        if self.eats("BEGIN ") {
            let xid = self.until(|c| !c.is_ascii_digit()).parse().ok()?;
            self.end()?;
            return Some(Line::Begin(xid));
        }
        if self.eats("COMMIT ") {
            let xid = self.until(|c| !c.is_ascii_digit()).parse().ok()?;
            let mut at = "";
            if self.eats(" (at ") {
                at = self.until(|c| c == ')');
                self.eat(")")?;
            }
            self.end()?;
            return Some(Line::Commit { xid, at: at.to_owned() });
        }
        if self.eats("message: ") {
            return Some(Line::Message);
        }
        self.eat("table ")?;
        let mut tables = vec![self.qualified()?];
        while self.eats(", ") {
            tables.push(self.qualified()?);
        }
        self.eat(": ")?;
        if self.eats("TRUNCATE:") {
            // `restart_seqs`, `cascade` or `(no-flags)`: the tables are all named.
            while self.eats(" ") {
                let flag = self.until(|c| c == ' ');
                ["restart_seqs", "cascade", "(no-flags)"].contains(&flag).then_some(())?;
            }
            self.end()?;
            return Some(Line::Truncate(tables));
        }
        let row = if self.eats("INSERT:") {
            Row::Insert(self.all_fields()?)
        } else if self.eats("UPDATE:") {
            let old = if self.eats(" old-key:") {
                let old = self.fields()?;
                self.eat(" new-tuple:")?;
                Some(old)
            } else {
                None
            };
            Row::Update { old, new: self.all_fields()? }
        } else {
            self.eat("DELETE:")?;
            Row::Delete(self.all_fields()?)
        };
        let table = tables.pop()?;
        // Only TRUNCATE names several.
        tables.is_empty().then_some(Line::Change(Change { table, row }))
    }

    fn qualified(&mut self) -> Option<QualifiedName> {
        let schema = self.ident()?;
        self.eat(".")?;
        Some(QualifiedName::new(schema, self.ident()?))
    }

    /// A name as quote_identifier() writes it.
    fn ident(&mut self) -> Option<String> {
        if self.eats("\"") {
            return self.quoted('"');
        }
        let name = self.until(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// To the closing quote; a doubled one stands for itself.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        loop {
            text.push_str(self.until(|c| c == quote));
            let mut chars = self.0.chars();
            chars.next()?;
            self.0 = chars.as_str();
            match self.0.strip_prefix(quote) {
                Some(rest) => self.0 = rest,
                None => return Some(text),
            }
            text.push(quote);
        }
    }

    fn all_fields(&mut self) -> Option<Vec<Field>> {
        if self.eats(NO_DATA) {
            self.end()?;
            return Some(Vec::new());
        }
        let fields = self.fields()?;
        self.end()?;
        Some(fields)
    }

    /// As many as there are.
    fn fields(&mut self) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while !self.0.is_empty() && !self.0.starts_with(" new-tuple:") {
            self.eat(" ")?;
            let name = self.ident()?;
            self.eat("[")?;
            self.type_name()?;
            self.eat(":")?;
            fields.push(Field { name, value: self.value()? });
        }
        Some(fields)
    }

    /// A type's name and the bracket that ends it; names in quotes may hold brackets, and arrays have some.
    fn type_name(&mut self) -> Option<()> {
        let mut open = 0;
        loop {
            self.until(|c| matches!(c, '"' | '[' | ']'));
            if self.eats("\"") {
                self.quoted('"')?;
            } else if self.eats("[") {
                open += 1;
            } else {
                self.eat("]")?;
                if open == 0 {
                    return Some(());
                }
                open -= 1;
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        if self.eats("'") || self.eats("B'") {
            return self.quoted('\'').map(Value::Text);
        }
        let bare = self.until(|c| c == ' ');
        match bare {
            "" => None,
            "null" => Some(Value::Null),
            "unchanged-toast-datum" => Some(Value::Unchanged),
            "true" => Some(Value::Text("t".to_owned())),
            "false" => Some(Value::Text("f".to_owned())),
            // Numbers, NaN and the infinities.
            number => {
                let is_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
                number.chars().all(is_number).then(|| Value::Text(number.to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, value: &str) -> Field {
        Field { name: name.to_owned(), value: Value::Text(value.to_owned()) }
    }

    #[test]
    fn lines_of_real_servers_are_read() {
        let table = QualifiedName::new("public", "t");
        let change = |row| Line::Change(Change { table: table.clone(), row });
        let null = |name: &str| Field { name: name.to_owned(), value: Value::Null };
        let unchanged = |name: &str| Field { name: name.to_owned(), value: Value::Unchanged };
        for (text, line) in [
            ("BEGIN 735", Line::Begin(735)),
            (
                "COMMIT 735 (at 2026-11-21 03:41:49.5+00)",
                Line::Commit { xid: 735, at: "2026-11-21 03:41:49.5+00".to_owned() },
            ),
            ("COMMIT 735", Line::Commit { xid: 735, at: String::new() }),
            ("message: transactional: 1 prefix: a, sz: 3 content:a'b", Line::Message),
            (
                "table public.t: INSERT: id[integer]:1 f[double precision]:-Infinity b[boolean]:true \
                 v[character varying]:'it''s \\ [x]:' n[text]:null bits[bit varying]:B'101' a[integer[]]:'{1,2}'",
                change(Row::Insert(vec![
                    field("id", "1"),
                    field("f", "-Infinity"),
                    field("b", "t"),
                    field("v", "it's \\ [x]:"),
                    null("n"),
                    field("bits", "101"),
                    field("a", "{1,2}"),
                ])),
            ),
            (
                "table public.t: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 big[text]:unchanged-toast-datum",
                change(Row::Update {
                    old: Some(vec![field("id", "1")]),
                    new: vec![field("id", "2"), unchanged("big")],
                }),
            ),
            ("table public.t: DELETE: (no-tuple-data)", change(Row::Delete(Vec::new()))),
            (
                "table public.t: DELETE: \"old-key\"[app.\"a]\"\"[:\"[]]:' new-tuple: x[text]:''y'''",
                change(Row::Delete(vec![field("old-key", " new-tuple: x[text]:'y'")])),
            ),
            (
                "table public.t, \"S p\".\"T, u\": TRUNCATE: restart_seqs cascade",
                Line::Truncate(vec![table.clone(), QualifiedName::new("S p", "T, u")]),
            ),
            ("table public.t: TRUNCATE: (no-flags)", Line::Truncate(vec![table.clone()])),
        ] {
            assert_eq!(parse(text).unwrap(), line, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error_that_shows_no_row() {
        for text in [
            "",
            "BEGIN",
            "BEGIN x",
            "COMMIT 1 (at",
            "table public.t",
            "table public.t: UPSERT: a[text]:'x'",
            "table public.t: INSERT: a[text]:'secret",
            "table public.t: INSERT: a[text]:secret'",
            "table public.t: INSERT: a[text:'secret'",
            "table public.t: INSERT: a[text]:'secret' b",
            "table public.t: UPDATE: old-key: a[text]:'secret'",
            "table public.t, public.u: DELETE: a[text]:'secret'",
            "table public.t: TRUNCATE: whatever",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    /// What the plugin does, written down again from its source.
    fn render_fields(fields: &[(Field, u8)]) -> String {
        let quote_ident = |name: &str| {
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
            if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        let mut text = String::new();
        for (Field { name, value }, kind) in fields {
            let type_name = ["text", "integer[]", "app.\"odd] \"\" [\"", "character varying"];
            let type_name = type_name[usize::from(*kind) % type_name.len()];
            let value = match value {
                Value::Null => "null".to_owned(),
                Value::Unchanged => "unchanged-toast-datum".to_owned(),
                Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            };
            text.push_str(&format!(" {}[{type_name}]:{value}", quote_ident(name)));
        }
        text
    }

    fn any_fields() -> impl Strategy<Value = Vec<(Field, u8)>> {
        let value = prop_oneof![
            Just(Value::Null),
            Just(Value::Unchanged),
            ".{0,20}".prop_map(Value::Text),
            "['\"\\\\\\[\\]: \n]{0,12}".prop_map(Value::Text),
            Just(Value::Text(" new-tuple: a[text]:'b'".to_owned())),
        ];
        let name = prop_oneof!["[a-z_]{1,8}", "[a-zA-Z\"\\[\\]:. é-]{1,10}"];
        proptest::collection::vec(
            ((name, value).prop_map(|(name, value)| Field { name, value }), 0u8..4),
            1..6,
        )
    }

    fn only(fields: &[(Field, u8)]) -> Vec<Field> {
        fields.iter().map(|(field, _)| field.clone()).collect()
    }

    proptest! {
        #[test]
        fn every_row_reads_back_as_it_was(old in any_fields(), new in any_fields(), name in "[a-zA-Z\". ]{1,9}") {
            let table = QualifiedName::new("s", name.as_str());
            let quoted = format!("s.\"{}\"", name.replace('"', "\"\""));
            let (old_text, new_text) = (render_fields(&old), render_fields(&new));
            let (old, new) = (only(&old), only(&new));
            for (text, row) in [
                (format!("INSERT:{new_text}"), Row::Insert(new.clone())),
                (format!("UPDATE:{new_text}"), Row::Update { old: None, new: new.clone() }),
                (
                    format!("UPDATE: old-key:{old_text} new-tuple:{new_text}"),
                    Row::Update { old: Some(old.clone()), new },
                ),
                (format!("DELETE:{old_text}"), Row::Delete(old)),
            ] {
                let read = parse(&format!("table {quoted}: {text}")).unwrap();
                prop_assert_eq!(read, Line::Change(Change { table: table.clone(), row }));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(table |BEGIN |COMMIT |public\\.t|: INSERT:|: UPDATE: old-key:| new-tuple:| a\\[text\\]:|'|\"|\\[|\\]|.){0,25}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_line_that_was_cut_never_reads_as_another_row(new in any_fields(), cut in 0usize..200) {
            let whole = format!("table s.t: INSERT:{}", render_fields(&new));
            let end = (0..=cut.min(whole.len())).rev().find(|&at| whole.is_char_boundary(at)).unwrap_or(0);
            if let Ok(Line::Change(Change { row: Row::Insert(read), .. })) = parse(&whole[..end]) {
                // Cut between two columns, or between the two quotes that stand for one.
                let all = only(&new);
                prop_assert!(read.len() <= all.len());
                for (read, was) in read.iter().zip(&all).take(read.len().saturating_sub(1)) {
                    prop_assert_eq!(read, was);
                }
            }
        }
    }
}
