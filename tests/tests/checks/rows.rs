//! Row counts, and tables that were not touched.

use super::*;

#[tokio::test]
async fn rows_are_followed_through_renames_partitions_drops_and_replacements() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE renamed (i int); INSERT INTO renamed SELECT generate_series(1, 10);
            CREATE TABLE dropped (i int); INSERT INTO dropped SELECT generate_series(1, 1204);
            CREATE TABLE replaced (i int); INSERT INTO replaced SELECT generate_series(1, 10);
            CREATE TABLE dropped_empty (i int); CREATE TABLE grown (i int);
            CREATE TABLE p (i int) PARTITION BY RANGE (i);
            CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
            CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
            INSERT INTO p SELECT generate_series(0, 19)",
        )
        .await;
        let before = db.checked().await;
        db.sql(
            "ALTER TABLE renamed RENAME TO other; DROP TABLE dropped; DROP TABLE dropped_empty;
            CREATE TABLE r2 AS SELECT * FROM replaced WHERE i > 2;
            DROP TABLE replaced; ALTER TABLE r2 RENAME TO replaced;
            INSERT INTO grown VALUES (1); ALTER TABLE p DETACH PARTITION p1; DELETE FROM p2 WHERE i = 19",
        )
        .await;
        let after = db.checked().await;
        let why = "DROP TABLE".to_owned();
        let comparison = rows_compared(&before, &after, &Expectation::MustAcknowledge { why });
        let changes: Vec<_> = comparison.changes.iter().map(|change| change.detail.as_str()).collect();
        assert_eq!(
            changes,
            [
                "dropped is gone with all its 1,204 rows (DROP TABLE): allow it with --allow-loss dropped=1204",
                "p lost 1 of 20 rows (5.0 %) (DROP TABLE): allow it with --allow-loss p=1",
                "replaced lost 2 of 10 rows (20.0 %), replaced by a new table of that name (DROP TABLE): \
                 allow it with --allow-loss replaced=2",
                "grown gained 1 row (1 now)",
            ]
        );
        let limits = LossLimits {
            allow_loss: [("dropped".into(), Some(1204)), ("public.p".into(), None)].into(),
            ..LossLimits::default()
        };
        let allowed = compare_rows(&before, &after, |_| Expectation::FewerAllowed, &limits);
        let failing: Vec<_> = allowed.failing().map(|change| change.table.as_str()).collect();
        assert_eq!(failing, ["replaced"]);
    })
    .await;
}

#[tokio::test]
async fn untouched_tables_are_not_read_again_unless_a_rule_is_new() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(MAKE_ORPHANS).await;
        db.sql(
            "CREATE TABLE still (id int PRIMARY KEY, n int); INSERT INTO still VALUES (1, -1);
            CREATE TABLE truncated (id int); INSERT INTO truncated VALUES (1);
            CREATE TABLE rewritten (id int); INSERT INTO rewritten VALUES (1)",
        )
        .await;
        let migrate = async |sql: &str| {
            db.sql("BEGIN").await;
            let before = db.checked().await;
            let start = untouched::write_counters(&db.client).await.unwrap().expect("counters are on");
            db.sql(sql).await;
            let touched = untouched::touched_tables(&db.client, &start, &before.tables).await.unwrap();
            let touched = touched.expect("counters are on");
            let mut names: Vec<_> = touched
                .iter()
                .filter_map(|oid| before.tables.get(oid))
                .map(|facts| facts.name.short())
                .collect();
            names.sort();
            let options = Options {
                untouched: untouched::untouched(&before.tables, &touched),
                known_rules: before.rules.keys().cloned().collect(),
                ..Options::default()
            };
            let after = run(&db.client, &options).await.unwrap();
            db.sql("ROLLBACK").await;
            (before, after, names)
        };
        let (before, after, touched) = migrate("SELECT * FROM orders; ALTER TABLE orders ADD x int").await;
        assert_eq!(touched, Vec::<String>::new());
        let comparison = compared(&before, &after);
        assert_eq!(
            (comparison.new.len(), comparison.pre_existing.len(), comparison.resolved.len()),
            (0, 1, 0)
        );
        assert_eq!(after.rows.len(), 0);
        assert_eq!(rows_compared(&before, &after, &Expectation::Equal).changes, []);
        assert!(after.skipped.iter().all(|skipped| !skipped.counts_for_strict) && !after.skipped.is_empty());

        // One side of a foreign key is enough.
        let (before, after, touched) = migrate(
            "ALTER TABLE orders DISABLE TRIGGER ALL; DELETE FROM orders WHERE id = 5;
            ALTER TABLE orders ENABLE TRIGGER ALL",
        )
        .await;
        assert_eq!(touched, ["orders"]);
        assert_eq!(
            details(&compared(&before, &after).new),
            ["1 new orphan in order_items.order_id -> orders.id (key 5)"]
        );

        let (before, after, touched) = migrate(
            "TRUNCATE truncated; ALTER TABLE rewritten ALTER id TYPE bigint;
            ALTER TABLE still ADD CONSTRAINT n_positive CHECK (n > 0) NOT VALID;
            ALTER TABLE still ADD fk int; ALTER TABLE still ADD FOREIGN KEY (n) REFERENCES orders NOT VALID;
            CREATE TABLE made (id int CHECK (id > 0))",
        )
        .await;
        assert_eq!(touched, ["rewritten", "truncated"]);
        // A new rule is asked about tables that nothing wrote to. Its being NOT VALID makes the rows a note.
        let comparison = compared(&before, &after);
        let told = details(&comparison.notes);
        let accepted: Vec<&str> = told.iter().map(|line| &line[..]).filter(|line| line.contains("the new rule accepts")).collect();
        assert_eq!(
            accepted,
            [
                "1 orphan in still.n -> orders.id (key -1), which the new rule accepts: it is NOT VALID",
                "1 row violates CHECK n_positive of still (key 1), which the new rule accepts: it is NOT VALID",
            ]
        );
        assert_eq!(details(&comparison.new), Vec::<String>::new());
        let comparison = rows_compared(&before, &after, &Expectation::Equal);
        let lost: Vec<_> = comparison.failing().map(|lost| lost.table.as_str()).collect();
        assert_eq!(lost, ["truncated"]);
        // Work of a subtransaction that was rolled back counts as touched; no counters means no proof.
        let (_, _, touched) =
            migrate("SAVEPOINT a; INSERT INTO still VALUES (2, 2); ROLLBACK TO SAVEPOINT a").await;
        assert_eq!(touched, ["still"]);
        db.sql("BEGIN; SET LOCAL track_counts = off").await;
        assert!(untouched::write_counters(&db.client).await.unwrap().is_none());
        db.sql("ROLLBACK").await;
    })
    .await;
}
