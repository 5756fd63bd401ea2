//! Many small tables, whose first questions are sent together: each finding stands at its own table all the same.

use super::*;

/// Forty tables with a foreign key, a CHECK, NOT NULL and a unique column, a serial and a view each.
const FORTY: &str = "
CREATE TABLE root (id int PRIMARY KEY);
INSERT INTO root VALUES (1), (2);
SELECT format('CREATE TABLE m%1$s (id serial PRIMARY KEY, r int REFERENCES root, n int NOT NULL CONSTRAINT c%1$s CHECK (10 / n > 0), u int UNIQUE);
  INSERT INTO m%1$s (r, n, u) SELECT 1 + i %% 2, 1, i FROM generate_series(1, %1$s) i; CREATE VIEW v%1$s AS SELECT * FROM m%1$s', i)
  FROM generate_series(1, 40) i \\gexec";

#[tokio::test]
async fn each_of_many_small_tables_is_judged_by_itself() {
    on_every_server(async |db| {
        db.fresh.psql(FORTY);
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        assert_eq!(before.skipped, []);
        let rows = |results: &CheckResults| -> Vec<i64> {
            (1..=40)
                .map(|n| {
                    let named = |rows: &&checks::TableRows| rows.name.name.as_str() == format!("m{n}");
                    results.rows.values().find(named).unwrap().rows
                })
                .collect()
        };
        assert_eq!(rows(&before), (1..=40).collect::<Vec<_>>());
        // Every kind of question has one that finds something and one that the server refuses, among many that do not.
        db.sql(
            "SET session_replication_role = replica; UPDATE m7 SET r = 9 WHERE id = 3; SET session_replication_role = origin;
             ALTER TABLE m11 DROP CONSTRAINT c11; UPDATE m11 SET n = 0 WHERE id = 2;
             ALTER TABLE m11 ADD CONSTRAINT c11 CHECK (10 / n > 0) NOT VALID;
             ALTER TABLE m12 DROP CONSTRAINT c12; UPDATE m12 SET n = 20 WHERE id = 2;
             ALTER TABLE m12 ADD CONSTRAINT c12 CHECK (10 / n > 0) NOT VALID;
             UPDATE pg_index SET indisunique = false WHERE indexrelid = 'm21_u_key'::regclass;
             INSERT INTO m21 (r, n, u) VALUES (1, 1, 5);
             UPDATE pg_index SET indisunique = true WHERE indexrelid = 'm21_u_key'::regclass;
             SELECT setval('m30_id_seq', 4)",
        )
        .await;
        let after = db.checked().await;
        assert_eq!(
            details(&after.findings),
            [
                "1 orphan in m7.r -> root.id (key 9)",
                "CHECK c11 of m11 cannot be evaluated: division by zero",
                "1 row violates CHECK c12 of m12 (key 2)",
                "1 duplicate row in m21 under unique index m21_u_key (key 5)",
                "sequence m30_id_seq will give 5 next, but m30.id already has 30",
            ]
        );
        assert_eq!(after.skipped, []);
        let mut counted = (1..=40).collect::<Vec<i64>>();
        counted[20] += 1;
        assert_eq!(rows(&after), counted);
        // Every rule was looked at, in the batch or alone.
        let unseen: Vec<_> = after.rules.iter().filter(|(_, state)| !state.ran).map(|(key, _)| key).collect();
        assert_eq!(unseen, Vec::<&checks::RuleKey>::new());
    })
    .await;
}

#[tokio::test]
async fn no_question_leaves_a_setting_behind_for_the_next() {
    on_every_server(async |db| {
        db.sql(
            "CREATE FUNCTION leaves() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
               AS 'BEGIN PERFORM set_config(''left.behind'', ''1'', true); RETURN true; END';
             CREATE FUNCTION finds() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
               AS 'BEGIN RETURN COALESCE(current_setting(''left.behind'', true), '''') <> ''1''; END'",
        )
        .await;
        for n in 0..10 {
            let check = if n % 2 == 0 { "leaves" } else { "finds" };
            let oids = format!(
                "CREATE TABLE t{n} (i int, CONSTRAINT c{n} CHECK (i = 0 OR {check}())); INSERT INTO t{n} VALUES (0);
                 UPDATE t{n} SET i = 1"
            );
            db.sql(&oids).await;
            db.sql("SELECT set_config('left.behind', '', false)").await;
        }
        let results = db.checked().await;
        assert_eq!(details(&results.findings), Vec::<&str>::new());
        assert_eq!(results.skipped, []);
    })
    .await;
}

/// A question that is interrupted stops the pass, as one that is asked alone does.
#[tokio::test]
async fn what_is_cancelled_among_many_stops_the_pass() {
    let cluster = Cluster::shared(18);
    let fresh = cluster.fresh_database("checks");
    let config: Config = fresh.url().parse().unwrap();
    let client = connect(&config).await;
    let setup = "CREATE TABLE a (i int); CREATE TABLE b (i int); INSERT INTO a VALUES (1);
        CREATE FUNCTION f() RETURNS boolean LANGUAGE plpgsql AS
          'BEGIN IF current_setting(''b.c'', true) = ''1'' THEN RAISE query_canceled; END IF; RETURN true; END';
        ALTER TABLE a ADD CHECK (f()); SET b.c = '1'";
    client.batch_execute(setup).await.unwrap();
    let error = run(&client, &Options::default()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    // And the session is as it was.
    assert_eq!(
        client.query_one("SHOW search_path", &[]).await.unwrap().get::<_, String>(0),
        "\"$user\", public"
    );
}
