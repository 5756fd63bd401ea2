//! A rehearsal of the design on every supported major version, with PostgreSQL's own tools only.
//!
//! The whole of safe-run and of `restore --replace` stands on what is promised here. If a future version of
//! PostgreSQL breaks one of these, the design must change and not the test.

use tests::oracle::fingerprint;
use tests::{Cluster, Database, on_every_major, psql};

const ROWS: &str = "5000";

fn table_of_rows<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE INDEX t_v ON t (v);
         INSERT INTO t SELECT i, 'value ' || i FROM generate_series(1, {ROWS}) i"
    ));
    database
}

/// Everything that a backup reads from: a full dump, and page ranges by COPY in a joined transaction.
fn dump_and_copy(database: &Database, snapshot: &str) -> (String, String) {
    let mut dump = psql::tool("pg_dump");
    // Fails at once, in place of waiting for ever, should the locks turn out to conflict.
    dump.args(["--no-sync", "--lock-wait-timeout=5s", "--snapshot", snapshot, "-d", &database.url()]);
    let dump = psql::succeed(dump);
    let mut worker = database.session();
    worker.run("SET lock_timeout = '5s'; SET statement_timeout = '30s'");
    worker.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    worker.run(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'"));
    let mut rows = worker.run("COPY (SELECT * FROM ONLY t WHERE ctid < '(10,0)') TO STDOUT");
    rows.push('\n');
    rows += &worker.run("COPY (SELECT * FROM ONLY t WHERE ctid >= '(10,0)') TO STDOUT");
    worker.run("COMMIT");
    (dump, rows)
}

on_every_major! {
    fn a_transaction_with_exclusive_locks_serves_the_snapshot_and_may_then_alter_the_tables(cluster: &Cluster) {
        let database = table_of_rows(cluster, "fenced");
        let mut holder = database.session();
        holder.run("BEGIN; LOCK TABLE ONLY t IN EXCLUSIVE MODE");
        let snapshot = holder.run("SELECT pg_export_snapshot()");

        let mut writer = database.session();
        let error = writer.try_run("SET lock_timeout = '50ms'; INSERT INTO t VALUES (0, 'fenced out')").unwrap_err();
        assert!(error.contains("55P03"), "a writer must wait for the fence: {error}");
        assert_eq!(writer.run("SELECT count(*) FROM t"), ROWS, "readers pass the fence");

        let (dump, rows) = dump_and_copy(&database, &snapshot);
        assert!(dump.contains("CREATE INDEX t_v"), "{dump}");
        assert_eq!(rows.lines().count().to_string(), ROWS);

        holder.run("SET lock_timeout = '2s'");
        holder.run("ALTER TABLE t ADD COLUMN n int NOT NULL DEFAULT 7; ALTER TABLE t ALTER COLUMN v TYPE varchar(100)");
        holder.run("UPDATE t SET v = v || '!'; CREATE INDEX ON t (n); COMMIT");
        assert_eq!(database.psql(r"SELECT count(*), min(n), bool_and(v LIKE '%!') FROM t"), format!("{ROWS}|7|t"));
    }

    fn a_rollback_after_the_snapshot_leaves_the_database_as_it_was(cluster: &Cluster) {
        let database = table_of_rows(cluster, "rolled_back");
        let before = fingerprint(&database);
        let mut holder = database.session();
        holder.run("BEGIN; LOCK TABLE ONLY t IN EXCLUSIVE MODE");
        let snapshot = holder.run("SELECT pg_export_snapshot()");
        dump_and_copy(&database, &snapshot);
        holder.run("ALTER TABLE t DROP COLUMN v; DELETE FROM t WHERE id > 10; CREATE TABLE new (i int)");
        holder.run("ROLLBACK");
        before.assert_same(&fingerprint(&database));
    }

    fn the_snapshot_is_what_the_holder_saw_when_it_had_its_locks(cluster: &Cluster) {
        let database = table_of_rows(cluster, "moment");
        // In READ COMMITTED the export takes a fresh snapshot, so a row that was committed between BEGIN and
        // LOCK is in it; a REPEATABLE READ holder would have to lock before its first query.
        let mut holder = database.session();
        holder.run("BEGIN");
        assert_eq!(holder.run("SELECT count(*) FROM t"), ROWS);
        database.psql("INSERT INTO t VALUES (0, 'before the lock')");
        holder.run("LOCK TABLE ONLY t IN EXCLUSIVE MODE");
        let snapshot = holder.run("SELECT pg_export_snapshot()");
        let (dump, rows) = dump_and_copy(&database, &snapshot);
        assert!(dump.contains("before the lock"));
        assert!(rows.contains("before the lock"));
    }

    fn an_exported_snapshot_ends_with_its_holder(cluster: &Cluster) {
        let database = table_of_rows(cluster, "ended");
        let mut holder = database.session();
        holder.run("BEGIN");
        let snapshot = holder.run("SELECT pg_export_snapshot()");
        drop(holder);
        let mut worker = database.session();
        let join = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
        // The server notices the end of a connection a moment later.
        for attempt in 0.. {
            worker.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
            match worker.try_run(&join) {
                Err(error) => {
                    // 22023, or 42704 since 17: a worker must fail, never fall back to a snapshot of its own.
                    assert!(error.contains("22023") || error.contains("42704"), "{error}");
                    break;
                }
                Ok(_) => assert!(attempt < 100, "the snapshot outlives its holder"),
            }
            worker.run("ROLLBACK");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn both_renames_of_a_swap_commit_together_and_roll_back_together(cluster: &Cluster) {
        let live = cluster.fresh_database("live");
        let staged = cluster.fresh_database("staged");
        live.psql("CREATE TABLE it_is (what text); INSERT INTO it_is VALUES ('old')");
        staged.psql("CREATE TABLE it_is (what text); INSERT INTO it_is VALUES ('restored')");
        let kept = format!("{}_replaced", live.name());
        let swap = format!(
            r#"ALTER DATABASE "{0}" RENAME TO "{kept}"; ALTER DATABASE "{1}" RENAME TO "{0}""#,
            live.name(),
            staged.name()
        );
        let what = |name: &str| psql::try_run(&cluster.url(name), "SELECT what FROM it_is");
        let mut session = psql::Session::open(&cluster.url("postgres"));

        session.run(&format!("BEGIN; {swap}; ROLLBACK"));
        assert_eq!(what(live.name()).unwrap(), "old");
        assert_eq!(what(staged.name()).unwrap(), "restored");
        assert!(what(&kept).is_err());

        session.run(&format!("BEGIN; {swap}; COMMIT"));
        assert_eq!(what(live.name()).unwrap(), "restored");
        assert_eq!(what(&kept).unwrap(), "old");
        assert!(what(staged.name()).is_err());
        assert_eq!(live.family(), [live.name().to_owned(), kept]);
    }
}

/// On all versions at the same time: each server waits 5 seconds for the session to go before it refuses.
#[test]
fn a_swap_is_refused_while_a_session_is_in_the_database() {
    std::thread::scope(|scope| {
        for major in tests::cluster::majors() {
            scope.spawn(move || {
                let cluster = Cluster::shared(major);
                let live = cluster.fresh_database("busy");
                let session = live.session();
                let rename = format!("ALTER DATABASE \"{0}\" RENAME TO \"{0}_replaced\"", live.name());
                let error = psql::Session::open(&cluster.url("postgres")).try_run(&rename).unwrap_err();
                assert!(error.contains("55006"), "PostgreSQL {major}: {error}");
                drop(session);
            });
        }
    });
}
