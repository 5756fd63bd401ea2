//! What a pass leaves behind, who may run it, and how it ends.

use super::*;

#[tokio::test]
async fn what_may_not_be_read_is_skipped_with_the_reason_and_the_rest_is_checked() {
    on_every_server(async |db| {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let role = format!("safe_run_checks_reader_{}_{number}", std::process::id());
        db.sql(SHOP).await;
        db.sql(MAKE_ORPHANS).await;
        db.sql(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public TO {role};
            GRANT SELECT ON order_items, order_items_id_seq TO {role};
            CREATE TABLE hidden (id int PRIMARY KEY CHECK (id > 0)); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
            CREATE POLICY nobody ON hidden USING (false); GRANT SELECT ON hidden TO {role};
            INSERT INTO hidden VALUES (1)"
        ))
        .await;
        let mut config = db.config.clone();
        config.user(&role);
        let reader = connect(&config).await;
        reader.batch_execute("BEGIN").await.unwrap();
        let results = run(&reader, &Options::default()).await.unwrap();
        reader.batch_execute("COMMIT").await.unwrap();
        let skipped: Vec<_> =
            results.skipped.iter().map(|s| (s.check, s.object.as_str(), s.why.as_str())).collect();
        let hidden = "query would be affected by row-level security policy for table \"hidden\"";
        let denied = "permission denied for table orders";
        assert_eq!(
            skipped,
            [
                (CheckKind::ForeignKeys, "order_items (order_items_order_id_fkey)", denied),
                (CheckKind::Unique, "hidden (hidden_pkey)", hidden),
                (CheckKind::Unique, "orders (orders_pkey)", denied),
                (CheckKind::Rows, "hidden", &format!("{hidden} (its 2 rules were not checked either)")),
                (CheckKind::Rows, "orders", &format!("{denied} (its 3 rules were not checked either)")),
            ]
        );
        assert_eq!(results.rows.values().map(|rows| rows.name.short()).collect::<Vec<_>>(), ["order_items"]);
        let after = db.checked().await;
        assert!(compared(&results, &after).new[0].detail.ends_with("; there is no baseline, because this was not checked before"));
        assert_eq!(rows_compared(&after, &results, &Expectation::Equal).not_compared, ["orders", "hidden"]);
        drop(reader);
        db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    })
    .await;
}

/// Every setting of the session, and the role.
async fn session_state(client: &Client) -> Vec<(String, String)> {
    let settings = client
        .query(
            "SELECT name, setting FROM pg_settings UNION ALL SELECT 'current_user', current_user ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    settings.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default())).collect()
}

#[tokio::test]
async fn the_session_and_its_transaction_are_left_as_they_were() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(
            "CREATE FUNCTION writes(i int) RETURNS boolean LANGUAGE plpgsql
               AS 'BEGIN INSERT INTO public.orders VALUES (999, 1); RETURN true; END';
            ALTER TABLE orders ADD CONSTRAINT writing CHECK (writes(id)) NOT VALID;
            CREATE TABLE broken (n int); INSERT INTO broken VALUES (0);
            ALTER TABLE broken ADD CHECK (1 / n > 0) NOT VALID",
        )
        .await;
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let role = format!("safe_run_checks_role_{}_{number}", std::process::id());
        db.sql(&format!("CREATE ROLE {role}; GRANT ALL ON order_items TO {role}")).await;
        db.sql(&format!(
            "BEGIN; SET LOCAL search_path = public, pg_temp; SET work_mem = '5MB'; SET TIME ZONE 'Asia/Tokyo';
            SET LOCAL ROLE {role}; SET LOCAL statement_timeout = '70s'; DELETE FROM order_items WHERE id = 1;
            SAVEPOINT safe_run_checks"
        ))
        .await;
        let before = session_state(&db.client).await;
        let options = Options { parallel_workers: 2, ..Options::default() };
        let results = run(&db.client, &options).await.unwrap();
        assert_eq!(session_state(&db.client).await, before);
        assert_eq!(
            results.rows.values().map(|rows| rows.rows).collect::<Vec<_>>(),
            [100, 99, 1],
            "the transaction's own changes are seen"
        );
        assert_eq!(results.skipped, [], "the role of the migration does not hold for the checks");
        let writing = "CHECK writing of orders, an expression that is not immutable cannot be evaluated: \
                       cannot execute INSERT in a read-only transaction";
        assert!(details(&results.findings).contains(&writing), "{:?}", details(&results.findings));
        // Still usable, and the migration's own savepoint of the same name still its own.
        db.sql("DELETE FROM order_items WHERE id = 2; ROLLBACK TO SAVEPOINT safe_run_checks; COMMIT").await;
        let left: i64 = db.client.query_one("SELECT count(*) FROM order_items", &[]).await.unwrap().get(0);
        assert_eq!(left, 99);
        // Without a transaction: one of its own, gone afterwards.
        let before = session_state(&db.client).await;
        run(&db.client, &options).await.unwrap();
        assert_eq!(session_state(&db.client).await, before);
        db.client.batch_execute("SAVEPOINT s").await.unwrap_err();
        db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    })
    .await;
}

#[tokio::test]
async fn sessions_on_one_exported_snapshot_find_the_same_as_one_session() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(MAKE_ORPHANS).await;
        db.sql("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        let snapshot: String = db.client.query_one("SELECT pg_export_snapshot()", &[]).await.unwrap().get(0);
        let others = [connect(&db.config).await, connect(&db.config).await];
        for other in &others {
            let join = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'"
            );
            other.batch_execute(&join).await.unwrap();
        }
        let options = Options::default();
        let alone = db.checked_with(options.clone()).await;
        let mut together = run_parallel(&[&others[0], &others[1], &db.client], &options).await.unwrap();
        together.took = alone.took.clone();
        assert_eq!(alone, together);
        assert_eq!(failures(&alone).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_check_is_an_error_and_leaves_the_transaction_usable() {
    on_every_server(async |db| {
        db.sql(
            "CREATE FUNCTION slow(i int) RETURNS boolean LANGUAGE sql AS 'SELECT true FROM pg_catalog.pg_sleep(60)';
            CREATE TABLE t (i int); INSERT INTO t VALUES (1);
            ALTER TABLE t ADD CHECK (slow(i)) NOT VALID;
            BEGIN; SET LOCAL statement_timeout = '50ms'; CREATE TABLE made (i int)",
        )
        .await;
        let before = session_state(&db.client).await;
        let cancel = db.client.cancel_token();
        let options = Options::default();
        let (result, ()) = tokio::join!(run(&db.client, &options), async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        });
        assert_eq!(result.unwrap_err().sqlstate(), Some("57014"));
        assert_eq!(session_state(&db.client).await, before);
        db.sql("INSERT INTO made VALUES (1); COMMIT").await;
    })
    .await;
}

#[tokio::test]
async fn a_run_can_be_spawned() {
    on_every_server(async |db| {
        let client = connect(&db.config).await;
        let results =
            tokio::spawn(async move { run(&client, &Options::default()).await }).await.unwrap().unwrap();
        assert_eq!(results.findings, []);
    })
    .await;
}
