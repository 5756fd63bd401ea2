use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    ErrorKind,
    snapshot::{
        Manifest,
        codec::hex,
        copy_sql::{copy_in_frozen_statement, copy_in_statement},
        manifest::tests::example,
        readme::{
            create_database_statement, database_statements, globals_sql, load_script, readme, sequences_sql,
            views_sql,
        },
    },
};

/// A manifest that says something in every field that comes near SQL, as a JSON value.
fn rich() -> Value {
    let mut value = serde_json::to_value(example()).unwrap();
    value["database"]["locale_provider"] = json!("icu");
    value["database"]["locale"] = json!("de-DE");
    value["database"]["icu_rules"] = json!("&a < b");
    value["database"]["comment"] = json!("the shop's OWNER TO ");
    value["database"]["acl"] = json!([
        {"grantor": "shop", "grantee": "app", "privilege": "CONNECT", "grantable": true},
        {"grantor": "shop", "grantee": null, "privilege": "TEMPORARY", "grantable": false},
    ]);
    value["database"]["settings"] = json!([
        {"role": null, "name": "search_path", "value": "\"$user\", public"},
        {"role": "app", "name": "app.user", "value": "x"},
    ]);
    value["database"]["security_labels"] = json!([["dummy", "classified"]]);
    value["roles"] = json!([{
        "name": "app", "attributes": ["LOGIN", "NOSUPERUSER"], "connection_limit": 3, "valid_until": "infinity",
        "member_of": [["staff", true]], "settings": [["work_mem", "4MB"]], "comment": "it",
    }]);
    value["placed"] =
        json!([{"kind": "materialized view", "name": {"schema": "s", "name": "v"}, "tablespace": "fast"}]);
    value["sequences"] = json!([{
        "oid": 7, "name": {"schema": "s", "name": "q"}, "last_value": 9, "is_called": true, "increment": 1,
    }]);
    value["extension_sequences"] = json!([{
        "oid": 8, "name": {"schema": "s", "name": "e"}, "last_value": -9, "is_called": false, "increment": 1,
    }]);
    value["database"]["settings"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": null, "name": "temp_tablespaces", "value": ""}));
    value["materialized_views"] = json!([{"name": {"schema": "s", "name": "v"}, "is_populated": true}]);
    value["extensions"] = json!([{"name": "hstore", "version": "1.8"}]);
    value["grants"] =
        json!([{"object": "table s.t", "grantee": "app", "privilege": "SELECT", "grantable": false}]);
    value["not_kept"] = json!(["nothing"]);
    let mut second = value["tables"][0].clone();
    second["oid"] = json!(16_401);
    second["name"] = json!({"schema": "s", "name": "p1"});
    second["load_into"] = json!({"schema": "s", "name": "p"});
    second["chunks"][0]["path"] = json!("data/2.0.copy.zst");
    value["tables"].as_array_mut().unwrap().push(second);
    let hash = "cd".repeat(32);
    value["files"] = json!([{"path": "schema.dump", "bytes": 5, "sha256": hash}]);
    let chunk = |path: &str| {
        json!({"path": path, "first_block": 0, "rows": 1, "raw_bytes": 4, "stored_bytes": 4,
                                    "sha256": hash, "row_hash": "0".repeat(32)})
    };
    value["large_objects"] = json!({"count": 1, "metadata": chunk("large-objects/m.copy.zst"),
                                    "pages": [chunk("large-objects/p.0.copy.zst")]});
    value
}

/// As somebody writes it who makes the hash anew.
fn read(value: &Value) -> crate::Result<Manifest> {
    let body = value.to_string();
    let hash = hex(&Sha256::digest(body.as_bytes()));
    Manifest::from_bytes(format!("{{\"sha256\":\"{hash}\",\"snapshot\":{body}}}\n").as_bytes())
}

/// All SQL that is made of a manifest.
fn all_sql(manifest: &Manifest) -> Vec<String> {
    let database = &manifest.database;
    let mut all = database_statements(database, &database.name);
    all.extend((14..20).map(|major| create_database_statement(database, "x", major)));
    all.extend([
        globals_sql(&manifest.roles),
        sequences_sql(&manifest.sequences, &manifest.extension_sequences),
    ]);
    all.push(views_sql(&manifest.materialized_views));
    for data in &manifest.tables {
        all.push(copy_in_statement(&data.table, &database.encoding));
        all.push(copy_in_frozen_statement(&data.table, &database.encoding));
    }
    for relation in &manifest.placed {
        all.push(format!("ALTER {} {}", relation.kind.as_str().to_uppercase(), relation.name));
    }
    all
}

/// Every word that SQL of ours may have outside of names and literals.
const WORDS: &[&str] = &[
    "ADMIN",
    "BEGIN",
    "COMMIT",
    "CURRENT",
    "set_config",
    "ALTER",
    "BUILTIN_LOCALE",
    "BYPASSRLS",
    "COMMENT",
    "CONNECT",
    "CONNECTION",
    "COPY",
    "CREATE",
    "CREATEDB",
    "CREATEROLE",
    "DATABASE",
    "E",
    "ENCODING",
    "FOR",
    "FORMAT",
    "FREEZE",
    "FROM",
    "GRANT",
    "ICU_LOCALE",
    "ICU_RULES",
    "IN",
    "INDEX",
    "INHERIT",
    "IS",
    "LABEL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LIMIT",
    "LOCALE_PROVIDER",
    "LOGIN",
    "MATERIALIZED",
    "NOBYPASSRLS",
    "NOCREATEDB",
    "NOCREATEROLE",
    "NOINHERIT",
    "NOLOGIN",
    "NOREPLICATION",
    "NOSUPERUSER",
    "ON",
    "OPTION",
    "OWNER",
    "PUBLIC",
    "ALL",
    "REFRESH",
    "REPLICATION",
    "REVOKE",
    "ROLE",
    "SECURITY",
    "SELECT",
    "SET",
    "STDIN",
    "SUPERUSER",
    "TABLE",
    "TABLESPACE",
    "TEMPLATE",
    "TEMPORARY",
    "TO",
    "UNTIL",
    "VALID",
    "VIEW",
    "WITH",
    "builtin",
    "false",
    "icu",
    "pg_catalog",
    "regclass",
    "search_path",
    "setval",
    "template0",
    "text",
    "true",
];

/// What stands outside of names, literals and comments is one of [`WORDS`], a number or a separator. A lexer of its own:
/// PostgreSQL's rules, with standard_conforming_strings on.
fn outside_of_the_grammar(sql: &str) -> Option<String> {
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let skip = match first {
            '"' => quoted_end(rest, '"', false)?,
            '\'' => quoted_end(rest, '\'', false)?,
            'E' if rest[1..].starts_with('\'') => 1 + quoted_end(&rest[1..], '\'', true)?,
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            c if c.is_ascii_alphabetic() => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if !WORDS.contains(&&rest[..end]) {
                    return Some(rest[..end].to_owned());
                }
                end
            }
            c if c.is_ascii_digit() || " \n.,;:()=-".contains(c) => 1,
            c => return Some(c.to_string()),
        };
        rest = &rest[skip..];
    }
    None
}

/// Length of a quoted text; a text that never ends is `None`, which the caller takes for its own end: so none is made.
fn quoted_end(text: &str, quote: char, backslashes: bool) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if backslashes && c == '\\' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return Some(at + 1);
            }
        }
    }
    panic!("a quoted text that never ends: {text}")
}

/// Paths of all values that are no objects or arrays.
fn leaves(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| leaves(item, format!("{at}/{n}"), out));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| leaves(field, format!("{at}/{name}"), out));
        }
        _ => out.push(at),
    }
}

const HOSTILE: &[&str] = &[
    "CONNECT ON DATABASE a TO b; CREATE ROLE evil SUPERUSER; GRANT CREATE",
    "NOSUPERUSER; ALTER ROLE evil SUPERUSER",
    "SUPERUSER PASSWORD 'x'",
    "x\"; DROP DATABASE shop; --",
    "x'; DROP DATABASE shop; --",
    "\\'; DROP DATABASE shop; --",
    "\\",
    "$(touch /tmp/x)",
    "`touch /tmp/x`",
    "a\nb",
    "\u{0}",
    "TABLE x; DROP",
    "../../etc/passwd",
    "/etc/passwd",
    "",
    "icu; DROP",
    "\u{202e}",
    "\\copy",
    "\\! touch x",
    ":'x'",
];

fn check(value: &Value) -> Result<(), String> {
    match read(value) {
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(()),
        Err(error) => Err(format!("another kind of error: {error:?}")),
        Ok(manifest) => {
            let _ = (readme(&manifest, &[]), load_script(&manifest, &[]), manifest.rows(), manifest.took());
            let outside = all_sql(&manifest)
                .into_iter()
                .find_map(|sql| outside_of_the_grammar(&sql).map(|word| format!("\"{word}\" in {sql}")));
            outside.map_or(Ok(()), Err)
        }
    }
}

#[test]
fn a_full_manifest_is_read_and_its_sql_is_within_the_grammar() {
    let manifest = read(&rich()).unwrap();
    assert_eq!(check(&rich()), Ok(()));
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes().unwrap()).unwrap(), manifest);
}

#[test]
fn no_hostile_word_in_any_field_gets_into_sql() {
    let mut paths = Vec::new();
    leaves(&rich(), String::new(), &mut paths);
    let mut refused = 0;
    for path in &paths {
        for word in HOSTILE {
            let mut value = rich();
            *value.pointer_mut(path).unwrap() = json!(word);
            refused += u32::from(read(&value).is_err());
            assert_eq!(check(&value), Ok(()), "{path} = {word}");
        }
    }
    assert!(refused > 100 && paths.len() > 60);
}

#[test]
fn words_of_closed_lists_are_refused_with_their_field() {
    for (path, word, field) in [
        ("/database/acl/0/privilege", "CONNECT, CREATE", "database.acl.privilege"),
        ("/database/acl/1/privilege", "ALL", "database.acl.privilege"),
        ("/roles/0/attributes/0", "LOGIN SUPERUSER", "roles.attributes"),
        ("/database/locale_provider", "libc ALLOW_CONNECTIONS true", "locale_provider"),
        ("/placed/0/kind", "table a set schema b; alter table", "placed.kind"),
        ("/database/encoding", "UTF8'", "database.encoding"),
        ("/grants/0/privilege", "SELECT;", "grants.privilege"),
        ("/database/settings/0/name", "a..b", "settings.name"),
        ("/roles/0/name", "", "roles"),
        ("/files/0/sha256", "AB", "sha256"),
        ("/files/0/path", "data/x", ""),
        ("/database/comment", "a\u{0}b", "U+0000"),
    ] {
        let mut value = rich();
        *value.pointer_mut(path).unwrap() = json!(word);
        // A file of the manifest's own list may lie beside the chunks: that one is taken.
        match read(&value) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged);
                assert!(error.message().contains(field), "{path}: {error}");
            }
            Ok(_) => assert!(field.is_empty(), "{path} = {word} was taken"),
        }
    }
}

#[test]
fn numbers_that_no_server_has_are_refused() {
    for (path, number) in [
        ("/tables/0/chunks/0/rows", json!(u64::MAX)),
        ("/tables/0/chunks/0/raw_bytes", json!(u64::MAX)),
        ("/tables/0/chunks/0/stored_bytes", json!(u64::MAX)),
        ("/tables/0/chunks/0/rows", json!(31)),
        ("/tables/0/chunks/0/first_block", json!(1_u64 << 33)),
        ("/tables/0/blocks", json!(1_u64 << 40)),
        ("/tables/0/oid", json!(-1)),
        ("/files/0/bytes", json!(u64::MAX)),
        ("/server/version_num", json!(-150_018)),
        ("/pg_dump_major", json!(u32::MAX)),
        ("/database/connection_limit", json!(-2)),
        ("/taken_at", json!("+262000-01-01T00:00:00Z")),
        ("/finished_at", json!("0001-01-01T00:00:00Z")),
        ("/sequences/0/last_value", json!(1e30)),
        ("/sequences/0/last_value", json!("1); DROP")),
    ] {
        let mut value = rich();
        *value.pointer_mut(path).unwrap() = number.clone();
        let error = read(&value).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{path} = {number}");
    }
    for number in [i64::MIN, -1, i64::MAX] {
        let mut value = rich();
        value["sequences"][0]["last_value"] = json!(number);
        assert_eq!(check(&value), Ok(()), "a sequence may stand anywhere");
    }
}

#[test]
fn nothing_is_taken_that_is_named_twice() {
    for path in ["/files", "/tables", "/roles", "/sequences", "/materialized_views"] {
        let mut value = rich();
        let list = value.pointer_mut(path).unwrap().as_array_mut().unwrap();
        list.push(list[0].clone());
        let error = read(&value).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.message().contains("twice"), "{path}: {error}");
    }
    let mut value = rich();
    value["files"][0]["path"] = value["tables"][0]["chunks"][0]["path"].clone();
    assert_eq!(read(&value).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_backslash_before_u0000_is_no_nul() {
    let mut value = rich();
    value["database"]["comment"] = json!("\\u0000");
    assert_eq!(read(&value).unwrap().database.comment.as_deref(), Some("\\u0000"));
    for (json, expected) in
        [(r"\u0000", true), (r"\\u0000", false), (r"\\\u0000", true), (r"\\\\u0000", false)]
    {
        assert_eq!(super::holds_nul(json), expected, "{json}");
    }
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let mut manifest = example();
    manifest.database.encoding = "UTF-8".into();
    assert!(manifest.to_bytes().unwrap_err().message().contains("database.encoding"));
}

proptest! {
    #[test]
    fn no_text_in_any_field_gets_into_sql(field in any::<prop::sample::Index>(), text in "[ -~\n\t\u{0}é\"'\\\\;]{0,30}") {
        let mut value = rich();
        let mut paths = Vec::new();
        leaves(&value, String::new(), &mut paths);
        *value.pointer_mut(&paths[field.index(paths.len())]).unwrap() = json!(text);
        prop_assert_eq!(check(&value), Ok(()));
    }

    #[test]
    fn no_number_in_any_field_makes_anything_panic(
        field in any::<prop::sample::Index>(),
        number in prop_oneof![any::<i64>().prop_map(|n| json!(n)), any::<u64>().prop_map(|n| json!(n)), Just(json!(null)),
                              Just(json!(1e300)), Just(json!([])), Just(json!({})), Just(json!(true))],
    ) {
        let mut value = rich();
        let mut paths = Vec::new();
        leaves(&value, String::new(), &mut paths);
        *value.pointer_mut(&paths[field.index(paths.len())]).unwrap() = number;
        prop_assert_eq!(check(&value), Ok(()));
    }
}
