//! What is only wrong in comparison: owners, grants, enums, statistics, advice; and published tables.

use super::*;

#[tokio::test]
async fn grants_and_owners_that_nobody_announced_and_views_made_again_without_theirs() {
    on_every_server(async |db| {
        let (reader, owner) = (db.role("reader").await, db.role("o'wner \"x\"").await);
        let (r, o) = (reader.quoted(), owner.quoted());
        db.sql(&format!(
            "CREATE TABLE users (id int, email text, phone text); CREATE VIEW v AS SELECT id FROM users;
            CREATE VIEW kept AS SELECT id FROM users; CREATE MATERIALIZED VIEW m AS SELECT id FROM users;
            CREATE TABLE swapped (id int, secret text); CREATE SCHEMA app; CREATE SEQUENCE s;
            CREATE TYPE mood AS ENUM ('a'); CREATE FUNCTION f(i int) RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE TABLE t1 (); CREATE TABLE t2 (); CREATE TABLE t3 (); CREATE TABLE t4 ();
            GRANT SELECT ON ALL TABLES IN SCHEMA public TO {r}; GRANT SELECT ON v TO {r} WITH GRANT OPTION;
            REVOKE SELECT ON users FROM {r}; GRANT SELECT (id, email), UPDATE (phone) ON users TO {r};
            GRANT SELECT (secret) ON swapped TO {r};
            GRANT USAGE ON SCHEMA app TO {r}; GRANT USAGE ON SEQUENCE s TO {r}; ALTER VIEW kept OWNER TO {o};
            ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO {r}"
        ))
        .await;
        let before = db.checked().await;
        assert_eq!(compared(&before, &db.checked().await).new, []);
        db.sql(&format!(
            "DROP VIEW v; CREATE VIEW v AS SELECT id, email FROM users;
            DROP VIEW kept; CREATE VIEW kept AS SELECT id FROM users; GRANT SELECT ON kept TO {r};
            CREATE TABLE swapped_new (id int, secret text); DROP TABLE swapped;
            ALTER TABLE swapped_new RENAME TO swapped; GRANT SELECT ON swapped TO {r};
            REVOKE SELECT (id) ON users FROM {r}; ALTER TABLE users DROP COLUMN phone;
            GRANT SELECT ON t2 TO PUBLIC; ALTER TABLE t3 OWNER TO {o};
            REVOKE ALL ON FUNCTION f FROM PUBLIC; REVOKE USAGE ON TYPE mood FROM PUBLIC;
            REVOKE USAGE ON SCHEMA app FROM {r}; REVOKE USAGE ON SEQUENCE s FROM {r};
            ALTER DEFAULT PRIVILEGES IN SCHEMA app REVOKE SELECT ON TABLES FROM {r};
            CREATE TABLE t5 ()"
        ))
        .await;
        let after = db.checked().await;
        let comparison = compared(&before, &after);
        let tell = |findings: &[Finding]| {
            let mut told: Vec<_> = findings
                .iter()
                .filter(|finding| finding.key.check == CheckKind::Privileges)
                .map(|finding| finding.detail.replace(&reader.name, "READER").replace(&owner.name, "OWNER"))
                .map(|told| told.replace(&owner.quoted(), "OWNER").replace(&owner.doubled(), "OWNER"))
                .collect();
            told.sort();
            told
        };
        let unsaid = "and nothing in the migration was seen to do that";
        assert_eq!(
            tell(&comparison.new),
            [
                format!("column id of users lost grants: SELECT to READER, {unsaid}"),
                "column secret of swapped was dropped and made again without its grants: SELECT to READER".into(),
                format!("default privileges of role postgres for tables in schema app lost grants: SELECT to READER, {unsaid}"),
                format!("function f(integer) lost grants: EXECUTE to PUBLIC, {unsaid}"),
                format!("schema app lost grants: USAGE to READER, {unsaid}"),
                format!("sequence s lost grants: USAGE to READER, {unsaid}"),
                format!("table t2 has new grants: SELECT to PUBLIC, {unsaid}"),
                format!("table t3 now belongs to OWNER and no longer to postgres, {unsaid}"),
                format!("type mood lost grants: USAGE to PUBLIC, {unsaid}"),
                "view kept was dropped and made again, and now belongs to postgres and no longer to OWNER".into(),
                "view v was dropped and made again without its grants: SELECT with grant option to READER".into(),
            ]
        );
        assert_eq!(
            tell(&comparison.notes),
            ["new table t5 lacks grants that nearly every table of its schema has: SELECT to READER"]
        );
        // What the SQL announces is shown; what was lost by making a view again is not announced by that.
        let announced = compare_announced(&before, &after, FailOn::New, &Accepted { privileges: true, ..Accepted::default() });
        assert_eq!(announced.new.len(), 3, "{:?}", details(&announced.new));
        // The repairs repair, with names that need quoting.
        for finding in comparison.new.iter().chain(&comparison.notes) {
            if let Some(repair) = &finding.repair_sql {
                db.sql(repair).await;
            }
        }
        db.sql(&format!(
            "REVOKE SELECT ON t2 FROM PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO {r}"
        ))
        .await;
        let repaired = compared(&before, &db.checked().await);
        assert_eq!(tell(&repaired.new), Vec::<String>::new());
        assert_eq!(tell(&repaired.notes), Vec::<String>::new());
        db.sql(&format!("DROP OWNED BY {r}, {o}; DROP ROLE {r}, {o}")).await;
    })
    .await;
}

#[tokio::test]
async fn enum_labels_that_are_gone_or_reordered() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); CREATE TYPE size AS ENUM ('s', 'm', 'l');
            CREATE TYPE gone AS ENUM ('x'); CREATE TABLE t (m mood, s size)",
        )
        .await;
        let before = db.checked().await;
        db.sql("ALTER TYPE mood ADD VALUE 'low' BEFORE 'sad'; DROP TYPE gone").await;
        db.sql("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'").await;
        let fine = compared(&before, &db.checked().await);
        assert_eq!(fine.new, []);
        assert_eq!(details(&fine.notes), ["label 'ok' of enum mood is called 'fine' now"]);
        db.sql(
            "CREATE TYPE size_new AS ENUM ('l', 's'); ALTER TABLE t ALTER s TYPE size_new USING s::text::size_new;
            DROP TYPE size; ALTER TYPE size_new RENAME TO size",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(
            details(&comparison.new),
            ["enum size sorts differently: its labels are 'l', 's' now, so comparisons and ORDER BY change"]
        );
        // The columns were converted: no row can have it.
        let gone = "enum size lost label 'm'; it was made again, and no row can have it any more";
        assert!(details(&comparison.notes).contains(&gone));
        // The commonest superuser's trick.
        db.sql("DELETE FROM pg_enum WHERE enumlabel = 'glad'").await;
        let comparison = compared(&before, &db.checked().await);
        assert!(details(&comparison.new).contains(&"enum mood lost label 'glad'"));
    })
    .await;
}

#[tokio::test]
async fn columns_that_lost_their_statistics_are_noted_and_analyzed_by_the_statement_that_is_told() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE \"odd \"\"t\" (id int, \"N\" int, kept int); CREATE TABLE made_again (id int);
            INSERT INTO \"odd \"\"t\" SELECT i, i, i FROM generate_series(1, 50) i;
            INSERT INTO made_again SELECT generate_series(1, 50); ANALYZE",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(compared(&before, &before).lost_statistics, []);
        db.sql(
            "ALTER TABLE \"odd \"\"t\" ALTER \"N\" TYPE bigint, DROP COLUMN id, ADD new int;
            CREATE TABLE n AS TABLE made_again; DROP TABLE made_again; ALTER TABLE n RENAME TO made_again",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(comparison.new, []);
        let mut notes = details(&comparison.notes);
        notes.sort_unstable();
        assert_eq!(
            notes,
            [
                "column N of \"odd \"\"t\" lost the planner's statistics",
                "column id of made_again lost the planner's statistics",
            ]
        );
        for lost in &comparison.lost_statistics {
            db.sql(&lost.analyze_sql()).await;
        }
        assert_eq!(compared(&before, &db.checked().await).lost_statistics, []);
    })
    .await;
}

#[tokio::test]
async fn published_tables_without_a_usable_replica_identity() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE with_key (id int PRIMARY KEY); CREATE TABLE without (id int); CREATE TABLE not_published (id int);
            CREATE TABLE by_index (id int NOT NULL); CREATE UNIQUE INDEX by_index_id ON by_index (id);
            ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id;
            CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
            CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL;
            CREATE TABLE p (k int) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p DEFAULT;
            CREATE PUBLICATION inserts FOR TABLE without WITH (publish = 'insert, truncate')",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), Vec::<&str>::new());
        db.sql(
            "CREATE PUBLICATION changes FOR TABLE with_key, by_index, late, whole, p WITH (publish_via_partition_root);
            CREATE PUBLICATION deletes FOR TABLE without WITH (publish = 'delete')",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        assert_eq!(
            details(&comparison.new),
            [
                "late is published (changes) without a usable replica identity: its UPDATE and DELETE will fail",
                "p1 is published (changes) without a usable replica identity: its UPDATE and DELETE will fail",
                "without is published (deletes) without a usable replica identity: its DELETE will fail",
            ]
        );
        // The server agrees about each.
        for (table, refused) in [("late", true), ("p", true), ("without", true), ("with_key", false), ("by_index", false), ("whole", false)] {
            db.sql(&format!("INSERT INTO {table} VALUES (1)")).await;
            let deleted = db.client.batch_execute(&format!("DELETE FROM {table}")).await;
            assert_eq!(deleted.is_err(), refused, "{table}");
        }
        for finding in &comparison.new {
            db.sql(finding.repair_sql.as_ref().unwrap()).await;
        }
        assert_eq!(compared(&before, &db.checked().await).new, []);
    })
    .await;
}

#[tokio::test]
async fn advice_is_given_about_what_is_new_and_never_fails() {
    on_every_server(async |db| {
        let advice = Options { only: vec![CheckKind::Advice], ..Options::default() };
        db.sql(
            "CREATE TABLE a (id int PRIMARY KEY, x int, y int); CREATE TABLE old (a_id int REFERENCES a);
            CREATE TABLE b (id int, a_id int, c int); CREATE INDEX one ON b (c);
            CREATE UNLOGGED TABLE scratch (id int); CREATE TABLE was_logged (id int)",
        )
        .await;
        let before = db.checked_with(advice.clone()).await;
        assert_eq!(before.findings.len(), 2, "{:?}", details(&before.findings));
        db.sql(
            "ALTER TABLE b ADD CONSTRAINT fk FOREIGN KEY (a_id) REFERENCES a NOT VALID;
            ALTER TABLE b ADD CONSTRAINT positive CHECK (c > 0) NOT VALID;
            CREATE INDEX two ON b (c); CREATE INDEX other ON b (c DESC); CREATE INDEX part ON b (c) WHERE id > 0;
            ALTER TABLE was_logged SET UNLOGGED",
        )
        .await;
        let comparison = compared(&before, &db.checked_with(advice.clone()).await);
        assert_eq!((comparison.new.len(), comparison.resolved.len()), (0, 0));
        let mut notes = details(&comparison.notes);
        notes.sort_unstable();
        assert_eq!(
            notes,
            [
                "constraint fk of b is NOT VALID: old rows were never checked against it",
                "constraint positive of b is NOT VALID: old rows were never checked against it",
                "foreign key fk of b (a_id) has no index: every DELETE and key UPDATE on the other side scans the table",
                "index two of b is the same as one: it costs every write and helps no query",
                "was_logged is UNLOGGED: a crash of the server empties it, and no standby has it",
            ]
        );
        for note in &comparison.notes {
            db.sql(note.repair_sql.as_ref().unwrap()).await;
        }
        assert_eq!(details(&compared(&before, &db.checked_with(advice).await).notes), Vec::<&str>::new());
    })
    .await;
}

#[tokio::test]
async fn a_prepared_transaction_that_nobody_ended_is_told() {
    let cluster = Cluster::start(18, &tests::Options::new().conf("max_prepared_transactions = 2"));
    let fresh = cluster.fresh_database("checks");
    let client = connect(&fresh.url().parse().unwrap()).await;
    client.batch_execute("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s left'").await.unwrap();
    let options = Options { only: vec![CheckKind::Advice], level: Level::Fast, ..Options::default() };
    let results = run(&client, &options).await.unwrap();
    assert_eq!(
        details(&results.findings),
        [
            "prepared transaction it's left of role postgres waits since 0 min: it keeps its locks and holds vacuum back"
        ]
    );
    client.batch_execute(results.findings[0].repair_sql.as_ref().unwrap()).await.unwrap();
    assert_eq!(run(&client, &options).await.unwrap().findings, []);
}
