//! An undo never turns out to be impossible after the damage is done: whatever stands in a database, a command that destroys
//! rows and fails is refused before anything begins (exit code 3, nobody disconnected), or the database is as it was before
//! (12). The oracle says which.

use tests::oracle::fingerprint;
use tests::{Cluster, Database, ProtectedRun, Session, psql};

/// What destroys rows, and fails.
const WRECKS: [&str; 9] =
    ["--", "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "delete from t", "-c", "select 1/0"];

/// As whom the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    Superuser,
    /// The owner of the database, with CREATEDB, and no superuser.
    Owner,
}

/// Something in a database, made by a superuser; `$OWNER` owns the database, `$OTHER` is a role that it is no member of.
struct Case {
    name: &'static str,
    /// The oldest server that knows it.
    from: u32,
    sql: &'static str,
}

const fn case(name: &'static str, sql: &'static str) -> Case {
    Case { name, from: 14, sql }
}

/// A database of an owner who is no superuser, with this in it.
struct Constellation {
    run: ProtectedRun<'static>,
    owner: String,
    other: String,
}

impl Constellation {
    fn new(major: u32, sql: &str) -> Constellation {
        let cluster = Cluster::shared(major);
        let database = cluster.fresh_database("undo");
        let (owner, other) = (format!("{}_owner", database.name()), format!("{}_other", database.name()));
        database.psql(&format!(
            "CREATE ROLE {owner} LOGIN CREATEDB; CREATE ROLE {other}; ALTER DATABASE {} OWNER TO {owner};
             ALTER SCHEMA public OWNER TO {owner}",
            database.name()
        ));
        psql::run(
            &cluster.url_as(&owner, database.name()),
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 40) i",
        );
        let made = Constellation { run: ProtectedRun::on(database), owner, other };
        made.psql(sql);
        made
    }

    fn database(&self) -> &Database<'static> {
        &self.run.database
    }

    fn psql(&self, sql: &str) -> String {
        let sql = sql.replace("$OWNER", &self.owner).replace("$OTHER", &self.other);
        self.database().psql(&sql.replace("$DATABASE", self.database().name()))
    }

    /// Runs the failing command; its exit code and what it said, or what does not hold that must.
    fn wreck(&self, who: As, name: &str, flags: &[&str]) -> Result<(i32, String), String> {
        let url = match who {
            As::Superuser => self.database().url(),
            As::Owner => self.database().cluster().url_as(&self.owner, self.database().name()),
        };
        let before = fingerprint(self.database());
        let mut somebody = Session::open(&url);
        let mut command = self.run.command(&[flags, &WRECKS].concat());
        command.env("DATABASE_URL", &url);
        let ended = tests::Running::start(command).outcome();
        let code = ended.status.code().unwrap_or(-1);
        let said = format!("{name} as {who:?} {flags:?}: {ended}");
        if ![3, 12].contains(&code) {
            return Err(said);
        }
        let difference = before.diff(&fingerprint(self.database()));
        if !difference.is_empty() {
            return Err(format!("{said}\n{difference}"));
        }
        if code == 3 {
            let snapshots = std::fs::read_dir(self.run.folder().join("snapshots/snapshots"));
            if somebody.try_run("SELECT 1") != Ok("1".to_owned()) {
                return Err(format!("a session was ended: {said}"));
            }
            if snapshots.map_or(0, Iterator::count) != 0 {
                return Err(format!("a snapshot was made in vain: {said}"));
            }
            if !said.contains("hint: ") {
                return Err(format!("no hint: {said}"));
            }
        }
        self.run.assert_open();
        match self.database().family().into_iter().find(|name| name.contains("_trial_")) {
            Some(left) => Err(format!("{left} is left: {said}")),
            None => Ok((code, said)),
        }
    }
}

/// Panics with all of what does not hold.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n=========\n"));
}

impl Drop for Constellation {
    fn drop(&mut self) {
        for database in self.database().family() {
            let url = self.database().cluster().url(&database);
            let drop_owned = format!("DROP OWNED BY {}, {} CASCADE", self.owner, self.other);
            let give = format!("REASSIGN OWNED BY {}, {} TO postgres", self.owner, self.other);
            let _ = psql::try_run(&url, &give);
            let _ = psql::try_run(&url, &drop_owned);
        }
        let _ = self.database().try_psql(&format!("DROP ROLE {}, {}", self.owner, self.other));
    }
}

/// One object, setting or right of somebody else in the database of an owner who is no superuser.
const OF_OTHERS: [Case; 36] = [
    case("publication for all tables", "CREATE PUBLICATION p FOR ALL TABLES"),
    Case { name: "publication of a schema", from: 15, sql: "CREATE PUBLICATION p FOR TABLES IN SCHEMA public" },
    case(
        "event trigger",
        "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e()",
    ),
    case("setting of a superuser", "ALTER DATABASE \"$DATABASE\" SET log_min_duration_statement = 100"),
    case("setting of a library", "ALTER DATABASE \"$DATABASE\" SET nobody.knows = 'x'"),
    case("setting of another role", "ALTER ROLE $OTHER IN DATABASE \"$DATABASE\" SET work_mem = '5MB'"),
    case("setting of a function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET log_min_messages = error AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO $OWNER"),
    case("table of another role", "CREATE TABLE theirs (i int); ALTER TABLE theirs OWNER TO $OTHER; GRANT SELECT ON theirs TO $OWNER"),
    case("table of a superuser", "CREATE TABLE theirs (i int); GRANT SELECT ON theirs TO $OWNER"),
    case("table that can't be read", "CREATE TABLE theirs (i int)"),
    case("view of a superuser", "CREATE VIEW w AS SELECT 1 AS one"),
    case("materialized view of a superuser", "CREATE MATERIALIZED VIEW w AS SELECT 1 AS one"),
    case("function of a superuser", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    case("security definer", "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"),
    case("procedure of a superuser", "CREATE PROCEDURE f() LANGUAGE sql AS 'SELECT 1'"),
    case("aggregate of a superuser", "CREATE AGGREGATE a (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')"),
    case("function in internal", "CREATE FUNCTION f(int) RETURNS int LANGUAGE internal AS 'int4abs'; ALTER FUNCTION f(int) OWNER TO $OWNER"),
    case("leakproof function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO $OWNER"),
    case("extension that is not trusted", "CREATE EXTENSION pageinspect"),
    case("foreign-data wrapper", "CREATE FOREIGN DATA WRAPPER w; ALTER FOREIGN DATA WRAPPER w OWNER TO postgres"),
    case("server of a wrapper", "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; ALTER SERVER s OWNER TO $OWNER"),
    case(
        "operator class",
        "CREATE OPERATOR CLASS c FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
         ALTER OPERATOR CLASS c USING hash OWNER TO $OWNER",
    ),
    case("operator family", "CREATE OPERATOR FAMILY c USING btree; ALTER OPERATOR FAMILY c USING btree OWNER TO $OWNER"),
    case(
        "operator",
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    ),
    case(
        "base type",
        "CREATE TYPE b; CREATE FUNCTION b_in(cstring) RETURNS b LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
         CREATE FUNCTION b_out(b) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
         CREATE TYPE b (INPUT = b_in, OUTPUT = b_out, LIKE = int4)",
    ),
    case("cast", "CREATE CAST (date AS oid) WITHOUT FUNCTION"),
    case("text search template", "CREATE TEXT SEARCH TEMPLATE x (LEXIZE = dsimple_lexize, INIT = dsimple_init)"),
    case("text search dictionary", "CREATE TEXT SEARCH DICTIONARY x (TEMPLATE = simple)"),
    case("access method", "CREATE ACCESS METHOD h TYPE TABLE HANDLER heap_tableam_handler"),
    case("language", "CREATE LANGUAGE l HANDLER plpgsql_call_handler"),
    case("default privileges of another role", "ALTER DEFAULT PRIVILEGES FOR ROLE $OTHER GRANT SELECT ON TABLES TO PUBLIC"),
    case(
        "grant that another role gave",
        "GRANT SELECT ON t TO $OTHER WITH GRANT OPTION; SET ROLE $OTHER; GRANT SELECT ON t TO PUBLIC; RESET ROLE",
    ),
    case("large object of another role", "SELECT lo_from_bytea(4711, 'theirs'); ALTER LARGE OBJECT 4711 OWNER TO $OTHER"),
    case("schema and enum of a superuser", "CREATE SCHEMA s; CREATE TYPE s.e AS ENUM ('a')"),
    case("domain, range, composite", "CREATE DOMAIN d AS int; CREATE TYPE r AS RANGE (SUBTYPE = int); CREATE TYPE c AS (i int)"),
    case("collation, conversion, sequence", "CREATE COLLATION c (LOCALE = 'C'); CREATE CONVERSION k FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; CREATE SEQUENCE q"),
];

/// Rows that broke their own rules since they were written, and code that says something else now.
const BROKEN_SINCE: [Case; 12] = [
    case(
        "a time that has passed",
        "SET ROLE $OWNER; CREATE TABLE late (id int PRIMARY KEY, until timestamptz CHECK (until > now()));
         INSERT INTO late VALUES (1, clock_timestamp() + interval '50 ms'); SELECT pg_sleep(0.1)",
    ),
    case(
        "a domain whose time has passed",
        "SET ROLE $OWNER; CREATE DOMAIN soon AS timestamptz CHECK (VALUE > now()); CREATE TABLE late (until soon);
         INSERT INTO late VALUES (clock_timestamp() + interval '50 ms'); SELECT pg_sleep(0.1)",
    ),
    case(
        "a CHECK that reads another table",
        "SET ROLE $OWNER; CREATE TABLE zz (id int); INSERT INTO zz VALUES (1);
         CREATE FUNCTION known(i int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.zz WHERE id = i)';
         CREATE TABLE aa (id int CHECK (known(id))); INSERT INTO aa VALUES (1); DELETE FROM zz",
    ),
    case(
        "a CHECK that passes or not by the order in which tables are loaded",
        "SET ROLE $OWNER; CREATE TABLE lim (n int); INSERT INTO lim VALUES (5);
         CREATE FUNCTION below(i int) RETURNS bool LANGUAGE sql AS 'SELECT $1 <= (SELECT max(n) FROM public.lim)';
         CREATE TABLE aa (id int CHECK (below(id))); INSERT INTO aa VALUES (1), (5);
         INSERT INTO aa SELECT 1 FROM generate_series(1, 200); UPDATE lim SET n = 2",
    ),
    case(
        "a CHECK function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 0';
         CREATE TABLE aa (id int CHECK (ok(id))); INSERT INTO aa VALUES (1);
         CREATE OR REPLACE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 1'",
    ),
    case(
        "a unique index over a function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION key(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i';
         CREATE TABLE aa (id int); CREATE UNIQUE INDEX ON aa (key(id)); INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION key(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    ),
    case(
        "an index function that fails now",
        "SET ROLE $OWNER; CREATE FUNCTION key(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i; END';
         CREATE TABLE aa (id int); CREATE INDEX ON aa (key(id)) WHERE id > 0; INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION key(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i / 0; END'",
    ),
    case(
        "an exclusion over a function that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION span(i int) RETURNS int4range LANGUAGE sql IMMUTABLE AS 'SELECT int4range(i, i + 1)';
         CREATE TABLE aa (id int, EXCLUDE USING gist (span(id) WITH &&)); INSERT INTO aa VALUES (1), (2);
         CREATE OR REPLACE FUNCTION span(i int) RETURNS int4range LANGUAGE sql IMMUTABLE AS 'SELECT int4range(0, 9)'",
    ),
    case(
        "a partition key that was redefined",
        "SET ROLE $OWNER; CREATE FUNCTION part(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i % 2';
         CREATE TABLE aa (id int) PARTITION BY LIST (part(id)); CREATE TABLE aa0 PARTITION OF aa FOR VALUES IN (0);
         INSERT INTO aa VALUES (2); CREATE OR REPLACE FUNCTION part(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7'",
    ),
    case(
        "a materialized view whose query fails now",
        "SET ROLE $OWNER; CREATE TABLE aa (x int); INSERT INTO aa VALUES (1); CREATE MATERIALIZED VIEW m AS SELECT 1 / x AS y FROM aa;
         INSERT INTO aa VALUES (0)",
    ),
    case(
        "functions found by the database's search_path",
        "CREATE SCHEMA ext AUTHORIZATION $OWNER; ALTER DATABASE \"$DATABASE\" SET search_path = public, ext; SET ROLE $OWNER;
         SET search_path = public, ext;
         CREATE FUNCTION ext.norm(s text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(s)';
         CREATE FUNCTION slug(s text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN norm(s); END';
         CREATE TABLE aa (n text CHECK (slug(n) <> ''), s text GENERATED ALWAYS AS (slug(n)) STORED);
         CREATE INDEX ON aa (slug(n)); INSERT INTO aa VALUES ('A')",
    ),
    case(
        "a view that is filled by such a function",
        "CREATE SCHEMA ext AUTHORIZATION $OWNER; SET ROLE $OWNER; SET search_path = public, ext;
         CREATE FUNCTION ext.norm(s text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(s)';
         CREATE FUNCTION slug(s text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN s; END';
         CREATE MATERIALIZED VIEW m AS SELECT slug(v) FROM t;
         CREATE OR REPLACE FUNCTION slug(s text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN norm(s); END'",
    ),
];

/// What the owner makes by himself: all of it in one database.
const OWN: &str = "
SET ROLE $OWNER; CREATE EXTENSION btree_gist; CREATE EXTENSION hstore; CREATE EXTENSION pg_trgm;
CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b positive);
CREATE TYPE span AS RANGE (SUBTYPE = int); CREATE COLLATION mine (LOCALE = 'C'); CREATE SEQUENCE q START 7;
CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, p positive, q pair, s span);
CREATE TABLE child (extra text COLLATE mine) INHERITS (parent);
CREATE TABLE many (at date, n int DEFAULT nextval('q')) PARTITION BY RANGE (at);
CREATE TABLE many_1 PARTITION OF many FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); INSERT INTO many VALUES ('2020-02-02');
CREATE TABLE refers (id int REFERENCES t DEFERRABLE, n text NOT NULL, l int GENERATED ALWAYS AS (length(n)) STORED, EXCLUDE USING gist (id WITH =));
INSERT INTO refers (id, n) VALUES (1, 'one'); INSERT INTO parent (m, p, q, s) VALUES ('good', 1, '(1,2)', '[1,5)');
CREATE INDEX ON refers (lower(n)) WHERE n <> ''; CREATE STATISTICS st ON id, n FROM refers; ANALYZE refers;
CREATE VIEW w AS SELECT * FROM refers; CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t; CREATE RULE r AS ON INSERT TO w DO INSTEAD NOTHING;
ALTER TABLE refers ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON refers USING (true);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'; CREATE OPERATOR @+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = plus);
CREATE AGGREGATE total (int) (SFUNC = plus, STYPE = int, INITCOND = '0');
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql AS 'SELECT ROW($1, $1)::pair'; CREATE CAST (int AS pair) WITH FUNCTION to_pair(int);
CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION conf (COPY = simple);
CREATE PUBLICATION p FOR TABLE t; SELECT lo_from_bytea(99, 'mine'); COMMENT ON TABLE t IS 'rows';
GRANT SELECT ON t TO $OTHER; GRANT USAGE ON SCHEMA public TO $OTHER WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO $OTHER;
ALTER DATABASE \"$DATABASE\" SET work_mem = '9MB'; ALTER ROLE $OWNER IN DATABASE \"$DATABASE\" SET work_mem = '8MB';
ALTER DATABASE \"$DATABASE\" CONNECTION LIMIT 50; COMMENT ON DATABASE \"$DATABASE\" IS 'mine'; REVOKE TEMPORARY ON DATABASE \"$DATABASE\" FROM PUBLIC";

/// Of each kind of which only a superuser makes, one: all of it in one database, for a superuser.
fn of_others_together(major: u32) -> String {
    // These can't stand beside each other, or speak of a table that is there once.
    let apart = [
        "publication of a schema",
        "table of another role",
        "table that can't be read",
        "function of a superuser",
        "materialized view of a superuser",
        "security definer",
        "procedure of a superuser",
        "leakproof function",
        "server of a wrapper",
        "text search dictionary",
        "operator family",
        "collation, conversion, sequence",
        "domain, range, composite",
        "setting of a function",
    ];
    let together = OF_OTHERS.iter().filter(|case| case.from <= major && !apart.contains(&case.name));
    together.map(|case| format!("{};\n", case.sql)).collect()
}

fn owner_with_objects_of_others(major: u32, part: usize) {
    let mut faults = Vec::new();
    for case in OF_OTHERS.iter().skip(part).step_by(4).filter(|case| case.from <= major) {
        let made = Constellation::new(major, case.sql);
        faults.extend(made.wreck(As::Owner, case.name, &[]).err());
        // Told to rely on the snapshot, it is refused, and says what is in the way.
        std::fs::remove_dir_all(made.run.folder().join("snapshots")).expect("the first run made it");
        match made.wreck(As::Owner, case.name, &["--snapshot", "file"]) {
            Ok((3, _)) => {}
            Ok((_, said)) | Err(said) => faults.push(said),
        }
    }
    none(&faults);
}

fn rows_that_broke_their_rules(major: u32, who: As) {
    let cases = BROKEN_SINCE.iter().filter(|case| case.from <= major);
    let faults: Vec<String> = cases
        .filter_map(|case| Constellation::new(major, case.sql).wreck(who, case.name, &[]).err())
        .collect();
    none(&faults);
}

macro_rules! majors {
    ($($name:ident => $body:expr;)+) => { $(
        mod $name {
            use super::*;
            #[test] fn postgresql_14() { let body: fn(u32) = $body; body(14); }
            #[test] fn postgresql_18() { let body: fn(u32) = $body; body(18); }
        }
    )+ };
}

majors! {
    objects_of_others_never_make_the_undo_of_an_owner_impossible_1 => |major| owner_with_objects_of_others(major, 0);
    objects_of_others_never_make_the_undo_of_an_owner_impossible_2 => |major| owner_with_objects_of_others(major, 1);
    objects_of_others_never_make_the_undo_of_an_owner_impossible_3 => |major| owner_with_objects_of_others(major, 2);
    objects_of_others_never_make_the_undo_of_an_owner_impossible_4 => |major| owner_with_objects_of_others(major, 3);
    rows_that_broke_their_rules_never_make_an_undo_impossible => |major| rows_that_broke_their_rules(major, As::Superuser);
    rows_that_broke_their_rules_never_make_the_undo_of_an_owner_impossible => |major| rows_that_broke_their_rules(major, As::Owner);
    what_an_owner_makes_is_undone_for_him_and_for_a_superuser => |major| {
        let made = Constellation::new(major, OWN);
        for who in [As::Owner, As::Superuser] {
            let (code, said) = made.wreck(who, "own", &[]).unwrap_or_else(|said| panic!("{said}"));
            assert_eq!(code, 12, "{said}");
        }
    };
    what_only_superusers_make_is_undone_for_a_superuser => |major| {
        let made = Constellation::new(major, &of_others_together(major));
        let (code, said) = made.wreck(As::Superuser, "of others", &[]).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(code, 12, "{said}");
    };
}

#[test]
fn a_command_that_is_not_there_is_refused_before_anything_is_asked() {
    let made = Constellation::new(18, "");
    let mut somebody = Session::open(&made.database().url());
    made.run.file("plain", "no program");
    for (program, says) in
        [("nosuchcommand", "on PATH"), ("./nosuchcommand", "there is no"), ("./plain", "not executable")]
    {
        made.run.run(&["--", program]).exits(2).says(says);
    }
    assert_eq!(somebody.try_run("SELECT 1"), Ok("1".to_owned()));
    assert!(made.run.runs().is_empty());
}

#[test]
fn a_role_that_may_not_create_databases_is_refused_with_the_statement_that_helps() {
    let made = Constellation::new(18, "ALTER ROLE $OWNER NOCREATEDB");
    let (code, said) = made.wreck(As::Owner, "no CREATEDB", &[]).unwrap();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&format!("ALTER ROLE \"{}\" CREATEDB;", made.owner)), "{said}");
    assert!(said.contains("--on-failure stop --snapshot none"), "{said}");
}

#[test]
fn a_trial_is_remembered_until_something_changes_and_what_a_killed_one_left_is_dropped() {
    let made = Constellation::new(18, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let fine = ["--", "psql", "-Xc", "SELECT 1"];
    made.run.run(&fine).exits(0).says("came back in a scratch database");
    made.run
        .run(&fine)
        .exits(0)
        .says("nothing that it depends on has changed")
        .never_says("scratch database");
    made.psql("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'");
    made.run.crash("restore.loaded", &fine);
    assert_eq!(made.run.others().len(), 1, "the trial's database is left");
    made.run
        .run(&fine)
        .exits(0)
        .says("which a killed run had left behind")
        .says("came back in a scratch database");
    assert_eq!(made.run.others(), Vec::<String>::new());
}

/// Extensions of Debian's 15 that stand where they are. Where one can't be had, that is said.
fn with_preloaded(library: &str, control: &str) -> Option<Cluster> {
    if !std::path::Path::new(&format!("/usr/share/postgresql/15/extension/{control}.control")).exists() {
        println!("NOT TESTED: {control} is not installed for PostgreSQL 15");
        return None;
    }
    let options = tests::Options::new()
        .conf(&format!("shared_preload_libraries = '{library}'"))
        .conf("cron.database_name = 'held'")
        .conf("cron.use_background_workers = on")
        .conf("wal_level = logical");
    Some(Cluster::start(15, &options))
}

#[test]
fn workers_of_extensions_are_not_ended_unasked_and_their_absence_is_told() {
    let Some(cluster) = with_preloaded("pg_cron", "pg_cron") else { return };
    cluster.psql("CREATE DATABASE held");
    let workers =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher' AND datname = 'held'";
    tests::until("the launcher is there", || cluster.psql(workers) == "1");
    let url = cluster.url("held");
    psql::run(
        &url,
        "CREATE EXTENSION pg_cron; CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 9)",
    );
    let folder = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let mut command = tests::binaries::command("safe-run");
        command.args([flags, &WRECKS].concat()).current_dir(folder.path()).env("DATABASE_URL", &url);
        tests::Running::start(command).outcome()
    };
    let before = tests::oracle::fingerprint_without(&url, &[]);
    // The extension can't be made in another database, so only a clone is an undo; that would end the launcher.
    drop(run(&[]).exits(3).says("pg_cron launcher").says("--end-workers"));
    drop(run(&["--snapshot", "clone"]).exits(3).says("--end-workers"));
    drop(run(&["--snapshot", "file"]).exits(3).says("cron.database_name"));
    drop(
        run(&["--fence", "exclusive", "--snapshot", "none", "--on-failure", "stop"])
            .exits(3)
            .says("--end-workers"),
    );
    assert_eq!(cluster.psql(workers), "1");
    before.assert_same(&tests::oracle::fingerprint_without(&url, &[]));
    drop(run(&["--end-workers"]).exits(12).says("did not come back: pg_cron launcher"));
    before.assert_same(&tests::oracle::fingerprint_without(&url, &[]));
}
