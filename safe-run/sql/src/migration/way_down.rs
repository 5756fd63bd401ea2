//! Comments that may begin a way down that no tool of ours writes. Where one does, what follows must not run; where it is an
//! ordinary comment, the file must not be refused. Pure.
//!
//! A comment begins a way down only if it
//! - stands on lines of its own between statements, with no SQL of its own in it;
//! - says nothing but a word for the way down, with words around it that add nothing;
//! - has statements before it, or a comment of the same kind for the way up somewhere; and statements behind it;
//! - and looks like a heading (`-- DOWN:`, `-- ### Rollback`, `-- Undo migration`), has one for the way up before it, is one of the
//!   words that are no English for anything else, or is followed by what takes away something that the file made before.

use std::collections::BTreeSet;

use super::annotation;
use crate::section::Sections;
use crate::statement::{ParseProblem, Statement};
use crate::token::{TokenKind, tokens};

/// Nothing but the other direction is called so.
const DOWN: [&str; 5] = ["down", "downs", "downgrade", "rollback", "rollbacks"];

/// Also what an ordinary comment says of the next statement.
const BACK: [&str; 9] =
    ["undo", "revert", "reverse", "backout", "unapply", "teardown", "backward", "backwards", "undeploy"];

const UP: [&str; 7] = ["up", "ups", "upgrade", "apply", "forward", "forwards", "deploy"];

/// Make a heading of a word.
const HEADING: [&str; 12] = [
    "migration",
    "migrations",
    "migrate",
    "script",
    "scripts",
    "section",
    "sql",
    "part",
    "schema",
    "way",
    "path",
    "direction",
];

/// Add nothing.
const AROUND: [&str; 12] =
    ["below", "begin", "begins", "start", "starts", "here", "of", "the", "name", "type", "sqlx", "step"];

/// Say how it would be done, as an ordinary comment may.
const HOW: [&str; 3] = ["to", "how", "steps"];

/// A comment on lines of its own, between statements.
struct Comment<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

/// What a comment says, if that is nothing but a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Says {
    up: bool,
    /// It looks like a heading, or is a word for nothing else.
    is_plain: bool,
}

/// The first comment that begins such a way down: its line and its text.
pub(crate) fn unknown_way_down(
    sql: &str,
    sections: &Sections,
    statements: &[Statement],
) -> Option<ParseProblem> {
    // Its comments have a form of their own.
    if sql.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase().starts_with("--liquibase") {
        return None;
    }
    let comments = comments(sql, sections, statements);
    let said: Vec<(&Comment<'_>, Says)> =
        comments.iter().filter_map(|comment| Some((comment, says(comment.text)?))).collect();
    let down = said.iter().filter(|(_, says)| !says.up).find(|(comment, says)| {
        let before: Vec<&Statement> =
            statements.iter().filter(|statement| statement.byte_range.end <= comment.start).collect();
        let behind: Vec<&Statement> =
            statements.iter().filter(|statement| statement.byte_range.start >= comment.end).collect();
        let has_up = said.iter().any(|(_, says)| says.up);
        !behind.is_empty()
            && (!before.is_empty() || has_up)
            && (has_up || (says.is_plain && !is_commented_out(sql, comment)) || takes_away(&before, &behind))
    });
    down.map(|(comment, _)| ParseProblem {
        line: sql[..comment.start].matches('\n').count() as u32 + 1,
        column: 1,
        message: format!(
            "`{}` reads like the start of a way down, and what follows it would run",
            comment.text.trim()
        ),
        hint: "Move the way down out of the file. If it is an ordinary comment, and all of the file goes up, say so with \
               --whole-file VERSION, or with `-- safe-run: whole-file` in the file."
            .to_owned(),
    })
}

/// Whether the way down that the comment begins is SQL in comments, which stands right behind it: what follows that is the way up again.
fn is_commented_out(sql: &str, comment: &Comment<'_>) -> bool {
    let mut tokens = tokens(sql, comment.end).map_while(Result::ok);
    tokens.find(|token| token.kind != TokenKind::Space).is_some_and(|token| {
        matches!(token.kind, TokenKind::LineComment | TokenKind::BlockComment)
            && token.text(sql).contains(';')
            && begins_like_sql(token.text(sql))
    })
}

/// Whether what a comment says begins as a statement does: `-- puts the prices back; see #12` does not.
fn begins_like_sql(comment: &str) -> bool {
    const VERBS: [&str; 16] = [
        "alter", "begin", "comment", "create", "delete", "do", "drop", "grant", "insert", "merge", "reindex",
        "revoke", "select", "set", "truncate", "update",
    ];
    let body = comment.trim_start_matches(|c: char| !c.is_alphanumeric());
    let word = body.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    VERBS.contains(&word.to_ascii_lowercase().as_str())
}

/// The comments on lines of their own that stand between statements.
fn comments<'a>(sql: &'a str, sections: &Sections, statements: &[Statement]) -> Vec<Comment<'a>> {
    let mut found = Vec::new();
    for range in annotation::outside_copy_data(sql, sections, statements) {
        for token in tokens(&sql[..range.end], range.start).map_while(Result::ok) {
            if !matches!(token.kind, TokenKind::LineComment | TokenKind::BlockComment) {
                continue;
            }
            let (start, end) = (token.range.start, token.range.end);
            let is_blank = |text: Option<&str>| text.is_none_or(|text| text.trim().is_empty());
            let alone = is_blank(sql[..start].rsplit('\n').next()) && is_blank(sql[end..].split('\n').next());
            let inside = statements.iter().any(|statement| statement.byte_range.contains(&start));
            if alone && !inside {
                found.push(Comment { text: token.text(sql), start, end });
            }
        }
    }
    found
}

/// What it says, if that is one direction and nothing else.
fn says(comment: &str) -> Option<Says> {
    // SQL that was commented out.
    if comment.contains(';') {
        return None;
    }
    let bare = comment.trim();
    let bare = match bare.strip_prefix("/*") {
        Some(inner) => inner.strip_suffix("*/").unwrap_or(inner),
        None => bare.strip_prefix("--").unwrap_or(bare),
    };
    let lower = bare.to_ascii_lowercase();
    let joined = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let joined = joined.replace("roll back", "rollback").replace("tear down", "teardown");
    let words: Vec<&str> = joined.split(' ').collect();
    // node-pg-migrate takes whatever begins so.
    if joined.starts_with("down migration ") {
        return Some(Says { up: false, is_plain: true });
    }
    let is_direction = |word: &&str| DOWN.contains(word) || BACK.contains(word) || UP.contains(word);
    let directions: Vec<&str> = words.iter().copied().filter(is_direction).collect();
    let [direction] = directions.as_slice() else { return None };
    let adds_nothing = |word: &&str| {
        is_direction(word) || HEADING.contains(word) || AROUND.contains(word) || HOW.contains(word)
    };
    if !words.iter().all(adds_nothing) {
        return None;
    }
    let is_decorated = bare.trim().contains(|c: char| !c.is_alphanumeric() && !c.is_whitespace() && c != '.');
    let is_heading = is_decorated || words.iter().any(|word| HEADING.contains(word));
    let says_how = words.iter().any(|word| HOW.contains(word));
    let is_plain = !says_how && (is_heading || DOWN.contains(direction));
    Some(Says { up: UP.contains(direction), is_plain })
}

/// Whether something behind takes away, or changes back, what something before made or changed.
fn takes_away(before: &[&Statement], behind: &[&Statement]) -> bool {
    let made: BTreeSet<String> = before.iter().flat_map(|statement| names(&statement.text)).collect();
    let removes = |statement: &&&Statement| {
        let words = ["drop", "truncate", "delete", "revoke", "rename"];
        let mut tokens = tokens(&statement.text, 0).map_while(Result::ok);
        tokens.any(|token| words.iter().any(|word| token.is_word(&statement.text, word)))
    };
    behind
        .iter()
        .filter(removes)
        .flat_map(|statement| names(&statement.text))
        .any(|name| made.contains(&name))
}

/// The words of a statement that may be names, as PostgreSQL folds them.
fn names(sql: &str) -> BTreeSet<String> {
    /// Stand in every statement that makes or takes away.
    const KEY_WORDS: [&str; 40] = [
        "create",
        "drop",
        "alter",
        "table",
        "column",
        "index",
        "view",
        "type",
        "schema",
        "function",
        "procedure",
        "trigger",
        "sequence",
        "constraint",
        "policy",
        "materialized",
        "concurrently",
        "if",
        "exists",
        "not",
        "null",
        "only",
        "add",
        "rename",
        "to",
        "from",
        "on",
        "set",
        "default",
        "delete",
        "truncate",
        "revoke",
        "grant",
        "all",
        "cascade",
        "restrict",
        "where",
        "and",
        "or",
        "public",
    ];
    tokens(sql, 0)
        .map_while(Result::ok)
        .filter_map(|token| match token.kind {
            TokenKind::Word => Some(token.text(sql).to_ascii_lowercase()),
            TokenKind::QuotedIdent => Some(token.text(sql).trim_matches('"').replace("\"\"", "\"")),
            _ => None,
        })
        .filter(|word| !KEY_WORDS.contains(&word.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_down_in_comments_is_told_from_one_that_would_run() {
        for (behind, is_commented) in [
            ("\n-- DROP TABLE a;\nCREATE TABLE b ();", true),
            ("\n\n/* DROP TABLE a; */\nCREATE TABLE b ();", true),
            ("\n-- drop the table\nDROP TABLE a;", false),
            ("\n-- puts the prices back; see #12\nUPDATE a SET b = 1;", false),
            ("\nDROP TABLE a;", false),
        ] {
            let sql = format!("-- Rollback:{behind}");
            let comment = Comment { text: "-- Rollback:", start: 0, end: "-- Rollback:".len() };
            assert_eq!(is_commented_out(&sql, &comment), is_commented, "{behind}");
        }
    }

    #[test]
    fn a_heading_is_told_from_a_word_in_an_ordinary_comment() {
        let plain = |text: &str| says(text).map(|says| (says.up, says.is_plain));
        for text in [
            "-- Down",
            "-- DOWN:",
            "--- undo",
            "-- ##### Revert",
            "-- Undo migration",
            "/* [revert] */",
            "-- roll back",
            "-- name: down",
            "-- sqlx:down",
        ] {
            assert_eq!(plain(text), Some((false, true)), "{text}");
        }
        for text in
            ["-- revert", "/* undo */", "-- Reverse.", "-- tear down", "-- To undo:", "-- How to roll back"]
        {
            assert_eq!(plain(text), Some((false, false)), "{text}");
        }
        assert_eq!(plain("-- Up"), Some((true, false)));
        assert_eq!(plain("-- === UP ==="), Some((true, true)));
        assert_eq!(plain("-- Down migration of 0004"), Some((false, true)));
        for text in [
            "/* ROLLBACK; begin */",
            "-- rollback;",
            "-- up or down",
            "-- revert the prices",
            "-- DROP TABLE a",
            "--",
            "-- Rollback of 0012",
            "-- the undo log",
        ] {
            assert_eq!(plain(text), None, "{text}");
        }
    }
}
