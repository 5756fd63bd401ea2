//! Of a chunk of which only some blocks changed, only these are read; the rest is taken over as it is stored, and the result
//! is what a full snapshot holds. What can't be trusted is not taken over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tests::{
    Cluster, Database, Options, Outcome, Snapshots, oracle::fingerprint, oracle::fingerprint_without,
};

/// Without checksums, with which reading alone may log pages.
fn server() -> Cluster {
    let options = Options::new().conf("summarize_wal = on").conf("autovacuum = off");
    Cluster::start(18, &options.initdb(&["--no-locale", "--auth=trust", "--no-data-checksums"]))
}

/// Some 150 blocks, each row as wide as 12 to a block.
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text);
    INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 1800) i; VACUUM (FREEZE) t; CHECKPOINT";

const CUT: [&str; 4] = ["--chunk-blocks", "64", "--piece-blocks", "4"];

fn create(snapshots: &Snapshots, database: &Database, more: &[&str]) -> (String, Outcome) {
    let cut = if more.contains(&"--piece-blocks") { &CUT[..2] } else { &CUT[..] };
    let arguments = [&["create"], cut, more].concat();
    let outcome = snapshots.run("backup", &database.url(), &arguments).expect(0);
    (outcome.stdout.trim().to_owned(), outcome)
}

fn manifest(snapshots: &Snapshots, id: &str) -> serde_json::Value {
    let manifest: serde_json::Value = serde_json::from_str(&snapshots.manifest(id)).unwrap();
    manifest["snapshot"].clone()
}

/// Chunks, those that were read, and those of which only some pieces were.
fn reading(snapshots: &Snapshots, id: &str) -> [u64; 3] {
    let reading = &manifest(snapshots, id)["reading"];
    ["chunks", "chunks_read", "chunks_in_part"].map(|name| reading[name].as_u64().unwrap())
}

/// Rows, text length and hash of every table.
fn content(snapshots: &Snapshots, id: &str) -> BTreeMap<String, (u64, u64, u128)> {
    let mut all = BTreeMap::new();
    for table in manifest(snapshots, id)["tables"].as_array().unwrap() {
        let sum = all.entry(table["name"].to_string()).or_insert((0, 0, 0_u128));
        for chunk in table["chunks"].as_array().unwrap() {
            sum.0 += chunk["rows"].as_u64().unwrap();
            sum.1 += chunk["raw_bytes"].as_u64().unwrap();
            let hash = u128::from_str_radix(chunk["row_hash"].as_str().unwrap(), 16).unwrap();
            sum.2 = sum.2.wrapping_add(hash);
        }
    }
    all
}

/// What `id` holds is what a full snapshot reads, and what comes back is what there is.
fn assert_exact(snapshots: &Snapshots, database: &Database, id: &str) {
    let full = Snapshots::new();
    let (whole, _) = create(&full, database, &["--full"]);
    assert_eq!(content(snapshots, id), content(&full, &whole));
    snapshots.run_offline("backup", &["verify", id]).expect(0);
    let copy = snapshots.restore_copy(database, &[]);
    fingerprint(database).assert_same(&fingerprint_without(&copy, &[]));
}

fn first_chunk(snapshots: &Snapshots, id: &str) -> PathBuf {
    let path = manifest(snapshots, id)["tables"][0]["chunks"][0]["path"].as_str().unwrap().to_owned();
    snapshots.folder_of(id).join(path)
}

#[test]
fn only_the_pieces_that_changed_are_read() {
    let cluster = server();
    let database = cluster.fresh_database("pieces");
    database.psql(TABLE);
    let snapshots = Snapshots::new();
    let (first, _) = create(&snapshots, &database, &[]);
    database.psql("UPDATE t SET v = 'changed' WHERE id = 1700; DELETE FROM t WHERE id = 60; CHECKPOINT");
    let (second, outcome) = create(&snapshots, &database, &[]);
    outcome.says(&["read 2 of 3 chunks (only what had changed in them), reused 1"]);
    assert_eq!(reading(&snapshots, &second), [3, 2, 2]);
    assert_exact(&snapshots, &database, &second);
    // And what is made of pieces is built on again; that its rows were read for the first one is not forgotten.
    database.psql("DELETE FROM t WHERE id = 61; CHECKPOINT");
    let (third, _) = create(&snapshots, &database, &[]);
    // What reads a page may prune it, which is a change.
    assert!([[3, 1, 1], [3, 2, 2]].contains(&reading(&snapshots, &third)));
    let chunks = &manifest(&snapshots, &third)["tables"][0]["chunks"];
    assert_eq!((&chunks[0]["read_in"], &chunks[2]["read_in"]), (&first.clone().into(), &first.into()));
    assert_exact(&snapshots, &database, &third);
}

#[test]
fn a_table_that_grew_past_the_end_of_its_last_chunk_keeps_the_pieces_of_it() {
    let cluster = server();
    let database = cluster.fresh_database("grown");
    database.psql(TABLE);
    let snapshots = Snapshots::new();
    create(&snapshots, &database, &[]);
    // 150 blocks → more than 192, where a fourth chunk begins.
    database.psql(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(2001, 2900) i; CHECKPOINT",
    );
    let (second, _) = create(&snapshots, &database, &[]);
    assert_eq!(reading(&snapshots, &second), [4, 2, 1]);
    assert_exact(&snapshots, &database, &second);
    // And one that became shorter, and then longer again.
    database.psql("DELETE FROM t WHERE id > 1500; VACUUM t; CHECKPOINT");
    let (third, _) = create(&snapshots, &database, &[]);
    assert_exact(&snapshots, &database, &third);
    database.psql(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(3001, 3900) i; CHECKPOINT",
    );
    let (fourth, _) = create(&snapshots, &database, &[]);
    assert_exact(&snapshots, &database, &fourth);
}

#[test]
fn nothing_is_taken_over_from_a_file_that_is_damaged() {
    let cluster = server();
    let database = cluster.fresh_database("flipped");
    database.psql(TABLE);
    for (n, place) in [0.1, 0.5, 0.9, 0.999].into_iter().enumerate() {
        let snapshots = Snapshots::new();
        let (first, _) = create(&snapshots, &database, &[]);
        database
            .psql(&format!("UPDATE t SET v = v || 'x' WHERE id IN ({0}, {0} + 300); CHECKPOINT", 200 + n));
        let file = first_chunk(&snapshots, &first);
        let mut bytes = std::fs::read(&file).unwrap();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a small file"
        )]
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        let (second, outcome) = create(&snapshots, &database, &[]);
        // A flip in the index makes it none: then nothing had to be compared.
        if place < 0.99 {
            outcome.says(&["run `backup verify`"]);
        }
        let chunks = &manifest(&snapshots, &second)["tables"][0]["chunks"];
        assert_eq!(chunks[0]["read_in"], serde_json::Value::Null, "{place}");
        assert_exact(&snapshots, &database, &second);
    }
}

#[test]
fn what_was_read_too_long_ago_is_read_as_a_whole() {
    let cluster = server();
    let database = cluster.fresh_database("old");
    database.psql(TABLE);
    let snapshots = Snapshots::new();
    create(&snapshots, &database, &[]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    database.psql("DELETE FROM t WHERE id = 60; CHECKPOINT");
    let (second, _) = create(&snapshots, &database, &["--full-every", "1h"]);
    assert_eq!(reading(&snapshots, &second)[2], 1);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    database.psql("DELETE FROM t WHERE id = 61; CHECKPOINT");
    // The file was written a second ago, and most of its rows were read two seconds ago.
    let (third, _) = create(&snapshots, &database, &["--full-every", "2s"]);
    assert_eq!(reading(&snapshots, &third)[2], 0);
    assert_exact(&snapshots, &database, &third);
}

#[test]
fn without_pieces_a_changed_chunk_is_read_as_a_whole() {
    let cluster = server();
    let database = cluster.fresh_database("gzip");
    database.psql(TABLE);
    for codec in ["gzip", "none"] {
        let snapshots = Snapshots::new();
        create(&snapshots, &database, &["--compress", codec]);
        database.psql("UPDATE t SET v = v || 'x' WHERE id = 60; CHECKPOINT");
        let (second, _) = create(&snapshots, &database, &["--compress", codec]);
        assert_eq!(reading(&snapshots, &second)[2], 0, "{codec}");
        assert_exact(&snapshots, &database, &second);
    }
}

#[test]
fn other_sizes_of_pieces_and_most_of_them_changed_are_read_as_a_whole() {
    let cluster = server();
    let database = cluster.fresh_database("sizes");
    database.psql(TABLE);
    let snapshots = Snapshots::new();
    create(&snapshots, &database, &[]);
    database.psql("UPDATE t SET v = v || 'x' WHERE id = 60; CHECKPOINT");
    let (second, _) = create(&snapshots, &database, &["--piece-blocks", "8"]);
    assert_exact(&snapshots, &database, &second);
    database.psql("UPDATE t SET v = v || 'y' WHERE id % 12 = 0; CHECKPOINT");
    let (third, _) = create(&snapshots, &database, &["--piece-blocks", "8"]);
    assert_eq!(reading(&snapshots, &third)[2], 0);
    assert_exact(&snapshots, &database, &third);
}
