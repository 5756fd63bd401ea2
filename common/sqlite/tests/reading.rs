//! What a file holds: its schema, what its columns hold, foreign keys that lead nowhere, and its rows by ranges.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rusqlite::Connection;
use sqlite::{
    ReadError,
    file::{Location, Reader, SqliteFile},
    orphans::{self, NoParent},
    rows::{Cells, RowQuery},
    scan::{TableScan, scan},
    schema::{Affinity, Schema},
    target::EpochUnit,
};

fn reader(fill: impl FnOnce(&Connection)) -> (tempfile::TempDir, Reader) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    fill(&Connection::open(&path).unwrap());
    let reader = SqliteFile::open(&Location::of_path(&path)).unwrap().readers(1).unwrap().remove(0);
    (folder, reader)
}

#[test]
fn the_schema_is_what_is_there_and_not_what_was_said() {
    let (_folder, reader) = reader(|connection| {
        connection
            .execute_batch(
                r#"
pragma foreign_keys = off;
create table "Odd ""name" (
    "select" INTEGER PRIMARY KEY AUTOINCREMENT, [a b] text collate nocase not null unique,
    g int generated always as (1 + 1) virtual, s text generated always as ('x') stored,
    d default (datetime('now')), any_thing, constraint "c 1" check ("select" > 0),
    constraint fk foreign key (d, any_thing) references Gone (x, y) on update cascade on delete set null);
insert into "Odd ""name" ("a b") values ('x'); delete from "Odd ""name";
create table strict_one (a any, i integer, primary key (i desc)) strict;
create table no_rowid (a text, b int, primary key (b, a)) without rowid;
create table hides (rowid text, _rowid_ text, oid text);
create index partial on no_rowid (a desc, lower(a)) where b > 1;
create virtual table search using fts5 (body);
create view v as select 1;
create trigger tr after insert on hides begin select 1; end;
"#,
            )
            .unwrap();
    });
    let schema = Schema::read(&reader).unwrap();
    let names: Vec<&str> = schema.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["Odd \"name", "strict_one", "no_rowid", "hides"]);
    let odd = schema.table("odd \"NAME").unwrap();
    assert_eq!((odd.rowid_column, odd.autoincrement, odd.rowid_name), (Some(0), Some(1), Some("rowid")));
    assert_eq!(odd.columns[1].collation.as_deref(), Some("nocase"));
    assert!(odd.columns[1].is_not_null && odd.uniques[0].columns == [1]);
    let generated: Vec<Option<bool>> =
        odd.columns.iter().map(|column| column.generated.as_ref().map(|made| made.is_stored)).collect();
    assert_eq!(generated, [None, None, Some(false), Some(true), None, None]);
    assert_eq!(odd.columns[4].default.as_deref(), Some("datetime('now')"));
    assert_eq!(odd.checks[0].name.as_deref(), Some("c 1"));
    let key = &odd.foreign_keys[0];
    assert_eq!(
        (key.name.as_deref(), key.parent.as_str(), key.on_delete.as_str()),
        (Some("fk"), "Gone", "SET NULL")
    );
    assert_eq!((key.columns.as_slice(), key.parent_columns.len()), ([4, 5].as_slice(), 2));
    let strict = &schema.tables[1];
    // INTEGER PRIMARY KEY DESC as a constraint of the table is the rowid all the same.
    assert!(strict.is_strict && strict.columns[0].affinity == Affinity::Blob);
    let without = &schema.tables[2];
    assert!(without.is_without_rowid && without.primary_key == [1, 0] && without.rowid_name.is_none());
    assert!(without.columns.iter().all(|column| column.is_not_null));
    let index = &without.indexes[0];
    assert!(index.predicate.is_some() && index.parts[0].is_descending && index.parts[1].expression.is_some());
    assert_eq!(schema.tables[3].rowid_name, None);
    assert!(schema.left_out.len() > 3 && schema.left_out[0].reason.contains("fts5"), "{:?}", schema.left_out);
    assert_eq!((schema.views.len(), schema.triggers.len()), (1, 1));
}

#[test]
fn orphans_are_told_with_their_keys() {
    let (_folder, reader) = reader(|connection| {
        connection
            .execute_batch(
                "pragma foreign_keys = off;
create table parents (id integer primary key, code text collate nocase unique, a int, b int, unique (a, b));
create table children (id integer primary key, parent references parents, code text references parents (code),
    a int, b int, gone references nowhere (id), foreign key (a, b) references parents (a, b));
create table small (k text primary key, parent int references parents) without rowid;
insert into parents values (1, 'X', 1, 2), (2, 'y', 3, 4);
insert into children values (10, 1, 'x', 1, 2, null), (11, 9, 'X', 1, 9, 5), (12, null, null, null, 9, null);
insert into small values ('a', 1), ('b', 7);",
            )
            .unwrap();
    });
    let schema = Schema::read(&reader).unwrap();
    let found = |table: &str, at: usize| {
        let table = schema.table(table).unwrap();
        let mut found = Vec::new();
        let count = orphans::each(&reader, &schema, table, &table.foreign_keys[at], |orphan| {
            found.push(format!("{} {}", orphan.key.0, orphan.value));
            Ok(())
        })
        .unwrap();
        assert_eq!(count, found.len() as u64);
        found
    };
    assert_eq!(found("children", 0), ["11 9"]);
    // 'x' has a partner for SQLite, and none for PostgreSQL.
    assert_eq!(found("children", 1), ["10 'x'"]);
    assert_eq!(found("children", 2), ["11 5"]);
    assert_eq!(found("children", 3), ["11 (1, 9)"]);
    assert_eq!(found("small", 0), ["'b' 7"]);
    let children = schema.table("children").unwrap();
    assert_eq!(
        orphans::parent(&schema, &children.foreign_keys[2]).unwrap_err(),
        NoParent::Table("nowhere".to_owned())
    );
}

#[test]
fn the_unit_of_dates_as_numbers_is_known_only_where_their_size_leaves_one() {
    let unit = |values: &str| {
        let (_folder, reader) = reader(|connection| {
            connection
                .execute_batch(&format!("create table t (d integer); insert into t values {values}"))
                .unwrap();
        });
        scan(&reader, &Schema::read(&reader).unwrap().tables[0], None).unwrap().columns[0].epoch_unit()
    };
    assert_eq!(unit("(1700000000), (null)"), Some(EpochUnit::Seconds));
    assert_eq!(unit("(1700000000000), (1600000000000)"), Some(EpochUnit::Milliseconds));
    assert_eq!(unit("(1700000000), (1700000000000)"), None);
    assert_eq!(unit("(0), (1700000000)"), None);
    assert_eq!(unit("(null)"), None);
}

fn value() -> impl Strategy<Value = rusqlite::types::Value> {
    use rusqlite::types::Value;
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        "([0-9]{4}-01-0[1-9]( 00:00:00)?|true|1\\.50|\\{\\}|\\PC{0,5})".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..3).prop_map(Value::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn ranges_have_every_row_once_and_their_scans_together_are_that_of_the_table(
        rows in proptest::collection::btree_map(any::<i64>(), value(), 1..60), parts in 1_usize..9
    ) {
        let (_folder, reader) = reader(|connection| {
            connection.execute_batch("pragma synchronous = off; begin; create table t (id integer primary key, v)").unwrap();
            for (id, value) in &rows {
                connection.execute("insert into t values (?1, ?2)", rusqlite::params![id, value]).unwrap();
            }
            connection.execute_batch("commit").unwrap();
        });
        let schema = Schema::read(&reader).unwrap();
        let table = &schema.tables[0];
        let ranges = reader.rowid_ranges(table, parts).unwrap().unwrap();
        let mut seen = Vec::new();
        let mut together = TableScan::default();
        for range in ranges {
            let query = RowQuery::new(table, &[0], Some(range), reader.encoding());
            reader.rows(&query, |row| {
                seen.push(row.cell(0).to_string());
                Ok::<_, ReadError>(())
            }).unwrap();
            together.merge(&scan(&reader, table, Some(range)).unwrap());
        }
        prop_assert_eq!(seen, rows.keys().map(ToString::to_string).collect::<Vec<_>>());
        let whole = scan(&reader, table, None).unwrap();
        let filled = whole.columns[1].filled_texts();
        prop_assert_eq!(together.rows, whole.rows);
        // A form counts where all texts have it: then both agree, and otherwise neither says so.
        for (one, two) in [
            (together.columns[1].forms.dates, whole.columns[1].forms.dates),
            (together.columns[1].forms.json, whole.columns[1].forms.json),
            (together.columns[1].forms.decimals, whole.columns[1].forms.decimals),
            (together.columns[1].forms.booleans, whole.columns[1].forms.booleans),
        ] {
            prop_assert_eq!(one == filled, two == filled);
        }
        prop_assert_eq!(together.columns[1].integer_range, whole.columns[1].integer_range);
        prop_assert_eq!(together.columns[1].longest_text, whole.columns[1].longest_text);
    }
}
