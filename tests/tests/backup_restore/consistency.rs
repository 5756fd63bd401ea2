//! A snapshot is one moment of the database, whatever others do while it is taken.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Snapshots, psql};

/// Runs `work` again and again beside `body`, which starts once it has run a few times; returns how often it ran.
fn beside<R>(work: impl Fn(u64) + Sync, body: impl FnOnce() -> R) -> (R, u64) {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                work(count.fetch_add(1, Ordering::SeqCst));
            }
        });
        while count.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::SeqCst);
        result.map(|result| (result, count.load(Ordering::SeqCst)))
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Money in two tables of many pages, moved between them in one transaction each, with a log whose rows refer to both.
#[test]
fn money_that_is_moved_while_a_backup_runs_is_neither_lost_nor_made() {
    let database = Cluster::shared(18).fresh_database("money");
    database.psql(
        "CREATE TABLE checking (id int PRIMARY KEY, amount bigint NOT NULL, filler text DEFAULT repeat('x', 300));
         CREATE TABLE savings (LIKE checking INCLUDING ALL);
         INSERT INTO checking SELECT i, 1000 FROM generate_series(1, 3000) i;
         INSERT INTO savings SELECT i, 1000 FROM generate_series(1, 3000) i;
         CREATE TABLE moves (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source int REFERENCES checking,
             target int REFERENCES savings, amount bigint);
         CREATE PROCEDURE move_money(times int) LANGUAGE plpgsql AS $$ BEGIN
             FOR n IN 1 .. times LOOP
                 UPDATE checking SET amount = amount - n WHERE id = 1 + n * 7919 % 3000;
                 INSERT INTO savings VALUES (3001 + (random() * 1e9)::int, 0) ON CONFLICT DO NOTHING;
                 UPDATE savings SET amount = amount + n WHERE id = 1 + n * 104729 % 3000;
                 INSERT INTO moves (source, target, amount) VALUES (1 + n * 7919 % 3000, 1 + n * 104729 % 3000, n);
                 COMMIT;
             END LOOP; END $$",
    );
    let snapshots = Snapshots::new();
    let ((), _) = beside(
        |_| drop(database.psql("CALL move_money(200)")),
        || {
            for jobs in ["1", "4"] {
                snapshots.create(&database, &["--chunk-blocks", "3", "--jobs", jobs]);
            }
        },
    );
    for id in snapshots.ids() {
        let name = format!("{}copy{}", database.name(), database.family().len());
        let outcome = snapshots.run("restore", &database.url(), &[&id, "--into", &name]).expect(0);
        assert!(!outcome.stderr.contains("NOT VALID"), "{}", outcome.stderr);
        let url = database.cluster().url(&name);
        let sums = "SELECT (SELECT sum(amount) FROM checking) + (SELECT sum(amount) FROM savings), \
                    (SELECT sum(amount) FROM savings) - 3000000 = (SELECT coalesce(sum(amount), 0) FROM moves), \
                    (SELECT count(*) FROM moves) > 0, (SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f')";
        assert_eq!(psql::run(&url, sums), "6000000|t|t|t", "{id}");
        // And the next value of the sequence is above every row.
        assert_eq!(psql::run(&url, "SELECT nextval('moves_id_seq') > max(id) FROM moves"), "t");
    }
}

/// Every one of these leaves the table with its rows for whoever looks, and empty for whoever took a snapshot too early.
#[test]
fn a_table_that_is_truncated_rewritten_or_made_again_is_never_read_as_empty() {
    let database = Cluster::shared(18).fresh_database("racing");
    database.psql(
        "CREATE TABLE truncated AS SELECT i FROM generate_series(1, 500) i;
         CREATE TABLE rewritten AS SELECT i FROM generate_series(1, 500) i;
         CREATE TABLE made AS SELECT i FROM generate_series(1, 500) i",
    );
    let round = |n: u64| {
        let types = ["bigint", "int"];
        let script = format!(
            "SET lock_timeout = '50ms';
             BEGIN; TRUNCATE truncated; INSERT INTO truncated SELECT i FROM generate_series(1, 500) i; COMMIT;
             ALTER TABLE rewritten ALTER i TYPE {};
             BEGIN; DROP TABLE made; CREATE TABLE made AS SELECT i FROM generate_series(1, 500) i; COMMIT;",
            types[(n % 2) as usize]
        );
        // Like a careful migration: short waits for locks, and again after an error.
        let _ = database.try_psql(&script);
    };
    let snapshots = Snapshots::new();
    let ((), rounds) = beside(round, || {
        for _ in 0..4 {
            snapshots.create(&database, &["--jobs", "2"]);
        }
    });
    assert!(rounds > 4, "{rounds} rounds");
    for id in snapshots.ids() {
        let name = format!("{}copy{}", database.name(), database.family().len());
        snapshots.run("restore", &database.url(), &[&id, "--into", &name]).expect(0);
        let counts = "SELECT (SELECT count(*) FROM truncated), (SELECT count(*) FROM rewritten), (SELECT count(*) FROM made)";
        assert_eq!(psql::run(&database.cluster().url(&name), counts), "500|500|500", "{id}");
        drop_database(&database, &name);
    }
}

/// The backup holds ACCESS SHARE, TRUNCATE waits for that, and the backup's next session would wait behind TRUNCATE:
/// no server sees such a deadlock.
#[test]
fn a_backup_gives_way_to_a_statement_that_waits_for_its_locks_for_ever() {
    let database = Cluster::shared(18).fresh_database("waits");
    database.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 500) i");
    let snapshots = Snapshots::new();
    let (outcome, rounds) = beside(
        |_| {
            let _ = database
                .try_psql("BEGIN; TRUNCATE t; INSERT INTO t SELECT i FROM generate_series(1, 500) i; COMMIT");
        },
        || snapshots.run("backup", &database.url(), &["create"]),
    );
    assert!(rounds > 3);
    match outcome.code {
        // It got all of its locks in the moment between two rounds.
        0 => assert!(snapshots.manifest(&snapshots.ids()[0]).contains("\"rows\":500")),
        _ => drop(outcome.fails(4, &["Somebody waits for an exclusive lock", "was not changed"])),
    }
    assert_eq!(snapshots.leftovers(), Vec::<String>::new());
}

fn drop_database(database: &Database, name: &str) {
    database.cluster().psql(&format!("DROP DATABASE {}", psql::quote_ident(name)));
}

#[test]
fn a_backup_that_gave_way_to_an_exclusive_lock_begins_again_by_itself() {
    // Between the holder, which has the table, and the workers, which come later, somebody waits for it: for as long as
    // the first attempt takes to give way, and the second one finds the way free.
    let database = Cluster::shared(18).fresh_database("gives_way");
    database
        .psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 200) i; CREATE TABLE u AS SELECT 1 AS one");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    // The holder has its locks, and the copy has not begun: the list of tables is slow to read.
    let mut writer = database.session();
    let mut blocker = database.session();
    blocker.run("BEGIN; LOCK TABLE u IN ACCESS EXCLUSIVE MODE");
    let mut command =
        snapshots.command("backup", &database.url(), &["create", "--jobs", "1", "--lock-timeout", "20s"]);
    let running =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let count = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_database d ON d.oid = l.database
                 WHERE d.datname = current_database() AND c.relname = 't' AND l.mode = 'AccessShareLock' AND l.granted";
    tests::until("the holder has the first table", || database.psql(count) != "0");
    // It queues behind the holder and before the workers.
    writer.send("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; COMMIT");
    let waiting = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted
                   AND relation = 't'::regclass";
    tests::until("the writer waits", || database.psql(waiting) == "1");
    blocker.run("COMMIT");
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("gave way, and begins again"), "{said}");
    let _ = writer.receive();
    drop(writer);
    drop(blocker);
    before.assert_same(&fingerprint_without(&snapshots.restore_copy(&database, &[]), &[]));
    assert!(snapshots.leftovers().is_empty());
}
