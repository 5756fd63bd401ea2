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
    assert_eq!(
        psql::run(&copy, "CREATE TABLE n (); SELECT count(*) FROM ddl_log WHERE tag = 'CREATE TABLE'"),
        "2"
    );

    run.run(&["--", "psql", "-Xqc", "DROP TABLE t CASCADE", "-c", "SELECT 1/0"]).exits(12);
    before.assert_same(&fingerprint(&run.database));
}

#[test]
fn a_restore_fires_no_event_trigger_postgresql_14() {
    event_triggers_stay_silent(14);
}

#[test]
fn a_restore_fires_no_event_trigger_postgresql_18() {
    event_triggers_stay_silent(18);
}
