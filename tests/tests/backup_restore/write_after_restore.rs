//! What a restore is for: the application goes on. One row into every table gives in the restored database what it gives in
//! the original: the same refusals, the same values of sequences, each beyond what was there.

use tests::random_schema::random_schema;
use tests::writes::ONE_ROW_INTO_EVERY_TABLE;
use tests::{Cluster, Database, Snapshots, fixtures, psql};

/// How many tables took a row, and how many values a sequence gave.
fn writes_are_the_same(database: &Database) -> (usize, usize) {
    let snapshots = Snapshots::new();
    snapshots.create(database, &[]);
    let url = snapshots.restore_copy(database, &[]);
    let expected = database.psql(ONE_ROW_INTO_EVERY_TABLE);
    assert_eq!(psql::run(&url, ONE_ROW_INTO_EVERY_TABLE), expected);
    // Once more, on top of what was written.
    let again = database.psql(ONE_ROW_INTO_EVERY_TABLE);
    assert_eq!(psql::run(&url, ONE_ROW_INTO_EVERY_TABLE), again);
    let written = expected.lines().filter(|line| line.contains("|written")).count();
    (written, expected.matches(" beyond").count())
}

fn a_database_with_everything(major: u32) {
    let database = Cluster::shared(major).fresh_database("writes");
    fixtures::load_everything(&database);
    let (written, drawn) = writes_are_the_same(&database);
    assert!(written >= 15 && drawn >= 1, "{written} tables, {drawn} values of sequences");
}

#[test]
fn a_restored_database_with_everything_takes_the_same_rows_postgresql_14() {
    a_database_with_everything(14);
}

#[test]
fn a_restored_database_with_everything_takes_the_same_rows_postgresql_18() {
    a_database_with_everything(18);
}

#[test]
fn a_restored_database_with_everything_takes_the_same_rows_postgresql_19() {
    a_database_with_everything(19);
}

#[test]
fn a_restored_shop_takes_the_same_rows_and_every_key_is_a_new_one() {
    let database = Cluster::shared(18).fresh_database("writes");
    fixtures::load_shop(&database, 0.01);
    let (written, drawn) = writes_are_the_same(&database);
    assert!(written >= 3 && drawn >= 3, "{written} tables, {drawn} values of sequences");
}

#[test]
fn restored_random_databases_take_the_same_rows() {
    for (major, seed) in [(14, 20), (18, 24)] {
        let database = Cluster::shared(major).fresh_database("writes");
        // These two seeds have hash partitions whose rows move, with the columns in other orders.
        database.psql(&random_schema(seed, major).sql);
        let (written, _) = writes_are_the_same(&database);
        assert!(written > 0, "{seed}");
    }
}
