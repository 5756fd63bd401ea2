//! Configuration tables of extensions: the rows that are the user's come back, by the extension's own condition, and those
//! that the extension brings are not doubled.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Options, Snapshots, psql};

const CONTROL: &str = "comment = 'words'\ndefault_version = '1.0'\nrelocatable = false\nschema = words\n";

/// A table with a condition and rows of its own, one without a condition whose rows the user has changed, two that reference each other in the order of their size
/// (the larger one needs the smaller), one with a trigger that must not act again, a sequence that is marked, one that is not, and a table
/// that is none of the user's.
const SCRIPT: &str = r#"
CREATE TABLE dictionary (id int PRIMARY KEY, word text NOT NULL, builtin boolean NOT NULL DEFAULT false);
INSERT INTO dictionary SELECT i, 'brought ' || i, true FROM generate_series(1, 5) i;
CREATE TABLE settings (name text PRIMARY KEY, value text);
INSERT INTO settings VALUES ('brought', 'default'), ('removed', 'by the user');
CREATE TABLE log (entry text);
CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO words.log VALUES (NEW.name); RETURN NEW; END';
CREATE TRIGGER logs BEFORE INSERT ON settings FOR EACH ROW EXECUTE FUNCTION logs();
SELECT pg_catalog.pg_extension_config_dump('log', '');
CREATE TABLE kinds (kind int PRIMARY KEY);
CREATE TABLE uses (id int, kind int REFERENCES kinds, filler text);
CREATE SEQUENCE numbers; CREATE SEQUENCE internal;
CREATE TABLE cache (i int); INSERT INTO cache VALUES (1);
SELECT pg_catalog.pg_extension_config_dump('dictionary', $$WHERE NOT builtin AND word <> 'it''s "not" kept'$$);
SELECT pg_catalog.pg_extension_config_dump('settings', '');
SELECT pg_catalog.pg_extension_config_dump('kinds', '');
SELECT pg_catalog.pg_extension_config_dump('uses', '');
SELECT pg_catalog.pg_extension_config_dump('numbers', '');
"#;

const USERS: &str = r#"
CREATE SCHEMA words; CREATE EXTENSION words SCHEMA words;
INSERT INTO words.dictionary SELECT i, 'mine ' || i FROM generate_series(100, 3100) i;
INSERT INTO words.dictionary VALUES (9, 'it''s "not" kept'), (10, E'tab\tand\nline');
INSERT INTO words.settings VALUES ('a', 'b'), ('null', NULL);
UPDATE words.settings SET value = 'mine' WHERE name = 'brought'; DELETE FROM words.settings WHERE name = 'removed';
INSERT INTO words.kinds VALUES (1), (2);
INSERT INTO words.uses SELECT i, 1 + i % 2, repeat('x', 200) FROM generate_series(1, 2000) i;
SELECT setval('words.numbers', 4711), setval('words.internal', 99);
INSERT INTO words.cache VALUES (2);
CREATE TABLE mine (i int PRIMARY KEY, k int REFERENCES words.kinds); INSERT INTO mine VALUES (1, 2);
"#;

fn comes_back_by_its_condition(major: u32) {
    let files = [("words.control", CONTROL), ("words--1.0.sql", SCRIPT)];
    let cluster = Cluster::start(major, &Options::new().extension(&files));
    let database = cluster.fresh_database("words");
    database.psql(USERS);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &["--chunk-blocks", "2"]);
    for jobs in ["1", "4"] {
        let url = snapshots.restore_copy(&database, &["--jobs", jobs]);
        let rows = "SELECT (SELECT count(*) FROM words.dictionary), (SELECT count(*) FILTER (WHERE builtin) FROM words.dictionary),
                    (SELECT count(*) FROM words.dictionary WHERE word ~ 'not'), (SELECT last_value FROM words.numbers),
                    (SELECT last_value FROM words.internal), (SELECT count(*) FROM words.cache)";
        // 3001 and one of the user's, 5 of the extension's; the excepted row and the unmarked table are not the user's.
        assert_eq!(psql::run(&url, rows), "3007|5|0|4711|99|1");
        // Equal but for just these.
        let left = ["table \"words.dictionary\"", "table \"words.cache\""];
        fingerprint(&database).without(&left).assert_same(&fingerprint_without(&url, &[]).without(&left));
        let mine = "SELECT count(*), sum(hashtext(d::text)) FROM words.dictionary d WHERE word !~ 'not'";
        assert_eq!(psql::run(&url, mine), database.psql(mine));
    }
    snapshots.run_offline("backup", &["verify", &id]).expect(0);
    // What pg_dump does not write is told before and after, and is a part of the verdict.
    let shown = snapshots.run_offline("backup", &["show", &id]).expect(0).stdout;
    assert!(shown.contains("of extensions that pg_dump does not write (words.cache"), "{shown}");
    let into = format!("{}told", database.name());
    let told = snapshots.run("restore", &database.url(), &[&id, "--into", &into, "--json"]).expect(0).stdout;
    let report: serde_json::Value = serde_json::from_str(&told).expect("one document");
    let cache = "table words.cache of the extension words: 1 row instead of 2; pg_dump writes none of them";
    let dictionary = "table words.dictionary of the extension words: 3,007 rows instead of 3,008; pg_dump writes only those that the \
                      extension's own condition names";
    assert_eq!(report["differences"], serde_json::json!([cache, dictionary]), "{told}");

    // A part names what it leaves out, and the rows of a configuration table are chosen like any other's.
    let part = &["--table", "words.dictionary", "--table", "mine", "--table", "words.kinds"];
    let part = snapshots.create(&database, part);
    let shown = snapshots.run_offline("backup", &["show", &part]).expect(0).stdout;
    for left_out in ["table words.uses", "table words.settings", "sequence words.numbers"] {
        assert!(shown.contains(left_out), "{left_out}: {shown}");
    }
    let copy = format!("{}part", database.name());
    snapshots.run("restore", &database.url(), &[&part, "--into", &copy]).expect(0);
    let url = cluster.url(&copy);
    let rows = "SELECT (SELECT count(*) FROM words.dictionary), (SELECT count(*) FROM words.kinds), (SELECT count(*) FROM mine),
                (SELECT count(*) FROM words.uses), (SELECT last_value FROM words.numbers)";
    assert_eq!(psql::run(&url, rows), "3007|2|1|0|1");
    let part = snapshots.create(&database, &["--exclude-table", "mine", "--exclude-table", "words.uses"]);
    snapshots.run("restore", &database.url(), &[&part, "--into", &format!("{copy}2")]).expect(0);
    let rows = "SELECT (SELECT count(*) FROM words.uses), (SELECT count(*) FROM words.kinds), (SELECT last_value FROM words.numbers)";
    assert_eq!(psql::run(&cluster.url(&format!("{copy}2")), rows), "0|2|4711");
}

#[test]
fn configuration_tables_of_an_extension_come_back_by_their_conditions_postgresql_14() {
    comes_back_by_its_condition(14);
}

#[test]
fn configuration_tables_of_an_extension_come_back_by_their_conditions_postgresql_18() {
    comes_back_by_its_condition(18);
}
