//! Which statements lock nothing but the tables that they name: those that this transaction has made itself, and others.
//! Nobody else can know the first, so nobody waits for them, and there is nothing to ask the server for. Of the others
//! something has to be asked, but not for all locks: what it costs to look at these grows with their number, and a
//! transaction of many files holds thousands.
//!
//! Pure. It must never say so of a statement that may lock another table: in doubt, the answer is no, and what is known of
//! names is forgotten. Only the functions behind operators and types are trusted to lock nothing.

use std::collections::BTreeSet;

use super::{
    Class, Statement, StatementKind, TableName,
    locks::{Reader, TableLock},
};
use crate::token::{Token, TokenKind, tokens};

/// Functions that are met in migrations and neither lock a table nor change a setting; any other one may.
pub const HARMLESS: [&str; 16] = [
    "array_agg",
    "clock_timestamp",
    "coalesce",
    "concat",
    "count",
    "format",
    "gen_random_uuid",
    "generate_series",
    "lower",
    "max",
    "md5",
    "min",
    "nextval",
    "now",
    "setval",
    "upper",
];

/// What stands before a parenthesis and is no call: types with a length, and key words.
const NO_CALLS: [&str; 24] = [
    "and",
    "any",
    "array",
    "as",
    "bit",
    "btree",
    "char",
    "character",
    "check",
    "decimal",
    "float",
    "gin",
    "hash",
    "identity",
    "in",
    "include",
    "interval",
    "key",
    "not",
    "numeric",
    "or",
    "unique",
    "varchar",
    "varying",
];

/// The tables that a transaction has made, by the names that its statements gave them.
#[derive(Debug, Default)]
pub struct OwnTables {
    made: BTreeSet<TableName>,
    /// Code ran that is not visible here, or an event trigger was made: from then on any statement may do anything.
    blind: bool,
}

impl OwnTables {
    /// Names may mean something else from here on, or a new transaction begins. Code that ran unseen stays a reason.
    pub fn forget(&mut self) {
        self.made.clear();
    }

    /// Takes the statement that runs next, and says whether its locks are known.
    ///
    /// `Some`: the statement makes nobody wait for a table, but for two kinds. The tables of this transaction's own are known to
    /// nobody else. The tables in the list, as the statement names them, may be others'.
    ///
    /// The list is complete for a table only if two things hold. The table has no inheritance children, which would be locked as
    /// well. And the statement does not write its rows anew, which would run the code of all its indexes.
    pub fn keeps_to<'s>(&mut self, statement: &'s Statement) -> Option<Vec<&'s TableLock>> {
        let class = &statement.class;
        self.blind |= runs_unseen_code(class) || is_about_event_triggers(&statement.text);
        match class.kind {
            _ if self.blind => self.forget(),
            StatementKind::Ddl => {
                let all: Vec<Token> =
                    tokens(&statement.text, 0).map_while(Result::ok).filter(Token::is_significant).collect();
                let words = Reader { text: &statement.text, tokens: &all };
                if makes_a_table(&words, class) {
                    self.made.extend(class.creates.iter().cloned());
                    return Some(self.others(class));
                }
                if !class.locks.is_empty() && (adds_to_a_table(&words) || makes_an_index(&words)) {
                    return calls_nothing(&words, class).then(|| self.others(class));
                }
                self.forget();
            }
            // Rows alone change the meaning of no name.
            StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::Copy => {}
            _ => self.forget(),
        }
        None
    }

    /// The locks of the statement on tables that are not of this transaction's own.
    fn others<'s>(&self, class: &'s Class) -> Vec<&'s TableLock> {
        class.locks.iter().filter(|lock| !self.made.contains(&lock.table)).collect()
    }
}

fn runs_unseen_code(class: &Class) -> bool {
    class.runs_code.is_some()
        || class.unread.is_some()
        || class.functions.iter().any(|function| !HARMLESS.contains(&function.name.as_str()))
}

fn is_about_event_triggers(text: &str) -> bool {
    let mut words = tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).skip(1);
    words.next().is_some_and(|token| token.is_word(text, "event"))
}

/// A table of its own: no parent, no partition, and certainly not one that was there already.
fn makes_a_table(words: &Reader<'_>, class: &Class) -> bool {
    words.is(0, "create")
        && words.created() == Some("table")
        && class.creates.len() == 1
        && !["exists", "inherits", "of"].iter().any(|word| words.has(word))
}

/// `ALTER TABLE … ADD …` and nothing else: DROP and ALTER may reach the other end of a foreign key.
fn adds_to_a_table(words: &Reader<'_>) -> bool {
    if !words.starts(0, &["alter", "table"]) || words.has("partition") {
        return false;
    }
    let Some((_, start)) = words.name(2) else { return false };
    let behind_commas = words.top_level().filter(|&at| at > start && words.is_symbol(at - 1, ','));
    std::iter::once(start).chain(behind_commas).all(|at| words.is(at, "add"))
}

fn makes_an_index(words: &Reader<'_>) -> bool {
    words.is(0, "create") && words.created() == Some("index")
}

/// Whether nothing stands before a parenthesis that could be a function of somebody's own.
fn calls_nothing(words: &Reader<'_>, class: &Class) -> bool {
    words.tokens.windows(2).all(|pair| {
        let name = pair[0].text(words.text);
        match pair[0].kind {
            TokenKind::Word | TokenKind::QuotedIdent if pair[1].is_symbol('(') => {
                let name = super::names::parse(name).name;
                NO_CALLS.contains(&name.as_str())
                    || HARMLESS.contains(&name.as_str())
                    || class.locks.iter().any(|lock| lock.table.name == name)
            }
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements of which nothing has to be asked, by their numbers from 1.
    fn quiet(sql: &str) -> Vec<usize> {
        let mut own = OwnTables::default();
        let statements = crate::statement::split(sql).unwrap();
        let kept = |(n, statement): (usize, &Statement)| {
            own.keeps_to(statement).is_some_and(|others| others.is_empty()).then_some(n + 1)
        };
        statements.iter().enumerate().filter_map(kept).collect()
    }

    #[test]
    fn what_is_done_to_a_new_table_has_not_to_be_asked() {
        assert_eq!(
            quiet(
                "create table a (id int primary key, n numeric(9, 2) check (n > 0), p int references a);
                 insert into a values (1);
                 alter table a add column at timestamptz not null default now(), add unique (n, at);
                 create unlogged table s.b (i int, foreign key (i) references a (id));
                 create unique index on a using btree (lower(n::text));
                 create index i on s.b (i) where i in (1, 2);
                 create table c as select count(*) from a"
            ),
            [1, 3, 4, 5, 6, 7]
        );
    }

    #[test]
    fn what_may_lock_another_table_is_asked() {
        let none: [&str; 22] = [
            "create table a (i int references old)",
            "create table a partition of old for values in (1)",
            "create table a (i int) inherits (old)",
            "create table if not exists a (i int)",
            "create table a as select f()",
            "create temp table a (i int)",
            "alter table old add column i int",
            "create index on old (i)",
            "create index concurrently on old (i)",
            "drop table old",
            "comment on table old is 'x'",
            "create trigger t after insert on old for each row execute function f()",
            "create view a as select 1",
            "do 'begin end'",
            "truncate old",
            "lock table old",
            "refresh materialized view old",
            "vacuum old",
            "select f()",
            "alter table all in tablespace a set tablespace b",
            "alter index old set (fillfactor = 70)",
            "insert into old values (1)",
        ];
        for sql in none {
            assert_eq!(quiet(sql), [0; 0], "{sql}");
        }
        // The first makes the table; what follows may reach others all the same.
        for sql in [
            "alter table a add foreign key (i) references old",
            "alter table a drop constraint c",
            "alter table a add j int, drop constraint c",
            "alter table a alter i type bigint",
            "alter table a add j int default f()",
            "alter table a add check (s.f(i))",
            "alter table a inherit old",
            "alter table a attach partition old for values in (1)",
            "alter table \"A\" add j int",
            "alter table s.a add j int",
            "create index on a (f(i))",
            "create index on a (\"lower \"(i))",
            "drop table a",
        ] {
            assert_eq!(quiet(&format!("create table a (i int); {sql}")), [1], "{sql}");
        }
    }

    #[test]
    fn what_is_added_to_a_table_that_was_there_locks_nothing_but_what_it_names() {
        let others = |sql: &str| {
            let mut own = OwnTables::default();
            let statements = crate::statement::split(sql).unwrap();
            let last = statements.iter().map(|statement| own.keeps_to(statement)).last().unwrap();
            last.map(|names| names.iter().map(|lock| lock.table.to_string()).collect::<Vec<_>>().join(" "))
        };
        for (sql, names) in [
            ("alter table s.old add column i int default 1, add check (i > 0)", Some("s.old")),
            ("create unique index on \"Old\" (lower(t)) where t is not null", Some("Old")),
            ("create table a (i int references old)", Some("old")),
            (
                "create table a (i int primary key); alter table old add foreign key (i) references a (i)",
                Some("old"),
            ),
            ("alter table old add foreign key (i) references old2 (i)", Some("old2 old")),
            ("alter table old add i int default f()", None),
            ("alter table old add i int, drop j", None),
            ("create index on old (f(i))", None),
            ("create index concurrently on old (i)", None),
            ("do 'begin end'; alter table old add column i int", None),
        ] {
            assert_eq!(others(sql).as_deref(), names, "{sql}");
        }
    }

    #[test]
    fn names_that_may_mean_another_table_are_forgotten() {
        for sql in [
            "alter table a rename to b; alter table old rename to a",
            "set search_path = s",
            "rollback to x",
            "drop table a",
            "do 'begin end'",
            "select set_config('search_path', 's', true)",
            "create event trigger e on ddl_command_end execute function f()",
            "create table b (i int) inherits (a)",
        ] {
            let all = format!("create table a (i int); {sql}; alter table a add j int");
            assert_eq!(quiet(&all), [1], "{sql}");
        }
        // Whoever may have made an event trigger has a say in all that follows.
        assert_eq!(quiet("do 'begin end'; create table a (i int)"), [0; 0]);
    }
}
