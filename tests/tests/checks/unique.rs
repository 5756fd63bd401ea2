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
        let count = "SELECT count(*) FROM t";
        let rows: i64 = db.client.query_one(count, &[]).await.unwrap().get(0);
        for finding in &after.findings {
            db.sql(finding.repair_sql.as_ref().unwrap()).await;
            let aside = "SELECT count(*) FROM t_duplicates";
            assert_eq!(db.client.query_one(aside, &[]).await.unwrap().get::<_, i64>(0), 1);
            db.sql("DROP TABLE t_duplicates").await;
        }
        assert_eq!(compared(&before, &db.checked().await).new, []);
        assert_eq!(db.client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), rows - 2);
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
        // Whether the server's libraries give this collation a version is theirs to say: where they do not, nothing can
        // be known to have changed.
        db.sql("CREATE TABLE t (a text)").await;
        let icu = "CREATE COLLATION app_sort (provider = icu, locale = 'en')";
        let has_icu = db.client.batch_execute(icu).await.is_ok();
        eprintln!("ICU: {has_icu}");
        if has_icu {
            db.sql(
                "CREATE UNIQUE INDEX ON t (a COLLATE app_sort);
                CREATE COLLATION unused (provider = icu, locale = 'de');
                UPDATE pg_collation SET collversion = '0' WHERE collname IN ('app_sort', 'unused')",
            )
            .await;
            let found = db.checked().await;
            assert_eq!(failures(&found), Vec::<&str>::new());
            let found = details(&found.findings);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("collation app_sort was version 0 when its indexes were built and is "));
            db.sql("ALTER COLLATION app_sort REFRESH VERSION").await;
        }
        // The C locale has no version, so nothing can have changed.
        db.sql("CREATE INDEX ON t (a COLLATE \"POSIX\"); UPDATE pg_collation SET collversion = '0' WHERE collname = 'POSIX'")
            .await;
        assert_eq!(details(&db.checked().await.findings), Vec::<&str>::new());
        db.sql("UPDATE pg_collation SET collversion = NULL WHERE collname = 'POSIX'").await;
    })
    .await;
}

/// A database whose own collation has a version: by ICU, from 15 on. The server 18 of the tests is built without it.
#[tokio::test]
async fn the_database_s_own_collation_that_changed_is_a_note() {
    for major in [15, 16, 17] {
        let icu = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'";
        let fresh = Cluster::shared(major).fresh_database_with("checks", icu);
        let client = connect(&fresh.url().parse().unwrap()).await;
        let options = Options { level: Level::Fast, ..Options::default() };
        assert_eq!(run(&client, &options).await.unwrap().findings, []);
        client
            .batch_execute("UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()")
            .await
            .unwrap();
        let found = run(&client, &options).await.unwrap();
        assert_eq!((found.findings.len(), failures(&found).len()), (1, 0));
        let (detail, repair) = (&found.findings[0].detail, found.findings[0].repair_sql.as_ref().unwrap());
        assert!(detail.contains(" was version 0 when its indexes were built and is "), "{detail}");
        // Not as one batch: neither runs in a transaction block.
        for statement in repair.split_inclusive(';') {
            client.batch_execute(statement).await.unwrap();
        }
        assert_eq!(run(&client, &options).await.unwrap().findings, []);
    }
}
