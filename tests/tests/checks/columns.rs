//! CHECK, NOT NULL and domains.

use super::*;

#[tokio::test]
async fn check_not_null_and_domain_violations_are_counted_and_named() {
    on_every_server(async |db| {
        db.sql(
            "CREATE DOMAIN positive AS int CHECK (VALUE > 0);
            CREATE DOMAIN small_positive AS positive CHECK (VALUE < 100);
            CREATE DOMAIN word AS text NOT NULL CONSTRAINT lower_case CHECK (VALUE = lower(VALUE));
            CREATE TYPE pair AS (a positive, b int);
            CREATE TABLE t (id int PRIMARY KEY, value int, nullable int DEFAULT 1, n int, d small_positive, arr positive[], w word, p pair,
              CONSTRAINT n_small CHECK (n < 10 OR value IS NULL));
            CREATE TABLE keyless (n int CHECK (n > 0));
            INSERT INTO t VALUES (1, 1, 1, 1, 1, '{1,2}', 'a', (1, 1)), (2, NULL, 2, 50, NULL, NULL, 'b', NULL);
            INSERT INTO t (id, value, n, w) SELECT i, 1, 1, 'c' FROM generate_series(3, 30) i;
            INSERT INTO keyless VALUES (1), (NULL)",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(failures(&before), Vec::<&str>::new());
        assert_eq!(before.skipped, []);
        // The rules are lifted while the rows are written, and put back unproven or by an edit of the catalog.
        db.sql(
            "ALTER TABLE t DROP CONSTRAINT n_small; ALTER TABLE keyless DROP CONSTRAINT keyless_n_check;
            ALTER DOMAIN positive DROP CONSTRAINT positive_check;
            ALTER DOMAIN small_positive DROP CONSTRAINT small_positive_check;
            ALTER DOMAIN word DROP CONSTRAINT lower_case; ALTER DOMAIN word DROP NOT NULL;
            UPDATE t SET n = 11 WHERE id IN (3, 4); UPDATE t SET d = -1 WHERE id = 5;
            UPDATE t SET d = 200 WHERE id = 6; UPDATE t SET arr = '{1,-2}' WHERE id = 7;
            UPDATE t SET w = 'X' WHERE id = 8; UPDATE t SET w = NULL WHERE id = 9;
            UPDATE t SET p = (-1, 1) WHERE id = 10; UPDATE t SET nullable = NULL WHERE id = 11;
            INSERT INTO keyless VALUES (-1), (-2);
            ALTER TABLE t ADD CONSTRAINT n_small CHECK (n < 10 OR value IS NULL) NOT VALID;
            ALTER TABLE keyless ADD CONSTRAINT keyless_n_check CHECK (n > 0) NOT VALID;
            ALTER DOMAIN positive ADD CONSTRAINT positive_check CHECK (VALUE > 0) NOT VALID;
            ALTER DOMAIN small_positive ADD CONSTRAINT small_positive_check CHECK (VALUE < 100) NOT VALID;
            ALTER DOMAIN word ADD CONSTRAINT lower_case CHECK (VALUE = lower(VALUE)) NOT VALID;
            UPDATE pg_type SET typnotnull = true WHERE typname = 'word'",
        )
        .await;
        // From 19 on a row is read by what the catalog says of it: a NULL where none may be would move all columns behind it.
        let has_nulls = db.version < 19;
        if has_nulls {
            db.sql("UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 't'::regclass AND attname IN ('nullable', 'value')")
                .await;
        }
        let after = db.checked().await;
        let mut expected = vec![
            "2 rows violate CHECK keyless_n_check of keyless",
            "2 rows violate CHECK n_small of t (keys 3, 4)",
            "1 row violates the domain of t.arr (public.positive[]) (key 7)",
            "1 row violates the domain of t.d (public.small_positive) (key 5)",
            "1 row violates the domain of t.d (public.small_positive) (key 6)",
            "1 row violates the domain of t.w (public.word) (key 8)",
            "1 row violates the domain of t.w (public.word) (key 9)",
        ];
        expected.push(if db.version >= 16 {
            "1 row violates the domain of t.p (public.pair) (key 10)"
        } else {
            "the domain of t.p (public.pair) is violated: value for domain public.positive violates check constraint \
             \"positive_check\""
        });
        if has_nulls {
            expected.push("1 row violates NOT NULL of t.nullable (key 11)");
            expected.push("1 row violates NOT NULL of t.value (key 2)");
        }
        let mut found = details(&after.findings);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(compared(&before, &after).fails());
        assert_eq!(compared(&after, &db.checked().await).new, []);
        // The repairs repair; each moves rows aside, or gives them the column's default.
        let mut left = after;
        while let Some(repair) = left.findings.iter().find_map(|finding| finding.repair_sql.as_deref()) {
            db.sql(repair).await;
            // What was moved aside still has the domain's type.
            db.sql("DROP TABLE IF EXISTS t_violations, t_nulls, keyless_violations").await;
            let now = db.checked().await;
            assert!(now.findings.len() < left.findings.len(), "{repair}");
            left = now;
        }
        let default = "SELECT coalesce(nullable, 0) FROM t WHERE id = 11";
        assert_eq!(db.client.query_one(default, &[]).await.unwrap().get::<_, i32>(0), i32::from(has_nulls));
    })
    .await;
}

#[tokio::test]
async fn a_check_that_raises_is_reported_and_hides_nothing() {
    on_every_server(async |db| {
        db.sql(
            "CREATE FUNCTION helper(i int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT i < 1000';
            CREATE FUNCTION through_path(i int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
              AS 'BEGIN RETURN helper(i); END';
            CREATE TABLE t (id int PRIMARY KEY, n int, CONSTRAINT ok CHECK (through_path(n)));
            INSERT INTO t VALUES (1, 0), (2, 5);
            ALTER TABLE t ADD CONSTRAINT raises CHECK (10 / n > 0) NOT VALID;
            ALTER TABLE t ADD CONSTRAINT small CHECK (n < 5) NOT VALID;",
        )
        .await;
        let results = db.checked().await;
        assert_eq!(
            details(&results.findings),
            [
                "CHECK raises of t cannot be evaluated: division by zero",
                "1 row violates CHECK small of t (key 2)",
            ]
        );
        assert_eq!(results.rows.values().next().unwrap().rows, 2);
        assert_eq!(compared(&results, &db.checked().await).new, []);
    })
    .await;
}
