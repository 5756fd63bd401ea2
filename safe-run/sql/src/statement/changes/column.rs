//! ADD COLUMN, ADD CONSTRAINT, and the types that statements name.

use super::{Change, Constraint, Kept, NewColumn, Source, TypeName, Using, columns};
use crate::{
    statement::{TableName, locks::Reader, names},
    token::TokenKind,
};

/// What begins a constraint of a column, or whatever else stands behind its type.
const CONSTRAINTS: [&str; 11] = [
    "constraint",
    "not",
    "null",
    "default",
    "check",
    "unique",
    "primary",
    "references",
    "generated",
    "collate",
    "deferrable",
];

impl Reader<'_> {
    /// What stands behind ADD.
    pub(super) fn added(&self, mut at: usize, end: usize) -> Option<Change> {
        let mut name = None;
        if self.is(at, "constraint") {
            let (given, after) = self.column(at + 1, end)?;
            (name, at) = (Some(given), after);
        } else if self.is(at, "column") || !self.begins_a_constraint(at) {
            return self.new_column(at + usize::from(self.is(at, "column")), end).map(Change::AddColumn);
        }
        let has = |words: &[&str]| (at..end).any(|at| self.starts(at, words));
        let is_deferred = has(&["not", "valid"]) || has(&["not", "enforced"]);
        let constraint = self.constraint(at, end)?;
        Some(Change::AddConstraint { name, constraint, is_deferred })
    }

    fn begins_a_constraint(&self, at: usize) -> bool {
        self.is_symbol(at + 1, '(')
            && (self.is(at, "check") || self.is(at, "unique") || self.is(at, "exclude"))
            || self.starts(at, &["primary", "key"])
            || self.starts(at, &["foreign", "key"])
            || self.starts(at, &["unique", "nulls"])
            || self.starts(at, &["unique", "using", "index"])
            || self.starts(at, &["exclude", "using"])
            || self.starts(at, &["not", "null"])
    }

    /// A constraint of a table.
    fn constraint(&self, at: usize, end: usize) -> Option<Constraint> {
        let is_key = self.is(at, "unique") || self.is(at, "primary") || self.is(at, "exclude");
        if self.is(at, "check") {
            let close = self.closed(at + 1)?;
            return Some(Constraint::Check(self.between(at + 1, close)));
        }
        if self.starts(at, &["not", "null"]) {
            return self.column(at + 2, end).map(|(column, _)| Constraint::NotNull(column));
        }
        let open = (at..end).find(|&at| self.is_symbol(at, '('));
        let listed = |open: usize| Some(columns(&self.between(open, self.closed(open)?)));
        if self.starts(at, &["foreign", "key"]) {
            let to = (at..end).find(|&at| self.is(at, "references"))?;
            return Some(Constraint::ForeignKey { columns: listed(open?)?, to: self.name(to + 1)?.0 });
        }
        let is_built = (at..end).any(|at| self.starts(at, &["using", "index"]))
            && !(at..end).any(|at| self.starts(at, &["using", "index", "tablespace"]));
        let columns = if is_built || self.is(at, "exclude") { Vec::new() } else { listed(open?)? };
        is_key.then(|| Constraint::Key { columns, is_primary: self.is(at, "primary"), is_built })
    }

    fn new_column(&self, at: usize, end: usize) -> Option<NewColumn> {
        let if_missing = self.starts(at, &["if", "not", "exists"]);
        let (name, at) = self.column(at, end)?;
        let (of, mut at) = self.type_name(at, end)?;
        let mut column = NewColumn {
            name,
            of,
            source: Source::Nothing,
            is_not_null: false,
            constraints: Vec::new(),
            if_missing,
        };
        if column.of.name.schema.is_none()
            && ["serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"]
                .contains(&column.of.name.name.as_str())
        {
            column.source = Source::Sequence;
        }
        while at < end {
            at = self.column_constraint(&mut column, at, end)?.max(at + 1);
        }
        Some(column)
    }

    /// Takes the constraint at `at`, and says where the next one begins.
    fn column_constraint(&self, column: &mut NewColumn, at: usize, end: usize) -> Option<usize> {
        if self.is(at, "constraint") {
            return Some(at + 2);
        }
        if self.starts(at, &["not", "null"]) {
            column.is_not_null = true;
            return Some(at + 2);
        }
        if self.is(at, "default") {
            let after = self.expression_end(at + 1, end);
            let text = self.between(at + 1, after);
            column.source =
                if text.eq_ignore_ascii_case("null") { Source::Nothing } else { Source::Default(text) };
            return Some(after);
        }
        if self.is(at, "generated") {
            let Some(open) = (at..end).find(|&at| self.is_symbol(at, '(') || self.is(at, "identity")) else {
                return Some(end);
            };
            if self.is(open, "identity") {
                (column.source, column.is_not_null) = (Source::Sequence, true);
                return Some(self.expression_end(open, end));
            }
            let close = self.closed(open)?;
            let kept = if self.is(close, "stored") {
                Some(Kept::Stored)
            } else {
                self.is(close, "virtual").then_some(Kept::Virtual)
            };
            column.source = Source::Generated(kept);
            return Some(close + usize::from(kept.is_some()));
        }
        if self.is(at, "references") {
            let (to, after) = self.name(at + 1)?;
            let columns = vec![column.name.clone()];
            column.constraints.push(Constraint::ForeignKey { columns, to });
            return Some(after);
        }
        if self.is(at, "check") {
            let close = self.closed(at + 1)?;
            column.constraints.push(Constraint::Check(self.between(at + 1, close)));
            return Some(close);
        }
        let is_primary = self.starts(at, &["primary", "key"]);
        if is_primary || self.is(at, "unique") {
            let columns = vec![column.name.clone()];
            column.is_not_null |= is_primary;
            column.constraints.push(Constraint::Key { columns, is_primary, is_built: false });
        }
        Some(at + 1 + usize::from(is_primary))
    }

    /// Where an expression ends that begins at `at` and stands before the constraints of a column.
    fn expression_end(&self, at: usize, end: usize) -> usize {
        let mut depth = 0_usize;
        for next in at..end {
            if self.is_symbol(next, '(') || self.is_symbol(next, '[') {
                depth += 1;
            } else if self.is_symbol(next, ')') || self.is_symbol(next, ']') {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && next > at && CONSTRAINTS.iter().any(|word| self.is(next, word)) {
                return next;
            }
        }
        end
    }

    /// The type that begins at `at`, and where it ends.
    pub(super) fn type_name(&self, at: usize, end: usize) -> Option<(TypeName, usize)> {
        let own = |name: &str| TableName { schema: Some("pg_catalog".to_owned()), name: name.to_owned() };
        let words: [(&[&str], &str); 21] = [
            (&["double", "precision"], "float8"),
            (&["real"], "float4"),
            (&["float"], "float8"),
            (&["int"], "int4"),
            (&["integer"], "int4"),
            (&["bigint"], "int8"),
            (&["smallint"], "int2"),
            (&["decimal"], "numeric"),
            (&["dec"], "numeric"),
            (&["numeric"], "numeric"),
            (&["boolean"], "bool"),
            (&["character", "varying"], "varchar"),
            (&["char", "varying"], "varchar"),
            (&["varchar"], "varchar"),
            (&["character"], "bpchar"),
            (&["char"], "bpchar"),
            (&["bit", "varying"], "varbit"),
            (&["bit"], "bit"),
            (&["timestamp"], "timestamp"),
            (&["time"], "time"),
            (&["interval"], "interval"),
        ];
        let known = words.iter().find(|(words, _)| self.starts(at, words));
        let (mut name, mut next) = match known {
            Some((words, name)) => (own(name), at + words.len()),
            None => self.plain_type(at, end)?,
        };
        let mut modifiers = self.modifiers(&mut next)?;
        let zone = |at: usize, word: &str| self.starts(at, &[word, "time", "zone"]);
        if known.is_some() && ["timestamp", "time"].contains(&name.name.as_str()) {
            if zone(next, "with") {
                name.name.push_str("tz");
            }
            next += if zone(next, "with") || zone(next, "without") { 3 } else { 0 };
        }
        if known.is_some() && name.name == "interval" && self.is_field(next) {
            // Its fields are not told apart here: no modifier has this name.
            modifiers = vec!["fields".to_owned()];
            while next < end && (self.is_field(next) || self.is(next, "to")) {
                next += 1;
            }
            self.modifiers(&mut next)?;
        }
        if name.name == "float8"
            && modifiers.first().and_then(|bits| bits.parse().ok()).is_some_and(|bits: u32| bits <= 24)
        {
            name.name = "float4".to_owned();
        }
        if name.name.starts_with("float") {
            modifiers.clear();
        }
        if known.is_some() && modifiers.is_empty() && ["bpchar", "bit"].contains(&name.name.as_str()) {
            modifiers.push("1".to_owned());
        }
        let mut is_array = self.is(next, "array");
        next += usize::from(is_array);
        while self.is_symbol(next, '[') {
            next = self.closed(next)?;
            is_array = true;
        }
        (next <= end).then_some((TypeName { name, modifiers, is_array }, next))
    }

    /// A name and nothing else: `%TYPE` and what is no name are not read.
    fn plain_type(&self, at: usize, end: usize) -> Option<(TableName, usize)> {
        if !self.begins_a_name(at) {
            return None;
        }
        let mut last = at;
        while self.is_symbol(last + 1, '.') && self.begins_a_name(last + 2) {
            last += 2;
        }
        (last < end && !self.is_symbol(last + 1, '%'))
            .then(|| (names::parse(&self.between(at, last + 1)), last + 1))
    }

    fn is_field(&self, at: usize) -> bool {
        ["year", "month", "day", "hour", "minute", "second"].iter().any(|word| self.is(at, word))
    }

    /// What stands in parentheses at `next`, which is moved behind them.
    fn modifiers(&self, next: &mut usize) -> Option<Vec<String>> {
        if !self.is_symbol(*next, '(') {
            return Some(Vec::new());
        }
        let close = self.closed(*next)?;
        let inner = self.between(*next + 1, close - 1);
        *next = close;
        Some(inner.split(',').map(|word| word.trim().to_owned()).collect())
    }

    /// What USING makes of the column.
    pub(super) fn using(&self, column: &str, from: usize, end: usize) -> Using {
        let (mut from, mut end) = (from, end);
        // ("a")::text, (a::text)
        while self.is_symbol(from, '(') && self.closed(from) == Some(end) {
            (from, end) = (from + 1, end - 1);
        }
        if self.is(from, "cast") && self.is_symbol(from + 1, '(') && self.closed(from + 1) == Some(end) {
            let Some(at) = (from..end).find(|&at| self.is(at, "as")) else { return Using::Unclear };
            return match (self.using(column, from + 2, at), self.type_name(at + 1, end - 1)) {
                (Using::Cast(mut types), Some((to, after))) if after == end - 1 => {
                    types.push(to);
                    Using::Cast(types)
                }
                (Using::Computed, _) => Using::Computed,
                _ => Using::Unclear,
            };
        }
        let mut at = from;
        let mut types = Vec::new();
        if self.is_symbol(at, '(') {
            let Some(close) = self.closed(at) else { return Using::Unclear };
            match self.using(column, at + 1, close - 1) {
                Using::Cast(inner) => types = inner,
                other => return other,
            }
            at = close;
        } else if self.begins_a_name(at) && self.column(at, end).is_some_and(|(name, _)| name == column) {
            at += 1;
        } else {
            return self.computed(from, end);
        }
        while self.is_symbol(at, ':') && self.is_symbol(at + 1, ':') {
            let Some((to, after)) = self.type_name(at + 2, end) else { return Using::Unclear };
            types.push(to);
            at = after;
        }
        if at == end { Using::Cast(types) } else { self.computed(from, end) }
    }

    /// An expression that is neither a column nor a constant is computed for each row.
    fn computed(&self, from: usize, end: usize) -> Using {
        match end > from + 1 {
            true => Using::Computed,
            false => Using::Unclear,
        }
    }

    pub(super) fn begins_a_name(&self, at: usize) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdent))
    }
}
