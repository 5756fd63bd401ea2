//! Values that a statement adds to an enum, and statements that need such a value.
//!
//! `ALTER TYPE … ADD VALUE` may run in a transaction, but the value can't be used there before the commit (55P04). Which
//! literal is of which type only the server knows. A literal that reads like the value counts as a use where the statement
//! names anything that has to do with the type: the type, a table with a column of it, a function that speaks of such.
//! Taking one for a use costs a commit in between, and missing one is a failure that the server reports.

use std::collections::{BTreeMap, BTreeSet};

use super::{Statement, TableName, names};
use crate::token::{Token, TokenKind, tokens};

/// What is known of enums that get labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    server_version: i32,
    /// Names that have to do with each; nothing is known of one that is not here.
    users: BTreeMap<TableName, BTreeSet<String>>,
}

impl Labels {
    /// Nothing is known but the server.
    pub fn unknown(server_version: i32) -> Self {
        Self { server_version, users: BTreeMap::new() }
    }

    /// What in the database has to do with the enum.
    pub fn add(&mut self, name: TableName, mut users: BTreeSet<String>) {
        users.insert(name.name.clone());
        self.users.insert(name, users);
    }

    /// Whether a label can be used at once where the type was made in the same transaction, outside of a savepoint.
    pub fn usable_in_new_types(&self) -> bool {
        self.server_version >= 170_000
    }

    /// Takes note of what the statement makes or changes of what has to do with one of the enums.
    pub fn follow(&mut self, statement: &Statement) {
        for users in self.users.values_mut() {
            if mentions(&statement.text, users, 0) {
                users.extend(objects(&statement.text));
            }
        }
    }

    /// Whether the statement can have a value of the enum.
    fn reaches(&self, enum_type: &TableName, statement: &Statement) -> bool {
        self.users.get(enum_type).is_none_or(|users| mentions(&statement.text, users, 0))
    }
}

/// Whether one of the names stands in the text, also within its strings and bodies.
fn mentions(text: &str, wanted: &BTreeSet<String>, depth: u32) -> bool {
    tokens(text, 0).map_while(Result::ok).any(|token| match token.kind {
        TokenKind::Word | TokenKind::QuotedIdent => wanted.contains(&names::parse(token.text(text)).name),
        TokenKind::Str | TokenKind::DollarStr if depth < DEEPEST => {
            mentions(&content(token.text(text)), wanted, depth + 1)
        }
        _ => false,
    })
}

/// What CREATE or ALTER names first, and what it is on.
fn objects(text: &str) -> Vec<String> {
    const WORDS: [&str; 32] = [
        "create",
        "alter",
        "or",
        "replace",
        "temp",
        "temporary",
        "unlogged",
        "global",
        "local",
        "materialized",
        "recursive",
        "if",
        "not",
        "exists",
        "only",
        "constraint",
        "event",
        "foreign",
        "table",
        "view",
        "function",
        "procedure",
        "type",
        "domain",
        "trigger",
        "index",
        "unique",
        "concurrently",
        "aggregate",
        "policy",
        "rule",
        "cast",
    ];
    let all = significant(text);
    if !all.first().is_some_and(|first| first.is_word(text, "create") || first.is_word(text, "alter")) {
        return Vec::new();
    }
    let is_name = |token: &&Token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdent);
    // Of `schema.name` the name counts.
    let named = |from: usize| {
        let mut at = from;
        while all.get(at + 1).is_some_and(|token| token.is_symbol('.')) {
            at += 2;
        }
        all.get(at).filter(is_name).map(|token| names::parse(token.text(text)).name)
    };
    let first = all.iter().position(|token| !WORDS.iter().any(|word| token.is_word(text, word)));
    let on = all.iter().position(|token| token.is_word(text, "on")).map(|at| at + 1);
    // What is renamed goes on under another name.
    let renamed = (0..all.len()).find(|&at| starts(&all[at..], text, &["rename", "to"])).map(|at| at + 2);
    first.into_iter().chain(on).chain(renamed).filter_map(named).collect()
}

/// A literal in a body in a DO block in …: nobody writes more.
const DEEPEST: u32 = 5;

/// A value that a statement adds to an enum that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewValue {
    /// The enum.
    pub enum_type: TableName,
    /// The value.
    pub value: String,
}

/// What `ALTER TYPE … ADD VALUE` adds.
pub fn added_value(text: &str) -> Option<NewValue> {
    let all = significant(text);
    if !starts(&all, text, &["alter", "type"]) {
        return None;
    }
    let add = (2..all.len()).find(|&at| starts(&all[at..], text, &["add", "value"]))?;
    let literal = all[add..].iter().find(|token| is_literal(token))?;
    Some(NewValue { enum_type: name_between(text, &all[2..add])?, value: content(literal.text(text)) })
}

/// The enum that `CREATE TYPE … AS ENUM` makes: its values can be used at once.
pub fn created_enum(text: &str) -> Option<TableName> {
    let all = significant(text);
    if !starts(&all, text, &["create", "type"]) {
        return None;
    }
    let end = (2..all.len()).find(|&at| starts(&all[at..], text, &["as", "enum"]))?;
    name_between(text, &all[2..end])
}

/// The name that the enum of `ALTER TYPE … RENAME TO` had before, and the one that it has from then on.
fn renamed_type(text: &str) -> Option<(TableName, String)> {
    let all = significant(text);
    let to = (3..all.len()).find(|&at| starts(&all[at..], text, &["rename", "to"]))?;
    if !starts(&all, text, &["alter", "type"]) {
        return None;
    }
    let new = all.get(to + 2)?;
    Some((name_between(text, &all[2..to])?, names::parse(new.text(text)).name))
}

/// The name that a type has from this statement on, if it has one of `names` now.
pub fn new_name(text: &str, names: &[TableName]) -> Option<TableName> {
    let is_one = |old: &TableName| names.iter().any(|name| name.can_be(old));
    if let Some((old, name)) = renamed_type(text) {
        return is_one(&old).then_some(TableName { schema: old.schema, name });
    }
    let all = significant(text);
    let set = (3..all.len()).find(|&at| starts(&all[at..], text, &["set", "schema"]))?;
    let old = starts(&all, text, &["alter", "type"]).then(|| name_between(text, &all[2..set])).flatten()?;
    let schema = all.get(set + 2).map(|token| names::parse(token.text(text)).name);
    is_one(&old).then_some(TableName { schema, name: old.name })
}

/// The names that a type had before these statements gave it its name.
pub fn earlier_names(name: &TableName, statements: &[&Statement]) -> BTreeSet<TableName> {
    let mut wanted = BTreeSet::from([name.name.clone()]);
    let mut earlier = BTreeSet::new();
    for (old, new) in statements.iter().rev().filter_map(|statement| renamed_type(&statement.text)) {
        if wanted.contains(&new) {
            wanted.insert(old.name.clone());
            earlier.insert(old);
        }
    }
    earlier
}

/// Whether the statement has a literal, also in a function's body or in COPY data of `sql`, that reads like the new value,
/// and can be one.
pub fn uses_value(statement: &Statement, sql: &str, new: &NewValue, labels: &Labels) -> bool {
    reads_like(statement, sql, &new.value) && labels.reaches(&new.enum_type, statement)
}

fn reads_like(statement: &Statement, sql: &str, value: &str) -> bool {
    let all = significant(&statement.text);
    // Adding after it, renaming it and talking about it is allowed at once.
    if starts(&all, &statement.text, &["alter", "type"]) || starts(&all, &statement.text, &["comment"]) {
        return false;
    }
    let data = statement.copy_data.clone().and_then(|range| sql.get(range)).unwrap_or_default();
    has_literal(&statement.text, value, 0)
        || data.split(['\t', ',', '\n', '\r']).any(|field| field == value)
        || data.lines().any(|line| line.contains(['{', '(', '[']) && stands_apart(line, value))
}

/// Whether a literal is the value, or an array, a row, a range, a list or a JSON document in which it is one.
fn holds(literal: &str, value: &str) -> bool {
    literal == value
        || literal.trim_start().starts_with(['{', '(', '[']) && stands_apart(literal, value)
        || !literal.contains(char::is_whitespace)
            && literal.split([',', ';', '|']).any(|element| element == value)
}

/// Whether the value stands in the text between two ends of elements. Quotes and backslashes around or within it do not count.
fn stands_apart(text: &str, value: &str) -> bool {
    let bare = |text: &str| text.replace(['"', '\\'], "");
    let (text, value) = (bare(text), bare(value));
    !value.is_empty()
        && text.match_indices(&value).any(|(at, _)| {
            let before = text[..at].trim_end().chars().next_back();
            let behind = text[at + value.len()..].trim_start().chars().next();
            before.is_some_and(|c| "{([,;:|".contains(c)) && behind.is_none_or(|c| "})],;:|".contains(c))
        })
}

fn has_literal(text: &str, value: &str, depth: u32) -> bool {
    tokens(text, 0).map_while(Result::ok).filter(is_literal).any(|token| {
        let inner = content(token.text(text));
        holds(&inner, value)
            || (depth < DEEPEST && inner.contains(['\'', '$']) && has_literal(&inner, value, depth + 1))
    })
}

fn significant(text: &str) -> Vec<Token> {
    tokens(text, 0).map_while(Result::ok).filter(Token::is_significant).collect()
}

fn starts(tokens: &[Token], text: &str, words: &[&str]) -> bool {
    words.iter().enumerate().all(|(at, word)| tokens.get(at).is_some_and(|token| token.is_word(text, word)))
}

fn is_literal(token: &Token) -> bool {
    matches!(token.kind, TokenKind::Str | TokenKind::DollarStr)
}

fn name_between(text: &str, tokens: &[Token]) -> Option<TableName> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    Some(names::parse(&text[first.range.start..last.range.end]))
}

/// What a literal means, for all that is not written with backslashes.
fn content(literal: &str) -> String {
    if let Some(rest) = literal.strip_prefix('$') {
        let tag = rest.find('$').map_or(literal.len(), |at| at + 2);
        return literal.get(tag..literal.len().saturating_sub(tag)).unwrap_or_default().to_owned();
    }
    let start = literal.find('\'').map_or(literal.len(), |at| at + 1);
    literal.get(start..literal.len().saturating_sub(1)).unwrap_or_default().replace("''", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_values_and_made_enums_are_read() {
        let added = |text: &str| added_value(text).map(|new| format!("{}: {}", new.enum_type, new.value));
        assert_eq!(
            added("ALTER TYPE s.\"Mood\" ADD VALUE IF NOT EXISTS 'so''so' BEFORE 'ok'").unwrap(),
            "s.Mood: so'so"
        );
        assert_eq!(added("alter type mood add /* x */ value $$fine$$").unwrap(), "mood: fine");
        assert_eq!(added("alter type mood rename value 'a' to 'b'"), None);
        assert_eq!(added("alter type mood add attribute value text"), None);
        assert_eq!(created_enum("create type s.mood as enum ('a')").unwrap().to_string(), "s.mood");
        assert_eq!(created_enum("create type mood as (a int)"), None);
    }

    #[test]
    fn only_what_has_to_do_with_the_type_can_use_its_labels() {
        let mood = names::parse("app.mood");
        let new = NewValue { enum_type: mood.clone(), value: "ok".to_owned() };
        let mut labels = Labels::unknown(140_000);
        let uses =
            |labels: &Labels, sql: &str| uses_value(&super::super::split(sql).unwrap()[0], sql, &new, labels);
        assert!(uses(&labels, "insert into other values ('ok')"), "nothing is known");
        labels.add(mood, ["people".to_owned(), "Set Mood".to_owned()].into());
        for sql in [
            "insert into people values ('ok')",
            "select 'ok'::app.mood",
            "select \"Set Mood\"('ok')",
            "do $$ begin execute 'update people set m = ''ok'''; end $$",
            "copy people (m) from stdin;\nok\n\\.\n",
        ] {
            assert!(uses(&labels, sql), "{sql}");
        }
        for sql in
            ["insert into other values ('ok')", "create table logs (level text default 'ok')", "select 'ok'"]
        {
            assert!(!uses(&labels, sql), "{sql}");
        }
        for sql in [
            "create view app.happy as select * from people",
            "create trigger t before insert on other execute function \"Set Mood\"()",
        ] {
            labels.follow(&super::super::split(sql).unwrap()[0]);
        }
        assert!(uses(&labels, "select * from happy where m = 'ok'"));
        assert!(uses(&labels, "insert into other values ('ok')"));
    }

    #[test]
    fn a_type_is_known_by_the_names_that_it_had_and_will_have() {
        let split = |sql: &str| super::super::split(sql).unwrap();
        let sql =
            "alter type app.a rename to b; alter type b rename value 'x' to 'y'; alter table b rename to z;
                   alter type \"b\" rename to \"C\"; alter type other rename to d";
        let statements = split(sql);
        let statements: Vec<&Statement> = statements.iter().collect();
        let named = |name: &str| -> Vec<String> {
            earlier_names(&names::parse(name), &statements).iter().map(ToString::to_string).collect()
        };
        assert_eq!(named("\"C\""), ["b", "app.a"]);
        assert_eq!(named("b"), ["app.a"]);
        assert_eq!(named("x"), Vec::<String>::new());
        let mood = names::parse("mood");
        let new = NewValue { enum_type: mood.clone(), value: "ok".to_owned() };
        let mut labels = Labels::unknown(140_000);
        labels.add(mood, ["people".to_owned()].into());
        for sql in ["alter type mood rename to feeling", "alter table people rename to folk"] {
            labels.follow(&split(sql)[0]);
        }
        for sql in ["select 'ok'::feeling", "insert into folk values ('ok')"] {
            assert!(uses_value(&split(sql)[0], sql, &new, &labels), "{sql}");
        }
    }

    /// Arrays, rows, ranges and JSON have labels within one literal.
    #[test]
    fn a_use_is_found_within_literals_that_hold_several_values() {
        let uses = |sql: &str| reads_like(&super::super::split(sql).unwrap()[0], sql, "z");
        for sql in [
            "insert into t values ('{z}')",
            "insert into t values ('{a, z}'::m[])",
            "insert into t values ('[0:1]={a,z}')",
            "insert into t values ('{{a},{\"z\"}}')",
            "insert into t values ('(1,z)')",
            "select '[a,z]'::range_of_m",
            "insert into t select * from json_populate_record(null::t, '{\"i\": 1, \"m\":\"z\"}')",
            "select string_to_array('a,z', ',')::m[]",
            "insert into t values ('{\"(1,\\\"z\\\")\"}')",
            "copy t from stdin;\n1\t{a,z}\n\\.\n",
            "copy t from stdin with (format csv);\n1,\"{z,a}\"\n\\.\n",
        ] {
            assert!(uses(sql), "{sql}");
        }
        for sql in [
            "insert into t values ('{zz}', '{a z b', 'is z, you see')",
            "insert into t values ('z is (not) it')",
            "select '{\"az\":1}'::jsonb",
            "copy t from stdin;\n1\t(it is) izzy\n\\.\n",
        ] {
            assert!(!uses(sql), "{sql}");
        }
        let label = |sql: &str| reads_like(&super::super::split(sql).unwrap()[0], sql, "it's \"so\", yes");
        assert!(label(r#"insert into t values ('{a,"it''s \"so\", yes"}')"#));
    }

    #[test]
    fn a_new_type_that_is_renamed_or_moved_is_as_new() {
        let made = [names::parse("app.a")];
        let named = |sql: &str| new_name(sql, &made).map(|name| name.to_string());
        assert_eq!(named("alter type a rename to \"B\"").unwrap(), "B");
        assert_eq!(named("alter type app.a rename to b").unwrap(), "app.b");
        assert_eq!(named("alter type app.a set schema \"S\"").unwrap(), "S.a");
        for sql in [
            "alter type other.a rename to b",
            "alter type b set schema s",
            "alter type a rename value 'a' to 'b'",
        ] {
            assert_eq!(named(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_use_is_found_in_statements_bodies_and_copy_data_and_not_in_comments() {
        let uses = |sql: &str| reads_like(&super::super::split(sql).unwrap()[0], sql, "so'so");
        for sql in [
            "insert into t values ('so''so')",
            "insert into t values ($$so'so$$)",
            "do $$ begin update t set m = 'so''so'; end $$",
            "create function f() returns mood language sql as 'select ''so''''so''::mood'",
            "copy t (i, m) from stdin;\n1\tso'so\n\\.\n",
        ] {
            assert!(uses(sql), "{sql}");
        }
        for sql in [
            "insert into t values ('so')",
            "select 1 -- 'so''so'",
            "alter type mood add value 'x' after 'so''so'",
            "comment on type mood is 'so''so'",
            "copy t from stdin;\nso'so far\n\\.\n",
        ] {
            assert!(!uses(sql), "{sql}");
        }
    }
}
