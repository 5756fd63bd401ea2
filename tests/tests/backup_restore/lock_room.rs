//! More tables than the server has locks for: a command works, or ends before it begins anything, naming the setting.

use tests::{Cluster, Database, Options, ProtectedRun, Running, Snapshots};

const SAYS: [&str; 3] =
    ["max_locks_per_transaction = 10", "ALTER SYSTEM SET max_locks_per_transaction = ", "changed"];

/// Each in a transaction of its own.
fn add_tables(database: &Database, from: usize, to: usize) {
    let tables: String = (from..to)
        .map(|i| format!("CREATE TABLE t{i} (i int PRIMARY KEY); INSERT INTO t{i} VALUES ({i});\n"))
        .collect();
    database.psql(&tables);
}

fn small_server(major: u32) -> Cluster {
    Cluster::start(major, &Options::new().conf("max_locks_per_transaction = 10").conf("max_connections = 20"))
}

fn with_more_tables_than_lock_slots(major: u32) {
    const MANY: usize = 3_000;
    let shared = Cluster::shared(major).fresh_database("many");
    add_tables(&shared, 0, MANY);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&shared, &[]);

    let cluster = small_server(major);
    let run = ProtectedRun::on(cluster.fresh_database("many"));
    let name = run.database.name().to_owned();
    let by = |program: &str, arguments: &[&str]| snapshots.run(program, &run.database.url(), arguments);
    // What takes few locks at a time works.
    drop(by("restore", &[&*id, "--replace", "--drop-replaced", "--yes"]).expect(0));
    drop(by("backup", &["drill", &*id]).expect(0));
    drop(run.run(&["check"]).exits(0).verdict("CLEAN"));
    // pg_dump itself finds no room here.
    let state = || {
        run.database
            .psql("SELECT count(*), sum(i) FROM pg_class c LEFT JOIN t7 ON true WHERE relname ~ '^t[0-9]+$'")
    };
    let before = state();
    assert_eq!(before, "3000|21000");

    drop(by("backup", &["create"]).fails(3, &SAYS));
    let checked = by("backup", &["check"]).expect(3);
    assert!(checked.stdout.contains("lock slots"), "{checked:?}");
    drop(by("backup", &["diff", &*id, &run.database.url()]).fails(3, &SAYS[..2]));
    run.migration("0001_a.sql", "ALTER TABLE t1 ADD s text;\n");
    let mut session = run.database.session();
    for arguments in [
        &[][..],
        &["--fence", "read-only"],
        &["--snapshot", "none"],
        &["--", "touch", "was-run"],
        &["--fence", "exclusive", "--", "touch", "was-run"],
        &["--snapshot", "clone", "--", "touch", "was-run"],
    ] {
        let mut outcome = run.run(arguments).exits(3);
        for said in SAYS {
            outcome = outcome.says(said);
        }
        assert!(!run.folder().join("was-run").exists(), "{outcome}");
        assert_eq!(run.database.family(), [&*name], "{outcome}");
        assert_eq!(session.run("SELECT 1"), "1", "{outcome}");
        assert_eq!(state(), before, "{outcome}");
    }
    drop(run.run(&["--fence", "none", "--snapshot", "none"]).exits(0).verdict("COMMITTED"));
}

/// Around what the server promises, and has beyond it: what works is right, and what does not changes nothing.
fn at_every_number_of_tables(major: u32) {
    let cluster = small_server(major);
    let run = ProtectedRun::on(cluster.fresh_database("more"));
    let fails = ["--", "psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DROP TABLE t1", "-c", "SELECT 1 / 0"];
    let state = || {
        run.database
            .psql("SELECT count(*), sum(i) FROM pg_class c LEFT JOIN t1 ON true WHERE relname ~ '^t[0-9]+$'")
    };
    let (mut made, mut worked, mut refused) = (0, 0, 0);
    for count in [60, 120, 300, 600, 1_200, 2_400] {
        add_tables(&run.database, made, count);
        made = count;
        let before = state();
        let mut backup = tests::binaries::command("backup");
        backup.args(["create"]).current_dir(run.folder()).env("DATABASE_URL", run.database.url());
        for (outcome, done) in [(Running::start(backup).outcome(), 0), (run.run(&fails), 12)] {
            match outcome.status.code() {
                Some(code) if code == done => worked += 1,
                // The server has promised more than it has.
                Some(1 | 4) => {
                    let said = format!("{}{}", outcome.stdout, outcome.stderr);
                    let states = ["was not changed", "unchanged"];
                    assert!(said.contains("out of shared memory"), "{outcome}");
                    assert!(states.iter().any(|state| said.contains(state)), "{outcome}");
                }
                _ => {
                    drop(outcome.exits(3).says(SAYS[0]).says(SAYS[1]).never_says("locking tables"));
                    refused += 1;
                }
            }
            assert_eq!(state(), before);
        }
    }
    assert!(worked >= 2 && refused == 2, "{worked} worked, {refused} were refused");
}

#[test]
fn more_tables_than_lock_slots_are_named_before_anything_begins_postgresql_14() {
    with_more_tables_than_lock_slots(14);
}

#[test]
fn more_tables_than_lock_slots_are_named_before_anything_begins_postgresql_18() {
    with_more_tables_than_lock_slots(18);
}

#[test]
fn at_every_number_of_tables_what_works_is_right_and_what_does_not_changes_nothing_postgresql_14() {
    at_every_number_of_tables(14);
}

#[test]
fn at_every_number_of_tables_what_works_is_right_and_what_does_not_changes_nothing_postgresql_18() {
    at_every_number_of_tables(18);
}
