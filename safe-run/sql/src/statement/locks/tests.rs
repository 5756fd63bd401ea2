use super::*;

fn locks(sql: &str) -> Vec<String> {
    needed(sql).iter().map(|lock| format!("{} {}", lock.table, lock.mode.sql().to_lowercase())).collect()
}

#[test]
fn what_only_maintains_is_known_to_a_plan() {
    for (sql, expected) in [
        ("lock table a, s.b", &["a access exclusive", "s.b access exclusive"][..]),
        ("lock a in share row exclusive mode nowait", &["a share row exclusive"]),
        ("lock a in access share mode", &[]),
        ("lock a in row exclusive mode", &[]),
        ("reindex (verbose) table a", &["a share"]),
        ("reindex index i", &["i share"]),
        ("reindex table concurrently a", &[]),
        ("vacuum full a", &["a access exclusive"]),
        ("vacuum (full, analyze) a", &["a access exclusive"]),
        ("vacuum a", &[]),
        ("refresh materialized view m", &["m access exclusive"]),
        ("refresh materialized view concurrently m", &[]),
        ("alter table a add column b int", &[]),
    ] {
        let found = of_maintenance(sql);
        let found: Vec<String> =
            found.iter().map(|lock| format!("{} {}", lock.table, lock.mode.sql().to_lowercase())).collect();
        assert_eq!(found, expected, "{sql}");
    }
    for sql in [
        "drop type t cascade",
        "alter domain d add check (value > 0)",
        "vacuum full",
        "reindex schema s",
        "cluster",
        "create extension x",
    ] {
        assert!(reaches_unnamed(sql), "{sql}");
    }
    for sql in [
        "drop type t",
        "vacuum full a",
        "vacuum",
        "reindex table a",
        "cluster a using i",
        "alter type t add value 'x'",
        "create view v as select 1",
    ] {
        assert!(!reaches_unnamed(sql), "{sql}");
    }
}

#[test]
fn what_goes_with_its_foreign_keys_is_named() {
    let constraint = |name: &str| Removed::Constraint(name.to_owned());
    let column = |name: &str| Removed::Column(name.to_owned());
    for (sql, expected) in [
        ("drop table if exists a, s.b cascade", &[("a", Removed::Table), ("s.b", Removed::Table)][..]),
        ("alter table t drop constraint if exists \"Fk\" cascade", &[("t", constraint("Fk"))]),
        (
            "alter table only t drop column if exists a, drop b, add column c int",
            &[("t", column("a")), ("t", column("b"))],
        ),
        (
            "alter table t alter column a type bigint using a::bigint, alter b set data type text",
            &[("t", column("a")), ("t", column("b"))],
        ),
        ("alter table t alter a drop not null, alter b set default 1", &[]),
        ("drop view v", &[]),
    ] {
        let found: Vec<(String, Removed)> =
            removed(sql).into_iter().map(|(table, removed)| (table.to_string(), removed)).collect();
        let expected: Vec<(String, Removed)> =
            expected.iter().map(|(table, removed)| ((*table).to_owned(), removed.clone())).collect();
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn lock_modes_are_those_of_the_manual() {
    let cases: [(&str, &[&str]); 43] = [
        ("alter table only s.t add column c int, alter d set not null", &["s.t access exclusive"]),
        ("alter table if exists t * rename to u", &["t access exclusive"]),
        ("alter table t validate constraint c", &["t share update exclusive"]),
        ("alter table t alter column c set statistics 7", &["t share update exclusive"]),
        ("alter table t set (fillfactor = 70)", &["t share update exclusive"]),
        ("alter table t set unlogged", &["t access exclusive"]),
        ("alter table t disable trigger all", &["t share row exclusive"]),
        ("alter table t enable row level security", &["t access exclusive"]),
        (
            "alter table t add constraint fk foreign key (a, b) references \"P\" (x, y) not valid",
            &["P share row exclusive", "t share row exclusive"],
        ),
        ("alter table t add column p int references s.p", &["s.p share row exclusive", "t access exclusive"]),
        (
            "alter table t attach partition p for values in (1)",
            &["p access exclusive", "t share update exclusive"],
        ),
        ("alter table t detach partition p", &["p access exclusive", "t access exclusive"]),
        ("alter table t detach partition p concurrently", &[]),
        ("alter table t validate constraint c, alter d type text", &["t access exclusive"]),
        ("alter table all in tablespace a set tablespace b", &[]),
        ("drop table if exists a, s.b cascade", &["a access exclusive", "s.b access exclusive"]),
        ("drop index i, s.j", &["i access exclusive", "s.j access exclusive"]),
        ("drop index concurrently i", &[]),
        ("truncate table only a *, b restart identity", &["a access exclusive", "b access exclusive"]),
        ("truncate a", &["a access exclusive"]),
        ("create unique index if not exists i on only t using btree (a)", &["t share"]),
        ("create index concurrently i on t (a)", &[]),
        ("create index on t (a)", &["t share"]),
        (
            "create constraint trigger c after insert on s.t from r for each row execute function f()",
            &["s.t share row exclusive"],
        ),
        (
            "create or replace trigger c before update of a on t execute function f()",
            &["t share row exclusive"],
        ),
        ("create table n partition of p for values in (1)", &["p access exclusive"]),
        (
            "create table n (i int references a, j int, foreign key (j) references b)",
            &["a share row exclusive", "b share row exclusive"],
        ),
        ("create temporary table n (i int)", &[]),
        ("create table n (i int)", &[]),
        ("drop trigger x on t", &["t access exclusive"]),
        ("cluster", &[]),
        ("cluster (verbose) s.t using i", &["s.t access exclusive"]),
        ("cluster verbose t", &["t access exclusive"]),
        ("cluster i on s.t", &["s.t access exclusive"]),
        ("repack", &[]),
        ("repack (verbose)", &[]),
        ("repack (verbose) using index", &[]),
        ("repack t using index i", &["t access exclusive"]),
        ("repack (verbose on) s.t using index", &["s.t access exclusive"]),
        ("repack (analyze, verbose) t (a, b)", &["t access exclusive"]),
        ("repack (concurrently) t", &[]),
        ("repack (verbose, concurrently true) t using index i", &[]),
        ("select 'alter table t'", &[]),
    ];
    for (sql, expected) in cases {
        assert_eq!(locks(sql), expected, "{sql}");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "(alter table|drop index|create|truncate|create index) [a-z\\.,(\"'* ]{0,40}") {
        let _ = needed(&text);
    }
}
