//! `safe-run import` where a value could become another one without an error, or a row be taken for another: what is refused,
//! and what stays as it was.

// The helpers of tests are tests too; clippy.toml covers only the functions marked as such.
#![allow(clippy::unwrap_used)]

use tests::{Cluster, Ended, ProtectedRun, psql};

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
