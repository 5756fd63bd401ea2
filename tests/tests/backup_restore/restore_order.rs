//! Indexes, keys and foreign keys that are restored while other tables still load: everything comes back as it was, and
//! what fails, fails the restore as before.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::outcome::{ALL_LARGE, Outcome};
use tests::{Cluster, Database, Snapshots, psql};

/// Everything that depends on an index, or that other things depend on.
const INDEXES: &str = r#"
CREATE EXTENSION btree_gist;
CREATE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql RETURN i * 2;
CREATE TABLE kinds (id int PRIMARY KEY, name text NOT NULL, CONSTRAINT "one name" UNIQUE (name) DEFERRABLE);
COMMENT ON CONSTRAINT "one name" ON kinds IS 'no two';
CREATE TABLE users (id int PRIMARY KEY, boss int REFERENCES users, email text, kind int NOT NULL REFERENCES kinds);
CREATE UNIQUE INDEX users_email ON users (lower(email)) INCLUDE (id) WHERE email IS NOT NULL;
CREATE INDEX users_kind ON users (kind);
ALTER TABLE users CLUSTER ON users_kind;
COMMENT ON INDEX users_email IS 'one person, one address';
CREATE STATISTICS users_both ON boss, kind FROM users;
CREATE TABLE devices (serial text NOT NULL, slot int4range NOT NULL, owner int, body jsonb,
    EXCLUDE USING gist (serial WITH =, slot WITH &&));
CREATE UNIQUE INDEX devices_serial ON devices (serial);
ALTER TABLE devices REPLICA IDENTITY USING INDEX devices_serial;
CREATE INDEX devices_body ON devices USING gin (body jsonb_path_ops);
CREATE INDEX devices_twice ON devices (twice(owner), (body ->> 'n'));
ALTER INDEX devices_twice ALTER COLUMN 1 SET STATISTICS 500;
ALTER TABLE devices ADD FOREIGN KEY (owner) REFERENCES users DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE repairs (id int PRIMARY KEY, serial text REFERENCES devices (serial));
CREATE TABLE chicken (id int PRIMARY KEY, egg int);
CREATE TABLE egg (id int PRIMARY KEY, chicken int REFERENCES chicken);
ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg;
CREATE TABLE events (id int, day int, who int REFERENCES users, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY LIST (day);
CREATE TABLE events_2a PARTITION OF events_2 DEFAULT;
CREATE INDEX events_who ON events (who);
CREATE INDEX events_1_only ON events_1 (day);
COMMENT ON INDEX events_who IS 'of all';
CREATE TABLE event_notes (id int, day int, FOREIGN KEY (id, day) REFERENCES events);
CREATE TABLE animals (id int PRIMARY KEY, name text);
CREATE TABLE dogs (PRIMARY KEY (id), tail int) INHERITS (animals);
CREATE INDEX dogs_tail ON dogs (tail);
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
CREATE TABLE empty (id int PRIMARY KEY, kind int REFERENCES kinds);
CREATE MATERIALIZED VIEW per_kind AS SELECT kind, count(*) FROM users GROUP BY kind;
CREATE UNIQUE INDEX per_kind_kind ON per_kind (kind);
-- A function that needs a primary key comes after it, and the index that calls the function later still.
CREATE FUNCTION names() RETURNS bigint STABLE LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM (SELECT u.id, u.email FROM users u GROUP BY u.id) AS s; END;

INSERT INTO kinds SELECT i, 'kind ' || i FROM generate_series(1, 20) i;
INSERT INTO users SELECT i, nullif(i / 2, 0), 'user' || i || '@example.org', 1 + i % 20 FROM generate_series(1, 4000) i;
INSERT INTO devices SELECT 'serial ' || i, int4range(i, i + 5), 1 + i % 4000, jsonb_build_object('n', i) FROM generate_series(1, 3000) i;
INSERT INTO repairs SELECT i, 'serial ' || 1 + i % 3000 FROM generate_series(1, 3000) i;
INSERT INTO chicken SELECT i FROM generate_series(1, 500) i;
INSERT INTO egg SELECT i, i FROM generate_series(1, 500) i;
UPDATE chicken SET egg = id;
INSERT INTO events SELECT i, i % 20, 1 + i % 4000 FROM generate_series(1, 5000) i;
INSERT INTO event_notes SELECT i, i % 20 FROM generate_series(1, 1000) i;
INSERT INTO animals SELECT i, 'animal' FROM generate_series(1, 500) i;
INSERT INTO dogs SELECT i, 'dog', i % 7 FROM generate_series(501, 1500) i;
INSERT INTO scratch SELECT generate_series(1, 100);
REFRESH MATERIALIZED VIEW per_kind;
"#;

fn restore(snapshots: &Snapshots, database: &Database, arguments: &[&str]) -> Outcome {
    let mut command = snapshots.command("restore", &database.url(), arguments);
    Outcome::of(command.env(ALL_LARGE.0, ALL_LARGE.1))
}

fn everything_that_depends_on_an_index_comes_back(major: u32) {
    let database = Cluster::shared(major).fresh_database("indexes");
    database.psql(INDEXES);
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &["--chunk-blocks", "8"]);
    for jobs in ["1", "4"] {
        let name = format!("{}copy{jobs}", database.name());
        let arguments = ["latest", "--into", &name, "--jobs", jobs, "-v"];
        // Else the test proves nothing.
        restore(&snapshots, &database, &arguments).expect(0).says(&[
            "building indexes and keys",
            "checking foreign keys",
            "analyzing",
            "comparing rows",
        ]);
        let url = database.cluster().url(&name);
        before.assert_same(&fingerprint_without(&url, &[]));
        // Loaded by one connection each, tables are frozen: their pages are visible to everybody, but for the one on which a
        // chunk ends and the next begins.
        let visible = "SELECT sum(relallvisible) > sum(relpages) / 2 FROM pg_class
                       WHERE relname IN ('kinds', 'repairs', 'chicken', 'egg')";
        assert_eq!(psql::run(&url, visible), "t", "jobs {jobs}");
        let unanalyzed = "SELECT relname FROM pg_stat_user_tables WHERE last_analyze IS NULL";
        assert_eq!(psql::run(&url, unanalyzed), "", "jobs {jobs}");
        // Inherited statistics hold the rows of the heirs.
        let inherited =
            "SELECT n_distinct FROM pg_stats WHERE tablename = 'animals' AND attname = 'name' AND inherited";
        assert_eq!(psql::run(&url, inherited), "2", "jobs {jobs}");
    }
}

#[test]
fn everything_that_depends_on_an_index_comes_back_postgresql_14() {
    everything_that_depends_on_an_index_comes_back(14);
}

#[test]
fn everything_that_depends_on_an_index_comes_back_postgresql_18() {
    everything_that_depends_on_an_index_comes_back(18);
}

#[test]
fn everything_that_depends_on_an_index_comes_back_postgresql_19() {
    everything_that_depends_on_an_index_comes_back(19);
}

/// An index whose expression fails, or gives every row the same key, in any database but the first.
fn an_index_that_can_not_be_built_fails_the_restore(major: u32) {
    for (body, kind, reason) in
        [("RAISE 'not here'", "", "not here"), ("RETURN 7", "UNIQUE", "could not create unique index")]
    {
        let database = Cluster::shared(major).fresh_database("unbuildable");
        database.psql(&format!(
            "CREATE FUNCTION f(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
             BEGIN IF current_database() <> '{}' THEN {body}; END IF; RETURN i; END $$;
             CREATE TABLE t (id int PRIMARY KEY, note text);
             CREATE {kind} INDEX t_f ON t (f(id));
             CREATE TABLE u (id int REFERENCES t);
             INSERT INTO t SELECT i, 'note' FROM generate_series(1, 2000) i;
             INSERT INTO u SELECT i FROM generate_series(1, 2000) i",
            database.name()
        ));
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let before = database.family().len();
        for jobs in ["1", "4"] {
            let name = format!("{}copy", database.name());
            let arguments = ["latest", "--into", &name, "--jobs", jobs];
            restore(&snapshots, &database, &arguments)
                .fails(1, &["INDEX public t_f", reason, "No existing database was changed."]);
            assert_eq!(database.family().len(), before, "the half-restored database is still there");
        }
    }
}

#[test]
fn an_index_that_can_not_be_built_fails_the_restore_postgresql_14() {
    an_index_that_can_not_be_built_fails_the_restore(14);
}

#[test]
fn an_index_that_can_not_be_built_fails_the_restore_postgresql_18() {
    an_index_that_can_not_be_built_fails_the_restore(18);
}

/// Each index says in the server's log with how much memory it is built.
fn indexes_are_built_with_the_memory_that_suits_them(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("memory");
    database.psql(
        "CREATE FUNCTION told(kind text, i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
         BEGIN
             RAISE LOG 'in % % has %', current_database(), kind, current_setting('maintenance_work_mem');
             RETURN i;
         END $$;
         CREATE TABLE t (id int PRIMARY KEY);
         CREATE UNIQUE INDEX ON t (told('btree', id));
         CREATE INDEX ON t USING gin ((ARRAY[told('gin', id)]));
         CREATE INDEX ON t USING gist (point(told('gist', id), 0));
         INSERT INTO t SELECT generate_series(1, 3)",
    );
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let name = format!("{}copy", database.name());
    let told = |jobs: &str, options: &str| {
        let before = cluster.log().len();
        let mut command =
            snapshots.command("restore", &database.url(), &["latest", "--into", &name, "--jobs", jobs]);
        Outcome::of(command.env(ALL_LARGE.0, ALL_LARGE.1).env("PGOPTIONS", options)).expect(0);
        psql::run(&cluster.url("postgres"), &format!("DROP DATABASE {name}"));
        let log = cluster.log()[before..].to_owned();
        ["btree", "gin", "gist"].map(|kind| {
            let start = format!("in {name} {kind} has ");
            // The first one is that of the index: ANALYZE computes its values once more.
            let said = log.lines().find_map(|line| line.split_once(&start));
            said.unwrap_or_else(|| panic!("nothing of {kind} in:\n{log}")).1.to_owned()
        })
    };
    let servers = cluster.psql("SHOW maintenance_work_mem");
    assert_eq!(servers, "64MB", "the server's default");
    // As many connections as processors, or more: no more than the caches hold, and for GiST, which is another matter, all.
    assert_eq!(told("16", ""), ["16MB", "32MB", "64MB"]);
    // What the user or the server sets is never exceeded.
    assert_eq!(told("16", "-c maintenance_work_mem=8MB"), ["8MB", "8MB", "8MB"]);
    assert_eq!(told("16", "-c maintenance_work_mem=1GB"), ["16MB", "32MB", "1GB"]);
    // Processors that nobody uses may as well help.
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        assert_eq!(told("1", ""), ["64MB", "64MB", "64MB"]);
    }
}

#[test]
fn indexes_are_built_with_the_memory_that_suits_them_postgresql_14() {
    indexes_are_built_with_the_memory_that_suits_them(14);
}

#[test]
fn indexes_are_built_with_the_memory_that_suits_them_postgresql_18() {
    indexes_are_built_with_the_memory_that_suits_them(18);
}

/// Rows that code of the database writes during the restore, after their table was compared.
#[test]
fn rows_that_change_after_they_were_compared_fail_the_restore() {
    for (statement, difference) in [
        ("UPDATE log SET note = note || '!' WHERE id = 7", "100 rows, but their content differs"),
        ("DELETE FROM log WHERE id = 7", "99 rows instead of 100"),
        ("INSERT INTO log VALUES (101, 'more')", "101 rows instead of 100"),
    ] {
        let database = Cluster::shared(18).fresh_database("writes");
        database.psql(&format!(
            "CREATE TABLE log (id int, note text);
             CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS $$
             BEGIN IF current_database() <> '{}' THEN {}; END IF; RETURN 1; END $$;
             CREATE MATERIALIZED VIEW v AS SELECT public.writes();
             INSERT INTO log SELECT i, 'note' FROM generate_series(1, 100) i",
            database.name(),
            statement.replace(" log", " public.log")
        ));
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let name = format!("{}copy", database.name());
        snapshots
            .run("restore", &database.url(), &["latest", "--into", &name])
            .fails(6, &["snapshot: log: ", difference, "No existing database was changed."]);
    }
}

/// An owner may have taken the right to TRUNCATE from itself.
#[test]
fn a_table_that_its_owner_may_not_truncate_is_loaded_all_the_same() {
    let database = Cluster::shared(18).fresh_database("untruncated");
    let role = format!("{}_owner", database.name());
    database.psql(&format!(
        "CREATE ROLE {role} LOGIN CREATEDB;
         CREATE TABLE t (id int PRIMARY KEY);
         INSERT INTO t SELECT generate_series(1, 3000);
         ALTER TABLE t OWNER TO {role};
         ALTER DATABASE {} OWNER TO {role};
         REVOKE TRUNCATE ON t FROM {role}",
        database.name()
    ));
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let name = format!("{}copy", database.name());
    let url = database.cluster().url_as(&role, database.name());
    let mut command = snapshots.command("restore", &url, &["latest", "--into", &name]);
    Outcome::of(command.env(ALL_LARGE.0, ALL_LARGE.1)).expect(0);
    assert_eq!(
        psql::run(
            &database.cluster().url(&name),
            "SELECT count(*), has_table_privilege('ROLE', 't', 'TRUNCATE') FROM t"
                .replace("ROLE", &role)
                .as_str()
        ),
        "3000|f"
    );
    let cluster = database.cluster();
    psql::run(&cluster.url("postgres"), &format!("DROP DATABASE {name}"));
    psql::run(&cluster.url("postgres"), &format!("ALTER DATABASE {} OWNER TO postgres", database.name()));
    database.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
