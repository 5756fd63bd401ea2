//! Which locks a statement takes on the tables that it names, read off its key words.
//!
//! From the chapter on explicit locking and the pages of the commands. In doubt nothing is said: a lock that is not known
//! here is taken by the statement itself, in its own time. It must never name a lock that the statement does not take,
//! because the application would wait for nothing.

use super::{TableName, names};
use crate::token::{Token, tokens};

/// A table lock's mode, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// INSERT, UPDATE, DELETE.
    RowExclusive,
    /// VALIDATE CONSTRAINT, SET STATISTICS, ATTACH PARTITION.
    ShareUpdateExclusive,
    /// CREATE INDEX.
    Share,
    /// CREATE TRIGGER, ADD FOREIGN KEY.
    ShareRowExclusive,
    /// The fence's.
    Exclusive,
    /// Most of ALTER TABLE, DROP TABLE, TRUNCATE.
    AccessExclusive,
}

impl LockMode {
    /// As LOCK TABLE takes it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

/// A lock on a table, or on the table of an index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableLock {
    /// The table or index as the statement names it.
    pub table: TableName,
    /// The mode.
    pub mode: LockMode,
}

/// The locks that a schema change takes; those of INSERT, UPDATE, DELETE and MERGE follow from their effects.
pub(crate) fn needed(text: &str) -> Vec<TableLock> {
    use LockMode as Mode;
    let all: Vec<Token> = tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect();
    let read = Reader { text, tokens: &all };
    let mut found = Vec::new();
    let mut push = |table: Option<(TableName, usize)>, mode| {
        if let Some((table, _)) = table {
            found.push(TableLock { table, mode });
        }
    };
    if read.starts(0, &["alter", "table"]) {
        read.alter_table(&mut push);
    } else if read.starts(0, &["drop", "table"]) || read.starts(0, &["drop", "index"]) {
        // DROP INDEX CONCURRENTLY waits without keeping anybody else waiting.
        if !read.is(2, "concurrently") {
            read.list(2, &mut |table| push(table, Mode::AccessExclusive));
        }
    } else if read.is(0, "truncate") {
        read.list(1, &mut |table| push(table, Mode::AccessExclusive));
    } else if read.is(0, "cluster") || read.is(0, "repack") {
        push(read.rewritten(), Mode::AccessExclusive);
    } else if read.is(0, "drop") && ["trigger", "policy", "rule"].iter().any(|word| read.is(1, word)) {
        push(read.after("on"), Mode::AccessExclusive);
    } else if read.is(0, "create") {
        let concurrent = (1..5).any(|at| read.is(at, "concurrently"));
        match read.created() {
            Some("index") if !concurrent => push(read.after("on"), Mode::Share),
            Some("trigger") => push(read.after("on"), Mode::ShareRowExclusive),
            Some("policy") => push(read.after("on"), Mode::AccessExclusive),
            Some("rule") => push(read.after("to"), Mode::AccessExclusive),
            Some("table") => {
                push(read.after_two("partition", "of"), Mode::AccessExclusive);
                read.references(0, all.len(), &mut push);
            }
            _ => {}
        }
    }
    found
}

/// The locks of what maintains tables and does nothing else. A plan tells them; nobody takes them ahead.
pub fn of_maintenance(text: &str) -> Vec<TableLock> {
    use LockMode as Mode;
    let all: Vec<Token> = tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect();
    let read = Reader { text, tokens: &all };
    let mut found = Vec::new();
    let mut push = |table: Found, mode| {
        if let Some((table, _)) = table {
            found.push(TableLock { table, mode });
        }
    };
    let at = read.past_options(1);
    if read.is(0, "lock") {
        if let Some(mode) = read.locked_as() {
            read.list(1, &mut |table| push(table, mode));
        }
    } else if read.is(0, "reindex") && !read.has("concurrently") {
        if read.is(at, "table") || read.is(at, "index") {
            push(read.name(at + 1), Mode::Share);
        }
    } else if read.is(0, "vacuum") && read.has("full") {
        let at = (at..all.len())
            .find(|&at| !["full", "freeze", "verbose", "analyze"].iter().any(|word| read.is(at, word)));
        push(at.and_then(|at| read.name(at)), Mode::AccessExclusive);
    } else if read.starts(0, &["refresh", "materialized", "view"]) && !read.is(3, "concurrently") {
        push(read.name(3), Mode::AccessExclusive);
    }
    found
}

/// What a statement takes off a table, or makes anew there: the other end of a foreign key is locked with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The table with all of its keys.
    Table,
    /// A constraint by its name.
    Constraint(String),
    /// A column that goes or gets another type.
    Column(String),
}

/// What DROP TABLE and ALTER TABLE remove, by table.
pub fn removed(text: &str) -> Vec<(TableName, Removed)> {
    let all: Vec<Token> = tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect();
    let read = Reader { text, tokens: &all };
    let mut found = Vec::new();
    if read.starts(0, &["drop", "table"]) {
        read.list(2, &mut |table| found.extend(table.map(|(table, _)| (table, Removed::Table))));
    } else if read.starts(0, &["alter", "table"])
        && let Some((table, start)) = read.name(2)
    {
        for (from, end) in read.actions(start) {
            found.extend(read.removed(from, end).map(|removed| (table.clone(), removed)));
        }
    }
    found
}

/// Whether the statement may lock tables that it does not name, beside those of [`needed`] and [`of_maintenance`]: whatever uses a type, a
/// domain or an extension, all tables of a schema or the database, what a CASCADE reaches.
pub fn reaches_unnamed(text: &str) -> bool {
    let all: Vec<Token> = tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect();
    let read = Reader { text, tokens: &all };
    let at = read.past_options(1);
    let begins = |words: &[&str]| read.starts(0, words);
    begins(&["alter", "domain"])
        || begins(&["alter", "type"]) && read.has("attribute")
        || begins(&["alter", "extension"])
        || begins(&["create", "extension"])
        || begins(&["alter", "table", "all"])
        || begins(&["drop", "owned"])
        || begins(&["drop", "extension"])
        || begins(&["import"])
        || begins(&["drop"]) && read.has("cascade")
        || begins(&["truncate"]) && read.has("cascade")
        || begins(&["reindex"]) && ["schema", "database", "system"].iter().any(|word| read.is(at, word))
        || begins(&["vacuum"]) && read.has("full") && of_maintenance(text).is_empty()
        || (begins(&["cluster"]) || begins(&["repack"]))
            && read.rewritten().is_none()
            && !read.has("concurrently")
}

/// A statement's significant tokens, read by their words.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [Token],
}

pub(super) type Found = Option<(TableName, usize)>;

impl Reader<'_> {
    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(self.text, word))
    }

    /// Whether the word stands anywhere.
    pub(super) fn has(&self, word: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is(at, word))
    }

    pub(super) fn is_symbol(&self, at: usize, symbol: char) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_symbol(symbol))
    }

    pub(super) fn starts(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.is(at + offset, word))
    }

    /// The name that begins at or behind `at`, past IF [NOT] EXISTS, ONLY and TABLE; and where it ends.
    pub(super) fn name(&self, mut at: usize) -> Found {
        while ["if", "not", "exists", "only", "table"].iter().any(|word| self.is(at, word)) {
            at += 1;
        }
        let first = self.tokens.get(at)?;
        let mut last = at;
        while self.is_symbol(last + 1, '.') && self.tokens.len() > last + 2 {
            last += 2;
        }
        let name = names::parse(&self.text[first.range.start..self.tokens[last].range.end]);
        (!name.name.is_empty()).then_some((name, last + 1))
    }

    /// Behind the parentheses that may stand at `at`.
    pub(super) fn past_options(&self, at: usize) -> usize {
        match self.is_symbol(at, '(') {
            true => (at..self.tokens.len()).find(|&at| self.is_symbol(at, ')')).map_or(at, |end| end + 1),
            false => at,
        }
    }

    /// The mode of a LOCK; nothing for one that keeps no plain writing waiting.
    fn locked_as(&self) -> Option<LockMode> {
        use LockMode as Mode;
        let Some(at) = self.top_level().find(|&at| self.is(at, "in")) else {
            return Some(Mode::AccessExclusive);
        };
        [
            (&["access", "exclusive"][..], Some(Mode::AccessExclusive)),
            (&["share", "row", "exclusive"], Some(Mode::ShareRowExclusive)),
            (&["share", "update", "exclusive"], Some(Mode::ShareUpdateExclusive)),
            (&["share", "mode"], Some(Mode::Share)),
            (&["exclusive"], Some(Mode::Exclusive)),
        ]
        .into_iter()
        .find_map(|(words, mode)| self.starts(at + 1, words).then_some(mode))
        .flatten()
    }

    /// The names of a list that begins at `at`.
    pub(super) fn list(&self, mut at: usize, push: &mut impl FnMut(Found)) {
        while let Some((name, mut end)) = self.name(at) {
            push(Some((name, end)));
            end += usize::from(self.is_symbol(end, '*'));
            if !self.is_symbol(end, ',') {
                break;
            }
            at = end + 1;
        }
    }

    /// Positions outside parentheses.
    pub(super) fn top_level(&self) -> impl Iterator<Item = usize> + '_ {
        let mut depth = 0_usize;
        self.tokens.iter().enumerate().filter_map(move |(at, token)| {
            if token.is_symbol('(') {
                depth += 1;
            } else if token.is_symbol(')') {
                depth = depth.saturating_sub(1);
            } else if depth == 0 {
                return Some(at);
            }
            None
        })
    }

    /// The name after the first top-level `word`.
    fn after(&self, word: &str) -> Found {
        let at = self.top_level().find(|&at| self.is(at, word))?;
        self.name(at + 1)
    }

    /// The table that CLUSTER or REPACK writes anew; nothing where it is every table, or where others may use it until the end.
    pub(super) fn rewritten(&self) -> Found {
        let mut at = 1 + usize::from(self.is(1, "verbose"));
        if self.is_symbol(1, '(') {
            let end = (1..self.tokens.len()).find(|&at| self.is_symbol(at, ')'))?;
            if (1..end).any(|at| self.is(at, "concurrently")) {
                return None;
            }
            at = end + 1;
        }
        if self.is(at, "using") {
            return None;
        }
        // CLUSTER index ON table
        self.after("on").or_else(|| self.name(at))
    }

    pub(super) fn after_two(&self, first: &str, second: &str) -> Found {
        let at = self.top_level().find(|&at| self.is(at, first) && self.is(at + 1, second))?;
        self.name(at + 2)
    }

    /// What CREATE makes, past its adornments. Temporary tables are nobody else's.
    pub(super) fn created(&self) -> Option<&'static str> {
        let mut at = 1;
        while ["or", "replace", "unique", "unlogged", "constraint"].iter().any(|word| self.is(at, word)) {
            at += 1;
        }
        ["index", "trigger", "policy", "rule", "table"].into_iter().find(|word| self.is(at, word))
    }

    /// Tables that foreign keys between two positions refer to: the triggers of the key are made on them.
    fn references(&self, from: usize, to: usize, push: &mut impl FnMut(Found, LockMode)) {
        for at in (from..to).filter(|&at| self.is(at, "references")) {
            push(self.name(at + 1), LockMode::ShareRowExclusive);
        }
    }

    /// Where each action of an ALTER TABLE begins and ends, whose first begins at `start`.
    pub(super) fn actions(&self, start: usize) -> Vec<(usize, usize)> {
        let commas = self.top_level().filter(|&at| at >= start && self.is_symbol(at, ','));
        let mut from = start + usize::from(self.is_symbol(start, '*'));
        let ends = commas.chain(std::iter::once(self.tokens.len()));
        ends.map(|end| (std::mem::replace(&mut from, end + 1), end)).collect()
    }

    /// What one action of ALTER TABLE removes.
    fn removed(&self, from: usize, end: usize) -> Option<Removed> {
        let named = |at: usize| self.name(at).filter(|(_, after)| *after <= end).map(|(name, _)| name.name);
        if self.is(from, "drop") {
            return match self.is(from + 1, "constraint") {
                true => named(from + 2).map(Removed::Constraint),
                false => named(from + 1 + usize::from(self.is(from + 1, "column"))).map(Removed::Column),
            };
        }
        let column = from + 1 + usize::from(self.is(from + 1, "column"));
        let is_typed = self.is(column + 1, "type") || self.starts(column + 1, &["set", "data", "type"]);
        (self.is(from, "alter") && is_typed).then(|| named(column).map(Removed::Column)).flatten()
    }

    fn alter_table(&self, push: &mut impl FnMut(Found, LockMode)) {
        if self.starts(2, &["all", "in", "tablespace"]) {
            return;
        }
        let Some((table, start)) = self.name(2) else { return };
        let mut strongest = None;
        for (from, end) in self.actions(start) {
            strongest = strongest.max(self.action(from, end));
            self.references(from, end, push);
            if self.starts(from, &["attach", "partition"])
                || (self.starts(from, &["detach", "partition"]) && !self.is(end - 1, "concurrently"))
            {
                push(self.name(from + 2), LockMode::AccessExclusive);
            }
        }
        if let Some(mode) = strongest {
            push(Some((table, start)), mode);
        }
    }

    /// The lock of one action of ALTER TABLE; `None` where none should be taken ahead of it.
    fn action(&self, from: usize, end: usize) -> Option<LockMode> {
        use LockMode as Mode;
        let has = |words: &[&str]| (from..end).any(|at| self.starts(at, words));
        let weak = self.starts(from, &["validate", "constraint"])
            || self.starts(from, &["attach", "partition"])
            || self.starts(from, &["cluster", "on"])
            || self.starts(from, &["set", "without", "cluster"])
            || (self.is(from, "set") || self.is(from, "reset")) && self.is_symbol(from + 1, '(')
            || self.is(from, "alter") && has(&["set", "statistics"]);
        if self.starts(from, &["detach", "partition"]) && has(&["concurrently"]) {
            // It waits by itself and keeps nobody waiting.
            None
        } else if weak {
            Some(Mode::ShareUpdateExclusive)
        } else if (self.is(from, "add") && has(&["foreign", "key"]) && !self.is(from + 1, "column"))
            || ((self.is(from, "enable") || self.is(from, "disable")) && has(&["trigger"]))
        {
            Some(Mode::ShareRowExclusive)
        } else {
            Some(Mode::AccessExclusive)
        }
    }
}

#[cfg(test)]
mod tests;
