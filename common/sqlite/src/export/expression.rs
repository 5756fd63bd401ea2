//! Expressions of PostgreSQL as pg_dump writes them (fully bracketed, with casts), translated where operators and functions mean the
//! same in SQLite on the values as they are stored. Everything else is an error that says why.

mod values;

use super::{
    kind::Kind,
    literals,
    tokens::{Token, Tokens, tokens},
    types::Types,
};
use crate::export::expression::values::{alike, both_conditions, common_kind, computed};

/// A translated expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// SQL of SQLite, in brackets where it is more than one term.
    pub sql: String,
    pub kind: Kind,
    /// The text of a constant.
    pub word: Option<String>,
}

impl Value {
    fn new(sql: impl Into<String>, kind: Kind) -> Self {
        Self { sql: sql.into(), kind, word: None }
    }

    pub fn of_word(word: &str) -> Self {
        Self { sql: literals::text(word), kind: Kind::Word, word: Some(word.to_owned()) }
    }
}

/// A column that an expression may name.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The table, its alias, or nothing.
    pub table: String,
    pub name: String,
    /// As SQLite's SQL names it.
    pub sql: String,
    pub kind: Kind,
}

/// What an expression is translated with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub columns: &'a [Known],
    pub types: &'a Types,
    /// Whether functions may come that differ for letters beyond ASCII: an index that only makes queries fast.
    pub is_lenient: bool,
    /// Whether the rows are compared with what comes out, as those under a CHECK are: dates are text, which sorts as they do from the
    /// year 1 to 9999.
    pub is_checked: bool,
}

type Translated = Result<Value, String>;

impl Scope<'_> {
    /// Translates a whole expression.
    pub fn translate(&self, sql: &str) -> Translated {
        let all = tokens(sql)?;
        self.whole(Tokens::new(sql, &all))
    }

    /// Translates what must be a condition.
    pub fn condition(&self, sql: &str) -> Result<String, String> {
        let value = self.translate(sql)?;
        if value.kind == Kind::Bool { Ok(value.sql) } else { Err("it is no condition".to_owned()) }
    }

    pub fn whole(&self, mut rest: Tokens<'_>) -> Translated {
        let value = self.or(&mut rest)?;
        if rest.is_at_end() {
            Ok(value)
        } else {
            Err(format!("`{}` is not translated", shortened(rest.text())))
        }
    }

    fn or(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut left = self.and(rest)?;
        while rest.words(&["OR"]) {
            left = both_conditions(&left, "OR", &self.and(rest)?)?;
        }
        Ok(left)
    }

    fn and(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut left = self.not(rest)?;
        while rest.words(&["AND"]) {
            left = both_conditions(&left, "AND", &self.not(rest)?)?;
        }
        Ok(left)
    }

    fn not(&self, rest: &mut Tokens<'_>) -> Translated {
        if !rest.words(&["NOT"]) {
            return self.is(rest);
        }
        let value = self.not(rest)?;
        expect(value.kind == Kind::Bool, "NOT of what is no condition")?;
        Ok(Value::new(format!("(NOT {})", value.sql), Kind::Bool))
    }

    fn is(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut left = self.comparison(rest)?;
        while rest.words(&["IS"]) {
            let not = if rest.words(&["NOT"]) { " NOT" } else { "" };
            left = if rest.words(&["NULL"]) {
                Value::new(format!("({} IS{not} NULL)", left.sql), Kind::Bool)
            } else if rest.words(&["DISTINCT", "FROM"]) {
                let right = self.comparison(rest)?;
                let (left, right) = alike(left, right)?;
                expect(left.kind.has_equality(), "a comparison of values that SQLite does not compare so")?;
                // IS NOT is `is distinct from` there.
                let not = if not.is_empty() { " NOT" } else { "" };
                Value::new(format!("({} IS{not} {})", left.sql, right.sql), Kind::Bool)
            } else {
                expect(left.kind == Kind::Bool, "IS of what is no condition")?;
                let word = ["TRUE", "FALSE", "UNKNOWN"]
                    .into_iter()
                    .find(|word| rest.words(&[word]))
                    .ok_or("IS of something unknown")?;
                let word = if word == "UNKNOWN" { "NULL" } else { word };
                Value::new(format!("({} IS{not} {word})", left.sql), Kind::Bool)
            };
        }
        Ok(left)
    }

    fn comparison(&self, rest: &mut Tokens<'_>) -> Translated {
        let left = self.other(rest)?;
        let Some(Token::Mark(mark)) = rest.peek() else { return Ok(left) };
        if !["=", "<>", "<", "<=", ">", ">="].contains(&mark.as_str()) {
            return Ok(left);
        }
        rest.next();
        let is_list = match mark.as_str() {
            "=" if rest.words(&["ANY"]) => Some("IN"),
            "<>" if rest.words(&["ALL"]) => Some("NOT IN"),
            _ => None,
        };
        if let Some(operator) = is_list {
            return self.in_list(left, operator, &mut rest.bracket()?);
        }
        let right = self.other(rest)?;
        let (left, right) = alike(left, right)?;
        let is_fine = match mark.as_str() {
            "=" | "<>" => left.kind.has_equality() && right.kind.has_equality(),
            _ => {
                let is_text = matches!(left.kind, Kind::Date | Kind::Timestamp | Kind::TimestampTz);
                left.kind.has_order() && right.kind.has_order() && (self.is_checked || !is_text)
            }
        };
        expect(is_fine, "a comparison that goes by other rules in SQLite (collations, decimals as text)")?;
        Ok(Value::new(format!("({} {mark} {})", left.sql, right.sql), Kind::Bool))
    }

    /// `= ANY (ARRAY[…])`, also with casts around the array.
    fn in_list(&self, left: Value, operator: &str, rest: &mut Tokens<'_>) -> Translated {
        let values = self.array(rest)?;
        expect(!values.is_empty() && rest.is_at_end(), "ANY of what is no list of constants")?;
        let mut left = left;
        let mut texts = Vec::new();
        for value in values {
            let (same, value) = alike(left.clone(), value)?;
            expect(value.kind.has_equality(), "a comparison that goes by other rules in SQLite")?;
            left = same;
            texts.push(value.sql);
        }
        Ok(Value::new(format!("({} {operator} ({}))", left.sql, texts.join(", ")), Kind::Bool))
    }

    fn array(&self, rest: &mut Tokens<'_>) -> Result<Vec<Value>, String> {
        let values = if rest.words(&["ARRAY"]) {
            expect(rest.mark("["), "an array that is unknown")?;
            let mut values = Vec::new();
            while !rest.mark("]") {
                values.push(self.or(rest)?);
                if !rest.mark(",") && !rest.peek().is_some_and(|token| token.is_mark("]")) {
                    return Err("an array that is unknown".to_owned());
                }
            }
            values
        } else if let Some(Token::Text(text)) = rest.peek() {
            rest.next();
            let elements = crate::array::parse(text.as_bytes()).map_err(|_| "an array that is unknown")?;
            let word = |element: &crate::array::Element| match element {
                crate::array::Element::Text(text) => Ok(Value::of_word(&String::from_utf8_lossy(text))),
                _ => Err("an array that holds NULL or arrays".to_owned()),
            };
            elements.iter().map(word).collect::<Result<_, _>>()?
        } else {
            let mut inner = rest.bracket().map_err(|_| "ANY of what is no list of constants")?;
            let values = self.array(&mut inner)?;
            expect(inner.is_at_end(), "an array that is unknown")?;
            values
        };
        if !rest.mark("::") {
            return Ok(values);
        }
        let text = type_name(rest);
        let element = text.strip_suffix("[]").ok_or("a cast of an array to what is none")?;
        values.iter().map(|value| self.cast(value, element)).collect()
    }

    /// Operators between comparisons and arithmetic: `||` and patterns.
    fn other(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut left = self.sum(rest)?;
        while let Some(Token::Mark(mark)) = rest.peek() {
            match mark.as_str() {
                "||" => {
                    rest.next();
                    let right = self.sum(rest)?;
                    let is_text = |value: &Value| matches!(value.kind, Kind::Text | Kind::Word);
                    expect(is_text(&left) && is_text(&right), "|| of what is not text")?;
                    left = Value::new(format!("({} || {})", left.sql, right.sql), Kind::Text);
                }
                "~~" | "!~~" => {
                    rest.next();
                    let right = self.sum(rest)?;
                    let pattern = right.word.as_deref().ok_or("a pattern that is no constant")?;
                    expect(left.kind == Kind::Text, "LIKE of what is not text")?;
                    let not = if mark == "~~" { "" } else { "NOT " };
                    let glob = literals::text(&literals::glob(pattern)?);
                    left = Value::new(format!("({} {not}GLOB {glob})", left.sql), Kind::Bool);
                }
                "=" | "<>" | "<" | "<=" | ">" | ">=" | "," | ")" | "]" | "::" | ";" => break,
                other => return Err(format!("the operator {other} has no equal in SQLite")),
            }
        }
        Ok(left)
    }

    fn sum(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut left = self.product(rest)?;
        while let Some(mark) = ["+", "-"].into_iter().find(|mark| rest.mark(mark)) {
            left = computed(&left, mark, &self.product(rest)?)?;
        }
        Ok(left)
    }

    fn product(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut left = self.unary(rest)?;
        loop {
            if rest.mark("*") {
                left = computed(&left, "*", &self.unary(rest)?)?;
            } else if rest.peek().is_some_and(|token| token.is_mark("/") || token.is_mark("%")) {
                return Err("division by zero is NULL in SQLite".to_owned());
            } else {
                return Ok(left);
            }
        }
    }

    fn unary(&self, rest: &mut Tokens<'_>) -> Translated {
        if rest.mark("-") {
            let value = self.unary(rest)?;
            // NaN is text.
            let is_fine = value.kind == Kind::Integer || (value.kind.is_number() && value.word.is_some());
            expect(is_fine, "the negative of what may be NaN, or of no number")?;
            return Ok(Value::new(format!("(- {})", value.sql), value.kind));
        }
        let mut value = self.term(rest)?;
        loop {
            if rest.mark("::") {
                value = self.cast(&value, &type_name(rest))?;
            } else if rest.words(&["COLLATE"]) || rest.peek().is_some_and(|token| token.is_mark("[")) {
                return Err("a collation or an element of an array".to_owned());
            } else if rest.words(&["AT", "TIME", "ZONE"]) {
                return Err("a time zone".to_owned());
            } else {
                return Ok(value);
            }
        }
    }

    fn term(&self, rest: &mut Tokens<'_>) -> Translated {
        match rest.peek() {
            Some(Token::Mark(mark)) if mark == "(" => {
                let inner = rest.bracket()?;
                self.whole(inner)
            }
            Some(Token::Text(text)) => {
                rest.next();
                Ok(Value::of_word(text))
            }
            Some(Token::Number(text)) => {
                rest.next();
                let kind = if text.bytes().all(|byte| byte.is_ascii_digit()) {
                    Kind::Integer
                } else {
                    Kind::Decimal
                };
                let is_exact = text.bytes().filter(u8::is_ascii_digit).count() <= 15;
                expect(is_exact, "a number of more digits than SQLite keeps")?;
                Ok(Value { sql: text.clone(), kind, word: Some(text.clone()) })
            }
            Some(Token::Word(word)) => {
                let word = word.to_ascii_lowercase();
                if let Some(constant) = ["true", "false"].into_iter().find(|constant| *constant == word) {
                    rest.next();
                    return Ok(Value { sql: constant.to_uppercase(), kind: Kind::Bool, word: Some(word) });
                }
                match word.as_str() {
                    "null" => {
                        rest.next();
                        Ok(Value::new("NULL", Kind::Null))
                    }
                    "case" => {
                        rest.next();
                        self.case(rest)
                    }
                    _ => self.named(rest),
                }
            }
            Some(Token::Quoted(_)) => self.named(rest),
            _ => Err(format!("`{}` is not translated", shortened(rest.text()))),
        }
    }

    /// A column or a function.
    fn named(&self, rest: &mut Tokens<'_>) -> Translated {
        let is_quoted = matches!(rest.peek(), Some(Token::Quoted(_)));
        let first = rest.name()?;
        if !is_quoted && rest.peek().is_some_and(|token| token.is_mark("(")) {
            let arguments = rest.bracket()?;
            return self.function(&first.to_ascii_lowercase(), arguments);
        }
        let (table, name) = if rest.mark(".") { (Some(first), rest.name()?) } else { (None, first) };
        if rest.peek().is_some_and(|token| token.is_mark("(") || token.is_mark(".")) {
            return Err(format!("{name} has no equal in SQLite"));
        }
        let mut found = self
            .columns
            .iter()
            .filter(|known| known.name == name && table.as_ref().is_none_or(|table| *table == known.table));
        match (found.next(), found.next()) {
            (Some(known), None) => Ok(Value::new(known.sql.clone(), known.kind)),
            (None, _) => Err(format!("{name} is no column that is exported, and nothing that SQLite has")),
            _ => Err(format!("{name} is in several tables")),
        }
    }

    fn function(&self, name: &str, arguments: Tokens<'_>) -> Translated {
        let mut values = Vec::new();
        let mut parts = arguments.list();
        if name == "trim" {
            for part in &mut parts {
                part.words(&["BOTH", "FROM"]);
            }
        }
        for part in parts {
            values.push(self.whole(part)?);
        }
        let kinds: Vec<Kind> = values.iter().map(|value| value.kind).collect();
        let call = |name: &str, kind: Kind| {
            let arguments: Vec<&str> = values.iter().map(|value| value.sql.as_str()).collect();
            Ok(Value::new(format!("{name}({})", arguments.join(", ")), kind))
        };
        match (name, kinds.as_slice()) {
            ("length" | "char_length" | "character_length", [Kind::Text]) => call("length", Kind::Integer),
            ("length" | "octet_length", [Kind::Bytes]) => call("length", Kind::Integer),
            ("btrim" | "trim", [Kind::Text]) => call("trim", Kind::Text),
            ("ltrim", [Kind::Text]) => call("ltrim", Kind::Text),
            ("rtrim", [Kind::Text]) => call("rtrim", Kind::Text),
            ("replace", [Kind::Text, Kind::Text | Kind::Word, Kind::Text | Kind::Word]) => {
                call("replace", Kind::Text)
            }
            ("lower" | "upper", [Kind::Text]) if self.is_lenient => call(name, Kind::Text),
            ("lower" | "upper", _) => Err(format!("{name} knows only ASCII letters in SQLite")),
            ("abs", [Kind::Integer]) => call("abs", Kind::Integer),
            ("coalesce", [_, _, ..]) => {
                let kind = common_kind(&kinds)?;
                call("coalesce", kind)
            }
            ("nullif", [_, _]) => {
                let kind = common_kind(&kinds)?;
                expect(kind.has_equality(), "a comparison that goes by other rules in SQLite")?;
                call("nullif", kind)
            }
            _ => Err(format!("the function {name} has no equal in SQLite")),
        }
    }

    fn case(&self, rest: &mut Tokens<'_>) -> Translated {
        let mut sql = "(CASE".to_owned();
        let mut kinds = Vec::new();
        expect(rest.peek().is_some_and(|token| token.is_word("WHEN")), "CASE with a value of its own")?;
        while rest.words(&["WHEN"]) {
            let condition = self.or(rest)?;
            expect(condition.kind == Kind::Bool && rest.words(&["THEN"]), "CASE of what is no condition")?;
            let value = self.or(rest)?;
            sql.push_str(&format!(" WHEN {} THEN {}", condition.sql, value.sql));
            kinds.push(value.kind);
        }
        if rest.words(&["ELSE"]) {
            let value = self.or(rest)?;
            sql.push_str(&format!(" ELSE {}", value.sql));
            kinds.push(value.kind);
        }
        expect(rest.words(&["END"]), "CASE without its end")?;
        Ok(Value::new(format!("{sql} END)"), common_kind(&kinds)?))
    }

    /// A cast that changes nothing about the stored value, or of a constant.
    pub fn cast(&self, value: &Value, to: &str) -> Translated {
        let target = self.types.of(to);
        let has_length = to.contains('(');
        let kind = Kind::of(&target);
        if let (Kind::Word, Some(word)) = (value.kind, &value.word) {
            return Ok(Value { sql: literals::constant(word, &target)?, kind, word: Some(word.clone()) });
        }
        let same = |kind: Kind| Value { kind, ..value.clone() };
        match (value.kind, kind) {
            (Kind::Null, _) => Ok(Value::new("NULL", kind)),
            (Kind::Text | Kind::Label, Kind::Text) if !has_length => Ok(same(Kind::Text)),
            (Kind::Integer, Kind::Integer) => Ok(same(Kind::Integer)),
            (Kind::Integer | Kind::Decimal, Kind::Decimal | Kind::WideDecimal) if !has_length => {
                Ok(same(Kind::Decimal))
            }
            (Kind::Integer, Kind::Fraction) => {
                Ok(Value::new(format!("CAST({} AS REAL)", value.sql), Kind::Fraction))
            }
            (Kind::Integer, Kind::Text) if !has_length => {
                Ok(Value::new(format!("CAST({} AS TEXT)", value.sql), Kind::Text))
            }
            (Kind::Bool, Kind::Integer) => Ok(same(Kind::Integer)),
            (from, to) if from == to && !has_length && from != Kind::Other => Ok(same(to)),
            _ => Err(format!("the cast to {to} has no equal in SQLite")),
        }
    }
}

fn expect(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// The name of a type behind `::`, with its arguments and brackets.
fn type_name(rest: &mut Tokens<'_>) -> String {
    const SECOND_WORDS: [&str; 9] =
        ["varying", "precision", "with", "without", "time", "zone", "to", "day", "second"];
    let mut name = rest.until(|rest| match rest.peek() {
        Some(Token::Mark(mark)) => !matches!(mark.as_str(), "." | "(" | "["),
        _ => true,
    });
    // The loop below takes words one by one: `until` ends at each.
    let mut text = String::new();
    loop {
        text.push_str(name.text());
        let Some(token) = rest.peek() else { break };
        let is_more = match token {
            Token::Word(word) => {
                text.is_empty()
                    || text.ends_with('.')
                    || SECOND_WORDS.contains(&word.to_ascii_lowercase().as_str())
            }
            Token::Quoted(_) => text.is_empty() || text.ends_with('.'),
            _ => false,
        };
        if !is_more {
            break;
        }
        if !text.is_empty() && !text.ends_with('.') {
            text.push(' ');
        }
        match rest.next() {
            Some(Token::Quoted(name)) => text.push_str(&common::ident::Ident::new(name.as_str()).to_string()),
            Some(token) => text.push_str(token.name().unwrap_or_default()),
            None => break,
        }
        name = rest.until(|rest| match rest.peek() {
            Some(Token::Mark(mark)) => !matches!(mark.as_str(), "." | "(" | "["),
            _ => true,
        });
    }
    text
}
