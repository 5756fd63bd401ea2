//! Extensions of others, as Debian has them for PostgreSQL 15: what `scripts/setup-tools` got.

use tests::{Cluster, Options, psql};

use super::{As, Case, Constellation, WRECKS, case, none};

/// What each brings that no other has: event triggers and rows of its own tables, sequences, functions in C, a database-wide state.
const EXTENSIONS: [Case; 5] = [
    case(
        "periods",
        "CREATE EXTENSION btree_gist; CREATE EXTENSION periods CASCADE;
         CREATE TABLE held (id int, s date, e date); ALTER TABLE held OWNER TO $OWNER; INSERT INTO held VALUES (1, '2020-01-01', '2021-01-01');
         SELECT periods.add_period('held', 'valid', 's', 'e'); SELECT periods.add_unique_key('held', ARRAY['id'], 'valid')",
    ),
    case(
        "pgq",
        "CREATE EXTENSION pgq; SELECT pgq.create_queue('q'); SELECT pgq.register_consumer('q', 'c');
         SELECT pgq.insert_event('q', 'kind', 'data'); SELECT pgq.force_tick('q'); SELECT pgq.ticker()",
    ),
    case(
        "postgis with topology",
        "CREATE EXTENSION postgis; CREATE EXTENSION postgis_topology;
         CREATE TABLE places (id int, at public.geometry(Point, 4326), area float8 GENERATED ALWAYS AS (public.st_x(at)) STORED);
         CREATE INDEX ON places USING gist (at); INSERT INTO places VALUES (1, public.ST_SetSRID(public.ST_MakePoint(1, 2), 4326));
         SELECT topology.CreateTopology('town', 4326); ALTER TABLE places OWNER TO $OWNER",
    ),
    case(
        "pg_partman",
        "CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman; CREATE TABLE days (id int, at date NOT NULL) PARTITION BY RANGE (at);
         SELECT partman.create_parent('public.days', 'at', 'native', 'monthly'); INSERT INTO days VALUES (1, CURRENT_DATE)",
    ),
    case(
        "the owner's part of an extension",
        "CREATE EXTENSION pgq; ALTER SCHEMA pgq OWNER TO $OWNER; GRANT ALL ON ALL TABLES IN SCHEMA pgq TO $OWNER;
         SELECT pgq.create_queue('q')",
    ),
];

fn undone_or_refused(case: &Case) {
    let cluster = Cluster::start(15, &Options::new().real_extensions());
    let made = Constellation::on(&cluster, case.sql);
    let mut faults = Vec::new();
    for (who, flags) in
        [(As::Superuser, &[][..]), (As::Owner, &[][..]), (As::Superuser, &["--snapshot", "clone"])]
    {
        let snapshots = made.run.folder().join("snapshots");
        if snapshots.exists() {
            std::fs::remove_dir_all(&snapshots).expect("the folder is ours");
        }
        match made.wreck(who, case.name, flags) {
            Ok((code, said)) if who == As::Superuser && code != 12 => faults.push(said),
            outcome => faults.extend(outcome.err()),
        }
    }
    none(&faults);
}

#[test]
fn real_extension_periods_is_undone_or_refused_before_anything() {
    undone_or_refused(&EXTENSIONS[0]);
}

#[test]
fn real_extension_pgq_is_undone_or_refused_before_anything() {
    undone_or_refused(&EXTENSIONS[1]);
}

#[test]
fn real_extension_postgis_with_topology_is_undone_or_refused_before_anything() {
    undone_or_refused(&EXTENSIONS[2]);
}

#[test]
fn real_extension_pg_partman_is_undone_or_refused_before_anything() {
    undone_or_refused(&EXTENSIONS[3]);
}

#[test]
fn real_extension_of_which_the_owner_has_a_part_is_undone_or_refused_before_anything() {
    undone_or_refused(&EXTENSIONS[4]);
}

/// Lets a database be dropped at the end of a test: until its supervisor is started again, everybody answers.
struct Answers<'c>(&'c Cluster);

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.0.psql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'pglogical supervisor'",
        );
    }
}

/// Its manager is a worker in the database, and its nodes are rows that nobody dumps.
#[test]
fn real_extension_pglogical_is_undone_or_refused_before_anything() {
    let options = Options::new()
        .real_extensions()
        .conf("shared_preload_libraries = 'pglogical'")
        .conf("wal_level = logical")
        .conf("max_worker_processes = 20");
    let cluster = Cluster::start(15, &options);
    let made = Constellation::on(
        &cluster,
        "CREATE EXTENSION pglogical; SELECT pglogical.create_node('n', 'host=/nowhere dbname=$DATABASE');
         SELECT pglogical.replication_set_add_table('default', 't')",
    );
    let _answers = Answers(&cluster);
    let workers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'pglogical' AND datname = '{}'",
        made.database().name()
    );
    tests::until("the manager is there", || cluster.psql(&workers) != "0");
    for who in [As::Superuser, As::Owner] {
        let (code, said) = made.wreck(who, "pglogical", &[]).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(code, 3, "{said}");
    }
    // Debian's 2.4.2 does not answer when a database is dropped: whoever tried would wait for ever.
    let (code, said) =
        made.wreck(As::Superuser, "pglogical", &["--end-workers"]).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("no database can be dropped on this server"), "{said}");
}

#[test]
fn real_extension_workers_are_not_ended_unasked_and_their_absence_is_told() {
    let options = Options::new()
        .real_extensions()
        .conf("shared_preload_libraries = 'pg_cron'")
        .conf("cron.database_name = 'held'")
        .conf("cron.use_background_workers = on")
        .conf("wal_level = logical");
    let cluster = Cluster::start(15, &options);
    cluster.psql("CREATE DATABASE held");
    let workers =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher' AND datname = 'held'";
    tests::until("the launcher is there", || cluster.psql(workers) == "1");
    let url = cluster.url("held");
    psql::run(
        &url,
        "CREATE EXTENSION pg_cron; CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 9)",
    );
    let folder = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let mut command = tests::binaries::command("safe-run");
        command.args([flags, &WRECKS].concat()).current_dir(folder.path()).env("DATABASE_URL", &url);
        tests::Running::start(command).outcome()
    };
    let before = tests::oracle::fingerprint_without(&url, &[]);
    // The extension can't be made in another database, so only a clone is an undo; that would end the launcher.
    drop(run(&[]).exits(3).says("pg_cron launcher").says("--end-workers"));
    drop(run(&["--snapshot", "clone"]).exits(3).says("--end-workers"));
    drop(run(&["--snapshot", "file"]).exits(3).says("cron.database_name"));
    drop(
        run(&["--fence", "exclusive", "--snapshot", "none", "--on-failure", "stop"])
            .exits(3)
            .says("--end-workers"),
    );
    assert_eq!(cluster.psql(workers), "1");
    before.assert_same(&tests::oracle::fingerprint_without(&url, &[]));
    drop(run(&["--end-workers"]).exits(12).says("did not come back: pg_cron launcher"));
    before.assert_same(&tests::oracle::fingerprint_without(&url, &[]));
}

/// As extensions do whose library has to be there when the server starts.
const NEEDS: &str = "DO $$ BEGIN IF current_setting('needs.loaded', true) IS NULL THEN
  RAISE EXCEPTION 'needs can only be loaded via shared_preload_libraries'; END IF; END $$;";

#[test]
fn an_extension_whose_preload_is_gone_leaves_the_clone_and_is_told_before_anything() {
    let control = "default_version = '1.0'\nrelocatable = false\nschema = public\n";
    let options = Options::new().extension(&[("needs.control", control), ("needs--1.0.sql", NEEDS)]);
    for major in [14, 18] {
        let cluster = Cluster::start(major, &options);
        let made = Constellation::on(&cluster, "SET needs.loaded = 'on'; CREATE EXTENSION needs");
        for (who, flags, wanted) in [
            (As::Superuser, &["--snapshot", "file"][..], 3),
            (As::Owner, &["--snapshot", "file"], 3),
            (As::Superuser, &[], 12),
            (As::Owner, &[], 12),
        ] {
            let (code, said) = made.wreck(who, "needs", flags).unwrap_or_else(|said| panic!("{said}"));
            assert_eq!(code, wanted, "{said}");
            if who == As::Superuser {
                assert!(said.contains("needs can only be loaded via shared_preload_libraries"), "{said}");
            }
        }
    }
}

const KEEPER: &str = "default_version = '1.0'\nrelocatable = false\nschema = keeper\n";

/// Tables with rows of its own, one of which is configuration in part; what else an extension has.
const KEEPER_SCRIPT: &str = "
CREATE TABLE brought (i int, v text); INSERT INTO brought VALUES (1, 'one'), (2, 'two');
CREATE TABLE conf (i int PRIMARY KEY, builtin bool DEFAULT false); INSERT INTO conf VALUES (1, true);
SELECT pg_catalog.pg_extension_config_dump('conf', 'WHERE NOT builtin');
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE VIEW seen AS SELECT i FROM brought;
CREATE SEQUENCE numbers; CREATE TYPE mood AS ENUM ('good');";

/// Rows of an extension that no snapshot holds: each is lost by an undo by file.
const ROWS_OF_EXTENSIONS: [(&str, &str); 5] = [
    ("keeper.brought", "INSERT INTO keeper.brought VALUES (3, 'mine')"),
    ("keeper.brought", "UPDATE keeper.brought SET v = 'changed' WHERE i = 1"),
    ("keeper.conf", "INSERT INTO keeper.conf VALUES (2, true), (3, false)"),
    ("own", "CREATE TABLE own AS SELECT generate_series(1, 40) i; ALTER EXTENSION keeper ADD TABLE own"),
    (
        "part",
        "CREATE TABLE parted (i int) PARTITION BY LIST (i); CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);
         INSERT INTO parted VALUES (1), (1); ALTER EXTENSION keeper ADD TABLE part; ALTER EXTENSION keeper ADD TABLE parted",
    ),
];

/// What of an extension is not as CREATE EXTENSION makes it, and how that is told.
const OBJECTS_OF_EXTENSIONS: [(&str, &str); 9] = [
    (
        "CREATE VIEW own AS SELECT 1 AS one; ALTER EXTENSION keeper ADD VIEW own",
        "the extension keeper: view public.own is not there",
    ),
    (
        "CREATE OR REPLACE FUNCTION keeper.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "function keeper.f() is defined otherwise",
    ),
    ("CREATE INDEX ON keeper.brought (i)", "table keeper.brought is defined otherwise"),
    (
        "CREATE TRIGGER always BEFORE UPDATE ON keeper.brought FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "table keeper.brought is defined otherwise",
    ),
    ("ALTER TABLE keeper.brought ALTER v SET DEFAULT 'x'", "table keeper.brought is defined otherwise"),
    ("CREATE TYPE own AS ENUM ('a'); ALTER EXTENSION keeper ADD TYPE own", "type public.own is not there"),
    ("ALTER TYPE keeper.mood ADD VALUE 'bad'", "type keeper.mood is defined otherwise"),
    (
        "CREATE SEQUENCE own; SELECT setval('own', 7); ALTER EXTENSION keeper ADD SEQUENCE own",
        // The first of two: its definition is the other.
        "sequence own of an extension stood at 7",
    ),
    ("COMMENT ON VIEW keeper.seen IS 'seen'", "view keeper.seen is defined otherwise"),
];

fn keeper(major: u32) -> Cluster {
    let files = [("keeper.control", KEEPER), ("keeper--1.0.sql", KEEPER_SCRIPT)];
    Cluster::start(major, &Options::new().extension(&files))
}

fn wreck_of(made: &Constellation, flags: &[&str]) -> (i32, String) {
    let snapshots = made.run.folder().join("snapshots");
    if snapshots.exists() {
        std::fs::remove_dir_all(&snapshots).expect("the folder is ours");
    }
    made.wreck(As::Superuser, "keeper", flags).unwrap_or_else(|said| panic!("{said}"))
}

fn rows_are_never_lost_unasked(major: u32) {
    let cluster = keeper(major);
    let untouched = Constellation::on(&cluster, "CREATE SCHEMA keeper; CREATE EXTENSION keeper");
    let (code, said) = wreck_of(&untouched, &["--snapshot", "file"]);
    assert!(code == 12 && !said.contains("would lack"), "{said}");
    for (table, sql) in ROWS_OF_EXTENSIONS {
        let made =
            Constellation::on(&cluster, &format!("CREATE SCHEMA keeper; CREATE EXTENSION keeper; {sql}"));
        let (code, said) = wreck_of(&made, &["--snapshot", "file"]);
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains(&format!("it would lose rows: table {table} of the extension keeper: ")),
            "{said}"
        );
        assert!(said.contains(&format!("--allow-loss {table} gives them up")), "{said}");
        // Once more, now that the proof is known.
        made.run
            .run(&[&["--snapshot", "file"][..], &WRECKS].concat())
            .exits(3)
            .never_says("scratch database");
        let (code, said) = wreck_of(&made, &[]);
        assert_eq!(code, 12, "{said}");
        assert!(said.contains("the undo is a clone, made behind the fence, because"), "{said}");
        assert!(said.contains(&format!("table {table} of the extension keeper")), "{said}");
    }
}

fn rows_that_are_given_up_are_said_to_be_lost(major: u32) {
    let cluster = keeper(major);
    let (table, sql) = ROWS_OF_EXTENSIONS[0];
    let made = Constellation::on(&cluster, &format!("CREATE SCHEMA keeper; CREATE EXTENSION keeper; {sql}"));
    let run = [&["--snapshot", "file", "--allow-loss", table][..], &WRECKS].concat();
    made.run
        .run(&run)
        .exits(12)
        .says("the undo would lack rows: table keeper.brought of the extension keeper: 2 rows instead of 3")
        .never_says("is as it was before");
    assert_eq!(made.psql("SELECT count(*) FROM t"), "40");
    // The flag names another table, or fewer rows.
    for flag in ["keeper.conf", "keeper.brought=1"] {
        let made =
            Constellation::on(&cluster, &format!("CREATE SCHEMA keeper; CREATE EXTENSION keeper; {sql}"));
        let (code, said) = wreck_of(&made, &["--snapshot", "file", "--allow-loss", flag]);
        assert_eq!(code, 3, "{said}");
    }
    let mut check = tests::binaries::command("backup");
    check.arg("check").current_dir(made.run.folder()).env("DATABASE_URL", made.database().url());
    let ended = tests::Running::start(check).outcome();
    drop(ended.exits(0).says("pg_dump writes no rows of 1 table of extensions (keeper.brought)"));
}

fn objects_are_never_lost_in_silence(major: u32) {
    let cluster = keeper(major);
    for (sql, told) in OBJECTS_OF_EXTENSIONS {
        let made =
            Constellation::on(&cluster, &format!("CREATE SCHEMA keeper; CREATE EXTENSION keeper; {sql}"));
        let (code, said) = wreck_of(&made, &[]);
        assert_eq!(code, 12, "{said}");
        assert!(
            said.contains(
                "the undo is a clone, made behind the fence, because a restore of the snapshot would lack"
            ),
            "{told}: {said}"
        );
        let run = [&["--snapshot", "file"][..], &WRECKS].concat();
        made.run.run(&run).exits(12).says("the undo would lack").says(told).never_says("is as it was before");
    }
}

macro_rules! keeps {
    ($($name:ident => $body:ident;)+) => { $(
        mod $name {
            #[test] fn postgresql_14() { super::$body(14); }
            #[test] fn postgresql_18() { super::$body(18); }
        }
    )+ };
}

keeps! {
    rows_of_extensions_that_no_snapshot_holds_are_never_lost_unasked => rows_are_never_lost_unasked;
    rows_of_extensions_that_are_given_up_are_said_to_be_lost => rows_that_are_given_up_are_said_to_be_lost;
    objects_of_extensions_that_no_snapshot_holds_are_never_lost_in_silence => objects_are_never_lost_in_silence;
}
