//! What a person says of a SQLite file on the command line: tables, columns, what goes where, what numbers and local times mean. Pure.
//!
//! Names of SQLite compare without the case of ASCII letters, as SQLite compares them. A name with a dot in it stands in double
//! quotes: `--map '"a.b".c=d'`.

use std::fmt;

use chrono_tz::Tz;
use common::{Error, Result};

use crate::target::{ColumnRule, EpochUnit, Target};

/// A column of a SQLite table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
}

impl ColumnName {
    /// Whether it is this one.
    pub fn is(&self, table: &str, column: &str) -> bool {
        self.table.eq_ignore_ascii_case(table) && self.column.eq_ignore_ascii_case(column)
    }
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", written(&self.table), written(&self.column))
    }
}

/// A name as it is written in a flag.
pub fn written(name: &str) -> String {
    let plain = !name.is_empty() && !name.contains(['.', '=', '"']);
    common::ident::printable(&if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    })
}

/// `--map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Map {
    /// A table of SQLite, and the table of PostgreSQL, whose schema may be left out.
    Table(String, Option<String>, String),
    /// A column of SQLite, and the column of the table that takes its rows.
    Column(ColumnName, String),
}

/// Reads `a=b`, `a=schema.b`, `a.x=y` and `a.x=b.y`.
pub fn map(text: &str) -> Result<Map> {
    let invalid = || {
        Error::usage(format!("\"{text}\" is no --map"))
            .with_hint("Write --map TABLE=TABLE, --map TABLE=SCHEMA.TABLE or --map TABLE.COLUMN=COLUMN, SQLite's name first.")
    };
    let (from, to) = sides(text).ok_or_else(invalid)?;
    match (&*names(from).ok_or_else(invalid)?, &*names(to).ok_or_else(invalid)?) {
        ([table], [target]) => Ok(Map::Table(table.clone(), None, target.clone())),
        ([table], [schema, target]) => Ok(Map::Table(table.clone(), Some(schema.clone()), target.clone())),
        ([table, column], [.., target]) => {
            Ok(Map::Column(ColumnName { table: table.clone(), column: column.clone() }, target.clone()))
        }
        _ => Err(invalid()),
    }
}

/// Reads `table.column`.
pub fn column(text: &str) -> Result<ColumnName> {
    match names(text).as_deref() {
        Some([table, column]) => Ok(ColumnName { table: table.clone(), column: column.clone() }),
        _ => Err(Error::usage(format!("\"{text}\" is no column"))
            .with_hint("Write TABLE.COLUMN, as SQLite names them; a name with a dot in double quotes.")),
    }
}

/// Reads `table`.
pub fn table(text: &str) -> Result<String> {
    match names(text).as_deref() {
        Some([table]) => Ok(table.clone()),
        _ => Err(Error::usage(format!("\"{text}\" is no table of SQLite"))
            .with_hint("Write the table's name; one with a dot in it in double quotes.")),
    }
}

/// Reads `table.column=type`.
pub fn typed(text: &str) -> Result<(ColumnName, String)> {
    let invalid = || {
        Error::usage(format!("\"{text}\" is no --type"))
            .with_hint("Write --type TABLE.COLUMN=TYPE, such as --type orders.paid_at=timestamptz.")
    };
    let (name, wanted) = sides(text).ok_or_else(invalid)?;
    Ok((column(name).map_err(|_| invalid())?, wanted.trim().to_owned()))
}

/// Reads `unit` or `table.column=unit`.
pub fn epoch(text: &str) -> Result<(Option<ColumnName>, EpochUnit)> {
    let (name, unit) = sides(text).map_or((None, text), |(name, unit)| (Some(name), unit));
    let unit = match unit.trim() {
        "seconds" | "s" => EpochUnit::Seconds,
        "milliseconds" | "ms" => EpochUnit::Milliseconds,
        "microseconds" | "us" => EpochUnit::Microseconds,
        "nanoseconds" | "ns" => EpochUnit::Nanoseconds,
        "julian" => EpochUnit::JulianDay,
        _ => {
            return Err(Error::usage(format!("\"{text}\" is no --epoch")).with_hint(
                "Write --epoch UNIT or --epoch TABLE.COLUMN=UNIT; the units are seconds, milliseconds, microseconds, nanoseconds and julian.",
            ));
        }
    };
    Ok((name.map(column).transpose()?, unit))
}

/// Reads the name of a time zone.
pub fn time_zone(text: &str) -> Result<Tz> {
    text.parse().map_err(|_| {
        Error::usage(format!("\"{text}\" is no time zone"))
            .with_hint("Use a name such as UTC, Europe/Berlin or America/New_York.")
    })
}

/// The two sides of the first `=` outside of quotes.
fn sides(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '=' && !quoted
    });
    at.map(|(at, _)| (&text[..at], &text[at + 1..]))
}

/// The parts between dots; a part in double quotes may have any character, a quote of its own doubled. None may be empty.
fn names(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut name = String::new();
                let mut left = quoted;
                loop {
                    let at = left.find('"')?;
                    name.push_str(&left[..at]);
                    left = &left[at + 1..];
                    match left.strip_prefix('"') {
                        Some(further) => {
                            name.push('"');
                            left = further;
                        }
                        None => break (name, left),
                    }
                }
            }
            None => {
                let at = rest.find('.').unwrap_or(rest.len());
                (rest[..at].to_owned(), &rest[at..])
            }
        };
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(further) => rest = further,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

/// What numbers and local times mean, and whether empty text is NULL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meanings {
    /// `--epoch`; without a column it is for all dates and times.
    pub epochs: Vec<(Option<ColumnName>, EpochUnit)>,
    /// `--timezone`.
    pub timezone: Option<Tz>,
    /// `--null-empty-strings`.
    pub null_empty_strings: bool,
}

impl Meanings {
    /// How the values of a column are converted.
    pub fn rule(&self, name: &ColumnName, target: Target, nullable: bool) -> ColumnRule {
        let mut rule = ColumnRule::new(target);
        rule.zone = self.timezone;
        // Where NULL is refused, an empty text can be nothing but itself.
        rule.empty_is_null = self.null_empty_strings && nullable;
        let own = |(of, _): &&(Option<ColumnName>, EpochUnit)| {
            of.as_ref().is_some_and(|of| of.is(&name.table, &name.column))
        };
        let all = |(of, _): &&(Option<ColumnName>, EpochUnit)| of.is_none();
        // For all means all dates: how long an interval is has nothing to do with an epoch.
        let is_interval = rule.target == Target::Interval;
        let for_all = || self.epochs.iter().rfind(all).filter(|_| !is_interval);
        if let Some((_, unit)) = self.epochs.iter().rfind(own).or_else(for_all) {
            rule.epoch = Some(*unit);
        }
        rule
    }
}

/// The table that one of the maps gives for one of SQLite, with its schema if that was given.
pub fn map_of_table<'m>(maps: &'m [Map], table: &str) -> Option<(Option<&'m str>, &'m str)> {
    maps.iter().find_map(|map| match map {
        Map::Table(from, schema, to) if from.eq_ignore_ascii_case(table) => {
            Some((schema.as_deref(), to.as_str()))
        }
        _ => None,
    })
}

/// The column that one of the maps gives for one of SQLite.
pub fn map_of_column<'m>(maps: &'m [Map], name: &ColumnName) -> Option<&'m str> {
    maps.iter().find_map(|map| match map {
        Map::Column(from, to) if from.is(&name.table, &name.column) => Some(to.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_name_tables_and_columns() {
        let column = |table: &str, column: &str| ColumnName { table: table.into(), column: column.into() };
        for (text, read) in [
            ("a=b", Map::Table("a".into(), None, "b".into())),
            ("a=s.b", Map::Table("a".into(), Some("s".into()), "b".into())),
            ("a.x=y", Map::Column(column("a", "x"), "y".into())),
            ("a.x=b.y", Map::Column(column("a", "x"), "y".into())),
            ("\"a.b\".\"x=\"\"1\"=y", Map::Column(column("a.b", "x=\"1"), "y".into())),
        ] {
            assert_eq!(map(text).expect(text), read, "{text}");
        }
        for text in ["", "a", "a=", "=b", "a.b.c=d", "a=b.c.d", "\"a=b", "a..b=c", "\"a\"b=c"] {
            assert!(map(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_flag_names_is_read_back_from_how_it_is_written() {
        for name in ["plain", "with space", "a.b", "a=b", "q\"q", ".", "\"", "ü"] {
            let both = ColumnName { table: name.to_owned(), column: name.to_owned() };
            assert_eq!(column(&both.to_string()).expect(name), both, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_flags_never_panics(text in ".{0,40}") {
            let _ = (map(&text), column(&text), table(&text), typed(&text), epoch(&text));
        }

        #[test]
        fn any_name_can_be_written(name in "[^\\p{C}\u{ad}\u{2000}-\u{206f}]{1,12}") {
            let both = ColumnName { table: name.trim().to_owned(), column: name.trim().to_owned() };
            if !name.trim().is_empty() && name == name.trim() && common::ident::printable(&name) == name {
                proptest::prop_assert_eq!(column(&both.to_string()).unwrap(), both);
            }
        }
    }

    #[test]
    fn an_epoch_for_all_columns_is_none_for_intervals() {
        let name = ColumnName { table: "t".to_owned(), column: "c".to_owned() };
        let rule = |epochs: Vec<(Option<ColumnName>, EpochUnit)>, target| {
            Meanings { epochs, ..Meanings::default() }.rule(&name, target, true).epoch
        };
        let for_all = || vec![(None, EpochUnit::Seconds)];
        assert_eq!(rule(for_all(), Target::Date), Some(EpochUnit::Seconds));
        assert_eq!(rule(for_all(), Target::Interval), Some(EpochUnit::Microseconds));
        let named = vec![(Some(name.clone()), EpochUnit::Seconds)];
        assert_eq!(rule(named, Target::Interval), Some(EpochUnit::Seconds));
    }
}
