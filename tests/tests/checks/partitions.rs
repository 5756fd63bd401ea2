//! Rows in the wrong partition, and partitions that are not whole.

use super::*;

#[tokio::test]
async fn rows_in_the_wrong_partition_are_found_and_the_repair_moves_them() {
    on_every_server(async |db| {
        db.sql(
            r#"CREATE TABLE p (id int, k int, note text, len int GENERATED ALWAYS AS (length(note)) STORED, PRIMARY KEY (id, k))
              PARTITION BY RANGE (k);
            CREATE TABLE "P 1" PARTITION OF p FOR VALUES FROM (0) TO (10);
            CREATE TABLE p2 (note text, dropped int, k int NOT NULL, id int NOT NULL, len int GENERATED ALWAYS AS (length(note)) STORED);
            ALTER TABLE p2 DROP COLUMN dropped; ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
            CREATE TABLE rest PARTITION OF p DEFAULT PARTITION BY LIST (id);
            CREATE TABLE rest1 PARTITION OF rest FOR VALUES IN (1); CREATE TABLE rest_default PARTITION OF rest DEFAULT;
            CREATE TABLE h (id int) PARTITION BY HASH (id); CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
            INSERT INTO p (id, k, note) SELECT i, i, 'n' FROM generate_series(0, 19) i; INSERT INTO h SELECT generate_series(1, 50)"#,
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        // What a server of another locale, or a hash function that changed, leaves behind.
        db.sql(
            r#"UPDATE pg_class SET relispartition = false WHERE relname IN ('p2', 'h0');
            INSERT INTO p2 (id, k, note) VALUES (77, 5, 'wrong'); INSERT INTO h0 SELECT id FROM h1 ORDER BY 1 LIMIT 3;
            UPDATE pg_class SET relispartition = true WHERE relname IN ('p2', 'h0')"#,
        )
        .await;
        let after = db.checked().await;
        let comparison = compared(&before, &after);
        assert_eq!(
            details(&comparison.new),
            ["3 new rows violate the partition bound of h0", "1 new row violates the partition bound of p2 (key (77,5))"]
        );
        for finding in &comparison.new {
            db.sql(finding.repair_sql.as_ref().unwrap()).await;
        }
        let repaired = db.checked().await;
        assert_eq!(compared(&before, &repaired).new, []);
        let place: String =
            db.client.query_one("SELECT tableoid::regclass::text FROM p WHERE id = 77", &[]).await.unwrap().get(0);
        assert_eq!(place, "\"P 1\"");
        db.sql("INSERT INTO p (id, k) VALUES (1, 90), (2, 91), (3, 92)").await;
        assert_eq!(
            details(&compared(&repaired, &db.checked().await).notes),
            ["default partition rest_default grew by 2 rows: no partition was made for them"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_detach_that_was_not_finished_and_an_index_that_only_the_siblings_have() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE p (k int, v text) PARTITION BY LIST (k);
            CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
            CREATE TABLE p3 (v text, k int); CREATE INDEX ON p1 (v); CREATE INDEX ON p2 (v); CREATE INDEX own ON p1 (k, v)",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        db.sql("ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)").await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(
            details(&comparison.notes),
            ["partition p3 has no index btree (v), which its siblings have (such as p1_v_idx)"]
        );
        // DETACH CONCURRENTLY waits for whoever reads the parent, and is cancelled meanwhile.
        let reader = connect(&db.config).await;
        reader.batch_execute("BEGIN; SELECT * FROM p").await.unwrap();
        let detach = connect(&db.config).await;
        detach.batch_execute("SET statement_timeout = '300ms'").await.unwrap();
        detach.batch_execute("ALTER TABLE p DETACH PARTITION p2 CONCURRENTLY").await.unwrap_err();
        reader.batch_execute("COMMIT").await.unwrap();
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(
            details(&comparison.new),
            ["partition p2 is half detached from p: queries no longer see its rows there, and it is not free either"]
        );
        db.sql(comparison.new[0].repair_sql.as_ref().unwrap()).await;
        assert_eq!(compared(&before, &db.checked().await).new, []);
    })
    .await;
}
