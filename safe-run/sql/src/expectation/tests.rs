use super::*;
use crate::statement::split;

/// users 1 ← orders 2 (cascade) ← items 3 (cascade); users ← audit 4 (no cascade); events 5 with partitions 6, 7;
/// shop.users 8; trigger on notes 9.
fn facts() -> Facts {
    let table = |oid, schema: &str, name: &str, partitioned| TableFact {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        partitioned,
    };
    let key = |referencing, referenced, on_delete_cascade| ForeignKeyFact {
        referencing,
        referenced,
        on_delete_cascade,
        changes_values: !on_delete_cascade,
    };
    Facts {
        tables: vec![
            table(1, "public", "users", false),
            table(2, "public", "orders", false),
            table(3, "public", "items", false),
            table(4, "public", "audit", false),
            table(5, "public", "events", true),
            table(6, "public", "events_a", false),
            table(7, "public", "events_b", false),
            table(8, "shop", "carts", false),
            table(9, "public", "notes", false),
        ],
        children: vec![ChildFact { child: 6, parent: 5 }, ChildFact { child: 7, parent: 5 }],
        foreign_keys: vec![key(2, 1, true), key(3, 2, true), key(4, 1, false)],
        triggers: vec![TriggerFact {
            table: 9,
            name: "sweep".to_owned(),
            on_insert: false,
            on_update: false,
            on_delete: true,
            on_truncate: false,
        }],
        event_trigger: None,
    }
}

/// One letter for each table in order: `=` equal, `~` other values, `+` not fewer, `-` fewer, `!` acknowledge, `?` unknown.
fn expect(sql: &str) -> String {
    let facts = facts();
    let all = split(sql).expect("splits");
    expectations(
        all.iter().map(|statement| &statement.class),
        &facts,
        |name| by_name(&facts, name),
        |function| function.name.starts_with("w_"),
    )
    .values()
    .map(|expectation| match expectation {
        RowExpectation::Equal => '=',
        RowExpectation::Updated => '~',
        RowExpectation::NotFewer => '+',
        RowExpectation::FewerAllowed => '-',
        RowExpectation::MustAcknowledge { .. } => '!',
        RowExpectation::Unknown { .. } => '?',
    })
    .collect()
}

#[test]
fn every_statement_leads_to_the_expectation_that_the_documentation_says() {
    let cases = [
        ("alter table users add column x int", "========="),
        ("create index i on users (id); grant select on users to r", "========="),
        ("insert into users values (1)", "+========"),
        ("copy public.users from '/x'", "+========"),
        ("update users set a = lower(b)", "~==~====="),
        ("delete from items", "==-======"),
        ("delete from users", "---~====="),
        ("with x as (delete from orders returning *) select * from x", "=--======"),
        ("insert into audit select 1; delete from users", "---+====="),
        ("insert into users values (1); delete from users", "---~====="),
        ("truncate items", "==!======"),
        ("truncate users cascade", "!!!!====="),
        ("drop table items; create table items (a int)", "==!======"),
        ("drop schema shop cascade", "=======!="),
        ("delete from shop.carts", "=======-="),
        ("delete from events", "====---=="),
        ("delete from events_a", "====--==="),
        ("truncate events_a", "====-!==="),
        ("insert into events values (1)", "====+++=="),
        ("update events set a = 1", "====~??=="),
        ("drop table events_a", "====-!==="),
        ("drop table events", "====!!!=="),
        ("alter table events detach partition events_a", "====???=="),
        ("merge into items using users on true when matched then delete", "==?======"),
        ("merge into users using items on true when matched then delete", "???======"),
        ("delete from notes", "?????????"),
        ("insert into notes values (1)", "========+"),
        ("do $$ begin end $$", "?????????"),
        ("call p()", "?????????"),
        ("select w_all()", "?????????"),
        ("select count(*) from users", "========="),
        ("truncate items; do $$ begin end $$", "??!??????"),
        ("delete from a_view", "?????????"),
        ("frobnicate", "?????????"),
        ("drop owned by r", "?????????"),
        ("create table n as select * from users; delete from n", "========="),
        ("alter table items rename to things; delete from things", "==-======"),
        ("alter table items set schema shop; delete from shop.items", "==-======"),
        ("create table n (a int); alter table n rename to m; truncate m", "========="),
        ("alter table items rename to old; create table items (a int); delete from old", "==-======"),
    ];
    for (sql, expected) in cases {
        assert_eq!(expect(sql), expected, "{sql}");
    }
}

#[test]
fn an_expectation_says_why() {
    let facts = facts();
    let all = split("truncate users cascade").expect("splits");
    let found = expectations(all.iter().map(|s| &s.class), &facts, |name| by_name(&facts, name), |_| false);
    assert_eq!(found[&4], RowExpectation::MustAcknowledge { why: "TRUNCATE users CASCADE".to_owned() });
}
