//! Writes that arrive after the snapshot while no fence stands are saved as a file, and psql replays it: after that every
//! acknowledged write is there. No replication slot is left on any path.

use tests::{Application, Cluster, Database, Options, ProtectedRun, Running, oracle, psql, until};

fn logical(major: u32) -> Cluster {
    Cluster::start(major, &Options::new().conf("wal_level = logical").conf("max_replication_slots = 8"))
}

fn slots(cluster: &Cluster) -> String {
    cluster.psql("SELECT slot_name FROM pg_replication_slots ORDER BY 1")
}

/// The saved file of the last run.
fn file(run: &ProtectedRun) -> std::path::PathBuf {
    let id = run.runs().pop().unwrap();
    run.folder().join("snapshots/runs").join(id).join("writes-after-snapshot.sql")
}

/// Replays it as the report says.
#[track_caller]
fn replay(run: &ProtectedRun) -> Result<(), String> {
    let mut command = psql::tool("psql");
    command.args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", &run.database.url(), "-f"]);
    let output = command.arg(file(run)).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    if output.status.success() {
        assert_eq!(error, "");
        Ok(())
    } else {
        Err(error)
    }
}

/// A command that changes something, says that it is there, and waits for `go`. Its UPDATE lasts long enough to be seen.
const FAILS: &str = "psql -Xq -v ON_ERROR_STOP=1 -c 'ALTER TABLE users ADD nick text' -c \"BEGIN; UPDATE users SET name = 'migrated', email = NULL; SELECT pg_sleep(1); COMMIT\" -c \"BEGIN; UPDATE orders SET note = 'migrated' WHERE id = 3; CREATE TABLE IF NOT EXISTS alembic_version (version_num text); INSERT INTO alembic_version VALUES ('7'); COMMIT\" >&2; touch ready; while [ ! -e go ]; do sleep 0.05; done; exit $STATUS";

fn start(run: &ProtectedRun, flags: &[&str], fault: Option<&str>) -> Running {
    let mut command = run.command(&[&["--fence", "none"], flags, &["--", "sh", "-c", FAILS]].concat());
    // What is to be killed afterwards has to succeed first.
    command.env("STATUS", if fault.is_some() { "0" } else { "1" });
    if let Some(fault) = fault {
        command.env("SAFE_RUN_FAULT", fault);
    }
    let running = Running::start(command);
    until("the command has begun", || run.folder().join("ready").exists());
    running
}

fn go(run: &ProtectedRun) {
    run.file("go", "");
    std::fs::remove_file(run.folder().join("ready")).unwrap();
}

const NASTY: &str = r#"
CREATE SCHEMA "Od""d s";
CREATE TYPE "Od""d s"."mo]od [" AS ENUM ('so''so', 'go"od', 'back\slash');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE "Od""d s"."T, a: INSERT" (
  "id key" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "old-key" text, "select" text[], mood "Od""d s"."mo]od [", moods "Od""d s"."mo]od ["[], raw bytea, doc jsonb, plain json,
  amount numeric, ratio double precision, small real, yes bool, bits bit varying, fixed char(5), at timestamptz, span interval,
  day date, ip inet, range int4range, p pair, d positive, price money, x xml, tsv tsvector, pt point, u uuid,
  doubled bigint GENERATED ALWAYS AS ("d" * 2) STORED, big text, oid_ oid
);
ALTER TABLE "Od""d s"."T, a: INSERT" ALTER big SET STORAGE EXTERNAL;
CREATE TABLE parts (id int, region text, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE "parts B" PARTITION OF parts DEFAULT;
CREATE TABLE whole (a int, b text, c json, f char(4), n numeric);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE by_index (k varchar(20) NOT NULL, e "Od""d s"."mo]od [" NOT NULL, v int);
CREATE UNIQUE INDEX by_index_key ON by_index (e, k) INCLUDE (v);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
CREATE TABLE appended (line text);
CREATE TABLE emptied (i int PRIMARY KEY); CREATE TABLE emptied_too (i int REFERENCES emptied);
CREATE TABLE deferred (id int UNIQUE DEFERRABLE INITIALLY IMMEDIATE, k int PRIMARY KEY);
CREATE TABLE log (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (TG_OP || ' ' || COALESCE(NEW.note, OLD.note)); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO "Od""d s"."T, a: INSERT" ("old-key", big, d) SELECT 'row ' || i, repeat('x' || i, 9000), i FROM generate_series(1, 4) i;
INSERT INTO parts SELECT i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, 'n' FROM generate_series(1, 6) i;
INSERT INTO whole VALUES (1, 'same', '{"a": 1}', 'x', 1.50), (1, 'same', '{"a": 1}', 'x', 1.50), (2, NULL, NULL, NULL, 'NaN'), (3, '', '[]', '', 0);
INSERT INTO by_index VALUES ('k', 'so''so', 1), ('k', 'go"od', 2);
INSERT INTO emptied VALUES (1); INSERT INTO emptied_too VALUES (1);
INSERT INTO deferred SELECT i, i FROM generate_series(1, 3) i;
"#;

/// What others write, in several transactions.
const WRITES: &str = r#"
SET "DateStyle" = 'SQL, DMY'; SET "IntervalStyle" = 'sql_standard'; SET "TimeZone" = 'Asia/Tokyo';
INSERT INTO "Od""d s"."T, a: INSERT" ("old-key", "select", mood, moods, raw, doc, plain, amount, ratio, small, yes, bits, fixed, at, span, day, ip, range, p, d, price, x, tsv, pt, u, big, oid_)
VALUES (E'it''s "new-tuple: \\ \n\t id[bigint]:7', ARRAY['a,b', NULL, 'c"d\e', ''], 'back\slash', '{"so''so","go\"od"}', '\xdeadbeef00', '{"k": "v''\\ \""}', '{"dup": 1,  "dup": 2}',
  'NaN', '-Infinity', 1.1, false, B'10011', 'ab', '2026-03-29 02:30:00+09', '-1 day 02:03', '2026-12-31', '::1/64', '[3,9)', ROW(1, 'x"y,)'), 7, 12.34, NULL, 'a:1 b', '(1,2.5)',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', repeat('large', 9000), 4000000000),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
BEGIN; UPDATE "Od""d s"."T, a: INSERT" SET "old-key" = 'changed, big stays', yes = true WHERE d <= 2;
UPDATE "Od""d s"."T, a: INSERT" SET big = NULL WHERE d = 3; DELETE FROM "Od""d s"."T, a: INSERT" WHERE d = 4; COMMIT;
UPDATE parts SET note = 'it''s' WHERE id = 1; UPDATE parts SET region = 'a' WHERE id = 3; DELETE FROM parts WHERE id = 4;
UPDATE parts SET id = id + 100 WHERE id = 2;
UPDATE whole SET n = 2.00 WHERE ctid = (SELECT min(ctid) FROM whole WHERE b = 'same'); DELETE FROM whole WHERE a = 2; UPDATE whole SET b = NULL, f = 'yz' WHERE b = '';
UPDATE by_index SET k = 'K''' WHERE v = 1; UPDATE by_index SET v = 5 WHERE v = 2; UPDATE by_index SET e = 'back\slash' WHERE v = 5;
INSERT INTO appended VALUES ('one'), (NULL), ('one'), (E'\\.\n');
TRUNCATE emptied CASCADE; INSERT INTO emptied VALUES (5);
UPDATE deferred SET id = 4 - id;
INSERT INTO orders (user_id, total, note) VALUES (1, 5, 'new order'); DELETE FROM orders WHERE id = 7;
UPDATE orders SET note = 'touched' WHERE id = 8;
DELETE FROM users WHERE id = 9;
BEGIN; INSERT INTO appended VALUES ('never'); ROLLBACK;
BEGIN; INSERT INTO appended VALUES ('kept'); SAVEPOINT s; INSERT INTO appended VALUES ('gone'); ROLLBACK TO s; SAVEPOINT t; INSERT INTO appended VALUES ('kept too'); RELEASE t; COMMIT;
SELECT nextval('tickets'), nextval('tickets');
"#;

fn nasty<'c>(cluster: &'c Cluster) -> ProtectedRun<'c> {
    let run = ProtectedRun::shop_on(cluster);
    run.database.psql(NASTY);
    run
}

/// All of it but for the sequences: these stand ahead, so that no key of a saved row is given to a new one.
fn content(database: &Database) -> oracle::Fingerprint {
    oracle::fingerprint(database).without(&["sequence "])
}

fn sequences(database: &Database) -> Vec<i64> {
    let values =
        database.psql("SELECT COALESCE(last_value, 0) FROM pg_sequences ORDER BY schemaname, sequencename");
    values.lines().map(|value| value.parse().unwrap()).collect()
}

#[test]
fn what_others_wrote_is_replayed_to_the_last_value_and_the_commands_own_is_not() {
    for major in tests::cluster::ends() {
        let cluster = logical(major);
        let expected = nasty(&cluster);
        expected.database.psql(WRITES);
        let run = nasty(&cluster);
        // Before the snapshot is over, and never in the file.
        let running = start(&run, &["--on-failure", "undo"], None);
        assert!(slots(&cluster).starts_with("safe_run_2"), "no slot");
        run.database.psql(WRITES);
        go(&run);
        let ended = running.outcome().exits(12).verdict("RESTORED");
        // The application goes on at once.
        run.database
            .psql("BEGIN; INSERT INTO orders (user_id, total) VALUES (1, 9); DELETE FROM log; COMMIT");
        let kept = run.others().pop().unwrap();
        let ended = ended
            .says("is saved: ")
            .says("which holds rows of the database")
            .says("next: replay it: psql -X -q")
            .says("safe-run check")
            .says(&format!("the failed state is kept as database \"{kept}\""))
            .says("2 transactions of the run itself were left out");
        assert_eq!(slots(&cluster), "", "{ended}");
        let path = file(&run);
        let ended = ended.says(path.to_str().unwrap());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // No row is in the reports.
        for name in ["report.json", "report.txt", "journal.jsonl"] {
            let text = std::fs::read_to_string(path.with_file_name(name)).unwrap();
            assert!(!text.contains("new order") && !text.contains("deadbeef"), "{name}: {text}");
        }
        replay(&run).unwrap_or_else(|error| panic!("{major}: {error}\n{ended}"));
        run.database.psql("ALTER TABLE orders DISABLE TRIGGER USER; DELETE FROM orders WHERE total = 9 AND note IS NULL; ALTER TABLE orders ENABLE TRIGGER USER");
        content(&expected.database).assert_same(&content(&run.database));
        let (there, wanted) = (sequences(&run.database), sequences(&expected.database));
        assert!(
            there.len() == wanted.len() && there.iter().zip(&wanted).all(|(there, wanted)| there >= wanted),
            "{there:?} {wanted:?}"
        );
        // The second replay stops, and changes nothing.
        let error = replay(&run).unwrap_err();
        assert!(error.contains("ERROR"), "{error}");
        content(&expected.database).assert_same(&content(&run.database));
        run.assert_open();
    }
}

#[test]
fn every_acknowledged_write_comes_back_however_the_run_ends() {
    for (major, how) in [(14, "stopped"), (18, "killed"), (14, "asked")] {
        let cluster = logical(major);
        let run = ProtectedRun::shop_on(&cluster);
        let application = Application::start(&run.database, Cluster::shared(17));
        application.until_it_writes();
        let flags: &[&str] = if how == "asked" { &["--on-failure", "undo"] } else { &[] };
        let running = start(&run, flags, (how == "killed").then_some("safe-run.applied"));
        run.database.psql("ALTER TABLE writes ADD seen bool DEFAULT true");
        application.until_it_writes();
        go(&run);
        let ended = running.outcome();
        let ended = match how {
            "asked" => ended.exits(12).verdict("RESTORED"),
            "killed" => {
                // It stops for a person first, and says how to go on.
                run.run(&["recover"])
                    .exits(0)
                    .says("STOPPED")
                    .says("next: go back to the state before: safe-run recover --undo");
                run.run(&["recover"]).exits(0).says("waits for your decision");
                application.until_it_writes();
                run.run(&["recover", "--undo"]).exits(0).says("RESTORED")
            }
            _ => {
                let path = file_after(ended.exits(14).verdict("STOPPED"), &run);
                assert!(std::fs::read_to_string(path).unwrap().contains("INSERT INTO \"public\".\"writes\""));
                // Writes go on until a person has decided.
                run.run(&["--", "true"]).exits(3).says("waits for your decision").says("recover --keep");
                application.until_it_writes();
                run.run(&["recover", "--undo"]).exits(0).says("RESTORED")
            }
        };
        let ended = ended
            .says("replay it: psql -X -q")
            .says("columns that the snapshot has not were left out: writes.seen");
        assert_eq!(slots(&cluster), "");
        application.until_it_writes();
        replay(&run).unwrap_or_else(|error| panic!("{major} {how}: {error}\n{ended}"));
        let ledger = application.stop();
        ledger.assert_exact();
        assert!(ledger.acknowledged.len() > 20);
        assert_eq!(run.database.psql("SELECT count(*) FROM users WHERE name = 'migrated'"), "0");
        run.run(&["recover"]).exits(0).says("Nothing to recover");
        run.assert_open();
    }
}

/// Both databases, the file and what to do are named.
fn file_after(ended: tests::Ended, run: &ProtectedRun) -> std::path::PathBuf {
    let path = file(run);
    drop(
        ended
            .says(path.to_str().unwrap())
            .says("safe-run recover --undo")
            .says("recover --keep")
            .says("fills the server's disk"),
    );
    path
}

#[test]
fn files_know_their_own_transactions_and_others_are_told_apart() {
    for major in tests::cluster::ends() {
        let cluster = logical(major);
        let run = ProtectedRun::shop_on(&cluster);
        run.migration("0001_a.sql", "UPDATE users SET name = 'migrated';\nDELETE FROM audit;\n")
            .migration("0002_b.sql", "-- safe-run: no-transaction\nUPDATE orders SET total = 0 WHERE id = 1;\nCREATE INDEX CONCURRENTLY i ON orders (total);\n")
            .migration("0003_c.sql", "SELECT pg_sleep(1.5);\nSELECT 1 / 0;\n");
        let mut early = run.database.session();
        early.run("BEGIN");
        let flags = ["--fence", "none", "--tx", "file", "--on-failure", "undo"];
        let running = run.start(&flags);
        until("the third file runs", || {
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sl%'";
            run.database.psql(sleeps) == "1"
        });
        early.run("INSERT INTO users (name) VALUES ('by another'); COMMIT");
        let ended = running.outcome().exits(12).verdict("RESTORED");
        // The statement outside of a transaction of ours, and its history's line, are the only ones that nobody can tell.
        let text = std::fs::read_to_string(file(&run)).unwrap();
        assert!(!text.contains("'migrated'"), "{ended}\n{text}");
        let ended = ended.says("1 by others");
        assert!(text.contains("--   users: 1 inserted, 0 updated, 0 deleted by others"), "{ended}\n{text}");
        assert!(
            text.contains("by the run or by others: unknown")
                && text.contains("--   orders: 0 inserted, 1 updated"),
            "{text}"
        );
        replay(&run).unwrap();
        assert_eq!(run.database.psql("SELECT count(*) FROM users WHERE name = 'by another'"), "1");
        assert_eq!(slots(&cluster), "");
    }
}

#[test]
fn what_can_not_be_replayed_stops_the_replay_and_is_named() {
    let cluster = logical(18);
    let run = ProtectedRun::shop_on(&cluster);
    run.database.psql("CREATE TABLE keyless (a int, b int); INSERT INTO keyless VALUES (1, 1); CREATE UNLOGGED TABLE passing (i int)");
    let running = start(&run, &["--on-failure", "undo"], None);
    run.database.psql(
        "INSERT INTO keyless VALUES (2, 2); UPDATE keyless SET b = 3 WHERE a = 1; CREATE TABLE later (i int PRIMARY KEY);
         INSERT INTO later VALUES (1); INSERT INTO passing VALUES (1); ALTER TABLE audit RENAME at TO moment; INSERT INTO audit VALUES (1, 'x')",
    );
    go(&run);
    let ended = running.outcome().exits(12);
    let ended = ended
        .says("1 change can't be replayed, and the replay stops there until you have done it by hand: keyless: ")
        .says("audit: the row has a column audit.moment that the snapshot has not, and lacks audit.at")
        .says("1 change of later was left out: the snapshot has no such table")
        .says("unlogged tables are not in the server's log, nor in the file: passing");
    let error = replay(&run).unwrap_err();
    assert!(error.contains("UPDATE of keyless can't be replayed"), "{error}");
    assert_eq!(run.database.psql("SELECT count(*) FROM keyless"), "1", "not all or nothing: {ended}");
    // A row that is not there is no success either.
    let text = std::fs::read_to_string(file(&run)).unwrap();
    let text =
        text.lines().filter(|line| !line.starts_with("SELECT 'safe-run: ")).collect::<Vec<_>>().join("\n");
    std::fs::write(file(&run), text).unwrap();
    replay(&run).unwrap();
    assert_eq!(run.database.psql("SELECT count(*) FROM keyless"), "2");
}

#[test]
fn a_killed_run_leaves_no_slot_once_it_is_recovered() {
    let early = [
        ("safe-run.slot-making", false),
        ("safe-run.slot-made", false),
        ("safe-run.snapshot", false),
        ("safe-run.applied", true),
        ("safe-run.stands", false),
    ];
    let late = [
        ("safe-run.undoing", true),
        ("restore.after-swap-commit", false),
        ("safe-run.writes-saved", false),
        ("safe-run.slot-dropped", false),
    ];
    for (major, points) in [(14, early.as_slice()), (18, late.as_slice())] {
        let cluster = logical(major);
        for &(point, undo) in points {
            let run = ProtectedRun::shop_on(&cluster);
            let succeeds = ["safe-run.stands", "safe-run.applied"].contains(&point);
            let status = if succeeds { "0" } else { "1" };
            let script = format!("psql -Xqc \"INSERT INTO audit VALUES (1, 'x')\"; exit {status}");
            let flags = ["--fence", "none", "--on-failure", "undo", "--", "sh", "-c", &script];
            run.crash(point, &flags);
            let recover: &[&str] = if undo { &["recover", "--undo"] } else { &["recover"] };
            // Its recovery can be killed as well.
            if undo {
                run.crash("safe-run.writes-saved", recover);
            }
            let ended = run.run(&recover[..1]).exits(0);
            assert_eq!(slots(&cluster), "", "{major} {point}: {ended}");
            let restored = run.others().len() == 1;
            let expected =
                !["safe-run.slot-making", "safe-run.slot-made", "safe-run.snapshot", "safe-run.stands"]
                    .contains(&point);
            assert_eq!(restored, expected, "{major} {point}: {ended}");
            assert_eq!(file(&run).exists(), expected, "{major} {point}: {ended}");
            if expected {
                assert_eq!(run.database.psql("SELECT count(*) FROM audit"), "0");
                replay(&run).unwrap();
                assert_eq!(run.database.psql("SELECT count(*) FROM audit"), "1");
            }
            run.run(&["recover"]).exits(0).says("Nothing to recover");
            run.assert_open();
        }
    }
}

#[test]
fn no_slot_is_left_by_success_refusal_signal_or_a_decision_to_keep() {
    let cluster = logical(18);
    let run = ProtectedRun::shop_on(&cluster);
    let none = |says: &str| assert_eq!(slots(&cluster), "", "{says}");
    run.run(&["--fence", "none", "--", "psql", "-Xqc", "SELECT 1"]).exits(0);
    assert!(!file(&run).exists());
    none("success");
    run.run(&["--fence", "none", "--", "true"]).exits(1).says("never connected");
    none("never seen");
    run.migration("0001_a.sql", "SELECT 1 / 0;\n");
    run.run(&["--fence", "none", "--tx", "file"]).exits(10).verdict("ROLLED BACK");
    none("rolled back");
    let running = start(&run, &["--on-failure", "undo"], None);
    running.signal("INT");
    running.outcome().exits(130).verdict("RESTORED");
    none("signal");
    std::fs::remove_file(run.folder().join("ready")).unwrap();
    let running = start(&run, &[], None);
    go(&run);
    running.outcome().exits(14);
    let path = file(&run);
    assert!(path.exists());
    assert_eq!(slots(&cluster).lines().count(), 1);
    // Our own restore does not run over it.
    let mut restore = tests::binaries::command("restore");
    restore
        .args(["latest", "--replace", "-y"])
        .current_dir(run.folder())
        .env("DATABASE_URL", run.database.url());
    drop(Running::start(restore).outcome().exits(3).says("safe-run recover --undo"));
    run.run(&["status"]).exits(30).says("waits for your decision");
    run.run(&["recover", "--keep"]).exits(0).says("left as it is").says("was dropped");
    assert!(!path.exists());
    none("kept");
    run.run(&["recover"]).exits(0).says("Nothing to recover");
}

#[test]
fn a_log_that_the_server_has_removed_is_said_and_the_rows_are_in_the_kept_database() {
    let options = ["wal_level = logical", "max_slot_wal_keep_size = 1MB", "max_wal_size = 32MB"];
    let cluster =
        Cluster::start(18, &options.iter().fold(Options::new(), |options, line| options.conf(line)));
    let run = ProtectedRun::shop_on(&cluster);
    let running = start(&run, &["--on-failure", "undo"], None);
    run.database.psql("INSERT INTO audit VALUES (1, 'x')");
    for _ in 0..6 {
        run.database.psql("INSERT INTO audit VALUES (2, 'y'); SELECT pg_switch_wal()");
    }
    run.database.psql("CHECKPOINT");
    go(&run);
    let ended = running.outcome().exits(12).verdict("RESTORED");
    let kept = run.others().pop().unwrap();
    drop(
        ended
            .says("the writes of others could not be saved: the server has removed the log")
            .says(&format!("those rows are in \"{kept}\" only")),
    );
    assert_eq!(slots(&cluster), "");
    assert!(!file(&run).exists());
    assert_eq!(psql::run(&cluster.url(&kept), "SELECT count(*) FROM audit"), "7");
}

#[test]
fn where_no_slot_can_be_had_the_run_goes_on_and_says_why() {
    let cluster =
        Cluster::start(14, &Options::new().conf("wal_level = logical").conf("max_replication_slots = 1"));
    let run = ProtectedRun::shop_on(&cluster);
    let command = ["--fence", "none", "--", "psql", "-Xqc", "SELECT 1"];
    // Somebody has the only one.
    let other = cluster.fresh_database("other");
    other.psql("SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')");
    run.run(&command).exits(0).says("not saved for a replay: no replication slot is free");
    assert_eq!(slots(&cluster), "theirs");
    other.psql("SELECT pg_drop_replication_slot('theirs')");
    // A role that may not replicate.
    cluster.psql("CREATE ROLE plain LOGIN CREATEDB");
    run.database.psql(&format!(
        "ALTER DATABASE {} OWNER TO plain; GRANT CREATE ON SCHEMA public TO plain; SELECT lo_unlink(900001);
         ALTER SEQUENCE tickets OWNER TO plain;
         SELECT format('ALTER TABLE %s OWNER TO plain', oid::regclass) FROM pg_class
          WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
         \\gexec",
        run.database.name()
    ));
    let mut as_plain = run.command(&command);
    as_plain.env("DATABASE_URL", cluster.url_as("plain", run.database.name()));
    Running::start(as_plain).outcome().exits(0).says("not saved for a replay: the role lacks REPLICATION");
    // A transaction that does not end.
    let mut session = run.database.session();
    session.run("BEGIN; INSERT INTO audit VALUES (1, 'x')");
    run.run(&command).exits(0).says("transactions were open for longer than 10 s");
    drop(session);
    assert_eq!(slots(&cluster), "");
    // Replication is enough, without a superuser.
    cluster.psql("ALTER ROLE plain REPLICATION");
    let mut as_plain = run.command(&[
        "--fence",
        "none",
        "--on-failure",
        "undo",
        "--",
        "sh",
        "-c",
        "psql -Xqc \"INSERT INTO audit VALUES (1, 'x')\"; exit 1",
    ]);
    as_plain.env("DATABASE_URL", cluster.url_as("plain", run.database.name()));
    drop(Running::start(as_plain).outcome().exits(12).says("is saved: "));
    assert_eq!(slots(&cluster), "");
    replay(&run).unwrap();
    assert_eq!(run.database.psql("SELECT count(*) FROM audit"), "1");
}

#[test]
fn where_the_server_trusts_not_the_plugin_the_setting_is_named() {
    let conf = Options::new().conf("wal_level = logical").conf("output_plugin_libraries = 'pgoutput'");
    let cluster = Cluster::start(18, &conf);
    let run = ProtectedRun::shop_on(&cluster);
    run.run(&["--fence", "none", "--", "psql", "-Xqc", "SELECT 1"]).exits(0).says(
        "not saved for a replay: the server's setting output_plugin_libraries does not name test_decoding",
    );
    assert_eq!(slots(&cluster), "");
}
