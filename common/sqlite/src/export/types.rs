//! Which type of PostgreSQL is stored in which form. docs/sqlite-values.md has the same table for people.

use std::collections::HashMap;

use super::tokens::tokens;
use crate::target::Target;

/// In which form values of a type are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// 0 and 1.
    Bool,
    Integer,
    /// A double: REAL, and NaN as text.
    Double,
    /// `real`: the double of its shortest digits.
    Single,
    /// `numeric` of 15 digits at most: a number, which a double holds exactly as far as its digits go.
    Decimal,
    /// `numeric` of more digits: an integer or a double where one has exactly these digits, the digits as text otherwise.
    WideDecimal,
    Text,
    /// `char(n)`, whose blanks at the end mean nothing to PostgreSQL.
    Padded,
    /// An enum's label.
    Label,
    Bytes,
    Date,
    Time,
    Timestamp,
    /// As text in UTC.
    TimestampTz,
    Uuid,
    /// Everything else: the text that PostgreSQL writes.
    Other,
}

/// How a column is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SqliteType {
    /// The type in PostgreSQL: the import's rule for reading the value back.
    pub target: Target,
    pub form: Form,
}

/// Digits that a double keeps of every decimal number.
const DOUBLE_KEEPS: u16 = 15;

impl SqliteType {
    pub fn new(target: Target) -> Self {
        let form = match &target {
            Target::Bool => Form::Bool,
            Target::Int2 | Target::Int4 | Target::Int8 => Form::Integer,
            Target::Float8 => Form::Double,
            Target::Float4 => Form::Single,
            Target::Numeric(Some((precision, _))) if *precision <= DOUBLE_KEEPS => Form::Decimal,
            Target::Numeric(_) => Form::WideDecimal,
            Target::Text | Target::Varchar(_) => Form::Text,
            Target::Char(_) => Form::Padded,
            Target::Enum(_) => Form::Label,
            Target::Bytea => Form::Bytes,
            Target::Date => Form::Date,
            Target::Time(_) => Form::Time,
            Target::Timestamp(_) => Form::Timestamp,
            Target::TimestampTz(_) => Form::TimestampTz,
            Target::Uuid => Form::Uuid,
            Target::Interval | Target::Json | Target::Jsonb | Target::Array(_) | Target::Other(_) => {
                Form::Other
            }
        };
        Self { target, form }
    }

    /// The type that the column is declared with where the table is not STRICT. None of them lets SQLite change a value: what is stored
    /// as text in a column of numbers (dates, UUIDs, NaN) never looks like a number.
    pub fn declared(&self) -> String {
        match self.form {
            Form::Bool => "BOOLEAN".to_owned(),
            Form::Integer => "INTEGER".to_owned(),
            Form::Double | Form::Single => "REAL".to_owned(),
            Form::Decimal => match &self.target {
                Target::Numeric(Some((precision, scale))) => format!("NUMERIC({precision},{scale})"),
                _ => "NUMERIC".to_owned(),
            },
            // Without a type SQLite changes nothing.
            Form::WideDecimal => String::new(),
            Form::Text | Form::Padded | Form::Label | Form::Other => "TEXT".to_owned(),
            Form::Bytes => "BLOB".to_owned(),
            Form::Date => "DATE".to_owned(),
            Form::Time => "TIME".to_owned(),
            Form::Timestamp => "TIMESTAMP".to_owned(),
            Form::TimestampTz => "TIMESTAMPTZ".to_owned(),
            Form::Uuid => "UUID".to_owned(),
        }
    }

    /// The type in a STRICT table. `None`: the declared type says more than a STRICT table can.
    pub fn strict(&self) -> Option<&'static str> {
        match self.form {
            Form::Integer => Some("INTEGER"),
            Form::Double | Form::Single => Some("REAL"),
            Form::WideDecimal => Some("ANY"),
            Form::Text | Form::Padded | Form::Label | Form::Other => Some("TEXT"),
            Form::Bytes => Some("BLOB"),
            _ => None,
        }
    }
}

/// A type of the database's own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Defined {
    Enum(Vec<String>),
    Domain(Domain),
    /// Composite types, ranges and base types.
    Other,
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Domain {
    pub base: String,
    pub is_not_null: bool,
    pub default: Option<String>,
    /// The conditions, about VALUE.
    pub checks: Vec<String>,
}

/// The database's own types by schema and name.
#[derive(Debug, Clone, Default)]
pub(super) struct Types(pub HashMap<(String, String), Defined>);

/// More domains over domains than anybody has: an archive from elsewhere may have a circle.
const DEPTH: usize = 32;

impl Types {
    /// The type of the database's own that this name means.
    pub fn defined(&self, text: &str) -> Option<&Defined> {
        let all = tokens(text).ok()?;
        let names: Vec<&str> = all.iter().filter_map(|placed| placed.token.name()).collect();
        match (names.as_slice(), all.len()) {
            ([schema, name], 3) => self.0.get(&((*schema).to_owned(), (*name).to_owned())),
            _ => None,
        }
    }

    /// The domains of a type, the outermost first.
    pub fn domains(&self, text: &str) -> Vec<&Domain> {
        let mut found = Vec::new();
        let mut text = text;
        while let Some(Defined::Domain(domain)) = self.defined(text) {
            if found.len() >= DEPTH {
                break;
            }
            found.push(domain);
            text = &domain.base;
        }
        found
    }

    /// What a type is, through its domains.
    pub fn of(&self, text: &str) -> SqliteType {
        let base = self.domains(text).last().map_or(text, |domain| domain.base.as_str());
        let element = base.trim_end_matches("[]");
        let target = match self.defined(element) {
            Some(Defined::Enum(labels)) => Target::parse(base, Some(labels)),
            Some(_) => Target::Other(base.to_owned()),
            None => Target::parse(base, None),
        };
        SqliteType::new(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_followed_through_domains() {
        let key = |name: &str| ("public".to_owned(), name.to_owned());
        let domain = |base: &str| Defined::Domain(Domain { base: base.to_owned(), ..Domain::default() });
        let types = Types(HashMap::from([
            (key("mood"), Defined::Enum(vec!["a".to_owned()])),
            (key("Cents"), domain("public.money2")),
            (key("money2"), domain("numeric(10,2)")),
            (key("loop"), domain("public.loop")),
            (key("pair"), Defined::Other),
        ]));
        for (text, form) in [
            ("integer", Form::Integer),
            ("public.mood", Form::Label),
            ("public.mood[]", Form::Other),
            ("public.\"Cents\"", Form::Decimal),
            ("numeric(16,2)", Form::WideDecimal),
            ("public.loop", Form::Other),
            ("public.pair", Form::Other),
            ("timestamp(3) with time zone", Form::TimestampTz),
            ("public.citext", Form::Text),
            ("inet", Form::Other),
        ] {
            assert_eq!(types.of(text).form, form, "{text}");
        }
    }
}
