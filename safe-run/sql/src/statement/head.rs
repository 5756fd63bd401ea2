//! Reads a statement's key words from its tokens: its kind, and whether it may run in a transaction.
//!
//! Works on syntax that the parser does not know yet, because the leading words of a statement hardly ever change.
//! Words are compared as unquoted tokens at the top level: a quoted identifier or a string never counts as one.

use super::{StatementKind as Kind, TransactionClass, TransactionVerb};
use crate::token::{Token, TokenKind, tokens};

/// A statement's significant tokens as text.
pub(crate) struct Words<'a> {
    sql: &'a str,
    tokens: &'a [Token],
}

impl<'a> Words<'a> {
    pub fn new(sql: &'a str, tokens: &'a [Token]) -> Self {
        Self { sql, tokens }
    }

    /// The statement's tokens.
    pub fn tokens(&self) -> &'a [Token] {
        self.tokens
    }

    /// Whether the unquoted word at `at` is `word`.
    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(self.sql, word))
    }

    fn is_any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    fn starts(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(at, word)| self.is(at, word))
    }

    /// Whether `words` stand one after the other outside parentheses.
    fn has_top_level(&self, words: &[&str]) -> bool {
        self.top_level().any(|at| words.iter().enumerate().all(|(offset, word)| self.is(at + offset, word)))
    }

    /// Whether `word` stands anywhere, also within an option list.
    fn has(&self, word: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is(at, word))
    }

    /// Positions of the tokens outside parentheses.
    fn top_level(&self) -> impl Iterator<Item = usize> + '_ {
        let mut depth = 0_usize;
        self.tokens.iter().enumerate().filter_map(move |(at, token)| {
            match token.kind {
                TokenKind::Symbol('(') => depth += 1,
                TokenKind::Symbol(')') => depth = depth.saturating_sub(1),
                _ if depth == 0 => return Some(at),
                _ => {}
            }
            None
        })
    }

    /// `option = false`, `option = off` or `option = 0` in an option list.
    fn option_is_off(&self, option: &str) -> bool {
        (0..self.tokens.len()).any(|at| {
            let value = if self.tokens.get(at + 1).is_some_and(|token| token.is_symbol('=')) { 2 } else { 1 };
            self.is(at, option) && self.is_off(at + value)
        })
    }

    fn is_off(&self, at: usize) -> bool {
        let text = self.tokens.get(at).map_or("", |token| token.text(self.sql));
        ["off", "false", "no", "0"].iter().any(|off| text.trim_matches('\'').eq_ignore_ascii_case(off))
    }

    /// `COPY … FROM STDIN`: its data follows in the file.
    pub fn is_copy_from_stdin(&self) -> bool {
        self.is(0, "copy") && self.has_top_level(&["from", "stdin"])
    }

    /// `SET standard_conforming_strings = off`: backslashes in plain strings would escape from here on.
    pub fn turns_off_standard_strings(&self) -> bool {
        let at = if self.is_any(1, &["local", "session"]) { 2 } else { 1 };
        self.is(0, "set") && self.is(at, "standard_conforming_strings") && self.is_off(at + 2)
    }

    /// The name of the setting that `SET`, `RESET` or `SET LOCAL` changes, in lower case.
    pub fn setting(&self) -> Option<String> {
        if !self.is_any(0, &["set", "reset"]) {
            return None;
        }
        let at = if self.is_any(1, &["local", "session"]) { 2 } else { 1 };
        self.tokens.get(at).map(|token| token.text(self.sql).to_ascii_lowercase())
    }

    /// How deep the statement's tree can get: nesting, plus the operators that chain up at each level.
    pub fn depth(&self) -> usize {
        const CHAINING: [&str; 23] = [
            "and",
            "or",
            "not",
            "is",
            "isnull",
            "notnull",
            "in",
            "like",
            "ilike",
            "similar",
            "between",
            "collate",
            "at",
            "union",
            "except",
            "intersect",
            "case",
            "join",
            "select",
            "explain",
            "array",
            "row",
            "only",
        ];
        let mut open = Vec::new();
        let (mut chain, mut depth, mut deepest) = (0_usize, 0_usize, 0_usize);
        for token in self.tokens {
            match token.kind {
                TokenKind::Symbol('(' | '[') => {
                    open.push(chain + 1);
                    depth += chain + 1;
                    chain = 0;
                }
                TokenKind::Symbol(')' | ']') => {
                    chain = open.pop().unwrap_or(0);
                    depth = depth.saturating_sub(chain);
                }
                TokenKind::Symbol(',') => chain = 0,
                TokenKind::Symbol('.' | ';') => {}
                TokenKind::Symbol(_) => chain += 1,
                TokenKind::Word => {
                    chain += usize::from(CHAINING.iter().any(|word| token.is_word(self.sql, word)));
                }
                _ => {}
            }
            deepest = deepest.max(depth + chain);
        }
        deepest
    }

    /// Position of the first word after `CREATE`'s or `ALTER`'s adornments.
    fn object(&self) -> usize {
        let mut at = 1;
        while self
            .is_any(at, &["or", "replace", "unique", "global", "local", "temp", "temporary", "unlogged"])
        {
            at += 1;
        }
        at
    }
}

/// The kind that the leading words say. `WITH` and `EXPLAIN` are [`Kind::Other`]: the parse tree says more.
pub(crate) fn kind(words: &Words<'_>) -> Kind {
    use TransactionVerb as Verb;
    let Some(first) = words.tokens.first() else { return Kind::Other };
    if first.is_symbol('(') {
        return Kind::Select;
    }
    if first.kind != TokenKind::Word {
        return Kind::Other;
    }
    let control = Kind::TransactionControl;
    match first.text(words.sql).to_ascii_lowercase().as_str() {
        "select" | "values" | "table" => Kind::Select,
        "insert" => Kind::Insert,
        "update" => Kind::Update,
        "delete" => Kind::Delete,
        "truncate" => Kind::Truncate,
        "merge" => Kind::Merge,
        "copy" => Kind::Copy,
        "do" => Kind::Do,
        "call" => Kind::Call,
        "drop" => Kind::Drop,
        "create" if words.is_any(words.object(), &["function", "procedure"]) => Kind::CreateFunction,
        "create" | "alter" | "comment" | "grant" | "revoke" | "reassign" | "refresh" | "security"
        | "import" => Kind::Ddl,
        "begin" => control(Verb::Begin),
        "start" if words.is(1, "transaction") => control(Verb::Begin),
        "commit" | "rollback" if words.is(1, "prepared") => control(Verb::Prepared),
        "prepare" if words.is(1, "transaction") => control(Verb::Prepared),
        "commit" | "end" => control(Verb::Commit),
        "rollback" if words.has_top_level(&["to"]) => control(Verb::RollbackTo),
        "rollback" | "abort" => control(Verb::Rollback),
        "savepoint" => control(Verb::Savepoint),
        "release" => control(Verb::Release),
        "set" | "reset" | "discard" => Kind::Set,
        _ => Kind::Other,
    }
}

/// Whether the first words say all there is to know: such a statement changes no rows, whatever else stands in it, and need
/// not be read by a parser that is older than the server.
pub(crate) fn says_all(words: &Words<'_>) -> bool {
    words.is(0, "repack")
        || words.starts(&["wait", "for"])
        || words.is_any(0, &["create", "alter"]) && words.is(1, "publication")
}

/// Whether the statement may run in a transaction, from its words alone.
pub(crate) fn transaction(words: &Words<'_>) -> TransactionClass {
    let alone =
        |what: &str| TransactionClass::MustRunAlone { reason: format!("{what} cannot run in a transaction") };
    let unknown = |reason: &str| TransactionClass::Unknown { reason: reason.to_owned() };
    let object = words.object();
    let Some(first) = words.tokens.first().filter(|token| token.kind == TokenKind::Word) else {
        return TransactionClass::Transactional;
    };
    match first.text(words.sql).to_ascii_lowercase().as_str() {
        "vacuum" => alone("VACUUM"),
        "create" if words.is(object, "index") && words.is(object + 1, "concurrently") => {
            alone("CREATE INDEX CONCURRENTLY")
        }
        "create" if words.is(1, "database") => alone("CREATE DATABASE"),
        "create" if words.is(1, "tablespace") => alone("CREATE TABLESPACE"),
        "create" if words.is(1, "subscription") => {
            if words.option_is_off("connect") || words.option_is_off("create_slot") {
                TransactionClass::Transactional
            } else {
                alone("CREATE SUBSCRIPTION with a replication slot")
            }
        }
        "drop" if words.starts(&["drop", "index", "concurrently"]) => alone("DROP INDEX CONCURRENTLY"),
        "drop" if words.is(1, "database") => alone("DROP DATABASE"),
        "drop" if words.is(1, "tablespace") => alone("DROP TABLESPACE"),
        "drop" if words.is(1, "subscription") => {
            unknown("DROP SUBSCRIPTION runs in a transaction only without a slot")
        }
        "reindex" => reindex(words),
        "cluster" => match words.top_level().find(|&at| at > 0 && !words.is(at, "verbose")) {
            None => alone("CLUSTER of the whole database"),
            Some(_) => unknown("CLUSTER runs in a transaction only for a table without partitions"),
        },
        // CONCURRENTLY can be switched off again, with `= off`.
        "repack" if words.has("concurrently") && !words.option_is_off("concurrently") => {
            alone("REPACK CONCURRENTLY")
        }
        "repack"
            if ["analyze", "analyse"].iter().any(|word| words.has(word) && !words.option_is_off(word)) =>
        {
            alone("REPACK (ANALYZE)")
        }
        "repack" => match words.top_level().find(|&at| at > 0 && !words.is(at, "verbose")) {
            Some(at) if !words.is(at, "using") => {
                unknown("REPACK runs in a transaction only for a table without partitions")
            }
            _ => alone("REPACK of more than one table"),
        },
        // It must not hold a snapshot, and the transaction of a run has exported one.
        "wait" if words.is(1, "for") => alone("WAIT FOR"),
        "alter" if words.is(1, "system") => alone("ALTER SYSTEM"),
        "alter" if words.is(1, "database") && words.has_top_level(&["set", "tablespace"]) => {
            alone("ALTER DATABASE … SET TABLESPACE")
        }
        "alter" if words.is(1, "table") && detaches_concurrently(words) => {
            alone("ALTER TABLE … DETACH PARTITION CONCURRENTLY")
        }
        "alter" if words.is(1, "subscription") => alter_subscription(words),
        "discard" if words.is(1, "all") => alone("DISCARD ALL"),
        "commit" | "rollback" if words.is(1, "prepared") => alone("COMMIT PREPARED or ROLLBACK PREPARED"),
        "call" => unknown("a procedure may COMMIT, which it can do only outside a transaction"),
        "do" if body_ends_transactions(words) => {
            unknown("the body says COMMIT or ROLLBACK, which it can do only outside a transaction")
        }
        _ => TransactionClass::Transactional,
    }
}

fn reindex(words: &Words<'_>) -> TransactionClass {
    let target = words.top_level().find(|&at| at > 0 && !words.is(at, "verbose")).unwrap_or(1);
    let reason = if words.is_any(target, &["database", "system", "schema"]) {
        "REINDEX of a schema or database"
    } else if !words.option_is_off("concurrently") && has_concurrently(words, target) {
        "REINDEX CONCURRENTLY"
    } else {
        return TransactionClass::Unknown {
            reason: "REINDEX runs in a transaction only for a table or index without partitions".to_owned(),
        };
    };
    TransactionClass::MustRunAlone { reason: format!("{reason} cannot run in a transaction") }
}

/// After the target's key word, or as an option before it; a table may also have that name.
fn has_concurrently(words: &Words<'_>, target: usize) -> bool {
    words.is(target + 1, "concurrently") || (0..target).any(|at| words.is(at, "concurrently"))
}

fn detaches_concurrently(words: &Words<'_>) -> bool {
    let detach = words.top_level().find(|&at| words.is(at, "detach") && words.is(at + 1, "partition"));
    let is_key_word = |at: usize| words.is(at, "concurrently") && !words.tokens[at - 1].is_symbol('.');
    // A partition can itself be called "concurrently": the key word is the one after its name.
    detach.is_some_and(|detach| words.top_level().any(|at| at > detach + 2 && is_key_word(at)))
}

fn alter_subscription(words: &Words<'_>) -> TransactionClass {
    let refreshes = words.is_any(3, &["refresh"])
        || (words.is_any(3, &["set", "add", "drop"])
            && words.is(4, "publication")
            && !words.option_is_off("refresh"));
    if refreshes {
        TransactionClass::MustRunAlone {
            reason: "ALTER SUBSCRIPTION with a refresh cannot run in a transaction".to_owned(),
        }
    } else {
        TransactionClass::Transactional
    }
}

/// Whether a DO body has COMMIT or ROLLBACK where a statement begins.
fn body_ends_transactions(words: &Words<'_>) -> bool {
    let is_body = |token: &&Token| matches!(token.kind, TokenKind::DollarStr | TokenKind::Str);
    words.tokens.iter().filter(is_body).any(|body| {
        let text = body.text(words.sql);
        let inner = match body.kind {
            TokenKind::DollarStr => {
                let tag = text[1..].find('$').map_or(text.len(), |at| at + 2);
                text.get(tag..text.len().saturating_sub(tag)).unwrap_or("")
            }
            _ => text.trim_start_matches(['e', 'E']).trim_matches('\''),
        };
        let mut starts = true;
        tokens(inner, 0).map_while(Result::ok).filter(Token::is_significant).any(|token| {
            let found = starts && (token.is_word(inner, "commit") || token.is_word(inner, "rollback"));
            starts = token.is_symbol(';')
                || ["begin", "then", "else", "loop"].iter().any(|word| token.is_word(inner, word));
            found
        })
    })
}
