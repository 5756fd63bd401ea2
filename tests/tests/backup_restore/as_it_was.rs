//! What comes back is what was there, where pg_restore alone fails or changes something: rights that are written down and
//! hold anyway, functions that find nothing with an empty search path, event triggers that log whatever is done.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, ProtectedRun, Snapshots, psql};

/// Rights that hold for everybody, written down or taken away; and the rights on an extension's objects that default
/// privileges gave when it was made, of which pg_dump writes nothing.
fn rights_are_the_same_in_both_directions(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("rights");
    let role = format!("{}_reader", database.name());
    database.psql(&format!(
        "CREATE ROLE {role}; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1';
         CREATE AGGREGATE g(int) (SFUNC = int4pl, STYPE = int); CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN d AS int;
         CREATE TABLE t (i int); CREATE FUNCTION kept() RETURNS int LANGUAGE sql AS 'SELECT 1';
         GRANT EXECUTE ON FUNCTION f() TO PUBLIC; GRANT EXECUTE ON PROCEDURE p() TO PUBLIC;
         GRANT EXECUTE ON FUNCTION g(int) TO PUBLIC; GRANT USAGE ON TYPE e TO PUBLIC; GRANT USAGE ON DOMAIN d TO PUBLIC;
         GRANT EXECUTE ON FUNCTION mine() TO CURRENT_USER; GRANT ALL ON t TO CURRENT_USER;
         REVOKE EXECUTE ON FUNCTION kept() FROM PUBLIC; REVOKE USAGE ON TYPE e FROM PUBLIC; GRANT USAGE ON TYPE e TO {role};
         CREATE SCHEMA late; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {role}; CREATE EXTENSION hstore SCHEMA late"
    ));
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let copy = snapshots.restore_copy(&database, &[]);
    let may = format!(
        "SELECT has_function_privilege('public', 'late.akeys(late.hstore)', 'EXECUTE'),
                has_function_privilege('{role}', 'late.akeys(late.hstore)', 'EXECUTE'),
                has_function_privilege('{role}', 'kept()', 'EXECUTE'), has_type_privilege('public', 'e', 'USAGE'),
                has_function_privilege('public', 'f()', 'EXECUTE')"
    );
    let (before, after) = (database.psql(&may), psql::run(&copy, &may));
    for name in database.family() {
        psql::run(&cluster.url(&name), &format!("DROP OWNED BY {role}"));
    }
    cluster.psql(&format!("DROP ROLE {role}"));
    assert_eq!(before, "f|t|f|f|t");
    assert_eq!(after, before);
}

#[test]
fn rights_that_hold_anyway_are_no_missing_grants_and_nobody_gets_more_postgresql_14() {
    rights_are_the_same_in_both_directions(14);
}

#[test]
fn rights_that_hold_anyway_are_no_missing_grants_and_nobody_gets_more_postgresql_18() {
    rights_are_the_same_in_both_directions(18);
}

/// In every place where a table's rules call a function. On 17 and newer the server itself builds indexes and views with an
/// empty path, so rows come after the index there and nothing fills a view.
fn unqualified(major: u32, name: &str) -> String {
    let view = if major < 17 { "CREATE MATERIALIZED VIEW v AS SELECT slug(name) FROM made;" } else { "" };
    format!(
        "CREATE SCHEMA ext; ALTER DATABASE {name} SET search_path = public, ext; SET search_path = public, ext;
         CREATE FUNCTION ext.norm(t text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)';
         CREATE FUNCTION slug(t text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT norm($1)';
         CREATE FUNCTION steps(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN norm(t); END';
         CREATE FUNCTION own(t text) RETURNS text IMMUTABLE LANGUAGE sql SET search_path = ext AS 'SELECT norm($1)';
         CREATE TABLE made (id int PRIMARY KEY, name text DEFAULT slug('X'), s text GENERATED ALWAYS AS (steps(name)) STORED);
         CREATE TABLE checked (x text CHECK (slug(x) <> ''), y text CHECK (steps(y) <> ''));
         CREATE DOMAIN low AS text CHECK (slug(value) = value); CREATE TABLE of_domain (x low);
         CREATE TABLE found (x text); CREATE INDEX found_x ON found (steps(x)) WHERE steps(x) <> 'none';
         CREATE TABLE apart (x text, EXCLUDE USING btree (steps(x) WITH =));
         CREATE TABLE parted (x text) PARTITION BY LIST (slug(x));
         CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a');
         CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b');
         CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := norm(NEW.name); RETURN NEW; END';
         CREATE TRIGGER on_row BEFORE INSERT ON made FOR EACH ROW EXECUTE FUNCTION on_row();
         INSERT INTO made SELECT i, 'Name ' || i FROM generate_series(1, 200) i; INSERT INTO checked VALUES ('A', 'B');
         INSERT INTO of_domain VALUES ('a'); INSERT INTO found VALUES ('A'), ('B'); INSERT INTO apart VALUES ('A'), ('B');
         INSERT INTO parted VALUES ('A'), ('B'); {view}"
    )
}

fn names_are_found(major: u32) {
    let run = ProtectedRun::on(Cluster::shared(major).fresh_database("paths"));
    run.database.psql(&unqualified(major, run.database.name()));
    let before = run.fingerprint();
    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &[]);
    let copy = snapshots.restore_copy(&run.database, &[]);
    before.assert_same(&fingerprint_without(&copy, &[]));
    let copy = snapshots.restore_copy_with(&run.database, &["--jobs", "4"], &[tests::outcome::ALL_LARGE]);
    before.assert_same(&fingerprint_without(&copy, &[]));
    snapshots.run("backup", &run.database.url(), &["drill"]).expect(0);

    run.run(&["--", "psql", "-Xqc", "DELETE FROM made; DROP TABLE parted", "-c", "SELECT 1/0"]).exits(12);
    run.assert_unchanged(&before);
}

#[test]
fn functions_that_need_the_databases_search_path_find_it_postgresql_14() {
    names_are_found(14);
}

#[test]
fn functions_that_need_the_databases_search_path_find_it_postgresql_18() {
    names_are_found(18);
}

/// Single tables, into the database that is in use: its functions are as they were before and after, for everybody else all the time.
fn names_are_found_for_single_tables(major: u32) {
    let database = Cluster::shared(major).fresh_database("single");
    database.psql(&unqualified(major, database.name()));
    database.psql("REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER TABLE found ADD CHECK (slug(x) <> '')");
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let functions = "SELECT oid::regprocedure, proconfig FROM pg_proc WHERE oid >= 16384 ORDER BY 1";
    let before = (fingerprint(&database), database.psql(functions));
    let tables = [
        "--table",
        "public.checked",
        "--table",
        "public.found",
        "--table",
        "public.parted",
        "--table",
        "public.of_domain",
    ];
    let restore = |more: &[&str]| {
        let arguments = [&["latest"], &tables[..], more].concat();
        snapshots.run("restore", &database.url(), &arguments).expect(0)
    };
    for name in restore(&[]).stdout.lines() {
        let old = name.split("_restored_").next().unwrap();
        let rows = |table: &str| database.psql(&format!("SELECT x FROM {table} ORDER BY 1"));
        assert_eq!(rows(name), rows(old), "{name}");
        database.psql(&format!("DROP TABLE {name}"));
    }
    before.0.assert_same(&fingerprint(&database));
    assert_eq!(database.psql(functions), before.1);
    database.psql("DELETE FROM checked; UPDATE found SET x = x || 'c'; TRUNCATE parted");
    restore(&["--replace", "--drop-replaced", "--yes"]);
    before.0.assert_same(&fingerprint(&database));
    assert_eq!(database.psql(functions), before.1);
    // Where anybody may put something under a name of the path, none is lent.
    database.psql("GRANT CREATE ON SCHEMA ext TO PUBLIC");
    let refused = snapshots.run("restore", &database.url(), &["latest", "--table", "public.checked"]);
    refused.fails(1, &["anything in schema ext of PUBLIC", "does not exist"]);
    assert_eq!(database.psql(functions), before.1);
}

#[test]
fn functions_find_names_while_single_tables_are_restored_and_are_left_as_they_were_postgresql_14() {
    names_are_found_for_single_tables(14);
}

#[test]
fn functions_find_names_while_single_tables_are_restored_and_are_left_as_they_were_postgresql_18() {
    names_are_found_for_single_tables(18);
}

/// A role with CREATE on a schema of the path puts its own function under the name that another's calls.
#[test]
fn no_search_path_leads_to_what_a_third_role_made() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("planted");
    let role = format!("{}_third", database.name());
    database.psql(&unqualified(18, database.name()));
    database.psql(&format!(
        "CREATE ROLE {role}; GRANT ALL ON SCHEMA ext TO {role}; SET ROLE {role};
         CREATE FUNCTION ext.norm(t varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE
           AS 'BEGIN RAISE LOG ''planted as %'', current_user; RETURN lower(t); END'"
    ));
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let into = format!("{}copy", database.name());
    let outcome = snapshots.run("restore", &database.url(), &["latest", "--into", &into]);
    database.psql(&format!("DROP OWNED BY {role}"));
    cluster.psql(&format!("DROP ROLE {role}"));
    let stranger = format!("function ext.norm(character varying) of {role}");
    outcome.fails(1, &[&stranger, "function norm(text) does not exist"]);
    assert!(!cluster.log().contains("planted as"));
}

/// An event trigger that writes down every statement, and everything whose restore could fire it.
fn event_triggers_stay_silent(major: u32) {
    let run = ProtectedRun::on(Cluster::shared(major).fresh_database("events"));
    run.database.psql(
        "CREATE TABLE ddl_log (id serial PRIMARY KEY, tag text);
         CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql
           AS 'BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END';
         CREATE TABLE t (i int PRIMARY KEY, s text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) i;
         CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM t; COMMENT ON TABLE t IS 'commented';
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION f() FROM PUBLIC;
         CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl();
         CREATE EVENT TRIGGER at_start ON ddl_command_start EXECUTE FUNCTION log_ddl();
         CREATE EVENT TRIGGER off ON sql_drop EXECUTE FUNCTION log_ddl(); ALTER EVENT TRIGGER off DISABLE;
         ALTER EVENT TRIGGER log_ddl ENABLE ALWAYS; COMMENT ON EVENT TRIGGER log_ddl IS 'writes';
         REFRESH MATERIALIZED VIEW v",
    );
    let before = run.fingerprint();
    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &[]);
    let copy = snapshots.restore_copy(&run.database, &["--jobs", "2"]);
    before.assert_same(&fingerprint_without(&copy, &[]));
    snapshots.run("backup", &run.database.url(), &["drill"]).expect(0);
    // In the live database they fire, and that is said: to a person and to a program, before and after.
    let fire = "fire for what is made and altered here, and what they write stays: at_start, log_ddl";
    let plan =
        snapshots.run("restore", &run.database.url(), &["latest", "--table", "t", "--replace", "--dry-run"]);
    assert!(plan.stdout.contains(fire), "{}", plan.stdout);
    assert_eq!(
        psql::run(&copy, "CREATE TABLE n (); SELECT count(*) FROM ddl_log WHERE tag = 'CREATE TABLE'"),
        "2"
    );

    run.run(&["--", "psql", "-Xqc", "DROP TABLE t CASCADE", "-c", "SELECT 1/0"]).exits(12);
    before.assert_same(&fingerprint(&run.database));
    let report = snapshots.run("restore", &run.database.url(), &["latest", "--table", "t", "--json"]);
    assert!(report.stdout.contains(fire), "{}", report.stdout);
}

#[test]
fn a_restore_fires_no_event_trigger_postgresql_14() {
    event_triggers_stay_silent(14);
}

#[test]
fn a_restore_fires_no_event_trigger_postgresql_18() {
    event_triggers_stay_silent(18);
}

/// The server's default version is another; the objects and rights of the version that was there come back.
fn extensions_keep_their_version(major: u32) {
    let database = Cluster::shared(major).fresh_database("version");
    database.psql(
        "CREATE SCHEMA \"of Ext\"; CREATE EXTENSION hstore SCHEMA \"of Ext\" VERSION '1.4'; CREATE EXTENSION cube;
         CREATE EXTENSION earthdistance; CREATE TABLE t (h \"of Ext\".hstore); INSERT INTO t VALUES ('a=>1');
         COMMENT ON EXTENSION hstore IS 'an old one'; GRANT USAGE ON SCHEMA \"of Ext\" TO PUBLIC",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let copy = snapshots.restore_copy(&database, &[]);
    let versions = "SELECT string_agg(extname || ' ' || extversion, ',' ORDER BY 1) FROM pg_extension";
    assert!(database.psql(versions).contains("hstore 1.4"));
    assert_eq!(psql::run(&copy, versions), database.psql(versions));
    fingerprint(&database).assert_same(&fingerprint_without(&copy, &[]));
}

#[test]
fn extensions_come_back_in_the_version_that_was_there_postgresql_14() {
    extensions_keep_their_version(14);
}

#[test]
fn extensions_come_back_in_the_version_that_was_there_postgresql_18() {
    extensions_keep_their_version(18);
}

/// A function redefined since, columns of a child in an order of their own, a shell operator.
fn what_differs_is_in_the_verdict(major: u32) {
    let run = ProtectedRun::on(Cluster::shared(major).fresh_database("differs"));
    run.database.psql(
        "CREATE FUNCTION g(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
         CREATE FUNCTION same(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
         CREATE TABLE t (i int, g int GENERATED ALWAYS AS (g(i)) STORED, s int GENERATED ALWAYS AS (same(i)) STORED);
         CREATE TABLE kept (i int, s int GENERATED ALWAYS AS (same(i)) STORED); INSERT INTO kept VALUES (1);
         INSERT INTO t SELECT generate_series(1, 10)",
    );
    let snapshots = Snapshots::new();
    let url = run.database.url();
    let found = || {
        let into = format!("{}copy{}", run.database.name(), run.database.family().len());
        snapshots.create(&run.database, &[]);
        let told = snapshots.run("restore", &url, &["latest", "--into", &into, "--json"]).expect(0).stdout;
        let report: serde_json::Value = serde_json::from_str(&told).expect("one document");
        report["differences"].clone()
    };
    assert_eq!(found(), serde_json::Value::Null);
    run.database.psql(
        "CREATE OR REPLACE FUNCTION g(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 2';
         CREATE TABLE parent (a int); CREATE TABLE child (b int, a int); ALTER TABLE child INHERIT parent",
    );
    let expected = [
        "1 inheritance child (child): restored with the columns in another order, the parent's first",
        "generated columns of t (g, s): other values than before, computed again by function public.g(integer), function \
         public.same(integer)",
    ];
    assert_eq!(found(), serde_json::json!(expected));
    let into = format!("{}plain", run.database.name());
    snapshots.run("restore", &url, &["latest", "--into", &into]).expect(0).says(&expected);

    let ended = run
        .run(&[
            "--snapshot",
            "file",
            "--report-json",
            "report.json",
            "--",
            "psql",
            "-Xqc",
            "DELETE FROM t",
            "-c",
            "SELECT 1/0",
        ])
        .exits(12)
        .says("has its rows of before, but 2 things differ")
        .never_says("is as it was before");
    let report = std::fs::read_to_string(run.folder().join("report.json")).expect("it was written");
    let report: serde_json::Value = serde_json::from_str(&report).expect("one document");
    for line in expected {
        assert!(ended.stdout.contains(&format!("differs: {line}")), "{ended}");
        assert!(
            report["account"]["differs"].as_array().is_some_and(|all| all.iter().any(|one| one == line)),
            "{report}"
        );
    }
}

#[test]
fn what_a_restore_changes_is_in_verdict_report_and_json_postgresql_14() {
    what_differs_is_in_the_verdict(14);
}

#[test]
fn what_a_restore_changes_is_in_verdict_report_and_json_postgresql_18() {
    what_differs_is_in_the_verdict(18);
}

/// `''` in its place would be a library without a name, and nobody could connect.
#[test]
fn a_list_setting_without_elements_comes_back_without_elements() {
    for major in tests::cluster::ends() {
        let database = Cluster::shared(major).fresh_database("lists");
        let name = database.name();
        database.psql(&format!(
            "ALTER DATABASE {name} SET session_preload_libraries FROM CURRENT; ALTER DATABASE {name} SET work_mem = '5MB';
             SELECT set_config('search_path', '', false); ALTER DATABASE {name} SET search_path FROM CURRENT"
        ));
        let set = "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                   WHERE d.datname = current_database()";
        let before = database.psql(set);
        assert!(before.contains("session_preload_libraries=,"), "{before}");
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        assert_eq!(psql::run(&snapshots.restore_copy(&database, &[]), set), before);
    }
}

/// Until 15 a read-only transaction may write large objects.
#[test]
fn large_objects_that_others_write_behind_the_fence_are_named_and_kept() {
    for (major, others_can) in [(14, true), (18, false)] {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("large"));
        run.database
            .psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1); SELECT lo_from_bytea(11, 'before')");
        let before = run.fingerprint();
        // Another session, behind the fence.
        let other = format!(
            "env -u PGOPTIONS psql -Xq '{}' -c \"SELECT lo_from_bytea(4711, 'of others')\" -c \"SELECT lo_put(11, 0, 'B')\" \
             || true; psql -Xqc 'DELETE FROM t'; exit 1",
            run.database.url()
        );
        let ended = run.run(&["--", "sh", "-c", &other]).exits(12);
        before.assert_same(&run.fingerprint());
        let named = "2 large objects were written or deleted since the snapshot, by this run or by others";
        assert_eq!(ended.to_string().contains(named), others_can, "{ended}");
        if others_can {
            let kept = run.others().into_iter().find(|name| name.contains("_replaced_")).expect("it is kept");
            let kept = run.database.cluster().url(&kept);
            assert_eq!(psql::run(&kept, "SELECT convert_from(lo_get(4711), 'UTF8')"), "of others");
        }
    }
}

/// A log of schema changes is written by every migration that changes the schema: that is expected.
#[test]
fn a_log_of_schema_changes_fails_no_migration_at_the_deep_level() {
    let run = ProtectedRun::on(Cluster::shared(18).fresh_database("ddl"));
    run.database.psql(
        "CREATE TABLE ddl_log (id serial PRIMARY KEY, tag text); CREATE TABLE t (i int); INSERT INTO t VALUES (1);
         CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql
           AS 'BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END';
         CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl(); CREATE TABLE seen ()",
    );
    run.migration("0001_a.sql", "ALTER TABLE t ADD COLUMN n int;\n");
    run.run(&["--level", "deep"]).exits(0);
    assert_eq!(run.database.psql("SELECT count(*) FROM ddl_log WHERE tag = 'ALTER TABLE'"), "1");
    // Rows that go are a loss all the same.
    run.migration("0002_b.sql", "ALTER TABLE t ADD COLUMN m int;\nDO 'BEGIN DELETE FROM t; END';\n");
    run.run(&["--level", "deep"]).exits(11);
}

/// Sessions of ours would wait for our own fence in a login event trigger that writes.
#[test]
fn a_login_event_trigger_that_writes_holds_no_run_up() {
    let run = ProtectedRun::on(Cluster::shared(18).fresh_database("login"));
    run.database.psql(
        "CREATE TABLE logins (at timestamptz DEFAULT now()); CREATE TABLE t (i int); INSERT INTO t VALUES (1);
         CREATE FUNCTION on_login() RETURNS event_trigger LANGUAGE plpgsql
           AS 'BEGIN IF current_setting(''transaction_read_only'') = ''off'' THEN INSERT INTO public.logins DEFAULT VALUES; END IF; END';
         CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION on_login(); ALTER EVENT TRIGGER on_login ENABLE ALWAYS",
    );
    run.migration("0001_a.sql", "ALTER TABLE t ADD COLUMN n int;\n");
    run.run(&[]).exits(0);
    let before = run.fingerprint();
    run.run(&["--", "psql", "-Xqc", "DELETE FROM t", "-c", "SELECT 1/0"]).exits(12);
    let logins = ["table \"public.logins\""];
    before.without(&logins).assert_same(&run.fingerprint().without(&logins));
    run.database.psql("DROP EVENT TRIGGER on_login");
}

/// In every place that loading rows evaluates. The function tells in the server's log who ran it.
fn planted(role: &str) -> String {
    format!(
        "CREATE ROLE {role} LOGIN; CREATE SCHEMA planted AUTHORIZATION {role}; GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role};
         CREATE FUNCTION planted.spy(anyelement) RETURNS bool IMMUTABLE LANGUAGE plpgsql
           AS 'BEGIN RAISE LOG ''{role} spies as %'', current_user; RETURN true; END';
         CREATE FUNCTION planted.same(text) RETURNS text IMMUTABLE LANGUAGE plpgsql
           AS 'BEGIN PERFORM planted.spy(1); RETURN $1; END';
         CREATE DOMAIN planted.d AS varchar(20) CHECK (planted.spy(1)); CREATE DOMAIN planted.e AS planted.d NOT NULL;
         CREATE TYPE planted.pair AS (a int, b planted.d); CREATE TYPE planted.mood AS ENUM ('sad', 'fine');
         CREATE TABLE planted.checked (id bigint GENERATED ALWAYS AS IDENTITY, \"odd Name\" numeric(8,2) CHECK (planted.spy(1)),
           c char(5), v varchar(7), t timestamptz, b bytea, j jsonb, m planted.mood, a int[], n text);
         INSERT INTO planted.checked (\"odd Name\", c, v, t, b, j, m, a, n) SELECT i / 3.0, 'x', E'a\\t\\\\b', now(), '\\xdeadbeef',
           '{{\"k\": 1}}', 'fine', '{{1,NULL}}', NULL FROM generate_series(1, 500) i;
         CREATE TABLE planted.of_domain (x planted.e, p planted.pair, ds planted.d[]);
         INSERT INTO planted.of_domain VALUES ('a', '(1,b)', '{{c,d}}');
         CREATE TABLE planted.made (x text, y text GENERATED ALWAYS AS (planted.same(x)) STORED); INSERT INTO planted.made VALUES ('a');
         CREATE TABLE planted.parted (x text) PARTITION BY LIST (planted.same(x));
         CREATE TABLE planted.parted_a PARTITION OF planted.parted FOR VALUES IN ('a'); INSERT INTO planted.parted VALUES ('a');
         CREATE TABLE planted.volatile (x float CHECK (random() < 2)); INSERT INTO planted.volatile VALUES (1);
         CREATE TABLE public.plain (x int CHECK (x > 0)); INSERT INTO public.plain VALUES (1); RESET ROLE"
    )
}

fn rules_run_as_their_owner(major: u32) {
    let cluster = Cluster::shared(major);
    let run = ProtectedRun::on(cluster.fresh_database("owner"));
    let role = format!("{}_low", run.database.name());
    run.database.psql(&planted(&role));
    let before = run.fingerprint();
    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &["--chunk-blocks", "1"]);
    let copy = snapshots.restore_copy_with(&run.database, &["--jobs", "3"], &[tests::outcome::ALL_LARGE]);
    before.assert_same(&fingerprint_without(&copy, &[]));
    run.run(&["--", "psql", "-Xqc", "DROP SCHEMA planted CASCADE", "-c", "SELECT 1/0"]).exits(12);
    run.assert_unchanged(&before);
    let log = cluster.log();
    for name in run.database.family() {
        psql::run(&cluster.url(&name), &format!("DROP OWNED BY {role} CASCADE"));
    }
    cluster.psql(&format!("DROP ROLE {role}"));
    assert!(log.contains(&format!("{role} spies as {role}")), "it was never called");
    // In the databases that were restored; what a run checks in the live one is another's promise.
    let live = format!("@{}/", run.database.name());
    let spied = format!("{role} spies as postgres");
    let ours: Vec<&str> = log.lines().filter(|line| line.contains(&spied) && !line.contains(&live)).collect();
    assert!(ours.is_empty(), "it ran with the loader's rights: {ours:#?}");
}

#[test]
fn what_the_rules_of_a_table_call_runs_as_its_owner_while_rows_are_loaded_postgresql_14() {
    rules_run_as_their_owner(14);
}

#[test]
fn what_the_rules_of_a_table_call_runs_as_its_owner_while_rows_are_loaded_postgresql_18() {
    rules_run_as_their_owner(18);
}

/// An extension is made before the tables that were there before it, and its own event trigger refuses them.
#[test]
fn event_triggers_of_extensions_are_off_until_the_end_and_then_as_the_extension_made_them() {
    const SCRIPT: &str = "
        CREATE FUNCTION refuses() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no changes''; END';
        CREATE EVENT TRIGGER guard ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE INDEX', 'GRANT', 'REFRESH MATERIALIZED VIEW')
          EXECUTE FUNCTION refuses();
        CREATE EVENT TRIGGER guard_always ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION refuses();
        ALTER EVENT TRIGGER guard_always ENABLE ALWAYS;";
    let files =
        [("guard.control", "default_version = '1.0'\nrelocatable = true\n"), ("guard--1.0.sql", SCRIPT)];
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &tests::Options::new().extension(&files));
        let database = cluster.fresh_database("guarded");
        database.psql(
            "CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE INDEX t_i ON t (i); CREATE VIEW v AS SELECT 1 AS one;
             CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t; GRANT SELECT ON t TO PUBLIC; CREATE EXTENSION guard",
        );
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let copy = snapshots.restore_copy(&database, &[]);
        fingerprint(&database).assert_same(&fingerprint_without(&copy, &[]));
        let enabled = "SELECT string_agg(evtname || ' ' || evtenabled::text, ',' ORDER BY evtname) FROM pg_event_trigger";
        assert_eq!(psql::run(&copy, enabled), "guard O,guard_always A");
        assert!(psql::try_run(&copy, "CREATE TABLE n ()").is_err_and(|error| error.contains("no changes")));
    }
}

/// pg_dump -C keeps it too. A template can't be dropped, so nothing that is made on the way may be one.
#[test]
fn a_template_database_comes_back_as_one() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        let (name, cluster) = (run.database.name().to_owned(), run.database.cluster());
        let set =
            |name: &str, value: bool| cluster.psql(&format!("ALTER DATABASE \"{name}\" IS_TEMPLATE {value}"));
        let templates = || {
            let names = cluster.psql(&format!(
                "SELECT datname FROM pg_database WHERE datistemplate AND datname ~ '^{name}' ORDER BY 1"
            ));
            names.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        set(&name, true);
        let snapshots = Snapshots::new();
        let id = snapshots.create(&run.database, &[]);
        let url = run.database.url();
        drop(snapshots.run("backup", &url, &["drill", &id]).expect(0));
        let copy = format!("{name}copy");
        drop(snapshots.run("restore", &url, &[&id, "--into", &copy]).expect(0));
        assert_eq!(templates(), [&*name, &copy]);
        set(&copy, false);
        cluster.psql(&format!("DROP DATABASE \"{copy}\""));
        drop(snapshots.run("restore", &url, &[&id, "--replace", "--drop-replaced", "--yes"]).expect(0));
        assert_eq!(templates(), [&*name]);
        assert_eq!(run.database.family(), [&*name]);
        let fails = ["psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DELETE FROM audit", "-c", "SELECT 1 / 0"];
        for flags in [&[][..], &["--fence", "exclusive"]] {
            run.run(&[flags, &["--"], &fails].concat()).exits(12).verdict("RESTORED");
            assert_eq!(templates(), [&*name], "{flags:?}");
        }
        set(&name, false);
    }
}

/// Who puts everything into schemas of his own drops the schema public.
#[test]
fn a_database_without_the_schema_public_is_undone_and_stays_without_it() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("nopublic"));
        run.database.psql(
            "DROP SCHEMA public; CREATE SCHEMA app; CREATE TYPE app.comp AS (a int, b text);
             CREATE DOMAIN app.dc AS app.comp CHECK ((VALUE).a > 0); CREATE DOMAIN app.small AS int CHECK (VALUE < 10);
             CREATE TABLE app.x (i int PRIMARY KEY, l app.dc[], m app.small[]);
             INSERT INTO app.x VALUES (1, ARRAY['(2,)'::app.comp]::app.dc[], '{1,2}'), (2, NULL, '{}')",
        );
        let before = run.fingerprint();
        run.run(&["check", "--level", "deep"]).exits(0).verdict("CLEAN");
        let fails =
            ["--", "psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DELETE FROM app.x", "-c", "SELECT 1 / 0"];
        for flags in [&["--snapshot", "file"][..], &["--snapshot", "clone"]] {
            run.run(&[flags, &fails].concat())
                .exits(12)
                .verdict("RESTORED")
                .says("is as it was before")
                .never_says("NOT VALID");
            before.assert_same(&run.fingerprint());
            assert_eq!(run.database.psql("SELECT to_regnamespace('public') IS NULL"), "t");
        }
        run.drop_others();
    }
}
