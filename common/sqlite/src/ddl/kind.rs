//! Kinds of values, between which operators mean the same in SQLite and in PostgreSQL.

use crate::target::Target;

/// What kind of value an expression has: operators mean the same only between certain kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Fraction,
    Text,
    Bytes,
    /// A string that takes the type of what stands beside it.
    Word,
    Null,
    Other,
}

impl Kind {
    pub fn of(target: &Target) -> Self {
        match target {
            Target::Bool => Self::Bool,
            Target::Int2 | Target::Int4 | Target::Int8 => Self::Integer,
            Target::Float4 | Target::Float8 | Target::Numeric(_) => Self::Fraction,
            Target::Text | Target::Varchar(_) | Target::Char(_) => Self::Text,
            Target::Bytea => Self::Bytes,
            _ => Self::Other,
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Fraction)
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Word)
    }
}

/// A column that an expression may name.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub name: String,
    /// As PostgreSQL's SQL names it.
    pub sql: String,
    /// The table, or its alias, by which a query may qualify it.
    pub table: String,
    pub kind: Kind,
    /// Whether its comparisons ignore case or blanks.
    pub has_collation: bool,
}
