//! What a statement changes of a table in such a way that the server may go through all of its rows: write them anew, read them, or
//! build an index. Read off the words; whether it does is for the catalog to say.
//!
//! In doubt nothing is read: what is not told here is done by the statement all the same, but nothing untrue is said of it.

mod column;
#[cfg(test)]
mod tests;

use super::{
    TableName,
    locks::{Found, Reader},
    names,
};
use crate::token::{Token, tokens};

/// A type as a statement names it; the words of SQL (`character varying`) by PostgreSQL's own names (`pg_catalog.varchar`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeName {
    /// Its name, that of the elements where it is an array.
    pub name: TableName,
    /// What stands in the parentheses behind it.
    pub modifiers: Vec<String>,
    /// An array of it.
    pub is_array: bool,
}

/// Where the values of a new column come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// NULL.
    Nothing,
    /// DEFAULT, with the expression.
    Default(String),
    /// A sequence: serial, or GENERATED AS IDENTITY.
    Sequence,
    /// GENERATED ALWAYS AS (…), with its last word: STORED or VIRTUAL.
    Generated(Option<Kept>),
}

/// Whether a generated column is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// STORED.
    Stored,
    /// VIRTUAL.
    Virtual,
}

/// ADD COLUMN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub of: TypeName,
    /// Its values in the rows that are there.
    pub source: Source,
    /// NOT NULL.
    pub is_not_null: bool,
    /// Its constraints but NOT NULL.
    pub constraints: Vec<Constraint>,
    /// IF NOT EXISTS was written.
    pub if_missing: bool,
}

/// A constraint as the words make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// CHECK, with its expression.
    Check(String),
    /// NOT NULL of a column, as a constraint with a name.
    NotNull(String),
    /// FOREIGN KEY.
    ForeignKey {
        /// The columns.
        columns: Vec<String>,
        /// The table that they refer to.
        to: TableName,
    },
    /// UNIQUE, PRIMARY KEY or EXCLUDE.
    Key {
        /// Its columns; none where they are expressions.
        columns: Vec<String>,
        /// PRIMARY KEY.
        is_primary: bool,
        /// USING INDEX: it is built already.
        is_built: bool,
    },
}

/// One change of an ALTER TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// ADD COLUMN.
    AddColumn(NewColumn),
    /// DROP COLUMN.
    DropColumn(String),
    /// RENAME COLUMN: old, new.
    RenameColumn(String, String),
    /// ALTER COLUMN … TYPE.
    ColumnType {
        /// The column.
        column: String,
        /// Its new type.
        to: TypeName,
        /// COLLATE was written.
        is_collated: bool,
        /// USING: what the values become.
        using: Option<Using>,
    },
    /// SET NOT NULL.
    SetNotNull(String),
    /// DROP NOT NULL.
    DropNotNull(String),
    /// ALTER COLUMN … SET EXPRESSION.
    SetExpression(String),
    /// ADD CONSTRAINT.
    AddConstraint {
        /// Its name, where one is given.
        name: Option<String>,
        /// What it is.
        constraint: Constraint,
        /// Rows that are there are not looked at: NOT VALID, NOT ENFORCED.
        is_deferred: bool,
    },
    /// DROP CONSTRAINT.
    DropConstraint(String),
    /// VALIDATE CONSTRAINT.
    Validate(String),
    /// ATTACH PARTITION.
    Attach {
        /// The table that becomes one.
        partition: TableName,
        /// It becomes the default one.
        is_default: bool,
    },
    /// SET LOGGED or SET UNLOGGED.
    Logged(bool),
    /// SET ACCESS METHOD; nothing for DEFAULT.
    AccessMethod(Option<String>),
    /// SET TABLESPACE.
    Tablespace(String),
}

/// The expression of USING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Using {
    /// The column itself, cast from type to type.
    Cast(Vec<TypeName>),
    /// Something that is computed.
    Computed,
    /// It can't be told here.
    Unclear,
}

/// A statement that may go through the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// ALTER TABLE and ALTER MATERIALIZED VIEW.
    Alter {
        /// The table.
        table: TableName,
        /// What it changes.
        changes: Vec<Change>,
        /// ONLY was written.
        is_only: bool,
    },
    /// CREATE INDEX.
    CreateIndex {
        /// The table.
        table: TableName,
        /// The index's name, where one is given.
        name: Option<String>,
        /// IF NOT EXISTS was written.
        if_missing: bool,
        /// CONCURRENTLY was written: rows are read twice.
        is_concurrent: bool,
        /// ON ONLY: nothing is built on a partitioned table.
        is_only: bool,
    },
    /// DROP INDEX, with the names.
    DropIndexes(Vec<TableName>),
    /// REINDEX of a table.
    ReindexTable(TableName),
    /// REINDEX of one index.
    ReindexIndex(TableName),
    /// CLUSTER, REPACK, VACUUM FULL: the tables are written anew.
    Rewrite(Vec<TableName>),
    /// REFRESH MATERIALIZED VIEW. With CONCURRENTLY what changed is written, and both are read.
    Refresh {
        /// The view.
        view: TableName,
        /// CONCURRENTLY was written.
        is_concurrent: bool,
    },
    /// CREATE TABLE … PARTITION OF, with the parent.
    NewPartition(TableName),
}

impl Task {
    /// Reads a statement.
    pub fn read(text: &str) -> Option<Self> {
        let all: Vec<Token> = tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect();
        let read = Reader { text, tokens: &all };
        let name = |at: usize| read.name(at).map(|(name, _)| name);
        let at = read.past_options(1);
        if read.starts(0, &["alter", "table"]) && !read.starts(2, &["all", "in", "tablespace"]) {
            return read.alter(2);
        }
        if read.starts(0, &["alter", "materialized", "view"]) {
            return read.alter(3);
        }
        if read.starts(0, &["drop", "index"]) {
            let mut dropped = Vec::new();
            let at = 2 + usize::from(read.is(2, "concurrently"));
            read.list(at, &mut |found| dropped.extend(found.map(|(name, _)| name)));
            return Some(Self::DropIndexes(dropped));
        }
        if read.is(0, "reindex") {
            let at = |at: usize| at + usize::from(read.is(at, "concurrently"));
            let word = read.past_options(1);
            return match (read.is(word, "table"), read.is(word, "index")) {
                (true, _) => name(at(word + 1)).map(Self::ReindexTable),
                (_, true) => name(at(word + 1)).map(Self::ReindexIndex),
                _ => None,
            };
        }
        if read.is(0, "cluster") || read.is(0, "repack") {
            return read.rewritten().map(|(table, _)| Self::Rewrite(vec![table]));
        }
        if read.is(0, "vacuum") {
            let at = (at..all.len())
                .find(|&at| !["full", "freeze", "verbose", "analyze"].iter().any(|word| read.is(at, word)))?;
            let mut tables = Vec::new();
            read.list(at, &mut |found| tables.extend(found.map(|(name, _)| name)));
            return read.is_full().then_some(Self::Rewrite(tables));
        }
        if read.starts(0, &["refresh", "materialized", "view"]) {
            let is_concurrent = read.is(3, "concurrently");
            let is_empty = read.starts(all.len().saturating_sub(3), &["with", "no", "data"]);
            let view = name(3 + usize::from(is_concurrent))?;
            return (!is_empty).then_some(Self::Refresh { view, is_concurrent });
        }
        if read.is(0, "create") && read.created() == Some("index") {
            return read.new_index();
        }
        if read.is(0, "create") && read.created() == Some("table") {
            return read.after_two("partition", "of").map(|(parent, _)| Self::NewPartition(parent));
        }
        None
    }
}

impl Reader<'_> {
    /// FULL of a VACUUM, unless it is switched off.
    fn is_full(&self) -> bool {
        let off = ["off", "false", "0"];
        (0..self.tokens.len()).any(|at| {
            self.is(at, "full")
                && !off.iter().any(|word| self.is(at + 1, word))
                && self.tokens.get(at + 1).is_none_or(|next| next.text(self.text) != "0")
        })
    }

    /// Its table is named at `at`.
    fn alter(&self, at: usize) -> Option<Task> {
        let (table, start) = self.name(at)?;
        let is_only = (at..start).any(|at| self.is(at, "only"));
        let changes = self.actions(start).into_iter().filter_map(|(from, end)| self.change(from, end));
        Some(Task::Alter { table, changes: changes.collect(), is_only })
    }

    fn new_index(&self) -> Option<Task> {
        let word = (1..4).find(|&at| self.is(at, "index"))?;
        let is_concurrent = self.is(word + 1, "concurrently");
        let at = word + 1 + usize::from(is_concurrent);
        let if_missing = self.starts(at, &["if", "not", "exists"]);
        let on = self.top_level().find(|&at| self.is(at, "on"))?;
        let name = (!self.is(at, "on")).then(|| self.name(at)).flatten().map(|(name, _)| name.name);
        let (table, _) = self.name(on + 1)?;
        Some(Task::CreateIndex { table, name, if_missing, is_concurrent, is_only: self.is(on + 1, "only") })
    }

    /// One action of ALTER TABLE, from its first token to the one behind its last.
    fn change(&self, from: usize, end: usize) -> Option<Change> {
        let named = |at: usize| self.column(at, end);
        let past = |at: usize, word: &str| at + usize::from(self.is(at, word));
        if self.is(from, "add") {
            return self.added(from + 1, end);
        }
        if self.starts(from, &["drop", "constraint"]) {
            return named(from + 2).map(|(name, _)| Change::DropConstraint(name));
        }
        if self.is(from, "drop") {
            return named(past(from + 1, "column")).map(|(name, _)| Change::DropColumn(name));
        }
        if self.is(from, "rename") && !self.is(from + 1, "to") && !self.is(from + 1, "constraint") {
            let (old, to) = named(past(from + 1, "column"))?;
            return self
                .is(to, "to")
                .then(|| named(to + 1))
                .flatten()
                .map(|(new, _)| Change::RenameColumn(old, new));
        }
        if self.starts(from, &["validate", "constraint"]) {
            return named(from + 2).map(|(name, _)| Change::Validate(name));
        }
        if self.starts(from, &["attach", "partition"]) {
            let (partition, at) = self.name(from + 2)?;
            return Some(Change::Attach { partition, is_default: self.is(at, "default") });
        }
        if self.is(from, "set") {
            return self.set(from + 1);
        }
        if !self.is(from, "alter") || self.is(from + 1, "constraint") {
            return None;
        }
        let (column, at) = named(past(from + 1, "column"))?;
        if self.starts(at, &["set", "not", "null"]) {
            return Some(Change::SetNotNull(column));
        }
        if self.starts(at, &["drop", "not", "null"]) {
            return Some(Change::DropNotNull(column));
        }
        if self.starts(at, &["set", "expression"]) {
            return Some(Change::SetExpression(column));
        }
        let at = if self.starts(at, &["set", "data", "type"]) { at + 2 } else { at };
        self.is(at, "type").then(|| self.new_type(column, at + 1, end)).flatten()
    }

    fn set(&self, at: usize) -> Option<Change> {
        if self.is(at, "logged") || self.is(at, "unlogged") {
            return Some(Change::Logged(self.is(at, "logged")));
        }
        let named = |at: usize| self.name(at).map(|(name, _)| name.name);
        if self.starts(at, &["access", "method"]) {
            let is_default = self.is(at + 2, "default");
            return Some(Change::AccessMethod(if is_default { None } else { Some(named(at + 2)?) }));
        }
        self.is(at, "tablespace").then(|| named(at + 1)).flatten().map(Change::Tablespace)
    }

    fn new_type(&self, column: String, at: usize, end: usize) -> Option<Change> {
        let (to, mut at) = self.type_name(at, end)?;
        let is_collated = self.is(at, "collate");
        if is_collated {
            at = self.name(at + 1)?.1;
        }
        let using = self.is(at, "using").then(|| self.using(&column, at + 1, end));
        Some(Change::ColumnType { column, to, is_collated, using })
    }

    /// A word that names a part of the table, past IF [NOT] EXISTS.
    fn column(&self, at: usize, end: usize) -> Option<(String, usize)> {
        let (name, after): (TableName, usize) = self.name_within(at, end)?;
        name.schema.is_none().then_some((name.name, after))
    }

    fn name_within(&self, at: usize, end: usize) -> Found {
        self.name(at).filter(|(_, after)| *after <= end)
    }

    /// The text between two tokens.
    fn between(&self, from: usize, end: usize) -> String {
        match (self.tokens.get(from), self.tokens.get(end.wrapping_sub(1))) {
            (Some(first), Some(last)) if from < end => {
                self.text[first.range.start..last.range.end].to_owned()
            }
            _ => String::new(),
        }
    }

    /// Behind the parenthesis that closes the one at `at`.
    fn closed(&self, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (offset, token) in self.tokens.iter().enumerate().skip(at) {
            if token.is_symbol('(') || token.is_symbol('[') {
                depth += 1;
            } else if token.is_symbol(')') || token.is_symbol(']') {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(offset + 1);
                }
            }
        }
        None
    }
}

/// The names of functions that an expression calls, each as it is written.
pub fn called(expression: &str) -> Vec<TableName> {
    let all: Vec<Token> = tokens(expression, 0).map_while(Result::ok).filter(Token::is_significant).collect();
    let read = Reader { text: expression, tokens: &all };
    let mut found = Vec::new();
    let mut at = 0;
    while at < all.len() {
        match read.name(at) {
            Some((name, end)) if read.is_symbol(end, '(') && read.begins_a_name(at) => {
                found.push(name);
                at = end;
            }
            _ => at += 1,
        }
    }
    found
}

/// Column names in parentheses; nothing where there is more than names.
fn columns(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    inner.split(',').map(|name| names::parse(name).name).collect()
}
