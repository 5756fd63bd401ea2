//! Reads a migration file as statements: where each begins, what it reaches, whether it may run in a transaction.
//!
//! Decides from tokens and from a parse tree, never from a pattern over the text: the same words stand in comments,
//! strings and function bodies. The server stays the judge of syntax: what our parser does not know yet is passed on,
//! marked as [`Class::unread`], and nothing is concluded from its absence. It must never split where it is not sure:
//! an unterminated literal, a psql meta-command or a template variable is a [`ParseProblem`] before anything runs.
//!
//! `locks.rs` knows lock modes, `changes.rs` what makes the server go through all rows, `enums.rs` values that wait for a commit, `own_tables.rs` what needs no look at the locks, `split.rs` cuts, `head.rs` reads the leading words, `tree.rs` is the only file
//! that names the parser (its API promises no stability).

pub mod changes;
pub mod enums;
mod head;
pub mod locks;
pub mod names;
pub mod own_tables;
mod split;
mod tree;

use std::{fmt, ops::Range};

pub use split::{significant_text, split, split_ranges};

/// One statement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text to send, from its first token to its last, without the semicolon; inner comments are kept.
    pub text: String,
    /// Line of the first token in the file, from 1.
    pub line: u32,
    /// Column of the first token in its line, in characters, from 1.
    pub column: u32,
    /// Where `text` stands in the file, in bytes.
    pub byte_range: Range<usize>,
    /// The data lines after `COPY … FROM STDIN;`, in bytes of the file, without the closing `\.` line.
    ///
    /// Send `text`, then these bytes as they are through the COPY protocol.
    pub copy_data: Option<Range<usize>>,
    /// What could be learned about it.
    pub class: Class,
}

impl Statement {
    /// Whether a cursor can be made of it. The server has the last word.
    pub fn is_query(&self) -> bool {
        let begins =
            |word: &str| self.text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        match self.class.kind {
            StatementKind::Select => true,
            // WITH … TABLE, and (SELECT …) UNION (SELECT …).
            StatementKind::Other => begins("with") || begins("("),
            _ => false,
        }
    }

    /// The file's line for a position within [`Statement::text`] as the server reports it: characters, from 1.
    pub fn line_of_position(&self, position: u32) -> u32 {
        let before = self.text.chars().take(position.saturating_sub(1) as usize);
        self.line + before.filter(|&c| c == '\n').count() as u32
    }

    /// The first words on one line, at most `max` characters, passwords masked: how a report names the statement.
    pub fn summary(&self, max: usize) -> String {
        /// The first words of a statement stand within so many characters, unless comments stand between them.
        const LOOKED_AT: usize = 2000;
        significant_text(&crate::masking::sql_beginning(&self.text, LOOKED_AT.max(max)), max)
    }
}

/// What a statement is and what it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Whether it may run inside a transaction.
    pub transaction: TransactionClass,
    /// What sort of statement it is. For a `WITH`, the main statement's.
    pub kind: StatementKind,
    /// Tables whose rows it can change, in the order of the text, CTEs included.
    pub effects: Vec<TableEffect>,
    /// Tables it creates.
    pub creates: Vec<TableName>,
    /// Tables that it gives another name or schema: old, new.
    pub renames: Vec<(TableName, TableName)>,
    /// It runs code that is not visible here: "DO block", "CALL close_month", "EXECUTE p".
    pub runs_code: Option<String>,
    /// Functions called while it runs, without duplicates. Bodies and defaults that only get stored do not count.
    pub functions: Vec<TableName>,
    /// Effects that a ROLLBACK does not undo, each as a phrase for a person: "setval moves a sequence".
    pub outside_transaction: Vec<String>,
    /// The enum type that gets a value; the value can't be used before the commit (55P04).
    pub adds_enum_value: Option<String>,
    /// Things a person should know, as phrases: "disables triggers on orders".
    pub warnings: Vec<String>,
    /// Locks that it takes on tables that are there before, where its words tell.
    pub locks: Vec<locks::TableLock>,
    /// What our parser could not read. Then `effects` may be incomplete, and nothing follows from a table's absence.
    pub unread: Option<String>,
}

impl Class {
    pub(crate) fn new(kind: StatementKind) -> Self {
        Self {
            transaction: TransactionClass::Transactional,
            kind,
            effects: Vec::new(),
            creates: Vec::new(),
            renames: Vec::new(),
            runs_code: None,
            functions: Vec::new(),
            outside_transaction: Vec::new(),
            adds_enum_value: None,
            warnings: Vec::new(),
            locks: Vec::new(),
            unread: None,
        }
    }

    /// Whether it calls any function by name.
    pub fn calls_functions(&self) -> bool {
        !self.functions.is_empty()
    }
}

/// Whether a statement may run inside a transaction block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionClass {
    /// Yes.
    Transactional,
    /// No: the server refuses it there (SQLSTATE 25001).
    MustRunAlone {
        /// Why, as a phrase: "CREATE INDEX CONCURRENTLY cannot run in a transaction".
        reason: String,
    },
    /// It depends on what only the server knows. Trying it inside is harmless: if the server refuses (25001, 2D000),
    /// the transaction rolls back.
    Unknown {
        /// What it depends on, as a phrase.
        reason: String,
    },
}

/// The sort of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// SELECT, VALUES, TABLE, also with INTO.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE.
    Truncate,
    /// Any DROP.
    Drop,
    /// MERGE.
    Merge,
    /// COPY.
    Copy,
    /// DO.
    Do,
    /// CALL.
    Call,
    /// CREATE FUNCTION or PROCEDURE.
    CreateFunction,
    /// Everything else that changes the schema, rights or comments.
    Ddl,
    /// BEGIN, COMMIT and their like.
    TransactionControl(TransactionVerb),
    /// SET and RESET of a session's settings.
    Set,
    /// VACUUM, EXPLAIN, LOCK, NOTIFY …, and what is not known.
    Other,
}

/// A statement that steers transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionVerb {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT.
    Savepoint,
    /// RELEASE.
    Release,
    /// ROLLBACK TO.
    RollbackTo,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    Prepared,
}

/// A name as the statement wrote it, folded and unquoted as PostgreSQL does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, when it was written.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

impl TableName {
    /// Whether two written names can mean one object.
    pub fn can_be(&self, other: &Self) -> bool {
        self.name == other.name
            && (self.schema == other.schema || self.schema.is_none() || other.schema.is_none())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One way in which a statement can change rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEffect {
    /// What it reaches.
    pub target: Target,
    /// How.
    pub effect: Effect,
    /// CASCADE was written.
    pub cascade: bool,
}

/// What an effect reaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One table, with its partitions and children.
    Table(TableName),
    /// Every table of a schema.
    Schema(String),
    /// It could be any table.
    Everything,
}

/// How rows can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Rows are added.
    Insert,
    /// Rows are changed in place, or moved between partitions.
    Update,
    /// Rows are removed.
    Delete,
    /// All rows are removed.
    Truncate,
    /// The table is removed.
    Drop,
    /// Anything: MERGE, attached and detached partitions, REFRESH, DROP OWNED.
    Unknown,
}

/// A file that can't be split, or must not be run as it is. Found before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseProblem {
    /// Line in the file, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do: a full sentence.
    pub hint: String,
}
#[cfg(test)]
mod tests;
