//! Snapshots that read only what changed hold exactly what a full one holds, whatever happened in between: random
//! transactions over several sessions, left open across snapshots, prepared, rolled back to savepoints; vacuum, rewrites,
//! changes of definitions; a server that crashed.
//!
//! `SAFE_RUN_INCREMENTAL_SEEDS=200` tries so many seeds more, of 8 rounds each.

use std::collections::BTreeMap;

use tests::{Cluster, Database, Options, Outcome, Session, Snapshots, oracle::fingerprint, psql};

const TABLES: usize = 3;
const SESSIONS: usize = 4;
const ROUNDS: usize = 8;

/// SplitMix64: the same seed makes the same history.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Without checksums: with them the server logs pages for hint bits too, and a page that is read again for that hides a
/// page that should have been.
fn server(major: u32) -> Cluster {
    let mut options = Options::new()
        .conf("summarize_wal = on")
        .conf("max_prepared_transactions = 20")
        .conf("full_page_writes = on")
        .conf("autovacuum = off");
    if major >= 18 {
        options = options.initdb(&["--no-locale", "--auth=trust", "--no-data-checksums"]);
    }
    Cluster::start(major, &options)
}

const TABLE: &str =
    "CREATE TABLE $T (id serial PRIMARY KEY, k int, v text, mood mood) WITH (fillfactor = 80);
    INSERT INTO $T (k, v, mood) SELECT i, repeat('v' || i, 60), 'so so' FROM generate_series(1, 900) i;";

const START: &str = "CREATE TYPE mood AS ENUM ('good', 'so so', 'bad');
    CREATE TABLE long (id int, v text); ALTER TABLE long ALTER v SET STORAGE EXTERNAL;
    INSERT INTO long SELECT i, repeat('long' || i, 1000) FROM generate_series(1, 60) i;
    CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
    INSERT INTO parts SELECT i, 'part ' || i FROM generate_series(1, 900) i;
    VACUUM (FREEZE);";

/// A history in the making.
struct World<'c> {
    database: Database<'c>,
    random: Random,
    sessions: Vec<Session>,
    /// Whether each session is in a transaction.
    open: Vec<bool>,
    made: usize,
}

impl<'c> World<'c> {
    fn new(cluster: &'c Cluster, seed: u64) -> World<'c> {
        let database = cluster.fresh_database("changes");
        for number in 0..TABLES {
            let mood = if number == 0 { START.split_once(';').unwrap().0 } else { "SELECT 1" };
            database.psql(&format!("{mood}; {}", TABLE.replace("$T", &format!("t{number}"))));
        }
        database.psql(START.split_once(';').unwrap().1);
        cluster.psql("CHECKPOINT");
        let mut world =
            World { database, random: Random(seed), sessions: Vec::new(), open: Vec::new(), made: 0 };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.sessions = (0..SESSIONS).map(|_| self.database.session()).collect();
        self.open = vec![false; SESSIONS];
        for session in &mut self.sessions {
            session.run("SET lock_timeout = '20ms'");
        }
    }

    fn table(&mut self) -> String {
        format!("t{}", self.random.below(TABLES))
    }

    /// A statement that changes rows.
    fn write(&mut self) -> String {
        let (table, from) = (self.table(), self.random.below(1000));
        let (n, some) = (self.random.below(9) + 1, self.random.below(1_000_000));
        match self.random.below(12) {
            0 | 1 => format!(
                "INSERT INTO {table} (k, v, mood) SELECT {some}, repeat('n{some}', 20), 'bad' FROM generate_series(1, {n})"
            ),
            // Without an index on k this is HOT, where the page has room.
            2 | 3 => format!("UPDATE {table} SET k = {some} WHERE id BETWEEN {from} AND {from} + {n}"),
            4 => format!(
                "UPDATE {table} SET v = repeat('u{some}', {n} * 10) WHERE id BETWEEN {from} AND {from} + {n}"
            ),
            5 => format!("DELETE FROM {table} WHERE id BETWEEN {from} AND {from} + {n}"),
            6 => format!("UPDATE long SET v = repeat('t{some} ', 900) WHERE id = {}", self.random.below(60)),
            7 => format!(
                "SELECT count(*) FROM (SELECT FROM {table} WHERE id BETWEEN {from} AND {from} + {n} FOR SHARE) x"
            ),
            8 => format!(
                "SELECT count(*) FROM (SELECT FROM {table} WHERE id BETWEEN {from} AND {from} + {n} FOR UPDATE) x"
            ),
            9 => format!("INSERT INTO parts SELECT {some} % 1000, 'new {some}'"),
            10 => format!("UPDATE parts SET v = 'p{some}' WHERE id = {from}"),
            _ => format!("UPDATE {table} SET id = nextval('{table}_id_seq') WHERE id = {from}"),
        }
    }

    /// One step of one session. What fails (a lock of another one, a transaction that is aborted) fails: that is history too.
    fn step(&mut self) {
        let at = self.random.below(SESSIONS);
        let sql = match (self.open[at], self.random.below(14)) {
            (false, 0..=5) => "BEGIN".to_owned(),
            (false, _) => self.write(),
            (true, 0..=5) => self.write(),
            (true, 6 | 7) => "SAVEPOINT s".to_owned(),
            (true, 8) => "ROLLBACK TO s".to_owned(),
            (true, 9) => "RELEASE s".to_owned(),
            (true, 10) => {
                self.made += 1;
                format!("PREPARE TRANSACTION 'p{}'", self.made)
            }
            (true, 11) => "ROLLBACK".to_owned(),
            (true, _) => "COMMIT".to_owned(),
        };
        let _ = self.sessions[at].try_run(&sql);
        match sql.split(' ').next().unwrap() {
            "BEGIN" => self.open[at] = true,
            "COMMIT" => self.open[at] = false,
            "ROLLBACK" if sql == "ROLLBACK" => self.open[at] = false,
            // A transaction that can't be prepared is rolled back.
            "PREPARE" => self.open[at] = false,
            _ => {}
        }
    }

    /// Something that is not a transaction's change of rows; it gives way to whoever has a lock.
    fn upheaval(&mut self) {
        let (table, n) = (self.table(), self.random.below(1_000_000));
        let sql = match self.random.below(26) {
            0 | 1 => format!("VACUUM {table}"),
            2 => format!("VACUUM (FREEZE) {table}"),
            3 => format!("VACUUM FULL {table}"),
            4 => format!("CLUSTER {table} USING {table}_pkey"),
            5 => format!("TRUNCATE {table}; INSERT INTO {table} (k, v) SELECT i, 'again' FROM generate_series(1, 300) i"),
            6 | 22..=25 => format!("ALTER TABLE {table} ADD COLUMN c{n} text DEFAULT 'd{n}'"),
            7 => format!("ALTER TABLE {table} DROP COLUMN IF EXISTS v, ADD COLUMN v text"),
            8 => format!("ALTER TYPE mood RENAME VALUE 'so so' TO 'm{n}'; ALTER TYPE mood RENAME VALUE 'm{n}' TO 'so so'"),
            9 => format!("ALTER TYPE mood RENAME VALUE 'good' TO 'bad{n}'; ALTER TYPE mood RENAME VALUE 'bad' TO 'good';
                          ALTER TYPE mood RENAME VALUE 'bad{n}' TO 'bad'"),
            10 => format!("ALTER TYPE mood ADD VALUE 'm{n}'; UPDATE {table} SET mood = 'm{n}' WHERE id = {}", n % 900),
            11 => format!("BEGIN; DROP TABLE {table}; {} COMMIT", TABLE.replace("$T", &table)),
            12 => format!("CREATE TABLE parts_{n} (id int, v text); INSERT INTO parts_{n} SELECT {n} * 1000, 'attached';
                           ALTER TABLE parts ATTACH PARTITION parts_{n} FOR VALUES FROM ({n}000) TO ({n}999)"),
            13 => format!("ALTER TABLE {table} ALTER k TYPE bigint; ALTER TABLE {table} ALTER k TYPE int USING k % 1000000"),
            // The end of the table, which vacuum then cuts off.
            14 | 15 => format!("DELETE FROM {table} WHERE ctid >= '({},0)'; VACUUM {table}", 4 + n % 20),
            16 => format!("UPDATE {table} SET k = k + 1"),
            // Nothing of this stays but the file that it wrote to.
            17 => format!("BEGIN; TRUNCATE {table}; INSERT INTO {table} (k) VALUES (1); ROLLBACK"),
            18 => format!("CREATE INDEX ON {table} (k)"),
            19 => "VACUUM FULL".to_owned(),
            20 => {
                self.crash();
                return;
            }
            _ => "CHECKPOINT".to_owned(),
        };
        let _ = self.database.try_psql(&format!("SET lock_timeout = '20ms'; {sql}"));
    }

    /// The server recovers; commits that were not written to its log yet are lost, and prepared transactions stay.
    fn crash(&mut self) {
        let _ = self.sessions[0].try_run("ROLLBACK");
        let pid = self.sessions[0].backend_pid().to_string();
        assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        let started = std::time::Instant::now();
        // Every other session ends too, once the server has noticed.
        while !self.sessions[1].try_run("SELECT 1").unwrap_or_else(|error| error).contains("psql ended") {
            assert!(started.elapsed().as_secs() < 60, "the server did not notice");
        }
        self.sessions.clear();
        while self.database.try_psql("SELECT 1").is_err() {
            assert!(started.elapsed().as_secs() < 60, "the server did not come back");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.connect();
    }

    fn prepared(&self) -> Vec<String> {
        let gids = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1";
        self.database.psql(gids).lines().map(str::to_owned).collect()
    }

    fn round(&mut self) {
        for _ in 0..4 + self.random.below(12) {
            self.step();
        }
        // A checkpoint parts what was written before from what is committed after.
        if self.random.one_in(2) {
            self.database.cluster().psql("CHECKPOINT");
        }
        // What changes definitions gives way to locks: now and then there are none.
        if self.random.one_in(3) {
            for (session, open) in self.sessions.iter_mut().zip(&mut self.open) {
                let _ = session.try_run("COMMIT");
                *open = false;
            }
        }
        for _ in 0..[0, 0, 1, 1, 2][self.random.below(5)] {
            self.upheaval();
        }
        for _ in 0..self.random.below(6) {
            self.step();
        }
        let prepared = self.prepared();
        if !prepared.is_empty() && self.random.one_in(2) {
            let gid = &prepared[self.random.below(prepared.len())];
            let what = if self.random.one_in(3) { "ROLLBACK" } else { "COMMIT" };
            self.database.psql(&format!("{what} PREPARED '{gid}'"));
        }
    }

    /// Ends everything, so that the database can be restored elsewhere and dropped.
    fn end(&mut self) {
        self.sessions.clear();
        for gid in self.prepared() {
            self.database.psql(&format!("ROLLBACK PREPARED '{gid}'"));
        }
    }
}

/// Rows, text length and content hash of every table.
fn content(snapshots: &Snapshots, id: &str) -> BTreeMap<String, (u64, u64, u128)> {
    let manifest: serde_json::Value = serde_json::from_str(&snapshots.manifest(id)).unwrap();
    let mut all = BTreeMap::new();
    for table in manifest["snapshot"]["tables"].as_array().unwrap() {
        let sum = all.entry(table["name"].to_string()).or_insert((0, 0, 0u128));
        for chunk in table["chunks"].as_array().unwrap() {
            let hash = u128::from_str_radix(chunk["row_hash"].as_str().unwrap(), 16).unwrap();
            sum.0 += chunk["rows"].as_u64().unwrap();
            sum.1 += chunk["raw_bytes"].as_u64().unwrap();
            sum.2 = sum.2.wrapping_add(hash);
        }
    }
    all
}

fn reading(snapshots: &Snapshots, id: &str) -> (u64, u64) {
    let (chunks, read, _) = reading_in_part(snapshots, id);
    (chunks, read)
}

/// Chunks, those that were read, and those of which only some pieces were.
fn reading_in_part(snapshots: &Snapshots, id: &str) -> (u64, u64, u64) {
    let manifest: serde_json::Value = serde_json::from_str(&snapshots.manifest(id)).unwrap();
    let reading = &manifest["snapshot"]["reading"];
    let number = |name: &str| reading[name].as_u64().unwrap();
    (number("chunks"), number("chunks_read"), number("chunks_in_part"))
}

/// Whole chunks that are taken over or not, and chunks of several pieces.
const CUTS: [[&str; 4]; 2] =
    [["--chunk-blocks", "2", "--piece-blocks", "2"], ["--chunk-blocks", "8", "--piece-blocks", "1"]];

/// One history. Returns how many chunks there were in all its snapshots, how many were read, and how many in part.
fn history(cluster: &Cluster, seed: u64, cut: &[&str], look_closely: bool) -> (u64, u64, u64) {
    let mut world = World::new(cluster, seed);
    let (own, full) = (Snapshots::new(), Snapshots::new());
    let (mut chunks, mut read, mut in_part) = (0, 0, 0);
    // Before any transaction that may stay open: there is a base from the beginning.
    own.create(&world.database, cut);
    for round in 0..ROUNDS {
        world.round();
        let id = own.create(&world.database, &[cut, &["--lock-retries", "0"]].concat());
        // A full one among those to build on, now and then.
        let beside = if world.random.one_in(4) { &own } else { &full };
        let other = beside.create(&world.database, &[cut, &["--full"]].concat());
        assert_eq!(
            content(&own, &id),
            content(beside, &other),
            "seed {seed}, PostgreSQL {}, round {round}: {id} is not what there is",
            cluster.major()
        );
        let counts = reading_in_part(&own, &id);
        (chunks, read, in_part) = (chunks + counts.0, read + counts.1, in_part + counts.2);
        if look_closely && round % 4 == 3 {
            let copy = own.restore_copy(&world.database, &[]);
            fingerprint(&world.database).assert_same(&tests::oracle::fingerprint_without(&copy, &[]));
        }
    }
    world.end();
    own.run_offline("backup", &["verify", "--all"]).expect(0);
    if look_closely {
        own.run("backup", &world.database.url(), &["drill"]).expect(0);
    }
    (chunks, read, in_part)
}

fn histories(major: u32, seeds: std::ops::Range<u64>) {
    let cluster = server(major);
    let more: u64 = std::env::var("SAFE_RUN_INCREMENTAL_SEEDS")
        .map_or(0, |count| count.parse().expect("a number of seeds"));
    let first = seeds.start;
    for (cut, comes_in_part) in CUTS.iter().zip([false, true]) {
        let mut all = (0, 0, 0);
        for seed in seeds.clone().chain((0..more).map(|n| 1000 * u64::from(major) + n)) {
            let (chunks, read, in_part) = history(&cluster, seed, cut, seed == first);
            println!(
                "seed {seed}, PostgreSQL {major}, {cut:?}: {read} of {chunks} chunks read, {in_part} in part"
            );
            all = (all.0 + chunks, all.1 + read, all.2 + in_part);
        }
        // A test in which everything is read, or nothing in part, proves nothing.
        assert!((all.1 - all.2) * 10 < all.0 * 8, "{all:?}");
        assert_eq!(all.2 > 0, comes_in_part, "{all:?}");
    }
}

#[test]
fn what_is_taken_over_is_what_a_full_snapshot_reads_on_17() {
    histories(17, 1..2);
}

#[test]
fn what_is_taken_over_is_what_a_full_snapshot_reads_on_18() {
    histories(18, 2..3);
}

#[test]
fn what_is_taken_over_is_what_a_full_snapshot_reads_postgresql_19() {
    histories(19, 3..4);
}

fn create(snapshots: &Snapshots, database: &Database, arguments: &[&str]) -> (String, Outcome) {
    let arguments = [&["create", "--chunk-blocks", "8"], arguments].concat();
    let outcome = snapshots.run("backup", &database.url(), &arguments).expect(0);
    (outcome.stdout.trim().to_owned(), outcome)
}

const PLAIN: &str = "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i;
    VACUUM (FREEZE) t; CHECKPOINT;";

#[test]
fn a_row_written_before_the_base_and_committed_after_it_is_not_missed() {
    let cluster = server(18);
    let database = cluster.fresh_database("late");
    database.psql(PLAIN);
    let snapshots = Snapshots::new();
    create(&snapshots, &database, &[]);
    // The newest transaction of all: a snapshot's xmax is its id, while it writes.
    let mut late = database.session();
    late.run("BEGIN; INSERT INTO t VALUES (-1, 'late')");
    database.psql("CHECKPOINT");
    create(&snapshots, &database, &[]);
    let fresh = Snapshots::new();
    let (_, first) = create(&fresh, &database, &[]);
    first.says(&["the next backup will read everything: a transaction that is in progress began before"]);
    late.run("COMMIT");
    for snapshots in [&snapshots, &fresh] {
        let (id, _) = create(snapshots, &database, &[]);
        assert_eq!(content(snapshots, &id).values().map(|table| table.0).collect::<Vec<_>>(), [5001]);
    }
    // With a base, the open transaction cost no more than its own block.
    let (id, outcome) = create(&snapshots, &database, &[]);
    outcome.says(&["chunks, reused"]);
    assert!(reading(&snapshots, &id).1 <= 1, "{:?}", reading(&snapshots, &id));
    psql::run(&database.url(), "SELECT 1");
}

/// Whoever wrote its manifest could name any server and any place in its log.
#[test]
fn a_snapshot_that_was_made_elsewhere_does_not_tell_what_has_not_changed() {
    let cluster = server(18);
    let database = cluster.fresh_database("elsewhere");
    database.psql(PLAIN);
    let (there, here) = (Snapshots::new(), Snapshots::new());
    let (id, _) = create(&there, &database, &[]);
    let archive = there.path().with_file_name("one.tar");
    let archive = archive.to_str().unwrap();
    there.run_offline("backup", &["export", &id, "-o", archive]).expect(0);
    here.run_offline("backup", &["import", archive]).expect(0);
    let (new, _) = create(&here, &database, &[]);
    let (chunks, read) = reading(&here, &new);
    assert_eq!((chunks, read > 0), (read, true), "an imported snapshot is believed");
    for snapshots in [&there, &here] {
        let (next, _) = create(snapshots, &database, &[]);
        assert_eq!(reading(snapshots, &next), (chunks, 0), "a snapshot of its own is not believed");
    }
}

#[test]
fn a_table_of_long_rows_is_cut_by_what_it_stores_out_of_line_and_read_where_it_changed() {
    let cluster = server(18);
    let database = cluster.fresh_database("documents");
    database.psql(
        "CREATE TABLE documents (id int PRIMARY KEY, body text); ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
         INSERT INTO documents SELECT i, repeat('body ' || i, 300) FROM generate_series(1, 4000) i;
         CREATE TABLE plain AS SELECT i, repeat('x', 100) AS v FROM generate_series(1, 4000) i;
         VACUUM (FREEZE); CHECKPOINT",
    );
    let blocks: u64 =
        database.psql("SELECT pg_relation_size('documents') / 8192").parse().expect("a number of blocks");
    let snapshots = Snapshots::new();
    let small = &["--chunk-blocks", "128"];
    let first = snapshots.create(&database, small);
    // The plain table is one chunk; the other is cut where its rows come to about as much.
    let (all, _) = reading(&snapshots, &first);
    assert!(all >= 4 && all <= 1 + blocks, "{all} chunks of {blocks} blocks");
    database.psql("UPDATE documents SET body = 'short' WHERE id = 2000; CHECKPOINT");
    let second = snapshots.create(&database, small);
    let (now, read) = reading(&snapshots, &second);
    // Some pages were written; the others are those of the first snapshot.
    assert!(read >= 1 && read * 2 < now, "{read} of {now} chunks were read");
    let full = Snapshots::new();
    let whole = full.create(&database, &[small, &["--full"][..]].concat());
    assert_eq!(content(&snapshots, &second), content(&full, &whole));
    let copy = snapshots.restore_copy(&database, &[]);
    fingerprint(&database).assert_same(&tests::oracle::fingerprint_without(&copy, &[]));
    // Rows of another kind have other borders: then they are read.
    database.psql("UPDATE documents SET body = 'short'; VACUUM FULL documents; CHECKPOINT");
    let third = snapshots.create(&database, small);
    let whole = full.create(&database, &[small, &["--full"][..]].concat());
    assert_eq!(content(&snapshots, &third), content(&full, &whole));
}
