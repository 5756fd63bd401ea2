//! Single tables come back: beside the live ones, into a database of their own, or as the content of the live ones; only
//! what belongs to them is read, and the live database is changed as a whole or not at all.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Outcome, Snapshots, on_every_major, psql};

/// Tables with everything that belongs to a table, and others that need them or are needed by them.
const SHOP: &str = r#"
CREATE SCHEMA app; CREATE SCHEMA "Odd.schema";
CREATE TYPE app.mood AS ENUM ('good', 'bad', 'so "so"'); CREATE DOMAIN app.positive AS int CHECK (value > 0);
CREATE TYPE app.pair AS (a int, b app.mood);
CREATE FUNCTION app.twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE app.users (id serial PRIMARY KEY, name text NOT NULL UNIQUE, born date);
CREATE TABLE app.orders (
    id int GENERATED ALWAYS AS IDENTITY (START 5) PRIMARY KEY, user_id int NOT NULL REFERENCES app.users ON DELETE CASCADE,
    mood app.mood DEFAULT 'good', amount app.positive, both_ app.pair, twice int GENERATED ALWAYS AS (app.twice(amount)) STORED,
    note text COLLATE "C" CHECK (note <> ''), parent int REFERENCES app.orders DEFERRABLE INITIALLY DEFERRED);
CREATE INDEX orders_note ON app.orders (lower(note)) WHERE amount > 3;
CREATE STATISTICS app.orders_stat ON user_id, amount FROM app.orders;
COMMENT ON TABLE app.orders IS 'what was ordered'; COMMENT ON COLUMN app.orders.note IS 'a note';
CREATE TABLE app.items (id int PRIMARY KEY, order_id int REFERENCES app.orders, n int);
COMMENT ON TABLE app.items IS 'refers to orders';
CREATE VIEW app.totals AS SELECT user_id, sum(amount) AS total FROM app.orders GROUP BY 1;
CREATE SEQUENCE app.shared; CREATE TABLE app.draws (a int DEFAULT nextval('app.shared'), t text);
CREATE TABLE app.log (at timestamptz, what text);
CREATE FUNCTION app.logs() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO app.log VALUES (now(), TG_OP); RETURN COALESCE(NEW, OLD); END$$;
CREATE TRIGGER logs AFTER INSERT OR DELETE OR UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.logs();
CREATE TRIGGER never BEFORE INSERT ON app.orders FOR EACH ROW EXECUTE FUNCTION app.logs();
ALTER TABLE app.orders DISABLE TRIGGER never;
CREATE RULE keep AS ON INSERT TO app.draws DO ALSO NOTIFY drawn;
GRANT SELECT ON app.orders TO PUBLIC; GRANT INSERT (note) ON app.orders TO PUBLIC;
CREATE TABLE app.parts (id int, mood app.mood, v text, PRIMARY KEY (id, mood)) PARTITION BY HASH (mood);
CREATE TABLE app.parts_0 PARTITION OF app.parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE app.parts_1 (v text, mood app.mood NOT NULL, id int NOT NULL);
ALTER TABLE app.parts ATTACH PARTITION app.parts_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX parts_v ON app.parts (v);
CREATE TABLE app.base (a int); CREATE TABLE app.heir (b int) INHERITS (app.base);
CREATE TABLE "Odd.schema"."a ""b"" c" ("Column x" int PRIMARY KEY, "ü" text);
CREATE TABLE app.x23456789012345678901234567890123456789012345678901234567890ab (i serial UNIQUE);
CREATE TABLE app.x23456789012345678901234567890123456789012345678901234567890cd (i serial UNIQUE);
INSERT INTO app.users (name, born) SELECT 'user ' || i, '2000-01-01'::date + i FROM generate_series(1, 40) i;
INSERT INTO app.orders (user_id, amount, both_, note, parent)
  SELECT 1 + i % 40, i, ROW(i, 'bad'::app.mood)::app.pair, E'tab\t and \\ ' || i, NULL FROM generate_series(1, 300) i;
UPDATE app.orders SET parent = id - 1 WHERE id > 5;
INSERT INTO app.items SELECT i, 5 + i % 300, i FROM generate_series(1, 500) i;
INSERT INTO app.draws (t) SELECT i FROM generate_series(1, 20) i;
INSERT INTO app.parts SELECT i, (enum_range(NULL::app.mood))[1 + i % 3], 'v' || i FROM generate_series(1, 90) i;
INSERT INTO app.base VALUES (1); INSERT INTO app.heir VALUES (2, 3);
INSERT INTO "Odd.schema"."a ""b"" c" VALUES (1, 'ä'), (2, NULL);
INSERT INTO app.x23456789012345678901234567890123456789012345678901234567890ab VALUES (DEFAULT), (DEFAULT);
INSERT INTO app.x23456789012345678901234567890123456789012345678901234567890cd VALUES (DEFAULT);
TRUNCATE app.log;
"#;

fn shop<'c>(cluster: &'c Cluster, name: &str) -> (Database<'c>, Snapshots) {
    let database = cluster.fresh_database(name);
    database.psql(SHOP);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    (database, snapshots)
}

/// Rows and content of a table, by the server.
fn content(url: &str, table: &str) -> String {
    psql::run(
        url,
        &format!(
            "SELECT count(*), coalesce(sum(hashtextextended(to_jsonb(t)::text, 0)::numeric), 0) FROM {table} t"
        ),
    )
}

/// pg_dump of one table, without what differs from run to run and without the suffix of a restored name.
fn definition(url: &str, table: &str, suffix: &str) -> String {
    let mut command = psql::tool("pg_dump");
    command.args(["--schema-only", "--no-owner", "--no-privileges", "-d", url, "-t", table]);
    let text = psql::succeed(command).replace(suffix, "");
    let own = |line: &&str| !line.starts_with("\\") && !line.starts_with("-- Dumped");
    // From 18 on, NOT NULL has a name, which is written when it is not made from the table's.
    let unnamed = |line: &str| match (line.find(" CONSTRAINT "), line.find(" NOT NULL")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &line[..from], &line[to..]),
        _ => line.to_owned(),
    };
    text.lines().filter(own).map(unnamed).collect::<Vec<_>>().join("\n")
}

/// The suffix in the name that a restore printed.
fn suffix_of(name: &str) -> &str {
    let at = name.rfind("_restored_").unwrap_or_else(|| panic!("{name} is no restored name"));
    name[at..].trim_end_matches('"')
}

on_every_major! {
    fn tables_come_back_beside_the_live_ones_with_all_that_is_their_own(cluster: &Cluster) {
        let (database, snapshots) = shop(cluster, "beside");
        let url = database.url();
        let tables = ["app.users", "app.draws", "app.base", "app.heir", "app.parts", "app.orders", "\"Odd.schema\".\"a \"\"b\"\" c\""];
        let before: Vec<String> = tables.iter().map(|table| content(&url, table)).collect();
        // What has neither keys to others nor triggers, and whose names are not cut, comes back word for word.
        let alone = ["app.users", "\"Odd.schema\".\"a \"\"b\"\" c\""];
        let texts: Vec<String> = alone.iter().map(|table| definition(&url, table, "")).collect();
        let sequence = database.psql("SELECT last_value, is_called FROM app.orders_id_seq");
        // The live tables are altered, emptied, gone, and their types too.
        database.psql(
            "DROP TABLE app.items, app.orders CASCADE; ALTER TABLE app.users ADD more int; DELETE FROM app.users;
             DROP TABLE app.parts; DROP TYPE app.pair; DROP SCHEMA \"Odd.schema\" CASCADE; TRUNCATE app.draws",
        );
        let changed = fingerprint(&database);
        let arguments: Vec<&str> = ["latest"].into_iter().chain(tables.iter().flat_map(|table| ["--table", table])).collect();
        let outcome = snapshots.run("restore", &url, &arguments).expect(0);
        assert!(outcome.stderr.contains("also made, because it was missing: type app.pair"), "{}", outcome.stderr);
        for said in ["foreign key of app.orders orders_user_id_fkey", "trigger app.orders logs"] {
            assert!(outcome.stderr.contains(&format!("left out: {said}")), "{}", outcome.stderr);
        }
        let made: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(made.len(), tables.len(), "{made:?}");
        let suffix = suffix_of(made[0]);
        let restored = |table: &str| match table.strip_suffix('"') {
            Some(table) => format!("{table}{suffix}\""),
            None => format!("{table}{suffix}"),
        };
        for (table, before) in tables.iter().zip(&before) {
            assert_eq!(&content(&url, &restored(table)), before, "{table}");
        }
        for (table, text) in alone.iter().zip(&texts) {
            assert_eq!(&definition(&url, &restored(table), suffix), text, "{table}");
        }
        // Everything is their own, works, and stands where it stood.
        let orders = restored("app.orders");
        assert_eq!(database.psql(&format!("SELECT last_value, is_called FROM app.orders_id_seq{suffix}")), sequence);
        let made = database.psql(&format!(
            "INSERT INTO {orders} (user_id, amount, note) VALUES (1, 1, 'n') RETURNING id, mood, twice"
        ));
        assert_eq!(made, "305|good|2");
        assert!(database.try_psql(&format!("INSERT INTO {orders} (user_id, amount, note) VALUES (1, 1, '')")).is_err());
        database.psql(&format!("INSERT INTO {} (t) VALUES ('own')", restored("app.draws")));
        let own = format!("SELECT a FROM {} WHERE t = 'own'", restored("app.draws"));
        assert_eq!(database.psql(&own), "21");
        let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = $T::regclass";
        assert_eq!(database.psql(&indexes.replace("$T", &psql::quote_literal(&orders))), "2");
        assert_eq!(database.psql("SELECT count(*) FROM app.draws"), "0");
        // Nothing that was there has changed, and no scratch database is left.
        assert_eq!(database.family(), [database.name()]);
        let after = fingerprint(&database);
        for (name, value) in changed.parts("") {
            assert!(after.parts(name).any(|(other, now)| other == name && now == value), "{name} changed");
        }
    }

    fn the_content_of_live_tables_is_replaced_and_everything_around_them_stays(cluster: &Cluster) {
        let (database, snapshots) = shop(cluster, "replaced");
        let before = fingerprint(&database);
        let change = "UPDATE app.orders SET note = 'changed' WHERE id % 3 = 0; DELETE FROM app.items WHERE order_id > 250;
             UPDATE app.orders SET parent = NULL; DELETE FROM app.orders WHERE id > 250;
             INSERT INTO app.orders (user_id, amount, note) VALUES (1, 1, 'new');
             DELETE FROM app.parts WHERE id < 50; DELETE FROM app.draws; DELETE FROM app.users WHERE id = 500; TRUNCATE app.log;
             SELECT setval('app.orders_id_seq', 7); SELECT setval('app.shared', 1000)";
        database.psql(change);
        let changed = content(&database.url(), "app.orders");
        let arguments = ["latest", "--table", "app.orders", "--table", "items", "-t", "app.parts", "-t", "draws", "--replace", "-y"];
        let outcome = snapshots.run("restore", &database.url(), &arguments).expect(0);
        let kept = outcome.stderr.lines().find_map(|line| line.split_once("what app.orders held is kept in ")).unwrap().1;
        assert_eq!(content(&database.url(), kept), changed);
        let moved = ["sequence \"app.shared", "table \"app.parts_"];
        for (sql, want) in [
            // Behind no row, and never back.
            ("SELECT last_value, is_called FROM app.orders_id_seq", "304|t"),
            ("SELECT last_value FROM app.shared", "1000"),
            ("SELECT count(*) FROM app.log", "0"),
            ("SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'app.orders'::regclass AND NOT tgisinternal", "OD"),
            ("SELECT count(*) FROM app.totals", "40"),
        ] {
            assert_eq!(database.psql(sql), want, "{sql}");
        }
        database.psql(
            "SELECT format('DROP TABLE %I.%I', schemaname, tablename) FROM pg_tables WHERE tablename ~ '_replaced_'\n\\gexec\n",
        );
        // The whole database is what it was: schema, grants, keys, triggers, and every row.
        before.without(&moved).assert_same(&fingerprint(&database).without(&moved));
        let arguments = ["latest", "--table", "orders", "--replace", "--drop-replaced", "-y"];
        snapshots.run("restore", &database.url(), &arguments).expect(0);
        assert_eq!(database.psql("SELECT count(*) FROM pg_tables WHERE tablename ~ '_replaced_'"), "0");
        assert_eq!(database.family(), [database.name()]);
    }

    fn a_database_of_some_tables_holds_them_and_what_they_need_and_nothing_else(cluster: &Cluster) {
        let (database, snapshots) = shop(cluster, "into");
        let before = fingerprint(&database);
        let name = format!("{}_part", database.name());
        let arguments = ["latest", "--table", "orders", "--table", "users", "--table", "parts", "--into", &name];
        let outcome = snapshots.run("restore", &database.url(), &arguments).expect(0);
        assert!(outcome.stderr.contains("with type app.mood (needed by "), "{}", outcome.stderr);
        let url = cluster.url(&name);
        for table in ["app.orders", "app.users", "app.parts"] {
            assert_eq!(content(&url, table), content(&database.url(), table), "{table}");
        }
        // With keys, triggers and grants this time.
        for table in ["app.orders", "app.users"] {
            assert_eq!(definition(&url, table, ""), definition(&database.url(), table, ""), "{table}");
        }
        let relations = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class \
                         WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')";
        assert_eq!(psql::run(&url, relations), "orders orders_id_seq parts parts_0 parts_1 users users_id_seq");
        assert_eq!(psql::run(&url, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'app'::regnamespace"), "2");
        before.assert_same(&fingerprint(&database));
    }
}

#[test]
fn names_of_63_bytes_that_end_differently_do_not_meet() {
    for major in tests::cluster::ends() {
        let (database, snapshots) = shop(Cluster::shared(major), "long");
        let outcome = snapshots.run("restore", &database.url(), &["latest", "--table", "x2345*"]).expect(0);
        let made: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(made.len(), 2);
        assert_ne!(made[0], made[1]);
        let rows: Vec<String> =
            made.iter().map(|name| database.psql(&format!("SELECT count(*) FROM {name}"))).collect();
        assert_eq!(rows, ["2", "1"]);
        for name in made {
            assert_eq!(suffix_of(name).len(), "_restored_20261121_034149".len(), "{name}");
            database.psql(&format!("INSERT INTO {name} VALUES (DEFAULT)"));
        }
    }
}

/// The chunks of one table.
fn chunks(database: &Database, snapshots: &Snapshots, table: &str) -> Vec<std::path::PathBuf> {
    let oid = database.psql(&format!("SELECT '{table}'::regclass::oid"));
    let id = snapshots.ids().pop().unwrap();
    let own = |path: &std::path::PathBuf| {
        path.file_name().unwrap().to_string_lossy().starts_with(&format!("{oid}."))
    };
    snapshots.chunks(&id).into_iter().filter(own).collect()
}

fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn only_the_chunks_of_the_table_are_read_and_damage_in_them_changes_nothing() {
    let (database, snapshots) = shop(Cluster::shared(18), "chunks");
    let url = database.url();
    for table in ["app.users", "app.items"] {
        chunks(&database, &snapshots, table).iter().for_each(|path| flip(path));
    }
    snapshots.run("restore", &url, &["latest"]).fails(6, &["is damaged"]);
    snapshots.run("restore", &url, &["latest", "--table", "orders"]).expect(0);
    database.psql("DELETE FROM app.items; UPDATE app.orders SET note = 'x'");
    snapshots.run("restore", &url, &["latest", "--table", "orders", "--replace", "-y"]).expect(0);
    std::fs::remove_file(&chunks(&database, &snapshots, "app.items")[0]).unwrap();
    let changed = fingerprint(&database);
    for arguments in
        [&["--table", "users"][..], &["--table", "users", "--replace", "-y"], &["--table", "items"]]
    {
        let arguments = [&["latest"], arguments].concat();
        snapshots.run("restore", &url, &arguments).fails(6, &["is damaged", "No database was changed"]);
    }
    changed.assert_same(&fingerprint(&database));
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason_and_changes_nothing() {
    for major in tests::cluster::ends() {
        let (database, snapshots) = shop(Cluster::shared(major), "refused");
        let url = database.url();
        database.psql("ALTER TABLE app.draws ADD extra int, ALTER t TYPE varchar(9); ALTER TYPE app.mood ADD VALUE 'worse'");
        database.psql("DROP TABLE app.heir");
        let changed = fingerprint(&database);
        let restore = |arguments: &[&str]| snapshots.run("restore", &url, &[&["latest"], arguments].concat());
        restore(&["--table", "heir"])
            .fails(3, &["table app.heir needs table app.base", "No database was changed"]);
        restore(&["--table", "order"]).fails(3, &["no table matches \"order\"", "app.orders"]);
        restore(&["--table", "Orders.x.y"]).fails(2, &["too many dots"]);
        restore(&["--table", "orders"])
            .fails(3, &["type app.mood differs in the live database", "--into", "was not changed"]);
        restore(&["--table", "draws", "--replace", "-y"]).fails(
            3,
            &[
                "column t is character varying(9) and was text",
                "column extra integer is new",
                "was not changed",
            ],
        );
        restore(&["-t", "base", "-t", "heir", "--replace", "-y"]).fails(3, &["there is no table app.heir"]);
        restore(&["--table", "users", "--replace"]).fails(3, &["needs a confirmation"]);
        changed.assert_same(&fingerprint(&database));
        // Without the rows that items and orders refer to.
        database.psql("INSERT INTO app.users (name) VALUES ('late'); INSERT INTO app.orders (user_id, note) VALUES (41, 'y')");
        restore(&["--table", "users", "--replace", "-y"])
            .fails(1, &["(user_id)=(41)", "Restore both tables together", "was not changed"]);
        database.psql("DELETE FROM app.items; UPDATE app.orders SET parent = NULL");
        database
            .psql("DELETE FROM app.orders WHERE user_id IN (40, 41); DELETE FROM app.users WHERE id = 40");
        restore(&["--table", "orders", "--replace", "-y"]).fails(1, &["(user_id)=(40)", "was not changed"]);
        let last = fingerprint(&database);
        restore(&["--table", "app.*", "--dry-run"]).expect(0);
        last.assert_same(&fingerprint(&database));
        assert_eq!(database.family(), [database.name()]);
    }
}

#[test]
fn a_killed_restore_leaves_the_live_database_as_it_was() {
    for major in tests::cluster::ends() {
        let (database, snapshots) = shop(Cluster::shared(major), "killed");
        database.psql("DELETE FROM app.items; DELETE FROM app.draws");
        let before = fingerprint(&database);
        for arguments in [&["--table", "draws"][..], &["--table", "draws", "--replace", "-y"]] {
            for point in ["restore.made", "restore.created", "parts.loaded", "parts.before-commit"] {
                let arguments = [&["latest"], arguments].concat();
                let mut command = snapshots.command("restore", &database.url(), &arguments);
                // -9: the signal KILL.
                Outcome::of(command.env("SAFE_RUN_FAULT", point)).expect(-9);
                let ours = format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
                    database.name()
                );
                tests::until("the killed program's sessions are gone", || {
                    database.cluster().psql(&ours) == "0"
                });
                before.assert_same(&fingerprint(&database));
                // What it leaves is a database of definitions, which the next restore names.
                let left: Vec<String> =
                    database.family().into_iter().filter(|name| name != database.name()).collect();
                assert_eq!(left.len(), 1, "{point}: {left:?}");
                snapshots.run("restore", &database.url(), &["latest", "--dry-run"]).expect(0);
                database.cluster().psql(&format!("DROP DATABASE \"{}\" WITH (FORCE)", left[0]));
            }
        }
        snapshots
            .run("restore", &database.url(), &["latest", "--table", "draws", "--replace", "-y"])
            .expect(0);
        assert_eq!(database.psql("SELECT count(*) FROM app.draws"), "20");
    }
}

/// A replacement of `app.draws` that waits for its lock, and the session whose end lets it go on.
fn waiting_replacement(database: &Database, snapshots: &Snapshots) -> (psql::Session, Child) {
    let mut reader = database.session();
    reader.run("BEGIN; SELECT count(*) FROM app.draws");
    let arguments = ["latest", "--table", "draws", "--replace", "-y"];
    let mut command = snapshots.command("restore", &database.url(), &arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
        database.name()
    );
    tests::until("the restore waits for its lock", || database.cluster().psql(&waiting) != "0");
    (reader, child)
}

#[test]
fn a_signal_while_the_replacement_waits_for_its_locks_changes_nothing() {
    let (database, snapshots) = shop(Cluster::shared(18), "signal");
    database.psql("DELETE FROM app.draws");
    let before = fingerprint(&database);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (reader, child) = waiting_replacement(&database, &snapshots);
        Outcome::of(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()])).expect(0);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("was not changed"), "{said}");
        drop(reader);
        assert_eq!(database.family(), [database.name()]);
        before.assert_same(&fingerprint(&database));
    }
}

/// A schema's new privileges can't be told from its being renamed and renamed back. Only those that the restore names count.
#[test]
fn what_happens_meanwhile_to_schemas_that_a_replacement_does_not_name_is_nothing_to_it() {
    let (database, snapshots) = shop(Cluster::shared(18), "elsewhere");
    database.psql("CREATE SCHEMA elsewhere; CREATE SCHEMA gone");
    for (meanwhile, code) in [
        (
            "GRANT USAGE ON SCHEMA elsewhere TO PUBLIC; DROP SCHEMA gone; ALTER SCHEMA elsewhere RENAME TO further",
            0,
        ),
        ("ALTER SCHEMA app RENAME TO other; ALTER SCHEMA other RENAME TO app", 4),
    ] {
        let (reader, child) = waiting_replacement(&database, &snapshots);
        database.psql(meanwhile);
        drop(reader);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{meanwhile}: {said}");
        assert_eq!(said.contains("the schema \"app\""), code == 4, "{meanwhile}: {said}");
    }
}

#[test]
fn no_committed_row_is_lost_when_others_write_during_a_replacement() {
    for major in tests::cluster::ends() {
        let (database, snapshots) = shop(Cluster::shared(major), "writers");
        let before = content(&database.url(), "app.draws");
        let stop = AtomicBool::new(false);
        let (kept, committed) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut session = database.session();
                let mut committed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let n = 100_000 + committed.len();
                    if session.try_run(&format!("INSERT INTO app.draws VALUES ({n}, 'writer')")).is_ok() {
                        committed.push(n);
                    }
                }
                committed
            });
            let count = "SELECT count(*) FROM app.draws WHERE t = 'writer'";
            tests::until("the writer is at work", || database.psql(count) != "0");
            let outcome =
                snapshots.run("restore", &database.url(), &["latest", "--table", "draws", "--replace", "-y"]);
            tests::until("it writes on", || outcome.code != 0 || database.psql(count) != "0");
            stop.store(true, Ordering::Relaxed);
            let committed = writer.join().unwrap();
            let outcome = outcome.expect(0);
            let kept =
                outcome.stderr.lines().find_map(|line| line.split_once("is kept in ")).unwrap().1.to_owned();
            (kept, committed)
        });
        assert_eq!(content(&database.url(), "(SELECT * FROM app.draws WHERE t <> 'writer')"), before);
        let rows = format!(
            "SELECT count(*), count(DISTINCT a) FROM (SELECT a, t FROM app.draws UNION ALL SELECT a, t FROM {kept}) x WHERE t = 'writer'"
        );
        assert_eq!(database.psql(&rows), format!("{0}|{0}", committed.len()));
    }
}

#[test]
fn a_dry_run_says_everything_and_does_nothing() {
    let (database, snapshots) = shop(Cluster::shared(18), "dry");
    let before = fingerprint_without(&database.url(), &[]);
    let plan = snapshots
        .run("restore", &database.url(), &["latest", "--table", "orders", "--dry-run"])
        .expect(0)
        .stdout;
    for said in [
        "app.orders (300 rows) becomes app.orders_restored_",
        "with domain app.positive (needed by table app.orders)",
        "with function app.twice(integer) (needed by table app.orders)",
        "left out: foreign key of app.orders orders_user_id_fkey",
        "left out: trigger app.orders logs",
    ] {
        assert!(plan.contains(said), "{said}\n{plan}");
    }
    assert!(!plan.contains("items"), "{plan}");
    let json = snapshots
        .run("restore", &database.url(), &["latest", "--table", "orders", "--dry-run", "--json"])
        .expect(0);
    let read = |path: &str| {
        database.psql(&format!("SELECT {}::json #>> '{path}'", psql::quote_literal(&json.stdout)))
    };
    assert_eq!(
        (read("{schema}"), read("{mode}"), read("{tables,0,rows}")),
        ("1".into(), "beside".into(), "300".into())
    );
    before.assert_same(&fingerprint(&database));
    assert_eq!(database.family(), [database.name()]);
}

/// The index of such a constraint needs operator classes of btree_gist, of which the archive's constraint says nothing.
#[test]
fn an_exclusion_constraint_brings_the_extension_of_its_operator_classes() {
    let keys = [
        (14, "EXCLUDE USING gist (id WITH =, during WITH &&)"),
        (18, "PRIMARY KEY (id, during WITHOUT OVERLAPS)"),
    ];
    for (major, key) in keys {
        let cluster = Cluster::shared(major);
        let database = cluster.fresh_database("classes");
        database.psql(&format!(
            "CREATE EXTENSION btree_gist; CREATE TABLE other (i int PRIMARY KEY);
             CREATE TABLE r (id int, during int4range, CONSTRAINT \"no Overlap\" {key}); INSERT INTO r VALUES (1, '[1,5)'), (1, '[5,9)')"
        ));
        let snapshots = Snapshots::new();
        let whole = snapshots.create(&database, &[]);
        let part = snapshots.create(&database, &["--table", "r"]);
        let extensions = "SELECT count(*) FROM pg_extension WHERE extname = 'btree_gist'";
        for (number, arguments) in [&[&whole, "--table", "r"][..], &[&part]].into_iter().enumerate() {
            let into = format!("{}copy{number}", database.name());
            snapshots.run("restore", &database.url(), &[arguments, &["--into", &into]].concat()).expect(0);
            let overlaps = psql::try_run(&cluster.url(&into), "INSERT INTO r VALUES (1, '[2,3)')");
            assert!(overlaps.is_err_and(|error| error.contains("no Overlap")), "{major}");
            assert_eq!(psql::run(&cluster.url(&into), extensions), "1");
        }
        // A table without such a key comes without it.
        let into = format!("{}other", database.name());
        snapshots.run("restore", &database.url(), &[&whole, "--table", "other", "--into", &into]).expect(0);
        assert_eq!(psql::run(&cluster.url(&into), extensions), "0");
    }
}
