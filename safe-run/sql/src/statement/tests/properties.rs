//! What holds for any text.

use proptest::prelude::*;

use super::*;

/// Pieces of SQL that each stand alone, without a top-level semicolon.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("select 1".to_owned()),
        Just("select 'a;b''c', E'\\';', $x$ ; $$ ; $x$ /* ; /* ; */ */".to_owned()),
        Just(
            "create function f() returns int begin atomic select 1; select case 1 when 1 then 2 end; end"
                .to_owned()
        ),
        Just("create rule r as on insert to t do also (delete from a; delete from b)".to_owned()),
        Just("do $do$ begin delete from t; end $do$".to_owned()),
        Just("insert into \"a;b\" values (1, a[1:2], x::int) -- ; \n".to_owned()),
        "[a-z]{1,8}( [a-z(]{0,1}'[^'()\\x00]{0,12}'\\)?)?".prop_filter("balanced", |text| {
            text.matches('(').count() == text.matches(')').count()
                && !text.contains('\\')
                && !text.split(' ').any(|word| matches!(word, "e" | "copy" | "begin" | "set"))
                && split(text).is_ok_and(|all| all.len() == 1)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn splitting_never_panics(sql in ".{0,200}") {
        let _ = split(&sql);
    }

    #[test]
    fn splitting_sql_like_noise_never_panics_and_loses_nothing(
        pieces in prop::collection::vec(prop_oneof![
            Just("select "), Just("delete from t "), Just("with x as ("), Just(")"), Just("("), Just("'"), Just("\""),
            Just("$$"), Just("$a$"), Just(";"), Just("--"), Just("\n"), Just("/*"), Just("*/"), Just("E'"), Just("\\"),
            Just("begin "), Just("atomic "), Just("end "), Just("case "), Just("create function f() "), Just("["),
            Just("]"), Just(":"), Just("::"), Just("copy t from stdin;\n"), Just("\\.\n"), Just("é"), Just("1.5e"),
            Just("alter table a "), Just("detach partition "), Just("explain "), Just("analyze "), Just("U&"),
            Just("truncate "), Just("drop schema "), Just("cascade "), Just("."), Just(","), Just("*"), Just("="),
        ], 0..40),
    ) {
        let sql = pieces.concat();
        if let Ok(all) = split(&sql) {
            let mut end = 0;
            for statement in &all {
                prop_assert!(statement.byte_range.start >= end);
                prop_assert_eq!(&sql[statement.byte_range.clone()], &statement.text);
                // Between statements there is nothing that the server would run.
                let gap = &sql[end..statement.byte_range.start];
                prop_assert!(
                    crate::token::tokens(gap, 0).all(|t| t.is_ok_and(|t| !t.is_significant() || t.is_symbol(';'))),
                    "{:?} in {:?}", gap, sql
                );
                end = match &statement.copy_data {
                    Some(data) => data.end + sql[data.end..].find('\n').map_or(sql.len() - data.end, |at| at + 1),
                    None => statement.byte_range.end,
                };
            }
        }
    }

    #[test]
    fn statements_joined_by_semicolons_come_apart_again(parts in prop::collection::vec(fragment(), 1..8)) {
        let sql = parts.join(";\n");
        let all = split(&sql).expect("splits");
        prop_assert_eq!(all.len(), parts.len(), "{}", sql);
        for (statement, part) in all.iter().zip(&parts) {
            prop_assert!(part.trim().starts_with(&statement.text));
        }
    }

    #[test]
    fn words_in_comments_and_literals_never_make_a_statement_run_alone(
        words in prop::sample::select(vec![
            "vacuum", "create index concurrently i on t (a)", "drop database d", "alter system reset all", "discard all",
        ]),
        carrier in prop::sample::select(vec![
            "select 1 -- @", "select /* @ */ 1", "select '@'", "select $$@$$", "select $q$ ; @ ; $q$",
            "comment on table t is '@'", "create table \"@\" (a int)", "do $$ begin raise notice '%', '@'; end $$",
            "create function f() returns void language plpgsql as $$ begin @; end $$",
        ]),
    ) {
        let sql = carrier.replace('@', words);
        prop_assert_eq!(class(&sql).transaction, TransactionClass::Transactional, "{}", sql);
    }
}
