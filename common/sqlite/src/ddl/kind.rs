//! Kinds of values, between which operators mean the same in SQLite and in PostgreSQL.

use crate::target::Target;

/// What kind of value an expression has: operators mean the same only between certain kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    /// Doubles, with which SQLite computes.
    Fraction,
    /// What PostgreSQL computes with otherwise than SQLite, which takes doubles: `numeric`, constants with a point, `real`.
    Decimal,
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
            Target::Float8 => Self::Fraction,
            Target::Float4 | Target::Numeric(_) => Self::Decimal,
            Target::Text | Target::Varchar(_) | Target::Char(_) => Self::Text,
            Target::Bytea => Self::Bytes,
            _ => Self::Other,
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Fraction | Self::Decimal)
    }

    /// Whether a column of this type holds what an expression of this kind gives, without a change.
    pub fn fits(self, target: &Target) -> bool {
        matches!(
            (self, target),
            (Self::Null, _)
                | (Self::Bool, Target::Bool)
                | (Self::Bytes, Target::Bytea)
                | (Self::Integer, Target::Int2 | Target::Int4 | Target::Int8)
                | (Self::Integer | Self::Fraction | Self::Decimal, Target::Float8)
                | (Self::Integer | Self::Decimal, Target::Numeric(None))
                | (Self::Text | Self::Word, Target::Text | Target::Varchar(_))
        )
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
