//! Unique indexes, exclusion constraints, invalid indexes, collations.

use super::*;

#[tokio::test]
async fn duplicates_under_a_corrupt_unique_index_are_found_in_the_heap() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE t (a int, b text, e int);
            CREATE UNIQUE INDEX one ON t (a, lower(b)); CREATE UNIQUE INDEX partial ON t (e) WHERE a > 2;
            INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 1), (NULL, 'z', 1), (NULL, 'z', 1)",
        )
        .await;
        if db.version >= 15 {
            db.sql("CREATE UNIQUE INDEX no_nulls ON t (a, b) NULLS NOT DISTINCT WHERE a IS NOT NULL").await;
        }
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        // What an index that lost entries looks like: rows that it never saw.
        db.sql("UPDATE pg_index SET indisready = false WHERE indrelid = 't'::regclass").await;
        db.sql("INSERT INTO t VALUES (2, 'Y', 1), (3, 'q', 7), (4, 'q', 7)").await;
        db.sql("UPDATE pg_index SET indisready = true WHERE indrelid = 't'::regclass").await;
        let after = db.checked().await;
        assert_eq!(
            details(&compared(&before, &after).new),
            [
                "1 new duplicate row in t under unique index one (key (2,y))",
                "1 new duplicate row in t under unique index partial (key 7)",
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn excluded_pairs_are_found_in_small_tables_and_skipped_in_large_ones() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE room (id int, during int4range, EXCLUDE USING gist (during WITH &&) WHERE (id > 0));
            INSERT INTO room VALUES (1, '[1,5)'), (2, '[5,9)'), (0, '[1,9)')",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        assert_eq!(before.skipped, []);
        db.sql("UPDATE pg_index SET indisready = false WHERE indrelid = 'room'::regclass").await;
        db.sql("INSERT INTO room VALUES (3, '[8,10)')").await;
        db.sql("UPDATE pg_index SET indisready = true WHERE indrelid = 'room'::regclass").await;
        let after = db.checked().await;
        assert_eq!(after.findings.len(), 1);
        let detail = &after.findings[0].detail;
        assert!(
            detail.starts_with("1 pair of rows in conflict in room under room_during_excl (key ("),
            "{detail}"
        );
        db.sql("INSERT INTO room SELECT 0, int4range(n, n + 1) FROM generate_series(1, 40000) n").await;
        let large = db.checked().await;
        assert_eq!(large.skipped.len(), 1);
        assert!(large.skipped[0].why.contains("--level deep"));
        assert_eq!(compared(&after, &large).pre_existing.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_invalid_index_left_by_a_failed_build_is_found() {
    on_every_server(async |db| {
        db.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)").await;
        let before = db.checked().await;
        db.client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)").await.unwrap_err();
        let after = db.checked().await;
        let new = compared(&before, &after).new;
        // The heap is asked too: the index claims to be unique.
        assert_eq!(
            details(&new),
            [
                "1 duplicate row in t under unique index t_a (key 1)",
                "unique index t_a of t is invalid: it proves nothing about its rows",
            ]
        );
        assert_eq!(new[1].repair_sql.as_deref(), Some(r#"REINDEX INDEX CONCURRENTLY "public"."t_a";"#));
        assert_eq!(compared(&after, &db.checked().await).new, []);
    })
    .await;
}

#[tokio::test]
async fn a_collation_that_changed_under_its_indexes_is_a_note() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE t (i int); CREATE UNIQUE INDEX ON t ((i::text) COLLATE \"POSIX\");
            UPDATE pg_collation SET collversion = '0' WHERE collname = 'POSIX'",
        )
        .await;
        // The C locale has no version, so nothing can have changed.
        assert_eq!(details(&db.checked().await.findings), Vec::<&str>::new());
        if db.version >= 15 {
            db.sql("UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()").await;
            db.checked().await;
        }
    })
    .await;
}
