//! `safe-run import` where a value could become another one without an error, or a row be taken for another: what is refused,
//! and what stays as it was.

// The helpers of tests are tests too; clippy.toml covers only the functions marked as such.
#![allow(clippy::unwrap_used)]

use tests::{Cluster, Ended, ProtectedRun, Session, psql, until};

/// A database with these tables, and beside it a SQLite file made by Python's own library.
fn prepared(major: u32, postgresql: &str, sqlite: &str) -> ProtectedRun<'static> {
    let run = ProtectedRun::on(Cluster::shared(major).fresh_database("decisions"));
    if !postgresql.is_empty() {
        run.database.psql(postgresql);
    }
    let script = run.file("made.sql", sqlite);
    let code = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\nc.executescript(open(sys.argv[2]).read())\nc.commit()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", code]).arg(run.folder().join("app.sqlite3")).arg(script);
    psql::succeed(python);
    run
}

fn import(run: &ProtectedRun, flags: &[&str]) -> Ended {
    run.run(&[&["import", "app.sqlite3"], flags].concat())
}

#[test]
fn what_postgresql_would_round_or_compute_is_a_decision() {
    let run = prepared(
        18,
        "CREATE TABLE item (id int PRIMARY KEY, price money, spans interval(0)[], twice int GENERATED ALWAYS AS (id * 2) STORED)",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, price, spans TEXT, twice INTEGER); INSERT INTO item VALUES (1, 1.005, '{00:00:01.5}', 7);",
    );
    let before = run.fingerprint();
    import(&run, &[])
        .exits(3)
        .says("item.price is of type money, which changes values without an error")
        .says("item.spans is of type interval(0)[], which changes values without an error")
        .says("column item.twice holds values, and PostgreSQL computes item.twice itself");
    run.assert_unchanged(&before);
    let flags = ["--skip-column", "item.price", "--skip-column", "item.spans", "--skip-column", "item.twice"];
    import(&run, &flags).exits(0).says("read back equal");
    assert_eq!(run.database.psql("SELECT * FROM item"), "1|||2");
}

#[test]
fn what_sqlite_computes_with_doubles_is_loaded_as_it_is() {
    let run = prepared(
        14,
        "",
        "CREATE TABLE item (qty INTEGER, total REAL AS (qty * 0.1), flag INTEGER AS (qty > 2), twice INTEGER AS (qty * 2));
         INSERT INTO item VALUES (3);",
    );
    let before = run.fingerprint();
    for (flags, code, said) in [
        (["--skip-column", "item.qty"], 2, "--skip-column has no meaning where the schema is made"),
        (["--map", "item=other"], 2, "--map has no meaning"),
        (["--epoch", "seconds"], 2, "--epoch without a column has no meaning"),
        (["--type", "item.qty=money"], 2, "money changes values without an error"),
        (["--skip-table", "nope"], 3, "the file has no table nope, which a flag names"),
    ] {
        import(&run, &flags).exits(code).says(said);
    }
    run.assert_unchanged(&before);
    import(&run, &[]).exits(0).says("read back equal");
    assert_eq!(run.database.psql("SELECT * FROM item"), "3|0.30000000000000004|1|6");
    let computed =
        "SELECT attname FROM pg_attribute WHERE attrelid = 'item'::regclass AND attgenerated <> ''";
    assert_eq!(run.database.psql(computed), "twice");
}

#[test]
fn rows_are_told_apart_by_whole_keys() {
    let long = "k".repeat(80);
    let run = prepared(
        18,
        "CREATE TABLE owner (id int PRIMARY KEY); CREATE TABLE tag (name text PRIMARY KEY, owner int REFERENCES owner);
         CREATE TABLE odd (rowid int, _rowid_ int, oid int REFERENCES owner)",
        &format!(
            "CREATE TABLE owner (id INTEGER PRIMARY KEY); CREATE TABLE tag (name TEXT PRIMARY KEY, owner INTEGER) WITHOUT ROWID;
             CREATE TABLE odd (rowid INTEGER, _rowid_ INTEGER, oid INTEGER);
             INSERT INTO owner VALUES (1); INSERT INTO tag VALUES ('{long}a', 1), ('{long}b', 9); INSERT INTO odd VALUES (1, 1, 9);"
        ),
    );
    let before = run.fingerprint();
    import(&run, &["--orphans", "skip"]).exits(3).says("nothing tells the rows of odd apart");
    run.assert_unchanged(&before);
    import(&run, &["--orphans", "skip", "--skip-table", "odd"]).exits(0).says("quarantine: 1 row");
    assert_eq!(run.database.psql("SELECT right(name, 1), owner FROM tag"), "a|1");
}

#[test]
fn triggers_of_replicas_and_sequences_of_defaults_are_respected() {
    for major in [14, 18] {
        let run = prepared(
            major,
            "CREATE TABLE item (id serial PRIMARY KEY); CREATE SEQUENCE other; ALTER TABLE item ALTER id SET DEFAULT nextval('other');
             ALTER SEQUENCE item_id_seq OWNED BY NONE;
             CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
             CREATE TRIGGER plain AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION nothing();
             CREATE TRIGGER mirrored AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION nothing();
             CREATE TRIGGER off AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION nothing();
             ALTER TABLE item ENABLE REPLICA TRIGGER mirrored; ALTER TABLE item DISABLE TRIGGER off",
            "CREATE TABLE item (id INTEGER PRIMARY KEY); INSERT INTO item VALUES (1), (40);",
        );
        import(&run, &[]).exits(0).says("read back equal");
        let states = "SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal";
        assert_eq!(run.database.psql(states), "mirroredR offD plainO", "{major}");
        assert_eq!(run.database.psql("INSERT INTO item DEFAULT VALUES RETURNING id"), "41", "{major}");
    }
}

#[test]
fn a_number_that_a_real_gives_back_as_another_one_is_refused() {
    for major in [14, 18] {
        let run = prepared(
            major,
            "CREATE TABLE t (id int PRIMARY KEY, r real)",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, r REAL);
             INSERT INTO t VALUES (1, 3e10), (2, 0.1), (3, 30000001000), (4, -9e9), (5, 30000001024)",
        );
        import(&run, &[]).exits(10).says("2 rows have values").says("t.r (2, not-exact)");
        import(&run, &["--bad-values", "quarantine"]).exits(0).says("read back equal");
        assert_eq!(
            run.database.psql("SELECT * FROM t ORDER BY id"),
            "2|0.1\n3|3.0000001e+10\n5|3.0000001e+10"
        );
    }
}

#[test]
fn sqlites_own_jsonb_becomes_json_and_what_is_also_a_text_is_refused() {
    for major in [14, 18] {
        let run = prepared(
            major,
            "CREATE TABLE t (id int PRIMARY KEY, j json, b jsonb)",
            // An object, an empty one, half of a string, 123 or 3123, JSON's own text, a quotation mark, a string of 300 characters.
            &format!(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, j, b);
                 INSERT INTO t (id, j) VALUES (1, x'cc0e1761bb133135322e350027c3bc01'), (2, x'0c'), (3, x'27c3'), (4, x'33313233'),
                   (5, CAST('[1, 2]' AS BLOB)), (6, x'1a22'), (7, x'd7012c{}');
                 UPDATE t SET b = j",
                "78".repeat(300)
            ),
        );
        import(&run, &[]).exits(10).says("row 3").says("row 4");
        import(&run, &["--bad-values", "quarantine"]).exits(0).says("read back equal");
        assert_eq!(
            run.database
                .psql("SELECT id, left(j::text, 40), left(b::text, 40), length(j::text) FROM t ORDER BY id"),
            format!(
                "1|{{\"a\":[1,2.5,null,\"ü\",true]}}|{{\"a\": [1, 2.5, null, \"ü\", true]}}|27\n2|{{}}|{{}}|2\n5|[1, 2]|[1, 2]|6\n6|\"\\\"\"|\"\\\"\"|4\n7|\"{0}|\"{0}|302",
                "x".repeat(39)
            )
        );
    }
}

#[test]
fn what_is_in_the_way_of_an_import_is_told_with_what_helps() {
    let run = prepared(
        18,
        "CREATE TABLE t (id bigint PRIMARY KEY, j bigint); INSERT INTO t VALUES (9); CREATE TABLE refers (t bigint REFERENCES t)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);",
    );
    let (database, name) = (&run.database, run.database.name());
    let recreate = ["--force-recreate", "--allow-loss", "t=1"];
    // However empty the other table is, PostgreSQL does not TRUNCATE one that it refers to.
    import(&run, &recreate)
        .exits(10)
        .says("hint: A table that the import does not fill refers to one of these");
    database.psql("ALTER TABLE refers DROP CONSTRAINT refers_t_fkey");
    import(&run, &recreate).exits(0);

    // Somebody changes the table while the import waits for its lock.
    database.psql("TRUNCATE t");
    let mut somebody = Session::open(&database.url());
    somebody.run("BEGIN; LOCK TABLE t IN SHARE MODE");
    let running = run.start(&["import", "app.sqlite3"]);
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted";
    until("the import waits", || database.psql(waits) == "t");
    somebody.run("ALTER TABLE t DROP COLUMN j; COMMIT");
    running.outcome().exits(10).says("hint: Run the import again.");

    // Its rows may be written, and its triggers belong to its owner.
    database.psql(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    let role = format!("{name}_writer");
    let cluster = database.cluster();
    cluster.psql(&format!("CREATE ROLE {role} LOGIN"));
    database.psql(&format!("GRANT ALL ON t, refers TO {role}; GRANT ALL ON SCHEMA public TO {role}; GRANT CREATE ON DATABASE {name} TO {role}"));
    let url = cluster.url_as(&role, name);
    let ended = run.run(&["import", "app.sqlite3", "-d", &url]);
    database.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    ended.exits(10).says("hint: Run the import as the owner of the tables.");

    database.psql(&format!("DROP TABLE t, refers; ALTER DATABASE {name} SET search_path = nope"));
    import(&run, &[]).exits(3).says("hint: Create the schema, or set the role's search_path.");
}
