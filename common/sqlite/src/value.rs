//! A value as SQLite holds it, and why a column of PostgreSQL can't hold it.

use std::fmt;

use common::ident::printable;

use crate::target::ColumnRule;

/// One value in SQLite's storage classes. Text is the bytes as they are stored: nothing promises that they are UTF-8, or
/// free of the byte 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// An integer of 64 bits.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text, in UTF-8 if it is valid.
    Text(&'a [u8]),
    /// Text of a UTF-16 database that is no valid UTF-16: its bytes.
    BrokenText(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

impl Cell<'_> {
    /// The storage class as SQLite's `typeof` says it.
    pub fn storage_class(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "integer",
            Self::Real(_) => "real",
            Self::Text(_) | Self::BrokenText(_) => "text",
            Self::Blob(_) => "blob",
        }
    }
}

impl Cell<'_> {
    /// The bytes that tell it from others of its storage class.
    pub(crate) fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Self::Null => (&[]).into(),
            Self::Integer(value) => value.to_le_bytes().to_vec().into(),
            Self::Real(value) => value.to_bits().to_le_bytes().to_vec().into(),
            Self::Text(bytes) | Self::BrokenText(bytes) | Self::Blob(bytes) => (*bytes).into(),
        }
    }
}

/// Longest piece of a value that a message shows, in characters.
const SHOWN_CHARS: usize = 60;

impl fmt::Display for Cell<'_> {
    /// The value as a message shows it: shortened, with nothing that a terminal would obey.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:?}"),
            Self::Text(bytes) => {
                // A character has at most four bytes: what is cut off here would not be shown anyway.
                let head = &bytes[..bytes.len().min(SHOWN_CHARS * 4 + 4)];
                let text = String::from_utf8_lossy(head);
                let shown: String = text.chars().take(SHOWN_CHARS).collect();
                let dots =
                    if shown.len() < bytes.len() && text.chars().count() > SHOWN_CHARS { "…" } else { "" };
                write!(f, "'{}'{dots}", printable(&shown))
            }
            Self::BrokenText(bytes) | Self::Blob(bytes) => {
                let shown = &bytes[..bytes.len().min(SHOWN_CHARS / 2)];
                let dots = if shown.len() < bytes.len() { "…" } else { "" };
                write!(f, "x'{}'{dots}", common::digest::hex(shown))
            }
        }
    }
}

/// A value that a column can't hold exactly: which rule says so, and the value, shortened. Table, key and column are
/// the caller's to add.
#[derive(Debug, Clone, PartialEq)]
pub struct BadValue {
    /// The rule that it breaks.
    pub rule: Rule,
    /// The value as a message shows it.
    pub value: String,
    /// SQLite's storage class of it.
    pub storage_class: &'static str,
    /// The type that should take it.
    pub target: String,
}

impl BadValue {
    pub(crate) fn new(rule: Rule, cell: Cell<'_>, column: &ColumnRule) -> Self {
        Self {
            rule,
            value: cell.to_string(),
            storage_class: cell.storage_class(),
            target: column.target.to_string(),
        }
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} does not fit {}: {}", self.storage_class, self.value, self.target, self.rule)
    }
}

/// Why a value is refused. One word each for counting; [`fmt::Display`] is the reason as a person reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// The storage class has no meaning in this type.
    StorageClass,
    /// The text has not the form of this type.
    Form,
    /// Outside of what the type holds.
    Range,
    /// More digits after the point than the column keeps.
    Scale,
    /// Longer than `varchar(n)` or `char(n)` allows.
    Length,
    /// Conversion would round.
    NotExact,
    /// −0.0, whose sign the type does not keep.
    NegativeZero,
    /// Infinity or NaN, which the type does not have.
    NotFinite,
    /// No valid UTF-8 (or UTF-16).
    InvalidText,
    /// The byte 0 in text.
    ZeroByte,
    /// A boolean is 0 or 1 (or a word for them).
    NotBoolean,
    /// The day, month, hour, minute or second does not exist.
    NoSuchDate,
    /// A time of day in a date, or a date in a time, that would be lost.
    PartWouldBeLost,
    /// A date as a number, and nobody said in which unit.
    EpochUnit,
    /// No offset, and nobody said in which time zone it is.
    ZoneMissing,
    /// An offset, in a column without a time zone, and nobody said in which zone its times are.
    ZoneUnwanted,
    /// A local time that exists twice or never in the time zone.
    LocalTime,
    /// No JSON, or deeper than 128 levels.
    Json,
    /// `\u0000` in jsonb, or half of a surrogate pair.
    JsonText,
    /// No UUID of 32 or 36 characters or 16 bytes.
    Uuid,
    /// None of the enum's labels.
    EnumLabel,
    /// Neither PostgreSQL's form of an array nor a JSON array of scalars.
    Array,
}

impl Rule {
    /// The name for machines, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::StorageClass => "storage-class",
            Self::Form => "form",
            Self::Range => "range",
            Self::Scale => "scale",
            Self::Length => "length",
            Self::NotExact => "not-exact",
            Self::NegativeZero => "negative-zero",
            Self::NotFinite => "not-finite",
            Self::InvalidText => "invalid-text",
            Self::ZeroByte => "zero-byte",
            Self::NotBoolean => "not-boolean",
            Self::NoSuchDate => "no-such-date",
            Self::PartWouldBeLost => "part-would-be-lost",
            Self::EpochUnit => "epoch-unit",
            Self::ZoneMissing => "zone-missing",
            Self::ZoneUnwanted => "zone-unwanted",
            Self::LocalTime => "local-time",
            Self::Json => "json",
            Self::JsonText => "json-text",
            Self::Uuid => "uuid",
            Self::EnumLabel => "enum-label",
            Self::Array => "array",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StorageClass => "a value of this storage class has no meaning in that type",
            Self::Form => "the text has not the form of that type",
            Self::Range => "it is outside of the type's range",
            Self::Scale => "it has more digits after the point than the column keeps",
            Self::Length => "it is longer than the column allows",
            Self::NotExact => "the conversion would round it",
            Self::NegativeZero => "the type does not keep the sign of -0.0",
            Self::NotFinite => "the type has no infinity and no NaN",
            Self::InvalidText => "the text is not valid in the file's own encoding",
            Self::ZeroByte => "text of PostgreSQL can't hold the byte 0",
            Self::NotBoolean => "a boolean is 0 or 1, true or false, t or f, yes or no, on or off",
            Self::NoSuchDate => "there is no such date or time",
            Self::PartWouldBeLost => "a part of it (the date, or the time of day) would be lost",
            Self::EpochUnit => "it is a date as a number, and its unit is not known",
            Self::ZoneMissing => "it has no offset from UTC, and its time zone is not known",
            Self::ZoneUnwanted => {
                "it has an offset from UTC, and the time zone of the column's times is not known"
            }
            Self::LocalTime => "this local time exists twice or never in the time zone",
            Self::Json => "it is no JSON (or is nested deeper than 128 levels)",
            Self::JsonText => "jsonb holds neither \\u0000 nor half of a surrogate pair",
            Self::Uuid => "a UUID has 32 hexadecimal digits, with or without hyphens, or 16 bytes",
            Self::EnumLabel => "the enum has no such label",
            Self::Array => "it is neither an array as PostgreSQL writes it nor a JSON array of scalars",
        })
    }
}
