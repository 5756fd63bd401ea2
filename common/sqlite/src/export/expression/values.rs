//! Two values in one expression: what they have in common, and what comes out.

use super::{Translated, Value, expect};
use crate::export::kind::Kind;

pub(super) fn both_conditions(left: &Value, operator: &str, right: &Value) -> Translated {
    expect(left.kind == Kind::Bool && right.kind == Kind::Bool, "AND or OR of what is no condition")?;
    Ok(Value::new(format!("({} {operator} {})", left.sql, right.sql), Kind::Bool))
}

/// Two values that are compared: a constant without a type takes that of the other.
pub(super) fn alike(left: Value, right: Value) -> Result<(Value, Value), String> {
    let typed = |value: Value, kind: Kind| match (value.kind, kind) {
        (Kind::Word, Kind::Text | Kind::Label | Kind::Uuid) => Ok(Value { kind, ..value }),
        (Kind::Word, _) => Err("a constant whose type is not plain".to_owned()),
        _ => Ok(value),
    };
    let (left, right) = if left.kind == Kind::Word {
        let kind = right.kind;
        (typed(left, kind)?, right)
    } else {
        let kind = left.kind;
        (left, typed(right, kind)?)
    };
    let is_fine = left.kind == right.kind
        || (left.kind.is_number() && right.kind.is_number())
        || matches!((left.kind, right.kind), (Kind::Text, Kind::Label) | (Kind::Label, Kind::Text));
    expect(is_fine, "a comparison of values of different types")?;
    Ok((left, right))
}

/// Integers only: of decimals SQLite computes with doubles, and NaN is text.
pub(super) fn computed(left: &Value, operator: &str, right: &Value) -> Translated {
    let kind = match (left.kind, right.kind) {
        (Kind::Integer, Kind::Integer) => Kind::Integer,
        _ => {
            return Err("SQLite computes otherwise with what is no integer (NaN, decimals, dates)".to_owned());
        }
    };
    Ok(Value::new(format!("({} {operator} {})", left.sql, right.sql), kind))
}

pub(super) fn common_kind(kinds: &[Kind]) -> Result<Kind, String> {
    let mut found = Kind::Null;
    for kind in kinds {
        found = match (found, *kind) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (Kind::Text, Kind::Word) | (Kind::Word, Kind::Text) => Kind::Text,
            (one, other) if one == other => one,
            (Kind::Integer, Kind::Decimal) | (Kind::Decimal, Kind::Integer) => Kind::Decimal,
            _ => return Err("values of different types".to_owned()),
        };
    }
    Ok(if found == Kind::Word { Kind::Text } else { found })
}
