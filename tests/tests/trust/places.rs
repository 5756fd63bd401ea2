//! The places in which `Planted` has a low role's code are real: a superuser's plain SQL runs it in every one of them. And what only a
//! superuser can make, as docs/trust.md says, PostgreSQL refuses to that role.

use tests::{Planted, ProtectedRun, psql};

/// The oldest and the newest server, and the next one where it is to be had.
fn ends() -> Vec<u32> {
    tests::cluster::majors().into_iter().filter(|major| [14, 18, 19].contains(major)).collect()
}

/// What a person could ask in psql.
const ASKED: &str = "
SELECT id FROM planted.t WHERE feeling::text <> '' AND id OPERATOR(planted.===) 1;
INSERT INTO planted.t (id, feeling) VALUES (1000, 'good');
UPDATE planted.t SET other = 1 WHERE id = 1000;
INSERT INTO planted.parent VALUES (500, 1);
INSERT INTO planted.whole VALUES (2);
INSERT INTO planted.leaving VALUES (2);
INSERT INTO planted.told VALUES (2, 'good');
INSERT INTO planted.joined VALUES (2, 'good');
INSERT INTO planted.nested VALUES (2, 'x');
INSERT INTO planted.lengths VALUES (2, ROW(1));
SELECT * FROM planted.seen; SELECT * FROM planted.summed; SELECT * FROM planted.values_as_text;
SELECT * FROM planted.body(); SELECT planted.given_by_default();
SELECT id FROM planted.kept WHERE id = 1;
-- Enough for a page of the GiST index to be split.
INSERT INTO planted.t (id, span) SELECT i, planted.span(i, i + 1) FROM generate_series(2000, 2300) i;
SET constraint_exclusion = on; EXPLAIN SELECT * FROM planted.far WHERE id > 0; RESET constraint_exclusion;
SET ROLE pg_read_all_data; SELECT count(*) FROM planted.t; RESET ROLE;
";

/// What PostgreSQL runs as the owner of the view whoever refreshes it, and what it computes once, when the partition is made.
const OTHERWISE: [&str; 2] = ["materialized view", "partition bound"];

#[test]
fn a_superusers_plain_sql_runs_the_planted_code_in_every_place() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        run.database.psql(ASKED);
        // The values of a default are computed before the server is looked for.
        psql::try_run(&run.database.url(), "INSERT INTO planted.far DEFAULT VALUES").unwrap_err();
        let (_, strange) = planted.heard_apart();
        let places = Planted::places();
        assert!(places.len() > 35, "{places:?}");
        let silent: Vec<&&str> = places
            .iter()
            .filter(|place| !OTHERWISE.contains(place) && !strange.contains_key(**place))
            .collect();
        assert!(silent.is_empty(), "not run by another role on {major}: {silent:?}");
        run.database.psql("REFRESH MATERIALIZED VIEW planted.kept");
        let own = planted.ran_only_as_itself(&format!("REFRESH on {major}"));
        assert!(own.iter().any(|place| place == "materialized view"), "{own:?} on {major}");
        planted.remove();
    }
}

/// What docs/trust.md leaves to superusers, because nobody else can make it.
const REFUSED: [(&str, &str); 14] = [
    (
        "CREATE FUNCTION planted.reads(cstring) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "cannot accept type cstring",
    ),
    (
        "CREATE FUNCTION planted.writes(int) RETURNS cstring LANGUAGE sql AS 'SELECT ''x''::cstring'",
        "cannot return type cstring",
    ),
    (
        "CREATE TYPE planted.base; CREATE TYPE planted.base (INPUT = int4in, OUTPUT = int4out)",
        "must be superuser",
    ),
    ("CREATE FUNCTION planted.c(int) RETURNS int LANGUAGE c AS 'x', 'y'", "permission denied for language c"),
    (
        "CREATE FUNCTION planted.guesses(internal, oid, internal, int) RETURNS float8 LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "cannot accept type internal",
    ),
    (
        "CREATE OPERATOR CLASS planted.ops FOR TYPE int USING btree AS OPERATOR 1 <, FUNCTION 1 planted.same(int, int)",
        "must be superuser",
    ),
    (
        "CREATE EVENT TRIGGER planted_any ON ddl_command_end EXECUTE FUNCTION planted.fires()",
        "permission denied to create event trigger",
    ),
    ("CREATE LANGUAGE planted HANDLER plpgsql_call_handler", "must be superuser"),
    ("CREATE FOREIGN DATA WRAPPER planted_any", "permission denied to create foreign-data wrapper"),
    (
        "CREATE ACCESS METHOD planted TYPE INDEX HANDLER bthandler",
        "permission denied to create access method",
    ),
    ("CREATE TEXT SEARCH TEMPLATE planted.template (LEXIZE = dsimple_lexize)", "must be superuser"),
    (
        "CREATE TEXT SEARCH PARSER planted.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)",
        "must be superuser",
    ),
    ("CREATE CONVERSION planted.c FOR 'LATIN1' TO 'UTF8' FROM planted.same", "does not exist"),
    (
        "CREATE TRANSFORM FOR planted.mood LANGUAGE plpgsql (FROM SQL WITH FUNCTION planted.same(int, int))",
        "must",
    ),
];

#[test]
fn what_only_a_superuser_can_make_is_refused_to_a_low_role_by_postgresql() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let planted = Planted::plant(&run.database);
        let as_low = run.database.cluster().url_as(planted.role(), run.database.name());
        let mut refused = REFUSED.to_vec();
        if major >= 15 {
            refused.push((
                "CREATE PUBLICATION planted_any FOR TABLE planted.whole WHERE (planted.say('publication'))",
                "invalid publication WHERE expression",
            ));
        }
        if major >= 18 {
            refused.push((
                "CREATE TABLE planted.v (i int, n int GENERATED ALWAYS AS (planted.number('virtual column')) VIRTUAL)",
                "user-defined function",
            ));
        }
        for (sql, says) in refused {
            let said = psql::try_run(&as_low, sql).expect_err(sql);
            assert!(said.contains(says), "{sql} on {major}: {said}");
        }
        planted.remove();
    }
}
