//! `backup create` with filters: the snapshot holds the part that was asked for, says so everywhere, and is never taken for
//! the whole database.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Outcome, Snapshots, on_every_major, psql};

const SHOP: &str = r#"
CREATE SCHEMA app; CREATE SCHEMA log;
CREATE TYPE app.mood AS ENUM ('good', 'bad');
CREATE FUNCTION app.twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE app.users (id serial PRIMARY KEY, name text);
CREATE TABLE app.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int REFERENCES app.users,
                         mood app.mood, twice int DEFAULT app.twice(3));
CREATE TABLE app."Odd ""one""" (id int);
CREATE VIEW app.names AS SELECT o.id, u.name FROM app.orders o JOIN app.users u ON u.id = o.user_id;
CREATE VIEW app.over AS SELECT count(*) FROM app.names;
CREATE MATERIALIZED VIEW app.moods AS SELECT mood, count(*) FROM app.orders GROUP BY 1;
CREATE FUNCTION app.of_user(u app.users) RETURNS text LANGUAGE sql AS 'SELECT $1.name';
CREATE TABLE log.lines (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE log.lines_1 PARTITION OF log.lines FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE log.lines_2 PARTITION OF log.lines FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE INDEX ON log.lines (id); CREATE SEQUENCE log.free;
INSERT INTO app.users (name) SELECT 'user ' || i FROM generate_series(1, 30) i;
INSERT INTO app.orders (user_id, mood) SELECT i, 'bad' FROM generate_series(1, 20) i;
INSERT INTO app."Odd ""one""" VALUES (7);
INSERT INTO log.lines SELECT i, '2026-01-01'::date + i FROM generate_series(0, 50) i;
REFRESH MATERIALIZED VIEW app.moods;
"#;

fn shop<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(SHOP);
    database
}

/// Tables, views and sequences of a database, but for indexes.
fn relations(url: &str) -> String {
    psql::run(
        url,
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace IN
         (SELECT oid FROM pg_namespace WHERE nspname IN ('app', 'log', 'public')) AND relkind IN ('r', 'p', 'v', 'm', 'S')",
    )
}

/// Takes a partial snapshot, restores it beside, and returns the new database's URL.
fn taken(database: &Database, snapshots: &Snapshots, filters: &[&str]) -> String {
    let id = snapshots.create(database, filters);
    let name = format!("{}copy{}", database.name(), database.family().len());
    snapshots.run("restore", &database.url(), &[&id, "--into", &name]).expect(0);
    database.cluster().url(&name)
}

on_every_major! {
    fn filters_choose_what_comes_back_and_nothing_comes_back_empty_unasked(cluster: &Cluster) {
        let database = shop(cluster, "filters");
        let before = fingerprint(&database);
        let snapshots = Snapshots::new();
        for (filters, expected) in [
            (&["--table", "app.orders"][..], "orders orders_id_seq"),
            (&["--table", "orders", "-t", "USERS"], "orders orders_id_seq users users_id_seq"),
            (&["-t", "app.\"Odd \"\"one\"\"\""], "Odd \"one\""),
            (&["-t", "log.l*", "-T", "log.lines_2"], "lines lines_1"),
            (&["-t", "lines_1"], "lines_1"),
            (&["-n", "log"], "free lines lines_1 lines_2"),
            (&["-N", "log", "-T", "app.o*r"], "Odd \"one\" moods names orders orders_id_seq users users_id_seq"),
            (&["-T", "users"], "Odd \"one\" free lines lines_1 lines_2 moods orders orders_id_seq"),
            (&["--exclude-table-data", "app.u*", "--exclude-table-data", "lines", "-t", "users", "-t", "lines"],
             "lines lines_1 lines_2 users users_id_seq"),
        ] {
            let url = taken(&database, &snapshots, filters);
            let found = relations(&url);
            let sorted = |text: &str| { let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect(); words.sort(); words };
            assert_eq!(sorted(&found), sorted(expected), "{filters:?}");
            if filters.contains(&"USERS") {
                // Its default and its sequence came along, and stand where they stood.
                assert_eq!(psql::run(&url, "INSERT INTO app.users DEFAULT VALUES RETURNING id"), "31");
                psql::run(&url, "DELETE FROM app.users WHERE id = 31");
            }
            let part = fingerprint_without(&url, &[]);
            for (name, value) in part.parts("table ") {
                let want = match filters[0] {
                    "--exclude-table-data" => "rows 0, hash 0 0",
                    _ => before.parts(name).next().unwrap().1,
                };
                assert_eq!(value, want, "{filters:?} {name}");
            }
        }
        before.assert_same(&fingerprint(&database));
    }
}

#[test]
fn a_partial_snapshot_says_so_everywhere_and_never_takes_the_place_of_the_whole() {
    let database = shop(Cluster::shared(18), "partial");
    let snapshots = Snapshots::new();
    let url = database.url();
    let whole = snapshots.create(&database, &[]);
    let created = snapshots
        .run("backup", &url, &["create", "--exclude-table", "users"])
        .expect(0)
        .says(&["PARTIAL SNAPSHOT"]);
    let id = created.stdout.trim().to_owned();
    let listed = snapshots.run_offline("backup", &["list"]).expect(0).stdout;
    let line = |id: &str| listed.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    assert!(line(&id).contains("PARTIAL") && !line(&whole).contains("PARTIAL"), "{listed}");
    let shown = snapshots.run_offline("backup", &["show", &id]).expect(0).stdout;
    for said in [
        "PARTIAL    only --exclude-table users",
        "table app.users",
        "view app.names",
        "view app.over",
        "function app.of_user(",
        "foreign key of app.orders orders_user_id_fkey",
    ] {
        assert!(shown.contains(said), "{said}\n{shown}");
    }
    let json = snapshots.run_offline("backup", &["list", "--json"]).expect(0).stdout;
    let filters = database.psql(&format!(
        "SELECT s #>> '{{partial,filters,exclude_tables,0}}' FROM json_array_elements({}::json -> 'snapshots') s WHERE s ->> 'id' = '{id}'",
        psql::quote_literal(&json)
    ));
    assert_eq!(filters, "users");
    let readme = std::fs::read_to_string(snapshots.folder_of(&id).join("README.txt")).unwrap();
    assert!(readme.contains("PARTIAL") && readme.contains("--use-list=schema.list"), "{readme}");
    let before = fingerprint(&database);
    snapshots
        .run("restore", &url, &[&id, "--replace", "-y"])
        .fails(3, &["holds only a part", "--exclude-table users", "No database was changed"]);
    // The latest is the latest whole one, whatever part is newer.
    assert!(snapshots.run("restore", &url, &["latest", "--dry-run"]).expect(0).stdout.contains(&whole));
    snapshots.run("restore", &url, &[&id, "--table", "users"]).fails(3, &["no table matches \"users\""]);
    snapshots.run("restore", &url, &[&id, "--table", "orders"]).expect(0);
    snapshots
        .run_offline("backup", &["diff", &whole, &id])
        .expect(1)
        .says(&["is PARTIAL (--exclude-table users)"]);
    snapshots.run_offline("backup", &["verify", "--all"]).expect(0);
    // Two groups: neither pushes the other out.
    let again = snapshots.create(&database, &["--exclude-table", "users"]);
    snapshots.run_offline("backup", &["prune", "--keep-last", "1", "--keep-min", "0"]).expect(0);
    assert_eq!(snapshots.ids(), {
        let mut ids = vec![whole, again];
        ids.sort();
        ids
    });
    database.psql("SELECT format('DROP TABLE %I.%I', schemaname, tablename) FROM pg_tables WHERE tablename ~ '_restored_'\n\\gexec\n");
    before.assert_same(&fingerprint(&database));
}

#[test]
fn patterns_that_mean_nothing_and_tables_that_need_others_are_refused() {
    let database = shop(Cluster::shared(18), "nothing");
    database.psql("CREATE TABLE app.of_users (u app.users); CREATE TABLE app.heir () INHERITS (app.orders)");
    let snapshots = Snapshots::new();
    let create =
        |filters: &[&str]| snapshots.run("backup", &database.url(), &[&["create"], filters].concat());
    create(&["-t", "ordres"]).fails(3, &["no table matches \"ordres\"", "Did you mean app.orders"]);
    create(&["-T", "nope*"]).fails(3, &["no table matches"]);
    create(&["-N", "logs"]).fails(3, &["no schema matches \"logs\"", "Did you mean log?"]);
    create(&["--exclude-table-data", "users", "-t", "log.lines", "-T", "log.*"])
        .fails(3, &["no table is left"]);
    create(&["-t", "a|b"]).fails(2, &["double quotes"]);
    create(&["-t", "of_users"]).fails(3, &["table app.of_users needs"]);
    create(&["-t", "heir"]).fails(3, &["table app.heir needs"]);
    create(&["-T", "users"]).fails(3, &["table app.of_users needs"]);
    assert_eq!(snapshots.ids(), Vec::<String>::new());
    assert_eq!(snapshots.leftovers(), Vec::<String>::new());
}

#[test]
fn a_role_with_rights_on_one_table_takes_a_snapshot_of_it_while_others_are_locked() {
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &tests::Options::new());
        let database = shop(&cluster, "limited");
        database.psql(
            "CREATE ROLE limited LOGIN; GRANT USAGE ON SCHEMA app TO limited;
             GRANT SELECT ON app.orders, app.orders_id_seq TO limited; REVOKE ALL ON SCHEMA log FROM PUBLIC",
        );
        let snapshots = Snapshots::new();
        let url = cluster.url_as("limited", database.name());
        snapshots.run("backup", &url, &["create"]).fails(3, &["permission denied"]);
        let mut other = database.session();
        other.run("BEGIN; LOCK TABLE app.users, log.lines IN ACCESS EXCLUSIVE MODE");
        let created = snapshots.run("backup", &url, &["create", "-t", "orders"]).expect(0);
        drop(other);
        snapshots
            .run(
                "restore",
                &database.url(),
                &[created.stdout.trim(), "--into", &format!("{}_of", database.name())],
            )
            .expect(0);
        let part = cluster.url(&format!("{}_of", database.name()));
        let rows =
            "SELECT count(*), sum(hashtextextended(o::text, 0)::numeric), min(mood::text) FROM app.orders o";
        assert_eq!(psql::run(&part, rows), database.psql(rows));
        assert_eq!(relations(&part), "orders orders_id_seq");
    }
}

#[test]
fn a_partial_snapshot_is_restored_with_stock_tools_alone() {
    let database = shop(Cluster::shared(18), "stock");
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &["--compress", "gzip", "-T", "users"]);
    let name = format!("{}_stock", database.name());
    database.cluster().psql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
    let url = database.cluster().url(&name);
    let folder = snapshots.folder_of(&id);
    let restore = |section: &str| {
        let mut command = psql::tool("pg_restore");
        command.current_dir(&folder).args([
            "--exit-on-error",
            section,
            "--use-list=schema.list",
            "-d",
            &url,
            "schema.dump",
        ]);
        Outcome::of(&mut command).expect(0);
    };
    restore("--section=pre-data");
    let mut load = tests::binaries::command("backup");
    let path = load.get_envs().find(|(key, _)| *key == "PATH").unwrap().1.unwrap().to_owned();
    load = std::process::Command::new("sh");
    load.arg("load.sh")
        .current_dir(&folder)
        .env("PGDATABASE", &name)
        .env("PGUSER", "postgres")
        .env("PGHOST", database.cluster().socket_dir())
        .env("PGPORT", database.cluster().port().to_string())
        .env("PATH", path);
    Outcome::of(&mut load).expect(0);
    restore("--section=post-data");
    let (part, whole) = (fingerprint_without(&url, &[]), fingerprint(&database));
    assert!(part.count("table ") >= 4, "{}", part.count("table "));
    for (name, value) in part.parts("table ") {
        assert_eq!(value, whole.parts(name).next().unwrap().1, "{name}");
    }
}
