//! What no dump can say: a snapshot names it when it is made, a restore brings the rest, and names it again.

use tests::{Cluster, ProtectedRun, Snapshots, psql, psql::Session};

/// A snapshot whose notes name `known` is restored beside its database and brings it back after a failed command: both say so.
fn told_before_and_after(run: &ProtectedRun, known: &[&str]) {
    let snapshots = Snapshots::new();
    let url = run.database.url();
    drop(snapshots.run("backup", &url, &["create"]).expect(0).says(known));
    let fails =
        ["--", "psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "CREATE TABLE more (i int)", "-c", "SELECT 1 / 0"];
    let mut ended = run.run(&[&["--snapshot", "file"][..], &fails].concat()).exits(12).verdict("RESTORED");
    for line in known {
        ended = ended.says(line);
    }
    ended.never_says("is as it was before");
}

/// Stops a DETACH CONCURRENTLY half-way, which waits for a session that has read the partitioned table.
fn half_detached(database: &tests::Database) {
    let mut reader = Session::open(&database.url());
    reader.run("BEGIN; SELECT count(*) FROM parted");
    let stopped = database
        .try_psql("SET statement_timeout = '300ms'; ALTER TABLE parted DETACH PARTITION part1 CONCURRENTLY");
    assert!(stopped.is_err_and(|error| error.contains("statement timeout")));
    reader.run("COMMIT");
    assert_eq!(database.psql("SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), "1");
}

#[test]
fn half_finished_work_of_concurrent_statements_is_named_before_and_after() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("halfway"));
        run.database.psql(
            "CREATE TABLE t (i int NOT NULL, j int); INSERT INTO t VALUES (1, 1), (2, 1);
             CREATE UNIQUE INDEX named ON t (i); ALTER TABLE t REPLICA IDENTITY USING INDEX named; DROP INDEX named;
             CREATE TABLE parted (i int) PARTITION BY RANGE (i);
             CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10); INSERT INTO parted VALUES (1), (2)",
        );
        assert!(run.database.try_psql("CREATE UNIQUE INDEX CONCURRENTLY once ON t (j)").is_err());
        half_detached(&run.database);
        told_before_and_after(
            &run,
            &[
                "1 partition whose DETACH CONCURRENTLY was not finished (public.part1)",
                "1 index that is not valid (public.once)",
                "1 table whose index of REPLICA IDENTITY was dropped (public.t)",
            ],
        );
        assert_eq!(
            run.database.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM parted)"),
            "2|2"
        );
        run.drop_others();
    }
}

#[test]
fn a_database_without_plpgsql_is_checked_backed_up_and_undone() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("bare"));
        run.database.psql(
            "DROP EXTENSION plpgsql; CREATE DOMAIN small AS int CHECK (VALUE < 10); CREATE TABLE t (i int PRIMARY KEY, s small);
             INSERT INTO t VALUES (1, 1), (2, NULL); CREATE TABLE e (i int, EXCLUDE USING btree (i WITH =)); INSERT INTO e VALUES (1)",
        );
        run.run(&["check", "--level", "deep"]).exits(0).verdict("CLEAN");
        let before = run.fingerprint();
        let fails = ["--", "psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DELETE FROM t", "-c", "SELECT 1 / 0"];
        run.run(&fails).exits(12).verdict("RESTORED").says("is as it was before");
        before.assert_same(&run.fingerprint());
        run.drop_others();
        told_before_and_after(
            &run,
            &["1 thing that PostgreSQL brings and somebody dropped (the extension plpgsql)"],
        );
        run.drop_others();
    }
}

/// initdb's schema public is known by its oid: under another name its rights are asked for like those of any schema.
#[test]
fn a_renamed_schema_public_comes_back_with_its_rights_and_so_does_the_one_made_in_its_place() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("renamed"));
        run.database.psql(
            "CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t VALUES (1);
             ALTER SCHEMA public RENAME TO pub2; CREATE SCHEMA public; CREATE TABLE public.u (i int)",
        );
        for rights in [
            "",
            "GRANT CREATE ON SCHEMA pub2 TO PUBLIC",
            "REVOKE ALL ON SCHEMA pub2 FROM PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC",
        ] {
            run.database.psql(rights);
            let snapshots = Snapshots::new();
            snapshots.create(&run.database, &[]);
            let copy = snapshots.restore_copy(&run.database, &[]);
            // Not pg_dump's text: it compares with what initdb gave where it knows the schema by its oid.
            let held = "SELECT nspname, nspowner::regrole, r.rolname, has_schema_privilege(r.oid, n.oid, 'USAGE'), has_schema_privilege(r.oid, n.oid, 'CREATE')
                FROM pg_namespace n, pg_roles r WHERE nspname ~ '^pub' AND r.rolname IN ('pg_monitor', 'pg_database_owner') ORDER BY 1, 3";
            let before = run.database.psql(held);
            assert_eq!(psql::run(&copy, held), before, "{major}: {rights}");
            let fails =
                ["--", "psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DELETE FROM pub2.t", "-c", "SELECT 1 / 0"];
            run.run(&[&["--snapshot", "file"][..], &fails].concat())
                .exits(12)
                .verdict("RESTORED")
                .says("is as it was before");
            assert_eq!(run.database.psql(held), before, "{major}: {rights}");
            assert_eq!(run.database.psql("SELECT count(*) FROM pub2.t"), "1");
            run.drop_others();
        }
    }
}
