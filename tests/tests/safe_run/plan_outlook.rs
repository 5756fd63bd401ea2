//! `safe-run plan` says who will wait, what goes, and what is dangerous: compared with what the server does when the statement runs.

use serde_json::Value;
use tests::{Cluster, ProtectedRun, psql};

/// Tables that are there before, which statements of [`STATEMENTS`] reach.
const TABLES: &str = "
    CREATE TABLE users (id int PRIMARY KEY, email text, name varchar(20)); CREATE TABLE orders (id int PRIMARY KEY, user_id int);
    CREATE INDEX by_user ON orders (user_id); CREATE SCHEMA app; CREATE TABLE app.\"Odd\" (i int PRIMARY KEY);
    CREATE TABLE parted (i int) PARTITION BY RANGE (i); CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE loose (i int); CREATE VIEW v AS SELECT 1 AS one; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one;
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    ALTER TABLE orders ADD CONSTRAINT later CHECK (id > 0) NOT VALID;
    CREATE TABLE items (i int PRIMARY KEY, order_id int CONSTRAINT items_order_fkey REFERENCES orders, note text);
    INSERT INTO users SELECT i, 'a', 'b' FROM generate_series(1, 100) i; ANALYZE";

/// Each is run by itself, and rolled back.
const STATEMENTS: [&str; 48] = [
    "ALTER TABLE users ADD COLUMN a int",
    "ALTER TABLE users ALTER COLUMN name TYPE text, ADD COLUMN b int",
    "ALTER TABLE users ALTER COLUMN id TYPE bigint",
    "ALTER TABLE users ALTER COLUMN email SET STATISTICS 7",
    "ALTER TABLE users SET (fillfactor = 70)",
    "ALTER TABLE orders VALIDATE CONSTRAINT later",
    "ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (user_id) REFERENCES users",
    "ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (user_id) REFERENCES users NOT VALID",
    "ALTER TABLE orders ADD COLUMN u int REFERENCES users",
    "ALTER TABLE orders DISABLE TRIGGER ALL",
    "ALTER TABLE orders RENAME TO others",
    "ALTER TABLE orders RENAME COLUMN user_id TO u",
    "ALTER TABLE app.\"Odd\" ADD COLUMN a int",
    "ALTER TABLE parted ATTACH PARTITION loose FOR VALUES FROM (10) TO (20)",
    "ALTER TABLE parted DETACH PARTITION part1",
    "CREATE INDEX i ON orders (id, user_id)",
    "CREATE UNIQUE INDEX i ON app.\"Odd\" (i)",
    "CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noted()",
    "CREATE POLICY p ON orders USING (true)",
    "CREATE RULE r AS ON INSERT TO orders DO NOTHING",
    "CREATE TABLE n (i int PRIMARY KEY, u int REFERENCES users)",
    "CREATE TABLE part2 PARTITION OF parted FOR VALUES FROM (30) TO (40)",
    "CREATE VIEW w AS SELECT * FROM users",
    "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users'",
    "COMMENT ON COLUMN users.id IS 'x'",
    "GRANT SELECT ON users TO PUBLIC",
    "DROP TABLE loose",
    "DROP TABLE IF EXISTS nothing, loose",
    "DROP INDEX by_user",
    "DROP VIEW v",
    "DROP SCHEMA app CASCADE",
    "TRUNCATE loose, app.\"Odd\"",
    "REINDEX TABLE orders",
    "REINDEX INDEX by_user",
    "REFRESH MATERIALIZED VIEW mv",
    "CLUSTER orders USING by_user",
    "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE",
    "LOCK orders",
    "INSERT INTO loose VALUES (1)",
    "UPDATE users SET name = 'c'",
    "SELECT count(*) FROM users",
    "ALTER TABLE items DROP CONSTRAINT items_order_fkey",
    "ALTER TABLE items DROP COLUMN order_id",
    "ALTER TABLE items DROP COLUMN note",
    "ALTER TABLE items ALTER COLUMN order_id TYPE bigint",
    "ALTER TABLE orders ALTER COLUMN id TYPE bigint",
    "ALTER TABLE orders DROP CONSTRAINT later",
    "DROP TABLE items",
];

/// Tables whose locks keep plain reads or writes waiting, as the server has them while the statement's transaction is open.
fn taken(url: &str, statement: &str) -> Vec<String> {
    let locks = format!(
        "BEGIN; CREATE TEMP TABLE before ON COMMIT DROP AS SELECT oid, CASE WHEN relnamespace = 'public'::regnamespace THEN relname
             ELSE 'app.\"Odd\"' END AS name FROM pg_class WHERE relkind IN ('r', 'p', 'm') AND oid >= 16384 AND relnamespace::regnamespace::text IN ('public', 'app');
         SAVEPOINT s; {statement};
         SELECT name || ' ' || CASE WHEN bool_or(mode = 'AccessExclusiveLock') THEN 'reads-and-writes' ELSE 'writes' END
         FROM pg_locks l JOIN before b ON b.oid = l.relation WHERE l.pid = pg_backend_pid()
           AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') GROUP BY name ORDER BY 1;
         ROLLBACK"
    );
    psql::run(url, &locks).lines().filter(|line| line.ends_with("writes")).map(str::to_owned).collect()
}

fn plan(run: &ProtectedRun, more: &[&str]) -> Value {
    let ended = run.run(&[&["plan", "--json"][..], more].concat()).exits(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn the_locks_of_a_plan_are_those_that_the_server_takes() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("outlook"));
        run.database.psql(TABLES);
        let url = run.database.url();
        for statement in STATEMENTS {
            run.migration("0001_a.sql", &format!("{statement};\n"));
            let document = plan(&run, &[]);
            let planned = &document["pending"][0]["statements"][0];
            let locks = planned["locks"].as_array().expect("locks").iter();
            let mut locks: Vec<String> = locks
                .filter(|lock| lock["blocks"] != "schema")
                .map(|lock| {
                    format!("{} {}", lock["table"].as_str().unwrap(), lock["blocks"].as_str().unwrap())
                })
                .collect();
            locks.sort();
            assert_eq!(locks, taken(&url, statement), "PostgreSQL {major}: {statement}: {planned:#}");
        }
    }
}

#[test]
fn what_a_run_refuses_is_said_by_its_plan() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        run.database.psql("INSERT INTO audit VALUES (1, 'a'); ANALYZE");
        let before = run.fingerprint();
        run.migration("0001_a.sql", "CREATE TABLE fresh (i int);\nDROP TABLE audit;\nDROP TABLE fresh;\n");
        let said = "audit loses all its rows";
        run.run(&["plan"])
            .exits(0)
            .says(said)
            .says("--allow-loss audit lets them go")
            .never_says("fresh loses")
            .says("2 warnings");
        run.run(&["plan", "--deny-warnings"]).exits(32).says(said);
        run.run(&[]).exits(11).says("allow it with --allow-loss audit=");
        run.assert_unchanged(&before);
        // Acknowledged, it is no warning: what is left is that code may know the table.
        run.run(&["--allow-loss", "audit", "plan", "--deny-warnings"])
            .exits(32)
            .never_says(said)
            .says("ban-drop-table");
        let annotated = "-- safe-run: allow-loss audit\n-- squawk-ignore ban-drop-table\nDROP TABLE audit;\n";
        run.migration("0001_a.sql", annotated);
        run.run(&["plan", "--deny-warnings"]).exits(0).never_says(said).never_says("ban-drop-table");
        run.run(&[]).exits(0);
    }
}

#[test]
fn rules_are_told_where_they_matter_and_what_can_not_be_told_is_said() {
    let run = ProtectedRun::shop(18);
    run.migration(
        "0001_a.sql",
        "CREATE TABLE fresh (i int);\nCREATE INDEX ON fresh (i);\nCREATE INDEX ON orders (user_id);\nALTER TABLE users RENAME TO people;\nALTER TABLE people ADD COLUMN a int;\nDO $$ BEGIN NULL; END $$;\n",
    );
    // Of another file, squawk does not know that the table is new.
    run.migration(
        "0002_b.sql",
        "CREATE INDEX ON fresh (i);\nSET search_path = app;\nALTER TABLE orders ADD COLUMN b int;\n",
    );
    let document = plan(&run, &[]);
    let of = |file: usize, statement: usize| document["pending"][file]["statements"][statement].clone();
    let rules = |planned: &Value| {
        let found = planned["findings"].as_array().expect("findings").clone();
        found.iter().map(|found| found["rule"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rules(&of(0, 1)), Vec::<String>::new());
    assert_eq!(rules(&of(0, 2)), ["require-concurrent-index-creation"]);
    assert_eq!(of(0, 2)["locks"][0]["mode"], "SHARE");
    assert_eq!(rules(&of(0, 3)), ["renaming-table"]);
    assert_eq!(of(0, 4)["locks"][0]["table"], "users", "by the name that it has now");
    assert_eq!(of(0, 5)["unknown"], "DO block");
    assert_eq!(rules(&of(1, 0)), Vec::<String>::new());
    assert_eq!(of(1, 2)["locks"].as_array().map(Vec::len), Some(0), "the search path is another one");
    let ended = run
        .run(&["plan"])
        .exits(0)
        .says("nobody writes to orders meanwhile (SHARE; ")
        .says("DO block: what it locks");
    drop(ended.says("Nothing was changed."));
}

#[test]
fn warnings_are_annotations_of_a_workflow_and_sarif() {
    let run = ProtectedRun::shop(18);
    run.migration("0001_a%,b.sql", "SELECT 1;\n\nDROP TABLE audit;\n");
    let github = run.run(&["plan", "--output", "github", "--deny-warnings"]).exits(32);
    let lines: Vec<&str> = github.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{github}");
    assert!(lines[0].starts_with("::warning file="), "{github}");
    assert!(lines[0].contains("0001_a%25%2Cb.sql,line=3,title=unacknowledged-loss::audit loses"), "{github}");
    assert!(lines[1].contains(",line=3,title=ban-drop-table::ban-drop-table: "), "{github}");
    let sarif = run.run(&["plan", "--output", "sarif"]).exits(0);
    let log: Value = serde_json::from_str(&sarif.stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    assert_eq!(log.as_object().map(serde_json::Map::len), Some(3), "nothing that SARIF does not know");
    let results = &log["runs"][0]["results"];
    assert_eq!(results[0]["ruleId"], "unacknowledged-loss");
    let place = &results[1]["locations"][0]["physicalLocation"];
    assert_eq!(place["region"]["startLine"], 3);
    assert!(
        place["artifactLocation"]["uri"].as_str().is_some_and(|uri| uri.ends_with("0001_a%25,b.sql")),
        "{place}"
    );
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"][0]["id"], "ban-drop-table");
}
