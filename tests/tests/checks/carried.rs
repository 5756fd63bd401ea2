//! Answers from before the fence: a pass that takes them over finds exactly what a whole pass finds, whatever others did in
//! between.
//!
//! `SAFE_RUN_CARRIED_SEEDS=200` tries so many seeds, of 4 rounds each.

use std::collections::BTreeSet;
use std::sync::Arc;

use checks::carried::{Beginning, FirstPass, FirstState};
use common::postgres::wal_summary::{self, Point};
use tests::{Options as ClusterOptions, Session};

use super::*;

const ROUNDS: usize = 4;
const SESSIONS: usize = 3;
const TABLES: usize = 5;

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
}

/// Without checksums: with them the server logs pages for hint bits too, and a table that is read again for that hides one that
/// should have been.
fn server(major: u32) -> Cluster {
    let mut options = ClusterOptions::new()
        .conf("summarize_wal = on")
        .conf("autovacuum = off")
        .conf("max_prepared_transactions = 5");
    if major >= 18 {
        options = options.initdb(&["--no-locale", "--auth=trust", "--no-data-checksums"]);
    }
    Cluster::start(major, &options)
}

/// Tables that refer to each other in a ring, with every kind of rule; and rules whose answer is not in their own table.
const RULES: &str = "
CREATE SCHEMA other; CREATE TYPE mood AS ENUM ('good', 'so so', 'bad'); CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN short AS text CHECK (length(VALUE) < 9); CREATE DOMAIN counted AS int NOT NULL CHECK (VALUE >= 0);
CREATE DOMAIN shorts AS short[];
CREATE TABLE allowed (v int); INSERT INTO allowed SELECT generate_series(0, 30);
CREATE FUNCTION is_allowed(v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
 $$ BEGIN RETURN EXISTS (SELECT FROM public.allowed a WHERE a.v = is_allowed.v); END $$;
CREATE FUNCTION floor_of() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
CREATE TABLE watched (id int PRIMARY KEY, v int CHECK (is_allowed(v)), w int CHECK (w >= floor_of()), at timestamptz CHECK (at < now()),
  deep shorts, d date CHECK (d::text < '9'));
INSERT INTO watched SELECT i, i % 20, i, now() - i * interval '1 ms', ARRAY['a', 'b'], '2020-01-01' FROM generate_series(1, 40) i;
CREATE TABLE parts (id int, v text NOT NULL, n counted, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE TABLE part_3 (id int NOT NULL, v text NOT NULL, n counted, PRIMARY KEY (id));
INSERT INTO parts SELECT i, 'part', i FROM generate_series(1, 199) i; INSERT INTO part_3 SELECT i, 'p', i FROM generate_series(200, 220) i;
CREATE TABLE of_parts (id int PRIMARY KEY, part int REFERENCES parts);
INSERT INTO of_parts SELECT i, i FROM generate_series(1, 150) i;
CREATE TABLE room (id int, during int4range, EXCLUDE USING gist (during WITH &&));
INSERT INTO room SELECT i, int4range(i * 10, i * 10 + 9) FROM generate_series(1, 30) i;
CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY); INSERT INTO fleeting VALUES (1);
CREATE MATERIALIZED VIEW seen AS SELECT id FROM room; CREATE UNIQUE INDEX ON seen (id);";

const TABLE: &str = "CREATE TABLE $T (id int PRIMARY KEY, next int, k int NOT NULL CHECK (k < 1000000), v text COLLATE \"C\" CHECK (v <> 'never' AND v < '~'),
  s short, m mood, c counted, long text CHECK (length(long) < 100000), p pair, UNIQUE (k, v));
 ALTER TABLE $T ALTER long SET STORAGE EXTERNAL; CREATE UNIQUE INDEX ON $T (lower(v), id) WHERE k > 10;
 INSERT INTO $T SELECT i, i, i, 'v' || i, 's', 'bad', i, CASE WHEN i % 20 = 0 THEN repeat('long', 3000) END, ROW(i, 'x')::pair FROM generate_series(1, 300) i;";

/// A history in the making.
struct World<'c> {
    fresh: tests::Database<'c>,
    random: Random,
    sessions: Vec<Session>,
    open: Vec<bool>,
    made: usize,
}

impl<'c> World<'c> {
    fn new(cluster: &'c Cluster, seed: u64) -> World<'c> {
        let fresh = cluster.fresh_database("carried");
        let create: Vec<String> = (0..TABLES).map(|n| TABLE.replace("$T", &format!("t{n}"))).collect();
        let keys: Vec<String> = (0..TABLES)
            .map(|n| {
                format!(
                    "ALTER TABLE t{n} ADD CONSTRAINT next FOREIGN KEY (next) REFERENCES t{}",
                    (n + 1) % TABLES
                )
            })
            .collect();
        fresh.psql(&format!("{RULES}; {}; {}; VACUUM (FREEZE)", create.concat(), keys.join("; ")));
        let sessions = (0..SESSIONS)
            .map(|_| {
                let mut session = fresh.session();
                session.run("SET lock_timeout = '20ms'");
                session
            })
            .collect();
        World { fresh, random: Random(seed), sessions, open: vec![false; SESSIONS], made: 0 }
    }

    /// A statement that changes rows; some leave a violation behind.
    fn write(&mut self) -> String {
        self.made += 1;
        let (made, table, from) = (self.made + 1000, self.random.below(TABLES), self.random.below(290));
        let past = |sql: String| {
            format!("SET session_replication_role = replica; {sql}; SET session_replication_role = origin")
        };
        match self.random.below(14) {
            0 | 1 => format!("INSERT INTO t{table} (id, k, v, c) VALUES ({made}, {made}, 'n', 1)"),
            2 | 3 => format!("UPDATE t{table} SET v = 'u{made}' WHERE id BETWEEN {from} AND {from} + 3"),
            4 => past(format!("DELETE FROM t{table} WHERE id = {from}")),
            5 => past(format!(
                "INSERT INTO t{table} (id, next, k, v, c) VALUES ({made}, {made}, {made}, 'orphan', 1)"
            )),
            6 => format!("UPDATE t{table} SET long = repeat('x', 9000) WHERE id = {from}"),
            7 => past(format!("DELETE FROM parts WHERE id = {}", from % 200)),
            8 => format!("INSERT INTO of_parts VALUES ({made}, NULL)"),
            9 => format!("INSERT INTO room VALUES ({made}, int4range({made} * 10, {made} * 10 + 1))"),
            10 => format!("DELETE FROM allowed WHERE v = {}", from % 20),
            11 => format!("INSERT INTO watched (id, v, w) VALUES ({made}, 1, 5)"),
            12 => format!("UPDATE part_3 SET n = n + 1 WHERE id = 200 + {}", from % 20),
            _ => format!("INSERT INTO fleeting VALUES ({made})"),
        }
    }

    /// A statement that is about the tables themselves, or makes a violation that no writer could.
    fn define(&mut self) -> String {
        self.made += 1;
        let (made, table, from) = (self.made + 1000, self.random.below(TABLES), self.random.below(290));
        let t = format!("t{table}");
        let unseen = |index: &str, sql: String| {
            format!(
                "UPDATE pg_index SET indisready = false WHERE indexrelid = '{index}'::regclass; {sql};
                 UPDATE pg_index SET indisready = true WHERE indexrelid = '{index}'::regclass"
            )
        };
        match self.random.below(25) {
            0 => format!("VACUUM (FREEZE) {t}"),
            1 => format!("VACUUM FULL {t}"),
            2 => format!("REINDEX TABLE {t}"),
            3 => format!("ANALYZE {t}"),
            4 => unseen(&format!("{t}_k_v_key"), format!("INSERT INTO {t} (id, k, v, c) SELECT {made}, k, v, 1 FROM {t} WHERE id = {from}")),
            5 => format!(
                "ALTER TABLE {t} DROP CONSTRAINT {t}_k_check; INSERT INTO {t} (id, k, v, c) VALUES ({made}, 1000000 + {made}, 'big', 1);
                 ALTER TABLE {t} ADD CONSTRAINT {t}_k_check CHECK (k < 1000000) NOT VALID"
            ),
            6 => format!(
                "UPDATE pg_attribute SET attnotnull = false WHERE attrelid = '{t}'::regclass AND attname = 'k';
                 INSERT INTO {t} (id, v, c) VALUES ({made}, 'null', 1);
                 UPDATE pg_attribute SET attnotnull = true WHERE attrelid = '{t}'::regclass AND attname = 'k'"
            ),
            7 => "ALTER DOMAIN short DROP CONSTRAINT short_check; ALTER DOMAIN short ADD CHECK (length(VALUE) < 1) NOT VALID".to_owned(),
            8 => "ALTER DOMAIN short DROP CONSTRAINT short_check; ALTER DOMAIN short ADD CHECK (length(VALUE) < 9) NOT VALID".to_owned(),
            9 => format!("CREATE OR REPLACE FUNCTION floor_of() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT {}'", from % 40),
            10 => format!("ALTER TABLE {t} RENAME TO away; ALTER TABLE away RENAME TO {t}"),
            11 => format!("ALTER TABLE {t} RENAME k TO kk; ALTER TABLE {t} RENAME kk TO k"),
            12 => "ALTER TABLE parts DETACH PARTITION parts_2".to_owned(),
            13 => "ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200)".to_owned(),
            14 => "ALTER TABLE parts ATTACH PARTITION part_3 FOR VALUES FROM (200) TO (300)".to_owned(),
            15 => format!("ALTER TABLE {t} ADD COLUMN more_{made} int NOT NULL DEFAULT 7"),
            16 => format!("ALTER TABLE {t} ALTER v TYPE text COLLATE \"{}\"", ["C", "POSIX", "default"][from % 3]),
            17 => format!("ALTER TABLE {t} DISABLE TRIGGER ALL"),
            18 => format!("ALTER TABLE {t} SET SCHEMA other; ALTER TABLE other.{t} SET SCHEMA public"),
            19 => "ALTER TYPE mood RENAME VALUE 'bad' TO 'worse'".to_owned(),
            20 => unseen("room_during_excl", format!("INSERT INTO room VALUES ({made}, '[10,15)')")),
            21 => format!("ALTER TABLE {t} DROP CONSTRAINT next; ALTER TABLE {t} ADD CONSTRAINT next FOREIGN KEY (next) REFERENCES t{} NOT VALID", from % TABLES),
            22 => "REFRESH MATERIALIZED VIEW seen".to_owned(),
            23 => "ALTER SCHEMA other RENAME TO another; ALTER SCHEMA another RENAME TO other".to_owned(),
            _ => "UPDATE watched SET deep = ARRAY['c'] WHERE id = 1".to_owned(),
        }
    }

    /// What others do for a while. Errors (locks that others hold, a constraint) are part of it.
    fn happen(&mut self) {
        for _ in 0..self.random.below(5) {
            let number = self.random.below(SESSIONS);
            let sql = match (self.open[number], self.random.below(8)) {
                (false, 0 | 1) => {
                    self.open[number] = true;
                    "BEGIN".to_owned()
                }
                (true, 0..=2) => {
                    self.open[number] = false;
                    "COMMIT".to_owned()
                }
                (true, 3) => {
                    self.open[number] = false;
                    "ROLLBACK".to_owned()
                }
                (false, 2 | 3) => self.define(),
                _ => self.write(),
            };
            let _ = self.sessions[number].try_run(&sql);
        }
    }
}

async fn at_snapshot(config: &Config, id: &str) -> Client {
    let client = connect(config).await;
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{id}'");
    client.batch_execute(&begin).await.unwrap();
    client
}

/// A session that locked every table and exported a snapshot, and its id.
async fn export(config: &Config) -> (Client, String) {
    let holder = connect(config).await;
    let lock = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '10s';
        DO $$ DECLARE name text; BEGIN FOR name IN SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384
          LOOP EXECUTE 'LOCK TABLE ONLY ' || name || ' IN ACCESS SHARE MODE'; END LOOP; END $$";
    holder.batch_execute(lock).await.unwrap();
    let id = holder.query_one("SELECT pg_export_snapshot()", &[]).await.unwrap().get(0);
    (holder, id)
}

/// A first pass; `meanwhile` happens after its snapshot and before it reads a row.
async fn first_pass(
    config: &Config,
    outside: &Client,
    points: &[Point],
    level: Level,
    meanwhile: impl FnOnce(),
) -> Result<(FirstPass, FirstState), String> {
    let (holder, id) = export(config).await;
    let reader = at_snapshot(config, &id).await;
    let beginning = Beginning::read(&reader, points).await.unwrap()?;
    meanwhile();
    let options = Options { is_first: true, level, ..Options::default() };
    let results = run(&holder, &options).await.unwrap();
    drop(holder);
    let ended = beginning.end(outside, results).await.unwrap();
    ended.map(|first| (first, Box::new(Box::new(reader)) as FirstState))
}

/// Without what only says how the results were come by.
fn findings_of(mut results: CheckResults) -> CheckResults {
    results.took.clear();
    results.carried_rules.clear();
    results.changed_rules.clear();
    results.carried_rows.clear();
    results
}

/// What happened over all seeds: a test in which nothing was carried, or nothing was found, would prove nothing.
#[derive(Default, Debug)]
struct Seen {
    carried: BTreeSet<CheckKind>,
    findings_carried: BTreeSet<CheckKind>,
    by_changed_rows: BTreeSet<CheckKind>,
    asked_again: BTreeSet<CheckKind>,
    whys: BTreeSet<String>,
    rounds: usize,
}

async fn is_the_same(cluster: &Cluster, seed: u64, seen: &mut Seen) {
    let mut world = World::new(cluster, seed);
    let config: Config = world.fresh.url().parse().unwrap();
    let outside = connect(&config).await;
    for round in 0..ROUNDS {
        let level = if world.random.below(4) == 0 { Level::Deep } else { Level::Standard };
        world.happen();
        assert_eq!(wal_summary::settle(&outside).await.unwrap(), None);
        let mut points = vec![wal_summary::point(&outside).await.unwrap()];
        world.happen();
        points.push(wal_summary::point(&outside).await.unwrap());
        let first = first_pass(&config, &outside, &points, level, || world.happen()).await;
        world.happen();
        let (whole, id) = export(&config).await;
        world.happen();
        let (first, state) = match first {
            Ok(first) => first,
            Err(why) => {
                seen.whys.insert(why);
                continue;
            }
        };
        let reader = at_snapshot(&config, &id).await;
        let state = (world.random.below(4) > 0).then_some(state);
        let carried = match first.hold_against(&reader, &outside, state).await.unwrap() {
            Ok(carried) => Arc::new(carried),
            Err(why) => {
                seen.whys.insert(why);
                continue;
            }
        };
        drop(reader);
        // Whoever is in the middle of something ends it: the checks would wait for his locks.
        for (session, open) in world.sessions.iter_mut().zip(&mut world.open) {
            let _ = session.try_run("COMMIT");
            *open = false;
        }
        let options = Options { level, skip: vec![CheckKind::Structure], ..Options::default() };
        let expected = run(&whole, &options).await.unwrap();
        let found = run(&whole, &Options { carried: Some(carried), ..options }).await.unwrap();
        seen.rounds += 1;
        seen.carried.extend(found.carried_rules.iter().map(|key| key.check));
        seen.by_changed_rows.extend(found.changed_rules.iter().map(|key| key.check));
        let is_over = |key| found.carried_rules.contains(key) || found.changed_rules.contains(key);
        let again = found.rules.iter().filter(|(key, rule)| rule.ran && !is_over(key));
        seen.asked_again.extend(again.map(|(key, _)| key.check));
        let findings = found.findings.iter().filter(|finding| found.carried_rules.contains(&finding.key));
        seen.findings_carried.extend(findings.map(|finding| finding.key.check));
        assert_eq!(findings_of(found), findings_of(expected), "seed {seed}, round {round}");
    }
}

async fn random_histories(major: u32) {
    let cluster = server(major);
    let seeds = std::env::var("SAFE_RUN_CARRIED_SEEDS").map_or(12, |seeds| seeds.parse().unwrap());
    let mut seen = Seen::default();
    for seed in 1..=seeds {
        is_the_same(&cluster, seed + u64::from(major) * 1_000_000, &mut seen).await;
    }
    eprintln!("{seen:?}");
    assert!(seen.rounds > usize::try_from(seeds).unwrap() * ROUNDS / 3, "{seen:?}");
    let by_changed_rows =
        [CheckKind::ForeignKeys, CheckKind::Unique, CheckKind::Check, CheckKind::NotNull, CheckKind::Domains];
    assert!(by_changed_rows.iter().all(|kind| seen.by_changed_rows.contains(kind)), "{seen:?}");
    for kind in [
        CheckKind::ForeignKeys,
        CheckKind::Check,
        CheckKind::NotNull,
        CheckKind::Domains,
        CheckKind::Unique,
        CheckKind::Partitions,
    ] {
        assert!(seen.carried.contains(&kind) && seen.asked_again.contains(&kind), "{kind}: {seen:?}");
    }
    assert!(seen.findings_carried.contains(&CheckKind::ForeignKeys), "{seen:?}");
}

#[tokio::test]
async fn a_pass_that_takes_answers_over_finds_what_a_whole_pass_finds_on_17() {
    random_histories(17).await;
}

#[tokio::test]
async fn a_pass_that_takes_answers_over_finds_what_a_whole_pass_finds_on_18() {
    random_histories(18).await;
}

/// Nothing changes between the two passes, so that only what a rule calls decides.
#[tokio::test]
async fn rules_that_call_more_than_postgresql_brings_as_immutable_are_asked_again() {
    for major in [17, 18] {
        let cluster = server(major);
        let fresh = cluster.fresh_database("carried");
        let config: Config = fresh.url().parse().unwrap();
        let outside = connect(&config).await;
        fresh.psql(&format!("{RULES}; {}", TABLE.replace("$T", "t0")));
        fresh.psql("CREATE UNIQUE INDEX watched_floor ON watched ((id + floor_of())); CREATE TABLE plain (id int PRIMARY KEY)");
        assert_eq!(wal_summary::settle(&outside).await.unwrap(), None);
        let points = [wal_summary::point(&outside).await.unwrap()];
        let (first, _) = first_pass(&config, &outside, &points, Level::Deep, || ()).await.unwrap();
        let (holder, id) = export(&config).await;
        let reader = at_snapshot(&config, &id).await;
        let carried = Arc::new(first.hold_against(&reader, &outside, None).await.unwrap().unwrap());
        let options = Options {
            level: Level::Deep,
            skip: vec![CheckKind::Structure],
            carried: Some(carried),
            ..Options::default()
        };
        let results = run(&holder, &options).await.unwrap();
        let readers = [
            CheckKind::ForeignKeys,
            CheckKind::Check,
            CheckKind::NotNull,
            CheckKind::Domains,
            CheckKind::Unique,
            CheckKind::Exclude,
            CheckKind::Partitions,
        ];
        let mut again: Vec<String> = results
            .rules
            .keys()
            .filter(|key| readers.contains(&key.check) && !results.carried_rules.contains(key))
            .map(|key| format!("{} {} {}", key.check, results.tables[&key.object_oid].name.short(), key.rule))
            .collect();
        again.sort();
        assert_eq!(
            again,
            [
                "check watched watched_at_check",
                "check watched watched_d_check",
                "check watched watched_v_check",
                "check watched watched_w_check",
                "domains watched deep: type",
                "not-null fleeting id",
                "unique fleeting fleeting_pkey",
                "unique seen seen_id_idx",
                "unique watched watched_floor",
            ]
            .map(str::to_owned),
            "of {major}"
        );
        let counted: Vec<String> = results
            .rows
            .iter()
            .filter(|(oid, _)| !results.carried_rows.contains(oid))
            .map(|(_, rows)| rows.name.short())
            .collect();
        assert_eq!(counted, ["fleeting"].map(str::to_owned), "of {major}");
    }
}

/// Another idea of what is equal, and casts that are somebody's functions, may change any answer.
#[tokio::test]
async fn own_operator_classes_and_casts_of_postgresqls_types_are_trusted_with_nothing() {
    let cluster = server(18);
    for (sql, keys, others) in [
        (
            "CREATE FUNCTION box_cmp(box, box) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
             CREATE OPERATOR CLASS box_any DEFAULT FOR TYPE box USING btree AS OPERATOR 3 =, FUNCTION 1 box_cmp(box, box)",
            false,
            false,
        ),
        (
            "CREATE FUNCTION to_int(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE CAST (mood AS int) WITH FUNCTION to_int(mood) AS IMPLICIT",
            false,
            true,
        ),
        ("SELECT 1", true, true),
    ] {
        let fresh = cluster.fresh_database("carried");
        let config: Config = fresh.url().parse().unwrap();
        let outside = connect(&config).await;
        fresh.psql(&format!("{RULES}; {sql}"));
        assert_eq!(wal_summary::settle(&outside).await.unwrap(), None);
        let points = [wal_summary::point(&outside).await.unwrap()];
        let (first, _) = first_pass(&config, &outside, &points, Level::Standard, || ()).await.unwrap();
        let (holder, id) = export(&config).await;
        let reader = at_snapshot(&config, &id).await;
        let carried = Arc::new(first.hold_against(&reader, &outside, None).await.unwrap().unwrap());
        let results = run(&holder, &Options { carried: Some(carried), ..Options::default() }).await.unwrap();
        let took = |kind| results.carried_rules.iter().any(|key| key.check == kind);
        assert_eq!((took(CheckKind::ForeignKeys), took(CheckKind::NotNull)), (keys, others), "{sql}");
    }
}

/// Where the server does not tell, or can't, there is a reason and no error.
#[tokio::test]
async fn a_server_that_does_not_tell_what_changed_is_a_reason_to_ask_everything_again() {
    for (major, why) in [(14, "PostgreSQL 14 does not tell what changed"), (18, "summarize_wal is off")] {
        let fresh = Cluster::shared(major).fresh_database("carried");
        let config: Config = fresh.url().parse().unwrap();
        let outside = connect(&config).await;
        let said = first_pass(&config, &outside, &[], Level::Standard, || ()).await.err().unwrap();
        assert!(said.starts_with(why), "{said}");
    }
    let cluster = server(18);
    let fresh = cluster.fresh_database("carried");
    let config: Config = fresh.url().parse().unwrap();
    let outside = connect(&config).await;
    let mut writer = fresh.session();
    writer.run("BEGIN; CREATE TABLE mine (i int)");
    let points = [wal_summary::point(&outside).await.unwrap()];
    let said = first_pass(&config, &outside, &points, Level::Standard, || ()).await.err().unwrap();
    assert_eq!(said, "a transaction that was in progress began before this run");
}
