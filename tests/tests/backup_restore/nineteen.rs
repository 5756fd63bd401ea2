//! What only PostgreSQL 19 has. All tests here have its number in their names: `scripts/test` leaves them out, and says so, where
//! it can't be had.

use tests::{Cluster, Ended, Options, Outcome, ProtectedRun, Running, Snapshots, psql, until};

/// Publications in all their forms, settings that are empty lists, keys and checks that are not enforced, names of databases.
const OBJECTS: &str = "
CREATE TABLE kept_out (id int PRIMARY KEY, v int CONSTRAINT positive CHECK (v > 0) NOT ENFORCED);
CREATE TABLE child (id int PRIMARY KEY, kept int CONSTRAINT fk REFERENCES kept_out NOT ENFORCED);
INSERT INTO kept_out VALUES (1, -1); INSERT INTO child VALUES (1, 9);
CREATE SEQUENCE numbers;
CREATE PUBLICATION sequences FOR ALL SEQUENCES;
CREATE PUBLICATION but_one FOR ALL TABLES EXCEPT (TABLE kept_out);
CREATE PUBLICATION everything FOR ALL TABLES, ALL SEQUENCES;
CREATE FUNCTION pathless() RETURNS int LANGUAGE sql SET search_path = NULL AS 'SELECT 1';
CREATE TABLE places (id int PRIMARY KEY, here regdatabase, more regdatabase[]);
INSERT INTO places VALUES (1, 'postgres', '{postgres,template1}');
";

fn objects(run: &ProtectedRun) {
    run.database.psql(OBJECTS);
    let name = psql::quote_ident(run.database.name());
    run.database.psql(&format!(
        "ALTER DATABASE {name} SET session_preload_libraries = NULL; ALTER DATABASE {name} SET local_preload_libraries = NULL"
    ));
}

const PUBLICATIONS: &str = "SELECT pubname, puballtables, puballsequences, (SELECT string_agg(prrelid::regclass || ' ' || prexcept, ', ')
    FROM pg_publication_rel WHERE prpubid = p.oid) FROM pg_publication p ORDER BY 1";

#[test]
fn postgresql_19_publications_empty_settings_and_constraints_come_back_with_every_restore_and_undo() {
    let run = ProtectedRun::shop(19);
    objects(&run);
    let publications = run.database.psql(PUBLICATIONS);
    assert!(publications.contains("but_one|t|f|kept_out t"), "{publications}");
    assert!(publications.contains("everything|t|t|"), "{publications}");
    let before = run.fingerprint();

    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &[]);
    snapshots.run("backup", &run.database.url(), &["drill"]).expect(0);
    let copy = snapshots.restore_copy(&run.database, &[]);
    before.assert_same(&tests::oracle::fingerprint_without(&copy, &[]));
    assert_eq!(psql::run(&copy, PUBLICATIONS), publications);
    snapshots
        .run("restore", &run.database.url(), &["latest", "--replace", "--drop-replaced", "-y"])
        .expect(0);
    run.assert_unchanged(&before);

    let harm =
        "DROP PUBLICATION but_one, sequences; DELETE FROM kept_out; DROP FUNCTION pathless(); SELECT 1/0";
    for snapshot in ["file", "clone"] {
        run.run(&["--snapshot", snapshot, "--", "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-c", harm])
            .exits(12);
        run.assert_unchanged(&before);
        assert_eq!(run.database.psql(PUBLICATIONS), publications, "{snapshot}");
        assert_eq!(run.database.psql("SHOW session_preload_libraries"), "", "everybody can connect");
    }
}

/// Values that name the database hold its oid, which the replaced one keeps.
#[test]
fn postgresql_19_values_that_name_the_database_are_named_after_an_undo() {
    for snapshot in ["file", "clone"] {
        let run = ProtectedRun::shop(19);
        objects(&run);
        run.database.psql("INSERT INTO places VALUES (2, current_database()::regdatabase)");
        let ended =
            run.run(&["--snapshot", snapshot, "--json", "--", "psql", "-Xqc", "SELECT 1/0"]).exits(12);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let kept = run.database.psql("SELECT here FROM places WHERE id = 2");
        assert!(run.others().contains(&kept), "{kept}");
        let notes = report["account"]["differs"].to_string();
        for column in ["here", "more"] {
            let told = format!(
                "column public.places.{column} has the type regdatabase: its values that named the database \\\"{}\\\" \
                 name \\\"{kept}\\\" now",
                run.database.name()
            );
            assert!(notes.contains(&told), "{snapshot}: {told}\n{notes}");
        }
    }
    // Where no column has that type, nothing is said.
    let run = ProtectedRun::shop(19);
    run.run(&["--snapshot", "clone", "--", "psql", "-Xqc", "SELECT 1/0"]).exits(12).never_says("regdatabase");
}

/// Its role's password expires soon, and is stored as MD5: the server warns each session of both.
fn warned() -> Cluster {
    let hba = "local all warned md5\nlocal all all trust\n";
    let cluster = Cluster::start(19, &Options::new().hba(hba));
    cluster.psql("SET password_encryption = 'md5'; CREATE ROLE warned SUPERUSER LOGIN PASSWORD 'x' VALID UNTIL 'tomorrow'");
    cluster
}

#[test]
fn postgresql_19_warnings_of_a_login_are_told_once_by_each_program() {
    let cluster = warned();
    let database = cluster.fresh_database("warned");
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    let url = cluster.url_as("warned", database.name()).replacen("warned@", "warned:x@", 1);
    let snapshots = Snapshots::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1_a.sql"), "ALTER TABLE t ADD j int;\n").unwrap();
    let dir = folder.path().to_str().unwrap();
    let once = |outcome: &Outcome| {
        for warning in ["role password will expire soon", "authenticated with an MD5-encrypted password"] {
            let count = outcome.stderr.matches(warning).count();
            assert_eq!(count, 1, "{warning}: {}", outcome.stderr);
        }
        assert!(!outcome.stderr.contains("pg_dump says"), "{}", outcome.stderr);
        let line = "warning: the server says at login: role password will expire soon (The password for role \"warned\" will expire";
        assert!(outcome.stderr.contains(line), "{}", outcome.stderr);
    };
    once(&snapshots.run("backup", &url, &["create"]).expect(0));
    once(&snapshots.run("backup", &url, &["check"]).expect(0));
    once(&snapshots.run("restore", &url, &["latest", "--into", "warned_copy"]).expect(0));
    once(&snapshots.run("backup", &url, &["drill", "latest"]).expect(0));
    once(&snapshots.run("safe-run", &url, &["--dir", dir]).expect(0));
    once(&snapshots.run("safe-run", &url, &["check"]).expect(0));
    // Another role hears of none.
    let quiet = snapshots.run("backup", &database.url(), &["create"]).expect(0);
    assert!(!quiet.stderr.contains("at login"), "{}", quiet.stderr);
    cluster.psql("DROP DATABASE warned_copy");
}

/// From 19 on a logical slot makes `wal_level = replica` logical for as long as there is one.
#[test]
fn postgresql_19_writes_of_others_are_saved_where_the_wal_becomes_logical_by_the_slot() {
    let cluster = Cluster::start(19, &Options::new().conf("wal_level = replica"));
    assert_eq!(cluster.psql("SHOW effective_wal_level"), "replica");
    let run = ProtectedRun::shop_on(&cluster);
    let script = "psql -Xqc 'ALTER TABLE audit ADD more text' >&2; touch ready; while [ ! -e go ]; do sleep 0.05; done; exit 1";
    let mut command = run.command(&["--fence", "none", "--on-failure", "undo", "--", "sh", "-c", script]);
    command.stdin(std::process::Stdio::null());
    let running = Running::start(command);
    until("the command has begun", || run.folder().join("ready").exists());
    assert_eq!(cluster.psql("SHOW effective_wal_level"), "logical");
    run.database.psql("INSERT INTO audit (id, at) VALUES (77, 'by another')");
    run.file("go", "");
    let ended: Ended = running.outcome().exits(12).verdict("RESTORED").says("is saved: 1 changed row");
    let id = run.runs().pop().unwrap();
    let file = run.folder().join("snapshots/runs").join(id).join("writes-after-snapshot.sql");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {ended}"));
    assert!(text.contains("by another"), "{text}");
    psql::run_file(&run.database.url(), &file);
    assert_eq!(run.database.psql("SELECT count(*) FROM audit WHERE id = 77"), "1");
    assert_eq!(cluster.psql("SELECT count(*) FROM pg_replication_slots"), "0");
}

/// What our parser does not read is passed on as it is, and its tables are counted all the same.
#[test]
fn postgresql_19_statements_of_the_new_version_run_and_are_undone() {
    let statements = [
        "ALTER PUBLICATION everything SET ALL TABLES EXCEPT (TABLE audit);",
        "ALTER DATABASE \"$DATABASE\" SET search_path = NULL;",
        "INSERT INTO users (id, name) VALUES (1, 'again') ON CONFLICT (id) DO SELECT RETURNING name;",
        "SELECT count(*) FILTER (WHERE id > 1), lag(id) IGNORE NULLS OVER (ORDER BY id) FROM users GROUP BY id;",
        "REPACK (ANALYZE) orders;",
        "REPACK (VERBOSE, ANALYZE off) orders USING INDEX orders_pkey;",
    ];
    for statement in statements {
        let shop = || {
            let run = ProtectedRun::shop(19);
            run.database.psql("CREATE PUBLICATION everything FOR ALL TABLES, ALL SEQUENCES");
            run
        };
        let run = shop();
        let of = |run: &ProtectedRun| statement.replace("$DATABASE", run.database.name());
        run.migration("0001_a.sql", &format!("{}\n", of(&run)));
        run.run(&[]).exits(0).verdict("COMMITTED");
        let run = shop();
        let before = run.fingerprint();
        run.migration("0001_a.sql", &format!("{}\nSELECT 1/0;\n", of(&run)));
        // REPACK (ANALYZE) runs alone, and is undone by the snapshot.
        let ended = run.run(&[]).says("division by zero");
        assert!(matches!(ended.status.code(), Some(10 | 12)), "{ended}");
        run.assert_unchanged(&before);
    }
}

/// 19 writes the second half of a position in the log with eight digits always: the same value in another text.
#[test]
fn postgresql_19_positions_in_the_log_come_from_and_go_to_every_other_version() {
    let make = "CREATE DOMAIN place AS pg_lsn CHECK (VALUE >= '0/0');
        CREATE TABLE t (id int PRIMARY KEY, note text, l pg_lsn, gone int, a pg_lsn[], d place, e place[]);
        ALTER TABLE t DROP COLUMN gone; CREATE INDEX ON t (l) WHERE l > '0/1';
        INSERT INTO t VALUES (1, '0/1', '0/0', '{0/1F0,NULL,16/B374D848}', 'FFFFFFFF/10', '{0/0}'),
          (2, E'a/0\\tb/00', NULL, '{}', NULL, NULL), (3, NULL, 'A/BCDEF012', '[2:2]={0/F}', '0/00A', NULL);
        CREATE TABLE p (id int, l pg_lsn) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
        INSERT INTO p SELECT i, ('0/' || to_hex(i))::pg_lsn FROM generate_series(0, 99) i";
    let rows = "SELECT count(*), sum(l - '0/0'), min(a[1] - '0/0'), min(note) FROM t UNION ALL SELECT count(*), sum(l - '0/0'), 0, '' FROM p";
    for (from, to) in [(14, 19), (18, 19), (19, 18), (19, 19)] {
        let source = Cluster::shared(from).fresh_database("positions");
        source.psql(make);
        let expected = source.psql(rows);
        let target = Cluster::shared(to).fresh_database("positions");
        let snapshots = Snapshots::new();
        let id = snapshots.create(&source, &[]);
        let copy = format!("{}copy", target.name());
        let force: &[&str] = if to < from { &["--force"] } else { &[] };
        for jobs in ["1", "3"] {
            let into = [&[&*id, "--into", &copy, "--jobs", jobs][..], force].concat();
            drop(
                snapshots
                    .run("restore", &target.url(), &into)
                    .expect(0)
                    .says(&["rows compared with the snapshot and equal"]),
            );
            let url = target.cluster().url(&copy);
            assert_eq!(tests::psql::run(&url, rows), expected, "{from} to {to}");
            target.cluster().psql(&format!("DROP DATABASE \"{copy}\""));
        }
        if from <= to {
            drop(
                snapshots
                    .run("restore", &target.url(), &[&id, "--table", "t", "--table", "p", "--into", &copy])
                    .expect(0),
            );
            assert_eq!(tests::psql::run(&target.cluster().url(&copy), rows), expected, "{from} to {to}");
            drop(
                snapshots
                    .run(
                        "restore",
                        &target.cluster().url(&copy),
                        &[&id, "--table", "t", "--replace", "--yes"],
                    )
                    .expect(0),
            );
            drop(snapshots.run("backup", &target.url(), &["drill", &id]).expect(0));
            target.cluster().psql(&format!("DROP DATABASE \"{copy}\""));
        }
    }
}

/// Settings of functions that an earlier server took and 19 does not.
#[test]
fn functions_with_settings_that_the_server_does_not_accept_are_made_without_them_and_named() {
    let source = Cluster::shared(18).fresh_database("former");
    source.psql(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET escape_string_warning = off AS 'SELECT 1';
         CREATE FUNCTION g(x text) RETURNS int LANGUAGE plpgsql SET search_path = public, pg_temp SET escape_string_warning = off
           SET standard_conforming_strings = off SET work_mem = '1MB' AS 'BEGIN RETURN (SELECT i FROM t LIMIT 1); END';
         CREATE TABLE t (i int CHECK (f() = 1), j int GENERATED ALWAYS AS (i + 1) STORED); INSERT INTO t VALUES (1);
         CREATE PROCEDURE p() LANGUAGE sql SET standard_conforming_strings = off AS 'SELECT i FROM t';
         CREATE INDEX ON t (i); COMMENT ON FUNCTION f() IS 'f'; CREATE VIEW v AS SELECT f()",
    );
    let snapshots = Snapshots::new();
    let id = snapshots.create(&source, &[]);
    let target = Cluster::shared(19).fresh_database("former");
    let copy = format!("{}copy", target.name());
    for jobs in ["1", "3"] {
        let restore = [&*id, "--into", &copy, "--jobs", jobs];
        snapshots.run("restore", &target.url(), &restore).fails(
            1,
            &[
                "escape_string_warning",
                "--skip-settings makes such functions without it",
                "No existing database was changed.",
            ],
        );
        let done =
            snapshots.run("restore", &target.url(), &[&restore[..], &["--skip-settings"]].concat()).expect(0);
        let told = done.says(&[
            "RESTORED",
            "but 3 things differ",
            "FUNCTION f() postgres was made without what the server does not accept: escape_string_warning",
            "was made without what the server does not accept: escape_string_warning, standard_conforming_strings",
            "PROCEDURE p() postgres was made without what the server does not accept: standard_conforming_strings",
        ]);
        drop(told);
        let url = target.cluster().url(&copy);
        let settings = tests::psql::run(&url, "SELECT proconfig FROM pg_proc WHERE proname = 'g'");
        assert_eq!(settings, "{\"search_path=public, pg_temp\",work_mem=1MB}");
        assert_eq!(tests::psql::run(&url, "SELECT obj_description('f()'::regprocedure)"), "f");
        assert_eq!(tests::psql::run(&url, "TABLE t"), "1|2");
        target.cluster().psql(&format!("DROP DATABASE \"{copy}\""));
    }
}
