//! The rows of the list of hazards that concern single objects and sessions: each failure names its object, leaves nothing
//! behind, and the live database as it was.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Options, Outcome, Snapshots, psql, until};

/// A restore of the only snapshot fails with `code` and these words, and leaves nothing.
fn restore_fails(database: &Database, snapshots: &Snapshots, code: i32, texts: &[&str]) {
    let before = fingerprint(database);
    for target in [&["--replace", "-y"][..], &[]] {
        // One connection: the order of loading is the order of size.
        let arguments = [&["latest", "--jobs", "1"], target].concat();
        snapshots.run("restore", &database.url(), &arguments).fails(code, texts);
        assert_eq!(database.family(), [database.name()]);
    }
    before.assert_same(&fingerprint(database));
}

fn a_check_that_reads_another_table_is_restored(major: u32) {
    let database = Cluster::shared(major).fresh_database("reads");
    // By size alone, the larger table would be loaded before the one that its CHECK reads has a row.
    database.psql(
        "CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small VALUES (1);
         CREATE FUNCTION known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.small WHERE id = $1)';
         CREATE TABLE large (id int, t text, CONSTRAINT must_be_known CHECK (known(id)));
         INSERT INTO large SELECT 1, repeat('x', 500) FROM generate_series(1, 500)",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &["--jobs", "1"]);
    let copy = snapshots.restore_copy_with(&database, &["--jobs", "1"], &[]);
    fingerprint(&database).assert_same(&fingerprint_without(&copy, &[]));
}

#[test]
fn a_check_that_reads_another_table_is_restored_with_its_rows_postgresql_14() {
    a_check_that_reads_another_table_is_restored(14);
}

#[test]
fn a_check_that_reads_another_table_is_restored_with_its_rows_postgresql_18() {
    a_check_that_reads_another_table_is_restored(18);
}

#[test]
fn a_view_whose_function_relies_on_a_sessions_search_path_fails_the_restore_by_the_functions_name() {
    // From PostgreSQL 17 on such a view can't be filled in the first place.
    let database = Cluster::shared(14).fresh_database("path");
    database.psql(
        // A path that the session alone has: nothing tells a restore of it.
        "CREATE SCHEMA app; SET search_path = app; CREATE TABLE t (i int); INSERT INTO t VALUES (1);
         CREATE FUNCTION relies_on_path() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END';
         CREATE MATERIALIZED VIEW m AS SELECT relies_on_path() AS n",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    restore_fails(&database, &snapshots, 1, &["relies_on_path", "\"t\" does not exist", "search_path"]);
}

/// The module dummy_seclabel is in no package, so the label is written into the catalog: it is kept in the archive, and a
/// server without the provider refuses it.
#[test]
fn a_security_label_without_its_provider_fails_the_restore_by_name() {
    for major in tests::cluster::ends() {
        let database = Cluster::shared(major).fresh_database("label");
        database.psql(
            "CREATE TABLE labelled (i int); SET allow_system_table_mods = on;
             INSERT INTO pg_seclabel VALUES ('labelled'::regclass, 'pg_class'::regclass, 0, 'absent_provider', 'secret')",
        );
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        restore_fails(&database, &snapshots, 1, &["absent_provider", "labelled"]);
    }
}

#[test]
fn what_template1_holds_is_not_added_to_a_restored_database() {
    let cluster = Cluster::start(18, &Options::new());
    psql::run(
        &cluster.url("template1"),
        "CREATE TABLE of_the_site (i int); CREATE SCHEMA site; CREATE EXTENSION hstore SCHEMA site",
    );
    // One without the additions, and one that was made with them and has rows there.
    for options in ["TEMPLATE template0", "TEMPLATE template1"] {
        let database = cluster.fresh_database_with("template", options);
        database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
        if options.ends_with('1') {
            database.psql("INSERT INTO of_the_site VALUES (2)");
        }
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let url = snapshots.restore_copy(&database, &[]);
        fingerprint(&database).assert_same(&fingerprint_without(&url, &[]));
    }
}

/// Ends the server's side of our sessions that copy rows of a database of this name or longer, once there is one.
fn cut_a_copy(database: &Database, direction: &str) {
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity
          WHERE query LIKE 'COPY%{direction}%' AND state = 'active' AND starts_with(datname, '{}')",
        database.name()
    );
    until("a COPY is under way", || database.cluster().psql(&cut) == "t");
}

fn a_connection_lost_in_mid_copy_is_no_end_of_data(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("cut");
    // Slow to compress, so that the COPY lasts; and slow to load.
    database.psql(
        "CREATE FUNCTION slow(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE t (t text CHECK (slow(t)));
         INSERT INTO t SELECT string_agg(md5((i * 100 + n)::text), '') FROM generate_series(1, 12000) i, generate_series(1, 60) n GROUP BY i",
    );
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let start = |program: &str, arguments: &[&str]| {
        let mut command = snapshots.command(program, &database.url(), arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    };
    let backup = start("backup", &["create", "--compress", "zstd:19", "--jobs", "1"]);
    cut_a_copy(&database, "STDOUT");
    let outcome = ended(backup);
    assert!([1, 4].contains(&outcome.code), "{}: {}", outcome.code, outcome.stderr);
    assert!(
        outcome.stderr.contains("copy rows out") && outcome.stderr.contains("hint: "),
        "{}",
        outcome.stderr
    );
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());

    let id = snapshots.create(&database, &[]);
    database.psql("CREATE OR REPLACE FUNCTION slow(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN true; END'");
    let slow = fingerprint(&database);
    // Of the second snapshot the function is slow.
    let second = snapshots.create(&database, &[]);
    assert_ne!(id, second);
    let restore = start("restore", &[&second, "--replace", "-y"]);
    cut_a_copy(&database, "STDIN");
    let outcome = ended(restore);
    assert!([1, 4].contains(&outcome.code), "{}: {}", outcome.code, outcome.stderr);
    assert!(
        outcome.stderr.contains("copy rows in") && outcome.stderr.contains("was not changed"),
        "{}",
        outcome.stderr
    );
    assert_eq!(database.family(), [database.name()]);
    slow.assert_same(&fingerprint(&database));
    drop(before);
}

#[test]
fn a_connection_lost_in_mid_copy_fails_the_backup_and_the_restore_postgresql_14() {
    a_connection_lost_in_mid_copy_is_no_end_of_data(14);
}

#[test]
fn a_connection_lost_in_mid_copy_fails_the_backup_and_the_restore_postgresql_18() {
    a_connection_lost_in_mid_copy_is_no_end_of_data(18);
}

#[test]
fn a_snapshot_that_would_be_held_too_long_is_given_up() {
    let database = Cluster::shared(18).fresh_database("held");
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    // A pg_dump that never ends; only its version is a real one's.
    let folder = tempfile::tempdir().unwrap();
    for name in ["pg_dump", "pg_restore"] {
        let path = folder.path().join(name);
        let script = "#!/bin/sh\ncase $1 in --version) echo \"$(basename $0) (PostgreSQL) 18.0\" ;; *) exec sleep 600 ;; esac\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let snapshots = Snapshots::new();
    let mut command = snapshots.command("backup", &database.url(), &["create", "--max-duration", "1s"]);
    let outcome = Outcome::of(command.env("SAFE_RUN_PG_BIN", folder.path()));
    outcome.fails(1, &["--max-duration", "Nothing was stored", "was not changed"]);
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
    let ours = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", database.name());
    until("its sessions are gone", || database.cluster().psql(&ours) == "0");
    snapshots.create(&database, &["--max-duration", "10m"]);
}
