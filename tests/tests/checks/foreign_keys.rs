//! Orphans, under keys of every shape.

use super::*;

#[tokio::test]
async fn orphans_under_a_validated_foreign_key_are_found_and_named() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        let before = db.checked().await;
        db.sql(MAKE_ORPHANS).await;
        let after = db.checked().await;
        let comparison = compared(&before, &after);
        assert_eq!(
            details(&comparison.new),
            ["3 new orphans in order_items.order_id -> orders.id (keys 17, 18, 44)"]
        );
        assert_eq!(comparison.new[0].sample_keys, ["17", "18", "44"]);
        assert_eq!(
            rows_compared(&before, &after, &Expectation::Equal).failing().next().unwrap().detail,
            "orders lost 3 of 100 rows (3.0 %), and nothing in the migration was seen to delete from it"
        );
        // The repair does repair, and is pre-existing for the next run.
        assert_eq!(details(&compared(&after, &db.checked().await).new), Vec::<&str>::new());
        db.sql(comparison.new[0].repair_sql.as_ref().unwrap()).await;
        let repaired = compared(&after, &db.checked().await);
        assert_eq!(repaired.resolved.len(), 1);
        assert_eq!(
            db.client
                .query_one("SELECT count(*) FROM order_items_orphans", &[])
                .await
                .unwrap()
                .get::<_, i64>(0),
            3
        );
    })
    .await;
}

#[tokio::test]
async fn foreign_keys_of_every_shape_are_clean_when_clean_and_caught_when_not() {
    on_every_server(async |db| {
        db.sql(
            r#"CREATE DOMAIN code AS varchar(10);
            CREATE TYPE mood AS ENUM ('a', 'b');
            CREATE TABLE two (a int, b int, PRIMARY KEY (a, b));
            CREATE TABLE simple (a int, b int, FOREIGN KEY (a, b) REFERENCES two);
            CREATE TABLE full_ (a int, b int, FOREIGN KEY (a, b) REFERENCES two MATCH FULL);
            CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree);
            CREATE TABLE big (id bigint PRIMARY KEY); CREATE TABLE small (id smallint REFERENCES big);
            CREATE TABLE num (id numeric PRIMARY KEY); CREATE TABLE num_ref (id int REFERENCES num);
            CREATE TABLE txt (id text COLLATE "C" PRIMARY KEY);
            CREATE TABLE txt_ref (id varchar COLLATE "POSIX" REFERENCES txt);
            CREATE TABLE codes (id code PRIMARY KEY); CREATE TABLE codes_ref (id text REFERENCES codes);
            CREATE TABLE moods (id mood PRIMARY KEY, arr int[] UNIQUE);
            CREATE TABLE moods_ref (id mood REFERENCES moods, arr int[] REFERENCES moods (arr));
            CREATE TABLE part (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
            CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1);
            CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2) PARTITION BY LIST (id);
            CREATE TABLE part2a PARTITION OF part2 DEFAULT;
            CREATE TABLE part_ref (id int, k int, FOREIGN KEY (id, k) REFERENCES part) PARTITION BY LIST (k);
            CREATE TABLE part_ref1 PARTITION OF part_ref DEFAULT;
            INSERT INTO two VALUES (1, 1); INSERT INTO simple VALUES (1, 1), (1, NULL), (NULL, 7), (NULL, NULL);
            INSERT INTO full_ VALUES (1, 1), (NULL, NULL);
            INSERT INTO tree VALUES (1, NULL), (2, 1); INSERT INTO big VALUES (1); INSERT INTO small VALUES (1);
            INSERT INTO num VALUES (1.0); INSERT INTO num_ref VALUES (1);
            INSERT INTO txt VALUES ('x'); INSERT INTO txt_ref VALUES ('x');
            INSERT INTO codes VALUES ('x'); INSERT INTO codes_ref VALUES ('x');
            INSERT INTO moods VALUES ('a', '{1}'); INSERT INTO moods_ref VALUES ('a', '{1}');
            INSERT INTO part VALUES (1, 1), (1, 2); INSERT INTO part_ref VALUES (1, 1), (1, 2);"#,
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        assert_eq!(before.skipped, []);
        db.sql(
            "SET session_replication_role = replica;
            INSERT INTO simple VALUES (2, 2); INSERT INTO full_ VALUES (1, NULL); INSERT INTO tree VALUES (3, 9);
            INSERT INTO small VALUES (5); INSERT INTO num_ref VALUES (6); INSERT INTO txt_ref VALUES ('y');
            INSERT INTO codes_ref VALUES ('y'); INSERT INTO moods_ref VALUES ('b', '{2}');
            INSERT INTO part_ref VALUES (7, 2); SET session_replication_role = origin",
        )
        .await;
        let after = db.checked().await;
        assert_eq!(
            details(&compared(&before, &after).new),
            [
                "1 new orphan in codes_ref.id -> codes.id (key y)",
                "1 new orphan in full_.(a, b) -> two.(a, b) (key (1,))",
                "1 new orphan in moods_ref.arr -> moods.arr (key {2})",
                "1 new orphan in moods_ref.id -> moods.id (key b)",
                "1 new orphan in num_ref.id -> num.id (key 6)",
                "1 new orphan in part_ref.(id, k) -> part.(id, k) (key (7,2))",
                "1 new orphan in simple.(a, b) -> two.(a, b) (key (2,2))",
                "1 new orphan in small.id -> big.id (key 5)",
                "1 new orphan in tree.parent -> tree.id (key 9)",
                "1 new orphan in txt_ref.id -> txt.id (key y)",
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn old_orphans_under_not_valid_are_pre_existing_and_those_under_a_new_one_are_noted() {
    on_every_server(async |db| {
        db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int); INSERT INTO b VALUES (1), (2)")
            .await;
        let without = db.checked().await;
        db.sql("ALTER TABLE b ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES a NOT VALID").await;
        let before = db.checked().await;
        let made = compared(&without, &before);
        let noted = "2 orphans in b.id -> a.id (keys 1, 2), which the new rule accepts: it is NOT VALID";
        assert!(!made.fails() && details(&made.notes).contains(&noted), "{:?}", made.notes);
        let same = compared(&before, &before);
        assert_eq!((same.new.len(), same.pre_existing.len(), same.fails()), (0, 1, false));
        // A renamed constraint and a changed type are the same rule.
        db.sql("ALTER TABLE b RENAME CONSTRAINT fk TO fk2; ALTER TABLE b RENAME TO c").await;
        assert_eq!(compared(&before, &db.checked().await).new, []);
        db.sql("SET session_replication_role = replica; INSERT INTO c VALUES (2), (3)").await;
        assert_eq!(
            details(&compared(&before, &db.checked().await).new),
            ["2 new orphans in c.id -> a.id (keys 2, 3)"]
        );
    })
    .await;
}

#[tokio::test]
async fn constraints_of_18_that_are_temporal_or_not_enforced() {
    on_every_server(async |db| {
        if db.version < 18 {
            return;
        }
        db.sql(
            "CREATE TABLE t (id int4range, valid daterange, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
            CREATE TABLE r (id int4range, valid daterange,
              FOREIGN KEY (id, PERIOD valid) REFERENCES t (id, PERIOD valid));
            INSERT INTO t VALUES ('[1,2)', '[2024-01-01,2024-02-01)'), ('[1,2)', '[2024-02-01,2024-03-01)');
            INSERT INTO r VALUES ('[1,2)', '[2024-01-15,2024-02-15)');
            CREATE TABLE a (id int PRIMARY KEY);
            CREATE TABLE n (id int REFERENCES a NOT ENFORCED, q int CHECK (q > 0) NOT ENFORCED);
            INSERT INTO n VALUES (1, -1);
            CREATE TABLE nn (id int PRIMARY KEY, v int); INSERT INTO nn VALUES (1, NULL);
            ALTER TABLE nn ADD CONSTRAINT v_set NOT NULL v NOT VALID",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(failures(&before), Vec::<&str>::new());
        assert_eq!(
            details(&before.findings),
            [
                "1 orphan in n.id -> a.id, a constraint that is NOT ENFORCED (key 1)",
                "1 row violates CHECK n_q_check of n, which is not enforced for them",
                "1 row violates NOT NULL of nn.v, which is not enforced for them (key 1)",
            ]
        );
        assert_eq!(before.skipped, []);
        db.sql(
            "SET session_replication_role = replica;
            INSERT INTO r VALUES ('[1,2)', '[2024-02-15,2024-04-01)'); DELETE FROM a",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(comparison.new.len(), 1);
        assert!(
            comparison.new[0].detail.starts_with("1 new orphan in r.(id, valid) -> t.(id, valid) (key (")
        );
        // A key WITHOUT OVERLAPS whose index never saw a row.
        db.sql(
            "SET session_replication_role = origin; DELETE FROM r;
            UPDATE pg_index SET indisready = false WHERE indrelid = 't'::regclass",
        )
        .await;
        db.sql("INSERT INTO t VALUES ('[1,2)', '[2024-01-31,2024-02-02)')").await;
        db.sql("UPDATE pg_index SET indisready = true WHERE indrelid = 't'::regclass").await;
        let after = db.checked().await;
        let overlaps: Vec<_> = failures(&after);
        assert_eq!(overlaps.len(), 1, "{overlaps:?}");
        assert!(
            overlaps[0].starts_with("2 pairs of rows in conflict in t under t_pkey (keys ("),
            "{overlaps:?}"
        );
    })
    .await;
}

/// Rows that violate what was enforced when the run began are violations, and so is that it is not any more.
#[tokio::test]
async fn a_constraint_that_is_not_enforced_any_more_is_a_violation_and_its_rows_count() {
    on_every_server(async |db| {
        if db.version < 18 {
            return;
        }
        db.sql(
            "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 100);
            CREATE TABLE b (id int PRIMARY KEY, a int CONSTRAINT fk REFERENCES a, q int CONSTRAINT positive CHECK (q > 0));
            INSERT INTO b SELECT i, i, i FROM generate_series(1, 100) i;
            CREATE TABLE never (id int CONSTRAINT loose REFERENCES a NOT ENFORCED)",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(failures(&before), Vec::<&str>::new());
        db.sql("ALTER TABLE b ALTER CONSTRAINT fk NOT ENFORCED; ALTER TABLE b RENAME CONSTRAINT fk TO link").await;
        let fk = "foreign key link of b was enforced before and is NOT ENFORCED now: rows that violate it are accepted";
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(details(&comparison.new), [fk]);
        // A constraint of the run's own is nobody's loss, and one that never held neither.
        db.sql(
            "DELETE FROM a WHERE id > 2; ALTER TABLE b ADD CONSTRAINT new CHECK (q > 1000) NOT ENFORCED;
            INSERT INTO never VALUES (500)",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(
            details(&comparison.new),
            [
                "98 new orphans in b.a -> a.id, a constraint that is NOT ENFORCED (keys 3, 4, 5, 6, 7, 8, 9, 10, …)",
                fk
            ]
        );
        // By its name, where it was made again.
        db.sql("ALTER TABLE b DROP CONSTRAINT link; ALTER TABLE b ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES a NOT ENFORCED").await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(comparison.new.len(), 2, "{:?}", details(&comparison.new));
        assert!(comparison.new[1].detail.starts_with("foreign key fk of b was enforced before"));
        // One that is dropped is not there any more: nothing says that it holds.
        db.sql("ALTER TABLE b DROP CONSTRAINT fk").await;
        assert_eq!(details(&compared(&before, &db.checked().await).new), Vec::<&str>::new());
        if db.version >= 19 {
            db.sql("ALTER TABLE b ALTER CONSTRAINT positive NOT ENFORCED; UPDATE b SET q = -1 WHERE id = 7").await;
            assert_eq!(
                details(&compared(&before, &db.checked().await).new),
                [
                    "1 new row violates CHECK positive of b, which is not enforced for them (key 7)",
                    "CHECK positive of b was enforced before and is NOT ENFORCED now: rows that violate it are accepted",
                ]
            );
        }
    })
    .await;
}
