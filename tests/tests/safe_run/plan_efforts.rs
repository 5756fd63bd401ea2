//! `safe-run plan` says which statements write a table anew, read all of it, or build indexes: compared with the server, which says
//! whose file is another one and what was read, once each statement has run.
//!
//! One database for all: every case has a schema of its own, which `@` stands for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tests::{Cluster, ProtectedRun, psql};

/// What most cases begin with.
const TABLE: &str = "CREATE TABLE @.t (id int PRIMARY KEY, v varchar(10), n numeric(10, 2), tx text, ts timestamp, tz timestamptz, b bpchar(5), j int);
    INSERT INTO @.t SELECT i, 'v' || i, i, 'x', now(), now(), 'b', i FROM generate_series(1, 50) i;";

/// From which major version on, what is there before (`T` is [`TABLE`]), the statement.
const CASES: &[(u32, &str, &str)] = &[
    // Types.
    (14, "T", "ALTER TABLE @.t ALTER v TYPE varchar(20)"),
    (14, "T", "ALTER TABLE @.t ALTER v TYPE varchar(5)"),
    (14, "T", "ALTER TABLE @.t ALTER v TYPE text"),
    (14, "T", "ALTER TABLE @.t ALTER v TYPE varchar"),
    (14, "T", "ALTER TABLE @.t ALTER tx TYPE varchar"),
    (14, "T", "ALTER TABLE @.t ALTER tx TYPE varchar(20)"),
    (14, "T", "ALTER TABLE @.t ALTER b TYPE char(9)"),
    (14, "T", "ALTER TABLE @.t ALTER b TYPE text"),
    (14, "T", "ALTER TABLE @.t ALTER n TYPE numeric(12, 2)"),
    (14, "T", "ALTER TABLE @.t ALTER n TYPE numeric(12, 4)"),
    (14, "T", "ALTER TABLE @.t ALTER n TYPE numeric"),
    (14, "T", "ALTER TABLE @.t ALTER id TYPE bigint"),
    (14, "T", "ALTER TABLE @.t ALTER j TYPE text USING j::text, ALTER v TYPE text"),
    (14, "T", "ALTER TABLE @.t ALTER ts TYPE timestamptz"),
    (14, "T", "ALTER TABLE @.t ALTER tz TYPE timestamp(6)"),
    (14, "T", "ALTER TABLE @.t ALTER tz TYPE timestamp(3)"),
    (14, "T", "ALTER TABLE @.t ALTER ts TYPE timestamp(0)"),
    (14, "T", "ALTER TABLE @.t ALTER tx TYPE jsonb USING to_jsonb(tx)"),
    (14, "T", "ALTER TABLE @.t ALTER tx TYPE text USING lower(tx)"),
    (14, "T", "ALTER TABLE @.t ALTER tx TYPE varchar USING (tx::varchar)"),
    (14, "T", "ALTER TABLE @.t ALTER tx TYPE varchar USING tx"),
    (14, "T CREATE DOMAIN @.d AS text;", "ALTER TABLE @.t ALTER tx TYPE @.d"),
    (14, "T CREATE DOMAIN @.d AS text CHECK (VALUE <> '');", "ALTER TABLE @.t ALTER tx TYPE @.d"),
    (14, "T CREATE DOMAIN @.d AS varchar(30);", "ALTER TABLE @.t ALTER v TYPE @.d"),
    (
        14,
        "CREATE DOMAIN @.d AS text CHECK (VALUE <> ''); CREATE TABLE @.t (d @.d);",
        "ALTER TABLE @.t ALTER d TYPE text",
    ),
    (14, "CREATE TYPE @.e AS ENUM ('a'); CREATE TABLE @.t (e @.e);", "ALTER TABLE @.t ALTER e TYPE text"),
    (
        14,
        "CREATE TYPE @.e AS ENUM ('a'); CREATE TABLE @.t (e text);",
        "ALTER TABLE @.t ALTER e TYPE @.e USING e::@.e",
    ),
    (
        14,
        "CREATE TABLE @.t (a varchar(10)[], i inet, c cidr, bi varbit(5), iv interval(3));",
        "ALTER TABLE @.t ALTER a TYPE varchar(20)[]",
    ),
    (14, "CREATE TABLE @.t (a varchar(10)[], i int[]);", "ALTER TABLE @.t ALTER a TYPE text[]"),
    (14, "CREATE TABLE @.t (a varchar(10)[], i int[]);", "ALTER TABLE @.t ALTER i TYPE bigint[]"),
    (14, "CREATE TABLE @.t (c cidr, bi varbit(5), iv interval(3));", "ALTER TABLE @.t ALTER c TYPE inet"),
    (
        14,
        "CREATE TABLE @.t (c cidr, bi varbit(5), iv interval(3));",
        "ALTER TABLE @.t ALTER bi TYPE varbit(9)",
    ),
    (
        14,
        "CREATE TABLE @.t (c cidr, bi varbit(5), iv interval(3));",
        "ALTER TABLE @.t ALTER iv TYPE interval(5)",
    ),
    (
        14,
        "CREATE TABLE @.t (c cidr, bi varbit(5), iv interval(3));",
        "ALTER TABLE @.t ALTER iv TYPE interval(1)",
    ),
    (14, "CREATE TABLE @.t (x xml, j json, o oid, i int);", "ALTER TABLE @.t ALTER j TYPE jsonb"),
    (
        14,
        "CREATE TABLE @.t (x xml, j json, o oid, i int); CREATE INDEX ON @.t (i);",
        "ALTER TABLE @.t ALTER i TYPE oid",
    ),
    (14, "CREATE TABLE @.t (x uuid, j json);", "ALTER TABLE @.t ALTER x TYPE text"),
    (
        14,
        "T CREATE INDEX ON @.t (v); CREATE INDEX ON @.t (lower(v), v); CREATE INDEX ON @.t (j) WHERE v > 'a'",
        "ALTER TABLE @.t ALTER v TYPE text",
    ),
    (
        14,
        "T CREATE INDEX ON @.t (v); CREATE INDEX ON @.t (n);",
        "ALTER TABLE @.t ALTER n TYPE numeric(14, 2), ALTER v TYPE varchar(30)",
    ),
    (
        14,
        "CREATE TABLE @.t (v varchar(5) COLLATE \"C\"); CREATE INDEX ON @.t (v);",
        "ALTER TABLE @.t ALTER v TYPE varchar(9)",
    ),
    (14, "T ALTER TABLE @.t ADD CHECK (v <> '');", "ALTER TABLE @.t ALTER v TYPE varchar(20)"),
    (14, "T CREATE TABLE @.u (t int REFERENCES @.t);", "ALTER TABLE @.t ALTER id TYPE bigint"),
    (14, "T CREATE TABLE @.u (t int REFERENCES @.t);", "ALTER TABLE @.u ALTER t TYPE bigint"),
    (
        14,
        "CREATE TABLE @.t (v varchar(5) PRIMARY KEY); CREATE TABLE @.u (v varchar(5) REFERENCES @.t);",
        "ALTER TABLE @.t ALTER v TYPE text",
    ),
    (
        14,
        "CREATE TABLE @.t (v varchar(5)) PARTITION BY LIST (v); CREATE TABLE @.p PARTITION OF @.t DEFAULT; CREATE INDEX ON @.t (v);",
        "CREATE INDEX ON @.t (lower(v))",
    ),
    (
        14,
        "CREATE TABLE @.t (i int, v varchar(5)) PARTITION BY LIST (i); CREATE TABLE @.p PARTITION OF @.t DEFAULT;",
        "ALTER TABLE @.t ALTER v TYPE int USING 1 + v::int",
    ),
    // New columns.
    (14, "T", "ALTER TABLE @.t ADD a int"),
    (14, "T", "ALTER TABLE @.t ADD a int NOT NULL DEFAULT 5"),
    (14, "T", "ALTER TABLE @.t ADD a timestamptz DEFAULT now()"),
    (14, "T", "ALTER TABLE @.t ADD a timestamptz DEFAULT current_timestamp NOT NULL"),
    (14, "T", "ALTER TABLE @.t ADD a timestamptz DEFAULT clock_timestamp()"),
    (14, "T", "ALTER TABLE @.t ADD a uuid DEFAULT gen_random_uuid()"),
    (14, "T", "ALTER TABLE @.t ADD a float8 DEFAULT (random() * 2)::float8"),
    (14, "T", "ALTER TABLE @.t ADD a jsonb DEFAULT '{}'::jsonb"),
    (14, "T", "ALTER TABLE @.t ADD a serial"),
    (14, "T", "ALTER TABLE @.t ADD a int GENERATED ALWAYS AS IDENTITY"),
    (14, "T", "ALTER TABLE @.t ADD a int GENERATED ALWAYS AS (j * 2) STORED"),
    (18, "T", "ALTER TABLE @.t ADD a int GENERATED ALWAYS AS (j * 2)"),
    (18, "T", "ALTER TABLE @.t ADD a int GENERATED ALWAYS AS (j * 2) VIRTUAL"),
    (14, "T", "ALTER TABLE @.t ADD a int CHECK (a > 0)"),
    (14, "T", "ALTER TABLE @.t ADD a int DEFAULT 1 CHECK (a > 0)"),
    (14, "T", "ALTER TABLE @.t ADD a int UNIQUE"),
    (14, "T CREATE TABLE @.u (i int PRIMARY KEY);", "ALTER TABLE @.t ADD a int REFERENCES @.u"),
    (
        14,
        "T CREATE TABLE @.u (i int PRIMARY KEY); INSERT INTO @.u VALUES (1);",
        "ALTER TABLE @.t ADD a int DEFAULT 1 REFERENCES @.u",
    ),
    (14, "T CREATE DOMAIN @.d AS int;", "ALTER TABLE @.t ADD a @.d"),
    (14, "T CREATE DOMAIN @.d AS int DEFAULT 5;", "ALTER TABLE @.t ADD a @.d"),
    (14, "T CREATE DOMAIN @.d AS int DEFAULT 5;", "ALTER TABLE @.t ADD a @.d DEFAULT 7"),
    (
        14,
        "T CREATE FUNCTION @.f() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';",
        "ALTER TABLE @.t ADD a int DEFAULT @.f()",
    ),
    (
        14,
        "T CREATE FUNCTION @.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';",
        "ALTER TABLE @.t ADD a int DEFAULT @.f()",
    ),
    (14, "T", "ALTER TABLE @.t ADD COLUMN IF NOT EXISTS j bigserial"),
    (14, "T CREATE INDEX ON @.t (j);", "ALTER TABLE @.t ADD a serial, ADD CHECK (j > 0), ADD UNIQUE (j)"),
    (14, "T", "ALTER TABLE @.t DROP COLUMN j"),
    (14, "T", "ALTER TABLE @.t ALTER j SET DEFAULT random()"),
    (
        14,
        "T ALTER TABLE @.t ALTER j SET NOT NULL;",
        "ALTER TABLE @.t ALTER j ADD GENERATED ALWAYS AS IDENTITY",
    ),
    (
        17,
        "CREATE TABLE @.t (i int, g int GENERATED ALWAYS AS (i) STORED)",
        "ALTER TABLE @.t ALTER g SET EXPRESSION AS (i + 1)",
    ),
    (
        18,
        "CREATE TABLE @.t (i int, g int GENERATED ALWAYS AS (i))",
        "ALTER TABLE @.t ALTER g SET EXPRESSION AS (i + 1)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int, g int GENERATED ALWAYS AS (i) STORED)",
        "ALTER TABLE @.t ALTER g DROP EXPRESSION",
    ),
    // Constraints.
    (14, "T", "ALTER TABLE @.t ALTER j SET NOT NULL"),
    (14, "T", "ALTER TABLE @.t ALTER id SET NOT NULL"),
    (14, "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j IS NOT NULL);", "ALTER TABLE @.t ALTER j SET NOT NULL"),
    (
        14,
        "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j IS NOT NULL AND j > 0);",
        "ALTER TABLE @.t ALTER j SET NOT NULL",
    ),
    (
        14,
        "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j IS NOT NULL) NOT VALID;",
        "ALTER TABLE @.t ALTER j SET NOT NULL",
    ),
    (14, "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j > 0);", "ALTER TABLE @.t ALTER j SET NOT NULL"),
    (
        14,
        "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j IS NOT NULL OR id > 5);",
        "ALTER TABLE @.t ALTER j SET NOT NULL",
    ),
    (
        14,
        "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j IS NOT NULL) NOT VALID;",
        "ALTER TABLE @.t VALIDATE CONSTRAINT c",
    ),
    (14, "T ALTER TABLE @.t ADD CONSTRAINT c CHECK (j > 0);", "ALTER TABLE @.t VALIDATE CONSTRAINT c"),
    (14, "T", "ALTER TABLE @.t ADD CONSTRAINT c CHECK (j > 0)"),
    (14, "T", "ALTER TABLE @.t ADD CONSTRAINT c CHECK (j > 0) NOT VALID"),
    (18, "T", "ALTER TABLE @.t ADD CONSTRAINT c CHECK (j > 0) NOT ENFORCED"),
    (18, "T", "ALTER TABLE @.t ADD CONSTRAINT c NOT NULL j"),
    (18, "T", "ALTER TABLE @.t ADD CONSTRAINT c NOT NULL j NOT VALID"),
    (18, "T ALTER TABLE @.t ADD CONSTRAINT c NOT NULL j NOT VALID;", "ALTER TABLE @.t VALIDATE CONSTRAINT c"),
    (18, "T ALTER TABLE @.t ADD CONSTRAINT c NOT NULL j NOT VALID;", "ALTER TABLE @.t ALTER j SET NOT NULL"),
    (14, "T CREATE TABLE @.u (t int);", "ALTER TABLE @.u ADD FOREIGN KEY (t) REFERENCES @.t"),
    (
        14,
        "T CREATE TABLE @.u (t int);",
        "ALTER TABLE @.u ADD CONSTRAINT f FOREIGN KEY (t) REFERENCES @.t NOT VALID",
    ),
    (
        14,
        "T CREATE TABLE @.u (t int); ALTER TABLE @.u ADD CONSTRAINT f FOREIGN KEY (t) REFERENCES @.t NOT VALID;",
        "ALTER TABLE @.u VALIDATE CONSTRAINT f",
    ),
    (14, "T", "ALTER TABLE @.t ADD UNIQUE (j)"),
    (14, "CREATE TABLE @.t (i int, j int NOT NULL);", "ALTER TABLE @.t ADD PRIMARY KEY (i, j)"),
    (14, "CREATE TABLE @.t (i int, j int NOT NULL);", "ALTER TABLE @.t ADD PRIMARY KEY (j)"),
    (
        14,
        "CREATE TABLE @.t (i int NOT NULL); CREATE UNIQUE INDEX x ON @.t (i);",
        "ALTER TABLE @.t ADD PRIMARY KEY USING INDEX x",
    ),
    (14, "CREATE TABLE @.t (i int, r int4range);", "ALTER TABLE @.t ADD EXCLUDE USING gist (r WITH &&)"),
    (14, "T", "ALTER TABLE @.t DROP CONSTRAINT t_pkey"),
    // Partitions.
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY RANGE (i); CREATE TABLE @.p (i int);",
        "ALTER TABLE @.t ATTACH PARTITION @.p FOR VALUES FROM (0) TO (10)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY RANGE (i); CREATE TABLE @.p (i int NOT NULL CHECK (i >= 0 AND i < 10));",
        "ALTER TABLE @.t ATTACH PARTITION @.p FOR VALUES FROM (0) TO (10)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY HASH (i); CREATE TABLE @.p (i int NOT NULL CHECK (i >= 0 AND i < 10));",
        "ALTER TABLE @.t ATTACH PARTITION @.p FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int, j int) PARTITION BY RANGE (i); CREATE INDEX ON @.t (j); CREATE TABLE @.d PARTITION OF @.t DEFAULT; CREATE TABLE @.p (i int, j int);",
        "ALTER TABLE @.t ATTACH PARTITION @.p FOR VALUES FROM (0) TO (10)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int, j int) PARTITION BY RANGE (i); CREATE INDEX ON @.t (j); CREATE TABLE @.p (i int, j int); CREATE INDEX ON @.p (j);",
        "ALTER TABLE @.t ATTACH PARTITION @.p FOR VALUES FROM (0) TO (10)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY LIST (i); CREATE TABLE @.p (i int);",
        "ALTER TABLE @.t ATTACH PARTITION @.p DEFAULT",
    ),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY LIST (i); CREATE TABLE @.q PARTITION OF @.t FOR VALUES IN (1); CREATE TABLE @.p (i int);",
        "ALTER TABLE @.t ATTACH PARTITION @.p DEFAULT",
    ),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY RANGE (i); CREATE TABLE @.d PARTITION OF @.t DEFAULT;",
        "CREATE TABLE @.p PARTITION OF @.t FOR VALUES FROM (0) TO (10)",
    ),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY RANGE (i); CREATE TABLE @.p PARTITION OF @.t DEFAULT;",
        "ALTER TABLE @.t DETACH PARTITION @.p",
    ),
    // Whole tables.
    (14, "T", "ALTER TABLE @.t SET UNLOGGED"),
    (14, "T", "ALTER TABLE @.t SET LOGGED"),
    (15, "T", "ALTER TABLE @.t SET ACCESS METHOD heap"),
    (14, "T", "ALTER TABLE @.t SET TABLESPACE pg_default"),
    (14, "T", "ALTER TABLE @.t SET (fillfactor = 50)"),
    (14, "T", "ALTER TABLE @.t ALTER tx SET STORAGE EXTERNAL"),
    (14, "T", "CLUSTER @.t USING t_pkey"),
    (
        14,
        "T CREATE MATERIALIZED VIEW @.m AS SELECT id FROM @.t; CREATE INDEX ON @.m (id);",
        "REFRESH MATERIALIZED VIEW @.m",
    ),
    (14, "T", "CREATE INDEX ON @.t (j)"),
    (14, "T CREATE INDEX x ON @.t (j);", "CREATE INDEX IF NOT EXISTS x ON @.t (j)"),
    (
        14,
        "CREATE TABLE @.t (i int) PARTITION BY RANGE (i); CREATE TABLE @.p PARTITION OF @.t DEFAULT;",
        "CREATE INDEX ON ONLY @.t (i)",
    ),
    (14, "T CREATE INDEX x ON @.t (j);", "REINDEX INDEX @.x"),
    (14, "T CREATE INDEX x ON @.t (j);", "REINDEX TABLE @.t"),
    (14, "T", "ALTER TABLE @.t RENAME j TO k"),
    (14, "T", "DROP TABLE @.t"),
];

/// Name, and what was done: as lines `rewrite t`, `read t`, `index t 2`.
type Done = BTreeSet<String>;

/// Runs each statement and rolls it back.
fn truth(url: &str, cases: &[(usize, String)]) -> BTreeMap<usize, Done> {
    let mut script = String::from(
        "CREATE TEMP TABLE files AS SELECT oid, relname, relfilenode, relkind, 0::oid AS of FROM pg_class WHERE false;
         CREATE TEMP TABLE reads AS SELECT relid, 0::bigint AS read FROM pg_stat_xact_user_tables WHERE false;\n",
    );
    let look = "SELECT c.oid, c.relname, pg_relation_filenode(c.oid) AS relfilenode, c.relkind, i.indrelid AS of FROM pg_class c
                LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relnamespace = '@'::regnamespace AND c.relkind IN ('r', 'm', 'i')";
    let read = "SELECT relid, COALESCE(seq_scan, 0) + COALESCE(idx_scan, 0) AS read FROM pg_stat_xact_user_tables WHERE schemaname = '@'";
    for (number, statement) in cases {
        let one = format!(
            "BEGIN; INSERT INTO files {look}; INSERT INTO reads {read};
             {statement};
             SELECT '{number} rewrite ' || f.relname FROM ({look}) n JOIN files f USING (oid) WHERE f.relkind <> 'i' AND f.relfilenode <> n.relfilenode;
             SELECT '{number} read ' || c.relname FROM ({read}) n LEFT JOIN reads r USING (relid) JOIN files c ON c.oid = relid
                WHERE n.read > COALESCE(r.read, 0);
             SELECT '{number} index ' || t.relname || ' ' || count(*) FROM ({look}) n JOIN files t ON t.oid = n.of LEFT JOIN files f ON f.oid = n.oid
                WHERE n.relkind = 'i' AND n.relfilenode IS DISTINCT FROM f.relfilenode AND n.relfilenode NOT IN (SELECT relfilenode FROM files WHERE relkind = 'i') GROUP BY t.relname;
             ROLLBACK;\n"
        );
        script.push_str(&one.replace('@', &format!("s{number}")));
    }
    let mut found: BTreeMap<usize, Done> = BTreeMap::new();
    for line in psql::run(url, &script).lines() {
        let (number, what) = line.split_once(' ').expect("a number and what was done");
        found.entry(number.parse().expect("a number")).or_default().insert(what.to_owned());
    }
    found
}

/// What a plan says, as [`truth`] does: a table is read by whatever is done with it, and a partition by what is done with its parent.
fn said(planned: &Value) -> Done {
    let mut done = Done::new();
    for effort in planned["efforts"].as_array().expect("efforts") {
        let table = effort["table"].as_str().expect("a table").rsplit('.').next().expect("a name");
        done.insert(format!("read {table}"));
        let indexes = effort["indexes"].as_u64().expect("a number");
        if effort["what"] == "rewrite" {
            done.insert(format!("rewrite {table}"));
        }
        if indexes > 0 {
            let line = done.iter().find(|line| line.starts_with(&format!("index {table} "))).cloned();
            let before: u64 =
                line.as_ref().map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap());
            line.map(|line| done.remove(&line));
            done.insert(format!("index {table} {}", before + indexes));
        }
    }
    done
}

#[test]
fn what_a_plan_says_of_rows_is_what_the_server_does_with_them() {
    let mut wrong = Vec::new();
    for major in tests::cluster::ends() {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("efforts"));
        let cases: Vec<(usize, &(u32, &str, &str))> =
            CASES.iter().enumerate().filter(|(_, (from, ..))| *from <= major).collect();
        let mut setup = String::new();
        let mut statements = Vec::new();
        for (number, (_, before, statement)) in &cases {
            let before =
                before.strip_prefix('T').map_or((*before).to_owned(), |more| format!("{TABLE}{more}"));
            setup.push_str(&format!("CREATE SCHEMA @; {before};\n").replace('@', &format!("s{number}")));
            statements.push((*number, statement.replace('@', &format!("s{number}"))));
        }
        run.database.psql(&setup);
        let all: String = statements.iter().map(|(_, statement)| format!("{statement};\n")).collect();
        run.migration("0001_a.sql", &all);
        let ended = run.run(&["plan", "--json"]).exits(0);
        let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let truth = truth(&run.database.url(), &statements);
        for (at, (number, statement)) in statements.iter().enumerate() {
            let planned = &document["pending"][0]["statements"][at];
            let mut said = said(planned);
            let mut done = truth.get(number).cloned().unwrap_or_default();
            // A plan names the partitioned table; its rows are the partition's.
            let before = CASES[*number].1;
            if before.contains("@.p PARTITION OF @.t") && !statement.contains("PARTITION") {
                said = said.iter().map(|line| line.replace(" t", " p")).collect();
            }
            // Which other tables are read is not told, of a query as of foreign keys.
            if statement.contains("REFRESH") || planned["efforts"].to_string().contains("\"lookup\"") {
                done.retain(|line| !line.starts_with("read ") || said.contains(line));
            }
            if said != done {
                wrong.push(format!(
                    "PostgreSQL {major}: {statement}\n   planned {said:?}\n   done    {done:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_plan_follows_what_the_statements_before_have_changed() {
    let run = ProtectedRun::on(Cluster::shared(18).fresh_database("efforts"));
    run.database.psql(
        "CREATE TABLE t (id int PRIMARY KEY, a int, v varchar(5)); CREATE INDEX by_a ON t (a);
         INSERT INTO t SELECT i, i, 'v' FROM generate_series(1, 50) i; ANALYZE",
    );
    run.migration(
        "0001_a.sql",
        "ALTER TABLE t ADD CONSTRAINT a_is_there CHECK (a IS NOT NULL) NOT VALID;
ALTER TABLE t VALIDATE CONSTRAINT a_is_there;
ALTER TABLE t ALTER a SET NOT NULL;
ALTER TABLE t RENAME a TO b;
ALTER TABLE t ALTER v TYPE text;
ALTER TABLE t ALTER v TYPE varchar(9);
CREATE TABLE fresh (i int);
ALTER TABLE fresh ADD j int DEFAULT random();
DROP INDEX by_a;
ALTER TABLE t ALTER b TYPE bigint;
SET TimeZone = 'Europe/Berlin';
ALTER TABLE t ADD c unknown_type DEFAULT unknown_function();
",
    );
    let ended = run.run(&["plan", "--json"]).exits(0);
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let efforts: Vec<String> = document["pending"][0]["statements"]
        .as_array()
        .expect("statements")
        .iter()
        .map(|planned| {
            let all = planned["efforts"].as_array().expect("efforts").iter();
            all.map(|effort| format!("{} {} {}", effort["what"], effort["table"], effort["indexes"]))
                .collect()
        })
        .collect();
    let read = r#""scan" "t" 0"#;
    assert_eq!(
        efforts,
        ["", read, "", "", "", r#""rewrite" "t" 2"#, "", "", "", r#""rewrite" "t" 1"#, "", ""],
        "{document:#}"
    );
    run.run(&["plan"])
        .exits(0)
        .says("all rows of t are read: each is held against a_is_there (about ")
        .says("all rows of t are written anew, with 2 indexes: v goes from text to character varying");
}

#[test]
fn a_plan_says_what_makes_the_undo_dearer_and_how_long_others_waited_for_that() {
    let run = ProtectedRun::shop(18);
    run.migration("0001_a.sql", "ALTER TABLE audit ADD b int;\n");
    run.migration("0002_b.sql", "CREATE INDEX CONCURRENTLY by_b ON audit (b);\n");
    let ended = "all other sessions of the database are ended";
    run.run(&["plan"])
        .exits(0)
        .says("can't run in a transaction, so a ROLLBACK does not undo it")
        .says(ended)
        .says("they can connect again and read, and what they write fails")
        .says("`safe-run --to 0001` applies what comes before it in one transaction")
        .never_says("of that kind here");
    run.run(&["--fence", "exclusive", "plan"]).exits(0).says("nobody else can connect");
    run.run(&["plan", "--to", "0001"]).exits(0).says("the undo is a ROLLBACK").never_says(ended);
    run.run(&[]).exits(0);
    run.migration("0003_c.sql", "DROP INDEX CONCURRENTLY by_b;\n");
    run.run(&["plan"])
        .exits(0)
        .says("The last run of that kind here kept writers out for ")
        .never_says("--to 0002");
    let document: Value = serde_json::from_str(&run.run(&["plan", "--json"]).exits(0).stdout).expect("JSON");
    assert_eq!(document["undo"]["fence"], "read-only");
    assert_eq!(document["undo"]["earlier_fence_seconds"].as_array().map(Vec::len), Some(1), "{document}");
}
