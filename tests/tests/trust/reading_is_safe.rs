//! Reading a table runs nothing that its owner wrote, and a name is never taken for another object: docs/trust.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Options, ProtectedRun, Running, Snapshots, psql};

/// A server of this test alone, whose log says as whom the planted function ran.
fn servers() -> Vec<Cluster> {
    let start = |major| {
        let cluster = Cluster::start(major, &Options::new());
        cluster.psql("CREATE ROLE low LOGIN");
        cluster
    };
    tests::cluster::ends().into_iter().map(start).collect()
}

/// A schema of the role `low`, with a function that says in the server's log as whom it runs.
fn plant(database: &Database) {
    database.psql("CREATE SCHEMA theirs AUTHORIZATION low");
    as_low(
        database,
        "CREATE FUNCTION theirs.planted(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN RAISE LOG 'planted: ran as %', current_user; RETURN $1; END $$",
    );
}

fn as_low(database: &Database, sql: &str) {
    psql::run(&database.cluster().url_as("low", database.name()), sql);
}

/// How often the planted function ran with the rights of the superuser.
fn ran_as_superuser(cluster: &Cluster) -> usize {
    cluster.log().matches("planted: ran as postgres").count()
}

/// Every place in which planning a query on a table evaluates what is constant in it.
const PLACES: [&str; 6] = [
    "CREATE INDEX ON theirs.$T (i) WHERE i > theirs.planted(0)",
    "CREATE INDEX ON theirs.$T ((i + theirs.planted(0)))",
    "CREATE UNIQUE INDEX ON theirs.$T ((i + theirs.planted(0)))",
    "ALTER TABLE theirs.$T ADD EXCLUDE USING btree ((i + theirs.planted(0)) WITH =)",
    "CREATE STATISTICS theirs.$T_s ON (i + theirs.planted(0)), (i % 7) FROM theirs.$T; ANALYZE theirs.$T",
    "CREATE DOMAIN theirs.$T_d AS int CHECK (VALUE >= theirs.planted(0)); \
     CREATE INDEX ON theirs.$T ((i::theirs.$T_d))",
];

/// The table of each place, with enough pages for several ranges; and one that is as good as the superuser's own.
fn plant_everywhere(database: &Database) {
    plant(database);
    for (n, place) in PLACES.iter().enumerate() {
        let table = format!("t{n}");
        let make = format!("CREATE TABLE theirs.$T AS SELECT i FROM generate_series(1, 5000) i; {place}");
        as_low(database, &make.replace("$T", &table));
    }
    // A table of the superuser's own in whose index the other role has its function.
    database.psql(
        "CREATE TABLE ours AS SELECT i FROM generate_series(1, 5000) i; CREATE INDEX ON ours (i) WHERE i > theirs.planted(0);
         CREATE TABLE plain AS SELECT i FROM generate_series(1, 3000) i",
    );
}

#[test]
fn a_backup_and_a_restore_by_a_superuser_run_nothing_of_the_tables_owners() {
    for cluster in servers() {
        let database = cluster.fresh_database("planted");
        plant_everywhere(&database);
        let low = psql::run(
            &database.url(),
            "SELECT string_agg(relname, ' ' ORDER BY 1) FROM pg_class WHERE relkind = 'r' \
                                              AND relnamespace = 'theirs'::regnamespace",
        );
        assert_eq!(low, "t0 t1 t2 t3 t4 t5");
        let before = ran_as_superuser(&cluster);
        let mut dump = psql::tool("pg_dump");
        dump.args(["-d", &database.url(), "--file", "/dev/null"]);
        psql::succeed(dump);
        assert_eq!(ran_as_superuser(&cluster), before, "pg_dump runs nothing");
        let snapshots = Snapshots::new();
        let cut = ["--chunk-blocks", "2", "--jobs", "4", "-v"];
        let first = snapshots.run("backup", &database.url(), &[&["create"], &cut[..]].concat()).expect(0);
        assert!(first.stderr.contains("read whole"), "{}", first.stderr);
        assert!(first.stderr.contains("planted(integer)"), "{}", first.stderr);
        assert!(first.stderr.contains("ours: its indexes"), "{}", first.stderr);
        assert_eq!(ran_as_superuser(&cluster), before, "a backup");
        // pg_restore builds the index of a table as its owner, and that is the superuser here.
        database.psql("DROP TABLE ours");
        snapshots.create(&database, &["--chunk-blocks", "2"]);
        let copy = snapshots.restore_copy_with(&database, &["--jobs", "4"], &[tests::outcome::ALL_LARGE]);
        assert_eq!(ran_as_superuser(&cluster), before, "a restore");
        // The oracle asks by queries.
        fingerprint(&database).assert_same(&fingerprint_without(&copy, &[]));
        let before = ran_as_superuser(&cluster);
        snapshots.run("backup", &database.url(), &["drill"]).expect(0);
        assert_eq!(ran_as_superuser(&cluster), before, "a drill");
        // Every place runs it where a query is planned: what was looked for can be seen.
        for table in ["theirs.t0", "theirs.t1", "theirs.t2", "theirs.t3", "theirs.t4", "theirs.t5"] {
            let before = ran_as_superuser(&cluster);
            database.psql(&format!("COPY (SELECT i FROM ONLY {table} WHERE ctid < '(2,0)') TO '/dev/null'"));
            assert!(ran_as_superuser(&cluster) > before, "{table} of PostgreSQL {}", cluster.major());
        }
    }
}

#[test]
fn the_owner_of_the_tables_reads_them_by_page_ranges() {
    let cluster = &servers()[1];
    let database = cluster.fresh_database("owned");
    plant_everywhere(&database);
    database.psql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO low; CREATE TABLE theirs.mine AS SELECT i FROM generate_series(1, 3000) i;
                   ALTER TABLE theirs.mine OWNER TO low");
    let chunks = |url: &str| {
        let snapshots = Snapshots::new();
        let id = snapshots.run("backup", url, &["create", "--chunk-blocks", "2"]).expect(0).stdout;
        let manifest = manifest(&snapshots.folder_of(id.trim()));
        let tables = manifest["snapshot"]["tables"].as_array().unwrap().iter();
        let chunks = tables.map(|table| {
            let name = table["name"]["name"].as_str().unwrap().to_owned();
            (name, table["chunks"].as_array().unwrap().len())
        });
        chunks.collect::<BTreeMap<String, usize>>()
    };
    let of_owner = chunks(&cluster.url_as("low", database.name()));
    for table in ["mine", "plain", "t0", "t1", "t2", "t3", "t4"] {
        assert!(of_owner[table] > 1, "{table}: {of_owner:?}");
    }
    let of_superuser = chunks(&database.url());
    assert!(of_superuser["plain"] > 1, "{of_superuser:?}");
    // Nothing of others is in it, and a guard sees to it that nothing gets into it.
    assert!(of_superuser["mine"] > 1, "{of_superuser:?}");
    // Where somebody has the lock that the guard needs, it is read whole.
    let mut other = psql::Session::open(&database.url());
    other.run("BEGIN; LOCK TABLE theirs.mine IN SHARE UPDATE EXCLUSIVE MODE");
    let without_guard = chunks(&database.url());
    assert_eq!(without_guard["mine"], 1, "{without_guard:?}");
    // And a role that can't have one reads tables of others whole.
    other.run("ROLLBACK");
    database.psql("CREATE ROLE reads_all LOGIN; GRANT pg_read_all_data TO reads_all");
    let of_reader = chunks(&cluster.url_as("reads_all", database.name()));
    assert_eq!((of_reader["mine"], of_reader["plain"] > 1), (1, true), "{of_reader:?}");
    for table in ["ours", "t0", "t1", "t2", "t3", "t4", "t5"] {
        assert_eq!(of_superuser[table], 1, "{table}: {of_superuser:?}");
    }
}

/// Runs `work` again and again in its own thread beside `body`.
pub fn beside<R>(work: impl Fn(u64) + Sync, body: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                work(n);
                n += 1;
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn what_is_planted_while_a_backup_runs_is_not_run_either() {
    for cluster in servers() {
        let database = cluster.fresh_database("planting");
        plant(&database);
        as_low(&database, "CREATE TABLE theirs.t AS SELECT i FROM generate_series(1, 20000) i");
        let before = ran_as_superuser(&cluster);
        let (snapshots, low) = (Snapshots::new(), cluster.url_as("low", database.name()));
        beside(
            |n| {
                // Whoever drops an index waits for the backup, and the backup for him: not for long.
                let sql = format!(
                    "SET lock_timeout = '50ms'; SELECT pg_sleep({}.0 / 1000); \
                     CREATE INDEX i{n} ON theirs.t (i) WHERE i > theirs.planted(0); \
                     CREATE STATISTICS theirs.s{n} ON (i + theirs.planted(0)), (i % 7) FROM theirs.t; ANALYZE theirs.t; \
                     SELECT pg_sleep({}.0 / 1000); DROP STATISTICS theirs.s{n}; DROP INDEX theirs.i{n}",
                    n * 7919 % 150,
                    n * 104_729 % 150
                );
                let _ = psql::try_run(&low, &format!("\\set ON_ERROR_STOP 0\n{sql}"));
            },
            || {
                for n in 0..8 {
                    let jobs = if n % 2 == 0 { "2" } else { "8" };
                    let arguments = ["create", "--chunk-blocks", "2", "--jobs", jobs, "--full"];
                    // An index that is being dropped has the table for itself: then the backup may give way.
                    let outcome = snapshots.run("backup", &database.url(), &arguments);
                    assert!([0, 4].contains(&outcome.code), "{outcome:?}");
                }
            },
        );
        assert_eq!(ran_as_superuser(&cluster), before, "PostgreSQL {}", cluster.major());
        for id in snapshots.ids() {
            assert_eq!(rows(&snapshots.folder_of(&id))["theirs.t"].len(), 20000, "{id}");
        }
    }
}

fn manifest(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("manifest.json")).unwrap()).unwrap()
}

/// The rows of every table of a snapshot that was taken with `--compress none`, or of a compressed one by way of stock zstd.
fn rows(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let manifest = manifest(folder);
    let mut all = BTreeMap::new();
    for table in manifest["snapshot"]["tables"].as_array().unwrap() {
        let name = |part: &str| table["name"][part].as_str().unwrap().to_owned();
        let mut lines = Vec::new();
        for chunk in table["chunks"].as_array().unwrap() {
            let path = folder.join(chunk["path"].as_str().unwrap());
            let text = if path.extension().is_some_and(|end| end == "zst") {
                let out = std::process::Command::new("zstd").arg("-dcq").arg(&path).output().unwrap();
                assert!(out.status.success(), "{out:?}");
                String::from_utf8(out.stdout).unwrap()
            } else {
                std::fs::read_to_string(&path).unwrap()
            };
            lines.extend(text.lines().map(str::to_owned));
        }
        all.insert(format!("{}.{}", name("schema"), name("name")), lines);
    }
    all
}

/// Two schemas with a table, a partitioned table and a sequence of the same names; each row says whose it is.
pub const TWINS: &str = "
CREATE SCHEMA a; CREATE SCHEMA b;
CREATE TABLE a.t AS SELECT i, 'first' AS whose FROM generate_series(1, 4000) i;
CREATE TABLE b.t AS SELECT i, 'second' AS whose FROM generate_series(1, 4500) i;
CREATE TABLE a.u AS SELECT i, 'first' AS whose FROM generate_series(1, 3000) i;
CREATE TABLE b.u AS SELECT i, 'second' AS whose FROM generate_series(1, 3500) i;
CREATE SEQUENCE a.q START 1000; CREATE SEQUENCE b.q START 2000;
CREATE SEQUENCE a.used; CREATE SEQUENCE b.used; SELECT setval('a.used', 1111), setval('b.used', 2222);
";

/// Whether the snapshot is one state of [`TWINS`], however often the two schemas were swapped before it.
fn assert_one_state(folder: &Path) {
    let (id, rows) = (folder.display(), rows(folder));
    let whose = |table: &str| {
        let all: BTreeSet<&str> = rows[table].iter().map(|row| row.split_once('\t').unwrap().1).collect();
        assert_eq!(all.len(), 1, "{id}: {table} has rows of both: {all:?}");
        *all.first().unwrap()
    };
    let counts = |schema: &str| ["t", "u"].map(|table| rows[&format!("{schema}.{table}")].len());
    let first = if whose("a.t") == "first" { "a" } else { "b" };
    let second = if first == "a" { "b" } else { "a" };
    assert_eq!(whose(&format!("{first}.u")), "first", "{id}");
    assert_eq!(whose(&format!("{second}.t")), "second", "{id}");
    assert_eq!(whose(&format!("{second}.u")), "second", "{id}");
    assert_eq!((counts(first), counts(second)), ([4000, 3000], [4500, 3500]), "{id}");
    for sequence in manifest(folder)["snapshot"]["sequences"].as_array().unwrap() {
        let name = |part: &str| sequence["name"][part].as_str().unwrap();
        let expected = match (name("name"), name("schema") == first) {
            ("q", true) => 1000,
            ("q", false) => 2000,
            (_, true) => 1111,
            (_, false) => 2222,
        };
        assert_eq!(sequence["last_value"], expected, "{id}: {sequence}");
    }
}

/// Swaps the schemas `a` and `b` in one transaction, after and before a pause that `n` decides; sometimes twice in a row.
fn swap(n: u64) -> String {
    let swap =
        "BEGIN; ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b; COMMIT;";
    let pause = |n: u64, most: u64| format!("SELECT pg_sleep({}.0 / 1000);", n % most);
    match n % 3 {
        0 => format!(
            "{} {swap} {} {swap} {}",
            pause(n * 7919, 400),
            pause(n * 104_729, 30),
            pause(n * 31, 900)
        ),
        1 => format!("{} {swap} {}", pause(n * 7919, 700), pause(n * 31, 900)),
        _ => format!("{} {swap}{swap} {}", pause(n * 7919, 700), pause(n * 31, 900)),
    }
}

/// Backs up some times beside `work`; every snapshot has to pass `check`, and every failure has to name a reason.
fn back_up_beside(database: &Database, times: u64, work: impl Fn(u64) + Sync, check: impl Fn(&Path)) {
    let done = AtomicU64::new(0);
    back_up_until(database, || done.fetch_add(1, Ordering::SeqCst) >= times, work, check);
}

/// Backs up again and again beside `work` until it is `enough`.
fn back_up_until(
    database: &Database,
    enough: impl Fn() -> bool,
    work: impl Fn(u64) + Sync,
    check: impl Fn(&Path),
) {
    let snapshots = Snapshots::new();
    let mut said = String::new();
    beside(work, || {
        let mut n = 0;
        while !enough() {
            let jobs = if n % 2 == 0 { "2" } else { "8" };
            n += 1;
            let arguments = ["create", "--chunk-blocks", "3", "--compress", "none", "--jobs", jobs, "--full"];
            let outcome = snapshots.run("backup", &database.url(), &arguments);
            said.push_str(&outcome.stderr);
            match outcome.code {
                0 => check(&snapshots.folder_of(outcome.stdout.trim())),
                4 => assert!(
                    outcome.stderr.contains("schema") || outcome.stderr.contains("lock"),
                    "{outcome:?}"
                ),
                _ => panic!("{outcome:?}"),
            }
        }
    });
    let ids = snapshots.ids();
    assert!(!ids.is_empty(), "none succeeded:\n{said}");
    println!("{} snapshots", ids.len());
    assert!(snapshots.leftovers().is_empty(), "{:?}", snapshots.leftovers());
}

#[test]
fn a_schema_that_is_swapped_while_a_backup_reads_gives_one_state_or_none() {
    for major in tests::cluster::ends() {
        let database = Cluster::shared(major).fresh_database("swapped");
        database.psql(TWINS);
        back_up_beside(&database, 12, |n| drop(database.psql(&swap(n))), assert_one_state);
    }
}

/// Many short swaps in a row, then none for a while that `n` decides: a backup begins, reads and ends at every moment of both.
fn burst(n: u64) -> (u64, String) {
    let swap =
        "BEGIN; ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b; COMMIT;";
    let count = 1 + n * 7919 % 60;
    let mut sql = String::new();
    for k in 0..count {
        sql.push_str(swap);
        // From none to 4 ms.
        let pause = (n + k) * 104_729 % 5;
        if pause > 0 {
            sql.push_str(&format!("SELECT pg_sleep({pause}.0 / 1000);"));
        }
    }
    sql.push_str(&format!("SELECT pg_sleep({}.0 / 1000);", n * 31 * 97 % 1200));
    (count, sql)
}

#[test]
fn thousands_of_swaps_while_backups_read_give_one_state_or_none() {
    // More of them in a long run by hand.
    let wanted = std::env::var("SAFE_RUN_TEST_SWAPS").map_or(1500, |text| text.parse().unwrap());
    for major in [14, 18] {
        let database = Cluster::shared(major).fresh_database("swaps");
        database.psql(TWINS);
        let swaps = AtomicU64::new(0);
        let work = |n: u64| {
            let (count, sql) = burst(n);
            database.psql(&sql);
            swaps.fetch_add(count, Ordering::SeqCst);
        };
        let enough = || swaps.load(Ordering::SeqCst) >= wanted;
        back_up_until(&database, enough, work, assert_one_state);
        println!("{} swaps on PostgreSQL {major}", swaps.load(Ordering::SeqCst));
    }
}

#[test]
fn a_schema_that_was_swapped_is_named_and_the_backup_begins_again() {
    let database = Cluster::shared(18).fresh_database("named");
    database.psql(TWINS);
    let snapshots = Snapshots::new();
    // Swapped after the snapshot was taken and before the first row is read, once.
    let pause = snapshots.path().with_file_name("pause");
    std::fs::write(&pause, "").unwrap();
    let mut command = snapshots.command("backup", &database.url(), &["create", "--compress", "none"]);
    command.env("SAFE_RUN_FAULT_WAIT", format!("backup.admitted={}", pause.display()));
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| tests::Outcome::of(&mut command));
        tests::until("the backup has its snapshot", || pause.with_file_name("pause.reached").exists());
        database.psql("BEGIN; ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b; COMMIT");
        std::fs::remove_file(&pause).unwrap();
        running.join().unwrap()
    });
    let outcome = outcome.expect(0).says(&["the schema \"a\" was renamed to \"b\"", "begins again"]);
    assert_one_state(&snapshots.folder_of(outcome.stdout.trim()));
}

#[test]
fn a_schema_that_is_swapped_while_checks_look_is_named() {
    for major in [14, 18] {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("checked"));
        run.database.psql(TWINS);
        run.migration("1_new.sql", "CREATE TABLE public.made (i int)");
        let pause = run.folder().join("pause");
        for arguments in [&["check"][..], &["--fence", "none"]] {
            std::fs::write(&pause, "").unwrap();
            let reached = pause.with_file_name("pause.reached");
            let mut command = run.command(arguments);
            command.env("SAFE_RUN_FAULT_WAIT", format!("safe-run.checks-planned={}", pause.display()));
            let running = Running::start(command);
            tests::until("the checks know what to look at", || reached.exists());
            run.database.psql(
                "BEGIN; ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b; COMMIT",
            );
            std::fs::remove_file(&pause).unwrap();
            let ended = running
                .outcome()
                .exits(4)
                .says("\" was renamed to \"")
                .says("Run the command again while nobody renames or swaps schemas");
            if arguments[0] != "check" {
                ended.verdict("NOT RUN");
            }
            std::fs::remove_file(&reached).unwrap();
        }
        assert_eq!(run.database.psql("SELECT to_regclass('public.made') IS NULL"), "t");
    }
}

#[test]
fn tables_that_change_their_names_while_a_backup_runs_are_read_as_what_they_are() {
    let database = Cluster::shared(18).fresh_database("renamed");
    database.psql(TWINS);
    let work = |n: u64| {
        let pause = format!("SELECT pg_sleep({}.0 / 1000);", n * 7919 % 300);
        let change = match n % 3 {
            // Twins change places by their own names, by their schemas, and by being made again.
            0 => {
                "ALTER TABLE a.t RENAME TO x; ALTER TABLE b.t SET SCHEMA a; ALTER TABLE a.x SET SCHEMA b; \
                  ALTER TABLE b.x RENAME TO t; ALTER TABLE a.u RENAME TO x; ALTER TABLE b.u SET SCHEMA a; \
                  ALTER TABLE a.x SET SCHEMA b; ALTER TABLE b.x RENAME TO u; \
                  ALTER SEQUENCE a.q RENAME TO x; ALTER SEQUENCE b.q SET SCHEMA a; ALTER SEQUENCE a.x SET SCHEMA b; \
                  ALTER SEQUENCE b.x RENAME TO q; \
                  ALTER SEQUENCE a.used RENAME TO x; ALTER SEQUENCE b.used SET SCHEMA a; \
                  ALTER SEQUENCE a.x SET SCHEMA b; ALTER SEQUENCE b.x RENAME TO used;"
            }
            1 => "CREATE TABLE a.new AS TABLE a.t; DROP TABLE a.t; ALTER TABLE a.new RENAME TO t;",
            _ => "CREATE TABLE b.new AS TABLE b.u; DROP TABLE b.u; ALTER TABLE b.new RENAME TO u;",
        };
        // A lock that the backup has for as long as it reads.
        let _ = database.try_psql(&format!("SET lock_timeout = '3s'; {pause} BEGIN; {change} COMMIT"));
    };
    back_up_beside(&database, 12, work, assert_one_state);
}

#[test]
fn a_view_in_the_place_of_a_table_is_never_read() {
    for cluster in servers() {
        let database = cluster.fresh_database("view");
        plant(&database);
        database.psql(
            "CREATE SCHEMA a AUTHORIZATION low; CREATE SCHEMA b AUTHORIZATION low; GRANT CREATE ON DATABASE \
                       \"$D\" TO low"
                .replace("$D", database.name())
                .as_str(),
        );
        as_low(
            &database,
            "CREATE TABLE a.t AS SELECT i, 'first' AS whose FROM generate_series(1, 4000) i;
             CREATE VIEW b.t AS SELECT theirs.planted(1) AS i, 'view'::text AS whose;
             CREATE SEQUENCE a.q; CREATE VIEW b.q AS SELECT theirs.planted(1)::bigint AS last_value, true AS is_called, 1 AS log_cnt",
        );
        let before = ran_as_superuser(&cluster);
        let check = |folder: &Path| {
            let rows = rows(folder);
            assert_eq!(rows.values().map(Vec::len).collect::<Vec<_>>(), [4000], "{}", folder.display());
            assert!(rows.values().flatten().all(|row| row.ends_with("first")), "{}", folder.display());
        };
        back_up_beside(&database, 6, |n| as_low(&database, &swap(n)), check);
        assert_eq!(ran_as_superuser(&cluster), before, "PostgreSQL {}", cluster.major());
    }
}

#[test]
fn behind_a_fence_a_swapped_schema_stops_the_run_or_its_snapshot_is_one_state() {
    let cluster = Cluster::shared(18);
    for n in 0..9 {
        let run = ProtectedRun::on(cluster.fresh_database("fenced"));
        run.database.psql(TWINS);
        run.migration("1_new.sql", "CREATE TABLE public.made (i int)");
        let fence = ["lock", "none", "read-only"][n % 3];
        let outcome = beside(
            |k| {
                // Whoever wants to write behind a read-only fence only has to say so.
                let sql = format!("SET default_transaction_read_only = off; {}", swap(k + n as u64));
                let _ = run.database.try_psql(&sql);
            },
            || run.run(&["--fence", fence, "--snapshot-when", "fenced"]),
        );
        let made = run.database.psql("SELECT to_regclass('public.made') IS NOT NULL");
        match outcome.status.code() {
            Some(0) => {
                let folder = run.folder().join("snapshots/snapshots");
                let snapshots = tests::outcome::names_in(&folder);
                assert_eq!((snapshots.len(), made.as_str()), (1, "t"), "{outcome}");
                assert_one_state(&folder.join(&snapshots[0]));
            }
            // Where the names changed at each of the attempts, the snapshot or the checks were not done.
            Some(4 | 11) => {
                let said = outcome.headline();
                assert!(said.contains("NOT RUN") || said.contains("ROLLED BACK"), "{outcome}");
                assert!(said.contains("schema") || said.contains("lock"), "{outcome}");
                assert_eq!(made, "f", "{outcome}");
            }
            _ => panic!("{outcome}"),
        }
    }
}
