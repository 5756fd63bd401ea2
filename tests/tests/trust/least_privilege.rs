//! Roles that are not superusers: what each command needs, that no more is needed, and that whatever is missing is
//! named before anything is touched. docs/roles.md says the same in a table.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Fingerprint, Options, Outcome, Snapshots, psql, until};

/// A server of this test alone, whose only superuser is `postgres`, with the database `shop` of the role `app`.
struct Shop {
    cluster: Cluster,
}

/// The application's database as its owner makes it, on a server that a superuser set up the usual way.
const SETUP: &str = "
CREATE ROLE app LOGIN CREATEDB;
CREATE ROLE reader LOGIN;
CREATE ROLE clerk LOGIN;
CREATE DATABASE shop OWNER app TEMPLATE template0;
";

const CONTENT: &str = "
CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE);
CREATE TABLE orders (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE, total numeric);
INSERT INTO users (name) SELECT 'user ' || i FROM generate_series(1, 50) i;
INSERT INTO orders (user_id, total) SELECT 1 + i % 50, i FROM generate_series(1, 300) i;
CREATE SCHEMA inner_part; CREATE TYPE inner_part.mood AS ENUM ('good', 'bad');
CREATE TABLE inner_part.parts (id int, m inner_part.mood) PARTITION BY LIST (m);
CREATE TABLE inner_part.good PARTITION OF inner_part.parts FOR VALUES IN ('good');
INSERT INTO inner_part.parts SELECT i, 'good' FROM generate_series(1, 30) i;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, sum(total) FROM orders GROUP BY 1;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
GRANT SELECT ON users TO clerk; GRANT USAGE ON SCHEMA inner_part TO clerk;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO clerk;
COMMENT ON TABLE users IS 'people';
ALTER DATABASE shop SET work_mem = '9MB'; ALTER DATABASE shop CONNECTION LIMIT 80;
COMMENT ON DATABASE shop IS 'the shop'; REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC;
GRANT CONNECT ON DATABASE shop TO clerk;
";

impl Shop {
    fn start(major: u32) -> Shop {
        let cluster = Cluster::start(major, &Options::new());
        for statement in SETUP.lines() {
            cluster.psql(statement);
        }
        psql::run(&cluster.url_as("app", "shop"), CONTENT);
        Shop { cluster }
    }

    fn url_as(&self, role: &str) -> String {
        self.cluster.url_as(role, "shop")
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint_without(&self.cluster.url("shop"), &[])
    }

    fn databases(&self) -> String {
        self.cluster.psql("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")
    }

    /// `safe-run` as `app`, in a folder with these migrations.
    fn safe_run(&self, folder: &std::path::Path, migration: &str, arguments: &[&str]) -> Outcome {
        let migrations = folder.join("migrations");
        std::fs::create_dir_all(&migrations).unwrap();
        std::fs::write(migrations.join("1_change.sql"), migration).unwrap();
        let mut command = tests::binaries::command("safe-run");
        command.args(arguments).current_dir(folder).env("DATABASE_URL", self.url_as("app"));
        Outcome::of(&mut command)
    }
}

tests::on_every_major! {
    fn pg_read_all_data_is_enough_to_back_up_what_others_own(cluster: &Cluster) {
        let database = cluster.fresh_database("read");
        let (owner, reader) = (format!("{}_owner", database.name()), format!("{}_reader", database.name()));
        database.psql(&format!("CREATE ROLE {owner}; CREATE ROLE {reader} LOGIN"));
        let _roles = Roles(&database, [&owner, &reader]);
        // A schema that nobody else may even look into, as owners make them.
        database.psql(&format!(
            "CREATE SCHEMA hidden AUTHORIZATION {owner}; SET ROLE {owner};
             CREATE TABLE hidden.a (i int PRIMARY KEY); INSERT INTO hidden.a SELECT generate_series(1, 500);
             CREATE TABLE hidden.b (i serial, a int REFERENCES hidden.a); INSERT INTO hidden.b (a) SELECT i FROM hidden.a;
             CREATE MATERIALIZED VIEW hidden.m AS SELECT count(*) FROM hidden.b; REVOKE ALL ON hidden.m FROM PUBLIC"
        ));
        let before = fingerprint(&database);
        let snapshots = Snapshots::new();
        let url = cluster.url_as(&reader, database.name());
        snapshots.run("backup", &url, &["create"]).fails(3, &["permission denied", "`backup check`"]);
        database.psql(&format!("GRANT pg_read_all_data TO {reader}"));
        snapshots.run("backup", &url, &["check"]).expect(0);
        snapshots.run("backup", &url, &["create"]).expect(0);
        before.assert_same(&fingerprint_without(&snapshots.restore_copy(&database, &[]), &[]));
        before.assert_same(&fingerprint(&database));
    }
}

/// Roles of a test on a shared server, dropped with what they own.
struct Roles<'d>(&'d Database<'d>, [&'d str; 2]);

impl Drop for Roles<'_> {
    fn drop(&mut self) {
        for database in self.0.family() {
            let drop_owned = format!("DROP OWNED BY {} CASCADE", self.1.join(", "));
            let _ = psql::try_run(&self.0.cluster().url(&database), &drop_owned);
        }
        let _ = self.0.try_psql(&format!("DROP ROLE {}", self.1.join(", ")));
    }
}

#[test]
fn check_names_exactly_the_grants_that_are_missing() {
    let shop = Shop::start(18);
    let snapshots = Snapshots::new();
    let superuser = |sql: &str| psql::run(&shop.cluster.url("shop"), sql);
    superuser(
        "GRANT SELECT ON users, orders TO reader; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader",
    );
    superuser("GRANT SELECT ON inner_part.parts TO reader; SELECT lo_create(7)");
    let checked = snapshots.run("backup", &shop.url_as("reader"), &["check"]).expect(3);
    let fixes = |outcome: &Outcome| -> Vec<String> {
        // What a backup needs comes first; what more could be done, after it.
        let lines = outcome.stdout.lines().take_while(|line| !line.starts_with("can ")).map(str::trim);
        lines
            .filter(|line| line.starts_with("GRANT ") || line.starts_with("ALTER "))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        fixes(&checked),
        [
            "GRANT USAGE ON SCHEMA \"inner_part\" TO \"reader\";",
            "GRANT SELECT ON \"inner_part\".\"good\" TO \"reader\";",
            "GRANT SELECT ON pg_catalog.pg_largeobject TO \"reader\";",
        ]
    );
    // Each alone is not enough.
    for grant in fixes(&checked) {
        snapshots.run("backup", &shop.url_as("reader"), &["create"]).fails(3, &["hint: "]);
        superuser(&grant);
    }
    snapshots.run("backup", &shop.url_as("reader"), &["check"]).expect(0);
    snapshots.run("backup", &shop.url_as("reader"), &["create"]).expect(0);
}

#[test]
fn check_says_what_the_role_can_do_and_with_which_statement_it_could_do_more() {
    let shop = Shop::start(18);
    let snapshots = Snapshots::new();
    let superuser = |sql: &str| psql::run(&shop.cluster.url("shop"), sql);
    let check = |role: &str, can: &[&str]| {
        let arguments: Vec<&str> =
            std::iter::once("check").chain(can.iter().flat_map(|can| ["--can", can])).collect();
        snapshots.run("backup", &shop.url_as(role), &arguments)
    };
    // The owner with CREATEDB can do everything, and so can a superuser.
    for role in ["app", "postgres"] {
        let checked = check(role, &["backup", "restore", "replace", "undo"]).expect(0);
        assert!(checked.stdout.starts_with("READY  "), "{checked:?}");
        assert!(
            checked.stdout.contains("can run commands with an undo, by file and by clone: yes"),
            "{checked:?}"
        );
        // And what the yes does not say.
        let rest = "\"yes\" is what the catalog tells of this role on this server; where definitions or rows run code, only a trial";
        assert!(checked.stdout.contains(rest), "{checked:?}");
    }
    // Who only reads can only back up.
    superuser("GRANT pg_read_all_data TO reader");
    let checked = check("reader", &[]).expect(0);
    assert!(checked.stdout.starts_with("READY to back up  "), "{checked:?}");
    for line in ["can restore beside: no", "can replace: no", "can run commands with an undo: no"] {
        assert!(checked.stdout.contains(line), "{line}: {checked:?}");
    }
    assert!(!checked.stdout.contains("only a trial"), "{checked:?}");
    for can in ["restore", "replace", "undo"] {
        check("reader", &[can]).expect(3);
    }
    // What is printed is enough.
    let statements = |outcome: &Outcome| -> Vec<String> {
        let lines = outcome.stdout.lines().map(str::trim).filter(|line| line.ends_with(';'));
        lines
            .filter(|line| line.starts_with("GRANT ") || line.starts_with("ALTER "))
            .map(str::to_owned)
            .collect()
    };
    for statement in statements(&checked) {
        superuser(&statement);
    }
    check("reader", &["backup", "restore", "replace", "undo"]).expect(0);
    // One object of a superuser: the clone is left.
    superuser("CREATE PUBLICATION everything FOR ALL TABLES; ALTER ROLE reader NOCREATEDB");
    let checked = check("app", &["undo"]).expect(0);
    assert!(checked.stdout.contains("can run commands with an undo, by clone: yes"), "{checked:?}");
    assert!(
        checked.stdout.contains("publication everything: only a superuser may publish all tables"),
        "{checked:?}"
    );
    check("app", &["replace"]).expect(3);
    superuser("ALTER DATABASE shop SET log_min_duration_statement = 100");
    let checked = check("app", &["undo"]).expect(3);
    assert!(
        checked.stdout.contains("GRANT SET ON PARAMETER log_min_duration_statement TO app;"),
        "{checked:?}"
    );
    let json = snapshots.run("backup", &shop.url_as("app"), &["check", "--json"]).expect(0).stdout;
    assert!(
        json.contains("\"kind\":\"publication\"") || json.contains("\"kind\": \"publication\""),
        "{json}"
    );
}

fn the_owner_with_createdb_restores(major: u32) {
    let shop = Shop::start(major);
    let before = shop.fingerprint();
    let snapshots = Snapshots::new();
    let url = shop.url_as("app");
    snapshots.run("backup", &url, &["check"]).expect(0);
    snapshots.run("backup", &url, &["create"]).expect(0);

    snapshots.run("restore", &url, &["latest", "--into", "copy"]).expect(0);
    before.assert_same(&fingerprint_without(&shop.cluster.url("copy"), &[]));

    psql::run(
        &url,
        "DELETE FROM orders; DROP TABLE inner_part.parts; ALTER DATABASE shop SET work_mem = '1MB'",
    );
    // The application is connected; its own sessions are the owner's to end.
    let mut application = tests::Session::open(&url);
    snapshots.run("restore", &url, &["latest", "--replace", "--yes"]).expect(0);
    assert!(application.try_run("SELECT 1").is_err() || application.run("SELECT 1") != "1");
    before.assert_same(&shop.fingerprint());
    assert!(shop.databases().contains("shop_replaced_"), "{}", shop.databases());
}

#[test]
fn the_owner_with_createdb_restores_postgresql_14() {
    the_owner_with_createdb_restores(14);
}

#[test]
fn the_owner_with_createdb_restores_postgresql_18() {
    the_owner_with_createdb_restores(18);
}

fn the_owner_with_createdb_runs_protected(major: u32) {
    let shop = Shop::start(major);
    let before = shop.fingerprint();
    let folder = tempfile::tempdir().unwrap();
    let run = |migration: &str, arguments: &[&str]| shop.safe_run(folder.path(), migration, arguments);

    // In one transaction: rolled back, then kept.
    run("ALTER TABLE users ADD note text; SELECT 1 / 0", &[]).expect(10);
    before.assert_same(&shop.fingerprint());
    run("ALTER TABLE users ADD note text", &[]).expect(0);
    psql::run(&shop.url_as("app"), "ALTER TABLE users DROP note; DROP SCHEMA safe_run CASCADE");

    // Not in one: undone by a restore, in the owner's name.
    let before = shop.fingerprint();
    let command = ["--", "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c"];
    let failing = [&command[..], &["DELETE FROM orders", "-c", "SELECT 1 / 0"]].concat();
    run("SELECT 1", &failing).expect(12);
    before.assert_same(&shop.fingerprint());
    run("SELECT 1", &[&command[..], &["INSERT INTO users (name) VALUES ('new')"]].concat()).expect(0);
    assert_eq!(psql::run(&shop.url_as("app"), "SELECT count(*) FROM users"), "51");
    psql::run(&shop.url_as("app"), "CREATE TABLE is_writable ()");
}

#[test]
fn the_owner_with_createdb_runs_protected_postgresql_14() {
    the_owner_with_createdb_runs_protected(14);
}

#[test]
fn the_owner_with_createdb_runs_protected_postgresql_18() {
    the_owner_with_createdb_runs_protected(18);
}

/// An autovacuum worker belongs to no role, so DROP DATABASE … WITH (FORCE) is refused to whoever may not end every process.
fn the_owner_drops_a_scratch_database_that_is_being_vacuumed(major: u32) {
    let cluster = Cluster::start(major, &Options::new().conf("autovacuum_naptime = '1s'"));
    cluster.psql("CREATE ROLE app LOGIN CREATEDB");
    cluster.psql("CREATE DATABASE shop OWNER app");
    psql::run(&cluster.url_as("app", "shop"), "CREATE TABLE t AS SELECT generate_series(1, 9) AS i");
    let left = "shop_drill_20200101_000000";
    for sql in [
        format!("CREATE DATABASE {left}"),
        format!(
            "COMMENT ON DATABASE {left} IS 'safe-run: scratch database of a backup drill; the next drill drops it if this one was killed'"
        ),
    ] {
        psql::run(&cluster.url_as("app", "postgres"), &sql);
    }
    // The worker sleeps for a tenth of a second after each page, of which there are thousands.
    psql::run(
        &cluster.url_as("app", left),
        "CREATE TABLE slow (i int, filler text) WITH (fillfactor = 10, autovacuum_vacuum_cost_delay = 100,
             autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0);
         INSERT INTO slow SELECT i, repeat('x', 500) FROM generate_series(1, 3000) i; DELETE FROM slow WHERE i % 2 = 0",
    );
    until("a worker is at work", || {
        cluster.psql(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{left}' AND backend_type = 'autovacuum worker'"
        )) != "0"
    });
    let snapshots = Snapshots::new();
    snapshots.run("backup", &cluster.url_as("app", "shop"), &["create"]).expect(0);
    snapshots.run("backup", &cluster.url_as("app", "shop"), &["drill"]).expect(0);
    assert_eq!(cluster.psql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{left}'")), "0");
}

#[test]
fn the_owner_drops_a_scratch_database_that_is_being_vacuumed_postgresql_14() {
    the_owner_drops_a_scratch_database_that_is_being_vacuumed(14);
}

#[test]
fn the_owner_drops_a_scratch_database_that_is_being_vacuumed_postgresql_18() {
    the_owner_drops_a_scratch_database_that_is_being_vacuumed(18);
}

#[test]
fn a_right_on_a_catalog_is_named_and_stops_no_undo() {
    for major in tests::cluster::ends() {
        let shop = Shop::start(major);
        let grant = "GRANT SELECT ON pg_catalog.pg_largeobject TO reader";
        let by_superuser = |sql: &str| psql::run(&shop.cluster.url("shop"), sql);
        by_superuser(grant);
        let before = shop.fingerprint();
        let folder = tempfile::tempdir().unwrap();
        let command = [
            "--snapshot",
            "file",
            "--",
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DELETE FROM orders",
            "-c",
            "SELECT 1 / 0",
        ];
        // Left to itself, it takes the undo that lacks nothing.
        shop.safe_run(folder.path(), "SELECT 1", &command[2..]).expect(12);
        before.assert_same(&shop.fingerprint());
        let outcome = shop.safe_run(folder.path(), "SELECT 1", &command).expect(12);
        let said = outcome.stdout + &outcome.stderr;
        assert!(said.contains("missing: ACL pg_catalog TABLE pg_largeobject: only a superuser"), "{said}");
        assert_eq!(
            by_superuser("SELECT has_table_privilege('reader', 'pg_catalog.pg_largeobject', 'SELECT')"),
            "f",
            "it was not missing"
        );
        by_superuser(grant);
        before.assert_same(&shop.fingerprint());
        // Who restores by hand gets the database, is told what it lacks, and never a live one that lacks it.
        let snapshots = Snapshots::new();
        let url = shop.url_as("app");
        snapshots.run("backup", &shop.cluster.url("shop"), &["create"]).expect(0);
        let outcome = snapshots.run("restore", &url, &["latest", "--replace", "--yes"]).expect(1);
        let said = outcome.stdout + &outcome.stderr;
        assert!(said.contains("ACL pg_catalog TABLE pg_largeobject"), "{said}");
        before.assert_same(&shop.fingerprint());
    }
}

#[test]
fn without_createdb_nothing_is_begun_that_could_not_be_undone() {
    let shop = Shop::start(18);
    shop.cluster.psql("ALTER ROLE app NOCREATEDB");
    let before = shop.fingerprint();
    let snapshots = Snapshots::new();
    snapshots.run("backup", &shop.url_as("app"), &["create"]).expect(0);
    snapshots
        .run("restore", &shop.url_as("app"), &["latest"])
        .fails(3, &["may not create databases", "CREATEDB"]);
    let folder = tempfile::tempdir().unwrap();
    let outcome = shop.safe_run(folder.path(), "SELECT 1", &["--", "touch", "was-run"]).expect(3);
    assert!((outcome.stdout + &outcome.stderr).contains("CREATEDB"));
    assert!(!folder.path().join("was-run").exists());
    // A ROLLBACK needs none.
    shop.safe_run(folder.path(), "SELECT 1 / 0", &[]).expect(10);
    before.assert_same(&shop.fingerprint());
}

fn a_session_that_may_not_be_ended_is_named(major: u32) {
    let shop = Shop::start(major);
    let before = shop.fingerprint();
    let snapshots = Snapshots::new();
    let url = shop.url_as("app");
    snapshots.run("backup", &url, &["create"]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    let command = ["--", "touch", "was-run"];
    for (role, named) in [("postgres", "superuser \"postgres\""), ("clerk", "role \"clerk\"")] {
        let mut session = tests::Session::open(&shop.url_as(role));
        session.run("SET application_name = 'the till'");
        let pid = format!("pid {}", session.backend_pid());
        let says = [
            pid.as_str(),
            named,
            "the till",
            "may not end",
            "pg_signal_backend",
            "only be ended by a superuser",
        ];
        snapshots.run("restore", &url, &["latest", "--replace", "--yes"]).fails(3, &says);
        let outcome = shop.safe_run(folder.path(), "SELECT 1", &command).expect(3);
        let said = outcome.stdout + &outcome.stderr;
        assert!(says.iter().all(|text| said.contains(text)), "{said}");
        assert!(!folder.path().join("was-run").exists());
        // It is still there, and nothing stands in its way.
        assert_eq!(session.run("SELECT 'here'"), "here");
        before.assert_same(&shop.fingerprint());
    }
    until("the sessions are gone", || {
        shop.cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'") == "0"
    });

    // With pg_signal_backend others' sessions are ended: one that stayed could write behind the fence.
    shop.cluster.psql("GRANT pg_signal_backend TO app");
    let mut clerk = tests::Session::open(&shop.url_as("clerk"));
    shop.safe_run(folder.path(), "SELECT 1", &["--", "psql", "-X", "-c", "SELECT 1"]).expect(0);
    assert_ne!(clerk.try_run("SELECT 1"), Ok("1".to_owned()), "the session outlived the fence");
    let mut clerk = tests::Session::open(&shop.url_as("clerk"));
    snapshots.run("restore", &url, &["latest", "--replace", "--yes"]).expect(0);
    assert_ne!(clerk.try_run("SELECT 1"), Ok("1".to_owned()), "the session outlived the swap");
}

#[test]
fn a_session_that_may_not_be_ended_is_named_postgresql_14() {
    a_session_that_may_not_be_ended_is_named(14);
}

#[test]
fn a_session_that_may_not_be_ended_is_named_postgresql_18() {
    a_session_that_may_not_be_ended_is_named(18);
}

#[test]
fn an_extension_that_needs_a_superuser_is_named_before_anything_is_made() {
    let shop = Shop::start(18);
    let before = shop.databases();
    // One that its owner could make, and one that only a superuser can.
    psql::run(&shop.url_as("app"), "CREATE EXTENSION hstore");
    psql::run(&shop.cluster.url("shop"), "CREATE EXTENSION pg_stat_statements");
    let snapshots = Snapshots::new();
    psql::run(&shop.cluster.url("shop"), "GRANT pg_read_all_data TO app");
    snapshots.run("backup", &shop.url_as("app"), &["create"]).expect(0);
    let refused = snapshots
        .run("restore", &shop.url_as("app"), &["latest"])
        .fails(3, &["pg_stat_statements", "superuser"]);
    assert!(!refused.stderr.contains("hstore"), "{}", refused.stderr);
    assert_eq!(shop.databases(), before);
    psql::run(&shop.cluster.url("shop"), "DROP EXTENSION pg_stat_statements");
    snapshots.run("backup", &shop.url_as("app"), &["create"]).expect(0);
    snapshots.run("restore", &shop.url_as("app"), &["latest", "--into", "copy"]).expect(0);
}

/// pg_dump's own error has no SQLSTATE: that its session found no place is asked of the server.
#[test]
fn a_connection_limit_that_leaves_no_place_is_busy_and_names_itself() {
    for major in tests::cluster::ends() {
        let shop = Shop::start(major);
        let snapshots = Snapshots::new();
        for limit in 1..4 {
            shop.cluster.psql(&format!("ALTER ROLE app CONNECTION LIMIT {limit}"));
            let outcome = snapshots.run("backup", &shop.url_as("app"), &["create", "--jobs", "1"]);
            if outcome.code != 0 {
                outcome.fails(4, &["CONNECTION LIMIT", "was not changed"]);
            }
        }
        shop.cluster.psql("ALTER ROLE app CONNECTION LIMIT 6");
        snapshots.run("backup", &shop.url_as("app"), &["create", "--jobs", "1"]).expect(0);
    }
}

/// Before 15 nobody can be given the right to make such a setting; what is printed keeps it for the role all the same.
#[test]
fn on_14_a_setting_of_a_superuser_can_go_to_the_role() {
    let shop = Shop::start(14);
    let superuser = |sql: &str| psql::run(&shop.cluster.url("shop"), sql);
    superuser("ALTER DATABASE shop SET log_min_duration_statement = '100ms'");
    let snapshots = Snapshots::new();
    let checked = snapshots.run("backup", &shop.url_as("app"), &["check", "--can", "undo"]).expect(3);
    let help = "ALTER ROLE app SET log_min_duration_statement TO '100ms'; ALTER DATABASE shop RESET log_min_duration_statement;";
    assert!(checked.stdout.contains(help), "{}", checked.stdout);
    superuser(help);
    snapshots.run("backup", &shop.url_as("app"), &["check", "--can", "undo"]).expect(0);
    assert_eq!(psql::run(&shop.url_as("app"), "SHOW log_min_duration_statement"), "100ms");
}
