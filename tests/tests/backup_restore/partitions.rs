//! Rows of hash partitions whose key hashes differently in every database: they may come back in another leaf.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Snapshots, psql};

/// Leaves with the columns in another order, one with a dropped column, all with a generated one; a second level.
const MOVING: &str = r#"
CREATE TYPE colour AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l');
CREATE TABLE t (id int, c colour, note text, twice int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY HASH (c);
CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE t1 (twice int GENERATED ALWAYS AS (id * 2) STORED, note text, gone text, c colour, id int);
ALTER TABLE t1 DROP COLUMN gone;
ALTER TABLE t ATTACH PARTITION t1 FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE t2 (note text, id int, c colour, twice int GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE t ATTACH PARTITION t2 FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE t3 (c colour, id int, note text, twice int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY LIST (c);
CREATE TABLE t3a PARTITION OF t3 DEFAULT;
ALTER TABLE t ATTACH PARTITION t3 FOR VALUES WITH (MODULUS 4, REMAINDER 3);
INSERT INTO t (id, c, note) SELECT i, (enum_range(NULL::colour))[1 + i % 12], 'note ' || i FROM generate_series(1, 3000) i;
"#;

/// Which rows there are, wherever they lie, and what their columns hold. Not in how many leaves: the labels' oids decide
/// that, and one may stay empty.
const ROWS: &str = "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM t";

fn rows_that_move_are_the_same_rows(major: u32) {
    let database = Cluster::shared(major).fresh_database("moving");
    database.psql(MOVING);
    for arguments in [&["--chunk-blocks", "1"][..], &[]] {
        let snapshots = Snapshots::new();
        snapshots.create(&database, arguments);
        let url = snapshots.restore_copy(&database, &[]);
        assert_eq!(psql::run(&url, ROWS), database.psql(ROWS));
        let leaves = "SELECT tableoid::regclass, count(*), min(c), max(c) FROM t GROUP BY 1 ORDER BY 1";
        // Else the test proves nothing. Twelve labels that all stay in their quarter would be one chance in millions.
        assert_ne!(psql::run(&url, leaves), database.psql(leaves), "no row has moved");
        let settled = ["table \"public.t"];
        let before = fingerprint(&database).without(&settled);
        before.assert_same(&fingerprint_without(&url, &[]).without(&settled));
    }
    // The same through a swap: the undo of a protected run restores in this way.
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let before = database.psql(ROWS);
    database.psql("DELETE FROM t");
    snapshots.run("restore", &database.url(), &["latest", "--replace", "-y"]).expect(0);
    assert_eq!(database.psql(ROWS), before);
}

#[test]
fn rows_of_an_enums_hash_partitions_with_other_orders_of_columns_come_back_postgresql_14() {
    rows_that_move_are_the_same_rows(14);
}

#[test]
fn rows_of_an_enums_hash_partitions_with_other_orders_of_columns_come_back_postgresql_18() {
    rows_that_move_are_the_same_rows(18);
}

#[test]
fn a_generated_column_of_one_leaf_alone_comes_back() {
    // Refused from PostgreSQL 16 on.
    let database = Cluster::shared(14).fresh_database("generated");
    database.psql(
        "CREATE TYPE colour AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
         CREATE TABLE t (id int, c colour, twice int) PARTITION BY HASH (c);
         CREATE TABLE t0 (id int, c colour, twice int);
         CREATE TABLE t1 (twice int GENERATED ALWAYS AS (id * 2) STORED, c colour, id int);
         ALTER TABLE t ATTACH PARTITION t0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         ALTER TABLE t ATTACH PARTITION t1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO t (id, c, twice) SELECT i, (enum_range(NULL::colour))[1 + i % 8], i * 2 FROM generate_series(1, 800) i",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let url = snapshots.restore_copy(&database, &[]);
    assert_eq!(psql::run(&url, ROWS), database.psql(ROWS));
}

#[test]
fn a_text_key_with_a_nondeterministic_collation_is_loaded_through_its_root() {
    // Such a key hashes by its ICU sort key, which another version of ICU makes differently.
    // A build option that not every package has; Debian's 15, which the pipeline tests with, does.
    let has_icu = |major: &u32| {
        Cluster::shared(*major).psql("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'") != "0"
    };
    let Some(major) = [15, 18].into_iter().find(has_icu) else {
        eprintln!("neither PostgreSQL 15 nor 18 is built with ICU here: nothing to test");
        return;
    };
    let database = Cluster::shared(major).fresh_database("icu");
    database.psql(
        "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (id int, name text COLLATE loose) PARTITION BY HASH (name);
         CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 100) i",
    );
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    assert_eq!(snapshots.manifest(&id).matches("\"load_into\":").count(), 2);
    let url = snapshots.restore_copy(&database, &[]);
    fingerprint(&database).assert_same(&fingerprint_without(&url, &[]));
}
