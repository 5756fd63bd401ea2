//! Correct things of many kinds, none of which is refused, rolled back or warned about: what lies beside the false alarms that there
//! have been. Each on the oldest and the newest server, with what psql or pg_dump makes of the same as the judge.

use tests::cluster::ends;
use tests::{Cluster, ProtectedRun, Snapshots, oracle, psql};

fn on(major: u32, name: &str) -> ProtectedRun<'static> {
    ProtectedRun::on(Cluster::shared(major).fresh_database(name))
}

/// Settings of functions, of the database and of a role in it, some of which name what is not there.
#[test]
fn no_setting_of_a_function_or_of_a_database_ends_a_check_or_a_run() {
    for major in ends() {
        let run = on(major, "settings");
        let name = run.database.name();
        let role = format!("{name}_r");
        run.database.cluster().psql(&format!("CREATE ROLE {role}"));
        run.database.psql(&format!(
            "CREATE TABLE t (i int);
             CREATE FUNCTION a() RETURNS bigint LANGUAGE sql SET search_path = '' AS 'SELECT count(*) FROM public.t';
             CREATE FUNCTION b() RETURNS bigint LANGUAGE sql SET search_path = nowhere, \"$user\", public AS 'SELECT count(*) FROM t';
             CREATE FUNCTION c() RETURNS int LANGUAGE plpgsql SET session_replication_role = replica AS 'BEGIN RETURN 1; END';
             CREATE FUNCTION d() RETURNS int LANGUAGE plpgsql SET shop.own = 'x' SET work_mem = '1MB' AS 'BEGIN RETURN 1; END';
             CREATE FUNCTION e() RETURNS int LANGUAGE sql SET role = {role} AS 'SELECT 1';
             CREATE FUNCTION f() RETURNS int LANGUAGE sql SET statement_timeout = 1 SET transform_null_equals = on AS 'SELECT 1';
             CREATE FUNCTION g() RETURNS int LANGUAGE sql SET default_tablespace = '' SET temp_tablespaces = '' AS 'SELECT 1';
             CREATE VIEW v AS SELECT a(), b(), c(), d(), e(), f(), g();
             ALTER DATABASE {name} SET search_path = ''; ALTER ROLE {role} IN DATABASE {name} SET search_path = nowhere;
             ALTER DATABASE {name} SET default_transaction_read_only = off; ALTER DATABASE {name} SET shop.own = 'y'"
        ));
        if major >= 19 {
            run.database.psql(&format!(
                "CREATE FUNCTION public.h() RETURNS int LANGUAGE sql SET search_path = null SET temp_tablespaces = null AS 'SELECT 1';
                 ALTER ROLE {role} IN DATABASE {name} SET search_path = null; ALTER DATABASE {name} SET temp_tablespaces = null"
            ));
        }
        run.run(&["check", "--level", "deep"]).exits(0).verdict("CLEAN");
        run.migration("1_a.sql", "ALTER TABLE public.t ADD COLUMN j int;\n");
        let url = "&options=-csearch_path%3Dpublic";
        let mut command = run.command(&[]);
        command.env("DATABASE_URL", run.database.url() + url);
        tests::Running::start(command).outcome().exits(0).verdict("COMMITTED").says("every check passed");
        run.run(&["--", "psql", "-Xqc", "INSERT INTO public.t VALUES (1)"]).exits(0).verdict("COMMITTED");
        run.database.psql(&format!("DROP OWNED BY {role}; DROP FUNCTION public.e() CASCADE"));
        run.database
            .cluster()
            .psql(&format!("ALTER ROLE {role} IN DATABASE {name} RESET ALL; DROP ROLE {role}"));
    }
}

/// What psql makes of the files is what a run makes of them.
fn as_psql(major: u32, files: &[&str]) {
    let (run, by_psql) = (on(major, "ours"), Cluster::shared(major).fresh_database("theirs"));
    for (number, sql) in files.iter().enumerate() {
        run.migration(&format!("{}_f.sql", number + 1), sql);
        by_psql.psql(sql);
    }
    run.run(&[]).exits(0).verdict("COMMITTED").says("every check");
    let ours = run.fingerprint_without_history();
    oracle::fingerprint(&by_psql).assert_same(&ours);
}

#[test]
fn enums_of_a_fresh_database_are_made_extended_and_used_as_psql_does() {
    for major in ends() {
        // The label in a domain, an array, a composite type, a view and a materialized view; quoted names; a label that is renamed.
        as_psql(
            major,
            &[
                "CREATE SCHEMA \"My App\"; CREATE TYPE \"My App\".\"Mood\" AS ENUM ('sad');",
                "ALTER TYPE \"My App\".\"Mood\" ADD VALUE 'it''s';\nALTER TYPE \"My App\".\"Mood\" ADD VALUE IF NOT EXISTS 'sad';",
                "CREATE DOMAIN d AS \"My App\".\"Mood\" CHECK (VALUE <> 'it''s');\nCREATE TYPE c AS (m \"My App\".\"Mood\");
                 CREATE TABLE t (m \"My App\".\"Mood\"[] DEFAULT '{\"it''s\"}', c c);\nINSERT INTO t VALUES (DEFAULT, '(it''s)');
                 CREATE VIEW v AS SELECT * FROM t WHERE m = ARRAY['it''s'::\"My App\".\"Mood\"];
                 CREATE MATERIALIZED VIEW mv AS SELECT 'it''s'::\"My App\".\"Mood\" AS m;",
            ],
        );
        // Within the literal of an array, of a row, of a range, and of JSON; of a type that goes on under another name elsewhere.
        as_psql(
            major,
            &[
                "CREATE TYPE m AS ENUM ('a'); ALTER TYPE m RENAME TO n; CREATE SCHEMA s; ALTER TYPE n SET SCHEMA s;",
                "ALTER TYPE s.n ADD VALUE 'z';",
                "CREATE TYPE s.c AS (i int, n s.n); CREATE TYPE s.r AS RANGE (subtype = s.n);
                 CREATE TABLE t (a s.n[], c s.c, r s.r, n s.n);\nINSERT INTO t VALUES ('{a,z}');\nINSERT INTO t (c) VALUES ('(1,z)');
                 INSERT INTO t (r) VALUES ('[a,z]');\nINSERT INTO t SELECT * FROM json_populate_record(NULL::t, '{\"n\": \"z\"}');",
            ],
        );
        as_psql(
            major,
            &[
                "CREATE TYPE mood AS ENUM ('a', 'b');\nCREATE TABLE t (m mood);\nINSERT INTO t VALUES ('a');",
                "ALTER TYPE mood RENAME VALUE 'a' TO 'z';\nINSERT INTO t VALUES ('z');\nALTER TYPE mood RENAME TO feeling;",
                "ALTER TYPE feeling ADD VALUE 'c' AFTER 'z';",
                "INSERT INTO t VALUES ('c');\nALTER TABLE t RENAME TO u;",
                "INSERT INTO u VALUES ('c');",
            ],
        );
    }
}

/// A file may have savepoints of its own: of any name, ours too.
#[test]
fn savepoints_of_a_file_are_its_own_whatever_their_names_are() {
    for major in ends() {
        let run = on(major, "savepoints");
        run.migration(
            "1_a.sql",
            "CREATE TABLE t (i int);\nSAVEPOINT safe_run_check;\nINSERT INTO t VALUES (1);\nROLLBACK TO SAVEPOINT safe_run_check;\n\
             SAVEPOINT \"a b\";\nINSERT INTO t VALUES (2);\nRELEASE SAVEPOINT \"a b\";\nSAVEPOINT \"a b\";\nINSERT INTO t VALUES (3);\n\
             ROLLBACK TO \"a b\";\n",
        );
        run.migration("2_b.sql", "SAVEPOINT safe_run;\nINSERT INTO t VALUES (4);\n");
        run.run(&[]).exits(0).verdict("COMMITTED").says("every check passed");
        assert_eq!(run.database.psql("SELECT string_agg(i::text, ' ' ORDER BY i) FROM t"), "2 4", "{major}");
    }
}

#[test]
fn an_enum_may_lose_a_label_that_no_row_has_wherever_it_is_used() {
    for major in ends() {
        let run = on(major, "labels");
        run.database.psql(
            "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); CREATE DOMAIN feeling AS mood; CREATE TYPE pair AS (a mood, b int);
             CREATE TABLE t (i int PRIMARY KEY, many mood[] DEFAULT '{sad}', f feeling, p pair, m mood DEFAULT 'sad');
             CREATE TABLE parts (m mood) PARTITION BY LIST (m); CREATE TABLE part_sad PARTITION OF parts FOR VALUES IN ('sad');
             INSERT INTO t VALUES (1, '{sad,glad}', 'glad', '(sad,1)', 'glad'); INSERT INTO parts VALUES ('sad')",
        );
        run.migration(
            "1_a.sql",
            "ALTER TYPE mood RENAME TO mood_old;\nCREATE TYPE mood AS ENUM ('sad', 'glad');\n\
             ALTER TABLE t ALTER many DROP DEFAULT, ALTER m DROP DEFAULT;\n\
             ALTER TABLE t ALTER many TYPE mood[] USING many::text[]::mood[], ALTER m TYPE mood USING m::text::mood;\n\
             ALTER TABLE t ALTER f TYPE mood USING f::text::mood;\nDROP DOMAIN feeling;\nCREATE DOMAIN feeling AS mood;\n\
             ALTER TABLE t ALTER f TYPE feeling;\nCREATE TYPE pair_new AS (a mood, b int);\n\
             ALTER TABLE t ALTER p TYPE pair_new USING row((p).a::text, (p).b)::text::pair_new;\nDROP TYPE pair;\n\
             ALTER TYPE pair_new RENAME TO pair;\nALTER TABLE parts RENAME TO parts_old;\n\
             CREATE TABLE parts (m mood) PARTITION BY LIST (m);\nCREATE TABLE part_sad_new PARTITION OF parts FOR VALUES IN ('sad');\n\
             INSERT INTO parts SELECT m::text::mood FROM parts_old;\nDROP TABLE parts_old;\nDROP TYPE mood_old;\n",
        );
        run.run(&["--allow-loss", "parts_old=1", "--allow-loss", "part_sad=1"]).exits(0).verdict("COMMITTED");
        // To plain text, and the type goes.
        run.migration(
            "2_b.sql",
            "ALTER TABLE t ALTER m TYPE text;\nALTER TYPE mood RENAME VALUE 'sad' TO 'blue';\n",
        );
        run.run(&[]).exits(0).verdict("COMMITTED").says("every check passed");
        assert_eq!(run.database.psql("SELECT many, f, p, m FROM t"), "{blue,glad}|glad|(blue,1)|glad");
    }
}

/// Logs of schema changes of several kinds, none of which is data that a migration lost or changed.
#[test]
fn what_event_triggers_write_fails_no_migration_at_the_deepest_level() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql(
            "CREATE SCHEMA log; CREATE TABLE log.counts (tag text PRIMARY KEY, n int); INSERT INTO log.counts VALUES ('ALTER TABLE', 7);
             CREATE TABLE log.last (one bool PRIMARY KEY DEFAULT true, tag text, at timestamptz); INSERT INTO log.last (tag) VALUES ('none');
             CREATE TABLE log.dropped (id bigserial, what text);
             CREATE FUNCTION log.counted() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO log.counts VALUES (tg_tag, 1) ON CONFLICT (tag) DO UPDATE SET n = counts.n + 1;
               UPDATE log.last SET tag = tg_tag, at = clock_timestamp(); END $$;
             CREATE FUNCTION log.gone() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO log.dropped (what) SELECT object_identity FROM pg_event_trigger_dropped_objects(); END $$;
             CREATE EVENT TRIGGER counted ON ddl_command_end EXECUTE FUNCTION log.counted();
             CREATE EVENT TRIGGER gone ON sql_drop EXECUTE FUNCTION log.gone();
             CREATE EVENT TRIGGER rewritten ON table_rewrite EXECUTE FUNCTION log.counted()",
        );
        run.migration(
            "1_a.sql",
            "ALTER TABLE orders ADD COLUMN paid bool;\nALTER TABLE orders ALTER id TYPE numeric;\nCREATE INDEX ON users (name);\n",
        );
        run.migration("2_b.sql", "DROP INDEX users_name_idx;\nALTER TABLE users ADD COLUMN z int;\nALTER TABLE users DROP COLUMN z;\n");
        run.run(&["--level", "deep"]).exits(0).verdict("COMMITTED");
        // And the undo of a command puts them back.
        let before = run.fingerprint();
        run.run(&[
            "--level",
            "deep",
            "--",
            "psql",
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DROP TABLE audit",
            "-c",
            "SELECT 1 / 0",
        ])
        .exits(12)
        .verdict("RESTORED");
        run.assert_unchanged(&before);
    }
}

/// Subscriptions that are off, without a slot, and several of them. They belong to a database by its oid: a command, whose undo is another
/// database under the name, is refused before it begins.
#[test]
fn a_database_with_subscriptions_is_drilled_restored_and_migrated() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let name = run.database.name();
        let subscription = |name: &str, more: &str| {
            format!(
                "CREATE SUBSCRIPTION {name} CONNECTION 'dbname=nowhere' PUBLICATION p, \"Q 1\" WITH (connect = false{more});"
            )
        };
        let names = ["plain", "\"No slot\"", "binary_one"].map(|word| match word {
            "plain" | "binary_one" => format!("{name}_{word}"),
            other => other.replace("No", &format!("{name} No")),
        });
        run.database.psql(&subscription(&names[0], ", slot_name = 'of_theirs'"));
        run.database
            .psql(&subscription(&names[1], ", slot_name = NONE, synchronous_commit = 'remote_apply'"));
        run.database.psql(&subscription(&names[2], ", binary = true, streaming = true, slot_name = NONE"));
        run.database.psql(&format!("COMMENT ON SUBSCRIPTION {} IS 'c'", names[0]));
        let before = run.fingerprint();
        let snapshots = Snapshots::new();
        let id = snapshots.create(&run.database, &[]);
        snapshots.run("backup", &run.database.url(), &["drill", &id]).expect(0);
        assert_eq!(run.others(), Vec::<String>::new());
        for snapshot in ["auto", "clone"] {
            let words = [
                "--snapshot",
                snapshot,
                "--",
                "psql",
                "-Xq",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                "DELETE FROM audit",
                "-c",
                "SELECT 1 / 0",
            ];
            run.run(&words).exits(3).says("it would stay behind").never_says("A superuser has rights");
            run.assert_unchanged(&before);
        }
        run.migration("1_a.sql", "ALTER TABLE audit ADD COLUMN z int;\n");
        run.run(&["--level", "deep"]).exits(0).verdict("COMMITTED");
        let copy = format!("{name}copy");
        snapshots.run("restore", &run.database.url(), &[&id, "--into", &copy]).expect(0);
        let copied = "SELECT count(*), bool_or(subenabled), bool_or(subslotname IS NOT NULL) FROM pg_subscription s JOIN pg_database d
             ON d.oid = subdbid WHERE datname = current_database()";
        assert_eq!(psql::run(&run.database.cluster().url(&copy), copied), "3|f|f");
        for url in [run.database.url(), run.database.cluster().url(&copy)] {
            for name in &names {
                psql::run(&url, &format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"));
                psql::run(&url, &format!("DROP SUBSCRIPTION {name}"));
            }
        }
        run.database.cluster().psql(&format!("DROP DATABASE {copy}"));
    }
}

/// Settings that the target does not know: of a role in the database, and of an extension that is loaded nowhere.
#[test]
fn settings_that_the_target_does_not_know_are_named_all_at_once_and_can_be_left_out() {
    let newer = Cluster::shared(18).fresh_database("settings");
    let role = format!("{}_r", newer.name());
    newer.cluster().psql(&format!("CREATE ROLE {role}"));
    newer.psql(&format!(
        "CREATE TABLE t AS SELECT 1 AS i; ALTER DATABASE {db} SET transaction_timeout = '1h'; ALTER DATABASE {db} SET shop.own = 'x';
         ALTER ROLE {role} IN DATABASE {db} SET enable_group_by_reordering = off; ALTER DATABASE {db} SET plpgsql.extra_warnings = 'all';
         CREATE FUNCTION f() RETURNS int LANGUAGE sql SET enable_group_by_reordering = off AS 'SELECT 1'",
        db = newer.name()
    ));
    let snapshots = Snapshots::new();
    let id = snapshots.create(&newer, &[]);
    let older = Cluster::shared(14).fresh_database("older");
    older
        .cluster()
        .psql(&format!("DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$"));
    let into = format!("{}copy", older.name());
    let run = |flags: &[&str]| {
        snapshots.run("restore", &older.url(), &[&[&id, "--into", &into, "--force"], flags].concat())
    };
    run(&[]).fails(3, &["transaction_timeout", "enable_group_by_reordering", "--skip-settings"]);
    let told = run(&["--skip-settings"]).expect(0).says(&[
        "transaction_timeout",
        "enable_group_by_reordering",
        "FUNCTION f() postgres was made without what the server does not accept: enable_group_by_reordering",
    ]);
    assert!(!told.stderr.contains("shop.own"), "what every server takes is set: {}", told.stderr);
    let kept = "SELECT string_agg(s, ' ' ORDER BY s) FROM pg_db_role_setting, unnest(setconfig) s JOIN pg_database d ON true
                WHERE setdatabase = d.oid AND datname = current_database()";
    assert_eq!(psql::run(&older.cluster().url(&into), kept), "plpgsql.extra_warnings=all shop.own=x");
    older.cluster().psql(&format!("DROP DATABASE {into}; "));
    older.cluster().psql(&format!("DROP ROLE {role}"));
    newer.psql(&format!("ALTER ROLE {role} IN DATABASE {} RESET ALL", newer.name()));
    newer.cluster().psql(&format!("DROP ROLE {role}"));
}
