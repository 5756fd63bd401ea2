//! What goes into a snapshot comes out of it: on every version, with every codec, in one piece and in many.
//! Judged by the oracle alone.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Fingerprint, Snapshots, fixtures, on_every_major, psql};

/// The materialized view that was stale comes back fresh: announced, and looked at by a test of its own.
const STALE: &str = "materialized view \"app.stale\"";

fn everything<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    fixtures::load_everything(&database);
    database
}

fn copy(url: &str) -> Fingerprint {
    fingerprint_without(url, &[])
}

fn assert_round_trip(database: &Database, create: &[&str], restore: &[&str]) {
    let snapshots = Snapshots::new();
    let before = fingerprint(database).without(&[STALE]);
    snapshots.create(database, create);
    let url = snapshots.restore_copy(database, restore);
    before.assert_same(&copy(&url).without(&[STALE]));
    // The backup itself has changed nothing either.
    before.assert_same(&fingerprint(database).without(&[STALE]));
}

on_every_major! {
    fn a_database_with_everything_comes_back_equal(cluster: &Cluster) {
        assert_round_trip(&everything(cluster, "all"), &[], &[]);
    }

    fn a_database_with_everything_in_many_small_chunks_comes_back_equal(cluster: &Cluster) {
        let database = everything(cluster, "chunks");
        // Several pages in leaves of a table that is partitioned by the hash of an enum, which restores through its root.
        database.psql(
            "CREATE TABLE app.by_mood (mood types.mood NOT NULL, n int, filler text) PARTITION BY HASH (mood);
             CREATE TABLE app.by_mood_0 PARTITION OF app.by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE app.by_mood_1 PARTITION OF app.by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO app.by_mood SELECT (enum_range(NULL::types.mood))[1 + i % 5], i, repeat('x', 200)
             FROM generate_series(1, 3000) i",
        );
        let snapshots = Snapshots::new();
        let id = snapshots.create(&database, &["--chunk-blocks", "2", "--jobs", "4"]);
        // Where rows lie depends on the oids of the enum's values: the larger leaf has most of 3000 rows or half.
        let oid = database.psql("SELECT tableoid FROM app.by_mood GROUP BY 1 ORDER BY count(*) DESC LIMIT 1");
        let pieces = snapshots
            .chunks(&id)
            .iter()
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{oid}.")))
            .count();
        assert!(pieces > 20, "{pieces} chunks");
        let url = snapshots.restore_copy(&database, &["--jobs", "4"]);
        // Which leaf a row lies in depends on the oids of the enum's values; the root must have the same rows.
        let leaves = [STALE, "table \"app.by_mood_", "table \"app.hash"];
        fingerprint(&database).without(&leaves).assert_same(&copy(&url).without(&leaves));
        let rows = "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM app.by_mood t";
        assert_eq!(psql::run(&url, rows), database.psql(rows));
    }

    fn an_unlogged_table_with_an_identity_column_comes_back_equal(cluster: &Cluster) {
        // A newer pg_dump writes LOGGED for the sequence of 14, which is logged there and always was, and which 14
        // then does not understand.
        let database = cluster.fresh_database("unlogged");
        database.psql(
            "CREATE UNLOGGED TABLE t (id int GENERATED ALWAYS AS IDENTITY (START 7), \"\n    LOGGED\n\" int);
             INSERT INTO t DEFAULT VALUES;
             COMMENT ON SEQUENCE t_id_seq IS 'also kept';
             GRANT USAGE ON SEQUENCE t_id_seq TO PUBLIC",
        );
        assert_round_trip(&database, &[], &["--jobs", "2"]);
    }
}

#[test]
fn every_codec_and_any_number_of_jobs_brings_the_same_back() {
    let database = everything(Cluster::shared(18), "codecs");
    for (codec, jobs) in [("gzip:6", "1"), ("none", "4"), ("zstd:19", "4"), ("gzip:1", "2")] {
        assert_round_trip(&database, &["--compress", codec, "--jobs", jobs], &["--jobs", jobs]);
    }
}

#[test]
fn a_stale_materialized_view_comes_back_fresh_and_that_is_announced() {
    let database = everything(Cluster::shared(18), "stale");
    let snapshots = Snapshots::new();
    let created = snapshots.run("backup", &database.url(), &["create"]).expect(0);
    let announced = "filled again from the restored tables, so a stale one comes back fresh";
    assert!(created.stderr.contains(announced), "{}", created.stderr);
    assert!(snapshots.manifest(created.stdout.trim()).contains(announced));
    let url = snapshots.restore_copy(&database, &[]);
    let content = "SELECT n, (SELECT count(*) FROM app.duplicates) FROM app.stale";
    let (stale, fresh) = (database.psql(content), psql::run(&url, content));
    assert_ne!(
        stale.split_once('|').unwrap().0,
        stale.split_once('|').unwrap().1,
        "the fixture's view is stale"
    );
    assert_eq!(fresh.split_once('|').unwrap().0, fresh.split_once('|').unwrap().1);
}
