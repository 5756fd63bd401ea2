//! Whether a column that gets another type is written anew: the rules by which the server leaves values as they are.
//!
//! It does if no value is computed: the cast only renames the type, a length only grows, a domain checks nothing. What is not known here
//! is not said.

use std::collections::BTreeMap;

/// A type, as far as it matters.
#[derive(Debug, Clone)]
pub struct Type {
    /// As a person writes it.
    pub name: String,
    /// Of a domain, what it is made of, with the modifier.
    pub base: Option<(u32, i32)>,
    /// Of an array, its elements.
    pub element: Option<u32>,
    /// The array of it.
    pub array: Option<u32>,
    /// It is one of text.
    pub is_string: bool,
    /// Of a domain: it has constraints of its own.
    pub is_constrained: bool,
}

/// How a cast works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// The values stay as they are.
    Relabelled,
    /// A function makes new ones.
    Computed,
}

/// What becomes of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They stay as they are.
    Kept,
    /// They are computed.
    Computed,
    /// It can't be told.
    Unknown,
}

/// The types and the casts between them.
#[derive(Debug, Default)]
pub struct Types {
    /// By oid.
    pub all: BTreeMap<u32, Type>,
    /// By source and target.
    pub casts: BTreeMap<(u32, u32), Cast>,
    /// Whether the time zone of the migrations is UTC; nothing where a file sets it.
    pub is_utc: Option<bool>,
}

const TEXT: u32 = 25;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const INTERVAL: u32 = 1186;
const TIMETZ: u32 = 1266;
const BIT: u32 = 1560;
const VARBIT: u32 = 1562;
const NUMERIC: u32 = 1700;
/// Bytes that the modifiers of texts and numerics count along.
const HEADER: i32 = 4;
/// The most digits behind a second.
const MAX_PRECISION: i32 = 6;
/// An interval with all of its fields.
const ALL_FIELDS: i32 = 0x7FFF << 16;

/// The modifier that stands in parentheses; nothing where it is not known.
pub fn modifier(oid: u32, written: &[String]) -> Option<i32> {
    let numbers: Option<Vec<i32>> = written.iter().map(|word| word.parse().ok()).collect();
    match (oid, numbers?.as_slice()) {
        (_, []) => Some(-1),
        (BPCHAR | VARCHAR, [length]) => Some(length.checked_add(HEADER)?),
        (BIT | VARBIT, [length]) => Some(*length),
        (NUMERIC, [precision]) => Some((precision << 16) + HEADER),
        (NUMERIC, [precision, scale]) => Some(((precision << 16) | (scale & 0x7FF)) + HEADER),
        (TIME | TIMETZ | TIMESTAMP | TIMESTAMPTZ, [precision]) => Some(*precision),
        (INTERVAL, [precision]) => Some(ALL_FIELDS | precision),
        _ => None,
    }
}

/// Whether values of a type keep to a new modifier as they are; nothing for a type that is not known.
fn fits(oid: u32, old: i32, new: i32) -> Option<bool> {
    Some(match oid {
        VARCHAR | VARBIT => old >= 0 && old <= new,
        BPCHAR | BIT => false,
        NUMERIC => {
            let scale = |modifier: i32| (modifier - HEADER) & 0x7FF;
            let precision = |modifier: i32| (modifier - HEADER) >> 16;
            old >= HEADER && scale(old) == scale(new) && precision(old) <= precision(new)
        }
        TIME | TIMETZ | TIMESTAMP | TIMESTAMPTZ => new >= MAX_PRECISION || (old >= 0 && new >= old),
        INTERVAL if new & ALL_FIELDS == ALL_FIELDS && (old < 0 || old & ALL_FIELDS == ALL_FIELDS) => {
            let digits = |modifier: i32| if modifier < 0 { MAX_PRECISION } else { modifier & 0xFFFF };
            digits(new) >= MAX_PRECISION || (old >= 0 && digits(new) >= digits(old))
        }
        _ => return None,
    })
}

impl Types {
    /// How a type is called.
    pub fn name(&self, oid: u32) -> &str {
        self.all.get(&oid).map_or("", |of| &of.name)
    }

    /// What a domain is made of in the end, and whether anything is checked on the way.
    fn base(&self, mut oid: u32) -> (u32, i32, bool) {
        let (mut modifier, mut is_checked) = (-1, false);
        while let Some(of) = self.all.get(&oid) {
            let Some((base, own)) = of.base else { break };
            is_checked |= of.is_constrained;
            if modifier < 0 {
                modifier = own;
            }
            oid = base;
        }
        (oid, modifier, is_checked)
    }

    /// Whether a domain, or one that it is made of, has constraints.
    pub fn is_constrained(&self, oid: u32) -> bool {
        self.base(oid).2
    }

    /// A column's values, cast from type to type.
    pub fn cast(&self, from: (u32, i32), to: &[(u32, Option<i32>)]) -> Change {
        let mut at = from;
        let mut change = Change::Kept;
        for (target, modifier) in to {
            let (one, reached) = self.step(at, *target, *modifier);
            match one {
                Change::Computed => return Change::Computed,
                Change::Unknown => change = Change::Unknown,
                Change::Kept => {}
            }
            at = reached;
        }
        change
    }

    fn step(&self, from: (u32, i32), target: u32, modifier: Option<i32>) -> (Change, (u32, i32)) {
        if from.0 == target && self.all.get(&target).is_some_and(|of| of.base.is_some()) {
            return (Change::Kept, from);
        }
        let (to, own, is_checked) = self.base(target);
        let wanted = if own >= 0 { Some(own) } else { modifier };
        let (source, _, _) = self.base(from.0);
        let (cast, held) = match source == to {
            true => (Change::Kept, if source == from.0 { from.1 } else { -1 }),
            false => (self.between(source, to), -1),
        };
        let length = match wanted {
            Some(wanted) if wanted < 0 || wanted == held => Change::Kept,
            // An array's elements are computed one by one, even where each stays.
            Some(_) if self.all.get(&to).is_some_and(|of| of.element.is_some()) => Change::Computed,
            Some(wanted) => match fits(to, held, wanted) {
                Some(true) => Change::Kept,
                Some(false) => Change::Computed,
                None => Change::Unknown,
            },
            None => Change::Unknown,
        };
        let all = [cast, length, if is_checked { Change::Computed } else { Change::Kept }];
        let change = if all.contains(&Change::Computed) {
            Change::Computed
        } else if all.contains(&Change::Unknown) {
            Change::Unknown
        } else {
            Change::Kept
        };
        (change, (target, wanted.unwrap_or(-1)))
    }

    /// Between two types that are no domains.
    fn between(&self, from: u32, to: u32) -> Change {
        if [(TIMESTAMP, TIMESTAMPTZ), (TIMESTAMPTZ, TIMESTAMP)].contains(&(from, to)) {
            return match self.is_utc {
                Some(true) => Change::Kept,
                Some(false) => Change::Computed,
                None => Change::Unknown,
            };
        }
        if let Some(cast) = self.casts.get(&(from, to)) {
            return match cast {
                Cast::Relabelled => Change::Kept,
                Cast::Computed => Change::Computed,
            };
        }
        let (Some(source), Some(target)) = (self.all.get(&from), self.all.get(&to)) else {
            return Change::Unknown;
        };
        if source.element.is_some() && target.element.is_some() {
            return Change::Computed;
        }
        // Through their text.
        if source.is_string || target.is_string { Change::Computed } else { Change::Unknown }
    }

    /// Whether an index over values of one type serves values of the other, where these are the same.
    pub fn share_an_index(&self, from: u32, to: u32) -> bool {
        let family = |oid: u32| match self.base(oid).0 {
            VARCHAR => TEXT,
            other => other,
        };
        family(from) == family(to)
    }
}
