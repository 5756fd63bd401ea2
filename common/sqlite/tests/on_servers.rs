//! SQLite → COPY text → PostgreSQL → COPY text: every value equal, or its row named. The server is the judge of what was sent.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use common::ident::Ident;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rusqlite::{Connection, types::Value};
use sqlite::{
    ReadError,
    ddl::{DdlOptions, Stage, TablePlan, Translation, translate},
    encode::RowEncoder,
    file::{Location, Reader, SqliteFile},
    hash::{Fingerprint, SESSION_SETTINGS, ServerRows},
    rows::RowQuery,
    scan::scan,
    schema::{Schema, Table},
    target::ColumnRule,
};
use tests::Cluster;

/// The oldest, the newest and the next major version: values and types are older than all of them.
macro_rules! on_three_majors {
    ($($(#[$meta:meta])* fn $name:ident($cluster:ident: &Cluster) $body:block)+) => { $(
        $(#[$meta])*
        mod $name {
            use super::*;
            fn body($cluster: &Cluster) $body
            #[test] fn postgresql_14() { body(Cluster::shared(14)); }
            #[test] fn postgresql_18() { body(Cluster::shared(18)); }
            #[test] fn postgresql_19() { body(Cluster::shared(19)); }
        }
    )+ };
}

/// A file with what `sql` makes, open.
fn file(folder: &std::path::Path, fill: impl FnOnce(&Connection)) -> (SqliteFile, Reader) {
    let path = folder.join("x.db");
    let connection = Connection::open(&path).unwrap();
    fill(&connection);
    drop(connection);
    let file = SqliteFile::open(&Location::of_path(path)).unwrap();
    let reader = file.readers(1).unwrap().remove(0);
    (file, reader)
}

fn options() -> DdlOptions {
    DdlOptions {
        schema: Ident::new("public"),
        types: Default::default(),
        epochs: Default::default(),
        zone: None,
        null_empty_strings: false,
    }
}

/// The rows as COPY text, their hashes, and the keys of those that were refused.
fn encode(reader: &Reader, table: &Table, plan: &TablePlan) -> (Vec<u8>, Fingerprint, Vec<String>) {
    let columns: Vec<usize> = plan.columns.iter().map(|column| column.source).collect();
    let mut encoder = RowEncoder::new(plan.columns.iter().map(|column| column.rule.clone()).collect());
    let query = RowQuery::new(table, &columns, None, reader.encoding());
    let (mut text, mut sum, mut refused) = (Vec::new(), Fingerprint::default(), Vec::new());
    reader
        .rows(&query, |row| {
            match encoder.encode(row, &mut text) {
                Ok(hash) => sum.add(hash),
                Err(bad) => refused.push(format!("{}: {}", row.key().0, bad.bad)),
            }
            Ok::<_, ReadError>(())
        })
        .unwrap();
    (text, sum, refused)
}

fn column_list(plan: &TablePlan) -> String {
    plan.columns.iter().map(|column| column.name.to_string()).collect::<Vec<_>>().join(", ")
}

/// Loads `text` by psql, and hashes what the server gives back.
fn through_server(url: &str, folder: &std::path::Path, plan: &TablePlan, text: &[u8]) -> Fingerprint {
    let path = folder.join("rows.copy");
    std::fs::write(&path, text).unwrap();
    let (name, columns) = (&plan.name, column_list(plan));
    // psql ends the input of \copy at a line of \. alone, which no row is.
    tests::psql::run(url, &format!("\\copy {name} ({columns}) from '{}'", path.display()));
    let settings: String =
        SESSION_SETTINGS.iter().map(|(name, value)| format!("set {name} = '{value}'; ")).collect();
    let back = folder.join("back.copy");
    tests::psql::run(
        url,
        &format!("{settings}\n\\copy (select {columns} from {name}) to '{}'", back.display()),
    );
    let mut rows = ServerRows::new(plan.columns.iter().map(|column| column.rule.target.clone()).collect());
    let mut sum = Fingerprint::default();
    for line in std::fs::read(&back).unwrap().split_inclusive(|byte| *byte == b'\n') {
        sum.add(rows.hash_line(line).unwrap());
    }
    sum
}

fn translated(reader: &Reader, options: &DdlOptions) -> (Schema, Translation) {
    let schema = Schema::read(reader).unwrap();
    let scans: Vec<_> = schema.tables.iter().map(|table| scan(reader, table, None).unwrap()).collect();
    let made = translate(&schema, &scans, options);
    (schema, made)
}

fn run_stage(url: &str, made: &Translation, stages: &[Stage]) {
    for statement in made.statements.iter().filter(|statement| stages.contains(&statement.stage)) {
        tests::psql::run(url, &statement.sql);
    }
}

const AFTER: [Stage; 6] =
    [Stage::Keys, Stage::Indexes, Stage::Checks, Stage::ForeignKeys, Stage::Sequences, Stage::Views];

const SHOP: &str = r#"
create table Customers (
    id integer primary key autoincrement, email varchar(80) not null collate nocase unique, active boolean default 1,
    created datetime default current_timestamp, note text, "order" integer, constraint positive check ("order" > 0));
create table orders (
    id integer primary key, customer integer references customers(id) on delete cascade deferrable initially deferred,
    total decimal(10,2) default 0.00, paid_at timestamp, data json, weight real, raw blob, label string,
    doubled real generated always as (weight * 2) stored, check (typeof(label) <> 'blob'), check (total >= 0));
create table pairs (a text, b text, n int, primary key (a, b)) without rowid;
create table lost (id integer primary key, gone integer references nowhere(id));
create table twice (j json, n int constraint c check (n > 0), m int constraint c check (m > 0), ctid text,
    primary key (n, j), unique (j));
insert into twice values ('{}', 1, 2, 'x');
create unique index orders_paid on orders (paid_at, customer) where total > 0;
create index customers_lower on customers (lower(email));
create view v as select 1;
create view paid (who, what, shown) as select c.email, o.total, o.total > 6 from Customers c left join orders as o
  on o.customer = c.id where c.active and "order" in (1, 3);
create view counted as select customer, count(*) from orders group by customer;
create trigger touch after insert on orders begin select 1; end;
insert into customers values (7, 'A@b.c', 1, '2024-01-02 03:04:05', 'tab	and \ and "', 3);
insert into customers values (9, 'x@b.c', 0, '2024-01-02 03:04:05.678901', null, null);
delete from customers where id = 9; insert into customers values (8, '', 0, '0044-01-01 00:00', '', 1);
insert into orders (id, customer, total, paid_at, data, weight, raw, label) values
  (-5, 7, 12.345e1, '2024-05-06T07:08:09Z', '{"b": 1.0, "a": "\u00e4"}', 0.1, x'00ff', 12),
  (3, 8, 5, '2024-05-06 09:08:09+02:00', null, 9e999, null, 'x'), (4, null, null, null, '[]', -0.0, x'', 1.5);
insert into pairs values ('a', 'b', 9223372036854775807), ('a', 'B', -9223372036854775808);
"#;

on_three_majors! {
    fn a_schema_with_all_kinds_of_things_arrives_with_equal_rows(cluster: &Cluster) {
        let database = cluster.fresh_database("sqlite_schema");
        let url = database.url();
        let folder = tempfile::tempdir().unwrap();
        let (_file, reader) = file(folder.path(), |connection| connection.execute_batch(SHOP).unwrap());
        let (schema, made) = translated(&reader, &options());
        run_stage(&url, &made, &[Stage::Tables]);
        for plan in &made.tables {
            let (text, sent, refused) = encode(&reader, &schema.tables[plan.source], plan);
            assert_eq!(refused, [""; 0], "{}", plan.name);
            assert_eq!(through_server(&url, folder.path(), plan, &text), sent, "{}", plan.name);
        }
        run_stage(&url, &made, &AFTER);
        let missing: Vec<String> = made.untranslated.iter().map(|missing| missing.what.clone()).collect();
        assert_eq!(
            missing,
            ["CHECK of orders", "foreign key of lost (\"gone\")", "primary key of twice", "UNIQUE of twice", "view v", "view counted", "trigger touch of orders"]
        );
        assert_eq!(
            tests::psql::run(&url, "select * from paid order by what").trim(),
            "A@b.c|123.45|t"
        );
        let one = |sql: &str| tests::psql::run(&url, sql).trim().to_owned();
        assert_eq!(one("insert into \"Customers\" (email) values ('new') returning id, active"), "10|t");
        assert_eq!(one("insert into orders (weight) values (2) returning id, doubled, total"), "5|4|0.00");
        let refused = tests::psql::try_run(&url, "insert into \"Customers\" (email) values ('a@B.C')");
        assert!(refused.unwrap_err().contains("unique"));
        assert_eq!(one("delete from \"Customers\" where id = 7; select count(*) from orders where id = -5"), "0");
    }
}

/// A value of any storage class, with those that go wrong.
fn value() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        "\\PC{0,12}",
        "[\\\\\t\n\r'\"{},N]{0,6}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,7})?(Z|\\+0[0-9]:30)?)?",
        "[+-]?[0-9]{1,20}(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?",
        Just("a\0b".to_owned()),
        Just("{\"a\": [1, 2.50, \"\\u00e4\"], \"a\": null}".to_owned()),
        Just("12345678-1234-1234-1234-123456789abc".to_owned()),
        Just("true".to_owned()),
        Just("1 day, 2:03:04".to_owned()),
        Just("{1,2,NULL}".to_owned()),
        Just("[\"1\", null]".to_owned()),
        Just("-Infinity".to_owned()),
    ];
    prop_oneof![
        1 => Just(Value::Null),
        2 => prop_oneof![any::<i64>(), -3_i64..100, Just(1_700_000_000_i64), Just(1 << 53), Just((1 << 53) + 1)]
            .prop_map(Value::Integer),
        2 => prop_oneof![any::<f64>(), (-1000_i32..1000).prop_map(|n| f64::from(n) / 8.0), Just(-0.0), Just(f64::INFINITY), Just(0.1)]
            .prop_map(Value::Real),
        4 => texts.prop_map(Value::Text),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob),
    ]
}

/// All types, whatever was chosen for the file's own columns.
const TYPES: [&str; 23] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "numeric(12,3)",
    "text",
    "varchar(5)",
    "char(6)",
    "bytea",
    "date",
    "time",
    "time(3)",
    "timestamp",
    "timestamp(3)",
    "timestamp with time zone",
    "interval",
    "uuid",
    "json",
    "jsonb",
    "integer[]",
];

on_three_majors! {
    /// Each row holds one value in one column; the values of all columns are independent.
    fn what_is_not_refused_comes_back_equal_in_every_type(cluster: &Cluster) {
        let database = cluster.fresh_database("sqlite_values");
        let url = database.url();
        let mut runner = TestRunner::new(Config { cases: 2, failure_persistence: None, ..Config::default() });
        runner.run(&proptest::collection::vec(value(), 400..500), |values| {
            let folder = tempfile::tempdir().unwrap();
            let columns: Vec<String> = (0..TYPES.len()).map(|at| format!("\"C {at}\"")).collect();
            let (_file, reader) = file(folder.path(), |connection| {
                let create = format!("pragma synchronous = off; begin; create table \"T t\" ({})", columns.join(", "));
                connection.execute_batch(&create).unwrap();
                for (at, column) in columns.iter().enumerate() {
                    let mut insert = connection.prepare(&format!("insert into \"T t\" ({column}) values (?1)")).unwrap();
                    // Every column gets some of them, all of them in the end.
                    for value in values.iter().skip(at % 3) {
                        insert.execute([value]).unwrap();
                    }
                }
                connection.execute_batch("commit").unwrap();
            });
            let mut options = options();
            for (at, name) in TYPES.iter().enumerate() {
                options.types.insert(("t t".to_owned(), format!("c {at}")), (*name).to_owned());
            }
            options.zone = Some(chrono_tz::Europe::Berlin);
            let (schema, mut made) = translated(&reader, &options);
            for column in &mut made.tables[0].columns {
                column.rule = ColumnRule { epoch: Some(sqlite::target::EpochUnit::Seconds), ..column.rule.clone() };
            }
            run_stage(&url, &made, &[Stage::Tables]);
            let plan = &made.tables[0];
            let (text, sent, refused) = encode(&reader, &schema.tables[0], plan);
            prop_assert!(sent.rows > 1000 && !refused.is_empty());
            prop_assert_eq!(through_server(&url, folder.path(), plan, &text), sent);
            tests::psql::run(&url, "drop table \"T t\"");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_changed_value_changes_the_hash() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("sqlite_changed");
    let url = database.url();
    let folder = tempfile::tempdir().unwrap();
    let (_file, reader) = file(folder.path(), |connection| connection.execute_batch(SHOP).unwrap());
    let (schema, made) = translated(&reader, &options());
    run_stage(&url, &made, &[Stage::Tables]);
    let plan = made.tables.iter().find(|plan| plan.name.as_str() == "orders").unwrap();
    let (text, sent, _) = encode(&reader, &schema.tables[plan.source], plan);
    tests::psql::run(
        &url,
        "create function nudge() returns trigger language plpgsql as $$ begin
           if new.id = 3 then new.paid_at := new.paid_at + interval '1 microsecond'; end if; return new; end $$;
         create trigger nudge before insert on orders for each row execute function nudge()",
    );
    let back = through_server(&url, folder.path(), plan, &text);
    assert_eq!(back.rows, sent.rows);
    assert_ne!(back.sum, sent.sum);
}
