//! The whole catalogue at once: no false alarm, odd names, levels.

use super::*;

#[tokio::test]
async fn a_clean_database_gives_no_finding_and_every_row_count() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(
            "CREATE TABLE empty (); CREATE VIEW v AS SELECT * FROM orders;
            CREATE MATERIALIZED VIEW m AS SELECT * FROM orders WITH NO DATA;
            CREATE TABLE p (a int, b int, PRIMARY KEY (a, b)) PARTITION BY RANGE (b);
            CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
            CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
            INSERT INTO p SELECT n, n FROM generate_series(0, 19) n",
        )
        .await;
        let results = db.checked().await;
        assert_eq!(details(&results.findings), Vec::<&str>::new());
        assert_eq!(results.skipped, []);
        let counts: Vec<_> = results.rows.values().map(|rows| (rows.name.short(), rows.rows)).collect();
        assert_eq!(counts.iter().map(|(_, rows)| rows).sum::<i64>(), 220);
        assert!(results.rules.values().all(|rule| rule.ran));
    })
    .await;
}

#[tokio::test]
async fn odd_names_are_quoted_in_sql_and_escaped_in_messages() {
    on_every_server(async |db| {
        db.sql(
            r#"CREATE SCHEMA "s""p %s"; CREATE DOMAIN "s""p %s"."do'm%I" AS int CHECK (VALUE > 0);
            CREATE TABLE "s""p %s"."t'%I
new" ("id %1$s" serial PRIMARY KEY, "re""f" int, "d\x" "s""p %s"."do'm%I",
              CONSTRAINT "check'%s" CHECK ("re""f" < 1000), UNIQUE ("re""f", "d\x"),
              CONSTRAINT "fk'
%" FOREIGN KEY ("re""f") REFERENCES "s""p %s"."t'%I
new");
            INSERT INTO "s""p %s"."t'%I
new" ("re""f", "d\x") VALUES (NULL, 1), (1, 2);"#,
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        assert_eq!(before.skipped, []);
        db.sql(
            r#"SET session_replication_role = replica; UPDATE "s""p %s"."t'%I
new" SET "re""f" = 7 WHERE "id %1$s" = 2; SELECT setval(pg_get_serial_sequence('"s""p %s"."t''%I
new"', 'id %1$s'), 1, false)"#,
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(comparison.new.len(), 2, "{:?}", details(&comparison.new));
        assert!(comparison.new.iter().all(|finding| !finding.detail.contains('\n')));
        // The sequence first: the other repair takes the row with the largest id away.
        for finding in comparison.new.iter().rev() {
            db.sql(finding.repair_sql.as_ref().unwrap()).await;
        }
        assert_eq!(compared(&before, &db.checked().await).new, []);
    })
    .await;
}

#[tokio::test]
async fn the_levels_and_the_lists_of_checks_choose_what_runs() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(MAKE_ORPHANS).await;
        db.sql("ALTER TABLE orders DISABLE TRIGGER ALL").await;
        let kinds = async |options: Options| {
            let results = run(&db.client, &options).await.unwrap();
            let failing = results.findings.iter().filter(|finding| finding.severity == Severity::Failure);
            let mut kinds: Vec<_> = failing.map(|finding| finding.key.check).collect();
            kinds.dedup();
            (kinds, results.rows.len())
        };
        let fast = Options { level: Level::Fast, ..Options::default() };
        assert_eq!(kinds(fast).await, (vec![CheckKind::Triggers], 0));
        let only = Options { only: vec![CheckKind::ForeignKeys], ..Options::default() };
        assert_eq!(kinds(only).await, (vec![CheckKind::ForeignKeys], 0));
        let skip = Options { skip: vec![CheckKind::ForeignKeys], ..Options::default() };
        assert_eq!(kinds(skip).await, (vec![CheckKind::Triggers], 2));
    })
    .await;
}

/// Whatever PostgreSQL can hold is in it, at every level, with the extension that deep creates and takes back.
#[tokio::test]
async fn everything_at_once_gives_no_false_alarm_and_leaves_nothing_behind() {
    on_every_server(async |db| {
        db.load_everything();
        let scratch = connect(&db.config).await;
        let deep = Options { level: Level::Deep, ..Options::default() };
        let pass = async || run_with_scratch(&[&db.client], Some(&scratch), &deep).await.unwrap();
        let before = pass().await;
        let expected = [
            "1 orphan in app.old_rows.a_id -> app.a.id (key 999)",
            "1 row violates CHECK old_check of app.old_rows (key 1)",
            "trigger off of app.audited is disabled",
            "trigger on_partitions of app.events_default is disabled",
            "trigger on_replica of app.audited fires only on replicas",
            "event trigger on_drop is disabled",
        ];
        let sorted = |mut all: Vec<&str>| {
            all.sort_unstable();
            all.join("\n")
        };
        assert_eq!(sorted(failures(&before)), sorted(expected.to_vec()), "what the fixture has on purpose");
        let unchecked = before.skipped.iter().filter(|skipped| skipped.counts_for_strict);
        // Its owner can't read all of it, and its code must not run as anybody else.
        let owners_own = |object: &str| object.starts_with("app.secured") || object == "view app.invoker";
        let unchecked: Vec<_> = unchecked.filter(|skipped| !owners_own(&skipped.object)).collect();
        assert!(unchecked.is_empty(), "{unchecked:?}");
        let again = Options { known: Some(before.known()), ..deep.clone() };
        let after = run_with_scratch(&[&db.client], Some(&scratch), &again).await.unwrap();
        let comparison = compared(&before, &after);
        assert_eq!(details(&comparison.new), Vec::<&str>::new());
        assert_eq!(comparison.resolved, []);
        assert_eq!(compare_content(&before, &after, |_| Expectation::Equal), []);
        let left = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'";
        assert_eq!(db.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
        let fast = db.checked_with(Options { level: Level::Fast, ..Options::default() }).await;
        assert_eq!(failures(&fast).len(), 4);
    })
    .await;
}
