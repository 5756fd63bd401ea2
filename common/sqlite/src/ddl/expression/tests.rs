use common::ident::Ident;

use super::*;

fn translated(text: &str) -> Result<String, String> {
    let known = |name: &str, kind: Kind, has_collation: bool| Known {
        name: name.to_owned(),
        sql: Ident::new(name).to_string(),
        table: "t".to_owned(),
        kind,
        has_collation,
    };
    let columns = [
        known("n", Kind::Integer, false),
        known("t", Kind::Text, false),
        known("b", Kind::Bool, false),
        known("x", Kind::Bytes, false),
        known("nc", Kind::Text, true),
        known("d", Kind::Other, false),
        known("f", Kind::Fraction, false),
        known("dec", Kind::Decimal, false),
    ];
    Scope(&columns).condition(text)
}

#[test]
fn what_means_the_same_is_translated() {
    for (sqlite, postgresql) in [
        ("n > 0 AND n <= 10", r#"("n" > 0) AND ("n" <= 10)"#),
        ("N IN (1, 2)", r#""n" IN (1, 2)"#),
        ("t IN ('a', \"bb\")", r#""t" IN ('a', 'bb')"#),
        ("b IN (0, 1)", r#""b" IN (false, true)"#),
        ("b = 1", r#""b" = true"#),
        ("n", r#"("n") <> 0"#),
        ("length(t) < 5", r#"length("t") < 5"#),
        ("length(x) = 16", r#"octet_length("x") = 16"#),
        ("t LIKE 'A%'", r#"lower("t" COLLATE "C") LIKE lower('A%' COLLATE "C") ESCAPE ''"#),
        ("t < 'b'", r#""t" COLLATE "C" < 'b'"#),
        ("n IS NULL OR n BETWEEN 1 AND 0x10", r#"("n" IS NULL) OR ("n" BETWEEN 1 AND 16)"#),
        ("t IS NOT 'a'", r#""t" IS DISTINCT FROM 'a'"#),
        ("ifnull(n, 0) >= -1", r#"coalesce("n", 0) >= (-1)"#),
        ("f * 0.1 > 1", r#"("f" * 0.1) > 1"#),
        ("dec > 0.5", r#""dec" > 0.5"#),
        ("not (n = 1)", r#"NOT (("n" = 1))"#),
    ] {
        assert_eq!(translated(sqlite).as_deref(), Ok(postgresql), "{sqlite}");
    }
}

#[test]
fn what_means_something_else_is_refused_with_its_reason() {
    for (sqlite, reason) in [
        ("t GLOB 'a*'", "GLOB"),
        ("typeof(n) = 'integer'", "function typeof"),
        ("n / 2 > 1", "dividing by zero"),
        ("n * 0.1 > 1", "decimals"),
        ("dec + 1 > 1", "decimals"),
        ("t = 1", "different kinds"),
        ("d > '2020-01-01'", "different kinds"),
        ("nc = 'a'", "collation"),
        ("t = 'a' COLLATE NOCASE", "collation"),
        ("cast(t as integer) > 1", "CAST"),
        ("n = (select 1)", "subquery"),
        ("missing > 1", "no column"),
        ("t", "true or false"),
        ("b = 2", "boolean"),
        ("t || n = 'a'", "no text"),
        ("current_timestamp > 1", "clock"),
    ] {
        let outcome = translated(sqlite);
        assert!(outcome.as_ref().is_err_and(|why| why.contains(reason)), "{sqlite}: {outcome:?}");
    }
    let deep = format!("{}n{}", "(".repeat(400), ")".repeat(400));
    assert!(translated(&deep).is_err());
}
