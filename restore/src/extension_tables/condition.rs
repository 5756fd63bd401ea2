//! Which rows of an extension's configuration table are the user's is a condition of the extension's own making, and stands
//! in the snapshot. One that the server's extension does not have word for word is only run where it can do nothing but
//! compare columns with constants: a snapshot may come from anybody. Pure.

/// Words of a condition, beside columns. No function is among them, nor anything that begins another query.
const WORDS: [&str; 20] = [
    "where",
    "not",
    "and",
    "or",
    "in",
    "is",
    "null",
    "true",
    "false",
    "unknown",
    "between",
    "symmetric",
    "like",
    "ilike",
    "similar",
    "to",
    "escape",
    "distinct",
    "from",
    "any",
];

/// What a list in parentheses may follow, beside an operator or another parenthesis.
const BEFORE_A_LIST: [&str; 8] = ["where", "not", "and", "or", "in", "any", "between", "from"];

/// Words that begin something else in the place of a column.
const NO_COLUMNS: [&str; 14] = [
    "select",
    "table",
    "values",
    "union",
    "intersect",
    "except",
    "with",
    "case",
    "cast",
    "array",
    "row",
    "exists",
    "collate",
    "operator",
];

/// Types of PostgreSQL's own that a constant or a column is cast to.
const TYPES: [&str; 16] = [
    "text",
    "name",
    "varchar",
    "char",
    "integer",
    "int",
    "int4",
    "int8",
    "bigint",
    "smallint",
    "boolean",
    "bool",
    "numeric",
    "date",
    "timestamptz",
    "oid",
];

/// Whether `text` only compares `columns` with constants.
pub(super) fn only_compares(text: &str, columns: &[&str]) -> bool {
    if text.trim().is_empty() {
        return true;
    }
    parse(text, columns).is_some()
}

/// Goes over the whole text; nothing at the first thing that has no place in it.
fn parse(text: &str, columns: &[&str]) -> Option<()> {
    let mut rest = text.trim();
    let mut before = String::new();
    let mut is_first = true;
    while let Some(first) = rest.chars().next() {
        let (length, token) = match first {
            c if c.is_whitespace() => {
                rest = rest.trim_start();
                continue;
            }
            '\'' => (literal(rest)?, "'".to_owned()),
            '"' => {
                let end = rest[1..].find('"')? + 2;
                (columns.contains(&&rest[1..end - 1])).then_some((end, "column".to_owned()))?
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                (end, word(&rest[..end], &before, columns)?)
            }
            c if c.is_ascii_digit() => {
                (rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()), "1".to_owned())
            }
            '(' => {
                let is_list =
                    before.is_empty() || BEFORE_A_LIST.contains(&&*before) || "(=<>!,".contains(&*before);
                is_list.then(|| (1, "(".to_owned()))?
            }
            ')' | ',' => (1, first.to_string()),
            ':' => rest.starts_with("::").then(|| (2, "::".to_owned()))?,
            '=' | '<' | '>' | '!' => (1, first.to_string()),
            // A sign, and no comment.
            '-' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (1, "-".to_owned()),
            _ => return None,
        };
        if is_first && token != "where" {
            return None;
        }
        is_first = false;
        before = token;
        rest = &rest[length..];
    }
    Some(())
}

fn word(word: &str, before: &str, columns: &[&str]) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    if before == "::" {
        return TYPES.contains(&&*lower).then(|| "type".to_owned());
    }
    if WORDS.contains(&&*lower) {
        return Some(lower);
    }
    (columns.contains(&&*lower) && !NO_COLUMNS.contains(&&*lower)).then(|| "column".to_owned())
}

/// Length of a plain literal: a quote in it is doubled, a backslash is none of ours to read.
fn literal(text: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find('\'')? + 1;
        if !text[at..].starts_with('\'') {
            return (!text[..at].contains('\\')).then_some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [&str; 6] = ["srid", "key", "is_custom", "id", "union", "Odd"];

    #[test]
    fn conditions_of_real_extensions_only_compare() {
        for text in [
            "",
            " ",
            "WHERE NOT is_custom",
            "where is_custom = true",
            "WHERE NOT (\nsrid BETWEEN 2000 AND 2002 OR srid IN (1, 2, 3)\n)",
            "WHERE key = 'exported_uuid'",
            "WHERE key <> 'it''s' AND id >= 1000",
            "WHERE key NOT IN ('a', 'b') OR key IS NOT NULL",
            "WHERE key = ANY ('{a,b}'::text) AND id > -1",
            "WHERE \"Odd\" LIKE 'a%'",
        ] {
            assert!(only_compares(text, &COLUMNS), "{text}");
        }
    }

    #[test]
    fn whatever_could_run_something_does_not() {
        for text in [
            "WHERE evil()",
            "WHERE evil (id)",
            "WHERE s.evil(id)",
            "WHERE key.evil = 1",
            "WHERE (SELECT 1) = 1",
            "WHERE id = (SELECT evil())",
            "WHERE true; DROP DATABASE x",
            "WHERE true UNION TABLE pg_authid",
            "WHERE union",
            "WHERE true -- x",
            "WHERE true /* x */",
            "WHERE id::evil = 1",
            "WHERE cast(id AS text) = 'x'",
            "WHERE id OPERATOR(s.=) 1",
            "WHERE E'a' = key",
            "WHERE key = 'a\\'",
            "WHERE $1 = 1",
            "WHERE key = $$a$$",
            "WHERE \"evil\"(id)",
            "WHERE \"Odd\"(id)",
            "WHERE id(id)",
            "id = 1",
            "ORDER BY id",
            "WHERE key ~ 'x'",
            "WHERE key = 'x",
            "WHERE key COLLATE evil = 'x'",
            "LIMIT 1",
        ] {
            assert!(!only_compares(text, &COLUMNS), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(WHERE )?([ -~é\n]|::|'|\"){0,40}|.{0,40}") {
            let _ = only_compares(&text, &COLUMNS);
        }

        #[test]
        fn a_call_is_never_taken(name in "[a-z_]{1,8}", before in "(WHERE |WHERE NOT |WHERE id = 1 AND )", blank in "[ \n]{0,2}") {
            prop_assume!(!WORDS.contains(&&*name));
            let text = format!("{before}{name}{blank}(id)");
            prop_assert!(!only_compares(&text, &COLUMNS), "{}", text);
        }
    }
}
