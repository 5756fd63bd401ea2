//! The checks against real servers: every violation is made by the way it happens in life, or by editing the catalog.

use std::sync::atomic::{AtomicU32, Ordering};

use safe_run::check::{
    CheckKind, CheckResults, Comparison, Expectation, FailOn, Finding, Level, LossLimits, Options,
    RowComparison, Severity, compare, compare_rows, run, run_parallel, untouched,
};
use tests::Cluster;
use tokio_postgres::{Client, Config, NoTls};

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A fresh database on one server.
struct Database {
    config: Config,
    client: Client,
    version: i32,
}

/// Runs `test` on the oldest, a middle and the newest major version, each time in a database of its own.
async fn on_every_server(test: impl AsyncFn(&Database)) {
    for major in [14, 15, 18] {
        eprintln!("on PostgreSQL {major}");
        let cluster = Cluster::shared(major);
        let fresh = cluster.fresh_database("checks");
        let config: Config = fresh.url().parse().unwrap();
        let client = connect(&config).await;
        let version = i32::try_from(major).unwrap();
        test(&Database { config, client, version }).await;
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    async fn sql(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{error:?} in {sql}");
        }
    }

    async fn checked(&self) -> CheckResults {
        run(&self.client, &Options::default()).await.unwrap()
    }
}

fn details(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.detail.as_str()).collect()
}

fn failures(results: &CheckResults) -> Vec<&str> {
    results
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Failure)
        .map(|finding| finding.detail.as_str())
        .collect()
}

fn compared(before: &CheckResults, after: &CheckResults) -> Comparison {
    compare(before, after, FailOn::New)
}

fn rows(before: &CheckResults, after: &CheckResults, expected: &Expectation) -> RowComparison {
    compare_rows(before, after, |_| expected.clone(), &LossLimits::default())
}

const SHOP: &str = "
CREATE TABLE orders (id int PRIMARY KEY, total numeric NOT NULL CONSTRAINT total_positive CHECK (total > 0));
CREATE TABLE order_items (id serial PRIMARY KEY, order_id int REFERENCES orders (id), qty int);
INSERT INTO orders SELECT n, n FROM generate_series(1, 100) n;
INSERT INTO order_items (order_id, qty) SELECT n, 1 FROM generate_series(1, 100) n;";

/// Deletes orders and leaves their items: what happens when triggers are off.
const MAKE_ORPHANS: &str = "
SET session_replication_role = replica;
DELETE FROM orders WHERE id IN (17, 18, 44);
SET session_replication_role = origin;";

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
            rows(&before, &after, &Expectation::Equal).failing().next().unwrap().detail,
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
async fn old_orphans_under_not_valid_are_pre_existing_and_a_new_constraint_has_no_baseline() {
    on_every_server(async |db| {
        db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int); INSERT INTO b VALUES (1), (2)")
            .await;
        let without = db.checked().await;
        db.sql("ALTER TABLE b ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES a NOT VALID").await;
        let before = db.checked().await;
        assert_eq!(details(&compared(&without, &before).new), ["2 orphans in b.id -> a.id (keys 1, 2)"]);
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
    })
    .await;
}

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
        if db.version < 16 {
            assert_eq!(before.skipped.len(), 1, "{:?}", before.skipped);
            assert_eq!(before.skipped[0].object, "t (p (public.pair))");
        } else {
            assert_eq!(before.skipped, []);
        }
        // The rules are lifted while the rows are written, and put back unproven or by an edit of the catalog.
        db.sql(
            "ALTER TABLE t DROP CONSTRAINT n_small; ALTER TABLE keyless DROP CONSTRAINT keyless_n_check;
            ALTER DOMAIN positive DROP CONSTRAINT positive_check;
            ALTER DOMAIN small_positive DROP CONSTRAINT small_positive_check;
            ALTER DOMAIN word DROP CONSTRAINT lower_case; ALTER DOMAIN word DROP NOT NULL;
            UPDATE t SET n = 11 WHERE id IN (3, 4); UPDATE t SET d = -1 WHERE id = 5;
            UPDATE t SET d = 200 WHERE id = 6; UPDATE t SET arr = '{1,-2}' WHERE id = 7;
            UPDATE t SET w = 'X' WHERE id = 8; UPDATE t SET w = NULL WHERE id = 9;
            UPDATE t SET p = (-1, 1) WHERE id = 10; UPDATE t SET nullable = NULL WHERE id = 2;
            INSERT INTO keyless VALUES (-1), (-2);
            ALTER TABLE t ADD CONSTRAINT n_small CHECK (n < 10 OR value IS NULL) NOT VALID;
            ALTER TABLE keyless ADD CONSTRAINT keyless_n_check CHECK (n > 0) NOT VALID;
            ALTER DOMAIN positive ADD CONSTRAINT positive_check CHECK (VALUE > 0) NOT VALID;
            ALTER DOMAIN small_positive ADD CONSTRAINT small_positive_check CHECK (VALUE < 100) NOT VALID;
            ALTER DOMAIN word ADD CONSTRAINT lower_case CHECK (VALUE = lower(VALUE)) NOT VALID;
            UPDATE pg_type SET typnotnull = true WHERE typname = 'word';
            UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 't'::regclass AND attname IN ('nullable', 'value')",
        )
        .await;
        let after = db.checked().await;
        let mut expected = vec![
            "2 rows violate CHECK keyless_n_check of keyless",
            "2 rows violate CHECK n_small of t (keys 3, 4)",
            "1 row violates NOT NULL of t.nullable (key 2)",
            "1 row violates NOT NULL of t.value (key 2)",
            "1 row violates the domain of t.arr (public.positive[]) (key 7)",
            "1 row violates the domain of t.d (public.small_positive) (key 5)",
            "1 row violates the domain of t.d (public.small_positive) (key 6)",
            "1 row violates the domain of t.w (public.word) (key 8)",
            "1 row violates the domain of t.w (public.word) (key 9)",
        ];
        if db.version >= 16 {
            expected.push("1 row violates the domain of t.p (public.pair) (key 10)");
        }
        let mut found = details(&after.findings);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(compared(&before, &after).fails());
        assert_eq!(compared(&after, &db.checked().await).new, []);
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
async fn triggers_rules_and_policies_left_switched_off_are_found() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE FUNCTION g() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
            CREATE TRIGGER audit BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f();
            CREATE TRIGGER old BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f();
            ALTER TABLE orders DISABLE TRIGGER old;
            CREATE RULE r AS ON DELETE TO orders DO ALSO NOTHING;
            CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION g();
            ALTER TABLE orders ENABLE ROW LEVEL SECURITY; ALTER TABLE orders FORCE ROW LEVEL SECURITY;
            CREATE POLICY pol ON orders USING (true)",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(details(&before.findings), ["trigger old of orders is disabled"]);
        db.sql(
            "ALTER TABLE order_items DISABLE TRIGGER ALL; ALTER TABLE orders DISABLE TRIGGER audit;
            ALTER TABLE orders DISABLE RULE r; ALTER EVENT TRIGGER et DISABLE;
            ALTER TABLE orders DISABLE ROW LEVEL SECURITY; ALTER TABLE orders NO FORCE ROW LEVEL SECURITY",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        let mut new = details(&comparison.new);
        new.sort_unstable();
        assert_eq!(
            new,
            [
                "constraint order_items_order_id_fkey is not enforced on order_items: its internal trigger is disabled",
                "event trigger et is disabled",
                "row level security of orders is switched off: its 1 policy is not applied",
                "rule r of orders is disabled",
                "trigger audit of orders is disabled",
            ]
        );
        assert_eq!(details(&comparison.notes), ["row level security of orders no longer binds its owner"]);
        assert_eq!(comparison.pre_existing.len(), 1);
        for finding in &comparison.new {
            db.sql(finding.repair_sql.as_ref().unwrap()).await;
        }
        assert_eq!(compared(&before, &db.checked().await).new, []);
    })
    .await;
}

#[tokio::test]
async fn sequences_behind_their_column_or_moved_backwards_are_found() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(
            "CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY, v int);
            INSERT INTO ident (v) SELECT n FROM generate_series(1, 5) n;
            CREATE SEQUENCE shared; CREATE TABLE d (id int UNIQUE DEFAULT nextval('shared'), not_unique serial);
            INSERT INTO d DEFAULT VALUES; INSERT INTO d DEFAULT VALUES;
            CREATE SEQUENCE cycling MAXVALUE 5 CYCLE; CREATE TABLE c (id int UNIQUE DEFAULT nextval('cycling'));
            INSERT INTO c VALUES (1), (5);
            CREATE SEQUENCE free; SELECT setval('free', 10);
            CREATE TABLE p (id bigserial, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
            CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p (k) VALUES (1), (1);
            CREATE TABLE low (id smallserial PRIMARY KEY); SELECT setval('low_id_seq', 30000)",
        )
        .await;
        let before = db.checked().await;
        assert_eq!(
            details(&before.findings),
            ["sequence low_id_seq has 2,767 values left (8.4 %) for low.id"]
        );
        assert_eq!(failures(&before), Vec::<&str>::new());
        db.sql(
            "SELECT setval('order_items_id_seq', 1, false), setval('ident_id_seq', -5, false), setval('shared', 1),
            setval('d_not_unique_seq', 1, false), setval('cycling', 1), setval('free', 3), setval('p_id_seq', 1)",
        )
        .await;
        let comparison = compared(&before, &db.checked().await);
        let mut new = details(&comparison.new);
        new.sort_unstable();
        assert_eq!(
            new,
            [
                "sequence d_not_unique_seq moved backwards: its next value was 3 and is 1 now",
                "sequence free moved backwards: its next value was 11 and is 4 now",
                "sequence ident_id_seq will give -5 next, but ident.id already has -5",
                "sequence order_items_id_seq will give 1 next, but order_items.id already has 100",
                "sequence p_id_seq will give 2 next, but p.id already has 2",
                "sequence shared will give 2 next, but d.id already has 2",
            ]
        );
        for finding in &comparison.new {
            db.sql(finding.repair_sql.as_ref().unwrap()).await;
        }
        assert_eq!(compared(&before, &db.checked().await).new, []);
    })
    .await;
}

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
        let comparison = rows(&before, &after, &Expectation::MustAcknowledge { why });
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
        assert_eq!(rows(&after, &results, &Expectation::Equal).not_compared, ["orders", "hidden"]);
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
        assert_eq!(rows(&before, &after, &Expectation::Equal).changes, []);
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
        assert_eq!(
            details(&compared(&before, &after).new),
            ["1 orphan in still.n -> orders.id (key -1)", "1 row violates CHECK n_positive of still (key 1)"]
        );
        let comparison = rows(&before, &after, &Expectation::Equal);
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
        let alone = db.checked().await;
        let mut together =
            run_parallel(&[&others[0], &others[1], &db.client], &Options::default()).await.unwrap();
        together.took = alone.took.clone();
        assert_eq!(alone, together);
        assert_eq!(alone.findings.len(), 1);
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

/// A run may be spawned: this does not compile otherwise.
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

#[tokio::test]
async fn the_levels_and_the_lists_of_checks_choose_what_runs() {
    on_every_server(async |db| {
        db.sql(SHOP).await;
        db.sql(MAKE_ORPHANS).await;
        db.sql("ALTER TABLE orders DISABLE TRIGGER ALL").await;
        let kinds = async |options: Options| {
            let results = run(&db.client, &options).await.unwrap();
            let mut kinds: Vec<_> = results.findings.iter().map(|finding| finding.key.check).collect();
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
