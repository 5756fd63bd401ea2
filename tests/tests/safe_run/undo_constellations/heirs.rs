//! A rule of a table that is inherited from, where the heir's came back NOT VALID.

use tests::{Cluster, Snapshots, psql};

use super::rules::differences;

/// Each look at the heir's rows is ended by a cancel, and then the rule above can't be valid: no row breaks either.
fn a_rule_above_one_that_nobody_could_look_at(major: u32) {
    let database = Cluster::shared(major).fresh_database("above");
    database.psql(
        "CREATE FUNCTION ok(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE aa (id int CONSTRAINT fine CHECK (ok(id)));
         CREATE TABLE heir (CONSTRAINT fine CHECK (ok(id))) INHERITS (aa); INSERT INTO heir VALUES (1);
         CREATE OR REPLACE FUNCTION ok(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN
           IF pg_catalog.current_query() !~ ''ADD CONSTRAINT'' THEN RETURN false; END IF;
           PERFORM pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid()); PERFORM pg_catalog.pg_sleep(60); RETURN true; END'",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let into = format!("{}_copy", database.name());
    let told = snapshots.run("restore", &database.url(), &["latest", "--json", "--into", &into]).expect(0);
    let lines = differences(&told.stdout);
    for said in [
        "the CHECK constraint fine of the table heir: it came back NOT VALID, because the server's look at the rows was ended 2 times",
        "the CHECK constraint fine of the table aa: it came back NOT VALID, because it is NOT VALID on \"public\".\"heir\", which inherits \
         from this table; ALTER TABLE \"public\".\"aa\" VALIDATE CONSTRAINT \"fine\" looks at the rows of both",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(said)), "{said}\n{lines:?}");
    }
    assert!(!told.stdout.contains("rows break it"), "{}", told.stdout);
    // What was said mends it.
    let copy = database.cluster().url(&into);
    psql::run(
        &copy,
        "CREATE OR REPLACE FUNCTION ok(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         ALTER TABLE public.aa VALIDATE CONSTRAINT fine",
    );
    let valid = "SELECT DISTINCT convalidated, count(*) FROM pg_constraint WHERE conname = 'fine' GROUP BY 1";
    assert_eq!(psql::run(&copy, valid), "t|2");
}

#[test]
fn a_rule_above_one_that_nobody_could_look_at_is_not_called_broken_postgresql_14() {
    a_rule_above_one_that_nobody_could_look_at(14);
}

#[test]
fn a_rule_above_one_that_nobody_could_look_at_is_not_called_broken_postgresql_18() {
    a_rule_above_one_that_nobody_could_look_at(18);
}

/// One partition's COPY is at its first row, and wants the lock of the tree for its bound, when another partition's rows break the rule
/// that the tree hands down: taking it off needs both locks.
fn a_rule_is_taken_off_a_tree_that_is_loaded(major: u32) {
    let database = Cluster::shared(major).fresh_database("tree");
    database.psql(
        "CREATE FUNCTION fine(i int, held bool) RETURNS bool LANGUAGE plpgsql AS 'BEGIN
           IF i = 1 THEN PERFORM pg_catalog.pg_sleep(3); RETURN true; END IF; RETURN held; END';
         CREATE TABLE tree (i int, held bool, CONSTRAINT fine CHECK (fine(i, held))) PARTITION BY LIST (i);
         CREATE TABLE tree_1 PARTITION OF tree FOR VALUES IN (1);
         CREATE TABLE below PARTITION OF tree FOR VALUES IN (2, 3) PARTITION BY LIST (i);
         CREATE TABLE tree_2 PARTITION OF below FOR VALUES IN (2); CREATE TABLE tree_3 PARTITION OF below FOR VALUES IN (3);
         INSERT INTO tree VALUES (1, true), (2, true), (3, true);
         CREATE OR REPLACE FUNCTION fine(i int, held bool) RETURNS bool LANGUAGE plpgsql AS 'BEGIN
           IF i = 1 THEN PERFORM pg_catalog.pg_sleep(3); RETURN true; END IF; RETURN false; END'",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let into = format!("{}_copy", database.name());
    let arguments = ["latest", "--json", "--jobs", "3", "--into", &into];
    let told = snapshots.run("restore", &database.url(), &arguments).expect(0);
    let lines = differences(&told.stdout);
    let said = "the CHECK constraint fine of the table tree: it came back NOT VALID, ";
    assert!(lines.iter().any(|line| line.starts_with(said)), "{lines:?}");
    assert_eq!(psql::run(&database.cluster().url(&into), "SELECT count(*) FROM tree"), "3");
}

#[test]
fn a_rule_is_taken_off_a_tree_that_is_being_loaded_without_a_deadlock_postgresql_14() {
    a_rule_is_taken_off_a_tree_that_is_loaded(14);
}

#[test]
fn a_rule_is_taken_off_a_tree_that_is_being_loaded_without_a_deadlock_postgresql_18() {
    a_rule_is_taken_off_a_tree_that_is_loaded(18);
}
