//! What is switched off, and sequences that stand wrong.

use super::*;

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
                "row level security of orders is off: its 1 policy is not applied",
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
