//! What kind of value an expression of PostgreSQL has, as far as SQLite can compute with it in the form in which it is stored.

use super::types::{Form, SqliteType};

/// A kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    /// Doubles.
    Fraction,
    /// `real`, stored as the double of its shortest digits: only comparable with itself.
    Single,
    /// `numeric` that is stored as a number: SQLite compares it exactly, and computes with doubles.
    Decimal,
    /// `numeric` that may be stored as text.
    WideDecimal,
    Text,
    /// Text that is only compared for equality: enums.
    Label,
    Bytes,
    /// Text that sorts as the values do.
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    /// A string that takes the type of what stands beside it.
    Word,
    Null,
    Other,
}

impl Kind {
    pub fn of(column: &SqliteType) -> Self {
        match column.form {
            Form::Bool => Self::Bool,
            Form::Integer => Self::Integer,
            Form::Double => Self::Fraction,
            Form::Single => Self::Single,
            Form::Decimal => Self::Decimal,
            Form::WideDecimal => Self::WideDecimal,
            Form::Text => Self::Text,
            Form::Label => Self::Label,
            Form::Bytes => Self::Bytes,
            Form::Date => Self::Date,
            Form::Time => Self::Time,
            Form::Timestamp => Self::Timestamp,
            Form::TimestampTz => Self::TimestampTz,
            Form::Uuid => Self::Uuid,
            Form::Padded | Form::Other => Self::Other,
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Fraction | Self::Decimal)
    }

    /// Whether `<` means the same.
    pub fn has_order(self) -> bool {
        self.is_number()
            || matches!(
                self,
                Self::Bool
                    | Self::Single
                    | Self::Bytes
                    | Self::Date
                    | Self::Time
                    | Self::Timestamp
                    | Self::TimestampTz
                    | Self::Uuid
            )
    }

    /// Whether `=` means the same.
    pub fn has_equality(self) -> bool {
        self.has_order() || matches!(self, Self::Text | Self::Label)
    }
}
