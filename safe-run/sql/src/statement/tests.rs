mod properties;

use super::*;

fn texts(sql: &str) -> Vec<String> {
    split(sql).unwrap_or_else(|problem| panic!("{sql}: {problem:?}")).into_iter().map(|s| s.text).collect()
}

fn class(sql: &str) -> Class {
    let mut all = split(sql).unwrap_or_else(|problem| panic!("{sql}: {problem:?}"));
    assert_eq!(all.len(), 1, "{sql}: {all:?}");
    all.remove(0).class
}

/// Effects as `delete s.t`, for tables of cases.
fn effects(sql: &str) -> Vec<String> {
    class(sql)
        .effects
        .iter()
        .map(|effect| {
            let target = match &effect.target {
                Target::Table(name) => name.to_string(),
                Target::Schema(name) => format!("{name}.*"),
                Target::Everything => "*".to_owned(),
            };
            let cascade = if effect.cascade { " cascade" } else { "" };
            format!("{} {target}{cascade}", format!("{:?}", effect.effect).to_lowercase())
        })
        .collect()
}

#[test]
fn statements_end_only_at_top_level_semicolons() {
    let one = [
        "select 'a;b''c;'",
        r"select E'a\';b'",
        "select $$a;b$$, $x$ ; $y$ ; $y$ $x$",
        "select U&\"a;b\", U&'c;d'",
        "select 1 /* ; /* ; */ ; */ + 1",
        "select 1 -- ; \n + 1",
        "create rule r as on insert to t do also (insert into a values (1); delete from b)",
        "create function f() returns int begin atomic select 1; select case when true then 2 else 3 end; end",
        "create or replace procedure p() language sql begin atomic insert into t values (1); insert into t values (2); end",
        "do $do$ begin perform 1; execute $q$delete from t; $q$; end $do$",
        "create function begin_it() returns int as $$ begin return 1; end $$ language plpgsql",
    ];
    for sql in one {
        assert_eq!(texts(sql), [sql], "{sql}");
        assert_eq!(texts(&format!("{sql};\nselect 2")), [sql, "select 2"], "{sql}");
    }
}

#[test]
fn empty_statements_marks_and_line_ends_do_not_matter() {
    assert_eq!(texts(";;\n; -- nothing\n/* ; */;"), Vec::<String>::new());
    assert_eq!(texts("\u{feff}select 1;\r\nselect 2"), ["select 1", "select 2"]);
    assert_eq!(texts("select 1 ; -- the end"), ["select 1"]);
    assert_eq!(texts(""), Vec::<String>::new());
}

#[test]
fn lines_and_columns_are_those_of_the_file() {
    let all = split("\u{feff}select 1;\r\n-- é\r\n  /* é */ select\n  2;").expect("splits");
    let places: Vec<_> = all.iter().map(|s| (s.line, s.column)).collect();
    assert_eq!(places, [(1, 1), (3, 11)]);
    assert_eq!(all[1].line_of_position(10), 4);
}

#[test]
fn what_the_server_does_not_know_is_refused_with_its_line() {
    let cases = [
        ("select 1;\n\\i other.sql", 2, "command of psql"),
        ("\\restrict abc\nselect 1", 1, "command of psql"),
        ("select 1 \\gx", 1, "command of psql"),
        ("\\copy t from 'x'", 1, "command of psql"),
        ("create schema ${schema}", 1, "template"),
        ("create schema {{schema}}", 1, "template"),
        ("{% if x %} select 1", 1, "template"),
        ("select\n :name", 2, "variable of psql"),
        ("select :'name'", 1, "variable of psql"),
        ("alter table :\"t\" add x int", 1, "variable of psql"),
        ("select x:::type", 1, "variable of psql"),
        ("select 1; select 'abc", 1, "never ends"),
        ("select 1;\n/* abc", 2, "never ends"),
        ("do $$ begin", 1, "never ends"),
        ("select \0", 1, "NUL"),
        ("copy t from stdin;\n1\n2\n", 1, "COPY"),
        ("copy t from stdin; select 1;\n1\n\\.\n", 1, "more text"),
        ("set standard_conforming_strings = off; select 'a\\'", 1, "standard_conforming_strings"),
    ];
    for (sql, line, message) in cases {
        let problem = split(sql).expect_err(sql);
        assert!(problem.message.contains(message), "{sql}: {problem:?}");
        assert_eq!(problem.line, line, "{sql}: {problem:?}");
    }
}

#[test]
fn the_same_characters_within_sql_are_not_refused() {
    for sql in [
        "select '\\i ${x} {{y}} :z'",
        "select $$ \\i ${x} {{y}} :z $$",
        "select 1 -- \\i ${x} {{y}} :z",
        "select 1 /* \\i ${x} {{y}} :z */",
        "select a::int, '1'::text, a[1:2], a[:n], a[i:j], a[lower:upper]",
        "select f(a := 1), b => 2",
        "select json_object('a': 1, 'b':c), json_object(k:v)",
        "select x::public.t[]",
        "select $1, $2::int",
        "select \"a:b\", \"{{x}}\"",
    ] {
        assert_eq!(split(sql).map(|all| all.len()), Ok(1), "{sql}");
    }
}

#[test]
fn copy_data_is_set_apart_from_the_statements() {
    let sql = "select 1;\ncopy t (a, b) from stdin;\n1\t';\n2\t$$ -- \\N\n\\.\n\nselect 2;\nCOPY u FROM stdin WITH (FORMAT csv);\r\n\\.\r\n";
    let all = split(sql).expect("splits");
    let texts: Vec<_> = all.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(
        texts,
        ["select 1", "copy t (a, b) from stdin", "select 2", "COPY u FROM stdin WITH (FORMAT csv)"]
    );
    assert_eq!(all[1].copy_data.clone().map(|range| &sql[range]), Some("1\t';\n2\t$$ -- \\N\n"));
    assert_eq!(all[3].copy_data.clone().map(|range| &sql[range]), Some(""));
    assert_eq!(all[2].line, 7);
    assert_eq!(all[2].copy_data, None);
    assert_eq!(effects("copy s.t from stdin;\n\\.\n"), ["insert s.t"]);
}

#[test]
fn statements_that_must_run_alone_are_known() {
    let alone = [
        "create index concurrently on t (a)",
        "create unique index concurrently if not exists i on t (a)",
        "drop index concurrently i",
        "reindex index concurrently i",
        "reindex (verbose, concurrently) table t",
        "reindex database d",
        "reindex system d",
        "reindex schema s",
        "vacuum",
        "VACUUM (full) t",
        "cluster",
        "cluster verbose",
        "repack",
        "repack (verbose)",
        "repack using index",
        "REPACK (concurrently) t",
        "repack (verbose, concurrently true) t using index i",
        "repack (concurrently off, analyze) public.t (a)",
        "REPACK (ANALYZE true) t using index i",
        "wait for lsn '0/1234' with (timeout '10s')",
        "alter system set work_mem = '1MB'",
        "create database d",
        "drop database if exists d",
        "create tablespace t location '/x'",
        "drop tablespace t",
        "create subscription s connection 'x' publication p",
        "alter table p detach partition q concurrently",
        "alter table only s.p /* c */ detach partition s.q concurrently",
        "discard all",
        "alter database d set tablespace t",
        "alter subscription s refresh publication",
        "commit prepared 'x'",
    ];
    for sql in alone {
        let class = class(sql).transaction;
        assert!(matches!(class, TransactionClass::MustRunAlone { .. }), "{sql}: {class:?}");
    }
    let depends = [
        "call p()",
        "drop subscription s",
        "cluster t using i",
        "repack t",
        "repack (concurrently off, analyze false, verbose) public.t",
        "reindex table t",
        "do $$ begin delete from t; commit; end $$",
        "do $$ begin loop rollback; end loop; end $$",
        "do 'begin commit; end'",
    ];
    for sql in depends {
        let class = class(sql).transaction;
        assert!(matches!(class, TransactionClass::Unknown { .. }), "{sql}: {class:?}");
    }
}

#[test]
fn statements_of_newer_servers_are_known_by_their_first_words() {
    for sql in [
        "repack (concurrently) t using index i",
        "wait for lsn '0/1234' with (mode 'primary_flush')",
        "create publication p for all tables except (table a, b), all sequences",
        "alter publication p set all tables except table (a)",
    ] {
        let class = class(sql);
        assert_eq!((class.unread, class.effects.len(), class.warnings.len()), (None, 0, 0), "{sql}");
    }
    assert_eq!(class("create publication p for all sequences").transaction, TransactionClass::Transactional);
}

#[test]
fn the_same_words_elsewhere_do_not_make_a_statement_run_alone() {
    for sql in [
        "create index i on t (a) -- concurrently",
        "create index \"concurrently\" on t (a)",
        "create /* concurrently */ index i on t (a)",
        "select 'vacuum', 'create index concurrently'",
        "comment on table t is 'vacuum'",
        "create function f() returns void as $$ vacuum; create index concurrently i on t (a); commit $$ language sql",
        "do $$ begin raise notice 'commit;'; -- commit;\n perform 'x'; end $$",
        "alter table t add column vacuum int, add column concurrently int",
        "alter table p detach partition concurrently",
        "alter table p detach partition s.concurrently",
        "insert into vacuum values ('discard all')",
        "drop index i",
        "create subscription s connection 'x' publication p with (connect = false)",
        "create table database (tablespace int)",
        "alter type mood add value 'x'",
        "refresh materialized view concurrently v",
        "discard plans",
    ] {
        assert_eq!(class(sql).transaction, TransactionClass::Transactional, "{sql}");
    }
}

#[test]
fn effects_are_those_of_what_runs() {
    let cases: &[(&str, &[&str])] = &[
        ("insert into t values (1)", &["insert t"]),
        (
            "insert into s.\"T\" select * from u on conflict (a) do update set b = 1",
            &["insert s.T", "update s.T"],
        ),
        ("update only (t) set a = 1", &["update t"]),
        ("delete from only T as x using u where x.a = u.a", &["delete t"]),
        ("merge into t using u on t.a = u.a when matched then delete", &["unknown t"]),
        (
            "truncate a, only b, s.c restart identity cascade",
            &["truncate a cascade", "truncate b cascade", "truncate s.c cascade"],
        ),
        ("drop table if exists a, s.b cascade", &["drop a cascade", "drop s.b cascade"]),
        ("drop schema a, b cascade", &["drop a.* cascade", "drop b.* cascade"]),
        ("drop schema a", &[]),
        ("drop owned by r", &["unknown *"]),
        ("drop view v", &[]),
        ("with x as (delete from t returning *) select * from x", &["delete t"]),
        ("with x as (delete from t returning *) insert into u select * from x", &["insert u", "delete t"]),
        (
            "with a as (with b as (update t set x = 1 returning *) select * from b) select * from a",
            &["update t"],
        ),
        ("explain analyze delete from t", &["delete t"]),
        ("explain (analyze, buffers) delete from t", &["delete t"]),
        ("explain (costs, analyze on) delete from t", &["delete t"]),
        ("explain (analyze off) delete from t", &[]),
        ("explain delete from t", &[]),
        ("copy t from '/x'", &["insert t"]),
        ("copy t to stdout", &[]),
        ("copy (delete from t returning *) to stdout", &["delete t"]),
        ("create table n as with d as (delete from t returning *) select * from d", &["delete t"]),
        ("create function f() returns void begin atomic delete from t; end", &[]),
        ("create function f() returns void language sql as $$ delete from t $$", &[]),
        ("create view v as select * from t", &[]),
        ("create rule r as on insert to t do also delete from u", &[]),
        ("prepare p as delete from t", &[]),
        ("alter table t attach partition p for values in (1)", &["unknown t"]),
        ("alter table t detach partition p", &["unknown t"]),
        ("refresh materialized view v", &["unknown v"]),
        ("comment on table t is 'delete from t'", &[]),
        ("alter table t drop constraint c", &[]),
        ("select * from t for update", &[]),
    ];
    for (sql, expected) in cases {
        assert_eq!(class(sql).unread, None, "{sql}");
        assert_eq!(effects(sql), *expected, "{sql}");
    }
}

#[test]
fn kinds_follow_the_main_statement() {
    use StatementKind as K;
    use TransactionVerb as V;
    let cases = [
        ("with x as (select 1) delete from t", K::Delete),
        ("with x as (delete from t returning 1) select 1", K::Select),
        ("(select 1) union (select 2)", K::Select),
        ("values (1)", K::Select),
        ("table t", K::Select),
        ("create or replace function f() returns int language sql as 'select 1'", K::CreateFunction),
        ("create table t (a int)", K::Ddl),
        ("begin", K::TransactionControl(V::Begin)),
        ("start transaction isolation level serializable", K::TransactionControl(V::Begin)),
        ("end", K::TransactionControl(V::Commit)),
        ("abort", K::TransactionControl(V::Rollback)),
        ("rollback to savepoint s", K::TransactionControl(V::RollbackTo)),
        ("savepoint s", K::TransactionControl(V::Savepoint)),
        ("release s", K::TransactionControl(V::Release)),
        ("set search_path to x", K::Set),
        ("vacuum", K::Other),
    ];
    for (sql, kind) in cases {
        assert_eq!(class(sql).kind, kind, "{sql}");
    }
}

#[test]
fn functions_are_named_where_they_run() {
    let called = class("select a.F(1), count(*) from g(2) where exists (select h(x))");
    let names: Vec<_> = called.functions.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.f", "count", "g", "h"]);
    assert!(called.calls_functions());
    assert!(!class("create table t (a int default f())").calls_functions());
    assert!(!class("create view v as select f()").calls_functions());
    assert_eq!(class("do $$ begin end $$").runs_code.as_deref(), Some("DO block"));
    assert_eq!(class("call s.p(1)").runs_code.as_deref(), Some("CALL s.p"));
    assert_eq!(class("execute p(1)").runs_code.as_deref(), Some("execute p(1)"));
}

#[test]
fn what_a_rollback_does_not_undo_is_named() {
    for (sql, word) in [
        ("select setval('s', 1)", "setval"),
        ("select pg_catalog.setval('s', 1)", "setval"),
        ("select dblink_exec('x', 'delete from t')", "dblink_exec"),
        ("select * from dblink('x', 'y') as t(a int)", "dblink"),
        ("select lo_export(1, '/x')", "lo_export"),
        ("select pg_terminate_backend(1)", "pg_terminate_backend"),
        ("select pg_advisory_lock(1)", "pg_advisory_lock"),
        ("copy t to program 'x'", "COPY … TO PROGRAM"),
        ("copy t from program 'x'", "COPY … FROM PROGRAM"),
        ("copy t to '/x'", "COPY … TO writes a file"),
    ] {
        let class = class(sql);
        assert!(class.outside_transaction.iter().any(|text| text.contains(word)), "{sql}: {class:?}");
    }
    for sql in [
        "select nextval('s')",
        "notify x",
        "select pg_advisory_xact_lock(1)",
        "copy t to stdout",
        "copy t from '/x'",
        "alter sequence s restart",
        "select 'setval(1)'",
    ] {
        assert_eq!(class(sql).outside_transaction, Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn dangerous_settings_are_warned_about() {
    for (sql, warning) in [
        ("alter table t disable trigger all", "disables triggers on t"),
        ("alter table s.t enable row level security, disable trigger user", "disables triggers on s.t"),
        ("set session_replication_role = replica", "session_replication_role"),
        ("set local session_replication_role to 'replica'", "session_replication_role"),
        ("alter table t drop column a", "drops column a of t"),
        ("drop type x cascade", "every column"),
    ] {
        let class = class(sql);
        assert!(class.warnings.iter().any(|text| text.contains(warning)), "{sql}: {class:?}");
    }
    assert_eq!(class("alter type s.mood add value 'x'").adds_enum_value.as_deref(), Some("s.mood"));
    let class = class("alter table s.a rename to b");
    assert_eq!(class.renames.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>(), ["s.a s.b"]);
}

#[test]
fn what_the_parser_does_not_know_is_still_split_and_left_to_the_server() {
    let all = split("frobnicate table t hard; alter table t frobnicate; delete from t where where; select 1")
        .expect("splits");
    assert_eq!(all.len(), 4);
    for statement in &all[..3] {
        assert!(statement.class.unread.is_some(), "{statement:?}");
        assert!(
            matches!(statement.class.transaction, TransactionClass::Unknown { .. })
                && !statement.class.warnings.is_empty()
        );
    }
    assert_eq!(all[3].class.unread, None);
    let class = class("create index concurrently i on t frobnicate (a)");
    assert!(matches!(class.transaction, TransactionClass::MustRunAlone { .. }));
}

#[test]
fn deep_and_long_expressions_do_not_overflow_the_stack() {
    let deep = |n: usize| format!("select {}1{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(class(&deep(50)).unread, None);
    let limit = 1000;
    assert!(class(&deep(100_000)).unread.is_some());
    assert!(class(&format!("select {}1", "- ".repeat(50_000))).unread.is_some());
    assert!(class(&format!("select {}true", "not ".repeat(50_000))).unread.is_some());
    assert!(class(&format!("select 1{}", " or true".repeat(50_000))).unread.is_some());
    assert!(class(&format!("select x{}", "[1]".repeat(50_000))).unread.is_some());
    assert!(class(&format!("select x{}", "::int".repeat(50_000))).unread.is_some());
    assert!(class(&format!("select 1 in {}", "x is null ".repeat(50_000))).unread.is_some());
    assert_eq!(class(&format!("delete from t where a = 1{}", " or a = 2".repeat(150))).unread, None);
    for (piece, end) in [
        ("(", ")"),
        ("- ", ""),
        ("not ", ""),
        ("case when true then ", " end"),
        ("array[", "]"),
        ("f(", ")"),
        ("(select ", ")"),
        ("exists (select ", ")"),
    ] {
        let sql = format!("select {}1{}", piece.repeat(limit / 2), end.repeat(limit / 2));
        split(&sql).expect("splits");
    }
    for piece in
        [" or true", " + 1", " is null", "[1]", "::int", " union select 1", " collate x", " at time zone 'x'"]
    {
        split(&format!("select x{}", piece.repeat(limit))).expect("splits");
    }
    let rows = format!("insert into t values (0, -1, a.b + 1){}", ", (0, -1, a.b + 1)".repeat(20_000));
    assert_eq!(class(&rows).unread, None);
}
