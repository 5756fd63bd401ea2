//! What a column of PostgreSQL holds, and by which rule a value of SQLite becomes one.

use std::{fmt, sync::Arc};

use chrono_tz::Tz;

/// The type of a column in PostgreSQL, as far as values depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, or `numeric(precision, scale)`. A scale may be negative (15 and later).
    Numeric(Option<(u16, i16)>),
    /// `text`, and what behaves like it: `citext`, `name`, `varchar` without a length.
    Text,
    /// `varchar(n)`: at most n characters.
    Varchar(u32),
    /// `char(n)`: blanks at the end mean nothing.
    Char(u32),
    /// An enum, with its labels.
    Enum(Arc<[String]>),
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time(p)`; p is the number of digits after the second's point, 6 by default.
    Time(u8),
    /// `timestamp(p)` without time zone.
    Timestamp(u8),
    /// `timestamp(p)` with time zone.
    TimestampTz(u8),
    /// `interval`
    Interval,
    /// `uuid`
    Uuid,
    /// `json`: the text is kept as it is.
    Json,
    /// `jsonb`: the value is kept, not its text.
    Jsonb,
    /// An array, with the type of its elements.
    Array(Box<Target>),
    /// Any other type, by its text form. PostgreSQL may give back another text for the same value: compare there.
    Other(String),
}

impl Target {
    /// Reads what `format_type(atttypid, atttypmod)` says, of the base type where the column's is a domain. `labels` are an
    /// enum's, in their order.
    pub fn parse(format_type: &str, labels: Option<&[String]>) -> Self {
        if let Some(labels) = labels {
            let base = Self::Enum(labels.into());
            return if format_type.trim_end().ends_with("[]") { Self::Array(Box::new(base)) } else { base };
        }
        let text = format_type.trim();
        if let Some(element) = text.strip_suffix("[]") {
            return Self::Array(Box::new(Self::parse(element.trim_end_matches("[]"), None)));
        }
        let (name, arguments, rest) = split_modifier(text);
        let number = |at: usize| arguments.get(at).copied();
        let digits = || number(0).and_then(|p| u8::try_from(p).ok()).unwrap_or(6).min(6);
        match (name, rest) {
            ("boolean" | "bool", "") => Self::Bool,
            ("smallint" | "int2" | "smallserial", "") => Self::Int2,
            ("integer" | "int" | "int4" | "serial", "") => Self::Int4,
            ("bigint" | "int8" | "bigserial", "") => Self::Int8,
            ("real" | "float4", "") => Self::Float4,
            ("double precision" | "float8" | "float", "") => Self::Float8,
            ("numeric" | "decimal", "") => {
                Self::Numeric(number(0).and_then(|p| {
                    Some((u16::try_from(p).ok()?, i16::try_from(number(1).unwrap_or(0)).ok()?))
                }))
            }
            ("text" | "citext" | "name", "") => Self::Text,
            ("character varying" | "varchar", "") => match number(0).and_then(|n| u32::try_from(n).ok()) {
                Some(n) => Self::Varchar(n),
                None => Self::Text,
            },
            ("character" | "char", "") => {
                Self::Char(number(0).and_then(|n| u32::try_from(n).ok()).unwrap_or(1))
            }
            // `bpchar` without a length: blanks at the end mean nothing, and any length fits.
            ("bpchar", "") => Self::Char(number(0).and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX)),
            ("bytea", "") => Self::Bytea,
            ("date", "") => Self::Date,
            ("time", "" | "without time zone") => Self::Time(digits()),
            ("timestamp", "" | "without time zone") => Self::Timestamp(digits()),
            ("timestamp", "with time zone") | ("timestamptz", "") => Self::TimestampTz(digits()),
            ("interval", "") if arguments.is_empty() || number(0) == Some(6) => Self::Interval,
            ("uuid", "") => Self::Uuid,
            ("json", "") => Self::Json,
            ("jsonb", "") => Self::Jsonb,
            _ => match text.rsplit_once('.').map(|(_, last)| last.trim_matches('"')) {
                Some("citext") => Self::Text,
                _ => Self::Other(text.to_owned()),
            },
        }
    }

    /// Whether PostgreSQL rounds, cuts or completes values of this type without an error, in a way that is not known here: a value
    /// could be another one afterwards, and nothing would tell.
    pub fn changes_values(&self) -> bool {
        match self {
            Self::Array(element) => element.changes_values(),
            Self::Other(name) => {
                let bare = name.strip_prefix("pg_catalog.").unwrap_or(name);
                let end = bare.find([' ', '(']).unwrap_or(bare.len());
                let name = &bare[..end];
                ["money", "\"char\"", "oid", "xid", "xid8", "cid", "interval", "time", "timetz"]
                    .contains(&name)
            }
            _ => false,
        }
    }

    /// Whether PostgreSQL gives a value back in a form that [`crate::hash`] can compute from the value that was sent. Where not,
    /// a difference of hashes has to be looked at by the server: it may be the same value in another spelling.
    pub fn has_canonical_form(&self) -> bool {
        match self {
            Self::Other(_) => false,
            Self::Array(element) => element.has_canonical_form(),
            _ => true,
        }
    }
}

/// `numeric(10,2)` → `numeric`, [10, 2], ``; `timestamp(3) with time zone` → `timestamp`, [3], `with time zone`.
fn split_modifier(text: &str) -> (&str, Vec<i64>, &str) {
    if let Some((name, rest)) = text.split_once('(')
        && let Some((inner, after)) = rest.split_once(')')
    {
        let arguments: Option<Vec<i64>> = inner.split(',').map(|part| part.trim().parse().ok()).collect();
        return (name.trim_end(), arguments.unwrap_or_default(), after.trim());
    }
    for name in ["timestamp", "time"] {
        if let Some(rest) = text.strip_prefix(name)
            && rest.starts_with(' ')
        {
            return (name, Vec::new(), rest.trim());
        }
    }
    (text, Vec::new(), "")
}

impl fmt::Display for Target {
    /// The type as SQL writes it; an enum as `enum`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_digits = |f: &mut fmt::Formatter<'_>, name: &str, digits: u8, zone: &str| {
            if digits < 6 { write!(f, "{name}({digits}){zone}") } else { write!(f, "{name}{zone}") }
        };
        match self {
            Self::Bool => f.write_str("boolean"),
            Self::Int2 => f.write_str("smallint"),
            Self::Int4 => f.write_str("integer"),
            Self::Int8 => f.write_str("bigint"),
            Self::Float4 => f.write_str("real"),
            Self::Float8 => f.write_str("double precision"),
            Self::Numeric(None) => f.write_str("numeric"),
            Self::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Self::Text => f.write_str("text"),
            Self::Varchar(n) => write!(f, "varchar({n})"),
            Self::Char(u32::MAX) => f.write_str("bpchar"),
            Self::Char(n) => write!(f, "char({n})"),
            Self::Enum(_) => f.write_str("enum"),
            Self::Bytea => f.write_str("bytea"),
            Self::Date => f.write_str("date"),
            Self::Time(digits) => with_digits(f, "time", *digits, ""),
            Self::Timestamp(digits) => with_digits(f, "timestamp", *digits, ""),
            Self::TimestampTz(digits) => with_digits(f, "timestamp", *digits, " with time zone"),
            Self::Interval => f.write_str("interval"),
            Self::Uuid => f.write_str("uuid"),
            Self::Json => f.write_str("json"),
            Self::Jsonb => f.write_str("jsonb"),
            Self::Array(element) => write!(f, "{element}[]"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What a number means in a column of dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochUnit {
    /// Seconds since 1970-01-01 00:00 UTC; a fraction has at most six digits.
    Seconds,
    /// Milliseconds since then.
    Milliseconds,
    /// Microseconds since then.
    Microseconds,
    /// Nanoseconds since then, in whole microseconds.
    Nanoseconds,
    /// The Julian day number, to the millisecond as SQLite's own functions read it.
    JulianDay,
}

impl fmt::Display for EpochUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
            Self::JulianDay => "Julian days",
        })
    }
}

/// How one column's values are converted.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRule {
    /// The type that takes them.
    pub target: Target,
    /// Empty text becomes NULL.
    pub empty_is_null: bool,
    /// What a number means in a date, time, timestamp or interval. Without it such a number is refused.
    pub epoch: Option<EpochUnit>,
    /// The zone of times without an offset (into `timestamptz`), and into which an offset is turned for `timestamp`. Without it
    /// the first are refused, and of the second all whose offset is not zero.
    pub zone: Option<Tz>,
}

impl ColumnRule {
    /// The rule without options, but for intervals: a number there is microseconds, as Django and Tortoise write it.
    pub fn new(target: Target) -> Self {
        let epoch = (target == Target::Interval).then_some(EpochUnit::Microseconds);
        Self { target, empty_is_null: false, epoch, zone: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_calls_a_type_is_understood() {
        for (text, target) in [
            ("boolean", Target::Bool),
            ("numeric(10,2)", Target::Numeric(Some((10, 2)))),
            ("numeric(5,-2)", Target::Numeric(Some((5, -2)))),
            ("numeric", Target::Numeric(None)),
            ("character varying(20)", Target::Varchar(20)),
            ("character varying", Target::Text),
            ("character(3)", Target::Char(3)),
            ("bpchar", Target::Char(u32::MAX)),
            ("time without time zone", Target::Time(6)),
            ("timestamp(3) without time zone", Target::Timestamp(3)),
            ("timestamp with time zone", Target::TimestampTz(6)),
            ("timestamp(0) with time zone", Target::TimestampTz(0)),
            ("integer[]", Target::Array(Box::new(Target::Int4))),
            ("numeric(4,1)[]", Target::Array(Box::new(Target::Numeric(Some((4, 1)))))),
            ("public.citext", Target::Text),
            ("\"char\"", Target::Other("\"char\"".to_owned())),
            ("time with time zone", Target::Other("time with time zone".to_owned())),
            ("interval day to second", Target::Other("interval day to second".to_owned())),
        ] {
            assert_eq!(Target::parse(text, None), target, "{text}");
        }
        for text in
            ["money", "money[]", "\"char\"", "oid", "interval(3)", "interval day to second", "timetz(3)"]
        {
            assert!(Target::parse(text, None).changes_values(), "{text}");
        }
        for text in ["interval", "time(3) without time zone", "inet", "xml", "integer[]", "character(3)"] {
            assert!(!Target::parse(text, None).changes_values(), "{text}");
        }
        let labels = ["a".to_owned()];
        assert_eq!(Target::parse("mood", Some(&labels)), Target::Enum(labels.to_vec().into()));
    }
}
