//! `restore --map-role`: who owned what, and what was granted to whom, under other names, and nothing else changed.
//!
//! The oracle is the fingerprint of the source with the names replaced: every role of these tests has a name that occurs
//! nowhere else.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Options, Snapshots, psql};

/// Roles of one test, on a server that others use: named after its database and dropped before it.
struct Roles<'d> {
    database: &'d Database<'d>,
    names: Vec<String>,
}

impl<'d> Roles<'d> {
    fn new(database: &'d Database<'d>, names: &[&str]) -> Roles<'d> {
        let names: Vec<String> = names.iter().map(|name| format!("{}_{name}", database.name())).collect();
        for name in &names {
            database.psql(&format!("CREATE ROLE {name}"));
        }
        Roles { database, names }
    }
}

impl Drop for Roles<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            for database in self.database.family() {
                let url = self.database.cluster().url(&database);
                let _ = psql::try_run(&url, &format!("DROP OWNED BY {name} CASCADE"));
                let _ = psql::try_run(&url, &format!("REASSIGN OWNED BY {name} TO postgres"));
            }
            let _ = self.database.try_psql(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"));
        }
    }
}

/// One object of every kind that has an owner or privileges, with OLD, OTHER and READER for roles.
const OBJECTS: &str = r#"
GRANT ALL ON DATABASE DB TO OLD; ALTER DATABASE DB OWNER TO OLD; GRANT CONNECT ON DATABASE DB TO READER;
ALTER ROLE OLD IN DATABASE DB SET work_mem = '7MB';
CREATE SCHEMA app AUTHORIZATION OLD; GRANT USAGE, CREATE ON SCHEMA app TO OTHER; GRANT USAGE ON SCHEMA app TO READER;
CREATE SCHEMA other AUTHORIZATION OTHER; GRANT USAGE ON SCHEMA other TO READER; GRANT USAGE, CREATE ON SCHEMA other TO OLD WITH GRANT OPTION;
SET ROLE OLD;
CREATE TABLE app.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, "od""d | col" text, n numeric);
INSERT INTO app.t (n) SELECT i FROM generate_series(1, 100) i;
CREATE TABLE app.parts (i int, a int) PARTITION BY RANGE (i); CREATE TABLE app.p1 PARTITION OF app.parts FOR VALUES FROM (0) TO (9);
GRANT SELECT ON app.t TO READER; GRANT UPDATE ("od""d | col"), SELECT (n) ON app.t TO READER WITH GRANT OPTION;
REVOKE DELETE ON app.t FROM OLD;
CREATE VIEW app.v AS SELECT id FROM app.t; CREATE MATERIALIZED VIEW app.m AS SELECT count(*) FROM app.t;
CREATE SEQUENCE app.seq; GRANT USAGE ON SEQUENCE app.seq TO OTHER;
CREATE FUNCTION app.f(integer, text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; REVOKE ALL ON FUNCTION app.f FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.f TO OTHER;
CREATE PROCEDURE app.p() LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE app.agg(int) (SFUNC = int4pl, STYPE = int);
CREATE AGGREGATE app.counted(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
CREATE TYPE app.mood AS ENUM ('a', 'b'); CREATE TYPE app.pair AS (a int, b text); CREATE DOMAIN app.pos AS int CHECK (VALUE > 0);
CREATE TYPE app.span AS RANGE (subtype = int); GRANT USAGE ON TYPE app.mood TO READER; REVOKE USAGE ON TYPE app.pos FROM PUBLIC;
CREATE COLLATION app.posix (locale = 'POSIX');
CREATE TEXT SEARCH DICTIONARY app.d (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION app.c (COPY = simple);
CREATE STATISTICS app.st ON id, n FROM app.t;
CREATE OPERATOR app.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
ALTER TABLE app.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON app.t TO OLD, READER USING (true); CREATE POLICY all_of ON app.t TO PUBLIC USING (true);
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO READER; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT USAGE ON SEQUENCES TO READER WITH GRANT OPTION;
SELECT lo_from_bytea(4711, 'owned'); GRANT SELECT ON LARGE OBJECT 4711 TO READER;
RESET ROLE;
-- Of others, with OLD among those who have something, and something that rests on what OLD has.
SET ROLE OTHER;
CREATE TABLE other.t (i int); GRANT SELECT, INSERT ON other.t TO OLD WITH GRANT OPTION; GRANT UPDATE (i) ON other.t TO OLD;
ALTER DEFAULT PRIVILEGES IN SCHEMA other GRANT ALL ON TABLES TO OLD;
SELECT lo_from_bytea(4712, 'granted'); GRANT UPDATE ON LARGE OBJECT 4712 TO OLD;
SET ROLE OLD;
GRANT SELECT ON other.t TO READER WITH GRANT OPTION;
SET ROLE READER;
GRANT SELECT ON other.t TO PUBLIC;
RESET ROLE;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER s TO OLD;
-- In no schema, whatever its name says.
CREATE SERVER pg_temp_s FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER pg_temp_s TO OLD; ALTER SERVER pg_temp_s OWNER TO OTHER;
ALTER SERVER s OWNER TO OTHER; CREATE USER MAPPING FOR OLD SERVER s OPTIONS (user 'me', password 'it''s\secret');
CREATE PUBLICATION pub FOR TABLE other.t; ALTER PUBLICATION pub OWNER TO OTHER;
GRANT USAGE ON LANGUAGE plpgsql TO OLD; GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_logdir() TO OLD;
CREATE OPERATOR CLASS app.ops FOR TYPE int USING btree AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int, int);
ALTER OPERATOR CLASS app.ops USING btree OWNER TO OLD; ALTER OPERATOR FAMILY app.ops USING btree OWNER TO OLD;
CREATE CONVERSION app.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; ALTER CONVERSION app.conv OWNER TO OLD;
"#;

/// Fills the source as the test's roles and returns the roles.
fn filled<'d>(database: &'d Database<'d>) -> Roles<'d> {
    let roles = Roles::new(database, &["old", "other", "reader"]);
    let [old, other, reader] = &roles.names[..] else { panic!("three roles") };
    let script = OBJECTS
        .replace("OLD", old)
        .replace("OTHER", other)
        .replace("READER", reader)
        .replace("DATABASE DB", &format!("DATABASE {}", psql::quote_ident(database.name())));
    database.psql(&script);
    roles
}

/// Everything that the oracle sees, as sorted lines, with each name replaced.
///
/// pg_dump orders grants by their roles' names, and so the lines are compared without their order.
fn lines(print: &tests::Fingerprint, replace: &[(&str, &str)]) -> Vec<String> {
    let parts = print.parts("").map(|(key, value)| format!("{key}: {value}"));
    let mut lines: Vec<String> = print.schema().lines().map(str::to_owned).chain(parts).collect();
    for line in &mut lines {
        for (old, new) in replace {
            *line = line.replace(old, new);
        }
        // A list of roles, and an array of privileges, in the order of names.
        if let Some((start, list)) =
            line.split_once(" TO ").filter(|(start, _)| start.starts_with("CREATE POLICY"))
        {
            let (list, rest) = list.split_once(" USING").unwrap();
            let mut list: Vec<&str> = list.split(',').map(str::trim).collect();
            list.sort_unstable();
            *line = format!("{start} TO {} USING{rest}", list.join(", "));
        }
        if let Some((start, list)) = line.split_once(r#""acl" : ["#) {
            let (list, rest) = list.split_once(']').unwrap();
            let mut list: Vec<&str> = list.split(',').map(str::trim).collect();
            list.sort_unstable();
            *line = format!("{start}{}{rest}", list.join(", "));
        }
    }
    // Nobody can give an extension away: it is whose who restores, and a warning says so.
    lines.retain(|line| !line.is_empty() && !line.starts_with("--") && !line.starts_with("extension \""));
    lines.sort();
    lines
}

/// Fails with the lines that are only on one side.
fn assert_equal(source: &[String], restored: &[String]) {
    let beyond = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    assert_eq!(beyond(source, restored), beyond(restored, source), "only before, only after");
    assert_eq!(source, restored);
}

fn maps_roles_that_the_target_does_not_have(from: u32, to: u32) {
    let source = Cluster::shared(from);
    let target = Cluster::start(to, &Options::new());
    let database = source.fresh_database("mapped");
    let roles = filled(&database);
    let [old, other, reader] = &roles.names[..] else { panic!("three roles") };
    target.psql(&format!("CREATE ROLE new; CREATE ROLE {other}; CREATE ROLE {reader}"));
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let url = target.url("postgres");
    let restore = |arguments: &[&str]| {
        snapshots.run("restore", &url, &[&[id.as_str(), "--into", "copy", "--jobs", "4"], arguments].concat())
    };

    // Without it: refused, with the way out.
    restore(&[]).fails(3, &[old, "--map-role OLD=NEW", "No database was changed."]);
    let mapping = format!("{old}=new");
    let planned = restore(&["--map-role", &mapping, "--dry-run"]).expect(0);
    assert!(planned.stdout.contains("made for the time of the restore"), "{}", planned.stdout);
    assert_eq!(target.psql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{old}'")), "0");

    restore(&["--map-role", &mapping]).expect(0);
    let restored = fingerprint_without(&target.url("copy"), &[]);
    if from == to {
        assert_equal(&lines(&before, &[(old, "new")]), &lines(&restored, &[]));
    }
    let everything = format!("{}\n{}", restored.schema(), lines(&restored, &[]).join("\n"));
    assert!(!everything.contains(old.as_str()) && everything.contains("OWNER TO new"), "{everything}");
    // The role of the time of the restore is gone, and PostgreSQL drops none that anything depends on.
    assert_eq!(target.psql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{old}'")), "0");
    let options =
        "SELECT array_agg(o ORDER BY o) FROM pg_user_mappings, unnest(umoptions) o WHERE usename = 'new'";
    assert_eq!(psql::run(&target.url("copy"), options), database.psql(&options.replace("new", old)));
    before.assert_same(&fingerprint(&database));
}

#[test]
fn roles_that_the_target_does_not_have_are_mapped_on_14() {
    maps_roles_that_the_target_does_not_have(14, 14);
}

#[test]
fn roles_that_the_target_does_not_have_are_mapped_on_18() {
    maps_roles_that_the_target_does_not_have(18, 18);
}

#[test]
fn roles_are_mapped_from_14_to_18() {
    maps_roles_that_the_target_does_not_have(14, 18);
}

tests::on_every_major! {
    fn a_role_that_the_target_has_keeps_all_that_it_has_elsewhere(cluster: &Cluster) {
        let database = cluster.fresh_database("both");
        let roles = filled(&database);
        let [old, other, reader] = &roles.names[..] else { panic!("three roles") };
        let before = fingerprint(&database);
        let snapshots = Snapshots::new();
        let id = snapshots.create(&database, &[]);
        let copy = format!("{}copy", database.name());
        // To a role that exists, and that the snapshot names as well: what both had is one.
        let mapping = format!("{old}={other}");
        snapshots.run("restore", &database.url(), &[&id, "--into", &copy, "--map-role", &mapping]).expect(0);
        let restored = fingerprint_without(&cluster.url(&copy), &[]);
        let text = lines(&restored, &[]).join("\n");
        assert!(!text.contains(old.as_str()), "{text}");
        assert!(text.contains(&format!("OWNER TO {other}")) && text.contains(reader.as_str()), "{text}");
        let rows = |print: &tests::Fingerprint| print.parts("table ").map(|(k, v)| format!("{k}{v}")).collect::<Vec<_>>();
        assert_eq!(rows(&before), rows(&restored));
        // The live database, which the same role owns, is as it was: owners, grants, its own privileges.
        before.assert_same(&fingerprint(&database));
    }
}

#[test]
fn the_bootstrap_superuser_can_be_mapped() {
    // PostgreSQL records no dependencies on that role.
    for major in tests::cluster::ends() {
        let source = Cluster::shared(major);
        let database = source.fresh_database("bootstrap");
        database.psql(
            "CREATE TABLE t AS SELECT 1 AS one; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE TYPE m AS ENUM ('a'); CREATE SCHEMA s; CREATE TABLE s.t (i serial); GRANT SELECT ON t TO PUBLIC;
             CREATE VIEW v AS SELECT 1; SELECT lo_create(5); CREATE EXTENSION hstore",
        );
        let before = fingerprint(&database);
        let role = Roles::new(&database, &["new"]);
        let snapshots = Snapshots::new();
        let copy = format!("{}copy", database.name());
        let id = snapshots.create(&database, &[]);
        let mapping = format!("postgres={}", role.names[0]);
        snapshots.run("restore", &database.url(), &[&id, "--into", &copy, "--map-role", &mapping]).expect(0);
        let restored = fingerprint_without(&source.url(&copy), &[]);
        // Members of an extension belong to who made the extension.
        assert!(!restored.schema().contains("OWNER TO postgres"), "{}", restored.schema());
        assert_equal(&lines(&before, &[("postgres", &role.names[0])]), &lines(&restored, &[]));
        before.assert_same(&fingerprint(&database));
    }
}

#[test]
fn what_can_not_be_mapped_is_refused_before_anything_is_made() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("refused");
    let roles = Roles::new(&database, &["old", "new", "plain"]);
    let [old, new, plain] = &roles.names[..] else { panic!("three roles") };
    database.psql(&format!(
        "CREATE TABLE t (i int); ALTER TABLE t OWNER TO {old}; ALTER ROLE {plain} LOGIN CREATEDB"
    ));
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let copy = format!("{}copy", database.name());
    let attempt = |url: &str, mappings: &[&str]| {
        let mut arguments = vec![id.as_str(), "--into", &copy];
        mappings.iter().for_each(|mapping| arguments.extend(["--map-role", mapping]));
        snapshots.run("restore", url, &arguments)
    };
    let superuser = database.url();
    let pair = |a: &str, b: &str| format!("{a}={b}");
    attempt(&superuser, &[&pair(old, "nobody_at_all")])
        .fails(3, &["the server has no role \"nobody_at_all\""]);
    attempt(&superuser, &[&pair("nobody_at_all", new)])
        .fails(3, &["the snapshot names no role \"nobody_at_all\""]);
    attempt(&superuser, &[&pair(old, new), &pair(old, plain)]).fails(3, &["twice"]);
    attempt(&superuser, &[&pair(old, "postgres"), &pair("postgres", old)])
        .fails(3, &["as an old and as a new one"]);
    attempt(&superuser, &["nonsense"]).expect(2);
    attempt(&cluster.url_as(plain, "postgres"), &[&pair(old, new)])
        .fails(3, &[&format!("the restoring role is no member of \"{new}\""), "No database was changed."]);
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn a_restore_that_fails_leaves_no_role_behind() {
    let source = Cluster::shared(18);
    let database = source.fresh_database("failing");
    let roles = Roles::new(&database, &["old"]);
    let old = &roles.names[0];
    // An event trigger belongs to superusers only.
    database.psql(&format!(
        "ALTER ROLE {old} SUPERUSER; SET ROLE {old};
         CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e()"
    ));
    let target = Cluster::start(18, &Options::new());
    target.psql("CREATE ROLE new");
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let before = target.psql("SELECT array_agg(datname) FROM pg_database");
    let mapping = format!("{old}=new");
    snapshots
        .run("restore", &target.url("postgres"), &[&id, "--into", "copy", "--map-role", &mapping])
        .fails(1, &["superuser"]);
    assert_eq!(target.psql("SELECT array_agg(datname) FROM pg_database"), before);
    assert_eq!(target.psql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{old}'")), "0");
}
